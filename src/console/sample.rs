//! `send-test`: one message, written as for somebody and sent to an address of one's own. It is marked, leaves no trace in ledger, slots or
//! decision log, and asks no gate: what is tested is the text and the way out.

use serde_json::{Map, json};

use crate::channel::{Channels, Outcome, Outgoing};
use crate::engine::action::{Channel as Kind, Message, MessageId};
use crate::engine::event::Event;
use crate::engine::profile::{Name, Profile};
use crate::engine::rule::{Action, Policy, Rule, RuleSet, Send, Step, Trigger};
use crate::engine::time::{DAY_MS, Timestamp};
use crate::message::{Content, render};
use crate::versions::Snapshot;

/// Begins subject, title or text of every test message.
const MARK: &str = "[TEST] ";

/// What is to be sent.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    pub rule: &'a Rule,
    pub step: &'a Step,
    pub send: &'a Send,
    pub channel: Kind,
}

/// The step of a rule that sends on that channel: the one named, else the first.
pub fn pick<'a>(rules: &'a RuleSet, rule: &str, step: Option<&str>, channel: Option<Kind>) -> Result<Sample<'a>, String> {
    let rule = rules.called(rule).ok_or_else(|| format!("there is no rule `{rule}`"))?;
    let sends = rule.steps.iter().chain(&rule.on_exit).filter_map(|step| match &step.action {
        Action::Send(send) => Some((step, send)),
        _ => None,
    });
    let all: Vec<(&Step, &Send)> = sends.collect();
    let named = all.iter().filter(|(found, _)| step.is_none_or(|step| *found.id == *step));
    let fits = |send: &Send| channel.is_none_or(|channel| send.channels.contains(&channel));
    let Some((step, send)) = named.into_iter().find(|(_, send)| fits(send)) else {
        let known: Vec<String> = all
            .iter()
            .map(|(step, send)| format!("{} ({})", step.id, send.channels.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")))
            .collect();
        return Err(match known.is_empty() {
            true => format!("rule `{}` sends nothing", rule.id),
            false => format!("rule `{}` has no such step; it sends in {}", rule.id, known.join("; ")),
        });
    };
    let channel = channel.or_else(|| send.channels.first().copied()).ok_or("the step names no channel")?;
    Ok(Sample { rule, step, send, channel })
}

/// Writes the sample as for this person, with the latest event that the rule would have begun with.
pub fn write(
    sample: &Sample<'_>,
    snapshot: &Snapshot,
    profile: &Profile,
    events: &[(Event, bool)],
    now: Timestamp,
) -> Result<(Message, Content), String> {
    let message = message(sample, snapshot, profile, events, now);
    let mut content = render(&snapshot.templates, snapshot.rules.names(), profile, &message, now).map_err(|error| error.to_string())?;
    mark(&mut content);
    Ok((message, content))
}

fn message(sample: &Sample<'_>, snapshot: &Snapshot, profile: &Profile, events: &[(Event, bool)], now: Timestamp) -> Message {
    let Sample { rule, step, send, channel } = sample;
    let mut data = Map::new();
    if let Trigger::Event { event: name, .. } = &rule.trigger
        && let Some((event, _)) = events.iter().rev().find(|(event, _)| event.name == *name)
    {
        data.insert("event".to_owned(), event.properties.clone().into());
    }
    if !send.data.is_empty() {
        let texts: Map<_, _> = send.data.iter().map(|(name, text)| (name.to_string(), text.as_str().into())).collect();
        data.insert("data".to_owned(), texts.into());
    }
    if send.offer.is_some() {
        let until = now.plus_ms(7 * DAY_MS).to_string();
        data.insert("offer".to_owned(), json!({ "code": "TEST-CODE", "until": until, "value": "10%" }));
    }
    data.insert("notice".to_owned(), json!({ "amount": 100, "from": now.plus_ms(7 * DAY_MS).to_string() }));
    // a key of its own: a test is never taken for the message of a run
    let about = format!("test\0{}\0{}\0{}\0{}\0{}", rule.id, step.id, channel.name(), profile.key, now.as_ms());
    let key = twox_hash::XxHash3_128::oneshot(about.as_bytes());
    Message {
        id: MessageId::derive(now, key),
        dedupe_key: key,
        rule: rule.id.clone(),
        version: snapshot.rules.version,
        run_key: Name::from(""),
        run: 0,
        step: step.id.clone(),
        channel: *channel,
        category: send.category,
        template: send.template.clone(),
        languages: send.languages.clone(),
        decided_at: now,
        due_at: now,
        expires_at: now.plus_ms(DAY_MS),
        priority: rule.priority,
        wakes_on: 0,
        data,
    }
}

fn mark(content: &mut Content) {
    let visible = [&mut content.subject, &mut content.push_title, &mut content.sms, &mut content.whatsapp];
    for text in visible.into_iter().flatten() {
        text.insert_str(0, MARK);
    }
}

/// Sends it to an address that is not the person's, by the first provider of its channel.
pub async fn send(
    channels: &Channels,
    policy: &Policy,
    message: &Message,
    content: &Content,
    profile: &Profile,
    to: &str,
) -> Result<String, String> {
    let route = channels.route(message.channel, policy);
    let Some(first) = route.first() else {
        return Err(format!("no provider is configured for {}", message.channel));
    };
    let outgoing = Outgoing {
        message: message.id,
        attempt: 1,
        kind: message.channel,
        category: message.category,
        policy: policy.channels.get(&message.channel),
        at: message.decided_at,
        profile: &profile.key,
        address: to,
        rule: &message.rule,
        template: &message.template,
        content,
    };
    match first.channel.send(&outgoing).await {
        Outcome::Accepted { provider_id } => Ok(format!("accepted by the provider as {provider_id}")),
        Outcome::Retry { detail, .. } => Err(format!("not taken this time: {detail}")),
        Outcome::Rejected { detail, .. } => Err(format!("refused: {detail}")),
        Outcome::Ambiguous { detail, .. } => Err(format!("in doubt, it may have gone out: {detail}")),
    }
}
