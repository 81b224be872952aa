//! `trunkline connections`: which accounts a running gateway has.

use clap::Subcommand;
use serde_json::Value;

use super::output::Output;
use super::remote::{self, Gateway, Remote};
use super::{Common, Ended};

/// What to do with connections.
#[derive(Debug, Subcommand)]
pub enum Connections {
    /// List connections; never their credentials
    List(Gateway),
}

/// Runs the command.
pub fn run(common: &Common, command: &Connections, output: &mut Output) -> anyhow::Result<Ended> {
    let Connections::List(gateway) = command;
    let answer = remote::block_on(Remote::find(common, gateway)?.get("/api/connections"))??;
    if !answer.status.is_success() {
        output.note(answer.refusal());
        return Ok(Ended::No);
    }
    let list = answer.json()?;
    if output.json {
        output.value(&list)?;
        return Ok(Ended::Done);
    }
    let cell = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let row = |row: &Value| ["integration", "name", "origin", "id"].map(|name| cell(row, name)).to_vec();
    let rows: Vec<_> = list.as_array().into_iter().flatten().map(row).collect();
    output.table(&["INTEGRATION", "CONNECTION", "ORIGIN", "ID"], &rows)?;
    Ok(Ended::Done)
}
