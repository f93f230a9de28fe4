//! `rekindle provider`: try the file that describes an HTTP provider, without sending anything.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::ExitCode;
use crate::channel::Outgoing;
use crate::channel::http::body::Values;
use crate::channel::http::provider::{Auth, Description, shipped};
use crate::channel::http::{self, Body, Request};
use crate::clock::{Clock as _, SystemClock};
use crate::engine::action::{Channel, MessageId};
use crate::engine::profile::Category;
use crate::engine::rule::{ChannelPolicy, Place, Sender};
use crate::engine::time::Timestamp;
use crate::feedback;
use crate::links::Links;
use crate::message::Content;
use crate::settings::Secret;

/// Try the file that describes an HTTP provider: what would be sent, and how its callbacks are read
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle provider check sendgrid\n  $ rekindle provider check config/own.yaml")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(Check),
}

/// Show the request that a made-up message becomes, and how the provider's callbacks are signed and read
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  $ rekindle provider check sendgrid\n  $ rekindle provider check config/own.yaml --sample callback.json\n  $ rekindle provider check twilio --sample body.txt --query 'rekindle_message=0190...'"
)]
pub struct Check {
    /// A shipped file by its name (sendgrid, mailgun, postmark, resend, twilio, whatsapp-cloud, sms-gateway), or a path
    file: String,
    /// A callback's body as the provider sends it: shows what each of its events would mean
    #[arg(long)]
    sample: Option<PathBuf>,
    /// What stood behind the `?` of the address that was called: some providers carry the message's id there
    #[arg(long, requires = "sample", default_value = "")]
    query: String,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Check(check) = args.command;
    let text = match shipped().into_iter().find(|(name, _)| *name == check.file) {
        Some((_, text)) => text.to_owned(),
        None => std::fs::read_to_string(Path::new(&check.file)).with_context(|| format!("cannot read `{}`", check.file))?,
    };
    let description = match Description::read(&check.file, &text) {
        Ok(description) => description,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::Finding);
        }
    };
    match &check.sample {
        None => print!("{}", shown(&check.file, &description)?),
        Some(sample) => print!("{}", callback_as_text(&description, sample, &check.query)?),
    }
    Ok(ExitCode::Fine)
}

/// How a callback would be read.
fn callback_as_text(description: &Description, sample: &Path, query: &str) -> anyhow::Result<String> {
    let Some(callback) = &description.callback else { bail!("the file does not say how callbacks are read") };
    let body = std::fs::read(sample).with_context(|| format!("cannot read `{}`", sample.display()))?;
    let reading = feedback::callback::read(callback, query.trim_start_matches('?'), &body, SystemClock.now())?;
    let mut text = String::new();
    for report in &reading.reports {
        let message = report.message.map_or_else(|| "a message that is not named".to_owned(), |id| id.to_string());
        let detail = report.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
        writeln!(text, "{:<12} {message} at {}{detail}", report.said.name(), report.at)?;
    }
    writeln!(text, "{} understood, {} that fit no line of `outcomes`", reading.reports.len(), reading.unknown)?;
    Ok(text)
}

/// All that there is to see.
fn shown(file: &str, description: &Description) -> anyhow::Result<String> {
    let mut text = String::new();
    let name = Path::new(file).file_stem().map_or_else(|| file.to_owned(), |stem| stem.to_string_lossy().into_owned());
    writeln!(text, "{}, for {}", description.name, description.channels.join(" and "))?;
    writeln!(text, "\nThe administrator's file says:\n\n  providers:\n    {name}:\n      kind: http\n      file: {file}")?;
    for (key, setting) in &description.settings {
        let value = match (&setting.default, setting.secret) {
            (Some(default), _) => format!("\"{default}\""),
            (None, true) => "env:NAME".to_owned(),
            (None, false) => "...".to_owned(),
        };
        let optional = if setting.default.is_some() || setting.optional { " (need not be set)" } else { "" };
        writeln!(text, "      {key}: {value}   # {}{optional}", setting.about)?;
    }
    if description.callback.is_some() {
        writeln!(text, "      callback_token: env:NAME   # the secret part of the callback's address")?;
        writeln!(text, "      callback_secret: env:NAME   # what proves its callbacks")?;
    }
    for channel in description.channels() {
        writeln!(text, "\nA message by {channel} becomes:\n\n{}", request_as_text(&sample_request(&name, description, channel)?))?;
    }
    if let Some(callback) = &description.callback {
        writeln!(text, "Callbacks come to https://YOUR-ADDRESS/callbacks/{name}/TOKEN, signed by {:?}, and mean:\n", callback.signature)?;
        for meaning in &callback.outcomes {
            let when: Vec<String> = meaning.when.iter().map(|(at, words)| format!("{at} is {}", words.0.join(" or "))).collect();
            let when = if when.is_empty() { "anything else".to_owned() } else { when.join(" and ") };
            writeln!(text, "  {:<12} {when}", meaning.is.name())?;
        }
    }
    Ok(text)
}

/// The request of a made-up message, with the names of settings in place of their values.
fn sample_request(name: &str, description: &Description, channel: Channel) -> anyhow::Result<Request> {
    let value = |key: &String| match description.settings.get(key).and_then(|setting| setting.default.clone()) {
        Some(default) => default,
        None if key.contains("url") => format!("https://{name}.example/"),
        None => format!("<{key}>"),
    };
    let settings: BTreeMap<String, Secret> = description.settings.keys().map(|key| (key.clone(), Secret::given(&value(key)))).collect();
    let links = Links::new("https://rekindle.shop.example".parse()?, &[Secret::given("only a sample's key")])?;
    let content = Content {
        locale: "en".into(),
        subject: Some("Ten pounds are waiting for you".into()),
        text: Some("Hello Ana, ...".into()),
        html: Some("<p>Hello Ana, ...</p>".into()),
        push_title: Some("Ten pounds are waiting".into()),
        push_body: Some("Until Sunday".into()),
        sms: Some("Hello Ana, ten pounds are waiting for you until Sunday.".into()),
        whatsapp: Some("Ana\nSunday".into()),
    };
    let policy = ChannelPolicy {
        provider: name.into(),
        place: Place { file: "policy.yaml".into(), line: 1, column: 1 },
        timeout_ms: None,
        retries: None,
        rate: None,
        warm_up: None,
        templates_only: true,
        sender: Some(Sender {
            from: "The shop <news@shop.example>".into(),
            reply_to: Some("care@shop.example".into()),
            postal_address: Some("1 High Street, London".into()),
            list_id: Some("news.shop.example".into()),
        }),
        cost_micros: None,
    };
    let outgoing = Outgoing {
        message: MessageId(0x019c_b2d3_4e5f_7000_8000_0000_0000_0001),
        attempt: 1,
        kind: channel,
        category: Category::Marketing,
        policy: Some(&policy),
        at: Timestamp::parse("2026-03-05T09:00:00Z").context("a sample's instant")?,
        profile: "user-1",
        address: if channel == Channel::Email { "ana@post.example" } else { "+441632960001" },
        rule: "win-back",
        template: "win-back",
        content: &content,
    };
    let callback_url = format!("https://rekindle.shop.example/callbacks/{name}/TOKEN");
    let values = Values::of(&outgoing, &settings, Some(&links), Some(&callback_url))?;
    match http::request(&description.send, &values) {
        Ok(request) => Ok(request),
        Err(why) => bail!("a message by {channel} cannot be sent by it: {why}"),
    }
}

fn request_as_text(request: &Request) -> String {
    let mut lines = vec![format!("  {} {}", request.method, request.url)];
    match &request.auth {
        Some(Auth::Bearer(token)) => lines.push(format!("  Authorization: Bearer {token}")),
        Some(Auth::Basic { user, password }) => lines.push(format!("  Authorization: Basic {user}:{password} (as base64)")),
        None => {}
    }
    lines.extend(request.headers.iter().map(|(name, value)| format!("  {name}: {value}")));
    lines.push(String::new());
    match &request.body {
        Body::Json(json) => lines.extend(format!("{json:#}").lines().map(|line| format!("  {line}"))),
        Body::Form(fields) => lines.extend(fields.iter().map(|(key, value)| format!("  {key} = {}", value.replace('\n', "\n    ")))),
    }
    lines.push(String::new());
    lines.join("\n")
}
