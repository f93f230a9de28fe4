//! Instants, durations and the local calendar.
//!
//! Everything in the engine is asked "at `now`"; nothing here reads a clock. Two kinds of day exist, and they are kept apart:
//! an exact day is 24 hours (windows, caps, `days_*`), a calendar day is "the same local time, a date later" (whatever happens
//! to a person: `after`, `for`, `grace`, `expires`).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The first instant at which a statement may no longer be true; [`Timestamp::FOREVER`] if only an event can change it.
pub type ValidUntil = Timestamp;

impl Timestamp {
    /// Later than every instant that can occur.
    pub const FOREVER: Timestamp = Timestamp(i64::MAX);
    /// Earlier than every instant that can occur.
    pub const DISTANT_PAST: Timestamp = Timestamp(i64::MIN / 4);

    pub const fn from_ms(ms: i64) -> Self {
        Timestamp(ms)
    }

    pub const fn as_ms(self) -> i64 {
        self.0
    }

    pub fn is_forever(self) -> bool {
        self == Self::FOREVER
    }

    /// This instant, `ms` exact milliseconds later (earlier if negative). `FOREVER` stays `FOREVER`.
    pub fn plus_ms(self, ms: i64) -> Self {
        if self.is_forever() { self } else { Timestamp(self.0.saturating_add(ms)) }
    }

    /// Milliseconds from `earlier` to this instant; negative if `earlier` is later.
    pub fn ms_since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Parses RFC 3339 (`2026-11-06T10:00:00Z`, offsets allowed).
    pub fn parse(text: &str) -> Option<Self> {
        let instant: jiff::Timestamp = text.parse().ok()?;
        Some(Timestamp(instant.as_millisecond()))
    }

    /// The wall-clock reading of this instant in `zone`.
    pub fn local(self, zone: &Zone) -> DateTime {
        let clamped = self.0.clamp(jiff::Timestamp::MIN.as_millisecond() + DAY_MS, jiff::Timestamp::MAX.as_millisecond() - DAY_MS);
        let instant = jiff::Timestamp::from_millisecond(clamped).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        zone.0.to_datetime(instant)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, without the fraction when it is zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant}"),
            Err(_) if self.0 > 0 => f.write_str("never"),
            Err(_) => f.write_str("the beginning"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An IANA time zone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    pub const UTC: Zone = Zone(TimeZone::UTC);

    /// The zone of that IANA name; none if the tz database does not know it.
    pub fn named(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().map(Zone)
    }

    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The instant of a local wall time. A time that does not exist (spring gap) is shifted forward by the gap: 02:30 becomes
    /// 03:30; a time that exists twice is its first occurrence.
    pub fn instant(&self, wall: DateTime) -> Timestamp {
        match self.0.to_ambiguous_zoned(wall).compatible() {
            Ok(zoned) => Timestamp(zoned.timestamp().as_millisecond()),
            Err(_) => Timestamp::FOREVER,
        }
    }

    /// Both readings of a wall time that is ambiguous or missing, in order; the same instant twice if it is neither.
    pub fn both_instants(&self, wall: DateTime) -> (Timestamp, Timestamp) {
        let read = |later: bool| {
            let ambiguous = self.0.to_ambiguous_zoned(wall);
            let zoned = if later { ambiguous.later() } else { ambiguous.earlier() };
            zoned.map_or(Timestamp::FOREVER, |z| Timestamp(z.timestamp().as_millisecond()))
        };
        let (a, b) = (read(false), read(true));
        (a.min(b), a.max(b))
    }

    /// The first instant of a local date (not always 00:00: some zones change their clocks at midnight).
    pub fn start_of_day(&self, date: Date) -> Timestamp {
        match date.to_zoned(self.0.clone()).and_then(|z| z.start_of_day()) {
            Ok(zoned) => Timestamp(zoned.timestamp().as_millisecond()),
            Err(_) => Timestamp::FOREVER,
        }
    }

    /// The next change of this zone's offset strictly after `at`; `FOREVER` if none is known.
    pub fn next_transition(&self, at: Timestamp) -> Timestamp {
        let Ok(instant) = jiff::Timestamp::from_millisecond(at.as_ms()) else { return Timestamp::FOREVER };
        self.0.following(instant).next().map_or(Timestamp::FOREVER, |t| Timestamp(t.timestamp().as_millisecond()))
    }

    /// The first instant at or after `at` whose local time is `time`.
    pub fn next_local_time(&self, at: Timestamp, time: Time) -> Timestamp {
        let mut date = at.local(self).date();
        for _ in 0..3 {
            let candidate = self.instant(date.to_datetime(time));
            if candidate >= at {
                return candidate;
            }
            match date.tomorrow() {
                Ok(next) => date = next,
                Err(_) => return Timestamp::FOREVER,
            }
        }
        Timestamp::FOREVER
    }
}

/// A duration as operators write it: `7d10h`, `36h`, `24mo`. Months and days are calendar units where they say when something
/// happens to a person ([`Span::after`]); elsewhere a day is exactly 24 hours ([`Span::exact_ms`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Span {
    pub months: i32,
    pub days: i32,
    pub ms: i64,
}

impl Span {
    pub const ZERO: Span = Span { months: 0, days: 0, ms: 0 };

    pub const fn days(days: i32) -> Self {
        Span { months: 0, days, ms: 0 }
    }

    pub const fn hours(hours: i64) -> Self {
        Span { months: 0, days: 0, ms: hours * HOUR_MS }
    }

    pub fn is_zero(self) -> bool {
        self == Span::ZERO
    }

    pub fn is_negative(self) -> bool {
        self.months < 0 || self.days < 0 || self.ms < 0
    }

    /// The length with a day of exactly 24 hours; a month counts 30 days.
    pub fn exact_ms(self) -> i64 {
        (i64::from(self.months) * 30 + i64::from(self.days)) * DAY_MS + self.ms
    }

    /// `start` moved by this span: months and days keep the local time of `start` in `zone`, hours and less are exact.
    pub fn after(self, start: Timestamp, zone: &Zone) -> Timestamp {
        if start.is_forever() {
            return start;
        }
        if self.months == 0 && self.days == 0 {
            return start.plus_ms(self.ms);
        }
        let wall = start.local(zone);
        let moved = wall.checked_add(jiff::Span::new().months(self.months).days(self.days));
        match moved {
            // the sub-day part of an ambiguous start must survive: only the date moves
            Ok(moved) => zone.instant(moved).plus_ms(self.ms),
            Err(_) => Timestamp::FOREVER,
        }
    }

    /// Both, one after the other.
    pub fn plus(self, other: Span) -> Self {
        Span {
            months: self.months.saturating_add(other.months),
            days: self.days.saturating_add(other.days),
            ms: self.ms.saturating_add(other.ms),
        }
    }

    pub fn negated(self) -> Self {
        Span { months: -self.months, days: -self.days, ms: -self.ms }
    }
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no duration; write it like `90m`, `36h`, `7d` or `7d10h`")]
pub struct SpanError(pub String);

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let error = || SpanError(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        if rest.is_empty() {
            return Err(error());
        }
        let mut span = Span::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
            let (number, tail) = rest.split_at(digits);
            let amount: i32 = number.parse().map_err(|_| error())?;
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let amount_ms = i64::from(amount);
            match unit {
                "y" => span.months = amount.checked_mul(12).and_then(|months| span.months.checked_add(months)).ok_or_else(error)?,
                "mo" => span.months = span.months.checked_add(amount).ok_or_else(error)?,
                "w" => span.days = amount.checked_mul(7).and_then(|days| span.days.checked_add(days)).ok_or_else(error)?,
                "d" => span.days = span.days.checked_add(amount).ok_or_else(error)?,
                "h" => span.ms += amount_ms * HOUR_MS,
                "m" => span.ms += amount_ms * MINUTE_MS,
                "s" => span.ms += amount_ms * SECOND_MS,
                "ms" => span.ms += amount_ms,
                _ => return Err(error()),
            }
            rest = tail;
        }
        Ok(if negative { span.negated() } else { span })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0s");
        }
        if self.is_negative() {
            return write!(f, "-{}", self.negated());
        }
        if self.months != 0 {
            write!(f, "{}mo", self.months)?;
        }
        if self.days != 0 {
            write!(f, "{}d", self.days)?;
        }
        let mut ms = self.ms;
        for (unit_ms, unit) in [(HOUR_MS, "h"), (MINUTE_MS, "m"), (SECOND_MS, "s"), (1, "ms")] {
            if ms >= unit_ms {
                write!(f, "{}{unit}", ms / unit_ms)?;
                ms %= unit_ms;
            }
        }
        Ok(())
    }
}

/// The zones of a country by ISO 3166 code, the most important first; empty if the country is unknown.
pub fn zones_of_country(country: &str) -> impl Iterator<Item = &'static str> {
    COUNTRIES.get(country).into_iter().flat_map(|country| country.names.iter().copied())
}

/// All zones that belong to a country, and `UTC`: for suggestions.
pub fn zone_names() -> impl Iterator<Item = &'static str> {
    COUNTRIES.values().flat_map(|country| country.names.iter().copied()).chain(["UTC"])
}

/// The most important zone of a country.
pub fn zone_of_country(country: &str) -> Option<Zone> {
    COUNTRIES.get(country)?.first.clone()
}

/// A country's zones, looked up once: every look at a person asks for them.
struct Country {
    names: Vec<&'static str>,
    first: Option<Zone>,
}

static COUNTRIES: LazyLock<BTreeMap<&'static str, Country>> = LazyLock::new(|| {
    let lines = include_str!("countries.tsv").lines().filter(|line| !line.starts_with('#'));
    let countries = lines.filter_map(|line| {
        let mut columns = line.split('\t');
        let (code, zones) = (columns.next()?, columns.next().unwrap_or_default());
        let names: Vec<&'static str> = zones.split_whitespace().collect();
        let first = names.first().copied().and_then(Zone::named);
        Some((code, Country { names, first }))
    });
    countries.collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a test instant")
    }

    #[test]
    fn a_span_beyond_reckoning_is_none() {
        for text in ["999999999999d", "2000000000d2000000000d", "2000000000mo2000000000mo", "300000000y", "2000000000d400000000w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_read_and_written_alike() {
        for text in ["90m", "36h", "7d10h", "24mo", "1h30m", "72h"] {
            let span: Span = text.parse().expect("a span");
            let again: Span = span.to_string().parse().expect("its own text");
            assert_eq!(span, again, "{text}");
        }
        for text in ["", "7", "7x", "d", "-", "7d-1h", "99999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_calendar_day_keeps_the_local_time_and_an_exact_day_does_not() {
        let zone = Zone::named("America/New_York").expect("a zone");
        let start = at("2026-03-07T14:00:00Z"); // 09:00, the day before the clocks change
        assert_eq!(Span::days(1).after(start, &zone), at("2026-03-08T13:00:00Z"));
        assert_eq!(Span::hours(24).after(start, &zone), at("2026-03-08T14:00:00Z"));
    }

    #[test]
    fn a_local_time_in_the_gap_is_shifted_and_one_in_the_fold_is_the_first() {
        let zone = Zone::named("America/New_York").expect("a zone");
        let gap = "2026-03-08T02:30:00".parse().expect("a civil time");
        assert_eq!(zone.instant(gap), at("2026-03-08T07:30:00Z"));
        let fold = "2026-11-01T01:30:00".parse().expect("a civil time");
        assert_eq!(zone.instant(fold), at("2026-11-01T05:30:00Z"));
        assert_eq!(zone.both_instants(fold).1, at("2026-11-01T06:30:00Z"));
    }
}
