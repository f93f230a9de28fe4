//! Facts from outside, on their way in: whatever the door they come by, they leave here as [`Incoming`], checked once, so that
//! nothing behind it checks again. What an event *means* is not known here: that is the dictionary's and the engine's.

pub mod file;

use crate::engine::event::{Event, EventKind};
use crate::engine::rule::Dictionary;
use crate::store::{Identity, NewEvent};

/// A checked fact and whom it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    pub identity: Identity,
    pub event: Event,
}

impl Incoming {
    /// Ready for the store. Whether it counts as the person being there is the dictionary's word (`active`); an event that it does
    /// not know does not count.
    pub fn into_new(self, dictionary: &Dictionary) -> NewEvent {
        let declared = || dictionary.events.get(dictionary.wire_names.get(&self.event.name)?);
        let active = self.event.kind == EventKind::Track && declared().is_some_and(|event| event.active);
        NewEvent { identity: self.identity, event: self.event, active }
    }
}
