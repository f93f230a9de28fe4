//! Slips of the keyboard and of habit, as people make them: each message alone says what to write instead, and what it says is right.

use std::sync::Arc;

use rekindle::engine::rule::check::load;
use rekindle::engine::rule::diagnostic::SourceFile;
use rekindle::rulebook::Rulebook;

use crate::{codes, rules};

/// What somebody writes, what the message must say, and the text with that in it.
const RULES: [(&str, &str, &str); 34] = [
    ("when: day_silent >= 30", "days_silent", "when: days_silent >= 30"),
    ("when: days_silent => 30", ">=", "when: days_silent >= 30"),
    ("when: days_silent >= 30 AND is_new", "and", "when: days_silent >= 30 and is_new"),
    ("when: 3 < days_silent < 30", "3 < days_silent && days_silent < 30", "when: 3 < days_silent && days_silent < 30"),
    ("when: tier == gold", "\"gold\"", "when: tier == \"gold\""),
    ("when: tier == \"Gold\"", "\"gold\"", "when: tier == \"gold\""),
    ("when: country in [BR]", "\"BR\"", "when: country in [\"BR\"]"),
    ("when: spend_365d >= 1000", "\"1000 USD\"", "when: spend_365d >= \"1000 USD\""),
    ("when: churn_score > 0.7", "(churn_score ?? 0.0) > 0.7", "when: (churn_score ?? 0.0) > 0.7"),
    ("when: in_calendar(\"diwali\")", "\"diwali-in\"", "when: in_calendar(\"diwali-in\")"),
    ("when: !is_new && days_silent > 3", "'!is_new && days_silent > 3'", "when: '!is_new && days_silent > 3'"),
    ("when: birth_date == today", "local_date", "when: has(birth_date) && birth_date == local_date"),
    ("unless: tickets_open", "tickets_open > 0", "unless: tickets_open > 0"),
    ("unles: is_new", "unless", "unless: is_new"),
    ("audience: champion", "champions", "audience: champions"),
    ("event: Order Completed", "order_completed", "event: order_completed"),
    ("event: order_complete", "order_completed", "event: order_completed"),
    ("for: 6 hours", "6h", "for: 6h"),
    ("for: 7", "7d", "for: 7d"),
    ("holdout: 10", "10%", "holdout: 10%"),
    ("holdout: 0.05", "5%", "holdout: 5%"),
    ("enabled: yes", "true", "enabled: true"),
    ("reentry: 30d", "{ after: 30d }", "reentry: { after: 30d }"),
    ("existing: spread", "spread(7d)", "existing: spread(7d)"),
    ("at_most: 1/7d", "1 per 7d", "at_most: 1 per 7d"),
    ("tags: winback", "[winback]", "tags: [winback]"),
    ("priority: high", "0 to 100", "priority: 70 # 0 to 100"),
    ("at: { weekly: [monday], time: \"10:00\", zone: user }", "mon", "at: { weekly: [mon], time: \"10:00\", zone: user }"),
    ("at: { daily: true, time: 10am, zone: user }", "\"10:00\"", "at: { daily: true, time: \"10:00\", zone: user }"),
    ("at: { daily: true, time: \"10:00\", zone: London }", "Europe/London", "at: { daily: true, time: \"10:00\", zone: Europe/London }"),
    (
        "active: { from: 1.12.2026, zone: Europe/London }",
        "\"2026-12-01T00:00\"",
        "active: { from: \"2026-12-01T00:00\", zone: Europe/London }",
    ),
    (
        "steps:\n  - { id: tell, send_at: 10-12, send: { template: plain, channels: [email] } }",
        "\"10:00-12:00\"",
        "steps:\n  - { id: tell, send_at: \"10:00-12:00\", send: { template: plain, channels: [email] } }",
    ),
    (
        "steps:\n  id: tell\n  send: { template: plain, channels: [email] }",
        "- id: tell",
        "steps:\n  - id: tell\n    send: { template: plain, channels: [email] }",
    ),
    ("steps:\n  - { id: give, points: 100 }", "{ add: ", "steps:\n  - { id: give, points: { add: 100, class: bonus } }"),
];

/// The same in a template's text.
const LIQUID: [(&str, &str, &str); 10] = [
    ("You have {{ user.poinst }} points", "user.points", "You have {{ user.points }} points"),
    ("{% if user.is_new %}Welcome", "{% endif %}", "{% if user.is_new %}Welcome{% endif %}"),
    ("{{ user.tier_gap | mony }}", "money", "{{ user.tier_gap | money }}"),
    ("Hello {{ first_name }}", "{{ first_name | default: ", "Hello {{ first_name | default: \"you\" }}"),
    ("Hello {{ user.points", "}}", "Hello {{ user.points }}"),
    ("Hello {{ frist_name | default: \"you\" }}", "first_name", "Hello {{ first_name | default: \"you\" }}"),
    ("Until {{ offer.untl }}", "offer.until", "Until {{ offer.until }}"),
    ("{% if user.tier = \"gold\" %}x{% endif %}", "==", "{% if user.tier == \"gold\" %}x{% endif %}"),
    ("You have {user.points} points", "{{ user.points }}", "You have {{ user.points }} points"),
    ("{{ user.points | dafault: 0 }}", "default", "{{ user.points | default: 0 }}"),
];

fn rule_findings(text: &str) -> Vec<String> {
    let mut sources = rules::base(|_| true);
    sources.push(SourceFile { path: Arc::from("slip.yaml"), text: Arc::from(codes::whole(text)) });
    let found = load(&sources, &rules::catalog()).diagnostics;
    found.iter().map(|finding| finding.render(&sources, "")).collect()
}

fn template_findings(text: &str) -> Vec<String> {
    let head = "rekindle: 1\ntemplate: { purpose: marketing, variables: { first_name: { type: string, optional: true } } }\n";
    let mut sources = rules::base(|_| true);
    for (path, text) in [("template.yaml", head), ("en/subject.liquid", "Hello"), ("en/text.liquid", text)] {
        sources.push(SourceFile { path: Arc::from(format!("templates/plain/{path}")), text: Arc::from(text) });
    }
    let book = Rulebook::of(sources);
    book.diagnostics().iter().map(|finding| finding.render(book.sources(), "")).collect()
}

#[test]
fn each_message_alone_leads_to_the_right_text() {
    let of_rules = RULES.iter().map(|slip| (slip, rule_findings as fn(&str) -> Vec<String>));
    let of_templates = LIQUID.iter().map(|slip| (slip, template_findings as fn(&str) -> Vec<String>));
    let mut wrong = Vec::new();
    for ((slip, needle, mended), findings) in of_rules.chain(of_templates) {
        assert!(mended.contains(needle), "{slip}: `{needle}` is what mends it");
        let told = findings(slip);
        // what is said beside the line itself
        let is_said = |line: &&str| !line.trim_start().starts_with(|c: char| c.is_ascii_digit() || c == '|');
        let says = told.iter().any(|told| told.lines().filter(is_said).any(|line| line.contains(needle)));
        if !says || told.len() != 1 {
            wrong.push(format!("== {slip}\nmust say {needle}, once:\n{}", told.join("\n\n")));
        }
        let left = findings(mended);
        if !left.is_empty() {
            wrong.push(format!("== {mended}\nis not right yet:\n{}", left.join("\n\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
