//! The one row of state that a person has. Everything the engine decides about somebody is read from here and written back here;
//! the stored form is `store/encoding.rs`.
//!
//! Invariant: a profile is a fold of facts. What events say is kept so that the order of arrival does not matter (series are
//! sorted by time of occurrence, attributes keep the latest by their own time); what the engine did (runs, lots, slots) is
//! written only by a decision or a send-intent, under the row's version.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action::{Channel, MessageId, Outcome};
use super::event::Value;
use super::time::{Span, Timestamp, Zone};

pub type Name = Arc<str>;

/// What we know of one person.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Profile {
    /// The identity under which the profile was created; it never changes, and every stable hash (holdout, roll-out, spread,
    /// message id) is taken of it.
    pub key: Name,

    // -- the person
    /// The earliest event's own time.
    pub first_seen_at: Option<Timestamp>,
    pub country: Option<Attribute>,
    pub locale: Option<Attribute>,
    /// The zone by the person's own attribute; see [`crate::engine::rule::Policy::zone_of`] for the one that applies.
    pub zone: Option<Attribute>,
    pub attributes: BTreeMap<Name, Attribute>,
    /// Where messages go: e-mail address, phone number, push token. Never written to logs.
    pub addresses: BTreeMap<Channel, Attribute>,
    pub consents: BTreeMap<(Name, Channel), Consent>,
    /// Channels whose address is on the suppression list, with the reason.
    pub suppressed: BTreeMap<Channel, Suppressed>,

    // -- what the person did
    pub activity: Activity,
    pub orders: Series,
    pub refunds: Series,
    /// One series per declared feature over events, by the feature's name.
    pub features: BTreeMap<Name, Series>,

    // -- what the shop gave
    pub wallet: Wallet,
    pub tier: TierState,
    pub entitlements: Vec<Entitlement>,
    pub coupons: Vec<Coupon>,

    // -- what the engine did
    pub rules: BTreeMap<Name, RuleMemory>,
    pub runs: Vec<Run>,
    /// Events that would have started a run, had the rule not been held, paused or its source quiet.
    pub waiting: Vec<WaitingEntry>,
    /// Why something that is due does not happen now, and until when.
    pub holds: Vec<Hold>,
    /// One per message that may count against a cap.
    pub slots: Vec<Slot>,
    /// Hashes of (rule, `when`) that have had their first look at this profile.
    pub looked: Vec<u32>,
    /// Postings written so far: the next posting's number.
    pub postings: u32,
    /// Engine's own events appended so far: makes their ids unique.
    pub own_events: u32,
    /// The instant of the latest decision; instants of the engine never go backwards.
    pub decided_at: Option<Timestamp>,
}

/// A value with the instant it was said for: later instants win, whatever the order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    pub value: Value,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Consent {
    pub granted: bool,
    pub at: Timestamp,
    /// `opt_in`, `soft_opt_in`, ...
    pub basis: Name,
    /// From then on it is as if it had never been given; none: until it is withdrawn.
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Suppressed {
    /// `hard_bounce`, `soft_bounce`, `complaint`, `manual`, `erased`.
    pub reason: Name,
    pub at: Timestamp,
    pub address: Name,
    /// Over from then on; none: until somebody takes the address off the list.
    pub until: Option<Timestamp>,
}

/// When the person was there.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Activity {
    pub first_active_at: Option<Timestamp>,
    /// Latest active event.
    pub last_active_at: Option<Timestamp>,
    /// First active event after at least 30 silent days.
    pub reactivated_at: Option<Timestamp>,
    /// Instants of active events of the last 35 days, sorted; at most 500 (`active_days_*`, `sessions_14d`).
    pub recent: Vec<Timestamp>,
    /// Instants at which 30 days of silence were reached, known once they were over; the latest 36.
    pub spells: Vec<Timestamp>,
    /// The active event that ended each spell: with it a late event can be seen to split or undo a spell.
    pub returns: Vec<Timestamp>,
}

/// Points of a feature in time, sorted by (at, value); what is older than the longest window is folded into `before`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Series {
    pub points: Vec<Point>,
    /// What has been folded away: how many points, their sum (for floats its bits), and the first and last instant among all points ever.
    pub before_count: u64,
    pub before_sum: i64,
    pub first_at: Option<Timestamp>,
    pub last_at: Option<Timestamp>,
}

/// `value`: minor units for money, the integer itself, the bits of a float, the number of a date's day, a hash for `distinct`, the place in
/// its list for a word of an enum; for `count` how many events the point stands for (1, unless buckets joined them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub at: Timestamp,
    pub value: i64,
}

/// Points as lots with allocations. The ledger in the store is the append-only history; this is its present state.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Wallet {
    /// Lots with something left, or that a take could still be restored to.
    pub lots: Vec<Lot>,
    pub next_lot: u32,
    /// Takes and lapses that could still be restored, or that count toward the penalty cap.
    pub takes: Vec<Take>,
    /// Earnings counted against an earn rule's limit: (index of the earn rule, instant).
    pub earned: Vec<(u16, Timestamp)>,
    /// What refunds could not take back for want of balance: an order that happened before its refund but is heard of after it pays it.
    pub owed: Vec<Owed>,
    /// Expiries and their notices up to here are booked: each is said once.
    pub booked_until: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Owed {
    pub class: Name,
    pub amount: i64,
    /// The refund's own time.
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Lot {
    pub id: u32,
    pub class: Name,
    pub granted: i64,
    pub left: i64,
    pub granted_at: Timestamp,
    /// Spendable from then on.
    pub activates_at: Timestamp,
    /// Gone from then on; for a class with `inactivity` it moves with the last active event, unless `expiry_fixed`.
    pub expires_at: Timestamp,
    /// The rule that gave it said `expires`, which replaces the expiry of the class.
    pub expiry_fixed: bool,
    /// Event or rule step that gave it.
    pub source: Name,
}

/// Points gone that may come back: by a rule's `take`, or lapsed by inactivity.
#[derive(Clone, Debug, PartialEq)]
pub struct Take {
    pub kind: TakeKind,
    /// Rule, run number and step of a take; the class for a lapse.
    pub rule: Name,
    pub run: u32,
    pub step: Name,
    pub reason: Name,
    pub at: Timestamp,
    /// The last active event before it: one silence.
    pub silence_since: Timestamp,
    /// (lot, amount), exact.
    pub allocations: Vec<(u32, i64)>,
    /// An active event before this instant brings it back.
    pub restore_until: Timestamp,
    /// Share that comes back, in percent.
    pub restore_share: u8,
    pub restored_at: Option<Timestamp>,
    /// What was eligible before it: the base of the penalty cap.
    pub eligible_before: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeKind {
    Take,
    Lapse,
}

/// The tier a person holds. The base tier moves by reviews and qualifying events; an overlay lies above it for a while.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TierState {
    /// None until the program first looks: then the lowest level.
    pub base: Option<Name>,
    pub since: Option<Timestamp>,
    pub review_at: Option<Timestamp>,
    /// Set by a failed review: the demotion comes then, if the person still falls short.
    pub grace_until: Option<Timestamp>,
    /// The review for which `tier_at_risk` was already said.
    pub at_risk_said: Option<Timestamp>,
    pub protected_until: Option<Timestamp>,
    pub overlay: Option<Overlay>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    pub tier: Name,
    pub from: Timestamp,
    pub until: Timestamp,
    pub source: Name,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entitlement {
    pub key: Name,
    pub value: i64,
    pub from: Timestamp,
    pub until: Timestamp,
    /// Rule id, run number and step, or bundle: the same source grants it once.
    pub source: Name,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Coupon {
    /// Name in the program.
    pub offer: Name,
    pub code: Name,
    /// None while reserved with a message that has not gone out.
    pub issued_at: Option<Timestamp>,
    /// How long it can be used once issued.
    pub valid: Span,
    /// FOREVER while it is not issued.
    pub until: Timestamp,
    pub redeemed_at: Option<Timestamp>,
    pub message: Option<MessageId>,
    pub source: Name,
}

/// What a rule remembers of a person between runs.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RuleMemory {
    /// Hash of the `when` this memory speaks of.
    pub when_hash: u32,
    pub passage: Passage,
    /// Runs begun so far; the next run's number is one more. Never recomputed.
    pub runs: u32,
    /// Latest start per key ("" without `key`), the latest last; at most 64.
    pub starts: Vec<Start>,
    /// Instants of runs that sent or reserved a message (`at_most`).
    pub sent_runs: Vec<(u32, Timestamp)>,
    /// How the latest run ended.
    pub outcome: Option<RunOutcome>,
    pub ended_at: Option<Timestamp>,
    /// `only_if_at_start` of the latest passage: when it was asked, and the answer.
    pub looked_once: Option<(Timestamp, bool)>,
    /// `at` rules: the latest nominal local date and time that was fired or recorded as missed.
    pub last_nominal: Option<jiff::civil::DateTime>,
}

/// When a rule last started for one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub key: Name,
    pub at: Timestamp,
    /// Starts of this key so far; a run that only took another one's place is none.
    pub times: u32,
}

/// Where a person stands with a rule's `when`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Passage {
    /// `audience && when && !unless` is false.
    #[default]
    False,
    /// True since then; the run starts when `for` is over.
    Pending(Timestamp),
    /// True and tried: a run started, or was refused for this passage.
    Tried(Timestamp),
    /// True as the rule first saw the person, and skipped; stays so until false.
    Existing(Timestamp),
    /// True, but entries wait: the rule is held by its brake, paused, or its source is quiet.
    Waiting(Timestamp),
}

/// One rule's run for one profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub rule: Name,
    pub key: Name,
    pub number: u32,
    /// Hash of the rule set the run began with; it finishes on that one.
    pub version: u64,
    pub started_at: Timestamp,
    /// Properties of the event that started it (`event.x`), as JSON text; empty otherwise.
    pub event: Arc<str>,
    /// Asked once, at the first action that treats or takes.
    pub exposure: Option<Exposure>,
    /// `last_active_at` as the run began: the silence it speaks of.
    pub silence_since: Option<Timestamp>,
    pub steps: Vec<StepState>,
    /// Set once the run has ended and only `on_exit` steps remain (they follow the others in `steps`).
    pub ended: Option<RunOutcome>,
    /// When it ended: `on_exit` counts from there.
    pub ended_at: Option<Timestamp>,
}

/// An entry that waits: the event is kept, and starts its run when the rule admits people again (or nothing, once it is older than
/// `policy.time.lateness.start`).
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingEntry {
    pub rule: Name,
    pub key: Name,
    /// Properties of the event, as JSON text.
    pub event: Arc<str>,
    pub occurred_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunOutcome {
    Done,
    Left,
    Stopped,
    Expired,
    Disabled,
    Superseded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    Treated,
    /// Held out by `policy.holdout` or the rule's own.
    HeldOut,
}

/// What has become of a step.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum StepState {
    /// Not due yet, or held or blocked: see `holds`.
    #[default]
    Waiting,
    /// The action happened.
    Acted {
        at: Timestamp,
    },
    /// A message is under way or has ended: the tries in channel order, the last one current.
    Sent {
        tries: Vec<Try>,
        notice: Option<Notice>,
    },
    Skipped {
        at: Timestamp,
        because: Name,
    },
    /// Ended without effect: dropped by a gate, expired, refused everywhere, failed.
    Ended {
        at: Timestamp,
        because: Name,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    pub channel: Channel,
    pub message: MessageId,
    /// Latest known result; none while open.
    pub outcome: Option<Outcome>,
    /// Instant of acceptance by the provider.
    pub accepted_at: Option<Timestamp>,
    /// Instant of the latest result.
    pub at: Timestamp,
}

/// What a penalty notice announced: the take may be no more, and no earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    pub amount: i64,
    pub not_before: Timestamp,
}

/// "Not now, until": a gate's answer kept in the profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    pub rule: Name,
    pub run: u32,
    pub step: Name,
    /// Name of the gate, `require`, `notice`, `brake` or `source`.
    pub gate: Name,
    pub since: Timestamp,
    /// The instant to decide again; FOREVER: only an event can end it.
    pub until: Timestamp,
    pub because: Arc<str>,
}

/// A cap slot: reserved at the decision, stamped at the send-intent, released only on a definite non-acceptance.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    pub message: MessageId,
    pub rule: Name,
    pub category: Category,
    pub channel: Channel,
    /// None while pending; pending slots always count.
    pub sent_at: Option<Timestamp>,
    /// Hash of the text that went out, where `policy.duplicates` asks for it.
    pub text: Option<u64>,
}

/// What kind of message it is, for consent, caps and quiet hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    Marketing,
    Service,
    Transactional,
}

impl Category {
    pub const ALL: [Category; 3] = [Category::Marketing, Category::Service, Category::Transactional];

    pub fn name(self) -> &'static str {
        match self {
            Category::Marketing => "marketing",
            Category::Service => "service",
            Category::Transactional => "transactional",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }
}

impl RunOutcome {
    pub const ALL: [RunOutcome; 6] =
        [RunOutcome::Done, RunOutcome::Left, RunOutcome::Stopped, RunOutcome::Expired, RunOutcome::Disabled, RunOutcome::Superseded];

    pub fn name(self) -> &'static str {
        match self {
            RunOutcome::Done => "done",
            RunOutcome::Left => "left",
            RunOutcome::Stopped => "stopped",
            RunOutcome::Expired => "expired",
            RunOutcome::Disabled => "disabled",
            RunOutcome::Superseded => "superseded",
        }
    }
}

impl Profile {
    pub fn new(key: &str) -> Self {
        Profile { key: Arc::from(key), ..Profile::default() }
    }

    pub fn country(&self) -> &str {
        match &self.country {
            Some(Attribute { value: Value::Text(code), .. }) => code,
            _ => "ZZ",
        }
    }

    /// The person's own zone attribute, if it names one.
    pub fn own_zone(&self) -> Option<Zone> {
        match &self.zone {
            Some(Attribute { value: Value::Text(name), .. }) => Zone::named(name),
            _ => None,
        }
    }

    /// Start of the present silence: the last active event, else the first event of all.
    pub fn silent_since(&self) -> Option<Timestamp> {
        self.activity.last_active_at.or(self.first_seen_at)
    }

    pub fn memory(&self, rule: &str) -> Option<&RuleMemory> {
        self.rules.get(rule)
    }
}

impl Series {
    /// Adds a point at its own place in time.
    pub fn insert(&mut self, point: Point) {
        let index = self.points.partition_point(|p| *p <= point);
        self.points.insert(index, point);
        self.first_at = Some(self.first_at.map_or(point.at, |at| at.min(point.at)));
        self.last_at = Some(self.last_at.map_or(point.at, |at| at.max(point.at)));
    }

    /// Folds what lies at or before `edge` into the totals.
    pub fn fold_until(&mut self, edge: Timestamp) {
        let keep_from = self.points.partition_point(|p| p.at <= edge);
        for point in self.points.drain(..keep_from) {
            self.before_count += 1;
            self.before_sum = self.before_sum.saturating_add(point.value);
        }
    }

    /// The points of `(after, upto]`.
    pub fn window(&self, after: Timestamp, upto: Timestamp) -> &[Point] {
        let from = self.points.partition_point(|p| p.at <= after);
        let to = self.points.partition_point(|p| p.at <= upto);
        self.points.get(from..to.max(from)).unwrap_or_default()
    }

    pub fn count_ever(&self) -> u64 {
        self.before_count + self.points.len() as u64
    }

    pub fn sum_ever(&self) -> i64 {
        self.points.iter().fold(self.before_sum, |sum, p| sum.saturating_add(p.value))
    }
}
