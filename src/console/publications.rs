//! Rule sets as operators speak of them: which went live by whom and why, going back to one, and taking the files on disk now.

use super::Console;
use super::control::Reply;
use crate::store::{PublicationRow, StoreError};
use crate::versions::publisher::{Looked, PUBLICATIONS_SHOWN, PublishError, WentLive, told};

/// So much of a version is enough to name it.
const PREFIX_MIN: usize = 4;

/// What went live, the latest first.
pub async fn list(console: &Console) -> Result<Reply, StoreError> {
    let rows = console.store.publications(PUBLICATIONS_SHOWN).await?;
    let mut lines: Vec<String> = rows.iter().enumerate().flat_map(|(index, row)| lines_of(row, index == 0)).collect();
    if let Some(refused) = console.store.refused_rules().await? {
        lines.push(format!("the files on disk are refused since {}:", refused.at));
        lines.extend(refused.because.lines().map(|line| format!("  {line}").trim_end().to_owned()));
    }
    Ok(Reply { lines, ..Reply::default() })
}

fn lines_of(row: &PublicationRow, is_live: bool) -> Vec<String> {
    let PublicationRow { version, at, by, why, is_rollback, changes, .. } = row;
    let (mark, back) = (if is_live { "*" } else { " " }, if *is_rollback { " (rollback)" } else { "" });
    let mut lines = vec![format!("{mark} {version:016x}  {at}  by {by}{back}: {why}")];
    for what in ["went live", "`when` changed", "changed", "removed"] {
        let rules: Vec<&str> = changes.iter().filter(|(change, _)| change == what).map(|(_, rule)| &**rule).collect();
        if !rules.is_empty() {
            lines.push(format!("      {what}: {}", rules.join(", ")));
        }
    }
    lines
}

/// Goes back to a version, named by its first digits; none: the one before the live one.
pub async fn roll_back(console: &Console, version: Option<&str>, by: String, why: String) -> Result<Reply, StoreError> {
    if why.trim().is_empty() {
        return Ok(Reply::refused("a rollback needs a reason: it stands on record beside the version"));
    }
    let version = match version {
        Some(prefix) => match named(console, prefix).await? {
            Ok(version) => Some(version),
            Err(reason) => return Ok(Reply::refused(reason)),
        },
        None => None,
    };
    let went_live = match console.publisher.roll_back(version, by, why).await {
        Ok(went_live) => went_live,
        Err(error) => return refused(error),
    };
    let mut lines = lines_about(&went_live);
    lines.push("the files on disk are set aside until they change, or `rekindle reload` takes them".to_owned());
    Ok(Reply { lines, ..Reply::default() })
}

/// Takes the files on disk now; a reason is for what goes live, or for what is live already.
pub async fn reload(console: &Console, by: String, why: Option<String>) -> Result<Reply, StoreError> {
    let is_explained = why.is_some();
    let lines = match console.publisher.reload(Some(by), why).await {
        Ok(Looked::Live(went_live)) => lines_about(&went_live),
        Ok(_) if is_explained => vec!["the files on disk are live already; the reason is on record".to_owned()],
        Ok(_) => vec!["the files on disk are live already".to_owned()],
        Err(error) => return refused(error),
    };
    Ok(Reply { lines, ..Reply::default() })
}

fn lines_about(went_live: &WentLive) -> Vec<String> {
    let WentLive { version, published, made_due, .. } = went_live;
    let mut lines = vec![format!("rule set {version:016x} is live: {}", told(published))];
    if *made_due > 0 {
        lines.push(format!("{made_due} people are looked at within the next ten minutes"));
    }
    lines
}

/// The one version that begins so.
async fn named(console: &Console, prefix: &str) -> Result<Result<u64, String>, StoreError> {
    let prefix = prefix.to_lowercase();
    if prefix.len() < PREFIX_MIN {
        return Ok(Err(format!("`{prefix}` is too short for a version: give at least {PREFIX_MIN} of its digits")));
    }
    let mut versions: Vec<u64> = console.store.publications(usize::MAX).await?.into_iter().map(|row| row.version).collect();
    versions.retain(|version| format!("{version:016x}").starts_with(&prefix));
    versions.sort_unstable();
    versions.dedup();
    Ok(match versions.as_slice() {
        [version] => Ok(*version),
        [] => Err(format!("no rule set `{prefix}` went live in this database: `rekindle rollback --list` shows those that did")),
        several => Err(format!("{} rule sets begin with `{prefix}`: give more of its digits", several.len())),
    })
}

fn refused(error: PublishError) -> Result<Reply, StoreError> {
    match error {
        PublishError::Store(error) => Err(error),
        other => Ok(Reply::refused(other.to_string())),
    }
}
