//! One poisoned profile, rule or template: set aside with its reason, shown by `doctor`, and given back once it is mended. With the built
//! binary.

use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Identity, Store as _};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::daemon::{Place, eventually, recorded, text};

const RULES: &str = r#"
rekindle: 1
events:
  signed_up: { name: "Signed Up", active: true, properties: { visits: { type: int, required: true } } }
  thanked: { name: "Thanked" }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: service }
  channels: { sms: { provider: recording } }
rules:
  - id: hello
    name: Greet who signs up
    owner: tests
    event: signed_up
    steps: [{ id: greet, send: { template: hello, channels: [sms] } }]
  - id: thanks
    name: Thank
    owner: tests
    event: thanked
    steps: [{ id: thank, send: { template: thanks, channels: [sms] } }]
"#;

const TEMPLATES: [(&str, &str); 4] = [
    ("hello/template.yaml", "rekindle: 1\ntemplate: { purpose: account }"),
    ("hello/en/sms.liquid", "Hello! One in {{ 100 | divided_by: event.visits }}."),
    ("thanks/template.yaml", "rekindle: 1\ntemplate: { purpose: account }"),
    ("thanks/en/sms.liquid", "Thank you!"),
];

fn person(user: &str) -> [serde_json::Value; 2] {
    [
        json!({ "type": "identify", "messageId": format!("i-{user}"), "userId": user, "traits": { "phone": "+441632960001" } }),
        json!({ "type": "track", "messageId": format!("s-{user}"), "userId": user, "event": "Signed Up", "properties": { "visits": 0 } }),
    ]
}

fn thank(user: &str) -> serde_json::Value {
    json!({ "type": "track", "messageId": format!("t-{user}"), "userId": user, "event": "Thanked" })
}

/// Division by zero in a text, for whoever it is: nobody's greeting is lost, and the thanks go out all the while.
#[test]
fn promise_i9_a_template_that_fails_for_everybody_holds_its_rule_until_it_is_mended() {
    let place = Place::new(RULES, &TEMPLATES);
    let daemon = place.serve("serve.log");
    let key = place.write_key();
    let users = ["ana", "ben", "cleo", "dora", "emil"];
    daemon.send(&key, &users.map(person).concat());
    daemon.says(&["cannot be written", "resume --rule hello"]);
    daemon.send(&key, &users.map(thank));
    eventually("every thanks", || (recorded(&place, "sms") == users.len()).then_some(()));
    let said = text(&place.run(&["pause"]));
    assert!(said.contains("rule hello since") && said.contains("template `hello` cannot be written"), "{said}");
    let doctor = place.look(&["doctor"]);
    let said = text(&doctor);
    assert!(doctor.status.success() && said.contains("note: rule `hello` is paused since"), "{said}");
    let greetings = || {
        users.map(|user| {
            place.messages(user).iter().filter(|row| &*row.message.rule == "hello").map(|row| row.state.name()).collect::<Vec<_>>()
        })
    };
    assert!(greetings().iter().all(|states| states == &["queued"]), "{:?}", greetings());

    std::fs::write(place.path("rules/templates/hello/en/sms.liquid"), "Hello!").expect("mended");
    let reloaded = place.run(&["reload"]);
    assert!(reloaded.status.success(), "{}", text(&reloaded));
    let resumed = place.run(&["resume", "--rule", "hello", "--yes"]);
    assert!(resumed.status.success(), "{}", text(&resumed));
    eventually("every greeting", || (recorded(&place, "sms") == 2 * users.len()).then_some(()));
    assert_eq!(daemon.terminate().0, Some(0));
}

/// A condition that divides by zero for some: the rule is set aside for them, the other rule goes on.
#[test]
fn promise_i9_a_rule_that_fails_for_somebody_is_set_aside_there_and_tried_again() {
    let failing = RULES
        .replace("    event: thanked\n", "    event: thanked\n    unless: 100 / (visits_planned ?? 1) > 200\n")
        .replace("policy:", "attributes:\n  visits_planned: { type: int, optional: true }\npolicy:");
    let mended = failing.replace("100 / (visits_planned ?? 1) > 200", "(visits_planned ?? 1) > 200");
    let templates = TEMPLATES.map(|(path, text)| (path, if path == "hello/en/sms.liquid" { "Hello!" } else { text }));
    let place = Place::new(&failing, &templates);
    let daemon = place.serve("serve.log");
    let key = place.write_key();
    let planned = json!({ "type": "identify", "messageId": "p-ana", "userId": "ana", "traits": { "visits_planned": 0 } });
    daemon.send(&key, &[person("ana").to_vec(), person("ben").to_vec(), vec![planned]].concat());
    daemon.settles();
    daemon.send(&key, &["ana", "ben"].map(thank));
    daemon.settles();
    let of = |user: &str| place.messages(user).iter().map(|row| row.message.rule.to_string()).collect::<Vec<_>>();
    assert_eq!((of("ana"), of("ben")), (vec!["hello".to_owned()], vec!["hello".to_owned(), "thanks".to_owned()]));
    let doctor = place.look(&["doctor"]);
    let said = text(&doctor);
    assert!(said.contains("rule `thanks` is set aside for 1 profile:") && said.contains("rekindle replay --rule thanks"), "{said}");
    assert_eq!(doctor.status.code(), Some(1), "{said}");

    place.write_rules(&mended);
    assert!(place.run(&["reload"]).status.success());
    let replayed = text(&place.run(&["replay", "--rule", "thanks"]));
    assert!(replayed.contains("2 people are looked at"), "{replayed}");
    let unknown = text(&place.run(&["replay", "--rule", "thank"]));
    assert!(unknown.contains("did you mean `thanks`?"), "{unknown}");
    assert_eq!(daemon.terminate().0, Some(0));
}

/// A row that cannot be read: its person waits with all events, the others go on.
#[tokio::test]
async fn promise_i9_a_profile_that_cannot_be_read_waits_and_is_given_back() {
    let templates = TEMPLATES.map(|(path, text)| (path, if path == "hello/en/sms.liquid" { "Hello!" } else { text }));
    let place = Place::new(RULES, &templates);
    let daemon = place.serve("serve.log");
    let key = place.write_key();
    daemon.send(&key, &["ana", "ben"].map(person).concat());
    daemon.settles();
    assert!(text(&place.run(&["replay"])).contains("nobody is set aside"));
    assert_eq!(daemon.terminate().0, Some(0));

    let change = async |statement: String| {
        let mut connection = SqliteConnectOptions::new().filename(place.database()).connect().await.expect("it opens");
        let changed = sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.expect("changed");
        connection.close().await.expect("closed");
        assert_eq!(changed.rows_affected(), 1);
    };
    let store = SqliteStore::open_to_read(&place.database()).await.expect("it opens");
    let ben = store.find_profile(&Identity::User("ben".into())).await.expect("read").expect("known").0;
    store.close().await;
    change(format!("insert into soft_bounces select 'email', state, 0, 0 from profiles where id = {ben}")).await;
    change(format!("update profiles set state = x'01ff' where id = {ben}")).await;
    let daemon = place.serve("again.log");
    daemon.send(&key, &["ana", "ben"].map(thank));
    daemon.says(&["set aside", "profiles.state"]);
    eventually("the thanks of the other", || (recorded(&place, "sms") == 3).then_some(()));
    let aside = text(&place.run(&["replay"]));
    assert!(aside.contains("ben since") && aside.contains("`profiles.state` of row"), "{aside}");
    let doctor = place.look(&["doctor"]);
    assert!(doctor.status.code() == Some(1) && text(&doctor).contains("ben: row: "), "{}", text(&doctor));
    // given back unmended, it is set aside again
    assert!(text(&place.run(&["replay", "--all"])).contains("1 people are given back"));
    eventually("it is set aside again", || text(&place.run(&["replay"])).contains("ben since").then_some(()));
    assert_eq!(daemon.terminate().0, Some(0));

    change(format!("update profiles set state = (select address_hash from soft_bounces where bounced_at = 0) where id = {ben}")).await;
    change("delete from soft_bounces where bounced_at = 0".into()).await;
    let daemon = place.serve("third.log");
    let given = text(&place.run(&["replay", "ben"]));
    assert!(given.contains("was set aside since") && given.contains("given back, and looked at now"), "{given}");
    eventually("ben is thanked as well", || (recorded(&place, "sms") == 4).then_some(()));
    daemon.settles();
    let doctor = place.look(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
    assert!(text(&place.run(&["replay", "nobody"])).contains("nobody with that user id"));
    assert_eq!(daemon.terminate().0, Some(0));
}
