//! Everything about one person as text: what the snapshots of stories compare. Stable (no ids that depend on the order of other
//! people, no times of the machine) and made to be read: one thing a line, nothing that is empty.

use std::fmt::{self, Write as _};

use super::{Attempt, History, MessageRow, StoredProfile};
use crate::engine::profile::{Passage, Profile, Run, Series, StepState};
use crate::engine::time::Timestamp;

/// The text, section by section.
pub fn text(stored: &StoredProfile, history: &History) -> String {
    let mut out = String::new();
    // writing to a string cannot fail
    let _always_fits = write(&mut out, stored, history);
    out
}

fn write(out: &mut String, stored: &StoredProfile, history: &History) -> fmt::Result {
    let profile = &stored.profile;
    writeln!(out, "profile {} due {}", profile.key, stored.due_at)?;
    if let Some((at, because)) = &stored.quarantined {
        writeln!(out, "  quarantined {at}: {because}")?;
    }
    person(out, profile)?;
    loyalty(out, profile)?;
    rules(out, profile)?;
    for event in &stored.waiting {
        writeln!(out, "  waits: {} {} ({})", event.occurred_at, event.name, event.id)?;
    }
    section(out, "messages", &history.messages, message)?;
    section(out, "ledger", &history.postings, |out, p| {
        write!(out, "{} #{} {} {:+} {} {}", p.at, p.number, p.kind.name(), p.amount, p.class, p.reason)?;
        p.allocations.iter().try_for_each(|(lot, amount)| write!(out, " lot{lot}:{amount:+}"))
    })?;
    section(out, "exposures", &history.exposures, |out, e| {
        let side = if e.held_out { "held out" } else { "treated" };
        write!(out, "{} {} {}", e.at, run_name(&e.rule, &e.run_key, e.run), side)
    })?;
    section(out, "log", &history.entries, |out, row| {
        let e = &row.entry;
        write!(out, "{} {} {}", e.at, run_name(&e.rule, "", e.run), e.what.name())?;
        if !e.step.is_empty() {
            write!(out, " {}", e.step)?;
        }
        write!(out, ": {}", e.because)?;
        e.until.map_or(Ok(()), |until| write!(out, ", until {until}"))
    })
}

fn section<T>(out: &mut String, name: &str, items: &[T], line: impl Fn(&mut String, &T) -> fmt::Result) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(out, "{name}")?;
    for item in items {
        out.push_str("  ");
        line(out, item)?;
        out.push('\n');
    }
    Ok(())
}

fn run_name(rule: &str, key: &str, number: u32) -> String {
    let key = if key.is_empty() { String::new() } else { format!("[{key}]") };
    if number == 0 { format!("{rule}{key}") } else { format!("{rule}{key}#{number}") }
}

fn person(out: &mut String, profile: &Profile) -> fmt::Result {
    for (name, attribute) in [("country", &profile.country), ("locale", &profile.locale), ("zone", &profile.zone)] {
        if let Some(attribute) = attribute {
            writeln!(out, "  {name} {}", attribute.value)?;
        }
    }
    for (name, attribute) in &profile.attributes {
        writeln!(out, "  attribute {name} = {}", attribute.value)?;
    }
    for ((purpose, channel), consent) in &profile.consents {
        let answer = if consent.granted { "granted" } else { "withdrawn" };
        writeln!(out, "  consent {purpose} {channel} {answer} {} ({})", consent.at, consent.basis)?;
    }
    for (channel, suppressed) in &profile.suppressed {
        writeln!(out, "  suppressed {channel} {} ({})", suppressed.at, suppressed.reason)?;
    }
    if let Some(at) = profile.activity.last_active_at {
        writeln!(out, "  last active {at}")?;
    }
    series(out, "orders", &profile.orders)?;
    series(out, "refunds", &profile.refunds)?;
    profile.features.iter().try_for_each(|(name, feature)| series(out, name, feature))
}

fn series(out: &mut String, name: &str, series: &Series) -> fmt::Result {
    match series.last_at {
        Some(last) => writeln!(out, "  {name}: {} with sum {}, last {last}", series.count_ever(), series.sum_ever()),
        None => Ok(()),
    }
}

fn loyalty(out: &mut String, profile: &Profile) -> fmt::Result {
    for lot in &profile.wallet.lots {
        writeln!(out, "  lot{} {} {}/{} until {} ({})", lot.id, lot.class, lot.left, lot.granted, lot.expires_at, lot.source)?;
    }
    for take in &profile.wallet.takes {
        let amount: i64 = take.allocations.iter().map(|(_, amount)| amount).sum();
        write!(out, "  taken {} {amount} ({}) restorable until {}", take.at, take.reason, take.restore_until)?;
        match take.restored_at {
            Some(at) => writeln!(out, ", restored {at}")?,
            None => writeln!(out)?,
        }
    }
    let tier = &profile.tier;
    if let Some(base) = &tier.base {
        write!(out, "  tier {base}")?;
        let instants = [("since", tier.since), ("review", tier.review_at), ("grace until", tier.grace_until)];
        instants.into_iter().try_for_each(|(name, at)| instant(out, name, at))?;
        writeln!(out)?;
    }
    if let Some(overlay) = &tier.overlay {
        writeln!(out, "  tier {} above it until {} ({})", overlay.tier, overlay.until, overlay.source)?;
    }
    for entitlement in &profile.entitlements {
        writeln!(out, "  entitled {} = {} until {} ({})", entitlement.key, entitlement.value, entitlement.until, entitlement.source)?;
    }
    for coupon in &profile.coupons {
        write!(out, "  coupon {} until {}", coupon.offer, coupon.until)?;
        instant(out, "issued", coupon.issued_at)?;
        instant(out, "redeemed", coupon.redeemed_at)?;
        writeln!(out)?;
    }
    Ok(())
}

fn instant(out: &mut String, name: &str, at: Option<Timestamp>) -> fmt::Result {
    at.map_or(Ok(()), |at| write!(out, ", {name} {at}"))
}

fn rules(out: &mut String, profile: &Profile) -> fmt::Result {
    for (rule, memory) in &profile.rules {
        let passage = match memory.passage {
            Passage::False => "idle".to_owned(),
            Passage::Pending(at) => format!("pending since {at}"),
            Passage::Tried(at) => format!("tried {at}"),
            Passage::Existing(at) => format!("existing since {at}"),
            Passage::Waiting(at) => format!("waiting since {at}"),
        };
        write!(out, "  rule {rule}: {passage}, {} runs", memory.runs)?;
        match (memory.outcome, memory.ended_at) {
            (Some(outcome), Some(at)) => writeln!(out, ", last {} {at}", outcome.name())?,
            _ => writeln!(out)?,
        }
    }
    profile.runs.iter().try_for_each(|r| run(out, r))?;
    for entry in &profile.waiting {
        writeln!(out, "  entry waits: {} since {}", run_name(&entry.rule, &entry.key, 0), entry.occurred_at)?;
    }
    for hold in &profile.holds {
        let step = if hold.step.is_empty() { String::new() } else { format!(" {}", hold.step) };
        let name = run_name(&hold.rule, "", hold.run);
        writeln!(out, "  held {name}{step} by {} since {} until {}: {}", hold.gate, hold.since, hold.until, hold.because)?;
    }
    for slot in &profile.slots {
        let sent = slot.sent_at.map_or_else(|| "pending".to_owned(), |at| format!("sent {at}"));
        writeln!(out, "  slot {} {} {}: {sent}", slot.rule, slot.category.name(), slot.channel)?;
    }
    Ok(())
}

fn run(out: &mut String, run: &Run) -> fmt::Result {
    write!(out, "  run {} started {}", run_name(&run.rule, &run.key, run.number), run.started_at)?;
    if let Some(ended) = run.ended {
        write!(out, ", {}", ended.name())?;
    }
    writeln!(out)?;
    for (index, step) in run.steps.iter().enumerate() {
        write!(out, "    step {}: ", index + 1)?;
        match step {
            StepState::Waiting => writeln!(out, "waiting")?,
            StepState::Acted { at } => writeln!(out, "acted {at}")?,
            StepState::Skipped { at, because } => writeln!(out, "skipped {at}: {because}")?,
            StepState::Ended { at, because } => writeln!(out, "ended {at}: {because}")?,
            StepState::Sent { tries, notice } => {
                for (index, attempt) in tries.iter().enumerate() {
                    let outcome = attempt.outcome.map_or("open", |outcome| outcome.name());
                    let comma = if index > 0 { ", " } else { "" };
                    write!(out, "{comma}{} {outcome} {}", attempt.channel, attempt.at)?;
                }
                match notice {
                    Some(notice) => writeln!(out, ", announced {} from {}", notice.amount, notice.not_before)?,
                    None => writeln!(out)?,
                }
            }
        }
    }
    Ok(())
}

fn message(out: &mut String, row: &MessageRow) -> fmt::Result {
    let m = &row.message;
    let run = run_name(&m.rule, &m.run_key, m.run);
    write!(out, "{} {run} {} {} {} due {}", m.decided_at, m.step, m.channel, m.template, m.due_at)?;
    write!(out, ": {} {}", row.state.name(), row.changed_at)?;
    if let Some(because) = &row.because {
        write!(out, " ({because})")?;
    }
    row.attempts.iter().try_for_each(|attempt| try_line(out, attempt))
}

fn try_line(out: &mut String, attempt: &Attempt) -> fmt::Result {
    write!(out, "\n    try {} {}: {}", attempt.number, attempt.started_at, attempt.outcome.as_deref().unwrap_or("open"))?;
    instant(out, "ended", attempt.ended_at)
}
