//! `priority.one_marketing_send_per`: at most one marketing message within that span, whatever the caps say. What is due or held in
//! one decision asks by priority, so the more important rule takes the place and the other one waits.

use super::{Answer, Ask, caps};
use crate::engine::profile::Category;

pub fn check(ask: &Ask<'_>) -> Answer {
    let Some(send) = ask.send().filter(|send| send.category == Category::Marketing) else { return Answer::Pass };
    let Some(span_ms) = ask.ctx.rules.policy.one_marketing_send_ms else { return Answer::Pass };
    let Some((until, _)) = caps::rolling(caps::marketing_slots(ask, send), 1, span_ms, ask.now) else { return Answer::Pass };
    let latest = caps::marketing_slots(ask, send).max_by_key(|slot| slot.sent_at.map_or(i64::MAX, |at| at.as_ms()));
    let winner = latest.map_or_else(String::new, |slot| format!(" ({} came first)", slot.rule));
    Answer::by_policy(ask.on_block().priority, ask.until_deadline(until), format!("one marketing message per span{winner}"))
}
