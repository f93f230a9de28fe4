//! Reading values from the tree, typed: a duration, a percentage, one of a list of words. Each reader says what is wrong in the
//! operator's terms and goes on, so that all findings of all files come at once.

use std::cell::RefCell;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time, Weekday};

use crate::engine::action::Channel;
use crate::engine::money::Money;
use crate::engine::profile::{Category, Name};
use crate::engine::rule::Place;
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::language;
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::syntax::{Entry, Node};
use crate::engine::time::{Span, Timestamp, Zone, zone_names};

/// The findings so far.
#[derive(Default)]
pub struct Findings {
    found: RefCell<Vec<Diagnostic>>,
    /// Where the first marketing message stands.
    first_marketing: RefCell<Option<Place>>,
}

impl Findings {
    pub fn add(&self, finding: Diagnostic) {
        self.found.borrow_mut().push(finding);
    }

    pub fn extend(&self, findings: Vec<Diagnostic>) {
        self.found.borrow_mut().extend(findings);
    }

    pub fn note_marketing(&self, place: &Place) {
        self.first_marketing.borrow_mut().get_or_insert_with(|| place.clone());
    }

    pub fn first_marketing(&self) -> Option<Place> {
        self.first_marketing.borrow().clone()
    }

    /// An error at a node, underlined as far as its text goes.
    pub fn error(&self, code: &'static str, node: &Node, message: impl Into<String>, help: impl Into<Option<String>>) {
        let mut finding = Diagnostic::error(code, node.place.clone(), message).len(node.width());
        finding.help = help.into();
        self.add(finding);
    }

    pub fn warning(&self, code: &'static str, node: &Node, message: impl Into<String>, help: impl Into<Option<String>>) {
        let mut finding = Diagnostic::warning(code, node.place.clone(), message).len(node.width());
        finding.help = help.into();
        self.add(finding);
    }

    /// The value has the wrong form.
    pub fn wrong(&self, node: &Node, message: impl Into<String>, help: impl Into<Option<String>>) {
        if !node.is_refused() {
            self.error("RK0102", node, message, help);
        }
    }

    /// Errors so far.
    pub fn errors(&self) -> usize {
        self.found.borrow().iter().filter(|finding| finding.is_error()).count()
    }

    pub fn into_sorted(self) -> Vec<Diagnostic> {
        let mut findings = self.found.into_inner();
        findings.sort_by(|a, b| a.order_key().cmp(&b.order_key()));
        findings.dedup();
        findings
    }

    // -------------------------------------------------------------------------------------------------------------- scalars

    /// Any text; `what` says what it is in a finding: "a text", "a duration like `7d`".
    pub fn text<'n>(&self, node: &'n Node, what: &str) -> Option<&'n str> {
        match node.text() {
            Some(_) if node.is_null() => {
                self.wrong(node, format!("nothing is written here, {what} is expected"), None);
                None
            }
            Some(text) => Some(text),
            None => {
                self.wrong(node, format!("{} stands here, {what} is expected", node.described()), None);
                None
            }
        }
    }

    pub fn bool(&self, node: &Node) -> Option<bool> {
        let scalar = node.scalar();
        match scalar.map(|s| (&*s.text, s.is_plain)) {
            Some(("true", true)) => Some(true),
            Some(("false", true)) => Some(false),
            Some((text @ ("true" | "false"), false)) => {
                self.wrong(node, format!("\"{text}\" in quotes is a text"), format!("write {text} without quotes"));
                None
            }
            _ => {
                self.text(node, "`true` or `false`")
                    .inspect(|text| self.wrong(node, format!("`{text}` is neither `true` nor `false`"), None));
                None
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub fn number(&self, node: &Node, least: i64, most: i64) -> Option<i64> {
        let text = self.text(node, "a whole number")?;
        match text.replace('_', "").parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            Ok(number) if number < least => {
                self.wrong(node, format!("`{number}` is too small, {least} is the least"), None);
                None
            }
            Ok(number) => {
                self.wrong(node, format!("`{number}` is too large, {most} is the most"), None);
                None
            }
            Err(_) => {
                let help =
                    if most < i64::from(i32::MAX) { format!("write one from {least} to {most}") } else { "write digits: `100`".to_owned() };
                self.wrong(node, format!("`{text}` is no whole number"), help);
                None
            }
        }
    }

    /// `5%`, `0.5%`: in basis points, at most 100 %.
    pub fn percent(&self, node: &Node) -> Option<u16> {
        let text = self.text(node, "a percentage like `5%`")?;
        if let Some(basis_points) = parse_percent(text) {
            return Some(basis_points);
        }
        let help = match text.parse::<f64>() {
            Ok(number) if number > 0.0 && number < 1.0 => {
                format!("is {}% meant? a percentage has its sign", (number * 10_000.0).round() / 100.0)
            }
            Ok(_) => format!("write `{text}%`"),
            Err(_) => "write it like `5%` or `0.5%`, at most `100%`".to_owned(),
        };
        self.wrong(node, format!("`{text}` is no percentage"), help);
        None
    }

    /// `7d10h`; not negative.
    pub fn span(&self, node: &Node) -> Option<Span> {
        let text = self.text(node, "a duration like `7d` or `36h`")?;
        match text.parse::<Span>() {
            Ok(span) if span.is_negative() => {
                self.wrong(node, format!("`{text}` is negative"), None);
                None
            }
            Ok(span) => Some(span),
            Err(_) => {
                self.wrong(node, format!("`{text}` is no duration"), duration_help(text));
                None
            }
        }
    }

    /// A duration whose day has exactly 24 hours, in milliseconds: windows, caps, `per`. More than none.
    pub fn exact_ms(&self, node: &Node) -> Option<i64> {
        let ms = self.span(node)?.exact_ms();
        if ms == 0 {
            self.wrong(node, "a window of no length", None);
            return None;
        }
        Some(ms)
    }

    pub fn money(&self, node: &Node) -> Option<Money> {
        let text = self.text(node, "an amount like `30 USD`")?;
        let parsed = Money::from_str(text);
        if parsed.is_err() {
            let help = match text.parse::<f64>() {
                Ok(_) => format!("an amount has its currency: `{text} USD`"),
                Err(_) => "write it like `30 USD` or `4.50 EUR`".to_owned(),
            };
            self.wrong(node, format!("`{text}` is no amount of money"), help);
        }
        parsed.ok()
    }

    /// `09:00`.
    pub fn time(&self, node: &Node) -> Option<Time> {
        let text = self.text(node, "a time like \"09:00\"")?;
        let time = parse_time(text);
        if time.is_none() {
            let help = time_meant(text).map(|meant| format!("write \"{meant}\""));
            let help = help.unwrap_or_else(|| "write it like \"09:00\", from 00:00 to 23:59".to_owned());
            self.wrong(node, format!("`{text}` is no time of day"), help);
        }
        time
    }

    /// `2026-11-06`.
    pub fn date(&self, node: &Node, text: &str) -> Option<Date> {
        let date = text.trim().parse::<Date>().ok();
        if date.is_none() {
            let help = date_meant(text).map_or_else(|| "write it like `2026-11-06`".to_owned(), |meant| format!("write `{meant}`"));
            self.wrong(node, format!("`{}` is no date", text.trim()), help);
        }
        date
    }

    /// A local wall time, or an instant if the text has an offset.
    pub fn moment(&self, node: &Node) -> Option<Moment> {
        let text = self.text(node, "an instant like \"2026-11-06T10:00\"")?;
        if let Some(instant) = Timestamp::parse(text) {
            return Some(Moment::Instant(instant));
        }
        if let Ok(wall) = text.parse::<DateTime>() {
            return Some(Moment::Wall(wall));
        }
        let help = match date_meant(text) {
            Some(meant) => format!("write \"{meant}T00:00\""),
            None => "write it like \"2026-11-06T10:00\", or with an offset: \"2026-11-06T10:00+01:00\"".to_owned(),
        };
        self.wrong(node, format!("`{text}` is no instant"), help);
        None
    }

    /// An IANA zone.
    pub fn zone(&self, node: &Node, code: &'static str) -> Option<Zone> {
        let text = self.text(node, "a time zone like `Europe/London`")?;
        let zone = Zone::named(text);
        if zone.is_none() {
            // people know their city
            let is_city = |zone: &&str| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&text.replace(' ', "_")));
            let meant = zone_names().find(is_city).or_else(|| nearest(text, zone_names()));
            let help = meant.map(|name| format!("did you mean `{name}`?"));
            let help = help.unwrap_or_else(|| "zones have IANA names: `Europe/London`, `Asia/Kolkata`, `UTC`".to_owned());
            self.error(code, node, format!("`{text}` is no time zone"), help);
        }
        zone
    }

    /// `user` (none) or an IANA zone.
    pub fn user_zone(&self, node: &Node) -> Option<Option<Zone>> {
        if node.text() == Some("user") { Some(None) } else { self.zone(node, "RK0302").map(Some) }
    }

    /// A name of small letters, digits and dashes, as ids are.
    pub fn slug(&self, node: &Node, least: usize) -> Option<Name> {
        let text = self.text(node, "a name")?;
        let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
        let length = text.chars().count();
        if plain && (least..=64).contains(&length) {
            return Some(Name::from(text));
        }
        let help = format!("small letters, digits and dashes, {least} to 64 of them{}", slugged(text, least));
        self.wrong(node, format!("`{text}` cannot be an id"), help);
        None
    }

    /// A name as expressions know them: letters, digits, `_`.
    pub fn identifier(&self, entry: &Entry) -> Option<Name> {
        let text = &*entry.key.text;
        let mut chars = text.chars();
        let begins_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if begins_well && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Some(Name::from(text));
        }
        let help = format!("conditions know names of letters, digits and `_`: `{}`", identified(text));
        self.add(
            Diagnostic::error("RK0102", entry.key_place.clone(), format!("`{text}` cannot be a name in conditions"))
                .len(text.chars().count())
                .help(help),
        );
        None
    }

    pub fn name(&self, node: &Node, what: &str) -> Option<Name> {
        self.text(node, what).map(Name::from)
    }

    /// One of a closed list of words.
    pub fn one_of<T: Copy>(&self, node: &Node, words: &[(&str, T)]) -> Option<T> {
        let listed = || words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let text = self.text(node, &format!("one of {}", listed()))?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let help = nearest(text, words.iter().map(|(word, _)| *word)).map(|word| format!("did you mean `{word}`?"));
        self.wrong(node, format!("`{text}` is not one of {}", listed()), help);
        None
    }

    // ---------------------------------------------------------------------------------------------------------------- lists

    pub fn list<'n>(&self, node: &'n Node, example: &str) -> &'n [Node] {
        if let Some(items) = node.items() {
            return items;
        }
        let first = node.entries().and_then(<[Entry]>::first);
        let help = match (node.text(), first) {
            (Some(text), _) if !node.is_null() => format!("write a list: `[{text}]`"),
            // a name for each item, where the name is one of its keys
            (None, Some(first)) if first.value.entries().is_some() => {
                format!("write a list: `- id: {}` and below it its keys", first.key.text)
            }
            (None, Some(first)) => {
                format!("each item of a list begins with a dash: `- {}: {}`", first.key.text, first.value.text().unwrap_or("..."))
            }
            _ => format!("write a list: `{example}`"),
        };
        self.wrong(node, format!("{} stands here, a list is expected", node.described()), help);
        &[]
    }

    pub fn list_of<T>(&self, node: &Node, example: &str, read: impl Fn(&Node) -> Option<T>) -> Vec<T> {
        self.list(node, example).iter().filter_map(read).collect()
    }

    pub fn names(&self, node: &Node, example: &str) -> Vec<Name> {
        self.list_of(node, example, |item| self.name(item, "a name"))
    }

    pub fn channels(&self, node: &Node) -> Vec<Channel> {
        self.list_of(node, "[push, email]", |item| self.one_of(item, &Channel::ALL.map(|c| (c.name(), c))))
    }

    pub fn category(&self, node: &Node) -> Option<Category> {
        self.one_of(node, &Category::ALL.map(|c| (c.name(), c)))
    }

    pub fn categories(&self, node: &Node) -> Vec<Category> {
        self.list_of(node, "[marketing]", |item| self.category(item))
    }

    /// `[mon, thu]`, ranges allowed: `[mon..fri]`.
    pub fn weekdays(&self, node: &Node) -> Vec<Weekday> {
        let mut days = Vec::new();
        for item in self.list(node, "[mon, thu]") {
            let Some(text) = item.text() else {
                self.text(item, "a weekday like `mon`");
                continue;
            };
            let (from, to) = text.split_once("..").unwrap_or((text, text));
            match (parse_weekday(from.trim()), parse_weekday(to.trim())) {
                (Some(first), Some(last)) => {
                    let mut day = first;
                    days.push(day);
                    while day != last {
                        day = day.next();
                        days.push(day);
                    }
                }
                _ => {
                    let short =
                        |text: &str| WEEKDAYS.map(|(word, _)| word).into_iter().find(|word| text.trim().to_lowercase().starts_with(word));
                    let help = match (short(from), short(to)) {
                        (Some(first), Some(last)) if first == last => format!("write `{first}`"),
                        (Some(first), Some(last)) => format!("write `{first}..{last}`"),
                        _ => "write `mon`, `tue` ... `sun`, or `mon..fri`".to_owned(),
                    };
                    self.wrong(item, format!("`{text}` is no weekday"), help);
                }
            }
        }
        days.sort_by_key(|day| day.to_monday_zero_offset());
        days.dedup();
        days
    }

    /// `1 per 7d`: the two texts around `per`.
    pub fn per<'n>(&self, node: &'n Node, example: &str) -> Option<(&'n str, &'n str)> {
        let text = self.text(node, &format!("something like `{example}`"))?;
        let parts = text.split_once(" per ").map(|(a, b)| (a.trim(), b.trim()));
        if parts.is_none() {
            self.wrong(node, format!("`{text}` says no `per`"), format!("write it like `{example}`"));
        }
        parts
    }

    /// The duration after `per`, with exact days.
    pub fn per_span(&self, node: &Node, text: &str) -> Option<i64> {
        let ms = text.parse::<Span>().ok().filter(|span| !span.is_negative()).map(Span::exact_ms).filter(|ms| *ms > 0);
        if ms.is_none() {
            self.wrong(node, format!("`{text}` is no duration"), duration_help(text));
        }
        ms
    }
}

/// What an instant in a file is.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    Instant(Timestamp),
    /// A wall time, in a zone said elsewhere.
    Wall(DateTime),
}

pub fn parse_percent(text: &str) -> Option<u16> {
    let number = text.strip_suffix('%')?.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 2 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let basis_points: u32 = format!("{whole}{fraction:0<2}").parse().ok()?;
    u16::try_from(basis_points).ok().filter(|bp| *bp <= 10_000)
}

pub fn parse_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    let digits = |s: &str| (1..=2).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(hour) || minute.len() != 2 || !digits(minute) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

/// The time of day that was probably meant: `10`, `10am`, `9.30`, `9h30`.
pub fn time_meant(text: &str) -> Option<String> {
    let lower = text.trim().to_lowercase();
    let (digits, noon) = match lower.strip_suffix("pm") {
        Some(rest) => (rest, 12),
        None => (lower.strip_suffix("am").unwrap_or(&lower), 0),
    };
    let (hour, minute) = digits.trim().split_once([':', '.', 'h']).unwrap_or((digits.trim(), "00"));
    let minute = if minute.is_empty() { "00" } else { minute };
    let hour = hour.trim().parse::<u8>().ok().map(|hour| if noon > 0 && hour < 12 { hour + noon } else { hour })?;
    let meant = format!("{hour:02}:{minute:0>2}");
    parse_time(&meant).map(|_| meant)
}

/// The date that was probably meant: `24.12.2026`, `24/12/2026`; none where day and month cannot be told apart.
fn date_meant(text: &str) -> Option<Date> {
    let parts: Vec<&str> = text.trim().split(['.', '/', '-']).collect();
    let [first, second, year] = parts.as_slice() else { return None };
    let (first, second, year): (i8, i8, i16) = (first.parse().ok()?, second.parse().ok()?, year.parse().ok()?);
    let (day, month) = match (text.contains('.'), first > 12, second > 12) {
        (true, ..) | (false, true, false) => (first, second),
        (false, false, true) => (second, first),
        _ => return None,
    };
    Date::new(year, month, day).ok()
}

fn parse_weekday(text: &str) -> Option<Weekday> {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    let day = match text {
        "mon" => Monday,
        "tue" => Tuesday,
        "wed" => Wednesday,
        "thu" => Thursday,
        "fri" => Friday,
        "sat" => Saturday,
        "sun" => Sunday,
        _ => return None,
    };
    Some(day)
}

pub const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// The duration that was probably meant.
fn duration_help(text: &str) -> String {
    let compact: String = text.to_ascii_lowercase().split_whitespace().collect();
    if !compact.is_empty() && compact.bytes().all(|b| b.is_ascii_digit()) {
        return format!("a duration has its unit: `{compact}d` are days, `{compact}h` hours");
    }
    let digits = compact.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
    let (number, unit) = compact.split_at(digits);
    let short = match unit {
        "day" | "days" | "d" => "d",
        "hour" | "hours" | "hr" | "hrs" | "h" => "h",
        "minute" | "minutes" | "min" | "mins" | "m" => "m",
        "week" | "weeks" | "w" => "w",
        "month" | "months" => "mo",
        "second" | "seconds" | "sec" => "s",
        _ => return "write it like `90m`, `36h`, `7d` or `7d10h`".to_owned(),
    };
    let meant = format!("{number}{short}");
    if meant.parse::<Span>().is_err() {
        return "that is longer than any calendar reaches".to_owned();
    }
    format!("write `{meant}`")
}

fn slugged(text: &str, least: usize) -> String {
    let slug: String = text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug = slug.trim_matches('-');
    if slug.len() < least || slug.len() > 64 || slug.contains("--") { String::new() } else { format!(": `{slug}`") }
}

fn identified(text: &str) -> String {
    let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// The keys of a mapping, read one by one; what nobody asked for is unknown.
pub struct Fields<'n, 'f> {
    pub node: &'n Node,
    entries: &'n [Entry],
    findings: &'f Findings,
    known: Vec<&'static str>,
    /// Keys that stand in no file.
    made: Vec<&'static str>,
    /// Keys that must be there and are not: said at the end, unless a misspelt key explains it.
    missing: Vec<(&'static str, Diagnostic)>,
    /// "a rule", "a step".
    what: &'static str,
}

impl<'n, 'f> Fields<'n, 'f> {
    pub fn of(node: &'n Node, what: &'static str, findings: &'f Findings) -> Option<Self> {
        match node.entries() {
            Some(entries) => Some(Fields { node, entries, findings, known: Vec::new(), made: Vec::new(), missing: Vec::new(), what }),
            None => {
                let keys = language::shape(what).map(|shape| {
                    let required = shape.keys.iter().filter(|key| key.is_required).map(|key| key.name);
                    let shown: Vec<&str> =
                        if required.clone().next().is_some() { required.collect() } else { shape.names().take(1).collect() };
                    format!("write `{{ {}: ... }}`", shown.join(": ..., "))
                });
                findings.wrong(node, format!("{} stands here, {what} is a mapping of keys", node.described()), keys);
                None
            }
        }
    }

    /// The value of a key; an empty one is a finding.
    pub fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        let entry = self.entry(key)?;
        if entry.value.is_null() {
            let message = format!("`{key}` has no value");
            let finding = Diagnostic::error("RK0102", entry.key_place.clone(), message).len(key.chars().count());
            self.findings.add(finding.help("write one, or remove the key"));
            return None;
        }
        (!entry.value.is_refused()).then_some(&entry.value)
    }

    /// The entry, whatever its value.
    pub fn entry(&mut self, key: &'static str) -> Option<&'n Entry> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries.iter().find(|e| &*e.key.text == key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| &*e.key.text == key)
    }

    /// The value of a key that no file can hold, put there as the files were read.
    pub fn made(&mut self, key: &'static str) -> Option<&'n Node> {
        self.made.push(key);
        self.entries.iter().find(|e| &*e.key.text == key).map(|e| &e.value)
    }

    /// A key that must be there; `help` is a line to paste.
    pub fn required(&mut self, key: &'static str, code: &'static str, help: &str) -> Option<&'n Node> {
        if !self.has(key) {
            self.known.push(key);
            let message = format!("{} needs `{key}`", self.what);
            let finding = Diagnostic::error(code, self.node.place.clone(), message).len(self.first_width()).help(help);
            self.missing.push((key, finding));
            return None;
        }
        self.get(key)
    }

    /// A key of the language that this version does not carry out.
    pub fn not_yet(&mut self, key: &'static str) -> bool {
        let Some(entry) = self.entry(key) else { return false };
        self.findings.add(not_yet(entry.key_place.clone(), key));
        true
    }

    /// Reads a value if the key is there.
    pub fn read<T>(&mut self, key: &'static str, read: impl FnOnce(&'n Node) -> Option<T>) -> Option<T> {
        self.get(key).and_then(read)
    }

    /// Whether a key that is none looks like one of these: then a misspelling explains that none of them is there.
    pub fn has_like(&self, keys: &[&str]) -> bool {
        self.entries.iter().any(|entry| nearest(&entry.key.text, keys.iter().copied()).is_some())
    }

    /// Says which keys are unknown, and which are missing.
    pub fn finish(self) {
        // what is read here and stands not in the table would be unknown to editors
        debug_assert!(
            language::shape(self.what).is_some_and(|shape| self.known.iter().all(|key| shape.names().any(|name| name == *key))),
            "engine/rule/language.rs does not describe all of {:?} in {}",
            self.known,
            self.what
        );
        let mut explained = Vec::new();
        for entry in self.entries {
            let key = &*entry.key.text;
            if self.known.contains(&key) || self.made.contains(&key) {
                continue;
            }
            let message = format!("unknown key `{key}` in {}", self.what);
            let mut finding = Diagnostic::error("RK0101", entry.key_place.clone(), message).len(key.chars().count());
            finding.help = match nearest(key, self.known.iter().copied()) {
                Some(name) => {
                    explained.push(name);
                    Some(format!("did you mean `{name}`?"))
                }
                None => Some(format!("{} knows {}", self.what, self.known.join(", "))),
            };
            self.findings.add(finding);
        }
        for (key, finding) in self.missing {
            if !explained.contains(&key) {
                self.findings.add(finding);
            }
        }
    }

    fn first_width(&self) -> usize {
        self.entries.first().filter(|e| e.key_place == self.node.place).map_or(1, |e| e.key.text.chars().count())
    }
}

/// The finding for what the language has and this version does not carry out.
pub fn not_yet(place: Place, key: &str) -> Diagnostic {
    let width = key.chars().take_while(|c| !c.is_whitespace()).count();
    Diagnostic::error("RK0199", place, format!("`{key}` is not yet available in this version"))
        .len(width)
        .help("the language has it, this version does not carry it out; leave it away for now")
}

/// An unknown name, with the nearest of those that exist.
pub fn unknown<'a>(findings: &Findings, code: &'static str, node: &Node, what: &str, names: impl IntoIterator<Item = &'a str>) {
    let text = node.text().unwrap_or_default();
    let names: Vec<&str> = names.into_iter().collect();
    let help = match nearest(text, names.iter().copied()) {
        Some(name) => Some(format!("did you mean `{name}`?")),
        None if names.is_empty() => Some(format!("no {what} is declared")),
        None if names.len() == 1 => Some(format!("there is only `{}`", names.concat())),
        None if names.len() <= 8 => Some(format!("there are {}", names.join(", "))),
        None => None,
    };
    findings.error(code, node, format!("unknown {what} `{text}`"), help);
}
