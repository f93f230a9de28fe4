//! What pages have in common: one file that needs nothing from elsewhere, no scripts (its own policy forbids them), everything escaped.

use std::fmt::{self, Write as _};

const FRAME: &str = include_str!("page.html");

/// Width of a chart, and of the room for names at its left.
pub const WIDTH: f64 = 960.0;
pub const LEFT: f64 = 96.0;

/// The whole page around its content.
pub fn framed(title: &str, content: &str) -> String {
    FRAME.replacen("{{title}}", &Escaped(title).to_string(), 1).replacen("{{content}}", content, 1)
}

/// Text that is safe between tags and within quoted attributes.
pub struct Escaped<'t>(pub &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// One value for each place in the row, as bars that begin at `base` and are at most `lane` high; `said` names a bar for who points at it.
pub fn bars(out: &mut String, class: &str, values: &[u64], base: f64, lane: f64, said: impl Fn(usize) -> String) -> fmt::Result {
    let most = values.iter().copied().max().unwrap_or(0).max(1);
    let step = (WIDTH - LEFT - 8.0) / values.len().max(1) as f64;
    write!(out, "<line class=axis x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{base:.1}\" y2=\"{base:.1}\"/>")?;
    for (index, value) in values.iter().enumerate().filter(|(_, value)| **value > 0) {
        let high = *value as f64 / most as f64 * lane;
        let x = LEFT + index as f64 * step;
        let (y, wide) = (base - high, (step - 2.0).max(1.0));
        write!(out, "<rect class={class} x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" rx=1.5>")?;
        write!(out, "<title>{}</title></rect>", Escaped(&said(index)))?;
    }
    Ok(())
}
