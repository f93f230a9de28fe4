//! One person's rights: everything that we hold about them, as JSON; and that it is erased.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::control::Reply;
use crate::engine::event::{Event, Value};
use crate::engine::profile::{Attribute, Profile};
use crate::engine::time::Timestamp;
use crate::store::erasure::{Cause, Erasure};
use crate::store::retention::Mark;
use crate::store::{Attempt, History, Identity, MessageRow, ProfileId, Store, StoreError};

/// Everything about a person; none if nobody is known by that user id.
///
/// # Errors
/// The store does not answer.
pub async fn export(store: &dyn Store, user: &str, now: Timestamp) -> Result<Option<Json>, StoreError> {
    let Some(id) = store.find_profile(&Identity::User(Arc::from(user))).await? else { return Ok(None) };
    let Some(stored) = store.profile(id).await? else { return Ok(None) };
    let history = whole_history(store, id).await?;
    let mut suppressed = Vec::new();
    for (channel, attribute) in &stored.profile.addresses {
        let Value::Text(address) = &attribute.value else { continue };
        for entry in store.suppressions(*channel, address).await? {
            suppressed.push(json!({
                "channel": channel.name(), "reason": entry.reason.name(), "scope": entry.scope.name(), "source": entry.source,
                "since": entry.since.to_string(), "until": entry.until.map(|until| until.to_string()),
            }));
        }
    }
    let identity = |identity: &Identity| match identity {
        Identity::User(id) => json!({ "kind": "user", "id": id }),
        Identity::Anonymous(id) => json!({ "kind": "anonymous", "id": id }),
    };
    let consents = history.consents.iter().map(|record| {
        json!({
            "purpose": record.purpose, "channel": record.channel, "granted": record.granted, "at": record.occurred_at.to_string(),
            "source": record.source, "event": record.event,
        })
    });
    let postings = history.postings.iter().map(|posting| {
        json!({
            "number": posting.number, "kind": posting.kind.name(), "class": posting.class, "amount": posting.amount,
            "at": posting.at.to_string(), "reason": posting.reason, "rule": posting.rule,
        })
    });
    let exposures = history.exposures.iter().map(
        |exposure| json!({ "rule": exposure.rule, "run": exposure.run, "at": exposure.at.to_string(), "held_out": exposure.held_out }),
    );
    let entries = history.entries.iter().map(|row| {
        let entry = &row.entry;
        json!({
            "at": entry.at.to_string(), "rule": entry.rule, "run": entry.run, "step": entry.step, "what": entry.what.name(),
            "because": entry.because,
        })
    });
    Ok(Some(json!({
        "exported_at": now.to_string(),
        "user": user,
        "identities": history.identities.iter().map(identity).collect::<Vec<_>>(),
        "person": person(&stored.profile),
        "consents": consents.collect::<Vec<_>>(),
        "suppressions": suppressed,
        "events": history.events.iter().map(|(event, _)| fact(event)).collect::<Vec<_>>(),
        "messages": history.messages.iter().map(message).collect::<Vec<_>>(),
        "points": postings.collect::<Vec<_>>(),
        "experiments": exposures.collect::<Vec<_>>(),
        "decisions": entries.collect::<Vec<_>>(),
        "removed": {
            "events": removed(history.removed.events), "messages": removed(history.removed.messages),
            "decisions": removed(history.removed.decisions),
        },
    })))
}

/// What the retention schedule has removed; null: nothing.
fn removed(mark: Option<Mark>) -> Json {
    mark.map_or(Json::Null, |mark| json!({ "older_than": mark.older_than.to_string(), "count": mark.removed }))
}

/// The person's own, and that of the profiles that turned out to be the same person.
async fn whole_history(store: &dyn Store, id: ProfileId) -> Result<History, StoreError> {
    let mut whole = store.history(id).await?;
    for merged in whole.merged.clone() {
        let History { events, postings, entries, messages, exposures, consents, .. } = store.history(merged).await?;
        whole.events.extend(events);
        whole.postings.extend(postings);
        whole.entries.extend(entries);
        whole.messages.extend(messages);
        whole.exposures.extend(exposures);
        whole.consents.extend(consents);
    }
    Ok(whole)
}

fn said(attribute: &Attribute) -> Json {
    let value = match &attribute.value {
        Value::Text(text) => Json::from(&**text),
        Value::Bool(value) => Json::from(*value),
        Value::Int(value) => Json::from(*value),
        other => Json::from(other.to_string()),
    };
    json!({ "value": value, "said_at": attribute.at.to_string() })
}

fn person(profile: &Profile) -> Json {
    let fixed = [("country", &profile.country), ("locale", &profile.locale), ("zone", &profile.zone)];
    let mut attributes: Map<String, Json> =
        fixed.into_iter().filter_map(|(name, attribute)| Some((name.to_owned(), said(attribute.as_ref()?)))).collect();
    attributes.extend(profile.attributes.iter().map(|(name, attribute)| (name.to_string(), said(attribute))));
    let addresses: Map<String, Json> =
        profile.addresses.iter().map(|(channel, address)| (channel.name().to_owned(), said(address))).collect();
    let lots = profile.wallet.lots.iter().map(|lot| {
        json!({
            "class": lot.class, "granted": lot.granted, "left": lot.left, "granted_at": lot.granted_at.to_string(),
            "expires_at": (!lot.expires_at.is_forever()).then(|| lot.expires_at.to_string()),
        })
    });
    let coupons = profile
        .coupons
        .iter()
        .map(|coupon| json!({ "offer": coupon.offer, "code": coupon.code, "redeemed_at": coupon.redeemed_at.map(|at| at.to_string()) }));
    let benefits = profile.entitlements.iter().map(|benefit| json!({ "key": benefit.key, "value": benefit.value }));
    json!({
        "first_seen_at": profile.first_seen_at.map(|at| at.to_string()),
        "last_active_at": profile.activity.last_active_at.map(|at| at.to_string()),
        "attributes": attributes,
        "addresses": addresses,
        "orders": { "count": profile.orders.count_ever(), "sum_minor": profile.orders.sum_ever() },
        "tier": profile.tier.base,
        "points": lots.collect::<Vec<_>>(),
        "coupons": coupons.collect::<Vec<_>>(),
        "benefits": benefits.collect::<Vec<_>>(),
    })
}

fn fact(event: &Event) -> Json {
    json!({
        "id": event.id, "name": event.name, "occurred_at": event.occurred_at.to_string(), "received_at": event.received_at.to_string(),
        "source": event.source, "properties": event.properties,
    })
}

fn message(row: &MessageRow) -> Json {
    let message = &row.message;
    let attempt = |attempt: &Attempt| {
        json!({
            "started_at": attempt.started_at.to_string(), "outcome": attempt.outcome, "provider_id": attempt.provider_id,
            "detail": attempt.detail,
        })
    };
    json!({
        "id": message.id.to_string(), "rule": message.rule, "step": message.step, "channel": message.channel.name(),
        "category": message.category.name(), "template": message.template, "decided_at": message.decided_at.to_string(),
        "state": row.state.name(), "because": row.because, "values": message.data,
        "attempts": row.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}

/// Erases whoever is known by that user id. What was still to go out does not; the answer comes when all of it is on disk.
pub(super) async fn erase(store: &dyn Store, user: &str, why: &str, by: &str, now: Timestamp) -> Result<Reply, StoreError> {
    if why.trim().is_empty() {
        return Ok(Reply::refused("an erasure needs a reason: the record of it is all that stays"));
    }
    let identity = Identity::User(Arc::from(user));
    let Some(profile) = store.find_profile(&identity).await? else {
        return Ok(match store.erasure_of(&identity).await? {
            Some((erasure, _)) => Reply::done(format!("that person was erased at {} by {}: {}", erasure.at, erasure.by, erasure.why)),
            None => Reply::refused("nobody with that user id is in this database"),
        });
    };
    let done = store.erase(Erasure { profile, at: now, by: by.to_owned(), why: why.to_owned() }, Cause::Asked).await?;
    tracing::warn!(profile.id = profile.0, event.count = done.events, message.cancelled_count = done.cancelled, "a person was erased");
    let mut reply = Reply::done(format!("erased at {now}; it is on record"));
    reply.lines.push(format!(
        "deleted: {} events, {} consents, {} identities, {} refused events",
        done.events, done.consents, done.identities, done.rejects
    ));
    reply.lines.push(format!("emptied: {} messages, {} attempts, {} lines of the log", done.messages, done.attempts, done.entries));
    reply.lines.push(format!("stopped: {} messages that were still to go; closed: {} addresses", done.cancelled, done.addresses));
    if done.sending > 0 {
        reply.lines.push(format!("{} messages were being sent at that moment and cannot be called back", done.sending));
    }
    Ok(reply)
}
