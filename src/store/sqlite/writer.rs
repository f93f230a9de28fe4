//! The one writer: a task with the only connection that writes. Whatever queues while it commits goes into the next transaction
//! together (group commit), so that a disk flush is shared by everybody who waits for one.
//!
//! If one piece of work in a group fails, the group is rolled back and every piece is tried in a transaction of its own: a bad
//! one never spoils the others. Therefore [`Work::apply`] must be repeatable: it reads itself, the session and [`Memory`].

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::memory::Memory;
use super::{Shared, failure};
use crate::faults::Point;
use crate::store::StoreError;
use crate::store::sql::{Session, Tx, Work};

/// Pieces of work that may wait for the writer before callers have to.
const QUEUE_MAX: usize = 1024;
/// Pieces of work that share a transaction at most: bounds what a failure makes us do again.
const GROUP_MAX: usize = 64;

/// The way to the writer's task; none in a store that was opened to read.
#[derive(Clone)]
pub(super) struct Writer(Option<mpsc::Sender<Order>>);

enum Order {
    Write(Box<dyn Piece>),
    Stop,
}

impl Writer {
    /// Starts the task; it ends when the last `Writer` is gone and what queued is written.
    pub fn start(connection: SqliteConnection, memory: Memory, shared: Arc<Shared>) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(run(connection, memory, shared, receiver));
        (Writer(Some(sender)), task)
    }

    /// Refuses whatever is submitted: nothing is written through it.
    pub fn refusing() -> Self {
        Writer(None)
    }

    /// Waits until the work is on disk.
    pub async fn submit<W: Work>(&self, work: W) -> Result<W::Done, StoreError> {
        let (reply, answer) = oneshot::channel();
        let piece = Box::new(Submitted { work, done: None, reply });
        let stopped = || StoreError::Unavailable("the writer has stopped".into());
        let queue = self.0.as_ref().ok_or_else(|| StoreError::Unavailable("it was opened to read only".into()))?;
        queue.send(Order::Write(piece)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Lets the task end after what queued before.
    pub async fn stop(&self) {
        if let Some(queue) = &self.0 {
            // an error means that it has ended already
            let _ended = queue.send(Order::Stop).await;
        }
    }
}

/// A piece of work with its type forgotten.
#[async_trait]
trait Piece: Send {
    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    fn reply(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Submitted<W: Work> {
    work: W,
    done: Option<W::Done>,
    reply: oneshot::Sender<Result<W::Done, StoreError>>,
}

#[async_trait]
impl<W: Work> Piece for Submitted<W> {
    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.done = Some(self.work.apply(tx).await?);
        Ok(())
    }

    fn reply(self: Box<Self>, committed: Result<(), StoreError>) {
        let Submitted { done, reply, .. } = *self;
        let never = || StoreError::Unavailable("the work was not done".into());
        // who asked may be gone; what was committed stays
        let _gone = reply.send(committed.and_then(|()| done.ok_or_else(never)));
    }
}

async fn run(mut connection: SqliteConnection, mut memory: Memory, shared: Arc<Shared>, mut queue: mpsc::Receiver<Order>) {
    let mut stopped = false;
    while !stopped && let Some(Order::Write(first)) = queue.recv().await {
        let mut group = vec![first];
        while group.len() < GROUP_MAX {
            match queue.try_recv() {
                Ok(Order::Write(next)) => group.push(next),
                Ok(Order::Stop) => {
                    stopped = true;
                    break;
                }
                Err(_) => break,
            }
        }
        write(&mut connection, &mut memory, &shared, group).await;
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(error = %error, "the database was not closed properly; its log is replayed at the next start");
    }
}

/// Writes a group in one transaction; if that fails, each piece in its own.
async fn write(connection: &mut SqliteConnection, memory: &mut Memory, shared: &Shared, mut group: Vec<Box<dyn Piece>>) {
    let whole = transaction(connection, memory, shared, &mut group).await;
    if whole.is_ok() || group.len() == 1 {
        group.into_iter().for_each(|piece| piece.reply(whole.clone()));
        return;
    }
    for piece in group {
        let mut alone = vec![piece];
        let written = transaction(connection, memory, shared, &mut alone).await;
        alone.into_iter().for_each(|piece| piece.reply(written.clone()));
    }
}

async fn transaction(
    connection: &mut SqliteConnection,
    memory: &mut Memory,
    shared: &Shared,
    group: &mut [Box<dyn Piece>],
) -> Result<(), StoreError> {
    memory.begin();
    let written = attempt(connection, memory, group).await.map_err(|error| failure(error, &shared.path));
    match written {
        Ok(()) => memory.commit(),
        Err(_) => memory.roll_back(),
    }
    shared.publish(memory);
    written
}

async fn attempt(connection: &mut SqliteConnection, memory: &mut Memory, group: &mut [Box<dyn Piece>]) -> Result<(), StoreError> {
    // IMMEDIATE: a transaction that begins as a reader and then writes can fail at once however long we would wait
    let mut transaction = connection.begin_with("begin immediate").await?;
    for piece in group {
        piece.apply(&mut Tx { session: Session::Sqlite(&mut transaction), memory }).await?;
    }
    Point::StoreWriting.reach();
    transaction.commit().await?;
    Point::StoreWritten.reach();
    Ok(())
}
