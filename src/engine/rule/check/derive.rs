//! What follows from a rule as it is written: hashes, what it concerns, which outcomes its steps wait for, whether it writes what it
//! reads.

use std::collections::{BTreeMap, BTreeSet};

use twox_hash::XxHash3_64;

use super::condition::{Compiler, identifiers, quoted, texts};
use crate::engine::SEMANTICS;
use crate::engine::action::Outcome;
use crate::engine::profile::Category;
use crate::engine::rule::expr::Condition;
use crate::engine::rule::syntax::Node;
use crate::engine::rule::{Action, Required, Rule, Step, Trigger};

/// A rule's tree, for what is asked of the text rather than of its meaning.
pub struct Written<'n> {
    pub node: &'n Node,
    pub steps: Option<&'n Node>,
    /// `when`, `event` or `at`.
    pub trigger: Option<&'n str>,
}

/// The declarations that conditions may lead on to: features, segments and calendars by name.
pub struct Texts<'n> {
    pub declared: BTreeMap<&'n str, &'n Node>,
    pub calendars: BTreeMap<&'n str, &'n Node>,
}

impl<'n> Texts<'n> {
    /// All names that conditions speak of, also by way of features and segments.
    fn names_in(&self, nodes: &[&'n Node]) -> BTreeSet<&'n str> {
        let mut names = BTreeSet::new();
        let mut open: Vec<&Node> = nodes.to_vec();
        while let Some(node) = open.pop() {
            let mut all = Vec::new();
            texts(node, &mut all);
            for name in all.iter().flat_map(|text| identifiers(text).into_iter().chain(quoted(text))) {
                if names.insert(name)
                    && let Some(declaration) = self.declared.get(name)
                {
                    open.push(declaration);
                }
            }
        }
        names
    }

    /// The normalised texts of conditions with everything declared that they lead on to.
    fn closed(&self, nodes: &[&'n Node]) -> String {
        let mut out = String::new();
        for node in nodes {
            node.normalise(&mut out);
        }
        out.push_str(&self.linked(nodes));
        out
    }

    /// The declarations that conditions lead on to.
    fn linked(&self, nodes: &[&'n Node]) -> String {
        let mut out = String::new();
        for name in self.names_in(nodes) {
            if let Some(node) = self.declared.get(name).or_else(|| self.calendars.get(name)) {
                out.push_str(name);
                node.normalise(&mut out);
            }
        }
        out
    }
}

/// Fills in what follows from the rest.
pub fn derive(rule: &mut Rule, written: &Written<'_>, texts: &Texts<'_>) {
    let mut text = String::new();
    written.node.normalise(&mut text);
    rule.hash = XxHash3_64::oneshot(text.as_bytes());
    let trigger: Vec<&Node> = written.trigger.into_iter().chain(["where", "key"]).filter_map(|key| written.node.get(key)).collect();
    // a `when` that is only written otherwise is the same
    let closed = match &rule.trigger {
        Trigger::When(condition) => format!("{}{}", condition.hash_text(), texts.linked(&trigger)),
        Trigger::Event { .. } | Trigger::At(_) => texts.closed(&trigger),
    };
    // what the same words mean to another program is another condition
    let trigger_text = format!("{SEMANTICS}\0{}\0{}\0{closed}", rule.id, written.trigger.unwrap_or_default());
    rule.when_hash = (XxHash3_64::oneshot(trigger_text.as_bytes()) & u64::from(u32::MAX)) as u32;
    let actions = || rule.steps.iter().chain(&rule.on_exit).map(|step| &step.action);
    rule.takes = actions().any(|action| matches!(action, Action::Take(_)));
    let markets = |action: &Action| match action {
        Action::Send(send) => send.category == Category::Marketing || send.offer.is_some(),
        _ => false,
    };
    rule.treats = rule.takes || actions().any(markets);
    let starting = match &rule.trigger {
        Trigger::When(condition) => Some(condition),
        Trigger::Event { filter, .. } => filter.as_ref(),
        Trigger::At(_) => None,
    };
    let entry = [starting, rule.audience.as_ref(), rule.only_if_at_start.as_ref()];
    let unless_rests = rule.unless.as_ref().is_some_and(Condition::negation_rests_on_absence);
    rule.rests_on_absence = unless_rests || entry.into_iter().flatten().any(Condition::rests_on_absence);
}

/// Says for each step which outcomes later ones wait for, and which take it announces.
pub fn link(steps: &mut [Step]) {
    let mut wakes: BTreeMap<usize, u16> = BTreeMap::new();
    let mut notices: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        if let Some(require) = step.require {
            let rungs = steps.iter().enumerate().filter(|(_, other)| other.rung.is_some_and(|rung| rung.first == require.step));
            for index in std::iter::once(require.step).chain(rungs.map(|(index, _)| index)) {
                *wakes.entry(index).or_default() |= awaited(require.outcome);
            }
        }
        if let Action::Take(take) = &step.action {
            // on channels without receipts its acceptance is what delivery is judged by; a bounce before the take voids it
            let judged_by = [Outcome::Accepted, Outcome::Bounced, Outcome::Failed, Outcome::Dead];
            *wakes.entry(take.notice).or_default() |= awaited(Required::Delivered) | Outcome::bits(&judged_by);
            notices.entry(take.notice).or_insert(index);
        }
    }
    for (index, step) in steps.iter_mut().enumerate() {
        if matches!(step.action, Action::Send(_)) {
            step.wakes_on = wakes.get(&index).copied().unwrap_or(0);
            step.notice_of = notices.get(&index).copied();
        }
    }
}

/// The outcomes that may be the first to bring what is required: receipts come in any order, and a later stage stands for those
/// before it.
fn awaited(required: Required) -> u16 {
    use Outcome::{Accepted, Clicked, Delivered, Opened};
    match required {
        Required::Done | Required::Accepted => Outcome::bits(&[Accepted, Delivered]),
        Required::Delivered => Outcome::bits(&[Delivered, Opened, Clicked]),
        Required::Opened => Outcome::bits(&[Opened, Clicked]),
    }
}

/// No step before the last may write what `when` or `unless` reads: the rule would end itself.
pub fn check_own_writes(written: &Written<'_>, compiler: &Compiler<'_>, texts: &Texts<'_>) {
    let Some(steps) = written.steps.and_then(Node::items) else { return };
    let Some((_, before_last)) = steps.split_last() else { return };
    for key in ["when", "unless"] {
        let Some(condition) = written.node.get(key) else { continue };
        let reads = texts.names_in(&[condition]);
        for step in before_last {
            if let Some((name, place)) = writes(step).into_iter().find(|(name, _)| reads.contains(*name)) {
                let id = step.get("id").and_then(Node::text).unwrap_or_default();
                let message = format!("step `{id}` writes `{name}`, which `{key}` reads: the rule would end itself before its last step");
                let help = "put that part of the condition into `only_if_at_start`".to_owned();
                compiler.findings.error("RK0305", place, message, help);
            }
        }
    }
}

/// The names that a step's action changes.
fn writes(step: &Node) -> Vec<(&str, &Node)> {
    const POINTS: [&str; 5] = ["points", "points_of", "points_pending", "points_expiring", "next_expiry_at"];
    const TIER: [&str; 8] = ["base_tier", "tier", "tier_since", "tier_until", "tier_review_at", "tier_gap", "tier_keep_gap", "entitled"];
    const OVERLAY: [&str; 3] = ["tier", "tier_until", "entitled"];
    const BUNDLE: [&str; 4] = ["tier", "tier_until", "entitled", "coupons_open"];
    let mut written: Vec<(&str, &Node)> = Vec::new();
    for entry in step.entries().unwrap_or_default() {
        let value = &entry.value;
        let names: &[&str] = match &*entry.key.text {
            "points" | "take" => &POINTS,
            "tier" if value.get("overlay").is_some() => &OVERLAY,
            "tier" => &TIER,
            "grant" if value.get("coupon").is_some() => &["coupons_open"],
            "grant" if value.get("benefit").is_some() => &["entitled"],
            "grant" => &BUNDLE,
            "send" if value.get("offer").is_some() => &["sends_7d", "last_sent_at", "coupons_open"],
            "send" => &["sends_7d", "last_sent_at"],
            _ => &[],
        };
        written.extend(names.iter().map(|name| (*name, value)));
        if &*entry.key.text == "set" {
            written.extend(value.entries().unwrap_or_default().iter().map(|entry| (&*entry.key.text, &entry.value)));
        }
    }
    written
}
