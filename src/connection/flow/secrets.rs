//! What must be in no word about a call: services repeat what they were sent.

use std::fmt;

use serde_json::{Map, Value as Json};

use crate::base::redact::{redact, redact_whole};
use crate::base::secret::Secret;
use crate::definition::plan::{Auth, Integration};

/// The secrets of one call.
#[derive(Default)]
pub struct Secrets(Vec<Secret>);

/// How many, never which.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// The secret of an integration's own application.
    pub fn of_client(integration: &Integration) -> Self {
        let mut secrets = Self::default();
        if let Auth::OAuth2(oauth2) = &integration.auth
            && let Some(secret) = oauth2.client.as_ref().and_then(|client| client.secret.as_ref())
        {
            secrets.add(secret.expose());
        }
        secrets
    }

    /// With what a connection's secret inputs hold.
    #[must_use]
    pub fn and_inputs(mut self, integration: &Integration, inputs: &Map<String, Json>) -> Self {
        for input in integration.inputs.iter().filter(|input| input.secret) {
            self.add(inputs.get(&*input.name).and_then(Json::as_str).unwrap_or_default());
        }
        self
    }

    /// With what references brought into what an integration's calls carry.
    #[must_use]
    pub fn and_referenced(mut self, integration: &Integration) -> Self {
        for secret in &integration.referenced {
            self.add(secret.expose());
        }
        self
    }

    /// Each of them.
    pub fn all(&self) -> impl Iterator<Item = &Secret> {
        self.0.iter()
    }

    /// Adds one.
    pub fn add(&mut self, secret: &str) {
        self.0.push(Secret::from(secret));
    }

    /// `text` without any of them, however they are written.
    pub fn redact(&self, text: &str) -> String {
        redact(text, &self.0)
    }

    /// The same of a text that is known to be whole, such as an id or a name: what it ends with stays.
    pub fn redact_whole(&self, text: &str) -> String {
        redact_whole(text, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_as_they_are_and_encoded() {
        let mut secrets = Secrets::default();
        secrets.add("can/ary+1");
        secrets.add("abc");
        let clean = secrets.redact("code can/ary+1 or can%2Fary%2B1, abc");
        assert_eq!(clean, "code [redacted] or [redacted], abc");
        assert!(!format!("{secrets:?}").contains("can"));
    }
}
