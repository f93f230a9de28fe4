//! Points over the life of a person of the sample shop.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::engine::absorb;
use crate::engine::event::Event;
use crate::engine::rule::{TakeAction, TakeAmount};
use crate::engine::sample::{Shop, at, day, event, order, profile, refund, shop};
use crate::engine::time::{DAY_MS, HOUR_MS, Span, Timestamp};

/// A person of the sample shop and the ledger so far.
struct Person {
    shop: Shop,
    profile: Profile,
    booked: Booked,
}

impl Person {
    fn new() -> Self {
        Person { shop: shop(), profile: profile(), booked: Booked::default() }
    }

    fn of(country: &str) -> Self {
        let mut person = Person::new();
        person.hear(&event("identify", day(0), json!({ "country": country })));
        person
    }

    /// What a look does with one event: books what fell due, absorbs, restores, earns.
    fn hear(&mut self, event: &Event) {
        self.hear_late(event, event.occurred_at);
    }

    fn hear_late(&mut self, event: &Event, now: Timestamp) {
        let names = self.shop.names();
        book(&mut self.profile, names, event.occurred_at.plus_ms(-1), &mut self.booked);
        absorb::absorb(&mut self.profile, event, names);
        if absorb::is_active(event, names.dictionary) {
            restore(&mut self.profile, names, event.occurred_at, now, &mut self.booked);
        }
        earn(&mut self.profile, event, names, &mut self.booked);
    }

    fn book(&mut self, until: Timestamp) {
        book(&mut self.profile, self.shop.names(), until, &mut self.booked);
    }

    fn grant(&mut self, class: &str, amount: i64, at: Timestamp) {
        self.grant_for(class, amount, at, None);
    }

    fn grant_for(&mut self, class: &str, amount: i64, at: Timestamp, expires: Option<Span>) {
        let given = PointsGrant {
            class: class.into(),
            amount,
            at,
            expires,
            reason: "gift".into(),
            rule: Some("r".into()),
            run: Some(1),
            step: Some("s".into()),
        };
        grant(&mut self.profile, self.shop.names(), given, &mut self.booked);
    }

    fn take(&mut self, action: &TakeAction, step: &str, at: Timestamp) -> i64 {
        let order = TakeOrder {
            announced: i64::MAX,
            at,
            rule: "silence".into(),
            run: 1,
            step: step.into(),
            notice: MessageId(7),
            silence_since: self.profile.silent_since().expect("somebody who was seen"),
        };
        take(&mut self.profile, self.shop.names(), action, order, &mut self.booked)
    }

    fn balance(&self, class: &str, now: Timestamp) -> i64 {
        balance(&self.profile.wallet, Some(class), now).0
    }

    /// Kind and amount of every posting.
    fn ledger(&self) -> Vec<(&'static str, i64)> {
        audit(&self.profile.wallet, &self.booked.postings).expect("a wallet that is the sum of its ledger");
        self.booked.postings.iter().map(|posting| (posting.kind.name(), posting.amount)).collect()
    }

    fn said(&self, name: &str) -> Vec<Timestamp> {
        self.booked.events.iter().filter(|own| &*own.name == name).map(|own| own.at).collect()
    }
}

fn percent(percent: u16) -> TakeAction {
    TakeAction {
        notice: 0,
        amount: TakeAmount::Share(percent * 100),
        of: "bonus".into(),
        max: i64::MAX,
        keep: 0,
        reason: "silence-1".into(),
        min_notice: None,
        restore_within_ms: 60 * DAY_MS,
        restore_share: 100,
    }
}

fn session(at: Timestamp) -> Event {
    event("Session Started", at, json!({}))
}

// ------------------------------------------------------------------------------------------------------ earning

#[test]
fn an_order_earns_pending_points_and_a_refund_takes_them_back_pending_first() {
    let mut person = Person::new();
    person.hear(&order("1", 139.99, day(0)));
    assert_eq!((person.balance("earned", day(13)), pending(&person.profile.wallet, day(13)).0), (0, 139));
    assert_eq!(balance(&person.profile.wallet, Some("earned"), day(13)), (0, day(14)));
    assert_eq!(person.balance("earned", day(14)), 139);
    person.hear(&order("2", 50.0, day(20)));
    person.hear(&refund("2", 20.5, day(21)));
    // 20 by the rate, and two fifths of the fixed ten, rounded down, in the person's favour
    let kinds = person.ledger();
    assert_eq!(kinds, [("grant", 139), ("grant", 10), ("grant", 50), ("grant", 10), ("reverse", -20), ("reverse", -4)]);
    assert_eq!(person.balance("earned", day(22)), 139);
    assert_eq!(pending(&person.profile.wallet, day(22)).0, 30);
}

#[test]
fn a_refund_of_an_order_nobody_knows_goes_by_the_rate_and_never_below_nothing() {
    let mut person = Person::new();
    person.hear(&order("1", 100.0, day(0)));
    person.hear(&refund("C-7", 30.0, day(1)));
    person.hear(&refund("C-8", 90.0, day(2)));
    assert_eq!(person.ledger(), [("grant", 100), ("grant", 10), ("reverse", -30), ("reverse", -70)]);
    // the debt is not carried over to a later order
    person.hear(&order("2", 40.0, day(3)));
    assert_eq!(person.balance("earned", day(30)), 40);
}

#[test]
fn an_order_heard_of_after_its_refund_ends_where_it_would_have_ended_in_time() {
    let (ordered, refunded) = (order("1", 100.0, day(0)), refund("1", 60.0, day(1)));
    let mut in_time = Person::new();
    in_time.hear(&ordered);
    in_time.hear(&refunded);
    let mut late = Person::new();
    late.hear(&refunded);
    late.hear_late(&ordered, day(2));
    for person in [in_time, late] {
        assert_eq!(person.balance("earned", day(20)), 40);
        person.ledger();
    }
}

#[test]
fn a_limit_counts_within_its_window() {
    let mut person = Person::new();
    let mut review = |days: i64| person.hear(&event("Product Reviewed", day(days), json!({})));
    [0, 10, 20, 30, 31].iter().for_each(|days| review(*days));
    // the first has left the window (0, 30] by day 30
    assert_eq!(person.booked.postings.iter().map(|posting| posting.at).collect::<Vec<_>>(), [0, 10, 30].map(day));
}

// ------------------------------------------------------------------------------------------------------ expiry

#[test]
fn each_class_expires_in_its_own_way() {
    let granted = at("2026-01-15T10:00:00Z");
    let table = [
        ("earned", None, "2028-02-01T00:00:00Z"), // 24 months, to the end of that month
        ("bonus", None, "2027-01-15T10:00:00Z"),
        ("goodwill", None, "2026-02-14T10:00:00Z"),
        ("goodwill", Some(Span::days(3)), "2026-01-18T10:00:00Z"),
        ("purchased", None, "never"),
        ("unknown", None, "never"),
    ];
    for (class, expires, expected) in table {
        let mut person = Person::new();
        person.grant_for(class, 5, granted, expires);
        let lot = person.profile.wallet.lots.first().expect("the lot");
        assert_eq!(if lot.expires_at.is_forever() { "never".to_owned() } else { lot.expires_at.to_string() }, expected, "{class}");
    }
}

#[test]
fn an_expiry_is_announced_once_and_books_at_its_own_instant_however_late_the_look() {
    let mut person = Person::new();
    person.grant("bonus", 50, day(0));
    assert_eq!(next_due(&person.profile, person.shop.names()), day(365).plus_ms(-EXPIRING_NOTICE_MS));
    person.book(day(360));
    person.book(day(360));
    assert_eq!(next_due(&person.profile, person.shop.names()), day(365));
    person.book(day(500));
    assert_eq!(person.ledger(), [("grant", 50), ("expire", -50)]);
    assert_eq!((person.said("points_expiring"), person.booked.postings[1].at), (vec![day(351)], day(365)));
    assert!(person.profile.wallet.lots.is_empty());
    assert_eq!(next_due(&person.profile, person.shop.names()), Timestamp::FOREVER);
}

#[test]
fn goodwill_slides_with_activity_and_lapses_without_it() {
    let mut person = Person::new();
    person.grant("goodwill", 300, day(0));
    person.hear(&session(day(20)));
    person.book(day(49));
    assert_eq!(person.balance("goodwill", day(49)), 300);
    // at one instant events come before timers
    person.hear(&session(day(50)));
    assert_eq!(person.balance("goodwill", day(79)), 300);
    person.book(day(80));
    assert_eq!(person.ledger(), [("grant", 300), ("lapse", -300)]);
    // coming back later does not undo it: that is the deal
    person.hear(&session(day(81)));
    assert_eq!(person.balance("goodwill", day(81)), 0);
    // but an event that shows there was no inactivity does
    person.hear_late(&session(day(70)), day(82));
    assert_eq!(person.ledger().last(), Some(&("restore", 300)));
    assert_eq!(balance(&person.profile.wallet, Some("goodwill"), day(82)), (300, day(111)));
}

#[test]
fn what_is_expiring_is_counted_from_the_distance_asked_for() {
    let mut person = Person::new();
    person.grant("bonus", 50, day(0));
    person.grant_for("bonus", 7, day(0), Some(Span::days(20)));
    let wallet = &person.profile.wallet;
    let fortnight = 14 * DAY_MS;
    assert_eq!(expiring(wallet, fortnight, day(5)), (0, day(6)));
    assert_eq!(expiring(wallet, fortnight, day(6)), (7, day(20)));
    assert_eq!(expiring(wallet, fortnight, day(20)), (0, day(351)));
    assert_eq!(next_expiry_at(wallet, day(5)), (Some(day(20)), day(20)));
    assert_eq!(next_expiry_at(wallet, day(20)).0, Some(day(365)));
}

// ------------------------------------------------------------------------------------------------------ penalties

#[test]
fn a_take_obeys_pack_class_keep_max_and_cap() {
    let with = |change: fn(&mut TakeAction)| {
        let mut action = percent(10);
        change(&mut action);
        action
    };
    let table: [(&str, &str, TakeAction, i64); 11] = [
        ("DE", "ten percent", percent(10), 120),
        ("DE", "max", with(|a| a.max = 77), 77),
        ("DE", "an amount", with(|a| a.amount = TakeAmount::Points(15)), 15),
        ("DE", "keep", with(|a| (a.keep, a.amount) = (1195, TakeAmount::Points(50))), 13),
        ("DE", "the cap: 30 % of 1208 bonus and 500 goodwill points", percent(90), 512),
        ("DE", "earned points are no bonus", with(|a| a.of = "earned".into()), 0),
        ("DE", "a class the programme does not name", with(|a| a.of = "purchased".into()), 0),
        ("US", "as programmed", with(|a| a.of = "earned".into()), 50),
        ("AT", "no takes", percent(10), 0),
        ("CA", "a Canadian of unknown province is treated as of Québec", percent(10), 0),
        ("ZZ", "nowhere known", percent(10), 120),
    ];
    for (country, what, action, expected) in table {
        let mut person = Person::of(country);
        for (class, amount) in [("bonus", 1208), ("goodwill", 500), ("earned", 500), ("purchased", 900)] {
            person.grant(class, amount, day(0));
        }
        assert_eq!(takeable(&person.profile, person.shop.names(), &action, day(20)), expected, "{country}: {what}");
    }
}

#[test]
fn quebec_asks_for_a_year_of_silence_and_other_provinces_do_not() {
    let mut person = Person::of("CA");
    person.hear(&event("identify", day(1), json!({ "region": "CA-QC" })));
    person.grant_for("bonus", 1000, day(0), Some(Span::days(800)));
    let takeable_at = |person: &Person, at| takeable(&person.profile, person.shop.names(), &percent(10), at);
    assert_eq!((takeable_at(&person, day(364)), takeable_at(&person, day(365))), (0, 100));
    person.hear(&event("identify", day(2), json!({ "region": "ON" })));
    assert_eq!(takeable_at(&person, day(40)), 100);
}

#[test]
fn the_cap_counts_what_is_still_away_against_what_there_was_before_the_first_take() {
    let mut person = Person::of("DE");
    person.grant("bonus", 1000, day(0));
    let stages = [(30, "a", 20), (60, "b", 20), (90, "c", 20)];
    let taken = stages.map(|(days, step, share)| person.take(&percent(share), step, day(days)));
    assert_eq!(taken, [200, 100, 0], "30 % of 1000 in all");
    // pending points are not touched, and a stage comes once per silence
    assert_eq!(person.take(&percent(1), "a", day(91)), 0);
    person.ledger();
}

#[test]
fn a_take_exceeds_neither_what_was_announced_nor_what_is_left() {
    let mut person = Person::of("DE");
    person.grant("bonus", 1000, day(0));
    let order = TakeOrder {
        announced: 60,
        at: day(30),
        rule: "silence".into(),
        run: 1,
        step: "a".into(),
        notice: MessageId(7),
        silence_since: day(0),
    };
    assert_eq!(take(&mut person.profile, person.shop.names(), &percent(10), order, &mut person.booked), 60);
    let posting = person.booked.postings.last().expect("the take");
    assert_eq!((posting.amount, posting.notice, &*posting.reason), (-60, Some(MessageId(7)), "silence-1"));
}

#[test]
fn a_return_in_time_restores_the_very_lots_and_a_late_one_nothing() {
    let table = [(60, 100, true), (89, 100, true), (90, 100, false), (60, 50, true)];
    for (days, share, comes_back) in table {
        let mut person = Person::of("DE");
        person.grant_for("bonus", 30, day(0), Some(Span::days(200)));
        person.grant("bonus", 401, day(1));
        let before = person.profile.wallet.lots.clone();
        let action = TakeAction { restore_share: share, ..percent(20) };
        assert_eq!(person.take(&action, "a", day(30)), 86);
        person.hear(&session(day(days)));
        let lots = &person.profile.wallet.lots;
        match (comes_back, share) {
            (true, 100) => assert_eq!((lots, person.profile.wallet.takes.len()), (&before, 0)),
            (true, _) => assert_eq!(person.balance("bonus", day(days)), 431 - 43),
            (false, _) => assert_eq!(person.balance("bonus", day(days)), 431 - 86),
        }
        person.ledger();
    }
}

#[test]
fn a_late_event_that_shows_there_was_no_silence_restores_all_whatever_the_share_and_however_late() {
    let mut person = Person::of("DE");
    person.grant("bonus", 1000, day(0));
    let action = TakeAction { restore_share: 50, ..percent(10) };
    person.take(&action, "a", day(30));
    person.hear(&session(day(40)));
    assert_eq!(person.balance("bonus", day(40)), 950);
    person.hear_late(&session(day(29)), day(300));
    assert_eq!(person.balance("bonus", day(300)), 1000);
    // what happened before the silence began proves nothing
    let mut person = Person::of("DE");
    person.grant("bonus", 1000, day(0));
    person.hear(&session(day(5)));
    person.take(&percent(10), "a", day(40));
    person.hear_late(&session(day(4)), day(41));
    assert_eq!(person.balance("bonus", day(41)), 900);
    person.hear_late(&session(day(40)), day(41)); // at the very instant of the take: events come first
    assert_eq!(person.balance("bonus", day(41)), 1000);
}

#[test]
fn points_restored_to_a_lot_that_expired_meanwhile_live_two_weeks_more() {
    let mut person = Person::of("DE");
    person.grant_for("bonus", 1000, day(0), Some(Span::days(40)));
    person.take(&percent(10), "a", day(30));
    person.book(day(50));
    assert_eq!(person.balance("bonus", day(50)), 0);
    person.hear(&session(day(50).plus_ms(HOUR_MS)));
    assert_eq!(balance(&person.profile.wallet, Some("bonus"), day(51)), (100, day(64).plus_ms(HOUR_MS)));
    person.book(day(70));
    assert_eq!(person.ledger(), [("grant", 1000), ("take", -100), ("expire", -900), ("restore", 100), ("expire", -100)]);
}

#[test]
fn lots_that_expire_together_are_joined_once_their_orders_are_old() {
    let mut person = Person::new();
    for n in 0..400 {
        person.hear(&order(&n.to_string(), 20.0, day(n)));
    }
    let of = |class: &str| person.profile.wallet.lots.iter().filter(|lot| &*lot.class == class).count();
    // those of the last two months each by itself; before, one a month where the class rounds to it, else one a week
    assert_eq!((of("earned"), of("bonus")), (87, 105));
    person.ledger();
}

#[test]
fn an_audit_says_what_differs() {
    let mut person = Person::new();
    person.grant("bonus", 10, day(0));
    let mut wallet = person.profile.wallet.clone();
    wallet.lots[0].left = 9;
    let said = audit(&wallet, &person.booked.postings).expect_err("a difference");
    assert_eq!(said, "9 points of bonus are left, the ledger's sum is 10");
    assert!(audit(&person.profile.wallet, &[]).is_err());
}

// ------------------------------------------------------------------------------------------------------ properties

#[derive(Clone, Debug)]
enum Deed {
    Order(i64),
    Refund(i64),
    Session,
    Grant(&'static str, i64),
    Take(u16, u8),
    Book,
}

fn any_deed() -> impl Strategy<Value = (i64, i64, Deed)> {
    let deed = prop_oneof![
        3 => (0i64..6).prop_map(Deed::Order),
        2 => (0i64..6).prop_map(Deed::Refund),
        1 => Just(Deed::Session),
        2 => (prop::sample::select(vec!["bonus", "goodwill"]), 0i64..900).prop_map(|(class, amount)| Deed::Grant(class, amount)),
        2 => (1u16..60, 0u8..4).prop_map(|(share, step)| Deed::Take(share, step)),
        2 => Just(Deed::Book),
    ];
    // days since the deed before, and how late it is heard of
    (0i64..40, prop_oneof![3 => Just(0i64), 1 => 0i64..60], deed)
}

fn live(person: &mut Person, deeds: &[(i64, i64, Deed)]) -> Timestamp {
    let mut now = day(0);
    for (index, (days, late, deed)) in deeds.iter().enumerate() {
        now = now.plus_ms(days * DAY_MS + index as i64);
        let occurred_at = now.plus_ms(-late * DAY_MS);
        match deed {
            Deed::Order(n) => person.hear_late(&order(&n.to_string(), *n as f64 * 60.0, occurred_at), now),
            Deed::Refund(n) => person.hear_late(&refund(&n.to_string(), *n as f64 * 35.0, occurred_at), now),
            Deed::Session => person.hear_late(&session(occurred_at), now),
            Deed::Grant(class, amount) => person.grant(class, *amount, now),
            Deed::Take(share, step) => {
                person.book(now);
                person.take(&percent(*share), &step.to_string(), now);
            }
            Deed::Book => person.book(now),
        }
    }
    person.book(now);
    now
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_balance_is_the_sum_of_the_ledger_after_any_history(deeds in prop::collection::vec(any_deed(), 0..60)) {
        let mut person = Person::of("DE");
        let now = live(&mut person, &deeds);
        prop_assert_eq!(audit(&person.profile.wallet, &person.booked.postings), Ok(()));
        prop_assert!(next_due(&person.profile, person.shop.names()) > now);
        // nothing ever goes below nothing, at any point of the ledger
        let mut sum = 0;
        for posting in &person.booked.postings {
            sum += posting.amount;
            prop_assert!(sum >= 0);
        }
    }

    #[test]
    fn promise_i10_what_was_taken_comes_back_to_the_same_lots(
        deeds in prop::collection::vec(any_deed(), 0..40), share in 1u16..100
    ) {
        let mut person = Person::of("DE");
        let now = live(&mut person, &deeds);
        person.profile.wallet.takes.clear();
        person.hear(&session(now));
        let silent = now.plus_ms(DAY_MS);
        person.book(silent);
        let before = person.profile.wallet.clone();
        person.take(&percent(share), "again", silent);
        person.hear(&session(silent));
        let mut after = person.profile.wallet.clone();
        // a day of activity more: goodwill slid along, everything else is as it was
        for (lot, was) in after.lots.iter_mut().zip(&before.lots).filter(|(lot, _)| &*lot.class == "goodwill") {
            lot.expires_at = was.expires_at;
        }
        prop_assert_eq!(after, before);
    }

    #[test]
    fn promise_i10_takes_of_a_year_never_exceed_the_cap(
        grants in prop::collection::vec(100i64..2000, 1..5), shares in prop::collection::vec(1u16..100, 1..8)
    ) {
        let mut person = Person::of("DE");
        grants.iter().for_each(|amount| person.grant("bonus", *amount, day(0)));
        let before = person.balance("bonus", day(0));
        let steps = shares.iter().enumerate();
        let taken: i64 = steps.map(|(n, share)| person.take(&percent(*share), &n.to_string(), day(30 + 20 * n as i64))).sum();
        prop_assert!(taken * 10 <= before * 3, "{taken} of {before}");
    }
}
