//! The command line: one command a file, from arguments to exit code.
//!
//! Results go to standard output and nothing else does; logs, progress and errors go to standard error.
//! Exit codes: 0 done; 1 the answer is no (faulty files, a damaged store, an unhealthy gateway, a refused
//! request); 2 it could not be done (wrong usage, an unreadable file, an unreachable gateway).
//! Called by `main`.

pub mod check;
mod completions;
mod healthcheck;
mod keys;
pub mod mock;
pub mod output;
pub mod remote;
pub mod schema;
pub mod show;
pub mod trigger;
mod version;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use output::Output;

use crate::definition::load::environment::ProcessEnvironment;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: faulty files, a damaged store, an unhealthy gateway, a refused request
  2  it could not be done: wrong usage, an unreadable file, an unreachable gateway";

/// A declarative integration gateway: connects accounts, takes webhooks in, carries calls out.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The gateway's settings
    #[arg(short, long, global = true, env = "TRUNKLINE_CONFIG", default_value = "trunkline.yaml", value_name = "FILE")]
    pub config: PathBuf,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours: on a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_enum, default_value_t = Colours::Auto, value_name = "WHEN")]
    pub color: Colours,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Colours {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::CheckArgs),
    Show(show::ShowArgs),
    Schema(schema::SchemaArgs),
    /// Make a master key
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Ask a running gateway whether it lives, for container health checks
    Healthcheck(remote::Gateway),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the version
    Version,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Done.
    Done,
    /// The answer is no.
    No,
}

/// Runs the program with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed standard output is no fault of ours, and there is nowhere to say so.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut output = Output::of_process(&cli.common);
    match dispatch(cli, &mut output) {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::No) => ExitCode::FAILURE,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(2)
        }
    }
}

fn dispatch(cli: Cli, output: &mut Output) -> anyhow::Result<Ended> {
    let Cli { common, command } = cli;
    match command {
        Command::Check(args) => check::run(&common, &args, &ProcessEnvironment, output),
        Command::Show(args) => show::run(&common, &args, &ProcessEnvironment, output),
        Command::Schema(args) => schema::run(&args, output),
        Command::Keys(command) => keys::run(&command, output),
        Command::Healthcheck(gateway) => healthcheck::run(&common, &gateway, output),
        Command::Completions(command) => completions::run(&command, output),
        Command::Version => version::run(output),
    }
}

/// The command line as clap sees it.
pub(crate) fn command() -> clap::Command {
    use clap::CommandFactory as _;
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
