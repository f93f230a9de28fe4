//! Copies of a database that is at work. The first start on such a copy is [`crate::store::Store::after_restore`].

use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use crate::engine::time::Timestamp;
use crate::store::StoreError;

/// A copy as of one instant, without gaps: it reads what is committed and stops nobody.
const BACK_UP: &str = "vacuum into $1";
const MARK_BACKUP: &str = "insert into backup (id, taken_at) values (1, $1) on conflict (id) do update set taken_at = excluded.taken_at";
const CHECK: &str = "pragma quick_check(1)";

/// Copies the database to a new file and marks the copy as a backup taken at `at`; its size in bytes. Runs beside a process that
/// works on the database. A copy that is not whole has another name.
///
/// # Errors
/// The database cannot be opened, the file is there already, or the disk does not take it.
pub(super) async fn back_up(from: &Path, to: &Path, at: Timestamp) -> Result<u64, StoreError> {
    if to.exists() {
        return Err(StoreError::Open { path: to.to_owned(), reason: "it is there already, and a backup replaces nothing".into() });
    }
    let part = part_of(to);
    remove_if_there(&part)?;
    let (readers, mut connection) = super::open::connect_to_read(from).await?;
    let copied = sqlx::query(BACK_UP).bind(part.display().to_string()).execute(&mut *connection).await;
    drop(connection);
    readers.close().await;
    let marked = match copied {
        Ok(_) => mark(&part, at).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = marked {
        remove_if_there(&part)?;
        return Err(super::failure(error, to));
    }
    // whole and on disk before it has its name
    let failed = |error: std::io::Error| StoreError::Open { path: to.to_owned(), reason: error.to_string() };
    let file = std::fs::File::open(&part).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, to).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    if let Some(directory) = to.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    }
    Ok(bytes)
}

fn part_of(to: &Path) -> PathBuf {
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    PathBuf::from(part)
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Open { path: path.to_owned(), reason: error.to_string() })
        }
        _ => Ok(()),
    }
}

/// Marks the copy, and looks whether it can be read.
async fn mark(part: &Path, at: Timestamp) -> Result<(), StoreError> {
    let options = SqliteConnectOptions::new().filename(part).journal_mode(SqliteJournalMode::Delete).disable_statement_logging();
    let mut connection = options.connect().await?;
    sqlx::query(MARK_BACKUP).bind(at.as_ms()).execute(&mut connection).await?;
    let said: String = sqlx::query(CHECK).fetch_one(&mut connection).await?.try_get(0)?;
    connection.close().await?;
    if said != "ok" {
        return Err(StoreError::Corrupt { table: "database", column: "file", key: "page".into(), detail: said });
    }
    Ok(())
}
