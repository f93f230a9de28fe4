//! A finding in the files: what would have happened, where, and what to paste instead. Collected, never first-failed.

use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value as Json, json};

use super::Place;

/// One file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the rules directory, with `/`.
    pub path: Arc<str>,
    pub text: Arc<str>,
}

/// Whether a finding stops the set from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A finding with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// `RK0101`: each has a meaning in the language's description.
    pub code: &'static str,
    pub severity: Severity,
    /// Lower case, user input in backticks, no full stop.
    pub message: String,
    /// Line 0: the file as a whole.
    pub place: Place,
    /// Characters to underline from `place` on, within its line.
    pub len: usize,
    /// What stands beside the underline.
    pub label: Option<String>,
    /// What to do: one suggestion, as text to paste.
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn error(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Diagnostic { code, severity: Severity::Error, message: message.into(), place, len: 1, label: None, help: None }
    }

    pub fn warning(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, place, message) }
    }

    #[must_use]
    pub fn len(self, len: usize) -> Self {
        Diagnostic { len, ..self }
    }

    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Diagnostic { label: Some(label.into()), ..self }
    }

    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Diagnostic { help: Some(help.into()), ..self }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The finding as text with the line it is about. `root` is put before paths (the rules directory, or nothing).
    pub fn render(&self, sources: &[SourceFile], root: &str) -> String {
        let path =
            if root.is_empty() { self.place.file.to_string() } else { format!("{}/{}", root.trim_end_matches('/'), self.place.file) };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str()).id(self.code);
        let line = sources.iter().find(|s| s.path == self.place.file).and_then(|s| line_of(&s.text, self.place.line));
        let mut groups: Vec<Group<'_>> = Vec::new();
        match line {
            Some(line) => {
                let span = byte_span(line, self.place.column, self.len);
                let annotation = AnnotationKind::Primary.span(span).label(self.label.as_deref());
                let line_start = self.place.line as usize;
                groups.push(title.element(Snippet::source(line).line_start(line_start).path(path).annotation(annotation)));
            }
            None if self.place.line == 0 => groups.push(title.element(Origin::path(path))),
            None => {
                let (line, column) = (self.place.line as usize, self.place.column as usize);
                groups.push(title.element(Origin::path(path).line(line).char_column(column)));
            }
        }
        if let Some(help) = &self.help {
            groups.push(Group::with_title(Level::HELP.secondary_title(help.as_str())));
        }
        Renderer::plain().render(&groups)
    }

    /// The finding for machines.
    pub fn to_json(&self) -> Json {
        json!({
            "code": self.code,
            "severity": self.severity.name(),
            "message": self.message,
            "file": &*self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "length": self.len,
            "label": self.label,
            "help": self.help,
        })
    }

    /// By file, line, column, then code: the order in which findings are shown.
    pub fn order_key(&self) -> (&str, u32, u32, &str, &str) {
        (&self.place.file, self.place.line, self.place.column, self.code, &self.message)
    }
}

/// The text of a line (from 1) without its end and without a byte order mark.
fn line_of(text: &str, line: u32) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    text.split('\n').nth(index).map(|l| l.strip_suffix('\r').unwrap_or(l))
}

/// Bytes of `len` characters from a column (from 1) on, cut at the end of the line.
fn byte_span(line: &str, column: u32, len: usize) -> std::ops::Range<usize> {
    let first = usize::try_from(column).unwrap_or(1).saturating_sub(1);
    let byte = |chars: usize| line.char_indices().nth(chars).map_or(line.len(), |(at, _)| at);
    byte(first)..byte(first.saturating_add(len.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_lands_under_the_character_also_after_chinese_text() {
        let text = "rekindle: 1\nrules:\n  - id: x\n    when: '老客户 && day_silent >= 30 && tier != \"gold\"'\n";
        let source = SourceFile { path: Arc::from("10-silence.yaml"), text: Arc::from(text) };
        let place = Place { file: Arc::from("10-silence.yaml"), line: 4, column: 19 };
        let finding = Diagnostic::error("RK0203", place, "unknown field `day_silent`")
            .len(10)
            .label("not a feature, attribute or function")
            .help("did you mean `days_silent`?");
        let expected = r#"error[RK0203]: unknown field `day_silent`
 --> rules/10-silence.yaml:4:19
  |
4 |     when: '老客户 && day_silent >= 30 && tier != "gold"'
  |                      ^^^^^^^^^^ not a feature, attribute or function
  |
help: did you mean `days_silent`?"#;
        assert_eq!(finding.render(&[source], "rules"), expected);
    }
}
