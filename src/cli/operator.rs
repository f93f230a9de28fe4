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
use crate::store::StoreError;
use crate::store::place::Place;
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
    /// The database itself: a file, or postgres://user@host/name
    #[arg(long, value_name = "DATABASE", conflicts_with_all = ["config", "dir"])]
    pub db: Option<Place>,
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
    pub fn place(&self) -> anyhow::Result<(Place, Settings)> {
        let settings = Settings::load(self.config.as_deref())?;
        let place = match (&self.db, &self.dir) {
            (Some(db), _) => db.clone(),
            (None, Some(dir)) => Place::File(dir.join(database::FILE)),
            (None, None) => {
                let place = settings.database.place();
                let demo = Place::File(PathBuf::from("rekindle-demo").join(database::FILE));
                if self.config.is_none() && !place.may_exist() && demo.may_exist() { demo } else { place }
            }
        };
        Ok((place, settings))
    }

    /// The database, which must be there, and the settings.
    pub fn existing(&self) -> anyhow::Result<(Place, Settings)> {
        let (place, settings) = self.place()?;
        if !place.may_exist() {
            bail!("there is no database `{place}`: name it with --config, --dir or --db");
        }
        Ok((place, settings))
    }

    /// Has a command carried out.
    pub async fn ask(&self, request: Request) -> anyhow::Result<Reply> {
        let (place, settings) = self.existing()?;
        let store = match place.open("", None).await {
            Ok(store) => store,
            Err(StoreError::Locked { path, .. }) => return control::ask(&path, &request).await,
            Err(error) => return Err(error.into()),
        };
        // where no rules have gone live yet, what needs none can be done all the same
        let texts = match store.current_version().await? {
            Some(version) => {
                store.texts_of(version).await?.with_context(|| format!("the texts of rule set {version:016x} are not on record"))?
            }
            None => Vec::new(),
        };
        let book = Rulebook::of_texts(texts);
        let rules = book.set().with_context(|| format!("the live rules are not understood\n\n{}", book.render_errors()))?;
        let (clock, telemetry) = (Arc::new(SystemClock), Arc::new(Telemetry::default()));
        let rules = Arc::new(RuleVersions::new(rules, book.templates()));
        let publisher = Publisher::new(store.clone(), settings.rules.directory, clock.clone(), telemetry.clone(), None);
        let console = Console {
            store: store.clone(),
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
