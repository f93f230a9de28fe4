//! Whether each part of the daemon is well: what `/readyz` answers, with reasons.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A part that reports. The names stand in answers and in docs/operating.md.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    Rules,
    Evaluate,
    Dispatch,
    Store,
    /// The process as a whole: ill while it shuts down, so that a load balancer turns away first.
    Process,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Rules => "rules",
            Part::Evaluate => "evaluate",
            Part::Dispatch => "dispatch",
            Part::Store => "store",
            Part::Process => "process",
        }
    }
}

/// See the module's documentation. A part that has never reported is not there: roles that do not run say nothing.
#[derive(Debug, Default)]
pub struct Vitals(Mutex<BTreeMap<Part, Result<(), String>>>);

impl Vitals {
    pub fn well(&self, part: Part) {
        self.set(part, Ok(()));
    }

    /// `reason`: for people, one line.
    pub fn ill(&self, part: Part, reason: impl ToString) {
        self.set(part, Err(reason.to_string()));
    }

    fn set(&self, part: Part, state: Result<(), String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    /// Every part that has reported, with the reason if it is not well.
    pub fn report(&self) -> Vec<(&'static str, Result<(), String>)> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(part, state)| (part.name(), state.clone())).collect()
    }
}
