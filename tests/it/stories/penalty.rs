//! The penalty: announced, taken, given back; and everything that must keep it from happening.

use std::collections::HashMap;

use rekindle::engine::action::{Channel, PostingKind};
use rekindle::engine::decide::{Context, Decision, World};
use rekindle::engine::profile::StepState;
use rekindle::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp};
use rekindle::simulate::Receipt;
use serde_json::json;

use super::stage::{OPEN_POLICY, SHOP, Story};
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

/// What varies in the stories that the oracle judges.
#[derive(Debug)]
struct Fate {
    channel: Channel,
    receipt: Receipt,
    grace_days: i64,
    min_notice_days: i64,
    after_days: i64,
    down: Option<(Timestamp, Timestamp)>,
    quiet: Option<(Timestamp, Timestamp)>,
    returns_at: Option<Timestamp>,
}

impl Fate {
    /// Fates of every kind, the same ones each time.
    fn numbered(number: u64) -> Fate {
        let mut seed = number;
        let mut pick = |below: i64| {
            seed = twox_hash::XxHash3_64::oneshot(&seed.to_le_bytes());
            (seed % below as u64) as i64
        };
        let receipts = [Receipt::Accepted, Receipt::Delivered, Receipt::Failed, Receipt::Bounced, Receipt::Ambiguous];
        let at = |days: i64, minutes: i64| {
            Timestamp::parse("2026-01-01T00:00:00Z").expect("an instant").plus_ms(days * DAY_MS + minutes * MINUTE_MS)
        };
        let span = |pick: &mut dyn FnMut(i64) -> i64| {
            let from = at(27 + pick(30), pick(24 * 60));
            (pick(2) == 0).then(|| (from, from.plus_ms((1 + pick(200)) * HOUR_MS)))
        };
        let (down, quiet) = (span(&mut pick), span(&mut pick));
        Fate {
            channel: if pick(2) == 0 { Channel::Push } else { Channel::Sms },
            // every other notice arrives, or most stories would prove nothing
            receipt: if pick(2) == 0 { Receipt::Delivered } else { receipts[pick(5) as usize] },
            grace_days: 1 + pick(20),
            min_notice_days: 1 + pick(25),
            after_days: 1 + pick(25),
            down,
            quiet,
            returns_at: (pick(2) == 0).then(|| at(31 + pick(60), pick(24 * 60))),
        }
    }

    fn rules(&self) -> String {
        let Fate { channel, min_notice_days, after_days, .. } = self;
        ONE_STAGE
            .replace("[push, email]", &format!("[{channel}]"))
            .replace("after: 10d", &format!("after: {after_days}d"))
            .replace("percent: 10%", &format!("min_notice: {min_notice_days}d, percent: 10%"))
    }

    /// Whether in that minute nobody could have seen the person return.
    fn is_blind(&self, at: Timestamp) -> bool {
        self.down.iter().chain(&self.quiet).any(|(from, until)| *from <= at && at < *until)
    }

    /// Whether something can happen at that instant: somebody is awake (we fall asleep right after the first instant of our
    /// downtime), and the source speaks.
    fn may_act(&self, at: Timestamp) -> bool {
        let asleep = self.down.is_some_and(|(from, until)| from < at && at < until);
        let quiet = self.quiet.is_some_and(|(from, until)| from <= at && at < until);
        !asleep && !quiet
    }

    /// The first instant at which the notice counts as delivered, given that it was sent then; none: it never does.
    fn delivered_from(&self, sent_at: Timestamp) -> Option<Timestamp> {
        match (self.channel.has_receipts(), self.receipt) {
            (_, Receipt::Delivered) => Some(sent_at),
            // without receipts, a day without a bounce is as good as one
            (false, Receipt::Accepted) => Some(sent_at.plus_ms(DAY_MS)),
            _ => None,
        }
    }

    /// The earliest instant at which something may be taken: none if nothing may be.
    fn may_take_from(&self, sent_at: Timestamp) -> Option<Timestamp> {
        let (grace, planned) = (self.grace_days.max(self.min_notice_days), self.after_days);
        let plain = self.delivered_from(sent_at)?.max(sent_at.plus_ms(grace.max(planned) * DAY_MS));
        // each blind minute since the notice puts it off by one; all instants here are whole minutes
        let mut blind_ms = 0;
        for minute in 0..200 * 24 * 60 {
            let at = sent_at.plus_ms(minute * MINUTE_MS);
            if at >= plain.plus_ms(blind_ms) && self.may_act(at) {
                return Some(at);
            }
            blind_ms += if self.is_blind(at) { MINUTE_MS } else { 0 };
        }
        None
    }
}

#[test]
fn promise_i10_whatever_happens_the_take_is_as_a_plain_count_has_it() {
    /// A quiet source is looked at once an hour.
    const LATEST_LOOK_MS: i64 = HOUR_MS;
    let policy = format!(
        "{OPEN_POLICY}  sources:\n    quiet: {{ below: 20%, of: same_weekday_hours_last_4_weeks, for: 6h, min_baseline: 20, holds: [absence, penalty] }}\n"
    );
    let (mut taken_in_all, mut spared, mut restored) = (0, 0, 0);
    for number in 0..400 {
        let fate = Fate::numbered(number);
        let shop = SHOP.replace("grace: 7d", &format!("grace: {}d", fate.grace_days));
        let mut story = Story::with_shop("UTC", "2026-01-01T08:00", &shop, &fate.rules(), &policy);
        story.deliver(&[(fate.channel, fate.receipt)]);
        story.order("anna", "2026-01-01T10:00", 100);
        if let Some(at) = fate.returns_at {
            story.late_event("anna", at, at, "Session Started", json!({}));
        }
        story.timeline.world.quiet.extend(fate.quiet);
        if let Some((from, until)) = fate.down {
            story.timeline.advance_to(from);
            story.timeline.sleep_to(until);
        }
        story.until("2026-05-01T00:00");

        let anna = story.person("anna");
        let of = |kind: PostingKind| anna.postings.iter().filter(move |posting| posting.kind == kind).collect::<Vec<_>>();
        let (takes, restores) = (of(PostingKind::Take), of(PostingKind::Restore));
        let notice = anna.messages.iter().find(|sending| &*sending.message.template == "warning").map(|sending| sending.message.decided_at);
        let may_take_from = notice.and_then(|sent_at| fate.may_take_from(sent_at));
        // who was there before the notice was warned of a silence that began then
        let back = fate.returns_at.filter(|back| notice.is_some_and(|sent_at| *back > sent_at));
        let returned_before = |at: Timestamp| back.is_some_and(|back| back <= at);
        match (takes.as_slice(), may_take_from) {
            ([], None) => spared += 1,
            ([], Some(from)) => {
                spared += 1;
                assert!(
                    returned_before(from.plus_ms(LATEST_LOOK_MS)),
                    "{number}: nothing was taken, though it might have been from {from}: {fate:?}"
                );
            }
            ([take], Some(from)) => {
                taken_in_all += 1;
                assert!(take.at >= from, "{number}: taken at {}, not before {from}: {fate:?}", take.at);
                assert!(take.at <= from.plus_ms(LATEST_LOOK_MS), "{number}: taken at {}, due from {from}: {fate:?}", take.at);
                assert!(fate.may_act(take.at) && !returned_before(take.at), "{number}: {fate:?}");
                assert_eq!(take.amount, -100, "{number}: ten percent of 1000, as announced");
                let comes_back = back.is_some_and(|back| back < take.at.plus_ms(60 * DAY_MS));
                assert_eq!(
                    restores.iter().map(|posting| posting.amount).sum::<i64>(),
                    if comes_back { 100 } else { 0 },
                    "{number}: {fate:?}"
                );
                restored += i64::from(comes_back);
            }
            (takes, from) => panic!("{number}: {} takes where {from:?} was allowed: {fate:?}", takes.len()),
        }
    }
    assert!(taken_in_all > 80 && spared > 80 && restored > 20, "{taken_in_all} taken, {spared} spared, {restored} restored prove little");
}
