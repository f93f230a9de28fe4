//! Claiming due profiles, and writing what was decided about them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use serde::Serialize;

use super::counting::Counting;
use super::query::Query;
use super::rows::{
    EventRow, Fields, NewMessage, Place, States, StoredEvent, Waits, due, event_columns, event_row, hex, insert_entries, insert_events,
    json, new_message,
};
use super::{Needs, Sql, Tx, Work, origin, query};
use crate::engine::action::{Entry, Posting};
use crate::engine::decide::Decision;
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::store::{Claim, ClaimedProfile, Committed, DecisionCommit, DueProfiles, EventSeq, ProfileId, SUSPECT_AFTER, StoreError};

// --------------------------------------------------------------------------------------------------------------- claim

pub(super) struct ClaimDue {
    pub now: Timestamp,
    pub limit: usize,
    pub worker: String,
    pub whom: Whom,
}

/// Whom a claim is about. Who was claimed too often in vain is suspect, and claimed alone: of people before anybody else, of messages after
/// all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whom {
    Anybody,
    Unsuspected,
    Suspects,
}

/// The profiles that were just claimed under epoch $4, with their state.
macro_rules! claimed_profiles {
    () => {
        "select p.id, p.version, p.due_at, p.absorbed_seq, c.claims, p.state
    from claims c join profiles p on p.id = c.profile_id where c.epoch = $4"
    };
    (postgres) => {
        "select p.id, p.version, p.due_at, p.absorbed_seq, c.claims, p.state
        from claims c join profiles p on p.bucket = c.bucket and p.id = c.profile_id
        where c.worker is not null and c.epoch = $4 /* in one bucket: and c.bucket = $bucket */"
    };
}

/// $1 now, $2 limit, $3 worker, $4 epoch, $5 claimed so often in vain makes suspect. Then the claimed ones.
pub(super) const CLAIM: Sql = Sql {
    sqlite: concat!(
        "
    insert into claims (profile_id, worker, epoch, claims)
    select p.id, $3, $4, coalesce(c.claims, 0) + 1
    from profiles p left join claims c on c.profile_id = p.id
    where p.due_at <= $1 and c.worker is null and coalesce(c.claims, 0) < $5
    order by p.due_at limit $2
    on conflict (profile_id) do update set worker = excluded.worker, epoch = excluded.epoch, claims = excluded.claims;
    ",
        claimed_profiles!()
    ),
    postgres: concat!(
        "
        with due as (
            select p.bucket, p.id from profiles p
            where p.due_at <= $1 and not exists (
                select 1 from claims c where c.bucket = p.bucket and c.profile_id = p.id and (c.worker is not null or c.claims >= $5))
            order by p.due_at limit $2 for update of p skip locked)
        insert into claims (bucket, profile_id, worker, epoch, claims)
        select bucket, id, $3, $4, 1 from due
        on conflict (bucket, profile_id) do update set worker = excluded.worker, epoch = excluded.epoch, claims = claims.claims + 1
        where claims.worker is null;
        ",
        claimed_profiles!(postgres)
    ),
};

/// The suspect who has been due for longest. There are as many claims as people whom a process holds, or died over.
pub(super) const CLAIM_SUSPECT: Sql = Sql {
    sqlite: concat!(
        "
    update claims set worker = $3, epoch = $4, claims = claims + 1 where profile_id = (
        select c.profile_id from claims c join profiles p on p.id = c.profile_id
        where c.worker is null and c.claims >= $5 and p.due_at <= $1 order by p.due_at limit 1);
    ",
        claimed_profiles!()
    ),
    postgres: concat!(
        "
        with suspect as (
            select c.bucket, c.profile_id from claims c join profiles p on p.bucket = c.bucket and p.id = c.profile_id
            where c.worker is null and c.claims >= $5 and p.due_at <= $1 /* in one bucket: and c.bucket = $bucket */
            order by p.due_at limit 1 for update skip locked)
        update claims set worker = $3, epoch = $4, claims = claims.claims + 1 from suspect
        where claims.bucket = suspect.bucket and claims.profile_id = suspect.profile_id
            /* in one bucket: and claims.bucket = $bucket */;
        ",
        claimed_profiles!(postgres)
    ),
};

/// In which buckets somebody is due at $1.
pub(super) const BUCKETS_DUE: Sql = Sql {
    sqlite: "",
    postgres: "select coalesce(json_agg(bucket), '[]')::text from (
        select bucket from profiles where due_at is not null and due_at <= $1 group by bucket) due",
};
/// In which bucket the suspect is who has been due for longest at $1; $2: as above.
pub(super) const BUCKET_OF_SUSPECT: Sql = Sql {
    sqlite: "",
    postgres: "select coalesce(json_agg(bucket), '[]')::text from (
        select c.bucket from claims c join profiles p on p.bucket = c.bucket and p.id = c.profile_id
        where c.worker is null and c.claims >= $2 and p.due_at <= $1 order by p.due_at limit 1) suspect",
};
/// The same claim within one bucket, in two steps: a database that spreads people takes no insert from rows that it locks meanwhile.
/// $1 now, $2 limit, $5 as above.
pub(super) const LOCK_DUE: Sql = Sql {
    sqlite: "",
    postgres: "select p.id from profiles p
        where p.due_at <= $1 /* in one bucket: and p.bucket = $bucket */ and not exists (
            select 1 from claims c where c.bucket = p.bucket and c.profile_id = p.id and (c.worker is not null or c.claims >= $5))
        order by p.due_at limit $2 for update of p skip locked",
};
/// $1 the locked ones, $3 worker, $4 epoch.
pub(super) const CLAIM_LOCKED: Sql = Sql {
    sqlite: "",
    postgres: concat!(
        "
        insert into claims (bucket, profile_id, worker, epoch, claims)
        select bucket(value::bigint), value::bigint, $3, $4, 1 from jsonb_array_elements_text($1::jsonb) as value
        on conflict (bucket, profile_id) do update set worker = excluded.worker, epoch = excluded.epoch, claims = claims.claims + 1
        where claims.worker is null;
        ",
        claimed_profiles!(postgres)
    ),
};

/// What waits for the profiles of $1 (id, absorbed_seq), in the order of acknowledgement.
pub(super) const WAITING_EVENTS: Sql = Sql {
    sqlite: concat!(
        "select json_group_array(json_array(e.seq, e.profile_id, ",
        event_columns!(),
        ") order by e.seq)
    from json_each($1) j join events e on e.profile_id = j.value ->> 0 and e.seq > j.value ->> 1 where e.waits > 0"
    ),
    postgres: concat!(
        "select coalesce(json_agg(json_build_array(e.seq, e.profile_id, ",
        event_columns!(),
        ") order by e.seq), '[]')::text
        from jsonb_array_elements($1::jsonb) as j(value)
        join events e on e.bucket = bucket((j.value ->> 0)::bigint) and e.profile_id = (j.value ->> 0)::bigint
            and e.seq > (j.value ->> 1)::bigint
        where e.waits > 0"
    ),
};

#[async_trait]
impl Work for ClaimDue {
    type Done = DueProfiles;
    const CLAIMS: bool = true;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<DueProfiles, StoreError> {
        let epoch = tx.memory.epoch();
        if self.whom != Whom::Unsuspected {
            let mut suspect = self.claim(query(&CLAIM_SUSPECT).bind(self.now.as_ms()), epoch, tx).await?;
            suspect.is_suspect = !suspect.profiles.is_empty() || !suspect.corrupt.is_empty();
            if suspect.is_suspect || self.whom == Whom::Suspects {
                return Ok(suspect);
            }
        }
        if tx.is_in_bucket() {
            self.lock_and_claim(epoch, tx).await
        } else {
            self.claim(query(&CLAIM).bind(self.now.as_ms()), epoch, tx).await
        }
    }
}

impl ClaimDue {
    async fn lock_and_claim(&self, epoch: i64, tx: &mut Tx<'_>) -> Result<DueProfiles, StoreError> {
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let lock = query(&LOCK_DUE).bind(self.now.as_ms()).bind(limit).bind(&*self.worker).bind(epoch).bind(SUSPECT_AFTER);
        let mut locked: Vec<i64> = Vec::new();
        for row in lock.fetch_all(&mut tx.session).await? {
            locked.push(Fields::of("profiles", &row).next("id")?);
        }
        if locked.is_empty() {
            return Ok(DueProfiles::default());
        }
        self.claim(query(&CLAIM_LOCKED).bind(json(&locked)?), epoch, tx).await
    }

    /// `begun`: a claim that knows its first parameter.
    async fn claim(&self, begun: Query, epoch: i64, tx: &mut Tx<'_>) -> Result<DueProfiles, StoreError> {
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let claim = begun.bind(limit).bind(&*self.worker).bind(epoch).bind(SUSPECT_AFTER);
        let mut due = DueProfiles::default();
        let mut absorbed = Vec::new();
        // read as they come: the database walks on while a state is decoded
        let mut rows = claim.fetch(&mut tx.session).await?;
        while let Some(row) = rows.try_next().await? {
            let mut fields = Fields::of("profiles", &row);
            let id = ProfileId(fields.next("id")?);
            let version = fields.next("version")?;
            let due_at = fields.due("due_at")?;
            let upto: i64 = fields.next("absorbed_seq")?;
            let claims = fields.count("claims")?;
            match fields.state("state") {
                Ok(profile) => {
                    let claim = Claim { profile: id, epoch, version, upto: EventSeq(upto) };
                    absorbed.push((id.0, upto));
                    due.profiles.push(ClaimedProfile { claim, profile, events: Vec::new(), due_at, claims });
                }
                Err(error) => due.corrupt.push((id, error)),
            }
        }
        drop(rows);
        due.profiles.sort_by_key(|claimed| (claimed.due_at, claimed.claim.profile));
        set_corrupt_aside(self.now, &due.corrupt, tx).await?;
        hand_out_events(&absorbed, &mut due.profiles, tx).await?;
        Ok(due)
    }
}

/// A row that cannot be read is nobody's turn again until somebody has looked at it.
pub(super) async fn set_corrupt_aside(at: Timestamp, corrupt: &[(ProfileId, StoreError)], tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let aside: Vec<_> = corrupt.iter().map(|(id, error)| (id.0, error.to_string())).collect();
    if aside.is_empty() {
        return Ok(());
    }
    // what a newer program wrote is not broken
    origin::read_states(&mut tx.session, Path::new("")).await?;
    query(&SET_ASIDE).bind(json(&aside)?).bind(at.as_ms()).execute(&mut tx.session).await?;
    Ok(())
}

async fn hand_out_events(absorbed: &[(i64, i64)], profiles: &mut [ClaimedProfile], tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if absorbed.is_empty() {
        return Ok(());
    }
    let places: HashMap<ProfileId, usize> = profiles.iter().enumerate().map(|(place, p)| (p.claim.profile, place)).collect();
    let answer = query(&WAITING_EVENTS).bind(json(absorbed)?).fetch_one(&mut tx.session).await?;
    for waiting in Fields::all::<StoredEvent>("events", &answer)? {
        let (seq, id, event) = waiting.read()?;
        if let Some(profile) = places.get(&id).and_then(|place| profiles.get_mut(*place)) {
            profile.claim.upto = seq;
            profile.events.push(event);
        }
    }
    Ok(())
}

// -------------------------------------------------------------------------------------------------------------- commit

/// Decisions to be written, in order of profile: neighbouring rows dirty the same pages.
pub(super) struct Commit {
    batch: Vec<DecisionCommit>,
    /// Place in `batch` of each decision as it was given.
    order: Vec<usize>,
    /// The new states, made by who commits and not by the writer, for whom others wait.
    states: Vec<u8>,
    /// Where in `states` each decision's profile is.
    places: Vec<Place>,
    /// Others count too, and this batch exceeded a limit when it was counted last: it is counted first.
    counts_first: AtomicBool,
}

impl Commit {
    pub fn new(batch: Vec<DecisionCommit>) -> Self {
        let mut numbered: Vec<(usize, DecisionCommit)> = batch.into_iter().enumerate().collect();
        numbered.sort_by_key(|(_, commit)| commit.claim.profile);
        let (order, batch): (_, Vec<DecisionCommit>) = numbered.into_iter().unzip();
        let mut states = States::default();
        let places = batch.iter().map(|commit| states.add(&commit.decision.profile)).collect();
        Commit { batch, order, states: states.into_bytes(), places, counts_first: AtomicBool::new(false) }
    }
}

/// The present guards of the claims in $1 (profile, upto), and when the earliest event beyond `upto` makes the profile due.
pub(super) const GUARDS: Sql = Sql {
    sqlite: "
    select json_group_array(json_array(p.id, p.version, c.epoch, p.quarantined_at is null,
        case when p.woken_seq > j.value ->> 1 then
            (select min(e.received_at) from events e where e.profile_id = p.id and e.seq > j.value ->> 1 and e.waits = 2)
        end))
    from json_each($1) j join profiles p on p.id = j.value ->> 0 left join claims c on c.profile_id = p.id and c.worker is not null",
    postgres: "
        select coalesce(json_agg(json_build_array(p.id, p.version, c.epoch, (p.quarantined_at is null)::integer,
            case when p.woken_seq > (j.value ->> 1)::bigint then
                (select min(e.received_at) from events e where e.bucket = p.bucket and e.profile_id = p.id
                    and e.seq > (j.value ->> 1)::bigint and e.waits = 2 /* in one bucket: and e.bucket = $bucket */)
            end)), '[]')::text
        from jsonb_array_elements($1::jsonb) as j(value)
        join profiles p on p.bucket = bucket((j.value ->> 0)::bigint) and p.id = (j.value ->> 0)::bigint
        left join claims c on c.bucket = p.bucket and c.profile_id = p.id and c.worker is not null",
};

/// The profiles are there (the guards saw them), so every insert of one is an update: this form does not lay the new rows into a
/// table of its own first, as `update from` does.
///
/// $1 profiles (id, due, absorbed, place, length), $2 their states, $3 claims to end (profile, epoch), $4 messages, $5 cancelled
/// (id, because, at, profile), $6 postings, $7 allocations, $8 exposures, $9 own events, $10 entries.
pub(super) const COMMIT: Sql = Sql {
    sqlite: concat!(
        "insert into profiles (id, key, version, due_at, absorbed_seq, woken_seq, state)
    select value ->> 0, '', 0, value ->> 1, value ->> 2, 0, substr($2, value ->> 3, value ->> 4) from json_each($1) where true
    on conflict (id) do update set version = version + 1, due_at = excluded.due_at,
        absorbed_seq = max(absorbed_seq, excluded.absorbed_seq), state = excluded.state;
    delete from claims where (profile_id, epoch) in (select value ->> 0, value ->> 1 from json_each($3));
    insert into messages (id, profile_id, dedupe_key, rule, rules_version, run_key, run, step, channel, category, template,
        languages, decided_at, due_at, expires_at, priority, wakes_on, data, state, changed_at, epoch, claims, attempts, outcomes)
    select unhex(value ->> 'id'), value ->> 'profile', unhex(value ->> 'dedupe_key'), value ->> 'rule', value ->> 'version',
        value ->> 'run_key', value ->> 'run', value ->> 'step', value ->> 'channel', value ->> 'category', value ->> 'template',
        value ->> 'languages', value ->> 'decided_at', value ->> 'due_at', value ->> 'expires_at', value ->> 'priority',
        value ->> 'wakes_on', value ->> 'data', 'queued', value ->> 'decided_at', 0, 0, 0, 0
    from json_each($4) where true
    on conflict do nothing;
    update messages set state = 'cancelled', because = j.because, changed_at = j.at, worker = null
    from (select unhex(value ->> 0) as id, value ->> 1 as because, value ->> 2 as at from json_each($5)) j
    where messages.id = j.id and messages.state in ('queued', 'leased');
    insert into postings (profile_id, number, kind, class, amount, posted_at, reason, rule, run, step, notice)
    select value ->> 'profile', value ->> 'number', value ->> 'kind', value ->> 'class', value ->> 'amount', value ->> 'at',
        value ->> 'reason', value ->> 'rule', value ->> 'run', value ->> 'step', unhex(value ->> 'notice')
    from json_each($6);
    insert into allocations (profile_id, posting, lot, amount)
    select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each($7);
    insert into exposures (profile_id, rule, run_key, run, exposed_at, held_out, decided_by)
    select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 from json_each($8) where true
    on conflict do nothing;
    ",
        insert_events!("$9"),
        "; ",
        insert_entries!("$10")
    ),
    postgres: concat!(
        "update profiles set version = version + 1, due_at = j.due, absorbed_seq = greatest(absorbed_seq, j.absorbed),
            state = substr($2::bytea, j.place, j.length)
        from (select (value ->> 0)::bigint as id, (value ->> 1)::bigint as due, (value ->> 2)::bigint as absorbed,
                (value ->> 3)::integer as place, (value ->> 4)::integer as length
            from jsonb_array_elements($1::jsonb) as value) j
        where profiles.bucket = bucket(j.id) and profiles.id = j.id;
        delete from claims using (select (value ->> 0)::bigint as id, (value ->> 1)::bigint as epoch
            from jsonb_array_elements($3::jsonb) as value) j
        where claims.bucket = bucket(j.id) and claims.profile_id = j.id and claims.epoch = j.epoch;
        insert into messages (bucket, id, profile_id, dedupe_key, rule, rules_version, run_key, run, step, channel, category, template,
            languages, decided_at, due_at, expires_at, priority, wakes_on, data, state, changed_at, epoch, claims, attempts, outcomes)
        select bucket((value ->> 'profile')::bigint), decode(value ->> 'id', 'hex'), (value ->> 'profile')::bigint,
            decode(value ->> 'dedupe_key', 'hex'), value ->> 'rule', (value ->> 'version')::bigint, value ->> 'run_key',
            (value ->> 'run')::bigint, value ->> 'step', value ->> 'channel', value ->> 'category', value ->> 'template',
            value ->> 'languages', (value ->> 'decided_at')::bigint, (value ->> 'due_at')::bigint, (value ->> 'expires_at')::bigint,
            (value ->> 'priority')::bigint, (value ->> 'wakes_on')::bigint, value ->> 'data', 'queued', (value ->> 'decided_at')::bigint,
            0, 0, 0, 0
        from json_array_elements($4::json) as value
        on conflict do nothing;
        update messages set state = 'cancelled', because = j.because, changed_at = j.at, worker = null
        from (select decode(value ->> 0, 'hex') as id, value ->> 1 as because, (value ->> 2)::bigint as at, (value ->> 3)::bigint as profile
            from jsonb_array_elements($5::jsonb) as value) j
        where messages.bucket = bucket(j.profile) and messages.profile_id = j.profile and messages.id = j.id
            and messages.state in ('queued', 'leased');
        insert into postings (bucket, profile_id, number, kind, class, amount, posted_at, reason, rule, run, step, notice)
        select bucket((value ->> 'profile')::bigint), (value ->> 'profile')::bigint, (value ->> 'number')::bigint, value ->> 'kind',
            value ->> 'class', (value ->> 'amount')::bigint, (value ->> 'at')::bigint, value ->> 'reason', value ->> 'rule',
            (value ->> 'run')::bigint, value ->> 'step', decode(value ->> 'notice', 'hex')
        from jsonb_array_elements($6::jsonb) as value;
        insert into allocations (bucket, profile_id, posting, lot, amount)
        select bucket((value ->> 0)::bigint), (value ->> 0)::bigint, (value ->> 1)::bigint, (value ->> 2)::bigint, (value ->> 3)::bigint
        from jsonb_array_elements($7::jsonb) as value;
        insert into exposures (bucket, profile_id, rule, run_key, run, exposed_at, held_out, decided_by)
        select bucket((value ->> 0)::bigint), (value ->> 0)::bigint, value ->> 1, value ->> 2, (value ->> 3)::bigint,
            (value ->> 4)::bigint, (value ->> 5)::integer = 1, value ->> 6
        from jsonb_array_elements($8::jsonb) as value
        on conflict do nothing;
        ",
        insert_events!(postgres "$9"),
        "; ",
        insert_entries!(postgres "$10")
    ),
};

/// What stands in the way of a claim's commit, and what must not be overslept.
struct Guard {
    is_open: bool,
    waiting_since: Option<Timestamp>,
}

#[async_trait]
impl Work for Commit {
    type Done = Vec<Committed>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Vec<Committed>, StoreError> {
        if self.batch.is_empty() {
            return Ok(Vec::new());
        }
        let people: Vec<ProfileId> = self.batch.iter().map(|commit| commit.claim.profile).collect();
        let events = self.batch.iter().map(|commit| commit.decision.own_events.len()).sum();
        tx.take(Needs { people: &people, events, ..Needs::default() }).await?;
        let mut guards = guards(&self.batch, tx).await?;
        let mut counting = Counting::of(&self.batch);
        // everybody meets in what is counted, so others wait for it as short as may be: who seldom exceeds a limit asks last
        let counts_first = tx.is_alone() || self.counts_first.load(Ordering::Relaxed);
        if counts_first {
            counting.ask(tx).await?;
        }
        let mut sheet = Sheet::default();
        let mut answers = vec![Committed::Conflict; self.batch.len()];
        for ((commit, order), place) in self.batch.iter().zip(&self.order).zip(&self.places) {
            sheet.ended.push((commit.claim.profile.0, commit.claim.epoch));
            // taken out: a second decision about the same person in one batch is a conflict as well
            let Some(guard) = guards.remove(&commit.claim.profile).filter(|guard| guard.is_open) else { continue };
            if !counting.has_room_for(&commit.decision) {
                continue;
            }
            counting.add(&commit.decision);
            sheet.add(commit, *place, &guard, tx)?;
            if let Some(answer) = answers.get_mut(*order) {
                *answer = Committed::Committed;
            }
        }
        sheet.write(&self.states, tx).await?;
        if !counts_first {
            counting.ask(tx).await?;
            if counting.is_exceeded() {
                self.counts_first.store(true, Ordering::Relaxed);
                return Err(StoreError::Raced("others took the room under a limit meanwhile".into()));
            }
        }
        counting.write(tx).await?;
        Ok(answers)
    }
}

async fn guards(batch: &[DecisionCommit], tx: &mut Tx<'_>) -> Result<HashMap<ProfileId, Guard>, StoreError> {
    let claims: HashMap<ProfileId, &Claim> = batch.iter().map(|commit| (commit.claim.profile, &commit.claim)).collect();
    let mut guards = HashMap::with_capacity(batch.len());
    for (id, version, epoch, is_live, waiting_since) in ask_guards(batch.iter().map(|commit| &commit.claim), tx).await? {
        let id = ProfileId(id);
        let is_open = is_live != 0 && claims.get(&id).is_some_and(|claim| claim.version == version && Some(claim.epoch) == epoch);
        guards.insert(id, Guard { is_open, waiting_since: waiting_since.map(Timestamp::from_ms) });
    }
    Ok(guards)
}

/// A row of [`GUARDS`]: profile, version, epoch, whether it is not set aside, and since when an event waits.
type GuardRow = (i64, i64, Option<i64>, u8, Option<i64>);

async fn ask_guards(claims: impl Iterator<Item = &Claim>, tx: &mut Tx<'_>) -> Result<Vec<GuardRow>, StoreError> {
    let asked: Vec<_> = claims.map(|claim| (claim.profile.0, claim.upto.0)).collect();
    let answer = query(&GUARDS).bind(json(&asked)?).fetch_one(&mut tx.session).await?;
    Fields::all("profiles", &answer)
}

/// Everything a commit writes, table by table.
#[derive(Default)]
struct Sheet<'c> {
    profiles: Vec<(i64, Option<i64>, i64, usize, usize)>,
    ended: Vec<(i64, i64)>,
    messages: Vec<NewMessage<'c>>,
    cancelled: Vec<(String, &'c str, i64, i64)>,
    postings: Vec<PostingRow<'c>>,
    allocations: Vec<(i64, u32, u32, i64)>,
    exposures: Vec<(i64, &'c str, &'c str, u32, i64, u8, &'c str)>,
    own_events: Vec<EventRow<'c>>,
    entries: Vec<EntryColumns<'c>>,
}

/// The columns of a log entry, in the order in which the scripts read them.
pub(super) type EntryColumns<'e> = (i64, i64, i64, &'e str, u32, &'e str, &'static str, &'e str, Option<i64>);

pub(super) fn entry_columns(profile: ProfileId, rules_version: u64, entry: &Entry) -> EntryColumns<'_> {
    (
        profile.0,
        entry.at.as_ms(),
        rules_version as i64,
        &entry.rule,
        entry.run,
        &entry.step,
        entry.what.name(),
        &entry.because,
        entry.until.map(Timestamp::as_ms),
    )
}

#[derive(Serialize)]
struct PostingRow<'p> {
    profile: i64,
    number: u32,
    kind: &'static str,
    class: &'p str,
    amount: i64,
    at: i64,
    reason: &'p str,
    rule: Option<&'p Name>,
    run: Option<u32>,
    step: Option<&'p Name>,
    notice: Option<String>,
}

fn posting_row(profile: ProfileId, posting: &Posting) -> PostingRow<'_> {
    PostingRow {
        profile: profile.0,
        number: posting.number,
        kind: posting.kind.name(),
        class: &posting.class,
        amount: posting.amount,
        at: posting.at.as_ms(),
        reason: &posting.reason,
        rule: posting.rule.as_ref(),
        run: posting.run,
        step: posting.step.as_ref(),
        notice: posting.notice.map(|id| hex(id.0)),
    }
}

impl<'c> Sheet<'c> {
    fn add(&mut self, commit: &'c DecisionCommit, place: Place, guard: &Guard, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let DecisionCommit { claim, decision, rules_version, limits: _ } = commit;
        let Decision {
            profile,
            due_at,
            messages,
            cancelled,
            postings,
            exposures,
            own_events,
            entries,
            alerts: _,
            entered: _,
            budget_used: _,
            taking: _,
        } = decision;
        let id = claim.profile;
        let due_at = guard.waiting_since.map_or(*due_at, |waiting| waiting.min(*due_at));
        self.profiles.push((id.0, due(due_at), claim.upto.0, place.0, place.1));
        self.messages.extend(messages.iter().map(|message| new_message(id, message)));
        let decided_at = profile.decided_at.map_or(0, Timestamp::as_ms);
        self.cancelled.extend(cancelled.iter().map(|(message, because)| (hex(message.0), &**because, decided_at, id.0)));
        for posting in postings {
            self.postings.push(posting_row(id, posting));
            let mut by_lot: BTreeMap<u32, i64> = BTreeMap::new();
            posting.allocations.iter().for_each(|(lot, amount)| *by_lot.entry(*lot).or_default() += amount);
            self.allocations.extend(by_lot.into_iter().map(|(lot, amount)| (id.0, posting.number, lot, amount)));
        }
        self.exposures.extend(exposures.iter().map(|e| (id.0, &*e.rule, &*e.run_key, e.run, e.at.as_ms(), u8::from(e.held_out), &*e.by)));
        for event in own_events {
            self.own_events.push(event_row(tx.memory.event_seq()?, id, event, Waits::No)?);
        }
        self.entries.extend(entries.iter().map(|entry| entry_columns(id, *rules_version, entry)));
        Ok(())
    }

    async fn write(self, states: &[u8], tx: &mut Tx<'_>) -> Result<(), StoreError> {
        query(&COMMIT)
            .bind(json(&self.profiles)?)
            .bind(states)
            .bind(json(&self.ended)?)
            .bind(json(&self.messages)?)
            .bind(json(&self.cancelled)?)
            .bind(json(&self.postings)?)
            .bind(json(&self.allocations)?)
            .bind(json(&self.exposures)?)
            .bind(json(&self.own_events)?)
            .bind(json(&self.entries)?)
            .execute(&mut tx.session)
            .await?;
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------------------- give back, aside

pub(super) struct Release {
    pub claims: Vec<Claim>,
    pub counts: bool,
}

/// $1: (profile, epoch). The claim did not count.
pub(super) const RELEASE: Sql = Sql {
    sqlite: "update claims set worker = null, claims = claims - 1
    where (profile_id, epoch) in (select value ->> 0, value ->> 1 from json_each($1)) and worker is not null",
    postgres: "update claims set worker = null, claims = claims - 1
        from (select (value ->> 0)::bigint as id, (value ->> 1)::bigint as epoch from jsonb_array_elements($1::jsonb) as value) j
        where claims.bucket = bucket(j.id) and claims.profile_id = j.id and claims.epoch = j.epoch and claims.worker is not null",
};

/// The same, and it did.
pub(super) const RELEASE_COUNTED: Sql = Sql {
    sqlite: "update claims set worker = null
    where (profile_id, epoch) in (select value ->> 0, value ->> 1 from json_each($1)) and worker is not null",
    postgres: "update claims set worker = null
        from (select (value ->> 0)::bigint as id, (value ->> 1)::bigint as epoch from jsonb_array_elements($1::jsonb) as value) j
        where claims.bucket = bucket(j.id) and claims.profile_id = j.id and claims.epoch = j.epoch and claims.worker is not null",
};

#[async_trait]
impl Work for Release {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let claims: Vec<_> = self.claims.iter().map(|claim| (claim.profile.0, claim.epoch)).collect();
        let statement = if self.counts { &RELEASE_COUNTED } else { &RELEASE };
        query(statement).bind(json(&claims)?).execute(&mut tx.session).await?;
        Ok(())
    }
}

pub(super) struct Quarantine {
    pub at: Timestamp,
    pub profiles: Vec<(Claim, String)>,
}

/// $1: (profile, because); $2: now.
pub(super) const SET_ASIDE: Sql = Sql {
    sqlite: "
    update profiles set quarantined_at = $2, quarantined_because = j.because, due_at = null, version = version + 1
    from (select value ->> 0 as id, value ->> 1 as because from json_each($1)) j where profiles.id = j.id;
    delete from claims where profile_id in (select value ->> 0 from json_each($1))",
    postgres: "
        update profiles set quarantined_at = $2, quarantined_because = j.because, due_at = null, version = version + 1
        from (select (value ->> 0)::bigint as id, value ->> 1 as because from jsonb_array_elements($1::jsonb) as value) j
        where profiles.bucket = bucket(j.id) and profiles.id = j.id;
        delete from claims using (select (value ->> 0)::bigint as id from jsonb_array_elements($1::jsonb) as value) j
        where claims.bucket = bucket(j.id) and claims.profile_id = j.id",
};

#[async_trait]
impl Work for Quarantine {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let people: Vec<ProfileId> = self.profiles.iter().map(|(claim, _)| claim.profile).collect();
        tx.take(Needs { people: &people, ..Needs::default() }).await?;
        let guards = ask_guards(self.profiles.iter().map(|(claim, _)| claim), tx).await?;
        let epochs: HashMap<ProfileId, Option<i64>> = guards.into_iter().map(|(id, _, epoch, ..)| (ProfileId(id), epoch)).collect();
        // somebody else's claim by now: theirs to judge
        let ours = |claim: &Claim| epochs.get(&claim.profile) == Some(&Some(claim.epoch));
        let aside: Vec<_> =
            self.profiles.iter().filter(|(claim, _)| ours(claim)).map(|(claim, because)| (claim.profile.0, because)).collect();
        query(&SET_ASIDE).bind(json(&aside)?).bind(self.at.as_ms()).execute(&mut tx.session).await?;
        Ok(())
    }
}

pub(super) struct Reinstate {
    pub at: Timestamp,
    pub profiles: Vec<ProfileId>,
}

/// $1: ids; $2: the instant. The version moves, so that a look under way does not set a later due instant over this one.
pub(super) const REINSTATE: Sql = Sql {
    sqlite: "
    update profiles set quarantined_at = null, quarantined_because = null, due_at = min(coalesce(due_at, $2), $2), version = version + 1
    where id in (select value from json_each($1)) and merged_into is null;
    delete from claims where profile_id in (select value from json_each($1)) and worker is null",
    postgres: "
        update profiles set quarantined_at = null, quarantined_because = null, due_at = least(coalesce(due_at, $2), $2),
            version = version + 1
        from jsonb_array_elements_text($1::jsonb) as j(value)
        where profiles.bucket = bucket(j.value::bigint) and profiles.id = j.value::bigint and profiles.merged_into is null;
        delete from claims using jsonb_array_elements_text($1::jsonb) as j(value)
        where claims.bucket = bucket(j.value::bigint) and claims.profile_id = j.value::bigint and claims.worker is null",
};

#[async_trait]
impl Work for Reinstate {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.take(Needs { people: &self.profiles, ..Needs::default() }).await?;
        let ids: BTreeSet<i64> = self.profiles.iter().map(|id| id.0).collect();
        let ids: Vec<i64> = ids.into_iter().collect();
        query(&REINSTATE).bind(json(&ids)?).bind(self.at.as_ms()).execute(&mut tx.session).await?;
        Ok(())
    }
}
