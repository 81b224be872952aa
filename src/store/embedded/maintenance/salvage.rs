//! The backup of a journal that is damaged: what can be read of it, in segments that are whole.
//!
//! In the place of each entry that is lost stands one that changes nothing, so that a store made from the backup opens.
//! In the audit log that one is `audit.lost`, and `trunkline audit verify` tells of the break in the chain there.

use std::path::Path;
use std::sync::Arc;

use super::super::op::{self, Op};
use super::super::open::{Options, format_of, new_salt, unavailable};
use super::super::records::Write;
use super::backup::{JournalBackup, LostRecords, SegmentBackup, sync_directory, write_file};
use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::disk::{make_directory, read_what_reads};
use crate::store::journal::salt::Salt;
use crate::store::journal::salvage::{Damaged, Lost, Until};
use crate::store::journal::{frame, mark, segment};
use crate::store::model::{AuditEntry, AuditRecord};

/// What cannot be a hash of an audit entry.
const NO_HASH: &str = "lost";

/// Copies what can be read of a journal.
///
/// # Errors
/// When its directory cannot be read, or the copy cannot be written.
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
    let durable = bounds.as_ref().map(|bounds| bounds.unwrap_or_default().durable);
    let newest = durable.map_or(Until::Unknown, |durable| Until::AtLeast(durable + 1));
    let bounds = bounds.unwrap_or_default().unwrap_or_default();
    let mut segments = segment::list(disk, &directory)
        .map_err(|error| StoreError::Read(Arc::from(format!("{}: {error}", directory.display()))))?;
    segments.retain(|first| *first >= bounds.first);
    let begin = if bounds.first > 0 { bounds.first } else { segments.first().copied().unwrap_or(1) };
    // What is missing before the first that is there is lost like the content of one.
    if segments.first() != Some(&begin) && bounds.durable >= begin {
        segments.insert(0, begin);
    }
    copied.next = begin;
    let (now, salt) = (options.clock.now(), new_salt()?);
    let format = format_of(&options.directory).map(|format| format.salt()).unwrap_or_default();
    let told = segments.iter().filter_map(|first| segment::salt_in(disk, &directory, *first));
    let mut salts: Vec<Salt> = std::iter::once(format).chain(told).collect();
    salts.dedup();
    for (place, &first) in segments.iter().enumerate() {
        let following = segments.get(place + 1).copied();
        let path = segment::path(&directory, first);
        // What does not open is empty, and all of it lost.
        let bytes = disk.read(&path).and_then(|file| read_what_reads(&file)).unwrap_or_default();
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
