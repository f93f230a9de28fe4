//! Opening: the lock against a second process, the connections, the migrations, and what the last process left behind.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Sqlite, SqliteConnection, SqlitePool};

use super::memory::{Memory, Numbers, RecentIds};
use super::writer::Writer;
use super::{Shared, SqliteStore};
use crate::engine::coupon::Salt;
use crate::engine::time::Timestamp;
use crate::store::sql::rows::Fields;
use crate::store::sql::world::WorldCache;
use crate::store::sql::{self, Migrations, Row, Session, origin};
use crate::store::suppression::{Hasher, KEY_BYTES};
use crate::store::{CLOCKS_DIFFER_MS, StoreError};

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub path: PathBuf,
    /// The name under which it is opened; the first one stays.
    pub environment: String,
    pub durability: Durability,
    /// Event ids kept in memory against duplicates (about 50 bytes each). Default: a million.
    pub recent_ids_max: usize,
    /// How far an event may lie in the future; see [`CLOCKS_DIFFER_MS`], the default.
    pub clocks_differ_ms: i64,
    /// Connections that read beside the writer. Default: 4.
    pub readers: u32,
    /// Pages (of 4 kB) beyond which the database refuses to grow; none: the disk decides.
    pub pages_max: Option<u32>,
    /// The secret that codes of coupons are derived with, for a database that has none yet; none: chance makes one. A replay gives
    /// one, so that its codes are the same each time.
    pub coupon_salt: Option<[u8; KEY_BYTES]>,
}

/// What a commit survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Loss of power: every commit is flushed to the disk. What a shop needs.
    Power,
    /// The death of the process, not of the machine: for replays that can be run again.
    Process,
}

impl Options {
    pub fn new(path: &Path, environment: &str) -> Self {
        Options {
            path: path.to_owned(),
            environment: environment.to_owned(),
            durability: Durability::Power,
            recent_ids_max: 1_000_000,
            clocks_differ_ms: CLOCKS_DIFFER_MS,
            readers: 4,
            pages_max: None,
            coupon_salt: None,
        }
    }
}

/// The migrations, in order. They only ever add.
const MIGRATIONS: Migrations = Migrations(&[
    (1, "tables", include_str!("../../../migrations/sqlite/0001_tables.sql")),
    (2, "ingest", include_str!("../../../migrations/sqlite/0002_ingest.sql")),
    (3, "publications", include_str!("../../../migrations/sqlite/0003_publications.sql")),
    (4, "feedback", include_str!("../../../migrations/sqlite/0004_feedback.sql")),
    (5, "doubt", include_str!("../../../migrations/sqlite/0005_doubt.sql")),
    (6, "keeping", include_str!("../../../migrations/sqlite/0006_keeping.sql")),
    (7, "backup", include_str!("../../../migrations/sqlite/0007_backup.sql")),
]);

/// Pages kept in memory by each connection, in kB (negative: that is how SQLite takes it).
const CACHE_KB: &str = "-65536";
/// The database file is read through the page cache of the system up to so many bytes.
const MMAP_BYTES: &str = "1073741824";
/// Pages (of 4 kB) in the write-ahead log before they are carried over into the database: what is written again and again, and a
/// person's row is, is carried over once.
const LOG_PAGES: &str = "16000";
/// The write-ahead log is cut back to so many bytes after a checkpoint.
const LOG_BYTES_MAX: &str = "67108864";

/// Half a second in all before a database counts as in use.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Connections of a command that only looks.
const READERS_WHO_LOOK: u32 = 2;

/// Tables of somebody else's database: it has some, and none of ours that tells of migrations.
pub(super) const FOREIGN_TABLES: &str = "select count(*) as count from sqlite_master
    where type = 'table' and not exists (select 1 from sqlite_master where name = '_sqlx_migrations')";
pub(super) const SCHEMA: &str = "select coalesce(max(version), 0) from _sqlx_migrations";
pub(super) const COUNT_BOOT: &str = "update counters set value = value + 1 where name = 'boots' returning value";
/// Every claim of an earlier process is void, its count is not; leased messages are queued again. What was `sending` stays:
/// nobody knows whether it went out (see `interrupted`).
pub(super) const VOID_CLAIMS: &str = "update claims set worker = null;
    update messages set state = 'queued', worker = null where state in ('leased', 'sending') and state = 'leased'";
pub(super) const NUMBERS: &str = "select
    coalesce((select max(id) from profiles), 0),
    max(coalesce((select max(seq) from events), 0), (select value - 1 from counters where name = 'events_numbered_until')),
    (select count(*) from profiles),
    (select value from counters where name = 'events_received_until'),
    exists (select 1 from suppressions),
    exists (select 1 from erasures)";

impl SqliteStore {
    /// Opens the database as told.
    pub async fn open_with(options: Options) -> Result<Self, StoreError> {
        let lock = lock_patiently(&options.path).await?;
        let mut connection = connect_options(&options).connect().await.map_err(|e| unopened(&options.path, e))?;
        refuse_foreign(&mut connection, &options.path).await?;
        migrate(&mut connection, &options.path).await?;
        let mut session = Session::Sqlite(&mut connection);
        origin::write_states(&mut session, &options.path).await?;
        let environment = origin::named_environment(&mut session, &options.environment).await?;
        let hasher = Arc::new(origin::new_hasher(&mut session).await?);
        let coupon_salt = origin::new_coupon_salt(&mut session, options.coupon_salt).await?;
        let memory = recover(&mut connection, &options, Arc::clone(&hasher)).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers)
            // a file does not hang up: to ask first would cost every read a second way to SQLite's thread
            .test_before_acquire(false)
            .connect_lazy_with(connect_options(&options).read_only(true).create_if_missing(false));
        let shared = Arc::new(Shared {
            path: options.path,
            environment,
            coupon_salt,
            first_epoch: memory.numbers.next_epoch,
            hasher,
            world: WorldCache::default(),
            generation: AtomicI64::new(memory.numbers.generation),
            world_version: AtomicI64::new(memory.numbers.world),
            profiles: AtomicU64::new(memory.numbers.profiles),
            lock: std::sync::Mutex::new(Some(lock)),
        });
        let (writer, task) = Writer::start(connection, memory, Arc::clone(&shared));
        let store = SqliteStore { writer, readers, shared, task: Arc::new(std::sync::Mutex::new(Some(task))) };
        sql::finish_first_looks(&store).await?;
        Ok(store)
    }
}

/// See [`SqliteStore::open_to_read`].
pub(super) async fn to_read(path: &Path) -> Result<SqliteStore, StoreError> {
    let (readers, mut connection) = connect_to_read(path).await?;
    refuse_foreign(&mut connection, path).await?;
    let row = sqlx::query(SCHEMA)
        .fetch_one(&mut *connection)
        .await
        .map(Row::Sqlite)
        .map_err(|e| unopened(path, format!("it holds no tables: {e}")))?;
    let found: i64 = Fields::of("_sqlx_migrations", &row).next("version")?;
    MIGRATIONS.agree(found, path)?;
    let mut session = Session::Sqlite(&mut connection);
    origin::read_states(&mut session, path).await?;
    let environment = origin::environment(&mut session).await?;
    let hasher = Arc::new(origin::hasher(&mut session).await?);
    let row = sqlx::query(NUMBERS).fetch_one(&mut *connection).await.map(Row::Sqlite)?;
    let mut fields = Fields::of("profiles", &row);
    let (_last_profile, _last_event): (i64, i64) = (fields.next("id")?, fields.next("seq")?);
    let profiles = fields.count("count")?;
    drop(connection);
    let shared = Arc::new(Shared {
        path: path.to_owned(),
        environment,
        // who only reads gives no codes
        coupon_salt: Salt::default(),
        first_epoch: i64::MAX,
        hasher,
        world: WorldCache::default(),
        generation: AtomicI64::new(0),
        world_version: AtomicI64::new(0),
        profiles: AtomicU64::new(profiles),
        lock: std::sync::Mutex::default(),
    });
    Ok(SqliteStore { writer: Writer::refusing(), readers, shared, task: Arc::default() })
}

/// Connections that can only read. Where not even SQLite's own files beside the database can be made (a read-only mount), the file is
/// read as one that nobody changes; but not while its log holds what is not in it yet.
pub(super) async fn connect_to_read(path: &Path) -> Result<(SqlitePool, PoolConnection<Sqlite>), StoreError> {
    let options = connect_options(&Options::new(path, "")).read_only(true).create_if_missing(false);
    let pool = |options| SqlitePoolOptions::new().max_connections(READERS_WHO_LOOK).connect_lazy_with(options);
    let readers = pool(options.clone());
    let error = match readers.acquire().await {
        Ok(connection) => return Ok((readers, connection)),
        Err(error) => error,
    };
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if Path::new(&log).metadata().is_ok_and(|log| log.len() > 0) {
        let reason = format!("{error}; what its log `{}` holds is not in it yet: copy both to where they can be written", log.display());
        return Err(unopened(path, reason));
    }
    let readers = pool(options.immutable(true));
    let connection = readers.acquire().await.map_err(|_| unopened(path, error))?;
    Ok((readers, connection))
}

fn unopened(path: &Path, error: impl std::fmt::Display) -> StoreError {
    StoreError::Open { path: path.to_owned(), reason: error.to_string() }
}

/// A lock that was just let go may be held a moment longer: a child process under way from another thread has a copy of every open
/// file until it becomes its own program.
async fn lock_patiently(path: &Path) -> Result<File, StoreError> {
    for _ in 0..LOCK_TRIES {
        match lock(path) {
            Err(StoreError::Locked { .. }) => tokio::time::sleep(LOCK_PAUSE).await,
            taken => return taken,
        }
    }
    lock(path)
}

/// Takes the lock that says "this database is in use", with our process id for the message that a second one shows.
fn lock(path: &Path) -> Result<File, StoreError> {
    let name = path.file_name().ok_or_else(|| unopened(path, "this is no file name"))?;
    let mut beside = name.to_owned();
    beside.push(".lock");
    let lock_path = path.with_file_name(beside);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|e| unopened(path, format!("{e} (at `{}`)", lock_path.display())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // who holds it is a courtesy: unreadable is as good as unknown
            let holder = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(StoreError::Locked { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(unopened(path, error)),
    }
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    noted.map_err(|e| unopened(path, e))?;
    Ok(file)
}

fn connect_options(options: &Options) -> SqliteConnectOptions {
    let synchronous = match options.durability {
        Durability::Power => SqliteSynchronous::Full,
        Durability::Process => SqliteSynchronous::Off,
    };
    let connect = SqliteConnectOptions::new()
        .filename(&options.path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .busy_timeout(Duration::from_secs(5))
        .statement_cache_capacity(256)
        .pragma("cache_size", CACHE_KB)
        .pragma("mmap_size", MMAP_BYTES)
        .pragma("temp_store", "memory")
        .pragma("wal_autocheckpoint", LOG_PAGES)
        .pragma("journal_size_limit", LOG_BYTES_MAX)
        .disable_statement_logging();
    match options.pages_max {
        Some(pages) => connect.pragma("max_page_count", pages.to_string()),
        None => connect,
    }
}

async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    // `run` would do the same through a trait whose future the compiler cannot show to be `Send`
    let migrated = MIGRATIONS.migrator().run_direct(None, connection, false).await;
    migrated.map_err(|error| super::failure(MIGRATIONS.failed(error, path), path))
}

/// A database that another program made is left as it is.
async fn refuse_foreign(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let row = sqlx::query(FOREIGN_TABLES).fetch_one(&mut *connection).await.map(Row::Sqlite)?;
    let tables: i64 = Fields::of("sqlite_master", &row).next("count")?;
    if tables > 0 {
        return Err(unopened(path, "it holds tables of another program; nothing was touched, name another file"));
    }
    Ok(())
}

/// Voids what an earlier process had claimed, and reads the numbers the writer goes on from.
async fn recover(connection: &mut SqliteConnection, options: &Options, hasher: Arc<Hasher>) -> Result<Memory, StoreError> {
    let row = sqlx::query(COUNT_BOOT).fetch_one(&mut *connection).await.map(Row::Sqlite)?;
    let boots: i64 = Fields::of("counters", &row).next("value")?;
    sqlx::raw_sql(VOID_CLAIMS).execute(&mut *connection).await?;
    let row = sqlx::query(NUMBERS).fetch_one(&mut *connection).await.map(Row::Sqlite)?;
    let mut fields = Fields::of("profiles", &row);
    let (last_profile, last_event): (i64, i64) = (fields.next("id")?, fields.next("seq")?);
    let (profiles, received_until): (i64, i64) = (fields.next("count")?, fields.next("received_until")?);
    let (suppressed, erased) = (fields.next("suppressed")?, fields.next("erased")?);
    let first_of_boot = boots << 32;
    let numbers = Numbers {
        next_profile: last_profile + 1,
        next_event: last_event + 1,
        next_epoch: first_of_boot,
        profiles: profiles.max(0) as u64,
        generation: first_of_boot,
        world: first_of_boot,
        suppressed,
        erased,
    };
    let ids = RecentIds::new(Timestamp::from_ms(received_until), options.clocks_differ_ms, options.recent_ids_max);
    Ok(Memory::new(numbers, ids, hasher))
}
