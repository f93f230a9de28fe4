//! An SMTP server on loopback that does what it is told to: answer wrongly at any stage, close, say nothing, offer TLS that nobody
//! should trust. It keeps every command and every mail that it took.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What the sink does at a stage instead of what is usual.
#[derive(Clone, Debug)]
pub enum Act {
    Say(&'static str),
    Close,
    /// Never answers; the connection stays open.
    Silence,
}

/// Stages: `banner`, `ehlo`, `starttls`, `auth`, `mail`, `rcpt`, `data`, `dot`.
pub type Script = BTreeMap<&'static str, Vec<Act>>;

#[derive(Clone, Default)]
pub struct Options {
    /// At each stage the first of the list, then the next, then what is usual.
    pub script: Script,
    /// Lines of the answer to EHLO after the first.
    pub offers: Vec<&'static str>,
    pub tls: Option<TlsAcceptor>,
    pub implicit: bool,
    /// Closes after so many mails.
    pub mails_per_connection: Option<usize>,
    /// Each answer to a mail takes a permit: without any, mails are taken and not answered.
    pub gate: Option<Arc<Semaphore>>,
}

#[derive(Default)]
pub struct Seen {
    pub connections: usize,
    pub open: usize,
    pub open_most: usize,
    /// Every command line, in order, of all connections.
    pub commands: Vec<String>,
    /// Content as it came over the wire, with doubled dots, without the final one.
    pub mails: Vec<Vec<u8>>,
    /// Commands that came in one piece with others.
    pub encrypted: usize,
}

pub struct Sink {
    pub port: u16,
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sink {
    pub async fn start(options: Options) -> Sink {
        Sink::start_at(0, options).await
    }

    /// On a port that was seen free; 0: on any.
    pub async fn start_at(port: u16, options: Options) -> Sink {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (shared, script) = (seen.clone(), Arc::new(Mutex::new(options.script.clone())));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("an option");
                let (seen, script, options) = (shared.clone(), script.clone(), options.clone());
                tokio::spawn(async move {
                    change(&seen, |seen| {
                        seen.connections += 1;
                        seen.open += 1;
                        seen.open_most = seen.open_most.max(seen.open);
                    });
                    let mut talk = Talk { seen: seen.clone(), script, options: options.clone(), mails: 0 };
                    match (options.implicit, options.tls) {
                        (true, Some(tls)) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk.run(BufReader::new(stream), true, true).await;
                            }
                        }
                        (_, Some(tls)) => {
                            if let Some(plain) = talk.run(BufReader::new(stream), true, false).await
                                && let Ok(stream) = tls.accept(plain.into_inner()).await
                            {
                                talk.run(BufReader::new(stream), false, true).await;
                            }
                        }
                        _ => drop(talk.run(BufReader::new(stream), true, false).await),
                    }
                    change(&seen, |seen| seen.open -= 1);
                });
            }
        });
        Sink { port, seen, task }
    }

    pub fn mails(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").mails.iter().map(|mail| String::from_utf8_lossy(mail).into_owned()).collect()
    }

    /// The message ids of the mails, in the order in which they came.
    pub fn message_ids(&self) -> Vec<String> {
        let id = |mail: &String| mail.lines().find_map(|line| line.strip_prefix("X-Rekindle-Message: ").map(str::to_owned));
        self.mails().iter().map(|mail| id(mail).unwrap_or_else(|| panic!("a mail without our id: {mail}"))).collect()
    }

    /// Mails begun, whatever became of them.
    pub fn begun(&self) -> usize {
        self.seen(|seen| seen.commands.iter().filter(|line| line.starts_with("MAIL")).count())
    }

    pub fn commands(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").commands.clone()
    }

    pub fn seen<T>(&self, read: impl Fn(&Seen) -> T) -> T {
        read(&self.seen.lock().expect("no panic"))
    }
}

fn change(seen: &Mutex<Seen>, change: impl Fn(&mut Seen)) {
    change(&mut seen.lock().expect("no panic"));
}

struct Talk {
    seen: Arc<Mutex<Seen>>,
    script: Arc<Mutex<Script>>,
    options: Options,
    mails: usize,
}

impl Talk {
    /// One dialogue; answers the stream if STARTTLS ended it.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        mut stream: BufReader<S>,
        greet: bool,
        encrypted: bool,
    ) -> Option<BufReader<S>> {
        if greet {
            self.answer(&mut stream, "banner", "220 sink ready").await?;
        }
        let (mut line, mut recipients) = (Vec::new(), 0);
        loop {
            line.clear();
            if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
                return None;
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = text.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            change(&self.seen, |seen| {
                seen.commands.push(text.clone());
                seen.encrypted += usize::from(encrypted);
            });
            match verb.as_str() {
                "EHLO" => {
                    let offers = self.options.offers.iter().filter(|offer| !(encrypted && **offer == "STARTTLS")).copied();
                    let lines: Vec<&str> = std::iter::once("sink").chain(offers).collect();
                    let last = lines.len() - 1;
                    let answer: Vec<String> =
                        lines.iter().enumerate().map(|(n, line)| format!("250{}{line}", if n == last { ' ' } else { '-' })).collect();
                    _ = self.answer(&mut stream, "ehlo", &answer.join("\r\n")).await?;
                }
                "STARTTLS" => {
                    self.answer(&mut stream, "starttls", "220 go ahead").await?;
                    return Some(stream);
                }
                "AUTH" => _ = self.answer(&mut stream, "auth", "235 2.7.0 welcome").await?,
                "MAIL" => {
                    recipients = 0;
                    _ = self.answer(&mut stream, "mail", "250 2.1.0 ok").await?;
                }
                "RCPT" => {
                    let taken = self.answer(&mut stream, "rcpt", "250 2.1.5 ok").await?;
                    recipients += usize::from(taken);
                }
                "DATA" if recipients == 0 => self.say(&mut stream, "503 5.5.1 no recipients").await?,
                "DATA" => {
                    if self.answer(&mut stream, "data", "354 go ahead").await? {
                        let mail = read_mail(&mut stream).await?;
                        change(&self.seen, |seen| seen.mails.push(mail.clone()));
                        self.mails += 1;
                        if let Some(gate) = &self.options.gate {
                            gate.acquire().await.ok()?.forget();
                        }
                        self.answer(&mut stream, "dot", &format!("250 2.0.0 Ok: queued as Q{}", self.mails)).await?;
                        if self.options.mails_per_connection.is_some_and(|most| self.mails >= most) {
                            return None;
                        }
                    }
                }
                "QUIT" => {
                    self.say(&mut stream, "221 bye").await?;
                    return None;
                }
                _ => self.say(&mut stream, "250 2.0.0 ok").await?,
            }
        }
    }

    /// The usual answer, or what the script says; whether it was a good one.
    async fn answer<S: AsyncWrite + Unpin>(&self, stream: &mut S, stage: &str, usual: &str) -> Option<bool> {
        let act = {
            let mut script = self.script.lock().expect("no panic");
            script.get_mut(stage).and_then(|acts| (!acts.is_empty()).then(|| acts.remove(0)))
        };
        match act {
            None => self.say(stream, usual).await.map(|()| true),
            Some(Act::Say(text)) => self.say(stream, text).await.map(|()| text.starts_with(['2', '3'])),
            Some(Act::Close) => None,
            Some(Act::Silence) => {
                std::future::pending::<()>().await;
                None
            }
        }
    }

    async fn say<S: AsyncWrite + Unpin>(&self, stream: &mut S, text: &str) -> Option<()> {
        stream.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
        stream.flush().await.ok()
    }
}

/// Strictly: only CR LF ends a line, only a dot alone between two of them ends the mail.
async fn read_mail<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<Vec<u8>> {
    let mut mail = Vec::new();
    loop {
        let before = mail.len();
        if stream.read_until(b'\n', &mut mail).await.ok()? == 0 {
            return None;
        }
        if &mail[before..] == b".\r\n" && (before == 0 || mail[..before].ends_with(b"\r\n")) {
            mail.truncate(before);
            return Some(mail);
        }
    }
}

/// An authority of one's own, as PEM, and a server for `localhost` that it vouches for.
pub fn authority() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    let pem = certificate.pem();
    let issuer = Issuer::new(params, key);
    (pem, server("localhost", Some(&issuer)))
}

/// Such an authority, its server, and the same server with a certificate that is over.
pub fn authority_with_an_expired_certificate() -> (String, TlsAcceptor, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let issuer = Issuer::new(params, key);
    let mut expired = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    (expired.not_before, expired.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    (pem, server("localhost", Some(&issuer)), server_with(expired, Some(&issuer)))
}

/// A server for a name; without an authority it vouches for itself.
pub fn server(name: &str, issuer: Option<&Issuer<'_, KeyPair>>) -> TlsAcceptor {
    server_with(CertificateParams::new(vec![name.to_owned()]).expect("parameters"), issuer)
}

fn server_with(params: CertificateParams, issuer: Option<&Issuer<'_, KeyPair>>) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    let chain = vec![CertificateDer::from(certificate.expect("a certificate").der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    TlsAcceptor::from(Arc::new(config))
}
