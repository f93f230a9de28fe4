//! What a transaction takes before it judges: rows locked in one order, numbers, and the right to count on what is forbidden.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row as _};

use crate::store::sql::spread::{Bucket, Reach};
use crate::store::sql::{Needs, Supply};
use crate::store::{ProfileId, StoreError};

/// Locks the people of messages. Everybody locks people before messages, and both by bucket and number.
pub(super) const LOCK_PEOPLE_OF_MESSAGES: &str = "
    select p.id from profiles p
    where (p.bucket, p.id) in (select m.bucket, m.profile_id from messages m where m.id = any($1))
    order by p.bucket, p.id for update";
pub(super) const LOCK_MESSAGES: &str = "select 1 from messages where id = any($1) order by bucket, profile_id, id for update";
/// Locks people; whether each is gone: merged into somebody, or erased.
pub(super) const LOCK_PEOPLE: &str = "
    select p.merged_into is not null or coalesce(p.quarantined_because, '') = 'erased' from profiles p
    where (p.bucket, p.id) in (select bucket(id), id from unnest($1::bigint[]) as id)
    order by p.bucket, p.id for update";
/// The same of one bucket each, $2, where people are spread over machines: no lock reaches over several of them.
pub(in crate::store) const LOCK_PEOPLE_OF_MESSAGES_IN_BUCKET: &str = "
    select p.id from profiles p
    where p.bucket = $2 and p.id in (select m.profile_id from messages m where m.bucket = $2 and m.id = any($1))
    order by p.id for update";
pub(in crate::store) const LOCK_MESSAGES_IN_BUCKET: &str =
    "select 1 from messages where bucket = $2 and id = any($1) order by profile_id, id for update";
pub(in crate::store) const LOCK_PEOPLE_IN_BUCKET: &str = "
    select p.merged_into is not null or coalesce(p.quarantined_because, '') = 'erased' from profiles p
    where p.bucket = $2 and p.id = any($1) order by p.id for update";
pub(super) const NUMBER_EVENTS: &str = "select nextval('events_seq') from generate_series(1, $1)";
pub(super) const NUMBER_PROFILES: &str = "select nextval('profiles_id_seq') from generate_series(1, $1)";

/// The lock that send-intents share and operators take alone.
const PERMISSION: i64 = 0x7265_6b69_6e64_6c65;
pub(super) const SHARE_PERMISSION: &str = "select pg_advisory_xact_lock_shared($1)";
pub(super) const TAKE_AUTHORITY: &str = "select pg_advisory_xact_lock($1)";
/// Locks whatever is counted, in one order; $2: what it is, each by a number that follows from its name.
const COUNTED: i32 = 0x636f_756e;
pub(super) const TAKE_COUNTED: &str = "select pg_advisory_xact_lock($1, counted) from (select distinct hashtext(name) as counted from unnest($2::text[]) as name order by 1) in_order";
pub(super) const GENERATION: &str = "select value from counters where name = 'generation'";
pub(super) const FORBID: &str = "update counters set value = value + 1 where name in ('generation', 'world')";
pub(super) const CHANGE_WORLD: &str = "update counters set value = value + 1 where name = 'world'";
/// Its third: how many people were ever numbered. A count would walk through all of them.
pub(super) const NUMBERS: &str = "select (select value from counters where name = 'world'),
    (select value from counters where name = 'generation'),
    (select case when is_called then last_value else 0 end from profiles_id_seq),
    (select rules_version from publications order by seq desc limit 1)";

pub(in crate::store) async fn take(connection: &mut PgConnection, reach: Reach, needs: Needs<'_>) -> Result<Supply, StoreError> {
    let mut supply = Supply::default();
    if needs.authority {
        sqlx::query(TAKE_AUTHORITY).bind(PERMISSION).execute(&mut *connection).await?;
    }
    if needs.permission {
        sqlx::query(SHARE_PERMISSION).bind(PERMISSION).execute(&mut *connection).await?;
        // asked by a statement of its own, which sees what was forbidden while we waited
        let row = sqlx::query(GENERATION).fetch_one(&mut *connection).await?;
        supply.generation = Some(row.try_get(0)?);
    }
    if !needs.messages.is_empty() {
        let ids: Vec<Vec<u8>> = needs.messages.iter().map(|id| id.0.to_be_bytes().to_vec()).collect();
        if let Some(bucket) = reach.bucket() {
            sqlx::query(LOCK_PEOPLE_OF_MESSAGES_IN_BUCKET).bind(&ids).bind(bucket.0).execute(&mut *connection).await?;
            sqlx::query(LOCK_MESSAGES_IN_BUCKET).bind(&ids).bind(bucket.0).execute(&mut *connection).await?;
        } else {
            sqlx::query(LOCK_PEOPLE_OF_MESSAGES).bind(&ids).execute(&mut *connection).await?;
            sqlx::query(LOCK_MESSAGES).bind(&ids).execute(&mut *connection).await?;
        }
    }
    for gone in lock_people(connection, reach, needs.people).await? {
        if gone && needs.still_there {
            return Err(StoreError::Raced("somebody was merged or erased meanwhile".into()));
        }
    }
    if !needs.counted.is_empty() {
        let names: Vec<String> = needs.counted.iter().map(|(what, name)| format!("{what} {name}")).collect();
        sqlx::query(TAKE_COUNTED).bind(COUNTED).bind(&names).execute(&mut *connection).await?;
    }
    // only now: of one person's events the later number is the later one
    supply.events = numbered(connection, NUMBER_EVENTS, needs.events).await?;
    supply.profiles = numbered(connection, NUMBER_PROFILES, needs.profiles).await?;
    Ok(supply)
}

/// Locks people, by bucket and number; whether each is gone.
async fn lock_people(connection: &mut PgConnection, reach: Reach, people: &[ProfileId]) -> Result<Vec<bool>, StoreError> {
    let mut gone = Vec::with_capacity(people.len());
    if reach == Reach::Undivided && !people.is_empty() {
        let ids: Vec<i64> = people.iter().map(|id| id.0).collect();
        for row in sqlx::query(LOCK_PEOPLE).bind(&ids).fetch_all(&mut *connection).await? {
            gone.push(row.try_get(0)?);
        }
        return Ok(gone);
    }
    let mut buckets: BTreeMap<Bucket, Vec<i64>> = BTreeMap::new();
    for id in people {
        buckets.entry(Bucket::of(*id)).or_default().push(id.0);
    }
    for (bucket, ids) in buckets {
        for row in sqlx::query(LOCK_PEOPLE_IN_BUCKET).bind(&ids).bind(bucket.0).fetch_all(&mut *connection).await? {
            gone.push(row.try_get(0)?);
        }
    }
    Ok(gone)
}

async fn numbered(
    connection: &mut PgConnection,
    statement: &'static str,
    count: usize,
) -> Result<std::collections::VecDeque<i64>, StoreError> {
    if count == 0 {
        return Ok(Default::default());
    }
    let rows = sqlx::query(statement).bind(i64::try_from(count).unwrap_or(i64::MAX)).fetch_all(&mut *connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Something is forbidden or allowed: no intent that was decided before passes from now on, and none is under way.
pub(super) async fn forbid(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query(TAKE_AUTHORITY).bind(PERMISSION).execute(&mut *connection).await?;
    sqlx::query(FORBID).execute(&mut *connection).await?;
    Ok(())
}

pub(super) async fn change_world(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query(CHANGE_WORLD).execute(&mut *connection).await?;
    Ok(())
}

/// By which everybody tells that the world changed.
pub(super) struct Numbers {
    pub world: i64,
    pub generation: i64,
    pub profiles: u64,
    /// The rule set that is live.
    pub live: Option<u64>,
}

pub(super) async fn numbers(connection: &mut PgConnection) -> Result<Numbers, StoreError> {
    let row = sqlx::query(NUMBERS).fetch_one(connection).await?;
    let (profiles, live): (i64, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
    let (world, generation) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Numbers { world, generation, profiles: profiles.max(0) as u64, live: live.map(|version| version as u64) })
}
