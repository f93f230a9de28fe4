//! Tiers: up at once, down only at a review, after grace, one step.
//!
//! The base tier moves by the qualifying metric (`program.tiers`) or by a rule; an overlay lies above it for a while and moves neither
//! the base nor its review. A refund never demotes by itself: it counts at the next review. Somebody whose metric rises by the clock
//! alone (a refund leaves the window) rises at that very instant.
//!
//! What a level gives is read in [`super::benefit::entitled`].

use serde_json::json;

use super::features::{self, Question, Source};
use super::points::Booked;
use super::profile::{Name, Overlay, Profile, Series};
use super::rule::expr::{Names, Subject};
use super::rule::{AggregateFunction, ReviewRhythm, TierAction, TierLevel, Tiers};
use super::time::{Span, Timestamp, Zone};

/// Raises the base tier if the metric has reached a higher level at `at`; somebody the program never saw begins at the lowest.
pub fn qualify(profile: &mut Profile, names: Names<'_>, at: Timestamp, booked: &mut Booked) {
    let Some(tiers) = tiers(names) else { return };
    if profile.tier.base.is_none() {
        profile.tier.base = tiers.levels.first().map(|level| level.id.clone());
        profile.tier.since = Some(at);
    }
    let earned = earned(profile, names, tiers, at);
    if tiers.rank(&earned.id) > base_rank(profile, tiers) {
        move_base(profile, names, tiers, earned.id.clone(), at, "qualified", booked);
    }
}

/// Books what falls due at or before `until`, each at its own instant, in order: rises by the clock, `tier_at_risk`, reviews, the end
/// of grace, the end of an overlay.
pub fn book(profile: &mut Profile, names: Names<'_>, until: Timestamp, booked: &mut Booked) {
    let Some(tiers) = tiers(names) else { return };
    let mut latest = Timestamp::DISTANT_PAST;
    while let Some((at, due)) = next(profile, names, tiers).filter(|(at, _)| *at <= until) {
        // what one step makes due at once does not happen before it: a notice whose time passed while grace was running
        let at = at.max(latest);
        latest = at;
        match due {
            Due::OverlayEnd => profile.tier.overlay = None,
            Due::Rise => qualify(profile, names, at, booked),
            Due::GraceEnd => end_grace(profile, names, tiers, at, booked),
            Due::Review => review(profile, names, tiers, at, booked),
            Due::AtRisk => say_at_risk(profile, names, tiers, at, booked),
        }
    }
}

/// The next instant at which [`book`] has something to do.
pub fn next_due(profile: &Profile, names: Names<'_>) -> Timestamp {
    tiers(names).and_then(|tiers| next(profile, names, tiers)).map_or(Timestamp::FOREVER, |(at, _)| at)
}

/// The level a person has, as conditions read it: the base, or an overlay above it; and until when that stands.
pub fn effective(profile: &Profile, names: Names<'_>, now: Timestamp) -> (Option<Name>, Timestamp) {
    let question = Question::new(names, Subject { profile, now, event: None, run: None });
    let (tier, until) = features::effective_tier(&question);
    (tier.map(Name::from), until)
}

/// What the metric lacks to keep the base tier, and until when that stands while no fact arrives; 0 if nothing.
pub fn keep_gap(profile: &Profile, names: Names<'_>, now: Timestamp) -> (i64, Timestamp) {
    let Some(tiers) = tiers(names) else { return (0, Timestamp::FOREVER) };
    let kept_from = tiers.levels.get(base_rank(profile, tiers)).map_or(0, |level| level.from);
    let (metric, until) = features::metric(profile, names, &tiers.metric, now);
    (kept_from.saturating_sub(metric).max(0), until)
}

/// A rule's `tier`: to a level, or an overlay. Says what it did, or why it could not.
pub fn act(
    profile: &mut Profile,
    names: Names<'_>,
    action: &TierAction,
    at: Timestamp,
    rule: &Name,
    booked: &mut Booked,
) -> Result<String, String> {
    match action {
        TierAction::Overlay { up, lasts } => overlay(profile, names, *up, *lasts, at, rule, booked),
        TierAction::To { tier, protect } => {
            let tiers = tiers(names).ok_or("the program has no tiers")?;
            if tiers.levels.iter().all(|level| level.id != *tier) {
                return Err(format!("the program has no level {tier} any more"));
            }
            if profile.tier.base.as_ref() != Some(tier) {
                move_base(profile, names, tiers, tier.clone(), at, "rule", booked);
            }
            if !protect.is_zero() {
                profile.tier.protected_until = Some(protect.after(at, &names.policy.zone_of(profile)));
            }
            Ok(format!("tier {tier}"))
        }
    }
}

/// Lifts a person `up` levels above the base for a while. At the top already there is nothing to lift; a higher or longer overlay that
/// lies there stays.
pub fn overlay(
    profile: &mut Profile,
    names: Names<'_>,
    up: u8,
    lasts: Span,
    at: Timestamp,
    source: &Name,
    booked: &mut Booked,
) -> Result<String, String> {
    let tiers = tiers(names).ok_or("the program has no tiers")?;
    let base = base_rank(profile, tiers);
    let rank = (base + usize::from(up)).min(tiers.levels.len() - 1);
    let Some(level) = tiers.levels.get(rank).filter(|_| rank > base) else { return Ok("at the top level already".to_owned()) };
    let until = lasts.after(at, &names.policy.zone_of(profile));
    let there = profile.tier.overlay.as_ref().filter(|overlay| at < overlay.until);
    if there.is_some_and(|overlay| (tiers.rank(&overlay.tier), overlay.until) >= (rank, until)) {
        return Ok("a higher or longer overlay is there already".to_owned());
    }
    profile.tier.overlay = Some(Overlay { tier: level.id.clone(), from: at, until, source: source.clone() });
    booked.say("benefit_granted", at, json!({ "benefit": "tier_overlay", "tier": *level.id, "until": until.to_string() }));
    Ok(format!("tier {} until {until}", level.id))
}

// ------------------------------------------------------------------------------------------------------------------ what is due

/// In the order in which they happen at one instant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    OverlayEnd,
    Rise,
    GraceEnd,
    AtRisk,
    Review,
}

fn next(profile: &Profile, names: Names<'_>, tiers: &Tiers) -> Option<(Timestamp, Due)> {
    let state = &profile.tier;
    let overlay_end = state.overlay.as_ref().map(|overlay| (overlay.until, Due::OverlayEnd));
    if is_empty(&tiers.metric) || state.base.is_none() {
        return overlay_end;
    }
    let rise = next_rise(profile, names, tiers).map(|at| (at, Due::Rise));
    let grace_end = state.grace_until.map(|at| (at, Due::GraceEnd));
    let review = state.review_at.map(|at| (at, Due::Review));
    let at_risk = at_risk_at(profile, names, tiers).map(|at| (at, Due::AtRisk));
    [overlay_end, rise, grace_end, review, at_risk].into_iter().flatten().filter(|(at, _)| !at.is_forever()).min()
}

fn is_empty(metric: &Name) -> bool {
    metric.trim().is_empty()
}

/// When the clock alone lifts the metric to a higher level: at an instant when something negative leaves the window. What is positive
/// only ever lowers it as it leaves. Looked for from the last fact and the last move on: before, it has been asked.
fn next_rise(profile: &Profile, names: Names<'_>, tiers: &Tiers) -> Option<Timestamp> {
    let base = base_rank(profile, tiers);
    if base + 1 >= tiers.levels.len() {
        return None;
    }
    let from = last_fact(profile, names, tiers).max(profile.tier.since);
    let lifting = Counted::of(names, tiers)?.lifting(profile, from);
    lifting.into_iter().find(|at| tiers.rank(&earned(profile, names, tiers, *at).id) > base)
}

/// The latest instant at which a fact moved the metric.
fn last_fact(profile: &Profile, names: Names<'_>, tiers: &Tiers) -> Option<Timestamp> {
    Counted::of(names, tiers)?.series(profile).filter_map(|series| series.last_at).max()
}

/// When `tier_at_risk` is to be said: `notice` before the review if the metric will not do by then, or as soon as it falls short after
/// that, by a fact or by what leaves the window; at the review itself at the latest, so that nobody loses a tier untold.
fn at_risk_at(profile: &Profile, names: Names<'_>, tiers: &Tiers) -> Option<Timestamp> {
    let review_at = profile.tier.review_at?;
    let is_spared = profile.tier.protected_until.is_some_and(|until| until > review_at);
    let is_said = profile.tier.at_risk_said == Some(review_at) || profile.tier.grace_until.is_some();
    if is_spared || is_said || tiers.downgrade.notice.is_zero() {
        return None;
    }
    let notice_at = tiers.downgrade.notice.negated().after(review_at, &names.policy.zone_of(profile));
    let start = Some(notice_at).max(last_fact(profile, names, tiers)).max(profile.tier.since)?;
    let leaving = Counted::of(names, tiers).map(|counted| counted.leaving(profile, start, review_at)).unwrap_or_default();
    std::iter::once(start).chain(leaving).find(|at| *at <= review_at && keep_gap(profile, names, *at).0 > 0)
}

// --------------------------------------------------------------------------------------------------------------- what happens

fn say_at_risk(profile: &mut Profile, names: Names<'_>, tiers: &Tiers, at: Timestamp, booked: &mut Booked) {
    let gap = keep_gap(profile, names, at).0;
    profile.tier.at_risk_said = profile.tier.review_at;
    let level = tiers.levels.get(base_rank(profile, tiers));
    let review_at = profile.tier.review_at.map(|at| at.to_string());
    booked.say("tier_at_risk", at, json!({ "tier": level.map(|level| &*level.id), "gap": gap, "review_at": review_at }));
}

/// Enough: renewed. Short: grace begins, unless the tier is protected or grace is running already.
fn review(profile: &mut Profile, names: Names<'_>, tiers: &Tiers, at: Timestamp, booked: &mut Booked) {
    let is_short = tiers.rank(&earned(profile, names, tiers, at).id) < base_rank(profile, tiers);
    let is_protected = profile.tier.protected_until.is_some_and(|until| until > at);
    profile.tier.review_at = next_review(profile, names, tiers, at);
    if !is_short || is_protected || profile.tier.grace_until.is_some() {
        return;
    }
    profile.tier.grace_until = Some(tiers.downgrade.grace.after(at, &names.policy.zone_of(profile)));
    if tiers.downgrade.grace.is_zero() {
        end_grace(profile, names, tiers, at, booked);
    }
}

/// Enough by now: renewed. Still short: one step down, or to what is earned; never below that.
fn end_grace(profile: &mut Profile, names: Names<'_>, tiers: &Tiers, at: Timestamp, booked: &mut Booked) {
    profile.tier.grace_until = None;
    let base = base_rank(profile, tiers);
    let earned = tiers.rank(&earned(profile, names, tiers, at).id);
    let is_protected = profile.tier.protected_until.is_some_and(|until| until > at);
    if earned >= base || is_protected {
        if tiers.review == ReviewRhythm::Anniversary {
            profile.tier.review_at = next_review(profile, names, tiers, at);
        }
        return;
    }
    let target = if tiers.downgrade.one_step { earned.max(base - 1) } else { earned };
    if let Some(level) = tiers.levels.get(target) {
        move_base(profile, names, tiers, level.id.clone(), at, "review", booked);
    }
}

fn move_base(profile: &mut Profile, names: Names<'_>, tiers: &Tiers, to: Name, at: Timestamp, because: &str, booked: &mut Booked) {
    let before = base_rank(profile, tiers);
    let from = profile.tier.base.replace(to.clone());
    profile.tier.since = Some(at);
    profile.tier.grace_until = None;
    profile.tier.protected_until = None;
    // another level is another thing to lose: it is warned of anew
    profile.tier.at_risk_said = None;
    profile.tier.review_at = next_review(profile, names, tiers, at);
    let direction = if tiers.rank(&to) > before { "up" } else { "down" };
    booked.say("tier_changed", at, json!({ "from": from.as_deref(), "to": *to, "direction": direction, "because": because }));
}

/// The first review after `at`. The lowest level has nothing to lose, so nobody wakes up for it.
fn next_review(profile: &Profile, names: Names<'_>, tiers: &Tiers, at: Timestamp) -> Option<Timestamp> {
    if base_rank(profile, tiers) == 0 || is_empty(&tiers.metric) {
        return None;
    }
    let shop = &names.policy.zone.last;
    let months = match tiers.review {
        ReviewRhythm::Anniversary => return Some(Span { months: 12, ..Span::ZERO }.after(at, &names.policy.zone_of(profile))),
        ReviewRhythm::Month => 1,
        ReviewRhythm::Quarter => 3,
        ReviewRhythm::Year => 12,
    };
    Some(next_period(at, months, shop))
}

/// The first instant of the next period of so many months (1, 3, 12) in the shop's zone, strictly after `at`.
fn next_period(at: Timestamp, months: i8, shop: &Zone) -> Timestamp {
    let date = at.local(shop).date();
    let begun = (date.month() - 1) / months * months + 1;
    let first = jiff::civil::Date::new(date.year(), begun, 1);
    let next = first.and_then(|first| first.checked_add(jiff::Span::new().months(i64::from(months))));
    next.map_or(Timestamp::FOREVER, |next| shop.start_of_day(next))
}

// ------------------------------------------------------------------------------------------------------------------ the metric

fn tiers<'a>(names: Names<'a>) -> Option<&'a Tiers> {
    names.program?.tiers.as_ref().filter(|tiers| !tiers.levels.is_empty())
}

fn base_rank(profile: &Profile, tiers: &Tiers) -> usize {
    profile.tier.base.as_ref().map_or(0, |base| tiers.rank(base))
}

fn earned<'a>(profile: &Profile, names: Names<'_>, tiers: &'a Tiers, at: Timestamp) -> &'a TierLevel {
    if is_empty(&tiers.metric) {
        let base = base_rank(profile, tiers);
        return tiers.levels.get(base).unwrap_or_else(|| tiers.earned(0));
    }
    tiers.earned(metric(profile, names, tiers, at))
}

/// The qualifying metric as it stands at `at` if nothing more happens, in minor units or as a count.
fn metric(profile: &Profile, names: Names<'_>, tiers: &Tiers, at: Timestamp) -> i64 {
    features::metric(profile, names, &tiers.metric, at).0
}

/// What the metric counts: what is added up in a window, less what is subtracted. Only its instants matter here.
struct Counted {
    added: Part,
    subtracted: Option<Part>,
    /// None: a lifetime.
    window_ms: Option<i64>,
}

enum Part {
    Orders,
    Refunds,
    Feature(Name),
}

impl Part {
    fn series<'p>(&self, profile: &'p Profile) -> Option<&'p Series> {
        match self {
            Part::Orders => Some(&profile.orders),
            Part::Refunds => Some(&profile.refunds),
            Part::Feature(name) => profile.features.get(name),
        }
    }
}

impl Counted {
    /// None for a metric that is no count and no sum: it moves with facts alone.
    fn of(names: Names<'_>, tiers: &Tiers) -> Option<Self> {
        match features::metric_source(names, &tiers.metric)? {
            Source::Spend(window_ms) => Some(Counted { added: Part::Orders, subtracted: Some(Part::Refunds), window_ms }),
            Source::Orders(window_ms) => Some(Counted { added: Part::Orders, subtracted: None, window_ms }),
            Source::Feature(slot) if matches!(slot.function, AggregateFunction::Count | AggregateFunction::Sum) => {
                Some(Counted { added: Part::Feature(slot.name.clone()), subtracted: None, window_ms: slot.window_ms })
            }
            _ => None,
        }
    }

    fn series<'p>(&self, profile: &'p Profile) -> impl Iterator<Item = &'p Series> {
        let subtracted = self.subtracted.as_ref().and_then(|part| part.series(profile));
        self.added.series(profile).into_iter().chain(subtracted)
    }

    /// When what is counted now leaves the window, within `(after, upto]`, in order.
    fn leaving(&self, profile: &Profile, after: Timestamp, upto: Timestamp) -> Vec<Timestamp> {
        let (Some(window_ms), Some(series)) = (self.window_ms, self.added.series(profile)) else { return vec![] };
        let points = series.window(after.plus_ms(-window_ms), upto.plus_ms(-window_ms));
        let mut instants: Vec<Timestamp> = points.iter().map(|point| point.at.plus_ms(window_ms)).collect();
        instants.dedup();
        instants
    }

    /// When what lowers the metric leaves the window and lifts it, after `after`, in order.
    fn lifting(&self, profile: &Profile, after: Option<Timestamp>) -> Vec<Timestamp> {
        let Some(window_ms) = self.window_ms else { return vec![] };
        let negative = self.added.series(profile).into_iter().flat_map(|series| &series.points).filter(|point| point.value < 0);
        let subtracted = self.subtracted.as_ref().and_then(|part| part.series(profile)).into_iter().flat_map(|series| &series.points);
        let leave = negative.chain(subtracted).map(|point| point.at.plus_ms(window_ms));
        let mut instants: Vec<Timestamp> = leave.filter(|at| Some(*at) > after).collect();
        instants.sort_unstable();
        instants.dedup();
        instants
    }
}

#[cfg(test)]
mod tests {
    use super::super::absorb::absorb;
    use super::super::event::Event;
    use super::super::sample::{Shop, at, day, order, profile, refund, shop};
    use super::*;
    use proptest::prelude::*;

    struct Person {
        shop: Shop,
        profile: Profile,
        booked: Booked,
    }

    impl Person {
        fn new() -> Self {
            Person { shop: shop(), profile: profile(), booked: Booked::default() }
        }

        fn with(change: impl FnOnce(&mut Tiers)) -> Self {
            let mut person = Person::new();
            change(person.shop.program.tiers.as_mut().expect("the sample's tiers"));
            person
        }

        fn hear(&mut self, event: &Event) {
            let names = self.shop.names();
            book(&mut self.profile, names, event.occurred_at.plus_ms(-1), &mut self.booked);
            absorb(&mut self.profile, event, names);
            qualify(&mut self.profile, names, event.occurred_at, &mut self.booked);
        }

        fn book(&mut self, until: Timestamp) {
            book(&mut self.profile, self.shop.names(), until, &mut self.booked);
        }

        fn due(&self) -> Timestamp {
            next_due(&self.profile, self.shop.names())
        }

        fn effective(&self, now: Timestamp) -> String {
            effective(&self.profile, self.shop.names(), now).0.expect("a tier").to_string()
        }

        /// What was said, as `instant what`.
        fn said(&self) -> Vec<String> {
            let one = |own: &super::super::points::OwnEvent| {
                let text = |key: &str| own.properties.get(key).map(|v| v.to_string().replace('"', "")).unwrap_or_default();
                match &*own.name {
                    "tier_changed" => format!("{} {} {}", &own.at.to_string()[..10], text("direction"), text("to")),
                    "tier_at_risk" => format!("{} at risk by {}", &own.at.to_string()[..10], text("gap")),
                    other => format!("{} {other}", &own.at.to_string()[..10]),
                }
            };
            self.booked.events.iter().map(one).collect()
        }
    }

    #[test]
    fn up_at_once_down_after_notice_review_and_grace_one_step_at_a_time() {
        let mut person = Person::new();
        person.hear(&order("1", 1200.0, day(10)));
        // gold until the order leaves the window on 10 July; the review of 1 July still sees it, that of 1 October does not
        person.book(at("2027-06-30T00:00:00Z"));
        assert_eq!(
            person.said(),
            [
                "2026-01-11 up gold",
                "2026-09-01 at risk by 100000",
                "2026-10-31 down silver",
                "2026-12-02 at risk by 25000",
                "2027-01-31 down basic",
            ]
        );
        assert_eq!(person.due(), Timestamp::FOREVER, "the lowest level has nothing to wait for");
    }

    #[test]
    fn the_due_instants_are_those_at_which_something_happens() {
        let mut person = Person::new();
        person.hear(&order("1", 300.0, day(10)));
        let mut stops = vec![];
        while !person.due().is_forever() {
            let due = person.due();
            stops.push(due.to_string()[..10].to_owned());
            person.book(due);
        }
        // April and July: renewed without a word; then notice, review, end of grace
        assert_eq!(stops, ["2026-04-01", "2026-07-01", "2026-09-01", "2026-10-01", "2026-10-31"]);
    }

    #[test]
    fn who_earns_it_in_the_grace_is_renewed_and_who_falls_far_goes_one_step_or_to_what_is_earned() {
        let table = [
            (true, vec![order("2", 1000.0, at("2026-10-20T00:00:00Z"))], "gold"),
            (true, vec![], "silver"),
            (false, vec![], "basic"),
            (false, vec![order("2", 300.0, at("2026-10-20T00:00:00Z"))], "silver"),
        ];
        for (one_step, events, expected) in table {
            let mut person = Person::with(|tiers| tiers.downgrade.one_step = one_step);
            person.hear(&order("1", 1200.0, day(10)));
            events.iter().for_each(|event| person.hear(event));
            person.book(at("2026-11-01T00:00:00Z"));
            assert_eq!(person.effective(at("2026-11-01T00:00:00Z")), expected, "{one_step} {}", events.len());
        }
    }

    #[test]
    fn a_refund_never_demotes_at_once_but_is_told_of_before_the_review() {
        let mut person = Person::new();
        person.hear(&order("1", 1200.0, at("2026-03-20T00:00:00Z")));
        person.hear(&refund("1", 1200.0, at("2026-03-21T00:00:00Z")));
        assert_eq!(person.effective(at("2026-03-21T00:00:00Z")), "gold");
        person.book(at("2026-05-01T00:00:00Z"));
        // the notice's own time, 2 March, was over by then
        assert_eq!(person.said(), ["2026-03-20 up gold", "2026-03-21 at risk by 100000", "2026-05-01 down silver"]);
    }

    #[test]
    fn who_falls_short_after_the_notice_is_told_as_it_happens_and_at_the_review_at_the_latest() {
        // leaves 20 June: a fortnight after the notice for the review of 1 July; on 1 July itself; a day later, in time for the next
        let table = [("2025-12-22", "2026-06-20"), ("2026-01-02", "2026-07-01"), ("2026-01-03", "2026-09-01")];
        for (ordered, told) in table {
            let mut person = Person::new();
            person.hear(&order("1", 300.0, at(&format!("{ordered}T00:00:00Z"))));
            person.book(at("2026-09-15T00:00:00Z"));
            assert_eq!(person.said()[1], format!("{told} at risk by 25000"), "{ordered}");
        }
    }

    #[test]
    fn a_refund_that_leaves_the_window_lifts_at_that_very_instant() {
        let mut person = Person::new();
        person.hear(&refund("0", 100.0, day(0)));
        person.hear(&order("1", 300.0, day(10)));
        assert_eq!((person.effective(day(10)), person.due()), ("basic".to_owned(), day(180)));
        person.book(day(180).plus_ms(-1));
        assert_eq!(person.effective(day(179)), "basic");
        person.book(day(180));
        assert_eq!(person.said()[0], "2026-06-30 up silver");
    }

    #[test]
    fn a_protected_tier_outlives_its_review() {
        let mut person = Person::new();
        person.hear(&order("1", 10.0, day(0)));
        let to = TierAction::To { tier: "gold".into(), protect: Span::days(120) };
        let names = person.shop.names();
        act(&mut person.profile, names, &to, day(1), &"rule".into(), &mut person.booked).expect("a known level");
        person.book(at("2026-04-30T00:00:00Z"));
        assert_eq!(person.effective(at("2026-04-30T00:00:00Z")), "gold");
        person.book(at("2026-08-01T00:00:00Z"));
        assert_eq!(person.said()[1..], ["2026-06-01 at risk by 99000", "2026-07-31 down silver"]);
        let unknown = TierAction::To { tier: "tin".into(), protect: Span::ZERO };
        assert!(act(&mut person.profile, person.shop.names(), &unknown, day(1), &"rule".into(), &mut person.booked).is_err());
    }

    #[test]
    fn an_overlay_lifts_for_a_while_and_moves_nothing_else() {
        let mut person = Person::new();
        person.hear(&order("1", 300.0, day(0)));
        let before = person.profile.tier.clone();
        let names = person.shop.names();
        overlay(&mut person.profile, names, 1, Span::days(30), day(5), &"winback".into(), &mut person.booked).expect("tiers");
        assert_eq!(effective(&person.profile, names, day(5)), (Some("gold".into()), day(35)));
        assert_eq!(effective(&person.profile, names, day(35)).0, Some("silver".into()));
        assert_eq!(person.due(), day(35));
        // a shorter one does not replace it; qualifying above it makes it meaningless
        overlay(&mut person.profile, names, 1, Span::days(3), day(6), &"other".into(), &mut person.booked).expect("tiers");
        assert_eq!(effective(&person.profile, names, day(10)).1, day(35));
        person.book(day(35));
        assert_eq!(person.profile.tier, before);
        assert_eq!(person.said(), ["2026-01-01 up silver", "2026-01-06 benefit_granted"]);
    }

    #[test]
    fn an_anniversary_counts_from_reaching_and_from_renewing() {
        let mut person = Person::with(|tiers| tiers.review = ReviewRhythm::Anniversary);
        person.hear(&order("1", 300.0, day(0)));
        assert_eq!(person.profile.tier.review_at, Some(at("2027-01-01T00:00:00Z")));
        person.hear(&order("2", 300.0, at("2027-01-10T00:00:00Z"))); // in grace
        person.book(at("2027-02-01T00:00:00Z"));
        assert_eq!(person.effective(at("2027-02-01T00:00:00Z")), "silver");
        assert_eq!(person.profile.tier.review_at, Some(at("2028-01-31T00:00:00Z")));
    }

    #[test]
    fn a_metric_is_a_count_or_money_by_its_name() {
        let table = [("orders_90d", 2), ("orders_lifetime", 3), ("spend_lifetime", 150), ("nonsense_7d", 0)];
        for (metric_name, expected) in table {
            let mut person = Person::with(|tiers| tiers.metric = metric_name.into());
            [(0, 0.5), (200, 0.5), (201, 0.5)].iter().for_each(|(days, total)| person.hear(&order("1", *total, day(*days))));
            let tiers = tiers(person.shop.names()).expect("tiers");
            assert_eq!(metric(&person.profile, person.shop.names(), tiers, day(201)), expected, "{metric_name}");
        }
    }

    #[test]
    fn a_period_begins_at_the_shops_own_midnight() {
        let shop = Zone::named("America/New_York").expect("a zone");
        let table = [
            ("2026-03-31T23:00:00Z", 1, "2026-04-01T04:00:00Z"),
            ("2026-04-01T04:00:00Z", 1, "2026-05-01T04:00:00Z"),
            ("2026-11-15T00:00:00Z", 3, "2027-01-01T05:00:00Z"),
            ("2026-11-15T00:00:00Z", 12, "2027-01-01T05:00:00Z"),
        ];
        for (from, months, expected) in table {
            assert_eq!(next_period(at(from), months, &shop), at(expected), "{from} {months}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// I14: looking often and looking only when a fact comes give the same tiers at the same instants.
        #[test]
        fn promise_i14_looks_in_between_change_nothing(
            deeds in prop::collection::vec((0i64..60, any::<bool>(), 1i64..9), 1..25), looks in prop::collection::vec(0i64..1000, 0..20)
        ) {
            let (mut seldom, mut often) = (Person::new(), Person::new());
            let (mut days, mut looks) = (0, looks);
            looks.sort_unstable();
            for (index, (wait, is_refund, hundreds)) in deeds.iter().enumerate() {
                days += wait;
                let (id, total, at) = (index.to_string(), *hundreds as f64 * 100.0, day(days).plus_ms(index as i64));
                let event = if *is_refund { refund(&id, total, at) } else { order(&id, total, at) };
                looks.iter().filter(|look| day(**look) < at).for_each(|look| often.book(day(*look)));
                while often.due() < at {
                    often.book(often.due());
                }
                looks.retain(|look| day(*look) >= at);
                seldom.hear(&event);
                often.hear(&event);
            }
            seldom.book(day(3000));
            often.book(day(3000));
            prop_assert_eq!(seldom.said(), often.said());
            prop_assert_eq!(&seldom.profile.tier, &often.profile.tier);
            prop_assert_eq!(seldom.due(), Timestamp::FOREVER, "without facts everybody ends at the lowest level");
        }
    }
}
