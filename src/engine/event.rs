//! Facts from outside, and the engine's own: what happened, to whom, when.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::money::Money;
use super::time::{DAY_MS, Timestamp};

/// A typed value: an attribute, a property of an event, the result of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Strings and enum values alike.
    Text(Arc<str>),
    Date(jiff::civil::Date),
    Instant(Timestamp),
    /// A duration in exact milliseconds.
    Duration(i64),
    Money(Money),
    List(Vec<Value>),
}

impl Value {
    pub fn text(text: &str) -> Self {
        Value::Text(Arc::from(text))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(v) => write!(f, "{v}"),
            Value::Int(v) => write!(f, "{v}"),
            Value::Float(v) => write!(f, "{v}"),
            Value::Text(v) => write!(f, "\"{v}\""),
            Value::Date(v) => write!(f, "{v}"),
            Value::Instant(v) => write!(f, "{v}"),
            Value::Duration(ms) if ms % DAY_MS == 0 => write!(f, "{}d", ms / DAY_MS),
            Value::Duration(ms) => write!(f, "{}s", ms / 1000),
            Value::Money(v) => write!(f, "{v}"),
            Value::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// What sort of call brought an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// Something the person did; `name` is the name on the wire (`Order Completed`).
    Track,
    /// Attributes of the person (`properties` are the traits).
    Identify,
    /// A record of consent given or withdrawn: `purpose`, `channel`, `granted`, `basis`, `source`.
    Consent,
    /// The engine's own (`message_delivered`, `tier_changed`, `points_taken` ...); `name` is the name rules use.
    Engine,
}

/// One fact about one person.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unique per source: a second event with this id is the same event.
    pub id: Arc<str>,
    pub kind: EventKind,
    /// Track: the name on the wire. Engine: the name rules use. Otherwise empty.
    pub name: Arc<str>,
    /// When it happened, by the sender's word, but never after `received_at`.
    pub occurred_at: Timestamp,
    /// When we learned of it.
    pub received_at: Timestamp,
    /// The write key or import it came by.
    pub source: Arc<str>,
    pub properties: Map<String, Json>,
}

/// The engine's events that tell what people and providers said, not what the engine did: no replay makes them anew.
pub const SAID: [&str; 4] = ["unsubscribed", "complained", "suppressed", "suppression_lifted"];

impl Event {
    /// Whether it came from without: everything else follows from such events and the rules.
    pub fn is_fact(&self) -> bool {
        self.kind != EventKind::Engine || SAID.contains(&&*self.name)
    }

    /// The order in which a look absorbs what waits: by time of occurrence, then id, so that arrival does not matter.
    pub fn order_key(&self) -> (Timestamp, &str) {
        (self.occurred_at, &self.id)
    }

    pub fn property(&self, name: &str) -> Option<&Json> {
        self.properties.get(name)
    }

    pub fn text_property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).and_then(Json::as_str)
    }
}
