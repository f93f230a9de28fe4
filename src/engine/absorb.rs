//! The fold of facts into the profile: what was said of a person, agreed to, done, ordered, counted.
//!
//! Invariant: a fold of a set. In whatever order events arrive, late ones included, the same facts give the same profile: attributes
//! keep their own instants and break ties by value, series are sorted by time of occurrence and folded behind their own latest point,
//! spells of silence are split by a late event that falls into them.
//!
//! What follows from facts is not here: points book in [`super::points`], tiers in [`super::tier`], coupons in [`super::coupon`],
//! results of messages are heard by the runs. An empty or `null` trait says nothing; a withdrawn address is a consent record.

use std::cmp::Ordering;

use serde_json::{Map, Value as Json};

use super::action::Channel;
use super::event::{Event, EventKind, Value};
use super::features::day_number;
use super::merge;
use super::money::{Currency, Money};
use super::profile::{Activity, Attribute, Consent, Name, Point, Profile, Series, Suppressed};
use super::rule::expr::{Names, Subject, ValueType};
use super::rule::{Aggregate, AggregateFunction, AttributeType, Dictionary, FeatureKind, Update};
use super::time::{DAY_MS, Span, Timestamp, Zone};

/// The names under which rules know the two events that make orders, spend and points.
pub const ORDER_COMPLETED: &str = "order_completed";
pub const ORDER_REFUNDED: &str = "order_refunded";

/// From so many days on, silence is a spell (`silent_spells_365d`, `reactivated_at`). Reached at exactly so many days after the last
/// active event; one that comes at that very instant comes first, and there is no spell.
pub const SPELL_MS: i64 = 30 * DAY_MS;
/// The built-in windows reach back 365 days; orders and refunds are kept one day longer.
const KEPT_MS: i64 = 366 * DAY_MS;
/// `active_days_28d` and `sessions_14d` look at the last 28 days.
const RECENT_KEPT_MS: i64 = 35 * DAY_MS;
const RECENT_MAX: usize = 500;
/// A year has twelve spells at most. They are kept by number, not by age: `reactivated_at` falls back to an older one if a late event
/// undoes the latest.
const SPELLS_MAX: usize = 36;

/// Takes one fact in. Events of the engine's own change nothing here, except that somebody unsubscribed or complained.
pub fn absorb(profile: &mut Profile, event: &Event, names: Names<'_>) {
    if event.kind != EventKind::Engine {
        let at = event.occurred_at;
        profile.first_seen_at = Some(profile.first_seen_at.map_or(at, |seen| seen.min(at)));
    }
    match event.kind {
        EventKind::Identify => absorb_traits(profile, event, names),
        EventKind::Consent => absorb_consent(profile, event),
        EventKind::Track => absorb_deed(profile, event, names),
        EventKind::Engine if *event.name == *merge::PROFILE_MERGED => merge::absorb(profile, event),
        EventKind::Engine => {}
    }
    match rule_name(event, names.dictionary).as_deref() {
        Some("unsubscribed") => absorb_refusal(profile, event, false),
        Some("complained") => absorb_refusal(profile, event, true),
        Some(SUPPRESSED | SUPPRESSION_LIFTED) if event.kind == EventKind::Engine => absorb_suppression(profile, event),
        _ => {}
    }
}

/// The engine's events of what the suppression list says of the person's address.
pub const SUPPRESSED: &str = "suppressed";
pub const SUPPRESSION_LIFTED: &str = "suppression_lifted";

/// The name rules use for an event; none for traits and consent records, and for what nobody declared.
pub fn rule_name(event: &Event, dictionary: &Dictionary) -> Option<Name> {
    match event.kind {
        EventKind::Track => dictionary.wire_names.get(&event.name).cloned(),
        EventKind::Engine => Some(event.name.clone()),
        EventKind::Identify | EventKind::Consent => None,
    }
}

/// Whether this event means that the person was there.
pub fn is_active(event: &Event, dictionary: &Dictionary) -> bool {
    event.kind == EventKind::Track
        && rule_name(event, dictionary).and_then(|name| dictionary.events.get(&name)).is_some_and(|kind| kind.active)
}

// ---------------------------------------------------------------------------------------------------------------- the person

fn absorb_traits(profile: &mut Profile, event: &Event, names: Names<'_>) {
    let said = |value: Value| Attribute { value, at: event.occurred_at };
    let text = |name: &str| event.text_property(name).map(str::trim).filter(|text| !text.is_empty());
    if let Some(code) = text("country").filter(|code| code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic())) {
        merge(&mut profile.country, Update::Last, said(Value::text(&code.to_ascii_uppercase())));
    }
    if let Some(locale) = text("locale") {
        merge(&mut profile.locale, Update::Last, said(Value::text(locale)));
    }
    if let Some(zone) = text("zone").or_else(|| text("timezone")).filter(|zone| Zone::named(zone).is_some()) {
        merge(&mut profile.zone, Update::Last, said(Value::text(zone)));
    }
    if let Some(region) = text(REGION) {
        merge_named(&mut profile.attributes, &Name::from(REGION), Update::Last, said(Value::text(&region.to_ascii_uppercase())));
    }
    for (name, value_type) in [(TICKETS_OPEN, ValueType::Int), (DISPUTE_OPEN, ValueType::Bool)] {
        if let Some(value) = event.property(name).and_then(|value| typed(value, &value_type, None)) {
            merge_named(&mut profile.attributes, &Name::from(name), Update::Last, said(value));
        }
    }
    for (name, channels) in ADDRESSES {
        let Some(address) = text(name) else { continue };
        for channel in channels {
            merge_named(&mut profile.addresses, channel, Update::Last, said(Value::text(address)));
        }
    }
    for attribute in &names.dictionary.attributes {
        let may_write = attribute.source.as_ref().is_none_or(|source| *source == event.source);
        if let Some(value) = event.property(&attribute.name).filter(|_| may_write) {
            absorb_attribute(profile, attribute, value, event.occurred_at, names.dictionary.currency);
        }
    }
}

/// Part of a country, as in ISO 3166-2 (`QC` or `CA-QC`): which policy pack applies may hang on it.
pub const REGION: &str = "region";

/// What the help desk says of a person by `identify`: open support cases, and whether a payment is disputed. Whoever has trouble
/// open loses nothing.
pub const TICKETS_OPEN: &str = "tickets_open";
pub const DISPUTE_OPEN: &str = "dispute_open";

/// Open support cases; 0 if nobody said anything.
pub fn tickets_open(profile: &Profile) -> i64 {
    match profile.attributes.get(TICKETS_OPEN).map(|attribute| &attribute.value) {
        Some(Value::Int(open)) => *open,
        _ => 0,
    }
}

/// Whether a payment of this person is disputed.
pub fn dispute_open(profile: &Profile) -> bool {
    matches!(profile.attributes.get(DISPUTE_OPEN).map(|attribute| &attribute.value), Some(Value::Bool(true)))
}

/// Which trait gives the address of which channels.
const ADDRESSES: [(&str, &[Channel]); 3] =
    [("email", &[Channel::Email]), ("phone", &[Channel::Sms, Channel::Whatsapp]), ("push_token", &[Channel::Push])];

fn absorb_attribute(profile: &mut Profile, attribute: &AttributeType, value: &Json, at: Timestamp, currency: Option<Currency>) {
    // a wrong type is kept in the raw event and ignored here
    if let Some(value) = typed(value, &attribute.value_type, currency) {
        merge_named(&mut profile.attributes, &attribute.name, attribute.update, Attribute { value, at });
    }
}

fn merge_named<K: Ord + Clone>(map: &mut std::collections::BTreeMap<K, Attribute>, key: &K, update: Update, said: Attribute) {
    let mut slot = map.remove(key);
    merge(&mut slot, update, said);
    if let Some(attribute) = slot {
        map.insert(key.clone(), attribute);
    }
}

/// The one of both that stays. Total orders on (instant, value), so that neither arrival nor repetition matters.
fn merge(slot: &mut Option<Attribute>, update: Update, said: Attribute) {
    let by_time = |a: &Attribute, b: &Attribute| a.at.cmp(&b.at).then_with(|| compare(&a.value, &b.value));
    let by_value = |a: &Attribute, b: &Attribute| compare(&a.value, &b.value).then_with(|| a.at.cmp(&b.at));
    let wins = slot.as_ref().is_none_or(|kept| match update {
        Update::Last => by_time(&said, kept) == Ordering::Greater,
        Update::First => by_time(&said, kept) == Ordering::Less,
        Update::Max => by_value(&said, kept) == Ordering::Greater,
        // the same least value said again later is the fresher word
        Update::Min => compare(&said.value, &kept.value).then_with(|| kept.at.cmp(&said.at)) == Ordering::Less,
    });
    if wins {
        *slot = Some(said);
    }
}

/// A total order of values: by size where both are of one kind, else by kind.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Int(a), Value::Float(b)) => (*a as f64).total_cmp(b),
        (Value::Float(a), Value::Int(b)) => a.total_cmp(&(*b as f64)),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::Instant(a), Value::Instant(b)) => a.cmp(b),
        (Value::Money(a), Value::Money(b)) => a.currency.cmp(&b.currency).then(a.minor.cmp(&b.minor)),
        _ => a.to_string().cmp(&b.to_string()),
    }
}

/// A JSON value as the declared type has it; none if it is of another.
pub fn typed(value: &Json, value_type: &ValueType, currency: Option<Currency>) -> Option<Value> {
    Some(match value_type {
        ValueType::Bool => Value::Bool(value.as_bool()?),
        ValueType::Int => Value::Int(whole(value)?),
        ValueType::Float => Value::Float(value.as_f64().filter(|v| v.is_finite())?),
        ValueType::Text => Value::text(value.as_str()?),
        ValueType::Enum(words) => Value::Text(words.iter().find(|word| Some(&***word) == value.as_str())?.clone()),
        ValueType::Date => Value::Date(value.as_str()?.parse().ok()?),
        ValueType::Instant => Value::Instant(Timestamp::parse(value.as_str()?)?),
        ValueType::Duration => Value::Duration(value.as_str()?.parse::<Span>().ok()?.exact_ms()),
        ValueType::Money => Value::Money(money(value, None, currency)?),
        ValueType::List => Value::List(value.as_array()?.iter().map(scalar).collect::<Option<_>>()?),
    })
}

fn whole(value: &Json) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|v| v.fract() == 0.0 && v.abs() < 9.0e15).map(|v| v as i64))
}

fn scalar(value: &Json) -> Option<Value> {
    match value {
        Json::Bool(v) => Some(Value::Bool(*v)),
        Json::Number(v) => v.as_i64().map(Value::Int).or_else(|| v.as_f64().map(Value::Float)),
        Json::String(v) => Some(Value::text(v)),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// An amount as events carry it: major units as a number (`139.12`) in `code`, or by itself in words (`"30 USD"`).
fn money(value: &Json, code: Option<&str>, currency: Option<Currency>) -> Option<Money> {
    if let Some(text) = value.as_str() {
        return text.parse().ok().or_else(|| Money::from_major(text.parse().ok()?, currency?));
    }
    let currency = match code {
        Some(code) => code.parse().ok()?,
        None => currency?,
    };
    Money::from_major(value.as_f64()?, currency)
}

/// Whether a property is an amount of money at all, of whatever currency: a number (or text of one) that is not beyond all reckoning.
pub fn is_money(properties: &Map<String, Json>, name: &str, currency: Option<Currency>) -> bool {
    let code = properties.get("currency").and_then(Json::as_str);
    properties.get(name).is_some_and(|value| money(value, code, currency).is_some())
}

/// The money of an event's property in minor units of the program's currency. None without it, or if it is in another currency: there
/// is no rate for it.
pub fn event_money(properties: &Map<String, Json>, name: &str, currency: Option<Currency>) -> Option<i64> {
    let code = properties.get("currency").and_then(Json::as_str);
    let amount = money(properties.get(name)?, code, currency)?;
    (Some(amount.currency) == currency).then_some(amount.minor)
}

// ------------------------------------------------------------------------------------------------------------------- consent

/// A record of consent: `purpose`, `channel` (all of them without it), `granted`, `basis`, `expires_at`.
fn absorb_consent(profile: &mut Profile, event: &Event) {
    let (Some(purpose), Some(granted)) = (event.text_property("purpose"), event.property("granted").and_then(Json::as_bool)) else {
        return;
    };
    let basis = Name::from(event.text_property("basis").unwrap_or("opt_in"));
    let expires_at = event.text_property("expires_at").and_then(Timestamp::parse);
    for channel in channels_of(event) {
        let record = Consent { granted, at: event.occurred_at, basis: basis.clone(), expires_at };
        record_consent(profile, purpose, channel, record);
    }
}

/// Somebody unsubscribed: marketing is over on that channel. A complaint puts the address on the suppression list as well.
fn absorb_refusal(profile: &mut Profile, event: &Event, is_complaint: bool) {
    let purpose = event.text_property("purpose").unwrap_or("marketing");
    let at = event.occurred_at;
    for channel in channels_of(event) {
        let basis = Name::from(if is_complaint { "complaint" } else { "unsubscribe" });
        record_consent(profile, purpose, channel, Consent { granted: false, at, basis: basis.clone(), expires_at: None });
        if is_complaint {
            suppress(profile, event, channel, basis, None);
        }
    }
}

/// The list speaks of the person's address, or of it no more: then the entry stays, as one that is over.
fn absorb_suppression(profile: &mut Profile, event: &Event) {
    let is_over = &*event.name == SUPPRESSION_LIFTED;
    let reason = Name::from(event.text_property("reason").unwrap_or("manual"));
    let until = if is_over { Some(event.occurred_at) } else { event.text_property("until").and_then(Timestamp::parse) };
    for channel in channels_of(event) {
        suppress(profile, event, channel, reason.clone(), until);
    }
}

/// The latest word about an address counts.
fn suppress(profile: &mut Profile, event: &Event, channel: Channel, reason: Name, until: Option<Timestamp>) {
    let address = match (event.text_property("address"), profile.addresses.get(&channel)) {
        (Some(address), _) => Name::from(address),
        (None, Some(Attribute { value: Value::Text(address), .. })) => address.clone(),
        (None, _) => return,
    };
    let entry = Suppressed { reason, at: event.occurred_at, address, until };
    let rank = |entry: &Suppressed| (entry.at, entry.until.is_none(), entry.until, entry.reason.clone(), entry.address.clone());
    if profile.suppressed.get(&channel).is_none_or(|kept| rank(&entry) > rank(kept)) {
        profile.suppressed.insert(channel, entry);
    }
}

fn channels_of(event: &Event) -> Vec<Channel> {
    match event.text_property("channel") {
        None | Some("all") => Channel::ALL.to_vec(),
        Some(name) => Channel::named(name).into_iter().collect(),
    }
}

/// The latest record counts; of two at one instant the withdrawal.
fn record_consent(profile: &mut Profile, purpose: &str, channel: Channel, record: Consent) {
    let rank = |record: &Consent| (record.at, !record.granted, record.basis.clone(), record.expires_at);
    let key = (Name::from(purpose), channel);
    if profile.consents.get(&key).is_none_or(|kept| rank(&record) > rank(kept)) {
        profile.consents.insert(key, record);
    }
}

// --------------------------------------------------------------------------------------------------------------------- deeds

fn absorb_deed(profile: &mut Profile, event: &Event, names: Names<'_>) {
    let at = event.occurred_at;
    if is_active(event, names.dictionary) {
        was_there(&mut profile.activity, at);
    }
    let Some(name) = rule_name(event, names.dictionary) else { return };
    let total = || event_money(&event.properties, "total", names.dictionary.currency).unwrap_or(0);
    match &*name {
        // money of a currency without a rate is no spend, but an order it is
        ORDER_COMPLETED => add(&mut profile.orders, Point { at, value: total() }),
        ORDER_REFUNDED => add(&mut profile.refunds, Point { at, value: total().abs() }),
        _ => {}
    }
    for feature in &names.dictionary.features {
        let FeatureKind::Aggregate(aggregate) = &feature.kind else { continue };
        if aggregate.event == name
            && let Some(value) = counted_value(profile, event, aggregate, names)
        {
            let series = profile.features.entry(feature.name.clone()).or_default();
            count_in(series, Point { at, value }, aggregate);
        }
    }
}

fn add(series: &mut Series, point: Point) {
    series.insert(point);
    fold(series, KEPT_MS);
}

/// Folds what lies more than `kept_ms` behind the series' own latest point: a function of the set of points alone.
fn fold(series: &mut Series, kept_ms: i64) {
    if let Some(last_at) = series.last_at {
        series.fold_until(last_at.plus_ms(-kept_ms));
    }
}

/// The person was there at `at`, perhaps long ago. A gap of more than 30 days between two active events is a spell of silence; a late
/// event splits the gap that it falls into, and no event can make a gap longer, so the long gaps and both ends are all there is to know.
fn was_there(activity: &mut Activity, at: Timestamp) {
    let (first, last) = (activity.first_active_at.unwrap_or(at), activity.last_active_at.unwrap_or(at));
    if at < first {
        note_gap(activity, at, first);
    } else if at > last {
        note_gap(activity, last, at);
    } else {
        split_gap(activity, at);
    }
    activity.first_active_at = Some(first.min(at));
    let last = last.max(at);
    activity.last_active_at = Some(last);
    activity.reactivated_at = activity.returns.last().copied();

    let index = activity.recent.partition_point(|seen| *seen <= at);
    activity.recent.insert(index, at);
    let fresh = activity.recent.partition_point(|seen| *seen <= last.plus_ms(-RECENT_KEPT_MS));
    let surplus = activity.recent.len().saturating_sub(RECENT_MAX);
    activity.recent.drain(..fresh.max(surplus));

    let old = activity.returns.len().saturating_sub(SPELLS_MAX);
    activity.returns.drain(..old);
    activity.spells.drain(..old);
}

fn note_gap(activity: &mut Activity, from: Timestamp, to: Timestamp) {
    if to.ms_since(from) > SPELL_MS {
        let index = activity.returns.partition_point(|end| *end <= to);
        activity.returns.insert(index, to);
        activity.spells.insert(index, from.plus_ms(SPELL_MS));
    }
}

fn split_gap(activity: &mut Activity, at: Timestamp) {
    let index = activity.returns.partition_point(|end| *end <= at);
    let Some(from) = activity.spells.get(index).map(|spell| spell.plus_ms(-SPELL_MS)).filter(|from| *from < at) else { return };
    let to = activity.returns.remove(index);
    activity.spells.remove(index);
    note_gap(activity, from, at);
    note_gap(activity, at, to);
}

// ------------------------------------------------------------------------------------------------------------------ features

/// What an event adds to a feature; none if `where` says no or the property is missing or of another type.
fn counted_value(profile: &Profile, event: &Event, aggregate: &Aggregate, names: Names<'_>) -> Option<i64> {
    if let Some(filter) = &aggregate.filter {
        let subject = Subject { profile, now: event.occurred_at, event: Some(&event.properties), run: None };
        if !filter.verdict(names, subject).is_ok_and(|verdict| verdict.truth) {
            return None;
        }
    }
    let Some(property) = &aggregate.property else { return Some(1) };
    let value = event.property(property)?;
    if aggregate.function == AggregateFunction::Distinct {
        return (!value.is_null()).then(|| twox_hash::XxHash3_64::oneshot(value.to_string().as_bytes()) as i64);
    }
    if aggregate.value_type == ValueType::Money {
        return event_money(&event.properties, property, names.dictionary.currency);
    }
    to_point(&typed(value, &aggregate.value_type, names.dictionary.currency)?, &aggregate.value_type)
}

/// A value as a [`Point`] keeps it: see there. None for what fits no integer (texts outside a closed list, lists).
fn to_point(value: &Value, value_type: &ValueType) -> Option<i64> {
    match (value, value_type) {
        (Value::Text(word), ValueType::Enum(words)) => i64::try_from(words.iter().position(|known| known == word)?).ok(),
        (Value::Bool(v), _) => Some(i64::from(*v)),
        (Value::Int(v) | Value::Duration(v), _) => Some(*v),
        (Value::Float(v), _) => Some(v.to_bits() as i64),
        (Value::Instant(v), _) => Some(v.as_ms()),
        (Value::Date(v), _) => Some(day_number(*v)),
        (Value::Money(v), _) => Some(v.minor),
        (Value::Text(_) | Value::List(_), _) => None,
    }
}

/// Adds a point to a feature's series and forgets what the feature can no longer ask for.
fn count_in(series: &mut Series, point: Point, aggregate: &Aggregate) {
    series.insert(point);
    let bucketed = aggregate.bucket_ms.filter(|ms| *ms > 0 && aggregate.function != AggregateFunction::Last);
    if let Some(bucket_ms) = bucketed {
        coarsen(series, series.points.len(), bucket_ms, aggregate);
    }
    match (aggregate.function, aggregate.window_ms) {
        // older values can never become the last again
        (AggregateFunction::Last, _) => keep_only(series, series.points.last().copied()),
        (AggregateFunction::Min, None) => keep_only(series, series.points.iter().min_by_key(|p| size(p.value, aggregate)).copied()),
        (AggregateFunction::Max, None) => keep_only(series, series.points.iter().max_by_key(|p| size(p.value, aggregate)).copied()),
        (AggregateFunction::Distinct, None) => {
            let mut seen = std::collections::BTreeSet::new();
            series.points.retain(|point| seen.insert(point.value));
        }
        (AggregateFunction::Count | AggregateFunction::Sum, None) => fold_behind(series, 0, aggregate),
        (_, Some(window_ms)) => fold_behind(series, window_ms, aggregate),
    }
    let keep = aggregate.keep.max(2);
    if series.points.len() > keep {
        // half at once, so that a busy series is not joined anew at every event
        coarsen(series, series.points.len() - keep / 2, DAY_MS, aggregate);
    }
}

fn keep_only(series: &mut Series, point: Option<Point>) {
    series.points.clear();
    series.points.extend(point);
}

/// Like [`fold`], in the arithmetic of the feature. Only counts and sums have a past; of the others the old points are just forgotten.
fn fold_behind(series: &mut Series, kept_ms: i64, aggregate: &Aggregate) {
    let Some(edge) = series.last_at.map(|last_at| last_at.plus_ms(-kept_ms)) else { return };
    let index = series.points.partition_point(|point| point.at <= edge);
    for point in series.points.drain(..index) {
        match aggregate.function {
            AggregateFunction::Count => {
                series.before_count += point.value.unsigned_abs();
                series.before_sum += point.value;
            }
            AggregateFunction::Sum => series.before_sum = plus(series.before_sum, point.value, aggregate),
            AggregateFunction::Min | AggregateFunction::Max | AggregateFunction::Last | AggregateFunction::Distinct => {}
        }
    }
}

/// Moves the first `count` points to the beginnings of their buckets, joining those that meet there. A bucket leaves the window as a
/// whole when its beginning does: that is what the feature means then, not an approximation of it.
fn coarsen(series: &mut Series, count: usize, bucket_ms: i64, aggregate: &Aggregate) {
    let mut rest = series.points.split_off(count.min(series.points.len()));
    for point in &mut series.points {
        point.at = Timestamp::from_ms(point.at.as_ms().div_euclid(bucket_ms) * bucket_ms);
    }
    series.points.sort_unstable();
    let mut joined: Vec<Point> = Vec::with_capacity(series.points.len());
    for point in series.points.drain(..) {
        match joined.last_mut().filter(|last| last.at == point.at) {
            None => joined.push(point),
            Some(last) => match aggregate.function {
                AggregateFunction::Count | AggregateFunction::Sum => last.value = plus(last.value, point.value, aggregate),
                AggregateFunction::Min => last.value = std::cmp::min_by_key(last.value, point.value, |v| size(*v, aggregate)),
                AggregateFunction::Max => last.value = std::cmp::max_by_key(last.value, point.value, |v| size(*v, aggregate)),
                AggregateFunction::Last => *last = point,
                AggregateFunction::Distinct if last.value == point.value => {}
                AggregateFunction::Distinct => joined.push(point),
            },
        }
    }
    joined.append(&mut rest);
    series.points = joined;
}

fn is_float(aggregate: &Aggregate) -> bool {
    aggregate.value_type == ValueType::Float && !matches!(aggregate.function, AggregateFunction::Count | AggregateFunction::Distinct)
}

fn plus(a: i64, b: i64, aggregate: &Aggregate) -> i64 {
    if !is_float(aggregate) {
        return a.saturating_add(b);
    }
    (f64::from_bits(a as u64) + f64::from_bits(b as u64)).to_bits() as i64
}

/// The bits of a float in an order like its size.
fn size(value: i64, aggregate: &Aggregate) -> i64 {
    if is_float(aggregate) { value ^ (((value >> 63) as u64) >> 1) as i64 } else { value }
}

#[cfg(test)]
mod tests {
    use super::super::rule::PropertyType;
    use super::super::rule::expr::{Scope, parse};
    use super::super::sample::{day, event, order, profile, refund, shop};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn absorbed(events: &[Event]) -> Profile {
        let (shop, mut profile) = (shop(), profile());
        for event in events {
            absorb(&mut profile, event, shop.names());
        }
        profile
    }

    fn attribute(profile: &Profile, name: &str) -> Option<String> {
        profile.attributes.get(name).map(|attribute| attribute.value.to_string())
    }

    #[test]
    fn each_attribute_merges_by_its_own_rule_whatever_the_order() {
        let mut events = vec![
            event("identify", day(2), json!({ "best": 5, "least": 5, "first_shop": "b", "country": "fr" })),
            event("identify", day(1), json!({ "best": 9, "least": 9, "first_shop": "a", "country": "DE" })),
            event("identify", day(3), json!({ "best": 7, "least": 3.0, "first_shop": "c" })),
        ];
        for _ in 0..2 {
            let profile = absorbed(&events);
            let read = ["best", "least", "first_shop"].map(|name| attribute(&profile, name).unwrap_or_default());
            assert_eq!(read, ["9", "3", "\"a\""]);
            assert_eq!(profile.country(), "FR");
            events.reverse();
        }
    }

    #[test]
    fn what_is_of_a_wrong_type_or_from_another_source_is_ignored() {
        let table = [
            (json!({ "best": "nine" }), "best", None),
            (json!({ "best": 1.5 }), "best", None),
            (json!({ "birth_date": "1990-02-30" }), "birth_date", None),
            (json!({ "birth_date": "1990-02-28" }), "birth_date", Some("1990-02-28")),
            (json!({ "score": 0.7 }), "score", None), // only `ml` writes it
            (json!({ "best": null }), "best", None),
            (json!({ "unknown": 1 }), "unknown", None),
            (json!({ "region": "qc" }), "region", Some("\"QC\"")),
        ];
        for (traits, name, expected) in table {
            let profile = absorbed(&[event("identify", day(1), traits.clone())]);
            assert_eq!(attribute(&profile, name).as_deref(), expected, "{traits}");
        }
        let by_its_source = Event { source: "ml".into(), ..event("identify", day(1), json!({ "score": 0.7 })) };
        assert_eq!(attribute(&absorbed(&[by_its_source]), "score").as_deref(), Some("0.7"));
    }

    #[test]
    fn the_latest_consent_counts_and_at_one_instant_the_withdrawal() {
        let said = |at, granted| event("consent", at, json!({ "purpose": "marketing", "channel": "email", "granted": granted }));
        let table = [
            (vec![said(day(1), true), said(day(2), false)], false),
            (vec![said(day(2), true), said(day(1), false)], true),
            (vec![said(day(2), false), said(day(2), true)], false),
            (vec![said(day(2), true), said(day(2), false)], false),
        ];
        for (events, granted) in table {
            let profile = absorbed(&events);
            assert_eq!(profile.consents.values().map(|consent| consent.granted).collect::<Vec<_>>(), [granted]);
        }
    }

    #[test]
    fn a_complaint_ends_marketing_and_suppresses_the_address() {
        let profile = absorbed(&[
            event("identify", day(1), json!({ "email": "a@example.com" })),
            event("complained", day(2), json!({ "channel": "email" })),
        ]);
        assert!(!profile.consents[&(Name::from("marketing"), Channel::Email)].granted);
        assert_eq!(&*profile.suppressed[&Channel::Email].address, "a@example.com");
        let profile = absorbed(&[event("unsubscribed", day(2), json!({ "channel": "email" }))]);
        assert!(profile.suppressed.is_empty() && profile.first_seen_at.is_none());
    }

    #[test]
    fn an_order_at_exactly_thirty_days_is_no_silence() {
        let session = |at| event("Session Started", at, json!({}));
        let table = [
            (vec![day(0), day(30)], vec![]),
            (vec![day(0), day(30).plus_ms(1)], vec![day(30)]),
            (vec![day(0), day(100)], vec![day(30)]),
            // late events split the gap they fall into, or undo it
            (vec![day(0), day(100), day(40)], vec![day(30), day(70)]),
            (vec![day(0), day(50), day(25)], vec![]),
            (vec![day(40), day(0)], vec![day(30)]),
        ];
        for (active, spells) in table {
            let profile = absorbed(&active.iter().map(|at| session(*at)).collect::<Vec<_>>());
            assert_eq!(profile.activity.spells, spells, "{active:?}");
        }
    }

    #[test]
    fn money_of_another_currency_is_no_spend_but_an_order() {
        let profile = absorbed(&[
            order("1", 19.99, day(1)),
            event("Order Completed", day(2), json!({ "order_id": "2", "total": 500, "currency": "JPY" })),
            refund("1", 5.0, day(3)),
        ]);
        assert_eq!((profile.orders.count_ever(), profile.orders.sum_ever()), (2, 1999));
        assert_eq!(profile.refunds.sum_ever(), 500);
    }

    #[test]
    fn a_late_point_behind_the_window_is_counted_and_not_kept() {
        let mut events = vec![order("1", 1.0, day(0)), order("2", 2.0, day(400)), order("3", 4.0, day(35))];
        for _ in 0..2 {
            let profile = absorbed(&events);
            assert_eq!((profile.orders.points.len(), profile.orders.before_sum), (2, 100));
            assert_eq!((profile.orders.first_at, profile.orders.last_at), (Some(day(0)), Some(day(400))));
            events.reverse();
        }
    }

    #[test]
    fn features_keep_what_they_can_still_be_asked_for() {
        let session = |hours: i64, minutes: i64| {
            event("Session Started", day(0).plus_ms(hours * super::super::time::HOUR_MS), json!({ "minutes": minutes, "page": "a" }))
        };
        let profile = absorbed(&[session(0, 5), session(1, 7), session(26, 3), session(24 * 40, 4)]);
        let series = |name: &str| &profile.features[name];
        let values = |name: &str| series(name).points.iter().map(|point| point.value).collect::<Vec<_>>();
        assert_eq!((values("sessions_7d"), series("sessions_7d").before_count), (vec![1], 3));
        assert_eq!((values("sessions_ever"), series("sessions_ever").before_count), (vec![], 4));
        assert_eq!((values("minutes_30d"), series("minutes_30d").before_sum), (vec![4], 15));
        assert_eq!(series("pages_30d").before_count, 0);
        assert_eq!(series("minutes_ever").sum_ever(), 19);
        assert_eq!((values("longest_ever"), values("last_minutes")), (vec![7], vec![4]));
        assert_eq!((values("shortest_30d"), values("pages_30d").len()), (vec![4], 1));
    }

    #[test]
    fn where_decides_what_counts_and_a_missing_property_counts_nothing() {
        let mut shop = shop();
        let minutes = PropertyType { value_type: ValueType::Int, required: false };
        let session = shop.dictionary.events.get_mut("session_started").expect("the sample's event");
        session.properties.insert("minutes".into(), minutes);
        let scope = Scope { event: shop.dictionary.events.get("session_started"), ..Scope::of(shop.names()) };
        let filter = parse::condition("(event.minutes ?? 0) >= 5", &scope).expect("a condition");
        let place = shop.dictionary.features.iter().position(|feature| &*feature.name == "sessions_ever").expect("a feature");
        let FeatureKind::Aggregate(aggregate) = &mut shop.dictionary.features[place].kind else { panic!("an aggregate") };
        aggregate.filter = Some(filter);
        let mut profile = profile();
        for properties in
            [json!({ "minutes": 5 }), json!({ "minutes": 4 }), json!({}), json!({ "minutes": "long" }), json!({ "minutes": 60 })]
        {
            absorb(&mut profile, &event("Session Started", day(1), properties), shop.names());
        }
        assert_eq!(profile.features["sessions_ever"].count_ever(), 2);
        assert_eq!(profile.features["minutes_ever"].sum_ever(), 69);
    }

    #[test]
    fn more_points_than_a_feature_keeps_are_joined_by_day() {
        let events: Vec<Event> = (0..1200).map(|minute| event("Session Started", day(0).plus_ms(minute * 60_000), json!({}))).collect();
        let profile = absorbed(&events);
        let series = &profile.features["sessions_7d"];
        assert!(series.points.len() <= 500, "{}", series.points.len());
        assert_eq!(series.sum_ever(), 1200);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        // few instants and few values, so that collisions are the rule
        let instant = (0i64..420, 0i64..4).prop_map(|(days, hours)| day(days).plus_ms(hours * 6 * super::super::time::HOUR_MS));
        (0usize..7, instant, 0i64..4).prop_map(|(kind, at, n)| match kind {
            0 => event("identify", at, json!({ "best": n, "least": n, "first_shop": n.to_string(), "locale": format!("l{n}") })),
            1 => {
                event("consent", at, json!({ "purpose": "marketing", "channel": "sms", "granted": n > 1, "basis": format!("b{}", n % 2) }))
            }
            2 => order(&n.to_string(), n as f64, at),
            3 => refund(&n.to_string(), n as f64, at),
            4 => event("unsubscribed", at, json!({ "channel": "sms" })),
            _ => event("Session Started", at, json!({ "minutes": n, "page": n })),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// I7: the same facts give the same profile, in whatever order they come.
        #[test]
        fn promise_i7_the_order_of_arrival_does_not_matter(
            (sorted, shuffled) in prop::collection::vec(any_event(), 0..40)
                .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
        ) {
            prop_assert_eq!(absorbed(&sorted), absorbed(&shuffled));
        }
    }
}
