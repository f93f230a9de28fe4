//! Opening: the connections, the migrations, and joining those who work on the same database.

use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgConnection, PgPool, Row as _};

use super::calls::Calls;
use super::lease::Lease;
use super::{PostgresStore, Shared, loan};
use crate::engine::coupon::Salt;
use crate::store::StoreError;
use crate::store::sql::spread::{Reach, Spread};
use crate::store::sql::{self, Migrations, Session, origin};
use crate::store::suppression::KEY_BYTES;

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://user:password@host:port/name`, with the parameters that PostgreSQL's own clients know.
    pub url: String,
    /// The name under which it is opened; the first one stays.
    pub environment: String,
    /// Connections at most. Default: 8.
    pub connections: u32,
    /// How often this process says that it lives. Default: 10 seconds.
    pub beat: Duration,
    /// How long nothing is heard of a process before others take over what it had claimed. Default: 30 seconds.
    pub dead_after: Duration,
    /// How long the database may take for an operation before it counts as away. Default: 30 seconds.
    pub answer: Duration,
    /// People are spread over machines by their bucket (docs/scale.md): each transaction is about one bucket. Default: false.
    pub distributed: bool,
    /// See [`crate::store::sqlite::Options::coupon_salt`].
    pub coupon_salt: Option<[u8; KEY_BYTES]>,
}

impl Options {
    pub fn new(url: &str, environment: &str) -> Self {
        Options {
            url: url.to_owned(),
            environment: environment.to_owned(),
            connections: 8,
            beat: Duration::from_secs(10),
            dead_after: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            distributed: false,
            coupon_salt: None,
        }
    }
}

/// The migrations, in order, with the numbers of SQLite's. They only ever add.
pub(super) const MIGRATIONS: Migrations = Migrations(&[
    (1, "tables", include_str!("../../../migrations/postgres/0001_tables.sql")),
    (2, "ingest", include_str!("../../../migrations/postgres/0002_ingest.sql")),
    (3, "publications", include_str!("../../../migrations/postgres/0003_publications.sql")),
    (4, "feedback", include_str!("../../../migrations/postgres/0004_feedback.sql")),
    (5, "doubt", include_str!("../../../migrations/postgres/0005_doubt.sql")),
    (6, "keeping", include_str!("../../../migrations/postgres/0006_keeping.sql")),
    (7, "backup", include_str!("../../../migrations/postgres/0007_backup.sql")),
]);

/// How long a connection may take to come about before the operation fails.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(10);
/// Connections of a command that only looks.
const CONNECTIONS_TO_READ: u32 = 2;

pub(super) const SCHEMA: &str = "select coalesce(max(version), 0) from _sqlx_migrations";

pub(super) async fn open(options: Options) -> Result<PostgresStore, StoreError> {
    let name = name_of(&options.url);
    // a new index on a grown table takes as long as it takes
    let mut connection = connect(&options.url, &name, 1, None).await?.acquire().await.map_err(|error| unopened(&name, error))?;
    migrate(&mut connection, &name).await?;
    let mut session = Session::Postgres(&mut connection, Reach::Undivided);
    origin::write_states(&mut session, Path::new(&name)).await?;
    let environment = origin::named_environment(&mut session, &options.environment).await?;
    let hasher = origin::new_hasher(&mut session).await?;
    let coupon_salt = origin::new_coupon_salt(&mut session, options.coupon_salt).await?;
    let is_marked = origin::is_distributed(&mut session).await?;
    drop(connection);
    let answer = Some(options.answer);
    let pool = connect(&options.url, &name, options.connections, answer).await?;
    // no work, however long, keeps the sign of life from going out
    let for_beats = connect(&options.url, &name, 1, answer).await?;
    let shared = Arc::new(Shared::new(name, environment, coupon_salt, hasher));
    let lease = Lease::begin(for_beats, &shared, options.beat, options.dead_after).await?;
    let is_distributed = options.distributed || is_marked;
    let spread = is_distributed.then(|| Arc::new(Spread::new(lease.boot())));
    let calls = Some(Calls::begin(&options.url, pool.clone(), options.answer, lease.boot()));
    let store = PostgresStore { pool, shared, answer, lease: Some(lease), calls, spread };
    sql::finish_first_looks(&store).await?;
    Ok(store)
}

/// See [`PostgresStore::open_to_read`].
pub(super) async fn to_read(url: &str) -> Result<PostgresStore, StoreError> {
    let name = name_of(url);
    let pool = connect(url, &name, CONNECTIONS_TO_READ, None).await?;
    let mut connection = pool.acquire().await.map_err(|error| unopened(&name, error))?;
    agree(&mut connection, &name).await?;
    let mut session = Session::Postgres(&mut connection, Reach::Undivided);
    let environment = origin::environment(&mut session).await?;
    let hasher = origin::hasher(&mut session).await?;
    drop(connection);
    // who only reads gives no codes
    let shared = Arc::new(Shared::new(name, environment, Salt::default(), hasher));
    Ok(PostgresStore { pool, shared, answer: None, lease: None, calls: None, spread: None })
}

/// Whether tables and states are as this program knows them.
pub(super) async fn agree(connection: &mut PgConnection, name: &str) -> Result<(), StoreError> {
    let row = sqlx::query(SCHEMA).fetch_one(&mut *connection).await;
    let found: i64 = row.map_err(|error| unopened(name, format!("it holds no tables of ours: {error}")))?.try_get(0)?;
    MIGRATIONS.agree(found, Path::new(name))?;
    origin::read_states(&mut Session::Postgres(connection, Reach::Undivided), Path::new(name)).await
}

/// `answer`: how long a statement may take; none: as long as it does.
async fn connect(url: &str, name: &str, connections: u32, answer: Option<Duration>) -> Result<PgPool, StoreError> {
    let connect = PgConnectOptions::from_str(url).map_err(|_| unopened(name, "expected postgres://user:password@host:port/name"))?;
    // a commit is on disk when it returns, whatever the server's default is
    let connect = connect.application_name("rekindle").options([("synchronous_commit", "on")]).disable_statement_logging();
    let connect = answer.into_iter().fold(connect, loan::bounded);
    let acquired = answer.map_or(ACQUIRE_WITHIN, |answer| answer.min(ACQUIRE_WITHIN));
    let options = PgPoolOptions::new().max_connections(connections).acquire_timeout(acquired);
    // the pool's own test would wait for ever
    let options = options.test_before_acquire(false).before_acquire(|connection, _| Box::pin(loan::leads_there(connection)));
    options.connect_with(connect).await.map_err(|error| unopened(name, error))
}

/// A database as people may read of it: without user and password.
pub fn name_of(url: &str) -> String {
    match PgConnectOptions::from_str(url) {
        Ok(connect) => {
            format!("postgres://{}:{}/{}", connect.get_host(), connect.get_port(), connect.get_database().unwrap_or_default())
        }
        Err(_) => "a postgres:// URL that cannot be read".to_owned(),
    }
}

fn unopened(name: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Open { path: name.into(), reason: error.to_string() }
}

/// The server lets one process migrate at a time; the others wait.
async fn migrate(connection: &mut PgConnection, name: &str) -> Result<(), StoreError> {
    let migrated = MIGRATIONS.migrator().run_direct(None, connection, false).await;
    migrated.map_err(|error| MIGRATIONS.failed(error, Path::new(name)))
}
