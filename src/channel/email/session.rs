//! One SMTP connection (RFC 5321), from the greeting to the answer after the final dot.
//!
//! Everything that can go wrong is a [`Fault`] that knows on which side of the dot it fell. Lines of the other side are bounded in length
//! and number, each answer in time. The socket does not wait to fill packets; where the relay offers PIPELINING the envelope takes one
//! round trip instead of three.

use std::fmt;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::letter::Letter;
use crate::faults::Point;
use crate::settings::Secret;
use crate::settings::providers::Tls;

/// RFC 5321 allows 512 bytes; some relays say more.
const LINE_BYTES_MAX: usize = 4_096;
const LINES_MAX: usize = 200;
/// Of the text of an answer, what is kept for people.
const TEXT_BYTES_MAX: usize = 300;

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// How long each answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    pub connect: Duration,
    /// Greeting, EHLO, AUTH, MAIL, RCPT, DATA.
    pub command: Duration,
    /// Handing the content over.
    pub content: Duration,
    /// The answer after the final dot. RFC 5321 asks for ten minutes: giving up earlier makes duplicates, or here doubt.
    pub dot: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            connect: Duration::from_secs(30),
            command: Duration::from_secs(60),
            content: Duration::from_secs(180),
            dot: Duration::from_secs(600),
        }
    }
}

/// Where in the dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Connect,
    Greeting,
    Hello,
    Tls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Content,
    Dot,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connect => "connecting",
            Phase::Greeting => "the greeting",
            Phase::Hello => "EHLO",
            Phase::Tls => "TLS",
            Phase::Auth => "AUTH",
            Phase::Mail => "MAIL",
            Phase::Rcpt => "RCPT",
            Phase::Data => "DATA",
            Phase::Content => "the content",
            Phase::Dot => "the final dot",
        })
    }
}

/// What the relay answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// Enhanced status (RFC 3463): `5.1.1`.
    pub status: Option<(u8, u16, u16)>,
    pub text: String,
}

impl Reply {
    fn is_good(&self) -> bool {
        (200..400).contains(&self.code)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// Why a mail did not go through this connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The relay said no: definite, at whatever phase.
    #[error("{phase} was answered by {reply}")]
    Refused { phase: Phase, reply: Reply },
    /// The connection broke, or an answer did not come in time, before the final dot had left: definitely not taken.
    #[error("broken at {phase}: {why}")]
    Broken { phase: Phase, why: String },
    /// What we are set up for is not offered or not trusted: no TLS, a wrong certificate, no AUTH.
    #[error("{0}")]
    Setup(String),
    /// After the final dot: it may have been taken.
    #[error("no answer after the final dot: {0}")]
    Doubtful(String),
}

/// What the relay offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Offers {
    pipelining: bool,
    starttls: bool,
    auth_plain: bool,
    auth_login: bool,
    utf8: bool,
    eight_bit: bool,
    size: Option<usize>,
}

/// How a session is opened.
pub struct Opening<'a> {
    pub host: &'a str,
    pub port: u16,
    pub tls: Tls,
    pub connector: Option<&'a TlsConnector>,
    pub login: Option<&'a (String, Secret)>,
    pub hello: &'a str,
    pub timers: Timers,
}

/// A connection that is ready for a mail.
pub struct Session {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    offers: Offers,
    timers: Timers,
    /// Mails handed over.
    pub sent: u32,
}

impl Session {
    /// Connects, makes it private, and says who we are. Nothing is sent in the clear where TLS is wanted.
    pub async fn open(opening: &Opening<'_>) -> Result<Session, Fault> {
        let timers = opening.timers;
        let connecting = timeout(timers.connect, TcpStream::connect((opening.host, opening.port))).await;
        let tcp = within(connecting).map_err(broken(Phase::Connect))?;
        // a mail is a few small writes, each of which must leave at once
        tcp.set_nodelay(true).map_err(broken(Phase::Connect))?;
        let mut session = Session { stream: Box::new(tcp), buffer: Vec::new(), offers: Offers::default(), timers, sent: 0 };
        if opening.tls == Tls::Implicit {
            session.encrypt(opening).await?;
        }
        session.expect(Phase::Greeting).await?;
        session.hello(opening.hello).await?;
        if opening.tls == Tls::StartTls {
            if !session.offers.starttls {
                return Err(Fault::Setup("the relay does not offer STARTTLS, and nothing is sent in the clear".into()));
            }
            session.command(Phase::Tls, "STARTTLS\r\n").await?;
            if !session.buffer.is_empty() {
                return Err(Fault::Setup("the relay said something between STARTTLS and TLS: somebody may be in between".into()));
            }
            session.encrypt(opening).await?;
            session.hello(opening.hello).await?;
        }
        if let Some((user, password)) = opening.login {
            session.authenticate(user, password).await?;
        }
        Ok(session)
    }

    async fn encrypt(&mut self, opening: &Opening<'_>) -> Result<(), Fault> {
        let connector = opening.connector.ok_or_else(|| Fault::Setup("TLS is not set up".into()))?;
        let name = ServerName::try_from(opening.host.to_owned()).map_err(|_| Fault::Setup("the relay's name is no host's name".into()))?;
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        match timeout(self.timers.command, connector.connect(name, plain)).await {
            Err(_) => Err(Fault::Broken { phase: Phase::Tls, why: "no answer in time".into() }),
            // a certificate that is not trusted arrives as an error of I/O
            Ok(Err(error)) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                Err(Fault::Setup(format!("the relay's TLS is not trusted: {error}")))
            }
            Ok(Err(error)) => Err(Fault::Broken { phase: Phase::Tls, why: error.to_string() }),
            Ok(Ok(stream)) => {
                self.stream = Box::new(stream);
                Ok(())
            }
        }
    }

    async fn hello(&mut self, name: &str) -> Result<(), Fault> {
        let lines = self.command(Phase::Hello, &format!("EHLO {name}\r\n")).await?.1;
        let mut offers = Offers::default();
        for line in lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => offers.pipelining = true,
                "STARTTLS" => offers.starttls = true,
                "SMTPUTF8" => offers.utf8 = true,
                "8BITMIME" => offers.eight_bit = true,
                "SIZE" => offers.size = words.next().and_then(|size| size.parse().ok()).filter(|size| *size > 0),
                "AUTH" => words.for_each(|mechanism| match mechanism.to_ascii_uppercase().as_str() {
                    "PLAIN" => offers.auth_plain = true,
                    "LOGIN" => offers.auth_login = true,
                    _ => {}
                }),
                _ => {}
            }
        }
        self.offers = offers;
        Ok(())
    }

    async fn authenticate(&mut self, user: &str, password: &Secret) -> Result<(), Fault> {
        if self.offers.auth_plain {
            let token = STANDARD.encode(format!("\0{user}\0{}", password.reveal()));
            self.command(Phase::Auth, &format!("AUTH PLAIN {token}\r\n")).await?;
        } else if self.offers.auth_login {
            self.command(Phase::Auth, "AUTH LOGIN\r\n").await?;
            self.command(Phase::Auth, &format!("{}\r\n", STANDARD.encode(user))).await?;
            self.command(Phase::Auth, &format!("{}\r\n", STANDARD.encode(password.reveal()))).await?;
        } else {
            return Err(Fault::Setup("the relay offers neither AUTH PLAIN nor AUTH LOGIN".into()));
        }
        Ok(())
    }

    /// Hands one mail over; answers the relay's word after the dot. After a [`Fault::Refused`] the session may go on ([`Session::reset`]).
    pub async fn send(&mut self, letter: &Letter) -> Result<Reply, Fault> {
        self.envelope(letter).await?;
        let body = stuffed(&letter.bytes);
        // whatever fails while we write fails before the dot: it is the last to be handed over
        let written = timeout(self.timers.content, write(&mut self.stream, &body)).await;
        within(written).map_err(broken(Phase::Content))?;
        Point::SmtpDot.reach();
        let reply = match timeout(self.timers.dot, self.reply()).await {
            Ok(Ok((reply, _))) => reply,
            Ok(Err(error)) => return Err(Fault::Doubtful(error.to_string())),
            Err(_) => return Err(Fault::Doubtful("it did not come in time".into())),
        };
        self.sent += 1;
        if reply.is_good() { Ok(reply) } else { Err(Fault::Refused { phase: Phase::Dot, reply }) }
    }

    async fn envelope(&mut self, letter: &Letter) -> Result<(), Fault> {
        if letter.needs_utf8 && !self.offers.utf8 {
            let text = "the address needs SMTPUTF8, which the relay does not offer".to_owned();
            return Err(Fault::Refused { phase: Phase::Rcpt, reply: Reply { code: 553, status: Some((5, 6, 7)), text } });
        }
        if let Some(size) = self.offers.size.filter(|size| *size < letter.bytes.len()) {
            let text = format!("the mail has {} bytes, the relay takes {size}", letter.bytes.len());
            return Err(Fault::Refused { phase: Phase::Mail, reply: Reply { code: 552, status: Some((5, 3, 4)), text } });
        }
        let utf8 = if letter.needs_utf8 { " SMTPUTF8" } else { "" };
        let eight_bit = if self.offers.eight_bit && !letter.bytes.is_ascii() { " BODY=8BITMIME" } else { "" };
        let commands = [
            (Phase::Mail, format!("MAIL FROM:<{}>{eight_bit}{utf8}\r\n", letter.from)),
            (Phase::Rcpt, format!("RCPT TO:<{}>\r\n", letter.to)),
            (Phase::Data, "DATA\r\n".to_owned()),
        ];
        if self.offers.pipelining {
            return self.pipelined(&commands).await;
        }
        for (phase, command) in commands {
            self.command(phase, &command).await?;
        }
        Ok(())
    }

    /// All commands at once, then all answers: the first refusal counts. If the relay wants the content all the same, an empty one
    /// ends it, which it must refuse.
    async fn pipelined(&mut self, commands: &[(Phase, String)]) -> Result<(), Fault> {
        let text: String = commands.iter().map(|(_, command)| command.as_str()).collect();
        let written = timeout(self.timers.command, write(&mut self.stream, text.as_bytes())).await;
        within(written).map_err(broken(Phase::Mail))?;
        let mut refused = None;
        for (phase, _) in commands {
            match self.expect(*phase).await {
                Ok(_) if *phase == Phase::Data && refused.is_some() => {
                    self.command(Phase::Data, ".\r\n").await.ok();
                }
                Ok(_) => {}
                Err(fault @ Fault::Refused { .. }) => refused = refused.or(Some(fault)),
                Err(fault) => return Err(refused.unwrap_or(fault)),
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Makes the connection ready for the next mail after a refusal; false: it is of no more use.
    pub async fn reset(&mut self) -> bool {
        self.command(Phase::Mail, "RSET\r\n").await.is_ok()
    }

    /// Says goodbye, without waiting for an answer.
    pub async fn quit(mut self) {
        let goodbye = async {
            write(&mut self.stream, b"QUIT\r\n").await?;
            self.stream.shutdown().await
        };
        timeout(self.timers.command, goodbye).await.ok();
    }

    async fn command(&mut self, phase: Phase, text: &str) -> Result<(Reply, Vec<String>), Fault> {
        let written = timeout(self.timers.command, write(&mut self.stream, text.as_bytes())).await;
        within(written).map_err(broken(phase))?;
        self.expect(phase).await
    }

    async fn expect(&mut self, phase: Phase) -> Result<(Reply, Vec<String>), Fault> {
        let (reply, lines) = within(timeout(self.timers.command, self.reply()).await).map_err(broken(phase))?;
        if reply.is_good() { Ok((reply, lines)) } else { Err(Fault::Refused { phase, reply }) }
    }

    /// Reads one answer, of however many lines.
    async fn reply(&mut self) -> io::Result<(Reply, Vec<String>)> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok()).filter(|code| (200..600).contains(code));
            let code = code.ok_or_else(|| io::Error::other("what came is no answer of SMTP"))?;
            let is_last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if lines.len() > LINES_MAX {
                return Err(io::Error::other("the answer has too many lines"));
            }
            if is_last {
                return Ok((reply_of(code, &lines), lines));
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a line of the answer is too long"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
            }
        }
    }
}

async fn write(stream: &mut Box<dyn Stream>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Time that ran out is an error like any other.
fn within<T>(result: Result<io::Result<T>, tokio::time::error::Elapsed>) -> io::Result<T> {
    result.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

fn broken(phase: Phase) -> impl Fn(io::Error) -> Fault {
    move |error| Fault::Broken { phase, why: error.to_string() }
}

fn reply_of(code: u16, lines: &[String]) -> Reply {
    let mut text = lines.join(" ");
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    let status = lines.first().and_then(|line| enhanced(line.split_ascii_whitespace().next()?));
    Reply { code, status, text }
}

fn enhanced(word: &str) -> Option<(u8, u16, u16)> {
    let mut parts = word.split('.');
    let status = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (parts.next().is_none() && matches!(status.0, 2 | 4 | 5)).then_some(status)
}

/// The content as it goes over the wire: a dot at the beginning of a line is doubled, and a dot alone ends it. The bytes end
/// with CR LF, and no other line ends are in them.
fn stuffed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_doubled_at_the_beginning_of_lines_only() {
        let stuffed = stuffed(b"a.b\r\n.c\r\n..\r\n\r\n.\r\n");
        assert_eq!(String::from_utf8_lossy(&stuffed), "a.b\r\n..c\r\n...\r\n\r\n..\r\n.\r\n");
    }

    #[test]
    fn enhanced_codes_are_read_where_there_is_one() {
        for (text, expected) in [
            ("5.1.1 no such user", Some((5, 1, 1))),
            ("4.7.650 slow down", Some((4, 7, 650))),
            ("no such user 5.1.1", None),
            ("1.2.3 odd", None),
            ("5.1 short", None),
            ("127.0.0.1 is blocked", None),
            ("", None),
        ] {
            assert_eq!(reply_of(550, &[text.to_owned()]).status, expected, "{text}");
        }
    }

    #[test]
    fn the_answer_after_the_dot_may_take_ten_minutes() {
        assert_eq!(Timers::default().dot, Duration::from_secs(600), "RFC 5321, 4.5.3.2.6");
    }

    #[test]
    fn a_long_answer_is_cut_between_letters() {
        let reply = reply_of(550, &["ä".repeat(400)]);
        assert!(reply.text.len() <= TEXT_BYTES_MAX && reply.text.chars().all(|c| c == 'ä'));
    }
}
