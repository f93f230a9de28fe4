//! Push by Firebase Cloud Messaging, HTTP v1: one request per device token, authorised as a service account ([`oauth`]).

pub mod oauth;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value as Json, json};
use url::Url;

use self::oauth::{ServiceAccount, Tokens};
use super::http::client::{Answer, Client, NoAnswer, retry_after_ms};
use super::{Channel, ChannelError, Outcome, Outgoing, RetryClass};
use crate::engine::time::Timestamp;
use crate::settings::providers::Fcm as Settings;

/// See the module's documentation.
pub struct Fcm {
    client: Client,
    url: Url,
    tokens: Tokens,
}

impl Fcm {
    /// # Errors
    /// The service account is no such file, or TLS cannot be set up.
    pub fn new(settings: &Settings) -> Result<Fcm, ChannelError> {
        let client = Client::new(&settings.allow_networks, settings.ca.as_deref())?;
        let account = ServiceAccount::read(settings.service_account.reveal())?;
        let path = format!("v1/projects/{}/messages:send", account.project_id);
        let url = settings.base_url.join(&path).map_err(|error| ChannelError(format!("the project's id: {error}")))?;
        Ok(Fcm { tokens: Tokens::new(account, client.clone()), client, url })
    }

    async fn attempt(&self, outgoing: &Outgoing<'_>) -> Result<Answer, Outcome> {
        let token = self.tokens.token(outgoing.at).await?;
        let answer = self.post(outgoing, &token).await?;
        if answer.status.as_u16() != 401 || error_code(&answer) == "THIRD_PARTY_AUTH_ERROR" {
            return Ok(answer);
        }
        // taken back before its time: a new one once, then it is the account
        self.tokens.forget(&token).await;
        let token = self.tokens.token(outgoing.at).await?;
        self.post(outgoing, &token).await
    }

    async fn post(&self, outgoing: &Outgoing<'_>, token: &str) -> Result<Answer, Outcome> {
        let lost = |no_answer: NoAnswer| no_answer.outcome(false);
        let request = self.client.request(Method::POST, self.url.clone()).map_err(lost)?;
        self.client.send(request.bearer_auth(token).json(&payload(outgoing)), outgoing.timeout()).await.map_err(lost)
    }
}

#[async_trait]
impl Channel for Fcm {
    fn deduplicates(&self) -> bool {
        false
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        if outgoing.address.is_empty() || outgoing.address.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Outcome::Rejected { suppress: true, detail: "the token is not valid".into() };
        }
        match self.attempt(outgoing).await {
            Ok(answer) => meaning(&answer, outgoing.at),
            Err(outcome) => outcome,
        }
    }
}

/// Our id goes along, so that the app can report that it was opened; a repeated one takes the place of the first on the screen.
fn payload(outgoing: &Outgoing<'_>) -> Json {
    let id = outgoing.message.to_string();
    json!({
        "message": {
            "token": outgoing.address,
            "notification": { "title": outgoing.content.push_title, "body": outgoing.content.push_body },
            "data": { "rekindle_message": id, "rule": outgoing.rule },
            "android": { "notification": { "tag": id } },
            "apns": { "headers": { "apns-collapse-id": id } },
        },
    })
}

/// FCM's own code of an error, else the status of Google's APIs.
fn error_code(answer: &Answer) -> String {
    let json: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
    let details = json.pointer("/error/details").and_then(Json::as_array);
    let own = details
        .into_iter()
        .flatten()
        .find(|detail| detail.get("@type").and_then(Json::as_str).is_some_and(|name| name.ends_with("google.firebase.fcm.v1.FcmError")));
    let code = own.and_then(|detail| detail.get("errorCode")).or_else(|| json.pointer("/error/status"));
    code.and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// Whether a 400 is about the token rather than about what we wrote.
fn is_about_the_token(answer: &Answer) -> bool {
    let json: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
    let details = json.pointer("/error/details").and_then(Json::as_array);
    let violations = details.into_iter().flatten().filter_map(|detail| detail.get("fieldViolations").and_then(Json::as_array)).flatten();
    let named = violations.filter_map(|violation| violation.get("field").and_then(Json::as_str)).any(|field| field == "message.token");
    let message = json.pointer("/error/message").and_then(Json::as_str).unwrap_or_default();
    named || message.contains("registration token is not a valid")
}

/// What FCM's answers mean.
fn meaning(answer: &Answer, now: Timestamp) -> Outcome {
    let status = answer.status.as_u16();
    if (200..300).contains(&status) {
        let json: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
        let name = json.get("name").and_then(Json::as_str).unwrap_or_default();
        return Outcome::Accepted { provider_id: name.to_owned() };
    }
    let code = error_code(answer);
    let detail = format!("{status} {code}").trim_end().to_owned();
    let after_ms = retry_after_ms(&answer.headers, now);
    let retry = |class| Outcome::Retry { class, after_ms, detail: detail.clone() };
    match (status, code.as_str()) {
        (_, "UNREGISTERED") => Outcome::Rejected { suppress: true, detail },
        (_, "INVALID_ARGUMENT") => Outcome::Rejected { suppress: is_about_the_token(answer), detail },
        // the token is another project's. If ours is the wrong one, all tokens say so: then the breaker opens and nothing is lost until it is
        // mended. A single one, from the app's earlier days, must not stop the others, so it is not refused as our account is
        (_, "SENDER_ID_MISMATCH") => retry(RetryClass::Transient),
        (_, "QUOTA_EXCEEDED") | (429, _) => retry(RetryClass::Throttle),
        (_, "UNAVAILABLE" | "INTERNAL") | (500.., _) => retry(RetryClass::Transient),
        (401 | 403, _) => retry(RetryClass::Config),
        // no such project: FCM's own "not found" about a token is UNREGISTERED
        (404, _) => retry(RetryClass::Config),
        _ => Outcome::Rejected { suppress: false, detail },
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;

    use super::*;

    fn answer(status: u16, code: &str, more: Json) -> Answer {
        let own = json!({ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code });
        let details: Vec<Json> = if code.is_empty() { vec![] } else { vec![own] };
        let details: Vec<Json> = details.into_iter().chain(more.as_array().cloned().unwrap_or_default()).collect();
        let body = json!({ "error": { "code": status, "status": "X", "message": "m", "details": details } });
        Answer { status: StatusCode::from_u16(status).expect("a status"), headers: HeaderMap::new(), body: body.to_string().into_bytes() }
    }

    #[test]
    fn every_code_has_its_meaning() {
        let token = json!([{ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{ "field": "message.token" }] }]);
        let cases = [
            (404, "UNREGISTERED", json!([]), "suppress"),
            (400, "INVALID_ARGUMENT", json!([]), "rejected"),
            (400, "INVALID_ARGUMENT", token, "suppress"),
            (403, "SENDER_ID_MISMATCH", json!([]), "transient"),
            (401, "THIRD_PARTY_AUTH_ERROR", json!([]), "config"),
            (401, "", json!([]), "config"),
            (403, "", json!([]), "config"),
            (404, "", json!([]), "config"),
            (429, "QUOTA_EXCEEDED", json!([]), "throttle"),
            (503, "UNAVAILABLE", json!([]), "transient"),
            (500, "INTERNAL", json!([]), "transient"),
            (502, "", json!([]), "transient"),
            (413, "", json!([]), "rejected"),
        ];
        for (status, code, more, expected) in cases {
            let got = match meaning(&answer(status, code, more), Timestamp::from_ms(0)) {
                Outcome::Rejected { suppress: true, .. } => "suppress",
                Outcome::Rejected { .. } => "rejected",
                Outcome::Retry { class: RetryClass::Config, .. } => "config",
                Outcome::Retry { class: RetryClass::Throttle, .. } => "throttle",
                Outcome::Retry { class: RetryClass::Transient, .. } => "transient",
                other => panic!("{other:?}"),
            };
            assert_eq!(got, expected, "{status} {code}");
        }
        let garbage = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: b"<html>".to_vec() };
        assert_eq!(meaning(&garbage, Timestamp::from_ms(0)), Outcome::Accepted { provider_id: String::new() });
    }
}
