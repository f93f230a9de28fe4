//! What went live, by whom and why, and whether the files on disk are in accord with it.

use async_trait::async_trait;

use super::rows::Fields;
use super::{Session, Sql, Tx, Work, query};
use crate::store::{PublicationRow, RefusedRules, StoreError};

pub(super) const PUBLICATIONS: Sql = Sql::same(
    "select rules_version, published_at, published_by, why, files, is_rollback
    from publications order by seq desc limit $1",
);
/// Every publication of $1 at $2 wrote its lines with these two.
pub(super) const CHANGES: Sql = Sql::same("select what, rule from rule_history where rules_version = $1 and happened_at = $2 order by seq");

pub(super) async fn publications(session: &mut Session<'_>, limit: usize) -> Result<Vec<PublicationRow>, StoreError> {
    let mut publications = Vec::new();
    for row in query(&PUBLICATIONS).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(session).await? {
        let mut fields = Fields::of("publications", &row);
        let mut publication = PublicationRow {
            version: fields.next::<i64>("rules_version")? as u64,
            at: fields.instant("published_at")?,
            by: fields.next("published_by")?,
            why: fields.next("why")?,
            files: fields.next::<Option<i64>>("files")?.map(|files| files as u64),
            is_rollback: fields.next("is_rollback")?,
            changes: Vec::new(),
        };
        let changes = query(&CHANGES).bind(publication.version as i64).bind(publication.at.as_ms());
        for row in changes.fetch_all(session).await? {
            let mut fields = Fields::of("rule_history", &row);
            publication.changes.push((fields.next("what")?, fields.name("rule")?));
        }
        publications.push(publication);
    }
    Ok(publications)
}

pub(super) struct Explain {
    pub by: String,
    pub why: String,
}

pub(super) const EXPLAIN: Sql =
    Sql::same("update publications set published_by = $1, why = $2 where seq = (select max(seq) from publications)");

#[async_trait]
impl Work for Explain {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let update = query(&EXPLAIN).bind(&*self.by).bind(&*self.why).execute(&mut tx.session).await?;
        if update == 0 {
            return Err(StoreError::Conflict("nothing is live yet: the live rule set".into()));
        }
        Ok(())
    }
}

// ------------------------------------------------------------------------------------------------------- files on disk

pub(super) struct Agree {
    pub files: u64,
}

/// The files mean what is live, so no rollback sets them aside any more, and nothing is refused.
pub(super) const AGREE: Sql = Sql {
    sqlite: "update publications set files = $1, is_rollback = 0 where seq = (select max(seq) from publications);
    delete from refused_rules",
    postgres: "update publications set files = $1, is_rollback = false where seq = (select max(seq) from publications);
        delete from refused_rules",
};

#[async_trait]
impl Work for Agree {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        query(&AGREE).bind(self.files as i64).execute(&mut tx.session).await?;
        Ok(())
    }
}

pub(super) struct Refuse(pub RefusedRules);

pub(super) const REFUSE: Sql = Sql::same(
    "insert into refused_rules (id, files, refused_at, because) values (1, $1, $2, $3)
    on conflict (id) do update set files = excluded.files, refused_at = excluded.refused_at, because = excluded.because",
);

#[async_trait]
impl Work for Refuse {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let RefusedRules { files, at, because } = &self.0;
        query(&REFUSE).bind(*files as i64).bind(at.as_ms()).bind(&**because).execute(&mut tx.session).await?;
        Ok(())
    }
}

pub(super) const REFUSED: Sql = Sql::same("select files, refused_at, because from refused_rules");

pub(super) async fn refused(session: &mut Session<'_>) -> Result<Option<RefusedRules>, StoreError> {
    let Some(row) = query(&REFUSED).fetch_optional(session).await? else { return Ok(None) };
    let mut fields = Fields::of("refused_rules", &row);
    let files = fields.next::<i64>("files")? as u64;
    Ok(Some(RefusedRules { files, at: fields.instant("refused_at")?, because: fields.next("because")? }))
}
