//! `rekindle check`: everything that is wrong with the rules, at once.

use std::path::PathBuf;

use clap::Parser;
use serde_json::json;

use super::{ExitCode, Format};
use crate::channel;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::rulebook::Rulebook;
use crate::settings::Settings;

/// Find what is wrong with the rules: every error of every file, with its place and what to write instead.
///
/// $ rekindle check rules
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The rules directory.
    #[arg(default_value = "rules")]
    pub dir: PathBuf,
    /// The administrator's file: are the providers that the policy names set up there, and may mails go out by them?
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Count warnings as errors.
    #[arg(long)]
    pub strict: bool,
    /// How to print the findings.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut book = Rulebook::open(&args.dir)?;
    if let (Some(config), Some(set)) = (&args.config, book.set()) {
        let settings = Settings::load(Some(config))?;
        book.add_findings(channel::lacking(&settings, &set));
    }
    match args.format {
        Format::Text => print!("{}", as_text(&book, &args.dir.display().to_string())),
        Format::Json => println!("{:#}", as_json(&book)),
    }
    let counts = |finding: &Diagnostic| args.strict || finding.is_error();
    Ok(if book.diagnostics().iter().any(counts) { ExitCode::Finding } else { ExitCode::Fine })
}

fn as_text(book: &Rulebook, root: &str) -> String {
    let mut text = String::new();
    for finding in book.diagnostics() {
        text.push_str(&finding.render(book.sources(), root));
        text.push_str("\n\n");
    }
    if let Some(finding) = book.diagnostics().first() {
        text.push_str(&format!("more about a code: rekindle explain-code {}\n", finding.code));
    }
    text.push_str(&summary(book));
    text.push('\n');
    text
}

/// `12 rules, 31 templates, no findings`; a set with errors has no rules to count.
fn summary(book: &Rulebook) -> String {
    let errors = book.errors().len();
    let warnings = book.diagnostics().len() - errors;
    let (rules, templates) = book.counts();
    let findings = match (errors, warnings) {
        (0, 0) => "no findings".to_owned(),
        (0, warnings) => super::counted(warnings, "warning"),
        (errors, 0) => super::counted(errors, "error"),
        (errors, warnings) => format!("{}, {}", super::counted(errors, "error"), super::counted(warnings, "warning")),
    };
    if errors > 0 { findings } else { format!("{}, {}, {findings}", super::counted(rules, "rule"), super::counted(templates, "template")) }
}

fn as_json(book: &Rulebook) -> serde_json::Value {
    let errors = book.errors().len();
    let (rules, templates) = book.counts();
    json!({
        "rules": rules,
        "templates": templates,
        "errors": errors,
        "warnings": book.diagnostics().len() - errors,
        "findings": book.diagnostics().iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
    })
}
