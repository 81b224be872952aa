//! What each integration's expressions read of a request, found out once a definition.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::door::Admission;
use super::scope::wanted;
use crate::definition::plan::Fingerprint;
use crate::definition::plan::webhook::Webhook;
use crate::template::payload::Wanted;

/// By integration id.
#[derive(Debug, Default)]
pub struct Readings(RwLock<HashMap<Arc<str>, Reading>>);

/// What is read, and the definition it was found out for.
type Reading = (Fingerprint, Arc<Wanted>);

impl Readings {
    /// What the expressions of an admitted request's webhook read.
    pub fn of(&self, admission: &Admission, webhook: &Webhook) -> Arc<Wanted> {
        let integration = &admission.integration;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&integration.id).cloned();
        match known {
            Some((fingerprint, wanted)) if fingerprint == integration.fingerprint => wanted,
            _ => self.find_out(admission, webhook),
        }
    }

    fn find_out(&self, admission: &Admission, webhook: &Webhook) -> Arc<Wanted> {
        let found = Arc::new(wanted(webhook));
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Integrations that are gone are forgotten when there are more than those in force.
        if all.len() > admission.generation.integrations.len() {
            all.retain(|id, _| admission.generation.integrations.contains_key(id));
        }
        all.insert(Arc::clone(&admission.integration.id), (admission.integration.fingerprint, Arc::clone(&found)));
        found
    }
}
