//! The pages that people see who unsubscribe or choose: small, in their language, without scripts, cookies and anything from elsewhere.
//! They work without a mouse, on a small screen and read aloud.

use std::fmt::Write as _;

use super::preferences::Preferences;
use super::record::refused;
use crate::engine::action::Channel;
use crate::engine::profile::Category;

/// Which wording somebody agreed to on the page of preferences: goes up with every change of it.
pub const TEXT_VERSION: &str = "preferences-1";

/// Only our own style and a form that comes back to us.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:10vh auto;padding:0 1.2rem;color:#1c1c1e;background:#fff}\
h1{font-size:1.5rem;line-height:1.25}fieldset{border:1px solid #c9c9ce;border-radius:.5rem;margin:0 0 1rem;padding:.6rem 1rem 1rem}\
legend{font-weight:600;padding:0 .3rem}label{display:flex;gap:.6rem;align-items:center;padding:.3rem 0}\
input{width:1.2rem;height:1.2rem}button{font:inherit;padding:.6rem 1.3rem;border:0;border-radius:.5rem;background:#0b57d0;color:#fff;cursor:pointer}\
button:focus-visible,input:focus-visible{outline:3px solid #f5a623;outline-offset:2px}.note{color:#56565c;font-size:.95rem}\
.done{border-left:.3rem solid #1a7f37;padding:.3rem .8rem;background:#eaf6ec}\
@media(prefers-color-scheme:dark){body{color:#f2f2f4;background:#17171a}.note{color:#b5b5bb}.done{background:#12351c}fieldset{border-color:#4a4a50}}";

/// Everything that the pages say in one language.
pub struct Words {
    lang: &'static str,
    stop_title: &'static str,
    /// `{what}`, `{channel}`, `{address}` stand for themselves.
    stop_question: &'static str,
    stop_button: &'static str,
    stop_note: &'static str,
    stopped_title: &'static str,
    stopped: &'static str,
    choose_title: &'static str,
    choose_intro: &'static str,
    choose_button: &'static str,
    chosen: &'static str,
    nothing_to_choose: &'static str,
    unknown_title: &'static str,
    unknown: &'static str,
    marketing: &'static str,
    service: &'static str,
    channels: [&'static str; 6],
}

const ENGLISH: Words = Words {
    lang: "en",
    stop_title: "Unsubscribe",
    stop_question: "Stop receiving {what} by {channel}{address}?",
    stop_button: "Unsubscribe",
    stop_note: "Messages that belong to an order, such as a confirmation, still reach you.",
    stopped_title: "You are unsubscribed",
    stopped: "You will receive no more {what} by {channel}. This takes effect at once.",
    choose_title: "What may we send you?",
    choose_intro: "Tick what you would like to receive. Everything else stops at once.",
    choose_button: "Save",
    chosen: "Saved. Your choice takes effect at once.",
    nothing_to_choose: "We have no address of yours, so nothing is sent to you.",
    unknown_title: "This link is not valid",
    unknown: "It may be incomplete. Please open it once more from the message itself.",
    marketing: "news and offers",
    service: "information about your account",
    channels: ["e-mail", "push notification", "text message", "WhatsApp", "message in the app", "webhook"],
};

const GERMAN: Words = Words {
    lang: "de",
    stop_title: "Abmelden",
    stop_question: "Keine {what} mehr per {channel}{address} erhalten?",
    stop_button: "Abmelden",
    stop_note: "Nachrichten zu einer Bestellung, etwa eine Bestätigung, erreichen Sie weiterhin.",
    stopped_title: "Sie sind abgemeldet",
    stopped: "Sie erhalten keine {what} mehr per {channel}. Das gilt ab sofort.",
    choose_title: "Was dürfen wir Ihnen schicken?",
    choose_intro: "Kreuzen Sie an, was Sie erhalten möchten. Alles andere endet sofort.",
    choose_button: "Speichern",
    chosen: "Gespeichert. Ihre Auswahl gilt ab sofort.",
    nothing_to_choose: "Uns liegt keine Adresse von Ihnen vor, also wird Ihnen nichts geschickt.",
    unknown_title: "Dieser Link ist nicht gültig",
    unknown: "Vielleicht ist er unvollständig. Bitte öffnen Sie ihn noch einmal aus der Nachricht heraus.",
    marketing: "Neuigkeiten und Angebote",
    service: "Informationen zu Ihrem Konto",
    channels: ["E-Mail", "Push-Nachricht", "SMS", "WhatsApp", "Nachricht in der App", "Webhook"],
};

/// The person's own language, else the first one that the browser asks for and we speak, else English.
pub fn words(locale: Option<&str>, accepted: Option<&str>) -> &'static Words {
    let asked = accepted.into_iter().flat_map(|header| header.split(',')).map(|part| part.split(';').next().unwrap_or_default());
    let spoken = |tag: &str| match tag.trim().split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "en" => Some(&ENGLISH),
        "de" => Some(&GERMAN),
        _ => None,
    };
    locale.into_iter().chain(asked).find_map(spoken).unwrap_or(&ENGLISH)
}

impl Words {
    fn category(&self, category: Category) -> &'static str {
        match category {
            Category::Service => self.service,
            Category::Marketing | Category::Transactional => self.marketing,
        }
    }

    fn channel(&self, channel: Channel) -> &'static str {
        let names = Channel::ALL.iter().zip(self.channels);
        names.into_iter().find(|(of, _)| **of == channel).map_or("", |(_, name)| name)
    }

    fn fill(&self, text: &str, person: &Preferences) -> String {
        let address = person.address.as_deref().map(|address| format!(" ({})", escape(&masked(address)))).unwrap_or_default();
        let what = self.category(refused(person.category));
        text.replace("{what}", what).replace("{channel}", self.channel(person.channel)).replace("{address}", &address)
    }
}

/// Asks before it acts.
pub fn unsubscribe(words: &Words, person: &Preferences) -> String {
    let question = words.fill(words.stop_question, person);
    let form = format!(
        "<p>{question}</p><form method=post><button type=submit>{}</button></form><p class=note>{}</p>",
        words.stop_button, words.stop_note
    );
    whole(words, words.stop_title, &form)
}

pub fn unsubscribed(words: &Words, person: &Preferences) -> String {
    let said = format!("<p class=done role=status>{}</p><p class=note>{}</p>", words.fill(words.stopped, person), words.stop_note);
    whole(words, words.stopped_title, &said)
}

/// All choices as boxes, one group a category.
pub fn preferences(words: &Words, person: &Preferences, saved: bool) -> String {
    let mut body = String::new();
    if saved {
        body += &format!("<p class=done role=status>{}</p>", words.chosen);
    }
    if person.choices.is_empty() {
        body += &format!("<p>{}</p>", words.nothing_to_choose);
        return whole(words, words.choose_title, &body);
    }
    body += &format!("<p>{}</p><form method=post>", words.choose_intro);
    for category in [Category::Marketing, Category::Service] {
        body += &format!("<fieldset><legend>{}</legend>", capitalised(words.category(category)));
        for choice in person.choices.iter().filter(|choice| choice.category == category) {
            let checked = if choice.is_wanted { " checked" } else { "" };
            // writing to a string cannot fail
            let _written = write!(
                body,
                "<label><input type=checkbox name=\"{}\" value=on{checked}>{}</label>",
                escape(&choice.name()),
                capitalised(words.channel(choice.channel))
            );
        }
        body += "</fieldset>";
    }
    body += &format!("<button type=submit>{}</button></form><p class=note>{}</p>", words.choose_button, words.stop_note);
    whole(words, words.choose_title, &body)
}

pub fn unknown(words: &Words) -> String {
    whole(words, words.unknown_title, &format!("<p>{}</p>", words.unknown))
}

fn whole(words: &Words, title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang={}><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta name=robots content=noindex><title>{title}</title><style>{STYLE}</style><main><h1>{title}</h1>{body}</main></html>",
        words.lang
    )
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

/// Enough to know one's own address by, not enough to learn another's.
fn masked(address: &str) -> String {
    let first = |text: &str| text.chars().next().map(String::from).unwrap_or_default();
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{}…@{domain}", first(local)),
        None => {
            let end: String = address.chars().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect();
            format!("…{end}")
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_spoken_to_in_a_language_that_they_know() {
        for (locale, accepted, expected) in [
            (Some("de-AT"), Some("en"), "de"),
            (Some("fr"), Some("fr-FR,de;q=0.8,en;q=0.5"), "de"),
            (None, Some("fr-FR, en-GB;q=0.9"), "en"),
            (Some("zh_CN"), None, "en"),
            (None, None, "en"),
        ] {
            assert_eq!(words(locale, accepted).lang, expected, "{locale:?} {accepted:?}");
        }
    }

    #[test]
    fn an_address_is_shown_to_its_owner_only() {
        for (address, expected) in [("anna@example.com", "a…@example.com"), ("+441632960001", "…001"), ("@", "…@"), ("", "…")] {
            assert_eq!(masked(address), expected);
        }
        assert_eq!(escape("<script>\"'&"), "&lt;script&gt;&quot;&#39;&amp;");
    }
}
