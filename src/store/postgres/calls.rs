//! Calling other processes: who has made somebody due, or queued a message, says so, and whoever works elsewhere looks at once instead of
//! at its next turn. One task of a process calls, however many operations ask it to (a `notify` in a transaction of theirs would make
//! them all wait for one lock), and one connection hears. A call that gets lost costs a turn: everybody looks every half second all
//! the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::loan::{Loan, within};
use crate::store::{Call, StoreError};

/// Of the database's: `notify` reaches whoever listens on the same one.
const CHANNEL: &str = "rekindle";
pub(super) const CALL: &str = "select pg_notify($1, $2)";
/// What is asked for within this time is one call.
const AT_MOST_EVERY: Duration = Duration::from_millis(10);
/// After so long a silence it listens over a new connection.
const LISTEN_AFRESH: Duration = Duration::from_secs(60);
/// A connection that broke is tried again after this long.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Calls {
    url: String,
    /// How long the database may take for an answer.
    answer: Duration,
    asked: Arc<Asked>,
    /// This process's own calls are not heard.
    own: String,
    listener: tokio::sync::Mutex<Option<PgListener>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What is to be called out.
#[derive(Default)]
struct Asked {
    people: AtomicBool,
    messages: AtomicBool,
    wake: Notify,
}

impl Asked {
    fn flag(&self, call: Call) -> &AtomicBool {
        match call {
            Call::People => &self.people,
            Call::Messages => &self.messages,
        }
    }
}

impl Calls {
    /// `process`: a number that no other process has.
    pub fn begin(url: &str, pool: PgPool, answer: Duration, process: i64) -> Arc<Self> {
        let (asked, own) = (Arc::new(Asked::default()), format!("{process} "));
        let task = tokio::spawn(call_out(pool, answer, Arc::clone(&asked), own.clone()));
        Arc::new(Calls { url: url.to_owned(), answer, asked, own, listener: Default::default(), task: Mutex::new(Some(task)) })
    }

    /// Has it called out, soon.
    pub fn ask(&self, call: Call) {
        self.asked.flag(call).store(true, Ordering::Release);
        self.asked.wake.notify_one();
    }

    /// From its answer on, whatever others call is heard by [`Calls::next`].
    pub async fn listen(&self) -> Result<(), StoreError> {
        let mut listener = self.listener.lock().await;
        if listener.is_none() {
            *listener = Some(self.connected().await?);
        }
        Ok(())
    }

    async fn connected(&self) -> Result<PgListener, StoreError> {
        within(Some(self.answer), async {
            let mut listener = PgListener::connect(&self.url).await?;
            listener.listen(CHANNEL).await?;
            Ok(listener)
        })
        .await
    }

    /// The next call of another process.
    pub async fn next(&self) -> Call {
        loop {
            if let Err(error) = self.listen().await {
                tracing::debug!(error = %error, "cannot hear what other processes call; it looks by itself");
                tokio::time::sleep(LISTEN_AGAIN).await;
                continue;
            }
            let mut listener = self.listener.lock().await;
            let Some(listening) = listener.as_mut() else { continue };
            match tokio::time::timeout(LISTEN_AFRESH, listening.recv()).await {
                Ok(Ok(heard)) => {
                    let foreign = Some(heard.payload()).filter(|payload| !payload.starts_with(&self.own));
                    let call = foreign.and_then(|payload| payload.split_once(' ')).and_then(|(_, call)| Call::named(call));
                    if let Some(call) = call {
                        return call;
                    }
                }
                // so quiet that the connection may lead nowhere
                Err(_) => *listener = None,
                Ok(Err(error)) => {
                    tracing::debug!(error = %error, "no longer hears what other processes call");
                    *listener = None;
                    drop(listener);
                    tokio::time::sleep(LISTEN_AGAIN).await;
                }
            }
        }
    }

    pub fn end(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.end();
    }
}

async fn call_out(pool: PgPool, answer: Duration, asked: Arc<Asked>, own: String) {
    loop {
        asked.wake.notified().await;
        for call in [Call::People, Call::Messages] {
            let is_asked = asked.flag(call).swap(false, Ordering::AcqRel);
            if is_asked && let Err(error) = say(&pool, answer, &format!("{own}{}", call.name())).await {
                tracing::debug!(error = %error, "other processes were not called; they look by themselves");
            }
        }
        tokio::time::sleep(AT_MOST_EVERY).await;
    }
}

async fn say(pool: &PgPool, answer: Duration, said: &str) -> Result<(), StoreError> {
    let mut loan = Loan::of(pool).await?;
    within(Some(answer), async { Ok(sqlx::query(CALL).bind(CHANNEL).bind(said).execute(&mut *loan).await?) }).await?;
    loan.give_back();
    Ok(())
}
