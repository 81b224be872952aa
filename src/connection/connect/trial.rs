//! Credentials tried before they are kept: the seam between pages here and the test request in `outbound`.

use std::sync::Arc;

use async_trait::async_trait;

use super::Connect;
use super::begin::Beginning;
use super::drawer::KeepError;
use super::permission::Entered;
use crate::connection::{Content, Credential};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;

/// What the test request of a definition said about a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It works.
    Works,
    /// The definition has no test request, so that nobody can say.
    NoTest,
    /// It does not work, and trying again would not change that.
    Refused(Found),
    /// It could not be tried now: the service is down, slow, or wants to be left alone.
    Untried(Found),
}

/// What was in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What kind of thing, by a stable word.
    pub cause: &'static str,
    /// What happened, with the service's own words; nothing secret.
    pub detail: String,
    /// What to do.
    pub step: &'static str,
}

/// Makes the test request of a definition.
#[async_trait]
pub trait Trial: Send + Sync + 'static {
    /// Tries what a connection of this name would be, and keeps nothing.
    async fn try_out(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &str,
        content: Content,
    ) -> Tried;
}

/// What is known of a credential that is about to be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing: the definition has no test request, or the token call was the proof.
    #[default]
    None,
    /// The test request succeeded.
    Passed,
    /// It could not be tried, and is kept all the same.
    Doubted(Found),
}

/// Why a credential that was entered is not kept.
pub(super) enum NotKept {
    /// It does not work.
    Refused(Found),
    /// It could not be tried; the person may say that it is to be kept all the same.
    Untried(Found),
}

impl Connect {
    /// Tries what a person entered. `confirmed` is whether they said that it is to be kept also when it cannot be
    /// tried now.
    pub(super) async fn prove(
        &self,
        beginning: &Beginning<'_>,
        entered: &Entered,
        confirmed: Confirmed,
    ) -> Result<Result<Proof, NotKept>, KeepError> {
        let Beginning { generation, integration, link, .. } = beginning;
        let credential = entered.credential.as_ref().map_or(Credential::None, Credential::copy);
        let content = Content { credential, inputs: entered.inputs.clone(), saved: serde_json::Map::new() };
        let proof = match self.tried(generation, integration, &link.connection, content).await {
            Tried::Works => return Ok(Ok(Proof::Passed)),
            Tried::NoTest => return Ok(Ok(Proof::None)),
            Tried::Untried(found) if confirmed == Confirmed::Yes => return Ok(Ok(Proof::Doubted(found))),
            Tried::Refused(found) => NotKept::Refused(found),
            Tried::Untried(found) => NotKept::Untried(found),
        };
        let (result, found) = match &proof {
            NotKept::Refused(found) => ("credential_refused", found),
            NotKept::Untried(found) => ("credential_untried", found),
        };
        self.teller.tried(link, result, found).await?;
        Ok(Err(proof))
    }

    /// Tries a credential, where there is something to try it with.
    pub(super) async fn tried(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &str,
        content: Content,
    ) -> Tried {
        match &self.trial {
            Some(trial) => trial.try_out(generation, integration, connection, content).await,
            None => Tried::NoTest,
        }
    }
}

/// Whether a person said that what could not be tried is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// They did.
    Yes,
    /// They were not asked, or did not.
    No,
}
