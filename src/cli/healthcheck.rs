//! `trunkline healthcheck`: exit 0 when the gateway's admin door answers `/livez`. Made for containers
//! that have no other program to ask with.

use super::output::Output;
use super::remote::{self, Gateway, Remote};
use super::{Common, Ended};

/// Asks.
pub fn run(common: &Common, gateway: &Gateway, output: &mut Output) -> anyhow::Result<Ended> {
    let remote = Remote::find(common, gateway)?;
    let answer = remote::block_on(remote.get("/livez"))?;
    match answer {
        Ok(answer) if answer.status.is_success() => {
            output.line("ok")?;
            Ok(Ended::Done)
        }
        Ok(answer) => {
            output.note(format_args!("{} answered {}", remote, answer.status));
            Ok(Ended::No)
        }
        Err(error) => {
            output.note(error);
            Ok(Ended::No)
        }
    }
}
