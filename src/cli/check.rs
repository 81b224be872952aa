//! `trunkline check`: every fault of every file at once.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::deployment::with_secrets;
use super::output::Output;
use super::{Common, Ended};
use crate::definition::load::environment::Environment;
use crate::definition::problem::{Code, Severity};
use crate::definition::render::Report;
use crate::definition::workspace::{Reading, select};

/// Check files without running anything
///
/// Tells every fault of every file with its place, what was expected and the nearest valid name. Exits
/// with 0 when the files would be taken (warnings and notices allowed), with 1 when not, with 2 when one
/// of the arguments cannot be read.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Deployments, directories of definitions, or files. Default: the deployment of `--config`
    #[arg(value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// How the result is written
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
}

/// How the result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, with excerpts.
    Text,
    /// For programs.
    Json,
    /// SARIF 2.1.0, for code hosts.
    Sarif,
}

/// Runs the command.
pub fn run(
    common: &Common,
    args: &CheckArgs,
    environment: &Arc<dyn Environment>,
    output: &mut Output,
) -> anyhow::Result<Ended> {
    let paths = if args.paths.is_empty() { std::slice::from_ref(&common.config) } else { args.paths.as_slice() };
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        bail!("`{}` does not exist", missing.display());
    }
    let mut report = Report::default();
    for selection in select(paths) {
        let gateway = selection.gateway.as_deref().map(PathBuf::as_path);
        let environment = &*with_secrets(gateway, environment)?;
        let reading = Reading { environment, previous: None, keep_documents: false };
        report.extend(reading.read(&selection).report());
    }
    write(&report, args.format, output)?;
    let unreadable = |path: &PathBuf| {
        report.problems.iter().any(|problem| problem.code == Code::Unreadable && *problem.place.file == *path)
    };
    if let Some(path) = paths.iter().find(|path| unreadable(path)) {
        bail!("`{}` cannot be read", path.display());
    }
    Ok(if report.count(Severity::Error) == 0 { Ended::Done } else { Ended::No })
}

fn write(report: &Report, format: Option<Format>, output: &mut Output) -> anyhow::Result<()> {
    match format.unwrap_or(if output.json { Format::Json } else { Format::Text }) {
        Format::Text => output.raw(report.text(output.colour).as_bytes())?,
        Format::Json => output.value(&report.json())?,
        Format::Sarif => output.value(&report.sarif())?,
    }
    Ok(())
}
