//! What a decision wants done: messages, postings, exposures, events of the engine's own, and the record of it all. Values, not
//! deeds: the store commits them, `dispatch` sends.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::profile::{Category, Name};
use super::time::Timestamp;

/// How a message travels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Channel {
    Email,
    Push,
    Sms,
    Whatsapp,
    Inapp,
    Webhook,
}

impl Channel {
    pub const ALL: [Channel; 6] = [Channel::Email, Channel::Push, Channel::Sms, Channel::Whatsapp, Channel::Inapp, Channel::Webhook];

    /// Whether the person must have said where: the app's own inbox and a system of the shop's know people by their id.
    pub fn needs_address(self) -> bool {
        !matches!(self, Channel::Inapp | Channel::Webhook)
    }

    pub fn name(self) -> &'static str {
        match self {
            Channel::Email => "email",
            Channel::Push => "push",
            Channel::Sms => "sms",
            Channel::Whatsapp => "whatsapp",
            Channel::Inapp => "inapp",
            Channel::Webhook => "webhook",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Whether providers of this channel report delivery. Where they do not, "accepted and not bounced for 24 h" counts as
    /// delivered (I10).
    pub fn has_receipts(self) -> bool {
        matches!(self, Channel::Sms | Channel::Whatsapp | Channel::Inapp | Channel::Webhook)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A message's id: time-ordered, the same at every retry, and derived from the dedupe key, so that deciding twice cannot make two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

impl MessageId {
    /// UUIDv7-shaped: 48 bits of the decision's time, then 74 bits of the dedupe key.
    pub fn derive(decided_at: Timestamp, dedupe_key: u128) -> Self {
        let time = (decided_at.as_ms().max(0) as u128 & 0xffff_ffff_ffff) << 80;
        let rand_a = (dedupe_key >> 64 & 0x0fff) << 64;
        let rand_b = dedupe_key & 0x3fff_ffff_ffff_ffff;
        MessageId(time | 0x7 << 76 | rand_a | 0b10 << 62 | rand_b)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        (hex.len() == 32).then(|| u128::from_str_radix(&hex, 16).ok().map(MessageId)).flatten()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            v >> 80 & 0xffff,
            v >> 64 & 0xffff,
            v >> 48 & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// hash(rule id, key, run number, profile, step, channel): one message per such key, whatever happens (I1). The rule's version is
/// not in it.
pub fn dedupe_key(rule: &str, key: &str, run: u32, profile: &str, step: &str, channel: Channel) -> u128 {
    let text = format!("{rule}\0{key}\0{run}\0{profile}\0{step}\0{}", channel.name());
    twox_hash::XxHash3_128::oneshot(text.as_bytes())
}

/// The twelve states of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MessageState {
    Queued,
    Leased,
    Sending,
    Accepted,
    Delivered,
    Unknown,
    Bounced,
    Failed,
    Blocked,
    Expired,
    Cancelled,
    Dead,
}

impl MessageState {
    pub const ALL: [MessageState; 12] = [
        MessageState::Queued,
        MessageState::Leased,
        MessageState::Sending,
        MessageState::Accepted,
        MessageState::Delivered,
        MessageState::Unknown,
        MessageState::Bounced,
        MessageState::Failed,
        MessageState::Blocked,
        MessageState::Expired,
        MessageState::Cancelled,
        MessageState::Dead,
    ];

    pub fn name(self) -> &'static str {
        match self {
            MessageState::Queued => "queued",
            MessageState::Leased => "leased",
            MessageState::Sending => "sending",
            MessageState::Accepted => "accepted",
            MessageState::Delivered => "delivered",
            MessageState::Unknown => "unknown",
            MessageState::Bounced => "bounced",
            MessageState::Failed => "failed",
            MessageState::Blocked => "blocked",
            MessageState::Expired => "expired",
            MessageState::Cancelled => "cancelled",
            MessageState::Dead => "dead",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Queued, leased or sending: it may still go out.
    pub fn is_open(self) -> bool {
        matches!(self, MessageState::Queued | MessageState::Leased | MessageState::Sending)
    }
}

/// What became of a message, as a run hears of it (the engine's events `message_*`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    Accepted,
    Delivered,
    Opened,
    Clicked,
    /// Definitely not accepted: the slot is free again.
    Failed,
    Bounced,
    /// Nobody knows whether it went out.
    Unknown,
    /// Ended by us before any provider had it: blocked, expired, cancelled, dead.
    Blocked,
    Expired,
    Cancelled,
    Dead,
}

impl Outcome {
    pub const ALL: [Outcome; 11] = [
        Outcome::Accepted,
        Outcome::Delivered,
        Outcome::Opened,
        Outcome::Clicked,
        Outcome::Failed,
        Outcome::Bounced,
        Outcome::Unknown,
        Outcome::Blocked,
        Outcome::Expired,
        Outcome::Cancelled,
        Outcome::Dead,
    ];

    /// `accepted` ...; the engine's event is `message_` and this.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Delivered => "delivered",
            Outcome::Opened => "opened",
            Outcome::Clicked => "clicked",
            Outcome::Failed => "failed",
            Outcome::Bounced => "bounced",
            Outcome::Unknown => "unknown",
            Outcome::Blocked => "blocked",
            Outcome::Expired => "expired",
            Outcome::Cancelled => "cancelled",
            Outcome::Dead => "dead",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.name() == name)
    }

    /// Several as a sum of their bits.
    pub fn bits(outcomes: &[Outcome]) -> u16 {
        outcomes.iter().fold(0, |sum, outcome| sum | outcome.bit())
    }

    /// The bit of this outcome in [`Message::wakes_on`].
    pub fn bit(self) -> u16 {
        1 << Self::ALL.iter().position(|o| *o == self).unwrap_or(0)
    }
}

/// A message to be sent: what the decision knows of it. Content is rendered as it goes out.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub id: MessageId,
    pub dedupe_key: u128,
    pub rule: Name,
    /// Rule set the run is on.
    pub version: u64,
    pub run_key: Name,
    pub run: u32,
    pub step: Name,
    pub channel: Channel,
    pub category: Category,
    pub template: Name,
    /// Translations that may be used; empty: all.
    pub languages: Vec<Name>,
    pub decided_at: Timestamp,
    pub due_at: Timestamp,
    /// The deadline: the planned instant plus `max_late`. Past it the message ends as `expired`.
    pub expires_at: Timestamp,
    pub priority: u8,
    /// Outcomes that make the profile due, because its run waits for them: a sum of [`Outcome::bit`].
    pub wakes_on: u16,
    /// `event`, `offer`, `notice` and the step's `data`, for the template.
    pub data: Map<String, Json>,
}

/// One row of the append-only ledger: points granted, gone, taken, given back.
#[derive(Clone, Debug, PartialEq)]
pub struct Posting {
    /// Number within the profile: with it the posting's unique key.
    pub number: u32,
    pub kind: PostingKind,
    pub class: Name,
    /// Positive: the person has more; negative: less.
    pub amount: i64,
    pub at: Timestamp,
    /// (lot, amount), the sum is `amount`.
    pub allocations: Vec<(u32, i64)>,
    /// The reason a rule or earn entry gave: `silence-1`, `order_completed`.
    pub reason: Name,
    pub rule: Option<Name>,
    pub run: Option<u32>,
    pub step: Option<Name>,
    /// The notice of a take.
    pub notice: Option<MessageId>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PostingKind {
    Grant,
    Expire,
    /// Lapsed by inactivity: may come back.
    Lapse,
    Take,
    Restore,
    /// A refund takes back what the order earned.
    Reverse,
    Spend,
}

impl PostingKind {
    pub const ALL: [PostingKind; 7] = [
        PostingKind::Grant,
        PostingKind::Expire,
        PostingKind::Lapse,
        PostingKind::Take,
        PostingKind::Restore,
        PostingKind::Reverse,
        PostingKind::Spend,
    ];

    pub fn name(self) -> &'static str {
        match self {
            PostingKind::Grant => "grant",
            PostingKind::Expire => "expire",
            PostingKind::Lapse => "lapse",
            PostingKind::Take => "take",
            PostingKind::Restore => "restore",
            PostingKind::Reverse => "reverse",
            PostingKind::Spend => "spend",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// Who was treated and who held out, written once per run.
#[derive(Clone, Debug, PartialEq)]
pub struct ExposureRecord {
    pub rule: Name,
    pub run_key: Name,
    pub run: u32,
    pub at: Timestamp,
    pub held_out: bool,
    /// `policy` or the rule's own salt.
    pub by: Name,
}

/// One line of "what we did and did not do": the decision log, `timeline`, the counts of `demo` and `simulate`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub at: Timestamp,
    pub rule: Name,
    /// 0 where no run exists (skipped as existing, refused at the start).
    pub run: u32,
    /// Empty for what concerns the run as a whole.
    pub step: Name,
    pub what: What,
    /// One sentence: because of what, and until when.
    pub because: Arc<str>,
    pub until: Option<Timestamp>,
}

impl Entry {
    /// What held, dropped or skipped it, and why: the log writes `gate: because`.
    pub fn gate_and_reason(&self) -> (&str, &str) {
        self.because.split_once(": ").unwrap_or((&self.because, ""))
    }
}

/// A step's note to the people who run the shop. Its entry in the log says it with the text as the rule has it, until
/// `message::write_alerts` has rendered it.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Index of its entry among those of the decision.
    pub entry: usize,
    /// `notice`, `warning` or `critical`.
    pub level: Name,
    /// Names of `policy.notify`.
    pub notify: Vec<Name>,
    /// Liquid; none: who it is about, and the rule.
    pub text: Option<Name>,
    /// Properties of the event that started the run.
    pub event: Map<String, Json>,
}

impl Alert {
    /// What stands in the log, with the text in words.
    pub fn sentence(&self, text: &str) -> String {
        format!("{} for {}: {text}", self.level, self.notify.join(", "))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum What {
    /// A run began.
    Entered,
    /// Skipped: satisfied `when` already as the rule first saw the person.
    Existing,
    /// `when` holds, `for` runs.
    Pending,
    /// A passage or firing for which no run began: `reentry`, `only_if_at_start`, `at_most`.
    Refused,
    /// An `at` firing that came too late.
    Missed,
    /// A run ended; `because` is its outcome.
    Ended,
    /// A message was queued.
    Queued,
    /// An action other than a message or an alert happened.
    Acted,
    /// Somebody of the shop is to know: level, names and text.
    Alerted,
    /// What a step of a rule in shadow would have done.
    Shadowed,
    /// The step was skipped: audience, `if`, holdout.
    Skipped,
    /// A gate, `require` or `notice` said "not now, until".
    Held,
    /// The step ended unsent: dropped by a gate, refused on every channel, expired.
    Dropped,
    /// A message's result arrived; `because` is the outcome.
    Result,
    /// An error in this rule for this person; the rule is set aside here and the others go on.
    Quarantined,
}

impl What {
    pub const ALL: [What; 15] = [
        What::Entered,
        What::Existing,
        What::Pending,
        What::Refused,
        What::Missed,
        What::Ended,
        What::Queued,
        What::Acted,
        What::Alerted,
        What::Shadowed,
        What::Skipped,
        What::Held,
        What::Dropped,
        What::Result,
        What::Quarantined,
    ];

    pub fn name(self) -> &'static str {
        match self {
            What::Entered => "entered",
            What::Existing => "existing",
            What::Pending => "pending",
            What::Refused => "refused",
            What::Missed => "missed",
            What::Ended => "ended",
            What::Queued => "queued",
            What::Acted => "acted",
            What::Alerted => "alerted",
            What::Shadowed => "shadowed",
            What::Skipped => "skipped",
            What::Held => "held",
            What::Dropped => "dropped",
            What::Result => "result",
            What::Quarantined => "quarantined",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|w| w.name() == name)
    }
}
