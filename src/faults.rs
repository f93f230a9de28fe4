//! Faults on purpose. A test names a [`Point`] in the environment of the process, and the process ends there as by `kill -9`:
//! nothing is tidied, flushed or told. Or it names a file with an offset, and the wall clock of the process goes by it.
//!
//! **Only where debug assertions are compiled in.** A release build has none of this: [`Point::reach`] is empty, the offset is nought,
//! and no variable is read. So what is tested is the program that ships, but for the instant at which it dies.

#[cfg(debug_assertions)]
pub use self::armed::clock_offset_ms;

/// `POINT`, or `POINT:N` for the N-th time that it is reached.
pub const CRASH_AT: &str = "REKINDLE_CRASH_AT";
/// The key of a person: whoever decides about them dies of it.
pub const CRASH_OVER: &str = "REKINDLE_CRASH_OVER";
/// Path of a file with a number of milliseconds, read at every look at the clock.
pub const CLOCK_OFFSET: &str = "REKINDLE_CLOCK_OFFSET";

/// Where a process may be made to die: before and after whatever is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Events are read, nothing is on disk.
    IngestReceived,
    /// Events are on disk, their sender has not been told.
    IngestAppended,
    /// People are claimed, nothing is decided.
    EvaluateClaimed,
    /// It is decided about everybody, nothing is written.
    EvaluateDecided,
    EvaluateCommitted,
    /// Messages are claimed, no gate has been asked.
    DispatchClaimed,
    /// The gates have answered, no intent is written.
    DispatchIntending,
    /// Intents are on disk, nothing is rendered.
    DispatchIntended,
    /// The next thing is the first byte to a provider.
    DispatchLeaving,
    /// A mail is out, final dot included; its answer has not been read.
    SmtpDot,
    /// Providers have answered, no result is written.
    DispatchAnswered,
    DispatchRecorded,
    /// Within a transaction, before its COMMIT.
    StoreWriting,
    /// After a COMMIT, before whoever waits for it is told.
    StoreWritten,
    /// A rule set is sound, nothing is written.
    RulesPublishing,
    /// It is live on record; the process goes by the one before, and nobody has a first look coming.
    RulesPublished,
    /// The process goes by it, first looks are still to come.
    RulesInUse,
}

impl Point {
    pub const ALL: [Point; 17] = [
        Point::IngestReceived,
        Point::IngestAppended,
        Point::EvaluateClaimed,
        Point::EvaluateDecided,
        Point::EvaluateCommitted,
        Point::DispatchClaimed,
        Point::DispatchIntending,
        Point::DispatchIntended,
        Point::DispatchLeaving,
        Point::SmtpDot,
        Point::DispatchAnswered,
        Point::DispatchRecorded,
        Point::StoreWriting,
        Point::StoreWritten,
        Point::RulesPublishing,
        Point::RulesPublished,
        Point::RulesInUse,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Point::IngestReceived => "ingest.received",
            Point::IngestAppended => "ingest.appended",
            Point::EvaluateClaimed => "evaluate.claimed",
            Point::EvaluateDecided => "evaluate.decided",
            Point::EvaluateCommitted => "evaluate.committed",
            Point::DispatchClaimed => "dispatch.claimed",
            Point::DispatchIntending => "dispatch.intending",
            Point::DispatchIntended => "dispatch.intended",
            Point::DispatchLeaving => "dispatch.leaving",
            Point::SmtpDot => "smtp.dot",
            Point::DispatchAnswered => "dispatch.answered",
            Point::DispatchRecorded => "dispatch.recorded",
            Point::StoreWriting => "store.writing",
            Point::StoreWritten => "store.written",
            Point::RulesPublishing => "rules.publishing",
            Point::RulesPublished => "rules.published",
            Point::RulesInUse => "rules.in_use",
        }
    }

    /// Ends the process if a test wants it to end here.
    #[inline]
    pub fn reach(self) {
        #[cfg(debug_assertions)]
        armed::reach(self);
    }
}

/// Ends the process if a test wants it to end over this person.
#[inline]
pub fn die_over(_key: &str) {
    #[cfg(debug_assertions)]
    armed::die_over(_key);
}

/// How far the wall clock is off: nothing, but in a test.
#[cfg(not(debug_assertions))]
#[inline]
pub fn clock_offset_ms() -> i64 {
    0
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{CLOCK_OFFSET, CRASH_AT, CRASH_OVER, Point};

    /// Where, and how often it is still passed.
    struct Armed {
        at: String,
        left: AtomicU32,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let wanted = std::env::var(CRASH_AT).ok()?;
        let (at, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some(Armed { at: at.to_owned(), left: AtomicU32::new(nth.parse().unwrap_or(1)) })
    });
    static OFFSET_FILE: LazyLock<Option<std::ffi::OsString>> = LazyLock::new(|| std::env::var_os(CLOCK_OFFSET));

    static OVER: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(CRASH_OVER).ok());

    pub fn die_over(key: &str) {
        if OVER.as_deref() == Some(key) {
            std::process::abort();
        }
    }

    pub fn reach(point: Point) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.at == point.name()) else { return };
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }

    /// A file that is not there yet, or is being written, moves nothing.
    pub fn clock_offset_ms() -> i64 {
        let Some(file) = OFFSET_FILE.as_ref() else { return 0 };
        std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}
