//! `rekindle doctor`: state is a fold of facts, so it can be recomputed. Everybody's facts are absorbed anew, the ledger is added up,
//! caps are counted from the attempts, runs from the log, sums from their parts; whatever differs from what is stored is said, with
//! its place. Nothing is changed.
//!
//! What it cannot recompute: what a rule decided (that took the world of its instant; `explain` shows it). It checks that every
//! decision left the traces that belong together.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};

use super::{ExitCode, Format, database};
use crate::engine::absorb::absorb;
use crate::engine::action::{MessageId, MessageState, PostingKind, What};
use crate::engine::event::{Event, EventKind};
use crate::engine::points;
use crate::engine::profile::{Name, Profile};
use crate::engine::rule::{Action, Cap, CapWindow, RuleSet, Step};
use crate::engine::time::{Timestamp, Zone};
use crate::store::{Counts, History, MessageRow, Store, StoredProfile};

/// Profiles read at a time.
const PAGE: usize = 200;
/// So many findings are printed; all are counted, and JSON has them all.
const SHOWN: usize = 50;

/// Recompute everything from the facts on record and compare: exit code 1 says that something differs
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle doctor --dir rekindle-demo")]
pub struct Args {
    #[command(flatten)]
    pub database: database::Args,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Something that is not as the facts say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The person's key; empty for what concerns everybody.
    pub user: Name,
    /// What was compared: `facts`, `ledger`, `caps`, `runs`, `messages`, `due`, `sums`.
    pub what: &'static str,
    pub detail: String,
}

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub struct Report {
    pub profiles: u64,
    pub events: u64,
    pub postings: u64,
    pub messages: u64,
    pub findings: Vec<Finding>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let opened = args.database.open().await?;
    let rules = database::live_rules(&opened.store).await?;
    let report = examine(&opened.store, &rules).await?;
    opened.store.close().await;
    match args.format {
        Format::Json => println!("{:#}", report.to_json()),
        Format::Text => print!("{}", report.to_text()),
    }
    Ok(if report.findings.is_empty() { ExitCode::Fine } else { ExitCode::Finding })
}

/// Looks at everybody, then at the sums.
pub async fn examine(store: &dyn Store, rules: &RuleSet) -> anyhow::Result<Report> {
    let counts = store.counts().await?;
    let bar = ProgressBar::new(counts.profiles);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3} %  {pos} of {len} people  {eta} to go").context("the bar's template")?,
    );
    let mut report = Report::default();
    let mut sums = Sums::default();
    let mut after = None;
    loop {
        let page = store.profiles(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for stored in &page {
            let history = store.history(stored.id).await?;
            sums.add(&history);
            report.profiles += 1;
            report.events += history.events.len() as u64;
            report.postings += history.postings.len() as u64;
            report.messages += history.messages.len() as u64;
            Person { rules, stored, history: &history, report: &mut report }.examine();
        }
        bar.inc(page.len() as u64);
    }
    bar.finish_and_clear();
    sums.compare(&counts, &mut report);
    Ok(report)
}

/// One person under examination.
struct Person<'a> {
    rules: &'a RuleSet,
    stored: &'a StoredProfile,
    history: &'a History,
    report: &'a mut Report,
}

impl Person<'_> {
    fn examine(&mut self) {
        self.facts();
        self.ledger();
        self.caps();
        self.runs();
        self.messages();
        self.due();
    }

    fn find(&mut self, what: &'static str, detail: impl Into<String>) {
        self.report.findings.push(Finding { user: self.stored.profile.key.clone(), what, detail: detail.into() });
    }

    /// The part of the row that is a fold of events and of nothing else.
    fn facts(&mut self) {
        let stored = &self.stored.profile;
        let mut events: Vec<&Event> = self.history.events.iter().filter(|(_, absorbed)| *absorbed).map(|(event, _)| event).collect();
        events.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
        let mut again = Profile::new(&stored.key);
        events.iter().for_each(|event| absorb(&mut again, event, self.rules.names()));
        let by_rules = attributes_set_by_rules(self.rules);
        let attributes = |profile: &Profile| {
            profile
                .attributes
                .iter()
                .filter(|(name, _)| !by_rules.contains(*name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        // a feature that was declared later has not seen what came before
        let features = |profile: &Profile, other: &Profile| {
            profile
                .features
                .iter()
                .filter(|(name, _)| other.features.contains_key(*name))
                .map(|(name, series)| (name.clone(), series.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let differs = [
            ("first_seen_at", again.first_seen_at != stored.first_seen_at),
            ("country", again.country != stored.country),
            ("locale", again.locale != stored.locale),
            ("zone", again.zone != stored.zone),
            ("attributes", attributes(&again) != attributes(stored)),
            ("addresses", again.addresses != stored.addresses),
            ("consents", again.consents != stored.consents),
            ("activity", again.activity != stored.activity),
            ("orders", again.orders != stored.orders),
            ("refunds", again.refunds != stored.refunds),
            ("features", features(&again, stored) != features(stored, &again)),
        ];
        for (part, _) in differs.iter().filter(|(_, differs)| *differs) {
            self.find("facts", format!("`{part}` is not what {} events on record say", events.len()));
        }
    }

    fn ledger(&mut self) {
        let postings = &self.history.postings;
        if postings.len() != self.stored.profile.postings as usize {
            self.find("ledger", format!("{} postings on record, the row counts {}", postings.len(), self.stored.profile.postings));
        }
        if let Err(difference) = points::audit(&self.stored.profile.wallet, postings) {
            self.find("ledger", difference);
        }
        for posting in postings.iter().filter(|posting| posting.kind == PostingKind::Take) {
            let notice = posting.notice.and_then(|id| self.history.messages.iter().find(|row| row.message.id == id));
            let delivered = notice.is_some_and(|row| matches!(row.state, MessageState::Accepted | MessageState::Delivered));
            let first = notice.and_then(|row| row.attempts.first()).map(|attempt| attempt.started_at);
            // a bounce that came after the deduction does not undo the notice of that time
            let bounced_later = notice.is_some_and(|row| row.state == MessageState::Bounced && row.changed_at > posting.at);
            if !(delivered || bounced_later) || first.is_none_or(|first| first >= posting.at) {
                self.find("ledger", format!("{} points were taken at {} without a notice delivered before", -posting.amount, posting.at));
            }
        }
    }

    /// No cap of the live set was exceeded by messages decided under it.
    fn caps(&mut self) {
        let zone = self.rules.policy.zone_of(&self.stored.profile);
        let reached: Vec<(&MessageRow, Timestamp)> = self.history.messages.iter().filter_map(|row| Some((row, reached_at(row)?))).collect();
        for cap in &self.rules.policy.caps {
            let mut instants: Vec<Timestamp> = reached.iter().filter(|(row, _)| self.counts_against(cap, row)).map(|(_, at)| *at).collect();
            instants.sort_unstable();
            if let Some((at, count)) = exceeded(cap, &instants, &zone, self.rules) {
                self.find("caps", format!("cap `{}` allows {}, at {at} there were {count}", cap.id, cap.max));
            }
        }
    }

    fn counts_against(&self, cap: &Cap, row: &MessageRow) -> bool {
        let message = &row.message;
        let tags = self.rules.rule(&message.rule).map(|rule| rule.tags.as_slice()).unwrap_or_default();
        message.version == self.rules.version
            && (cap.channels.is_empty() || cap.channels.contains(&message.channel))
            && (cap.categories.is_empty() || cap.categories.contains(&message.category))
            && (cap.tags.is_empty() || cap.tags.iter().any(|tag| tags.contains(tag)))
    }

    /// Runs begun and ended, by the log and by the row.
    fn runs(&mut self) {
        let mut begun: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for row in &self.history.entries {
            let (entered, ended) = begun.entry(&row.entry.rule).or_default();
            *entered += u32::from(row.entry.what == What::Entered);
            *ended += u32::from(row.entry.what == What::Ended);
        }
        let profile = &self.stored.profile;
        let rules: BTreeSet<&str> = begun.keys().copied().chain(profile.rules.keys().map(|rule| &**rule)).collect();
        for rule in rules {
            let (entered, ended) = begun.get(rule).copied().unwrap_or_default();
            let known = profile.rules.get(rule).map_or(0, |memory| memory.runs);
            if entered != known {
                self.find("runs", format!("rule `{rule}`: the log says {entered} runs began, the row {known}"));
            }
            let under_way = profile.runs.iter().filter(|run| &*run.rule == rule && run.ended.is_none()).count();
            if entered.saturating_sub(ended) as usize != under_way {
                self.find(
                    "runs",
                    format!("rule `{rule}`: by the log {} are under way, by the row {under_way}", entered.saturating_sub(ended)),
                );
            }
        }
        for hold in &profile.holds {
            let said = |row: &&crate::store::EntryRow| {
                row.entry.what == What::Held && row.entry.rule == hold.rule && row.entry.run == hold.run && row.entry.step == hold.step
            };
            if !self.history.entries.iter().any(|row| said(&row)) {
                self.find(
                    "runs",
                    format!("rule `{}`, step `{}` is held by {} and the log does not say so", hold.rule, hold.step, hold.gate),
                );
            }
        }
    }

    /// One message per dedupe key, and every open one due in time and with its slot.
    fn messages(&mut self) {
        let mut keys: BTreeMap<u128, MessageId> = BTreeMap::new();
        for row in &self.history.messages {
            let message = &row.message;
            if let Some(other) = keys.insert(message.dedupe_key, message.id) {
                self.find(
                    "messages",
                    format!(
                        "{} and {other} have the same key: rule `{}`, run {}, step `{}`",
                        message.id, message.rule, message.run, message.step
                    ),
                );
            }
            if row.state.is_open() && message.due_at > message.expires_at {
                self.find("messages", format!("{} is {} and due after its deadline", message.id, row.state.name()));
            }
            let has_slot = self.stored.profile.slots.iter().any(|slot| slot.message == message.id);
            if row.state.is_open() && !has_slot {
                self.find("messages", format!("{} is {} and holds no slot", message.id, row.state.name()));
            }
        }
    }

    /// What waits makes its person due; who is set aside waits for somebody to look.
    fn due(&mut self) {
        if let Some((at, because)) = &self.stored.quarantined {
            self.find("due", format!("set aside at {at}: {because}"));
            return;
        }
        let own = |event: &&Event| event.kind != EventKind::Engine;
        if let Some(waiting) = self.stored.waiting.iter().filter(own).map(|event| event.received_at).min()
            && self.stored.due_at > waiting
        {
            self.find("due", format!("an event received at {waiting} waits, and the next look is at {}", self.stored.due_at));
        }
    }
}

/// Attributes that a rule's `set` may write: not a fold of events alone.
fn attributes_set_by_rules(rules: &RuleSet) -> BTreeSet<Name> {
    let steps = rules.rules.iter().flat_map(|rule| rule.steps.iter().chain(&rule.on_exit));
    let set = |step: &Step| match &step.action {
        Action::Set(assignments) => assignments.iter().map(|(name, _)| name.clone()).collect(),
        _ => Vec::new(),
    };
    steps.flat_map(set).collect()
}

/// When a message may have reached a provider: its attempt that was not definitely refused.
fn reached_at(row: &MessageRow) -> Option<Timestamp> {
    let refused = |outcome: &Name| matches!(&**outcome, "failed" | "retry" | "dead");
    let attempt = row.attempts.iter().rfind(|attempt| !attempt.outcome.as_ref().is_some_and(refused))?;
    Some(attempt.started_at)
}

/// The first instant at which a cap was exceeded, with the count; `instants` are sorted.
fn exceeded(cap: &Cap, instants: &[Timestamp], zone: &Zone, rules: &RuleSet) -> Option<(Timestamp, usize)> {
    let most = cap.max as usize;
    if let CapWindow::Rolling(window_ms) = cap.window {
        // half-open: what was sent exactly one window ago does not count any more
        return instants.iter().enumerate().find_map(|(index, at)| {
            let first = instants.partition_point(|other| *other <= at.plus_ms(-window_ms));
            let count = index + 1 - first;
            (count > most).then_some((*at, count))
        });
    }
    let mut counts: BTreeMap<jiff::civil::Date, usize> = BTreeMap::new();
    instants.iter().find_map(|at| {
        let date = at.local(zone).date();
        let period = match cap.window {
            CapWindow::LocalWeek => {
                let back = date.weekday().since(rules.policy.week_start);
                date.checked_sub(jiff::Span::new().days(i64::from(back))).unwrap_or(date)
            }
            CapWindow::LocalMonth => date.first_of_month(),
            CapWindow::LocalDay | CapWindow::Rolling(_) => date,
        };
        let count = counts.entry(period).or_default();
        *count += 1;
        (*count > most).then_some((*at, *count))
    })
}

/// Sums over everybody, to be held against those that the database makes.
#[derive(Debug, Default)]
struct Sums {
    events: u64,
    entries: BTreeMap<(Name, Name, What), u64>,
    messages: BTreeMap<(Name, Name, MessageState), u64>,
    postings: BTreeMap<(PostingKind, Name), (u64, i64)>,
    exposures: BTreeMap<(Name, bool), u64>,
}

impl Sums {
    fn add(&mut self, history: &History) {
        self.events += history.events.len() as u64;
        for row in &history.entries {
            *self.entries.entry((row.entry.rule.clone(), row.entry.step.clone(), row.entry.what)).or_default() += 1;
        }
        for row in &history.messages {
            *self.messages.entry((row.message.rule.clone(), row.message.step.clone(), row.state)).or_default() += 1;
        }
        for posting in &history.postings {
            let (count, points) = self.postings.entry((posting.kind, posting.class.clone())).or_default();
            *count += 1;
            *points += posting.amount;
        }
        for exposure in &history.exposures {
            *self.exposures.entry((exposure.rule.clone(), exposure.held_out)).or_default() += 1;
        }
    }

    fn compare(&self, counts: &Counts, report: &mut Report) {
        let mut entries: BTreeMap<(Name, Name, What), u64> = BTreeMap::new();
        for ((rule, step, what, _), count) in &counts.entries {
            *entries.entry((rule.clone(), step.clone(), *what)).or_default() += count;
        }
        let mut messages: BTreeMap<(Name, Name, MessageState), u64> = BTreeMap::new();
        for ((rule, step, _, state), count) in &counts.messages {
            *messages.entry((rule.clone(), step.clone(), *state)).or_default() += count;
        }
        let differs = [
            ("profiles", report.profiles != counts.profiles),
            ("events", self.events != counts.events),
            ("log entries", self.entries != entries),
            ("messages", self.messages != messages),
            ("postings", self.postings != counts.postings),
            ("exposures", self.exposures != counts.exposures),
        ];
        for (part, _) in differs.into_iter().filter(|(_, differs)| *differs) {
            let detail = format!("the database's sum of {part} is not what its people add up to");
            report.findings.push(Finding { user: Name::from(""), what: "sums", detail });
        }
    }
}

impl Report {
    pub fn to_json(&self) -> Json {
        let findings: Vec<Json> = self.findings.iter().map(|f| json!({ "user": &*f.user, "what": f.what, "detail": f.detail })).collect();
        json!({
            "profiles": self.profiles, "events": self.events, "postings": self.postings, "messages": self.messages, "findings": findings,
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
        text.push_str(&format!(
            "{profiles} people recomputed from {events} events; {postings} postings and {messages} messages checked: {outcome}\n"
        ));
        text
    }
}
