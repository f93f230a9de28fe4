//! No message at night, where the person lives. Where several lines of `policy.quiet_hours` match, all must be open. A closing or
//! opening time that does not exist (spring gap) is shifted forward; one that exists twice is its first occurrence.

use jiff::civil::Date;

use super::{Answer, Ask, SendAsked};
use crate::engine::profile::Profile;
use crate::engine::rule::{Policy, QuietHours};
use crate::engine::time::{Timestamp, Zone};

/// Lines that close one after the other are followed this often; a policy that never opens within it is closed for good (RK0403).
const MAX_LINES_FOLLOWED: usize = 64;

pub fn check(ask: &Ask<'_>) -> Answer {
    let Some(send) = ask.send() else { return Answer::Pass };
    let policy = &ask.ctx.rules.policy;
    match next_open(policy, ask.profile, ask.zone, send, ask.now) {
        open if open <= ask.now => Answer::Pass,
        open => {
            let because = format!("quiet hours in {} until {}", ask.zone.name(), open.local(ask.zone).strftime("%a %H:%M"));
            Answer::by_policy(ask.on_block().quiet_hours, ask.until_deadline(open), because)
        }
    }
}

/// The first instant at or after `now` at which every matching line is open.
pub fn next_open(policy: &Policy, profile: &Profile, zone: &Zone, send: SendAsked<'_>, now: Timestamp) -> Timestamp {
    let mut open = now;
    for _ in 0..MAX_LINES_FOLLOWED {
        let matching = policy.quiet_hours.iter().filter(|line| concerns(line, profile, send));
        match matching.filter_map(|line| closed_until(line, zone, open)).max() {
            None => return open,
            Some(until) => open = until,
        }
    }
    Timestamp::FOREVER
}

fn concerns(line: &QuietHours, profile: &Profile, send: SendAsked<'_>) -> bool {
    let any = |empty: bool, contains: bool| empty || contains;
    any(line.categories.is_empty(), line.categories.contains(&send.category))
        && any(line.channels.is_empty(), line.channels.contains(&send.channel))
        && any(line.countries.is_empty(), line.countries.iter().any(|c| **c == *profile.country()))
}

/// When the line opens, if it is closed at `at`.
fn closed_until(line: &QuietHours, user_zone: &Zone, at: Timestamp) -> Option<Timestamp> {
    let zone = line.zone.as_ref().unwrap_or(user_zone);
    let today = at.local(zone).date();
    // a night that began yesterday may still last
    [today.yesterday().ok(), Some(today)].into_iter().flatten().find_map(|date| {
        let (from, until) = closed_span(line, zone, date)?;
        (from <= at && at < until).then_some(until)
    })
}

/// The span for which the line closes on that date, if it applies to it.
fn closed_span(line: &QuietHours, zone: &Zone, date: Date) -> Option<(Timestamp, Timestamp)> {
    if !line.days.is_empty() && !line.days.contains(&date.weekday()) {
        return None;
    }
    if line.from == line.to {
        return Some((zone.start_of_day(date), zone.start_of_day(date.tomorrow().ok()?)));
    }
    let opens_on = if line.from < line.to { date } else { date.tomorrow().ok()? };
    Some((zone.instant(date.to_datetime(line.from)), zone.instant(opens_on.to_datetime(line.to))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{Weekday, time};

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a test instant")
    }

    fn night() -> QuietHours {
        QuietHours {
            from: time(21, 0, 0, 0),
            to: time(9, 0, 0, 0),
            days: vec![],
            zone: None,
            countries: vec![],
            channels: vec![],
            categories: vec![],
        }
    }

    #[test]
    fn the_night_ends_at_nine_local_time_also_when_the_clocks_change() {
        let zone = Zone::named("America/New_York").expect("a zone");
        for (now, open) in [
            ("2026-03-07T20:00:00-05:00", None),
            ("2026-03-07T21:00:00-05:00", Some("2026-03-08T09:00:00-04:00")), // 11 hours: the clocks go forward
            ("2026-03-08T08:59:59-04:00", Some("2026-03-08T09:00:00-04:00")),
            ("2026-03-08T09:00:00-04:00", None),
            ("2026-10-31T23:00:00-04:00", Some("2026-11-01T09:00:00-05:00")), // 11 hours, the clocks go back
            ("2026-11-01T01:30:00-05:00", Some("2026-11-01T09:00:00-05:00")), // the second 01:30
        ] {
            assert_eq!(closed_until(&night(), &zone, at(now)), open.map(at), "{now}");
        }
    }

    #[test]
    fn a_closed_day_is_closed_from_its_first_to_its_last_instant() {
        let midnight = time(0, 0, 0, 0);
        let sunday = QuietHours { from: midnight, to: midnight, days: vec![Weekday::Sunday], ..night() };
        let zone = Zone::named("Europe/Berlin").expect("a zone");
        assert_eq!(closed_until(&sunday, &zone, at("2026-11-21T23:59:59+01:00")), None);
        assert_eq!(closed_until(&sunday, &zone, at("2026-11-22T00:00:00+01:00")), Some(at("2026-11-23T00:00:00+01:00")));
        assert_eq!(closed_until(&sunday, &zone, at("2026-11-23T00:00:00+01:00")), None);
    }

    #[test]
    fn a_zone_without_that_midnight_opens_at_its_first_instant() {
        let midnight = time(0, 0, 0, 0);
        let saturday = QuietHours { from: midnight, to: midnight, days: vec![Weekday::Saturday], ..night() };
        let zone = Zone::named("America/Santiago").expect("a zone"); // 2026-09-06 begins at 01:00
        assert_eq!(closed_until(&saturday, &zone, at("2026-09-05T12:00:00-04:00")), Some(at("2026-09-06T01:00:00-03:00")));
    }
}
