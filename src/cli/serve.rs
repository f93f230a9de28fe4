//! `rekindle serve`: the daemon.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::ExitCode;
use crate::serve::{self, Role};
use crate::settings::Settings;
use crate::telemetry;

/// Run Rekindle: take events in, decide, send, and hear back, until told to stop
///
/// Stops on SIGTERM or Ctrl-C: takes no new work, ends what is under way, and leaves the rest for the next start. A second one ends it
/// at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  $ rekindle serve --config rekindle.yaml")]
pub struct Args {
    /// Settings that differ from the defaults (`config/rekindle.yaml`)
    #[arg(long, value_name = "FILE", env = "REKINDLE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Services that this process runs [default: all of them]
    #[arg(long = "role", value_name = "ROLE", value_enum)]
    pub roles: Vec<Role>,
    /// Who stands beside rules that change on disk [default: the owner of the files]
    #[arg(long, value_name = "NAME", env = "REKINDLE_BY")]
    pub by: Option<String>,
}

pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(args.config.as_deref())?;
    telemetry::start(&settings.logs)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut told = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let stop = async move {
        told().await;
        tokio::spawn(async move {
            told().await;
            tracing::warn!("told to stop once more: ending at once; what is still being sent is recorded as unknown at the next start");
            std::process::exit(ExitCode::Finding as i32);
        });
    };
    let roles = if args.roles.is_empty() { Role::ALL.to_vec() } else { args.roles };
    serve::run(settings, &roles, args.by, stop).await?;
    Ok(ExitCode::Fine)
}
