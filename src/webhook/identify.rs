//! What kind of event a verified webhook is, and which delivery.
//!
//! A verified webhook is never lost because of its content: whatever the expressions cannot tell, it is
//! stored, under the type `unknown` where it has none, and rules with `when: "*"` see it. Where an expression fails, or
//! what it reads cannot be read, it is stored as well, and ends in the dead-letter list ([`identity`]). The one exception is a body with two
//! readings. Called by `receive`.

use sha2::{Digest as _, Sha256};

use super::scope::{Came, Scope};
use super::verify::Verified;
use crate::base::plain::is_plain;
use crate::definition::plan::Fingerprint;
use crate::definition::plan::webhook::Webhook;
use crate::queue::identity::{self, LONGEST, Told, UNTOLD, Untold};
use crate::template::payload::{Numbers, PayloadError, Wanted};

/// What a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The event's type: printable, at most 256 bytes.
    pub event_type: String,
    /// The sender's id of this delivery; a longer one than 256 bytes is replaced by its digest. Where the
    /// definition gives none and a signed time makes each signature good for one moment only, the
    /// signature stands for it, so that the same request cannot be brought in twice.
    pub delivery_id: Option<String>,
    /// Why nobody can tell what it is, where an expression failed.
    pub untold: Option<String>,
}

/// Finds out what a verified webhook is.
///
/// # Errors
/// [`PayloadError::Repeated`] when a key that is read stands twice.
pub fn identify(
    webhook: &Webhook,
    (came, scope): (Came<'_>, &Scope),
    verified: &Verified,
) -> Result<Identity, PayloadError> {
    let told = identity::ask((webhook, came.body), |expr, numbers| {
        if numbers == Numbers::Values {
            let told = expr.text(&scope.context).map_err(|error| error.to_string());
            if scope.fault().is_none() {
                return told;
            }
        }
        // What another expression asked for cannot be read: each is asked by what it reads itself.
        let alone = Scope::of(came, &Wanted::of(expr.names()), numbers);
        let told = expr.text(&alone.context).map_err(|error| error.to_string());
        alone.fault().map_or(told, |unread| Err(unread.to_string()))
    });
    if let Some(repeated @ PayloadError::Repeated(_)) = scope.fault() {
        return Err(repeated.clone());
    }
    let (Told { event_type, delivery_id }, untold) = match told {
        Ok(told) => (told, None),
        Err(Untold { why, delivery_id }) => (Told { event_type: UNTOLD.to_owned(), delivery_id }, Some(why)),
    };
    let moment = || verified.moment.as_deref().map(|signature| format!("signature:{}", digest(signature)));
    Ok(Identity { event_type, delivery_id: delivery_id.map(bounded).or_else(moment), untold })
}

fn bounded(id: String) -> String {
    if id.len() <= LONGEST && id.chars().all(is_plain) { id } else { format!("sha256:{}", digest(id.as_bytes())) }
}

/// Lower-case hex SHA-256.
pub(super) fn digest(bytes: &[u8]) -> String {
    Fingerprint(Sha256::digest(bytes).into()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ids_stay_distinct() {
        let (one, two) = (bounded(format!("{}1", "x".repeat(300))), bounded(format!("{}2", "x".repeat(300))));
        assert!(one != two && one.len() < 100 && one.starts_with("sha256:"));
        assert_eq!(bounded("evt_1".to_owned()), "evt_1");
    }
}
