//! From a provider's call to what a person hears no more: the shipped descriptions read real samples, and what they say is recorded once,
//! whatever the order.

use std::path::Path;

use rekindle::channel::callback::Said;
use rekindle::channel::http::provider::Description;
use rekindle::engine::action::{Channel, MessageId, MessageState};
use rekindle::engine::time::{DAY_MS, MINUTE_MS, Timestamp};
use rekindle::feedback::callback::{Reading, Report, read};
use rekindle::feedback::record::{Recorded, record};
use rekindle::store::suppression::{Reason, Scope};
use rekindle::store::{MessageRow, Store};
use serde::Deserialize;

use crate::services::{Shop, start};

/// A sample: what a provider sends, and how it must be read.
#[derive(Deserialize)]
struct Sample {
    provider: String,
    #[serde(default)]
    query: String,
    body: serde_json::Value,
    /// (what is said, the address, whether it arrived)
    reads: Vec<(Said, Option<String>, bool)>,
    #[serde(default)]
    unknown: u64,
}

#[test]
fn the_shipped_descriptions_read_what_providers_send() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(folder.join("tests/data/callbacks.yaml")).expect("the samples");
    let samples: Vec<Sample> = serde_yaml::from_str(&text).expect("samples");
    let ours = MessageId::parse("0190a5e0-0000-7000-8000-000000000001");
    for sample in &samples {
        let file = folder.join(format!("config/providers/{}.yaml", sample.provider));
        let description: Description = serde_yaml::from_str(&std::fs::read_to_string(file).expect("shipped")).expect("a description");
        let body = match &sample.body {
            serde_json::Value::String(form) => form.clone(),
            json => json.to_string(),
        };
        let callback = description.callback.expect("a callback");
        let Reading { reports, unknown } = read(&callback, &sample.query, body.as_bytes(), start()).expect("read");
        let found: Vec<_> = reports.iter().map(|report| (report.said, report.address.clone(), report.arrived)).collect();
        assert_eq!((found, unknown), (sample.reads.clone(), sample.unknown), "{}: {body}", sample.provider);
        for report in reports.iter().filter(|report| report.said != Said::Ignored) {
            assert_eq!(report.message, ours, "{}: {body}", sample.provider);
            assert!(!report.id.is_empty() && report.at <= start());
        }
    }
    let shipped = std::fs::read_dir(folder.join("config/providers")).expect("a folder").count();
    let sampled: std::collections::BTreeSet<&str> = samples.iter().map(|sample| sample.provider.as_str()).collect();
    assert_eq!(sampled.len(), shipped, "every shipped provider has samples");
}

// -------------------------------------------------------------------------------------------------------------------- recorded

fn report(row: &MessageRow, said: Said, id: &str, at: Timestamp) -> Report {
    let (message, id) = (Some(row.message.id), id.to_owned());
    Report { message, said, arrived: true, at, address: None, id, detail: Some("in their words".into()) }
}

/// Somebody who was greeted by text message.
async fn greeted() -> (Shop, MessageRow) {
    let shop = Shop::open().await;
    shop.meet("ana").await;
    shop.sign_up("ana", start()).await;
    shop.evaluate(start()).await;
    shop.dispatch(start()).await;
    let row = shop.messages("ana").await.remove(0);
    assert_eq!((row.message.channel, row.state), (Channel::Sms, MessageState::Accepted));
    (shop, row)
}

async fn hear(shop: &Shop, reports: &[Report], now: Timestamp) -> Recorded {
    record(&*shop.store, "sms", &[Channel::Sms], reports, now).await.expect("recorded")
}

#[tokio::test]
async fn promise_i6_reports_end_the_same_in_any_order_and_however_often() {
    use Said::{Accepted, Clicked, Delivered, HardBounce, Opened};
    let orders: [&[Said]; 4] = [
        &[Accepted, Delivered, Opened, Clicked, HardBounce],
        &[HardBounce, Clicked, Opened, Delivered, Accepted],
        &[Opened, HardBounce, Accepted, Clicked, Delivered],
        &[Delivered, Delivered, Clicked, Accepted, HardBounce, Opened, HardBounce],
    ];
    let mut ends = Vec::new();
    for order in orders {
        let (shop, row) = greeted().await;
        for (n, said) in order.iter().enumerate() {
            let now = start().plus_ms(MINUTE_MS * (n as i64 + 1));
            let reports = [report(&row, *said, &format!("{said:?}"), start().plus_ms(MINUTE_MS))];
            hear(&shop, &reports, now).await;
            assert_eq!(hear(&shop, &reports, now).await.new, 0, "said again, it is known");
        }
        shop.evaluate(start().plus_ms(DAY_MS)).await;
        let row = shop.messages("ana").await.remove(0);
        let closed = shop.profile("ana").await.suppressed.get(&Channel::Sms).map(|entry| entry.reason.to_string());
        ends.push((row.state, row.outcomes, closed));
    }
    assert!(ends.iter().all(|end| *end == (MessageState::Bounced, ends[0].1, Some("hard_bounce".to_owned()))), "{ends:?}");
}

#[tokio::test]
async fn a_hard_bounce_closes_the_address_for_whoever_has_it() {
    let (shop, row) = greeted().await;
    shop.meet("bob").await; // has the same number
    let now = start().plus_ms(MINUTE_MS);
    let recorded = hear(&shop, &[report(&row, Said::HardBounce, "e1", now)], now).await;
    assert_eq!(recorded, Recorded { new: 2, known: 0, foreign: 0 });
    let listed = shop.store.suppressions(Channel::Sms, "0044 1632 960001").await.expect("read");
    assert_eq!(listed.iter().map(|entry| (entry.reason, entry.scope)).collect::<Vec<_>>(), [(Reason::HardBounce, Scope::All)]);
    // bob's greeting is stopped at the last look, and goes by mail instead
    shop.sign_up("bob", now).await;
    shop.evaluate(now).await;
    assert_eq!(shop.dispatch(now).await.conflicts, 1);
    for _ in 0..3 {
        shop.evaluate(now.plus_ms(1)).await;
        shop.dispatch(now.plus_ms(1)).await;
    }
    assert_eq!(shop.states("bob").await, [(Channel::Sms, MessageState::Blocked), (Channel::Email, MessageState::Accepted)]);
    let row = shop.messages("bob").await.remove(0);
    assert!(row.because.as_deref().is_some_and(|because| because.contains("hard_bounce")), "{:?}", row.because);
}

#[tokio::test]
async fn who_unsubscribes_gets_what_is_needed_and_no_more_marketing() {
    let (shop, row) = greeted().await;
    let now = start().plus_ms(MINUTE_MS);
    hear(&shop, &[report(&row, Said::Unsubscribed, "e1", now)], now).await;
    shop.evaluate(now).await;
    let later = start().plus_ms(30 * DAY_MS);
    let thanks = serde_json::json!({ "name": "Ana" });
    shop.append("ana", rekindle::engine::event::EventKind::Track, "Was Thanked", thanks, later).await;
    shop.evaluate(later).await;
    shop.dispatch(later).await;
    let states = shop.states("ana").await;
    assert_eq!(states.last(), Some(&(Channel::Sms, MessageState::Accepted)), "transactional: {states:?}");
    // an import that says yes once more, later than the no, does not bring marketing back
    let consent = serde_json::json!({ "purpose": "marketing", "channel": "sms", "granted": true, "basis": "opt_in" });
    shop.append("ana", rekindle::engine::event::EventKind::Consent, "", consent, later).await;
    shop.sign_up("ana", later).await;
    for _ in 0..3 {
        shop.evaluate(later.plus_ms(2)).await;
        shop.dispatch(later.plus_ms(2)).await;
    }
    let states = shop.states("ana").await;
    assert!(states.contains(&(Channel::Sms, MessageState::Blocked)), "{states:?}");
    assert_eq!(states.iter().filter(|(kind, state)| *kind == Channel::Sms && *state == MessageState::Accepted).count(), 2, "{states:?}");
    // the call, played again, changes nothing
    assert_eq!(hear(&shop, &[report(&row, Said::Unsubscribed, "e1", now)], later).await, Recorded { new: 0, known: 1, foreign: 0 });
}

#[tokio::test]
async fn what_passes_leaves_the_address_open_but_is_no_delivery() {
    let (shop, row) = greeted().await;
    let now = start().plus_ms(MINUTE_MS);
    let failed = Report { arrived: false, ..report(&row, Said::Failed, "e1", now) };
    hear(&shop, &[failed], now).await;
    shop.evaluate(now).await;
    shop.dispatch(now).await;
    assert!(shop.profile("ana").await.suppressed.is_empty());
    assert!(shop.store.suppressions(Channel::Sms, "+441632960001").await.expect("read").is_empty());
    // it left the house, so it keeps its place under the week's cap: the mail waits for that
    assert_eq!(shop.states("ana").await, [(Channel::Sms, MessageState::Bounced)]);
    assert_eq!(shop.profile("ana").await.holds.iter().map(|hold| &*hold.gate).collect::<Vec<_>>(), ["caps"]);
}

#[tokio::test]
async fn reports_of_what_is_not_ours_change_nothing() {
    let (shop, row) = greeted().await;
    let before = shop.store.dump(row.profile).await.expect("a dump");
    let now = start().plus_ms(MINUTE_MS);
    let unknown = Report { message: Some(MessageId(7)), ..report(&row, Said::Complained, "e1", now) };
    let nameless = Report { message: None, address: Some("+441632960001".into()), ..report(&row, Said::Complained, "e2", now) };
    assert_eq!(hear(&shop, &[unknown, nameless], now).await, Recorded { new: 0, known: 0, foreign: 2 });
    // a provider of mail has no word about a text message
    let by_mail =
        record(&*shop.store, "mail", &[Channel::Email], &[report(&row, Said::Complained, "e3", now)], now).await.expect("recorded");
    assert_eq!(by_mail, Recorded { new: 0, known: 0, foreign: 1 });
    assert_eq!(shop.store.dump(row.profile).await.expect("a dump"), before);
    assert!(shop.store.suppressions(Channel::Sms, "+441632960001").await.expect("read").is_empty());
}
