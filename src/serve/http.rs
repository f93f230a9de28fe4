//! The listener. Whoever connects is bounded in every direction: connections at once, time for a request's head, time for the whole
//! answer, and a panic in one handler ends one answer. How large a body may be is said by each route.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower::Service as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutLayer};

use crate::settings::HttpSettings;

/// A body larger than this is refused, unless its route says otherwise.
const BODY_BYTES_MAX: usize = 1 << 20;
/// After an error of `accept` (no file descriptors left) the listener waits this long.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Answers requests until told to shut down; then those under way end first, for `drain` at most.
pub async fn listen(listener: TcpListener, router: Router, settings: &HttpSettings, drain: Duration, mut shutdown: watch::Receiver<bool>) {
    let router = bounded(router, settings);
    let places = Arc::new(Semaphore::new(settings.connections));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = Duration::from_secs(settings.head_seconds);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(head).keep_alive_timeout(head);
    while !*shutdown.borrow() {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
            _ = shutdown.changed() => continue,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            },
            _ = shutdown.changed() => continue,
        };
        // small answers go out at once; a socket that refuses the option works all the same
        let _ = stream.set_nodelay(true);
        let service = hyper::service::service_fn({
            let router = router.clone();
            move |request: Request<Incoming>| answer(router.clone(), request)
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!("a connection ended badly: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end within the time to drain and were cut off");
    }
}

fn bounded(router: Router, settings: &HttpSettings) -> Router {
    let whole = Duration::from_secs(settings.request_seconds);
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(RequestBodyTimeoutLayer::new(Duration::from_secs(settings.head_seconds)))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, whole))
        .layer(CatchPanicLayer::new())
}

async fn answer(mut router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    poll_fn(|context| <Router as tower::Service<Request<Incoming>>>::poll_ready(&mut router, context)).await?;
    router.call(request).await
}
