//! Who lives. A process joins under a number of its own and beats; whoever has not beaten for long enough on the database's clock is dead:
//! its claims are void, its leased messages are queued again, and what it was sending is left to [`crate::store::Store::interrupted`].
//!
//! A process trusts its claims only while its latest beat is younger than half of that, on its own monotonic clock ([`Lease::is_fresh`]):
//! so one that was stopped for longer (a paused machine, a broken network) sends nothing that another may have taken over.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{PgPool, Row as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Shared;
use crate::clock::Stopwatch;
use crate::store::StoreError;

pub(super) const JOIN: &str = "
    with boot as (update counters set value = value + 1 where name = 'boots' returning value)
    insert into workers (boot, beaten_at) select value, clock_timestamp() from boot returning boot";
pub(super) const BEAT: &str = "update workers set beaten_at = clock_timestamp() where boot = $1";
pub(super) const LEAVE: &str = "delete from workers where boot = $1";
pub(super) const BURY: &str = "delete from workers where beaten_at < clock_timestamp() - $1 * interval '1 millisecond'";
/// Whatever is held by nobody who lives. The counts of claims stay, so that what kills its process is found out.
pub(super) const FREE_CLAIMS: &str = "update claims set worker = null
    where worker is not null and not exists (select 1 from workers w where w.boot = claims.epoch >> 32)";
pub(super) const FREE_MESSAGES: &str = "update messages set state = 'queued', worker = null
    where state in ('leased', 'sending') and state = 'leased'
        and not exists (select 1 from workers w where w.boot = messages.epoch >> 32)";

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
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Lease {
    /// Joins, and beats from now on.
    pub async fn begin(pool: PgPool, shared: &Arc<Shared>, beat: Duration, dead_after: Duration) -> Result<Arc<Self>, StoreError> {
        let since = Stopwatch::start();
        bury(&pool, dead_after).await?;
        let boot = join(&pool, shared).await?;
        let lease = Arc::new(Lease {
            pool,
            boot: AtomicI64::new(boot),
            beaten_at: Mutex::new(since),
            fresh_for: dead_after / 2,
            renounced: AtomicBool::new(false),
            wake: Notify::new(),
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
            sqlx::query(LEAVE).bind(self.boot()).execute(&self.pool).await?;
            free(&self.pool).await
        };
        if let Err(error) = leave.await {
            tracing::warn!(database = %shared.name, error = %error, "could not take leave: what was claimed is free when this process counts as dead");
        }
        self.pool.close().await;
    }

    fn note(&self, since: Stopwatch) {
        *self.beaten_at.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    async fn beat(&self, shared: &Shared, dead_after: Duration) -> Result<(), StoreError> {
        let (since, pool) = (Stopwatch::start(), &self.pool);
        if self.renounced.swap(false, Ordering::AcqRel) {
            self.boot.store(join(pool, shared).await.inspect_err(|_| self.renounced.store(true, Ordering::Release))?, Ordering::Release);
        } else if sqlx::query(BEAT).bind(self.boot()).execute(pool).await?.rows_affected() == 0 {
            tracing::warn!(database = %shared.name, boot = self.boot(), "this process was taken for dead; it goes on under another number, and what it had claimed is free");
            self.boot.store(join(pool, shared).await?, Ordering::Release);
        }
        self.note(since);
        bury(pool, dead_after).await
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
    loop {
        // a beat that is asked for comes at once
        let _asked = tokio::time::timeout(beat, lease.wake.notified()).await;
        if let Err(error) = lease.beat(&shared, dead_after).await {
            tracing::warn!(database = %shared.name, error = %error, "the database did not take the heartbeat");
        }
    }
}

/// A number of its own, from which this process's epochs are made.
async fn join(pool: &PgPool, shared: &Shared) -> Result<i64, StoreError> {
    let boot: i64 = sqlx::query(JOIN).fetch_one(pool).await?.try_get(0)?;
    shared.next_epoch.store(boot << 32, Ordering::Release);
    Ok(boot)
}

async fn bury(pool: &PgPool, dead_after: Duration) -> Result<(), StoreError> {
    let after = i64::try_from(dead_after.as_millis()).unwrap_or(i64::MAX);
    let dead = sqlx::query(BURY).bind(after).execute(pool).await?.rows_affected();
    if dead > 0 {
        tracing::warn!(processes = dead, "processes have not beaten for too long and count as dead; what they had claimed is free");
    }
    free(pool).await
}

async fn free(pool: &PgPool) -> Result<(), StoreError> {
    sqlx::query(FREE_CLAIMS).execute(pool).await?;
    sqlx::query(FREE_MESSAGES).execute(pool).await?;
    Ok(())
}
