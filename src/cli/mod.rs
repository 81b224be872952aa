//! The command line: one command a file, from arguments to exit code.
//!
//! Results go to standard output and nothing else does; logs, progress and errors go to standard error.
//! Exit codes: 0 done; 1 the answer is no (faulty files, a damaged store, an unhealthy gateway, a refused
//! request); 2 it could not be done (wrong usage, an unreadable file, an unreachable gateway); 3 it is done but for a part (a
//! backup of a damaged store).
//! Called by `main`.

mod audit;
mod breaker;
mod call;
mod catalog;
mod check;
mod completions;
mod connections;
mod deployment;
mod events;
mod healthcheck;
mod keys;
pub mod mock;
mod mock_state;
mod new;
pub mod output;
mod password;
mod registrations;
mod reload;
pub mod remote;
mod schema;
mod serve;
mod show;
mod sign_in;
mod simulate;
mod store;
mod transfer;
pub mod trigger;
mod version;
mod webhooks;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::definition::load::environment::{Environment, ProcessEnvironment};
use output::Output;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no: faulty files, a damaged store, an unhealthy gateway, a refused request
  2  it could not be done: wrong usage, an unreadable file, an unreachable gateway
  3  it is done, but for a part that could not be: a backup of a damaged store";

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
    /// Run the gateway
    Serve(serve::Serve),
    /// Simulate this deployment's services on loopback, and the application it delivers to
    Mock(mock::MockArgs),
    /// Check files without running anything: every fault of every file at once
    Check(check::CheckArgs),
    /// Show a definition as it counts, and where each value was written
    Show(show::ShowArgs),
    /// Print the grammar as JSON Schema, or write it into a directory
    Schema(schema::SchemaArgs),
    /// Begin a definition from a catalogue entry
    New(new::New),
    /// The definitions that come with the program
    #[command(subcommand)]
    Catalog(catalog::Catalog),
    /// Events of a running gateway: what came in, and what became of it
    #[command(subcommand)]
    Events(events::Events),
    /// The audit log of a running gateway: who did what, and whether the record of it is whole
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Connections of a running gateway
    #[command(subcommand)]
    Connections(connections::Connections),
    /// Applications that a running gateway registered at services by itself
    #[command(subcommand)]
    Registrations(registrations::Registrations),
    /// Webhook endpoints of a running gateway's connections
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// Whether a running gateway holds calls to a service back, and doing so by hand
    #[command(subcommand)]
    Breaker(breaker::Breaker),
    /// Make a call through a running gateway, as the application would
    Call(call::Call),
    /// Send a signed sample event to a running gateway
    Trigger(trigger::TriggerArgs),
    /// Print a link that signs you in on the page of a running gateway, once
    SignIn(remote::Gateway),
    /// Make the hash of a password, for `admin.people` in the settings: reads a line, prints its argon2id hash
    Password(password::Password),
    /// Make a running gateway read its files now
    Reload(remote::Gateway),
    /// The master keys that stored credentials are sealed by: make, list, rotate, check
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Check the store, or make its index anew
    #[command(subcommand)]
    Store(store::Store),
    /// Write a backup of the store, also while the gateway runs on it
    Backup(store::Backup),
    /// Make a store from a backup, in a state directory that is empty or not there
    Restore(store::Restore),
    /// Export a running gateway's connections: without secrets, or with them encrypted
    Export(transfer::Export),
    /// Import connections into a running gateway: tells what would be done, and does it with --apply
    Import(transfer::Import),
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
    /// Done, but for a part that could not be.
    Partly,
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
        Ok(Ended::Partly) => ExitCode::from(3),
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
        Command::Serve(arguments) => serve::run(&common, &arguments, output),
        Command::Mock(arguments) => simulate::mock(&common, &arguments),
        Command::Check(arguments) => check::run(&common, &arguments, &environment(), output),
        Command::Show(arguments) => show::run(&common, &arguments, &environment(), output),
        Command::Schema(arguments) => schema::run(&arguments, output),
        Command::New(arguments) => new::run(&common, &arguments, output),
        Command::Catalog(command) => catalog::run(&command, output),
        Command::Events(command) => events::run(&common, &command, output),
        Command::Audit(command) => audit::run(&common, &command, output),
        Command::Connections(command) => connections::run(&common, &command, output),
        Command::Registrations(command) => registrations::run(&common, &command, output),
        Command::Webhooks(command) => webhooks::run(&common, &command, output),
        Command::Breaker(command) => breaker::run(&common, &command, output),
        Command::Call(call) => call::run(&common, &call, output),
        Command::Trigger(arguments) => simulate::trigger(&common, &arguments, output),
        Command::SignIn(gateway) => sign_in::run(&common, &gateway, output),
        Command::Password(arguments) => password::run(&arguments, output),
        Command::Reload(gateway) => reload::run(&common, &gateway, output),
        Command::Keys(command) => keys::run(&common, &command, output),
        Command::Store(command) => store::run(&common, &command, output),
        Command::Backup(arguments) => store::backup(&common, &arguments, output),
        Command::Restore(arguments) => store::restore(&common, &arguments, output),
        Command::Export(arguments) => transfer::export(&common, &arguments, output),
        Command::Import(arguments) => transfer::import(&common, &arguments, output),
        Command::Healthcheck(gateway) => healthcheck::run(&common, &gateway, output),
        Command::Completions(command) => completions::run(&command, output),
        Command::Version => version::run(output),
    }
}

fn environment() -> Arc<dyn Environment> {
    Arc::new(ProcessEnvironment)
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
