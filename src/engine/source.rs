//! Is the shop quiet, or are we blind? Whether the source of activity (a pixel, an import) is quiet against its own baseline: while
//! it is, the silence of people means nothing, and rules that rest on absence hold their entries and penalties.
//!
//! The baseline of a stretch of `for` hours is the median of the same hours of the same weekday in the last four weeks. Why so:
//! - *weekday and hour*: a night, a Saturday on which the shop is closed, have a baseline near nothing, and below `min_baseline`
//!   events nothing is said at all;
//! - *the stretch as a whole*, not hour by hour: a single slow hour, or an hour moved by a clock change, is no alarm;
//! - *the median of four*: neither one closed day nor one great sale among the four moves it much, so a pixel that breaks in the
//!   weeks after a holiday is still found;
//! - *all four weeks*: a source younger than that has no baseline and is never called quiet.
//!
//! What it cannot know is a holiday: a shop that opens every Monday and sells nothing on a bank holiday looks like a broken pixel
//! until the next morning. That errs on the right side (nobody loses points because the shop was closed).
//!
//! A quiet span begins where the stretch that showed it began, and ends with evidence, not for want of a baseline: the night after
//! a blind day says nothing, so the span goes on until so many events come in as the smallest baseline would ask for. Four weeks of
//! quiet are the new normal, and end it too.

use std::collections::BTreeMap;

use super::rule::SourcePolicy;
use super::time::{DAY_MS, HOUR_MS, Timestamp};

/// Weeks that make up the baseline.
const WEEKS: i64 = 4;
const WEEK_MS: i64 = 7 * DAY_MS;

/// So far back [`Hours`] must reach for a judgement, besides the stretch itself.
pub const BASELINE_MS: i64 = WEEKS * WEEK_MS;

/// Active events of one source by the hour in which they happened.
#[derive(Clone, Debug, Default)]
pub struct Hours {
    counts: BTreeMap<i64, u64>,
}

impl Hours {
    /// Adds events that happened in the hour of `at`.
    pub fn add(&mut self, at: Timestamp, events: u64) {
        *self.counts.entry(at.as_ms().div_euclid(HOUR_MS)).or_default() += events;
    }

    /// Events of `hours` full hours up to the hour `end` (exclusive).
    fn sum(&self, end: i64, hours: i64) -> u64 {
        self.counts.range(end - hours..end).map(|(_, events)| events).sum()
    }

    /// The first hour (UTC) of the day of the first event: the source exists since that day, also before the shop opened on it.
    fn first_day(&self) -> Option<i64> {
        let hours_per_day = DAY_MS / HOUR_MS;
        self.counts.keys().next().map(|hour| hour.div_euclid(hours_per_day) * hours_per_day)
    }
}

/// What a stretch of hours says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// Far below its baseline.
    Quiet,
    /// As many events as could be asked for.
    Alive,
    /// Neither: too small a baseline, or too young.
    Unknown,
}

/// What the last `for` full hours before `now` say.
pub fn pulse(policy: &SourcePolicy, hours: &Hours, now: Timestamp) -> Pulse {
    let end = now.as_ms().div_euclid(HOUR_MS);
    let stretch = stretch_hours(policy);
    let expected = baseline(hours, end, stretch);
    let minimum = u64::from(policy.min_baseline);
    let below = |events: u64, of: u64| u128::from(events) * 100 < u128::from(of) * u128::from(policy.below_percent);
    let seen = hours.sum(end, stretch);
    match expected {
        Some(expected) if expected >= minimum && below(seen, expected) => Pulse::Quiet,
        expected if seen > 0 && !below(seen, expected.unwrap_or(0).max(minimum)) => Pulse::Alive,
        _ => Pulse::Unknown,
    }
}

/// The quiet span that is open after looking at `now`, given the one that was open before: none if the source is heard again.
pub fn advance(policy: &SourcePolicy, hours: &Hours, open: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let stretch_ms = stretch_hours(policy) * HOUR_MS;
    match (pulse(policy, hours, now), open) {
        (Pulse::Alive, _) => None,
        (_, Some(since)) if now.ms_since(since) >= BASELINE_MS => None,
        (_, Some(since)) => Some(since),
        (Pulse::Quiet, None) => Some(Timestamp::from_ms(now.as_ms().div_euclid(HOUR_MS) * HOUR_MS).plus_ms(-stretch_ms)),
        (Pulse::Unknown, None) => None,
    }
}

/// All quiet spans of a source up to `until`, looked at on every full hour; the last may be open (`FOREVER`).
pub fn quiet_spans(policy: &SourcePolicy, hours: &Hours, until: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    let Some(first) = hours.first_day() else { return Vec::new() };
    let mut spans = Vec::new();
    let mut open = None;
    for hour in first..=until.as_ms().div_euclid(HOUR_MS) {
        let now = Timestamp::from_ms(hour * HOUR_MS);
        let next = advance(policy, hours, open, now);
        if let (Some(since), None) = (open, next) {
            spans.push((since, now));
        }
        open = next;
    }
    spans.extend(open.map(|since| (since, Timestamp::FOREVER)));
    spans
}

fn stretch_hours(policy: &SourcePolicy) -> i64 {
    (policy.for_ms + HOUR_MS - 1).div_euclid(HOUR_MS).max(1)
}

/// The median of the same stretch in each of the last four weeks; none unless the source is older than that.
fn baseline(hours: &Hours, end: i64, stretch: i64) -> Option<u64> {
    let week = WEEK_MS / HOUR_MS;
    if end - stretch - WEEKS * week < hours.first_day()? {
        return None;
    }
    let mut weeks: Vec<u64> = (1..=WEEKS).map(|back| hours.sum(end - back * week, stretch)).collect();
    weeks.sort_unstable();
    let middle = weeks.len() / 2;
    let pair = weeks.get(middle - 1..=middle)?;
    Some(pair.iter().sum::<u64>() / 2)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    const DEFAULT: SourcePolicy =
        SourcePolicy { below_percent: 20, for_ms: 6 * HOUR_MS, min_baseline: 20, holds_absence: true, holds_penalty: true };

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a test instant")
    }

    /// The orders of the retailer's year.
    fn year() -> Vec<Timestamp> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/online-retail/events.ndjson.gz");
        let file = std::fs::File::open(path).expect("the data is in the project");
        BufReader::new(flate2::read::GzDecoder::new(file))
            .lines()
            .map(|line| line.expect("text"))
            .filter(|line| line.contains("\"event\":\"Order Completed\""))
            .map(|line| {
                let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                at(json["timestamp"].as_str().expect("a timestamp"))
            })
            .collect()
    }

    fn hours(events: impl IntoIterator<Item = Timestamp>) -> Hours {
        let mut hours = Hours::default();
        events.into_iter().for_each(|at| hours.add(at, 1));
        hours
    }

    /// Days from 1970 on.
    fn day(at: Timestamp) -> i64 {
        at.as_ms().div_euclid(DAY_MS)
    }

    #[test]
    fn no_normal_night_or_weekend_of_a_shops_year_is_quiet() {
        let orders = year();
        let open: std::collections::BTreeSet<i64> = orders.iter().map(|at| day(*at)).collect();
        // the data ends on a Friday at 12:50
        let spans = quiet_spans(&DEFAULT, &hours(orders), at("2011-12-09T13:00:00Z"));
        // Christmas, Easter, the royal wedding, three bank holidays: days on which the shop would be open and sold nothing
        let began: Vec<_> = spans.iter().map(|(from, _)| from.to_string()[..10].to_owned()).collect();
        assert_eq!(began, ["2010-12-29", "2011-04-22", "2011-04-29", "2011-05-02", "2011-05-30", "2011-08-29"]);
        for (from, until) in spans {
            assert!(!open.contains(&day(from)), "{from}: the shop sold on that day");
            let heard = (day(from)..).find(|day| open.contains(day)).expect("the year goes on");
            assert_eq!(day(until), heard, "quiet from {from} until {until}: ends on the first day with orders");
            let late = until.as_ms() - heard * DAY_MS;
            assert!(late <= 12 * HOUR_MS, "{until}: noticed by noon");
        }
    }

    #[test]
    fn a_pixel_broken_for_a_day_of_a_normal_week_is_found() {
        let orders = year();
        for broken in ["2011-01-05", "2011-02-16", "2011-06-16", "2011-07-05", "2011-09-05", "2011-10-23", "2011-11-11"] {
            let from = at(&format!("{broken}T00:00:00Z"));
            let seen = orders.iter().copied().filter(|at| day(*at) != day(from));
            let spans = quiet_spans(&DEFAULT, &hours(seen), at("2011-12-09T13:00:00Z"));
            let found = spans.iter().find(|(start, _)| day(*start) == day(from));
            let (start, end) = found.unwrap_or_else(|| panic!("{broken} is not found: {spans:?}"));
            assert!(*start <= from.plus_ms(12 * HOUR_MS) && *end >= from.plus_ms(DAY_MS), "{start} .. {end}");
        }
    }

    #[test]
    fn a_young_or_small_source_is_never_quiet_and_a_dead_one_not_forever() {
        let start = at("2026-01-05T00:00:00Z");
        let hourly =
            |days: i64, per_hour: usize| hours((0..days * 24).flat_map(move |h| std::iter::repeat_n(start.plus_ms(h * HOUR_MS), per_hour)));
        let until = start.plus_ms(120 * DAY_MS);
        assert_eq!(quiet_spans(&DEFAULT, &hourly(20, 10), start.plus_ms(28 * DAY_MS)), [], "no four weeks of baseline");
        assert_eq!(quiet_spans(&DEFAULT, &hourly(60, 3), until), [], "18 events in six hours are no baseline");
        let stopped = start.plus_ms(60 * DAY_MS);
        assert_eq!(quiet_spans(&DEFAULT, &hourly(60, 10), until), [(stopped.plus_ms(-HOUR_MS), stopped.plus_ms(28 * DAY_MS - HOUR_MS))]);
    }
}
