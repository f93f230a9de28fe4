//! One rule: who, when, unless, and how often.

use std::collections::BTreeMap;

use super::condition::Compiler;
use super::derive;
use super::dictionary::event_name;
use super::policy::max_late;
use super::read::{Fields, Findings, Moment, parse_percent, parse_time, unknown};
use super::steps::StepReader;
use crate::engine::cron;
use crate::engine::features;
use crate::engine::profile::Name;
use crate::engine::rule::expr::{Condition, ValueType};
use crate::engine::rule::syntax::Node;
use crate::engine::rule::{
    Active, At, AtDays, EventType, Existing, Feb29, MaxEntries, Place, Reentry, Rule, SHADOW, StopOn, TemplateCatalog, Trigger,
    WhileRunning,
};
use crate::engine::time::{Span, Timestamp, Zone};

const TRIGGERS: [&str; 3] = ["when", "event", "at"];

/// Reads the rules, each for itself: a bad one hides no other.
pub fn rules(nodes: &[&Node], compiler: &Compiler<'_>, templates: &TemplateCatalog, source: &derive::Texts<'_>) -> Vec<Rule> {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    let mut rules = Vec::new();
    for node in nodes {
        if let Some(id) = node.get("id")
            && let Some(text) = id.text()
        {
            match seen.get(text) {
                Some(first) => {
                    let message = format!("there is a rule `{text}` already ({}:{})", first.file, first.line);
                    let help = "an id stands for a rule's state for ever: give this one another".to_owned();
                    compiler.findings.error("RK0110", id, message, help);
                }
                None => drop(seen.insert(text, &id.place)),
            }
        }
        // one with an error is no rule, whatever could be read of it
        let errors = compiler.findings.errors();
        let read = rule(node, compiler, templates, source);
        rules.extend(read.filter(|_| compiler.findings.errors() == errors));
    }
    rules
}

fn rule(node: &Node, compiler: &Compiler<'_>, templates: &TemplateCatalog, source: &derive::Texts<'_>) -> Option<Rule> {
    let findings = compiler.findings;
    let mut fields = Fields::of(node, "a rule", findings)?;
    let id_node = fields.required("id", "RK0102", "`id: silence-30d`: it stands for the rule's state for ever");
    let id = id_node.and_then(|node| findings.slug(node, 3));
    let name = fields.read("name", |node| findings.text(node, "a text"));
    let owner = fields.required("owner", "RK0112", "name who answers for this rule: `owner: growth`");
    let owner = owner.and_then(|node| findings.text(node, "a team or person"));
    let doc = fields.read("doc", |node| findings.text(node, "a text"));
    fields.read("kpi", |node| findings.text(node, "a text"));
    fields.read("review_by", |node| findings.text(node, "a date").and_then(|text| findings.date(node, text)));
    let tags = fields.get("tags").map(|node| findings.list_of(node, "[winback]", |item| findings.slug(item, 1))).unwrap_or_default();
    let enabled = fields.read("enabled", |node| findings.bool(node)).unwrap_or(true);
    let shadow = fields.read("mode", |node| findings.one_of(node, &[("live", false), ("shadow", true)])).unwrap_or(false);
    if not_yet_at_all(&mut fields) {
        fields.finish();
        return None;
    }
    let active = fields.read("active", |node| active(node, findings));
    let audience = fields.read("audience", |node| audience(node, compiler));
    let trigger_key = trigger_key(&fields, findings);
    let event = fields.get("event").and_then(|node| event_name(node, compiler.dictionary, findings));
    let in_rule = Compiler { event, ..*compiler };
    let trigger = trigger(&mut fields, trigger_key, &in_rule);
    let unless = fields.read("unless", |node| in_rule.condition(node));
    let only_if_at_start = fields.read("only_if_at_start", |node| only_if_at_start(node, &in_rule));
    let existing = existing(&mut fields, trigger_key, findings);
    let max_entries = fields.read("max_entries", |node| max_entries(node, findings));
    let hold_for = fields.read("for", |node| hold_for(node, findings)).unwrap_or(Span::ZERO);
    let while_running = while_running(&mut fields, trigger_key, findings).unwrap_or_default();
    let reentry = fields.read("reentry", |node| reentry(node, hold_for, while_running, findings));
    let at_most = fields.read("at_most", |node| at_most(node, findings));
    let stop_on = fields.read("stop_on", |node| stop_on(node, event, compiler));
    let max_late = fields.read("max_late", |node| max_late(node, findings));
    let priority = fields.read("priority", |node| findings.number(node, 0, 100)).and_then(|n| u8::try_from(n).ok());
    let holdout_bp = fields.read("holdout", |node| findings.percent(node)).unwrap_or(0);
    let step_reader = StepReader { compiler: in_rule, templates };
    let steps_node = fields.required("steps", "RK0102", "say what happens: `steps: [{ id: tell, send: { ... } }]`");
    let on_exit_node = fields.get("on_exit");
    let (steps, on_exit) = step_reader.all(steps_node, on_exit_node);
    let default_entries = if trigger_key == Some("at") { MaxEntries::None } else { MaxEntries::Default };
    fields.finish();
    let written = derive::Written { node, steps: steps_node, trigger: trigger_key };
    derive::check_own_writes(&written, compiler, source);
    let id = id?;
    let name = name.unwrap_or(&id).to_owned();
    let id = if shadow { Name::from(format!("{id}{SHADOW}")) } else { id };
    let mut rule = Rule {
        name,
        place: id_node.map_or_else(|| node.place.clone(), |node| node.place.clone()),
        owner: owner?.to_owned(),
        doc: doc.map(|doc| doc.trim_end().to_owned()),
        tags,
        enabled,
        shadow,
        active,
        audience,
        trigger: trigger?,
        unless,
        only_if_at_start,
        existing: existing.unwrap_or(Existing::Skip),
        // what nobody is touched by needs no brake
        max_entries: if shadow { MaxEntries::None } else { max_entries.unwrap_or(default_entries) },
        hold_for,
        reentry: reentry.unwrap_or(Reentry::After { after: Span::days(30), max: None }),
        at_most,
        while_running,
        stop_on,
        max_late,
        priority: priority.unwrap_or(compiler.policy.default_priority),
        steps,
        on_exit,
        holdout_bp,
        when_hash: 0,
        hash: 0,
        takes: false,
        treats: false,
        rests_on_absence: false,
        id,
    };
    derive::derive(&mut rule, &written, source);
    Some(rule)
}

/// Keys of a rule that the language has and this version does not carry out.
fn not_yet_at_all(fields: &mut Fields<'_, '_>) -> bool {
    for key in ["rollout", "experiment", "guardrails"] {
        fields.not_yet(key);
    }
    // a rule made from a blueprint has no trigger and no steps of its own: there is nothing more to check
    let from_blueprint = fields.not_yet("use");
    if from_blueprint {
        for key in ["with", "audience", "when", "event", "at", "steps", "existing", "priority"] {
            fields.entry(key);
        }
    } else {
        fields.not_yet("with");
    }
    from_blueprint
}

/// An audience that is one unknown word is an unknown segment.
fn audience(node: &Node, compiler: &Compiler<'_>) -> Option<Condition> {
    if let Some(text) = node.text() {
        let is_word = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let dictionary = compiler.dictionary;
        let known = features::is_built_in(text)
            || matches!(text, "true" | "false")
            || compiler.broken.contains(text)
            || dictionary.segments.iter().any(|segment| &*segment.name == text)
            || dictionary.features.iter().any(|feature| &*feature.name == text)
            || dictionary.attributes.iter().any(|attribute| &*attribute.name == text);
        if is_word && !known {
            let names = dictionary.segments.iter().map(|segment| &*segment.name).chain(["reachable"]);
            unknown(compiler.findings, "RK0201", node, "segment", names);
            return None;
        }
    }
    compiler.condition(node)
}

// -------------------------------------------------------------------------------------------------------------------- trigger

fn trigger_key(fields: &Fields<'_, '_>, findings: &Findings) -> Option<&'static str> {
    let given: Vec<&'static str> = TRIGGERS.into_iter().filter(|key| fields.has(key)).collect();
    match given.as_slice() {
        [one] => Some(one),
        [] if fields.has_like(&TRIGGERS) => None,
        [] => {
            let help = "exactly one of `when: days_silent >= 30`, `event: order_completed`, `at: { daily: true, ... }`".to_owned();
            findings.error("RK0120", fields.node, "nothing says when this rule starts", help);
            None
        }
        several => {
            let message = format!("this rule has {} triggers: {}", several.len(), several.join(", "));
            findings.error("RK0120", fields.node, message, "a rule has exactly one of `when`, `event`, `at`; make it two rules".to_owned());
            None
        }
    }
}

fn trigger(fields: &mut Fields<'_, '_>, key: Option<&str>, compiler: &Compiler<'_>) -> Option<Trigger> {
    let findings = compiler.findings;
    let when = fields.get("when").and_then(|node| compiler.condition(node));
    let at = fields.get("at").and_then(|node| at(node, compiler));
    let filter_node = fields.get("where");
    let key_node = fields.get("key");
    if key != Some("event") {
        for (name, node) in [("where", filter_node), ("key", key_node)] {
            if let Some(node) = node.filter(|_| key.is_some()) {
                findings.wrong(node, format!("`{name}` goes with `event` only"), "use `audience` or `only_if_at_start` here".to_owned());
            }
        }
    }
    match key? {
        "when" => when.map(Trigger::When),
        "at" => at.map(Trigger::At),
        _ => {
            let event = compiler.event?;
            let filter = filter_node.map(|node| compiler.condition(node));
            let key = key_node.map(|node| compiler.expression(node).map(|(expr, _)| expr));
            // a filter with an error is no filter that lets everything pass
            let (filter, key) = (filter.map_or(Some(None), |filter| filter.map(Some))?, key.map_or(Some(None), |key| key.map(Some))?);
            Some(Trigger::Event { event: event.name.clone(), filter, key })
        }
    }
}

fn at(node: &Node, compiler: &Compiler<'_>) -> Option<At> {
    const FORMS: [&str; 8] = ["daily", "weekly", "monthly", "yearly", "once", "cron", "calendar", "moment"];
    let findings = compiler.findings;
    let mut fields = Fields::of(node, "`at`", findings)?;
    let given: Vec<&str> = FORMS.into_iter().filter(|form| fields.has(form)).collect();
    if given.len() != 1 {
        let message = if given.is_empty() {
            "`at` does not say on which days".to_owned()
        } else {
            format!("`at` says {} at once", given.join(" and "))
        };
        findings.wrong(node, message, format!("exactly one of {}", FORMS.join(", ")));
    }
    let has_own_time = fields.has("once") || fields.has("cron");
    let once = fields.read("once", |node| findings.moment(node));
    let instant = matches!(once, Some(Moment::Instant(_)));
    let zone = at_zone(&mut fields, instant, findings);
    let time = match (fields.get("time"), has_own_time) {
        (Some(node), true) => {
            findings.wrong(node, "`once` and `cron` have their own time", "remove `time`".to_owned());
            None
        }
        (Some(node), false) => findings.time(node),
        (None, true) => Some(jiff::civil::Time::midnight()),
        (None, false) => {
            fields.required("time", "RK0102", "say at what time: `time: \"10:00\"`");
            None
        }
    };
    let days = at_days(&mut fields, once, compiler);
    let feb_29 = fields.read("feb_29", |node| findings.one_of(node, &[("feb_28", Feb29::Feb28), ("mar_1", Feb29::Mar1)]));
    fields.finish();
    Some(At { days: days.filter(|_| given.len() == 1)?, time: time?, zone: zone?, feb_29: feb_29.unwrap_or_default() })
}

fn at_zone(fields: &mut Fields<'_, '_>, has_offset: bool, findings: &Findings) -> Option<Option<Zone>> {
    if !has_offset {
        let help = "`zone: user` is where each person lives; or one for all: `zone: Europe/London`";
        return fields.required("zone", "RK0302", help).and_then(|node| findings.user_zone(node));
    }
    if let Some(node) = fields.get("zone") {
        findings.wrong(node, "the instant has an offset already, `zone` would not be asked", "remove one of the two".to_owned());
    }
    Some(Some(Zone::UTC))
}

fn at_days(fields: &mut Fields<'_, '_>, once: Option<Moment>, compiler: &Compiler<'_>) -> Option<AtDays> {
    let findings = compiler.findings;
    let mut days = once.map(|moment| match moment {
        Moment::Wall(wall) => AtDays::Once(wall),
        Moment::Instant(instant) => AtDays::Once(instant.local(&Zone::UTC)),
    });
    if let Some(node) = fields.get("daily")
        && let Some(daily) = findings.bool(node)
    {
        if !daily {
            findings.error("RK0303", node, "`daily: false` never fires", "a rule is switched off by `enabled: false`".to_owned());
        }
        days = Some(AtDays::Daily);
    }
    if let Some(node) = fields.get("weekly") {
        let weekdays = findings.weekdays(node);
        if weekdays.is_empty() && node.items().is_some_and(<[Node]>::is_empty) {
            findings.error("RK0303", node, "no day is named, so this never fires", "`weekly: [mon, thu]`".to_owned());
        }
        days = (!weekdays.is_empty()).then_some(AtDays::Weekly(weekdays));
    }
    if let Some(node) = fields.get("monthly") {
        let day = if node.text() == Some("last") { Some(0) } else { findings.number(node, 1, 31) };
        days = day.and_then(|day| u8::try_from(day).ok()).map(AtDays::Monthly);
    }
    if let Some(node) = fields.get("yearly") {
        days = yearly(node, compiler).map(AtDays::Yearly);
    }
    if let Some(node) = fields.get("cron") {
        days = cron_days(node, findings);
    }
    if let Some(node) = fields.get("calendar") {
        days = calendar(node, compiler).map(AtDays::Calendar);
    }
    moment(fields, compiler).or(days)
}

fn yearly(node: &Node, compiler: &Compiler<'_>) -> Option<Name> {
    let name = compiler.findings.name(node, "the name of a date attribute")?;
    let dates = || compiler.dictionary.attributes.iter().filter(|attribute| attribute.value_type == ValueType::Date);
    if dates().any(|attribute| attribute.name == name) {
        return Some(name);
    }
    match compiler.dictionary.attributes.iter().find(|attribute| attribute.name == name) {
        Some(attribute) => {
            let place = &attribute.declared_at;
            let message = format!("`{name}` is no date ({}:{})", place.file, place.line);
            compiler.findings.error("RK0204", node, message, "`yearly` needs an attribute of type date".to_owned());
        }
        None => unknown(compiler.findings, "RK0203", node, "date attribute", dates().map(|attribute| &*attribute.name)),
    }
    None
}

fn cron_days(node: &Node, findings: &Findings) -> Option<AtDays> {
    let text = findings.text(node, "five fields of cron")?;
    if let Err(why) = cron::check(text) {
        let help = "minute, hour, day of month, month, weekday: `0 9 * * 1` is Mondays at nine".to_owned();
        findings.wrong(node, why, help);
        return None;
    }
    // every schedule that fires at all does so within any eight years (29 February across a century)
    let start = jiff::civil::date(2024, 1, 1).at(0, 0, 0, 0);
    if cron::next(text, start).is_none_or(|next| next.year() > 2032) {
        findings.error("RK0303", node, format!("`{text}` names no day that exists, so it never fires"), None);
    }
    Some(AtDays::Cron(Name::from(text)))
}

fn calendar(node: &Node, compiler: &Compiler<'_>) -> Option<Name> {
    let name = compiler.findings.name(node, "the name of a calendar")?;
    match compiler.policy.calendars.get(&name) {
        Some(calendar) if calendar.ranges.is_empty() => {
            compiler.findings.error("RK0303", node, format!("calendar `{name}` has no days, so this never fires"), None);
            None
        }
        Some(_) => Some(name),
        None => {
            unknown(compiler.findings, "RK0203", node, "calendar", compiler.policy.calendars.keys().map(|name| &**name));
            None
        }
    }
}

/// `moment: NAME` with `before` or `after`.
fn moment(fields: &mut Fields<'_, '_>, compiler: &Compiler<'_>) -> Option<AtDays> {
    let findings = compiler.findings;
    let before = fields.get("before");
    let after = fields.get("after");
    let Some(node) = fields.get("moment") else {
        for node in [before, after].into_iter().flatten() {
            findings.wrong(node, "`before` and `after` go with `moment` only", None);
        }
        return None;
    };
    if let (Some(_), Some(node)) = (before, after) {
        findings.wrong(node, "`before` and `after` at once", "keep one of the two".to_owned());
    }
    let name = findings.name(node, "the name of a timestamp")?;
    let dictionary = compiler.dictionary;
    let declared = dictionary.features.iter().map(|f| (&*f.name, f.value_type().clone()));
    let declared = declared.chain(dictionary.attributes.iter().map(|a| (&*a.name, a.value_type.clone())));
    let found = declared.clone().find(|(other, _)| *other == &*name).map(|(_, kind)| kind).or_else(|| features::built_in_type(&name));
    match found {
        Some(ValueType::Instant) => {}
        Some(_) => {
            findings.error("RK0204", node, format!("`{name}` is no timestamp"), "`tier_review_at` and `next_expiry_at` are".to_owned());
            return None;
        }
        None => {
            unknown(
                findings,
                "RK0203",
                node,
                "timestamp",
                features::built_in_names().map(|name| -> &str { name }).chain(declared.map(|(name, _)| name)),
            );
            return None;
        }
    }
    let offset = match (before, after) {
        (Some(node), _) => findings.span(node)?.negated(),
        (None, Some(node)) => findings.span(node)?,
        (None, None) => Span::ZERO,
    };
    Some(AtDays::Moment { name, offset })
}

// ------------------------------------------------------------------------------------------------------------- how often, how

fn active(node: &Node, findings: &Findings) -> Option<Active> {
    let mut fields = Fields::of(node, "`active`", findings)?;
    let from_node = fields.get("from");
    let until_node = fields.get("until");
    let from = from_node.and_then(|node| findings.moment(node));
    let until = until_node.and_then(|node| findings.moment(node));
    let zone = fields.get("zone").map(|node| findings.zone(node, "RK0302"));
    let needs_zone = [from, until].iter().any(|moment| matches!(moment, Some(Moment::Wall(_))));
    if zone.is_none() && needs_zone {
        fields.required("zone", "RK0302", "in which zone? `zone: Europe/London`; or write the instants with an offset");
    }
    if from_node.is_none() && until_node.is_none() {
        findings.wrong(node, "`active` without `from` and `until` says nothing", None);
    }
    fields.finish();
    if needs_zone && zone.is_none() {
        return None;
    }
    let zone = zone.unwrap_or(Some(Zone::UTC))?;
    let instant = |moment: Moment| match moment {
        Moment::Instant(instant) => instant,
        Moment::Wall(wall) => zone.instant(wall),
    };
    let read = |node: Option<&Node>, moment: Option<Moment>, open: Timestamp| match (node, moment) {
        (None, _) => Some(open),
        (Some(_), moment) => moment.map(instant),
    };
    let active = Active { from: read(from_node, from, Timestamp::DISTANT_PAST)?, until: read(until_node, until, Timestamp::FOREVER)? };
    if active.until <= active.from {
        findings.error("RK0301", until_node.unwrap_or(node), "`until` is not after `from`, so the rule would never be active", None);
    }
    Some(active)
}

fn existing(fields: &mut Fields<'_, '_>, trigger: Option<&str>, findings: &Findings) -> Option<Existing> {
    if trigger != Some("when") {
        if let Some(node) = fields.get("existing").filter(|_| trigger.is_some()) {
            findings.wrong(node, "`existing` goes with `when` only", "nobody fulfils an event or a date already".to_owned());
        }
        return None;
    }
    let help =
        "people who fulfil `when` already: `existing: skip` leaves them alone, `enter` takes all, `spread(7d)` takes them over a week";
    let node = fields.required("existing", "RK0122", help)?;
    let text = findings.text(node, "skip, enter or spread(7d)")?;
    if let Some(span) = text.strip_prefix("spread(").and_then(|rest| rest.strip_suffix(')')) {
        let span = span.trim().parse::<Span>().ok().filter(|span| !span.is_negative() && !span.is_zero());
        if span.is_none() {
            findings.wrong(node, format!("`{text}` does not say over how long"), "write `spread(7d)`".to_owned());
        }
        return span.map(Existing::Spread);
    }
    match text {
        "skip" => Some(Existing::Skip),
        "enter" => Some(Existing::Enter),
        _ => {
            let help = (text == "spread").then(|| "say over how long: `spread(7d)`".to_owned());
            findings.error("RK0122", node, format!("`{text}` is not one of `skip`, `enter`, `spread(7d)`"), help);
            None
        }
    }
}

fn max_entries(node: &Node, findings: &Findings) -> Option<MaxEntries> {
    let text = findings.text(node, "a count or a percentage")?;
    if let Some(share) = parse_percent(text) {
        return Some(MaxEntries::Share(share));
    }
    let count = text.replace('_', "").parse::<u64>().ok().filter(|count| *count > 0);
    if count.is_none() {
        let help = "entries in any hour: `5000`, or a share of all people: `2%`".to_owned();
        findings.error("RK0122", node, format!("`{text}` is neither a count nor a percentage"), help);
    }
    count.map(MaxEntries::Count)
}

fn hold_for(node: &Node, findings: &Findings) -> Option<Span> {
    if node.text().and_then(|text| text.parse::<Span>().ok()).is_some_and(Span::is_negative) {
        findings.error("RK0304", node, "`for` is negative", "how long must it hold before the run starts? `for: 6h`".to_owned());
        return None;
    }
    findings.span(node)
}

fn reentry(node: &Node, hold_for: Span, while_running: WhileRunning, findings: &Findings) -> Option<Reentry> {
    if let Some(text) = node.text() {
        if text == "never" {
            return Some(Reentry::Never);
        }
        let help =
            if text.parse::<Span>().is_ok() { format!("write `{{ after: {text} }}`") } else { "`never`, or `{ after: 30d }`".to_owned() };
        findings.wrong(node, format!("`{text}` does not say when somebody may start again"), help);
        return None;
    }
    let mut fields = Fields::of(node, "`reentry`", findings)?;
    let after_node = fields.required("after", "RK0102", "`after: 30d`");
    let after = after_node.and_then(|node| findings.span(node));
    let max = fields.read("max", |node| findings.number(node, 1, i64::from(u32::MAX))).and_then(|max| u32::try_from(max).ok());
    fields.finish();
    let at_once = after.is_some_and(Span::is_zero) && hold_for.is_zero() && while_running != WhileRunning::Parallel;
    if let Some(node) = after_node.filter(|_| at_once) {
        let message = "whoever leaves and returns starts again at once";
        findings.warning("RK0307", node, message, "write `after: 1d`, or let `for` demand that it holds for a while".to_owned());
    }
    Some(Reentry::After { after: after?, max })
}

fn at_most(node: &Node, findings: &Findings) -> Option<(u32, i64)> {
    let (count, span) = findings.per(node, "1 per 7d")?;
    let count_read = count.parse::<u32>().ok().filter(|count| *count > 0);
    if count_read.is_none() {
        findings.wrong(node, format!("`{count}` is no count"), "write it like `1 per 7d`".to_owned());
    }
    Some((count_read?, findings.per_span(node, span)?))
}

/// What a second event or date does while a run of its key goes on.
fn while_running(fields: &mut Fields<'_, '_>, trigger: Option<&str>, findings: &Findings) -> Option<WhileRunning> {
    let words = [("ignore", WhileRunning::Ignore), ("restart", WhileRunning::Restart), ("parallel", WhileRunning::Parallel)];
    let node = fields.get("while_running")?;
    let mode = findings.one_of(node, &words)?;
    if trigger == Some("when") && mode != WhileRunning::Ignore {
        let help = "a `when` that goes on to be true starts nothing; `while_running` goes with `event` and `at`".to_owned();
        findings.wrong(node, "nothing comes a second time while `when` holds", help);
    }
    if mode == WhileRunning::Parallel && !fields.has("reentry") {
        // the default, 30 days, would let no second run begin beside the first
        fields.required("reentry", "RK0102", "runs side by side: how soon may the next one of a key begin? `reentry: { after: 1h }`");
    }
    Some(mode)
}

fn stop_on(node: &Node, starting: Option<&EventType>, compiler: &Compiler<'_>) -> Option<StopOn> {
    let findings = compiler.findings;
    if node.text().is_some() {
        let help = format!("write `stop_on: {{ event: {} }}`", node.text().unwrap_or_default());
        findings.wrong(node, "a text stands here, `stop_on` is a mapping of keys", help);
        return None;
    }
    let mut fields = Fields::of(node, "`stop_on`", findings)?;
    let event = fields.required("event", "RK0202", "`event: order_completed`");
    let event = event.and_then(|node| event_name(node, compiler.dictionary, findings));
    let matching_node = fields.get("match");
    fields.finish();
    let event = event?;
    let matching = match matching_node {
        None => None,
        Some(node) => Some(matching(node, event, starting, findings)?),
    };
    Some(StopOn { event: event.name.clone(), matching })
}

/// A property that both the stopping event and the one that started the run have.
fn matching(node: &Node, stopping: &EventType, starting: Option<&EventType>, findings: &Findings) -> Option<Name> {
    let text = findings.text(node, "a property like `event.order_id`")?;
    let property = text.strip_prefix("event.").unwrap_or(text);
    let Some(starting) = starting else {
        findings.wrong(node, "`match` compares with the event that started the run, and no event starts this rule", None);
        return None;
    };
    for event in [stopping, starting] {
        if !event.properties.contains_key(property) {
            let place = &event.declared_at;
            let message = format!("`{}` has no property `{property}`", event.name);
            findings.error("RK0202", node, message, format!("declare it at the event ({}:{})", place.file, place.line));
            return None;
        }
    }
    Some(Name::from(property))
}

/// A condition of the clock alone would be looked at once and forgotten.
fn only_if_at_start(node: &Node, compiler: &Compiler<'_>) -> Option<Condition> {
    const CLOCK: [&str; 4] = ["local_hour", "local_weekday", "local_date", "in_calendar"];
    let mut all = Vec::new();
    super::condition::texts(node, &mut all);
    let names: Vec<&str> = all.iter().flat_map(|text| super::condition::identifiers(text)).collect();
    if !names.is_empty() && names.iter().all(|name| CLOCK.contains(name) || matches!(*name, "true" | "false" | "in" | "and" | "or" | "not"))
    {
        let message = "this asks the clock alone, once, as the run would start";
        let help = "did you mean `when`? a time of day for a message is `send_at`".to_owned();
        compiler.findings.error("RK0210", node, message, help);
        return None;
    }
    compiler.condition(node)
}

/// `"10:00"`, `"09:30-11:30"`.
pub fn time_window(text: &str) -> Option<(jiff::civil::Time, jiff::civil::Time)> {
    match text.split_once('-') {
        Some((from, to)) => Some((parse_time(from)?, parse_time(to)?)),
        None => parse_time(text).map(|time| (time, time)),
    }
}
