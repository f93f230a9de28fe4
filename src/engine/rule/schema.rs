//! The language as JSON Schema, for editors: completion, hover and a first check while typing. Made from the one description of the
//! language ([`language`](super::language)), with the project's own names as words.
//!
//! Draft-07, because that is what `yaml-language-server` understands. It is never stricter than `check`: what the schema refuses, `check`
//! refuses too. The reverse does not hold, since a schema knows no meaning.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::language::{FILE, Names, Shape, TEMPLATE_FILE, Takes};

/// The names of a project, by what they are names of.
pub type Known = BTreeMap<Names, BTreeSet<String>>;

const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// The schema of a rules directory's YAML files: rule files, and the `template.yaml` of each template.
pub fn schema(known: &Known) -> Json {
    let mut writer = Writer { known, definitions: Map::new() };
    let rules = writer.reference(&FILE);
    let template = writer.reference(&TEMPLATE_FILE);
    writer.definitions.insert("condition".to_owned(), condition());
    json!({
        "$schema": DRAFT,
        "title": "Rekindle's rule files",
        // one that has `template` is a template's; everything else is said of a rule file
        "if": { "required": ["template"] },
        "then": template,
        "else": rules,
        "definitions": writer.definitions,
    })
}

struct Writer<'k> {
    known: &'k Known,
    definitions: Map<String, Json>,
}

impl Writer<'_> {
    fn reference(&mut self, shape: &Shape) -> Json {
        let name: String = shape.what.chars().filter(|c| *c != '`').map(|c| if c == ' ' { '-' } else { c }).collect();
        if !self.definitions.contains_key(&name) {
            // a shape may lead back to itself
            self.definitions.insert(name.clone(), Json::Null);
            let definition = self.mapping(shape);
            self.definitions.insert(name.clone(), definition);
        }
        json!({ "$ref": format!("#/definitions/{name}") })
    }

    fn mapping(&mut self, shape: &Shape) -> Json {
        let mut properties = Map::new();
        for key in shape.keys {
            let mut value = match &key.takes {
                // as unavailable as it is, it is not misspelt: `check` says what it is
                Takes::Later => json!({ "doNotSuggest": true }),
                takes => self.value(takes),
            };
            let unavailable = if matches!(key.takes, Takes::Later) { " Not yet available." } else { "" };
            if let Some(fields) = value.as_object_mut() {
                fields.insert("description".to_owned(), json!(format!("{}{unavailable}", key.doc)));
            }
            properties.insert(key.name.to_owned(), value);
        }
        let required: Vec<&str> = shape.keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
        let mut definition = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if let (false, Some(fields)) = (required.is_empty(), definition.as_object_mut()) {
            fields.insert("required".to_owned(), json!(required));
        }
        definition
    }

    fn value(&mut self, takes: &Takes) -> Json {
        match takes {
            Takes::Text | Takes::Expression => any_scalar(),
            Takes::Slug(least) => pattern(&format!("^[a-z0-9_-]{{{least},64}}$"), "small letters, digits and dashes"),
            Takes::Bool => json!({ "type": "boolean" }),
            Takes::Number(least, most) => json!({ "anyOf": [
                { "type": "integer", "minimum": least, "maximum": most },
                { "type": "string", "pattern": "^-?[0-9_]+$" },
            ] }),
            Takes::Percent => pattern(r"^[0-9]+(\.[0-9]{1,2})?\s*%$", "a percentage like `5%`"),
            Takes::Duration => pattern("^[+-]?([0-9]+(y|mo|w|d|h|m|s|ms))+$", "a duration like `7d`, `36h` or `7d10h`"),
            Takes::Money => pattern(r"^-?[0-9]+(\.[0-9]+)?\s+[A-Z]{3}$", "an amount like `30 GBP`"),
            Takes::TimeOfDay => {
                pattern(r"^\s*[0-9]{1,2}:[0-9]{2}\s*(-\s*[0-9]{1,2}:[0-9]{2}\s*)?$", "a time like \"10:00\", or \"10:00-12:00\"")
            }
            Takes::Instant | Takes::Date | Takes::Zone => json!({ "type": "string" }),
            Takes::Condition => json!({ "$ref": "#/definitions/condition" }),
            Takes::Words(words) => json!({ "enum": words.iter().map(|word| word_as_value(word)).collect::<Vec<_>>() }),
            Takes::Name(names) => match self.known.get(names).filter(|known| !known.is_empty()) {
                Some(known) => json!({ "enum": known }),
                None => any_scalar(),
            },
            Takes::List(of) => json!({ "type": "array", "items": self.value(of) }),
            Takes::Map(of) => json!({ "type": "object", "additionalProperties": self.value(of) }),
            Takes::Of(shape) => self.reference(shape),
            Takes::Either(all) => json!({ "anyOf": all.iter().map(|takes| self.value(takes)).collect::<Vec<_>>() }),
            Takes::Anything | Takes::Later => json!({}),
        }
    }
}

/// A text; without quotes it may look like something else.
fn any_scalar() -> Json {
    json!({ "type": ["string", "number", "boolean"] })
}

fn pattern(pattern: &str, what: &str) -> Json {
    json!({ "type": "string", "pattern": pattern, "patternErrorMessage": format!("{what} is expected") })
}

/// The format's version is a number to whoever reads YAML.
fn word_as_value(word: &str) -> Json {
    word.parse::<i64>().map_or_else(|_| json!(word), |number| json!(number))
}

/// A text, `{ expr, why }`, or a tree of `all`, `any`, `none`.
fn condition() -> Json {
    let one = json!({ "$ref": "#/definitions/condition" });
    let list = |doc: &str| json!({ "type": "array", "items": one, "description": doc });
    json!({ "anyOf": [
        any_scalar(),
        {
            "type": "object",
            "properties": {
                "all": list("True if every one of these is."),
                "any": list("True if one of these is."),
                "none": list("True if none of these is."),
                "expr": { "type": ["string", "number", "boolean"], "description": "The condition as a text." },
                "why": { "type": "string", "description": "What `explain` says." },
            },
            "additionalProperties": false,
        },
    ] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere_and_names_become_words() {
        let known = Known::from([(Names::Template, BTreeSet::from(["welcome".to_owned()]))]);
        let schema = schema(&known);
        let text = schema.to_string();
        for reference in text.split("#/definitions/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(schema["definitions"][reference].is_object(), "{reference}");
        }
        assert_eq!(schema["definitions"]["send"]["properties"]["template"]["enum"], json!(["welcome"]));
        assert_eq!(schema["definitions"]["a-rule"]["required"], json!(["id", "owner", "steps"]));
    }
}
