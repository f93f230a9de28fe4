//! A small shop for the unit tests: its dictionary, policy and program, and its facts.

use std::collections::BTreeMap;

use jiff::civil::Weekday;
use serde_json::{Value as Json, json};

use super::event::{Event, EventKind};
use super::money::Money;
use super::profile::{Category, Name, Profile};
use super::rule::expr::{Names, ValueType};
use super::rule::{
    Aggregate, AggregateFunction, AttributeType, Benefit, Bundle, CouponSource, CouponType, CouponValue, Dictionary, Downgrade, Earn,
    EarnAmount, EventType, Expiry, FeatureKind, FeatureType, Jurisdiction, OnBlock, Pack, Penalty, Place, PointClass, Policy, Program,
    ReviewRhythm, TierLevel, Tiers, Update, ZonePolicy,
};
use super::time::{DAY_MS, HOUR_MS, Span, Timestamp, Zone};

pub(super) struct Shop {
    pub dictionary: Dictionary,
    pub policy: Policy,
    pub program: Program,
}

impl Shop {
    pub fn names(&self) -> Names<'_> {
        Names { dictionary: &self.dictionary, policy: &self.policy, program: Some(&self.program) }
    }
}

pub(super) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a test instant")
}

/// So many exact days (and hours) after the beginning of 2026.
pub(super) fn day(days: i64) -> Timestamp {
    at("2026-01-01T00:00:00Z").plus_ms(days * DAY_MS)
}

pub(super) fn event(name: &str, at: Timestamp, properties: Json) -> Event {
    let Json::Object(properties) = properties else { panic!("an object") };
    let kind = match name {
        "identify" => EventKind::Identify,
        "consent" => EventKind::Consent,
        "unsubscribed" | "complained" => EventKind::Engine,
        _ => EventKind::Track,
    };
    let id = format!("{name}:{at}:{}", Json::Object(properties.clone()));
    Event { id: id.into(), kind, name: name.into(), occurred_at: at, received_at: at, source: "shop".into(), properties }
}

pub(super) fn order(id: &str, total: f64, at: Timestamp) -> Event {
    event("Order Completed", at, json!({ "order_id": id, "total": total }))
}

pub(super) fn refund(id: &str, total: f64, at: Timestamp) -> Event {
    event("Order Refunded", at, json!({ "order_id": id, "total": total }))
}

pub(super) fn profile() -> Profile {
    Profile::new("u1")
}

pub(super) fn shop() -> Shop {
    Shop { dictionary: dictionary(), policy: policy(), program: program() }
}

fn dictionary() -> Dictionary {
    let mut dictionary = Dictionary { currency: Some("USD".parse().expect("a currency")), ..Dictionary::default() };
    for (name, wire_name, active) in [
        ("order_completed", "Order Completed", true),
        ("order_refunded", "Order Refunded", false),
        ("session_started", "Session Started", true),
        ("review_submitted", "Product Reviewed", true),
    ] {
        let (name, wire_name) = (Name::from(name), Name::from(wire_name));
        dictionary.wire_names.insert(wire_name.clone(), name.clone());
        let kind = EventType { name: name.clone(), wire_name, active, properties: BTreeMap::new(), declared_at: Place::default() };
        dictionary.events.insert(name, kind);
    }
    for (name, value_type, update, source) in [
        ("score", ValueType::Float, Update::Last, Some("ml")),
        ("first_shop", ValueType::Text, Update::First, None),
        ("best", ValueType::Int, Update::Max, None),
        ("least", ValueType::Int, Update::Min, None),
        ("birth_date", ValueType::Date, Update::Last, None),
    ] {
        dictionary.attributes.push(AttributeType {
            name: name.into(),
            value_type,
            optional: true,
            default: None,
            update,
            pii: false,
            source: source.map(Name::from),
            max_age_ms: None,
            consent: None,
            declared_at: Place::default(),
        });
    }
    use AggregateFunction::{Count, Distinct, Last, Max, Min, Sum};
    for (name, function, property, value_type, window_days, bucket_ms) in [
        ("sessions_7d", Count, None, ValueType::Int, Some(7), None),
        ("sessions_ever", Count, None, ValueType::Int, None, None),
        ("minutes_30d", Sum, Some("minutes"), ValueType::Int, Some(30), Some(DAY_MS)),
        ("minutes_ever", Sum, Some("minutes"), ValueType::Int, None, Some(HOUR_MS)),
        ("longest_ever", Max, Some("minutes"), ValueType::Int, None, None),
        ("shortest_30d", Min, Some("minutes"), ValueType::Int, Some(30), Some(DAY_MS)),
        ("last_minutes", Last, Some("minutes"), ValueType::Int, Some(30), None),
        ("pages_30d", Distinct, Some("page"), ValueType::Text, Some(30), Some(DAY_MS)),
    ] {
        dictionary.features.push(FeatureType {
            name: name.into(),
            kind: FeatureKind::Aggregate(Aggregate {
                function,
                event: "session_started".into(),
                property: property.map(Name::from),
                value_type,
                filter: None,
                window_ms: window_days.map(|days: i64| days * DAY_MS),
                bucket_ms,
                keep: 500,
            }),
            doc: None,
            declared_at: Place::default(),
        });
    }
    dictionary
}

fn policy() -> Policy {
    Policy {
        zone: ZonePolicy { user_attribute: None, by_country: false, last: Zone::UTC },
        lateness_start_ms: 3 * DAY_MS,
        lateness_correct_ms: 7 * DAY_MS,
        week_start: Weekday::Monday,
        consent: BTreeMap::new(),
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
        calendars: BTreeMap::new(),
        channels: BTreeMap::new(),
        notify: BTreeMap::new(),
    }
}

fn money(text: &str) -> Money {
    text.parse().expect("money")
}

fn program() -> Program {
    let class = |name: &str, expiry| (Name::from(name), PointClass { expiry });
    let months = |months| Span { months, ..Span::ZERO };
    let earn = |event: &str, amount, class: &str, pending, limit| Earn { event: event.into(), amount, class: class.into(), pending, limit };
    let rate = |text: &str| EarnAmount::Rate { points: 1, per: money(text) };
    let coupon = |value, source, budget| CouponType { value, source, valid: Span::days(14), budget };
    Program {
        currency: "USD".parse().expect("a currency"),
        jurisdiction: Jurisdiction {
            packs: [("AT", Pack::NoTakes), ("CA-QC", Pack::StrictNotice), ("US", Pack::AsProgrammed)].map(|(k, v)| (k.into(), v)).into(),
            otherwise: Pack::BonusOnly,
        },
        classes: [
            class("earned", Expiry::Rolling { span: months(24), month_end: true }),
            class("bonus", Expiry::Rolling { span: months(12), month_end: false }),
            class("goodwill", Expiry::Inactivity(Span::days(30))),
            class("purchased", Expiry::Never),
        ]
        .into(),
        earn: vec![
            earn("order_completed", rate("1 USD"), "earned", Span::days(14), None),
            earn("review_submitted", EarnAmount::Fixed(20), "bonus", Span::ZERO, Some((2, 30 * DAY_MS))),
            earn("order_completed", EarnAmount::Fixed(10), "bonus", Span::ZERO, None),
        ],
        penalty: Penalty {
            classes: vec!["bonus".into(), "goodwill".into(), "earned".into()],
            keep: 100,
            cap: Some((3_000, 365 * DAY_MS)),
            grace: Span::days(7),
        },
        tiers: Some(Tiers {
            metric: "spend_180d".into(),
            review: ReviewRhythm::Quarter,
            levels: [("basic", 0), ("silver", 25_000), ("gold", 100_000), ("platinum", 500_000)]
                .map(|(id, from)| TierLevel { id: id.into(), from, benefits: vec![Name::from(format!("{id}-desk"))] })
                .into(),
            downgrade: Downgrade { one_step: true, grace: Span::days(30), notice: Span::days(30) },
        }),
        benefits: [("gold-desk", true, 0), ("early-access", true, 0), ("return-window", false, 7)]
            .map(|(name, is_flag, default)| (Name::from(name), Benefit { is_flag, default, hidden: false }))
            .into(),
        coupons: [
            ("back5", coupon(CouponValue::Money(money("5 USD")), CouponSource::Generated, Some(money("12 USD")))),
            ("TEN", coupon(CouponValue::Share(1_000), CouponSource::Shared, None)),
            ("listed", coupon(CouponValue::Share(1_000), CouponSource::Pool, None)),
        ]
        .map(|(name, kind)| (Name::from(name), kind))
        .into(),
        bundles: [
            ("winback", bundle("back5", Some(Span::days(180)))),
            ("broken", Bundle { benefit: Some("early-access".into()), ..bundle("listed", None) }),
        ]
        .map(|(name, bundle)| (Name::from(name), bundle))
        .into(),
    }
}

fn bundle(coupon: &str, once_per: Option<Span>) -> Bundle {
    Bundle { coupon: Some(coupon.into()), benefit: None, overlay: Some((1, Span::days(30))), once_per }
}
