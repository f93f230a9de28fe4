//! A shop and people for the property tests: zones whose clocks do odd things, facts whose windows end within days of the instant
//! asked about, half of the time within three days of a clock change.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::{Date, Weekday};
use rekindle::engine::action::{Channel, MessageId};
use rekindle::engine::event::Value;
use rekindle::engine::money::{Currency, Money};
use rekindle::engine::profile::{
    Attribute, Category, Consent, Coupon, Entitlement, Lot, Name, Overlay, Point, Profile, Series, Slot, Suppressed,
};
use rekindle::engine::rule::expr::{Names, Scope, ValueType, parse};
use rekindle::engine::rule::*;
use rekindle::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, Span, Timestamp, Zone};

/// Reproducible chance: SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// `from ..= to`
    pub fn range(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from + 1) as u64) as i64
    }

    pub fn chance(&mut self, percent: i64) -> bool {
        self.range(0, 99) < percent
    }

    pub fn pick<'s, T>(&mut self, from: &'s [T]) -> &'s T {
        &from[self.range(0, from.len() as i64 - 1) as usize]
    }
}

/// Clock changes at midnight and a minute after it, by half an hour, by two and three hours across midnight, by a whole day; and none at
/// all. Zones that only ever move by an hour in the small hours would forgive an evaluator that overlooks the change itself.
const ZONES: [&str; 18] = [
    "America/New_York",
    "Asia/Kolkata",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/Havana",
    "America/St_Johns",
    "America/St_Johns",
    "Antarctica/Casey",
    "Antarctica/Casey",
    "Antarctica/Troll",
    "America/Caracas",
    "Asia/Gaza",
    "Pacific/Apia",
    "Africa/Casablanca",
    "Asia/Pyongyang",
    "Europe/London",
];

pub struct Shop {
    pub dictionary: Dictionary,
    pub policy: Policy,
    pub program: Program,
}

impl Shop {
    pub fn names(&self) -> Names<'_> {
        Names { dictionary: &self.dictionary, policy: &self.policy, program: Some(&self.program) }
    }
}

pub fn currency() -> Currency {
    "USD".parse().expect("a currency")
}

/// Declared features over the one event `visit`: (name, function, window in days).
pub const FEATURES: [(&str, AggregateFunction, Option<i64>); 6] = [
    ("visits_7d", AggregateFunction::Count, Some(7)),
    ("minutes_14d", AggregateFunction::Sum, Some(14)),
    ("longest_14d", AggregateFunction::Max, Some(14)),
    ("shortest_7d", AggregateFunction::Min, Some(7)),
    ("latest_7d", AggregateFunction::Last, Some(7)),
    ("kinds_14d", AggregateFunction::Distinct, Some(14)),
];

pub const LEVELS: [(&str, i64); 3] = [("basic", 0), ("silver", 25_000), ("gold", 100_000)];

pub fn shop(calendar_around: Date) -> Shop {
    let mut dictionary = Dictionary { currency: Some(currency()), ..Dictionary::default() };
    let attribute = |name: &str, value_type, default: Option<Value>, max_age_days: Option<i64>| AttributeType {
        name: name.into(),
        value_type,
        optional: default.is_none(),
        default,
        update: Update::Last,
        pii: false,
        source: None,
        max_age_ms: max_age_days.map(|days| days * DAY_MS),
        consent: None,
        declared_at: Place::default(),
    };
    dictionary.attributes = vec![
        attribute("vip", ValueType::Bool, None, Some(30)),
        attribute("score", ValueType::Int, None, Some(14)),
        attribute("risk", ValueType::Float, None, Some(7)),
        attribute("plan", ValueType::Enum(["free", "pro"].map(Arc::from).into()), Some(Value::text("free")), None),
        attribute("renews_at", ValueType::Instant, None, None),
        attribute("birth_date", ValueType::Date, None, None),
    ];
    dictionary.features = FEATURES
        .map(|(name, function, days)| FeatureType {
            name: name.into(),
            kind: FeatureKind::Aggregate(Aggregate {
                function,
                event: "visit".into(),
                property: None,
                value_type: ValueType::Int,
                filter: None,
                window_ms: days.map(|days| days * DAY_MS),
                bucket_ms: None,
                keep: 500,
            }),
            doc: None,
            declared_at: Place::default(),
        })
        .into();
    let range = |from: i64, to: i64| {
        let date = |days| calendar_around.saturating_add(jiff::Span::new().days(days));
        (date(from), date(to))
    };
    let calendar = |zone: &str, ranges: Vec<(Date, Date)>| Calendar { zone: Zone::named(zone).expect("a zone"), ranges };
    let policy = Policy {
        zone: ZonePolicy { user_attribute: None, by_country: true, last: Zone::UTC },
        lateness_start_ms: 3 * DAY_MS,
        lateness_correct_ms: 7 * DAY_MS,
        week_start: Weekday::Monday,
        consent: [(Category::Marketing, ConsentBasis::Recorded { basis: "opt_in".into(), countries: BTreeMap::new() })].into(),
        default_category: Category::Marketing,
        max_late: BTreeMap::new(),
        holdout: None,
        default_priority: 50,
        one_marketing_send_ms: None,
        caps: vec![],
        quiet_hours: vec![],
        duplicates: None,
        on_block: OnBlock::default(),
        inhibit: vec![],
        sources: None,
        calendars: [
            (Name::from("here"), calendar("America/Santiago", vec![range(-40, -3), range(0, 0), range(1, 1), range(3, 5)])),
            (Name::from("there"), calendar("Pacific/Apia", vec![range(-1, 0), range(2, 2)])),
        ]
        .into(),
        channels: BTreeMap::new(),
        notify: BTreeMap::new(),
    };
    let benefit = || Benefit { is_flag: true, default: 0, hidden: false };
    let program = Program {
        currency: currency(),
        jurisdiction: Jurisdiction { packs: BTreeMap::new(), otherwise: Pack::BonusOnly },
        classes: ["earned", "bonus"].map(|class| (Name::from(class), PointClass { expiry: Expiry::Never })).into(),
        earn: vec![],
        penalty: Penalty { classes: vec!["bonus".into()], keep: 0, cap: None, grace: Span::days(7) },
        tiers: Some(Tiers {
            metric: "spend_180d".into(),
            review: ReviewRhythm::Quarter,
            levels: LEVELS.map(|(id, from)| TierLevel { id: id.into(), from, benefits: vec![Name::from(format!("{id}-desk"))] }).into(),
            downgrade: Downgrade { one_step: true, grace: Span::days(30), notice: Span::days(30) },
        }),
        benefits: [(Name::from("gold-desk"), benefit()), (Name::from("early-access"), benefit())].into(),
        coupons: BTreeMap::new(),
        bundles: BTreeMap::new(),
    };
    let mut shop = Shop { dictionary, policy, program };
    let regular = parse::condition("orders_90d >= 2 && days_silent < 20", &Scope::of(shop.names())).expect("a segment");
    shop.dictionary.segments.push(Segment { name: "老客户".into(), condition: regular, declared_at: Place::default() });
    shop
}

/// An instant to ask about, the zone of the person, and whether that zone's clock changes within three days.
pub fn moment(rng: &mut Rng) -> (Timestamp, Zone, bool) {
    let zone = Zone::named(rng.pick::<&str>(&ZONES)).expect("a zone of the tz database");
    let somewhere = Timestamp::parse("1988-01-01T00:00:00Z").expect("an instant").plus_ms(rng.range(0, 39 * 365 * 24 * 60) * MINUTE_MS);
    let change = zone.next_transition(somewhere);
    if rng.chance(50) || change.is_forever() {
        return (somewhere, zone, false);
    }
    let away = if rng.chance(50) { rng.range(-240, 60) * MINUTE_MS } else { rng.range(-3 * 96, 96) * 15 * MINUTE_MS };
    (change.plus_ms(away), zone, true)
}

pub fn person(rng: &mut Rng, now: Timestamp, zone: &Zone) -> Profile {
    let mut profile = Profile::new("u1");
    let said = |value: Value, at: Timestamp| Some(Attribute { value, at });
    profile.zone = said(Value::text(zone.name()), now);
    profile.first_seen_at = Some(ago(rng, now, &[3, 30, 400]));
    let country = *rng.pick(&["DE", "US", "BR"]);
    profile.country = if rng.chance(80) { said(Value::text(country), now) } else { None };
    for _ in 0..rng.range(0, 6) {
        profile.activity.recent.push(ago(rng, now, &[1, 7, 14, 28, 30]));
    }
    profile.activity.recent.sort();
    profile.activity.last_active_at = profile.activity.recent.last().copied();
    for _ in 0..rng.range(0, 2) {
        profile.activity.spells.push(ago(rng, now, &[100, 365]));
    }
    profile.activity.spells.sort();
    profile.orders = series(rng, now, &[1, 30, 90, 180, 365], 6, 1, 60_000);
    profile.refunds = series(rng, now, &[1, 30, 90, 180, 365], 3, 1, 30_000);
    for (name, _, days) in FEATURES {
        if rng.chance(80) {
            profile.features.insert(name.into(), series(rng, now, &[1, days.unwrap_or(7)], 5, 1, 4));
        }
    }
    attributes(rng, &mut profile, now);
    belongings(rng, &mut profile, now);
    profile
}

/// A past instant whose window of one of those days ends within the next three days; sometimes to the minute, sometimes the present.
fn ago(rng: &mut Rng, now: Timestamp, days: &[i64]) -> Timestamp {
    let window = *rng.pick(days) * DAY_MS;
    let offset = match rng.range(0, 9) {
        0 => 0,
        1 => DAY_MS + rng.range(0, 30) * DAY_MS,
        2..=5 => rng.range(0, 3 * 96) * 15 * MINUTE_MS,
        _ => rng.range(0, 3 * 24 * 60) * MINUTE_MS,
    };
    now.plus_ms(-window + offset).min(now)
}

fn soon(rng: &mut Rng, now: Timestamp) -> Timestamp {
    now.plus_ms(rng.range(-2 * 24 * 60, 5 * 24 * 60) * MINUTE_MS)
}

fn series(rng: &mut Rng, now: Timestamp, days: &[i64], most: i64, from: i64, to: i64) -> Series {
    let mut series = Series::default();
    for _ in 0..rng.range(0, most) {
        let at = ago(rng, now, days);
        series.insert(Point { at, value: rng.range(from, to) });
        if rng.chance(15) {
            // two facts of one instant
            series.insert(Point { at, value: rng.range(from, to) });
        }
    }
    series
}

fn attributes(rng: &mut Rng, profile: &mut Profile, now: Timestamp) {
    let values = [
        ("vip", Value::Bool(rng.chance(50)), 30),
        ("score", Value::Int(rng.range(-5, 5)), 14),
        ("risk", Value::Float(rng.range(0, 8) as f64 / 8.0), 7),
        ("plan", Value::text(rng.pick::<&str>(&["free", "pro"])), 30),
        ("renews_at", Value::Instant(soon(rng, now)), 30),
        ("birth_date", Value::Date(now.local(&Zone::UTC).date().saturating_add(jiff::Span::new().days(rng.range(-3, 3)))), 30),
    ];
    for (name, value, days) in values {
        if rng.chance(70) {
            let at = ago(rng, now, &[days]);
            profile.attributes.insert(name.into(), Attribute { value, at });
        }
    }
}

fn belongings(rng: &mut Rng, profile: &mut Profile, now: Timestamp) {
    for id in 0..rng.range(0, 4) {
        let activates_at = soon(rng, now);
        let expires_at = if rng.chance(20) { Timestamp::FOREVER } else { activates_at.plus_ms(rng.range(1, 96 * 60) * MINUTE_MS) };
        profile.wallet.lots.push(Lot {
            id: id as u32,
            class: Name::from(*rng.pick(&["earned", "bonus"])),
            granted: 100,
            left: rng.range(0, 5),
            granted_at: activates_at,
            activates_at,
            expires_at,
            expiry_fixed: false,
            source: "test".into(),
        });
    }
    profile.tier.base = if rng.chance(80) { Some(Name::from(rng.pick(&LEVELS).0)) } else { None };
    profile.tier.since = Some(ago(rng, now, &[30]));
    profile.tier.review_at = if rng.chance(50) { Some(soon(rng, now)) } else { None };
    if rng.chance(50) {
        let from = soon(rng, now);
        let until = from.plus_ms(rng.range(1, 72) * HOUR_MS);
        profile.tier.overlay = Some(Overlay { tier: Name::from(rng.pick(&LEVELS).0), from, until, source: "test".into() });
    }
    if rng.chance(50) {
        let from = soon(rng, now);
        let until = from.plus_ms(rng.range(1, 72) * HOUR_MS);
        profile.entitlements.push(Entitlement { key: "early-access".into(), value: rng.range(0, 1), from, until, source: "test".into() });
    }
    for _ in 0..rng.range(0, 2) {
        profile.coupons.push(Coupon {
            offer: "five".into(),
            code: "X".into(),
            issued_at: if rng.chance(80) { Some(now) } else { None },
            valid: Span::days(3),
            until: soon(rng, now),
            redeemed_at: if rng.chance(20) { Some(now) } else { None },
            message: None,
            source: "test".into(),
        });
    }
    for id in 0..rng.range(0, 4) {
        profile.slots.push(Slot {
            message: MessageId(id as u128),
            rule: "r".into(),
            category: Category::Marketing,
            channel: *rng.pick(&[Channel::Sms, Channel::Email]),
            sent_at: if rng.chance(80) { Some(ago(rng, now, &[7])) } else { None },
            text: None,
        });
    }
    if rng.chance(50) {
        let granted = rng.chance(70);
        let record = Consent {
            granted,
            at: now,
            basis: Name::from(*rng.pick(&["opt_in", "soft_opt_in"])),
            expires_at: rng.chance(50).then(|| soon(rng, now)),
        };
        profile.consents.insert(("marketing".into(), Channel::Sms), record);
    }
    for channel in [Channel::Sms, Channel::Email] {
        if rng.chance(60) {
            profile.addresses.insert(channel, Attribute { value: Value::text("somewhere"), at: now });
        }
        if rng.chance(15) {
            profile.suppressed.insert(
                channel,
                Suppressed { reason: "manual".into(), at: now, address: "somewhere".into(), until: rng.chance(50).then(|| soon(rng, now)) },
            );
        }
    }
}

/// Money as operators write it.
pub fn money_text(minor: i64) -> String {
    Money::new(minor, currency()).to_string()
}
