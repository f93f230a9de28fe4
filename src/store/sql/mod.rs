//! What both databases do alike: the operations of the [`Store`], each with its statements in two dialects side by side.
//!
//! An operation that writes is a [`Work`]: it runs in a transaction ([`Tx`]) of whichever database it was given to, asks its guards, fills
//! its rows and writes them. A batch travels as one JSON text that the database takes apart, states beside it as one blob that
//! `substr` cuts up, so that a call costs as many round trips for a thousand rows as for one.
//!
//! The databases differ in three things only, and here is where each is said:
//! - **dialect**: [`Sql`] holds a script for each; `$n` means the same parameter in both;
//! - **who else writes**: SQLite has one writer, so nothing changes under a transaction. PostgreSQL has many: a work first says with
//!   [`Tx::take`] whose rows it is about to judge, which locks them in one order everywhere, and only then gets numbers for events, so
//!   that of one person's events the later number is the later one;
//! - **what is remembered between transactions**: see [`Memory`].
//!
//! A PostgreSQL that spreads people over machines ([`spread`]) runs the same statements, bucket by bucket.

mod append;
mod backend;
mod backlog;
mod counting;
mod decisions;
mod erasures;
mod identities;
mod keys;
mod migrations;
pub(in crate::store) mod moving;
pub(in crate::store) mod origin;
mod outbox;
mod publications;
mod query;
mod reads;
mod rejects;
mod restored;
mod retention;
pub(in crate::store) mod rows;
mod rules;
pub(in crate::store) mod spread;
#[cfg(test)]
pub(in crate::store) mod statements;
mod suppressions;
pub(in crate::store) mod world;

use std::collections::VecDeque;

pub(in crate::store) use self::backend::Backend;
pub(in crate::store) use self::migrations::Migrations;
pub(in crate::store) use self::query::{Row, Session, Sql, query};
pub(in crate::store) use self::rules::finish_first_looks;
use self::spread::Reach;
#[cfg(doc)]
use super::Store;
use super::suppression::Hasher;
use super::{EventSeq, ProfileId, StoreError};
use crate::engine::action::MessageId;
use crate::engine::time::Timestamp;
use async_trait::async_trait;

/// Something to be written. It must be repeatable: whoever runs it may roll it back and run it again.
#[async_trait]
pub(in crate::store) trait Work: Send + Sync + 'static {
    type Done: Send + 'static;
    /// Whether somebody outside waits for the answer.
    const IS_URGENT: bool = false;
    /// Whether it takes hold of work: nobody does who no longer knows all that may stand in the rows.
    const CLAIMS: bool = false;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Self::Done, StoreError>;
}

/// What a piece of work runs in: a transaction, and what its database remembers.
pub(in crate::store) struct Tx<'t> {
    pub session: Session<'t>,
    pub memory: &'t mut dyn Memory,
}

/// What a piece of work is about to judge and to number.
#[derive(Default)]
pub(in crate::store) struct Needs<'n> {
    /// Their rows do not change any more until the end of the transaction.
    pub people: &'n [ProfileId],
    /// They were neither merged into somebody nor erased since somebody looked them up.
    pub still_there: bool,
    /// Nor do these messages, nor the rows of the people whose they are.
    pub messages: &'n [MessageId],
    /// So many events at most will be numbered, and people.
    pub events: usize,
    pub profiles: usize,
    /// Nothing becomes forbidden any more until the end of the transaction.
    pub permission: bool,
    /// Nobody else counts towards these (what they are, by name) until the end of the transaction.
    pub counted: &'n [(&'static str, &'n str)],
    /// Nobody else does what an operator does until the end of the transaction.
    pub authority: bool,
}

impl Tx<'_> {
    /// Nobody else writes meanwhile.
    pub fn is_alone(&self) -> bool {
        matches!(self.session, Session::Sqlite(_))
    }

    /// People are spread over machines, and this is about one bucket of them.
    pub fn is_in_bucket(&self) -> bool {
        matches!(self.session, Session::Postgres(_, Reach::Within(_)))
    }

    /// Takes what is needed; before anything is read that the work's answer rests on.
    pub async fn take(&mut self, needs: Needs<'_>) -> Result<(), StoreError> {
        match &mut self.session {
            // the only writer has it all
            Session::Sqlite(_) => Ok(()),
            Session::Postgres(connection, reach) => {
                let supply = super::postgres::take(connection, *reach, needs).await?;
                self.memory.supply(supply);
                Ok(())
            }
        }
    }
}

/// Numbers for one transaction, where others give out numbers too.
#[derive(Default)]
pub(in crate::store) struct Supply {
    /// In order, as the people's.
    pub events: VecDeque<i64>,
    pub profiles: VecDeque<i64>,
    /// If permission was needed.
    pub generation: Option<i64>,
}

/// What a database's transactions know besides the tables.
pub(in crate::store) trait Memory: Send {
    /// Of addresses and identities.
    fn hasher(&self) -> &Hasher;

    fn supply(&mut self, supply: Supply);

    /// The next event's number. More than were taken: an error.
    fn event_seq(&mut self) -> Result<EventSeq, StoreError>;

    /// What the next event's number would be, where one process gives out all of them.
    fn next_event(&self) -> i64;

    /// The next person's, who is created by it.
    fn profile_id(&mut self) -> Result<ProfileId, StoreError>;

    /// What a claim is known by: every claim has its own, greater than any before in this process.
    fn epoch(&mut self) -> i64;

    /// Changes whenever something is forbidden or allowed again: what the gates saw before that no longer stands.
    fn generation(&self) -> i64;

    /// Something is paused, held or allowed again.
    fn forbid(&mut self);

    /// Something in the world changed that forbids nothing.
    fn change_world(&mut self);

    /// Whether any address may be on the suppression list: nobody is looked up on an empty one.
    fn may_have_suppressed(&self) -> bool;

    fn note_suppressed(&mut self);

    /// Whether anybody may have been erased: their old facts are looked for only then.
    fn may_have_erased(&self) -> bool;

    fn note_erased(&mut self);

    /// Whose event came in lately under this id (its hash), as far as that is remembered.
    fn recent_owner(&mut self, hash: i64) -> Option<ProfileId>;

    /// An event that occurred then may have come in without being remembered, so that only the tables know.
    fn may_be_forgotten(&mut self, occurred_at: Timestamp) -> bool;

    fn remember(&mut self, hash: i64, owner: ProfileId, received_at: Timestamp);
}
