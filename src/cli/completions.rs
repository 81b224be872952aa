//! `trunkline completions SHELL`.

use clap::Args;
use clap_complete::Shell;

use super::Ended;
use super::output::Output;

/// Which shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell to complete for; for bash: `source <(trunkline completions bash)`
    shell: Shell,
}

/// Prints the script.
pub fn run(arguments: &Completions, output: &mut Output) -> anyhow::Result<Ended> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::command(), "trunkline", &mut script);
    output.raw(&script)?;
    Ok(Ended::Done)
}
