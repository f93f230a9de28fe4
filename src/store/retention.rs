//! Removing what has been kept for long enough: what is asked of the store, and what it reports. Which rows may go is planned by
//! `retention`; here stands only what goes.

use crate::engine::action::MessageId;
use crate::engine::time::Timestamp;
use crate::store::ProfileId;

/// What the schedule speaks of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kept {
    /// Facts that have been absorbed. What was said of a person or agreed to stays with the person.
    Events,
    /// Messages that have ended, with their attempts.
    Messages,
    /// Lines of the decision log.
    Decisions,
    /// What was refused at the door.
    Rejects,
    /// People who have not been heard of.
    People,
}

impl Kept {
    pub const ALL: [Kept; 5] = [Kept::Events, Kept::Messages, Kept::Decisions, Kept::Rejects, Kept::People];

    pub fn name(self) -> &'static str {
        match self {
            Kept::Events => "events",
            Kept::Messages => "messages",
            Kept::Decisions => "decisions",
            Kept::Rejects => "rejects",
            Kept::People => "people",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A stretch of a walk over the oldest rows of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oldest {
    /// Whose rows are old enough.
    pub people: Vec<ProfileId>,
    /// Number of the last row looked at: where the walk goes on. None: nothing older is left.
    pub last: Option<i64>,
}

/// What goes, of some people, in one commit.
///
/// Of facts, only deeds (`track`) and what the engine said of its own work go, if they were received before `events_before` and have been
/// absorbed. Always kept: what was said of a person (`identify`), agreed
/// to or refused, what suppressed an address, and what a merge carried over. They are few, and a merge hears them anew.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    /// When the pass began, under which it is on record.
    pub at: Timestamp,
    pub events_before: Option<Timestamp>,
    pub messages_before: Option<Timestamp>,
    pub decisions_before: Option<Timestamp>,
    pub people: Vec<RemovalOf>,
}

/// What goes of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalOf {
    pub profile: ProfileId,
    /// The row's version as read: of whoever was looked at meanwhile nothing goes until the next pass.
    pub version: i64,
    /// Whether [`Removal::events_before`] is about this person.
    pub events: bool,
    pub messages: Vec<MessageId>,
    /// Numbers of lines of the decision log.
    pub decisions: Vec<i64>,
}

/// So many rows went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub events: u64,
    pub messages: u64,
    pub decisions: u64,
}

/// That something of a person was removed: nothing younger than `older_than`, `removed` rows so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub older_than: Timestamp,
    pub removed: u64,
}

/// What of a person was removed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    pub events: Option<Mark>,
    pub messages: Option<Mark>,
    pub decisions: Option<Mark>,
}

/// What one pass removed of one kind: the record that it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalRow {
    pub kind: Kept,
    /// When the pass began.
    pub at: Timestamp,
    pub older_than: Timestamp,
    pub removed: u64,
}
