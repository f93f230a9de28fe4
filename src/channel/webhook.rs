//! Webhooks to a system of one's own, signed as Standard Webhooks has it: the receiver verifies with any of its libraries, and tells a
//! repeated call by its `webhook-id`, which is our message id at every attempt.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use ring::hmac;
use serde_json::{Map, Value as Json, json};
use url::Url;

use super::http::client::{Answer, Client, NoAnswer, retry_after_ms};
use super::{Channel, ChannelError, Outcome, Outgoing, RetryClass};
use crate::engine::action::MessageId;
use crate::engine::time::{HOUR_MS, MINUTE_MS, SECOND_MS};
use crate::settings::Secret;
use crate::settings::providers::Webhook as Settings;

/// From one attempt to the next, by the specification; after the last one the message is given up.
pub const RETRIES_MS: [i64; 9] =
    [5 * SECOND_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, 2 * HOUR_MS, 5 * HOUR_MS, 10 * HOUR_MS, 14 * HOUR_MS, 20 * HOUR_MS, 24 * HOUR_MS];
/// More or less, so that what failed together does not come back together.
const JITTER_PERCENT: i64 = 20;
/// The specification's least for a secret is 24 bytes.
const SECRET_BYTES_MIN: usize = 24;

/// See the module's documentation.
pub struct Webhook {
    client: Client,
    url: Url,
    signer: Signer,
}

impl Webhook {
    /// # Errors
    /// A secret is none, or TLS cannot be set up.
    pub fn new(settings: &Settings) -> Result<Webhook, ChannelError> {
        let client = Client::new(&settings.allow_networks, settings.ca.as_deref())?;
        Ok(Webhook { client, url: settings.url.clone(), signer: Signer::new(&settings.secrets)? })
    }

    async fn attempt(&self, outgoing: &Outgoing<'_>) -> Result<Answer, NoAnswer> {
        let body = payload(outgoing).to_string();
        let id = outgoing.message.to_string();
        let timestamp = outgoing.at.as_ms().div_euclid(1_000);
        let request = self
            .client
            .request(Method::POST, self.url.clone())?
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.signer.sign(&id, timestamp, &body))
            .body(body);
        self.client.send(request, outgoing.timeout()).await
    }
}

#[async_trait]
impl Channel for Webhook {
    fn deduplicates(&self) -> bool {
        true
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        match self.attempt(outgoing).await {
            Ok(answer) => meaning(&answer, outgoing),
            Err(no_answer) => no_answer.outcome(true),
        }
    }
}

/// Signs with every secret that is live: the receiver knows one of them.
pub struct Signer(Vec<hmac::Key>);

impl Signer {
    /// Secrets as `whsec_BASE64`.
    ///
    /// # Errors
    /// One of them is too short or no base64.
    pub fn new(secrets: &[Secret]) -> Result<Signer, ChannelError> {
        let key = |secret: &Secret| {
            let text = secret.reveal().trim();
            let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok();
            let bytes = bytes.filter(|bytes| bytes.len() >= SECRET_BYTES_MIN);
            bytes.map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes)).ok_or_else(|| {
                ChannelError("its secret is no `whsec_` and base64 of 24 bytes or more (`echo whsec_$(openssl rand -base64 32)`)".into())
            })
        };
        secrets.iter().map(key).collect::<Result<_, _>>().map(Signer)
    }

    /// The header `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &str) -> String {
        let text = format!("{id}.{timestamp_s}.{body}");
        let sign = |key: &hmac::Key| format!("v1,{}", STANDARD.encode(hmac::sign(key, text.as_bytes())));
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

/// What is told: which message, to whom, by which rule, and its content part by part.
fn payload(outgoing: &Outgoing<'_>) -> Json {
    let content = outgoing.content;
    let parts: Map<String, Json> = content.parts().map(|(name, part)| (name.to_owned(), part.into())).collect();
    json!({
        "type": "message.sent",
        "timestamp": outgoing.at.to_string(),
        "data": {
            "id": outgoing.message.to_string(),
            "attempt": outgoing.attempt,
            "channel": outgoing.kind.name(),
            "category": outgoing.category.name(),
            "user_id": outgoing.profile,
            "to": outgoing.address,
            "rule": outgoing.rule,
            "template": outgoing.template,
            "locale": content.locale,
            "content": parts,
        },
    })
}

/// 2xx is taken, everything else is not. 410 says that nobody lives there any more: for an operator to mend.
fn meaning(answer: &Answer, outgoing: &Outgoing<'_>) -> Outcome {
    let status = answer.status.as_u16();
    let detail = format!("answered {status}");
    let asked = retry_after_ms(&answer.headers, outgoing.at);
    match status {
        200..300 => Outcome::Accepted { provider_id: String::new() },
        410 => Outcome::Retry { class: RetryClass::Config, after_ms: None, detail },
        429 => Outcome::Retry { class: RetryClass::Throttle, after_ms: asked, detail },
        _ => match retry_ms(outgoing.message, outgoing.attempt) {
            Some(scheduled) => Outcome::Retry { class: RetryClass::Transient, after_ms: Some(asked.unwrap_or(scheduled)), detail },
            None => Outcome::Rejected { suppress: false, detail },
        },
    }
}

/// How long to wait after this attempt; none: it was the last.
fn retry_ms(message: MessageId, attempt: u32) -> Option<i64> {
    let wait_ms = *RETRIES_MS.get(usize::try_from(attempt.checked_sub(1)?).ok()?)?;
    let span_ms = wait_ms * JITTER_PERCENT / 100;
    let mut seed = message.0.to_be_bytes().to_vec();
    seed.extend_from_slice(&attempt.to_be_bytes());
    let chance = twox_hash::XxHash3_64::oneshot(&seed) % u64::try_from(2 * span_ms + 1).unwrap_or(1);
    Some(wait_ms - span_ms + i64::try_from(chance).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_known_vectors() {
        let vectors: Json = serde_json::from_str(include_str!("../../tests/data/vectors/standard-webhooks.json")).expect("vectors");
        for vector in vectors.as_array().expect("a list") {
            let text = |name: &str| vector[name].as_str().expect("a text").to_owned();
            let key = STANDARD.decode(text("secret").trim_start_matches("whsec_")).expect("base64");
            let signer = Signer(vec![hmac::Key::new(hmac::HMAC_SHA256, &key)]);
            let timestamp = text("webhook-timestamp").parse().expect("seconds");
            assert_eq!(signer.sign(&text("webhook-id"), timestamp, &text("body")), text("webhook-signature"));
        }
    }

    #[test]
    fn the_schedule_is_the_specifications_within_a_fifth() {
        for (attempt, wait_ms) in (1u32..).zip(RETRIES_MS) {
            for message in 0..50 {
                let got = retry_ms(MessageId(message), attempt).expect("another attempt");
                assert!((wait_ms * 8 / 10..=wait_ms * 12 / 10).contains(&got), "{attempt}: {got}");
            }
        }
        assert_eq!(retry_ms(MessageId(1), 10), None);
        assert_eq!(RETRIES_MS.iter().sum::<i64>(), 75 * HOUR_MS + 35 * MINUTE_MS + 5 * SECOND_MS);
    }

    #[test]
    fn secrets_that_are_none_are_refused() {
        let given = |text: &str| Signer::new(&[Secret::given(text)]).is_ok();
        assert!(given("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") && given("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64 at all, however long it is"] {
            assert!(!given(text), "{text}");
        }
    }
}
