//! Alertmanager's inhibition, for people: while something holds (an open complaint), messages of these categories are out of place.
//! Drops the step unless `on_block.inhibit` says wait. A condition that cannot be evaluated holds: in doubt, silence.

use super::{Answer, Ask};
use crate::engine::rule::OnBlockAnswer;
use crate::engine::rule::expr::Subject;
use crate::engine::time::DAY_MS;

pub fn check(ask: &Ask<'_>) -> Answer {
    let Some(send) = ask.send() else { return Answer::Pass };
    let rules = ask.ctx.rules;
    let subject = Subject { profile: ask.profile, now: ask.now, event: None, run: None };
    for line in rules.policy.inhibit.iter().filter(|line| line.categories.contains(&send.category)) {
        match line.when.next_flip(rules.names(), subject) {
            Ok(verdict) if !verdict.truth => {}
            Ok(verdict) => {
                return Answer::by_policy(ask.on_block().inhibit, ask.until_deadline(verdict.until), line.why.clone());
            }
            Err(error) => {
                let because = format!("{} (cannot tell: {error})", line.why);
                return Answer::by_policy(OnBlockAnswer::Wait, ask.until_deadline(ask.now.plus_ms(DAY_MS)), because);
            }
        }
    }
    Answer::Pass
}
