//! What is known beyond one person: pauses and holds, heartbeats, the sources' hours, budgets, the brake's counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::rows::Fields;
use super::{Session, Sql, Tx, Work, query};
use crate::engine::decide::{Pause, RuleState, World};
use crate::engine::profile::Name;
use crate::engine::time::{MINUTE_MS, Timestamp};
use crate::store::{HEARTBEAT_GAP_MS, Operation, PauseScope, SourceHour, StoreError};

// ---------------------------------------------------------------------------------------------------------------- view

/// The world as last read, with the version it had and the month its budgets are of: asked again only when something in it changed.
#[derive(Default)]
pub(in crate::store) struct WorldCache(Mutex<Option<(i64, Timestamp, Arc<World>)>>);

impl WorldCache {
    pub fn get(&self, version: i64, month_start: Timestamp, profiles: u64) -> Option<Arc<World>> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, _, world) = cache.as_mut().filter(|(v, month, _)| *v == version && *month == month_start)?;
        if world.profiles != profiles {
            // copied once for everybody who asks after this
            *world = Arc::new(World { profiles, ..World::clone(world) });
        }
        Some(Arc::clone(world))
    }

    pub fn put(&self, version: i64, month_start: Timestamp, world: World) -> Arc<World> {
        let world = Arc::new(world);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, month_start, Arc::clone(&world)));
        world
    }
}

pub(super) const WORLD_RULES: Sql = Sql::same(
    "select r.rule, r.first_live_at, r.when_live_at, r.when_hash, r.held_at, r.held_because, p.paused_at, p.because
    from rule_states r left join pauses p on p.scope = 'rule' and p.name = r.rule",
);
pub(super) const WORLD_PAUSES: Sql = Sql::same("select scope, name, paused_at, because from pauses where scope <> 'rule'");
pub(super) const WORLD_DOWNTIMES: Sql = Sql::same("select from_at, until_at from downtimes order by from_at");
pub(super) const WORLD_QUIET: Sql = Sql::same("select from_at, until_at from quiet_spans order by from_at");
pub(super) const WORLD_BUDGETS: Sql = Sql {
    sqlite: "select coupon, sum(used_minor) from budget_uses where quarter >= $1 group by coupon",
    postgres: "select coupon, sum(used_minor)::bigint from budget_uses where quarter >= $1 group by coupon",
};

pub(in crate::store) async fn read(session: &mut Session<'_>, month_start: Timestamp, profiles: u64) -> Result<World, StoreError> {
    let mut world = World { profiles, ..World::default() };
    for row in query(&WORLD_RULES).fetch_all(session).await? {
        let mut fields = Fields::of("rule_states", &row);
        let rule = fields.name("rule")?;
        let state = RuleState {
            first_live_at: fields.instant("first_live_at")?,
            when_live_at: fields.instant("when_live_at")?,
            when_hash: fields.count("when_hash")?,
            held: optional_pause(&mut fields)?,
            paused: optional_pause(&mut fields)?,
        };
        world.rules.insert(rule, state);
    }
    for row in query(&WORLD_PAUSES).fetch_all(session).await? {
        let mut fields = Fields::of("pauses", &row);
        let (scope, name): (String, Name) = (fields.next("scope")?, fields.name("name")?);
        let pause = Pause { at: fields.instant("paused_at")?, reason: fields.name("because")? };
        match scope.as_str() {
            "channel" => drop(world.paused_channels.insert(name, pause)),
            "tag" => drop(world.paused_tags.insert(name, pause)),
            _ => world.paused = Some(pause),
        }
    }
    for row in query(&WORLD_DOWNTIMES).fetch_all(session).await? {
        let mut fields = Fields::of("downtimes", &row);
        world.downtime.push((fields.instant("from_at")?, fields.instant("until_at")?));
    }
    for row in query(&WORLD_QUIET).fetch_all(session).await? {
        let mut fields = Fields::of("quiet_spans", &row);
        world.quiet.push((fields.instant("from_at")?, fields.due("until_at")?));
    }
    for row in query(&WORLD_BUDGETS).bind(month_start.as_ms()).fetch_all(session).await? {
        let mut fields = Fields::of("budget_uses", &row);
        world.budgets.insert(fields.name("coupon")?, fields.next("used_minor")?);
    }
    Ok(world)
}

fn optional_pause(fields: &mut Fields<'_>) -> Result<Option<Pause>, StoreError> {
    let (at, because) = (fields.optional_instant("at")?, fields.next::<Option<String>>("because")?);
    Ok(at.map(|at| Pause { at, reason: Arc::from(because.unwrap_or_default()) }))
}

// ---------------------------------------------------------------------------------------------------- pauses and holds

pub(super) struct SetPause {
    pub at: Timestamp,
    pub scope: PauseScope,
    pub pause: Option<Pause>,
    pub by: String,
}

pub(super) const PAUSE: Sql = Sql::same(
    "insert into pauses (scope, name, paused_at, because, paused_by) values ($1, $2, $3, $4, $5)
    on conflict (scope, name) do update set paused_at = excluded.paused_at, because = excluded.because, paused_by = excluded.paused_by",
);
pub(super) const RESUME: Sql = Sql::same("delete from pauses where scope = $1 and name = $2");
pub(super) const NOTE: Sql = Sql::same("insert into rule_history (rule, happened_at, what, done_by, why) values ($1, $2, $3, $4, $5)");

#[async_trait]
impl Work for SetPause {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let (scope, name) = self.scope.parts();
        let (what, why) = match &self.pause {
            Some(pause) => ("paused", &*pause.reason),
            None => ("resumed", ""),
        };
        match &self.pause {
            Some(pause) => {
                let insert = query(&PAUSE).bind(scope).bind(name).bind(pause.at.as_ms()).bind(&*pause.reason).bind(&*self.by);
                insert.execute(&mut tx.session).await?
            }
            None => query(&RESUME).bind(scope).bind(name).execute(&mut tx.session).await?,
        };
        match self.scope {
            PauseScope::Rule(_) => note(tx, name, self.at, what, &self.by, why).await?,
            // of no rule: the history says what it was about itself
            _ => note(tx, "", self.at, &format!("{what} {}", self.scope), &self.by, why).await?,
        }
        tx.memory.forbid();
        Ok(())
    }
}

async fn note(tx: &mut Tx<'_>, rule: &str, at: Timestamp, what: &str, by: &str, why: &str) -> Result<(), StoreError> {
    let insert = query(&NOTE).bind(rule).bind(at.as_ms()).bind(what).bind(by).bind(why);
    insert.execute(&mut tx.session).await?;
    Ok(())
}

pub(super) const OPERATIONS: Sql = Sql::same("select rule, happened_at, what, done_by, why from rule_history order by seq desc limit $1");

pub(super) async fn operations(session: &mut Session<'_>, limit: usize) -> Result<Vec<Operation>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut operations = Vec::new();
    for row in query(&OPERATIONS).bind(limit).fetch_all(session).await? {
        let mut fields = Fields::of("rule_history", &row);
        let rule: String = fields.next("rule")?;
        let (at, what): (Timestamp, String) = (fields.instant("happened_at")?, fields.next("what")?);
        let (by, why) = (fields.next("done_by")?, fields.next("why")?);
        // what is of no rule names what it is about after the first word
        let (what, about) = match what.split_once(' ') {
            Some((what, about)) if rule.is_empty() => (what.to_owned(), about.to_owned()),
            _ => (what, format!("rule {rule}")),
        };
        operations.push(Operation { at, what, about, by, why });
    }
    Ok(operations)
}

pub(super) struct SetHold {
    pub at: Timestamp,
    pub rule: String,
    pub hold: Option<Pause>,
    pub by: String,
}

pub(super) const HOLD: Sql = Sql::same("update rule_states set held_at = $2, held_because = $3, held_by = $4 where rule = $1");

#[async_trait]
impl Work for SetHold {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let (at, because) = self.hold.as_ref().map(|hold| (hold.at.as_ms(), &*hold.reason)).unzip();
        let by = self.hold.as_ref().map(|_| &*self.by);
        let update = query(&HOLD).bind(&*self.rule).bind(at).bind(because).bind(by);
        if update.execute(&mut tx.session).await? == 0 {
            return Err(StoreError::Conflict(format!("rule `{}` never went live here: it", self.rule)));
        }
        let what = if self.hold.is_some() { "held" } else { "released" };
        note(tx, &self.rule, self.at, what, &self.by, because.unwrap_or_default()).await?;
        tx.memory.forbid();
        Ok(())
    }
}

/// From rule to rule by the index, and in each only the minutes asked for: the table has a year's.
pub(super) const ENTRIES_SINCE: Sql = Sql {
    sqlite: "
    with recursive entered(rule) as (
        select min(rule) from rule_entries
        union all
        select (select min(rule) from rule_entries where rule > entered.rule) from entered where entered.rule is not null)
    select entered.rule, sum(e.entries) from entered join rule_entries e on e.rule = entered.rule and e.minute >= $1
    group by entered.rule",
    postgres: "
        with recursive entered(rule) as (
            select min(rule) from rule_entries
            union all
            select (select min(rule) from rule_entries where rule > entered.rule) from entered where entered.rule is not null)
        select entered.rule, sum(e.entries)::bigint from entered join rule_entries e on e.rule = entered.rule and e.minute >= $1
        group by entered.rule",
};

pub(super) async fn entries_since(session: &mut Session<'_>, since: Timestamp) -> Result<BTreeMap<Name, u64>, StoreError> {
    let minute = since.as_ms().div_euclid(MINUTE_MS) * MINUTE_MS;
    let mut entries = BTreeMap::new();
    for row in query(&ENTRIES_SINCE).bind(minute).fetch_all(session).await? {
        let mut fields = Fields::of("rule_entries", &row);
        entries.insert(fields.name("rule")?, fields.count("entries")?);
    }
    Ok(entries)
}

// ------------------------------------------------------------------------------------------------- heartbeats, sources

pub(super) struct Heartbeat {
    pub worker: String,
    pub since: Timestamp,
    pub now: Timestamp,
}

pub(super) const LATEST_HEARTBEAT: Sql = Sql::same("select max(beaten_at) from heartbeats");
pub(super) const DOWNTIME: Sql = Sql {
    sqlite: "insert into downtimes (from_at, until_at) values ($1, $2)
    on conflict (from_at) do update set until_at = max(until_at, excluded.until_at)",
    postgres: "insert into downtimes (from_at, until_at) values ($1, $2)
        on conflict (from_at) do update set until_at = greatest(downtimes.until_at, excluded.until_at)",
};
pub(super) const BEAT: Sql = Sql {
    sqlite: "insert into heartbeats (worker, beaten_at) values ($1, $2)
    on conflict (worker) do update set beaten_at = max(beaten_at, excluded.beaten_at)",
    postgres: "insert into heartbeats (worker, beaten_at) values ($1, $2)
        on conflict (worker) do update set beaten_at = greatest(heartbeats.beaten_at, excluded.beaten_at)",
};

pub(super) async fn latest_heartbeat(session: &mut Session<'_>) -> Result<Option<Timestamp>, StoreError> {
    let row = query(&LATEST_HEARTBEAT).fetch_one(session).await?;
    Fields::of("heartbeats", &row).optional_instant("beaten_at")
}

#[async_trait]
impl Work for Heartbeat {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let row = query(&LATEST_HEARTBEAT).fetch_one(&mut tx.session).await?;
        let latest = Fields::of("heartbeats", &row).optional_instant("beaten_at")?;
        if let Some(latest) = latest.filter(|latest| self.since.ms_since(*latest) > HEARTBEAT_GAP_MS) {
            query(&DOWNTIME).bind(latest.as_ms()).bind(self.since.as_ms()).execute(&mut tx.session).await?;
            tx.memory.change_world();
        }
        query(&BEAT).bind(&*self.worker).bind(self.now.as_ms()).execute(&mut tx.session).await?;
        Ok(())
    }
}

pub(super) struct RecordQuiet {
    pub from: Timestamp,
    pub until: Timestamp,
}

pub(super) const QUIET: Sql = Sql::same(
    "insert into quiet_spans (from_at, until_at) values ($1, $2)
    on conflict (from_at) do update set until_at = excluded.until_at",
);

#[async_trait]
impl Work for RecordQuiet {
    type Done = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        query(&QUIET).bind(self.from.as_ms()).bind(super::rows::due(self.until)).execute(&mut tx.session).await?;
        // what rests on absence is held from now on: no intent decided before may pass
        tx.memory.forbid();
        Ok(())
    }
}

pub(super) const SOURCE_HOURS: Sql = Sql {
    sqlite: "select source, hour, events from source_hours where hour >= $1 order by source, hour",
    postgres: "select source, hour, sum(events)::bigint from source_hours where hour >= $1 group by source, hour order by source, hour",
};

pub(super) async fn source_hours(session: &mut Session<'_>, since: Timestamp) -> Result<Vec<SourceHour>, StoreError> {
    let mut hours = Vec::new();
    for row in query(&SOURCE_HOURS).bind(since.as_ms()).fetch_all(session).await? {
        let mut fields = Fields::of("source_hours", &row);
        hours.push(SourceHour { source: fields.name("source")?, hour: fields.instant("hour")?, events: fields.count("events")? });
    }
    Ok(hours)
}
