//! A rule test as a film: everything that happened, was decided and was sent, line by line with its time.

use serde_json::{Map, Value as Json};

use super::Person;
use crate::engine::action::{Entry, Posting};
use crate::engine::time::{Timestamp, Zone};

/// A line of the film.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    pub at: Timestamp,
    /// From the start of the test, as tests write it.
    pub offset: String,
    pub text: String,
}

impl Shot {
    /// `+10d6h   2011-06-11 14:00  silence-60d.take-1 acted: ...`
    pub fn line(&self, zone: &Zone) -> String {
        let local = self.at.local(zone);
        format!("{:>9}  {} {:02}:{:02}  {}", self.offset, local.date(), local.hour(), local.minute(), self.text)
    }
}

/// What the engine did with a person, in the order of its own time.
pub fn of_person(person: &Person, offset: &dyn Fn(Timestamp) -> String) -> Vec<Shot> {
    let shot = |at: Timestamp, text: String| Shot { at, offset: offset(at), text };
    let entries = person.entries.iter().map(|entry| shot(entry.at, decided(entry)));
    let postings = person.postings.iter().map(|posting| shot(posting.at, booked(posting)));
    let sent = person.messages.iter().map(|sending| {
        let because = sending.because.as_ref().map(|because| format!(": {because}")).unwrap_or_default();
        let message = &sending.message;
        shot(
            sending.at,
            format!("{}.{} {} by {} {}{because}", message.rule, message.step, message.template, message.channel, sending.state.name()),
        )
    });
    let mut shots: Vec<Shot> = entries.chain(postings).chain(sent).collect();
    shots.sort_by_key(|shot| shot.at);
    shots
}

fn decided(entry: &Entry) -> String {
    let step = if entry.step.is_empty() { String::new() } else { format!(".{}", entry.step) };
    format!("{}{step} {}: {}", entry.rule, entry.what.name(), entry.because)
}

fn booked(posting: &Posting) -> String {
    format!("points {:+} {} ({})", posting.amount, posting.class, posting.reason)
}

/// `order_completed { order_id: a1, total: 100 }`
pub fn happened(name: &str, properties: &Map<String, Json>) -> String {
    let said: Vec<String> = properties
        .iter()
        .map(|(key, value)| format!("{key}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    if said.is_empty() { format!("> {name}") } else { format!("> {name} {{ {} }}", said.join(", ")) }
}
