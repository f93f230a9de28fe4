//! `rekindle check`: everything that is wrong with the rules, at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use serde_json::json;
use tokio::sync::Notify;

use super::{ExitCode, findings};
use crate::channel;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::rulebook::{Files, Rulebook, RulebookError};
use crate::serve::reload::{LOOK_EVERY, STILL, watch};
use crate::settings::Settings;

/// Find what is wrong with the rules: every error of every file, with its place and what to write instead.
///
/// `--format github` marks the lines of a pull request; `--format sarif` is read by most tools that collect findings.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  $ rekindle check rules\n  $ rekindle check rules --watch\n  $ rekindle check rules --strict --format github"
)]
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
    /// Check again whenever a file changes, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    /// How to print the findings.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON document on standard output.
    Json,
    /// For GitHub Actions: each finding is shown at its line in the pull request.
    Github,
    /// For tools that collect findings: SARIF 2.1.0.
    Sarif,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let files = Files::read(&args.dir)?;
    let fingerprint = files.fingerprint();
    let code = check(files, &args)?;
    if args.watch { watch_on(&args, fingerprint, code).await } else { Ok(code) }
}

fn check(files: Files, args: &Args) -> anyhow::Result<ExitCode> {
    let mut book = Rulebook::of_files(files);
    if let (Some(config), Some(set)) = (&args.config, book.set()) {
        let settings = Settings::load(Some(config))?;
        book.add_findings(channel::lacking(&settings, &set));
    }
    match args.format {
        Format::Text => print!("{}", as_text(&book, &args.dir.display().to_string())),
        Format::Json => println!("{:#}", as_json(&book)),
        Format::Github => print!("{}", findings::as_github(book.diagnostics(), &args.dir)),
        Format::Sarif => println!("{:#}", findings::as_sarif(book.diagnostics(), &args.dir)),
    }
    let counts = |finding: &Diagnostic| args.strict || finding.is_error();
    Ok(if book.diagnostics().iter().any(counts) { ExitCode::Finding } else { ExitCode::Fine })
}

/// Checks again after each change. Ctrl-C ends it, with the answer of the latest check.
async fn watch_on(args: &Args, mut seen: u64, mut code: ExitCode) -> anyhow::Result<ExitCode> {
    let changed = Arc::new(Notify::new());
    let _watcher = watch(&[&args.dir], changed.clone());
    eprintln!("watching `{}`; Ctrl-C ends it", args.dir.display());
    // one listener for all turns: a Ctrl-C in the middle of a check is not lost
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            // an editor writes several times in a moment
            () = changed.notified() => tokio::time::sleep(STILL).await,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            stopped = &mut stop => return stopped.map(|()| code).map_err(Into::into),
        }
        match changed_files(&args.dir, &mut seen) {
            Ok(Some(files)) => code = check(files, args)?,
            Ok(None) => {}
            // a directory in the middle of being replaced
            Err(error) => eprintln!("{error}"),
        }
    }
}

/// The files, if they are others than those seen before.
fn changed_files(dir: &Path, seen: &mut u64) -> Result<Option<Files>, RulebookError> {
    let files = Files::read(dir)?;
    let fingerprint = files.fingerprint();
    let is_new = fingerprint != *seen;
    *seen = fingerprint;
    Ok(is_new.then_some(files))
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
