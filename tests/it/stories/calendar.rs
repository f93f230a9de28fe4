//! Rules of the calendar: which local dates and times they choose, once each, also in the nights in which the clocks change; and the
//! span in which a rule is active.

use rekindle::engine::action::What;
use rekindle::engine::profile::RunOutcome;
use serde_json::json;

use super::stage::Story;

/// Berlin's wall clock at each message of that person.
fn sent_at(story: &Story, user: &str) -> Vec<String> {
    let zone = rekindle::engine::time::Zone::named("Europe/Berlin").expect("a zone");
    story.person(user).messages.iter().map(|sending| sending.at.local(&zone).strftime("%a %F %H:%M").to_string()).collect()
}

fn at_rule(at: &str) -> String {
    format!(
        r#"
rekindle: 1
rules:
  - id: mailing
    owner: crm
    at: {at}
    reentry: {{ after: 1h }}
    max_late: 12h
    steps: [{{ id: mail, send: {{ template: news, channels: [email] }} }}]
"#
    )
}

#[test]
fn promise_i11_calendars_choose_local_dates_and_fire_once_for_each() {
    for (at, from, until, expected) in [
        (
            r#"{ cron: "30 2 * * 6-7", zone: user }"#,
            "2026-03-27T12:00",
            "2026-04-06T12:00",
            // 02:30 does not exist on the 29th: 03:30
            vec!["Sat 2026-03-28 02:30", "Sun 2026-03-29 03:30", "Sat 2026-04-04 02:30", "Sun 2026-04-05 02:30"],
        ),
        (
            r#"{ cron: "30 9 * * 1-5", zone: user }"#,
            "2026-10-23T12:00",
            "2026-10-28T12:00",
            vec!["Mon 2026-10-26 09:30", "Tue 2026-10-27 09:30", "Wed 2026-10-28 09:30"],
        ),
        (
            // a month without it: its last day
            r#"{ monthly: 31, time: "10:00", zone: user }"#,
            "2026-01-15T12:00",
            "2026-05-01T12:00",
            vec!["Sat 2026-01-31 10:00", "Sat 2026-02-28 10:00", "Tue 2026-03-31 10:00", "Thu 2026-04-30 10:00"],
        ),
        (
            r#"{ monthly: last, time: "10:00", zone: user }"#,
            "2028-02-01T12:00",
            "2028-03-31T12:00",
            vec!["Tue 2028-02-29 10:00", "Fri 2028-03-31 10:00"],
        ),
        (r#"{ once: "2026-11-06T10:00", zone: user }"#, "2026-11-01T12:00", "2027-11-30T12:00", vec!["Fri 2026-11-06 10:00"]),
        // exists twice: the first of the two
        (r#"{ once: "2026-10-25T02:30", zone: user }"#, "2026-10-24T12:00", "2026-10-26T12:00", vec!["Sun 2026-10-25 02:30"]),
        (r#"{ once: "2026-11-06T10:00", zone: user }"#, "2026-11-06T10:01", "2026-12-01T12:00", vec![]),
    ] {
        let mut story = Story::begin("Europe/Berlin", from, &at_rule(at));
        story.identify("anna", from, json!({ "zone": "Europe/Berlin" }));
        story.until(until);
        assert_eq!(sent_at(&story, "anna"), expected, "{at}");
    }
}

#[test]
fn a_firing_that_comes_too_late_is_missed_and_said_so() {
    for (back, mailed) in [("2026-11-06T21:00", true), ("2026-11-07T08:00", false)] {
        let mut story = Story::begin("Europe/Berlin", "2026-11-01T12:00", &at_rule(r#"{ once: "2026-11-06T10:00", zone: user }"#));
        story.identify("anna", "2026-11-01T12:00", json!({ "zone": "Europe/Berlin" }));
        story.until("2026-11-05T00:00");
        let back = story.at(back);
        story.timeline.sleep_to(back);
        story.until("2026-11-10T00:00");
        assert_eq!(!sent_at(&story, "anna").is_empty(), mailed, "awake again at {back}");
        let missed = story.person("anna").entries.iter().filter(|entry| entry.what == What::Missed).count();
        assert_eq!(missed, usize::from(!mailed));
    }
}

#[test]
fn a_rule_admits_people_within_its_active_span_and_ends_its_runs_after_it() {
    let mut story = Story::begin(
        "Europe/Berlin",
        "2026-05-01T08:00",
        r#"
rekindle: 1
rules:
  - id: spring
    owner: growth
    active: { from: "2026-05-10T00:00", until: "2026-05-20T00:00", zone: Europe/Berlin }
    when: days_silent >= 3
    existing: skip
    steps:
      - { id: first, send: { template: miss-you, channels: [push] } }
      - { id: second, after: 6d, send: { template: offer, channels: [push] } }
    on_exit: [{ id: over, send: { template: thanks, channels: [push] } }]
  - id: carts
    owner: growth
    active: { from: "2026-05-10T00:00", until: "2026-05-20T00:00", zone: Europe/Berlin }
    event: cart_updated
    key: event.cart_id
    steps: [{ id: nudge, send: { template: cart, channels: [push] } }]
"#,
    );
    // silent since before the span: enters as it opens; silent only within it: the span is over before the second mail
    story.session("anna", "2026-05-02T10:00");
    story.session("ben", "2026-05-13T10:00");
    for day in ["09", "10", "19", "20"] {
        story.event("cleo", &format!("2026-05-{day}T00:00"), "Cart Updated", json!({ "cart_id": day }));
    }
    story.until("2026-06-01T00:00");
    let (anna, ben) = (["Sun 2026-05-10 00:00", "Sat 2026-05-16 00:00"], ["Sat 2026-05-16 10:00", "Wed 2026-05-20 00:00"]);
    assert_eq!(sent_at(&story, "anna"), anna);
    assert_eq!(sent_at(&story, "ben"), ben, "the span's end cuts the run short, and its exit follows");
    let outcome = |user: &str| story.person(user).profile.memory("spring").and_then(|memory| memory.outcome);
    assert_eq!((outcome("anna"), outcome("ben")), (Some(RunOutcome::Done), Some(RunOutcome::Expired)));
    let carts: Vec<_> = story.person("cleo").messages.iter().filter(|sending| &*sending.message.rule == "carts").collect();
    assert_eq!(carts.iter().map(|cart| cart.at).collect::<Vec<_>>(), ["2026-05-10T00:00", "2026-05-19T00:00"].map(|at| story.at(at)));
}
