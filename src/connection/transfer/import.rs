//! Imports: what is there and what an export has are compared, told as a plan, and carried out only as planned.
//!
//! A plan's digest stands for all that was judged: the rows, what would be written, and the versions that it would
//! replace. Each connection is written only over the version that was judged, so that tokens which were renewed
//! meanwhile are not lost. One that was out of use where it comes from is put out of use before it is there.

use std::collections::HashSet;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value as Json};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Action, Export, Exported, FORMAT, MOST, OnConflict, Plan, Row, TransferError};
use crate::base::clock::Timestamp;
use crate::connection::credential::Credential;
use crate::connection::directory::Connections;
use crate::connection::error::ConnectionError;
use crate::connection::health::Key;
use crate::connection::stored::{self, Content, Stored, StoredError};
use crate::connection::upkeep::{Seen, Use};
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, Integration};
use crate::store::StoreError;

/// What is said of a connection that is newer than the export's.
pub(super) const NEWER: &str = "what is here is newer than what the export has";

/// What is said of a connection that is out of use where it comes from.
const PAUSED: &str = "it is paused, as in the export";

/// What is done with one connection of an export.
struct Judged {
    row: Row,
    /// What was there.
    over: Seen,
}

/// What is there under a connection's name.
enum There {
    Nothing,
    /// It opens.
    Content(Json),
    /// It does not.
    Unreadable,
}

impl Connections {
    /// What importing this would do. Nothing changes.
    ///
    /// # Errors
    /// When the export cannot be read, or the store fails.
    pub async fn plan_import(
        &self,
        generation: &Generation,
        export: &Export,
        on_conflict: OnConflict,
    ) -> Result<Plan, TransferError> {
        let stored = self.stored().ok_or(TransferError::NoKey)?;
        let judged = self.judged(stored, generation, export, on_conflict).await?;
        Ok(plan(stored, export, &judged))
    }

    /// Does what the plan says, and gives it. With `expected` only when the plan is still the one of that
    /// digest. What was done before an error stays done, and doing it again is harmless: those connections
    /// are then the same. The audit log has the import first, and each connection.
    ///
    /// # Errors
    /// As [`Self::plan_import`], when a connection could not be written, and [`TransferError::Changed`] when one that
    /// was to be replaced, or was not there, is another by now.
    pub async fn import(
        &self,
        actor: &str,
        generation: &Generation,
        (export, on_conflict): (&Export, OnConflict),
        expected: Option<&str>,
    ) -> Result<Plan, TransferError> {
        let stored = self.stored().ok_or(TransferError::NoKey)?;
        let judged = self.judged(stored, generation, export, on_conflict).await?;
        let plan = plan(stored, export, &judged);
        if expected.is_some_and(|expected| expected != plan.digest) {
            return Err(TransferError::Changed);
        }
        let count = |action| plan.rows.iter().filter(|row| row.action == action).count();
        let detail = serde_json::json!({ "made": count(Action::Make), "changed": count(Action::Change) });
        stored.record(actor, "connections.import", detail).await?;
        for (Judged { row, over }, one) in judged.iter().zip(&export.connections) {
            let wanted = matches!(row.action, Action::Make | Action::Change);
            let Some(integration) = generation.integration(&one.integration).filter(|_| wanted) else { continue };
            if let Some(mut content) = content_of(integration, one) {
                not_from_the_future(&mut content.credential, stored.now());
                let pauses = one.paused && !self.is_paused(&one.integration, &one.name).await?;
                if pauses {
                    self.set_use(actor, &one.integration, &one.name, Use::Paused).await?;
                }
                let put = self.put_over(actor, integration, (&one.name, Some(*over)), content).await;
                if pauses && put.is_err() {
                    self.set_use(actor, &one.integration, &one.name, Use::Resumed).await?;
                }
                match put {
                    Err(ConnectionError::Store { reason: StoreError::Conflict(_), .. }) => {
                        return Err(TransferError::Changed);
                    }
                    put => drop(put?),
                }
            }
        }
        Ok(plan)
    }

    async fn judged(
        &self,
        stored: &Stored,
        generation: &Generation,
        export: &Export,
        on_conflict: OnConflict,
    ) -> Result<Vec<Judged>, TransferError> {
        if export.trunkline_export != FORMAT {
            return Err(TransferError::Format(export.trunkline_export));
        }
        if export.connections.len() > MOST {
            return Err(TransferError::TooMany(export.connections.len()));
        }
        let mut names = HashSet::new();
        if let Some(twice) = export.connections.iter().find(|one| !names.insert((&one.integration, &one.name))) {
            return Err(TransferError::Twice(format!("{}/{}", twice.integration, twice.name)));
        }
        let mut judged = Vec::with_capacity(export.connections.len());
        for one in &export.connections {
            let (there, over) = self.there(stored, one).await?;
            let (action, reason) = judge(generation, one, &there, on_conflict);
            let (integration, name) = (one.integration.clone(), one.name.clone());
            let reason = match action {
                Action::Make | Action::Change if one.paused => {
                    Some(reason.map_or_else(|| PAUSED.to_owned(), |reason| format!("{reason}; {PAUSED}")))
                }
                _ => reason,
            };
            judged.push(Judged { row: Row { integration, name, action, reason }, over });
        }
        Ok(judged)
    }

    async fn there(&self, stored: &Stored, one: &Exported) -> Result<(There, Seen), TransferError> {
        // Before it is read: what is written in between makes the import a conflict, and not a loss.
        let over = self.seen(&Key::new(&one.integration, &one.name)).await?;
        let there = match stored.json(&one.integration, &one.name).await {
            Ok(Some(content)) => There::Content(content),
            Ok(None) => There::Nothing,
            Err(reason @ StoredError::Store(_)) => {
                return Err(ConnectionError::of_stored(&one.integration, &one.name, reason).into());
            }
            Err(_) => There::Unreadable,
        };
        Ok((there, over))
    }
}

fn judge(generation: &Generation, one: &Exported, there: &There, on_conflict: OnConflict) -> (Action, Option<String>) {
    let because = |action, reason: &str| (action, Some(reason.to_owned()));
    let Some(integration) = generation.integration(&one.integration) else {
        return because(Action::Refuse, &format!("there is no integration `{}` here", one.integration));
    };
    let Some(content) = content_of(integration, one) else {
        return match (there, &one.content) {
            (_, Some(_)) => because(Action::Refuse, "its content has a form that this version does not read"),
            (There::Nothing, None) => because(Action::Refuse, "the export has no secrets: connect it here anew"),
            (_, None) => because(Action::Same, "the export has no secrets, so it stays as it is"),
        };
    };
    if let Err(error) = Connections::admissible(integration, &one.name, content) {
        return because(Action::Refuse, &error.to_string());
    }
    let new = one.content.as_ref();
    match (there, on_conflict) {
        (There::Nothing, _) => (Action::Make, None),
        (There::Content(there), _) if new.is_some_and(|new| same(new, there)) => (Action::Same, None),
        (There::Unreadable, OnConflict::Keep) => {
            because(Action::Conflict, "another of this name is here and does not open: replacing it must be asked for")
        }
        (There::Content(_), OnConflict::Keep) => {
            because(Action::Conflict, "another of this name is here: replacing it must be asked for")
        }
        (There::Unreadable, _) => because(Action::Change, "what is here does not open"),
        (There::Content(there), _) if !new.is_some_and(|new| is_newer(there, new)) => (Action::Change, None),
        (There::Content(_), OnConflict::ReplaceNewer) => because(Action::Change, NEWER),
        (There::Content(_), OnConflict::Replace) => {
            let reason = format!("{NEWER}, and that may be used up: `replace_newer` replaces it all the same");
            (Action::Newer, Some(reason))
        }
    }
}

/// Tokens that were issued by now: one from the future would never be old enough to be renewed after a refusal.
pub(super) fn not_from_the_future(credential: &mut Credential, now: Timestamp) {
    if let Credential::Tokens(tokens) = credential {
        tokens.0.values_mut().for_each(|token| token.issued_at = token.issued_at.min(now));
    }
}

/// What is to be put: the export's content, or nothing but inputs for a service that wants no sign-in.
fn content_of(integration: &Integration, one: &Exported) -> Option<Content> {
    match &one.content {
        Some(content) => stored::of_json(content),
        None if matches!(integration.auth, Auth::None) => {
            Some(Content { credential: Credential::None, inputs: one.inputs.clone(), saved: Map::new() })
        }
        None => None,
    }
}

/// Whether two contents are the same but for when they were written.
fn same(a: &Json, b: &Json) -> bool {
    let rest = |value: &Json| {
        let mut value = value.clone();
        if let Some(map) = value.as_object_mut() {
            map.remove("updated_at");
        }
        value
    };
    rest(a) == rest(b)
}

/// Whether what is there is newer: one of its tokens was issued later than the other's of that name; where not both
/// have tokens, it was written later.
pub(super) fn is_newer(there: &Json, new: &Json) -> bool {
    let credential = |content| stored::of_json(content).map(|content| content.credential);
    match (credential(there), credential(new)) {
        (Some(Credential::Tokens(there)), Some(Credential::Tokens(new))) => there
            .0
            .iter()
            .any(|(name, ours)| new.issued(Some(name)).is_some_and(|theirs| ours.issued_at > theirs.issued_at)),
        _ => there["updated_at"].as_u64() > new["updated_at"].as_u64(),
    }
}

fn plan(stored: &Stored, export: &Export, judged: &[Judged]) -> Plan {
    let digest = digest(stored, export, judged);
    Plan { rows: judged.iter().map(|judged| judged.row.clone()).collect(), digest }
}

/// Stands for a plan. Keyed with the master key, since who sees a plan must not be able to try out what its secrets
/// are; so it is the same in every process of a deployment until the key is replaced.
fn digest(stored: &Stored, export: &Export, judged: &[Judged]) -> String {
    let ring = stored.vault().ring();
    let Ok(mut digest) = Hmac::<Sha256>::new_from_slice(ring.newest().bytes()) else { return String::new() };
    digest.update(b"trunkline import plan 1");
    for (Judged { row, over }, one) in judged.iter().zip(&export.connections) {
        let action = format!("{:?} over {} of {}", row.action, over.version, over.era);
        let reason = row.reason.as_deref().unwrap_or_default();
        for part in [&*row.integration, &row.name, &action, reason] {
            part_of(&mut digest, part.as_bytes());
        }
        let content = one.content.as_ref().map(serde_json::to_vec).and_then(Result::ok).unwrap_or_default();
        part_of(&mut digest, &Zeroizing::new(content));
        part_of(&mut digest, &serde_json::to_vec(&one.inputs).unwrap_or_default());
    }
    let digest: [u8; 32] = digest.finalize().into_bytes().into();
    digest.first_chunk().map(|head| format!("{:032x}", u128::from_be_bytes(*head))).unwrap_or_default()
}

fn part_of(digest: &mut Hmac<Sha256>, part: &[u8]) {
    digest.update(&(part.len() as u64).to_be_bytes());
    digest.update(part);
}
