//! Calculations: which types meet under which operator, and what comes out.

use super::ValueType;
use super::compare::whole_as_real;
use super::eval::{Computed, Number, Real, Text, calculate, calculate_real};
use super::syntax::{Form, Operator, Syntax};
use super::types::{Checker, Typed, kind_of};

impl Checker<'_> {
    pub(super) fn calculation(&mut self, operator: Operator, left: &Syntax, right: &Syntax, node: &Syntax) -> Option<Typed> {
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
