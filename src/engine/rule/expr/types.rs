//! Types, strictly: what a text compares must be comparable, what can be missing must be guarded. What passes is compiled on the way.
//!
//! Int and float mix, money and instants take text literals (`"30 USD"`, `"2026-11-06T10:00:00Z"`), a duration is compared with a count
//! of days or hours as so many of them; every other mix is an error that says what would have happened.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::compare::negated_if;
use super::eval::{Computed, Number, Real, Test, Text};
use super::explain::{Outline, Shape};
use super::syntax::{Form, Syntax};
use super::{Absence, Condition, Expr, ExprError, Group, Guards, Reads, Scope, ValueType};

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

    pub fn test(test: Test) -> Self {
        Typed::of(Computed::Test(test))
    }

    pub fn whole(number: Number) -> Self {
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

    pub(super) fn error(&mut self, code: &'static str, node: &Syntax, message: String, help: impl Into<Option<String>>) {
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
    pub(super) fn present(&mut self, typed: Typed, node: &Syntax, whole: &Syntax) -> Option<Typed> {
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
