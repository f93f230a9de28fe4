//! Points of a real year: the figures of facts.json as a fold, and the staged deduction against a plain reckoning that shares no code
//! with the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use rekindle::engine::absorb::absorb;
use rekindle::engine::action::{MessageId, PostingKind};
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::points::{self, Booked, TakeOrder};
use rekindle::engine::profile::Profile;
use rekindle::engine::rule::expr::{Condition, Names, Subject};
use rekindle::engine::rule::{RuleSet, TakeAction, TakeAmount};
use rekindle::engine::time::{DAY_MS, Timestamp};

use super::shop::{END, YEAR, instant, rules, simulated, year};

/// The year of each user, in the order in which a look absorbs it.
pub fn by_user() -> BTreeMap<Arc<str>, Vec<&'static Event>> {
    let mut users: BTreeMap<Arc<str>, Vec<&Event>> = BTreeMap::new();
    for (user, event) in YEAR.iter() {
        users.entry(user.clone()).or_default().push(event);
    }
    for events in users.values_mut() {
        events.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
    }
    users
}

// ------------------------------------------------------------------------------------------------------ without notices

/// One person of the fold: points by the engine's lots, silence by its verdicts, nothing else.
struct Life<'a> {
    names: Names<'a>,
    silent: &'a Condition,
    profile: Profile,
    booked: Booked,
    now: Timestamp,
    passages: u64,
    taken: Vec<i64>,
}

impl<'a> Life<'a> {
    fn new(set: &'a RuleSet, user: &str) -> Self {
        let silent = set.dictionary.segments.iter().find(|segment| &*segment.name == "silent_30").expect("the segment of the file");
        let profile = Profile::new(user);
        let (booked, now) = (Booked::default(), instant("2010-12-01T00:00:00Z"));
        Life { names: set.names(), silent: &silent.condition, profile, booked, now, passages: 0, taken: vec![] }
    }

    /// Takes ten percent, rounded down, if the person falls silent before `until`.
    fn fall_silent_before(&mut self, until: Timestamp) {
        let subject = Subject { profile: &self.profile, now: self.now, event: None, run: None };
        let verdict = self.silent.next_flip(self.names, subject).expect("an answer");
        if verdict.truth || verdict.until >= until {
            return;
        }
        let ten_percent = TakeAction {
            notice: 0,
            amount: TakeAmount::Share(1_000),
            of: "bonus".into(),
            max: i64::MAX,
            keep: 0,
            reason: "silence".into(),
            min_notice: None,
            restore_within_ms: 0,
            restore_share: 100,
        };
        let order = TakeOrder {
            announced: i64::MAX,
            at: verdict.until,
            rule: "silence".into(),
            run: 1,
            step: "take".into(),
            notice: MessageId(0),
            silence_since: self.profile.silent_since().expect("somebody who was seen"),
        };
        self.now = verdict.until;
        self.passages += 1;
        self.taken.push(points::take(&mut self.profile, self.names, &ten_percent, order, &mut self.booked));
    }

    fn hear(&mut self, event: &Event) {
        self.fall_silent_before(event.occurred_at);
        self.now = event.occurred_at;
        absorb(&mut self.profile, event, self.names);
        points::earn(&mut self.profile, event, self.names, &mut self.booked);
    }
}

#[test]
fn points_of_the_year_as_a_fold_without_notices() {
    let set = rules("points-fold", |_, text| text);
    let end = instant(END);
    let (mut left, mut taken, mut without, mut passages, mut takes) = (0, 0, 0, 0, 0);
    for (user, events) in by_user() {
        let mut life = Life::new(&set, &user);
        events.iter().for_each(|event| life.hear(event));
        life.fall_silent_before(end);
        points::audit(&life.profile.wallet, &life.booked.postings).expect("a wallet that is the sum of its ledger");
        let (balance, _) = points::balance(&life.profile.wallet, None, end);
        left += balance;
        without += u64::from(balance == 0);
        taken += life.taken.iter().sum::<i64>();
        passages += life.passages;
        takes += life.taken.iter().filter(|amount| **amount > 0).count() as u64;
    }
    assert_eq!(left as u64, simulated("points at the end"));
    assert_eq!(taken as u64, simulated("points taken by penalties"));
    assert_eq!(without, simulated("users without points"));
    assert_eq!((passages, takes), (simulated("penalty"), simulated("penalties that take a point or more")));
}

// ------------------------------------------------------------------------------------------------------ with every guard

/// What a person's points went through: day-and-time in milliseconds, and points (negative: taken, positive: given back).
type Reckoning = Vec<(i64, i64)>;

#[derive(Clone, Copy)]
enum Act {
    Warn(usize),
    Take(usize),
}

/// The stages as the rule file has them: after so many days of the run the warning, the take; percent, most, least to keep, and the days
/// within which an order brings it back.
const STAGES: [(i64, i64, i64, i64, i64, i64); 2] = [(0, 10, 10, 300, 100, 60), (18, 28, 20, 600, 150, 90)];

struct Taken {
    at: i64,
    points: i64,
    balance_before: i64,
    back_until: i64,
}

/// One person's year on paper: a balance, the penalties that are out, and what is planned in the present silence.
#[derive(Default)]
struct Paper {
    balance: i64,
    is_german: bool,
    out: Vec<Taken>,
    planned: Vec<(i64, Act)>,
    announced: [i64; 2],
    happened: Reckoning,
}

impl Paper {
    fn could_take(&self, stage: usize, now: i64) -> i64 {
        let (_, _, percent, most, keep, _) = STAGES[stage];
        let recent: Vec<&Taken> = self.out.iter().filter(|taken| taken.at > now - 365 * DAY_MS).collect();
        let base = recent.first().map_or(self.balance, |first| first.balance_before);
        let under_the_cap = base * 30 / 100 - recent.iter().map(|taken| taken.points).sum::<i64>();
        let amount = [self.balance * percent / 100, most, self.balance - keep.max(100), under_the_cap].into_iter().min().expect("four");
        if self.is_german { 0 } else { amount.max(0) }
    }

    fn let_time_pass(&mut self, until: i64) {
        while let Some((at, act)) = self.planned.first().copied().filter(|(at, _)| *at < until) {
            self.planned.remove(0);
            match act {
                Act::Warn(stage) => self.announced[stage] = self.could_take(stage, at),
                Act::Take(stage) => {
                    let points = self.could_take(stage, at).min(self.announced[stage]);
                    if points > 0 {
                        let back_until = at + STAGES[stage].5 * DAY_MS;
                        self.out.push(Taken { at, points, balance_before: self.balance, back_until });
                        self.balance -= points;
                        self.happened.push((at, -points));
                    }
                }
            }
        }
    }

    fn hear(&mut self, event: &Event) {
        let at = event.occurred_at.as_ms();
        self.let_time_pass(at);
        let total = || event.properties["total"].as_f64().expect("a total");
        let whole_pounds = || (total() * 100.0).round() as i64 / 100;
        match (event.kind, &*event.name) {
            (EventKind::Identify, _) => self.is_german = event.text_property("country") == Some("DE"),
            (_, "Order Completed") => {
                let (back, gone): (Vec<_>, Vec<_>) = self.out.drain(..).partition(|taken| at < taken.back_until);
                self.out = gone;
                for taken in back {
                    self.balance += taken.points;
                    self.happened.push((at, taken.points));
                }
                self.balance += whole_pounds();
                self.announced = [0, 0];
                let run = at + 30 * DAY_MS;
                let plan = |(stage, (warn, take, ..)): (usize, &(i64, i64, i64, i64, i64, i64))| {
                    [(run + warn * DAY_MS, Act::Warn(stage)), (run + take * DAY_MS, Act::Take(stage))]
                };
                self.planned = STAGES.iter().enumerate().flat_map(plan).collect();
            }
            (_, "Order Refunded") => self.balance -= whole_pounds().min(self.balance),
            _ => {}
        }
    }
}

#[test]
fn promise_i10_the_staged_deduction_of_the_year_equals_a_plain_reckoning() {
    let set = rules("penalty", |_, text| text);
    let mut timeline = year(set, YEAR.iter().cloned());
    timeline.advance_to(instant(END));
    assert_eq!(timeline.faults, Vec::<String>::new());
    let (mut taken, mut restored) = (0, 0);
    for (user, events) in by_user() {
        let mut paper = Paper::default();
        events.iter().for_each(|event| paper.hear(event));
        paper.let_time_pass(instant(END).as_ms());
        let person = timeline.person(&user).expect("everybody of the year");
        points::audit(&person.profile.wallet, &person.postings).expect("a wallet that is the sum of its ledger");
        let moved = person.postings.iter().filter(|posting| matches!(posting.kind, PostingKind::Take | PostingKind::Restore));
        let moved: Reckoning = moved.map(|posting| (posting.at.as_ms(), posting.amount)).collect();
        assert_eq!(moved, paper.happened, "{user}");
        assert_eq!(points::balance(&person.profile.wallet, None, instant(END)).0, paper.balance, "{user}");
        taken += moved.iter().filter(|(_, points)| *points < 0).count();
        restored += moved.iter().filter(|(_, points)| *points > 0).count();
    }
    println!("{taken} deductions, {restored} of them given back");
    assert!(taken > 1000 && restored > 300, "{taken} {restored}: too few to have shown anything");
}

#[test]
fn promise_i10_without_a_delivered_notice_nothing_is_taken() {
    use rekindle::engine::action::Channel;
    use rekindle::simulate::{Deliver, Receipt};
    for receipt in [Receipt::Bounced, Receipt::Failed, Receipt::Ambiguous] {
        let few = YEAR.iter().filter(|(user, _)| user.ends_with('7')).cloned();
        let mut timeline = year(rules("penalty", |_, text| text), few);
        timeline.deliver = Deliver([(Channel::Email, receipt)].into());
        timeline.advance_to(instant(END));
        let takes = |postings: &[rekindle::engine::action::Posting]| postings.iter().filter(|p| p.kind == PostingKind::Take).count();
        assert_eq!(timeline.people().map(|(_, person)| takes(&person.postings)).sum::<usize>(), 0, "{}", receipt.name());
    }
}
