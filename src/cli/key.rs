//! `rekindle key`: the keys with which senders send events and tills read people. A key is shown once, as it is made; the database keeps
//! its hash.

use std::path::PathBuf;

use serde_json::json;

use super::{ExitCode, Format};
use crate::clock::{Clock, SystemClock};
use crate::engine::profile::Name;
use crate::ingest::http::keys;
use crate::settings::Settings;
use crate::store::sqlite::SqliteStore;
use crate::store::{ApiKey, KeyId, KeyScope, NewKey, Store};

/// Make, list and revoke the keys with which events are sent and people are read
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle key new shop\n  $ rekindle key new till --scope read\n  $ rekindle key revoke 1")]
pub struct Args {
    /// The system administrator's file; it says where the database is [default: the built-in settings]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t, global = true)]
    pub format: Format,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key for a source of events and print it, this once
    #[command(after_help = "Example:\n  $ rekindle key new shop")]
    New {
        /// Who sends or reads by it (`shop`, `app`, `till`): stands on every event. A source may have several keys, to change them
        /// without a gap
        source: String,
        /// Sending events, or reading people
        #[arg(long, value_enum, default_value_t = Scope::Write)]
        scope: Scope,
    },
    /// List all keys, revoked ones too, without the keys themselves
    #[command(after_help = "Example:\n  $ rekindle key list")]
    List,
    /// Revoke a key: a second later it opens nothing
    #[command(after_help = "Example:\n  $ rekindle key revoke 1")]
    Revoke {
        /// Its number, as `rekindle key list` shows it
        id: i64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    Write,
    Read,
}

impl From<Scope> for KeyScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Write => KeyScope::Write,
            Scope::Read => KeyScope::Read,
        }
    }
}

/// # Errors
/// The settings are wrong, or the database cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(args.config.as_deref())?;
    let store = SqliteStore::open(&settings.database.path, &settings.environment).await?;
    let code = match args.command {
        Command::New { source, scope } => new(&store, &source, scope.into(), args.format).await?,
        Command::List => list(&store, args.format).await?,
        Command::Revoke { id } => revoke(&store, KeyId(id), args.format).await?,
    };
    store.close().await;
    Ok(code)
}

async fn new(store: &dyn Store, source: &str, scope: KeyScope, format: Format) -> anyhow::Result<ExitCode> {
    if source.trim().is_empty() || source.len() > 64 || source.contains(char::is_control) {
        anyhow::bail!("`{source}` is no name for a source: up to 64 characters, like `shop`");
    }
    let key = keys::generate().map_err(anyhow::Error::msg)?;
    let new = NewKey { source: Name::from(source.trim()), scope, hash: keys::hash(&key), at: SystemClock.now(), by: whoever() };
    let id = store.add_key(new).await?;
    match format {
        Format::Json => println!("{:#}", json!({ "id": id.0, "source": source, "scope": scope.name(), "key": key })),
        Format::Text => {
            // the key alone on standard output, for scripts
            eprintln!("key {} of `{source}`, for {}. It is shown this once:", id.0, purpose(scope));
            println!("{key}");
        }
    }
    Ok(ExitCode::Fine)
}

async fn list(store: &dyn Store, format: Format) -> anyhow::Result<ExitCode> {
    let keys = store.keys().await?;
    match format {
        Format::Json => println!("{:#}", serde_json::Value::from_iter(keys.iter().map(as_json))),
        Format::Text if keys.is_empty() => println!("no keys yet: `rekindle key new shop` makes one"),
        Format::Text => keys.iter().for_each(|key| println!("{}", as_line(key))),
    }
    Ok(ExitCode::Fine)
}

async fn revoke(store: &dyn Store, id: KeyId, format: Format) -> anyhow::Result<ExitCode> {
    let is_revoked = store.revoke_key(id, SystemClock.now(), &whoever()).await?;
    match format {
        Format::Json => println!("{:#}", json!({ "id": id.0, "revoked": is_revoked })),
        Format::Text if is_revoked => println!("key {} is revoked", id.0),
        Format::Text => println!("there is no key {} that is good: nothing to revoke", id.0),
    }
    Ok(if is_revoked { ExitCode::Fine } else { ExitCode::Finding })
}

fn purpose(scope: KeyScope) -> &'static str {
    match scope {
        KeyScope::Write => "sending events",
        KeyScope::Read => "reading people",
    }
}

/// Whose doing it is, for the record.
fn whoever() -> Name {
    Name::from(std::env::var("USER").unwrap_or_else(|_| "operator".to_owned()))
}

fn as_line(key: &ApiKey) -> String {
    let made = format!("{}  {}  {}  made {} by {}", key.id.0, key.source, purpose(key.scope), key.created_at, key.created_by);
    match &key.revoked {
        Some((at, by)) => format!("{made}, revoked {at} by {by}"),
        None => made,
    }
}

fn as_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id.0, "source": *key.source, "scope": key.scope.name(), "created_at": key.created_at.to_string(), "created_by": *key.created_by,
        "revoked_at": key.revoked.as_ref().map(|(at, _)| at.to_string()), "revoked_by": key.revoked.as_ref().map(|(_, by)| by.to_string()),
    })
}
