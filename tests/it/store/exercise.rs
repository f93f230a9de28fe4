//! What every store must do, through the trait alone: each operation and each guard. A database joins by giving a [`Harness`].

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use rekindle::engine::action::{Channel, ExposureRecord, Message, MessageId, MessageState, Outcome, What};
use rekindle::engine::decide::{Decision, Pause};
use rekindle::engine::event::{Event, EventKind, Value};
use rekindle::engine::profile::{Attribute, Category};
use rekindle::engine::profile::{Hold, Slot};
use rekindle::engine::time::{HOUR_MS, MINUTE_MS, Timestamp};
use rekindle::store::{
    Backlog, CLAIMS_MAX, Committed, DecisionCommit, EventSeq, Glance, Identity, IntentStep, Limits, Look, MessageResult, NewEvent,
    PauseScope, ProfileId, Publication, PublishedRule, RefusedRules, ResultKind, SetAside, Store, StoreError,
};

use rekindle::store::suppression::{Lift, Reason, SOFT_BOUNCE_UNTIL_MS, Scope, Suppress};

use super::given::*;

/// A database of its own for one test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Opens it under a name; a second time only after [`Harness::close`].
    async fn open_as(&self, environment: &str) -> Box<dyn Store>;

    async fn open(&self) -> Box<dyn Store> {
        self.open_as("test").await
    }

    /// Ends this process's use of it, as a crash would leave it: nothing is tidied.
    async fn close(&self, store: Box<dyn Store>);
}

/// Every test of the suite, by name: a database's module makes a test of each.
macro_rules! each_exercise {
    ($with:ident) => {
        $with! {
            promise_i7_an_acknowledged_event_is_applied_exactly_once,
            promise_i7_a_restart_does_not_forget_what_came_in,
            promise_i7_a_copy_is_known_whatever_the_senders_clock_says,
            a_profile_is_created_once_and_due_when_its_event_came,
            nobody_is_claimed_twice,
            only_the_holder_of_the_claim_commits,
            an_event_that_comes_during_a_look_is_not_overslept,
            everything_a_decision_holds_is_written_once,
            promise_i1_one_message_for_each_dedupe_key,
            one_person_twice_in_a_batch_is_a_conflict,
            claims_are_counted_and_orderly_returns_are_not,
            what_was_claimed_twice_without_a_result_is_claimed_alone,
            what_is_given_back_is_due_and_counts_if_it_is_to,
            what_is_set_aside_waits_until_it_is_reinstated,
            a_message_goes_its_way,
            promise_i3_a_waiting_fact_stops_the_intent,
            a_newer_row_stops_the_intent,
            promise_i3_a_pause_stops_the_intent,
            what_waits_is_walked_over_and_woken,
            a_cancelled_message_does_not_go_out,
            the_gates_may_hold_or_end_a_message,
            promise_i6_late_results_end_the_same_in_any_order,
            results_wake_only_whom_they_concern,
            a_stale_worker_leaves_evidence_and_changes_nothing,
            a_refused_attempt_gives_its_slot_the_date_back,
            room_that_a_failure_makes_wakes_who_waits_for_it,
            promise_i5_what_was_sending_at_a_crash_is_not_sent_again,
            promise_i4_a_retry_is_due_before_its_deadline,
            rules_go_live_and_their_texts_stay,
            what_went_live_and_what_was_refused_is_on_record,
            first_looks_are_spread_and_disturb_looks_under_way,
            the_world_is_what_operators_made_it,
            budgets_and_the_brake_are_counted,
            a_commit_counts_what_was_entered_after_it_was_decided,
            silence_of_workers_is_downtime,
            sources_are_counted_by_hour,
            a_database_keeps_its_environment,
            a_database_that_is_no_backup_begins_as_it_was,
            a_virtual_clock_finds_its_next_stop,
            a_replay_looks_at_everything_in_its_own_instant,
            counts_and_pages_tell_the_same,
            who_signs_up_keeps_the_profile_of_the_visits_before,
            two_profiles_of_one_person_become_one_and_nothing_counts_twice,
            whoever_shares_a_device_stays_somebody_else,
            an_alias_joins_two_names_of_a_customer,
            a_merge_stops_what_waits_and_counts_what_went,
            keys_are_kept_by_hash_and_revoked_once,
            what_is_refused_is_kept_with_its_reason_and_counted,
            promise_i3_a_suppressed_address_stops_the_intent,
            a_suppression_forbids_what_it_speaks_of_while_it_lasts,
            soft_bounces_close_an_address_after_three_days,
            what_was_heard_once_is_not_heard_again,
            a_message_keeps_the_proof_of_consent,
            the_backlog_tells_what_waits_and_what_is_in_doubt,
            a_glance_sees_the_row_and_what_it_does_not_know_yet,
        }
    };
}
pub(super) use each_exercise;

pub use super::people::*;

// -------------------------------------------------------------------------------------------------------------- events

pub async fn promise_i7_an_acknowledged_event_is_applied_exactly_once(h: &dyn Harness) {
    let store = h.open().await;
    let (a, b) = (event("a", hour(1)), event("b", hour(1)));
    let first = store.append_events(vec![from_user("u", a.clone()), from_user("u", b.clone()), from_user("u", a.clone())]).await;
    let first = first.expect("appended");
    assert_eq!((first.new, first.duplicates, first.profiles_created), (2, 1, 1));
    let again = store.append_events(vec![from_user("u", b.clone()), from_user("u", event("c", hour(2)))]).await.expect("appended");
    assert_eq!((again.new, again.duplicates, again.profiles_created), (1, 1, 0));
    let mut other_source = a.clone();
    other_source.source = Arc::from("app");
    let other = store.append_events(vec![from_user("u", other_source)]).await.expect("appended");
    assert_eq!(other.new, 1, "an id is unique per source only");
    let under_another_name = NewEvent { identity: Identity::Anonymous(Arc::from("phone")), link: None, event: a, active: false };
    assert_eq!(store.append_events(vec![under_another_name]).await.expect("appended").duplicates, 1);
    let claimed = claim_one(&*store, "u", hour(3)).await;
    let ids: Vec<&str> = claimed.events.iter().map(|event| &*event.id).collect();
    assert_eq!(ids, ["a", "b", "c", "a"]);
    assert_eq!(claimed.events.first().expect("an event"), &event("a", hour(1)), "an event comes back as it went in");
}

pub async fn promise_i7_a_restart_does_not_forget_what_came_in(h: &dyn Harness) {
    let store = h.open().await;
    store.append_events(vec![from_user("u", event("a", hour(1))), from_user("u", event("b", hour(5)))]).await.expect("appended");
    h.close(store).await;
    let store = h.open().await;
    let again = vec![from_user("u", event("b", hour(5))), from_user("u", event("a", hour(1))), from_user("u", event("c", hour(1)))];
    let appended = store.append_events(again).await.expect("appended");
    assert_eq!((appended.new, appended.duplicates, appended.profiles_created), (1, 2, 0));
}

/// What does not say when it happened has happened as it came, so its copy happens later; and a clock that is ahead makes a fact happen
/// later than it was received.
pub async fn promise_i7_a_copy_is_known_whatever_the_senders_clock_says(h: &dyn Harness) {
    let store = h.open().await;
    store.append_events(vec![from_user("u", event("undated", hour(1))), from_user("u", event("ahead", hour(1)))]).await.expect("appended");
    h.close(store).await;
    let store = h.open().await;
    let mut ahead = event("ahead", hour(1).plus_ms(2 * MINUTE_MS));
    ahead.received_at = hour(1).plus_ms(3 * MINUTE_MS);
    let again = store.append_events(vec![from_user("u", event("undated", hour(9))), from_user("u", ahead)]).await.expect("appended");
    assert_eq!((again.new, again.duplicates), (0, 2));
}

pub async fn a_profile_is_created_once_and_due_when_its_event_came(h: &dyn Harness) {
    let store = h.open().await;
    assert_eq!(store.find_profile(&user_named("u")).await.expect("read"), None);
    let mut late = event("late", hour(1));
    late.received_at = hour(7);
    store.append_events(vec![from_user("u", late)]).await.expect("appended");
    let id = store.find_profile(&user_named("u")).await.expect("read").expect("created");
    assert_eq!(store.find_profile(&Identity::Anonymous(Arc::from("u"))).await.expect("read"), None, "another kind of identity");
    let stored = store.profile(id).await.expect("read").expect("there");
    assert_eq!((stored.due_at, stored.waiting.len(), &*stored.profile.key), (hour(7), 1, "u"));
    assert!(store.claim_due(hour(6), 10, WORKER).await.expect("claimed").profiles.is_empty(), "nothing is due before it came");
    assert_eq!(store.claim_due(hour(7), 10, WORKER).await.expect("claimed").profiles.len(), 1);
}

// ----------------------------------------------------------------------------------------------------------- decisions

pub async fn nobody_is_claimed_twice(h: &dyn Harness) {
    let store = h.open().await;
    for user in ["a", "b", "c"] {
        store.append_events(vec![from_user(user, event(user, hour(1)))]).await.expect("appended");
    }
    let first = store.claim_due(hour(2), 2, "one").await.expect("claimed").profiles;
    let second = store.claim_due(hour(2), 10, "two").await.expect("claimed").profiles;
    let third = store.claim_due(hour(2), 10, "three").await.expect("claimed").profiles;
    assert_eq!((first.len(), second.len(), third.len()), (2, 1, 0));
}

pub async fn only_the_holder_of_the_claim_commits(h: &dyn Harness) {
    let store = h.open().await;
    store.append_events(vec![from_user("u", event("a", hour(1)))]).await.expect("appended");
    let stale = claim_one(&*store, "u", hour(2)).await;
    store.release_profiles(vec![stale.claim], false).await.expect("released");
    let fresh = claim_one(&*store, "u", hour(2)).await;
    assert!(fresh.claim.epoch > stale.claim.epoch);
    let answer = |claimed: &_| store.commit_decisions(vec![commit(claimed, decision(fresh.profile.clone(), hour(9)))]);
    assert_eq!(answer(&stale).await.expect("answered"), [Committed::Conflict], "its claim was taken over");
    assert_eq!(answer(&fresh).await.expect("answered"), [Committed::Committed]);
    assert_eq!(answer(&fresh).await.expect("answered"), [Committed::Conflict], "one commit a claim");
    let stored = store.profile(fresh.claim.profile).await.expect("read").expect("there");
    assert_eq!((stored.version, stored.due_at, stored.waiting.len()), (fresh.claim.version + 1, hour(9), 0));
}

pub async fn an_event_that_comes_during_a_look_is_not_overslept(h: &dyn Harness) {
    let store = h.open().await;
    store.append_events(vec![from_user("u", event("a", hour(1)))]).await.expect("appended");
    let claimed = claim_one(&*store, "u", hour(2)).await;
    store.append_events(vec![from_user("u", event("b", hour(3)))]).await.expect("appended");
    let commit = commit(&claimed, decision(claimed.profile.clone(), hour(99)));
    assert_eq!(store.commit_decisions(vec![commit]).await.expect("answered"), [Committed::Committed]);
    let stored = store.profile(claimed.claim.profile).await.expect("read").expect("there");
    assert_eq!(stored.due_at, hour(3), "due as the event came in, not when the look before it thought");
    let next = claim_one(&*store, "u", hour(3)).await;
    assert_eq!(next.events.iter().map(|e| &*e.id).collect::<Vec<_>>(), ["b"], "what was absorbed is not handed out again");
}

pub async fn everything_a_decision_holds_is_written_once(h: &dyn Harness) {
    let store = h.open().await;
    store.append_events(vec![from_user("u", event("a", hour(1)))]).await.expect("appended");
    let claimed = claim_one(&*store, "u", hour(2)).await;
    let id = claimed.claim.profile;
    let exposure = ExposureRecord {
        rule: Arc::from("silence"),
        run_key: Arc::from(""),
        run: 1,
        at: hour(2),
        held_out: false,
        by: Arc::from("policy"),
    };
    let mut own = event("own", hour(2));
    (own.kind, own.name) = (EventKind::Engine, Arc::from("tier_changed"));
    let full = Decision {
        messages: vec![message("u", "warn", hour(2))],
        postings: vec![posting(1, 100, hour(2)), posting(2, -20, hour(2))],
        exposures: vec![exposure.clone()],
        own_events: vec![own.clone()],
        entries: vec![entry("", What::Entered, hour(2)), entry("warn", What::Queued, hour(2))],
        entered: vec![(Arc::from("silence"), hour(2))],
        ..decision(claimed.profile.clone(), Timestamp::FOREVER)
    };
    assert_eq!(store.commit_decisions(vec![commit(&claimed, full)]).await.expect("answered"), [Committed::Committed]);
    let stored = store.profile(id).await.expect("read").expect("there");
    assert_eq!((stored.due_at, stored.waiting.len()), (Timestamp::FOREVER, 0), "its own event is absorbed already");
    let history = store.history(id).await.expect("read");
    assert_eq!(history.events, [(event("a", hour(1)), true), (own, true)]);
    assert_eq!(history.postings, [posting(1, 100, hour(2)), posting(2, -20, hour(2))]);
    assert_eq!(history.exposures, [exposure]);
    let entries: Vec<_> = history.entries.iter().map(|row| (row.rules_version, row.entry.clone())).collect();
    assert_eq!(entries, [(RULES, entry("", What::Entered, hour(2))), (RULES, entry("warn", What::Queued, hour(2)))]);
    let messages: Vec<_> = history.messages.iter().map(|row| (row.message.clone(), row.state)).collect();
    assert_eq!(messages, [(message("u", "warn", hour(2)), MessageState::Queued)]);
}

pub async fn promise_i1_one_message_for_each_dedupe_key(h: &dyn Harness) {
    let store = h.open().await;
    let id = queued(&*store, "u", &[message("u", "warn", hour(2))], hour(9)).await;
    // the same step decided again, at another time
    store.reinstate(hour(3), vec![id]).await.expect("due");
    let again = claim_one(&*store, "u", hour(3)).await;
    let twice = Decision { messages: vec![message("u", "warn", hour(3))], ..decision(again.profile.clone(), hour(9)) };
    store.commit_decisions(vec![commit(&again, twice)]).await.expect("answered");
    assert_eq!(store.history(id).await.expect("read").messages.len(), 1, "one message for each dedupe key");
}

pub async fn one_person_twice_in_a_batch_is_a_conflict(h: &dyn Harness) {
    let store = h.open().await;
    store.append_events(vec![from_user("u", event("a", hour(1)))]).await.expect("appended");
    let claimed = claim_one(&*store, "u", hour(2)).await;
    let twice =
        vec![commit(&claimed, decision(claimed.profile.clone(), hour(8))), commit(&claimed, decision(claimed.profile.clone(), hour(9)))];
    assert_eq!(store.commit_decisions(twice).await.expect("answered"), [Committed::Committed, Committed::Conflict]);
}

pub async fn claims_are_counted_and_orderly_returns_are_not(h: &dyn Harness) {
    let mut store = h.open().await;
    store.append_events(vec![from_user("u", event("a", hour(1)))]).await.expect("appended");
    let claimed = claim_one(&*store, "u", hour(2)).await;
    store.release_profiles(vec![claimed.claim], false).await.expect("released");
    for expected in 1..=CLAIMS_MAX + 1 {
        assert_eq!(claim_one(&*store, "u", hour(2)).await.claims, expected, "counted as it is claimed");
        h.close(store).await;
        store = h.open().await;
    }
}

/// Whoever was claimed beside what kills the process is told apart from it: each is claimed alone.
pub async fn what_was_claimed_twice_without_a_result_is_claimed_alone(h: &dyn Harness) {
    let mut store = h.open().await;
    for user in ["a", "b", "c"] {
        store.append_events(vec![from_user(user, event(user, hour(1)))]).await.expect("appended");
        queued(&*store, &format!("m{user}"), &[message(&format!("m{user}"), "warn", hour(2))], hour(90)).await;
    }
    for expected in 1..CLAIMS_MAX {
        let due = store.claim_due(hour(3), 10, WORKER).await.expect("claimed");
        assert!(due.profiles.len() == 3 && !due.is_suspect && due.profiles.iter().all(|claimed| claimed.claims == expected));
        assert_eq!(claim_messages(&*store, hour(3)).await.len(), 3);
        h.close(store).await;
        store = h.open().await;
    }
    store.append_events(vec![from_user("fresh", event("fresh", hour(1)))]).await.expect("appended");
    queued(&*store, "mfresh", &[message("mfresh", "warn", hour(2))], hour(90)).await;
    let mut alone = Vec::new();
    loop {
        let due = store.claim_due(hour(3), 10, WORKER).await.expect("claimed");
        let Some(first) = due.profiles.first().filter(|_| due.is_suspect) else {
            let keys: Vec<&str> = due.profiles.iter().map(|claimed| &*claimed.profile.key).collect();
            assert_eq!(keys, ["fresh"], "then those whom nobody suspects");
            break;
        };
        assert_eq!((due.profiles.len(), first.claims), (1, CLAIMS_MAX));
        alone.push(first.profile.key.clone());
        store.commit_decisions(vec![commit(first, decision(first.profile.clone(), hour(90)))]).await.expect("answered");
    }
    alone.sort();
    assert_eq!(alone.iter().map(|key| &**key).collect::<Vec<_>>(), ["a", "b", "c"]);
    let claimed = claim_messages(&*store, hour(3)).await;
    assert_eq!(claimed.iter().map(|group| &*group.profile.key).collect::<Vec<_>>(), ["mfresh"], "messages that nobody suspects first");
    for _ in 0..3 {
        let claimed = claim_messages(&*store, hour(3)).await;
        let claims: Vec<u32> = claimed.iter().flat_map(|group| &group.messages).map(|message| message.claims).collect();
        assert_eq!(claims, [CLAIMS_MAX]);
    }
    assert!(claim_messages(&*store, hour(3)).await.is_empty());
}

/// A pass that failed gives back what it had claimed; if that goes on, it counts.
pub async fn what_is_given_back_is_due_and_counts_if_it_is_to(h: &dyn Harness) {
    let store = h.open().await;
    store.append_events(vec![from_user("u", event("a", hour(1)))]).await.expect("appended");
    for (counts, expected) in [(false, 1), (true, 1), (true, 2), (false, 3), (false, 3)] {
        let due = store.claim_due(hour(2), 10, WORKER).await.expect("claimed").profiles;
        let claimed = due.first().expect("due");
        assert_eq!(claimed.claims, expected);
        store.release_profiles(vec![claimed.claim], counts).await.expect("released");
        store.release_profiles(vec![claimed.claim], counts).await.expect("once more, which changes nothing");
    }
    let due = store.claim_due(hour(2), 10, WORKER).await.expect("claimed").profiles;
    let claimed = due.first().expect("due");
    store.commit_decisions(vec![commit(claimed, decision(claimed.profile.clone(), hour(9)))]).await.expect("answered");
    store.release_profiles(vec![claimed.claim], false).await.expect("what was written is over");
    assert!(store.claim_due(hour(8), 10, WORKER).await.expect("claimed").profiles.is_empty());
}

pub async fn what_is_set_aside_waits_until_it_is_reinstated(h: &dyn Harness) {
    let store = h.open().await;
    let id = queued(&*store, "u", &[message("u", "warn", hour(1))], hour(5)).await;
    let claimed = claim_one(&*store, "u", hour(5)).await;
    store.quarantine(hour(5), vec![(claimed.claim, "a rule divides by zero".into())]).await.expect("set aside");
    let commit = commit(&claimed, decision(claimed.profile.clone(), hour(6)));
    assert_eq!(store.commit_decisions(vec![commit]).await.expect("answered"), [Committed::Conflict]);
    store.append_events(vec![from_user("u", event("b", hour(6)))]).await.expect("appended");
    assert!(store.claim_due(hour(99), 10, WORKER).await.expect("claimed").profiles.is_empty());
    assert!(claim_messages(&*store, hour(6)).await.is_empty(), "nobody who is set aside is written to");
    assert_eq!(store.next_due().await.expect("read"), None);
    let stored = store.profile(id).await.expect("read").expect("there");
    assert_eq!(stored.quarantined, Some((hour(5), "a rule divides by zero".into())));
    let aside = store.set_aside(None, 10).await.expect("read");
    assert_eq!(aside, [SetAside { profile: id, key: "u".into(), at: hour(5), because: "a rule divides by zero".into() }]);
    assert!(store.set_aside(Some(id), 10).await.expect("read").is_empty());
    store.reinstate(hour(7), vec![id]).await.expect("reinstated");
    let back = claim_one(&*store, "u", hour(7)).await;
    assert_eq!((back.events.len(), back.claims), (1, 1));
    assert!(store.set_aside(None, 10).await.expect("read").is_empty());
}

// ------------------------------------------------------------------------------------------------------------ messages

pub async fn a_message_goes_its_way(h: &dyn Harness) {
    let store = h.open().await;
    let warn = message("u", "warn", hour(1));
    let id = queued(&*store, "u", std::slice::from_ref(&warn), hour(50)).await;
    assert!(claim_messages(&*store, hour(0)).await.is_empty(), "not before it is due");
    let groups = sending(&*store, hour(2)).await;
    let claimed = groups.first().and_then(|group| group.messages.first()).expect("claimed");
    assert_eq!((&claimed.message, claimed.claims, claimed.attempts), (&warn, 1, 0));
    assert!(claim_messages(&*store, hour(2)).await.is_empty(), "nobody claims it twice");
    let accepted = result(warn.id, Some(claimed.epoch), Outcome::Accepted, hour(2));
    let recorded = store.record_results(vec![accepted]).await.expect("recorded");
    assert_eq!(recorded.first().map(|r| (r.state, r.new, r.woke)), Some((Some(MessageState::Accepted), true, false)));
    let history = store.history(id).await.expect("read");
    let row = history.messages.first().expect("a message");
    assert_eq!((row.state, row.outcomes), (MessageState::Accepted, Outcome::Accepted.bit()));
    let attempt = row.attempts.first().expect("an attempt");
    assert_eq!((attempt.number, attempt.started_at, attempt.ended_at), (1, hour(2), Some(hour(2))));
    assert_eq!((attempt.outcome.as_deref(), attempt.provider_id.as_deref(), &*attempt.worker), (Some("accepted"), Some("p-1"), WORKER));
    assert_eq!(history.events.last().map(|(event, absorbed)| (&*event.name, *absorbed)), Some(("message_accepted", false)));
    assert_eq!(store.profile(id).await.expect("read").expect("there").due_at, hour(50), "no run waits for it: nobody is due");
    let dump = store.dump(id).await.expect("text");
    assert!(dump.contains("accepted") && dump.contains("try 1"), "{dump}");
}

pub async fn promise_i3_a_waiting_fact_stops_the_intent(h: &dyn Harness) {
    let store = h.open().await;
    queued(&*store, "u", &[message("u", "warn", hour(1))], hour(50)).await;
    let groups = claim_messages(&*store, hour(2)).await;
    store.append_events(vec![from_user("u", event("unsubscribe", hour(2)))]).await.expect("appended");
    let intents = || groups.iter().map(|group| intent(group, hour(2), || IntentStep::Send { at: hour(2) })).collect();
    let generation = generation(&*store).await;
    assert_eq!(store.commit_intents(generation, intents()).await.expect("answered"), [Committed::Conflict]);
    assert!(claim_messages(&*store, hour(2)).await.is_empty(), "facts first: its profile is due");
    let claimed = claim_one(&*store, "u", hour(2)).await;
    store.commit_decisions(vec![commit(&claimed, decision(claimed.profile.clone(), hour(50)))]).await.expect("answered");
    let again = claim_messages(&*store, hour(2)).await;
    assert_eq!(again.first().and_then(|g| g.messages.first()).map(|m| m.claims), Some(1), "queued, as if it had not been claimed");

    // a timer that is due is a fact as well
    let late = again.iter().map(|group| intent(group, hour(50), || IntentStep::Send { at: hour(50) })).collect();
    assert_eq!(store.commit_intents(generation, late).await.expect("answered"), [Committed::Conflict]);
}

pub async fn a_newer_row_stops_the_intent(h: &dyn Harness) {
    let store = h.open().await;
    let id = queued(&*store, "u", &[message("u", "warn", hour(1)), message("u", "again", hour(1))], hour(50)).await;
    let groups = claim_messages(&*store, hour(2)).await;
    let group = groups.first().expect("claimed");
    assert_eq!(group.messages.len(), 2, "one person's messages come together");
    let generation = generation(&*store).await;
    let both =
        vec![intent(group, hour(2), || IntentStep::Send { at: hour(2) }), intent(group, hour(2), || IntentStep::Send { at: hour(2) })];
    let answers = store.commit_intents(generation, both).await.expect("answered");
    assert_eq!(answers, [Committed::Committed, Committed::Conflict], "the second was made from the row before the first");
    let stored = store.profile(id).await.expect("read").expect("there");
    assert_eq!(stored.version, group.version + 1);
    assert!(
        store.history(id).await.expect("read").messages.iter().all(|row| row.state == MessageState::Sending && row.attempts.len() == 1)
    );
}

pub async fn promise_i3_a_pause_stops_the_intent(h: &dyn Harness) {
    let store = h.open().await;
    queued(&*store, "u", &[message("u", "warn", hour(1))], hour(50)).await;
    let seen = generation(&*store).await;
    let groups = claim_messages(&*store, hour(2)).await;
    let pause = Pause { at: hour(2), reason: Arc::from("wrong price") };
    store.set_pause(hour(2), PauseScope::All, Some(pause), "anna").await.expect("paused");
    let intents = groups.iter().map(|group| intent(group, hour(2), || IntentStep::Send { at: hour(2) })).collect();
    assert_eq!(store.commit_intents(seen, intents).await.expect("answered"), [Committed::Conflict]);
    let again = claim_messages(&*store, hour(2)).await;
    assert_eq!(again.len(), 1, "it is queued again");
    let held = again.iter().map(|g| intent(g, hour(2), || IntentStep::Hold { until: hour(3), because: Arc::from("paused") })).collect();
    let answers = store.commit_intents(generation(&*store).await, held).await.expect("answered");
    assert_eq!(answers, [Committed::Committed]);
}

pub async fn what_waits_is_walked_over_and_woken(h: &dyn Harness) {
    let store = h.open().await;
    for (user, at) in [("a", 5), ("b", 6), ("c", 7)] {
        queued(&*store, user, &[message(user, "warn", hour(at))], hour(50)).await;
    }
    let first = store.open_messages(0, 2).await.expect("a page");
    let second = store.open_messages(first.last().expect("two").0, 2).await.expect("a page");
    let due: Vec<Timestamp> = first.iter().chain(&second).map(|(_, row)| row.message.due_at).collect();
    assert_eq!((first.len(), due), (2, vec![hour(5), hour(6), hour(7)]));
    assert!(claim_messages(&*store, hour(2)).await.is_empty());
    let woken = vec![first.first().expect("one").1.message.id, MessageId(7)];
    store.wake_messages(hour(2), woken.clone()).await.expect("woken");
    store.wake_messages(hour(3), woken).await.expect("never later than before");
    let groups = claim_messages(&*store, hour(2)).await;
    assert_eq!(groups.iter().map(|group| group.messages.len()).collect::<Vec<_>>(), [1], "only the one that was woken");
    let intents = groups.iter().map(|group| intent(group, hour(2), || IntentStep::Send { at: hour(2) })).collect();
    assert_eq!(store.commit_intents(generation(&*store).await, intents).await.expect("answered"), [Committed::Committed]);
    assert_eq!(store.open_messages(0, 9).await.expect("a page").len(), 2, "what is being sent waits no more");
}

pub async fn a_cancelled_message_does_not_go_out(h: &dyn Harness) {
    let store = h.open().await;
    let warn = message("u", "warn", hour(1));
    let id = queued(&*store, "u", std::slice::from_ref(&warn), hour(2)).await;
    let groups = claim_messages(&*store, hour(1)).await;
    let claimed = claim_one(&*store, "u", hour(2)).await;
    let cancel = Decision { cancelled: vec![(warn.id, Arc::from("came back"))], ..decision(claimed.profile.clone(), hour(50)) };
    store.commit_decisions(vec![commit(&claimed, cancel)]).await.expect("answered");
    let generation = generation(&*store).await;
    let intents = groups.iter().map(|group| intent(group, hour(2), || IntentStep::Send { at: hour(2) })).collect();
    assert_eq!(store.commit_intents(generation, intents).await.expect("answered"), [Committed::Conflict]);
    let history = store.history(id).await.expect("read");
    let row = history.messages.first().expect("a message");
    assert_eq!((row.state, row.because.as_deref()), (MessageState::Cancelled, Some("came back")));
    assert!(claim_messages(&*store, hour(3)).await.is_empty());
}

pub async fn the_gates_may_hold_or_end_a_message(h: &dyn Harness) {
    let store = h.open().await;
    let mut warn = message("u", "warn", hour(1));
    warn.wakes_on = Outcome::Blocked.bit();
    let id = queued(&*store, "u", std::slice::from_ref(&warn), hour(50)).await;
    let generation = generation(&*store).await;
    let hold = |until| move || IntentStep::Hold { until, because: Arc::from("quiet hours") };
    let groups = claim_messages(&*store, hour(1)).await;
    let held = groups.iter().map(|group| intent(group, hour(1), hold(hour(9)))).collect();
    assert_eq!(store.commit_intents(generation, held).await.expect("answered"), [Committed::Committed]);
    assert!(claim_messages(&*store, hour(8)).await.is_empty());
    assert_eq!(store.next_due().await.expect("read"), Some(hour(9)));
    let groups = claim_messages(&*store, hour(9)).await;
    assert_eq!(groups.first().and_then(|g| g.messages.first()).map(|m| m.message.due_at), Some(hour(9)));
    let held = groups.iter().map(|group| intent(group, hour(9), hold(hour(999)))).collect();
    store.commit_intents(generation, held).await.expect("answered");
    assert_eq!(store.next_due().await.expect("read"), Some(warn.expires_at), "never held beyond its deadline");
    let groups = claim_messages(&*store, warn.expires_at).await;
    let end = || IntentStep::End {
        state: MessageState::Blocked,
        because: Arc::from("consent was withdrawn"),
        event: Some((Outcome::Blocked, message_event(warn.id, Outcome::Blocked, warn.expires_at))),
    };
    let mut ended: Vec<_> = groups.iter().map(|group| intent(group, warn.expires_at, end)).collect();
    ended.iter_mut().for_each(|share| {
        share.entries = vec![entry("warn", What::Dropped, warn.expires_at)];
        share.due_at = Some(hour(40));
    });
    assert_eq!(store.commit_intents(generation, ended).await.expect("answered"), [Committed::Committed]);
    let history = store.history(id).await.expect("read");
    assert_eq!(history.messages.first().map(|row| (row.state, row.outcomes)), Some((MessageState::Blocked, Outcome::Blocked.bit())));
    assert_eq!(history.entries.len(), 1);
    let stored = store.profile(id).await.expect("read").expect("there");
    assert_eq!((stored.due_at, stored.waiting.len()), (warn.expires_at, 1), "its run waits for that outcome");
}

// ------------------------------------------------------------------------------------------------------------- results

pub async fn promise_i6_late_results_end_the_same_in_any_order(h: &dyn Harness) {
    let store = h.open().await;
    let sets: [(&[Outcome], MessageState); 5] = [
        (&[Outcome::Unknown, Outcome::Accepted], MessageState::Accepted),
        (&[Outcome::Accepted, Outcome::Delivered, Outcome::Opened], MessageState::Delivered),
        (&[Outcome::Unknown, Outcome::Accepted, Outcome::Delivered], MessageState::Delivered),
        (&[Outcome::Unknown, Outcome::Accepted, Outcome::Bounced], MessageState::Bounced),
        (&[Outcome::Accepted, Outcome::Delivered, Outcome::Bounced, Outcome::Clicked], MessageState::Bounced),
    ];
    let mut number = 0;
    for (outcomes, expected) in sets {
        for order in permutations(outcomes) {
            number += 1;
            let user = format!("u{number}");
            let warn = message(&user, "warn", hour(1));
            queued(&*store, &user, std::slice::from_ref(&warn), hour(50)).await;
            let groups = sending(&*store, hour(1)).await;
            let epoch = groups.iter().flat_map(|g| &g.messages).find(|m| m.message.id == warn.id).map(|m| m.epoch);
            let all: Vec<_> = order.iter().chain(order.first()).map(|o| result(warn.id, epoch, *o, hour(2))).collect();
            let recorded = store.record_results(all).await.expect("recorded");
            assert_eq!(recorded.last().and_then(|r| r.state), Some(expected), "{order:?}");
            assert!(!recorded.last().expect("the repeated one").new, "{order:?}: the same result twice is one fact");
        }
    }
}

fn permutations(outcomes: &[Outcome]) -> Vec<Vec<Outcome>> {
    if outcomes.len() <= 1 {
        return vec![outcomes.to_vec()];
    }
    let mut all = Vec::new();
    for (index, first) in outcomes.iter().enumerate() {
        let rest: Vec<Outcome> = outcomes.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, o)| *o).collect();
        all.extend(permutations(&rest).into_iter().map(|tail| [vec![*first], tail].concat()));
    }
    all
}

pub async fn results_wake_only_whom_they_concern(h: &dyn Harness) {
    let store = h.open().await;
    let mut waits = message("waits", "warn", hour(1));
    waits.wakes_on = Outcome::Delivered.bit();
    let mut alone = message("alone", "warn", hour(1));
    alone.wakes_on = 0;
    let mut sibling = message("sibling", "warn", hour(1));
    sibling.wakes_on = 0;
    let later = message("sibling", "later", hour(30));
    let ids = [
        queued(&*store, "waits", std::slice::from_ref(&waits), hour(50)).await,
        queued(&*store, "alone", std::slice::from_ref(&alone), hour(50)).await,
        queued(&*store, "sibling", &[sibling.clone(), later], hour(50)).await,
    ];
    sending(&*store, hour(1)).await;
    let mut results: Vec<_> = [&waits, &alone, &sibling].into_iter().map(|m| result(m.id, None, Outcome::Delivered, hour(2))).collect();
    results.extend([&alone, &sibling].into_iter().map(|m| result(m.id, None, Outcome::Bounced, hour(3))));
    let woke: Vec<bool> = store.record_results(results).await.expect("recorded").iter().map(|r| r.woke).collect();
    assert_eq!(woke, [true, false, false, false, true], "a bounce concerns the messages that have not gone out");
    let mut due = Vec::new();
    for id in ids {
        due.push(store.profile(id).await.expect("read").expect("there").due_at);
    }
    assert_eq!(due, [hour(2), hour(50), hour(3)]);
    let unknown = result(rekindle::engine::action::MessageId(1), None, Outcome::Delivered, hour(3));
    assert_eq!(store.record_results(vec![unknown]).await.expect("recorded").first().map(|r| r.state), Some(None));
    let claimed = claim_one(&*store, "sibling", hour(3)).await;
    let names: Vec<&str> = claimed.events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["message_delivered", "message_bounced"], "what woke nobody is absorbed with the next look");
}

pub async fn a_stale_worker_leaves_evidence_and_changes_nothing(h: &dyn Harness) {
    let store = h.open().await;
    let warn = message("u", "warn", hour(1));
    let id = queued(&*store, "u", std::slice::from_ref(&warn), hour(50)).await;
    let groups = sending(&*store, hour(1)).await;
    let first = groups.first().and_then(|g| g.messages.first()).expect("claimed").epoch;
    let retry = |epoch, until| MessageResult {
        message: warn.id,
        epoch: Some(epoch),
        at: hour(2),
        kind: ResultKind::Retry { until, refused: true },
        provider_id: None,
        detail: Some("451 try later".into()),
    };
    store.record_results(vec![retry(first, hour(2))]).await.expect("recorded");
    let groups = sending(&*store, hour(2)).await;
    let second = groups.first().and_then(|g| g.messages.first()).expect("claimed");
    assert_eq!((second.attempts, second.first_attempt_at), (1, Some(hour(1))));
    let stale = [result(warn.id, Some(first), Outcome::Failed, hour(3)), retry(first, hour(3))];
    let recorded = store.record_results(stale.to_vec()).await.expect("recorded");
    assert!(recorded.iter().all(|r| r.state == Some(MessageState::Sending) && !r.new), "{recorded:?}");
    let proof = result(warn.id, Some(first), Outcome::Accepted, hour(3));
    assert_eq!(store.record_results(vec![proof]).await.expect("recorded").first().and_then(|r| r.state), Some(MessageState::Accepted));
    let failed = result(warn.id, Some(second.epoch), Outcome::Failed, hour(4));
    let recorded = store.record_results(vec![failed]).await.expect("recorded");
    assert_eq!(recorded.first().map(|r| (r.state, r.new)), Some((Some(MessageState::Accepted), false)), "never undone by our own doubt");
    let history = store.history(id).await.expect("read");
    let outcomes: Vec<_> = history.messages.iter().flat_map(|m| &m.attempts).map(|a| a.outcome.as_deref()).collect();
    assert_eq!(outcomes, [Some("retry"), Some("failed")], "each attempt keeps its own first result");
}

/// A person with a stamped slot for that message, and perhaps a step that waits for room.
async fn with_slot(store: &dyn Store, user: &str, waits: bool) -> (ProfileId, MessageId, i64) {
    let mut warn = message(user, "warn", hour(1));
    warn.wakes_on = 0;
    store.append_events(vec![from_user(user, event(&format!("first-{user}"), hour(0)))]).await.expect("appended");
    let claimed = claim_one(store, user, hour(0)).await;
    let mut profile = claimed.profile.clone();
    let (rule, category, channel) = (warn.rule.clone(), warn.category, warn.channel);
    profile.slots.push(Slot { message: warn.id, rule: rule.clone(), category, channel, sent_at: Some(hour(1)), text: None });
    if waits {
        let (step, gate, because) = (Arc::from("next"), Arc::from("caps"), Arc::from("cap week: 1 of 1 used"));
        profile.holds.push(Hold { rule, run: 2, step, gate, since: hour(0), until: hour(50), because });
    }
    let queued = Decision { messages: vec![warn.clone()], ..decision(profile, hour(50)) };
    store.commit_decisions(vec![commit(&claimed, queued)]).await.expect("committed");
    let groups = sending(store, hour(1)).await;
    let epoch = groups.iter().flat_map(|group| &group.messages).find(|m| m.message.id == warn.id).map(|m| m.epoch);
    (claimed.claim.profile, warn.id, epoch.expect("it was claimed"))
}

pub async fn a_refused_attempt_gives_its_slot_the_date_back(h: &dyn Harness) {
    let store = h.open().await;
    for (user, refused, sent_at) in [("refused", true, None), ("cut-off", false, Some(hour(1)))] {
        let (id, warn, epoch) = with_slot(&*store, user, false).await;
        let before = store.profile(id).await.expect("read").expect("there");
        let kind = ResultKind::Retry { until: hour(3), refused };
        let stale = MessageResult { message: warn, epoch: Some(epoch - 1), at: hour(2), kind, provider_id: None, detail: None };
        store.record_results(vec![stale.clone()]).await.expect("recorded");
        assert_eq!(store.profile(id).await.expect("read").expect("there").version, before.version, "no claim, no word");
        store.record_results(vec![MessageResult { epoch: Some(epoch), ..stale }]).await.expect("recorded");
        let after = store.profile(id).await.expect("read").expect("there");
        assert_eq!(after.profile.slots.iter().map(|slot| slot.sent_at).collect::<Vec<_>>(), [sent_at], "{user}");
        assert_eq!(after.version > before.version, refused, "{user}: whoever decides meanwhile decides again");
        assert_eq!(after.due_at, hour(50), "{user}: nobody is looked at because of it");
    }
}

pub async fn room_that_a_failure_makes_wakes_who_waits_for_it(h: &dyn Harness) {
    let store = h.open().await;
    for (user, waits, outcome, due) in [
        ("waits", true, Outcome::Failed, hour(2)),
        ("waits-too", true, Outcome::Dead, hour(2)),
        ("went", true, Outcome::Accepted, hour(50)),
        ("alone", false, Outcome::Failed, hour(50)),
    ] {
        let (id, warn, epoch) = with_slot(&*store, user, waits).await;
        let recorded = store.record_results(vec![result(warn, Some(epoch), outcome, hour(2))]).await.expect("recorded");
        assert_eq!(recorded.first().map(|r| r.woke), Some(due == hour(2)), "{user}");
        assert_eq!(store.profile(id).await.expect("read").expect("there").due_at, due, "{user}");
    }
}

pub async fn promise_i5_what_was_sending_at_a_crash_is_not_sent_again(h: &dyn Harness) {
    let store = h.open().await;
    let (gone, leased) = (message("a", "warn", hour(1)), message("b", "warn", hour(2)));
    queued(&*store, "a", std::slice::from_ref(&gone), hour(50)).await;
    let of_leased = queued(&*store, "b", std::slice::from_ref(&leased), hour(50)).await;
    sending(&*store, hour(1)).await;
    assert_eq!(claim_messages(&*store, hour(2)).await.len(), 1);
    assert!(store.interrupted().await.expect("read").is_empty(), "what this process sends is not interrupted");
    h.close(store).await;

    let store = h.open().await;
    let interrupted = store.interrupted().await.expect("read");
    let messages: Vec<_> = interrupted.iter().flat_map(|g| &g.messages).collect();
    assert_eq!(messages.iter().map(|m| m.message.id).collect::<Vec<_>>(), [gone.id]);
    let row = store.history(of_leased).await.expect("read").messages.remove(0);
    assert_eq!(row.state, MessageState::Queued, "a lease is void at once");
    let unknown = messages.iter().map(|m| result(m.message.id, Some(m.epoch), Outcome::Unknown, hour(3))).collect();
    assert_eq!(store.record_results(unknown).await.expect("recorded").first().and_then(|r| r.state), Some(MessageState::Unknown));
    assert!(store.interrupted().await.expect("read").is_empty());
    let again = claim_messages(&*store, hour(3)).await;
    let claims: Vec<_> = again.iter().flat_map(|g| &g.messages).map(|m| (m.message.id, m.claims)).collect();
    assert_eq!(claims, [(leased.id, 2)], "an unknown one is not sent again; the lost claim counts");
}

pub async fn promise_i4_a_retry_is_due_before_its_deadline(h: &dyn Harness) {
    let store = h.open().await;
    let warn = message("u", "warn", hour(1));
    queued(&*store, "u", std::slice::from_ref(&warn), hour(50)).await;
    let groups = sending(&*store, hour(1)).await;
    let claimed = groups.first().and_then(|g| g.messages.first()).expect("claimed");
    let result = |kind| MessageResult { message: warn.id, epoch: Some(claimed.epoch), at: hour(1), kind, provider_id: None, detail: None };
    let recorded = store.record_results(vec![result(ResultKind::Release)]).await.expect("recorded");
    assert_eq!(recorded.first().and_then(|r| r.state), Some(MessageState::Sending), "what is being sent cannot be let go");
    store.record_results(vec![result(ResultKind::Retry { until: hour(999), refused: true })]).await.expect("recorded");
    assert_eq!(store.next_due().await.expect("read"), Some(warn.expires_at));
    let groups = claim_messages(&*store, warn.expires_at).await;
    let again = groups.first().and_then(|g| g.messages.first()).expect("claimed");
    let release = MessageResult { epoch: Some(again.epoch), ..result(ResultKind::Release) };
    let recorded = store.record_results(vec![release]).await.expect("recorded");
    assert_eq!(recorded.first().and_then(|r| r.state), Some(MessageState::Queued));
}

// --------------------------------------------------------------------------------------------------------------- rules

fn rule(id: &str, when_hash: u32, hash: u64) -> PublishedRule {
    PublishedRule { id: Arc::from(id), when_hash, hash }
}

fn publication(version: u64, at: Timestamp, rules: Vec<PublishedRule>) -> Publication {
    Publication {
        version,
        at,
        by: "anna".into(),
        why: "spring".into(),
        texts: vec![("a.yaml".into(), "rule: a".into()), ("b.yaml".into(), format!("version: {version}"))],
        rules,
        spread_ms: 0,
        files: None,
        is_rollback: false,
    }
}

fn names(rules: &[rekindle::engine::profile::Name]) -> Vec<&str> {
    rules.iter().map(|rule| &**rule).collect()
}

pub async fn rules_go_live_and_their_texts_stay(h: &dyn Harness) {
    let store = h.open().await;
    assert_eq!(store.current_version().await.expect("read"), None);
    let first = store.publish_rules(publication(u64::MAX, hour(1), vec![rule("a", 1, 1), rule("b", 1, 1)])).await.expect("live");
    assert_eq!(names(&first.new), ["a", "b"]);
    assert_eq!(store.finish_first_looks().await.expect("looked for"), 0, "nobody is there");
    let second = vec![rule("a", 1, 2), rule("b", u32::MAX, u64::MAX), rule("c", 1, 1)];
    let second = store.publish_rules(publication(2, hour(2), second)).await.expect("live");
    assert_eq!((names(&second.changed), names(&second.when_changed), names(&second.new)), (vec!["a"], vec!["b"], vec!["c"]));
    let third = store.publish_rules(publication(3, hour(3), vec![rule("a", 1, 2)])).await.expect("live");
    assert_eq!(names(&third.removed), ["b", "c"]);
    let fourth = store.publish_rules(publication(2, hour(4), vec![rule("a", 1, 2), rule("c", 1, 1)])).await.expect("live");
    assert_eq!(names(&fourth.when_changed), ["c"], "a rule that was away goes live again");
    h.close(store).await;

    let store = h.open().await;
    assert_eq!(store.current_version().await.expect("read"), Some(2), "the latest that went live, not the largest");
    let texts = store.texts_of(u64::MAX).await.expect("read").expect("known");
    assert_eq!(texts, [("a.yaml".to_owned(), "rule: a".to_owned()), ("b.yaml".to_owned(), format!("version: {}", u64::MAX))]);
    assert_eq!(store.texts_of(99).await.expect("read"), None);
    let world = store.world(hour(0)).await.expect("the world").world;
    let live: Vec<_> = world.rules.iter().map(|(id, r)| (&**id, r.first_live_at, r.when_live_at, r.when_hash)).collect();
    assert_eq!(live, [("a", hour(1), hour(1), 1), ("b", hour(1), hour(2), u32::MAX), ("c", hour(2), hour(4), 1)]);
}

pub async fn what_went_live_and_what_was_refused_is_on_record(h: &dyn Harness) {
    let store = h.open().await;
    assert_eq!(store.publications(10).await.expect("read"), []);
    assert!(store.explain_publication("anna", "why").await.is_err(), "there is nothing to explain");
    let first = Publication { files: Some(u64::MAX), ..publication(7, hour(1), vec![rule("a", 1, 1)]) };
    store.publish_rules(first.clone()).await.expect("live");
    store.publish_rules(publication(8, hour(2), vec![rule("a", 1, 2), rule("b", 1, 1)])).await.expect("live");
    let refused = RefusedRules { files: u64::MAX - 1, at: hour(3), because: "a.yaml:1:1 is no rule".into() };
    store.refuse_rules(refused.clone()).await.expect("noted");
    store.refuse_rules(RefusedRules { at: hour(4), ..refused.clone() }).await.expect("noted again");
    h.close(store).await;

    let store = h.open().await;
    assert_eq!(store.refused_rules().await.expect("read"), Some(RefusedRules { at: hour(4), ..refused.clone() }));
    let back = Publication { files: Some(5), is_rollback: true, at: hour(5), ..first };
    store.publish_rules(back).await.expect("live again");
    assert_eq!(store.refused_rules().await.expect("read"), None, "a publication settles it");
    store.explain_publication("ben", "the sale is over").await.expect("said anew");
    let rows = store.publications(2).await.expect("read");
    let said: Vec<_> = rows.iter().map(|row| (row.version, row.at, &*row.by, &*row.why, row.files, row.is_rollback)).collect();
    assert_eq!(said, [(7, hour(5), "ben", "the sale is over", Some(5), true), (8, hour(2), "anna", "spring", None, false)]);
    let changes = |row: usize| rows[row].changes.iter().map(|(what, rule)| format!("{what} {rule}")).collect::<Vec<_>>();
    assert_eq!((changes(0), changes(1)), (vec!["changed a".into(), "removed b".into()], vec!["went live b".into(), "changed a".into()]));

    store.refuse_rules(refused).await.expect("noted");
    store.agree_with_files(6).await.expect("noted");
    let live = store.publications(1).await.expect("read");
    assert_eq!(live.first().map(|row| (row.version, row.files, row.is_rollback)), Some((7, Some(6), false)));
    assert_eq!(store.refused_rules().await.expect("read"), None);
}

pub async fn first_looks_are_spread_and_disturb_looks_under_way(h: &dyn Harness) {
    let store = h.open().await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(settled(&*store, &format!("u{number}"), Timestamp::FOREVER).await);
    }
    store.append_events(vec![from_user("u0", event("x", hour(1)))]).await.expect("appended");
    let under_way = claim_one(&*store, "u0", hour(1)).await;
    let spread = Publication { spread_ms: HOUR_MS, ..publication(1, hour(2), vec![rule("a", 1, 1)]) };
    store.publish_rules(spread).await.expect("live");
    assert_eq!(store.finish_first_looks().await.expect("made due"), 20);
    assert_eq!(store.finish_first_looks().await.expect("made due"), 0, "once for each publication");
    let by_old_rules = commit(&under_way, decision(under_way.profile.clone(), hour(99)));
    assert_eq!(store.commit_decisions(vec![by_old_rules]).await.expect("answered"), [Committed::Conflict]);
    let mut due = Vec::new();
    for id in ids {
        due.push(store.profile(id).await.expect("read").expect("there").due_at);
    }
    assert!(due.iter().skip(1).all(|at| *at >= hour(2) && *at < hour(3)), "{due:?}");
    let mut distinct = due.clone();
    distinct.sort();
    distinct.dedup();
    assert!(distinct.len() > 10, "{due:?}");
    store.publish_rules(publication(1, hour(4), vec![rule("a", 1, 1)])).await.expect("live");
    assert_eq!(store.finish_first_looks().await.expect("made due"), 0, "nothing new");
    assert_eq!(store.make_all_due(hour(1), 0).await.expect("due"), 20);
    assert_eq!(store.claim_due(hour(1), 100, WORKER).await.expect("claimed").profiles.len(), 20);
}

pub async fn the_world_is_what_operators_made_it(h: &dyn Harness) {
    let store = h.open().await;
    settled(&*store, "u", hour(9)).await;
    store.publish_rules(publication(1, hour(1), vec![rule("a", 7, 1)])).await.expect("live");
    let before = store.world(hour(0)).await.expect("the world");
    assert_eq!((before.world.profiles, before.world.rules.len(), before.world.paused.is_some()), (1, 1, false));
    let pause = |reason: &str| Some(Pause { at: hour(2), reason: Arc::from(reason) });
    let scopes = [PauseScope::All, PauseScope::Rule(Arc::from("a")), PauseScope::Channel(Channel::Sms), PauseScope::Tag(Arc::from("sale"))];
    for scope in scopes.clone() {
        store.set_pause(hour(2), scope, pause("stop"), "anna").await.expect("paused");
    }
    store.set_hold(hour(2), "a", pause("1200 entries in an hour"), "brake").await.expect("held");
    store.record_quiet(hour(3), Timestamp::FOREVER).await.expect("quiet");
    let unknown = store.set_hold(hour(2), "nobody", None, "anna").await;
    assert!(matches!(unknown, Err(StoreError::Conflict(_))), "{unknown:?}");
    let paused = store.world(hour(0)).await.expect("the world");
    assert!(paused.generation > before.generation);
    let world = &paused.world;
    assert_eq!((world.paused.clone(), world.paused_channels.len(), world.paused_tags.len()), (pause("stop"), 1, 1));
    let state = world.rules.get("a").expect("a rule");
    assert_eq!((state.paused.clone(), state.held.clone(), state.when_hash), (pause("stop"), pause("1200 entries in an hour"), 7));
    assert_eq!(world.quiet, [(hour(3), Timestamp::FOREVER)]);
    let done = store.operations(3).await.expect("operations");
    let told: Vec<String> = done.iter().map(|o| format!("{} {} by {}: {}", o.about, o.what, o.by, o.why)).collect();
    assert_eq!(
        told,
        ["rule a held by brake: 1200 entries in an hour", "tag sale paused by anna: stop", "channel sms paused by anna: stop"]
    );
    for scope in scopes {
        store.set_pause(hour(4), scope, None, "anna").await.expect("resumed");
    }
    store.set_hold(hour(4), "a", None, "anna").await.expect("released");
    store.record_quiet(hour(3), hour(5)).await.expect("quiet");
    let after = store.world(hour(0)).await.expect("the world").world;
    assert_eq!((after.paused.is_some(), after.paused_channels.len(), after.paused_tags.len()), (false, 0, 0));
    assert!(after.rules.get("a").is_some_and(|state| state.paused.is_none() && state.held.is_none()));
    assert_eq!(after.quiet, [(hour(3), hour(5))]);
}

pub async fn budgets_and_the_brake_are_counted(h: &dyn Harness) {
    let store = h.open().await;
    for (user, at) in [("a", 1), ("b", 30), ("c", 31)] {
        store.append_events(vec![from_user(user, event(user, hour(at)))]).await.expect("appended");
        let claimed = claim_one(&*store, user, hour(at)).await;
        let entered = Decision {
            entered: vec![(Arc::from("silence"), hour(at).plus_ms(MINUTE_MS / 2))],
            budget_used: vec![(Arc::from("five"), hour(at), 500)],
            ..decision(claimed.profile.clone(), hour(999))
        };
        store.commit_decisions(vec![commit(&claimed, entered)]).await.expect("answered");
    }
    let used = |world: &rekindle::engine::decide::World| world.budgets.get("five").copied();
    assert_eq!(used(&store.world(hour(0)).await.expect("the world").world), Some(1500));
    assert_eq!(used(&store.world(hour(24)).await.expect("the world").world), Some(1000));
    assert_eq!(used(&store.world(hour(48)).await.expect("the world").world), None);
    let since = |at: Timestamp| store.entries_since(at);
    let silence = |counts: &BTreeMap<_, u64>| counts.get("silence").copied().unwrap_or(0);
    assert_eq!(silence(&since(hour(31).plus_ms(-HOUR_MS)).await.expect("read")), 2);
    assert_eq!(silence(&since(hour(31).plus_ms(MINUTE_MS - 1)).await.expect("read")), 1, "a minute begun counts whole");
    assert_eq!(silence(&since(hour(32)).await.expect("read")), 0);
}

/// One entry an hour: whoever decided before a full minute and commits after it finds what was let in meanwhile.
pub async fn a_commit_counts_what_was_entered_after_it_was_decided(h: &dyn Harness) {
    let store = h.open().await;
    let noon = hour(12);
    let limits = |is_replay| Limits { entries: BTreeMap::from([(Arc::from("silence"), 1)]), is_replay, ..Limits::default() };
    let users = [("later", noon.plus_ms(MINUTE_MS)), ("earlier", noon.plus_ms(MINUTE_MS - 1)), ("replayed", noon.plus_ms(MINUTE_MS - 1))];
    let mut answers = Vec::new();
    for (user, at) in users {
        store.append_events(vec![from_user(user, event(user, noon))]).await.expect("appended");
        let claimed = claim_one(&*store, user, noon.plus_ms(2 * MINUTE_MS)).await;
        let entered = Decision { entered: vec![(Arc::from("silence"), at)], ..decision(claimed.profile.clone(), hour(999)) };
        let commit = DecisionCommit { limits: Arc::new(limits(user == "replayed")), ..commit(&claimed, entered) };
        answers.extend(store.commit_decisions(vec![commit]).await.expect("answered"));
        store.release_profiles(vec![claimed.claim], false).await.expect("given back");
    }
    assert_eq!(answers, [Committed::Committed, Committed::Conflict, Committed::Committed], "a replay goes by each one's own instant");
}

pub async fn silence_of_workers_is_downtime(h: &dyn Harness) {
    let store = h.open().await;
    let minute = |minute: i64| hour(0).plus_ms(minute * MINUTE_MS);
    let beats = [("one", 0, 0), ("two", 4, 4), ("one", 9, 9), ("two", 13, 13), ("one", 30, 30), ("replay", 33, 90), ("one", 92, 92)];
    for (worker, since, now) in beats {
        store.heartbeat(worker, minute(since), minute(now)).await.expect("noted");
    }
    let world = store.world(hour(0)).await.expect("the world").world;
    assert_eq!(world.downtime, [(minute(13), minute(30))], "a stretch that a replay spoke for is none");
}

pub async fn sources_are_counted_by_hour(h: &dyn Harness) {
    let store = h.open().await;
    let mut silent = from_user("u", event("silent", hour(1)));
    silent.active = false;
    let batch = vec![
        from_user("u", event("a", hour(1))),
        from_user("v", event("b", hour(1).plus_ms(HOUR_MS - 1))),
        from_user("u", event("c", hour(2))),
        silent,
    ];
    store.append_events(batch.clone()).await.expect("appended");
    store.append_events(batch).await.expect("appended");
    let hours = store.source_hours(hour(1)).await.expect("read");
    assert_eq!(hours.iter().map(|h| (&*h.source, h.hour, h.events)).collect::<Vec<_>>(), [("shop", hour(1), 2), ("shop", hour(2), 1)]);
    assert_eq!(store.source_hours(hour(2)).await.expect("read").len(), 1);
}

pub async fn a_database_keeps_its_environment(h: &dyn Harness) {
    let store = h.open().await;
    assert_eq!(store.environment().await.expect("read"), "test");
    h.close(store).await;
    assert_eq!(h.open_as("production").await.environment().await.expect("read"), "test", "the first name stays, for the caller to see");
}

// --------------------------------------------------------------------------------------------------------------- reads

/// What a start on a backup does is shown where backups are made.
pub async fn a_database_that_is_no_backup_begins_as_it_was(h: &dyn Harness) {
    let store = h.open().await;
    queued(&*store, "u", &[message("u", "warn", hour(1))], hour(9)).await;
    assert_eq!(store.after_restore(hour(1)).await.expect("asked"), None);
    assert!(store.world(hour(0)).await.expect("the world").world.paused.is_none());
    assert_eq!(claim_messages(&*store, hour(1)).await.len(), 1);
}

pub async fn a_virtual_clock_finds_its_next_stop(h: &dyn Harness) {
    let store = h.open().await;
    assert_eq!(store.next_due().await.expect("read"), None);
    settled(&*store, "never", Timestamp::FOREVER).await;
    assert_eq!(store.next_due().await.expect("read"), None, "only an event can bring it");
    settled(&*store, "later", hour(60)).await;
    assert_eq!(store.next_due().await.expect("read"), Some(hour(60)));
    queued(&*store, "sooner", &[message("sooner", "warn", hour(20))], hour(70)).await;
    assert_eq!(store.next_due().await.expect("read"), Some(hour(20)));
    sending(&*store, hour(20)).await;
    assert_eq!(store.next_due().await.expect("read"), Some(hour(60)));
    store.append_events(vec![from_user("new", event("n", hour(3)))]).await.expect("appended");
    assert_eq!(store.next_due().await.expect("read"), Some(hour(3)));
}

pub async fn a_replay_looks_at_everything_in_its_own_instant(h: &dyn Harness) {
    let store = h.open().await;
    let (first, second) = (message("a", "first", hour(3)), message("a", "second", hour(5)));
    let a = queued(&*store, "a", &[first.clone(), second.clone()], hour(60)).await;
    let b = queued(&*store, "b", &[message("b", "first", hour(4))], hour(4)).await;
    let c = queued(&*store, "c", &[message("c", "first", hour(6))], hour(7)).await;
    settled(&*store, "d", hour(9)).await;
    let agenda = store.agenda(hour(8)).await.expect("read");
    assert_eq!(agenda, [(a, hour(3)), (b, hour(4)), (c, hour(6))]);
    let as_due = || store.claim_messages(Look::AsDue { upto: hour(8) }, 100, WORKER);
    let claimed: Vec<_> = as_due().await.expect("claimed").iter().flat_map(|g| &g.messages).map(|m| m.message.id).collect();
    assert_eq!(claimed, [first.id, message("c", "first", hour(6)).id], "b is due as its message is: facts first");
    assert!(as_due().await.expect("claimed").iter().flat_map(|g| &g.messages).all(|m| m.message.id == second.id));
}

pub async fn counts_and_pages_tell_the_same(h: &dyn Harness) {
    let store = h.open().await;
    for number in 0..25 {
        let user = format!("u{number}");
        store.append_events(vec![from_user(&user, event(&user, hour(1)))]).await.expect("appended");
    }
    let claimed = store.claim_due(hour(1), 100, WORKER).await.expect("claimed").profiles;
    let mut commits = Vec::new();
    for profile in &claimed {
        let full = Decision {
            messages: vec![message(&profile.profile.key, "warn", hour(1))],
            postings: vec![posting(1, 100, hour(1))],
            entries: vec![entry("", What::Entered, hour(1)), entry("warn", What::Queued, hour(1))],
            ..decision(profile.profile.clone(), Timestamp::FOREVER)
        };
        commits.push(commit(profile, full));
    }
    let answers = store.commit_decisions(commits).await.expect("answered");
    assert!(answers.len() == 25 && answers.iter().all(|answer| answer.is_committed()));
    let counts = store.counts().await.expect("read");
    assert_eq!((counts.profiles, counts.events, counts.quarantined), (25, 25, 0));
    let sum = |what| counts.entries.iter().filter(|((_, _, w, _), _)| *w == what).map(|(_, n)| n).sum::<u64>();
    assert_eq!((sum(What::Entered), sum(What::Queued), sum(What::Held)), (25, 25, 0));
    assert_eq!(counts.messages.values().sum::<u64>(), 25);
    assert_eq!(counts.postings.values().copied().collect::<Vec<_>>(), [(25, 2500)]);
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = store.profiles(after, 10).await.expect("read");
        let Some(last) = page.last else { break };
        (after, seen) = (Some(last), seen + page.profiles.len());
    }
    assert_eq!(seen, 25);
    let first = store.entries(0, 30).await.expect("read");
    let rest = store.entries(first.last().expect("an entry").seq, 30).await.expect("read");
    assert_eq!((first.len(), rest.len()), (30, 20));
    let events = store.events(EventSeq(0), 20).await.expect("read");
    let rest = store.events(events.last().expect("an event").seq, 20).await.expect("read");
    assert_eq!((events.len(), rest.len()), (20, 5));
    assert_eq!(events.first().map(|row| row.event.clone()), Some(event("u0", hour(1))));
    let ids: Vec<_> = claimed.iter().map(|p| message(&p.profile.key, "warn", hour(1)).id).collect();
    assert_eq!(store.messages(&ids).await.expect("read").len(), 25);
}

// ----------------------------------------------------------------------------------------------------------- addresses

/// A user with an e-mail address and a message that is due at hour 2.
async fn addressed(store: &dyn Store, user: &str, address: &str) -> (ProfileId, Message) {
    store.append_events(vec![from_user(user, event(&format!("first-{user}"), hour(0)))]).await.expect("appended");
    let claimed = claim_one(store, user, hour(0)).await;
    let mut profile = claimed.profile.clone();
    profile.addresses.insert(Channel::Email, Attribute { value: Value::text(address), at: hour(0) });
    let message = message(user, "warn", hour(2));
    let decision = Decision { messages: vec![message.clone()], ..decision(profile, Timestamp::FOREVER) };
    assert_eq!(store.commit_decisions(vec![commit(&claimed, decision)]).await.expect("committed"), [Committed::Committed]);
    (claimed.claim.profile, message)
}

fn suppress(address: &str, reason: Reason, scope: Scope) -> Suppress {
    let (since, source, id) = (hour(1), "postmark".to_owned(), "event-1".to_owned());
    Suppress { channel: Channel::Email, address: address.to_owned(), reason, scope, since, until: None, source, id, event: None }
}

/// Claims what is due at that hour and asks to send it; the answers, and what the person then hears.
async fn try_to_send(store: &dyn Store, user: &str, at: Timestamp) -> (Vec<Committed>, Vec<Event>) {
    let groups = claim_messages(store, at).await;
    let generation = generation(store).await;
    let intents = groups.iter().map(|group| intent(group, at, || IntentStep::Send { at })).collect();
    let answers = store.commit_intents(generation, intents).await.expect("committed");
    let person = store.find_profile(&user_named(user)).await.expect("read").expect("there");
    (answers, store.profile(person).await.expect("read").expect("there").waiting)
}

pub async fn promise_i3_a_suppressed_address_stops_the_intent(h: &dyn Harness) {
    let store = h.open().await;
    let (person, queued) = addressed(&*store, "u", "Anna@Example.com").await;
    // the person is imported a second time under another id, with the same address written otherwise
    let (_, other) = addressed(&*store, "v", "anna@example.COM").await;
    assert_eq!(store.suppress(vec![suppress("anna@example.com", Reason::Complaint, Scope::All)]).await.expect("listed"), [true]);
    for user in ["u", "v"] {
        let (answers, heard) = try_to_send(&*store, user, hour(2)).await;
        assert!(answers.iter().all(|answer| *answer == Committed::Conflict), "{answers:?}");
        let [fact] = heard.as_slice() else { panic!("one fact: {heard:?}") };
        assert_eq!((&*fact.name, fact.text_property("reason"), fact.occurred_at), ("suppressed", Some("complaint"), hour(2)));
    }
    let rows = store.messages(&[queued.id, other.id]).await.expect("read");
    assert!(rows.iter().all(|row| row.state == MessageState::Queued && row.attempts.is_empty()), "nothing went");
    assert_eq!(store.profile(person).await.expect("read").expect("there").due_at, hour(2), "looked at before anything else happens");
    assert!(claim_messages(&*store, hour(2)).await.is_empty(), "facts come before messages");
    h.close(store).await;
    let store = h.open().await;
    let found = store.suppressions(Channel::Email, " ANNA@example.com").await.expect("read");
    assert_eq!(
        found.iter().map(|entry| (entry.reason, entry.scope, entry.until)).collect::<Vec<_>>(),
        [(Reason::Complaint, Scope::All, None)]
    );
    assert!(store.suppressions(Channel::Sms, "anna@example.com").await.expect("read").is_empty(), "a channel of its own");
}

pub async fn a_suppression_forbids_what_it_speaks_of_while_it_lasts(h: &dyn Harness) {
    for (n, (word, at, stops)) in [
        (suppress("a@example.com", Reason::Unsubscribe, Scope::Only(Category::Marketing)), hour(2), Some("unsubscribed")),
        (suppress("a@example.com", Reason::Unsubscribe, Scope::Only(Category::Service)), hour(2), None),
        (Suppress { until: Some(hour(2)), ..suppress("a@example.com", Reason::Manual, Scope::All) }, hour(2), None),
        (Suppress { until: Some(hour(3)), ..suppress("a@example.com", Reason::Manual, Scope::All) }, hour(2), Some("suppressed")),
        (suppress("b@example.com", Reason::HardBounce, Scope::All), hour(2), None),
        (Suppress { channel: Channel::Sms, ..suppress("a@example.com", Reason::HardBounce, Scope::All) }, hour(2), None),
        (suppress("a@example.com", Reason::SoftBounce, Scope::All), hour(2), None),
    ]
    .into_iter()
    .enumerate()
    {
        let store = h.open().await;
        let user = format!("u{n}");
        addressed(&*store, &user, "a@example.com").await;
        store.suppress(vec![word.clone()]).await.expect("listed");
        let (answers, heard) = try_to_send(&*store, &user, at).await;
        let expected = if stops.is_some() { Committed::Conflict } else { Committed::Committed };
        assert_eq!(answers, [expected], "{word:?}");
        assert_eq!(heard.first().map(|event| &*event.name), stops, "{word:?}");
        let lift = Lift { channel: word.channel, address: word.address, reason: None, scope: None, event: None };
        store.lift(lift).await.expect("lifted");
        h.close(store).await;
    }
}

pub async fn soft_bounces_close_an_address_after_three_days(h: &dyn Harness) {
    let store = h.open().await;
    let bounce = |day: i64, id: &str| {
        let since = hour(24 * day);
        Suppress { since, id: id.to_owned(), ..suppress("a@example.com", Reason::SoftBounce, Scope::All) }
    };
    for (word, closed) in [(bounce(0, "1"), false), (bounce(0, "1"), false), (bounce(1, "2"), false), (bounce(1, "3"), false)] {
        store.suppress(vec![word]).await.expect("noted");
        assert_eq!(!store.suppressions(Channel::Email, "a@example.com").await.expect("read").is_empty(), closed);
    }
    store.suppress(vec![bounce(5, "4")]).await.expect("noted");
    let found = store.suppressions(Channel::Email, "a@example.com").await.expect("read");
    let until = found.first().and_then(|entry| entry.until);
    assert_eq!(until, Some(hour(24 * 5).plus_ms(SOFT_BOUNCE_UNTIL_MS)), "for a while");
}

pub async fn what_was_heard_once_is_not_heard_again(h: &dyn Harness) {
    let store = h.open().await;
    let person = settled(&*store, "u", Timestamp::FOREVER).await;
    let mut fact = message_event(MessageId(1), Outcome::Delivered, hour(3));
    fact.name = Arc::from("unsubscribed");
    let word = || {
        let word = suppress("a@example.com", Reason::Unsubscribe, Scope::Only(Category::Marketing));
        Suppress { event: Some((person, fact.clone())), ..word }
    };
    assert_eq!(store.suppress(vec![word(), word()]).await.expect("listed"), [true, false]);
    let lift =
        Lift { channel: Channel::Email, address: "A@example.com".into(), reason: Some(Reason::Unsubscribe), scope: None, event: None };
    assert_eq!(store.lift(lift.clone()).await.expect("lifted"), 1);
    assert_eq!(store.suppress(vec![word()]).await.expect("listed"), [false], "an old call played again takes nothing back");
    assert!(store.suppressions(Channel::Email, "a@example.com").await.expect("read").is_empty());
    assert_eq!(store.lift(lift).await.expect("lifted"), 0);
    let stored = store.profile(person).await.expect("read").expect("there");
    assert_eq!((stored.waiting.len(), stored.due_at), (1, hour(3)));
}

pub async fn a_message_keeps_the_proof_of_consent(h: &dyn Harness) {
    let store = h.open().await;
    let consent = |id: &str, at: Timestamp, channel: &str, granted: bool| {
        let mut event = event(id, at);
        event.kind = EventKind::Consent;
        event.properties = serde_json::json!({ "purpose": "marketing", "channel": channel, "granted": granted, "text_version": "v7" })
            .as_object()
            .cloned()
            .expect("an object");
        from_user("u", event)
    };
    let given = [("a", "email", true), ("b", "all", true), ("c", "sms", true), ("d", "email", false)];
    let events = given.iter().enumerate().map(|(n, (id, channel, granted))| {
        let at = hour(0).plus_ms(-1000 + n as i64);
        let mut new = consent(id, at, channel, *granted);
        new.event.received_at = hour(0);
        new
    });
    store.append_events(events.collect()).await.expect("appended");
    let (_, queued) = addressed(&*store, "u", "a@example.com").await;
    let groups = sending(&*store, hour(2)).await;
    assert_eq!(groups.len(), 1);
    let rows = store.messages(&[queued.id]).await.expect("read");
    let proof = rows.first().and_then(|row| row.consent).expect("a proof");
    let records = store.events(EventSeq(proof.0 - 1), 1).await.expect("read");
    assert_eq!(records.first().map(|row| &*row.event.id), Some("b"), "the latest yes for that channel");
}

pub async fn the_backlog_tells_what_waits_and_what_is_in_doubt(h: &dyn Harness) {
    let store = h.open().await;
    assert_eq!(store.backlog(hour(1)).await.expect("read"), Backlog::default());
    store.append_events(vec![from_user("new", event("first", hour(3)))]).await.expect("appended");
    let came = Backlog { people_due: 1, people_due_since: Some(hour(3)), ..Backlog::default() };
    assert_eq!(store.backlog(hour(2)).await.expect("read"), Backlog::default(), "not before its time");
    assert_eq!(store.backlog(hour(4)).await.expect("read"), came);
    let claimed = claim_one(&*store, "new", hour(4)).await;
    assert_eq!(store.backlog(hour(4)).await.expect("read"), came, "who is claimed is still due: claims may get stuck");
    store.quarantine(hour(4), vec![(claimed.claim, "a rule divides by zero".into())]).await.expect("set aside");
    let aside = Backlog { people_set_aside: 1, ..Backlog::default() };
    assert_eq!(store.backlog(hour(4)).await.expect("read"), aside);

    queued(&*store, "u", &[message("u", "warn", hour(1)), message("u", "again", hour(2))], hour(500)).await;
    let waiting = Backlog { messages_due: 2, messages_due_since: Some(hour(1)), ..aside };
    assert_eq!(store.backlog(hour(5)).await.expect("read"), waiting);
    // a day is their deadline
    assert_eq!(store.backlog(hour(26)).await.expect("read"), Backlog { messages_past_deadline: 1, ..waiting });
    let groups = sending(&*store, hour(5)).await;
    let under_way = Backlog { messages_under_way: 2, messages_under_way_since: Some(hour(5)), ..aside };
    assert_eq!(store.backlog(hour(6)).await.expect("read"), under_way);
    let results = groups.iter().flat_map(|group| &group.messages);
    let results = results.map(|claimed| result(claimed.message.id, Some(claimed.epoch), Outcome::Unknown, hour(6))).collect();
    store.record_results(results).await.expect("recorded");
    assert_eq!(store.backlog(hour(7)).await.expect("read"), Backlog { messages_unknown: 2, ..aside });
}

pub async fn a_glance_sees_the_row_and_what_it_does_not_know_yet(h: &dyn Harness) {
    let store = h.open().await;
    let glance = |user: &str| {
        let identity = user_named(user);
        let store = &store;
        async move { store.glance(&identity).await.expect("read") }
    };
    assert_eq!(glance("nobody").await, None);
    let id = settled(&*store, "u", hour(5)).await;
    let stored = store.profile(id).await.expect("read").expect("there");
    assert_eq!(glance("u").await, Some(Glance { id, profile: stored.profile.clone(), waiting: 0 }));
    store.append_events(vec![from_user("u", event("b", hour(2))), from_user("u", event("c", hour(3)))]).await.expect("appended");
    assert_eq!(glance("u").await, Some(Glance { id, profile: stored.profile, waiting: 2 }));
}
