//! E-mail by SMTP, to one relay. A message is written ([`letter`]), signed ([`dkim`]), and handed over ([`relay`], which keeps connections,
//! and [`session`], which speaks the protocol).
//!
//! What decides between "not taken" and "may have gone out" is the final dot: whatever breaks before its last byte has left
//! us is a definite failure and is tried again; what breaks after it is [`Outcome::Ambiguous`], and SMTP cannot deduplicate. So the
//! dialogue is our own: a library's error does not say on which side of the dot it fell.

pub mod alignment;
pub mod dkim;
pub mod letter;
pub mod relay;
pub mod session;

use std::sync::Arc;

use async_trait::async_trait;

use self::dkim::Signers;
use self::letter::{Letter, LetterError};
use self::relay::Relay;
use super::{Channel, ChannelError, Outcome, Outgoing, RetryClass};
use crate::links::Links;
use crate::settings::providers::Smtp;

/// See the module's documentation.
pub struct Email {
    relay: Relay,
    signers: Arc<Signers>,
    links: Option<Links>,
    bounce_domain: Option<String>,
    connections: usize,
}

impl Email {
    /// # Errors
    /// A key is none, or TLS cannot be set up.
    pub fn new(settings: &Smtp, links: Option<Links>) -> Result<Email, ChannelError> {
        let relay = Relay::new(settings)?;
        let signers = Arc::new(Signers::new(&settings.dkim)?);
        Ok(Email { relay, signers, links, bounce_domain: settings.bounce_domain.clone(), connections: settings.connections })
    }

    /// Writes and signs. An RSA signature takes some 0.6 ms: on a thread that may block, unless nothing is signed.
    async fn write(&self, outgoing: &Outgoing<'_>) -> Result<Letter, LetterError> {
        let letter = letter::write(outgoing, self.links.as_ref(), self.bounce_domain.as_deref())?;
        if self.signers.is_empty() {
            return Ok(letter);
        }
        let signers = self.signers.clone();
        let sign = move || signers.sign(letter);
        tokio::task::spawn_blocking(sign).await.unwrap_or_else(|_| Err(LetterError::Unsigned("signing panicked".into())))
    }
}

#[async_trait]
impl Channel for Email {
    fn deduplicates(&self) -> bool {
        false
    }

    fn at_once(&self) -> Option<usize> {
        Some(self.connections)
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        match self.write(outgoing).await {
            Ok(letter) => self.relay.send(&letter, outgoing.timeout()).await,
            Err(error) => error.outcome(),
        }
    }
}

impl LetterError {
    /// What it means for the message.
    pub fn outcome(&self) -> Outcome {
        let detail = self.to_string();
        match self {
            LetterError::Address => Outcome::Rejected { suppress: true, detail },
            LetterError::Form(_) => Outcome::Rejected { suppress: false, detail },
            // ours to mend: the message waits meanwhile
            LetterError::NoSender | LetterError::NoLinks | LetterError::Unsigned(_) => {
                Outcome::Retry { class: RetryClass::Config, after_ms: None, detail }
            }
        }
    }
}
