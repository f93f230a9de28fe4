//! Erasing one person: everything that says who they are goes, what keeps sums right and the address closed stays, as numbers and hashes.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::json as object;

use super::reads::merged;
use super::retention::note_removal;
use super::rows::{Fields, Rows, States, hex, json};
use super::{Needs, Row, Session, Sql, Tx, Work, query};
use crate::engine::action::Channel;
use crate::engine::event::Value;
use crate::engine::profile::Profile;
use crate::engine::time::Timestamp;
use crate::store::erasure::{Cause, ERASED, Erased, Erasure};
use crate::store::retention::Kept;
use crate::store::suppression::{Reason, Scope};
use crate::store::{NewEvent, ProfileId, StoreError};

/// What is deleted leaves zeros in the file, not its old bytes.
pub(super) const SECURE_DELETE: Sql = Sql { sqlite: "pragma secure_delete = on", postgres: "" };
pub(super) const PLAIN_DELETE: Sql = Sql { sqlite: "pragma secure_delete = off", postgres: "" };

/// Rows of the profiles in $1.
macro_rules! theirs {
    (postgres) => {
        "(bucket, profile_id) in (select bucket(value::bigint), value::bigint from jsonb_array_elements_text($1::jsonb) as value)
            /* in one bucket: and bucket = $bucket */"
    };
    () => {
        "profile_id in (select value from json_each($1))"
    };
}

/// Below, $1 is the person's profiles: the one that lives, and those that were merged into it.
pub(super) const STATES_OF: Sql = Sql {
    sqlite: "select p.id, p.state from json_each($1) j join profiles p on p.id = j.value",
    postgres: "select p.id, p.state from jsonb_array_elements_text($1::jsonb) as j(value)
        join profiles p on p.bucket = bucket(j.value::bigint) and p.id = j.value::bigint",
};
pub(super) const NAMES_OF: Sql = Sql {
    sqlite: "select i.kind, i.value from json_each($1) j join identities i on i.profile_id = j.value",
    postgres: "select i.kind, i.value from jsonb_array_elements_text($1::jsonb) as j(value) join identities i on i.profile_id = j.value::bigint",
};
/// Every address that the person ever gave.
pub(super) const ADDRESSES_SAID: Sql = Sql {
    sqlite: "select distinct e.properties ->> 'email', e.properties ->> 'phone', e.properties ->> 'push_token'
    from json_each($1) j join events e on e.profile_id = j.value where e.kind = 'identify'",
    postgres: "select distinct e.properties::json ->> 'email', e.properties::json ->> 'phone', e.properties::json ->> 'push_token'
        from jsonb_array_elements_text($1::jsonb) as j(value)
        join events e on e.bucket = bucket(j.value::bigint) and e.profile_id = j.value::bigint where e.kind = 'identify'",
};
pub(super) const UNDER_WAY: Sql = Sql {
    sqlite: "select count(*) from json_each($1) j join messages m on m.profile_id = j.value where m.state = 'sending'",
    postgres: "select count(*) from jsonb_array_elements_text($1::jsonb) as j(value)
        join messages m on m.bucket = bucket(j.value::bigint) and m.profile_id = j.value::bigint where m.state = 'sending'",
};

/// $2 now. Each statement stands by itself so that its rows can be counted.
pub(super) const CANCEL: Sql = Sql {
    sqlite: concat!(
        "update messages set state = 'cancelled', because = 'the person was erased', changed_at = $2, worker = null where ",
        theirs!(),
        " and state in ('queued', 'leased')"
    ),
    postgres: concat!(
        "update messages set state = 'cancelled', because = 'the person was erased', changed_at = $2, worker = null where ",
        theirs!(postgres),
        " and state in ('queued', 'leased')"
    ),
};
pub(super) const STRIP_MESSAGES: Sql = Sql {
    sqlite: concat!("update messages set data = '{}', run_key = '', consent_seq = null where ", theirs!()),
    postgres: concat!("update messages set data = '{}', run_key = '', consent_seq = null where ", theirs!(postgres)),
};
pub(super) const STRIP_ATTEMPTS: Sql = Sql {
    sqlite: concat!("update attempts set detail = null, provider_id = null where ", theirs!()),
    postgres: concat!("update attempts set detail = null, provider_id = null where ", theirs!(postgres)),
};
pub(super) const STRIP_EXPOSURES: Sql = Sql {
    sqlite: concat!("update exposures set run_key = '' where ", theirs!()),
    postgres: concat!("update exposures set run_key = '' where ", theirs!(postgres)),
};
/// How runs ended and messages fared is a word of ours; every other reason may quote the person.
pub(super) const STRIP_ENTRIES: Sql = Sql {
    sqlite: concat!("update entries set because = '' where ", theirs!(), " and what not in ('ended', 'result')"),
    postgres: concat!("update entries set because = '' where ", theirs!(postgres), " and what not in ('ended', 'result')"),
};
pub(super) const DELETE_EVENTS: Sql =
    Sql { sqlite: concat!("delete from events where ", theirs!()), postgres: concat!("delete from events where ", theirs!(postgres)) };
pub(super) const DELETE_CONSENTS: Sql =
    Sql { sqlite: concat!("delete from consents where ", theirs!()), postgres: concat!("delete from consents where ", theirs!(postgres)) };
pub(super) const DELETE_IDENTITIES: Sql = Sql {
    sqlite: "delete from identities where profile_id in (select value from json_each($1))",
    postgres: "delete from identities
        where profile_id in (select value::bigint from jsonb_array_elements_text($1::jsonb) as value)",
};
pub(super) const DELETE_CLAIM: Sql =
    Sql { sqlite: concat!("delete from claims where ", theirs!()), postgres: concat!("delete from claims where ", theirs!(postgres)) };
/// What was known of facts that are gone already.
pub(super) const DELETE_REMOVED: Sql = Sql {
    sqlite: concat!("delete from removed_events where ", theirs!()),
    postgres: concat!("delete from removed_events where ", theirs!(postgres)),
};
/// $1: what to look for in what was refused at the door, without spaces and regard to case.
pub(super) const DELETE_REJECTS: Sql = Sql {
    sqlite: "delete from rejects where exists (
    select 1 from json_each($1) j where instr(lower(replace(row, ' ', '')), j.value) > 0)",
    postgres: "delete from rejects where exists (
        select 1 from jsonb_array_elements_text($1::jsonb) as j(value) where position(j.value in lower(replace(row, ' ', ''))) > 0)",
};

/// $2 key, $3 state, $4 now, $5 why it is set aside.
pub(super) const EMPTY_PROFILES: Sql = Sql {
    sqlite: "update profiles set key = $2, state = $3, version = version + 1, due_at = null,
    absorbed_seq = woken_seq, quarantined_at = $4, quarantined_because = $5 where id in (select value from json_each($1))",
    postgres: "update profiles set key = $2, state = $3, version = version + 1, due_at = null,
            absorbed_seq = woken_seq, quarantined_at = $4, quarantined_because = $5
        from jsonb_array_elements_text($1::jsonb) as j(value)
        where profiles.bucket = bucket(j.value::bigint) and profiles.id = j.value::bigint",
};
/// $1: rows of hash, when, profile, by whom, why, what was removed.
pub(super) const RECORD_ERASURE: Sql = Sql {
    sqlite: "insert into erasures (identity_hash, erased_at, profile_id, requested_by, why, removed)
    select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 from json_each($1) where true
    on conflict (identity_hash) do update set erased_at = excluded.erased_at, profile_id = excluded.profile_id,
        requested_by = excluded.requested_by, why = excluded.why, removed = excluded.removed",
    postgres: "insert into erasures (identity_hash, erased_at, profile_id, requested_by, why, removed)
        select decode(value ->> 0, 'hex'), (value ->> 1)::bigint, (value ->> 2)::bigint, value ->> 3, value ->> 4, value ->> 5
        from jsonb_array_elements($1::jsonb) as value
        on conflict (identity_hash) do update set erased_at = excluded.erased_at, profile_id = excluded.profile_id,
            requested_by = excluded.requested_by, why = excluded.why, removed = excluded.removed",
};
/// $1: rows of number, hash, instant: which of them are of somebody who was erased at that instant or later.
pub(super) const OF_ERASED: Sql = Sql {
    sqlite: "select j.value ->> 0 from json_each($1) j
    join erasures e on e.identity_hash = unhex(j.value ->> 1) where e.erased_at >= j.value ->> 2",
    postgres: "select (j.value ->> 0)::bigint from jsonb_array_elements($1::jsonb) as j(value)
        join erasures e on e.identity_hash = decode(j.value ->> 1, 'hex') where e.erased_at >= (j.value ->> 2)::bigint",
};

pub(super) struct Erase(pub Erasure, pub Cause);

#[async_trait]
impl Work for Erase {
    type Done = Erased;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Erased, StoreError> {
        query(&SECURE_DELETE).execute(&mut tx.session).await?;
        let done = self.erase(tx).await;
        query(&PLAIN_DELETE).execute(&mut tx.session).await?;
        done
    }
}

impl Erase {
    async fn erase(&self, tx: &mut Tx<'_>) -> Result<Erased, StoreError> {
        let (id, at) = (self.0.profile, self.0.at);
        let mut people = merged(&mut tx.session, id).await?;
        people.push(id);
        let profiles: Vec<i64> = people.iter().map(|id| id.0).collect();
        tx.take(Needs { people: &people, ..Needs::default() }).await?;
        let profiles = json(&profiles)?;
        let names = names(&profiles, tx).await?;
        let addresses = addresses(&profiles, tx).await?;
        let row = query(&UNDER_WAY).bind(&profiles).fetch_one(&mut tx.session).await?;
        let mut erased = Erased { sending: Fields::of("messages", &row).count("count")?, ..Erased::default() };
        if self.1 == Cause::Asked {
            self.close(&addresses, tx).await?;
            erased.addresses = addresses.len() as u64;
        }
        erased.cancelled = query(&CANCEL).bind(&profiles).bind(at.as_ms()).execute(&mut tx.session).await?;
        for (count, statement) in [
            (&mut erased.messages, &STRIP_MESSAGES),
            (&mut erased.attempts, &STRIP_ATTEMPTS),
            (&mut erased.exposures, &STRIP_EXPOSURES),
            (&mut erased.entries, &STRIP_ENTRIES),
            (&mut erased.events, &DELETE_EVENTS),
            (&mut erased.consents, &DELETE_CONSENTS),
            (&mut erased.identities, &DELETE_IDENTITIES),
            (&mut 0, &DELETE_CLAIM),
            (&mut 0, &DELETE_REMOVED),
        ] {
            *count = query(statement).bind(&profiles).execute(&mut tx.session).await?;
        }
        let said: BTreeSet<String> =
            names.iter().flat_map(|(_, name)| said_as(name)).chain(addresses.iter().flat_map(|(_, a)| said_as(a))).collect();
        let said: Vec<String> = said.into_iter().collect();
        erased.rejects = query(&DELETE_REJECTS).bind(json(&said)?).execute(&mut tx.session).await?;
        self.empty(&profiles, &names, tx).await?;
        self.record(&names, &erased, tx).await?;
        tx.memory.note_erased();
        Ok(erased)
    }

    /// Nobody writes to these addresses again, whoever imports them.
    async fn close(&self, addresses: &BTreeSet<(Channel, String)>, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if addresses.is_empty() {
            return Ok(());
        }
        let at = self.0.at.as_ms();
        let row = |(channel, address): &(Channel, String)| {
            let hash = hex(tx.memory.hasher().address(*channel, address));
            (channel.name(), hash, Scope::All.name(), Reason::Erased.name(), at, None::<i64>, "erase")
        };
        let rows: Vec<_> = addresses.iter().map(row).collect();
        query(&super::suppressions::SUPPRESS).bind(json(&rows)?).fetch_all(&mut tx.session).await?;
        tx.memory.note_suppressed();
        Ok(())
    }

    async fn empty(&self, profiles: &Rows, names: &[(String, String)], tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let hash = names.first().map_or(0, |(kind, value)| tx.memory.hasher().identity(kind, value));
        let key = format!("erased-{hash:032x}");
        let mut states = States::default();
        states.add(&Profile::new(&key));
        let empty = query(&EMPTY_PROFILES).bind(profiles).bind(key).bind(states.into_bytes());
        empty.bind(self.0.at.as_ms()).bind(ERASED).execute(&mut tx.session).await?;
        Ok(())
    }

    async fn record(&self, names: &[(String, String)], erased: &Erased, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let removed = object!(erased).to_string();
        let Erasure { profile, at, by, why } = &self.0;
        let row = |(kind, value): &(String, String)| {
            (hex(tx.memory.hasher().identity(kind, value)), at.as_ms(), profile.0, by.clone(), why.clone(), removed.clone())
        };
        let rows: Vec<_> = names.iter().map(row).collect();
        query(&RECORD_ERASURE).bind(json(&rows)?).execute(&mut tx.session).await?;
        if let Cause::LongGone { pass, older_than } = self.1 {
            note_removal(Kept::People, pass, older_than, 1, tx).await?;
        }
        Ok(())
    }
}

async fn names(profiles: &Rows, tx: &mut Tx<'_>) -> Result<Vec<(String, String)>, StoreError> {
    let rows = query(&NAMES_OF).bind(profiles).fetch_all(&mut tx.session).await?;
    let name = |row: &Row| {
        let mut fields = Fields::of("identities", row);
        Ok((fields.next("kind")?, fields.next("value")?))
    };
    rows.iter().map(name).collect()
}

/// Those in the rows, and those of every `identify` before.
async fn addresses(profiles: &Rows, tx: &mut Tx<'_>) -> Result<BTreeSet<(Channel, String)>, StoreError> {
    let mut addresses = BTreeSet::new();
    for row in query(&STATES_OF).bind(profiles).fetch_all(&mut tx.session).await? {
        let mut fields = Fields::of("profiles", &row);
        let _id: i64 = fields.next("id")?;
        // a row that cannot be read is erased all the same; its addresses stand in the events
        if let Ok(profile) = fields.state("state") {
            let texts = profile.addresses.iter().filter_map(|(channel, said)| match &said.value {
                Value::Text(address) => Some((*channel, address.to_string())),
                _ => None,
            });
            addresses.extend(texts);
        }
    }
    for row in query(&ADDRESSES_SAID).bind(profiles).fetch_all(&mut tx.session).await? {
        let mut fields = Fields::of("events", &row);
        let (email, phone, token): (Option<String>, Option<String>, Option<String>) =
            (fields.next("email")?, fields.next("phone")?, fields.next("push_token")?);
        let said = [(Channel::Email, email), (Channel::Sms, phone.clone()), (Channel::Whatsapp, phone), (Channel::Push, token)];
        addresses.extend(said.into_iter().filter_map(|(channel, address)| Some((channel, address?.trim().to_owned()))));
    }
    addresses.retain(|(_, address)| !address.is_empty());
    Ok(addresses)
}

/// How a name or an address may stand in JSON: as text, as text in ASCII (Python's SDKs write it so), a number by itself. Compared
/// without spaces and regard to case.
fn said_as(said: &str) -> Vec<String> {
    let text = object!(said).to_string();
    let ascii: String = text.chars().map(|c| if c.is_ascii() { c.to_string() } else { escaped(c) }).collect();
    let mut forms = vec![text, ascii];
    if said.bytes().all(|byte| byte.is_ascii_digit()) {
        forms.extend([format!(":{said},"), format!(":{said}}}")]);
    }
    forms.into_iter().map(|form| form.replace(' ', "").to_ascii_lowercase()).collect()
}

fn escaped(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

/// Which of these events are old facts of somebody who was erased since: they come in once more with an import, and stay out.
pub(super) async fn of_erased(events: &[NewEvent], tx: &mut Tx<'_>) -> Result<BTreeSet<usize>, StoreError> {
    if !tx.memory.may_have_erased() {
        return Ok(BTreeSet::new());
    }
    let hasher = tx.memory.hasher();
    let asked: Vec<(usize, String, i64)> = events
        .iter()
        .enumerate()
        .map(|(number, new)| {
            let (kind, value) = super::identities::parts(&new.identity);
            (number, hex(hasher.identity(kind, value)), new.event.occurred_at.as_ms())
        })
        .collect();
    let rows = query(&OF_ERASED).bind(json(&asked)?).fetch_all(&mut tx.session).await?;
    rows.iter().map(|row| Fields::of("erasures", row).count("number")).collect()
}

pub(super) const ERASURES_OF: Sql = Sql {
    sqlite: "select erased_at, requested_by, why, removed, profile_id from erasures where identity_hash = unhex($1)",
    postgres: "select erased_at, requested_by, why, removed, profile_id from erasures where identity_hash = decode($1, 'hex')",
};

/// The record of an erasure, for who asks by the name that was erased.
pub(super) async fn erasure_of(session: &mut Session<'_>, hash: u128) -> Result<Option<(Erasure, Erased)>, StoreError> {
    let Some(row) = query(&ERASURES_OF).bind(hex(hash)).fetch_optional(session).await? else { return Ok(None) };
    let mut fields = Fields::of("erasures", &row);
    let (at, by, why): (Timestamp, String, String) = (fields.instant("erased_at")?, fields.next("requested_by")?, fields.next("why")?);
    let removed: Erased = fields.json("removed")?;
    Ok(Some((Erasure { profile: ProfileId(fields.next("profile_id")?), at, by, why }, removed)))
}
