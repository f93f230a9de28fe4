//! The compiled form and its evaluation: a tree of tests with everything resolved. Nothing is looked up by a name of the language,
//! and nothing is allocated, on the way to a verdict.
//!
//! Troubles (a missing value, an overflow) are a third truth: one false part still makes a conjunction false, whatever the others
//! are, in either order. Without that, a false witness would not make a conjunction stand until the witness does.

use std::borrow::Cow;
use std::sync::Arc;

use super::ValueType;
use super::syntax::Operator;
use crate::engine::event::Value;
use crate::engine::features::{self, AttributeSlot, EventSlot, FeatureSlot, Found, Question, Source, Trouble};
use crate::engine::money::Money;
use crate::engine::profile::{Attribute, Name};
use crate::engine::rule::list::List;
use crate::engine::time::Timestamp;
use crate::engine::verdict::Verdict;

pub(super) type Judged = Result<Verdict, Trouble>;

/// A condition.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Const(bool),
    Not(Box<Test>),
    All(Box<[Test]>),
    Any(Box<[Test]>),
    /// Both true or both false.
    Same(Box<(Test, Test)>),
    /// A number against a constant: `>=`.
    AtLeast(Number, i64),
    /// A number against a constant: `==`.
    Equals(Number, i64),
    Compare(Operator, Box<(Number, Number)>),
    CompareFloat(Operator, Box<(Real, Real)>),
    /// A flag.
    Holds(Number),
    /// The second counts where the first is missing.
    Otherwise(Box<(Test, Test)>),
    /// A text is one of these words.
    Is(Text, Box<[Name]>),
    SameText(Box<(Text, Text)>),
    /// A list attribute holds that value.
    Contains(Items, Box<Computed>),
    Known(Box<Computed>),
    /// Local weekdays as bits, Monday first.
    Weekday(u8),
    /// Sorted, disjoint spans `[from, until)`.
    InSpans(Arc<[(Timestamp, Timestamp)]>),
    /// The person stands in an uploaded list.
    Listed(Arc<List>),
}

/// A whole number; the units are those of [`Source`].
#[derive(Debug, Clone)]
pub(super) enum Number {
    Const(i64),
    Source(Source),
    /// Whole units of so many milliseconds since a computed instant.
    Age(Box<Number>, i64),
    LocalDays(Box<Number>),
    Otherwise(Box<(Number, Number)>),
    Calculate(Operator, Box<(Number, Number)>),
    Negative(Box<Number>),
    Least(Box<[Number]>),
    Greatest(Box<[Number]>),
    Round(Box<Real>),
    /// Money times or over a number, rounded half away from zero.
    Scale(Operator, Box<(Number, Real)>),
    TextLength(Box<Text>),
    ListLength(Items),
}

#[derive(Debug, Clone)]
pub(super) enum Real {
    Const(f64),
    Whole(Box<Number>),
    Attribute(Arc<AttributeSlot>),
    Event(Arc<EventSlot>),
    Feature(Arc<FeatureSlot>),
    Otherwise(Box<(Real, Real)>),
    Calculate(Operator, Box<(Real, Real)>),
    Negative(Box<Real>),
    Least(Box<[Real]>),
    Greatest(Box<[Real]>),
}

#[derive(Debug, Clone)]
pub(super) enum Text {
    Const(Name),
    Country,
    Locale,
    Zone,
    Jurisdiction,
    Tier,
    BaseTier,
    Weekday,
    RunOutcome,
    Attribute(Arc<AttributeSlot>),
    Event(Arc<EventSlot>),
    Feature(Arc<FeatureSlot>),
    Lower(Box<Text>),
    Otherwise(Box<(Text, Text)>),
}

#[derive(Debug, Clone)]
pub(super) enum Items {
    Attribute(Arc<AttributeSlot>),
    Event(Arc<EventSlot>),
}

/// An expression of any type.
#[derive(Debug, Clone)]
pub(super) enum Computed {
    Test(Test),
    Number(Number, ValueType),
    Real(Real),
    Text(Text, Option<Arc<[Arc<str>]>>),
    Items(Items),
}

pub(super) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Test {
    /// The few tests that conditions are mostly made of stand here, so that this stays small; the others are a call away.
    pub fn verdict(&self, question: &Question<'_>) -> Judged {
        match self {
            Test::All(parts) => conjunction::<false>(parts, question),
            Test::Any(parts) => conjunction::<true>(parts, question),
            Test::AtLeast(Number::Source(source), edge) => source.at_least(question, *edge),
            Test::Not(inner) => inner.verdict(question).map(Verdict::negated),
            Test::Is(text, words) => text.is_one_of(words, question),
            _ => self.other_verdict(question),
        }
    }

    fn other_verdict(&self, question: &Question<'_>) -> Judged {
        match self {
            Test::Const(truth) => Ok(Verdict::settled(*truth)),
            Test::All(_) | Test::Any(_) | Test::Not(_) | Test::Is(..) => self.verdict(question),
            Test::Same(sides) => {
                let (a, b) = (sides.0.verdict(question)?, sides.1.verdict(question)?);
                Ok(Verdict::new(a.truth == b.truth, a.until.min(b.until)))
            }
            Test::AtLeast(number, edge) => number.at_least(question, *edge),
            Test::Equals(number, value) => number.equals(question, *value),
            Test::Compare(operator, sides) => {
                let ((a, a_until), (b, b_until)) = (sides.0.value(question)?, sides.1.value(question)?);
                Ok(Verdict::new(holds(*operator, a.cmp(&b)), a_until.min(b_until)))
            }
            Test::CompareFloat(operator, sides) => {
                let ((a, a_until), (b, b_until)) = (sides.0.value(question)?, sides.1.value(question)?);
                let order = a.partial_cmp(&b).ok_or(Trouble::OVERFLOW)?;
                Ok(Verdict::new(holds(*operator, order), a_until.min(b_until)))
            }
            Test::Holds(flag) => flag.value(question).map(|(value, until)| Verdict::new(value != 0, until)),
            Test::Otherwise(sides) => judged_or(sides.0.verdict(question), || sides.1.verdict(question)),
            Test::SameText(sides) => {
                let ((a, a_until), (b, b_until)) = (sides.0.value(question)?, sides.1.value(question)?);
                Ok(Verdict::new(a == b, a_until.min(b_until)))
            }
            Test::Contains(items, item) => contains(items, item, question),
            Test::Known(value) => match value.known_until(question) {
                Ok(until) => Ok(Verdict::new(true, until)),
                Err(trouble) => trouble.missing().map(|until| Verdict::new(false, until)).ok_or(trouble),
            },
            Test::Weekday(days) => {
                let (day, until) = features::weekday(question);
                Ok(Verdict::new(days >> day & 1 == 1, until))
            }
            Test::InSpans(spans) => Ok(in_spans(spans, question.now())),
            Test::Listed(list) => Ok(Verdict::new(list.has(&question.subject.profile.key), Timestamp::FOREVER)),
        }
    }

    /// How dear the test is, roughly: cheap ones that stand for good are asked first.
    pub fn rank(&self) -> u8 {
        match self {
            Test::Const(_) => 0,
            Test::Is(Text::Weekday, _) | Test::Weekday(_) => 9,
            Test::AtLeast(number, _) | Test::Equals(number, _) | Test::Holds(number) => number.rank(),
            Test::Is(..) | Test::Known(_) => 2,
            Test::InSpans(_) | Test::Listed(_) => 3,
            Test::Not(inner) => inner.rank(),
            Test::All(parts) | Test::Any(parts) => parts.iter().map(Test::rank).fold(4, u8::max),
            Test::Otherwise(sides) | Test::Same(sides) => sides.0.rank().max(sides.1.rank()),
            Test::Compare(..) | Test::CompareFloat(..) | Test::SameText(_) | Test::Contains(..) => 6,
        }
    }
}

/// All parts true, or (`DUAL`) any part true. One part that decides is enough, and it stands as long as the longest-standing of those;
/// otherwise the verdict stands until the first part may change.
fn conjunction<const DUAL: bool>(parts: &[Test], question: &Question<'_>) -> Judged {
    let mut witness: Option<Timestamp> = None;
    let mut first_change = Timestamp::FOREVER;
    let mut trouble = None;
    for part in parts {
        match part.verdict(question) {
            Ok(verdict) if verdict.truth == DUAL => {
                if verdict.until.is_forever() {
                    return Ok(verdict);
                }
                witness = witness.max(Some(verdict.until));
            }
            Ok(verdict) => first_change = first_change.min(verdict.until),
            Err(met) => trouble = worse(trouble, met),
        }
    }
    match (witness, trouble) {
        (Some(until), _) => Ok(Verdict::new(DUAL, until)),
        (None, Some(trouble)) => Err(trouble),
        (None, None) => Ok(Verdict::new(!DUAL, first_change)),
    }
}

/// Of two troubles the one to tell: a failed calculation before a missing value.
fn worse(so_far: Option<Trouble>, met: Trouble) -> Option<Trouble> {
    match (so_far.map(|trouble| (trouble, trouble.missing())), met.missing()) {
        (Some((_, Some(a))), Some(b)) => Some(Trouble::missing_until(a.min(b))),
        (Some((kept, None)), _) => Some(kept),
        (Some((_, Some(_))) | None, _) => Some(met),
    }
}

/// The first value, or the second where the first is missing.
fn or_default<T>(first: Found<T>, second: impl FnOnce() -> Found<T>) -> Found<T> {
    let Err(trouble) = first else { return first };
    let until = trouble.missing().ok_or(trouble)?;
    second().map(|(value, stands)| (value, stands.min(until)))
}

/// The same of verdicts.
#[inline]
fn judged_or(first: Judged, second: impl FnOnce() -> Judged) -> Judged {
    let Err(trouble) = first else { return first };
    let until = trouble.missing().ok_or(trouble)?;
    second().map(|verdict| Verdict::new(verdict.truth, verdict.until.min(until)))
}

fn holds(operator: Operator, order: std::cmp::Ordering) -> bool {
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::Unequal => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::AtMost => order.is_le(),
        Operator::More => order.is_gt(),
        Operator::AtLeast => order.is_ge(),
        _ => false,
    }
}

fn in_spans(spans: &[(Timestamp, Timestamp)], now: Timestamp) -> Verdict {
    let index = spans.partition_point(|(_, until)| *until <= now);
    match spans.get(index) {
        Some((from, until)) if *from <= now => Verdict::new(true, *until),
        Some((from, _)) => Verdict::new(false, *from),
        None => Verdict::settled(false),
    }
}

fn contains(items: &Items, item: &Computed, question: &Question<'_>) -> Judged {
    let (wanted, wanted_until) = item.value(question)?;
    let (list, list_until) = items.value(question)?;
    Ok(Verdict::new(list.contains(&wanted), wanted_until.min(list_until)))
}

impl Number {
    pub fn value(&self, question: &Question<'_>) -> Found<i64> {
        match self {
            Number::Const(value) => Ok((*value, Timestamp::FOREVER)),
            Number::Source(source) => source.reading(question),
            Number::Age(since, unit_ms) => {
                let (since, until) = since.value(question)?;
                let (age, next) = features::age(Timestamp::from_ms(since), *unit_ms, question.now());
                Ok((age, next.min(until)))
            }
            Number::LocalDays(since) => {
                let (since, until) = since.value(question)?;
                let (days, next) = features::days_since(question, Timestamp::from_ms(since))?;
                Ok((days, next.min(until)))
            }
            Number::Otherwise(sides) => or_default(sides.0.value(question), || sides.1.value(question)),
            Number::Calculate(operator, sides) => {
                let ((a, a_until), (b, b_until)) = (sides.0.value(question)?, sides.1.value(question)?);
                Ok((calculate(*operator, a, b)?, a_until.min(b_until)))
            }
            Number::Negative(inner) => {
                let (value, until) = inner.value(question)?;
                Ok((value.checked_neg().ok_or(Trouble::OVERFLOW)?, until))
            }
            Number::Least(parts) => fold(parts, question, Number::value, i64::min),
            Number::Greatest(parts) => fold(parts, question, Number::value, i64::max),
            Number::Round(real) => {
                let (value, until) = real.value(question)?;
                Ok((whole(value)?, until))
            }
            Number::Scale(operator, sides) => {
                let ((money, a_until), (factor, b_until)) = (sides.0.value(question)?, sides.1.value(question)?);
                Ok((whole(calculate_real(*operator, money as f64, factor)?)?, a_until.min(b_until)))
            }
            Number::TextLength(text) => {
                let (value, until) = text.value(question)?;
                Ok((value.chars().count() as i64, until))
            }
            Number::ListLength(items) => {
                let (list, until) = items.value(question)?;
                Ok((list.len() as i64, until))
            }
        }
    }

    /// `self >= edge`, tight where the source knows how.
    fn at_least(&self, question: &Question<'_>, edge: i64) -> Judged {
        match self {
            Number::Source(source) => source.at_least(question, edge),
            Number::Age(since, unit_ms) => {
                let (since, until) = since.value(question)?;
                let verdict = features::age_at_least(Timestamp::from_ms(since), *unit_ms, question.now(), edge);
                Ok(Verdict::new(verdict.truth, verdict.until.min(until)))
            }
            Number::LocalDays(since) => {
                let (since, until) = since.value(question)?;
                let verdict = features::days_since_at_least(question, Timestamp::from_ms(since), edge);
                Ok(Verdict::new(verdict.truth, verdict.until.min(until)))
            }
            Number::Otherwise(sides) => judged_or(sides.0.at_least(question, edge), || sides.1.at_least(question, edge)),
            _ => {
                let (value, until) = self.value(question)?;
                Ok(Verdict::new(value >= edge, until))
            }
        }
    }

    /// At least so much and not more: the conjunction of both edges.
    fn equals(&self, question: &Question<'_>, value: i64) -> Judged {
        if !self.has_closed_form() {
            let (read, until) = self.value(question)?;
            return Ok(Verdict::new(read == value, until));
        }
        let reached = self.at_least(question, value)?;
        let Some(beyond) = value.checked_add(1) else { return Ok(reached) };
        let passed = self.at_least(question, beyond)?;
        Ok(match (reached.truth, passed.truth) {
            (true, false) => Verdict::new(true, reached.until.min(passed.until)),
            (false, _) => Verdict::new(false, reached.until),
            (true, true) => Verdict::new(false, passed.until),
        })
    }

    fn has_closed_form(&self) -> bool {
        match self {
            Number::Source(source) => source.has_closed_form(),
            Number::Otherwise(sides) => sides.0.has_closed_form(),
            Number::Age(..) | Number::LocalDays(_) => true,
            _ => false,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Number::Const(_) => 0,
            Number::Source(Source::Age(..) | Source::Moment(_) | Source::Orders(_)) => 1,
            Number::Source(Source::LocalHour | Source::LocalDate | Source::ActiveDays(_)) | Number::LocalDays(_) => 9,
            Number::Source(Source::Attribute(_) | Source::Event(_)) => 2,
            Number::Source(Source::Spend(_) | Source::AverageOrder(_) | Source::TierGap(_)) => 7,
            Number::Source(_) => 5,
            Number::Otherwise(sides) => sides.0.rank().max(sides.1.rank()),
            Number::Age(since, _) => since.rank(),
            _ => 6,
        }
    }
}

fn fold<P, T: Copy>(
    parts: &[P],
    question: &Question<'_>,
    read: impl Fn(&P, &Question<'_>) -> Found<T>,
    join: impl Fn(T, T) -> T,
) -> Found<T> {
    let mut joined: Option<(T, Timestamp)> = None;
    for part in parts {
        let (value, until) = read(part, question)?;
        joined = Some(joined.map_or((value, until), |(so_far, stands)| (join(so_far, value), stands.min(until))));
    }
    joined.ok_or(Trouble::MISSING)
}

pub(super) fn calculate(operator: Operator, a: i64, b: i64) -> Result<i64, Trouble> {
    let result = match operator {
        Operator::Plus => a.checked_add(b),
        Operator::Minus => a.checked_sub(b),
        Operator::Times => a.checked_mul(b),
        Operator::Over | Operator::Remainder if b == 0 => return Err(Trouble::DIVISION_BY_ZERO),
        Operator::Over => a.checked_div(b),
        Operator::Remainder => a.checked_rem(b),
        _ => None,
    };
    result.ok_or(Trouble::OVERFLOW)
}

pub(super) fn calculate_real(operator: Operator, a: f64, b: f64) -> Result<f64, Trouble> {
    let result = match operator {
        Operator::Plus => a + b,
        Operator::Minus => a - b,
        Operator::Times => a * b,
        Operator::Over | Operator::Remainder if b == 0.0 => return Err(Trouble::DIVISION_BY_ZERO),
        Operator::Over => a / b,
        Operator::Remainder => a % b,
        _ => f64::NAN,
    };
    if result.is_finite() { Ok(result) } else { Err(Trouble::OVERFLOW) }
}

/// Rounded half away from zero.
fn whole(value: f64) -> Result<i64, Trouble> {
    let rounded = value.round();
    if rounded.abs() < 9.0e18 { Ok(rounded as i64) } else { Err(Trouble::OVERFLOW) }
}

impl Real {
    pub fn value(&self, question: &Question<'_>) -> Found<f64> {
        match self {
            Real::Const(value) => Ok((*value, Timestamp::FOREVER)),
            Real::Whole(number) => number.value(question).map(|(value, until)| (value as f64, until)),
            Real::Attribute(slot) => {
                let (value, until) = slot.value(question)?;
                Ok((real(value)?, until))
            }
            Real::Event(slot) => Ok((real(&slot.value(question)?)?, Timestamp::FOREVER)),
            Real::Feature(slot) => slot.reading(question).map(|(bits, until)| (f64::from_bits(bits as u64), until)),
            Real::Otherwise(sides) => or_default(sides.0.value(question), || sides.1.value(question)),
            Real::Calculate(operator, sides) => {
                let ((a, a_until), (b, b_until)) = (sides.0.value(question)?, sides.1.value(question)?);
                Ok((calculate_real(*operator, a, b)?, a_until.min(b_until)))
            }
            Real::Negative(inner) => inner.value(question).map(|(value, until)| (-value, until)),
            Real::Least(parts) => fold(parts, question, Real::value, f64::min),
            Real::Greatest(parts) => fold(parts, question, Real::value, f64::max),
        }
    }
}

fn real(value: &Value) -> Result<f64, Trouble> {
    match value {
        Value::Float(v) if v.is_finite() => Ok(*v),
        Value::Int(v) => Ok(*v as f64),
        _ => Err(Trouble::WRONG_TYPE),
    }
}

impl Text {
    /// Without a detour over a value of its own where the text stands in the profile as it is.
    fn is_one_of(&self, words: &[Name], question: &Question<'_>) -> Judged {
        let (text, until): (&str, Timestamp) = match self {
            Text::Country => (question.subject.profile.country(), Timestamp::FOREVER),
            Text::Attribute(slot) => match slot.value(question)? {
                (Value::Text(text), until) => (text, until),
                _ => return Err(Trouble::WRONG_TYPE),
            },
            _ => {
                let (text, until) = self.value(question)?;
                return Ok(Verdict::new(words.iter().any(|word| **word == *text), until));
            }
        };
        Ok(Verdict::new(words.iter().any(|word| **word == *text), until))
    }

    pub fn value<'q>(&'q self, question: &'q Question<'_>) -> Found<Cow<'q, str>> {
        let profile = question.subject.profile;
        let said = |attribute: &'q Option<Attribute>| match attribute {
            Some(Attribute { value: Value::Text(text), .. }) => &**text,
            _ => "",
        };
        let (text, until): (&str, Timestamp) = match self {
            Text::Const(text) => (text, Timestamp::FOREVER),
            Text::Country => (profile.country(), Timestamp::FOREVER),
            Text::Locale => (said(&profile.locale), Timestamp::FOREVER),
            Text::Zone => (question.zone().name(), Timestamp::FOREVER),
            Text::Jurisdiction => return Ok((features::jurisdiction(profile), Timestamp::FOREVER)),
            Text::Tier => {
                let (tier, until) = features::effective_tier(question);
                (tier.unwrap_or_default(), until)
            }
            Text::BaseTier => (features::base_tier(question).unwrap_or_default(), Timestamp::FOREVER),
            Text::Weekday => {
                let (day, until) = features::weekday(question);
                (WEEKDAYS.get(day as usize).copied().unwrap_or_default(), until)
            }
            Text::RunOutcome => {
                let ended = question.subject.run.and_then(|run| run.ended);
                (ended.ok_or(Trouble::MISSING)?.name(), Timestamp::FOREVER)
            }
            Text::Attribute(slot) => match slot.value(question)? {
                (Value::Text(text), until) => (text, until),
                _ => return Err(Trouble::WRONG_TYPE),
            },
            Text::Event(slot) => {
                let text = slot.raw(question)?.as_str().filter(|text| slot.allows(text));
                (text.ok_or(Trouble::MISSING)?, Timestamp::FOREVER)
            }
            Text::Feature(slot) => {
                let (index, until) = slot.reading(question)?;
                let ValueType::Enum(words) = &slot.value_type else { return Err(Trouble::WRONG_TYPE) };
                (usize::try_from(index).ok().and_then(|index| words.get(index)).ok_or(Trouble::WRONG_TYPE)?, until)
            }
            Text::Lower(inner) => {
                let (text, until) = inner.value(question)?;
                return Ok((Cow::Owned(text.to_lowercase()), until));
            }
            Text::Otherwise(sides) => return or_default(sides.0.value(question), || sides.1.value(question)),
        };
        Ok((Cow::Borrowed(text), until))
    }
}

impl Items {
    fn value<'q>(&'q self, question: &'q Question<'_>) -> Found<Cow<'q, [Value]>> {
        match self {
            Items::Attribute(slot) => match slot.value(question)? {
                (Value::List(items), until) => Ok((Cow::Borrowed(items), until)),
                _ => Err(Trouble::WRONG_TYPE),
            },
            Items::Event(slot) => match slot.value(question)? {
                Value::List(items) => Ok((Cow::Owned(items), Timestamp::FOREVER)),
                _ => Err(Trouble::WRONG_TYPE),
            },
        }
    }
}

impl Computed {
    /// The value for the world outside.
    pub fn value(&self, question: &Question<'_>) -> Found<Value> {
        Ok(match self {
            Computed::Test(test) => {
                let verdict = test.verdict(question)?;
                (Value::Bool(verdict.truth), verdict.until)
            }
            Computed::Real(real) => {
                let (value, until) = real.value(question)?;
                (Value::Float(value), until)
            }
            Computed::Text(text, _) => {
                let (value, until) = text.value(question)?;
                (Value::text(&value), until)
            }
            Computed::Items(items) => {
                let (list, until) = items.value(question)?;
                (Value::List(list.into_owned()), until)
            }
            Computed::Number(number, value_type) => {
                let (value, until) = number.value(question)?;
                let value = match value_type {
                    ValueType::Bool => Value::Bool(value != 0),
                    ValueType::Date => Value::Date(features::date_of(value).ok_or(Trouble::OVERFLOW)?),
                    ValueType::Instant => Value::Instant(Timestamp::from_ms(value)),
                    ValueType::Duration => Value::Duration(value),
                    ValueType::Money => Value::Money(Money::new(value, question.names.dictionary.currency.ok_or(Trouble::NO_RATE)?)),
                    _ => Value::Int(value),
                };
                (value, until)
            }
        })
    }

    /// Until when it stays known, or missing.
    fn known_until(&self, question: &Question<'_>) -> Result<Timestamp, Trouble> {
        match self {
            Computed::Test(test) => test.verdict(question).map(|verdict| verdict.until),
            Computed::Number(number, _) => number.value(question).map(|(_, until)| until),
            Computed::Real(real) => real.value(question).map(|(_, until)| until),
            Computed::Text(text, _) => text.value(question).map(|(_, until)| until),
            Computed::Items(items) => items.value(question).map(|(_, until)| until),
        }
    }

    pub fn value_type(&self) -> ValueType {
        match self {
            Computed::Test(_) => ValueType::Bool,
            Computed::Number(_, value_type) => value_type.clone(),
            Computed::Real(_) => ValueType::Float,
            Computed::Text(_, Some(words)) => ValueType::Enum(words.clone()),
            Computed::Text(_, None) => ValueType::Text,
            Computed::Items(_) => ValueType::List,
        }
    }
}
