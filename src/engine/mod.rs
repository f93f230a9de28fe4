//! The engine: everything that is decided, and nothing that is done. No I/O, no async, no clock, no randomness.
//!
//! The front door is [`decide::decide`]: a profile, the events that wait for it, and an instant go in; a [`decide::Decision`]
//! comes out. The daemon, rule tests, `explain`, `simulate` and the property tests all call that one function, so what an
//! operator tests is what runs.
//!
//! One concept is one file, in operator words:
//!
//! - facts: [`event`], [`profile`] (the one row), `absorb`, [`merge`] (two turn out to be one), [`features`], [`consent`], [`money`], [`time`]
//! - meaning: [`rule`] (the compiled files), [`verdict`] (truth with an expiry), [`source`] (is the shop quiet, or are we blind?)
//! - what the shop gives and takes: [`points`], [`tier`], [`benefit`]
//! - decisions: [`run`] (a rule's run for one profile), [`gate`] (THE ordered list), [`decide`], [`action`] (what comes out)

pub mod absorb;
pub mod action;
pub mod benefit;
pub mod consent;
pub mod coupon;
pub mod cron;
pub mod decide;
pub mod event;
pub mod features;
pub mod gate;
pub mod merge;
pub mod money;
pub mod points;
pub mod profile;
pub mod rule;
pub mod run;
#[cfg(test)]
mod sample;
pub mod source;
pub mod tier;
pub mod time;
pub mod verdict;

/// Version of what conditions mean: every built-in name and function, how facts are absorbed, what a day is. Whoever changes any of it counts
/// it up: then a new program takes every rule's `when` for a changed one, and nobody enters a rule only because the program was
/// upgraded. `tests/it/stories/meanings.rs` holds known answers by this number, and says when it must move.
pub const SEMANTICS: u32 = 1;
