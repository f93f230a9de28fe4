//! The engine's own events: rules may name them like any other.

use std::sync::Arc;

use crate::engine::profile::Name;
use crate::engine::rule::expr::ValueType;
use crate::engine::rule::{Dictionary, EventType, Place, PropertyType};

const MESSAGE: &[(&str, ValueType)] = &[
    ("message", ValueType::Text),
    ("rule", ValueType::Text),
    ("run", ValueType::Int),
    ("step", ValueType::Text),
    ("channel", ValueType::Text),
    ("template", ValueType::Text),
];
const TIER_CHANGED: &[(&str, ValueType)] =
    &[("from", ValueType::Text), ("to", ValueType::Text), ("direction", ValueType::Text), ("because", ValueType::Text)];
const TIER_AT_RISK: &[(&str, ValueType)] = &[("tier", ValueType::Text), ("review_at", ValueType::Instant)];
const POINTS_EXPIRING: &[(&str, ValueType)] = &[("class", ValueType::Text), ("points", ValueType::Int), ("expires_at", ValueType::Instant)];
const POINTS_TAKEN: &[(&str, ValueType)] = &[
    ("class", ValueType::Text),
    ("points", ValueType::Int),
    ("reason", ValueType::Text),
    ("rule", ValueType::Text),
    ("step", ValueType::Text),
    ("restore_until", ValueType::Instant),
];
const POINTS_RESTORED: &[(&str, ValueType)] = &[("class", ValueType::Text), ("points", ValueType::Int), ("reason", ValueType::Text)];
const COUPON: &[(&str, ValueType)] = &[("coupon", ValueType::Text), ("code", ValueType::Text), ("until", ValueType::Instant)];
const BENEFIT: &[(&str, ValueType)] =
    &[("benefit", ValueType::Text), ("tier", ValueType::Text), ("value", ValueType::Int), ("until", ValueType::Instant)];
const CHANNEL: &[(&str, ValueType)] = &[("channel", ValueType::Text)];

const EVENTS: [(&str, &[(&str, ValueType)]); 17] = [
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

/// Adds them. All their properties are optional to a condition, none of them counts as the person being there.
pub fn declare(dictionary: &mut Dictionary) {
    for (name, properties) in EVENTS {
        let name = Name::from(name);
        let property =
            |(name, value_type): &(&str, ValueType)| (Name::from(*name), PropertyType { value_type: value_type.clone(), required: false });
        let properties = properties.iter().map(property).collect();
        let declared_at = Place { file: Arc::from("the engine's own"), line: 1, column: 1 };
        let event = EventType { name: name.clone(), wire_name: name.clone(), active: false, properties, declared_at };
        dictionary.events.insert(name, event);
    }
}

/// Whether an event of that name is the engine's own.
pub fn is_own(name: &str) -> bool {
    EVENTS.iter().any(|(own, _)| *own == name)
}
