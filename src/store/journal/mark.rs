//! Where a journal begins and how far it is durable, kept outside its segments.
//!
//! Two slots are written in turn, so that a torn write leaves the other; the one with the higher count
//! is the newer. The durable number is written after the sync it speaks of and never runs ahead of it;
//! it may lag, which only means that a torn tail is told from damage a little later.
//!
//! Both slots are durable before the first segment is begun. One that is not whole later was torn by a power cut, or is
//! damaged, and nothing tells which: the other's number is then the least that was durable, and that is told. Only one
//! flipped bit is told by the checksum, and the slot read as it was written.

use std::io;
use std::path::{Path, PathBuf};

use super::frame::{u32_at, u64_at};
use crate::store::disk::{Disk, DiskFile, read_all};

/// Bytes from one slot to the next.
const STRIDE: usize = 64;
/// Bytes of a slot that its CRC32C covers.
const COVERED: usize = 32;
/// Bytes of a slot.
const SLOT: usize = COVERED + 4;
/// How often a mark is read in which a slot is not whole: a gateway may be writing it.
const TRIES: usize = 3;
/// What is told of a slot that is not whole.
pub const FLAW: &str = "one slot of the mark is not whole, so that entries which are missing at the journal's end may go unseen; the next start writes it anew";
const MAGIC: &[u8; 8] = b"TLMARK\0\x02";

/// What a mark says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first sequence number of the oldest segment that is kept; zero before there was any.
    pub first: u64,
    /// The last sequence number known to be durable.
    pub durable: u64,
}

/// The mark file of a journal, opened for writing.
pub struct Mark {
    file: Box<dyn DiskFile>,
    count: u64,
    bounds: Bounds,
}

/// Where the mark of the journal in `directory` is.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("mark")
}

impl Mark {
    /// Opens the mark of a journal, making the file where there is none.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(disk: &dyn Disk, directory: &Path) -> io::Result<Self> {
        let Told { count, bounds, .. } = newest(disk, directory)?.unwrap_or_default();
        let file = disk.update(&path(directory))?;
        Ok(Self { file, count, bounds })
    }

    /// Makes the mark of a journal that has none yet.
    pub fn begin(disk: &dyn Disk, directory: &Path) -> io::Result<Self> {
        Ok(Self { file: disk.update(&path(directory))?, count: 0, bounds: Bounds::default() })
    }

    /// What it says.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Writes what has become true, without making it durable.
    pub fn write(&mut self, bounds: Bounds) -> io::Result<()> {
        self.count += 1;
        let mut slot = [0_u8; SLOT];
        slot[..8].copy_from_slice(MAGIC);
        slot[8..16].copy_from_slice(&self.count.to_le_bytes());
        slot[16..24].copy_from_slice(&bounds.first.to_le_bytes());
        slot[24..32].copy_from_slice(&bounds.durable.to_le_bytes());
        let crc = crc32c::crc32c(&slot[..COVERED]);
        slot[COVERED..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(&slot, self.count % 2 * STRIDE as u64)?;
        self.bounds = bounds;
        Ok(())
    }

    /// Writes both slots and makes them durable, so that nothing older can be read again.
    pub fn settle(&mut self, bounds: Bounds) -> io::Result<()> {
        self.write(bounds)?;
        self.write(bounds)?;
        self.file.sync_data()
    }

    /// Makes what was written durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What the mark of a journal says; `None` where there is no mark yet.
///
/// # Errors
/// When the file cannot be read, or is not there or not whole although there are segments.
pub fn read(disk: &dyn Disk, directory: &Path) -> io::Result<Option<Bounds>> {
    Ok(newest(disk, directory)?.map(|told| told.bounds))
}

/// Where the slot of a mark stands that is not whole, where one is not and the other is: more may have been durable than
/// [`read`] tells.
pub fn flaw(disk: &dyn Disk, directory: &Path) -> Option<u64> {
    newest(disk, directory).ok().flatten()?.flaw
}

/// What both slots say.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    count: u64,
    bounds: Bounds,
    flaw: Option<u64>,
}

fn newest(disk: &dyn Disk, directory: &Path) -> io::Result<Option<Told>> {
    let mut found = None;
    for _ in 0..TRIES {
        let mut file = match disk.read(&path(directory)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return unborn(disk, directory, "is missing"),
            Err(error) => return Err(error),
        };
        found = told(&read_all(&mut file)?);
        if found.is_some_and(|told| told.flaw.is_none()) {
            return Ok(found);
        }
    }
    match found {
        // Until the first segment is begun it may be half written.
        Some(told) if super::segment::list(disk, directory)?.is_empty() => Ok(Some(Told { flaw: None, ..told })),
        Some(told) => Ok(Some(told)),
        None => unborn(disk, directory, "is not whole in either slot"),
    }
}

/// The mark is durable before the first segment is begun: only a journal without any may lack it.
fn unborn(disk: &dyn Disk, directory: &Path, how: &str) -> io::Result<Option<Told>> {
    if super::segment::list(disk, directory)?.is_empty() {
        return Ok(None);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the mark {how}")))
}

fn told(bytes: &[u8]) -> Option<Told> {
    let slots = [0, STRIDE].map(|at| (at, bytes.get(at..at + SLOT)));
    let is_flawed = |slot: Option<&[u8]>| slot.and_then(whole).is_none();
    let flaw = slots.iter().find(|(_, slot)| is_flawed(*slot)).map(|(at, _)| *at as u64);
    let said = slots.iter().filter_map(|(_, slot)| slot.and_then(|slot| whole(slot).or_else(|| mended(slot))));
    let (count, bounds) = said.max_by_key(|(count, _)| *count)?;
    Some(Told { count, bounds, flaw })
}

/// What a slot says that is as it was written.
fn whole(slot: &[u8]) -> Option<(u64, Bounds)> {
    let is_whole = slot.starts_with(MAGIC) && u32_at(slot, COVERED)? == crc32c::crc32c(slot.get(..COVERED)?);
    let bounds = Bounds { first: u64_at(slot, 16)?, durable: u64_at(slot, 24)? };
    is_whole.then(|| u64_at(slot, 8).map(|count| (count, bounds))).flatten()
}

/// What a slot said before one of its bits was flipped. Whatever is written into a slot is true by then, so it is true of
/// a write that was torn as well.
fn mended(slot: &[u8]) -> Option<(u64, Bounds)> {
    (0..slot.len()).find_map(|at| {
        (0..u8::BITS).find_map(|bit| {
            let mut tried = slot.to_vec();
            *tried.get_mut(at)? ^= 1 << bit;
            whole(&tried)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::SystemDisk;
    use crate::store::journal::salt::Salt;
    use crate::store::journal::segment;

    const OLDER: Bounds = Bounds { first: 1, durable: 21 };
    const NEWER: Bounds = Bounds { first: 1, durable: 25 };

    /// A journal with a segment, whose mark was written twice; the newer of the slots is at 64.
    fn marked() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mark = Mark::begin(&SystemDisk, directory.path()).expect("a mark");
        mark.settle(OLDER).expect("written");
        mark.write(NEWER).expect("written");
        segment::create(&SystemDisk, directory.path(), 1, Salt::NONE).expect("a segment");
        directory
    }

    fn change(directory: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path(directory)).expect("read");
        change(&mut bytes);
        std::fs::write(path(directory), bytes).expect("written");
    }

    fn told_of(directory: &Path) -> (Bounds, Option<u64>) {
        (read(&SystemDisk, directory).expect("reads").expect("is there"), flaw(&SystemDisk, directory))
    }

    #[test]
    fn a_slot_with_one_flipped_bit_is_told_and_says_what_it_said() {
        for (at, offset) in [(0, 0), (STRIDE, 64)] {
            for bit in 0..SLOT * 8 {
                let directory = marked();
                change(directory.path(), |bytes| bytes[at + bit / 8] ^= 1 << (bit % 8));
                assert_eq!(told_of(directory.path()), (NEWER, Some(offset)), "bit {bit} of the slot at {at}");
            }
        }
    }

    #[test]
    fn where_a_slot_is_torn_the_other_counts_and_it_is_told() {
        let cases: [(usize, usize, Bounds, u64); 4] =
            [(0, 20, NEWER, 0), (64, 20, OLDER, 64), (64 + 20, 16, OLDER, 64), (64, SLOT, OLDER, 64)];
        for (at, length, bounds, offset) in cases {
            let directory = marked();
            change(directory.path(), |bytes| bytes[at..at + length].fill(0x5e));
            assert_eq!(told_of(directory.path()), (bounds, Some(offset)), "{length} bytes at {at}");
        }
        let directory = marked();
        change(directory.path(), |bytes| bytes.truncate(70));
        assert_eq!(told_of(directory.path()), (OLDER, Some(64)), "cut off");
        change(directory.path(), Vec::clear);
        read(&SystemDisk, directory.path()).expect_err("neither is whole");
    }

    #[test]
    fn a_mark_that_is_opened_is_whole_again() {
        let directory = marked();
        assert_eq!(told_of(directory.path()), (NEWER, None));
        change(directory.path(), |bytes| bytes[64 + 9..64 + 30].fill(0));
        let mut mark = Mark::open(&SystemDisk, directory.path()).expect("opens");
        assert_eq!(mark.bounds(), OLDER);
        mark.settle(NEWER).expect("written");
        assert_eq!(told_of(directory.path()), (NEWER, None));
    }
}
