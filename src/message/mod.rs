//! Messages as people read them: template + person + locale -> [`Content`]. Pure: no I/O, no clock.
//!
//! Templates are Liquid (`template`), read in the person's language (`locale`), with dates and amounts written as that language
//! does (`filters`). A name that is missing is nil, so `default` works; *printing* what is missing fails the message, visibly
//! ([`RenderError::Liquid`]): never an empty greeting. HTML parts escape what they print unless it says `raw`.
//!
//! Not here: who gets a message, and whether (`engine`); how it travels (`channel`).

pub mod filters;
pub mod locale;
mod sample;
mod scan;
pub mod sms;
mod template;
pub mod values;

use std::collections::BTreeMap;
use std::io;

use liquid_core::model::{Object, Value as Liquid};
use serde_json::{Map, Value as Json};

pub use self::sample::Rendered;
use self::template::{LIQUID, PartSource};
pub use self::template::{Part, Template, TemplateFault, Templates, Variable};
pub use self::values::Reader;
use crate::engine::action::{Channel, Message};
use crate::engine::decide::Decision;
use crate::engine::event::Value;
use crate::engine::features;
use crate::engine::profile::{Attribute, Name, Profile};
use crate::engine::rule::CouponValue;
use crate::engine::rule::expr::{EvalError, Names, Subject};
use crate::engine::time::Timestamp;

/// What goes out: the parts that the channel carries, in one language.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// The translation chosen.
    pub locale: String,
    pub subject: Option<String>,
    pub text: Option<String>,
    pub html: Option<String>,
    pub push_title: Option<String>,
    pub push_body: Option<String>,
    pub sms: Option<String>,
    pub whatsapp: Option<String>,
}

impl Content {
    fn set(&mut self, part: Part, text: String) {
        let field = match part {
            Part::Subject => &mut self.subject,
            Part::Text => &mut self.text,
            Part::Html => &mut self.html,
            Part::PushTitle => &mut self.push_title,
            Part::PushBody => &mut self.push_body,
            Part::Sms => &mut self.sms,
            Part::Whatsapp => &mut self.whatsapp,
        };
        *field = Some(text);
    }

    /// The parts that are there, by the names that providers' files, webhooks and recorded messages call them.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("subject", &self.subject),
            ("text", &self.text),
            ("html", &self.html),
            ("push_title", &self.push_title),
            ("push_body", &self.push_body),
            ("sms", &self.sms),
            ("whatsapp", &self.whatsapp),
        ];
        all.into_iter().filter_map(|(name, part)| Some((name, part.as_deref()?)))
    }
}

/// Why a message cannot be written. Texts name what is missing, never what a person's values are.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RenderError {
    #[error("there is no template `{0}`")]
    NoTemplate(Name),
    #[error("template `{template}` has no translation for {channel} that this send may use")]
    NoTranslation { template: Name, channel: Channel },
    #[error("`user.{name}` has no value: {because}")]
    Value { name: String, because: String },
    #[error("{part} of the message is longer than {max} bytes")]
    TooLong { part: &'static str, max: usize },
    #[error("{part}: {because}")]
    Liquid { part: &'static str, because: String },
}

/// Writes a message for a person as they are at `now`: in their language and zone, with the values that rules see.
pub fn render(
    templates: &Templates,
    names: Names<'_>,
    profile: &Profile,
    message: &Message,
    now: Timestamp,
) -> Result<Content, RenderError> {
    let read = |name: &str| value_of(names, profile, now, name);
    let locale = match &profile.locale {
        Some(Attribute { value: Value::Text(locale), .. }) => locale,
        _ => "",
    };
    let currency = names.program.map(|program| program.currency);
    let reader = Reader { locale, zone: names.policy.zone_of(profile), currency, read: &read };
    match offer_of(names, profile, message) {
        Some(offer) => {
            let mut message = message.clone();
            message.data.insert("offer".to_owned(), offer);
            render_for(templates, &reader, &message)
        }
        None => render_for(templates, &reader, message),
    }
}

/// A value of the person, as templates know it (`user.x`).
fn value_of(names: Names<'_>, profile: &Profile, now: Timestamp, name: &str) -> Result<Option<Value>, EvalError> {
    match name {
        "id" => Ok(Some(Value::Text(profile.key.clone()))),
        name => features::read(names, Subject { profile, now, event: None, run: None }, name).map(|(value, _)| value),
    }
}

/// The language whose forms of dates and amounts the shop reads in alerts.
const ALERTS_IN: &str = "en";

/// Renders the texts of a decision's alerts into its entries: for the person as the decision leaves them, in the shop's zone. What cannot be written is told with the text as the rule has it: nobody is left without the alert.
pub fn write_alerts(names: Names<'_>, decision: &mut Decision) {
    let Decision { alerts, profile, entries, .. } = decision;
    for alert in alerts {
        let (Some(entry), Some(text)) = (entries.get_mut(alert.entry), &alert.text) else { continue };
        let read = |name: &str| value_of(names, profile, entry.at, name);
        let (zone, currency) = (names.policy.zone.last.clone(), names.program.map(|program| program.currency));
        let reader = Reader { locale: ALERTS_IN, zone, currency, read: &read };
        let data = Map::from_iter([("event".to_owned(), Json::Object(alert.event.clone()))]);
        let written = render_string(text, &reader, ALERTS_IN, &data);
        let written = written.unwrap_or_else(|error| format!("{text} (cannot be written: {error})"));
        entry.because = alert.sentence(written.trim()).into();
    }
}

/// What is printed of the coupon that travels with a message: issued with the send-intent, so it stands in the profile by now.
fn offer_of(names: Names<'_>, profile: &Profile, message: &Message) -> Option<Json> {
    let coupon = profile.coupons.iter().find(|coupon| coupon.message == Some(message.id))?;
    let kind = names.program?.coupons.get(&coupon.offer)?;
    let value = match kind.value {
        CouponValue::Money(money) => money.to_string(),
        CouponValue::Share(basis_points) => format!("{}%", f64::from(basis_points) / 100.0),
    };
    Some(serde_json::json!({ "code": &*coupon.code, "until": coupon.until.to_string(), "value": value }))
}

/// Writes a message for the person behind `reader`.
pub fn render_for(templates: &Templates, reader: &Reader<'_>, message: &Message) -> Result<Content, RenderError> {
    let template = templates.get(&message.template).ok_or_else(|| RenderError::NoTemplate(message.template.clone()))?;
    let chosen = template.translation(reader.locale, &message.languages, message.channel);
    let (locale, translation) =
        chosen.ok_or_else(|| RenderError::NoTranslation { template: message.template.clone(), channel: message.channel })?;
    // `default` is a folder, not a language: its dates follow the person's own
    let language = if &**locale == "default" { reader.locale } else { locale };

    let (wanted, _) = Part::of_channel(message.channel);
    let parts: Vec<(Part, &PartSource)> = wanted.iter().filter_map(|part| Some((*part, translation.parts.get(part)?))).collect();
    let paths = parts.iter().flat_map(|(_, source)| source.uses.iter().map(Vec::as_slice));
    let mut globals = values::globals(paths, reader, language, &message.data)?;
    let filled = fill_data(reader, language, &message.data)?;
    add_variables(&mut globals, &template.variables, &filled);

    let mut content = Content { locale: locale.to_string(), ..Content::default() };
    for (part, source) in parts {
        content.set(part, render_part(part, source, &globals)?);
    }
    Ok(content)
}

/// Renders the step's `data`, which are Liquid strings themselves. What they print may be missing: the variable is then missing.
fn fill_data(reader: &Reader<'_>, language: &str, data: &Map<String, Json>) -> Result<BTreeMap<String, String>, RenderError> {
    let mut filled = BTreeMap::new();
    let Some(texts) = data.get("data").and_then(Json::as_object) else { return Ok(filled) };
    for (name, value) in texts {
        let written = match value {
            Json::String(text) if text.contains("{{") || text.contains("{%") => render_string(text, reader, language, data)?,
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        filled.insert(name.clone(), written);
    }
    Ok(filled)
}

/// One Liquid string outside a template: a step's `data`, an alert's `text`.
fn render_string(text: &str, reader: &Reader<'_>, language: &str, data: &Map<String, Json>) -> Result<String, RenderError> {
    let failed = |because: String| RenderError::Liquid { part: "data", because };
    let scan = scan::Scan::of(text);
    if let Some(fault) = scan.faults.first() {
        return Err(failed(fault.message.clone()));
    }
    let globals = values::globals(scan.uses.iter().map(|used| used.path.as_slice()), reader, language, data)?;
    let liquid = LIQUID.parse(text).map_err(|error| failed(first_line(&error)))?;
    write_limited(&liquid, &globals, "data", Part::Whatsapp.max_bytes())
}

/// The faults of a Liquid string outside a template (a step's `data`): byte offset, message, help.
pub fn string_faults(text: &str) -> Vec<(&'static str, usize, String, Option<String>)> {
    template::faults_of(text, &BTreeMap::new())
}

fn add_variables(globals: &mut Object, declared: &BTreeMap<Name, Variable>, filled: &BTreeMap<String, String>) {
    let variables = values::variables(declared, filled);
    globals.insert("data".into(), Liquid::Object(variables.clone()));
    globals.extend(variables);
}

fn render_part(part: Part, source: &PartSource, globals: &Object) -> Result<String, RenderError> {
    let text = write_limited(&source.liquid, globals, part.name(), part.max_bytes())?;
    match part {
        // one line: a header cannot hold more, and a title should not
        Part::Subject | Part::PushTitle => Ok(text.split_whitespace().collect::<Vec<_>>().join(" ")),
        Part::PushBody | Part::Sms | Part::Whatsapp => Ok(text.trim().to_owned()),
        Part::Text | Part::Html => Ok(text),
    }
}

fn write_limited(liquid: &liquid::Template, globals: &Object, part: &'static str, max: usize) -> Result<String, RenderError> {
    let mut out = Limited { bytes: Vec::with_capacity(1024), max, over: false };
    let result = liquid.render_to(&mut out, globals);
    if out.over {
        return Err(RenderError::TooLong { part, max });
    }
    result.map_err(|error| RenderError::Liquid { part, because: first_line(&error) })?;
    String::from_utf8(out.bytes).map_err(|error| RenderError::Liquid { part, because: error.to_string() })
}

/// The crate's errors print the values they met in their further lines; only the first is fit for a log. An unknown name stands
/// further below, and is no value.
fn first_line(error: &liquid::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("liquid: ").to_owned();
    match text.lines().find_map(|line| line.trim().strip_prefix("requested ").filter(|name| !name.is_empty())) {
        Some(requested) => format!("{first} ({requested})"),
        None => first,
    }
}

/// A buffer that refuses to grow beyond `max`.
struct Limited {
    bytes: Vec<u8>,
    max: usize,
    over: bool,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.max {
            self.over = true;
            return Err(io::Error::other("the output is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::action::MessageId;
    use crate::engine::profile::Category;
    use crate::engine::rule::expr::ValueType;
    use crate::engine::time::Zone;

    const HEAD: &str = "rekindle: 1\ntemplate: { purpose: marketing, variables: { scene: { type: string, optional: true } } }\n";

    fn parse(files: &[(&str, &str)]) -> (Templates, Vec<TemplateFault>) {
        let files: Vec<(String, String)> = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
        Templates::parse(&files)
    }

    fn templates(files: &[(&str, &str)]) -> Templates {
        let (templates, faults) = parse(files);
        assert_eq!(faults, []);
        templates
    }

    fn message(data: Json) -> Message {
        let at = Timestamp::from_ms(0);
        let Json::Object(data) = data else { panic!("data is an object") };
        Message {
            id: MessageId(1),
            dedupe_key: 1,
            rule: "r".into(),
            version: 1,
            run_key: "".into(),
            run: 1,
            step: "s".into(),
            channel: Channel::Email,
            category: Category::Marketing,
            template: "hello".into(),
            languages: vec![],
            decided_at: at,
            due_at: at,
            expires_at: at,
            priority: 50,
            wakes_on: 0,
            data,
        }
    }

    fn ana(name: &str) -> Result<Option<Value>, EvalError> {
        Ok(match name {
            "first_name" => Some(Value::text("Ana <b>")),
            "gap" => Some(Value::Money("1234.50 EUR".parse().expect("money"))),
            "nickname" => Some(Value::text(" ")),
            "overflown" => return Err(EvalError("overflow".into())),
            _ => None,
        })
    }

    fn reader(locale: &str) -> Reader<'_> {
        let zone = Zone::named("Europe/Berlin").expect("a zone");
        Reader { locale, zone, currency: "EUR".parse().ok(), read: &ana }
    }

    fn text(body: &str, data: Json) -> Result<String, RenderError> {
        let set = templates(&[("hello/template.yaml", HEAD), ("hello/en/subject.liquid", "s"), ("hello/en/text.liquid", body)]);
        render_for(&set, &reader("en-GB"), &message(data)).map(|content| content.text.expect("a text part"))
    }

    #[test]
    fn a_message_is_written_in_the_readers_language_and_zone() {
        let body = "{{ user.gap | money }} {{ offer.until | date }} {{ offer.until | date: 'time' }} {{ notice.amount | number }}";
        let files = [
            ("templates/hello/template.yaml", HEAD),
            ("templates/hello/en/subject.liquid", "Hello\n{{ user.first_name }}"),
            ("templates/hello/en/text.liquid", body),
            ("templates/hello/en/html.liquid", "<p>{{ user.first_name }} {{ user.first_name | raw }}</p>"),
            ("templates/hello/de/subject.liquid", "Hallo"),
            ("templates/hello/de/text.liquid", body),
            ("templates/hello/fr/sms.liquid", "{{ offer.code }}"),
        ];
        let set = templates(&files);
        let data = json!({ "offer": { "code": "A", "until": "2026-03-31T22:30:00Z" }, "notice": { "amount": 1200 } });
        let content = render_for(&set, &reader("de_AT"), &message(data.clone())).expect("content");
        assert_eq!(content.locale, "de");
        assert_eq!(content.text.as_deref(), Some("1.234,50\u{a0}€ 1. April 2026 00:30 1.200"));

        // French has no e-mail, so a French reader gets English, in English forms
        let content = render_for(&set, &reader("fr"), &message(data)).expect("content");
        assert_eq!(content.text.as_deref(), Some("€1,234.50 1 April 2026 00:30 1,200"));
        assert_eq!(content.subject.as_deref(), Some("Hello Ana <b>"));
        assert_eq!(content.html.as_deref(), Some("<p>Ana &lt;b&gt; Ana <b></p>"));
        let info = set.catalog().remove("hello").expect("the template");
        assert!(info.has_offer && info.has_notice);
        assert_eq!(info.channels_per_locale["fr"], [Channel::Sms, Channel::Webhook]);
    }

    #[test]
    fn languages_of_a_send_are_the_only_ones_used() {
        let files =
            [("hello/template.yaml", HEAD), ("hello/hi/sms.liquid", "hi"), ("hello/ta/sms.liquid", "ta"), ("hello/en/sms.liquid", "en")];
        let set = templates(&files);
        let mut message = message(json!({}));
        message.channel = Channel::Sms;
        message.languages = vec!["ta".into(), "hi".into()];
        for (locale, expected) in [("en", "ta"), ("hi-IN", "hi"), ("", "ta")] {
            assert_eq!(render_for(&set, &reader(locale), &message).expect("content").sms.as_deref(), Some(expected), "{locale}");
        }
        message.channel = Channel::Push;
        assert!(matches!(render_for(&set, &reader("en"), &message), Err(RenderError::NoTranslation { .. })));
    }

    #[test]
    fn printing_what_is_missing_fails_and_a_default_saves_it() {
        assert_eq!(text("Hi {{ user.nobody | default: 'you' }}{% if user.nobody %}x{% endif %}", json!({})), Ok("Hi you".into()));
        for body in
            ["Hi {{ user.nobody }}", "Hi {{ user.nickname | upcase }}", "{{ scene }}", "{{ event.total | money }}", "{{ event.a.b }}"]
        {
            let error = text(body, json!({ "event": { "a": null } })).expect_err(body);
            assert!(matches!(&error, RenderError::Liquid { because, .. } if because.contains("is missing")), "{body}: {error}");
        }
        assert!(matches!(text("{{ user.overflown }}", json!({})), Err(RenderError::Value { .. })));
    }

    #[test]
    fn a_steps_data_is_liquid_itself_and_fills_variables() {
        let data = json!({ "event": { "order": { "id": 7 } }, "data": { "scene": "camp {{ event.order.id }}" } });
        assert_eq!(text("{{ scene }} {{ data.scene }} {{ event.order | json }}", data), Ok("camp 7 camp 7 {\"id\":7}".into()));
        let missing = json!({ "data": { "scene": "{{ user.nobody }}" } });
        assert_eq!(text("{{ scene | default: 'none' }}", missing), Ok("none".into()));
    }

    #[test]
    fn errors_do_not_print_a_persons_values() {
        let error = text("{{ user.first_name | date }}", json!({})).expect_err("no date");
        assert!(!error.to_string().contains("Ana"), "{error}");
    }

    #[test]
    fn output_is_bounded() {
        let body = "{% for i in (1..1000) %}{{ user.first_name | append: event.long }}{% endfor %}";
        let error = text(body, json!({ "event": { "long": "x".repeat(1000) } })).expect_err("too long");
        assert!(matches!(error, RenderError::TooLong { .. }), "{error}");
    }

    #[test]
    fn faults_have_codes_places_and_suggestions() {
        let faulty = |body: &str| parse(&[("t/template.yaml", HEAD), ("t/en/sms.liquid", body)]).1.remove(0);
        let cases = [
            ("a\n é {{ scen }}", "RK0701", 2, 7, "did you mean `scene`?"),
            ("{{ offer.cod }}", "RK0701", 1, 4, "did you mean `offer.code`?"),
            ("{{ scene | upcas }}", "RK0702", 1, 12, "did you mean `upcase`?"),
            ("x {% if scene %}", "RK0700", 1, 3, "write `{% endif %}` where it ends"),
        ];
        for (body, code, line, column, help) in cases {
            let fault = faulty(body);
            assert_eq!((fault.code, fault.line, fault.column), (code, line, column), "{body}: {fault:?}");
            assert_eq!(fault.help.as_deref(), Some(help), "{body}");
        }
        let fault = faulty("ok\n{% if scene = 3 %}{% endif %}");
        assert_eq!((fault.code, fault.line), ("RK0700", 2), "{fault:?}");

        let yaml = |text: &str| parse(&[("t/template.yaml", text), ("t/en/sms.liquid", "x")]).1.remove(0);
        assert_eq!(yaml("rekindle: 1\ntemplate: { purpose: marketing, sample: [] }").code, "RK0101");
        assert_eq!(yaml("rekindle: 1\ntemplate: { purpose: marketin }").help.as_deref(), Some("did you mean `marketing`?"));
        assert_eq!(parse(&[("t/en/sms.liquid", "x")]).1.remove(0).code, "RK0704");
    }

    #[test]
    fn samples_are_rendered_in_every_language() {
        let type_of = |name: &str| (name == "points").then_some(ValueType::Int);
        let head = "rekindle: 1\ntemplate: { purpose: marketing, variables: { scene: { type: string, optional: true } }, samples: [{}] }";
        let files = |german: &str| {
            let (set, faults) = parse(&[
                ("t/template.yaml", head),
                ("t/en/sms.liquid", "{{ user.points | number }} {{ event.total | money }} {{ scene | default: 'x' }}"),
                ("t/de/sms.liquid", german),
            ]);
            assert_eq!(faults, []);
            set.check(&type_of, &["points"], "EUR".parse().ok())
        };
        assert_eq!(files("{{ user.points }}"), []);
        assert_eq!(files("{{ scene }}").remove(0).code, "RK0705");
        let fault = files("{{ user.point }}").remove(0);
        assert_eq!((fault.code, fault.path.as_str(), fault.column), ("RK0701", "t/de/sms.liquid", 4));
        assert_eq!(fault.help.as_deref(), Some("did you mean `user.points`?"));
    }

    proptest::proptest! {
        /// Whatever an operator writes: a fault with a place or a template, never a panic; and what parses renders or says why not.
        #[test]
        fn no_source_makes_it_panic(pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 1..14)) {
            let source = pieces.concat();
            let (set, faults) = parse(&[("hello/template.yaml", HEAD), ("hello/en/subject.liquid", "s"), ("hello/en/text.liquid", &source)]);
            let lines = source.lines().count() as u32 + 1;
            proptest::prop_assert!(faults.iter().all(|fault| fault.line >= 1 && fault.line <= lines && fault.column >= 1), "{faults:?}");
            if faults.is_empty() {
                let data = json!({ "event": { "x": [1, "é", { "y": null }] }, "offer": {}, "data": { "scene": &source } });
                let _ = render_for(&set, &reader("de"), &message(data));
            }
        }
    }

    const PIECES: [&str; 44] = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{{-",
        "-}}",
        "{%-",
        "-%}",
        " ",
        "\n",
        "é",
        "'",
        "\"",
        "|",
        ":",
        ",",
        ".",
        "[",
        "]",
        "(1..3)",
        "-",
        "=",
        "<",
        "if ",
        "endif",
        "for i in ",
        "endfor",
        "raw",
        "endraw",
        "comment",
        "endcomment",
        "assign a = ",
        "case ",
        "when ",
        "scene",
        "event.x",
        "user.first_name",
        "i",
        "9",
        "99999999999999999999",
        "default",
        "date",
        "append",
        "[0]",
    ];
}
