//! Stage 5: when to look again. The smallest instant at which anything about this person can change while no fact arrives; because
//! of it cost follows change, never population.

use super::{Look, next_of_run};
use crate::engine::profile::RunOutcome;
use crate::engine::rule::Trigger;
use crate::engine::time::{MINUTE_MS, Timestamp};
use crate::engine::{points, tier};

impl Look<'_> {
    pub(super) fn due(&self) -> Timestamp {
        let conditions = self.rules().iter().filter(|rule| rule.enabled).map(|rule| match &rule.trigger {
            Trigger::When(when) => self.next_of_conditions(rule, when),
            Trigger::At(at) => match self.closed(rule) {
                Some((_, _, until)) => until,
                None => self.next_firing(rule, at, None).map_or(Timestamp::FOREVER, |(_, at)| at),
            },
            Trigger::Event { .. } => Timestamp::FOREVER,
        });
        let runs = self.profile.runs.iter().filter_map(|run| {
            let rule = self.ctx.rule_of(run)?;
            let may_leave = match run.ended {
                None => true,
                Some(RunOutcome::Done) => !run.open_messages().is_empty(),
                Some(_) => false,
            };
            let leaves = if may_leave { self.next_leave(rule) } else { Timestamp::FOREVER };
            Some(next_of_run(self, rule, run).min(leaves))
        });
        let waiting = self.profile.waiting.iter().filter_map(|entry| {
            let rule = self.rules().iter().find(|rule| rule.id == entry.rule)?;
            Some(self.closed(rule)?.2)
        });
        let booked = [points::next_due(&self.profile, self.names), tier::next_due(&self.profile, self.names)];
        let next = conditions.chain(runs).chain(waiting).chain(booked).min().unwrap_or(Timestamp::FOREVER);
        // progress is guaranteed: what should have happened by now and did not is a fault of ours, looked at again in a minute
        if next <= self.now { self.now.plus_ms(MINUTE_MS) } else { next }
    }
}
