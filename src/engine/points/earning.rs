//! What an event earns, and what its refund takes back: first from the lot of its own order, then from what is left.

use super::lots::{NewLot, add_lot, slide};
use super::{Booked, Origin, drain, negated, post, share};
use crate::engine::absorb::{self, ORDER_COMPLETED, ORDER_REFUNDED};
use crate::engine::action::PostingKind;
use crate::engine::event::Event;
use crate::engine::profile::{Lot, Name, Owed, Profile, Wallet};
use crate::engine::rule::expr::Names;
use crate::engine::rule::{Earn, EarnAmount};
use crate::engine::time::Timestamp;

/// Order ids longer than this are kept as a hash.
const ORDER_ID_MAX: usize = 24;

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

fn book_reversal(profile: &mut Profile, class: &Name, taken: Vec<(u32, i64)>, at: Timestamp, booked: &mut Booked) {
    if !taken.is_empty() {
        let origin = Origin::reason(&Name::from(ORDER_REFUNDED));
        post(profile, booked, PostingKind::Reverse, class, at, negated(taken), origin);
    }
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
