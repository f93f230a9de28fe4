//! What senders are told. SDKs throw a batch away on 400 and send the very same one again on 429 and 503, so these say different
//! things: 400 that nothing of it can ever be read, 429 and 503 that it is worth coming back.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::REQUEST_BYTES_MAX;
use crate::store::StoreError;

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The text of the parser's complaint.
    NotJson(String),
    /// JSON, but not what is sent here.
    Shape(String),
    /// A question that is not understood.
    Question(String),
    Packed,
    Unread,
    NoKey,
    UnknownKey,
    /// What the key may do instead.
    WrongScope(&'static str),
    TooLarge,
    Encoding,
    Unknown,
    /// More under way than can be answered soon.
    Busy,
    Full,
    Unavailable,
}

/// What a refused sender reads.
#[derive(Debug, Serialize, ToSchema)]
pub struct Refused {
    /// A word for programs.
    #[schema(example = "unknown_key")]
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::NotJson(_) | Refusal::Shape(_) | Refusal::Question(_) | Refusal::Packed | Refusal::Unread => StatusCode::BAD_REQUEST,
            Refusal::NoKey | Refusal::UnknownKey => StatusCode::UNAUTHORIZED,
            Refusal::WrongScope(_) => StatusCode::FORBIDDEN,
            Refusal::Unknown => StatusCode::NOT_FOUND,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Busy => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Full | Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Refusal::NotJson(_) => "not_json",
            Refusal::Shape(_) => "wrong_shape",
            Refusal::Question(_) => "bad_question",
            Refusal::Packed => "bad_gzip",
            Refusal::Unread => "cut_short",
            Refusal::NoKey => "no_key",
            Refusal::UnknownKey => "unknown_key",
            Refusal::WrongScope(_) => "wrong_scope",
            Refusal::Unknown => "unknown_profile",
            Refusal::TooLarge => "too_large",
            Refusal::Encoding => "unknown_encoding",
            Refusal::Busy => "busy",
            Refusal::Full => "disk_full",
            Refusal::Unavailable => "unavailable",
        }
    }

    fn message(&self) -> String {
        match self {
            Refusal::NotJson(why) => format!("the body is not JSON: {why}"),
            Refusal::Shape(why) => format!("the body is no batch and no message: {why}"),
            Refusal::Question(why) => why.clone(),
            Refusal::Packed => "the body is not gzip, though its head says so".into(),
            Refusal::Unread => "the body did not come to its end".into(),
            Refusal::NoKey => "no key: send it as the user name of Basic authentication".into(),
            Refusal::UnknownKey => "the key is not known here, or was revoked".into(),
            Refusal::WrongScope(what) => format!("this key is for {what}"),
            Refusal::Unknown => "nobody is known by this id".into(),
            Refusal::TooLarge => format!("a request may have {REQUEST_BYTES_MAX} bytes, packed and unpacked: send smaller batches"),
            Refusal::Encoding => "the body's encoding is not known: send it plain or as gzip".into(),
            Refusal::Busy => "too much at once: send it again in a moment".into(),
            Refusal::Full => "the disk is full: send it again later, nothing of it was kept".into(),
            Refusal::Unavailable => "the database does not answer: send it again later, nothing of it was kept".into(),
        }
    }

    /// Seconds after which it is worth coming back.
    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Refusal::Busy => Some(HeaderValue::from_static("1")),
            Refusal::Unavailable => Some(HeaderValue::from_static("5")),
            Refusal::Full => Some(HeaderValue::from_static("30")),
            _ => None,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Refusal::Full,
            _ => Refusal::Unavailable,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let refused = Refused { code: self.code().to_owned(), message: self.message() };
        let mut response = (self.status(), Json(refused)).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"rekindle\""));
        }
        response
    }
}

/// What became of a batch: everything in it is on disk, as an event or among the rejects.
#[derive(Debug, Serialize, ToSchema)]
pub struct Taken {
    /// Always true: what SDKs look for.
    pub success: bool,
    /// Events that were new.
    pub accepted: u64,
    /// Events that were on record already.
    pub duplicates: u64,
    /// Messages that are no events, each with its reason. Sending them again changes nothing.
    pub rejected: Vec<RejectedMessage>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RejectedMessage {
    /// Place in the batch, from 0.
    pub index: usize,
    pub reason: String,
}

impl IntoResponse for Taken {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
