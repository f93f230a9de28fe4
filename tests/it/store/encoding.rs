//! The encoding of a profile: golden files (a stored row is read by every later program), round trips, bytes that nobody wrote.
//!
//! `REKINDLE_BLESS=1 cargo test encoding` writes the golden files of the version that is written now; those of older versions stay.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use rekindle::engine::action::{Channel, MessageId, Outcome};
use rekindle::engine::event::Value;
use rekindle::engine::money::{Currency, Money};
use rekindle::engine::profile::*;
use rekindle::engine::time::{DAY_MS, HOUR_MS, Span, Timestamp};
use rekindle::store::encoding::{VERSION, decode, encode};

/// Draws from a seed: the same seed gives the same profile, of what a version of the encoding knew.
struct Dice(u64, u8);

impl Dice {
    /// What came with a version of the encoding; before it, what stands for it when it is read.
    fn since<T>(&mut self, version: u8, draw: impl FnOnce(&mut Self) -> T, before: T) -> T {
        if self.1 >= version { draw(self) } else { before }
    }

    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        let index = self.below(all.len() as u64) as usize;
        all.get(index).cloned().expect("an index below the length")
    }

    fn list<T>(&mut self, max: u64, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(max + 1)).map(|_| item(self)).collect()
    }

    fn maybe<T>(&mut self, item: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| item(self))
    }

    fn name(&mut self) -> Name {
        let names = ["", "silence-30d", "warn", "bonus", "gold", "points", "with spaces", "Ünïcode 漢字 🎈", "five-off"];
        Arc::from(self.one_of(&names))
    }

    fn instant(&mut self) -> Timestamp {
        match self.below(12) {
            0 => Timestamp::FOREVER,
            1 => Timestamp::DISTANT_PAST,
            2 => Timestamp::from_ms(self.next() as i64),
            3 => Timestamp::from_ms(i64::MIN),
            4 => Timestamp::default(),
            _ => Timestamp::from_ms(1_700_000_000_000 + self.below(1 << 36) as i64),
        }
    }

    fn number(&mut self) -> i64 {
        match self.below(4) {
            0 => self.one_of(&[0, 1, -1, i64::MAX, i64::MIN, i64::from(u32::MAX)]),
            1 => self.next() as i64,
            _ => self.below(100_000) as i64 - 1_000,
        }
    }

    fn small(&mut self) -> u32 {
        self.next() as u32 >> self.below(32)
    }

    fn channel(&mut self) -> Channel {
        self.one_of(&Channel::ALL)
    }

    fn id(&mut self) -> MessageId {
        MessageId(u128::from(self.next()) << 64 | u128::from(self.next()))
    }

    fn civil(&mut self) -> jiff::civil::DateTime {
        let (month, day) = (1 + self.below(12) as i8, 1 + self.below(28) as i8);
        let time = (self.below(24) as i8, self.below(60) as i8, self.below(60) as i8, self.below(1_000_000_000) as i32);
        jiff::civil::date(self.below(9999) as i16, month, day).at(time.0, time.1, time.2, time.3)
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth > 3 { 8 } else { 9 }) {
            0 => Value::Bool(self.below(2) == 0),
            1 => Value::Int(self.number()),
            2 => Value::Float(self.one_of(&[0.0, -0.0, 1.5, f64::INFINITY, f64::MIN_POSITIVE, 1e300])),
            3 => Value::Text(self.name()),
            4 => Value::Date(self.civil().date()),
            5 => Value::Instant(self.instant()),
            6 => Value::Duration(self.number()),
            7 => Value::Money(Money::new(self.number(), self.one_of(&[currency("EUR"), currency("JPY")]))),
            _ => Value::List(self.list(3, |d| d.value(depth + 1))),
        }
    }

    fn attribute(&mut self) -> Attribute {
        Attribute { value: self.value(0), at: self.instant() }
    }

    fn series(&mut self) -> Series {
        Series {
            points: self.list(6, |d| Point { at: d.instant(), value: d.number() }),
            before_count: self.below(99),
            before_sum: self.number(),
            first_at: self.maybe(Self::instant),
            last_at: self.maybe(Self::instant),
        }
    }

    fn wallet(&mut self) -> Wallet {
        Wallet {
            lots: self.list(4, |d| Lot {
                id: d.small(),
                class: d.name(),
                granted: d.number(),
                left: d.number(),
                granted_at: d.instant(),
                activates_at: d.instant(),
                expires_at: d.instant(),
                expiry_fixed: d.below(2) == 0,
                source: d.name(),
            }),
            next_lot: self.small(),
            takes: self.list(3, |d| Take {
                kind: d.one_of(&[TakeKind::Take, TakeKind::Lapse]),
                rule: d.name(),
                run: d.small(),
                step: d.name(),
                reason: d.name(),
                at: d.instant(),
                silence_since: d.instant(),
                allocations: d.list(3, |d| (d.small(), d.number())),
                restore_until: d.instant(),
                restore_share: d.below(101) as u8,
                restored_at: d.maybe(Self::instant),
                eligible_before: d.number(),
            }),
            earned: self.list(3, |d| (d.small() as u16, d.instant())),
            owed: self.list(2, |d| Owed { class: d.name(), amount: d.number(), at: d.instant() }),
            booked_until: self.instant(),
        }
    }

    fn tier(&mut self) -> TierState {
        TierState {
            base: self.maybe(Self::name),
            since: self.maybe(Self::instant),
            review_at: self.maybe(Self::instant),
            grace_until: self.maybe(Self::instant),
            at_risk_said: self.maybe(Self::instant),
            protected_until: self.maybe(Self::instant),
            overlay: self.maybe(|d| Overlay { tier: d.name(), from: d.instant(), until: d.instant(), source: d.name() }),
        }
    }

    fn passage(&mut self) -> Passage {
        let at = self.instant();
        self.one_of(&[Passage::False, Passage::Pending(at), Passage::Tried(at), Passage::Existing(at), Passage::Waiting(at)])
    }

    fn memory(&mut self) -> RuleMemory {
        let mut memory = RuleMemory {
            when_hash: self.small(),
            passage: self.passage(),
            runs: self.small(),
            starts: self.list(2, |d| Start { key: d.name(), at: d.instant(), times: d.since(2, Self::small, 1) }),
            sent_runs: self.list(2, |d| (d.small(), d.instant())),
            outcome: self.maybe(|d| d.one_of(&RunOutcome::ALL)),
            ended_at: self.maybe(Self::instant),
            looked_once: self.maybe(|d| (d.instant(), d.below(2) == 0)),
            last_nominal: self.maybe(Self::civil),
        };
        if self.1 < 2 {
            let runs = memory.runs.max(1);
            memory.starts.iter_mut().filter(|start| start.key.is_empty()).for_each(|start| start.times = runs);
        }
        memory
    }

    fn step(&mut self) -> StepState {
        match self.below(5) {
            0 => StepState::Waiting,
            1 => StepState::Acted { at: self.instant() },
            2 => StepState::Skipped { at: self.instant(), because: self.name() },
            3 => StepState::Ended { at: self.instant(), because: self.name() },
            _ => StepState::Sent {
                tries: self.list(2, |d| Try {
                    channel: d.channel(),
                    message: d.id(),
                    outcome: d.maybe(|d| d.one_of(&Outcome::ALL)),
                    accepted_at: d.maybe(Self::instant),
                    at: d.instant(),
                }),
                notice: self.maybe(|d| Notice { amount: d.number(), not_before: d.instant() }),
            },
        }
    }

    fn run(&mut self) -> Run {
        Run {
            rule: self.name(),
            key: self.name(),
            number: self.small(),
            version: self.next(),
            started_at: self.instant(),
            event: Arc::from("{\"total\":1}"),
            exposure: self.maybe(|d| d.one_of(&[Exposure::Treated, Exposure::HeldOut])),
            silence_since: self.maybe(Self::instant),
            steps: self.list(4, Self::step),
            ended: self.maybe(|d| d.one_of(&RunOutcome::ALL)),
            ended_at: self.maybe(Self::instant),
        }
    }

    fn profile(&mut self) -> Profile {
        Profile {
            key: self.name(),
            first_seen_at: self.maybe(Self::instant),
            country: self.maybe(Self::attribute),
            locale: self.maybe(Self::attribute),
            zone: self.maybe(Self::attribute),
            attributes: self.list(3, |d| (d.name(), d.attribute())).into_iter().collect(),
            addresses: self.list(3, |d| (d.channel(), d.attribute())).into_iter().collect(),
            consents: self
                .list(3, |d| {
                    (
                        (d.name(), d.channel()),
                        Consent { granted: d.below(2) == 0, at: d.instant(), basis: d.name(), expires_at: d.maybe(Dice::instant) },
                    )
                })
                .into_iter()
                .collect(),
            suppressed: self
                .list(2, |d| {
                    (d.channel(), Suppressed { reason: d.name(), at: d.instant(), address: d.name(), until: d.maybe(Dice::instant) })
                })
                .into_iter()
                .collect(),
            activity: Activity {
                first_active_at: self.maybe(Self::instant),
                last_active_at: self.maybe(Self::instant),
                reactivated_at: self.maybe(Self::instant),
                recent: self.list(5, Self::instant),
                spells: self.list(3, Self::instant),
                returns: self.list(3, Self::instant),
            },
            orders: self.series(),
            refunds: self.series(),
            features: self.list(3, |d| (d.name(), d.series())).into_iter().collect(),
            wallet: self.wallet(),
            tier: self.tier(),
            entitlements: self.list(2, |d| Entitlement {
                key: d.name(),
                value: d.number(),
                from: d.instant(),
                until: d.instant(),
                source: d.name(),
            }),
            coupons: self.list(2, |d| Coupon {
                offer: d.name(),
                code: d.name(),
                issued_at: d.maybe(Self::instant),
                valid: Span { months: d.small() as i32, days: -3, ms: d.number() },
                until: d.instant(),
                redeemed_at: d.maybe(Self::instant),
                message: d.maybe(Self::id),
                source: d.name(),
            }),
            rules: self.list(4, |d| (d.name(), d.memory())).into_iter().collect(),
            runs: self.list(3, Self::run),
            waiting: self.list(2, |d| WaitingEntry { rule: d.name(), key: d.name(), event: d.name(), occurred_at: d.instant() }),
            holds: self.list(2, |d| Hold {
                rule: d.name(),
                run: d.small(),
                step: d.name(),
                gate: d.name(),
                since: d.instant(),
                until: d.instant(),
                because: d.name(),
            }),
            slots: self.list(3, |d| Slot {
                message: d.id(),
                rule: d.name(),
                category: d.one_of(&Category::ALL),
                channel: d.channel(),
                sent_at: d.maybe(Self::instant),
                text: d.since(3, |d| d.maybe(Self::next), None),
            }),
            looked: self.list(4, Self::small),
            postings: self.small(),
            own_events: self.small(),
            decided_at: self.maybe(Self::instant),
        }
    }
}

fn currency(code: &str) -> Currency {
    code.parse().expect("a currency")
}

proptest! {
    #[test]
    fn what_is_written_is_read_again_and_equal_profiles_are_equal_bytes(seed: u64) {
        let profile = Dice(seed, VERSION).profile();
        let bytes = encode(&profile);
        prop_assert_eq!(decode(&bytes), Ok(profile.clone()));
        prop_assert_eq!(encode(&profile.clone()), bytes);
    }

    #[test]
    fn bytes_that_nobody_wrote_are_an_error_and_never_a_panic(bytes: Vec<u8>, version in 0..4_u8) {
        let mut versioned = vec![version];
        versioned.extend(bytes);
        if let Err(error) = decode(&versioned) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn a_damaged_profile_is_an_error_or_another_profile(seed: u64, at: prop::sample::Index, with: u8, cut: prop::sample::Index) {
        let mut bytes = encode(&Dice(seed, VERSION).profile());
        if let Err(error) = decode(bytes.get(..cut.index(bytes.len())).expect("a part")) {
            prop_assert!(error.at <= bytes.len());
        }
        let at = at.index(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = with;
        }
        if let Ok(other) = decode(&bytes) {
            // a NaN among its values is unequal to itself, and as good as any other damage
            prop_assert!(encode(&other) == encode(&other.clone()));
        }
    }
}

#[test]
fn an_error_says_what_and_where() {
    let bytes = encode(&Profile::new("u1"));
    assert_eq!(decode(&[]).expect_err("too short").to_string(), "the bytes end too early at byte 0, reading the document");
    assert_eq!(decode(&[9]).expect_err("too new").to_string(), "unknown version at byte 0, reading version");
    let half = bytes.get(..bytes.len() / 2).expect("a half");
    let text = decode(half).expect_err("cut off").to_string();
    assert!(text.contains("the bytes end too early at byte") && text.contains("reading "), "{text}");
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode(&longer).expect_err("too long").to_string().starts_with("bytes left over"));
}

/// A year of somebody who buys every three days: what the size of a row is measured on.
fn heavy_buyer() -> Profile {
    let start = 1_700_000_000_000_i64;
    let at = |day: i64| Timestamp::from_ms(start + day * DAY_MS + day % 7 * HOUR_MS);
    let mut profile = Profile::new("customer-17850");
    let said = |value: Value| Attribute { value, at: at(0) };
    profile.country = Some(said(Value::text("GB")));
    profile.locale = Some(said(Value::text("en-GB")));
    profile.addresses.insert(Channel::Email, said(Value::text("customer-17850@shop.example")));
    profile.consents.insert(
        (Arc::from("marketing"), Channel::Email),
        Consent { granted: true, at: at(0), basis: Arc::from("opt_in"), expires_at: None },
    );
    for day in (0..365).step_by(3) {
        profile.orders.insert(Point { at: at(day), value: 1_999 + day * 7 });
        profile.wallet.lots.push(Lot {
            id: day as u32,
            class: Arc::from("earned"),
            granted: 19 + day,
            left: 19 + day,
            granted_at: at(day),
            activates_at: at(day + 14),
            expires_at: at(day + 730),
            expiry_fixed: false,
            source: Arc::from("order_completed"),
        });
        if day > 330 {
            profile.activity.recent.push(at(day));
        }
    }
    profile.features =
        BTreeMap::from([(Arc::from("baskets_90d"), Series { points: profile.orders.points.clone().split_off(92), ..Series::default() })]);
    for n in 0..12 {
        let rule: Name = Arc::from(format!("rule-{n}"));
        let memory =
            RuleMemory { when_hash: 77 + n, passage: Passage::Tried(at(300)), runs: 3, ended_at: Some(at(320)), ..RuleMemory::default() };
        profile.rules.insert(rule.clone(), memory);
        profile.looked.push(0x1234_5678 + n);
        for day in 0..2 {
            profile.slots.push(Slot {
                message: MessageId(u128::from(n) << 70 | 5),
                rule: rule.clone(),
                category: Category::Marketing,
                channel: Channel::Email,
                sent_at: Some(at(340 + day)),
                text: None,
            });
        }
    }
    profile.decided_at = Some(at(364));
    profile
}

#[test]
fn a_row_stays_small() {
    let heavy = encode(&heavy_buyer()).len();
    assert!(heavy <= 8_192, "a heavy buyer's year takes {heavy} bytes");
    let fresh = encode(&Profile::new("customer-1")).len();
    assert!(fresh <= 128, "a new profile takes {fresh} bytes");
    println!("heavy buyer {heavy} bytes, new profile {fresh} bytes");
}

#[test]
fn rows_of_every_version_are_read_for_ever() {
    for version in 1..=VERSION {
        let everything = Dice(42, version).profile();
        let samples = [("new", Profile::new("customer-1")), ("heavy-buyer", heavy_buyer()), ("everything", everything)];
        for (name, profile) in samples {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/encoding/v{version}-{name}.bin"));
            if version == VERSION && std::env::var_os("REKINDLE_BLESS").is_some() {
                std::fs::create_dir_all(path.parent().expect("a directory")).expect("created");
                std::fs::write(&path, encode(&profile)).expect("written");
            }
            let stored = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(decode(&stored).as_ref(), Ok(&profile), "{name} of version {version}: a stored row reads differently");
            if version == VERSION {
                assert_eq!(encode(&profile), stored, "{name}: the same profile is written differently");
            }
        }
    }
}
