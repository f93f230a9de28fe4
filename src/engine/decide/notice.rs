//! No deduction without a delivered notice (I10). The engine announces, waits, checks and checks again; no key of a rule file
//! switches any of it off.

use super::{Look, source_looked_at_again};
use crate::engine::action::{MessageId, Outcome, Posting};
use crate::engine::decide::Context;
use crate::engine::event::Value;
use crate::engine::profile::{Notice, Profile, Run, StepState, Take, Try};
use crate::engine::rule::{Action, Pack, Rule, Step, TakeAction};
use crate::engine::time::{Span, Timestamp};
use crate::engine::{features, points, run};

/// Whether a take may happen now.
pub(super) enum MayTake {
    /// Yes: by that notice, no more than that.
    Now { notice: MessageId, announced: i64 },
    /// Not before `until` (`FOREVER`: only a receipt or the person's return changes it).
    Wait { until: Timestamp, because: String },
    /// Never in this run.
    Never { because: String },
}

/// Québec's P-40.1 r.3 art. 79.6.3: the notice comes 30 to 60 days before.
const STRICT_GRACE: Span = Span::days(30);

impl Look<'_> {
    /// What a notice sent now would announce: the amount that its take, made now, would take, and the date before which nothing is
    /// taken. None if there is nothing to take, so nothing to announce.
    pub(super) fn announce(&self, rule: &Rule, run: &Run, take_index: usize, take: &TakeAction) -> Option<Notice> {
        let amount = points::takeable(&self.profile, self.names, take, self.now);
        let planned = run::planned(rule, run, take_index, &self.profile.key, &self.zone);
        let not_before = self.grace(take).after(self.now, &self.zone).max(planned);
        (amount > 0).then_some(Notice { amount, not_before })
    }

    pub(super) fn may_take(&self, rule: &Rule, run: &Run, index: usize, take: &TakeAction) -> MayTake {
        if let Some(because) = self.spared(rule, run, index) {
            return MayTake::Never { because };
        }
        let wait = |until, because: &str| MayTake::Wait { until, because: because.to_owned() };
        let (tries, notice) = match run.steps.get(take.notice) {
            Some(StepState::Sent { tries, notice: Some(notice) }) => (tries, notice),
            Some(StepState::Skipped { because, .. }) => {
                return MayTake::Never { because: format!("its notice was skipped: {because}") };
            }
            Some(StepState::Waiting) => return wait(Timestamp::FOREVER, "its notice has not gone out yet"),
            _ => return wait(Timestamp::FOREVER, "no notice of it was delivered"),
        };
        let Some((delivered, since)) = tries.iter().find_map(|t| Some((t, counts_as_delivered_from(t)?))) else {
            return wait(Timestamp::FOREVER, "no notice of it counts as delivered");
        };
        let accepted = delivered.accepted_at.unwrap_or(delivered.at);
        let planned = run::planned(rule, run, index, &self.profile.key, &self.zone);
        let earliest = since.max(planned).max(notice.not_before).max(self.grace(take).after(accepted, &self.zone));
        let earliest = earliest.plus_ms(blind_ms(self.ctx, accepted, self.now));
        if self.now < earliest {
            return wait(earliest, "the grace of its notice is not over");
        }
        let holds_penalties = self.ctx.rules.policy.sources.is_some_and(|sources| sources.holds_penalty);
        if holds_penalties && self.ctx.source_is_quiet(self.now) {
            return wait(source_looked_at_again(self.now), "the activity source is quiet: silence may be ours");
        }
        MayTake::Now { notice: delivered.message, announced: notice.amount }
    }

    /// Why nothing may be taken from this person in this run at all.
    pub(super) fn spared(&self, rule: &Rule, run: &Run, index: usize) -> Option<String> {
        if self.profile.silent_since() != run.silence_since {
            return Some("there was activity since the run began".to_owned());
        }
        let silence_since = run.silence_since?;
        let live_at = self.ctx.world.rules.get(&rule.id).map(|state| state.first_live_at);
        if live_at.is_some_and(|live_at| silence_since < live_at) {
            return Some("the silence began before the rule first went live".to_owned());
        }
        for (name, what) in [("tickets_open", "an open ticket"), ("dispute_open", "an open dispute")] {
            let read = features::read(self.names, self.subject(), name);
            if matches!(read, Ok((Some(Value::Int(1..) | Value::Bool(true)), _))) {
                return Some(format!("{what} spares this person"));
            }
        }
        let step = run::step_at(rule, index).map(|step| &step.id);
        let again = self
            .profile
            .wallet
            .takes
            .iter()
            .any(|take| take.rule == rule.id && Some(&take.step) == step && take.silence_since == silence_since);
        again.then(|| "this stage was taken in this silence already".to_owned())
    }

    fn grace(&self, take: &TakeAction) -> Span {
        grace(self.ctx, &self.profile, take)
    }
}

/// The longest of what the programme, the step and the jurisdiction ask for.
fn grace(ctx: &Context<'_>, profile: &Profile, take: &TakeAction) -> Span {
    let program = ctx.rules.program.as_ref();
    let strict = program.is_some_and(|program| program.jurisdiction.pack_for(profile) == Pack::StrictNotice);
    let spans = [program.map(|program| program.penalty.grace), take.min_notice, strict.then_some(STRICT_GRACE)];
    spans.into_iter().flatten().max_by_key(|span| span.exact_ms()).unwrap_or(Span::ZERO)
}

/// For how long between then and now nobody could have seen the person return: our downtime and the source's silence.
fn blind_ms(ctx: &Context<'_>, since: Timestamp, now: Timestamp) -> i64 {
    let quiet = if ctx.rules.policy.sources.is_some() { ctx.world.quiet.as_slice() } else { &[] };
    let mut spans: Vec<(Timestamp, Timestamp)> = (ctx.world.downtime.iter().chain(quiet))
        .map(|(from, until)| ((*from).max(since), (*until).min(now)))
        .filter(|(from, until)| from < until)
        .collect();
    spans.sort_unstable();
    let mut covered_until = since;
    let mut blind = 0;
    for (from, until) in spans {
        blind += until.ms_since(from.max(covered_until)).max(0);
        covered_until = covered_until.max(until);
    }
    blind
}

/// From when on a message counts as delivered: its receipt, or on channels without receipts a day after acceptance without a bounce.
fn counts_as_delivered_from(found: &Try) -> Option<Timestamp> {
    match found.outcome? {
        Outcome::Delivered | Outcome::Opened | Outcome::Clicked => Some(found.accepted_at.unwrap_or(found.at)),
        Outcome::Accepted if !found.channel.has_receipts() => Some(found.accepted_at?.plus_ms(run::NO_BOUNCE_MS)),
        _ => None,
    }
}

/// The second check, before the commit: what a deduction breaks, told from the posting, its run and the person as they would be
/// written. Who decided it is not asked.
pub(super) fn broken(ctx: &Context<'_>, profile: &Profile, runs: &[Run], posting: &Posting) -> Option<&'static str> {
    let of_it = |run: &&Run| posting.rule.as_ref() == Some(&run.rule) && posting.run == Some(run.number);
    let Some(run) = runs.iter().find(of_it) else { return Some("has no run") };
    let by = run.steps.iter().find_map(|step| match step {
        StepState::Sent { tries, notice } => Some((tries.iter().find(|t| Some(t.message) == posting.notice)?, *notice)),
        _ => None,
    });
    let Some((found, Some(notice))) = by else { return Some("has no notice that announced it") };
    if counts_as_delivered_from(found).is_none_or(|from| posting.at < from) {
        return Some("has no delivered notice");
    }
    if -posting.amount > notice.amount {
        return Some("takes more than its notice announced");
    }
    if posting.at < notice.not_before {
        return Some("comes before the date that its notice announced");
    }
    let is_its_step = |step: &&Step| posting.step.as_ref() == Some(&step.id);
    let Some(rule) = ctx.rule_of(run) else { return Some("is of a rule that is not live") };
    let Some(Action::Take(take)) = rule.steps.iter().find(is_its_step).map(|step| &step.action) else {
        return Some("is of a step that takes nothing");
    };
    let accepted = found.accepted_at.unwrap_or(found.at);
    let over = grace(ctx, profile, take).after(accepted, &ctx.rules.policy.zone_of(profile));
    if posting.at < over.plus_ms(blind_ms(ctx, accepted, posting.at)) {
        return Some("comes within the grace after its notice, or while nobody could have seen the person return");
    }
    let of_its_stage = |take: &&Take| {
        Some(&take.rule) == posting.rule.as_ref()
            && Some(&take.step) == posting.step.as_ref()
            && Some(take.silence_since) == run.silence_since
    };
    let once = profile.wallet.takes.iter().filter(of_its_stage).count() <= 1;
    (!once).then_some("is the second of its stage in one silence")
}
