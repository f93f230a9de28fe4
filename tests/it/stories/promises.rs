//! The engine's promises, each with a test that can fail. Those about a penalty are in `penalty`, those of the store beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rekindle::engine::action::{Channel, MessageState, What};
use rekindle::engine::decide::Context;
use rekindle::engine::time::DAY_MS;
use rekindle::simulate::explain::explain;
use rekindle::simulate::{Person, Receipt};
use rekindle::store::encoding::{decode, encode};
use serde_json::json;

use super::stage::{OPEN_POLICY, SHOP, Story, load, rules};

/// Rules of every kind at once: conditions, events, a calendar, a penalty, a ladder, runs that take another's place or stand beside it, and
/// one in shadow.
const EVERYTHING: &str = r#"
rekindle: 1
rules:
  - id: comeback
    owner: growth
    when: days_silent >= 3
    unless: days_silent >= 30
    existing: skip
    reentry: { after: 7d }
    steps:
      - { id: day-3, send: { template: miss-you, channels: [push] } }
      - { id: day-5, after: 2d, send: { template: news, channels: [email] } }
  - id: silence
    owner: growth
    when: days_silent >= 30 && has(last_active_at)
    only_if_at_start: points_of("bonus") > 100
    existing: skip
    reentry: { after: 30d }
    steps:
      - { id: warn-1, send_at: "10:00-12:00", send: { template: warning, channels: [push, email], category: service } }
      - { id: take-1, after: 10d, take: { notice: warn-1, percent: 10%, of: bonus, max: 300, keep: 100, reason: silence-1 } }
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    stop_on: { event: order_completed }
    steps:
      - { id: nudge, after: 4h, send: { template: cart, channels: [push, email] } }
      - { id: again, after: 24h, send: { template: offer, channels: [email] } }
  - id: monday
    owner: growth
    at: { weekly: [mon], time: "02:30", zone: user }
    reentry: { after: 1d }
    max_late: 12h
    steps:
      - { id: mail, send: { template: news, channels: [email] } }
  - id: anew
    owner: growth
    event: cart_updated
    while_running: restart
    reentry: { after: 2d }
    at_most: 2 per 90d
    steps:
      - { id: nudge, after: 3d, send: { template: cart, channels: [push, sms] } }
      - { id: gift, after: 6d, points: { add: 5, class: bonus } }
      - { id: last, after: 30d, send: { template: offer, channels: [email] } }
  - id: beside
    owner: growth
    event: cart_updated
    while_running: parallel
    reentry: { after: 1h }
    steps:
      - { id: tell, after: 25d, send: { template: winback, channels: [sms] } }
  - id: rungs
    owner: growth
    event: session_started
    reentry: { after: 1d }
    steps:
      - id: tell
        after: 1d
        send: { template: news, ladder: [{ channel: push }, { channel: sms, after: 4d, unless: opened }, { channel: email, after: 9d, unless: accepted }] }
  - id: silence-in-shadow
    owner: growth
    mode: shadow
    when: days_silent >= 30 && has(last_active_at)
    existing: skip
    reentry: { after: 30d }
    steps:
      - { id: warn, send: { template: warning, channels: [push, email], category: service } }
      - { id: take, after: 10d, require: { step: warn, outcome: delivered }, take: { notice: warn, percent: 10%, of: bonus, max: 300, reason: silence-2 } }
"#;

const STRICT: &str = r#"
rekindle: 1
policy:
  time: { zone: { last: Europe/Berlin } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing, marketing: { max_late: 36h } }
  priority: { one_marketing_send_per: 4h }
  caps:
    - { id: day, per: user, max: 1, window: 24h, categories: [marketing] }
    - { id: week, per: user, max: 3, window: 7d, categories: [marketing] }
  quiet_hours:
    - { from: "21:00", to: "09:00", zone: user, categories: [marketing, service] }
"#;

/// A year of a few people, with gaps of every length; the same for every test that asks for it.
fn a_restless_year(policy: &str) -> Story {
    let mut story = Story::with_policy("Europe/Berlin", "2026-01-01T08:00", EVERYTHING, policy);
    let start = story.timeline.now();
    for (index, user) in ["anna", "ben", "cleo", "dora", "emil"].iter().enumerate() {
        // a small generator of gaps: fixed, and different for each
        let mut seed = 7 + 13 * index as i64;
        let mut at = start.plus_ms(index as i64 * 3_600_000);
        while at < start.plus_ms(360 * DAY_MS) {
            seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
            at = at.plus_ms(3_600_000 + seed % (40 * DAY_MS));
            match seed / 7 % 3 {
                0 => story.late_event(user, at, at, "Session Started", json!({})),
                1 => story.late_event(user, at, at, "Cart Updated", json!({ "cart_id": format!("c{}", seed % 5) })),
                _ => story.late_event(
                    user,
                    at,
                    at,
                    "Order Completed",
                    json!({ "order_id": format!("{user}-{seed}"), "total": seed % 90, "currency": "EUR" }),
                ),
            }
        }
    }
    story
}

/// The same year with pushes that fail: every ladder of channels is walked.
fn a_restless_year_without_push(policy: &str) -> Story {
    let mut story = a_restless_year(policy);
    story.deliver(&[(Channel::Push, Receipt::Failed)]);
    story
}

fn everybody<'a>(story: &'a Story) -> impl Iterator<Item = &'a Person> + 'a {
    story.timeline.people().map(|(_, person)| person)
}

#[test]
fn promise_i1_one_message_per_rule_key_run_step_and_channel() {
    let mut story = a_restless_year_without_push(STRICT);
    story.until("2026-06-01T00:00");
    // the same rules under another version, with runs under way: nothing is said twice
    let changed = EVERYTHING.replace("owner: growth", "owner: lifecycle");
    story.timeline.reload(Arc::new(rules(&[("shop.yaml", SHOP), ("policy.yaml", STRICT), ("rules.yaml", &changed)])));
    story.until("2026-12-31T00:00");
    for person in everybody(&story) {
        let mut seen = BTreeSet::new();
        for sending in &person.messages {
            let message = &sending.message;
            let key = (&message.rule, &message.run_key, message.run, &message.step, message.channel);
            assert!(seen.insert(key), "two messages for {key:?}");
        }
    }
    assert!(everybody(&story).map(|person| person.messages.len()).sum::<usize>() > 50, "a year without messages proves nothing");
}

/// Runs that follow each other in one another's place are one: each of its steps sends and gives once, and `at_most` counts it once.
#[test]
fn promise_i1_what_takes_a_runs_place_does_nothing_twice() {
    let mut story = a_restless_year(OPEN_POLICY);
    story.until("2026-12-31T00:00");
    let (mut superseded, mut refused) = (0, 0);
    for person in everybody(&story) {
        let of_rule: Vec<_> = person.entries.iter().filter(|entry| &*entry.rule == "anew").collect();
        let begun = of_rule.iter().filter(|entry| entry.what == What::Entered);
        let firsts: Vec<u32> = begun.filter(|entry| &*entry.because == "a run begins").map(|entry| entry.run).collect();
        let chain = |run: u32| firsts.iter().copied().filter(|first| *first <= run).max().expect("a first run");
        superseded += of_rule.iter().filter(|entry| entry.because.starts_with("superseded")).count();
        refused += of_rule.iter().filter(|entry| entry.because.contains("at_most")).count();

        let mut done = BTreeSet::new();
        let mut sent: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for entry in of_rule.iter().filter(|entry| entry.what == What::Acted) {
            assert!(done.insert((chain(entry.run), entry.step.to_string())), "{} of run {} acted twice", entry.step, entry.run);
        }
        for sending in person.messages.iter().filter(|sending| &*sending.message.rule == "anew" && sending.accepted) {
            let (run, step) = (sending.message.run, sending.message.step.to_string());
            assert!(done.insert((chain(run), step.clone())), "{step} of run {run} was sent twice");
            sent.entry(chain(run)).or_default().push(sending.at);
        }
        for (first, at) in sent.iter().flat_map(|(first, instants)| instants.iter().map(move |at| (first, at))) {
            let within = |instant: &&_| at.ms_since(**instant) >= 0 && at.ms_since(**instant) < 90 * DAY_MS;
            let others = sent.iter().filter(|(other, instants)| *other != first && instants.iter().any(|instant| within(&instant)));
            assert!(others.count() < 2, "the third run within 90 days sends at {at}");
        }
    }
    assert!(superseded > 5 && refused > 0, "{superseded} runs gave their place, {refused} steps were one too many: that proves nothing");
}

#[test]
fn promise_i2_no_cap_is_ever_exceeded() {
    let mut story = a_restless_year_without_push(STRICT);
    story.until("2026-12-31T00:00");
    let mut held = 0;
    for person in everybody(&story) {
        let mut sent: Vec<_> =
            person.messages.iter().filter(|m| m.accepted && m.message.category.name() == "marketing").map(|m| m.at).collect();
        sent.sort();
        for (index, at) in sent.iter().enumerate() {
            let within = |ms: i64| sent.iter().take(index + 1).filter(|earlier| at.ms_since(**earlier) < ms).count();
            assert!(within(DAY_MS) <= 1, "two marketing messages within a day, at {at}");
            assert!(within(7 * DAY_MS) <= 3, "four marketing messages within a week, at {at}");
        }
        held += person.steps.values().filter(|fate| fate.held).count();
    }
    assert!(held > 5, "caps that never held anything prove nothing");
}

#[test]
fn promise_i3_nothing_goes_out_after_consent_was_withdrawn() {
    let policy = STRICT.replace("marketing: always", "marketing: { basis: opt_in }");
    let rules = r#"
rekindle: 1
rules:
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    steps:
      - { id: nudge, send: { template: cart, channels: [push] } }
"#;
    for (withdrawn_at, goes_out) in [("2026-03-02T23:00", false), ("2026-03-03T09:01", true)] {
        let mut story = Story::with_policy("Europe/Berlin", "2026-03-02T08:00", rules, &policy);
        story.consent("anna", "2026-03-02T09:00", "push", true);
        // held overnight by quiet hours
        story.event("anna", "2026-03-02T22:00", "Cart Updated", json!({ "cart_id": "c1" }));
        story.consent("anna", withdrawn_at, "push", false);
        story.until("2026-03-04T00:00");
        let sent = story.person("anna").messages.iter().any(|m| m.accepted);
        assert_eq!(sent, goes_out, "consent withdrawn at {withdrawn_at}");
    }
}

#[test]
fn promise_i4_whatever_waits_is_due_before_its_deadline() {
    let mut story = a_restless_year_without_push(STRICT);
    for month in 2..=12 {
        story.until(&format!("2026-{month:02}-03T03:00"));
        for person in everybody(&story) {
            for sending in person.messages.iter().filter(|m| m.state == MessageState::Queued) {
                let message = &sending.message;
                assert!(message.due_at <= message.expires_at, "{} is due after its deadline", message.template);
            }
        }
    }
    for person in everybody(&story) {
        for sending in person.messages.iter().filter(|m| m.accepted) {
            assert!(sending.at <= sending.message.expires_at, "{} went out after its deadline", sending.message.template);
        }
    }
}

#[test]
fn promise_i7_at_one_instant_the_order_of_arrival_does_not_matter() {
    let dumps: BTreeSet<String> = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
        .iter()
        .map(|order| {
            let mut story = Story::with_policy("Europe/Berlin", "2026-01-01T08:00", EVERYTHING, OPEN_POLICY);
            let at = story.at("2026-01-05T12:00");
            let events = [
                ("a", "Order Completed", json!({ "order_id": "o1", "total": 30, "currency": "EUR" })),
                ("b", "Order Refunded", json!({ "order_id": "o1", "total": 30, "currency": "EUR" })),
                ("c", "Cart Updated", json!({ "cart_id": "c1" })),
            ];
            for index in order {
                let (id, name, properties) = events.get(*index).expect("one of three").clone();
                let mut event = track(name, at, properties);
                event.id = Arc::from(id);
                story.timeline.event("anna", event);
            }
            story.until("2026-03-01T00:00");
            story.dump()
        })
        .collect();
    assert_eq!(dumps.len(), 1, "the order of arrival shows");
}

fn track(name: &str, at: rekindle::engine::time::Timestamp, properties: serde_json::Value) -> rekindle::engine::event::Event {
    rekindle::engine::event::Event {
        id: Arc::from(""),
        kind: rekindle::engine::event::EventKind::Track,
        name: Arc::from(name),
        occurred_at: at,
        received_at: at,
        source: Arc::from("shop"),
        properties: properties.as_object().cloned().unwrap_or_default(),
    }
}

#[test]
fn promise_i8_every_decision_says_why_and_explain_reproduces_it() {
    let mut story = a_restless_year(STRICT);
    let (mut held, mut running) = (0, 0);
    for month in 2..=12 {
        story.until(&format!("2026-{month:02}-05T03:00"));
        let older = HashMap::new();
        let set = story.timeline.rules();
        let ctx = Context { rules: set, older: &older, world: &story.timeline.world };
        for person in everybody(&story) {
            assert!(person.entries.iter().all(|entry| !entry.because.is_empty()), "a decision without a reason");
            assert!(person.messages.iter().all(|m| m.message.version == set.version), "a message of no known rule set");
            for rule in &set.rules {
                let said = explain(&ctx, &person.profile, person.due_at, rule, story.timeline.now());
                assert!(format!("{:016x}", set.version).starts_with(&said.version));
                let run = person.profile.runs.iter().filter(|r| r.rule == rule.id && r.ended.is_none()).max_by_key(|r| r.number);
                let hold = person.profile.holds.iter().find(|h| h.rule == rule.id && run.is_some_and(|run| run.number == h.run));
                if let Some(hold) = hold {
                    held += 1;
                    assert_eq!(said.outcome, *hold.gate, "{}", person.profile.key);
                }
                let when = said.conditions.iter().find(|part| part.name == "when");
                if let (Some(_), Some(when)) = (run, when) {
                    running += 1;
                    assert_eq!(when.truth, Some(true), "a run of {} lives on a condition that is false", rule.id);
                }
            }
        }
    }
    assert!(held > 2 && running > 5, "{held} holds and {running} runs prove nothing");
}

#[test]
fn promise_i12_one_bad_file_and_there_is_no_set() {
    let good = [("shop.yaml", SHOP), ("policy.yaml", STRICT), ("rules.yaml", EVERYTHING)];
    assert!(load(&good).set.is_some());
    for (bad, codes) in [
        ("rekindle: 1\nrules:\n  - { id: half, owner: x, when: days_silent >= }\n", vec!["RK0100"]),
        ("rekindle: 1\nsegments:\n  tired: { when: days_silnt >= 3 }\n  lost: { when: nowhere }\n", vec!["RK0203", "RK0201"]),
    ] {
        let loaded = load(&[good[0], good[1], good[2], ("bad.yaml", bad)]);
        assert!(loaded.set.is_none(), "half a set is no set");
        let found: BTreeSet<&str> = loaded.diagnostics.iter().map(|d| d.code).collect();
        assert!(loaded.diagnostics.iter().all(|d| &*d.place.file == "bad.yaml"), "{:?}", loaded.diagnostics);
        assert!(codes.iter().any(|code| found.contains(code)), "{found:?}");
    }
}

#[test]
fn promise_i11_a_calendar_fires_once_per_local_date_through_both_clock_changes() {
    let rules = r#"
rekindle: 1
rules:
  - id: daily
    owner: growth
    at: { daily: true, time: "02:30", zone: user }
    reentry: { after: 1h }
    steps:
      - { id: mail, send: { template: news, channels: [email] } }
"#;
    for (from, until) in [("2026-03-26T12:00", "2026-04-01T12:00"), ("2026-10-22T12:00", "2026-10-28T12:00")] {
        let mut story = Story::begin("Europe/Berlin", from, rules);
        story.identify("anna", from, json!({ "zone": "Europe/Berlin" }));
        story.until(until);
        let mut per_date: BTreeMap<String, usize> = BTreeMap::new();
        let zone = rekindle::engine::time::Zone::named("Europe/Berlin").expect("a zone");
        for sending in &story.person("anna").messages {
            *per_date.entry(sending.at.local(&zone).date().to_string()).or_default() += 1;
        }
        assert_eq!(per_date.len(), 6, "one for each of six nights: {per_date:?}");
        assert!(per_date.values().all(|count| *count == 1), "{per_date:?}");
    }
}

#[test]
fn promise_i14_looking_more_often_than_necessary_changes_nothing() {
    for policy in [OPEN_POLICY, STRICT] {
        let mut calm = a_restless_year(policy);
        calm.until("2026-07-01T00:00");
        let mut nervous = a_restless_year(policy);
        let end = nervous.at("2026-07-01T00:00");
        while nervous.timeline.now() < end {
            let next = nervous.timeline.now().plus_ms(5 * 3_600_000).min(end);
            nervous.timeline.look_again();
            nervous.timeline.advance_to(next);
        }
        assert!(nervous.timeline.counts.evaluations > 2 * calm.timeline.counts.evaluations);
        // receipts that nobody waits for are absorbed by the next look, whenever that is
        for story in [&mut calm, &mut nervous] {
            story.timeline.look_again();
            story.timeline.advance_to(end);
        }
        pretty_equal(&without_reasons(&calm.dump()), &without_reasons(&nervous.dump()));
    }
}

/// What may come between two looks, and changes nothing for anybody.
#[derive(Clone, Copy, Debug)]
enum Interruption {
    Look,
    /// The rules are read again, with another text of the same meaning.
    Reload,
    /// Every row is written and read.
    Restart,
}

/// Hours since the start, who, and what they do.
type Deed = (i64, usize, u8);

fn a_season(deeds: &[Deed], policy: &str) -> Story {
    let mut story = Story::with_policy("Europe/Berlin", "2026-01-01T08:00", EVERYTHING, policy);
    let start = story.timeline.now();
    for (number, (hours, who, what)) in deeds.iter().enumerate() {
        let (user, at) = (["anna", "ben", "cleo"][*who], start.plus_ms(hours * 3_600_000));
        match what {
            0 => story.late_event(user, at, at, "Session Started", json!({})),
            1 => story.late_event(user, at, at, "Cart Updated", json!({ "cart_id": format!("c{}", number % 4) })),
            // learned of two days later
            2 => story.late_event(user, at, at.plus_ms(2 * DAY_MS), "Session Started", json!({})),
            _ => {
                let order = json!({ "order_id": format!("o{number}"), "total": 100, "currency": "EUR" });
                story.late_event(user, at, at, "Order Completed", order);
            }
        }
    }
    story
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn promise_i14_looks_reloads_and_restarts_in_between_change_nothing(
        deeds in proptest::collection::vec((0..24 * 90_i64, 0..3_usize, 0..4_u8), 1..25),
        interruptions in proptest::collection::vec((0..24 * 120_i64, proptest::sample::select(vec![Interruption::Look, Interruption::Reload, Interruption::Restart])), 1..30),
        strict in proptest::bool::ANY,
    ) {
        let policy = if strict { STRICT } else { OPEN_POLICY };
        let (mut calm, mut disturbed) = (a_season(&deeds, policy), a_season(&deeds, policy));
        let (start, end) = (calm.timeline.now(), calm.at("2026-05-01T08:00"));
        let mut interruptions = interruptions;
        interruptions.sort_by_key(|(hours, _)| *hours);
        for (number, (hours, what)) in interruptions.into_iter().enumerate() {
            disturbed.timeline.advance_to(start.plus_ms(hours * 3_600_000));
            match what {
                Interruption::Look => disturbed.timeline.look_again(),
                Interruption::Restart => disturbed.timeline.restart(|profile| decode(&encode(profile)).expect("its own bytes")),
                Interruption::Reload => {
                    let text = EVERYTHING.replace("owner: growth", &format!("owner: team-{number}"));
                    let set = rules(&[("shop.yaml", SHOP), ("policy.yaml", policy), ("rules.yaml", &text)]);
                    disturbed.timeline.reload(Arc::new(set));
                }
            }
        }
        for story in [&mut calm, &mut disturbed] {
            story.timeline.advance_to(end);
            // receipts that nobody waits for are absorbed by the next look, whenever that is
            story.timeline.look_again();
            story.timeline.advance_to(end);
            assert!(story.timeline.faults.is_empty(), "{:?}", story.timeline.faults);
        }
        pretty_equal(&without_reasons(&calm.dump()), &without_reasons(&disturbed.dump()));
    }
}

/// Which gate is the first to hold something is another at night than in the morning: who looks oftener hears of more of them.
fn without_reasons(dump: &str) -> String {
    dump.lines().filter(|line| !line.contains(" held: ")).collect::<Vec<_>>().join("\n")
}

/// Equal texts, or the first line that differs.
fn pretty_equal(expected: &str, found: &str) {
    for (number, (left, right)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(left, right, "line {}", number + 1);
    }
    assert_eq!(expected.lines().count(), found.lines().count());
}
