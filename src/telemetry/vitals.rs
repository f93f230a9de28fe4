//! Whether each part of the daemon is well: what `/readyz` answers, with reasons.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Stopwatch;

/// A part that reports. The names stand in answers and in docs/operating.md.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    Rules,
    Evaluate,
    Dispatch,
    /// Reading along with a stream of events.
    Nats,
    Store,
    /// That the database takes what is to be kept: a disk that has turned read-only is read as before. Tried with each heartbeat.
    Writing,
    /// Which environment the database belongs to; never ill, it only has notes.
    Environment,
    /// The administrator's file, as it is looked at while the process runs.
    Settings,
    /// The process as a whole: ill while it shuts down, so that a load balancer turns away first.
    Process,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Rules => "rules",
            Part::Evaluate => "evaluate",
            Part::Dispatch => "dispatch",
            Part::Nats => "nats",
            Part::Store => "store",
            Part::Writing => "writing",
            Part::Environment => "environment",
            Part::Settings => "settings",
            Part::Process => "process",
        }
    }
}

/// See the module's documentation. A part that has never reported is not there: roles that do not run say nothing.
#[derive(Debug, Default)]
pub struct Vitals {
    states: Mutex<BTreeMap<Part, Result<(), String>>>,
    notes: Mutex<BTreeMap<Part, String>>,
    /// Since when a part has been in a pass; none: it waits for the next one.
    passes: Mutex<BTreeMap<Part, Option<Stopwatch>>>,
}

impl Vitals {
    pub fn well(&self, part: Part) {
        self.set(part, Ok(()));
    }

    /// `reason`: for people, one line.
    pub fn ill(&self, part: Part, reason: impl ToString) {
        self.set(part, Err(reason.to_string()));
    }

    fn set(&self, part: Part, state: Result<(), String>) {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    /// Something that people should know although the part works; `None`: no more.
    pub fn note(&self, part: Part, note: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => drop(notes.insert(part, note)),
            None => drop(notes.remove(&part)),
        }
    }

    /// A pass begins: should it never end, [`Vitals::passes`] shows it.
    pub fn begin(&self, part: Part) {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner).insert(part, Some(Stopwatch::start()));
    }

    pub fn end(&self, part: Part) {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner).insert(part, None);
    }

    /// Every part that works in passes, and since when it has been in one.
    pub fn passes(&self) -> Vec<(Part, Option<Stopwatch>)> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(part, since)| (*part, *since)).collect()
    }

    pub fn notes(&self) -> Vec<(&'static str, String)> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().map(|(part, note)| (part.name(), note.clone())).collect()
    }

    /// Every part that has reported, with the reason if it is not well.
    pub fn report(&self) -> Vec<(&'static str, Result<(), String>)> {
        let parts = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(part, state)| (part.name(), state.clone())).collect()
    }
}
