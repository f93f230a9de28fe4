//! The first start on a copy of a database: the original may have gone on meanwhile.

use async_trait::async_trait;

use super::rows::Fields;
use super::world::SetPause;
use super::{Needs, Row, Sql, Tx, Work, append, query};
use crate::engine::action::{Channel, MessageId, Outcome};
use crate::engine::decide::Pause;
use crate::engine::run::{ResultOf, result_event};
use crate::engine::time::Timestamp;
use crate::store::{Identity, NewEvent, PauseScope, ProfileId, Restored, StoreError};

pub(super) const MARKED: Sql = Sql::same("select taken_at from backup where id = 1");
pub(super) const UNMARK: Sql = Sql::same("delete from backup");

/// What was still to go out.
pub(super) const STILL_TO_GO: Sql = Sql::same(
    "select id, profile_id, rule, run, step, channel, template from messages
    where state in ('queued', 'leased', 'sending') order by seq",
);
/// $1 now, $2 why, $3 the bit of `unknown`. What was begun has its attempt; the others get one that the original may have made.
pub(super) const DOUBT: Sql = Sql {
    sqlite: "
    update attempts set ended_at = $1, outcome = 'unknown', detail = $2
    where ended_at is null and (profile_id, message_id) in (select profile_id, id from messages where state = 'sending');
    insert into attempts (profile_id, message_id, number, epoch, worker, started_at, ended_at, outcome, detail)
    select profile_id, id, attempts + 1, epoch, 'restore', $1, $1, 'unknown', $2 from messages where state in ('queued', 'leased');
    update messages set attempts = attempts + 1, first_attempt_at = coalesce(first_attempt_at, $1) where state in ('queued', 'leased');
    update messages set state = 'unknown', because = $2, changed_at = $1, worker = null, outcomes = outcomes | $3
    where state in ('queued', 'leased', 'sending')",
    postgres: "
        update attempts set ended_at = $1, outcome = 'unknown', detail = $2
        where ended_at is null and (bucket, profile_id, message_id) in (select bucket, profile_id, id from messages where state = 'sending');
        insert into attempts (bucket, profile_id, message_id, number, epoch, worker, started_at, ended_at, outcome, detail)
        select bucket, profile_id, id, attempts + 1, epoch, 'restore', $1, $1, 'unknown', $2 from messages
        where state in ('queued', 'leased');
        update messages set attempts = attempts + 1, first_attempt_at = coalesce(first_attempt_at, $1)
        where state in ('queued', 'leased');
        update messages set state = 'unknown', because = $2, changed_at = $1, worker = null, outcomes = outcomes | $3
        where state in ('queued', 'leased', 'sending')",
};

pub(super) struct AfterRestore(pub Timestamp);

#[async_trait]
impl Work for AfterRestore {
    type Done = Option<Restored>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Option<Restored>, StoreError> {
        let at = self.0;
        let Some(row) = query(&MARKED).fetch_optional(&mut tx.session).await? else { return Ok(None) };
        let taken_at = Fields::of("backup", &row).instant("taken_at")?;
        let because = format!("restored from a backup of {taken_at}: it may have gone out since");
        let rows = query(&STILL_TO_GO).fetch_all(&mut tx.session).await?;
        let facts: Vec<(ProfileId, NewEvent)> = rows.iter().map(|row| fact(row, &because, at)).collect::<Result<_, _>>()?;
        let people: Vec<ProfileId> = facts.iter().map(|(profile, _)| *profile).collect();
        tx.take(Needs { people: &people, events: facts.len(), authority: true, ..Needs::default() }).await?;
        let reason = format!("restored from a backup of {taken_at}: what went out since then is not on record and would go out again");
        let pause = Some(Pause { at, reason: reason.into() });
        SetPause { at, scope: PauseScope::All, pause, by: "restore".into() }.apply(tx).await?;
        let doubt = query(&DOUBT).bind(at.as_ms()).bind(&because).bind(i64::from(Outcome::Unknown.bit()));
        doubt.execute(&mut tx.session).await?;
        let facts: Vec<(ProfileId, &NewEvent)> = facts.iter().map(|(profile, fact)| (*profile, fact)).collect();
        append::write(&facts, tx).await?;
        query(&UNMARK).execute(&mut tx.session).await?;
        Ok(Some(Restored { taken_at, messages: facts.len() as u64 }))
    }
}

/// `message_unknown` of what was still to go: runs and caps hear of it.
fn fact(row: &Row, because: &str, at: Timestamp) -> Result<(ProfileId, NewEvent), StoreError> {
    let mut fields = Fields::of("messages", row);
    let (id, profile): (MessageId, _) = (fields.message_id("id")?, ProfileId(fields.next("profile_id")?));
    let (rule, run, step) = (fields.name("rule")?, fields.count("run")?, fields.name("step")?);
    let (channel, template) = (fields.word("channel", Channel::named)?, fields.name("template")?);
    let message = ResultOf { id, rule: &rule, run, step: &step, channel, template: &template };
    let event = result_event(&message, Outcome::Unknown, at, because);
    Ok((profile, NewEvent { identity: Identity::User("".into()), link: None, event, active: false }))
}
