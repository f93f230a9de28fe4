//! `rekindle rejects`: what came to the door and was no event, each with the sentence that says why.

use serde_json::json;

use super::{ExitCode, operator};

/// Rows read at a time.
const PAGE: usize = 500;

/// Show what senders sent that is no event, with the reason: one JSON object a line
///
/// Ends with exit code 1 if there are any. The lines hold what senders sent, personal data too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle rejects --source shop > bad.ndjson")]
pub struct Args {
    /// Only those of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    #[command(flatten)]
    operator: operator::Args,
}

/// # Errors
/// The settings are wrong, or the database cannot be opened.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let store = args.operator.existing()?.0.open_to_read().await?;
    let (mut after, mut shown) = (0, 0u64);
    loop {
        let page = store.rejects(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        for row in page.iter().filter(|row| args.source.as_deref().is_none_or(|source| *source == *row.source)) {
            shown += 1;
            let (first_at, last_at) = (row.first_at.to_string(), row.last_at.to_string());
            let line = json!({
                "source": *row.source, "reason": row.reason, "first_at": first_at, "last_at": last_at, "times": row.times, "row": row.row,
            });
            println!("{line}");
        }
    }
    store.close().await;
    Ok(if shown > 0 { ExitCode::Finding } else { ExitCode::Fine })
}
