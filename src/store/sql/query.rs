//! Scripts in two dialects, and the one way in which they are bound, run and read.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, RwLock};

use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgArguments, PgDatabaseError, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Sqlite, SqliteConnection};

use super::rows::Rows;
use super::spread::{Bucket, Reach};
use crate::store::StoreError;

/// A script in both dialects: one statement, or several separated by semicolons that share their parameters. Its rows are those of
/// the last statement.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Sql {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

impl Sql {
    /// A script that means the same in both.
    pub const fn same(script: &'static str) -> Self {
        Sql { sqlite: script, postgres: script }
    }
}

/// A connection of either database.
pub(in crate::store) enum Session<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection, Reach),
}

/// A row of either database.
pub(in crate::store) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// A value for a parameter.
pub(in crate::store) enum Parameter {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
    Flag(bool),
    Rows(Rows),
}

macro_rules! parameters {
    ($($from:ty => |$value:ident| $parameter:expr;)*) => { $(
        impl From<$from> for Parameter {
            fn from($value: $from) -> Self {
                $parameter
            }
        }
    )* };
}

parameters! {
    i64 => |n| Parameter::Int(Some(n));
    Option<i64> => |n| Parameter::Int(n);
    &str => |text| Parameter::Text(Some(text.to_owned()));
    &String => |text| Parameter::Text(Some(text.clone()));
    String => |text| Parameter::Text(Some(text));
    Option<&str> => |text| Parameter::Text(text.map(str::to_owned));
    &[u8] => |bytes| Parameter::Bytes(bytes.to_owned());
    Vec<u8> => |bytes| Parameter::Bytes(bytes);
    bool => |flag| Parameter::Flag(flag);
    Rows => |rows| Parameter::Rows(rows);
    &Rows => |rows| Parameter::Rows(rows.clone());
}

/// A script with its parameters.
pub(in crate::store) struct Query {
    sql: &'static Sql,
    parameters: Vec<Parameter>,
}

pub(in crate::store) fn query(sql: &'static Sql) -> Query {
    Query { sql, parameters: Vec::new() }
}

impl Query {
    pub fn bind(mut self, value: impl Into<Parameter>) -> Self {
        self.parameters.push(value.into());
        self
    }

    /// Runs it; how many rows were changed.
    pub async fn execute(self, session: &mut Session<'_>) -> Result<u64, StoreError> {
        match session {
            Session::Sqlite(connection) => {
                let done = sqlx::query_with(self.sql.sqlite, sqlite_arguments(self.parameters)?).execute(&mut **connection).await?;
                Ok(done.rows_affected())
            }
            Session::Postgres(connection, reach) => {
                let (mut changed, bucket) = (0, reach.bucket());
                let statements = statements(self.sql.postgres, bucket.is_some());
                for statement in statements.iter().filter(|statement| !statement.has_nothing_to_do(&self.parameters)) {
                    let touched = statement.run(&self.parameters, bucket, connection).await?;
                    changed += if statement.only_looks() { 0 } else { touched };
                }
                Ok(changed)
            }
        }
    }

    pub async fn fetch_all(self, session: &mut Session<'_>) -> Result<Vec<Row>, StoreError> {
        Ok(self.fetch(session).await?.try_collect().await?)
    }

    pub async fn fetch_one(self, session: &mut Session<'_>) -> Result<Row, StoreError> {
        Ok(self.fetch(session).await?.try_next().await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    pub async fn fetch_optional(self, session: &mut Session<'_>) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(session).await?.try_next().await?)
    }

    /// The rows as they come: the database goes on while one is read.
    pub async fn fetch<'s>(self, session: &'s mut Session<'_>) -> Result<BoxStream<'s, Result<Row, sqlx::Error>>, StoreError> {
        match session {
            Session::Sqlite(connection) => {
                let query = sqlx::query_with(self.sql.sqlite, sqlite_arguments(self.parameters)?);
                Ok(query.fetch(&mut **connection).map_ok(Row::Sqlite).boxed())
            }
            Session::Postgres(connection, reach) => {
                let bucket = reach.bucket();
                let statements = statements(self.sql.postgres, bucket.is_some());
                let Some((last, earlier)) = statements.split_last() else { return Ok(futures_util::stream::empty().boxed()) };
                for statement in earlier.iter().filter(|statement| !statement.has_nothing_to_do(&self.parameters)) {
                    statement.run(&self.parameters, bucket, connection).await?;
                }
                let query = sqlx::query_with(AssertSqlSafe(last.text.clone()), last.arguments(&self.parameters, bucket)?);
                Ok(query.fetch(&mut **connection).map_ok(Row::Postgres).boxed())
            }
        }
    }
}

fn unbound(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("a parameter cannot be bound: {error}"))
}

fn sqlite_arguments(parameters: Vec<Parameter>) -> Result<SqliteArguments, StoreError> {
    use sqlx::Arguments as _;
    let mut arguments = SqliteArguments::default();
    for parameter in parameters {
        match parameter {
            Parameter::Int(n) => arguments.add(n),
            Parameter::Text(text) => arguments.add(text),
            Parameter::Bytes(bytes) => arguments.add(bytes),
            Parameter::Flag(flag) => arguments.add(flag),
            Parameter::Rows(rows) => arguments.add(rows.into_text()),
        }
        .map_err(unbound)?;
    }
    Ok(arguments)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let database = error.as_database_error();
        if let Some(code) = database.and_then(|e| e.try_downcast_ref::<PgDatabaseError>()).map(PgDatabaseError::code) {
            return postgres_error(code, &error);
        }
        let code = database.and_then(|e| e.code()).and_then(|code| code.parse::<u32>().ok());
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

/// By SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html).
fn postgres_error(code: &str, error: &sqlx::Error) -> StoreError {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available; unique_violation: two made the same row at once
        "40001" | "40P01" | "55P03" | "23505" => StoreError::Raced(error.to_string()),
        // disk_full
        "53100" => StoreError::Full { path: PathBuf::new() },
        _ => StoreError::Unavailable(error.to_string()),
    }
}

// ----------------------------------------------------------------------------------------------------------- PostgreSQL

/// One statement of a PostgreSQL script. PostgreSQL prepares statements one by one and wants no parameter that a statement does not
/// use, so each has those of the script that it names, numbered anew.
struct Statement {
    text: Arc<str>,
    parameters: Vec<Source>,
}

/// Where a statement's parameter comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// The script's parameter at this place.
    Script(usize),
    /// The bucket that the transaction is about.
    Bucket,
}

/// Scripts taken apart, by their text and whether they are read for one bucket.
type Known = HashMap<(&'static str, bool), Arc<[Statement]>>;

/// The statements of a script, taken apart once.
fn statements(script: &'static str, in_bucket: bool) -> Arc<[Statement]> {
    static KNOWN: LazyLock<RwLock<Known>> = LazyLock::new(RwLock::default);
    let key = (script, in_bucket);
    if let Some(known) = KNOWN.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key) {
        return Arc::clone(known);
    }
    let apart: Arc<[Statement]> =
        read(script, in_bucket).split(';').map(str::trim).filter(|text| !text.is_empty()).map(Statement::of).collect::<Vec<_>>().into();
    KNOWN.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, Arc::clone(&apart));
    apart
}

/// The statements of a script, each with how many parameters it has.
#[cfg(test)]
pub(super) fn single_postgres_statements(script: &Sql) -> Vec<(Arc<str>, usize)> {
    statements(script.postgres, false).iter().map(|statement| (statement.text.clone(), statement.parameters.len())).collect()
}

/// The same, read for one bucket; with the place of the bucket among the parameters, from 1.
#[cfg(test)]
pub(super) fn single_statements_in_bucket(script: &'static str) -> Vec<(Arc<str>, usize, Option<usize>)> {
    let bucket = |statement: &Statement| statement.parameters.iter().position(|source| *source == Source::Bucket).map(|at| at + 1);
    statements(script, true).iter().map(|s| (s.text.clone(), s.parameters.len(), bucket(s))).collect()
}

/// What a script says only where it is about one bucket stands in a comment that begins so.
const ONLY_IN_BUCKET: &str = "/* in one bucket: ";

/// A script as it is read. Where people are spread over machines and it is about those of one bucket, that bucket takes the place of each
/// that would be computed, and what is said for this case alone is said.
fn read(script: &str, in_bucket: bool) -> String {
    const CALL: &str = "bucket(";
    let mut read = String::with_capacity(script.len() + 64);
    let mut rest = script;
    loop {
        let (call, only) = (rest.find(CALL).filter(|_| in_bucket), rest.find(ONLY_IN_BUCKET));
        match (call, only) {
            (_, Some(at)) if call.is_none_or(|call| at < call) => {
                read.push_str(&rest[..at]);
                let said = &rest[at + ONLY_IN_BUCKET.len()..];
                let (said, after) = said.split_once("*/").unwrap_or((said, ""));
                read.push_str(if in_bucket { said } else { "" });
                rest = after;
            }
            (Some(at), _) => {
                read.push_str(&rest[..at]);
                read.push_str(BUCKET);
                rest = after_parenthesis(&rest[at + CALL.len()..]);
            }
            (None, _) => {
                read.push_str(rest);
                return read;
            }
        }
    }
}

/// What follows the parenthesis that closes before it opens.
fn after_parenthesis(text: &str) -> &str {
    let mut depth = 1;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.get(at + 1..).unwrap_or_default();
        }
    }
    ""
}

/// The parameter that is the bucket.
const BUCKET: &str = "$bucket";

impl Statement {
    fn of(text: &str) -> Self {
        let (mut numbered, mut parameters) = (String::with_capacity(text.len()), Vec::new());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            numbered.push_str(before);
            let digits = from.get(1..).map_or(0, |from| from.len() - from.trim_start_matches(|c: char| c.is_ascii_digit()).len());
            let (name, after) = from.split_at(if from.starts_with(BUCKET) { BUCKET.len() } else { 1 + digits });
            let source = match name.get(1..).unwrap_or_default().parse::<usize>() {
                Ok(number) => Some(Source::Script(number.saturating_sub(1))),
                Err(_) => (name == BUCKET).then_some(Source::Bucket),
            };
            match source {
                Some(source) => {
                    let own = parameters.iter().position(|known| *known == source).unwrap_or_else(|| {
                        parameters.push(source);
                        parameters.len() - 1
                    });
                    numbered.push('$');
                    numbered.push_str(&(own + 1).to_string());
                    if source == Source::Bucket {
                        numbered.push_str("::smallint");
                    }
                }
                None => numbered.push_str(name),
            }
            rest = after;
        }
        numbered.push_str(rest);
        Statement { text: numbered.into(), parameters }
    }

    /// Its rows are read, or locked, and not changed.
    fn only_looks(&self) -> bool {
        self.text.starts_with("select")
    }

    /// Written from rows of which there are none.
    fn has_nothing_to_do(&self, parameters: &[Parameter]) -> bool {
        let is_empty = |source: &Source| match source {
            Source::Script(place) => matches!(parameters.get(*place), Some(Parameter::Rows(rows)) if rows.is_empty()),
            Source::Bucket => false,
        };
        self.parameters.iter().any(is_empty)
    }

    fn arguments(&self, parameters: &[Parameter], bucket: Option<Bucket>) -> Result<PgArguments, StoreError> {
        use sqlx::Arguments as _;
        let mut arguments = PgArguments::default();
        for source in &self.parameters {
            let place = match source {
                Source::Script(place) => *place,
                Source::Bucket => {
                    let bucket = bucket.ok_or_else(|| unbound("it is about no bucket"))?;
                    arguments.add(bucket.0).map_err(unbound)?;
                    continue;
                }
            };
            match parameters.get(place).ok_or_else(|| unbound(format!("${} is missing", place + 1)))? {
                Parameter::Int(n) => arguments.add(*n),
                Parameter::Text(text) => arguments.add(text.as_deref().map(without_nul)),
                Parameter::Bytes(bytes) => arguments.add(bytes.as_slice()),
                Parameter::Flag(flag) => arguments.add(*flag),
                Parameter::Rows(rows) => arguments.add(without_escaped_nul(rows.as_text())),
            }
            .map_err(unbound)?;
        }
        Ok(arguments)
    }

    async fn run(&self, parameters: &[Parameter], bucket: Option<Bucket>, connection: &mut PgConnection) -> Result<u64, StoreError> {
        let query = sqlx::query_with(AssertSqlSafe(self.text.clone()), self.arguments(parameters, bucket)?);
        Ok(query.execute(&mut *connection).await?.rows_affected())
    }
}

/// PostgreSQL's texts hold every character but one: what says NUL is stored as a character that stands for what cannot be shown.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// The same in JSON, where it is written `\u0000`, unless the backslash is itself escaped.
fn without_escaped_nul(json: &str) -> Cow<'_, str> {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return json.into();
    }
    let mut clean = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(NUL) {
        let (before, from) = rest.split_at(at);
        let backslashes = before.len() - before.trim_end_matches('\\').len();
        clean.push_str(before);
        clean.push_str(if backslashes % 2 == 0 { "\\ufffd" } else { NUL });
        rest = from.get(NUL.len()..).unwrap_or_default();
    }
    clean.push_str(rest);
    clean.into()
}

/// The values that columns are read as: those which both databases know.
pub(in crate::store) trait Cell<'r>:
    sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> + sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>
{
}

impl<'r, T> Cell<'r> for T where T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite> + sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> {}

impl Row {
    pub fn cell<'r, T: Cell<'r>>(&'r self, at: usize) -> Result<T, sqlx::Error> {
        use sqlx::Row as _;
        match self {
            Row::Sqlite(row) => row.try_get(at),
            Row::Postgres(row) => row.try_get(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_stored_as_a_character_that_can_be() {
        for (json, expected) in
            [(r#"["a"]"#, r#"["a"]"#), (r#"["a\u0000b"]"#, r#"["a\ufffdb"]"#), (r#"["a\\u0000b\\\u0000"]"#, r#"["a\\u0000b\\\ufffd"]"#)]
        {
            assert_eq!(without_escaped_nul(json), expected);
        }
        assert_eq!(without_nul("a\0b"), "a\u{fffd}b");
    }

    #[test]
    fn a_statement_has_its_own_parameters_only() {
        use Source::{Bucket, Script};
        for (text, expected, sources) in [
            ("select 1", "select 1", vec![]),
            ("update t set a = $3 where b = $1 and c = $3", "update t set a = $1 where b = $2 and c = $1", vec![Script(2), Script(0)]),
            ("select $12, '$', $2", "select $1, '$', $2", vec![Script(11), Script(1)]),
            ("select $2 where b = $bucket", "select $1 where b = $2::smallint", vec![Script(1), Bucket]),
        ] {
            let statement = Statement::of(text);
            assert_eq!((&*statement.text, statement.parameters), (expected, sources));
        }
    }

    #[test]
    fn a_script_is_read_for_one_bucket() {
        for (script, expected) in [
            ("select 1", "select 1"),
            ("where p.bucket = bucket((j.value ->> 0)::bigint) and p.id = $1", "where p.bucket = $bucket and p.id = $1"),
            (
                "select bucket($1), 2 from t /* in one bucket: where t.bucket = $bucket */;",
                "select $bucket, 2 from t where t.bucket = $bucket ;",
            ),
            ("/* in one bucket: a */ bucket(b) /* in one bucket: c */", "a  $bucket c "),
            ("insert into t (bucket, id)", "insert into t (bucket, id)"),
        ] {
            assert_eq!(read(script, true), expected);
        }
        let both = "where p.bucket = bucket($1) /* in one bucket: and p.bucket = $bucket */ and p.id = $1";
        assert_eq!(read(both, false), "where p.bucket = bucket($1)  and p.id = $1");
    }
}
