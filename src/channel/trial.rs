//! The allow-list of a trial: only the recipients that the administrator names are really written to; every other message goes to the
//! recording channel, where it can be read. Everything else (gates, caps, receipts) is as it will be.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Channel, Outcome, Outgoing};
use crate::settings::recipients::AllowList;

/// A provider in a trial.
pub struct Trial {
    pub allowed: AllowList,
    pub provider: Arc<dyn Channel>,
    pub recording: Arc<dyn Channel>,
}

#[async_trait]
impl Channel for Trial {
    fn deduplicates(&self) -> bool {
        self.provider.deduplicates() && self.recording.deduplicates()
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        let way = if self.allowed.allows(outgoing.address) { &self.provider } else { &self.recording };
        way.send(outgoing).await
    }
}
