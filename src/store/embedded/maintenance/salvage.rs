//! The backup of a journal that is damaged: what can be read of it, in segments that are whole.
//!
//! In the place of each entry that is lost stands one that changes nothing, so that a store made from the backup opens.
//! In the audit log that one is `audit.lost`, and `trunkline audit verify` tells of the break in the chain there. A file
//! that is named like a segment and cannot be one of this journal is left out, and named.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use super::super::op::{self, Op};
use super::super::open::{Options, format_of, new_salt, unavailable};
use super::super::records::Write;
use super::backup::{JournalBackup, LostRecords, SegmentBackup, sync_directory, write_file};
use super::reading;
use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::disk::{Disk, make_directory, read_what_reads};
use crate::store::journal::salt::Salt;
use crate::store::journal::salvage::{Damaged, Lost, Until};
use crate::store::journal::segment::Link;
use crate::store::journal::{frame, mark, segment};
use crate::store::model::{AuditEntry, AuditRecord};

/// What cannot be a hash of an audit entry.
const NO_HASH: &str = "lost";

/// Gaps longer than this are none: a file that makes one is not of the journal, where nothing tells how far that went.
const GAP: u64 = 1 << 22;

/// Copies what can be read of a journal, and names what cannot.
///
/// # Errors
/// When the copy cannot be written.
pub fn copy(options: &Options, name: &str, target: &Path) -> Result<JournalBackup, StoreError> {
    let (disk, directory) = (&*options.disk, options.directory.join(name));
    make_directory(target).map_err(|error| unavailable(target, &error))?;
    let mut copied = Copied::default();
    let bounds = mark::read(disk, &directory);
    if let Err(error) = &bounds {
        tracing::warn!(journal = name, error = %error, "nothing tells how far the journal went");
        copied.lose(&mark::path(&directory), NOWHERE);
    }
    if let Some(offset) = mark::flaw(disk, &directory) {
        copied.lose(&mark::path(&directory), Lost { offset, records: 0 });
    }
    let durable = bounds.as_ref().ok().map(|bounds| bounds.unwrap_or_default().durable);
    let newest = durable.map_or(Until::Unknown, |durable| Until::AtLeast(durable.saturating_add(1)));
    let bounds = bounds.unwrap_or_default().unwrap_or_default();
    let journal = Journal::of(options, name, &mut copied);
    let mut segments = chosen(journal.found(bounds.first), durable, &mut copied);
    let oldest = segments.first().map(|found| found.first);
    let begin = if bounds.first > 0 { bounds.first } else { oldest.unwrap_or(1) };
    // What is missing before the first that is there is lost like the content of one.
    if oldest != Some(begin) && bounds.durable >= begin {
        segments.insert(0, Found::missing(&directory, begin));
    }
    copied.next = begin;
    let (now, salt) = (options.clock.now(), new_salt()?);
    for (place, found) in segments.iter().enumerate() {
        let until = segments.get(place + 1).map_or(newest, |following| Until::Exactly(following.first));
        let bytes = what_reads(disk, &found.path);
        let mut written = segment::header_after(found.first, copied.last(), salt);
        let (lost, next) = journal.damaged(&bytes, found.first, until).walk(|sequence, payload| match payload {
            Some(payload) => frame::encode(salt.hide(sequence), payload, &mut written),
            None => frame::encode(salt.hide(sequence), &filler(name, sequence, now), &mut written),
        });
        for one in lost {
            copied.lose(&found.path, one);
        }
        copied.next = next;
        copied.write(target, found.first, &written)?;
    }
    sync_directory(target)?;
    // It did not read whole.
    if copied.lost.is_empty() {
        copied.lose(&directory, NOWHERE);
    }
    Ok(JournalBackup {
        name: name.to_owned(),
        first: begin,
        last: copied.next - 1,
        segments: copied.segments,
        lost: copied.lost,
    })
}

/// What is told of a file of which nothing tells what is lost with it.
const NOWHERE: Lost = Lost { offset: 0, records: 0 };

/// A journal as its files are found.
struct Journal<'a> {
    disk: &'a dyn Disk,
    directory: PathBuf,
    listed: Vec<u64>,
    /// The store's, and those that the headers of segments tell.
    own_salt: Salt,
    salts: Vec<Salt>,
    reads: fn(&[u8]) -> bool,
}

impl<'a> Journal<'a> {
    fn of(options: &'a Options, name: &str, copied: &mut Copied) -> Self {
        let (disk, directory) = (&*options.disk, options.directory.join(name));
        let listed = segment::list(disk, &directory).unwrap_or_else(|error| {
            tracing::warn!(journal = name, error = %error, "its directory cannot be read");
            copied.lose(&directory, NOWHERE);
            Vec::new()
        });
        let told: Vec<_> = listed.iter().filter_map(|first| segment::salt_in(disk, &directory, *first)).collect();
        let count = |salt: &&Salt| told.iter().filter(|other| other == salt).count();
        // Without its format file the store's salt is the one that most of them have.
        let own_salt = format_of(&options.directory).map(|format| format.salt());
        let own_salt = own_salt.or_else(|| told.iter().max_by_key(count).copied()).unwrap_or_default();
        let mut salts: Vec<Salt> = std::iter::once(own_salt).chain(told).collect();
        salts.dedup();
        Self { disk, directory, listed, own_salt, salts, reads: reading(name) }
    }

    fn damaged<'b>(&'b self, bytes: &'b [u8], first: u64, until: Until) -> Damaged<'b> {
        Damaged { bytes, first, until, salts: &self.salts, reads: self.reads }
    }

    /// The files from a sequence number on: those that begin with the same one after the other, the better first.
    fn found(&self, from: u64) -> Vec<Found> {
        let mut found: Vec<_> = self.listed.iter().map(|first| self.look_at(*first)).collect();
        found.retain(|found| found.first >= from);
        let places: Vec<_> = found.iter().map(|found| (found.place(), found.link, found.reach)).collect();
        for one in &mut found {
            let is_before = |(_, link, _): &(Link, Option<Link>, u64)| *link == Some(one.place());
            let is_behind =
                |(place, _, reach): &(Link, Option<Link>, u64)| one.link == Some(*place) && *reach == one.first;
            one.rank.signs[LINKED] = places.iter().any(|other| is_before(other) || is_behind(other));
        }
        found.sort_by_key(|found| (found.first, Reverse(found.rank)));
        found
    }

    fn look_at(&self, name: u64) -> Found {
        let path = segment::path(&self.directory, name);
        let bytes = what_reads(self.disk, &path);
        let header = segment::header_of(&bytes);
        let first = header.map_or(name, |(first, ..)| first);
        let (reach, whole) = self.damaged(&bytes, first, Until::Unknown).reach();
        let is_of_store = header.is_some_and(|(_, _, salt)| salt != Salt::NONE && salt == self.own_salt);
        let rank = Rank { signs: [is_of_store, false, header.is_some()], whole, is_named: first == name };
        Found { path, first, bytes: bytes.len() as u64, link: header.map(|(_, link, _)| link), reach, rank }
    }
}

/// The bytes of a file. What does not open is empty, and all of it lost.
fn what_reads(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    disk.read(path).and_then(|file| read_what_reads(&file)).unwrap_or_default()
}

/// A file that is named like a segment.
struct Found {
    path: PathBuf,
    /// The sequence number it begins with, as its header tells, or its name where that is not whole.
    first: u64,
    bytes: u64,
    link: Option<Link>,
    /// The sequence number behind the last entry that is whole in it.
    reach: u64,
    rank: Rank,
}

/// What speaks for a file, most first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Whether it has the store's salt, whether it is [`LINKED`], and whether its header is whole.
    signs: [bool; 3],
    /// How many entries are whole in it.
    whole: u64,
    /// Whether its name tells what its header does.
    is_named: bool,
}

/// Another segment tells of it, or it of one which is as it tells.
const LINKED: usize = 1;

impl Found {
    fn missing(directory: &Path, first: u64) -> Self {
        let path = segment::path(directory, first);
        Self { path, first, bytes: 0, link: None, reach: first, rank: Rank::default() }
    }

    /// As the header of the next segment tells it.
    fn place(&self) -> Link {
        Link { first: self.first, bytes: self.bytes }
    }
}

/// The segments that are the journal's, of files in order. No two of them have the same entries: of two that do, the one
/// counts for which more speaks, and of the other what is before it. Nor does one begin anywhere behind the end.
fn chosen(found: Vec<Found>, durable: Option<u64>, copied: &mut Copied) -> Vec<Found> {
    let mut kept: Vec<Found> = Vec::new();
    for next in found {
        let before = kept.last();
        let reach = before.map_or(next.first, |before| before.reach);
        let end = durable.map_or(reach.saturating_add(GAP), |durable| durable.saturating_add(1));
        let is_beyond = next.first > end && (before.is_none() || next.first != reach);
        let shared = before.filter(|before| before.reach > next.first || before.first == next.first);
        if is_beyond || shared.is_some_and(|before| before.first == next.first || before.rank >= next.rank) {
            copied.lose(&next.path, NOWHERE);
            continue;
        }
        if let Some(before) = shared {
            copied.lose(&before.path, NOWHERE);
        }
        kept.push(next);
    }
    kept
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

    fn write(&mut self, target: &Path, first: u64, written: &[u8]) -> Result<(), StoreError> {
        write_file(&segment::path(target, first), written).map_err(|error| unavailable(target, &error))?;
        self.segments.push(SegmentBackup { first, bytes: written.len() as u64, crc32c: crc32c::crc32c(written) });
        Ok(())
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
