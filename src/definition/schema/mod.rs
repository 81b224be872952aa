//! JSON Schemas (2020-12) of the two kinds of file, made from the raw types.
//!
//! There are two forms of each. The strict one is for resolved documents: references expanded,
//! `extends` merged. The published one is for editors: a file that extends a catalogue entry need not
//! repeat what the entry has, so nothing outside lists is required there. Called by `load` (to
//! validate), by `check` (to walk documents) and by `trunkline schema`.

pub mod manual;
pub mod publish;
pub mod walk;

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::raw::gateway::Gateway;
use super::raw::integration::Integration;

/// The strict schema of a resolved definition.
pub fn integration() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(strict::<Integration>);
    &SCHEMA
}

/// The strict schema of a gateway file.
pub fn gateway() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(strict::<Gateway>);
    &SCHEMA
}

fn strict<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    each_schema(&mut schema, &mut |map| {
        refuse_null(map);
        list_words(map);
    });
    schema
}

/// Changes a schema and every schema inside it, the inner ones first.
fn each_schema(schema: &mut Value, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Value::Object(map) = schema else { return };
    for (keyword, value) in map.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties" | "$defs", Value::Object(entries)) => {
                entries.values_mut().for_each(|entry| each_schema(entry, change));
            }
            ("items" | "additionalProperties", entry) => each_schema(entry, change),
            ("anyOf" | "oneOf", Value::Array(entries)) => {
                for entry in entries {
                    each_schema(entry, change);
                }
            }
            _ => {}
        }
    }
    change(map);
}

/// Takes null out of optional values: what is absent is left out, never written as null.
fn refuse_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(kinds)) = schema.get_mut("anyOf") {
        kinds.retain(|kind| kind.get("type").and_then(Value::as_str) != Some("null"));
        if let [Value::Object(only)] = kinds.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.entry(key).or_insert(value);
            }
        }
    }
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind.as_str() != Some("null"));
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

/// Writes fixed words as one `enum` with `enumDescriptions` instead of one schema a word, so that a
/// fault is one fault.
fn list_words(schema: &mut Map<String, Value>) {
    let Some(Value::Array(kinds)) = schema.remove("oneOf") else { return };
    let (mut words, mut meanings) = (Vec::new(), Vec::new());
    for kind in &kinds {
        let meaning = kind.get("description").cloned().unwrap_or_else(|| Value::from(""));
        let listed = kind.get("enum").and_then(Value::as_array);
        for word in kind.get("const").into_iter().chain(listed.into_iter().flatten()) {
            words.push(word.clone());
            meanings.push(meaning.clone());
        }
    }
    schema.insert("type".to_owned(), Value::from("string"));
    schema.insert("enum".to_owned(), Value::Array(words));
    schema.insert("enumDescriptions".to_owned(), Value::Array(meanings));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemas_are_valid_and_know_no_null() {
        for schema in [integration(), gateway()] {
            assert!(jsonschema::meta::is_valid(schema));
            assert!(!schema.to_string().contains("\"null\""));
            assert!(!schema.to_string().contains("oneOf"), "choices are maps with one key");
        }
    }
}
