//! Points: lots, what is earned, what expires, what a penalty may take, what comes back.
//!
//! A lot is so many points of one class with one expiry. Every change is a [`Posting`] with its allocations (lot, amount), so that a
//! refund, a restore or an auditor finds the very lots; the wallet in the profile is the present state of that append-only ledger, and
//! [`audit`] compares the two. What goes, goes first-expiring-first.
//!
//! Not here: whether a take may happen at all (notice, grace, holdout, exemptions: `decide/notice.rs`). Here is how much may go, and
//! that it comes back.

mod earning;
mod lots;
mod penalties;

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

pub use self::earning::earn;
pub use self::lots::{EXPIRING_NOTICE_MS, PointsGrant, book, grant, next_due};
pub use self::penalties::{TakeOrder, restore, take, takeable};
use crate::engine::action::{MessageId, Posting, PostingKind};
use crate::engine::profile::{Lot, Name, Profile, Wallet};
use crate::engine::time::Timestamp;

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

// ----------------------------------------------------------------------------------------------------------------- arithmetic

/// `points` for every `per`, rounded down.
fn share(points: i64, of: i64, per: i64) -> i64 {
    let amount = i128::from(points) * i128::from(of.max(0)) / i128::from(per.max(1));
    i64::try_from(amount).unwrap_or(i64::MAX)
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

fn negated(allocations: Vec<(u32, i64)>) -> Vec<(u32, i64)> {
    allocations.into_iter().map(|(lot, amount)| (lot, -amount)).collect()
}

#[cfg(test)]
mod tests;
