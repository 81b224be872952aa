//! The scalars of a document, each with its place and what the schema says of it.
//!
//! Called by `expand`, and by `workspace` for what a gateway file names.

use serde_json::Value;

use super::reference::says_itself;
use crate::definition::document::push_token;
use crate::definition::render::redact::is_telling;
use crate::definition::shape::View;

/// A scalar, and what the schema says of it.
pub struct Visited<'a> {
    /// Where it stands.
    pub pointer: &'a str,
    /// The scalar.
    pub value: &'a Value,
    /// What the schema says of it.
    pub view: &'a View<'a>,
    /// Whether it stands in a block that is or may be a secret.
    in_secret: bool,
}

impl Visited<'_> {
    /// Whether it may be a secret written out: it is one, or stands in the place of one in a form that
    /// nobody knows.
    pub fn is_hidden(&self) -> bool {
        let unknown = self.view.nodes().next().is_none();
        let telling = self.pointer.rsplit('/').next().is_some_and(is_telling);
        let by_reference = self.value.as_str().is_some_and(|text| !says_itself(text));
        (self.view.is_secret() || (unknown && (self.in_secret || telling))) && !by_reference
    }
}

/// Visits every scalar of a value.
pub fn visit(value: &Value, view: &View<'_>, see: &mut dyn FnMut(&Visited<'_>)) {
    below(value, view, false, &mut String::new(), see);
}

fn below(value: &Value, view: &View<'_>, in_secret: bool, pointer: &mut String, see: &mut dyn FnMut(&Visited<'_>)) {
    let length = pointer.len();
    let inside = in_secret || view.is_secret();
    match value {
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                push_token(pointer, &place.to_string());
                below(item, &view.item(item), inside, pointer, see);
                pointer.truncate(length);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                push_token(pointer, key);
                below(item, &view.field(key, item), inside, pointer, see);
                pointer.truncate(length);
            }
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => see(&Visited { pointer, value, view, in_secret }),
    }
}
