//! YAML as written: a small tree with a place on every node, made from the parser's events.
//!
//! What rule files do not use is refused here, each with its remedy: tags, anchors and aliases (which are never expanded, so
//! an alias bomb costs nothing), merge keys, tabs, second documents, duplicate keys, bare `yes` and `no`. What a text *means* is
//! not known here; every scalar is text, with the way it was quoted.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::Place;
use super::diagnostic::Diagnostic;

/// A rule file larger than that is refused unread.
pub const MAX_BYTES: usize = 1 << 20;
/// Deeper nesting than that is refused.
pub const MAX_DEPTH: usize = 64;
/// After so many findings in one file it is read no further.
const MAX_FINDINGS: usize = 100;
/// A file with so many aliases is built on them: it is read no further.
const MAX_ALIASES: usize = 5;

/// A value in a file, with its place.
#[derive(Debug, Clone)]
pub struct Node {
    pub place: Place,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// Refused with a finding already: whoever reads it says nothing more.
    Refused,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Scalar,
    pub key_place: Place,
    pub value: Node,
}

/// A text, and where its characters stand in the file.
#[derive(Debug, Clone)]
pub struct Scalar {
    pub text: Arc<str>,
    /// Written without quotes and not as a block.
    pub is_plain: bool,
    /// Line and column of each character where that is not simply one after the other in one line.
    marks: Option<Arc<[(u32, u32)]>>,
    start: (u32, u32),
}

impl Scalar {
    /// Line and column of the character `offset` (in characters) of the text.
    pub fn position(&self, offset: usize) -> (u32, u32) {
        let (line, column) = self.start;
        match &self.marks {
            Some(marks) => marks.get(offset).or_else(|| marks.last()).copied().unwrap_or(self.start),
            None => (line, column + u32::try_from(offset).unwrap_or(0)),
        }
    }
}

impl Entry {
    /// An entry that stands in no file, told of at `place`.
    pub fn made(key: &str, value: &str, place: Place) -> Entry {
        let scalar = |text: &str| Scalar { text: Arc::from(text), is_plain: true, marks: None, start: (place.line, place.column) };
        let value = Node { place: place.clone(), kind: Kind::Scalar(scalar(value)) };
        Entry { key: scalar(key), key_place: place.clone(), value }
    }
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        self.scalar().map(|s| &*s.text)
    }

    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    pub fn items(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// A mapping with those of its keys alone that are wanted.
    #[must_use]
    pub fn with_keys(mut self, wanted: impl Fn(&str) -> bool) -> Node {
        if let Kind::Mapping(entries) = &mut self.kind {
            entries.retain(|entry| wanted(&entry.key.text));
        }
        self
    }

    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?.iter().find(|e| &*e.key.text == key).map(|e| &e.value)
    }

    pub fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::Refused)
    }

    /// Nothing written, `~` or `null`.
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|s| s.is_plain && matches!(&*s.text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What the node is, for "expected a list, found ...".
    pub fn described(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(_) if self.is_null() => "nothing",
            Kind::Scalar(_) => "a text",
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a mapping",
            Kind::Refused => "something refused",
        }
    }

    /// Characters of the scalar in its first line, to underline.
    pub fn width(&self) -> usize {
        self.scalar().map_or(1, |s| s.text.chars().take_while(|c| *c != '\n').count().max(1))
    }

    /// Place of a character of a scalar's text.
    pub fn place_at(&self, offset: usize) -> Place {
        let Some(scalar) = self.scalar() else { return self.place.clone() };
        let (line, column) = scalar.position(offset);
        Place { file: self.place.file.clone(), line, column }
    }

    /// Writes the node so that equal meanings are equal texts: no comments, no formatting, keys in order.
    pub fn normalise(&self, out: &mut String) {
        match &self.kind {
            Kind::Refused => out.push('?'),
            Kind::Scalar(_) if self.is_null() => out.push('~'),
            Kind::Scalar(scalar) => out.push_str(&format!("{:?}", scalar.text)),
            Kind::Sequence(items) => {
                out.push('[');
                for item in items {
                    item.normalise(out);
                    out.push(',');
                }
                out.push(']');
            }
            Kind::Mapping(entries) => {
                let mut sorted: Vec<&Entry> = entries.iter().collect();
                sorted.sort_by(|a, b| a.key.text.cmp(&b.key.text));
                out.push('{');
                for entry in sorted {
                    out.push_str(&format!("{:?}:", entry.key.text));
                    entry.value.normalise(out);
                    out.push(',');
                }
                out.push('}');
            }
        }
    }
}

/// Parses a file. None if it is empty, too large or so broken that no tree came of it; findings say so.
pub fn parse(file: &Arc<str>, text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let whole = Place { file: file.clone(), line: 0, column: 0 };
    if text.len() > MAX_BYTES {
        return (None, vec![too_large(whole, text.len() as u64, MAX_BYTES as u64)]);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tabs = tabs(file, text);
    if !tabs.is_empty() {
        return (None, tabs);
    }
    let chars: Vec<char> = text.chars().collect();
    let mut builder = Builder { file, chars: &chars, findings: Vec::new(), open: Vec::new(), root: None, documents: 0, aliases: 0 };
    for event in Parser::new_from_str(text) {
        let proceed = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                builder.broken(error.info(), *error.marker());
                false
            }
        };
        if !proceed || builder.findings.len() >= MAX_FINDINGS {
            return (None, builder.findings);
        }
    }
    (builder.root, builder.findings)
}

/// The finding for a file above [`MAX_BYTES`].
pub fn too_large(whole: Place, bytes: u64, most: u64) -> Diagnostic {
    let message = format!("the file has {} KiB; such a file has at most {} KiB", bytes / 1024, most / 1024);
    Diagnostic::error("RK0100", whole, message).help("sections may be spread over several files; is this a rule file at all?")
}

/// Tabs in indentation: some tools read them as one column, some as eight.
fn tabs(file: &Arc<str>, text: &str) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indentation = line.get(..line.len() - content.len()).unwrap_or_default();
        let (Some(at), false) = (indentation.find('\t'), content.is_empty()) else { continue };
        let column = indentation.get(..at).map_or(0, |before| before.chars().count()) + 1;
        let place = Place { file: file.clone(), line: number(index + 1), column: number(column) };
        found.push(Diagnostic::error("RK0105", place, "a tab in the indentation").help("use spaces, two for each level"));
        if found.len() == MAX_FINDINGS {
            break;
        }
    }
    found
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// What stands open above the present event.
enum Open {
    Sequence { place: Place, items: Vec<Node>, refused: bool },
    Mapping { place: Place, entries: Vec<Entry>, key: Option<Key>, seen: HashMap<Arc<str>, u32>, refused: bool },
}

/// A key whose value has not come yet.
enum Key {
    Good(Scalar, Place),
    /// Its value is read and forgotten.
    Refused,
}

struct Builder<'t> {
    file: &'t Arc<str>,
    chars: &'t [char],
    findings: Vec<Diagnostic>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    aliases: usize,
}

impl Builder<'_> {
    /// Takes in one event; false where going on makes no sense.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        let place = self.place(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here; it would be ignored in silence by some tools";
                    self.findings.push(
                        Diagnostic::error("RK0106", place, message)
                            .len(3)
                            .help("remove the `---`, or put the second document into a file of its own"),
                    );
                    return false;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let refused = self.refuse_decoration(&place, anchor, tag.as_deref());
                self.scalar(&text, style, span, place, refused);
            }
            Event::Alias(_) => {
                self.refuse_alias(place.clone());
                self.close(Node { place, kind: Kind::Refused });
                return self.aliases < MAX_ALIASES;
            }
            Event::SequenceStart(anchor, tag) => {
                let refused = self.refuse_decoration(&place, anchor, tag.as_deref());
                self.open.push(Open::Sequence { place, items: Vec::new(), refused });
                return self.is_shallow();
            }
            Event::MappingStart(anchor, tag) => {
                let refused = self.refuse_decoration(&place, anchor, tag.as_deref());
                self.open.push(Open::Mapping { place, entries: Vec::new(), key: None, seen: HashMap::new(), refused });
                return self.is_shallow();
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        true
    }

    fn place(&self, mark: Marker) -> Place {
        Place { file: self.file.clone(), line: number(mark.line().max(1)), column: number(mark.col() + 1) }
    }

    fn is_shallow(&mut self) -> bool {
        if self.open.len() <= MAX_DEPTH {
            return true;
        }
        let place = match self.open.last() {
            Some(Open::Sequence { place, .. } | Open::Mapping { place, .. }) => place.clone(),
            None => return true,
        };
        self.findings.push(Diagnostic::error("RK0100", place, format!("nested deeper than {MAX_DEPTH} levels")));
        false
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span, place: Place, refused: bool) {
        let is_plain = style == ScalarStyle::Plain;
        let scalar = self.located(text, style, span);
        if let Some(Open::Mapping { key: slot @ None, .. }) = self.open.last_mut() {
            *slot = Some(Key::Refused);
            if refused {
                return;
            }
            if let Some(scalar) = self.accepted_key(scalar, &place)
                && let Some(Open::Mapping { key, .. }) = self.open.last_mut()
            {
                *key = Some(Key::Good(scalar, place));
            }
            return;
        }
        let refused = refused || (is_plain && self.refuse_yes_and_no(text, &place, false));
        self.close(Node { place, kind: if refused { Kind::Refused } else { Kind::Scalar(scalar) } });
    }

    /// The key, if it may stand: no merge key, no bare `yes`, not there already. `on` is read on as what it means.
    fn accepted_key(&mut self, mut scalar: Scalar, place: &Place) -> Option<Scalar> {
        if scalar.is_plain && &*scalar.text == "<<" {
            let message = "merge keys are not used in rule files: they hide what a rule does";
            let help = "write the keys out; what is used often belongs into a segment or feature";
            self.findings.push(Diagnostic::error("RK0104", place.clone(), message).len(2).help(help));
            return None;
        }
        if scalar.is_plain && self.refuse_yes_and_no(&scalar.text, place, true) {
            if !scalar.text.eq_ignore_ascii_case("on") {
                return None;
            }
            scalar.text = Arc::from("event");
        }
        let Some(Open::Mapping { seen, .. }) = self.open.last_mut() else { return None };
        if let Some(first) = seen.get(&scalar.text) {
            let message = format!("`{}` stands twice in this mapping; first in line {first}", scalar.text);
            let width = scalar.text.chars().count();
            self.findings.push(Diagnostic::error("RK0107", place.clone(), message).len(width).help("keep one of the two"));
            return None;
        }
        seen.insert(scalar.text.clone(), place.line);
        Some(scalar)
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node) {
        let mut complex_key = match self.open.last_mut() {
            None => {
                self.root = Some(node);
                return;
            }
            Some(Open::Sequence { items, .. }) => {
                items.push(node);
                return;
            }
            Some(Open::Mapping { entries, key, refused, .. }) => match key.take() {
                Some(Key::Good(scalar, key_place)) => {
                    entries.push(Entry { key: scalar, key_place, value: node });
                    return;
                }
                Some(Key::Refused) => return,
                None => {
                    *key = Some(Key::Refused);
                    *refused = true;
                    node.place
                }
            },
        };
        let is_liquid = self.before(&complex_key) == Some('{');
        let (message, help) = if is_liquid {
            complex_key.column -= 1;
            ("`{{` begins a mapping in YAML, so this would not be read as a text", "put the whole text in quotes: \"{{ ... }}\"")
        } else {
            ("a key must be a plain name", "if this is meant as a text, put it in quotes")
        };
        self.findings.push(Diagnostic::error("RK0100", complex_key, message).help(help));
    }

    fn end(&mut self) {
        let node = match self.open.pop() {
            Some(Open::Sequence { place, items, refused }) => {
                Node { place, kind: if refused { Kind::Refused } else { Kind::Sequence(items) } }
            }
            Some(Open::Mapping { place, entries, refused, .. }) => {
                Node { place, kind: if refused { Kind::Refused } else { Kind::Mapping(entries) } }
            }
            None => return,
        };
        self.close(node);
    }

    // ------------------------------------------------------------------------------------------------------ what is refused

    fn refuse_decoration(&mut self, place: &Place, anchor: usize, tag: Option<&Tag>) -> bool {
        if tag.is_some() {
            self.refuse_tag(place);
            return true;
        }
        if anchor != 0 {
            let word: String = self.rest_of_line(place).chars().take_while(|c| !c.is_whitespace()).collect();
            let message = format!("`{word}` is a YAML anchor; rule files have none: they hide what a rule does");
            let help = "write it out where it is used; what is used often belongs into a segment or feature";
            self.findings.push(Diagnostic::error("RK0104", place.clone(), message).len(word.chars().count()).help(help));
            return true;
        }
        false
    }

    fn refuse_tag(&mut self, place: &Place) {
        let whole = self.rest_of_line(place);
        let word: String = whole.chars().take_while(|c| !c.is_whitespace()).collect();
        let message = format!("this `!` starts a YAML tag, so `{word}` would be dropped from the text");
        let help = if word.starts_with("!!") || whole.trim_start_matches('!').trim().is_empty() {
            "write the value without the tag".to_owned()
        } else {
            format!("put the whole in quotes: '{}', or turn it round with `unless`", whole.replace('\'', "''"))
        };
        self.findings.push(Diagnostic::error("RK0103", place.clone(), message).len(word.chars().count()).help(help));
    }

    fn refuse_alias(&mut self, place: Place) {
        self.aliases += 1;
        let word: String = self.rest_of_line(&place).chars().take_while(|c| !c.is_whitespace() && !",]}".contains(*c)).collect();
        let message = format!("`{word}` is a YAML alias; rule files have none: they hide what a rule does");
        let help = "write it out; if a text begins with `*`, put it in quotes";
        self.findings.push(Diagnostic::error("RK0104", place, message).len(word.chars().count()).help(help));
    }

    fn refuse_yes_and_no(&mut self, text: &str, place: &Place, is_key: bool) -> bool {
        let lower = text.to_ascii_lowercase();
        if !matches!(&*lower, "yes" | "no" | "on" | "off") {
            return false;
        }
        let message = format!("bare `{text}` is true or false to some YAML tools and a text to others");
        let help = match (is_key, &*lower) {
            (true, "on") => "the key is `event`".to_owned(),
            (true, _) => format!("put it in quotes if it is meant as a name: \"{text}\""),
            (false, "yes" | "on") => format!("write `true`, or \"{text}\" in quotes if it is meant as a text"),
            (false, _) => format!("write `false`, or \"{text}\" in quotes if it is meant as a text"),
        };
        self.findings.push(Diagnostic::error("RK0108", place.clone(), message).len(text.chars().count()).help(help));
        true
    }

    // ------------------------------------------------------------------------------------------------------- broken files

    /// The parser gave up: its words are about YAML, ours about what was probably meant.
    fn broken(&mut self, info: &str, mark: Marker) {
        let place = self.place(mark);
        if info.contains("unknown anchor") {
            return self.refuse_alias(place);
        }
        if info.contains("tabs disallowed") {
            let finding = Diagnostic::error("RK0105", place, "a tab where YAML allows only spaces").help("use spaces");
            return self.findings.push(finding);
        }
        let line: String = self.line(place.line);
        let before: String = line.chars().take(mark.col()).collect();
        if let Some(at) = [": !", "- !"].iter().find_map(|start| before.find(start)) {
            let column = before.get(..at).map_or(0, |text| text.chars().count()) + 3;
            let place = Place { column: number(column), ..place };
            return self.refuse_tag(&place);
        }
        let (place, message, help) = match info {
            _ if info.contains("mapping values are not allowed") && before.contains(": ") => (
                place,
                "a second `:` in this line: YAML takes the text for a mapping".to_owned(),
                "a text with a colon and a space in it needs quotes".to_owned(),
            ),
            _ if info.contains("mapping values are not allowed") => (
                place,
                "this key does not line up with the keys it belongs to".to_owned(),
                "keys of one mapping begin in the same column".to_owned(),
            ),
            _ if info.contains("invalid trailing content after") && before.ends_with('\'') => (
                place,
                "text goes on after the closing quote".to_owned(),
                "within single quotes an apostrophe is written twice: 'it''s'".to_owned(),
            ),
            _ if info.contains("invalid trailing content after") => (
                place,
                "text goes on after the closing quote".to_owned(),
                "put the whole text in quotes of the other kind: 'tier == \"gold\"'".to_owned(),
            ),
            _ if info.contains("unexpected character: `%") => {
                let number: String = line.chars().skip(mark.col() + 1).take_while(char::is_ascii_digit).collect();
                (place, "a value cannot begin with `%`".to_owned(), format!("the sign stands after the number: `{number}%`"))
            }
            _ if info.contains("illegal placement of ':'") => {
                (place, "a `[` or `{` is opened above this and not closed".to_owned(), "close it where the list or mapping ends".to_owned())
            }
            _ if info.contains("unexpected character") => (
                place,
                format!("a text cannot begin with {}", info.rsplit(' ').next().unwrap_or_default().replace('\'', "`")),
                "put the text in quotes".to_owned(),
            ),
            _ if info.contains("simple key expect") => {
                let place = self.last_written_line(place);
                (place, "this line is no `key: value`".to_owned(), "a colon *and a space* stand after the key".to_owned())
            }
            _ if info.contains("did not find expected key") || info.contains("block sequence entries are not allowed") => (
                place,
                "this line does not line up with the lines before it".to_owned(),
                "keys of one mapping, and the dashes of one list, begin in the same column".to_owned(),
            ),
            _ if info.contains("quoted scalar") => (
                place,
                "a quote is opened here and not closed".to_owned(),
                "close it; within single quotes an apostrophe is written twice: 'it''s'".to_owned(),
            ),
            _ => (place, format!("this is not readable as YAML: {info}"), "is a quote or bracket left open above?".to_owned()),
        };
        self.findings.push(Diagnostic::error("RK0100", place, message).help(help));
    }

    fn line(&self, number: u32) -> String {
        let lines = self.chars.split(|c| *c == '\n');
        lines.into_iter().nth((number.max(1) - 1) as usize).unwrap_or_default().iter().filter(|c| **c != '\r').collect()
    }

    /// The last line before a place that says something, at its first character.
    fn last_written_line(&self, place: Place) -> Place {
        for number in (1..place.line).rev() {
            let line = self.line(number);
            let content = line.trim_start();
            if !content.is_empty() && !content.starts_with('#') {
                let column = line.chars().count() - content.chars().count() + 1;
                return Place { file: place.file, line: number, column: u32::try_from(column).unwrap_or(1) };
            }
        }
        place
    }

    /// From a place to the end of its line, without a comment.
    fn rest_of_line(&self, place: &Place) -> String {
        let rest: String = self.line(place.line).chars().skip(place.column.max(1) as usize - 1).collect();
        rest.split(" #").next().unwrap_or_default().trim_end().to_owned()
    }

    fn before(&self, place: &Place) -> Option<char> {
        self.line(place.line).chars().nth((place.column as usize).checked_sub(2)?)
    }

    // ----------------------------------------------------------------------------------------------- where characters stand

    /// The scalar with the places of its characters: read along the file, they are found one by one, since the parser changes
    /// nothing but blanks, line ends, doubled quotes and escapes.
    fn located(&self, text: &str, style: ScalarStyle, span: Span) -> Scalar {
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let start = (number(span.start.line().max(1)), number(span.start.col() + 1 + usize::from(quoted)));
        let first = span.start.index() + usize::from(quoted);
        let length = text.chars().count();
        let simple = text.chars().eq(self.chars.iter().skip(first).take(length).copied()) && !text.contains('\n');
        let marks = (!simple).then(|| self.marks(text, style, first, start));
        Scalar { text: Arc::from(text), is_plain: style == ScalarStyle::Plain, marks, start }
    }

    fn marks(&self, text: &str, style: ScalarStyle, first: usize, start: (u32, u32)) -> Arc<[(u32, u32)]> {
        let mut cursor = Cursor { chars: self.chars, at: first, line: start.0, column: start.1 };
        let mut marks = Vec::with_capacity(text.len());
        for wanted in text.chars() {
            marks.push(cursor.find(wanted, style));
        }
        marks.push((cursor.line, cursor.column));
        Arc::from(marks)
    }
}

/// A reader of the file that knows where it is.
struct Cursor<'t> {
    chars: &'t [char],
    at: usize,
    line: u32,
    column: u32,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn advance(&mut self) {
        match self.peek() {
            Some('\n') => {
                self.line += 1;
                self.column = 1;
            }
            Some(_) => self.column += 1,
            None => return,
        }
        self.at += 1;
    }

    /// Where the next character of the decoded text stands; the reader is after it then.
    fn find(&mut self, wanted: char, style: ScalarStyle) -> (u32, u32) {
        if !wanted.is_whitespace() {
            self.skip_blanks(style);
        }
        let here = (self.line, self.column);
        let escaped = style == ScalarStyle::DoubleQuoted && self.peek() == Some('\\');
        let doubled = style == ScalarStyle::SingleQuoted && wanted == '\'';
        match self.peek() {
            _ if escaped => self.skip_escape(),
            _ if doubled => {
                self.advance();
                self.advance();
            }
            Some('\r') if wanted == '\n' => {
                self.advance();
                self.advance();
            }
            Some(found) if found == wanted || (wanted == ' ' && found == '\n') => self.advance(),
            // a blank that folding made of a line end, or the reverse: nothing to step over
            Some(found) if wanted.is_whitespace() && !found.is_whitespace() => {}
            _ => self.advance(),
        }
        here
    }

    /// Line ends, indentation and escaped line ends, which folding removes.
    fn skip_blanks(&mut self, style: ScalarStyle) {
        while let Some(found) = self.peek() {
            let escaped_end =
                style == ScalarStyle::DoubleQuoted && found == '\\' && matches!(self.chars.get(self.at + 1), Some('\n' | '\r'));
            if !found.is_whitespace() && !escaped_end {
                break;
            }
            self.advance();
        }
    }

    fn skip_escape(&mut self) {
        self.advance();
        let digits = match self.peek() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        for _ in 0..=digits {
            self.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
        parse(&Arc::from("a.yaml"), text)
    }

    fn line_char(text: &str, line: u32, column: u32) -> Option<char> {
        text.lines().nth(line as usize - 1)?.chars().nth(column as usize - 1)
    }

    #[test]
    fn every_visible_character_of_a_text_stands_where_its_place_says() {
        let texts = [
            "a: days_silent >= 30\n",
            "a: '老客户 && \"x\" == y'\n",
            "a: 'it''s && 😀 > x'\n",
            "a: \"q \\\"b\\\" \\u00e9 x\"\n",
            "a: |\n    foo &&\n      bar >= 3\n\n    baz\nb: 1\n",
            "a: |\r\n  foo\r\n  bar\r\n",
            "a: >-\n  foo\n  bar\n\n    baz qux\n",
            "a: foo\n  bar\n  baz\n",
            "a: \"foo\n  bar\\\n  baz\"\n",
            "a: 'foo\n\n  bar'\n",
            "\u{feff}a: x\n",
        ];
        for text in texts {
            let (node, findings) = tree(text);
            assert!(findings.is_empty(), "{text:?}: {findings:?}");
            let node = node.expect("a tree");
            let value = node.get("a").expect("a value");
            let bare = text.trim_start_matches('\u{feff}');
            for (offset, wanted) in value.text().unwrap_or_default().chars().enumerate().filter(|(_, c)| !c.is_whitespace()) {
                let place = value.place_at(offset);
                let found = line_char(bare, place.line, place.column);
                assert!(found == Some(wanted) || found == Some('\\'), "{text:?}: {wanted} at {place:?} is {found:?}");
            }
        }
    }

    #[test]
    fn what_rule_files_do_not_use_is_refused_at_its_place() {
        for (text, code, line, column) in [
            ("when: !vip && points > 3\n", "RK0103", 1, 7),
            ("when: !(vip)\n", "RK0103", 1, 7),
            ("a: !!str 5\n", "RK0103", 1, 4),
            ("a: &x foo\n", "RK0104", 1, 4),
            ("a: &x\n  b: 1\n", "RK0104", 1, 4),
            ("a: 1\nb: *x\n", "RK0104", 2, 4),
            ("a: 1\n<<: { b: 1 }\n", "RK0104", 2, 1),
            ("a:\n\tb: 1\n", "RK0105", 2, 1),
            ("a: 1\n---\nb: 2\n", "RK0106", 2, 1),
            ("a: 1\nb: 2\na: 3\n", "RK0107", 3, 1),
            ("enabled: yes\n", "RK0108", 1, 10),
            ("on: x\n", "RK0108", 1, 1),
            ("langs: [se, no]\n", "RK0108", 1, 13),
            ("a: b: c\n", "RK0100", 1, 5),
            ("a: \"gold\" == tier\n", "RK0100", 1, 11),
            ("a: 'x\nb: 2\n", "RK0100", 1, 4),
            ("a: {{ user.id }}\n", "RK0100", 1, 4),
            ("a: !(x > 0)\n", "RK0103", 1, 4),
            ("a: 1\nfoo\n", "RK0100", 2, 1),
            ("a: @x\n", "RK0100", 1, 4),
        ] {
            let (_, findings) = tree(text);
            let found: Vec<_> = findings.iter().map(|d| (d.code, d.place.line, d.place.column)).collect();
            assert_eq!(found, [(code, line, column)], "{text:?}: {findings:?}");
        }
    }

    #[test]
    fn bombs_are_refused_at_once() {
        let deep = format!("a: {}", "[".repeat(100_000));
        assert_eq!(tree(&deep).1.first().map(|d| d.code), Some("RK0100"));
        let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (this, last) in ('b'..='z').zip('a'..='y') {
            bomb.push_str(&format!("{this}: &{this} [*{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}]\n"));
        }
        let (_, findings) = tree(&bomb);
        assert!(findings.iter().all(|d| d.code == "RK0104") && findings.len() < 2 * MAX_ALIASES);
        assert_eq!(tree(&"x".repeat(MAX_BYTES + 1)).1.first().map(|d| d.code), Some("RK0100"));
    }

    #[test]
    fn equal_meanings_are_written_alike() {
        let written = |text: &str| {
            let mut out = String::new();
            tree(text).0.expect("a tree").normalise(&mut out);
            out
        };
        assert_eq!(written("a: 1 # one\nb: [x, 'y']\n"), written("b:\n  - x\n  - \"y\"\na:   1\n"));
        assert_ne!(written("a: 1\n"), written("a: 2\n"));
    }
}
