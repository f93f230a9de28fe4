//! Facts from outside, on their way in: whatever the door they come by, they leave here as [`Incoming`], checked once, so that
//! nothing behind it checks again. What an event *means* is not known here: that is the dictionary's and the engine's.

pub mod file;
pub mod http;
#[cfg(feature = "nats")]
pub mod nats;
pub mod wire;

use serde_json::Value as Json;

use crate::engine::absorb::is_active;
use crate::engine::action::Outcome;
use crate::engine::consent::said_by_traits;
use crate::engine::event::{Event, EventKind};
use crate::engine::rule::Dictionary;
use crate::store::{Identity, Link, NewEvent};

/// More of any currency is no order but a slip: the same bound as for orders in CSV.
pub const AMOUNT_MAX: f64 = 1e12;

/// Names under which the engine speaks of itself: from outside they would pass for its own word.
const SPOKEN_BY_THE_ENGINE: [&str; 7] =
    ["tier_changed", "tier_at_risk", "points_expiring", "points_taken", "points_restored", "benefit_granted", "coupon_issued"];

/// Why a fact is not believed, whatever door it came by; none if it is.
pub fn disbelieved(event: &Event) -> Option<String> {
    let name = &*event.name;
    let is_a_result = || name.strip_prefix("message_").is_some_and(|outcome| Outcome::named(outcome).is_some());
    if event.kind == EventKind::Track && (SPOKEN_BY_THE_ENGINE.contains(&name) || is_a_result()) {
        return Some(format!("`{name}` is what the engine itself says, nobody else can; give your event another name"));
    }
    let absurd = |name: &&str| event.property(name).and_then(Json::as_f64).is_some_and(|amount| amount.abs() >= AMOUNT_MAX);
    let name = ["total", "revenue"].into_iter().find(absurd)?;
    Some(format!("`{name}` is {}: no order is that large", event.property(name).unwrap_or(&Json::Null)))
}

/// A checked fact and whom it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    pub identity: Identity,
    /// Under which other id the same person is known.
    pub link: Option<Link>,
    pub event: Event,
}

impl Incoming {
    /// Whether it counts as the person being there: the dictionary's word (`active`).
    pub fn is_active(&self, dictionary: &Dictionary) -> bool {
        is_active(&self.event, dictionary)
    }

    /// Ready for the store: the event, and the records of consent that its traits speak of.
    pub fn into_new(self, dictionary: &Dictionary) -> impl Iterator<Item = NewEvent> + use<> {
        let active = self.is_active(dictionary);
        let Incoming { identity, link, event } = self;
        let records = said_by_traits(&event, dictionary);
        let of_record = {
            let identity = identity.clone();
            move |event| NewEvent { identity: identity.clone(), link: None, event, active: false }
        };
        std::iter::once(NewEvent { identity, link, event, active }).chain(records.into_iter().map(of_record))
    }
}
