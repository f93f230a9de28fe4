//! A year in seconds, and in every instant: the facts go in, and the same evaluate and dispatch that a daemon runs take what is due,
//! under a virtual clock.
//!
//! **Exact, and not one instant at a time.** The year has some hundred thousand instants at which something is due for somebody; a
//! store that is asked several times at each would take minutes. But people are independent of one another. So the replay takes a
//! stretch of time (a week at most) and advances each person by *their own* next instant, everybody in the same few batches:
//!
//! 1. who has something due in the stretch, and when first ([`Store::agenda`]);
//! 2. facts and receipts whose instant is not after that are handed in, of each person only those of one instant;
//! 3. dispatch claims messages as of their own due instants ([`Look::AsDue`]), of each person only the first, and only those before
//!    whatever else is due for that person. If there were any, back to 1: what came of them may come first now;
//! 4. evaluate looks at everybody who is due, each in their own instant. Back to 1, until the stretch holds nothing more.
//!
//! So each person lives through exactly the looks, in exactly the order, that a worker who is never late would have given them.
//! What people share is the same everywhere in a stretch: stretches end where months do (coupon budgets) and where a source falls
//! quiet or is heard again. Two things are to the stretch and not to the second: in which order people draw on a coupon budget that
//! runs out, and which of the entries over a brake's limit come first.
//!
//! **Killed at any moment**, it goes on: everything it knows is in the store. The stretch under way is found by the newest active
//! event on record, its facts are handed in again (and known again by their ids), and every look that was committed is over.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::channel::Receipt;
use crate::channel::recording::Recording;
use crate::clock::{Clock, VirtualClock};
use crate::dispatch::{self, Dispatcher};
use crate::engine::rule::{Dictionary, RuleSet, SourcePolicy};
use crate::engine::source::{self, Hours};
use crate::engine::time::{HOUR_MS, Timestamp, Zone};
use crate::evaluate::sources::watch_sources;
use crate::evaluate::{self, Evaluator};
use crate::ingest::Incoming;
use crate::store::{Identity, Look, ProfileId, SourceHour, Store};

/// People looked at, and messages sent, in one batch.
const BATCH: usize = 2_000;
/// Facts handed in at once.
const APPEND_MAX: usize = 10_000;
/// A stretch that has not come to its end after so many rounds goes in circles.
const ROUNDS_MAX: usize = 20_000;

/// Everything that a replay moves.
pub struct Stage {
    pub store: Arc<dyn Store>,
    pub evaluator: Evaluator,
    pub dispatcher: Dispatcher,
    pub recording: Arc<Recording>,
    pub clock: VirtualClock,
    pub rules: Arc<RuleSet>,
}

/// A span of the year that is played at once: `[from, until)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub facts: u64,
    pub evaluations: u64,
    pub messages: u64,
    pub heartbeats: u64,
    pub rounds: u64,
}

/// The replay under way.
pub struct Replay {
    stage: Stage,
    /// Sorted by time; what was handed in is gone.
    facts: VecDeque<Incoming>,
    /// Each person's facts of the stretch that have not been handed in.
    lanes: HashMap<Identity, VecDeque<Incoming>>,
    /// Who was seen so far.
    people: HashMap<Identity, ProfileId>,
    /// Receipts of the stretch that have not been handed in.
    receipts: BTreeMap<ProfileId, BTreeSet<Receipt>>,
    /// Of a replay that goes on: the newest fact of each person that is on record.
    recorded: HashMap<ProfileId, Timestamp>,
    pub done: Done,
}

/// The stretches from the first fact to `until`: weeks of the shop, cut at months and where a source changes.
pub fn stretches(
    facts: &[Incoming],
    dictionary: &Dictionary,
    sources: Option<&SourcePolicy>,
    zone: &Zone,
    until: Timestamp,
) -> Vec<Stretch> {
    let Some(first) = facts.first().map(|fact| fact.event.received_at) else { return Vec::new() };
    let mut cuts = BTreeSet::from([first, until]);
    let mut date = super::tally::monday(first.local(zone).date());
    while let Ok(next) = date.tomorrow() {
        let start = zone.start_of_day(next);
        if start >= until {
            break;
        }
        if next.weekday() == jiff::civil::Weekday::Monday || next.day() == 1 {
            cuts.insert(start);
        }
        date = next;
    }
    if let Some(policy) = sources {
        cuts.extend(changes(facts, dictionary, policy, until));
    }
    let cuts: Vec<Timestamp> = cuts.into_iter().filter(|cut| *cut >= first && *cut <= until).collect();
    cuts.windows(2).filter_map(|pair| Some(Stretch { from: *pair.first()?, until: *pair.last()? })).collect()
}

/// The full hours at which some source falls quiet or is heard again.
fn changes(facts: &[Incoming], dictionary: &Dictionary, policy: &SourcePolicy, until: Timestamp) -> BTreeSet<Timestamp> {
    let mut sources: BTreeMap<&str, Hours> = BTreeMap::new();
    for fact in facts.iter().filter(|fact| fact.is_active(dictionary)) {
        sources.entry(&fact.event.source).or_default().add(fact.event.occurred_at, 1);
    }
    let mut changes = BTreeSet::new();
    for hours in sources.values() {
        for (from, to) in source::quiet_spans(policy, hours, until) {
            // it is known only once the whole stretch of hours has passed
            changes.insert(from.plus_ms((policy.for_ms + HOUR_MS - 1).div_euclid(HOUR_MS).max(1) * HOUR_MS));
            changes.insert(to);
        }
    }
    changes
}

/// Where a replay that was interrupted goes on: the stretch of the newest active event on record.
pub fn position(stretches: &[Stretch], hours: &[SourceHour]) -> usize {
    let Some(newest) = hours.iter().map(|hour| hour.hour).max() else { return 0 };
    // the hour's first instant may lie before a stretch that begins within it
    stretches.iter().rposition(|stretch| stretch.from <= newest).unwrap_or(0)
}

impl Replay {
    /// `facts` are sorted by time. Those before `from` are on record already, and so are those of each person up to `recorded`: facts
    /// of one instant are handed in in one transaction. Left out, they cost no rounds, and the rounds that follow are those that the
    /// interrupted run would have made.
    pub fn new(stage: Stage, facts: Vec<Incoming>, from: Timestamp, recorded: HashMap<ProfileId, Timestamp>) -> Self {
        let facts = facts.into_iter().filter(|fact| fact.event.received_at >= from).collect();
        Replay { stage, facts, lanes: HashMap::new(), people: HashMap::new(), receipts: BTreeMap::new(), recorded, done: Done::default() }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.stage.store
    }

    /// People of whom facts are still to be handed in.
    pub fn people_to_come(&self) -> u64 {
        self.facts.iter().map(|fact| &fact.identity).collect::<HashSet<_>>().len() as u64
    }

    /// Takes up what an earlier run left in the middle: messages between their intent and the answer go out in their own instant, which
    /// is not after `now`, the end of the stretch under way.
    pub async fn recover(&self, now: Timestamp) -> anyhow::Result<()> {
        dispatch::recover(&self.stage.dispatcher, now).await?;
        Ok(())
    }

    /// Plays one stretch to its end.
    pub async fn play(&mut self, stretch: Stretch) -> anyhow::Result<()> {
        let store = self.stage.store.as_ref();
        watch_sources(store, &self.stage.rules.policy, stretch.from).await.context("watching the sources")?;
        let last = stretch.until.plus_ms(-1);
        self.stage.clock.advance_to(last);
        let now = self.stage.clock.now();
        self.stage.store.heartbeat(&self.stage.evaluator.worker, stretch.from, now).await?;
        self.done.heartbeats += 1;
        while let Some(fact) = self.facts.pop_front_if(|fact| fact.event.received_at <= now) {
            self.lanes.entry(fact.identity.clone()).or_default().push_back(fact);
        }
        self.skip_recorded().await?;
        self.take_receipts(now).await?;
        for _ in 0..ROUNDS_MAX {
            if !self.round(now).await? {
                return Ok(());
            }
        }
        bail!("the week of {} does not come to an end: something is due again and again", stretch.from)
    }

    /// Leaves out what an interrupted run has handed in already. Afresh, whoever is not known by now is new.
    async fn skip_recorded(&mut self) -> anyhow::Result<()> {
        if self.recorded.is_empty() {
            return Ok(());
        }
        self.find_people().await?;
        for (identity, facts) in &mut self.lanes {
            let Some(upto) = self.people.get(identity).and_then(|id| self.recorded.get(id)) else { continue };
            facts.retain(|fact| fact.event.received_at > *upto);
        }
        self.lanes.retain(|_, facts| !facts.is_empty());
        Ok(())
    }

    /// Everybody who has something to do in the stretch does the next thing; false if nobody has.
    async fn round(&mut self, now: Timestamp) -> anyhow::Result<bool> {
        self.done.rounds += 1;
        let look = Look::AsDue { upto: now };
        let handed_in = self.hand_in(now).await?;
        let sent = dispatch::run_once(&self.stage.dispatcher, look, BATCH).await?;
        self.take_receipts(now).await?;
        if sent.claimed > 0 {
            self.done.messages += sent.accepted;
            return Ok(true);
        }
        let looked = evaluate::run_once(&self.stage.evaluator, look, BATCH).await?;
        self.done.evaluations += looked.evaluations;
        Ok(handed_in || looked.claimed > 0 || looked.set_aside > 0)
    }

    /// Hands in facts and receipts of everybody's next instant, unless something else is due for that person before.
    async fn hand_in(&mut self, now: Timestamp) -> anyhow::Result<bool> {
        if self.lanes.is_empty() && self.receipts.is_empty() {
            return Ok(false);
        }
        let due: HashMap<ProfileId, Timestamp> = self.stage.store.agenda(now).await?.into_iter().collect();
        let facts = self.next_facts(&due);
        let receipts = self.next_receipts(&due);
        let any = !facts.is_empty() || !receipts.is_empty();
        self.append(facts).await?;
        dispatch::record_receipts(self.stage.store.as_ref(), &receipts).await?;
        self.receipts.retain(|_, receipts| !receipts.is_empty());
        self.lanes.retain(|_, facts| !facts.is_empty());
        Ok(any)
    }

    fn next_facts(&mut self, due: &HashMap<ProfileId, Timestamp>) -> Vec<Incoming> {
        let mut next = Vec::new();
        for (identity, facts) in &mut self.lanes {
            let Some(at) = facts.front().map(|fact| fact.event.received_at) else { continue };
            let id = self.people.get(identity);
            let receipt = id.and_then(|id| self.receipts.get(id)?.first()).map(|receipt| receipt.at);
            let busy = id.and_then(|id| due.get(id).copied());
            if busy.into_iter().chain(receipt).all(|before| at <= before) {
                while let Some(fact) = facts.pop_front_if(|fact| fact.event.received_at == at) {
                    next.push(fact);
                }
            }
        }
        // lanes come in no order, the store numbers events as they come
        next.sort_by(|a, b| (a.event.order_key(), &a.identity).cmp(&(b.event.order_key(), &b.identity)));
        next
    }

    /// Called after [`Replay::next_facts`] with the same agenda: a person's receipts wait for the facts of an earlier instant.
    fn next_receipts(&mut self, due: &HashMap<ProfileId, Timestamp>) -> Vec<Receipt> {
        let waiting: HashMap<ProfileId, Timestamp> =
            self.lanes.iter().filter_map(|(who, facts)| Some((*self.people.get(who)?, facts.front()?.event.received_at))).collect();
        let mut next = Vec::new();
        for (id, receipts) in &mut self.receipts {
            let Some(at) = receipts.first().map(|receipt| receipt.at) else { continue };
            if [due.get(id), waiting.get(id)].into_iter().flatten().all(|before| at <= *before) {
                while let Some(receipt) = receipts.first().copied().filter(|receipt| receipt.at == at) {
                    receipts.remove(&receipt);
                    next.push(receipt);
                }
            }
        }
        next
    }

    async fn append(&mut self, facts: Vec<Incoming>) -> anyhow::Result<()> {
        self.done.facts += facts.len() as u64;
        let mut facts = facts.into_iter().flat_map(|fact| fact.into_new(&self.stage.rules.dictionary)).peekable();
        while facts.peek().is_some() {
            self.stage.store.append_events(facts.by_ref().take(APPEND_MAX).collect()).await?;
        }
        self.find_people().await
    }

    /// Learns the numbers of those who have facts to come and are on record.
    async fn find_people(&mut self) -> anyhow::Result<()> {
        let unknown: Vec<Identity> = self.lanes.keys().filter(|identity| !self.people.contains_key(identity)).cloned().collect();
        if !unknown.is_empty() {
            let found = self.stage.store.find_profiles(&unknown).await?;
            self.people.extend(unknown.into_iter().zip(found).filter_map(|(identity, id)| Some((identity, id?))));
        }
        Ok(())
    }

    /// Takes over what the provider played by now, to be handed in when it is its person's next instant.
    async fn take_receipts(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let receipts = self.stage.recording.receipts_until(now);
        if receipts.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = receipts.iter().map(|receipt| receipt.message).collect();
        let owners: HashMap<_, _> = self.stage.store.messages(&ids).await?.into_iter().map(|row| (row.message.id, row.profile)).collect();
        for receipt in receipts {
            // a message that is not on record was recorded by a run of another database: nobody's business here
            if let Some(owner) = owners.get(&receipt.message) {
                self.receipts.entry(*owner).or_default().insert(receipt);
            }
        }
        Ok(())
    }
}
