//! Who lives. A process joins under a number of its own and beats; whoever has not beaten for long enough on the database's clock is dead:
//! its claims are void, its leased messages are queued again, and what it was sending is left to [`crate::store::Store::interrupted`].
//!
//! A process trusts its claims only while its latest beat is younger than half of that, on its own monotonic clock ([`Lease::is_fresh`]):
//! so one that was stopped for longer (a paused machine, a broken network) sends nothing that another may have taken over.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{PgConnection, PgPool, Row as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Shared;
use super::loan::{self, Loan, within};
use super::open;
use crate::clock::Stopwatch;
use crate::store::StoreError;

pub(super) const JOIN: &str = "
    with boot as (update counters set value = value + 1 where name = 'boots' returning value)
    insert into workers (boot, beaten_at) select value, clock_timestamp() from boot returning boot";
pub(super) const BEAT: &str = "update workers set beaten_at = clock_timestamp() where boot = $1";
pub(super) const LEAVE: &str = "delete from workers where boot = $1";
pub(super) const BURY: &str = "delete from workers where beaten_at < clock_timestamp() - $1 * interval '1 millisecond'";
pub(super) const OTHERS: &str = "select count(*) from workers
    where boot <> $1 and beaten_at >= clock_timestamp() - $2 * interval '1 millisecond'";
/// Whatever is held by nobody who lives. The counts of claims stay, so that what kills its process is found out.
pub(super) const FREE_CLAIMS: &str = "update claims set worker = null
    where worker is not null and not exists (select 1 from workers w where w.boot = claims.epoch >> 32)";
pub(super) const FREE_MESSAGES: &str = "update messages set state = 'queued', worker = null
    where state in ('leased', 'sending') and state = 'leased'
        and not exists (select 1 from workers w where w.boot = messages.epoch >> 32)";

/// A beat that was not taken is tried again after this long.
const BEAT_AGAIN: Duration = Duration::from_secs(1);
/// Half of this at least may pass until a beat is answered.
const BEAT_WITHIN_MIN: Duration = Duration::from_secs(2);
/// A farewell that is not heard within this is not heard.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Lease {
    /// Of its own: whoever waits for one of the others still lives.
    pool: PgPool,
    boot: AtomicI64,
    /// The beginning of the latest beat that the database confirmed.
    beaten_at: Mutex<Stopwatch>,
    fresh_for: Duration,
    /// Set when nobody knows what was claimed under the present number.
    renounced: AtomicBool,
    wake: Notify,
    /// How long the database may take for a beat.
    within: Duration,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Lease {
    /// Joins, and beats from now on.
    pub async fn begin(pool: PgPool, shared: &Arc<Shared>, beat: Duration, dead_after: Duration) -> Result<Arc<Self>, StoreError> {
        let since = Stopwatch::start();
        bury(&pool, dead_after).await?;
        let mut loan = Loan::of(&pool).await?;
        let boot = join(&mut loan, shared).await?;
        loan.give_back();
        let lease = Arc::new(Lease {
            pool,
            boot: AtomicI64::new(boot),
            beaten_at: Mutex::new(since),
            fresh_for: dead_after / 2,
            renounced: AtomicBool::new(false),
            wake: Notify::new(),
            within: beat.max(BEAT_WITHIN_MIN) / 2,
            task: Mutex::new(None),
        });
        let task = tokio::spawn(keep(Arc::clone(&lease), Arc::clone(shared), beat, dead_after));
        *lease.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(lease)
    }

    pub fn boot(&self) -> i64 {
        self.boot.load(Ordering::Acquire)
    }

    pub fn is_fresh(&self) -> bool {
        self.beaten_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < self.fresh_for
    }

    /// Goes on under another number as soon as possible. What was claimed under the present one is free when that one is dead.
    pub fn renounce(&self) {
        self.renounced.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub async fn end(&self, shared: &Shared) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
        }
        let leave = async {
            let mut loan = Loan::of(&self.pool).await?;
            sqlx::query(LEAVE).bind(self.boot()).execute(&mut *loan).await?;
            free(&mut loan).await?;
            loan.give_back();
            Ok(())
        };
        if let Err(error) = within(Some(LEAVE_WITHIN), leave).await {
            tracing::warn!(database = %shared.name, error = %error, "could not take leave: what was claimed is free when this process counts as dead");
        }
        loan::close(&self.pool).await;
    }

    fn note(&self, since: Stopwatch) {
        *self.beaten_at.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    async fn beat(&self, shared: &Shared) -> Result<(), StoreError> {
        let mut loan = Loan::of(&self.pool).await?;
        let since = Stopwatch::start();
        if self.renounced.load(Ordering::Acquire) {
            let boot = join(&mut loan, shared).await?;
            // only now: whoever gives up waiting for the other number has not got it
            self.renounced.store(false, Ordering::Release);
            self.boot.store(boot, Ordering::Release);
        } else if sqlx::query(BEAT).bind(self.boot()).execute(&mut *loan).await?.rows_affected() == 0 {
            tracing::warn!(database = %shared.name, boot = self.boot(), "this process was taken for dead; it goes on under another number, and what it had claimed is free");
            self.boot.store(join(&mut loan, shared).await?, Ordering::Release);
        }
        self.note(since);
        if let Err(outgrown) = open::agree(&mut loan, &shared.name).await
            && matches!(outgrown, StoreError::Newer { .. } | StoreError::NewerStates { .. })
            && shared.outgrown.set(outgrown.clone()).is_ok()
        {
            tracing::error!("claims and sends nothing any more: {outgrown}");
        }
        loan.give_back();
        Ok(())
    }

    /// How many other processes are alive.
    pub async fn others(&self, connection: &mut PgConnection) -> Result<u64, StoreError> {
        let dead_after = i64::try_from((self.fresh_for * 2).as_millis()).unwrap_or(i64::MAX);
        let others: i64 = sqlx::query(OTHERS).bind(self.boot()).bind(dead_after).fetch_one(connection).await?.try_get(0)?;
        Ok(others.max(0) as u64)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

async fn keep(lease: Arc<Lease>, shared: Arc<Shared>, beat: Duration, dead_after: Duration) {
    let mut pause = beat;
    loop {
        // a beat that is asked for comes at once
        let _asked = tokio::time::timeout(pause, lease.wake.notified()).await;
        pause = match within(Some(lease.within), lease.beat(&shared)).await {
            Ok(()) => beat,
            Err(error) => {
                tracing::warn!(database = %shared.name, error = %error, "the database did not take the heartbeat");
                beat.min(BEAT_AGAIN)
            }
        };
        // who waits for somebody's lock here looks alive all the same
        if let Err(error) = within(Some(lease.within), bury(&lease.pool, dead_after)).await {
            tracing::warn!(database = %shared.name, error = %error, "could not look after processes that no longer beat");
        }
    }
}

/// A number of its own, from which this process's epochs are made.
async fn join(connection: &mut PgConnection, shared: &Shared) -> Result<i64, StoreError> {
    let boot: i64 = sqlx::query(JOIN).fetch_one(connection).await?.try_get(0)?;
    shared.next_epoch.store(boot << 32, Ordering::Release);
    Ok(boot)
}

async fn bury(pool: &PgPool, dead_after: Duration) -> Result<(), StoreError> {
    let after = i64::try_from(dead_after.as_millis()).unwrap_or(i64::MAX);
    let mut loan = Loan::of(pool).await?;
    let dead = sqlx::query(BURY).bind(after).execute(&mut *loan).await?.rows_affected();
    if dead > 0 {
        tracing::warn!(processes = dead, "processes have not beaten for too long and count as dead; what they had claimed is free");
    }
    free(&mut loan).await?;
    loan.give_back();
    Ok(())
}

async fn free(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query(FREE_CLAIMS).execute(&mut *connection).await?;
    sqlx::query(FREE_MESSAGES).execute(&mut *connection).await?;
    Ok(())
}
