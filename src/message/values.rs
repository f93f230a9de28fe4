//! What a template sees: an object in which every name that it uses exists, nil where the person has no such value. (The `liquid`
//! crate fails on absent keys even under `default`; nil is what `default` and `if` understand.) Only used names are read.

use std::collections::BTreeMap;

use liquid_core::model::{KString, Object, Value as Liquid};
use serde_json::{Map, Value as Json};

use super::RenderError;
use super::filters::READER;
use super::template::Variable;
use crate::engine::event::Value;
use crate::engine::money::Currency;
use crate::engine::profile::Name;
use crate::engine::rule::expr::{EvalError, ValueType};
use crate::engine::time::Zone;

/// The person a message is written for, as far as a template may ask.
pub struct Reader<'a> {
    /// Their locale as we have it; may be empty.
    pub locale: &'a str,
    pub zone: Zone,
    /// The program's: what a bare number under `money` means.
    pub currency: Option<Currency>,
    /// Any name that rules may use, by name.
    pub read: &'a dyn Fn(&str) -> Result<Option<Value>, EvalError>,
}

/// The roots that exist without being declared.
pub const ROOTS: [&str; 5] = ["user", "event", "offer", "notice", "data"];
pub const OFFER_FIELDS: [&str; 3] = ["code", "until", "value"];
pub const NOTICE_FIELDS: [&str; 2] = ["amount", "from"];

/// The globals for the paths that a message's parts use. `data`: the message's own (`event`, `offer`, `notice`).
pub fn globals<'p>(
    paths: impl Iterator<Item = &'p [String]>,
    reader: &Reader<'_>,
    language: &str,
    data: &Map<String, Json>,
) -> Result<Object, RenderError> {
    let mut globals = Object::new();
    globals.insert(KString::from_static(READER), reader_facts(reader, language));
    let mut user = Object::new();
    for path in paths {
        let Some((root, rest)) = path.split_first() else { continue };
        match (root.as_str(), rest.first()) {
            ("user", Some(name)) if !user.contains_key(name.as_str()) => {
                let value = (reader.read)(name).map_err(|error| RenderError::Value { name: name.clone(), because: error.0 })?;
                user.insert(name.clone().into(), value.map_or(Liquid::Nil, |value| of_value(&value)));
            }
            ("event" | "offer" | "notice", _) => {
                let known = || data.get(root.as_str()).map_or_else(|| Liquid::Object(Object::new()), of_json);
                let value = globals.entry(root.clone()).or_insert_with(known);
                ensure(value, rest);
            }
            _ => {}
        }
    }
    globals.insert("user".into(), Liquid::Object(user));
    Ok(globals)
}

fn reader_facts(reader: &Reader<'_>, language: &str) -> Liquid {
    let mut facts = Object::new();
    facts.insert("locale".into(), Liquid::scalar(language.to_owned()));
    facts.insert("zone".into(), Liquid::scalar(reader.zone.name().to_owned()));
    let currency = reader.currency.map(|currency| currency.code().to_owned()).unwrap_or_default();
    facts.insert("currency".into(), Liquid::scalar(currency));
    Liquid::Object(facts)
}

/// Makes the path exist below `value`, nil at its end.
fn ensure(value: &mut Liquid, path: &[String]) {
    let Some((key, rest)) = path.split_first() else { return };
    if matches!(value, Liquid::Nil) {
        *value = Liquid::Object(Object::new());
    }
    let Liquid::Object(fields) = value else { return };
    ensure(fields.entry(key.clone()).or_insert(Liquid::Nil), rest);
}

/// Declared variables as the step's `data` fills them; the others are nil.
pub fn variables(declared: &BTreeMap<Name, Variable>, filled: &BTreeMap<String, String>) -> Object {
    let value_of = |name: &Name, variable: &Variable| filled.get(&**name).map_or(Liquid::Nil, |text| of_text(text, &variable.value_type));
    declared.iter().map(|(name, variable)| (KString::from_ref(name), value_of(name, variable))).collect()
}

/// An empty text counts as missing: a greeting without a name is what nobody wants to send.
fn of_text(text: &str, value_type: &ValueType) -> Liquid {
    if text.trim().is_empty() {
        return Liquid::Nil;
    }
    let number = match value_type {
        ValueType::Int => text.trim().parse::<i64>().ok().map(Liquid::scalar),
        ValueType::Float => text.trim().parse::<f64>().ok().map(Liquid::scalar),
        ValueType::Bool => text.trim().parse::<bool>().ok().map(Liquid::scalar),
        _ => None,
    };
    number.unwrap_or_else(|| Liquid::scalar(text.to_owned()))
}

/// Money, dates and instants travel as text (`30 USD`, RFC 3339): printed without a filter they still make sense.
pub fn of_value(value: &Value) -> Liquid {
    match value {
        Value::Bool(v) => Liquid::scalar(*v),
        Value::Int(v) => Liquid::scalar(*v),
        Value::Float(v) => Liquid::scalar(*v),
        Value::Text(v) if v.trim().is_empty() => Liquid::Nil,
        Value::Text(v) => Liquid::scalar(v.to_string()),
        Value::Date(_) | Value::Instant(_) | Value::Duration(_) | Value::Money(_) => Liquid::scalar(value.to_string()),
        Value::List(items) => Liquid::Array(items.iter().map(of_value).collect()),
    }
}

pub fn of_json(json: &Json) -> Liquid {
    match json {
        Json::Null => Liquid::Nil,
        Json::Bool(v) => Liquid::scalar(*v),
        Json::Number(v) => match (v.as_i64(), v.as_f64()) {
            (Some(whole), _) => Liquid::scalar(whole),
            (None, Some(float)) => Liquid::scalar(float),
            (None, None) => Liquid::Nil,
        },
        Json::String(v) if v.trim().is_empty() => Liquid::Nil,
        Json::String(v) => Liquid::scalar(v.clone()),
        Json::Array(items) => Liquid::Array(items.iter().map(of_json).collect()),
        Json::Object(fields) => Liquid::Object(fields.iter().map(|(key, value)| (key.clone().into(), of_json(value))).collect()),
    }
}
