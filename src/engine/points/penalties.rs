//! What a penalty may take and how it comes back. Whether it may happen at all (notice, grace, holdout) is `decide/notice.rs`.

use serde_json::json;

use super::lots::slide;
use super::{Booked, Origin, balance, drain, negated, post, share};
use crate::engine::absorb;
use crate::engine::action::{MessageId, PostingKind};
use crate::engine::profile::{Name, Profile, Take, TakeKind, Wallet};
use crate::engine::rule::expr::Names;
use crate::engine::rule::{Pack, Penalty, Program, TakeAction, TakeAmount};
use crate::engine::time::{DAY_MS, Span, Timestamp};

/// A lot that expired while its points were away lives so much longer once they are back.
const REVIVED: Span = Span::days(14);
/// Québec's P-40.1 r.3 art. 79.6.3: units expire only after a year without activity.
const STRICT_SILENCE_MS: i64 = 365 * DAY_MS;
/// Classes, by name, that a penalty never touches where only a bonus may go.
const NEVER_BONUS: [&str; 2] = ["earned", "purchased"];

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
