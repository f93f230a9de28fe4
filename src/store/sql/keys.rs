//! Who may send events and read people back.

use async_trait::async_trait;

use super::rows::Fields;
use super::{Session, Sql, Tx, Work, query};
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::store::{ApiKey, KeyId, KeyScope, NewKey, StoreError};

pub(super) struct AddKey(pub NewKey);

pub(super) const ADD_KEY: Sql = Sql::same(
    "insert into api_keys (source, scope, hash, created_at, created_by) values ($1, $2, $3, $4, $5)
    returning id",
);

#[async_trait]
impl Work for AddKey {
    type Done = KeyId;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<KeyId, StoreError> {
        let NewKey { source, scope, hash, at, by } = &self.0;
        let add = query(&ADD_KEY).bind(&**source).bind(scope.name()).bind(hash.as_slice()).bind(at.as_ms()).bind(&**by);
        let row = add.fetch_one(&mut tx.session).await?;
        Fields::of("api_keys", &row).next("id").map(KeyId)
    }
}

pub(super) struct RevokeKey {
    pub id: KeyId,
    pub at: Timestamp,
    pub by: Name,
}

pub(super) const REVOKE_KEY: Sql = Sql::same("update api_keys set revoked_at = $2, revoked_by = $3 where id = $1 and revoked_at is null");

#[async_trait]
impl Work for RevokeKey {
    type Done = bool;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let revoke = query(&REVOKE_KEY).bind(self.id.0).bind(self.at.as_ms()).bind(&*self.by);
        Ok(revoke.execute(&mut tx.session).await? > 0)
    }
}

pub(super) const KEYS: Sql =
    Sql::same("select id, source, scope, hash, created_at, created_by, revoked_at, revoked_by from api_keys order by id");

pub(super) async fn keys(session: &mut Session<'_>) -> Result<Vec<ApiKey>, StoreError> {
    let rows = query(&KEYS).fetch_all(session).await?;
    let key = |row| {
        let mut fields = Fields::of("api_keys", row);
        let id = KeyId(fields.next("id")?);
        let (source, scope) = (fields.name("source")?, fields.word("scope", KeyScope::named)?);
        let hash: &[u8] = fields.next("hash")?;
        let hash = hash.try_into().map_err(|_| fields.corrupt("hash", format!("{} bytes instead of 32", hash.len())))?;
        let (created_at, created_by) = (fields.instant("created_at")?, fields.name("created_by")?);
        let (revoked_at, revoked_by) = (fields.optional_instant("revoked_at")?, fields.next::<Option<&str>>("revoked_by")?);
        let revoked = revoked_at.map(|at| (at, Name::from(revoked_by.unwrap_or_default())));
        Ok(ApiKey { id, source, scope, hash, created_at, created_by, revoked })
    };
    rows.iter().map(key).collect()
}
