//! The schemas against the types they were made from: both take the same documents.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use trunkline::definition::raw::gateway::Gateway;
use trunkline::definition::raw::integration::Integration;
use trunkline::definition::raw::read;
use trunkline::definition::schema;

fn documents() -> Vec<Value> {
    let text = include_str!("exhaustive.yaml");
    text.split("\n---\n").map(|document| serde_yaml::from_str(document).unwrap()).collect()
}

fn is_gateway(document: &Value) -> bool {
    document.get("public_url").is_some()
}

fn schema_of(document: &Value) -> &'static Value {
    if is_gateway(document) { schema::gateway() } else { schema::integration() }
}

/// The first fault that the schema finds, as `pointer keyword`.
fn fault(document: &Value) -> Option<String> {
    static VALIDATORS: LazyLock<[Validator; 2]> = LazyLock::new(|| {
        [schema::integration(), schema::gateway()].map(|schema| jsonschema::validator_for(schema).unwrap())
    });
    let validator = &VALIDATORS[usize::from(is_gateway(document))];
    let error = validator.iter_errors(document).next()?;
    Some(format!("{} {}", error.instance_path(), error.kind().keyword()))
}

fn reads(document: &Value) -> Result<(), String> {
    let told = |error: trunkline::definition::raw::ReadError| format!("{}: {}", error.pointer, error.message);
    if is_gateway(document) {
        read::<Gateway>(document).map(drop).map_err(told)
    } else {
        read::<Integration>(document).map(drop).map_err(told)
    }
}

#[test]
fn the_exhaustive_documents_pass_both() {
    for document in documents() {
        assert_eq!(fault(&document), None, "{}", document["id"]);
        assert_eq!(reads(&document), Ok(()), "{}", document["id"]);
    }
}

/// The fields of a schema, as `definition.field`.
fn fields(root: &Value, name: &str) -> BTreeSet<String> {
    let of = |owner: &str, schema: &Value| -> Vec<String> {
        let properties = schema.get("properties").and_then(Value::as_object);
        properties.into_iter().flat_map(Map::keys).map(|field| format!("{owner}.{field}")).collect()
    };
    let definitions = root.get("$defs").and_then(Value::as_object).into_iter().flatten();
    definitions.flat_map(|(owner, schema)| of(owner, schema)).chain(of(name, root)).collect()
}

/// Takes the fields that a value uses off those that are wanted.
fn use_up(root: &Value, owner: &str, schema: &Value, value: &Value, wanted: &mut BTreeSet<String>) {
    let (owner, schema) = match schema.get("$ref").and_then(Value::as_str) {
        Some(path) => (path.rsplit('/').next().unwrap(), root.pointer(path.trim_start_matches('#')).unwrap()),
        None => (owner, schema),
    };
    if let (Value::Array(items), Some(schema)) = (value, schema.get("items")) {
        for item in items {
            use_up(root, owner, schema, item, wanted);
        }
    }
    let Value::Object(map) = value else { return };
    for (key, item) in map {
        let known = schema.get("properties").and_then(|properties| properties.get(key));
        if known.is_some() {
            // A block with a short form or a list has its fields under each of its names.
            let plain = owner.trim_end_matches("OrList").trim_end_matches("OrText");
            for owner in ["", "OrText", "OrList", "OrTextOrList"] {
                wanted.remove(&format!("{plain}{owner}.{key}"));
            }
        }
        if let Some(schema) = known.or(schema.get("additionalProperties").filter(|other| other.is_object())) {
            use_up(root, owner, schema, item, wanted);
        }
    }
}

#[test]
fn the_exhaustive_documents_use_every_field() {
    let mut wanted = fields(schema::integration(), "Integration");
    wanted.extend(fields(schema::gateway(), "Gateway"));
    for document in documents() {
        let owner = if is_gateway(&document) { "Gateway" } else { "Integration" };
        use_up(schema_of(&document), owner, schema_of(&document), &document, &mut wanted);
    }
    // The request shape is one macro: its fields are used up under `TokenCall`.
    let shape = "request query headers form json text basic credential ok error save result timeout";
    wanted.retain(|field| !shape.split(' ').any(|name| field.ends_with(&format!(".{name}"))));
    assert_eq!(wanted, BTreeSet::new());
}

#[test]
fn rejections_are_pinned_by_place_and_keyword() {
    let with = |more: &Value| {
        let mut document = json!({ "trunkline": 1, "id": "a" });
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fault(&document).unwrap_or_default()
    };
    for (more, expected) in [
        (json!({ "trunkline": 2 }), "/trunkline const"),
        (json!({ "id": "A" }), "/id pattern"),
        (json!({ "titel": "x" }), " additionalProperties"),
        (json!({ "title": null }), "/title type"),
        (json!({ "auth": {} }), "/auth minProperties"),
        (json!({ "auth": { "basic": {}, "none": {} } }), "/auth maxProperties"),
        (json!({ "auth": { "oauth3": {} } }), "/auth additionalProperties"),
        (json!({ "api": {} }), "/api required"),
        (json!({ "api": { "base_url": "x", "timeouts": { "connect": 5 } } }), "/api/timeouts/connect type"),
        (json!({ "api": { "base_url": "x", "timeouts": { "connect": "5" } } }), "/api/timeouts/connect pattern"),
        (json!({ "api": { "base_url": "x", "limits": [{ "rate": "5/w" }] } }), "/api/limits/0/rate pattern"),
        (json!({ "api": { "base_url": "x", "cache": "soon" } }), "/api/cache pattern"),
        (json!({ "api": { "base_url": "x", "cache": 5 } }), "/api/cache type"),
        (json!({ "api": { "base_url": "x", "test": { "requst": "GET /" } } }), "/api/test additionalProperties"),
        (
            json!({ "webhook": { "event": "x", "verify": { "hmac": { "algorithm": "sha265", "signature": {}, "signed": "x" } } } }),
            "/webhook/verify/hmac/algorithm enum",
        ),
        (json!({ "rules": [{ "id": "r", "when": [], "do": [{ "log": "x" }] }] }), "/rules/0/when minItems"),
        (json!({ "rules": [{ "id": "r", "when": "*", "do": [] }] }), "/rules/0/do minItems"),
    ] {
        let told = with(&more);
        assert!(told.starts_with(expected), "{more}: {told}");
    }
}

/// Every pointer of a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| pointers(item, &format!("{at}/{index}"), found));
        }
        Value::Object(map) => {
            map.iter().for_each(|(key, item)| pointers(item, &format!("{at}/{}", escape(key)), found));
        }
        _ => {}
    }
}

fn mutation() -> impl Strategy<Value = Option<Value>> {
    let values =
        [json!(null), json!({}), json!([]), json!(true), json!("x"), json!("5m"), json!(["x"]), json!({ "zz": 1 })];
    prop_oneof![Just(None), proptest::sample::select(values.to_vec()).prop_map(Some)]
}

/// Sets the value at a pointer, or takes it away.
fn mutate(document: &mut Value, pointer: &str, mutation: Option<Value>) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    let key = key.replace("~1", "/").replace("~0", "~");
    match (document.pointer_mut(parent), mutation) {
        (Some(Value::Object(map)), Some(value)) => _ = map.insert(key, value),
        (Some(Value::Object(map)), None) => _ = map.remove(&key),
        (Some(Value::Array(items)), mutation) => match (key.parse::<usize>(), mutation) {
            (Ok(index), Some(value)) => items[index] = value,
            (Ok(index), None) => _ = items.remove(index),
            (Err(_), _) => {}
        },
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn schema_and_types_take_the_same_documents(
        which in any::<prop::sample::Index>(), place in any::<prop::sample::Index>(), mutation in mutation(),
    ) {
        static DOCUMENTS: LazyLock<Vec<Value>> = LazyLock::new(documents);
        let document = &mut which.get(&DOCUMENTS).clone();
        let gateway = is_gateway(document);
        let mut found = Vec::new();
        pointers(document, "", &mut found);
        let pointer = found[place.index(found.len())].clone();
        mutate(document, &pointer, mutation);
        prop_assume!(is_gateway(document) == gateway);
        let judged = fault(document);
        let read = reads(document);
        prop_assert_eq!(judged.is_none(), read.is_ok(), "{} {:?} {:?}", pointer, judged, read);
    }
}
