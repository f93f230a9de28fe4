//! The names that a rules directory declares, sound or not: what an editor offers while somebody is still writing.

use super::Rulebook;
use super::syntax::{self, Node};
use crate::engine::features;
use crate::engine::rule::check::engine_events;
use crate::engine::rule::language::Names;
use crate::engine::rule::schema::Known;

impl Rulebook {
    pub fn names(&self) -> Known {
        let mut known = Known::new();
        let mut add = |of: Names, name: &str| _ = known.entry(of).or_default().insert(name.to_owned());
        engine_events::names().for_each(|name| add(Names::Event, name));
        features::built_in_names().for_each(|name| add(Names::Feature, name));
        // the built-in one
        add(Names::Segment, "reachable");
        self.catalog.keys().for_each(|name| add(Names::Template, name));
        for source in self.sources.iter().filter(|source| super::is_rule_file(source)) {
            let (Some(root), _) = syntax::parse(&source.path, &source.text) else { continue };
            declared(&root, &mut add);
        }
        known
    }
}

fn declared(root: &Node, add: &mut impl FnMut(Names, &str)) {
    let at = |path: &[&str]| path.iter().try_fold(root, |node, key| node.get(key));
    let keys: [(&[&str], Names); 9] = [
        (&["events"], Names::Event),
        (&["features"], Names::Feature),
        (&["segments"], Names::Segment),
        (&["program", "points", "classes"], Names::Class),
        (&["program", "coupons"], Names::Coupon),
        (&["program", "benefits"], Names::Benefit),
        (&["program", "bundles"], Names::Bundle),
        (&["policy", "calendars"], Names::Calendar),
        (&["policy", "notify"], Names::Notified),
    ];
    for (path, of) in keys {
        at(path).and_then(Node::entries).unwrap_or_default().iter().for_each(|entry| add(of, &entry.key.text));
    }
    for attribute in at(&["attributes"]).and_then(Node::entries).unwrap_or_default() {
        if attribute.value.get("type").and_then(Node::text) == Some("date") {
            add(Names::DateAttribute, &attribute.key.text);
        }
    }
    let ids: [(&[&str], Names); 2] = [(&["rules"], Names::Rule), (&["program", "tiers", "levels"], Names::Level)];
    for (path, of) in ids {
        let items = at(path).and_then(Node::items).unwrap_or_default();
        items.iter().filter_map(|item| item.get("id")?.text()).for_each(|id| add(of, id));
    }
}
