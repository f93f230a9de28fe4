//! PostgreSQL: the store for many processes. Each operation is one transaction on a connection of the pool; the operations themselves are
//! those of [`super::sql`].
//!
//! What keeps processes apart:
//! - **rows are locked in one order** ([`take`]): who judges people locks their rows first, by bucket and number, then messages; claims
//!   skip what is locked. Where two still collide (two new people under one name, a deadlock with a walk over everybody), the database
//!   rolls one back and it is done again;
//! - **a claim holds as long as its process lives** ([`lease`]): every process has a number and beats on the database's clock; who has not
//!   beaten for [`Options::dead_after`] is dead, its claims are void, and what it was sending is nobody's until somebody records that
//!   nobody knows. Every claim has an epoch whose upper half is that number, and every write checks it: a process that was taken for dead
//!   writes nothing any more;
//! - **what is forbidden is forbidden at once**: send-intents share a lock that whoever pauses something takes alone;
//! - **who has made something ready calls the others** ([`calls`]), who look by themselves now and then all the same;
//! - **nobody waits for ever** ([`loan`]): a database that does not answer for [`Options::answer`] is away, whatever the network says.

mod calls;
mod lease;
mod loan;
mod open;
mod take;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};

use self::calls::Calls;
use self::lease::Lease;
use self::loan::Loan;
pub(super) use self::loan::within;
pub use self::open::{Options, name_of};
pub(super) use self::take::take;
#[cfg(test)]
pub(super) use self::take::{LOCK_MESSAGES_IN_BUCKET, LOCK_PEOPLE_IN_BUCKET, LOCK_PEOPLE_OF_MESSAGES_IN_BUCKET};
use super::sql::spread::{Bucket, Reach, Spread};
use super::sql::world::{self, WorldCache};
use super::sql::{self, Backend, Session, Supply, Tx, Work};
use super::suppression::Hasher;
use super::{Call, EventSeq, ProfileId, StoreError, WorldView};
use crate::clock::Stopwatch;
use crate::engine::coupon::Salt;
use crate::engine::decide::World;
use crate::engine::time::Timestamp;
use crate::faults::Point;

/// A transaction that others got in the way of is tried so often.
const TRIES_MAX: u32 = 8;
/// ... the later the longer apart: so long after the first.
const PAUSE: Duration = Duration::from_millis(5);

/// What is forbidden is asked anew before a message leaves, unless it was asked so lately.
const GENERATION_FRESH: Duration = Duration::from_millis(200);

/// The store over one database, for any number of processes. Clones share the connections.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    shared: Arc<Shared>,
    /// How long the database may take for an operation; none: as long as it does.
    answer: Option<Duration>,
    /// None: opened to read only.
    lease: Option<Arc<Lease>>,
    /// None: opened to read only.
    calls: Option<Arc<Calls>>,
    /// None: one machine has everybody.
    spread: Option<Arc<Spread>>,
}

struct Shared {
    /// The database as people name it, without the password.
    name: String,
    environment: String,
    coupon_salt: Salt,
    hasher: Hasher,
    world: WorldCache,
    /// As last asked, and when.
    generation: Mutex<Option<(Stopwatch, i64)>>,
    /// The next claim's. Its upper half is this process's number.
    next_epoch: AtomicI64,
    /// A newer program works on the database: this one claims and sends nothing any more. What it had under way ends; what it takes in
    /// is taken in, since migrations only add.
    outgrown: OnceLock<StoreError>,
}

impl Shared {
    fn new(name: String, environment: String, coupon_salt: Salt, hasher: Hasher) -> Self {
        Shared {
            name,
            environment,
            coupon_salt,
            hasher,
            world: WorldCache::default(),
            generation: Mutex::default(),
            next_epoch: AtomicI64::new(0),
            outgrown: OnceLock::new(),
        }
    }
}

impl PostgresStore {
    /// Opens the database at a URL (`postgres://user@host/name`), making its tables if need be.
    pub async fn open(url: &str, environment: &str) -> Result<Self, StoreError> {
        open::open(Options::new(url, environment)).await
    }

    pub async fn open_with(options: Options) -> Result<Self, StoreError> {
        open::open(options).await
    }

    /// From its answer on this process hears what others call ([`crate::store::Store::called`]).
    pub async fn listen(&self) -> Result<(), StoreError> {
        match &self.calls {
            Some(calls) => calls.listen().await,
            None => Ok(()),
        }
    }

    /// Opens an existing database to look at it. Nothing is changed or claimed; whatever would write is refused.
    pub async fn open_to_read(url: &str) -> Result<Self, StoreError> {
        open::to_read(url).await
    }

    async fn attempt<W: Work>(&self, bucket: Option<Bucket>, work: &W) -> Result<W::Done, StoreError> {
        let lease = self.lease.as_ref().ok_or_else(|| StoreError::Unavailable("it was opened to read only".into()))?;
        let mut loan = Loan::of(&self.pool).await?;
        let done = self.attempt_on(&mut loan, lease, bucket, work).await;
        // what it was asked is undone when the server notices that nobody is there any more
        if !matches!(done, Err(StoreError::Unavailable(_))) {
            loan.give_back();
        }
        done
    }

    async fn attempt_on<W: Work>(
        &self,
        connection: &mut PgConnection,
        lease: &Lease,
        bucket: Option<Bucket>,
        work: &W,
    ) -> Result<W::Done, StoreError> {
        let reach = match (&self.spread, bucket) {
            (None, _) => Reach::Undivided,
            (Some(_), None) => Reach::Everywhere,
            (Some(_), Some(bucket)) => Reach::Within(bucket),
        };
        let mut transaction = within(self.answer, async { Ok(connection.begin().await?) }).await?;
        let mut memory = Memory::of(&self.shared);
        let applied = within(self.answer, async {
            let done = work.apply(&mut Tx { session: Session::Postgres(&mut transaction, reach), memory: &mut memory }).await?;
            memory.write(&mut transaction).await?;
            Ok(done)
        });
        match applied.await {
            Ok(done) => {
                Point::StoreWriting.reach();
                let committed = within(self.answer, async { Ok(transaction.commit().await?) }).await;
                // nobody knows whether it was done: whatever was claimed by it is left to those who look after the dead
                committed.inspect_err(|_| lease.renounce())?;
                Point::StoreWritten.reach();
                Ok(done)
            }
            // it may never answer again
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            Err(error) => {
                within(self.answer, async { Ok(transaction.rollback().await?) }).await?;
                Err(error)
            }
        }
    }
}

/// A reader's transaction: what it sees does not change.
const READ: &str = "begin isolation level repeatable read read only";
const READ_TO_THE_END: &str = "rollback";

impl PostgresStore {
    async fn view_in(&self, connection: &mut PgConnection, month_start: Timestamp) -> Result<WorldView, StoreError> {
        let numbers = take::numbers(connection).await?;
        let (generation, live) = (numbers.generation, numbers.live);
        if let Some(world) = self.shared.world.get(numbers.world, month_start, numbers.profiles) {
            return Ok(WorldView { world, generation, live });
        }
        let read = world::read(&mut Session::Postgres(connection, Reach::Undivided), month_start, numbers.profiles).await?;
        let world = World { coupon_salt: self.shared.coupon_salt.clone(), ..read };
        Ok(WorldView { world: self.shared.world.put(numbers.world, month_start, world), generation, live })
    }
}

#[async_trait]
impl Backend for PostgresStore {
    type Reader = Loan;

    async fn write<W: Work>(&self, work: W) -> Result<W::Done, StoreError> {
        self.write_in(None, work).await
    }

    async fn write_in<W: Work>(&self, bucket: Option<Bucket>, work: W) -> Result<W::Done, StoreError> {
        if let Some(outgrown) = self.shared.outgrown.get().filter(|_| W::CLAIMS) {
            return Err(outgrown.clone());
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.attempt(bucket, &work).await {
                Err(StoreError::Raced(_)) if tries < TRIES_MAX => tokio::time::sleep(PAUSE * tries).await,
                answer => return answer.map_err(|error| self.failed(error)),
            }
        }
    }

    fn spread(&self) -> Option<&Spread> {
        self.spread.as_deref()
    }

    fn renounce_claims(&self) {
        if let Some(lease) = &self.lease {
            lease.renounce();
        }
    }

    async fn reader(&self) -> Result<Self::Reader, StoreError> {
        let mut loan = Loan::of(&self.pool).await?;
        within(self.answer, async { Ok(loan.execute(READ).await?) }).await?;
        Ok(loan)
    }

    async fn end(&self, mut reader: Loan) {
        // one that does not even end is dropped
        if within(self.answer, async { Ok(reader.execute(READ_TO_THE_END).await?) }).await.is_ok() {
            reader.give_back();
        }
    }

    fn answers_within(&self) -> Option<Duration> {
        self.answer
    }

    fn session(reader: &mut Self::Reader) -> Session<'_> {
        Session::Postgres(reader, Reach::Undivided)
    }

    fn hasher(&self) -> &Hasher {
        &self.shared.hasher
    }

    fn environment_name(&self) -> &str {
        &self.shared.environment
    }

    async fn present_generation(&self) -> Result<i64, StoreError> {
        let known = *self.shared.generation.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, generation)) = known.filter(|(since, _)| since.elapsed() < GENERATION_FRESH) {
            return Ok(generation);
        }
        let since = Stopwatch::start();
        let mut loan = Loan::of(&self.pool).await.map_err(|error| self.failed(error))?;
        let numbers = within(self.answer, take::numbers(&mut loan)).await.map_err(|error| self.failed(error))?;
        loan.give_back();
        let generation = numbers.generation;
        *self.shared.generation.lock().unwrap_or_else(PoisonError::into_inner) = Some((since, generation));
        Ok(generation)
    }

    fn first_epoch(&self) -> i64 {
        self.lease.as_ref().map_or(i64::MAX, |lease| lease.boot() << 32)
    }

    async fn view(&self, month_start: Timestamp) -> Result<WorldView, StoreError> {
        let mut reader = self.reader().await?;
        let read = within(self.answer, self.view_in(&mut reader, month_start)).await;
        self.end(reader).await;
        read.map_err(|error| self.failed(error))
    }

    fn call(&self, call: Call) {
        if let Some(calls) = &self.calls {
            calls.ask(call);
        }
    }

    async fn next_call(&self) -> Call {
        match &self.calls {
            Some(calls) => calls.next().await,
            None => std::future::pending().await,
        }
    }

    fn trusts_its_claims(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_fresh()) && self.shared.outgrown.get().is_none()
    }

    async fn others(&self) -> Result<u64, StoreError> {
        let Some(lease) = &self.lease else { return Ok(0) };
        let mut loan = Loan::of(&self.pool).await?;
        let others = within(self.answer, lease.others(&mut loan)).await?;
        loan.give_back();
        Ok(others)
    }

    /// Takes leave: what this process has claimed is free at once.
    async fn let_go(&self) {
        if let Some(lease) = &self.lease {
            lease.end(&self.shared).await;
        }
        if let Some(calls) = &self.calls {
            calls.end();
        }
        loan::close(&self.pool).await;
    }

    fn failed(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Full { .. } => StoreError::Full { path: self.shared.name.clone().into() },
            StoreError::NewerStates { found, known, .. } => StoreError::NewerStates { path: self.shared.name.clone().into(), found, known },
            other => other,
        }
    }
}

/// What one transaction has taken, and what it has changed that others must hear of.
struct Memory<'s> {
    shared: &'s Shared,
    events: VecDeque<i64>,
    profiles: VecDeque<i64>,
    generation: i64,
    forbids: bool,
    changes_world: bool,
}

impl<'s> Memory<'s> {
    fn of(shared: &'s Shared) -> Self {
        Memory { shared, events: VecDeque::new(), profiles: VecDeque::new(), generation: 0, forbids: false, changes_world: false }
    }

    /// The last thing in the transaction, since everybody meets in these rows.
    async fn write(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        match (self.forbids, self.changes_world) {
            (true, _) => take::forbid(connection).await,
            (false, true) => take::change_world(connection).await,
            (false, false) => Ok(()),
        }
    }
}

fn untaken(what: &str) -> StoreError {
    StoreError::Unavailable(format!("more {what} were numbered than taken"))
}

impl sql::Memory for Memory<'_> {
    fn hasher(&self) -> &Hasher {
        &self.shared.hasher
    }

    fn supply(&mut self, supply: Supply) {
        self.events.extend(supply.events);
        self.profiles.extend(supply.profiles);
        self.generation = supply.generation.unwrap_or(self.generation);
    }

    fn event_seq(&mut self) -> Result<EventSeq, StoreError> {
        self.events.pop_front().map(EventSeq).ok_or_else(|| untaken("events"))
    }

    /// A sequence of the database's does, which never goes back.
    fn next_event(&self) -> i64 {
        0
    }

    fn profile_id(&mut self) -> Result<ProfileId, StoreError> {
        self.profiles.pop_front().map(ProfileId).ok_or_else(|| untaken("people"))
    }

    fn epoch(&mut self) -> i64 {
        self.shared.next_epoch.fetch_add(1, Ordering::Relaxed)
    }

    fn generation(&self) -> i64 {
        self.generation
    }

    fn forbid(&mut self) {
        self.forbids = true;
    }

    fn change_world(&mut self) {
        self.changes_world = true;
    }

    /// Another process may have put somebody on it: the table knows.
    fn may_have_suppressed(&self) -> bool {
        true
    }

    fn note_suppressed(&mut self) {}

    fn may_have_erased(&self) -> bool {
        true
    }

    fn note_erased(&mut self) {}

    /// Other processes take events in too, so that only the tables know.
    fn recent_owner(&mut self, _hash: i64) -> Option<ProfileId> {
        None
    }

    fn may_be_forgotten(&mut self, _occurred_at: Timestamp) -> bool {
        true
    }

    fn remember(&mut self, _hash: i64, _owner: ProfileId, _received_at: Timestamp) {}
}
