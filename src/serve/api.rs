//! What this server understands, for programs: the OpenAPI document of every endpoint, at `/openapi.json`. Each service describes its
//! own; here they are put together, with what monitoring asks.

use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

use crate::{feedback, ingest};

/// `GET /openapi.json`.
pub fn router() -> Router {
    let api = document();
    Router::new().route("/openapi.json", get(move || async move { Json(api) }))
}

/// Every endpoint.
pub fn document() -> OpenApi {
    let mut api = Monitoring::openapi();
    api.merge(ingest::http::openapi());
    api.merge(feedback::http::openapi());
    api
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Rekindle",
        description = "Events in, people back, what providers and people say back, and what monitoring asks. What operators write is in docs/rules.md."
    ),
    paths(healthz, readyz, metrics, openapi)
)]
struct Monitoring;

/// Is the process alive
#[utoipa::path(get, path = "/healthz", tag = "monitoring", responses((status = 200, description = "It is", content_type = "text/plain", body = String)))]
#[expect(dead_code, reason = "carries a description")]
fn healthz() {}

/// Is every part well
#[utoipa::path(get, path = "/readyz", tag = "monitoring", responses(
    (status = 200, description = "All parts are", body = serde_json::Value),
    (status = 503, description = "Some are not, with their reasons", body = serde_json::Value)
))]
#[expect(dead_code, reason = "carries a description")]
fn readyz() {}

/// Figures for a monitoring system
#[utoipa::path(get, path = "/metrics", tag = "monitoring", responses(
    (status = 200, description = "In the OpenMetrics text format for who accepts it, else in the one before it",
        content((String = "text/plain"), (String = "application/openmetrics-text")))
))]
#[expect(dead_code, reason = "carries a description")]
fn metrics() {}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "monitoring", responses((status = 200, description = "Every endpoint", body = serde_json::Value)))]
#[expect(dead_code, reason = "carries a description")]
fn openapi() {}
