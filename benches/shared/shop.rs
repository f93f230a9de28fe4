//! A shop for benches: rules with a cap and a message for each order, and people who order.

use std::sync::Arc;

use rekindle::engine::event::{Event, EventKind};
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::engine::time::Timestamp;
use rekindle::rulebook::Rulebook;
use rekindle::store::{Identity, NewEvent, Store};
use rekindle::versions::RuleVersions;
use serde_json::{Value as Json, json};

pub const RULES: &str = r#"
rekindle: 1
events:
  ordered: { name: "Ordered", active: true, properties: { order: { type: string, required: true } } }
policy:
  time: { zone: { last: UTC }, lateness: { start: 72h, correct: 7d }, week_start: mon }
  consent: { marketing: always, service: always, transactional: always }
  categories: { default: service }
  caps: [{ id: three, per: user, max: 3, window: 7d }]
  channels: { sms: { provider: recording } }
rules:
  - id: thanks
    owner: bench
    event: ordered
    key: event.order
    max_entries: 100000000
    steps: [{ id: thank, send: { template: hello, channels: [sms] } }]
"#;

/// Path below the rules, and text.
pub const TEMPLATES: [(&str, &str); 2] =
    [("templates/hello/template.yaml", "rekindle: 1\ntemplate: { purpose: order }"), ("templates/hello/en/sms.liquid", "Thank you!")];

pub async fn publish(store: &dyn Store, at: Timestamp) -> Arc<RuleVersions> {
    let texts = TEMPLATES.into_iter().chain([("rules.yaml", RULES)]);
    let book = Rulebook::of(texts.map(|(path, text)| SourceFile { path: path.into(), text: text.into() }).collect());
    let set = book.set().unwrap_or_else(|| panic!("{}", book.render_errors()));
    store.publish_rules(book.publication(&set, at, "bench", "bench")).await.expect("published");
    store.finish_first_looks().await.expect("first looks");
    Arc::new(RuleVersions::new(set, book.templates()))
}

/// So many people, each with a number and an order.
pub async fn order(store: &dyn Store, people: usize, at: Timestamp) {
    let event = |n: usize, kind, name: &str, properties: Json| {
        let properties = properties.as_object().cloned().unwrap_or_default();
        let id = format!("{name}-{n}");
        let event = Event { id: id.into(), kind, name: name.into(), occurred_at: at, received_at: at, source: "shop".into(), properties };
        NewEvent { identity: Identity::User(format!("u{n}").into()), link: None, event, active: kind == EventKind::Track }
    };
    for some in (0..people).collect::<Vec<_>>().chunks(500) {
        let events = some.iter().flat_map(|n| {
            [
                event(*n, EventKind::Identify, "", json!({ "phone": "+441632960001" })),
                event(*n, EventKind::Track, "Ordered", json!({ "order": n.to_string() })),
            ]
        });
        store.append_events(events.collect()).await.expect("events");
    }
}
