//! Filters besides Liquid's own: `money`, `number`, `date`, `json`, `raw`, and the two hidden ones that end every output.
//!
//! What they need to know of the reader (language, zone, currency) travels in the global [`READER`], which templates cannot name.

use jiff::civil::{Date, DateTime};
use liquid_core::model::{Scalar, ScalarCow, State};
use liquid_core::{
    Display_filter, Error, Expression, Filter, FilterParameters, FilterReflection, FromFilterParameters, ParseFilter, Result, Runtime,
    Value, ValueView,
};

use super::locale::Language;
use crate::engine::money::{Currency, Money};
use crate::engine::time::{Timestamp, Zone};

/// The global that holds `locale`, `zone` and `currency`.
pub const READER: &str = "__reader";
/// Ends every output of a text part: refuses to print what is missing.
pub const PRINTED: &str = "__printed";
/// The same for HTML parts, and escapes.
pub const ESCAPED: &str = "__escaped";

fn reader(runtime: &dyn Runtime, key: &'static str) -> String {
    let path = [ScalarCow::new(READER), ScalarCow::new(key)];
    runtime.try_get(&path).map(|value| value.to_kstr().into_owned().into_string()).unwrap_or_default()
}

fn language(runtime: &dyn Runtime) -> Language {
    Language::of(&reader(runtime, "locale"))
}

fn text_of(input: &dyn ValueView) -> Option<String> {
    input.as_scalar().map(|scalar| scalar.to_kstr().into_owned().into_string())
}

// ------------------------------------------------------------------------------------------------------------ printed, escaped

#[derive(Debug, FilterParameters)]
struct PrintedArgs {
    #[parameter(description = "What is printed, as written.", arg_type = "str")]
    written: Expression,
}

/// `nil` is never printed: an empty greeting is worse than no message.
fn refuse_missing(input: &dyn ValueView, written: &str) -> Result<()> {
    if input.query_state(State::DefaultValue) && input.is_nil() {
        return Err(Error::with_msg(format!("`{written}` is missing for this person; write `{{{{ {written} | default: \"...\" }}}}`")));
    }
    Ok(())
}

#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "__printed", description = "Refuses to print what is missing.", parameters(PrintedArgs), parsed(PrintedFilter))]
pub struct Printed;

#[derive(Debug, FromFilterParameters, Display_filter)]
#[name = "__printed"]
struct PrintedFilter {
    #[parameters]
    args: PrintedArgs,
}

impl Filter for PrintedFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let args = self.args.evaluate(runtime)?;
        refuse_missing(input, &args.written)?;
        Ok(input.to_value())
    }
}

#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "__escaped", description = "The same, escaped for HTML.", parameters(PrintedArgs), parsed(EscapedFilter))]
pub struct Escaped;

#[derive(Debug, FromFilterParameters, Display_filter)]
#[name = "__escaped"]
struct EscapedFilter {
    #[parameters]
    args: PrintedArgs,
}

impl Filter for EscapedFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let args = self.args.evaluate(runtime)?;
        refuse_missing(input, &args.written)?;
        Ok(Value::scalar(escape_html(&input.to_kstr())))
    }
}

/// The five characters that mean something in HTML text and attributes.
pub fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "raw", description = "Prints into HTML as it is, unescaped.", parsed(RawFilter))]
pub struct Raw;

#[derive(Debug, Default, Display_filter)]
#[name = "raw"]
struct RawFilter;

impl Filter for RawFilter {
    fn evaluate(&self, input: &dyn ValueView, _runtime: &dyn Runtime) -> Result<Value> {
        Ok(input.to_value())
    }
}

// --------------------------------------------------------------------------------------------------------------- money, number

#[derive(Debug, FilterParameters)]
struct MoneyArgs {
    #[parameter(description = "Currency of a bare number; the program's by default.", arg_type = "str")]
    currency: Option<Expression>,
}

#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "money", description = "An amount as the reader's language writes it.", parameters(MoneyArgs), parsed(MoneyFilter))]
pub struct MoneyForm;

#[derive(Debug, FromFilterParameters, Display_filter)]
#[name = "money"]
struct MoneyFilter {
    #[parameters]
    args: MoneyArgs,
}

impl Filter for MoneyFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let args = self.args.evaluate(runtime)?;
        if input.is_nil() {
            return Ok(Value::Nil);
        }
        let written = text_of(input).ok_or_else(|| Error::with_msg("`money` needs an amount, not a list or object"))?;
        if let Ok(money) = written.parse::<Money>() {
            return Ok(Value::scalar(language(runtime).money(money)));
        }
        // a share (`10%`, an offer's value) is no money, and reads the same in every language
        if written.ends_with('%') {
            return Ok(Value::scalar(written));
        }
        let code = args.currency.map(|code| code.to_string()).unwrap_or_else(|| reader(runtime, "currency"));
        let currency: Currency = code
            .parse()
            .map_err(|_| Error::with_msg("`money` of a bare number needs a currency: `money: \"EUR\"`, or `currency` in the program"))?;
        let money = written.parse::<f64>().ok().and_then(|major| Money::from_major(major, currency));
        let money = money.ok_or_else(|| Error::with_msg("`money` needs an amount such as `30 USD` or a number"))?;
        Ok(Value::scalar(language(runtime).money(money)))
    }
}

#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "number", description = "A whole number with the groups of the reader's language.", parsed(NumberFilter))]
pub struct NumberForm;

#[derive(Debug, Default, Display_filter)]
#[name = "number"]
struct NumberFilter;

impl Filter for NumberFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        if input.is_nil() {
            return Ok(Value::Nil);
        }
        let number = input.as_scalar().and_then(|scalar| scalar.to_integer());
        let number = number.ok_or_else(|| Error::with_msg("`number` needs a whole number; `round` makes one"))?;
        Ok(Value::scalar(language(runtime).integer(number)))
    }
}

// ------------------------------------------------------------------------------------------------------------------------ date

#[derive(Debug, FilterParameters)]
struct DateArgs {
    #[parameter(description = "long (default), day, weekday, short, time, or a pattern such as `%d %B`.", arg_type = "str")]
    form: Option<Expression>,
}

#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "date", description = "A date in the reader's zone and language.", parameters(DateArgs), parsed(DateFilter))]
pub struct DateForm;

#[derive(Debug, FromFilterParameters, Display_filter)]
#[name = "date"]
struct DateFilter {
    #[parameters]
    args: DateArgs,
}

impl Filter for DateFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let args = self.args.evaluate(runtime)?;
        if input.is_nil() {
            return Ok(Value::Nil);
        }
        let at = text_of(input).and_then(|text| local_time(&text, &reader(runtime, "zone")));
        let at = at.ok_or_else(|| Error::with_msg("`date` needs a date or an instant such as `2026-03-06T09:00:00Z`"))?;
        let language = language(runtime);
        let form = args.form.map(|form| form.to_string()).unwrap_or_default();
        let written = match form.as_str() {
            "" | "long" => language.long_date(at),
            "day" => language.day_month(at),
            "weekday" => format!("{}, {}", language.weekday(at.weekday()), language.long_date(at)),
            "short" => language.short_date(at),
            "time" => language.time(at),
            pattern => by_pattern(pattern, at, language)?,
        };
        Ok(Value::scalar(written))
    }
}

/// A date stands for itself; an instant is read in the reader's zone.
fn local_time(text: &str, zone: &str) -> Option<DateTime> {
    if let Ok(date) = text.parse::<Date>()
        && text.len() == 10
    {
        return Some(date.to_datetime(jiff::civil::Time::midnight()));
    }
    let instant = Timestamp::parse(text)?;
    Some(instant.local(&Zone::named(zone).unwrap_or(Zone::UTC)))
}

/// `strftime` as far as letters need it: `%d %e %m %B %b %A %a %Y %y %H %M %%`.
fn by_pattern(pattern: &str, at: DateTime, language: Language) -> Result<String> {
    let mut written = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            written.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => written.push_str(&format!("{:02}", at.day())),
            Some('e') => written.push_str(&at.day().to_string()),
            Some('m') => written.push_str(&format!("{:02}", at.month())),
            Some('B') => written.push_str(language.month(at)),
            Some('b') => written.extend(language.month(at).chars().take(3)),
            Some('A') => written.push_str(language.weekday(at.weekday())),
            Some('a') => written.extend(language.weekday(at.weekday()).chars().take(3)),
            Some('Y') => written.push_str(&at.year().to_string()),
            Some('y') => written.push_str(&format!("{:02}", at.year().rem_euclid(100))),
            Some('H') => written.push_str(&format!("{:02}", at.hour())),
            Some('M') => written.push_str(&format!("{:02}", at.minute())),
            Some('%') => written.push('%'),
            other => {
                let sign = other.map(String::from).unwrap_or_default();
                return Err(Error::with_msg(format!(
                    "`date` does not know `%{sign}`; use long, day, weekday, short, time, or %d %e %m %B %b %A %a %Y %y %H %M"
                )));
            }
        }
    }
    Ok(written)
}

// ------------------------------------------------------------------------------------------------------------------------ json

#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "json", description = "The value as JSON.", parsed(JsonFilter))]
pub struct Json;

#[derive(Debug, Default, Display_filter)]
#[name = "json"]
struct JsonFilter;

impl Filter for JsonFilter {
    fn evaluate(&self, input: &dyn ValueView, _runtime: &dyn Runtime) -> Result<Value> {
        let written = serde_json::to_string(&as_json(&input.to_value(), 0)).map_err(|e| Error::with_msg(format!("`json`: {e}")))?;
        Ok(Value::scalar(written))
    }
}

/// Deeper than any event we accept: what lies below is cut off rather than followed.
const JSON_DEPTH_MAX: usize = 64;

fn as_json(value: &Value, depth: usize) -> serde_json::Value {
    use serde_json::Value as Json;
    if depth > JSON_DEPTH_MAX {
        return Json::Null;
    }
    match value {
        Value::Nil | Value::State(_) => Json::Null,
        Value::Array(items) => Json::Array(items.iter().map(|item| as_json(item, depth + 1)).collect()),
        Value::Object(fields) => Json::Object(fields.iter().map(|(k, v)| (k.to_string(), as_json(v, depth + 1))).collect()),
        Value::Scalar(scalar) => json_scalar(scalar),
    }
}

fn json_scalar(scalar: &Scalar) -> serde_json::Value {
    let written = scalar.to_kstr();
    match scalar.type_name() {
        "boolean" => serde_json::Value::Bool(scalar.to_bool().unwrap_or_default()),
        "whole number" => scalar.to_integer().map_or(serde_json::Value::Null, Into::into),
        "fractional number" => scalar.to_float().map_or(serde_json::Value::Null, Into::into),
        _ => serde_json::Value::String(written.into_owned().into_string()),
    }
}
