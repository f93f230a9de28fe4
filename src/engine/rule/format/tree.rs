//! The file as it is written: every value with the characters from which to which it stands, and how.

use saphyr_parser::{Event, Parser, ScalarStyle};

#[derive(Debug)]
pub struct Written {
    /// Characters of the text.
    pub start: usize,
    pub end: usize,
    /// From 1.
    pub line: usize,
    pub kind: Form,
}

#[derive(Debug)]
pub enum Form {
    Scalar { style: ScalarStyle, text: String },
    Sequence { items: Vec<Item>, is_flow: bool },
    Mapping { entries: Vec<Pair>, is_flow: bool },
}

#[derive(Debug)]
pub struct Item {
    /// Where its dash stands; of a flow sequence, where the item does.
    pub at: Spot,
    pub value: Written,
}

#[derive(Debug)]
pub struct Pair {
    pub at: Spot,
    pub start: usize,
    pub key: String,
    /// The key as written, quotes included, ends here.
    pub key_end: usize,
    pub value: Written,
}

/// A line (from 1) and a column (from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    pub line: usize,
    pub column: usize,
}

/// None: empty, or written in a way that rule files do not use.
pub fn parse(text: &str) -> Option<Written> {
    let chars: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        let spot = Spot { line: span.start.line().max(1), column: span.start.col() };
        let extent = Extent { start: span.start.index(), end: span.end.index().max(span.start.index()), spot };
        let piece = match event {
            Event::Scalar(text, style, 0, None) => Piece::Scalar(style, text.into_owned()),
            Event::SequenceStart(0, None) => Piece::Sequence,
            Event::MappingStart(0, None) => Piece::Mapping,
            Event::SequenceEnd | Event::MappingEnd => Piece::End,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => continue,
            Event::Alias(_) | Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => return None,
        };
        pieces.push((piece, extent));
    }
    let mut reader = Reader { chars: &chars, pieces: pieces.into_iter() };
    let (first, at) = reader.pieces.next()?;
    reader.value(first, at, 0)
}

enum Piece {
    Scalar(ScalarStyle, String),
    Sequence,
    Mapping,
    End,
}

/// From where to where a piece stands.
#[derive(Clone, Copy)]
struct Extent {
    start: usize,
    end: usize,
    spot: Spot,
}

struct Reader<'t> {
    chars: &'t [char],
    pieces: std::vec::IntoIter<(Piece, Extent)>,
}

impl Reader<'_> {
    /// A value; `behind` its key or dash.
    fn value(&mut self, piece: Piece, at: Extent, behind: usize) -> Option<Written> {
        // the parser lets a block begin where its first value does, which may be a bracket too
        let first_within = self.pieces.as_slice().first().map(|(_, within)| within.start);
        let begins_with = |bracket| self.chars.get(at.start) == Some(&bracket) && first_within != Some(at.start);
        let (kind, end) = match piece {
            Piece::Scalar(style @ (ScalarStyle::Literal | ScalarStyle::Folded), text) => return self.block_text(style, text, at, behind),
            Piece::Scalar(style @ (ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted), text) => {
                (Form::Scalar { style, text }, self.closing_quote(at.start)?)
            }
            Piece::Scalar(style, text) => (Form::Scalar { style, text }, self.without_blanks(at)),
            Piece::Sequence => {
                let is_flow = begins_with('[');
                let (items, end) = self.items(is_flow)?;
                (Form::Sequence { items, is_flow }, end)
            }
            Piece::Mapping => {
                let is_flow = begins_with('{');
                let (entries, end) = self.pairs()?;
                (Form::Mapping { entries, is_flow }, end)
            }
            Piece::End => return None,
        };
        Some(Written { start: at.start, end, line: at.spot.line, kind })
    }

    fn items(&mut self, is_flow: bool) -> Option<(Vec<Item>, usize)> {
        let mut items = Vec::new();
        loop {
            let (piece, at) = self.pieces.next()?;
            if matches!(piece, Piece::End) {
                return Some((items, self.closed(at, ']')));
            }
            let (spot, behind) = if is_flow { (at.spot, at.start) } else { self.dash_before(at)? };
            items.push(Item { at: spot, value: self.value(piece, at, behind)? });
        }
    }

    fn pairs(&mut self) -> Option<(Vec<Pair>, usize)> {
        let mut pairs = Vec::new();
        loop {
            let (piece, at) = self.pieces.next()?;
            let key = match piece {
                Piece::End => return Some((pairs, self.closed(at, '}'))),
                Piece::Scalar(_, text) => text,
                Piece::Sequence | Piece::Mapping => return None,
            };
            let (piece, of_value) = self.pieces.next()?;
            pairs.push(Pair { at: at.spot, start: at.start, key, key_end: at.end, value: self.value(piece, of_value, at.end)? });
        }
    }

    /// Behind the bracket that closes a flow collection; of a block collection it means nothing.
    fn closed(&self, at: Extent, bracket: char) -> usize {
        if self.chars.get(at.start) == Some(&bracket) { at.start + 1 } else { at.end }
    }

    /// Behind the quote that closes the one at `start`; the parser's own end may lie behind a comment.
    fn closing_quote(&self, start: usize) -> Option<usize> {
        let quote = *self.chars.get(start)?;
        let mut at = start + 1;
        loop {
            let (this, next) = (*self.chars.get(at)?, self.chars.get(at + 1));
            at += match this {
                '\\' if quote == '"' => 2,
                c if c == quote && quote == '\'' && next == Some(&quote) => 2,
                c if c == quote => return Some(at + 1),
                _ => 1,
            };
        }
    }

    /// The end of a scalar, which for some reaches to the next token.
    fn without_blanks(&self, at: Extent) -> usize {
        let blanks = self.chars.get(at.start..at.end).unwrap_or_default().iter().rev().take_while(|c| c.is_whitespace()).count();
        at.end - blanks
    }

    /// The dash of an item of a block sequence, which stands before its value with blanks between.
    fn dash_before(&self, at: Extent) -> Option<(Spot, usize)> {
        let mut index = at.start;
        let mut line = at.spot.line;
        let is_dash = |index: usize| self.chars.get(index) == Some(&'-') && self.chars.get(index + 1).is_none_or(|c| c.is_whitespace());
        while !is_dash(index) {
            index = index.checked_sub(1)?;
            match self.chars.get(index)? {
                '\n' => line -= 1,
                '-' | ' ' => {}
                _ => return None,
            }
        }
        let column = self.chars.get(..index)?.iter().rev().take_while(|c| **c != '\n').count();
        Some((Spot { line, column }, index + 1))
    }

    /// The parser tells where the lines of a block text begin; it is written from its `|` or `>` on.
    fn block_text(&self, style: ScalarStyle, text: String, at: Extent, behind: usize) -> Option<Written> {
        let head = self.chars.get(behind..)?.iter().position(|c| matches!(c, '|' | '>'))? + behind;
        let lines = self.chars.get(head..at.start.max(head))?.iter().filter(|c| **c == '\n').count();
        Some(Written { start: head, end: at.end, line: at.spot.line - lines, kind: Form::Scalar { style, text } })
    }
}
