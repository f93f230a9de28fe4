//! Stories: given rules and events, when days pass, then the whole state as text. Each snapshot was read against the language's
//! rules before it was accepted; a change in one is a change in what happens to people.

mod actions;
mod again;
mod calendar;
mod caps;
mod explain;
mod faults;
mod ladder;
mod meanings;
mod penalty;
mod promises;
mod quiet;
mod runs;
mod shadow;
mod silence;
mod stage;
