//! The last look: all gates again, on the fresh row, in the transaction that makes a message `sending`. What passes gets its slot
//! stamped and its offer issued in that same transaction; only then may a byte leave.

use super::{Answer, Ask, Asked, SendAsked, ask};
use crate::engine::action::Message;
use crate::engine::coupon;
use crate::engine::decide::{self, Context};
use crate::engine::event::Event;
use crate::engine::profile::{Exposure, Name, Profile, RunOutcome};
use crate::engine::rule::{Action, Rule, Send};
use crate::engine::time::Timestamp;

/// What may happen to a queued message now.
#[derive(Debug)]
pub enum Intent {
    /// Send it: the profile with the slot stamped and the offer issued, and the engine's event of that (absorbed already).
    Send { profile: Box<Profile>, own_event: Option<Event> },
    /// Not now; it stays queued, with its slot, and is due again later than now, at its deadline at the latest.
    Hold { until: Timestamp, gate: Name, because: String },
    /// It ends without having gone out (`message_blocked`); the next channel may be tried.
    Block { gate: Name, because: String },
    /// It ends as expired.
    Expire { because: String },
    /// Its run, rule or slot is gone: it must not go out any more.
    Cancel { because: String },
}

/// Asks every gate about a claimed message, for the person as they are now.
pub fn at_intent(ctx: &Context<'_>, profile: &Profile, message: &Message, now: Timestamp) -> Intent {
    let (rule, send) = match rule_and_send(ctx, message) {
        Ok(found) => found,
        Err(because) => return Intent::Cancel { because },
    };
    let Some(slot) = profile.slots.iter().position(|slot| slot.message == message.id) else {
        return Intent::Cancel { because: "its slot was released".to_owned() };
    };
    let run = profile.runs.iter().find(|run| run.rule == message.rule && run.number == message.run);
    if let Some(outcome) = run.and_then(|run| run.ended).filter(|outcome| *outcome != RunOutcome::Done)
        && rule.steps.iter().any(|step| step.id == message.step)
    {
        return Intent::Cancel { because: format!("its run ended as {}", outcome.name()) };
    }
    let zone = ctx.rules.policy.zone_of(profile);
    let question = Ask {
        ctx,
        profile,
        zone: &zone,
        rule,
        run: message.run,
        // a message exists, so the run was asked; a run that has ended cannot be asked again
        exposure: run.and_then(|run| run.exposure).or(Some(Exposure::Treated)),
        action: Asked::Send(SendAsked {
            channel: message.channel,
            category: message.category,
            offer: send.offer.as_ref(),
            deadline: message.expires_at,
            own: Some(message.id),
        }),
        budget_used: &[],
        now,
    };
    let (gate, answer) = ask(&question);
    let gate = super::name(gate);
    match answer {
        Answer::Pass => {
            let mut profile = Box::new(stamped(profile, slot, now));
            let issued = coupon::issue(&mut profile, ctx.rules.names(), message.id, now);
            let own_event = issued.map(|own| decide::own_event(&mut profile, own, now));
            Intent::Send { profile, own_event }
        }
        // whatever waits is due at or before its deadline (I4), and never twice at one instant
        Answer::Hold { because, .. } if now >= message.expires_at => {
            Intent::Expire { because: format!("held until its deadline by {gate}: {because}") }
        }
        Answer::Hold { until, because } => Intent::Hold { until: until.min(message.expires_at).max(now.plus_ms(1)), gate, because },
        Answer::Block { because } | Answer::Drop { because } => Intent::Block { gate, because },
        Answer::Skip { because } => Intent::Cancel { because },
        Answer::Expire { because } => Intent::Expire { because },
    }
}

fn rule_and_send<'a>(ctx: &Context<'a>, message: &Message) -> Result<(&'a Rule, &'a Send), String> {
    let gone = || format!("rule {} is gone or disabled", message.rule);
    let present = ctx.rules.rule(&message.rule).filter(|rule| rule.enabled).ok_or_else(gone)?;
    let rule = ctx.set(message.version).and_then(|set| set.rule(&message.rule)).unwrap_or(present);
    let step = rule.steps.iter().chain(&rule.on_exit).find(|step| step.id == message.step);
    match step.map(|step| &step.action) {
        Some(Action::Send(send)) => Ok((rule, send)),
        _ => Err(format!("rule {} has no step {} that sends any more", message.rule, message.step)),
    }
}

/// The slot gets the send time, never before an earlier stamp: a clock that steps back makes caps stricter, not looser.
fn stamped(profile: &Profile, slot: usize, now: Timestamp) -> Profile {
    let latest = profile.slots.iter().filter_map(|slot| slot.sent_at).max();
    let mut profile = profile.clone();
    if let Some(slot) = profile.slots.get_mut(slot) {
        slot.sent_at = Some(latest.map_or(now, |at| at.max(now)));
    }
    profile
}
