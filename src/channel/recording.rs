//! The channel that sends nothing: it writes what would have gone out into a directory, and plays the provider. For trying rules
//! out, for the demo, and for a copy of a database that was opened under another name.
//!
//! - `sent-YYYY-MM-DD.ndjson`: one line per message, in the order of sending: to whom, why, which answer was played.
//! - `email/ID.eml`, `push/ID.json` ...: the message itself, an RFC 5322 file for e-mail. Written whole or not at all (a temporary
//!   name, then renamed).
//!
//! **Two forms.** [`Form::Files`] writes a file for every message. [`Form::Compact`] puts the content into its line, and writes a
//! file besides only for a share of the messages and for people named: forty thousand files cost a replayed year several
//! seconds, and no file manager shows them with pleasure.
//!
//! **Everything played is called simulated in the files.** Answer and receipts are a pure function of the message's id and the
//! instant it was taken, so that a run that was killed and goes on hears the same. A second send of an id answers like the first and
//! writes nothing.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, MultiPartKind, SinglePart};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Channel, Outcome, Outgoing, Receipt};
use crate::engine::action::{Channel as Kind, MessageId, Outcome as Fact};
use crate::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Timestamp, Zone};

/// Days whose files are kept open.
const OPEN_LOGS_MAX: usize = 16;

/// How much is written for each message.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    Files,
    Compact {
        /// Basis points of messages that get a file of their own all the same.
        files_bp: u16,
        /// People (by key) whose messages all do.
        files_for: BTreeSet<String>,
    },
}

/// How often the played provider answers what, in basis points of messages (`resolved_bp`: of the ambiguous ones).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Refused at once: the next channel is tried.
    pub failed_bp: u16,
    /// Nobody knows whether it went out.
    pub ambiguous_bp: u16,
    /// Of the ambiguous: a receipt clears it up later.
    pub resolved_bp: u16,
    /// Accepted, and returned later: the address is dead.
    pub bounced_bp: u16,
    /// On channels with receipts: accepted, and no receipt ever comes.
    pub silent_bp: u16,
    /// The receipt comes days later.
    pub delayed_bp: u16,
}

impl Default for Shares {
    fn default() -> Self {
        Shares { failed_bp: 50, ambiguous_bp: 40, resolved_bp: 6_000, bounced_bp: 80, silent_bp: 150, delayed_bp: 200 }
    }
}

impl Shares {
    /// A provider that takes and delivers everything.
    pub const ALL_DELIVERED: Shares = Shares { failed_bp: 0, ambiguous_bp: 0, resolved_bp: 0, bounced_bp: 0, silent_bp: 0, delayed_bp: 0 };
}

#[derive(Debug, Clone)]
pub struct Options {
    pub form: Form,
    pub shares: Shares,
    /// `From` of e-mails.
    pub sender: Mailbox,
}

/// Why the directory cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write recorded messages to `{}`: {source}", path.display())]
pub struct RecordingError {
    path: PathBuf,
    source: io::Error,
}

/// See the module's documentation.
pub struct Recording {
    directory: PathBuf,
    options: Options,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: HashSet<MessageId>,
    /// Receipts to come, the next first.
    receipts: BTreeSet<Receipt>,
    /// Open files by their day, the latest used last: a replay writes a week's messages person by person.
    logs: Vec<(String, fs::File)>,
}

/// What [`Recording::open`] reads of a line.
#[derive(Deserialize)]
struct Line {
    id: String,
    channel: String,
    at: String,
}

/// What the played provider does with a message.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Play {
    answer: Answer,
    receipt: Option<(Fact, Timestamp)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Accepted,
    Failed,
    Ambiguous,
}

impl Recording {
    /// Opens the directory, made if need be. What it holds already counts as sent; receipts that fall due after `resume_at` are
    /// played (again): repeated ones change nothing where they are recorded.
    pub fn open(directory: &Path, options: Options, resume_at: Timestamp) -> Result<Recording, RecordingError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| RecordingError { path, source }
        };
        fs::create_dir_all(directory).map_err(error(directory))?;
        let recording = Recording { directory: directory.to_owned(), options, state: Mutex::default() };
        for path in recording.logs().map_err(error(directory))? {
            recording.reread(&path, resume_at).map_err(error(&path))?;
        }
        Ok(recording)
    }

    fn logs(&self) -> io::Result<Vec<PathBuf>> {
        let mut logs = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let is_log =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("sent-") && name.ends_with(".ndjson"));
            if is_log {
                logs.push(path);
            }
        }
        logs.sort();
        Ok(logs)
    }

    /// Takes up what an earlier life wrote. A line that was cut off by a crash is cut away: its message was never answered for.
    fn reread(&self, path: &Path, resume_at: Timestamp) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = io::BufReader::new(fs::File::open(path)?);
        let (mut line, mut whole) = (String::new(), 0u64);
        loop {
            line.clear();
            let length = reader.read_line(&mut line)?;
            if length == 0 {
                return Ok(());
            }
            let parsed = serde_json::from_str::<Line>(&line).ok().filter(|_| line.ends_with('\n'));
            let Some(facts) = parsed.and_then(|l| Some((MessageId::parse(&l.id)?, Kind::named(&l.channel)?, Timestamp::parse(&l.at)?)))
            else {
                return fs::OpenOptions::new().write(true).open(path)?.set_len(whole);
            };
            whole += length as u64;
            let (id, kind, at) = facts;
            state.sent.insert(id);
            let play = play(&self.options.shares, id, kind, at);
            let receipt = play.receipt.filter(|(_, at)| *at > resume_at);
            state.receipts.extend(receipt.map(|(outcome, at)| Receipt { at, message: id, outcome }));
        }
    }

    /// Receipts that have come in by `now`, in order of time; each is handed out once.
    pub fn receipts_until(&self, now: Timestamp) -> Vec<Receipt> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        while state.receipts.first().is_some_and(|receipt| receipt.at <= now) {
            due.extend(state.receipts.pop_first());
        }
        due
    }

    /// When the next receipt comes: where a virtual clock stops.
    pub fn next_receipt_at(&self) -> Option<Timestamp> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).receipts.first().map(|receipt| receipt.at)
    }

    /// Messages written so far, earlier lives included.
    pub fn sent_count(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sent.len()
    }

    fn write(&self, state: &mut State, outgoing: &Outgoing<'_>, play: Play) -> io::Result<()> {
        let own_file = match &self.options.form {
            Form::Files => true,
            Form::Compact { files_bp, files_for } => {
                files_for.contains(outgoing.profile) || share_of(outgoing.message, "file") < u64::from(*files_bp)
            }
        };
        let file = if own_file { Some(self.write_file(outgoing, play)?) } else { None };
        let mut line = serde_json::to_vec(&line_of(outgoing, play, file.as_deref(), self.options.form != Form::Files))?;
        line.push(b'\n');

        let day = outgoing.at.local(&Zone::UTC).date().to_string();
        if let Some(place) = state.logs.iter().position(|(open, _)| *open == day) {
            let used = state.logs.remove(place);
            state.logs.push(used);
        } else {
            let path = self.directory.join(format!("sent-{day}.ndjson"));
            let log = fs::OpenOptions::new().create(true).append(true).open(path)?;
            if state.logs.len() >= OPEN_LOGS_MAX {
                state.logs.remove(0);
            }
            state.logs.push((day, log));
        }
        let Some((_, log)) = state.logs.last_mut() else { return Err(io::Error::other("the day's file was just opened")) };
        // one write per line: what was answered for survives a kill of the process
        log.write_all(&line)
    }

    /// Answers the file's path below the directory.
    fn write_file(&self, outgoing: &Outgoing<'_>, play: Play) -> io::Result<String> {
        let (extension, bytes) = match outgoing.kind {
            Kind::Email => ("eml", self.mail(outgoing, play)?),
            _ => ("json", serde_json::to_vec_pretty(&line_of(outgoing, play, None, true))?),
        };
        let folder = self.directory.join(outgoing.kind.name());
        fs::create_dir_all(&folder)?;
        let name = format!("{}.{extension}", outgoing.message);
        let temporary = folder.join(format!(".{name}.tmp"));
        fs::write(&temporary, bytes)?;
        fs::rename(&temporary, folder.join(&name))?;
        Ok(format!("{}/{name}", outgoing.kind.name()))
    }

    /// The e-mail as it would go to a relay.
    fn mail(&self, outgoing: &Outgoing<'_>, play: Play) -> io::Result<Vec<u8>> {
        let to = mailbox(outgoing.address).ok_or_else(|| io::Error::other("the address is no e-mail address"))?;
        let domain = self.options.sender.email.domain();
        let sent_at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(outgoing.at.as_ms()).unwrap_or_default());
        let mut builder = lettre::Message::builder()
            .message_id(Some(format!("<{}@{domain}>", outgoing.message)))
            .date(sent_at)
            .from(self.options.sender.clone())
            .to(to)
            .subject(outgoing.content.subject.clone().unwrap_or_default());
        for (name, value) in [("X-Rekindle-Rule", outgoing.rule.to_owned()), ("X-Rekindle-Simulated", simulated(play).to_string())] {
            builder = builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii(name.to_owned()).map_err(io::Error::other)?, value));
        }
        let plain = SinglePart::plain(outgoing.content.text.clone().unwrap_or_default());
        let message = match &outgoing.content.html {
            // the boundary is the id's: the same message is the same bytes
            Some(html) => builder.multipart(
                MultiPart::builder()
                    .kind(MultiPartKind::Alternative)
                    .boundary(format!("rekindle-{}", outgoing.message))
                    .singlepart(plain)
                    .singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(html.clone())),
            ),
            None => builder.singlepart(plain),
        };
        message.map(|message| message.formatted()).map_err(io::Error::other)
    }
}

#[async_trait]
impl Channel for Recording {
    fn deduplicates(&self) -> bool {
        true
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome {
        if outgoing.address.chars().any(char::is_control) || (outgoing.kind == Kind::Email && mailbox(outgoing.address).is_none()) {
            return Outcome::Rejected { suppress: true, detail: "the address is not valid".into() };
        }
        let play = play(&self.options.shares, outgoing.message, outgoing.kind, outgoing.at);
        // a short append under a lock that nobody holds across an await: not worth a thread of its own
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if play.answer != Answer::Failed && !state.sent.contains(&outgoing.message) {
            if let Err(error) = self.write(&mut state, outgoing, play) {
                let detail = format!("cannot write to `{}`: {error}", self.directory.display());
                return Outcome::Retry { class: super::RetryClass::Transient, after_ms: None, detail };
            }
            state.sent.insert(outgoing.message);
            state.receipts.extend(play.receipt.map(|(outcome, at)| Receipt { at, message: outgoing.message, outcome }));
        }
        match play.answer {
            Answer::Accepted => Outcome::Accepted { provider_id: format!("simulated-{}", outgoing.message) },
            Answer::Failed => Outcome::Rejected { suppress: false, detail: "refused (simulated)".into() },
            Answer::Ambiguous => Outcome::Ambiguous { ask_again: false, detail: "no answer (simulated)".into() },
        }
    }
}

/// An address that a header can hold.
fn mailbox(address: &str) -> Option<Mailbox> {
    address.parse::<lettre::Address>().ok().map(|address| Mailbox::new(None, address))
}

fn line_of(outgoing: &Outgoing<'_>, play: Play, file: Option<&str>, with_content: bool) -> Json {
    let content = outgoing.content;
    let mut line = json!({
        "id": outgoing.message.to_string(),
        "channel": outgoing.kind.name(),
        "at": outgoing.at.to_string(),
        "user": outgoing.profile,
        "to": outgoing.address,
        "rule": outgoing.rule,
        "template": outgoing.template,
        "locale": content.locale,
        "simulated": simulated(play),
    });
    let Json::Object(fields) = &mut line else { return line };
    if let Some(file) = file {
        fields.insert("file".into(), file.into());
    }
    if !with_content {
        return line;
    }
    fields.extend(content.parts().map(|(name, part)| (name.to_owned(), part.into())));
    line
}

fn simulated(play: Play) -> Json {
    let answer = match play.answer {
        Answer::Accepted => "accepted",
        Answer::Failed => "failed",
        Answer::Ambiguous => "ambiguous",
    };
    match play.receipt {
        Some((outcome, at)) => json!({ "answer": answer, "receipt": outcome.name(), "receipt_at": at.to_string() }),
        None => json!({ "answer": answer }),
    }
}

/// The played provider: nothing but hashes of the id.
fn play(shares: &Shares, message: MessageId, kind: Kind, at: Timestamp) -> Play {
    let fate = share_of(message, "answer");
    let (failed, ambiguous) = (u64::from(shares.failed_bp), u64::from(shares.failed_bp + shares.ambiguous_bp));
    let confirmed = if kind.has_receipts() { Fact::Delivered } else { Fact::Accepted };
    if fate < failed {
        return Play { answer: Answer::Failed, receipt: None };
    }
    if fate < ambiguous {
        let resolved = share_of(message, "resolved") < u64::from(shares.resolved_bp);
        let at = at.plus_ms(between(message, 30 * MINUTE_MS, 12 * HOUR_MS));
        return Play { answer: Answer::Ambiguous, receipt: resolved.then_some((confirmed, at)) };
    }
    let late_ms = if share_of(message, "delayed") < u64::from(shares.delayed_bp) { between(message, DAY_MS, 3 * DAY_MS) } else { 0 };
    let fate = share_of(message, "receipt");
    let bounced = u64::from(shares.bounced_bp);
    let receipt = if fate < bounced {
        Some((Fact::Bounced, at.plus_ms(between(message, MINUTE_MS, 6 * HOUR_MS) + late_ms)))
    } else if kind.has_receipts() && fate >= bounced + u64::from(shares.silent_bp) {
        Some((Fact::Delivered, at.plus_ms(between(message, 5 * SECOND_MS, 10 * MINUTE_MS) + late_ms)))
    } else {
        None
    };
    Play { answer: Answer::Accepted, receipt }
}

fn hash(message: MessageId, salt: &str) -> u64 {
    let mut bytes = message.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(salt.as_bytes());
    twox_hash::XxHash3_64::oneshot(&bytes)
}

/// 0 to 9999, evenly.
fn share_of(message: MessageId, salt: &str) -> u64 {
    hash(message, salt) % 10_000
}

/// A stable span between two, in milliseconds (whole seconds: receipts are no more exact than that).
fn between(message: MessageId, from_ms: i64, to_ms: i64) -> i64 {
    let seconds = u64::try_from((to_ms - from_ms) / SECOND_MS).unwrap_or(1).max(1);
    from_ms + (hash(message, "delay") % seconds) as i64 * SECOND_MS
}
