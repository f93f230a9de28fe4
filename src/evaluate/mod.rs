//! Evaluate: claim due profiles, decide, commit. What is decided stands in `engine::decide`; here is what surrounds it:
//!
//! - **the brake**: entries per rule in any 60 minutes are counted from the store and this pass; a rule that exceeds its `max_entries` is
//!   put on hold, and whoever was one too many is decided again under the held rule;
//! - **the second look at I10**: a deduction without its delivered notice is not committed, whatever decided it;
//! - **isolation** (I9): a panic over one person is caught, that profile is set aside with the reason, and the batch goes on;
//! - **blindness**: heartbeats tell when we were down, [`sources`] when a source of activity was.
//!
//! It does not send, and it does not know where rules come from.

pub mod sources;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::clock::{Clock, StepWatch, Stopwatch};
use crate::engine::action::{Entry, PostingKind, What};
use crate::engine::decide::{Context, Decision, Pause, World, decide};
use crate::engine::profile::Name;
use crate::engine::time::{MINUTE_MS, Timestamp};
use crate::faults::{self, Point};
use crate::message;
use crate::store::{
    CLAIMS_MAX, Claim, ClaimedProfile, Committed, DecisionCommit, DueProfiles, ENTRIES_WITHIN_MS, Limits, Look, Store, StoreError,
};
use crate::telemetry::Telemetry;
use crate::telemetry::vitals::Part;
use crate::versions::{RuleVersions, Snapshot};

/// Profiles claimed at once by the loop: one commit of some hundred rows is what the store likes best.
pub const BATCH: usize = 500;
/// The loop looks without being woken after this long.
const POLL: Duration = Duration::from_millis(500);
/// The loop says that it is alive this often: well below the gap that counts as downtime.
const HEARTBEAT_MS: i64 = 30_000;
/// One that could not be written is tried again after this long.
const HEARTBEAT_AGAIN_MS: i64 = 3_000;
/// The span in which the brake counts entries.
const BRAKE_MS: i64 = ENTRIES_WITHIN_MS;
/// A batch is decided and written in so many portions at most, each of so many profiles at least.
const PORTIONS_MAX: usize = 3;
const PORTION_MIN: usize = 48;
/// Batches up to this size are decided where they are.
const INLINE_MAX: usize = 16;

/// What evaluation works with.
pub struct Evaluator {
    pub store: Arc<dyn Store>,
    pub rules: Arc<RuleVersions>,
    /// Name of this worker in claims and heartbeats.
    pub worker: Name,
}

/// What one pass did; passes add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Profiles claimed.
    pub claimed: u64,
    /// Calls of `decide`: one person at one instant; what the brake or a conflict makes us decide again counts again.
    pub evaluations: u64,
    pub entered: u64,
    pub messages: u64,
    pub postings: u64,
    /// Decisions that somebody else's write overtook: decided again in a later pass.
    pub conflicts: u64,
    /// Profiles set aside: poison, panics, unreadable rows.
    pub set_aside: u64,
    /// Deductions that the second look at I10 stopped.
    pub refused_takes: u64,
    /// Rules that their brake put on hold.
    pub braked: Vec<Name>,
    /// How late the profile was that had waited longest.
    pub late_ms: i64,
    /// Whoever was claimed was claimed alone, and more may wait.
    pub is_suspect: bool,
}

impl AddAssign for Pass {
    fn add_assign(&mut self, other: Pass) {
        self.claimed += other.claimed;
        self.evaluations += other.evaluations;
        self.entered += other.entered;
        self.messages += other.messages;
        self.postings += other.postings;
        self.conflicts += other.conflicts;
        self.set_aside += other.set_aside;
        self.refused_takes += other.refused_takes;
        self.braked.extend(other.braked);
        self.late_ms = self.late_ms.max(other.late_ms);
        self.is_suspect |= other.is_suspect;
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pass { claimed, evaluations, entered, messages, postings, .. } = self;
        write!(f, "{claimed} due, {evaluations} evaluations, {entered} entered, {messages} messages, {postings} postings")?;
        for (count, what) in [(self.conflicts, "overtaken"), (self.set_aside, "set aside"), (self.refused_takes, "deductions refused")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        self.braked.iter().try_for_each(|rule| write!(f, ", {rule} held by its brake"))
    }
}

/// How a loop is woken, whom it wakes, and when it ends.
pub struct Signals<'a> {
    /// Something may be due: look now.
    pub wake: &'a Notify,
    /// Told after a pass that queued messages.
    pub next: &'a Notify,
    pub shutdown: watch::Receiver<bool>,
}

/// Takes what is due, pass after pass, until told to shut down. Woken by the signal, and looks every half second all the same.
pub async fn run(evaluator: &Evaluator, clock: &dyn Clock, batch: usize, telemetry: &Telemetry, signals: Signals<'_>) {
    let Signals { wake, next, mut shutdown } = signals;
    let (mut heartbeat_due, mut sources_due) = (Timestamp::DISTANT_PAST, Timestamp::DISTANT_PAST);
    let mut steps = StepWatch::start(clock.now());
    let mut owed = Owed::default();
    while !*shutdown.borrow() {
        // interest is registered before looking: what comes in between is not missed
        let woken = wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let now = clock.now();
        if let Some(step_ms) = steps.look(now) {
            tell_step(telemetry, step_ms);
            (heartbeat_due, sources_due) = (now, now);
        }
        if now >= heartbeat_due {
            heartbeat_due = now.plus_ms(HEARTBEAT_MS);
            match evaluator.store.heartbeat(&evaluator.worker, now, now).await {
                Ok(()) => telemetry.vitals.well(Part::Writing),
                Err(error) => {
                    tracing::warn!("cannot write a heartbeat: {error}");
                    telemetry.vitals.ill(Part::Writing, error);
                    heartbeat_due = now.plus_ms(HEARTBEAT_AGAIN_MS);
                }
            }
        }
        if now >= sources_due {
            sources_due = now.plus_ms(sources::LOOK_EVERY_MS);
            let rules = evaluator.rules.snapshot().rules;
            if let Err(error) = sources::watch_sources(evaluator.store.as_ref(), &rules.policy, now).await {
                tracing::warn!("cannot look after the sources of activity: {error}");
            }
        }
        let watch = Stopwatch::start();
        telemetry.vitals.begin(Part::Evaluate);
        let looked = pass(evaluator, Look::Now(now), batch, &mut owed).await;
        telemetry.vitals.end(Part::Evaluate);
        observe(telemetry, &looked, watch);
        match looked {
            Ok(pass) => {
                if pass.messages > 0 {
                    next.notify_one();
                }
                if pass.claimed > 0 {
                    tracing::debug!("evaluated: {pass}");
                }
                if pass.claimed >= batch as u64 || pass.is_suspect {
                    continue;
                }
            }
            Err(error) => tracing::error!("evaluation failed, trying again: {error}"),
        }
        tokio::select! {
            () = &mut woken => {}
            () = tokio::time::sleep(POLL) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// The wall clock was set while we ran. What is due by it is due; a gap that it leaves counts as downtime, so that it takes nothing from
/// anybody's grace.
fn tell_step(telemetry: &Telemetry, step_ms: i64) {
    let direction = if step_ms > 0 { "forward" } else { "back" };
    tracing::error!(step_ms, "the clock of this machine was set {direction}, or the machine slept: see that it is right");
    telemetry.metrics.clock_steps.get_or_create(&direction.into()).inc();
}

fn observe(telemetry: &Telemetry, looked: &Result<Pass, StoreError>, watch: Stopwatch) {
    let metrics = &telemetry.metrics;
    let part = || "evaluate".into();
    match looked {
        Ok(pass) => {
            telemetry.vitals.well(Part::Evaluate);
            metrics.lateness_seconds.set(pass.late_ms as f64 / 1000.0);
            if pass.claimed == 0 {
                return;
            }
            metrics.pass_seconds.get_or_create(&part()).observe(watch.elapsed().as_secs_f64());
            metrics.evaluations.inc_by(pass.evaluations);
            metrics.entries.inc_by(pass.entered);
            metrics.set_aside.inc_by(pass.set_aside);
            metrics.takes_refused.inc_by(pass.refused_takes);
            metrics.conflicts.get_or_create(&part()).inc_by(pass.conflicts);
            for rule in &pass.braked {
                metrics.braked.get_or_create(&(&**rule).into()).inc();
            }
        }
        Err(error) => {
            telemetry.vitals.ill(Part::Evaluate, error);
            metrics.failures.get_or_create(&part()).inc();
        }
    }
}

/// One pass: at most `limit` profiles that are due. A replay ([`Look::AsDue`]) decides about each in its own instant.
pub async fn run_once(evaluator: &Evaluator, look: Look, limit: usize) -> Result<Pass, StoreError> {
    let mut owed = Owed::default();
    let passed = pass(evaluator, look, limit, &mut owed).await;
    if passed.is_err() {
        give_back(evaluator.store.as_ref(), &mut owed).await?;
    }
    passed
}

/// Claims of passes that could not be ended, as nobody knows what was written.
#[derive(Default)]
struct Owed {
    claims: Vec<Claim>,
    /// So many passes in a row, the reason of which lies perhaps with one of those they were about.
    failures: u32,
}

/// One pass. What passes before owe is given back first; what this one claims is owed if it fails.
async fn pass(evaluator: &Evaluator, look: Look, limit: usize, owed: &mut Owed) -> Result<Pass, StoreError> {
    let store = evaluator.store.as_ref();
    give_back(store, owed).await?;
    let due = store.claim_due(look.upto(), limit, &evaluator.worker).await?;
    owed.claims = due.profiles.iter().map(|claimed| claimed.claim).collect();
    match decide_about(evaluator, look, due).await {
        Ok(pass) => {
            *owed = Owed::default();
            Ok(pass)
        }
        Err(error) => {
            // a full disk is nobody's fault
            owed.failures = if matches!(error, StoreError::Full { .. }) { 0 } else { owed.failures + 1 };
            Err(error)
        }
    }
}

/// Whoever was written about is not claimed any more, so that giving them back does nothing; the others are due as they were. If it goes on
/// like that while the database takes this, the claims count, and whoever is at fault is found out as if the process had died of it.
async fn give_back(store: &dyn Store, owed: &mut Owed) -> Result<(), StoreError> {
    if !owed.claims.is_empty() {
        store.release_profiles(owed.claims.clone(), owed.failures > CLAIMS_MAX).await?;
        owed.claims.clear();
    }
    Ok(())
}

async fn decide_about(evaluator: &Evaluator, look: Look, due: DueProfiles) -> Result<Pass, StoreError> {
    let store = evaluator.store.as_ref();
    let late_ms = due.profiles.iter().map(|claimed| look.upto().ms_since(claimed.due_at)).max().unwrap_or(0);
    let pass = Pass {
        claimed: due.profiles.len() as u64,
        set_aside: due.corrupt.len() as u64,
        late_ms,
        is_suspect: due.is_suspect,
        ..Pass::default()
    };
    for (profile, error) in &due.corrupt {
        tracing::error!(profile.id = profile.0, "set aside: {error}");
    }
    let Some(first) = due.profiles.iter().map(|claimed| instant(look, claimed)).min() else { return Ok(pass) };
    Point::EvaluateClaimed.reach();
    let view = evaluator.rules.world(store, first).await?;
    let snapshot = evaluator.rules.snapshot_for(store, due.profiles.iter().map(|claimed| &claimed.profile)).await?;
    let world = view.world;
    let month_start = snapshot.rules.policy.month_start(first);
    let mut desk = Desk { snapshot, world, month_start, look, decided: vec![], parked: vec![], pass };
    let mut made = Made::default();
    for portion in portions(due.profiles) {
        let (looked, committed) = tokio::join!(first_look(desk, portion), commit(store, look, made));
        desk = looked;
        desk.pass += committed?;
        brake(store, &mut desk, first).await?;
        second_look(&mut desk);
        made = desk.hand_over();
    }
    desk.pass += commit(store, look, made).await?;
    Ok(desk.pass)
}

/// A large batch is decided in portions, one while the one before is being written: in three at most, since each takes a flush of
/// the disk.
fn portions(mut claimed: Vec<ClaimedProfile>) -> Vec<Vec<ClaimedProfile>> {
    let size = claimed.len().div_ceil(PORTIONS_MAX).max(PORTION_MIN);
    let mut portions = Vec::new();
    while claimed.len() > size {
        let rest = claimed.split_off(size);
        portions.push(std::mem::replace(&mut claimed, rest));
    }
    portions.push(claimed);
    portions
}

/// The instant at which a claimed profile is looked at: never before something that it is to hear.
fn instant(look: Look, claimed: &ClaimedProfile) -> Timestamp {
    match look {
        Look::Now(now) => now,
        Look::AsDue { .. } => claimed.events.iter().map(|event| event.received_at).fold(claimed.due_at, Timestamp::max),
    }
}

/// One pass under way: what decisions are made with, and what has been decided so far.
struct Desk {
    snapshot: Snapshot,
    world: Arc<World>,
    /// Since when its budgets count.
    month_start: Timestamp,
    look: Look,
    decided: Vec<(ClaimedProfile, Decision)>,
    /// To be set aside, with the reason.
    parked: Vec<(Claim, String)>,
    pass: Pass,
}

/// What is ready to be written.
#[derive(Default)]
struct Made {
    commits: Vec<DecisionCommit>,
    parked: Vec<(Claim, String)>,
}

/// Decides about everybody once. A large batch goes to a thread that may be busy for a while; for a small one the way there would
/// cost more than the deciding.
async fn first_look(mut desk: Desk, claimed: Vec<ClaimedProfile>) -> Desk {
    if claimed.len() <= INLINE_MAX {
        desk.look(claimed);
        return desk;
    }
    let work = tokio::task::spawn_blocking(move || {
        desk.look(claimed);
        desk
    });
    work.await.expect("every decision is caught, so the task ends")
}

impl Desk {
    fn look(&mut self, claimed: Vec<ClaimedProfile>) {
        for claimed in claimed {
            if claimed.claims > CLAIMS_MAX {
                let reason = format!("claimed {} times without a result", claimed.claims - 1);
                tracing::error!(profile.id = claimed.claim.profile.0, "set aside, {reason}");
                self.parked.push((claimed.claim, reason));
                continue;
            }
            match self.decide(&claimed) {
                Ok(decision) => {
                    self.spend(&decision);
                    self.decided.push((claimed, decision));
                }
                Err(panic) => self.parked.push((claimed.claim, panic)),
            }
        }
    }

    /// What was decided, to be written. The rows as they were are not needed any more.
    fn hand_over(&mut self) -> Made {
        let rules_version = self.snapshot.rules.version;
        let decided = std::mem::take(&mut self.decided);
        let limits = Arc::new(self.limits(&decided));
        let commit = |(claimed, decision): (ClaimedProfile, Decision)| DecisionCommit {
            claim: claimed.claim,
            decision,
            rules_version,
            limits: Arc::clone(&limits),
        };
        let commits = decided.into_iter().map(commit).collect();
        Made { commits, parked: std::mem::take(&mut self.parked) }
    }

    /// What these decisions may not exceed together with everybody else's.
    fn limits(&self, decided: &[(ClaimedProfile, Decision)]) -> Limits {
        let is_replay = matches!(self.look, Look::AsDue { .. });
        let mut limits = Limits { month_start: self.month_start, is_replay, ..Limits::default() };
        let program = self.snapshot.rules.program.as_ref();
        for (_, decision) in decided {
            let entered = decision.entered.iter().filter_map(|(rule, _)| Some((rule.clone(), limit_of(self, rule)?)));
            limits.entries.extend(entered);
            let budget = |coupon: &Name| program?.coupons.get(coupon)?.budget.map(|budget| (coupon.clone(), budget.minor));
            limits.budgets.extend(decision.budget_used.iter().filter_map(|(coupon, ..)| budget(coupon)));
        }
        limits
    }

    /// What one person's offers take from a coupon's budget is not there for the next one of this pass.
    fn spend(&mut self, decision: &Decision) {
        for (coupon, _, minor) in &decision.budget_used {
            *Arc::make_mut(&mut self.world).budgets.entry(coupon.clone()).or_default() += minor;
        }
    }

    /// Decides about one person. An error is a panic's message: a fault of ours that must not stop the others.
    fn decide(&mut self, claimed: &ClaimedProfile) -> Result<Decision, String> {
        self.decide_in(&self.world.clone(), claimed)
    }

    fn decide_in(&mut self, world: &World, claimed: &ClaimedProfile) -> Result<Decision, String> {
        self.pass.evaluations += 1;
        faults::die_over(&claimed.profile.key);
        let ctx = Context { rules: &self.snapshot.rules, older: &self.snapshot.older, world };
        let (profile, events, now) = (claimed.profile.clone(), claimed.events.clone(), instant(self.look, claimed));
        let decide_and_write = || {
            let mut decision = decide(&ctx, profile, events, now);
            message::write_alerts(ctx.rules.names(), &mut decision);
            decision
        };
        catch_unwind(AssertUnwindSafe(decide_and_write)).map_err(|panic| {
            let said = panic_text(panic.as_ref());
            tracing::error!(profile.id = claimed.claim.profile.0, "set aside, deciding panicked: {said}");
            format!("deciding panicked: {said}")
        })
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Counts entries; a rule over its limit is held (durably, before anything of this portion is committed), and the decisions that entered
/// it beyond the limit are made again.
async fn brake(store: &dyn Store, desk: &mut Desk, first: Timestamp) -> Result<(), StoreError> {
    if desk.decided.iter().all(|(_, decision)| decision.entered.is_empty()) {
        return Ok(());
    }
    let mut counter = Counter { stored: store.entries_since(first.plus_ms(-BRAKE_MS)).await?, kept: vec![] };
    if !counter.any_could_exceed(desk) {
        return Ok(());
    }
    for (claimed, mut decision) in std::mem::take(&mut desk.decided) {
        let at = instant(desk.look, &claimed);
        if !decision.entered.is_empty() && matches!(desk.look, Look::AsDue { .. }) {
            counter.stored = entries_between(store, at.plus_ms(-BRAKE_MS), at).await?;
        }
        let failed = loop {
            let Some((rule, limit)) = counter.over_limit(desk, &decision, at) else { break None };
            hold_rule(store, desk, &rule, limit, at).await?;
            match desk.decide(&claimed) {
                Ok(again) if again.entered.iter().any(|(entered, _)| *entered == rule) => {
                    break Some(format!("rule {rule} is held by its brake and admits people all the same"));
                }
                Ok(again) => decision = again,
                Err(panic) => break Some(panic),
            }
        };
        match failed {
            Some(reason) => desk.parked.push((claimed.claim, reason)),
            None => {
                counter.kept.extend(decision.entered.iter().cloned());
                desk.decided.push((claimed, decision));
            }
        }
    }
    Ok(())
}

/// Entries as the brake sees them: what the store has, and what this pass has let through before.
struct Counter {
    stored: BTreeMap<Name, u64>,
    kept: Vec<(Name, Timestamp)>,
}

impl Counter {
    /// Whether any rule comes near its limit even if all entries since the first instant of this pass fell into the same hour: mostly not,
    /// and then nobody needs to look closer.
    fn any_could_exceed(&self, desk: &Desk) -> bool {
        let mut counts = self.stored.clone();
        let entered = desk.decided.iter().flat_map(|(_, decision)| &decision.entered);
        entered.for_each(|(rule, _)| *counts.entry(rule.clone()).or_default() += 1);
        counts.iter().any(|(rule, count)| limit_of(desk, rule).is_some_and(|limit| *count > limit))
    }

    /// A rule that this decision would take over its limit, with the limit.
    fn over_limit(&self, desk: &Desk, decision: &Decision, at: Timestamp) -> Option<(Name, u64)> {
        let hour = at.plus_ms(-BRAKE_MS);
        decision.entered.iter().find_map(|(rule, _)| {
            let limit = limit_of(desk, rule)?;
            let own = decision.entered.iter().filter(|(entered, _)| entered == rule).count();
            let kept = self.kept.iter().filter(|(entered, when)| entered == rule && *when > hour && *when <= at).count();
            let count = self.stored.get(rule).copied().unwrap_or(0) + (kept + own) as u64;
            // held at an earlier instant of this pass: nobody enters it any more, however few the hour has seen
            let is_held = desk.world.rules.get(rule).is_some_and(|state| state.held.is_some());
            (is_held || count > limit).then(|| (rule.clone(), limit))
        })
    }
}

fn limit_of(desk: &Desk, rule: &Name) -> Option<u64> {
    desk.snapshot.rules.rule(rule)?.max_entries.limit(desk.world.profiles)
}

/// Entries after `from` up to `to`, in whole minutes; a replay has entries beyond `to` on record.
async fn entries_between(store: &dyn Store, from: Timestamp, to: Timestamp) -> Result<BTreeMap<Name, u64>, StoreError> {
    let mut counts = store.entries_since(from).await?;
    for (rule, later) in store.entries_since(to.plus_ms(MINUTE_MS)).await? {
        counts.entry(rule).and_modify(|count| *count = count.saturating_sub(later));
    }
    Ok(counts)
}

/// From now on the rule admits nobody, until somebody releases it.
async fn hold_rule(store: &dyn Store, desk: &mut Desk, rule: &Name, limit: u64, at: Timestamp) -> Result<(), StoreError> {
    if desk.world.rules.get(rule).is_some_and(|state| state.held.is_some()) {
        return Ok(());
    }
    let reason = format!("more than {limit} entries within 60 minutes");
    tracing::warn!(rule.id = %rule, "held by its brake: {reason}; `rekindle release {rule}` lets it go on");
    let pause = Pause { at, reason: Arc::from(reason) };
    store.set_hold(at, rule, Some(pause.clone()), "brake").await?;
    desk.pass.braked.push(rule.clone());
    if let Some(state) = Arc::make_mut(&mut desk.world).rules.get_mut(rule) {
        state.held = Some(pause);
    }
    Ok(())
}

/// I10 once more before the commit. A violation is a fault of ours: the rule is paused for this person and this look, loudly; if the
/// decision then still breaks the promise, the profile is set aside.
fn second_look(desk: &mut Desk) {
    for (claimed, decision) in std::mem::take(&mut desk.decided) {
        let ctx = Context { rules: &desk.snapshot.rules, older: &desk.snapshot.older, world: &desk.world };
        let Err(violation) = decision.check_promises(&ctx) else {
            desk.decided.push((claimed, decision));
            continue;
        };
        desk.pass.refused_takes += 1;
        tracing::error!(profile.id = claimed.claim.profile.0, "a decision broke a promise and was not committed: {violation}");
        let takes = decision.postings.iter().filter(|posting| posting.kind == PostingKind::Take);
        let rules: Vec<Name> = takes.filter_map(|posting| posting.rule.clone()).collect();
        match without(desk, &claimed, &rules, &violation) {
            Ok(decision) => desk.decided.push((claimed, decision)),
            Err(reason) => desk.parked.push((claimed.claim, reason)),
        }
    }
}

/// Decides again as if these rules were paused, and says so in the log.
fn without(desk: &mut Desk, claimed: &ClaimedProfile, rules: &[Name], violation: &str) -> Result<Decision, String> {
    let reason: Arc<str> = Arc::from(format!("set aside: {violation}"));
    let at = instant(desk.look, claimed);
    let mut world = World::clone(&desk.world);
    for rule in rules {
        if let Some(state) = world.rules.get_mut(rule) {
            state.paused = Some(Pause { at, reason: reason.clone() });
        }
    }
    let mut decision = desk.decide_in(&world, claimed)?;
    let ctx = Context { rules: &desk.snapshot.rules, older: &desk.snapshot.older, world: &world };
    decision.check_promises(&ctx).map_err(|violation| format!("breaks a promise: {violation}"))?;
    for rule in rules {
        let (rule, because) = (rule.clone(), reason.clone());
        decision.entries.push(Entry { at, rule, run: 0, step: "".into(), what: What::Quarantined, because, until: None });
    }
    Ok(decision)
}

async fn commit(store: &dyn Store, look: Look, made: Made) -> Result<Pass, StoreError> {
    let Made { commits, parked } = made;
    let mut pass = Pass::default();
    if !parked.is_empty() {
        pass.set_aside += parked.len() as u64;
        store.quarantine(look.upto(), parked).await?;
    }
    if commits.is_empty() {
        return Ok(pass);
    }
    let figures = |d: &Decision| (d.entered.len() as u64, d.messages.len() as u64, d.postings.len() as u64);
    let figures: Vec<(u64, u64, u64)> = commits.iter().map(|commit| figures(&commit.decision)).collect();
    Point::EvaluateDecided.reach();
    let answers = store.commit_decisions(commits).await?;
    Point::EvaluateCommitted.reach();
    for (answer, (entered, messages, postings)) in answers.into_iter().zip(figures) {
        match answer {
            Committed::Committed => {
                pass.entered += entered;
                pass.messages += messages;
                pass.postings += postings;
            }
            Committed::Conflict => pass.conflicts += 1,
        }
    }
    Ok(pass)
}
