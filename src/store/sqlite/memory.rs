//! What the writer remembers between transactions: the next numbers, and the ids of the events that came in lately. All of it can be
//! lost: it is read again from the tables at the next start, or made up for by a look into them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::engine::time::Timestamp;
use crate::store::sql::{self, Supply};
use crate::store::suppression::Hasher;
use crate::store::{EventSeq, ProfileId, StoreError};

/// Numbers that only the writer gives out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub next_profile: i64,
    pub next_event: i64,
    pub next_epoch: i64,
    pub profiles: u64,
    /// Changes whenever something is forbidden or allowed again: what the gates saw before that no longer stands.
    pub generation: i64,
    /// Changes whenever anything in the world changes.
    pub world: i64,
    /// Whether any address is on the suppression list: nobody is looked up on an empty one.
    pub suppressed: bool,
    /// Whether anybody was ever erased: their old facts are looked for only then.
    pub erased: bool,
}

pub(super) struct Memory {
    pub numbers: Numbers,
    at_begin: Numbers,
    ids: RecentIds,
    hasher: Arc<Hasher>,
}

impl Memory {
    pub fn new(numbers: Numbers, ids: RecentIds, hasher: Arc<Hasher>) -> Self {
        Memory { numbers, at_begin: numbers, ids, hasher }
    }

    pub fn begin(&mut self) {
        self.at_begin = self.numbers;
    }

    pub fn commit(&mut self) {
        self.ids.keep();
    }

    pub fn roll_back(&mut self) {
        self.numbers = self.at_begin;
        self.ids.undo();
    }
}

impl sql::Memory for Memory {
    fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The only writer numbers without asking.
    fn supply(&mut self, _supply: Supply) {}

    fn event_seq(&mut self) -> Result<EventSeq, StoreError> {
        let seq = self.numbers.next_event;
        self.numbers.next_event += 1;
        Ok(EventSeq(seq))
    }

    fn next_event(&self) -> i64 {
        self.numbers.next_event
    }

    fn profile_id(&mut self) -> Result<ProfileId, StoreError> {
        let id = self.numbers.next_profile;
        self.numbers.next_profile += 1;
        self.numbers.profiles += 1;
        Ok(ProfileId(id))
    }

    fn epoch(&mut self) -> i64 {
        let epoch = self.numbers.next_epoch;
        self.numbers.next_epoch += 1;
        epoch
    }

    fn generation(&self) -> i64 {
        self.numbers.generation
    }

    fn forbid(&mut self) {
        self.numbers.generation += 1;
        self.numbers.world += 1;
    }

    fn change_world(&mut self) {
        self.numbers.world += 1;
    }

    fn may_have_suppressed(&self) -> bool {
        self.numbers.suppressed
    }

    fn note_suppressed(&mut self) {
        self.numbers.suppressed = true;
    }

    fn may_have_erased(&self) -> bool {
        self.numbers.erased
    }

    fn note_erased(&mut self) {
        self.numbers.erased = true;
    }

    fn recent_owner(&mut self, hash: i64) -> Option<ProfileId> {
        self.ids.owner(hash)
    }

    fn may_be_forgotten(&mut self, occurred_at: Timestamp) -> bool {
        self.ids.may_be_forgotten(occurred_at)
    }

    fn remember(&mut self, hash: i64, owner: ProfileId, received_at: Timestamp) {
        self.ids.remember(hash, owner, received_at);
    }
}

/// The ids received since `edge`, with whose event it was. Bounded: the oldest are forgotten, and the edge moves to the instant at
/// which the forgotten ones were received. About 50 bytes an id.
pub(super) struct RecentIds {
    edge: Timestamp,
    /// How much later than it was received an event may claim to have occurred.
    ahead_ms: i64,
    max: usize,
    owners: HashMap<i64, ProfileId>,
    order: VecDeque<(i64, Timestamp)>,
    /// Added in the open transaction.
    added: usize,
}

impl RecentIds {
    /// What was received up to `received_until` is not remembered.
    pub fn new(received_until: Timestamp, ahead_ms: i64, max: usize) -> Self {
        RecentIds { edge: received_until.plus_ms(ahead_ms), ahead_ms, max, owners: HashMap::new(), order: VecDeque::new(), added: 0 }
    }

    /// Whose event has such an id, if it came in since the edge.
    pub fn owner(&self, hash: i64) -> Option<ProfileId> {
        self.owners.get(&hash).copied()
    }

    /// An event that occurred then may have come in before the edge, so that only the tables know.
    pub fn may_be_forgotten(&self, occurred_at: Timestamp) -> bool {
        occurred_at <= self.edge
    }

    pub fn remember(&mut self, hash: i64, owner: ProfileId, received_at: Timestamp) {
        if self.owners.insert(hash, owner).is_none() {
            self.order.push_back((hash, received_at));
            self.added += 1;
        }
    }

    fn keep(&mut self) {
        self.added = 0;
        while self.order.len() > self.max {
            let Some((hash, received_at)) = self.order.pop_front() else { break };
            self.owners.remove(&hash);
            self.edge = self.edge.max(received_at.plus_ms(self.ahead_ms));
        }
    }

    fn undo(&mut self) {
        for _ in 0..self.added {
            let Some((hash, _)) = self.order.pop_back() else { break };
            self.owners.remove(&hash);
        }
        self.added = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetting_an_id_moves_the_edge_past_it() {
        let mut ids = RecentIds::new(Timestamp::from_ms(0), 3, 2);
        for n in 1..=3 {
            ids.remember(n, ProfileId(n), Timestamp::from_ms(n * 10));
        }
        ids.keep();
        assert_eq!(ids.owner(1), None);
        assert!(ids.may_be_forgotten(Timestamp::from_ms(13)), "the sender's clock was ahead");
        assert!(!ids.may_be_forgotten(Timestamp::from_ms(14)));
        assert_eq!(ids.owner(2), Some(ProfileId(2)));
    }

    #[test]
    fn what_was_rolled_back_was_never_received() {
        let mut ids = RecentIds::new(Timestamp::from_ms(0), 0, 10);
        ids.remember(1, ProfileId(1), Timestamp::from_ms(1));
        ids.keep();
        ids.remember(1, ProfileId(1), Timestamp::from_ms(2));
        ids.remember(2, ProfileId(1), Timestamp::from_ms(2));
        ids.undo();
        assert_eq!(ids.owner(1), Some(ProfileId(1)));
        assert_eq!(ids.owner(2), None);
    }
}
