//! What a call said becomes facts. Every effect may be had twice without harm (results are merged, events have ids, the list keeps what
//! it has), so a call that is repeated, or played again, changes nothing; and the provider is told that it was taken only once all of it
//! is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::callback::Report;
use crate::channel::callback::Said;
use crate::engine::action::{Channel, Message, MessageId, Outcome};
use crate::engine::event::{Event, EventKind, Value};
use crate::engine::profile::Category;
use crate::engine::run::{ResultOf, SUPPRESS, result_event};
use crate::engine::time::Timestamp;
use crate::store::suppression::{Reason, Scope, Suppress};
use crate::store::{MessageResult, MessageRow, ProfileId, ResultKind, Store, StoreError};

/// What a call changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Facts about messages and people that were new.
    pub new: u64,
    /// Known already, or of no consequence.
    pub known: u64,
    /// Of a message that is not ours, did not go out, or went out on another channel.
    pub foreign: u64,
}

/// Records the reports of one provider, which carries `channels`.
///
/// # Errors
/// The store does not answer. What was recorded until then is recorded again by the next call, without harm.
pub async fn record(
    store: &dyn Store,
    provider: &str,
    channels: &[Channel],
    reports: &[Report],
    now: Timestamp,
) -> Result<Recorded, StoreError> {
    let ids: BTreeSet<MessageId> = reports.iter().filter_map(|report| report.message).collect();
    let ids: Vec<MessageId> = ids.into_iter().collect();
    let rows: BTreeMap<MessageId, MessageRow> = store.messages(&ids).await?.into_iter().map(|row| (row.message.id, row)).collect();
    let mut recorded = Recorded::default();
    let (mut results, mut words) = (Vec::new(), Vec::new());
    for report in reports {
        let row = report.message.and_then(|id| rows.get(&id));
        let Some(row) = row.filter(|row| channels.contains(&row.message.channel) && !row.attempts.is_empty()) else {
            recorded.foreign += 1;
            continue;
        };
        match outcome(report) {
            Some(outcome) => results.push(result(&row.message, report, outcome)),
            None if report.said == Said::Ignored => recorded.known += 1,
            None => {}
        }
        if let Some((reason, scope)) = closes(report.said, row.message.category)
            && let Some(address) = address(store, row, report).await?
        {
            words.push(word(provider, row, report, reason, scope, address, now));
        }
    }
    // the list first: whatever happens after it, nobody on it is written to again
    for is_new in store.suppress(words).await? {
        *(if is_new { &mut recorded.new } else { &mut recorded.known }) += 1;
    }
    for result in store.record_results(results).await? {
        *(if result.new { &mut recorded.new } else { &mut recorded.known }) += 1;
    }
    Ok(recorded)
}

/// What it means for the message.
fn outcome(report: &Report) -> Option<Outcome> {
    match report.said {
        Said::Accepted => Some(Outcome::Accepted),
        Said::Delivered => Some(Outcome::Delivered),
        Said::Opened => Some(Outcome::Opened),
        Said::Clicked => Some(Outcome::Clicked),
        // it was taken and has not arrived: the next channel may follow, and no penalty may rest on it
        Said::HardBounce | Said::SoftBounce | Said::Failed => Some(Outcome::Bounced),
        Said::Complained | Said::Unsubscribed => (!report.arrived).then_some(Outcome::Bounced),
        Said::Ignored => None,
    }
}

/// Whether it speaks against the address, and against what of it.
fn closes(said: Said, category: Category) -> Option<(Reason, Scope)> {
    match said {
        Said::HardBounce => Some((Reason::HardBounce, Scope::All)),
        Said::SoftBounce => Some((Reason::SoftBounce, Scope::All)),
        Said::Complained => Some((Reason::Complaint, Scope::All)),
        Said::Unsubscribed => Some((Reason::Unsubscribe, Scope::Only(refused(category)))),
        _ => None,
    }
}

/// What somebody refuses who unsubscribes from a message: what a purchase makes necessary cannot be refused, so it is marketing then.
pub fn refused(category: Category) -> Category {
    match category {
        Category::Service => Category::Service,
        Category::Marketing | Category::Transactional => Category::Marketing,
    }
}

fn result(message: &Message, report: &Report, outcome: Outcome) -> MessageResult {
    let detail = report.detail.as_deref().unwrap_or_default();
    let mut event = result_event(&ResultOf::from(message), outcome, report.at, detail);
    if outcome == Outcome::Bounced && report.said != Said::HardBounce {
        // the address may still be right; a person's refusal is an event of its own
        event.properties.insert(SUPPRESS.to_owned(), false.into());
    }
    let kind = ResultKind::Outcome(outcome, event);
    MessageResult { message: message.id, epoch: None, at: report.at, kind, provider_id: None, detail: report.detail.clone() }
}

/// The address that was written to: the provider's word, else the one that the person has now.
async fn address(store: &dyn Store, row: &MessageRow, report: &Report) -> Result<Option<String>, StoreError> {
    if let Some(address) = &report.address {
        return Ok(Some(address.clone()));
    }
    address_of(store, row.profile, row.message.channel).await
}

/// The address that a person has on a channel.
pub async fn address_of(store: &dyn Store, profile: ProfileId, channel: Channel) -> Result<Option<String>, StoreError> {
    let stored = store.profile(profile).await?;
    let address = stored.as_ref().and_then(|stored| stored.profile.addresses.get(&channel));
    Ok(match address.map(|address| &address.value) {
        Some(Value::Text(address)) => Some(address.to_string()),
        _ => None,
    })
}

fn word(provider: &str, row: &MessageRow, report: &Report, reason: Reason, scope: Scope, address: String, now: Timestamp) -> Suppress {
    let message = &row.message;
    // a bounce is a result of the message, which is its fact; a person's own word is an event of its own
    let name = match report.said {
        Said::Complained => Some("complained"),
        Said::Unsubscribed => Some("unsubscribed"),
        _ => None,
    };
    let event = name.map(|name| (row.profile, refusal(name, provider, message, &report.id, &address, scope, report.at, now)));
    let source = format!("callback:{provider}");
    Suppress { channel: message.channel, address, reason, scope, since: report.at, until: None, source, id: report.id.clone(), event }
}

/// The event of somebody's refusal.
#[expect(clippy::too_many_arguments, reason = "each is one property of the event")]
fn refusal(name: &str, provider: &str, message: &Message, id: &str, address: &str, scope: Scope, at: Timestamp, now: Timestamp) -> Event {
    let mut properties = Map::new();
    let mut put = |key: &str, value: &str| properties.insert(key.to_owned(), Json::from(value));
    put("channel", message.channel.name());
    put("address", address);
    put("message", &message.id.to_string());
    put("rule", &message.rule);
    if let Scope::Only(category) = scope {
        put("purpose", category.name());
    }
    Event {
        id: Arc::from(format!("{name}:{id}")),
        kind: EventKind::Engine,
        name: Arc::from(name),
        occurred_at: at.min(now),
        received_at: now,
        source: Arc::from(format!("callback:{provider}")),
        properties,
    }
}
