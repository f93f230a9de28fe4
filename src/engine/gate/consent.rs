//! What must be on record before a message of this category may go out on this channel. Blocks the channel, not the step: another
//! channel may have consent.

use super::{Answer, Ask};
use crate::engine::consent;

pub fn check(ask: &Ask<'_>) -> Answer {
    let Some(send) = ask.send() else { return Answer::Pass };
    match consent::check(&ask.ctx.rules.policy, ask.profile, send.category, send.channel, ask.now) {
        Ok(()) => Answer::Pass,
        Err(because) => Answer::Block { because },
    }
}
