//! The store: one conformance suite through the trait, run over every database there is; what only one of them has; the encoding.

mod encoding;
mod exercise;
pub mod given;
mod moving;
mod people;
mod postgres;
pub mod server;
mod sqlite;
