//! Frequency caps that cannot be exceeded. The slots stand in the profile's own row: reserved (pending) with the decision, stamped
//! with the send-intent, released only when a message definitely did not go out. A pending slot always counts, so whatever is
//! granted later sees it; windows are half-open, `(t - W, t]`.
//!
//! Proof sketch: were there a window with one send too many, take the one granted last: when it was granted, each of the others
//! was pending or stamped within the window, so it was counted and the grant was refused.

use super::{Answer, Ask, SendAsked};
use crate::engine::profile::{Category, Slot};
use crate::engine::rule::{Cap, CapWindow, OnBlockAnswer};
use crate::engine::time::{MINUTE_MS, Timestamp};

/// A pending slot of another decision has no date yet: look again after this long.
const PENDING_LOOK_AGAIN_MS: i64 = 15 * MINUTE_MS;

pub fn check(ask: &Ask<'_>) -> Answer {
    let Some(send) = ask.send() else { return Answer::Pass };
    if let Some(because) = at_most(ask) {
        return Answer::Drop { because };
    }
    let mut holds: Option<(Timestamp, String)> = None;
    for cap in ask.ctx.rules.policy.caps.iter().filter(|cap| concerns(cap, ask, send)) {
        let Some((until, because)) = full_until(cap, ask, send) else { continue };
        if cap.on_block.unwrap_or(ask.on_block().cap) == OnBlockAnswer::Drop {
            // the cap of one channel says nothing about the others
            return if cap.channels.is_empty() { Answer::Drop { because } } else { Answer::Block { because } };
        }
        if holds.as_ref().is_none_or(|(latest, _)| until > *latest) {
            holds = Some((until, because));
        }
    }
    match holds {
        None => Answer::Pass,
        Some((until, because)) => Answer::Hold { until: ask.until_deadline(until), because },
    }
}

/// `at_most`: one more run of this rule than allowed sends nothing.
fn at_most(ask: &Ask<'_>) -> Option<String> {
    let (max, within_ms) = ask.rule.at_most?;
    let memory = ask.profile.memory(&ask.rule.id)?;
    let since = ask.now.plus_ms(-within_ms);
    let others = memory.sent_runs.iter().filter(|(run, at)| *run != ask.run && *at > since).count();
    (others >= max as usize).then(|| format!("at_most: {others} other runs of {} sent within the span, {max} may", ask.rule.id))
}

fn concerns(cap: &Cap, ask: &Ask<'_>, send: SendAsked<'_>) -> bool {
    let tags = |tags: &[super::Name]| cap.tags.is_empty() || tags.iter().any(|tag| cap.tags.contains(tag));
    (cap.channels.is_empty() || cap.channels.contains(&send.channel))
        && (cap.categories.is_empty() || cap.categories.contains(&send.category))
        && tags(&ask.rule.tags)
}

/// If the cap is full at `now`: when there will be room again, and the sentence.
fn full_until(cap: &Cap, ask: &Ask<'_>, send: SendAsked<'_>) -> Option<(Timestamp, String)> {
    let counted = |slot: &&Slot| {
        let tagged = || ask.ctx.rules.rule(&slot.rule).is_some_and(|rule| rule.tags.iter().any(|tag| cap.tags.contains(tag)));
        (cap.channels.is_empty() || cap.channels.contains(&slot.channel))
            && (cap.categories.is_empty() || cap.categories.contains(&slot.category))
            && (cap.tags.is_empty() || tagged())
    };
    let slots = ask.profile.slots.iter().filter(|slot| Some(slot.message) != send.own).filter(counted);
    let (until, used) = match cap.window {
        CapWindow::Rolling(ms) => rolling(slots, cap.max, ms, ask.now)?,
        calendar => {
            let (start, end) = calendar_window(calendar, ask);
            let counted: Vec<&Slot> = slots.filter(|slot| slot.sent_at.is_none_or(|at| at >= start)).collect();
            let is_pending = counted.iter().any(|slot| slot.sent_at.is_none());
            let until = if is_pending { end.min(ask.now.plus_ms(PENDING_LOOK_AGAIN_MS)) } else { end };
            (counted.len() >= cap.max as usize).then_some((until, counted.len()))?
        }
    };
    Some((until, format!("cap {}: {used} of {} used", cap.id, cap.max)))
}

/// When a rolling window has room again, if it has none now, and how many it holds.
pub fn rolling<'s>(slots: impl Iterator<Item = &'s Slot>, max: u32, window_ms: i64, now: Timestamp) -> Option<(Timestamp, usize)> {
    let since = now.plus_ms(-window_ms);
    let mut pending = false;
    let mut stamps: Vec<Timestamp> = Vec::new();
    for slot in slots {
        match slot.sent_at {
            Some(at) if at <= since => {}
            Some(at) => stamps.push(at),
            None => {
                pending = true;
                stamps.push(now);
            }
        }
    }
    let used = stamps.len();
    let too_many = (used + 1).checked_sub(max as usize).filter(|n| *n > 0)?;
    stamps.sort_unstable();
    // the slot whose leaving makes room; a cap of 0 never has any
    let leaves = stamps.get(too_many - 1).map_or(Timestamp::FOREVER, |at| at.plus_ms(window_ms));
    let until = if pending { leaves.min(now.plus_ms(PENDING_LOOK_AGAIN_MS.min(window_ms))) } else { leaves };
    Some((until, used))
}

/// The local day, week or month that `now` lies in: [start, end).
fn calendar_window(window: CapWindow, ask: &Ask<'_>) -> (Timestamp, Timestamp) {
    let zone = ask.zone;
    let today = ask.now.local(zone).date();
    let (first, next) = match window {
        CapWindow::LocalWeek => {
            let back = i64::from(ask.ctx.rules.policy.week_start.until(today.weekday()));
            let first = today.saturating_sub(jiff::Span::new().days(back));
            (first, first.saturating_add(jiff::Span::new().days(7)))
        }
        CapWindow::LocalMonth => (today.first_of_month(), today.last_of_month().saturating_add(jiff::Span::new().days(1))),
        CapWindow::LocalDay | CapWindow::Rolling(_) => (today, today.saturating_add(jiff::Span::new().days(1))),
    };
    (zone.start_of_day(first), zone.start_of_day(next))
}

/// The gate `priority` is this cap, of one, over all marketing.
pub fn marketing_slots<'a>(ask: &'a Ask<'_>, send: SendAsked<'_>) -> impl Iterator<Item = &'a Slot> {
    ask.profile.slots.iter().filter(move |slot| Some(slot.message) != send.own && slot.category == Category::Marketing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::action::{Channel, MessageId};
    use crate::engine::time::DAY_MS;

    fn slots(days: &[Option<i64>]) -> Vec<Slot> {
        let slot = |sent_at: &Option<i64>| Slot {
            message: MessageId(0),
            rule: "r".into(),
            category: Category::Marketing,
            channel: Channel::Email,
            sent_at: sent_at.map(|day| Timestamp::from_ms(day * DAY_MS)),
            text: None,
        };
        days.iter().map(slot).collect()
    }

    #[test]
    fn a_rolling_window_is_half_open_and_says_when_it_has_room() {
        let now = Timestamp::from_ms(100 * DAY_MS);
        let day = |n: i64| Timestamp::from_ms(n * DAY_MS);
        for (sent, max, until) in [
            (vec![], 1, None),
            (vec![Some(93)], 1, None), // exactly 7 days ago: it has left
            (vec![Some(94)], 1, Some(day(101))),
            (vec![Some(94), Some(98)], 2, Some(day(101))),
            (vec![Some(94), Some(98)], 1, Some(day(105))), // a lowered cap: both must leave
            (vec![Some(98), Some(94), Some(97)], 2, Some(day(104))),
            (vec![None], 1, Some(now.plus_ms(PENDING_LOOK_AGAIN_MS))),
            (vec![Some(94), None], 2, Some(now.plus_ms(PENDING_LOOK_AGAIN_MS))),
            (vec![], 0, Some(Timestamp::FOREVER)),
        ] {
            let answer = rolling(slots(&sent).iter(), max, 7 * DAY_MS, now);
            assert_eq!(answer.map(|(until, _)| until), until, "{sent:?} of {max}");
        }
    }
}
