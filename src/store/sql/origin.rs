//! What a database is given when it is made and keeps: the name of its environment, and keys of its own.

use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};

use super::rows::Fields;
use super::{Session, Sql, query};
use crate::engine::coupon::Salt;
use crate::store::suppression::{Hasher, KEY_BYTES};
use crate::store::{StoreError, encoding};

pub(super) const NAME_ENVIRONMENT: Sql = Sql::same("insert into environment (id, name) values (1, $1) on conflict (id) do nothing");
pub(super) const ENVIRONMENT: Sql = Sql::same("select name from environment where id = 1");
/// Addresses are hashed with a key of this database's own, drawn when it is made.
pub(super) const GIVE_KEY: Sql = Sql::same("insert into keys (name, key) values ($1, $2) on conflict (name) do nothing");
pub(super) const KEY: Sql = Sql::same("select key from keys where name = $1");

/// What the hashes of addresses are keyed with, and what codes of coupons are derived with.
const HASHES: &str = "hashes";
const COUPONS: &str = "coupons";

/// The newest version of states that whoever opened it writes.
pub(super) const NEWEST_STATES: Sql = Sql::same("select value from counters where name = 'states'");
pub(super) const WRITE_STATES: Sql = Sql {
    sqlite: "insert into counters (name, value) values ('states', $1)
        on conflict (name) do update set value = max(value, excluded.value)",
    postgres: "insert into counters (name, value) values ('states', $1)
        on conflict (name) do update set value = greatest(counters.value, excluded.value)",
};

/// Notes which version of states this program writes. An older one reads none of them, and must not take them for broken.
pub(in crate::store) async fn write_states(session: &mut Session<'_>, path: &Path) -> Result<(), StoreError> {
    read_states(session, path).await?;
    query(&WRITE_STATES).bind(i64::from(encoding::VERSION)).execute(session).await?;
    Ok(())
}

/// An error if a newer program may have written states that this one does not read.
pub(in crate::store) async fn read_states(session: &mut Session<'_>, path: &Path) -> Result<(), StoreError> {
    let known = i64::from(encoding::VERSION);
    let Some(row) = query(&NEWEST_STATES).fetch_optional(session).await? else { return Ok(()) };
    let found = Fields::of("counters", &row).next("value")?;
    if found > known { Err(StoreError::NewerStates { path: path.to_owned(), found, known }) } else { Ok(()) }
}

/// The database's environment; who opens it first names it.
pub(in crate::store) async fn named_environment(session: &mut Session<'_>, name: &str) -> Result<String, StoreError> {
    query(&NAME_ENVIRONMENT).bind(name).execute(session).await?;
    environment(session).await
}

pub(in crate::store) async fn environment(session: &mut Session<'_>) -> Result<String, StoreError> {
    Fields::of("environment", &query(&ENVIRONMENT).fetch_one(session).await?).next("name")
}

/// Whoever spreads people over machines leaves this mark (docs/scale/distribute.sql).
pub(super) const IS_DISTRIBUTED: Sql = Sql::same("select count(*) from counters where name = 'distributed'");

pub(in crate::store) async fn is_distributed(session: &mut Session<'_>) -> Result<bool, StoreError> {
    let row = query(&IS_DISTRIBUTED).fetch_one(session).await?;
    Ok(Fields::of("counters", &row).next::<i64>("count")? > 0)
}

/// Gives the database a hasher's key if it has none.
pub(in crate::store) async fn new_hasher(session: &mut Session<'_>) -> Result<Hasher, StoreError> {
    give_key(session, HASHES, None).await?;
    hasher(session).await
}

pub(in crate::store) async fn hasher(session: &mut Session<'_>) -> Result<Hasher, StoreError> {
    Ok(Hasher::new(&key(session, HASHES).await?))
}

pub(in crate::store) async fn new_coupon_salt(session: &mut Session<'_>, given: Option<[u8; KEY_BYTES]>) -> Result<Salt, StoreError> {
    give_key(session, COUPONS, given).await?;
    Ok(Salt::new(&key(session, COUPONS).await?))
}

/// Gives the database a key that it has not: this one, or one that chance makes.
async fn give_key(session: &mut Session<'_>, name: &str, given: Option<[u8; KEY_BYTES]>) -> Result<(), StoreError> {
    let mut key = given.unwrap_or_default();
    if given.is_none() {
        SystemRandom::new().fill(&mut key).map_err(|_| StoreError::Unavailable("the system gives no random numbers".into()))?;
    }
    query(&GIVE_KEY).bind(name).bind(key.as_slice()).execute(session).await?;
    Ok(())
}

async fn key(session: &mut Session<'_>, name: &str) -> Result<Vec<u8>, StoreError> {
    Fields::of("keys", &query(&KEY).bind(name).fetch_one(session).await?).next("key")
}
