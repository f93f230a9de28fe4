//! Samples: every template is rendered in every language before it may be used, with the samples of its `template.yaml` and
//! stand-ins for what they do not give.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::sms::{self, Cut};
use super::template::{Part, PartSource, Template, TemplateFault, Templates, Translation, nearest, place_of};
use super::values::{self, Reader};
use super::{Content, RenderError, render_part};
use crate::engine::event::Value;
use crate::engine::money::Currency;
use crate::engine::profile::Name;
use crate::engine::rule::expr::{EvalError, ValueType};
use crate::engine::time::{DAY_MS, Timestamp, Zone};

/// More segments than that are told of: each of them is paid for.
const SMS_SEGMENTS: usize = 3;

/// A template as one of its samples fills it, in one language.
#[derive(Debug)]
pub struct Rendered<'t> {
    pub template: &'t Name,
    pub locale: &'t Name,
    /// From 1.
    pub sample: usize,
    pub content: Content,
}

/// An instant that every stand-in date is read at: a Friday morning in March.
const SAMPLE_DAY: &str = "2026-03-06T09:00:00Z";

impl Templates {
    /// Every template with each of its samples in every language; what does not render is left out ([`Templates::check`] tells of it).
    pub fn rendered(&self, type_of: &dyn Fn(&str) -> Option<ValueType>, currency: Option<Currency>) -> Vec<Rendered<'_>> {
        let mut all = Vec::new();
        for (name, template) in self.iter() {
            for (locale, translation) in template.translations() {
                for (index, sample) in samples_of(template).iter().enumerate() {
                    let content = render_sample(template, locale, translation, sample, type_of, currency);
                    all.extend(content.ok().map(|content| Rendered { template: name, locale, sample: index + 1, content }));
                }
            }
        }
        all
    }

    /// What is wrong with the templates against a dictionary: `user.*` names that nothing declares (RK0701), samples that do not
    /// render (RK0705). `type_of` answers the type of any name that rules may use; none: unknown.
    pub fn check(&self, type_of: &dyn Fn(&str) -> Option<ValueType>, known: &[&str], currency: Option<Currency>) -> Vec<TemplateFault> {
        let mut faults = Vec::new();
        for (_, template) in self.iter() {
            let before = faults.len();
            for (_, translation) in template.translations() {
                for part in translation.parts.values() {
                    undeclared_user_names(part, type_of, known, &mut faults);
                }
            }
            if faults.len() == before {
                render_samples(template, type_of, currency, &mut faults);
            }
        }
        faults
    }
}

fn undeclared_user_names(part: &PartSource, type_of: &dyn Fn(&str) -> Option<ValueType>, known: &[&str], faults: &mut Vec<TemplateFault>) {
    for path in part.uses.iter().filter(|path| path.first().is_some_and(|root| root == "user")) {
        let Some(name) = path.get(1).filter(|name| *name != "id" && type_of(name).is_none()) else { continue };
        let at = part.source.find(&format!("user.{name}")).unwrap_or(0);
        let (line, column) = place_of(&part.source, at);
        let help = nearest(name, known.iter().copied()).map(|near| format!("did you mean `user.{near}`?"));
        let message = format!("`user.{name}` is not an attribute, feature or segment");
        faults.push(TemplateFault { code: "RK0701", path: part.path.to_string(), line, column, message, help });
    }
}

fn render_samples(
    template: &Template,
    type_of: &dyn Fn(&str) -> Option<ValueType>,
    currency: Option<Currency>,
    faults: &mut Vec<TemplateFault>,
) {
    let samples = samples_of(template);
    for (locale, translation) in template.translations() {
        let mut failed = None;
        let mut longest: Option<(usize, Cut)> = None;
        for (index, sample) in samples.iter().enumerate() {
            match render_sample(template, locale, translation, sample, type_of, currency) {
                Ok(content) => {
                    let cut = content.sms.as_deref().map(sms::cut);
                    longest = longest.into_iter().chain(cut.map(|cut| (index, cut))).max_by_key(|(_, cut)| cut.segments);
                }
                Err(failure) => failed = failed.or(Some((index, failure))),
            }
        }
        if let (Some((index, cut)), Some(source)) = (longest, translation.parts.get(&Part::Sms)) {
            faults.extend(costly_sms(index, cut, source));
        }
        // one fault per translation: the samples mostly fail alike
        if let Some((index, (path, error))) = failed {
            let message = format!("sample {} does not render: {error}", index + 1);
            let help = "give the value in `samples` of template.yaml (`user: { ... }`, `event: { ... }`), or guard it".to_owned();
            faults.push(TemplateFault { code: "RK0705", path, line: 1, column: 1, message, help: Some(help) });
        }
    }
}

fn samples_of(template: &Template) -> Vec<Map<String, Json>> {
    if template.samples.is_empty() { vec![Map::new()] } else { template.samples.clone() }
}

/// A text message in many segments, or in more than it needs because of one character.
fn costly_sms(index: usize, cut: Cut, source: &PartSource) -> Option<TemplateFault> {
    let (message, help) = match cut.odd {
        Some(odd) if cut.segments > 1 => (
            format!("sample {} takes {} segments, each of which is paid for: `{odd}` is not in the GSM alphabet", index + 1, cut.segments),
            "without such characters 160 fit into one segment, with one of them 70".to_owned(),
        ),
        None if cut.segments > SMS_SEGMENTS => (
            format!("sample {} takes {} segments, each of which is paid for", index + 1, cut.segments),
            format!("{SMS_SEGMENTS} segments are {} characters", SMS_SEGMENTS * 153),
        ),
        _ => return None,
    };
    let at = cut.odd.and_then(|odd| source.source.find(odd)).unwrap_or(0);
    let (line, column) = place_of(&source.source, at);
    Some(TemplateFault { code: "RK0706", path: source.path.to_string(), line, column, message, help: Some(help) })
}

fn render_sample(
    template: &Template,
    locale: &str,
    translation: &Translation,
    sample: &Map<String, Json>,
    type_of: &dyn Fn(&str) -> Option<ValueType>,
    currency: Option<Currency>,
) -> Result<Content, (String, RenderError)> {
    let given = |name: &str| sample.get("user").and_then(|user| user.get(name)).map(json_value);
    let stand_in = |name: &str| type_of(name).map(|value_type| stand_in_value(&value_type, currency));
    let read = |name: &str| -> Result<Option<Value>, EvalError> {
        let id = (name == "id").then(|| Some(Value::text("sample-person")));
        Ok(given(name).or(id).unwrap_or_else(|| stand_in(name)))
    };
    let reader = Reader { locale, zone: Zone::UTC, currency, read: &read };
    let data = sample_data(template, translation, sample);
    let filled = sample_variables(&template.variables, sample, currency);
    let mut content = Content { locale: locale.to_owned(), ..Content::default() };
    for (part, source) in &translation.parts {
        let globals = values::globals(source.uses.iter().map(Vec::as_slice), &reader, locale, &data);
        let mut globals = globals.map_err(|error| (source.path.to_string(), error))?;
        super::add_variables(&mut globals, &template.variables, &filled);
        let text = render_part(*part, source, &globals).map_err(|error| (source.path.to_string(), error))?;
        content.set(*part, text);
    }
    Ok(content)
}

/// `event`, `offer` and `notice` of a sample, with stand-ins for what the translation uses and the sample does not give.
fn sample_data(template: &Template, translation: &Translation, sample: &Map<String, Json>) -> Map<String, Json> {
    let object = |name: &str| sample.get(name).and_then(Json::as_object).cloned().unwrap_or_default();
    let mut event = object("event");
    let uses = translation.parts.values().flat_map(|part: &PartSource| &part.uses);
    for path in uses.filter(|path| path.len() == 2 && path.first().is_some_and(|root| root == "event")) {
        // a text that counts as a number too: most of what letters print of an event is a name or an amount
        let Some(name) = path.get(1) else { continue };
        event.entry(name.clone()).or_insert_with(|| json!("1"));
    }
    let mut data = Map::new();
    data.insert("event".into(), Json::Object(event));
    if template.info.has_offer {
        let mut offer = object("offer");
        for (name, value) in [("code", json!("SAMPLE-1")), ("until", json!(SAMPLE_DAY)), ("value", json!("10%"))] {
            offer.entry(name).or_insert(value);
        }
        data.insert("offer".into(), Json::Object(offer));
    }
    if template.info.has_notice {
        let mut notice = object("notice");
        for (name, value) in [("amount", json!(120)), ("from", json!(SAMPLE_DAY))] {
            notice.entry(name).or_insert(value);
        }
        data.insert("notice".into(), Json::Object(notice));
    }
    data
}

/// Optional variables that the sample leaves out stay missing: that is how a missing guard shows.
fn sample_variables(
    declared: &BTreeMap<Name, super::template::Variable>,
    sample: &Map<String, Json>,
    currency: Option<Currency>,
) -> BTreeMap<String, String> {
    let plain = |json: &Json| json.as_str().map_or_else(|| json.to_string(), str::to_owned);
    let value_of = |name: &Name, variable: &super::template::Variable| match sample.get(&**name) {
        Some(given) => Some(plain(given)),
        None if variable.optional => None,
        None => match stand_in_value(&variable.value_type, currency) {
            Value::Text(text) => Some(text.to_string()),
            value => Some(value.to_string()),
        },
    };
    declared.iter().filter_map(|(name, variable)| Some((name.to_string(), value_of(name, variable)?))).collect()
}

fn stand_in_value(value_type: &ValueType, currency: Option<Currency>) -> Value {
    let day = Timestamp::parse(SAMPLE_DAY).unwrap_or_default();
    match value_type {
        ValueType::Bool => Value::Bool(true),
        ValueType::Int => Value::Int(12),
        ValueType::Float => Value::Float(1.5),
        ValueType::Text => Value::text("Ana"),
        ValueType::Enum(values) => values.first().map_or_else(|| Value::text("Ana"), |first| Value::Text(first.clone())),
        ValueType::Date => Value::Date(day.local(&Zone::UTC).date()),
        ValueType::Instant => Value::Instant(day),
        ValueType::Duration => Value::Duration(3 * DAY_MS),
        ValueType::Money => match currency.or_else(|| "EUR".parse().ok()) {
            Some(currency) => Value::Money(crate::engine::money::Money::new(1250, currency)),
            None => Value::Int(12),
        },
        ValueType::List => Value::List(Vec::new()),
    }
}

/// A sample's value for `user.x`; an explicit null is "missing".
fn json_value(json: &Json) -> Option<Value> {
    match json {
        Json::Null => None,
        Json::Bool(v) => Some(Value::Bool(*v)),
        Json::Number(v) => Some(v.as_i64().map_or_else(|| Value::Float(v.as_f64().unwrap_or_default()), Value::Int)),
        Json::String(v) => Some(Value::text(v)),
        Json::Array(items) => Some(Value::List(items.iter().filter_map(json_value).collect())),
        Json::Object(_) => Some(Value::text(&json.to_string())),
    }
}
