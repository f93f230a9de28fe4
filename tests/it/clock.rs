//! The machine's clock is set while the daemon serves: by days, forward and back. The daemon has no other clock; what passes in truth is
//! seconds.

use std::fs;

use rekindle::engine::action::PostingKind;
use rekindle::faults::CLOCK_OFFSET;
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Identity, Store as _};
use serde_json::{Value as Json, json};

use super::daemon::{Daemon, Place, eventually, recorded, text};

const RULES: &str = r#"
rekindle: 1
events:
  order_completed: { name: "Order Completed", active: true, properties: { order_id: { type: string, required: true }, total: { type: money } } }
  said_goodbye: { name: "Said Goodbye" }
program:
  currency: EUR
  jurisdiction: { by: country, else: as-programmed }
  points:
    classes: { bonus: { expiry: { rolling: 24mo } } }
    earn: [{ event: order_completed, rate: 10 per 1 EUR, class: bonus }]
    penalty: { classes: [bonus], keep: 100, cap: 50% per 365d, grace: 7d }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: service }
  caps: [{ id: day, per: user, max: 1, window: 24h, categories: [marketing] }]
  channels: { sms: { provider: recording } }
rules:
  - id: thanks
    name: Thank for each order
    owner: tests
    event: order_completed
    key: event.order_id
    steps: [{ id: thank, send: { template: hello, channels: [sms], category: marketing } }]
  - id: goodbye
    name: Points of who goes are taken after a warning
    owner: tests
    event: said_goodbye
    steps:
      - { id: warn, send: { template: hello, channels: [sms], category: service } }
      - { id: take, after: 10d, take: { notice: warn, percent: 10%, of: bonus, max: 300, keep: 100, reason: goodbye } }
"#;

const TEMPLATES: [(&str, &str); 2] =
    [("hello/template.yaml", "rekindle: 1\ntemplate: { purpose: account }"), ("hello/en/sms.liquid", "Hello!")];

const DAY_MS: i64 = 86_400_000;

/// A daemon whose clock can be set.
struct Set<'p> {
    place: &'p Place,
    daemon: Daemon<'p>,
    key: String,
}

impl<'p> Set<'p> {
    fn begin(place: &'p Place) -> Set<'p> {
        let (key, offset) = (place.write_key(), place.offset());
        let mut daemon = place.begin("first.log", &[(CLOCK_OFFSET, offset.to_str().expect("a path"))]);
        assert!(daemon.is_up(), "{}", daemon.log());
        Set { place, daemon, key }
    }

    fn set(&self, days: i64) {
        fs::write(self.place.offset(), (days * DAY_MS).to_string()).expect("written");
    }

    fn send(&self, messages: &[Json]) {
        self.daemon.send(&self.key, messages);
    }
}

fn known() -> Json {
    json!({ "type": "identify", "messageId": "i", "userId": "ana", "traits": { "phone": "+441632960001" } })
}

fn ordered(order: &str) -> Json {
    let properties = json!({ "order_id": order, "total": 100 });
    json!({ "type": "track", "messageId": format!("o-{order}"), "userId": "ana", "event": "Order Completed", "properties": properties })
}

fn taken(place: &Place) -> usize {
    place.read(async |store: &SqliteStore| {
        let id = store.find_profile(&Identity::User("ana".into())).await.expect("read").expect("a person");
        store.history(id).await.expect("a history").postings.iter().filter(|posting| posting.kind == PostingKind::Take).count()
    })
}

#[test]
fn a_clock_set_forward_by_days_takes_nothing_from_anybody_and_is_told_of() {
    let place = Place::new(RULES, &TEMPLATES);
    let set = Set::begin(&place);
    set.send(&[known(), ordered("a"), json!({ "type": "track", "messageId": "g", "userId": "ana", "event": "Said Goodbye" })]);
    eventually("thanks and warning", || (recorded(&place, "sms") == 2).then_some(()));
    set.daemon.settles();

    // by the clock ten days and the grace are over; nobody was there to hear of it
    set.set(18);
    set.daemon.says(&["set forward", "ERROR"]);
    set.daemon.figure("rekindle_clock_steps_total{direction=\"forward\"} 1");
    eventually("the step was looked at", || text(&place.look(&["timeline", "--user", "ana"])).contains("held: notice").then_some(()));
    set.daemon.settles();
    assert_eq!(taken(&place), 0, "the days that were left out count as downtime, which extends the grace");
    assert_eq!(set.daemon.terminate().0, Some(0));
    let doctor = place.look(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
}

#[test]
fn a_clock_set_back_leaves_caps_closed_and_nothing_goes_twice() {
    let place = Place::new(RULES, &TEMPLATES);
    let set = Set::begin(&place);
    set.send(&[known(), ordered("a")]);
    eventually("the first thanks", || (recorded(&place, "sms") == 1).then_some(()));
    set.daemon.settles();
    set.set(-2);
    set.daemon.says(&["set back", "ERROR"]);
    set.send(&[ordered("a"), ordered("b")]);
    eventually("the second order is decided about", || set.daemon.get("/metrics").1.contains("rekindle_entries_total 2").then_some(()));
    set.daemon.settles();
    assert_eq!(recorded(&place, "sms"), 1, "two days ago nothing had been sent, and all the same there is no room");
    set.set(0);
    set.daemon.says(&["set forward", "ERROR"]);
    set.daemon.settles();
    assert_eq!(recorded(&place, "sms"), 1);
    assert_eq!(set.daemon.terminate().0, Some(0));
    let doctor = place.look(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
}
