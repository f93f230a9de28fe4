//! The ways out. A channel speaks one protocol and answers with an [`Outcome`]; when to try again, what a refusal means for a
//! person's address, and whether a message may go at all is decided elsewhere (`dispatch`, `engine`).

pub mod callback;
pub mod email;
pub mod guard;
pub mod http;
pub mod push;
pub mod recording;
pub mod tls;
pub mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use self::email::Email;
use self::http::HttpProvider;
use self::push::Fcm;
use self::recording::Recording;
use self::webhook::Webhook;
use crate::engine::action::{Channel as Kind, MessageId, Outcome as Fact};
use crate::engine::profile::{Category, Name};
use crate::engine::rule::diagnostic::Diagnostic;
use crate::engine::rule::suggest::nearest;
use crate::engine::rule::{Action, ChannelPolicy, Policy, RuleSet, Sender, Step};
use crate::engine::time::Timestamp;
use crate::links::{Links, LinksError};
use crate::message::Content;
use crate::settings::Settings;
use crate::settings::providers::{Provider, RECORDING};

/// A message as it leaves: rendered, addressed, and for the `attempt`-th time.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// The same at every attempt: what a provider deduplicates and correlates by.
    pub message: MessageId,
    /// From 1.
    pub attempt: u32,
    pub kind: Kind,
    pub category: Category,
    /// What the policy says of the channel, if it says anything.
    pub policy: Option<&'a ChannelPolicy>,
    pub at: Timestamp,
    /// The person's key.
    pub profile: &'a str,
    /// E-mail address, phone number, push token; empty where the channel needs none. Never logged.
    pub address: &'a str,
    pub rule: &'a str,
    pub template: &'a str,
    pub content: &'a Content,
}

impl Outgoing<'_> {
    pub fn sender(&self) -> Option<&Sender> {
        self.policy?.sender.as_ref()
    }

    /// How long the policy lets an answer take.
    pub fn timeout(&self) -> Option<Duration> {
        let ms = self.policy?.timeout_ms?;
        Some(Duration::from_millis(u64::try_from(ms).ok()?))
    }
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The provider has it.
    Accepted { provider_id: String },
    /// Definitely not taken, but may be later. `after_ms`: the provider's own word, which goes before our schedule.
    Retry { class: RetryClass, after_ms: Option<i64>, detail: String },
    /// Definitely not taken, and never will be. `suppress`: because of the address, which goes on the suppression list.
    Rejected { suppress: bool, detail: String },
    /// It may have gone out, and nobody knows. `ask_again`: sending it once more under the same id would tell, without a second copy.
    Ambiguous { ask_again: bool, detail: String },
}

/// Why an attempt may be repeated: each has a schedule of its own (`dispatch/retry.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// We are too fast (429, 421 4.7.x): the message is not at fault.
    Throttle,
    /// The connection or the provider failed.
    Transient,
    /// Our own account is refused (401, 535): no message gets through until an operator mends it.
    Config,
}

/// One way out.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Whether a second send of the same id does no harm and answers like the first: then what a crash left in doubt is sent again.
    fn deduplicates(&self) -> bool;

    /// How many messages it carries at once; none: as many as it is given. Further ones wait with the dispatcher, which can still call
    /// them back.
    fn at_once(&self) -> Option<usize> {
        None
    }

    async fn send(&self, outgoing: &Outgoing<'_>) -> Outcome;
}

/// What a provider says of a message some time after it took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt {
    pub at: Timestamp,
    pub message: MessageId,
    pub outcome: Fact,
}

/// Why a provider cannot be used as it is set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChannelError(pub String);

impl From<LinksError> for ChannelError {
    fn from(error: LinksError) -> Self {
        ChannelError(error.to_string())
    }
}

/// All ways out that are set up. Which of them a message takes is said by the policy of the moment, so that a changed policy needs no
/// new channels. Clones share them: when one is given others ([`Channels::replace`]), all have them, and what is being sent ends as it
/// began.
#[derive(Clone, Default)]
pub struct Channels(Arc<ArcSwap<Ways>>);

#[derive(Default)]
struct Ways {
    providers: BTreeMap<Name, Arc<dyn Channel>>,
    pools: BTreeMap<Name, Vec<Name>>,
    /// Whatever the policy says.
    fixed: BTreeMap<Kind, Arc<dyn Channel>>,
}

/// One provider that a message may go by.
#[derive(Clone)]
pub struct Route {
    pub provider: Name,
    pub channel: Arc<dyn Channel>,
}

impl Channels {
    /// The providers of the administrator's file, and the recording one.
    ///
    /// # Errors
    /// One of them cannot be set up: a key that is none, no certificate authorities, links without a key.
    pub fn from(settings: &Settings, recording: Option<Arc<Recording>>) -> Result<Channels, ChannelError> {
        let links = links(settings)?;
        let mut ways = Ways::default();
        if let Some(recording) = recording {
            ways.providers.insert(RECORDING.into(), recording);
        }
        for (name, provider) in &settings.providers {
            let name = Name::from(name.as_str());
            let failed = |error: ChannelError| ChannelError(format!("provider `{name}`: {error}"));
            let channel: Arc<dyn Channel> = match provider {
                Provider::Smtp(smtp) => Arc::new(Email::new(smtp, links.clone()).map_err(failed)?),
                Provider::Pool(members) => {
                    ways.pools.insert(name, members.iter().map(|member| Name::from(member.as_str())).collect());
                    continue;
                }
                Provider::Webhook(webhook) => Arc::new(Webhook::new(webhook).map_err(failed)?),
                Provider::Http(http) => {
                    let public_url = settings.http.public_url.as_ref();
                    Arc::new(HttpProvider::new(&name, http, links.clone(), public_url).map_err(failed)?)
                }
                Provider::Fcm(fcm) => Arc::new(Fcm::new(fcm).map_err(failed)?),
            };
            ways.providers.insert(name, channel);
        }
        Ok(Channels::of(ways))
    }

    fn of(ways: Ways) -> Channels {
        Channels(Arc::new(ArcSwap::from_pointee(ways)))
    }

    /// Takes the ways out of others in place of its own.
    pub fn replace(&self, others: &Channels) {
        self.0.store(others.0.load_full());
    }

    /// Always these: a replay, a copy of a database that only records.
    pub fn fixed(channels: BTreeMap<Kind, Arc<dyn Channel>>) -> Channels {
        Channels::of(Ways { fixed: channels, ..Ways::default() })
    }

    /// Providers by name and pools of them, without settings: for tests.
    pub fn named(providers: BTreeMap<Name, Arc<dyn Channel>>, pools: BTreeMap<Name, Vec<Name>>) -> Channels {
        Channels::of(Ways { providers, pools, ..Ways::default() })
    }

    pub fn is_fixed(&self, kind: Kind) -> bool {
        self.0.load().fixed.contains_key(&kind)
    }

    /// The providers that a message of this kind may go by, in the order in which they are tried. Empty: the channel has none.
    pub fn route(&self, kind: Kind, policy: &Policy) -> Vec<Route> {
        let ways = self.0.load();
        if let Some(channel) = ways.fixed.get(&kind) {
            return vec![Route { provider: kind.name().into(), channel: channel.clone() }];
        }
        let Some(policy) = policy.channels.get(&kind) else { return Vec::new() };
        let own = std::slice::from_ref(&policy.provider);
        let names = ways.pools.get(&policy.provider).map_or(own, Vec::as_slice);
        let set_up = names.iter().filter_map(|name| ways.providers.get_key_value(name));
        set_up.map(|(name, channel)| Route { provider: name.clone(), channel: channel.clone() }).collect()
    }

    /// Whether a second send of the same id does no harm, whoever of the route sent first.
    pub fn deduplicates(&self, kind: Kind, policy: &Policy) -> bool {
        let route = self.route(kind, policy);
        route.len() == 1 && route.iter().all(|route| route.channel.deduplicates())
    }
}

/// What signs the links in messages; none where it is not set up.
///
/// # Errors
/// The key is too short, or the address takes no path.
pub fn links(settings: &Settings) -> Result<Option<Links>, ChannelError> {
    let (Some(url), Some(key)) = (&settings.http.public_url, &settings.secrets.links) else { return Ok(None) };
    let keys: Vec<_> = [Some(key), settings.secrets.links_before.as_ref()].into_iter().flatten().cloned().collect();
    Ok(Some(Links::new(url.clone(), &keys)?))
}

/// What the administrator's file lacks for what the rules would send.
pub fn lacking(settings: &Settings, rules: &RuleSet) -> Vec<Diagnostic> {
    let mut findings = unknown_providers(settings, &rules.policy);
    let email = rules.policy.channels.get(&Kind::Email).filter(|channel| &*channel.provider != RECORDING);
    if let Some(channel) = email {
        findings.extend(email::alignment::unaligned(settings, channel));
        findings.extend(no_way_out(settings, rules, channel));
    }
    findings
}

/// Marketing mails without a link to unsubscribe do not go out.
fn no_way_out(settings: &Settings, rules: &RuleSet, channel: &ChannelPolicy) -> Option<Diagnostic> {
    let steps = rules.rules.iter().flat_map(|rule| rule.steps.iter().chain(&rule.on_exit));
    let is_marketing = |step: &Step| matches!(&step.action, Action::Send(send) if send.category == Category::Marketing && send.channels.contains(&Kind::Email));
    let lacks = [("http.public_url", settings.http.public_url.is_none()), ("secrets.links", settings.secrets.links.is_none())];
    let lacks: Vec<&str> = lacks.into_iter().filter_map(|(key, is_lacking)| is_lacking.then_some(key)).collect();
    if lacks.is_empty() || !steps.into_iter().any(is_marketing) {
        return None;
    }
    let message = "marketing e-mails go out, and there is no way to unsubscribe".to_owned();
    let finding = Diagnostic::error("RK0412", channel.place.clone(), message).len(channel.provider.chars().count());
    Some(finding.help(format!("set `{}` in the administrator's file", lacks.join("` and `"))))
}

/// Channels of the policy whose provider the administrator's file does not have.
fn unknown_providers(settings: &Settings, policy: &Policy) -> Vec<Diagnostic> {
    let known = || settings.providers.keys().map(String::as_str).chain([RECORDING]);
    let unknown = policy.channels.values().filter(|channel| !known().any(|name| name == &*channel.provider));
    unknown
        .map(|channel| {
            let message = format!("no provider is called `{}` in the administrator's file", channel.provider);
            let help = nearest(&channel.provider, known()).map(|near| format!("did you mean `{near}`?"));
            let help = help.unwrap_or_else(|| format!("known there: {}", known().collect::<Vec<_>>().join(", ")));
            Diagnostic::error("RK0407", channel.place.clone(), message).len(channel.provider.chars().count()).help(help)
        })
        .collect()
}
