//! How many messages a channel's provider is given in a while: the policy's `rate` (200 in each second), its `warm_up` (2,000 on the
//! first day, 30 % more each day after), and a pause that the provider itself asks for.
//!
//! Days are counted from what is on record, so that a restart forgets none; shorter whiles begin anew with the process.
//!
//! A message that finds no room is given a place in a later window and waits, queued, until that begins: so a wave of a hundred
//! thousand is put off once each, and not asked again every second.

use std::collections::{BTreeMap, HashMap};

use crate::engine::action::MessageId;
use crate::engine::rule::{ChannelPolicy, Rate, WarmUp};
use crate::engine::time::{DAY_MS, Timestamp};

/// More places are not kept: who comes after waits for the last window and asks again.
const PLACES_MAX: usize = 500_000;
/// So many days of growth and a warm-up is over: at 1 % a day it has grown thirtyfold by then.
const WARM_UP_DAYS_MAX: i64 = 365;

/// One channel's.
#[derive(Debug, Default)]
pub struct Budget {
    rate: Windows,
    day: Windows,
    paused_until: Option<Timestamp>,
    /// The first day on which the provider was given anything.
    first_day: Option<i64>,
}

/// Why there is no room, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoom {
    pub until: Timestamp,
    pub because: String,
}

impl Budget {
    /// What was sent before this process: by day (its first instant), how many.
    pub fn remember(&mut self, days: &[(Timestamp, u64)]) {
        for (day, sent) in days {
            let day = day.as_ms().div_euclid(DAY_MS);
            self.first_day = Some(self.first_day.map_or(day, |first| first.min(day)));
            self.day.taken.insert(day, *sent);
        }
    }

    /// The provider asked for a pause.
    pub fn pause(&mut self, until: Timestamp) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// Takes room for one message.
    ///
    /// # Errors
    /// There is none now.
    pub fn take(&mut self, message: MessageId, policy: &ChannelPolicy, now: Timestamp) -> Result<(), NoRoom> {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(NoRoom { until, because: "the provider asked us to wait".into() });
        }
        let today = now.as_ms().div_euclid(DAY_MS);
        let daily = policy.rate.filter(|rate| rate.per_ms == DAY_MS);
        if policy.warm_up.is_some() || daily.is_some() {
            let first = *self.first_day.get_or_insert(today);
            let warm_up = |day| policy.warm_up.map_or(u64::MAX, |warm_up| warm_up_limit(warm_up, day - first));
            let limit = |day| warm_up(day).min(daily.map_or(u64::MAX, |rate| rate.count));
            let taken = self.day.take(message, DAY_MS, &limit, now);
            taken.map_err(|until| NoRoom { until, because: "what may be sent in a day is used up".into() })?;
        }
        if let Some(Rate { count, per_ms }) = policy.rate.filter(|rate| rate.per_ms != DAY_MS) {
            let taken = self.rate.take(message, per_ms, &|_| count, now);
            taken.map_err(|until| NoRoom { until, because: format!("{count} messages were sent in this time") })?;
        }
        Ok(())
    }
}

/// The messages of the `days`-th day (from 0) of a warm-up.
fn warm_up_limit(warm_up: WarmUp, days: i64) -> u64 {
    let growth = 1.0 + f64::from(warm_up.grow_bp) / 10_000.0;
    let days = i32::try_from(days.clamp(0, WARM_UP_DAYS_MAX)).unwrap_or(i32::MAX);
    // a float beyond what an integer holds becomes the largest one
    (warm_up.start.count as f64 * growth.powi(days)) as u64
}

/// Windows of one length, by number since 1970 (UTC).
#[derive(Debug, Default)]
struct Windows {
    taken: BTreeMap<i64, u64>,
    places: HashMap<MessageId, i64>,
    /// The first window that may have room: those before it are full.
    free_from: i64,
}

impl Windows {
    fn take(&mut self, message: MessageId, per_ms: i64, limit: &dyn Fn(i64) -> u64, now: Timestamp) -> Result<(), Timestamp> {
        let current = now.as_ms().div_euclid(per_ms);
        self.forget_before(current);
        if let Some(window) = self.places.get(&message).copied() {
            if window > current {
                return Err(Timestamp::from_ms(window * per_ms));
            }
            self.places.remove(&message);
            if window == current {
                return Ok(()); // counted as it was given its place
            }
        }
        let mut window = self.free_from.max(current);
        while self.taken.get(&window).copied().unwrap_or(0) >= limit(window).max(1) {
            window += 1;
        }
        self.free_from = window;
        if window > current && self.places.len() >= PLACES_MAX {
            return Err(Timestamp::from_ms(window * per_ms));
        }
        *self.taken.entry(window).or_default() += 1;
        if window == current {
            return Ok(());
        }
        self.places.insert(message, window);
        Err(Timestamp::from_ms(window * per_ms))
    }

    fn forget_before(&mut self, current: i64) {
        let old = self.taken.first_key_value().is_some_and(|(window, _)| *window < current);
        if old {
            self.taken = self.taken.split_off(&current);
            // a place that passed unused (the message was cancelled, or came late) is nobody's
            self.places.retain(|_, window| *window >= current - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rule::Place;
    use crate::engine::time::SECOND_MS;

    fn policy(rate: Option<Rate>, warm_up: Option<WarmUp>) -> ChannelPolicy {
        ChannelPolicy {
            provider: "p".into(),
            place: Place { file: "policy.yaml".into(), line: 1, column: 1 },
            timeout_ms: None,
            retries: None,
            rate,
            warm_up,
            templates_only: false,
            sender: None,
            cost_micros: None,
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(1_700_000_000_000 + ms)
    }

    #[test]
    fn a_wave_is_spread_over_the_windows_and_each_message_waits_once() {
        let policy = policy(Some(Rate { count: 100, per_ms: SECOND_MS }), None);
        let mut budget = Budget::default();
        let mut waiting: Vec<(Timestamp, MessageId)> = Vec::new();
        let mut went = 0;
        for id in 0..1_000 {
            match budget.take(MessageId(id), &policy, at(10)) {
                Ok(()) => went += 1,
                Err(NoRoom { until, .. }) => waiting.push((until, MessageId(id))),
            }
        }
        assert_eq!((went, waiting.len()), (100, 900));
        // a stranger in between does not take a place that is given away
        assert_eq!(budget.take(MessageId(5_000), &policy, at(1_000)).expect_err("full").until, at(10_000));
        for (until, id) in waiting {
            assert_eq!(budget.take(id, &policy, until), Ok(()), "{id}");
        }
    }

    #[test]
    fn no_window_is_ever_given_more_than_its_rate() {
        let policy = policy(Some(Rate { count: 7, per_ms: SECOND_MS }), None);
        let (mut budget, mut sent) = (Budget::default(), BTreeMap::<i64, u64>::new());
        let mut queue: BTreeMap<(Timestamp, u128), ()> = (0..500).map(|id: u128| ((at((id * 13 % 9_000) as i64), id), ())).collect();
        let mut asked = 0;
        while let Some(((now, id), ())) = queue.pop_first() {
            asked += 1;
            match budget.take(MessageId(id), &policy, now) {
                Ok(()) => *sent.entry(now.as_ms().div_euclid(SECOND_MS)).or_default() += 1,
                Err(NoRoom { until, .. }) => _ = queue.insert((until.max(now.plus_ms(1)), id), ()),
            }
        }
        assert_eq!(sent.values().sum::<u64>(), 500);
        assert!(sent.values().all(|count| *count <= 7), "{sent:?}");
        assert!(asked <= 1_000, "asked {asked} times");
    }

    #[test]
    fn a_warm_up_grows_by_the_day_and_remembers_what_went_before() {
        let warm_up = WarmUp { start: Rate { count: 10, per_ms: DAY_MS }, grow_bp: 5_000 };
        assert_eq!([0, 1, 2, 3].map(|day| warm_up_limit(warm_up, day)), [10, 15, 22, 33]);
        assert!(warm_up_limit(WarmUp { grow_bp: 10_000, ..warm_up }, i64::MAX) > 1 << 60);
        let policy = policy(None, Some(warm_up));
        let day = Timestamp::from_ms(at(0).as_ms().div_euclid(DAY_MS) * DAY_MS);
        let mut budget = Budget::default();
        budget.remember(&[(day.plus_ms(-DAY_MS), 10), (day, 14)]);
        assert_eq!(budget.take(MessageId(1), &policy, at(0)), Ok(()), "the fifteenth of the second day");
        assert_eq!(budget.take(MessageId(2), &policy, at(0)).expect_err("used up").until, day.plus_ms(DAY_MS));
    }

    #[test]
    fn a_pause_that_the_provider_asks_for_holds_everything() {
        let (mut budget, policy) = (Budget::default(), policy(None, None));
        budget.pause(at(5_000));
        budget.pause(at(3_000));
        assert_eq!(budget.take(MessageId(1), &policy, at(0)).expect_err("paused").until, at(5_000));
        assert_eq!(budget.take(MessageId(1), &policy, at(5_000)), Ok(()));
    }
}
