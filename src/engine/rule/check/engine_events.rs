//! The engine's own events: rules may name them like any other.

use std::sync::Arc;

use crate::engine::profile::Name;
use crate::engine::rule::expr::ValueType;
use crate::engine::rule::{Dictionary, EventType, Place, PropertyType};

/// A property's name and type, and whether it is always there.
type Property = (&'static str, ValueType, bool);

const MESSAGE: &[Property] = &[
    ("message", ValueType::Text, true),
    ("rule", ValueType::Text, true),
    ("run", ValueType::Int, true),
    ("step", ValueType::Text, true),
    ("channel", ValueType::Text, true),
    ("template", ValueType::Text, true),
];
const TIER_CHANGED: &[Property] = &[
    ("from", ValueType::Text, false),
    ("to", ValueType::Text, true),
    ("direction", ValueType::Text, true),
    ("because", ValueType::Text, true),
];
const TIER_AT_RISK: &[Property] = &[("tier", ValueType::Text, false), ("review_at", ValueType::Instant, false)];
const POINTS_EXPIRING: &[Property] =
    &[("class", ValueType::Text, true), ("points", ValueType::Int, true), ("expires_at", ValueType::Instant, false)];
const POINTS_TAKEN: &[Property] = &[
    ("class", ValueType::Text, true),
    ("points", ValueType::Int, true),
    ("reason", ValueType::Text, true),
    ("rule", ValueType::Text, true),
    ("step", ValueType::Text, true),
    ("restore_until", ValueType::Instant, true),
];
const POINTS_RESTORED: &[Property] =
    &[("class", ValueType::Text, true), ("points", ValueType::Int, true), ("reason", ValueType::Text, true)];
const COUPON: &[Property] = &[("coupon", ValueType::Text, true), ("code", ValueType::Text, true), ("until", ValueType::Instant, false)];
const BENEFIT: &[Property] = &[
    ("benefit", ValueType::Text, true),
    ("tier", ValueType::Text, false),
    ("value", ValueType::Int, false),
    ("until", ValueType::Instant, false),
];
const CHANNEL: &[Property] = &[("channel", ValueType::Text, false)];

const EVENTS: [(&str, &[Property]); 17] = [
    ("tier_changed", TIER_CHANGED),
    ("tier_at_risk", TIER_AT_RISK),
    ("points_expiring", POINTS_EXPIRING),
    ("points_taken", POINTS_TAKEN),
    ("points_restored", POINTS_RESTORED),
    ("benefit_granted", BENEFIT),
    ("coupon_issued", COUPON),
    ("coupon_redeemed", COUPON),
    ("message_accepted", MESSAGE),
    ("message_delivered", MESSAGE),
    ("message_opened", MESSAGE),
    ("message_clicked", MESSAGE),
    ("message_failed", MESSAGE),
    ("message_bounced", MESSAGE),
    ("message_unknown", MESSAGE),
    ("unsubscribed", CHANNEL),
    ("complained", CHANNEL),
];

/// Adds them. None of them counts as the person being there.
pub fn declare(dictionary: &mut Dictionary) {
    for (name, properties) in EVENTS {
        let name = Name::from(name);
        let property = |(name, value_type, required): &Property| {
            let property = PropertyType { value_type: value_type.clone(), required: *required };
            (Name::from(*name), property)
        };
        let properties = properties.iter().map(property).collect();
        let declared_at = Place { file: Arc::from("the engine's own"), line: 1, column: 1 };
        let event = EventType { name: name.clone(), wire_name: name.clone(), active: false, properties, declared_at };
        dictionary.events.insert(name, event);
    }
}

/// The names of all of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    EVENTS.iter().map(|(name, _)| *name)
}

/// Whether an event of that name is the engine's own.
pub fn is_own(name: &str) -> bool {
    EVENTS.iter().any(|(own, _)| *own == name)
}
