//! The suite over PostgreSQL, and what only many processes have: leases, races, a server that goes away.

use std::sync::Mutex;

use async_trait::async_trait;
use rekindle::store::Store;
use rekindle::store::postgres::{Options, PostgresStore};

use super::exercise::{self, Harness};
use super::server::{self, Server};

struct Postgres {
    url: String,
    /// What [`Harness::close`] closes: a handle of the store that was opened last.
    opened: Mutex<Option<PostgresStore>>,
}

impl Postgres {
    async fn new(server: &Server) -> Self {
        Postgres { url: server.database().await, opened: Mutex::new(None) }
    }
}

#[async_trait]
impl Harness for Postgres {
    async fn open_as(&self, environment: &str) -> Box<dyn Store> {
        let options = Options { connections: 4, ..Options::new(&self.url, environment) };
        let store = PostgresStore::open_with(options).await.expect("the database opens");
        *self.opened.lock().expect("no test panics here") = Some(store.clone());
        Box::new(store)
    }

    async fn close(&self, store: Box<dyn Store>) {
        drop(store);
        let opened = self.opened.lock().expect("no test panics here").take();
        opened.expect("it was opened").close().await;
    }
}

macro_rules! tests {
    ($($name:ident,)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(server) = server::shared() else { return };
            exercise::$name(&Postgres::new(server).await).await;
        }
    )* };
}

exercise::each_exercise!(tests);
