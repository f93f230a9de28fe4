//! What happens again comes while a run goes on: it is let be, it takes the run's place, or it begins another beside it; and how often a
//! key may begin in a lifetime.

use rekindle::engine::action::{Channel, Outcome, What};
use rekindle::engine::decide::{ResultOf, result_event};
use rekindle::simulate::Receipt;
use serde_json::json;

use super::stage::{OPEN_POLICY, SHOP, Story, rules};

/// A cart left behind, with more keys of the rule.
fn cart(keys: &str) -> String {
    format!(
        r#"
rekindle: 1
rules:
  - id: cart-left
    owner: growth
    event: cart_updated
    key: event.cart_id
    stop_on: {{ event: order_completed }}
    {keys}
    steps:
      - {{ id: nudge, after: 4h, send: {{ template: cart, channels: [push] }} }}
      - {{ id: gift, after: 6h, points: {{ add: 10, class: bonus }} }}
      - {{ id: coupon, after: 24h, send: {{ template: offer, channels: [email] }} }}
"#
    )
}

fn story(keys: &str) -> Story {
    Story::begin("Europe/Berlin", "2026-05-04T08:00", &cart(keys))
}

fn put_in_cart(story: &mut Story, at: &str, id: &str) {
    story.event("anna", at, "Cart Updated", json!({ "cart_id": id }));
}

/// What was sent, with its local time.
fn sent(story: &Story) -> Vec<(String, String)> {
    let zone = rekindle::engine::time::Zone::named("Europe/Berlin").expect("a zone");
    let accepted = story.person("anna").messages.iter().filter(|sending| sending.accepted);
    accepted.map(|s| (s.message.template.to_string(), s.message.decided_at.local(&zone).strftime("%d %H:%M").to_string())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(template, at)| ((*template).to_owned(), (*at).to_owned())).collect()
}

fn said(story: &Story, what: What) -> Vec<String> {
    story.person("anna").entries.iter().filter(|entry| entry.what == what).map(|entry| entry.because.to_string()).collect()
}

#[test]
fn a_second_event_of_its_key_is_let_be_or_starts_the_clock_again() {
    for (keys, expected) in [
        // 10:00 and 11:00: the clock of the first goes on
        ("while_running: ignore", [("cart", "04 14:00"), ("offer", "05 10:00")]),
        ("while_running: restart", [("cart", "04 15:00"), ("offer", "05 11:00")]),
    ] {
        let mut story = story(keys);
        put_in_cart(&mut story, "2026-05-04T10:00", "c1");
        put_in_cart(&mut story, "2026-05-04T11:00", "c1");
        story.until("2026-05-10T00:00");
        assert_eq!(sent(&story), pairs(&expected), "{keys}");
    }
}

#[test]
fn what_a_run_has_done_is_not_done_again_by_the_one_that_takes_its_place() {
    let mut story = story("while_running: restart");
    put_in_cart(&mut story, "2026-05-04T10:00", "c1");
    // the nudge went out at 14:00, the points were given at 16:00
    put_in_cart(&mut story, "2026-05-04T17:00", "c1");
    story.until("2026-05-10T00:00");
    assert_eq!(sent(&story), pairs(&[("cart", "04 14:00"), ("offer", "05 17:00")]));
    let anna = story.person("anna");
    assert_eq!(anna.postings.iter().map(|posting| posting.amount).sum::<i64>(), 10, "given once");
    let outcomes = said(&story, What::Ended);
    assert_eq!(outcomes, ["superseded: it came again, and a new run takes its place", "done: all steps are done"]);
    // two runs, one start: `reentry` counts from the first
    let memory = anna.profile.memory("cart-left").expect("a memory");
    assert_eq!((memory.runs, memory.starts.len()), (2, 1));
    assert_eq!((memory.starts[0].times, memory.starts[0].at), (1, story.at("2026-05-04T10:00")));
}

#[test]
fn a_message_that_never_went_is_sent_by_the_run_that_takes_the_place() {
    let mut story = story("while_running: restart");
    story.deliver(&[(Channel::Push, Receipt::Failed)]);
    put_in_cart(&mut story, "2026-05-04T10:00", "c1");
    story.until("2026-05-04T14:30");
    story.deliver(&[(Channel::Push, Receipt::Delivered)]);
    put_in_cart(&mut story, "2026-05-04T15:00", "c1");
    story.until("2026-05-10T00:00");
    assert_eq!(sent(&story), pairs(&[("cart", "04 19:00"), ("offer", "05 15:00")]));
}

#[test]
fn a_run_and_the_one_that_takes_its_place_are_one_for_at_most() {
    let mut story = story("while_running: restart\n    at_most: 1 per 7d");
    put_in_cart(&mut story, "2026-05-04T10:00", "c1");
    put_in_cart(&mut story, "2026-05-04T17:00", "c1");
    // another cart is another run: it sends nothing
    put_in_cart(&mut story, "2026-05-04T18:00", "c2");
    story.until("2026-05-10T00:00");
    assert_eq!(sent(&story), pairs(&[("cart", "04 14:00"), ("offer", "05 17:00")]));
    let dropped = said(&story, What::Dropped);
    assert_eq!(dropped.len(), 2, "{dropped:?}");
    assert!(
        dropped.iter().all(|because| because.contains("at_most: 1 other runs of cart-left sent within the span, 1 may")),
        "{dropped:?}"
    );
    // a week after the first run's latest message the next cart may send again
    put_in_cart(&mut story, "2026-05-12T18:00", "c3");
    story.until("2026-05-20T00:00");
    assert_eq!(sent(&story).len(), 4);
}

#[test]
fn a_message_that_was_handed_on_and_failed_in_the_end_frees_the_run_that_has_it_now() {
    let mut story = story("while_running: restart\n    at_most: 1 per 7d");
    put_in_cart(&mut story, "2026-05-04T10:00", "c1");
    story.until("2026-05-04T14:00");
    put_in_cart(&mut story, "2026-05-04T17:00", "c1");
    story.until("2026-05-04T17:30");
    let sent_runs = |story: &Story| {
        let memory = story.person("anna").profile.memory("cart-left").cloned().expect("a memory");
        memory.sent_runs.iter().map(|(run, _)| *run).collect::<Vec<u32>>()
    };
    assert_eq!(sent_runs(&story), [2], "what the first run sent counts for the second");
    let nudge = story.person("anna").messages.first().expect("the nudge").message.clone();
    let failed = result_event(&ResultOf::from(&nudge), Outcome::Failed, story.at("2026-05-04T18:00"), "the provider lost it");
    story.timeline.event("anna", failed);
    story.until("2026-05-04T18:30");
    assert_eq!(sent_runs(&story), [0_u32; 0]);
}

#[test]
fn the_event_of_the_new_run_is_the_later_one_and_its_text_the_present_one() {
    let before = cart("while_running: restart");
    let mut story = Story::begin("Europe/Berlin", "2026-05-04T08:00", &before);
    put_in_cart(&mut story, "2026-05-04T10:00", "c1");
    story.until("2026-05-04T14:30");
    // the steps change their order while the run goes on: what was sent is known by its id
    let after = before.replace("id: nudge, after: 4h", "id: nudge, after: 5h").replace(
        "      - { id: nudge",
        "      - { id: hello, after: 1h, send: { template: news, channels: [email] } }\n      - { id: nudge",
    );
    story.timeline.reload(std::sync::Arc::new(rules(&[("shop.yaml", SHOP), ("policy.yaml", OPEN_POLICY), ("rules.yaml", &after)])));
    put_in_cart(&mut story, "2026-05-04T15:00", "c1");
    story.until("2026-05-10T00:00");
    assert_eq!(sent(&story), pairs(&[("cart", "04 14:00"), ("news", "04 16:00"), ("offer", "05 15:00")]));
}

#[test]
fn runs_of_one_key_go_side_by_side_if_the_rule_says_so() {
    let mut story = story("while_running: parallel\n    reentry: { after: 1h }");
    for at in ["10:00", "10:30", "11:00", "12:15"] {
        put_in_cart(&mut story, &format!("2026-05-04T{at}"), "c1");
    }
    story.until("2026-05-10T00:00");
    // the second came within the hour
    let nudges = [("cart", "04 14:00"), ("cart", "04 15:00"), ("cart", "04 16:15")];
    let offers = [("offer", "05 10:00"), ("offer", "05 11:00"), ("offer", "05 12:15")];
    assert_eq!(sent(&story), pairs(&[nudges, offers].concat()));
    assert_eq!(said(&story, What::Refused).len(), 1);
    // an order stops them all
    let mut story = self::story("while_running: parallel\n    reentry: { after: 1h }");
    put_in_cart(&mut story, "2026-05-04T10:00", "c1");
    put_in_cart(&mut story, "2026-05-04T12:00", "c1");
    story.event("anna", "2026-05-04T13:00", "Order Completed", json!({ "order_id": "o1" }));
    story.until("2026-05-10T00:00");
    assert_eq!(sent(&story), []);
}

#[test]
fn a_flood_of_events_begins_no_more_than_64_runs_of_a_key_side_by_side() {
    let mut story = story("while_running: parallel\n    reentry: { after: 0s }");
    for minute in 0..60 {
        for half in ["00", "30"] {
            put_in_cart(&mut story, &format!("2026-05-04T10:{minute:02}:{half}"), "c1");
        }
    }
    story.until("2026-05-04T12:00");
    assert_eq!(story.person("anna").profile.runs.len(), 64);
    assert!(said(&story, What::Refused).iter().all(|because| because == "64 runs are under way already"));
}

#[test]
fn a_key_may_begin_so_often_in_a_lifetime() {
    for (reentry, expected) in [("{ after: 2d, max: 3 }", 3), ("{ after: 2d, max: 1 }", 1), ("never", 1), ("{ after: 2d }", 6)] {
        let mut story = story(&format!("reentry: {reentry}"));
        for day in (4..22).step_by(3) {
            put_in_cart(&mut story, &format!("2026-05-{day:02}T10:00"), "c1");
            put_in_cart(&mut story, &format!("2026-05-{day:02}T11:00"), "c2");
        }
        story.until("2026-06-10T00:00");
        let begun = said(&story, What::Entered).len();
        assert_eq!(begun, 2 * expected, "{reentry}: of each of two keys");
    }
}
