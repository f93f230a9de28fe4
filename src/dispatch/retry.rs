//! When a refused attempt is made again. The schedule depends on why it was refused, the jitter on the message's id: no chance, so
//! that the same history gives the same instants, and a hundred thousand messages refused in one second do not come back in one.

use crate::channel::RetryClass;
use crate::engine::action::MessageId;
use crate::engine::profile::Category;
use crate::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Timestamp};

/// The waits of a transient failure; the last one repeats. RFC 5321 asks relays for 30 minutes and more between tries, and for
/// patience of days; a first greylisting is over sooner.
const TRANSIENT_MS: [i64; 6] = [5 * MINUTE_MS, 15 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS, 4 * HOUR_MS];
/// Throttled without a word for how long: 30-60 s, then twice that, up to half an hour.
const THROTTLE_MS: i64 = MINUTE_MS;
const THROTTLE_MAX_MS: i64 = 30 * MINUTE_MS;
/// While our account is refused, somebody may mend it any minute.
const PROBE_MS: i64 = 60 * SECOND_MS;

/// A message whose attempt failed.
#[derive(Debug, Clone, Copy)]
pub struct Attempted {
    pub message: MessageId,
    pub category: Category,
    /// This one included.
    pub attempts: u32,
    pub first_attempt_at: Timestamp,
    pub expires_at: Timestamp,
    /// The policy's: so many attempts after the first, while the fault is the connection's or the provider's.
    pub retries: Option<u32>,
}

/// The instant of the next attempt, its deadline at the latest; none: it is given up (`dead`). A provider's own word (`after_ms`)
/// goes before the schedule. Throttling and a refused account are no fault of the message: only its deadline ends it.
pub fn next(class: RetryClass, after_ms: Option<i64>, attempted: Attempted, now: Timestamp) -> Option<Timestamp> {
    if now >= attempted.expires_at {
        return None;
    }
    if class == RetryClass::Transient && attempted.retries.is_some_and(|retries| attempted.attempts > retries) {
        return None;
    }
    let wait_ms = match (class, after_ms) {
        (_, Some(after_ms)) => after_ms.max(SECOND_MS),
        (RetryClass::Throttle, None) => {
            let doubled = THROTTLE_MS << attempted.attempts.saturating_sub(1).min(8);
            let full = doubled.min(THROTTLE_MAX_MS);
            full / 2 + jitter(attempted, full / 2)
        }
        (RetryClass::Transient, None) => {
            let index = attempted.attempts.saturating_sub(1) as usize;
            // full jitter, but never at once: the cause is seldom gone within seconds
            let full = TRANSIENT_MS.get(index).or(TRANSIENT_MS.last()).copied().unwrap_or(HOUR_MS);
            full / 10 + jitter(attempted, full - full / 10)
        }
        (RetryClass::Config, None) => PROBE_MS,
    };
    let at = now.plus_ms(wait_ms);
    if class == RetryClass::Transient && at > attempted.first_attempt_at.plus_ms(max_age_ms(attempted.category)) {
        return None;
    }
    Some(at.min(attempted.expires_at))
}

/// How long after its first attempt a message is still tried.
fn max_age_ms(category: Category) -> i64 {
    match category {
        Category::Marketing => DAY_MS,
        Category::Service => 3 * DAY_MS,
        Category::Transactional => 4 * DAY_MS,
    }
}

/// A stable part of `span_ms`, different at each attempt.
fn jitter(attempted: Attempted, span_ms: i64) -> i64 {
    let mut seed = attempted.message.0.to_be_bytes().to_vec();
    seed.extend_from_slice(&attempted.attempts.to_be_bytes());
    let hash = twox_hash::XxHash3_64::oneshot(&seed);
    (hash % u64::try_from(span_ms.max(1)).unwrap_or(1)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempted(attempts: u32) -> Attempted {
        let first_attempt_at = Timestamp::from_ms(0);
        let expires_at = Timestamp::from_ms(10 * DAY_MS);
        Attempted { message: MessageId(7 << 64 | 9), category: Category::Marketing, attempts, first_attempt_at, expires_at, retries: None }
    }

    #[test]
    fn transient_failures_wait_longer_each_time_and_end_after_their_age() {
        let now = Timestamp::from_ms(0);
        for (attempts, full) in [(1, 5 * MINUTE_MS), (2, 15 * MINUTE_MS), (4, HOUR_MS), (6, 4 * HOUR_MS), (40, 4 * HOUR_MS)] {
            let at = next(RetryClass::Transient, None, attempted(attempts), now).expect("another try");
            assert!((full / 10..=full).contains(&at.as_ms()), "{attempts}: {at}");
            assert_eq!(next(RetryClass::Transient, None, attempted(attempts), now), Some(at), "no chance in it");
        }
        let day_later = Timestamp::from_ms(DAY_MS);
        assert_eq!(next(RetryClass::Transient, None, attempted(6), day_later), None);
        let patient = Attempted { category: Category::Transactional, ..attempted(6) };
        assert!(next(RetryClass::Transient, None, patient, day_later).is_some());
        let limited = |attempts| next(RetryClass::Transient, None, Attempted { retries: Some(2), ..attempted(attempts) }, now);
        assert!(limited(2).is_some() && limited(3).is_none(), "two retries are three attempts");
    }

    #[test]
    fn throttling_and_a_refused_account_end_only_by_the_deadline() {
        let late = Timestamp::from_ms(9 * DAY_MS);
        let first = next(RetryClass::Throttle, None, attempted(1), late).expect("another try");
        assert!((30_000..60_000).contains(&first.ms_since(late)));
        assert_eq!(next(RetryClass::Config, None, attempted(50), late), Some(late.plus_ms(PROBE_MS)));
        assert_eq!(next(RetryClass::Throttle, Some(5 * DAY_MS), attempted(3), late), Some(Timestamp::from_ms(10 * DAY_MS)));
        assert_eq!(next(RetryClass::Throttle, None, attempted(3), Timestamp::from_ms(10 * DAY_MS)), None);
    }
}
