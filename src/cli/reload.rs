//! `trunkline reload`: makes a running gateway read its files now.

use serde_json::Value;

use super::output::Output;
use super::remote::{self, Gateway, Remote};
use super::{Common, Ended};

/// Runs the command.
pub fn run(common: &Common, gateway: &Gateway, output: &mut Output) -> anyhow::Result<Ended> {
    let answer = remote::block_on(Remote::find(common, gateway)?.post("/api/reload"))??;
    if !answer.status.is_success() {
        output.note(answer.refusal());
        return Ok(Ended::No);
    }
    let body = answer.json()?;
    let in_force = !matches!(body.get("result").and_then(Value::as_str), Some("rejected" | "stalled"));
    if output.json {
        output.value(&body)?;
    } else {
        let reports = body.get("files").and_then(Value::as_array).into_iter().flatten();
        let faulty = reports.filter(|file| file.get("state").and_then(Value::as_str) != Some("loaded"));
        for report in faulty.filter_map(|file| file.get("report")?.as_str()) {
            output.line(report)?;
        }
        let text = |name: &str| body.get(name).map(|value| value.to_string().replace('"', "")).unwrap_or_default();
        output.line(format_args!("{}: generation {} is in force", text("result"), text("generation")))?;
    }
    Ok(if in_force { Ended::Done } else { Ended::No })
}
