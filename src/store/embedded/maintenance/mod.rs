//! What an operator does with a store: check it, make its index anew, back it up, restore it.
//!
//! Everything here blocks, for as long as the store is large; call it from a thread that may wait.
//! Called by the command line and the admin API.

mod backup;
mod check;
mod salvage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::lock::Lock;
use super::op;
use super::open::{JOURNALS, Options, caught_up, emptied, emptied_error, unavailable};
use super::records::Write;
use crate::store::StoreError;
use crate::store::journal::mark::{self, Bounds, Mark};
use crate::store::journal::segment::{self, End};
use crate::store::model::AuditRecord;

pub use backup::{BackupReport, JournalBackup, LostRecords, Unfinished, backup, restore, verify};
pub use check::{Report, check};

/// What tells whether a payload is an entry of the journal of this name.
fn reading(journal: &str) -> fn(&[u8]) -> bool {
    match journal {
        "events" => |payload| op::decode(payload).is_ok(),
        "records" => |payload| postcard::from_bytes::<Write>(payload).is_ok(),
        _ => |payload| serde_json::from_slice::<AuditRecord>(payload).is_ok(),
    }
}

/// What making the index anew came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// The last operation of the events journal, which the index has now.
    pub sequence: u64,
    /// Entries of the index.
    pub entries: u64,
    /// Journals whose mark was missing or damaged and was written anew, by name: nothing tells whether entries are missing
    /// at their ends.
    pub marks: Vec<String>,
    /// What stands at those ends and is no whole entry, by file and place.
    pub left_out: Vec<String>,
}

/// Makes the index anew from the journal: `trunkline store rebuild`. A mark that is missing or damaged
/// is written anew as well, from what the journal holds; then nothing can tell whether the journal once
/// held more.
///
/// # Errors
/// [`StoreError::InUse`] while a gateway runs on the store; [`StoreError::Damaged`] when the journal
/// itself is damaged, which only a backup helps.
pub fn rebuild(options: &Options) -> Result<Rebuilt, StoreError> {
    let _lock = Arc::new(Lock::take_existing(&options.directory)?);
    // The index may be all that tells of it.
    if let Some(part) = emptied(options) {
        return Err(emptied_error(&part));
    }
    let (mut marks, mut left_out) = (Vec::new(), Vec::new());
    for name in JOURNALS {
        if let Some(end) = remake_mark(options, name)? {
            marks.push(name.to_owned());
            left_out.extend((end.torn > 0).then(|| {
                let newest = segment::path(&options.directory.join(name), end.segment.unwrap_or_default());
                format!("{} at byte {}: {} bytes that are no whole entry", newest.display(), end.offset, end.torn)
            }));
        }
    }
    let aside = Aside::put(&options.directory)?;
    match caught_up(options, &options.surroundings()) {
        Ok((index, end)) => {
            let rebuilt = Rebuilt { sequence: end.sequence, entries: index.entries()?, marks, left_out };
            aside.forget()?;
            Ok(rebuilt)
        }
        // With the old index the store can be used as it was.
        Err(error) => {
            aside.put_back()?;
            Err(error)
        }
    }
}

/// The index as it was, out of the way while another is made.
struct Aside {
    index: PathBuf,
    old: PathBuf,
}

impl Aside {
    /// Puts the index out of the way. One that is there already was left by a making anew that did not end: then the
    /// index in its place is not whole.
    fn put(directory: &Path) -> Result<Self, StoreError> {
        let aside = Self { index: directory.join("index"), old: directory.join("index.old") };
        if aside.old.exists() {
            gone(&aside.index)?;
        } else if aside.index.exists() {
            std::fs::rename(&aside.index, &aside.old).map_err(|error| unavailable(&aside.index, &error))?;
        }
        Ok(aside)
    }

    fn put_back(self) -> Result<(), StoreError> {
        if !self.old.exists() {
            return Ok(());
        }
        gone(&self.index)?;
        std::fs::rename(&self.old, &self.index).map_err(|error| unavailable(&self.index, &error))
    }

    fn forget(self) -> Result<(), StoreError> {
        gone(&self.old)
    }
}

fn gone(directory: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unavailable(directory, &error)),
        _ => Ok(()),
    }
}

/// Ends a making anew of the index that was interrupted: the index is again as it was before. Called before a store is
/// opened, by who has its lock.
///
/// # Errors
/// When the disk refuses.
pub fn end_interrupted(directory: &Path) -> Result<(), StoreError> {
    if directory.join("index.old").exists() { Aside::put(directory)?.put_back() } else { Ok(()) }
}

/// Writes a journal's mark from its segments when the mark cannot be read, or a slot of it, and tells where they end then.
fn remake_mark(options: &Options, name: &str) -> Result<Option<End>, StoreError> {
    let (disk, directory) = (&*options.disk, options.directory.join(name));
    let known = mark::read(disk, &directory);
    if known.is_ok() && mark::flaw(disk, &directory).is_none() {
        return Ok(None);
    }
    let failed = |error: std::io::Error| unavailable(&directory, &error);
    let oldest = segment::list(disk, &directory).map_err(failed)?.first().copied().unwrap_or(1);
    let bounds = known.ok().flatten().unwrap_or(Bounds { first: oldest, durable: 0 });
    let first = bounds.first;
    let end =
        segment::walk_within(disk, &directory, bounds, first, &mut |_, _, _| Ok(std::ops::ControlFlow::Continue(())))?;
    // The journal once held more: that is not to be written off as a torn end.
    segment::beyond(end, &segment::path(&directory, end.segment.unwrap_or(first))).map_or(Ok(()), Err)?;
    let path = mark::path(&directory);
    match disk.remove(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut mark = Mark::begin(disk, &directory).map_err(failed)?;
    mark.settle(Bounds { first, durable: end.sequence }).map_err(failed)?;
    disk.sync_directory(&directory).map_err(failed)?;
    Ok(Some(end))
}
