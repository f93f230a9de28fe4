//! A connection of the pool on loan, and how long the database may take.
//!
//! A network that swallows everything tells nobody: a connection that nothing comes from any more looks like one to a database that
//! thinks. So nobody waits for longer than was agreed on, and a connection over which nobody knows what became of the last question is
//! dropped, never asked again: whoever borrowed it says that it is well ([`Loan::give_back`]), or it is gone.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection, PgPool, Postgres};

use crate::store::StoreError;

/// An idle connection that does not answer within this is dropped for a new one.
const PING_WITHIN: Duration = Duration::from_secs(3);

/// See the module's documentation.
pub struct Loan(Option<PoolConnection<Postgres>>);

impl Loan {
    pub async fn of(pool: &PgPool) -> Result<Loan, StoreError> {
        Ok(Loan(Some(pool.acquire().await?)))
    }

    /// Nothing is under way on it, and no transaction is open: the next one may have it.
    pub fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Loan {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("it is taken out only where the loan ends")
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is taken out only where the loan ends")
    }
}

impl Drop for Loan {
    /// Without a farewell, which might wait for ever. The server rolls back what was open.
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// Waits for the database so long and no longer; none: as long as it takes.
pub(in crate::store) async fn within<T>(
    limit: Option<Duration>,
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let Some(limit) = limit else { return asked.await };
    let silent = || Err(StoreError::Unavailable(format!("it has not answered for {} seconds", limit.as_secs_f32())));
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| silent())
}

/// Whether an idle connection still leads to the server.
pub(super) async fn leads_there(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(PING_WITHIN, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        // an error: it is closed without a farewell
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Closes the pool, with a farewell to a server that is there to hear it.
pub(super) async fn close(pool: &PgPool) {
    if tokio::time::timeout(PING_WITHIN, pool.close()).await.is_err() {
        tracing::warn!("connections to the database were dropped without a farewell: it does not answer");
    }
}

/// What the server does by itself, so that a process that is gone without a word holds no locks: it ends what takes longer than `limit`
/// and what is begun and not gone on with, and notices a peer that confirms nothing any more.
pub(super) fn bounded(connect: PgConnectOptions, limit: Duration) -> PgConnectOptions {
    // a little before we would stop waiting, so that it is the server who says why
    let limit_ms = (limit.as_millis() * 9 / 10).to_string();
    let silence_ms = limit.as_millis().to_string();
    connect
        .options(["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"].map(|name| (name, limit_ms.as_str())))
        .options([
            ("tcp_user_timeout", &*silence_ms),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ])
}
