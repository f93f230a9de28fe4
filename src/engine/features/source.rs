//! Where whole numbers come from: counts, ages, sums, instants, flags. Each source gives its value with the instant until which that
//! stands, and knows the tightest expiry of "at least so much".
//!
//! Units: money in minor units of the program's currency, instants and durations in milliseconds, dates in days since 1970-01-01,
//! flags 0 or 1. The type of a source is known when a condition is compiled; here it is a number.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value as Json;

use super::windows::{self, View};
use super::{Found, Question, Trouble, local};
use crate::engine::absorb;
use crate::engine::action::{Channel, Outcome};
use crate::engine::event::Value;
use crate::engine::money::Currency;
use crate::engine::profile::{Attribute, Category, Name, Profile, Series, StepState};
use crate::engine::rule::expr::ValueType;
use crate::engine::rule::{AggregateFunction, Tiers};
use crate::engine::time::{DAY_MS, MINUTE_MS, Timestamp};
use crate::engine::verdict::Verdict;
use crate::engine::{benefit, consent, gate, points, tier};

/// A source of whole numbers.
#[derive(Debug, Clone)]
pub enum Source {
    Moment(Moment),
    /// Whole units of so many milliseconds since then, rounded down.
    Age(Moment, i64),
    Attribute(Arc<AttributeSlot>),
    Event(Arc<EventSlot>),
    Feature(Arc<FeatureSlot>),
    /// Orders in a window; none: ever.
    Orders(Option<i64>),
    /// Orders less refunds in a window, each at its own instant; none: ever.
    Spend(Option<i64>),
    AverageOrder(i64),
    /// Local days with activity in a window.
    ActiveDays(i64),
    /// Visits in a window: activity after at least half an hour without.
    Sessions(i64),
    /// Silences of 30 days that were reached in a window.
    SilentSpells(i64),
    /// Spendable points of a class; none: of all.
    Points(Option<Name>),
    PointsPending,
    /// Spendable points that expire within so many milliseconds.
    PointsExpiring(i64),
    /// What the metric lacks to the next level.
    TierGap(Box<Source>),
    /// What the metric lacks to keep the base tier.
    TierKeepGap,
    Entitled(Name),
    CouponsOpen,
    TicketsOpen,
    DisputeOpen,
    Sends(Channel, i64),
    Consent(Arc<str>, Channel),
    /// That channel has an address that is not suppressed; none: marketing may use at least one channel.
    Reachable(Option<Channel>),
    InHoldout,
    LocalHour,
    LocalDate,
    Running(Name),
    /// A step, and the further rungs of its ladder.
    Done(std::ops::Range<usize>),
    RunNumber,
}

/// A built-in instant; it can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    FirstSeen,
    LastActive,
    Reactivated,
    /// Last activity, else the first event of all.
    SilentSince,
    FirstOrder,
    LastOrder,
    NextExpiry,
    TierSince,
    /// The end of an overlay, else of the grace after a failed review.
    TierUntil,
    TierReview,
    LastSent(Channel),
    RunStart,
}

/// A declared attribute, resolved.
#[derive(Debug, PartialEq)]
pub struct AttributeSlot {
    pub name: Name,
    pub default: Option<Value>,
    pub max_age_ms: Option<i64>,
}

/// A property of the event in question.
#[derive(Debug, PartialEq)]
pub struct EventSlot {
    pub name: Name,
    pub value_type: ValueType,
}

/// A declared feature over events.
#[derive(Debug, PartialEq)]
pub struct FeatureSlot {
    pub name: Name,
    pub function: AggregateFunction,
    pub value_type: ValueType,
    pub window_ms: Option<i64>,
}

impl Source {
    /// The value and until when it stands.
    pub fn reading(&self, question: &Question<'_>) -> Found<i64> {
        let (profile, now) = (question.subject.profile, question.now());
        match self {
            Source::Moment(moment) => moment.at(question).map(|(at, until)| (at.as_ms(), until)),
            Source::Age(moment, unit_ms) => {
                let Some((since, until)) = moment.start(question)? else { return Ok((0, Timestamp::FOREVER)) };
                let (age, next) = age(since, *unit_ms, now);
                Ok((age, next.min(until)))
            }
            Source::Attribute(slot) => {
                let (value, until) = slot.value(question)?;
                Ok((number(value, question.names.dictionary.currency)?, until))
            }
            Source::Event(slot) => match &slot.value_type {
                ValueType::Money => {
                    let minor = slot.money(question)?;
                    Ok((minor, Timestamp::FOREVER))
                }
                _ => Ok((number(&slot.value(question)?, None)?, Timestamp::FOREVER)),
            },
            Source::Feature(slot) => slot.reading(question),
            Source::Orders(width_ms) => {
                Ok(windows::count(View::new(&profile.orders, now, *width_ms), before_count(&profile.orders, *width_ms)))
            }
            Source::Spend(width_ms) => Ok(windows::net(
                View::new(&profile.orders, now, *width_ms),
                Some(View::new(&profile.refunds, now, *width_ms)),
                spend_before(question, *width_ms),
            )),
            Source::AverageOrder(width_ms) => average_order(question, *width_ms),
            Source::ActiveDays(width_ms) => Ok(active_days(question, *width_ms)),
            Source::Sessions(width_ms) => Ok(sessions(question, *width_ms)),
            Source::SilentSpells(width_ms) => Ok(silent_spells(question, *width_ms)),
            Source::Points(class) => Ok(points::balance(&profile.wallet, class.as_deref(), now)),
            Source::PointsPending => Ok(points::pending(&profile.wallet, now)),
            Source::PointsExpiring(within_ms) => Ok(points::expiring(&profile.wallet, *within_ms, now)),
            Source::TierGap(metric) => {
                let Some(target) = next_tier_from(question) else { return Ok((0, Timestamp::FOREVER)) };
                let (value, until) = metric.reading(question)?;
                Ok((target.saturating_sub(value).max(0), until))
            }
            Source::TierKeepGap => Ok(tier::keep_gap(profile, question.names, now)),
            Source::Entitled(key) => {
                let (value, until) = benefit::entitled(profile, question.names, key, now);
                Ok((i64::from(value != 0), until))
            }
            Source::CouponsOpen => Ok(coupons_open(question)),
            Source::TicketsOpen => Ok((absorb::tickets_open(profile), Timestamp::FOREVER)),
            Source::DisputeOpen => Ok((i64::from(absorb::dispute_open(profile)), Timestamp::FOREVER)),
            Source::Sends(channel, width_ms) => Ok(sends(question, *channel, *width_ms)),
            Source::Consent(purpose, channel) => {
                let records = profile.consents.iter();
                let mut records = records.filter(|((p, c), _)| p == purpose && c == channel);
                let now = question.now();
                let granted = records.any(|(_, record)| record.granted && record.expires_at.is_none_or(|at| at > now));
                Ok((i64::from(granted), consent::changes_at(profile, now)))
            }
            Source::Reachable(channel) => Ok((i64::from(reachable(question, *channel)), consent::changes_at(profile, question.now()))),
            Source::InHoldout => {
                let holdout = question.names.policy.holdout.as_ref();
                let held_out = holdout.is_some_and(|holdout| gate::bucket(&holdout.salt, &profile.key) < holdout.share_bp);
                Ok((i64::from(held_out), Timestamp::FOREVER))
            }
            Source::LocalHour => local::hour(question),
            Source::LocalDate => local::date(question),
            Source::Running(rule) => {
                let running = profile.runs.iter().any(|run| run.rule == *rule && run.ended.is_none());
                Ok((i64::from(running), Timestamp::FOREVER))
            }
            Source::Done(step) => {
                let states = question.subject.run.and_then(|run| run.steps.get(step.clone())).unwrap_or_default();
                Ok((i64::from(states.iter().any(is_done)), Timestamp::FOREVER))
            }
            Source::RunNumber => {
                let run = question.subject.run.ok_or(Trouble::MISSING)?;
                Ok((i64::from(run.number), Timestamp::FOREVER))
            }
        }
    }

    /// `value >= edge`, with the tightest expiry there is a closed form for. Ages are asked most, so they come first and inline.
    #[inline]
    pub fn at_least(&self, question: &Question<'_>, edge: i64) -> Result<Verdict, Trouble> {
        match self {
            Source::Age(moment, unit_ms) => {
                let Some((since, until)) = moment.start(question)? else { return Ok(Verdict::settled(0 >= edge)) };
                let verdict = age_at_least(since, *unit_ms, question.now(), edge);
                Ok(Verdict::new(verdict.truth, verdict.until.min(until)))
            }
            Source::Orders(Some(width_ms)) => {
                Ok(windows::count_at_least(&question.subject.profile.orders, question.now(), *width_ms, edge))
            }
            _ => self.other_at_least(question, edge),
        }
    }

    fn other_at_least(&self, question: &Question<'_>, edge: i64) -> Result<Verdict, Trouble> {
        let (profile, now) = (question.subject.profile, question.now());
        Ok(match self {
            Source::Spend(width_ms) => windows::net_at_least(
                View::new(&profile.orders, now, *width_ms),
                Some(View::new(&profile.refunds, now, *width_ms)),
                spend_before(question, *width_ms),
                edge,
            ),
            Source::Feature(slot) if slot.is_sum() => {
                let Some(series) = profile.features.get(&slot.name) else { return Ok(Verdict::settled(0 >= edge)) };
                windows::net_at_least(View::new(series, now, slot.window_ms), None, slot.before(series), edge)
            }
            Source::LocalHour => local::hour_at_least(question, edge),
            Source::LocalDate => local::date_at_least(question, edge),
            _ => {
                let (value, until) = self.reading(question)?;
                Verdict::new(value >= edge, until)
            }
        })
    }

    /// Whether the value moves in steps that "at least so much" looks further ahead than: then "equal" is asked as two edges.
    pub fn has_closed_form(&self) -> bool {
        match self {
            Source::Age(..) | Source::Orders(Some(_)) | Source::Spend(_) | Source::LocalHour | Source::LocalDate => true,
            Source::Feature(slot) => slot.is_sum(),
            _ => false,
        }
    }
}

/// Whole units since an instant, and when the next is full.
pub fn age(since: Timestamp, unit_ms: i64, now: Timestamp) -> (i64, Timestamp) {
    let age = now.ms_since(since).div_euclid(unit_ms);
    (age, since.plus_ms(age.saturating_add(1).saturating_mul(unit_ms)))
}

/// "So many whole units have passed": false until then, true for good.
#[inline]
pub fn age_at_least(since: Timestamp, unit_ms: i64, now: Timestamp, edge: i64) -> Verdict {
    let reached_at = since.plus_ms(edge.saturating_mul(unit_ms));
    if now >= reached_at { Verdict::settled(true) } else { Verdict::new(false, reached_at) }
}

impl Moment {
    #[inline]
    pub fn at(self, question: &Question<'_>) -> Found<Timestamp> {
        let profile = question.subject.profile;
        let known = match self {
            Moment::SilentSince => profile.silent_since(),
            Moment::LastOrder => profile.orders.last_at,
            Moment::FirstSeen => profile.first_seen_at,
            _ => return self.other_at(question),
        };
        known.map(|at| (at, Timestamp::FOREVER)).ok_or(Trouble::MISSING)
    }

    fn other_at(self, question: &Question<'_>) -> Found<Timestamp> {
        let (profile, now) = (question.subject.profile, question.now());
        let known = match self {
            Moment::FirstSeen => profile.first_seen_at,
            Moment::SilentSince => profile.silent_since(),
            Moment::LastOrder => profile.orders.last_at,
            Moment::LastActive => profile.activity.last_active_at,
            Moment::Reactivated => profile.activity.reactivated_at,
            Moment::FirstOrder => profile.orders.first_at,
            Moment::NextExpiry => {
                let (next, until) = points::next_expiry_at(&profile.wallet, now);
                return next.map(|at| (at, until)).ok_or(Trouble::missing_until(until));
            }
            Moment::TierSince => profile.tier.since,
            Moment::TierReview => profile.tier.review_at,
            Moment::TierUntil => return tier_until(question),
            Moment::LastSent(channel) => {
                let sent = profile.slots.iter().filter(|slot| slot.channel == channel).filter_map(|slot| slot.sent_at);
                sent.max()
            }
            Moment::RunStart => question.subject.run.map(|run| run.started_at),
        };
        known.map(|at| (at, Timestamp::FOREVER)).ok_or(Trouble::MISSING)
    }

    /// Where an age counts from; none for somebody of whom no event is known: no time has passed yet.
    #[inline]
    fn start(self, question: &Question<'_>) -> Result<Option<(Timestamp, Timestamp)>, Trouble> {
        match self.at(question) {
            Err(trouble) if trouble.missing().is_some() && matches!(self, Moment::FirstSeen | Moment::SilentSince) => Ok(None),
            found => found.map(Some),
        }
    }
}

/// The end of a live overlay, else of the grace after a failed review.
fn tier_until(question: &Question<'_>) -> Found<Timestamp> {
    let (state, now) = (&question.subject.profile.tier, question.now());
    let until = match &state.overlay {
        Some(overlay) if overlay.from <= now && now < overlay.until => return Ok((overlay.until, overlay.until)),
        Some(overlay) if now < overlay.from => overlay.from,
        _ => Timestamp::FOREVER,
    };
    state.grace_until.map(|at| (at, until)).ok_or(Trouble::missing_until(until))
}

impl AttributeSlot {
    /// The attribute, as long as it is not too old; else its default.
    pub fn value<'q>(&'q self, question: &'q Question<'_>) -> Found<&'q Value> {
        let stored: Option<&Attribute> = question.subject.profile.attributes.get(&self.name);
        let fresh_until = |attribute: &Attribute| self.max_age_ms.map_or(Timestamp::FOREVER, |ms| attribute.at.plus_ms(ms));
        match stored.map(|attribute| (attribute, fresh_until(attribute))).filter(|(_, until)| *until > question.now()) {
            Some((attribute, until)) => Ok((&attribute.value, until)),
            None => match &self.default {
                Some(default) => Ok((default, Timestamp::FOREVER)),
                None => Err(Trouble::MISSING),
            },
        }
    }
}

impl EventSlot {
    /// The property as its declared type has it; missing if it is of another.
    pub fn value(&self, question: &Question<'_>) -> Result<Value, Trouble> {
        let raw = self.raw(question)?;
        absorb::typed(raw, &self.value_type, None).ok_or(Trouble::MISSING)
    }

    fn money(&self, question: &Question<'_>) -> Result<i64, Trouble> {
        self.raw(question)?;
        let (properties, currency) = (question.subject.event.ok_or(Trouble::MISSING)?, question.names.dictionary.currency);
        let amount = absorb::event_money(properties, &self.name, currency);
        amount.ok_or(if absorb::is_money(properties, &self.name, currency) { Trouble::NO_RATE } else { Trouble::WRONG_TYPE })
    }

    /// Whether the declared type has that word.
    pub fn allows(&self, text: &str) -> bool {
        match &self.value_type {
            ValueType::Enum(words) => words.iter().any(|word| &**word == text),
            _ => true,
        }
    }

    pub fn raw<'q>(&self, question: &Question<'q>) -> Result<&'q Json, Trouble> {
        let property = question.subject.event.and_then(|properties| properties.get(&*self.name));
        property.filter(|value| !value.is_null()).ok_or(Trouble::MISSING)
    }
}

impl FeatureSlot {
    /// Count or sum of whole numbers: its points add up.
    fn is_sum(&self) -> bool {
        match self.function {
            AggregateFunction::Count => true,
            AggregateFunction::Sum => self.value_type != ValueType::Float,
            _ => false,
        }
    }

    fn before(&self, series: &Series) -> i64 {
        if self.window_ms.is_none() { series.before_sum } else { 0 }
    }

    /// The stored number: for a float its bits, for a word its place in the list.
    pub fn reading(&self, question: &Question<'_>) -> Found<i64> {
        let Some(series) = question.subject.profile.features.get(&self.name) else {
            return match self.function {
                AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Distinct => Ok((0, Timestamp::FOREVER)),
                _ => Err(Trouble::MISSING),
            };
        };
        let view = View::new(series, question.now(), self.window_ms);
        let is_float = self.value_type == ValueType::Float;
        // bits of a float in an order like its size
        let size = |value: i64| if is_float { value ^ (((value >> 63) as u64) >> 1) as i64 } else { value };
        match self.function {
            AggregateFunction::Sum if is_float => {
                let start = f64::from_bits(self.before(series) as u64);
                let sum = view.points.iter().fold(start, |sum, p| sum + f64::from_bits(p.value as u64));
                Ok((sum.to_bits() as i64, view.next_change()))
            }
            AggregateFunction::Count | AggregateFunction::Sum => Ok(windows::net(view, None, self.before(series))),
            AggregateFunction::Distinct => Ok(windows::distinct(view)),
            AggregateFunction::Last => windows::last(view),
            AggregateFunction::Max => windows::greatest(view, size),
            AggregateFunction::Min => windows::greatest(view, |value| !size(value)),
        }
    }
}

/// A value in this file's units.
pub fn number(value: &Value, currency: Option<Currency>) -> Result<i64, Trouble> {
    match value {
        Value::Bool(v) => Ok(i64::from(*v)),
        Value::Int(v) | Value::Duration(v) => Ok(*v),
        Value::Instant(v) => Ok(v.as_ms()),
        Value::Date(v) => Ok(local::day_number(*v)),
        Value::Money(v) if currency == Some(v.currency) => Ok(v.minor),
        Value::Money(_) => Err(Trouble::NO_RATE),
        Value::Float(_) | Value::Text(_) | Value::List(_) => Err(Trouble::WRONG_TYPE),
    }
}

fn before_count(series: &Series, width_ms: Option<i64>) -> u64 {
    if width_ms.is_none() { series.before_count } else { 0 }
}

fn spend_before(question: &Question<'_>, width_ms: Option<i64>) -> i64 {
    let profile = question.subject.profile;
    if width_ms.is_none() { profile.orders.before_sum.saturating_sub(profile.refunds.before_sum) } else { 0 }
}

/// Net spend over the number of orders; missing without an order.
fn average_order(question: &Question<'_>, width_ms: i64) -> Found<i64> {
    let (orders, orders_until) = Source::Orders(Some(width_ms)).reading(question)?;
    let (spend, spend_until) = Source::Spend(Some(width_ms)).reading(question)?;
    let until = orders_until.min(spend_until);
    if orders == 0 { Err(Trouble::missing_until(until)) } else { Ok((spend.div_euclid(orders), until)) }
}

/// The active instants of a window, and when the next enters.
fn recent<'q>(question: &Question<'q>, width_ms: i64) -> (&'q [Timestamp], usize, Timestamp) {
    let recent = &question.subject.profile.activity.recent;
    let now = question.now();
    let from = recent.partition_point(|at| *at <= now.plus_ms(-width_ms));
    let to = recent.partition_point(|at| *at <= now).max(from);
    (recent.get(..to).unwrap_or_default(), from, recent.get(to).copied().unwrap_or(Timestamp::FOREVER))
}

fn active_days(question: &Question<'_>, width_ms: i64) -> (i64, Timestamp) {
    let (seen, from, next_in) = recent(question, width_ms);
    let (mut days, mut latest, mut oldest_ends_at) = (0, None, None);
    for at in seen.get(from..).unwrap_or_default() {
        let date = at.local(question.zone()).date();
        if latest != Some(date) {
            days += 1;
            latest = Some(date);
        }
        if days == 1 {
            oldest_ends_at = Some(*at);
        }
    }
    // the oldest day is the first to go, with its last activity
    (days, oldest_ends_at.map_or(Timestamp::FOREVER, |at| at.plus_ms(width_ms)).min(next_in))
}

/// Half an hour without activity ends a visit.
const SESSION_GAP_MS: i64 = 30 * MINUTE_MS;

fn sessions(question: &Question<'_>, width_ms: i64) -> (i64, Timestamp) {
    let (seen, from, mut until) = recent(question, width_ms);
    let mut count = 0;
    for (index, at) in seen.iter().enumerate().skip(from) {
        let before = index.checked_sub(1).and_then(|index| seen.get(index));
        if before.is_none_or(|before| at.ms_since(*before) >= SESSION_GAP_MS) {
            count += 1;
            until = until.min(at.plus_ms(width_ms));
        }
    }
    (count, until)
}

/// Those known to be over, and the present one once it has lasted 30 days.
fn silent_spells(question: &Question<'_>, width_ms: i64) -> (i64, Timestamp) {
    let (profile, now) = (question.subject.profile, question.now());
    let present = profile.activity.last_active_at.map(|at| at.plus_ms(30 * DAY_MS));
    let (mut count, mut until) = (0, Timestamp::FOREVER);
    for reached_at in profile.activity.spells.iter().copied().chain(present) {
        if reached_at > now {
            until = until.min(reached_at);
        } else if reached_at.plus_ms(width_ms) > now {
            count += 1;
            until = until.min(reached_at.plus_ms(width_ms));
        }
    }
    (count, until)
}

/// The tier that applies: the higher of the base tier and a live overlay. None without a program of tiers.
pub fn effective_tier<'q>(question: &Question<'q>) -> (Option<&'q str>, Timestamp) {
    let Some(tiers) = tiers(question) else { return (None, Timestamp::FOREVER) };
    let (state, now) = (&question.subject.profile.tier, question.now());
    let base = base_tier(question);
    match &state.overlay {
        Some(overlay) if now < overlay.from => (base, overlay.from),
        Some(overlay) if now < overlay.until => {
            let higher = base.is_none_or(|base| tiers.rank(&overlay.tier) > tiers.rank(base));
            (if higher { Some(&*overlay.tier) } else { base }, overlay.until)
        }
        _ => (base, Timestamp::FOREVER),
    }
}

pub fn base_tier<'q>(question: &Question<'q>) -> Option<&'q str> {
    let tiers = tiers(question)?;
    let held = question.subject.profile.tier.base.as_deref();
    held.or_else(|| tiers.levels.first().map(|level| &*level.id))
}

fn tiers<'q>(question: &Question<'q>) -> Option<&'q Tiers> {
    question.names.program.and_then(|program| program.tiers.as_ref())
}

/// What the metric must reach for the level above the base tier; none at the top.
fn next_tier_from(question: &Question<'_>) -> Option<i64> {
    let tiers = tiers(question)?;
    let above = tiers.rank(base_tier(question)?) + 1;
    tiers.levels.get(above).map(|level| level.from)
}

fn coupons_open(question: &Question<'_>) -> (i64, Timestamp) {
    let now = question.now();
    let issued = question.subject.profile.coupons.iter().filter(|c| c.issued_at.is_some() && c.redeemed_at.is_none() && c.until > now);
    issued.fold((0, Timestamp::FOREVER), |(count, until), coupon| (count + 1, until.min(coupon.until)))
}

fn sends(question: &Question<'_>, channel: Channel, width_ms: i64) -> (i64, Timestamp) {
    let now = question.now();
    let sent = question.subject.profile.slots.iter().filter(|slot| slot.channel == channel).filter_map(|slot| slot.sent_at);
    sent.filter(|at| at.plus_ms(width_ms) > now)
        .fold((0, Timestamp::FOREVER), |(count, until), at| (count + 1, until.min(at.plus_ms(width_ms))))
}

fn reachable(question: &Question<'_>, channel: Option<Channel>) -> bool {
    let (profile, now) = (question.subject.profile, question.now());
    let has_address = |channel: Channel| consent::address(profile, channel, false, now).is_ok();
    let may_use = |channel: Channel| {
        consent::check(question.names.policy, profile, Category::Marketing, channel, now).is_ok() && has_address(channel)
    };
    match channel {
        Some(channel) => has_address(channel),
        None => Channel::ALL.into_iter().any(may_use),
    }
}

/// Acted; of a send: accepted.
fn is_done(state: &StepState) -> bool {
    match state {
        StepState::Acted { .. } => true,
        StepState::Sent { tries, .. } => tries.last().is_some_and(|t| {
            t.accepted_at.is_some()
                || matches!(t.outcome, Some(Outcome::Accepted | Outcome::Delivered | Outcome::Opened | Outcome::Clicked))
        }),
        StepState::Waiting | StepState::Skipped { .. } | StepState::Ended { .. } => false,
    }
}

/// Country, or country and region where one is known (`CA-QC`).
pub fn jurisdiction(profile: &Profile) -> Cow<'_, str> {
    let country = profile.country();
    match profile.attributes.get("region") {
        Some(Attribute { value: Value::Text(region), .. }) if region.contains('-') => Cow::Borrowed(region),
        Some(Attribute { value: Value::Text(region), .. }) => Cow::Owned(format!("{country}-{region}")),
        _ => Cow::Borrowed(country),
    }
}
