//! What can be asked of a person: the built-in names of the rule language, and how each is read from the profile.
//!
//! A reading is a value with the instant until which it stands while no fact changes. Windows are exact and half-open, `(t - W, t]`;
//! refunds count at their own instant; orders are counted whatever they are worth. Nothing here is stored: every reading is derived
//! from the row as it is asked for.

mod builtin;
mod local;
mod source;
mod windows;

use std::cell::OnceCell;
use std::sync::Arc;

use serde_json::Value as Json;

pub use self::builtin::{BUILT_INS, BuiltIn, FUNCTIONS, Function, Kind, Read, built_in, built_in_names, built_in_type, is_built_in};
pub use self::local::{date_of, day_number};
pub(crate) use self::local::{days_since, days_since_at_least, weekday};
pub use self::source::{
    AttributeSlot, EventSlot, FeatureSlot, Moment, Source, age, age_at_least, base_tier, effective_tier, jurisdiction, number,
};
use super::event::Value;
use super::profile::Profile;
use super::rule::expr::{EvalError, Names, Reading, Subject, ValueType, parse};
use super::rule::{AggregateFunction, FeatureKind};
use super::time::{Timestamp, Zone};

/// One person at one instant, with what names refer to, and the person's zone once somebody needs it.
pub struct Question<'a> {
    pub names: Names<'a>,
    pub subject: Subject<'a>,
    zone: OnceCell<Zone>,
}

impl<'a> Question<'a> {
    #[inline]
    pub fn new(names: Names<'a>, subject: Subject<'a>) -> Self {
        Question { names, subject, zone: OnceCell::new() }
    }

    #[inline]
    pub fn now(&self) -> Timestamp {
        self.subject.now
    }

    /// The person's zone. Looking it up is slow, so only local-time readings do.
    pub fn zone(&self) -> &Zone {
        self.zone.get_or_init(|| self.names.policy.zone_of(self.subject.profile))
    }
}

/// A value and until when it stands.
pub type Found<T> = Result<(T, Timestamp), Trouble>;

/// Why there is no value. One word wide, so that a verdict with its trouble travels in two registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trouble(i64);

impl Trouble {
    pub const OVERFLOW: Trouble = Trouble(i64::MIN);
    pub const DIVISION_BY_ZERO: Trouble = Trouble(i64::MIN + 1);
    /// Money of two currencies.
    pub const NO_RATE: Trouble = Trouble(i64::MIN + 2);
    /// A stored value is of another type than declared.
    pub const WRONG_TYPE: Trouble = Trouble(i64::MIN + 3);
    /// Nothing is known, and only a fact can change that.
    pub const MISSING: Trouble = Trouble::missing_until(Timestamp::FOREVER);

    /// Nothing is known; the clock may change that at `until`.
    pub const fn missing_until(until: Timestamp) -> Self {
        Trouble(until.as_ms())
    }

    /// Until when a value is missing; none for an error.
    pub fn missing(self) -> Option<Timestamp> {
        (self.0 > Trouble::WRONG_TYPE.0).then_some(Timestamp::from_ms(self.0))
    }

    fn text(self) -> &'static str {
        match self {
            Trouble::OVERFLOW => "a number became too large",
            Trouble::DIVISION_BY_ZERO => "a division by zero",
            Trouble::NO_RATE => "money of another currency, and there is no rate for it",
            Trouble::WRONG_TYPE => "a stored value is of another type than declared, or out of its range",
            _ => "a value is missing that nothing guards",
        }
    }
}

impl std::fmt::Debug for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl From<Trouble> for EvalError {
    fn from(trouble: Trouble) -> Self {
        EvalError(trouble.text().to_owned())
    }
}

/// Any name of the language by itself: a built-in, an attribute, a feature, a segment; also a call such as `points_of("bonus")`.
///
/// # Errors
/// If the name is not known, or its value cannot be computed.
pub fn read(names: Names<'_>, subject: Subject<'_>, name: &str) -> Result<Reading, EvalError> {
    let scope = parse::Scope::of(names);
    match parse::expression(name, &scope) {
        Ok((expr, _)) => expr.reading(names, subject),
        Err(errors) => Err(EvalError(errors.first().map_or_else(|| format!("`{name}` is no name"), |error| error.message.clone()))),
    }
}

/// The metric that tiers qualify by: minor units or a count, and until when the clock alone leaves it as it is. A name that is
/// neither money nor a count counts 0; `check` refuses such a metric.
pub fn metric(profile: &Profile, names: Names<'_>, metric_name: &str, now: Timestamp) -> (i64, Timestamp) {
    let question = Question::new(names, Subject { profile, now, event: None, run: None });
    let Some(source) = metric_source(names, metric_name) else { return (0, Timestamp::FOREVER) };
    source.reading(&question).unwrap_or_else(|trouble| (0, trouble.missing().unwrap_or(Timestamp::FOREVER)))
}

/// Where a tier metric is read from.
pub(crate) fn metric_source(names: Names<'_>, metric_name: &str) -> Option<Source> {
    if let Some(BuiltIn { read: Read::Number(source), kind: Kind::Money | Kind::Int | Kind::Days, .. }) = built_in(metric_name) {
        return Some(source.clone());
    }
    let feature = names.dictionary.features.iter().find(|feature| &*feature.name == metric_name)?;
    match &feature.kind {
        FeatureKind::Aggregate(aggregate) => {
            let slot = FeatureSlot {
                name: feature.name.clone(),
                function: aggregate.function,
                value_type: aggregate.value_type.clone(),
                window_ms: aggregate.window_ms,
            };
            (slot.value_type != ValueType::Float).then(|| Source::Feature(Arc::new(slot)))
        }
        FeatureKind::Expr(_) => None,
    }
}

/// Whether the metric counts money.
pub(crate) fn metric_is_money(names: Names<'_>, metric_name: &str) -> bool {
    match built_in(metric_name) {
        Some(built_in) => built_in.kind == Kind::Money,
        None => names.dictionary.features.iter().any(|feature| {
            let FeatureKind::Aggregate(aggregate) = &feature.kind else { return false };
            let counts = matches!(aggregate.function, AggregateFunction::Count | AggregateFunction::Distinct);
            &*feature.name == metric_name && aggregate.value_type == ValueType::Money && !counts
        }),
    }
}

/// A value for reports and tests: numbers and flags as they are, everything else in words.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(v) => Json::from(*v),
        Value::Int(v) => Json::from(*v),
        Value::Float(v) => Json::from(*v),
        Value::Text(v) => Json::from(&**v),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Date(_) | Value::Instant(_) | Value::Duration(_) | Value::Money(_) => Json::from(value.to_string()),
    }
}
