//! How long what is kept: follows the schedule of the settings, an hour after hour, in small batches beside everything else. What of a
//! person may go says [`plan`]; nothing that a decision to come could ask for goes, which a property test holds.
//!
//! The walk begins at the oldest rows and ends where they are younger than the schedule asks, so its cost follows what is old and not the
//! number of people. Only people who are long gone are looked for among everybody, some at a time.

pub mod plan;

use std::collections::HashSet;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::engine::event::{Event, EventKind};
use crate::engine::time::{DAY_MS, Timestamp};
use crate::settings::RetentionSettings;
use crate::store::erasure::{Cause, Erasure};
use crate::store::retention::{Kept, Removal};
use crate::store::{History, ProfileId, Store, StoreError, StoredProfile};
use crate::telemetry::Telemetry;

/// How often the loop makes a pass.
const EVERY: Duration = Duration::from_secs(3_600);
/// Rows that are looked at together.
const ROWS: usize = 2_000;
/// People from whom something is removed in one commit.
const PEOPLE: usize = 50;
/// People looked at in one pass for whether they are long gone.
const PEOPLE_PER_PASS: usize = 20_000;
/// So many people are remembered as looked at in a walk, so that whoever has old rows that stay is not read again with each page.
const SEEN_MAX: usize = 100_000;
/// Rejects removed in one commit.
const REJECTS: usize = 1_000;
/// Between two commits of the loop, so that events and messages do not wait for it.
const BREATH: Duration = Duration::from_millis(50);
/// Who erases people that are long gone, and why, as the record has it.
const BY: &str = "retention";
const WHY: &str = "not heard of for longer than the retention schedule keeps people";

/// Something of each kind of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByKind<T> {
    pub events: T,
    pub messages: T,
    pub decisions: T,
    pub rejects: T,
    pub people: T,
}

/// What is older than these instants may go; none: that kind is kept.
pub type Cutoffs = ByKind<Option<Timestamp>>;

/// What a pass removed, or would remove; passes add up.
pub type Report = ByKind<u64>;

impl<T: Copy> ByKind<T> {
    pub fn of_kind(&self, kind: Kept) -> T {
        match kind {
            Kept::Events => self.events,
            Kept::Messages => self.messages,
            Kept::Decisions => self.decisions,
            Kept::Rejects => self.rejects,
            Kept::People => self.people,
        }
    }
}

impl Cutoffs {
    pub fn of(schedule: &RetentionSettings, now: Timestamp) -> Self {
        let before = |days: Option<u32>| days.map(|days| now.plus_ms(-i64::from(days) * DAY_MS));
        Cutoffs {
            events: before(schedule.events_days),
            messages: before(schedule.messages_days),
            decisions: before(schedule.decisions_days),
            rejects: before(schedule.rejects_days),
            people: before(schedule.people_days),
        }
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Report) {
        self.events += other.events;
        self.messages += other.messages;
        self.decisions += other.decisions;
        self.rejects += other.rejects;
        self.people += other.people;
    }
}

/// A pass, and where the next one goes on.
pub struct Walk<'a> {
    pub store: &'a dyn Store,
    pub cutoffs: Cutoffs,
    /// When the pass began: its name on record.
    pub at: Timestamp,
    /// Nothing is removed, only counted.
    pub is_dry: bool,
    /// Waited between two commits.
    pub breath: Duration,
}

/// Follows the schedule until told to shut down: a pass, then an hour of rest.
pub async fn run(
    store: Arc<dyn Store>,
    schedule: RetentionSettings,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut people_after = None;
    while !*shutdown.borrow() {
        let now = clock.now();
        let cutoffs = Cutoffs::of(&schedule, now);
        let walk = Walk { store: store.as_ref(), cutoffs, at: now, is_dry: false, breath: BREATH };
        let passed = tokio::select! {
            passed = walk.pass(&mut people_after, PEOPLE_PER_PASS) => passed,
            // a commit under way ends all the same: it is the store's by then
            _ = shutdown.changed() => return,
        };
        match passed {
            Ok(report) => {
                for kind in Kept::ALL {
                    telemetry.metrics.removed.get_or_create(&kind.name().into()).inc_by(report.of_kind(kind));
                }
                if report != Report::default() {
                    let Report { events, messages, decisions, rejects, people } = report;
                    tracing::info!(events, messages, decisions, rejects, people, "removed what the retention schedule does not keep");
                }
            }
            Err(error) => {
                telemetry.metrics.failures.get_or_create(&"retention".into()).inc();
                tracing::error!("the retention schedule was not followed to its end, trying again in an hour: {error}");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = shutdown.changed() => {}
        }
    }
}

impl Walk<'_> {
    /// One pass over everything that is old, and over the next `people_max` people after `people_after` (none: from the beginning).
    pub async fn pass(&self, people_after: &mut Option<ProfileId>, people_max: usize) -> Result<Report, StoreError> {
        let mut report = Report::default();
        for kind in [Kept::Events, Kept::Messages, Kept::Decisions] {
            report += self.rows(kind).await?;
        }
        report.rejects = self.rejects().await?;
        report.people = self.people(people_after, people_max).await?;
        Ok(report)
    }

    /// Walks over the old rows of one kind. Of whoever has some, only that kind goes: the others have walks of their own.
    async fn rows(&self, kind: Kept) -> Result<Report, StoreError> {
        let Some(before) = self.cutoffs.of_kind(kind) else { return Ok(Report::default()) };
        let only = |of: Kept| (of == kind).then_some(before);
        let (events, messages, decisions) = (only(Kept::Events), only(Kept::Messages), only(Kept::Decisions));
        let cutoffs = Cutoffs { events, messages, decisions, ..Cutoffs::default() };
        let (mut report, mut after, mut seen) = (Report::default(), 0, HashSet::new());
        loop {
            let oldest = self.store.oldest(kind, before, after, ROWS).await?;
            if seen.len() > SEEN_MAX {
                seen.clear();
            }
            let people: Vec<ProfileId> = oldest.people.into_iter().filter(|id| seen.insert(*id)).collect();
            for some in people.chunks(PEOPLE) {
                report += self.remove(some, &cutoffs).await?;
                self.breathe().await;
            }
            let Some(last) = oldest.last else { return Ok(report) };
            after = last;
        }
    }

    async fn remove(&self, people: &[ProfileId], cutoffs: &Cutoffs) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut removal = Removal {
            at: self.at,
            events_before: cutoffs.events,
            messages_before: cutoffs.messages,
            decisions_before: cutoffs.decisions,
            people: Vec::new(),
        };
        for id in people {
            let Some((stored, history)) = self.read(*id).await? else { continue };
            let Some(of) = plan::plan(&stored, &history, cutoffs) else { continue };
            if self.is_dry {
                report.events += cutoffs.events.filter(|_| of.events).map_or(0, |before| old_events(&history, before));
                report.messages += of.messages.len() as u64;
                report.decisions += of.decisions.len() as u64;
            }
            removal.people.push(of);
        }
        if self.is_dry || removal.people.is_empty() {
            return Ok(report);
        }
        let removed = self.store.remove(removal).await?;
        Ok(Report { events: removed.events, messages: removed.messages, decisions: removed.decisions, ..report })
    }

    /// A person with everything on record; none if their row cannot be read, which others tell of.
    async fn read(&self, id: ProfileId) -> Result<Option<(StoredProfile, History)>, StoreError> {
        let stored = match self.store.profile(id).await {
            Ok(Some(stored)) => stored,
            Ok(None) | Err(StoreError::Corrupt { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match self.store.history(id).await {
            Ok(history) => Ok(Some((stored, history))),
            Err(StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn rejects(&self) -> Result<u64, StoreError> {
        let Some(before) = self.cutoffs.rejects else { return Ok(0) };
        if self.is_dry {
            return self.old_rejects(before).await;
        }
        let mut removed = 0;
        loop {
            let some = self.store.remove_rejects(self.at, before, REJECTS).await?;
            removed += some;
            if some < REJECTS as u64 {
                return Ok(removed);
            }
            self.breathe().await;
        }
    }

    async fn old_rejects(&self, before: Timestamp) -> Result<u64, StoreError> {
        let (mut count, mut after) = (0, 0);
        loop {
            let page = self.store.rejects(after, REJECTS).await?;
            let Some(last) = page.last() else { return Ok(count) };
            after = last.seq;
            count += page.iter().filter(|row| row.last_at < before).count() as u64;
        }
    }

    /// Erases people who are long gone, as if they had asked for it; but they may come back.
    async fn people(&self, after: &mut Option<ProfileId>, most: usize) -> Result<u64, StoreError> {
        let Some(before) = self.cutoffs.people else { return Ok(0) };
        let (mut gone, mut looked_at) = (0, 0);
        while looked_at < most {
            let page = self.store.profiles(*after, PEOPLE).await?;
            *after = page.last;
            if page.last.is_none() {
                return Ok(gone);
            }
            looked_at += page.profiles.len() + page.unreadable.len();
            for stored in &page.profiles {
                if stored.profile.silent_since().is_none_or(|since| since >= before) {
                    continue;
                }
                let history = self.store.history(stored.id).await?;
                if !plan::is_long_gone(stored, &history, before) {
                    continue;
                }
                gone += 1;
                if !self.is_dry {
                    let erasure = Erasure { profile: stored.id, at: self.at, by: BY.to_owned(), why: WHY.to_owned() };
                    self.store.erase(erasure, Cause::LongGone { pass: self.at, older_than: before }).await?;
                }
            }
            self.breathe().await;
        }
        Ok(gone)
    }

    async fn breathe(&self) {
        if !self.breath.is_zero() {
            tokio::time::sleep(self.breath).await;
        }
    }
}

/// How many facts the store would remove.
fn old_events(history: &History, before: Timestamp) -> u64 {
    let may_go = |event: &Event| match event.kind {
        EventKind::Track => true,
        EventKind::Engine => !event.is_fact() && &*event.name != "profile_merged",
        EventKind::Identify | EventKind::Consent => false,
    };
    let events = history.events.iter().filter(|(event, absorbed)| *absorbed && event.received_at < before);
    events.filter(|(event, _)| may_go(event)).count() as u64
}
