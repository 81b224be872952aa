//! The schemas as they are published in `schemas/`, for editors.

use serde_json::{Map, Value, json};

use super::manual;
use crate::definition::raw::variables;

/// A generated file: its path below the repository, and its content.
pub type Generated = (&'static str, String);

/// Every file that is generated from the grammar. `trunkline schema` writes them; a test compares.
pub fn files() -> Vec<Generated> {
    let text = |schema: &Value| format!("{schema:#}\n");
    vec![
        ("schemas/integration.schema.json", text(&published(super::integration()))),
        ("schemas/gateway.schema.json", text(&published(super::gateway()))),
        ("docs/GRAMMAR.md", manual::page()),
        ("docs/ERRORS.md", crate::respond::page()),
    ]
}

/// The schema for editors: nothing outside lists is required but the version and the id, descriptions
/// name the variables of templates, defaults and short forms.
pub fn published(strict: &Value) -> Value {
    let mut schema = strict.clone();
    let required = schema.get("required").cloned();
    let shared = reachable_outside_lists(strict);
    if let Some(Value::Object(definitions)) = schema.get_mut("$defs") {
        for (name, definition) in definitions.iter_mut() {
            if shared.contains(name) {
                relax(definition);
            }
        }
    }
    relax(&mut schema);
    if let (Some(Value::Array(required)), Some(map)) = (required, schema.as_object_mut()) {
        map.insert("required".to_owned(), Value::Array(required));
    }
    describe(&mut schema, None, false);
    schema
}

/// The names of definitions that a map leads to without a list between.
fn reachable_outside_lists(root: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut queue = vec![root];
    while let Some(schema) = queue.pop() {
        let Value::Object(map) = schema else { continue };
        if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"))
            && !found.iter().any(|known| known == name)
        {
            found.push(name.to_owned());
            queue.extend(root.pointer(&format!("/$defs/{name}")));
        }
        queue.extend(map.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::values));
        queue.extend(map.get("additionalProperties"));
    }
    found
}

/// Takes `required` off a schema and the maps inside it, not off the items of its lists.
fn relax(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("required");
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(relax);
    }
    if let Some(values) = map.get_mut("additionalProperties") {
        relax(values);
    }
}

/// Says in the descriptions what the `x-` keywords say, for people who hover over a field.
fn describe(schema: &mut Value, sees: Option<&str>, answer: bool) {
    let Value::Object(map) = schema else { return };
    let own = map.get("x-sees").and_then(Value::as_str).map(str::to_owned);
    let sees = own.as_deref().or(sees);
    let answer = answer || map.contains_key("x-answer");
    if let Some(note) = note(map, sees, answer) {
        let description = map.get("description").and_then(Value::as_str).unwrap_or_default();
        let whole = format!("{description}\n\n{note}").trim().to_owned();
        map.insert("description".to_owned(), json!(whole));
    }
    if !map.contains_key("default")
        && let Some(default) = default_of(map)
    {
        map.insert("default".to_owned(), default);
    }
    for key in ["properties", "$defs"] {
        if let Some(Value::Object(entries)) = map.get_mut(key) {
            entries.values_mut().for_each(|entry| describe(entry, sees, answer));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(entry) = map.get_mut(key) {
            describe(entry, sees, answer);
        }
    }
}

/// What the `x-` keywords of a schema say.
fn note(map: &Map<String, Value>, sees: Option<&str>, answer: bool) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(short) = map.get("x-short").and_then(Value::as_str) {
        parts.push(format!("Short form: {short}."));
    }
    if map.contains_key("x-secret") && map.get("type").and_then(Value::as_str) == Some("string") {
        parts.push("A secret: by reference only, `${env:NAME}` or `${file:PATH}`.".to_owned());
    }
    if let (Some(kind), Some(place)) = (map.get("x-template").and_then(Value::as_str), sees) {
        let extra = if answer { variables::ANSWER } else { &[] };
        let mut names: Vec<_> = variables::of_place(place).iter().chain(extra).map(|(name, _)| *name).collect();
        let mut listed = std::collections::BTreeSet::new();
        names.retain(|name| listed.insert(*name));
        let kind = if kind == "expression" { "Expression" } else { "Template" };
        parts.push(format!("{kind} over `{}`.", names.join("`, `")));
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// The default that a description states as `Default X.`, as a value of the field's type.
fn default_of(map: &Map<String, Value>) -> Option<Value> {
    let description = map.get("description")?.as_str()?;
    let (_, rest) = description.split_once("Default ")?;
    let word = rest.split([' ', '\n', ',']).next()?.trim_end_matches('.').trim_matches('`');
    match map.get("type").and_then(Value::as_str) {
        Some("integer") => word.parse::<u64>().ok().map(Value::from),
        Some("number") => word.parse::<f64>().ok().map(Value::from),
        Some("string") | None => Some(json!(word)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::schema;

    #[test]
    fn a_file_that_extends_need_not_repeat_what_the_entry_has() {
        let published = published(schema::integration());
        let partial = json!({
            "trunkline": 1, "id": "github", "extends": "github",
            "auth": { "oauth2": { "client": { "id": "${env:ID}" } } },
            "webhook": { "secrets": ["${env:SECRET}"] },
        });
        assert!(jsonschema::is_valid(&published, &partial));
        assert!(!jsonschema::is_valid(schema::integration(), &partial));
        let incomplete_item = json!({ "trunkline": 1, "id": "github", "rules": [{ "id": "a" }] });
        assert!(!jsonschema::is_valid(&published, &incomplete_item), "lists are replaced whole");
    }

    /// After a change of the grammar, `UPDATE_SCHEMAS=1 cargo test drift` writes the files anew.
    #[test]
    fn generated_files_do_not_drift() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for (path, text) in files() {
            let path = root.join(path);
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
                std::fs::write(&path, &text).expect("written");
            }
            let written = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(written == text, "{} lags behind: run UPDATE_SCHEMAS=1 cargo test drift", path.display());
        }
    }

    #[test]
    fn stated_defaults_become_defaults() {
        let published = published(schema::integration());
        let at = |pointer: &str| published.pointer(pointer).cloned();
        assert_eq!(at("/$defs/Timeouts/properties/connect/default"), Some(json!("10s")));
        assert_eq!(at("/$defs/Breaker/properties/min_requests/default"), Some(json!(20)));
    }
}
