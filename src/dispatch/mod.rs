//! Dispatch: claim queued messages, ask the gates once more on the fresh row, commit the send-intent, render, send, record.
//!
//! Two durable commits stand before a byte leaves: the decision (`evaluate`) and the send-intent here. What falls between intent and
//! result is `unknown`, visibly, and is never sent a second time, except on a channel that deduplicates by the message's id.
//!
//! It decides nothing: whether a message may go is asked of `engine::gate`, what its next channel is, of the engine, which hears of
//! every result as an event.

pub mod breaker;
pub mod budget;
pub mod retry;
mod send;
pub mod spoiled;
pub mod traffic;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, watch};

use self::budget::NoRoom;
use self::spoiled::Spoiled;
use self::traffic::Traffic;
use crate::channel::{Channels, Receipt};
use crate::clock::{Clock, Stopwatch};
use crate::engine::action::{Entry, Message, MessageState, Outcome, What};
use crate::engine::decide::{Context, ResultOf, World, result_event};
use crate::engine::event::Event;
use crate::engine::gate::{self, Intent};
use crate::engine::profile::{Name, Profile};
use crate::engine::run::hear_result;
use crate::engine::time::{MINUTE_MS, Timestamp};
use crate::faults::Point;
use crate::store::{
    CLAIMS_MAX, ClaimedMessage, ClaimedMessages, Committed, IntentCommit, IntentStep, Look, MessageIntent, MessageResult, ResultKind,
    Store, StoreError,
};
use crate::telemetry::Telemetry;
use crate::telemetry::vitals::Part;
use crate::versions::{RuleVersions, Snapshot};

/// Messages claimed at once by the loop.
pub const BATCH: usize = 200;
/// Between two looks for what other processes left in doubt.
const RECOVER_EVERY: Duration = Duration::from_secs(10);
/// The loop looks without being woken after this long.
const POLL: Duration = Duration::from_millis(500);
/// Passes whose messages are on their way at once: a provider that takes its time holds up its own messages, not the next pass.
const PASSES_AT_ONCE: usize = 8;
/// So often the loop tries to write results down: a minute. What is still not written then is unknown at the next start.
const RECORD_TRIES: u32 = 120;
/// What panicked at the gates is looked at again after this long, until its deadline.
const AFTER_PANIC_MS: i64 = 15 * MINUTE_MS;

/// What dispatch works with.
pub struct Dispatcher {
    pub store: Arc<dyn Store>,
    pub rules: Arc<RuleVersions>,
    pub channels: Channels,
    /// Name of this worker in claims and attempts.
    pub worker: Name,
    /// What is known of the providers.
    pub traffic: Traffic,
    /// What is known of the templates.
    pub spoiled: Spoiled,
}

impl Dispatcher {
    pub fn new(store: Arc<dyn Store>, rules: Arc<RuleVersions>, channels: Channels, worker: Name) -> Self {
        Dispatcher { store, rules, channels, worker, traffic: Traffic::default(), spoiled: Spoiled::default() }
    }
}

/// What one pass did; passes add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    pub claimed: u64,
    /// Attempts made at providers.
    pub attempts: u64,
    pub accepted: u64,
    /// Back to `queued`, to be tried again.
    pub retried: u64,
    /// Definitely refused, unrenderable included.
    pub failed: u64,
    pub bounced: u64,
    pub unknown: u64,
    /// Held by a gate at the intent: back to `queued`, with their slot.
    pub held: u64,
    pub blocked: u64,
    pub expired: u64,
    pub cancelled: u64,
    /// Given up: claimed too often without a result, or tried for too long.
    pub dead: u64,
    /// Intents that a newer fact, decision or pause overtook.
    pub conflicts: u64,
}

impl Pass {
    fn counter(&mut self, what: MessageState) -> Option<&mut u64> {
        match what {
            MessageState::Accepted => Some(&mut self.accepted),
            MessageState::Failed => Some(&mut self.failed),
            MessageState::Bounced => Some(&mut self.bounced),
            MessageState::Unknown => Some(&mut self.unknown),
            MessageState::Blocked => Some(&mut self.blocked),
            MessageState::Expired => Some(&mut self.expired),
            MessageState::Cancelled => Some(&mut self.cancelled),
            MessageState::Dead => Some(&mut self.dead),
            MessageState::Queued | MessageState::Leased | MessageState::Sending | MessageState::Delivered => None,
        }
    }

    fn count(&mut self, what: MessageState) {
        if let Some(counter) = self.counter(what) {
            *counter += 1;
        }
    }

    fn figures(&self) -> [(u64, &'static str); 13] {
        [
            (self.claimed, "claimed"),
            (self.attempts, "attempts"),
            (self.accepted, "accepted"),
            (self.retried, "to be tried again"),
            (self.failed, "failed"),
            (self.bounced, "bounced"),
            (self.unknown, "unknown"),
            (self.held, "held"),
            (self.blocked, "blocked"),
            (self.expired, "expired"),
            (self.cancelled, "cancelled"),
            (self.dead, "dead"),
            (self.conflicts, "overtaken"),
        ]
    }
}

impl AddAssign for Pass {
    fn add_assign(&mut self, other: Pass) {
        self.claimed += other.claimed;
        self.attempts += other.attempts;
        self.accepted += other.accepted;
        self.retried += other.retried;
        self.failed += other.failed;
        self.bounced += other.bounced;
        self.unknown += other.unknown;
        self.held += other.held;
        self.blocked += other.blocked;
        self.expired += other.expired;
        self.cancelled += other.cancelled;
        self.dead += other.dead;
        self.conflicts += other.conflicts;
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<String> =
            self.figures().into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        f.write_str(if told.is_empty() { "nothing due" } else { "" })?;
        f.write_str(&told.join(", "))
    }
}

/// How a loop is woken, whom it wakes, and when it ends.
pub struct Signals<'a> {
    /// Something may be due: look now.
    pub wake: &'a Notify,
    /// Told after a pass whose results somebody's run may wait for.
    pub next: &'a Notify,
    pub shutdown: watch::Receiver<bool>,
}

/// Sends what is due, pass after pass, until told to shut down. Begins with what an earlier life left in doubt, ends when what is
/// under way has its answer.
pub async fn run(dispatcher: &Dispatcher, clock: &dyn Clock, batch: usize, telemetry: &Telemetry, signals: Signals<'_>) {
    let Signals { wake, next, mut shutdown } = signals;
    if let Err(error) = recover(dispatcher, clock.now()).await {
        tracing::error!("cannot look after interrupted messages: {error}");
    }
    match dispatcher.store.days_sent().await {
        Ok(sent) => dispatcher.traffic.remember(&dispatcher.rules.snapshot().rules.policy, &sent),
        Err(error) => tracing::error!("cannot count what was sent before, warm-ups begin anew: {error}"),
    }
    let told = |sent: Delivered| {
        tell(telemetry, next, sent);
        for (provider, is_open) in dispatcher.traffic.breakers() {
            telemetry.metrics.breakers_open.get_or_create(&(&*provider).into()).set(is_open.into());
        }
    };
    let mut under_way = FuturesUnordered::new();
    let mut owed = Vec::new();
    let mut since_recovery = Stopwatch::start();
    while !*shutdown.borrow() {
        if since_recovery.elapsed() >= RECOVER_EVERY {
            since_recovery = Stopwatch::start();
            if let Err(error) = recover(dispatcher, clock.now()).await {
                tracing::error!("cannot look after interrupted messages: {error}");
            }
        }
        // interest is registered before looking: what comes in between is not missed
        let woken = wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let watch = Stopwatch::start();
        telemetry.vitals.begin(Part::Dispatch);
        let preparing = prepare(dispatcher, Look::Now(clock.now()), batch, &mut owed);
        tokio::pin!(preparing);
        // never dropped half done: what it claims would stay claimed
        let prepared = loop {
            tokio::select! {
                prepared = &mut preparing => break prepared,
                Some(sent) = under_way.next() => told(sent),
            }
        };
        telemetry.vitals.end(Part::Dispatch);
        let is_full = match prepared {
            Ok((pass, sendings)) => {
                let is_full = pass.claimed >= batch as u64;
                under_way.push(deliver_told(dispatcher, pass, sendings, watch));
                is_full
            }
            Err(error) => {
                told((Err(error), watch));
                false
            }
        };
        if is_full && under_way.len() < PASSES_AT_ONCE {
            continue;
        }
        let has_room = under_way.len() < PASSES_AT_ONCE;
        tokio::select! {
            () = &mut woken, if has_room => {}
            () = tokio::time::sleep(POLL), if has_room => {}
            Some(sent) = under_way.next() => told(sent),
            _ = shutdown.changed() => {}
        }
    }
    while let Some(sent) = under_way.next().await {
        told(sent);
    }
}

/// What came of a pass, and since when it has been under way.
type Delivered = (Result<Pass, StoreError>, Stopwatch);

async fn deliver_told(dispatcher: &Dispatcher, mut pass: Pass, sendings: Sendings, watch: Stopwatch) -> Delivered {
    let delivered = deliver(dispatcher, sendings, RECORD_TRIES).await;
    (
        delivered.map(|delivered| {
            pass += delivered;
            pass
        }),
        watch,
    )
}

fn tell(telemetry: &Telemetry, next: &Notify, (sent, watch): Delivered) {
    observe(telemetry, &sent, watch);
    match sent {
        Ok(pass) if pass.claimed > 0 => {
            tracing::debug!("dispatched: {pass}");
            next.notify_one();
        }
        Ok(_) => {}
        Err(error) => tracing::error!("dispatch failed, trying again: {error}"),
    }
}

fn observe(telemetry: &Telemetry, sent: &Result<Pass, StoreError>, watch: Stopwatch) {
    let metrics = &telemetry.metrics;
    match sent {
        Ok(pass) => {
            telemetry.vitals.well(Part::Dispatch);
            if pass.claimed == 0 {
                return;
            }
            metrics.pass_seconds.get_or_create(&"dispatch".into()).observe(watch.elapsed().as_secs_f64());
            for (count, what) in pass.figures().into_iter().filter(|(count, _)| *count > 0) {
                metrics.messages.get_or_create(&what.replace(' ', "_").as_str().into()).inc_by(count);
            }
        }
        Err(error) => {
            telemetry.vitals.ill(Part::Dispatch, error);
            metrics.failures.get_or_create(&"dispatch".into()).inc();
        }
    }
}

/// One pass: at most `limit` messages that are due. A replay ([`Look::AsDue`]) sends each in its own instant.
pub async fn run_once(dispatcher: &Dispatcher, look: Look, limit: usize) -> Result<Pass, StoreError> {
    let mut owed = Vec::new();
    let prepared = prepare(dispatcher, look, limit, &mut owed).await;
    if prepared.is_err() {
        give_back(dispatcher.store.as_ref(), &mut owed).await?;
    }
    let (mut pass, sendings) = prepared?;
    pass += deliver(dispatcher, sendings, 1).await?;
    Ok(pass)
}

/// Messages that may leave, under the rules that said so.
struct Sendings {
    snapshot: Option<Snapshot>,
    /// Of the world in which the gates were asked: what was paused since calls back whatever has not begun to leave.
    generation: i64,
    ready: Vec<Ready>,
}

/// Claims, asks the gates, commits the intents. `owed`: what passes before claimed and could not get out, as nobody knows what was
/// written; it is given back first, and what this pass claims stands there if it fails.
async fn prepare(dispatcher: &Dispatcher, look: Look, limit: usize, owed: &mut Vec<MessageResult>) -> Result<(Pass, Sendings), StoreError> {
    let store = dispatcher.store.as_ref();
    give_back(store, owed).await?;
    let claimed = store.claim_messages(look, limit, &dispatcher.worker).await?;
    *owed = claimed.iter().flat_map(|person| untouched(person, instant(look, person))).collect();
    let prepared = ask_and_intend(dispatcher, look, claimed).await?;
    owed.clear();
    Ok(prepared)
}

/// What is said of messages that were claimed, whether their intent is on record or not: no byte of them has left.
fn untouched(person: &ClaimedMessages, now: Timestamp) -> impl Iterator<Item = MessageResult> {
    person.messages.iter().flat_map(move |claimed| {
        let called_back = ResultKind::Retry { until: claimed.message.due_at, refused: true };
        let detail = "called back before it began to leave: the database did not say whether its intent was on record";
        [result(claimed, now, called_back, None, detail), result(claimed, now, ResultKind::Release, None, "")]
    })
}

async fn give_back(store: &dyn Store, owed: &mut Vec<MessageResult>) -> Result<(), StoreError> {
    if !owed.is_empty() {
        store.record_results(owed.clone()).await?;
        owed.clear();
    }
    Ok(())
}

async fn ask_and_intend(dispatcher: &Dispatcher, look: Look, claimed: Vec<ClaimedMessages>) -> Result<(Pass, Sendings), StoreError> {
    let store = dispatcher.store.as_ref();
    let mut pass = Pass { claimed: claimed.iter().map(|person| person.messages.len() as u64).sum(), ..Pass::default() };
    let Some(first) = claimed.iter().map(|person| instant(look, person)).min() else {
        return Ok((pass, Sendings { snapshot: None, generation: 0, ready: Vec::new() }));
    };
    Point::DispatchClaimed.reach();
    let view = dispatcher.rules.world(store, first).await?;
    let snapshot = dispatcher.rules.snapshot_for(store, claimed.iter().map(|person| &person.profile)).await?;

    let mut intents = Vec::with_capacity(claimed.len());
    let mut ready = Vec::with_capacity(claimed.len());
    for person in claimed {
        let now = instant(look, &person);
        let (intent, to_send) = ask_gates(dispatcher, &snapshot, &view.world, person, now);
        intents.push(intent);
        ready.push(to_send);
    }
    let steps: Vec<Vec<Option<MessageState>>> = intents.iter().map(|intent| intent.messages.iter().map(ends_as).collect()).collect();
    Point::DispatchIntending.reach();
    let answers = store.commit_intents(view.generation, intents).await?;
    Point::DispatchIntended.reach();
    let mut to_send = Vec::new();
    for ((answer, ready), steps) in answers.into_iter().zip(ready).zip(steps) {
        match answer {
            Committed::Committed => {
                let held = steps.len() - ready.len() - steps.iter().flatten().count();
                pass.held += held as u64;
                steps.into_iter().flatten().for_each(|state| pass.count(state));
                to_send.extend(ready);
            }
            Committed::Conflict => pass.conflicts += steps.len() as u64,
        }
    }
    Ok((pass, Sendings { snapshot: Some(snapshot), generation: view.generation, ready: to_send }))
}

/// Renders, sends, records. What was sent must be written down: that is tried `tries` times.
async fn deliver(dispatcher: &Dispatcher, sendings: Sendings, tries: u32) -> Result<Pass, StoreError> {
    let mut pass = Pass::default();
    let Some(snapshot) = sendings.snapshot.filter(|_| !sendings.ready.is_empty()) else { return Ok(pass) };
    let results = send::send_all(dispatcher, &snapshot, sendings.generation, sendings.ready, &mut pass).await;
    Point::DispatchAnswered.reach();
    for _ in 1..tries {
        match dispatcher.store.record_results(results.clone()).await {
            Ok(_) => {
                Point::DispatchRecorded.reach();
                return Ok(pass);
            }
            Err(error) => tracing::error!("cannot record what was sent, trying again: {error}"),
        }
        tokio::time::sleep(POLL).await;
    }
    dispatcher.store.record_results(results).await?;
    Ok(pass)
}

/// The instant at which a person's messages are looked at.
fn instant(look: Look, person: &ClaimedMessages) -> Timestamp {
    match look {
        Look::Now(now) => now,
        Look::AsDue { upto } => person.messages.iter().map(|claimed| claimed.message.due_at).max().unwrap_or(upto),
    }
}

/// What a crash, of this process or another, left in `sending`: sent again under its id where the channel deduplicates, `unknown` elsewhere (I5).
pub async fn recover(dispatcher: &Dispatcher, now: Timestamp) -> Result<u64, StoreError> {
    let interrupted = dispatcher.store.interrupted().await?;
    let policy = dispatcher.rules.snapshot().rules;
    let messages: Vec<ClaimedMessage> = interrupted.into_iter().flat_map(|person| person.messages).collect();
    let results: Vec<MessageResult> = messages
        .iter()
        .map(|claimed| {
            let again = dispatcher.channels.deduplicates(claimed.message.channel, &policy.policy);
            let detail = "interrupted between the send-intent and the answer";
            // due as it was: a replay that goes on sends it in its own instant
            let until = claimed.message.due_at.min(now);
            let kind =
                if again { ResultKind::Retry { until, refused: false } } else { outcome(&claimed.message, Outcome::Unknown, now, detail) };
            result(claimed, now, kind, None, detail)
        })
        .collect();
    let count = results.len() as u64;
    if count > 0 {
        tracing::warn!(message.count = count, "an earlier run was interrupted while sending");
        dispatcher.store.record_results(results).await?;
    }
    Ok(count)
}

/// Records what providers report later. Receipts of messages that nobody knows are dropped; repeated ones change nothing.
pub async fn record_receipts(store: &dyn Store, receipts: &[Receipt]) -> Result<u64, StoreError> {
    if receipts.is_empty() {
        return Ok(0);
    }
    let ids: Vec<_> = receipts.iter().map(|receipt| receipt.message).collect();
    let known: BTreeMap<_, _> = store.messages(&ids).await?.into_iter().map(|row| (row.message.id, row.message)).collect();
    let results: Vec<MessageResult> = receipts
        .iter()
        .filter_map(|receipt| {
            let kind = outcome(known.get(&receipt.message)?, receipt.outcome, receipt.at, "");
            Some(MessageResult { message: receipt.message, epoch: None, at: receipt.at, kind, provider_id: None, detail: None })
        })
        .collect();
    let recorded = store.record_results(results).await?;
    Ok(recorded.iter().filter(|recorded| recorded.new).count() as u64)
}

// ----------------------------------------------------------------------------------------------------------------------- gates

/// A message whose intent, once committed, lets it go out.
struct Ready {
    claimed: ClaimedMessage,
    profile: Arc<Profile>,
    /// The instant of the intent: rendering and sending belong to it.
    at: Timestamp,
}

/// Asks the gates about one person's messages, one after the other: the slot that the first one stamps is seen by the next.
fn ask_gates(
    dispatcher: &Dispatcher,
    snapshot: &Snapshot,
    world: &World,
    person: ClaimedMessages,
    now: Timestamp,
) -> (IntentCommit, Vec<Ready>) {
    let ctx = Context { rules: &snapshot.rules, older: &snapshot.older, world };
    let mut profile = person.profile;
    let mut changed = false;
    let (mut messages, mut entries, mut own_events, mut passed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for claimed in person.messages {
        let message = &claimed.message;
        let room =
            |message: &Message| dispatcher.traffic.take(&dispatcher.channels, message.channel, &snapshot.rules.policy, message.id, now);
        let text = |profile: &Profile, message: &Message| send::text_hash(snapshot, profile, message, now);
        let step = next_step(&ctx, &mut profile, &claimed, &mut own_events, (&room, &text), now);
        match &step {
            // a provider without room is no decision about the person: the message says so itself, the log of decisions stays short
            IntentStep::Hold { because, .. } if because.starts_with(PROVIDER) => {}
            IntentStep::Send { .. } => changed = true,
            IntentStep::Hold { until, because } => entries.push(entry(message, What::Held, because, Some(*until), now)),
            IntentStep::End { because, .. } => {
                changed = true;
                entries.push(entry(message, What::Dropped, because, None, now));
            }
        }
        let goes = matches!(step, IntentStep::Send { .. });
        messages.push(MessageIntent { message: message.id, epoch: claimed.epoch, step });
        if goes {
            passed.push(claimed);
        }
    }
    let shared = Arc::new(profile);
    let ready = passed.into_iter().map(|claimed| Ready { claimed, profile: shared.clone(), at: now }).collect();
    let intent = IntentCommit {
        profile_id: person.profile_id,
        at: now,
        version: person.version,
        profile: changed.then(|| shared.clone()),
        due_at: None,
        messages,
        own_events,
        entries,
        rules_version: snapshot.rules.version,
    };
    (intent, ready)
}

/// How a hold by [`Traffic`] begins.
const PROVIDER: &str = "provider: ";

/// What is asked once the gates have let a message through: whether its provider has room, and what its text is.
type Last<'a> = (&'a dyn Fn(&Message) -> Result<(), NoRoom>, &'a dyn Fn(&Profile, &Message) -> Option<u64>);

/// What happens to one message now; `profile` takes the stamp of its slot, or gets the slot back.
fn next_step(
    ctx: &Context<'_>,
    profile: &mut Profile,
    claimed: &ClaimedMessage,
    own_events: &mut Vec<Event>,
    (room, text): Last<'_>,
    now: Timestamp,
) -> IntentStep {
    let message = &claimed.message;
    if claimed.claims > CLAIMS_MAX {
        tracing::error!(message.id = %message.id, "given up: claimed too often without a result");
        let because = format!("poison: claimed {} times without a result", claimed.claims - 1);
        return end(profile, message, MessageState::Dead, because, now);
    }
    match judge(ctx, profile, message, now) {
        Intent::Send { profile: mut stamped, own_event } => {
            if let Err(NoRoom { until, because }) = room(message) {
                let until = until.min(message.expires_at).max(now.plus_ms(1));
                return IntentStep::Hold { until, because: Arc::from(format!("{PROVIDER}{because}")) };
            }
            let asked = ctx.rules.policy.duplicates.as_ref().filter(|policy| policy.categories.contains(&message.category));
            if let Some(policy) = asked
                && let Some(text) = text(&stamped, message)
                && let Err(because) = gate::duplicates::stamp(policy, &mut stamped, message.id, text, now)
            {
                // no other channel follows: it is the message that has been had, not the way to the person that is closed
                return end(profile, message, MessageState::Cancelled, format!("duplicates: {because}"), now);
            }
            *profile = *stamped;
            own_events.extend(own_event);
            IntentStep::Send { at: now }
        }
        Intent::Hold { until, gate, because } => IntentStep::Hold { until, because: Arc::from(format!("{gate}: {because}")) },
        Intent::Block { gate, because } => end(profile, message, MessageState::Blocked, format!("{gate}: {because}"), now),
        Intent::Expire { because } => end(profile, message, MessageState::Expired, because, now),
        Intent::Cancel { because } => end(profile, message, MessageState::Cancelled, because, now),
    }
}

/// The gates' answer about one message.
fn judge(ctx: &Context<'_>, profile: &Profile, message: &Message, now: Timestamp) -> Intent {
    let asked = catch_unwind(AssertUnwindSafe(|| gate::at_intent(ctx, profile, message, now)));
    match asked {
        Ok(intent) => intent,
        Err(_) => {
            tracing::error!(message.id = %message.id, "asking the gates panicked; looked at again later");
            let because = "asking the gates failed".to_owned();
            match now < message.expires_at {
                true => Intent::Hold { until: now.plus_ms(AFTER_PANIC_MS).min(message.expires_at), gate: "fault".into(), because },
                false => Intent::Expire { because },
            }
        }
    }
}

/// Ends a message that no provider has seen: its slot and offer are free at once, its run hears of it by the event.
fn end(profile: &mut Profile, message: &Message, state: MessageState, because: String, now: Timestamp) -> IntentStep {
    let outcome = match state {
        MessageState::Blocked => Outcome::Blocked,
        MessageState::Expired => Outcome::Expired,
        MessageState::Dead => Outcome::Dead,
        _ => Outcome::Cancelled,
    };
    let event = result_event(&ResultOf::from(message), outcome, now, &because);
    hear_result(profile, message.id, outcome, &event);
    IntentStep::End { state, because: Arc::from(because), event: Some((outcome, event)) }
}

fn ends_as(intent: &MessageIntent) -> Option<MessageState> {
    match &intent.step {
        IntentStep::End { state, .. } => Some(*state),
        IntentStep::Send { .. } | IntentStep::Hold { .. } => None,
    }
}

fn entry(message: &Message, what: What, because: &Arc<str>, until: Option<Timestamp>, now: Timestamp) -> Entry {
    let (rule, step, because) = (message.rule.clone(), message.step.clone(), because.clone());
    Entry { at: now, rule, run: message.run, step, what, because, until: until.filter(|until| !until.is_forever()) }
}

fn outcome(message: &Message, outcome: Outcome, at: Timestamp, detail: &str) -> ResultKind {
    ResultKind::Outcome(outcome, result_event(&ResultOf::from(message), outcome, at, detail))
}

fn result(claimed: &ClaimedMessage, at: Timestamp, kind: ResultKind, provider_id: Option<String>, detail: &str) -> MessageResult {
    let detail = (!detail.is_empty()).then(|| detail.to_owned());
    MessageResult { message: claimed.message.id, epoch: Some(claimed.epoch), at, kind, provider_id, detail }
}
