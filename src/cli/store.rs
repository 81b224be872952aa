//! `trunkline store`, `trunkline backup`, `trunkline restore`: what an operator does with the state
//! directory. All but `backup` need it for themselves, and say who has it when they cannot get it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::deployment::Settings;
use super::output::Output;
use super::{Common, Ended};
use crate::base::clock::SystemClock;
use crate::store::StoreError;
use crate::store::embedded::Options;
use crate::store::embedded::maintenance::{self, BackupReport, LostRecords, Unfinished};

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read everything and tell what is wrong; changes nothing. The gateway must not be running
    Check(Place),
    /// Make the index anew from the journals; the gateway must not be running
    ///
    /// A journal's mark that is missing or damaged is written anew as well, from what the journal holds:
    /// nothing can tell then whether the journal once held more, and it ends with 3.
    Rebuild(Place),
}

/// Where the store is.
#[derive(Debug, Args)]
pub struct Place {
    /// The state directory, instead of the one that the gateway file names
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// What to back up.
#[derive(Debug, Args)]
pub struct Backup {
    /// Where to write it: a directory that is empty or not there
    directory: PathBuf,
    /// Check that the backup in the directory is whole, instead of making one
    #[arg(long, conflicts_with = "state")]
    verify: bool,
    #[command(flatten)]
    place: Place,
}

/// What to restore.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup's directory
    directory: PathBuf,
    /// Go on with deliveries that were unfinished in the backup, and send again what was delivered after it;
    /// without this they wait in the dead-letter list until they are replayed
    #[arg(long)]
    resend: bool,
    #[command(flatten)]
    place: Place,
}

impl Place {
    fn options(&self, common: &Common) -> anyhow::Result<Options> {
        let directory = match &self.state {
            Some(directory) => directory.clone(),
            None => Settings::read(common)?
                .with_context(|| {
                    format!(
                        "{} does not exist: name your gateway file with --config, or the state with --state",
                        common.config.display()
                    )
                })?
                .state(common)?,
        };
        Ok(Options::new(directory, Arc::new(SystemClock::new())))
    }
}

/// Checks or rebuilds.
pub fn run(common: &Common, command: &Store, output: &mut Output) -> anyhow::Result<Ended> {
    match command {
        Store::Check(place) => check(&place.options(common)?, output),
        Store::Rebuild(place) => rebuild(&place.options(common)?, output),
    }
}

fn check(options: &Options, output: &mut Output) -> anyhow::Result<Ended> {
    let report = maintenance::check(options)?;
    if output.json {
        output.value(&report)?;
    } else {
        output.line(format_args!(
            "{}: {} events, {} records, {} audit entries; {} frames of {} bytes, {} index entries",
            options.directory.display(),
            report.events,
            report.records,
            report.audit_entries,
            report.frames,
            report.bytes,
            report.index_entries
        ))?;
        if report.index_lag > 0 {
            output.line(format_args!(
                "the index is {} operations behind the journal; the next start brings it up to date",
                report.index_lag
            ))?;
        }
        for note in &report.notes {
            output.line(format_args!("note: {note}"))?;
        }
        for problem in &report.problems {
            output.line(format_args!("problem: {problem}"))?;
        }
        let told = report.problems.len();
        if report.problem_count > told {
            output.line(format_args!("{} more problems are not listed", report.problem_count - told))?;
        }
    }
    if report.is_sound() {
        return Ok(Ended::Done);
    }
    output.note(
        "`trunkline store rebuild` makes the index and the marks anew; damage in a journal needs a backup: \
         `trunkline restore`.",
    );
    Ok(Ended::No)
}

fn rebuild(options: &Options, output: &mut Output) -> anyhow::Result<Ended> {
    let rebuilt = match maintenance::rebuild(options) {
        Ok(rebuilt) => rebuilt,
        Err(error @ StoreError::Damaged { .. }) => return Ok(no(&error, output)),
        Err(error) => return Err(error.into()),
    };
    let ended = if rebuilt.marks.is_empty() { Ended::Done } else { Ended::Partly };
    if output.json {
        output.value(&rebuilt)?;
        return Ok(ended);
    }
    output.line(format_args!(
        "the index was made anew: {} entries, up to operation {}",
        rebuilt.entries, rebuilt.sequence
    ))?;
    for journal in &rebuilt.marks {
        output.line(format_args!("the mark of journal `{journal}` was written anew from what the journal holds"))?;
        output.note(format_args!(
            "entries may be missing at the end of journal `{journal}`, also acknowledged ones: its mark was all that could tell"
        ));
    }
    for place in &rebuilt.left_out {
        output.note(format_args!("left out: {place}"));
    }
    Ok(ended)
}

/// Makes or verifies a backup.
pub fn backup(common: &Common, backup: &Backup, output: &mut Output) -> anyhow::Result<Ended> {
    if backup.verify {
        if !backup.directory.is_dir() {
            bail!("{} is not a directory: there is no backup to verify", backup.directory.display());
        }
        return match maintenance::verify(&backup.directory) {
            Ok(report) => tell(&report, output, format_args!("{} is whole", backup.directory.display())),
            Err(error @ StoreError::Damaged { .. }) => Ok(no(&error, output)),
            Err(error) => Err(error.into()),
        };
    }
    let options = backup.place.options(common)?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if absolute(&backup.directory).starts_with(absolute(&options.directory)) {
        bail!("{} is within the state that is backed up: write to another directory", backup.directory.display());
    }
    let report = match maintenance::backup(&options, &backup.directory) {
        Ok(report) => report,
        Err(error @ StoreError::Damaged { .. }) => return Ok(no(&error, output)),
        Err(error) => return Err(error.into()),
    };
    output.note(
        "The master key is not in it, and without that key its credentials cannot be opened. Events are in it as they \
         came: keep it as you keep the state.",
    );
    tell(&report, output, format_args!("wrote {}", backup.directory.display()))
}

/// Makes a store from a backup.
pub fn restore(common: &Common, restore: &Restore, output: &mut Output) -> anyhow::Result<Ended> {
    let options = restore.place.options(common)?;
    refuse_within(&restore.directory, &options.directory)?;
    let unfinished = if restore.resend { Unfinished::Resumed } else { Unfinished::Held };
    let report = match maintenance::restore(&restore.directory, &options, unfinished) {
        Ok(report) => report,
        Err(error @ StoreError::Damaged { .. }) => return Ok(no(&error, output)),
        Err(error) => return Err(error.into()),
    };
    output.note(match unfinished {
        Unfinished::Held => {
            "What was unfinished in the backup will wait in the dead-letter list, because it may have been delivered \
             since: `trunkline events list --dead`, `trunkline events replay --dead`."
        }
        Unfinished::Resumed => "What was unfinished in the backup goes on at the next start.",
    });
    tell(&report, output, format_args!("restored {}", options.directory.display()))
}

/// A restore into the backup's own directory would make the backup unusable.
fn refuse_within(backup: &Path, state: &Path) -> anyhow::Result<()> {
    if !backup.is_dir() {
        bail!("{} is not a directory: there is no backup to restore", backup.display());
    }
    if state.starts_with(backup) {
        bail!("{} is within the backup: restore to another directory", state.display());
    }
    Ok(())
}

fn no(error: &StoreError, output: &mut Output) -> Ended {
    output.note(error);
    Ended::No
}

fn tell(report: &BackupReport, output: &mut Output, what: std::fmt::Arguments<'_>) -> anyhow::Result<Ended> {
    let lost: Vec<_> = report.journals.iter().flat_map(|journal| &journal.lost).collect();
    let ended = if lost.is_empty() { Ended::Done } else { Ended::Partly };
    if output.json {
        output.value(report)?;
        return Ok(ended);
    }
    for LostRecords { file, offset, records } in lost {
        match records {
            0 => output.note(format_args!(
                "{file} is not whole, or not what belongs there: nothing tells how many entries are missing with it, if any are"
            )),
            1 => output.note(format_args!("not in it, because it cannot be read: 1 entry of {file} at byte {offset}")),
            _ => output.note(format_args!(
                "not in it, because they cannot be read: {records} entries of {file} at byte {offset}"
            )),
        }
    }
    output.line(format_args!("{what}, as of {}", report.created_at))?;
    let rows: Vec<_> = report
        .journals
        .iter()
        .map(|journal| {
            let bytes: u64 = journal.segments.iter().map(|segment| segment.bytes).sum();
            vec![journal.name.clone(), journal.first.to_string(), journal.last.to_string(), bytes.to_string()]
        })
        .collect();
    output.table(&["JOURNAL", "FIRST", "LAST", "BYTES"], &rows)?;
    Ok(ended)
}
