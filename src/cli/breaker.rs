//! `trunkline breaker`: whether a running gateway holds calls to a service back, doing so by hand, and letting them go.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::Output;
use super::remote::{self, Gateway, Remote};
use super::{Common, Ended};

/// What to do with an integration's circuits.
#[derive(Debug, Subcommand)]
pub enum Breaker {
    /// Show which places are left alone because they failed, and which pauses the service asked for
    Show(Named),
    /// Hold all its calls back until `close`, or the gateway's next start
    Open(Named),
    /// Let its calls go again, whatever held them
    Close(Named),
}

/// One integration of a running gateway.
#[derive(Debug, Args)]
pub struct Named {
    /// The integration
    integration: String,
    #[command(flatten)]
    gateway: Gateway,
}

/// Runs the command.
pub fn run(common: &Common, command: &Breaker, output: &mut Output) -> anyhow::Result<Ended> {
    let (named, action) = match command {
        Breaker::Show(named) => (named, None),
        Breaker::Open(named) => (named, Some("open")),
        Breaker::Close(named) => (named, Some("close")),
    };
    let remote = Remote::find(common, &named.gateway)?;
    let path = format!("/api/integrations/{}/breaker", named.integration);
    let answer = match action {
        None => remote::block_on(remote.get(&path))??,
        Some(action) => remote::block_on(remote.post(&format!("{path}/{action}")))??,
    };
    if !answer.status.is_success() {
        output.note(answer.refusal());
        return Ok(Ended::No);
    }
    let shown = answer.json()?;
    if output.json {
        output.value(&shown)?;
        return Ok(Ended::Done);
    }
    let held = shown.get("held").and_then(Value::as_bool).unwrap_or_default();
    output.line(if held { "all calls are held back by hand" } else { "nothing is held back by hand" })?;
    for circuit in shown.get("circuits").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| circuit.get(name).and_then(Value::as_str).unwrap_or_default();
        let (state, place, group) = (text("state"), text("place"), text("group"));
        let gap = if group.is_empty() { "" } else { "  " };
        output.line(format!("{state:<10}{place}{gap}{group}"))?;
    }
    for pause in shown.get("pauses").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| pause.get(name).and_then(Value::as_str);
        let seconds = pause.get("seconds").and_then(Value::as_u64).unwrap_or_default();
        let (of, limit) = (text("connection").unwrap_or("all connections"), text("limit").unwrap_or_default());
        let gap = if limit.is_empty() { "" } else { "  " };
        output.line(format!("{:<10}{of}{gap}{limit}  for {seconds} s", "paused"))?;
    }
    Ok(Ended::Done)
}
