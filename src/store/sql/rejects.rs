//! What was refused at the door, each with its reason.

use async_trait::async_trait;

use super::rows::{Fields, json};
use super::{Session, Sql, Tx, Work, query};
use crate::store::{REJECTS_MAX, Reject, RejectRow, StoreError};

pub(super) struct KeepRejects(pub Vec<Reject>);

/// $1: rows of source, hash, reason, text, instant. The same text again is counted.
pub(super) const KEEP_REJECTS: Sql = Sql {
    sqlite: "insert into rejects (source, row_hash, reason, row, first_at, last_at, times)
    select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 4, 1 from json_each($1) where true
    on conflict (source, row_hash) do update set last_at = max(last_at, excluded.last_at), times = times + 1, reason = excluded.reason",
    postgres: "insert into rejects (source, row_hash, reason, row, first_at, last_at, times)
        select j.value ->> 0, (j.value ->> 1)::bigint, max(j.value ->> 2), max(j.value ->> 3), min((j.value ->> 4)::bigint),
            max((j.value ->> 4)::bigint), count(*)
        from jsonb_array_elements($1::jsonb) with ordinality as j(value, key) group by 1, 2 order by min(j.key)
        on conflict (source, row_hash) do update set last_at = greatest(rejects.last_at, excluded.last_at),
            times = rejects.times + excluded.times, reason = excluded.reason",
};

/// $1: so many stay.
pub(super) const FORGET_REJECTS: Sql = Sql {
    sqlite: "delete from rejects where seq <= (select max(seq) from rejects) - $1",
    postgres: "delete from rejects where seq <= (select max(seq) from rejects) - $1",
};

#[async_trait]
impl Work for KeepRejects {
    type Done = ();
    const IS_URGENT: bool = true;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let row = |reject: &Reject| {
            let hash = twox_hash::XxHash3_64::oneshot(reject.row.as_bytes()) as i64;
            (reject.source.clone(), hash, reject.reason.clone(), reject.row.clone(), reject.at.as_ms())
        };
        let rows: Vec<_> = self.0.iter().map(row).collect();
        query(&KEEP_REJECTS).bind(json(&rows)?).execute(&mut tx.session).await?;
        query(&FORGET_REJECTS).bind(REJECTS_MAX).execute(&mut tx.session).await?;
        Ok(())
    }
}

pub(super) const REJECTS: Sql = Sql::same(
    "select seq, source, reason, row, first_at, last_at, times from rejects
    where seq > $1 order by seq limit $2",
);

pub(super) async fn rejects(session: &mut Session<'_>, after: i64, limit: usize) -> Result<Vec<RejectRow>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(&REJECTS).bind(after).bind(limit).fetch_all(session).await?;
    let reject = |row| {
        let mut fields = Fields::of("rejects", row);
        Ok(RejectRow {
            seq: fields.next("seq")?,
            source: fields.name("source")?,
            reason: fields.next("reason")?,
            row: fields.next("row")?,
            first_at: fields.instant("first_at")?,
            last_at: fields.instant("last_at")?,
            times: fields.count("times")?,
        })
    };
    rows.iter().map(reject).collect()
}
