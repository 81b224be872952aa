//! What kind of event a verified webhook is, and which delivery.
//!
//! A verified webhook is never lost because of its content: whatever the expressions cannot tell, it is
//! stored, under the type `unknown` where it has none, and rules with `when: "*"` see it. The one exception
//! is a body with two readings. Called by `receive`.

use sha2::{Digest as _, Sha256};

use super::scope::Scope;
use super::verify::Verified;
use crate::definition::plan::Fingerprint;
use crate::definition::plan::webhook::Webhook;
use crate::template::payload::PayloadError;

/// The type of an event whose definition's expression gives none.
pub const UNKNOWN: &str = "unknown";
/// The most bytes of an event type and of a delivery id that are kept as they are.
const LONGEST: usize = 256;

/// What a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The event's type: printable, at most 256 bytes.
    pub event_type: String,
    /// The sender's id of this delivery; a longer one than 256 bytes is replaced by its digest. Where the
    /// definition gives none and a signed time makes each signature good for one moment only, the
    /// signature stands for it, so that the same request cannot be brought in twice.
    pub delivery_id: Option<String>,
}

/// Finds out what a verified webhook is.
///
/// # Errors
/// [`PayloadError::Repeated`] when a key that is read stands twice.
pub fn identify(webhook: &Webhook, scope: &Scope, verified: &Verified) -> Result<Identity, PayloadError> {
    let event_type = webhook.event.text(&scope.context).ok().flatten();
    let named = webhook.delivery_id.as_ref().and_then(|id| id.text(&scope.context).ok().flatten());
    if let Some(repeated @ PayloadError::Repeated(_)) = scope.fault() {
        return Err(repeated.clone());
    }
    let moment = || verified.moment.as_deref().map(|signature| format!("signature:{}", digest(signature)));
    let delivery_id = named.map(bounded).or_else(moment);
    Ok(Identity { event_type: event_type.map_or_else(|| UNKNOWN.to_owned(), |text| sanitised(&text)), delivery_id })
}

/// Whether a text can stand in logs, lists and terminals as it is.
fn is_plain(c: char) -> bool {
    // Bidirectional controls can make a list read as what it is not.
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !turns
}

fn sanitised(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    let (kept, _) = text.split_at(end);
    kept.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
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
    fn types_are_printable_and_bounded() {
        assert_eq!(sanitised("pull_request.opened"), "pull_request.opened");
        assert_eq!(sanitised("a\nb\u{202e}c"), "a_b_c");
        assert_eq!(sanitised(&"é".repeat(200)).len(), 256);
    }

    #[test]
    fn long_ids_stay_distinct() {
        let (one, two) = (bounded(format!("{}1", "x".repeat(300))), bounded(format!("{}2", "x".repeat(300))));
        assert!(one != two && one.len() < 100 && one.starts_with("sha256:"));
        assert_eq!(bounded("evt_1".to_owned()), "evt_1");
    }
}
