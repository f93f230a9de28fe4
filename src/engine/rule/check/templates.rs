//! A send against the template it names: it exists in the languages and for the channels that are listed, gets what it prints, and
//! nothing that sells goes out as service.

use super::read::{Findings, unknown};
use crate::engine::profile::{Category, Name};
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::syntax::Node;
use crate::engine::rule::{Send, TemplateCatalog, TemplateInfo};

/// What may go out as `service`: a closed list.
const SERVICE: [&str; 5] = ["penalty_notice", "tier_notice", "points_statement", "order", "account"];
/// What answers something the person just did.
const TRANSACTIONAL: [&str; 3] = ["transactional", "order", "account"];

/// Where the parts of a send stand.
pub struct Places<'n> {
    pub send: &'n Node,
    pub template: &'n Node,
    pub category: Option<&'n Node>,
    pub languages: Option<&'n Node>,
    pub offer: Option<&'n Node>,
}

pub fn check(send: &Send, places: &Places<'_>, catalog: &TemplateCatalog, findings: &Findings) {
    let offer_without_marketing = send.offer.is_some() && send.category != Category::Marketing;
    if let Some(node) = places.offer.filter(|_| offer_without_marketing) {
        let message = format!("an offer in a message of category {} makes it marketing", send.category.name());
        findings.error("RK0408", node, message, "write `category: marketing`, or send it without the offer".to_owned());
    }
    let Some(template) = catalog.get(&send.template) else {
        return unknown(findings, "RK0230", places.template, "template", catalog.keys().map(|name| &**name));
    };
    if !offer_without_marketing {
        check_purpose(send, places, template, findings);
    }
    check_offer(send, places, template, findings);
    check_languages(send, places, template, findings);
    check_data(send, places, template, findings);
}

fn check_purpose(send: &Send, places: &Places<'_>, template: &TemplateInfo, findings: &Findings) {
    let (allowed, name): (&[&str], _) = match send.category {
        Category::Marketing => return,
        Category::Service => (&SERVICE, "service"),
        Category::Transactional => (&TRANSACTIONAL, "transactional"),
    };
    let at = places.category.unwrap_or(places.template);
    if !allowed.contains(&&*template.purpose) {
        let message = format!("template `{}` has the purpose `{}`, which may not go out as {name}", send.template, template.purpose);
        let help = format!("{name} is for {}; otherwise write `category: marketing`", allowed.join(", "));
        findings.error("RK0408", at, message, help);
    } else if template.has_offer {
        let message = format!("template `{}` prints an offer, so it may not go out as {name}", send.template);
        findings.error("RK0408", at, message, "write `category: marketing`".to_owned());
    }
}

fn check_offer(send: &Send, places: &Places<'_>, template: &TemplateInfo, findings: &Findings) {
    if template.has_offer && send.offer.is_none() {
        let message = format!("template `{}` prints `offer`, and this send has none: it would be an empty code", send.template);
        findings.error("RK0230", places.template, message, "write `offer: COUPON` beside it".to_owned());
    }
}

/// Every language that may be chosen has every channel that is listed; without `languages`, one at least has.
fn check_languages(send: &Send, places: &Places<'_>, template: &TemplateInfo, findings: &Findings) {
    let items = places.languages.and_then(Node::items).unwrap_or_default();
    for (language, item) in send.languages.iter().zip(items) {
        match template.channels_per_locale.get(language) {
            None => {
                let known: Vec<&str> = template.locales.iter().map(|locale| &**locale).collect();
                let message = format!("template `{}` has no translation `{language}`", send.template);
                let help = nearest(language, known.iter().copied()).map(|name| format!("did you mean `{name}`?"));
                findings.error("RK0230", item, message, help.unwrap_or_else(|| format!("there are {}", known.join(", "))));
            }
            Some(channels) => {
                for channel in send.channels.iter().filter(|channel| !channels.contains(channel)) {
                    let message = format!("template `{}` has no {channel} text in `{language}`", send.template);
                    findings.error("RK0230", item, message, format!("write it, or leave {channel} or `{language}` away"));
                }
            }
        }
    }
    if !send.languages.is_empty() {
        return;
    }
    for channel in &send.channels {
        if !template.channels_per_locale.values().any(|channels| channels.contains(channel)) {
            let message = format!("template `{}` has no {channel} text in any language", send.template);
            findings.error("RK0230", places.template, message, format!("write it, or take {channel} out of `channels`"));
        }
    }
}

fn check_data(send: &Send, places: &Places<'_>, template: &TemplateInfo, findings: &Findings) {
    let entries = places.send.get("data").and_then(Node::entries).unwrap_or_default();
    for entry in entries.iter().filter(|entry| !template.variables.contains(&entry.key.text)) {
        let name = &entry.key.text;
        let message = format!("template `{}` declares no variable `{name}`", send.template);
        let mut finding = Diagnostic::error("RK0701", entry.key_place.clone(), message).len(name.chars().count());
        finding.help = match nearest(name, template.variables.iter().map(|variable| &**variable)) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None => Some(format!("declare it in templates/{}/template.yaml under `variables`", send.template)),
        };
        findings.add(finding);
    }
    let passed = |variable: &Name| send.data.iter().any(|(name, _)| name == variable);
    for variable in template.required.iter().filter(|variable| !passed(variable)) {
        let message = format!("template `{}` needs `{variable}`, and `data` does not pass it", send.template);
        findings.error("RK0701", places.template, message, format!("write `data: {{ {variable}: ... }}`"));
    }
}
