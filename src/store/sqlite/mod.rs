//! SQLite: the embedded store. One writer with group commit ([`writer`]), readers beside it, every commit flushed to the disk.
//!
//! Three habits make it fast enough. A batch travels as one JSON text that `json_each` takes apart, states beside it as one blob that
//! `substr` cuts up: a call costs the same hop to SQLite's thread for one row as for a thousand. Small rows come back as one JSON
//! text too, since the driver wakes a thread for every row; states come row by row and are decoded while SQLite walks on. And where
//! several statements need nothing from each other they travel as one script with shared parameters.
//!
//! A second process that would write is refused by a lock of the operating system on a file beside the database; therefore every claim
//! found at the start is void. Who only looks ([`SqliteStore::open_to_read`]) needs no lock: readers see the last commit while the
//! writer goes on.

mod backup;
mod memory;
mod open;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Sqlite, SqlitePool, Transaction};

use self::memory::Memory;
pub use self::open::{Durability, Options};
use self::writer::Writer;
use super::sql::world::{self, WorldCache};
use super::sql::{Backend, Session, Work};
use super::suppression::Hasher;
use super::{StoreError, WorldView};
use crate::engine::coupon::Salt;
use crate::engine::decide::World;
use crate::engine::time::Timestamp;

/// The embedded store. Clones share the writer and the readers.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
}

/// What writer and readers both know.
struct Shared {
    path: PathBuf,
    environment: String,
    coupon_salt: Salt,
    /// Claims of this process have this epoch or a later one; every earlier process had smaller ones.
    first_epoch: i64,
    hasher: Arc<Hasher>,
    world: WorldCache,
    generation: AtomicI64,
    world_version: AtomicI64,
    profiles: AtomicU64,
    /// Held until the store is closed: the lock against a second process. Who only reads takes none.
    lock: Mutex<Option<std::fs::File>>,
}

impl Shared {
    /// Lets readers see the writer's numbers, after every transaction.
    fn publish(&self, memory: &Memory) {
        self.generation.store(memory.numbers.generation, Ordering::Release);
        self.world_version.store(memory.numbers.world, Ordering::Release);
        self.profiles.store(memory.numbers.profiles, Ordering::Release);
    }
}

impl SqliteStore {
    /// Opens the database, creating it if need be. The first to open it names its environment; see [`Store::environment`].
    pub async fn open(path: &Path, environment: &str) -> Result<Self, StoreError> {
        Self::open_with(Options::new(path, environment)).await
    }

    /// Opens an existing database to look at it: beside a process that writes, and where nothing can be written. Nothing is changed,
    /// migrated or taken over; whatever would write is refused. What [`Store::world`] said once it says again.
    pub async fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        open::to_read(path).await
    }

    /// Copies the database `from` to a new file, beside whatever works on it, and marks the copy as a backup taken at `at`: see
    /// [`Store::after_restore`]. Answers its size in bytes.
    ///
    /// # Errors
    /// The database cannot be opened, the file is there already, or the disk does not take it.
    pub async fn back_up(from: &Path, to: &Path, at: Timestamp) -> Result<u64, StoreError> {
        backup::back_up(from, to, at).await
    }
}

/// Completes an error that was made where the path is not known.
fn failure(error: StoreError, path: &Path) -> StoreError {
    match error {
        StoreError::Full { .. } => StoreError::Full { path: path.to_owned() },
        StoreError::NewerStates { found, known, .. } => StoreError::NewerStates { path: path.to_owned(), found, known },
        other => other,
    }
}

#[async_trait]
impl Backend for SqliteStore {
    type Reader = Transaction<'static, Sqlite>;

    async fn write<W: Work>(&self, work: W) -> Result<W::Done, StoreError> {
        self.writer.submit(work).await
    }

    async fn reader(&self) -> Result<Self::Reader, StoreError> {
        Ok(self.readers.begin().await?)
    }

    fn session(reader: &mut Self::Reader) -> Session<'_> {
        Session::Sqlite(reader)
    }

    async fn end(&self, _reader: Self::Reader) {}

    fn answers_within(&self) -> Option<Duration> {
        None
    }

    fn hasher(&self) -> &Hasher {
        &self.shared.hasher
    }

    fn environment_name(&self) -> &str {
        &self.shared.environment
    }

    async fn present_generation(&self) -> Result<i64, StoreError> {
        Ok(self.shared.generation.load(Ordering::Acquire))
    }

    fn first_epoch(&self) -> i64 {
        self.shared.first_epoch
    }

    async fn view(&self, month_start: Timestamp) -> Result<WorldView, StoreError> {
        // the numbers are read before the tables: what changes meanwhile makes the view old, never wrong
        let generation = self.shared.generation.load(Ordering::Acquire);
        let version = self.shared.world_version.load(Ordering::Acquire);
        let profiles = self.shared.profiles.load(Ordering::Acquire);
        if let Some(world) = self.shared.world.get(version, month_start, profiles) {
            return Ok(WorldView { world, generation, live: None });
        }
        let mut reader = self.reader().await?;
        let read = world::read(&mut Self::session(&mut reader), month_start, profiles).await.map_err(|e| self.failed(e))?;
        let world = World { coupon_salt: self.shared.coupon_salt.clone(), ..read };
        Ok(WorldView { world: self.shared.world.put(version, month_start, world), generation, live: None })
    }

    /// It holds the lock.
    async fn others(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// A claim is void only when the process is gone.
    fn trusts_its_claims(&self) -> bool {
        true
    }

    /// Another process may open the files afterwards.
    async fn let_go(&self) {
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        self.readers.close().await;
        self.writer.stop().await;
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(error = %error, "the writer ended badly");
        }
        self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn failed(&self, error: StoreError) -> StoreError {
        failure(error, &self.shared.path)
    }
}
