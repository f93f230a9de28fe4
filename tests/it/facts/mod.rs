//! Facts of a real shop's year (data/online-retail), computed by the engine through rules and features and checked against answers
//! that were computed apart from it (facts.json).

pub mod shop;

mod cost;
mod points;
mod silence;
mod tiers;
