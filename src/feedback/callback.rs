//! A provider's call, read by its description: what it says of which message. Pure; nothing is recorded here and nothing is looked up,
//! so that `rekindle provider check` can show how a sample would be read.
//!
//! What is read is not yet believed of anybody: whoever records it looks whether the message is ours and went out on that channel.

use serde_json::Value as Json;

use crate::channel::callback::{Callback, Meaning, Path, Payload, Said, Segment};
use crate::engine::action::MessageId;
use crate::engine::time::{SECOND_MS, Timestamp};

/// A call with more events than that is no provider's batch.
const EVENTS_MAX: usize = 10_000;
/// Seconds since 1970 stay below this for the next three thousand years, milliseconds have been above it since 1973.
const SECONDS_MAX: f64 = 1.0e11;
/// Of what a provider says in its own words so many characters are kept.
const DETAIL_CHARS: usize = 300;

/// What a provider says of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Ours; none: the event speaks of a message that was not sent by us, or does not name it.
    pub message: Option<MessageId>,
    pub said: Said,
    /// Whether the message reached the person, where `said` does not tell.
    pub arrived: bool,
    /// Never later than the call.
    pub at: Timestamp,
    pub address: Option<String>,
    /// The provider's id of the event, or a hash of it where it gives none.
    pub id: String,
    pub detail: Option<String>,
}

/// Everything that a call says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    pub reports: Vec<Report>,
    /// Events that fit no line of `outcomes`.
    pub unknown: u64,
}

/// Why a call cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("the body is no JSON: {0}")]
    Json(String),
    #[error("nothing stands at `{0}`, where the events should be")]
    NoEvents(Path),
    #[error("{0} events in one call are too many (at most {EVENTS_MAX})")]
    TooMany(usize),
}

/// Reads a call that came in at `now` to `query` (what stands behind the `?`).
pub fn read(callback: &Callback, query: &str, body: &[u8], now: Timestamp) -> Result<Reading, ReadError> {
    let payload = match callback.payload {
        Payload::Json => serde_json::from_slice(body).map_err(|error| ReadError::Json(error.to_string()))?,
        Payload::Form => {
            let fields = url::form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), Json::from(value.into_owned())));
            Json::Object(fields.collect())
        }
    };
    let mut events = Vec::new();
    each(&payload, &callback.events.0, &mut events);
    if events.len() > EVENTS_MAX {
        return Err(ReadError::TooMany(events.len()));
    }
    // an empty list says nothing; a missing one is another kind of call, or a wrong description
    if events.is_empty() && !has_list(&payload, &callback.events.0) {
        return Err(ReadError::NoEvents(callback.events.clone()));
    }
    let mut reading = Reading::default();
    for event in events {
        let at = Place { event, query };
        match callback.outcomes.iter().find(|meaning| at.fits(meaning)) {
            Some(meaning) => reading.reports.push(report(callback, &at, meaning, now)),
            None => reading.unknown += 1,
        }
    }
    Ok(reading)
}

fn report(callback: &Callback, at: &Place<'_>, meaning: &Meaning, now: Timestamp) -> Report {
    let id = at.first(&callback.id).unwrap_or_else(|| {
        let text = at.event.to_string();
        format!("{:032x}", twox_hash::XxHash3_128::oneshot(text.as_bytes()))
    });
    Report {
        message: callback.message.iter().filter_map(|path| at.text(path)).find_map(|text| message_id(&text)),
        said: meaning.is,
        arrived: meaning.arrived,
        at: callback.at.as_ref().and_then(|path| at.value(path)).and_then(|value| instant(&value)).map_or(now, |at| at.min(now)),
        address: at.first(&callback.address).filter(|address| !address.trim().is_empty()),
        id,
        detail: at.first(&callback.detail).map(|detail| detail.chars().take(DETAIL_CHARS).collect()),
    }
}

/// Our id, also where it stands as a `Message-ID` (`<id@host>`).
fn message_id(text: &str) -> Option<MessageId> {
    let text = text.trim().trim_matches(['<', '>']);
    MessageId::parse(text.split_once('@').map_or(text, |(id, _)| id))
}

/// Seconds or milliseconds since 1970, as a number or in digits, or a date and time.
fn instant(value: &Json) -> Option<Timestamp> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    match number {
        Some(number) if !number.is_finite() || number < 0.0 => None,
        Some(seconds) if seconds < SECONDS_MAX => Some(Timestamp::from_ms((seconds * SECOND_MS as f64) as i64)),
        Some(ms) => Some(Timestamp::from_ms(ms as i64)),
        None => Timestamp::parse(value.as_str()?.trim()),
    }
}

// ---------------------------------------------------------------------------------------------------------------------- places

/// An event, and the call that it came with.
struct Place<'a> {
    event: &'a Json,
    query: &'a str,
}

impl Place<'_> {
    fn fits(&self, meaning: &Meaning) -> bool {
        meaning.when.iter().all(|(path, words)| self.text(path).is_some_and(|text| words.0.contains(&text)))
    }

    fn first(&self, paths: &[Path]) -> Option<String> {
        paths.iter().find_map(|path| self.text(path))
    }

    fn text(&self, path: &Path) -> Option<String> {
        match self.value(path)? {
            Json::String(text) => Some(text),
            Json::Number(number) => Some(number.to_string()),
            Json::Bool(value) => Some(value.to_string()),
            Json::Null | Json::Array(_) | Json::Object(_) => None,
        }
    }

    fn value(&self, path: &Path) -> Option<Json> {
        if let [Segment::Query(name)] = path.0.as_slice() {
            let value = url::form_urlencoded::parse(self.query.as_bytes()).find(|(key, _)| key == name)?;
            return Some(Json::from(value.1.into_owned()));
        }
        let mut found = Vec::new();
        each(self.event, &path.0, &mut found);
        found.first().map(|value| (*value).clone())
    }
}

/// Everything that a path leads to.
fn each<'j>(value: &'j Json, path: &[Segment], found: &mut Vec<&'j Json>) {
    let Some((segment, rest)) = path.split_first() else {
        found.push(value);
        return;
    };
    match (segment, value) {
        (Segment::Field(name), Json::Object(fields)) => {
            if let Some(inner) = fields.get(name) {
                each(inner, rest, found);
            }
        }
        (Segment::Field(name), Json::Array(items)) => {
            if let Some(inner) = name.parse::<usize>().ok().and_then(|index| items.get(index)) {
                each(inner, rest, found);
            }
        }
        (Segment::Each, Json::Array(items)) => items.iter().for_each(|item| each(item, rest, found)),
        (Segment::Each, Json::Object(fields)) => fields.values().for_each(|inner| each(inner, rest, found)),
        (Segment::With { field, value: expected }, Json::Array(items)) => {
            let has = |item: &&Json| item.get(field).and_then(Json::as_str).is_some_and(|text| text.eq_ignore_ascii_case(expected));
            if let Some(item) = items.iter().find(has) {
                each(item, rest, found);
            }
        }
        _ => {}
    }
}

/// Whether the walk to the events at least begins: the place before the first `*` is there.
fn has_list(payload: &Json, path: &[Segment]) -> bool {
    let before: Vec<Segment> = path.iter().take_while(|segment| **segment != Segment::Each).cloned().collect();
    let mut found = Vec::new();
    each(payload, &before, &mut found);
    before.len() < path.len() && found.iter().any(|value| value.is_array() || value.is_object())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MESSAGE: &str = "0190a5e0-0000-7000-8000-000000000001";

    fn callback(text: &str) -> Callback {
        serde_yaml::from_str(&format!("signature: {{ scheme: path_token }}\n{text}")).expect("a callback")
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-03-01T12:00:00Z").expect("an instant")
    }

    #[test]
    fn events_are_found_wherever_they_stand() {
        let text =
            |events: &str| callback(&format!("events: {events}\nmessage: /m\nid: /i\noutcomes: [{{ when: {{ /e: d }}, is: delivered }}]"));
        for (events, body, reports, unknown) in [
            ("''", json!({ "e": "d" }), 1, 0),
            ("/*", json!([{ "e": "d" }, { "e": "d" }, { "e": "x" }, 7, null]), 2, 3),
            ("/*", json!([]), 0, 0),
            ("/entry/*/changes/*", json!({ "entry": [{ "changes": [{ "e": "d" }] }, { "changes": [] }, { "other": 1 }] }), 1, 0),
            ("/entry/*/changes/*", json!({ "entry": [{ "messages": [1] }] }), 0, 0),
            ("/data", json!({ "data": { "e": "d" } }), 1, 0),
        ] {
            let reading = read(&text(events), "", body.to_string().as_bytes(), now()).expect("read");
            assert_eq!((reading.reports.len(), reading.unknown), (reports, unknown), "{events} of {body}");
        }
        for (body, expected) in [
            (json!({ "other": {} }).to_string(), "nothing stands at `/data`"),
            ("{\"data\":".to_owned(), "no JSON"),
            ("\u{0}\u{1}".to_owned(), "no JSON"),
            ("[".repeat(200_000), "no JSON"),
        ] {
            let error = read(&text("/data"), "", body.as_bytes(), now()).expect_err("an error").to_string();
            assert!(error.contains(expected), "{error}");
        }
        let many = json!(vec![json!({}); EVENTS_MAX + 1]).to_string();
        assert_eq!(read(&text("/*"), "", many.as_bytes(), now()), Err(ReadError::TooMany(EVENTS_MAX + 1)));
    }

    #[test]
    fn a_report_holds_what_its_places_hold() {
        let callback = callback(
            "message: [/none, query:m, '/headers/[name=X-Id]/value']
id: [/none, /id]
at: /at
address: /to/0
detail: /why
outcomes:
  - { when: { /code: [21610, 5], /final: true }, is: unsubscribed }
  - { when: {}, is: ignored }
",
        );
        let body = json!({ "code": 5, "final": true, "id": 77, "at": 1_700_000_000.5, "to": ["a@example.com"], "why": "x".repeat(1000) });
        let reading = read(&callback, &format!("a=b&m={MESSAGE}"), body.to_string().as_bytes(), now()).expect("read");
        let [report] = reading.reports.as_slice() else { panic!("one report: {reading:?}") };
        assert_eq!(report.message, MessageId::parse(MESSAGE));
        assert_eq!((report.said, report.at, report.id.as_str()), (Said::Unsubscribed, Timestamp::from_ms(1_700_000_000_500), "77"));
        assert_eq!((report.address.as_deref(), report.detail.as_ref().map(|d| d.len())), (Some("a@example.com"), Some(DETAIL_CHARS)));
        let by_header = json!({ "headers": [{ "name": "Other", "value": "1" }, { "name": "x-id", "value": format!("<{MESSAGE}@shop>") }] });
        let reading = read(&callback, "", by_header.to_string().as_bytes(), now()).expect("read");
        assert_eq!(reading.reports.first().map(|r| (r.message, r.said, r.at)), Some((MessageId::parse(MESSAGE), Said::Ignored, now())));
    }

    #[test]
    fn instants_are_read_in_the_forms_that_providers_use() {
        for (value, expected) in [
            (json!(1_764_000_000), "2025-11-24T16:00:00Z"),
            (json!(1_764_000_000_000_i64), "2025-11-24T16:00:00Z"),
            (json!("1764000000"), "2025-11-24T16:00:00Z"),
            (json!("2025-11-24T17:00:00.000+01:00"), "2025-11-24T16:00:00Z"),
        ] {
            assert_eq!(instant(&value), Timestamp::parse(expected), "{value}");
        }
        for value in [json!(-1), json!("yesterday"), json!(null), json!({}), json!("NaN")] {
            assert_eq!(instant(&value), None, "{value}");
        }
    }

    #[test]
    fn an_event_without_an_id_is_known_again_by_all_of_it() {
        let callback = callback("events: /*\nmessage: /m\noutcomes: [{ when: {}, is: opened }]");
        let id = |body: Json| read(&callback, "", body.to_string().as_bytes(), now()).expect("read").reports.remove(0).id;
        assert_eq!(id(json!([{ "a": 1, "b": 2 }])), id(json!([{ "b": 2, "a": 1 }])));
        assert_ne!(id(json!([{ "a": 1 }])), id(json!([{ "a": 2 }])));
    }
}
