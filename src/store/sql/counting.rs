//! What decisions count towards beyond their person: entries of a rule, a coupon's budget. Both have limits, and whoever decides has looked
//! at them; but others decide at the same time. So a commit counts again, in its own transaction, while nobody else counts the same:
//! what has no room is not written and is decided again, by who then sees what the others took.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::{Fields, json};
use super::{Needs, Sql, Tx, query};
use crate::engine::decide::Decision;
use crate::engine::time::{MINUTE_MS, Timestamp};
use crate::store::{DecisionCommit, ENTRIES_WITHIN_MS, Limits, StoreError};

/// Budgets are counted in quarters of an hour: every zone's month begins at one.
pub(super) const QUARTER_MS: i64 = 15 * MINUTE_MS;

/// $1 rows of rule, from which minute, up to which: entries by minute.
pub(super) const ENTRIES_BY_MINUTE: Sql = Sql {
    sqlite: "select json_group_array(json_array(e.rule, e.minute, e.entries)) from json_each($1) j
    join rule_entries e on e.rule = j.value ->> 0 and e.minute between j.value ->> 1 and j.value ->> 2",
    postgres: "select coalesce(json_agg(json_build_array(e.rule, e.minute, e.entries)), '[]')::text
        from jsonb_array_elements($1::jsonb) as j(value)
        join rule_entries e on e.rule = j.value ->> 0 and e.minute between (j.value ->> 1)::bigint and (j.value ->> 2)::bigint",
};
/// $1 coupons, $2 since when: what was reserved.
pub(super) const BUDGETS_SINCE: Sql = Sql {
    sqlite: "select json_group_array(json_array(b.coupon, b.used_minor)) from json_each($1) j
    join budget_uses b on b.coupon = j.value and b.quarter >= $2",
    postgres: "select coalesce(json_agg(json_build_array(b.coupon, b.used_minor)), '[]')::text
        from jsonb_array_elements_text($1::jsonb) as j(value) join budget_uses b on b.coupon = j.value and b.quarter >= $2",
};
/// $1 rows of rule, minute, entries; $2 rows of coupon, quarter, used.
pub(super) const COUNT: Sql = Sql {
    sqlite: "
    insert into rule_entries (rule, minute, entries)
    select value ->> 0, value ->> 1, value ->> 2 from json_each($1) where true
    on conflict (rule, minute) do update set entries = entries + excluded.entries;
    insert into budget_uses (coupon, quarter, used_minor)
    select value ->> 0, value ->> 1, value ->> 2 from json_each($2) where true
    on conflict (coupon, quarter) do update set used_minor = used_minor + excluded.used_minor",
    postgres: "
        insert into rule_entries (rule, minute, slot, entries)
        select value ->> 0, (value ->> 1)::bigint, pg_backend_pid() & 15, (value ->> 2)::bigint
        from jsonb_array_elements($1::jsonb) as value order by 1, 2
        on conflict (rule, minute, slot) do update set entries = rule_entries.entries + excluded.entries;
        insert into budget_uses (coupon, quarter, slot, used_minor)
        select value ->> 0, (value ->> 1)::bigint, pg_backend_pid() & 15, (value ->> 2)::bigint
        from jsonb_array_elements($2::jsonb) as value order by 1, 2
        on conflict (coupon, quarter, slot) do update set used_minor = budget_uses.used_minor + excluded.used_minor",
};

/// What a batch counts, and what is on record of the same.
pub(super) struct Counting<'c> {
    batch: &'c [DecisionCommit],
    limits: Limits,
    /// By rule and minute, by coupon: on record; nothing before it was asked.
    stored_entries: BTreeMap<(String, i64), u64>,
    stored_budgets: BTreeMap<String, i64>,
    /// The same of this batch, as far as it is written; budgets by quarter.
    entries: BTreeMap<(&'c str, i64), u64>,
    budgets: BTreeMap<(&'c str, i64), i64>,
}

fn minute(at: Timestamp) -> i64 {
    at.as_ms().div_euclid(MINUTE_MS) * MINUTE_MS
}

impl<'c> Counting<'c> {
    pub fn of(batch: &'c [DecisionCommit]) -> Self {
        let mut limits = Limits::default();
        for commit in batch {
            limits.entries.extend(commit.limits.entries.iter().map(|(rule, limit)| (rule.clone(), *limit)));
            limits.budgets.extend(commit.limits.budgets.iter().map(|(coupon, limit)| (coupon.clone(), *limit)));
            limits.month_start = limits.month_start.max(commit.limits.month_start);
            limits.is_replay |= commit.limits.is_replay;
        }
        let (entries, budgets) = (BTreeMap::new(), BTreeMap::new());
        Counting { batch, limits, stored_entries: BTreeMap::new(), stored_budgets: BTreeMap::new(), entries, budgets }
    }

    /// Reads what is on record. From here on nobody else counts the same until the end of the transaction.
    pub async fn ask(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let mut minutes: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        let mut coupons: BTreeSet<&str> = BTreeSet::new();
        for decision in self.batch.iter().map(|commit| &commit.decision) {
            for (rule, at) in decision.entered.iter().filter(|(rule, _)| self.limits.entries.contains_key(rule)) {
                let (from, upto) = (minute(at.plus_ms(-ENTRIES_WITHIN_MS)), self.upto(*at));
                let span = minutes.entry(rule).or_insert((from, upto));
                *span = (from.min(span.0), upto.max(span.1));
            }
            let limited = decision.budget_used.iter().filter(|(coupon, ..)| self.limits.budgets.contains_key(coupon));
            coupons.extend(limited.map(|(coupon, ..)| &**coupon));
        }
        let counted: Vec<(&'static str, &str)> =
            minutes.keys().map(|rule| ("rule", *rule)).chain(coupons.iter().map(|coupon| ("coupon", *coupon))).collect();
        if counted.is_empty() {
            return Ok(());
        }
        tx.take(Needs { counted: &counted, ..Needs::default() }).await?;
        if !minutes.is_empty() {
            let asked: Vec<(&str, i64, i64)> = minutes.into_iter().map(|(rule, (from, upto))| (rule, from, upto)).collect();
            let answer = query(&ENTRIES_BY_MINUTE).bind(json(&asked)?).fetch_one(&mut tx.session).await?;
            for (rule, minute, entries) in Fields::all::<(String, i64, u64)>("rule_entries", &answer)? {
                *self.stored_entries.entry((rule, minute)).or_default() += entries;
            }
        }
        if !coupons.is_empty() {
            let asked: Vec<&str> = coupons.into_iter().collect();
            let answer = query(&BUDGETS_SINCE).bind(json(&asked)?).bind(self.limits.month_start.as_ms()).fetch_one(&mut tx.session).await?;
            for (coupon, used) in Fields::all::<(String, i64)>("budget_uses", &answer)? {
                *self.stored_budgets.entry(coupon).or_default() += used;
            }
        }
        Ok(())
    }

    /// Whether this decision exceeds no limit beside what is on record and what was added before it.
    pub fn has_room_for(&self, decision: &Decision) -> bool {
        decision.entered.iter().all(|(rule, at)| {
            let Some(limit) = self.limits.entries.get(rule) else { return true };
            let own = decision.entered.iter().filter(|(other, _)| other == rule).count() as u64;
            self.entries_within(rule, *at) + own <= *limit
        }) && decision.budget_used.iter().all(|(coupon, ..)| {
            let Some(limit) = self.limits.budgets.get(coupon) else { return true };
            let own: i64 = decision.budget_used.iter().filter(|(other, ..)| other == coupon).map(|(.., minor)| minor).sum();
            // what goes back needs no room
            own <= 0 || self.used(coupon).saturating_add(own) <= *limit
        })
    }

    pub fn add(&mut self, decision: &'c Decision) {
        for (rule, at) in &decision.entered {
            *self.entries.entry((rule, minute(*at))).or_default() += 1;
        }
        for (coupon, at, minor) in &decision.budget_used {
            *self.budgets.entry((coupon, at.as_ms().div_euclid(QUARTER_MS) * QUARTER_MS)).or_default() += minor;
        }
    }

    /// Whether what was added exceeds a limit now that it is known what is on record.
    pub fn is_exceeded(&self) -> bool {
        let entered = self.batch.iter().flat_map(|commit| &commit.decision.entered);
        let mut entered = entered.filter(|(rule, at)| self.entries.contains_key(&(&**rule, minute(*at))));
        let too_many = entered.any(|(rule, at)| self.limits.entries.get(rule).is_some_and(|limit| self.entries_within(rule, *at) > *limit));
        let spent = |(coupon, limit): (&crate::engine::profile::Name, &i64)| {
            let own: i64 = self.budgets.iter().filter(|((other, _), _)| **other == **coupon).map(|(_, minor)| minor).sum();
            own > 0 && self.used(coupon) > *limit
        };
        too_many || self.limits.budgets.iter().any(spent)
    }

    /// The last minute that counts beside an entry at `at`: whoever decides now may be overtaken by who decided later.
    fn upto(&self, at: Timestamp) -> i64 {
        if self.limits.is_replay { minute(at) } else { Timestamp::FOREVER.as_ms() }
    }

    /// In the hour up to `at`, of this batch too.
    fn entries_within(&self, rule: &str, at: Timestamp) -> u64 {
        let (from, upto) = (minute(at.plus_ms(-ENTRIES_WITHIN_MS)), self.upto(at));
        let stored = self.stored_entries.range((rule.to_owned(), from)..=(rule.to_owned(), upto)).map(|(_, entries)| entries);
        stored.chain(self.entries.range((rule, from)..=(rule, upto)).map(|(_, entries)| entries)).sum()
    }

    /// Of a budget, of this batch too.
    fn used(&self, coupon: &str) -> i64 {
        let own = self.budgets.range((coupon, i64::MIN)..=(coupon, i64::MAX)).map(|(_, minor)| minor);
        self.stored_budgets.get(coupon).into_iter().chain(own).sum()
    }

    pub async fn write(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if self.entries.is_empty() && self.budgets.is_empty() {
            return Ok(());
        }
        if !self.budgets.is_empty() {
            tx.memory.change_world();
        }
        let entries: Vec<_> = self.entries.into_iter().map(|((rule, minute), entries)| (rule, minute, entries)).collect();
        let budgets: Vec<_> = self.budgets.into_iter().map(|((coupon, quarter), minor)| (coupon, quarter, minor)).collect();
        query(&COUNT).bind(json(&entries)?).bind(json(&budgets)?).execute(&mut tx.session).await?;
        Ok(())
    }
}
