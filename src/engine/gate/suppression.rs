//! The person's address on this channel is on the never-contact list, or there is none. Blocks the channel.

use super::{Answer, Ask};
use crate::engine::consent;

pub fn check(ask: &Ask<'_>) -> Answer {
    let Some(send) = ask.send() else { return Answer::Pass };
    match consent::address(ask.profile, send.channel, ask.ctx.world.addresses_given, ask.now) {
        Ok(()) => Answer::Pass,
        Err(because) => Answer::Block { because },
    }
}
