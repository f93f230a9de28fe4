//! Moving house: from the file to PostgreSQL and back, everything is there; a move that was cut off goes on.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rekindle::engine::action::{Channel, Outcome};
use rekindle::engine::decide::Pause;
use rekindle::store::place::Place;
use rekindle::store::suppression::{Reason, Scope, Suppress};
use rekindle::store::{Identity, PauseScope, Publication, PublishedRule, Reject, Store};
use tokio::sync::Notify;

use super::given::*;
use super::server;

/// A house with somebody in every room.
async fn furnish(store: &dyn Store, people: usize) {
    let visitors = (0..people).map(|n| from_user(&format!("v{n}"), event(&format!("e{n}"), hour(1)))).collect();
    store.append_events(visitors).await.expect("appended");
    queued(store, "sent", &[message("sent", "warn", hour(2))], hour(60)).await;
    for group in sending(store, hour(2)).await {
        let results = group.messages.iter().map(|m| result(m.message.id, Some(m.epoch), Outcome::Accepted, hour(2))).collect();
        store.record_results(results).await.expect("recorded");
    }
    queued(store, "leased", &[message("leased", "warn", hour(3))], hour(60)).await;
    claim_messages(store, hour(3)).await;
    queued(store, "waiting", &[message("waiting", "warn", hour(50))], hour(60)).await;
    let one = claim_one(store, "v0", hour(4)).await;
    let mut decided = decision(one.profile.clone(), hour(70));
    decided.postings = vec![posting(1, 100, hour(4)), posting(2, -30, hour(4))];
    decided.entries = vec![entry("warn", rekindle::engine::action::What::Entered, hour(4))];
    decided.entered = vec![(Arc::from("silence"), hour(4))];
    decided.budget_used = vec![(Arc::from("five"), hour(4), 500)];
    store.commit_decisions(vec![commit(&one, decided)]).await.expect("committed");
    let publication = Publication {
        version: 7,
        at: hour(4),
        by: "ana".into(),
        why: "first".into(),
        texts: vec![("rules.yaml".into(), "rekindle: 1".into())],
        rules: vec![PublishedRule { id: Arc::from("silence"), when_hash: 1, hash: 2 }],
        spread_ms: 0,
        files: Some(9),
        is_rollback: false,
    };
    store.publish_rules(publication).await.expect("live");
    store
        .set_pause(hour(5), PauseScope::Channel(Channel::Sms), Some(Pause { at: hour(5), reason: Arc::from("dear") }), "ana")
        .await
        .expect("set");
    store.heartbeat("worker", hour(5), hour(5)).await.expect("beaten");
    store
        .keep_rejects(vec![Reject { source: Arc::from("shop"), reason: "no `type`".into(), row: "{}".into(), at: hour(5) }])
        .await
        .expect("kept");
    let closed = Suppress {
        channel: Channel::Email,
        address: "gone@post.example".into(),
        scope: Scope::All,
        reason: Reason::HardBounce,
        since: hour(5),
        until: None,
        source: "relay".into(),
        id: "b1".into(),
        event: None,
    };
    store.suppress(vec![closed]).await.expect("listed");
}

/// A lease ends with the process that had it, and open first looks are made when the next one opens the database.
async fn settle(path: &str) {
    Place::of(path).open("shop", None).await.expect("it opens").close().await;
}

/// All that can be read of it.
async fn inventory(place: &Place) -> Vec<String> {
    let store = place.open_to_read().await.expect("it opens");
    let mut all = vec![format!("{:?}", store.counts().await.expect("read")), store.environment().await.expect("read")];
    let mut after = None;
    loop {
        let page = store.profiles(after, 500).await.expect("read");
        let Some(last) = page.last else { break };
        after = Some(last);
        for person in &page.profiles {
            all.push(store.dump(person.id).await.expect("read"));
        }
    }
    let world = store.world(hour(0)).await.expect("read").world;
    all.push(format!("{:?} {:?} {:?} {:?}", world.rules, world.paused_channels, world.budgets, world.downtime));
    all.push(format!("{:?}", store.operations(100).await.expect("read")));
    all.push(format!("{:?}", store.publications(10).await.expect("read")));
    all.push(format!("{:?}", store.texts_of(7).await.expect("read")));
    all.push(format!("{:?}", store.rejects(0, 10).await.expect("read")));
    all.push(format!("{:?}", store.entries_since(hour(0)).await.expect("read")));
    all.push(format!("{:?}", store.source_hours(hour(0)).await.expect("read")));
    all.push(format!("{:?}", store.latest_heartbeat().await.expect("read")));
    all.push(format!("{:?}", store.suppressions(Channel::Email, "gone@post.example").await.expect("read")));
    store.close().await;
    all
}

fn migrate(from: &str, to: &str) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_rekindle")).args(["migrate", "--from", from, "--to", to]).output().expect("it runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_to_postgresql_and_back() {
    let Some(server) = server::shared() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (old, away, back) = (file("old.db"), server.database().await, file("back.db"));
    let store = Place::of(&old).open("shop", None).await.expect("it opens");
    furnish(store.as_ref(), 20).await;
    store.close().await;
    settle(&old).await;
    let before = inventory(&Place::of(&old)).await;

    for (from, to) in [(&old, &away), (&away, &back)] {
        Place::of(from).move_to(&Place::of(to), &|_, _| ()).await.expect("moved");
        assert_eq!(inventory(&Place::of(to)).await, before, "from {from} to {to}");
    }

    // and life goes on in either: new numbers follow the old ones, old events are known, what waits goes out
    for place in [Place::of(&away), Place::of(&back)] {
        let store = place.open("shop", None).await.expect("it opens");
        let events =
            vec![from_user("v1", event("e1", hour(1))), from_user("v1", event("new", hour(6))), from_user("nobody", event("x", hour(6)))];
        let appended = store.append_events(events).await.expect("appended");
        assert_eq!((appended.new, appended.duplicates, appended.profiles_created), (2, 1, 1));
        let due = store.claim_due(hour(7), 100, WORKER).await.expect("claimed").profiles;
        let one = due.iter().find(|claimed| &*claimed.profile.key == "v1").expect("due");
        assert!(one.events.iter().any(|event| &*event.id == "new"));
        let open = store.open_messages(0, 10).await.expect("read");
        assert_eq!(open.len(), 2, "what was leased in the old house, and what waits");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_cut_off_goes_on_and_nobody_works_on_half_a_database() {
    let Some(server) = server::shared() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let old = Place::of(&directory.path().join("old.db").display().to_string());
    let new = Place::of(&server.database().await);
    let store = old.open("shop", None).await.expect("it opens");
    furnish(store.as_ref(), 1_200).await;
    store.close().await;
    settle(&old.to_string()).await;

    let (moved, cut) = (AtomicI64::new(0), Notify::new());
    let told = |people: i64, _: i64| {
        moved.store(people, Ordering::Relaxed);
        if people >= 500 {
            cut.notify_one();
        }
    };
    tokio::select! {
        _ = old.move_to(&new, &told) => panic!("it was not cut off"),
        () = cut.notified() => {}
    }
    let refused = new.open("shop", None).await.err().expect("refused").to_string();
    assert!(refused.contains("has not ended"), "{refused}");

    let first = AtomicI64::new(-1);
    let told = |people: i64, _: i64| {
        let _told_before = first.compare_exchange(-1, people, Ordering::Relaxed, Ordering::Relaxed);
    };
    old.move_to(&new, &told).await.expect("moved");
    assert!(first.load(Ordering::Relaxed) >= 500, "it goes on where it was");
    assert_eq!(
        inventory(&new).await,
        inventory(&old).await.into_iter().map(|line| line.replace("leased\n", "queued\n")).collect::<Vec<_>>()
    );
    let store = new.open("shop", None).await.expect("it opens now");
    assert!(store.find_profile(&Identity::User("v1199".into())).await.expect("read").is_some());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_moves_counts_and_examines() {
    let Some(server) = server::shared() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let (old, new) = (directory.path().join("old.db").display().to_string(), server.database().await);
    let store = Place::of(&old).open("shop", None).await.expect("it opens");
    store
        .append_events((0..30).map(|n| from_user(&format!("u{}", n % 10), event(&format!("e{n}"), hour(1)))).collect())
        .await
        .expect("appended");
    let said = |output: std::process::Output| {
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let (done, text) = said(migrate(&old, &new));
    assert!(!done && text.contains("in use by another process"), "{text}");
    store.close().await;
    let (done, text) = said(migrate(&old, &new));
    assert!(done && text.contains("moved 10 people, 30 events"), "{text}");
    let (done, text) = said(migrate(&old, &new));
    assert!(!done && text.contains("not empty"), "{text}");
    let (done, text) = said(migrate(&old, &old));
    assert!(!done && text.contains("name two"), "{text}");
    let (done, text) = said(migrate("nowhere.db", &new));
    assert!(!done && text.contains("there is no database"), "{text}");
    let working = Place::of(&new).open("shop", None).await.expect("it opens");
    let (done, text) = said(migrate(&new, &directory.path().join("back.db").display().to_string()));
    assert!(!done && text.contains("stop them first"), "{text}");
    working.close().await;
}
