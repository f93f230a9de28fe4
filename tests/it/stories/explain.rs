//! What `explain` says at the turns of a story: why, why not, until when, and every gate in order.

use std::collections::HashMap;

use rekindle::engine::decide::Context;
use rekindle::simulate::explain::explain;
use serde_json::json;

use super::stage::Story;

const RULES: &str = r#"
rekindle: 1
rules:
  - id: silence
    owner: growth
    audience: reachable
    when:
      all:
        - { expr: days_silent >= 30, why: no visit for 30 days }
        - { expr: has(last_active_at), why: has been here at least once }
    unless: tickets_open > 0
    only_if_at_start: points_of("bonus") > 100
    existing: skip
    for: 6h
    reentry: { after: 90d }
    steps:
      - { id: warn-1, send_at: "10:00", send: { template: warning, channels: [push, email], category: service } }
      - { id: take-1, after: 10d, take: { notice: warn-1, percent: 10%, of: bonus, max: 300, keep: 100, reason: silence-1 } }
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    steps:
      - { id: nudge, send: { template: cart, channels: [push, email] } }
"#;

const POLICY: &str = r#"
rekindle: 1
policy:
  time: { zone: { last: Europe/Berlin } }
  consent: { marketing: { basis: opt_in }, service: always, transactional: always }
  categories: { default: marketing }
  caps:
    - { id: day, per: user, max: 1, window: 24h, categories: [marketing] }
  quiet_hours:
    - { from: "21:00", to: "09:00", zone: user, categories: [marketing, service] }
"#;

fn said(story: &Story, user: &str, rule: &str) -> String {
    let older = HashMap::new();
    let rules = story.timeline.rules();
    let ctx = Context { rules, older: &older, world: &story.timeline.world };
    let person = story.person(user);
    let rule = rules.rule(rule).expect("a rule of the story");
    let explanation = explain(&ctx, &person.profile, person.due_at, rule, story.timeline.now());
    let json = serde_json::to_value(&explanation).expect("every explanation is JSON");
    assert_eq!(json["outcome"], explanation.outcome.as_str());
    // the version is a hash of all texts: it changes with every edit of this file
    explanation.to_string().replacen(&explanation.version, "VERSION", 1)
}

#[test]
fn explain_says_why_not_yet_then_why_and_what_comes() {
    let mut story = Story::with_policy("Europe/Berlin", "2026-01-01T08:00", RULES, POLICY);
    story.consent("anna", "2026-01-01T09:00", "push", true);
    story.order("anna", "2026-01-01T10:00", 100);
    story.until("2026-01-19T12:00");
    insta::assert_snapshot!("explain_not_true", said(&story, "anna", "silence"));
    story.until("2026-01-31T12:00");
    insta::assert_snapshot!("explain_pending", said(&story, "anna", "silence"));
    story.until("2026-01-31T17:00");
    insta::assert_snapshot!("explain_run_has_begun", said(&story, "anna", "silence"));
    story.until("2026-02-10T17:00");
    insta::assert_snapshot!("explain_taken", said(&story, "anna", "silence"));
}

#[test]
fn explain_shows_the_gates_in_order_and_when_they_open() {
    let mut story = Story::with_policy("Europe/Berlin", "2026-03-02T08:00", RULES, POLICY);
    story.consent("anna", "2026-03-02T09:00", "push", true);
    story.event("anna", "2026-03-02T20:30", "Cart Updated", json!({ "cart_id": "c1" }));
    story.event("anna", "2026-03-02T22:00", "Cart Updated", json!({ "cart_id": "c2" }));
    story.until("2026-03-02T22:00");
    insta::assert_snapshot!("explain_held", said(&story, "anna", "cart"));
    story.until("2026-03-03T12:00");
    insta::assert_snapshot!("explain_capped", said(&story, "anna", "cart"));
}
