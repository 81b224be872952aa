//! What is kept of a managed endpoint: one sealed record each.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::Subscription;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::enclosed::Enclosed;

/// The form that is written.
pub(super) const FORMAT: u32 = 1;
/// How many secrets count at once: the newest, and those that a rotation leaves for a while.
pub(super) const SECRETS: usize = 4;

/// An endpoint as it is kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub(super) format: u32,
    pub(super) integration: String,
    pub(super) connection: String,
    pub(super) token: Enclosed,
    /// Newest first.
    pub(super) secrets: Vec<KeptSecret>,
    /// How many secrets it has had, for their names.
    pub(super) serial: u32,
    /// Whether what arrives is worked on.
    pub enabled: bool,
    /// The types that are taken, `*` standing for any text; all when it is empty.
    pub event_types: Vec<String>,
    /// What the requests that set it up see as `input`.
    pub input: Map<String, Json>,
    /// What the service's answers gave to keep.
    pub saved: Map<String, Json>,
    pub(super) created_at: Timestamp,
    pub(super) rotated_at: Option<Timestamp>,
    /// What the service knows of it.
    pub subscription: Subscription,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptSecret {
    pub id: String,
    pub secret: Enclosed,
    pub expires_at: Option<Timestamp>,
}

/// Whether of secrets that end then, `others_end` at the latest, as many count as may.
pub(super) fn are_crowded(
    ends: impl Iterator<Item = Option<Timestamp>>,
    others_end: Timestamp,
    now: Timestamp,
) -> bool {
    ends.filter(|end| end.map_or(others_end, |end| end.min(others_end)) > now).count() >= SECRETS
}

impl Record {
    /// Puts a secret before the others, which count until `others_end`. Those that have ended are forgotten.
    pub fn rotate(&mut self, secret: Secret, others_end: Timestamp, now: Timestamp) {
        self.replace(secret, others_end, now);
        self.rotated_at = Some(now);
    }

    /// Whether as many secrets count as may, those before the newest until `others_end` at most.
    pub fn is_crowded(&self, others_end: Timestamp, now: Timestamp) -> bool {
        are_crowded(self.secrets.iter().map(|secret| secret.expires_at), others_end, now)
    }

    /// Puts the secret that the service made in place of ours.
    pub fn take_secret(&mut self, secret: Secret, now: Timestamp) {
        self.replace(secret, now, now);
    }

    fn replace(&mut self, secret: Secret, others_end: Timestamp, now: Timestamp) {
        for other in &mut self.secrets {
            other.expires_at = Some(other.expires_at.map_or(others_end, |end| end.min(others_end)));
        }
        self.secrets.retain(|other| other.expires_at.is_none_or(|end| end > now));
        self.secrets.truncate(SECRETS - 1);
        self.serial += 1;
        let kept = KeptSecret { id: self.serial.to_string(), secret: Enclosed(secret), expires_at: None };
        self.secrets.insert(0, kept);
    }
}
