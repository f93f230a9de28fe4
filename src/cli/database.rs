//! What commands that look into a database share: where it is, who somebody is, which rules are live in it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};

use super::demo;
use crate::engine::rule::RuleSet;
use crate::rulebook::Rulebook;
use crate::store::place::Place;
use crate::store::{Identity, ProfilePage, Store, StoreError, StoredProfile};

/// The database file within a data directory.
pub const FILE: &str = "rekindle.db";

/// Where the database is.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Data directory, as `demo --dir` names it
    #[arg(long, value_name = "DIR", default_value = "rekindle-demo")]
    pub dir: PathBuf,
    /// The database itself, if it is not in the data directory: a file, or postgres://user@host/name
    #[arg(long, value_name = "DATABASE")]
    pub db: Option<Place>,
}

/// An open database.
pub struct Database {
    pub store: Arc<dyn Store>,
    /// `demo`, `production` ...
    pub environment: String,
}

impl Args {
    /// Opens an existing database to look at it, as whatever environment it is: beside whatever works on it, on a read-only disk too.
    pub async fn open(&self) -> anyhow::Result<Database> {
        let store = self.place()?.open_to_read().await?;
        let environment = store.environment().await?;
        Ok(Database { store, environment })
    }

    /// Opens an existing database to change something in it.
    pub async fn open_to_write(&self) -> anyhow::Result<Database> {
        let store = self.place()?.open("", None).await?;
        let environment = store.environment().await?;
        Ok(Database { store, environment })
    }

    fn place(&self) -> anyhow::Result<Place> {
        let place = self.db.clone().unwrap_or_else(|| Place::File(self.dir.join(FILE)));
        if !place.may_exist() {
            bail!("there is no database `{place}`: name it with --dir or --db; `rekindle demo` makes one");
        }
        Ok(place)
    }
}

impl Database {
    /// Whether it lives in the past: "now" is then the instant up to which it was replayed.
    pub fn is_demo(&self) -> bool {
        self.environment == demo::ENVIRONMENT
    }
}

/// So many people are read at once.
const PAGE: usize = 5_000;

/// Everybody's row as it stands, some at a time.
pub async fn for_everybody(store: &dyn Store, mut look: impl FnMut(ProfilePage)) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = store.profiles(after, PAGE).await?;
        after = page.last;
        look(page);
        if after.is_none() {
            return Ok(());
        }
    }
}

/// A person by user id.
pub async fn person(store: &dyn Store, user: &str) -> anyhow::Result<StoredProfile> {
    let id = store.find_profile(&Identity::User(Arc::from(user))).await?;
    let id = id.ok_or_else(|| anyhow!("nobody with the user id `{user}` is in this database"))?;
    store.profile(id).await?.ok_or_else(|| anyhow!("the row of `{user}` is gone"))
}

/// The rule set live in this database, compiled from the texts that it keeps.
pub async fn live_rules(store: &dyn Store) -> anyhow::Result<Arc<RuleSet>> {
    let version = store.current_version().await?.context("no rules have gone live in this database yet")?;
    rules_of(store, version).await
}

/// The rule set of a version that was live here.
pub async fn rules_of(store: &dyn Store, version: u64) -> anyhow::Result<Arc<RuleSet>> {
    let texts = store.texts_of(version).await?.with_context(|| format!("the texts of rule set {version:016x} are not in this database"))?;
    let book = Rulebook::of_texts(texts);
    book.set().with_context(|| format!("the stored rule set {version:016x} cannot be read by this program\n\n{}", book.render_errors()))
}
