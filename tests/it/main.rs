//! The one integration binary: stories and facts of a real year, the store, the command line, and the tidiness of the sources.

mod backup;
mod caps;
mod cli;
#[cfg(debug_assertions)]
mod clock;
mod codes;
mod consents;
#[cfg(debug_assertions)]
mod crash;
mod daemon;
mod demo;
mod dependencies;
mod disk;
mod doctor;
mod facts;
mod faults;
mod feedback;
mod figures;
mod fleet;
mod format;
mod fuzz;
mod http;
mod ingest;
mod isolation;
mod journey;
mod kill;
mod limits;
mod mail;
mod messages;
#[cfg(feature = "nats")]
mod nats;
mod outage;
mod pack;
mod people;
mod providers;
mod proxy;
mod reload;
mod retention;
mod rule_tests;
mod rules;
mod schema;
mod sdk;
mod serve;
mod services;
mod slips;
mod store;
mod stories;
mod tidy;
mod verdicts;
