//! Figures for a monitoring system, in the Prometheus text format (OpenMetrics). Each one is explained in docs/operating.md, with the first
//! thing to do when it looks wrong; a test compares the two lists.
//!
//! Labels have few values: rules, channels, sources; never people.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::vitals::Vitals;
use crate::engine::decide::World;
use crate::engine::time::Timestamp;
use crate::store::Backlog;

/// One label with a name of its own.
macro_rules! label {
    ($name:ident, $field:ident) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name {
            pub $field: String,
        }
        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                $name { $field: value.to_owned() }
            }
        }
    };
}
label!(ByRule, rule);
label!(ByOutcome, outcome);
label!(ByPart, part);
label!(ByDirection, direction);
label!(ByProvider, provider);
label!(ByComparison, compared);
label!(ByKind, kind);

/// What came of events at the door.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByResult {
    pub source: String,
    /// `new`, `duplicate`, `rejected`.
    pub result: String,
}

/// What came of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByStatus {
    /// The route as declared, without ids.
    pub route: String,
    pub status: u16,
}

/// Begins the name of every figure.
const PREFIX: &str = "rekindle";

/// A number that need not be whole.
type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// All figures of one process.
pub struct Metrics {
    registry: Registry,
    names: Vec<String>,
    pub events: Family<ByResult, Counter>,
    pub requests: Family<ByStatus, Counter>,
    pub evaluations: Counter,
    pub entries: Counter,
    pub conflicts: Family<ByPart, Counter>,
    pub set_aside: Counter,
    pub braked: Family<ByRule, Counter>,
    pub messages: Family<ByOutcome, Counter>,
    pub failures: Family<ByPart, Counter>,
    /// How late the longest due profile of the last pass was.
    pub lateness_seconds: Seconds,
    pub pass_seconds: Family<ByPart, Histogram, fn() -> Histogram>,
    pub reload_failed: Gauge,
    pub reloads: Counter,
    pub settings_failed: Gauge,
    pub clock_steps: Family<ByDirection, Counter>,
    pub callbacks: Family<ByResult, Counter>,
    pub takes_refused: Counter,
    /// 1 while a provider's breaker is open.
    pub breakers_open: Family<ByProvider, Gauge>,
    pub audited: Counter,
    pub audit_findings: Family<ByComparison, Counter>,
    pub removed: Family<ByKind, Counter>,
    /// What is read when somebody asks.
    backlog: BacklogFigures,
}

/// Figures of the database, the same in every process that has it open.
struct BacklogFigures {
    people_due: Gauge,
    people_due_seconds: Seconds,
    people_set_aside: Gauge,
    messages_due: Gauge,
    messages_due_seconds: Seconds,
    messages_past_deadline: Gauge,
    messages_under_way: Gauge,
    messages_under_way_seconds: Seconds,
    messages_unknown: Gauge,
    transaction_seconds: Gauge,
    pass_running_seconds: Family<ByPart, Seconds>,
    paused: Gauge,
    rules_held: Gauge,
    source_quiet: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let mut names = Vec::new();
        macro_rules! register {
            ($name:literal, $help:literal, $metric:expr) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                names.push(format!("{PREFIX}_{}", $name));
                metric
            }};
        }
        Metrics {
            events: register!("events", "Events at the door, by source and what came of them", Family::default()),
            requests: register!("http_requests", "Requests answered, by route and status", Family::default()),
            evaluations: register!("evaluations", "Decisions made: one profile at one instant", Counter::default()),
            entries: register!("entries", "Runs of rules begun", Counter::default()),
            conflicts: register!("conflicts", "Writes overtaken by somebody else's, made again", Family::default()),
            set_aside: register!("profiles_set_aside", "Profiles put aside after an error", Counter::default()),
            braked: register!("rules_braked", "Rules put on hold by their brake", Family::default()),
            messages: register!("messages", "Messages handled by dispatch, by what came of it", Family::default()),
            failures: register!("failures", "Passes that failed and are tried again, by part", Family::default()),
            lateness_seconds: register!(
                "evaluation_lateness_seconds",
                "How late the profile was that had waited longest",
                Gauge::default()
            ),
            pass_seconds: register!(
                "pass_duration_seconds",
                "Duration of a pass that had work, by part",
                Family::new_with_constructor(durations as fn() -> Histogram)
            ),
            reload_failed: register!(
                "rules_reload_failed",
                "1 while the rule files on disk are refused and an older set stands",
                Gauge::default()
            ),
            settings_failed: register!(
                "settings_reload_failed",
                "1 while a changed secret or settings file is refused and what was read before stands",
                Gauge::default()
            ),
            reloads: register!("rules_reloads", "Rule sets put live", Counter::default()),
            clock_steps: register!("clock_steps", "Times that the machine's clock was set by more than ten seconds", Family::default()),
            callbacks: register!("callbacks", "Callbacks of providers, by provider and what came of them", Family::default()),
            takes_refused: register!("takes_refused", "Deductions that the second look at their notice stopped", Counter::default()),
            breakers_open: register!("breaker_open", "1 while a provider is out of order and its messages wait", Family::default()),
            audited: register!("audit_people", "People whose state was recomputed from the facts", Counter::default()),
            audit_findings: register!("audit_findings", "What the audit found otherwise than the facts say", Family::default()),
            removed: register!("removed", "Rows that the retention schedule removed, by kind", Family::default()),
            backlog: BacklogFigures {
                people_due: register!("people_due", "People who are due now", Gauge::default()),
                people_due_seconds: register!(
                    "people_due_longest_seconds",
                    "Since when the one is due who waits longest",
                    Gauge::default()
                ),
                people_set_aside: register!("people_set_aside", "People set aside after an error", Gauge::default()),
                messages_due: register!("messages_due", "Queued messages whose time has come", Gauge::default()),
                messages_due_seconds: register!(
                    "messages_due_longest_seconds",
                    "Since when the message is due that waits longest",
                    Gauge::default()
                ),
                messages_past_deadline: register!(
                    "messages_past_deadline",
                    "Queued messages that are still there after their deadline",
                    Gauge::default()
                ),
                messages_under_way: register!("messages_under_way", "Messages claimed or being sent", Gauge::default()),
                messages_under_way_seconds: register!(
                    "messages_under_way_longest_seconds",
                    "Since when the message is claimed or being sent that takes longest",
                    Gauge::default()
                ),
                messages_unknown: register!("messages_unknown", "Messages of which nobody knows whether they went out", Gauge::default()),
                transaction_seconds: register!(
                    "database_transaction_seconds",
                    "For how long the oldest transaction on PostgreSQL has been open",
                    Gauge::default()
                ),
                pass_running_seconds: register!(
                    "pass_running_seconds",
                    "For how long the pass under way has been running, by part",
                    Family::default()
                ),
                paused: register!("pauses", "Pauses in force", Gauge::default()),
                rules_held: register!("rules_held", "Rules on hold by their brake", Gauge::default()),
                source_quiet: register!("source_quiet", "1 while a source of activity is quiet against its own baseline", Gauge::default()),
            },
            registry,
            names,
        }
    }
}

fn durations() -> Histogram {
    Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])
}

impl Metrics {
    /// Their names; one that has no value yet does not show in the text.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes in what waits and what is in doubt.
    pub fn see_backlog(&self, backlog: &Backlog, now: Timestamp) {
        let figures = &self.backlog;
        let count = |gauge: &Gauge, count: u64| _ = gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        let since = |gauge: &Seconds, since: Option<Timestamp>| {
            _ = gauge.set(since.map_or(0.0, |since| now.ms_since(since).max(0) as f64 / 1000.0));
        };
        count(&figures.people_due, backlog.people_due);
        since(&figures.people_due_seconds, backlog.people_due_since);
        count(&figures.people_set_aside, backlog.people_set_aside);
        count(&figures.messages_due, backlog.messages_due);
        since(&figures.messages_due_seconds, backlog.messages_due_since);
        count(&figures.messages_past_deadline, backlog.messages_past_deadline);
        count(&figures.messages_under_way, backlog.messages_under_way);
        since(&figures.messages_under_way_seconds, backlog.messages_under_way_since);
        count(&figures.messages_unknown, backlog.messages_unknown);
        count(&figures.transaction_seconds, backlog.transaction_seconds);
    }

    /// Takes in what is paused, held and quiet.
    pub fn see_world(&self, world: &World, pauses: usize, now: Timestamp) {
        let figures = &self.backlog;
        figures.paused.set(i64::try_from(pauses).unwrap_or(i64::MAX));
        let held = world.rules.values().filter(|rule| rule.held.is_some()).count();
        figures.rules_held.set(i64::try_from(held).unwrap_or(i64::MAX));
        let is_quiet = world.quiet.iter().any(|(from, until)| *from <= now && now < *until);
        figures.source_quiet.set(is_quiet.into());
    }

    /// Takes in which parts are in the middle of a pass.
    pub fn see_vitals(&self, vitals: &Vitals) {
        for (part, since) in vitals.passes() {
            let seconds = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
            self.backlog.pass_running_seconds.get_or_create(&part.name().into()).set(seconds);
        }
    }

    /// The figures in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }

    /// The figures in the text format that came before OpenMetrics, for whoever does not ask for that: there a counter's family has the
    /// name of its samples.
    pub fn render_plain(&self) -> String {
        let openmetrics = self.render();
        let is_counter = |name: &str| openmetrics.contains(&format!("# TYPE {name} counter\n"));
        let mut text = String::with_capacity(openmetrics.len());
        for line in openmetrics.lines().filter(|line| *line != "# EOF") {
            let head = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
            match head.and_then(|head| head.split_once(' ')).filter(|(name, _)| is_counter(name)) {
                Some((name, rest)) => text.push_str(&format!("{}{name}_total {rest}\n", &line[..7])),
                None => text.push_str(&format!("{line}\n")),
            }
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
