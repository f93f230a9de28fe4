//! Ladders: one channel after the other, as long as it is needed.

use rekindle::engine::action::{Channel, Outcome, What};
use rekindle::engine::decide::{ResultOf, result_event};
use rekindle::simulate::Receipt;
use serde_json::json;

use super::stage::Story;

const LADDER: &str = r#"
rekindle: 1
rules:
  - id: cart-left
    owner: growth
    event: cart_updated
    key: event.cart_id
    max_late: 12h
    steps:
      - id: tell
        after: 1h
        send:
          template: cart
          ladder: [{ channel: push }, { channel: sms, after: 1d, unless: UNLESS }, { channel: email, after: 2d, unless: delivered }]
"#;

const POLICY: &str = r#"
rekindle: 1
policy:
  time: { zone: { last: Europe/Berlin } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
  quiet_hours: [{ days: [mon..thu], zone: user, channels: [push] }]
"#;

fn story(unless: &str) -> Story {
    let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", &LADDER.replace("UNLESS", unless));
    story.event("anna", "2026-05-04T10:00", "Cart Updated", json!({ "cart_id": "c1" }));
    story
}

/// Step and local time of every message that a provider had or may have.
fn sent(story: &Story) -> Vec<(String, String)> {
    let zone = rekindle::engine::time::Zone::named("Europe/Berlin").expect("a zone");
    let gone = story.person("anna").messages.iter().filter(|sending| sending.accepted || sending.state.name() == "unknown");
    gone.map(|s| (s.message.step.to_string(), s.message.decided_at.local(&zone).strftime("%d %H:%M").to_string())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(step, at)| ((*step).to_owned(), (*at).to_owned())).collect()
}

fn said(story: &Story, what: What) -> Vec<String> {
    let entries = story.person("anna").entries.iter().filter(|entry| entry.what == what);
    entries.map(|entry| format!("{}: {}", entry.step, entry.because)).collect()
}

#[test]
fn a_rung_goes_unless_one_before_has_come_that_far() {
    const PUSH: (&str, &str) = ("tell", "04 11:00");
    const SMS: (&str, &str) = ("tell.2", "05 11:00");
    const EMAIL: (&str, &str) = ("tell.3", "06 11:00");
    use Receipt::{Accepted, Ambiguous, Bounced, Delivered, Failed};
    for (unless, push, sms, expected) in [
        // push has no receipts: what it accepted counts as delivered, and nobody opened it
        ("opened", Accepted, Delivered, vec![PUSH, SMS]),
        ("delivered", Accepted, Delivered, vec![PUSH]),
        ("accepted", Accepted, Delivered, vec![PUSH]),
        // whose fate nobody knows counts as delivered, and not as opened
        ("opened", Ambiguous, Delivered, vec![PUSH, SMS]),
        ("delivered", Ambiguous, Delivered, vec![PUSH]),
        ("accepted", Ambiguous, Delivered, vec![PUSH]),
        ("opened", Failed, Delivered, vec![SMS]),
        ("delivered", Failed, Accepted, vec![SMS, EMAIL]),
        ("accepted", Failed, Failed, vec![EMAIL]),
        ("delivered", Bounced, Delivered, vec![PUSH, SMS]),
        ("delivered", Failed, Ambiguous, vec![SMS]),
    ] {
        let mut story = story(unless);
        story.deliver(&[(Channel::Push, push), (Channel::Sms, sms)]);
        story.until("2026-05-20T00:00");
        assert_eq!(sent(&story), pairs(&expected), "unless {unless}, push {push:?}, sms {sms:?}");
        let anna = story.person("anna");
        let is_over = anna.profile.runs.iter().all(|run| run.ended.is_some()) && anna.due_at.is_forever();
        assert!(is_over, "unless {unless}, push {push:?}, sms {sms:?}: {:?}", anna.profile.runs);
    }
}

#[test]
fn a_message_that_is_opened_in_time_ends_a_ladder_and_one_that_is_opened_too_late_does_not() {
    for (opened_at, expected) in
        [("2026-05-05T10:59", vec![("tell", "04 11:00")]), ("2026-05-05T11:01", vec![("tell", "04 11:00"), ("tell.2", "05 11:00")])]
    {
        let mut story = story("opened");
        story.until("2026-05-04T12:00");
        let push = story.person("anna").messages.first().expect("the push").message.clone();
        story.timeline.event("anna", result_event(&ResultOf::from(&push), Outcome::Opened, story.at(opened_at), ""));
        story.until("2026-05-20T00:00");
        assert_eq!(sent(&story), pairs(&expected), "opened at {opened_at}");
    }
}

#[test]
fn who_comes_back_ends_a_ladder() {
    let mut story = story("opened");
    story.session("anna", "2026-05-05T08:00");
    story.until("2026-05-20T00:00");
    assert_eq!(sent(&story), pairs(&[("tell", "04 11:00")]));
    assert_eq!(said(&story, What::Skipped), ["tell.2: came back since the ladder began", "tell.3: came back since the ladder began"]);
    // a visit before its time is none
    let mut story = self::story("opened");
    story.session("anna", "2026-05-04T10:30");
    story.until("2026-05-05T12:00");
    assert_eq!(sent(&story).len(), 2);
}

#[test]
fn what_still_waits_goes_no_more_once_the_next_rung_goes() {
    // a Monday: push is closed until Friday, and still waits when the sms has its turn
    let rules = LADDER.replace("UNLESS", "delivered").replace("max_late: 12h", "max_late: 3d");
    let mut story = Story::with_policy("Europe/Berlin", "2026-05-04T08:00", &rules, POLICY);
    story.event("anna", "2026-05-04T10:00", "Cart Updated", json!({ "cart_id": "c1" }));
    story.until("2026-05-20T00:00");
    assert_eq!(sent(&story), pairs(&[("tell.2", "05 11:00")]));
    assert_eq!(said(&story, What::Skipped), ["tell: tell.2 went instead", "tell.3: tell.2 was delivered"]);
    assert!(story.person("anna").profile.holds.is_empty());
}

#[test]
fn after_a_long_pause_one_rung_goes_and_not_three() {
    let mut story = story("delivered");
    story.until("2026-05-04T10:30");
    let until = story.at("2026-05-06T12:00");
    story.timeline.sleep_to(until);
    story.until("2026-05-20T00:00");
    // the push is more than twelve hours late, the sms too; had they time left, the last would call them back
    assert_eq!(sent(&story), pairs(&[("tell.3", "06 12:00")]));
    let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", &LADDER.replace("UNLESS", "delivered").replace("12h", "4d"));
    story.event("anna", "2026-05-04T10:00", "Cart Updated", json!({ "cart_id": "c1" }));
    story.until("2026-05-04T10:30");
    story.timeline.sleep_to(until);
    story.until("2026-05-20T00:00");
    assert_eq!(sent(&story), pairs(&[("tell.3", "06 12:00")]));
    assert_eq!(story.person("anna").profile.slots.len(), 1, "what was called back counts for no cap");
}

#[test]
fn a_step_may_require_that_any_rung_has_come_so_far() {
    let rules = LADDER.replace("UNLESS", "opened")
        + r#"
      - { id: thank, after: 4d, require: { step: tell, outcome: delivered }, points: { add: 10, class: bonus } }
      - { id: mark, after: 5d, if: 'done("tell")', points: { add: 1, class: bonus } }
"#;
    for (sms, points) in [(Receipt::Delivered, 11), (Receipt::Failed, 0)] {
        let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", &rules);
        story.deliver(&[(Channel::Push, Receipt::Failed), (Channel::Sms, sms), (Channel::Email, Receipt::Failed)]);
        story.event("anna", "2026-05-04T10:00", "Cart Updated", json!({ "cart_id": "c1" }));
        story.until("2026-05-20T00:00");
        let given: i64 = story.person("anna").postings.iter().map(|posting| posting.amount).sum();
        assert_eq!(given, points, "sms {sms:?}");
    }
}
