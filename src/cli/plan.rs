//! `rekindle plan`: what would happen if these rules went live now, beside what happens anyway.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::bail;

use super::ExitCode;
use super::database::{self, Database};
use super::simulate::{Outcome, Reporting, usable};
use crate::clock::{Clock as _, SystemClock};
use crate::engine::decide::World;
use crate::engine::profile::Name;
use crate::engine::rule::difference::difference;
use crate::engine::rule::{RuleSet, check};
use crate::engine::time::{HOUR_MS, Span, Timestamp, Zone};
use crate::rulebook::Rulebook;
use crate::simulate::Timeline;
use crate::simulate::compare::Comparison;
use crate::simulate::figures::Figures;
use crate::simulate::journal::Journal;
use crate::simulate::report::Report;
use crate::store::StoredProfile;

/// What decides who is in a sample: always the same people.
const SAMPLE_SALT: &str = "plan";

/// Preview what these rules would change if they went live now: in meaning, and for whom
///
/// Everybody's present state goes forward twice, with the rules that are live and with these, as if nobody did anything meanwhile: who
/// is taken in at once, who gains or loses what in the days ahead, whose tier moves. Nothing is sent, stored or published. What a
/// longer past would have been under these rules is the question of `simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  $ rekindle plan rules --db rekindle.db
  $ rekindle plan rules --ahead 14d --fail-if 'gained > 1000' --html plan.html")]
pub struct Args {
    /// Directory of rule files
    #[arg(value_name = "DIR", default_value = "rules")]
    pub rules: PathBuf,
    #[command(flatten)]
    pub database: database::Args,
    /// How far to look ahead
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub ahead: Span,
    /// From this instant on [default: now; in a demo, the end of the replay]
    #[arg(long, value_name = "T", value_parser = super::simulate::instant)]
    pub at: Option<Timestamp>,
    #[command(flatten)]
    pub report: Reporting,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(&args.rules)?;
    let rules = usable(&book)?;
    let present = Present::read(&args, &args.database.open().await?).await?;
    let until = args.ahead.after(present.now, &Zone::UTC);
    // each side has a core of its own, if there are two
    let ((report, journal), before) = thread::scope(|scope| {
        let before = scope.spawn(|| present.ahead(None, until));
        (present.ahead(Some(&rules), until), before.join())
    });
    let Ok((_, before)) = before else { bail!("the rules that are live could not be replayed") };
    let from = present.now.plus_ms(-1);
    let mut outcome = Outcome {
        difference: Some(difference(&present.live, &rules)),
        report,
        figures: Figures::of(&journal, &rules, from, until),
        comparison: Some(Comparison::of(&before, &journal, from, until, args.report.examples)),
        passed_limits: Vec::new(),
    };
    outcome.report.notes.push(NOTE.to_owned());
    args.report.conclude(outcome, "A plan")
}

/// Printed with every plan.
const NOTE: &str = "everybody's present state went forward as if nobody did anything; messages that wait at this instant are not counted";

/// Everybody as they are, and the world they are in.
struct Present {
    people: Vec<StoredProfile>,
    world: World,
    /// Within the last hour, by rule: what brakes count.
    entered: BTreeMap<Name, u64>,
    live: Arc<RuleSet>,
    /// The rules that runs under way began with.
    older: HashMap<u64, Arc<RuleSet>>,
    now: Timestamp,
}

impl Present {
    async fn read(args: &Args, database: &Database) -> anyhow::Result<Self> {
        let store = database.store.as_ref();
        let live = database::live_rules(store).await?;
        let replayed = if database.is_demo() { store.latest_heartbeat().await? } else { None };
        let now = args.at.or(replayed).unwrap_or_else(|| SystemClock.now());
        let mut people = Vec::new();
        database::for_everybody(store, |page| {
            for (_, user, error) in page.unreadable {
                eprintln!("warning: {user} is left out: {error}");
            }
            let looked_at = |stored: &StoredProfile| stored.quarantined.is_none() && stored.merged_into.is_none();
            let in_sample = |stored: &StoredProfile| args.report.is_about(SAMPLE_SALT, &stored.profile.key);
            people.extend(page.profiles.into_iter().filter(|stored| looked_at(stored) && in_sample(stored)));
        })
        .await?;
        let began: BTreeSet<u64> = people.iter().flat_map(|stored| stored.profile.runs.iter().map(|run| run.version)).collect();
        let mut older = HashMap::new();
        for version in began.into_iter().filter(|version| *version != live.version) {
            older.insert(version, database::rules_of(store, version).await?);
        }
        let world = World::clone(&store.world(live.policy.month_start(now)).await?.world);
        let entered = store.entries_since(now.plus_ms(-HOUR_MS)).await?;
        Ok(Present { people, world, entered, live, older, now })
    }

    /// Where they would be at `until`: with the live rules, or with others that go live now.
    fn ahead(&self, candidate: Option<&Arc<RuleSet>>, until: Timestamp) -> (Report, Journal) {
        let timeline = Timeline::new(Arc::clone(&self.live), self.now, self.now).without_history().with_journal();
        let mut timeline = timeline.in_world(self.world.clone(), self.entered.clone());
        for set in self.older.values() {
            timeline.knows(Arc::new(check::under_present(set, &self.live).0));
        }
        for stored in &self.people {
            timeline.join_as_stored(stored.profile.clone(), stored.due_at, stored.waiting.clone());
        }
        if let Some(rules) = candidate {
            timeline.reload(Arc::clone(rules));
        }
        timeline.advance_to(until);
        (Report::of(&timeline), timeline.into_journal())
    }
}
