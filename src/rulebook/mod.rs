//! The rules directory: YAML files, templates, and what came of them. Reading is all that happens here; what the texts mean is the
//! engine's business. A set is whole or it is none.
//!
//! `*.yaml` and `*.yml` files anywhere below the directory are rule files (`*.test.yaml` hold tests), `templates/NAME/...` are
//! templates; everything else is left alone, as are names that begin with a dot.

mod names;
mod owner;
pub mod rule_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::Hasher as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use twox_hash::XxHash3_64;

use crate::engine::SEMANTICS;
use crate::engine::features;
use crate::engine::profile::Name;
use crate::engine::rule::check::{self, Loaded, is_list};
use crate::engine::rule::diagnostic::{Diagnostic, SourceFile};
use crate::engine::rule::expr::ValueType;
use crate::engine::rule::syntax::{self, Node};
use crate::engine::rule::{Action, Dictionary, Place, Rule, RuleSet, TemplateCatalog};
use crate::engine::time::{MINUTE_MS, Timestamp};
use crate::message::{self, Rendered, TemplateFault, Templates};
use crate::store::Publication;

/// The directory of templates within a rules directory.
const TEMPLATES: &str = "templates/";
/// Directories are followed that deep: a link to its own parent ends here.
const MAX_DEPTH: usize = 16;
/// More files than that are no rules directory.
const MAX_FILES: usize = 10_000;
/// A list of people larger than that is refused unread.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// First looks at everybody, after a rule was new or changed, are spread over this long.
const FIRST_LOOK_SPREAD_MS: i64 = 10 * MINUTE_MS;

/// A rules directory as it was read.
#[derive(Debug)]
pub struct Rulebook {
    sources: Vec<SourceFile>,
    templates: Arc<Templates>,
    catalog: TemplateCatalog,
    set: Option<Arc<RuleSet>>,
    diagnostics: Vec<Diagnostic>,
    tests: Vec<Node>,
    root: String,
}

/// Why a directory could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum RulebookError {
    #[error("cannot read `{}`: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("`{}` has no rule files; a rules directory holds `*.yaml`, and its templates in `templates/`", .0.display())]
    Empty(PathBuf),
    #[error("`{}` has more than {MAX_FILES} files; is it a rules directory?", .0.display())]
    TooMany(PathBuf),
}

/// The files of a rules directory as they stand on disk, not understood yet.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    /// Sorted by path.
    sources: Vec<SourceFile>,
    /// What cannot be taken for a text.
    unread: Vec<Diagnostic>,
}

impl Files {
    /// Reads a rules directory.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read, or it holds no rule file.
    pub fn read(dir: &Path) -> Result<Files, RulebookError> {
        let mut paths = Vec::new();
        collect(dir, Path::new(""), 0, &mut paths)?;
        if paths.len() > MAX_FILES {
            return Err(RulebookError::TooMany(dir.to_owned()));
        }
        paths.sort();
        let mut sources = Vec::new();
        let mut unread = Vec::new();
        for (relative, path) in paths {
            match read(&relative, &path)? {
                Ok(source) => sources.push(source),
                Err(finding) => unread.push(finding),
            }
        }
        if !sources.iter().any(is_rule_file) && unread.is_empty() {
            return Err(RulebookError::Empty(dir.to_owned()));
        }
        Ok(Files { directory: dir.to_owned(), sources, unread })
    }

    /// The YAML files: rules, tests, and what templates say of themselves.
    pub fn yaml(&self) -> impl Iterator<Item = &SourceFile> {
        self.sources.iter().filter(|source| is_yaml(&source.path))
    }

    /// Changes with every byte and every path: whether there is anything new to look at.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = XxHash3_64::new();
        for source in &self.sources {
            hash_file(&mut hash, source);
        }
        for finding in &self.unread {
            hash.write(finding.place.file.as_bytes());
            hash.write(finding.message.as_bytes());
        }
        hash.finish()
    }
}

fn hash_file(hash: &mut XxHash3_64, source: &SourceFile) {
    for part in [&source.path, &source.text] {
        hash.write_u64(part.len() as u64);
        hash.write(part.as_bytes());
    }
}

impl Rulebook {
    /// Reads a rules directory. What is wrong with single files is among the diagnostics.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read, or it holds no rule file.
    pub fn open(dir: &Path) -> Result<Rulebook, RulebookError> {
        Ok(Rulebook::of_files(Files::read(dir)?))
    }

    pub fn of_files(files: Files) -> Rulebook {
        let Files { directory, sources, unread } = files;
        let mut book = Rulebook::of(sources);
        book.root = directory.display().to_string();
        if !unread.is_empty() {
            book.set = None;
            book.diagnostics.extend(unread);
            book.diagnostics.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
        }
        book
    }

    /// A rulebook of texts that are at hand: a stored set, a test's.
    pub fn of(mut sources: Vec<SourceFile>) -> Rulebook {
        // so that equal texts have equal versions, wherever they come from
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        let template_files: Vec<(String, String)> =
            sources.iter().filter(|s| is_template(s)).map(|s| (s.path.to_string(), s.text.to_string())).collect();
        let (templates, faults) = Templates::parse(&template_files);
        let catalog = templates.catalog();
        let Loaded { set, mut diagnostics, tests } = check::load(&checked(&sources), &catalog);
        diagnostics.extend(faults.into_iter().map(told));
        if let Some(set) = &set {
            diagnostics.extend(template_faults(&templates, set).into_iter().map(told));
            diagnostics.extend(set.rules.iter().flat_map(string_faults));
        }
        diagnostics.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
        let is_sound = !diagnostics.iter().any(Diagnostic::is_error);
        let set = set.filter(|_| is_sound).map(|set| Arc::new(RuleSet { version: whole_version(set.version, &sources), ..set }));
        let tests = tests.into_iter().map(|(_, node)| node).collect();
        Rulebook { sources, templates: Arc::new(templates), catalog, set, diagnostics, tests, root: String::new() }
    }

    /// A rulebook of texts that a store keeps, by path.
    pub fn of_texts(texts: Vec<(String, String)>) -> Rulebook {
        Rulebook::of(texts.into_iter().map(|(path, text)| SourceFile { path: Arc::from(path), text: Arc::from(text) }).collect())
    }

    /// What goes live when this rulebook does. `by` and `why` stand in every rule's history.
    pub fn publication(&self, rules: &RuleSet, at: Timestamp, by: &str, why: &str) -> Publication {
        Publication {
            version: rules.version,
            at,
            by: by.to_owned(),
            why: why.to_owned(),
            texts: self.sources.iter().map(|source| (source.path.to_string(), source.text.to_string())).collect(),
            rules: rules.rules.iter().map(Into::into).collect(),
            spread_ms: FIRST_LOOK_SPREAD_MS,
            files: None,
            is_rollback: false,
        }
    }

    /// The compiled rules; none if there is any error.
    pub fn set(&self) -> Option<Arc<RuleSet>> {
        self.set.clone()
    }

    /// The rules compiled once more, for whoever wants to change the set; none if there is any error.
    pub fn compile(&self) -> Option<RuleSet> {
        let version = self.set.as_ref()?.version;
        check::load(&checked(&self.sources), &self.catalog).set.map(|set| RuleSet { version, ..set })
    }

    pub fn templates(&self) -> Arc<Templates> {
        self.templates.clone()
    }

    /// What differs from other texts, as paths in order: changed, new or gone.
    pub fn changed_since(&self, texts: &[(String, String)]) -> Vec<String> {
        let before: BTreeMap<&str, &str> = texts.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let now: BTreeMap<&str, &str> = self.sources.iter().map(|source| (&*source.path, &*source.text)).collect();
        let paths: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
        paths.into_iter().filter(|path| before.get(path) != now.get(path)).map(str::to_owned).collect()
    }

    /// Who changed these files last, as far as the file system knows: the owner of the one that was written last.
    pub fn author_of(&self, paths: &[String]) -> Option<String> {
        owner::of_the_latest(paths.iter().map(|path| Path::new(&self.root).join(path)))
    }

    /// The directory as findings call it; empty for texts that are on no disk.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// All files, sorted by path: what is stored under the set's version.
    pub fn sources(&self) -> &[SourceFile] {
        &self.sources
    }

    /// What others found in the same files, in the light of what they know. The set stands: its rules are sound.
    pub fn add_findings(&mut self, findings: Vec<Diagnostic>) {
        self.diagnostics.extend(findings);
        self.diagnostics.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
    }

    /// Everything found, errors and warnings, by place.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    pub fn errors(&self) -> Vec<Diagnostic> {
        self.diagnostics.iter().filter(|finding| finding.is_error()).cloned().collect()
    }

    /// The lists under `tests`.
    pub fn tests(&self) -> &[Node] {
        &self.tests
    }

    /// The errors as text, with the lines they are about.
    pub fn render_errors(&self) -> String {
        let mut text = String::new();
        for finding in self.diagnostics.iter().filter(|finding| finding.is_error()) {
            let rendered = finding.render(&self.sources, &self.root);
            writeln!(text, "{rendered}\n").expect("a string takes everything");
        }
        text
    }

    /// Every template with its samples, in every language.
    pub fn rendered<'t>(&self, templates: &'t Templates, set: &RuleSet) -> Vec<Rendered<'t>> {
        templates.rendered(&|name| type_of(&set.dictionary, name), set.dictionary.currency)
    }

    /// How many rules and templates were read.
    pub fn counts(&self) -> (usize, usize) {
        (self.set.as_ref().map_or(0, |set| set.rules.len()), self.catalog.len())
    }
}

/// A template's text is part of what goes live, and so is what the rules' words mean to this program: with another one it is another version.
fn whole_version(rules: u64, sources: &[SourceFile]) -> u64 {
    let mut hash = XxHash3_64::new();
    hash.write_u64(rules);
    hash.write_u32(SEMANTICS);
    sources.iter().filter(|source| is_template(source)).for_each(|source| hash_file(&mut hash, source));
    hash.finish()
}

fn is_template(source: &SourceFile) -> bool {
    source.path.starts_with(TEMPLATES)
}

/// The files that a rule set is made of, besides its templates: rules and lists.
fn checked(sources: &[SourceFile]) -> Vec<SourceFile> {
    sources.iter().filter(|source| is_rule_file(source) || is_list(&source.path)).cloned().collect()
}

fn is_rule_file(source: &SourceFile) -> bool {
    !is_template(source) && is_yaml(&source.path)
}

fn is_yaml(path: &str) -> bool {
    path.ends_with(".yaml") || path.ends_with(".yml")
}

/// Relative path (with `/`) and path of every file of interest below a directory.
fn collect(dir: &Path, relative: &Path, depth: usize, into: &mut Vec<(String, PathBuf)>) -> Result<(), RulebookError> {
    let unreadable = |error| RulebookError::Unreadable { path: dir.join(relative), error };
    for entry in fs::read_dir(dir.join(relative)).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') || into.len() > MAX_FILES {
            continue;
        }
        let below = relative.join(&name);
        let path = dir.join(&below);
        // links are followed: mounted configuration consists of them
        let metadata = fs::metadata(&path).map_err(|error| RulebookError::Unreadable { path: path.clone(), error })?;
        let text = below.to_string_lossy().replace('\\', "/");
        if metadata.is_dir() && depth < MAX_DEPTH {
            collect(dir, &below, depth + 1, into)?;
        } else if metadata.is_file() && (text.starts_with(TEMPLATES) || is_yaml(&text) || is_list(&text)) {
            into.push((text, path));
        }
    }
    Ok(())
}

/// A file's text, or why it is none; too large a file is not read at all.
fn read(relative: &str, path: &Path) -> Result<Result<SourceFile, Diagnostic>, RulebookError> {
    let unreadable = |error| RulebookError::Unreadable { path: path.to_owned(), error };
    let whole = || Place { file: Arc::from(relative), line: 0, column: 0 };
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    let most = if is_list(relative) { MAX_LIST_BYTES } else { syntax::MAX_BYTES as u64 };
    if bytes > most {
        return Ok(Err(syntax::too_large(whole(), bytes, most)));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Ok(SourceFile { path: Arc::from(relative), text: Arc::from(text) })),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
            let message = format!("the file is not UTF-8 text (line {line})");
            Ok(Err(Diagnostic::error("RK0100", whole(), message).help("save it as UTF-8")))
        }
    }
}

fn told(fault: TemplateFault) -> Diagnostic {
    let is_warning = fault.is_warning();
    let file = if fault.path.starts_with(TEMPLATES) { fault.path } else { format!("{TEMPLATES}{}", fault.path) };
    let place = Place { file: Arc::from(file), line: fault.line, column: fault.column };
    let said = if is_warning { Diagnostic::warning } else { Diagnostic::error };
    Diagnostic { help: fault.help, ..said(fault.code, place, fault.message) }
}

/// What is wrong with templates in the light of the names that the rules declare.
fn template_faults(templates: &Templates, set: &RuleSet) -> Vec<TemplateFault> {
    let dictionary = &set.dictionary;
    let declared: Vec<&Name> = declared_names(dictionary).collect();
    let known: Vec<&str> = features::built_in_names().map(|name| -> &str { name }).chain(declared.iter().map(|name| &***name)).collect();
    templates.check(&|name| type_of(dictionary, name), &known, dictionary.currency)
}

/// What is wrong with the Liquid strings in a rule's own steps: `data` of a send, `text` of an alert. Told where the step stands.
fn string_faults(rule: &Rule) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for step in rule.steps.iter().chain(&rule.on_exit) {
        let strings: Vec<(String, &str)> = match &step.action {
            Action::Send(send) => send.data.iter().map(|(name, text)| (format!("`data.{name}`"), text.as_str())).collect(),
            Action::Alert { text: Some(text), .. } => vec![("the alert's `text`".to_owned(), text.as_str())],
            _ => Vec::new(),
        };
        for (what, text) in strings {
            for (code, _, message, help) in message::string_faults(text) {
                let message = format!("{what} of step `{}`: {message}", step.id);
                found.push(Diagnostic { help, ..Diagnostic::error(code, step.place.clone(), message) });
            }
        }
    }
    found
}

fn declared_names(dictionary: &Dictionary) -> impl Iterator<Item = &Name> {
    let attributes = dictionary.attributes.iter().map(|attribute| &attribute.name);
    let features = dictionary.features.iter().map(|feature| &feature.name);
    attributes.chain(features).chain(dictionary.segments.iter().map(|segment| &segment.name))
}

/// The type of any name that stands for a value of a person.
fn type_of(dictionary: &Dictionary, name: &str) -> Option<ValueType> {
    let attribute = || dictionary.attributes.iter().find(|a| &*a.name == name).map(|a| a.value_type.clone());
    let feature = || dictionary.features.iter().find(|f| &*f.name == name).map(|f| f.value_type().clone());
    let segment = || dictionary.segments.iter().any(|s| &*s.name == name).then_some(ValueType::Bool);
    features::built_in_type(name).or_else(attribute).or_else(feature).or_else(segment)
}
