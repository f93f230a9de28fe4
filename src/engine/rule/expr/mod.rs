//! The condition language: Rhai's syntax, our own meaning. `lex` and [`parse`] turn a text into a tree, `types` (with `names`, `compare`,
//! `arithmetic`) checks it against the dictionary and compiles it, `eval` runs it over a profile; every value comes with the instant until which it stands.
//!
//! The algebra: NOT keeps the expiry; a conjunction that is true stands until the first of its parts may change, one that is false as
//! long as its longest-standing false part; OR is the dual. A missing value is not false, and an error is not false either.

mod arithmetic;
mod compare;
mod eval;
mod explain;
mod lex;
mod names;
pub mod parse;
mod syntax;
mod types;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::eval::{Computed, Test};
pub use self::explain::Leaf;
use self::explain::Outline;
pub use self::lex::canonical;
use super::list::List;
use super::{Dictionary, EventType, Policy, Program, RuleSet};
use crate::engine::event::Value;
use crate::engine::features::Question;
use crate::engine::profile::{Name, Profile, Run};
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

impl RuleSet {
    pub fn names(&self) -> Names<'_> {
        Names { dictionary: &self.dictionary, policy: &self.policy, program: self.program.as_ref() }
    }
}

/// What a text may speak of at its place in the files.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Features and segments are those declared so far: one that names another comes after it.
    pub names: Names<'a>,
    /// The event in question (`event.x`), where there is one.
    pub event: Option<&'a EventType>,
    /// Steps of the rule, in order (`done(step)`, `run.x`); empty outside of rules.
    pub steps: &'a [Name],
    /// Ids of all rules (`running(rule)`).
    pub rules: &'a [Name],
}

impl<'a> Scope<'a> {
    /// Names that stand by themselves: no event, no run.
    pub fn of(names: Names<'a>) -> Self {
        Scope { names, event: None, steps: &[], rules: &[] }
    }
}

/// What is wrong with a text, for an operator to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    /// `RK0203` ...
    pub code: &'static str,
    pub message: String,
    /// Characters from the start of the text.
    pub at: usize,
    /// Characters.
    pub len: usize,
    pub help: Option<String>,
}

impl ExprError {
    pub(crate) fn new(code: &'static str, at: usize, len: usize, message: String) -> Self {
        ExprError { code, message, at, len: len.max(1), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Optional names that are known to be there: what an earlier part of a conjunction has asked for with `has`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guards(BTreeSet<String>);

impl Guards {
    /// Adds what holds where that condition is true.
    pub fn with(&self, condition: &Condition) -> Self {
        Guards(self.0.union(&condition.guards.0).cloned().collect())
    }
}

/// What a condition depends on, whatever it is asked about; what its segments and features depend on included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Built-in names and attributes (`days_silent`, `points_of`, `tickets_open`).
    pub names: BTreeSet<Name>,
    pub features: BTreeSet<Name>,
    pub segments: BTreeSet<Name>,
    /// Properties of the event in question.
    pub event: BTreeSet<Name>,
    pub calendars: BTreeSet<Name>,
    /// `running(x)`.
    pub rules: BTreeSet<Name>,
    /// Something of the clock: without it only facts can change the verdict.
    pub clock: bool,
}

impl Reads {
    fn extend(&mut self, other: &Reads) {
        self.names.extend(other.names.iter().cloned());
        self.features.extend(other.features.iter().cloned());
        self.segments.extend(other.segments.iter().cloned());
        self.event.extend(other.event.iter().cloned());
        self.calendars.extend(other.calendars.iter().cloned());
        self.rules.extend(other.rules.iter().cloned());
        self.clock |= other.clock;
    }
}

/// How conditions are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    All,
    Any,
    None,
}

/// A compiled condition.
#[derive(Debug)]
pub struct Condition {
    test: Test,
    outline: Outline,
    reads: Reads,
    canonical: String,
    /// What is known to be there where this is true.
    guards: Guards,
    absence: Absence,
}

/// Whether a condition rests on something *not* having happened: as it stands, and where it is negated (`unless`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Absence {
    plain: bool,
    negated: bool,
}

impl Absence {
    fn or(self, other: Absence) -> Self {
        Absence { plain: self.plain || other.plain, negated: self.negated || other.negated }
    }

    fn swapped(self) -> Self {
        Absence { plain: self.negated, negated: self.plain }
    }
}

/// A compiled expression with a value.
#[derive(Debug)]
pub struct Expr {
    computed: Computed,
    value_type: ValueType,
    optional: bool,
    reads: Reads,
    canonical: String,
    absence: Absence,
}

/// Why an evaluation gave no answer (overflow, division by zero, currencies without a rate): a third verdict, never `false`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(pub String);

/// A value (none: missing) and the instant until which it stands.
pub type Reading = (Option<Value>, Timestamp);

/// How often a verdict is asked again at its own expiry in search of a real flip.
const MAX_HOPS: usize = 64;

impl Condition {
    /// A condition that is always so.
    pub fn always(truth: bool) -> Self {
        Condition {
            test: Test::Const(truth),
            outline: Outline::leaf(truth.to_string(), Test::Const(truth), Vec::new()),
            reads: Reads::default(),
            canonical: truth.to_string(),
            guards: Guards::default(),
            absence: Absence::default(),
        }
    }

    /// Whoever stands in a list.
    pub fn listed(list: Arc<List>, segment: &str) -> Self {
        let written = format!("is one of the {} of {segment}", list.len());
        Condition {
            // another list is another condition
            canonical: format!("list {:016x}", list.digest),
            outline: Outline::leaf(written, Test::Listed(Arc::clone(&list)), Vec::new()),
            test: Test::Listed(list),
            ..Condition::always(true)
        }
    }

    /// Conditions as one, each with a word on why it is there. Same meaning, reads and hash text as `&&`, `||`, `!( || )` in one text.
    pub fn combine(group: Group, parts: Vec<(Condition, Option<String>)>) -> Condition {
        types::combine(group, parts)
    }

    /// Truth at `subject.now`, with the tightest known expiry by the witness rule (not yet the next real flip).
    ///
    /// # Errors
    /// If no part decides and one cannot be answered.
    #[inline]
    pub fn verdict(&self, names: Names<'_>, subject: Subject<'_>) -> Result<Verdict, EvalError> {
        self.test.verdict(&Question::new(names, subject)).map_err(EvalError::from)
    }

    /// Truth at `subject.now` and the instant of its next real flip while no fact changes, found by asking again at each expiry
    /// (at most 64 hops; then the last expiry, which is sound but may not be a flip).
    ///
    /// # Errors
    /// As [`Condition::verdict`]. Where the answer turns into an error later, that is the flip.
    pub fn next_flip(&self, names: Names<'_>, subject: Subject<'_>) -> Result<Verdict, EvalError> {
        let first = self.verdict(names, subject)?;
        let mut until = first.until;
        for _ in 0..MAX_HOPS {
            if until.is_forever() {
                break;
            }
            match self.test.verdict(&Question::new(names, Subject { now: until, ..subject })) {
                Ok(next) if next.truth == first.truth && next.until > until => until = next.until,
                _ => break,
            }
        }
        Ok(Verdict::new(first.truth, until))
    }

    /// What it depends on.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Whether it turns true because something did not happen: `days_silent`, `days_since_*`, a count or sum from below. Such rules
    /// are held while their source is quiet.
    pub fn rests_on_absence(&self) -> bool {
        self.absence.plain
    }

    /// The same of its negation: for `unless`.
    pub fn negation_rests_on_absence(&self) -> bool {
        self.absence.negated
    }

    /// The normalised text: equal for all ways to write the same condition. Segments, features and calendars stand in it by name.
    pub fn hash_text(&self) -> String {
        self.canonical.clone()
    }

    /// The tree with what each part says now: depth first, parents before children.
    pub fn explain(&self, names: Names<'_>, subject: Subject<'_>) -> Vec<Leaf> {
        self.outline.explain(&Question::new(names, subject))
    }
}

impl Expr {
    /// The value at `subject.now` (none: missing) and until when it stands.
    ///
    /// # Errors
    /// If it cannot be computed.
    pub fn reading(&self, names: Names<'_>, subject: Subject<'_>) -> Result<Reading, EvalError> {
        match self.computed.value(&Question::new(names, subject)) {
            Ok((value, until)) => Ok((Some(value), until)),
            Err(trouble) => trouble.missing().map(|until| (None, until)).ok_or_else(|| trouble.into()),
        }
    }

    pub fn value_type(&self) -> &ValueType {
        &self.value_type
    }

    /// Whether its value can be missing.
    pub fn is_optional(&self) -> bool {
        self.optional
    }

    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The normalised text.
    pub fn hash_text(&self) -> String {
        self.canonical.clone()
    }
}
