//! Erasing a person: what is asked, and what was done.

use serde::{Deserialize, Serialize};

use crate::engine::time::Timestamp;
use crate::store::ProfileId;

/// Why the emptied row of somebody who was erased is set aside: nobody looks at it again.
pub const ERASED: &str = "erased";

/// A person to be erased. `by` and `why` are on record with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    pub profile: ProfileId,
    pub at: Timestamp,
    pub by: String,
    pub why: String,
}

/// What makes a person go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it: their addresses are closed, so that no import brings them back to be written to.
    Asked,
    /// Nobody has heard of them for long, as the retention schedule has it: on record in the pass that began at `at`. They may come back, so
    /// no address is closed; what the suppression list has stays on it.
    LongGone { pass: Timestamp, older_than: Timestamp },
}

/// What an erasure did: rows deleted, or emptied of everything that could speak of the person. It is the record that it was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    pub events: u64,
    pub consents: u64,
    pub identities: u64,
    /// Emptied of what their templates said; the rows stay for the counts.
    pub messages: u64,
    pub attempts: u64,
    pub exposures: u64,
    pub entries: u64,
    /// Events refused at the door that named the person.
    pub rejects: u64,
    /// Messages that were still to go and do not go any more.
    pub cancelled: u64,
    /// Messages that were being sent at that moment: nobody can call them back.
    pub sending: u64,
    /// Addresses that are closed from now on, known by their hashes.
    pub addresses: u64,
}
