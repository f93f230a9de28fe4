//! The suppression list by an operator's hand: addresses go on it, come off it, and are asked about. What providers and people say
//! goes there by itself (`feedback`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::control::Reply;
use crate::engine::action::Channel;
use crate::engine::event::{Event, EventKind, Value};
use crate::engine::profile::Category;
use crate::engine::time::Timestamp;
use crate::store::suppression::{Lift, Reason, Scope, Suppress, Suppression, canonical};
use crate::store::{Identity, ProfileId, Store, StoreError};

/// An address to go on the list, in words as they come from a command or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEntry {
    pub channel: String,
    pub address: String,
    /// One of [`Reason::ALL`]; none: `manual`.
    pub reason: Option<String>,
    /// The one category that is refused; none: everything, or marketing for an `unsubscribe`.
    pub category: Option<String>,
    /// RFC 3339; none: from now on.
    pub since: Option<String>,
    /// RFC 3339; none: until somebody takes it off.
    pub until: Option<String>,
}

/// Puts addresses on the list, all or none: an entry that is not understood refuses the whole.
pub(super) async fn add(store: &dyn Store, entries: &[NewEntry], by: &str, now: Timestamp) -> Result<Reply, StoreError> {
    let words: Result<Vec<Suppress>, String> = entries.iter().map(|entry| word(entry, by, now)).collect();
    let words = match words {
        Ok(words) => words,
        Err(why) => return Ok(Reply::refused(why)),
    };
    let written = store.suppress(words).await?;
    let new = written.iter().filter(|is_new| **is_new).count();
    tracing::warn!(address.count = new, "addresses were put on the suppression list by an operator");
    let known = written.len() - new;
    let known = if known > 0 { format!("; {known} were on it already") } else { String::new() };
    Ok(Reply::done(format!("{new} addresses are on the suppression list since {now}{known}")))
}

/// # Errors
/// What is wrong with the entry, for who wrote it; its address is not repeated.
pub fn word(entry: &NewEntry, by: &str, now: Timestamp) -> Result<Suppress, String> {
    let channel = channel_named(&entry.channel)?;
    let address = entry.address.trim();
    if address.is_empty() || (channel == Channel::Email && !address.contains('@')) {
        return Err(format!("what is to be suppressed is no {channel} address"));
    }
    if matches!(channel, Channel::Sms | Channel::Whatsapp) && canonical(channel, address).len() < 5 {
        return Err("what is to be suppressed is no phone number".to_owned());
    }
    let known = || Reason::ALL.map(Reason::name).join(", ");
    let reason = entry
        .reason
        .as_deref()
        .map_or(Ok(Reason::Manual), |name| Reason::named(name).ok_or_else(|| format!("`{name}` is no reason; known are: {}", known())))?;
    if reason == Reason::SoftBounce {
        return Err("`soft_bounce` is counted by ourselves; write `hard_bounce` or `manual`".to_owned());
    }
    let scope = match (entry.category.as_deref(), reason) {
        (Some(name), _) => {
            let known = || Category::ALL.map(Category::name).join(", ");
            Scope::named(name).ok_or_else(|| format!("`{name}` is no category; known are: all, {}", known()))?
        }
        (None, Reason::Unsubscribe) => Scope::Only(Category::Marketing),
        (None, _) => Scope::All,
    };
    let instant = |text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.trim().is_empty());
        let parse = |text: &str| Timestamp::parse(text).ok_or_else(|| format!("`{text}` is no instant like 2026-11-06T10:00:00Z"));
        text.map(parse).transpose()
    };
    let (since, until) = (instant(&entry.since)?.unwrap_or(now).min(now), instant(&entry.until)?);
    let id = format!("manual:{}:{}", channel.name(), now.as_ms());
    Ok(Suppress { channel, address: address.to_owned(), reason, scope, since, until, source: format!("operator {by}"), id, event: None })
}

/// Takes an address off the list. Whoever was stopped by it once bears that as a fact of their own, which goes with `user`.
pub(super) async fn lift(
    store: &dyn Store,
    channel: &str,
    address: &str,
    user: Option<&str>,
    by: &str,
    now: Timestamp,
) -> Result<Reply, StoreError> {
    let channel = match channel_named(channel) {
        Ok(channel) => channel,
        Err(why) => return Ok(Reply::refused(why)),
    };
    let listed = store.suppressions(channel, address).await?;
    let mut event = None;
    if let Some(user) = user {
        let Some(id) = store.find_profile(&Identity::User(Arc::from(user))).await? else {
            return Ok(Reply::refused("nobody with that user id is in this database"));
        };
        match lifted(store, id, channel, address, by, now).await? {
            Some(fact) => event = Some((id, fact)),
            None => return Ok(Reply::refused(format!("that is not the {channel} address of this person"))),
        }
    }
    if listed.is_empty() && event.is_none() {
        return Ok(Reply::refused("that address is not on the suppression list"));
    }
    let is_refusal = listed.iter().any(|entry| matches!(entry.reason, Reason::Unsubscribe | Reason::Complaint));
    let count = store.lift(Lift { channel, address: address.to_owned(), reason: None, scope: None, event: event.clone() }).await?;
    tracing::warn!(entry.count = count, "an address was taken off the suppression list by an operator");
    let mut reply = Reply::done(format!("{count} entries are off the suppression list since {now}"));
    reply.lines.extend(listed.iter().map(|entry| format!("  it said: {}", line(entry))));
    if event.is_none() {
        reply.lines.push("whoever was stopped by it before stays stopped: name them with --user to let them go".to_owned());
    }
    if is_refusal {
        reply.lines.push("who unsubscribed or complained has withdrawn consent as well, and must give it anew".to_owned());
    }
    Ok(reply)
}

/// The fact that the list speaks of the person's address no more; none: it is not theirs.
async fn lifted(
    store: &dyn Store,
    id: ProfileId,
    channel: Channel,
    address: &str,
    by: &str,
    now: Timestamp,
) -> Result<Option<Event>, StoreError> {
    let Some(stored) = store.profile(id).await? else { return Ok(None) };
    let own = stored.profile.addresses.get(&channel).map(|own| &own.value);
    let is_own = matches!(own, Some(Value::Text(own)) if canonical(channel, own) == canonical(channel, address));
    let texts = [("channel", channel.name()), ("address", address), ("reason", "manual"), ("by", by)];
    let properties: Map<_, _> = texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
    Ok(is_own.then(|| Event {
        id: Arc::from(format!("lifted:{}:{}", channel.name(), now.as_ms())),
        kind: EventKind::Engine,
        name: Arc::from("suppression_lifted"),
        occurred_at: now,
        received_at: now,
        source: Arc::from("operator"),
        properties,
    }))
}

pub(super) async fn show(store: &dyn Store, channel: &str, address: &str, now: Timestamp) -> Result<Reply, StoreError> {
    let channel = match channel_named(channel) {
        Ok(channel) => channel,
        Err(why) => return Ok(Reply::refused(why)),
    };
    let listed = store.suppressions(channel, address).await?;
    if listed.is_empty() {
        return Ok(Reply::done("that address is not on the suppression list"));
    }
    let told = |entry: &Suppression| {
        let over = entry.until.filter(|until| *until <= now).map_or("", |_| " (over)");
        format!("{}{over}", line(entry))
    };
    Ok(Reply { lines: listed.iter().map(told).collect(), ..Reply::default() })
}

/// `hard_bounce: everything, since 2026-01-01T00:00:00Z, by callback:relay`
fn line(entry: &Suppression) -> String {
    let scope = if entry.scope == Scope::All { "everything" } else { entry.scope.name() };
    let until = entry.until.map(|until| format!(" until {until}")).unwrap_or_default();
    format!("{}: {scope}, since {}{until}, by {}", entry.reason.name(), entry.since, entry.source)
}

fn channel_named(name: &str) -> Result<Channel, String> {
    Channel::named(name).ok_or_else(|| format!("`{name}` is no channel; known are: {}", Channel::ALL.map(Channel::name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_what_is_wrong_with_it_and_never_the_address() {
        let now = Timestamp::parse("2026-03-01T00:00:00Z").expect("an instant");
        let entry = |channel: &str, address: &str, reason: Option<&str>, category: Option<&str>| NewEntry {
            channel: channel.into(),
            address: address.into(),
            reason: reason.map(str::to_owned),
            category: category.map(str::to_owned),
            since: None,
            until: None,
        };
        for (given, expected) in [
            (entry("email", "ana@post.example", None, None), Ok((Reason::Manual, Scope::All))),
            (entry("email", "ana@post.example", Some("unsubscribe"), None), Ok((Reason::Unsubscribe, Scope::Only(Category::Marketing)))),
            (entry("sms", "+44 1632 960001", Some("complaint"), Some("service")), Ok((Reason::Complaint, Scope::Only(Category::Service)))),
            (entry("pigeon", "x", None, None), Err("`pigeon` is no channel")),
            (entry("email", "nobody", None, None), Err("no email address")),
            (entry("sms", "four", None, None), Err("no phone number")),
            (entry("email", "a@b", Some("spite"), None), Err("`spite` is no reason; known are: hard_bounce")),
            (entry("email", "a@b", Some("soft_bounce"), None), Err("counted by ourselves")),
            (entry("email", "a@b", None, Some("gossip")), Err("`gossip` is no category")),
        ] {
            match (word(&given, "ana", now), expected) {
                (Ok(word), Ok(expected)) => assert_eq!((word.reason, word.scope, &*word.source), (expected.0, expected.1, "operator ana")),
                (Err(why), Err(expected)) => assert!(why.contains(expected) && !why.contains("nobody"), "{why}"),
                (got, _) => panic!("{given:?}: {got:?}"),
            }
        }
        let late = NewEntry { until: Some("tomorrow".into()), ..entry("email", "a@b", None, None) };
        assert!(word(&late, "ana", now).expect_err("refused").contains("`tomorrow` is no instant"));
    }
}
