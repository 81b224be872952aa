//! `trunkline registrations`: applications that a running gateway registered at services by itself.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::Output;
use super::remote::{self, Answer, Gateway, Remote};
use super::{Common, Ended};

/// What to do with registrations.
#[derive(Debug, Subcommand)]
pub enum Registrations {
    /// List them; never their secrets
    List(Gateway),
    /// Register the application of an integration now, unless it is registered
    Make(Named),
    /// Forget it, and have the service forget it where it offers that: it registers anew when the next account
    /// is connected, and accounts that were connected with it have to be connected again
    Forget(Forget),
}

/// One integration of a running gateway.
#[derive(Debug, Args)]
pub struct Named {
    /// The integration
    integration: String,
    #[command(flatten)]
    gateway: Gateway,
}

/// What is forgotten.
#[derive(Debug, Args)]
pub struct Forget {
    #[command(flatten)]
    named: Named,
    /// Forget it here although the service could not be asked
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(common: &Common, command: &Registrations, output: &mut Output) -> anyhow::Result<Ended> {
    match command {
        Registrations::List(gateway) => {
            let answer = remote::block_on(Remote::find(common, gateway)?.get("/api/registrations"))??;
            list(&answer, output)
        }
        Registrations::Make(named) => {
            let answer = remote::block_on(Remote::find(common, &named.gateway)?.post(&path(named)))??;
            list(&answer, output)
        }
        Registrations::Forget(forget) => self::forget(common, forget, output),
    }
}

fn path(named: &Named) -> String {
    format!("/api/integrations/{}/registration", named.integration)
}

fn list(answer: &Answer, output: &mut Output) -> anyhow::Result<Ended> {
    let Some(list) = answered(answer, output)? else { return Ok(Ended::No) };
    let columns = ["integration", "state", "client_id", "at", "secret_expires_at", "endpoint"];
    let row = |row: &Value| columns.map(|name| text(row, name)).to_vec();
    let rows: Vec<_> = list.as_array().into_iter().flatten().map(row).collect();
    if !output.json {
        output.table(&["INTEGRATION", "STATE", "CLIENT", "SINCE", "SECRET ENDS", "REGISTERED AT"], &rows)?;
    }
    Ok(Ended::Done)
}

fn forget(common: &Common, forget: &Forget, output: &mut Output) -> anyhow::Result<Ended> {
    let remote = Remote::find(common, &forget.named.gateway)?;
    let path = format!("{}{}", path(&forget.named), if forget.force { "?force=true" } else { "" });
    let answer = remote::block_on(remote.send(http::Request::delete(path), bytes::Bytes::new()))??;
    let Some(forgotten) = answered(&answer, output)? else { return Ok(Ended::No) };
    if output.json {
        return Ok(Ended::Done);
    }
    for one in forgotten.as_array().into_iter().flatten() {
        let client = text(one, "client_id");
        let service = match text(one, "service").as_str() {
            "deleted" => "the service has forgotten it as well",
            "refused" => "the service keeps it",
            "not_reached" => "the service could not be asked, and may keep it",
            _ => "the service does not offer to forget it",
        };
        output.line(format!(
            "forgotten: {}; {service}",
            if client.is_empty() { "a call without an end" } else { &client }
        ))?;
    }
    Ok(Ended::Done)
}

/// What was answered, printed where JSON is wanted; `None` after a refusal, which is told.
fn answered(answer: &Answer, output: &mut Output) -> anyhow::Result<Option<Value>> {
    if !answer.status.is_success() {
        output.note(answer.refusal());
        return Ok(None);
    }
    let value = answer.json()?;
    if output.json {
        output.value(&value)?;
    }
    Ok(Some(value))
}

fn text(row: &Value, name: &str) -> String {
    row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
