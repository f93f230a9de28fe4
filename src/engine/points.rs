//! Points: lots, what is earned, what expires, what a penalty may take, what comes back.
//!
//! A lot is so many points of one class with one expiry. Every change is a [`Posting`] with its allocations (lot, amount), so that a
//! refund, a restore or an auditor finds the very lots; the wallet in the profile is the present state of that append-only ledger, and
//! [`audit`] compares the two. What goes, goes first-expiring-first.
//!
//! Not here: whether a take may happen at all (notice, grace, holdout, exemptions: `decide/notice.rs`). Here is how much may go, and
//! that it comes back.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::absorb::{self, ORDER_COMPLETED, ORDER_REFUNDED};
use super::action::{MessageId, Posting, PostingKind};
use super::event::Event;
use super::profile::{Lot, Name, Owed, Profile, Take, TakeKind, Wallet};
use super::rule::expr::Names;
use super::rule::{Earn, EarnAmount, Expiry, Pack, Penalty, Program, TakeAction, TakeAmount};
use super::time::{DAY_MS, Span, Timestamp, Zone};

/// `points_expiring` is said that long before a lot expires.
pub const EXPIRING_NOTICE_MS: i64 = 14 * DAY_MS;
/// A lot that expired while its points were away lives so much longer once they are back.
const REVIVED: Span = Span::days(14);
/// So long a refund finds the lot of its own order; then lots that expire together are joined.
const LOT_SOURCE_KEPT_MS: i64 = 60 * DAY_MS;
/// So few lots are not worth joining.
const LOTS_AT_EASE: usize = 8;
const LOTS_MANY: usize = 64;
/// Takes and lapses can come back however late the event is heard of, so the latest are kept without a term.
const TAKES_MAX: usize = 32;
const LAPSES_MAX: usize = 16;
/// Order ids longer than this are kept as a hash.
const ORDER_ID_MAX: usize = 24;
/// Québec's P-40.1 r.3 art. 79.6.3: units expire only after a year without activity.
const STRICT_SILENCE_MS: i64 = 365 * DAY_MS;
/// Classes, by name, that a penalty never touches where only a bonus may go.
const NEVER_BONUS: [&str; 2] = ["earned", "purchased"];

/// What booking produced: rows for the ledger, and events of the engine's own.
#[derive(Debug, Default)]
pub struct Booked {
    pub postings: Vec<Posting>,
    pub events: Vec<OwnEvent>,
}

/// An event of the engine's own, before it has an id.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnEvent {
    /// The name rules use (`points_taken`).
    pub name: Name,
    pub at: Timestamp,
    pub properties: Map<String, Json>,
}

impl Booked {
    /// Adds an event; `properties` is an object.
    pub fn say(&mut self, name: &str, at: Timestamp, properties: Json) {
        let properties = match properties {
            Json::Object(map) => map,
            _ => Map::new(),
        };
        self.events.push(OwnEvent { name: Name::from(name), at, properties });
    }
}

// -------------------------------------------------------------------------------------------------------------------- balances

impl Lot {
    /// Spendable at `now`: activated, not expired, something left.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.left > 0 && self.activates_at <= now && now < self.expires_at
    }

    /// Granted but not spendable yet.
    pub fn is_pending(&self, now: Timestamp) -> bool {
        self.left > 0 && now < self.activates_at && self.activates_at < self.expires_at
    }
}

/// Spendable points of a class (of all classes without one), and until when that stands while no fact arrives.
pub fn balance(wallet: &Wallet, class: Option<&str>, now: Timestamp) -> (i64, Timestamp) {
    let lots = wallet.lots.iter().filter(|lot| class.is_none_or(|class| &*lot.class == class));
    lots.fold((0, Timestamp::FOREVER), |(sum, until), lot| {
        if lot.is_active(now) {
            (sum + lot.left, until.min(lot.expires_at))
        } else if lot.is_pending(now) {
            (sum, until.min(lot.activates_at))
        } else {
            (sum, until)
        }
    })
}

/// Points that will become spendable by themselves.
pub fn pending(wallet: &Wallet, now: Timestamp) -> (i64, Timestamp) {
    let lots = wallet.lots.iter().filter(|lot| lot.is_pending(now));
    lots.fold((0, Timestamp::FOREVER), |(sum, until), lot| (sum + lot.left, until.min(lot.activates_at)))
}

/// Spendable points that expire within exactly `within_ms`.
pub fn expiring(wallet: &Wallet, within_ms: i64, now: Timestamp) -> (i64, Timestamp) {
    wallet.lots.iter().fold((0, Timestamp::FOREVER), |(sum, until), lot| {
        let comes_near = lot.expires_at.plus_ms(-within_ms).max(lot.activates_at);
        if lot.left <= 0 || lot.expires_at <= now {
            (sum, until)
        } else if now < comes_near {
            (sum, until.min(comes_near))
        } else {
            (sum + lot.left, until.min(lot.expires_at))
        }
    })
}

/// When the next spendable points expire; none if none ever do.
pub fn next_expiry_at(wallet: &Wallet, now: Timestamp) -> (Option<Timestamp>, Timestamp) {
    let next = wallet.lots.iter().filter(|lot| lot.is_active(now)).map(|lot| lot.expires_at).min();
    (next.filter(|at| !at.is_forever()), balance(wallet, None, now).1)
}

// --------------------------------------------------------------------------------------------------------------------- ledger

/// Where a posting comes from, besides its kind.
#[derive(Default)]
struct Origin {
    reason: Option<Name>,
    rule: Option<Name>,
    run: Option<u32>,
    step: Option<Name>,
    notice: Option<MessageId>,
}

impl Origin {
    fn reason(reason: &Name) -> Self {
        Origin { reason: Some(reason.clone()), ..Origin::default() }
    }
}

/// Writes a posting under the profile's next number. The lots have been changed by the caller.
fn post(
    profile: &mut Profile,
    booked: &mut Booked,
    kind: PostingKind,
    class: &Name,
    at: Timestamp,
    allocations: Vec<(u32, i64)>,
    origin: Origin,
) {
    let amount = allocations.iter().map(|(_, amount)| amount).sum();
    let number = profile.postings;
    profile.postings += 1;
    let Origin { reason, rule, run, step, notice } = origin;
    let reason = reason.unwrap_or_else(|| Name::from(kind.name()));
    booked.postings.push(Posting { number, kind, class: class.clone(), amount, at, allocations, reason, rule, run, step, notice });
}

/// Compares a wallet with the ledger it is the sum of; `postings` are all of the profile's, by number. The error says what differs.
pub fn audit(wallet: &Wallet, postings: &[Posting]) -> Result<(), String> {
    for (expected, posting) in postings.iter().enumerate() {
        if posting.number as usize != expected {
            return Err(format!("posting {expected} is missing: the next one has number {}", posting.number));
        }
        let allocated: i64 = posting.allocations.iter().map(|(_, amount)| amount).sum();
        if allocated != posting.amount {
            return Err(format!("posting {expected} is of {} points, its allocations are of {allocated}", posting.amount));
        }
    }
    if let Some(lot) = wallet.lots.iter().find(|lot| lot.left < 0 || lot.left > lot.granted) {
        return Err(format!("lot {} has {} of {} points left", lot.id, lot.left, lot.granted));
    }
    let classes: BTreeSet<&Name> = wallet.lots.iter().map(|lot| &lot.class).chain(postings.iter().map(|p| &p.class)).collect();
    for class in classes {
        let left: i64 = wallet.lots.iter().filter(|lot| lot.class == *class).map(|lot| lot.left).sum();
        let posted: i64 = postings.iter().filter(|posting| posting.class == *class).map(|posting| posting.amount).sum();
        if left != posted {
            return Err(format!("{left} points of {class} are left, the ledger's sum is {posted}"));
        }
    }
    audit_lots(wallet, postings)
}

fn audit_lots(wallet: &Wallet, postings: &[Posting]) -> Result<(), String> {
    let mut by_lot = std::collections::BTreeMap::<u32, i64>::new();
    let mut class_of = std::collections::BTreeMap::<u32, &Name>::new();
    for posting in postings {
        for (lot, amount) in &posting.allocations {
            *by_lot.entry(*lot).or_default() += amount;
            let class = class_of.entry(*lot).or_insert(&posting.class);
            if **class != posting.class {
                return Err(format!("posting {} is of {}, its lot {lot} of {class}", posting.number, posting.class));
            }
        }
    }
    // what old lots that were joined say of themselves is in their sum only: the class's
    for lot in wallet.lots.iter().filter(|lot| !lot.source.is_empty()) {
        let posted = by_lot.get(&lot.id).copied().unwrap_or_default();
        if lot.left != posted {
            return Err(format!("lot {} has {} points left, its postings add up to {posted}", lot.id, lot.left));
        }
    }
    Ok(())
}

// -------------------------------------------------------------------------------------------------------------------- granting

/// Points given by a rule (or by hand: without one).
#[derive(Debug, Clone)]
pub struct PointsGrant {
    pub class: Name,
    pub amount: i64,
    pub at: Timestamp,
    /// Replaces the expiry of the class.
    pub expires: Option<Span>,
    pub reason: Name,
    pub rule: Option<Name>,
    pub run: Option<u32>,
    pub step: Option<Name>,
}

/// Grants points; an amount of none or less grants nothing.
pub fn grant(profile: &mut Profile, names: Names<'_>, grant: PointsGrant, booked: &mut Booked) {
    let PointsGrant { class, amount, at, expires, reason, rule, run, step } = grant;
    let zone = names.policy.zone_of(profile);
    let expires_at = expires.map(|span| span.after(at, &zone));
    let source = match (&rule, run, &step) {
        (Some(rule), Some(run), Some(step)) => Name::from(format!("{rule}/{run}/{step}")),
        _ => reason.clone(),
    };
    let origin = Origin { reason: Some(reason), rule, run, step, notice: None };
    add_lot(profile, names, NewLot { class: &class, amount, at, activates_at: at, expires_at, source }, origin, booked);
}

struct NewLot<'a> {
    class: &'a Name,
    amount: i64,
    at: Timestamp,
    activates_at: Timestamp,
    /// Instead of the expiry of the class.
    expires_at: Option<Timestamp>,
    source: Name,
}

fn add_lot(profile: &mut Profile, names: Names<'_>, new: NewLot<'_>, origin: Origin, booked: &mut Booked) {
    if new.amount <= 0 {
        return;
    }
    let expires_at = new.expires_at.unwrap_or_else(|| class_expiry(profile, names, new.class, new.activates_at));
    let id = profile.wallet.next_lot;
    profile.wallet.next_lot += 1;
    profile.wallet.lots.push(Lot {
        id,
        class: new.class.clone(),
        granted: new.amount,
        left: new.amount,
        granted_at: new.at,
        activates_at: new.activates_at,
        expires_at,
        expiry_fixed: new.expires_at.is_some(),
        source: new.source,
    });
    post(profile, booked, PostingKind::Grant, new.class, new.at, vec![(id, new.amount)], origin);
}

/// When a lot of that class expires by the program; a class that the program no longer knows keeps its lots.
fn class_expiry(profile: &Profile, names: Names<'_>, class: &str, activates_at: Timestamp) -> Timestamp {
    let Some(known) = names.program.and_then(|program| program.classes.get(class)) else { return Timestamp::FOREVER };
    let zone = names.policy.zone_of(profile);
    match known.expiry {
        Expiry::Never => Timestamp::FOREVER,
        Expiry::Rolling { span, month_end: false } => span.after(activates_at, &zone),
        Expiry::Rolling { span, month_end: true } => month_end(span.after(activates_at, &zone), &names.policy.zone.last),
        Expiry::Inactivity(span) => span.after(profile.activity.last_active_at.map_or(activates_at, |at| at.max(activates_at)), &zone),
    }
}

/// The first instant of the month that follows in the shop's zone; an instant that is one stays.
fn month_end(at: Timestamp, shop: &Zone) -> Timestamp {
    if at.is_forever() {
        return at;
    }
    let date = at.local(shop).date();
    let begins = shop.start_of_day(date.first_of_month());
    if begins == at { at } else { date.last_of_month().tomorrow().map_or(Timestamp::FOREVER, |first| shop.start_of_day(first)) }
}

fn expires_by_inactivity(names: Names<'_>, lot: &Lot) -> bool {
    let class = names.program.and_then(|program| program.classes.get(&lot.class));
    !lot.expiry_fixed && class.is_some_and(|class| matches!(class.expiry, Expiry::Inactivity(_)))
}

/// Lots that lapse by inactivity live on from the last active event. An expiry only ever moves away.
fn slide(profile: &mut Profile, names: Names<'_>) {
    for index in 0..profile.wallet.lots.len() {
        let Some(lot) = profile.wallet.lots.get(index).filter(|lot| expires_by_inactivity(names, lot)) else { continue };
        let expires_at = class_expiry(profile, names, &lot.class, lot.activates_at);
        if let Some(lot) = profile.wallet.lots.get_mut(index) {
            lot.expires_at = lot.expires_at.max(expires_at);
        }
    }
}

// --------------------------------------------------------------------------------------------------------------------- earning

/// Books what an event earns, and what a refund takes back. The event has been absorbed.
pub fn earn(profile: &mut Profile, event: &Event, names: Names<'_>, booked: &mut Booked) {
    let Some(program) = names.program else { return };
    let Some(name) = absorb::rule_name(event, names.dictionary) else { return };
    if absorb::is_active(event, names.dictionary) {
        slide(profile, names);
    }
    for (index, entry) in program.earn.iter().enumerate() {
        if entry.event == name {
            credit(profile, event, names, (&program.earn, index), booked);
        }
        if &*name == ORDER_REFUNDED && &*entry.event == ORDER_COMPLETED {
            reverse(profile, event, names, (&program.earn, index), booked);
        }
    }
}

fn credit(profile: &mut Profile, event: &Event, names: Names<'_>, (earn, index): (&[Earn], usize), booked: &mut Booked) {
    let Some(entry) = earn.get(index) else { return };
    let at = event.occurred_at;
    let amount = match entry.amount {
        EarnAmount::Fixed(points) => points,
        EarnAmount::Rate { points, per } => {
            let total = absorb::event_money(&event.properties, "total", names.dictionary.currency).unwrap_or(0);
            share(points, total, per.minor)
        }
    };
    if amount <= 0 || !within_limit(&mut profile.wallet, index, entry, at) {
        return;
    }
    let zone = names.policy.zone_of(profile);
    let activates_at = entry.pending.after(at, &zone);
    let source = if &*entry.event == ORDER_COMPLETED { order_source(event, earn, index) } else { event.id.clone() };
    let new = NewLot { class: &entry.class, amount, at, activates_at, expires_at: None, source };
    add_lot(profile, names, new, Origin::reason(&entry.event), booked);
    pay_what_is_owed(profile, names, &entry.class, at, booked);
}

/// `points` for every `per`, rounded down.
fn share(points: i64, of: i64, per: i64) -> i64 {
    let amount = i128::from(points) * i128::from(of.max(0)) / i128::from(per.max(1));
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn within_limit(wallet: &mut Wallet, index: usize, entry: &Earn, at: Timestamp) -> bool {
    let Some((max, window_ms)) = entry.limit else { return true };
    let Ok(index) = u16::try_from(index) else { return true };
    let near = |seen: Timestamp| seen.ms_since(at).abs() < window_ms;
    let used = wallet.earned.iter().filter(|(of, seen)| *of == index && near(*seen)).count();
    if used >= max as usize {
        return false;
    }
    wallet.earned.retain(|(of, seen)| *of != index || seen.plus_ms(2 * window_ms) > at);
    wallet.earned.push((index, at));
    true
}

/// What marks the lot that one order earned by one earn entry; entries of different classes need no more than the class to tell.
fn order_source(event: &Event, earn: &[Earn], index: usize) -> Name {
    let is_like = |entry: &&Earn| earn.get(index).is_some_and(|this| this.event == entry.event && this.class == entry.class);
    let before = earn.iter().take(index).filter(is_like).count();
    let id = event.text_property("order_id").unwrap_or(&event.id);
    let hashed = || format!("{:016x}", twox_hash::XxHash3_64::oneshot(id.as_bytes()));
    let id = if id.len() <= ORDER_ID_MAX { id.to_owned() } else { hashed() };
    Name::from(if before == 0 { id } else { format!("{id}#{before}") })
}

/// A refund takes back what its order earned: by the rate, or its share of a fixed amount; from the order's own lots first, pending
/// ones first, and within the balance of the class. An order that nobody can name any more gives back by the rate alone.
fn reverse(profile: &mut Profile, event: &Event, names: Names<'_>, (earn, index): (&[Earn], usize), booked: &mut Booked) {
    let Some(entry) = earn.get(index) else { return };
    let at = event.occurred_at;
    let source = order_source(event, earn, index);
    let refunded = absorb::event_money(&event.properties, "total", names.dictionary.currency).map(i64::abs);
    let own: Vec<&Lot> = profile.wallet.lots.iter().filter(|lot| lot.class == entry.class && lot.source == source).collect();
    let earned: i64 = own.iter().map(|lot| lot.granted).sum();
    let order_total = own.first().map_or(0, |lot| value_of_order(profile, lot.granted_at));
    let due = match (entry.amount, refunded) {
        // a refund without an amount is of the whole order
        (_, None) => earned,
        (EarnAmount::Rate { points, per }, Some(refunded)) if own.is_empty() => share(points, refunded, per.minor),
        (EarnAmount::Rate { points, per }, Some(refunded)) => share(points, refunded, per.minor).min(earned),
        (EarnAmount::Fixed(_), Some(refunded)) if order_total > 0 => share(earned, refunded, order_total).min(earned),
        (EarnAmount::Fixed(_), Some(_)) => 0,
    };
    let taken = take_back(profile, &entry.class, &source, due, at);
    let short = due - taken.iter().map(|(_, amount)| amount).sum::<i64>();
    if short > 0 {
        let oldest = at.plus_ms(-names.policy.lateness_correct_ms);
        profile.wallet.owed.retain(|owed| owed.at > oldest);
        profile.wallet.owed.push(Owed { class: entry.class.clone(), amount: short, at });
    }
    book_reversal(profile, &entry.class, taken, at, booked);
}

/// What the person ordered at that very instant, if the series still has it.
fn value_of_order(profile: &Profile, at: Timestamp) -> i64 {
    profile.orders.window(at.plus_ms(-1), at).iter().map(|point| point.value).max().unwrap_or(0)
}

fn take_back(profile: &mut Profile, class: &Name, source: &Name, due: i64, at: Timestamp) -> Vec<(u32, i64)> {
    let mut order: Vec<usize> = (0..profile.wallet.lots.len()).collect();
    let lots = &profile.wallet.lots;
    order.retain(|index| lots.get(*index).is_some_and(|lot| lot.class == *class && lot.left > 0 && lot.expires_at > at));
    order.sort_by_key(|index| {
        lots.get(*index).map(|lot| (lot.source != *source, lot.activates_at <= at, std::cmp::Reverse((lot.granted_at, lot.id))))
    });
    drain(&mut profile.wallet, &order, due)
}

/// Takes `due` points from these lots in this order, as far as they reach.
fn drain(wallet: &mut Wallet, order: &[usize], due: i64) -> Vec<(u32, i64)> {
    let mut rest = due;
    let mut taken = vec![];
    for index in order {
        let Some(lot) = wallet.lots.get_mut(*index) else { continue };
        let part = lot.left.min(rest);
        if part > 0 {
            lot.left -= part;
            rest -= part;
            taken.push((lot.id, part));
        }
    }
    taken
}

fn book_reversal(profile: &mut Profile, class: &Name, taken: Vec<(u32, i64)>, at: Timestamp, booked: &mut Booked) {
    if !taken.is_empty() {
        let origin = Origin::reason(&Name::from(ORDER_REFUNDED));
        post(profile, booked, PostingKind::Reverse, class, at, negated(taken), origin);
    }
}

fn negated(allocations: Vec<(u32, i64)>) -> Vec<(u32, i64)> {
    allocations.into_iter().map(|(lot, amount)| (lot, -amount)).collect()
}

/// An order that is heard of after its refund pays what the refund could not take.
fn pay_what_is_owed(profile: &mut Profile, names: Names<'_>, class: &Name, earned_at: Timestamp, booked: &mut Booked) {
    let oldest = earned_at.plus_ms(-names.policy.lateness_correct_ms);
    profile.wallet.owed.retain(|owed| owed.amount > 0 && owed.at > oldest);
    for index in 0..profile.wallet.owed.len() {
        let Some(owed) = profile.wallet.owed.get(index).filter(|owed| owed.class == *class && owed.at >= earned_at) else { continue };
        let (due, at) = (owed.amount, owed.at);
        let newest = profile.wallet.lots.len().saturating_sub(1);
        let taken = drain(&mut profile.wallet, &[newest], due);
        if let Some(owed) = profile.wallet.owed.get_mut(index) {
            owed.amount -= taken.iter().map(|(_, amount)| amount).sum::<i64>();
        }
        book_reversal(profile, class, taken, at, booked);
    }
    profile.wallet.owed.retain(|owed| owed.amount > 0);
}

// ------------------------------------------------------------------------------------------------------------- expiry and lapse

/// Books expiries and lapses that fall due at or before `until`, each at its own instant, in order; says `points_expiring` 14 days
/// before (a lot that lives shorter than that has no such notice).
pub fn book(profile: &mut Profile, names: Names<'_>, until: Timestamp, booked: &mut Booked) {
    while let Some(at) = next_instant(&profile.wallet).filter(|at| *at <= until) {
        say_expiring(profile, at, booked);
        expire(profile, names, at, booked);
        // a lot that expired before it was heard of is booked at its own instant, in the past
        profile.wallet.booked_until = profile.wallet.booked_until.max(at);
    }
    profile.wallet.booked_until = profile.wallet.booked_until.max(until);
    tidy(&mut profile.wallet, until);
}

/// The next instant at which [`book`] has something to do.
pub fn next_due(profile: &Profile, _names: Names<'_>) -> Timestamp {
    next_instant(&profile.wallet).unwrap_or(Timestamp::FOREVER)
}

fn next_instant(wallet: &Wallet) -> Option<Timestamp> {
    let lots = wallet.lots.iter().filter(|lot| lot.left > 0 && !lot.expires_at.is_forever());
    lots.flat_map(|lot| [Some(lot.expires_at), expiring_notice_at(wallet, lot)]).flatten().min()
}

/// When `points_expiring` is still to be said of a lot.
fn expiring_notice_at(wallet: &Wallet, lot: &Lot) -> Option<Timestamp> {
    let at = lot.expires_at.plus_ms(-EXPIRING_NOTICE_MS);
    (at > wallet.booked_until && at >= lot.granted_at).then_some(at)
}

fn say_expiring(profile: &Profile, at: Timestamp, booked: &mut Booked) {
    let wallet = &profile.wallet;
    let lots = wallet.lots.iter().filter(|lot| lot.left > 0 && expiring_notice_at(wallet, lot) == Some(at));
    let mut by_class = std::collections::BTreeMap::<&Name, i64>::new();
    for lot in lots {
        *by_class.entry(&lot.class).or_default() += lot.left;
    }
    for (class, points) in by_class {
        let expires_at = at.plus_ms(EXPIRING_NOTICE_MS).to_string();
        booked.say("points_expiring", at, json!({ "class": **class, "points": points, "expires_at": expires_at }));
    }
}

fn expire(profile: &mut Profile, names: Names<'_>, at: Timestamp, booked: &mut Booked) {
    let mut gone = std::collections::BTreeMap::<(Name, bool), Vec<(u32, i64)>>::new();
    for lot in profile.wallet.lots.iter_mut().filter(|lot| lot.left > 0 && lot.expires_at <= at) {
        let lapses = expires_by_inactivity(names, lot);
        gone.entry((lot.class.clone(), lapses)).or_default().push((lot.id, std::mem::take(&mut lot.left)));
    }
    for ((class, lapses), allocations) in gone {
        let kind = if lapses { PostingKind::Lapse } else { PostingKind::Expire };
        if lapses {
            let lapse = lapse_of(profile, &class, at, allocations.clone());
            profile.wallet.takes.push(lapse);
        }
        post(profile, booked, kind, &class, at, negated(allocations), Origin::default());
    }
}

/// A lapse comes back only if an active event shows that the inactivity never was.
fn lapse_of(profile: &Profile, class: &Name, at: Timestamp, allocations: Vec<(u32, i64)>) -> Take {
    Take {
        kind: TakeKind::Lapse,
        rule: class.clone(),
        run: 0,
        step: Name::from(""),
        reason: Name::from("inactivity"),
        at,
        silence_since: profile.silent_since().unwrap_or(Timestamp::DISTANT_PAST),
        allocations,
        restore_until: at,
        restore_share: 100,
        restored_at: None,
        eligible_before: 0,
    }
}

/// Drops what nothing can come back to, and joins lots that expire together.
fn tidy(wallet: &mut Wallet, now: Timestamp) {
    keep_latest(&mut wallet.takes, TakeKind::Take, TAKES_MAX);
    keep_latest(&mut wallet.takes, TakeKind::Lapse, LAPSES_MAX);
    let awaited: BTreeSet<u32> = wallet.takes.iter().flat_map(|take| &take.allocations).map(|(lot, _)| *lot).collect();
    wallet.lots.retain(|lot| lot.left > 0 || awaited.contains(&lot.id));
    if wallet.lots.len() > LOTS_AT_EASE {
        join_old_lots(&mut wallet.lots, &awaited, now);
    }
}

fn keep_latest(takes: &mut Vec<Take>, kind: TakeKind, max: usize) {
    let mut surplus = takes.iter().filter(|take| take.kind == kind).count().saturating_sub(max);
    takes.retain(|take| {
        let goes = take.kind == kind && surplus > 0;
        surplus -= usize::from(goes);
        !goes
    });
}

/// Joins lots of one class that expire on one day (in one week, if there are many), once their orders are too old to be refunded one by
/// one. What is joined expires with the last of it, in the person's favour; so the row of a heavy buyer stays small.
fn join_old_lots(lots: &mut Vec<Lot>, awaited: &BTreeSet<u32>, now: Timestamp) {
    let bucket_ms = if lots.len() > LOTS_MANY { 7 * DAY_MS } else { DAY_MS };
    let bucket = |lot: &Lot| (lot.expires_at.as_ms().div_euclid(bucket_ms), lot.expiry_fixed);
    let mut kept: Vec<Lot> = Vec::with_capacity(lots.len());
    // places in `kept` of the old lots: only they are joined
    let mut old: Vec<usize> = vec![];
    for mut lot in lots.drain(..) {
        if lot.granted_at.max(lot.activates_at).plus_ms(LOT_SOURCE_KEPT_MS) > now || awaited.contains(&lot.id) {
            kept.push(lot);
            continue;
        }
        lot.source = Name::from("");
        let is_like = |place: &&usize| kept.get(**place).is_some_and(|other| other.class == lot.class && bucket(other) == bucket(&lot));
        let place = old.iter().find(is_like).copied();
        match place.and_then(|place| kept.get_mut(place)) {
            Some(joined) => {
                joined.granted += lot.granted;
                joined.left += lot.left;
                joined.expires_at = joined.expires_at.max(lot.expires_at);
            }
            None => {
                old.push(kept.len());
                kept.push(lot);
            }
        }
    }
    *lots = kept;
}

// ------------------------------------------------------------------------------------------------------------------- penalties

/// What a take is ordered to do: by which rule, under which notice.
#[derive(Debug, Clone)]
pub struct TakeOrder {
    /// No more than this, whatever could be taken by now.
    pub announced: i64,
    pub at: Timestamp,
    pub rule: Name,
    pub run: u32,
    pub step: Name,
    pub notice: MessageId,
    /// The silence it is for: each stage at most once in it.
    pub silence_since: Timestamp,
}

/// What a take made at `now` would take: by its own amount, `max` and `keep`, the programme's classes, `keep` and cap, narrowed by the
/// jurisdiction's pack; never pending points; nothing while a ticket or dispute is open; rounded in the person's favour.
pub fn takeable(profile: &Profile, names: Names<'_>, take: &TakeAction, now: Timestamp) -> i64 {
    let Some(program) = names.program else { return 0 };
    let pack = program.jurisdiction.pack_for(profile);
    let in_trouble = absorb::tickets_open(profile) > 0 || absorb::dispute_open(profile);
    if in_trouble || !may_touch(program, pack, &take.of) || !is_silent_enough(profile, pack, now) {
        return 0;
    }
    let (balance, _) = balance(&profile.wallet, Some(&take.of), now);
    let wanted = match take.amount {
        TakeAmount::Share(basis_points) => share(i64::from(basis_points), balance, 10_000),
        TakeAmount::Points(points) => points,
    };
    let above_keep = balance - take.keep.max(program.penalty.keep);
    wanted.min(take.max).min(above_keep).min(cap_left(profile, program, pack, now)).max(0)
}

/// Whether a penalty may touch that class at all, there.
fn may_touch(program: &Program, pack: Pack, class: &Name) -> bool {
    program.penalty.classes.contains(class)
        && match pack {
            Pack::NoTakes => false,
            Pack::BonusOnly | Pack::StrictNotice => !NEVER_BONUS.contains(&&**class),
            Pack::AsProgrammed => &**class != "purchased",
        }
}

fn is_silent_enough(profile: &Profile, pack: Pack, now: Timestamp) -> bool {
    pack != Pack::StrictNotice || profile.silent_since().is_some_and(|since| now.ms_since(since) >= STRICT_SILENCE_MS)
}

/// What penalties may touch at `now`, over all classes.
fn eligible(profile: &Profile, program: &Program, pack: Pack, now: Timestamp) -> i64 {
    let lots = profile.wallet.lots.iter().filter(|lot| lot.is_active(now) && may_touch(program, pack, &lot.class));
    lots.map(|lot| lot.left).sum()
}

/// What the cap of the programme leaves: a share of what was eligible before the first take of its window, less what takes of the
/// window still hold. What came back counts as never taken.
fn cap_left(profile: &Profile, program: &Program, pack: Pack, now: Timestamp) -> i64 {
    let Penalty { cap: Some((basis_points, window_ms)), .. } = program.penalty else { return i64::MAX };
    let held = |take: &Take| take.allocations.iter().map(|(_, amount)| amount).sum::<i64>();
    let in_window = |take: &&Take| take.kind == TakeKind::Take && take.at > now.plus_ms(-window_ms) && held(take) > 0;
    let takes: Vec<&Take> = profile.wallet.takes.iter().filter(in_window).collect();
    let base = takes.iter().min_by_key(|take| take.at).map_or_else(|| eligible(profile, program, pack, now), |take| take.eligible_before);
    share(i64::from(basis_points), base, 10_000) - takes.iter().map(|take| held(take)).sum::<i64>()
}

/// Takes points, no more than announced and no more than [`takeable`] says now; each stage once per silence. Returns how many.
pub fn take(profile: &mut Profile, names: Names<'_>, take: &TakeAction, order: TakeOrder, booked: &mut Booked) -> i64 {
    let Some(program) = names.program else { return 0 };
    let same_stage = |t: &Take| t.rule == order.rule && t.step == order.step && t.silence_since == order.silence_since;
    if profile.wallet.takes.iter().any(|t| t.kind == TakeKind::Take && same_stage(t)) {
        return 0;
    }
    let amount = takeable(profile, names, take, order.at).min(order.announced);
    if amount <= 0 {
        return 0;
    }
    let eligible_before = eligible(profile, program, program.jurisdiction.pack_for(profile), order.at);
    let first_expiring = first_expiring(&profile.wallet, &take.of, order.at);
    let allocations = drain(&mut profile.wallet, &first_expiring, amount);
    let restore_until = order.at.plus_ms(take.restore_within_ms);
    profile.wallet.takes.push(Take {
        kind: TakeKind::Take,
        rule: order.rule.clone(),
        run: order.run,
        step: order.step.clone(),
        reason: take.reason.clone(),
        at: order.at,
        silence_since: order.silence_since,
        allocations: allocations.clone(),
        restore_until,
        restore_share: take.restore_share,
        restored_at: None,
        eligible_before,
    });
    let said = json!({ "class": *take.of, "points": amount, "reason": *take.reason, "rule": *order.rule, "step": *order.step,
        "restore_until": restore_until.to_string() });
    let origin = Origin {
        reason: Some(take.reason.clone()),
        rule: Some(order.rule),
        run: Some(order.run),
        step: Some(order.step),
        notice: Some(order.notice),
    };
    post(profile, booked, PostingKind::Take, &take.of, order.at, negated(allocations), origin);
    booked.say("points_taken", order.at, said);
    amount
}

/// Indexes of the spendable lots of a class, in the order in which they are used: first to expire, then oldest.
fn first_expiring(wallet: &Wallet, class: &Name, now: Timestamp) -> Vec<usize> {
    let mut order: Vec<(Timestamp, Timestamp, u32, usize)> = (wallet.lots.iter().enumerate())
        .filter(|(_, lot)| lot.class == *class && lot.is_active(now))
        .map(|(index, lot)| (lot.expires_at, lot.granted_at, lot.id, index))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(.., index)| index).collect()
}

/// Gives back what an active event at `active_at`, heard of at `now`, brings back: whatever run took it, whether or not it still lives.
/// An event before a take or lapse shows that the silence never was: all of it. One after a take and within its `restore.within`: its
/// share.
pub fn restore(profile: &mut Profile, names: Names<'_>, active_at: Timestamp, now: Timestamp, booked: &mut Booked) {
    slide(profile, names);
    for index in 0..profile.wallet.takes.len() {
        let share = profile.wallet.takes.get(index).and_then(|take| share_owed(take, active_at));
        if let Some(share_percent) = share {
            give_back(profile, names, index, share_percent, now, booked);
        }
    }
    // what has come back whole was of a silence that is over: no stage of it can come again
    profile.wallet.takes.retain(|take| !take.allocations.is_empty());
}

fn share_owed(take: &Take, active_at: Timestamp) -> Option<u8> {
    if active_at <= take.silence_since || take.allocations.is_empty() {
        None
    } else if active_at <= take.at {
        // at one instant events come before timers
        Some(100)
    } else {
        let is_within = take.kind == TakeKind::Take && take.restored_at.is_none() && active_at < take.restore_until;
        is_within.then_some(take.restore_share)
    }
}

/// Returns a share of a take to its own lots, those that live longest first, rounded in the person's favour.
fn give_back(profile: &mut Profile, names: Names<'_>, index: usize, share_percent: u8, now: Timestamp, booked: &mut Booked) {
    let zone = names.policy.zone_of(profile);
    let revived_until = REVIVED.after(now, &zone);
    let Wallet { lots, takes, .. } = &mut profile.wallet;
    let Some(take) = takes.get_mut(index) else { return };
    let total: i64 = take.allocations.iter().map(|(_, amount)| amount).sum();
    let mut rest = (total * i64::from(share_percent.min(100)) + 99) / 100;
    let expiry = |lot: &u32| lots.iter().find(|l| l.id == *lot).map_or(Timestamp::DISTANT_PAST, |l| l.expires_at);
    take.allocations.sort_by_key(|(lot, _)| std::cmp::Reverse((expiry(lot), *lot)));
    let (mut given, mut class) = (vec![], None);
    for (lot_id, away) in &mut take.allocations {
        let Some(lot) = lots.iter_mut().find(|lot| lot.id == *lot_id) else { continue };
        let part = rest.min(*away);
        if part > 0 {
            (lot.left, *away, rest) = (lot.left + part, *away - part, rest - part);
            lot.expires_at = if lot.expires_at <= now { revived_until } else { lot.expires_at };
            given.push((*lot_id, part));
            class = Some(lot.class.clone());
        }
    }
    take.allocations.retain(|(_, away)| *away > 0);
    take.restored_at = Some(now);
    let (reason, is_take) = (take.reason.clone(), take.kind == TakeKind::Take);
    let (rule, run, step) = (take.rule.clone(), take.run, take.step.clone());
    let Some(class) = class else { return };
    let points: i64 = given.iter().map(|(_, amount)| amount).sum();
    let origin = match is_take {
        true => Origin { reason: Some(reason.clone()), rule: Some(rule), run: Some(run), step: Some(step), notice: None },
        false => Origin::reason(&reason),
    };
    post(profile, booked, PostingKind::Restore, &class, now, given, origin);
    booked.say("points_restored", now, json!({ "class": *class, "points": points, "reason": *reason }));
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Shop, at, day, event, order, profile, refund, shop};
    use super::super::time::HOUR_MS;
    use super::*;
    use proptest::prelude::*;

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
}
