//! One bad event, one bad rule: the others go on (I9).

use serde_json::json;

use super::stage::Story;

#[test]
fn promise_i9_one_bad_event_and_one_bad_rule_among_good_ones() {
    let mut story = Story::begin(
        "UTC",
        "2026-03-02T08:00",
        r#"
rekindle: 1
rules:
  - id: answers
    owner: growth
    event: survey_answered
    where: (event.answers ?? 0) / (event.questions ?? 1) >= 1
    steps:
      - { id: mail, send: { template: news, channels: [email] } }
  - id: planned
    owner: growth
    when: 100 / (visits_planned ?? 1) > 3
    existing: enter
    steps:
      - { id: mail, send: { template: offer, channels: [email] } }
  - id: thanks
    owner: growth
    event: order_completed
    key: event.order_id
    steps:
      - { id: mail, send: { template: thanks, channels: [email] } }
"#,
    );
    // a division by zero in a rule that is fine for everybody else
    story.identify("anna", "2026-03-02T09:00", json!({ "visits_planned": 0 }));
    story.identify("ben", "2026-03-02T09:00", json!({ "visits_planned": 2 }));
    // and one in a single event; then an amount that is no amount, and a plain good order
    story.event("anna", "2026-03-02T10:00", "Survey Answered", json!({ "answers": 3, "questions": 0 }));
    story.event("anna", "2026-03-02T11:00", "Order Completed", json!({ "order_id": "o-1", "total": "plenty", "currency": "EUR" }));
    story.order("anna", "2026-03-02T12:00", 20);
    story.until("2026-03-03T08:00");
    insta::assert_snapshot!(story.dump());
}
