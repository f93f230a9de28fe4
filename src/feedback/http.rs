//! What comes back over HTTP: providers' callbacks, and people who unsubscribe or choose.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /callbacks/{provider}/{token}` | a provider reports; proved by token and signature before anything is read |
//! | `GET /callbacks/{provider}/{token}` | answers the challenge by which Meta tests an address |
//! | `POST /u/{token}` | unsubscribes at once (RFC 8058), without login, cookie or question |
//! | `GET /u/{token}` | asks: a scanner that opens links changes nothing |
//! | `GET`, `POST /p/{token}` | shows and takes what a person chooses |
//!
//! What is refused has changed nothing and tells nothing; what is answered with 200 is on disk.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;
use tokio::sync::Notify;
use url::Url;
use utoipa::{IntoParams, OpenApi};

use super::callback::read;
use super::page;
use super::preferences::{self, Preferences};
use super::record::record;
use super::signature::{Call, Verifier, is_one_of};
use crate::channel;
use crate::channel::callback::{Callback, Scheme};
use crate::clock::Clock;
use crate::engine::action::Channel;
use crate::links::{Links, Purpose};
use crate::settings::{self, Secret, Settings};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::ByResult;

/// The largest batches (SendGrid's) have 768 kB.
pub const CALLBACK_BYTES_MAX: usize = 1 << 20;
/// A form with a few boxes.
const FORM_BYTES_MAX: usize = 16 << 10;
/// A challenge is a number, or a short word.
const CHALLENGE_CHARS_MAX: usize = 256;

/// What the handlers work with.
pub struct Feedback {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub telemetry: Arc<Telemetry>,
    /// May be replaced while we listen: secrets are renewed.
    pub partners: Arc<ArcSwap<Partners>>,
    /// Told when somebody may be due.
    pub wake: Arc<Notify>,
}

/// Who may say something, and by what they are known.
#[derive(Default)]
pub struct Partners {
    /// By the name in the settings, which is the one in the path.
    pub providers: BTreeMap<String, Provider>,
    /// None: no links are handed out, so none come back.
    pub links: Option<Links>,
    /// Where providers see us: some sign the address that they call.
    pub public_url: Option<Url>,
}

/// A provider that calls back.
#[derive(Debug)]
pub struct Provider {
    pub channels: Vec<Channel>,
    pub callback: Callback,
    pub verifier: Verifier,
    /// Any of them opens the path.
    pub tokens: Vec<Secret>,
}

impl Partners {
    /// Those of the administrator's file.
    ///
    /// # Errors
    /// A provider has a token and no secret that its scheme can use, or the links cannot be signed: one sentence that names it.
    pub fn of(settings: &Settings) -> Result<Partners, String> {
        let links = channel::links(settings).map_err(|error| error.to_string())?;
        Ok(Partners { providers: providers(settings)?, links, public_url: settings.http.public_url.clone() })
    }

    /// The provider of a path, if its token is right. Both answers are the same to who guesses.
    fn provider(&self, name: &str, token: &str) -> Option<&Provider> {
        let provider = self.providers.get(name)?;
        let tokens: Vec<&str> = provider.tokens.iter().map(Secret::reveal).collect();
        is_one_of(token, &tokens).then_some(provider)
    }
}

fn providers(settings: &Settings) -> Result<BTreeMap<String, Provider>, String> {
    let mut providers = BTreeMap::new();
    for (name, provider) in &settings.providers {
        let settings::providers::Provider::Http(http) = provider else { continue };
        let (Some(callback), Some(token)) = (&http.description.callback, &http.callback_token) else { continue };
        let secrets: Vec<&str> = [&http.callback_secret, &http.callback_secret_before].into_iter().flatten().map(Secret::reveal).collect();
        let verifier = Verifier::new(&callback.signature, &secrets)
            .map_err(|why| format!("callbacks of `providers.{name}` cannot be checked (`callback_secret`): {why}"))?;
        let channels = http.description.channels().collect();
        providers.insert(name.clone(), Provider { channels, callback: callback.clone(), verifier, tokens: vec![token.clone()] });
    }
    Ok(providers)
}

pub fn router(feedback: Arc<Feedback>) -> Router {
    Router::new()
        .route("/callbacks/{provider}/{token}", post(called).get(challenged))
        .route("/u/{token}", get(ask_to_unsubscribe).post(unsubscribe))
        .route("/p/{token}", get(show_preferences).post(take_preferences))
        .with_state(feedback)
}

/// What these routes are, for programs that read it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(called, challenged, ask_to_unsubscribe, unsubscribe, show_preferences, take_preferences))]
struct Api;

// ------------------------------------------------------------------------------------------------------------------- callbacks

impl Feedback {
    fn count(&self, provider: &str, result: &str) {
        let labels = ByResult { source: provider.to_owned(), result: result.to_owned() };
        self.telemetry.metrics.callbacks.get_or_create(&labels).inc();
    }
}

/// A provider reports
///
/// Its shape and its proof are the provider's own. What is answered with 200 is on disk.
#[utoipa::path(post, path = "/callbacks/{provider}/{token}", tag = "feedback", operation_id = "callback",
    params(
    ("provider" = String, Path, description = "The provider's name in the administrator's file"),
    ("token" = String, Path, description = "Its `callback_token`")), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 200, description = "Everything in it is on record"),
    (status = 400, description = "It is the provider's and cannot be read"),
    (status = 401, description = "Not proved: signature, time or account is wrong"),
    (status = 404, description = "No such provider, or not its token"),
    (status = 413, description = "More than 1 MiB"),
    (status = 503, description = "The database does not answer: say it again")
))]
async fn called(
    State(feedback): State<Arc<Feedback>>,
    Path((name, token)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let partners = feedback.partners.load_full();
    let Some(provider) = partners.provider(&name, &token) else {
        // the name may be anybody's invention: it is no label
        feedback.count("unknown", "unknown_path");
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(body) = to_bytes(body, CALLBACK_BYTES_MAX).await else {
        feedback.count(&name, "too_large");
        tracing::warn!(provider.name = %name, bytes_max = CALLBACK_BYTES_MAX, "a callback was too large, or broke off, and was not read");
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let now = feedback.clock.now();
    let url = public(&partners, &uri);
    if let Err(refused) = provider.verifier.verify(&Call { url: &url, headers: &headers, body: &body, now }) {
        feedback.count(&name, "refused");
        tracing::warn!(provider.name = %name, "a callback was refused: {refused}");
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let reading = match read(&provider.callback, uri.query().unwrap_or_default(), &body, now) {
        Ok(reading) => reading,
        Err(error) => {
            feedback.count(&name, "unreadable");
            tracing::warn!(provider.name = %name, "a callback cannot be read: {error}");
            return StatusCode::BAD_REQUEST.into_response();
        }
    };
    match record(feedback.store.as_ref(), &name, &provider.channels, &reading.reports, now).await {
        Ok(recorded) => {
            let what = [("new", recorded.new), ("known", recorded.known), ("foreign", recorded.foreign), ("unread", reading.unknown)];
            for (result, count) in what.into_iter().filter(|(_, count)| *count > 0) {
                let labels = ByResult { source: name.clone(), result: result.to_owned() };
                feedback.telemetry.metrics.callbacks.get_or_create(&labels).inc_by(count);
            }
            if recorded.new > 0 {
                feedback.wake.notify_one();
            }
            StatusCode::OK.into_response()
        }
        Err(error) => unavailable(&feedback, &name, &error),
    }
}

/// The address as the provider called it: behind a proxy only the settings know it.
fn public(partners: &Partners, uri: &Uri) -> String {
    let path = uri.path_and_query().map_or_else(|| uri.path(), |path| path.as_str());
    match &partners.public_url {
        Some(url) => format!("{}{path}", url.as_str().trim_end_matches('/')),
        None => path.to_owned(),
    }
}

fn unavailable(feedback: &Feedback, source: &str, error: &StoreError) -> Response {
    feedback.count(source, "unavailable");
    tracing::error!("what came back could not be recorded, and its sender is asked to say it again: {error}");
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")]).into_response()
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Challenge {
    #[serde(rename = "hub.mode")]
    mode: Option<String>,
    #[serde(rename = "hub.verify_token")]
    verify_token: Option<String>,
    #[serde(rename = "hub.challenge")]
    challenge: Option<String>,
}

/// Meta asks whether the address is ours
///
/// Once, as it is entered there; the token to be entered with it is that of the path.
#[utoipa::path(get, path = "/callbacks/{provider}/{token}", tag = "feedback", operation_id = "challenge", params(
    ("provider" = String, Path, description = "The provider's name in the administrator's file"),
    ("token" = String, Path, description = "Its `callback_token`"),
    Challenge
), responses(
    (status = 200, description = "The challenge", content_type = "text/plain", body = String),
    (status = 404, description = "Not a challenge, or not the token")
))]
async fn challenged(
    State(feedback): State<Arc<Feedback>>,
    Path((name, token)): Path<(String, String)>,
    Query(asked): Query<Challenge>,
) -> Response {
    let partners = feedback.partners.load_full();
    let is_meta = partners.provider(&name, &token).is_some_and(|provider| provider.callback.signature == Scheme::Meta {});
    match asked {
        Challenge { mode: Some(mode), verify_token: Some(given), challenge: Some(challenge) }
            if is_meta && mode == "subscribe" && is_one_of(&given, &[&token]) && is_plain(&challenge) =>
        {
            challenge.into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn is_plain(challenge: &str) -> bool {
    challenge.len() <= CHALLENGE_CHARS_MAX && challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

// ---------------------------------------------------------------------------------------------------------------------- people

/// Ask a person whether to unsubscribe
///
/// Changes nothing: scanners open links too.
#[utoipa::path(get, path = "/u/{token}", tag = "people's choices", operation_id = "ask_to_unsubscribe", params(("token" = String, Path, description = "From the link in a message")), responses(
    (status = 200, description = "The question", content_type = "text/html", body = String), (status = 404, description = "No link of ours", content_type = "text/html", body = String),
    (status = 503, description = "The database does not answer: say it again")
))]
async fn ask_to_unsubscribe(State(feedback): State<Arc<Feedback>>, Path(token): Path<String>, headers: HeaderMap) -> Response {
    match find(&feedback, Purpose::Unsubscribe, &token).await {
        Ok(Some(found)) => {
            let words = page::words(found.locale.as_deref(), accepted_language(&headers));
            html(StatusCode::OK, page::unsubscribe(words, &found))
        }
        Ok(None) => html(StatusCode::NOT_FOUND, page::unknown(page::words(None, accepted_language(&headers)))),
        Err(error) => unavailable(&feedback, "link", &error),
    }
}

/// Unsubscribe at once
///
/// RFC 8058: acts, whatever the body is; mail programs send `List-Unsubscribe=One-Click`, the page an empty form.
#[utoipa::path(post, path = "/u/{token}", tag = "people's choices", operation_id = "unsubscribe", params(("token" = String, Path, description = "From the link in a message")),
    request_body(content = Option<String>, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "It is on record and in force", content_type = "text/html", body = String), (status = 404, description = "No link of ours", content_type = "text/html", body = String),
    (status = 413, description = "More than 16 KiB"), (status = 503, description = "The database does not answer: say it again")
))]
async fn unsubscribe(State(feedback): State<Arc<Feedback>>, Path(token): Path<String>, headers: HeaderMap, body: Body) -> Response {
    if to_bytes(body, FORM_BYTES_MAX).await.is_err() {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let found = match find(&feedback, Purpose::Unsubscribe, &token).await {
        Ok(Some(found)) => found,
        Ok(None) => return html(StatusCode::NOT_FOUND, page::unknown(page::words(None, accepted_language(&headers)))),
        Err(error) => return unavailable(&feedback, "link", &error),
    };
    match preferences::unsubscribe(feedback.store.as_ref(), &found, feedback.clock.now()).await {
        Ok(is_new) => {
            feedback.count("link", if is_new { "new" } else { "known" });
            feedback.wake.notify_one();
            html(StatusCode::OK, page::unsubscribed(page::words(found.locale.as_deref(), accepted_language(&headers)), &found))
        }
        Err(error) => unavailable(&feedback, "link", &error),
    }
}

/// Show a person what may be sent to them
#[utoipa::path(get, path = "/p/{token}", tag = "people's choices", operation_id = "preferences", params(("token" = String, Path, description = "From the link in a message")), responses(
    (status = 200, description = "The page of preferences", content_type = "text/html", body = String), (status = 404, description = "No link of ours", content_type = "text/html", body = String),
    (status = 503, description = "The database does not answer: say it again")
))]
async fn show_preferences(State(feedback): State<Arc<Feedback>>, Path(token): Path<String>, headers: HeaderMap) -> Response {
    match find(&feedback, Purpose::Preferences, &token).await {
        Ok(Some(found)) => {
            let words = page::words(found.locale.as_deref(), accepted_language(&headers));
            html(StatusCode::OK, page::preferences(words, &found, false))
        }
        Ok(None) => html(StatusCode::NOT_FOUND, page::unknown(page::words(None, accepted_language(&headers)))),
        Err(error) => unavailable(&feedback, "link", &error),
    }
}

/// Take a person's choice
///
/// A box that stands in the form is a yes, one that does not is a no.
#[utoipa::path(post, path = "/p/{token}", tag = "people's choices", operation_id = "choose", params(("token" = String, Path, description = "From the link in a message")),
    request_body(content = Option<String>, content_type = "application/x-www-form-urlencoded"), responses(
    (status = 200, description = "It is on record and in force", content_type = "text/html", body = String), (status = 404, description = "No link of ours", content_type = "text/html", body = String),
    (status = 413, description = "More than 16 KiB"), (status = 503, description = "The database does not answer: say it again")
))]
async fn take_preferences(State(feedback): State<Arc<Feedback>>, Path(token): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let Ok(body): Result<Bytes, _> = to_bytes(body, FORM_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let taken = async {
        let Some(found) = find(&feedback, Purpose::Preferences, &token).await? else { return Ok(None) };
        let chosen: Vec<Cow<'_, str>> = url::form_urlencoded::parse(&body).map(|(name, _)| name).collect();
        preferences::take(feedback.store.as_ref(), &found, &chosen, feedback.clock.now()).await?;
        find(&feedback, Purpose::Preferences, &token).await
    };
    match taken.await {
        Ok(Some(found)) => {
            feedback.count("link", "new");
            feedback.wake.notify_one();
            let words = page::words(found.locale.as_deref(), accepted_language(&headers));
            html(StatusCode::OK, page::preferences(words, &found, true))
        }
        Ok(None) => html(StatusCode::NOT_FOUND, page::unknown(page::words(None, accepted_language(&headers)))),
        Err(error) => unavailable(&feedback, "link", &error),
    }
}

/// The person that a link was made for.
async fn find(feedback: &Feedback, purpose: Purpose, token: &str) -> Result<Option<Preferences>, StoreError> {
    match feedback.partners.load().links.as_ref().and_then(|links| links.verify(purpose, token)) {
        Some(message) => preferences::of(feedback.store.as_ref(), message, feedback.clock.now()).await,
        None => Ok(None),
    }
}

fn accepted_language(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok())
}

/// No cookies, no scripts, nothing from elsewhere; the address (which opens it) is passed on to nobody.
fn html(status: StatusCode, page: String) -> Response {
    let fixed = |text: &'static str| HeaderValue::from_static(text);
    let headers: [(HeaderName, HeaderValue); 6] = [
        (header::CONTENT_TYPE, fixed("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, fixed(page::POLICY)),
        (header::REFERRER_POLICY, fixed("no-referrer")),
        (header::CACHE_CONTROL, fixed("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (HeaderName::from_static("x-robots-tag"), fixed("noindex")),
    ];
    (status, headers, page).into_response()
}
