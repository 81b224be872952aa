//! What services are still to be told of tokens that nobody uses any more, and were told: sealed records.
//!
//! A record is durable before what it tells of is let go of, so that no crash leaves a token alive at its service
//! that nobody knows of. How it ended can be seen for a week. Put in here by whoever takes tokens out of use:
//! `removal`, `finish`, `sessions`, and `refresh` with what came too late; told by `removal`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::drawer::{Drawer, Enclosed, KeepError, key};
use super::link::fresh_id;
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::connection::health::Key;
use crate::connection::vault::Vault;
use crate::connection::{Content, Credential, stored};
use crate::store::Records;
use crate::store::model::RecordKey;

/// The collection of what services are still to be told, and were told.
pub const COLLECTION: &str = "revocations";
/// How long it can be seen how a revocation ended.
pub const KEPT: Duration = Duration::from_hours(7 * 24);

/// What services are to be told. One for the whole program.
pub struct Revocations {
    pub(super) drawer: Drawer,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Told when there is something to be told.
    pub(super) due: Notify,
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("drawer", &self.drawer).finish_non_exhaustive()
    }
}

/// A revocation as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) integration: String,
    pub(super) connection: String,
    /// What is taken back.
    #[serde(default)]
    pub(super) what: What,
    /// Whether the tokens are out of use here. Not yet only while the connection is being removed or connected anew, or
    /// when that failed.
    pub(super) removed: bool,
    /// Which account it was when its removal or replacement began; see `Connections::era`.
    #[serde(default)]
    pub(super) era: Option<u64>,
    /// What is taken back; let go of when it is over.
    pub(super) content: Option<Enclosed>,
    pub(super) state: RevocationState,
    pub(super) attempts: u32,
    pub(super) asked_at: Timestamp,
    pub(super) next: Timestamp,
    pub(super) error: Option<String>,
}

impl Kept {
    /// Whether something is to be done about it.
    fn is_due(&self, now: Timestamp) -> bool {
        !self.removed || self.state == RevocationState::Pending && self.next <= now
    }

    /// What is shown of it.
    pub(super) fn shown(&self, record: &RecordKey) -> Revocation {
        Revocation {
            id: record.key.to_string(),
            integration: self.integration.clone(),
            connection: self.connection.clone(),
            what: self.what,
            state: self.state,
            attempts: self.attempts,
            asked_at: self.asked_at.to_string(),
            next: (self.state == RevocationState::Pending).then(|| self.next.to_string()),
            error: self.error.clone(),
        }
    }
}

/// What a service will be told, and where that is kept.
pub(super) struct Intended {
    pub record: RecordKey,
    pub kept: Kept,
}

/// What is taken back at a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RevokedWhat)]
pub enum What {
    /// What a removed connection signed in with, and tokens that came for it too late.
    #[default]
    Connection,
    /// Tokens of an account that was connected anew: those it had before, and those that came for it too late.
    Replaced,
    /// What was granted for a choice of an account or site that nobody made.
    Unchosen,
    /// What a person's consent brought that did not become a connection.
    Unkept,
    /// A session that was replaced, or that nobody uses any more.
    Session,
}

impl What {
    /// Whether no connection ever had it.
    pub fn was_never_kept(self) -> bool {
        matches!(self, Self::Unchosen | Self::Unkept)
    }
}

/// Where a revocation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevocationState {
    /// The service has yet to be told.
    Pending,
    /// The service took it.
    Revoked,
    /// The definition does not say how, so the credential lives on at the service until it ends there.
    NotDeclared,
    /// The service refused, or could not be reached for two days: a person has to revoke it there.
    GivenUp,
}

/// What is shown of a revocation.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Revocation {
    /// Its id.
    pub id: String,
    /// The integration.
    pub integration: String,
    /// The connection's name.
    pub connection: String,
    /// What is taken back.
    pub what: What,
    /// Where it stands.
    pub state: RevocationState,
    /// How often the service was asked.
    pub attempts: u32,
    /// When the connection was removed or connected anew, or the session ended.
    pub asked_at: String,
    /// When the service is asked again, while it is pending.
    pub next: Option<String>,
    /// What went wrong at the last attempt.
    pub error: Option<String>,
}

impl Revocations {
    /// Records sealed by `vault`.
    pub fn new(vault: Arc<Vault>, records: Arc<dyn Records>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self { drawer: Drawer { records, vault }, clock, random, due: Notify::new() }
    }

    /// Keeps what a service is to be told of tokens that nobody uses any more; durable when this returns.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn queue(&self, key: &Key, what: What, content: &Content) -> Result<(), KeepError> {
        let now = self.clock.now();
        self.queue_from(key, (what, now), content).await?;
        self.due.notify_one();
        Ok(())
    }

    /// The same, from `next` on.
    pub(super) async fn queue_from(
        &self,
        key: &Key,
        (what, next): (What, Timestamp),
        content: &Content,
    ) -> Result<(), KeepError> {
        let (record, kept) = self.begun(key, what, Some(content))?;
        self.drawer.put(&record, &Kept { removed: true, next, ..kept }, Some(0)).await.map(drop)
    }

    /// Notes what a service will be told once an account is another or gone: durable before it is. `era` tells whether it
    /// came to that, should nobody [settle](Self::settle) it.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn intend(
        &self,
        of: &Key,
        what: What,
        content: Option<&Content>,
        era: u64,
    ) -> Result<Intended, KeepError> {
        let (record, kept) = self.begun(of, what, content)?;
        let kept = Kept { era: Some(era), ..kept };
        self.drawer.put(&record, &kept, Some(0)).await?;
        Ok(Intended { record, kept })
    }

    /// It came to what was intended: the service is told from now on.
    ///
    /// # Errors
    /// When the store fails. Then it is found out from the era.
    pub(super) async fn settle(&self, intended: &mut Intended) -> Result<(), KeepError> {
        intended.kept.removed = true;
        let noted = self.drawer.put(&intended.record, &intended.kept, None).await;
        self.due.notify_one();
        noted.map(drop)
    }

    /// The revocations of the last week, newest last.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self) -> Result<Vec<Revocation>, KeepError> {
        let mut all = Vec::new();
        for record in self.drawer.records.keys(COLLECTION).await? {
            match self.drawer.get::<Kept>(&record).await {
                Ok(Some((kept, _))) => all.push(kept.shown(&record)),
                Err(KeepError::Store(error)) => return Err(error.into()),
                // One that does not open is logged where it is due.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(all)
    }

    /// What is to be told now, by integration. What does not open is logged, and stays until its time is over.
    pub(super) async fn due(&self) -> Result<BTreeMap<String, Vec<RecordKey>>, KeepError> {
        let now = self.clock.now();
        self.drawer.clear(COLLECTION, now, Duration::ZERO).await?;
        let mut due: BTreeMap<String, Vec<RecordKey>> = BTreeMap::new();
        for record in self.drawer.records.keys(COLLECTION).await? {
            match self.drawer.get::<Kept>(&record).await {
                Ok(Some((kept, _))) if kept.is_due(now) => due.entry(kept.integration).or_default().push(record),
                Ok(_) => {}
                Err(KeepError::Store(error)) => return Err(error.into()),
                Err(error) => tracing::error!(revocation = %record.key, "a service cannot be told: {error}"),
            }
        }
        Ok(due)
    }

    /// A revocation as it begins, and where it is kept.
    pub(super) fn begun(
        &self,
        of: &Key,
        what: What,
        content: Option<&Content>,
    ) -> Result<(RecordKey, Kept), KeepError> {
        let now = self.clock.now();
        let tokens = content.filter(|content| matches!(content.credential, Credential::Tokens(_)));
        let enclosed = tokens.map(|content| {
            let plain = stored::plain(content, now).map_err(|_| KeepError::Form)?;
            let text = std::str::from_utf8(&plain).map_err(|_| KeepError::Form)?;
            Ok::<_, KeepError>(Enclosed(Secret::from(text)))
        });
        let content = enclosed.transpose()?;
        let state = if content.is_some() { RevocationState::Pending } else { RevocationState::NotDeclared };
        let kept = Kept {
            integration: of.integration.to_string(),
            connection: of.id.to_string(),
            what,
            removed: false,
            era: None,
            content,
            state,
            attempts: 0,
            asked_at: now,
            next: now,
            error: None,
        };
        Ok((key(COLLECTION, &fresh_id(now.after(KEPT), &*self.random)?), kept))
    }
}
