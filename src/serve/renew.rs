//! Secrets are renewed while the daemon runs: the administrator's file, and every file that it refers to, are looked at as the rules are.
//! Whatever is said there of providers, secrets and the public address is put in place as one; what is being sent ends as it began. What
//! is wrong leaves everything as it was, and is told. The rest of the file counts from the next start on; so does the environment, which
//! nobody can change for a process that runs.

use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use twox_hash::XxHash3_64;

use super::reload::{LOOK_EVERY, STILL, watch as watch_files};
use crate::channel::recording::Recording;
use crate::channel::{self, Channels};
use crate::feedback::http::Partners;
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::telemetry::vitals::Part;
use crate::versions::RuleVersions;

/// What is kept up to date, and with what.
pub struct Renewal {
    pub settings: Settings,
    /// None: nothing is sent here whatever the file says.
    pub channels: Option<(Channels, Option<Arc<Recording>>)>,
    pub partners: Arc<ArcSwap<Partners>>,
    pub rules: Arc<RuleVersions>,
    pub telemetry: Arc<Telemetry>,
}

/// Looks after the files until told to shut down.
pub async fn run(mut renewal: Renewal, mut shutdown: watch::Receiver<bool>) {
    // the defaults do not change
    let Some(path) = renewal.settings.files.first().cloned() else { return };
    let changed = Arc::new(Notify::new());
    let mut seen = Some(fingerprint(&renewal.settings.files));
    let mut refused = None;
    while !*shutdown.borrow() {
        let directories = directories(&renewal.settings.files);
        let _watcher = watch_files(&directories, changed.clone());
        tokio::select! {
            () = changed.notified() => tokio::time::sleep(STILL).await,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = shutdown.changed() => continue,
        }
        let files = renewal.settings.files.clone();
        // taken before they are read: what changes meanwhile is seen the next time
        let present = fingerprint(&files);
        // what was refused may be mended by a file that nobody knew of
        if refused.is_some() || Some(present) != seen {
            refused = renewal.look(&path, refused);
            seen = (renewal.settings.files == files).then_some(present);
        }
    }
}

/// Where the files stand: a mounted secret is replaced by swapping links beside it.
fn directories(files: &[PathBuf]) -> Vec<&Path> {
    let mut directories: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    directories.retain(|directory| !directory.as_os_str().is_empty());
    directories.sort_unstable();
    directories.dedup();
    directories
}

impl Renewal {
    /// Takes the file as it is now; what is wrong with it, if anything, is told once.
    fn look(&mut self, path: &Path, told: Option<String>) -> Option<String> {
        let taken = Settings::load(Some(path)).map_err(|error| error.to_string()).and_then(|read| self.take(&read));
        self.telemetry.metrics.settings_failed.set(taken.is_err().into());
        let Err(why) = taken else {
            self.telemetry.vitals.note(Part::Settings, None);
            tracing::info!("providers and secrets are renewed");
            return None;
        };
        if told.as_ref() != Some(&why) {
            let note = "the settings on disk, or a secret, are refused; what was read before stands (the log says why)";
            self.telemetry.vitals.note(Part::Settings, Some(note.to_owned()));
            tracing::error!("the settings on disk are refused, what was read before stands: {why}");
        }
        Some(why)
    }

    fn take(&mut self, read: &Settings) -> Result<(), String> {
        let renewed = self.settings.renewed_by(read);
        let partners = Partners::of(&renewed)?;
        if let Some((channels, recording)) = &self.channels {
            let others = Channels::from(&renewed, recording.clone()).map_err(|error| error.to_string())?;
            channels.replace(&others);
        }
        self.partners.store(Arc::new(partners));
        if renewed != *read {
            tracing::warn!("other settings have changed too: they count from the next start on");
        }
        for finding in channel::lacking(&renewed, &self.rules.snapshot().rules) {
            tracing::error!("{}; {}", finding.message, finding.help.unwrap_or_default());
        }
        self.settings = renewed;
        Ok(())
    }
}

/// Of the files' contents; one that cannot be read has one too.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hash = XxHash3_64::new();
    for file in files {
        hash.write(file.as_os_str().as_encoded_bytes());
        hash.write(&std::fs::read(file).unwrap_or_default());
    }
    hash.finish()
}
