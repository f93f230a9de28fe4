//! The one writer: a task with the only connection that writes. Whatever queues while it commits goes into the next transaction
//! together (group commit), so that a disk flush is shared by everybody who waits for one.
//!
//! Two lanes take turns: somebody waits for an answer at the door, while decisions and messages of a wave can wait for one another.
//! So an event waits for one group of the other lane at most, and that one is short.
//!
//! If one piece of work in a group fails, the group is rolled back and every piece is tried in a transaction of its own: a bad
//! one never spoils the others. Therefore [`Work::apply`] must be repeatable: it reads itself, the session and [`Memory`].

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Connection, Executor as _, SqliteConnection};
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
/// ... of the lane that may wait: each may hold some hundred people.
const PATIENT_MAX: usize = 4;

/// The way to the writer's task; none in a store that was opened to read.
#[derive(Clone)]
pub(super) struct Writer(Option<Lanes>);

#[derive(Clone)]
struct Lanes {
    urgent: mpsc::Sender<Order>,
    patient: mpsc::Sender<Order>,
}

enum Order {
    Write(Box<dyn Piece>),
    Stop,
}

impl Writer {
    /// Starts the task; it ends when the last `Writer` is gone and what queued is written.
    pub fn start(connection: SqliteConnection, memory: Memory, shared: Arc<Shared>) -> (Self, tokio::task::JoinHandle<()>) {
        let ((urgent, door), (patient, rest)) = (mpsc::channel(QUEUE_MAX), mpsc::channel(QUEUE_MAX));
        let task = tokio::spawn(run(connection, memory, shared, door, rest));
        (Writer(Some(Lanes { urgent, patient })), task)
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
        let lanes = self.0.as_ref().ok_or_else(|| StoreError::Unavailable("it was opened to read only".into()))?;
        let queue = if W::IS_URGENT { &lanes.urgent } else { &lanes.patient };
        queue.send(Order::Write(piece)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Lets the task end after what queued before.
    pub async fn stop(&self) {
        if let Some(lanes) = &self.0 {
            // an error means that it has ended already
            let _ended = lanes.patient.send(Order::Stop).await;
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

async fn run(
    mut connection: SqliteConnection,
    mut memory: Memory,
    shared: Arc<Shared>,
    mut door: mpsc::Receiver<Order>,
    mut rest: mpsc::Receiver<Order>,
) {
    let mut stopped = false;
    while !stopped {
        let (first, is_urgent) = tokio::select! {
            biased;
            Some(first) = door.recv() => (first, true),
            Some(first) = rest.recv() => (first, false),
            else => break,
        };
        // what both lanes have now: one group of each, the door's first
        let mut urgent = Group { max: GROUP_MAX, ..Group::default() };
        let mut patient = Group { max: PATIENT_MAX, ..Group::default() };
        if is_urgent {
            urgent.add(first)
        } else {
            patient.add(first)
        }
        urgent.fill(&mut door);
        patient.fill(&mut rest);
        stopped = urgent.is_last || patient.is_last;
        if stopped {
            // what queued at the door before the end is written too
            urgent.max = usize::MAX;
            urgent.fill(&mut door);
        }
        for group in [urgent.pieces, patient.pieces].into_iter().filter(|group| !group.is_empty()) {
            write(&mut connection, &mut memory, &shared, group).await;
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(error = %error, "the database was not closed properly; its log is replayed at the next start");
    }
}

/// What is written in one transaction.
#[derive(Default)]
struct Group {
    pieces: Vec<Box<dyn Piece>>,
    max: usize,
    /// The writer was told to stop after it.
    is_last: bool,
}

impl Group {
    fn add(&mut self, order: Order) {
        match order {
            Order::Write(piece) => self.pieces.push(piece),
            Order::Stop => self.is_last = true,
        }
    }

    /// Takes what waits in a lane, up to its bound.
    fn fill(&mut self, lane: &mut mpsc::Receiver<Order>) {
        while !self.is_last
            && self.pieces.len() < self.max
            && let Ok(order) = lane.try_recv()
        {
            self.add(order);
        }
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

/// By statements of our own: where SQLite has rolled back by itself, as it may when the disk is full, the driver's transaction would go on
/// to count one that is open, and begin none any more.
async fn attempt(connection: &mut SqliteConnection, memory: &mut Memory, group: &mut [Box<dyn Piece>]) -> Result<(), StoreError> {
    // IMMEDIATE: a transaction that begins as a reader and then writes can fail at once however long we would wait
    connection.execute(BEGIN).await?;
    let written = write_all(connection, memory, group).await;
    if written.is_err() {
        // an error says that nothing is open any more
        let _rolled_back = connection.execute("rollback").await;
    }
    written
}

const BEGIN: &str = "begin immediate";

async fn write_all(connection: &mut SqliteConnection, memory: &mut Memory, group: &mut [Box<dyn Piece>]) -> Result<(), StoreError> {
    for piece in group {
        piece.apply(&mut Tx { session: Session::Sqlite(connection), memory }).await?;
    }
    Point::StoreWriting.reach();
    connection.execute("commit").await?;
    Point::StoreWritten.reach();
    Ok(())
}
