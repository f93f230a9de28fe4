//! The story as one self-contained page: the year by week, what each gate held, points and tiers, and one customer's life with the
//! mails as they were rendered. No scripts, nothing from elsewhere (the page's own policy forbids it), and everything escaped.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Deserialize;

use super::summary::{RuleYear, Summary, date, duration, number, span};
use super::tally::Week;
use crate::cli::page::{Escaped, LEFT, WIDTH, bars, framed};
use crate::engine::action::{MessageId, MessageState, Outcome, PostingKind, What};
use crate::engine::event::{Event, EventKind};
use crate::engine::profile::Name;
use crate::engine::rule::RuleSet;
use crate::engine::time::{DAY_MS, Timestamp, Zone};
use crate::store::{EntryRow, History, MessageRow};

/// The customer whose year is told.
pub struct Story {
    pub key: Name,
    pub country: String,
    pub zone: Zone,
    pub history: History,
    /// What the recording channel wrote, by message.
    pub contents: BTreeMap<MessageId, Recorded>,
}

impl Story {
    /// The rule to ask about: one that took something or, failing that, the one that wrote last.
    pub fn rule_to_explain(&self, rules: &RuleSet) -> Option<Name> {
        let taken = self.history.postings.iter().find_map(|posting| posting.rule.clone());
        let wrote = || self.history.messages.last().map(|row| row.message.rule.clone());
        taken.or_else(wrote).or_else(|| rules.rules.first().map(|rule| rule.id.clone()))
    }
}

/// A recorded message, as far as a reader wants to see it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Recorded {
    pub id: String,
    pub user: String,
    #[serde(default)]
    pub to: String,
    pub subject: Option<String>,
    pub text: Option<String>,
    pub html: Option<String>,
    pub push_title: Option<String>,
    pub push_body: Option<String>,
    pub sms: Option<String>,
    pub whatsapp: Option<String>,
}

/// The page.
pub fn render(summary: &Summary, story: Option<&Story>) -> String {
    let mut content = String::new();
    write_page(&mut content, summary, story).expect("writing to memory cannot fail");
    framed("a shop's year", &content)
}

fn write_page(out: &mut String, summary: &Summary, story: Option<&Story>) -> fmt::Result {
    header(out, summary)?;
    weeks(out, summary)?;
    gates(out, summary)?;
    points_and_tiers(out, summary)?;
    rules(out, &summary.rules)?;
    if let Some(story) = story {
        life(out, story)?;
    }
    footer(out, summary)
}

// ------------------------------------------------------------------------------------------------------------ the head

fn header(out: &mut String, summary: &Summary) -> fmt::Result {
    let day = |at: Option<Timestamp>| at.map_or_else(|| "?".to_owned(), date);
    let (from, until) = (day(summary.input.from), day(summary.input.until));
    writeln!(out, "<header><h1>A shop's year, and what the rules made of it</h1>")?;
    writeln!(out, "<p class=soft>{}. {from} to {until}, replayed under a virtual clock.", Escaped(&summary.input.name))?;
    writeln!(out, "Every message was written to files and every answer of a provider is <b>simulated</b>: nothing left this machine.</p>")?;
    let sum = |of: fn(&Week) -> u64| summary.weeks.iter().map(|(_, week)| of(week)).sum::<u64>();
    let points = |kind: PostingKind| {
        summary.postings.iter().filter(|((k, _), _)| *k == kind).map(|(_, (_, points))| points.unsigned_abs()).sum::<u64>()
    };
    let figures = [
        (summary.profiles, "customers"),
        (sum(|w| w.fell_silent), "times somebody fell silent for 30 days"),
        (sum(|w| w.sent), "messages sent (simulated)"),
        (sum(|w| w.held), "times “not now, until”"),
        (sum(|w| w.returned), "returns after 30 days or more"),
        (points(PostingKind::Take), "points deducted, after a delivered notice"),
        (points(PostingKind::Restore), "points given back on return"),
    ];
    out.push_str("<ul class=figures>");
    for (count, what) in figures {
        write!(out, "<li><b>{}</b><span>{what}</span></li>", number(count))?;
    }
    out.push_str("</ul></header>\n");
    Ok(())
}

// ----------------------------------------------------------------------------------------------------- the year by week

type Series = (&'static str, &'static str, fn(&Week) -> u64);

fn weeks(out: &mut String, summary: &Summary) -> fmt::Result {
    let lanes: [Series; 5] = [
        ("fell silent", "silent", |w| w.fell_silent),
        ("entered", "entered", |w| w.entered),
        ("sent", "sent", |w| w.sent),
        ("held", "held", |w| w.held),
        ("returned", "returned", |w| w.returned),
    ];
    let (lane, gap) = (62.0, 20.0);
    let height = lanes.len() as f64 * (lane + gap) + 30.0;
    let count = summary.weeks.len().max(1) as f64;
    let step = (WIDTH - LEFT - 8.0) / count;
    out.push_str("<section><h2>The year by week</h2><p class=soft>Customers who reached 30 days without an order; runs of rules that began; messages that went out; steps that were told “not now, until”; customers who ordered again after 30 days or more. Each row has its own scale.");
    if !summary.quiet.is_empty() {
        out.push_str(" Shaded: the shop sold nothing where it usually does (holidays), so nobody's silence counted.");
    }
    write!(
        out,
        "</p><div class=card><svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=img aria-label=\"the year by week\" style=\"min-width:38rem\">"
    )?;
    shade_quiet(out, summary, step, height)?;
    for (row, (name, class, of)) in lanes.iter().enumerate() {
        let base = (row as f64 + 1.0) * (lane + gap) - 4.0;
        let values: Vec<u64> = summary.weeks.iter().map(|(_, week)| of(week)).collect();
        let most = values.iter().copied().max().unwrap_or(0).max(1);
        write!(out, "<text class=name x=0 y=\"{:.0}\">{name}</text>", base - lane / 2.0)?;
        write!(out, "<text x=0 y=\"{:.0}\">up to {}</text>", base - lane / 2.0 + 15.0, number(most))?;
        let monday = |index: usize| summary.weeks.get(index).map_or("", |(monday, _)| monday.as_str());
        let said = |index: usize| format!("week of {}: {} {name}", monday(index), number(values.get(index).copied().unwrap_or(0)));
        bars(out, class, &values, base, lane, said)?;
    }
    months(out, summary, step, height)?;
    out.push_str("</svg></div></section>\n");
    Ok(())
}

/// Where an instant lies in the chart of weeks.
fn week_x(summary: &Summary, at: Timestamp, step: f64) -> f64 {
    let first = summary.weeks.first().and_then(|(monday, _)| monday.parse().ok());
    let start = first.map_or(Timestamp::default(), |monday| Zone::UTC.start_of_day(monday));
    let weeks = at.ms_since(start) as f64 / (7 * DAY_MS) as f64;
    (LEFT + weeks * step).clamp(LEFT, WIDTH - 8.0)
}

fn shade_quiet(out: &mut String, summary: &Summary, step: f64, height: f64) -> fmt::Result {
    for (from, until) in &summary.quiet {
        let (a, b) = (week_x(summary, *from, step), week_x(summary, *until, step));
        let (wide, high) = ((b - a).max(2.0), height - 26.0);
        write!(
            out,
            "<rect class=quiet x=\"{a:.1}\" y=0 width=\"{wide:.1}\" height=\"{high:.0}\"><title>quiet {}</title></rect>",
            span(*from, *until)
        )?;
    }
    Ok(())
}

fn months(out: &mut String, summary: &Summary, step: f64, height: f64) -> fmt::Result {
    let mut last = None;
    for (index, (monday, _)) in summary.weeks.iter().enumerate() {
        let Ok(monday) = monday.parse::<jiff::civil::Date>() else { continue };
        // the month of the week's Thursday, as calendars count weeks
        let date = monday.checked_add(jiff::Span::new().days(3)).unwrap_or(monday);
        if last != Some((date.year(), date.month())) {
            let form = if last.is_none_or(|(year, _)| year != date.year()) { "%b %Y" } else { "%b" };
            write!(out, "<text x=\"{:.1}\" y=\"{:.0}\">{}</text>", LEFT + index as f64 * step, height - 6.0, date.strftime(form))?;
            last = Some((date.year(), date.month()));
        }
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------- gates

fn gates(out: &mut String, summary: &Summary) -> fmt::Result {
    out.push_str("<section><h2>What the gates held</h2><p class=soft>Nothing is delayed anywhere else: each gate lets pass, drops, or answers “not now, until”. Counted are steps of runs; a run in the holdout skips each of its own. How long is what it came to, not what was announced.</p><div class=card><table>");
    out.push_str("<tr><th>gate<th>steps held<th>half of them longer than<th>at most<th>still held<th>steps ended unsent<th>steps skipped");
    let most = summary.gates.iter().map(|(_, gate)| gate.held).max().unwrap_or(1).max(1);
    for (name, gate) in &summary.gates {
        let time = |ms: Option<i64>| ms.map_or_else(|| "–".to_owned(), duration);
        let wide = gate.held as f64 / most as f64 * 100.0;
        write!(out, "<tr><td><b>{}</b>", Escaped(name))?;
        if gate.held > 0 {
            write!(
                out,
                "<svg viewBox=\"0 0 100 4\" preserveAspectRatio=none style=\"height:5px;max-width:12rem\"><rect class=held width=\"{wide:.1}\" height=4 rx=1 /></svg>"
            )?;
        }
        if let Some(example) = gate.example.as_ref().filter(|example| !example.is_empty()) {
            write!(out, "<small>for example: {}</small>", Escaped(example))?;
        }
        let columns = [
            number(gate.held),
            time(gate.median_ms()),
            time(gate.longest_ms()),
            number(gate.waiting),
            number(gate.dropped),
            number(gate.skipped),
        ];
        columns.iter().try_for_each(|column| write!(out, "<td>{column}"))?;
    }
    out.push_str("</table></div></section>\n");
    Ok(())
}

// ----------------------------------------------------------------------------------------------------- points and tiers

fn points_and_tiers(out: &mut String, summary: &Summary) -> fmt::Result {
    out.push_str("<section><h2>Points and tiers</h2>");
    if !summary.postings.is_empty() {
        out.push_str("<p class=soft>The ledger is append-only; a balance is its sum. A deduction comes only after a delivered notice and the grace, and goes back to the same lots when the customer returns.</p><div class=card><table><tr><th>posting<th class=left>class<th>postings<th>points");
        for ((kind, class), (count, points)) in &summary.postings {
            let what = match kind {
                PostingKind::Grant => "granted",
                PostingKind::Expire => "expired",
                PostingKind::Lapse => "lapsed by inactivity",
                PostingKind::Take => "deducted",
                PostingKind::Restore => "restored",
                PostingKind::Reverse => "taken back with a refund",
                PostingKind::Spend => "spent",
            };
            let sign = if *points < 0 { "−" } else { "+" };
            write!(
                out,
                "<tr><td>{what}<td class=left>{}<td>{}<td>{sign}{}",
                Escaped(class),
                number(*count),
                number(points.unsigned_abs())
            )?;
        }
        out.push_str("</table></div>");
    }
    tiers(out, summary)?;
    out.push_str("</section>\n");
    Ok(())
}

fn tiers(out: &mut String, summary: &Summary) -> fmt::Result {
    if summary.tiers.is_empty() {
        return Ok(());
    }
    let (row, height) = (34.0, summary.tiers.len() as f64 * 34.0);
    let most: u64 = summary.tiers.iter().map(|(_, levels)| levels.values().sum()).max().unwrap_or(1);
    let names: Vec<&Name> = summary.tier_names.iter().collect();
    write!(
        out,
        "<h3>Customers by tier</h3><div class=card><svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"customers by tier\" style=\"min-width:34rem\">"
    )?;
    for (index, (at, levels)) in summary.tiers.iter().enumerate() {
        let y = index as f64 * row;
        write!(out, "<text x=0 y=\"{:.0}\">{}</text>", y + 19.0, date(*at))?;
        let mut x = LEFT;
        for (place, name) in names.iter().enumerate() {
            let customers = levels.get(*name).copied().unwrap_or(0);
            let wide = customers as f64 / most.max(1) as f64 * (WIDTH - LEFT - 8.0);
            if customers > 0 {
                write!(
                    out,
                    "<rect class=t{} x=\"{x:.1}\" y=\"{:.0}\" width=\"{:.1}\" height=20 rx=2><title>{}: {}</title></rect>",
                    place % 6,
                    y + 5.0,
                    (wide - 1.5).max(0.5),
                    Escaped(name),
                    number(customers)
                )?;
            }
            if wide > 40.0 {
                write!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.0}\" style=\"fill:#fff;font-weight:600\">{}</text>",
                    x + 6.0,
                    y + 19.0,
                    number(customers)
                )?;
            }
            x += wide;
        }
    }
    out.push_str("</svg><div class=key>");
    for (place, name) in names.iter().enumerate() {
        write!(
            out,
            "<span><svg viewBox=\"0 0 10 10\" style=\"display:inline;width:.7rem;vertical-align:-.05rem\"><rect class=t{} width=10 height=10 rx=2 /></svg> {}</span>",
            place % 6,
            Escaped(name)
        )?;
    }
    out.push_str("</div></div>");
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------- rules

fn rules(out: &mut String, rules: &BTreeMap<Name, RuleYear>) -> fmt::Result {
    out.push_str("<section><h2>The rules</h2><div class=card><table><tr><th>rule<th>entered<th>running<th>done<th>left<th>stopped<th>expired<th>existing<th>held out<th>sent<th>other acts");
    for (id, rule) in rules {
        let ended = |name: &str| rule.ended.get(name).copied().unwrap_or(0);
        write!(out, "<tr><td><b>{}</b><small>{}</small>", Escaped(id), Escaped(&rule.name))?;
        let stopped = ended("stopped") + ended("superseded") + ended("disabled");
        let columns = [
            rule.entered,
            rule.running,
            ended("done"),
            ended("left"),
            stopped,
            ended("expired"),
            rule.existing,
            rule.held_out,
            rule.sent,
            rule.acted,
        ];
        columns.iter().try_for_each(|count| write!(out, "<td>{}", number(*count)))?;
    }
    out.push_str("</table></div></section>\n");
    Ok(())
}

// ------------------------------------------------------------------------------------------------------ one customer's life

/// One moment of a life.
struct Moment {
    at: Timestamp,
    class: &'static str,
    /// What stands in bold; plain text.
    what: String,
    /// Why, and until when; plain text.
    because: String,
    /// HTML, made here.
    below: String,
}

impl Moment {
    fn new(at: Timestamp, class: &'static str, what: impl Into<String>, because: impl Into<String>) -> Self {
        Moment { at, class, what: what.into(), because: because.into(), below: String::new() }
    }
}

fn life(out: &mut String, story: &Story) -> fmt::Result {
    let moments = moments(story);
    write!(out, "<section><h2>One customer's year: {}</h2>", Escaped(&story.key))?;
    write!(
        out,
        "<p class=soft>{}, times in {}. {} Everything that was done and not done, with its reason.</p>",
        Escaped(&story.country),
        Escaped(story.zone.name()),
        Escaped(&chosen_because(story))
    )?;
    strip(out, &moments)?;
    out.push_str("<ol class=life>");
    for moment in &moments {
        let when = moment.at.local(&story.zone).strftime("%a %-d %b %Y, %H:%M");
        write!(out, "<li class={}><time datetime=\"{}\">{when}</time><b>{}</b>", moment.class, moment.at, Escaped(&moment.what))?;
        if !moment.because.is_empty() {
            write!(out, "<div class=because>{}</div>", Escaped(&moment.because))?;
        }
        write!(out, "{}</li>", moment.below)?;
    }
    out.push_str("</ol></section>\n");
    not_now(out, story)
}

/// What of the story this year has to tell, in the order in which it is told. Nothing is claimed that is not on record.
fn chosen_because(story: &Story) -> String {
    let posted = |kind| story.history.postings.iter().any(|posting| posting.kind == kind);
    let sent = |message: &MessageRow| message.state == MessageState::Accepted || message.state == MessageState::Delivered;
    let orders: Vec<Timestamp> = (story.history.events.iter())
        .filter(|(event, _)| event.kind == EventKind::Track && event.name.contains("Completed"))
        .map(|(event, _)| event.occurred_at)
        .collect();
    let returned = orders.windows(2).any(|pair| matches!(pair, [a, b] if b.ms_since(*a) > 30 * DAY_MS));
    let parts = [
        (returned, "fell silent and came back"),
        (story.history.messages.iter().any(sent), "was written to"),
        (story.history.entries.iter().any(|row| row.entry.what == What::Held), "had to wait for something"),
        (posted(PostingKind::Lapse), "let points lapse"),
        (posted(PostingKind::Take), "lost points after a notice"),
        (posted(PostingKind::Restore), "got points back"),
    ];
    let told: Vec<&str> = parts.into_iter().filter(|(is_so, _)| *is_so).map(|(_, part)| part).collect();
    match told.split_last() {
        None => "Chosen as the first of all: nobody's year tells more.".to_owned(),
        Some((only, [])) => format!("Chosen because this customer {only}."),
        Some((last, before)) => format!("Chosen because this customer {} and {last}.", before.join(", ")),
    }
}

/// The year as one line: orders above, what we did below.
fn strip(out: &mut String, moments: &[Moment]) -> fmt::Result {
    let (Some(first), Some(last)) = (moments.first(), moments.last()) else { return Ok(()) };
    let whole = last.at.ms_since(first.at).max(DAY_MS) as f64;
    let x = |at: Timestamp| 10.0 + at.ms_since(first.at) as f64 / whole * (WIDTH - 20.0);
    write!(
        out,
        "<div class=card><svg viewBox=\"0 0 {WIDTH} 74\" role=img aria-label=\"the customer's year\" style=\"min-width:34rem\"><line class=axis x1=0 x2={WIDTH} y1=36 y2=36 />"
    )?;
    for moment in moments {
        let (class, y, r) = match moment.class {
            "order" => ("returned", 24.0, 6.0),
            "silence" => ("silent", 36.0, 5.0),
            "message" => ("sent", 48.0, 5.0),
            "points" => ("t5", 60.0, 4.5),
            "hold" => ("held", 48.0, 3.0),
            "tier" => ("t1", 60.0, 4.5),
            _ => continue,
        };
        write!(
            out,
            "<circle class={class} cx=\"{:.1}\" cy={y} r={r}><title>{}: {}</title></circle>",
            x(moment.at),
            date(moment.at),
            Escaped(&moment.what)
        )?;
    }
    write!(out, "<text x=0 y=12>{}</text><text x={WIDTH} y=12 text-anchor=end>{}</text></svg>", date(first.at), date(last.at))?;
    out.push_str("<div class=key><span><i style=\"background:var(--green)\"></i>order</span><span><i style=\"background:var(--grey)\"></i>30 days silent</span><span><i style=\"background:var(--ember)\"></i>message</span><span><i style=\"background:var(--gold)\"></i>not now</span><span><i style=\"background:var(--rose)\"></i>points</span><span><i style=\"background:var(--blue)\"></i>tier</span></div></div>");
    Ok(())
}

fn moments(story: &Story) -> Vec<Moment> {
    let mut moments: Vec<Moment> = Vec::new();
    let mut last_order: Option<Timestamp> = None;
    for (event, _) in &story.history.events {
        if event.kind == EventKind::Track && event.name.contains("Completed") {
            if let Some(silent) = last_order.map(|at| at.plus_ms(30 * DAY_MS)).filter(|at| *at < event.occurred_at) {
                moments.push(Moment::new(silent, "silence", "30 days without an order", ""));
            }
            last_order = Some(event.occurred_at);
        }
        moments.extend(of_event(event));
    }
    let end = story.history.entries.iter().map(|row| row.entry.at).max();
    if let Some(silent) = last_order.map(|at| at.plus_ms(30 * DAY_MS)).filter(|at| end.is_some_and(|end| *at <= end)) {
        moments.push(Moment::new(silent, "silence", "30 days without an order", ""));
    }
    moments.extend(story.history.entries.iter().filter_map(|row| of_entry(row, &story.zone)));
    moments.extend(story.history.messages.iter().filter_map(|message| of_message(message, story)));
    moments.sort_by_key(|moment| (moment.at, rank(moment.class)));
    moments
}

/// Within an instant: what happened before what came of it.
fn rank(class: &str) -> usize {
    ["silence", "order", "tier", "rule", "hold", "points", "message"].iter().position(|known| *known == class).unwrap_or(usize::MAX)
}

fn of_event(event: &Event) -> Option<Moment> {
    let property =
        |name: &str| event.property(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default();
    let at = event.occurred_at;
    Some(match (event.kind, &*event.name) {
        (EventKind::Track, name) => {
            let class = if name.contains("Completed") { "order" } else { "rule" };
            let amount =
                if event.property("total").is_some() { format!("{} {}", property("total"), property("currency")) } else { String::new() };
            Moment::new(at, class, format!("{name} {amount}").trim(), "")
        }
        (EventKind::Engine, "tier_changed") => {
            Moment::new(at, "tier", format!("tier: {} to {}", property("from"), property("to")), property("because"))
        }
        (EventKind::Engine, "tier_at_risk") => {
            Moment::new(at, "tier", format!("tier {} at risk", property("tier")), format!("review {}", property("review_at")))
        }
        (EventKind::Engine, "points_taken") => {
            Moment::new(at, "points", format!("{} points deducted", property("points")), property("reason"))
        }
        (EventKind::Engine, "points_restored") => {
            Moment::new(at, "points", format!("{} points given back", property("points")), property("reason"))
        }
        (EventKind::Engine, "coupon_issued" | "benefit_granted") => {
            let what = ["coupon", "benefit", "key", "code"]
                .map(property)
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join(" ");
            Moment::new(at, "points", format!("{} {what}", event.name.replace('_', " ")), "")
        }
        _ => return None,
    })
}

fn of_entry(row: &EntryRow, zone: &Zone) -> Option<Moment> {
    let entry = &row.entry;
    let place = if entry.step.is_empty() { entry.rule.to_string() } else { format!("{} / {}", entry.rule, entry.step) };
    let (class, what) = match entry.what {
        What::Entered => ("rule", format!("{place} begins")),
        What::Ended => ("rule", format!("{place} ends")),
        What::Held => {
            let until = entry.until.map(|until| format!(", until {}", until.local(zone).strftime("%a %-d %b, %H:%M"))).unwrap_or_default();
            ("hold", format!("{place}: not now{until}"))
        }
        What::Dropped => ("hold", format!("{place}: not sent")),
        What::Skipped => ("rule", format!("{place}: skipped")),
        What::Refused | What::Missed => ("rule", format!("{place}: does not begin")),
        What::Existing => ("rule", format!("{place}: left alone, was so before the rule")),
        What::Acted => ("rule", format!("{place}: done")),
        What::Alerted => ("rule", format!("{place}: the shop is told")),
        What::Shadowed => ("rule", format!("{place}: in shadow")),
        What::Quarantined => ("hold", format!("{place}: set aside")),
        // the message itself stands in the list
        What::Queued | What::Result | What::Pending => return None,
    };
    Some(Moment::new(entry.at, class, what, &*entry.because))
}

fn of_message(row: &MessageRow, story: &Story) -> Option<Moment> {
    let message = &row.message;
    let gone = row.attempts.first()?;
    let state = match row.state {
        MessageState::Accepted => "taken by the provider",
        MessageState::Delivered => "delivered",
        MessageState::Bounced => "bounced",
        MessageState::Unknown => "nobody knows whether it arrived",
        MessageState::Failed => "refused",
        other => other.name(),
    };
    let mut moment = Moment::new(
        gone.started_at,
        "message",
        format!("{} by {}: {state} (simulated)", message.template, message.channel),
        format!("{} / {}", message.rule, message.step),
    );
    let heard: Vec<&str> = Outcome::ALL.into_iter().filter(|outcome| row.outcomes & outcome.bit() != 0).map(Outcome::name).collect();
    moment.because = format!("{}; heard of it: {}", moment.because, heard.join(", "));
    if let Some(content) = story.contents.get(&message.id) {
        write_content(&mut moment.below, content).expect("writing to memory cannot fail");
    }
    Some(moment)
}

fn write_content(out: &mut String, content: &Recorded) -> fmt::Result {
    out.push_str("<details><summary>Read the message</summary><div class=mail>");
    if let Some(subject) = content.subject.as_deref().or(content.push_title.as_deref()) {
        write!(out, "<dl><dt>To<dd>{}<dt>Subject<dd>{}</dl>", Escaped(&content.to), Escaped(subject))?;
    }
    let text = [&content.push_body, &content.sms, &content.whatsapp, &content.text].into_iter().find_map(Option::as_deref);
    match (&content.html, text) {
        // srcdoc inherits the page's policy; the empty sandbox forbids scripts, forms and navigation
        (Some(html), _) => {
            write!(out, "<iframe sandbox title=\"the mail as rendered\" loading=lazy srcdoc=\"{}\"></iframe>", Escaped(html))?
        }
        (None, Some(text)) => write!(out, "<pre>{}</pre>", Escaped(text))?,
        (None, None) => {}
    }
    out.push_str("</div></details>");
    Ok(())
}

/// Every "not now, until" of this customer, and what became of it.
fn not_now(out: &mut String, story: &Story) -> fmt::Result {
    let held: Vec<&EntryRow> = story.history.entries.iter().filter(|row| row.entry.what == What::Held).collect();
    if held.is_empty() {
        return Ok(());
    }
    let time = |at: Timestamp| at.local(&story.zone).strftime("%-d %b %Y, %H:%M").to_string();
    out.push_str("<section><h3>Every “not now, until” of this customer</h3><div class=card><table><tr><th>asked<th class=left>rule / step<th class=left>not now, because<th class=left>until");
    for row in held {
        let entry = &row.entry;
        let until = entry.until.filter(|until| !until.is_forever()).map_or_else(|| "an event".to_owned(), time);
        write!(
            out,
            "<tr><td>{}<td class=left>{} / {}<td class=left>{}<td class=left>{until}",
            time(entry.at),
            Escaped(&entry.rule),
            Escaped(&entry.step),
            Escaped(&entry.because)
        )?;
    }
    out.push_str("</table></div></section>\n");
    Ok(())
}

// ------------------------------------------------------------------------------------------------------------- the foot

fn footer(out: &mut String, summary: &Summary) -> fmt::Result {
    out.push_str("<footer><p>Assumed, because the data does not say it (config/demo.yaml):</p><ul>");
    summary.input.assumptions.iter().try_for_each(|line| write!(out, "<li>{}", Escaped(line)))?;
    write!(out, "</ul><p>{} evaluations of one customer at one instant", number(summary.effort.evaluations))?;
    if summary.effort.resumed {
        out.push_str(" since the replay went on after an interruption");
    }
    write!(
        out,
        "; a scan of everybody once a day would have made {}. People do not react in a replay, so nothing here says that a message made somebody return: only a holdout can.</p></footer>",
        number(summary.daily_scan)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let mut out = String::new();
        let content = Recorded { subject: Some("<b>\"x\"".into()), html: Some("<p title=\"a\">'&'</p>".into()), ..Recorded::default() };
        write_content(&mut out, &content).expect("memory");
        assert!(out.contains("&lt;b&gt;&quot;x&quot;"), "{out}");
        assert!(out.contains("srcdoc=\"&lt;p title=&quot;a&quot;&gt;&#39;&amp;&#39;&lt;/p&gt;\""), "{out}");
    }
}
