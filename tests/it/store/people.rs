//! Who somebody is: two ids of one person, profiles that turn out to be one, keys, and what was refused at the door.

use std::sync::Arc;

use rekindle::engine::action::{Channel, MessageState};
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::merge::PROFILE_MERGED;
use rekindle::engine::profile::{Category, Profile, Slot};
use rekindle::store::{Committed, Identity, KeyScope, Link, NewEvent, NewKey, ProfileId, Reject, Store};

use super::exercise::Harness;
use super::given::*;

fn anonymous(id: &str) -> Identity {
    Identity::Anonymous(Arc::from(id))
}

fn seen_as(anonymous_id: &str, event: Event) -> NewEvent {
    NewEvent { identity: anonymous(anonymous_id), link: None, event, active: true }
}

/// The user says under which anonymous id they were seen.
fn linked(user: &str, anonymous_id: &str, event: Event) -> NewEvent {
    NewEvent { link: Some(Link::Anonymous(Arc::from(anonymous_id))), ..from_user(user, event) }
}

fn alias(user: &str, previous: &str, event: Event) -> NewEvent {
    NewEvent { link: Some(Link::Previous(Arc::from(previous))), ..from_user(user, event) }
}

async fn found(store: &dyn Store, identity: &Identity) -> ProfileId {
    store.find_profile(identity).await.expect("read").expect("somebody")
}

/// Ids of the facts of a person, in order of time.
async fn facts(store: &dyn Store, id: ProfileId) -> Vec<String> {
    let events = store.history(id).await.expect("read").events;
    events.iter().filter(|(event, _)| event.kind != EventKind::Engine).map(|(event, _)| event.id.to_string()).collect()
}

pub async fn who_signs_up_keeps_the_profile_of_the_visits_before(h: &dyn Harness) {
    let store = h.open().await;
    store.append_events(vec![seen_as("phone", event("a", hour(1)))]).await.expect("appended");
    let visitor = found(&*store, &anonymous("phone")).await;
    let appended = store.append_events(vec![linked("u", "phone", event("b", hour(2)))]).await.expect("appended");
    assert_eq!((appended.new, appended.profiles_created, appended.profiles_merged), (1, 0, 0));
    assert_eq!(found(&*store, &user_named("u")).await, visitor);
    let stored = store.profile(visitor).await.expect("read").expect("there");
    assert_eq!(&*stored.profile.key, "phone", "what hangs on the key (holdout, spread) stays as it was");
    // and the other way about: a known customer on a new device is not a new person
    let appended = store.append_events(vec![linked("u", "laptop", event("c", hour(3)))]).await.expect("appended");
    assert_eq!((appended.profiles_created, appended.profiles_merged), (0, 0));
    store.append_events(vec![seen_as("laptop", event("d", hour(4)))]).await.expect("appended");
    assert_eq!(facts(&*store, visitor).await, ["a", "b", "c", "d"]);
}

pub async fn two_profiles_of_one_person_become_one_and_nothing_counts_twice(h: &dyn Harness) {
    let store = h.open().await;
    let user = settled(&*store, "u", hour(90)).await;
    // one fact absorbed, one that waits, one that both have
    store.append_events(vec![seen_as("phone", event("a", hour(1)))]).await.expect("appended");
    let claimed = claim_one(&*store, "phone", hour(1)).await;
    store.commit_decisions(vec![commit(&claimed, decision(claimed.profile.clone(), hour(90)))]).await.expect("committed");
    store.append_events(vec![seen_as("phone", event("b", hour(2)))]).await.expect("appended");
    let gone = found(&*store, &anonymous("phone")).await;
    let merging = || vec![linked("u", "phone", event("c", hour(3))), seen_as("phone", event("a", hour(1)))];
    let appended = store.append_events(merging()).await.expect("appended");
    assert_eq!((appended.new, appended.duplicates, appended.profiles_merged), (1, 1, 1));

    assert_eq!(found(&*store, &anonymous("phone")).await, user);
    assert_eq!(facts(&*store, user).await, ["first-u", "a", "b", "c"]);
    assert!(facts(&*store, gone).await.is_empty(), "a fact stands in one place");
    let closed = store.profile(gone).await.expect("read").expect("there");
    assert_eq!(closed.merged_into, Some(user));
    assert!(closed.due_at.is_forever());
    store.reinstate(hour(3), vec![gone]).await.expect("reinstated");
    store.make_all_due(hour(3), 0).await.expect("due");
    let due = store.claim_due(hour(3), 10, WORKER).await.expect("claimed").profiles;
    let [claimed] = &due[..] else { panic!("only who stays is due: {}", due.len()) };
    assert_eq!(claimed.claim.profile, user);
    let heard: Vec<&str> = claimed.events.iter().filter(|event| event.kind != EventKind::Engine).map(|event| &*event.id).collect();
    assert_eq!(heard, ["c", "a", "b"], "in the order of acknowledgement");

    let again = store.append_events(merging()).await.expect("appended");
    assert_eq!((again.new, again.duplicates, again.profiles_merged), (0, 2, 0), "said again it changes nothing");
    h.close(store).await;
    let store = h.open().await;
    let again = store.append_events(vec![seen_as("phone", event("b", hour(2))), seen_as("phone", event("e", hour(5)))]).await;
    assert_eq!(again.map(|appended| (appended.new, appended.duplicates)).expect("appended"), (1, 1), "nor after a restart");
    assert_eq!(facts(&*store, user).await, ["first-u", "a", "b", "c", "e"]);
}

pub async fn whoever_shares_a_device_stays_somebody_else(h: &dyn Harness) {
    let store = h.open().await;
    let batch = vec![linked("u", "till", event("a", hour(1))), linked("v", "till", event("b", hour(2)))];
    let appended = store.append_events(batch).await.expect("appended");
    assert_eq!((appended.profiles_created, appended.profiles_merged), (2, 0));
    let (u, v) = (found(&*store, &user_named("u")).await, found(&*store, &user_named("v")).await);
    assert_ne!(u, v);
    assert_eq!(found(&*store, &anonymous("till")).await, u, "the device stays with whom it knew first");
}

pub async fn an_alias_joins_two_names_of_a_customer(h: &dyn Harness) {
    let store = h.open().await;
    // the old name is known, the new one is not: a new name
    store.append_events(vec![from_user("old", event("a", hour(1)))]).await.expect("appended");
    let old = found(&*store, &user_named("old")).await;
    store.append_events(vec![alias("new", "old", event("b", hour(2)))]).await.expect("appended");
    assert_eq!(found(&*store, &user_named("new")).await, old);
    // both are known: the shop says that they are one, so they are
    store.append_events(vec![from_user("other", event("c", hour(3)))]).await.expect("appended");
    let appended = store.append_events(vec![alias("new", "other", event("d", hour(4)))]).await.expect("appended");
    assert_eq!(appended.profiles_merged, 1);
    assert_eq!(facts(&*store, old).await, ["a", "b", "c", "d"]);
    // neither was heard of: what comes later under the old name finds the person
    store.append_events(vec![alias("z", "y", event("e", hour(5))), seen_as("y", event("f", hour(6)))]).await.expect("appended");
    assert_eq!(facts(&*store, found(&*store, &user_named("z")).await).await, ["e", "f"]);
    // a chain in one batch ends in one person
    let people = vec![from_user("p", event("p", hour(1))), from_user("q", event("q", hour(1))), from_user("r", event("r", hour(1)))];
    store.append_events(people).await.expect("appended");
    let chain = vec![alias("q", "p", event("s", hour(7))), alias("r", "q", event("t", hour(8)))];
    assert_eq!(store.append_events(chain).await.expect("appended").profiles_merged, 2);
    let one = found(&*store, &user_named("p")).await;
    assert_eq!(one, found(&*store, &user_named("r")).await);
    assert_eq!(facts(&*store, one).await, ["p", "q", "r", "s", "t"]);
}

pub async fn a_merge_stops_what_waits_and_counts_what_went(h: &dyn Harness) {
    let store = h.open().await;
    settled(&*store, "u", hour(90)).await;
    let (waits, went) = (message("phone", "waits", hour(20)), message("phone", "went", hour(1)));
    store.append_events(vec![seen_as("phone", event("a", hour(0)))]).await.expect("appended");
    let claimed = claim_one(&*store, "phone", hour(0)).await;
    let slot = |message: &rekindle::engine::action::Message| Slot {
        message: message.id,
        rule: Arc::from("silence"),
        category: Category::Marketing,
        channel: Channel::Email,
        sent_at: None,
        text: None,
    };
    let profile = Profile { slots: vec![slot(&waits), slot(&went)], ..claimed.profile.clone() };
    let queued = rekindle::engine::decide::Decision { messages: vec![waits.clone(), went.clone()], ..decision(profile, hour(90)) };
    store.commit_decisions(vec![commit(&claimed, queued)]).await.expect("committed");
    sending(&*store, hour(1)).await;
    // a look at the visitor is under way while the customer logs in
    store.append_events(vec![seen_as("phone", event("b", hour(2)))]).await.expect("appended");
    let under_way = claim_one(&*store, "phone", hour(2)).await;
    store.append_events(vec![linked("u", "phone", event("c", hour(3)))]).await.expect("appended");

    let late = store.commit_decisions(vec![commit(&under_way, decision(under_way.profile.clone(), hour(90)))]).await;
    assert_eq!(late.expect("answered"), [Committed::Conflict]);
    let messages = store.messages(&[waits.id, went.id]).await.expect("read");
    let state = |id| messages.iter().find(|row| row.message.id == id).map(|row| row.state);
    assert_eq!((state(waits.id), state(went.id)), (Some(MessageState::Cancelled), Some(MessageState::Sending)));
    let user = claim_one(&*store, "u", hour(3)).await;
    let merged: Vec<&Event> = user.events.iter().filter(|event| &*event.name == PROFILE_MERGED).collect();
    let [merged] = merged[..] else { panic!("one event tells of the merge: {:?}", user.events) };
    let slots = merged.property("slots").and_then(|slots| slots.as_array()).expect("slots");
    assert_eq!(slots.len(), 1, "what never goes out takes no slot");
    assert_eq!(slots[0]["message"], went.id.to_string());
}

pub async fn keys_are_kept_by_hash_and_revoked_once(h: &dyn Harness) {
    let store = h.open().await;
    let key = |source: &str, scope, byte| NewKey { source: Arc::from(source), scope, hash: [byte; 32], at: hour(1), by: Arc::from("ana") };
    let first = store.add_key(key("shop", KeyScope::Write, 1)).await.expect("added");
    let second = store.add_key(key("shop", KeyScope::Write, 2)).await.expect("added");
    store.add_key(key("till", KeyScope::Read, 3)).await.expect("added");
    assert!(store.add_key(key("app", KeyScope::Write, 1)).await.is_err(), "a key opens one door");
    assert!(store.revoke_key(first, hour(2), "ben").await.expect("revoked"));
    assert!(!store.revoke_key(first, hour(3), "cem").await.expect("answered"));
    h.close(store).await;
    let keys = h.open().await.keys().await.expect("read");
    let told: Vec<_> = keys.iter().map(|key| (key.id, &*key.source, key.scope, key.hash[0], key.revoked.clone())).collect();
    assert_eq!(
        told[..2],
        [(first, "shop", KeyScope::Write, 1, Some((hour(2), Arc::from("ben")))), (second, "shop", KeyScope::Write, 2, None)]
    );
    assert_eq!((told[2].1, told[2].2, keys[2].created_at, &*keys[2].created_by), ("till", KeyScope::Read, hour(1), "ana"));
}

pub async fn what_is_refused_is_kept_with_its_reason_and_counted(h: &dyn Harness) {
    let store = h.open().await;
    let reject = |row: &str, at| Reject { source: Arc::from("shop"), reason: "no `type`".into(), row: row.into(), at };
    store.keep_rejects(vec![reject("{}", hour(1)), reject("[]", hour(1))]).await.expect("kept");
    store.keep_rejects(vec![reject("{}", hour(2))]).await.expect("kept");
    let rejects = store.rejects(0, 10).await.expect("read");
    let told: Vec<_> = rejects.iter().map(|r| (&*r.row, &*r.reason, r.first_at, r.last_at, r.times)).collect();
    assert_eq!(told, [("{}", "no `type`", hour(1), hour(2), 2), ("[]", "no `type`", hour(1), hour(1), 1)]);
    assert_eq!(store.rejects(rejects[0].seq, 10).await.expect("read").len(), 1);
}
