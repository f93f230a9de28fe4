//! Types, strictly: what a text compares must be comparable, what can be missing must be guarded. What passes is compiled on the way.
//!
//! Int and float mix, money and instants take text literals (`"30 USD"`, `"2026-11-06T10:00:00Z"`), a duration is compared with a count
//! of days or hours as so many of them; every other mix is an error that says what would have happened.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::eval::{Computed, Number, Real, Test, Text, WEEKDAYS, calculate, calculate_real};
use super::explain::{Outline, Shape};
use super::syntax::{Form, Operator, Syntax};
use super::{Absence, Condition, Expr, ExprError, Group, Guards, Reads, Scope, ValueType};
use crate::engine::features::{Source, day_number};
use crate::engine::money::Money;
use crate::engine::profile::Name;
use crate::engine::rule::suggest::nearest;
use crate::engine::time::{DAY_MS, Span, Timestamp};

pub(super) fn condition(text: &str, tree: &Syntax, scope: &Scope<'_>, guards: &Guards) -> Result<Condition, Vec<ExprError>> {
    let mut checker = Checker::new(text, scope, guards);
    match checker.test(tree) {
        Some(checked) if checker.errors.is_empty() => Ok(Condition {
            test: checked.test,
            outline: checked.outline,
            guards: Guards(checker.guards_if(tree, true)),
            reads: checker.reads,
            canonical: tree.canonical(),
            absence: checked.absence,
        }),
        _ => Err(checker.errors),
    }
}

pub(super) fn expression(text: &str, tree: &Syntax, scope: &Scope<'_>) -> Result<Expr, Vec<ExprError>> {
    let mut checker = Checker::new(text, scope, &Guards::default());
    match checker.typed(tree) {
        Some(typed) if checker.errors.is_empty() => Ok(Expr {
            value_type: typed.computed.value_type(),
            computed: typed.computed,
            optional: typed.optional.is_some(),
            reads: checker.reads,
            canonical: tree.canonical(),
            absence: checker.absence,
        }),
        _ => Err(checker.errors),
    }
}

/// See [`Condition::combine`].
pub(super) fn combine(group: Group, parts: Vec<(Condition, Option<String>)>) -> Condition {
    let is_all = group == Group::All;
    let (mut tests, mut children, mut canonical) = (Vec::new(), Vec::new(), Vec::new());
    let (mut reads, mut guards, mut absence) = (Reads::default(), BTreeSet::new(), Absence::default());
    for (part, why) in parts {
        reads.extend(&part.reads);
        absence = absence.or(part.absence);
        if is_all {
            guards.extend(part.guards.0);
        }
        // one level of the same operator is the same text as the flat one
        let head = if is_all { "(&& " } else { "(|| " };
        match part.canonical.strip_prefix(head).and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => canonical.push(inner.to_owned()),
            None => canonical.push(part.canonical),
        }
        tests.push(part.test);
        children.push(Outline { why: why.or(part.outline.why), ..part.outline });
    }
    let single = canonical.len() == 1 && children.len() == 1;
    let joined = canonical.join(" ");
    let canonical = match (single, is_all) {
        (true, _) => joined,
        (false, true) => format!("(&& {joined})"),
        (false, false) => format!("(|| {joined})"),
    };
    let test = group_test(tests, is_all);
    let shape = if is_all { Shape::All } else { Shape::Any };
    let text = if is_all { "all of" } else { "any of" };
    let outline = Outline { text: text.to_owned(), why: None, shape, test: Arc::new(test.clone()), children, values: Vec::new() };
    if group != Group::None {
        return Condition { test, outline, reads, canonical, guards: Guards(guards), absence };
    }
    let test = Test::Not(Box::new(test));
    let negated = Outline {
        text: "none of".to_owned(),
        why: None,
        shape: Shape::Not,
        test: Arc::new(test.clone()),
        children: vec![outline],
        values: Vec::new(),
    };
    Condition {
        test,
        outline: negated,
        reads,
        canonical: format!("(! {canonical})"),
        guards: Guards::default(),
        absence: absence.swapped(),
    }
}

/// Cheap parts first: the order has no meaning, see `eval`.
fn group_test(mut tests: Vec<Test>, is_all: bool) -> Test {
    tests.sort_by_key(Test::rank);
    if is_all { Test::All(tests.into()) } else { Test::Any(tests.into()) }
}

/// An expression with its type and what matters about it.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub computed: Computed,
    /// A count of days or hours: durations compare with it.
    pub unit_ms: Option<i64>,
    /// Under which name it can be missing.
    pub optional: Option<String>,
    /// A count or sum of what the person did.
    pub is_count: bool,
    /// Never stands still (`silent_for`).
    pub is_continuous: bool,
}

impl Typed {
    pub fn of(computed: Computed) -> Self {
        Typed { computed, unit_ms: None, optional: None, is_count: false, is_continuous: false }
    }

    pub fn text(text: Text, words: Option<Arc<[Arc<str>]>>) -> Self {
        Typed::of(Computed::Text(text, words))
    }

    pub fn optional(self, key: &str) -> Self {
        Typed { optional: Some(key.to_owned()), ..self }
    }

    /// Where a run's outcome is asked for, the run has ended.
    pub fn known_in_run(self) -> Self {
        Typed { optional: None, ..self }
    }

    fn test(test: Test) -> Self {
        Typed::of(Computed::Test(test))
    }

    fn whole(number: Number) -> Self {
        Typed::of(Computed::Number(number, ValueType::Int))
    }
}

pub(super) struct Checked {
    test: Test,
    outline: Outline,
    absence: Absence,
}

pub(super) struct Checker<'c> {
    pub text: &'c str,
    pub scope: &'c Scope<'c>,
    pub errors: Vec<ExprError>,
    pub reads: Reads,
    /// Of the part at hand.
    pub absence: Absence,
    /// A name here stands for a truth by itself.
    pub is_flag_position: bool,
    guards: BTreeSet<String>,
    /// Names in the part at hand.
    values: Vec<(String, Computed)>,
}

/// What things are called in messages.
pub(super) fn kind_of(computed: &Computed) -> &'static str {
    match computed {
        Computed::Test(_) => "true or false",
        Computed::Number(_, ValueType::Money) => "money",
        Computed::Number(_, ValueType::Instant) => "an instant",
        Computed::Number(_, ValueType::Duration) => "a duration",
        Computed::Number(_, ValueType::Date) => "a date",
        Computed::Number(..) | Computed::Real(_) => "a number",
        Computed::Text(_, Some(_)) => "a word of a list",
        Computed::Text(_, None) => "a text",
        Computed::Items(_) => "a list",
    }
}

impl<'c> Checker<'c> {
    fn new(text: &'c str, scope: &'c Scope<'c>, guards: &Guards) -> Self {
        Checker {
            text,
            scope,
            errors: Vec::new(),
            reads: Reads::default(),
            absence: Absence::default(),
            is_flag_position: false,
            guards: guards.0.clone(),
            values: Vec::new(),
        }
    }

    fn error(&mut self, code: &'static str, node: &Syntax, message: String, help: impl Into<Option<String>>) {
        let mut error = ExprError::new(code, node.at, node.len(), message);
        error.help = help.into();
        self.errors.push(error);
    }

    pub(super) fn remember(&mut self, node: &Syntax, typed: &Typed) {
        let written = node.written(self.text);
        if !self.values.iter().any(|(name, _)| name == written) {
            self.values.push((written.to_owned(), typed.computed.clone()));
        }
    }

    // ------------------------------------------------------------------------------------------------------------- structure

    fn test(&mut self, node: &Syntax) -> Option<Checked> {
        match &node.form {
            Form::All(parts) => self.group(parts, true),
            Form::Any(parts) => self.group(parts, false),
            Form::Not(inner) if !matches!(inner.form, Form::In { .. }) => {
                let inner = self.test(inner)?;
                let test = Test::Not(Box::new(inner.test));
                let outline = Outline {
                    text: "not".to_owned(),
                    why: None,
                    shape: Shape::Not,
                    test: Arc::new(test.clone()),
                    children: vec![inner.outline],
                    values: Vec::new(),
                };
                Some(Checked { test, outline, absence: inner.absence.swapped() })
            }
            _ => self.leaf(node),
        }
    }

    /// Parts of `&&` or `||`: what an earlier part has made sure of holds in the later ones.
    fn group(&mut self, parts: &[Syntax], is_all: bool) -> Option<Checked> {
        let before = self.guards.clone();
        let (mut tests, mut children, mut absence) = (Vec::new(), Vec::new(), Absence::default());
        let mut sound = true;
        for part in parts {
            match self.test(part) {
                Some(checked) => {
                    absence = absence.or(checked.absence);
                    tests.push(checked.test);
                    children.push(checked.outline);
                }
                None => sound = false,
            }
            let known = self.guards_if(part, is_all);
            self.guards.extend(known);
        }
        self.guards = before;
        if !sound {
            return None;
        }
        let test = group_test(tests, is_all);
        let (text, shape) = if is_all { ("all of", Shape::All) } else { ("any of", Shape::Any) };
        let outline = Outline { text: text.to_owned(), why: None, shape, test: Arc::new(test.clone()), children, values: Vec::new() };
        Some(Checked { test, outline, absence })
    }

    fn leaf(&mut self, node: &Syntax) -> Option<Checked> {
        self.absence = Absence::default();
        self.values.clear();
        self.is_flag_position = matches!(node.form, Form::Name(_));
        let typed = self.typed(node);
        self.is_flag_position = false;
        let typed = self.present(typed?, node, node)?;
        let Computed::Test(test) = typed.computed else {
            let written = node.written(self.text);
            let help = match &typed.computed {
                Computed::Number(_, ValueType::Money) => format!("compare it: `{written} >= \"30 USD\"`"),
                Computed::Number(..) | Computed::Real(_) => format!("compare it: `{written} > 0`"),
                Computed::Text(..) => format!("compare it: `{written} == \"...\"`"),
                _ => format!("compare it, or ask `has({written})`"),
            };
            self.error("RK0204", node, format!("`{written}` is {}, a condition is true or false", kind_of(&typed.computed)), help);
            return None;
        };
        let written = node.written(self.text).to_owned();
        let values = std::mem::take(&mut self.values);
        let mut outline = Outline::leaf(written, test.clone(), values);
        if let Form::Name(name) = &node.form
            && let Some(segment) = self.scope.names.dictionary.segments.iter().find(|segment| segment.name == *name)
        {
            outline.shape = Shape::Named;
            outline.values.clear();
            outline.children.push(segment.condition.outline.clone());
        }
        Some(Checked { test, outline, absence: self.absence })
    }

    /// What is known to be there where a part is true (or false).
    fn guards_if(&self, node: &Syntax, truth: bool) -> BTreeSet<String> {
        match &node.form {
            Form::Call(name, args) if &**name == "has" && truth => args.first().map(presence_key).into_iter().collect(),
            Form::Not(inner) => self.guards_if(inner, !truth),
            Form::All(parts) if truth => parts.iter().flat_map(|part| self.guards_if(part, true)).collect(),
            Form::Any(parts) if !truth => parts.iter().flat_map(|part| self.guards_if(part, false)).collect(),
            Form::Name(name) if truth => {
                let segment = self.scope.names.dictionary.segments.iter().find(|segment| segment.name == *name);
                segment.map(|segment| segment.condition.guards.0.clone()).unwrap_or_default()
            }
            _ => BTreeSet::new(),
        }
    }

    /// Refuses what can be missing and nobody guards; `whole` is shown guarded.
    fn present(&mut self, typed: Typed, node: &Syntax, whole: &Syntax) -> Option<Typed> {
        let Some(key) = typed.optional.as_ref().filter(|key| !self.guards.contains(*key)) else {
            return Some(Typed { optional: None, ..typed });
        };
        let (written, whole) = (node.written(self.text), whole.written(self.text));
        let shown = if key.starts_with('(') { written } else { key };
        let default = match &typed.computed {
            Computed::Test(_) => Some("false"),
            Computed::Number(_, ValueType::Int) => Some("0"),
            Computed::Real(_) => Some("0.0"),
            Computed::Text(_, None) => Some("\"\""),
            _ => None,
        };
        let guarded = format!("`has({shown}) && {whole}`");
        let help = match default {
            Some(default) => {
                format!("say what missing means: `{}` or {guarded}", whole.replacen(written, &format!("({written} ?? {default})"), 1))
            }
            None => format!("say what missing means: {guarded}"),
        };
        self.error("RK0207", node, format!("`{written}` can be missing"), help);
        None
    }

    // ----------------------------------------------------------------------------------------------------------- expressions

    pub(super) fn typed(&mut self, node: &Syntax) -> Option<Typed> {
        let is_flag_position = std::mem::take(&mut self.is_flag_position);
        Some(match &node.form {
            Form::Bool(value) => Typed::test(Test::Const(*value)),
            Form::Int(value) => Typed::whole(Number::Const(*value)),
            Form::Float(value) => Typed::of(Computed::Real(Real::Const(*value))),
            Form::Text(value) => Typed::text(Text::Const(value.clone()), None),
            Form::Span(span) => Typed::of(Computed::Number(Number::Const(span.exact_ms()), ValueType::Duration)),
            Form::Name(name) => {
                self.is_flag_position = is_flag_position;
                let typed = self.name(name, node)?;
                self.is_flag_position = false;
                self.remember(node, &typed);
                typed
            }
            Form::Property(base, name) => {
                let typed = self.property(base, name, node)?;
                self.remember(node, &typed);
                typed
            }
            Form::Call(name, args) => {
                let typed = self.call(name, args, node)?;
                if !matches!(&**name, "has" | "min" | "max" | "round") {
                    self.remember(node, &typed);
                }
                typed
            }
            Form::List(_) => {
                self.error("RK0204", node, "a list stands only after `in`".to_owned(), "write `country in [\"DE\", \"AT\"]`".to_owned());
                return None;
            }
            // `x not in list` is one part, not the negation of one
            Form::Not(inner) if matches!(inner.form, Form::In { .. }) => {
                let typed = self.typed(inner)?;
                self.absence = self.absence.swapped();
                let Computed::Test(test) = typed.computed else { return None };
                Typed::test(negated_if(true, test))
            }
            Form::All(_) | Form::Any(_) | Form::Not(_) => return self.nested(node),
            Form::Negative(inner) => return self.negative(inner, node),
            Form::Otherwise(value, default) => return self.otherwise(value, default, node),
            Form::Binary(operator, left, right) if operator.is_comparison() => return self.comparison(*operator, left, right, node),
            Form::Binary(operator, left, right) => return self.calculation(*operator, left, right, node),
            Form::In { item, list } => return self.membership(item, list, node),
        })
    }

    /// A truth inside an expression.
    fn nested(&mut self, node: &Syntax) -> Option<Typed> {
        let (values, absence) = (std::mem::take(&mut self.values), self.absence);
        let checked = self.test(node)?;
        self.values = values;
        // which way round it counts is lost here: take both
        let either = checked.absence.plain || checked.absence.negated;
        self.absence = absence.or(Absence { plain: either, negated: either });
        Some(Typed::test(checked.test))
    }

    fn negative(&mut self, inner: &Syntax, node: &Syntax) -> Option<Typed> {
        let typed = self.typed(inner)?;
        let typed = self.present(typed, inner, node)?;
        let computed = match typed.computed {
            Computed::Number(Number::Const(value), value_type) => Computed::Number(Number::Const(value.checked_neg()?), value_type),
            Computed::Number(number, value_type @ (ValueType::Int | ValueType::Money | ValueType::Duration)) if !typed.is_continuous => {
                Computed::Number(Number::Negative(Box::new(number)), value_type)
            }
            Computed::Real(Real::Const(value)) => Computed::Real(Real::Const(-value)),
            Computed::Real(real) => Computed::Real(Real::Negative(Box::new(real))),
            other => {
                let message = format!("`{}` is {}, it has no negative", inner.written(self.text), kind_of(&other));
                self.error("RK0204", node, message, None);
                return None;
            }
        };
        Some(Typed { unit_ms: typed.unit_ms, ..Typed::of(computed) })
    }

    fn otherwise(&mut self, value: &Syntax, default: &Syntax, node: &Syntax) -> Option<Typed> {
        let (first, second) = (self.typed(value), self.typed(default));
        let (first, second) = (first?, second?);
        let (unit_ms, is_count, is_continuous, optional) =
            (first.unit_ms, first.is_count, first.is_continuous, second.optional.clone().filter(|key| !self.guards.contains(key)));
        let (first, second) = self.meet(first, second, value, default)?;
        let computed = match (first.computed, second.computed) {
            (Computed::Test(a), Computed::Test(b)) => Computed::Test(Test::Otherwise(Box::new((a, b)))),
            (Computed::Number(a, a_type), Computed::Number(b, b_type)) if a_type == b_type => {
                Computed::Number(Number::Otherwise(Box::new((a, b))), a_type)
            }
            (Computed::Real(a), Computed::Real(b)) => Computed::Real(Real::Otherwise(Box::new((a, b)))),
            (Computed::Text(a, words), Computed::Text(b, _)) => {
                self.word_in(&words, &Computed::Text(b.clone(), None), value, default)?;
                Computed::Text(Text::Otherwise(Box::new((a, b))), words)
            }
            (a, b) => return self.mixed(&a, &b, node, "?? gives one of two values of one type"),
        };
        Some(Typed { unit_ms, is_count, is_continuous, optional, ..Typed::of(computed) })
    }

    // ------------------------------------------------------------------------------------------------------------ comparisons

    fn comparison(&mut self, operator: Operator, left: &Syntax, right: &Syntax, node: &Syntax) -> Option<Typed> {
        if let Form::Binary(inner, a, x) = &left.form
            && operator.is_order()
            && inner.is_comparison()
        {
            let (a, x, b) = (a.written(self.text), x.written(self.text), right.written(self.text));
            let message = format!("`{}` compares a truth with a value, it would never be what it looks like", node.written(self.text));
            self.error("RK0204", node, message, format!("write `{a} {} {x} && {x} {} {b}`", inner.text(), operator.text()));
            return None;
        }
        let (first, second) = (self.typed(left), self.typed(right));
        let (first, second) = (first?, second?);
        let (first, second) = (self.present(first, left, node), self.present(second, right, node));
        self.compare(operator, first?, second?, left, right, node)
    }

    fn compare(&mut self, operator: Operator, first: Typed, second: Typed, left: &Syntax, right: &Syntax, node: &Syntax) -> Option<Typed> {
        let (first, second) = self.meet(first, second, left, right)?;
        self.note_absence(operator, &first, &second);
        self.refuse_continuous(&first, &second, node)?;
        let test = match (first.computed, second.computed) {
            (Computed::Test(a), Computed::Test(b)) if !operator.is_order() => same_truth(operator, a, b),
            (Computed::Number(a, a_type), Computed::Number(b, b_type)) if a_type == b_type => number_test(operator, a, b),
            (Computed::Real(a), Computed::Real(b)) => real_test(operator, a, b),
            (Computed::Text(a, a_words), Computed::Text(b, b_words)) if !operator.is_order() => {
                self.word_in(&a_words, &Computed::Text(b.clone(), None), left, right)?;
                self.word_in(&b_words, &Computed::Text(a.clone(), None), right, left)?;
                text_test(operator, a, b)
            }
            (a, b) => return self.mixed(&a, &b, node, &self.would_be(operator)),
        };
        Some(Typed::test(test))
    }

    fn would_be(&self, operator: Operator) -> String {
        match operator {
            Operator::Unequal => "it would always be true".to_owned(),
            _ => "it would always be false".to_owned(),
        }
    }

    /// Brings both sides to one type where that is clear: literals take the type of the other side, a whole number becomes a float.
    fn meet(&mut self, first: Typed, second: Typed, left: &Syntax, right: &Syntax) -> Option<(Typed, Typed)> {
        let second = self.adapt(second, &first, right, left)?;
        let first = self.adapt(first, &second, left, right)?;
        Some(match (&first.computed, &second.computed) {
            (Computed::Number(a, ValueType::Int), Computed::Real(_)) => {
                let real = Computed::Real(Real::Whole(Box::new(a.clone())));
                (Typed { computed: real, ..first }, second)
            }
            (Computed::Real(_), Computed::Number(b, ValueType::Int)) => {
                let real = Computed::Real(whole_as_real(b));
                (first, Typed { computed: real, ..second })
            }
            _ => (first, second),
        })
    }

    /// A literal in the type of the other side.
    fn adapt(&mut self, literal: Typed, other: &Typed, node: &Syntax, other_node: &Syntax) -> Option<Typed> {
        match (&literal.computed, &other.computed) {
            (Computed::Text(Text::Const(text), None), Computed::Number(_, wanted)) if *wanted != ValueType::Int => {
                let number = self.literal(text, wanted, node, other_node)?;
                Some(Typed { computed: Computed::Number(Number::Const(number), wanted.clone()), ..literal })
            }
            (
                Computed::Number(Number::Const(_), ValueType::Int) | Computed::Real(Real::Const(_)),
                Computed::Number(_, ValueType::Money),
            ) => {
                let (written, money) = (node.written(self.text), other_node.written(self.text));
                let currency = self.scope.names.dictionary.currency.map_or("USD".to_owned(), |currency| currency.to_string());
                self.error(
                    "RK0409",
                    node,
                    format!("`{money}` is money, `{written}` is a bare number"),
                    format!("write `\"{written} {currency}\"`"),
                );
                None
            }
            (Computed::Number(Number::Const(ms), ValueType::Duration), Computed::Number(_, ValueType::Int)) => {
                let Some(unit_ms) = other.unit_ms else { return Some(literal) };
                if ms % unit_ms != 0 {
                    let unit = if unit_ms == DAY_MS { "days" } else { "hours" };
                    let (written, counted) = (node.written(self.text), other_node.written(self.text));
                    let help = if counted == "days_silent" {
                        format!("compare the time itself: `silent_for >= {written}`")
                    } else {
                        format!("write a whole number of {unit}, or use `hours_since(..)`")
                    };
                    self.error("RK0204", node, format!("`{counted}` counts whole {unit}, `{written}` is none"), help);
                    return None;
                }
                Some(Typed { computed: Computed::Number(Number::Const(ms / unit_ms), ValueType::Int), ..literal })
            }
            _ => Some(literal),
        }
    }

    /// A text literal as money, date, instant or duration.
    fn literal(&mut self, text: &str, wanted: &ValueType, node: &Syntax, other: &Syntax) -> Option<i64> {
        let wrong = |checker: &mut Self, what: &str, form: &str| {
            let message = format!("`{}` is {what}, \"{text}\" is none", other.written(checker.text));
            checker.error("RK0204", node, message, format!("write it like {form}"));
            None
        };
        match wanted {
            ValueType::Money => match text.parse::<Money>() {
                Ok(money) if Some(money.currency) == self.scope.names.dictionary.currency => Some(money.minor),
                Ok(money) => {
                    let message = format!("there is no rate for {}", money.currency);
                    let help = match self.scope.names.dictionary.currency {
                        Some(currency) => format!("amounts are in the program's currency, {currency}"),
                        None => "amounts need `program.currency`".to_owned(),
                    };
                    self.error("RK0242", node, message, help);
                    None
                }
                Err(_) if text.parse::<f64>().is_ok() => {
                    let currency = self.scope.names.dictionary.currency.map_or("USD".to_owned(), |currency| currency.to_string());
                    self.error("RK0409", node, format!("\"{text}\" has no currency"), format!("write `\"{text} {currency}\"`"));
                    None
                }
                Err(_) => wrong(self, "money", "\"30 USD\""),
            },
            ValueType::Date => match text.parse() {
                Ok(date) => Some(day_number(date)),
                Err(_) => wrong(self, "a date", "\"2026-11-06\""),
            },
            ValueType::Instant => match Timestamp::parse(text) {
                Some(at) => Some(at.as_ms()),
                None => wrong(self, "an instant", "\"2026-11-06T10:00:00Z\""),
            },
            ValueType::Duration => match text.parse::<Span>() {
                Ok(span) => Some(span.exact_ms()),
                Err(_) => wrong(self, "a duration", "`30d`"),
            },
            _ => {
                let message = format!("`{}` is a number, \"{text}\" is a text", other.written(self.text));
                self.error("RK0204", node, message, None);
                None
            }
        }
    }

    /// A literal must be one of the words that the other side can be.
    fn word_in(&mut self, words: &Option<Arc<[Arc<str>]>>, literal: &Computed, other: &Syntax, node: &Syntax) -> Option<()> {
        let (Some(words), Computed::Text(Text::Const(word), _)) = (words, literal) else { return Some(()) };
        if words.iter().any(|known| **known == **word) {
            return Some(());
        }
        let known: Vec<&str> = words.iter().map(|word| &**word).collect();
        let name = other.written(self.text);
        let help = match nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean `\"{near}\"`? {name} is one of {}", known.join(", ")),
            None => format!("{name} is one of {}", known.join(", ")),
        };
        self.error("RK0204", node, format!("`{name}` is never \"{word}\""), help);
        None
    }

    fn mixed(&mut self, a: &Computed, b: &Computed, node: &Syntax, consequence: &str) -> Option<Typed> {
        let written = node.written(self.text);
        let message = match (a, b) {
            (Computed::Text(..), Computed::Text(..)) => format!("`{written}` orders words, which have no order"),
            _ if kind_of(a) == kind_of(b) => format!("`{written}` does not work with {}", kind_of(a)),
            _ => format!("`{written}` mixes {} with {}, {consequence}", kind_of(a), kind_of(b)),
        };
        let help = match (a, b, &node.form) {
            (Computed::Text(_, Some(words)), _, Form::Binary(_, left, _))
            | (_, Computed::Text(_, Some(words)), Form::Binary(_, _, left)) => {
                let name = left.written(self.text);
                let known: Vec<&str> = words.iter().map(|word| &**word).collect();
                let some: Vec<String> = known.iter().rev().take(2).rev().map(|word| format!("\"{word}\"")).collect();
                Some(format!("{name} is one of {}; `{name} in [{}]`?", known.join(", "), some.join(", ")))
            }
            (Computed::Number(_, ValueType::Duration), _, _) | (_, Computed::Number(_, ValueType::Duration), _) => {
                Some("durations look like `30d`, `36h`".to_owned())
            }
            (Computed::Text(Text::Const(word), None), other, _) | (other, Computed::Text(Text::Const(word), None), _)
                if matches!(kind_of(other), "a number") && word.parse::<f64>().is_ok() =>
            {
                Some(format!("write `{word}` without quotes"))
            }
            (Computed::Text(Text::Const(word), None), Computed::Test(_), _)
            | (Computed::Test(_), Computed::Text(Text::Const(word), None), _)
                if matches!(&**word, "true" | "false") =>
            {
                Some(format!("write `{word}` without quotes"))
            }
            _ => None,
        };
        self.error("RK0204", node, message, help);
        None
    }

    fn refuse_continuous(&mut self, first: &Typed, second: &Typed, node: &Syntax) -> Option<()> {
        let is_constant = |typed: &Typed| matches!(typed.computed, Computed::Number(Number::Const(_), _));
        let is_tight = (first.is_continuous && is_constant(second)) || (second.is_continuous && is_constant(first));
        let equality = matches!(&node.form, Form::Binary(Operator::Equal | Operator::Unequal, ..));
        if (first.is_continuous || second.is_continuous) && (!is_tight || equality) {
            let message = "`silent_for` never stands still: it can only be ordered against a duration".to_owned();
            self.error("RK0204", node, message, "write `silent_for >= 30d`, or count days with `days_silent`".to_owned());
            return None;
        }
        Some(())
    }

    fn note_absence(&mut self, operator: Operator, first: &Typed, second: &Typed) {
        let operator = match (first.is_count, second.is_count) {
            (true, _) => operator,
            (false, true) => operator.mirrored(),
            (false, false) => return,
        };
        let other = if first.is_count { second } else { first };
        let is_zero = matches!(other.computed, Computed::Number(Number::Const(0), _));
        let absence = match operator {
            Operator::Less | Operator::AtMost => Absence { plain: true, negated: false },
            Operator::More | Operator::AtLeast => Absence { plain: false, negated: true },
            Operator::Equal if is_zero => Absence { plain: true, negated: false },
            Operator::Unequal if is_zero => Absence { plain: false, negated: true },
            _ => Absence::default(),
        };
        self.absence = self.absence.or(absence);
    }

    fn membership(&mut self, item: &Syntax, list: &Syntax, node: &Syntax) -> Option<Typed> {
        let first = self.typed(item)?;
        let first = self.present(first, item, node)?;
        let Form::List(elements) = &list.form else {
            let second = self.typed(list)?;
            let second = self.present(second, list, node)?;
            return match second.computed {
                Computed::Items(items) => Some(Typed::test(Test::Contains(items, Box::new(first.computed)))),
                other => {
                    let message = format!("`{}` is {}, after `in` stands a list", list.written(self.text), kind_of(&other));
                    self.error("RK0204", list, message, format!("write `{} in [{}]`", item.written(self.text), list.written(self.text)));
                    None
                }
            };
        };
        if elements.is_empty() {
            self.error("RK0204", list, "nothing is in an empty list, it would always be false".to_owned(), None);
            return None;
        }
        let mut tests = Vec::new();
        for element in elements {
            let second = self.typed(element)?;
            let second = self.present(second, element, node)?;
            let Computed::Test(test) = self.compare_in(first.clone(), second, item, element, node)?.computed else { return None };
            tests.push(test);
        }
        Some(Typed::test(joined(tests)))
    }

    fn compare_in(&mut self, first: Typed, second: Typed, item: &Syntax, element: &Syntax, node: &Syntax) -> Option<Typed> {
        let at =
            Syntax { form: Form::Binary(Operator::Equal, Box::new(item.clone()), Box::new(element.clone())), at: node.at, end: node.end };
        self.compare(Operator::Equal, first, second, item, element, &at)
    }

    // ------------------------------------------------------------------------------------------------------------ arithmetic

    fn calculation(&mut self, operator: Operator, left: &Syntax, right: &Syntax, node: &Syntax) -> Option<Typed> {
        let (first, second) = (self.typed(left), self.typed(right));
        let (first, second) = (first?, second?);
        let (first, second) = (self.present(first, left, node), self.present(second, right, node));
        let (first, second) = (first?, second?);
        let is_count = first.is_count || second.is_count;
        if first.is_continuous || second.is_continuous {
            self.refuse_continuous(&first, &second, &Syntax { form: Form::Bool(true), at: node.at, end: node.end })?;
            self.error(
                "RK0204",
                node,
                "`silent_for` never stands still: it cannot be calculated with".to_owned(),
                "use `days_silent`".to_owned(),
            );
            return None;
        }
        let unit_ms = first.unit_ms.or(second.unit_ms).filter(|_| matches!(operator, Operator::Plus | Operator::Minus));
        let (first, second) =
            if matches!(operator, Operator::Plus | Operator::Minus) { self.meet(first, second, left, right)? } else { (first, second) };
        let computed = self.calculated(operator, first.computed, second.computed, node)?;
        Some(Typed { unit_ms, is_count, ..Typed::of(computed) })
    }

    fn calculated(&mut self, operator: Operator, a: Computed, b: Computed, node: &Syntax) -> Option<Computed> {
        use Operator::{Minus, Over, Plus, Times};
        use ValueType::{Duration, Instant, Int, Money};
        let result = match (operator, &a, &b) {
            (_, Computed::Number(_, Int), Computed::Number(_, Int)) => Some(Int),
            (Plus | Minus, Computed::Number(_, Money), Computed::Number(_, Money)) => Some(Money),
            (Plus | Minus, Computed::Number(_, Duration), Computed::Number(_, Duration)) => Some(Duration),
            (Plus | Minus, Computed::Number(_, Instant), Computed::Number(_, Duration)) => Some(Instant),
            (Plus, Computed::Number(_, Duration), Computed::Number(_, Instant)) => Some(Instant),
            (Minus, Computed::Number(_, Instant), Computed::Number(_, Instant)) => Some(Duration),
            (Times, Computed::Number(_, Money), Computed::Number(_, Int))
            | (Times, Computed::Number(_, Int), Computed::Number(_, Money)) => Some(Money),
            (Times, Computed::Number(_, Duration), Computed::Number(_, Int)) => Some(Duration),
            _ => None,
        };
        match (result, a, b) {
            (Some(result), Computed::Number(Number::Const(a), _), Computed::Number(Number::Const(b), _)) => match calculate(operator, a, b)
            {
                Ok(value) => Some(Computed::Number(Number::Const(value), result)),
                Err(trouble) => self.impossible(trouble, node),
            },
            (Some(result), Computed::Number(a, _), Computed::Number(b, _)) => {
                Some(Computed::Number(Number::Calculate(operator, Box::new((a, b))), result))
            }
            // shares of money, and money over money
            (None, Computed::Number(money, ValueType::Money), Computed::Real(factor)) if matches!(operator, Times | Over) => {
                Some(Computed::Number(Number::Scale(operator, Box::new((money, factor))), ValueType::Money))
            }
            (None, Computed::Real(factor), Computed::Number(money, ValueType::Money)) if operator == Times => {
                Some(Computed::Number(Number::Scale(operator, Box::new((money, factor))), ValueType::Money))
            }
            (None, Computed::Number(money, ValueType::Money), Computed::Number(by, Int)) if operator == Over => {
                Some(Computed::Number(Number::Scale(operator, Box::new((money, whole_as_real(&by)))), ValueType::Money))
            }
            (None, Computed::Number(a, ValueType::Money), Computed::Number(b, ValueType::Money)) if operator == Over => {
                Some(Computed::Real(Real::Calculate(operator, Box::new((whole_as_real(&a), whole_as_real(&b))))))
            }
            (None, Computed::Real(Real::Const(a)), Computed::Real(Real::Const(b))) => match calculate_real(operator, a, b) {
                Ok(value) => Some(Computed::Real(Real::Const(value))),
                Err(trouble) => self.impossible(trouble, node),
            },
            (None, Computed::Real(a), Computed::Real(b)) => Some(Computed::Real(Real::Calculate(operator, Box::new((a, b))))),
            (None, Computed::Real(a), Computed::Number(b, Int)) => {
                let sides = (a, whole_as_real(&b));
                Some(Computed::Real(Real::Calculate(operator, Box::new(sides))))
            }
            (None, Computed::Number(a, Int), Computed::Real(b)) => {
                let sides = (whole_as_real(&a), b);
                Some(Computed::Real(Real::Calculate(operator, Box::new(sides))))
            }
            (_, a, b) => {
                self.mixed(&a, &b, node, "which cannot be calculated");
                None
            }
        }
    }

    fn impossible(&mut self, trouble: crate::engine::features::Trouble, node: &Syntax) -> Option<Computed> {
        let message = format!("`{}` has no value: {}", node.written(self.text), super::EvalError::from(trouble));
        self.error("RK0204", node, message, None);
        None
    }

    pub(super) fn extreme(&mut self, greatest: bool, args: &[Syntax], node: &Syntax) -> Option<Typed> {
        let mut parts: Vec<Typed> = Vec::new();
        for arg in args {
            let typed = self.typed(arg)?;
            parts.push(self.present(typed, arg, node)?);
        }
        let is_real = parts.iter().any(|part| matches!(part.computed, Computed::Real(_)));
        let is_count = parts.iter().any(|part| part.is_count);
        if is_real {
            let mut reals = Vec::new();
            for (part, arg) in parts.into_iter().zip(args) {
                reals.push(match part.computed {
                    Computed::Real(real) => real,
                    Computed::Number(number, ValueType::Int) => whole_as_real(&number),
                    other => return self.no_extreme(&other, arg),
                });
            }
            let real = if greatest { Real::Greatest(reals.into()) } else { Real::Least(reals.into()) };
            return Some(Typed { is_count, ..Typed::of(Computed::Real(real)) });
        }
        let wanted = parts.first()?.computed.value_type();
        let unit_ms = parts.first()?.unit_ms;
        let mut numbers = Vec::new();
        for (part, arg) in parts.into_iter().zip(args) {
            numbers.push(match part.computed {
                Computed::Number(number, value_type) if value_type == wanted && !part.is_continuous => number,
                Computed::Text(Text::Const(text), None) if wanted == ValueType::Money => {
                    Number::Const(self.literal(&text, &wanted, arg, args.first()?)?)
                }
                other => return self.no_extreme(&other, arg),
            });
        }
        let number = if greatest { Number::Greatest(numbers.into()) } else { Number::Least(numbers.into()) };
        Some(Typed { unit_ms, is_count, ..Typed::of(Computed::Number(number, wanted)) })
    }

    fn no_extreme(&mut self, computed: &Computed, node: &Syntax) -> Option<Typed> {
        let message = format!("`{}` is {}: `min` and `max` want values of one type", node.written(self.text), kind_of(computed));
        self.error("RK0204", node, message, None);
        None
    }
}

/// Under which name `has` speaks of an expression.
fn presence_key(node: &Syntax) -> String {
    match &node.form {
        Form::Name(name) if &**name == "days_since_order" => "last_order_at".to_owned(),
        Form::Call(name, args) if matches!(&**name, "days_since" | "hours_since" | "local_days_since" | "lower" | "len" | "round") => {
            args.first().map_or_else(|| node.canonical(), presence_key)
        }
        _ => node.canonical(),
    }
}

fn whole_as_real(number: &Number) -> Real {
    match number {
        Number::Const(value) => Real::Const(*value as f64),
        other => Real::Whole(Box::new(other.clone())),
    }
}

fn negated_if(negate: bool, test: Test) -> Test {
    match test {
        test if !negate => test,
        Test::Const(truth) => Test::Const(!truth),
        test => Test::Not(Box::new(test)),
    }
}

fn same_truth(operator: Operator, a: Test, b: Test) -> Test {
    let negate = operator == Operator::Unequal;
    match (a, b) {
        (Test::Const(constant), test) | (test, Test::Const(constant)) => negated_if(negate == constant, test),
        (a, b) => negated_if(negate, Test::Same(Box::new((a, b)))),
    }
}

/// A comparison of numbers; against a constant, the form that knows its own flip.
fn number_test(operator: Operator, a: Number, b: Number) -> Test {
    match (a, b) {
        (Number::Const(a), Number::Const(b)) => Test::Const(constant_order(operator, a.cmp(&b))),
        (number, Number::Const(constant)) => constant_test(operator, number, constant),
        (Number::Const(constant), number) => constant_test(operator.mirrored(), number, constant),
        (a, b) => Test::Compare(operator, Box::new((a, b))),
    }
}

fn constant_order(operator: Operator, order: std::cmp::Ordering) -> bool {
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::Unequal => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::AtMost => order.is_le(),
        Operator::More => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn constant_test(operator: Operator, number: Number, constant: i64) -> Test {
    let (number, operator, constant) = unwrapped(number, operator, constant);
    let above = constant.checked_add(1);
    match (operator, above) {
        (Operator::Equal, _) => Test::Equals(number, constant),
        (Operator::Unequal, _) => negated_if(true, Test::Equals(number, constant)),
        (Operator::Less, _) => negated_if(true, Test::AtLeast(number, constant)),
        (Operator::AtMost, Some(above)) => negated_if(true, Test::AtLeast(number, above)),
        (Operator::More, Some(above)) => Test::AtLeast(number, above),
        (Operator::AtLeast, _) => Test::AtLeast(number, constant),
        (operator, _) => Test::Compare(operator, Box::new((number, Number::Const(constant)))),
    }
}

/// `x + 5 >= 30` as `x >= 25`: linear forms of what knows its own flip. Only of small numbers, where nothing can overflow.
fn unwrapped(number: Number, operator: Operator, constant: i64) -> (Number, Operator, i64) {
    const SMALL: i64 = 1 << 50;
    let moved = match &number {
        Number::Negative(inner) if is_small(inner) => constant.checked_neg().map(|c| ((**inner).clone(), operator.mirrored(), c)),
        Number::Calculate(calculation, sides) => match (calculation, &**sides) {
            (Operator::Plus, (x, Number::Const(c)) | (Number::Const(c), x)) if is_small(x) => {
                Some((x.clone(), operator, constant.saturating_sub(*c)))
            }
            (Operator::Minus, (x, Number::Const(c))) if is_small(x) => Some((x.clone(), operator, constant.saturating_add(*c))),
            (Operator::Minus, (Number::Const(c), x)) if is_small(x) => Some((x.clone(), operator.mirrored(), c.saturating_sub(constant))),
            _ => None,
        },
        _ => None,
    };
    match moved {
        Some((inner, operator, moved)) if moved.abs() < SMALL && constant.abs() < SMALL => unwrapped(inner, operator, moved),
        _ => (number, operator, constant),
    }
}

fn is_small(number: &Number) -> bool {
    match number {
        Number::Source(source) => !matches!(source, Source::Attribute(_) | Source::Event(_) | Source::Feature(_) | Source::Moment(_)),
        Number::Age(..) | Number::LocalDays(_) => true,
        Number::Otherwise(sides) => is_small(&sides.0) && matches!(sides.1, Number::Const(c) if c.abs() < 1 << 50),
        Number::Negative(inner) => is_small(inner),
        Number::Calculate(Operator::Plus | Operator::Minus, sides) => match &**sides {
            (x, Number::Const(c)) | (Number::Const(c), x) => is_small(x) && c.abs() < 1 << 50,
            _ => false,
        },
        _ => false,
    }
}

/// A comparison of floats; a whole number against a float constant is compared as a whole number, with its own flip.
fn real_test(operator: Operator, a: Real, b: Real) -> Test {
    match (a, b) {
        (Real::Const(a), Real::Const(b)) => Test::Const(a.partial_cmp(&b).is_some_and(|order| constant_order(operator, order))),
        (Real::Whole(number), Real::Const(c)) if c.abs() < 1e15 => whole_against(operator, *number, c),
        (Real::Const(c), Real::Whole(number)) if c.abs() < 1e15 => whole_against(operator.mirrored(), *number, c),
        (a, b) => Test::CompareFloat(operator, Box::new((a, b))),
    }
}

fn whole_against(operator: Operator, number: Number, constant: f64) -> Test {
    let (floor, is_whole) = (constant.floor() as i64, constant.fract() == 0.0);
    match operator {
        _ if is_whole => constant_test(operator, number, floor),
        Operator::AtLeast | Operator::More => constant_test(Operator::More, number, floor),
        Operator::Less | Operator::AtMost => constant_test(Operator::AtMost, number, floor),
        // a whole number never equals a fraction; it must still be readable
        other => Test::CompareFloat(other, Box::new((Real::Whole(Box::new(number)), Real::Const(constant)))),
    }
}

fn text_test(operator: Operator, a: Text, b: Text) -> Test {
    let negate = operator == Operator::Unequal;
    match (a, b) {
        (Text::Const(a), Text::Const(b)) => Test::Const((a == b) != negate),
        (Text::Weekday, Text::Const(day)) | (Text::Const(day), Text::Weekday) => negated_if(negate, Test::Weekday(weekday_bit(&day))),
        (text, Text::Const(word)) | (Text::Const(word), text) => negated_if(negate, Test::Is(text, Box::new([word]))),
        (a, b) => negated_if(negate, Test::SameText(Box::new((a, b)))),
    }
}

fn weekday_bit(day: &Name) -> u8 {
    WEEKDAYS.iter().position(|name| *name == &**day).map_or(0, |index| 1 << index)
}

/// Equalities with the elements of a list, as one test where they are of one text.
fn joined(mut tests: Vec<Test>) -> Test {
    let days = tests.iter().map(|test| if let Test::Weekday(day) = test { Some(*day) } else { None }).collect::<Option<Vec<u8>>>();
    if let Some(days) = days {
        return Test::Weekday(days.into_iter().fold(0, |all, day| all | day));
    }
    let words: Option<Vec<Name>> = tests
        .iter()
        .map(|test| match test {
            Test::Is(_, words) => words.first().cloned(),
            _ => None,
        })
        .collect();
    match (words, tests.first_mut()) {
        (Some(words), Some(Test::Is(text, _))) => Test::Is(text.clone(), words.into()),
        _ => Test::Any(tests.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::engine::rule::{EventType, Place, PropertyType};
    use crate::engine::sample::shop;

    fn errors(text: &str) -> Vec<ExprError> {
        let shop = shop();
        let total = PropertyType { value_type: ValueType::Money, required: true };
        let event = EventType {
            name: "order_completed".into(),
            wire_name: "Order Completed".into(),
            active: true,
            properties: [("total".into(), total)].into(),
            declared_at: Place::default(),
        };
        let scope = Scope { event: Some(&event), ..Scope::of(shop.names()) };
        parse::condition(text, &scope).err().unwrap_or_default()
    }

    #[test]
    fn what_an_operator_may_write() {
        for text in [
            "days_silent >= 30 and not is_new",
            "silent_for >= 36h || days_silent >= 30d",
            "(days_since_order ?? 0) >= 30",
            "has(last_order_at) && days_since_order > 2",
            "!has(last_order_at) || hours_since(last_order_at) < 36h",
            "spend_365d >= '1000 USD' && spend_30d * 0.5 < spend_90d",
            "spend_365d / orders_365d > \"20 USD\" || 2 * orders_30d - 1 > 5.5",
            "country not in ['DE', \"AT\"] && local_weekday in ['sat', 'sun']",
            "event.total >= '25 USD'",
            "local_date >= '2026-11-06' && local_hour = 9",
            "min(days_silent, 3) + max(1, orders_30d) >= 3.5",
            "consent('marketing', 'email') == reachable('email')",
            "points_expiring(14d) > 0 && points_expiring('14d') > 0",
            "has(last_sent_at('sms')) && last_sent_at('sms') < '2026-11-06T10:00:00Z'",
            "(is_new && days_silent > 3) == true",
            "tier_gap <= '100 USD' || tier_keep_gap > '0 USD'",
        ] {
            assert_eq!(errors(text), [], "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_an_operators_words() {
        for (text, code, at, message, help) in [
            ("day_silent >= 30", "RK0203", 0, "unknown name `day_silent`", "did you mean `days_silent`? (whole 24-hour days"),
            ("is_new && reachble", "RK0201", 10, "unknown segment or flag `reachble`", "did you mean `reachable`?"),
            ("tier > 3", "RK0204", 0, "`tier > 3` mixes a word of a list with a number, it would always be false", "tier is one of "),
            ("tier == 'golden'", "RK0204", 8, "`tier` is never \"golden\"", "did you mean `\"gold\"`?"),
            ("tier >= 'silver'", "RK0204", 0, "orders words", "tier in ["),
            (
                "days_since_order >= 30",
                "RK0207",
                0,
                "can be missing",
                "`(days_since_order ?? 0) >= 30` or `has(last_order_at) && days_since_order >= 30`",
            ),
            ("days_silent > 5 || last_order_at > first_seen_at", "RK0207", 19, "can be missing", "has(last_order_at) && "),
            ("3 < days_silent < 30", "RK0204", 0, "compares a truth with a value", "`3 < days_silent && days_silent < 30`"),
            ("spend_30d > 100", "RK0409", 12, "is a bare number", "write `\"100 USD\"`"),
            ("spend_30d > '100 EUR'", "RK0242", 12, "no rate for EUR", "USD"),
            ("days_silent >= 36h", "RK0204", 15, "counts whole days", "`silent_for >= 36h`"),
            ("silent_for >= 30", "RK0204", 0, "mixes a duration with a number", "`30d`"),
            ("silent_for == 30d", "RK0204", 0, "never stands still", "silent_for >= 30d"),
            ("days_silent", "RK0204", 0, "is a number, a condition is true or false", "`days_silent > 0`"),
            ("event.totl > '1 USD'", "RK0202", 0, "no property `totl`", "did you mean `event.total`?"),
            ("p_alive > 0.5", "RK0203", 0, "not yet available", ""),
            ("points_of('bonsu') > 1", "RK0225", 10, "no class of points `bonsu`", "did you mean `\"bonus\"`?"),
            ("days_snce(last_order_at) > 1", "RK0203", 0, "unknown function `days_snce`", "did you mean `days_since`?"),
            ("days_since(3) > 1", "RK0204", 11, "is no instant", "last_order_at"),
            ("now() > 3", "RK0203", 0, "unknown function `now`", ""),
            ("1 / 0 == orders_30d", "RK0204", 0, "a division by zero", ""),
            ("orders_30d == '3'", "RK0204", 0, "mixes a number with a text", "write `3` without quotes"),
            ("orders_30d in []", "RK0204", 14, "empty list", ""),
            ("orders_30d in 3", "RK0204", 14, "after `in` stands a list", "in [3]"),
            ("running('nothing')", "RK0203", 8, "no rule `nothing`", ""),
            ("done('warn')", "RK0114", 5, "no step `warn`", ""),
        ] {
            let errors = errors(text);
            let Some(error) = errors.first() else { panic!("{text}: no error") };
            assert_eq!((error.code, error.at), (code, at), "{text}: {error:?}");
            assert!(error.message.contains(message), "{text}: {error:?}");
            assert!(error.help.as_deref().unwrap_or_default().contains(help), "{text}: {error:?}");
        }
    }

    #[test]
    fn all_errors_of_a_text_are_told_at_once() {
        let errors = errors("day_silent >= 30 && tier > 3 && spend_30d > 100");
        assert_eq!(errors.iter().map(|error| error.code).collect::<Vec<_>>(), ["RK0203", "RK0204", "RK0409"]);
    }

    #[test]
    fn absence_is_seen_in_either_form() {
        let shop = shop();
        for (text, plain, negated) in [
            ("days_silent >= 30", true, true),
            ("orders_30d < 1", true, false),
            ("!(orders_30d >= 1)", true, false),
            ("orders_30d >= 1", false, true),
            ("0 == orders_90d", true, false),
            ("not (orders_30d == 0)", false, true),
            ("spend_30d <= '5 USD'", true, false),
            ("country == 'DE' && points > 3", false, false),
        ] {
            let condition = parse::condition(text, &Scope::of(shop.names())).expect(text);
            assert_eq!((condition.rests_on_absence(), condition.negation_rests_on_absence()), (plain, negated), "{text}");
        }
    }

    #[test]
    fn a_tree_reads_like_the_text_it_stands_for() {
        let shop = shop();
        let parse = |text: &str| parse::condition(text, &Scope::of(shop.names())).expect(text);
        let tree =
            Condition::combine(Group::All, vec![(parse("days_silent >= 30d"), None), (parse("is_new && points > 3"), Some("why".into()))]);
        let text = parse("days_silent>=30d and (is_new and points>3)");
        assert_eq!(tree.hash_text(), "(&& (>= days_silent 30d) is_new (> points 3))");
        assert_eq!(tree.reads(), text.reads());
        let none = Condition::combine(Group::None, vec![(parse("is_new"), None), (parse("points > 3"), None)]);
        assert_eq!(none.hash_text(), parse("!(is_new || points > 3)").hash_text());
    }

    #[test]
    fn guards_reach_into_the_later_parts_of_a_tree() {
        let shop = shop();
        let scope = Scope::of(shop.names());
        let first = parse::condition("has(last_order_at)", &scope).expect("a guard");
        assert!(parse::condition("days_since_order >= 30", &scope).is_err());
        assert!(parse::condition_given("days_since_order >= 30", &scope, &Guards::default().with(&first)).is_ok());
    }
}
