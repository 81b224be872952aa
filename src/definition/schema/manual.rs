//! The grammar as a page of the manual, made from the schema so that it cannot lag behind.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::publish::published;
use crate::definition::not_yet::{self, Part, When};
use crate::definition::raw::variables::PLACES;

/// The page.
pub fn page() -> String {
    let mut out = String::from(
        "# Grammar\n\n\
         This page is generated from the schemas in `schemas/` by `trunkline schema`.\n\n\
         A definition is one YAML file under a directory of `integrations`; the gateway's own settings are in\n\
         `trunkline.yaml`. Unknown fields and duplicate keys are errors. A choice is a map with exactly one key.\n",
    );
    let (definitions, gateway) = (published(super::integration()), published(super::gateway()));
    let first = Chapter { schema: &definitions, earlier: None, not_run: marks(&definitions, not_yet::INTEGRATION) };
    first.write(&mut out, "Definition files");
    let second = Chapter { schema: &gateway, earlier: Some(&definitions), not_run: marks(&gateway, not_yet::GATEWAY) };
    second.write(&mut out, "The gateway file");
    out.push_str("\n## Variables\n\nWhat templates see, by place.\n");
    for seen in PLACES {
        line(&mut out, format_args!("\n### Place: {}\n", seen.place));
        for (name, meaning) in seen.variables {
            line(&mut out, format_args!("- `{name}`: {meaning}"));
        }
    }
    out
}

/// One schema's part of the page.
struct Chapter<'a> {
    schema: &'a Value,
    /// The schema of the part before: a block that is the same there is written there only.
    earlier: Option<&'a Value>,
    /// What of a field is not yet run, by the block's name (none for the file itself) and the field's.
    not_run: HashMap<(String, String), String>,
}

impl Chapter<'_> {
    fn write(&self, out: &mut String, title: &str) {
        line(out, format_args!("\n## {title}\n"));
        self.fields(out, "", self.schema);
        let Some(Value::Object(definitions)) = self.schema.get("$defs") else { return };
        for (name, definition) in definitions {
            if self.of_earlier(name) == Some(definition) {
                continue;
            }
            line(out, format_args!("\n### {}\n", self.heading(name)));
            if let Some(text) = definition.get("description").and_then(Value::as_str) {
                line(out, format_args!("{text}\n"));
            }
            self.fields(out, name, definition);
            words(out, definition);
        }
    }

    fn of_earlier(&self, name: &str) -> Option<&Value> {
        self.earlier?.get("$defs")?.get(name)
    }

    /// What a block is called on the page: a second one of a name says where it belongs.
    fn heading(&self, name: &str) -> String {
        let own = self.schema.get("$defs").and_then(|all| all.get(name));
        match self.of_earlier(name) {
            Some(earlier) if Some(earlier) != own => format!("{name} of the gateway file"),
            _ => name.to_owned(),
        }
    }

    fn fields(&self, out: &mut String, block: &str, schema: &Value) {
        let Some(Value::Object(properties)) = schema.get("properties") else { return };
        let required: Vec<_> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, field) in properties {
            let must = if required.contains(&name.as_str()) { ", required" } else { "" };
            let text = field.get("description").and_then(Value::as_str).unwrap_or_default();
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let mark = self.not_run.get(&(block.to_owned(), name.clone()));
            let mark = mark.map(|what| format!(" *Not yet run{what}.*")).unwrap_or_default();
            line(out, format_args!("- `{name}` ({}{must}): {text}{mark}", self.kind(field)));
        }
    }

    /// What a field holds, in a few words.
    fn kind(&self, field: &Value) -> String {
        let Value::Object(map) = field else { return "any value".to_owned() };
        if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
            return format!("[{name}](#{})", self.heading(name).to_lowercase().replace(' ', "-"));
        }
        match map.get("x-template").and_then(Value::as_str) {
            Some("expression") => return "expression".to_owned(),
            Some("tree") => return "JSON with templates".to_owned(),
            Some(_) => return "template".to_owned(),
            None => {}
        }
        match map.get("type") {
            Some(Value::String(kind)) => self.plain_kind(kind, map),
            Some(Value::Array(kinds)) => {
                let kinds = kinds.iter().filter_map(Value::as_str).map(|kind| self.plain_kind(kind, map));
                kinds.collect::<Vec<_>>().join(" or ")
            }
            _ => map.get("const").map_or_else(|| "any value".to_owned(), Value::to_string),
        }
    }

    fn plain_kind(&self, kind: &str, map: &Map<String, Value>) -> String {
        match kind {
            "string" => match map.get("enum").and_then(Value::as_array) {
                Some(words) => listed(words),
                None => "text".to_owned(),
            },
            "array" => {
                format!("list of {}", map.get("items").map_or_else(|| "any value".to_owned(), |items| self.kind(items)))
            }
            "object" => match map.get("additionalProperties") {
                Some(values @ Value::Object(_)) => format!("map of {}", self.kind(values)),
                _ => "map".to_owned(),
            },
            "boolean" => "true or false".to_owned(),
            other => other.to_owned(),
        }
    }
}

/// Where the parts that are not run stand on the page.
fn marks(root: &Value, parts: &[Part]) -> HashMap<(String, String), String> {
    let mut marks = HashMap::new();
    for part in parts {
        let what = match part.when {
            When::Written => String::new(),
            When::Word(words) => format!(" as {}", quoted(words)),
            When::Ends(end) => format!(" where it ends with `{end}`"),
            When::Names(names) => format!(" with {}", quoted(names)),
        };
        if let Some(place) = place(root, part.pointer) {
            marks.entry(place).or_insert(what);
        }
    }
    marks
}

/// The block and the field that a pointer of the table leads to.
fn place(root: &Value, pointer: &str) -> Option<(String, String)> {
    let (mut schema, mut block, mut last) = (root, String::new(), None);
    for token in pointer.split('/').skip(1) {
        while let Some(path) = schema.get("$ref").and_then(Value::as_str) {
            path.rsplit('/').next()?.clone_into(&mut block);
            schema = root.pointer(path.trim_start_matches('#'))?;
        }
        if token == "*" {
            schema = schema.get("items")?;
        } else {
            schema = schema.get("properties")?.get(token)?;
            last = Some((block.clone(), token.to_owned()));
        }
    }
    last
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn listed(words: &[Value]) -> String {
    words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The words that a schema of fixed words knows, with what they mean where that is written.
fn words(out: &mut String, schema: &Value) {
    let list = |keyword: &str| schema.get(keyword).and_then(Value::as_array);
    let Some(words) = list("enum") else { return };
    match list("enumDescriptions") {
        Some(meanings) => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            for (word, meaning) in words.iter().zip(meanings) {
                line(out, format_args!("- `{}`: {}", text(word), text(meaning)));
            }
        }
        None => line(out, format_args!("One of {}.", listed(words))),
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let written = writeln!(out, "{text}");
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_leads_to_one_heading() {
        let page = page();
        let anchor = |heading: &str| heading.to_lowercase().replace(' ', "-").replace(':', "");
        let headings: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("### ")).map(anchor).collect();
        for target in page.split("](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            assert_eq!(headings.iter().filter(|heading| *heading == target).count(), 1, "#{target}");
        }
    }

    #[test]
    fn what_is_not_run_is_marked_and_words_are_listed() {
        let page = page();
        assert!(page.contains("One of `HS256`"), "words without a description of their own");
        for (root, parts) in
            [(super::super::integration(), not_yet::INTEGRATION), (super::super::gateway(), not_yet::GATEWAY)]
        {
            for part in parts {
                assert!(place(&published(root), part.pointer).is_some(), "{} has no place on the page", part.pointer);
            }
        }
        let marked = page.lines().find(|line| line.starts_with("- `syncs`")).unwrap_or_default();
        assert!(marked.ends_with("*Not yet run.*"), "{marked}");
    }
}
