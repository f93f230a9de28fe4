//! The only place that reads the wall clock. Everything else is given its `now`.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::engine::time::Timestamp;
use crate::faults;

/// Says what time it is.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The time of the machine. A step back of the machine's clock is seen as it is: what must not go backwards (stamps of slots,
/// decisions) is kept from it where it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(jiff::Timestamp::now().as_millisecond() + faults::clock_offset_ms())
    }
}

/// A time that stands still until somebody moves it: replays and tests.
#[derive(Debug, Default)]
pub struct VirtualClock(AtomicI64);

impl VirtualClock {
    pub fn at(now: Timestamp) -> Self {
        VirtualClock(AtomicI64::new(now.as_ms()))
    }

    /// Moves on to `now`; an earlier instant is ignored, because time does not run backwards.
    pub fn advance_to(&self, now: Timestamp) {
        self.0.fetch_max(now.as_ms(), Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::Relaxed))
    }
}

/// Measures how long something took, for people; nothing is decided by it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch(std::time::Instant::now())
    }

    pub fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

/// Notices that a clock was set: it went otherwise than time did.
#[derive(Clone, Copy, Debug)]
pub struct StepWatch {
    at: Timestamp,
    since: Stopwatch,
}

/// A difference up to this is a clock that is being kept right.
const STEP_MIN_MS: i64 = 10_000;

impl StepWatch {
    pub fn start(now: Timestamp) -> Self {
        StepWatch { at: now, since: Stopwatch::start() }
    }

    /// By how much the clock was set since the last look, forward or back.
    pub fn look(&mut self, now: Timestamp) -> Option<i64> {
        let passed_ms = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let step_ms = now.ms_since(self.at).saturating_sub(passed_ms);
        *self = StepWatch::start(now);
        (step_ms.abs() > STEP_MIN_MS).then_some(step_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_never_runs_backwards() {
        let clock = VirtualClock::at(Timestamp::from_ms(1000));
        clock.advance_to(Timestamp::from_ms(2000));
        clock.advance_to(Timestamp::from_ms(1500));
        assert_eq!(clock.now(), Timestamp::from_ms(2000));
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_once_and_one_that_is_kept_right_never() {
        let begun = Timestamp::from_ms(1_000_000);
        let mut steps = StepWatch::start(begun);
        assert_eq!(steps.look(begun.plus_ms(5_000)), None);
        let set = begun.plus_ms(5_000 + 86_400_000);
        assert!(steps.look(set).is_some_and(|step_ms| step_ms > 86_000_000));
        assert_eq!(steps.look(set), None);
        assert!(steps.look(begun).is_some_and(|step_ms| step_ms < -86_000_000));
    }
}
