//! The one integration binary: stories and facts of a real year, the store, the command line, and the tidiness of the sources.

mod cli;
mod demo;
mod doctor;
mod ingest;
mod kill;
mod messages;
mod pack;
mod rules;
mod services;
mod store;
mod tidy;
mod verdicts;
