//! What a provider calls back with, as data: how its call is signed, where in the payload the events stand, and what each of them
//! means. The half of a provider file that speaks of the way back; `feedback` reads calls by it.
//!
//! ```yaml
//! callback:
//!   signature: { scheme: sendgrid }
//!   events: /*
//!   message: /rekindle_message
//!   id: /sg_event_id
//!   at: /timestamp
//!   address: /email
//!   detail: /reason
//!   outcomes:
//!     - { when: { /event: delivered }, is: delivered }
//!     - { when: { /event: bounce, /type: blocked }, is: soft_bounce }
//!     - { when: { /event: bounce }, is: hard_bounce }
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};

/// How a provider's calls are read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    pub signature: Scheme,
    /// How the body is written. Default: `json`.
    #[serde(default)]
    pub payload: Payload,
    /// Where the events stand; a `*` walks over a list or over the values of an object. Default: the body is one event.
    #[serde(default)]
    pub events: Path,
    /// Where in an event our own message id stands: the first place that has one counts.
    #[serde(deserialize_with = "one_or_more")]
    pub message: Vec<Path>,
    /// The provider's id of the event: makes a repeated call recognisable.
    #[serde(default, deserialize_with = "one_or_more")]
    pub id: Vec<Path>,
    /// When it happened: seconds or milliseconds since 1970, or a date and time. Default: when the call came.
    #[serde(default)]
    pub at: Option<Path>,
    /// The address that the message went to. Default: the one that the person has now.
    #[serde(default, deserialize_with = "one_or_more")]
    pub address: Vec<Path>,
    /// The reason in the provider's words.
    #[serde(default, deserialize_with = "one_or_more")]
    pub detail: Vec<Path>,
    /// What an event means: the first line that fits. An event that fits none means nothing to us.
    pub outcomes: Vec<Meaning>,
}

/// One line of `outcomes`: if all of `when` is so, this is what it means.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meaning {
    pub when: BTreeMap<Path, Words>,
    pub is: Said,
    /// Of `complained` and `unsubscribed`: whether the message reached the person. `false` where the provider reports that it did not
    /// even try, because of an earlier refusal. Default: true.
    #[serde(default = "yes")]
    pub arrived: bool,
}

/// What a provider can say of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Accepted,
    Delivered,
    Opened,
    Clicked,
    /// The address does not exist, or never will take mail: it goes on the suppression list.
    HardBounce,
    /// It did not arrive, and the provider has given it up, for a reason that may pass. Three of them on three days within ten suppress the
    /// address for a while. A delay is `ignored`.
    SoftBounce,
    /// The provider gave the message up, for a reason that is not the address.
    Failed,
    /// The person said that this is spam.
    Complained,
    Unsubscribed,
    /// Known, and of no interest here.
    Ignored,
}

impl Said {
    pub const ALL: [Said; 10] = [
        Said::Accepted,
        Said::Delivered,
        Said::Opened,
        Said::Clicked,
        Said::HardBounce,
        Said::SoftBounce,
        Said::Failed,
        Said::Complained,
        Said::Unsubscribed,
        Said::Ignored,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Said::Accepted => "accepted",
            Said::Delivered => "delivered",
            Said::Opened => "opened",
            Said::Clicked => "clicked",
            Said::HardBounce => "hard_bounce",
            Said::SoftBounce => "soft_bounce",
            Said::Failed => "failed",
            Said::Complained => "complained",
            Said::Unsubscribed => "unsubscribed",
            Said::Ignored => "ignored",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`: its fields are the fields of the one event.
    Form,
}

/// The closed set of ways in which calls prove whose they are. Beside all of them stands the secret token in the path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    /// Standard Webhooks (v1: HMAC-SHA256 with a `whsec_` secret, v1a: Ed25519 with a `whpk_` key) over `id.timestamp.body`.
    StandardWebhooks {
        /// Headers are `{prefix}-id`, `-timestamp` and `-signature`: `webhook`, or `svix`.
        #[serde(default = "webhook")]
        prefix: String,
    },
    /// ECDSA P-256 over timestamp and body; the secret is the public key (base64).
    Sendgrid {},
    /// HMAC-SHA256 over timestamp and token within the body. The body itself is not signed, so the path token must be kept secret.
    Mailgun {},
    /// HMAC-SHA1 over the public URL and the form's fields; the secret is the account's auth token.
    Twilio {},
    /// `X-Hub-Signature-256` over the body; the secret is the app's.
    Meta {},
    /// HMAC-SHA256 in a header of your own.
    HmacSha256(HmacSha256),
    /// User and password in the URL that the provider was given; the secret is `user:password`.
    Basic {},
    /// Nothing but the secret token in the path.
    PathToken {},
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacSha256 {
    /// The header that carries the signature.
    pub header: String,
    /// What stands before the signature in it (`sha256=`). Default: nothing.
    #[serde(default)]
    pub prefix: String,
    /// Default: `hex`.
    #[serde(default)]
    pub encoding: Encoding,
    /// The header that carries the time, in seconds since 1970. Without it an old call cannot be told from a new one.
    #[serde(default)]
    pub timestamp_header: Option<String>,
    /// What is signed, from `{timestamp}` and `{body}`. Default: `{body}`.
    #[serde(default = "body")]
    pub signed: String,
    /// How old a call may be, in seconds. Default: 300.
    #[serde(default = "five_minutes")]
    pub tolerance_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    #[default]
    Hex,
    Base64,
}

fn yes() -> bool {
    true
}

fn webhook() -> String {
    "webhook".to_owned()
}

fn body() -> String {
    "{body}".to_owned()
}

fn five_minutes() -> u32 {
    300
}

// ----------------------------------------------------------------------------------------------------------------------- paths

/// A place in a payload: `/event-data/recipient`. `*` stands for each element, `[name=X-Id]` for the one with such a field (letter
/// case aside), `query:NAME` for a parameter of the URL that was called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(pub Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    Field(String),
    Each,
    With { field: String, value: String },
    Query(String),
}

impl Path {
    pub fn parse(text: &str) -> Result<Path, String> {
        if let Some(name) = text.strip_prefix("query:") {
            return match name {
                "" => Err("`query:` needs the name of a parameter".into()),
                name => Ok(Path(vec![Segment::Query(name.to_owned())])),
            };
        }
        if text.is_empty() {
            return Ok(Path::default());
        }
        let rest = text.strip_prefix('/').ok_or_else(|| format!("`{text}` is no place in a payload: it begins with `/` or `query:`"))?;
        rest.split('/').map(Segment::parse).collect::<Result<_, _>>().map(Path)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Segment, String> {
        if text == "*" {
            return Ok(Segment::Each);
        }
        let Some(inner) = text.strip_prefix('[') else {
            return Ok(Segment::Field(text.replace("~1", "/").replace("~0", "~")));
        };
        match inner.strip_suffix(']').and_then(|inner| inner.split_once('=')) {
            Some((field, value)) => Ok(Segment::With { field: field.to_owned(), value: value.to_owned() }),
            None => Err(format!("`{text}` should read `[field=value]`")),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.0 {
            match segment {
                Segment::Field(name) => write!(f, "/{}", name.replace('~', "~0").replace('/', "~1"))?,
                Segment::Each => f.write_str("/*")?,
                Segment::With { field, value } => write!(f, "/[{field}={value}]")?,
                Segment::Query(name) => write!(f, "query:{name}")?,
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Path::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// One path, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Path>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        One(String),
        More(Vec<String>),
    }
    let written = match Written::deserialize(from)? {
        Written::One(path) => vec![path],
        Written::More(paths) => paths,
    };
    written.iter().map(|path| Path::parse(path)).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

/// A word, or any of several. Numbers and booleans are compared as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Word {
            Text(String),
            Bool(bool),
            Int(i64),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(Word),
            More(Vec<Word>),
        }
        let text = |word: Word| match word {
            Word::Text(text) => text,
            Word::Bool(value) => value.to_string(),
            Word::Int(value) => value.to_string(),
        };
        Ok(Words(match Written::deserialize(from)? {
            Written::One(word) => vec![text(word)],
            Written::More(words) => words.into_iter().map(text).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Callback, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    const LEAST: &str = "signature: { scheme: path_token }\nmessage: query:m\noutcomes: []\n";

    #[test]
    fn a_callback_is_read_from_yaml() {
        let callback = read(
            "signature: { scheme: hmac_sha256, header: X-Sig, timestamp_header: X-Time, signed: '{timestamp}.{body}', encoding: base64 }
payload: form
events: /entry/*/statuses
message: [/a~1b/c, '/headers/[name=X-Id]/value', query:m]
outcomes:
  - { when: { /code: [21610, '30003'], /is_final: true }, is: hard_bounce }
",
        )
        .expect("a callback");
        let told: Vec<String> = callback.message.iter().map(Path::to_string).collect();
        assert_eq!(told, ["/a~1b/c", "/headers/[name=X-Id]/value", "query:m"]);
        assert_eq!(callback.events.0.get(1), Some(&Segment::Each));
        let Scheme::HmacSha256(hmac) = &callback.signature else { panic!("a scheme: {:?}", callback.signature) };
        assert_eq!((hmac.encoding, hmac.tolerance_s, &*hmac.signed), (Encoding::Base64, 300, "{timestamp}.{body}"));
        let line = callback.outcomes.first().expect("a line");
        assert_eq!((line.is, line.when.len()), (Said::HardBounce, 2));
        assert!(line.when.values().any(|words| words.0 == ["21610", "30003"]));
    }

    #[test]
    fn what_is_wrong_with_a_callback_is_said() {
        assert!(read(LEAST).is_ok());
        for (text, expected) in [
            (LEAST.replace("path_token", "rot13"), "rot13"),
            (LEAST.replace("query:m", "m"), "begins with `/` or `query:`"),
            (LEAST.replace("query:m", "'/[a]'"), "[field=value]"),
            (LEAST.replace("message:", "mesage:"), "mesage"),
            (format!("{LEAST}at: 5\n"), "`5` is no place"),
            (LEAST.replace("outcomes: []", "outcomes: [{ when: {}, is: bounced }]"), "bounced"),
        ] {
            let found = read(&text).expect_err("an error");
            assert!(found.contains(expected), "{text}\n{found}");
        }
    }

    #[test]
    fn every_meaning_has_the_name_it_is_written_by() {
        for said in Said::ALL {
            assert_eq!(serde_yaml::from_str::<Said>(said.name()).expect("a name"), said);
        }
    }
}
