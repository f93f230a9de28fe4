//! What operators' commands share: where the database is, and how a command gets to it. If a daemon has the database the command goes
//! through the daemon's socket; if nobody has it, it is carried out here by the same function.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::sync::Notify;

use super::{ExitCode, database};
use crate::channel::Channels;
use crate::clock::SystemClock;
use crate::console::Console;
use crate::console::control::{self, Reply, Request};
use crate::rulebook::Rulebook;
use crate::settings::Settings;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::versions::RuleVersions;
use crate::versions::publisher::Publisher;

#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Settings of the daemon: they say where the database is
    #[arg(long, value_name = "FILE", env = "REKINDLE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Data directory, as `demo --dir` names it
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub dir: Option<PathBuf>,
    /// The database file itself
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "dir"])]
    pub db: Option<PathBuf>,
    /// Who does this: stands on record with it
    #[arg(long, value_name = "NAME", env = "REKINDLE_BY", default_value_t = user())]
    pub by: String,
}

/// The user of this machine, as far as the environment tells.
fn user() -> String {
    std::env::var("USER").unwrap_or_else(|_| "operator".to_owned())
}

impl Args {
    /// Where the database is or is to be (as named, else that of the settings, else the demo's), and the settings.
    pub fn place(&self) -> anyhow::Result<(PathBuf, Settings)> {
        let settings = Settings::load(self.config.as_deref())?;
        let path = match (&self.db, &self.dir) {
            (Some(db), _) => db.clone(),
            (None, Some(dir)) => dir.join(database::FILE),
            (None, None) => {
                let path = settings.database.path.clone();
                let demo = PathBuf::from("rekindle-demo").join(database::FILE);
                if self.config.is_none() && !path.is_file() && demo.is_file() { demo } else { path }
            }
        };
        Ok((path, settings))
    }

    /// The database, which must be there.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(self.existing()?.0)
    }

    /// The same, with the settings.
    pub fn existing(&self) -> anyhow::Result<(PathBuf, Settings)> {
        let (path, settings) = self.place()?;
        if !path.is_file() {
            bail!("there is no database `{}`: name it with --config, --dir or --db", path.display());
        }
        Ok((path, settings))
    }

    /// Has a command carried out.
    pub async fn ask(&self, request: Request) -> anyhow::Result<Reply> {
        let (path, settings) = self.existing()?;
        let store = match SqliteStore::open(&path, "").await {
            Ok(store) => store,
            Err(StoreError::Locked { .. }) => return control::ask(&path, &request).await,
            Err(error) => return Err(error.into()),
        };
        let version = store.current_version().await?.context("no rules have gone live in this database yet")?;
        let texts = store.texts_of(version).await?.with_context(|| format!("the texts of rule set {version:016x} are not on record"))?;
        let book = Rulebook::of_texts(texts);
        let rules = book.set().with_context(|| format!("the live rules are not understood\n\n{}", book.render_errors()))?;
        let (shared, clock, telemetry) = (Arc::new(store.clone()), Arc::new(SystemClock), Arc::new(Telemetry::default()));
        let rules = Arc::new(RuleVersions::new(rules, book.templates()));
        let publisher = Publisher::new(shared.clone(), settings.rules.directory, clock.clone(), telemetry.clone(), None);
        let console = Console {
            store: shared,
            clock,
            publisher: Arc::new(publisher.with_rules(rules.clone())),
            rules,
            channels: Channels::default(),
            telemetry,
            wake: Arc::new(Notify::new()),
        };
        let reply = control::handle(&console, request).await?;
        drop(console);
        store.close().await;
        Ok(reply)
    }
}

/// Prints what came of a command.
pub fn tell(reply: &Reply) -> ExitCode {
    if reply.refused {
        reply.lines.iter().for_each(|line| eprintln!("error: {line}"));
        return ExitCode::Finding;
    }
    reply.lines.iter().for_each(|line| println!("{line}"));
    ExitCode::Fine
}
