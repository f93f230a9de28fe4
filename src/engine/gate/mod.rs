//! THE ordered list of what may stand between a due step and its action. Each gate passes, or answers "no, because", or "not now,
//! until". There is no other place that stops a message and no other delay mechanism.
//!
//! The list runs twice: at the decision (a hold leaves an entry in the profile's `holds` and the instant to decide again) and
//! within the send-intent ([`at_intent`]), on the fresh row. A new gate is one file and one line of [`GATES`]; what consumes a slot
//! stands last. One gate stands behind the list: [`duplicates`] needs the written text, so only the intent asks it. Rollout stands between inhibit and holdout, and arm after holdout, as soon as rules may have them.

mod budget;
mod caps;
mod consent;
mod deadline;
pub mod duplicates;
pub mod holdout;
mod inhibit;
mod intent;
mod paused;
mod priority;
mod quiet_hours;
mod suppression;

use std::sync::Arc;

pub use self::intent::{Intent, at_intent};
pub use self::paused::rule_pause;
use super::action::{Channel, MessageId};
use super::decide::Context;
use super::profile::{Category, Exposure, Name, Profile};
use super::rule::{Offer, OnBlockAnswer, Rule};
use super::time::{Timestamp, Zone};

/// One gate: its name as operators read it, and the question.
pub struct Gate {
    pub name: &'static str,
    /// Asked only of sends; the others concern every action.
    sends_only: bool,
    check: fn(&Ask<'_>) -> Answer,
}

const fn every(name: &'static str, check: fn(&Ask<'_>) -> Answer) -> Gate {
    Gate { name, sends_only: false, check }
}

const fn sends(name: &'static str, check: fn(&Ask<'_>) -> Answer) -> Gate {
    Gate { name, sends_only: true, check }
}

/// The order is a promise: `explain` prints it, and what consumes a slot comes last.
pub const GATES: [Gate; 10] = [
    every("paused", paused::check),
    sends("consent", consent::check),
    sends("suppression", suppression::check),
    sends("inhibit", inhibit::check),
    every("holdout", holdout::check),
    sends("deadline", deadline::check),
    sends("quiet_hours", quiet_hours::check),
    sends("priority", priority::check),
    sends("caps", caps::check),
    sends("budget", budget::check),
];

/// What wants to happen: a step's action for one person at one instant.
pub struct Ask<'a> {
    pub ctx: &'a Context<'a>,
    pub profile: &'a Profile,
    /// The person's zone.
    pub zone: &'a Zone,
    pub rule: &'a Rule,
    /// Number of the run.
    pub run: u32,
    /// The run's exposure, once it was asked.
    pub exposure: Option<Exposure>,
    pub action: Asked<'a>,
    /// What this very decision has reserved of coupon budgets already.
    pub budget_used: &'a [(Name, Timestamp, i64)],
    pub now: Timestamp,
}

/// The action in question, as far as gates care.
#[derive(Clone, Copy)]
pub enum Asked<'a> {
    Send(SendAsked<'a>),
    /// Points, take, grant, set, tier.
    Other,
}

#[derive(Clone, Copy)]
pub struct SendAsked<'a> {
    pub channel: Channel,
    pub category: Category,
    pub offer: Option<&'a Offer>,
    /// The planned instant plus `max_late`.
    pub deadline: Timestamp,
    /// The message itself, at the send-intent: its own slot and offer do not stand in its way.
    pub own: Option<MessageId>,
}

/// What a gate answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Pass,
    /// Not now: ask again at `until` (`FOREVER`: only an event or an operator changes it).
    Hold {
        until: Timestamp,
        because: String,
    },
    /// Not on this channel; the next one is tried.
    Block {
        because: String,
    },
    /// The step ends without the message.
    Drop {
        because: String,
    },
    /// This person is left out on purpose: the step is skipped.
    Skip {
        because: String,
    },
    /// Too late.
    Expire {
        because: String,
    },
}

impl Answer {
    /// "Not now" under `on_block`: wait, or end the step.
    fn by_policy(answer: OnBlockAnswer, until: Timestamp, because: String) -> Answer {
        match answer {
            OnBlockAnswer::Wait => Answer::Hold { until, because },
            OnBlockAnswer::Drop => Answer::Drop { because },
        }
    }
}

/// The first gate that does not pass, with its answer; `Pass` if none stands in the way.
pub fn ask(ask: &Ask<'_>) -> (&'static str, Answer) {
    walk(ask).find(|(_, answer)| *answer != Answer::Pass).unwrap_or(("", Answer::Pass))
}

/// Every gate's answer, in order: what `explain` shows.
pub fn walk<'a>(ask: &'a Ask<'_>) -> impl Iterator<Item = (&'static str, Answer)> + 'a {
    let is_send = matches!(ask.action, Asked::Send(_));
    GATES.iter().filter(move |gate| is_send || !gate.sends_only).map(|gate| (gate.name, (gate.check)(ask)))
}

impl<'a> Ask<'a> {
    /// The send in question; none for other actions.
    fn send(&self) -> Option<SendAsked<'a>> {
        match self.action {
            Asked::Send(send) => Some(send),
            Asked::Other => None,
        }
    }

    fn on_block(&self) -> crate::engine::rule::OnBlock {
        self.ctx.rules.policy.on_block
    }

    /// When this is asked again at the latest because it waits: its deadline is the last chance to say so.
    fn until_deadline(&self, until: Timestamp) -> Timestamp {
        self.send().map_or(until, |send| until.min(send.deadline.plus_ms(1)))
    }
}

/// Whether a step of this person is held for want of room: by a cap, by the one marketing send per span, by a coupon's budget. A
/// message that definitely did not go makes room, so its result is looked at at once.
pub fn waits_for_room(profile: &Profile) -> bool {
    const FOR_ROOM: [&str; 3] = ["priority", "caps", "budget"];
    profile.holds.iter().any(|hold| FOR_ROOM.contains(&&*hold.gate))
}

/// A stable number in 0..10_000 for (salt, person): the same at every look and on every machine.
pub fn bucket(salt: &str, profile: &str) -> u16 {
    let text = format!("{salt}\0{profile}");
    (twox_hash::XxHash3_64::oneshot(text.as_bytes()) % 10_000) as u16
}

/// A stable fraction in [0, 1) for (salt, person).
pub fn fraction(salt: &str, profile: &str) -> f64 {
    let text = format!("{salt}\0{profile}");
    // 53 bits: every value is exact in a double
    (twox_hash::XxHash3_64::oneshot(text.as_bytes()) >> 11) as f64 / (1u64 << 53) as f64
}

/// Name of a gate as it stands in holds and entries.
pub fn name(gate: &str) -> Name {
    Arc::from(gate)
}
