//! The text of a condition, before Rhai sees it: words become `n0`, `n1` .. (so that no name of the shop's collides with a word that
//! Rhai reserves, in whatever script it is written), texts become their number, and what people write by habit becomes what Rhai
//! reads (`and`, `not`, `=`, `'gold'`, `30d`). Every piece remembers where it stood, so errors point at what was written.

use super::ExprError;
use crate::engine::time::Span;

/// Longer texts are refused: Rhai counts columns in 16 bits, and nobody reads that.
const MAX_CHARS: usize = 4_000;

/// A piece of the text as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Characters of the written text.
    pub at: usize,
    pub end: usize,
    /// First column (from 1) in the text for Rhai.
    pub column: usize,
    /// Index of the bracket that belongs to this one; its own index if it is none.
    pub partner: usize,
}

/// What a text literal stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Span(Span),
}

/// The text for Rhai, and the way back.
#[derive(Debug, Default)]
pub(super) struct Lexed {
    pub script: String,
    pub pieces: Vec<Piece>,
    pub names: Vec<String>,
    pub literals: Vec<Literal>,
}

impl Lexed {
    /// The piece that begins at or before that column.
    pub fn piece_at(&self, column: usize) -> usize {
        self.pieces.partition_point(|piece| piece.column <= column).saturating_sub(1)
    }
}

/// Splits and rewrites; all that cannot be read is reported at once.
pub(super) fn lex(text: &str) -> Result<Lexed, Vec<ExprError>> {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() > MAX_CHARS {
        let help = "make a segment of its parts";
        return Err(vec![ExprError::new("RK0100", 0, 1, format!("a condition of {} characters is too long", chars.len())).help(help)]);
    }
    let mut lexer = Lexer { chars, at: 0, lexed: Lexed::default(), columns: 0, open: Vec::new(), errors: Vec::new() };
    while let Some(c) = lexer.peek(0) {
        lexer.step(c);
    }
    if lexer.lexed.pieces.is_empty() && lexer.errors.is_empty() {
        lexer.errors.push(ExprError::new("RK0100", 0, 1, "an empty condition".to_owned()));
    }
    if lexer.errors.is_empty() { Ok(lexer.lexed) } else { Err(lexer.errors) }
}

/// The text with its operators and quotes as the language writes them, everything else as it was. None: it is no condition.
pub fn canonical(text: &str) -> Option<String> {
    let lexed = lex(text).ok()?;
    let chars: Vec<char> = text.chars().collect();
    let written = |from: usize, to: usize| chars.get(from..to).unwrap_or_default().iter().collect::<String>();
    let mut out = String::new();
    let mut at = 0;
    for piece in &lexed.pieces {
        let before = written(at, piece.at);
        // `not x` becomes `!x`
        out.push_str(if out.ends_with('!') { before.trim_start() } else { &before });
        let word = written(piece.at, piece.end);
        let inner = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).filter(|inner| !inner.contains(['"', '\\']));
        match (word.as_str(), inner) {
            ("and", _) => out.push_str("&&"),
            ("or", _) => out.push_str("||"),
            ("not", _) => out.push('!'),
            ("=", _) => out.push_str("=="),
            ("≥", _) => out.push_str(">="),
            ("≤", _) => out.push_str("<="),
            ("≠", _) => out.push_str("!="),
            (_, Some(inner)) => out.push_str(&format!("\"{inner}\"")),
            _ => out.push_str(&word),
        }
        at = piece.end;
    }
    out.push_str(&written(at, chars.len()));
    Some(out)
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    lexed: Lexed,
    /// Characters of `script` so far.
    columns: usize,
    open: Vec<usize>,
    errors: Vec<ExprError>,
}

/// What is written by habit, longest first: read as (`Ok`), or refused with the way to write it.
const OPERATORS: [(&str, Result<&str, &str>); 40] = [
    ("===", Err("write `==`")),
    ("!==", Err("write `!=`")),
    ("=>", Err("write `>=`")),
    ("=<", Err("write `<=`")),
    ("<>", Err("write `!=`")),
    ("<<", Err("only `+ - * / %` calculate")),
    (">>", Err("only `+ - * / %` calculate")),
    ("**", Err("only `+ - * / %` calculate")),
    ("//", Err("comments belong into the YAML: `# ...` after the text")),
    ("/*", Err("comments belong into the YAML: `# ...` after the text")),
    ("?.", Err("say what missing means: `x ?? 0`, or `has(x) && ...`")),
    ("&&", Ok("&&")),
    ("||", Ok("||")),
    ("==", Ok("==")),
    ("!=", Ok("!=")),
    ("<=", Ok("<=")),
    (">=", Ok(">=")),
    ("??", Ok("??")),
    ("≥", Ok(">=")),
    ("≤", Ok("<=")),
    ("≠", Ok("!=")),
    ("=", Ok("==")),
    ("<", Ok("<")),
    (">", Ok(">")),
    ("+", Ok("+")),
    ("-", Ok("-")),
    ("*", Ok("*")),
    ("/", Ok("/")),
    ("%", Ok("%")),
    ("!", Ok("!")),
    ("(", Ok("(")),
    (")", Ok(")")),
    ("[", Ok("[")),
    ("]", Ok("]")),
    (",", Ok(",")),
    (".", Ok(".")),
    ("&", Err("write `&&` or `and`")),
    ("|", Err("write `||` or `or`")),
    ("?", Err("say what missing means: `x ?? 0`, or `has(x) && ...`")),
    ("`", Err("texts stand in quotes: \"gold\"")),
];

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn step(&mut self, c: char) {
        if c.is_whitespace() {
            self.at += 1;
        } else if c.is_alphabetic() || c == '_' {
            self.word();
        } else if c.is_ascii_digit() {
            self.number();
        } else if c == '"' || c == '\'' {
            self.text(c);
        } else {
            self.operator(c);
        }
    }

    fn push(&mut self, piece: &str, at: usize) {
        if !self.lexed.script.is_empty() {
            self.lexed.script.push(' ');
            self.columns += 1;
        }
        let index = self.lexed.pieces.len();
        let mut partner = index;
        match piece {
            "(" | "[" => self.open.push(index),
            ")" | "]" => {
                if let Some(opened) = self.open.pop() {
                    partner = opened;
                    if let Some(first) = self.lexed.pieces.get_mut(opened) {
                        first.partner = index;
                    }
                }
            }
            _ => {}
        }
        self.lexed.pieces.push(Piece { at, end: self.at, column: self.columns + 1, partner });
        self.lexed.script.push_str(piece);
        self.columns += piece.chars().count();
    }

    fn refuse(&mut self, at: usize, len: usize, message: String, help: &str) {
        self.errors.push(ExprError::new("RK0100", at, len, message).help(help));
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let from = self.at;
        while self.peek(0).is_some_and(&keep) {
            self.at += 1;
        }
        self.chars.get(from..self.at).unwrap_or_default().iter().collect()
    }

    fn word(&mut self) {
        let at = self.at;
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
        match word.as_str() {
            "true" | "false" | "in" => self.push(&word, at),
            "and" => self.push("&&", at),
            "or" => self.push("||", at),
            "not" if self.next_word_is_in() => {
                self.take_while(char::is_whitespace);
                self.take_while(char::is_alphanumeric);
                self.push("!in", at);
            }
            "not" => self.push("!", at),
            "AND" | "OR" | "NOT" => {
                let help = format!("write `{}`", word.to_lowercase());
                self.refuse(at, word.len(), format!("`{word}` is no operator"), &help);
            }
            _ => {
                let known = self.lexed.names.iter().position(|name| *name == word);
                let index = known.unwrap_or_else(|| {
                    self.lexed.names.push(word);
                    self.lexed.names.len() - 1
                });
                self.push(&format!("n{index}"), at);
            }
        }
    }

    fn next_word_is_in(&self) -> bool {
        let rest: String = self.chars.get(self.at..).unwrap_or_default().iter().collect();
        rest.trim_start().strip_prefix("in").is_some_and(|tail| !tail.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    }

    /// A number, or a duration (`30d`, `7d10h`).
    fn number(&mut self) {
        let at = self.at;
        let mut number = self.take_while(|c| c.is_ascii_digit() || c == '_');
        let has_fraction = self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit());
        if has_fraction {
            self.at += 1;
            number.push('.');
            number.push_str(&self.take_while(|c| c.is_ascii_digit()));
        }
        if self.peek(0).is_some_and(char::is_alphabetic) {
            let unit = self.take_while(char::is_alphanumeric);
            let written = format!("{number}{unit}");
            return match written.parse::<Span>() {
                Ok(span) => self.literal(Literal::Span(span), at),
                Err(_) => self.refuse(
                    at,
                    written.chars().count(),
                    format!("`{written}` is no number"),
                    "durations look like `30d`, `36h`, `7d10h`",
                ),
            };
        }
        if self.peek(0) == Some('%') && self.percent_ends_here() {
            let share: f64 = number.parse().unwrap_or_default();
            let help = format!("in a condition a share is a number: `{}`", share / 100.0);
            self.refuse(at, number.len() + 1, format!("`{number}%` is no number"), &help);
            self.at += 1;
            return;
        }
        self.push(&number, at);
    }

    /// Whether the `%` here cannot be a remainder, for want of something to divide by.
    fn percent_ends_here(&self) -> bool {
        let rest: String = self.chars.get(self.at + 1..).unwrap_or_default().iter().collect();
        let rest = rest.trim_start();
        rest.is_empty()
            || rest.starts_with([')', '&', '|', ',', ']', '=', '<', '>', '!'])
            || rest.starts_with("and ")
            || rest.starts_with("or ")
    }

    fn literal(&mut self, literal: Literal, at: usize) {
        self.lexed.literals.push(literal);
        let index = self.lexed.literals.len() - 1;
        self.push(&format!("\"{index}\""), at);
    }

    fn text(&mut self, quote: char) {
        let at = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek(0) else {
                let len = self.chars.len() - at;
                return self.refuse(at, len, "this text is not closed".to_owned(), &format!("put {quote} at its end"));
            };
            self.at += 1;
            match c {
                c if c == quote => break,
                '\\' => {
                    match self.peek(0) {
                        Some(c @ ('\\' | '"' | '\'')) => text.push(c),
                        Some('n') => text.push('\n'),
                        Some('t') => text.push('\t'),
                        _ => self.refuse(self.at - 1, 1, "a single `\\` in a text".to_owned(), "write it twice"),
                    }
                    self.at += 1;
                }
                c => text.push(c),
            }
        }
        self.literal(Literal::Text(text), at);
    }

    fn operator(&mut self, c: char) {
        let at = self.at;
        for (written, read) in OPERATORS {
            let len = written.chars().count();
            if !written.chars().enumerate().all(|(i, w)| self.peek(i) == Some(w)) {
                continue;
            }
            self.at += len;
            return match read {
                Ok(read) => self.push(read, at),
                Err(help) => self.refuse(at, len, format!("`{written}` is no operator"), help),
            };
        }
        self.at += 1;
        self.refuse(at, 1, format!("`{c}` does not belong into a condition"), "operators are && || ! == != < <= > >= + - * / % ?? in");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn habits_are_rewritten_and_places_kept() {
        for (text, script) in [
            ("days_silent >= 30 and not vip", "n0 >= 30 && ! n1"),
            ("tier = 'gold' or country not in [\"BR\"]", "n0 == \"0\" || n1 !in [ \"1\" ]"),
            ("silent_for >= 7d10h", "n0 >= \"0\""),
            ("老客户 && type.default > 1_000", "n0 && n1 . n2 > 1_000"),
            ("x≥2.5", "n0 >= 2.5"),
            ("note_in_x", "n0"),
        ] {
            assert_eq!(lex(text).expect(text).script, script, "{text}");
        }
        let lexed = lex("a  and\n bc").expect("words");
        assert_eq!(lexed.pieces.iter().map(|p| (p.at, p.end)).collect::<Vec<_>>(), [(0, 1), (3, 6), (8, 10)]);
        assert_eq!(lexed.piece_at(lexed.pieces[2].column), 2);
    }

    #[test]
    fn habits_are_written_as_the_language_writes_them() {
        for (text, expected) in [
            ("a and not b or c = 'x'", "a && !b || c == \"x\""),
            ("not (a)", "!(a)"),
            ("a not in ['x']", "a not in [\"x\"]"),
            ("a≥2 && b != 'say \"x\"'", "a>=2 && b != 'say \"x\"'"),
            ("  days_silent >= 30d ", "  days_silent >= 30d "),
        ] {
            let once = canonical(text).expect(text);
            assert_eq!(once, expected);
            assert_eq!(canonical(&once).expect("still a condition"), once);
        }
        assert_eq!(canonical("a & b"), None);
    }

    #[test]
    fn slips_get_their_own_words() {
        for (text, at, needle) in [
            ("x => 3", 2, "write `>=`"),
            ("x > 5%", 4, "`0.05`"),
            ("x AND y", 2, "write `and`"),
            ("x == \"gold", 5, "at its end"),
            ("x > 3 // why", 6, "comments"),
            ("x > 30days", 4, "`7d10h`"),
            ("a & b", 2, "`&&`"),
            ("a; b", 1, "operators are"),
        ] {
            let errors = lex(text).expect_err(text);
            assert_eq!(errors[0].at, at, "{text}");
            assert!(errors[0].help.as_deref().is_some_and(|help| help.contains(needle)), "{text}: {errors:?}");
        }
        assert_eq!(lex("a & b | c").expect_err("two slips").len(), 2);
        assert!(lex("  ").is_err());
    }
}
