//! Rule tests as written: `tests:` sections read into [`RuleTest`]s, each with its place. What a test means is in `super::expect`.
//!
//! A table (`each:`) becomes one test per case, so that a failing case is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Deliver, Receipt};
use crate::engine::action::Channel;
use crate::engine::profile::{Category, Name};
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::language::{self, Shape};
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::syntax::Node;
use crate::engine::rule::{Pack, Place, RuleSet};
use crate::engine::time::{Span, Timestamp, Zone};

/// How long a rule under test has been live, unless the test says otherwise.
const LIVE_SINCE: Span = Span::days(-365);

/// One rule test: what is given, and what is expected when.
#[derive(Debug, Clone)]
pub struct RuleTest {
    pub name: String,
    pub place: Place,
    /// The rules in force; the first is the one that `when`, `state` and the like speak of.
    pub rules: Vec<Name>,
    pub start: Timestamp,
    /// The zone of calendar days in offsets, and of the person if nothing else says theirs.
    pub zone: Option<Zone>,
    pub live_since: When,
    pub given: Given,
    pub timeline: Vec<Moment>,
}

/// An instant, or an offset from the start: `d` keeps the local time, `h` is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Instant(Timestamp),
    Offset(Span),
    Never,
}

impl When {
    pub fn resolve(self, start: Timestamp, zone: &Zone) -> Timestamp {
        match self {
            When::Instant(at) => at,
            When::Offset(span) => span.after(start, zone),
            When::Never => Timestamp::FOREVER,
        }
    }
}

/// What is so before the first look.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Keys with a meaning of their own (`id`, `tier`, `first_seen_at`, `last_active_at`, `consent`) and attributes.
    pub user: BTreeMap<String, Node>,
    pub lots: Vec<LotGiven>,
    pub events: Vec<Happening>,
    pub deliver: Deliver,
    pub jurisdiction: Option<Pack>,
    pub holdout: bool,
}

#[derive(Debug, Clone)]
pub struct LotGiven {
    pub class: Name,
    pub points: i64,
    pub granted: Option<When>,
    pub expires: Option<When>,
    pub place: Place,
}

/// Something that happens: an event by the name rules use, or new attributes of the person.
#[derive(Debug, Clone)]
pub struct Happening {
    pub at: When,
    pub what: Happens,
}

#[derive(Debug, Clone)]
pub enum Happens {
    Event {
        name: String,
        properties: Map<String, Json>,
        /// When it happened, if it arrives late; else as it arrives.
        occurred: Option<When>,
        place: Place,
    },
    /// New attributes.
    Identify(Map<String, Json>),
    Consent {
        purpose: Category,
        channel: Channel,
        granted: bool,
    },
}

/// A line of the timeline.
#[derive(Debug, Clone)]
pub struct Moment {
    pub at: When,
    pub place: Place,
    pub what: Line,
}

#[derive(Debug, Clone)]
pub enum Line {
    Happens(Happens),
    Expect(Vec<Expectation>),
}

/// One key of an `expect`, with its place.
#[derive(Debug, Clone)]
pub struct Expectation {
    pub key: &'static str,
    pub place: Place,
    pub wanted: Wanted,
}

/// What is expected.
#[derive(Debug, Clone)]
pub enum Wanted {
    Bool(bool),
    Word(String),
    Number(i64),
    Moment(When),
    /// A list: exact, or (`includes:`) among others.
    List {
        items: Vec<Json>,
        includes: bool,
    },
    /// A map of names to values.
    Map {
        entries: BTreeMap<String, Json>,
        includes: bool,
    },
}

/// Reads one `tests:` section. Findings are collected; a test with a finding is left out.
pub fn read(section: &Node, set: &RuleSet) -> (Vec<RuleTest>, Vec<Diagnostic>) {
    let mut reader = Reader { set, findings: Vec::new() };
    let mut tests = Vec::new();
    for item in section.items().unwrap_or_default() {
        let before = reader.findings.len();
        let read = reader.test(item);
        if reader.findings.len() == before {
            tests.extend(read);
        }
    }
    if section.items().is_none() && !section.is_refused() {
        reader.form(section, "`tests` is a list of tests");
    }
    (tests, reader.findings)
}

struct Reader<'a> {
    set: &'a RuleSet,
    findings: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn test(&mut self, node: &Node) -> Vec<RuleTest> {
        self.keys(node, &language::TEST);
        let name = self.required(node, "name").and_then(|n| self.text(n)).unwrap_or_default();
        let rules = self.required(node, "rules").map(|n| self.rules(n)).unwrap_or_default();
        let start = self.required(node, "start").and_then(|n| self.instant(n)).unwrap_or_default();
        let zone = node.get("zone").and_then(|n| self.zone(n));
        let live_since = node.get("rule_live_since").and_then(|n| self.when(n)).unwrap_or(When::Offset(LIVE_SINCE));
        let given = node.get("given").map(|n| self.given(n, &language::GIVEN, Given::default())).unwrap_or_default();
        let timeline = self.required(node, "timeline").map(|n| self.timeline(n, start, zone.as_ref())).unwrap_or_default();
        let test = RuleTest { name, place: node.place.clone(), rules, start, zone, live_since, given, timeline };
        match node.get("each") {
            None => vec![test],
            Some(table) => self.cases(table, &test),
        }
    }

    /// One test per line of the table: its keys lie over `given`.
    fn cases(&mut self, table: &Node, test: &RuleTest) -> Vec<RuleTest> {
        let Some(items) = table.items() else {
            self.form(table, "`each` is a list of cases like `{ case: gold, user: { tier: gold } }`");
            return Vec::new();
        };
        let mut tests = Vec::new();
        for item in items {
            let case = self.required(item, "case").and_then(|n| self.text(n)).unwrap_or_default();
            let name = if test.name.contains("${case}") { test.name.replace("${case}", &case) } else { format!("{} ({case})", test.name) };
            let given = self.given(item, &language::CASE, test.given.clone());
            tests.push(RuleTest { name, place: item.place.clone(), given, ..test.clone() });
        }
        tests
    }

    fn given(&mut self, node: &Node, shape: &Shape, base: Given) -> Given {
        self.keys(node, shape);
        let mut given = base;
        for entry in node.get("user").and_then(|n| self.entries(n)).unwrap_or_default() {
            given.user.insert(entry.key.text.to_string(), entry.value.clone());
        }
        if let Some(lots) = node.get("lots") {
            given.lots = self.items(lots).iter().filter_map(|n| self.lot(n)).collect();
        }
        if let Some(events) = node.get("events") {
            given.events = self.items(events).iter().filter_map(|n| self.given_event(n)).collect();
        }
        if let Some(deliver) = node.get("deliver") {
            given.deliver = self.deliver(deliver);
        }
        if let Some(pack) = node.get("jurisdiction") {
            given.jurisdiction = self.pack(pack);
        }
        if let Some(holdout) = node.get("holdout") {
            given.holdout = self.bool(holdout).unwrap_or_default();
        }
        given
    }

    fn lot(&mut self, node: &Node) -> Option<LotGiven> {
        self.keys(node, &language::LOT);
        let class = self.required(node, "class").and_then(|n| self.text(n))?;
        let known = self.set.program.as_ref().is_some_and(|p| p.classes.contains_key(class.as_str()));
        if !known {
            let place = node.get("class").map_or(&node.place, |n| &n.place).clone();
            self.findings
                .push(Diagnostic::error("RK0225", place, format!("the program has no class `{class}`")).len(class.chars().count()));
        }
        let points = self.required(node, "points").and_then(|n| self.number(n))?;
        let granted = node.get("granted").and_then(|n| self.when(n));
        let expires = node.get("expires").and_then(|n| self.when(n));
        Some(LotGiven { class: Arc::from(class), points, granted, expires, place: node.place.clone() })
    }

    fn given_event(&mut self, node: &Node) -> Option<Happening> {
        let at = self.required(node, "at").and_then(|n| self.when(n))?;
        let what = self.event(node, &language::GIVEN_EVENT)?;
        Some(Happening { at, what })
    }

    fn event(&mut self, node: &Node, shape: &Shape) -> Option<Happens> {
        self.keys(node, shape);
        let name_node = self.required(node, "name")?;
        let name = self.text(name_node)?;
        if !self.set.dictionary.events.contains_key(name.as_str()) {
            let message = format!("no event `{name}` is declared");
            self.findings.push(Diagnostic::error("RK0202", name_node.place.clone(), message).len(name_node.width()));
        }
        let properties = node.get("properties").map(|n| self.map(n)).unwrap_or_default();
        let occurred = node.get("occurred_at").and_then(|n| self.when(n));
        Some(Happens::Event { name, properties, occurred, place: name_node.place.clone() })
    }

    fn deliver(&mut self, node: &Node) -> Deliver {
        let mut deliver = Deliver::default();
        for entry in self.entries(node).unwrap_or_default() {
            let channel = Channel::named(&entry.key.text);
            let receipt = entry.value.text().and_then(Receipt::named);
            match (channel, receipt) {
                (Some(channel), Some(receipt)) => {
                    deliver.0.insert(channel, receipt);
                }
                (None, _) => self
                    .form(&entry.value, &format!("`{}` is no channel; one of {}", entry.key.text, names(&Channel::ALL.map(Channel::name)))),
                (_, None) => self.form(&entry.value, &format!("a channel answers one of {}", names(&Receipt::ALL.map(Receipt::name)))),
            }
        }
        deliver
    }

    fn pack(&mut self, node: &Node) -> Option<Pack> {
        let pack = match node.text() {
            Some("no-takes") => Some(Pack::NoTakes),
            Some("bonus-only") => Some(Pack::BonusOnly),
            Some("strict-notice") => Some(Pack::StrictNotice),
            Some("as-programmed") => Some(Pack::AsProgrammed),
            _ => None,
        };
        if pack.is_none() {
            self.form(node, "a jurisdiction in a test is a pack: no-takes, bonus-only, strict-notice or as-programmed");
        }
        pack
    }

    // -------------------------------------------------------------------------------------------------------- the timeline

    fn timeline(&mut self, node: &Node, start: Timestamp, zone: Option<&Zone>) -> Vec<Moment> {
        let zone = zone.cloned().unwrap_or(Zone::UTC);
        let mut moments: Vec<Moment> = Vec::new();
        for item in self.items(node) {
            let Some(moment) = self.moment(item) else { continue };
            let late = moments.last().is_some_and(|before| before.at.resolve(start, &zone) > moment.at.resolve(start, &zone));
            if late {
                let message = "this line is earlier than the one before it; a timeline runs forward";
                self.findings.push(Diagnostic::error("RK0602", moment.place.clone(), message).help("put the lines in the order of `at`"));
            }
            moments.push(moment);
        }
        moments
    }

    fn moment(&mut self, node: &Node) -> Option<Moment> {
        self.keys(node, &language::LINE);
        let at = self.required(node, "at").and_then(|n| self.when(n))?;
        let lines = ["event", "identify", "consent", "expect"].map(|key| node.get(key).map(|n| (key, n)));
        let mut lines = lines.into_iter().flatten();
        let (Some((key, value)), None) = (lines.next(), lines.next()) else {
            self.form(node, "a line of a timeline has `at` and one of `event`, `identify`, `consent`, `expect`");
            return None;
        };
        let what = match key {
            "event" => Line::Happens(self.event(value, &language::LINE_EVENT)?),
            "identify" => Line::Happens(Happens::Identify(self.map(value))),
            "consent" => Line::Happens(self.consent(value)?),
            _ => Line::Expect(self.expect(value)),
        };
        Some(Moment { at, place: node.place.clone(), what })
    }

    fn consent(&mut self, node: &Node) -> Option<Happens> {
        self.keys(node, &language::LINE_CONSENT);
        let purpose = self.required(node, "purpose")?;
        let channel = self.required(node, "channel")?;
        let granted = self.required(node, "granted").and_then(|n| self.bool(n))?;
        let found = purpose.text().and_then(Category::named).zip(channel.text().and_then(Channel::named));
        match found {
            Some((purpose, channel)) => Some(Happens::Consent { purpose, channel, granted }),
            None => {
                self.form(node, "consent looks like `{ purpose: marketing, channel: email, granted: false }`");
                None
            }
        }
    }

    fn expect(&mut self, node: &Node) -> Vec<Expectation> {
        self.keys(node, &language::EXPECT);
        let mut expectations = Vec::new();
        for key in language::EXPECT.names() {
            let Some(value) = node.get(key) else { continue };
            let wanted = match key {
                "when" => self.bool(value).map(Wanted::Bool),
                "state" | "outcome" | "tier" => self.text(value).map(Wanted::Word),
                "next_check" => self.when_or_never(value).map(Wanted::Moment),
                "points" | "entered" => self.number(value).map(Wanted::Number),
                "points_of" | "blocked" | "attributes" => Some(self.wanted_map(value)),
                _ => Some(self.wanted_list(value)),
            };
            expectations.extend(wanted.map(|wanted| Expectation { key, place: value.place.clone(), wanted }));
        }
        expectations
    }

    fn wanted_list(&mut self, node: &Node) -> Wanted {
        let (node, includes) = node.get("includes").map_or((node, false), |inner| (inner, true));
        let items = self.items(node).iter().map(json).collect();
        Wanted::List { items, includes }
    }

    fn wanted_map(&mut self, node: &Node) -> Wanted {
        let (node, includes) = node.get("includes").map_or((node, false), |inner| (inner, true));
        let entries = self.entries(node).unwrap_or_default().iter().map(|e| (e.key.text.to_string(), json(&e.value))).collect();
        Wanted::Map { entries, includes }
    }

    // ------------------------------------------------------------------------------------------------------------- scalars

    fn rules(&mut self, node: &Node) -> Vec<Name> {
        let mut rules = Vec::new();
        for item in self.items(node) {
            let Some(id) = self.text(item) else { continue };
            match self.set.called(&id) {
                Some(rule) => rules.push(Name::clone(&rule.id)),
                None => {
                    let message = format!("no rule `{id}` in this rule set");
                    self.findings.push(Diagnostic::error("RK0601", item.place.clone(), message).len(item.width()));
                }
            }
        }
        if rules.is_empty() && node.items().is_some_and(<[Node]>::is_empty) {
            self.form(node, "a test names at least one rule");
        }
        rules
    }

    fn instant(&mut self, node: &Node) -> Option<Timestamp> {
        let instant = node.text().and_then(Timestamp::parse);
        if instant.is_none() {
            self.form(node, "an instant with an offset, like \"2026-03-05T09:00:00-05:00\"");
        }
        instant
    }

    fn when(&mut self, node: &Node) -> Option<When> {
        let text = node.text().unwrap_or_default();
        let when = text.parse().map(When::Offset).ok().or_else(|| Timestamp::parse(text).map(When::Instant));
        if when.is_none() {
            self.form(node, "an offset from the start like `+4h` or `-29d20h`, or an instant");
        }
        when
    }

    fn when_or_never(&mut self, node: &Node) -> Option<When> {
        if node.text() == Some("never") { Some(When::Never) } else { self.when(node) }
    }

    fn zone(&mut self, node: &Node) -> Option<Zone> {
        let zone = node.text().and_then(Zone::named);
        if zone.is_none() {
            self.form(node, "an IANA zone like America/New_York");
        }
        zone
    }

    fn text(&mut self, node: &Node) -> Option<String> {
        if node.text().is_none() && !node.is_refused() {
            self.form(node, &format!("a text is wanted here, found {}", node.described()));
        }
        node.text().map(str::to_owned)
    }

    fn bool(&mut self, node: &Node) -> Option<bool> {
        match json(node) {
            Json::Bool(value) => Some(value),
            _ => {
                self.form(node, "true or false");
                None
            }
        }
    }

    fn number(&mut self, node: &Node) -> Option<i64> {
        let number = json(node).as_i64();
        if number.is_none() {
            self.form(node, "a whole number");
        }
        number
    }

    fn map(&mut self, node: &Node) -> Map<String, Json> {
        self.entries(node).unwrap_or_default().iter().map(|e| (e.key.text.to_string(), json(&e.value))).collect()
    }

    // ------------------------------------------------------------------------------------------------------------ structure

    fn items<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        if node.items().is_none() && !node.is_refused() {
            self.form(node, &format!("a list is wanted here, found {}", node.described()));
        }
        node.items().unwrap_or_default()
    }

    fn entries<'n>(&mut self, node: &'n Node) -> Option<&'n [crate::engine::rule::syntax::Entry]> {
        if node.entries().is_none() && !node.is_refused() {
            self.form(node, &format!("a mapping is wanted here, found {}", node.described()));
        }
        node.entries()
    }

    fn required<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n Node> {
        let found = node.get(key);
        if found.is_none() && node.entries().is_some() {
            self.form(node, &format!("`{key}` is missing"));
        }
        found
    }

    fn keys(&mut self, node: &Node, shape: &Shape) {
        for entry in self.entries(node).unwrap_or_default() {
            let key = &*entry.key.text;
            if !shape.names().any(|name| name == key) {
                let message = format!("unknown key `{key}` in {}", shape.what);
                let help = match nearest(key, shape.names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("{} knows {}", shape.what, shape.names().collect::<Vec<_>>().join(", ")),
                };
                let finding = Diagnostic::error("RK0101", entry.key_place.clone(), message);
                self.findings.push(finding.len(key.chars().count()).help(help));
            }
        }
    }

    fn form(&mut self, node: &Node, message: &str) {
        self.findings.push(Diagnostic::error("RK0102", node.place.clone(), message).len(node.width()));
    }
}

fn names(all: &[&str]) -> String {
    all.join(", ")
}

/// A node as a plain value: unquoted `true`, `12`, `1.5` and nothing are what they look like, everything else is text.
pub fn json(node: &Node) -> Json {
    if let Some(items) = node.items() {
        return Json::Array(items.iter().map(json).collect());
    }
    if let Some(entries) = node.entries() {
        return Json::Object(entries.iter().map(|e| (e.key.text.to_string(), json(&e.value))).collect());
    }
    let Some(scalar) = node.scalar() else { return Json::Null };
    if node.is_null() {
        return Json::Null;
    }
    if scalar.is_plain {
        match &*scalar.text {
            "true" => return Json::Bool(true),
            "false" => return Json::Bool(false),
            text => {
                if let Ok(number) = text.parse::<i64>() {
                    return Json::from(number);
                }
                if let Ok(number) = text.parse::<f64>()
                    && text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.')
                {
                    return Json::from(number);
                }
            }
        }
    }
    Json::String(scalar.text.to_string())
}
