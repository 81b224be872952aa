//! Taking a connection away: gone here at once, and then taken back at the service.
//!
//! Nobody uses the connection from the moment it is removed. What the service must be told waits in a
//! sealed record ([`Revocations`]) and is tried until the service has taken it, says that it never will, or two
//! days have passed; a restart goes on where it was.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::drawer::{Drawer, Enclosed, KeepError};
use super::failure::Failure;
use super::finish::account_id_of;
use super::outcome::{Failed, Outcome, State, Step};
use super::revocations::{Kept, Revocation, RevocationState, Revocations, What};
use super::{Connect, LinkRefused, sessions};
use crate::base::secret::Secret;
use crate::connection::grant::{Account, Grant, TokenErrorKind};
use crate::connection::health::Key;
use crate::connection::{ConnectionError, Content, Credential, Tokens, stored};
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, Integration};
use crate::store::model::{AuditEntry, RecordKey};

/// How long to wait after each attempt. After the last one it is given up.
pub const WAITS: [Duration; 8] = [
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(6),
    Duration::from_hours(12),
    Duration::from_hours(12),
    Duration::from_hours(12),
];
/// How many of these are waited for the end of a session, which ends by itself in the end.
const SESSION_WAITS: usize = 4;
/// How long to wait while the definition is not in force. That is no attempt.
const FAULTY_WAIT: Duration = Duration::from_mins(1);
/// How long is waited for that: what was given up can be seen for some time before its record ends.
const FAULTY_MOST: Duration = Duration::from_hours(6 * 24);
/// How often is looked for what is due.
pub const LOOK: Duration = Duration::from_secs(20);

impl Connect {
    /// Removes a stored connection, and has the service told. Returns what became of it so far; `None` when
    /// there was no such connection.
    ///
    /// # Errors
    /// When the store fails. Then the connection may be there still.
    pub async fn remove(
        &self,
        actor: &str,
        integration: &str,
        connection: &str,
    ) -> Result<Option<Revocation>, RemoveError> {
        let (Some(drawer), Some(revocations)) = (&self.drawer, &self.revocations) else { return Ok(None) };
        let _one_by_one = self.order.lock().await;
        let key = Key::new(integration, connection);
        self.stop_flows(drawer, integration, connection).await?;
        // A renewal either is done before this, and its tokens are taken back, or comes too late.
        let _alone = self.connections.changing(&key).write().await;
        // Before it is read, so that one which is put there meanwhile counts as another.
        let era = self.connections.era(&key).await?;
        // A connection that does not open can be removed, but there is nothing to tell the service.
        let content = match self.connections.peek(integration, connection).await {
            Ok(Some(content)) => Some(content),
            Ok(None) => return Ok(None),
            Err(ConnectionError::Unusable { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        // What a login signed in with is its session, which the store does not have.
        let logins = self.logins.as_ref();
        let session = logins.and_then(|logins| logins.leave(integration, connection));
        let content = session.as_deref().and_then(sessions::content).or(content);
        let removed = self.remove_noted(revocations, (actor, &key, era), content.as_ref()).await;
        if let (Err(_), Some(logins), Some(session)) = (&removed, logins, session) {
            logins.stay(session);
        }
        removed.map(Some)
    }

    /// Removes a connection once it is on disk what its service is to be told.
    async fn remove_noted(
        &self,
        revocations: &Revocations,
        (actor, key, era): (&str, &Key, u64),
        content: Option<&Content>,
    ) -> Result<Revocation, RemoveError> {
        let mut intended = revocations.intend(key, What::Connection, content, era).await?;
        if let Err(error) = self.connections.remove_alone(actor, key).await {
            // Whether it is gone is looked at again, by [`Self::is_removed`].
            revocations.due.notify_one();
            return Err(error.into());
        }
        // It is removed, whatever becomes of these: who tells services sees to the rest.
        let noted = match revocations.settle(&mut intended).await {
            Ok(()) if intended.kept.state == RevocationState::NotDeclared => self.tell_revocation(&intended.kept).await,
            noted => noted,
        };
        if let Err(error) = noted {
            tracing::error!(integration = %key.integration, "what becomes of a removed connection is not on disk yet: {error}");
        }
        Ok(intended.kept.shown(&intended.record))
    }

    /// Ends the flows that are connecting this connection anew: what was removed does not come back by itself.
    async fn stop_flows(&self, drawer: &Drawer, integration: &str, connection: &str) -> Result<(), KeepError> {
        for record in drawer.records.keys(super::outcome::COLLECTION).await? {
            let found = match drawer.get::<Outcome>(&record).await {
                Ok(found) => found,
                Err(KeepError::Store(error)) => return Err(error.into()),
                // One that does not open belongs to no flow that could go on.
                Err(_) => continue,
            };
            let Some((found, _)) = found else { continue };
            let same = found.link.integration == integration && found.link.connection == connection;
            if same && found.state.is_under_way() {
                let state = State::Failed(Failed { failure: Failure::Removed, words: None });
                let outcome = Outcome { state, at: self.clock.now(), ..found };
                self.settle(drawer, &outcome, Step::Stop).await?;
            }
        }
        Ok(())
    }

    /// The revocations of the last week, newest last.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, LinkRefused> {
        match &self.revocations {
            Some(revocations) => Ok(revocations.list().await?),
            None => Ok(Vec::new()),
        }
    }

    /// Tells services what they have yet to be told, until it is stopped. Each service is told one thing after
    /// another, and all of them at the same time: one that does not answer holds up none but itself.
    pub async fn tell_services(&self, stop: CancellationToken) {
        let Some(revocations) = &self.revocations else { return };
        let (mut telling, mut busy) = (FuturesUnordered::new(), HashSet::new());
        if let Err(error) = self.end_left_behind(&revocations.drawer).await {
            tracing::warn!("sign-ins that were cut off may be begun again in ten minutes only: {error}");
        }
        loop {
            self.queue_sessions(revocations).await;
            if let Err(error) = self.give_up_choices(revocations).await {
                tracing::warn!("choices that nobody made are not given up yet; it is tried again: {error}");
            }
            let due = revocations.due().await.unwrap_or_else(|error| {
                tracing::warn!("what services are to be told cannot be read; it is tried again: {error}");
                BTreeMap::new()
            });
            for (integration, records) in due {
                if busy.insert(integration.clone()) {
                    telling.push(self.tell_service(&revocations.drawer, integration, records));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Some(integration) = telling.next() => { busy.remove(&integration); }
                () = revocations.due.notified() => {}
                () = self.session_ended() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Tells one service what is due, once each. Answers which it was.
    async fn tell_service(&self, drawer: &Drawer, integration: String, records: Vec<RecordKey>) -> String {
        for record in records {
            if let Err(error) = self.tell_one(drawer, &record).await {
                tracing::warn!(integration, "a removed connection could not be seen to; it is tried again: {error}");
            }
        }
        integration
    }

    async fn tell_one(&self, drawer: &Drawer, record: &RecordKey) -> Result<(), RemoveError> {
        let Some((mut kept, version)) = drawer.get::<Kept>(record).await? else { return Ok(()) };
        if !kept.removed {
            // Not while the removal is under way, which may end it.
            let _one_by_one = self.order.lock().await;
            let same = drawer.get::<Kept>(record).await?.is_some_and(|(_, now)| now == version);
            if !same {
                return Ok(());
            }
            if !self.is_removed(&kept).await? {
                tracing::info!(integration = %kept.integration, "a removal that failed is not carried out any more");
                return Ok(drawer.records.remove(record).await.map_err(KeepError::from)?);
            }
            kept.removed = true;
        }
        if kept.state == RevocationState::Pending {
            self.attempt(&mut kept).await;
        }
        if kept.state != RevocationState::Pending {
            self.tell_revocation(&kept).await?;
        }
        if kept.what == What::Session && kept.state == RevocationState::Revoked {
            // There are many of these, and nothing is left to look at: the audit log has it.
            return Ok(drawer.records.remove(record).await.map_err(KeepError::from)?);
        }
        match drawer.put(record, &kept, Some(version)).await {
            Ok(_) | Err(KeepError::Store(crate::store::StoreError::Conflict(_))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a connection was removed, or connected anew, where that did not come to its end here. One that is there
    /// still, as it was, stays: whoever removed it was told that it failed, and may have thought better of it since.
    async fn is_removed(&self, kept: &Kept) -> Result<bool, RemoveError> {
        let key = Key::new(&kept.integration, &kept.connection);
        if self.connections.is_gone(&key).await? {
            return Ok(true);
        }
        let era = self.connections.era(&key).await?;
        Ok(kept.era.is_some_and(|before| before != era))
    }

    /// Asks the service once.
    async fn attempt(&self, kept: &mut Kept) {
        let generation = self.live.load();
        if generation.is_faulty(&kept.integration) {
            // How the service is told stands in a file that does not count now; that says nothing of the service.
            let now = self.clock.now();
            kept.next = now.after(FAULTY_WAIT);
            kept.error = Some("its definition has errors: the service is told once they are mended".to_owned());
            if now >= kept.asked_at.after(FAULTY_MOST) {
                let words = "its definition had errors for so long that the service was never told";
                (kept.state, kept.error, kept.content) = (RevocationState::GivenUp, Some(words.to_owned()), None);
            }
            return;
        }
        if let Err(words) = self.spare(&generation, kept).await {
            (kept.state, kept.error, kept.content) = (RevocationState::GivenUp, Some(words), None);
            return;
        }
        let asked = match (generation.integration(&kept.integration), &kept.content) {
            (Some(integration), Some(content)) => {
                self.ask_service(&generation, integration, &kept.connection, content).await
            }
            _ => Err((Lasting::Yes, "the definition is not there any more".to_owned())),
        };
        kept.attempts += 1;
        let waits = if kept.what == What::Session { &WAITS[..SESSION_WAITS] } else { &WAITS[..] };
        let wait = usize::try_from(kept.attempts - 1).ok().and_then(|attempt| waits.get(attempt));
        (kept.state, kept.error) = match (asked, wait) {
            (Ok(state), _) => (state, None),
            (Err((Lasting::No, words)), Some(wait)) => {
                kept.next = self.clock.now().after(*wait);
                (RevocationState::Pending, Some(words))
            }
            (Err((_, words)), _) => (RevocationState::GivenUp, Some(words)),
        };
        if kept.state != RevocationState::Pending {
            kept.content = None;
        }
        let label = if kept.error.is_some() { "failed" } else { "ok" };
        self.teller.metrics.revocations.with_label_values(&[kept.integration.as_str(), label]).inc();
    }

    /// Leaves out the tokens that are in use: the account may be connected by another name, or was connected again, with
    /// the very same. Where its service may end the whole consent, an account that is connected is left alone.
    ///
    /// # Errors
    /// When nothing is left to be taken back.
    async fn spare(&self, generation: &Generation, kept: &mut Kept) -> Result<(), String> {
        let Some(enclosed) = kept.content.as_ref().filter(|_| kept.what != What::Session) else { return Ok(()) };
        let Ok(content) = stored::read(enclosed.0.expose().as_bytes()) else { return Ok(()) };
        let Credential::Tokens(tokens) = content.credential else { return Ok(()) };
        let takes_back = match generation.integration(&kept.integration).map(|integration| &integration.auth) {
            Some(Auth::OAuth2(oauth2)) => oauth2.revoke_replaced,
            _ => false,
        };
        let (count, mut left, mut same) = (tokens.0.len(), tokens, None);
        for (name, other) in
            self.connections.of_integration(&kept.integration).await.map_err(|error| error.to_string())?
        {
            let is_same = match (account_id_of(&content.saved), account_id_of(&other.saved)) {
                (Some(mine), Some(theirs)) => mine == theirs,
                // Whose account it is nobody knows. What never was a connection is not worth the risk of ending one.
                _ => *name == kept.connection || kept.what.was_never_kept(),
            };
            if is_same {
                same = Some(name);
            }
            if let Credential::Tokens(used) = &other.credential {
                left = left.without(used);
            }
        }
        if left.0.is_empty() {
            return Err("these very tokens are in use by a connection".to_owned());
        }
        if let Some(name) = same.filter(|_| !takes_back) {
            let how = if *name == kept.connection {
                "was connected again".to_owned()
            } else {
                format!("is connected as `{name}`")
            };
            return Err(format!("the account {how}, and taking this token back could end that"));
        }
        if left.0.len() < count {
            let content = Content { credential: Credential::Tokens(left), ..content };
            let plain = stored::plain(&content, self.clock.now()).map_err(|error| error.to_string())?;
            let text = std::str::from_utf8(&plain).map_err(|error| error.to_string())?;
            kept.content = Some(Enclosed(Secret::from(text)));
        }
        Ok(())
    }

    async fn ask_service(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &str,
        content: &Enclosed,
    ) -> Result<RevocationState, (Lasting, String)> {
        let unreadable = || (Lasting::Yes, "what was kept of it cannot be read".to_owned());
        let Content { credential, inputs, saved } =
            stored::read(content.0.expose().as_bytes()).map_err(|_| unreadable())?;
        let Credential::Tokens(Tokens(tokens)) = credential else { return Err(unreadable()) };
        let account = Account { generation, integration, connection, inputs: &inputs, saved: &saved };
        let grant = Grant { tokens, ..Grant::default() };
        match self.provider.revoke(account, &grant).await {
            Ok(true) => Ok(RevocationState::Revoked),
            Ok(false) => Ok(RevocationState::NotDeclared),
            Err(error) => {
                let lasting = matches!(error.kind, TokenErrorKind::Permanent | TokenErrorKind::Misconfigured);
                let words = format!("the service did not take it back: {}", error.detail());
                Err((if lasting { Lasting::Yes } else { Lasting::No }, words))
            }
        }
    }

    async fn tell_revocation(&self, kept: &Kept) -> Result<(), KeepError> {
        let entry = AuditEntry {
            at: self.clock.now(),
            actor: "system".to_owned(),
            action: if kept.what == What::Session { "session.end" } else { "connection.revoke" }.to_owned(),
            target: format!("connection:{}/{}", kept.integration, kept.connection),
            detail: json!({ "state": kept.state, "attempts": kept.attempts, "error": kept.error }),
        };
        self.teller.audit.append(entry).await?;
        Ok(())
    }
}

/// Whether asking again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Yes,
    No,
}

/// Why a connection could not be removed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoveError {
    /// The connection could not be read or removed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// What the service must be told could not be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
}
