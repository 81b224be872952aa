//! The grammar as a page of the manual, made from the schema so that it cannot lag behind.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::publish::published;
use crate::definition::raw::variables::PLACES;

/// The page.
pub fn page() -> String {
    let mut out = String::from(
        "# Grammar\n\n\
         This page is generated from the schemas in `schemas/` by `trunkline schema`.\n\n\
         A definition is one YAML file under a directory of `integrations`; the gateway's own settings are in\n\
         `trunkline.yaml`. Unknown fields and duplicate keys are errors. A choice is a map with exactly one key.\n",
    );
    chapter(&mut out, "Definition files", &published(super::integration()));
    chapter(&mut out, "The gateway file", &published(super::gateway()));
    out.push_str("\n## Variables\n\nWhat templates see, by place.\n");
    for seen in PLACES {
        line(&mut out, format_args!("\n### Place: {}\n", seen.place));
        for (name, meaning) in seen.variables {
            line(&mut out, format_args!("- `{name}`: {meaning}"));
        }
    }
    out
}

fn chapter(out: &mut String, title: &str, schema: &Value) {
    line(out, format_args!("\n## {title}\n"));
    fields(out, schema);
    let Some(Value::Object(definitions)) = schema.get("$defs") else { return };
    for (name, definition) in definitions {
        line(out, format_args!("\n### {name}\n"));
        if let Some(text) = definition.get("description").and_then(Value::as_str) {
            line(out, format_args!("{text}\n"));
        }
        fields(out, definition);
        words(out, definition);
    }
}

fn fields(out: &mut String, schema: &Value) {
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    let required: Vec<_> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in properties {
        let must = if required.contains(&name.as_str()) { ", required" } else { "" };
        let text = field.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        line(out, format_args!("- `{name}` ({}{must}): {text}", kind(field)));
    }
}

/// The words that a schema of fixed words knows.
fn words(out: &mut String, schema: &Value) {
    let list = |keyword: &str| schema.get(keyword).and_then(Value::as_array).into_iter().flatten();
    for (word, meaning) in list("enum").zip(list("enumDescriptions")) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        line(out, format_args!("- `{}`: {}", text(word), text(meaning)));
    }
}

/// What a field holds, in a few words.
fn kind(field: &Value) -> String {
    let Value::Object(map) = field else { return "any value".to_owned() };
    if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    match map.get("x-template").and_then(Value::as_str) {
        Some("expression") => return "expression".to_owned(),
        Some("tree") => return "JSON with templates".to_owned(),
        Some(_) => return "template".to_owned(),
        None => {}
    }
    match map.get("type") {
        Some(Value::String(kind)) => plain_kind(kind, map),
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).map(|kind| plain_kind(kind, map)).collect::<Vec<_>>().join(" or ")
        }
        _ => map.get("const").map_or_else(|| "any value".to_owned(), Value::to_string),
    }
}

fn plain_kind(kind: &str, map: &Map<String, Value>) -> String {
    match kind {
        "string" => match map.get("enum").and_then(Value::as_array) {
            Some(words) => {
                words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            None => "text".to_owned(),
        },
        "array" => format!("list of {}", map.get("items").map_or_else(|| "any value".to_owned(), self::kind)),
        "object" => match map.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("map of {}", self::kind(values)),
            _ => "map".to_owned(),
        },
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let written = writeln!(out, "{text}");
    debug_assert!(written.is_ok());
}
