//! A rule in shadow decides beside the live ones and does nothing. It keeps its runs under a name of its own (`win-back@shadow`), so
//! that nothing of them counts on the day it goes live: numbers, `reentry`, `at_most` and notices begin anew.
//!
//! Its steps ask what they would ask in earnest, gates included, and where they would act the log says so. No slot is taken, no
//! exposure written, no point moved. Later steps that `require` one take it for delivered.

use super::Look;
use super::steps::{Due, Passed};
use crate::engine::action::What;
use crate::engine::points;
use crate::engine::profile::StepState;
use crate::engine::rule::{Action, Grant, TierAction};

impl<'a> Look<'a> {
    /// Of a rule in shadow: what a step other than a send would do now.
    pub(super) fn act_in_shadow(&mut self, due: &Due<'a>) -> bool {
        if let Action::Take(take) = &due.step.action {
            if let Some(because) = self.spared(due.rule, &due.run, due.index) {
                return self.skip(due, because);
            }
            if points::takeable(&self.profile, self.names, take, self.now) == 0 {
                return self.skip(due, "nothing that may be taken is left");
            }
        }
        if !matches!(due.step.action, Action::Alert { .. })
            && let Passed::Stopped { moved } = self.through_gates(due)
        {
            return moved;
        }
        let deed = self.deed(&due.step.action);
        self.in_shadow(due, &deed)
    }

    /// Notes what would have been done; the step is over by that.
    pub(super) fn in_shadow(&mut self, due: &Due<'a>, deed: &str) -> bool {
        self.settle(due, StepState::Acted { at: self.now });
        self.log(&due.rule.id, due.run.number, &due.step.id, What::Shadowed, format!("would {deed}"), None);
        true
    }

    fn deed(&self, action: &Action) -> String {
        match action {
            Action::Send(send) => format!("send {}", send.template),
            Action::Points { class, add, .. } => format!("give {add} points of {class}"),
            Action::Take(take) => format!("take {} points of {}", points::takeable(&self.profile, self.names, take, self.now), take.of),
            Action::Tier(TierAction::To { tier, .. }) => format!("change the tier to {tier}"),
            Action::Tier(TierAction::Overlay { up, .. }) => format!("lift the tier by {up} for a while"),
            Action::Grant { grant: Grant::Coupon(name), .. } => format!("grant the coupon {name}"),
            Action::Grant { grant: Grant::Benefit(name), .. } => format!("grant the benefit {name}"),
            Action::Grant { grant: Grant::Bundle(name), .. } => format!("grant the bundle {name}"),
            Action::Set(values) => format!("set {}", values.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ")),
            Action::Alert { level, notify, .. } => format!("alert {} ({level})", notify.join(", ")),
        }
    }
}
