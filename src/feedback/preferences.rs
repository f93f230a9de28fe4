//! What a person wants to hear, seen from a link in one of their messages: looked up, shown, changed.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::record::refused;
use crate::engine::action::{Channel, MessageId};
use crate::engine::event::{Event, EventKind, Value};
use crate::engine::profile::{Category, Profile};
use crate::engine::time::Timestamp;
use crate::store::suppression::{Lift, Reason, Scope, Suppress};
use crate::store::{ProfileId, Store, StoreError};

/// The categories that somebody can refuse.
const REFUSABLE: [Category; 2] = [Category::Marketing, Category::Service];
/// Stands on every fact that came by a link.
const SOURCE: &str = "link";

/// A person and what they may choose.
#[derive(Debug, Clone)]
pub struct Preferences {
    pub profile: ProfileId,
    /// Of the message that the link was in.
    pub message: MessageId,
    pub channel: Channel,
    pub category: Category,
    pub locale: Option<String>,
    /// What can be chosen, by category and channel: only channels on which we know an address.
    pub choices: Vec<Choice>,
    /// The address of the message's channel, if there still is one.
    pub address: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub category: Category,
    pub channel: Channel,
    /// Not refused.
    pub is_wanted: bool,
    address: String,
}

impl Choice {
    /// The box's name in the form.
    pub fn name(&self) -> String {
        format!("{}.{}", self.category.name(), self.channel)
    }
}

/// What the person of a message may choose; none if there is no such message.
pub async fn of(store: &dyn Store, message: MessageId, now: Timestamp) -> Result<Option<Preferences>, StoreError> {
    let Some(row) = store.messages(&[message]).await?.into_iter().next() else { return Ok(None) };
    let Some(stored) = store.profile(row.profile).await? else { return Ok(None) };
    let profile = &stored.profile;
    let mut choices = Vec::new();
    for (channel, address) in addresses(profile) {
        let listed = store.suppressions(channel, &address).await?;
        for category in REFUSABLE {
            let is_listed = |scope: Scope| scope == Scope::All || scope == Scope::Only(category);
            let is_listed = listed.iter().any(|entry| is_listed(entry.scope) && entry.until.is_none_or(|until| until > now));
            // what waits to be absorbed counts too: who looks right after choosing sees what they chose
            let said = latest_word(&stored.waiting, category, channel).unwrap_or_else(|| word_on_record(profile, category, channel));
            choices.push(Choice { category, channel, is_wanted: said && !is_listed, address: address.clone() });
        }
    }
    let channel = row.message.channel;
    let locale = match profile.locale.as_ref().map(|locale| &locale.value) {
        Some(Value::Text(locale)) => Some(locale.to_string()),
        _ => None,
    };
    let address = addresses(profile).find(|(of, _)| *of == channel).map(|(_, address)| address);
    let category = row.message.category;
    Ok(Some(Preferences { profile: row.profile, message, channel, category, locale, choices, address }))
}

fn addresses(profile: &Profile) -> impl Iterator<Item = (Channel, String)> + '_ {
    profile.addresses.iter().filter_map(|(channel, address)| match &address.value {
        Value::Text(address) => Some((*channel, address.to_string())),
        _ => None,
    })
}

fn word_on_record(profile: &Profile, category: Category, channel: Channel) -> bool {
    let record = profile.consents.iter().find(|((purpose, of), _)| &**purpose == category.name() && *of == channel);
    // service mail needs no yes, marketing does
    record.map_or(category != Category::Marketing, |(_, record)| record.granted)
}

/// The latest of the facts that wait about this category and channel.
fn latest_word(waiting: &[Event], category: Category, channel: Channel) -> Option<bool> {
    let speaks = |event: &&Event| {
        event.text_property("purpose") == Some(category.name()) && event.text_property("channel").and_then(Channel::named) == Some(channel)
    };
    let latest = waiting.iter().filter(speaks).max_by_key(|event| event.occurred_at)?;
    match latest.kind {
        EventKind::Consent => latest.property("granted").and_then(Json::as_bool),
        EventKind::Engine => Some(false),
        EventKind::Identify | EventKind::Track => None,
    }
}

/// Ends what the message was: its category on its channel. False if that had ended before.
pub async fn unsubscribe(store: &dyn Store, person: &Preferences, now: Timestamp) -> Result<bool, StoreError> {
    let category = refused(person.category);
    let choice = person.choices.iter().find(|choice| choice.category == category && choice.channel == person.channel);
    if choice.is_some_and(|choice| !choice.is_wanted) {
        return Ok(false);
    }
    let address = choice.map(|choice| choice.address.clone()).unwrap_or_default();
    let words = vec![refuse(person, category, person.channel, address, now)];
    Ok(store.suppress(words).await?.contains(&true))
}

/// Takes what is chosen in the form: names of boxes that are ticked.
pub async fn take<S: AsRef<str>>(store: &dyn Store, person: &Preferences, chosen: &[S], now: Timestamp) -> Result<(), StoreError> {
    let mut refusals = Vec::new();
    for choice in &person.choices {
        let wants = chosen.iter().any(|name| name.as_ref() == choice.name());
        match (choice.is_wanted, wants) {
            (true, false) => refusals.push(refuse(person, choice.category, choice.channel, choice.address.clone(), now)),
            (false, true) => {
                let lift = Lift {
                    channel: choice.channel,
                    address: choice.address.clone(),
                    reason: Some(Reason::Unsubscribe),
                    scope: Some(Scope::Only(choice.category)),
                    event: Some((person.profile, agree(person, choice, now))),
                };
                store.lift(lift).await?;
            }
            _ => {}
        }
    }
    store.suppress(refusals).await?;
    Ok(())
}

fn refuse(person: &Preferences, category: Category, channel: Channel, address: String, now: Timestamp) -> Suppress {
    let mut properties = properties(category, channel);
    properties.insert("message".into(), person.message.to_string().into());
    if !address.is_empty() {
        properties.insert("address".into(), address.clone().into());
    }
    let id = format!("unsubscribed:{}:{}:{}:{}", person.message, category.name(), channel, now.as_ms());
    let event = event(&id, EventKind::Engine, "unsubscribed", properties, now);
    let (reason, scope) = (Reason::Unsubscribe, Scope::Only(category));
    Suppress { channel, address, reason, scope, since: now, until: None, source: SOURCE.into(), id, event: Some((person.profile, event)) }
}

/// A yes of the person's own: a record of consent with its proof.
fn agree(person: &Preferences, choice: &Choice, now: Timestamp) -> Event {
    let mut properties = properties(choice.category, choice.channel);
    properties.insert("granted".into(), true.into());
    properties.insert("basis".into(), "opt_in".into());
    properties.insert("source".into(), "preference page".into());
    properties.insert("text_version".into(), super::page::TEXT_VERSION.into());
    let id = format!("agreed:{}:{}:{}", person.message, choice.name(), now.as_ms());
    event(&id, EventKind::Consent, "", properties, now)
}

fn properties(category: Category, channel: Channel) -> Map<String, Json> {
    let texts = [("purpose", category.name()), ("channel", channel.name())];
    texts.into_iter().map(|(name, text)| (name.to_owned(), Json::from(text))).collect()
}

fn event(id: &str, kind: EventKind, name: &str, properties: Map<String, Json>, now: Timestamp) -> Event {
    let (occurred_at, received_at) = (now, now);
    Event { id: Arc::from(id), kind, name: Arc::from(name), occurred_at, received_at, source: Arc::from(SOURCE), properties }
}
