//! The life of a run at its edges: how it ends, what follows its end, what it hands on, and how often it may begin.

use std::sync::Arc;

use rekindle::engine::action::{Channel, MessageState, Outcome, What};
use rekindle::engine::decide::{ResultOf, result_event};
use rekindle::engine::profile::RunOutcome;
use rekindle::simulate::Receipt;
use serde_json::json;

use super::stage::{OPEN_POLICY, SHOP, Story, rules};

fn outcome(story: &Story, user: &str, rule: &str) -> Option<RunOutcome> {
    story.person(user).profile.memory(rule)?.outcome
}

fn entered(story: &Story, user: &str, rule: &str) -> usize {
    story.person(user).entries.iter().filter(|entry| &*entry.rule == rule && entry.what == What::Entered).count()
}

/// (template, channel) of what was accepted.
fn sent(story: &Story, user: &str) -> Vec<(String, Channel)> {
    let accepted = story.person(user).messages.iter().filter(|sending| sending.accepted);
    accepted.map(|sending| (sending.message.template.to_string(), sending.message.channel)).collect()
}

#[test]
fn promise_i7_events_that_feed_each_other_stop_after_eight_generations() {
    let mut story = Story::begin(
        "Europe/Berlin",
        "2026-05-04T08:00",
        r#"
rekindle: 1
program:
  benefits: { early-access: { kind: flag } }
  coupons: { five: { value: 5 EUR, source: generated, valid: 14d } }
rules:
  - id: begins
    owner: growth
    event: session_started
    reentry: { after: 0s }
    steps: [{ id: give, grant: { coupon: five, expires: 7d } }]
  - id: there
    owner: growth
    event: coupon_issued
    reentry: { after: 0s }
    steps: [{ id: give, after: 1h, grant: { benefit: early-access, expires: 7d } }]
  - id: back
    owner: growth
    event: benefit_granted
    reentry: { after: 0s }
    steps: [{ id: give, after: 1h, grant: { coupon: five, expires: 7d } }]
"#,
    );
    story.session("anna", "2026-05-04T10:00");
    story.until("2026-06-04T00:00");
    let runs = entered(&story, "anna", "there") + entered(&story, "anna", "back");
    assert_eq!(runs, 8, "each generation starts one run, and the ninth starts none");
    assert!(story.person("anna").due_at.is_forever(), "and then nobody is looked at for nothing");
}

#[test]
fn a_run_whose_last_action_the_holdout_skips_is_done_and_both_sides_are_written_down() {
    for held_out in [true, false] {
        let mut story = Story::begin(
            "Europe/Berlin",
            "2026-05-04T08:00",
            r#"
rekindle: 1
rules:
  - id: penalty
    owner: growth
    when: days_silent >= 3
    existing: skip
    reentry: { after: 90d }
    steps:
      - { id: warn, send: { template: warning, channels: [push], category: service } }
      - { id: take, after: 10d, take: { notice: warn, percent: 10%, of: bonus, max: 300, reason: silence } }
"#,
        );
        story.timeline.world.holdout_off = !held_out;
        story.timeline.world.holdout_all = held_out;
        story.session("anna", "2026-05-04T10:00");
        story.until("2026-06-04T00:00");
        // nobody has points, so nothing is announced: all the same it is known who was on which side
        let sides: Vec<bool> = story.person("anna").exposures.iter().map(|exposure| exposure.held_out).collect();
        assert_eq!(sides, [held_out]);
        assert_eq!(outcome(&story, "anna", "penalty"), Some(RunOutcome::Done), "held out: {held_out}");
        assert_eq!(sent(&story, "anna"), []);
    }
}

#[test]
fn exit_steps_follow_a_run_that_is_cut_short_and_fall_back_to_the_next_channel() {
    let rules = r#"
rekindle: 1
rules:
  - id: comeback
    owner: growth
    when: days_silent >= 3
    existing: skip
    steps:
      - { id: miss, after: 1d, send: { template: miss-you, channels: [email] } }
      - { id: more, after: 9d, send: { template: news, channels: [email] } }
    on_exit:
      - { id: glad, send: { template: thanks, channels: [push, email] } }
"#;
    let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", rules);
    story.deliver(&[(Channel::Push, Receipt::Failed)]);
    story.session("anna", "2026-05-04T10:00");
    story.session("anna", "2026-05-09T10:00");
    story.until("2026-05-10T00:00");
    assert_eq!(outcome(&story, "anna", "comeback"), Some(RunOutcome::Left));
    assert_eq!(sent(&story, "anna"), [("miss-you".to_owned(), Channel::Email), ("thanks".to_owned(), Channel::Email)]);
    // a run that came to its natural end has no exit
    let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", rules);
    story.session("ben", "2026-05-04T10:00");
    story.until("2026-06-10T00:00");
    assert_eq!(outcome(&story, "ben", "comeback"), Some(RunOutcome::Done));
    assert_eq!(sent(&story, "ben"), [("miss-you".to_owned(), Channel::Email), ("news".to_owned(), Channel::Email)]);
}

#[test]
fn the_next_channel_asks_the_condition_again() {
    let mut story = Story::with_policy(
        "Europe/Berlin",
        "2026-05-04T08:00",
        r#"
rekindle: 1
rules:
  - id: plan
    owner: growth
    event: cart_updated
    key: event.cart_id
    steps:
      - { id: tell, if: (visits_planned ?? 0) > 0, send: { template: cart, channels: [push, email] } }
"#,
        r#"
rekindle: 1
policy:
  time: { zone: { user_attribute: tz, else: country, last: Europe/Berlin } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
  quiet_hours: [{ from: "11:00", to: "20:00", zone: user, channels: [email] }]
"#,
    );
    story.deliver(&[(Channel::Push, Receipt::Failed)]);
    story.identify("anna", "2026-05-04T09:00", json!({ "visits_planned": 1 }));
    story.event("anna", "2026-05-04T12:00", "Cart Updated", json!({ "cart_id": "c1" }));
    story.identify("anna", "2026-05-04T14:00", json!({ "visits_planned": 0 }));
    story.until("2026-05-06T00:00");
    assert_eq!(sent(&story, "anna"), [], "what the mail was for is over by the time it may go out");
}

#[test]
fn a_next_channel_that_waits_until_its_time_is_over_is_told_of_and_waits_no_more() {
    for (receipt, said) in [
        (Receipt::Failed, "expired: no time was left for another channel"),
        // a message that was accepted and bounced later stays what it was: sent
        (Receipt::Bounced, "the next channel: no time was left for another channel"),
    ] {
        let mut story = Story::with_policy(
            "Europe/Berlin",
            "2026-05-04T08:00",
            r#"
rekindle: 1
rules:
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    max_late: 2h
    steps: [{ id: tell, send: { template: cart, channels: [push, email] } }]
"#,
            r#"
rekindle: 1
policy:
  time: { zone: { last: Europe/Berlin } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
  quiet_hours: [{ from: "11:00", to: "20:00", zone: user, channels: [email] }]
"#,
        );
        story.deliver(&[(Channel::Push, receipt)]);
        story.event("anna", "2026-05-04T12:00", "Cart Updated", json!({ "cart_id": "c1" }));
        story.until("2026-05-04T13:00");
        assert_eq!(story.person("anna").profile.holds.len(), 1, "the mail waits for the evening");
        story.until("2026-05-05T00:00");
        let anna = story.person("anna");
        let dropped: Vec<&str> = anna.entries.iter().filter(|entry| entry.what == What::Dropped).map(|entry| &*entry.because).collect();
        assert_eq!(dropped, [said]);
        assert_eq!((anna.profile.holds.len(), anna.profile.runs.len()), (0, 0));
        assert!(anna.due_at.is_forever(), "and nobody looks at her for nothing");
    }
}

#[test]
fn a_run_goes_on_by_its_own_text_and_segments_under_the_present_features() {
    const BEFORE: &str = r#"
rekindle: 1
features:
  visits: { count: session_started, window: 7d }
segments:
  planners: { when: (visits_planned ?? 0) > 0 }
rules:
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    audience: planners
    steps: [{ id: tell, after: 5d, if: visits >= 2, send: { template: cart, channels: [push] } }]
"#;
    // (what changes, what follows for a run under way)
    let feature = |window: &str| BEFORE.replace("window: 7d", &format!("window: {window}"));
    for (case, after, expected) in [
        ("nothing", BEFORE.to_owned(), vec!["cart"]),
        ("the rule's text", BEFORE.replace("template: cart", "template: offer").replace("visits >= 2", "visits >= 9"), vec!["cart"]),
        ("its segment", BEFORE.replace("> 0 }", "> 5 }"), vec!["cart"]),
        ("a feature", feature("1d"), vec![]),
        ("feature, text and segment", feature("1d").replace("template: cart", "template: offer").replace("> 0 }", "> 5 }"), vec![]),
        // a name without a present meaning keeps the one it had
        (
            "no feature any more",
            BEFORE
                .replace("  visits: { count: session_started, window: 7d }", "  carts: { count: cart_updated, window: 7d }")
                .replace("if: visits >= 2, ", ""),
            vec!["cart"],
        ),
    ] {
        let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", BEFORE);
        story.identify("anna", "2026-05-04T09:00", json!({ "visits_planned": 1 }));
        story.session("anna", "2026-05-04T10:00");
        story.session("anna", "2026-05-05T10:00");
        story.event("anna", "2026-05-05T12:00", "Cart Updated", json!({ "cart_id": "c1" }));
        story.until("2026-05-06T00:00");
        let set = rules(&[("shop.yaml", SHOP), ("policy.yaml", OPEN_POLICY), ("rules.yaml", &after)]);
        story.timeline.reload(Arc::new(set));
        // a second reload finds the run on a version that is older still
        let again = after.replace("owner: growth", "owner: lifecycle");
        story.timeline.reload(Arc::new(rules(&[("shop.yaml", SHOP), ("policy.yaml", OPEN_POLICY), ("rules.yaml", &again)])));
        story.until("2026-05-12T00:00");
        let templates: Vec<String> = sent(&story, "anna").into_iter().map(|(template, _)| template).collect();
        assert_eq!(templates, expected, "{case} changed");
    }
}

#[test]
fn reentry_may_be_limited_to_so_many_runs_in_a_lifetime() {
    for (reentry, expected) in [("{ after: 10d, max: 3 }", 3), ("{ after: 10d, max: 1 }", 1), ("{ after: 10d }", 6), ("{ after: 25d }", 2)]
    {
        let rules = format!(
            r#"
rekindle: 1
rules:
  - id: comeback
    owner: growth
    when: days_silent >= 3
    existing: skip
    reentry: {reentry}
    steps: [{{ id: miss, send: {{ template: miss-you, channels: [email] }} }}]
"#
        );
        let mut story = Story::begin("Europe/Berlin", "2026-05-01T08:00", &rules);
        for day in ["05-01", "05-13", "05-25", "06-06", "06-18", "06-30"] {
            story.session("anna", &format!("2026-{day}T10:00"));
        }
        story.until("2026-08-01T00:00");
        assert_eq!(entered(&story, "anna", "comeback"), expected, "{reentry}");
        let refused = story.person("anna").entries.iter().filter(|entry| entry.what == What::Refused).count();
        assert_eq!(refused, 6 - expected, "{reentry}: each silence is answered, or said why not");
    }
}

#[test]
fn a_step_may_require_that_an_earlier_message_was_opened() {
    let rules = r#"
rekindle: 1
rules:
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    steps:
      - { id: tell, send: { template: cart, channels: [push] } }
      - { id: more, after: 1d, max_late: 2d, require: { step: tell, outcome: opened }, send: { template: offer, channels: [email] } }
"#;
    // (what is heard, when, when the second message goes)
    for (name, heard, expected) in [
        ("message_opened", "2026-05-04T13:00", Some("2026-05-05T12:00")),
        ("message_opened", "2026-05-06T08:30", Some("2026-05-06T08:30")),
        // whoever clicks has opened
        ("message_clicked", "2026-05-06T08:30", Some("2026-05-06T08:30")),
        ("message_delivered", "2026-05-04T13:00", None),
        ("message_opened", "2026-05-07T12:01", None),
    ] {
        let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", rules);
        story.event("anna", "2026-05-04T12:00", "Cart Updated", json!({ "cart_id": "c1" }));
        story.until("2026-05-04T12:00");
        let told = story.person("anna").messages.first().expect("told").message.clone();
        let outcome = Outcome::named(name.trim_start_matches("message_")).expect("an outcome");
        assert!(told.wakes_on & outcome.bit() != 0 || expected.is_none(), "{name} wakes whoever waits for it");
        let opened = result_event(&ResultOf::from(&told), outcome, story.at(heard), "");
        story.timeline.event("anna", opened);
        story.until("2026-05-10T00:00");
        let more = story.person("anna").messages.iter().find(|sending| &*sending.message.step == "more").map(|sending| sending.at);
        assert_eq!(more, expected.map(|at| story.at(at)), "{name} at {heard}");
        let expired = story.person("anna").entries.iter().any(|entry| entry.what == What::Dropped && entry.because.starts_with("expired"));
        assert_eq!(expired, expected.is_none());
    }
}

#[test]
fn at_most_forgets_a_run_whose_message_never_went() {
    let mut story = Story::begin(
        "Europe/Berlin",
        "2026-05-04T08:00",
        r#"
rekindle: 1
rules:
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    at_most: 1 per 7d
    steps: [{ id: nudge, send: { template: cart, channels: [push] } }]
"#,
    );
    story.deliver(&[(Channel::Push, Receipt::Failed)]);
    story.event("anna", "2026-05-04T12:00", "Cart Updated", json!({ "cart_id": "c1" }));
    story.until("2026-05-04T13:00");
    story.deliver(&[]);
    story.event("anna", "2026-05-04T14:00", "Cart Updated", json!({ "cart_id": "c2" }));
    story.event("anna", "2026-05-04T16:00", "Cart Updated", json!({ "cart_id": "c3" }));
    story.until("2026-05-05T00:00");
    let states: Vec<MessageState> = story.person("anna").messages.iter().map(|sending| sending.state).collect();
    assert_eq!(states, [MessageState::Failed, MessageState::Accepted], "the second cart is told of, the third is one too many");
}

#[test]
fn an_event_from_before_the_run_does_not_stop_it_and_one_after_it_does() {
    let rules = r#"
rekindle: 1
rules:
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    stop_on: { event: order_completed }
    steps: [{ id: nudge, after: 4h, send: { template: cart, channels: [push] } }]
"#;
    for (ordered, expected) in [("2026-05-04T11:00", RunOutcome::Done), ("2026-05-04T12:30", RunOutcome::Stopped)] {
        let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", rules);
        story.event("anna", "2026-05-04T12:00", "Cart Updated", json!({ "cart_id": "c1" }));
        let (happened, heard) = (story.at(ordered), story.at("2026-05-04T13:00"));
        story.late_event("anna", happened, heard, "Order Completed", json!({ "order_id": "o", "total": 10 }));
        story.until("2026-05-05T00:00");
        assert_eq!(outcome(&story, "anna", "cart"), Some(expected), "ordered at {ordered}");
    }
}
