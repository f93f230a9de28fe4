//! The facts that a replay goes through: of a file, or those that a database has recorded.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value as Json};

use super::{ASSUMED, Args};
use crate::cli::database;
use crate::clock::{Clock as _, SystemClock};
use crate::engine::action::Channel;
use crate::engine::event::{Event, EventKind};
use crate::engine::profile::Name;
use crate::engine::rule::RuleSet;
use crate::engine::time::{DAY_MS, Timestamp};
use crate::ingest::file::{Origin, Received, read_events};
use crate::store::{EventSeq, Identity, ProfileId, Store};

/// So many events are read of a database at once.
const PAGE: usize = 5_000;
/// What decides who is in a sample: always the same people.
const SAMPLE_SALT: &str = "simulate";

pub struct Facts {
    /// Events by user, in the order of arrival.
    pub events: Vec<(Name, Event)>,
    pub start: Timestamp,
    pub until: Timestamp,
    /// The database they came from.
    pub store: Option<Arc<dyn Store>>,
    source: String,
    rejected: Vec<String>,
}

/// Reads what is to be replayed, those after `--until` left out.
pub async fn read(args: &Args, rules: &RuleSet) -> anyhow::Result<Facts> {
    let (source, store, events, rejected) = match (&args.events, &args.db) {
        (Some(path), _) => {
            let (events, rejected) = of_file(path, rules)?;
            (path.display().to_string(), None, events, rejected)
        }
        (None, Some(place)) => {
            let store = place.open_to_read().await?;
            let (events, unreadable) = of_store(store.as_ref()).await?;
            (place.to_string(), Some(store), events, unreadable)
        }
        (None, None) => bail!("say what to replay: --events FILE or --db DATABASE"),
    };
    let in_time = |event: &Event| args.until.is_none_or(|until| event.received_at <= until);
    let in_sample = |user: &str| args.report.is_about(SAMPLE_SALT, user);
    let mut events: Vec<(Name, Event)> = events.into_iter().filter(|(user, event)| in_time(event) && in_sample(user)).collect();
    if args.assume_consent {
        assume_consent(&mut events);
    }
    let start = events.iter().map(|(_, event)| event.received_at).min();
    let last = events.iter().map(|(_, event)| event.received_at).max();
    let (Some(start), Some(last)) = (start, last) else {
        let hint = rejected.first().map(|first| format!(": {first}")).unwrap_or_default();
        let until = args.until.map(|until| format!(" until {until}")).unwrap_or_default();
        bail!("`{source}` holds no event{until}{hint}");
    };
    Ok(Facts { events, start, until: args.until.unwrap_or(last), store, source, rejected })
}

impl Facts {
    pub fn tell_rejected(&self, shown: usize) {
        for reason in self.rejected.iter().take(shown) {
            eprintln!("warning: {}: {reason}", self.source);
        }
        if self.rejected.len() > shown {
            eprintln!("warning: {}: {} more rows were not taken", self.source, self.rejected.len() - shown);
        }
    }
}

type Read = (Vec<(Name, Event)>, Vec<String>);

fn of_file(path: &Path, rules: &RuleSet) -> anyhow::Result<Read> {
    // one event of 2061 among those of a year would have the replay walk through decades of silence
    let plausible = (Origin::EARLIEST, SystemClock.now().plus_ms(DAY_MS));
    let origin = Origin { currency: rules.dictionary.currency, plausible, ..Origin::new("replay", Received::AsItHappened) };
    let rows = read_events(path, origin).with_context(|| format!("cannot read the events of `{}`", path.display()))?;
    let (mut events, mut rejected) = (Vec::new(), Vec::new());
    for row in rows {
        match row {
            Ok(incoming) => {
                // without a merge an anonymous visitor is a person of their own
                let (Identity::User(user) | Identity::Anonymous(user)) = incoming.identity;
                events.push((user, incoming.event));
            }
            Err(reason) => rejected.push(reason.to_string()),
        }
    }
    Ok((events, rejected))
}

/// All facts on record; what the engine itself did is made anew by the replay. Who was merged into somebody is that person.
async fn of_store(store: &dyn Store) -> anyhow::Result<Read> {
    let mut users: HashMap<ProfileId, Name> = HashMap::new();
    let mut merged: HashMap<ProfileId, ProfileId> = HashMap::new();
    let mut unreadable = Vec::new();
    database::for_everybody(store, |page| {
        unreadable.extend(page.unreadable.into_iter().map(|(_, user, error)| format!("the events of {user} are left out: {error}")));
        for stored in page.profiles {
            merged.extend(stored.merged_into.map(|into| (stored.id, into)));
            users.insert(stored.id, stored.profile.key);
        }
    })
    .await?;
    let whose = |mut id: ProfileId| {
        while let Some(into) = merged.get(&id) {
            id = *into;
        }
        users.get(&id).cloned()
    };
    let mut events = Vec::new();
    let mut after = EventSeq::default();
    loop {
        let rows = store.events(after, PAGE).await?;
        let Some(last) = rows.last().map(|row| row.seq) else { break };
        after = last;
        let facts = rows.into_iter().filter(|row| row.event.is_fact());
        events.extend(facts.filter_map(|row| Some((whose(row.profile)?, row.event))));
    }
    Ok((events, unreadable))
}

/// A record of consent beside each person's first event, for every channel.
fn assume_consent(events: &mut Vec<(Name, Event)>) {
    let mut first: BTreeMap<&Name, &Event> = BTreeMap::new();
    for (user, event) in events.iter() {
        let earliest = first.entry(user).or_insert(event);
        if event.received_at < earliest.received_at {
            *earliest = event;
        }
    }
    let mut records = Vec::new();
    for (user, event) in first {
        for channel in Channel::ALL {
            let properties = Map::from_iter([
                ("purpose".to_owned(), Json::from(ASSUMED.name())),
                ("channel".to_owned(), channel.name().into()),
                ("granted".to_owned(), true.into()),
                ("basis".to_owned(), "opt_in".into()),
                ("source".to_owned(), "assumed".into()),
            ]);
            let id = Arc::from(format!("assumed-consent-{channel}"));
            let record = Event { id, kind: EventKind::Consent, name: Arc::from(""), source: Arc::clone(user), properties, ..event.clone() };
            records.push((Name::clone(user), record));
        }
    }
    events.splice(0..0, records);
}
