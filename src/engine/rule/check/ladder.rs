//! `ladder`: one message by one channel after the other, each when its time has come and the ones before have not got through. What is
//! written as one step becomes one step per rung, so that each rung has its own time, state and message.

use super::read::{Fields, Findings};
use crate::engine::action::Channel;
use crate::engine::profile::Name;
use crate::engine::rule::syntax::Node;
use crate::engine::rule::{Action, Required, Rung, Send, Step};
use crate::engine::time::Span;

/// A rung as it is written.
pub struct Written {
    pub channel: Channel,
    /// Since the ladder's own time.
    after: Span,
    unless: Required,
}

/// How many steps become of one.
pub fn rungs(step: &Node) -> usize {
    let ladder = step.get("send").and_then(|send| send.get("ladder"));
    ladder.and_then(Node::items).map_or(1, |items| items.len().max(1))
}

/// The id of a rung, counted from 1: the first has the step's own.
pub fn id(step: &str, number: usize) -> Name {
    if number == 1 { Name::from(step) } else { Name::from(format!("{step}.{number}")) }
}

/// Reads the rungs, and what may not stand beside them in `send`.
pub fn read(node: &Node, send: &mut Fields<'_, '_>, is_exit: bool, findings: &Findings) -> Option<Vec<Written>> {
    if is_exit {
        findings.wrong(node, "steps of `on_exit` have no ladder: they follow at once", "write `channels: [push, email]`".to_owned());
    }
    if let Some(channels) = send.get("channels") {
        findings.wrong(
            channels,
            "`channels` and `ladder` at once",
            "channels are alternatives, a ladder is one after the other".to_owned(),
        );
    }
    if send.has("offer") {
        let help = "each rung would reserve a coupon of its own; give it in a step before: `grant: { coupon: ... }`".to_owned();
        findings.wrong(node, "a ladder carries no `offer`", help);
    }
    let items = findings.list(node, "[{ channel: push }, { channel: sms, after: 1d, unless: opened }]");
    if items.len() < 2 && node.items().is_some() {
        findings.wrong(node, "a ladder has two rungs or more", "with one channel write `channels: [push]`".to_owned());
    }
    let mut latest = Span::ZERO;
    let mut written = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let rung = rung(item, index == 0, findings);
        if let Some(rung) = rung.as_ref().filter(|_| index > 0) {
            if rung.after.exact_ms() <= latest.exact_ms() {
                let at = item.get("after").unwrap_or(item);
                let message = format!("this rung comes {} after the first, the one before it {latest}", rung.after);
                findings.error("RK0306", at, message, "each rung comes later than the one before: there must be time to see".to_owned());
            }
            latest = rung.after;
        }
        written.push(rung);
    }
    written.into_iter().collect()
}

fn rung(node: &Node, is_first: bool, findings: &Findings) -> Option<Written> {
    const OUTCOMES: [(&str, Required); 3] =
        [("accepted", Required::Accepted), ("delivered", Required::Delivered), ("opened", Required::Opened)];
    let mut fields = Fields::of(node, "a rung", findings)?;
    let channel = fields.required("channel", "RK0102", "name a channel: `channel: push`");
    let channel = channel.and_then(|node| findings.one_of(node, &Channel::ALL.map(|channel| (channel.name(), channel))));
    if is_first {
        for key in ["after", "unless"] {
            if let Some(node) = fields.get(key) {
                findings.wrong(node, format!("the first rung has no `{key}`"), "it goes at the step's own time".to_owned());
            }
        }
        fields.finish();
        return Some(Written { channel: channel?, after: Span::ZERO, unless: Required::Delivered });
    }
    let after = fields.required("after", "RK0102", "say how long after the first: `after: 1d`").and_then(|node| findings.span(node));
    let unless = fields.required("unless", "RK0102", "say what makes it needless: `unless: opened`, delivered or accepted");
    let unless = unless.and_then(|node| findings.one_of(node, &OUTCOMES));
    fields.finish();
    Some(Written { channel: channel?, after: after?, unless: unless? })
}

/// Appends a step, or one step per rung of its ladder.
pub fn expand(step: Step, rungs: Vec<Written>, steps: &mut Vec<Step>) {
    let Action::Send(send) = &step.action else { return steps.push(step) };
    if rungs.is_empty() {
        return steps.push(step);
    }
    let first = steps.len();
    for (number, rung) in (1..).zip(rungs) {
        let by_one = Send {
            template: send.template.clone(),
            channels: vec![rung.channel],
            category: send.category,
            data: send.data.clone(),
            languages: send.languages.clone(),
            offer: None,
        };
        steps.push(Step {
            id: id(&step.id, number),
            place: step.place.clone(),
            after: step.after.plus(rung.after),
            send_at: step.send_at.clone(),
            condition: step.condition.clone(),
            require: step.require,
            max_late: step.max_late,
            action: Action::Send(by_one),
            wakes_on: 0,
            notice_of: None,
            rung: Some(Rung { first, unless: rung.unless }),
        });
    }
}
