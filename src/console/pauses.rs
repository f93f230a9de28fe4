//! The red button: pausing takes effect at the send-intent, at once. Before anything goes on again, [`survey`] shows what would happen: it asks the
//! same gates and the same `decide` that will be asked then, of a world in which the pause is lifted.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::action::{MessageId, What};
use crate::engine::decide::{Context, Decision, Pause, World, decide};
use crate::engine::gate::{Intent, at_intent};
use crate::engine::profile::Profile;
use crate::engine::rule::Trigger;
use crate::engine::time::{MINUTE_MS, Timestamp};
use crate::store::{MessageRow, PauseScope, ProfileId, Store, StoreError, StoredProfile};
use crate::versions::{RuleVersions, Snapshot};

/// Rows read at once while walking over what waits.
const PAGE: usize = 500;
/// Where everybody has to be looked at once, this is spread over so long.
pub const EVERYBODY_SPREAD_MS: i64 = 10 * MINUTE_MS;
/// The gate whose holds these are; holds of queued messages begin with it too.
const GATE: &str = "paused";

/// What waits behind a pause, and what would become of it if it were lifted now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Queued messages that the pause concerns.
    pub queued: u64,
    /// ... whose time has come or would have come: they wait for the pause only.
    pub overdue: u64,
    /// Overdue and still within their deadline: they would go out now, late.
    pub late: u64,
    /// Overdue and past their deadline: they would end as expired.
    pub expired: u64,
    /// Overdue, and something else would still hold or stop them (quiet hours, a cap, consent withdrawn meanwhile).
    pub otherwise: u64,
    /// People with steps or entries that wait for the pause.
    pub people: u64,
    /// Runs that would begin at once for them.
    pub would_enter: u64,
    /// Messages that would be decided for them at once.
    pub would_queue: u64,
    /// Steps of theirs that would end unsent, too late.
    pub would_drop: u64,
    /// Who and what is to be looked at when it is lifted.
    #[serde(skip)]
    pub waiting: Waiting,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub messages: Vec<MessageId>,
    pub people: Vec<ProfileId>,
}

/// Looks at everything that waits behind a pause, as if it were lifted at `now`.
pub async fn survey(store: &dyn Store, rules: &RuleVersions, scope: &PauseScope, now: Timestamp) -> Result<Survey, StoreError> {
    let snapshot = rules.snapshot();
    let world = without(&store.world(snapshot.rules.policy.month_start(now)).await?.world, scope);
    let mut survey = Survey::default();
    let mut queued = messages(store, &snapshot, scope).await?;
    let mut after = None;
    loop {
        let page = store.profiles(after, PAGE).await?;
        let full = rules.snapshot_for(store, page.profiles.iter().map(|stored| &stored.profile)).await?;
        let ctx = Context { rules: &full.rules, older: &full.older, world: &world };
        for stored in page.profiles.into_iter().filter(|stored| stored.quarantined.is_none()) {
            for row in queued.remove(&stored.id).unwrap_or_default() {
                survey.count_message(&ctx, &stored.profile, row, now);
            }
            if waits(&snapshot, &stored.profile, scope) {
                survey.count_person(&ctx, stored, now);
            }
        }
        let Some(last) = page.last else { return Ok(survey) };
        after = Some(last);
    }
}

impl Survey {
    fn count_message(&mut self, ctx: &Context<'_>, profile: &Profile, row: MessageRow, now: Timestamp) {
        self.queued += 1;
        let held = row.because.as_deref().is_some_and(|because| because.starts_with(GATE));
        if !held && row.message.due_at > now {
            return;
        }
        self.overdue += 1;
        // a fault of a gate shows when the message is really asked: here it counts as held by something else
        match catch_unwind(AssertUnwindSafe(|| at_intent(ctx, profile, &row.message, now))) {
            Ok(Intent::Send { .. }) => self.late += 1,
            Ok(Intent::Expire { .. }) => self.expired += 1,
            Ok(_) | Err(_) => self.otherwise += 1,
        }
        self.waiting.messages.push(row.message.id);
    }

    fn count_person(&mut self, ctx: &Context<'_>, stored: StoredProfile, now: Timestamp) {
        self.people += 1;
        self.waiting.people.push(stored.id);
        let StoredProfile { profile, waiting, .. } = stored;
        let Ok(Decision { entered, messages, entries, .. }) = catch_unwind(AssertUnwindSafe(|| decide(ctx, profile, waiting, now))) else {
            return;
        };
        self.would_enter += entered.len() as u64;
        self.would_queue += messages.len() as u64;
        self.would_drop += entries.iter().filter(|entry| entry.what == What::Dropped).count() as u64;
    }

    /// As people read it, one line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} waiting in the outbox, {} of them overdue", plural(self.queued, "message"), self.overdue)];
        if self.overdue > 0 {
            lines.push(format!("  {} would go out at once, late", self.late));
            lines.push(format!("  {} would end as expired: their deadline has passed", self.expired));
            lines.push(format!("  {} would still be held or stopped by something else", self.otherwise));
        }
        if self.people > 0 {
            lines.push(format!("{} with steps that wait for it; looked at now:", plural(self.people, "profile")));
            lines.push(format!("  {} would begin", plural(self.would_enter, "run")));
            lines.push(format!("  {} would be queued", plural(self.would_queue, "message")));
            lines.push(format!("  {} would end unsent, too late", plural(self.would_drop, "step")));
        }
        lines
    }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Lifts a pause and makes everything that waited for it due.
pub async fn resume(
    store: &dyn Store,
    rules: &RuleVersions,
    scope: PauseScope,
    by: &str,
    waiting: Waiting,
    now: Timestamp,
) -> Result<(), StoreError> {
    let everybody = covers_a_calendar(&rules.snapshot(), &scope);
    store.set_pause(now, scope, None, by).await?;
    // a crash from here on leaves what waits to its own deadline: late, never lost, never doubled
    store.wake_messages(now, waiting.messages).await?;
    store.reinstate(now, waiting.people).await?;
    if everybody {
        store.make_all_due(now, EVERYBODY_SPREAD_MS).await?;
    }
    Ok(())
}

/// Queued messages that the pause concerns, by person.
async fn messages(store: &dyn Store, snapshot: &Snapshot, scope: &PauseScope) -> Result<BTreeMap<ProfileId, Vec<MessageRow>>, StoreError> {
    let mut by_person: BTreeMap<ProfileId, Vec<MessageRow>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = store.open_messages(after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(by_person) };
        after = *last;
        for (_, row) in page {
            let rule = snapshot.rules.rule(&row.message.rule);
            // a rule that is gone has nothing but its id to be meant by
            let meant = match (rule, scope) {
                (Some(rule), scope) => scope.covers(rule, Some(row.message.channel)),
                (None, PauseScope::Rule(id)) => row.message.rule == *id,
                (None, PauseScope::Channel(channel)) => row.message.channel == *channel,
                (None, PauseScope::Tag(_)) => false,
                (None, PauseScope::All) => true,
            };
            if meant {
                by_person.entry(row.profile).or_default().push(row);
            }
        }
    }
}

/// Whether the person has a step or an entry that waits for a pause of this scope.
fn waits(snapshot: &Snapshot, profile: &Profile, scope: &PauseScope) -> bool {
    let held = profile.holds.iter().filter(|hold| &*hold.gate == GATE).map(|hold| &hold.rule);
    let kept = profile.waiting.iter().map(|entry| &entry.rule);
    held.chain(kept).any(|rule| snapshot.rules.rule(rule).is_none_or(|rule| scope.covers(rule, None)))
}

/// Whether a rule of the calendar is concerned: while it is paused it makes nobody due, so everybody is looked at when it goes on.
fn covers_a_calendar(snapshot: &Snapshot, scope: &PauseScope) -> bool {
    snapshot.rules.rules.iter().any(|rule| matches!(rule.trigger, Trigger::At(_)) && scope.covers(rule, None))
}

/// The world with one pause less.
fn without(world: &Arc<World>, scope: &PauseScope) -> World {
    let mut world = World::clone(world);
    match scope {
        PauseScope::All => world.paused = None,
        PauseScope::Rule(rule) => {
            if let Some(state) = world.rules.get_mut(rule) {
                state.paused = None;
            }
        }
        PauseScope::Channel(channel) => drop(world.paused_channels.remove(channel.name())),
        PauseScope::Tag(tag) => drop(world.paused_tags.remove(tag)),
    }
    world
}

/// The pause of exactly this scope, if it is in force.
pub fn in_force<'w>(world: &'w World, scope: &PauseScope) -> Option<&'w Pause> {
    match scope {
        PauseScope::All => world.paused.as_ref(),
        PauseScope::Rule(rule) => world.rules.get(rule)?.paused.as_ref(),
        PauseScope::Channel(channel) => world.paused_channels.get(channel.name()),
        PauseScope::Tag(tag) => world.paused_tags.get(tag),
    }
}

/// Every pause in force.
pub fn all_in_force(world: &World) -> Vec<(String, &Pause)> {
    let everything = world.paused.iter().map(|pause| ("everything".to_owned(), pause));
    let rules = world.rules.iter().filter_map(|(rule, state)| Some((format!("rule {rule}"), state.paused.as_ref()?)));
    let channels = world.paused_channels.iter().map(|(channel, pause)| (format!("channel {channel}"), pause));
    let tags = world.paused_tags.iter().map(|(tag, pause)| (format!("tag {tag}"), pause));
    everything.chain(rules).chain(channels).chain(tags).collect()
}
