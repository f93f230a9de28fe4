//! Rendering and sending: from a message whose intent is committed to what is to be recorded of it.
//!
//! A channel may have several providers (a pool): the next one is tried only where the one before definitely did not take the
//! message and the fault is its own; what a person's address is refused for, or what nobody knows, goes no further.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use super::retry::{self, Attempted};
use super::{Dispatcher, Pass, Ready, outcome, result};
use crate::channel::{Outcome as Answer, Outgoing, RetryClass};
use crate::engine::action::{Message, Outcome};
use crate::engine::decide::{Pause, ResultOf, result_event};
use crate::engine::event::Value;
use crate::engine::gate::duplicates;
use crate::engine::profile::{Name, Profile};
use crate::engine::run::SUPPRESS;
use crate::engine::time::Timestamp;
use crate::faults::Point;
use crate::message::{Content, RenderError, render};
use crate::store::{MessageResult, PauseScope, ResultKind};
use crate::versions::Snapshot;

/// Sends under way at once in one pass.
const SENDS_AT_ONCE: usize = 32;
/// Fewer messages than this are not worth a second thread.
const RENDERED_AT_ONCE_MIN: usize = 16;

/// Renders and sends; what comes back is what to record.
pub(super) async fn send_all(
    dispatcher: &Dispatcher,
    snapshot: &Snapshot,
    generation: i64,
    ready: Vec<Ready>,
    pass: &mut Pass,
) -> Vec<MessageResult> {
    let rendered = render_all(snapshot, ready).await;
    let spoiled = set_spoiled_aside(dispatcher, &rendered).await;
    let mut results = Vec::with_capacity(rendered.len());
    for chunk in rendered.chunks(SENDS_AT_ONCE) {
        let sends = chunk.iter().map(|(ready, content)| send(dispatcher, snapshot, generation, ready, content)).collect();
        for ((ready, _), sent) in chunk.iter().zip(join_all(sends).await) {
            let result = match (&sent, spoiled.get(&ready.claimed.message.rule)) {
                // it waits with its slot until the rule goes on
                (Some(Sent::Unrenderable(_)), Some(because)) => {
                    result(&ready.claimed, ready.at, ResultKind::Retry { until: ready.at, refused: true }, None, because)
                }
                _ => judge_answer(dispatcher, snapshot, ready, sent),
            };
            pass.attempts += 1;
            match &result.kind {
                ResultKind::Retry { .. } => pass.retried += 1,
                ResultKind::Outcome(Outcome::Accepted, _) => pass.accepted += 1,
                ResultKind::Outcome(Outcome::Failed, _) => pass.failed += 1,
                ResultKind::Outcome(Outcome::Bounced, _) => pass.bounced += 1,
                ResultKind::Outcome(Outcome::Unknown, _) => pass.unknown += 1,
                ResultKind::Outcome(Outcome::Dead, _) => pass.dead += 1,
                ResultKind::Outcome(..) | ResultKind::Release => {}
            }
            results.push(result);
        }
    }
    results
}

/// Pauses the rules whose template cannot be written for anybody; those, with the reason. If that cannot be written down the messages
/// fail one by one, as they would have.
async fn set_spoiled_aside(dispatcher: &Dispatcher, rendered: &[(Ready, Result<Content, RenderError>)]) -> BTreeMap<Name, String> {
    let written = rendered.iter().map(|(ready, content)| {
        let message = &ready.claimed.message;
        (&message.rule, &message.template, content.as_ref().err())
    });
    let mut spoiled = dispatcher.spoiled.judge(written);
    let Some(at) = rendered.iter().map(|(ready, _)| ready.at).max() else { return spoiled };
    let mut unpaused = Vec::new();
    for (rule, because) in &spoiled {
        let pause = Pause { at, reason: because.as_str().into() };
        match dispatcher.store.set_pause(at, PauseScope::Rule(rule.clone()), Some(pause), "quarantine").await {
            Ok(()) => tracing::error!(rule.id = %rule, "paused: {because}; once it is mended, `rekindle resume --rule {rule}`"),
            Err(error) => {
                tracing::error!(rule.id = %rule, "cannot be paused, though its {because}: {error}");
                unpaused.push(rule.clone());
            }
        }
    }
    spoiled.retain(|rule, _| !unpaused.contains(rule));
    spoiled
}

/// Liquid takes some 40 us a message: on threads that may block, off the runtime's own, as many as there are cores.
async fn render_all(snapshot: &Snapshot, mut ready: Vec<Ready>) -> Vec<(Ready, Result<Content, RenderError>)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = ready.len().div_ceil(cores).max(RENDERED_AT_ONCE_MIN);
    let mut works = Vec::with_capacity(cores);
    while !ready.is_empty() {
        let rest = ready.split_off(share.min(ready.len()));
        let (share, snapshot) = (std::mem::replace(&mut ready, rest), snapshot.clone());
        works.push(tokio::task::spawn_blocking(move || share.into_iter().map(|ready| render_one(&snapshot, ready)).collect::<Vec<_>>()));
    }
    let mut rendered = Vec::new();
    for work in works {
        rendered.extend(work.await.expect("every render is caught, so the task ends"));
    }
    rendered
}

fn render_one(snapshot: &Snapshot, ready: Ready) -> (Ready, Result<Content, RenderError>) {
    let content = written(snapshot, &ready.profile, &ready.claimed.message, ready.at);
    (ready, content)
}

fn written(snapshot: &Snapshot, profile: &Profile, message: &Message, at: Timestamp) -> Result<Content, RenderError> {
    let content = catch_unwind(AssertUnwindSafe(|| render(&snapshot.templates, snapshot.rules.names(), profile, message, at)));
    content.unwrap_or_else(|_| Err(RenderError::Liquid { part: "template", because: "it panicked".into() }))
}

/// What the gate `duplicates` compares; none where nothing can be written, which is told when it is to be sent.
pub(super) fn text_hash(snapshot: &Snapshot, profile: &Profile, message: &Message, at: Timestamp) -> Option<u64> {
    let content = written(snapshot, profile, message, at).ok()?;
    Some(duplicates::text_hash(message.channel, content.parts()))
}

/// One attempt's end: an answer, or why nothing could be sent.
enum Sent {
    Answer(Answer),
    Unrenderable(RenderError),
    NoChannel,
    /// Something was paused after its intent, and not a byte has left.
    CalledBack,
}

async fn send(
    dispatcher: &Dispatcher,
    snapshot: &Snapshot,
    generation: i64,
    ready: &Ready,
    content: &Result<Content, RenderError>,
) -> Sent {
    let message = &ready.claimed.message;
    let policy = &snapshot.rules.policy;
    let content = match content {
        Ok(content) => content,
        Err(error) => return Sent::Unrenderable(error.clone()),
    };
    let address = match ready.profile.addresses.get(&message.channel).map(|address| &address.value) {
        Some(Value::Text(address)) => address,
        _ => "",
    };
    let outgoing = Outgoing {
        message: message.id,
        attempt: ready.claimed.attempts + 1,
        kind: message.channel,
        category: message.category,
        policy: policy.channels.get(&message.channel),
        at: ready.at,
        profile: &ready.profile.key,
        address,
        rule: &message.rule,
        template: &message.template,
        content,
    };
    let route = dispatcher.channels.route(message.channel, policy);
    let named = outgoing.policy.map_or(message.channel.name(), |policy| &policy.provider);
    let mut refused = None;
    for step in route {
        if !dispatcher.traffic.lets(&step.provider, message.id) {
            let detail = "out of order since it was let through".to_owned();
            refused = refused.or(Some(Answer::Retry { class: RetryClass::Config, after_ms: None, detail }));
            continue;
        }
        let _place = dispatcher.traffic.place(&step).await;
        // the last instant at which it can be stopped; if the store does not answer, the intent stands as long as its claim does
        let is_called_back = dispatcher.store.generation().await.is_ok_and(|present| present != generation);
        if is_called_back || !dispatcher.store.may_send() {
            return refused.map_or(Sent::CalledBack, Sent::Answer);
        }
        Point::DispatchLeaving.reach();
        let answer = step.channel.send(&outgoing).await;
        dispatcher.traffic.hear(&step.provider, named, &outgoing, &answer);
        match answer {
            Answer::Retry { .. } => refused = Some(answer),
            answer => return Sent::Answer(answer),
        }
    }
    refused.map_or(Sent::NoChannel, Sent::Answer)
}

/// What an attempt means for the message.
fn judge_answer(dispatcher: &Dispatcher, snapshot: &Snapshot, ready: &Ready, sent: Option<Sent>) -> MessageResult {
    let (claimed, now) = (&ready.claimed, ready.at);
    let message = &claimed.message;
    let told = |what: Outcome, detail: &str| result(claimed, now, outcome(message, what, now, detail), None, detail);
    let attempted = Attempted {
        message: message.id,
        category: message.category,
        attempts: claimed.attempts + 1,
        first_attempt_at: claimed.first_attempt_at.unwrap_or(now),
        expires_at: message.expires_at,
        retries: snapshot.rules.policy.channels.get(&message.channel).and_then(|channel| channel.retries),
    };
    match sent {
        None => told(Outcome::Unknown, "the channel panicked"),
        Some(Sent::Unrenderable(error)) => {
            tracing::error!(message.id = %message.id, template.name = %message.template, rule.id = %message.rule, "cannot be written: {error}");
            told(Outcome::Failed, &format!("render: {error}"))
        }
        Some(Sent::CalledBack) => {
            let detail = "called back before it began to leave: something was paused, or another process may have taken over";
            result(claimed, now, ResultKind::Retry { until: now, refused: true }, None, detail)
        }
        Some(Sent::NoChannel) => told(Outcome::Failed, &format!("no provider for {}", message.channel)),
        Some(Sent::Answer(Answer::Accepted { provider_id })) => {
            result(claimed, now, outcome(message, Outcome::Accepted, now, ""), Some(provider_id), "")
        }
        Some(Sent::Answer(Answer::Rejected { suppress, detail })) => {
            let mut event = result_event(&ResultOf::from(message), Outcome::Failed, now, &detail);
            if suppress {
                // never taken, so its slot is free for the next channel; and this address is never tried again
                event.properties.insert(SUPPRESS.to_owned(), true.into());
            }
            result(claimed, now, ResultKind::Outcome(Outcome::Failed, event), None, &detail)
        }
        Some(Sent::Answer(Answer::Retry { class, after_ms, detail })) => match retry::next(class, after_ms, attempted, now) {
            Some(until) => result(claimed, now, ResultKind::Retry { until, refused: true }, None, &detail),
            None => told(Outcome::Dead, &format!("given up after {} attempts: {detail}", attempted.attempts)),
        },
        Some(Sent::Answer(Answer::Ambiguous { ask_again, detail })) => {
            let deduplicates = dispatcher.channels.deduplicates(message.channel, &snapshot.rules.policy);
            let again = (ask_again && deduplicates).then(|| retry::next(RetryClass::Transient, None, attempted, now)).flatten();
            match again {
                Some(until) => result(claimed, now, ResultKind::Retry { until, refused: false }, None, &detail),
                None => told(Outcome::Unknown, &detail),
            }
        }
    }
}

/// Waits for all, polling in order, so that a channel that answers at once is asked in order. A future that panics answers nothing;
/// the others go on.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<Option<F::Output>> {
    enum Slot<F: Future> {
        Running(Pin<Box<F>>),
        Done(Option<F::Output>),
    }
    let mut slots: Vec<Slot<F>> = futures.into_iter().map(|future| Slot::Running(Box::pin(future))).collect();
    poll_fn(|cx| {
        let mut all_done = true;
        for slot in &mut slots {
            let Slot::Running(future) = slot else { continue };
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Ready(output)) => *slot = Slot::Done(Some(output)),
                Ok(Poll::Pending) => all_done = false,
                Err(_) => *slot = Slot::Done(None),
            }
        }
        if all_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    slots.into_iter().map(|slot| if let Slot::Done(output) = slot { output } else { None }).collect()
}
