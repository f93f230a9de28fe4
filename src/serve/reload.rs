//! Rules change while the daemon runs: the rules directory is watched, and looked at every few seconds all the same. Mounted
//! configuration is swapped by links, network file systems tell nothing, and a watch can be lost: only the second way sees everything.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};

use crate::versions::publisher::{Looked, Publisher};

/// Between two looks when nobody said that anything has changed.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Files must stand still for so long before they are taken.
pub const STILL: Duration = Duration::from_millis(400);

/// Looks after the rules directory until told to shut down.
pub async fn run(publisher: &Publisher, directory: &Path, mut shutdown: watch::Receiver<bool>) {
    let changed = Arc::new(Notify::new());
    let _watcher = watch(&[directory], changed.clone());
    let mut wait = LOOK_EVERY;
    while !*shutdown.borrow() {
        tokio::select! {
            // an editor writes several times in a moment
            () = changed.notified() => tokio::time::sleep(STILL).await,
            () = tokio::time::sleep(wait) => {}
            _ = shutdown.changed() => continue,
        }
        wait = match publisher.look().await {
            Ok(Looked::Changing) => STILL,
            Ok(_) => LOOK_EVERY,
            Err(error) => {
                tracing::error!("cannot put the rules on disk live, trying again: {error}");
                LOOK_EVERY
            }
        };
    }
}

/// The watch ends when what is returned is dropped. Without one the directories are still looked at now and then.
pub fn watch(directories: &[&Path], changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // reading the files, as we do ourselves, is an event too
        if event.as_ref().map_or(true, |event| !event.kind.is_access()) {
            changed.notify_one();
        }
    });
    let watching = watcher.and_then(|mut watcher| {
        directories.iter().try_for_each(|directory| watcher.watch(directory, RecursiveMode::Recursive))?;
        Ok(watcher)
    });
    watching.inspect_err(|error| tracing::warn!("files are not watched, only looked at now and then: {error}")).ok()
}
