//! Where everything that matters is kept. [`Store`] is the one door to it: batch operations, cut by what the services need, so that
//! SQLite (embedded) and PostgreSQL (many workers) can both stand behind it.
//!
//! What each operation promises:
//! - **one commit, whole or not at all**: an operation over a batch commits each *profile's* share whole or not at all and answers for
//!   each; no share depends on another profile, so a database that spreads profiles over machines may commit them one by one (SQLite
//!   commits the batch at once);
//! - **fenced**: what was claimed is written back only under the version and the claim epoch it was claimed with; the loser gets
//!   [`Committed::Conflict`] and decides again;
//! - **durable when answered**: events, decisions, send-intents, pauses and rule sets are on disk when the call returns.
//!
//! What it deliberately does not do: it decides nothing. When something is due, which state a message goes to at the gates, what
//! an event means: all of that comes in from the pure engine. The one thing it knows of messages is [`merge`], the listed ways in
//! which late results change a state.
//!
//! **An acknowledged event is applied exactly once** without a unique index on ids that clients choose (such an index costs three
//! quarters of the rate of ingestion). The store remembers in memory the ids that came in since some *edge* instant (bounded in
//! number; forgetting the oldest moves the edge; after a start the edge is the latest `received_at` on record). An event that
//! occurred after the edge and is not remembered is new, because nothing is received before it occurred; clocks differ, so the edge
//! lies as much later as an event may lie in the future ([`CLOCKS_DIFFER_MS`]). An event that occurred at or before the edge is looked
//! up among its person's stored events, and so is one that does not say when it happened: it is taken to have happened as it came, so
//! a copy of it happens later. What this cannot see is a copy that claims another time of occurrence *and* comes after its original has
//! been forgotten.

pub mod dump;
pub mod encoding;
pub mod erasure;
pub mod place;
pub mod postgres;
pub mod retention;
mod sql;
pub mod sqlite;
pub mod suppression;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use self::erasure::{Cause, Erased, Erasure};
use self::retention::{Kept, Marks, Oldest, Removal, RemovalRow, Removed};
use self::suppression::{Lift, Suppress, Suppression};
use crate::engine::action::{Channel, Entry, ExposureRecord, Message, MessageId, MessageState, Outcome, Posting, PostingKind, What};
use crate::engine::decide::{Decision, Pause, World};
use crate::engine::event::Event;
use crate::engine::profile::{Name, Profile};
use crate::engine::rule::Rule;
use crate::engine::time::{MINUTE_MS, Timestamp};

/// A profile or message claimed more often than this without a result is poison: its claimer sets it aside instead of trying again.
/// Claims are counted when they are made, so that what kills the process is counted too.
pub const CLAIMS_MAX: u32 = 3;

/// So often in vain, and a profile or message is claimed by itself from then on: whoever was claimed beside what kills the process is not
/// set aside with it.
pub const SUSPECT_AFTER: i64 = CLAIMS_MAX as i64 - 1;

/// A gap between heartbeats longer than this is downtime: nobody was there to warn anybody.
pub const HEARTBEAT_GAP_MS: i64 = 5 * MINUTE_MS;

/// In any stretch of this length a rule admits no more people than its `max_entries`; counted in whole minutes, so that none is missed.
pub const ENTRIES_WITHIN_MS: i64 = 60 * MINUTE_MS;

/// Senders' clocks are ahead of ours by so much at most, as far as finding copies goes; who allows them more (the settings'
/// `ingest.future_tolerance_seconds`) opens the store accordingly.
pub const CLOCKS_DIFFER_MS: i64 = 5 * MINUTE_MS;

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed it meanwhile: read again, decide again.
    #[error("{0} was changed meanwhile by somebody else")]
    Conflict(String),
    /// Others kept changing the same rows; trying again may help.
    #[error("others kept getting in the way: {0}")]
    Raced(String),
    /// The database does not answer, or answers with an error of its own; trying again may help.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// What is stored cannot be read. The row is named so that an operator can look at it.
    #[error("`{table}.{column}` of {key} cannot be read: {detail}")]
    Corrupt { table: &'static str, column: &'static str, key: String, detail: String },
    /// Another process has this database open.
    #[error("the database `{}` is in use by another process{}: stop that one first, or give this one a database of its own", path.display(), holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked { path: PathBuf, holder: Option<u32> },
    /// The disk is full, or what the system lets us write of it. Nothing of the operation was kept.
    #[error("the disk of the database `{}` is full, or takes no more: nothing of this step was kept, nothing earlier is lost; free some space, then go on", path.display())]
    Full { path: PathBuf },
    /// Cannot be opened at all: no directory, no permission, not a database.
    #[error("cannot open the database `{}`: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    /// Made by a newer program.
    #[error("the database `{}` has schema {found}, this program knows only up to {known}: use the newer program", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// Somebody's row may have been written by a newer program.
    #[error("the database `{}` holds states of version {found}, this program reads them only up to {known}: use the newer program", path.display())]
    NewerStates { path: PathBuf, found: i64, known: i64 },
    /// Made by an older program, and opened to read only.
    #[error("the database `{}` has schema {found}, this program's is {known}, and who only looks changes nothing: a command that writes (`import`, `release`) brings it up to date", path.display())]
    Older { path: PathBuf, found: i64, known: i64 },
}

/// A profile's own number, given once. Not an identity: those are looked up in the identity table and may change hands in a merge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProfileId(pub i64);

/// Number of a stored event: events of one profile are numbered in the order in which they were acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EventSeq(pub i64);

/// By what a sender knows a person.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Identity {
    User(Name),
    Anonymous(Name),
}

// -------------------------------------------------------------------------------------------------------------- events

/// What a sender says besides about who somebody is: two ids belong to one person.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Link {
    /// The person was seen under this anonymous id. Whoever is known under it by no user id yet is the same person; whoever is known by
    /// another user id is not (a shared device).
    Anonymous(Name),
    /// The person was known under this id until now, as a user or anonymously: whatever is known of either, they are one.
    Previous(Name),
}

/// An event on its way in.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub identity: Identity,
    /// Only beside a user id.
    pub link: Option<Link>,
    pub event: Event,
    /// Counts as the person being there: kept in the hourly counts of its source, from which quiet spans are told.
    pub active: bool,
}

/// What became of a batch of events. All of them are durable: a duplicate is acknowledged like its original.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Appended {
    pub new: u64,
    pub duplicates: u64,
    pub profiles_created: u64,
    /// Profiles that turned out to be the same person as another.
    pub profiles_merged: u64,
}

/// So many refused events are kept, the newest.
pub const REJECTS_MAX: i64 = 100_000;

/// An event that was refused at the door.
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    /// The source of the key it came by.
    pub source: Name,
    /// One sentence for its sender.
    pub reason: String,
    /// As it came, perhaps cut short.
    pub row: String,
    pub at: Timestamp,
}

/// So much of a refused event is kept.
const REJECT_BYTES_MAX: usize = 32 << 10;

impl Reject {
    /// Cut short where it is long.
    pub fn of(source: &Name, reason: String, row: &str, at: Timestamp) -> Self {
        let row = row.get(..row.floor_char_boundary(REJECT_BYTES_MAX)).unwrap_or_default().to_owned();
        Reject { source: source.clone(), reason, row, at }
    }
}

/// A refused event as stored: the same text from the same source is one row.
#[derive(Clone, Debug, PartialEq)]
pub struct RejectRow {
    pub seq: i64,
    pub source: Name,
    pub reason: String,
    pub row: String,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    pub times: u64,
}

// ---------------------------------------------------------------------------------------------------------------- keys

/// Number of a key, by which it is revoked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId(pub i64);

/// What a key opens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyScope {
    /// Sending events.
    Write,
    /// Reading people back.
    Read,
}

impl KeyScope {
    pub const ALL: [KeyScope; 2] = [KeyScope::Write, KeyScope::Read];

    pub fn name(self) -> &'static str {
        match self {
            KeyScope::Write => "write",
            KeyScope::Read => "read",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A key to be kept: its hash only.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Stands on every event that comes by the key; several keys may have the same.
    pub source: Name,
    pub scope: KeyScope,
    /// SHA-256.
    pub hash: [u8; 32],
    pub at: Timestamp,
    pub by: Name,
}

/// A key as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKey {
    pub id: KeyId,
    pub source: Name,
    pub scope: KeyScope,
    pub hash: [u8; 32],
    pub created_at: Timestamp,
    pub created_by: Name,
    /// Opens nothing since then; by whom.
    pub revoked: Option<(Timestamp, Name)>,
}

// ----------------------------------------------------------------------------------------------------------- decisions

/// What fences a claimed profile: goes back with the commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub profile: ProfileId,
    pub epoch: i64,
    pub version: i64,
    /// The newest event that the claim handed out; later ones wait for the next look.
    pub upto: EventSeq,
}

/// A due profile with all it takes to decide.
#[derive(Clone, Debug)]
pub struct ClaimedProfile {
    pub claim: Claim,
    pub profile: Profile,
    /// Everything that waits, in the order of acknowledgement.
    pub events: Vec<Event>,
    /// The instant it was due.
    pub due_at: Timestamp,
    /// This claim included; above [`CLAIMS_MAX`] it is poison: quarantine it without looking.
    pub claims: u32,
}

/// What [`Store::claim_due`] found.
#[derive(Clone, Debug, Default)]
pub struct DueProfiles {
    pub profiles: Vec<ClaimedProfile>,
    /// Set aside because their row cannot be read; the others go on.
    pub corrupt: Vec<(ProfileId, StoreError)>,
    /// The one that was claimed may be what kills its process, and there may be others.
    pub is_suspect: bool,
}

/// A person who is set aside until somebody gives them back ([`Store::reinstate`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    pub profile: ProfileId,
    pub key: Name,
    pub at: Timestamp,
    pub because: String,
}

/// A decision to be written: the profile's new row and everything that goes with it.
#[derive(Debug)]
pub struct DecisionCommit {
    pub claim: Claim,
    pub decision: Decision,
    /// Version of the rule set that decided: stands on every entry.
    pub rules_version: u64,
    /// What it counts towards, beyond this person.
    pub limits: Arc<Limits>,
}

/// What everybody's decisions together may not exceed. Who decides counts what is on record; others decide at the same time, so it is
/// counted again in the transaction that commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of a rule: entries within [`ENTRIES_WITHIN_MS`].
    pub entries: BTreeMap<Name, u64>,
    /// Of a coupon: what may be reserved of its budget since `month_start`, in minor units.
    pub budgets: BTreeMap<Name, i64>,
    pub month_start: Timestamp,
    /// A replay decides about each in their own instant, in no order of time: what was entered later than that does not count there.
    pub is_replay: bool,
}

/// Whether a profile's share of a batch was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Committed {
    Committed,
    /// Not written: the row was changed meanwhile, the claim is no longer ours, it would take a rule or a budget over its limit, or
    /// (send-intents) a fact waits to be absorbed first.
    Conflict,
}

impl Committed {
    pub fn is_committed(self) -> bool {
        self == Committed::Committed
    }
}

// ------------------------------------------------------------------------------------------------------------ messages

/// Which instant a claim is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// What is due is looked at now: a worker.
    Now(Timestamp),
    /// Whatever is due up to then is looked at in its own instant, as if a worker had been there on time: a replay. Of each person
    /// only what comes first is handed out, since it may change what follows.
    AsDue { upto: Timestamp },
}

impl Look {
    /// Nothing due later is claimed.
    pub fn upto(self) -> Timestamp {
        match self {
            Look::Now(upto) | Look::AsDue { upto } => upto,
        }
    }
}

/// The due messages of one person, claimed together, with the state that the gates ask.
#[derive(Clone, Debug)]
pub struct ClaimedMessages {
    pub profile_id: ProfileId,
    /// The profile's version as read: goes back with the intent.
    pub version: i64,
    pub profile: Profile,
    /// By (due_at, id).
    pub messages: Vec<ClaimedMessage>,
}

#[derive(Clone, Debug)]
pub struct ClaimedMessage {
    /// `due_at` is the present one (a hold moves it).
    pub message: Message,
    pub epoch: i64,
    /// This claim included; above [`CLAIMS_MAX`] it is poison: end it as dead.
    pub claims: u32,
    /// Attempts begun so far.
    pub attempts: u32,
    /// When the first attempt began; the retry schedule's age is counted from here.
    pub first_attempt_at: Option<Timestamp>,
}

/// What the gates said about the claimed messages of one person.
#[derive(Debug)]
pub struct IntentCommit {
    pub profile_id: ProfileId,
    /// The instant at which the gates were asked.
    pub at: Timestamp,
    /// As claimed.
    pub version: i64,
    /// The profile's new row; none: unchanged.
    pub profile: Option<Arc<Profile>>,
    /// The profile is due then at the latest (a hold's end, the next look); none: unchanged.
    pub due_at: Option<Timestamp>,
    pub messages: Vec<MessageIntent>,
    /// The engine's own events that `profile` has absorbed already (`coupon_issued`).
    pub own_events: Vec<Event>,
    pub entries: Vec<Entry>,
    /// Version of the rule set whose gates were asked: stands on every entry.
    pub rules_version: u64,
}

#[derive(Debug)]
pub struct MessageIntent {
    pub message: MessageId,
    pub epoch: i64,
    pub step: IntentStep,
}

/// The next state of a leased message.
#[derive(Debug)]
pub enum IntentStep {
    /// To `sending`, with attempt number `attempts + 1`: from here on a byte may leave.
    Send { at: Timestamp },
    /// Back to `queued`, due at `until` (its deadline at the latest).
    Hold { until: Timestamp, because: Arc<str> },
    /// To `blocked`, `expired`, `cancelled` or `dead`.
    End {
        state: MessageState,
        because: Arc<str>,
        /// The engine's event of it (`message_blocked` ...): makes the profile due if its run waits for that outcome.
        event: Option<(Outcome, Event)>,
    },
}

/// What became of an attempt, or what a provider reports later.
#[derive(Clone, Debug)]
pub struct MessageResult {
    pub message: MessageId,
    /// The claim's epoch for a worker's own result; none for a provider's report, which needs no claim.
    pub epoch: Option<i64>,
    pub at: Timestamp,
    pub kind: ResultKind,
    pub provider_id: Option<String>,
    /// The provider's answer in its own words, for people.
    pub detail: Option<String>,
}

#[derive(Clone, Debug)]
pub enum ResultKind {
    /// A fact about the message, with the engine's event of it (`message_accepted` ...): appended if the fact is new.
    Outcome(Outcome, Event),
    /// Not taken, but may be later: `sending` (or `unknown`, where the channel deduplicates) back to `queued`. `refused`: it definitely
    /// did not go, so its slot is pending again; otherwise the slot keeps the date of the attempt that nobody knows the fate of.
    Retry { until: Timestamp, refused: bool },
    /// The worker lets go of it untried: `leased` back to `queued`.
    Release,
}

/// What a result changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// The state afterwards; none if no such message exists.
    pub state: Option<MessageState>,
    /// The fact was new: its event is appended.
    pub new: bool,
    /// The profile is due because of it.
    pub woke: bool,
}

/// The state after `outcome` is learned about a message in `state`; none if it changes nothing. These are all the ways in which a
/// result may change a state (I6), so that results may come late, twice and in any order: `delivered` before `accepted` ends as
/// `delivered`, nothing that a provider said afterwards is undone by our own doubt.
pub fn merge(state: MessageState, outcome: Outcome) -> Option<MessageState> {
    use MessageState as S;
    match (state, outcome) {
        (S::Sending | S::Unknown, Outcome::Accepted) => Some(S::Accepted),
        (S::Sending | S::Unknown | S::Accepted, Outcome::Delivered | Outcome::Opened | Outcome::Clicked) => Some(S::Delivered),
        (S::Sending | S::Unknown | S::Accepted | S::Delivered, Outcome::Bounced) => Some(S::Bounced),
        (S::Sending, Outcome::Unknown) => Some(S::Unknown),
        (S::Sending, Outcome::Failed) => Some(S::Failed),
        (S::Sending, Outcome::Dead) => Some(S::Dead),
        _ => None,
    }
}

// --------------------------------------------------------------------------------------------------------- rules, world

/// A rule set going live.
#[derive(Clone, Debug)]
pub struct Publication {
    pub version: u64,
    pub at: Timestamp,
    pub by: String,
    pub why: String,
    /// Path within the rules directory, and text: kept by hash, so that runs finish on their version after a restart.
    pub texts: Vec<(String, String)>,
    pub rules: Vec<PublishedRule>,
    /// Where a `when` is new or changed everybody is looked at once, spread evenly over so many milliseconds (0: at once).
    pub spread_ms: i64,
    /// Fingerprint of the files on disk: those that go live, or those that a rollback sets aside until they change.
    pub files: Option<u64>,
    pub is_rollback: bool,
}

#[derive(Clone, Debug)]
pub struct PublishedRule {
    pub id: Name,
    pub when_hash: u32,
    pub hash: u64,
}

impl From<&Rule> for PublishedRule {
    fn from(rule: &Rule) -> Self {
        PublishedRule { id: rule.id.clone(), when_hash: rule.when_hash, hash: rule.hash }
    }
}

/// What a publication changed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Published {
    pub new: Vec<Name>,
    pub when_changed: Vec<Name>,
    /// Text changed, `when` not.
    pub changed: Vec<Name>,
    pub removed: Vec<Name>,
}

/// A publication on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationRow {
    pub version: u64,
    pub at: Timestamp,
    pub by: String,
    pub why: String,
    /// See [`Publication::files`].
    pub files: Option<u64>,
    pub is_rollback: bool,
    /// What became of which rule: `went live`, `` `when` changed ``, `changed`, `removed`.
    pub changes: Vec<(String, Name)>,
}

/// Rule files that were refused: what was live before stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRules {
    /// Their fingerprint.
    pub files: u64,
    pub at: Timestamp,
    /// Everything that is wrong with them, for people.
    pub because: String,
}

/// What a pause is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PauseScope {
    All,
    Rule(Name),
    Channel(Channel),
    Tag(Name),
}

impl PauseScope {
    /// Whether a send of this rule on this channel is paused by it.
    pub fn covers(&self, rule: &Rule, channel: Option<Channel>) -> bool {
        match self {
            PauseScope::All => true,
            PauseScope::Rule(id) => rule.id == *id,
            PauseScope::Channel(paused) => channel.is_none_or(|channel| channel == *paused),
            PauseScope::Tag(tag) => rule.tags.contains(tag),
        }
    }

    /// The scope's kind and name as stored; the name is empty for everything.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            PauseScope::All => ("all", ""),
            PauseScope::Rule(rule) => ("rule", rule),
            PauseScope::Channel(channel) => ("channel", channel.name()),
            PauseScope::Tag(tag) => ("tag", tag),
        }
    }
}

/// As people read it: `everything`, `rule welcome`.
impl fmt::Display for PauseScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            ("all", _) => f.write_str("everything"),
            (kind, name) => write!(f, "{kind} {name}"),
        }
    }
}

/// What an operator did, or the engine in an operator's place: append-only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    pub at: Timestamp,
    /// `paused`, `resumed`, `held`, `released`, `published` ...
    pub what: String,
    /// `rule welcome`, `everything` ...
    pub about: String,
    pub by: String,
    pub why: String,
}

/// What waits, is under way, or is in doubt at an instant: what figures tell of. Cheap to ask at any size of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// People who are due, whether somebody has claimed them or not; counted up to [`BACKLOG_MAX`].
    pub people_due: u64,
    /// Since when the one is due who waits longest.
    pub people_due_since: Option<Timestamp>,
    /// Set aside after an error; who was erased does not count.
    pub people_set_aside: u64,
    /// Queued messages whose time has come; counted up to [`BACKLOG_MAX`].
    pub messages_due: u64,
    /// Of people who are not set aside.
    pub messages_due_since: Option<Timestamp>,
    /// Of the [`PAST_DEADLINE_MAX`] that wait longest.
    pub messages_past_deadline: u64,
    /// Claimed by dispatch, or being sent.
    pub messages_under_way: u64,
    pub messages_under_way_since: Option<Timestamp>,
    pub messages_unknown: u64,
    /// For how long the oldest transaction on a server has been open, in whole seconds: as long as it is, nothing that was overwritten since
    /// it began can be tidied up, and claims walk past all of it. Ours take moments.
    pub transaction_seconds: u64,
}

/// See [`Backlog`]: a wave of a million is as late as one of this many.
pub const BACKLOG_MAX: i64 = 100_000;
pub const PAST_DEADLINE_MAX: i64 = 1_000;

/// A backup on which somebody starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restored {
    /// When the backup was taken.
    pub taken_at: Timestamp,
    /// Messages that were still to go out then, and are in doubt now.
    pub messages: u64,
}

/// The world as the store knows it, and the generation of what forbids: an intent decided under an older generation is refused.
#[derive(Clone, Debug)]
pub struct WorldView {
    pub world: Arc<World>,
    pub generation: i64,
    /// The rule set that is live, where other processes may put one live; whoever has another in use changes to it before deciding
    /// anything. None: nobody else can.
    pub live: Option<u64>,
}

/// Active events of one source in one hour (of occurrence).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceHour {
    pub source: Name,
    /// First instant of the hour.
    pub hour: Timestamp,
    pub events: u64,
}

// --------------------------------------------------------------------------------------------------------------- reads

/// A profile as it stands, read without a claim.
#[derive(Clone, Debug)]
pub struct StoredProfile {
    pub id: ProfileId,
    pub version: i64,
    pub profile: Profile,
    /// `FOREVER`: only an event.
    pub due_at: Timestamp,
    /// Acknowledged and not absorbed yet.
    pub waiting: Vec<Event>,
    /// Set aside since then, and why.
    pub quarantined: Option<(Timestamp, String)>,
    /// Turned out to be the same person as that one, who has heard its facts; only what the shop did for it stays here.
    pub merged_into: Option<ProfileId>,
}

/// A person's row as it stands, for whoever reads it back.
#[derive(Clone, Debug, PartialEq)]
pub struct Glance {
    pub id: ProfileId,
    pub profile: Profile,
    /// Events that the row has not absorbed yet.
    pub waiting: usize,
}

/// Some people, by id.
#[derive(Clone, Debug, Default)]
pub struct ProfilePage {
    pub profiles: Vec<StoredProfile>,
    /// Those whose row cannot be read, by their key; the others are not kept from anybody because of them.
    pub unreadable: Vec<(ProfileId, Name, StoreError)>,
    /// Where the next page begins; none: this was the last.
    pub last: Option<ProfileId>,
}

/// Everything that is on record about one person, each in order of time.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By (occurred_at, id); the flag tells whether it has been absorbed.
    pub events: Vec<(Event, bool)>,
    pub postings: Vec<Posting>,
    pub entries: Vec<EntryRow>,
    pub messages: Vec<MessageRow>,
    pub exposures: Vec<ExposureRecord>,
    pub identities: Vec<Identity>,
    /// The proofs of consent, by event.
    pub consents: Vec<ConsentRecord>,
    /// What was removed because its time was over: the rest of what is here cannot tell of it.
    pub removed: Marks,
    /// Profiles that turned out to be the same person: closed, with what the shop did for them.
    pub merged: Vec<ProfileId>,
}

/// A proof of consent as kept for as long as it may be asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsentRecord {
    /// Id and source of the event it came by.
    pub event: Name,
    pub source: Name,
    pub purpose: Name,
    pub channel: Name,
    pub granted: bool,
    pub occurred_at: Timestamp,
}

/// A line of the decision log as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryRow {
    pub seq: i64,
    pub profile: ProfileId,
    pub rules_version: u64,
    pub entry: Entry,
}

/// An event as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    pub seq: EventSeq,
    pub profile: ProfileId,
    pub event: Event,
}

/// A message as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRow {
    pub profile: ProfileId,
    pub message: Message,
    pub state: MessageState,
    /// Why it waits or ended, if somebody said so.
    pub because: Option<Arc<str>>,
    /// The instant of the latest change of state.
    pub changed_at: Timestamp,
    /// Every outcome known: a sum of [`Outcome::bit`].
    pub outcomes: u16,
    /// Tries begun, as the message counts them.
    pub tries: u32,
    /// The record of consent that let it go (the number of its event), if one had to.
    pub consent: Option<EventSeq>,
    pub attempts: Vec<Attempt>,
}

/// One try at a provider: append-only evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub number: u32,
    pub worker: Name,
    pub started_at: Timestamp,
    /// None: the result was never recorded.
    pub ended_at: Option<Timestamp>,
    /// `accepted`, `failed`, `unknown`, `retry` ...
    pub outcome: Option<Name>,
    pub provider_id: Option<String>,
    pub detail: Option<String>,
}

/// Sums for summaries, over everything on record.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Counts {
    pub profiles: u64,
    pub quarantined: u64,
    pub events: u64,
    /// (rule, step, what, outcome): lines of the decision log; the outcome is that of `ended` and `result`, else empty.
    pub entries: BTreeMap<(Name, Name, What, Name), u64>,
    /// (rule, step, channel, state): messages.
    pub messages: BTreeMap<(Name, Name, Channel, MessageState), u64>,
    /// (kind, class): postings and the sum of their points.
    pub postings: BTreeMap<(PostingKind, Name), (u64, i64)>,
    /// (rule, held out): runs.
    pub exposures: BTreeMap<(Name, bool), u64>,
    pub attempts: u64,
}

/// What one process tells the others: that there is something to look at now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// Somebody is due.
    People,
    /// A message is to go out.
    Messages,
}

impl Call {
    pub const ALL: [Call; 2] = [Call::People, Call::Messages];

    pub fn name(self) -> &'static str {
        match self {
            Call::People => "people",
            Call::Messages => "messages",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.name() == name)
    }
}

/// The store: see the module's documentation for what its operations promise. All instants come from the caller.
#[async_trait]
pub trait Store: Send + Sync {
    // -- facts come in

    /// Appends events, each exactly once per (source, id), creating profiles for identities not seen before. Their profiles are
    /// due at the event's received instant. Durable when it returns: then the sender may be told so.
    ///
    /// [`Link`]s are followed in the order of the batch, before any of its events finds its person. Two profiles that turn out to be one
    /// person are merged: the one that stays hears the facts of the other, each once, and what the shop did for it
    /// ([`crate::engine::merge`]); the other is closed. Two steps, each of which may be done again.
    async fn append_events(&self, events: Vec<NewEvent>) -> Result<Appended, StoreError>;

    /// Keeps what was refused at the door; of many the newest [`REJECTS_MAX`].
    async fn keep_rejects(&self, rejects: Vec<Reject>) -> Result<(), StoreError>;

    /// Refused events after `after` by number, up to `limit`.
    async fn rejects(&self, after: i64, limit: usize) -> Result<Vec<RejectRow>, StoreError>;

    async fn add_key(&self, key: NewKey) -> Result<KeyId, StoreError>;

    /// False: there is no such key, or it is revoked already.
    async fn revoke_key(&self, id: KeyId, at: Timestamp, by: &str) -> Result<bool, StoreError>;

    /// Every key, revoked ones too.
    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError>;

    // -- evaluate

    /// Claims up to `limit` profiles that are due at `now`, the longest due first (where people are spread over machines: of those that lie
    /// together). One that was claimed [`SUSPECT_AFTER`] times without a
    /// result is claimed alone.
    async fn claim_due(&self, now: Timestamp, limit: usize, worker: &str) -> Result<DueProfiles, StoreError>;

    /// Writes decisions: new row and due instant, messages (once per dedupe key), cancellations of what is still queued or leased,
    /// postings, exposures, own events (absorbed already), log entries, entries for the brake, coupon budgets. Ends the claims,
    /// those that conflict too (their profiles stay due). The answers stand in the order of the batch. What would exceed [`Limits`] conflicts,
    /// whoever else commits at the same time.
    async fn commit_decisions(&self, batch: Vec<DecisionCommit>) -> Result<Vec<Committed>, StoreError>;

    /// Gives claimed profiles back: they stay due, and the claim does not count unless it is said to. Those whose claim is over stay as
    /// they are.
    async fn release_profiles(&self, claims: Vec<Claim>, counts: bool) -> Result<(), StoreError>;

    /// Sets claimed profiles aside, with the reason: never due again until [`Store::reinstate`]; their events wait.
    async fn quarantine(&self, at: Timestamp, profiles: Vec<(Claim, String)>) -> Result<(), StoreError>;

    /// Makes these profiles due at `at` at the latest, out of quarantine too.
    async fn reinstate(&self, at: Timestamp, profiles: Vec<ProfileId>) -> Result<(), StoreError>;

    /// Who is set aside after `after` by id, up to `limit`; not those who were merged or erased, whom nobody gives back.
    async fn set_aside(&self, after: Option<ProfileId>, limit: usize) -> Result<Vec<SetAside>, StoreError>;

    /// Makes everybody due once, spread evenly over `spread_ms` from `at` on (after a release, a resume, a repaired source).
    async fn make_all_due(&self, at: Timestamp, spread_ms: i64) -> Result<u64, StoreError>;

    /// Entries per rule since an instant (in whole minutes, rounded so that none is missed): what the brake counts.
    async fn entries_since(&self, since: Timestamp) -> Result<BTreeMap<Name, u64>, StoreError>;

    // -- dispatch

    /// Claims up to `limit` messages that are due, grouped by person. Left out while their profile is itself due or set aside: facts
    /// come before messages. One that was claimed [`SUSPECT_AFTER`] times without a result is claimed alone, when no other is due (not in a
    /// replay).
    async fn claim_messages(&self, look: Look, limit: usize, worker: &str) -> Result<Vec<ClaimedMessages>, StoreError>;

    /// What an earlier life of this worker left in `sending`: nobody knows whether it went out. Claims nothing new: record a result
    /// ([`Outcome::Unknown`], or a retry on a channel that deduplicates) under the epoch given.
    async fn interrupted(&self) -> Result<Vec<ClaimedMessages>, StoreError>;

    /// Writes the gates' answers. A person's share conflicts if the row's version changed, a claim is no longer ours, a fact waits to be
    /// absorbed (the profile is then due at once), the profile is due, something was paused since `generation` ([`WorldView`]), or an address
    /// that would be written to is on the suppression list: that becomes a fact of the person, who is due at once.
    /// After a conflict the messages are queued again, untouched.
    async fn commit_intents(&self, generation: i64, batch: Vec<IntentCommit>) -> Result<Vec<Committed>, StoreError>;

    /// Records what became of attempts, and what providers report. Never refuses evidence: a result that may not change the state
    /// any more still ends its attempt.
    async fn record_results(&self, batch: Vec<MessageResult>) -> Result<Vec<Recorded>, StoreError>;

    /// Messages still to go out (queued or leased), numbered by their place in the outbox, after `after` (0: from the beginning), up to
    /// `limit`: for walking over them. Their attempts are left out.
    async fn open_messages(&self, after: i64, limit: usize) -> Result<Vec<(i64, MessageRow)>, StoreError>;

    /// Makes queued messages due at `at` at the latest: what a gate held until somebody resumes.
    async fn wake_messages(&self, at: Timestamp, messages: Vec<MessageId>) -> Result<(), StoreError>;

    // -- addresses

    /// Puts addresses on the suppression list and appends the facts that go with them, in one commit. The answers, in the order of the
    /// batch: false where the fact was on record already, so that nothing was done, or where there is no fact and the list had it.
    /// Durable when it returns.
    async fn suppress(&self, batch: Vec<Suppress>) -> Result<Vec<bool>, StoreError>;

    /// Takes an address off the list; how many entries that were.
    async fn lift(&self, lift: Lift) -> Result<u64, StoreError>;

    /// What the list says about an address, what is over too.
    async fn suppressions(&self, channel: Channel, address: &str) -> Result<Vec<Suppression>, StoreError>;

    // -- people's rights

    /// Erases a person in one commit: their events, consents and names are deleted, what counts are made of is emptied of everything that
    /// speaks of them, their addresses go on the suppression list (if it was [`Cause::Asked`] for), what is still to go is cancelled. What stays is the ledger under
    /// a number, and a record by the hash of their names, by which their old facts are known and left out when they come in once more.
    /// Profiles that were merged into the person go with it.
    async fn erase(&self, erasure: Erasure, cause: Cause) -> Result<Erased, StoreError>;

    /// The record of an erasure, for who asks by the name that was erased.
    async fn erasure_of(&self, identity: &Identity) -> Result<Option<(Erasure, Erased)>, StoreError>;

    // -- backups

    /// What must be done at the first start on a restored backup, in one commit; none if this database is no backup, or was started on
    /// before. Everything is paused, and what was still to go out when the backup was taken is `unknown`, with its event: the original
    /// may have sent it since. (A database that cannot tell that it was restored answers none.)
    async fn after_restore(&self, at: Timestamp) -> Result<Option<Restored>, StoreError>;

    // -- how long what is kept

    /// Walks over the oldest rows of a kind, from row number `after` (0: from the beginning) over `limit` rows at most, and tells whose
    /// are older than `before`. Of events, messages and decisions: rejects and people are found otherwise.
    async fn oldest(&self, kind: Kept, before: Timestamp, after: i64, limit: usize) -> Result<Oldest, StoreError>;

    /// Removes rows, notes of whom ([`History::removed`]), and counts them in the record of the pass. A fact that was removed and comes in
    /// once more is a duplicate all the same.
    async fn remove(&self, removal: Removal) -> Result<Removed, StoreError>;

    /// Removes up to `limit` rejects that came last before `before`; how many, noted in the record of the pass that began at `at`.
    async fn remove_rejects(&self, at: Timestamp, before: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// What passes removed, the latest first.
    async fn removals(&self, limit: usize) -> Result<Vec<RemovalRow>, StoreError>;

    // -- rules and operators

    /// Puts a rule set live, on record. Who publishes then takes it into use, and calls [`Store::finish_first_looks`] last: a look by
    /// the rules of before would use somebody's first look up.
    async fn publish_rules(&self, publication: Publication) -> Result<Published, StoreError>;

    /// Makes due whoever must have a first look at what was published; how many. Opening a database does it too, so that a crash
    /// between the two calls loses nobody.
    async fn finish_first_looks(&self) -> Result<u64, StoreError>;

    /// The version live now, if any.
    async fn current_version(&self) -> Result<Option<u64>, StoreError>;

    /// What went live, the latest first: the first one is live now.
    async fn publications(&self, limit: usize) -> Result<Vec<PublicationRow>, StoreError>;

    /// Says anew by whom and why the live set was put live.
    async fn explain_publication(&self, by: &str, why: &str) -> Result<(), StoreError>;

    /// The files on disk, with this fingerprint, mean what is live; nothing is refused any more.
    async fn agree_with_files(&self, files: u64) -> Result<(), StoreError>;

    /// Notes that the files on disk were refused, until others are published or agreed with.
    async fn refuse_rules(&self, refused: RefusedRules) -> Result<(), StoreError>;

    /// The files that were refused at the latest look, if they were.
    async fn refused_rules(&self) -> Result<Option<RefusedRules>, StoreError>;

    /// The texts of a version, by path; none if it was never live here.
    async fn texts_of(&self, version: u64) -> Result<Option<Vec<(String, String)>>, StoreError>;

    /// The world; budgets are what was used since `month_start` (first instant of the month in the shop's zone). Cheap: answered
    /// from memory while nothing in it changed.
    async fn world(&self, month_start: Timestamp) -> Result<WorldView, StoreError>;

    /// The generation of what forbids, as [`WorldView`] has it. Cheap: asked before each message that leaves.
    async fn generation(&self) -> Result<i64, StoreError>;

    /// Pauses, or resumes (`None`). `by` is written to the history.
    async fn set_pause(&self, at: Timestamp, scope: PauseScope, pause: Option<Pause>, by: &str) -> Result<(), StoreError>;

    /// What operators did last, the latest first.
    async fn operations(&self, limit: usize) -> Result<Vec<Operation>, StoreError>;

    /// Puts a rule on hold by its brake, or releases it (`None`).
    async fn set_hold(&self, at: Timestamp, rule: &str, hold: Option<Pause>, by: &str) -> Result<(), StoreError>;

    /// Notes that this worker has been alive from `since` to `now` (a loop that beats says `now` twice; a replay speaks for a stretch
    /// at once). A gap between anybody's latest heartbeat and `since` longer than [`HEARTBEAT_GAP_MS`] becomes downtime.
    async fn heartbeat(&self, worker: &str, since: Timestamp, now: Timestamp) -> Result<(), StoreError>;

    /// The latest heartbeat of anybody; none: nobody has worked here yet.
    async fn latest_heartbeat(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Hourly counts of active events from `since` on.
    async fn source_hours(&self, since: Timestamp) -> Result<Vec<SourceHour>, StoreError>;

    /// Writes when the activity source was quiet: `until` may be `FOREVER` (still quiet) and is replaced when the span ends.
    async fn record_quiet(&self, from: Timestamp, until: Timestamp) -> Result<(), StoreError>;

    // -- reads

    /// Who has something due up to `upto`, and when first: where a replay goes on, person by person.
    async fn agenda(&self, upto: Timestamp) -> Result<Vec<(ProfileId, Timestamp)>, StoreError>;

    /// The smallest instant at which a profile or a queued message is due: where a virtual clock jumps to. None: nothing ever.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;

    /// The name this database was first opened under.
    async fn environment(&self) -> Result<String, StoreError>;

    async fn find_profile(&self, identity: &Identity) -> Result<Option<ProfileId>, StoreError> {
        Ok(self.find_profiles(std::slice::from_ref(identity)).await?.pop().flatten())
    }

    /// Whose each identity is, in their order.
    async fn find_profiles(&self, identities: &[Identity]) -> Result<Vec<Option<ProfileId>>, StoreError>;

    async fn profile(&self, id: ProfileId) -> Result<Option<StoredProfile>, StoreError>;

    /// The row of whoever is known by that identity, in one step: a till waits for it.
    async fn glance(&self, identity: &Identity) -> Result<Option<Glance>, StoreError> {
        let Some(id) = self.find_profile(identity).await? else { return Ok(None) };
        let stored = self.profile(id).await?;
        Ok(stored.map(|stored| Glance { id, waiting: stored.waiting.len(), profile: stored.profile }))
    }

    /// Profiles after `after` by id, up to `limit`: for walking over everybody. One that cannot be read does not stop the others.
    async fn profiles(&self, after: Option<ProfileId>, limit: usize) -> Result<ProfilePage, StoreError>;

    async fn history(&self, id: ProfileId) -> Result<History, StoreError>;

    /// Messages by id, in no order; unknown ids are left out.
    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<MessageRow>, StoreError>;

    /// The decision log after `after` (0: from the beginning), up to `limit` lines: for walking over everything.
    async fn entries(&self, after: i64, limit: usize) -> Result<Vec<EntryRow>, StoreError>;

    /// The events after `after` in the order in which they were acknowledged, up to `limit`: for walking over everything.
    async fn events(&self, after: EventSeq, limit: usize) -> Result<Vec<EventRow>, StoreError>;

    async fn counts(&self) -> Result<Counts, StoreError>;

    /// How many attempts were begun on each channel on each day (UTC; its first instant), recorded ones aside: from which warm-ups and
    /// daily limits go on after a restart.
    async fn days_sent(&self) -> Result<Vec<(Channel, Timestamp, u64)>, StoreError>;

    /// What waits, is under way, or is in doubt at `now`.
    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError>;

    /// Whether what this process has claimed is still its own, as far as it can tell without asking: who may not count on it lets no byte
    /// leave. False after a pause or a lost connection so long that another process may have taken over.
    fn may_send(&self) -> bool;

    /// How many other processes work on this database now.
    async fn company(&self) -> Result<u64, StoreError>;

    /// The next time that another process has made somebody due, or queued a message. A hint: it may come late or not at all, so whoever waits
    /// for it looks by itself as well. Where there is no other process it never comes.
    async fn called(&self) -> Call {
        std::future::pending().await
    }

    /// Waits until everything is written, and lets the database go. Whatever is asked afterwards fails.
    async fn close(&self);

    /// Everything about one person as text, in a stable form: for snapshots of stories.
    async fn dump(&self, id: ProfileId) -> Result<String, StoreError>;
}
