//! `rekindle fmt`: rule files in canonical form.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Parser;

use super::ExitCode;
use crate::engine::rule::diagnostic::SourceFile;
use crate::engine::rule::format::{Unformatted, format};
use crate::rulebook::Files;

/// Bring rule files into canonical form: keys in order, quotes, indentation, long lines; comments and meaning stay
///
/// A file that is in form already is not touched. `-` reads a file from standard input and writes it to standard output, for editors.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  $ rekindle fmt\n  $ rekindle fmt rules/silence/win-back.yaml\n  $ rekindle fmt rules --check")]
pub struct Args {
    /// Rules directories and rule files
    #[arg(default_value = "rules", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Write nothing, and end with 1 if a file would change: for pull requests
    #[arg(long)]
    pub check: bool,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.paths == [PathBuf::from("-")] {
        return filter(args.check);
    }
    let mut seen = Seen::default();
    for path in &args.paths {
        if path.is_dir() {
            for source in Files::read(path)?.yaml() {
                seen.look_at(&path.join(&*source.path), source, args.check)?;
            }
        } else {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let source = SourceFile { path: Arc::from(path.display().to_string()), text: Arc::from(text) };
            seen.look_at(path, &source, args.check)?;
        }
    }
    let word = if args.check { "not in form" } else { "brought into form" };
    println!("{}, {} {word}, {} left alone", super::counted(seen.files, "file"), seen.changed, seen.left);
    let is_finding = seen.left > 0 || (args.check && seen.changed > 0);
    Ok(if is_finding { ExitCode::Finding } else { ExitCode::Fine })
}

fn filter(check: bool) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input is no text")?;
    match format(&Arc::from("standard input"), &text) {
        Ok(formatted) if check => Ok(if formatted == text { ExitCode::Fine } else { ExitCode::Finding }),
        Ok(formatted) => {
            print!("{formatted}");
            Ok(ExitCode::Fine)
        }
        Err(error) => bail!(because(&error, &[], "")),
    }
}

#[derive(Default)]
struct Seen {
    files: usize,
    changed: usize,
    left: usize,
}

impl Seen {
    fn look_at(&mut self, path: &Path, source: &SourceFile, check: bool) -> anyhow::Result<()> {
        self.files += 1;
        match format(&source.path, &source.text) {
            Ok(formatted) if *formatted == *source.text => {}
            Ok(formatted) => {
                self.changed += 1;
                println!("{}", path.display());
                if !check {
                    fs::write(path, formatted).with_context(|| format!("cannot write `{}`", path.display()))?;
                }
            }
            Err(error) => {
                self.left += 1;
                let root = path.display().to_string();
                let root = root.strip_suffix(&*source.path).unwrap_or_default();
                eprintln!("{}: left as it is: {}", path.display(), because(&error, std::slice::from_ref(source), root));
            }
        }
        Ok(())
    }
}

fn because(error: &Unformatted, sources: &[SourceFile], root: &str) -> String {
    match error {
        Unformatted::Broken(findings) => {
            let rendered: Vec<String> = findings.iter().map(|finding| finding.render(sources, root)).collect();
            format!("it cannot be read\n\n{}\n", rendered.join("\n\n"))
        }
        Unformatted::Unsure => "something in it would not mean the same afterwards".to_owned(),
    }
}
