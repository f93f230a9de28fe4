//! What steps do besides sending: telling the shop, and writing attributes.

use rekindle::engine::action::What;
use rekindle::engine::event::Value;
use serde_json::json;

use super::stage::Story;

/// What the log says of alerts.
fn alerts(story: &Story, user: &str) -> Vec<String> {
    let alerted = story.person(user).entries.iter().filter(|entry| entry.what == What::Alerted);
    alerted.map(|entry| entry.because.to_string()).collect()
}

#[test]
fn an_alert_is_written_for_the_shop_with_the_values_of_its_instant() {
    let rules = |text: &str| {
        format!(
            r#"
rekindle: 1
policy:
  notify: {{ anna: {{ email: anna@shop.example }}, ben: {{ email: ben@shop.example }} }}
rules:
  - id: big-order
    name: A large order
    owner: sales
    event: order_completed
    steps: [{{ id: tell, after: 2d, alert: {{ level: warning, notify: [anna, ben]{text} }} }}]
"#
        )
    };
    for (text, expected) in [
        (
            r#", text: "{{ user.id }} spent {{ event.total | money }}, silent for {{ user.days_silent }} days""#,
            "warning for anna, ben: anna spent €1,200.00, silent for 2 days",
        ),
        ("", "warning for anna, ben: anna: A large order"),
        // nobody is left without the alert because its text was not to be had
        (
            r#", text: "on {{ user.id | date }}""#,
            "warning for anna, ben: on {{ user.id | date }} (cannot be written: data: `date` needs a date or an instant such as `2026-03-06T09:00:00Z`)",
        ),
    ] {
        let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", &rules(text));
        story.order("anna", "2026-05-04T10:00", 1200);
        story.until("2026-05-08T00:00");
        assert_eq!(alerts(&story, "anna"), [expected], "{text}");
    }
}

#[test]
fn set_writes_attributes_that_the_next_rule_reads() {
    let mut story = Story::begin(
        "Europe/Berlin",
        "2026-05-04T08:00",
        r#"
rekindle: 1
attributes:
  visits_made: { type: int, optional: true }
rules:
  - id: swap
    owner: growth
    event: survey_answered
    reentry: { after: 1h }
    steps:
      # all expressions are read before anything is written
      - { id: write, set: { visits_planned: "visits_made ?? 0", visits_made: "(visits_planned ?? 0) + (event.answers ?? 0)" } }
  - id: many
    owner: growth
    when: (visits_made ?? 0) >= 7
    existing: skip
    steps: [{ id: mail, send: { template: thanks, channels: [email] } }]
"#,
    );
    story.identify("anna", "2026-05-04T09:00", json!({ "visits_planned": 3 }));
    let number = |story: &Story, name: &str| match story.person("anna").profile.attributes.get(name).map(|attribute| &attribute.value) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    story.event("anna", "2026-05-04T10:00", "Survey Answered", json!({ "answers": 2 }));
    story.until("2026-05-04T10:00");
    assert_eq!((number(&story, "visits_planned"), number(&story, "visits_made")), (Some(0), Some(5)));
    assert_eq!(story.person("anna").messages.len(), 0);
    story.event("anna", "2026-05-04T12:00", "Survey Answered", json!({ "answers": 7 }));
    story.until("2026-05-04T12:00");
    assert_eq!((number(&story, "visits_planned"), number(&story, "visits_made")), (Some(5), Some(7)));
    let mailed: Vec<_> = story.person("anna").messages.iter().map(|sending| (sending.message.template.to_string(), sending.at)).collect();
    assert_eq!(mailed, [("thanks".to_owned(), story.at("2026-05-04T12:00"))], "what the step wrote is true in the same look");
    let said: Vec<&str> = story.person("anna").entries.iter().filter(|entry| entry.what == What::Acted).map(|e| &*e.because).collect();
    assert_eq!(said, ["set visits_planned = 0, visits_made = 5", "set visits_planned = 5, visits_made = 7"]);
}
