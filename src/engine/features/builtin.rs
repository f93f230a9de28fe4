//! The closed list of names that exist without being declared: a table. A name that the language knows and this version cannot answer
//! yet stands here too, so that a rule that uses it is told so.

use super::source::{Moment, Source};
use crate::engine::rule::expr::ValueType;
use crate::engine::time::{DAY_MS, HOUR_MS};

/// A name of the language.
#[derive(Debug)]
pub struct BuiltIn {
    pub name: &'static str,
    pub kind: Kind,
    /// Can be missing: must be guarded or given a default.
    pub optional: bool,
    pub doc: &'static str,
    pub read: Read,
}

/// The type of a built-in name, with the unit that a duration is compared in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    /// A whole number of days.
    Days,
    /// A whole number of hours.
    Hours,
    Float,
    Money,
    Text,
    /// One of the program's levels.
    Tier,
    /// `mon` .. `sun`.
    Weekday,
    Instant,
    Duration,
    Date,
    /// Money or a count, as the program's metric.
    Metric,
}

/// Where a built-in name is read from.
#[derive(Debug)]
pub enum Read {
    Number(Source),
    Country,
    Locale,
    Zone,
    Jurisdiction,
    Tier,
    BaseTier,
    Weekday,
    /// Younger than 30 days.
    IsNew,
    /// Missing to the next level, or to the present one (`true`).
    TierGap(bool),
    /// Known, and not yet available.
    Later,
}

/// A function of the language.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    /// What it is called with, for messages.
    pub form: &'static str,
    pub doc: &'static str,
    pub available: bool,
}

const fn name(name: &'static str, kind: Kind, read: Read, doc: &'static str) -> BuiltIn {
    BuiltIn { name, kind, optional: false, doc, read }
}

const fn optional(name: &'static str, kind: Kind, read: Read, doc: &'static str) -> BuiltIn {
    BuiltIn { name, kind, optional: true, doc, read }
}

const fn days(days: i64) -> i64 {
    days * DAY_MS
}

/// Every built-in name, by subject.
pub static BUILT_INS: [BuiltIn; 67] = [
    // the person
    name("country", Kind::Text, Read::Country, "country by ISO 3166, `ZZ` if unknown"),
    name("locale", Kind::Text, Read::Locale, "language tag, empty if unknown"),
    name("zone", Kind::Text, Read::Zone, "time zone in which things happen to the person"),
    name("jurisdiction", Kind::Text, Read::Jurisdiction, "country, or country and region where one is known"),
    name("first_seen_at", Kind::Instant, Read::Number(Source::Moment(Moment::FirstSeen)), "the earliest event's own time"),
    name("tenure_days", Kind::Days, Read::Number(Source::Age(Moment::FirstSeen, DAY_MS)), "whole 24-hour days since first seen"),
    name("is_new", Kind::Bool, Read::IsNew, "first seen less than 30 days ago"),
    name("reachable", Kind::Bool, Read::Number(Source::Reachable(None)), "marketing may use at least one channel"),
    name("in_holdout", Kind::Bool, Read::Number(Source::InHoldout), "is never treated, by `policy.holdout`"),
    name("local_hour", Kind::Int, Read::Number(Source::LocalHour), "hour of the day in the person's zone, 0-23"),
    name("local_weekday", Kind::Weekday, Read::Weekday, "weekday in the person's zone, mon .. sun"),
    name("local_date", Kind::Date, Read::Number(Source::LocalDate), "date in the person's zone"),
    // activity
    optional("last_active_at", Kind::Instant, Read::Number(Source::Moment(Moment::LastActive)), "latest active event"),
    name(
        "days_silent",
        Kind::Days,
        Read::Number(Source::Age(Moment::SilentSince, DAY_MS)),
        "whole 24-hour days since the last visit, else since first seen",
    ),
    name(
        "silent_for",
        Kind::Duration,
        Read::Number(Source::Age(Moment::SilentSince, 1)),
        "time since the last visit, else since first seen",
    ),
    name("silent_spells_365d", Kind::Int, Read::Number(Source::SilentSpells(days(365))), "silences of 30 days reached in 365 days"),
    optional("reactivated_at", Kind::Instant, Read::Number(Source::Moment(Moment::Reactivated)), "first visit after 30 silent days"),
    name("active_days_7d", Kind::Int, Read::Number(Source::ActiveDays(days(7))), "local days with a visit in 7 days"),
    name("active_days_28d", Kind::Int, Read::Number(Source::ActiveDays(days(28))), "local days with a visit in 28 days"),
    name("sessions_14d", Kind::Int, Read::Number(Source::Sessions(days(14))), "visits in 14 days, half an hour apart"),
    // orders
    optional("first_order_at", Kind::Instant, Read::Number(Source::Moment(Moment::FirstOrder)), "first order"),
    optional("last_order_at", Kind::Instant, Read::Number(Source::Moment(Moment::LastOrder)), "latest order"),
    optional(
        "days_since_order",
        Kind::Days,
        Read::Number(Source::Age(Moment::LastOrder, DAY_MS)),
        "whole 24-hour days since the latest order",
    ),
    name("orders_30d", Kind::Int, Read::Number(Source::Orders(Some(days(30)))), "orders in 30 days"),
    name("orders_90d", Kind::Int, Read::Number(Source::Orders(Some(days(90)))), "orders in 90 days"),
    name("orders_365d", Kind::Int, Read::Number(Source::Orders(Some(days(365)))), "orders in 365 days"),
    name("orders_lifetime", Kind::Int, Read::Number(Source::Orders(None)), "orders ever"),
    name("spend_30d", Kind::Money, Read::Number(Source::Spend(Some(days(30)))), "orders less refunds in 30 days"),
    name("spend_90d", Kind::Money, Read::Number(Source::Spend(Some(days(90)))), "orders less refunds in 90 days"),
    name("spend_180d", Kind::Money, Read::Number(Source::Spend(Some(days(180)))), "orders less refunds in 180 days"),
    name("spend_365d", Kind::Money, Read::Number(Source::Spend(Some(days(365)))), "orders less refunds in 365 days"),
    name("spend_lifetime", Kind::Money, Read::Number(Source::Spend(None)), "orders less refunds ever"),
    optional("aov_365d", Kind::Money, Read::Number(Source::AverageOrder(days(365))), "spend a order in 365 days"),
    optional("gap_days", Kind::Float, Read::Later, "the person's own rhythm of orders"),
    optional("next_order_expected_at", Kind::Instant, Read::Later, "latest order and the person's own rhythm"),
    name("return_rate_180d", Kind::Float, Read::Later, "share of items that came back in 180 days"),
    name("high_value", Kind::Bool, Read::Later, "spends more than the program's threshold"),
    // trouble
    name("tickets_open", Kind::Int, Read::Number(Source::TicketsOpen), "open support cases"),
    name("dispute_open", Kind::Bool, Read::Number(Source::DisputeOpen), "a payment is disputed"),
    name("payment_failures_30d", Kind::Int, Read::Later, "failed payments in 30 days"),
    name("late_deliveries_180d", Kind::Int, Read::Later, "deliveries after the promised day in 180 days"),
    name("complaint_ever", Kind::Bool, Read::Later, "has complained of a message"),
    name("carts_abandoned_30d", Kind::Int, Read::Later, "carts left for 24 hours in 30 days"),
    // social
    name("shares_90d", Kind::Int, Read::Later, "shares in 90 days"),
    name("comments_90d", Kind::Int, Read::Later, "comments in 90 days"),
    name("reviews_90d", Kind::Int, Read::Later, "reviews in 90 days"),
    name("referrals_365d", Kind::Int, Read::Later, "friends who came and ordered in 365 days"),
    name("social_points_90d", Kind::Int, Read::Later, "weighted social acts in 90 days"),
    // points
    name("points", Kind::Int, Read::Number(Source::Points(None)), "points spendable now"),
    name("points_pending", Kind::Int, Read::Number(Source::PointsPending), "points granted and not spendable yet"),
    optional("next_expiry_at", Kind::Instant, Read::Number(Source::Moment(Moment::NextExpiry)), "earliest expiry among spendable points"),
    // tiers and benefits
    name("tier", Kind::Tier, Read::Tier, "tier that applies, a temporary upgrade included"),
    name("base_tier", Kind::Tier, Read::BaseTier, "tier earned"),
    optional("tier_since", Kind::Instant, Read::Number(Source::Moment(Moment::TierSince)), "since when the base tier is held"),
    optional(
        "tier_until",
        Kind::Instant,
        Read::Number(Source::Moment(Moment::TierUntil)),
        "end of a temporary upgrade, or of the grace after a review",
    ),
    optional("tier_review_at", Kind::Instant, Read::Number(Source::Moment(Moment::TierReview)), "next review of the base tier"),
    name("tier_gap", Kind::Metric, Read::TierGap(false), "missing to the next tier, 0 at the top"),
    name("tier_keep_gap", Kind::Metric, Read::TierGap(true), "missing to keep the base tier"),
    name("coupons_open", Kind::Int, Read::Number(Source::CouponsOpen), "coupons issued, not used, not expired"),
    // messages
    optional("best_hour", Kind::Int, Read::Later, "hour at which the person usually reads"),
    // models
    name("rfm3d8", Kind::Text, Read::Later, "class by recency, value and social acts"),
    name("rfm_band", Kind::Text, Read::Later, "band of the RFM score"),
    name("lifecycle_stage", Kind::Text, Read::Later, "stage by the person's own rhythm"),
    optional("p_alive", Kind::Float, Read::Later, "probability that the person is still a customer"),
    optional("risk_score", Kind::Float, Read::Later, "churn risk"),
    optional("risk_band", Kind::Text, Read::Later, "band of the churn risk"),
    optional("ltv_simple", Kind::Money, Read::Later, "expected worth"),
];

const fn function(name: &'static str, form: &'static str, doc: &'static str) -> Function {
    Function { name, form, doc, available: true }
}

const fn later(name: &'static str, form: &'static str, doc: &'static str) -> Function {
    Function { name, form, doc, available: false }
}

/// Every function.
pub static FUNCTIONS: [Function; 24] = [
    function("has", "has(x)", "x is known"),
    function("days_since", "days_since(last_order_at)", "whole 24-hour days since an instant"),
    function("hours_since", "hours_since(last_order_at)", "whole hours since an instant"),
    function("local_days_since", "local_days_since(last_order_at)", "calendar days in the person's zone since an instant"),
    function("in_calendar", "in_calendar(\"diwali-in\")", "today is in a calendar of the policy"),
    function("consent", "consent(\"marketing\", \"email\")", "consent is on record and not withdrawn"),
    function("reachable", "reachable(\"email\")", "the channel has an address that is not suppressed"),
    function("running", "running(\"win-back\")", "a run of that rule is under way"),
    function("done", "done(\"warn\")", "that step of this run has acted"),
    function("points_of", "points_of(\"bonus\")", "spendable points of a class"),
    function("points_expiring", "points_expiring(\"14d\")", "spendable points that expire within that time"),
    function("entitled", "entitled(\"free-shipping\")", "has that benefit now"),
    function("lower", "lower(x)", "in small letters"),
    function("len", "len(x)", "number of characters, or of items"),
    function("min", "min(x, y)", "the smaller"),
    function("max", "max(x, y)", "the larger"),
    function("round", "round(x)", "to the nearest whole number, halves away from zero"),
    function("sends_7d", "sends_7d(\"email\")", "messages sent on a channel in 7 days"),
    function("last_sent_at", "last_sent_at(\"email\")", "latest message sent on a channel"),
    later("engaged_30d", "engaged_30d(\"email\")", "clicked or came by a message in 30 days"),
    later("ignored_streak", "ignored_streak(\"email\")", "messages since the last engagement"),
    later("budget_left", "budget_left(\"email\")", "how much attention is left"),
    later("penalty_state", "penalty_state(\"silence\")", "where a penalty rule stands"),
    later("penalty_due_at", "penalty_due_at(\"silence\")", "when a penalty is due"),
];

/// The unit a duration is compared in, if the kind has one.
impl Kind {
    pub fn unit_ms(self) -> Option<i64> {
        match self {
            Kind::Days => Some(DAY_MS),
            Kind::Hours => Some(HOUR_MS),
            _ => None,
        }
    }
}

pub fn built_in(name: &str) -> Option<&'static BuiltIn> {
    BUILT_INS.iter().find(|built_in| built_in.name == name)
}

/// Built-in names and functions: none of them can be declared again.
pub fn is_built_in(name: &str) -> bool {
    built_in(name).is_some() || FUNCTIONS.iter().any(|function| function.name == name)
}

pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_INS.iter().map(|built_in| built_in.name)
}

/// The type of a built-in name, as far as it does not depend on the program (tiers are texts here).
pub fn built_in_type(name: &str) -> Option<ValueType> {
    Some(match built_in(name)?.kind {
        Kind::Bool => ValueType::Bool,
        Kind::Int | Kind::Days | Kind::Hours => ValueType::Int,
        Kind::Float => ValueType::Float,
        Kind::Money | Kind::Metric => ValueType::Money,
        Kind::Text | Kind::Tier | Kind::Weekday => ValueType::Text,
        Kind::Instant => ValueType::Instant,
        Kind::Duration => ValueType::Duration,
        Kind::Date => ValueType::Date,
    })
}
