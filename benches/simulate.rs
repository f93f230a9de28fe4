//! What a replay costs: a million events of 50,000 people over a year under twenty rules, on one thread, beside the bare replay of the same
//! events by hand (a row for each person, a heap of due times, no rules), in the same run.
//!
//! `cargo bench --bench simulate` prints both and their ratio. `REKINDLE_BENCH_EVENTS=100000` makes it smaller.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::profile::Name;
use rekindle::engine::rule::check;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::rule::{RuleSet, TemplateCatalog, TemplateInfo};
use rekindle::engine::time::{DAY_MS, Timestamp};
use rekindle::simulate::Timeline;
use rekindle::simulate::figures::Figures;
use rekindle::simulate::report::Report;
use serde_json::{Map, json};

const START_MS: i64 = 1_700_000_000_000;
const YEAR_MS: i64 = 365 * DAY_MS;

fn main() {
    let is_trial = std::env::args().any(|arg| arg == "--test" || arg == "--list");
    let asked = std::env::var("REKINDLE_BENCH_EVENTS").ok().and_then(|text| text.parse().ok());
    let count: usize = asked.unwrap_or(if is_trial { 2_000 } else { 1_000_000 });
    let (events, rules) = (events(count, count / 20), Arc::new(rules()));

    let watch = Instant::now();
    let firings = black_box(by_hand(&events));
    let bare = watch.elapsed().as_secs_f64();

    let watch = Instant::now();
    let mut timeline = Timeline::new(Arc::clone(&rules), Timestamp::from_ms(START_MS), Timestamp::from_ms(START_MS));
    timeline = timeline.without_history().with_journal();
    for (user, event) in events {
        timeline.event(&user, event);
    }
    let until = Timestamp::from_ms(START_MS + YEAR_MS);
    timeline.advance_to(until);
    let report = Report::of(&timeline);
    let journal = timeline.into_journal();
    let replayed = watch.elapsed().as_secs_f64();
    let watch = Instant::now();
    let figures = Figures::of(&journal, &rules, Timestamp::from_ms(START_MS - 1), until);
    let read = watch.elapsed().as_secs_f64();

    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let entered: u64 = report.rules.values().map(|rule| rule.entered).sum();
    assert!(entered > 0 && firings > 0 && figures.sends() > 0, "something happens");
    println!(
        "{count} events, {} people, {} rules, {} evaluations, {entered} entries, {} sends",
        report.profiles,
        rules.rules.len(),
        report.evaluations,
        figures.sends()
    );
    println!(
        "replay {replayed:.2} s ({:.1} microseconds an evaluation), its figures {read:.2} s",
        replayed * 1e6 / report.evaluations as f64
    );
    println!("by hand, without rules {bare:.3} s ({firings} firings): {:.1}x", replayed / bare);
}

/// Events of so many people, some of whom do far more than others; the same at every run, in order of time.
fn events(count: usize, people: usize) -> Vec<(Name, Event)> {
    let mut state = 7u64;
    let mut random = move |below: u64| {
        // SplitMix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % below
    };
    let users: Vec<Name> = (0..people.max(1)).map(|user| Name::from(format!("u{user}"))).collect();
    let mut events: Vec<(Name, Event)> = (0..count)
        .map(|number| {
            let user = random(users.len() as u64).min(random(users.len() as u64)) as usize;
            let at = Timestamp::from_ms(START_MS + random(YEAR_MS as u64) as i64);
            let is_order = random(10) == 0;
            let properties = if is_order { json!({ "order_id": number.to_string(), "total": 5 + random(200) }) } else { json!({}) };
            let event = Event {
                id: Arc::from(number.to_string()),
                kind: EventKind::Track,
                name: Arc::from(if is_order { "Order Completed" } else { "Session Started" }),
                occurred_at: at,
                received_at: at,
                source: Arc::from("bench"),
                properties: properties.as_object().cloned().unwrap_or_else(Map::new),
            };
            (Name::clone(&users[user]), event)
        })
        .collect();
    events.sort_by(|a, b| a.1.order_key().cmp(&b.1.order_key()));
    events
}

/// Twenty rules as a shop has them: ladders of silence, what follows an order, who is worth something.
fn rules() -> RuleSet {
    let send = "send: { template: t, channels: [email], category: service }";
    let mut text = String::from(
        "rekindle: 1\nevents:\n  order_completed: { name: Order Completed, active: true, properties: { order_id: { type: string, required: true }, total: { type: money, required: true } } }\n  \
         session_started: { name: Session Started, active: true }\nprogram: { currency: GBP }\npolicy:\n  time: { zone: { last: Europe/London } }\n  consent: { marketing: always, service: always }\n  \
         sources: { quiet: { below: 20%, of: same_weekday_hours_last_4_weeks, for: 6h, min_baseline: 20, holds: [] } }\n  channels: { email: { provider: recording } }\n  \
         caps: [{ id: week, per: user, max: 5, window: 7d }]\nrules:\n",
    );
    let mut rule = |id: String, trigger: String| {
        text += &format!("  - {{ id: {id}, owner: bench, {trigger}, max_entries: 100%, steps: [{{ id: tell, {send} }}] }}\n");
    };
    for days in [7, 10, 14, 21, 30, 45, 60, 75, 90, 120] {
        rule(format!("silent-{days}"), format!("when: \"days_silent >= {days} && orders_lifetime >= 1\", existing: skip"));
    }
    for (place, condition) in [
        "orders_90d >= 3",
        "spend_180d >= '500 GBP'",
        "orders_365d >= 5 && days_since_order > 60",
        "spend_365d >= '2000 GBP'",
        "(days_since_order ?? 0) >= 100",
    ]
    .into_iter()
    .enumerate()
    {
        let condition = condition.replace('\'', "\\\"").replace("days_since_order >", "(days_since_order ?? 0) >");
        rule(format!("worth-{place}"), format!("when: \"{condition}\", existing: skip"));
    }
    for least in [50, 100, 150, 180, 200] {
        rule(format!("order-{least}"), format!("event: order_completed, where: \"event.total >= \\\"{least} GBP\\\"\""));
    }
    let template = TemplateInfo {
        purpose: Name::from("account"),
        locales: vec![Name::from("en")],
        channels_per_locale: [(Name::from("en"), vec![rekindle::engine::action::Channel::Email])].into(),
        ..TemplateInfo::default()
    };
    let catalog: TemplateCatalog = [(Name::from("t"), template)].into();
    let loaded = check::load(&[SourceFile { path: "bench.yaml".into(), text: text.into() }], &catalog);
    loaded.set.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics))
}

/// A row for each person, a heap of due times: a warning after 30 silent days and five more, ten days apart.
fn by_hand(events: &[(Name, Event)]) -> u64 {
    #[derive(Default, Clone)]
    struct Row {
        last: i64,
        stage: u8,
        is_armed: bool,
    }
    let place = |user: &str| user.get(1..).and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
    let most = events.iter().map(|(user, _)| place(user)).max().unwrap_or(0);
    let mut rows = vec![Row::default(); most + 1];
    let mut heap: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    let mut firings = 0;
    let due = |row: &Row| row.last + (30 + 10 * i64::from(row.stage)) * DAY_MS;
    let mut fire = |heap: &mut BinaryHeap<Reverse<(i64, usize)>>, rows: &mut Vec<Row>, until: i64| {
        while let Some(Reverse((at, user))) = heap.peek().copied().filter(|Reverse((at, _))| *at <= until) {
            heap.pop();
            let row = &mut rows[user];
            if due(row) > at {
                heap.push(Reverse((due(row), user)));
            } else {
                firings += 1;
                row.stage += 1;
                row.is_armed = row.stage < 6;
                if row.is_armed {
                    heap.push(Reverse((due(row), user)));
                }
            }
        }
    };
    for (user, event) in events {
        let at = event.received_at.as_ms();
        fire(&mut heap, &mut rows, at);
        let user = place(user);
        let row = &mut rows[user];
        row.last = at;
        row.stage = 0;
        if !row.is_armed {
            row.is_armed = true;
            heap.push(Reverse((due(row), user)));
        }
    }
    fire(&mut heap, &mut rows, START_MS + YEAR_MS);
    firings
}
