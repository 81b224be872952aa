//! What keeps stored connections usable: their health, new tokens in place of old ones, pausing.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use serde_json::{Value as Json, json};

use super::credential::Credential;
use super::directory::Connections;
use super::error::{ConnectionError, stored_error};
use super::grant::{Grant, Issued};
use super::health::{Health, Key, Pulse, Status};
use super::refresh::{Anew, begin_intent_anew, read_intent};
use super::stored::{Content, StoredError};
use crate::base::clock::Timestamp;
use crate::definition::live::Generation;
use crate::telemetry::notice::Notices;

/// What became of new tokens that were to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    /// They are durable.
    Done,
    /// The connection is gone.
    Gone,
    /// The connection has other tokens by now, which stay.
    Superseded,
}

/// What is there under a connection's name, to see later whether it is the same still. Versions begin anew once a
/// connection was removed, so they alone do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The version of its record; zero where there is none.
    pub version: u64,
    /// Which account it is.
    pub era: u64,
}

/// Whether a connection may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It may.
    Resumed,
    /// Calls are refused until it is resumed. Its tokens are still renewed, so that it can be.
    Paused,
}

impl Connections {
    /// How a connection fares. Ask only for one that exists.
    pub async fn pulse(&self, key: &Key) -> Arc<Pulse> {
        self.pulses.of(key).await
    }

    /// How a connection fares that was looked at before.
    pub(super) fn known_pulse(&self, key: &Key) -> Option<Arc<Pulse>> {
        self.pulses.known_one(key)
    }

    /// How many of the connections that were looked at fare how.
    pub(super) fn count_health(&self) -> HashMap<(Arc<str>, Status), i64> {
        self.pulses.count()
    }

    /// At most this many connections of which a token has ended since renewing it failed.
    pub(super) fn outlived(&self, now: Timestamp, most: usize) -> Vec<Key> {
        self.pulses.outlived(now, most)
    }

    /// What is known of a connection's health. Ask only for one that exists.
    pub async fn health(&self, integration: &str, id: &str) -> Health {
        self.pulses.of(&Key::new(integration, id)).await.health()
    }

    /// Writes a connection's health; what cannot be written is tried again later.
    pub async fn save_health(&self, key: &Key, pulse: &Pulse) {
        if let Err(error) = self.pulses.save(key, pulse).await {
            tracing::warn!(connection = %key, "the health of a connection could not be written: {error}");
        }
    }

    /// Notes a change of status in the log and the audit log, where there is one.
    pub async fn note_status(&self, key: &Key, before: Status, after: Status) {
        if before == after {
            return;
        }
        tracing::info!(connection = %key, from = before.word(), to = after.word(), "a connection's status changed");
        let Some(stored) = &self.stored else { return };
        let detail = json!({ "from": before.word(), "to": after.word() });
        if let Err(error) = stored.note("system", "connection.status", key, detail).await {
            tracing::error!(connection = %key, "the audit log refused a change of status: {error}");
        }
    }

    /// With who is told of connections that need a person.
    #[must_use]
    pub fn telling(mut self, notices: &Arc<Notices>) -> Self {
        self.pulses.tell(notices);
        self
    }

    /// Tells of connections that need a person and did so before this process began: what was told before is known
    /// by its name and not told again.
    pub async fn tell_broken(&self, generation: &Generation) {
        let told = self.pulses.tell_broken(|integration| generation.integration(integration).is_some()).await;
        if let Err(error) = told {
            tracing::warn!("nobody can say which connections need a person: {error}");
        }
    }

    /// Writes all health that is unwritten.
    pub async fn flush_health(&self) {
        self.pulses.flush(usize::MAX).await;
    }

    pub(super) async fn flush_some_health(&self, most: usize) {
        self.pulses.flush(most).await;
    }

    /// Every stored connection.
    pub(super) async fn stored_keys(&self) -> Result<Vec<Key>, ConnectionError> {
        let Some(stored) = &self.stored else { return Ok(Vec::new()) };
        let names = stored.names().await.map_err(|reason| stored_error("*", "*", reason))?;
        Ok(names.iter().map(|(integration, id)| Key::new(integration, id)).collect())
    }

    /// What is stored for an integration, by the names of its connections; without those that do not open.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn of_integration(&self, integration: &str) -> Result<Vec<(Arc<str>, Content)>, ConnectionError> {
        let Some(stored) = &self.stored else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for key in self.stored_keys().await?.into_iter().filter(|key| *key.integration == *integration) {
            match stored.versioned(&key).await {
                Ok(found) => all.extend(found.map(|(content, _)| (Arc::clone(&key.id), content))),
                Err(StoredError::Store(reason)) => {
                    return Err(stored_error(integration, &key.id, StoredError::Store(reason)));
                }
                Err(_) => {}
            }
        }
        Ok(all)
    }

    /// Connections that were stored or removed since the last time that this was asked.
    pub(super) fn take_touched(&self) -> Vec<Key> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }

    /// Which account a stored connection is of: another number once it was connected anew or removed, also after a
    /// restart.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn era(&self, key: &Key) -> Result<u64, ConnectionError> {
        let Some(stored) = &self.stored else { return Ok(0) };
        let read = read_intent(&**stored.records(), key).await;
        let failed = |reason| stored_error(&key.integration, &key.id, StoredError::Store(reason));
        read.map(|(intent, _)| intent.era).map_err(failed)
    }

    /// What is there under this name.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn seen(&self, key: &Key) -> Result<Seen, ConnectionError> {
        let Some(stored) = &self.stored else { return Ok(Seen { version: 0, era: 0 }) };
        let failed = |reason| stored_error(&key.integration, &key.id, reason);
        let version = stored.version(key).await.map_err(failed)?;
        Ok(Seen { version, era: self.era(key).await? })
    }

    /// Whether there is no stored connection of this name. Then nothing is remembered of one that was there before.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn is_gone(&self, key: &Key) -> Result<bool, ConnectionError> {
        let Some(stored) = &self.stored else { return Ok(true) };
        let failed = |reason| stored_error(&key.integration, &key.id, reason);
        let _alone = self.changing(key).write().await;
        if stored.version(key).await.map_err(failed)? > 0 {
            return Ok(false);
        }
        self.forget(key).await.map_err(failed)?;
        Ok(true)
    }

    /// Forgets what is remembered of a connection that is gone.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn forget(&self, key: &Key) -> Result<(), StoredError> {
        self.held.forget(&key.integration, &key.id);
        self.begin_anew(key, Anew::Removed).await?;
        Ok(self.pulses.forget(key).await?)
    }

    /// Notes that a connection has other tokens, or is gone: what was known of its renewal counts no more.
    pub(super) async fn begin_anew(&self, key: &Key, why: Anew) -> Result<(), StoredError> {
        self.touch(key);
        self.pulses.begin_era(key);
        let Some(stored) = &self.stored else { return Ok(()) };
        begin_intent_anew(&**stored.records(), key, why).await?;
        let pulse = self.pulses.of(key).await;
        if let Some(fault) = pulse.fault() {
            return Err(fault.clone().into());
        }
        pulse.forget_refusals();
        let health = pulse.health();
        if health.standing() != Status::Active {
            pulse.change(stored.now(), |health| {
                health.condition = Status::Active;
                health.renewals.clear();
            });
            self.pulses.save(key, &pulse).await?;
        }
        Ok(())
    }

    pub(super) fn touch(&self, key: &Key) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
    }

    /// Lets go of what is held of a connection, so that the next one who asks reads the store.
    pub(super) fn let_go(&self, key: &Key) {
        self.held.forget(&key.integration, &key.id);
    }

    /// Stores what a token call brought, in place of the token it was made with; nobody sees it before it is
    /// durable. What else the connection holds stays as it is by then.
    pub(super) async fn replace(
        &self,
        key: &Key,
        token: &str,
        tried: &Issued,
        grant: &Grant,
    ) -> Result<Replaced, StoredError> {
        let Some(stored) = &self.stored else { return Ok(Replaced::Gone) };
        let _alone = self.changing(key).write().await;
        let Some((content, version)) = stored.versioned(key).await? else { return Ok(Replaced::Gone) };
        let Credential::Tokens(tokens) = &content.credential else { return Ok(Replaced::Superseded) };
        let same = |now: &Issued| {
            let refresh = |issued: &Issued| issued.refresh.as_ref().map(|refresh| refresh.expose().clone());
            now.access.expose() == tried.access.expose() && refresh(now) == refresh(tried)
        };
        if !tokens.issued(Some(token)).is_some_and(same) {
            self.held.forget(&key.integration, &key.id);
            return Ok(Replaced::Superseded);
        }
        let tokens = tokens.renewed(grant);
        let mut saved = content.saved;
        saved.extend(grant.saved.clone());
        let content = Content { credential: Credential::Tokens(tokens), inputs: content.inputs, saved };
        let written = stored.renew(key, &content, version).await;
        self.held.forget(&key.integration, &key.id);
        written.map(|()| Replaced::Done)
    }

    /// Whether a connection is out of use.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn is_paused(&self, integration: &str, id: &str) -> Result<bool, ConnectionError> {
        let pulse = self.pulses.of(&Key::new(integration, id)).await;
        match pulse.fault() {
            Some(fault) => Err(stored_error(integration, id, StoredError::Store(fault.clone()))),
            None => Ok(pulse.health().paused),
        }
    }

    /// Puts a connection out of use, or back into it; durable when this returns. The audit log has it first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set_use(
        &self,
        actor: &str,
        integration: &str,
        id: &str,
        wanted: Use,
    ) -> Result<Health, ConnectionError> {
        let key = Key::new(integration, id);
        let (action, paused) = match wanted {
            Use::Paused => ("connection.pause", true),
            Use::Resumed => ("connection.resume", false),
        };
        let failed = |reason| stored_error(integration, id, StoredError::Store(reason));
        let pulse = self.pulses.of(&key).await;
        if let Some(fault) = pulse.fault() {
            return Err(failed(fault.clone()));
        }
        if let Some(stored) = &self.stored {
            stored.note(actor, action, &key, Json::Null).await.map_err(failed)?;
            let now = stored.now();
            pulse.change(now, |health| health.paused = paused);
            self.pulses.save(&key, &pulse).await.map_err(failed)?;
            return Ok(pulse.health());
        }
        Err(ConnectionError::Invalid {
            integration: Arc::from(integration),
            connection: id.to_owned(),
            reason: "without a master key nothing of connections is stored; take it out of its file".to_owned(),
        })
    }
}
