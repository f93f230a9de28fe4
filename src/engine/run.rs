//! One rule's run for one person: when its steps are planned, until when they may happen, what has become of them, what its
//! messages' results say. Pure calculations; who moves a run is `decide`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::action::{Channel, MessageId, Outcome};
use super::coupon;
use super::event::{Event, Value};
use super::gate;
use super::profile::{Name, Profile, Run, StepState, Suppressed, Try};
use super::rule::{Action, AtDays, MaxLate, Policy, Required, Rule, SendAt, Step, Trigger};
use super::time::{HOUR_MS, SECOND_MS, Span, Timestamp, Zone};

/// How late a message of a category without a line in `policy.categories` may be.
const MAX_LATE_ELSE: MaxLate = MaxLate::Span(Span::hours(24));

/// On channels without receipts a message counts as delivered once it has not bounced for that long.
pub const NO_BOUNCE_MS: i64 = 24 * HOUR_MS;

/// What the log says of a run that begins in the place of a superseded one.
pub const TOOK_PLACE: &str = "a run begins in the place of the one before";

/// The step at an index of `run.steps`: those of `steps` first, then those of `on_exit`.
pub fn step_at(rule: &Rule, index: usize) -> Option<&Step> {
    match index.checked_sub(rule.steps.len()) {
        None => rule.steps.get(index),
        Some(on_exit) => rule.on_exit.get(on_exit),
    }
}

/// When a step is due: `after` counted from the run's start (for `on_exit`: from its end), then moved into `send_at`.
pub fn planned(rule: &Rule, run: &Run, index: usize, profile: &str, zone: &Zone) -> Timestamp {
    let Some(step) = step_at(rule, index) else { return Timestamp::FOREVER };
    let from = if index < rule.steps.len() { run.started_at } else { run.ended_at.unwrap_or(run.started_at) };
    let base = step.after.after(from, zone);
    match &step.send_at {
        None => base,
        Some(window) => into_window(window, base, gate::fraction(&format!("{}\0{}", rule.id, step.id), profile), zone),
    }
}

/// The first instant at or after `base` in the window, where people are spread over what is left of it by `fraction`.
fn into_window(window: &SendAt, base: Timestamp, fraction: f64, zone: &Zone) -> Timestamp {
    let mut date = base.local(zone).date();
    // a window may be open on one weekday only: eight days see each of them, the present one twice
    for _ in 0..8 {
        if window.days.is_empty() || window.days.contains(&date.weekday()) {
            let opens = zone.instant(date.to_datetime(window.from)).max(base);
            let closes = zone.instant(date.to_datetime(window.to));
            if opens <= closes {
                let within_ms = (closes.ms_since(opens) as f64 * fraction) as i64;
                // whole seconds: nobody wants to read more of a planned time
                return opens.plus_ms(within_ms / SECOND_MS * SECOND_MS);
            }
        }
        match date.tomorrow() {
            Ok(next) => date = next,
            Err(_) => break,
        }
    }
    Timestamp::FOREVER
}

/// The last instant at which a message of this step may still go out.
pub fn deadline(policy: &Policy, rule: &Rule, step: &Step, planned: Timestamp, zone: &Zone) -> Timestamp {
    let by_category = || match &step.action {
        Action::Send(send) => policy.max_late.get(&send.category).copied(),
        _ => None,
    };
    let max_late = step.max_late.or(rule.max_late).or_else(by_category).unwrap_or(MAX_LATE_ELSE);
    late_until(policy, rule, max_late, planned, zone)
}

/// The last instant at which a calendar firing of that nominal instant may still start its run.
pub fn firing_deadline(policy: &Policy, rule: &Rule, nominal: Timestamp, zone: &Zone) -> Timestamp {
    let max_late = rule.max_late.or_else(|| policy.max_late.get(&policy.default_category).copied()).unwrap_or(MAX_LATE_ELSE);
    late_until(policy, rule, max_late, nominal, zone)
}

fn late_until(policy: &Policy, rule: &Rule, max_late: MaxLate, planned: Timestamp, zone: &Zone) -> Timestamp {
    let end_of_day = |zone: &Zone, date: jiff::civil::Date| match date.tomorrow() {
        Ok(next) => zone.start_of_day(next).plus_ms(-1),
        Err(_) => Timestamp::FOREVER,
    };
    match max_late {
        MaxLate::Span(span) => span.after(planned, zone),
        MaxLate::EndOfLocalDay => end_of_day(zone, planned.local(zone).date()),
        MaxLate::EndOfCalendar => {
            let named = match &rule.trigger {
                Trigger::At(at) => match &at.days {
                    AtDays::Calendar(name) => policy.calendars.get(name),
                    _ => None,
                },
                _ => None,
            };
            let date = planned.local(zone).date();
            let calendars = named.into_iter().chain(policy.calendars.values());
            let ends = calendars.flat_map(|c| &c.ranges).find(|(first, last)| *first <= date && date <= *last);
            end_of_day(zone, ends.map_or(date, |(_, last)| *last))
        }
    }
}

/// Whether nothing is left to do for a step, as far as is known.
pub fn is_finished(step: &StepState) -> bool {
    !matches!(step, StepState::Waiting)
}

/// Whether a step has done something that is not to happen a second time: it acted, or a message of it went out or may have.
pub fn has_happened(step: &StepState) -> bool {
    match step {
        StepState::Acted { .. } => true,
        StepState::Sent { tries, .. } => tries.iter().any(|t| !t.outcome.is_some_and(never_went)),
        _ => false,
    }
}

/// The channels of a send that may still be tried after its last try, if that ended in a way that lets the next one follow.
pub fn channels_left<'a>(channels: &'a [Channel], tries: &[Try]) -> &'a [Channel] {
    let tried = tries.last().and_then(|last| channels.iter().position(|channel| *channel == last.channel));
    channels.get(tried.map_or(0, |index| index + 1)..).unwrap_or_default()
}

/// The results that let the next channel follow: never after a hold, `unknown` or `expired`.
pub const FOLLOWED: [Outcome; 4] = [Outcome::Failed, Outcome::Bounced, Outcome::Dead, Outcome::Blocked];

/// Whether that result lets the next channel follow.
pub fn lets_next_follow(outcome: Option<Outcome>) -> bool {
    outcome.is_some_and(|outcome| FOLLOWED.contains(&outcome))
}

/// The step at an index, and if it is a ladder's first rung the others too.
pub fn rungs_of(rule: &Rule, first: usize) -> impl Iterator<Item = usize> {
    let further = rule.steps.iter().enumerate().filter(move |(_, step)| step.rung.is_some_and(|rung| rung.first == first));
    std::iter::once(first).chain(further.map(|(index, _)| index).filter(move |index| *index != first))
}

/// Whether a step has come as far as a `require` asks.
pub fn satisfies(step: &StepState, required: Required) -> bool {
    let tries = match step {
        StepState::Sent { tries, .. } => tries,
        // of what sends nothing only `done` is asked; a send in shadow would have come that far
        StepState::Acted { .. } => return true,
        _ => return false,
    };
    tries.iter().any(|t| match required {
        Required::Done | Required::Accepted => t.accepted_at.is_some() && t.outcome != Some(Outcome::Bounced),
        Required::Delivered => matches!(t.outcome, Some(Outcome::Delivered | Outcome::Opened | Outcome::Clicked)),
        Required::Opened => matches!(t.outcome, Some(Outcome::Opened | Outcome::Clicked)),
    })
}

/// The engine's event for what became of a message: appended by whoever records the result. The id is derived from the message, so
/// that recording twice appends once; `detail` is the provider's answer or the reason.
pub fn result_event(message: &ResultOf<'_>, outcome: Outcome, at: Timestamp, detail: &str) -> Event {
    let mut properties = Map::new();
    let mut put = |key: &str, value: &str| properties.insert(key.to_owned(), Json::from(value));
    put("message", &message.id.to_string());
    put("rule", message.rule);
    put("step", message.step);
    put("channel", message.channel.name());
    put("template", message.template);
    put("detail", detail);
    properties.insert("run".to_owned(), Json::from(message.run));
    Event {
        id: Arc::from(format!("{}:{}", message.id, outcome.name())),
        kind: super::event::EventKind::Engine,
        name: Arc::from(format!("{RESULT_PREFIX}{}", outcome.name())),
        occurred_at: at,
        received_at: at,
        source: Arc::from("rekindle"),
        properties,
    }
}

/// The message a result speaks of.
#[derive(Clone, Copy, Debug)]
pub struct ResultOf<'a> {
    pub id: MessageId,
    pub rule: &'a str,
    pub run: u32,
    pub step: &'a str,
    pub channel: Channel,
    pub template: &'a str,
}

impl<'a> From<&'a super::action::Message> for ResultOf<'a> {
    fn from(message: &'a super::action::Message) -> Self {
        ResultOf {
            id: message.id,
            rule: &message.rule,
            run: message.run,
            step: &message.step,
            channel: message.channel,
            template: &message.template,
        }
    }
}

const RESULT_PREFIX: &str = "message_";

/// Reads the outcome and the message out of an engine event; none if it is no result.
pub fn read_result(event: &Event) -> Option<(MessageId, Outcome)> {
    if event.kind != super::event::EventKind::Engine {
        return None;
    }
    let outcome = Outcome::named(event.name.strip_prefix(RESULT_PREFIX)?)?;
    Some((MessageId::parse(event.text_property("message")?)?, outcome))
}

/// Whether that outcome says that the message definitely did not go out.
pub fn never_went(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Failed | Outcome::Blocked | Outcome::Expired | Outcome::Cancelled | Outcome::Dead)
}

/// Property of a result that says whether the address is to blame: true makes a `message_failed` close it, false lets a `message_bounced`
/// leave it open.
pub const SUPPRESS: &str = "suppress";

/// Whether a result says that the address must not be written to again: a bounce, or a refusal because of it.
pub fn closes_address(outcome: Outcome, event: &Event) -> bool {
    let blamed = event.property(SUPPRESS).and_then(Json::as_bool);
    match outcome {
        Outcome::Bounced => blamed != Some(false),
        Outcome::Failed => blamed == Some(true),
        _ => false,
    }
}

/// Absorbs a result: the slot is released if the message definitely did not go out, the try learns what became of it, a hard
/// bounce suppresses the address.
pub fn hear_result(profile: &mut Profile, message: MessageId, outcome: Outcome, event: &Event) {
    let channel = profile.slots.iter().find(|slot| slot.message == message).map(|slot| slot.channel);
    if never_went(outcome) {
        profile.slots.retain(|slot| slot.message != message);
        coupon::release(profile, message);
    }
    if outcome == Outcome::Unknown {
        // it may have gone out without an intent on record here (a restored database): it counts from when we learned of it
        let undated = profile.slots.iter_mut().filter(|slot| slot.message == message && slot.sent_at.is_none());
        undated.for_each(|slot| slot.sent_at = Some(event.occurred_at));
    }
    if closes_address(outcome, event)
        && let Some(channel) = channel.or_else(|| Channel::named(event.text_property("channel")?))
    {
        suppress(profile, channel, event);
    }
    let tries = profile.runs.iter_mut().flat_map(|run| &mut run.steps).filter_map(|step| match step {
        StepState::Sent { tries, .. } => tries.iter_mut().find(|t| t.message == message),
        _ => None,
    });
    for found in tries {
        learn(found, outcome, event.occurred_at);
    }
}

/// A provider definitely refused it for now, and it will be tried again: its slot has no date any more, and counts as every pending one.
pub fn wait_again(profile: &mut Profile, message: MessageId) {
    for slot in profile.slots.iter_mut().filter(|slot| slot.message == message) {
        slot.sent_at = None;
    }
}

/// Results come in any order: a later stage is never undone by an earlier one that arrives late.
fn learn(found: &mut Try, outcome: Outcome, at: Timestamp) {
    if matches!(outcome, Outcome::Accepted | Outcome::Delivered) {
        found.accepted_at = Some(found.accepted_at.map_or(at, |known| known.min(at)));
    }
    if found.outcome.is_none_or(|known| stage(outcome) > stage(known)) {
        found.outcome = Some(outcome);
        found.at = at;
    }
}

fn stage(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Unknown => 0,
        Outcome::Accepted => 1,
        Outcome::Failed | Outcome::Blocked | Outcome::Expired | Outcome::Cancelled | Outcome::Dead => 2,
        Outcome::Delivered => 3,
        Outcome::Opened => 4,
        Outcome::Clicked => 5,
        Outcome::Bounced => 6,
    }
}

fn suppress(profile: &mut Profile, channel: Channel, event: &Event) {
    let address: Name = match profile.addresses.get(&channel).map(|address| &address.value) {
        Some(Value::Text(address)) => address.clone(),
        _ => Name::from(""),
    };
    let entry = Suppressed { reason: "hard_bounce".into(), at: event.occurred_at, address, until: None };
    profile.suppressed.insert(channel, entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{Weekday, time};

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a test instant")
    }

    #[test]
    fn a_step_is_moved_into_its_window() {
        let zone = Zone::named("America/New_York").expect("a zone");
        let window = |from: i8, to: i8, days: &[Weekday]| SendAt { from: time(from, 0, 0, 0), to: time(to, 0, 0, 0), days: days.to_vec() };
        for (name, window, base, fraction, expected) in [
            ("evening goes to the morning", window(10, 12, &[]), "2026-03-05T19:00:00-05:00", 0.0, "2026-03-06T10:00:00-05:00"),
            ("half the people come later", window(10, 12, &[]), "2026-03-05T19:00:00-05:00", 0.5, "2026-03-06T11:00:00-05:00"),
            ("within it, the rest of it is left", window(10, 12, &[]), "2026-03-05T11:00:00-05:00", 0.5, "2026-03-05T11:30:00-05:00"),
            ("a point of time, already past", window(10, 10, &[]), "2026-03-05T10:00:01-05:00", 0.9, "2026-03-06T10:00:00-05:00"),
            ("a point of time, exactly now", window(10, 10, &[]), "2026-03-05T10:00:00-05:00", 0.9, "2026-03-05T10:00:00-05:00"),
            ("over the clock change", window(10, 12, &[]), "2026-03-07T19:00:00-05:00", 0.0, "2026-03-08T10:00:00-04:00"),
            ("on a weekday", window(10, 12, &[Weekday::Monday]), "2026-03-05T11:00:00-05:00", 0.0, "2026-03-09T10:00:00-04:00"),
            (
                "the same weekday, a week on",
                window(10, 12, &[Weekday::Thursday]),
                "2026-03-05T13:00:00-05:00",
                0.0,
                "2026-03-12T10:00:00-04:00",
            ),
        ] {
            assert_eq!(into_window(&window, at(base), fraction, &zone), at(expected), "{name}");
        }
    }

    #[test]
    fn results_may_come_in_any_order() {
        use Outcome::{Accepted, Bounced, Clicked, Delivered, Failed, Opened, Unknown};
        for (heard, known, accepted) in [
            (vec![Accepted, Delivered], Delivered, true),
            (vec![Delivered, Accepted], Delivered, true),
            (vec![Unknown, Accepted], Accepted, true),
            (vec![Opened, Delivered, Accepted, Clicked], Clicked, true),
            (vec![Bounced, Accepted], Bounced, true),
            (vec![Failed], Failed, false),
        ] {
            let mut found =
                Try { channel: Channel::Sms, message: MessageId(1), outcome: None, accepted_at: None, at: Timestamp::DISTANT_PAST };
            for outcome in &heard {
                learn(&mut found, *outcome, Timestamp::from_ms(5));
            }
            assert_eq!((found.outcome, found.accepted_at.is_some()), (Some(known), accepted), "{heard:?}");
        }
    }
}
