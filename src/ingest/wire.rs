//! Messages in the shape of Segment's specification, as its SDKs and RudderStack's send them and as files hold them: one JSON object each.
//!
//! | `type` | becomes |
//! |---|---|
//! | `track` (`event`, `properties`) | what the person did |
//! | `identify` (`traits`) | attributes; with `anonymousId`, who that was |
//! | `page`, `screen`, `group` | `track` of `Page Viewed`, `Screen Viewed`, `Group Joined` |
//! | `alias` (`previousId`, `userId`) | two ids are one person |
//! | `consent` (`properties`) | our own: a record of consent is no attribute |
//!
//! ```json
//! {"type":"consent","messageId":"c-1","userId":"u1","timestamp":"2026-03-01T09:00:00Z",
//!  "properties":{"purpose":"marketing","channel":"email","granted":true,"basis":"opt_in","source":"checkout"}}
//! ```
//!
//! What is not a fact is refused with one sentence for its sender. Declared types of properties are left to the engine.

use std::sync::Arc;

use jiff::civil::{Date, DateTime};
use serde_json::{Map, Value as Json};

use super::Incoming;
use crate::engine::action::Channel;
use crate::engine::event::{Event, EventKind};
use crate::engine::money::Currency;
use crate::engine::profile::Category;
use crate::engine::time::{HOUR_MS, MINUTE_MS, Timestamp, Zone};
use crate::store::{Identity, Link};

/// A longer identity, message id or name is none.
const MAX_ID_BYTES: usize = 256;

/// When we learned of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// All of it at this instant: an import. What claims to have happened later is clamped to it.
    At(Timestamp),
    /// Each fact as it happened: a replay.
    AsItHappened,
    /// Just now, from a sender whose clock may be wrong.
    Live {
        at: Timestamp,
        /// How far the sender's clock is ahead of ours; see [`skew_ms`].
        skew_ms: i64,
        /// What lies so far ahead of us is taken to have happened now; what lies further ahead is refused.
        future_tolerance_ms: i64,
    },
}

impl Received {
    /// When it happened and when we learned of it: nothing is learned before it happened.
    pub(super) fn instants(self, occurred: Option<Timestamp>) -> Result<(Timestamp, Timestamp), String> {
        let said = || occurred.ok_or_else(|| "no `timestamp`".to_owned());
        match self {
            Received::At(at) => Ok((said()?.min(at), at)),
            Received::AsItHappened => said().map(|occurred| (occurred, occurred)),
            Received::Live { at, skew_ms, future_tolerance_ms } => {
                let occurred = occurred.map_or(at, |said| said.plus_ms(-skew_ms));
                if occurred > at.plus_ms(future_tolerance_ms) {
                    return Err(format!("`timestamp` is {occurred}, which has not come yet (it is {at})"));
                }
                if occurred.as_ms() < 0 {
                    return Err(format!("`timestamp` is {occurred}, before 1970"));
                }
                Ok((occurred.min(at), at))
            }
        }
    }
}

/// How far a sender's clock is ahead, by the instant at which it says that it sent; negative if it is behind.
///
/// In whole minutes, and by less than an hour it is not behind: a copy of a request, sent again with the words of the first one, must
/// come to the same instants, or it would not be seen to be a copy. What is an hour early harms nobody.
pub fn skew_ms(sent_at: Timestamp, received_at: Timestamp) -> i64 {
    let ahead_ms = sent_at.as_ms() - received_at.as_ms();
    if (-HOUR_MS..0).contains(&ahead_ms) {
        return 0;
    }
    (ahead_ms + MINUTE_MS / 2).div_euclid(MINUTE_MS) * MINUTE_MS
}

/// Where messages come from, and how what they leave out is to be read.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The write key's source, or an import's: it stands on every event, and with the message's id it makes the event unique.
    pub source: Arc<str>,
    pub received: Received,
    /// The zone of dates and times that name none.
    pub zone: Zone,
    /// The currency of amounts that name none; none: the program's.
    pub currency: Option<Currency>,
    /// First and last instant at which something may have happened; what claims another is implausible.
    pub plausible: (Timestamp, Timestamp),
}

impl Origin {
    /// 1990: what claims to be older has lost its date.
    pub const EARLIEST: Timestamp = Timestamp::from_ms(631_152_000_000);

    pub fn new(source: &str, received: Received) -> Self {
        let plausible = (Timestamp::from_ms(0), Timestamp::from_ms(LATEST_MS));
        Origin { source: Arc::from(source), received, zone: Zone::UTC, currency: None, plausible }
    }

    /// Refuses what cannot be believed.
    pub(super) fn believe(&self, fact: Incoming) -> Result<Incoming, String> {
        let (first, last) = self.plausible;
        let at = fact.event.occurred_at;
        if at > last {
            return Err(format!("it is said to have happened at {at}, which is still to come"));
        }
        if at < first {
            return Err(format!("it is said to have happened at {at}, long before anything here; is its date missing?"));
        }
        super::disbelieved(&fact.event).map_or(Ok(fact), Err)
    }
}

/// What sort of call a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Track,
    Identify,
    Page,
    Screen,
    Group,
    Alias,
    Consent,
}

impl Call {
    pub const ALL: [Call; 7] = [Call::Track, Call::Identify, Call::Page, Call::Screen, Call::Group, Call::Alias, Call::Consent];

    pub fn name(self) -> &'static str {
        match self {
            Call::Track => "track",
            Call::Identify => "identify",
            Call::Page => "page",
            Call::Screen => "screen",
            Call::Group => "group",
            Call::Alias => "alias",
            Call::Consent => "consent",
        }
    }

    fn of(message: &Map<String, Json>) -> Result<Call, String> {
        let known = || Call::ALL.map(|call| format!("`{}`", call.name())).join(", ");
        match message.get("type").and_then(Json::as_str) {
            Some(name) => {
                Call::ALL.into_iter().find(|call| call.name() == name).ok_or_else(|| format!("type `{name}` is none of {}", known()))
            }
            None => Err(format!("no `type`; it is one of {}", known())),
        }
    }

    /// The name of the deed that a call without `event` stands for.
    fn deed(self) -> &'static str {
        match self {
            Call::Page => "Page Viewed",
            Call::Screen => "Screen Viewed",
            Call::Group => "Group Joined",
            Call::Track | Call::Identify | Call::Alias | Call::Consent => "",
        }
    }

    fn kind(self) -> EventKind {
        match self {
            Call::Track | Call::Page | Call::Screen | Call::Group => EventKind::Track,
            // an alias says who somebody is and nothing else: an identify without traits
            Call::Identify | Call::Alias => EventKind::Identify,
            Call::Consent => EventKind::Consent,
        }
    }
}

/// Reads one message; `call` is what it is if the way it came by says so, else its own `type` does.
///
/// # Errors
/// It is no fact about anybody: one sentence that says why.
pub fn message(text: &[u8], call: Option<Call>, origin: &Origin) -> Result<Incoming, String> {
    let json: Json = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let Json::Object(mut message) = json else { return Err("not a JSON object".into()) };
    let call = call.map_or_else(|| Call::of(&message), Ok)?;
    let (identity, link) = identity_of(&message, call)?;
    let occurred = occurred(&message, &origin.zone)?;
    let (occurred_at, received_at) = origin.received.instants(occurred)?;
    let name = match call {
        Call::Track => checked_id(text_of(&message, "event")?.ok_or("a `track` without `event`, the name of what happened")?, "event")?,
        other => Arc::from(other.deed()),
    };
    let id = match text_of(&message, "messageId")? {
        Some(id) => checked_id(id, "messageId")?,
        // the same text twice is the same fact, unless it leaves to us when it happened
        None if occurred.is_some() => Arc::from(format!("row:{:032x}", twox_hash::XxHash3_128::oneshot(text))),
        None => Arc::from(format!("row:{:032x}:{}", twox_hash::XxHash3_128::oneshot(text), received_at.as_ms())),
    };
    let properties = properties_of(&mut message, call)?;
    let event = Event { id, kind: call.kind(), name, occurred_at, received_at, source: origin.source.clone(), properties };
    origin.believe(Incoming { identity, link, event })
}

fn properties_of(message: &mut Map<String, Json>, call: Call) -> Result<Map<String, Json>, String> {
    let key = if matches!(call, Call::Identify | Call::Group) { "traits" } else { "properties" };
    let mut properties = match message.remove(key) {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(map)) => map,
        Some(other) => return Err(format!("`{key}` must be an object, not {}", type_name(&other))),
    };
    match call {
        Call::Consent => check_consent(&properties)?,
        Call::Identify => add_context(&mut properties, message.get("context")),
        Call::Page | Call::Screen => copy(&mut properties, message, &["name", "category"]),
        Call::Group => copy(&mut properties, message, &["groupId"]),
        Call::Alias => properties.clear(),
        Call::Track => {}
    }
    Ok(properties)
}

/// What the context says and the traits do not: RudderStack's SDKs put the traits themselves there, and others what they know of the
/// person's device.
fn add_context(traits: &mut Map<String, Json>, context: Option<&Json>) {
    let Some(context) = context else { return };
    for (name, value) in context.get("traits").and_then(Json::as_object).into_iter().flatten() {
        traits.entry(name.clone()).or_insert_with(|| value.clone());
    }
    for (name, value) in context.pointer("/consent/categoryPreferences").and_then(Json::as_object).into_iter().flatten() {
        traits.entry(consent_trait(name)).or_insert_with(|| value.clone());
    }
    let known =
        [("locale", context.get("locale")), ("timezone", context.get("timezone")), ("push_token", context.pointer("/device/token"))];
    for (name, value) in known {
        let is_said = traits.contains_key(name) || (name == "timezone" && traits.contains_key("zone"));
        if let Some(value) = value.filter(|value| value.is_string() && !is_said) {
            traits.insert(name.to_owned(), value.clone());
        }
    }
}

/// The trait that tells of a category of a consent banner: `Marketing & more` is `consent_marketing_more`.
fn consent_trait(category: &str) -> String {
    let words = category.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold("consent".to_owned(), |name, word| format!("{name}_{}", word.to_ascii_lowercase()))
}

fn copy(properties: &mut Map<String, Json>, message: &mut Map<String, Json>, keys: &[&str]) {
    for key in keys {
        if let Some(value) = message.remove(*key).filter(|value| !value.is_null()) {
            properties.entry(*key).or_insert(value);
        }
    }
}

/// Whom it is about, and under which other id the same person is known.
fn identity_of(message: &Map<String, Json>, call: Call) -> Result<(Identity, Option<Link>), String> {
    let id_of = |key: &str| match message.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(id)) if id.trim().is_empty() => Ok(None),
        Some(Json::String(id)) => checked_id(id, key).map(Some),
        Some(Json::Number(id)) if id.is_i64() || id.is_u64() => Ok(Some(Arc::from(id.to_string()))),
        Some(other) => Err(format!("`{key}` must be text, not {}", type_name(other))),
    };
    if call == Call::Alias {
        let user = id_of("userId")?.ok_or("an `alias` without `userId`, the id from now on")?;
        let previous = id_of("previousId")?.ok_or("an `alias` without `previousId`, the id until now")?;
        return Ok((Identity::User(user), Some(Link::Previous(previous))));
    }
    match (id_of("userId")?, id_of("anonymousId")?) {
        (Some(user), anonymous) => Ok((Identity::User(user), anonymous.map(Link::Anonymous))),
        (None, Some(anonymous)) => Ok((Identity::Anonymous(anonymous), None)),
        (None, None) => Err("no `userId` and no `anonymousId`: nobody to whom it happened".into()),
    }
}

fn occurred(message: &Map<String, Json>, zone: &Zone) -> Result<Option<Timestamp>, String> {
    let text = match text_of(message, "timestamp")? {
        Some(text) => Some(text),
        None => text_of(message, "originalTimestamp")?,
    };
    let Some(text) = text else { return Ok(None) };
    instant(text, zone).map(Some).ok_or_else(|| match is_out_of_range(text) {
        true => format!("`timestamp` is `{text}`; only the years 1970 to 9998 can be reckoned with"),
        false => format!("`timestamp` is `{text}`; write it like `2026-11-06T10:00:00Z`"),
    })
}

/// Whether a text is an instant, and one that lies too far away.
pub(super) fn is_out_of_range(text: &str) -> bool {
    let (year, rest) = text.trim().split_at_checked(4).unwrap_or_default();
    let is_far = year.parse::<u32>().is_ok_and(|year| !(1970..=9998).contains(&year));
    // the same day of another year
    is_far && instant(&format!("2024{rest}"), &Zone::UTC).is_some()
}

/// RFC 3339, a date, or a date with a time; what names no offset is local time in `zone`. Years 1970 to 9998.
pub(super) fn instant(text: &str, zone: &Zone) -> Option<Timestamp> {
    let text = text.trim();
    let with_offset = || Timestamp::parse(text).or_else(|| Timestamp::parse(&text.replacen(' ', "T", 1)));
    let local = || {
        let wall: DateTime = text.parse().or_else(|_| text.parse::<Date>().map(|date| date.to_datetime(Default::default()))).ok()?;
        Some(zone.instant(wall))
    };
    with_offset().or_else(local).filter(|at| (0..=LATEST_MS).contains(&at.as_ms()))
}

/// The end of the year 9998: later instants cannot be moved by a calendar span.
const LATEST_MS: i64 = 253_370_764_799_999;

/// An id or a name: some text without control characters, which some databases take for its end.
pub(super) fn checked_id(text: &str, what: &str) -> Result<Arc<str>, String> {
    match text.trim() {
        "" => Err(format!("`{what}` is empty")),
        id if id.len() > MAX_ID_BYTES => Err(format!("`{what}` has {} bytes, more than {MAX_ID_BYTES}", id.len())),
        id if id.contains(char::is_control) => Err(format!("`{what}` has a control character in it")),
        id => Ok(Arc::from(id)),
    }
}

fn text_of<'a>(message: &'a Map<String, Json>, key: &str) -> Result<Option<&'a str>, String> {
    match message.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{key}` must be text, not {}", type_name(other))),
    }
}

/// A consent record says for what, by which way, and whether; the rest is evidence.
fn check_consent(properties: &Map<String, Json>) -> Result<(), String> {
    let text = |key: &str| properties.get(key).and_then(Json::as_str).ok_or_else(|| format!("a consent needs `{key}` (text)"));
    let (purpose, channel) = (text("purpose")?, text("channel")?);
    if Category::named(purpose).is_none() {
        let names = Category::ALL.map(Category::name).join(", ");
        return Err(format!("purpose `{purpose}` is not known; one of {names}"));
    }
    if Channel::named(channel).is_none() {
        return Err(format!("channel `{channel}` is not known; one of {}", Channel::ALL.map(Channel::name).join(", ")));
    }
    match properties.get("granted") {
        Some(Json::Bool(_)) => Ok(()),
        _ => Err("a consent needs `granted` (true or false)".into()),
    }
}

fn type_name(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::profile::Name;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a test instant")
    }

    const NOW: &str = "2026-06-01T12:00:00Z";

    fn live(skew_ms: i64) -> Origin {
        Origin::new("shop", Received::Live { at: at(NOW), skew_ms, future_tolerance_ms: 5 * MINUTE_MS })
    }

    fn read(value: &Json) -> Incoming {
        message(value.to_string().as_bytes(), None, &live(0)).unwrap_or_else(|why| panic!("{value}: {why}"))
    }

    fn why(value: &Json) -> String {
        message(value.to_string().as_bytes(), None, &live(0)).expect_err("refused")
    }

    #[test]
    fn every_call_becomes_an_event() {
        let table = [
            (
                json!({ "type": "track", "userId": "u", "event": "Order Completed", "properties": { "a": 1 } }),
                "Order Completed",
                json!({ "a": 1 }),
            ),
            (
                json!({ "type": "page", "userId": "u", "name": "Home", "properties": { "path": "/" } }),
                "Page Viewed",
                json!({ "path": "/", "name": "Home" }),
            ),
            (json!({ "type": "screen", "userId": "u", "name": "Home" }), "Screen Viewed", json!({ "name": "Home" })),
            (
                json!({ "type": "group", "userId": "u", "groupId": "g", "traits": { "plan": "x" } }),
                "Group Joined",
                json!({ "plan": "x", "groupId": "g" }),
            ),
            (json!({ "type": "identify", "userId": "u", "traits": { "country": "DE" } }), "", json!({ "country": "DE" })),
            (json!({ "type": "alias", "userId": "u", "previousId": "p", "properties": { "a": 1 } }), "", json!({})),
        ];
        for (value, name, properties) in table {
            let event = read(&value).event;
            assert_eq!((&*event.name, Json::Object(event.properties)), (name, properties), "{value}");
        }
    }

    #[test]
    fn who_it_is_about_and_who_that_was() {
        let (user, name) = (Identity::User("u".into()), Name::from("a"));
        let table = [
            (json!({ "type": "identify", "userId": "u", "anonymousId": "a" }), user.clone(), Some(Link::Anonymous(name.clone()))),
            (json!({ "type": "track", "event": "x", "userId": "u", "anonymousId": "" }), user.clone(), None),
            (json!({ "type": "track", "event": "x", "anonymousId": "a" }), Identity::Anonymous(name.clone()), None),
            (json!({ "type": "alias", "userId": "u", "previousId": "a" }), user, Some(Link::Previous(name))),
        ];
        for (value, identity, link) in table {
            let incoming = read(&value);
            assert_eq!((incoming.identity, incoming.link), (identity, link), "{value}");
        }
        assert!(why(&json!({ "type": "alias", "userId": "u" })).contains("without `previousId`"));
        assert!(why(&json!({ "type": "track", "event": "x", "userId": "a\u{0}b" })).contains("control character"));
    }

    #[test]
    fn a_wrong_clock_is_set_right_and_the_future_is_refused() {
        let table = [
            // said, the sender's clock ahead by so many minutes, what is taken for true
            (Some("2026-06-01T11:00:00Z"), 0, Some("2026-06-01T11:00:00Z")),
            (Some("2026-06-01T13:00:00Z"), 60, Some(NOW)),
            (Some("2026-06-01T12:30:00Z"), 60, Some("2026-06-01T11:30:00Z")),
            (Some("2026-06-01T12:05:00Z"), 0, Some(NOW)),
            (Some("2026-06-01T12:05:01Z"), 0, None),
            (Some("2026-06-01T11:00:00Z"), -60, Some(NOW)),
            (None, 60, Some(NOW)),
            (Some("1970-01-01T00:00:00Z"), 1, None),
        ];
        for (said, ahead, taken) in table {
            let value = json!({ "type": "track", "userId": "u", "event": "x", "timestamp": said });
            let read = message(value.to_string().as_bytes(), None, &live(ahead * MINUTE_MS));
            assert_eq!(read.as_ref().ok().map(|read| read.event.occurred_at), taken.map(at), "{said:?} {ahead}: {read:?}");
        }
    }

    #[test]
    fn a_copy_that_is_sent_again_has_the_same_skew() {
        let sent = at("2026-06-01T13:00:00Z");
        let table = [
            (-59 * 60_000 - 59_920, 60),
            (-59 * 60_000 - 48_000, 60),
            (-29_000, 0),
            (0, 0),
            (45_000, 0),
            (59 * 60_000, 0),
            (90 * 60_000, -90),
        ];
        for (later_ms, minutes) in table {
            assert_eq!(skew_ms(sent, sent.plus_ms(later_ms)), minutes * MINUTE_MS, "{later_ms}");
        }
    }

    #[test]
    fn the_context_says_what_the_traits_leave_out() {
        let preferences = json!({ "categoryPreferences": { "Marketing & more": false } });
        let context = json!({ "consent": preferences, "locale": "de-DE", "timezone": "Europe/Berlin", "device": { "token": "t" }, "traits": { "country": "DE" } });
        let said = read(&json!({ "type": "identify", "userId": "u", "traits": { "locale": "en" }, "context": context }));
        let traits =
            json!({ "locale": "en", "timezone": "Europe/Berlin", "push_token": "t", "country": "DE", "consent_marketing_more": false });
        assert_eq!(Json::Object(said.event.properties), traits);
    }
}
