//! Rules change while the daemon runs: what goes live, what is refused, what comes back, and what of it a restart knows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle::clock::VirtualClock;
use rekindle::engine::time::{DAY_MS, HOUR_MS, Timestamp};
use rekindle::store::sqlite::SqliteStore;
use rekindle::store::{Store, StoreError};
use rekindle::telemetry::Telemetry;
use rekindle::versions::RuleVersions;
use rekindle::versions::publisher::{Looked, PublishError, Publisher, WentLive};

const RULES: &str = r#"
rekindle: 1
events:
  signed_up: { name: "Signed Up", active: true }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: { basis: opt_in }, service: always, transactional: always }
  categories: { default: marketing }
rules:
  - id: hello
    name: Greet who signs up
    owner: tests
    event: signed_up
    steps: [{ id: greet, send: { template: hello, channels: [sms] } }]
  - id: silent
    name: Write to who is silent
    owner: tests
    when: days_silent >= 30
    existing: skip
    steps: [{ id: write, send: { template: hello, channels: [sms] } }]
"#;

const RULE_TESTS: &str = r#"
rekindle: 1
tests:
  - name: who signs up is greeted
    rules: [hello]
    start: "2026-03-02T10:00:00Z"
    given:
      user: { id: u1, first_seen_at: -1d, consent: { marketing: [sms] } }
    timeline:
      - { at: +1h, event: { name: signed_up } }
      - { at: +2h, expect: { sent: [hello] } }
"#;

/// A rules directory, the database it goes live in, and a publisher that looks after both.
struct Desk {
    scratch: tempfile::TempDir,
    store: SqliteStore,
    clock: Arc<VirtualClock>,
    telemetry: Arc<Telemetry>,
    publisher: Publisher,
    rules: Arc<RuleVersions>,
}

fn start() -> Timestamp {
    Timestamp::parse("2026-03-02T10:00:00Z").expect("an instant")
}

fn rules_of(scratch: &Path) -> PathBuf {
    scratch.join("rules")
}

impl Desk {
    async fn open() -> Desk {
        let scratch = tempfile::tempdir().expect("a directory");
        let rules = rules_of(scratch.path());
        let template = rules.join("templates/hello/en");
        fs::create_dir_all(&template).expect("directories");
        fs::write(rules.join("rules.yaml"), RULES).expect("a file");
        fs::write(rules.join("rules.test.yaml"), RULE_TESTS).expect("a file");
        fs::write(template.with_file_name("template.yaml"), "rekindle: 1\ntemplate: { purpose: marketing }").expect("a file");
        fs::write(template.join("sms.liquid"), "Hello!").expect("a file");
        Desk::start(scratch, start()).await.map_err(|(_, error)| error).expect("the first rules go live")
    }

    async fn start(scratch: tempfile::TempDir, at: Timestamp) -> Result<Desk, (tempfile::TempDir, PublishError)> {
        let store = SqliteStore::open(&scratch.path().join("shop.db"), "test").await.expect("a database");
        let (clock, telemetry) = (Arc::new(VirtualClock::at(at)), Arc::new(Telemetry::default()));
        let directory = rules_of(scratch.path());
        let mut publisher = Publisher::new(Arc::new(store.clone()), directory, clock.clone(), telemetry.clone(), Some("anna".into()));
        match publisher.start().await {
            Ok(rules) => Ok(Desk { scratch, store, clock, telemetry, publisher, rules }),
            Err(error) => Err((scratch, error)),
        }
    }

    /// The process ends and another begins, an hour later.
    async fn restart(self) -> Desk {
        let Desk { scratch, store, clock, publisher, .. } = self;
        drop(publisher);
        store.close().await;
        let later = rekindle::clock::Clock::now(clock.as_ref()).plus_ms(HOUR_MS);
        Desk::start(scratch, later).await.map_err(|(_, error)| error).expect("it starts")
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(rules_of(self.scratch.path()).join(path), text).expect("a file");
    }

    /// The rules with a piece of text replaced.
    fn edit(&self, from: &str, to: &str) {
        assert!(RULES.contains(from), "{from}");
        self.write("rules.yaml", &RULES.replace(from, to));
    }

    /// What comes of a change: seen at one look, taken at the next.
    async fn look_twice(&self) -> Looked {
        assert_eq!(self.publisher.look().await.expect("a look"), Looked::Changing);
        self.publisher.look().await.expect("a look")
    }

    async fn goes_live(&self) -> WentLive {
        match self.look_twice().await {
            Looked::Live(went_live) => went_live,
            other => panic!("{other:?}"),
        }
    }

    fn in_use(&self) -> u64 {
        self.rules.snapshot().rules.version
    }

    async fn live(&self) -> Result<Option<u64>, StoreError> {
        self.store.current_version().await
    }

    fn note(&self) -> String {
        self.telemetry.vitals.notes().into_iter().map(|(part, note)| format!("{part}: {note}")).collect()
    }

    fn metric(&self, line: &str) -> bool {
        self.telemetry.metrics.render().lines().any(|found| found == line)
    }
}

#[tokio::test]
async fn promise_i12_files_with_an_error_or_a_failed_test_leave_the_set_before() {
    let desk = Desk::open().await;
    let before = desk.in_use();
    assert_eq!(desk.publisher.look().await.expect("a look"), Looked::Unchanged);
    let broken =
        [("days_silent >= 30", "days_silnt >= 30", "days_silnt"), ("event: signed_up", "event: signed_up\n    enabled: false", "expected")];
    for (from, to, said) in broken {
        desk.edit(from, to);
        assert_eq!(desk.look_twice().await, Looked::Refused, "{to}");
        assert_eq!((desk.in_use(), desk.live().await.expect("read")), (before, Some(before)), "{to}");
        assert!(desk.metric("rekindle_rules_reload_failed 1"), "{}", desk.telemetry.metrics.render());
        assert!(desk.note().contains("the files on disk are refused"), "{}", desk.note());
        let refused = desk.store.refused_rules().await.expect("read").expect("refused");
        assert!(refused.because.contains(said), "{}", refused.because);
        assert_eq!(desk.publisher.look().await.expect("a look"), Looked::Unchanged, "told once");
    }
    // a restart goes by the set that is live, and says why
    let desk = desk.restart().await;
    assert_eq!(desk.in_use(), before);
    assert!(desk.metric("rekindle_rules_reload_failed 1") && desk.note().contains("refused"), "{}", desk.note());
    desk.write("rules.yaml", RULES);
    assert_eq!(desk.look_twice().await, Looked::Same);
    assert!(desk.metric("rekindle_rules_reload_failed 0") && desk.note().is_empty(), "{}", desk.note());
    assert_eq!(desk.store.refused_rules().await.expect("read"), None);
    desk.edit("days_silent >= 30", "days_silent >= 31");
    let went_live = desk.goes_live().await;
    assert_eq!((desk.in_use(), desk.live().await.expect("read")), (went_live.version, Some(went_live.version)));
}

#[tokio::test]
async fn promise_i12_without_a_set_that_is_live_broken_rules_do_not_start() {
    let scratch = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(rules_of(scratch.path())).expect("a directory");
    fs::write(rules_of(scratch.path()).join("rules.yaml"), RULES).expect("a file");
    let (scratch, error) = Desk::start(scratch, start()).await.map(|_| ()).expect_err("there is no template `hello`");
    assert!(error.to_string().contains("none to go by") && error.to_string().contains("hello"), "{error}");
    fs::remove_dir_all(rules_of(scratch.path())).expect("gone");
    let (_, error) = Desk::start(scratch, start()).await.map(|_| ()).expect_err("there is no directory");
    assert!(matches!(error, PublishError::NoneLive(_)), "{error}");
}

#[tokio::test]
async fn a_directory_is_taken_only_when_it_stands_still() {
    let desk = Desk::open().await;
    let before = desk.in_use();
    let (half, whole) = (RULES.split("  - id: silent").next().expect("half the rules"), format!("{RULES}\n# a word\n"));
    desk.write("rules.yaml", half);
    assert_eq!(desk.publisher.look().await.expect("a look"), Looked::Changing);
    desk.write("rules.yaml", &whole);
    assert_eq!(desk.publisher.look().await.expect("a look"), Looked::Changing);
    assert_eq!(desk.publisher.look().await.expect("a look"), Looked::Same, "half of the rules never went live");
    assert_eq!(desk.in_use(), before);
    let moved = rules_of(desk.scratch.path()).with_extension("away");
    fs::rename(rules_of(desk.scratch.path()), &moved).expect("moved");
    assert_eq!(desk.publisher.look().await.expect("a look"), Looked::Refused, "a directory that is away takes no rule away");
    assert_eq!(desk.in_use(), before);
    fs::rename(&moved, rules_of(desk.scratch.path())).expect("moved back");
    assert_eq!(desk.look_twice().await, Looked::Same);
    assert!(desk.note().is_empty(), "{}", desk.note());
}

#[tokio::test]
async fn what_goes_live_has_an_author_and_a_reason_and_leaves_other_rules_alone() {
    let desk = Desk::open().await;
    let first_live = rekindle::clock::Clock::now(desk.clock.as_ref());
    desk.clock.advance_to(first_live.plus_ms(DAY_MS));
    desk.edit("days_silent >= 30", "days_silent >= 31");
    let went_live = desk.goes_live().await;
    assert_eq!((went_live.by.as_str(), went_live.why.as_str()), ("anna", "rules.yaml changed on disk"));
    assert_eq!(went_live.published.when_changed, ["silent".into()]);
    let world = desk.store.world(start()).await.expect("the world").world;
    let live_at = |rule: &str| world.rules.get(rule).map(|state| state.when_live_at);
    assert_eq!((live_at("hello"), live_at("silent")), (Some(first_live), Some(first_live.plus_ms(DAY_MS))));

    // a template is part of what went live; a comment is not
    desk.write("templates/hello/en/sms.liquid", "Good morning!");
    let went_live = desk.goes_live().await;
    assert_eq!(went_live.why, "templates/hello/en/sms.liquid changed on disk");
    let texts = desk.store.texts_of(went_live.version).await.expect("read").expect("on record");
    assert!(texts.iter().any(|(_, text)| text == "Good morning!"), "{texts:?}");
    desk.write("rules.yaml", &format!("# for the spring\n{}", RULES.replace("days_silent >= 30", "days_silent >= 31")));
    assert_eq!(desk.look_twice().await, Looked::Same);

    // said better later
    let same = desk.publisher.reload(Some("ben".into()), Some("warmer greeting".into())).await.expect("a reload");
    assert_eq!(same, Looked::Same);
    let rows = desk.store.publications(9).await.expect("read");
    let said: Vec<_> = rows.iter().map(|row| (row.by.as_str(), row.why.as_str())).collect();
    let first = ("anna", "the first rules of this database");
    assert_eq!(said, [("ben", "warmer greeting"), ("anna", "rules.yaml changed on disk"), first]);
}

#[tokio::test]
async fn a_rollback_stands_until_the_files_change_also_over_a_restart() {
    let desk = Desk::open().await;
    let first = desk.in_use();
    let nothing = desk.publisher.roll_back(None, "ben".into(), "?".into()).await.expect_err("there is nothing to go back to");
    assert!(matches!(nothing, PublishError::NoOther), "{nothing}");
    desk.edit("days_silent >= 30", "days_silent >= 3");
    let second = desk.goes_live().await.version;
    let back = desk.publisher.roll_back(None, "ben".into(), "3 days are too few".into()).await.expect("it goes back");
    assert_eq!((back.version, desk.in_use(), desk.live().await.expect("read")), (first, first, Some(first)));
    assert!(desk.note().contains("rolled back"), "{}", desk.note());
    assert_eq!(desk.publisher.look().await.expect("a look"), Looked::Unchanged, "the files are as they were");

    let desk = desk.restart().await;
    assert_eq!((desk.in_use(), desk.publisher.look().await.expect("a look")), (first, Looked::Unchanged));
    assert!(desk.note().contains("rolled back"), "{}", desk.note());
    let twice = desk.publisher.roll_back(Some(first), "ben".into(), "?".into()).await.expect_err("it is live");
    assert!(matches!(twice, PublishError::IsLive(version) if version == first), "{twice}");
    let unknown = desk.publisher.roll_back(Some(1), "ben".into(), "?".into()).await.expect_err("never live");
    assert!(matches!(unknown, PublishError::Unknown(1)), "{unknown}");

    // whoever wants the files after all says so; or changes them
    let Looked::Live(again) = desk.publisher.reload(None, None).await.expect("a reload") else { panic!("it goes live") };
    assert_eq!((again.version, desk.note().as_str()), (second, ""));
    desk.publisher.roll_back(Some(first), "ben".into(), "no".into()).await.expect("it goes back");
    desk.edit("days_silent >= 30", "days_silent >= 31");
    let third = desk.goes_live().await.version;
    assert!(![first, second].contains(&third) && desk.note().is_empty(), "{}", desk.note());
}
