//! Events from NATS JetStream: a shop that has a stream of everything that happens lets us read along. The stream is a way of transport and
//! not the record: a message is acknowledged when its event is on disk, so what a crash cuts off comes again, and what comes again is
//! known by its id and changes nothing.
//!
//! Each message is one message as over HTTP (`wire`). What is no event is kept among the rejects with its reason and acknowledged: it
//! would be none the next time either. While the store cannot write, nothing is acknowledged and nothing is fetched.

use std::sync::Arc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt as _;
use tokio::sync::{Notify, watch};

use super::wire::{self, Origin, Received};
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::settings::NatsSettings;
use crate::store::{NewEvent, Reject, Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::ByResult;
use crate::telemetry::vitals::Part;
use crate::versions::RuleVersions;

/// What is not acknowledged for so long comes again. Longer than any commit takes.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// A message is waited for so long before we look anew.
const WAIT: Duration = Duration::from_secs(1);
/// After a failure the next try waits.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What reading along works with.
pub struct Reader {
    pub store: Arc<dyn Store>,
    pub rules: Arc<RuleVersions>,
    pub telemetry: Arc<Telemetry>,
    /// Woken when events have come in.
    pub wake: Arc<Notify>,
    pub settings: NatsSettings,
    pub future_tolerance: Duration,
    /// [`ACK_WAIT`].
    pub ack_wait: Duration,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    #[error("NATS: {0}")]
    Nats(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn nats(error: impl std::fmt::Display) -> NatsError {
    NatsError::Nats(error.to_string())
}

/// Reads along until told to shut down. A server that is not there is waited for.
pub async fn run(reader: &Reader, mut shutdown: watch::Receiver<bool>) {
    let mut consumer: Option<PullConsumer> = None;
    while !*shutdown.borrow() {
        let pass = async {
            let place = match consumer.take() {
                Some(place) => place,
                None => reader.open().await?,
            };
            let taken = reader.run_once(&place).await?;
            consumer = Some(place);
            Ok::<u64, NatsError>(taken)
        };
        // dropped half done it has acknowledged nothing that is not on disk
        let pass = tokio::select! {
            pass = pass => pass,
            _ = shutdown.changed() => continue,
        };
        match pass {
            Ok(taken) => {
                reader.telemetry.vitals.well(Part::Nats);
                if taken > 0 {
                    reader.wake.notify_one();
                }
            }
            Err(error) => {
                tracing::error!("cannot read along, trying again: {error}");
                reader.telemetry.vitals.ill(Part::Nats, &error);
                reader.telemetry.metrics.failures.get_or_create(&"nats".into()).inc();
                tokio::select! {
                    () = tokio::time::sleep(AFTER_FAILURE) => {}
                    _ = shutdown.changed() => {}
                }
            }
        }
    }
}

impl Reader {
    /// Finds our place in the stream, or makes one at its beginning.
    ///
    /// # Errors
    /// The server does not answer, does not know the credentials, or has no such stream.
    pub async fn open(&self) -> Result<PullConsumer, NatsError> {
        let NatsSettings { url, stream, consumer, batch, credentials, .. } = &self.settings;
        let options = match credentials {
            Some(credentials) => ConnectOptions::with_credentials(credentials.reveal()).map_err(nats)?,
            None => ConnectOptions::new(),
        };
        let client = options.name("rekindle").connect(url.as_deref().unwrap_or_default()).await.map_err(nats)?;
        let stream = jetstream::new(client).get_stream(stream).await.map_err(nats)?;
        let config = pull::Config {
            durable_name: Some(consumer.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            // bounded: the server holds the rest
            max_ack_pending: i64::try_from(4 * batch).unwrap_or(i64::MAX),
            ..pull::Config::default()
        };
        stream.get_or_create_consumer(consumer, config).await.map_err(nats)
    }

    /// One batch: fetched, on disk, acknowledged; how many events were new.
    ///
    /// # Errors
    /// Nothing of it is acknowledged, and all of it comes again.
    pub async fn run_once(&self, consumer: &PullConsumer) -> Result<u64, NatsError> {
        let messages = self.fetch(consumer).await?;
        let new = self.keep(&messages).await?;
        for message in &messages {
            // one that gets lost on its way back is a message that comes again
            message.ack().await.map_err(nats)?;
        }
        Ok(new)
    }

    /// What there is now; if there is nothing, the next message, which is waited for.
    pub async fn fetch(&self, consumer: &PullConsumer) -> Result<Vec<Message>, NatsError> {
        let there = all(consumer.fetch().max_messages(self.settings.batch).messages().await.map_err(nats)?).await?;
        if !there.is_empty() {
            return Ok(there);
        }
        all(consumer.batch().max_messages(1).expires(WAIT).messages().await.map_err(nats)?).await
    }

    /// Puts everything on disk, as events or among the rejects; how many events were new.
    pub async fn keep(&self, messages: &[Message]) -> Result<u64, NatsError> {
        let rules = self.rules.snapshot().rules;
        let source = Name::from(self.settings.source.as_str());
        let (mut events, mut rejects): (Vec<NewEvent>, Vec<Reject>) = (Vec::new(), Vec::new());
        for message in messages {
            let at = published(message)?;
            match wire::message(&message.payload, None, &self.origin(&source, at)) {
                Ok(incoming) => events.extend(incoming.into_new(&rules.dictionary)),
                Err(reason) => {
                    let text = String::from_utf8_lossy(&message.payload);
                    rejects.push(Reject::of(&source, reason, &text, at));
                }
            }
        }
        let rejected = rejects.len() as u64;
        if rejected > 0 {
            self.store.keep_rejects(rejects).await?;
            tracing::warn!(source = %source, rejected_count = rejected, "messages were no events; `rekindle rejects` shows them");
        }
        let appended = if events.is_empty() { Default::default() } else { self.store.append_events(events).await? };
        let figure = &self.telemetry.metrics.events;
        for (result, count) in [("new", appended.new), ("duplicate", appended.duplicates), ("rejected", rejected)] {
            if count > 0 {
                figure.get_or_create(&ByResult { source: source.to_string(), result: result.into() }).inc_by(count);
            }
        }
        Ok(appended.new)
    }

    /// Received when the stream took it, however often it is delivered: what comes again has the same instants, and is known.
    fn origin(&self, source: &Name, at: Timestamp) -> Origin {
        let rules = self.rules.snapshot().rules;
        let future_tolerance_ms = i64::try_from(self.future_tolerance.as_millis()).unwrap_or(i64::MAX / 4);
        let received = Received::Live { at, skew_ms: 0, future_tolerance_ms };
        Origin { zone: rules.policy.zone.last.clone(), currency: rules.dictionary.currency, ..Origin::new(source, received) }
    }
}

async fn all(mut arriving: pull::Batch) -> Result<Vec<Message>, NatsError> {
    let mut messages = Vec::new();
    while let Some(message) = arriving.next().await {
        messages.push(message.map_err(nats)?);
    }
    Ok(messages)
}

fn published(message: &Message) -> Result<Timestamp, NatsError> {
    let published = message.info().map_err(nats)?.published;
    let ms = i64::try_from(published.unix_timestamp_nanos() / 1_000_000).map_err(nats)?;
    Ok(Timestamp::from_ms(ms))
}
