//! What only so many may have: caps and the one marketing send per while.

use serde_json::json;

use super::stage::Story;

#[test]
fn capped_and_sent_later_or_not_at_all() {
    let policy = r#"
rekindle: 1
policy:
  time: { zone: { last: UTC } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
  caps:
    - { id: week, per: user, max: 1, window: 7d, categories: [marketing] }
"#;
    let rules = r#"
rekindle: 1
rules:
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    max_late: 10d
    steps:
      - { id: nudge, send: { template: cart, channels: [push] } }
  - id: thanks
    owner: growth
    event: order_completed
    steps:
      - { id: mail, send: { template: thanks, channels: [email] } }
"#;
    let mut story = Story::with_policy("UTC", "2026-03-02T08:00", rules, policy);
    story.event("anna", "2026-03-02T10:00", "Cart Updated", json!({ "cart_id": "c1" }));
    story.event("anna", "2026-03-04T10:00", "Cart Updated", json!({ "cart_id": "c2" }));
    // marketing may be a day late: too short a patience for a cap of a week
    story.order("anna", "2026-03-05T10:00", 20);
    story.until("2026-03-08T00:00");
    insta::assert_snapshot!("capped", story.dump());
    story.until("2026-03-09T10:00");
    insta::assert_snapshot!("capped_and_sent_later", story.dump());
}

#[test]
fn two_rules_compete_and_the_more_important_goes_first() {
    let policy = r#"
rekindle: 1
policy:
  time: { zone: { last: UTC } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
  priority: { default: 50, one_marketing_send_per: 4h }
"#;
    let rules = r#"
rekindle: 1
rules:
  - id: a-upsell
    owner: growth
    priority: 40
    event: order_completed
    steps:
      - { id: mail, after: 1h, send: { template: offer, channels: [email] } }
  - id: b-thanks
    owner: growth
    priority: 60
    event: order_completed
    steps:
      - { id: mail, after: 1h, send: { template: thanks, channels: [email] } }
"#;
    let mut story = Story::with_policy("UTC", "2026-03-02T08:00", rules, policy);
    story.order("anna", "2026-03-02T10:00", 20);
    story.until("2026-03-02T12:00");
    insta::assert_snapshot!("compete", story.dump());
    story.until("2026-03-02T15:00");
    insta::assert_snapshot!("compete_and_follow", story.dump());
}
