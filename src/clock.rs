//! The only place that reads the wall clock. Everything else is given its `now`.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::engine::time::Timestamp;

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
        Timestamp::from_ms(jiff::Timestamp::now().as_millisecond())
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
}
