//! The ways out. A channel speaks one protocol and answers with an [`Outcome`]; when to try again, what a refusal means for a
//! person's address, and whether a message may go at all is decided elsewhere (`dispatch`, `engine`).

pub mod callback;
pub mod http;
pub mod recording;

use async_trait::async_trait;

use crate::engine::action::{Channel as Kind, MessageId, Outcome as Fact};
use crate::engine::time::Timestamp;
use crate::message::Content;

/// A message as it leaves: rendered, addressed, and for the `attempt`-th time.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// The same at every attempt: what a provider deduplicates and correlates by.
    pub message: MessageId,
    /// From 1.
    pub attempt: u32,
    pub kind: Kind,
    pub at: Timestamp,
    /// The person's key.
    pub profile: &'a str,
    /// E-mail address, phone number, push token; empty where the channel needs none. Never logged.
    pub address: &'a str,
    pub rule: &'a str,
    pub template: &'a str,
    pub content: &'a Content,
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The provider has it.
    Accepted { provider_id: String },
    /// Definitely not taken, but may be later. `after_ms`: the provider's own word, which goes before our schedule.
    Retry { class: RetryClass, after_ms: Option<i64>, detail: String },
    /// Definitely not taken, and never will be. `suppress`: because of the address, which goes on the suppression list.
    Rejected { suppress: bool, detail: String },
    /// It may have gone out, and nobody knows. `ask_again`: sending it once more under the same id would tell, without a second copy.
    Ambiguous { ask_again: bool, detail: String },
}

/// Why an attempt may be repeated: each has a schedule of its own (`dispatch/retry.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// We are too fast (429, 421 4.7.x): the message is not at fault.
    Throttle,
    /// The connection or the provider failed.
    Transient,
    /// Our own account is refused (401, 535): no message gets through until an operator mends it.
    Config,
}

/// One way out.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Whether a second send of the same id does no harm and answers like the first: then what a crash left in doubt is sent again.
    fn deduplicates(&self) -> bool;

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome;
}

/// What a provider says of a message some time after it took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt {
    pub at: Timestamp,
    pub message: MessageId,
    pub outcome: Fact,
}
