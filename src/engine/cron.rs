//! Five fields of Unix cron as a civil calendar: which dates and times a schedule names, in no zone at all. The mapping to instants,
//! with gaps and folds, is the caller's (`time::Zone`), since the crate's own is wrong around clock changes.
//!
//! Unix semantics on top of the crate: weekdays count from Sunday = 0 (7 is Sunday too), and where both the day of the month and the
//! weekday are restricted, either of them suffices.

use std::str::FromStr;

use chrono::{Datelike, TimeZone, Timelike, Utc};
use cron::Schedule;
use jiff::civil::DateTime;

const WEEKDAYS: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];

/// Whether the text is a schedule; otherwise one clause that says what is wrong.
pub fn check(fields: &str) -> Result<(), String> {
    schedules(fields).map(|_| ())
}

/// The first civil time strictly after `after`; none if the schedule names none any more, or the text is no schedule.
pub fn next(fields: &str, after: DateTime) -> Option<DateTime> {
    schedules(fields).ok()?.iter().filter_map(|schedule| next_of(schedule, after)).min()
}

fn next_of(schedule: &Schedule, after: DateTime) -> Option<DateTime> {
    let (year, month, day) = (i32::from(after.year()), after.month().unsigned_abs(), after.day().unsigned_abs());
    let (hour, minute, second) = (after.hour().unsigned_abs(), after.minute().unsigned_abs(), after.second().unsigned_abs());
    // dressed as UTC: a day has 24 hours there and every time exists once
    let dressed = Utc.with_ymd_and_hms(year, month.into(), day.into(), hour.into(), minute.into(), second.into()).single()?;
    let next = schedule.after(&dressed).next()?;
    let time = (i8::try_from(next.hour()).ok()?, i8::try_from(next.minute()).ok()?);
    let date = (i16::try_from(next.year()).ok()?, i8::try_from(next.month()).ok()?, i8::try_from(next.day()).ok()?);
    DateTime::new(date.0, date.1, date.2, time.0, time.1, 0, 0).ok()
}

/// One schedule, or two where day of month and weekday are alternatives.
fn schedules(fields: &str) -> Result<Vec<Schedule>, String> {
    let parts: Vec<&str> = fields.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts.as_slice() else {
        return Err(format!("`{fields}` has {} fields, cron has five: minute hour day-of-month month weekday", parts.len()));
    };
    let weekday = weekdays_by_name(weekday)?;
    let is_any = |field: &str| field == "*" || field == "?";
    let build = |day: &str, weekday: &str| {
        let text = format!("0 {minute} {hour} {day} {month} {weekday}");
        Schedule::from_str(&text).map_err(|error| format!("`{fields}` is no cron schedule: {error}"))
    };
    if is_any(day) || is_any(&weekday) {
        return Ok(vec![build(day, &weekday)?]);
    }
    Ok(vec![build(day, "*")?, build("*", &weekday)?])
}

/// The crate counts weekdays from Sunday = 1; names leave no doubt. A range that runs over the end of the week is spelled out.
fn weekdays_by_name(field: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<usize>().ok();
    let name = |text: &str| match number(text) {
        Some(n) => {
            WEEKDAYS.get(n).map(|day| (*day).to_owned()).ok_or_else(|| format!("weekday {n} does not exist: 0 (Sunday) to 7 (Sunday)"))
        }
        None => Ok(text.to_owned()),
    };
    let item = |item: &str| -> Result<String, String> {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let named = match range.split_once('-') {
            Some((from, to)) if number(from).is_some() && number(to).is_some() && step.is_none() => {
                let (from, to) = (number(from).unwrap_or(0), number(to).unwrap_or(0));
                let last = if to < from { to + 7 } else { to };
                (from..=last).map(|n| name(&(if n > 7 { n - 7 } else { n }).to_string())).collect::<Result<Vec<_>, _>>()?.join(",")
            }
            Some((from, to)) => format!("{}-{}", name(from)?, name(to)?),
            None => name(range)?,
        };
        Ok(step.map_or(named.clone(), |step| format!("{named}/{step}")))
    };
    Ok(field.split(',').map(item).collect::<Result<Vec<_>, _>>()?.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_fields_name_civil_times() {
        for (fields, after, expected) in [
            ("0 9 * * *", "2026-11-24T08:59:59", Some("2026-11-24T09:00:00")),
            ("0 9 * * *", "2026-11-24T09:00:00", Some("2026-11-25T09:00:00")),
            ("0 9 * * 1-5", "2026-11-27T09:00:00", Some("2026-11-30T09:00:00")), // Friday, then Monday
            ("0 9 * * 0", "2026-11-24T00:00:00", Some("2026-11-29T09:00:00")),
            ("0 9 * * 7", "2026-11-24T00:00:00", Some("2026-11-29T09:00:00")),
            ("0 9 * * 5-1", "2026-11-24T00:00:00", Some("2026-11-27T09:00:00")),
            ("30 8 1 * 1", "2026-11-24T00:00:00", Some("2026-11-30T08:30:00")), // either the first or a Monday
            ("30 8 1 * *", "2026-11-24T00:00:00", Some("2026-12-01T08:30:00")),
            ("0 0 29 2 *", "2026-11-24T00:00:00", Some("2028-02-29T00:00:00")),
        ] {
            let after = after.parse().expect("a civil time");
            assert_eq!(next(fields, after), expected.map(|text| text.parse().expect("a civil time")), "{fields}");
        }
    }

    #[test]
    fn what_is_no_schedule_says_so() {
        for (fields, part) in [("0 9 * *", "five"), ("0 9 * * 8", "weekday 8"), ("61 9 * * *", "no cron schedule"), ("", "five")] {
            let error = check(fields).expect_err(fields);
            assert!(error.contains(part), "{fields}: {error}");
        }
    }
}
