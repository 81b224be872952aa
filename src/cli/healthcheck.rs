//! `trunkline healthcheck`: exit 0 when the gateway's admin door answers `/livez`. Made for containers
//! that have no other program to ask with.

use serde_json::json;

use super::output::Output;
use super::remote::{self, Gateway, Remote};
use super::{Common, Ended};

/// Asks.
pub fn run(common: &Common, gateway: &Gateway, output: &mut Output) -> anyhow::Result<Ended> {
    let remote = Remote::find(common, gateway)?;
    let answer = remote::block_on(remote.get("/livez"))?;
    let fault = match answer {
        Ok(answer) if answer.status.is_success() => None,
        Ok(answer) => Some(format!("{remote} answered {}", answer.status)),
        Err(error) => Some(format!("{error:#}")),
    };
    if output.json {
        let gateway = remote.to_string();
        output.value(&json!({ "gateway": gateway, "healthy": fault.is_none(), "fault": fault }))?;
    }
    let Some(fault) = fault else {
        if !output.json {
            output.line("ok")?;
        }
        return Ok(Ended::Done);
    };
    output.note(fault);
    Ok(Ended::No)
}
