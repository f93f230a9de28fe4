//! A breaker for each provider: after failures in a row it lets nothing through but one probe a minute, so that a provider that
//! is down costs one attempt a minute and not the patience of every message. Messages wait meanwhile, queued; none fails by it.
//!
//! In memory: after a restart it takes six attempts to know again.

use std::collections::VecDeque;

use crate::engine::action::MessageId;
use crate::engine::time::{MINUTE_MS, Timestamp};

/// More failures in a row open it.
const CONSECUTIVE_MAX: u32 = 5;
/// Or this share of at least so many within a minute.
const RECENT_MIN: usize = 20;
const RECENT_MS: i64 = MINUTE_MS;
const RECENT_MAX: usize = 1_000;
/// From one probe to the next; doubled as they fail.
const WAIT_MS: i64 = MINUTE_MS;
const WAIT_MAX_MS: i64 = 10 * MINUTE_MS;

/// What an answer says of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It works, whatever it thinks of the message.
    Works,
    /// It, or the way to it, failed.
    Failed,
    /// It refuses our account: so it will for every message, until somebody mends it.
    Refuses,
}

#[derive(Clone, Debug, Default)]
pub struct Breaker {
    consecutive: u32,
    recent: VecDeque<(Timestamp, bool)>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// Then one probe may go.
    until: Timestamp,
    wait_ms: i64,
    probe: Option<MessageId>,
}

impl Breaker {
    /// Whether a message may go.
    ///
    /// # Errors
    /// It is open, until then.
    pub fn admit(&mut self, message: MessageId, now: Timestamp) -> Result<(), Timestamp> {
        match &mut self.open {
            None => Ok(()),
            Some(open) if now < open.until => Err(open.until),
            Some(open) => {
                // the probe; if nothing is ever heard of it, the next one goes after the same wait
                open.until = now.plus_ms(open.wait_ms);
                open.probe = Some(message);
                Ok(())
            }
        }
    }

    /// Whether a message that was admitted may still go: what opened meanwhile lets only its probe through.
    pub fn lets(&self, message: MessageId) -> bool {
        self.open.is_none_or(|open| open.probe == Some(message))
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes an answer in; true: the breaker changed. While it is open only its probe's failure counts: those that were under way as it
    /// opened say nothing new.
    pub fn hear(&mut self, message: MessageId, heard: Heard, now: Timestamp) -> bool {
        let was_open = self.open.is_some();
        if heard == Heard::Works {
            self.consecutive = 0;
            self.remember(now, true);
            if was_open {
                self.recent.clear();
                self.open = None;
            }
            return was_open;
        }
        self.consecutive = self.consecutive.saturating_add(1);
        self.remember(now, false);
        if let Some(open) = &mut self.open {
            if open.probe != Some(message) {
                return false;
            }
            open.wait_ms = (open.wait_ms * 2).min(WAIT_MAX_MS);
            open.until = now.plus_ms(open.wait_ms);
            open.probe = None;
            return false;
        }
        let failures = self.recent.iter().filter(|(_, good)| !good).count();
        let is_half = self.recent.len() >= RECENT_MIN && failures * 2 >= self.recent.len();
        if heard == Heard::Refuses || self.consecutive > CONSECUTIVE_MAX || is_half {
            self.open = Some(Open { until: now.plus_ms(WAIT_MS), wait_ms: WAIT_MS, probe: None });
        }
        self.open.is_some()
    }

    fn remember(&mut self, now: Timestamp, good: bool) {
        while self.recent.front().is_some_and(|(at, _)| now.ms_since(*at) > RECENT_MS) || self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((now, good));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId(7);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_ms(seconds * 1000)
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_probe_that_works_closes_it() {
        let mut breaker = Breaker::default();
        for n in 0..5 {
            assert!(!breaker.hear(ID, Heard::Failed, at(n)) && breaker.admit(ID, at(n)).is_ok(), "{n}");
        }
        assert!(breaker.hear(ID, Heard::Failed, at(5)));
        // what was under way fails, too, and puts the probe off no further
        assert!((0..30).all(|n| !breaker.hear(MessageId(n + 100), Heard::Failed, at(6))));
        assert_eq!(breaker.admit(ID, at(6)), Err(at(65)));
        // one probe, and only one
        assert_eq!(breaker.admit(ID, at(65)), Ok(()));
        assert!(breaker.lets(ID) && !breaker.lets(MessageId(8)));
        assert_eq!(breaker.admit(ID, at(65)), Err(at(125)));
        assert!(!breaker.hear(ID, Heard::Failed, at(66)));
        assert_eq!(breaker.admit(ID, at(100)), Err(at(66 + 120)), "waits twice as long after a probe that failed");
        assert_eq!(breaker.admit(ID, at(186)), Ok(()));
        assert!(breaker.hear(ID, Heard::Works, at(187)));
        assert_eq!(breaker.admit(ID, at(187)), Ok(()));
        assert!(!breaker.hear(ID, Heard::Failed, at(188)), "the count begins anew");
    }

    #[test]
    fn half_of_twenty_within_a_minute_open_it_and_half_of_an_hour_do_not() {
        let mut breaker = Breaker::default();
        let opened = (0..20).map(|n| breaker.hear(ID, if n % 2 == 0 { Heard::Works } else { Heard::Failed }, at(n))).collect::<Vec<_>>();
        assert_eq!(opened.iter().position(|opened| *opened), Some(19));
        let mut slow = Breaker::default();
        assert!((0..40).all(|n| !slow.hear(ID, if n % 2 == 0 { Heard::Works } else { Heard::Failed }, at(n * 60))));
    }

    #[test]
    fn a_refused_account_opens_it_at_once_and_refused_messages_never() {
        let mut breaker = Breaker::default();
        assert!(breaker.hear(ID, Heard::Refuses, at(0)) && breaker.is_open());
        let mut breaker = Breaker::default();
        assert!((0..100).all(|n| !breaker.hear(ID, Heard::Works, at(n))));
    }
}
