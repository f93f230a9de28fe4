//! What a replay did, note by note, small enough for a million events: who entered what, what was sent, held, dropped, taken and given.
//! The figures of a report and the comparison of two rule sets are read from it when the replay is over.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value as Json;

use crate::engine::action::{Channel, Entry, Message, Posting, PostingKind, What};
use crate::engine::decide::Decision;
use crate::engine::event::Event;
use crate::engine::profile::{Name, Profile};
use crate::engine::time::{DAY_MS, Timestamp};

/// A name or a person by its place in the journal's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(u32);

/// One thing that happened to one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    pub at: Timestamp,
    pub person: Index,
    pub rule: Index,
    pub step: Index,
    pub run: u32,
    pub what: Noted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    Entered,
    /// Satisfied `when` already as the rule first saw them.
    Existing,
    /// A provider accepted a message of it.
    Sent {
        channel: Channel,
        template: Index,
    },
    /// Another action happened.
    Acted,
    /// "Not now, until", by this gate.
    Held {
        gate: Index,
    },
    /// It ended unsent, because of this.
    Dropped {
        gate: Index,
    },
    /// This person was left out: `audience`, `if`, `holdout`.
    Skipped {
        because: Index,
    },
    /// A posting of the ledger, by a rule or by the program (then rule and step are empty).
    Points {
        kind: PostingKind,
        class: Index,
        amount: i64,
    },
    /// A coupon was reserved, of that face value in minor units.
    Coupon {
        coupon: Index,
        value: i64,
    },
    Tier {
        from: Index,
        to: Index,
    },
}

/// What is known of a person as they enter a rule: the ways in which a report tells entries apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trait {
    Country,
    Tier,
    /// First seen less than 30 days ago, or longer.
    Acquaintance,
}

impl Trait {
    pub const ALL: [Trait; 3] = [Trait::Country, Trait::Tier, Trait::Acquaintance];

    pub fn name(self) -> &'static str {
        match self {
            Trait::Country => "country",
            Trait::Tier => "tier",
            Trait::Acquaintance => "new or known",
        }
    }
}

/// Since when a person counts as known rather than new: as `is_new` has it.
const NEW_FOR_MS: i64 = 30 * DAY_MS;

/// Stands for the tier of somebody at whom no programme has looked yet.
const NO_TIER: &str = "none";

#[derive(Debug, Default)]
pub struct Journal {
    /// In the order of time; at one instant in the order of happening.
    pub notes: Vec<Note>,
    /// Entries by rule, told apart by what the person was.
    pub entered_by: BTreeMap<(Index, Trait, Index), u64>,
    names: Table,
    people: Table,
}

/// Each name once.
#[derive(Debug, Default)]
struct Table {
    names: Vec<Name>,
    places: HashMap<Name, Index>,
}

impl Table {
    fn index(&mut self, name: &Name) -> Index {
        if let Some(index) = self.places.get(name) {
            return *index;
        }
        let index = Index(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(Name::clone(name));
        self.places.insert(Name::clone(name), index);
        index
    }

    fn name(&self, index: Index) -> &Name {
        static NOBODY: std::sync::LazyLock<Name> = std::sync::LazyLock::new(|| Name::from(""));
        self.names.get(index.0 as usize).unwrap_or(&NOBODY)
    }
}

impl Journal {
    /// The name of a rule, step, gate, class, coupon or tier.
    pub fn name(&self, index: Index) -> &Name {
        self.names.name(index)
    }

    pub fn person(&self, index: Index) -> &Name {
        self.people.name(index)
    }

    /// So many different people are in it.
    pub fn people(&self) -> usize {
        self.people.names.len()
    }

    /// Notes after `from` and up to `until`, it included.
    pub fn within(&self, from: Timestamp, until: Timestamp) -> impl Iterator<Item = &Note> {
        self.notes.iter().filter(move |note| from < note.at && note.at <= until)
    }

    /// What a decision did, besides queueing messages: whether these go out is seen later.
    pub fn decided(&mut self, decision: &Decision, now: Timestamp) {
        let nothing = decision.entries.is_empty() && decision.postings.is_empty() && decision.budget_used.is_empty();
        if nothing && decision.own_events.is_empty() {
            return;
        }
        let person = self.people.index(&decision.profile.key);
        for entry in &decision.entries {
            self.entry(person, entry, &decision.profile);
        }
        for posting in &decision.postings {
            self.posting(person, posting);
        }
        for (coupon, at, value) in &decision.budget_used {
            let (nothing, coupon) = (self.nothing(), self.names.index(coupon));
            self.notes.push(Note { at: *at, person, rule: nothing, step: nothing, run: 0, what: Noted::Coupon { coupon, value: *value } });
        }
        for event in decision.own_events.iter().filter(|event| &*event.name == "tier_changed") {
            self.tier(person, event, now);
        }
    }

    /// A message was accepted by a provider.
    pub fn sent(&mut self, message: &Message, person: &Name, at: Timestamp) {
        let what = Noted::Sent { channel: message.channel, template: self.names.index(&message.template) };
        let note = Note {
            at,
            person: self.people.index(person),
            rule: self.names.index(&message.rule),
            step: self.names.index(&message.step),
            run: message.run,
            what,
        };
        self.notes.push(note);
    }

    /// A queued message was stopped at its send-intent.
    pub fn stopped(&mut self, message: &Message, person: &Name, at: Timestamp, gate: &Name, for_good: bool) {
        let gate = self.names.index(gate);
        let note = Note {
            at,
            person: self.people.index(person),
            rule: self.names.index(&message.rule),
            step: self.names.index(&message.step),
            run: message.run,
            what: if for_good { Noted::Dropped { gate } } else { Noted::Held { gate } },
        };
        self.notes.push(note);
    }

    fn entry(&mut self, person: Index, entry: &Entry, profile: &Profile) {
        let what = match entry.what {
            What::Entered => Noted::Entered,
            What::Existing => Noted::Existing,
            What::Acted | What::Alerted => Noted::Acted,
            What::Held => Noted::Held { gate: self.gate(entry) },
            What::Dropped => Noted::Dropped { gate: self.gate(entry) },
            What::Skipped => Noted::Skipped { because: self.gate(entry) },
            _ => return,
        };
        let rule = self.names.index(&entry.rule);
        let step = self.names.index(&entry.step);
        self.notes.push(Note { at: entry.at, person, rule, step, run: entry.run, what });
        if what == Noted::Entered {
            self.entrant(rule, profile, entry.at);
        }
    }

    fn entrant(&mut self, rule: Index, profile: &Profile, at: Timestamp) {
        let is_new = profile.first_seen_at.is_none_or(|first| at.ms_since(first) < NEW_FOR_MS);
        let tier = profile.tier.base.clone().unwrap_or_else(|| Name::from(NO_TIER));
        let traits = [
            (Trait::Country, Name::from(profile.country())),
            (Trait::Tier, tier),
            (Trait::Acquaintance, Name::from(if is_new { "new" } else { "known" })),
        ];
        for (kind, value) in traits {
            let value = self.names.index(&value);
            *self.entered_by.entry((rule, kind, value)).or_default() += 1;
        }
    }

    fn posting(&mut self, person: Index, posting: &Posting) {
        let none = Name::from("");
        let what = Noted::Points { kind: posting.kind, class: self.names.index(&posting.class), amount: posting.amount };
        let rule = self.names.index(posting.rule.as_ref().unwrap_or(&none));
        let step = self.names.index(posting.step.as_ref().unwrap_or(&none));
        self.notes.push(Note { at: posting.at, person, rule, step, run: posting.run.unwrap_or(0), what });
    }

    fn tier(&mut self, person: Index, event: &Event, now: Timestamp) {
        let mut level = |key| self.names.index(&Name::from(event.property(key).and_then(Json::as_str).unwrap_or(NO_TIER)));
        let what = Noted::Tier { from: level("from"), to: level("to") };
        let nothing = self.nothing();
        self.notes.push(Note { at: now, person, rule: nothing, step: nothing, run: 0, what });
    }

    fn gate(&mut self, entry: &Entry) -> Index {
        self.names.index(&Name::from(entry.gate_and_reason().0))
    }

    fn nothing(&mut self) -> Index {
        self.names.index(&Name::from(""))
    }
}

#[cfg(test)]
impl Journal {
    pub fn someone(&mut self, user: &str) -> Index {
        self.people.index(&Name::from(user))
    }

    pub fn sent_by(&mut self, user: &str, rule: &str, at: Timestamp) {
        let (person, rule, nothing) = (self.someone(user), self.names.index(&Name::from(rule)), self.nothing());
        let what = Noted::Sent { channel: Channel::Email, template: nothing };
        self.notes.push(Note { at, person, rule, step: nothing, run: 1, what });
    }
}
