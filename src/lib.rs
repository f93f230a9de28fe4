//! Rekindle: rules in YAML over user state decide who gets which message, penalty or benefit, and when.
//!
//! # Code map
//!
//! Core by noun, shell by verb. Inside the pure engine one concept is one file, in the words operators use; outside it one
//! process step is one module. A layer uses only layers before it, and services never use each other: they meet in tables
//! (`tests/it/tidy.rs` holds both).
//!
//! | layer | module | what it is |
//! |---|---|---|
//! | pure | [`engine`] | facts, rules, verdicts, gates, and the front door [`engine::decide`]: no I/O, no clock, no chance |
//! | pure | [`message`] | template + profile + locale -> content |
//! | pure | [`simulate`] | a timeline through the same front door: rule tests, `explain`, `simulate` |
//! | ports | [`store`], [`channel`], [`links`] | tables; the ways out; signed links in messages |
//! | ports | `rulebook`, [`versions`], [`clock`], [`settings`], [`telemetry`], [`faults`] | rule files on disk; the sets in use; the only clock; the system administrator's file; logs; places to die at in tests |
//! | services | [`ingest`], [`evaluate`], [`dispatch`], [`feedback`], [`audit`], [`retention`], [`console`] | events in; claim, decide, commit; claim, gates, intent, send, result; what the world says back; facts against state; how long what is kept; health, figures, operators' commands |
//! | shell | [`serve`], [`cli`] | the daemon; one file per command; `main` only calls it |
//!
//! An event and a timer differ only in why a profile is due: an event makes its profile due now, every decision says when the
//! profile is due next, and `evaluate` is the loop that takes what is due. Nothing scans the population.

// what comes from outside (rule files, events, rows, answers of providers) may be wrong, and must never stop the process
#![deny(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod audit;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod console;
pub mod dispatch;
pub mod engine;
pub mod evaluate;
pub mod faults;
pub mod feedback;
pub mod ingest;
pub mod links;
pub mod message;
pub mod retention;
pub mod rulebook;
pub mod serve;
pub mod settings;
pub mod simulate;
pub mod store;
pub mod telemetry;
pub mod versions;
