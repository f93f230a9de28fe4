//! `rekindle doctor`: everybody is examined ([`crate::audit`]), then sums are held against their parts; whatever differs from what is
//! stored is said, with its place. Nothing is changed, so it runs beside whatever is at work.
//!
//! With evidence from outside (what senders were answered for, what providers took) it also says what no table can say of itself: that
//! nothing was lost, and nothing done twice.

pub mod evidence;
mod sums;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};

use self::evidence::{Balance, Evidence, Scales};
use self::sums::Sums;
use super::{ExitCode, Format, database};
use crate::audit::{self, Finding};
use crate::clock::{Clock as _, SystemClock};
use crate::engine::action::MessageState;
use crate::engine::decide::{Context, World};
use crate::engine::profile::Name;
use crate::engine::rule::RuleSet;
use crate::rulebook::Rulebook;
use crate::store::erasure::ERASED;
use crate::store::retention::{Kept, RemovalRow};
use crate::store::{History, ProfileId, Store, StoredProfile};

/// Profiles read at a time.
const PAGE: usize = 200;
/// So many findings are printed; all are counted, and JSON has them all.
const SHOWN: usize = 50;

/// Recompute everything from the facts on record and compare: exit code 1 says that something differs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  $ rekindle doctor --dir rekindle-demo\n  $ rekindle doctor --db shop.db --acknowledged answered.txt --taken relay.txt"
)]
pub struct Args {
    #[command(flatten)]
    pub database: database::Args,
    /// Ids of events whose senders were answered, one a line: each must be on record once
    #[arg(long, value_name = "FILE")]
    pub acknowledged: Option<PathBuf>,
    /// Ids of messages that providers took, one a line and as often as they took it: each must be on record as sent, and once
    #[arg(long, value_name = "FILE")]
    pub taken: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub struct Report {
    pub profiles: u64,
    pub events: u64,
    pub postings: u64,
    pub messages: u64,
    /// Messages of which nobody knows whether they went out.
    pub unknown: u64,
    /// What evidence from outside shows, if there was any.
    pub evidence: Option<Balance>,
    /// No rules have gone live here: only facts could be checked.
    pub without_rules: bool,
    pub findings: Vec<Finding>,
    /// What is as somebody wanted it, and should be known.
    pub notes: Vec<String>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let evidence = Evidence::read(args.acknowledged.as_deref(), args.taken.as_deref())?;
    let opened = args.database.open().await?;
    let report = examine(opened.store.as_ref(), evidence).await?;
    opened.store.close().await;
    match args.format {
        Format::Json => println!("{:#}", report.to_json()),
        Format::Text => print!("{}", report.to_text()),
    }
    Ok(if report.findings.is_empty() { ExitCode::Fine } else { ExitCode::Finding })
}

/// Looks at everybody, then at the sums, and last at what is known from outside.
pub async fn examine(store: &dyn Store, evidence: Evidence) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut scales = Scales::of(evidence);
    let mut sets = Sets::of(store, &mut report).await?;
    files_on_disk(store, &mut report).await?;
    removals(store, &mut report).await?;
    held_up(store, &mut report).await?;
    let mut failing = BTreeMap::new();
    let people = store.counts().await.map(|counts| counts.profiles).unwrap_or_default();
    let bar = ProgressBar::new(people);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3} %  {pos} of {len} people  {eta} to go").context("the bar's template")?,
    );
    let mut sums = Some(Sums::default());
    let mut after = None;
    loop {
        let page = store.profiles(after, PAGE).await?;
        let Some(last) = page.last else { break };
        after = Some(last);
        bar.inc((page.profiles.len() + page.unreadable.len()) as u64);
        for (id, key, error) in page.unreadable {
            report.find(&key, "row", error.to_string());
            // what else there is of this person counts all the same
            add_history(store, id, &key, &mut sums, &mut report).await;
        }
        sets.learn(store, &page.profiles, &mut report).await;
        for stored in &page.profiles {
            let Some(history) = add_history(store, stored.id, &stored.profile.key, &mut sums, &mut report).await else { continue };
            scales.put(&stored.profile.key, &history, &mut report);
            // the facts of one that was merged are another's by now; that one is examined
            // ... and those of one that was erased are gone
            let is_erased = stored.quarantined.as_ref().is_some_and(|(_, because)| because == ERASED);
            if stored.merged_into.is_none() && !is_erased {
                count_failing(stored, &mut failing);
                report.findings.extend(audit::examine(&sets.context(), stored, &history));
            }
        }
    }
    bar.finish_and_clear();
    report.tell_failing(failing);
    sets.tell_pauses(&mut report);
    match (sums, store.counts().await) {
        (Some(sums), Ok(counts)) => sums.compare(&counts, &mut report),
        (None, Ok(_)) => {}
        (_, Err(error)) => report.find("", "sums", error.to_string()),
    }
    scales.read_off(&mut report);
    Ok(report)
}

/// Whether the rule files on disk are what is live, as far as a daemon has looked at them.
async fn files_on_disk(store: &dyn Store, report: &mut Report) -> anyhow::Result<()> {
    if let Some(refused) = store.refused_rules().await? {
        let first = refused.because.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let detail = format!("the files on disk are refused since {}, the set before stays live: {first}", refused.at);
        report.find("", "rules", format!("{detail} (`rekindle check` and `rekindle test` say more)"));
    }
    if let Some(live) = store.publications(1).await?.first().filter(|live| live.is_rollback) {
        let (version, at, by, why) = (live.version, live.at, &live.by, &live.why);
        report.notes.push(format!("rule set {version:016x} is live by a rollback of {by} at {at} ({why}); the files on disk differ"));
    }
    Ok(())
}

/// Rules that cannot be evaluated for somebody: how many people, and the reason of one of them.
type Failing = BTreeMap<Name, (u64, Arc<str>)>;

/// A rule that fails for a person is set aside there, and tried again with each look.
fn count_failing(stored: &StoredProfile, failing: &mut Failing) {
    for hold in stored.profile.holds.iter().filter(|hold| hold.run == 0 && &*hold.gate == "error") {
        failing.entry(hold.rule.clone()).or_insert_with(|| (0, hold.because.clone())).0 += 1;
    }
}

/// What the retention schedule removed last: what happened before cannot be recomputed any more.
async fn removals(store: &dyn Store, report: &mut Report) -> anyhow::Result<()> {
    let rows = store.removals(Kept::ALL.len()).await?;
    for row in rows.iter().filter(|row| rows.first().is_some_and(|first| first.at == row.at)) {
        let RemovalRow { kind, at, older_than, removed } = row;
        report.notes.push(format!("the retention schedule removed {removed} {} older than {older_than} at {at}", kind.name()));
    }
    Ok(())
}

/// Ours take moments; a longer one is somebody else's, and everybody pays for it.
const TRANSACTION_SECONDS: u64 = 60;

/// A transaction that keeps the server from tidying up.
async fn held_up(store: &dyn Store, report: &mut Report) -> anyhow::Result<()> {
    let seconds = store.backlog(SystemClock.now()).await?.transaction_seconds;
    report.notes.extend(told_held_up(seconds));
    Ok(())
}

fn told_held_up(seconds: u64) -> Option<String> {
    (seconds >= TRANSACTION_SECONDS).then(|| {
        format!(
            "a transaction has been open on the server for {} minutes: until it ends nothing can be tidied up, and claims become slower \
             (`pg_stat_activity` names it by `xact_start`)",
            seconds / 60
        )
    })
}

/// One person's history, counted; none if it cannot be read, which is said, and then sums say nothing any more.
async fn add_history(store: &dyn Store, id: ProfileId, key: &Name, sums: &mut Option<Sums>, report: &mut Report) -> Option<History> {
    report.profiles += 1;
    match store.history(id).await {
        Ok(history) => {
            if let Some(sums) = sums {
                sums.add(&history);
            }
            report.events += history.events.len() as u64;
            report.postings += history.postings.len() as u64;
            report.messages += history.messages.len() as u64;
            report.unknown += history.messages.iter().filter(|row| row.state == MessageState::Unknown).count() as u64;
            Some(history)
        }
        Err(error) => {
            *sums = None;
            report.find(key, "row", error.to_string());
            None
        }
    }
}

/// The rule sets that decided here, and the world.
struct Sets {
    live: Arc<RuleSet>,
    older: HashMap<u64, Arc<RuleSet>>,
    unreadable: BTreeSet<u64>,
    world: Arc<World>,
}

impl Sets {
    /// A database into which events were imported and where no rules have gone live yet has nothing to be held against rules.
    async fn of(store: &dyn Store, report: &mut Report) -> anyhow::Result<Self> {
        let world = store.world(SystemClock.now()).await?.world;
        let live = match store.current_version().await? {
            Some(version) => database::rules_of(store, version).await?,
            None => {
                report.without_rules = true;
                Rulebook::of(Vec::new()).set().context("no rules at all are a rule set too")?
            }
        };
        Ok(Sets { live, older: HashMap::new(), unreadable: BTreeSet::new(), world })
    }

    /// Learns the sets that these people's runs began with.
    async fn learn(&mut self, store: &dyn Store, people: &[StoredProfile], report: &mut Report) {
        let versions: BTreeSet<u64> = people.iter().flat_map(|stored| &stored.profile.runs).map(|run| run.version).collect();
        for version in versions {
            if version == self.live.version || self.older.contains_key(&version) || self.unreadable.contains(&version) {
                continue;
            }
            match database::rules_of(store, version).await {
                Ok(set) => drop(self.older.insert(version, set)),
                Err(error) => {
                    self.unreadable.insert(version);
                    report.find("", "runs", format!("runs go by rule set {version:016x}: {error:#}"));
                }
            }
        }
    }

    /// Rules that were paused because their template could not be written.
    fn tell_pauses(&self, report: &mut Report) {
        for (rule, state) in &self.world.rules {
            if let Some(pause) = &state.paused {
                report
                    .notes
                    .push(format!("rule `{rule}` is paused since {}: {} (`rekindle resume --rule {rule}`)", pause.at, pause.reason));
            }
        }
    }

    fn context(&self) -> Context<'_> {
        Context { rules: &self.live, older: &self.older, world: &self.world }
    }
}

impl Report {
    fn tell_failing(&mut self, failing: Failing) {
        for (rule, (people, because)) in failing {
            let people = super::counted(usize::try_from(people).unwrap_or(usize::MAX), "profile");
            let detail = format!("rule `{rule}` is set aside for {people}: {because} (once it is mended, `rekindle replay --rule {rule}`)");
            self.find("", "rules", detail);
        }
    }

    pub(super) fn find(&mut self, user: &str, what: &'static str, detail: impl Into<String>) {
        self.findings.push(Finding { user: Name::from(user), what, detail: detail.into() });
    }

    pub fn to_json(&self) -> Json {
        let findings: Vec<Json> = self.findings.iter().map(|f| json!({ "user": &*f.user, "what": f.what, "detail": f.detail })).collect();
        json!({
            "profiles": self.profiles, "without_rules": self.without_rules, "events": self.events, "postings": self.postings, "messages": self.messages, "findings": findings,
            "notes": self.notes, "evidence": self.evidence.map(Balance::to_json),
        })
    }

    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in self.findings.iter().take(SHOWN) {
            let who = if finding.user.is_empty() { "everybody" } else { &*finding.user };
            text.push_str(&format!("{who}: {}: {}\n", finding.what, finding.detail));
        }
        if self.findings.len() > SHOWN {
            text.push_str(&format!("... and {} more (--format json has them all)\n", self.findings.len() - SHOWN));
        }
        let Report { profiles, events, postings, messages, .. } = self;
        let outcome = match self.findings.len() {
            0 => "all as the facts say".to_owned(),
            1 => "1 finding".to_owned(),
            count => format!("{count} findings"),
        };
        self.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
        if self.without_rules {
            text.push_str("no rules have gone live here: facts were checked, there are no decisions yet\n");
        }
        if let Some(balance) = self.evidence {
            text.push_str(&format!("{balance}\n"));
        }
        text.push_str(&format!(
            "{profiles} people recomputed from {events} events; {postings} postings and {messages} messages checked: {outcome}\n"
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_told_of_when_it_lasts() {
        assert_eq!(told_held_up(59), None);
        assert!(told_held_up(7_230).is_some_and(|note| note.contains("for 120 minutes")));
    }
}
