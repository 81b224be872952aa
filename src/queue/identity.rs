//! What kind of event a webhook is, by the expressions of its definition, and again where they could not tell.
//!
//! An expression that fails is the definition's fault and not the sender's: the event is kept, as one of the type
//! [`UNTOLD`], and ends in the dead-letter list with the expression's error. Once the definition is mended and the
//! event is replayed, it is what the expressions say then. Called by `webhook`, `matching` and `attempt`.

use std::sync::Arc;

use super::content;
use crate::base::plain::is_plain;
use crate::definition::plan::Integration;
use crate::definition::plan::webhook::Webhook;
use crate::store::model::Event;
use crate::template::payload::Wanted;
use crate::template::{Context, Expr};

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

/// Asks the expressions of a definition.
///
/// # Errors
/// What is wrong with one of them, in words.
pub fn ask(webhook: &Webhook, context: &Context) -> Result<Told, String> {
    let event_type = one("event", &webhook.event, context)?.map_or_else(|| UNKNOWN.to_owned(), |text| sanitised(&text));
    Ok(Told { event_type, delivery_id: delivery_id(webhook, context)? })
}

/// Asks for the delivery's id alone: a repeat is known by it also where nobody can tell what the event is.
///
/// # Errors
/// What is wrong with the expression, in words.
pub fn delivery_id(webhook: &Webhook, context: &Context) -> Result<Option<String>, String> {
    webhook.delivery_id.as_ref().map_or(Ok(None), |expr| one("delivery_id", expr, context))
}

fn one(field: &str, expr: &Expr, context: &Context) -> Result<Option<String>, String> {
    expr.text(context).map_err(|error| format!("`webhook.{field}` cannot be told: {error}"))
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
    let names = webhook.event.names().into_iter().chain(webhook.delivery_id.iter().flat_map(Expr::names));
    let wanted = Wanted::of(names).get("body").cloned().unwrap_or_default();
    let told = ask(webhook, &content::context(event, wanted).with("method", "POST"))?;
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
