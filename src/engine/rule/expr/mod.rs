//! The condition language: Rhai's syntax, our own meaning. `parse` turns Rhai's tree into ours, `types` checks it against the
//! dictionary, `compile` builds what `eval` runs over [`Facts`]; every value comes with the instant until which it stands.

use std::sync::Arc;

use super::{Dictionary, Policy, Program};
use crate::engine::event::Value;
use crate::engine::profile::{Profile, Run};
use crate::engine::time::Timestamp;
use crate::engine::verdict::Verdict;

/// The type of a name or expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueType {
    Bool,
    Int,
    Float,
    Text,
    /// One of a closed list.
    Enum(Arc<[Arc<str>]>),
    Date,
    Instant,
    Duration,
    Money,
    List,
}

/// What a condition is asked about: one person, at one instant, perhaps within a run or of an event.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub profile: &'a Profile,
    pub now: Timestamp,
    /// Properties of the event in question (`event.x`).
    pub event: Option<&'a serde_json::Map<String, serde_json::Value>>,
    pub run: Option<&'a Run>,
}

/// The parts of a rule set that names are resolved against.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    pub dictionary: &'a Dictionary,
    pub policy: &'a Policy,
    pub program: Option<&'a Program>,
}

/// A compiled condition.
#[derive(Debug)]
pub struct Condition {}

/// A compiled expression with a value.
#[derive(Debug)]
pub struct Expr {}

/// Why an evaluation gave no answer (overflow, division by zero, currencies without a rate): a third verdict, never `false`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(pub String);

/// A value (none: missing) and the instant until which it stands.
pub type Reading = (Option<Value>, Timestamp);

impl Condition {
    /// Truth at `subject.now`, with the tightest known expiry by the witness rule (not yet the next real flip).
    pub fn verdict(&self, _names: Names<'_>, _subject: Subject<'_>) -> Result<Verdict, EvalError> {
        Err(EvalError(String::new()))
    }

    /// Truth at `subject.now` and the instant of its next real flip while no fact changes, found by asking again at each expiry
    /// (at most 64 hops; then the last expiry, which is sound but may not be a flip).
    pub fn next_flip(&self, _names: Names<'_>, _subject: Subject<'_>) -> Result<Verdict, EvalError> {
        Err(EvalError(String::new()))
    }
}

impl Expr {
    pub fn reading(&self, _names: Names<'_>, _subject: Subject<'_>) -> Result<Reading, EvalError> {
        Err(EvalError(String::new()))
    }
}
