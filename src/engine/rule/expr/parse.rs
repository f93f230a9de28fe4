//! Rhai's tree, turned into ours at once. The only file that knows Rhai: its tree is declared volatile, so the version is pinned and
//! the shapes are held by a test. Nothing is ever evaluated by Rhai.

use rhai::{Engine, Expr as Node, FnCallExpr, ParseErrorType, Position, Stmt};

use super::lex::{self, Lexed, Literal};
use super::syntax::{Form, Operator, Syntax};
use super::{Condition, Expr, ValueType, types};
pub use super::{ExprError, Guards, Scope};
use crate::engine::profile::Name;

/// Nesting beyond this is refused.
const MAX_DEPTH: usize = 60;

/// Reads, checks and compiles a condition.
///
/// # Errors
/// All that is wrong with it, as far as it can be told at once.
pub fn condition(text: &str, scope: &Scope<'_>) -> Result<Condition, Vec<ExprError>> {
    condition_given(text, scope, &Guards::default())
}

/// Like [`condition`], where some optional names are known to be there: earlier parts of an `all:` have asked for them.
pub fn condition_given(text: &str, scope: &Scope<'_>, guards: &Guards) -> Result<Condition, Vec<ExprError>> {
    types::condition(text, &syntax(text)?, scope, guards)
}

/// Reads, checks and compiles an expression with a value, of any type.
pub fn expression(text: &str, scope: &Scope<'_>) -> Result<(Expr, ValueType), Vec<ExprError>> {
    let expr = types::expression(text, &syntax(text)?, scope)?;
    let value_type = expr.value_type().clone();
    Ok((expr, value_type))
}

/// The tree of a text, names not resolved.
pub(super) fn syntax(text: &str) -> Result<Syntax, Vec<ExprError>> {
    let lexed = lex::lex(text)?;
    let mut engine = Engine::new_raw();
    engine.set_optimization_level(rhai::OptimizationLevel::None);
    engine.set_max_expr_depths(MAX_DEPTH, MAX_DEPTH);
    engine.set_allow_if_expression(false).set_allow_switch_expression(false).set_allow_loop_expressions(false);
    engine.set_allow_statement_expression(false).set_allow_anonymous_fn(false).set_allow_looping(false);
    let tree = engine.compile_expression(&lexed.script).map_err(|error| vec![unreadable(text, &lexed, &error.0, error.1)])?;
    let mut translator = Translator { text, lexed: &lexed };
    match tree.statements() {
        [Stmt::Expr(node)] => translator.node(node).map_err(|error| vec![error]),
        _ => Err(vec![ExprError::new("RK0100", 0, text.chars().count(), "this is no condition".to_owned())]),
    }
}

/// Rhai's complaint in an operator's words, at the piece that it concerns.
fn unreadable(text: &str, lexed: &Lexed, error: &ParseErrorType, position: Position) -> ExprError {
    let end = text.trim_end().chars().count();
    let piece = position.position().and_then(|column| lexed.pieces.get(lexed.piece_at(column)));
    let (at, len) = piece.map_or((end.saturating_sub(1), 1), |piece| (piece.at, piece.end - piece.at));
    let written: String = text.chars().skip(at).take(len).collect();
    let (message, help) = match error {
        ParseErrorType::UnexpectedEOF => ("the condition ends too early".to_owned(), "something must follow the last operator"),
        ParseErrorType::MissingToken(token, _) if matches!(token.as_str(), ")" | "]") => {
            (format!("a `{token}` is missing before this"), "close what was opened")
        }
        ParseErrorType::ExprTooDeep => ("this is nested too deeply".to_owned(), "make segments of its parts"),
        ParseErrorType::LiteralTooLarge(..) | ParseErrorType::BadInput(_) => {
            (format!("`{written}` cannot be read"), "numbers have up to 18 digits")
        }
        _ if position.is_none() => ("the condition ends too early".to_owned(), "something must follow the last operator"),
        _ => (format!("`{written}` does not fit here"), "between two parts stands an operator: `&&`, `||`, `>=`, `==` ..."),
    };
    ExprError::new("RK0100", at, len, message).help(help)
}

struct Translator<'t> {
    text: &'t str,
    lexed: &'t Lexed,
}

impl Translator<'_> {
    fn node(&mut self, node: &Node) -> Result<Syntax, ExprError> {
        let piece = self.piece(node.start_position());
        let form = match node {
            Node::BoolConstant(value, _) => Form::Bool(*value),
            Node::IntegerConstant(value, _) => return Ok(self.number(Form::Int(*value), piece)),
            Node::FloatConstant(value, _) => return Ok(self.number(Form::Float(**value), piece)),
            Node::StringConstant(index, _) => self.literal(index, piece)?,
            Node::Variable(variable, _, _) => Form::Name(self.name(&variable.1, piece)?),
            Node::Array(items, _) => {
                let items = items.iter().map(|item| self.node(item)).collect::<Result<_, _>>()?;
                return Ok(self.spanned(Form::List(items), piece, self.partner(piece)));
            }
            Node::And(parts, _) => return self.parts(parts, Form::All),
            Node::Or(parts, _) => return self.parts(parts, Form::Any),
            Node::Coalesce(parts, _) => return self.coalesce(parts),
            Node::Dot(sides, ..) => return self.property(&sides.lhs, &sides.rhs, piece),
            Node::FnCall(call, position) => return self.call(call, *position, piece),
            _ => return Err(self.refused(piece)),
        };
        Ok(self.spanned(form, piece, piece))
    }

    fn call(&mut self, call: &FnCallExpr, position: Position, first: usize) -> Result<Syntax, ExprError> {
        if call.capture_parent_scope || !call.namespace.is_empty() {
            return Err(self.refused(first));
        }
        let args = call.args.iter().map(|arg| self.node(arg)).collect::<Result<Vec<_>, _>>()?;
        // `x in list` arrives as `contains(list, x)`; written functions are called `n0`, `n1` ..
        if call.op_token.is_none() && call.name != "contains" {
            return self.function(&call.name, position, args);
        }
        let at = self.piece(position);
        let form = match (call.name.as_str(), <[Syntax; 2]>::try_from(args)) {
            ("contains", Ok([list, item])) => Form::In { item: Box::new(item), list: Box::new(list) },
            (name, Ok([left, right])) => {
                let operator = Operator::named(name).ok_or_else(|| self.refused(at))?;
                Form::Binary(operator, Box::new(left), Box::new(right))
            }
            (name, Err(args)) => {
                let one: [Syntax; 1] = args.try_into().map_err(|_| self.refused(at))?;
                let [inner] = one;
                let last = self.last_piece(&inner);
                return match name {
                    // `x !in list` arrives as the negation of `x in list`, without an operator of its own in front
                    "!" if matches!(inner.form, Form::In { .. }) && inner.at <= self.at(at) => {
                        let span = (inner.at, inner.end);
                        Ok(Syntax { form: Form::Not(Box::new(inner)), at: span.0, end: span.1 })
                    }
                    "!" => Ok(self.spanned(Form::Not(Box::new(inner)), at, last)),
                    "-" => Ok(self.spanned(Form::Negative(Box::new(inner)), at, last)),
                    "+" => Ok(inner),
                    _ => Err(self.refused(at)),
                };
            }
        };
        let (Form::In { item: left, list: right } | Form::Binary(_, left, right)) = &form else { return Err(self.refused(at)) };
        let (from, to) = (left.at.min(right.at), left.end.max(right.end));
        Ok(self.balanced(form, from, to))
    }

    fn function(&mut self, name: &str, position: Position, args: Vec<Syntax>) -> Result<Syntax, ExprError> {
        let piece = self.piece(position);
        let name = self.name(name, piece)?;
        let last = self.partner(piece + 1);
        Ok(self.spanned(Form::Call(name, args), piece, last))
    }

    fn parts(&mut self, parts: &[Node], make: impl Fn(Vec<Syntax>) -> Form) -> Result<Syntax, ExprError> {
        let parts = parts.iter().map(|part| self.node(part)).collect::<Result<Vec<_>, _>>()?;
        let (from, to) = (parts.first().map_or(0, |p| p.at), parts.last().map_or(0, |p| p.end));
        Ok(self.balanced(make(parts), from, to))
    }

    fn coalesce(&mut self, parts: &[Node]) -> Result<Syntax, ExprError> {
        let mut parts = parts.iter().map(|part| self.node(part)).collect::<Result<Vec<_>, _>>()?.into_iter().rev();
        let mut whole = parts.next().ok_or_else(|| self.refused(0))?;
        for part in parts {
            let (from, to) = (part.at, whole.end);
            whole = self.balanced(Form::Otherwise(Box::new(part), Box::new(whole)), from, to);
        }
        Ok(whole)
    }

    fn property(&mut self, base: &Node, property: &Node, piece: usize) -> Result<Syntax, ExprError> {
        let (Node::Variable(base, ..), Node::Property(property, position)) = (base, property) else { return Err(self.refused(piece)) };
        let last = self.piece(*position);
        let form = Form::Property(self.name(&base.1, piece)?, self.name(&property.2, last)?);
        Ok(self.spanned(form, piece, last))
    }

    fn number(&self, form: Form, piece: usize) -> Syntax {
        // `-3` is folded into one constant that stands at its sign
        let signed = self.lexed.pieces.get(piece).is_some_and(|p| self.text.chars().nth(p.at) == Some('-'));
        self.spanned(form, piece, piece + usize::from(signed))
    }

    fn literal(&self, index: &str, piece: usize) -> Result<Form, ExprError> {
        match index.parse::<usize>().ok().and_then(|index| self.lexed.literals.get(index)) {
            Some(Literal::Text(text)) => Ok(Form::Text(Name::from(text.as_str()))),
            Some(Literal::Span(span)) => Ok(Form::Span(*span)),
            None => Err(self.refused(piece)),
        }
    }

    fn name(&self, alias: &str, piece: usize) -> Result<Name, ExprError> {
        let index = alias.strip_prefix('n').and_then(|digits| digits.parse::<usize>().ok());
        index.and_then(|index| self.lexed.names.get(index)).map(|name| Name::from(name.as_str())).ok_or_else(|| self.refused(piece))
    }

    fn piece(&self, position: Position) -> usize {
        position.position().map_or(0, |column| self.lexed.piece_at(column))
    }

    fn partner(&self, piece: usize) -> usize {
        self.lexed.pieces.get(piece).map_or(piece, |p| p.partner)
    }

    fn at(&self, piece: usize) -> usize {
        self.lexed.pieces.get(piece).map_or(0, |p| p.at)
    }

    fn last_piece(&self, inner: &Syntax) -> usize {
        self.lexed.pieces.partition_point(|piece| piece.end <= inner.end).saturating_sub(1)
    }

    fn spanned(&self, form: Form, first: usize, last: usize) -> Syntax {
        let (from, to) = (self.at(first), self.lexed.pieces.get(last).map_or(0, |p| p.end));
        self.balanced(form, from, to)
    }

    /// Rhai drops parentheses; a span takes in the partner of each that it cuts off.
    fn balanced(&self, form: Form, mut at: usize, mut end: usize) -> Syntax {
        let pieces = &self.lexed.pieces;
        loop {
            let inside = pieces.iter().filter(|p| p.at >= at && p.end <= end);
            let partners = inside.filter_map(|p| pieces.get(p.partner));
            let (from, to) = partners.fold((at, end), |(from, to), p| (from.min(p.at), to.max(p.end)));
            if (from, to) == (at, end) {
                return Syntax { form, at, end };
            }
            (at, end) = (from, to);
        }
    }

    fn refused(&self, piece: usize) -> ExprError {
        let (at, end) = self.lexed.pieces.get(piece).map_or((0, 1), |p| (p.at, p.end));
        let written: String = self.text.chars().skip(at).take(end - at).collect();
        let help = "a condition knows names, literals, `event.x`, functions, and && || ! == != < <= > >= + - * / % ?? in";
        ExprError::new("RK0100", at, end - at, format!("`{written}` stands in a form that conditions do not have")).help(help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shapes of Rhai's tree that we rely on. If this fails after an upgrade, the translator above needs a look.
    #[test]
    fn shapes_of_the_tree() {
        for (text, shape) in [
            ("a && b && c || d", "(|| (&& a b c) d)"),
            ("!a && not b", "(&& (! a) (! b))"),
            ("x >= 30", "(>= x 30)"),
            ("x ?? 0 >= 30", "(>= (?? x 0) 30)"),
            ("(x ?? y ?? 0) > -3", "(> (?? x (?? y 0)) -3)"),
            ("a + b * c - d / e % f", "(- (+ a (* b c)) (% (/ d e) f))"),
            ("tier in ['gold', \"silver\"]", "(in tier [\"gold\" \"silver\"])"),
            ("tier not in ['gold']", "(! (in tier [\"gold\"]))"),
            ("!(tier in ['gold'])", "(! (in tier [\"gold\"]))"),
            ("event.total >= '25 GBP'", "(>= event.total \"25 GBP\")"),
            ("sends_7d('sms') = 0", "(== (sends_7d \"sms\") 0)"),
            ("-x < 2.5", "(< (- x) 2.5)"),
            ("a < x < b", "(< (< a x) b)"),
            ("silent_for >= 30d", "(>= silent_for 30d)"),
            ("a == b != c", "(!= (== a b) c)"),
            ("min(a, max(b, 3))", "(min a (max b 3))"),
            ("a || b && c", "(|| a (&& b c))"),
        ] {
            let tree = syntax(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
            assert_eq!(tree.canonical(), shape, "{text}");
            let chars = text.chars().count();
            assert_eq!((tree.at, tree.end), (0, chars), "{text}: the whole text is the root's span");
        }
    }

    #[test]
    fn spans_are_those_of_the_written_text() {
        let tree = syntax("(a ?? 0) >= 30 && not b").expect("a condition");
        let Form::All(parts) = &tree.form else { panic!("a conjunction") };
        assert_eq!(parts.iter().map(|p| (p.at, p.end)).collect::<Vec<_>>(), [(0, 14), (18, 23)]);
    }

    #[test]
    fn what_is_no_condition_is_refused_with_its_place() {
        for (text, at) in [
            ("a &&", 2),
            ("a b", 2),
            ("if a { b }", 5),
            ("a[0]", 0),
            ("a.b.c", 0),
            ("a.len()", 0),
            ("(a && b", 6),
            ("|x| x", 0),
            ("let x = 3", 4),
        ] {
            let errors = syntax(text).expect_err(text);
            assert_eq!((errors[0].code, errors[0].at), ("RK0100", at), "{text}: {errors:?}");
        }
    }

    #[test]
    fn what_would_not_end_is_no_condition() {
        let deep = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
        for text in ["loop { }", "while a { }", "for x in a { }", "import \"x\"", "fn f() { f() }", "do { } while a", &deep] {
            assert!(syntax(text).is_err(), "{text:.40}");
        }
    }
}
