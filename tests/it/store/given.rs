//! What the store's tests are given: instants, events, decisions, messages, in as few words as possible.

use std::sync::Arc;

use rekindle::engine::action::{Channel, Entry, Message, MessageId, Outcome, Posting, PostingKind, What, dedupe_key};
use rekindle::engine::decide::Decision;
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::profile::{Category, Profile};
use rekindle::engine::time::{HOUR_MS, Timestamp};
use rekindle::store::{
    ClaimedMessages, ClaimedProfile, Committed, DecisionCommit, Identity, IntentCommit, IntentStep, Look, MessageIntent, MessageResult,
    NewEvent, ProfileId, ResultKind, Store,
};

pub const WORKER: &str = "worker-1";
pub const RULES: u64 = 0xdead_beef_dead_beef;

/// Some hour of the first of March 2026.
pub fn hour(hours: i64) -> Timestamp {
    Timestamp::parse("2026-03-01T00:00:00Z").expect("an instant").plus_ms(hours * HOUR_MS)
}

pub fn event(id: &str, at: Timestamp) -> Event {
    Event {
        id: Arc::from(id),
        kind: EventKind::Track,
        name: Arc::from("Order Completed"),
        occurred_at: at,
        received_at: at,
        source: Arc::from("shop"),
        properties: serde_json::json!({ "total": "12.50", "text": "a \"quoted\" word, \u{1F600}" })
            .as_object()
            .cloned()
            .unwrap_or_default(),
    }
}

pub fn from_user(user: &str, event: Event) -> NewEvent {
    NewEvent { identity: user_named(user), link: None, event, active: true }
}

pub fn user_named(user: &str) -> Identity {
    Identity::User(Arc::from(user))
}

/// An event of the engine's own about a message.
pub fn message_event(message: MessageId, outcome: Outcome, at: Timestamp) -> Event {
    Event {
        id: Arc::from(format!("{message}-{}", outcome.name())),
        kind: EventKind::Engine,
        name: Arc::from(format!("message_{}", outcome.name())),
        occurred_at: at,
        received_at: at,
        source: Arc::from("rekindle"),
        properties: serde_json::Map::new(),
    }
}

/// A decision that changes nothing but the instant of the next look.
pub fn decision(profile: Profile, due_at: Timestamp) -> Decision {
    Decision {
        profile,
        due_at,
        messages: Vec::new(),
        cancelled: Vec::new(),
        postings: Vec::new(),
        exposures: Vec::new(),
        own_events: Vec::new(),
        entries: Vec::new(),
        alerts: Vec::new(),
        entered: Vec::new(),
        budget_used: Vec::new(),
        taking: vec![],
    }
}

pub fn commit(claimed: &ClaimedProfile, decision: Decision) -> DecisionCommit {
    DecisionCommit { claim: claimed.claim, decision, rules_version: RULES, limits: Arc::default() }
}

pub fn message(user: &str, step: &str, due_at: Timestamp) -> Message {
    let dedupe_key = dedupe_key("silence", "", 1, user, step, Channel::Email);
    Message {
        id: MessageId::derive(due_at, dedupe_key),
        dedupe_key,
        rule: Arc::from("silence"),
        version: RULES,
        run_key: Arc::from(""),
        run: 1,
        step: Arc::from(step),
        channel: Channel::Email,
        category: Category::Marketing,
        template: Arc::from("warning"),
        languages: vec![Arc::from("de"), Arc::from("en")],
        decided_at: due_at,
        due_at,
        expires_at: due_at.plus_ms(24 * HOUR_MS),
        priority: 50,
        wakes_on: Outcome::Bounced.bit() | Outcome::Failed.bit(),
        data: serde_json::json!({ "notice": { "amount": 120 } }).as_object().cloned().unwrap_or_default(),
    }
}

pub fn entry(step: &str, what: What, at: Timestamp) -> Entry {
    Entry { at, rule: Arc::from("silence"), run: 1, step: Arc::from(step), what, because: Arc::from("30 days"), until: Some(at) }
}

pub fn posting(number: u32, amount: i64, at: Timestamp) -> Posting {
    Posting {
        number,
        kind: if amount < 0 { PostingKind::Take } else { PostingKind::Grant },
        class: Arc::from("bonus"),
        amount,
        at,
        allocations: vec![(1, amount - 1), (2, 1)],
        reason: Arc::from("silence-1"),
        rule: Some(Arc::from("silence")),
        run: Some(1),
        step: None,
        notice: Some(MessageId(7)),
    }
}

/// A user with one absorbed event, looked at and not due again before `due_at`.
pub async fn settled(store: &dyn Store, user: &str, due_at: Timestamp) -> ProfileId {
    queued(store, user, &[], due_at).await
}

/// A user, absorbed at hour 0, with these messages queued; the profile is next due at `due_at`.
pub async fn queued(store: &dyn Store, user: &str, messages: &[Message], due_at: Timestamp) -> ProfileId {
    store.append_events(vec![from_user(user, event(&format!("first-{user}"), hour(0)))]).await.expect("appended");
    let claimed = claim_one(store, user, hour(0)).await;
    let decision = Decision { messages: messages.to_vec(), ..decision(claimed.profile.clone(), due_at) };
    let answers = store.commit_decisions(vec![commit(&claimed, decision)]).await.expect("committed");
    assert_eq!(answers, [Committed::Committed]);
    claimed.claim.profile
}

/// Claims everybody who is due, and picks one; the others are released again.
pub async fn claim_one(store: &dyn Store, user: &str, now: Timestamp) -> ClaimedProfile {
    let due = store.claim_due(now, 100, WORKER).await.expect("claimed");
    let (mut mine, others): (Vec<_>, Vec<_>) = due.profiles.into_iter().partition(|p| &*p.profile.key == user);
    store.release_profiles(others.iter().map(|p| p.claim).collect(), false).await.expect("released");
    mine.pop().unwrap_or_else(|| panic!("{user} is not due at {now}"))
}

pub async fn claim_messages(store: &dyn Store, now: Timestamp) -> Vec<ClaimedMessages> {
    store.claim_messages(Look::Now(now), 100, WORKER).await.expect("claimed")
}

/// The intent that does the same with every message of a group, and changes nothing else.
pub fn intent(group: &ClaimedMessages, at: Timestamp, step: impl Fn() -> IntentStep) -> IntentCommit {
    IntentCommit {
        profile_id: group.profile_id,
        at,
        version: group.version,
        profile: Some(Arc::new(group.profile.clone())),
        due_at: None,
        messages: group.messages.iter().map(|m| MessageIntent { message: m.message.id, epoch: m.epoch, step: step() }).collect(),
        own_events: Vec::new(),
        entries: Vec::new(),
        rules_version: RULES,
    }
}

/// Takes the due messages at `now` to `sending`.
pub async fn sending(store: &dyn Store, now: Timestamp) -> Vec<ClaimedMessages> {
    let groups = claim_messages(store, now).await;
    let generation = generation(store).await;
    let intents = groups.iter().map(|group| intent(group, now, || IntentStep::Send { at: now })).collect();
    let answers = store.commit_intents(generation, intents).await.expect("committed");
    assert!(answers.iter().all(|answer| answer.is_committed()), "{answers:?}");
    groups
}

pub async fn generation(store: &dyn Store) -> i64 {
    store.world(hour(0)).await.expect("the world").generation
}

pub fn result(message: MessageId, epoch: Option<i64>, outcome: Outcome, at: Timestamp) -> MessageResult {
    let kind = ResultKind::Outcome(outcome, message_event(message, outcome, at));
    MessageResult { message, epoch, at, kind, provider_id: Some("p-1".into()), detail: None }
}
