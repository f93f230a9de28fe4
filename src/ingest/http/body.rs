//! The body of a request, bounded in every direction, and the messages in it.

use std::borrow::Cow;
use std::io::Read as _;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, header};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::super::wire::Call;
use super::answer::Refusal;

/// A request is at most so large, packed and unpacked: Segment's limit.
pub const REQUEST_BYTES_MAX: usize = 500 << 10;
/// A message is at most so large: Segment's limit.
pub const EVENT_BYTES_MAX: usize = 32 << 10;

/// Reads a body and unpacks it.
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    let is_packed = match encoding.as_deref() {
        None | Some("" | "identity") => false,
        Some("gzip" | "x-gzip") => true,
        Some(_) => return Err(Refusal::Encoding),
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > REQUEST_BYTES_MAX as u64) {
        return Err(Refusal::TooLarge);
    }
    let bytes = to_bytes(body, REQUEST_BYTES_MAX).await.map_err(|error| unread(&error))?;
    if is_packed { unpack(&bytes) } else { Ok(bytes.into()) }
}

/// Larger than allowed, or the sender fell silent in the middle of it.
fn unread(error: &axum::Error) -> Refusal {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("length limit exceeded") {
            return Refusal::TooLarge;
        }
        cause = error.source();
    }
    Refusal::Unread
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let limit = REQUEST_BYTES_MAX as u64 + 1;
    match MultiGzDecoder::new(packed).take(limit).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() > REQUEST_BYTES_MAX => Err(Refusal::TooLarge),
        Ok(_) => Ok(bytes),
        Err(_) => Err(Refusal::Packed),
    }
}

/// A body as text. Bytes that are no UTF-8 spoil the messages that they stand in, not the others.
pub struct Text<'b> {
    text: Cow<'b, str>,
}

impl<'b> Text<'b> {
    pub fn of(bytes: &'b [u8]) -> Self {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        Text { text: String::from_utf8_lossy(bytes) }
    }

    /// The messages of a request. A request to a call's own path is one message; one to `batch` holds a list of them.
    pub fn messages(&self, call: Option<Call>) -> Result<Messages<'_>, Refusal> {
        let head: Head<'_> = serde_json::from_str(&self.text).map_err(|error| refused(&error))?;
        // a list would be read as the fields in their order
        if !self.text.trim_start().starts_with('{') {
            return Err(Refusal::Shape("it is no JSON object".into()));
        }
        let rows: Vec<&str> = match (call, &head.batch) {
            (Some(_), _) => vec![self.text.trim()],
            (None, Some(batch)) => batch.iter().map(|row| row.get()).collect(),
            (None, None) => return Err(Refusal::Shape("no `batch`, the list of messages".into())),
        };
        let text_of = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        Ok(Messages { rows, sent_at: text_of(head.sent_at), write_key: text_of(head.write_key) })
    }

    /// What is wrong with a message before it is read, if anything.
    pub fn spoiled(&self, row: &str) -> Option<String> {
        if row.len() > EVENT_BYTES_MAX {
            return Some(format!("the message has {} bytes, more than the {EVENT_BYTES_MAX} that one may have", row.len()));
        }
        let had_bad_bytes = matches!(self.text, Cow::Owned(_));
        (had_bad_bytes && row.contains(char::REPLACEMENT_CHARACTER)).then(|| "the message is not UTF-8 text".to_owned())
    }
}

/// The key that a body carries where there is no header for it; none too if it cannot be read.
pub fn write_key(bytes: &[u8], call: Option<Call>) -> Option<String> {
    Text::of(bytes).messages(call).ok()?.write_key
}

/// What a request says, message by message as text.
pub struct Messages<'t> {
    pub rows: Vec<&'t str>,
    pub sent_at: Option<String>,
    /// Browsers put the key here: a header would cost them a request more.
    pub write_key: Option<String>,
}

/// What stands around the messages; whatever else is said there is not read.
#[derive(Deserialize)]
struct Head<'t> {
    #[serde(borrow)]
    batch: Option<Vec<&'t RawValue>>,
    #[serde(borrow, rename = "sentAt")]
    sent_at: Option<&'t RawValue>,
    #[serde(borrow, rename = "writeKey")]
    write_key: Option<&'t RawValue>,
}

fn refused(error: &serde_json::Error) -> Refusal {
    match error.classify() {
        Category::Data => Refusal::Shape(error.to_string().replace("struct Head", "an object")),
        Category::Io | Category::Syntax | Category::Eof => Refusal::NotJson(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    #[test]
    fn unpacking_is_bounded() {
        assert_eq!(unpack(&packed(b"{}")).expect("unpacked"), b"{}");
        let most = vec![b' '; REQUEST_BYTES_MAX];
        assert_eq!(unpack(&packed(&most)).expect("unpacked").len(), REQUEST_BYTES_MAX);
        let bomb = packed(&vec![b' '; 200 << 20]);
        assert!(bomb.len() < REQUEST_BYTES_MAX && matches!(unpack(&bomb), Err(Refusal::TooLarge)));
        let mut cut = packed(b"{\"batch\":[]}");
        cut.truncate(cut.len() - 6);
        assert!(matches!(unpack(&cut), Err(Refusal::Packed)));
        assert!(matches!(unpack(b"{}"), Err(Refusal::Packed)));
    }

    #[test]
    fn a_batch_is_taken_apart_and_a_single_message_is_the_whole_body() {
        let text = Text::of(br#"{"batch":[{"a":1}, 5],"sentAt":"2026-01-01T00:00:00Z","writeKey":"rk_1","context":{}}"#);
        let messages = text.messages(None).expect("read");
        assert_eq!((messages.rows, messages.sent_at.as_deref()), (vec![r#"{"a":1}"#, "5"], Some("2026-01-01T00:00:00Z")));
        assert_eq!(messages.write_key.as_deref(), Some("rk_1"));
        let text = Text::of(b" {\"event\":\"x\",\"sentAt\":7} ");
        let messages = text.messages(Some(Call::Track)).expect("read");
        assert_eq!((messages.rows, messages.sent_at), (vec!["{\"event\":\"x\",\"sentAt\":7}"], None));
    }

    #[test]
    fn what_cannot_be_taken_apart_says_why() {
        for body in ["", "{", "{\"batch\":[1,]}", "nonsense", "{\"batch\":[]} x"] {
            assert!(matches!(Text::of(body.as_bytes()).messages(None), Err(Refusal::NotJson(_))), "{body}");
        }
        for body in ["[]", "[[{}],\"x\",\"y\"]", "7", "{}", "{\"batch\":{}}", "{\"batch\":null}"] {
            assert!(matches!(Text::of(body.as_bytes()).messages(None), Err(Refusal::Shape(_))), "{body}");
        }
        let deep = format!("{{\"batch\":[{}{}]}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(Text::of(deep.as_bytes()).messages(None), Err(Refusal::NotJson(_)) | Ok(_)));
    }

    #[test]
    fn bad_bytes_spoil_only_their_own_message() {
        let text = Text::of(b"{\"batch\":[{\"a\":\"\xff\"},{\"b\":1}]}");
        let messages = text.messages(None).expect("read");
        let spoiled: Vec<bool> = messages.rows.iter().map(|row| text.spoiled(row).is_some()).collect();
        assert_eq!(spoiled, [true, false]);
        let large = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX));
        assert!(text.spoiled(&large).expect("too large").contains("32770 bytes"));
    }
}
