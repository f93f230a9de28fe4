//! Rules in shadow: they decide as in earnest and do nothing, and on the day they go live they begin anew.

use std::sync::Arc;

use rekindle::engine::action::{Channel, What};
use rekindle::engine::profile::RunOutcome;
use serde_json::json;

use super::stage::{OPEN_POLICY, SHOP, Story, rules};

const RULE: &str = r#"
rekindle: 1
rules:
  - id: win-back
    owner: growth
    mode: shadow
    when: days_silent >= 3
    existing: skip
    reentry: { after: 90d }
    at_most: 1 per 30d
    holdout: HOLDOUT
    steps:
      - { id: warn, send: { template: warning, channels: [push, email], category: service } }
      - { id: gift, after: 1d, require: { step: warn, outcome: delivered }, points: { add: 10, class: bonus } }
      - { id: tell, after: 2d, send: { template: offer, channels: [email] } }
      - { id: mark, after: 3d, set: { visits_planned: 1 } }
      - { id: take, after: 10d, take: { notice: warn, percent: 10%, max: 300, reason: silence } }
      - { id: note, after: 11d, alert: { level: notice, notify: [anna] } }
    on_exit:
      - { id: glad, send: { template: thanks, channels: [email] } }
"#;

fn text(holdout: &str) -> String {
    RULE.replace("HOLDOUT", holdout)
}

fn policy() -> String {
    format!("{OPEN_POLICY}  notify: {{ anna: {{ email: anna@shop.example }} }}\n")
}

fn story(holdout: &str) -> Story {
    let mut story = Story::with_policy("Europe/Berlin", "2026-05-04T08:00", &text(holdout), &policy());
    story.event("anna", "2026-05-04T10:00", "Order Completed", json!({ "order_id": "o1", "total": 100 }));
    story
}

fn said(story: &Story, what: What) -> Vec<String> {
    let entries = story.person("anna").entries.iter().filter(|entry| entry.what == what);
    entries.map(|entry| format!("{}/{}: {}", entry.rule, entry.step, entry.because)).collect()
}

#[test]
fn a_rule_in_shadow_says_what_it_would_have_done_and_does_nothing() {
    let mut story = story("0%");
    story.until("2026-05-04T11:00");
    let before = story.person("anna").profile.clone();
    story.until("2026-06-04T00:00");
    assert_eq!(
        said(&story, What::Shadowed),
        [
            "win-back@shadow/warn: would send warning by push",
            "win-back@shadow/gift: would give 10 points of bonus",
            "win-back@shadow/tell: would send offer by email",
            "win-back@shadow/mark: would set visits_planned",
            "win-back@shadow/take: would take 100 points of bonus",
            "win-back@shadow/note: would alert anna (notice)",
        ]
    );
    let anna = story.person("anna");
    let after = &anna.profile;
    assert!(anna.messages.is_empty() && anna.exposures.is_empty(), "nothing is sent, nobody is measured");
    assert_eq!((&after.wallet.lots, &after.attributes, &after.slots), (&before.wallet.lots, &before.attributes, &before.slots));
    assert_eq!(after.memory("win-back@shadow").and_then(|memory| memory.outcome), Some(RunOutcome::Done));
    assert!(after.memory("win-back").is_none());
    assert_eq!(story.timeline.faults, [""; 0]);
}

#[test]
fn it_leaves_and_refuses_as_in_earnest_and_asks_the_gates() {
    let mut story = story("100%");
    story.session("anna", "2026-05-09T10:00");
    story.until("2026-05-20T00:00");
    // held out: its marketing and its points would not have happened; a service message of a rule that takes neither
    assert_eq!(said(&story, What::Shadowed), [""; 0]);
    assert!(said(&story, What::Skipped).iter().all(|line| line.ends_with(": holdout") || line.ends_with(": left")), "held out");
    assert!(story.person("anna").exposures.is_empty());
    let ended = said(&story, What::Ended);
    assert_eq!(ended, ["win-back@shadow/: left: `when` no longer holds"]);
    assert_eq!(said(&story, What::Refused), ["win-back@shadow/: reentry: it ran on 2026-05-07T08:00:00Z"]);
}

#[test]
fn on_the_day_it_goes_live_nothing_of_the_shadow_counts() {
    let mut story = story("0%");
    story.until("2026-05-08T12:00");
    let live = text("0%").replace("    mode: shadow\n", "");
    let policy = policy();
    let set = |text: &str| Arc::new(rules(&[("shop.yaml", SHOP), ("policy.yaml", &policy), ("rules.yaml", text)]));
    story.timeline.reload(set(&live));
    story.until("2026-05-08T13:00");
    let ended = said(&story, What::Ended);
    assert_eq!(ended, ["win-back@shadow/: disabled: the rule is gone or disabled"], "its run under way is over");
    assert_eq!(story.person("anna").messages.len(), 0, "who satisfies `when` by then is existing");
    // silent again, seven days after the shadow's run: `reentry` and `at_most` have not begun to count
    story.session("anna", "2026-05-11T10:00");
    story.until("2026-05-16T23:00");
    let sent: Vec<(&str, Channel, u32)> =
        story.person("anna").messages.iter().map(|s| (&*s.message.template, s.message.channel, s.message.run)).collect();
    assert_eq!(sent, [("warning", Channel::Push, 1), ("offer", Channel::Email, 1)]);
    // and back into the shadow: its run ends, and nothing goes out any more
    story.timeline.reload(set(&text("0%")));
    story.until("2026-06-20T00:00");
    assert_eq!(story.person("anna").profile.memory("win-back").and_then(|memory| memory.outcome), Some(RunOutcome::Disabled));
    assert_eq!(story.person("anna").messages.len(), 2);
}

#[test]
fn what_a_rule_in_shadow_would_send_takes_nobodys_place() {
    const CAPPED: &str = r#"
rekindle: 1
policy:
  time: { zone: { last: Europe/Berlin } }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: marketing }
  caps: [{ id: week, per: user, max: 1, window: 7d, categories: [marketing] }]
"#;
    const TWO: &str = r#"
rekindle: 1
rules:
  - { id: first, owner: a, mode: MODE, priority: 90, event: cart_updated, key: event.cart_id, steps: [{ id: tell, send: { template: news, channels: [email] } }] }
  - { id: second, owner: a, event: cart_updated, key: event.cart_id, steps: [{ id: tell, send: { template: cart, channels: [email] } }] }
"#;
    for (mode, expected) in [("live", "news"), ("shadow", "cart")] {
        let mut story = Story::with_policy("Europe/Berlin", "2026-05-04T08:00", &TWO.replace("MODE", mode), CAPPED);
        story.event("anna", "2026-05-04T10:00", "Cart Updated", json!({ "cart_id": "c1" }));
        story.until("2026-05-05T00:00");
        let sent: Vec<&str> = story.person("anna").messages.iter().map(|sending| &*sending.message.template).collect();
        assert_eq!(sent, [expected], "{mode}");
    }
}
