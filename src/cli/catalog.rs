//! `trunkline catalog`: the definitions that come with the program.

use clap::Subcommand;
use serde_json::{Value, json};

use super::Ended;
use super::output::Output;
use crate::definition::catalogue;

/// What to do with the catalogue.
#[derive(Debug, Subcommand)]
pub enum Catalog {
    /// List the entries; `trunkline show ID` shows one, `trunkline new ID` begins a definition from it
    List,
}

/// Runs the command.
pub fn run(_command: &Catalog, output: &mut Output) -> anyhow::Result<Ended> {
    let entries = catalogue::ids().filter_map(|id| Some((id, &catalogue::entry(id)?.document.value)));
    let rows: Vec<_> = entries.map(|(id, value)| (id, text(value, "title"), kinds(value))).collect();
    if output.json {
        let list: Vec<_> =
            rows.iter().map(|(id, title, auth)| json!({ "id": id, "title": title, "auth": auth })).collect();
        output.value(&list)?;
    } else {
        let rows: Vec<_> = rows.into_iter().map(|(id, title, auth)| vec![id.to_owned(), title, auth]).collect();
        output.table(&["ID", "TITLE", "AUTH"], &rows)?;
    }
    Ok(Ended::Done)
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn kinds(value: &Value) -> String {
    match value.get("auth") {
        Some(Value::Object(map)) => map.keys().cloned().collect::<Vec<_>>().join(", "),
        Some(Value::String(kind)) => kind.clone(),
        _ => "none".to_owned(),
    }
}
