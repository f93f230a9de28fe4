//! `rekindle schema`: the rule language as JSON Schema, for editors.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use super::ExitCode;
use crate::engine::rule::schema::schema;
use crate::rulebook::Rulebook;

/// Write the rule language as JSON Schema, so that your editor completes keys and names, explains them, and underlines what is wrong
///
/// It holds the names of your own rules directory: segments, events, templates, coupons. Write it again when they change. Editors that
/// speak yaml-language-server (VS Code, Neovim, Helix and others) find it by the first line of a rule file:
///
///   # yaml-language-server: $schema=../rekindle.schema.json
#[derive(Debug, Parser)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  $ rekindle schema rules --out rules/rekindle.schema.json\n  $ rekindle schema > rekindle.schema.json"
)]
pub struct Args {
    /// The rules directory
    #[arg(default_value = "rules")]
    pub dir: PathBuf,
    /// Where to write it [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(&args.dir)?;
    let text = format!("{:#}\n", schema(&book.names()));
    match args.out {
        Some(path) => std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?,
        None => print!("{text}"),
    }
    Ok(ExitCode::Fine)
}
