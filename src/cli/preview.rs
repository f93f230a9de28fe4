//! `rekindle preview`: every template as people will see it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Parser;

use super::ExitCode;
use crate::message::Rendered;
use crate::message::filters::escape_html;
use crate::message::sms;
use crate::rulebook::Rulebook;

/// What a browser is called.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// A push message may be that large in all.
const PUSH_BYTES_MAX: usize = 4096;

/// See the templates as people will: each with its samples, in every language, on one page
///
/// Nothing is sent and nobody's data is needed: the values are those of `samples` in template.yaml, and stand-ins for the rest.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  $ rekindle preview\n  $ rekindle preview win-back --locale de\n  $ rekindle preview --picture --out letters"
)]
pub struct Args {
    /// Only this template
    #[arg(value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// The rules directory
    #[arg(long, value_name = "DIR", default_value = "rules")]
    pub rules: PathBuf,
    /// Only this language
    #[arg(long, value_name = "LOCALE")]
    pub locale: Option<String>,
    /// Where the page and its files go
    #[arg(long, value_name = "DIR", default_value = "rekindle-preview")]
    pub out: PathBuf,
    /// A picture of each HTML mail too; needs Chromium
    #[arg(long)]
    pub picture: bool,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let book = Rulebook::open(&args.rules)?;
    let Some(set) = book.set() else {
        bail!("the rules have errors, so what templates print has no meaning yet; `rekindle check {}` says which", args.rules.display());
    };
    let templates = book.templates();
    let wanted = |rendered: &Rendered<'_>| {
        args.template.as_deref().is_none_or(|name| name == &**rendered.template)
            && args.locale.as_deref().is_none_or(|locale| locale == &**rendered.locale)
    };
    let all = book.rendered(&templates, &set);
    let shown: Vec<&Rendered<'_>> = all.iter().filter(|rendered| wanted(rendered)).collect();
    if shown.is_empty() {
        let known: Vec<&str> = templates.iter().map(|(name, _)| &**name).collect();
        bail!("there is nothing of that kind to show; the templates are {}", known.join(", "));
    }
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make `{}`", args.out.display()))?;
    let browser = if args.picture { Some(browser().context("no Chromium is found for pictures; leave `--picture` away")?) } else { None };
    let mut page = String::from(HEAD);
    for rendered in &shown {
        page.push_str(&article(rendered));
        if let (Some(html), file) = (&rendered.content.html, args.out.join(format!("{}.html", stem(rendered)))) {
            write(&file, html)?;
            if let Some(browser) = &browser {
                picture(browser, &file)?;
            }
        }
        println!("{}", summary(rendered));
    }
    let index = args.out.join("index.html");
    write(&index, &page)?;
    println!("{}", index.display());
    Ok(ExitCode::Fine)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

fn stem(rendered: &Rendered<'_>) -> String {
    format!("{}.{}.{}", rendered.template, rendered.locale, rendered.sample)
}

/// `win-back  de  sample 1: e-mail 1.2 kB, push 130 of 4096 bytes, 1 SMS segment`
fn summary(rendered: &Rendered<'_>) -> String {
    let content = &rendered.content;
    let mut parts = Vec::new();
    if let Some(subject) = &content.subject {
        parts.push(format!("e-mail \"{subject}\""));
    }
    if let (Some(title), Some(body)) = (&content.push_title, &content.push_body) {
        parts.push(format!("push {} of {PUSH_BYTES_MAX} bytes", title.len() + body.len()));
    }
    if let Some(text) = &content.sms {
        parts.push(super::counted(sms::cut(text).segments, "SMS segment"));
    }
    if content.whatsapp.is_some() {
        parts.push("WhatsApp".to_owned());
    }
    format!("{}  {}  sample {}: {}", rendered.template, rendered.locale, rendered.sample, parts.join(", "))
}

// ---------------------------------------------------------------------------------------------------------------------- the page

/// Nothing from outside is loaded: what a mail refers to stays unloaded, as in a reader that blocks pictures.
const HEAD: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'">
<title>Preview</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; background: #fafafa }
article { background: #fff; border: 1px solid #ddd; border-radius: 8px; padding: 1rem 1.25rem; margin: 1.25rem 0 }
h2 { margin: 0 0 .5rem; font-size: 1.1rem } h2 small { color: #666; font-weight: normal }
h3 { margin: 1rem 0 .25rem; font-size: .85rem; color: #666; text-transform: uppercase; letter-spacing: .04em }
pre { white-space: pre-wrap; background: #f4f4f4; padding: .75rem; border-radius: 6px; margin: 0; font: 13px/1.45 ui-monospace, monospace }
iframe { width: 100%; height: 26rem; border: 1px solid #ddd; border-radius: 6px; background: #fff }
.push { border-radius: 14px; background: #eef1f5; padding: .75rem 1rem; max-width: 24rem } .push b { display: block }
</style>
<h1>Preview</h1>
"#;

fn article(rendered: &Rendered<'_>) -> String {
    let content = &rendered.content;
    let part = |title: &str, body: String| format!("<h3>{title}</h3>{body}\n");
    let pre = |text: &str| format!("<pre>{}</pre>", escape_html(text));
    let mut out = format!(
        "<article><h2>{} <small>{}, sample {}</small></h2>\n",
        escape_html(rendered.template),
        escape_html(rendered.locale),
        rendered.sample
    );
    if let Some(subject) = &content.subject {
        out.push_str(&part("Subject", pre(subject)));
    }
    if let Some(html) = &content.html {
        out.push_str(&part("E-mail", format!("<iframe sandbox srcdoc=\"{}\"></iframe>", escape_html(html))));
    }
    if let Some(text) = &content.text {
        out.push_str(&part("E-mail as text", pre(text)));
    }
    if let (Some(title), Some(body)) = (&content.push_title, &content.push_body) {
        let card = format!("<div class=\"push\"><b>{}</b>{}</div>", escape_html(title), escape_html(body));
        out.push_str(&part("Push", card));
    }
    if let Some(text) = &content.sms {
        out.push_str(&part(&format!("SMS, {}", super::counted(sms::cut(text).segments, "segment")), pre(text)));
    }
    if let Some(text) = &content.whatsapp {
        out.push_str(&part("WhatsApp", pre(text)));
    }
    out.push_str("</article>\n");
    out
}

// -------------------------------------------------------------------------------------------------------------------- pictures

fn browser() -> Option<String> {
    let runs = |name: &&str| {
        let tried = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    BROWSERS.into_iter().find(runs).map(str::to_owned)
}

/// The mail as a picture beside its HTML.
fn picture(browser: &str, html: &Path) -> anyhow::Result<()> {
    let html = fs::canonicalize(html).with_context(|| format!("cannot find `{}`", html.display()))?;
    let png = html.with_extension("png");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=640,900"])
        .arg(format!("--screenshot={}", png.display()))
        .arg(format!("file://{}", html.display()))
        .output()
        .with_context(|| format!("`{browser}` does not start"))?;
    if !output.status.success() || !png.exists() {
        bail!("`{browser}` made no picture: {}", String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default());
    }
    Ok(())
}
