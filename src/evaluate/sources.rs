//! Looks after the sources of activity: while one of them is quiet against its own baseline, the silence of people means nothing
//! (`engine::source` judges, the store keeps the spans, decisions read them from the world).
//!
//! One broken source among several is enough: whoever is only seen there seems to be silent.

use std::collections::BTreeMap;

use crate::engine::profile::Name;
use crate::engine::rule::Policy;
use crate::engine::source::{BASELINE_MS, Hours, quiet_spans};
use crate::engine::time::{DAY_MS, Timestamp};
use crate::store::{Store, StoreError};

/// How often the loop looks.
pub const LOOK_EVERY_MS: i64 = 15 * crate::engine::time::MINUTE_MS;
/// How far back hours are read: a baseline, the longest that a span may stay open, and two weeks to begin with.
const READ_BACK_MS: i64 = 2 * BASELINE_MS + 14 * DAY_MS;

/// Opens or closes the quiet span, if need be, and answers since when sources are quiet at `now`.
pub async fn watch_sources(store: &dyn Store, policy: &Policy, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let Some(sources) = &policy.sources else { return Ok(None) };
    let mut by_source: BTreeMap<Name, Hours> = BTreeMap::new();
    for hour in store.source_hours(now.plus_ms(-READ_BACK_MS)).await? {
        by_source.entry(hour.source).or_default().add(hour.hour, hour.events);
    }
    let quiet = by_source.iter().filter_map(|(source, hours)| {
        let (since, until) = quiet_spans(sources, hours, now).pop()?;
        until.is_forever().then_some((since, source))
    });
    let quiet = quiet.min();
    let world = store.world(policy.month_start(now)).await?.world;
    let open = world.quiet.iter().rev().find(|(_, until)| until.is_forever()).map(|(since, _)| *since);
    match (open, quiet) {
        (None, Some((since, source))) => {
            tracing::warn!(event.source = %source, "quiet since {since} against its own baseline: what rests on absence is held");
            store.record_quiet(since, Timestamp::FOREVER).await?;
        }
        (Some(since), None) => {
            tracing::info!("sources are heard again; they were quiet since {since}");
            store.record_quiet(since, now).await?;
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    Ok(quiet.map(|(since, _)| since))
}
