//! Google's service accounts: a signed statement (JWT, RS256) is exchanged for a token that is good for an hour.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use url::Url;

use crate::channel::http::client::{Client, NoAnswer, retry_after_ms};
use crate::channel::{ChannelError, Outcome, RetryClass};
use crate::engine::time::{HOUR_MS, MINUTE_MS, Timestamp};

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// A token is replaced so long before its end: nobody sends with one that ends on the way.
const AHEAD_MS: i64 = 5 * MINUTE_MS;

/// What the file says that Google makes.
pub struct ServiceAccount {
    pub project_id: String,
    email: String,
    key_id: String,
    token_url: Url,
    key: RsaKeyPair,
}

impl ServiceAccount {
    /// # Errors
    /// The text is no service account, or its key is none.
    pub fn read(text: &str) -> Result<ServiceAccount, ChannelError> {
        #[derive(Deserialize)]
        struct File {
            project_id: String,
            private_key: String,
            #[serde(default)]
            private_key_id: String,
            client_email: String,
            token_uri: Url,
        }
        // the error's own text may repeat what it read
        let file: File = serde_json::from_str(text).map_err(|error| {
            ChannelError(format!(
                "`service_account` is not the JSON file that Google makes (line {}, column {})",
                error.line(),
                error.column()
            ))
        })?;
        let no_key = || ChannelError("the service account's private key is no RSA key in PKCS#8".into());
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes()).map_err(|_| no_key())?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| no_key())?;
        Ok(ServiceAccount {
            project_id: file.project_id,
            email: file.client_email,
            key_id: file.private_key_id,
            token_url: file.token_uri,
            key,
        })
    }

    /// The signed statement.
    fn assertion(&self, now: Timestamp) -> Option<String> {
        let seconds = now.as_ms().div_euclid(1_000);
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.email, "scope": SCOPE, "aud": self.token_url.as_str(), "iat": seconds, "exp": seconds + HOUR_MS / 1_000,
        });
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).ok()?;
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The token in use. One asks for a new one, the others wait for it.
pub struct Tokens {
    account: ServiceAccount,
    client: Client,
    current: Mutex<Option<(String, Timestamp)>>,
}

impl Tokens {
    pub fn new(account: ServiceAccount, client: Client) -> Tokens {
        Tokens { account, client, current: Mutex::new(None) }
    }

    /// # Errors
    /// What it means for the message that no token is to be had: nothing was sent, so it is tried again.
    pub async fn token(&self, now: Timestamp) -> Result<String, Outcome> {
        let mut current = self.current.lock().await;
        if let Some((token, until)) = &*current
            && now < *until
        {
            return Ok(token.clone());
        }
        let (token, until) = self.ask(now).await?;
        *current = Some((token.clone(), until));
        Ok(token)
    }

    /// Does not use this one again.
    pub async fn forget(&self, token: &str) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|(known, _)| known == token) {
            *current = None;
        }
    }

    async fn ask(&self, now: Timestamp) -> Result<(String, Timestamp), Outcome> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
            expires_in: i64,
        }
        let retry = |class, after_ms, detail: String| Outcome::Retry { class, after_ms, detail: format!("no token from Google: {detail}") };
        let lost = |no_answer: NoAnswer| {
            let (NoAnswer::NotSent(why) | NoAnswer::Lost(why)) = no_answer;
            retry(RetryClass::Transient, None, why)
        };
        let assertion = self.account.assertion(now).ok_or_else(|| retry(RetryClass::Config, None, "the key does not sign".into()))?;
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)];
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.client.request(Method::POST, self.account.token_url.clone()).map_err(lost)?;
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let answer = self.client.send(request, None).await.map_err(lost)?;
        let status = answer.status.as_u16();
        match serde_json::from_slice::<Granted>(&answer.body) {
            Ok(granted) if status == 200 => {
                let until = now.plus_ms(granted.expires_in.clamp(0, 86_400) * 1_000 - AHEAD_MS);
                Ok((granted.access_token, until))
            }
            _ => {
                let class = if status == 429 || status >= 500 || status == 200 { RetryClass::Transient } else { RetryClass::Config };
                Err(retry(class, retry_after_ms(&answer.headers, now), format!("answered {status}")))
            }
        }
    }
}
