//! Where a database is, and opening it: the embedded one is a file, PostgreSQL has a URL. Whoever has opened it knows only the [`Store`].

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::postgres::{self, PostgresStore};
use super::sql::{self, Backend};
use super::sqlite::{self, SqliteStore};
use super::{Store, StoreError};

/// A process of which so many beats are missing counts as dead.
const BEATS_MISSED: u32 = 3;

/// Where a database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    /// `postgres://user:password@host:port/name`
    Server(String),
}

/// What of opening is the administrator's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// See [`sqlite::Options::readers`].
    pub readers: u32,
    /// See [`sqlite::Options::recent_ids_max`].
    pub recent_ids_max: usize,
    /// See [`sqlite::Options::clocks_differ_ms`].
    pub clocks_differ_ms: i64,
    /// See [`postgres::Options::connections`].
    pub connections: u32,
    /// See [`postgres::Options::beat`].
    pub beat: Duration,
    /// See [`postgres::Options::answer`].
    pub answer: Duration,
    /// See [`postgres::Options::distributed`].
    pub distributed: bool,
}

impl Place {
    /// A URL of PostgreSQL's, or else a path.
    pub fn of(text: &str) -> Self {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if is_url { Place::Server(text.to_owned()) } else { Place::File(PathBuf::from(text)) }
    }

    /// The file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Place::File(path) => Some(path),
            Place::Server(_) => None,
        }
    }

    /// Whether something may be there: a file is looked for, a server is asked when it is opened.
    pub fn may_exist(&self) -> bool {
        self.file().is_none_or(Path::is_file)
    }

    /// Opens it to work with, making what is not there yet; `environment` names a new one.
    pub async fn open(&self, environment: &str, capacity: Option<Capacity>) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Place::File(path) => {
                let mut options = sqlite::Options::new(path, environment);
                if let Some(Capacity { readers, recent_ids_max, clocks_differ_ms, .. }) = capacity {
                    options = sqlite::Options { readers, recent_ids_max, clocks_differ_ms, ..options };
                }
                self.settled(SqliteStore::open_with(options).await?).await
            }
            Place::Server(url) => {
                let mut options = postgres::Options::new(url, environment);
                if let Some(Capacity { connections, beat, answer, distributed, .. }) = capacity {
                    let dead_after = BEATS_MISSED * beat;
                    options = postgres::Options { connections, beat, dead_after, answer, distributed, ..options };
                }
                self.settled(PostgresStore::open_with(options).await?).await
            }
        }
    }

    /// Opens what is there to look at it: beside whoever works on it, changing nothing.
    pub async fn open_to_read(&self) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Place::File(path) => self.settled(SqliteStore::open_to_read(path).await?).await,
            Place::Server(url) => self.settled(PostgresStore::open_to_read(url).await?).await,
        }
    }

    /// Nobody works on half a database.
    async fn settled<B: Backend + 'static>(&self, store: B) -> Result<Arc<dyn Store>, StoreError> {
        if sql::moving::is_under_way(&store).await? {
            store.close().await;
            let reason = "a move into it was begun and has not ended: the same `rekindle migrate` goes on with it".to_owned();
            return Err(StoreError::Open { path: self.to_string().into(), reason });
        }
        Ok(Arc::new(store))
    }

    /// Carries everything that this database holds into another, which is empty or was left half moved into. Nobody may work on
    /// either. `told` hears how many people of how many have come.
    ///
    /// # Errors
    /// Somebody works on one of them or lives in the other, or one does not answer: another call goes on where this one ended.
    pub async fn move_to(&self, to: &Place, told: &(dyn Fn(i64, i64) + Sync)) -> Result<(), StoreError> {
        match self {
            Place::File(path) => move_from(SqliteStore::open(path, "").await?, to, told).await,
            Place::Server(url) => move_from(PostgresStore::open_to_read(url).await?, to, told).await,
        }
    }
}

async fn move_from<F: Backend>(from: F, to: &Place, told: &(dyn Fn(i64, i64) + Sync)) -> Result<(), StoreError> {
    let moved = match to {
        Place::File(path) => move_into(&from, SqliteStore::open(path, "").await?, told).await,
        Place::Server(url) => move_into(&from, PostgresStore::open(url, "").await?, told).await,
    };
    from.close().await;
    moved
}

async fn move_into<F: Backend, T: Backend>(from: &F, to: T, told: &(dyn Fn(i64, i64) + Sync)) -> Result<(), StoreError> {
    let moved = sql::moving::carry(from, &to, told).await;
    to.close().await;
    moved
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Place::of(text))
    }
}

/// As people read it: a URL without its password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => path.display().fmt(f),
            Place::Server(url) => f.write_str(&postgres::name_of(url)),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_server_and_its_password_is_not_shown() {
        for (text, shown, is_file) in [
            ("shop.db", "shop.db", true),
            ("postgres.db", "postgres.db", true),
            ("postgres://shop:secret@db.example:5433/rekindle", "postgres://db.example:5433/rekindle", false),
            ("postgresql://db.example/rekindle", "postgres://db.example:5432/rekindle", false),
            ("postgres://[broken:secret", "a postgres:// URL that cannot be read", false),
        ] {
            let place = Place::of(text);
            assert_eq!((place.to_string().as_str(), place.file().is_some()), (shown, is_file));
            assert_eq!(format!("{place:?}"), shown);
        }
    }
}
