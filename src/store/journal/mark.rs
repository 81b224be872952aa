//! The durable sequence number, kept outside the journal.
//!
//! Two slots of 32 bytes are written in turn, so that a torn write leaves the other. The mark is
//! written after the sync it speaks of and never runs ahead of it; it may lag, which only means that a
//! torn tail is told from damage a little later.

use std::io;
use std::path::{Path, PathBuf};

use super::frame::{u32_at, u64_at};
use crate::store::disk::{Disk, DiskFile, read_all};

const SLOT: u64 = 32;
const MAGIC: &[u8; 8] = b"TLMARK\0\x01";

/// The mark file of a journal, opened for writing.
pub struct Mark {
    file: Box<dyn DiskFile>,
    turn: u64,
}

/// Where the mark of the journal in `directory` is.
pub fn path(directory: &Path) -> PathBuf {
    directory.join("mark")
}

impl Mark {
    /// Opens the mark of a journal, making the file where there is none.
    pub fn open(disk: &dyn Disk, directory: &Path) -> io::Result<Self> {
        Ok(Self { file: disk.update(&path(directory))?, turn: 0 })
    }

    /// Writes a sequence number that has become durable.
    pub fn write(&mut self, sequence: u64) -> io::Result<()> {
        let mut slot = [0_u8; 32];
        slot[..8].copy_from_slice(MAGIC);
        slot[8..16].copy_from_slice(&sequence.to_le_bytes());
        let crc = crc32c::crc32c(&slot[..16]);
        slot[16..20].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(&slot, self.turn * SLOT)?;
        self.turn ^= 1;
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The greatest sequence number that the mark of a journal tells; `None` where there is no mark file.
///
/// # Errors
/// When the file cannot be read, or is there and neither slot is whole.
pub fn read(disk: &dyn Disk, directory: &Path) -> io::Result<Option<u64>> {
    let mut file = match disk.read(&path(directory)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = read_all(&mut file)?;
    let slots = bytes.chunks(32).filter_map(slot);
    match slots.max() {
        Some(sequence) => Ok(Some(sequence)),
        None if bytes.is_empty() => Ok(None),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "neither slot of the mark is whole")),
    }
}

fn slot(bytes: &[u8]) -> Option<u64> {
    let whole = bytes.starts_with(MAGIC) && u32_at(bytes, 16)? == crc32c::crc32c(bytes.get(..16)?);
    whole.then(|| u64_at(bytes, 8)).flatten()
}
