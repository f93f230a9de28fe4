//! Migrations of either database: the same numbers in both, in order. They only ever add.

use std::borrow::Cow;
use std::path::Path;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::store::StoreError;

/// Number, name and text of each.
pub(in crate::store) struct Migrations(pub &'static [(i64, &'static str, &'static str)]);

impl Migrations {
    /// The newest that this program knows.
    pub fn known(&self) -> i64 {
        self.0.last().map_or(0, |(version, _, _)| *version)
    }

    pub fn migrator(&self) -> Migrator {
        let migrations = self
            .0
            .iter()
            .map(|(version, name, text)| Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, text.into_sql_str(), false));
        Migrator::with_migrations(migrations.collect())
    }

    /// Why the database at `path` is not as this program wants it.
    pub fn failed(&self, error: MigrateError, path: &Path) -> StoreError {
        match error {
            MigrateError::VersionMissing(found) => StoreError::Newer { path: path.to_owned(), found, known: self.known() },
            MigrateError::Execute(error) => error.into(),
            error => StoreError::Open { path: path.to_owned(), reason: error.to_string() },
        }
    }

    /// Whoever only looks wants it as it is.
    pub fn agree(&self, found: i64, path: &Path) -> Result<(), StoreError> {
        let (path, known) = (path.to_owned(), self.known());
        match found.cmp(&known) {
            std::cmp::Ordering::Greater => Err(StoreError::Newer { path, found, known }),
            std::cmp::Ordering::Less => Err(StoreError::Older { path, found, known }),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }
}
