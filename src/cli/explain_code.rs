//! `rekindle explain-code`: the page of a finding's code, from docs/codes.md.

use anyhow::bail;
use clap::Parser;

use super::ExitCode;
use crate::engine::rule::suggest::nearest;

/// All pages; each begins with a heading `## RK0204: types that do not go together`.
const PAGES: &str = include_str!("../../docs/codes.md");
/// Columns of the printed text.
const WIDTH: usize = 100;

/// Say what a finding's code means: what happened, why it matters, and an example with and without the fault
///
/// Without a code: all of them, a line each.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  $ rekindle explain-code RK0204\n  $ rekindle explain-code")]
pub struct Args {
    /// The code as `rekindle check` prints it
    pub code: Option<String>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(asked) = args.code else {
        for page in pages() {
            println!("{}", page.heading);
        }
        return Ok(ExitCode::Fine);
    };
    let code = canonical(&asked);
    let Some(page) = pages().find(|page| page.code == code) else {
        let near = nearest(&code, pages().map(|page| page.code)).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        bail!("there is no code `{asked}`{near} (`rekindle explain-code` lists them all)");
    };
    print!("{}", page.printed());
    Ok(ExitCode::Fine)
}

/// `rk204`, `0204` and `RK0204` are one code.
fn canonical(asked: &str) -> String {
    let upper = asked.trim().to_ascii_uppercase();
    let number = upper.strip_prefix("RK").unwrap_or(&upper);
    match number.parse::<u16>() {
        Ok(number) => format!("RK{number:04}"),
        Err(_) => upper,
    }
}

/// What a code means, in a line.
pub fn title(code: &str) -> Option<&'static str> {
    pages().find(|page| page.code == code)?.heading.split_once(": ").map(|(_, title)| title)
}

struct Page {
    code: &'static str,
    /// `RK0204: types that do not go together`, with the word "(warning)" after the code of one.
    heading: &'static str,
    body: &'static str,
}

fn pages() -> impl Iterator<Item = Page> {
    PAGES.split("\n## ").skip(1).filter_map(|section| {
        let (heading, body) = section.split_once('\n')?;
        Some(Page { code: heading.split([' ', ':']).next()?, heading, body })
    })
}

impl Page {
    /// For a terminal: paragraphs folded, examples indented, without Markdown's marks.
    fn printed(&self) -> String {
        let mut out = format!("{}\n", self.heading);
        let mut in_example = false;
        for line in self.body.lines() {
            match line {
                _ if line.starts_with("```") => in_example = !in_example,
                _ if in_example => out.push_str(format!("    {line}").trim_end()),
                _ => out.push_str(&folded(line)),
            }
            if !line.starts_with("```") {
                out.push('\n');
            }
        }
        out.trim_end().to_owned() + "\n"
    }
}

/// A paragraph in lines of at most [`WIDTH`] columns.
fn folded(paragraph: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for asked in ["RK0204", "rk0204", "0204", "204", " rk204 "] {
            assert_eq!(canonical(asked), "RK0204");
        }
    }

    #[test]
    fn a_page_is_printed_without_marks_and_within_its_width() {
        for page in pages() {
            let printed = page.printed();
            assert!(printed.starts_with(page.code) && !printed.contains("```"), "{printed}");
            let long = printed.lines().skip(1).find(|line| !line.starts_with("    ") && line.chars().count() > WIDTH);
            assert_eq!(long, None);
            assert!(printed.contains("\n    "), "{}: no example", page.code);
        }
    }
}
