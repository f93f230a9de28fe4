//! Quiet hours in the person's own time, also in the nights in which the clocks change.

use super::stage::Story;

const NIGHTLY: &str = r#"
rekindle: 1
rules:
  - id: cart
    owner: growth
    event: cart_updated
    key: event.cart_id
    steps:
      - { id: nudge, after: 1h, send: { template: cart, channels: [push] } }
"#;

const QUIET: &str = r#"
rekindle: 1
policy:
  time: { zone: { user_attribute: tz, else: country, last: Europe/Berlin } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
  quiet_hours:
    - { from: "21:00", to: "09:00", zone: user, categories: [marketing, service] }
"#;

#[test]
fn held_by_quiet_hours_over_the_night_the_clocks_change() {
    let mut story = Story::with_policy("Europe/Berlin", "2026-03-28T12:00", NIGHTLY, QUIET);
    story.event("anna", "2026-03-28T22:30", "Cart Updated", serde_json::json!({ "cart_id": "c1" }));
    story.until("2026-03-28T23:30");
    insta::assert_snapshot!("quiet_hours_held", story.dump());
    story.until("2026-03-29T09:00");
    insta::assert_snapshot!("quiet_hours_over", story.dump());
    let held = &story.person("anna").messages;
    let waited = held.first().map(|sending| sending.at.ms_since(story.at("2026-03-28T23:30")) / 60_000);
    assert_eq!(waited, Some(8 * 60 + 30), "from 23:30 to 09:00 are eight and a half hours in that night");
}

#[test]
fn the_longest_night_of_the_year_has_an_hour_more() {
    let mut story = Story::with_policy("Europe/Berlin", "2026-10-24T12:00", NIGHTLY, QUIET);
    story.event("anna", "2026-10-24T22:30", "Cart Updated", serde_json::json!({ "cart_id": "c1" }));
    story.until("2026-10-25T09:00");
    let sent = story.person("anna").messages.first().map(|sending| sending.at.ms_since(story.at("2026-10-24T23:30")) / 60_000);
    assert_eq!(sent, Some(10 * 60 + 30));
}
