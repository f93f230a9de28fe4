//! How a rule set goes live: read, checked, tested, put on record, taken into use, and only then shown to everybody whose first look it
//! needs. Whatever fails on the way leaves the set before it where it is.
//!
//! **The order bears a crash anywhere.** The record comes first: what the database calls live is what the next start goes by. First
//! looks come last, because a look by the rules of before would use them up; they are on record as open until they are done.
//!
//! **Files and what is live may differ**, and the database knows why: the files were *refused* (an error, a failed test), or a *rollback*
//! set them aside. Either ends when the files change. Both are told in the log, by `/readyz` as a note, and by `rekindle doctor`.
//!
//! **A fleet does not flap.** Several processes on one database may have different files: while they are being replaced, one after the
//! other. New files go live by whoever has them first, and the others follow. A process that *begins* with files that were live before and
//! were replaced is late, not new: it follows too, and says so, as long as others are at work. Files that change under a process that runs
//! go live whatever they say: somebody changed them.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify};

use super::RuleVersions;
use crate::clock::Clock;
use crate::engine::rule::RuleSet;
use crate::faults::Point;
use crate::rulebook::rule_tests::run_tests;
use crate::rulebook::{Files, Rulebook, RulebookError};
use crate::store::{Publication, PublicationRow, Published, RefusedRules, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::vitals::Part;

/// A reason names so many changed files.
const FILES_NAMED: usize = 5;
/// So far back a rollback without a version looks for another one.
pub const PUBLICATIONS_SHOWN: usize = 50;
/// What is wrong with refused files is kept up to so many bytes.
const REASON_BYTES_MAX: usize = 16_000;

/// Puts rule sets live, one at a time; see the module's documentation.
pub struct Publisher {
    store: Arc<dyn Store>,
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    /// Who puts live what was changed on disk; none: the owner of the files.
    by: Option<String>,
    /// Told after a set went live: somebody may be due.
    pub wake: Arc<Notify>,
    /// None: no service runs on it (an operator's command beside a daemon that is down).
    in_use: Option<Arc<RuleVersions>>,
    seen: Mutex<Seen>,
}

/// What the latest looks at the directory saw.
#[derive(Default)]
struct Seen {
    /// Fingerprint of the files that have been dealt with, one way or another.
    settled: Option<u64>,
    /// Other files seen at the look before: taken when they stand still.
    changing: Option<u64>,
    /// Why files were refused: told once, not at every look.
    refused: Option<String>,
    first_looks_open: bool,
}

/// What a look at the directory came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    Unchanged,
    /// The files differ from those of the look before: somebody is still writing.
    Changing,
    /// Other texts, the same meaning.
    Same,
    Live(WentLive),
    Refused,
}

/// A set that went live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WentLive {
    pub version: u64,
    pub by: String,
    pub why: String,
    pub published: Published,
    /// People who get their first look at it.
    pub made_due: u64,
}

/// Why nothing went live.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Refused(String),
    #[error("the rules cannot go live, and the database has none to go by\n\n{0}")]
    NoneLive(String),
    #[error("rule set {0:016x} never went live in this database: `rekindle rollback --list` shows those that did")]
    Unknown(u64),
    #[error("rule set {0:016x} is live already")]
    IsLive(u64),
    #[error("only one rule set ever went live in this database: there is none to go back to")]
    NoOther,
    #[error("rule set {version:016x} is not understood any more by this program\n\n{reason}")]
    NotUnderstood { version: u64, reason: String },
}

impl Publisher {
    pub fn new(store: Arc<dyn Store>, directory: PathBuf, clock: Arc<dyn Clock>, telemetry: Arc<Telemetry>, by: Option<String>) -> Self {
        Publisher { store, directory, clock, telemetry, by, wake: Arc::default(), in_use: None, seen: Mutex::default() }
    }

    /// For whoever has the live rules in use already.
    pub fn with_rules(mut self, in_use: Arc<RuleVersions>) -> Self {
        self.in_use = Some(in_use);
        self
    }

    // ----------------------------------------------------------------------------------------------------------------- start

    /// Finds the rules to go by as a process begins: those on disk if they are sound (put live if they are new), else those that are
    /// live on record, loudly.
    ///
    /// # Errors
    /// The files cannot go live and nothing else is there to go by.
    pub async fn start(&mut self) -> Result<Arc<RuleVersions>, PublishError> {
        let live = self.live().await?;
        let files = self.read().await;
        let fingerprint = files.as_ref().ok().map(Files::fingerprint);
        let mut seen = Seen { settled: fingerprint, ..Seen::default() };
        let is_known = |live: &PublicationRow| live.files.is_some() && live.files == fingerprint;
        let set_aside = live.as_ref().is_some_and(|live| live.is_rollback && is_known(live));
        let book = match files {
            Ok(files) if !set_aside => self.examine(files).await,
            Ok(_) => Err("a rollback set the files on disk aside".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let (book, from_disk) = match (book, &live) {
            (Ok(book), _) => (book, true),
            (Err(reason), None) => return Err(PublishError::NoneLive(reason)),
            (Err(reason), Some(live)) => {
                if set_aside {
                    self.tell_rollback(live.version);
                } else {
                    self.refuse(&mut seen, fingerprint, reason).await?;
                }
                (self.stored(live.version).await?, false)
            }
        };
        let mut rules = sound(&book, live.as_ref().map_or(0, |live| live.version))?;
        let (mut book, mut from_disk) = (book, from_disk);
        let is_late = from_disk && self.is_replaced(&rules, live.as_ref()).await?;
        if let Some(live) = live.as_ref().filter(|_| is_late) {
            (book, from_disk) = (self.stored(live.version).await?, false);
            rules = sound(&book, live.version)?;
        }
        let in_use = Arc::new(RuleVersions::new(rules.clone(), book.templates()));
        self.in_use = Some(in_use.clone());
        let live_version = live.as_ref().map_or(0, |live| live.version);
        match live {
            Some(live) if live.version == rules.version => {
                if let Some(fingerprint) = fingerprint.filter(|_| from_disk) {
                    self.store.agree_with_files(fingerprint).await?;
                }
            }
            // the stored texts mean something else to this program than to the one that put them live
            Some(live) if !from_disk => {
                let why = "this program's definitions differ from those before".to_owned();
                let how = How { by: "upgrade".into(), why, files: live.files, is_rollback: live.is_rollback };
                self.put_live(&mut seen, &book, rules, how).await?;
            }
            live => {
                let how = self.found_on_disk(&book, live.as_ref(), fingerprint).await?;
                self.put_live(&mut seen, &book, rules, how).await?;
            }
        }
        if from_disk {
            self.all_is_well();
        }
        if is_late {
            self.tell_late(live_version);
        }
        self.seen = Mutex::new(seen);
        Ok(in_use)
    }

    // ----------------------------------------------------------------------------------------------------------------- watch

    /// One look at the directory. Files that differ from those before are taken at the second look that finds them unchanged, so that a
    /// half-written directory never goes live.
    ///
    /// # Errors
    /// The database did not answer; the files are tried again at the next look.
    pub async fn look(&self) -> Result<Looked, StoreError> {
        let mut seen = self.seen.lock().await;
        if seen.first_looks_open {
            self.first_looks(&mut seen).await?;
        }
        if let (Some(in_use), Some(live)) = (&self.in_use, self.store.current_version().await?) {
            in_use.follow(self.store.as_ref(), live).await?;
        }
        let files = match self.read().await {
            Ok(files) => files,
            Err(error) => {
                (seen.settled, seen.changing) = (None, None);
                self.refuse(&mut seen, None, error.to_string()).await?;
                return Ok(Looked::Refused);
            }
        };
        let fingerprint = files.fingerprint();
        if seen.settled == Some(fingerprint) {
            seen.changing = None;
            return Ok(Looked::Unchanged);
        }
        if seen.changing.replace(fingerprint) != Some(fingerprint) {
            return Ok(Looked::Changing);
        }
        seen.changing = None;
        match self.take(&mut seen, files, None, None).await {
            Ok(looked) => Ok(looked),
            Err(PublishError::Store(error)) => Err(error),
            Err(_) => Ok(Looked::Refused),
        }
    }

    /// Puts the files on disk live now, also after a rollback. If they are live already, `why` replaces the reason on record.
    ///
    /// # Errors
    /// The files are refused, or the database did not answer.
    pub async fn reload(&self, by: Option<String>, why: Option<String>) -> Result<Looked, PublishError> {
        let mut seen = self.seen.lock().await;
        let files = self.read().await.map_err(|error| PublishError::Refused(error.to_string()))?;
        self.take(&mut seen, files, by, why).await
    }

    /// Checks, tests and puts live.
    async fn take(&self, seen: &mut Seen, files: Files, by: Option<String>, why: Option<String>) -> Result<Looked, PublishError> {
        let fingerprint = files.fingerprint();
        let book = match self.examine(files).await {
            Ok(book) => book,
            Err(reason) => {
                self.refuse(seen, Some(fingerprint), reason.clone()).await?;
                seen.settled = Some(fingerprint);
                return Err(PublishError::Refused(reason));
            }
        };
        let rules = sound(&book, 0)?;
        let live = self.live().await?;
        let is_live = live.as_ref().is_some_and(|live| live.version == rules.version);
        let found = self.found_on_disk(&book, live.as_ref(), Some(fingerprint)).await?;
        let (by, given) = (by.unwrap_or(found.by), why.is_some());
        let why = why.unwrap_or(found.why);
        let looked = if is_live {
            self.store.agree_with_files(fingerprint).await?;
            if given {
                self.store.explain_publication(&by, &why).await?;
            }
            Looked::Same
        } else {
            let how = How { by, why, files: Some(fingerprint), is_rollback: false };
            Looked::Live(self.put_live(seen, &book, rules, how).await?)
        };
        seen.settled = Some(fingerprint);
        seen.refused = None;
        self.all_is_well();
        Ok(looked)
    }

    // -------------------------------------------------------------------------------------------------------------- rollback

    /// Puts a set live again that was live before; none: the latest other than the live one. It stays until the files on disk change.
    /// Its tests are not run: it has been live, and whoever goes back is in a hurry.
    ///
    /// # Errors
    /// It never was live, or is not understood any more, or the database did not answer.
    pub async fn roll_back(&self, version: Option<u64>, by: String, why: String) -> Result<WentLive, PublishError> {
        let mut seen = self.seen.lock().await;
        let live = self.live().await?;
        let version = match version {
            Some(version) => version,
            None => {
                let before = self.store.publications(PUBLICATIONS_SHOWN).await?;
                let other = before.iter().find(|row| live.as_ref().is_some_and(|live| live.version != row.version));
                other.ok_or(PublishError::NoOther)?.version
            }
        };
        if live.is_some_and(|live| live.version == version) {
            return Err(PublishError::IsLive(version));
        }
        let book = self.stored(version).await?;
        let rules = sound(&book, version)?;
        // a directory that cannot be read is one that changes as soon as it can
        let files = self.read().await.ok().map(|files| files.fingerprint());
        let went_live = self.put_live(&mut seen, &book, rules, How { by, why, files, is_rollback: true }).await?;
        (seen.settled, seen.refused) = (files, None);
        self.tell_rollback(version);
        self.telemetry.metrics.reload_failed.set(0);
        Ok(went_live)
    }

    // ----------------------------------------------------------------------------------------------------------------- pieces

    async fn live(&self) -> Result<Option<PublicationRow>, StoreError> {
        Ok(self.store.publications(1).await?.into_iter().next())
    }

    async fn read(&self) -> Result<Files, RulebookError> {
        let directory = self.directory.clone();
        blocking(move || Files::read(&directory)).await
    }

    /// Checks the files and runs their tests. The error is everything that is wrong with them.
    async fn examine(&self, files: Files) -> Result<Rulebook, String> {
        blocking(move || {
            let book = Rulebook::of_files(files);
            let outcome = run_tests(&book, None);
            if outcome.is_fine() {
                return Ok(book);
            }
            let failures = outcome.tests.iter().flat_map(|test| &test.failures);
            let findings = outcome.errors.iter().chain(failures).map(|finding| finding.render(book.sources(), book.root()));
            Err(findings.collect::<Vec<_>>().join("\n\n"))
        })
        .await
    }

    /// A set that was live, of the texts on record.
    async fn stored(&self, version: u64) -> Result<Rulebook, PublishError> {
        let texts = self.store.texts_of(version).await?.ok_or(PublishError::Unknown(version))?;
        Ok(blocking(move || Rulebook::of_texts(texts)).await)
    }

    /// By whom and why, for what was changed on disk and not by a command.
    async fn found_on_disk(&self, book: &Rulebook, live: Option<&PublicationRow>, files: Option<u64>) -> Result<How, StoreError> {
        let texts = match live {
            Some(live) => self.store.texts_of(live.version).await?,
            None => None,
        };
        let changed = book.changed_since(&texts.unwrap_or_default());
        let why = if live.is_none() { "the first rules of this database".to_owned() } else { named(&changed) };
        let owner = || book.author_of(&changed).unwrap_or_else(|| "unknown".to_owned());
        Ok(How { by: self.by.clone().unwrap_or_else(owner), why, files, is_rollback: false })
    }

    async fn put_live(&self, seen: &mut Seen, book: &Rulebook, rules: Arc<RuleSet>, how: How) -> Result<WentLive, StoreError> {
        let (version, count) = (rules.version, rules.rules.len());
        let How { by, why, files, is_rollback } = how;
        let publication = Publication { files, is_rollback, ..book.publication(&rules, self.clock.now(), &by, &why) };
        Point::RulesPublishing.reach();
        let published = self.store.publish_rules(publication).await?;
        Point::RulesPublished.reach();
        if let Some(in_use) = &self.in_use {
            in_use.swap(rules, book.templates());
        }
        self.telemetry.metrics.reloads.inc();
        seen.first_looks_open = true;
        Point::RulesInUse.reach();
        let made_due = self.first_looks(seen).await.unwrap_or_else(|error| {
            tracing::error!("first looks at the new rules wait for the database: {error}");
            0
        });
        tracing::info!(
            rules.version = %format_args!("{version:016x}"), rules.count = count, rollback = is_rollback, made_due_count = made_due,
            "rules went live: {}", told(&published)
        );
        self.wake.notify_one();
        Ok(WentLive { version, by, why, published, made_due })
    }

    async fn first_looks(&self, seen: &mut Seen) -> Result<u64, StoreError> {
        let made_due = self.store.finish_first_looks().await?;
        seen.first_looks_open = false;
        Ok(made_due)
    }

    /// The set that is live stays.
    async fn refuse(&self, seen: &mut Seen, files: Option<u64>, reason: String) -> Result<(), StoreError> {
        let Telemetry { metrics, vitals } = &*self.telemetry;
        metrics.reload_failed.set(1);
        let first = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        vitals.note(Part::Rules, Some(format!("the files on disk are refused, the set before stays: {first}")));
        if seen.refused.as_ref() != Some(&reason) {
            tracing::error!("the rules on disk are refused, the set that is live stays\n{reason}");
            let because = reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().to_owned();
            self.store.refuse_rules(RefusedRules { files: files.unwrap_or(0), at: self.clock.now(), because }).await?;
            seen.refused = Some(reason);
        }
        Ok(())
    }

    /// Whether these rules were live once and others replaced them, by which others are at work now.
    async fn is_replaced(&self, rules: &RuleSet, live: Option<&PublicationRow>) -> Result<bool, StoreError> {
        let is_other = live.is_some_and(|live| live.version != rules.version);
        Ok(is_other && self.store.texts_of(rules.version).await?.is_some() && self.store.company().await? > 0)
    }

    fn tell_late(&self, version: u64) {
        let note = format!(
            "the files on disk were live before and were replaced by {version:016x}, by which other processes work: this one follows them; \
             if these files are to go live again, `rekindle reload`"
        );
        tracing::warn!("{note}");
        self.telemetry.vitals.note(Part::Rules, Some(note));
    }

    fn tell_rollback(&self, version: u64) {
        let note = format!("rolled back to {version:016x}: the files on disk differ from what is live, until they change");
        tracing::warn!("{note}");
        self.telemetry.vitals.note(Part::Rules, Some(note));
    }

    fn all_is_well(&self) {
        self.telemetry.metrics.reload_failed.set(0);
        self.telemetry.vitals.note(Part::Rules, None);
    }
}

/// By whom, why, and what it means for the files on disk.
struct How {
    by: String,
    why: String,
    files: Option<u64>,
    is_rollback: bool,
}

fn sound(book: &Rulebook, version: u64) -> Result<Arc<RuleSet>, PublishError> {
    book.set().ok_or_else(|| PublishError::NotUnderstood { version, reason: book.render_errors() })
}

/// Files are read and rules compiled where it does not hold up anybody else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading and compiling rules do not panic, and the runtime outlives them")
}

/// `silence.yaml, winback.yaml and 3 more changed on disk`.
fn named(paths: &[String]) -> String {
    let shown = paths.iter().take(FILES_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(FILES_NAMED) {
        0 if shown.is_empty() => "found on disk".to_owned(),
        0 => format!("{shown} changed on disk"),
        more => format!("{shown} and {more} more changed on disk"),
    }
}

/// What a publication changed, in a line.
pub fn told(published: &Published) -> String {
    let Published { new, when_changed, changed, removed } = published;
    let counts = [(new.len(), "new"), (when_changed.len(), "with another `when`"), (changed.len(), "changed"), (removed.len(), "removed")];
    let parts: Vec<String> = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() { "no rule changed".to_owned() } else { parts.join(", ") }
}
