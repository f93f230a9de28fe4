//! Events in over HTTP, by Segment's tracking API as its SDKs and RudderStack's speak it, and people read back.
//!
//! | route | |
//! |---|---|
//! | `POST /v1/batch` (`/v1/b`, `/v1/import`) | a list of messages |
//! | `POST /v1/track` ... (`/v1/t` ...) | one message: `track`, `identify`, `page`, `screen`, `group`, `alias`, `consent` |
//! | `GET /v1/profiles/{id}` | what the shop has for a person ([`profile`]) |
//!
//! **Durable before the answer**: 200 says that everything in the batch is on disk, each message as an event or, with its reason, among
//! the rejects. A bad message never spoils the others, because SDKs drop a whole batch on 400. When there is too much at once or
//! the disk is full the answer is 429 or 503, on which they send the same ids again, and nothing counts twice. Requests that come
//! in together share a commit.
//!
//! Bounded: a request in size, packed and unpacked ([`body`]); requests under way in number; what is logged of bad ones in lines a second.

mod answer;
mod body;
pub mod keys;
mod profile;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{Notify, Semaphore};
use utoipa::OpenApi;

use self::answer::{Refusal, RejectedMessage, Taken};
use self::body::Text;
use self::keys::{Bearer, Keys};
use super::wire::{self, Call, Origin, Received};
use crate::clock::Clock;
use crate::engine::profile::Name;
use crate::engine::time::{SECOND_MS, Timestamp, Zone};
use crate::faults::Point;
use crate::store::{KeyScope, NewEvent, Reject, Store};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{ByResult, ByStatus};
use crate::versions::RuleVersions;

/// Requests that are read or wait for their commit at once; a further one is told to come back. Each may hold half a megabyte.
const UNDER_WAY_MAX: usize = 128;
/// Requests of up to so many bytes are read where they are.
const INLINE_BYTES_MAX: usize = 4 << 10;

/// What the door works with.
pub struct Ingest {
    store: Arc<dyn Store>,
    rules: Arc<RuleVersions>,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    /// Woken when events have come in.
    wake: Arc<Notify>,
    future_tolerance_ms: i64,
    keys: Keys,
    places: Semaphore,
    /// Where large requests are read.
    desks: Semaphore,
    /// Lines about requests that were refused, about messages that were, and about our own failures.
    refused_lines: LogBudget,
    rejected_lines: LogBudget,
    failed_lines: LogBudget,
}

/// The services that the door needs, and how it is set up.
pub struct Setup {
    pub store: Arc<dyn Store>,
    pub rules: Arc<RuleVersions>,
    pub clock: Arc<dyn Clock>,
    pub telemetry: Arc<Telemetry>,
    /// Woken when events have come in: whoever evaluates.
    pub wake: Arc<Notify>,
    /// `ingest.future_tolerance_seconds`.
    pub future_tolerance: Duration,
    /// So long what is known of keys is not read again; [`keys::FRESH`].
    pub keys_fresh: Duration,
}

impl Ingest {
    pub fn new(setup: Setup) -> Self {
        let Setup { store, rules, clock, telemetry, wake, future_tolerance, keys_fresh } = setup;
        let future_tolerance_ms = i64::try_from(future_tolerance.as_millis()).unwrap_or(i64::MAX / 4);
        let keys = Keys::new(store.clone(), keys_fresh);
        let places = Semaphore::new(UNDER_WAY_MAX);
        let desks = Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from));
        Ingest {
            store,
            rules,
            clock,
            telemetry,
            wake,
            future_tolerance_ms,
            keys,
            places,
            desks,
            refused_lines: LogBudget::default(),
            rejected_lines: LogBudget::default(),
            failed_lines: LogBudget::default(),
        }
    }
}

/// Paths of single calls: by name, and by their first letter as browsers say them.
const CALLS: [(&str, Call); 13] = [
    ("/v1/track", Call::Track),
    ("/v1/t", Call::Track),
    ("/v1/identify", Call::Identify),
    ("/v1/i", Call::Identify),
    ("/v1/page", Call::Page),
    ("/v1/p", Call::Page),
    ("/v1/screen", Call::Screen),
    ("/v1/s", Call::Screen),
    ("/v1/group", Call::Group),
    ("/v1/g", Call::Group),
    ("/v1/alias", Call::Alias),
    ("/v1/a", Call::Alias),
    ("/v1/consent", Call::Consent),
];
const BATCHES: [&str; 3] = ["/v1/batch", "/v1/b", "/v1/import"];

/// The routes of events and people.
pub fn router(ingest: Arc<Ingest>) -> Router {
    let batches = BATCHES.into_iter().fold(Router::new(), |router, path| router.route(path, post(batch)));
    let one =
        |call| post(move |State(ingest): State<Arc<Ingest>>, request: Request| async move { take(&ingest, Some(call), request).await });
    let writing = CALLS.into_iter().fold(batches, |router, (path, call)| router.route(path, one(call)));
    writing
        .layer(middleware::from_fn(open_to_browsers))
        .route("/v1/profiles/{id}", get(profile::read))
        .layer(middleware::from_fn_with_state(ingest.clone(), count))
        .with_state(ingest)
}

/// What these routes are, for programs that read it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut api = Api::openapi();
    // every call's own path is described as `track` is
    if let Some(track) = api.paths.paths.get("/v1/track").cloned() {
        for (path, call) in CALLS.iter().filter(|(path, call)| *call != Call::Track && path.len() > "/v1/t".len()) {
            let mut item = track.clone();
            if let Some(operation) = item.post.as_mut() {
                operation.operation_id = Some(call.name().to_owned());
                operation.summary = Some(format!("Send one `{}` message", call.name()));
            }
            api.paths.paths.insert((*path).to_owned(), item);
        }
    }
    api
}

#[derive(OpenApi)]
#[openapi(
    paths(batch_documented, track_documented, profile::read),
    components(schemas(answer::Refused, answer::Taken, answer::RejectedMessage)),
    modifiers(&Security)
)]
struct Api;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        if let Some(components) = openapi.components.as_mut() {
            let scheme = |scheme| SecurityScheme::Http(Http::new(scheme));
            components.add_security_scheme("key", scheme(HttpAuthScheme::Basic));
            components.add_security_scheme("bearer", scheme(HttpAuthScheme::Bearer));
        }
    }
}

async fn batch(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    take(&ingest, None, request).await
}

// --------------------------------------------------------------------------------------------------------------- events

async fn take(ingest: &Arc<Ingest>, call: Option<Call>, request: Request) -> Response {
    match receive(ingest, call, request).await {
        Ok(taken) => taken.into_response(),
        Err(refusal) => {
            ingest.tell_of(&refusal);
            refusal.into_response()
        }
    }
}

async fn receive(ingest: &Arc<Ingest>, call: Option<Call>, request: Request) -> Result<Taken, Refusal> {
    let (head, body) = request.into_parts();
    let in_head = match keys::presented(&head.headers) {
        Some(key) => Some(ingest.admit(&key).await?),
        None => None,
    };
    let bytes = body::read(&head.headers, body).await?;
    // only now: whoever sends slowly holds no place
    let _place = ingest.places.try_acquire().map_err(|_| Refusal::Busy)?;
    let bearer = match in_head {
        Some(bearer) => bearer,
        None => ingest.admit(&body::write_key(&bytes, call).ok_or(Refusal::NoKey)?).await?,
    };
    let sorted = sort_aside(ingest, &bearer.source, call, bytes).await?;
    ingest.keep(&bearer.source, sorted).await
}

/// Reads the messages. A full batch takes a millisecond and more: that is done on threads that may be busy, as many at once as there are
/// cores, so that whoever asks for a person meanwhile is answered. For a small one the way there would cost more.
async fn sort_aside(ingest: &Arc<Ingest>, source: &Name, call: Option<Call>, bytes: Vec<u8>) -> Result<Sorted, Refusal> {
    if bytes.len() <= INLINE_BYTES_MAX {
        return ingest.sort(source, call, &bytes);
    }
    let _desk = ingest.desks.acquire().await;
    let work = tokio::task::spawn_blocking({
        let (ingest, source) = (ingest.clone(), source.clone());
        move || ingest.sort(&source, call, &bytes)
    });
    match work.await {
        Ok(sorted) => sorted,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

/// The messages of a request, each an event or refused.
struct Sorted {
    events: Vec<NewEvent>,
    rejects: Vec<Reject>,
    rejected: Vec<RejectedMessage>,
}

impl Ingest {
    /// Whose key it is, if it may send.
    async fn admit(&self, key: &str) -> Result<Bearer, Refusal> {
        let bearer = self.keys.recognise(key).await?.ok_or(Refusal::UnknownKey)?;
        match bearer.scope {
            KeyScope::Write => Ok(bearer),
            KeyScope::Read => Err(Refusal::WrongScope("reading people, not for sending events")),
        }
    }

    fn sort(&self, source: &Name, call: Option<Call>, bytes: &[u8]) -> Result<Sorted, Refusal> {
        let text = Text::of(bytes);
        let messages = text.messages(call)?;
        let (now, rules) = (self.clock.now(), self.rules.snapshot().rules);
        let sent_at = messages.sent_at.as_deref().and_then(|sent_at| wire::instant(sent_at, &Zone::UTC));
        let skew_ms = sent_at.map_or(0, |sent_at| wire::skew_ms(sent_at, now));
        let received = Received::Live { at: now, skew_ms, future_tolerance_ms: self.future_tolerance_ms };
        let zone = rules.policy.zone.last.clone();
        let origin = Origin { zone, currency: rules.dictionary.currency, ..Origin::new(source, received) };
        let mut sorted = Sorted { events: Vec::with_capacity(messages.rows.len()), rejects: Vec::new(), rejected: Vec::new() };
        for (index, row) in messages.rows.iter().enumerate() {
            let read = match text.spoiled(row) {
                Some(reason) => Err(reason),
                None => wire::message(row.as_bytes(), call, &origin),
            };
            match read {
                Ok(incoming) => sorted.events.extend(incoming.into_new(&rules.dictionary)),
                Err(reason) => {
                    sorted.rejects.push(Reject::of(source, reason.clone(), row, now));
                    sorted.rejected.push(RejectedMessage { index, reason });
                }
            }
        }
        Ok(sorted)
    }

    /// Puts everything on disk, then says so.
    async fn keep(&self, source: &Name, sorted: Sorted) -> Result<Taken, Refusal> {
        let Sorted { events, rejects, rejected } = sorted;
        Point::IngestReceived.reach();
        if !rejects.is_empty() {
            self.store.keep_rejects(rejects).await.map_err(|error| self.failed(error))?;
        }
        let appended = if events.is_empty() {
            Default::default()
        } else {
            self.store.append_events(events).await.map_err(|error| self.failed(error))?
        };
        Point::IngestAppended.reach();
        self.wake.notify_one();
        let metrics = &self.telemetry.metrics.events;
        for (result, count) in [("new", appended.new), ("duplicate", appended.duplicates), ("rejected", rejected.len() as u64)] {
            if count > 0 {
                metrics.get_or_create(&ByResult { source: source.to_string(), result: result.into() }).inc_by(count);
            }
        }
        if !rejected.is_empty()
            && let Some(unsaid) = self.rejected_lines.spend(self.clock.now())
        {
            let rejected_count = rejected.len();
            tracing::warn!(source = %source, rejected_count, unsaid_count = unsaid, "messages were no events; `rekindle rejects` shows them");
        }
        Ok(Taken { success: true, accepted: appended.new, duplicates: appended.duplicates, rejected })
    }

    fn failed(&self, error: crate::store::StoreError) -> Refusal {
        if let Some(unsaid) = self.failed_lines.spend(self.clock.now()) {
            tracing::error!(unsaid_count = unsaid, "events cannot be kept, senders are told to come back: {error}");
        }
        Refusal::from(error)
    }

    fn tell_of(&self, refusal: &Refusal) {
        if let Some(unsaid) = self.refused_lines.spend(self.clock.now()) {
            tracing::warn!(http.status = refusal.status().as_u16(), code = refusal.code(), unsaid_count = unsaid, "a request was refused");
        }
    }
}

/// Bad requests can come by the thousand: one line a second tells of them, and how many it does not tell of.
#[derive(Default)]
struct LogBudget {
    said_at_ms: AtomicI64,
    unsaid: AtomicU64,
}

impl LogBudget {
    /// How many were not told of since the last line, if this one may be.
    fn spend(&self, now: Timestamp) -> Option<u64> {
        let said_at = self.said_at_ms.load(Ordering::Relaxed);
        let is_due = (now.as_ms() - said_at).abs() >= SECOND_MS;
        let is_ours = is_due && self.said_at_ms.compare_exchange(said_at, now.as_ms(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_ours {
            return Some(self.unsaid.swap(0, Ordering::Relaxed));
        }
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

// ------------------------------------------------------------------------------------------------------------- around them

async fn count(State(ingest): State<Arc<Ingest>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let answered = ByStatus { route, status: response.status().as_u16() };
    ingest.telemetry.metrics.requests.get_or_create(&answered).inc();
    response
}

/// Pages of any shop may send events: a write key is no secret there, and opens nothing but this door.
async fn open_to_browsers(request: Request, next: Next) -> Response {
    let is_question = request.method() == Method::OPTIONS;
    let is_browser = request.headers().contains_key(header::ORIGIN);
    let mut response = if is_question { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if is_browser {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if is_question {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("authorization, content-type, content-encoding, anonymousid"),
            );
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        }
    }
    response
}

// ---------------------------------------------------------------------------------------------------------- their description

/// A request as it may look.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "a shape for the description: what is read is `body::Messages`")]
struct Batch {
    /// Messages in the shape of Segment's specification: `{"type": "track", "messageId": "...", "userId": "...", "event": "Order Completed",
    /// "properties": {...}}`. Each is judged by itself.
    batch: Vec<serde_json::Value>,
    /// When the sender sent it, by its own clock (RFC 3339): sets `timestamp` right if that clock is wrong.
    #[schema(rename = "sentAt")]
    sent_at: Option<serde_json::Value>,
    /// The key, where there is no header for it.
    #[schema(rename = "writeKey")]
    write_key: Option<serde_json::Value>,
}

/// One message in the shape of Segment's specification; its type is the path's. Whatever is no event is answered with its reason.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "a shape for the description: what is read is `wire`'s")]
struct Message {
    /// Whom it is about; or `anonymousId`.
    #[schema(rename = "userId")]
    user_id: Option<serde_json::Value>,
    #[schema(rename = "anonymousId")]
    anonymous_id: Option<serde_json::Value>,
    /// Makes the message unique: sent again, it changes nothing.
    #[schema(rename = "messageId")]
    message_id: Option<serde_json::Value>,
    /// When it happened; none: now.
    timestamp: Option<serde_json::Value>,
}

/// What a sender is told whose request was not taken.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "a list for the description: what is answered is `Refusal`'s")]
enum TurnedAway {
    /// Nothing of it can ever be read
    #[response(status = 400)]
    Unreadable(answer::Refused),
    /// No key, or an unknown one
    #[response(status = 401)]
    Stranger(answer::Refused),
    /// The key is for something else
    #[response(status = 403)]
    WrongKey(answer::Refused),
    /// More than 500 KiB, packed or unpacked
    #[response(status = 413)]
    TooLarge(answer::Refused),
    /// Packed in an unknown way
    #[response(status = 415)]
    Packed(answer::Refused),
    /// Too much at once: send it again
    #[response(status = 429)]
    Busy(answer::Refused),
    /// The disk is full, or the database does not answer: send it again
    #[response(status = 503)]
    Unavailable(answer::Refused),
}

/// Send messages
///
/// 200 says that all of them are on disk, as events or among the rejects.
#[utoipa::path(post, path = "/v1/batch", tag = "events", operation_id = "batch", request_body = Batch, security(("key" = [])), responses(
    (status = 200, description = "All of it is on disk", body = Taken), TurnedAway
))]
#[expect(dead_code, reason = "carries the description of `batch`")]
fn batch_documented() {}

/// Send one `track` message
///
/// Any JSON is read; what is no message is kept among the rejects and named in the answer.
#[utoipa::path(post, path = "/v1/track", tag = "events", operation_id = "track", request_body = Message, security(("key" = [])), responses(
    (status = 200, description = "It is on disk", body = Taken), TurnedAway
))]
#[expect(dead_code, reason = "carries the description of the single calls")]
fn track_documented() {}
