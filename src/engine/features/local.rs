//! Tests of the local calendar. Their edges are wall-clock times, and a wall-clock time can exist twice, or not at all: both readings
//! count as edges, and so does every change of the zone's offset.

use jiff::civil::{Date, Time};

use super::{Found, Question};
use crate::engine::time::{Timestamp, Zone};
use crate::engine::verdict::Verdict;

const MIDNIGHT: Time = Time::midnight();

/// The first instant after `now` at which the local time may cross one of `times`, or be moved.
fn next_edge(zone: &Zone, now: Timestamp, times: &[Time]) -> Timestamp {
    let mut date = now.local(zone).date();
    let mut until = zone.next_transition(now);
    for _ in 0..3 {
        for time in times {
            let (first, second) = zone.both_instants(date.to_datetime(*time));
            until = [first, second].into_iter().filter(|at| *at > now).fold(until, Timestamp::min);
        }
        match date.tomorrow() {
            Ok(next) => date = next,
            Err(_) => break,
        }
    }
    until
}

/// The local hour, 0-23.
pub fn hour(question: &Question<'_>) -> Found<i64> {
    let (zone, now) = (question.zone(), question.now());
    let hour = now.local(zone).hour();
    let next = Time::new((hour + 1) % 24, 0, 0, 0).unwrap_or(MIDNIGHT);
    Ok((i64::from(hour), next_edge(zone, now, &[next, MIDNIGHT])))
}

pub fn hour_at_least(question: &Question<'_>, edge: i64) -> Verdict {
    let (zone, now) = (question.zone(), question.now());
    match i8::try_from(edge).ok().and_then(|hour| Time::new(hour, 0, 0, 0).ok()) {
        Some(time) if edge > 0 => Verdict::new(i64::from(now.local(zone).hour()) >= edge, next_edge(zone, now, &[time, MIDNIGHT])),
        _ => Verdict::settled(edge <= 0),
    }
}

/// The local date as days since 1970-01-01.
pub fn date(question: &Question<'_>) -> Found<i64> {
    let (zone, now) = (question.zone(), question.now());
    Ok((day_number(now.local(zone).date()), next_edge(zone, now, &[MIDNIGHT])))
}

/// The local weekday, 0 for Monday.
pub fn weekday(question: &Question<'_>) -> (i8, Timestamp) {
    let (zone, now) = (question.zone(), question.now());
    (now.local(zone).weekday().to_monday_zero_offset(), next_edge(zone, now, &[MIDNIGHT]))
}

/// Local date at or after `edge`.
///
/// No zone's clock was ever moved by more than a day, so only within two days of the edge can a move matter.
pub fn date_at_least(question: &Question<'_>, edge: i64) -> Verdict {
    let (zone, now) = (question.zone(), question.now());
    let today = day_number(now.local(zone).date());
    let reached = today >= edge;
    if today >= edge.saturating_add(2) {
        return Verdict::settled(true);
    }
    let midnights = |day: i64| {
        let (first, second) =
            date_of(day).map_or((Timestamp::FOREVER, Timestamp::FOREVER), |date| zone.both_instants(date.to_datetime(MIDNIGHT)));
        [first, second].into_iter().filter(|at| *at > now).fold(Timestamp::FOREVER, Timestamp::min)
    };
    let near = today >= edge.saturating_sub(2);
    let moved = if near { zone.next_transition(now) } else { Timestamp::FOREVER };
    let until = if reached { midnights(edge.saturating_add(2)) } else { midnights(edge) };
    Verdict::new(reached, until.min(moved))
}

/// Whole calendar days in the user's zone since `since`.
pub fn days_since(question: &Question<'_>, since: Timestamp) -> Found<i64> {
    let (today, until) = date(question)?;
    Ok((today - day_number(since.local(question.zone()).date()), until))
}

pub fn days_since_at_least(question: &Question<'_>, since: Timestamp, edge: i64) -> Verdict {
    date_at_least(question, day_number(since.local(question.zone()).date()).saturating_add(edge))
}

const EPOCH: Date = Date::constant(1970, 1, 1);

/// Days since 1970-01-01.
pub fn day_number(date: Date) -> i64 {
    EPOCH.until(date).map_or(0, |span| i64::from(span.get_days()))
}

/// The date of a number of days since 1970-01-01; none beyond the calendar.
pub fn date_of(day: i64) -> Option<Date> {
    EPOCH.checked_add(jiff::Span::new().try_days(day).ok()?).ok()
}
