//! `serve`: the daemon. One process runs the services over one store; which ones is said by [`Roles`]. They meet in tables; what passes
//! between them here is only "look now".
//!
//! **Start**: settings, rules, database, in this order, so that what can be wrong is told before anything is touched. Rules on disk with
//! errors do not stop a database that has rules: those stand, loudly. **Stop**: on SIGTERM or Ctrl-C the process says that it is not
//! ready, takes no new work, ends what is under way for `serve.drain_seconds` at most, and leaves the rest as it honestly is: due,
//! queued, or `sending` (which the next start records as unknown).

pub mod api;
mod http;
pub mod reload;
mod renew;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use self::renew::Renewal;
use crate::audit::{self, Auditor};
use crate::channel::recording::{self, Recording, Shares};
use crate::channel::{self, Channel, Channels};
use crate::clock::{Clock, SystemClock};
use crate::console::{self, Console, control};
use crate::dispatch::{self, Dispatcher};
use crate::engine::action::Channel as Kind;
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::evaluate::{self, Evaluator};
use crate::feedback;
use crate::feedback::http::Partners;
use crate::ingest;
use crate::retention;
use crate::settings::Settings;
use crate::store::{Call, Restored, Store};
use crate::telemetry::Telemetry;
use crate::telemetry::vitals::Part;
use crate::versions::RuleVersions;
use crate::versions::publisher::Publisher;

/// Which services this process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    /// Events in over HTTP, and reading back.
    Ingest,
    /// Decisions, and what is removed when its time is over.
    Evaluate,
    /// Messages out.
    Dispatch,
    /// What providers and people answer.
    Feedback,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Ingest, Role::Evaluate, Role::Dispatch, Role::Feedback];
}

/// Runs the daemon until `stop` resolves. `by`: who stands beside rules that change on disk; none: the owner of the files.
///
/// # Errors
/// It cannot start: the database cannot be opened, the address is taken, there are no rules to go by.
pub async fn run(settings: Settings, roles: &[Role], by: Option<String>, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    if !cfg!(feature = "nats") && settings.nats.url.is_some() {
        anyhow::bail!("`nats.url` is set, and this program cannot read from NATS: build it with `--features nats`");
    }
    let daemon = Daemon::start(settings, by).await?;
    let listener = TcpListener::bind(&daemon.settings.http.listen)
        .await
        .with_context(|| format!("cannot listen on `{}` (http.listen)", daemon.settings.http.listen))?;
    tracing::info!(http.address = %listener.local_addr()?, roles = ?roles, "serving");
    daemon.run(listener, roles, stop).await
}

/// Everything that is up before the first request.
struct Daemon {
    settings: Settings,
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    rules: Arc<RuleVersions>,
    channels: Channels,
    /// Messages that are written to files instead of sent, if any channel does so.
    recording: Option<Arc<Recording>>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
}

impl Daemon {
    async fn start(settings: Settings, by: Option<String>) -> anyhow::Result<Daemon> {
        let store = settings.database.place().open(&settings.environment, Some(settings.capacity())).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        if let Some(Restored { taken_at, messages }) = store.after_restore(clock.now()).await? {
            tracing::warn!(
                message.count = messages,
                "started on a backup of {taken_at}: everything is paused, and what was still to go out then is unknown; `rekindle resume` \
                 shows what would go on"
            );
        }
        let telemetry = Arc::new(Telemetry::default());
        let directory = settings.rules.directory.clone();
        let mut publisher = Publisher::new(store.clone(), directory, clock.clone(), telemetry.clone(), by);
        let rules = publisher.start().await?;
        telemetry.vitals.well(Part::Rules);
        let publisher = Arc::new(publisher);
        let (channels, recording) = channels(&settings, store.as_ref(), &rules, &telemetry, clock.now()).await?;
        Ok(Daemon { settings, store, publisher, rules, channels, recording, clock, telemetry })
    }

    async fn run(self, listener: TcpListener, roles: &[Role], stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (stopping, shutdown) = watch::channel(false);
        let drain = Duration::from_secs(self.settings.serve.drain_seconds);
        let (evaluate_wake, dispatch_wake) = (self.publisher.wake.clone(), Arc::new(Notify::new()));
        let store = self.store.clone();
        let worker = Name::from(format!("{}-{}", self.settings.environment, std::process::id()));
        let mut tasks = JoinSet::new();
        let (renewable, recording) = (self.channels.clone(), self.recording.clone());

        if roles.contains(&Role::Evaluate) {
            let evaluator = Evaluator { store: store.clone(), rules: self.rules.clone(), worker: worker.clone() };
            let (clock, telemetry, batch) = (self.clock.clone(), self.telemetry.clone(), self.settings.evaluate.batch);
            let (wake, next, shutdown) = (evaluate_wake.clone(), dispatch_wake.clone(), shutdown.clone());
            tasks.spawn(async move {
                let signals = evaluate::Signals { wake: &wake, next: &next, shutdown };
                evaluate::run(&evaluator, clock.as_ref(), batch, &telemetry, signals).await;
            });
        }
        if roles.contains(&Role::Evaluate) {
            let schedule = self.settings.retention;
            tasks.spawn(retention::run(store.clone(), schedule, self.clock.clone(), self.telemetry.clone(), shutdown.clone()));
        }
        if roles.contains(&Role::Dispatch) {
            let dispatcher = Dispatcher::new(store.clone(), self.rules.clone(), self.channels.clone(), worker);
            let (clock, telemetry, batch) = (self.clock.clone(), self.telemetry.clone(), self.settings.dispatch.batch);
            let (wake, next, shutdown) = (dispatch_wake.clone(), evaluate_wake.clone(), shutdown.clone());
            tasks.spawn(async move {
                let signals = dispatch::Signals { wake: &wake, next: &next, shutdown };
                dispatch::run(&dispatcher, clock.as_ref(), batch, &telemetry, signals).await;
            });
        }
        if roles.contains(&Role::Evaluate) {
            let auditor = Auditor { store: store.clone(), rules: self.rules.clone(), clock: self.clock.clone() };
            let (people, telemetry, shutdown) = (self.settings.audit.people_per_second, self.telemetry.clone(), shutdown.clone());
            tasks.spawn(async move { audit::run(&auditor, people, &telemetry, shutdown).await });
        }
        if let Some(recording) = self.recording {
            let (store, clock, wake, shutdown) = (store.clone(), self.clock.clone(), evaluate_wake.clone(), shutdown.clone());
            tasks.spawn(async move { play_receipts(&recording, store.as_ref(), clock.as_ref(), &wake, shutdown).await });
        }
        tasks.spawn(hear(store.clone(), evaluate_wake.clone(), dispatch_wake.clone(), shutdown.clone()));
        tasks.spawn({
            let (publisher, directory) = (self.publisher.clone(), self.settings.rules.directory.clone());
            let shutdown = shutdown.clone();
            async move { reload::run(&publisher, &directory, shutdown).await }
        });
        let console = Arc::new(Console {
            store: store.clone(),
            clock: self.clock.clone(),
            rules: self.rules.clone(),
            publisher: self.publisher,
            channels: self.channels,
            telemetry: self.telemetry.clone(),
            wake: evaluate_wake.clone(),
        });
        // whoever may open a server's database gives commands there
        let place = self.settings.database.place();
        if let Some(database) = place.file() {
            let commands = control::bind(database).context("cannot open the socket for operators' commands")?;
            tasks.spawn(control::listen(commands, console.clone(), shutdown.clone()));
        }
        let mut router = Router::new().merge(console::router(console)).merge(api::router());
        if roles.contains(&Role::Ingest) {
            let ingest = ingest::http::Setup {
                store: store.clone(),
                rules: self.rules.clone(),
                clock: self.clock.clone(),
                telemetry: self.telemetry.clone(),
                wake: evaluate_wake.clone(),
                future_tolerance: Duration::from_secs(self.settings.ingest.future_tolerance_seconds),
                keys_fresh: ingest::http::keys::FRESH,
            };
            router = router.merge(ingest::http::router(Arc::new(ingest::http::Ingest::new(ingest))));
            #[cfg(feature = "nats")]
            if self.settings.nats.url.is_some() {
                let reader = ingest::nats::Reader {
                    store: store.clone(),
                    rules: self.rules.clone(),
                    telemetry: self.telemetry.clone(),
                    wake: evaluate_wake.clone(),
                    settings: self.settings.nats.clone(),
                    future_tolerance: Duration::from_secs(self.settings.ingest.future_tolerance_seconds),
                    ack_wait: ingest::nats::ACK_WAIT,
                };
                let shutdown = shutdown.clone();
                tasks.spawn(async move { ingest::nats::run(&reader, shutdown).await });
            }
        }
        let partners = Partners::of(&self.settings).map_err(anyhow::Error::msg)?;
        let partners = Arc::new(ArcSwap::from_pointee(partners));
        if roles.contains(&Role::Feedback) {
            router = router.merge(feedback::http::router(Arc::new(feedback::http::Feedback {
                store: store.clone(),
                clock: self.clock.clone(),
                telemetry: self.telemetry.clone(),
                partners: partners.clone(),
                wake: evaluate_wake.clone(),
            })));
        }
        let renewal = Renewal {
            settings: self.settings.clone(),
            // a copy only records, whatever the file says
            channels: (!renewable.is_fixed(Kind::Email)).then_some((renewable, recording)),
            partners,
            rules: self.rules.clone(),
            telemetry: self.telemetry.clone(),
        };
        tasks.spawn(renew::run(renewal, shutdown.clone()));
        let http = self.settings.http.clone();
        tasks.spawn(async move { http::listen(listener, router, &http, drain, shutdown).await });

        stop.await;
        tracing::info!("shutting down: no new work is taken, what is under way ends first");
        self.telemetry.vitals.ill(Part::Process, "shutting down");
        stopping.send_replace(true);
        if tokio::time::timeout(drain, ended(&mut tasks)).await.is_err() {
            tracing::warn!("the time to drain is over: what is still being sent is recorded as unknown at the next start");
            tasks.shutdown().await;
        }
        if let Some(database) = place.file()
            && let Err(error) = std::fs::remove_file(control::socket_path(database))
        {
            tracing::warn!("cannot remove the socket for commands: {error}");
        }
        drop(store);
        self.store.close().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits for every task; one that panicked is told.
async fn ended(tasks: &mut JoinSet<()>) {
    while let Some(task) = tasks.join_next().await {
        if let Err(error) = task {
            tracing::error!("a service ended badly: {error}");
        }
    }
}

/// The ways out. A database that belongs to another environment writes to files whatever the policy says.
async fn channels(
    settings: &Settings,
    store: &dyn Store,
    rules: &RuleVersions,
    telemetry: &Telemetry,
    now: Timestamp,
) -> anyhow::Result<(Channels, Option<Arc<Recording>>)> {
    let belongs_to = store.environment().await?;
    if belongs_to != settings.environment {
        tracing::warn!(
            "this database belongs to the environment `{belongs_to}` and was opened as `{}`: messages are written to `{}` and not sent",
            settings.environment,
            settings.recording.directory.display()
        );
        let note =
            format!("this database belongs to `{belongs_to}` and is open as `{}`: messages are recorded, not sent", settings.environment);
        telemetry.vitals.note(Part::Environment, Some(note));
        let recording = open_recording(settings, now)?;
        let all = Kind::ALL.into_iter().map(|kind| (kind, recording.clone() as Arc<dyn Channel>)).collect();
        return Ok((Channels::fixed(all), Some(recording)));
    }
    for finding in channel::lacking(settings, &rules.snapshot().rules) {
        tracing::error!("{}; {}", finding.message, finding.help.unwrap_or_default());
    }
    // a changed policy may name it at any time
    let recording = open_recording(settings, now)?;
    let channels = Channels::from(settings, Some(recording.clone())).context("the providers cannot be set up")?;
    Ok((channels, Some(recording)))
}

fn open_recording(settings: &Settings, now: Timestamp) -> anyhow::Result<Arc<Recording>> {
    let sender = "The shop <shop@shop.example>".parse().context("the recording channel's sender")?;
    let options = recording::Options { form: recording::Form::Files, shares: Shares::ALL_DELIVERED, sender };
    Ok(Arc::new(Recording::open(&settings.recording.directory, options, now)?))
}

/// Wakes whom other processes have made work for.
async fn hear(store: Arc<dyn Store>, evaluate: Arc<Notify>, dispatch: Arc<Notify>, mut shutdown: watch::Receiver<bool>) {
    while !*shutdown.borrow() {
        tokio::select! {
            call = store.called() => match call {
                Call::People => evaluate.notify_one(),
                Call::Messages => dispatch.notify_one(),
            },
            _ = shutdown.changed() => {}
        }
    }
}

/// Takes the played receipts of recorded messages in as if a provider had sent them.
async fn play_receipts(recording: &Recording, store: &dyn Store, clock: &dyn Clock, wake: &Notify, mut shutdown: watch::Receiver<bool>) {
    while !*shutdown.borrow() {
        let receipts = recording.receipts_until(clock.now());
        match dispatch::record_receipts(store, &receipts).await {
            Ok(0) => {}
            Ok(_) => wake.notify_one(),
            Err(error) => tracing::error!("cannot take in receipts of recorded messages: {error}"),
        }
        tokio::select! {
            () = tokio::time::sleep(RECEIPTS_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
}

const RECEIPTS_EVERY: Duration = Duration::from_secs(1);
