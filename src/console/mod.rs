//! What people and machines ask a running daemon: is it alive, is it ready, what are its figures ([`router`], on the public listener),
//! and the operators' commands ([`control`], on a socket that only this machine's user can open).

pub mod control;
pub mod keys;
pub mod pauses;
pub mod person;
pub mod publications;
mod replay;
pub mod sample;
pub mod suppressions;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::channel::Channels;
use crate::clock::Clock;
use crate::engine::decide::World;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::telemetry::vitals::Part;
use crate::versions::RuleVersions;
use crate::versions::publisher::Publisher;

/// What the console works with.
pub struct Console {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub rules: Arc<RuleVersions>,
    pub publisher: Arc<Publisher>,
    pub channels: Channels,
    pub telemetry: Arc<Telemetry>,
    /// Told when somebody may be due because of a command.
    pub wake: Arc<Notify>,
}

impl Console {
    /// The world of this month: the one that evaluation and dispatch keep in memory too.
    async fn world(&self) -> Result<Arc<World>, StoreError> {
        let month = self.rules.snapshot().rules.policy.month_start(self.clock.now());
        Ok(self.store.world(month).await?.world)
    }
}

/// `GET /healthz`: the process answers. `GET /readyz`: every part is well, else 503 with reasons; notes tell what works and should be
/// known all the same. `GET /metrics`: the figures.
pub fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(console)
}

async fn ready(State(console): State<Arc<Console>>) -> Response {
    match console.store.current_version().await {
        Ok(_) => console.telemetry.vitals.well(Part::Store),
        Err(error) => console.telemetry.vitals.ill(Part::Store, error),
    }
    let report = console.telemetry.vitals.report();
    let is_ready = report.iter().all(|(_, state)| state.is_ok());
    let parts = report.into_iter().map(|(part, state)| (part.to_owned(), Value::from(state.err().unwrap_or_else(|| "well".to_owned()))));
    let mut answer = Map::new();
    answer.insert("ready".into(), is_ready.into());
    answer.insert("parts".into(), Value::Object(parts.collect()));
    let notes = console.telemetry.vitals.notes();
    if !notes.is_empty() {
        answer.insert("notes".into(), Value::Object(notes.into_iter().map(|(part, note)| (part.to_owned(), note.into())).collect()));
    }
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}

async fn metrics(State(console): State<Arc<Console>>, headers: HeaderMap) -> Response {
    let (metrics, now) = (&console.telemetry.metrics, console.clock.now());
    // read as they are asked for: pauses change by commands, which any process may have carried out
    match console.world().await {
        Ok(world) => metrics.see_world(&world, pauses::all_in_force(&world).len(), now),
        Err(error) => tracing::warn!("cannot count the pauses in force: {error}"),
    }
    match console.store.backlog(now).await {
        Ok(backlog) => metrics.see_backlog(&backlog, now),
        Err(error) => tracing::warn!("cannot count what waits: {error}"),
    }
    metrics.see_vitals(&console.telemetry.vitals);
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, text) = match accepts.contains("application/openmetrics-text") {
        true => ("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.render()),
        false => ("text/plain; version=0.0.4; charset=utf-8", metrics.render_plain()),
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
