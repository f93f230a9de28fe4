//! The tree of a condition as written, names not resolved, with the places of its parts.

use std::fmt::Write as _;

use crate::engine::profile::Name;
use crate::engine::time::Span;

/// A part of the text, by its characters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Syntax {
    pub form: Form,
    pub at: usize,
    pub end: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Name),
    Span(Span),
    Name(Name),
    /// `event.total`
    Property(Name, Name),
    Call(Name, Vec<Syntax>),
    List(Vec<Syntax>),
    Not(Box<Syntax>),
    Negative(Box<Syntax>),
    All(Vec<Syntax>),
    Any(Vec<Syntax>),
    /// `x ?? 0`
    Otherwise(Box<Syntax>, Box<Syntax>),
    Binary(Operator, Box<Syntax>, Box<Syntax>),
    In {
        item: Box<Syntax>,
        list: Box<Syntax>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    Plus,
    Minus,
    Times,
    Over,
    Remainder,
}

impl Operator {
    const ALL: [(Operator, &'static str); 11] = [
        (Operator::Equal, "=="),
        (Operator::Unequal, "!="),
        (Operator::Less, "<"),
        (Operator::AtMost, "<="),
        (Operator::More, ">"),
        (Operator::AtLeast, ">="),
        (Operator::Plus, "+"),
        (Operator::Minus, "-"),
        (Operator::Times, "*"),
        (Operator::Over, "/"),
        (Operator::Remainder, "%"),
    ];

    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(operator, _)| operator)
    }

    pub fn text(self) -> &'static str {
        Self::ALL.into_iter().find(|(operator, _)| *operator == self).map_or("", |(_, name)| name)
    }

    /// `<`, `<=`, `>`, `>=`.
    pub fn is_order(self) -> bool {
        matches!(self, Operator::Less | Operator::AtMost | Operator::More | Operator::AtLeast)
    }

    pub fn is_comparison(self) -> bool {
        self.is_order() || matches!(self, Operator::Equal | Operator::Unequal)
    }

    /// The same comparison with its sides exchanged.
    pub fn mirrored(self) -> Self {
        match self {
            Operator::Less => Operator::More,
            Operator::AtMost => Operator::AtLeast,
            Operator::More => Operator::Less,
            Operator::AtLeast => Operator::AtMost,
            other => other,
        }
    }
}

impl Syntax {
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.at).max(1)
    }

    pub fn written<'t>(&self, text: &'t str) -> &'t str {
        let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
        text.get(byte(self.at)..byte(self.end)).unwrap_or_default()
    }

    /// The normalised text: the same for all ways to write the same tree. Hashes are taken of it.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let many = |out: &mut String, head: &str, parts: &mut dyn Iterator<Item = &Syntax>| {
            let _ = write!(out, "({head}");
            for part in parts {
                out.push(' ');
                part.write(out);
            }
            out.push(')');
        };
        match &self.form {
            Form::Bool(value) => _ = write!(out, "{value}"),
            Form::Int(value) => _ = write!(out, "{value}"),
            Form::Float(value) => _ = write!(out, "{value:?}"),
            Form::Text(value) => _ = write!(out, "{value:?}"),
            Form::Span(span) => _ = write!(out, "{span}"),
            Form::Name(name) => out.push_str(name),
            Form::Property(base, name) => _ = write!(out, "{base}.{name}"),
            Form::Call(name, args) => many(out, name, &mut args.iter()),
            Form::List(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(' ');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Form::Not(inner) => many(out, "!", &mut std::iter::once(&**inner)),
            Form::Negative(inner) => many(out, "-", &mut std::iter::once(&**inner)),
            Form::All(parts) => many(out, "&&", &mut parts.iter()),
            Form::Any(parts) => many(out, "||", &mut parts.iter()),
            Form::Otherwise(left, right) => many(out, "??", &mut [&**left, &**right].into_iter()),
            Form::Binary(operator, left, right) => many(out, operator.text(), &mut [&**left, &**right].into_iter()),
            Form::In { item, list } => many(out, "in", &mut [&**item, &**list].into_iter()),
        }
    }
}
