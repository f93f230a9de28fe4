//! Somebody pulled the brake: everything, this rule, one of its tags or this channel is paused. Due times do not move; `resume`
//! makes the people concerned due.

use super::{Answer, Ask};
use crate::engine::decide::{Pause, World};
use crate::engine::rule::Rule;
use crate::engine::time::Timestamp;

pub fn check(ask: &Ask<'_>) -> Answer {
    let world = ask.ctx.world;
    let channel = ask.send().and_then(|send| Some((send.channel, world.paused_channels.get(send.channel.name())?)));
    match (rule_pause(world, ask.rule), channel) {
        (Some((what, pause)), _) => hold(&what, pause),
        (None, Some((channel, pause))) => hold(&format!("channel {channel}"), pause),
        (None, None) => Answer::Pass,
    }
}

/// The pause that concerns the rule, on whichever channel, with what is paused.
pub fn rule_pause<'a>(world: &'a World, rule: &Rule) -> Option<(String, &'a Pause)> {
    let everything = world.paused.as_ref().map(|pause| ("everything".to_owned(), pause));
    let this = || world.rules.get(&rule.id)?.paused.as_ref().map(|pause| (format!("rule {}", rule.id), pause));
    let tag = || rule.tags.iter().find_map(|tag| Some((format!("tag {tag}"), world.paused_tags.get(tag)?)));
    everything.or_else(this).or_else(tag)
}

fn hold(what: &str, pause: &Pause) -> Answer {
    Answer::Hold { until: Timestamp::FOREVER, because: format!("{what} is paused since {}: {}", pause.at, pause.reason) }
}
