//! The rule sets in use: the present one with its templates, and older ones on which runs finish. Older ones are compiled when a
//! profile first needs them, from the texts that the store keeps by version; so runs finish on their version after a restart too. Of an
//! older set the rules count, with their segments; features, program, policy and templates are always the present ones. How a set goes
//! live is the business of [`publisher`].

pub mod publisher;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::engine::profile::Profile;
use crate::engine::rule::{RuleSet, check};
use crate::engine::time::Timestamp;
use crate::message::Templates;
use crate::rulebook::Rulebook;
use crate::store::{Store, StoreError, WorldView};

/// What services look at: taken once per pass, so that a pass sees one set.
#[derive(Clone)]
pub struct Snapshot {
    pub rules: Arc<RuleSet>,
    pub templates: Arc<Templates>,
    /// By version.
    pub older: Arc<HashMap<u64, Arc<RuleSet>>>,
}

/// See the module's documentation.
pub struct RuleVersions {
    present: RwLock<Snapshot>,
    /// Versions that cannot be had: their runs go by the present text of their rule.
    lost: RwLock<HashSet<u64>>,
}

impl RuleVersions {
    pub fn new(rules: Arc<RuleSet>, templates: Arc<Templates>) -> Self {
        let present = RwLock::new(Snapshot { rules, templates, older: Arc::default() });
        RuleVersions { present, lost: RwLock::default() }
    }

    /// Puts another set in place; the one before stays at hand for its runs. All older ones are read again under its definitions.
    pub fn swap(&self, rules: Arc<RuleSet>, templates: Arc<Templates>) {
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        let before = present.older.values().chain([&present.rules]).filter(|set| set.version != rules.version);
        let older = before.map(|set| (set.version, under(set, &rules))).collect();
        *present = Snapshot { rules, templates, older: Arc::new(older) };
    }

    /// The world as of the month of `at`, and with it the rules: if another process has put others live, those are in use from here on.
    pub async fn world(&self, store: &dyn Store, at: Timestamp) -> Result<WorldView, StoreError> {
        let view = store.world(self.snapshot().rules.policy.month_start(at)).await?;
        match view.live {
            Some(live) if self.follow(store, live).await? => store.world(self.snapshot().rules.policy.month_start(at)).await,
            _ => Ok(view),
        }
    }

    /// Takes a set into use that another process put live on the same database, by its texts on record; whether it did. One that this
    /// program does not understand is left to those who do, loudly.
    pub async fn follow(&self, store: &dyn Store, live: u64) -> Result<bool, StoreError> {
        if self.snapshot().rules.version == live || self.lost.read().unwrap_or_else(PoisonError::into_inner).contains(&live) {
            return Ok(false);
        }
        let Some(texts) = store.texts_of(live).await? else { return Ok(false) };
        match compile(live, texts) {
            Ok((rules, templates)) => {
                self.swap(Arc::new(rules), templates);
                tracing::info!(rules.version = %format_args!("{live:016x}"), "took the rules into use that another process put live");
                Ok(true)
            }
            Err(reason) => {
                tracing::error!(rules.version = %format_args!("{live:016x}"), "another process put rules live that this program does not understand: it goes on by those it has\n{reason}");
                self.lost.write().unwrap_or_else(PoisonError::into_inner).insert(live);
                Ok(false)
            }
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        self.present.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A snapshot that knows every version on which these people's runs are.
    pub async fn snapshot_for<'a>(&self, store: &dyn Store, profiles: impl Iterator<Item = &'a Profile>) -> Result<Snapshot, StoreError> {
        let snapshot = self.snapshot();
        let wanted: BTreeSet<u64> = profiles.flat_map(|profile| &profile.runs).map(|run| run.version).collect();
        let is_missing = |version: &u64| {
            let is_lost = || self.lost.read().unwrap_or_else(PoisonError::into_inner).contains(version);
            *version != snapshot.rules.version && !snapshot.older.contains_key(version) && !is_lost()
        };
        let missing: Vec<u64> = wanted.into_iter().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(snapshot);
        }
        for version in missing {
            self.load(store, version).await?;
        }
        Ok(self.snapshot())
    }

    async fn load(&self, store: &dyn Store, version: u64) -> Result<(), StoreError> {
        let compiled = match store.texts_of(version).await? {
            Some(texts) => compile(version, texts),
            None => Err("its texts are not on record".to_owned()),
        };
        match compiled {
            Ok((rules, _)) => {
                let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
                let mut older = HashMap::clone(&present.older);
                older.insert(version, under(&rules, &present.rules));
                present.older = Arc::new(older);
            }
            Err(reason) => {
                tracing::warn!(rules.version = version, "an older rule set cannot be read; its runs go by the present rules: {reason}");
                self.lost.write().unwrap_or_else(PoisonError::into_inner).insert(version);
            }
        }
        Ok(())
    }
}

/// An older set as its runs go by it: its own rules, under the present definitions.
fn under(older: &RuleSet, present: &RuleSet) -> Arc<RuleSet> {
    let (set, kept) = check::under_present(older, present);
    if !kept.is_empty() {
        tracing::warn!(
            rules.version = older.version,
            "rules of an older set name what is no longer declared; their runs go by the definitions of then: {}",
            kept.join(", ")
        );
    }
    Arc::new(set)
}

/// A set by the version under which its texts are on record: a later program may call the same texts another version. The error says why
/// they are not understood any more (an upgrade may have narrowed the language).
fn compile(version: u64, texts: Vec<(String, String)>) -> Result<(RuleSet, Arc<Templates>), String> {
    let book = Rulebook::of_texts(texts);
    book.compile().map(|set| (RuleSet { version, ..set }, book.templates())).ok_or_else(|| book.render_errors())
}
