//! `rekindle new`: a rule with its test and its template, from a handful of answers.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};

use super::ExitCode;
use crate::engine::action::Channel;
use crate::engine::rule::check::engine_events;
use crate::engine::rule::expr::ValueType;
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::{EventType, RuleSet};
use crate::engine::time::Span;
use crate::message::Part;
use crate::rulebook::Rulebook;
use crate::rulebook::rule_tests::run_tests;

/// Write a rule with its test and its template, from a handful of answers, and try it
///
/// What is not said by an option is asked. Nothing that exists is overwritten, and nothing goes live but by the files that you find
/// afterwards: read them, change them, `rekindle test` them.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  $ rekindle new\n  $ rekindle new quiet-45d --kind silence --after 45d --channel email --owner crm\n  $ rekindle new thanks --kind event --event order_completed --after 2h --channel email --owner crm"
)]
pub struct Args {
    /// The rule's id: small letters, digits, dashes
    pub id: Option<String>,
    /// When it starts
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,
    /// The event, as rules call it, for `--kind event`
    #[arg(long, value_name = "NAME")]
    pub event: Option<String>,
    /// After how long: `30d`, `2h`
    #[arg(long, value_name = "DURATION")]
    pub after: Option<String>,
    /// By which channel: email, push, sms, whatsapp
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// The template; one that does not exist is begun [default: the rule's id]
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Who answers for the rule
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// The rules directory
    #[arg(long, value_name = "DIR", default_value = "rules")]
    pub rules: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Somebody was not there for so long.
    Silence,
    /// Something happened so long ago.
    Event,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(&args.rules)?;
    let Some(set) = book.set() else {
        bail!("the rules have errors already; mend them first: `rekindle check {}`", args.rules.display());
    };
    let plan = Plan::of(&args, &set)?;
    let has_template = book.templates().get(&plan.template).is_some();
    let files = plan.files(&set, has_template)?;
    for (path, text) in &files {
        let path = args.rules.join(path);
        if path.exists() {
            bail!("`{}` exists already; nothing was written", path.display());
        }
        debug_assert!(text.ends_with('\n'));
    }
    for (path, text) in &files {
        write(&args.rules.join(path), text)?;
    }
    try_out(&args.rules, &plan.id)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Checks what was written, and runs its test.
fn try_out(dir: &Path, id: &str) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(dir)?;
    let root = dir.display().to_string();
    for finding in book.diagnostics() {
        println!("\n{}", finding.render(book.sources(), &root));
    }
    let outcome = run_tests(&book, Some(id));
    // other tests may have the id in their names
    let own = format!("{id}.test.yaml");
    for test in outcome.tests.iter().filter(|test| test.file == own) {
        let word = if test.failures.is_empty() { "ok  " } else { "FAIL" };
        println!("{word} {}", test.name);
        test.failures.iter().for_each(|failure| println!("\n{}\n", failure.render(book.sources(), &root)));
    }
    Ok(if outcome.is_fine() && !outcome.tests.is_empty() { ExitCode::Fine } else { ExitCode::Finding })
}

// ------------------------------------------------------------------------------------------------------------------ the answers

struct Plan {
    id: String,
    kind: Kind,
    event: String,
    after: Span,
    channel: Channel,
    template: String,
    owner: String,
}

impl Plan {
    fn of(args: &Args, set: &RuleSet) -> anyhow::Result<Plan> {
        let id = answer(args.id.as_deref(), "ID", "What is the rule called (small letters, digits, dashes)?", |text| {
            let is_slug = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') && (3..=64).contains(&text.len());
            match set.rule(text) {
                Some(_) => Err(format!("there is a rule `{text}` already")),
                None if is_slug => Ok(text.to_owned()),
                None => Err(format!("`{text}` is no id: small letters, digits and dashes, 3 to 64 of them")),
            }
        })?;
        let kind = match args.kind {
            Some(kind) => kind,
            None => answer(None, "--kind", "Does it start with a silence, or with an event (silence, event)?", |text| {
                Kind::from_str(text, true).map_err(|_| format!("`{text}` is neither silence nor event"))
            })?,
        };
        let event = match kind {
            Kind::Silence => String::new(),
            Kind::Event => answer(args.event.as_deref(), "--event", "Which event?", |text| known_event(set, text))?,
        };
        let question = match kind {
            Kind::Silence => "After how long a silence (30d)?",
            Kind::Event => "How long after it (2h)?",
        };
        let after = answer(args.after.as_deref(), "--after", question, |text| duration(text, kind))?;
        let channel = answer(args.channel.as_deref(), "--channel", "By which channel (email, push, sms, whatsapp)?", |text| {
            Channel::named(text).ok_or_else(|| format!("`{text}` is no channel; there are email, push, sms, whatsapp, inapp"))
        })?;
        let owner = answer(args.owner.as_deref(), "--owner", "Who answers for it?", |text| Ok(text.to_owned()))?;
        let template = args.template.clone().unwrap_or_else(|| id.clone());
        Ok(Plan { id, kind, event, after, channel, template, owner })
    }
}

fn known_event(set: &RuleSet, text: &str) -> Result<String, String> {
    let names = || set.dictionary.events.keys().map(|name| &**name).filter(|name| !engine_events::is_own(name));
    if engine_events::is_own(text) {
        // a test cannot let it happen from outside
        return Err(format!(
            "`{text}` is an event of the engine's own; begin with one of the shop's ({})",
            names().collect::<Vec<_>>().join(", ")
        ));
    }
    if set.dictionary.events.contains_key(text) {
        return Ok(text.to_owned());
    }
    let near = nearest(text, names()).map(|near| format!("; did you mean `{near}`?"));
    Err(format!("no event `{text}` is declared{}", near.unwrap_or_default()))
}

/// Silences are counted in whole days.
fn duration(text: &str, kind: Kind) -> Result<Span, String> {
    let span = text.parse::<Span>().ok().filter(|span| !span.is_negative()).ok_or_else(|| format!("`{text}` is no duration like `30d`"))?;
    let is_whole_days = span == Span::days(span.days) && span.days > 0;
    if kind == Kind::Silence && !is_whole_days {
        return Err(format!("a silence is counted in days: `{text}` is not `30d` or the like"));
    }
    Ok(span)
}

/// What an option says, or else what somebody at the terminal answers.
fn answer<T>(given: Option<&str>, option: &str, question: &str, read: impl Fn(&str) -> Result<T, String>) -> anyhow::Result<T> {
    if let Some(text) = given {
        return read(text).map_err(anyhow::Error::msg);
    }
    if !std::io::stdin().is_terminal() {
        bail!("`{option}` is not said, and there is nobody to ask");
    }
    loop {
        print!("{question} ");
        std::io::stdout().flush().context("the terminal is gone")?;
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line).context("the terminal is gone")? == 0 {
            bail!("nothing was written");
        }
        match read(line.trim()) {
            Ok(value) => return Ok(value),
            Err(because) => println!("{because}"),
        }
    }
}

// -------------------------------------------------------------------------------------------------------------------- the files

impl Plan {
    /// Paths within the rules directory, and what stands in them.
    fn files(&self, set: &RuleSet, has_template: bool) -> anyhow::Result<Vec<(String, String)>> {
        let mut files = vec![(format!("{}.yaml", self.id), self.rule()), (format!("{}.test.yaml", self.id), self.test(set)?)];
        if !has_template {
            let folder = format!("templates/{}", self.template);
            files.push((format!("{folder}/template.yaml"), TEMPLATE.to_owned()));
            let (_, parts) = Part::of_channel(self.channel);
            files.extend(parts.iter().map(|part| (format!("{folder}/en/{}.liquid", part.name()), text_of(*part).to_owned())));
        }
        Ok(files)
    }

    fn rule(&self) -> String {
        let (id, owner, after, channel, template) = (&self.id, &self.owner, self.after, self.channel, &self.template);
        let owner = quoted(owner);
        let head = format!("rekindle: 1\nrules:\n  - id: {id}\n");
        let send = format!("send: {{ template: {template}, channels: [{channel}], category: marketing }}\n");
        match self.kind {
            Kind::Silence => {
                let days = after.days;
                format!(
                    "{head}    name: {days} days silent, a message by {channel}\n    owner: {owner}\n    audience: reachable\n    \
                     when: days_silent >= {days}\n    existing: skip                            # who is silent already is left alone\n    \
                     reentry: {{ after: 90d }}\n    steps:\n      - id: tell\n        {send}"
                )
            }
            Kind::Event => {
                let event = &self.event;
                format!(
                    "{head}    name: {after} after {event}, a message by {channel}\n    owner: {owner}\n    audience: reachable\n    \
                     event: {event}\n    reentry: {{ after: 30d }}\n    steps:\n      - id: tell\n        after: {after}\n        {send}"
                )
            }
        }
    }

    /// Whom the rule writes to, and whom it leaves alone. Four days are left for quiet hours, caps and Sundays of the policy.
    fn test(&self, set: &RuleSet) -> anyhow::Result<String> {
        let (id, channel, template) = (&self.id, self.channel, &self.template);
        let sent = format!("sent: [{{ {template}: {channel} }}]");
        let head = |name: &str, last_active: &str| {
            format!(
                "  - name: {name}\n    rules: [{id}]\n    start: \"2026-03-05T09:00:00Z\"\n    given:\n      user: {{ first_seen_at: -400d, \
                 last_active_at: {last_active}, consent: {{ marketing: [{channel}] }} }}\n    timeline:\n"
            )
        };
        let written = match self.kind {
            Kind::Silence => {
                let days = self.after.days;
                let last_active = format!("-{}d", days - 1);
                let back = set.dictionary.events.values().find(|event| event.active);
                let back = back.context("no event of the shop is `active`, so nobody ever counts as silent; declare one in `events`")?;
                format!(
                    "{}      - {{ at: +23h, expect: {{ when: false, sent: [] }} }}\n      - {{ at: +5d, expect: {{ {sent} }} }}\n{}      \
                     - {{ at: +12h, event: {} }}\n      - {{ at: +5d, expect: {{ sent: [] }} }}\n",
                    head(&format!("written to after {days} silent days"), &last_active),
                    head("left alone who comes back in time", &last_active),
                    happening(back)
                )
            }
            Kind::Event => {
                let event = set.dictionary.events.get(self.event.as_str()).context("the event is declared")?;
                let later = Span { days: self.after.days + 4, ..self.after };
                format!(
                    "{}      - {{ at: +0h, event: {} }}\n      - {{ at: +{later}, expect: {{ {sent} }} }}\n{}      - {{ at: +{later}, expect: {{ sent: \
                     [] }} }}\n",
                    head(&format!("written to {} after it", self.after), "-1d"),
                    happening(event),
                    head("left alone to whom nothing happened", "-1d")
                )
            }
        };
        Ok(format!("rekindle: 1\ntests:\n{written}"))
    }
}

/// The event with what it must have.
fn happening(event: &EventType) -> String {
    let required = event.properties.iter().filter(|(_, property)| property.required);
    let said: Vec<String> = required.map(|(name, property)| format!("{name}: {}", sample(&property.value_type))).collect();
    if said.is_empty() {
        return format!("{{ name: {} }}", event.name);
    }
    format!("{{ name: {}, properties: {{ {} }} }}", event.name, said.join(", "))
}

fn sample(value_type: &ValueType) -> String {
    match value_type {
        ValueType::Bool => "true".to_owned(),
        ValueType::Int | ValueType::Float | ValueType::Duration | ValueType::Money => "100".to_owned(),
        ValueType::Text => "a1".to_owned(),
        ValueType::Enum(values) => values.first().map_or_else(|| "a1".to_owned(), |first| quoted(first)),
        ValueType::Date => "\"2026-03-05\"".to_owned(),
        ValueType::Instant => "\"2026-03-05T09:00:00Z\"".to_owned(),
        ValueType::List => "[a1]".to_owned(),
    }
}

/// A text that YAML takes for one.
fn quoted(text: &str) -> String {
    let is_plain =
        text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_')) && text.chars().next().is_some_and(char::is_alphabetic);
    if is_plain { text.to_owned() } else { format!("{text:?}") }
}

const TEMPLATE: &str =
    "rekindle: 1\ntemplate:\n  purpose: marketing\n  states: { en: draft }                       # `reviewed` when somebody has read it\n";

fn text_of(part: Part) -> &'static str {
    match part {
        Part::Subject => "We have something for you\n",
        Part::PushTitle => "Good to have you\n",
        Part::Text | Part::Html | Part::PushBody | Part::Sms | Part::Whatsapp => "Write here what you want to say.\n",
    }
}
