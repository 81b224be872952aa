//! Where a journal begins and how far it is durable, kept outside its segments.
//!
//! Two slots are written in turn, so that a torn write leaves the other; the one with the higher count
//! is the newer. The durable number is written after the sync it speaks of and never runs ahead of it;
//! it may lag, which only means that a torn tail is told from damage a little later.

use std::io;
use std::path::{Path, PathBuf};

use super::frame::{u32_at, u64_at};
use crate::store::disk::{Disk, DiskFile, read_all};

/// Bytes from one slot to the next.
const STRIDE: usize = 64;
/// Bytes of a slot that its CRC32C covers.
const COVERED: usize = 32;
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
        let (count, bounds) = newest(disk, directory)?.unwrap_or_default();
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
        let mut slot = [0_u8; COVERED + 4];
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
    Ok(newest(disk, directory)?.map(|(_, bounds)| bounds))
}

fn newest(disk: &dyn Disk, directory: &Path) -> io::Result<Option<(u64, Bounds)>> {
    let mut file = match disk.read(&path(directory)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return unborn(disk, directory, "is missing"),
        Err(error) => return Err(error),
    };
    let bytes = read_all(&mut file)?;
    let slots = bytes.chunks(STRIDE).filter_map(slot);
    match slots.max_by_key(|(count, _)| *count) {
        Some(newest) => Ok(Some(newest)),
        None => unborn(disk, directory, "is not whole in either slot"),
    }
}

/// The mark is durable before the first segment is begun: only a journal without any may lack it.
fn unborn(disk: &dyn Disk, directory: &Path, how: &str) -> io::Result<Option<(u64, Bounds)>> {
    if super::segment::list(disk, directory)?.is_empty() {
        return Ok(None);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the mark {how}")))
}

fn slot(bytes: &[u8]) -> Option<(u64, Bounds)> {
    let whole = bytes.starts_with(MAGIC) && u32_at(bytes, COVERED)? == crc32c::crc32c(bytes.get(..COVERED)?);
    let bounds = Bounds { first: u64_at(bytes, 16)?, durable: u64_at(bytes, 24)? };
    whole.then(|| u64_at(bytes, 8).map(|count| (count, bounds))).flatten()
}
