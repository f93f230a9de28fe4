//! Facts from outside, on their way in: whatever the door they come by, they leave here as [`Incoming`], checked once, so that
//! nothing behind it checks again. What an event *means* is not known here: that is the dictionary's and the engine's.

pub mod file;
pub mod http;
pub mod wire;

use crate::engine::absorb::is_active;
use crate::engine::event::Event;
use crate::engine::rule::Dictionary;
use crate::store::{Identity, Link, NewEvent};

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

    /// Ready for the store.
    pub fn into_new(self, dictionary: &Dictionary) -> NewEvent {
        let active = self.is_active(dictionary);
        NewEvent { identity: self.identity, link: self.link, event: self.event, active }
    }
}
