//! A report as one page: what changes first, the days as charts, what the gates stopped, what is at stake, and people as examples.

use std::fmt::{self, Write as _};

use super::Outcome;
use crate::cli::page::{Escaped, LEFT, WIDTH, bars, framed};
use crate::simulate::compare::{BeforeAfter, Change, Comparison, Example, Kind};
use crate::simulate::figures::{Day, Figures, Stake};

/// So many overlapping pairs are shown.
const OVERLAPS_SHOWN: usize = 20;

/// The page.
pub fn render(title: &str, outcome: &Outcome) -> String {
    let mut content = String::new();
    write_page(&mut content, title, outcome).expect("writing to memory cannot fail");
    framed(title, &content)
}

fn write_page(out: &mut String, title: &str, outcome: &Outcome) -> fmt::Result {
    let Outcome { report, figures, .. } = outcome;
    write!(out, "<header><h1>{}</h1><p class=soft>{} events of {} people", Escaped(title), report.events, report.profiles)?;
    write!(out, " until {}. {}</p>", Escaped(&report.until), Escaped(report.caveat))?;
    for note in report.notes.iter().chain(&report.faults).chain(&outcome.passed_limits) {
        write!(out, "<p><b>Note</b>: {}</p>", Escaped(note))?;
    }
    let entered: u64 = report.rules.values().map(|rule| rule.entered).sum();
    let held: u64 = figures.gates.values().map(|gate| gate.held).sum();
    let tiles = [
        (entered, "entries into rules"),
        (figures.sends(), "messages"),
        (held, "times “not now, until”"),
        (report.evaluations, "evaluations"),
    ];
    out.push_str("<ul class=figures>");
    for (count, what) in tiles {
        write!(out, "<li><b>{count}</b><span>{what}</span></li>")?;
    }
    out.push_str("</ul></header>\n");
    difference(out, outcome)?;
    if let Some(comparison) = &outcome.comparison {
        changes(out, comparison)?;
    }
    days(out, figures)?;
    rules(out, outcome)?;
    gates(out, figures)?;
    stakes(out, figures)?;
    overlaps(out, figures)?;
    if let Some(comparison) = &outcome.comparison {
        examples(out, &comparison.examples)?;
    }
    Ok(())
}

fn difference(out: &mut String, outcome: &Outcome) -> fmt::Result {
    let Some(difference) = &outcome.difference else { return Ok(()) };
    out.push_str("<section><h2>What differs in the rules</h2>");
    if difference.is_empty() {
        return out.write_str("<p>Nothing: the rules mean the same.</p></section>\n");
    }
    out.push_str("<div class=card><table><tr><th>key<th class=left>before<th class=left>after");
    for change in &difference.changes {
        let shown = |text: &Option<String>| text.as_ref().map_or_else(|| "–".to_owned(), |text| format!("<code>{}</code>", Escaped(text)));
        write!(out, "<tr><td>{}<td class=left>{}<td class=left>{}", Escaped(&change.key), shown(&change.before), shown(&change.after))?;
    }
    out.write_str("</table></div></section>\n")
}

fn changes(out: &mut String, comparison: &Comparison) -> fmt::Result {
    out.push_str("<section><h2>Who it changes something for</h2><p class=soft>People to whom something happens with one of the two and not with the other, or not the same.</p>");
    out.push_str("<div class=card><table><tr><th>rule<th>gained<th>lost<th>changed<th>the same<th>entered<th>sent");
    let programme = |rule: &str| if rule.is_empty() { "(programme)".to_owned() } else { rule.to_owned() };
    let rows = comparison.rules.iter().map(|(rule, change)| (programme(rule), change));
    for (rule, change) in rows.chain([("whatever rule".to_owned(), &comparison.everything)]) {
        let Change { gained, lost, changed, same, entered, sent, .. } = change;
        let both = |both: &BeforeAfter| format!("{} → {}", both.before, both.after);
        let rule = Escaped(&rule);
        write!(out, "<tr><td>{rule}<td>{gained}<td>{lost}<td>{changed}<td>{same}<td>{}<td>{}", both(entered), both(sent))?;
    }
    out.push_str("</table>");
    for tier in &comparison.tiers {
        write!(out, "<p>Tier {} to {}: {} before, {} after</p>", Escaped(&tier.from), Escaped(&tier.to), tier.before, tier.after)?;
    }
    out.write_str("</div></section>\n")
}

/// Name, colour and value of a row of the chart.
type Lane = (&'static str, &'static str, fn(&Day) -> u64);

fn days(out: &mut String, figures: &Figures) -> fmt::Result {
    let lanes: [Lane; 4] = [
        ("entered", "entered", |day| day.entered),
        ("sent", "sent", |day| day.sent.values().sum()),
        ("held", "held", |day| day.held),
        ("dropped", "silent", |day| day.dropped),
    ];
    let (lane, gap) = (62.0, 20.0);
    let height = lanes.len() as f64 * (lane + gap) + 24.0;
    let dates: Vec<&String> = figures.days.keys().collect();
    out.push_str(
        "<section><h2>Day by day</h2><p class=soft>Each row has its own scale; days without anything are left out.</p><div class=card>",
    );
    write!(out, "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=img aria-label=\"day by day\" style=\"min-width:38rem\">")?;
    for (row, (name, class, of)) in lanes.iter().enumerate() {
        let base = (row as f64 + 1.0) * (lane + gap) - 4.0;
        let values: Vec<u64> = figures.days.values().map(of).collect();
        write!(out, "<text class=name x=0 y=\"{:.0}\">{name}</text>", base - lane / 2.0)?;
        write!(out, "<text x=0 y=\"{:.0}\">up to {}</text>", base - lane / 2.0 + 15.0, values.iter().max().unwrap_or(&0))?;
        let date = |index: usize| dates.get(index).map_or("", |date| date.as_str());
        bars(out, class, &values, base, lane, |index| format!("{}: {} {name}", date(index), values.get(index).unwrap_or(&0)))?;
    }
    for (place, date) in [(LEFT, dates.first()), (WIDTH - 70.0, dates.last())] {
        if let Some(date) = date {
            write!(out, "<text x=\"{place:.0}\" y=\"{:.0}\">{}</text>", height - 6.0, Escaped(date))?;
        }
    }
    out.push_str("</svg></div>");
    for (name, channel) in &figures.channels {
        let ((day, most), (minute, peak)) = (&channel.busiest_day, &channel.busiest_minute);
        write!(
            out,
            "<p><b>{name}</b>: {} to {} people; most on {day}: {most}; peak minute {minute}: {peak}",
            channel.sent, channel.people
        )?;
        if let Some(rate) = &channel.rate {
            write!(out, "; the provider takes {}, too little in {} hours", Escaped(rate), channel.hours_over_rate)?;
        }
        if let Some(cost) = &channel.cost {
            write!(out, "; cost {}", Escaped(cost))?;
        }
        out.push_str("</p>");
    }
    out.write_str("</section>\n")
}

fn rules(out: &mut String, outcome: &Outcome) -> fmt::Result {
    out.push_str("<section><h2>The rules</h2><div class=card><table><tr><th>rule, step<th>entered<th>existing<th>sent<th>acted<th>dropped<th>held<th>waiting<th>skipped");
    for (id, rule) in &outcome.report.rules {
        write!(out, "<tr><td><b>{}</b>", Escaped(id))?;
        if let Some(traits) = outcome.figures.entered_by.get(id) {
            for (kind, values) in traits {
                let values: Vec<String> = values.iter().map(|(value, count)| format!("{value} {count}")).collect();
                write!(out, "<small>{kind}: {}</small>", Escaped(&values.join(", ")))?;
            }
        }
        write!(out, "<td>{}<td>{}<td><td><td><td><td><td>", rule.entered, rule.existing)?;
        for (step, s) in &rule.steps {
            write!(out, "<tr><td>&emsp;{}<td><td>", Escaped(step))?;
            for number in [s.sent, s.acted, s.dropped, s.held, s.blocked, s.skipped] {
                write!(out, "<td>{number}")?;
            }
        }
    }
    out.write_str("</table></div></section>\n")
}

fn gates(out: &mut String, figures: &Figures) -> fmt::Result {
    out.push_str(
        "<section><h2>What was stopped, and by what</h2><div class=card><table><tr><th>because of<th>held<th>dropped<th>skipped<th>people",
    );
    for (gate, g) in &figures.gates {
        write!(out, "<tr><td>{}<td>{}<td>{}<td>{}<td>{}", Escaped(gate), g.held, g.dropped, g.skipped, g.people)?;
    }
    out.write_str("</table></div></section>\n")
}

fn stakes(out: &mut String, figures: &Figures) -> fmt::Result {
    if figures.stakes.is_empty() {
        return Ok(());
    }
    out.push_str("<section><h2>At stake</h2><div class=card><table><tr><th>what<th>people<th>sum<th>half at most<th>95 % at most<th>most");
    for stake in &figures.stakes {
        let Stake { what, people, sum, median, p95, most, .. } = stake;
        write!(out, "<tr><td>{}<td>{people}", Escaped(what))?;
        for amount in [sum, median, p95, most] {
            write!(out, "<td>{}", Escaped(&stake.amount(*amount)))?;
        }
    }
    out.write_str("</table></div></section>\n")
}

fn overlaps(out: &mut String, figures: &Figures) -> fmt::Result {
    if figures.overlaps.is_empty() {
        return Ok(());
    }
    out.push_str("<section><h2>Two rules, one person, within 24 hours</h2><div class=card><table><tr><th>rules<th>people");
    for overlap in figures.overlaps.iter().take(OVERLAPS_SHOWN) {
        write!(out, "<tr><td>{} and {}<td>{}", Escaped(&overlap.rules.0), Escaped(&overlap.rules.1), overlap.people)?;
    }
    out.write_str("</table></div></section>\n")
}

fn examples(out: &mut String, examples: &[Example]) -> fmt::Result {
    if examples.is_empty() {
        return Ok(());
    }
    out.push_str("<section><h2>People as examples</h2>");
    for example in examples {
        let kind = match example.kind {
            Kind::Gained => "gains",
            Kind::Lost => "loses",
            Kind::Changed => "changes",
        };
        write!(
            out,
            "<div class=card><h3>{} {kind}</h3><table><tr><th>when<th class=left>before<th class=left>after",
            Escaped(&example.user)
        )?;
        let sides = [(&example.before, true), (&example.after, false)];
        let mut lines: Vec<_> = sides.into_iter().flat_map(|(lines, before)| lines.iter().map(move |line| (line, before))).collect();
        lines.sort_by(|a, b| a.0.at.is_empty().cmp(&b.0.at.is_empty()).then_with(|| a.0.at.cmp(&b.0.at)));
        for (line, before) in lines {
            let said = format!("{} {}: {}", line.rule, line.step, line.what);
            let (left, right) = if before { (said.as_str(), "") } else { ("", said.as_str()) };
            write!(out, "<tr><td>{}<td class=left>{}<td class=left>{}", Escaped(&line.at), Escaped(left), Escaped(right))?;
        }
        out.push_str("</table></div>");
    }
    out.write_str("</section>\n")
}
