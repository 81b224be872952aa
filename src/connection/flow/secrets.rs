//! What must be in no word about a call: services repeat what they were sent.

use std::borrow::Cow;
use std::fmt;

use crate::base::secret::Secret;
use crate::definition::plan::{Auth, Integration};

/// The shortest text that is looked for. Shorter ones would make holes in ordinary words.
const SHORTEST: usize = 4;

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

    /// Adds one.
    pub fn add(&mut self, secret: &str) {
        if secret.len() >= SHORTEST {
            self.0.push(Secret::from(secret));
        }
    }

    /// `text` without any of them, as they are or percent-encoded.
    pub fn redact(&self, text: &str) -> String {
        let mut clean = Cow::Borrowed(text);
        for secret in &self.0 {
            let secret = secret.expose().as_str();
            let encoded = percent_encoding::utf8_percent_encode(secret, crate::net::origin::SEGMENT).to_string();
            for form in [secret, &encoded] {
                if clean.contains(form) {
                    clean = Cow::Owned(clean.replace(form, "[redacted]"));
                }
            }
        }
        clean.into_owned()
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
