//! A ladder reaches a person by one channel after the other. Each rung is a step of its own, planned for its own time; when its turn
//! has come it asks whether it is still needed, and if it goes, nothing of the rungs before goes any more.

use super::Look;
use super::steps::Due;
use crate::engine::action::{MessageId, Outcome, What};
use crate::engine::profile::{StepState, Try};
use crate::engine::rule::{Required, Rung};
use crate::engine::run;

impl Look<'_> {
    /// Why a rung is not needed any more: one before it has come far enough, or the person came back since the ladder began.
    pub(super) fn rung_is_needless(&self, due: &Due<'_>) -> Option<String> {
        let rung = due.step.rung?;
        let began = run::planned(due.rule, &due.run, rung.first, &self.profile.key, &self.zone);
        if rung.first < due.index && self.profile.activity.last_active_at.is_some_and(|at| at > began) {
            return Some("came back since the ladder began".to_owned());
        }
        let before = due.run.steps.get(rung.first..due.index)?.iter();
        let reached = before.zip(due.rule.steps.get(rung.first..due.index)?).find(|(state, _)| self.has_reached(state, rung.unless));
        reached.map(|(_, step)| format!("{} was {}", step.id, rung.unless.name()))
    }

    /// Whether a rung has come that far. What nobody knows counts as delivered: better one message too few than the same one twice. So
    /// does what a channel without receipts has accepted, and what is on its way.
    fn has_reached(&self, state: &StepState, outcome: Required) -> bool {
        use Outcome::{Accepted, Clicked, Delivered, Opened, Unknown};
        let tries = match state {
            StepState::Sent { tries, .. } => tries,
            // a send in shadow
            StepState::Acted { .. } => return outcome != Required::Opened,
            _ => return false,
        };
        let is_pending = |message: MessageId| self.profile.slots.iter().any(|slot| slot.message == message && slot.sent_at.is_none());
        tries.iter().any(|t: &Try| match (outcome, t.outcome) {
            (_, Some(Opened | Clicked)) => true,
            (Required::Opened, _) => false,
            (_, Some(Delivered | Unknown)) => true,
            (Required::Delivered, Some(Accepted)) => !t.channel.has_receipts(),
            (_, Some(Accepted)) => true,
            (_, Some(_)) => false,
            (_, None) => !is_pending(t.message),
        })
    }

    /// A rung goes: those before it that still wait are given up, and what they have queued is called back.
    pub(super) fn overtake(&mut self, due: &Due<'_>, rung: Rung) {
        for index in rung.first..due.index {
            let (Some(step), Some(run)) = (due.rule.steps.get(index), self.profile.runs.get_mut(due.run_index)) else { continue };
            match run.steps.get_mut(index) {
                Some(state @ StepState::Waiting) => {
                    *state = StepState::Skipped { at: self.now, because: "overtaken".into() };
                    self.unhold(&due.rule.id, due.run.number, &step.id);
                    self.log(&due.rule.id, due.run.number, &step.id, What::Skipped, format!("{} went instead", due.step.id), None);
                }
                Some(StepState::Sent { tries, .. }) => {
                    let open: Vec<MessageId> = tries.iter().filter(|t| t.outcome.is_none()).map(|t| t.message).collect();
                    open.into_iter().for_each(|message| self.call_back_one(due.run_index, message, "overtaken by the next rung"));
                }
                _ => {}
            }
        }
    }
}
