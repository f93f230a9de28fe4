//! Giving back what was set aside: people whose row or decision failed, and rules that failed for somebody.

use std::sync::Arc;

use super::Console;
use super::control::Reply;
use super::pauses::EVERYBODY_SPREAD_MS;
use crate::engine::rule::suggest::nearest;
use crate::store::{Identity, ProfileId, SetAside, StoreError};

/// People looked up at a time.
const PAGE: usize = 500;
/// So many are named; all are counted.
const SHOWN: usize = 20;

/// Who is set aside, since when and why.
pub(super) async fn list(console: &Console) -> Result<Reply, StoreError> {
    let (mut lines, mut count, mut after) = (Vec::new(), 0, None);
    loop {
        let page = console.store.set_aside(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.profile);
        count += page.len();
        let room = SHOWN.saturating_sub(lines.len());
        lines.extend(page.iter().take(room).map(|aside| format!("{} since {}: {}", aside.key, aside.at, aside.because)));
    }
    if count > SHOWN {
        lines.push(format!("... and {} more", count - SHOWN));
    }
    if count == 0 {
        lines.push("nobody is set aside".to_owned());
    }
    Ok(Reply { lines, ..Reply::default() })
}

/// Gives one person back: due at once, with the events that waited.
pub(super) async fn one(console: &Console, user: &str, by: &str) -> Result<Reply, StoreError> {
    let (store, now) = (console.store.as_ref(), console.clock.now());
    let Some(id) = store.find_profile(&Identity::User(Arc::from(user))).await? else {
        return Ok(Reply::refused("nobody with that user id is in this database"));
    };
    let before = ProfileId(id.0.saturating_sub(1));
    let aside = store.set_aside(Some(before), 1).await?.pop().filter(|aside| aside.profile == id);
    store.reinstate(now, vec![id]).await?;
    console.wake.notify_one();
    Ok(match aside {
        Some(SetAside { at, because, .. }) => {
            tracing::warn!(profile.id = id.0, "given back by {by}; it was set aside since {at}: {because}");
            Reply::done(format!("was set aside since {at}: {because}; given back, and looked at now"))
        }
        None => Reply::done("was not set aside; looked at now all the same"),
    })
}

/// Gives everybody back.
pub(super) async fn all(console: &Console, by: &str) -> Result<Reply, StoreError> {
    let (store, now) = (console.store.as_ref(), console.clock.now());
    let mut ids = Vec::new();
    loop {
        let page = store.set_aside(ids.last().copied(), PAGE).await?;
        if page.is_empty() {
            break;
        }
        ids.extend(page.iter().map(|aside| aside.profile));
    }
    for some in ids.chunks(PAGE) {
        store.reinstate(now, some.to_vec()).await?;
    }
    console.wake.notify_one();
    tracing::warn!(profile.count = ids.len(), "given back by {by}");
    Ok(Reply::done(format!("{} people are given back, and looked at now", ids.len())))
}

/// Looks at everybody again because of one rule: at whom it is set aside stands in no list.
pub(super) async fn rule(console: &Console, rule: &str, by: &str) -> Result<Reply, StoreError> {
    let rules = console.rules.snapshot().rules;
    if rules.called(rule).is_none() {
        let near = nearest(rule, rules.rules.iter().map(|rule| &*rule.id)).map(|near| format!("; did you mean `{near}`?"));
        return Ok(Reply::refused(format!("no rule `{rule}` is live here{}", near.unwrap_or_default())));
    }
    let due = console.store.make_all_due(console.clock.now(), EVERYBODY_SPREAD_MS).await?;
    console.wake.notify_one();
    tracing::warn!(rule.id = rule, "everybody is looked at again, by {by}");
    Ok(Reply::done(format!("{due} people are looked at within the next ten minutes, whether {rule} can be evaluated for them now")))
}
