//! What rules may name: events, attributes, features, segments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::condition::{Compiler, identifiers, texts};
use super::lists::{self, Lists};
use super::read::{Fields, Findings, unknown};
use super::{Section, engine_events};
use crate::engine::event::Value;
use crate::engine::features;
use crate::engine::profile::Name;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::expr::{Condition, ValueType};
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::syntax::{Entry, Node};
use crate::engine::rule::{
    Aggregate, AggregateFunction, AttributeType, Dictionary, EventType, FeatureKind, FeatureType, Place, Policy, Program, PropertyType,
    Segment, TraitConsent, Update,
};
use crate::engine::time::Timestamp;

/// How many raw values a feature keeps exactly unless it says otherwise.
const KEEP_DEFAULT: usize = 500;
const KEEP_MOST: i64 = 10_000;

pub fn events(section: &Section<'_>, findings: &Findings, dictionary: &mut Dictionary) {
    let mut wire: HashMap<Name, (Name, Place)> = HashMap::new();
    for entry in section.entries() {
        let Some(event) = event(entry, findings) else { continue };
        if engine_events::is_own(&event.name) {
            let message = format!("`{}` is an event of the engine's own", event.name);
            let finding = Diagnostic::error("RK0115", event.declared_at.clone(), message).len(event.name.chars().count());
            findings.add(finding.help("rules may name it without a declaration; call your own event otherwise"));
            continue;
        }
        if let Some((other, place)) = wire.get(&event.wire_name) {
            let message =
                format!("`{}` and `{other}` ({}:{}) have one name on the wire: `{}`", event.name, place.file, place.line, event.wire_name);
            let finding = Diagnostic::error("RK0243", event.declared_at.clone(), message).len(event.name.chars().count());
            findings.add(finding.help("give one of them its own `name`"));
        }
        wire.insert(event.wire_name.clone(), (event.name.clone(), event.declared_at.clone()));
        dictionary.wire_names.insert(event.wire_name.clone(), event.name.clone());
        dictionary.events.insert(event.name.clone(), event);
    }
}

fn event(entry: &Entry, findings: &Findings) -> Option<EventType> {
    let name = findings.identifier(entry);
    let mut fields = Fields::of(&entry.value, "an event", findings)?;
    let wire_name = fields.required("name", "RK0102", "write its name on the wire: `name: \"Order Completed\"`");
    let wire_name = wire_name.and_then(|node| findings.name(node, "the event's name on the wire"));
    let active = fields.read("active", |node| findings.bool(node)).unwrap_or(false);
    let properties = fields.get("properties").map(|node| properties(node, findings)).unwrap_or_default();
    fields.finish();
    Some(EventType { name: name?, wire_name: wire_name?, active, properties, declared_at: entry.key_place.clone() })
}

fn properties(node: &Node, findings: &Findings) -> BTreeMap<Name, PropertyType> {
    let mut properties = BTreeMap::new();
    let Some(fields) = Fields::of(node, "`properties`", findings) else { return properties };
    for entry in fields.node.entries().unwrap_or_default() {
        let name = findings.identifier(entry);
        let Some(mut fields) = Fields::of(&entry.value, "a property", findings) else { continue };
        let value_type = value_type(&mut fields, findings);
        let required = fields.read("required", |node| findings.bool(node)).unwrap_or(false);
        fields.finish();
        if let (Some(name), Some(value_type)) = (name, value_type) {
            properties.insert(name, PropertyType { value_type, required });
        }
    }
    properties
}

/// `type`, with `values` for an enum.
fn value_type(fields: &mut Fields<'_, '_>, findings: &Findings) -> Option<ValueType> {
    const TYPES: [&str; 9] = ["bool", "int", "float", "string", "enum", "date", "timestamp", "money", "list"];
    let node = fields.required("type", "RK0102", "write `type: string`, or int, float, bool, enum, date, timestamp, money, list")?;
    match findings.one_of(node, &TYPES.map(|word| (word, word)))? {
        "bool" => return Some(ValueType::Bool),
        "int" => return Some(ValueType::Int),
        "float" => return Some(ValueType::Float),
        "string" => return Some(ValueType::Text),
        "date" => return Some(ValueType::Date),
        "timestamp" => return Some(ValueType::Instant),
        "money" => return Some(ValueType::Money),
        "list" => return Some(ValueType::List),
        _ => {}
    }
    let values = fields.required("values", "RK0102", "an enum lists its values: `values: [outdoor, home]`")?;
    let names = findings.names(values, "[outdoor, home]");
    (!names.is_empty()).then(|| ValueType::Enum(names.into()))
}

pub fn attributes(section: &Section<'_>, findings: &Findings, dictionary: &mut Dictionary, broken: &mut BTreeSet<Name>) {
    for entry in section.entries() {
        match attribute(entry, findings) {
            Some(attribute) => dictionary.attributes.push(attribute),
            None => drop(broken.insert(entry.key.text.clone())),
        }
    }
}

fn attribute(entry: &Entry, findings: &Findings) -> Option<AttributeType> {
    let name = findings.identifier(entry);
    let mut fields = Fields::of(&entry.value, "an attribute", findings)?;
    let value_type = value_type(&mut fields, findings);
    let optional = fields.read("optional", |node| findings.bool(node)).unwrap_or(false);
    let default_node = fields.get("default");
    let default = default_node.zip(value_type.as_ref()).and_then(|(node, wanted)| typed(node, wanted, findings));
    let updates = [("last", Update::Last), ("max", Update::Max), ("min", Update::Min), ("first", Update::First)];
    let update = fields.read("update", |node| findings.one_of(node, &updates)).unwrap_or_default();
    let pii = fields.read("pii", |node| findings.bool(node)).unwrap_or(false);
    let source = fields.read("source", |node| findings.name(node, "the source that may write it"));
    let max_age_ms = fields.read("max_age", |node| findings.exact_ms(node));
    let consent_node = fields.get("consent");
    let consent = consent_node.and_then(|node| trait_consent(node, findings));
    if let (Some(node), Some(_)) = (consent_node, value_type.as_ref().filter(|found| **found != ValueType::Bool)) {
        let message = "a trait that tells of consent is a yes or a no".to_owned();
        findings.wrong(node, message, "write `type: bool`".to_owned());
    }
    fields.finish();
    if !optional && default_node.is_none() {
        let message = format!("`{}` has neither `default` nor `optional`", entry.key.text);
        let finding = Diagnostic::error("RK0220", entry.key_place.clone(), message).len(entry.key.text.chars().count());
        findings.add(finding.help("say what a person without it has: `default: ...`, or `optional: true` and guard it in conditions"));
    }
    if !optional && default_node.is_some() {
        default.as_ref()?;
    }
    let (name, value_type) = (name?, value_type?);
    Some(AttributeType {
        name,
        value_type,
        optional,
        default,
        update,
        pii,
        source,
        max_age_ms,
        consent,
        declared_at: entry.key_place.clone(),
    })
}

/// `{ purpose: marketing, channels: [email], basis: opt_in, text_version: sign-up-2026 }`
fn trait_consent(node: &Node, findings: &Findings) -> Option<TraitConsent> {
    let mut fields = Fields::of(node, "`consent` of an attribute", findings)?;
    let purpose = fields.required("purpose", "RK0102", "`purpose: marketing`").and_then(|node| findings.category(node));
    let channels = fields.required("channels", "RK0102", "`channels: [email]`");
    let channels = channels.map(|node| findings.channels(node));
    let basis = fields.read("basis", |node| findings.name(node, "what a yes rests on")).unwrap_or_else(|| Name::from("opt_in"));
    let text_version = fields.read("text_version", |node| findings.name(node, "the version of the text"));
    fields.finish();
    Some(TraitConsent { purpose: purpose?, channels: channels?, basis, text_version })
}

/// A value of a declared type.
fn typed(node: &Node, wanted: &ValueType, findings: &Findings) -> Option<Value> {
    match wanted {
        ValueType::Bool => findings.bool(node).map(Value::Bool),
        ValueType::Int => findings.number(node, i64::MIN, i64::MAX).map(Value::Int),
        ValueType::Float => {
            let text = findings.text(node, "a number")?;
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            if number.is_none() {
                findings.wrong(node, format!("`{text}` is no number"), None);
            }
            number.map(Value::Float)
        }
        ValueType::Text => findings.text(node, "a text").map(Value::text),
        ValueType::Enum(values) => {
            let words: Vec<(&str, ())> = values.iter().map(|value| (&**value, ())).collect();
            findings.one_of(node, &words)?;
            node.text().map(Value::text)
        }
        ValueType::Date => {
            let text = findings.text(node, "a date like `2026-11-06`")?;
            findings.date(node, text).map(Value::Date)
        }
        ValueType::Instant => {
            let text = findings.text(node, "an instant like \"2026-11-06T10:00:00Z\"")?;
            let instant = Timestamp::parse(text);
            if instant.is_none() {
                findings.wrong(node, format!("`{text}` is no instant"), "write it with its offset: \"2026-11-06T10:00:00Z\"".to_owned());
            }
            instant.map(Value::Instant)
        }
        ValueType::Duration => findings.span(node).map(|span| Value::Duration(span.exact_ms())),
        ValueType::Money => findings.money(node).map(Value::Money),
        ValueType::List => Some(Value::List(findings.names(node, "[a, b]").into_iter().map(Value::Text).collect())),
    }
}

/// Features and segments, each after those it refers to.
pub fn derived(
    (features, segments, lists): (&Section<'_>, &Section<'_>, &Lists),
    findings: &Findings,
    dictionary: &mut Dictionary,
    (policy, program): (&Policy, Option<&Program>),
    broken: &mut BTreeSet<Name>,
) {
    let declared: BTreeMap<&str, (&Entry, bool)> = features
        .entries()
        .map(|entry| (entry, true))
        .chain(segments.entries().map(|entry| (entry, false)))
        .map(|(e, f)| (&*e.key.text, (e, f)))
        .collect();
    for name in in_order(&declared, findings, broken) {
        let Some(&(entry, is_feature)) = declared.get(name) else { continue };
        let before = findings.errors();
        let compiler = Compiler { findings, dictionary, policy, program, broken, event: None, steps: &[], rules: &[] };
        if is_feature {
            let feature = feature(entry, &compiler);
            dictionary.features.extend(feature);
        } else {
            let segment = segment(entry, lists, &compiler);
            dictionary.segments.extend(segment);
        }
        let exists =
            dictionary.features.last().is_some_and(|f| &*f.name == name) || dictionary.segments.last().is_some_and(|s| &*s.name == name);
        if findings.errors() > before || !exists {
            broken.insert(entry.key.text.clone());
        }
    }
}

/// The names so that each comes after those its texts refer to. A name in a circle is reported and left out.
fn in_order<'n>(declared: &BTreeMap<&'n str, (&'n Entry, bool)>, findings: &Findings, broken: &mut BTreeSet<Name>) -> Vec<&'n str> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Open,
        Done,
    }
    let refers = |name: &str| -> Vec<&'n str> {
        let Some((entry, _)) = declared.get(name) else { return Vec::new() };
        let mut all = Vec::new();
        texts(&entry.value, &mut all);
        let referred: BTreeSet<&'n str> =
            all.iter().flat_map(|text| identifiers(text)).filter_map(|word| declared.get_key_value(word).map(|(key, _)| *key)).collect();
        referred.into_iter().collect()
    };
    let mut marks: HashMap<&str, Mark> = HashMap::new();
    let mut order = Vec::new();
    for &start in declared.keys() {
        let mut stack: Vec<(&'n str, Vec<&'n str>)> = Vec::new();
        if !marks.contains_key(start) {
            marks.insert(start, Mark::Open);
            stack.push((start, refers(start)));
        }
        while let Some((name, rest)) = stack.last_mut() {
            let name = *name;
            let Some(next) = rest.pop() else {
                marks.insert(name, Mark::Done);
                order.push(name);
                stack.pop();
                continue;
            };
            match marks.get(next) {
                Some(Mark::Done) => {}
                Some(Mark::Open) => {
                    let circle: Vec<&str> = stack.iter().map(|(name, _)| *name).skip_while(|name| *name != next).collect();
                    report_circle(declared, &circle, findings, broken);
                }
                None => {
                    marks.insert(next, Mark::Open);
                    stack.push((next, refers(next)));
                }
            }
        }
    }
    order.retain(|name| !broken.contains(*name));
    order
}

fn report_circle(declared: &BTreeMap<&str, (&Entry, bool)>, circle: &[&str], findings: &Findings, broken: &mut BTreeSet<Name>) {
    let Some((entry, is_feature)) = circle.first().and_then(|name| declared.get(name)) else { return };
    broken.extend(circle.iter().map(|name| Name::from(*name)));
    let code = if *is_feature { "RK0223" } else { "RK0224" };
    let mut chain: Vec<&str> = circle.to_vec();
    chain.extend(circle.first());
    let message = format!("`{}` refers to itself: {}", entry.key.text, chain.join(" -> "));
    findings.add(Diagnostic::error(code, entry.key_place.clone(), message).len(entry.key.text.chars().count()));
}

fn segment(entry: &Entry, lists: &Lists, compiler: &Compiler<'_>) -> Option<Segment> {
    let findings = compiler.findings;
    let name = findings.identifier(entry);
    let mut fields = Fields::of(&entry.value, "a segment", findings)?;
    fields.read("name", |node| findings.text(node, "a text"));
    let list = fields.made(lists::DIGEST).and_then(Node::text).and_then(|digest| lists.get(digest));
    // all are asked for, so that whoever misspells one is told of all
    let (when, of_list) = (fields.get("when"), fields.get("file").or(fields.get("column")).is_some());
    let condition = if of_list {
        let path = fields.required("file", "RK0102", "write the file: `file: lists/autumn.csv`");
        let column = fields.required("column", "RK0102", "write the column that holds user ids: `column: user_id`");
        if let Some(node) = when {
            findings.wrong(
                node,
                "a segment is a list or a condition, not both",
                "make two segments, and a third of both: `when: list && other`".to_owned(),
            );
        }
        path.and_then(|node| findings.text(node, "a file of the rules directory"));
        column.and_then(|node| findings.text(node, "a column of the file"));
        list.map(|list| Condition::listed(Arc::clone(list), &entry.key.text))
    } else {
        let when = fields.required("when", "RK0102", "write its condition: `when: days_silent >= 30`, or `file` and `column` of a list");
        when.and_then(|when| compiler.condition(when))
    };
    fields.finish();
    Some(Segment { name: name?, condition: condition?, declared_at: entry.key_place.clone() })
}

const FUNCTIONS: [(&str, AggregateFunction); 6] = [
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("min", AggregateFunction::Min),
    ("max", AggregateFunction::Max),
    ("last", AggregateFunction::Last),
    ("distinct", AggregateFunction::Distinct),
];

fn feature(entry: &Entry, compiler: &Compiler<'_>) -> Option<FeatureType> {
    let findings = compiler.findings;
    let name = findings.identifier(entry);
    let mut fields = Fields::of(&entry.value, "a feature", findings)?;
    let given: Vec<&str> = ["expr"].into_iter().chain(FUNCTIONS.map(|(key, _)| key)).filter(|key| fields.has(key)).collect();
    if given.len() != 1 {
        let message = match given.as_slice() {
            [] => format!("`{}` does not say what it computes", entry.key.text),
            several => format!("`{}` computes {} at once", entry.key.text, several.join(" and ")),
        };
        let finding = Diagnostic::error("RK0222", entry.key_place.clone(), message).len(entry.key.text.chars().count());
        findings.add(finding.help("exactly one of expr, count, sum, min, max, last, distinct: `count: order_completed`"));
    }
    let doc = fields.read("doc", |node| findings.text(node, "a text")).map(str::to_owned);
    fields.read("unit", |node| findings.text(node, "a text"));
    let expr = fields.get("expr");
    let aggregate = aggregate(&mut fields, compiler, expr.is_none() && given.len() == 1);
    fields.finish();
    if given.len() != 1 {
        return None;
    }
    let kind = match expr {
        Some(node) => compiler.expression(node).map(|(expr, _)| FeatureKind::Expr(expr))?,
        None => FeatureKind::Aggregate(aggregate?),
    };
    Some(FeatureType { name: name?, kind, doc, declared_at: entry.key_place.clone() })
}

fn aggregate(fields: &mut Fields<'_, '_>, compiler: &Compiler<'_>, is_wanted: bool) -> Option<Aggregate> {
    let findings = compiler.findings;
    let found: Vec<(AggregateFunction, &Node)> =
        FUNCTIONS.into_iter().filter_map(|(key, function)| fields.get(key).map(|node| (function, node))).collect();
    let window = if is_wanted {
        fields.required("window", "RK0102", "write over how long: `window: 30d`, or `window: lifetime`")
    } else {
        fields.get("window")
    };
    let window_ms = window.and_then(|node| if node.text() == Some("lifetime") { Some(None) } else { findings.exact_ms(node).map(Some) });
    let bucket_ms = fields.read("bucket", |node| if node.text() == Some("exact") { None } else { findings.exact_ms(node) });
    let keep = fields.read("keep", |node| findings.number(node, 1, KEEP_MOST)).and_then(|keep| usize::try_from(keep).ok());
    let filter_node = fields.get("where");
    let &[(function, node)] = found.as_slice() else { return None };
    let (event, property, value_type) = measured(function, node, compiler)?;
    let compiler = Compiler { event: Some(event), ..*compiler };
    let filter = match filter_node {
        Some(node) => Some(compiler.condition(node)?),
        None => None,
    };
    let keep = keep.unwrap_or(KEEP_DEFAULT);
    Some(Aggregate { function, event: event.name.clone(), property, value_type, filter, window_ms: window_ms?, bucket_ms, keep })
}

/// The event and property an aggregate names, and the type of what comes out.
fn measured<'c>(function: AggregateFunction, node: &Node, compiler: &Compiler<'c>) -> Option<(&'c EventType, Option<Name>, ValueType)> {
    let findings = compiler.findings;
    let text = findings.text(node, "an event, or `event.property`")?;
    let (event_name, property_name) = match text.split_once('.') {
        Some((event, property)) => (event, Some(property)),
        None => (text, None),
    };
    let Some(event) = compiler.dictionary.events.get(event_name) else {
        let mut help = nearest(event_name, compiler.dictionary.events.keys().map(|n| &**n)).map(|name| format!("did you mean `{name}`?"));
        if help.is_none() {
            help = Some("declare it under `events`".to_owned());
        }
        findings.error("RK0202", node, format!("unknown event `{event_name}`"), help);
        return None;
    };
    let Some(property_name) = property_name else {
        if function == AggregateFunction::Count {
            return Some((event, None, ValueType::Int));
        }
        let example = event.properties.keys().next().map_or("total", |name| &**name);
        findings.wrong(node, format!("of what of `{event_name}`?"), format!("name a property: `{event_name}.{example}`"));
        return None;
    };
    if function == AggregateFunction::Count {
        findings.wrong(node, "`count` counts events, not properties", format!("write `count: {event_name}`, or `distinct: {text}`"));
        return None;
    }
    let Some(property) = event.properties.get(property_name) else {
        let help = nearest(property_name, event.properties.keys().map(|n| &**n)).map(|name| format!("did you mean `{event_name}.{name}`?"));
        let declared = &event.declared_at;
        let help = help.unwrap_or_else(|| format!("declare it at the event ({}:{})", declared.file, declared.line));
        findings.error("RK0202", node, format!("`{event_name}` has no property `{property_name}`"), help);
        return None;
    };
    let value_type = match (function, &property.value_type) {
        (AggregateFunction::Distinct, _) => ValueType::Int,
        (AggregateFunction::Last, any) => any.clone(),
        (AggregateFunction::Sum, number @ (ValueType::Int | ValueType::Float | ValueType::Money)) => number.clone(),
        (
            AggregateFunction::Min | AggregateFunction::Max,
            ordered @ (ValueType::Int | ValueType::Float | ValueType::Money | ValueType::Date | ValueType::Instant),
        ) => ordered.clone(),
        _ => {
            let message = format!(
                "`{text}` is no number, it has no {}",
                if function == AggregateFunction::Sum { "sum" } else { "least or greatest" }
            );
            findings.error("RK0204", node, message, "`last` and `distinct` work with any type".to_owned());
            return None;
        }
    };
    Some((event, Some(Name::from(property_name)), value_type))
}

/// A name exists once among attributes, features and segments, built-in ones included.
pub fn names_once(attributes: &Section<'_>, features: &Section<'_>, segments: &Section<'_>, findings: &Findings) {
    let mut seen: HashMap<&str, (&'static str, &Place)> = HashMap::new();
    let sections = [(attributes, "an attribute"), (features, "a feature"), (segments, "a segment")];
    for (section, what) in sections {
        for entry in section.all_entries() {
            let name = &*entry.key.text;
            let taken = if features::is_built_in(name) {
                Some("a built-in name".to_owned())
            } else {
                seen.get(name).map(|(what, place)| format!("{what} already ({}:{})", place.file, place.line))
            };
            match taken {
                Some(taken) => {
                    let message = format!("`{name}` is {taken}");
                    let finding = Diagnostic::error("RK0115", entry.key_place.clone(), message).len(name.chars().count());
                    findings.add(finding.help("choose another name"));
                }
                None => drop(seen.insert(name, (what, &entry.key_place))),
            }
        }
    }
}

/// Reads the name of a declared event.
pub fn event_name<'d>(node: &Node, dictionary: &'d Dictionary, findings: &Findings) -> Option<&'d EventType> {
    let text = findings.text(node, "the name of an event")?;
    let event = dictionary.events.get(text);
    if event.is_none() {
        if let Some(name) = dictionary.wire_names.get(text) {
            findings.error("RK0202", node, format!("`{text}` is the event's name on the wire"), format!("rules call it `{name}`"));
        } else {
            unknown(findings, "RK0202", node, "event", dictionary.events.keys().map(|name| &**name));
        }
    }
    event
}
