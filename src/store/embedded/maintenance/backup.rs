//! Backups: the journals up to now, with a manifest of their checksums. The index is left out, because
//! it is made anew from them.
//!
//! A backup is a directory. It can be made while a gateway runs on the store: segments only grow at
//! their end, and what is taken of each journal is what was whole when it was read. What was delivered
//! is in the journal as delivered, so a restored store does not send it again. What was unfinished may have
//! been delivered after the backup was made; a restored store holds it in the dead-letter list unless
//! [`Unfinished::Resumed`] is asked for. Of a journal that is damaged, what can be read is taken: see [`super::salvage`].

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::lock::{LOCK, Lock};
use super::super::open::{
    FORMAT, Format, JOURNALS, Options, RESTORED, RESTORING, emptied, holds_nothing, new_salt, no_store, read_format,
    refuse_newer, unavailable, write_format,
};
use super::{reading, salvage};
use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::disk::{Disk, SystemDisk, create_file, make_directory};
use crate::store::journal::mark::{self, Bounds, Mark};
use crate::store::journal::segment;

/// How often a journal is read again whose oldest segments are removed meanwhile.
const TRIES: usize = 5;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupReport {
    /// The store's format.
    pub format: u32,
    /// When it was begun.
    pub created_at: Timestamp,
    /// The journals.
    pub journals: Vec<JournalBackup>,
}

/// A journal in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalBackup {
    /// Its name.
    pub name: String,
    /// The sequence number it begins with.
    pub first: u64,
    /// The last sequence number.
    pub last: u64,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentBackup>,
    /// What could not be read of the journal, and is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostRecords>,
}

/// What could not be read at one place of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostRecords {
    /// The file, in the store that was backed up.
    pub file: String,
    /// The place in it.
    pub offset: u64,
    /// How many entries of the journal. Zero for its mark, or a slot of that, for all of it, and for a file that is not of
    /// the journal: nothing tells how many are missing with it.
    pub records: u64,
}

impl JournalBackup {
    /// How many entries could not be read.
    pub fn lost_records(&self) -> u64 {
        self.lost.iter().map(|lost| lost.records).sum()
    }

    /// How many entries are in it.
    fn read_records(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first).saturating_sub(self.lost_records())
    }
}

/// A segment in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentBackup {
    /// Its first sequence number, which names the file.
    pub first: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The CRC32C of them.
    pub crc32c: u32,
}

/// What becomes of the work that a backup has unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// It goes to the dead-letter list at the first start: it may have been delivered since.
    Held,
    /// It goes on, and what was delivered after the backup was made is delivered again.
    Resumed,
}

/// Stands in a directory for as long as a backup is written into it.
const UNFINISHED: &str = "unfinished";

/// What is told of an entry that is as it was written and is not one of the journal's.
const UNREAD: &str = "it holds an entry that is not one of this journal's";

/// The manifest's name.
const MANIFEST: &str = "manifest.json";

/// The manifest's file: the report, and the CRC32C of its JSON text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    backup: BackupReport,
    crc32c: u32,
}

/// Writes a backup of a store, which may be in use, into a directory that is empty or not there. What cannot be read of
/// its journals is left out, and the report names it. One that fails leaves the directory empty.
///
/// # Errors
/// [`StoreError::NotFound`] when there is no store; [`StoreError::Read`] when that cannot be known;
/// [`StoreError::NewerFormat`]; [`StoreError::Conflict`] when the target is not empty; [`StoreError::Damaged`] when nothing of
/// the store's journals can be read.
pub fn backup(options: &Options, to: &Path) -> Result<BackupReport, StoreError> {
    look_for_store(options)?;
    empty_directory(to, &[])?;
    // Of several at once one goes on, and only that one may clean up.
    let unfinished = to.join(UNFINISHED);
    fs::File::create_new(&unfinished).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => StoreError::Conflict(format!("{} is not empty", to.display())),
        _ => unavailable(to, &error),
    })?;
    let written = empty_directory(to, &[UNFINISHED]).and_then(|()| {
        let written = write_backup(options, to);
        cleaned(written, to)
    });
    drop(fs::remove_file(unfinished));
    written
}

/// Looks whether there is a store. One whose format file is missing or does not read is backed up all the same: the journals
/// tell what counts of it.
fn look_for_store(options: &Options) -> Result<(), StoreError> {
    let directory = &options.directory;
    let format = directory.join("format");
    let told = match fs::read(&format) {
        Ok(bytes) => read_format(&bytes, &format).map(drop),
        Err(error) if holds_nothing(directory) => {
            let is_none = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
            let unread = || StoreError::Read(Arc::from(format!("{}: {error}", format.display())));
            return Err(if is_none { no_store(directory) } else { unread() });
        }
        Err(error) => Err(segment::damaged(&error.to_string(), &format, 0)),
    };
    match told {
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::warn!(error = %error, "the backup has what the journals hold");
            Ok(())
        }
        told => told,
    }
}

/// Takes away what a backup left that failed.
fn cleaned(written: Result<BackupReport, StoreError>, to: &Path) -> Result<BackupReport, StoreError> {
    if written.is_err() {
        // As well as that goes: the error is what counts.
        for name in JOURNALS {
            drop(fs::remove_dir_all(to.join(name)));
        }
        drop(fs::remove_file(to.join(MANIFEST)));
    }
    written
}

fn write_backup(options: &Options, to: &Path) -> Result<BackupReport, StoreError> {
    let created_at = options.clock.now();
    // The audit log is read last: it has what was done before, whatever the others have of the effects.
    let mut damage = None;
    let mut journals = JOURNALS
        .iter()
        .map(|name| copy_journal(options, name, &to.join(name), &mut damage))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(damage) = damage.filter(|_| journals.iter().all(|journal| journal.read_records() == 0)) {
        return Err(damage);
    }
    if let Some(part) = emptied(options) {
        for journal in journals.iter_mut().filter(|journal| part.ends_with(&journal.name)) {
            journal.lost.push(LostRecords { file: part.display().to_string(), offset: 0, records: 0 });
        }
    }
    let report = BackupReport { format: FORMAT, created_at, journals };
    write_manifest(&report, to).map_err(|error| unavailable(to, &error))?;
    verify(to)
}

fn copy_journal(
    options: &Options,
    name: &str,
    target: &Path,
    damage: &mut Option<StoreError>,
) -> Result<JournalBackup, StoreError> {
    let mut tries = 1;
    let error = loop {
        match copy_once(options, name, target) {
            Ok(journal) => return Ok(journal),
            Err(error) if tries == TRIES => break error,
            // Its oldest segment may have been removed between two looks at the directory.
            Err(error) => tracing::debug!(error = %error, journal = name, "the journal is copied again"),
        }
        tries += 1;
        fs::remove_dir_all(target).map_err(|error| unavailable(target, &error))?;
    };
    if !matches!(error, StoreError::Damaged { .. } | StoreError::Read(_)) {
        return Err(error);
    }
    fs::remove_dir_all(target).map_err(|error| unavailable(target, &error))?;
    *damage = Some(error);
    salvage::copy(options, name, target)
}

fn copy_once(options: &Options, name: &str, target: &Path) -> Result<JournalBackup, StoreError> {
    let (disk, directory) = (&*options.disk, options.directory.join(name));
    make_directory(target).map_err(|error| unavailable(target, &error))?;
    let reads = reading(name);
    let end = segment::walk(disk, &directory, 0, &mut |_, pointer, payload| {
        let unread = || segment::damaged(UNREAD, &segment::path(&directory, pointer.segment), pointer.offset);
        if reads(payload) { Ok(ControlFlow::Continue(())) } else { Err(unread()) }
    })?;
    // A power cut leaves such an end as well; what is whole of it is copied, rather than counted as nothing.
    let newest = segment::path(&directory, end.segment.unwrap_or_default());
    segment::beyond(end, &newest).map_or(Ok(()), Err)?;
    let unmarked = |error: std::io::Error| StoreError::Read(Arc::from(format!("{}: {error}", directory.display())));
    let bounds = mark::read(disk, &directory).map_err(unmarked)?.unwrap_or_default();
    let segments = segment::list(disk, &directory).map_err(|error| unavailable(&directory, &error))?;
    let mut copied = Vec::new();
    for first in segments.into_iter().filter(|first| *first >= bounds.first && Some(*first) <= end.segment) {
        let from = segment::path(&directory, first);
        let mut bytes = fs::read(&from).map_err(|error| unavailable(&from, &error))?;
        if Some(first) == end.segment {
            bytes.truncate(usize::try_from(end.offset).unwrap_or(usize::MAX));
        }
        write_file(&segment::path(target, first), &bytes).map_err(|error| unavailable(target, &error))?;
        copied.push(SegmentBackup { first, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) });
    }
    let first = copied.first().map_or(1, |segment| segment.first);
    sync_directory(target)?;
    let flaw = mark::flaw(disk, &directory);
    let lost =
        flaw.map(|offset| LostRecords { file: mark::path(&directory).display().to_string(), offset, records: 0 });
    let lost = lost.into_iter().collect();
    Ok(JournalBackup { name: name.to_owned(), first, last: end.sequence, segments: copied, lost })
}

/// Checks that a backup is whole: the manifest, each file's length and checksum, each frame.
///
/// # Errors
/// [`StoreError::Damaged`] says which file; [`StoreError::NewerFormat`].
pub fn verify(from: &Path) -> Result<BackupReport, StoreError> {
    let path = from.join(MANIFEST);
    let bytes = fs::read(&path).map_err(|error| damaged(&format!("the manifest cannot be read: {error}"), &path))?;
    let unread = |_| damaged("the manifest does not read", &path);
    let told: serde_json::Value = serde_json::from_slice(&bytes).map_err(unread)?;
    refuse_newer(told.pointer("/backup/format"), from)?;
    let Manifest { backup: report, crc32c } = serde_json::from_value(told).map_err(unread)?;
    if checksum(&report) != crc32c {
        return Err(damaged("the manifest is not what was written", &path));
    }
    if !report.journals.iter().map(|journal| journal.name.as_str()).eq(JOURNALS) {
        return Err(damaged("the manifest does not name the journals", &path));
    }
    report.journals.iter().try_for_each(|journal| verify_journal(journal, &from.join(&journal.name)))?;
    Ok(report)
}

fn verify_journal(journal: &JournalBackup, directory: &Path) -> Result<(), StoreError> {
    for segment in &journal.segments {
        let path = segment::path(directory, segment.first);
        let bytes = fs::read(&path).map_err(|error| damaged(&format!("it cannot be read: {error}"), &path))?;
        if bytes.len() as u64 != segment.bytes || crc32c::crc32c(&bytes) != segment.crc32c {
            return Err(damaged("it is not what was written", &path));
        }
    }
    let bounds = Bounds { first: journal.first, durable: journal.last };
    let reads = reading(&journal.name);
    segment::walk_within(&SystemDisk, directory, bounds, 0, &mut |_, pointer, payload| {
        let unread = || damaged(UNREAD, &segment::path(directory, pointer.segment));
        if reads(payload) { Ok(ControlFlow::Continue(())) } else { Err(unread()) }
    })?;
    Ok(())
}

/// Makes a store from a backup, after checking it, in a directory that is empty or not there. Events that
/// came after the backup was made are not in it, and neither are their dedupe marks.
///
/// # Errors
/// As [`verify`]; [`StoreError::Conflict`] when the directory holds anything.
pub fn restore(from: &Path, options: &Options, unfinished: Unfinished) -> Result<BackupReport, StoreError> {
    let report = verify(from)?;
    let directory = &options.directory;
    empty_directory(directory, &[LOCK])?;
    let _lock = Arc::new(Lock::take(directory)?);
    // Looked at again now that nobody else writes here: only what this call made may be taken away.
    empty_directory(directory, &[LOCK])?;
    let restored = write_restored(from, &report, options, unfinished);
    if restored.is_err() {
        // As well as that goes; the first file of all goes last, and the lock stays.
        for name in JOURNALS {
            drop(fs::remove_dir_all(directory.join(name)));
        }
        for name in ["format", "format.new", RESTORED, RESTORING] {
            drop(fs::remove_file(directory.join(name)));
        }
    }
    restored.map(|()| report)
}

fn write_restored(
    from: &Path,
    report: &BackupReport,
    options: &Options,
    unfinished: Unfinished,
) -> Result<(), StoreError> {
    let directory = &options.directory;
    let own = |error: std::io::Error| unavailable(directory, &error);
    // Written first and taken away last: a restore that is cut off leaves a directory that is refused, not an empty store or
    // half of one.
    write_file(&directory.join(RESTORING), b"").map_err(own)?;
    sync_directory(directory)?;
    for journal in &report.journals {
        let (source, target) = (from.join(&journal.name), directory.join(&journal.name));
        let failed = |error: std::io::Error| unavailable(&target, &error);
        make_directory(&target).map_err(failed)?;
        for copied in &journal.segments {
            let bytes = fs::read(segment::path(&source, copied.first)).map_err(failed)?;
            write_file(&segment::path(&target, copied.first), &bytes).map_err(failed)?;
        }
        let mut mark = Mark::begin(&*options.disk, &target).map_err(failed)?;
        mark.settle(Bounds { first: journal.first, durable: journal.last }).map_err(failed)?;
        sync_directory(&target)?;
    }
    if unfinished == Unfinished::Held {
        write_file(&directory.join(RESTORED), b"").map_err(own)?;
    }
    write_format(&*options.disk, directory, &Format::new(new_salt()?, true)).map_err(own)?;
    fs::remove_file(directory.join(RESTORING)).map_err(own)?;
    sync_directory(directory)
}

/// Makes a directory, or finds one with nothing in it but files of these names.
fn empty_directory(directory: &Path, but: &[&str]) -> Result<(), StoreError> {
    make_directory(directory).map_err(|error| unavailable(directory, &error))?;
    let entries = fs::read_dir(directory).map_err(|error| unavailable(directory, &error))?;
    for entry in entries {
        let name = entry.map_err(|error| unavailable(directory, &error))?.file_name();
        if !but.iter().any(|known| name == **known) {
            return Err(StoreError::Conflict(format!("{} is not empty", directory.display())));
        }
    }
    Ok(())
}

fn write_manifest(report: &BackupReport, to: &Path) -> std::io::Result<()> {
    let manifest = Manifest { crc32c: checksum(report), backup: report.clone() };
    write_file(&to.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
    SystemDisk.sync_directory(to)
}

fn checksum(report: &BackupReport) -> u32 {
    crc32c::crc32c(&serde_json::to_vec(report).unwrap_or_default())
}

pub(super) fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = create_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(super) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    SystemDisk.sync_directory(directory).map_err(|error| unavailable(directory, &error))
}

fn damaged(what: &str, path: &Path) -> StoreError {
    StoreError::Damaged {
        what: what.to_owned(),
        place: path.display().to_string(),
        help: "use another backup: this one is not whole".to_owned(),
    }
}
