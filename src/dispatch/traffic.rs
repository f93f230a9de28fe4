//! Whether a provider can be given a message now: its breaker and its channel's budget, asked after the gates and before the intent.
//! Who says "not yet" says until when: the message stays queued with that reason and keeps its slot.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::breaker::{Breaker, Heard};
use super::budget::{Budget, NoRoom};
use crate::channel::{Channels, Outcome as Answer, Outgoing, RetryClass, Route};
use crate::engine::action::Channel as Kind;
use crate::engine::action::MessageId;
use crate::engine::profile::Name;
use crate::engine::rule::Policy;
use crate::engine::time::{MINUTE_MS, SECOND_MS, Timestamp};

/// What waits for somebody to set a provider up is looked at again after this long.
const NOT_SET_UP_MS: i64 = 15 * MINUTE_MS;
/// How long a provider is left alone that says "too fast" without saying how long.
const THROTTLED_MS: i64 = 5 * SECOND_MS;

/// What is known of the providers, by name.
#[derive(Debug, Default)]
pub struct Traffic {
    breakers: Mutex<BTreeMap<Name, Breaker>>,
    /// By the provider that the policy names (a pool has one budget).
    budgets: Mutex<BTreeMap<Name, Budget>>,
    /// Of the providers that carry only so many messages at once.
    places: Mutex<BTreeMap<Name, Arc<Semaphore>>>,
}

impl Traffic {
    /// Takes room for a message.
    ///
    /// # Errors
    /// All providers of the route are out of order, there is no room now, or there is no provider yet.
    pub fn take(&self, channels: &Channels, kind: Kind, policy: &Policy, message: MessageId, now: Timestamp) -> Result<(), NoRoom> {
        if channels.is_fixed(kind) {
            return Ok(());
        }
        let not_set_up = |because| Err(NoRoom { until: now.plus_ms(NOT_SET_UP_MS), because });
        let Some(channel) = policy.channels.get(&kind) else {
            // where others are named this one is not wanted: the attempt fails at once, and the run goes on to its next channel
            let is_set_up = !policy.channels.is_empty();
            return if is_set_up { Ok(()) } else { not_set_up("the policy names no provider for any channel yet".to_owned()) };
        };
        let route = channels.route(kind, policy);
        if route.is_empty() {
            return not_set_up(format!("none is called `{}` in the administrator's file", channel.provider));
        }
        if let Some(until) = self.out_of_order(&route, message, now) {
            let because = format!("`{}` is out of order; one message a minute tries it", channel.provider);
            return Err(NoRoom { until, because });
        }
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.entry(channel.provider.clone()).or_default().take(message, channel, now)
    }

    /// Until when none of them can be given anything; none: one can. A pool is in order while one of its providers is.
    fn out_of_order(&self, route: &[Route], message: MessageId, now: Timestamp) -> Option<Timestamp> {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let asked: Vec<Result<(), Timestamp>> =
            route.iter().map(|route| breakers.get_mut(&route.provider).map_or(Ok(()), |breaker| breaker.admit(message, now))).collect();
        if asked.iter().any(Result::is_ok) { None } else { asked.into_iter().filter_map(Result::err).min() }
    }

    /// Whether a provider may be given a message that was let through: it may have broken down meanwhile.
    pub fn lets(&self, provider: &str, message: MessageId) -> bool {
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.get(provider).is_none_or(|breaker| breaker.lets(message))
    }

    /// Waits until the provider can carry one more; it can as long as the place is held. None: it carries any number.
    pub async fn place(&self, route: &Route) -> Option<OwnedSemaphorePermit> {
        let at_once = route.channel.at_once()?;
        let places = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.entry(route.provider.clone()).or_insert_with(|| Arc::new(Semaphore::new(at_once))).clone()
        };
        // it is never closed
        places.acquire_owned().await.ok()
    }

    /// Takes a provider's answer in. `named`: the provider as the policy calls it.
    pub fn hear(&self, provider: &str, named: &str, outgoing: &Outgoing<'_>, answer: &Answer) {
        let now = outgoing.at;
        let heard = match answer {
            Answer::Accepted { .. } | Answer::Rejected { .. } => Heard::Works,
            Answer::Retry { class: RetryClass::Throttle, after_ms, .. } => {
                let until = now.plus_ms(after_ms.unwrap_or(THROTTLED_MS).max(SECOND_MS));
                let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
                budgets.entry(Name::from(named)).or_default().pause(until);
                return;
            }
            Answer::Retry { class: RetryClass::Config, .. } => Heard::Refuses,
            Answer::Retry { class: RetryClass::Transient, .. } | Answer::Ambiguous { .. } => Heard::Failed,
        };
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let breaker = breakers.entry(Name::from(provider)).or_default();
        if breaker.hear(outgoing.message, heard, now) {
            if breaker.is_open() {
                tracing::error!(provider.name = provider, "out of order: its messages wait, one a minute tries again: {}", detail(answer));
            } else {
                tracing::info!(provider.name = provider, "works again");
            }
        }
    }

    /// Every provider that has answered, and whether its breaker is open.
    pub fn breakers(&self) -> Vec<(Name, bool)> {
        let breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        breakers.iter().map(|(provider, breaker)| (provider.clone(), breaker.is_open())).collect()
    }

    /// What was sent before this process.
    pub fn remember(&self, policy: &Policy, sent: &[(Kind, Timestamp, u64)]) {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, channel) in &policy.channels {
            let days: Vec<(Timestamp, u64)> = sent.iter().filter(|(of, ..)| of == kind).map(|(_, day, count)| (*day, *count)).collect();
            budgets.entry(channel.provider.clone()).or_default().remember(&days);
        }
    }
}

/// A provider's own words, for the log: without what may be a person's address, number or token.
fn detail(answer: &Answer) -> String {
    let (Answer::Retry { detail, .. } | Answer::Ambiguous { detail, .. }) = answer else { return String::new() };
    let may_be_a_persons = |word: &str| {
        word.contains('@') || word.chars().count() > WORD_CHARS_MAX || word.chars().filter(char::is_ascii_digit).count() > DIGITS_MAX
    };
    let words = detail.split_whitespace().map(|word| if may_be_a_persons(word) { "..." } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Longer words are tokens; words with more digits are numbers of phones.
const WORD_CHARS_MAX: usize = 40;
const DIGITS_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_says_of_an_answer_names_nobody() {
        for (said, told) in [
            ("broken at connect: Connection refused (os error 111)", "broken at connect: Connection refused (os error 111)"),
            ("RCPT was answered by 450 4.2.1 <ana@post.example> busy", "RCPT was answered by 450 4.2.1 ... busy"),
            ("no route to +441632960001", "no route to ..."),
            (&format!("token {} unknown", "x".repeat(140)), "token ... unknown"),
        ] {
            assert_eq!(detail(&Answer::Retry { class: RetryClass::Transient, after_ms: None, detail: said.to_owned() }), told);
        }
    }
}
