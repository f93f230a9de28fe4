use rekindle::engine::{absorb, action::*, event::*, points, profile::*, rule::expr::*, rule::*, tier, time::*};
use rekindle::ingest::file::{Origin, Received, read_events};
use rekindle::store::Identity;
use std::collections::BTreeMap;
use std::path::Path;

fn policy() -> Policy {
    Policy {
        zone: ZonePolicy { user_attribute: None, by_country: false, last: Zone::UTC },
        lateness_start_ms: 3 * DAY_MS,
        lateness_correct_ms: 7 * DAY_MS,
        week_start: jiff::civil::Weekday::Monday,
        consent: BTreeMap::new(),
        default_category: Category::Marketing,
        max_late: BTreeMap::new(),
        holdout: None,
        default_priority: 50,
        one_marketing_send_ms: None,
        caps: vec![],
        quiet_hours: vec![],
        on_block: OnBlock::default(),
        inhibit: vec![],
        sources: None,
        calendars: BTreeMap::new(),
        channels: BTreeMap::new(),
        notify: BTreeMap::new(),
    }
}
#[test]
fn proto() {
    let mut d = Dictionary { currency: Some("GBP".parse().unwrap()), ..Dictionary::default() };
    for (n, w, a) in [("order_completed", "Order Completed", true), ("order_refunded", "Order Refunded", false)] {
        d.wire_names.insert(w.into(), n.into());
        d.events.insert(
            n.into(),
            EventType { name: n.into(), wire_name: w.into(), active: a, properties: BTreeMap::new(), declared_at: Place::default() },
        );
    }
    let pack = std::env::args().any(|_| true) && std::env::var("PACK").is_ok();
    let m = |t: &str| -> rekindle::engine::money::Money { t.parse().unwrap() };
    let mo = |months| Span { months, ..Span::ZERO };
    let program = Program {
        currency: "GBP".parse().unwrap(),
        jurisdiction: Jurisdiction { packs: BTreeMap::new(), otherwise: Pack::AsProgrammed },
        classes: if pack {
            BTreeMap::from([
                ("earned".into(), PointClass { expiry: Expiry::Rolling { span: mo(24), month_end: true } }),
                ("bonus".into(), PointClass { expiry: Expiry::Rolling { span: mo(12), month_end: false } }),
            ])
        } else {
            BTreeMap::from([("earned".into(), PointClass { expiry: Expiry::Never })])
        },
        earn: if pack {
            vec![
                Earn {
                    event: "order_completed".into(),
                    amount: EarnAmount::Rate { points: 1, per: m("1 GBP") },
                    class: "earned".into(),
                    pending: Span::days(14),
                    limit: None,
                },
                Earn {
                    event: "order_completed".into(),
                    amount: EarnAmount::Rate { points: 1, per: m("5 GBP") },
                    class: "bonus".into(),
                    pending: Span::ZERO,
                    limit: None,
                },
            ]
        } else {
            vec![Earn {
                event: "order_completed".into(),
                amount: EarnAmount::Rate { points: 1, per: m("1 GBP") },
                class: "earned".into(),
                pending: Span::ZERO,
                limit: None,
            }]
        },
        penalty: Penalty { classes: vec!["earned".into()], keep: 0, cap: None, grace: Span::ZERO },
        tiers: Some(Tiers {
            metric: "spend_180d".into(),
            review: ReviewRhythm::Quarter,
            levels: [("basic", 0), ("silver", 25_000), ("gold", 100_000), ("platinum", 500_000)]
                .map(|(id, from)| TierLevel { id: id.into(), from, benefits: vec![] })
                .into(),
            downgrade: Downgrade { one_step: true, grace: Span::days(14), notice: Span::days(30) },
        }),
        benefits: BTreeMap::new(),
        coupons: BTreeMap::new(),
        bundles: BTreeMap::new(),
    };
    let p = policy();
    let names = Names { dictionary: &d, policy: &p, program: Some(&program) };
    let action = TakeAction {
        notice: 0,
        amount: TakeAmount::Share(1000),
        of: "earned".into(),
        max: i64::MAX,
        keep: 0,
        reason: "s".into(),
        min_notice: None,
        restore_within_ms: 0,
        restore_share: 100,
    };
    let mut users: BTreeMap<Name, Vec<Event>> = BTreeMap::new();
    for row in read_events(Path::new("data/online-retail/events.ndjson.gz"), Origin::new("shop", Received::AsItHappened)).unwrap() {
        let row = match row {
            Ok(r) => r,
            Err(e) => panic!("{e}"),
        };
        let Identity::User(user) = row.identity else { panic!() };
        users.entry(user).or_default().push(row.event);
    }
    let end = Timestamp::parse("2011-12-10T00:00:00Z").unwrap();
    let (mut left, mut taken, mut zero, mut hits, mut n) = (0, 0, 0, 0, 0);
    let mut sizes = vec![];
    let mut tiers = BTreeMap::<String, u64>::new();
    let mut changes = BTreeMap::<String, u64>::new();
    let t0 = std::time::Instant::now();
    for (user, mut events) in users {
        events.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
        let mut profile = Profile::new(&user);
        let mut booked = points::Booked::default();
        let mut done: Option<Timestamp> = None;
        let mut silence = |profile: &mut Profile, until: Timestamp, booked: &mut points::Booked| {
            let Some(last) = profile.orders.last_at else { return };
            let due = last.plus_ms(30 * DAY_MS);
            if !pack && due < until && done != Some(last) {
                done = Some(last);
                n += 1;
                let got = points::take(
                    profile,
                    names,
                    &action,
                    points::TakeOrder {
                        announced: i64::MAX,
                        at: due,
                        rule: "r".into(),
                        run: 1,
                        step: "s".into(),
                        notice: MessageId(1),
                        silence_since: last,
                    },
                    booked,
                );
                taken += got;
                if got > 0 {
                    hits += 1
                }
            }
        };
        for e in &events {
            silence(&mut profile, e.occurred_at, &mut booked);
            points::book(&mut profile, names, e.occurred_at.plus_ms(-1), &mut booked);
            tier::book(&mut profile, names, e.occurred_at.plus_ms(-1), &mut booked);
            absorb::absorb(&mut profile, e, names);
            points::earn(&mut profile, e, names, &mut booked);
            tier::qualify(&mut profile, names, e.occurred_at, &mut booked);
        }
        silence(&mut profile, end, &mut booked);
        points::book(&mut profile, names, end, &mut booked);
        tier::book(&mut profile, names, end, &mut booked);
        points::audit(&profile.wallet, &booked.postings).unwrap();
        let b = points::balance(&profile.wallet, None, end).0;
        left += b;
        if b == 0 {
            zero += 1
        }
        sizes.push((
            rekindle::store::encoding::encode(&profile).len(),
            user.to_string(),
            profile.wallet.lots.len(),
            profile.wallet.takes.len(),
        ));
        *tiers.entry(tier::effective(&profile, names, end).0.unwrap().to_string()).or_default() += 1;
        for o in booked.events {
            if &*o.name == "tier_changed" {
                *changes.entry(o.properties["direction"].to_string()).or_default() += 1
            } else {
                *changes.entry(o.name.to_string()).or_default() += 1
            }
        }
    }
    sizes.sort();
    println!("left {left} taken {taken} zero {zero} n {n} hits {hits} in {:?}", t0.elapsed());
    println!("sizes median {:?} p99 {:?} max {:?}", sizes[sizes.len() / 2], sizes[sizes.len() * 99 / 100], sizes.last());
    println!("{tiers:?} {changes:?}");
}
