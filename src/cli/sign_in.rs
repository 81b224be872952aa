//! `trunkline sign-in`: a link to the page of a running gateway that signs whoever opens it in, once.

use serde_json::Value;

use super::output::Output;
use super::remote::{self, Gateway, Remote};
use super::{Common, Ended};

/// Runs the command.
pub fn run(common: &Common, gateway: &Gateway, output: &mut Output) -> anyhow::Result<Ended> {
    let answer = remote::block_on(Remote::find(common, gateway)?.post("/api/sign-in-links"))??;
    if !answer.status.is_success() {
        output.note(answer.refusal());
        return Ok(Ended::No);
    }
    let made = answer.json()?;
    if output.json {
        output.value(&made)?;
    } else {
        output.line(made.get("url").and_then(Value::as_str).unwrap_or_default())?;
        output.note("It signs in whoever opens it first, within 15 minutes.");
    }
    Ok(Ended::Done)
}
