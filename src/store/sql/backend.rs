//! The [`Store`] over any database that can run a piece of [`Work`] and give a session to read in.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::spread::{self, Bucket, Spread};
use super::{Session, Work};
use super::{
    backlog, decisions, erasures, identities, keys, outbox, publications, reads, rejects, restored, retention, rules, suppressions, world,
};
use crate::engine::action::{Channel, MessageId};
use crate::engine::decide::Pause;
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::store::erasure::{Cause, Erased, Erasure};
use crate::store::retention::{Kept, Oldest, Removal, RemovalRow, Removed};
use crate::store::suppression::{Hasher, Lift, Suppress, Suppression};
use crate::store::{
    ApiKey, Appended, Backlog, Call, Claim, ClaimedMessages, Committed, Counts, DecisionCommit, DueProfiles, EntryRow, EventRow, EventSeq,
    Glance, History, Identity, IntentCommit, KeyId, Look, MessageResult, MessageRow, NewEvent, NewKey, Operation, PauseScope, ProfileId,
    ProfilePage, Publication, PublicationRow, Published, Recorded, RefusedRules, Reject, RejectRow, Restored, SetAside, SourceHour, Store,
    StoreError, StoredProfile, WorldView,
};

/// A database.
#[async_trait]
pub(in crate::store) trait Backend: Send + Sync {
    /// A session to read in: one snapshot.
    type Reader: Send;

    /// Runs the work in a transaction, whole or not at all; it is on disk when this returns.
    async fn write<W: Work>(&self, work: W) -> Result<W::Done, StoreError>;

    /// The same, about the people of one bucket only, if it matters to the database whose they are.
    async fn write_in<W: Work>(&self, bucket: Option<Bucket>, work: W) -> Result<W::Done, StoreError> {
        let _ = bucket;
        self.write(work).await
    }

    /// Set where people are spread over machines.
    fn spread(&self) -> Option<&Spread> {
        None
    }

    /// Whatever this process has claimed is free for others as soon as they notice.
    fn renounce_claims(&self) {}

    async fn reader(&self) -> Result<Self::Reader, StoreError>;

    fn session(reader: &mut Self::Reader) -> Session<'_>;

    /// Lets a reader go that has read all that it was for. One that is just dropped costs a connection.
    async fn end(&self, reader: Self::Reader);

    /// How long a read may take before the database counts as away; none: as long as it does.
    fn answers_within(&self) -> Option<Duration>;

    fn hasher(&self) -> &Hasher;

    fn environment_name(&self) -> &str;

    /// See [`Store::world`].
    async fn view(&self, month_start: Timestamp) -> Result<WorldView, StoreError>;

    /// See [`Store::generation`].
    async fn present_generation(&self) -> Result<i64, StoreError>;

    /// Claims of this process have this epoch or a later one.
    fn first_epoch(&self) -> i64;

    /// See [`Store::may_send`].
    fn trusts_its_claims(&self) -> bool;

    /// See [`Store::company`].
    async fn others(&self) -> Result<u64, StoreError>;

    /// See [`Store::close`].
    async fn let_go(&self);

    /// Tells other processes, if there may be any.
    fn call(&self, call: Call) {
        let _ = call;
    }

    /// See [`Store::called`].
    async fn next_call(&self) -> Call {
        std::future::pending().await
    }

    /// Completes an error that was made where the database's name is not known.
    fn failed(&self, error: StoreError) -> StoreError;
}

/// Reads in a session of its own.
macro_rules! read {
    ($store:ident, |$session:ident| $read:expr) => {{
        let read = async {
            let mut reader = $store.reader().await?;
            let answer = {
                let mut session = B::session(&mut reader);
                let $session = &mut session;
                crate::store::postgres::within($store.answers_within(), $read).await
            };
            $store.end(reader).await;
            answer
        };
        read.await.map_err(|error| $store.failed(error))
    }};
}
pub(super) use read;

#[async_trait]
impl<B: Backend> Store for B {
    async fn append_events(&self, events: Vec<NewEvent>) -> Result<Appended, StoreError> {
        let appended = spread::append(self, events).await?;
        if appended.new > 0 {
            self.call(Call::People);
        }
        Ok(appended)
    }

    async fn keep_rejects(&self, rejects: Vec<Reject>) -> Result<(), StoreError> {
        self.write(rejects::KeepRejects(rejects)).await
    }

    async fn rejects(&self, after: i64, limit: usize) -> Result<Vec<RejectRow>, StoreError> {
        read!(self, |session| rejects::rejects(session, after, limit))
    }

    async fn add_key(&self, key: NewKey) -> Result<KeyId, StoreError> {
        self.write(keys::AddKey(key)).await
    }

    async fn revoke_key(&self, id: KeyId, at: Timestamp, by: &str) -> Result<bool, StoreError> {
        self.write(keys::RevokeKey { id, at, by: Name::from(by) }).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        read!(self, |session| keys::keys(session))
    }

    async fn claim_due(&self, now: Timestamp, limit: usize, worker: &str) -> Result<DueProfiles, StoreError> {
        spread::claim_due(self, now, limit, worker).await
    }

    async fn commit_decisions(&self, batch: Vec<DecisionCommit>) -> Result<Vec<Committed>, StoreError> {
        let of = |commit: &DecisionCommit| Some(Bucket::of(commit.claim.profile));
        let queues = batch.iter().any(|commit| !commit.decision.messages.is_empty());
        let answers = spread::answers(self, batch, of, decisions::Commit::new, Some(Committed::Conflict)).await?;
        if queues {
            self.call(Call::Messages);
        }
        Ok(answers)
    }

    async fn release_profiles(&self, claims: Vec<Claim>, counts: bool) -> Result<(), StoreError> {
        let release = |claims| decisions::Release { claims, counts };
        spread::each(self, claims, |claim| Some(Bucket::of(claim.profile)), release).await?;
        Ok(())
    }

    async fn quarantine(&self, at: Timestamp, profiles: Vec<(Claim, String)>) -> Result<(), StoreError> {
        let of = |(claim, _): &(Claim, String)| Some(Bucket::of(claim.profile));
        spread::each(self, profiles, of, |profiles| decisions::Quarantine { at, profiles }).await?;
        Ok(())
    }

    async fn reinstate(&self, at: Timestamp, profiles: Vec<ProfileId>) -> Result<(), StoreError> {
        spread::each(self, profiles, |id| Some(Bucket::of(*id)), |profiles| decisions::Reinstate { at, profiles }).await?;
        self.call(Call::People);
        Ok(())
    }

    async fn set_aside(&self, after: Option<ProfileId>, limit: usize) -> Result<Vec<SetAside>, StoreError> {
        read!(self, |session| reads::set_aside(session, after, limit))
    }

    async fn make_all_due(&self, at: Timestamp, spread_ms: i64) -> Result<u64, StoreError> {
        rules::make_all_due(self, at, spread_ms).await
    }

    async fn entries_since(&self, since: Timestamp) -> Result<BTreeMap<Name, u64>, StoreError> {
        read!(self, |session| world::entries_since(session, since))
    }

    async fn claim_messages(&self, look: Look, limit: usize, worker: &str) -> Result<Vec<ClaimedMessages>, StoreError> {
        spread::claim_messages(self, look, limit, worker).await
    }

    async fn interrupted(&self) -> Result<Vec<ClaimedMessages>, StoreError> {
        read!(self, |session| outbox::interrupted(session, self.first_epoch()))
    }

    async fn commit_intents(&self, generation: i64, batch: Vec<IntentCommit>) -> Result<Vec<Committed>, StoreError> {
        spread::intents(self, generation, batch).await
    }

    async fn record_results(&self, batch: Vec<MessageResult>) -> Result<Vec<Recorded>, StoreError> {
        let recorded = spread::results(self, batch).await?;
        if recorded.iter().any(|recorded| recorded.woke) {
            self.call(Call::People);
        }
        Ok(recorded)
    }

    async fn open_messages(&self, after: i64, limit: usize) -> Result<Vec<(i64, MessageRow)>, StoreError> {
        read!(self, |session| reads::open_messages(session, after, limit))
    }

    async fn wake_messages(&self, at: Timestamp, messages: Vec<MessageId>) -> Result<(), StoreError> {
        spread::wake_messages(self, at, messages).await?;
        self.call(Call::Messages);
        Ok(())
    }

    async fn suppress(&self, batch: Vec<Suppress>) -> Result<Vec<bool>, StoreError> {
        let of = |word: &Suppress| word.event.as_ref().map(|(owner, _)| Bucket::of(*owner));
        let is_new = spread::answers(self, batch, of, suppressions::SuppressAll, None).await?;
        if is_new.contains(&true) {
            self.call(Call::People);
        }
        Ok(is_new)
    }

    async fn lift(&self, lift: Lift) -> Result<u64, StoreError> {
        let bucket = lift.event.as_ref().map(|(owner, _)| Bucket::of(*owner));
        self.write_in(bucket, suppressions::LiftOne(lift)).await
    }

    async fn erase(&self, erasure: Erasure, cause: Cause) -> Result<Erased, StoreError> {
        spread::erase(self, erasure, cause).await
    }

    async fn erasure_of(&self, identity: &Identity) -> Result<Option<(Erasure, Erased)>, StoreError> {
        let (kind, value) = identities::parts(identity);
        read!(self, |session| erasures::erasure_of(session, self.hasher().identity(kind, value)))
    }

    async fn suppressions(&self, channel: Channel, address: &str) -> Result<Vec<Suppression>, StoreError> {
        let hash = self.hasher().address(channel, address);
        read!(self, |session| suppressions::suppressions(session, channel, hash))
    }

    async fn after_restore(&self, at: Timestamp) -> Result<Option<Restored>, StoreError> {
        self.write(restored::AfterRestore(at)).await
    }

    async fn oldest(&self, kind: Kept, before: Timestamp, after: i64, limit: usize) -> Result<Oldest, StoreError> {
        read!(self, |session| retention::oldest(session, kind, before, after, limit))
    }

    async fn remove(&self, removal: Removal) -> Result<Removed, StoreError> {
        spread::remove(self, removal).await
    }

    async fn remove_rejects(&self, at: Timestamp, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.write(retention::RemoveRejects { at, before, limit }).await
    }

    async fn removals(&self, limit: usize) -> Result<Vec<RemovalRow>, StoreError> {
        read!(self, |session| retention::removals(session, limit))
    }

    async fn publish_rules(&self, publication: Publication) -> Result<Published, StoreError> {
        self.write(rules::Publish(publication)).await
    }

    async fn finish_first_looks(&self) -> Result<u64, StoreError> {
        rules::finish_first_looks(self).await
    }

    async fn publications(&self, limit: usize) -> Result<Vec<PublicationRow>, StoreError> {
        read!(self, |session| publications::publications(session, limit))
    }

    async fn explain_publication(&self, by: &str, why: &str) -> Result<(), StoreError> {
        self.write(publications::Explain { by: by.to_owned(), why: why.to_owned() }).await
    }

    async fn agree_with_files(&self, files: u64) -> Result<(), StoreError> {
        self.write(publications::Agree { files }).await
    }

    async fn refuse_rules(&self, refused: RefusedRules) -> Result<(), StoreError> {
        self.write(publications::Refuse(refused)).await
    }

    async fn refused_rules(&self) -> Result<Option<RefusedRules>, StoreError> {
        read!(self, |session| publications::refused(session))
    }

    async fn current_version(&self) -> Result<Option<u64>, StoreError> {
        read!(self, |session| rules::current_version(session))
    }

    async fn texts_of(&self, version: u64) -> Result<Option<Vec<(String, String)>>, StoreError> {
        read!(self, |session| rules::texts_of(session, version))
    }

    async fn world(&self, month_start: Timestamp) -> Result<WorldView, StoreError> {
        self.view(month_start).await
    }

    async fn generation(&self) -> Result<i64, StoreError> {
        self.present_generation().await
    }

    async fn set_pause(&self, at: Timestamp, scope: PauseScope, pause: Option<Pause>, by: &str) -> Result<(), StoreError> {
        self.write(world::SetPause { at, scope, pause, by: by.to_owned() }).await
    }

    async fn operations(&self, limit: usize) -> Result<Vec<Operation>, StoreError> {
        read!(self, |session| world::operations(session, limit))
    }

    async fn set_hold(&self, at: Timestamp, rule: &str, hold: Option<Pause>, by: &str) -> Result<(), StoreError> {
        self.write(world::SetHold { at, rule: rule.to_owned(), hold, by: by.to_owned() }).await
    }

    async fn heartbeat(&self, worker: &str, since: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        self.write(world::Heartbeat { worker: worker.to_owned(), since, now }).await
    }

    async fn latest_heartbeat(&self) -> Result<Option<Timestamp>, StoreError> {
        read!(self, |session| world::latest_heartbeat(session))
    }

    async fn days_sent(&self) -> Result<Vec<(Channel, Timestamp, u64)>, StoreError> {
        read!(self, |session| reads::days_sent(session))
    }

    async fn source_hours(&self, since: Timestamp) -> Result<Vec<SourceHour>, StoreError> {
        read!(self, |session| world::source_hours(session, since))
    }

    async fn record_quiet(&self, from: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.write(world::RecordQuiet { from, until }).await
    }

    async fn agenda(&self, upto: Timestamp) -> Result<Vec<(ProfileId, Timestamp)>, StoreError> {
        read!(self, |session| reads::agenda(session, upto))
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        read!(self, |session| reads::next_due(session))
    }

    async fn environment(&self) -> Result<String, StoreError> {
        Ok(self.environment_name().to_owned())
    }

    async fn find_profiles(&self, identities: &[Identity]) -> Result<Vec<Option<ProfileId>>, StoreError> {
        read!(self, |session| reads::find_profiles(session, identities))
    }

    async fn glance(&self, identity: &Identity) -> Result<Option<Glance>, StoreError> {
        if self.spread().is_none() {
            return read!(self, |session| reads::glance(session, identity));
        }
        // names and people lie on different machines
        let Some(id) = self.find_profile(identity).await? else { return Ok(None) };
        let stored = self.profile(id).await?;
        Ok(stored.map(|stored| Glance { id, waiting: stored.waiting.len(), profile: stored.profile }))
    }

    async fn profile(&self, id: ProfileId) -> Result<Option<StoredProfile>, StoreError> {
        read!(self, |session| reads::profile(session, id))
    }

    async fn profiles(&self, after: Option<ProfileId>, limit: usize) -> Result<ProfilePage, StoreError> {
        read!(self, |session| reads::profiles(session, after, limit))
    }

    async fn history(&self, id: ProfileId) -> Result<History, StoreError> {
        read!(self, |session| reads::history(session, id))
    }

    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<MessageRow>, StoreError> {
        read!(self, |session| reads::messages(session, ids))
    }

    async fn entries(&self, after: i64, limit: usize) -> Result<Vec<EntryRow>, StoreError> {
        read!(self, |session| reads::entries(session, after, limit))
    }

    async fn events(&self, after: EventSeq, limit: usize) -> Result<Vec<EventRow>, StoreError> {
        read!(self, |session| reads::events(session, after, limit))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        read!(self, |session| reads::counts(session))
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        read!(self, |session| backlog::backlog(session, now))
    }

    fn may_send(&self) -> bool {
        self.trusts_its_claims()
    }

    async fn company(&self) -> Result<u64, StoreError> {
        self.others().await.map_err(|error| self.failed(error))
    }

    async fn called(&self) -> Call {
        self.next_call().await
    }

    async fn close(&self) {
        self.let_go().await;
    }

    async fn dump(&self, id: ProfileId) -> Result<String, StoreError> {
        read!(self, |session| reads::dump(session, id))
    }
}
