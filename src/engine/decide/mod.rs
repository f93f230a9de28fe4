//! The front door: one pure function decides everything for one person at one instant.
//!
//! A look goes through these stages, in this order (`rules` in docs/architecture.md has the walk):
//! 1. *first look*: rules that never saw this profile ask `when` at the instant they went live: who satisfies it is existing;
//! 2. *absorb* the waiting events by (occurred_at, id), booking lots and reviews that fell due before each, starting event runs;
//! 3. *calendar*: `at` firings that are due;
//! 4. *conditions*: passages begin and end, runs start and leave;
//! 5. *steps* that are due act, in order of priority, through the gates; then 4 again until nothing moves;
//! 6. *due*: the smallest instant at which anything about this profile can change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::action::{Entry, ExposureRecord, Message, MessageId, Posting};
use super::event::Event;
use super::profile::{Name, Profile};
use super::rule::RuleSet;
use super::time::Timestamp;

/// What a decision may look at besides the person.
pub struct Context<'a> {
    pub rules: &'a RuleSet,
    /// Older rule sets by version: runs finish on the one they began with.
    pub older: &'a HashMap<u64, Arc<RuleSet>>,
    pub world: &'a World,
}

/// What is known beyond one person: the state of rules, pauses, sources, our own downtime.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub rules: BTreeMap<Name, RuleState>,
    /// Everything is paused.
    pub paused: Option<Pause>,
    pub paused_channels: BTreeMap<Name, Pause>,
    pub paused_tags: BTreeMap<Name, Pause>,
    /// Spans in which no worker was alive (heartbeat gaps over 5 minutes), sorted.
    pub downtime: Vec<(Timestamp, Timestamp)>,
    /// Spans in which the activity source was quiet, sorted; the last may be open (`FOREVER`).
    pub quiet: Vec<(Timestamp, Timestamp)>,
    pub profiles: u64,
    /// Coupon name to the face value (minor units) already reserved in this calendar month of the shop's zone.
    pub budgets: BTreeMap<Name, i64>,
    /// Rule tests: nobody is held out unless asked.
    pub holdout_off: bool,
    /// Rule tests with `holdout: true`: everybody is held out.
    pub holdout_all: bool,
    /// Rule tests: every channel has an address.
    pub addresses_given: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pause {
    pub at: Timestamp,
    pub reason: Arc<str>,
}

/// A rule beyond one person.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleState {
    /// The rule as such first went live: silences that began before cost nothing.
    pub first_live_at: Timestamp,
    /// Its present `when` went live.
    pub when_live_at: Timestamp,
    pub when_hash: u32,
    pub paused: Option<Pause>,
    /// Held by its brake until somebody releases it.
    pub held: Option<Pause>,
}

/// What one look decided. The store commits it whole or not at all.
#[derive(Debug)]
pub struct Decision {
    pub profile: Profile,
    /// Why it was looked at and when it wants to be looked at again; `FOREVER`: only an event.
    pub due_at: Timestamp,
    pub messages: Vec<Message>,
    /// Open messages that must not go out any more, with the reason.
    pub cancelled: Vec<(MessageId, Name)>,
    pub postings: Vec<Posting>,
    pub exposures: Vec<ExposureRecord>,
    /// The engine's own events, absorbed already.
    pub own_events: Vec<Event>,
    pub entries: Vec<Entry>,
    /// Rules entered (the brake counts them), with the instant.
    pub entered: Vec<(Name, Timestamp)>,
    /// Coupon name, instant and face value (minor units) reserved from its monthly budget.
    pub budget_used: Vec<(Name, Timestamp, i64)>,
}
