//! When to reload: file events, SIGHUP, and a slow poll besides.
//!
//! What is watched are directories, never files: an editor or a volume update puts another file in a
//! name's place, and a watch on the old one goes deaf. Events only say that it is time to look; the
//! look itself compares content, so a lost, merged or misread event costs at most one poll interval. What
//! others write beside the files that matter, such as a log, is no reason to look, nor to wait until it ends.

use std::collections::{BTreeMap, BTreeSet};
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
    watching = watching.update(&reloader, Watcher::follow).await;
    // What changed between the first read and the start of the watch is found by this first look.
    loop {
        watching = watching.update(&reloader, Watcher::renew).await;
        reloader.reload().await;
        watching = watching.update(&reloader, Watcher::follow).await;
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
    /// Changes what is watched, as soon as the system lets it.
    async fn update(self, reloader: &Arc<Reloader>, change: fn(&mut Watcher, &Deployment)) -> Self {
        let mut away = match self {
            Self::Nothing => return self,
            Self::Away(ref away) if !away.is_finished() => return self,
            Self::Away(away) => away,
            Self::Here(mut watcher) => {
                let deployment = reloader.deployment();
                tokio::task::spawn_blocking(move || {
                    change(&mut watcher, &deployment);
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

    /// Watches the same directories by their names, before they are looked at: another may stand in the place of one.
    fn renew(&mut self, _deployment: &Deployment) {
        for directory in &self.watched {
            // One that is gone is missed by its own watch, or by that of its parent.
            drop(self.system.watch(directory, RecursiveMode::NonRecursive));
        }
    }

    /// Watches the directories that a deployment depends on, and no others.
    fn follow(&mut self, deployment: &Deployment) {
        let wanted = Wanted::of(deployment);
        let directories: BTreeSet<_> = wanted.directories.union(&wanted.ways).cloned().collect();
        self.want(wanted);
        for gone in self.watched.difference(&directories) {
            // A directory that is gone took its watch with it.
            drop(self.system.unwatch(gone));
        }
        self.watched.retain(|directory| directories.contains(directory));
        let new: Vec<_> = directories.difference(&self.watched).cloned().collect();
        for directory in new {
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

/// What is heeded, by where it really stands: a directory that is watched by two names tells of one of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// The directories that are watched, in which any name that comes or goes may matter: a link, or a directory, that another
    /// path leads through, such as Kubernetes' `..data`.
    directories: BTreeSet<PathBuf>,
    /// Those that are watched because links stand in them, or the way to another ends in them: there only what is named counts.
    ways: BTreeSet<PathBuf>,
    /// Directories of definitions: what is called like one in them is one.
    definitions: BTreeSet<PathBuf>,
    /// Other files that are read, what they and their directories are links to, and the directories themselves.
    names: BTreeSet<PathBuf>,
}

impl Wanted {
    /// What matters of a deployment: its files, the directories of definitions and those they stand in (a directory may be
    /// a link that is put in place), and whatever any of them is a link to.
    fn of(deployment: &Deployment) -> Self {
        let mut trail = Trail::default();
        let integrations = deployment.integrations.iter().map(|read| read.file.as_path());
        let gateway = deployment.gateway.iter().map(|gateway| gateway.file.as_path());
        let referenced = deployment.referenced_files();
        let directories = deployment.directories.iter().chain(&deployment.unreadable).map(PathBuf::as_path);
        let files = integrations.chain(gateway).chain(referenced.iter().map(PathBuf::as_path));
        let homes: BTreeSet<_> = files.chain(directories).filter_map(|path| trail.add(path, LINKS)).collect();
        let definitions: BTreeSet<_> =
            deployment.directories.iter().map(|directory| trail.home(directory, LINKS)).collect();
        let directories: BTreeSet<_> = homes.into_iter().chain(definitions.iter().cloned()).collect();
        let names = trail.names.into_iter().chain(directories.iter().cloned()).collect();
        Self { directories, ways: trail.ways, definitions, names }
    }

    /// Whether an event tells of what matters.
    fn has(&self, event: &notify::Event) -> bool {
        event.paths.is_empty() || event.paths.iter().any(|path| self.has_path(path, event.kind))
    }

    fn has_path(&self, path: &Path, kind: EventKind) -> bool {
        let is_within = |homes: &BTreeSet<PathBuf>| path.parent().is_some_and(|home| homes.contains(home));
        let is_new = !is_content(kind) && is_within(&self.directories);
        is_new || self.names.contains(path) || is_yaml(path) && is_within(&self.definitions)
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

/// The most links that are followed one after the other, as the kernel has it.
const LINKS: usize = 40;

/// Finds what paths lead through.
#[derive(Default)]
struct Trail {
    names: BTreeSet<PathBuf>,
    /// The directories in which they stand.
    ways: BTreeSet<PathBuf>,
    /// Where directories really are.
    homes: BTreeMap<PathBuf, PathBuf>,
}

impl Trail {
    /// Adds a file or a directory, and what it is a link to, over so many links at most. Answers where it stands.
    fn add(&mut self, path: &Path, links: usize) -> Option<PathBuf> {
        // A relative one may have no parent.
        let path = absolute(path).unwrap_or_else(|_| path.to_owned());
        let (home, name) = (path.parent()?, path.file_name()?);
        let home = self.home(home, links);
        let place = home.join(name);
        if let (Ok(target), Some(links)) = (std::fs::read_link(&place), links.checked_sub(1)) {
            self.add(&home.join(target), links);
        }
        self.names.insert(place);
        self.ways.insert(home.clone());
        Some(home)
    }

    /// Where a directory really is. Links on the way to it are added.
    fn home(&mut self, directory: &Path, links: usize) -> PathBuf {
        if let Some(known) = self.homes.get(directory) {
            return known.clone();
        }
        let named = absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let real = std::fs::canonicalize(&named).unwrap_or_else(|_| {
            self.await_return(&named);
            named.clone()
        });
        self.homes.insert(directory.to_owned(), real.clone());
        let is_link = |path: &&Path| std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        for link in named.ancestors().filter(is_link) {
            self.add(link, links);
        }
        real
    }

    /// Where the way to a directory that is gone ends is told when it goes on.
    fn await_return(&mut self, gone: &Path) {
        let there = |next: &'_ Path| Some((std::fs::canonicalize(next.parent()?).ok()?, next.file_name()?.to_owned()));
        if let Some((way, next)) = gone.ancestors().find_map(there) {
            self.names.insert(way.join(next));
            self.ways.insert(way);
        }
    }
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
            directories: paths(&["/etc/trunkline", "/etc/trunkline/integrations"]),
            ways: paths(&["/run"]),
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
            ("/run/other", renamed, false),
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
