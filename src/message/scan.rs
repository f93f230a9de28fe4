//! Reads a Liquid source for what the `liquid` crate does not tell: which names it uses, which filters, where its blocks open, and
//! where its outputs end. Checks with places come from here; the crate then parses the same text, and has the last word on syntax.
//!
//! [`Scan::armed`] is the text that is rendered: every output ends in a hidden filter that refuses to print what is missing and, in
//! HTML, escapes.

use std::collections::BTreeSet;

use super::filters::{ESCAPED, PRINTED};

/// Loops may count that far, and nested loops that far in all: the crate knows no fuel (an empty loop of 200 million ran 43 s).
pub const LOOP_MAX: u64 = 1_000;
/// Blocks within blocks; the crate recurses.
const NESTING_MAX: usize = 32;

/// What a source uses, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Scan {
    /// Paths of names that come from outside, as `["user", "first_name"]`, with the byte offset of each use.
    pub uses: Vec<Use>,
    pub filters: Vec<(String, usize)>,
    pub faults: Vec<ScanFault>,
    /// Where the hidden filter goes: byte offset of each output's end, what it prints, and whether it escapes by itself.
    outputs: Vec<Output>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Use {
    pub path: Vec<String>,
    pub at: usize,
}

#[derive(Debug, PartialEq)]
pub struct ScanFault {
    pub at: usize,
    pub message: String,
    pub help: Option<String>,
}

#[derive(Debug)]
struct Output {
    end: usize,
    written: String,
    escapes_itself: bool,
    /// Where its first filter begins, if none of its filters is `default`: some filters make an empty text of nil, so the value is
    /// looked at before them.
    guard: Option<usize>,
}

struct Block {
    name: String,
    at: usize,
    /// How often a `for` over a range repeats; 1 otherwise.
    repeats: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A name with what hangs on it; `None` in the path is a computed index (`x[y]`), whose own names follow as tokens.
    Path(Vec<Option<String>>),
    Text,
    Number(i128),
    Sign(char),
}

type Placed = (Token, usize);

impl Scan {
    pub fn of(source: &str) -> Scan {
        let mut scanner = Scanner { source, scan: Scan::default(), locals: BTreeSet::new(), blocks: Vec::new() };
        scanner.run();
        let Scanner { mut scan, locals, .. } = scanner;
        scan.uses.retain(|used| used.path.first().is_some_and(|root| !locals.contains(root)));
        scan
    }

    /// The source with the hidden filter at the end of each output.
    pub fn armed(&self, source: &str, html: bool) -> String {
        let mut armed = String::with_capacity(source.len() + self.outputs.len() * 32);
        let mut copied = 0;
        for output in &self.outputs {
            let filter = if html && !output.escapes_itself { ESCAPED } else { PRINTED };
            if let Some(guard) = output.guard {
                armed.push_str(source.get(copied..guard).unwrap_or_default());
                armed.push_str(&format!("| {PRINTED}: '{}' ", output.written));
                copied = guard;
            }
            armed.push_str(source.get(copied..output.end).unwrap_or_default());
            armed.push_str(&format!(" | {filter}: '{}' ", output.written));
            copied = output.end;
        }
        armed.push_str(source.get(copied..).unwrap_or_default());
        armed
    }
}

struct Scanner<'a> {
    source: &'a str,
    scan: Scan,
    /// Names that the template itself makes.
    locals: BTreeSet<String>,
    blocks: Vec<Block>,
}

impl Scanner<'_> {
    fn run(&mut self) {
        let mut at = 0;
        while let Some((open, is_output)) = self.next_open(at) {
            let close = if is_output { "}}" } else { "%}" };
            let Some((tokens, inner_end, end)) = self.tokens(open + 2, close) else {
                let what = if is_output { "{{" } else { "{%" };
                self.fault(open, format!("`{what}` is never closed"), Some(format!("write `{close}` where it ends")));
                return;
            };
            at = end;
            if is_output {
                self.output(&tokens, inner_end);
            } else if let Some(skip_to) = self.tag(&tokens, open, end) {
                at = skip_to;
            }
        }
        if let Some(block) = self.blocks.pop() {
            let close = format!("write `{{% end{} %}}` where it ends", block.name);
            self.fault(block.at, format!("`{{% {} %}}` is never closed", block.name), Some(close));
        }
    }

    fn next_open(&self, from: usize) -> Option<(usize, bool)> {
        let rest = self.source.get(from..)?;
        let output = rest.find("{{").map(|at| (from + at, true));
        let tag = rest.find("{%").map(|at| (from + at, false));
        match (output, tag) {
            (Some(a), Some(b)) => Some(if a.0 < b.0 { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    fn fault(&mut self, at: usize, message: String, help: Option<String>) {
        self.scan.faults.push(ScanFault { at, message, help });
    }

    /// The tokens between `from` and `close`, the offset where the inner text ends, and the offset after the closing sign.
    fn tokens(&mut self, from: usize, close: &str) -> Option<(Vec<Placed>, usize, usize)> {
        let mut tokens = Vec::new();
        let mut at = from + usize::from(self.source.get(from..).is_some_and(|rest| rest.starts_with('-')));
        loop {
            let rest = self.source.get(at..)?;
            let c = rest.chars().next()?;
            if rest.starts_with(close) {
                return Some((tokens, at, at + 2));
            }
            if rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(close)) {
                return Some((tokens, at, at + 3));
            }
            at += match c {
                c if c.is_whitespace() => c.len_utf8(),
                '"' | '\'' => {
                    let length = rest.get(1..)?.find(c)? + 2;
                    tokens.push((Token::Text, at));
                    length
                }
                c if c.is_ascii_digit() => {
                    let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    let digits = rest.get(..length).unwrap_or_default();
                    let number = digits.parse().ok().filter(|_| length <= 18);
                    if number.is_none() {
                        self.fault(at, "this number is too large".into(), None);
                    }
                    tokens.push((Token::Number(number.unwrap_or(0)), at));
                    length
                }
                c if is_name_start(c) => {
                    let (path, length) = self.path(at);
                    tokens.push((Token::Path(path), at));
                    length
                }
                c => {
                    tokens.push((Token::Sign(c), at));
                    c.len_utf8()
                }
            };
        }
    }

    /// `user.first_name`, `event["order id"]`: the parts, and how many bytes they take. A computed index ends the path and is read as
    /// tokens of its own.
    fn path(&self, from: usize) -> (Vec<Option<String>>, usize) {
        let mut parts = vec![Some(self.name(from))];
        let mut at = from + self.name(from).len();
        while let Some(rest) = self.source.get(at..) {
            if let Some(tail) = rest.strip_prefix('.')
                && tail.starts_with(is_name_start)
            {
                let name = self.name(at + 1);
                at += 1 + name.len();
                parts.push(Some(name));
                continue;
            }
            let Some(tail) = rest.strip_prefix('[') else { break };
            let quoted = tail.chars().next().filter(|c| matches!(c, '"' | '\''));
            let Some(close) = quoted.and_then(|quote| tail.get(1..)?.find(quote)) else {
                parts.push(None);
                break;
            };
            if !tail.get(close + 2..).is_some_and(|rest| rest.starts_with(']')) {
                parts.push(None);
                break;
            }
            parts.push(tail.get(1..close + 1).map(str::to_owned));
            at += close + 4;
        }
        (parts, at - from)
    }

    /// The identifier at `from`. A hyphen belongs to it unless it closes the tag (`-}}`).
    fn name(&self, from: usize) -> String {
        let rest = self.source.get(from..).unwrap_or_default();
        let end = rest.char_indices().find(|(at, c)| {
            let closes = *c == '-' && rest.get(at + 1..).is_some_and(|tail| tail.starts_with("}}") || tail.starts_with("%}"));
            closes || !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        });
        rest.get(..end.map_or(rest.len(), |(at, _)| at)).unwrap_or_default().to_owned()
    }

    fn output(&mut self, tokens: &[Placed], end: usize) {
        let filters_before = self.scan.filters.len();
        self.expression(tokens);
        let chain = self.scan.filters.get(filters_before..).unwrap_or_default();
        let escapes_itself = chain.iter().any(|(name, _)| matches!(name.as_str(), "escape" | "escape_once" | "raw"));
        let written = match tokens.first() {
            Some((Token::Path(parts), _)) => parts.iter().flatten().cloned().collect::<Vec<_>>().join(".").replace('\'', ""),
            _ => "this".to_owned(),
        };
        let first_filter = tokens.iter().find(|(token, _)| *token == Token::Sign('|')).map(|(_, at)| *at);
        let guard = first_filter.filter(|_| !chain.iter().any(|(name, _)| name == "default"));
        self.scan.outputs.push(Output { end, written, escapes_itself, guard });
    }

    /// Handles a tag; for `raw` and `comment` answers where the text goes on.
    fn tag(&mut self, tokens: &[Placed], open: usize, end: usize) -> Option<usize> {
        let Some(((Token::Path(parts), _), arguments)) = tokens.split_first() else {
            self.fault(open, "this tag has no name".into(), None);
            return None;
        };
        let name = parts.first().and_then(|part| part.as_deref()).unwrap_or_default().to_owned();
        match name.as_str() {
            "raw" | "comment" => return self.skip_block(&name, open, end),
            "if" | "unless" | "case" | "ifchanged" => self.open_block(&name, open, 1),
            "for" | "tablerow" => {
                let repeats = self.loop_count(arguments, open);
                self.open_block(&name, open, repeats);
                self.make_local(arguments);
                self.locals.insert(if name == "for" { "forloop" } else { "tablerowloop" }.into());
            }
            "capture" => {
                self.open_block(&name, open, 1);
                self.make_local(arguments);
                return None;
            }
            "assign" | "increment" | "decrement" => self.make_local(arguments),
            "include" | "render" => {
                self.fault(open, format!("`{name}` is not available: a template stands for itself"), None);
                return None;
            }
            "elsif" | "else" | "when" | "break" | "continue" | "cycle" => {}
            closing if closing.starts_with("end") => self.close_block(closing, open),
            _ => {}
        }
        let from = usize::from(matches!(name.as_str(), "for" | "tablerow" | "assign" | "increment" | "decrement"));
        self.expression(arguments.get(from..).unwrap_or_default());
        None
    }

    fn make_local(&mut self, arguments: &[Placed]) {
        if let Some((Token::Path(parts), _)) = arguments.first()
            && let Some(Some(name)) = parts.first()
        {
            self.locals.insert(name.clone());
        }
    }

    fn skip_block(&mut self, name: &str, open: usize, from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(found) = self.source.get(at..).and_then(|rest| rest.find("{%")) {
            let inner = self.source.get(at + found + 2..).unwrap_or_default();
            let trimmed = inner.trim_start_matches('-').trim_start();
            if trimmed.strip_prefix("end").is_some_and(|rest| rest.starts_with(name)) {
                let close = inner.find("%}")?;
                return Some(at + found + 2 + close + 2);
            }
            at += found + 2;
        }
        self.fault(open, format!("`{{% {name} %}}` is never closed"), Some(format!("write `{{% end{name} %}}` where it ends")));
        Some(self.source.len())
    }

    fn open_block(&mut self, name: &str, at: usize, repeats: u64) {
        self.blocks.push(Block { name: name.to_owned(), at, repeats });
        if self.blocks.len() == NESTING_MAX + 1 {
            self.fault(at, format!("more than {NESTING_MAX} blocks within each other"), None);
        }
        let all = self.blocks.iter().fold(1u64, |all, block| all.saturating_mul(block.repeats));
        if repeats > 1 && all > LOOP_MAX {
            self.fault(at, format!("this loop would run {all} times; at most {LOOP_MAX} are allowed"), None);
        }
    }

    fn close_block(&mut self, closing: &str, at: usize) {
        let name = closing.trim_start_matches("end");
        match self.blocks.pop() {
            Some(block) if block.name == name => {}
            Some(block) => {
                let message = format!("`{{% {closing} %}}` does not close `{{% {} %}}`", block.name);
                let help = format!("write `{{% end{} %}}` before it", block.name);
                self.fault(at, message, Some(help));
            }
            None => self.fault(at, format!("`{{% {closing} %}}` closes nothing"), None),
        }
    }

    /// How often `x in (1..9)` runs; 1 for a loop over a list (lists are bounded by the size of what we render).
    fn loop_count(&mut self, arguments: &[Placed], open: usize) -> u64 {
        let Some(start) = arguments.iter().position(|(token, _)| *token == Token::Sign('(')) else { return 1 };
        let inner: Vec<&Token> = arguments.iter().skip(start + 1).map(|(token, _)| token).collect();
        match inner.as_slice() {
            [Token::Number(from), Token::Sign('.'), Token::Sign('.'), Token::Number(to), Token::Sign(')'), ..] => {
                u64::try_from(to - from + 1).unwrap_or(0)
            }
            _ => {
                let help = "write the range in numbers, such as `(1..5)`, and leave the loop by `break`".to_owned();
                self.fault(open, "a loop over a range needs numbers: how often it runs must be known before".into(), Some(help));
                1
            }
        }
    }

    /// Takes names and filters out of a tag's tokens.
    fn expression(&mut self, tokens: &[Placed]) {
        let mut after_pipe = false;
        for (index, (token, at)) in tokens.iter().enumerate() {
            let was_after_pipe = std::mem::replace(&mut after_pipe, *token == Token::Sign('|'));
            let Token::Path(parts) = token else { continue };
            let first = parts.first().and_then(|part| part.as_deref()).unwrap_or_default();
            if was_after_pipe {
                self.scan.filters.push((first.to_owned(), *at));
                continue;
            }
            let names_argument = parts.len() == 1 && tokens.get(index + 1).is_some_and(|(next, _)| *next == Token::Sign(':'));
            if names_argument || is_word(first) && parts.len() == 1 {
                continue;
            }
            if first == "user" && parts.iter().any(Option::is_none) {
                self.fault(*at, "names of `user` are written out, not computed".into(), None);
                continue;
            }
            let path = parts.iter().map_while(Clone::clone).collect();
            self.scan.uses.push(Use { path, at: *at });
        }
    }
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

/// Words of Liquid that look like names.
fn is_word(name: &str) -> bool {
    const WORDS: [&str; 16] = [
        "and", "or", "contains", "in", "nil", "null", "true", "false", "empty", "blank", "reversed", "limit", "offset", "cols", "with",
        "not",
    ];
    WORDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        Scan::of(source).uses.into_iter().map(|used| used.path.join(".")).collect()
    }

    #[test]
    fn names_from_outside_are_found_and_local_ones_are_not() {
        let source = r#"{{ user.first_name | default: first_name }}{% if event["order id"] == nil and user.points > 3 %}x{% endif %}
            {% assign rest = user.points_of | minus: 100 %}{{ rest }}{% for item in event.items limit:3 %}{{ item.name }}{{ forloop.index }}{% endfor %}
            {% raw %}{{ not_this }}{% endraw %}{% comment %}{{ nor_this }}{% endcomment %}{{ "{{ text }}" }}"#;
        let expected = ["user.first_name", "first_name", "event.order id", "user.points", "user.points_of", "event.items"];
        assert_eq!(names(source), expected);
    }

    #[test]
    fn filters_are_told_from_names_and_arguments() {
        let scan = Scan::of("{{ offer.until | date: 'short' | append: user.country }}{{- x | slice: 0, 2 -}}");
        let filters: Vec<&str> = scan.filters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(filters, ["date", "append", "slice"]);
        assert_eq!(scan.faults, []);
    }

    #[test]
    fn faults_stand_where_the_cause_is() {
        let cases = [
            ("ab {{ user.x ", 3, "`{{` is never closed"),
            ("a{% if x %}b", 1, "`{% if %}` is never closed"),
            ("{% if x %}{% endfor %}", 10, "`{% endfor %}` does not close `{% if %}`"),
            ("x{% endif %}", 1, "`{% endif %}` closes nothing"),
            ("{% for i in (1..2000) %}{% endfor %}", 0, "this loop would run 2000 times; at most 1000 are allowed"),
            ("{% for i in (1..n) %}{% endfor %}", 0, "a loop over a range needs numbers: how often it runs must be known before"),
            ("{{ 99999999999999999999 }}", 3, "this number is too large"),
            ("{% include 'x' %}", 0, "`include` is not available: a template stands for itself"),
        ];
        for (source, at, message) in cases {
            let scan = Scan::of(source);
            let first = scan.faults.first().expect(source);
            assert_eq!((first.at, first.message.as_str()), (at, message), "{source}");
        }
        let nested = "{% for i in (1..50) %}{% for j in (1..50) %}{% endfor %}{% endfor %}";
        assert_eq!(Scan::of(nested).faults.len(), 1);
    }

    #[test]
    fn outputs_are_armed_and_trimming_survives() {
        let source = "{{- user.name -}} {{ x | raw }}";
        let scan = Scan::of(source);
        let expected = "{{- user.name  | __escaped: 'user.name' -}} {{ x | __printed: 'x' | raw  | __printed: 'x' }}";
        assert_eq!(scan.armed(source, true), expected);
    }
}
