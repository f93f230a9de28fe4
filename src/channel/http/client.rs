//! One HTTP client for everything that is sent by request: guarded addresses, no redirects, no proxies, bounded answers.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use jiff::fmt::rfc2822;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode};
use url::Url;

use crate::channel::guard::{Guard, Network};
use crate::channel::{ChannelError, tls};
use crate::engine::time::Timestamp;

/// From the request's beginning to the answer's end.
pub const TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// More of an answer is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A provider that wants us to wait longer than a day is not believed.
const RETRY_AFTER_MAX_MS: i64 = 24 * 3_600_000;

#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    guard: Guard,
}

/// An answer, as far as it was read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// It was never sent: refused by the guard, no name, no connection, no trust.
    NotSent(String),
    /// Part of it may have been: nobody knows.
    Lost(String),
}

impl Client {
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(allowed: &[Network], ca: Option<&str>) -> Result<Client, ChannelError> {
        let guard = Guard::new(allowed);
        let mut config = tls::client_config(ca).map_err(|error| ChannelError(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .dns_resolver(guard.clone())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ChannelError(format!("cannot set up HTTP: {error}")))?;
        Ok(Client { http, guard })
    }

    /// A request to an address that may be called.
    ///
    /// # Errors
    /// It may not.
    pub fn request(&self, method: reqwest::Method, url: Url) -> Result<RequestBuilder, NoAnswer> {
        self.guard.admits(&url).map_err(|refused| NoAnswer::NotSent(refused.to_string()))?;
        Ok(self.http.request(method, url))
    }

    /// Sends it and reads the answer.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub async fn send(&self, request: RequestBuilder, timeout: Option<Duration>) -> Result<Answer, NoAnswer> {
        let response = request.timeout(timeout.unwrap_or(TIMEOUT)).send().await.map_err(|error| no_answer(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        let mut pieces = response.bytes_stream();
        // the status has come: what is wrong with the rest changes nothing
        while let Some(Ok(piece)) = pieces.next().await {
            let room = ANSWER_BYTES_MAX.saturating_sub(body.len());
            body.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
            if piece.len() >= room {
                break;
            }
        }
        Ok(Answer { status, headers, body: body.to_vec() })
    }
}

/// Without a connection nothing has left. Everything else may have.
fn no_answer(error: &reqwest::Error) -> NoAnswer {
    // without the address: it may hold a person's, or a secret
    let mut text = String::from(if error.is_timeout() { "no answer in time" } else { "the connection failed" });
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    if error.is_connect() || error.is_builder() { NoAnswer::NotSent(text) } else { NoAnswer::Lost(text) }
}

/// `Retry-After`, in seconds or as a date.
pub fn retry_after_ms(headers: &HeaderMap, now: Timestamp) -> Option<i64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let ms = match text.parse::<i64>() {
        Ok(seconds) => seconds.checked_mul(1_000)?,
        Err(_) => {
            let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            at.as_millisecond() - now.as_ms()
        }
    };
    Some(ms.clamp(0, RETRY_AFTER_MAX_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = Timestamp::parse("2026-03-05T09:00:00Z").expect("an instant");
        for (text, expected) in [
            ("120", Some(120_000)),
            ("0", Some(0)),
            ("-5", Some(0)),
            ("Thu, 05 Mar 2026 09:01:30 GMT", Some(90_000)),
            ("Thu, 05 Mar 2026 08:00:00 GMT", Some(0)),
            ("99999999", Some(RETRY_AFTER_MAX_MS)),
            ("9223372036854775807", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("a value"))]);
            assert_eq!(retry_after_ms(&headers, now), expected, "{text}");
        }
    }
}
