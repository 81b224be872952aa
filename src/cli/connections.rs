//! `trunkline connections`: which accounts a running gateway has, how they fare, and what to do with them.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::Output;
use super::remote::{self, Answer, Gateway, Remote};
use super::{Common, Ended};

/// What to do with connections.
#[derive(Debug, Subcommand)]
pub enum Connections {
    /// List connections and how they fare; never their credentials
    List(Gateway),
    /// Show one connection, with when its tokens end
    Show(Named),
    /// Refuse its calls until it is resumed
    Pause(Named),
    /// Let it be used again
    Resume(Named),
    /// Renew its default token now
    Refresh(Named),
    /// Make its integration's test request
    Test(Named),
}

/// One connection of a running gateway.
#[derive(Debug, Args)]
pub struct Named {
    /// INTEGRATION/NAME, or an id as `connections list` shows it
    #[arg(value_name = "CONNECTION")]
    connection: String,
    #[command(flatten)]
    gateway: Gateway,
}

const LIST: &str = "/api/integrations/connections";

/// Runs the command.
pub fn run(common: &Common, command: &Connections, output: &mut Output) -> anyhow::Result<Ended> {
    match command {
        Connections::List(gateway) => list(&Remote::find(common, gateway)?, output),
        Connections::Show(named) => one(common, named, None, output),
        Connections::Pause(named) => one(common, named, Some("pause"), output),
        Connections::Resume(named) => one(common, named, Some("resume"), output),
        Connections::Refresh(named) => one(common, named, Some("refresh"), output),
        Connections::Test(named) => one(common, named, Some("test"), output),
    }
}

fn list(remote: &Remote, output: &mut Output) -> anyhow::Result<Ended> {
    let Some(list) = answered(&remote::block_on(remote.get(LIST))??, output)? else { return Ok(Ended::No) };
    if output.json {
        output.value(&list)?;
        return Ok(Ended::Done);
    }
    let columns = ["integration", "name", "origin", "status", "last_success", "id"];
    let row = |row: &Value| columns.map(|name| text(row, name)).to_vec();
    let rows: Vec<_> = list.as_array().into_iter().flatten().map(row).collect();
    output.table(&["INTEGRATION", "CONNECTION", "ORIGIN", "STATUS", "LAST SUCCESS", "ID"], &rows)?;
    Ok(Ended::Done)
}

/// Shows a connection, after something was done to it where `action` says what.
fn one(common: &Common, named: &Named, action: Option<&str>, output: &mut Output) -> anyhow::Result<Ended> {
    let remote = Remote::find(common, &named.gateway)?;
    let Some(list) = answered(&remote::block_on(remote.get(LIST))??, output)? else { return Ok(Ended::No) };
    let meant = |row: &&Value| {
        text(row, "id") == named.connection
            || named.connection == format!("{}/{}", text(row, "integration"), text(row, "name"))
    };
    let Some(found) = list.as_array().into_iter().flatten().find(meant) else {
        output.note(format!("there is no connection `{}`: see `trunkline connections list`", named.connection));
        return Ok(Ended::No);
    };
    let path = format!("{LIST}/{}", text(found, "id"));
    if let Some(action) = action {
        let answer = remote::block_on(remote.post(&format!("{path}/{action}")))??;
        if answered(&answer, output)?.is_none() {
            return Ok(Ended::No);
        }
    }
    let Some(shown) = answered(&remote::block_on(remote.get(&path))??, output)? else { return Ok(Ended::No) };
    if output.json {
        output.value(&shown)?;
        return Ok(Ended::Done);
    }
    for name in ["integration", "name", "id", "origin", "status", "since", "last_success", "last_refresh", "next_try"] {
        if !text(&shown, name).is_empty() {
            output.line(format!("{:<14}{}", name.replace('_', " "), text(&shown, name)))?;
        }
    }
    for (name, token) in shown.get("tokens").and_then(Value::as_object).into_iter().flatten() {
        let end = text(token, "expires_at");
        output.line(format!(
            "{:<14}{name}, ends {}",
            "token",
            if end.is_empty() { "nobody knows when" } else { &end }
        ))?;
    }
    if let Some(error) = shown.get("last_error").filter(|error| error.is_object()) {
        output.line(format!("{:<14}{}: {}", "last error", text(error, "at"), text(error, "what")))?;
        output.line(format!("{:<14}{}", "what to do", text(error, "step")))?;
    }
    Ok(Ended::Done)
}

/// What was answered; `None` after a refusal, which is told.
fn answered(answer: &Answer, output: &mut Output) -> anyhow::Result<Option<Value>> {
    if answer.status.is_success() {
        return answer.json().map(Some);
    }
    output.note(answer.refusal());
    Ok(None)
}

fn text(row: &Value, name: &str) -> String {
    row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
