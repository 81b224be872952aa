//! `extends`: a definition laid over a catalogue entry.
//!
//! Maps merge deeply, lists are replaced, and in a choice another kind replaces the whole. Every value
//! keeps the place it was written at.

use std::sync::Arc;

use serde_json::Value;

use crate::definition::document::{Below, Document, Spot};
use crate::definition::shape::{Shape, View};

/// Lays a document over another.
pub fn merge(base: &Document, over: Document, shape: &Shape) -> Document {
    let view = shape.root(&over.value);
    let (value, places) = lay((&base.value, &base.places), (over.value, over.places), &view);
    Document { file: over.file, value, places }
}

type Placed = (Value, Arc<Spot>);

fn lay(base: (&Value, &Arc<Spot>), over: Placed, view: &View<'_>) -> Placed {
    let (Value::Object(under), Value::Object(top)) = (base.0, &over.0) else { return over };
    let another_kind = view.is_choice() && !top.keys().all(|kind| under.contains_key(kind));
    let (Below::Map(base_spots), Below::Map(over_spots)) = (&base.1.below, &over.1.below) else { return over };
    if another_kind {
        return over;
    }
    let (mut merged, mut spots) = (under.clone(), base_spots.clone());
    for (key, value) in top {
        let Some(spot) = over_spots.get(key.as_str()) else { continue };
        let placed = (value.clone(), Arc::clone(spot));
        let (value, spot) = match (under.get(key), base_spots.get(key.as_str())) {
            (Some(below), Some(below_spot)) => lay((below, below_spot), placed, &view.field(key, value)),
            _ => placed,
        };
        merged.insert(key.clone(), value);
        spots.insert(key.as_str().into(), spot);
    }
    let spot = Spot { below: Below::Map(spots), ..Spot::clone(&over.1) };
    (Value::Object(merged), Arc::new(spot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load::tree::parse;
    use serde_json::json;
    use std::path::PathBuf;

    fn document(name: &str, text: &str) -> Document {
        parse(&Arc::new(PathBuf::from(name)), text).document.expect("a document")
    }

    fn merged(base: &str, over: &str) -> Document {
        let kinds = json!({ "basic": { "type": "object" }, "oauth2": { "type": "object" } });
        let auth = json!({ "x-choice": true, "type": "object", "properties": kinds });
        let shape = Shape::new(&json!({ "properties": { "auth": auth } }));
        merge(&document("base", base), document("over", over), &shape)
    }

    #[test]
    fn maps_merge_and_lists_are_replaced() {
        let document = merged("a: { b: 1, c: [1, 2] }\nd: 1\n", "a: { c: [3], e: 4 }\n");
        assert_eq!(document.value, json!({ "a": { "b": 1, "c": [3], "e": 4 }, "d": 1 }));
        let file = |pointer| document.place(pointer).file.display().to_string();
        assert_eq!([file("/a/b"), file("/a/c/0"), file("/a"), file("/d")], ["base", "over", "over", "base"]);
    }

    #[test]
    fn another_kind_of_a_choice_replaces_the_whole() {
        let base = "auth: { oauth2: { a: 1 } }\n";
        assert_eq!(merged(base, "auth: { basic: {} }\n").value, json!({ "auth": { "basic": {} } }));
        assert_eq!(merged(base, "auth: { oauth2: { b: 2 } }\n").value["auth"]["oauth2"], json!({ "a": 1, "b": 2 }));
    }
}
