//! One person's rights: everything that is held is handed out, and all of it goes.

use std::sync::Arc;

use rekindle::console::person;
use rekindle::engine::action::{Channel, MessageState};
use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::profile::Name;
use rekindle::engine::time::{DAY_MS, MINUTE_MS};
use rekindle::store::erasure::{Cause, Erasure};
use rekindle::store::suppression::Reason;
use rekindle::store::{Identity, Link, NewEvent, Reject, Store};
use serde_json::{Value as Json, json};

use crate::services::{Shop, start};

/// What tells of the person wherever it stands.
const TRACES: [&str; 5] = ["ana@post.example", "ana.before@post.example", "+441632960001", "Ana of the tests", "cart of ana"];

/// Ana has had another address before, was greeted by text message, and another message waits for her.
async fn shop() -> Shop {
    let shop = Shop::open().await;
    let traits = json!({ "email": "ana.before@post.example", "name": "Ana of the tests" });
    shop.append("ana", EventKind::Identify, "", traits, start().plus_ms(-2 * DAY_MS)).await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    shop.dispatch(start()).await;
    let thanks = json!({ "name": "Ana of the tests", "cart": "cart of ana" });
    shop.append("ana", EventKind::Track, "Was Thanked", thanks, start().plus_ms(MINUTE_MS)).await;
    shop.evaluate(start().plus_ms(MINUTE_MS)).await;
    assert_eq!(shop.states("ana").await, [(Channel::Sms, MessageState::Accepted), (Channel::Sms, MessageState::Queued)]);
    shop
}

fn len(export: &Json, name: &str) -> usize {
    export[name].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn everything_that_is_held_is_handed_out() {
    let shop = shop().await;
    let export = person::export(&*shop.store, "ana", start()).await.expect("read").expect("known");
    let text = export.to_string();
    for trace in TRACES {
        assert!(text.contains(trace), "{trace}\n{text}");
    }
    assert_eq!((len(&export, "events"), len(&export, "messages"), len(&export, "consents")), (7, 2, 2), "{text}");
    assert_eq!(export["person"]["addresses"]["sms"]["value"], "+441632960001");
    assert!(person::export(&*shop.store, "nobody", start()).await.expect("read").is_none());
}

/// Before she signed up Ana was a visitor, with a profile of her own; and what she sent first was refused, as Python writes it.
#[tokio::test]
async fn whoever_turned_out_to_be_the_person_is_handed_out_and_goes_with_it() {
    let shop = shop().await;
    let visit = |identity, link, at| NewEvent {
        identity,
        link,
        event: Event {
            id: format!("visit-{at}").into(),
            kind: EventKind::Identify,
            name: "".into(),
            occurred_at: at,
            received_at: at,
            source: "shop".into(),
            properties: serde_json::Map::from_iter([("email".to_owned(), "ana.visitor@post.example".into())]),
        },
        active: false,
    };
    let phone = Name::from("phone-of-\u{e4}na");
    let seen = visit(Identity::Anonymous(phone.clone()), None, start());
    shop.store.append_events(vec![seen]).await.expect("appended");
    let visitor = shop.store.find_profile(&Identity::Anonymous(phone.clone())).await.expect("read").expect("known");
    let at = start().plus_ms(90_000);
    shop.store.append_events(vec![visit(Identity::User("ana".into()), Some(Link::Anonymous(phone)), at)]).await.expect("appended");
    let id = shop.id("ana").await;
    assert_eq!(shop.store.history(id).await.expect("read").merged, [visitor]);
    let rejected = ["{\"userId\": \"x\", \"previousId\": \"phone-of-\\u00e4na\"}", "{\"userId\": \"somebody else\"}"];
    let reject = |row: &str| Reject { source: "shop".into(), reason: "no `type`".into(), row: row.into(), at };
    shop.store.keep_rejects(rejected.map(reject).to_vec()).await.expect("kept");

    let export = person::export(&*shop.store, "ana", at).await.expect("read").expect("known");
    assert!(export.to_string().contains("ana.visitor@post.example"));
    let erasure = Erasure { profile: id, at, by: "tests".into(), why: "asked".into() };
    let done = shop.store.erase(erasure, Cause::Asked).await.expect("erased");
    assert_eq!((done.rejects, done.identities), (1, 2), "{done:?}");
    let rest = shop.store.rejects(0, 10).await.expect("read");
    assert_eq!(rest.iter().map(|row| &*row.row).collect::<Vec<_>>(), [rejected[1]]);
    let closed = shop.store.profile(visitor).await.expect("read").expect("there");
    assert!(closed.profile.key.starts_with("erased-"), "{}", closed.profile.key);
    assert!(!shop.store.suppressions(Channel::Email, "ana.visitor@post.example").await.expect("read").is_empty());
}

#[tokio::test]
async fn promise_i3_who_is_erased_leaves_numbers_and_a_closed_address() {
    let shop = shop().await;
    let id = shop.id("ana").await;
    let now = start().plus_ms(2 * MINUTE_MS);
    let counts = shop.store.counts().await.expect("counts");
    let erasure = Erasure { profile: id, at: now, by: "tests".into(), why: "asked".into() };
    let done = shop.store.erase(erasure.clone(), Cause::Asked).await.expect("erased");
    assert_eq!((done.cancelled, done.messages, done.consents, done.identities, done.sending), (1, 2, 2, 1, 0), "{done:?}");

    // nothing goes out any more, and nobody looks at the empty row
    assert_eq!(shop.dispatch(now.plus_ms(MINUTE_MS)).await.claimed, 0);
    assert_eq!(shop.evaluate(now.plus_ms(DAY_MS)).await.claimed, 0);
    let after = shop.store.counts().await.expect("counts");
    assert_eq!((after.profiles, after.attempts, &after.postings), (counts.profiles, counts.attempts, &counts.postings), "sums stay right");
    assert!(person::export(&*shop.store, "ana", now).await.expect("read").is_none());
    let user = Identity::User(Arc::from("ana"));
    assert_eq!(shop.store.erasure_of(&user).await.expect("read"), Some((erasure, done)), "it is on record");
    for (channel, address) in
        [(Channel::Email, "ANA@post.example"), (Channel::Email, "ana.before@post.example"), (Channel::Sms, "00441632960001")]
    {
        let listed = shop.store.suppressions(channel, address).await.expect("read");
        assert_eq!(listed.first().map(|entry| (entry.reason, entry.until)), Some((Reason::Erased, None)), "{address}");
    }

    // no trace of her in any file of the database
    let shop = shop.restart().await;
    let folder = shop.path().parent().expect("a folder").to_owned();
    for file in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let bytes = std::fs::read(&file).expect("a file");
        for trace in TRACES {
            assert!(!bytes.windows(trace.len()).any(|window| window == trace.as_bytes()), "{trace} stands in {}", file.display());
        }
    }

    // her old facts come in once more with an import, and stay out; a new one makes somebody new, who is not written to
    shop.append("ana", EventKind::Track, "Signed Up", json!({}), start()).await;
    assert_eq!(shop.store.find_profile(&user).await.expect("read"), None);
    let later = now.plus_ms(DAY_MS);
    let traits = json!({ "phone": "+44 1632 960001", "email": "ana@post.example" });
    shop.append("ana", EventKind::Identify, "", traits, later).await;
    for channel in ["sms", "email"] {
        let consent = json!({ "purpose": "marketing", "channel": channel, "granted": true, "basis": "opt_in" });
        shop.append("ana", EventKind::Consent, channel, consent, later).await;
    }
    shop.sign_up("ana", later.plus_ms(1)).await;
    for _ in 0..4 {
        shop.evaluate(later.plus_ms(2)).await;
        shop.dispatch(later.plus_ms(2)).await;
    }
    assert!(shop.id("ana").await != id);
    let states = shop.states("ana").await;
    assert!(!states.is_empty() && states.iter().all(|(_, state)| *state == MessageState::Blocked), "{states:?}");
}
