//! An HTTP provider as data: the request that goes out, what its answers mean, and how its callbacks are read. Files of this form
//! are shipped in `config/providers/`; one's own is named in the settings. Nothing here does anything: `super` sends by the first
//! half ([`Send`]), `feedback` reads by the second ([`Callback`]).
//!
//! Texts of the request hold values in double braces: `{{ to }}`, `{{ settings.api_key }}`. A text in which a value is missing is left
//! out, with its key or as an item of its list, and so is what is left empty by that. `{ if: html, then: ... }` stands where something
//! is said only if a value is there, `{ each: whatsapp_lines, of: ... }` where it is said for every `{{ line }}`. The names are those of
//! [`super::body`]; an unknown one is refused as the file is read.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::channel::callback::Callback;
use crate::engine::action::Channel;

/// A provider's file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Version of this form: 1.
    pub rekindle: u32,
    /// As people call it.
    pub name: String,
    /// What it carries: `[email]`, `[sms, whatsapp]`.
    pub channels: Vec<String>,
    /// What the administrator's file says under `providers.NAME` beside `kind` and `file`.
    #[serde(default)]
    pub settings: BTreeMap<String, Setting>,
    pub send: Send,
    /// How its callbacks are read. They arrive at `/callbacks/NAME/TOKEN`: the provider's name in the settings, and a secret of its own.
    #[serde(default)]
    pub callback: Option<Callback>,
}

/// What the administrator's file may say of every provider of kind `http`.
pub const COMMON_SETTINGS: [&str; 7] =
    ["kind", "file", "ca", "allow_networks", "callback_token", "callback_secret", "callback_secret_before"];

/// A value that differs from shop to shop.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// What it is and where to find it at the provider.
    pub about: String,
    /// Accepted as `env:` or `file:` only, never printed.
    #[serde(default)]
    pub secret: bool,
    /// What holds where nothing is said. Without it the setting must be given, unless it is `optional`.
    #[serde(default)]
    pub default: Option<String>,
    #[serde(default)]
    pub optional: bool,
}

// ------------------------------------------------------------------------------------------------------------------------ out

/// The request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    #[serde(default = "post")]
    pub method: String,
    pub url: String,
    #[serde(default, with = "serde_yaml::with::singleton_map")]
    pub auth: Option<Auth>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: one of `json`, `form`.
    #[serde(default)]
    pub json: Option<serde_json::Value>,
    #[serde(default)]
    pub form: Option<BTreeMap<String, String>>,
    /// Where the provider's own id of the message stands in a good answer.
    #[serde(default, with = "serde_yaml::with::singleton_map")]
    pub message_id: Option<Where>,
    /// A second request with the same id (a header of `headers` carries it) sends nothing: what is in doubt is asked again.
    #[serde(default)]
    pub deduplicates: bool,
    /// Read from the top, the first that fits decides; what fits none is judged by its status: 2xx accepted, 429 throttle, 401 and 403
    /// config, 408 and 5xx retry, the others rejected.
    #[serde(default)]
    pub answers: Vec<AnswerRule>,
}

fn post() -> String {
    "POST".to_owned()
}

/// How the request proves who we are. The texts may hold `{{ settings.NAME }}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Auth {
    Bearer(String),
    Basic { user: String, password: String },
}

/// Exactly one of the two.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Where {
    /// A header's name.
    Header(String),
    /// A JSON pointer (RFC 6901) into the body: `/messages/0/id`.
    Json(String),
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerRule {
    /// Any of these; none: any.
    #[serde(default)]
    pub status: Vec<u16>,
    /// JSON pointer and the values that fit there: all pointers must fit.
    #[serde(default)]
    pub json: BTreeMap<String, Match>,
    pub means: Meaning,
}

/// One value, or any of several.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Match {
    Any(Vec<serde_json::Value>),
    One(serde_json::Value),
}

impl Match {
    /// Numbers and their texts are alike here: providers are not of one mind whether a code is `21610` or `"21610"`.
    pub fn fits(&self, value: &serde_json::Value) -> bool {
        let same = |wanted: &serde_json::Value| wanted == value || plain(wanted) == plain(value) && plain(value).is_some();
        match self {
            Match::One(wanted) => same(wanted),
            Match::Any(wanted) => wanted.iter().any(same),
        }
    }
}

/// Text of a scalar.
pub fn plain(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    Accepted,
    /// Later, by the schedule.
    Retry,
    /// We are too fast.
    Throttle,
    /// Our account is refused: no message gets through until somebody mends it.
    Config,
    /// This message will never be taken.
    Rejected,
    /// This address will never take one: it goes on the suppression list.
    Suppress,
}

// -------------------------------------------------------------------------------------------------------------------- reading

/// Why a provider's file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider file `{file}`: {reason}")]
pub struct DescriptionError {
    pub file: String,
    pub reason: String,
}

impl Description {
    /// Reads a file; `file` is what errors call it.
    ///
    /// # Errors
    /// It is no YAML of this form, or says what cannot be.
    pub fn read(file: &str, text: &str) -> Result<Description, DescriptionError> {
        let error = |reason: String| DescriptionError { file: file.to_owned(), reason };
        let description: Description = serde_yaml::from_str(text).map_err(|e| error(e.to_string()))?;
        description.check().map_err(error)?;
        Ok(description)
    }

    /// The channels it carries.
    pub fn channels(&self) -> impl Iterator<Item = Channel> {
        self.channels.iter().filter_map(|name| Channel::named(name))
    }

    fn check(&self) -> Result<(), String> {
        if self.rekindle != 1 {
            return Err(format!("`rekindle: {}` is a form that this program does not know; it knows 1", self.rekindle));
        }
        if let Some(unknown) = self.channels.iter().find(|name| Channel::named(name).is_none()) {
            let known = Channel::ALL.map(Channel::name).join(", ");
            return Err(format!("`{unknown}` is no channel; known: {known}"));
        }
        if self.send.json.is_some() == self.send.form.is_some() {
            return Err("`send` has exactly one of `json`, `form`".into());
        }
        if !matches!(self.send.method.as_str(), "POST" | "PUT") {
            return Err(format!("`method: {}`: expected POST or PUT", self.send.method));
        }
        if let Some(own) = self.settings.keys().find(|key| COMMON_SETTINGS.contains(&key.as_str())) {
            return Err(format!("the setting `{own}` is common to all providers: it is not declared"));
        }
        super::body::unknown_names(self).map_or(Ok(()), Err)
    }
}

/// The shipped files, by the name under which the settings may call them.
pub fn shipped() -> [(&'static str, &'static str); 7] {
    [
        ("sendgrid", include_str!("../../../config/providers/sendgrid.yaml")),
        ("mailgun", include_str!("../../../config/providers/mailgun.yaml")),
        ("postmark", include_str!("../../../config/providers/postmark.yaml")),
        ("resend", include_str!("../../../config/providers/resend.yaml")),
        ("twilio", include_str!("../../../config/providers/twilio.yaml")),
        ("whatsapp-cloud", include_str!("../../../config/providers/whatsapp-cloud.yaml")),
        ("sms-gateway", include_str!("../../../config/providers/sms-gateway.yaml")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_file_is_sound() {
        for (name, text) in shipped() {
            let description = Description::read(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert!(description.callback.is_some() && description.channels().count() == description.channels.len(), "{name}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        let (_, sound) = shipped()[6];
        for (from, to, expected) in [
            ("rekindle: 1", "rekindle: 2", "it knows 1"),
            ("channels: [sms]", "channels: [fax]", "`fax` is no channel"),
            ("  url: \"{{ settings.url }}\"", "  method: GET\n  url: \"{{ settings.url }}\"", "expected POST or PUT"),
            ("  json:\n    id:", "  form: { a: b }\n  json:\n    id:", "exactly one of `json`, `form`"),
            ("  token: {", "  callback_token: {", "`callback_token` is common to all providers"),
            ("  auth:", "  ahut:", "unknown field `ahut`"),
            ("{{ sms }}", "{{ smss }}", "`{{ smss }}` is no value, did you mean `sms`?"),
            ("is: delivered", "is: arrived", "unknown variant `arrived`"),
        ] {
            assert!(sound.contains(from), "{from}");
            let error = Description::read("own.yaml", &sound.replacen(from, to, 1)).expect_err(expected).to_string();
            assert!(error.starts_with("provider file `own.yaml`: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn numbers_and_their_texts_are_alike() {
        let one = |value: serde_json::Value| Match::One(value);
        assert!(one(21610.into()).fits(&"21610".into()) && one("21610".into()).fits(&21610.into()));
        assert!(!one(21610.into()).fits(&21611.into()) && !one(serde_json::json!({})).fits(&serde_json::json!([])));
        assert!(Match::Any(vec!["a".into(), true.into()]).fits(&true.into()));
    }
}
