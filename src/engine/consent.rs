//! May we write to this person, on this channel, for this purpose? What must be on record stands in `policy.consent`; the records
//! are facts in the profile. They come as records, or in traits that the dictionary says to speak of consent ([`said_by_traits`]).

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::action::Channel;
use super::event::{Event, EventKind, Value};
use super::profile::{Category, Consent, Profile};
use super::rule::{AttributeType, ConsentBasis, Dictionary, Policy, TraitConsent};
use super::time::Timestamp;

/// The basis that suffices everywhere: the person asked for it.
const OPT_IN: &str = "opt_in";

/// Whether the policy and the records allow a message of that category on that channel; otherwise one clause that says why not.
pub fn check(policy: &Policy, profile: &Profile, category: Category, channel: Channel, now: Timestamp) -> Result<(), String> {
    let purpose = category.name();
    let record = profile.consents.iter().find(|((p, c), _)| &**p == purpose && *c == channel).map(|(_, record)| record);
    let Some(ConsentBasis::Recorded { basis, countries }) = policy.consent.get(&category) else {
        // `always`, or a category without a line: `check` demands a line for marketing (RK0401), the others need no record. A no is
        // a no all the same, except to what a purchase itself makes necessary.
        return match record.filter(|record| !record.granted && category != Category::Transactional) {
            Some(record) => Err(format!("{purpose} on {channel} was refused at {}", record.at)),
            None => Ok(()),
        };
    };
    let required = countries.get(profile.country()).unwrap_or(basis);
    match record {
        None => Err(format!("no {purpose} consent for {channel} on record")),
        Some(record) if !record.granted => Err(format!("{purpose} consent for {channel} was withdrawn at {}", record.at)),
        Some(Consent { expires_at: Some(at), .. }) if *at <= now => Err(format!("{purpose} consent for {channel} ended at {at}")),
        Some(record) if &*record.basis == OPT_IN || record.basis == *required => Ok(()),
        Some(record) => Err(format!("{purpose} consent for {channel} rests on `{}`, `{required}` is required", record.basis)),
    }
}

/// Whether a message on that channel has somewhere to go: an address, where one is needed, that is not on the suppression list.
pub fn address(profile: &Profile, channel: Channel, addresses_given: bool, now: Timestamp) -> Result<(), String> {
    let address = profile.addresses.get(&channel).map(|address| &address.value);
    if let Some(entry) = profile.suppressed.get(&channel).filter(|entry| entry.until.is_none_or(|until| until > now)) {
        // a new address is another address: the list names the old one
        let is_another = matches!(address, Some(Value::Text(now)) if *now != entry.address);
        if !is_another {
            return Err(format!("the {channel} address is suppressed: {} at {}", entry.reason, entry.at));
        }
    }
    if addresses_given || address.is_some() || !channel.needs_address() { Ok(()) } else { Err(format!("no {channel} address")) }
}

/// The next instant at which what the records say changes by itself: a consent or a suppression ends.
pub fn changes_at(profile: &Profile, now: Timestamp) -> Timestamp {
    let ends = profile.consents.values().filter_map(|consent| consent.expires_at);
    let ends = ends.chain(profile.suppressed.values().filter_map(|entry| entry.until));
    ends.filter(|at| *at > now).min().unwrap_or(Timestamp::FOREVER)
}

// ---------------------------------------------------------------------------------------------------- consent in traits

/// The records of consent that the traits of an `identify` speak of: events of their own, so that each is kept with its proof and may be
/// heard twice without harm. A refusal on the suppression list stands above them: what a customer database repeats on each log-in
/// does not bring back who unsubscribed by a link.
pub fn said_by_traits(event: &Event, dictionary: &Dictionary) -> Vec<Event> {
    if event.kind != EventKind::Identify {
        return Vec::new();
    }
    let mut records = Vec::new();
    for attribute in &dictionary.attributes {
        let may_write = attribute.source.as_ref().is_none_or(|source| *source == event.source);
        let Some(consent) = attribute.consent.as_ref().filter(|_| may_write) else { continue };
        let Some(granted) = event.property(&attribute.name).and_then(yes_or_no) else { continue };
        records.extend(consent.channels.iter().map(|channel| record(event, attribute, consent, *channel, granted)));
    }
    records
}

/// As customer databases write it; none: it says nothing.
fn yes_or_no(json: &Json) -> Option<bool> {
    match json {
        Json::Bool(granted) => Some(*granted),
        Json::Number(number) => match number.as_i64() {
            Some(1) => Some(true),
            Some(0) => Some(false),
            _ => None,
        },
        Json::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" => Some(false),
            _ => None,
        },
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn record(event: &Event, attribute: &AttributeType, consent: &TraitConsent, channel: Channel, granted: bool) -> Event {
    let mut properties = Map::new();
    let mut put = |key: &str, value: &str| properties.insert(key.to_owned(), value.into());
    put("purpose", consent.purpose.name());
    put("channel", channel.name());
    put("basis", &consent.basis);
    put("source", &format!("trait {}", attribute.name));
    if let Some(version) = &consent.text_version {
        put("text_version", version);
    }
    properties.insert("granted".to_owned(), granted.into());
    let id = Arc::from(format!("{}#{}.{}", event.id, attribute.name, channel.name()));
    Event { id, kind: EventKind::Consent, name: Arc::from(""), properties, ..event.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::rule::expr::ValueType;
    use crate::engine::rule::{Place, Update};

    #[test]
    fn a_trait_that_speaks_of_consent_makes_a_record_for_each_channel() {
        let consent = TraitConsent {
            purpose: Category::Marketing,
            channels: vec![Channel::Email, Channel::Sms],
            basis: "opt_in".into(),
            text_version: Some("sign-up-2026".into()),
        };
        let attribute = AttributeType {
            name: "newsletter".into(),
            value_type: ValueType::Bool,
            optional: true,
            default: None,
            update: Update::Last,
            pii: false,
            source: Some("shop".into()),
            max_age_ms: None,
            consent: Some(consent),
            declared_at: Place::default(),
        };
        let dictionary = Dictionary { attributes: vec![attribute], ..Dictionary::default() };
        let event = |value: Json, source: &str| Event {
            id: "i-1".into(),
            kind: EventKind::Identify,
            name: "".into(),
            occurred_at: Timestamp::from_ms(5),
            received_at: Timestamp::from_ms(7),
            source: source.into(),
            properties: Map::from_iter([("newsletter".to_owned(), value)]),
        };
        for (value, granted) in [
            (json!(true), Some(true)),
            (json!(false), Some(false)),
            (json!("Yes"), Some(true)),
            (json!("0"), Some(false)),
            (json!(1), Some(true)),
            (json!(2), None),
            (json!("perhaps"), None),
            (json!(null), None),
        ] {
            let records = said_by_traits(&event(value.clone(), "shop"), &dictionary);
            let said: Vec<Option<bool>> = records.iter().map(|record| record.property("granted").and_then(Json::as_bool)).collect();
            assert_eq!(said, granted.map_or(vec![], |granted| vec![Some(granted); 2]), "{value}");
        }
        let records = said_by_traits(&event(json!(true), "shop"), &dictionary);
        let ids: Vec<&str> = records.iter().map(|record| &*record.id).collect();
        assert_eq!(ids, ["i-1#newsletter.email", "i-1#newsletter.sms"]);
        let first = records.first().expect("a record");
        assert_eq!((first.text_property("source"), first.occurred_at), (Some("trait newsletter"), Timestamp::from_ms(5)));
        assert!(said_by_traits(&event(json!(true), "somebody"), &dictionary).is_empty(), "only its source may write it");
    }

    #[test]
    fn only_who_is_written_to_elsewhere_needs_an_address() {
        let (profile, now) = (Profile::new("ana"), Timestamp::from_ms(0));
        let reached = Channel::ALL.into_iter().filter(|channel| address(&profile, *channel, false, now).is_ok());
        assert_eq!(reached.collect::<Vec<_>>(), [Channel::Inapp, Channel::Webhook]);
    }
}
