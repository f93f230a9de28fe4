//! Writes a tree back, line by line, with the comments where they belong.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use saphyr_parser::ScalarStyle;

use super::tree::{Form, Item, Pair, Spot, Written};
use super::{WIDTH, below, is_ordered};
use crate::engine::rule::expr;
use crate::engine::rule::language::{Shape, Takes};

/// Blanks of a level.
const STEP: usize = 2;

/// What stands beside or between the values.
#[derive(Debug, Clone)]
struct Comment {
    column: usize,
    /// Blanks before it.
    gap: usize,
    text: String,
    has_line_before: bool,
}

pub struct Printer<'t> {
    chars: Vec<char>,
    tree: &'t Written,
    /// Behind a value, by line.
    beside: BTreeMap<usize, Comment>,
    /// In lines of their own: above an entry or item, or below it where they are indented deeper than what follows.
    above: HashMap<Spot, Vec<Comment>>,
    under: HashMap<Spot, Vec<Comment>>,
    /// Below everything.
    last: Vec<Comment>,
    empty_lines: Vec<bool>,
    /// The column of the first entry or item of each line.
    first_in_line: HashMap<usize, usize>,
    out: Vec<String>,
    /// Comments that have been written: all of them must be.
    written: usize,
    wanted: usize,
}

impl<'t> Printer<'t> {
    pub fn new(text: &str, tree: &'t Written) -> Self {
        let empty_lines = text.split('\n').map(|line| line.trim().is_empty()).collect();
        let mut printer = Printer {
            chars: text.chars().collect(),
            tree,
            beside: BTreeMap::new(),
            above: HashMap::new(),
            under: HashMap::new(),
            last: Vec::new(),
            empty_lines,
            first_in_line: HashMap::new(),
            out: Vec::new(),
            written: 0,
            wanted: 0,
        };
        printer.place_comments(text);
        printer
    }

    /// The whole file; none if something would be lost.
    pub fn print(mut self, takes: &'static Takes) -> Option<String> {
        let tree = self.tree;
        match &tree.kind {
            Form::Mapping { entries, is_flow: false } => self.entries(entries, 0, Some(takes)),
            _ => return None,
        }
        for comment in std::mem::take(&mut self.last) {
            self.own_line(0, &comment);
        }
        if self.written != self.wanted {
            return None;
        }
        let mut text = self.out.join("\n");
        text.push('\n');
        Some(text)
    }

    // ------------------------------------------------------------------------------------------------------------- comments

    fn place_comments(&mut self, text: &str) {
        let mut starts = Vec::new();
        starts_of(self.tree, &mut starts);
        for spot in &starts {
            self.first_in_line.entry(spot.line).or_insert(spot.column);
        }
        let mut covered = Vec::new();
        covered_by(self.tree, &self.chars, &mut covered);
        let mut index = 0;
        for (number, line) in text.split('\n').enumerate() {
            let (number, from) = (number + 1, index);
            index += line.chars().count() + 1;
            let Some(comment) = comment_in(line, from, &covered) else { continue };
            self.wanted += 1;
            let is_own_line = line.chars().take(comment.column).all(char::is_whitespace);
            if !is_own_line {
                self.beside.insert(number, comment);
                continue;
            }
            let comment = Comment { has_line_before: self.is_empty_line(number.wrapping_sub(1)), ..comment };
            let next = starts.iter().find(|spot| spot.line > number);
            let before = starts.iter().rev().find(|spot| spot.line < number && spot.column <= comment.column);
            match (next, before) {
                (Some(next), _) if comment.column <= next.column => self.above.entry(*next).or_default().push(comment),
                (_, Some(before)) if comment.column > 0 => self.under.entry(*before).or_default().push(comment),
                (Some(next), _) => self.above.entry(*next).or_default().push(comment),
                (None, _) => self.last.push(comment),
            }
        }
    }

    fn is_empty_line(&self, number: usize) -> bool {
        number > 0 && self.empty_lines.get(number - 1).copied().unwrap_or(false)
    }

    fn own_line(&mut self, indent: usize, comment: &Comment) {
        if comment.has_line_before {
            self.empty_line();
        }
        self.out.push(format!("{}{}", " ".repeat(indent), comment.text));
        self.written += 1;
    }

    fn empty_line(&mut self) {
        if self.out.last().is_some_and(|line| !line.is_empty()) {
            self.out.push(String::new());
        }
    }

    /// A line, with the comment that stood beside what it holds.
    fn line(&mut self, text: String, source_line: usize) {
        match self.beside.remove(&source_line) {
            Some(comment) => {
                self.written += 1;
                self.out.push(format!("{text}{}{}", " ".repeat(comment.gap.max(1)), comment.text));
            }
            None => self.out.push(text),
        }
    }

    /// What stands above an entry or item.
    fn lead(&mut self, at: Spot, indent: usize) {
        for comment in self.above.remove(&at).unwrap_or_default() {
            self.own_line(indent, &comment);
        }
        // a first key behind its dash has no line before it but the item's
        let is_first = self.first_in_line.get(&at.line) == Some(&at.column);
        if is_first && self.is_empty_line(at.line - 1) {
            self.empty_line();
        }
    }

    fn trail(&mut self, at: Spot, indent: usize) {
        for comment in self.under.remove(&at).unwrap_or_default() {
            self.own_line(indent, &comment);
        }
    }

    // --------------------------------------------------------------------------------------------------------------- blocks

    fn entries(&mut self, entries: &[Pair], indent: usize, takes: Option<&'static Takes>) {
        for entry in in_order(entries, takes) {
            self.lead(entry.at, indent);
            let head = format!("{}{}:", " ".repeat(indent), self.slice(entry.start, entry.key_end));
            let gap = self.gap_before(&entry.value, entry.key_end);
            self.value(head, gap, &entry.value, indent, takes_of(takes, &entry.key), entry.at.line);
            self.trail(entry.at, indent);
        }
    }

    fn items(&mut self, items: &[Item], indent: usize, takes: Option<&'static Takes>) {
        let of = takes.and_then(item_takes);
        for item in items {
            self.lead(item.at, indent);
            let dash = format!("{}-", " ".repeat(indent));
            match &item.value.kind {
                Form::Mapping { entries, is_flow: false } => {
                    // what stood beside or below the dash stands above it
                    if item.at.line != item.value.line
                        && let Some(comment) = self.beside.remove(&item.at.line)
                    {
                        self.own_line(indent, &comment);
                    }
                    if let Some(first) = in_order(entries, of).first() {
                        self.lead(first.at, indent);
                    }
                    let from = self.out.len();
                    self.entries(entries, indent + STEP, of);
                    self.with_dash(from, indent);
                }
                Form::Sequence { items, is_flow: false } => {
                    let from = self.out.len();
                    self.items(items, indent + STEP, of);
                    self.with_dash(from, indent);
                }
                _ => self.value(dash, 1, &item.value, indent, of, item.at.line),
            }
            self.trail(item.at, indent);
        }
    }

    /// The first line written since `from` becomes that of an item.
    fn with_dash(&mut self, from: usize, indent: usize) {
        // an empty line may have been put before it
        let first = self.out.iter().skip(from).position(|line| !line.is_empty()).map_or(from, |at| from + at);
        if let Some(line) = self.out.get_mut(first)
            && line.get(indent..indent + 1) == Some(" ")
        {
            line.replace_range(indent..=indent, "-");
        }
    }

    /// A value behind its key or dash.
    fn value(&mut self, head: String, gap: usize, value: &Written, indent: usize, takes: Option<&'static Takes>, line: usize) {
        let gap_text = " ".repeat(gap);
        match &value.kind {
            Form::Mapping { entries, is_flow: false } => {
                self.line(head, line);
                self.entries(entries, indent + STEP, takes);
            }
            Form::Sequence { items, is_flow: false } => {
                self.line(head, line);
                self.items(items, indent + STEP, takes);
            }
            Form::Scalar { text, style: ScalarStyle::Plain } if text.is_empty() || value.end == value.start => self.line(head, line),
            Form::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. } => self.block_text(&head, value, indent),
            _ if self.is_on_one_line(value) => {
                let written = self.inline(value, takes, false);
                let width = head.chars().count() + gap + written.chars().count();
                if width > WIDTH && self.break_up(&head, value, indent, takes, line) {
                    return;
                }
                self.line(format!("{head}{gap_text}{written}"), value.line);
            }
            _ => self.shifted(&format!("{head}{gap_text}"), value, indent),
        }
    }

    /// A collection of one line as a block; false if there is nothing in it to break.
    fn break_up(&mut self, head: &str, value: &Written, indent: usize, takes: Option<&'static Takes>, line: usize) -> bool {
        let is_item = head.ends_with('-');
        match &value.kind {
            Form::Mapping { entries, .. } if !entries.is_empty() => {
                if !is_item {
                    self.line(head.to_owned(), line);
                }
                let from = self.out.len();
                for entry in in_order(entries, takes) {
                    let head = format!("{}{}:", " ".repeat(indent + STEP), self.slice(entry.start, entry.key_end));
                    // the comment of the line goes with its first part
                    self.value(head, 1, &entry.value, indent + STEP, takes_of(takes, &entry.key), line);
                }
                if is_item {
                    self.with_dash(from, indent);
                }
                true
            }
            Form::Sequence { items, .. } if !items.is_empty() && !is_item => {
                self.line(head.to_owned(), line);
                let of = takes.and_then(item_takes);
                for item in items {
                    let dash = format!("{}-", " ".repeat(indent + STEP));
                    self.value(dash, 1, &item.value, indent + STEP, of, line);
                }
                true
            }
            _ => false,
        }
    }

    /// A `|` or `>` text: its head, and its lines below it.
    fn block_text(&mut self, head: &str, value: &Written, indent: usize) {
        let header: String = self.chars.iter().skip(value.start).take_while(|c| !c.is_whitespace()).collect();
        self.line(format!("{head} {header}"), value.line);
        let content: String = self.chars.get(block_content(&self.chars, value.start)).unwrap_or_default().iter().collect();
        let base = content.split('\n').find(|line| !line.trim().is_empty()).map_or(0, indent_of);
        for line in content.split('\n') {
            let text = line.get(base..).unwrap_or_default();
            self.out.push(if line.trim().is_empty() { String::new() } else { format!("{}{text}", " ".repeat(indent + STEP)) });
        }
    }

    /// A value over several lines, moved as a whole.
    fn shifted(&mut self, head: &str, value: &Written, indent: usize) {
        let is_flow = matches!(value.kind, Form::Mapping { .. } | Form::Sequence { .. });
        let text = self.slice(value.start, value.end);
        let lines: Vec<&str> = text.split('\n').collect();
        let least = lines.iter().skip(1).filter(|line| !line.trim().is_empty()).map(|line| indent_of(line)).min().unwrap_or(0);
        // a bracket that closes stands below its key; the lines of a text stand deeper
        let closes = lines.last().is_some_and(|line| line.trim_start().starts_with(['}', ']']));
        let wanted = if is_flow && closes { indent } else { indent + STEP };
        let last = lines.len() - 1;
        for (index, line) in lines.iter().enumerate() {
            let text = match index {
                0 => format!("{head}{}", line.trim_end()),
                _ if line.trim().is_empty() => String::new(),
                _ => format!("{}{}", " ".repeat(wanted + indent_of(line) - least), line.trim()),
            };
            if index == last { self.line(text, value.line + last) } else { self.out.push(text) }
        }
    }

    // -------------------------------------------------------------------------------------------------------------- in a line

    fn is_on_one_line(&self, value: &Written) -> bool {
        !self.chars.get(value.start..value.end).unwrap_or_default().contains(&'\n')
    }

    fn inline(&self, value: &Written, takes: Option<&'static Takes>, in_flow: bool) -> String {
        match &value.kind {
            Form::Scalar { text, style } => self.scalar(value, text, *style, takes, in_flow),
            Form::Sequence { items, .. } => {
                let of = takes.and_then(item_takes);
                let mut out = String::from("[");
                for (index, item) in items.iter().enumerate() {
                    out.push_str(&self.comma(index, items.get(index.wrapping_sub(1)).map(|before| &before.value), item.value.start, true));
                    out.push_str(&self.inline(&item.value, of, true));
                }
                out.push(']');
                out
            }
            Form::Mapping { entries, .. } if entries.is_empty() => "{}".to_owned(),
            Form::Mapping { entries, .. } => {
                let sorted = in_order(entries, takes);
                let is_as_written = sorted.iter().zip(entries).all(|(sorted, written)| sorted.at == written.at);
                let mut out = String::from("{ ");
                for (index, entry) in sorted.iter().enumerate() {
                    let before = sorted.get(index.wrapping_sub(1)).map(|before| &before.value);
                    out.push_str(&self.comma(index, before, entry.start, is_as_written));
                    let key = self.slice(entry.start, entry.key_end);
                    let value = self.inline(&entry.value, takes_of(takes, &entry.key), true);
                    let gap = if value.is_empty() { 0 } else { self.gap_before(&entry.value, entry.key_end) };
                    out.push_str(&format!("{key}:{}{value}", " ".repeat(gap)));
                }
                out.push_str(" }");
                out
            }
        }
    }

    /// Between two parts: a comma and a blank, or as many as align what follows.
    fn comma(&self, index: usize, before: Option<&Written>, start: usize, is_as_written: bool) -> String {
        let Some(before) = before.filter(|_| index > 0) else { return String::new() };
        let between = if is_as_written { self.chars.get(before.end..start).unwrap_or_default() } else { &[] };
        let blanks = between.iter().rev().take_while(|c| **c == ' ').count();
        format!(",{}", " ".repeat(blanks.max(1)))
    }

    fn scalar(&self, value: &Written, text: &str, style: ScalarStyle, takes: Option<&'static Takes>, in_flow: bool) -> String {
        let written = self.slice(value.start, value.end);
        let is_condition = takes.is_some_and(|takes| below(takes, |t| matches!(t, Takes::Condition | Takes::Expression)).is_some());
        let canonical = if is_condition { expr::canonical(text).filter(|canonical| canonical != text) } else { None };
        if let Some(canonical) = canonical {
            return quoted_as_needed(&canonical, in_flow);
        }
        let is_time = takes.is_some_and(|takes| below(takes, |t| matches!(t, Takes::TimeOfDay)).is_some());
        match style {
            ScalarStyle::Plain if is_time && text.contains(':') => format!("\"{text}\""),
            ScalarStyle::SingleQuoted if !text.contains(['"', '\\']) && !text.chars().any(char::is_control) => format!("\"{text}\""),
            _ => written,
        }
    }

    fn slice(&self, start: usize, end: usize) -> String {
        let text: String = self.chars.get(start..end).unwrap_or_default().iter().collect();
        text.trim_end().to_owned()
    }

    /// Blanks between a key and a value in the same line.
    fn gap_before(&self, value: &Written, key_end: usize) -> usize {
        let between = self.chars.get(key_end..value.start).unwrap_or_default();
        if between.contains(&'\n') { 1 } else { between.iter().filter(|c| **c == ' ').count().max(1) }
    }
}

/// Every entry and item of a block, in order.
fn starts_of(value: &Written, found: &mut Vec<Spot>) {
    match &value.kind {
        Form::Mapping { entries, is_flow: false } => {
            for entry in entries {
                found.push(entry.at);
                starts_of(&entry.value, found);
            }
        }
        Form::Sequence { items, is_flow: false } => {
            for item in items {
                found.push(item.at);
                starts_of(&item.value, found);
            }
        }
        _ => {}
    }
}

/// Characters in which a `#` begins no comment of ours: texts, and collections over several lines, which are moved as a whole.
fn covered_by(value: &Written, chars: &[char], found: &mut Vec<Range<usize>>) {
    match &value.kind {
        Form::Mapping { entries, is_flow: false } => entries.iter().for_each(|entry| {
            found.push(entry.start..entry.key_end);
            covered_by(&entry.value, chars, found);
        }),
        Form::Sequence { items, is_flow: false } => items.iter().for_each(|item| covered_by(&item.value, chars, found)),
        Form::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. } => found.push(block_content(chars, value.start)),
        _ => found.push(value.start..value.end),
    }
}

/// The lines of a block text below its head, without empty ones at the end.
fn block_content(chars: &[char], start: usize) -> Range<usize> {
    let rest: String = chars.iter().skip(start).collect();
    let head = rest.chars().take_while(|c| *c != '\n').count() + 1;
    let lines: Vec<&str> = rest.split('\n').skip(1).collect();
    let base = lines.iter().find(|line| !line.trim().is_empty()).map_or(0, |line| indent_of(line));
    let (mut length, mut end) = (0, 0);
    for line in lines {
        let is_empty = line.trim().is_empty();
        if !is_empty && (base == 0 || indent_of(line) < base) {
            break;
        }
        length += line.chars().count() + 1;
        if !is_empty {
            end = length - 1;
        }
    }
    start + head..start + head + end
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn comment_in(line: &str, from: usize, covered: &[Range<usize>]) -> Option<Comment> {
    let chars: Vec<char> = line.chars().collect();
    for (column, c) in chars.iter().enumerate() {
        let begins = *c == '#' && chars.get(column.wrapping_sub(1)).is_none_or(|before| before.is_whitespace());
        let at = from + column;
        if begins && !covered.iter().any(|range| range.contains(&at)) {
            let gap = chars.get(..column).unwrap_or_default().iter().rev().take_while(|c| **c == ' ').count();
            let text: String = chars.iter().skip(column).collect();
            return Some(Comment { column, gap, text: text.trim_end().to_owned(), has_line_before: false });
        }
    }
    None
}

/// The entries in the order of the language, where it has one and knows them all.
fn in_order<'p>(entries: &'p [Pair], takes: Option<&'static Takes>) -> Vec<&'p Pair> {
    let mut sorted: Vec<&Pair> = entries.iter().collect();
    let Some(shape) = takes.and_then(shape_of) else { return sorted };
    let position = |entry: &Pair| shape.names().position(|name| name == entry.key);
    if is_ordered(shape) && entries.iter().all(|entry| position(entry).is_some()) {
        sorted.sort_by_key(|entry| position(entry));
    } else {
        // the format's version stands first everywhere
        sorted.sort_by_key(|entry| entry.key != "rekindle");
    }
    sorted
}

/// What the value of a key is: of a mapping with fixed keys, or with names of the writer's own.
fn takes_of(takes: Option<&'static Takes>, key: &str) -> Option<&'static Takes> {
    let takes = takes?;
    if let Some(shape) = shape_of(takes) {
        return shape.keys.iter().find(|known| known.name == key).map(|known| &known.takes);
    }
    match below(takes, |takes| matches!(takes, Takes::Map(_) | Takes::Condition))? {
        Takes::Map(of) => Some(of),
        // a tree of `all`, `any`, `none`, whose reasons are texts
        Takes::Condition if key != "why" => Some(&Takes::Condition),
        _ => None,
    }
}

fn shape_of(takes: &'static Takes) -> Option<&'static Shape> {
    match below(takes, |takes| matches!(takes, Takes::Of(_)))? {
        Takes::Of(shape) => Some(shape),
        _ => None,
    }
}

fn item_takes(takes: &'static Takes) -> Option<&'static Takes> {
    match below(takes, |takes| matches!(takes, Takes::List(_) | Takes::Condition))? {
        Takes::List(of) => Some(of),
        takes => Some(takes),
    }
}

/// A text that is not as it was written: plain where YAML takes it for what it is, else in quotes.
fn quoted_as_needed(text: &str, in_flow: bool) -> String {
    let first = text.chars().next().unwrap_or(' ');
    let is_plain = !text.is_empty()
        && !first.is_whitespace()
        && !"!&*[]{}|>@`%\"'#,?:-".contains(first)
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([':', ' '])
        && !text.contains('\n')
        && !(in_flow && text.contains([',', '[', ']', '{', '}']));
    match text {
        _ if is_plain => text.to_owned(),
        _ if !text.contains(['"', '\\']) && !text.chars().any(char::is_control) => format!("\"{text}\""),
        _ => format!("'{}'", text.replace('\'', "''")),
    }
}
