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
    pub lateness_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub pass_seconds: Family<ByPart, Histogram, fn() -> Histogram>,
    pub reload_failed: Gauge,
    pub reloads: Counter,
    pub paused: Gauge,
    pub clock_steps: Family<ByDirection, Counter>,
    pub callbacks: Family<ByResult, Counter>,
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
            reloads: register!("rules_reloads", "Rule sets put live", Counter::default()),
            paused: register!("pauses", "Pauses in force", Gauge::default()),
            clock_steps: register!("clock_steps", "Times that the machine's clock was set by more than ten seconds", Family::default()),
            callbacks: register!("callbacks", "Callbacks of providers, by provider and what came of them", Family::default()),
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

    /// The figures as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
