//! Is this call from whom it says it is? A closed set of schemes, all over the raw bytes as they came, compared in constant time,
//! with as many live secrets as a rotation needs.
//!
//! Pure: the call and the instant go in, the answer comes out. What is refused here has changed nothing and has been read no further.
//!
//! A time that is signed bounds how long a caught call can be played again. Where a provider signs every attempt anew that is five
//! minutes; where its retries carry the first attempt's time it is as long as it retries. Whatever is played again within that window
//! changes nothing either, since results are merged and events have ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::HeaderMap;
use ring::{digest, hmac, signature};

use crate::channel::callback::{Encoding, HmacSha256, Scheme};
use crate::engine::time::{HOUR_MS, MINUTE_MS, SECOND_MS, Timestamp};

/// How old a call of Standard Webhooks may be, and how far ahead of ours any sender's clock.
const TOLERANCE_MS: i64 = 5 * MINUTE_MS;
/// SendGrid repeats a batch for a day under its first time.
const SENDGRID_RETRIES_MS: i64 = 24 * HOUR_MS;
/// Mailgun repeats a call for eight hours under its first time.
const MAILGUN_RETRIES_MS: i64 = 8 * HOUR_MS;

/// What stands before the point of the curve in a P-256 public key (SubjectPublicKeyInfo, RFC 5480): an algorithm without choices.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

/// A call as it came.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// As the provider knows it: scheme, our public host, path and query.
    pub url: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub now: Timestamp,
}

/// Why a call is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// What should carry the signature, or its time, is not there.
    Missing(String),
    /// It is there and cannot be read.
    Unreadable(String),
    /// Signed so many milliseconds ago, which is too long: it may have been caught and is played again.
    Stale { age_ms: i64 },
    /// Signed in a future that no clock explains.
    Future { ahead_ms: i64 },
    /// No live secret makes this signature.
    Forged,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Missing(what) => write!(f, "{what} is missing"),
            Refused::Unreadable(what) => write!(f, "{what} cannot be read"),
            Refused::Stale { age_ms } => write!(f, "signed {} s ago, which is too old", age_ms / SECOND_MS),
            Refused::Future { ahead_ms } => write!(f, "signed {} s in the future", ahead_ms / SECOND_MS),
            Refused::Forged => f.write_str("the signature is of no live secret"),
        }
    }
}

/// Checks the calls of one provider.
pub struct Verifier {
    scheme: Scheme,
    keys: Vec<Key>,
}

/// A secret, read once.
enum Key {
    Hmac(hmac::Key),
    Ed25519(Vec<u8>),
    /// The uncompressed point.
    P256(Vec<u8>),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?}, {} secrets)", self.scheme, self.keys.len())
    }
}

impl Verifier {
    /// With all live secrets; each scheme says in [`Scheme`] what its secret is.
    ///
    /// # Errors
    /// No secret where the scheme needs one, or one that cannot be read. The secret is never part of the message.
    pub fn new(scheme: &Scheme, secrets: &[&str]) -> Result<Verifier, String> {
        if secrets.is_empty() && !matches!(scheme, Scheme::PathToken {}) {
            return Err("its scheme needs a secret, and none is given".into());
        }
        if secrets.iter().any(|secret| secret.is_empty()) {
            return Err("a secret is empty".into());
        }
        let keys = secrets.iter().enumerate().map(|(n, secret)| read_key(scheme, secret).map_err(|why| format!("secret {}: {why}", n + 1)));
        Ok(Verifier { scheme: scheme.clone(), keys: keys.collect::<Result<_, _>>()? })
    }

    /// Whether one of the secrets signed this call, not too long ago.
    pub fn verify(&self, call: &Call<'_>) -> Result<(), Refused> {
        match &self.scheme {
            Scheme::StandardWebhooks { prefix } => self.standard_webhooks(call, prefix),
            Scheme::Sendgrid {} => self.sendgrid(call),
            Scheme::Mailgun {} => self.mailgun(call),
            Scheme::Twilio {} => self.twilio(call),
            Scheme::Meta {} => {
                let given = header(call, "x-hub-signature-256")?;
                let given = given.strip_prefix("sha256=").ok_or_else(|| unreadable("the header `x-hub-signature-256`"))?;
                self.any_hmac(call.body, &from_hex(given, "x-hub-signature-256")?)
            }
            Scheme::HmacSha256(form) => self.hmac_sha256(call, form),
            Scheme::Basic {} => self.basic(call),
            // the path token was compared before anything else
            Scheme::PathToken {} => Ok(()),
        }
    }

    fn standard_webhooks(&self, call: &Call<'_>, prefix: &str) -> Result<(), Refused> {
        let [id, timestamp, given] = ["id", "timestamp", "signature"].map(|part| header(call, &format!("{prefix}-{part}")));
        let (id, timestamp, given) = (id?, timestamp?, given?);
        in_window(seconds(timestamp)?, call.now, TOLERANCE_MS)?;
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", call.body].concat();
        // several signatures stand in one header while a secret is changed
        let mut readable = false;
        for (version, text) in given.split(' ').filter_map(|one| one.split_once(',')) {
            let Ok(bytes) = STANDARD.decode(text) else { continue };
            readable = true;
            let by = |key: &Key| match (version, key) {
                ("v1", Key::Hmac(key)) => hmac::verify(key, &signed, &bytes).is_ok(),
                ("v1a", Key::Ed25519(key)) => signature::UnparsedPublicKey::new(&signature::ED25519, key).verify(&signed, &bytes).is_ok(),
                _ => false,
            };
            if self.keys.iter().any(by) {
                return Ok(());
            }
        }
        Err(if readable { Refused::Forged } else { unreadable(&format!("the header `{prefix}-signature`")) })
    }

    fn sendgrid(&self, call: &Call<'_>) -> Result<(), Refused> {
        let given = header(call, "x-twilio-email-event-webhook-signature")?;
        let timestamp = header(call, "x-twilio-email-event-webhook-timestamp")?;
        in_window(seconds(timestamp)?, call.now, SENDGRID_RETRIES_MS)?;
        let given = from_base64(given, "x-twilio-email-event-webhook-signature")?;
        let signed = [timestamp.as_bytes(), call.body].concat();
        let by = |key: &Key| match key {
            Key::P256(point) => {
                signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point).verify(&signed, &given).is_ok()
            }
            _ => false,
        };
        if self.keys.iter().any(by) { Ok(()) } else { Err(Refused::Forged) }
    }

    /// The signature stands in the body and covers only a time and a token beside it.
    fn mailgun(&self, call: &Call<'_>) -> Result<(), Refused> {
        #[derive(serde::Deserialize)]
        struct Signed {
            signature: Block,
        }
        #[derive(serde::Deserialize)]
        struct Block {
            timestamp: String,
            token: String,
            signature: String,
        }
        let Signed { signature: block } =
            serde_json::from_slice(call.body).map_err(|_| Refused::Missing("`signature` in the body".into()))?;
        in_window(seconds(&block.timestamp)?, call.now, MAILGUN_RETRIES_MS)?;
        self.any_hmac(format!("{}{}", block.timestamp, block.token).as_bytes(), &from_hex(&block.signature, "signature")?)
    }

    /// The URL as Twilio calls it, then every field of the form, sorted. A body that is no form is signed by its hash in the URL.
    fn twilio(&self, call: &Call<'_>) -> Result<(), Refused> {
        let given = from_base64(header(call, "x-twilio-signature")?, "x-twilio-signature")?;
        let url = url::Url::parse(call.url).map_err(|_| unreadable("the URL"))?;
        let hash = url.query_pairs().find(|(name, _)| name == "bodySHA256").map(|(_, value)| value.into_owned());
        let mut fields = String::new();
        if let Some(hash) = hash {
            let found = digest::digest(&digest::SHA256, call.body);
            if from_hex(&hash, "bodySHA256")? != found.as_ref() {
                return Err(Refused::Forged);
            }
        } else {
            // a field that stands twice counts once for each different value
            let mut sorted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (name, value) in url::form_urlencoded::parse(call.body) {
                sorted.entry(name.into_owned()).or_default().insert(value.into_owned());
            }
            for (name, values) in sorted {
                values.iter().for_each(|value| fields.extend([name.as_str(), value]));
            }
        }
        // proxies and Twilio disagree about whether the standard port is named
        let forms = [call.url.to_owned(), with_port(&url), without_port(&url)];
        let matches = forms.iter().any(|form| self.any_hmac(format!("{form}{fields}").as_bytes(), &given).is_ok());
        if matches { Ok(()) } else { Err(Refused::Forged) }
    }

    fn hmac_sha256(&self, call: &Call<'_>, form: &HmacSha256) -> Result<(), Refused> {
        let given = header(call, &form.header)?;
        let given = given.strip_prefix(&form.prefix).ok_or_else(|| unreadable(&format!("the header `{}`", form.header)))?;
        let given = match form.encoding {
            Encoding::Hex => from_hex(given, &form.header)?,
            Encoding::Base64 => from_base64(given, &form.header)?,
        };
        let timestamp = form.timestamp_header.as_ref().map(|name| header(call, name)).transpose()?;
        if let Some(timestamp) = timestamp {
            in_window(seconds(timestamp)?, call.now, i64::from(form.tolerance_s) * SECOND_MS)?;
        }
        let mut signed = Vec::with_capacity(call.body.len() + form.signed.len());
        let mut rest = form.signed.as_str();
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            signed.extend_from_slice(before.as_bytes());
            rest = if let Some(after) = from.strip_prefix("{timestamp}") {
                signed.extend_from_slice(timestamp.unwrap_or_default().as_bytes());
                after
            } else if let Some(after) = from.strip_prefix("{body}") {
                signed.extend_from_slice(call.body);
                after
            } else {
                signed.push(b'{');
                from.strip_prefix('{').unwrap_or_default()
            };
        }
        signed.extend_from_slice(rest.as_bytes());
        self.any_hmac(&signed, &given)
    }

    fn basic(&self, call: &Call<'_>) -> Result<(), Refused> {
        let given = header(call, "authorization")?;
        let (kind, given) = given.split_once(' ').ok_or_else(|| unreadable("the header `authorization`"))?;
        if !kind.eq_ignore_ascii_case("basic") {
            return Err(unreadable("the header `authorization`"));
        }
        let given = from_base64(given.trim(), "authorization")?;
        // the keys are those of the expected text: equal texts have equal codes, and nothing is told by how long it takes
        let by =
            |key: &Key| matches!(key, Key::Hmac(key) if hmac::verify(key, BASIC, hmac::sign(&hmac_key(&given), BASIC).as_ref()).is_ok());
        if self.keys.iter().any(by) { Ok(()) } else { Err(Refused::Forged) }
    }

    fn any_hmac(&self, signed: &[u8], given: &[u8]) -> Result<(), Refused> {
        let by = |key: &Key| matches!(key, Key::Hmac(key) if hmac::verify(key, signed, given).is_ok());
        if self.keys.iter().any(by) { Ok(()) } else { Err(Refused::Forged) }
    }
}

/// What is signed to compare passwords.
const BASIC: &[u8] = b"basic";

/// Whether a text is one of the secret ones, without telling by the time it takes how much of it is right.
pub fn is_one_of<S: AsRef<str>>(given: &str, secrets: &[S]) -> bool {
    let tag = hmac::sign(&hmac_key(given.as_bytes()), BASIC);
    secrets.iter().fold(false, |found, secret| {
        let secret = secret.as_ref();
        let equal = !secret.is_empty() && hmac::verify(&hmac_key(secret.as_bytes()), BASIC, tag.as_ref()).is_ok();
        found | equal
    })
}

fn read_key(scheme: &Scheme, secret: &str) -> Result<Key, String> {
    let decoded =
        |text: &str| STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).map_err(|_| "what should be base64 is not".to_owned());
    match scheme {
        Scheme::StandardWebhooks { .. } => match secret.strip_prefix("whpk_") {
            Some(key) => Ok(Key::Ed25519(decoded(key)?)),
            None => Ok(Key::Hmac(hmac_key(&decoded(secret.strip_prefix("whsec_").unwrap_or(secret))?))),
        },
        Scheme::Sendgrid {} => {
            let key = decoded(secret)?;
            let point = key.strip_prefix(&P256_HEAD).filter(|point| point.len() == 65);
            Ok(Key::P256(point.ok_or("it is no public key of the curve P-256")?.to_vec()))
        }
        Scheme::Twilio {} => Ok(Key::Hmac(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes()))),
        Scheme::Basic {} if !secret.contains(':') => Err("it should read `user:password`".into()),
        Scheme::Mailgun {} | Scheme::Meta {} | Scheme::HmacSha256(_) | Scheme::Basic {} | Scheme::PathToken {} => {
            Ok(Key::Hmac(hmac_key(secret.as_bytes())))
        }
    }
}

fn hmac_key(secret: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

fn header<'a>(call: &Call<'a>, name: &str) -> Result<&'a str, Refused> {
    let value = call.headers.get(name).ok_or_else(|| Refused::Missing(format!("the header `{name}`")))?;
    value.to_str().map_err(|_| unreadable(&format!("the header `{name}`")))
}

fn unreadable(what: &str) -> Refused {
    Refused::Unreadable(what.to_owned())
}

fn seconds(text: &str) -> Result<Timestamp, Refused> {
    let seconds = text.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(SECOND_MS));
    seconds.map(Timestamp::from_ms).ok_or_else(|| unreadable("the time of the signature"))
}

fn in_window(signed_at: Timestamp, now: Timestamp, age_ms_max: i64) -> Result<(), Refused> {
    let age_ms = now.as_ms().saturating_sub(signed_at.as_ms());
    if age_ms > age_ms_max {
        Err(Refused::Stale { age_ms })
    } else if age_ms < -TOLERANCE_MS {
        Err(Refused::Future { ahead_ms: age_ms.saturating_neg() })
    } else {
        Ok(())
    }
}

fn from_base64(text: &str, what: &str) -> Result<Vec<u8>, Refused> {
    STANDARD.decode(text).map_err(|_| unreadable(&format!("`{what}`")))
}

fn from_hex(text: &str, what: &str) -> Result<Vec<u8>, Refused> {
    let pair = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bytes = is_hex.then(|| text.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>()).flatten();
    bytes.ok_or_else(|| unreadable(&format!("`{what}`")))
}

/// The URL with its port named, also the standard one, which the URL's own rules leave out.
fn with_port(url: &url::Url) -> String {
    let (text, port) = (url.as_str(), url.port_or_known_default().unwrap_or(443));
    match (url.port(), url.host_str()) {
        (None, Some(host)) => text.replacen(host, &format!("{host}:{port}"), 1),
        _ => text.to_owned(),
    }
}

fn without_port(url: &url::Url) -> String {
    let mut url = url.clone();
    // a URL without a host has no port to take away
    let _unchanged = url.set_port(None);
    url.to_string()
}
