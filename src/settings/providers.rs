//! `providers:` of the administrator's file: who carries messages, by names that the policy uses. What each key means stands in
//! `config/rekindle.yaml` and docs/providers.md.

use std::collections::BTreeMap;
use std::path::Path;

use url::Url;

use super::fields::Fields;
use super::{Secret, number, web_address};
use crate::channel::guard::Network;
use crate::channel::http::provider::{Description, shipped};
use crate::engine::rule::diagnostic::{Diagnostic, SourceFile};
use crate::engine::rule::syntax::{Entry, Node};

/// The provider that is always there; its name is taken.
pub const RECORDING: &str = "recording";
const CONNECTIONS: usize = 10;

#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    Smtp(Smtp),
    Webhook(Webhook),
    Http(Box<Http>),
    Fcm(Fcm),
    /// Names of others, in order.
    Pool(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub login: Option<(String, Secret)>,
    pub connections: usize,
    pub bounce_domain: Option<String>,
    pub dkim: Vec<Dkim>,
    /// PEM of certificate authorities beside the system's.
    pub ca: Option<String>,
    pub hello: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    StartTls,
    Implicit,
    /// For a relay on the same machine.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dkim {
    pub domain: String,
    pub selector: String,
    /// PEM: RSA (PKCS#1 or PKCS#8), or Ed25519 (PKCS#8).
    pub key: Secret,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub url: Url,
    /// The one in use, and the one before while it is replaced.
    pub secrets: Vec<Secret>,
    pub allow_networks: Vec<Network>,
    pub ca: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub description: Description,
    pub values: BTreeMap<String, Secret>,
    pub callback_token: Option<Secret>,
    pub callback_secret: Option<Secret>,
    pub callback_secret_before: Option<Secret>,
    pub allow_networks: Vec<Network>,
    pub ca: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fcm {
    /// The JSON file that Google makes.
    pub service_account: Secret,
    pub base_url: Url,
    pub allow_networks: Vec<Network>,
    pub ca: Option<String>,
}

const KINDS: [&str; 5] = ["smtp", "http", "webhook", "fcm", "pool"];

/// One provider; none, with findings, if something is wrong with it.
pub(super) fn read(entry: &Entry, findings: &mut Vec<Diagnostic>, source: &mut SourceFile) -> Option<Provider> {
    if &*entry.key.text == RECORDING {
        let message = "`recording` is always there and is not set up".to_owned();
        findings.push(Diagnostic::error("RK0902", entry.key_place.clone(), message).len(RECORDING.len()));
        return None;
    }
    let mut fields = Fields::of("providers", entry, findings, source)?;
    let known = || format!("expected one of {}", KINDS.map(|kind| format!("`{kind}`")).join(", "));
    let kind = fields.parsed("kind", |text| KINDS.into_iter().find(|kind| *kind == text).ok_or_else(known));
    let Some(kind) = kind else {
        fields.missing("kind", "smtp`, http, webhook, fcm or `pool");
        return None;
    };
    let provider = match kind {
        "smtp" => smtp(&mut fields).map(Provider::Smtp),
        "webhook" => webhook(&mut fields).map(Provider::Webhook),
        "http" => http(&mut fields).map(|http| Provider::Http(Box::new(http))),
        "fcm" => fcm(&mut fields).map(Provider::Fcm),
        _ => Some(Provider::Pool(fields.list("of", super::word))),
    };
    fields.finish();
    provider
}

fn smtp(fields: &mut Fields<'_>) -> Option<Smtp> {
    let host = required(fields, "host", "smtp.shop.example", super::word);
    let tls = fields.parsed("tls", |text| match text {
        "starttls" => Ok(Tls::StartTls),
        "implicit" => Ok(Tls::Implicit),
        "none" => Ok(Tls::None),
        _ => Err("expected `starttls`, `implicit`, or `none` for a relay on the same machine".to_owned()),
    });
    let tls = tls.unwrap_or(Tls::StartTls);
    let port = fields.parsed("port", |text| number(text, 1, u16::MAX)).unwrap_or(if tls == Tls::Implicit { 465 } else { 587 });
    let (user, password) = (fields.text("user"), fields.secret("password"));
    if fields.has("user") != fields.has("password") {
        fields.missing("user", "NAME");
        fields.missing("password", "env:SMTP_PASSWORD");
    }
    let connections = fields.parsed("connections", |text| number(text, 1, 1_000)).unwrap_or(CONNECTIONS);
    let bounce_domain = fields.text("bounce_domain");
    let dkim = fields.mappings("dkim").iter().filter_map(|entry| dkim(fields.inner(entry)?)).collect();
    let (ca, hello) = (fields.text("ca"), fields.text("hello"));
    Some(Smtp { host: host?, port, tls, login: user.zip(password), connections, bounce_domain, dkim, ca, hello })
}

fn dkim(mut fields: Fields<'_>) -> Option<Dkim> {
    let domain = required(&mut fields, "domain", "shop.example", super::word);
    let selector = required(&mut fields, "selector", "s1", super::word);
    let key = required_secret(&mut fields, "key", "file:/etc/rekindle/dkim.pem");
    fields.finish();
    Some(Dkim { domain: domain?, selector: selector?, key: key? })
}

fn webhook(fields: &mut Fields<'_>) -> Option<Webhook> {
    let url = required(fields, "url", "https://shop.example/hooks/rekindle", web_address);
    let secret = required_secret(fields, "secret", "env:HOOK_SECRET");
    let before = fields.secret("secret_before");
    let allow_networks = fields.list("allow_networks", network);
    let ca = fields.text("ca");
    Some(Webhook { url: url?, secrets: secret.into_iter().chain(before).collect(), allow_networks, ca })
}

fn http(fields: &mut Fields<'_>) -> Option<Http> {
    let description = required(fields, "file", "sendgrid", description);
    let callback_token = fields.secret("callback_token");
    let (callback_secret, callback_secret_before) = (fields.secret("callback_secret"), fields.secret("callback_secret_before"));
    let allow_networks = fields.list("allow_networks", network);
    let ca = fields.text("ca");
    let description = description?;
    let mut values = BTreeMap::new();
    for (key, setting) in &description.settings {
        let value = if setting.secret { fields.secret(key) } else { fields.text(key).map(|text| Secret::given(&text)) };
        match (value, &setting.default) {
            (Some(value), _) => _ = values.insert(key.clone(), value),
            (None, Some(default)) => _ = values.insert(key.clone(), Secret::given(default)),
            (None, None) if setting.optional => {}
            (None, None) => fields.missing(key, if setting.secret { "env:NAME" } else { "..." }),
        }
    }
    Some(Http { description, values, callback_token, callback_secret, callback_secret_before, allow_networks, ca })
}

/// A shipped file by its name, or an own one by its path.
fn description(text: &str) -> Result<Description, String> {
    if let Some((name, yaml)) = shipped().into_iter().find(|(name, _)| *name == text) {
        return Description::read(name, yaml).map_err(|error| error.to_string());
    }
    if !text.contains(['/', '.']) {
        let names: Vec<&str> = shipped().into_iter().map(|(name, _)| name).collect();
        return Err(format!("no shipped file has this name ({}), and it is no path", names.join(", ")));
    }
    let yaml = std::fs::read_to_string(Path::new(text)).map_err(|error| format!("cannot read it: {error}"))?;
    Description::read(text, &yaml).map_err(|error| error.to_string())
}

fn fcm(fields: &mut Fields<'_>) -> Option<Fcm> {
    let service_account = required_secret(fields, "service_account", "file:/etc/rekindle/firebase.json");
    let base_url = fields.parsed("base_url", web_address).or_else(|| Url::parse("https://fcm.googleapis.com").ok());
    let allow_networks = fields.list("allow_networks", network);
    let ca = fields.text("ca");
    Some(Fcm { service_account: service_account?, base_url: base_url?, allow_networks, ca })
}

fn network(text: &str) -> Result<Network, String> {
    text.parse()
}

fn required<T>(fields: &mut Fields<'_>, key: &str, example: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let value = fields.parsed(key, parse);
    if value.is_none() {
        fields.missing(key, example);
    }
    value
}

fn required_secret(fields: &mut Fields<'_>, key: &str, example: &str) -> Option<Secret> {
    let value = fields.secret(key);
    if value.is_none() {
        fields.missing(key, example);
    }
    value
}

/// A pool names other providers, and no pools: in which order they are tried must be seen at once.
pub(super) fn check_pools(entries: &[Entry], providers: &BTreeMap<String, Provider>, findings: &mut Vec<Diagnostic>) {
    for (name, provider) in providers {
        let Provider::Pool(_) = provider else { continue };
        let Some(entry) = entries.iter().find(|entry| *entry.key.text == **name) else { continue };
        let members = entry.value.get("of").and_then(Node::items).unwrap_or_default();
        if members.is_empty() {
            let message = format!("the pool `{name}` names nobody");
            findings.push(Diagnostic::error("RK0902", entry.key_place.clone(), message).len(name.chars().count()));
        }
        for member in members {
            let Some(text) = member.text() else { continue };
            let why = match providers.get(text) {
                Some(Provider::Pool(_)) => "it is a pool itself",
                // one that is wrong itself has its own finding
                None if !entries.iter().any(|entry| &*entry.key.text == text) => "no provider has this name",
                _ => continue,
            };
            let message = format!("`{text}` cannot be in the pool `{name}`");
            findings.push(Diagnostic::error("RK0902", member.place.clone(), message).len(member.width()).label(why));
        }
    }
}
