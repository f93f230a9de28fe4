//! Comparisons: both sides brought to one type where that is clear, refused in an operator's words where it is not, and compiled into
//! the form that knows its own flip.

use std::sync::Arc;

use super::eval::{Computed, Number, Real, Test, Text, WEEKDAYS};
use super::syntax::{Form, Operator, Syntax};
use super::types::{Checker, Typed, kind_of};
use super::{Absence, ValueType};
use crate::engine::features::{Source, day_number};
use crate::engine::money::Money;
use crate::engine::profile::Name;
use crate::engine::rule::suggest::nearest;
use crate::engine::time::{DAY_MS, Span, Timestamp};

impl Checker<'_> {
    pub(super) fn comparison(&mut self, operator: Operator, left: &Syntax, right: &Syntax, node: &Syntax) -> Option<Typed> {
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
    pub(super) fn meet(&mut self, first: Typed, second: Typed, left: &Syntax, right: &Syntax) -> Option<(Typed, Typed)> {
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
    pub(super) fn literal(&mut self, text: &str, wanted: &ValueType, node: &Syntax, other: &Syntax) -> Option<i64> {
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
    pub(super) fn word_in(&mut self, words: &Option<Arc<[Arc<str>]>>, literal: &Computed, other: &Syntax, node: &Syntax) -> Option<()> {
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

    pub(super) fn mixed(&mut self, a: &Computed, b: &Computed, node: &Syntax, consequence: &str) -> Option<Typed> {
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

    pub(super) fn refuse_continuous(&mut self, first: &Typed, second: &Typed, node: &Syntax) -> Option<()> {
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

    pub(super) fn membership(&mut self, item: &Syntax, list: &Syntax, node: &Syntax) -> Option<Typed> {
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
}

pub(super) fn whole_as_real(number: &Number) -> Real {
    match number {
        Number::Const(value) => Real::Const(*value as f64),
        other => Real::Whole(Box::new(other.clone())),
    }
}

pub(super) fn negated_if(negate: bool, test: Test) -> Test {
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
