//! People spread over machines: a hash-distributed PostgreSQL, where all rows of a bucket of people lie on one machine.
//!
//! What changes then is who shares a transaction. A batch is cut by bucket, and each part is a transaction of its own whose statements all
//! name that bucket, so that the database sends each of them to one machine and commits there. The statements are the same
//! ones, read for one bucket (see [`Sql::in_bucket`]). Claims go from bucket to bucket, beginning where nobody else begins.
//!
//! What is not one person's (new names, what operators do, walks over everybody) is done over all machines at once, as seldom as it is
//! wanted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::append::{self, Greet, TakeIn};
use super::backend::read;
use super::decisions::Whom;
use super::rows::Fields;
use super::{Backend, Session, Sql, Work, decisions, erasures, outbox, query, reads, retention};
use crate::engine::action::MessageId;
use crate::engine::time::Timestamp;
use crate::store::erasure::{Cause, Erased, Erasure};
use crate::store::retention::{Removal, Removed};
use crate::store::{
    Appended, ClaimedMessages, Committed, DueProfiles, Look, MessageResult, NewEvent, ProfileId, Recorded, SUSPECT_AFTER, StoreError,
};

/// So many buckets there are: the function `bucket` of the migrations counts them.
pub(in crate::store) const BUCKETS: i16 = 256;

/// Whose rows lie together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(in crate::store) struct Bucket(pub i16);

impl Bucket {
    pub fn of(profile: ProfileId) -> Self {
        Bucket((profile.0 & i64::from(BUCKETS - 1)) as i16)
    }
}

/// Where a transaction of PostgreSQL's may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Reach {
    /// One machine has everybody.
    Undivided,
    /// People are spread, and this is about no bucket in particular: what it locks, it locks bucket by bucket.
    Everywhere,
    /// People are spread, and this is about those of one bucket.
    Within(Bucket),
}

impl Reach {
    pub fn bucket(self) -> Option<Bucket> {
        match self {
            Reach::Within(bucket) => Some(bucket),
            Reach::Undivided | Reach::Everywhere => None,
        }
    }
}

/// What a process knows of people that are spread.
pub(in crate::store) struct Spread {
    people: Walk,
    messages: Walk,
}

impl Spread {
    /// `process`: the number by which its walks begin elsewhere than those of others.
    pub fn new(process: i64) -> Self {
        let begin = Bucket::of(ProfileId(process.wrapping_mul(97)));
        Spread { people: Walk::new(begin), messages: Walk::new(begin) }
    }
}

/// A walk through the buckets in which something is due. Workers of one process share it, those of another begin elsewhere; where two meet
/// all the same, they skip each other's rows.
struct Walk {
    begin: Bucket,
    left: Mutex<VecDeque<Bucket>>,
}

impl Walk {
    fn new(begin: Bucket) -> Self {
        Walk { begin, left: Mutex::default() }
    }

    fn next(&self) -> Option<Bucket> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_over(&self) -> bool {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn go_round(&self, mut due: Vec<Bucket>) {
        due.sort_by_key(|bucket| (bucket.0 - self.begin.0).rem_euclid(BUCKETS));
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = due.into();
    }
}

// --------------------------------------------------------------------------------------------------------------- batches

/// Some of a batch that share a transaction, with their places in it.
pub(super) struct Part<T> {
    pub bucket: Option<Bucket>,
    pub places: Vec<usize>,
    pub rows: Vec<T>,
}

/// Cuts a batch: by bucket where people are spread, else not at all.
pub(super) fn parts<B: Backend, T>(store: &B, rows: Vec<T>, of: impl Fn(&T) -> Option<Bucket>) -> Vec<Part<T>> {
    if store.spread().is_none() {
        return vec![Part { bucket: None, places: (0..rows.len()).collect(), rows }];
    }
    let mut parts: BTreeMap<Option<Bucket>, Part<T>> = BTreeMap::new();
    for (place, row) in rows.into_iter().enumerate() {
        let bucket = of(&row);
        let part = parts.entry(bucket).or_insert_with(|| Part { bucket, places: Vec::new(), rows: Vec::new() });
        part.places.push(place);
        part.rows.push(row);
    }
    parts.into_values().collect()
}

/// Writes a batch, part by part; what each of them answers.
pub(super) async fn each<B, T, W>(
    store: &B,
    rows: Vec<T>,
    of: impl Fn(&T) -> Option<Bucket>,
    work: impl Fn(Vec<T>) -> W,
) -> Result<Vec<W::Done>, StoreError>
where
    B: Backend,
    W: Work,
{
    let mut done = Vec::new();
    for part in parts(store, rows, of) {
        done.push(store.write_in(part.bucket, work(part.rows)).await?);
    }
    Ok(done)
}

/// Writes a batch, part by part; the answers stand in its order. After a part that failed the rest is not written: it is answered by
/// `unwritten`, if some was written before and there is such an answer. What this process has claimed is free then, since
/// nobody goes on with the rest.
pub(super) async fn answers<B, T, W, A>(
    store: &B,
    rows: Vec<T>,
    of: impl Fn(&T) -> Option<Bucket>,
    work: impl Fn(Vec<T>) -> W,
    unwritten: Option<A>,
) -> Result<Vec<A>, StoreError>
where
    B: Backend,
    W: Work<Done = Vec<A>>,
    A: Copy,
{
    let count = rows.len();
    let mut placed: BTreeMap<usize, A> = BTreeMap::new();
    for part in parts(store, rows, of) {
        match store.write_in(part.bucket, work(part.rows)).await {
            Ok(answers) => placed.extend(part.places.into_iter().zip(answers)),
            Err(error) => {
                let Some(unwritten) = unwritten.filter(|_| !placed.is_empty()) else { return Err(error) };
                tracing::warn!(rows = count - placed.len(), error = %error, "part of a batch was not written: it is looked at again");
                store.renounce_claims();
                return Ok((0..count).map(|place| placed.remove(&place).unwrap_or(unwritten)).collect());
            }
        }
    }
    Ok(placed.into_values().collect())
}

pub(super) async fn intents<B: Backend>(
    store: &B,
    generation: i64,
    batch: Vec<crate::store::IntentCommit>,
) -> Result<Vec<Committed>, StoreError> {
    let of = |share: &crate::store::IntentCommit| Some(Bucket::of(share.profile_id));
    // if nobody knows of one part, all are called back: no byte of any has left
    answers(store, batch, of, |part| outbox::Intents::new(generation, part), None).await
}

/// Results know their messages only: whose those are is looked up everywhere first.
pub(super) async fn results<B: Backend>(store: &B, batch: Vec<MessageResult>) -> Result<Vec<Recorded>, StoreError> {
    if store.spread().is_none() {
        return store.write(outbox::Results(batch)).await;
    }
    let buckets = buckets_of(store, batch.iter().map(|result| result.message)).await?;
    // one that nobody knows is answered for in whichever bucket
    let of = |result: &MessageResult| Some(buckets.get(&result.message).copied().unwrap_or(Bucket(0)));
    answers(store, batch, of, outbox::Results, None).await
}

pub(super) async fn wake_messages<B: Backend>(store: &B, at: Timestamp, messages: Vec<MessageId>) -> Result<(), StoreError> {
    if store.spread().is_none() {
        return store.write(outbox::WakeMessages { at, messages }).await;
    }
    let buckets = buckets_of(store, messages.iter().copied()).await?;
    let known = messages.into_iter().filter(|message| buckets.contains_key(message)).collect();
    each(store, known, |message| buckets.get(message).copied(), |messages| outbox::WakeMessages { at, messages }).await?;
    Ok(())
}

pub(super) async fn remove<B: Backend>(store: &B, removal: Removal) -> Result<Removed, StoreError> {
    let Removal { at, events_before, messages_before, decisions_before, people } = removal;
    let work = |people| retention::Remove(Removal { at, events_before, messages_before, decisions_before, people });
    let mut removed = Removed::default();
    for part in each(store, people, |of| Some(Bucket::of(of.profile)), work).await? {
        removed.events += part.events;
        removed.messages += part.messages;
        removed.decisions += part.decisions;
    }
    Ok(removed)
}

/// A person who was one from the beginning is in one bucket; of several profiles each has its own.
pub(super) async fn erase<B: Backend>(store: &B, erasure: Erasure, cause: Cause) -> Result<Erased, StoreError> {
    let bucket = match store.spread() {
        None => None,
        Some(_) => {
            let merged = read!(store, |session| reads::merged(session, erasure.profile))?;
            merged.is_empty().then(|| Bucket::of(erasure.profile))
        }
    };
    store.write_in(bucket, erasures::Erase(erasure, cause)).await
}

async fn buckets_of<B: Backend>(store: &B, messages: impl Iterator<Item = MessageId>) -> Result<BTreeMap<MessageId, Bucket>, StoreError> {
    read!(store, |session| outbox::buckets_of(session, messages))
}

// ---------------------------------------------------------------------------------------------------------------- claims

pub(super) async fn claim_due<B: Backend>(store: &B, now: Timestamp, limit: usize, worker: &str) -> Result<DueProfiles, StoreError> {
    let claim = |limit, whom| decisions::ClaimDue { now, limit, worker: worker.to_owned(), whom };
    let Some(spread) = store.spread() else { return store.write(claim(limit, Whom::Anybody)).await };
    if spread.people.is_over() {
        // before each round: whoever is suspect is claimed alone
        for bucket in read!(store, |session| bucket_of_suspect(now, session))? {
            let suspect = store.write_in(Some(bucket), claim(1, Whom::Suspects)).await?;
            if suspect.is_suspect {
                return Ok(suspect);
            }
        }
    }
    let mut due = DueProfiles::default();
    let mut round = Round::of(store, &spread.people, &decisions::BUCKETS_DUE, now);
    while due.profiles.len() < limit
        && let Some(bucket) = round.next(!due.profiles.is_empty()).await?
    {
        match store.write_in(Some(bucket), claim(limit - due.profiles.len(), Whom::Unsuspected)).await {
            Ok(found) => {
                due.profiles.extend(found.profiles);
                due.corrupt.extend(found.corrupt);
            }
            // who has been claimed already gets its turn
            Err(error) if !due.profiles.is_empty() => {
                tracing::warn!(error = %error, "a bucket could not be claimed from: the next round comes by again");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    due.profiles.sort_by_key(|claimed| (claimed.due_at, claimed.claim.profile));
    Ok(due)
}

pub(super) async fn claim_messages<B: Backend>(
    store: &B,
    look: Look,
    limit: usize,
    worker: &str,
) -> Result<Vec<ClaimedMessages>, StoreError> {
    let claim = |limit, whom| outbox::ClaimMessages { look, limit, worker: worker.to_owned(), whom };
    let Some(spread) = store.spread() else { return store.write(claim(limit, Whom::Anybody)).await };
    let (mut groups, mut claimed): (Vec<ClaimedMessages>, usize) = (Vec::new(), 0);
    let mut round = Round::of(store, &spread.messages, &outbox::BUCKETS_QUEUED, look.upto());
    while claimed < limit
        && let Some(bucket) = round.next(claimed > 0).await?
    {
        match store.write_in(Some(bucket), claim(limit - claimed, Whom::Unsuspected)).await {
            Ok(found) => {
                claimed += found.iter().map(|group| group.messages.len()).sum::<usize>();
                groups.extend(found);
            }
            Err(error) if claimed > 0 => {
                tracing::warn!(error = %error, "a bucket could not be claimed from: the next round comes by again");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    if claimed == 0 {
        // nobody else waits: a suspect, alone
        for bucket in read!(store, |session| buckets(&outbox::BUCKETS_QUEUED, look.upto(), session))? {
            groups = store.write_in(Some(bucket), claim(1, Whom::Suspects)).await?;
            if !groups.is_empty() {
                break;
            }
        }
    }
    groups.sort_by_key(|group| group.profile_id);
    Ok(groups)
}

/// One claim's way along a walk. Where the walk ends, the buckets in which something is due are asked for once.
struct Round<'r, B> {
    store: &'r B,
    walk: &'r Walk,
    ask: &'static Sql,
    upto: Timestamp,
    has_asked: bool,
}

impl<'r, B: Backend> Round<'r, B> {
    fn of(store: &'r B, walk: &'r Walk, ask: &'static Sql, upto: Timestamp) -> Self {
        Round { store, walk, ask, upto, has_asked: false }
    }

    /// `is_enough`: something was found, so that nobody asks for more where the walk ends.
    async fn next(&mut self, is_enough: bool) -> Result<Option<Bucket>, StoreError> {
        if let Some(bucket) = self.walk.next() {
            return Ok(Some(bucket));
        }
        if is_enough || self.has_asked {
            return Ok(None);
        }
        self.has_asked = true;
        let store = self.store;
        self.walk.go_round(read!(store, |session| buckets(self.ask, self.upto, session))?);
        Ok(self.walk.next())
    }
}

async fn bucket_of_suspect(now: Timestamp, session: &mut Session<'_>) -> Result<Vec<Bucket>, StoreError> {
    let answer = query(&decisions::BUCKET_OF_SUSPECT).bind(now.as_ms()).bind(SUSPECT_AFTER).fetch_one(session).await?;
    Ok(Fields::all::<i16>("claims", &answer)?.into_iter().map(Bucket).collect())
}

async fn buckets(ask: &'static Sql, upto: Timestamp, session: &mut Session<'_>) -> Result<Vec<Bucket>, StoreError> {
    let answer = query(ask).bind(upto.as_ms()).fetch_one(session).await?;
    Ok(Fields::all::<i16>("profiles", &answer)?.into_iter().map(Bucket).collect())
}

// ---------------------------------------------------------------------------------------------------------------- events

/// Others may merge or erase somebody between the two steps: so often the steps are done again.
const GREETINGS_MAX: u32 = 5;

/// Takes events in by steps, each of which may be done again: first their people get their names, on whichever machines those lie, then each
/// bucket's events are written, then whoever turned out to be one person is merged.
pub(super) async fn append<B: Backend>(store: &B, events: Vec<NewEvent>) -> Result<Appended, StoreError> {
    if store.spread().is_none() {
        return store.write(append::Append(events)).await;
    }
    let (mut appended, mut left, mut greetings) = (Appended::default(), events, 0);
    while !left.is_empty() {
        greetings += 1;
        let greeted = store.write(Greet(std::mem::take(&mut left))).await?;
        appended.duplicates += greeted.known;
        appended.profiles_created += greeted.created;
        for part in parts(store, greeted.events, |(owner, _)| Some(Bucket::of(*owner))) {
            let events = std::sync::Arc::new(part.rows);
            let count = events.len() as u64;
            match store.write_in(part.bucket, TakeIn(events.clone())).await {
                Ok(new) => {
                    appended.new += new;
                    appended.duplicates += count - new;
                }
                Err(StoreError::Raced(_)) if greetings < GREETINGS_MAX => left.extend(events.iter().map(|(_, new)| new.clone())),
                Err(error) => return Err(error),
            }
        }
        for merge in greeted.merges {
            store.write(merge).await?;
            appended.profiles_merged += 1;
        }
    }
    Ok(appended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_begins_elsewhere_for_each_process_and_visits_every_bucket_once() {
        let mut begins = std::collections::BTreeSet::new();
        for process in 1..=16 {
            let walk = Spread::new(process).people;
            walk.go_round((0..BUCKETS).map(Bucket).collect());
            let order: Vec<Bucket> = std::iter::from_fn(|| walk.next()).collect();
            assert_eq!(order.len(), 256);
            begins.insert(order[0]);
            let steps = order.windows(2).all(|pair| (pair[1].0 - pair[0].0).rem_euclid(BUCKETS) == 1);
            assert!(steps, "{order:?}");
        }
        assert_eq!(begins.len(), 16, "{begins:?}");
    }

    #[test]
    fn people_are_in_the_bucket_that_the_database_computes() {
        for (id, bucket) in [(1, 1), (255, 255), (256, 0), (1_000_000_007, 1_000_000_007 % 256)] {
            assert_eq!(Bucket::of(ProfileId(id)), Bucket(bucket as i16));
        }
    }
}
