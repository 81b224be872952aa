//! The backup of a journal that is damaged: what can be read of it, in segments that are whole.
//!
//! In the place of each entry that is lost stands one that changes nothing, so that a store made from the backup opens.
//! In the audit log that one is `audit.lost`, and `trunkline audit verify` tells of the break in the chain there. A file
//! that is named like a segment and cannot be one of this journal is left out, and named.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::super::op::{self, Op};
use super::super::open::{Options, format_of, new_salt, unavailable};
use super::super::records::Write;
use super::backup::{JournalBackup, LostRecords, SegmentBackup, sync_directory, write_file};
use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::disk::{Disk, make_directory, read_what_reads};
use crate::store::journal::salt::Salt;
use crate::store::journal::salvage::{Damaged, Lost, Until};
use crate::store::journal::{frame, mark, segment};
use crate::store::model::{AuditEntry, AuditRecord};

/// What cannot be a hash of an audit entry.
const NO_HASH: &str = "lost";

/// Copies what can be read of a journal.
///
/// # Errors
/// When its directory is there and cannot be read, or the copy cannot be written.
pub fn copy(options: &Options, name: &str, target: &Path) -> Result<JournalBackup, StoreError> {
    let (disk, directory) = (&*options.disk, options.directory.join(name));
    make_directory(target).map_err(|error| unavailable(target, &error))?;
    let bounds = mark::read(disk, &directory);
    let mut copied = Copied::default();
    if let Err(error) = &bounds {
        tracing::warn!(journal = name, error = %error, "nothing tells how far the journal went");
        copied.lose(&mark::path(&directory), Lost { offset: 0, records: 0 });
    }
    if let Some(offset) = mark::flaw(disk, &directory) {
        copied.lose(&mark::path(&directory), Lost { offset, records: 0 });
    }
    let durable = bounds.as_ref().ok().map(|bounds| bounds.unwrap_or_default().durable);
    let newest = durable.map_or(Until::Unknown, |durable| Until::AtLeast(durable + 1));
    let bounds = bounds.unwrap_or_default().unwrap_or_default();
    let listed = listed(disk, &directory, &mut copied)?;
    let format = format_of(&options.directory).map(|format| format.salt()).unwrap_or_default();
    let told = listed.iter().filter_map(|first| segment::salt_in(disk, &directory, *first));
    let mut salts: Vec<Salt> = std::iter::once(format).chain(told).collect();
    salts.dedup();
    let found = listed.into_iter().filter(|first| *first >= bounds.first);
    let found = found.map(|first| Found::read(disk, &directory, first, &salts)).collect();
    let mut segments = chosen(found, durable, &directory, &mut copied);
    let begin = if bounds.first > 0 { bounds.first } else { segments.first().copied().unwrap_or(1) };
    // What is missing before the first that is there is lost like the content of one.
    if segments.first() != Some(&begin) && bounds.durable >= begin {
        segments.insert(0, begin);
    }
    copied.next = begin;
    let (now, salt) = (options.clock.now(), new_salt()?);
    for (place, &first) in segments.iter().enumerate() {
        let following = segments.get(place + 1).copied();
        let path = segment::path(&directory, first);
        let bytes = what_reads(disk, &path);
        let until = following.map_or(newest, Until::Exactly);
        let damaged = Damaged { bytes: &bytes, first, until, salts: &salts };
        let mut written = segment::header_after(first, copied.last(), salt);
        let (lost, next) = damaged.walk(|sequence, payload| match payload {
            Some(payload) => frame::encode(salt.hide(sequence), payload, &mut written),
            None => frame::encode(salt.hide(sequence), &filler(name, sequence, now), &mut written),
        });
        for one in lost {
            copied.lose(&path, one);
        }
        copied.next = next;
        write_file(&segment::path(target, first), &written).map_err(|error| unavailable(target, &error))?;
        copied.segments.push(SegmentBackup { first, bytes: written.len() as u64, crc32c: crc32c::crc32c(&written) });
    }
    sync_directory(target)?;
    Ok(JournalBackup {
        name: name.to_owned(),
        first: begin,
        last: copied.next - 1,
        segments: copied.segments,
        lost: copied.lost,
    })
}

/// The segments of a journal. One whose directory is missing has none.
fn listed(disk: &dyn Disk, directory: &Path, copied: &mut Copied) -> Result<Vec<u64>, StoreError> {
    match segment::list(disk, directory) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            copied.lose(directory, Lost { offset: 0, records: 0 });
            Ok(Vec::new())
        }
        listed => listed.map_err(|error| StoreError::Read(Arc::from(format!("{}: {error}", directory.display())))),
    }
}

/// The bytes of a file. What does not open is empty, and all of it lost.
fn what_reads(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    disk.read(path).and_then(|file| read_what_reads(&file)).unwrap_or_default()
}

/// A file that is named like a segment.
struct Found {
    /// The sequence number it should begin with.
    first: u64,
    /// The one behind the last that is whole in it.
    reach: u64,
}

impl Found {
    fn read(disk: &dyn Disk, directory: &Path, first: u64, salts: &[Salt]) -> Self {
        let bytes = what_reads(disk, &segment::path(directory, first));
        Self { first, reach: Damaged { bytes: &bytes, first, until: Until::Unknown, salts }.reach() }
    }

    /// Whether nothing in it is whole.
    fn is_empty(&self) -> bool {
        self.reach == self.first
    }
}

/// The segments that are the journal's. No two of them have the same entries: of two that do, the one counts which goes
/// further, from its beginning on. Nor does one in which nothing is whole begin anywhere behind the end.
fn chosen(found: Vec<Found>, durable: Option<u64>, directory: &Path, copied: &mut Copied) -> Vec<u64> {
    let mut kept: Vec<Found> = Vec::new();
    let nowhere = Lost { offset: 0, records: 0 };
    let newest = found.iter().rfind(|found| !found.is_empty()).map_or(0, |found| found.first);
    let end = durable.map_or(newest, |durable| durable + 1);
    for next in found {
        let reach = kept.last().map_or(next.first, |before| before.reach);
        if reach > next.reach || next.is_empty() && next.first > end && reach != next.first {
            copied.lose(&segment::path(directory, next.first), nowhere);
            continue;
        }
        if let Some(before) = kept.last().filter(|before| before.reach > next.first) {
            copied.lose(&segment::path(directory, before.first), nowhere);
        }
        kept.push(next);
    }
    kept.into_iter().map(|kept| kept.first).collect()
}

/// What was copied so far.
#[derive(Default)]
struct Copied {
    segments: Vec<SegmentBackup>,
    lost: Vec<LostRecords>,
    next: u64,
}

impl Copied {
    /// The segment before the next, and its length.
    fn last(&self) -> Option<(u64, u64)> {
        self.segments.last().map(|segment| (segment.first, segment.bytes))
    }

    fn lose(&mut self, file: &Path, Lost { offset, records }: Lost) {
        self.lost.push(LostRecords { file: file.display().to_string(), offset, records });
    }
}

/// An entry of a journal that changes nothing.
fn filler(journal: &str, sequence: u64, now: Timestamp) -> Vec<u8> {
    match journal {
        "events" => op::encode(&Op::Claimed { items: Vec::new() }, &[]).unwrap_or_default(),
        "records" => postcard::to_allocvec(&Write::nothing()).unwrap_or_default(),
        _ => {
            let entry = AuditEntry {
                at: now,
                actor: "system".to_owned(),
                action: "audit.lost".to_owned(),
                target: format!("audit:{sequence}"),
                detail: serde_json::Value::Null,
            };
            serde_json::to_vec(&AuditRecord { sequence, entry, hash: NO_HASH.to_owned() }).unwrap_or_default()
        }
    }
}
