//! People and conditions that the benches share (and `bench-peers` too): plain rows, conditions as text, and the same by hand.

use rekindle::engine::event::Value;
use rekindle::engine::profile::{Attribute, Point, Profile};
use rekindle::engine::rule::check;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::rule::expr::{Condition, Subject};
use rekindle::engine::rule::{RuleSet, TemplateCatalog};
use rekindle::engine::time::{DAY_MS, Timestamp};

pub const NOW_MS: i64 = 1_780_000_000_000;
const DAY: i64 = DAY_MS;

/// What a shop would write. The last ones read windows.
pub const CONDITIONS: [(&str, &str); 6] = [
    ("winback", "days_silent >= 30 && plan != \"gold\" && tickets == 0"),
    ("chain", "(days_since_order ?? 0) >= 30"),
    ("british", "days_silent >= 21 && country == \"GB\" && orders_lifetime >= 2"),
    ("faithful", "!is_new && (plan in [\"silver\", \"gold\"] || orders_365d >= 5) && days_silent < 14"),
    ("buyers", "orders_90d >= 3 || spend_180d >= \"1000 GBP\""),
    ("worth", "spend_365d >= \"250 GBP\" && has(last_order_at) && days_since_order > 21 && days_since_order <= 60"),
];

/// A person as somebody would write it who needs only these conditions.
pub struct Row {
    pub first_seen_at: i64,
    pub last_active_at: i64,
    pub country: [u8; 2],
    /// free, silver, gold
    pub plan: u8,
    pub tickets: i64,
    /// (instant, minor units), sorted.
    pub orders: Vec<(i64, i64)>,
    pub refunds: Vec<(i64, i64)>,
}

pub type ByHand = fn(&Row, i64) -> bool;

/// The same conditions by hand, in the same order.
pub const BY_HAND: [ByHand; 6] = [
    |row, now| (now - row.last_active_at) / DAY >= 30 && row.plan != 2 && row.tickets == 0,
    |row, now| row.orders.last().map_or(0, |(at, _)| (now - at) / DAY) >= 30,
    |row, now| (now - row.last_active_at) / DAY >= 21 && row.country == *b"GB" && row.orders.len() >= 2,
    |row, now| {
        (now - row.first_seen_at) / DAY >= 30
            && (row.plan >= 1 || window(&row.orders, now, 365).len() >= 5)
            && (now - row.last_active_at) / DAY < 14
    },
    |row, now| window(&row.orders, now, 90).len() >= 3 || net(row, now, 180) >= 100_000,
    |row, now| {
        net(row, now, 365) >= 25_000
            && row.orders.last().is_some_and(|(at, _)| {
                let days = (now - at) / DAY;
                days > 21 && days <= 60
            })
    },
];

pub fn window(points: &[(i64, i64)], now: i64, days: i64) -> &[(i64, i64)] {
    let from = points.partition_point(|(at, _)| *at <= now - days * DAY);
    points.get(from..).unwrap_or_default()
}

pub fn net(row: &Row, now: i64, days: i64) -> i64 {
    let sum = |points: &[(i64, i64)]| window(points, now, days).iter().map(|(_, value)| value).sum::<i64>();
    sum(&row.orders) - sum(&row.refunds)
}

/// So many varied people, the same at every run.
pub fn rows(people: usize) -> Vec<Row> {
    let mut state = 7u64;
    let mut random = move |below: i64| {
        // SplitMix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % below as u64) as i64
    };
    (0..people)
        .map(|_| {
            let mut orders: Vec<(i64, i64)> =
                (0..random(9)).map(|_| (NOW_MS - random(500 * 24 * 60) * 60_000, 500 + random(40_000))).collect();
            orders.sort();
            let mut refunds: Vec<(i64, i64)> =
                (0..random(3)).map(|_| (NOW_MS - random(400 * 24 * 60) * 60_000, 300 + random(9_000))).collect();
            refunds.sort();
            let silent = random(60) * random(60) % 90;
            Row {
                first_seen_at: NOW_MS - 5 * DAY - random(700) * DAY,
                last_active_at: NOW_MS - silent * DAY - random(24) * 3_600_000,
                country: *[b"GB", b"GB", b"DE", b"US"][random(4) as usize],
                plan: random(3) as u8,
                tickets: i64::from(random(10) == 0),
                orders,
                refunds,
            }
        })
        .collect()
}

/// The conditions as segments of a rule set, read from text as operators write it.
pub fn rule_set() -> RuleSet {
    let segments: String = CONDITIONS.iter().map(|(name, text)| format!("  {name}: {{ when: '{text}' }}\n")).collect();
    let text = format!(
        "rekindle: 1\nprogram: {{ currency: GBP }}\nattributes:\n  plan: {{ type: enum, values: [free, silver, gold], default: free }}\n  \
         tickets: {{ type: int, default: 0 }}\nsegments:\n{segments}"
    );
    let loaded = check::load(&[SourceFile { path: "bench.yaml".into(), text: text.into() }], &TemplateCatalog::default());
    loaded.set.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics))
}

fn profile(row: &Row) -> Profile {
    let mut profile = Profile::new("u");
    let said = |value: Value| Attribute { value, at: Timestamp::from_ms(NOW_MS - DAY_MS) };
    let instant = |ms: i64| Some(Timestamp::from_ms(ms));
    profile.country = Some(said(Value::text(std::str::from_utf8(&row.country).expect("letters"))));
    profile.attributes.insert("plan".into(), said(Value::text(["free", "silver", "gold"][usize::from(row.plan)])));
    profile.attributes.insert("tickets".into(), said(Value::Int(row.tickets)));
    profile.first_seen_at = instant(row.first_seen_at);
    profile.activity.last_active_at = instant(row.last_active_at);
    for (at, value) in &row.orders {
        profile.orders.insert(Point { at: Timestamp::from_ms(*at), value: *value });
    }
    for (at, value) in &row.refunds {
        profile.refunds.insert(Point { at: Timestamp::from_ms(*at), value: *value });
    }
    profile
}

/// The same people as rows and as profiles.
pub struct Bench {
    pub rows: Vec<Row>,
    profiles: Vec<Profile>,
    set: RuleSet,
}

impl Bench {
    pub fn new(people: usize) -> Self {
        let rows = rows(people);
        let profiles = rows.iter().map(profile).collect();
        Bench { rows, profiles, set: rule_set() }
    }

    fn conditions(&self) -> Vec<&Condition> {
        let segments = &self.set.dictionary.segments;
        CONDITIONS.iter().filter_map(|(name, _)| segments.iter().find(|s| *s.name == **name)).map(|s| &s.condition).collect()
    }

    /// How many are true, and a sum of how long each stands: nothing may be optimised away.
    pub fn verdicts(&self, now: Timestamp) -> (u64, i64) {
        let names = self.set.names();
        let conditions = self.conditions();
        let (mut matches, mut until) = (0, 0i64);
        for profile in &self.profiles {
            let subject = Subject { profile, now, event: None, run: None };
            for condition in &conditions {
                let verdict = condition.verdict(names, subject).expect("a verdict");
                matches += u64::from(verdict.truth);
                until ^= verdict.until.as_ms();
            }
        }
        (matches, until)
    }

    pub fn by_hand(&self, now_ms: i64) -> u64 {
        let asked = self.rows.iter().flat_map(|row| BY_HAND.iter().map(move |ask| ask(row, now_ms)));
        asked.map(u64::from).sum()
    }

    pub fn answers(&self) -> usize {
        self.rows.len() * CONDITIONS.len()
    }
}
