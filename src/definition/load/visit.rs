//! The scalars of a document, each with its place and what the schema says of it; and what else stands in the place of a
//! secret.
//!
//! Called by `expand`, and by `workspace` for what a gateway file names.

use serde_json::Value;

use super::reference::says_itself;
use crate::definition::document::push_token;
use crate::definition::render::redact::is_telling;
use crate::definition::shape::View;

/// A scalar, and what the schema says of it; or nothing, a map or a list in the place of a secret.
pub struct Visited<'a> {
    /// Where it stands.
    pub pointer: &'a str,
    /// The value.
    pub value: &'a Value,
    /// What the schema says of it.
    pub view: &'a View<'a>,
    /// Whether its place is that of a secret, or is in a block that is or may be one.
    in_secret: bool,
}

impl Visited<'_> {
    /// Whether it may be a secret written out: it is one, or stands in the place of one, in whatever form.
    pub fn is_hidden(&self) -> bool {
        let unknown = self.view.is_unknown();
        let telling = self.pointer.rsplit('/').next().is_some_and(is_telling);
        let by_reference = self.value.as_str().is_some_and(|text| !says_itself(text));
        let hidden = self.view.is_secret() || self.in_secret || (unknown && telling) || self.is_credential_header();
        hidden && !by_reference
    }

    /// Whether it is a credential written out as the value of a header: nothing but what is written there makes it.
    pub fn is_credential_header(&self) -> bool {
        let mut tokens = self.pointer.rsplit('/');
        let (Some(name), Some("headers"), Some(text)) = (tokens.next(), tokens.next(), self.value.as_str()) else {
            return false;
        };
        let named = CREDENTIALS.iter().any(|known| name.eq_ignore_ascii_case(known)) || is_telling(name);
        let made = ["${", "{{", "{%"].iter().any(|sign| text.contains(sign));
        (says_who(text) || named) && !made && !text.is_empty()
    }
}

/// Whether a text is a credential as the `Authorization` of a request has one: `Bearer …`, `Basic …`, `Token …`.
pub fn says_who(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| {
        let (head, rest) = (text.get(..scheme.len()), text.get(scheme.len()..).unwrap_or_default().trim());
        head.is_some_and(|head| head.eq_ignore_ascii_case(scheme)) && !rest.is_empty() && !rest.contains(' ')
    })
}

/// How values of headers begin that are credentials.
const SCHEMES: [&str; 3] = ["bearer ", "basic ", "token "];
/// Names of headers whose values are credentials.
const CREDENTIALS: [&str; 7] =
    ["authorization", "proxy-authorization", "x-api-key", "api-key", "apikey", "x-auth-token", "cookie"];

/// Visits every scalar of a value, and what stands in the place of a secret without being one.
pub fn visit(value: &Value, view: &View<'_>, see: &mut dyn FnMut(&Visited<'_>)) {
    below(value, view, false, &mut String::new(), see);
}

fn below(value: &Value, view: &View<'_>, in_secret: bool, pointer: &mut String, see: &mut dyn FnMut(&Visited<'_>)) {
    let length = pointer.len();
    // Where it is known what stands inside, each part says for itself what it is.
    let inside = in_secret && !view.knows_inside();
    match value {
        Value::Array(items) => {
            if inside {
                see(&Visited { pointer, value, view, in_secret });
            }
            let hides = inside || view.hides_item();
            for (place, item) in items.iter().enumerate() {
                push_token(pointer, &place.to_string());
                let of_item = view.item(item);
                below(item, &of_item, hides || in_secret && of_item.is_unknown(), pointer, see);
                pointer.truncate(length);
            }
        }
        Value::Object(map) => {
            if inside {
                see(&Visited { pointer, value, view, in_secret });
            }
            for (key, item) in map {
                push_token(pointer, key);
                let of_field = view.field(key, item);
                let hides = inside || view.hides_field(key) || in_secret && of_field.is_unknown();
                below(item, &of_field, hides, pointer, see);
                pointer.truncate(length);
            }
        }
        Value::Null if !in_secret => {}
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            see(&Visited { pointer, value, view, in_secret });
        }
    }
}
