//! The penalty: announced, taken, given back; and everything that must keep it from happening.

use std::collections::HashMap;

use rekindle::engine::action::{Channel, PostingKind};
use rekindle::engine::decide::{Context, Decision, World};
use rekindle::engine::profile::StepState;
use rekindle::engine::time::Timestamp;
use rekindle::simulate::Receipt;
use serde_json::json;

use super::stage::{OPEN_POLICY, Story};
use crate::store::given::decision;

const ONE_STAGE: &str = r#"
rekindle: 1
rules:
  - id: silence
    owner: growth
    when:
      all:
        - { expr: days_silent >= 30, why: no visit for 30 days }
        - { expr: has(last_active_at), why: has been here at least once }
    only_if_at_start: points_of("bonus") > 100
    existing: skip
    reentry: { after: 90d }
    steps:
      - { id: warn-1, send: { template: warning, channels: [push, email], category: service } }
      - { id: take-1, after: 10d, take: { notice: warn-1, percent: 10%, of: bonus, max: 300, keep: 100, reason: silence-1 } }
"#;

const TWO_STAGES: &str = r#"
rekindle: 1
rules:
  - id: silence
    owner: growth
    when:
      all:
        - { expr: days_silent >= 30, why: no visit for 30 days }
        - { expr: has(last_active_at), why: has been here at least once }
    only_if_at_start: points_of("bonus") > 100
    existing: skip
    reentry: { after: 90d }
    steps:
      - { id: warn-1, send: { template: warning, channels: [push, email], category: service } }
      - { id: take-1, after: 10d, take: { notice: warn-1, percent: 10%, of: bonus, max: 300, keep: 100, reason: silence-1 } }
      - { id: warn-2, after: 18d, send: { template: last-warning, channels: [push, email], category: service } }
      - { id: take-2, after: 28d, take: { notice: warn-2, percent: 20%, of: bonus, max: 600, keep: 100, reason: silence-2 } }
"#;

/// 1000 points of bonus from an order on New Year's Day; silent 30 days on 31 January.
fn one_buyer(rules: &str) -> Story {
    let mut story = Story::begin("Europe/Berlin", "2026-01-01T08:00", rules);
    story.order("anna", "2026-01-01T10:00", 100);
    story
}

#[test]
fn promise_i10_two_stages_have_two_notices() {
    let mut story = one_buyer(TWO_STAGES);
    story.until("2026-03-10T00:00");
    insta::assert_snapshot!(story.dump());
}

#[test]
fn promise_i10_no_delivered_notice_no_penalty() {
    let mut story = one_buyer(TWO_STAGES);
    story.deliver(&[(Channel::Push, Receipt::Failed), (Channel::Email, Receipt::Bounced)]);
    story.until("2026-03-10T00:00");
    assert!(story.person("anna").postings.iter().all(|posting| posting.amount > 0), "something was taken without a notice");
    insta::assert_snapshot!(story.dump());
}

#[test]
fn promise_i10_an_unknown_fate_of_the_notice_is_no_delivery() {
    let mut story = one_buyer(ONE_STAGE);
    story.deliver(&[(Channel::Push, Receipt::Ambiguous)]);
    story.until("2026-03-10T00:00");
    let anna = story.person("anna");
    assert_eq!(anna.messages.len(), 1, "an unknown fate lets no further channel follow");
    assert!(anna.postings.iter().all(|posting| posting.amount > 0), "something was taken on a doubtful notice");
}

#[test]
fn promise_i10_who_returns_before_the_deadline_loses_nothing() {
    let mut story = one_buyer(ONE_STAGE);
    story.session("anna", "2026-02-10T09:59");
    story.until("2026-02-28T00:00");
    let anna = story.person("anna");
    assert!(anna.postings.iter().all(|posting| posting.amount > 0), "something was taken from somebody who came back");
    assert!(anna.profile.runs.is_empty(), "the run lives on");
}

#[test]
fn promise_i10_who_returns_after_the_run_is_over_gets_everything_back() {
    let mut story = one_buyer(ONE_STAGE);
    story.until("2026-02-20T00:00");
    let taken: i64 = story.person("anna").postings.iter().map(|posting| posting.amount).filter(|amount| *amount < 0).sum();
    assert_eq!(taken, -100, "ten percent of 1000 after ten days");
    assert!(story.person("anna").profile.runs.is_empty(), "take-1 was the last step: the run is over");
    story.session("anna", "2026-03-05T18:00");
    story.until("2026-03-06T00:00");
    insta::assert_snapshot!(story.dump());
}

#[test]
fn promise_i10_a_late_event_shows_that_the_silence_never_was() {
    let mut story = one_buyer(TWO_STAGES);
    story.until("2026-02-15T00:00");
    // a till that was offline: Anna had bought something on 20 January, which comes to light on 15 February
    let (bought, learned) = (story.at("2026-01-20T17:30"), story.at("2026-02-15T09:00"));
    let order = json!({ "order_id": "offline-1", "total": 5, "currency": "EUR" });
    story.late_event("anna", bought, learned, "Order Completed", order);
    story.until("2026-02-19T17:29");
    insta::assert_snapshot!(story.dump());
    // thirty days after the purchase a silence begins that is one
    story.until("2026-02-19T17:30");
    assert_eq!(story.person("anna").profile.silent_since(), Some(bought));
}

#[test]
fn promise_i10_three_days_of_downtime_extend_the_grace() {
    let mut story = one_buyer(ONE_STAGE);
    story.order("ben", "2026-01-07T09:00", 100); // silent on 6 February, in the middle of the outage
    story.until("2026-02-05T12:00");
    let back = story.at("2026-02-08T12:00");
    story.timeline.sleep_to(back);
    // planned for 10 February, 10:00; three days of ours are added to it
    story.until("2026-02-13T09:59");
    assert!(story.person("anna").postings.iter().all(|posting| posting.amount > 0), "taken in days in which nobody could be warned");
    story.until("2026-02-13T10:00");
    insta::assert_snapshot!(story.dump());
}

#[test]
fn promise_i10_a_quiet_source_holds_entries_and_penalties() {
    let policy = format!(
        "{OPEN_POLICY}  sources:\n    quiet: {{ below: 20%, of: same_weekday_hours_last_4_weeks, for: 6h, min_baseline: 20, holds: [absence, penalty] }}\n"
    );
    let mut story = Story::with_policy("Europe/Berlin", "2026-01-01T08:00", ONE_STAGE, &policy);
    story.order("anna", "2026-01-01T10:00", 100);
    story.order("ben", "2026-01-07T09:00", 100);
    story.until("2026-02-05T12:00");
    // from here on nobody is seen: a broken pixel, found out and repaired a week later
    let quiet_since = story.timeline.now();
    story.timeline.world.quiet.push((quiet_since, Timestamp::FOREVER));
    story.timeline.look_again();
    story.until("2026-02-12T12:00");
    insta::assert_snapshot!("quiet_source", story.dump());
    let repaired = story.timeline.now();
    story.timeline.world.quiet = vec![(quiet_since, repaired)];
    story.timeline.look_again();
    story.until("2026-02-17T10:00");
    insta::assert_snapshot!("quiet_source_repaired", story.dump());
}

/// The check before the commit stands by itself: what decides may be wrong, and the deduction is refused all the same.
#[test]
fn promise_i10_the_second_check_refuses_what_the_first_let_through() {
    type Change = fn(&mut Decision, &mut World);
    let mut story = one_buyer(TWO_STAGES);
    story.until("2026-02-11T00:00");
    let person = story.person("anna");
    let taken = person.postings.iter().find(|posting| posting.kind == PostingKind::Take).expect("the first stage was taken").clone();
    let run = person.profile.runs.first().expect("the run goes on").clone();
    let older = HashMap::new();
    let said = |change: Change| {
        let mut world = story.timeline.world.clone();
        let mut decision =
            Decision { postings: vec![taken.clone()], taking: vec![run.clone()], ..decision(person.profile.clone(), taken.at) };
        change(&mut decision, &mut world);
        let ctx = Context { rules: story.timeline.rules(), older: &older, world: &world };
        decision.check_promises(&ctx).err().unwrap_or_default()
    };
    assert_eq!(said(|_, _| {}), "");
    let changes: [(Change, &str); 7] = [
        (|d, _| d.postings[0].notice = None, "has no notice"),
        (|d, _| d.taking.clear(), "has no run"),
        (|d, _| d.postings[0].amount *= 10, "takes more than its notice announced"),
        (|d, _| d.postings[0].at = d.postings[0].at.plus_ms(-1), "comes before the date"),
        (
            |d, _| {
                // announced too early: the programme's grace counts all the same
                d.postings[0].at = d.postings[0].at.plus_ms(-5 * 86_400_000);
                let StepState::Sent { notice: Some(notice), .. } = &mut d.taking[0].steps[0] else { panic!("a notice") };
                notice.not_before = d.postings[0].at;
            },
            "comes within the grace",
        ),
        (|d, world| world.downtime.push((d.postings[0].at.plus_ms(-4 * 86_400_000), d.postings[0].at)), "while nobody could have seen"),
        (
            |d, _| {
                let again = d.profile.wallet.takes[0].clone();
                d.profile.wallet.takes.push(again);
            },
            "is the second of its stage in one silence",
        ),
    ];
    for (change, expected) in changes {
        assert!(said(change).contains(expected), "{expected}: {}", said(change));
    }
}
