//! The values that a provider's file may name, and how its texts and its body are filled with them.
//!
//! A text with a missing value is left out, with its key or as an item of its list; so is what is left empty by that. `{ if: NAME, then: ... }`
//! stands only where the value is there, `{ each: NAME, of: ... }` for every `{{ line }}` of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::provider::{Auth, Description};
use crate::channel::Outgoing;
use crate::channel::email::letter::{Foot, LetterError, ONE_CLICK, list_id};
use crate::engine::action::Channel as Kind;
use crate::engine::rule::suggest::nearest;
use crate::links::Links;
use crate::settings::Secret;

/// Every name, with what it stands for.
pub const NAMES: [(&str, &str); 33] = [
    ("message", "our id of the message, the same at every attempt"),
    ("attempt", "from 1"),
    ("channel", "email, push, sms, whatsapp, inapp or webhook"),
    ("category", "marketing, service or transactional"),
    ("user", "the person's id"),
    ("to", "address, number or token"),
    ("rule", "the rule's id"),
    ("template", "the template's name"),
    ("locale", "the translation's language: en, de-AT"),
    ("locale_underscored", "the same as some providers write it: de_AT"),
    ("subject", ""),
    ("text", "with the foot that marketing needs"),
    ("html", "with the foot that marketing needs"),
    ("push_title", ""),
    ("push_body", ""),
    ("sms", ""),
    ("whatsapp", ""),
    ("whatsapp_type", "text, or template where the policy says templates_only"),
    ("whatsapp_text", "not with templates_only"),
    ("whatsapp_template", "the template's name with _ for -, with templates_only only"),
    ("whatsapp_lines", "the lines of the text: the template's parameters"),
    ("line", "within `each`"),
    ("from", "The shop <news@shop.example>"),
    ("from_email", "news@shop.example"),
    ("from_name", "The shop"),
    ("reply_to", "care@shop.example"),
    ("postal_address", ""),
    ("list_id", "<marketing.news.shop.example>"),
    ("unsubscribe_url", "the signed link"),
    ("list_unsubscribe", "the same in pointed brackets"),
    ("list_unsubscribe_post", "List-Unsubscribe=One-Click"),
    ("sent_at", "2026-03-05T09:00:00Z"),
    ("callback_url", "where the provider calls back"),
];

/// The values of one message. What has no value is missing.
pub struct Values<'v> {
    texts: BTreeMap<&'static str, Cow<'v, str>>,
    lines: Vec<String>,
    settings: &'v BTreeMap<String, Secret>,
}

impl<'v> Values<'v> {
    /// # Errors
    /// A marketing e-mail without links or sender.
    pub fn of(
        outgoing: &'v Outgoing<'v>,
        settings: &'v BTreeMap<String, Secret>,
        links: Option<&Links>,
        callback_url: Option<&'v str>,
    ) -> Result<Values<'v>, LetterError> {
        let content = outgoing.content;
        let mut texts: BTreeMap<&'static str, Cow<'v, str>> = BTreeMap::new();
        let mut put = |name: &'static str, value: Option<Cow<'v, str>>| {
            if let Some(value) = value {
                texts.insert(name, value);
            }
        };
        put("message", Some(outgoing.message.to_string().into()));
        put("attempt", Some(outgoing.attempt.to_string().into()));
        put("channel", Some(outgoing.kind.name().into()));
        put("category", Some(outgoing.category.name().into()));
        put("user", Some(outgoing.profile.into()));
        put("to", Some(outgoing.address.into()).filter(|to: &Cow<'_, str>| !to.is_empty()));
        put("rule", Some(outgoing.rule.into()));
        put("template", Some(outgoing.template.into()));
        put("locale", Some(content.locale.as_str().into()));
        put("locale_underscored", Some(content.locale.replace('-', "_").into()));
        put("sent_at", Some(outgoing.at.to_string().into()));
        put("callback_url", callback_url.map(Into::into));
        for (name, part) in content.parts() {
            put(name, Some(part.into()));
        }
        let mut lines = Vec::new();
        if let Some(text) = &content.whatsapp {
            let templates_only = outgoing.policy.is_some_and(|policy| policy.templates_only);
            put("whatsapp_type", Some(if templates_only { "template" } else { "text" }.into()));
            if templates_only {
                put("whatsapp_template", Some(outgoing.template.replace('-', "_").into()));
                lines = text.lines().map(str::to_owned).collect();
            } else {
                put("whatsapp_text", Some(text.as_str().into()));
            }
        }
        let mut values = Values { texts, lines, settings };
        if outgoing.kind == Kind::Email {
            values.add_sender(outgoing, links)?;
        }
        Ok(values)
    }

    fn add_sender(&mut self, outgoing: &'v Outgoing<'v>, links: Option<&Links>) -> Result<(), LetterError> {
        let sender = outgoing.sender().ok_or(LetterError::NoSender)?;
        let mailbox: lettre::message::Mailbox = sender.from.parse().map_err(|_| LetterError::NoSender)?;
        self.texts.insert("from", (&*sender.from).into());
        self.texts.insert("from_email", mailbox.email.to_string().into());
        self.texts.extend(mailbox.name.map(|name| ("from_name", name.into())));
        let reply_to = sender.reply_to.as_ref().and_then(|text| text.parse::<lettre::message::Mailbox>().ok());
        self.texts.extend(reply_to.map(|mailbox| ("reply_to", mailbox.email.to_string().into())));
        self.texts.extend(sender.postal_address.as_deref().map(|address| ("postal_address", address.into())));
        self.texts.extend(list_id(outgoing, sender).map(|list| ("list_id", list.into())));
        let Some(foot) = Foot::of(outgoing, links)? else { return Ok(()) };
        if let Some(text) = &outgoing.content.text {
            self.texts.insert("text", foot.below_text(text).into());
        }
        if let Some(html) = &outgoing.content.html {
            self.texts.insert("html", foot.below_html(html).into());
        }
        self.texts.insert("list_unsubscribe", format!("<{}>", foot.unsubscribe_url).into());
        self.texts.insert("list_unsubscribe_post", ONE_CLICK.into());
        self.texts.insert("unsubscribe_url", foot.unsubscribe_url.into());
        Ok(())
    }

    fn get(&self, name: &str, line: Option<&str>) -> Option<Cow<'_, str>> {
        if let Some(setting) = name.strip_prefix(SETTINGS) {
            return self.settings.get(setting).map(|secret| secret.reveal().into());
        }
        match name {
            "line" => line.map(|line| Cow::Owned(line.to_owned())),
            "whatsapp_lines" => (!self.lines.is_empty()).then(|| self.lines.join("\n").into()),
            name => self.texts.get(name).map(|text| Cow::Borrowed(&**text)),
        }
    }

    /// A text with its values; none: one of them is missing.
    pub fn text(&self, text: &str) -> Option<String> {
        self.fill(text, None)
    }

    fn fill(&self, text: &str, line: Option<&str>) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Name(name) => out.push_str(&self.get(name, line)?),
            }
        }
        Some(out)
    }

    /// A body with its values; what is left empty is left out.
    pub fn json(&self, template: &Json) -> Option<Json> {
        self.tree(template, None)
    }

    fn tree(&self, template: &Json, line: Option<&str>) -> Option<Json> {
        match template {
            Json::String(text) => self.fill(text, line).map(Json::String),
            Json::Array(items) => {
                let filled: Vec<Json> = items.iter().filter_map(|item| self.tree(item, line)).collect();
                (!filled.is_empty() || items.is_empty()).then_some(Json::Array(filled))
            }
            Json::Object(fields) => match directive(fields) {
                Some(Directive::If(name, then)) => self.get(name, line).and_then(|_| self.tree(then, line)),
                Some(Directive::Each(of)) => {
                    let filled: Vec<Json> = self.lines.iter().filter_map(|line| self.tree(of, Some(line))).collect();
                    (!filled.is_empty()).then_some(Json::Array(filled))
                }
                None => {
                    let filled: Map<String, Json> =
                        fields.iter().filter_map(|(key, value)| Some((key.clone(), self.tree(value, line)?))).collect();
                    (!filled.is_empty() || fields.is_empty()).then_some(Json::Object(filled))
                }
            },
            other => Some(other.clone()),
        }
    }
}

const SETTINGS: &str = "settings.";

enum Directive<'t> {
    If(&'t str, &'t Json),
    Each(&'t Json),
}

fn directive(fields: &Map<String, Json>) -> Option<Directive<'_>> {
    let of_two = |word: &str, body: &str| {
        let (word, body) = (fields.get(word)?.as_str()?, fields.get(body)?);
        (fields.len() == 2).then_some((word, body))
    };
    let is_if = of_two("if", "then").map(|(name, then)| Directive::If(name, then));
    is_if.or_else(|| of_two("each", "of").map(|(_, of)| Directive::Each(of)))
}

enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
}

/// A text cut at its double braces. Braces that do not close are text.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Name(name.trim()));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    pieces
}

/// Names in a provider's file that do not exist, each told with a suggestion.
pub fn unknown_names(description: &Description) -> Option<String> {
    let send = &description.send;
    let mut texts: Vec<&str> = vec![&send.url];
    texts.extend(send.headers.values().map(String::as_str));
    match &send.auth {
        Some(Auth::Bearer(token)) => texts.push(token),
        Some(Auth::Basic { user, password }) => texts.extend([user.as_str(), password]),
        None => {}
    }
    texts.extend(send.form.iter().flatten().map(|(_, text)| text.as_str()));
    let mut names: Vec<&str> = texts.into_iter().flat_map(names_in).collect();
    if let Some(json) = &send.json {
        collect(json, &mut names);
    }
    let settings: Vec<String> = description.settings.keys().map(|key| format!("{SETTINGS}{key}")).collect();
    let known = || NAMES.iter().map(|(name, _)| *name).chain(settings.iter().map(String::as_str));
    let unknown = names.into_iter().find(|name| !known().any(|known| known == *name))?;
    let help = nearest(unknown, known()).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
    Some(format!("`{{{{ {unknown} }}}}` is no value{help}"))
}

fn names_in(text: &str) -> Vec<&str> {
    let name = |piece| match piece {
        Piece::Name(name) => Some(name),
        Piece::Text(_) => None,
    };
    pieces(text).into_iter().filter_map(name).collect()
}

fn collect<'t>(template: &'t Json, names: &mut Vec<&'t str>) {
    match template {
        Json::String(text) => names.extend(names_in(text)),
        Json::Array(items) => items.iter().for_each(|item| collect(item, names)),
        Json::Object(fields) => {
            if let Some(Directive::If(name, _)) = directive(fields) {
                names.push(name);
            }
            let words = |key: &str| matches!(key, "if" | "each") && directive(fields).is_some();
            fields.iter().filter(|(key, _)| !words(key)).for_each(|(_, value)| collect(value, names));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(texts: &[(&'static str, &'static str)], settings: &'static BTreeMap<String, Secret>, lines: &[&str]) -> Values<'static> {
        let texts = texts.iter().map(|(name, text)| (*name, Cow::Borrowed(*text))).collect();
        Values { texts, settings, lines: lines.iter().map(|line| (*line).to_owned()).collect() }
    }

    fn settings() -> &'static BTreeMap<String, Secret> {
        Box::leak(Box::new(BTreeMap::from([("key".to_owned(), Secret::given("k1"))])))
    }

    #[test]
    fn what_is_missing_is_left_out_with_its_key() {
        let values = values(&[("to", "a@b.example"), ("subject", "x \"{{ to }}\" y")], settings(), &[]);
        assert_eq!(values.text("Bearer {{ settings.key }} {{to}}").as_deref(), Some("Bearer k1 a@b.example"));
        assert_eq!(values.text("{{ html }}"), None);
        assert_eq!(values.text("{{ open").as_deref(), Some("{{ open"));
        let body = json!({
            "to": [{ "email": "{{ to }}" }], "subject": "{{ subject }}", "reply": { "email": "{{ reply_to }}" }, "flag": true,
            "parts": [{ "if": "text", "then": { "type": "text" } }, { "if": "to", "then": { "type": "to" } }], "none": ["{{ html }}"],
        });
        // what a value says is never filled again
        let expected = json!({
            "to": [{ "email": "a@b.example" }], "subject": "x \"{{ to }}\" y", "flag": true, "parts": [{ "type": "to" }],
        });
        assert_eq!(values.json(&body), Some(expected));
    }

    #[test]
    fn lines_become_items() {
        let template = json!({ "each": "whatsapp_lines", "of": { "type": "text", "text": "{{ line }}" } });
        let filled = values(&[], settings(), &["Ana", "10 %"]).json(&template);
        assert_eq!(filled, Some(json!([{ "type": "text", "text": "Ana" }, { "type": "text", "text": "10 %" }])));
        assert_eq!(values(&[], settings(), &[]).json(&template), None);
    }
}
