//! Evidence from outside: ids of events whose senders were answered, and of messages that providers took. Held against what is on
//! record it shows
//!
//! - **lost**: an event that was answered for and is not there, a message that is accepted and that no provider has;
//! - **doubled**: an event that is there twice, a message that was taken twice, or is there twice for one dedupe key;
//! - **untrue**: a message that a provider took and that is on record as never sent, or not at all.
//!
//! Caps are counted by [`crate::audit`], over every attempt that was not definitely refused: what is unknown counts as sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use super::Report;
use crate::engine::action::{MessageId, MessageState};
use crate::engine::profile::Name;
use crate::store::{History, MessageRow};

/// What is known from outside; none: nothing was said about it.
#[derive(Debug, Default)]
pub struct Evidence {
    pub acknowledged: Option<BTreeSet<Name>>,
    /// As often as each was taken.
    pub taken: Option<BTreeMap<MessageId, u32>>,
}

impl Evidence {
    /// # Errors
    /// A file cannot be read, or a line is no message's id.
    pub fn read(acknowledged: Option<&Path>, taken: Option<&Path>) -> anyhow::Result<Evidence> {
        let lines = |path: &Path| {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            Ok::<Vec<String>, anyhow::Error>(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
        };
        let acknowledged = acknowledged.map(lines).transpose()?.map(|ids| ids.into_iter().map(Name::from).collect());
        let Some(path) = taken else { return Ok(Evidence { acknowledged, taken: None }) };
        let mut taken = BTreeMap::new();
        for line in lines(path)? {
            let id = MessageId::parse(&line).with_context(|| format!("`{line}` in `{}` is no message's id", path.display()))?;
            *taken.entry(id).or_default() += 1;
        }
        Ok(Evidence { acknowledged, taken: Some(taken) })
    }
}

/// What the evidence shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    pub lost: u64,
    pub doubled: u64,
    pub caps_exceeded: u64,
    pub unknown: u64,
}

impl Balance {
    pub fn to_json(self) -> Json {
        json!({ "lost": self.lost, "doubled": self.doubled, "caps_exceeded": self.caps_exceeded, "unknown": self.unknown })
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Balance { lost, doubled, caps_exceeded, unknown } = self;
        write!(f, "lost {lost}, doubled {doubled}, caps exceeded {caps_exceeded}, unknown {unknown}")
    }
}

/// The evidence on one side, what is on record on the other, person by person.
pub struct Scales {
    /// Answered for, and not found yet.
    missing: Option<BTreeSet<Name>>,
    taken: Option<BTreeMap<MessageId, u32>>,
    keys: BTreeSet<u128>,
    balance: Balance,
}

impl Scales {
    pub fn of(evidence: Evidence) -> Scales {
        Scales { missing: evidence.acknowledged, taken: evidence.taken, keys: BTreeSet::new(), balance: Balance::default() }
    }

    /// What is on record about one person.
    pub fn put(&mut self, user: &str, history: &History, report: &mut Report) {
        let mut seen = BTreeSet::new();
        for (event, _) in &history.events {
            if let Some(missing) = &mut self.missing {
                missing.remove(&event.id);
            }
            if !seen.insert((&event.source, &event.id)) {
                self.balance.doubled += 1;
                report.find(user, "evidence", format!("the event `{}` of `{}` is on record twice", event.id, event.source));
            }
        }
        for row in &history.messages {
            if !self.keys.insert(row.message.dedupe_key) {
                self.balance.doubled += 1;
                report.find(user, "evidence", format!("there is a second message for the dedupe key of {}", row.message.id));
            }
            self.weigh(user, row, report);
        }
    }

    fn weigh(&mut self, user: &str, row: &MessageRow, report: &mut Report) {
        let Some(taken) = &mut self.taken else { return };
        let (id, state) = (row.message.id, row.state.name());
        let times = taken.remove(&id).unwrap_or_default();
        let has_gone = matches!(row.state, MessageState::Accepted | MessageState::Delivered | MessageState::Bounced);
        if times > 1 {
            self.balance.doubled += 1;
            report.find(user, "evidence", format!("{id} was taken {times} times"));
        } else if times == 1 && !has_gone && row.state != MessageState::Unknown && row.state != MessageState::Sending {
            report.find(user, "evidence", format!("{id} was taken and is on record as {state}"));
        } else if times == 0 && has_gone {
            self.balance.lost += 1;
            report.find(user, "evidence", format!("{id} is on record as {state}, and nobody took it"));
        }
    }

    /// What is left over was never found.
    pub fn read_off(self, report: &mut Report) {
        let Scales { missing, taken, mut balance, .. } = self;
        if missing.is_none() && taken.is_none() {
            return;
        }
        for id in missing.into_iter().flatten() {
            balance.lost += 1;
            report.find("", "evidence", format!("the event `{id}` was answered for and is not on record"));
        }
        for (id, times) in taken.into_iter().flatten() {
            report.find("", "evidence", format!("{id} was taken {times} times and is not on record"));
        }
        balance.caps_exceeded = report.findings.iter().filter(|finding| finding.what == "caps").count() as u64;
        balance.unknown = report.unknown;
        report.evidence = Some(balance);
    }
}
