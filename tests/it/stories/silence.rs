//! People fall silent, are written to, come back; and those whom nobody must disturb.

use serde_json::json;

use super::stage::Story;

const LADDER: &str = r#"
rekindle: 1
rules:
  - id: comeback
    owner: growth
    when: days_silent >= 3
    unless: days_silent >= 30
    existing: skip
    reentry: { after: 14d }
    steps:
      - { id: day-3, send: { template: miss-you, channels: [push] } }
      - { id: day-5, after: 2d, send: { template: news, channels: [email] } }
      - { id: day-7, after: 4d, send: { template: winback, channels: [email] } }
"#;

#[test]
fn warned_and_returned() {
    let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", LADDER);
    story.session("anna", "2026-05-04T10:00");
    story.session("ben", "2026-05-04T11:00");
    // Anna comes back between the second message and the third; Ben never does
    story.session("anna", "2026-05-10T20:15");
    story.until("2026-05-12T00:00");
    insta::assert_snapshot!(story.dump());
}

#[test]
fn people_silent_before_the_rule_went_live_are_left_alone() {
    let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", LADDER);
    let live_since = story.timeline.now();
    for state in story.timeline.world.rules.values_mut() {
        state.when_live_at = live_since;
        state.first_live_at = live_since;
    }
    // known from an import: old is silent for ten days as the rule goes live, fresh is not
    let imported = story.at("2026-05-04T09:00");
    story.late_event("old", story.at("2026-04-24T12:00"), imported, "Session Started", json!({}));
    story.late_event("fresh", story.at("2026-05-03T12:00"), imported, "Session Started", json!({}));
    story.until("2026-05-08T00:00");
    // after a visit of their own they are like everybody else
    story.session("old", "2026-05-08T12:00");
    story.until("2026-05-11T13:00");
    insta::assert_snapshot!(story.dump());
}

#[test]
fn the_brake_holds_what_is_more_than_a_rule_may_enter_in_an_hour() {
    let mut story = Story::begin(
        "Europe/Berlin",
        "2026-05-04T08:00",
        r#"
rekindle: 1
rules:
  - id: silent-30
    owner: growth
    when: days_silent >= 30
    existing: skip
    max_entries: 2
    steps:
      - { id: mail, send: { template: miss-you, channels: [email] } }
"#,
    );
    for (user, minute) in [("u1", "00"), ("u2", "10"), ("u3", "20"), ("u4", "30"), ("u5", "40")] {
        story.session(user, &format!("2026-05-04T10:{minute}"));
    }
    story.session("u4", "2026-06-03T12:00");
    story.until("2026-06-03T15:00");
    insta::assert_snapshot!("brake_pressed", story.dump());
    // whoever waited starts when somebody has looked and released it, if it is still true: u3 and u5, not u4
    story.timeline.release("silent-30");
    story.until("2026-06-03T15:01");
    insta::assert_snapshot!("brake_released", story.dump());
}
