//! When to reload: file events, SIGHUP, and a slow poll besides.
//!
//! What is watched are directories, never files: an editor or a volume update puts another file in a
//! name's place, and a watch on the old one goes deaf. Events only say that it is time to look; the
//! look itself compares content, so a lost, merged or misread event costs at most one poll interval. What
//! others write beside the files that matter, such as a log, is no reason to look, nor to wait until it ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf, absolute};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Reloader;
use crate::definition::workspace::{Deployment, is_yaml};

/// How long things are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Without a further event for this long, a change is complete. Default 100 ms.
    pub quiet: Duration,
    /// A change is looked at after this long, events or not. Default 2 s.
    pub most: Duration,
    /// How often files are looked at without any event. Default 10 s.
    pub poll: Duration,
    /// How often they are looked at where nothing tells of events. Default 2 s.
    pub poll_alone: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let (quiet, most) = (Duration::from_millis(100), Duration::from_secs(2));
        Self { quiet, most, poll: Duration::from_secs(10), poll_alone: Duration::from_secs(2) }
    }
}

/// What tells of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// The system's file events, where it has any left to give.
    System,
    /// Nothing, as on file systems and machines without file events: files are polled.
    None,
}

/// Reloads whenever there is reason to, until `stop` is cancelled.
pub async fn watch(reloader: Arc<Reloader>, events: Events, timing: Timing, stop: CancellationToken) {
    let (woken, mut wake) = mpsc::channel(1);
    let mut watching = match events {
        Events::System => Watcher::new(woken.clone()).map_or(Watching::Nothing, Watching::Here),
        Events::None => Watching::Nothing,
    };
    let mut hangup = signal(SignalKind::hangup()).ok();
    // What changed between the first read and the start of the watch is found by this first look.
    loop {
        watching = watching.follow(&reloader).await;
        reloader.reload().await;
        watching = watching.follow(&reloader).await;
        let alone = !matches!(watching, Watching::Here(_));
        let poll = if alone { timing.poll.min(timing.poll_alone) } else { timing.poll };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(poll) => {}
            () = next_hangup(&mut hangup) => info!("reading the configuration again because of SIGHUP"),
            Some(()) = wake.recv() => settle(&mut wake, timing).await,
        }
    }
}

async fn next_hangup(hangup: &mut Option<tokio::signal::unix::Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Waits until no event comes for a while, but not for ever.
async fn settle(wake: &mut mpsc::Receiver<()>, timing: Timing) {
    let quiet = async { while let Ok(Some(())) = tokio::time::timeout(timing.quiet, wake.recv()).await {} };
    // Either end is a reason to look.
    drop(tokio::time::timeout(timing.most, quiet).await);
}

/// What tells of file events.
enum Watching {
    /// Nothing: files are polled.
    Nothing,
    /// The system.
    Here(Watcher),
    /// The system, once it has answered: to watch a directory on a file system that hangs hangs as well.
    Away(JoinHandle<Watcher>),
}

impl Watching {
    /// Watches what the deployment depends on now, as soon as the system lets it.
    async fn follow(self, reloader: &Arc<Reloader>) -> Self {
        let mut away = match self {
            Self::Nothing => return self,
            Self::Away(ref away) if !away.is_finished() => return self,
            Self::Away(away) => away,
            Self::Here(mut watcher) => {
                let deployment = reloader.deployment();
                tokio::task::spawn_blocking(move || {
                    watcher.follow(&deployment);
                    watcher
                })
            }
        };
        match tokio::time::timeout(reloader.time(), &mut away).await {
            Ok(Ok(watcher)) => Self::Here(watcher),
            // Its panic is in the log.
            Ok(Err(_)) => Self::Nothing,
            Err(_elapsed) => Self::Away(away),
        }
    }
}

/// The directories that are watched.
struct Watcher {
    system: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    refused: BTreeSet<PathBuf>,
    wanted: Arc<RwLock<Wanted>>,
    woken: mpsc::Sender<()>,
}

impl Watcher {
    /// A watcher, or `None` where the system has none left; then polling does.
    fn new(woken: mpsc::Sender<()>) -> Option<Self> {
        let wanted = Arc::<RwLock<Wanted>>::default();
        let (asked, awoken) = (Arc::clone(&wanted), woken.clone());
        let heeding = move |event| heed(&event, &asked.read().unwrap_or_else(PoisonError::into_inner), &awoken);
        match notify::recommended_watcher(heeding) {
            Ok(system) => {
                let (watched, refused) = (BTreeSet::new(), BTreeSet::new());
                Some(Self { system, watched, refused, wanted, woken })
            }
            Err(error) => {
                warn!("files are polled, because they cannot be watched: {error}");
                None
            }
        }
    }

    /// From here on this is what matters. What changed of it since it was read, and before anybody heeded it, is found
    /// by another look.
    fn want(&mut self, wanted: Wanted) {
        let mut known = self.wanted.write().unwrap_or_else(PoisonError::into_inner);
        let was = std::mem::replace(&mut *known, wanted);
        if was != Wanted::default() && was != *known {
            self.woken.try_send(()).unwrap_or_default();
        }
    }

    /// Watches the directories that a deployment depends on, and no others.
    fn follow(&mut self, deployment: &Deployment) {
        let wanted = directories(deployment);
        self.want(Wanted::of(deployment, &wanted));
        for gone in self.watched.difference(&wanted) {
            // A directory that is gone took its watch with it.
            drop(self.system.unwatch(gone));
        }
        self.watched.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            if self.watched.contains(&directory) {
                continue;
            }
            match self.system.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.refused.remove(&directory);
                    self.watched.insert(directory);
                }
                Err(error) if self.refused.insert(directory.clone()) => {
                    warn!(config.directory = %directory.display(), "a directory is polled, because it cannot be watched: {error}");
                }
                Err(_) => {}
            }
        }
    }
}

/// What is heeded in the directories that are watched, by absolute paths.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Directories of definitions: what is called like one in them is one.
    definitions: BTreeSet<PathBuf>,
    /// Other files that are read, those that they are links to, and the watched directories themselves.
    names: BTreeSet<PathBuf>,
}

impl Wanted {
    /// What matters of a deployment for which these directories are watched.
    fn of(deployment: &Deployment, watched: &BTreeSet<PathBuf>) -> Self {
        let definitions: BTreeSet<_> = deployment.directories.iter().filter_map(|path| absolute(path).ok()).collect();
        let integrations = deployment.integrations.iter().map(|read| read.file.as_path());
        // Most are in such a directory, where all of them matter.
        let single =
            integrations.filter(|file| file.parent().is_none_or(|home| !deployment.directories.contains(home)));
        let gateway = deployment.gateway.iter().map(|gateway| gateway.file.as_path());
        let mut files: BTreeSet<_> = single.chain(gateway).map(Path::to_owned).collect();
        files.extend(deployment.referenced_files());
        let target = |file: &PathBuf| Some(file.parent()?.join(std::fs::read_link(file).ok()?));
        let targets: Vec<_> = files.iter().filter_map(target).collect();
        let names = files.into_iter().chain(targets).chain(watched.iter().cloned());
        Self {
            names: names.chain(deployment.unreadable.clone()).filter_map(|path| absolute(path).ok()).collect(),
            definitions,
        }
    }

    /// Whether an event tells of what matters.
    fn has(&self, event: &notify::Event) -> bool {
        event.paths.is_empty() || event.paths.iter().any(|path| self.has_path(path, event.kind))
    }

    fn has_path(&self, path: &Path, kind: EventKind) -> bool {
        let is_within = || path.parent().is_some_and(|home| self.definitions.contains(home));
        // What comes or goes may be a link, or a directory, that another path leads through, such as Kubernetes' `..data`.
        !is_content(kind) || self.names.contains(path) || is_yaml(path) && is_within()
    }
}

/// Whether no name came or went.
fn is_content(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)))
}

/// Wakes the watch for what may be a change. An error and a lost event (the kernel's queue ran over) may
/// hide one.
fn heed(event: &notify::Result<notify::Event>, wanted: &Wanted, woken: &mpsc::Sender<()>) {
    if event.as_ref().map_or(true, |event| event.need_rescan() || is_change(event) && wanted.has(event)) {
        // When the channel is full, a look is due already.
        woken.try_send(()).unwrap_or_default();
    }
}

/// Reading a file is an event too, and no change.
fn is_change(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The directories whose entries matter: those of definitions, those they stand in (a directory may be a
/// link that is put in place), the gateway file's, and those of referenced files.
fn directories(deployment: &Deployment) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let mut directories = deployment.directories.clone();
    directories.extend(deployment.directories.iter().filter_map(|directory| parent(directory)));
    directories.extend(deployment.unreadable.iter().filter_map(|directory| parent(directory)));
    directories.extend(deployment.gateway.iter().filter_map(|gateway| parent(&gateway.file)));
    directories.extend(deployment.integrations.iter().filter_map(|read| parent(&read.file)));
    directories.extend(deployment.referenced_files().iter().filter_map(|file| parent(file)));
    directories
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, Flag, RemoveKind, RenameMode};
    use notify::{Error, Event};

    fn wakes(event: &notify::Result<Event>, wanted: &Wanted) -> bool {
        let (woken, mut wake) = mpsc::channel(1);
        heed(event, wanted, &woken);
        wake.try_recv().is_ok()
    }

    #[test]
    fn what_is_written_beside_the_files_that_matter_does_not_wake() {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let wanted = Wanted {
            definitions: paths(&["/etc/trunkline/integrations"]),
            names: paths(&[
                "/etc/trunkline",
                "/etc/trunkline/integrations",
                "/etc/trunkline/trunkline.yaml",
                "/run/key",
            ]),
        };
        let content = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let made = EventKind::Create(CreateKind::Any);
        for (path, kind, does) in [
            ("/etc/trunkline/trunkline.yaml", content, true),
            ("/etc/trunkline/./trunkline.yaml", written, true),
            ("/etc/trunkline/access.log", content, false),
            ("/etc/trunkline/access.log", written, false),
            ("/etc/trunkline/other.yaml", content, false),
            ("/etc/trunkline/current", renamed, true),
            ("/etc/trunkline/..data", renamed, true),
            ("/etc/trunkline/integrations", renamed, true),
            ("/etc/trunkline", EventKind::Remove(RemoveKind::Folder), true),
            ("/etc/trunkline/integrations/a.yaml", content, true),
            ("/etc/trunkline/integrations/b.yml", made, true),
            ("/etc/trunkline/integrations/more", made, true),
            ("/etc/trunkline/integrations/a.log", written, false),
            ("/run/key", renamed, true),
            ("/run/other", content, false),
        ] {
            let event = Event::new(kind).add_path(PathBuf::from(path));
            assert_eq!(wakes(&Ok(event), &wanted), does, "{path} {kind:?}");
        }
        let renamed = Event::new(renamed).add_path("/run/new".into()).add_path("/run/key".into());
        assert!(wakes(&Ok(renamed), &wanted), "the second of its names");
    }

    #[test]
    fn a_change_a_lost_event_and_an_error_wake_and_a_mere_look_does_not() {
        let wakes = |event: notify::Result<Event>| wakes(&event, &Wanted::default());
        let access = |kind| Event::new(EventKind::Access(kind));
        assert!(!wakes(Ok(access(AccessKind::Open(AccessMode::Read)))));
        assert!(!wakes(Ok(access(AccessKind::Close(AccessMode::Read)))));
        assert!(wakes(Ok(access(AccessKind::Close(AccessMode::Write)))));
        assert!(wakes(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan))), "the kernel's queue ran over");
        assert!(wakes(Ok(access(AccessKind::Any).set_flag(Flag::Rescan))));
        assert!(wakes(Err(Error::generic("no idea"))));
    }
}
