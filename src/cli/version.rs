//! `trunkline version`.

use serde_json::json;

use super::Ended;
use super::output::Output;

/// Prints the version.
pub fn run(output: &mut Output) -> anyhow::Result<Ended> {
    let version = env!("CARGO_PKG_VERSION");
    if output.json {
        output.value(&json!({ "name": "trunkline", "version": version }))?;
    } else {
        output.line(format_args!("trunkline {version}"))?;
    }
    Ok(Ended::Done)
}
