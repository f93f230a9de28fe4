//! `rekindle key`: the keys with which senders send events and tills read people. A key is shown once, as it is made; what leaves this
//! command, and what the database keeps, is its hash.

use std::fmt::Write as _;

use serde_json::json;

use super::{ExitCode, Format, operator};
use crate::clock::{Clock, SystemClock};
use crate::console::control::{self, Reply, Request};
use crate::console::keys as desk;
use crate::ingest::http::keys;
use crate::store::{ApiKey, KeyId, KeyScope, StoreError};

/// Make, list and revoke the keys with which events are sent and people are read
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle key new shop\n  $ rekindle key new till --scope read\n  $ rekindle key revoke 1")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    New(New),
    List(List),
    Revoke(Revoke),
}

/// Make a key for a source of events and print it, this once
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle key new shop")]
pub struct New {
    /// Who sends or reads by it (`shop`, `app`, `till`): stands on every event. A source may have several, to change them without a gap
    source: String,
    /// Sending events, or reading people
    #[arg(long, value_enum, default_value_t = Scope::Write)]
    scope: Scope,
    #[command(flatten)]
    operator: operator::Args,
}

/// List all keys, revoked ones too, without the keys themselves
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle key list")]
pub struct List {
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    operator: operator::Args,
}

/// Revoke a key: a second later it opens nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle key revoke 1")]
pub struct Revoke {
    /// Its number, as `rekindle key list` shows it
    id: i64,
    #[command(flatten)]
    operator: operator::Args,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    Write,
    Read,
}

/// # Errors
/// The settings are wrong, or the database cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::New(args) => new(args).await,
        Command::List(args) => list(args).await,
        Command::Revoke(args) => {
            let by = args.operator.by.clone();
            Ok(operator::tell(&ask(&args.operator, Request::RevokeKey { id: args.id, by }).await?))
        }
    }
}

async fn new(args: New) -> anyhow::Result<ExitCode> {
    let key = keys::generate().map_err(anyhow::Error::msg)?;
    let hash = keys::hash(&key).iter().fold(String::new(), |mut hex, byte| {
        // writing to a string cannot fail
        let _fits = write!(hex, "{byte:02x}");
        hex
    });
    let scope = match args.scope {
        Scope::Write => KeyScope::Write,
        Scope::Read => KeyScope::Read,
    };
    let (source, by) = (args.source, args.operator.by.clone());
    let reply = ask(&args.operator, Request::AddKey { source, scope: scope.name().to_owned(), hash, by }).await?;
    if reply.refused {
        return Ok(operator::tell(&reply));
    }
    // the key alone on standard output, for scripts
    reply.lines.iter().for_each(|line| eprintln!("{line}. It is shown this once:"));
    println!("{key}");
    Ok(ExitCode::Fine)
}

async fn list(args: List) -> anyhow::Result<ExitCode> {
    let store = args.operator.existing()?.0.open_to_read().await?;
    let keys = store.keys().await?;
    match args.format {
        Format::Json => println!("{:#}", serde_json::Value::from_iter(keys.iter().map(as_json))),
        Format::Text if keys.is_empty() => println!("no keys yet: `rekindle key new shop` makes one"),
        Format::Text => keys.iter().for_each(|key| println!("{}", as_line(key))),
    }
    store.close().await;
    Ok(ExitCode::Fine)
}

/// Keys are made before anything else exists: a database that is not there yet is made.
async fn ask(operator: &operator::Args, request: Request) -> anyhow::Result<Reply> {
    let (place, settings) = operator.place()?;
    let store = match place.open(&settings.environment, None).await {
        Ok(store) => store,
        Err(StoreError::Locked { path, .. }) => return control::ask(&path, &request).await,
        Err(error) => return Err(error.into()),
    };
    let now = SystemClock.now();
    let reply = match &request {
        Request::AddKey { source, scope, hash, by } => desk::add(store.as_ref(), now, source, scope, hash, by).await?,
        Request::RevokeKey { id, by } => desk::revoke(store.as_ref(), now, KeyId(*id), by).await?,
        other => anyhow::bail!("{other:?} is not about keys"),
    };
    store.close().await;
    Ok(reply)
}

fn as_line(key: &ApiKey) -> String {
    let made = format!("{}  {}  {}  made {} by {}", key.id.0, key.source, desk::purpose(key.scope), key.created_at, key.created_by);
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
