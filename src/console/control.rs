//! Operators' commands. There is one function that carries them out, [`handle`]; a command calls it directly when no daemon has the
//! database, and through the daemon's socket when one does ([`listen`], [`ask`]). The socket lies beside the database and can be
//! opened only by the user who runs the daemon: whoever may read the database may give commands, nobody else.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::pauses::{EVERYBODY_SPREAD_MS, Survey, all_in_force, in_force, resume, survey};
use super::{Console, keys, person, publications, replay, sample, suppressions};
use crate::engine::action::Channel as Kind;
use crate::engine::decide::Pause;
use crate::engine::profile::Name;
use crate::engine::rule::suggest::nearest;
use crate::store::{Identity, KeyId, PauseScope, StoreError};

/// Operations shown by `status`.
const OPERATIONS_SHOWN: usize = 20;
/// A path of a socket may not be longer, on any system.
const SOCKET_PATH_MAX: usize = 100;

/// What an operator asks for. `by` is on record with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// What is paused and held, and what operators did last.
    Status,
    Pause {
        scope: Scope,
        reason: String,
        by: String,
    },
    /// What would happen if this were resumed now; changes nothing.
    Survey {
        scope: Scope,
    },
    Resume {
        scope: Scope,
        by: String,
    },
    /// Lets a rule go on that its brake holds.
    Release {
        rule: String,
        by: String,
    },
    /// Who is set aside, and why.
    SetAside,
    /// Gives one person back who was set aside.
    Replay {
        user: String,
        by: String,
    },
    ReplayAll {
        by: String,
    },
    /// Looks at everybody again because of a rule that was set aside for some.
    ReplayRule {
        rule: String,
        by: String,
    },
    /// Which rule sets went live, by whom and why.
    Publications,
    /// Back to a rule set; none: the one before.
    Rollback {
        version: Option<String>,
        reason: String,
        by: String,
    },
    /// Takes the rules on disk now.
    Reload {
        reason: Option<String>,
        by: String,
    },
    /// One message as for somebody, to an address of one's own.
    SendTest {
        rule: String,
        step: Option<String>,
        channel: Option<String>,
        user: String,
        to: String,
    },
    /// Erases the person of that user id.
    Erase {
        user: String,
        reason: String,
        by: String,
    },
    /// Puts addresses on the suppression list.
    Suppress {
        entries: Vec<suppressions::NewEntry>,
        by: String,
    },
    /// Takes an address off the list; for a person who was stopped by it as well, if one is named.
    Lift {
        channel: String,
        address: String,
        user: Option<String>,
        by: String,
    },
    /// What the list says of an address.
    Suppressions {
        channel: String,
        address: String,
    },
    /// Lets a key in, by the hash of it (SHA-256, hexadecimal).
    AddKey {
        source: String,
        scope: String,
        hash: String,
        by: String,
    },
    /// Shuts a key out.
    RevokeKey {
        id: i64,
        by: String,
    },
}

/// A pause's scope as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    All,
    Rule(String),
    Channel(String),
    Tag(String),
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// For people.
    pub lines: Vec<String>,
    /// It was not done, and the lines say why.
    pub refused: bool,
    /// The survey, where one was asked for.
    pub survey: Option<Survey>,
}

impl Reply {
    pub(super) fn done(line: impl Into<String>) -> Reply {
        Reply { lines: vec![line.into()], ..Reply::default() }
    }

    pub(super) fn refused(line: impl Into<String>) -> Reply {
        Reply { lines: vec![line.into()], refused: true, ..Reply::default() }
    }
}

/// Carries out what an operator asks for.
///
/// # Errors
/// The store could not do it. What it refuses for a reason of its own is a [`Reply`] that says so.
pub async fn handle(console: &Console, request: Request) -> Result<Reply, StoreError> {
    let (store, now) = (console.store.as_ref(), console.clock.now());
    match request {
        Request::Status => status(console).await,
        Request::Pause { scope, reason, by } => {
            let scope = match known(console, scope).await? {
                Ok(scope) => scope,
                Err(why) => return Ok(Reply::refused(why)),
            };
            if reason.trim().is_empty() {
                return Ok(Reply::refused("a pause needs a reason: it is shown wherever the pause holds something"));
            }
            store.set_pause(now, scope.clone(), Some(Pause { at: now, reason: Arc::from(reason) }), &by).await?;
            tracing::warn!("{scope} is paused");
            Ok(Reply::done(format!("{scope} is paused since {now}: no message of it begins to be sent from here on")))
        }
        Request::Survey { scope } => match paused(console, scope).await? {
            Ok(scope) => {
                let survey = survey(store, &console.rules, &scope, now).await?;
                Ok(Reply { lines: survey.lines(), survey: Some(survey), ..Reply::default() })
            }
            Err(why) => Ok(Reply::refused(why)),
        },
        Request::Resume { scope, by } => match paused(console, scope).await? {
            Ok(scope) => {
                let survey = survey(store, &console.rules, &scope, now).await?;
                resume(store, &console.rules, scope.clone(), &by, survey.waiting.clone(), now).await?;
                console.wake.notify_one();
                tracing::warn!("{scope} goes on");
                let lines = vec![format!("{scope} goes on since {now}")];
                Ok(Reply { lines, survey: Some(survey), ..Reply::default() })
            }
            Err(why) => Ok(Reply::refused(why)),
        },
        Request::Release { rule, by } => release(console, &rule, &by).await,
        Request::SetAside => replay::list(console).await,
        Request::Replay { user, by } => replay::one(console, &user, &by).await,
        Request::ReplayAll { by } => replay::all(console, &by).await,
        Request::ReplayRule { rule, by } => replay::rule(console, &rule, &by).await,
        Request::Publications => publications::list(console).await,
        Request::Rollback { version, reason, by } => publications::roll_back(console, version.as_deref(), by, reason).await,
        Request::Reload { reason, by } => publications::reload(console, by, reason).await,
        Request::SendTest { rule, step, channel, user, to } => {
            send_test(console, &rule, step.as_deref(), channel.as_deref(), &user, &to).await
        }
        Request::Erase { user, reason, by } => person::erase(store, &user, &reason, &by, now).await,
        Request::Suppress { entries, by } => suppressions::add(store, &entries, &by, now).await,
        Request::Lift { channel, address, user, by } => {
            let reply = suppressions::lift(store, &channel, &address, user.as_deref(), &by, now).await?;
            console.wake.notify_one();
            Ok(reply)
        }
        Request::Suppressions { channel, address } => suppressions::show(store, &channel, &address, now).await,
        Request::AddKey { source, scope, hash, by } => keys::add(store, now, &source, &scope, &hash, &by).await,
        Request::RevokeKey { id, by } => keys::revoke(store, now, KeyId(id), &by).await,
    }
}

/// The scope, if it means anything here.
async fn known(console: &Console, scope: Scope) -> Result<Result<PauseScope, String>, StoreError> {
    let hint = |what: &str, name: &str, known: Vec<String>| {
        let near = nearest(name, known.iter().map(String::as_str)).map(|near| format!("; did you mean `{near}`?"));
        format!("there is no {what} `{name}` here{}", near.unwrap_or_else(|| format!("; known are: {}", known.join(", "))))
    };
    let rules = console.rules.snapshot().rules;
    Ok(match scope {
        Scope::All => Ok(PauseScope::All),
        Scope::Rule(id) => {
            let world = console.world().await?;
            match world.rules.contains_key(id.as_str()) {
                true => Ok(PauseScope::Rule(Name::from(id))),
                false => Err(hint("rule", &id, world.rules.keys().map(ToString::to_string).collect())),
            }
        }
        Scope::Channel(name) => match Kind::named(&name) {
            Some(kind) => Ok(PauseScope::Channel(kind)),
            None => Err(hint("channel", &name, Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect())),
        },
        Scope::Tag(tag) => {
            let mut tags: Vec<String> = rules.rules.iter().flat_map(|rule| &rule.tags).map(ToString::to_string).collect();
            tags.sort();
            tags.dedup();
            match tags.contains(&tag) {
                true => Ok(PauseScope::Tag(Name::from(tag))),
                false => Err(hint("tag", &tag, tags)),
            }
        }
    })
}

/// The scope, if exactly it is paused. A tag may have gone from the rules since.
async fn paused(console: &Console, scope: Scope) -> Result<Result<PauseScope, String>, StoreError> {
    let scope = match scope {
        Scope::All => PauseScope::All,
        Scope::Rule(id) => PauseScope::Rule(Name::from(id)),
        Scope::Tag(tag) => PauseScope::Tag(Name::from(tag)),
        channel @ Scope::Channel(_) => match known(console, channel).await? {
            Ok(scope) => scope,
            Err(why) => return Ok(Err(why)),
        },
    };
    let world = console.world().await?;
    if in_force(&world, &scope).is_some() {
        return Ok(Ok(scope));
    }
    let others: Vec<String> = all_in_force(&world).into_iter().map(|(what, _)| what).collect();
    let others = if others.is_empty() { "nothing is".to_owned() } else { format!("paused: {}", others.join(", ")) };
    Ok(Err(format!("{scope} is not paused; {others}")))
}

async fn status(console: &Console) -> Result<Reply, StoreError> {
    let world = console.world().await?;
    let mut lines = vec![format!("rule set {:016x}", console.rules.snapshot().rules.version)];
    let pauses = all_in_force(&world);
    lines.push(if pauses.is_empty() { "nothing is paused".to_owned() } else { "paused:".to_owned() });
    lines.extend(pauses.into_iter().map(|(what, pause)| format!("  {what} since {}: {}", pause.at, pause.reason)));
    let held: Vec<String> = world
        .rules
        .iter()
        .filter_map(|(rule, state)| state.held.as_ref().map(|held| format!("  rule {rule} since {}: {}", held.at, held.reason)))
        .collect();
    if !held.is_empty() {
        lines.push("held by their brake:".to_owned());
        lines.extend(held);
    }
    let operations = console.store.operations(OPERATIONS_SHOWN).await?;
    if !operations.is_empty() {
        lines.push("done last:".to_owned());
    }
    // what was done to many at once is one line
    for done in operations.chunk_by(|a, b| (a.at, &a.what, &a.by) == (b.at, &b.what, &b.by)) {
        let Some(first) = done.first() else { continue };
        let about = if done.len() == 1 { first.about.clone() } else { format!("{} rules", done.len()) };
        let why = if first.why.is_empty() { String::new() } else { format!(": {}", first.why) };
        lines.push(format!("  {} {about} {} by {}{why}", first.at, first.what, first.by));
    }
    Ok(Reply { lines, ..Reply::default() })
}

async fn release(console: &Console, rule: &str, by: &str) -> Result<Reply, StoreError> {
    let (store, now) = (console.store.as_ref(), console.clock.now());
    let world = console.world().await?;
    let Some(state) = world.rules.get(rule) else {
        let near = nearest(rule, world.rules.keys().map(|id| &**id)).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Ok(Reply::refused(format!("no rule `{rule}` has gone live in this database{near}")));
    };
    let Some(held) = &state.held else {
        return Ok(Reply::refused(format!("{rule} is not held by its brake: nothing to release")));
    };
    store.set_hold(now, rule, None, by).await?;
    // who waits for the rule stands in no list, so everybody is looked at once
    let due = store.make_all_due(now, EVERYBODY_SPREAD_MS).await?;
    console.wake.notify_one();
    let lines = vec![
        format!("{rule} was held since {}: {}", held.at, held.reason),
        format!("released; {due} people are looked at within the next ten minutes"),
    ];
    Ok(Reply { lines, ..Reply::default() })
}

async fn send_test(
    console: &Console,
    rule: &str,
    step: Option<&str>,
    channel: Option<&str>,
    user: &str,
    to: &str,
) -> Result<Reply, StoreError> {
    let channel = match channel.map(|name| Kind::named(name).ok_or(name)) {
        None => None,
        Some(Ok(kind)) => Some(kind),
        Some(Err(name)) => return Ok(Reply::refused(format!("there is no channel `{name}`"))),
    };
    let Some(id) = console.store.find_profile(&Identity::User(Name::from(user))).await? else {
        return Ok(Reply::refused(format!("nobody with the user id `{user}` is in this database")));
    };
    let Some(stored) = console.store.profile(id).await? else { return Ok(Reply::refused(format!("the row of `{user}` is gone"))) };
    let history = console.store.history(id).await?;
    let (snapshot, now) = (console.rules.snapshot(), console.clock.now());
    let picked = match sample::pick(&snapshot.rules, rule, step, channel) {
        Ok(picked) => picked,
        Err(why) => return Ok(Reply::refused(why)),
    };
    let (message, content) = match sample::write(&picked, &snapshot, &stored.profile, &history.events, now) {
        Ok(written) => written,
        Err(why) => return Ok(Reply::refused(format!("template `{}` cannot be written as for `{user}`: {why}", picked.send.template))),
    };
    let about = format!("{} of step {} by {}, in `{}`", picked.send.template, picked.step.id, message.channel, content.locale);
    Ok(match sample::send(&console.channels, &snapshot.rules.policy, &message, &content, &stored.profile, to).await {
        Ok(said) => Reply::done(format!("{about}: {said}")),
        Err(said) => Reply::refused(format!("{about}: {said}")),
    })
}

// -------------------------------------------------------------------------------------------------------------- the socket

/// Where a database's daemon listens for commands.
pub fn socket_path(database: &Path) -> PathBuf {
    let mut beside = database.as_os_str().to_owned();
    beside.push(".sock");
    if beside.len() <= SOCKET_PATH_MAX {
        return PathBuf::from(beside);
    }
    let whole = std::path::absolute(database).unwrap_or_else(|_| database.to_owned());
    let hash = twox_hash::XxHash3_64::oneshot(whole.as_os_str().as_encoded_bytes());
    std::env::temp_dir().join(format!("rekindle-{hash:016x}.sock"))
}

/// Opens the socket. Whoever calls this holds the database's lock, so a socket that is there is left from a process that died.
pub fn bind(database: &Path) -> io::Result<UnixListener> {
    let path = socket_path(database);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // made in a directory that nobody else can enter, so that it is never open to others, not even for a moment
    let directory = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let made = directory.join("s");
    let bound = UnixListener::bind(&made).and_then(|listener| {
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&made, &path)?;
        Ok(listener)
    });
    std::fs::remove_dir_all(&directory)?;
    bound
}

/// Answers commands until told to shut down.
pub async fn listen(listener: UnixListener, console: Arc<Console>, mut shutdown: watch::Receiver<bool>) {
    let router = Router::new().route("/control", post(answer)).with_state(console);
    let ended = axum::serve(listener, router).with_graceful_shutdown(async move {
        // an error means that nobody can tell us any more: end as well
        let _ = shutdown.wait_for(|stop| *stop).await;
    });
    if let Err(error) = ended.await {
        tracing::error!("the socket for commands ended badly: {error}");
    }
}

async fn answer(State(console): State<Arc<Console>>, Json(request): Json<Request>) -> Json<Result<Reply, String>> {
    Json(handle(&console, request).await.map_err(|error| error.to_string()))
}

/// Gives a command to the daemon that has this database.
pub async fn ask(database: &Path, request: &Request) -> anyhow::Result<Reply> {
    use anyhow::Context as _;
    let path = socket_path(database);
    let client = reqwest::Client::builder().unix_socket(path.clone()).build().context("cannot make a client")?;
    let sent = client.post("http://localhost/control").json(request).send().await;
    let answer = sent.with_context(|| {
        format!(
            "the database is in use by another process, which takes no commands at `{}`: is it a `rekindle serve` of this user?",
            path.display()
        )
    })?;
    let answer: Result<Reply, String> = answer.error_for_status()?.json().await.context("the daemon's answer is not understood")?;
    answer.map_err(|error| anyhow::anyhow!(error))
}
