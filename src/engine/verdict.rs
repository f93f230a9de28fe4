//! A verdict: true or false, until when it stands, and because of what.
//!
//! The algebra: NOT keeps the expiry. A conjunction that is true stands until the first of its parts may change; one that is false
//! stands as long as its longest-standing false part (the witness). OR is the dual.

use super::time::{Timestamp, ValidUntil};

/// Truth of a condition on `[now, until)`, as long as no fact changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub truth: bool,
    pub until: ValidUntil,
}

impl Verdict {
    pub const fn new(truth: bool, until: Timestamp) -> Self {
        Verdict { truth, until }
    }

    /// A truth that only a fact can change.
    pub const fn settled(truth: bool) -> Self {
        Verdict { truth, until: Timestamp::FOREVER }
    }

    #[must_use]
    pub fn negated(self) -> Self {
        Verdict { truth: !self.truth, until: self.until }
    }
}
