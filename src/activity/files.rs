//! The files of the activity: `activity/` in the store's directory, frames as the journal's, one an entry.
//!
//! Nothing here is synced: what is written survives a kill of the process, and after a power cut what the system had
//! not yet written is missing. A file that ends in the middle of a frame ends there. Files are removed whole: the
//! oldest first when there are too many bytes, and each once nothing in it is wanted any more. Where that would leave
//! little, because there may be fewer bytes than when the file was begun, its newest entries stay. A file that cannot
//! be written is left, and another begun. Called by [`super::write`] and at the start.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::content::Kept;
use super::entry::Entry;
use crate::base::clock::Timestamp;
use crate::base::id::ActivityId;
use crate::base::units::Reserve;
use crate::store::disk::{Disk, DiskFile, make_directory, read_all};
use crate::store::journal::frame::{self, Read};

/// A file is followed by another when it has this share of all bytes, or of the time that entries are kept.
const SHARE: u64 = 16;
/// No file is followed by another before it has so many bytes.
const LEAST: u64 = 64 << 10;

/// Where and how much.
#[derive(Debug, Clone)]
pub struct Place {
    /// The store's directory.
    pub store: PathBuf,
    /// Nothing is written when the file system has less than this free.
    pub min_free: Reserve,
    /// The file system.
    pub disk: Arc<dyn Disk>,
}

/// A file that is not written any more.
#[derive(Debug, Clone, Copy)]
struct Closed {
    first: ActivityId,
    last: ActivityId,
    bytes: u64,
}

/// The file that is being written.
struct Open {
    closed: Closed,
    begun: Timestamp,
    file: Box<dyn DiskFile>,
}

/// All files.
pub struct Files {
    directory: PathBuf,
    min_free: Reserve,
    disk: Arc<dyn Disk>,
    closed: Vec<Closed>,
    open: Option<Open>,
}

/// What may be kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most bytes of all files.
    pub bytes: u64,
    /// For how long.
    pub retain: Duration,
}

impl Files {
    /// Those that are there, with the newest `keep` entries of them that began at `oldest` or later, oldest first, and
    /// what the newest of these carried, of so many bytes together.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(place: Place, (keep, mut memory): (usize, usize), oldest: Timestamp) -> io::Result<(Self, Vec<Entry>)> {
        let directory = place.store.join("activity");
        make_directory(&directory)?;
        let mut firsts: Vec<_> = place.disk.list(&directory)?.iter().filter_map(|path| first_of(path)).collect();
        firsts.sort_unstable();
        let mut files = Self { directory, min_free: place.min_free, disk: place.disk, closed: Vec::new(), open: None };
        let mut entries: Vec<Vec<Entry>> = Vec::new();
        let (mut known, mut count) = (HashSet::new(), 0);
        let mut newer = None;
        for &first in firsts.iter().rev() {
            let (bytes, mut found) = files.read(first)?;
            // A process that ended while a file was cut leaves what stays of it twice.
            let begins = newer.replace(first);
            found.retain(|entry| begins.is_none_or(|begins| entry.id < begins));
            let last = found.last().map_or(first, |entry| entry.id);
            files.closed.push(Closed { first, last, bytes });
            if count < keep {
                let mut found: Vec<_> = found.into_iter().filter(|entry| entry.at >= oldest).collect();
                found.drain(..found.len().saturating_sub(keep - count));
                count += found.len();
                for entry in found.iter_mut().rev() {
                    share_texts(entry, &mut known);
                    memory = memory.saturating_sub(entry.content.get().map_or(0, |content| content.bytes()));
                    if memory == 0 {
                        entry.content = Kept::default();
                    }
                }
                entries.push(found);
            }
        }
        files.closed.reverse();
        entries.reverse();
        Ok((files, entries.into_iter().flatten().collect()))
    }

    fn read(&self, first: ActivityId) -> io::Result<(u64, Vec<Entry>)> {
        let path = path(&self.directory, first);
        let bytes = read_all(&mut self.disk.read(&path)?)?;
        let (mut at, mut entries) = (0, Vec::new());
        while let Read::Frame(frame, taken) = frame::decode(bytes.get(at..).unwrap_or_default()) {
            at += taken;
            match Entry::decode(frame.payload) {
                Ok(entry) => entries.push(entry),
                Err(error) => tracing::warn!("an entry of `{}` is not understood: {error}", path.display()),
            }
        }
        if at < bytes.len() {
            let rest = bytes.len() - at;
            tracing::info!(
                "`{}` ends in the middle of an entry; its last {rest} bytes are passed over",
                path.display()
            );
        }
        Ok((bytes.len() as u64, entries))
    }

    /// Writes entries, in order, at once.
    ///
    /// # Errors
    /// When it cannot be done; then a part of them may have been written, and the next goes into another file.
    pub fn write(&mut self, entries: &[Arc<Entry>], (bounds, now): (Bounds, Timestamp)) -> io::Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let mut bytes = Vec::with_capacity(entries.len() * 400);
        let mut one = Vec::new();
        for entry in entries {
            one.clear();
            entry.encode(&mut one)?;
            frame::encode(entry.id.to_u64(), &one, &mut bytes);
        }
        // The journals have what is left to themselves.
        let space = self.disk.space(&self.directory)?;
        if space.free < self.min_free.of(space.total).saturating_add(bytes.len() as u64) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk has too little room left"));
        }
        self.roll(bounds, now);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open {
                closed: Closed { first: first.id, last: first.id, bytes: 0 },
                begun: now,
                file: self.disk.create(&path(&self.directory, first.id))?,
            },
        };
        let written = open.file.write_all(&bytes);
        open.closed.bytes += bytes.len() as u64;
        open.closed.last = last.id;
        match written {
            Ok(()) => self.open = Some(open),
            Err(_) => self.closed.push(open.closed),
        }
        written
    }

    /// Ends the file that is being written, where it is large or old enough.
    fn roll(&mut self, bounds: Bounds, now: Timestamp) {
        let full = |open: &mut Open| {
            open.closed.bytes >= (bounds.bytes / SHARE).max(LEAST)
                || now.since(open.begun) > bounds.retain / u32::try_from(SHARE).unwrap_or(u32::MAX)
        };
        self.closed.extend(self.open.take_if(full).map(|open| open.closed));
    }

    /// Removes the files in which nothing is after `gone`, and the oldest while there are too many bytes; one without
    /// which less than half of these would be left is cut. Returns the newest entry that is in no file any more.
    pub fn tidy(&mut self, gone: ActivityId, (bounds, now): (Bounds, Timestamp)) -> ActivityId {
        self.roll(bounds, now);
        let mut lost = ActivityId::default();
        while let Some(oldest) = self.closed.first().copied() {
            let is_wanted = oldest.last > gone;
            if is_wanted && self.bytes() <= bounds.bytes {
                break;
            }
            let others = self.bytes().saturating_sub(oldest.bytes);
            let cut = is_wanted && others < bounds.bytes / 2;
            // Some room is left, so that the next entries do not have it cut again.
            let room = (bounds.bytes / 4 * 3).saturating_sub(others);
            let ended = if cut { self.cut(oldest, room).or_else(|_| self.remove(oldest)) } else { self.remove(oldest) };
            match ended {
                Ok(newest) => lost = newest,
                Err(error) => {
                    tracing::warn!("an old file of the activity could not be removed: {error}");
                    break;
                }
            }
        }
        lost
    }

    /// Removes the oldest file. Answers with its newest entry.
    fn remove(&mut self, oldest: Closed) -> io::Result<ActivityId> {
        match self.disk.remove(&path(&self.directory, oldest.first)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => _ = self.closed.remove(0),
        }
        Ok(oldest.last)
    }

    /// Leaves of the oldest file the newest entries that so many bytes have room for. Answers with the newest of those
    /// that are gone.
    fn cut(&mut self, oldest: Closed, room: u64) -> io::Result<ActivityId> {
        let old = path(&self.directory, oldest.first);
        let bytes = read_all(&mut self.disk.read(&old)?)?;
        let (mut at, mut begins) = (0, Vec::new());
        while let Read::Frame(frame, taken) = frame::decode(bytes.get(at..).unwrap_or_default()) {
            begins.push((ActivityId::from_u64(frame.number), at));
            at += taken;
        }
        // The name of a file is its first entry: another one has to be it.
        let gone = begins.partition_point(|(_, begin)| (at - begin) as u64 > room).max(1);
        let (Some((newest, _)), Some((first, begin))) = (begins.get(gone - 1), begins.get(gone)) else {
            return self.remove(oldest);
        };
        let kept = bytes.get(*begin..at).unwrap_or_default();
        let space = self.disk.space(&self.directory)?;
        if space.free < self.min_free.of(space.total).saturating_add(kept.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let new = path(&self.directory, *first);
        let written = self.disk.create(&new)?.write_all(kept).and_then(|()| self.disk.remove(&old));
        if let Err(error) = written {
            // Whether this can be done or not: nothing else is known of it.
            drop(self.disk.remove(&new));
            return Err(error);
        }
        if let Some(file) = self.closed.first_mut() {
            *file = Closed { first: *first, last: oldest.last, bytes: kept.len() as u64 };
        }
        Ok(*newest)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.closed.iter().chain(self.open.as_ref().map(|open| &open.closed)).map(|file| file.bytes).sum()
    }
}

fn path(directory: &Path, first: ActivityId) -> PathBuf {
    directory.join(format!("{:020}.entries", first.to_u64()))
}

fn first_of(path: &Path) -> Option<ActivityId> {
    let name = path.file_name()?.to_str()?.strip_suffix(".entries")?;
    name.parse().ok().map(ActivityId::from_u64)
}

/// Texts that many entries have are in memory once.
fn share_texts(entry: &mut Entry, known: &mut HashSet<Arc<str>>) {
    let mut share = |text: &mut Arc<str>| match known.get(text) {
        Some(shared) => *text = Arc::clone(shared),
        None => _ = known.insert(Arc::clone(text)),
    };
    share(&mut entry.integration);
    share(&mut entry.connection);
    share(&mut entry.origin);
    entry.endpoint.iter_mut().chain(&mut entry.error).chain(&mut entry.cache).for_each(&mut share);
    if let super::Asker::Caller(caller) = &mut entry.asker {
        share(caller);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::call;
    use super::*;
    use crate::store::disk::SystemDisk;
    use crate::store::disk::tests::OddDisk;

    const BOUNDS: Bounds = Bounds { bytes: 1 << 20, retain: Duration::from_hours(1) };

    fn open(directory: &Path, keep: usize) -> (Files, Vec<u64>) {
        let place = Place { store: directory.to_owned(), min_free: Reserve::Bytes(0), disk: Arc::new(SystemDisk) };
        let (files, entries) = Files::open(place, (keep, 0), Timestamp::default()).expect("a directory");
        (files, entries.iter().map(|entry| entry.id.to_u64()).collect())
    }

    fn entries(numbers: std::ops::Range<u64>) -> Vec<Arc<Entry>> {
        numbers.map(|number| Arc::new(Entry::of(ActivityId::from_u64(number), call(number)))).collect()
    }

    fn write(files: &mut Files, numbers: std::ops::Range<u64>) {
        files.write(&entries(numbers), (BOUNDS, Timestamp::default())).expect("written");
    }

    #[test]
    fn entries_are_there_after_another_start_and_a_torn_end_loses_only_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut files, found) = open(directory.path(), 100);
        assert!(found.is_empty());
        write(&mut files, 1..4);
        write(&mut files, 4..6);
        let first = path(&files.directory, ActivityId::from_u64(1));
        drop(files);
        let (mut files, found) = open(directory.path(), 100);
        assert_eq!(found, [1, 2, 3, 4, 5]);
        write(&mut files, 6..8);
        drop(files);
        let length = std::fs::metadata(&first).expect("a file").len();
        std::fs::OpenOptions::new().write(true).open(&first).expect("a file").set_len(length - 3).expect("cut");
        assert_eq!(open(directory.path(), 100).1, [1, 2, 3, 4, 6, 7]);
        assert_eq!(open(directory.path(), 3).1, [4, 6, 7]);
        assert_eq!(open(directory.path(), 0).1, [0; 0]);
    }

    #[test]
    fn files_are_removed_whole_by_bytes_and_by_what_is_wanted() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut files, _) = open(directory.path(), 0);
        let now = Timestamp::from_seconds(0);
        for begin in 0..6 {
            // Each batch is more than a file may have.
            write(&mut files, begin * 300 + 1..begin * 300 + 301);
        }
        assert_eq!((files.closed.len(), files.open.is_some()), (5, true));
        assert_eq!(files.tidy(ActivityId::from_u64(600), (BOUNDS, now)).to_u64(), 600);
        assert_eq!(files.closed.len(), 4, "the open file is full, and two are gone");
        let small = Bounds { bytes: files.bytes() - 1, ..BOUNDS };
        assert_eq!(files.tidy(ActivityId::default(), (small, now)).to_u64(), 900);
        assert_eq!(open(directory.path(), 10_000).1, (901..1_801).collect::<Vec<_>>());
    }

    #[test]
    fn fewer_bytes_leave_the_newest_entries_of_a_file_that_had_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut files, _) = open(directory.path(), 0);
        let (large, now) = (Bounds { bytes: 256 << 20, ..BOUNDS }, Timestamp::from_seconds(0));
        files.write(&entries(1..15_001), (large, now)).expect("written");
        assert!(files.open.is_some() && files.bytes() > 2 * BOUNDS.bytes, "{}", files.bytes());
        let lost = files.tidy(ActivityId::default(), (BOUNDS, now)).to_u64();
        let kept: Vec<u64> = (lost + 1..15_001).collect();
        assert!((BOUNDS.bytes / 2..BOUNDS.bytes).contains(&files.bytes()), "{}", files.bytes());
        assert_eq!(open(directory.path(), 10_000).1, kept);
        assert_eq!(files.tidy(ActivityId::default(), (BOUNDS, now)), ActivityId::default(), "and no more of it");
        write(&mut files, 15_001..15_101);
        assert_eq!(open(directory.path(), 10_000).1, (lost + 1..15_101).collect::<Vec<_>>());
        assert_eq!(files.tidy(ActivityId::from_u64(15_000), (BOUNDS, now)).to_u64(), 15_000, "it ends as others do");
        assert_eq!(open(directory.path(), 10_000).1, (15_001..15_101).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_is_there_before_and_after_it_was_cut_counts_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut files, _) = open(directory.path(), 0);
        write(&mut files, 1..10);
        let whole = path(&files.directory, ActivityId::from_u64(1));
        let before = std::fs::read(&whole).expect("a file");
        files.closed.extend(files.open.take().map(|open| open.closed));
        let lost = files.cut(files.closed[0], files.bytes() / 2).expect("cut").to_u64();
        std::fs::write(&whole, before).expect("written");
        assert_eq!(open(directory.path(), 100).1, (1..10).collect::<Vec<_>>());
        let (files, _) = open(directory.path(), 100);
        assert_eq!(files.closed.iter().map(|file| file.last.to_u64()).collect::<Vec<_>>(), [lost, 9]);
    }

    #[test]
    fn an_old_file_is_followed_by_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut files, _) = open(directory.path(), 0);
        write(&mut files, 1..2);
        files.tidy(ActivityId::from_u64(1), (BOUNDS, Timestamp::from_seconds(60)));
        assert_eq!(files.closed.len() + usize::from(files.open.is_some()), 1);
        files.tidy(ActivityId::from_u64(1), (BOUNDS, Timestamp::from_seconds(600)));
        assert_eq!((files.closed.len(), files.open.is_some(), files.bytes()), (0, false, 0));
    }

    #[test]
    fn nothing_is_written_on_a_disk_without_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut files, _) = open(directory.path(), 0);
        files.disk = Arc::new(OddDisk::with_free(100));
        let refused = files.write(&entries(1..2), (BOUNDS, Timestamp::default()));
        assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert!(open(directory.path(), 10).1.is_empty());
    }
}
