//! Messages by one HTTP request each, to any provider that is described as data ([`provider`]).

pub mod body;
pub mod client;
pub mod provider;

use std::collections::BTreeMap;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value as Json;
use url::Url;

use self::body::Values;
use self::client::{Answer, Client, NoAnswer, retry_after_ms};
use self::provider::{AnswerRule, Auth, Description, Meaning, Send, Where, plain};
use super::{Channel, ChannelError, Outcome, Outgoing, RetryClass};
use crate::engine::action::Channel as Kind;
use crate::engine::time::Timestamp;
use crate::links::Links;
use crate::settings::Secret;
use crate::settings::providers::Http;

/// Of an answer's text, what is kept for people.
const DETAIL_BYTES_MAX: usize = 300;

/// See the module's documentation.
pub struct HttpProvider {
    client: Client,
    description: Description,
    values: BTreeMap<String, Secret>,
    links: Option<Links>,
    callback_url: Option<String>,
}

/// A request as it would leave, for `provider check` and for sending.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(String, String)>,
    pub auth: Option<Auth>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Json(Json),
    Form(Vec<(String, String)>),
}

impl HttpProvider {
    /// `name`: as the settings call it; `public_url`: where callbacks come in.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(name: &str, settings: &Http, links: Option<Links>, public_url: Option<&Url>) -> Result<HttpProvider, ChannelError> {
        let client = Client::new(&settings.allow_networks, settings.ca.as_deref())?;
        let callback_url = public_url.zip(settings.callback_token.as_ref()).map(|(url, token)| callback_url(url, name, token));
        Ok(HttpProvider { client, description: settings.description.clone(), values: settings.values.clone(), links, callback_url })
    }

    async fn attempt(&self, outgoing: &Outgoing<'_>) -> Result<Answer, Result<NoAnswer, Outcome>> {
        let values = Values::of(outgoing, &self.values, self.links.as_ref(), self.callback_url.as_deref());
        let values = values.map_err(|error| Err(error.outcome()))?;
        let request = request(&self.description.send, &values).map_err(|detail| Err(Outcome::Rejected { suppress: false, detail }))?;
        let mut builder = self.client.request(request.method, request.url).map_err(Ok)?;
        for (name, value) in request.headers {
            let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
            let wrong = || Err(Outcome::Rejected { suppress: false, detail: "a header cannot hold what was to be said".into() });
            let (name, value) = header.ok_or_else(wrong)?;
            builder = builder.header(name, value);
        }
        builder = match request.auth {
            Some(Auth::Bearer(token)) => builder.bearer_auth(token),
            Some(Auth::Basic { user, password }) => builder.basic_auth(user, Some(password)),
            None => builder,
        };
        builder = match request.body {
            Body::Json(json) => builder.json(&json),
            Body::Form(fields) => {
                let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                builder.header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(text)
            }
        };
        self.client.send(builder, outgoing.timeout()).await.map_err(Ok)
    }
}

#[async_trait]
impl Channel for HttpProvider {
    fn deduplicates(&self) -> bool {
        self.description.send.deduplicates
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        if let Some(refused) = unfit(outgoing) {
            return refused;
        }
        match self.attempt(outgoing).await {
            Ok(answer) => meaning(&self.description.send, &answer, outgoing.at),
            Err(Err(outcome)) => outcome,
            Err(Ok(no_answer)) => no_answer.outcome(self.deduplicates()),
        }
    }
}

impl NoAnswer {
    pub fn outcome(self, deduplicates: bool) -> Outcome {
        match self {
            NoAnswer::NotSent(detail) => Outcome::Retry { class: RetryClass::Transient, after_ms: None, detail },
            NoAnswer::Lost(detail) => Outcome::Ambiguous { ask_again: deduplicates, detail },
        }
    }
}

/// Where a provider's callbacks come in.
pub fn callback_url(public_url: &Url, name: &str, token: &Secret) -> String {
    format!("{}/callbacks/{name}/{}", public_url.as_str().trim_end_matches('/'), token.reveal())
}

/// An address that cannot be one is not asked about.
fn unfit(outgoing: &Outgoing<'_>) -> Option<Outcome> {
    let is_fit = match outgoing.kind {
        Kind::Email => super::email::letter::address(outgoing.address).is_some(),
        Kind::Sms | Kind::Whatsapp => {
            let digits = outgoing.address.strip_prefix('+').unwrap_or(outgoing.address);
            (6..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        Kind::Push => !outgoing.address.is_empty() && !outgoing.address.chars().any(char::is_control),
        Kind::Inapp | Kind::Webhook => true,
    };
    (!is_fit).then(|| Outcome::Rejected { suppress: true, detail: "the address is not valid".into() })
}

/// The request for these values.
///
/// # Errors
/// Something that must be said is missing.
pub fn request(send: &Send, values: &Values<'_>) -> Result<Request, String> {
    let filled = |what: &str, text: &str| values.text(text).ok_or_else(|| format!("{what} needs a value that this message does not have"));
    let url = filled("the address", &send.url)?;
    let url = Url::parse(&url).map_err(|error| format!("the provider's address is none: {error}"))?;
    let auth = match &send.auth {
        Some(Auth::Bearer(token)) => Some(Auth::Bearer(filled("the authentication", token)?)),
        Some(Auth::Basic { user, password }) => {
            Some(Auth::Basic { user: filled("the authentication", user)?, password: filled("the authentication", password)? })
        }
        None => None,
    };
    let headers = send.headers.iter().filter_map(|(name, value)| Some((name.clone(), values.text(value)?))).collect();
    let body = match (&send.json, &send.form) {
        (Some(json), _) => Body::Json(values.json(json).ok_or("nothing is left of the body")?),
        (None, Some(form)) => Body::Form(form.iter().filter_map(|(key, value)| Some((key.clone(), values.text(value)?))).collect()),
        (None, None) => return Err("the provider's file says nothing of a body".into()),
    };
    let method = if send.method == "PUT" { Method::PUT } else { Method::POST };
    Ok(Request { method, url, headers, auth, body })
}

/// What an answer means for the message.
pub fn meaning(send: &Send, answer: &Answer, now: Timestamp) -> Outcome {
    let json: Option<Json> = serde_json::from_slice(&answer.body).ok();
    let fits = |rule: &&AnswerRule| {
        let json_fits =
            || rule.json.iter().all(|(at, wanted)| json.as_ref().and_then(|json| json.pointer(at)).is_some_and(|found| wanted.fits(found)));
        (rule.status.is_empty() || rule.status.contains(&answer.status.as_u16())) && json_fits()
    };
    let meaning = send.answers.iter().find(fits).map_or_else(|| by_status(answer.status.as_u16()), |rule| rule.means);
    let after_ms = retry_after_ms(&answer.headers, now);
    let retry = |class| Outcome::Retry { class, after_ms, detail: detail(answer) };
    match meaning {
        Meaning::Accepted => Outcome::Accepted { provider_id: provider_id(send, answer, json.as_ref()) },
        Meaning::Retry => retry(RetryClass::Transient),
        Meaning::Throttle => retry(RetryClass::Throttle),
        Meaning::Config => retry(RetryClass::Config),
        Meaning::Rejected => Outcome::Rejected { suppress: false, detail: detail(answer) },
        Meaning::Suppress => Outcome::Rejected { suppress: true, detail: detail(answer) },
    }
}

fn by_status(status: u16) -> Meaning {
    match status {
        200..300 => Meaning::Accepted,
        429 => Meaning::Throttle,
        401 | 403 => Meaning::Config,
        408 | 425 | 500.. => Meaning::Retry,
        // redirects are not followed, and are no acceptance
        _ => Meaning::Rejected,
    }
}

/// A good answer without an id, or that is no JSON, is a good answer all the same.
fn provider_id(send: &Send, answer: &Answer, json: Option<&Json>) -> String {
    let id = match &send.message_id {
        Some(Where::Header(name)) => answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned),
        Some(Where::Json(at)) => json.and_then(|json| json.pointer(at)).and_then(plain),
        None => None,
    };
    id.map(|id| id.chars().take(DETAIL_BYTES_MAX).collect()).unwrap_or_default()
}

fn detail(answer: &Answer) -> String {
    let head = answer.body.get(..DETAIL_BYTES_MAX.min(answer.body.len())).unwrap_or_default();
    let text: String = String::from_utf8_lossy(head).split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} {text}", answer.status.as_u16()).trim_end().to_owned()
}
