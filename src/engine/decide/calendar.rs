//! Stage 2: `at` rules. A firing is a civil date and time in the person's (or the rule's) zone; the last nominal time that was
//! fired or missed is remembered, so that moving to another zone or turning back the clock never fires one twice (I11).

use jiff::civil::{Date, DateTime};

use super::Look;
use crate::engine::action::What;
use crate::engine::event::Value;
use crate::engine::features;
use crate::engine::profile::Name;
use crate::engine::rule::{At, AtDays, Feb29, Rule, Trigger};
use crate::engine::run;
use crate::engine::time::{Timestamp, Zone};

/// A calendar that names no day within so many days (a yearly date: within nine years, 29 February across a century) never fires.
const MAX_DAYS_AHEAD: usize = 366 * 9;

/// Of firings missed in one go (a long downtime), at most so many are listed one by one.
const MAX_MISSED_LISTED: usize = 31;

impl<'a> Look<'a> {
    /// Starts the runs of firings that are due: the latest of each rule if it is not too late, the others are recorded as missed.
    pub(super) fn fire_calendar(&mut self) {
        for rule in self.rules().iter().filter(|rule| rule.enabled) {
            let Trigger::At(at) = &rule.trigger else { continue };
            if self.closed(rule).is_none() {
                self.fire(rule, at);
            }
        }
    }

    fn fire(&mut self, rule: &'a Rule, at: &'a At) {
        let mut due: Vec<(DateTime, Timestamp)> = vec![];
        let mut after = self.last_nominal(rule, at);
        while let Some((nominal, instant)) = self.next_firing(rule, at, after).filter(|(_, instant)| *instant <= self.now) {
            due.push((nominal, instant));
            after = Some(nominal);
        }
        let Some((nominal, instant)) = due.pop() else { return };
        let surplus = due.len().saturating_sub(MAX_MISSED_LISTED);
        for (_, missed) in due.into_iter().skip(surplus) {
            self.log(&rule.id, 0, &Name::from(""), What::Missed, format!("the firing of {missed} was missed; a later one counts"), None);
        }
        self.memory_mut(rule).last_nominal = Some(nominal);
        let zone = self.zone_of(at);
        let deadline = run::firing_deadline(&self.ctx.rules.policy, rule, instant, &zone);
        if self.now > deadline {
            let because = format!("the firing of {instant} came too late: it could wait until {deadline}");
            return self.log(&rule.id, 0, &Name::from(""), What::Missed, because, None);
        }
        match self.calendar_entry(rule) {
            Ok(true) => self.try_start(rule, Name::from(""), Name::from(""), instant),
            Ok(false) => {}
            Err(error) => self.set_aside(rule, &error),
        }
    }

    fn calendar_entry(&self, rule: &Rule) -> Result<bool, crate::engine::rule::expr::EvalError> {
        let inactive = rule.active.is_some_and(|active| self.now < active.from || self.now >= active.until);
        Ok(!inactive && self.truth(rule.audience.as_ref(), true)? && !self.truth(rule.unless.as_ref(), false)?)
    }

    fn zone_of(&self, at: &At) -> Zone {
        at.zone.clone().unwrap_or_else(|| self.zone.clone())
    }

    /// Firings up to and including this nominal time are over: fired, missed, or before the rule or the person was there.
    fn last_nominal(&self, rule: &Rule, at: &At) -> Option<DateTime> {
        let live_at = self.ctx.world.rules.get(&rule.id).map(|state| state.when_live_at);
        let begins = live_at.into_iter().chain(self.profile.first_seen_at).max()?;
        // the nominal time of that instant itself is not over yet: an event at nine and a firing at nine both count
        let begins = begins.plus_ms(-1).local(&self.zone_of(at));
        let fired = self.profile.memory(&rule.id).and_then(|memory| memory.last_nominal);
        Some(fired.map_or(begins, |fired| fired.max(begins)))
    }

    /// The first firing after a nominal time: that time, and the instant it stands for in this person's zone.
    pub(super) fn next_firing(&self, rule: &Rule, at: &At, after: Option<DateTime>) -> Option<(DateTime, Timestamp)> {
        let after = after.or_else(|| self.last_nominal(rule, at))?;
        let zone = self.zone_of(at);
        let nominal = match &at.days {
            AtDays::Once(once) => Some(*once),
            AtDays::Cron(fields) => crate::engine::cron::next(fields, after),
            AtDays::Moment { name, offset } => self.moment(name, *offset, at, &zone),
            AtDays::Calendar(name) => {
                let calendar = self.ctx.rules.policy.calendars.get(name)?;
                calendar.ranges.iter().map(|(first, _)| first.to_datetime(at.time)).find(|nominal| *nominal > after)
            }
            by_day => {
                let birth = self.date_attribute(by_day);
                if birth.is_none() && matches!(by_day, AtDays::Yearly(_)) {
                    return None;
                }
                let days = std::iter::successors(Some(after.date()), |date| date.tomorrow().ok()).take(MAX_DAYS_AHEAD);
                let named = days.filter(|date| fires_on(by_day, birth, at.feb_29, *date));
                named.map(|date| date.to_datetime(at.time)).find(|nominal| *nominal > after)
            }
        }?;
        (nominal > after).then(|| (nominal, zone.instant(nominal)))
    }

    /// The local date of a timestamp feature moved by its offset, at the rule's time of day.
    fn moment(&self, name: &Name, offset: crate::engine::time::Span, at: &At, zone: &Zone) -> Option<DateTime> {
        match features::read(self.names, self.subject(), name).ok()?.0? {
            Value::Instant(moment) => Some(offset.after(moment, zone).local(zone).date().to_datetime(at.time)),
            _ => None,
        }
    }

    fn date_attribute(&self, days: &AtDays) -> Option<Date> {
        let AtDays::Yearly(name) = days else { return None };
        match self.profile.attributes.get(name).map(|attribute| &attribute.value) {
            Some(Value::Date(date)) => Some(*date),
            _ => None,
        }
    }
}

fn fires_on(days: &AtDays, birth: Option<Date>, feb_29: Feb29, date: Date) -> bool {
    match days {
        AtDays::Daily => true,
        AtDays::Weekly(weekdays) => weekdays.contains(&date.weekday()),
        AtDays::Monthly(0) => date == date.last_of_month(),
        AtDays::Monthly(day) => date.day() == (*day as i8).min(date.days_in_month()),
        AtDays::Yearly(_) => birth.is_some_and(|birth| is_anniversary(birth, feb_29, date)),
        AtDays::Once(_) | AtDays::Cron(_) | AtDays::Calendar(_) | AtDays::Moment { .. } => false,
    }
}

fn is_anniversary(birth: Date, feb_29: Feb29, date: Date) -> bool {
    let leapling = birth.month() == 2 && birth.day() == 29 && !date.in_leap_year();
    let day = match (leapling, feb_29) {
        (false, _) => (birth.month(), birth.day()),
        (true, Feb29::Feb28) => (2, 28),
        (true, Feb29::Mar1) => (3, 1),
    };
    (date.month(), date.day()) == day
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{Weekday, date};

    #[test]
    fn days_on_which_a_calendar_rule_fires() {
        let leapling = Some(date(2000, 2, 29));
        for (days, birth, feb_29, day, fires) in [
            (AtDays::Daily, None, Feb29::Feb28, date(2026, 1, 1), true),
            (AtDays::Weekly(vec![Weekday::Monday]), None, Feb29::Feb28, date(2026, 11, 23), true),
            (AtDays::Weekly(vec![Weekday::Monday]), None, Feb29::Feb28, date(2026, 11, 24), false),
            (AtDays::Monthly(31), None, Feb29::Feb28, date(2026, 2, 28), true),
            (AtDays::Monthly(31), None, Feb29::Feb28, date(2026, 1, 30), false),
            (AtDays::Monthly(0), None, Feb29::Feb28, date(2028, 2, 29), true),
            (AtDays::Yearly("b".into()), leapling, Feb29::Feb28, date(2026, 2, 28), true),
            (AtDays::Yearly("b".into()), leapling, Feb29::Feb28, date(2028, 2, 28), false),
            (AtDays::Yearly("b".into()), leapling, Feb29::Mar1, date(2026, 3, 1), true),
            (AtDays::Yearly("b".into()), leapling, Feb29::Mar1, date(2028, 2, 29), true),
            (AtDays::Yearly("b".into()), None, Feb29::Mar1, date(2028, 2, 29), false),
        ] {
            assert_eq!(fires_on(&days, birth, feb_29, day), fires, "{days:?} on {day}");
        }
    }
}
