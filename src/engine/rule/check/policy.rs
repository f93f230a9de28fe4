//! The policy: zones, lateness, consent, caps, quiet hours, inhibition, sources, calendars, channels.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::civil::{Date, Time};
use lettre::message::Mailbox;

use super::Section;
use super::condition::Compiler;
use super::read::{Fields, Findings, WEEKDAYS, not_yet};
use crate::engine::action::Channel;
use crate::engine::profile::{Category, Name};
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::syntax::Node;
use crate::engine::rule::{
    Calendar, Cap, CapWindow, ChannelPolicy, ConsentBasis, Duplicates, Holdout, Inhibit, MaxLate, OnBlockAnswer, Policy, QuietHours, Rate,
    Sender, SourcePolicy, WarmUp, ZonePolicy,
};
use crate::engine::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

/// The provider that is always there and sends nothing.
const RECORDING: &str = "recording";

/// Reads the policy but for `inhibit`, whose conditions may name its calendars ([`inhibit`]). What a file does not say has the
/// default of [`Policy::default`].
pub fn policy(section: &Section<'_>, findings: &Findings) -> Policy {
    let mut policy = Policy::default();
    let Some(node) = section.as_node() else { return policy };
    let Some(mut fields) = Fields::of(&node, "`policy`", findings) else { return policy };
    if let Some(node) = fields.get("time") {
        time(node, findings, &mut policy);
    }
    if let Some(node) = fields.get("consent") {
        policy.consent = consent(node, findings);
    }
    if let Some(node) = fields.get("categories") {
        categories(node, findings, &mut policy);
    }
    policy.holdout = fields.get("holdout").and_then(|node| holdout(node, findings));
    if let Some(node) = fields.get("priority") {
        priority(node, findings, &mut policy);
    }
    policy.caps = fields.get("caps").map(|node| caps(node, findings)).unwrap_or_default();
    policy.quiet_hours = fields.get("quiet_hours").map(|node| quiet_hours(node, findings)).unwrap_or_default();
    policy.duplicates = fields.get("duplicates").and_then(|node| duplicates(node, findings));
    if let Some(node) = fields.get("on_block") {
        on_block(node, findings, &mut policy);
    }
    if let Some(node) = fields.get("sources") {
        policy.sources = sources(node, findings);
    }
    policy.notify = fields.get("notify").map(|node| notify(node, findings)).unwrap_or_default();
    policy.channels = fields.get("channels").map(|node| channels(node, findings)).unwrap_or_default();
    policy.calendars = fields.get("calendars").map(|node| calendars(node, findings)).unwrap_or_default();
    fields.entry("inhibit");
    fields.not_yet("targets");
    fields.finish();
    policy
}

fn time(node: &Node, findings: &Findings, policy: &mut Policy) {
    let Some(mut fields) = Fields::of(node, "`time`", findings) else { return };
    let zone =
        fields.required("zone", "RK0301", "say in which zone things happen: `zone: { user_attribute: tz, else: country, last: UTC }`");
    if let Some(read) = zone.and_then(|node| zone_policy(node, findings)) {
        policy.zone = read;
    }
    if let Some(mut dst) = fields.get("dst").and_then(|node| Fields::of(node, "`dst`", findings)) {
        dst.read("gap", |node| findings.one_of(node, &[("shift_forward", ())]));
        dst.read("overlap", |node| findings.one_of(node, &[("first", ())]));
        dst.finish();
    }
    if let Some(mut lateness) = fields.get("lateness").and_then(|node| Fields::of(node, "`lateness`", findings)) {
        policy.lateness_start_ms = lateness.read("start", |node| findings.exact_ms(node)).unwrap_or(policy.lateness_start_ms);
        policy.lateness_correct_ms = lateness.read("correct", |node| findings.exact_ms(node)).unwrap_or(policy.lateness_correct_ms);
        lateness.finish();
    }
    if let Some(day) = fields.read("week_start", |node| findings.one_of(node, &WEEKDAYS)) {
        policy.week_start = day;
    }
    fields.finish();
}

fn zone_policy(node: &Node, findings: &Findings) -> Option<ZonePolicy> {
    let mut fields = Fields::of(node, "`zone`", findings)?;
    let user_attribute = fields.read("user_attribute", |node| findings.name(node, "the attribute that names a person's zone"));
    let by_country = fields.read("else", |node| findings.one_of(node, &[("country", true), ("last", false)])).unwrap_or(false);
    let last = fields.required("last", "RK0301", "say which zone holds where none is known: `last: Europe/London`");
    let last = last.and_then(|node| findings.zone(node, "RK0301"));
    fields.finish();
    Some(ZonePolicy { user_attribute, by_country, last: last? })
}

fn consent(node: &Node, findings: &Findings) -> BTreeMap<Category, ConsentBasis> {
    let mut consent = BTreeMap::new();
    let Some(mut fields) = Fields::of(node, "`consent`", findings) else { return consent };
    for category in Category::ALL {
        if let Some(basis) = fields.get(category.name()).and_then(|node| consent_basis(node, findings)) {
            consent.insert(category, basis);
        }
    }
    let lacks_marketing = !fields.has("marketing");
    fields.finish();
    if lacks_marketing {
        let message = "`consent` does not say what must be on record before a marketing message";
        findings.error("RK0401", node, message, "write `marketing: { basis: opt_in }`, or `marketing: always`".to_owned());
    }
    consent
}

fn consent_basis(node: &Node, findings: &Findings) -> Option<ConsentBasis> {
    const BASES: [(&str, &str); 2] = [("opt_in", "opt_in"), ("soft_opt_in", "soft_opt_in")];
    if let Some(text) = node.text() {
        if text == "always" {
            return Some(ConsentBasis::Always);
        }
        let help = "`always`, or `{ basis: opt_in }`".to_owned();
        findings.wrong(node, format!("`{text}` does not say what must be on record"), help);
        return None;
    }
    let mut fields = Fields::of(node, "a consent rule", findings)?;
    let basis = fields.required("basis", "RK0401", "`basis: opt_in`").and_then(|node| findings.one_of(node, &BASES));
    let mut countries = BTreeMap::new();
    for entry in fields.get("countries").and_then(Node::entries).unwrap_or_default() {
        if let Some(basis) = findings.one_of(&entry.value, &BASES) {
            countries.insert(entry.key.text.clone(), Name::from(basis));
        }
    }
    fields.finish();
    Some(ConsentBasis::Recorded { basis: Name::from(basis?), countries })
}

fn categories(node: &Node, findings: &Findings, policy: &mut Policy) {
    let Some(mut fields) = Fields::of(node, "`categories`", findings) else { return };
    let default = fields.required("default", "RK0102", "say what a send is unless it says otherwise: `default: marketing`");
    if let Some(category) = default.and_then(|node| findings.category(node)) {
        policy.default_category = category;
    }
    for category in Category::ALL {
        let Some(mut own) = fields.get(category.name()).and_then(|node| Fields::of(node, "a category", findings)) else { continue };
        if let Some(max_late) = own.read("max_late", |node| max_late(node, findings)) {
            policy.max_late.insert(category, max_late);
        }
        own.finish();
    }
    fields.finish();
}

/// A duration, `end_of_local_day` or `end_of_calendar`.
pub fn max_late(node: &Node, findings: &Findings) -> Option<MaxLate> {
    match node.text() {
        Some("end_of_local_day") => Some(MaxLate::EndOfLocalDay),
        Some("end_of_calendar") => Some(MaxLate::EndOfCalendar),
        Some(text) if text.starts_with("end_") => {
            findings.one_of(node, &[("end_of_local_day", MaxLate::EndOfLocalDay), ("end_of_calendar", MaxLate::EndOfCalendar)])
        }
        _ => findings.span(node).map(MaxLate::Span),
    }
}

fn holdout(node: &Node, findings: &Findings) -> Option<Holdout> {
    let mut fields = Fields::of(node, "`holdout`", findings)?;
    let share = fields.required("share", "RK0503", "`share: 5%`").and_then(|node| findings.percent(node));
    let salt = fields.required("salt", "RK0503", "`salt: everybody-2026`; a new salt draws other people");
    let salt = salt.and_then(|node| findings.name(node, "a text"));
    fields.finish();
    Some(Holdout { share_bp: share?, salt: salt? })
}

fn priority(node: &Node, findings: &Findings, policy: &mut Policy) {
    let Some(mut fields) = Fields::of(node, "`priority`", findings) else { return };
    if let Some(default) = fields.read("default", |node| findings.number(node, 0, 100)).and_then(|n| u8::try_from(n).ok()) {
        policy.default_priority = default;
    }
    policy.one_marketing_send_ms = fields.read("one_marketing_send_per", |node| findings.exact_ms(node));
    fields.finish();
}

// ---------------------------------------------------------------------------------------------------------------------- gates

const ANSWERS: [(&str, OnBlockAnswer); 2] = [("wait", OnBlockAnswer::Wait), ("drop", OnBlockAnswer::Drop)];

fn caps(node: &Node, findings: &Findings) -> Vec<Cap> {
    let mut ids = HashSet::new();
    let items = findings.list(node, "[{ id: day, per: user, max: 2, window: local_day }]");
    let mut caps: Vec<Cap> = Vec::new();
    for item in items {
        let Some(cap) = cap(item, findings) else { continue };
        if !ids.insert(cap.id.clone()) {
            findings.error("RK0110", item.get("id").unwrap_or(item), format!("two caps are called `{}`", cap.id), None);
        }
        if let Some(tighter) = caps.iter().find(|other| never_binds(&cap, other)) {
            let message = format!("cap `{}` can never bind: `{}` allows no more within a longer time", cap.id, tighter.id);
            findings.warning("RK0312", item.get("max").unwrap_or(item), message, None);
        }
        caps.push(cap);
    }
    caps
}

fn never_binds(cap: &Cap, other: &Cap) -> bool {
    let (CapWindow::Rolling(window), CapWindow::Rolling(longer)) = (cap.window, other.window) else { return false };
    let same = cap.channels == other.channels && cap.categories == other.categories && cap.tags == other.tags;
    same && other.max <= cap.max && longer >= window
}

fn cap(node: &Node, findings: &Findings) -> Option<Cap> {
    let mut fields = Fields::of(node, "a cap", findings)?;
    let id = fields.required("id", "RK0102", "`id: day`").and_then(|node| findings.slug(node, 1));
    if let Some(node) = fields.required("per", "RK0102", "`per: user`")
        && let Some(word @ ("all" | "key")) = findings.one_of(node, &["user", "all", "key"].map(|word| (word, word)))
    {
        findings.add(not_yet(node.place.clone(), &format!("per: {word}")));
    }
    for key in ["min_gap", "theme"] {
        fields.not_yet(key);
    }
    let max_node = fields.required("max", "RK0102", "`max: 2`");
    let max = max_node.and_then(|node| findings.number(node, 0, i64::from(u32::MAX)));
    if let (Some(0), Some(node)) = (max, max_node) {
        findings.error("RK0402", node, "a cap of 0 lets nothing pass", "a rule is switched off by `enabled: false`".to_owned());
    }
    let window = fields.required("window", "RK0102", "`window: 7d`, or local_day, local_week, local_month");
    let window = window.and_then(|node| cap_window(node, findings));
    let channels = fields.get("channels").map(|node| findings.channels(node)).unwrap_or_default();
    let categories = fields.get("categories").map(|node| findings.categories(node)).unwrap_or_default();
    let tags = fields.get("tags").map(|node| findings.names(node, "[winback]")).unwrap_or_default();
    let on_block = fields.read("on_block", |node| findings.one_of(node, &ANSWERS));
    fields.finish();
    Some(Cap { id: id?, max: u32::try_from(max?).ok()?, window: window?, channels, categories, tags, on_block })
}

fn cap_window(node: &Node, findings: &Findings) -> Option<CapWindow> {
    let local = [("local_day", CapWindow::LocalDay), ("local_week", CapWindow::LocalWeek), ("local_month", CapWindow::LocalMonth)];
    match node.text() {
        Some(text) if text.starts_with(|c: char| c.is_alphabetic()) => findings.one_of(node, &local),
        _ => findings.exact_ms(node).map(CapWindow::Rolling),
    }
}

fn quiet_hours(node: &Node, findings: &Findings) -> Vec<QuietHours> {
    findings.list_of(node, "[{ from: \"21:00\", to: \"09:00\", zone: user }]", |item| quiet_line(item, findings))
}

fn quiet_line(node: &Node, findings: &Findings) -> Option<QuietHours> {
    let mut fields = Fields::of(node, "a line of quiet hours", findings)?;
    let from = fields.read("from", |node| findings.time(node));
    let to = fields.read("to", |node| findings.time(node));
    let days = fields.get("days").map(|node| findings.weekdays(node)).unwrap_or_default();
    let zone = fields.required("zone", "RK0302", "`zone: user`, or one of all: `zone: Europe/London`");
    let zone = zone.and_then(|node| findings.user_zone(node));
    let countries = fields.get("countries").map(|node| findings.names(node, "[IN]")).unwrap_or_default();
    let channels = fields.get("channels").map(|node| findings.channels(node)).unwrap_or_default();
    let categories = fields.get("categories").map(|node| findings.categories(node)).unwrap_or_default();
    let (has_from, has_to) = (fields.has("from"), fields.has("to"));
    let whole_day = !has_from && !has_to;
    fields.finish();
    if has_from != has_to || (whole_day && days.is_empty()) {
        findings.wrong(node, "quiet hours need `from` and `to`, or `days`", "`{ from: \"21:00\", to: \"09:00\", zone: user }`".to_owned());
        return None;
    }
    let (from, to) = if whole_day { (Time::midnight(), Time::midnight()) } else { (from?, to?) };
    if from == to && (days.is_empty() || days.len() == 7) {
        findings.error(
            "RK0403",
            node,
            "these quiet hours never open",
            "say from when to when: `from: \"21:00\", to: \"09:00\"`".to_owned(),
        );
    }
    Some(QuietHours { from, to, days, zone: zone?, countries, channels, categories })
}

/// Codes and receipts are asked for anew on purpose, so unless it is said these may come twice.
fn duplicates(node: &Node, findings: &Findings) -> Option<Duplicates> {
    let mut fields = Fields::of(node, "`duplicates`", findings)?;
    let within = fields.required("within", "RK0102", "within how long is it the same? `within: 24h`");
    let within_ms = within.and_then(|node| findings.exact_ms(node));
    let categories = fields.get("categories").map(|node| findings.categories(node));
    fields.finish();
    let categories = categories.unwrap_or_else(|| vec![Category::Marketing, Category::Service]);
    Some(Duplicates { within_ms: within_ms?, categories })
}

fn on_block(node: &Node, findings: &Findings, policy: &mut Policy) {
    let Some(mut fields) = Fields::of(node, "`on_block`", findings) else { return };
    let answers = &mut policy.on_block;
    let slots = [
        ("quiet_hours", &mut answers.quiet_hours),
        ("cap", &mut answers.cap),
        ("priority", &mut answers.priority),
        ("budget", &mut answers.budget),
        ("inhibit", &mut answers.inhibit),
    ];
    for (key, slot) in slots {
        if let Some(answer) = fields.read(key, |node| findings.one_of(node, &ANSWERS)) {
            *slot = answer;
        }
    }
    fields.finish();
}

/// The conditions under which messages stop.
pub fn inhibit(section: &Section<'_>, compiler: &Compiler<'_>) -> Vec<Arc<Inhibit>> {
    let findings = compiler.findings;
    let Some(node) = section.get("inhibit").filter(|node| !node.is_null()) else { return Vec::new() };
    findings.list_of(node, "[{ when: tickets_open > 0, categories: [marketing], why: an open complaint }]", |item| {
        let mut fields = Fields::of(item, "an inhibition", findings)?;
        let when = fields.required("when", "RK0102", "`when: tickets_open > 0`").and_then(|node| compiler.condition(node));
        let categories = fields.get("categories").map(|node| findings.categories(node)).unwrap_or_default();
        let why = fields.required("why", "RK0102", "`why: an open complaint comes before an offer`");
        let why = why.and_then(|node| findings.text(node, "a reason"));
        fields.finish();
        Some(Arc::new(Inhibit { when: when?, categories, why: why?.to_owned() }))
    })
}

// -------------------------------------------------------------------------------------------------------------------- sources

fn sources(node: &Node, findings: &Findings) -> Option<SourcePolicy> {
    if node.text() == Some("none") {
        return None;
    }
    let default = SourcePolicy::default();
    if node.text().is_some() {
        let help = "`sources: none` switches the watch off; otherwise `sources: { quiet: { below: 20%, for: 6h } }`".to_owned();
        findings.wrong(node, "`sources` is a mapping or `none`", help);
        return Some(default);
    }
    let Some(mut fields) = Fields::of(node, "`sources`", findings) else { return Some(default) };
    let quiet = fields.get("quiet").and_then(|node| Fields::of(node, "`quiet`", findings));
    fields.finish();
    let Some(mut quiet) = quiet else { return Some(default) };
    quiet.read("of", |node| findings.one_of(node, &[("same_weekday_hours_last_4_weeks", ())]));
    let below = quiet.read("below", |node| findings.percent(node)).and_then(|bp| u8::try_from(bp / 100).ok());
    let for_ms = quiet.read("for", |node| findings.exact_ms(node));
    let min_baseline = quiet.read("min_baseline", |node| findings.number(node, 1, i64::from(u32::MAX))).and_then(|n| u32::try_from(n).ok());
    let holds = quiet.get("holds").map(|node| {
        findings.list_of(node, "[absence, penalty]", |item| findings.one_of(item, &[("absence", "absence"), ("penalty", "penalty")]))
    });
    quiet.finish();
    Some(SourcePolicy {
        below_percent: below.unwrap_or(default.below_percent),
        for_ms: for_ms.unwrap_or(default.for_ms),
        min_baseline: min_baseline.unwrap_or(default.min_baseline),
        holds_absence: holds.as_ref().map_or(default.holds_absence, |holds| holds.contains(&"absence")),
        holds_penalty: holds.as_ref().map_or(default.holds_penalty, |holds| holds.contains(&"penalty")),
    })
}

fn notify(node: &Node, findings: &Findings) -> BTreeMap<Name, String> {
    let mut notify = BTreeMap::new();
    let Some(fields) = Fields::of(node, "`notify`", findings) else { return notify };
    for entry in fields.node.entries().unwrap_or_default() {
        let Some(mut fields) = Fields::of(&entry.value, "an address to notify", findings) else { continue };
        let email = fields.read("email", |node| findings.text(node, "an e-mail address, or `owner`"));
        let webhook = fields.read("webhook", |node| findings.text(node, "a reference like `env:SLACK_URL`"));
        fields.read("kind", |node| findings.text(node, "a text"));
        if fields.has("email") == fields.has("webhook") {
            findings.wrong(&entry.value, "exactly one of `email`, `webhook` says where to", None);
        }
        fields.finish();
        if let Some(address) = email.or(webhook) {
            notify.insert(entry.key.text.clone(), address.to_owned());
        }
    }
    notify
}

fn channels(node: &Node, findings: &Findings) -> BTreeMap<Channel, ChannelPolicy> {
    let mut channels = BTreeMap::new();
    let Some(mut fields) = Fields::of(node, "`channels`", findings) else { return channels };
    for channel in Channel::ALL {
        let Some(mut own) = fields.get(channel.name()).and_then(|node| Fields::of(node, "a channel", findings)) else { continue };
        let provider = own.required("provider", "RK0407", "`provider: recording` writes to files");
        let provider = provider.and_then(|node| Some((findings.name(node, "a provider")?, node)));
        let timeout_ms = own.read("timeout", |node| findings.exact_ms(node));
        let retries = own.read("retries", |node| findings.number(node, 0, 20)).and_then(|retries| u32::try_from(retries).ok());
        let rate = own.read("rate", |node| rate(node, findings));
        let warm_up = own.get("warm_up").and_then(|node| warm_up(node, findings));
        let cost_micros = own.read("cost", |node| cost(node, findings));
        let templates_only = own.read("templates_only", |node| findings.bool(node)).unwrap_or(false);
        let sender_node = if channel == Channel::Email { own.get("sender") } else { None };
        let sender = sender_node.and_then(|node| sender(node, findings));
        own.finish();
        let Some((provider, node)) = provider else { continue };
        if channel == Channel::Email && &*provider != RECORDING && sender_node.is_some() == sender.is_some() {
            check_sender(sender.as_ref(), node, findings);
        }
        let place = node.place.clone();
        let policy = ChannelPolicy { provider, place, timeout_ms, retries, rate, warm_up, templates_only, sender, cost_micros };
        channels.insert(channel, policy);
    }
    fields.finish();
    channels
}

/// `200/s`, `2000/d`.
fn rate(node: &Node, findings: &Findings) -> Option<Rate> {
    let text = findings.text(node, "a rate like `200/s`")?;
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let per_ms = match unit.trim() {
            "s" => SECOND_MS,
            "m" => MINUTE_MS,
            "h" => HOUR_MS,
            "d" => DAY_MS,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| *count > 0)?;
        Some(Rate { count, per_ms })
    });
    if parsed.is_none() {
        findings.wrong(node, format!("`{text}` is no rate"), "write it like `200/s` or `2000/d`".to_owned());
    }
    parsed
}

fn warm_up(node: &Node, findings: &Findings) -> Option<WarmUp> {
    let mut fields = Fields::of(node, "`warm_up`", findings)?;
    let start = fields.required("start", "RK0102", "`start: 2000/d`: what goes out on the first day");
    let start = start.and_then(|node| {
        let rate = rate(node, findings)?;
        if rate.per_ms != DAY_MS {
            findings.wrong(node, "a warm-up is counted by days", format!("write `{}/d`", rate.count));
        }
        Some(rate)
    });
    let grow = fields.required("grow", "RK0102", "`grow: 30%`: how much more each day").and_then(|node| findings.percent(node));
    fields.finish();
    Some(WarmUp { start: start?, grow_bp: u32::from(grow?) })
}

fn sender(node: &Node, findings: &Findings) -> Option<Sender> {
    let mut fields = Fields::of(node, "`sender`", findings)?;
    let from = fields.required("from", "RK0410", "`from: The shop <news@shop.example>`").and_then(|node| mailbox(node, findings));
    let reply_to = fields.read("reply_to", |node| mailbox(node, findings));
    let postal_address = fields.read("postal_address", |node| findings.name(node, "the address where the shop receives letters"));
    let list_id = fields.read("list_id", |node| list_id(node, findings));
    fields.finish();
    Some(Sender { from: from?, reply_to, postal_address, list_id })
}

/// `The shop <news@shop.example>`, or the address alone.
fn mailbox(node: &Node, findings: &Findings) -> Option<Name> {
    let text = findings.text(node, "an e-mail address")?;
    if text.parse::<Mailbox>().is_err() {
        findings.wrong(node, format!("`{text}` is no e-mail address"), "write it like `The shop <news@shop.example>`".to_owned());
        return None;
    }
    Some(Name::from(text))
}

fn list_id(node: &Node, findings: &Findings) -> Option<Name> {
    let text = findings.text(node, "the name of the list")?;
    let is_label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if !text.contains('.') || !text.split('.').all(is_label) {
        findings.wrong(
            node,
            format!("`{text}` is no name of a list"),
            "write it like a name below your domain: `news.shop.example`".to_owned(),
        );
        return None;
    }
    Some(Name::from(text))
}

/// E-mails that reach people must say from whom they come; marketing must say where that is (transactional mail goes the same way, so
/// the address is wanted wherever e-mail really goes out).
fn check_sender(sender: Option<&Sender>, provider: &Node, findings: &Findings) {
    const HELP: &str = "below it: `sender: { from: The shop <news@shop.example>, postal_address: \"1 High Street, London\" }`";
    let Some(sender) = sender else {
        findings.error("RK0410", provider, "e-mails go out, and nothing says from whom", HELP.to_owned());
        return;
    };
    if sender.postal_address.is_none() {
        findings.error("RK0410", provider, "marketing e-mails go out, and nothing says where the shop is to be found", HELP.to_owned());
    }
}

/// `0.012 USD`: messages cost less than a cent, so in millionths of the currency's unit.
fn cost(node: &Node, findings: &Findings) -> Option<(i64, crate::engine::money::Currency)> {
    let text = findings.text(node, "an amount like `0.012 USD`")?;
    let parsed = text.rsplit_once(' ').and_then(|(number, code)| {
        let number: f64 = number.trim().parse().ok()?;
        let micros = (number * 1e6).round();
        (micros.is_finite() && (0.0..1e12).contains(&micros)).then_some((micros as i64, code.parse().ok()?))
    });
    if parsed.is_none() {
        findings.wrong(node, format!("`{text}` is no cost"), "write it like `0.012 USD`".to_owned());
    }
    parsed
}

fn calendars(node: &Node, findings: &Findings) -> BTreeMap<Name, Calendar> {
    let mut calendars = BTreeMap::new();
    let Some(fields) = Fields::of(node, "`calendars`", findings) else { return calendars };
    for entry in fields.node.entries().unwrap_or_default() {
        let Some(mut fields) = Fields::of(&entry.value, "a calendar", findings) else { continue };
        let zone = fields.required("zone", "RK0302", "`zone: Asia/Kolkata`").and_then(|node| findings.zone(node, "RK0302"));
        let days = fields.required("days", "RK0102", "`days: [2026-11-06..2026-11-10]`");
        let ranges = days.map(|node| findings.list_of(node, "[2026-11-06..2026-11-10]", |item| date_range(item, findings)));
        fields.finish();
        let (Some(zone), Some(mut ranges)) = (zone, ranges) else { continue };
        ranges.sort_unstable();
        for (before, after) in ranges.iter().zip(ranges.iter().skip(1)) {
            if after.0 <= before.1 {
                let message = format!("the ranges that begin on {} and {} of `{}` overlap", before.0, after.0, entry.key.text);
                findings.add(Diagnostic::error("RK0102", entry.key_place.clone(), message).len(entry.key.text.chars().count()));
            }
        }
        calendars.insert(entry.key.text.clone(), Calendar { zone, ranges });
    }
    calendars
}

fn date_range(node: &Node, findings: &Findings) -> Option<(Date, Date)> {
    let text = findings.text(node, "a date, or a range like `2026-11-06..2026-11-10`")?;
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let range = (findings.date(node, from)?, findings.date(node, to)?);
    if range.1 < range.0 {
        findings.wrong(node, "the range ends before it begins", None);
        return None;
    }
    Some(range)
}
