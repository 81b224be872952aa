//! What kind of event a webhook is, by the expressions of its definition, and again where they could not tell.
//!
//! An expression that fails is the definition's fault and not the sender's: the event is kept, as one of the type
//! [`UNTOLD`], and ends in the dead-letter list with the expression's error. Once the definition is mended and the
//! event is replayed, it is what the expressions say then. Called by `webhook`, `matching` and `attempt`.

use std::sync::Arc;

use super::content::Seen;
use crate::base::plain::is_plain;
use crate::definition::plan::Integration;
use crate::definition::plan::webhook::Webhook;
use crate::store::model::Event;
use crate::template::Expr;
use crate::template::payload::{self, Numbers};

/// The type of a stored event whose definition could not tell what it is.
pub const UNTOLD: &str = "trunkline.untold";
/// The type of an event whose definition's expression gives none.
pub const UNKNOWN: &str = "unknown";
/// The most bytes of an event type that are kept.
pub const LONGEST: usize = 256;

/// What the expressions of a definition say of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The event's type: printable, at most 256 bytes.
    pub event_type: String,
    /// The sender's id of this delivery, as it is.
    pub delivery_id: Option<String>,
}

/// Why nobody can tell what a webhook is, and what is known of it all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// What is wrong with an expression, or with what it reads.
    pub why: String,
    /// The sender's id, where it could be told: a repeat is known by it.
    pub delivery_id: Option<String>,
}

/// Asks the expressions of a definition. `one` is what an expression gives of what it reads, and fails where that cannot
/// be read: what is missing in it is not known to be missing.
///
/// # Errors
/// When one of them fails.
pub fn ask(
    (webhook, body): (&Webhook, &[u8]),
    one: impl Fn(&Expr, Numbers) -> Result<Option<String>, String>,
) -> Result<Told, Untold> {
    let delivery_id = webhook.delivery_id.as_ref().map_or(Ok(None), |expr| told_by((expr, body), &one));
    let event_type = one(&webhook.event, Numbers::Values);
    let why = |field: &str, why: &String| format!("`webhook.{field}` cannot be told: {why}");
    match (event_type, delivery_id) {
        (Ok(text), Ok(delivery_id)) => {
            let event_type = text.map_or_else(|| UNKNOWN.to_owned(), |text| sanitised(&text));
            Ok(Told { event_type, delivery_id })
        }
        (Err(error), delivery_id) => {
            Err(Untold { why: why("event", &error), delivery_id: delivery_id.unwrap_or_default() })
        }
        (Ok(_), Err(error)) => Err(Untold { why: why("delivery_id", &error), delivery_id: None }),
    }
}

/// An id that is a number is told by the digits that were sent: two that are one double are not one delivery.
fn told_by(
    (expr, body): (&Expr, &[u8]),
    one: &impl Fn(&Expr, Numbers) -> Result<Option<String>, String>,
) -> Result<Option<String>, String> {
    let told = one(expr, Numbers::Values)?;
    let reads_body = || expr.reads().iter().any(|name| name.path.starts_with("body"));
    if told.is_none() || !reads_body() || !payload::is_rounded(body) {
        return Ok(told);
    }
    // What reckons with numbers fails with digits, and is as exact as it reckons.
    Ok(one(expr, Numbers::Digits).unwrap_or(told))
}

/// A stored event as the definition in force tells it: itself, unless nobody could tell what it is when it came.
///
/// # Errors
/// Why that still cannot be told, in words.
pub fn of_stored(integration: &Integration, event: &Arc<Event>) -> Result<Arc<Event>, String> {
    if event.head.event_type != UNTOLD {
        return Ok(Arc::clone(event));
    }
    let webhook = integration.webhook.as_ref().ok_or("the definition no longer takes webhooks")?;
    let told = ask((webhook, &event.body), |expr, numbers| {
        let seen = Seen::reading(event, expr.names(), numbers);
        let told = expr.text(&seen.context.clone().with("method", "POST")).map_err(|error| seen.explain(&error))?;
        seen.unread().map_or(Ok(told), |unread| Err(unread.to_string()))
    });
    let told = told.map_err(|untold| untold.why)?;
    let mut event = Event::clone(event);
    event.head.event_type = told.event_type;
    event.head.delivery_id = event.head.delivery_id.or(told.delivery_id);
    Ok(Arc::new(event))
}

fn sanitised(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    let (kept, _) = text.split_at(end);
    kept.chars().map(|c| if is_plain(c) { c } else { '_' }).collect()
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
}
