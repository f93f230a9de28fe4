//! What stories share: a small shop, a timeline on it, and the state as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use rekindle::engine::action::{Channel, MessageState};
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::points;
use rekindle::engine::profile::{Name, Profile, Run, StepState};
use rekindle::engine::rule::check::{self, Loaded};
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::rule::{RuleSet, TemplateCatalog, TemplateInfo};
use rekindle::engine::time::{Timestamp, Zone};
use rekindle::simulate::explain::local;
use rekindle::simulate::{Person, Receipt, Sending, Timeline};
use serde_json::{Map, Value as Json, json};

/// The shop of most stories: bonus points that a penalty may touch, three levels, two kinds of event that count as being there.
pub const SHOP: &str = r#"
rekindle: 1
events:
  order_completed: { name: "Order Completed", active: true, properties: { order_id: { type: string, required: true }, total: { type: money } } }
  order_refunded: { name: "Order Refunded", properties: { order_id: { type: string, required: true }, total: { type: money } } }
  session_started: { name: "Session Started", active: true }
  cart_updated: { name: "Cart Updated", active: true, properties: { cart_id: { type: string, required: true } } }
  survey_answered: { name: "Survey Answered", properties: { answers: { type: int }, questions: { type: int } } }
attributes:
  visits_planned: { type: int, optional: true }
program:
  currency: EUR
  jurisdiction: { by: country, else: as-programmed }
  points:
    classes:
      earned: { expiry: { rolling: 24mo } }
      bonus: { expiry: { rolling: 24mo } }
    earn:
      - { event: order_completed, rate: 10 per 1 EUR, class: bonus }
    penalty: { classes: [bonus], keep: 100, cap: 50% per 365d, grace: 7d }
"#;

/// No gate stands in the way but those that a story puts there.
pub const OPEN_POLICY: &str = r#"
rekindle: 1
policy:
  time: { zone: { user_attribute: tz, else: country, last: UTC } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
"#;

/// Compiles rule files as they would stand in a directory; every template that stories name exists in English.
pub fn rules(files: &[(&str, &str)]) -> RuleSet {
    let loaded = load(files);
    let errors: Vec<String> = loaded.diagnostics.iter().filter(|d| d.is_error()).map(|d| d.render(&sources(files), "rules")).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    loaded.set.expect("because there was no error")
}

/// Loads rule files with whatever is found in them.
pub fn load(files: &[(&str, &str)]) -> Loaded {
    check::load(&sources(files), &catalog())
}

fn sources(files: &[(&str, &str)]) -> Vec<SourceFile> {
    files.iter().map(|(path, text)| SourceFile { path: Arc::from(*path), text: Arc::from(*text) }).collect()
}

fn catalog() -> TemplateCatalog {
    let template = |purpose: &str| TemplateInfo {
        purpose: Arc::from(purpose),
        locales: vec![Arc::from("en")],
        channels_per_locale: BTreeMap::from([(Arc::from("en"), Channel::ALL.to_vec())]),
        ..TemplateInfo::default()
    };
    let notice = |name: &str| (Name::from(name), template("penalty_notice"));
    let marketing = |name: &str| (Name::from(name), template("marketing"));
    let names = ["miss-you", "offer", "news", "thanks", "cart", "winback"];
    names.map(marketing).into_iter().chain(["warning", "last-warning"].map(notice)).collect()
}

/// A story under way.
pub struct Story {
    pub timeline: Timeline,
    rules: Arc<RuleSet>,
    zone: Zone,
    events: u32,
}

impl Story {
    /// Begins at `start` (local time in `zone`), the rules having been live for a year.
    pub fn begin(zone: &str, start: &str, rule_text: &str) -> Self {
        Story::with_policy(zone, start, rule_text, OPEN_POLICY)
    }

    pub fn with_policy(zone: &str, start: &str, rule_text: &str, policy: &str) -> Self {
        Story::with_shop(zone, start, SHOP, rule_text, policy)
    }

    pub fn with_shop(zone: &str, start: &str, shop: &str, rule_text: &str, policy: &str) -> Self {
        let set = rules(&[("shop.yaml", shop), ("policy.yaml", policy), ("rules.yaml", rule_text)]);
        let zone = Zone::named(zone).expect("a zone that exists");
        let start = instant(&zone, start);
        let live_since = start.plus_ms(-365 * 86_400_000);
        let rules = Arc::new(set);
        let timeline = Timeline::new(rules.clone(), start, live_since);
        Story { timeline, rules, zone, events: 0 }
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    pub fn at(&self, wall: &str) -> Timestamp {
        instant(&self.zone, wall)
    }

    /// Something that the person does then, known at once.
    pub fn event(&mut self, user: &str, at: &str, name: &str, properties: Json) {
        let at = self.at(at);
        self.late_event(user, at, at, name, properties);
    }

    /// Something that is known only later.
    pub fn late_event(&mut self, user: &str, occurred_at: Timestamp, received_at: Timestamp, name: &str, properties: Json) {
        self.events += 1;
        let properties = match properties {
            Json::Object(map) => map,
            _ => Map::new(),
        };
        let event = Event {
            id: Arc::from(format!("e{}", self.events)),
            kind: EventKind::Track,
            name: Arc::from(name),
            occurred_at,
            received_at,
            source: Arc::from("shop"),
            properties,
        };
        self.timeline.event(user, event);
    }

    /// Attributes of the person, from then on.
    pub fn identify(&mut self, user: &str, at: &str, traits: Json) {
        self.other(user, at, EventKind::Identify, traits);
    }

    pub fn consent(&mut self, user: &str, at: &str, channel: &str, granted: bool) {
        let record = json!({ "purpose": "marketing", "channel": channel, "granted": granted, "basis": "opt_in" });
        self.other(user, at, EventKind::Consent, record);
    }

    fn other(&mut self, user: &str, at: &str, kind: EventKind, properties: Json) {
        self.events += 1;
        let at = self.at(at);
        let Json::Object(properties) = properties else { unreachable!("stories give objects") };
        let id = Arc::from(format!("e{}", self.events));
        let event = Event { id, kind, name: Arc::from(""), occurred_at: at, received_at: at, source: Arc::from("shop"), properties };
        self.timeline.event(user, event);
    }

    /// An order of so many euros.
    pub fn order(&mut self, user: &str, at: &str, euros: u32) {
        self.events += 1;
        let id = format!("o{}", self.events);
        self.event(user, at, "Order Completed", json!({ "order_id": id, "total": euros, "currency": "EUR" }));
    }

    pub fn session(&mut self, user: &str, at: &str) {
        self.event(user, at, "Session Started", json!({}));
    }

    pub fn deliver(&mut self, answers: &[(Channel, Receipt)]) {
        self.timeline.deliver.0 = answers.iter().copied().collect();
    }

    /// Days pass.
    pub fn until(&mut self, wall: &str) -> &mut Self {
        let at = self.at(wall);
        self.timeline.advance_to(at);
        assert!(self.timeline.faults.is_empty(), "{:?}", self.timeline.faults);
        for (user, person) in self.timeline.people() {
            // balance == sum of the ledger, after every step of every story
            points::audit(&person.profile.wallet, &person.postings).unwrap_or_else(|fault| panic!("{user}: {fault}"));
        }
        self
    }

    pub fn person(&self, user: &str) -> &Person {
        self.timeline.person(user).expect("a person of the story")
    }

    /// The whole state as text: everybody, or one.
    pub fn dump(&self) -> String {
        let mut out = format!("{}\n", local(self.timeline.now(), &self.zone));
        for (rule, state) in &self.timeline.world.rules {
            if let Some(held) = &state.held {
                let _ = writeln!(out, "rule {rule} is held since {}: {}", local(held.at, &self.zone), held.reason);
            }
        }
        for (user, person) in self.timeline.people() {
            let _ = writeln!(out, "\n{user}: next look {}", local(person.due_at, &self.zone));
            self.facts(&mut out, &person.profile);
            self.doings(&mut out, person);
        }
        out
    }

    fn t(&self, at: Timestamp) -> String {
        local(at, &self.zone)
    }

    fn facts(&self, out: &mut String, profile: &Profile) {
        let seen = profile.first_seen_at.map_or_else(|| "never".to_owned(), |at| self.t(at));
        let active = profile.activity.last_active_at.map_or_else(|| "never".to_owned(), |at| self.t(at));
        let _ = writeln!(out, "  first seen {seen}, last active {active}");
        for (channel, entry) in &profile.suppressed {
            let _ = writeln!(out, "  {channel} suppressed: {}", entry.reason);
        }
        let now = self.timeline.now();
        if !profile.wallet.lots.is_empty() {
            let bonus = points::balance(&profile.wallet, Some("bonus"), now).0;
            let _ = writeln!(out, "  points {} (bonus {bonus})", points::balance(&profile.wallet, None, now).0);
        }
        for lot in &profile.wallet.lots {
            let expires = self.t(lot.expires_at);
            let _ = writeln!(out, "    lot {} {}: {} of {} left, expires {expires}", lot.id, lot.class, lot.left, lot.granted);
        }
        for (rule, memory) in &profile.rules {
            let _ = write!(out, "  rule {rule}: {}, {} runs", self.passage(&memory.passage), memory.runs);
            if let (Some(outcome), Some(at)) = (memory.outcome, memory.ended_at) {
                let _ = write!(out, ", latest ended {} as {}", self.t(at), outcome.name());
            }
            let _ = writeln!(out);
        }
        for run in &profile.runs {
            self.run(out, run);
        }
        for hold in &profile.holds {
            let until = self.t(hold.until);
            let _ = writeln!(out, "  hold {} run {} {}: {} until {until}, {}", hold.rule, hold.run, hold.step, hold.gate, hold.because);
        }
        for slot in &profile.slots {
            let sent = slot.sent_at.map_or_else(|| "reserved".to_owned(), |at| self.t(at));
            let _ = writeln!(out, "  slot {} {} {sent}", slot.rule, slot.channel);
        }
        for coupon in &profile.coupons {
            let issued = coupon.issued_at.map_or_else(|| "reserved".to_owned(), |at| format!("issued {}", self.t(at)));
            let _ = writeln!(out, "  coupon {} {issued}, until {}", coupon.offer, self.t(coupon.until));
        }
    }

    fn passage(&self, passage: &rekindle::engine::profile::Passage) -> String {
        use rekindle::engine::profile::Passage;
        match passage {
            Passage::False => "not true".to_owned(),
            Passage::Pending(at) => format!("pending since {}", self.t(*at)),
            Passage::Tried(at) => format!("tried, true since {}", self.t(*at)),
            Passage::Existing(at) => format!("existing since {}", self.t(*at)),
            Passage::Waiting(at) => format!("waiting since {}", self.t(*at)),
        }
    }

    fn run(&self, out: &mut String, run: &Run) {
        let ended = run.ended.map(|outcome| format!(", ended as {}", outcome.name())).unwrap_or_default();
        let _ = writeln!(out, "  run {} {} since {}{ended}", run.rule, run.number, self.t(run.started_at));
        for (index, step) in run.steps.iter().enumerate() {
            let said = match step {
                StepState::Waiting => "waiting".to_owned(),
                StepState::Acted { at } => format!("acted {}", self.t(*at)),
                StepState::Skipped { at, because } => format!("skipped {}: {because}", self.t(*at)),
                StepState::Ended { at, because } => format!("ended {}: {because}", self.t(*at)),
                StepState::Sent { tries, notice } => {
                    let tries: Vec<String> =
                        tries.iter().map(|t| format!("{} {}", t.channel, t.outcome.map_or("under way", |o| o.name()))).collect();
                    let notice = notice.map(|n| format!(", announced {} from {}", n.amount, self.t(n.not_before))).unwrap_or_default();
                    format!("sent by {}{notice}", tries.join(", then "))
                }
            };
            let _ = writeln!(out, "    step {} {said}", index + 1);
        }
    }

    fn doings(&self, out: &mut String, person: &Person) {
        for Sending { message, state, at, because, .. } in &person.messages {
            let because = because.as_ref().filter(|_| *state != MessageState::Accepted && *state != MessageState::Delivered);
            let because = because.map(|because| format!(": {because}")).unwrap_or_default();
            let _ = writeln!(
                out,
                "  message {} by {} for {} run {} {} {}{because}",
                message.template,
                message.channel,
                message.rule,
                message.run,
                state.name(),
                self.t(*at)
            );
        }
        for posting in &person.postings {
            let lots: Vec<String> = posting.allocations.iter().map(|(lot, amount)| format!("lot {lot} {amount:+}")).collect();
            let _ = writeln!(
                out,
                "  ledger {} {} {} {} {:+} {} ({})",
                posting.number,
                self.t(posting.at),
                posting.kind.name(),
                posting.class,
                posting.amount,
                posting.reason,
                lots.join(", ")
            );
        }
        for exposure in &person.exposures {
            let side = if exposure.held_out { "held out" } else { "treated" };
            let _ = writeln!(out, "  exposure {} run {} {side} by {} {}", exposure.rule, exposure.run, exposure.by, self.t(exposure.at));
        }
        for entry in &person.entries {
            let until = entry.until.map(|until| format!(" until {}", self.t(until))).unwrap_or_default();
            let step = if entry.step.is_empty() { String::new() } else { format!(" {}", entry.step) };
            let _ = writeln!(
                out,
                "  log {} {} {}{step} {}: {}{until}",
                self.t(entry.at),
                entry.rule,
                entry.run,
                entry.what.name(),
                entry.because
            );
        }
    }
}

fn instant(zone: &Zone, wall: &str) -> Timestamp {
    let wall: jiff::civil::DateTime = wall.parse().unwrap_or_else(|e| panic!("`{wall}` is no local time: {e}"));
    zone.instant(wall)
}
