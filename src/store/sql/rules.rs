//! Rule sets going live: texts by hash, what is true of each rule as such, and the first looks that a new or changed `when` asks for.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::rows::{Fields, json};
use super::spread::{BUCKETS, Bucket};
use super::{Backend, Needs, Row, Session, Sql, Tx, Work, query};
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::store::{Publication, Published, PublishedRule, StoreError};

/// Profiles made due in one transaction: others get their turn in between.
const FIRST_LOOKS_STEP: i64 = 20_000;

pub(super) const RULE_STATES: Sql = Sql::same("select rule, when_hash, hash, is_live from rule_states");

/// $1 texts (path, hash, text), $2 version, $3 at, $4 by, $5 why, $6 spread, $7 next profile or null, $8 rules (id, when changed,
/// when_hash, hash), $9 removed, $10 history (rule, what), $11 files on disk, $12 whether they are set aside.
pub(super) const PUBLISH: Sql = Sql {
    sqlite: "
    insert into rule_texts (hash, text) select value ->> 1, value ->> 2 from json_each($1) where true on conflict (hash) do nothing;
    insert into rule_set_texts (rules_version, path, hash) select $2, value ->> 0, value ->> 1 from json_each($1) where true
    on conflict (rules_version, path) do nothing;
    insert into publications (rules_version, published_at, published_by, why, spread_ms, next_profile, files, is_rollback)
    values ($2, $3, $4, $5, $6, $7, $11, $12);
    delete from refused_rules;
    insert into rule_states (rule, first_live_at, when_live_at, when_hash, hash, is_live)
    select value ->> 0, $3, $3, value ->> 2, value ->> 3, 1 from json_each($8) where true
    on conflict (rule) do update set hash = excluded.hash, is_live = 1;
    update rule_states set when_live_at = $3, when_hash = j.when_hash
    from (select value ->> 0 as rule, value ->> 2 as when_hash from json_each($8) where value ->> 1) j
    where rule_states.rule = j.rule;
    update rule_states set is_live = 0 where rule in (select value from json_each($9));
    insert into rule_history (rule, happened_at, what, done_by, why, rules_version)
    select value ->> 0, $3, value ->> 1, $4, $5, $2 from json_each($10)",
    postgres: "
        insert into rule_texts (hash, text) select (value ->> 1)::bigint, value ->> 2 from jsonb_array_elements($1::jsonb) as value
        on conflict (hash) do nothing;
        insert into rule_set_texts (rules_version, path, hash) select $2, value ->> 0, (value ->> 1)::bigint
        from jsonb_array_elements($1::jsonb) as value
        on conflict (rules_version, path) do nothing;
        insert into publications (rules_version, published_at, published_by, why, spread_ms, next_profile, files, is_rollback)
        values ($2, $3, $4, $5, $6, $7, $11, $12);
        delete from refused_rules;
        insert into rule_states (rule, first_live_at, when_live_at, when_hash, hash, is_live)
        select value ->> 0, $3, $3, (value ->> 2)::bigint, (value ->> 3)::bigint, true from jsonb_array_elements($8::jsonb) as value
        on conflict (rule) do update set hash = excluded.hash, is_live = true;
        update rule_states set when_live_at = $3, when_hash = j.when_hash
        from (select value ->> 0 as rule, (value ->> 2)::bigint as when_hash from jsonb_array_elements($8::jsonb) as value
            where (value ->> 1)::boolean) j
        where rule_states.rule = j.rule;
        update rule_states set is_live = false from jsonb_array_elements_text($9::jsonb) as j(value) where rule_states.rule = j.value;
        insert into rule_history (rule, happened_at, what, done_by, why, rules_version)
        select value ->> 0, $3, value ->> 1, $4, $5, $2 from jsonb_array_elements($10::jsonb) as value",
};

pub(super) const CURRENT_VERSION: Sql = Sql::same("select rules_version from publications order by seq desc limit 1");
pub(super) const TEXTS_OF: Sql = Sql::same(
    "select s.path, t.text from rule_set_texts s join rule_texts t on t.hash = s.hash
    where s.rules_version = $1 order by s.path",
);

pub(super) struct Publish(pub Publication);

/// A rule as it stood before the publication.
struct Before {
    when_hash: i64,
    hash: i64,
    is_live: bool,
}

#[async_trait]
impl Work for Publish {
    type Done = Published;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Published, StoreError> {
        tx.take(Needs { authority: true, ..Needs::default() }).await?;
        let before = rule_states(tx).await?;
        let published = compare(&before, &self.0.rules);
        let when_changed: BTreeSet<&Name> = published.new.iter().chain(&published.when_changed).collect();
        let rules: Vec<_> = self
            .0
            .rules
            .iter()
            .map(|rule| (&rule.id, when_changed.contains(&rule.id), i64::from(rule.when_hash), rule.hash as i64))
            .collect();
        let changes = [
            ("went live", &published.new),
            ("`when` changed", &published.when_changed),
            ("changed", &published.changed),
            ("removed", &published.removed),
        ];
        let history: Vec<_> = changes.into_iter().flat_map(|(what, rules)| rules.iter().map(move |rule| (rule, what))).collect();
        let texts: Vec<_> =
            self.0.texts.iter().map(|(path, text)| (path, twox_hash::XxHash3_64::oneshot(text.as_bytes()) as i64, text)).collect();
        query(&PUBLISH)
            .bind(json(&texts)?)
            .bind(self.0.version as i64)
            .bind(self.0.at.as_ms())
            .bind(&*self.0.by)
            .bind(&*self.0.why)
            .bind(self.0.spread_ms)
            .bind((!when_changed.is_empty()).then_some(0_i64))
            .bind(json(&rules)?)
            .bind(json(&published.removed)?)
            .bind(json(&history)?)
            .bind(self.0.files.map(|files| files as i64))
            .bind(self.0.is_rollback)
            .execute(&mut tx.session)
            .await?;
        tx.memory.forbid();
        Ok(published)
    }
}

async fn rule_states(tx: &mut Tx<'_>) -> Result<BTreeMap<Name, Before>, StoreError> {
    let mut states = BTreeMap::new();
    for row in query(&RULE_STATES).fetch_all(&mut tx.session).await? {
        let mut fields = Fields::of("rule_states", &row);
        let rule = fields.name("rule")?;
        let before = Before { when_hash: fields.next("when_hash")?, hash: fields.next("hash")?, is_live: fields.next("is_live")? };
        states.insert(rule, before);
    }
    Ok(states)
}

fn compare(before: &BTreeMap<Name, Before>, rules: &[PublishedRule]) -> Published {
    let mut published = Published::default();
    for rule in rules {
        match before.get(&rule.id) {
            None => published.new.push(rule.id.clone()),
            // a rule that was away missed every passage meanwhile: it goes live again
            Some(old) if !old.is_live || old.when_hash != i64::from(rule.when_hash) => published.when_changed.push(rule.id.clone()),
            Some(old) if old.hash != rule.hash as i64 => published.changed.push(rule.id.clone()),
            Some(_) => {}
        }
    }
    let now_live: BTreeSet<&Name> = rules.iter().map(|rule| &rule.id).collect();
    published.removed = before.iter().filter(|(id, old)| old.is_live && !now_live.contains(id)).map(|(id, _)| id.clone()).collect();
    published
}

// --------------------------------------------------------------------------------------------------------- first looks

pub(super) const OPEN_FIRST_LOOKS: Sql = Sql::same(
    "select seq, published_at, spread_ms, next_profile from publications
    where next_profile is not null order by seq limit 1",
);

/// Makes the people of ($1, $2] due between $3 and $3 + $4, each at an instant of its own that follows from the id. The version moves,
/// so that a look under way (by the rules of before) does not set a later due instant over this one.
pub(super) const MAKE_DUE: Sql = Sql {
    sqlite: "update profiles set version = version + 1,
        due_at = min(coalesce(due_at, $3 + id * 2654435761 % 1000003 * $4 / 1000003), $3 + id * 2654435761 % 1000003 * $4 / 1000003)
    where id > $1 and id <= $2 and quarantined_at is null",
    postgres: "
        select 1 from profiles where id > $1 and id <= $2 and quarantined_at is null /* in one bucket: and bucket = $bucket */
        order by bucket, id for update;
        update profiles set version = version + 1,
            due_at = least(coalesce(due_at, $3 + id * 2654435761 % 1000003 * $4 / 1000003), $3 + id * 2654435761 % 1000003 * $4 / 1000003)
        where id > $1 and id <= $2 and quarantined_at is null /* in one bucket: and bucket = $bucket */",
};

pub(super) const LAST_PROFILE: Sql = Sql::same("select coalesce(max(id), 0) from profiles");

pub(super) const ADVANCE_FIRST_LOOKS: Sql = Sql::same("update publications set next_profile = $2 where seq = $1");

/// One step of making people due; with the publication that asked for it, if one did.
#[derive(Clone, Copy)]
struct MakeDue {
    publication: Option<i64>,
    after: i64,
    at: i64,
    spread_ms: i64,
}

/// How many were made due, and after whom to go on.
struct Step {
    made_due: u64,
    next: Option<i64>,
}

#[async_trait]
impl Work for MakeDue {
    type Done = Step;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Step, StoreError> {
        let made_due = self.part(FIRST_LOOKS_STEP, tx).await?;
        self.go_on(FIRST_LOOKS_STEP, made_due, tx).await
    }
}

impl MakeDue {
    async fn part(&self, step: i64, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let update = query(&MAKE_DUE).bind(self.after).bind(self.after + step).bind(self.at).bind(self.spread_ms);
        update.execute(&mut tx.session).await
    }

    /// Notes how far it has come.
    async fn go_on(&self, step: i64, made_due: u64, tx: &mut Tx<'_>) -> Result<Step, StoreError> {
        let upto = self.after + step;
        let last: i64 = Fields::of("profiles", &query(&LAST_PROFILE).fetch_one(&mut tx.session).await?).next("id")?;
        let next = (upto < last).then_some(upto);
        if let Some(publication) = self.publication {
            query(&ADVANCE_FIRST_LOOKS).bind(publication).bind(next).execute(&mut tx.session).await?;
        }
        Ok(Step { made_due, next })
    }
}

/// A step where people are spread over machines: as many of each bucket as otherwise of all, one bucket after the other.
const SPREAD_STEP: i64 = FIRST_LOOKS_STEP * BUCKETS as i64;

struct InBucket(MakeDue);

#[async_trait]
impl Work for InBucket {
    type Done = u64;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        self.0.part(SPREAD_STEP, tx).await
    }
}

struct GoOn(MakeDue, u64);

#[async_trait]
impl Work for GoOn {
    type Done = Step;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Step, StoreError> {
        self.0.go_on(SPREAD_STEP, self.1, tx).await
    }
}

async fn make_due<B: Backend>(store: &B, step: MakeDue) -> Result<Step, StoreError> {
    if store.spread().is_none() {
        return store.write(step).await;
    }
    let mut made_due = 0;
    for bucket in 0..BUCKETS {
        made_due += store.write_in(Some(Bucket(bucket)), InBucket(step)).await?;
    }
    store.write(GoOn(step, made_due)).await
}

/// Walks through the first looks that publications asked for, from where a crash may have left them; how many people were made due.
pub(in crate::store) async fn finish_first_looks<B: Backend>(store: &B) -> Result<u64, StoreError> {
    let mut made_due = 0;
    while let Some(row) = open_first_looks(store).await.map_err(|e| store.failed(e))? {
        let mut fields = Fields::of("publications", &row);
        let publication = Some(fields.next("seq")?);
        let (at, spread_ms, after): (i64, i64, i64) =
            (fields.next("published_at")?, fields.next("spread_ms")?, fields.next("next_profile")?);
        made_due += make_due(store, MakeDue { publication, after, at, spread_ms }).await?.made_due;
    }
    Ok(made_due)
}

async fn open_first_looks<B: Backend>(store: &B) -> Result<Option<Row>, StoreError> {
    let mut reader = store.reader().await?;
    let open = query(&OPEN_FIRST_LOOKS).fetch_optional(&mut B::session(&mut reader)).await;
    store.end(reader).await;
    open
}

pub(super) async fn make_all_due<B: Backend>(store: &B, at: Timestamp, spread_ms: i64) -> Result<u64, StoreError> {
    let (mut made_due, mut after) = (0, Some(0));
    while let Some(from) = after {
        let step = make_due(store, MakeDue { publication: None, after: from, at: at.as_ms(), spread_ms }).await?;
        made_due += step.made_due;
        after = step.next;
    }
    Ok(made_due)
}

// --------------------------------------------------------------------------------------------------------------- reads

pub(super) async fn current_version(session: &mut Session<'_>) -> Result<Option<u64>, StoreError> {
    let row = query(&CURRENT_VERSION).fetch_optional(session).await?;
    row.map(|row| Ok(Fields::of("publications", &row).next::<i64>("rules_version")? as u64)).transpose()
}

pub(super) async fn texts_of(session: &mut Session<'_>, version: u64) -> Result<Option<Vec<(String, String)>>, StoreError> {
    let rows = query(&TEXTS_OF).bind(version as i64).fetch_all(session).await?;
    let mut texts = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut fields = Fields::of("rule_texts", row);
        texts.push((fields.next("path")?, fields.next("text")?));
    }
    Ok((!texts.is_empty()).then_some(texts))
}
