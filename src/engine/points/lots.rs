//! Lots come and go: points are granted, activity moves an expiry on, a lot expires or lapses, old ones are joined.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Booked, Origin, negated, post};
use crate::engine::action::PostingKind;
use crate::engine::profile::{Lot, Name, Profile, Take, TakeKind, Wallet};
use crate::engine::rule::Expiry;
use crate::engine::rule::expr::Names;
use crate::engine::time::{DAY_MS, Span, Timestamp, Zone};

/// `points_expiring` is said that long before a lot expires.
pub const EXPIRING_NOTICE_MS: i64 = 14 * DAY_MS;
/// So long a refund finds the lot of its own order; then lots that expire together are joined.
const LOT_SOURCE_KEPT_MS: i64 = 60 * DAY_MS;
/// So few lots are not worth joining.
const LOTS_AT_EASE: usize = 8;
const LOTS_MANY: usize = 64;
/// Takes and lapses can come back however late the event is heard of, so the latest are kept without a term.
const TAKES_MAX: usize = 32;
const LAPSES_MAX: usize = 16;

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

pub(super) struct NewLot<'a> {
    pub class: &'a Name,
    pub amount: i64,
    pub at: Timestamp,
    pub activates_at: Timestamp,
    /// Instead of the expiry of the class.
    pub expires_at: Option<Timestamp>,
    pub source: Name,
}

pub(super) fn add_lot(profile: &mut Profile, names: Names<'_>, new: NewLot<'_>, origin: Origin, booked: &mut Booked) {
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
pub(super) fn slide(profile: &mut Profile, names: Names<'_>) {
    for index in 0..profile.wallet.lots.len() {
        let Some(lot) = profile.wallet.lots.get(index).filter(|lot| expires_by_inactivity(names, lot)) else { continue };
        let expires_at = class_expiry(profile, names, &lot.class, lot.activates_at);
        if let Some(lot) = profile.wallet.lots.get_mut(index) {
            lot.expires_at = lot.expires_at.max(expires_at);
        }
    }
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
