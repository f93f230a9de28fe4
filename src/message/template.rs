//! Templates as files: `NAME/template.yaml` says what a template is for, `NAME/LOCALE/PART.liquid` what it says in one language.
//!
//! Everything that can be told without a person is told here, with its place: syntax, undeclared names, unknown filters, parts that
//! are lacking ([`Templates::parse`]), and samples that do not render ([`Templates::check`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use liquid::reflection::ParserReflection;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::filters::{DateForm, Escaped, Json as JsonFilter, MoneyForm, NumberForm, Printed, Raw};
use super::locale::fallback_chain;
use super::scan::Scan;
use super::values::{NOTICE_FIELDS, OFFER_FIELDS, ROOTS};
use crate::engine::action::Channel;
use crate::engine::profile::Name;
use crate::engine::rule::expr::ValueType;
use crate::engine::rule::{TemplateCatalog, TemplateInfo};

/// A source larger than that is no letter.
const SOURCE_MAX_BYTES: usize = 256 * 1024;

/// What a template may be for. What may be sent as `service` is a closed list.
pub const PURPOSES: [&str; 7] = ["marketing", "transactional", "penalty_notice", "tier_notice", "points_statement", "order", "account"];

/// Something wrong with a template, said to the person who wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateFault {
    /// RK0700 Liquid syntax, RK0701 undeclared name, RK0702 unknown filter, RK0704 files that are lacking or out of place, RK0705 a
    /// sample does not render, RK0706 (a warning) a text message that is dear; RK0101 and RK0102 of `template.yaml`.
    pub code: &'static str,
    /// As it was given to [`Templates::parse`].
    pub path: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    pub message: String,
    pub help: Option<String>,
}

impl TemplateFault {
    /// Whether the template may be used all the same.
    pub fn is_warning(&self) -> bool {
        self.code == "RK0706"
    }
}

/// One text of a translation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    Subject,
    Text,
    Html,
    PushTitle,
    PushBody,
    Sms,
    Whatsapp,
}

impl Part {
    pub const ALL: [Part; 7] = [Part::Subject, Part::Text, Part::Html, Part::PushTitle, Part::PushBody, Part::Sms, Part::Whatsapp];

    /// The file is this and `.liquid`.
    pub fn name(self) -> &'static str {
        match self {
            Part::Subject => "subject",
            Part::Text => "text",
            Part::Html => "html",
            Part::PushTitle => "push_title",
            Part::PushBody => "push_body",
            Part::Sms => "sms",
            Part::Whatsapp => "whatsapp",
        }
    }

    /// Rendered bytes at most. A push payload holds 4 kB in all; ten SMS segments are 1530 characters at best.
    pub fn max_bytes(self) -> usize {
        match self {
            Part::Subject => 998,
            Part::Text | Part::Html => 256 * 1024,
            Part::PushTitle => 512,
            Part::PushBody => 3 * 1024,
            Part::Sms => 1530,
            Part::Whatsapp => 4096,
        }
    }

    /// What a message on `channel` is made of, and what of it must be there.
    pub fn of_channel(channel: Channel) -> (&'static [Part], &'static [Part]) {
        match channel {
            Channel::Email => (&[Part::Subject, Part::Text, Part::Html], &[Part::Subject, Part::Text]),
            Channel::Push | Channel::Inapp => (&[Part::PushTitle, Part::PushBody], &[Part::PushTitle, Part::PushBody]),
            Channel::Sms => (&[Part::Sms], &[Part::Sms]),
            Channel::Whatsapp => (&[Part::Whatsapp], &[Part::Whatsapp]),
            Channel::Webhook => (&Part::ALL, &[]),
        }
    }
}

/// All templates of a rule set.
#[derive(Debug, Default)]
pub struct Templates {
    by_name: BTreeMap<Name, Template>,
}

#[derive(Debug)]
pub struct Template {
    pub info: TemplateInfo,
    pub variables: BTreeMap<Name, Variable>,
    pub samples: Vec<Map<String, Json>>,
    translations: BTreeMap<Name, Translation>,
}

/// A variable that the step's `data` fills.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    pub value_type: ValueType,
    pub optional: bool,
}

#[derive(Debug, Default)]
pub struct Translation {
    pub parts: BTreeMap<Part, PartSource>,
    /// A part has a fault and is left out: that others then lack it is no news.
    is_faulty: bool,
}

pub struct PartSource {
    pub path: Arc<str>,
    pub liquid: liquid::Template,
    /// Names from outside, each once.
    pub uses: Vec<Vec<String>>,
    pub source: String,
}

impl std::fmt::Debug for PartSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartSource").field("path", &self.path).field("uses", &self.uses).finish_non_exhaustive()
    }
}

// ------------------------------------------------------------------------------------------------------------- template.yaml

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    rekindle: u32,
    template: HeadTemplate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadTemplate {
    purpose: String,
    #[serde(default)]
    variables: BTreeMap<String, HeadVariable>,
    #[serde(default)]
    samples: Vec<Map<String, Json>>,
    #[serde(default)]
    states: BTreeMap<String, ReviewState>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadVariable {
    #[serde(rename = "type")]
    value_type: HeadType,
    #[serde(default)]
    optional: bool,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum HeadType {
    String,
    Int,
    Float,
    Bool,
    Date,
    Timestamp,
    Money,
}

/// How far a translation has been looked at.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum ReviewState {
    Draft,
    Machine,
    Reviewed,
}

impl HeadType {
    fn value_type(self) -> ValueType {
        match self {
            HeadType::String => ValueType::Text,
            HeadType::Int => ValueType::Int,
            HeadType::Float => ValueType::Float,
            HeadType::Bool => ValueType::Bool,
            HeadType::Date => ValueType::Date,
            HeadType::Timestamp => ValueType::Instant,
            HeadType::Money => ValueType::Money,
        }
    }
}

// --------------------------------------------------------------------------------------------------------------------- parsing

/// Liquid as we speak it: its own filters and tags, ours besides and in place of `date`.
pub static LIQUID: LazyLock<liquid::Parser> = LazyLock::new(|| {
    let builder = liquid::ParserBuilder::with_stdlib().filter(MoneyForm).filter(NumberForm).filter(DateForm).filter(JsonFilter);
    builder.filter(Raw).filter(Printed).filter(Escaped).build().expect("a parser without partials always builds")
});

impl Templates {
    /// Reads the files of `rules/templates/`: paths as `NAME/template.yaml` and `NAME/LOCALE/PART.liquid`, `templates/` before them
    /// allowed. What is faulty is left out and told; the others stand.
    pub fn parse(files: &[(String, String)]) -> (Templates, Vec<TemplateFault>) {
        let mut faults = Vec::new();
        let mut folders: BTreeMap<&str, Vec<FileInFolder<'_>>> = BTreeMap::new();
        for file in files {
            let path = file.0.strip_prefix("templates/").unwrap_or(&file.0);
            match path.split_once('/') {
                Some((name, inner)) => folders.entry(name).or_default().push((inner, file)),
                None => faults.push(misplaced(&file.0)),
            }
        }
        let mut by_name = BTreeMap::new();
        for (name, files) in folders {
            if let Some(template) = parse_template(name, &files, &mut faults) {
                by_name.insert(Name::from(name), template);
            }
        }
        (Templates { by_name }, faults)
    }

    /// What the checker of rules may know of templates.
    pub fn catalog(&self) -> TemplateCatalog {
        self.by_name.iter().map(|(name, template)| (name.clone(), template.info.clone())).collect()
    }

    pub fn get(&self, name: &str) -> Option<&Template> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Template)> {
        self.by_name.iter()
    }
}

impl Template {
    /// The translation for a person of that locale on that channel, among `allowed` (empty: all): the first of the fallback chain
    /// that has the channel's parts; then `default`, `en`, the first allowed, the first of all.
    pub fn translation(&self, locale: &str, allowed: &[Name], channel: Channel) -> Option<(&Name, &Translation)> {
        let offers = |name: &Name| self.info.channels_per_locale.get(name).is_some_and(|channels| channels.contains(&channel));
        let may = |name: &Name| (allowed.is_empty() || allowed.contains(name)) && offers(name);
        let find = |tag: &str| self.translations.iter().find(|(name, _)| name.eq_ignore_ascii_case(tag) && may(name));
        let by_chain = fallback_chain(locale).iter().find_map(|tag| find(tag));
        let by_list = || allowed.iter().find_map(|name| find(name));
        by_chain
            .or_else(by_list)
            .or_else(|| find("default"))
            .or_else(|| find("en"))
            .or_else(|| self.translations.iter().find(|(name, _)| may(name)))
    }

    pub fn translations(&self) -> impl Iterator<Item = (&Name, &Translation)> {
        self.translations.iter()
    }
}

/// The path below its template's folder, and the file.
type FileInFolder<'f> = (&'f str, &'f (String, String));

fn misplaced(path: &str) -> TemplateFault {
    let help = "templates are NAME/template.yaml and NAME/LOCALE/PART.liquid with PART one of subject, text, html, push_title, push_body, sms, \
                whatsapp";
    fault_at_start("RK0704", path, "this file is no part of a template".into(), Some(help.into()))
}

fn fault_at_start(code: &'static str, path: &str, message: String, help: Option<String>) -> TemplateFault {
    TemplateFault { code, path: path.to_owned(), line: 1, column: 1, message, help }
}

fn parse_template(name: &str, files: &[(&str, &(String, String))], faults: &mut Vec<TemplateFault>) -> Option<Template> {
    let Some((_, (head_path, head_text))) = files.iter().find(|(inner, _)| *inner == "template.yaml") else {
        let first = files.first().map(|(_, file)| file.0.as_str()).unwrap_or(name);
        let help = format!("write {name}/template.yaml with `rekindle: 1` and `template: {{ purpose: marketing }}`");
        faults.push(fault_at_start("RK0704", first, format!("template `{name}` has no template.yaml"), Some(help)));
        return None;
    };
    let head = parse_head(head_path, head_text, faults)?;
    let variables: BTreeMap<Name, Variable> = head
        .variables
        .iter()
        .map(|(name, v)| (Name::from(name.as_str()), Variable { value_type: v.value_type.value_type(), optional: v.optional }))
        .collect();

    let mut translations: BTreeMap<Name, Translation> = BTreeMap::new();
    for (inner, (path, text)) in files.iter().filter(|(inner, _)| *inner != "template.yaml") {
        let part = inner.split_once('/').and_then(|(locale, file)| {
            let stem = file.strip_suffix(".liquid")?;
            Some((locale, Part::ALL.into_iter().find(|part| part.name() == stem)?))
        });
        match part {
            Some((locale, part)) => {
                let source = parse_part(path, text, part, &variables, faults);
                let translation = translations.entry(Name::from(locale)).or_default();
                translation.is_faulty |= source.is_none();
                translation.parts.extend(source.map(|source| (part, source)));
            }
            None if inner.ends_with("mail.mjml") => {
                let help = "write subject.liquid, text.liquid and html.liquid".to_owned();
                faults.push(fault_at_start("RK0703", path, "MJML is not yet available".into(), Some(help)));
            }
            None => faults.push(misplaced(path)),
        }
    }
    if translations.is_empty() {
        let help = format!("write for instance {name}/en/subject.liquid and {name}/en/text.liquid");
        faults.push(fault_at_start("RK0704", head_path, format!("template `{name}` has no translation"), Some(help)));
        return None;
    }
    let info = info_of(&head, &variables, &translations, head_path, faults);
    Some(Template { info, variables, samples: head.samples, translations })
}

fn parse_head(path: &str, text: &str, faults: &mut Vec<TemplateFault>) -> Option<HeadTemplate> {
    let head: Head = match serde_yaml::from_str(text) {
        Ok(head) => head,
        Err(error) => {
            let message = error.to_string();
            let code = if message.contains("unknown field") { "RK0101" } else { "RK0102" };
            let (line, column) = error.location().map_or((1, 1), |at| (at.line() as u32, at.column() as u32));
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            faults.push(TemplateFault { code, path: path.to_owned(), line, column, message, help: None });
            return None;
        }
    };
    if head.rekindle != 1 {
        faults.push(fault_at_start(
            "RK0102",
            path,
            format!("`rekindle: {}` is no format we know; write `rekindle: 1`", head.rekindle),
            None,
        ));
        return None;
    }
    if !PURPOSES.contains(&head.template.purpose.as_str()) {
        let message = format!("`{}` is no purpose; it is one of {}", head.template.purpose, PURPOSES.join(", "));
        let (line, column) = place_of(text, text.find("purpose").unwrap_or(0));
        let help = nearest(&head.template.purpose, PURPOSES.into_iter()).map(|name| format!("did you mean `{name}`?"));
        faults.push(TemplateFault { code: "RK0102", path: path.to_owned(), line, column, message, help });
        return None;
    }
    Some(head.template)
}

fn info_of(
    head: &HeadTemplate,
    variables: &BTreeMap<Name, Variable>,
    translations: &BTreeMap<Name, Translation>,
    head_path: &str,
    faults: &mut Vec<TemplateFault>,
) -> TemplateInfo {
    let mut channels_per_locale = BTreeMap::new();
    for (locale, translation) in translations {
        let has_all = |channel: &Channel| {
            let (parts, required) = Part::of_channel(*channel);
            parts.iter().any(|part| translation.parts.contains_key(part))
                && required.iter().all(|part| translation.parts.contains_key(part))
        };
        let channels: Vec<Channel> = Channel::ALL.into_iter().filter(has_all).collect();
        if !translation.is_faulty && !channels.iter().any(|channel| *channel != Channel::Webhook) {
            let message = format!("translation `{locale}` is complete for no channel");
            let help = "e-mail needs subject and text, push needs push_title and push_body; sms and whatsapp are one file each".to_owned();
            faults.push(fault_at_start("RK0704", head_path, message, Some(help)));
        }
        channels_per_locale.insert(locale.clone(), channels);
    }
    for locale in head.states.keys().filter(|locale| !translations.contains_key(locale.as_str())) {
        let message = format!("`states` names `{locale}`, but there is no such translation");
        faults.push(fault_at_start("RK0704", head_path, message, None));
    }
    let uses = translations.values().flat_map(|t| t.parts.values()).flat_map(|part| &part.uses);
    let roots: BTreeSet<&str> = uses.filter_map(|path| path.first()).map(String::as_str).collect();
    let unreviewed = head.states.iter().filter(|(_, state)| **state != ReviewState::Reviewed);
    TemplateInfo {
        purpose: Name::from(head.purpose.as_str()),
        locales: translations.keys().cloned().collect(),
        unreviewed: unreviewed.map(|(locale, _)| Name::from(locale.as_str())).collect(),
        variables: variables.keys().cloned().collect(),
        required: variables.iter().filter(|(_, v)| !v.optional).map(|(name, _)| name.clone()).collect(),
        has_offer: roots.contains("offer"),
        has_notice: roots.contains("notice"),
        channels_per_locale,
    }
}

fn parse_part(
    path: &str,
    text: &str,
    part: Part,
    variables: &BTreeMap<Name, Variable>,
    faults: &mut Vec<TemplateFault>,
) -> Option<PartSource> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > SOURCE_MAX_BYTES {
        faults.push(fault_at_start("RK0700", path, format!("larger than {} kB", SOURCE_MAX_BYTES / 1024), None));
        return None;
    }
    let found = faults_of(text, variables);
    let sound = found.is_empty();
    faults.extend(found.into_iter().map(|(code, at, message, help)| {
        let (line, column) = place_of(text, at);
        TemplateFault { code, path: path.to_owned(), line, column, message, help }
    }));
    if !sound {
        return None;
    }
    let scan = Scan::of(text);
    let armed = scan.armed(text, part == Part::Html);
    let liquid = match LIQUID.parse(text).and_then(|_| LIQUID.parse(&armed)) {
        Ok(liquid) => liquid,
        Err(error) => {
            let (line, column, message) = syntax_error(&error.to_string());
            let written = text.lines().nth(line as usize - 1).unwrap_or_default();
            let help = (message.contains("expected") && written.contains(" = ")).then(|| "a comparison is written `==`".to_owned());
            faults.push(TemplateFault { code: "RK0700", path: path.to_owned(), line, column, message, help });
            return None;
        }
    };
    let uses: BTreeSet<Vec<String>> = scan.uses.into_iter().map(|used| used.path).collect();
    Some(PartSource { path: Arc::from(path), liquid, uses: uses.into_iter().collect(), source: text.to_owned() })
}

type PlacedFault = (&'static str, usize, String, Option<String>);

/// What is wrong with a Liquid text apart from what the crate's own parser finds.
pub fn faults_of(text: &str, variables: &BTreeMap<Name, Variable>) -> Vec<PlacedFault> {
    let scan = Scan::of(text);
    let mut found: Vec<PlacedFault> = scan.faults.into_iter().map(|fault| ("RK0700", fault.at, fault.message, fault.help)).collect();
    for used in &scan.uses {
        let field = used.path.get(1).map(String::as_str);
        let root = used.path.first().map(String::as_str).unwrap_or_default();
        let undeclared = match root {
            "offer" => field.is_some_and(|field| !OFFER_FIELDS.contains(&field)),
            "notice" => field.is_some_and(|field| !NOTICE_FIELDS.contains(&field)),
            "data" => field.is_some_and(|field| !variables.contains_key(field)),
            "user" | "event" => false,
            name => !variables.contains_key(name),
        };
        if undeclared {
            let name = used.path.join(".");
            let scope: Vec<String> = match root {
                "offer" => OFFER_FIELDS.iter().map(|field| format!("offer.{field}")).collect(),
                "notice" => NOTICE_FIELDS.iter().map(|field| format!("notice.{field}")).collect(),
                _ => variables.keys().map(|name| name.to_string()).chain(ROOTS.map(String::from)).collect(),
            };
            let near = nearest(&name, scope.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
            let help = near.or_else(|| Some(format!("declare it under `variables` in template.yaml; known here: {}", scope.join(", "))));
            found.push(("RK0701", used.at, format!("`{name}` is not declared"), help));
        }
    }
    for (at, name) in single_braces(text, variables) {
        let message = format!("`{{{name}}}` would go out as it stands");
        found.push(("RK0700", at, message, Some(format!("write `{{{{ {name} }}}}`"))));
    }
    let known: Vec<&str> = LIQUID.filters().map(|filter| filter.name()).filter(|name| !name.starts_with("__")).collect();
    for (name, at) in scan.filters {
        if !known.contains(&name.as_str()) {
            let help = nearest(&name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            found.push(("RK0702", at, format!("`{name}` is no filter"), help));
        }
    }
    found.sort_by_key(|(_, at, _, _)| *at);
    found
}

/// Names in single braces: what was meant to be printed would stand in the letter.
fn single_braces(text: &str, variables: &BTreeMap<Name, Variable>) -> Vec<(usize, String)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let named = |(at, _): (usize, &str)| {
        let (before, after) = (text.get(..at)?, text.get(at + 1..)?);
        let inner = after.get(..after.find('}')?)?;
        let name = inner.trim();
        let root = name.split('.').next()?;
        let is_single = !before.ends_with('{') && !after.get(inner.len() + 1..)?.starts_with('}');
        let is_known = (name.contains('.') && ROOTS.contains(&root)) || variables.contains_key(name);
        (is_single && is_known && name.chars().all(is_name)).then(|| (at, name.to_owned()))
    };
    text.match_indices('{').filter_map(named).collect()
}

/// The crate's error text carries the place as ` --> 3:14` and the message after ` = `.
fn syntax_error(text: &str) -> (u32, u32, String) {
    let place = text.split("--> ").nth(1).and_then(|rest| rest.lines().next()).and_then(|place| place.split_once(':'));
    let number = |text: &str| text.trim().parse().unwrap_or(1);
    let (line, column) = place.map_or((1, 1), |(line, column)| (number(line), number(column)));
    let said = text.split("\n  = ").nth(1).or_else(|| text.strip_prefix("liquid: ")).unwrap_or(text);
    let message = said.lines().next().unwrap_or_default().trim().to_owned();
    (line, column, message)
}

/// Line and column (from 1, in characters) of a byte offset.
pub fn place_of(text: &str, at: usize) -> (u32, u32) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line as u32, column as u32)
}

/// The name nearest to `wrong`, if it is within a third of its length.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = wrong.chars().count().div_ceil(3);
    names.map(|name| (distance(wrong, name), name)).filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

/// Levenshtein's distance with swaps of neighbours counted once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut least = (at(&row, j) + usize::from(x != y)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(usize::MAX)
}
