//! The files of the activity: `activity/` in the store's directory, frames as the journal's, one an entry.
//!
//! Nothing here is synced: what is written survives a kill of the process, and after a power cut what the system had
//! not yet written is missing. A file that ends in the middle of a frame ends there. Files are removed whole: the
//! oldest first when there are too many bytes, and each once nothing in it is wanted any more. A file that cannot be
//! written is left, and another begun. Called by [`super::write`] and at the start.

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
        for &first in firsts.iter().rev() {
            let (bytes, found) = files.read(first)?;
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

    /// Removes the files in which nothing is after `gone`, and the oldest while there are too many bytes. Returns the
    /// newest entry that is in no file any more.
    pub fn tidy(&mut self, gone: ActivityId, (bounds, now): (Bounds, Timestamp)) -> ActivityId {
        self.roll(bounds, now);
        let mut lost = ActivityId::default();
        while let Some(oldest) = self.closed.first().copied() {
            if oldest.last > gone && self.bytes() <= bounds.bytes {
                break;
            }
            if let Err(error) = self.disk.remove(&path(&self.directory, oldest.first))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("an old file of the activity could not be removed: {error}");
                break;
            }
            self.closed.remove(0);
            lost = oldest.last;
        }
        lost
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
    fn an_old_file_is_followed_by_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut files, _) = open(directory.path(), 0);
        write(&mut files, 1..2);
        files.tidy(ActivityId::from_u64(1), (BOUNDS, Timestamp::from_seconds(60)));
        assert_eq!(files.closed.len() + usize::from(files.open.is_some()), 1);
        files.tidy(ActivityId::from_u64(1), (BOUNDS, Timestamp::from_seconds(600)));
        assert_eq!((files.closed.len(), files.open.is_some(), files.bytes()), (0, false, 0));
    }

    #[derive(Debug)]
    struct NoRoom;

    impl Disk for NoRoom {
        fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            SystemDisk.create(path)
        }
        fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            SystemDisk.append(path)
        }
        fn update(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            SystemDisk.update(path)
        }
        fn read(&self, path: &Path) -> io::Result<std::fs::File> {
            SystemDisk.read(path)
        }
        fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
            SystemDisk.list(directory)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            SystemDisk.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            SystemDisk.remove(path)
        }
        fn sync_directory(&self, directory: &Path) -> io::Result<()> {
            SystemDisk.sync_directory(directory)
        }
        fn space(&self, _: &Path) -> io::Result<crate::store::disk::Space> {
            Ok(crate::store::disk::Space { free: 100, total: 1_000_000 })
        }
    }

    #[test]
    fn nothing_is_written_on_a_disk_without_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut files, _) = open(directory.path(), 0);
        files.disk = Arc::new(NoRoom);
        let refused = files.write(&entries(1..2), (BOUNDS, Timestamp::default()));
        assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert!(open(directory.path(), 10).1.is_empty());
    }
}
