//! Everything sealed, sealed anew by the newest key, while the deployment runs.
//!
//! A record is opened, sealed by the newest key, and put back only if it is still the one that was opened;
//! a record that someone else wrote meanwhile is looked at again. So no write is lost, and every record is
//! readable at every moment: it is wholly sealed by the old key or wholly by the new, and the ring holds
//! both. The key id in a record's head is the only state, so that a rotation which is cut off anywhere goes
//! on from where it was ([`Keys::resume`](super::keys::Keys::resume)), and one that is begun twice does no
//! harm.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::keyring::KeyId;
use super::vault::{self, SealedRecord, Vault, VaultError, sealed_by};
use crate::base::clock::{Clock, Timestamp};
use crate::store::{Records, StoreError};

/// How many records are under way at once: enough that their writes share a sync, few enough that the
/// store serves others meanwhile.
const AT_ONCE: usize = 16;
/// How often a record that others keep changing is tried. Whoever changes it seals it by the newest key.
const TRIES: usize = 8;
/// How often all records are looked at: a write that began before the new key came may end after a look.
const PASSES: usize = 4;

/// How far a rotation is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = RotationProgress)]
pub struct Progress {
    /// Where it stands.
    pub state: RotationState,
    /// The key that everything is sealed by at its end.
    pub to: Option<String>,
    /// How many records there are to look at.
    pub total: usize,
    /// How many were looked at.
    pub done: usize,
    /// How many of them had to be sealed anew.
    pub resealed: usize,
    /// How many could not be opened: they stay as they are, and keep needing their key.
    pub failed: usize,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it stopped before its end.
    pub error: Option<String>,
}

/// Where a rotation stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RotationState {
    /// None was begun since the program started.
    #[default]
    Idle,
    /// It is under way.
    Running,
    /// Everything that opens is sealed by the newest key.
    Done,
    /// It stopped: it goes on at the next start, or when it is asked for again.
    Stopped,
}

/// The one rotation that may run.
pub struct Rotation {
    vault: Arc<Vault>,
    records: Arc<dyn Records>,
    clock: Arc<dyn Clock>,
    progress: Mutex<Progress>,
    /// How many records older keys seal, as last counted.
    older: AtomicUsize,
    state: watch::Sender<RotationState>,
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotation").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

/// What became of one record.
enum Outcome {
    /// It is sealed by the newest key already, or is gone.
    Kept,
    /// It was sealed anew.
    Resealed,
    /// It does not open.
    Failed,
}

impl Rotation {
    /// A rotation that has not begun.
    pub fn new(vault: Arc<Vault>, records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Self {
        let state = watch::Sender::new(RotationState::Idle);
        Self { vault, records, clock, progress: Mutex::new(Progress::default()), older: AtomicUsize::new(0), state }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.held().clone()
    }

    /// How many records older keys seal: as last counted, less what was sealed anew since.
    pub fn older(&self) -> usize {
        self.older.load(Ordering::Relaxed)
    }

    /// Says how many records older keys seal.
    pub fn count_older(&self, older: usize) {
        self.older.store(older, Ordering::Relaxed);
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.held().state == RotationState::Running
    }

    /// Begins in the background, and tells how far it is. Call it within a runtime.
    pub fn start(self: &Arc<Self>) -> Progress {
        let newest = self.vault.ring().newest().id();
        let begun = {
            let mut progress = self.held();
            if progress.state == RotationState::Running {
                return progress.clone();
            }
            *progress = Progress {
                state: RotationState::Running,
                to: Some(newest.to_string()),
                started_at: Some(self.clock.now()),
                ..Progress::default()
            };
            progress.clone()
        };
        self.state.send_replace(RotationState::Running);
        let this = Arc::clone(self);
        // It tells its end itself; nobody waits for the task.
        drop(tokio::spawn(async move { this.run(newest).await }));
        begun
    }

    /// Waits until it does not run.
    pub async fn settled(&self) -> Progress {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`, so there is an answer.
        drop(state.wait_for(|state| *state != RotationState::Running).await);
        self.progress()
    }

    async fn run(&self, newest: KeyId) {
        tracing::info!(key.id = %newest, "every stored credential is being sealed anew by the master key {newest}");
        let ended = self.reseal_all(newest).await;
        let state = {
            let mut progress = self.held();
            progress.ended_at = Some(self.clock.now());
            progress.error = ended.as_ref().err().map(ToString::to_string);
            progress.state = if ended.is_ok() { RotationState::Done } else { RotationState::Stopped };
            progress.state
        };
        self.state.send_replace(state);
        let Progress { resealed, failed, error, .. } = self.progress();
        match error {
            None if failed == 0 => tracing::info!(
                key.id = %newest, records.resealed = resealed,
                "{resealed} records were sealed anew: older master keys are not needed any more"
            ),
            None => tracing::warn!(
                key.id = %newest, records.resealed = resealed, records.failed = failed,
                "{resealed} records were sealed anew, and {failed} do not open: keep the older master keys"
            ),
            Some(error) => tracing::warn!(
                key.id = %newest, records.resealed = resealed,
                "sealing anew stopped and goes on at the next start: {error}"
            ),
        }
    }

    async fn reseal_all(&self, newest: KeyId) -> Result<(), VaultError> {
        for _ in 0..PASSES {
            let before = self.held().resealed;
            self.pass(newest).await?;
            if self.held().resealed == before {
                break;
            }
        }
        // The check record last: as long as it needs the old key, the old key is asked for at start.
        self.vault.check(&*self.records).await
    }

    async fn pass(&self, newest: KeyId) -> Result<(), VaultError> {
        let found = vault::sealed_records(&*self.records).await?;
        {
            let mut progress = self.held();
            (progress.total, progress.done, progress.failed) = (found.len(), 0, 0);
        }
        let work = found.into_iter().map(|record| self.reseal(newest, record));
        let mut work = futures_util::stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some(outcome) = work.next().await {
            let outcome = outcome?;
            let mut progress = self.held();
            progress.done += 1;
            match outcome {
                Outcome::Kept => {}
                Outcome::Resealed => {
                    progress.resealed += 1;
                    self.count_older(self.older().saturating_sub(1));
                }
                Outcome::Failed => progress.failed += 1,
            }
        }
        Ok(())
    }

    async fn reseal(&self, newest: KeyId, record: SealedRecord) -> Result<Outcome, VaultError> {
        let SealedRecord { key, field } = record;
        for _ in 0..TRIES {
            let Some((sealed, version)) = self.records.get(&key).await? else { return Ok(Outcome::Kept) };
            if sealed_by(&sealed) == Some(newest) {
                return Ok(Outcome::Kept);
            }
            let plain = match self.vault.open(&key, field, &sealed) {
                Ok(plain) => plain,
                Err(reason) => {
                    let name = vault::name(&key);
                    tracing::error!(record = %name, "the sealed record `{name}` does not open: {reason}");
                    return Ok(Outcome::Failed);
                }
            };
            let anew = Bytes::from(self.vault.seal(&key, field, plain.expose())?);
            match self.records.put(&key, anew, Some(version)).await {
                Ok(_) => return Ok(Outcome::Resealed),
                // Someone wrote it meanwhile.
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Outcome::Kept)
    }

    fn held(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
