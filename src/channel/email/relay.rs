//! One relay: so many connections at once, kept while they are good, and what its answers mean.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::letter::Letter;
use super::session::{Fault, Opening, Phase, Reply, Session, Timers};
use crate::channel::{ChannelError, Outcome, RetryClass, tls};
use crate::settings::providers::{Smtp, Tls};

/// A connection is given up after so many mails: relays count, too.
const MAILS_PER_SESSION: u32 = 1_000;

pub struct Relay {
    settings: Smtp,
    connector: Option<TlsConnector>,
    hello: String,
    timers: Timers,
    permits: Semaphore,
    /// Good connections that nobody uses, the latest used last.
    idle: Mutex<Vec<Session>>,
}

impl Relay {
    /// # Errors
    /// TLS is wanted and cannot be set up.
    pub fn new(settings: &Smtp) -> Result<Relay, ChannelError> {
        let connector = match settings.tls {
            Tls::None => None,
            Tls::StartTls | Tls::Implicit => {
                let config = tls::client_config(settings.ca.as_deref()).map_err(|error| ChannelError(error.to_string()))?;
                Some(TlsConnector::from(Arc::new(config)))
            }
        };
        let hello = settings.hello.clone().unwrap_or_else(|| lettre::transport::smtp::extension::ClientId::default().to_string());
        Ok(Relay {
            connector,
            hello,
            timers: Timers::default(),
            permits: Semaphore::new(settings.connections),
            idle: Mutex::default(),
            settings: settings.clone(),
        })
    }

    /// Hands a mail over. `patience`: how long each answer but the last may take, where the policy says so.
    pub async fn send(&self, letter: &Letter, patience: Option<Duration>) -> Outcome {
        let Ok(_permit) = self.permits.acquire().await else { return closed() };
        let mut timers = self.timers;
        timers.command = patience.unwrap_or(timers.command);
        timers.connect = patience.unwrap_or(timers.connect);
        match self.hand_over(letter, timers).await {
            Ok(reply) => Outcome::Accepted { provider_id: queue_id(&reply) },
            Err(fault) => meaning(&fault),
        }
    }

    /// A connection that was kept may have been closed meanwhile: what breaks on one before the dot is tried on a new one at once.
    async fn hand_over(&self, letter: &Letter, timers: Timers) -> Result<Reply, Fault> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(session) = kept {
            match self.try_on(session, letter).await {
                Err(Fault::Broken { .. }) => {}
                Err(Fault::Refused { phase: Phase::Mail, reply: Reply { code: 421, .. } }) => {}
                answered => return answered,
            }
        }
        let opening = Opening {
            host: &self.settings.host,
            port: self.settings.port,
            tls: self.settings.tls,
            connector: self.connector.as_ref(),
            login: self.settings.login.as_ref(),
            hello: &self.hello,
            timers,
        };
        let session = Session::open(&opening).await?;
        self.try_on(session, letter).await
    }

    /// Sends on a connection, and keeps it if it is still good.
    async fn try_on(&self, mut session: Session, letter: &Letter) -> Result<Reply, Fault> {
        let answered = session.send(letter).await;
        let is_good = match &answered {
            Ok(_) => true,
            Err(Fault::Refused { reply, .. }) if reply.code != 421 => session.reset().await,
            Err(_) => false,
        };
        if is_good && session.sent < MAILS_PER_SESSION {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        } else if is_good {
            session.quit().await;
        }
        answered
    }
}

fn closed() -> Outcome {
    Outcome::Retry { class: RetryClass::Transient, after_ms: None, detail: "shutting down".into() }
}

/// What relays call a mail: `250 2.0.0 Ok: queued as 4F2A1`.
fn queue_id(reply: &Reply) -> String {
    let after = |marker: &str| reply.text.split_once(marker).and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    after("queued as ").or_else(|| after("id=")).unwrap_or_default().trim_matches(['<', '>']).to_owned()
}

/// What a fault means for the message and its address.
fn meaning(fault: &Fault) -> Outcome {
    let detail = fault.to_string();
    let retry = |class| Outcome::Retry { class, after_ms: None, detail: detail.clone() };
    match fault {
        Fault::Doubtful(_) => Outcome::Ambiguous { ask_again: false, detail },
        Fault::Broken { .. } => retry(RetryClass::Transient),
        Fault::Setup(_) => retry(RetryClass::Config),
        Fault::Refused { phase, reply } => match reply.code {
            421 if is_policy(reply) => retry(RetryClass::Throttle),
            // an account that is refused is refused for everybody: 530, 534, 535, 538 say so at any phase
            454 | 530 | 534 | 535 | 538 => retry(RetryClass::Config),
            400..500 => retry(RetryClass::Transient),
            _ if *phase < Phase::Mail => retry(RetryClass::Config),
            _ => Outcome::Rejected { suppress: is_about_the_address(*phase, reply), detail },
        },
    }
}

/// x.7.y: security and policy, which is about us or about the content.
fn is_policy(reply: &Reply) -> bool {
    matches!(reply.status, Some((_, 7, _)))
}

/// Whether the address is dead. Only what is said of it counts (5.1.1-3, 5.1.6, 5.1.10, 5.2.1); a relay without enhanced codes says
/// 550, 551 or 553 to RCPT both for a missing mailbox and for mail it will not relay, so its words are looked at, too.
fn is_about_the_address(phase: Phase, reply: &Reply) -> bool {
    match reply.status {
        Some((5, 1, 1..=3 | 6 | 10)) | Some((5, 2, 1)) => true,
        Some(_) => false,
        None => {
            let text = reply.text.to_ascii_lowercase();
            let about_us = ["relay", "policy", "block", "spam", "denied", "auth", "listed", "reputation", "rbl"];
            phase == Phase::Rcpt && matches!(reply.code, 550 | 551 | 553) && !about_us.iter().any(|word| text.contains(word))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(phase: Phase, code: u16, text: &str) -> Outcome {
        let status = text.split(' ').next().and_then(|word| {
            let numbers: Vec<u16> = word.split('.').filter_map(|part| part.parse().ok()).collect();
            match numbers[..] {
                [class, subject, detail] => Some((class as u8, subject, detail)),
                _ => None,
            }
        });
        meaning(&Fault::Refused { phase, reply: Reply { code, status, text: text.to_owned() } })
    }

    #[test]
    fn answers_mean_what_they_say_of_us_of_the_mail_or_of_the_address() {
        use Phase::{Auth, Data, Dot, Greeting, Hello, Mail, Rcpt};
        let class = |class| Err(class);
        let cases: [(Phase, u16, &str, Result<bool, RetryClass>); 22] = [
            (Greeting, 421, "4.3.2 not now", class(RetryClass::Transient)),
            (Greeting, 421, "4.7.0 too many connections", class(RetryClass::Throttle)),
            (Greeting, 554, "5.7.1 we do not talk to you", class(RetryClass::Config)),
            (Hello, 501, "what", class(RetryClass::Config)),
            (Auth, 535, "5.7.8 wrong password", class(RetryClass::Config)),
            (Auth, 454, "4.7.0 temporary failure", class(RetryClass::Config)),
            (Mail, 530, "5.7.0 log in first", class(RetryClass::Config)),
            (Mail, 451, "4.3.0 later", class(RetryClass::Transient)),
            (Mail, 550, "5.1.8 bad sender", Ok(false)),
            (Rcpt, 450, "4.7.1 greylisted", class(RetryClass::Transient)),
            (Rcpt, 550, "5.1.1 no such user", Ok(true)),
            (Rcpt, 550, "5.2.1 disabled", Ok(true)),
            (Rcpt, 556, "5.1.10 takes no mail", Ok(true)),
            (Rcpt, 552, "5.2.2 mailbox full", Ok(false)),
            (Rcpt, 550, "5.7.1 relaying denied", Ok(false)),
            (Rcpt, 550, "no such mailbox", Ok(true)),
            (Rcpt, 550, "relay not permitted", Ok(false)),
            (Data, 554, "5.5.1 no valid recipients", Ok(false)),
            (Dot, 451, "4.7.1 later", class(RetryClass::Transient)),
            (Dot, 554, "5.6.0 content refused", Ok(false)),
            (Dot, 550, "5.1.1 no such user", Ok(true)),
            (Dot, 550, "looks like it", Ok(false)),
        ];
        for (phase, code, text, expected) in cases {
            let got = match refused(phase, code, text) {
                Outcome::Rejected { suppress, .. } => Ok(suppress),
                Outcome::Retry { class, .. } => Err(class),
                other => panic!("{code} {text}: {other:?}"),
            };
            assert_eq!(got, expected, "{phase}: {code} {text}");
        }
    }

    #[test]
    fn the_relays_own_id_is_found() {
        for (text, expected) in [("2.0.0 Ok: queued as 4F2A1", "4F2A1"), ("OK id=1rXyz-0001", "1rXyz-0001"), ("thank you", "")] {
            assert_eq!(queue_id(&Reply { code: 250, status: None, text: text.into() }), expected);
        }
    }
}
