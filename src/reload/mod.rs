//! Definitions into force while traffic flows.
//!
//! One [`Reloader`] owns the way from files to [`Live`]: it is the only writer. [`Reloader::reload`]
//! reads what changed and swaps the whole set at once; [`watch`] calls it when files change, on SIGHUP
//! and every few seconds besides, because a watch can lose events. One reload runs at a time. Called by
//! `app` (to start and to watch) and by the admin door (to reload by hand).

mod add;
mod faults;
mod record;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::base::clock::{Clock, Timestamp};
use crate::definition::assemble::{self, assemble};
use crate::definition::history::{Changes, History};
use crate::definition::live::{FileState, FileStatus, Generation, Live};
use crate::definition::load::environment::Environment;
use crate::definition::plan::limits::Limits;
use crate::definition::plan::{Auth, Integration};
use crate::definition::problem::Problem;
use crate::definition::render::{self, Report};
use crate::definition::workspace::{Deployment, Reading, Selection};
use crate::store::Audit;
use crate::store::model::AuditEntry;
use crate::telemetry::metrics::{Metrics, Whose};
use crate::telemetry::notice::{Kind, Notice, Wanted};

pub use watch::{Events, Timing, watch};

/// How long a file that has gone may take to come back before it counts as removed. Editors and volume
/// updates take a name away for a moment.
const ABSENCE: Duration = Duration::from_millis(50);

/// The way from files to what is in force.
pub struct Reloader {
    live: Arc<Live>,
    selection: Selection,
    seams: Seams,
    /// The last reading. Held only to copy it out or in.
    last: Mutex<Arc<Deployment>>,
    /// Held for the whole of a reload. Has the reading that did not end in its time: a file system may hang, and
    /// a second reading would hang as well.
    turn: tokio::sync::Mutex<Option<JoinHandle<Arc<Deployment>>>>,
    /// Since when a reading takes longer than it may.
    stalled: Mutex<Option<Timestamp>>,
    /// What was in force before.
    history: Arc<History>,
    /// Who has something to end before the reload is over.
    follower: OnceLock<Arc<dyn Follow>>,
    /// Where each generation is written down before it comes into force.
    audit: OnceLock<Arc<dyn Audit>>,
}

/// Ends what a generation leaves behind, before the next one can come into force.
#[async_trait]
pub trait Follow: fmt::Debug + Send + Sync {
    /// A generation came into force.
    async fn came(&self, generation: &Generation);
}

/// What a reloader needs from outside.
#[derive(Debug, Clone)]
pub struct Seams {
    /// What references are looked up in.
    pub environment: Arc<dyn Environment>,
    /// Tells when a generation came into force.
    pub clock: Arc<dyn Clock>,
    /// Where reloads are counted.
    pub metrics: Arc<Metrics>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// How it ended.
    pub result: ReloadResult,
    /// The generation in force after it.
    pub generation: u64,
    /// Integrations that are new.
    pub added: Vec<Arc<str>>,
    /// Integrations that are another version now.
    pub changed: Vec<Arc<str>>,
    /// Integrations that are gone.
    pub removed: Vec<Arc<str>>,
    /// Files whose present content does not count.
    pub rejected: Vec<RejectedFile>,
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    /// Something changed, and all files count.
    Applied,
    /// Nothing changed, and all files count.
    Unchanged,
    /// Some files do not count; what changed in the others is in force.
    Rejected,
    /// The files were not read in time. What they say counts as soon as they are.
    Stalled,
}

impl Outcome {
    fn changes(&self, before: &Deployment, next: &Deployment) -> Changes {
        let (added, changed, removed) = (self.added.clone(), self.changed.clone(), self.removed.clone());
        Changes { added, changed, removed, files: record::files(before, next) }
    }
}

impl ReloadResult {
    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Rejected => "rejected",
            Self::Stalled => "stalled",
        }
    }
}

/// A file whose present content does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectedFile {
    /// The file.
    pub file: String,
    /// Whether its last good version is in force.
    pub state: FileState,
    /// What is wrong, each as `path:line:col: message`; the last says how much more there is.
    pub problems: Vec<String>,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("selection", &self.selection).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Reads a deployment for the first time. Files with faults do not keep the others from starting.
    ///
    /// # Errors
    /// What is wrong, when the gateway file itself does not count.
    pub fn start(selection: Selection, seams: Seams) -> Result<(Self, Arc<Live>), Box<Report>> {
        let reading = Reading { environment: &*seams.environment, previous: None, keep_documents: false };
        let mut deployment = reading.read(&selection);
        faults::bound(&mut deployment, None);
        let now = seams.clock.now();
        let first = assemble(None, &deployment, now);
        let Some(first) = first else { return Err(Box::new(deployment.report())) };
        tell(None, &first, &deployment, &seams.metrics);
        notify(None, &first, (&seams.metrics, now));
        let history = Arc::new(History::default());
        look(&history, &deployment, (&first.gateway.limits, &seams.metrics));
        history.note(&first, first.since);
        history.came(&first, Changes::default());
        let live = Arc::new(Live::new(first));
        let last = Mutex::new(Arc::new(deployment));
        let (turn, stalled) = (tokio::sync::Mutex::default(), Mutex::default());
        let (follower, audit) = (OnceLock::new(), OnceLock::new());
        Ok((Self { live: Arc::clone(&live), selection, seams, last, turn, stalled, history, follower, audit }, live))
    }

    /// Writes down what is in force, and from now on each generation before it comes into force. The first log that is
    /// given has them.
    pub async fn recorded_in(&self, audit: Arc<dyn Audit>) {
        drop(self.audit.set(audit));
        self.record(record::entry(None, &self.live.load(), &Changes::default())).await;
    }

    /// Writes an entry, where there is a log. One that does not answer holds no reload up for longer than files may.
    async fn record(&self, entry: AuditEntry) {
        if let Some(audit) = self.audit.get() {
            record::write(audit, entry, self.time()).await;
        }
    }

    /// Tells `follower` of each generation from now on. The first one who asks for it has it.
    pub fn followed_by(&self, follower: Arc<dyn Follow>) {
        drop(self.follower.set(follower));
    }

    /// Whether a variable has a value that references get.
    pub fn has_variable(&self, name: &str) -> bool {
        self.seams.environment.variable(name).is_ok()
    }

    /// Writes a new definition file into the first directory of definitions that the gateway file names. It counts from
    /// the next reload on. Waits for the disk.
    ///
    /// # Errors
    /// When there is no such directory, it cannot be written, or has a file of this name.
    pub fn add_file(&self, name: &str, text: &str) -> std::io::Result<std::path::PathBuf> {
        let generation = self.live.load();
        let directory = generation.gateway.fixed.integrations.iter().find(|path| path.is_dir());
        let none =
            || std::io::Error::new(std::io::ErrorKind::NotFound, "the gateway file names no directory of definitions");
        add::add(directory.ok_or_else(none)?, name, text)
    }

    /// What was in force before.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// What is in force.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The files as they were last read.
    pub fn deployment(&self) -> Arc<Deployment> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Since when the files cannot be read because whatever they are on does not answer.
    pub fn stalled(&self) -> Option<Timestamp> {
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what changed and puts it into force. A second call waits for the first. Files that are not read within
    /// `limits.files_time` change nothing yet.
    pub async fn reload(self: &Arc<Self>) -> Outcome {
        let mut under_way = self.turn.lock().await;
        let before = self.deployment();
        let Some(mut next) = self.read(&before, &mut under_way).await else { return self.unread() };
        if lost_files(&before, &next) {
            tokio::time::sleep(ABSENCE).await;
            match self.read(&before, &mut under_way).await {
                Some(again) => next = again,
                None => return self.unread(),
            }
        }
        let (read, before) = (before, self.live.load());
        let outcome = self.apply(&read, &next).await;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = next;
        self.follow(&before).await;
        outcome
    }

    /// Has ended what another generation leaves behind. In a task of its own: whoever asked for the reload may leave, and a
    /// store that does not answer holds no reload up for longer than files may.
    async fn follow(&self, before: &Arc<Generation>) {
        let now = self.live.load();
        let Some(follower) = self.follower.get().filter(|_| !Arc::ptr_eq(before, &now)).cloned() else { return };
        // A panic in it has been logged by the process's hook.
        let ending = tokio::spawn(async move { follower.came(&now).await });
        drop(tokio::time::timeout(self.time(), ending).await);
    }

    /// What the files say; `None` when they do not say it in time. That reading goes on, and is what the next call
    /// waits for. It stays in `under_way` meanwhile, so that a call which is given up leaves no thread behind that
    /// nobody knows of.
    async fn read(
        self: &Arc<Self>,
        before: &Arc<Deployment>,
        under_way: &mut Option<JoinHandle<Arc<Deployment>>>,
    ) -> Option<Arc<Deployment>> {
        let limit = self.time();
        let reading = under_way.get_or_insert_with(|| self.begin(before));
        let Ok(read) = tokio::time::timeout(limit, reading).await else {
            self.tell_stalled(limit);
            return None;
        };
        *under_way = None;
        if self.stalled.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            info!("the files of the deployment can be read again");
        }
        // A reader that panicked changes nothing; the panic itself is in the log.
        Some(read.unwrap_or_else(|_| Arc::clone(before)))
    }

    fn begin(self: &Arc<Self>, before: &Arc<Deployment>) -> JoinHandle<Arc<Deployment>> {
        let (this, last) = (Arc::clone(self), Arc::clone(before));
        tokio::task::spawn_blocking(move || {
            let environment = &*this.seams.environment;
            let reading = Reading { environment, previous: Some(&last), keep_documents: false };
            let mut read = reading.read(&this.selection);
            let live = this.live.load();
            faults::bound(&mut read, Some(&live.gateway.limits));
            look(&this.history, &read, (&live.gateway.limits, &this.seams.metrics));
            Arc::new(read)
        })
    }

    /// How long a reading may take before it is told.
    fn time(&self) -> Duration {
        self.live.load().gateway.limits.files_time
    }

    /// Says once that the files cannot be read, until they can.
    fn tell_stalled(&self, limit: Duration) {
        let mut stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if stalled.is_none() {
            *stalled = Some(self.seams.clock.now());
            warn!(
                "the files of the deployment were not read within {limit:?}: what they are on does not answer, or is \
                 slow. What was read last stays in force, and changes count when it answers"
            );
        }
    }

    /// The end of a reload that read nothing.
    fn unread(&self) -> Outcome {
        let (result, now) = (ReloadResult::Stalled, self.live.load());
        self.seams.metrics.config_reloads.with_label_values(&[result.label()]).inc();
        Outcome { result, ..outcome(&now, &now) }
    }

    /// Puts what was read into force, where it differs from what was read before.
    async fn apply(&self, before: &Deployment, deployment: &Deployment) -> Outcome {
        let metrics = &self.seams.metrics;
        let previous = self.live.load();
        let now = self.seams.clock.now();
        self.seams.environment.named(&deployment.referenced_secrets());
        let Some(next) = assemble(Some(&previous), deployment, now) else {
            // Only a selection without a gateway file ends here, and such a one never started.
            return outcome(&previous, &previous);
        };
        let outcome = outcome(&previous, &next);
        let same = next.fingerprint == previous.fingerprint && same_files(&next, &previous);
        let changes = (!same).then(|| outcome.changes(before, deployment));
        // Before anything else: whoever asked may leave while it is written, and then nothing has happened yet.
        if let Some(changes) = &changes {
            self.record(record::entry(Some(&previous), &next, changes)).await;
        }
        // A comment is another text in the same generation.
        self.history.note(if same { &previous } else { &next }, now);
        metrics.config_reloads.with_label_values(&[outcome.result.label()]).inc();
        if outcome.rejected.is_empty() {
            let seconds = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
            metrics.config_last_success.with_label_values::<&str>(&[]).set(seconds);
        }
        let Some(changes) = changes else { return Outcome { generation: previous.number, ..outcome } };
        if previous.gateway.fixed != next.gateway.fixed {
            warn!("settings changed that take effect when the gateway is started again");
        }
        tell(Some(&previous), &next, deployment, metrics);
        notify(Some(&previous), &next, (metrics, now));
        self.history.came(&next, changes);
        self.live.swap(next);
        outcome
    }
}

/// Keeps the texts of files that are not what they were, within the bound for them.
fn look(history: &History, read: &Deployment, (limits, metrics): (&Limits, &Metrics)) {
    let left_out = history.look(read, limits.config_history_bytes);
    metrics.admin_limits_reached.with_label_values(&["config_history_bytes"]).inc_by(left_out);
}

/// Whether a file or directory that was there is not there now.
fn lost_files(before: &Deployment, after: &Deployment) -> bool {
    let now: std::collections::HashSet<_> = after.integrations.iter().map(|read| read.file.as_os_str()).collect();
    let unread = |read: &Problem| read.code == crate::definition::problem::Code::Unreadable;
    before.integrations.iter().any(|read| !now.contains(read.file.as_os_str()))
        || !after.unreadable.is_empty()
        || after.integrations.iter().any(|read| read.problems.iter().any(unread))
        || after.gateway.as_ref().is_some_and(|read| read.problems.iter().any(unread))
}

fn same_files(a: &Generation, b: &Generation) -> bool {
    let same = |(a, b): (&FileStatus, &FileStatus)| {
        let same_problems = Arc::ptr_eq(&a.problems, &b.problems) || a.problems == b.problems;
        a.file == b.file && a.state == b.state && same_problems && a.left_out == b.left_out
    };
    a.files.len() == b.files.len() && a.files.iter().zip(&b.files).all(same)
}

fn outcome(previous: &Generation, next: &Generation) -> Outcome {
    let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (previous.integrations.iter().collect(), next.integrations.iter().collect());
    let ids = |keep: &dyn Fn(&Arc<str>) -> bool, of: &BTreeMap<&Arc<str>, _>| -> Vec<Arc<str>> {
        of.keys().filter(|id| keep(id)).map(|id| Arc::clone(id)).collect()
    };
    let added = ids(&|id| !old.contains_key(id), &new);
    let removed = ids(&|id| !new.contains_key(id), &old);
    let changed = ids(&|id| old.get(id).is_some_and(|before| !Arc::ptr_eq(before, new[id])), &new);
    let rejected: Vec<RejectedFile> = next.rejected().map(RejectedFile::of).collect();
    let result = match (rejected.is_empty(), previous.fingerprint == next.fingerprint) {
        (false, _) => ReloadResult::Rejected,
        (true, true) => ReloadResult::Unchanged,
        (true, false) => ReloadResult::Applied,
    };
    Outcome { result, generation: next.number, added, changed, removed, rejected }
}

impl RejectedFile {
    fn of(status: &FileStatus) -> Self {
        let (file, state) = (status.file.display().to_string(), status.state);
        Self { file, state, problems: render::faults(status) }
    }
}

/// Says in the log and the metrics what came into force. What is wrong with a file is told when it is new.
fn tell(previous: Option<&Generation>, generation: &Generation, deployment: &Deployment, metrics: &Metrics) {
    let of = |state: FileState| generation.files.iter().filter(|file| file.state == state).count();
    let rejected = generation.rejected().count();
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.config_generation.with_label_values::<&str>(&[]).set(i64::try_from(generation.number).unwrap_or(i64::MAX));
    for (label, state) in [("loaded", FileState::Loaded), ("kept", FileState::Kept), ("rejected", FileState::Rejected)]
    {
        metrics.definitions.with_label_values(&[label]).set(gauge(of(state)));
    }
    generation.integrations.values().for_each(|integration| begin(integration, metrics));
    faults::tell(previous, generation, metrics);
    info!(
        config.generation = generation.number,
        config.integrations = generation.integrations.len(),
        config.rejected = rejected,
        config.directories = deployment.directories.len(),
        "configuration generation {} is in force: {} integrations, {rejected} files refused",
        generation.number,
        generation.integrations.len(),
    );
}

/// What may be counted of an integration is there before it is.
fn begin(integration: &Integration, metrics: &Metrics) {
    if integration.webhook.is_some() {
        metrics.begin(Whose::Webhooks, &integration.id);
    }
    if matches!(integration.auth, Auth::OAuth2(_)) {
        metrics.begin(Whose::Tokens, &integration.id);
    }
}

/// Tells people which files count no more, and which count again.
fn notify(previous: Option<&Generation>, next: &Generation, (metrics, now): (&Metrics, Timestamp)) {
    let wanted = if next.gateway.own.rules.is_empty() { Wanted::No } else { Wanted::Yes };
    metrics.notices.want(wanted);
    let before = previous.map(|last| assemble::index(&last.files)).unwrap_or_default();
    let counts = |status: &FileStatus| status.state == FileState::Loaded;
    for status in next.files.iter().filter(|status| !counts(status)) {
        if before.get(status.file.as_os_str()).is_none_or(|last| counts(last)) {
            metrics.notices.tell(|| rejected(status, now));
        }
    }
    let after = assemble::index(&next.files);
    for status in before.values().filter(|status| !counts(status)) {
        match after.get(status.file.as_os_str()) {
            Some(now) if !counts(now) => {}
            found => metrics.notices.tell(|| recovered(status, found.copied(), now)),
        }
    }
}

fn rejected(status: &FileStatus, now: Timestamp) -> Notice {
    let file = status.file.display();
    let what = match status.state {
        FileState::Rejected => format!("`{file}` does not count, and no version of it is in force."),
        FileState::Kept | FileState::Loaded => {
            format!("`{file}` does not count; its last good version stays in force.")
        }
    };
    let mut errors = status.errors();
    let why = errors.next().map(render::line).unwrap_or_default();
    let why = match errors.count() + status.left_out.errors {
        0 => why,
        more => format!("{why} (and {more} more)"),
    };
    let step = "Mend the file: `trunkline check` shows all that is wrong.";
    of_file(Notice::new(Kind::ConfigRejected, now, what, step).because(why), status)
}

fn recovered(before: &FileStatus, found: Option<&FileStatus>, now: Timestamp) -> Notice {
    let file = before.file.display();
    let what = match found {
        Some(_) => format!("`{file}` counts again."),
        None => format!("`{file}`, which did not count, is gone."),
    };
    of_file(Notice::new(Kind::ConfigRecovered, now, what, "Nothing."), found.unwrap_or(before))
}

fn of_file(notice: Notice, status: &FileStatus) -> Notice {
    Notice { integration: status.integration.clone(), ..notice }
        .at("/configuration")
        .with("file", status.file.display().to_string())
}
