//! The audit: state is a fold of facts, so it can be recomputed. A person's facts are absorbed anew, the ledger is added up, caps are counted
//! from the attempts, runs from the log, messages from their results, the next look from the state; whatever differs from what is
//! stored is a [`Finding`]. `rekindle doctor` does it for everybody at once; a daemon does it all the time, a few people a second
//! ([`run`]), and its figures say whether it lies.
//!
//! It changes nothing, not even what it finds wrong. What a rule decided it cannot recompute (that took the world of its instant;
//! `explain` shows it): it checks that every decision left the traces that belong together.
//!
//! Where the retention schedule has removed rows of a person, the comparison begins where the rows that are left begin. What was said of
//! somebody or agreed to, the ledger and what is under way are never removed, and compared in full.

mod messages;
mod person;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::person::Person;
use crate::clock::Clock;
use crate::engine::decide::{Context, World};
use crate::engine::profile::Name;
use crate::engine::time::{MINUTE_MS, Timestamp};
use crate::store::{History, ProfileId, Store, StoreError, StoredProfile};
use crate::telemetry::Telemetry;
use crate::versions::RuleVersions;

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So often a person who changes under our eyes is read again; then they are left for the next round.
const TRIES: usize = 3;
/// For so long after rules, pauses or holds changed, the next look of everybody is still being moved up.
const SETTLES_MS: i64 = 15 * MINUTE_MS;

/// Something that is not as the facts say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The person's key; empty for what concerns everybody.
    pub user: Name,
    /// What was compared: one of [`COMPARED`]; `sums`, `rules`, `evidence`; `row`: it cannot be read at all.
    pub what: &'static str,
    pub detail: String,
}

/// What is compared of every person.
pub const COMPARED: [&str; 9] = ["facts", "identities", "consents", "ledger", "caps", "runs", "exposures", "messages", "due"];

/// Everything about one person that is not as the facts on record say. Both must have been read of one and the same row.
pub fn examine(ctx: &Context<'_>, stored: &StoredProfile, history: &History) -> Vec<Finding> {
    Person { ctx, stored, history, found: Vec::new() }.examine()
}

/// What the audit works with.
pub struct Auditor {
    pub store: Arc<dyn Store>,
    pub rules: Arc<RuleVersions>,
    pub clock: Arc<dyn Clock>,
}

/// What one pass saw.
#[derive(Debug, Default)]
pub struct Pass {
    pub people: u64,
    pub findings: Vec<(ProfileId, Finding)>,
    /// Where the next pass begins; none: everybody has been looked at, it begins anew.
    pub last: Option<ProfileId>,
}

/// Walks over everybody again and again, `people_per_second` at a time, until told to shut down.
pub async fn run(auditor: &Auditor, people_per_second: usize, telemetry: &Telemetry, mut shutdown: watch::Receiver<bool>) {
    let metrics = &telemetry.metrics;
    for what in COMPARED.into_iter().chain(["row"]) {
        // a figure that may be watched for growing must be there from the beginning
        metrics.audit_findings.get_or_create(&what.into()).inc_by(0);
    }
    let mut place = None;
    while people_per_second > 0 && !*shutdown.borrow() {
        match run_once(auditor, place, people_per_second).await {
            Ok(pass) => {
                place = pass.last;
                metrics.audited.inc_by(pass.people);
                for (profile, Finding { what, detail, .. }) in pass.findings {
                    metrics.audit_findings.get_or_create(&what.into()).inc();
                    tracing::error!(profile.id = profile.0, audit.what = what, "not as the facts say: {detail}");
                }
            }
            Err(error) => {
                metrics.failures.get_or_create(&"audit".into()).inc();
                tracing::warn!("the audit cannot read: {error}");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Looks at the next people after `after`, at most `limit`.
pub async fn run_once(auditor: &Auditor, after: Option<ProfileId>, limit: usize) -> Result<Pass, StoreError> {
    let page = auditor.store.profiles(after, limit).await?;
    let mut pass = Pass { people: (page.profiles.len() + page.unreadable.len()) as u64, last: page.last, ..Pass::default() };
    for (id, user, error) in page.unreadable {
        pass.findings.push((id, Finding { user, what: "row", detail: error.to_string() }));
    }
    for stored in page.profiles {
        let id = stored.id;
        pass.findings.extend(auditor.look(stored).await?.into_iter().map(|finding| (id, finding)));
    }
    Ok(pass)
}

impl Auditor {
    /// One person, beside whoever is at work: what was read before and after a change is not held against each other.
    async fn look(&self, mut stored: StoredProfile) -> Result<Vec<Finding>, StoreError> {
        for _ in 0..TRIES {
            // the facts of one that was merged are another's by now, those of one that was set aside or erased wait or are gone
            if stored.merged_into.is_some() || stored.quarantined.is_some() {
                break;
            }
            let history = self.store.history(stored.id).await?;
            let Some(now) = self.store.profile(stored.id).await? else { break };
            if is_same(&stored, &now) {
                return self.compare(&stored, &history).await;
            }
            stored = now;
        }
        Ok(Vec::new())
    }

    async fn compare(&self, stored: &StoredProfile, history: &History) -> Result<Vec<Finding>, StoreError> {
        let now = self.clock.now();
        let snapshot = self.rules.snapshot_for(self.store.as_ref(), std::iter::once(&stored.profile)).await?;
        let world = self.store.world(snapshot.rules.policy.month_start(now)).await?.world;
        let ctx = Context { rules: &snapshot.rules, older: &snapshot.older, world: &world };
        let mut findings = examine(&ctx, stored, history);
        if findings.iter().any(|finding| finding.what == "due") && !self.is_settled(&world, now).await? {
            findings.retain(|finding| finding.what != "due");
        }
        Ok(findings)
    }

    /// Whether nothing changed lately because of which everybody is being looked at.
    async fn is_settled(&self, world: &World, now: Timestamp) -> Result<bool, StoreError> {
        let published = self.store.publications(1).await?.first().map(|row| row.at);
        let operated = self.store.operations(1).await?.first().map(|operation| operation.at);
        let blind = world.quiet.iter().chain(&world.downtime).flat_map(|(from, until)| [*from, *until]);
        let changes = published.into_iter().chain(operated).chain(blind);
        Ok(changes.filter(|at| *at <= now).all(|at| now.ms_since(at) > SETTLES_MS))
    }
}

fn is_same(one: &StoredProfile, other: &StoredProfile) -> bool {
    one.version == other.version && one.due_at == other.due_at && one.waiting.len() == other.waiting.len()
}
