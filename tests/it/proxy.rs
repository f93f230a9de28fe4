//! A network that goes wrong on purpose: a TCP proxy on loopback before PostgreSQL. It passes, cuts, goes silent in one direction or
//! both, and lets a COMMIT or the answer to it get lost. It lives on a thread of its own, so that nothing that a test does holds it up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A simple query of PostgreSQL's protocol, whole.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Passes,
    /// Every connection ends, and new ones end at once.
    Cut,
    /// Nothing comes through any more, and nobody is told: not the server ...
    SilentToServer,
    /// ... not the client ...
    SilentToClient,
    /// ... or neither.
    Silent,
}

/// What becomes of one COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The server never hears it: not committed, and the connection ends.
    Unsaid,
    /// The server never hears it, and the connection stands: both wait for each other, with all that the transaction had locked.
    Stuck,
    /// It is committed, and the connection ends before that is told.
    Unanswered,
    /// It is committed, nothing is told, and the connection stands as if something might still come.
    Unending,
}

impl Loss {
    pub const ALL: [Loss; 4] = [Loss::Unsaid, Loss::Stuck, Loss::Unanswered, Loss::Unending];
}

pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    losses: Arc<Losses>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

/// Which COMMIT gets lost.
#[derive(Default)]
struct Losses {
    /// So many pass before it; and how it gets lost.
    next: Mutex<Option<(usize, Loss)>>,
}

impl Losses {
    /// A COMMIT comes by.
    fn meet(&self) -> Option<Loss> {
        let mut next = self.next.lock().expect("no panic");
        match next.take() {
            Some((0, loss)) => Some(loss),
            Some((left, loss)) => {
                *next = Some((left - 1, loss));
                None
            }
            None => None,
        }
    }
}

impl Proxy {
    /// Before the server at this port.
    pub fn before(server: u16) -> Proxy {
        let (link, orders) = watch::channel(Link::Passes);
        let losses = Arc::new(Losses::default());
        let (told, listening) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = losses.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                told.send(listener.local_addr().expect("an address").port()).expect("the test waits for it");
                tokio::select! {
                    () = accept(&listener, server, orders, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        let port = listening.recv().expect("it listens");
        Proxy { port, link, losses, stop: Some(stop) }
    }

    /// A URL of the server's, by way of the proxy.
    pub fn instead_of(&self, url: &str) -> String {
        let (before, rest) = url.rsplit_once(':').expect("a port");
        let (_, database) = rest.split_once('/').expect("a database");
        format!("{before}:{}/{database}", self.port)
    }

    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// So many COMMITs pass, and the one after them gets lost.
    pub fn lose(&self, after: usize, loss: Loss) {
        *self.losses.next.lock().expect("no panic") = Some((after, loss));
    }

    /// Whether the one that was to get lost has come by.
    pub fn has_lost(&self) -> bool {
        self.losses.next.lock().expect("no panic").is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // the thread may have ended
            let _ = stop.send(());
        }
    }
}

async fn accept(listener: &TcpListener, server: u16, orders: watch::Receiver<Link>, losses: Arc<Losses>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        if *orders.borrow() == Link::Cut {
            continue;
        }
        tokio::spawn(carry(client, server, orders.clone(), losses.clone()));
    }
}

/// One connection, until either side or the test ends it.
async fn carry(client: TcpStream, server: u16, orders: watch::Receiver<Link>, losses: Arc<Losses>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let fate = Fate::default();
    let up = pump(from_client, to_server, orders.clone(), Direction::Up(&losses), &fate);
    let down = pump(from_server, to_client, orders, Direction::Down, &fate);
    // the end of one is the end of both: the halves are dropped together
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// What is to become of the server's next words on a connection.
#[derive(Default)]
struct Fate {
    ends: AtomicBool,
    is_silent: AtomicBool,
}

#[derive(Clone, Copy)]
enum Direction<'l> {
    Up(&'l Losses),
    Down,
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut orders: watch::Receiver<Link>, direction: Direction<'_>, fate: &Fate) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let link = *orders.borrow_and_update();
        let is_silent = match direction {
            Direction::Up(_) => matches!(link, Link::Silent | Link::SilentToServer),
            Direction::Down => matches!(link, Link::Silent | Link::SilentToClient),
        };
        if link == Link::Cut {
            return;
        }
        let read = tokio::select! {
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer), if !is_silent => read,
        };
        let Some(bytes) = read.ok().filter(|length| *length > 0).and_then(|length| buffer.get(..length)) else { return };
        match direction {
            Direction::Up(_) if fate.is_silent.load(Ordering::SeqCst) => continue,
            Direction::Up(losses) if bytes.windows(COMMIT.len()).any(|window| window == COMMIT) => match losses.meet() {
                Some(Loss::Unsaid) => return,
                Some(Loss::Stuck) => {
                    fate.is_silent.store(true, Ordering::SeqCst);
                    continue;
                }
                Some(Loss::Unanswered) => fate.ends.store(true, Ordering::SeqCst),
                Some(Loss::Unending) => fate.is_silent.store(true, Ordering::SeqCst),
                None => {}
            },
            // the answer has come: the server has committed
            Direction::Down if fate.ends.load(Ordering::SeqCst) => return,
            Direction::Down if fate.is_silent.load(Ordering::SeqCst) => continue,
            _ => {}
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
