//! Runs a rule test: puts the given person on a [`Timeline`], lets the days pass, and compares what is with what is expected.
//!
//! In a rule test nobody is held out (unless asked), no source is quiet, every channel has an address, and receipts share the
//! decision's instant. The policy of the set is in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::coverage::Coverage;
use super::explain::explain;
use super::film::{self, Shot};
use super::testfile::{Expectation, Happens, Line, RuleTest, Wanted, When, json};
use super::{Person, Sending, Timeline};
use crate::engine::absorb::absorb;
use crate::engine::action::{Channel, Entry, What};
use crate::engine::decide::Context;
use crate::engine::event::{Event, EventKind};
use crate::engine::features;
use crate::engine::points::{self, Booked, PointsGrant};
use crate::engine::profile::{Category, Consent, Name, Passage, Profile, RunOutcome};
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::expr::Subject;
use crate::engine::rule::{Jurisdiction, Rule, RuleSet, Trigger};
use crate::engine::tier;
use crate::engine::time::{Span, Timestamp, Zone};

/// The basis of consent that `given.user.consent` records.
const GIVEN_BASIS: &str = "opt_in";
/// `given.user` keys that are not attributes.
const FACTS: [&str; 7] = ["id", "tier", "tier_since", "first_seen_at", "last_active_at", "consent", "zone"];

/// What came of one test.
#[derive(Debug, Default)]
pub struct Ran {
    /// In order; empty: it passed.
    pub failures: Vec<Failure>,
    /// Everything that happened, where it was asked for.
    pub film: Vec<String>,
    pub coverage: Coverage,
}

/// What was expected and is not.
#[derive(Debug)]
pub struct Failure {
    /// RK0610, or what kept the test from running.
    pub finding: Diagnostic,
    /// None: the test could not be run as it is.
    pub expected: Option<Json>,
    pub found: Option<Json>,
}

impl From<Diagnostic> for Failure {
    fn from(finding: Diagnostic) -> Self {
        Failure { finding, expected: None, found: None }
    }
}

/// What of a test is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Outcome,
    /// Its film and coverage too.
    Everything,
}

/// Runs one test against a set of its own.
///
/// The set is consumed because a test leaves only its own rules in force.
pub fn run(test: &RuleTest, mut set: RuleSet, keep: Keep) -> Ran {
    set.rules.retain(|rule| test.rules.contains(&rule.id));
    if let (Some(pack), Some(program)) = (test.given.jurisdiction, set.program.as_mut()) {
        program.jurisdiction = Jurisdiction { packs: BTreeMap::new(), otherwise: pack };
    }
    let mut stage = match Stage::set(test, Arc::new(set)) {
        Ok(stage) => stage,
        Err(finding) => return Ran { failures: vec![Failure::from(*finding)], ..Ran::default() },
    };
    if keep == Keep::Everything {
        stage.timeline.coverage = Some(Coverage::of(stage.timeline.rules()));
    }
    let mut failures = Vec::new();
    for (index, moment) in test.timeline.iter().enumerate() {
        let at = moment.at.resolve(test.start, &stage.zone);
        match &moment.what {
            Line::Happens(happens) => {
                let event = stage.event(happens, at, &format!("timeline-{index}"));
                stage.timeline.event(&stage.user, event);
            }
            Line::Expect(expectations) => {
                stage.timeline.advance_to(at);
                failures.extend(expectations.iter().filter_map(|wanted| stage.check(wanted)));
            }
        }
    }
    failures.extend(stage.timeline.faults.iter().map(|fault| Diagnostic::error("RK0610", test.place.clone(), fault.clone()).into()));
    let film = if keep == Keep::Everything { stage.film() } else { Vec::new() };
    Ran { failures, film, coverage: stage.timeline.coverage.take().unwrap_or_default() }
}

/// The given person on a timeline.
struct Stage<'t> {
    test: &'t RuleTest,
    timeline: Timeline,
    user: String,
    /// The zone of offsets in days.
    zone: Zone,
}

impl<'t> Stage<'t> {
    fn set(test: &'t RuleTest, set: Arc<RuleSet>) -> Result<Self, Box<Diagnostic>> {
        let text = |key: &str| test.given.user.get(key).and_then(|n| n.text());
        let user = text("id").unwrap_or("u1").to_owned();
        // without a word about place the person lives in the test's zone
        let placed = text("zone").is_some() || text("country").is_some();
        let own_zone = text("zone").map(str::to_owned).or_else(|| test.zone.as_ref().map(|zone| zone.name().to_owned()));
        let own_zone = own_zone.or_else(|| (!placed).then(|| "UTC".to_owned()));
        let offsets = test.zone.clone().or_else(|| own_zone.as_deref().and_then(Zone::named)).unwrap_or(Zone::UTC);
        let live_since = test.live_since.resolve(test.start, &offsets);
        let mut timeline = Timeline::new(Arc::clone(&set), test.start, live_since);
        timeline.world.holdout_off = !test.given.holdout;
        timeline.world.holdout_all = test.given.holdout;
        timeline.deliver = test.given.deliver.clone();
        let mut stage = Stage { test, timeline, user, zone: offsets };
        let profile = stage.person(&set, own_zone)?;
        stage.timeline.join(profile);
        Ok(stage)
    }

    /// The person as given: attributes and events by the door that facts take, the rest as it is said.
    fn person(&self, set: &RuleSet, own_zone: Option<String>) -> Result<Profile, Box<Diagnostic>> {
        let names = set.names();
        let start = self.test.start;
        let mut profile = Profile::new(&self.user);
        for (index, given) in self.test.given.events.iter().enumerate() {
            let at = given.at.resolve(start, &self.zone);
            absorb(&mut profile, &self.event(&given.what, at, &format!("given-{index}")), names);
            tier::qualify(&mut profile, names, at, &mut Booked::default());
        }
        let mut traits: Map<String, Json> = self
            .test
            .given
            .user
            .iter()
            .filter(|(key, _)| !FACTS.contains(&key.as_str()))
            .map(|(key, node)| (key.clone(), json(node)))
            .collect();
        traits.extend(own_zone.map(|zone| ("zone".to_owned(), Json::from(zone))));
        let seen = profile.first_seen_at;
        absorb(&mut profile, &self.event(&Happens::Identify(traits), start, "given"), names);
        profile.first_seen_at = self.instant("first_seen_at")?.or(seen).or(profile.first_seen_at);
        if let Some(at) = self.instant("last_active_at")? {
            profile.first_seen_at = profile.first_seen_at.map(|first| first.min(at));
            profile.activity.last_active_at = profile.activity.last_active_at.max(Some(at));
            let place = profile.activity.recent.partition_point(|known| *known <= at);
            profile.activity.recent.insert(place, at);
        }
        self.tier(&mut profile, set)?;
        self.consents(&mut profile)?;
        self.lots(&mut profile, set);
        Ok(profile)
    }

    fn instant(&self, key: &str) -> Result<Option<Timestamp>, Box<Diagnostic>> {
        let Some(node) = self.test.given.user.get(key) else { return Ok(None) };
        let text = node.text().unwrap_or_default();
        let when = text.parse::<Span>().map(When::Offset).ok().or_else(|| Timestamp::parse(text).map(When::Instant));
        match when {
            Some(when) => Ok(Some(when.resolve(self.test.start, &self.zone))),
            None => Err(self.refuse(key, "an offset from the start like `-29d20h`, or an instant")),
        }
    }

    fn tier(&self, profile: &mut Profile, set: &RuleSet) -> Result<(), Box<Diagnostic>> {
        let Some(tier) = self.test.given.user.get("tier").and_then(|n| n.text()) else { return Ok(()) };
        let levels = set.program.as_ref().and_then(|p| p.tiers.as_ref()).map(|t| &t.levels);
        let level = levels.and_then(|levels| levels.iter().find(|level| &*level.id == tier));
        let Some(level) = level else { return Err(self.refuse("tier", "the program has no such level")) };
        profile.tier.base = Some(Name::clone(&level.id));
        profile.tier.since = self.instant("tier_since")?.or(profile.first_seen_at);
        Ok(())
    }

    fn consents(&self, profile: &mut Profile) -> Result<(), Box<Diagnostic>> {
        let Some(node) = self.test.given.user.get("consent") else { return Ok(()) };
        for entry in node.entries().unwrap_or_default() {
            let Some(purpose) = Category::named(&entry.key.text) else {
                return Err(self.refuse("consent", "consent is given for marketing, service or transactional"));
            };
            for channel in entry.value.items().unwrap_or_default() {
                let Some(channel) = channel.text().and_then(Channel::named) else {
                    return Err(self.refuse("consent", "consent names channels, like `{ marketing: [push, email] }`"));
                };
                let at = profile.first_seen_at.unwrap_or(self.test.start);
                let consent = Consent { granted: true, at, basis: Arc::from(GIVEN_BASIS), expires_at: None };
                profile.consents.insert((Arc::from(purpose.name()), channel), consent);
            }
        }
        Ok(())
    }

    fn lots(&self, profile: &mut Profile, set: &RuleSet) {
        for lot in &self.test.given.lots {
            let at = lot.granted.map_or(self.test.start, |when| when.resolve(self.test.start, &self.zone));
            let grant = PointsGrant {
                class: Name::clone(&lot.class),
                amount: lot.points,
                at,
                expires: None,
                reason: Arc::from("given"),
                rule: None,
                run: None,
                step: None,
            };
            points::grant(profile, set.names(), grant, &mut Booked::default());
            if let (Some(expires), Some(last)) = (lot.expires, profile.wallet.lots.last_mut()) {
                last.expires_at = expires.resolve(self.test.start, &self.zone);
            }
        }
    }

    fn refuse(&self, key: &str, message: &str) -> Box<Diagnostic> {
        let node = self.test.given.user.get(key);
        let place = node.map_or_else(|| self.test.place.clone(), |n| n.place.clone());
        Box::new(Diagnostic::error("RK0102", place, message).len(node.map_or(1, |n| n.width())))
    }

    fn event(&self, happens: &Happens, at: Timestamp, id: &str) -> Event {
        let (kind, name, occurred_at, properties) = match happens {
            Happens::Event { name, properties, occurred, .. } => {
                let declared = self.timeline.rules().dictionary.events.get(name.as_str());
                let wire = declared.map_or_else(|| Arc::from(name.as_str()), |event| Name::clone(&event.wire_name));
                let occurred_at = occurred.map_or(at, |when| when.resolve(self.test.start, &self.zone).min(at));
                (EventKind::Track, wire, occurred_at, properties.clone())
            }
            Happens::Identify(traits) => (EventKind::Identify, Arc::from(""), at, traits.clone()),
            Happens::Consent { purpose, channel, granted } => {
                let mut properties = Map::new();
                properties.insert("purpose".to_owned(), Json::from(purpose.name()));
                properties.insert("channel".to_owned(), Json::from(channel.name()));
                properties.insert("granted".to_owned(), Json::from(*granted));
                properties.insert("basis".to_owned(), Json::from(GIVEN_BASIS));
                (EventKind::Consent, Arc::from(""), at, properties)
            }
        };
        Event { id: Arc::from(id), kind, name, occurred_at, received_at: at, source: Arc::from("test"), properties }
    }

    // -------------------------------------------------------------------------------------------------------- expectations

    /// The test as it went: what was given from outside, and what the engine did.
    fn film(&self) -> Vec<String> {
        let offset = |at: Timestamp| self.offset(at);
        let mut shots: Vec<Shot> = Vec::new();
        for moment in &self.test.timeline {
            let at = moment.at.resolve(self.test.start, &self.zone);
            let text = match &moment.what {
                Line::Happens(Happens::Event { name, properties, .. }) => film::happened(name, properties),
                Line::Happens(Happens::Identify(traits)) => film::happened("identify", traits),
                Line::Happens(Happens::Consent { purpose, channel, granted }) => {
                    format!("> consent {} {channel}: {}", purpose.name(), if *granted { "given" } else { "withdrawn" })
                }
                Line::Expect(_) => continue,
            };
            shots.push(Shot { at, offset: offset(at), text });
        }
        if let Some(person) = self.timeline.person(&self.user) {
            shots.extend(film::of_person(person, &offset));
        }
        // at one instant, what happens comes before what is done about it
        shots.sort_by_key(|shot| shot.at);
        shots.iter().map(|shot| shot.line(&self.zone)).collect()
    }

    /// One expectation; a failure if it does not hold.
    fn check(&self, wanted: &Expectation) -> Option<Failure> {
        let (Some(person), Some(rule)) = (self.timeline.person(&self.user), self.rule()) else { return None };
        let found = self.found(wanted, person, rule);
        let expected = self.expected(wanted);
        let fits = match (&wanted.wanted, &found) {
            (Wanted::List { items, includes: true }, Json::Array(found)) => items.iter().all(|item| found.iter().any(|f| fits(item, f))),
            (Wanted::List { items, .. }, Json::Array(found)) if wanted.key == "never_sent" => {
                !items.iter().any(|i| found.iter().any(|f| fits(i, f)))
            }
            (Wanted::List { items, .. }, Json::Array(found)) => {
                items.len() == found.len() && items.iter().zip(found).all(|(i, f)| fits(i, f))
            }
            (Wanted::Map { entries, includes }, Json::Object(found)) => {
                let all = entries.iter().all(|(key, value)| found.get(key) == Some(value));
                all && (*includes || wanted.key != "blocked" || entries.len() == found.len())
            }
            _ => found == expected,
        };
        if fits {
            return None;
        }
        let message =
            format!("at {}: expected `{}` {}, got {}", self.offset(self.timeline.now()), wanted.key, said(&expected), said(&found));
        let finding = Diagnostic::error("RK0610", wanted.place.clone(), message).help(self.explained(rule));
        Some(Failure { finding, expected: Some(expected), found: Some(found) })
    }

    fn rule(&self) -> Option<&Rule> {
        self.timeline.rules().rule(self.test.rules.first()?)
    }

    /// What is, in the form in which it is written down as expected.
    fn found(&self, wanted: &Expectation, person: &Person, rule: &Rule) -> Json {
        let now = self.timeline.now();
        let memory = person.profile.memory(&rule.id);
        match wanted.key {
            "when" => self.trigger_truth(rule, &person.profile),
            "state" => Json::from(state(rule, &person.profile)),
            "outcome" => memory.and_then(|m| m.outcome).map_or(Json::Null, |outcome| Json::from(outcome.name())),
            "entered" => Json::from(self.timeline.counts.entered.get(&rule.id).copied().unwrap_or_default()),
            "next_check" => Json::from(self.offset(person.due_at)),
            "sent" | "never_sent" => Json::Array(accepted(person).map(sent_as).collect()),
            "shadowed" => {
                let would = |entry: &&Entry| entry.what == What::Shadowed && self.test.rules.contains(&entry.rule);
                Json::Array(person.entries.iter().filter(would).map(|entry| Json::from(&*entry.step)).collect())
            }
            "points" => Json::from(points::balance(&person.profile.wallet, None, now).0),
            "points_of" => self.map_of(wanted, |class| Json::from(points::balance(&person.profile.wallet, Some(class), now).0)),
            "tier" => self.feature(&person.profile, "tier"),
            "ledger" => Json::Array(person.postings.iter().map(|p| Json::from(&*p.reason)).collect()),
            "blocked" => {
                let holds = person.profile.holds.iter().filter(|h| !h.step.is_empty() && self.test.rules.contains(&h.rule));
                Json::Object(holds.map(|h| (h.step.to_string(), Json::from(&*h.gate))).collect())
            }
            _ => self.map_of(wanted, |name| self.feature(&person.profile, name)),
        }
    }

    fn map_of(&self, wanted: &Expectation, value: impl Fn(&str) -> Json) -> Json {
        let Wanted::Map { entries, .. } = &wanted.wanted else { return Json::Null };
        Json::Object(entries.keys().map(|key| (key.clone(), value(key))).collect())
    }

    fn expected(&self, wanted: &Expectation) -> Json {
        match &wanted.wanted {
            Wanted::Bool(value) => Json::from(*value),
            Wanted::Word(word) => Json::from(word.as_str()),
            Wanted::Number(number) => Json::from(*number),
            Wanted::Moment(when) => Json::from(self.offset(when.resolve(self.test.start, &self.zone))),
            Wanted::List { items, .. } => Json::Array(items.clone()),
            Wanted::Map { entries, .. } => Json::Object(entries.clone().into_iter().collect()),
        }
    }

    fn subject<'p>(&self, profile: &'p Profile) -> Subject<'p> {
        Subject { profile, now: self.timeline.now(), event: None, run: None }
    }

    fn trigger_truth(&self, rule: &Rule, profile: &Profile) -> Json {
        let Trigger::When(condition) = &rule.trigger else { return Json::from("nothing: the rule has no `when`") };
        match condition.verdict(self.timeline.rules().names(), self.subject(profile)) {
            Ok(verdict) => Json::from(verdict.truth),
            Err(error) => Json::from(error.to_string()),
        }
    }

    fn feature(&self, profile: &Profile, name: &str) -> Json {
        match features::read(self.timeline.rules().names(), self.subject(profile), name) {
            Ok((value, _)) => value.map_or(Json::Null, |value| features::to_json(&value)),
            Err(error) => Json::from(error.to_string()),
        }
    }

    /// An instant as an offset from the start, as tests write it.
    fn offset(&self, at: Timestamp) -> String {
        if at.is_forever() {
            return "never".to_owned();
        }
        let (from, to) = (self.test.start.local(&self.zone), at.local(&self.zone));
        let mut days = from.date().until(to.date()).map_or(0, |span| span.get_days());
        // days are of the calendar, the rest is exact: no more days than fit, in either direction
        let moved = |days: i32| Span::days(days).after(self.test.start, &self.zone);
        while (days > 0 && moved(days) > at) || (days < 0 && moved(days) < at) {
            days -= days.signum();
        }
        let rest = at.ms_since(moved(days));
        let span = Span { months: 0, days, ms: rest };
        if span.is_negative() { span.to_string() } else { format!("+{span}") }
    }

    fn explained(&self, rule: &Rule) -> String {
        let older = HashMap::new();
        let ctx = Context { rules: self.timeline.rules(), older: &older, world: &self.timeline.world };
        let Some(person) = self.timeline.person(&self.user) else { return String::new() };
        explain(&ctx, &person.profile, person.due_at, rule, self.timeline.now()).to_string()
    }
}

/// Where a person stands with a rule, in the words of the language.
pub fn state(rule: &Rule, profile: &Profile) -> &'static str {
    if profile.runs.iter().any(|run| run.rule == rule.id && run.ended.is_none()) {
        return "running";
    }
    let memory = profile.memory(&rule.id);
    match memory.map(|m| m.passage) {
        Some(Passage::Pending(_)) => "pending",
        Some(Passage::Waiting(_)) => "waiting",
        Some(Passage::Tried(_)) if memory.and_then(|m| m.outcome) == Some(RunOutcome::Done) => "done",
        _ => "idle",
    }
}

fn accepted(person: &Person) -> impl Iterator<Item = &Sending> {
    person.messages.iter().filter(|m| m.accepted)
}

fn sent_as(sending: &Sending) -> Json {
    let mut pair = Map::new();
    pair.insert(sending.message.template.to_string(), Json::from(sending.message.channel.name()));
    Json::Object(pair)
}

/// A template alone fits whatever channel it went by.
fn fits(wanted: &Json, found: &Json) -> bool {
    match (wanted, found) {
        (Json::String(template), Json::Object(sent)) => sent.contains_key(template),
        _ => wanted == found,
    }
}

fn said(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}
