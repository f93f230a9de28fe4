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

mod append;
mod backlog;
mod decisions;
mod erasures;
mod identities;
mod keys;
mod memory;
mod open;
mod outbox;
mod publications;
mod reads;
mod rejects;
mod retention;
mod rows;
mod rules;
#[cfg(test)]
mod statements;
mod suppressions;
mod world;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sqlx::SqlitePool;

use self::memory::Memory;
pub use self::open::{Durability, Options};
use self::world::WorldCache;
use self::writer::{Work, Writer};
use super::{
    ApiKey, Appended, Backlog, Claim, Committed, Counts, DecisionCommit, DueProfiles, EntryRow, EventRow, EventSeq, Glance, History,
    Identity, IntentCommit, KeyId, Look, MessageResult, MessageRow, NewEvent, NewKey, Operation, PauseScope, ProfileId, ProfilePage,
    Publication, PublicationRow, Published, Recorded, RefusedRules, Reject, RejectRow, SourceHour, Store, StoreError, StoredProfile,
    WorldView,
};
use crate::engine::action::{Channel, MessageId};
use crate::engine::coupon::Salt;
use crate::engine::decide::Pause;
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::store::ClaimedMessages;
use crate::store::erasure::{Cause, Erased, Erasure};
use crate::store::retention::{Kept, Oldest, Removal, RemovalRow, Removed};
use crate::store::suppression::{Hasher, Lift, Suppress, Suppression};

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
    /// Held as long as anybody uses the store: the lock against a second process. Who only reads takes none.
    _lock: Option<std::fs::File>,
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

    /// Waits until everything is written and the files are closed, so that another process may open them. Other clones are useless
    /// afterwards.
    pub async fn close(self) {
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        self.readers.close().await;
        self.writer.stop().await;
        drop(self.writer);
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(error = %error, "the writer ended badly");
        }
    }

    async fn write<W: Work>(&self, work: W) -> Result<W::Done, StoreError> {
        self.writer.submit(work).await
    }

    fn failed(&self, error: StoreError) -> StoreError {
        failure(error, &self.shared.path)
    }
}

/// Completes an error that was made where the path is not known.
fn failure(error: StoreError, path: &Path) -> StoreError {
    match error {
        StoreError::Full { .. } => StoreError::Full { path: path.to_owned() },
        other => other,
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<u32>().ok());
        // the low byte is the primary code (https://sqlite.org/rescode.html)
        // what the system refuses to write (a quota, a limit on the size of files) is no more room, like a full disk
        const IOERR_WRITE: u32 = 778;
        match code.map(|code| if code == IOERR_WRITE { code } else { code & 0xff }) {
            Some(13 | IOERR_WRITE) => StoreError::Full { path: PathBuf::new() },
            Some(11 | 26) => StoreError::Corrupt { table: "database", column: "file", key: "page".into(), detail: error.to_string() },
            _ => StoreError::Unavailable(error.to_string()),
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn append_events(&self, events: Vec<NewEvent>) -> Result<Appended, StoreError> {
        self.write(append::Append(events)).await
    }

    async fn keep_rejects(&self, rejects: Vec<Reject>) -> Result<(), StoreError> {
        self.write(rejects::KeepRejects(rejects)).await
    }

    async fn rejects(&self, after: i64, limit: usize) -> Result<Vec<RejectRow>, StoreError> {
        rejects::rejects(&self.readers, after, limit).await.map_err(|e| self.failed(e))
    }

    async fn add_key(&self, key: NewKey) -> Result<KeyId, StoreError> {
        self.write(keys::AddKey(key)).await
    }

    async fn revoke_key(&self, id: KeyId, at: Timestamp, by: &str) -> Result<bool, StoreError> {
        self.write(keys::RevokeKey { id, at, by: Name::from(by) }).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        keys::keys(&self.readers).await.map_err(|e| self.failed(e))
    }

    async fn claim_due(&self, now: Timestamp, limit: usize, worker: &str) -> Result<DueProfiles, StoreError> {
        self.write(decisions::ClaimDue { now, limit, worker: worker.to_owned() }).await
    }

    async fn commit_decisions(&self, batch: Vec<DecisionCommit>) -> Result<Vec<Committed>, StoreError> {
        self.write(decisions::Commit::new(batch)).await
    }

    async fn release_profiles(&self, claims: Vec<Claim>) -> Result<(), StoreError> {
        self.write(decisions::Release(claims)).await
    }

    async fn quarantine(&self, at: Timestamp, profiles: Vec<(Claim, String)>) -> Result<(), StoreError> {
        self.write(decisions::Quarantine { at, profiles }).await
    }

    async fn reinstate(&self, at: Timestamp, profiles: Vec<ProfileId>) -> Result<(), StoreError> {
        self.write(decisions::Reinstate { at, profiles }).await
    }

    async fn make_all_due(&self, at: Timestamp, spread_ms: i64) -> Result<u64, StoreError> {
        rules::make_all_due(self, at, spread_ms).await
    }

    async fn entries_since(&self, since: Timestamp) -> Result<BTreeMap<Name, u64>, StoreError> {
        world::entries_since(&self.readers, since).await.map_err(|e| self.failed(e))
    }

    async fn claim_messages(&self, look: Look, limit: usize, worker: &str) -> Result<Vec<ClaimedMessages>, StoreError> {
        self.write(outbox::ClaimMessages { look, limit, worker: worker.to_owned() }).await
    }

    async fn interrupted(&self) -> Result<Vec<ClaimedMessages>, StoreError> {
        outbox::interrupted(self).await
    }

    async fn commit_intents(&self, generation: i64, batch: Vec<IntentCommit>) -> Result<Vec<Committed>, StoreError> {
        self.write(outbox::Intents::new(generation, batch)).await
    }

    async fn record_results(&self, batch: Vec<MessageResult>) -> Result<Vec<Recorded>, StoreError> {
        self.write(outbox::Results(batch)).await
    }

    async fn open_messages(&self, after: i64, limit: usize) -> Result<Vec<(i64, MessageRow)>, StoreError> {
        reads::open_messages(&self.readers, after, limit).await.map_err(|e| self.failed(e))
    }

    async fn wake_messages(&self, at: Timestamp, messages: Vec<MessageId>) -> Result<(), StoreError> {
        self.write(outbox::WakeMessages { at, messages }).await
    }

    async fn suppress(&self, batch: Vec<Suppress>) -> Result<Vec<bool>, StoreError> {
        self.write(suppressions::SuppressAll(batch)).await
    }

    async fn lift(&self, lift: Lift) -> Result<u64, StoreError> {
        self.write(suppressions::LiftOne(lift)).await
    }

    async fn erase(&self, erasure: Erasure, cause: Cause) -> Result<Erased, StoreError> {
        self.write(erasures::Erase(erasure, cause)).await
    }

    async fn erasure_of(&self, identity: &Identity) -> Result<Option<(Erasure, Erased)>, StoreError> {
        let (kind, value) = identities::parts(identity);
        erasures::erasure_of(&self.readers, self.shared.hasher.identity(kind, value)).await.map_err(|e| self.failed(e))
    }

    async fn suppressions(&self, channel: Channel, address: &str) -> Result<Vec<Suppression>, StoreError> {
        let hash = self.shared.hasher.address(channel, address);
        suppressions::suppressions(&self.readers, channel, hash).await.map_err(|e| self.failed(e))
    }

    async fn oldest(&self, kind: Kept, before: Timestamp, after: i64, limit: usize) -> Result<Oldest, StoreError> {
        retention::oldest(&self.readers, kind, before, after, limit).await.map_err(|e| self.failed(e))
    }

    async fn remove(&self, removal: Removal) -> Result<Removed, StoreError> {
        self.write(retention::Remove(removal)).await
    }

    async fn remove_rejects(&self, at: Timestamp, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.write(retention::RemoveRejects { at, before, limit }).await
    }

    async fn removals(&self, limit: usize) -> Result<Vec<RemovalRow>, StoreError> {
        retention::removals(&self.readers, limit).await.map_err(|e| self.failed(e))
    }

    async fn publish_rules(&self, publication: Publication) -> Result<Published, StoreError> {
        self.write(rules::Publish(publication)).await
    }

    async fn finish_first_looks(&self) -> Result<u64, StoreError> {
        rules::finish_first_looks(self).await
    }

    async fn publications(&self, limit: usize) -> Result<Vec<PublicationRow>, StoreError> {
        publications::publications(&self.readers, limit).await.map_err(|e| self.failed(e))
    }

    async fn explain_publication(&self, by: &str, why: &str) -> Result<(), StoreError> {
        self.write(publications::Explain { by: by.to_owned(), why: why.to_owned() }).await
    }

    async fn agree_with_files(&self, files: u64) -> Result<(), StoreError> {
        self.write(publications::Agree { files }).await
    }

    async fn refuse_rules(&self, refused: RefusedRules) -> Result<(), StoreError> {
        self.write(publications::Refuse(refused)).await
    }

    async fn refused_rules(&self) -> Result<Option<RefusedRules>, StoreError> {
        publications::refused(&self.readers).await.map_err(|e| self.failed(e))
    }

    async fn current_version(&self) -> Result<Option<u64>, StoreError> {
        rules::current_version(&self.readers).await.map_err(|e| self.failed(e))
    }

    async fn texts_of(&self, version: u64) -> Result<Option<Vec<(String, String)>>, StoreError> {
        rules::texts_of(&self.readers, version).await.map_err(|e| self.failed(e))
    }

    async fn world(&self, month_start: Timestamp) -> Result<WorldView, StoreError> {
        world::view(&self.readers, &self.shared, month_start).await.map_err(|e| self.failed(e))
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        Ok(self.shared.generation.load(Ordering::Acquire))
    }

    async fn set_pause(&self, at: Timestamp, scope: PauseScope, pause: Option<Pause>, by: &str) -> Result<(), StoreError> {
        self.write(world::SetPause { at, scope, pause, by: by.to_owned() }).await
    }

    async fn operations(&self, limit: usize) -> Result<Vec<Operation>, StoreError> {
        world::operations(&self.readers, limit).await.map_err(|e| self.failed(e))
    }

    async fn set_hold(&self, at: Timestamp, rule: &str, hold: Option<Pause>, by: &str) -> Result<(), StoreError> {
        self.write(world::SetHold { at, rule: rule.to_owned(), hold, by: by.to_owned() }).await
    }

    async fn heartbeat(&self, worker: &str, since: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        self.write(world::Heartbeat { worker: worker.to_owned(), since, now }).await
    }

    async fn latest_heartbeat(&self) -> Result<Option<Timestamp>, StoreError> {
        world::latest_heartbeat(&self.readers).await.map_err(|e| self.failed(e))
    }

    async fn days_sent(&self) -> Result<Vec<(Channel, Timestamp, u64)>, StoreError> {
        reads::days_sent(&self.readers).await.map_err(|e| self.failed(e))
    }

    async fn source_hours(&self, since: Timestamp) -> Result<Vec<SourceHour>, StoreError> {
        world::source_hours(&self.readers, since).await.map_err(|e| self.failed(e))
    }

    async fn record_quiet(&self, from: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.write(world::RecordQuiet { from, until }).await
    }

    async fn agenda(&self, upto: Timestamp) -> Result<Vec<(ProfileId, Timestamp)>, StoreError> {
        reads::agenda(&self.readers, upto).await.map_err(|e| self.failed(e))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        reads::next_due(&self.readers).await.map_err(|e| self.failed(e))
    }

    async fn environment(&self) -> Result<String, StoreError> {
        Ok(self.shared.environment.clone())
    }

    async fn find_profiles(&self, identities: &[Identity]) -> Result<Vec<Option<ProfileId>>, StoreError> {
        reads::find_profiles(&self.readers, identities).await.map_err(|e| self.failed(e))
    }

    async fn glance(&self, identity: &Identity) -> Result<Option<Glance>, StoreError> {
        reads::glance(&self.readers, identity).await.map_err(|e| self.failed(e))
    }

    async fn profile(&self, id: ProfileId) -> Result<Option<StoredProfile>, StoreError> {
        reads::profile(&self.readers, id).await.map_err(|e| self.failed(e))
    }

    async fn profiles(&self, after: Option<ProfileId>, limit: usize) -> Result<ProfilePage, StoreError> {
        reads::profiles(&self.readers, after, limit).await.map_err(|e| self.failed(e))
    }

    async fn history(&self, id: ProfileId) -> Result<History, StoreError> {
        reads::history(&self.readers, id).await.map_err(|e| self.failed(e))
    }

    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<MessageRow>, StoreError> {
        reads::messages(&self.readers, ids).await.map_err(|e| self.failed(e))
    }

    async fn entries(&self, after: i64, limit: usize) -> Result<Vec<EntryRow>, StoreError> {
        reads::entries(&self.readers, after, limit).await.map_err(|e| self.failed(e))
    }

    async fn events(&self, after: EventSeq, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        reads::events(&self.readers, after, limit).await.map_err(|e| self.failed(e))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        reads::counts(&self.readers).await.map_err(|e| self.failed(e))
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        backlog::backlog(&self.readers, now).await.map_err(|e| self.failed(e))
    }

    async fn dump(&self, id: ProfileId) -> Result<String, StoreError> {
        reads::dump(&self.readers, id).await.map_err(|e| self.failed(e))
    }
}
