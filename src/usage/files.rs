//! The files of the tallies: `usage/` in the store's directory, one a day (UTC), frames as the journal's, one a slot.
//!
//! Each minute is put at the end of its day's file. A file that could not be written to its end, or ends in the middle
//! of a frame, is written anew from memory, and so is that of a day whose minutes are put together. Nothing here is
//! synced: it is what the activity's files are. Called by [`super`].

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::slot::Slot;
use crate::base::units::Reserve;
use crate::store::disk::{Disk, make_directory, read_all};
use crate::store::journal::frame::{self, Read};

/// Minutes of a day.
pub const DAY: u32 = 24 * 60;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Place {
    /// The store's directory.
    pub store: PathBuf,
    /// Nothing is written when the file system has less than this free.
    pub min_free: Reserve,
    /// The file system.
    pub disk: Arc<dyn Disk>,
}

/// A day's file.
#[derive(Debug, Clone, Copy, Default)]
struct Day {
    bytes: u64,
    /// It has to be written anew, because what it has at its end cannot be read.
    torn: bool,
    /// Its minutes have been put together.
    settled: bool,
}

/// All files.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    min_free: Reserve,
    disk: Arc<dyn Disk>,
    days: BTreeMap<u32, Day>,
}

impl Files {
    /// Those that are there, with what is in them.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(place: Place) -> io::Result<(Self, Vec<(u32, Slot)>)> {
        let directory = place.store.join("usage");
        make_directory(&directory)?;
        let mut files = Self { directory, min_free: place.min_free, disk: place.disk, days: BTreeMap::new() };
        let (mut slots, mut known) = (Vec::new(), HashSet::new());
        for path in files.disk.list(&files.directory)? {
            let Some(number) = day_of(&path) else { continue };
            let bytes = read_all(&mut files.disk.read(&path)?)?;
            let (mut at, before) = (0, slots.len());
            while let Read::Frame(frame, taken) = frame::decode(bytes.get(at..).unwrap_or_default()) {
                at += taken;
                match Slot::decode(frame.payload, &mut known) {
                    Ok(slot) => slots.push(slot),
                    Err(error) => tracing::warn!("a tally of `{}` is not understood: {error}", path.display()),
                }
            }
            let settled = slots.get(before..).unwrap_or_default().iter().all(|(_, slot)| slot.width > 1);
            files.days.insert(number, Day { bytes: bytes.len() as u64, torn: at < bytes.len(), settled });
        }
        Ok((files, slots))
    }

    /// Writes slots at the end of their days' files.
    ///
    /// # Errors
    /// When it cannot be done; then the file is written anew the next time.
    pub fn append(&mut self, slots: &[(u32, Slot)]) -> io::Result<()> {
        let mut texts: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (minute, slot) in slots {
            frame::encode(u64::from(*minute), &slot.encode(*minute)?, texts.entry(minute / DAY).or_default());
        }
        let mut ended = Ok(());
        for (number, bytes) in texts {
            if let Err(error) = self.append_to(number, &bytes) {
                self.days.entry(number).or_default().torn = true;
                ended = Err(error);
            }
        }
        ended
    }

    fn append_to(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
        self.has_room(bytes.len())?;
        let path = path(&self.directory, number);
        let mut file = match self.disk.append(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(&path)?,
            opened => opened?,
        };
        file.write_all(bytes)?;
        let day = self.days.entry(number).or_default();
        day.bytes += bytes.len() as u64;
        day.settled = false;
        Ok(())
    }

    /// Days whose files have to be written anew: torn ones, and those before `settled` whose minutes were put together
    /// in memory and not yet in their file.
    pub fn stale(&self, settled: u32) -> Vec<u32> {
        let stale = |(number, day): &(&u32, &Day)| day.torn || (**number < settled && !day.settled);
        self.days.iter().filter(stale).map(|(number, _)| *number).collect()
    }

    /// Writes a day's file anew.
    ///
    /// # Errors
    /// When it cannot be done; then the old one is there as it was.
    pub fn rewrite(&mut self, number: u32, slots: &[(u32, Arc<Slot>)]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (minute, slot) in slots {
            frame::encode(u64::from(*minute), &slot.encode(*minute)?, &mut bytes);
        }
        self.has_room(bytes.len())?;
        let (path, draft) = (path(&self.directory, number), self.directory.join("draft"));
        self.remove(&draft)?;
        self.disk.create(&draft)?.write_all(&bytes)?;
        self.disk.rename(&draft, &path)?;
        let settled = slots.iter().all(|(_, slot)| slot.width > 1);
        self.days.insert(number, Day { bytes: bytes.len() as u64, torn: false, settled });
        Ok(())
    }

    /// Removes the files of days before `first`, and the oldest while all have more than `most` bytes. Returns how many
    /// were removed for their bytes.
    pub fn tidy(&mut self, first: u32, most: u64) -> u64 {
        let mut cut = 0;
        while let Some((&number, _)) = self.days.first_key_value() {
            let too_much = self.bytes() > most && self.days.len() > 1;
            if number >= first && !too_much {
                break;
            }
            if let Err(error) = self.remove(&path(&self.directory, number)) {
                tracing::warn!("an old file of the usage could not be removed: {error}");
                break;
            }
            self.days.remove(&number);
            cut += u64::from(number >= first);
        }
        cut
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.days.values().map(|day| day.bytes).sum()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The journals have what is left to themselves.
    fn has_room(&self, bytes: usize) -> io::Result<()> {
        let space = self.disk.space(&self.directory)?;
        if space.free < self.min_free.of(space.total).saturating_add(bytes as u64) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk has too little room left"));
        }
        Ok(())
    }
}

fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:06}.tallies"))
}

fn day_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_suffix(".tallies")?.parse().ok()
}
