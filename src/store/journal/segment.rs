//! Segments: files named by their first sequence number, a header and frames.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Read};
use super::{Pointer, mark};
use crate::store::StoreError;
use crate::store::disk::{Disk, DiskFile, read_all, read_exact_at};

/// Bytes before the first frame: magic, first sequence number, CRC32C of both.
pub const HEADER: u64 = 20;

const MAGIC: &[u8; 8] = b"TLJRNL\0\x01";
const HELP: &str = "run `trunkline store check` to see what is left, and restore a backup if facts are missing";

/// The file of the segment that begins with a sequence number.
pub fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.journal"))
}

/// The first sequence number that a file name tells.
fn first_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".journal").filter(|name| name.len() == 20)?.parse().ok()
}

/// The segments of a journal by first sequence number, oldest first.
pub fn list(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<u64>> {
    let mut found: Vec<u64> = disk.list(directory)?.iter().filter_map(|path| first_of(path)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Begins a segment: the file, its header, and its entry in the directory, all durable.
pub fn create(disk: &dyn Disk, directory: &Path, first: u64) -> io::Result<Box<dyn DiskFile>> {
    let mut file = disk.create(&path(directory, first))?;
    let mut header = Vec::with_capacity(20);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&first.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    file.write_all(&header)?;
    file.sync_data()?;
    disk.sync_directory(directory)?;
    Ok(file)
}

/// What a walk over a journal found at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The last whole frame's sequence number; zero when there is none.
    pub sequence: u64,
    /// The newest segment, where there is one.
    pub segment: Option<u64>,
    /// Where its last whole frame ends.
    pub offset: u64,
    /// Bytes after that which are no whole frame: the torn tail of a crash.
    pub torn: u64,
}

/// Is told each frame: sequence number, place, payload. Its error ends the walk.
pub type Visit<'a> = dyn FnMut(u64, Pointer, &[u8]) -> Result<(), StoreError> + 'a;

/// Walks over every frame from sequence number `from`, oldest first, and checks all it passes.
///
/// # Errors
/// [`StoreError::Damaged`] when a frame before the mark is not whole, a number is missing, or a
/// segment in the middle is torn; [`StoreError::Read`] when reading fails; what `visit` answers.
pub fn walk(disk: &dyn Disk, directory: &Path, from: u64, visit: &mut Visit<'_>) -> Result<End, StoreError> {
    let read_failed = |error: io::Error| StoreError::Read(Arc::from(format!("{}: {error}", directory.display())));
    let segments = list(disk, directory).map_err(read_failed)?;
    let durable =
        mark::read(disk, directory).map_err(|error| damaged(&error.to_string(), &mark::path(directory), 0))?;
    let mut end = End { sequence: 0, segment: None, offset: 0, torn: 0 };
    for (place, &first) in segments.iter().enumerate() {
        let following = segments.get(place + 1).copied();
        if end.segment.is_some() && first != end.sequence + 1 {
            let what = format!("sequence {} is missing before this segment", end.sequence + 1);
            return Err(damaged(&what, &path(directory, first), 0));
        }
        end = Segment { disk, directory, first, following, durable: durable.unwrap_or(0), from }.walk(visit)?;
    }
    if end.sequence < durable.unwrap_or(0) {
        let what = format!("it ends with sequence {}, but {} was acknowledged", end.sequence, durable.unwrap_or(0));
        return Err(damaged(&what, directory, end.offset));
    }
    Ok(end)
}

struct Segment<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    first: u64,
    following: Option<u64>,
    durable: u64,
    from: u64,
}

impl Segment<'_> {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<End, StoreError> {
        let before = End { sequence: self.first - 1, segment: Some(self.first), offset: HEADER, torn: 0 };
        if let Some(following) = self.following.filter(|following| *following <= self.from) {
            return Ok(End { sequence: following - 1, ..before });
        }
        let path = path(self.directory, self.first);
        let bytes = self
            .disk
            .read(&path)
            .and_then(|mut file| read_all(&mut file))
            .map_err(|error| StoreError::Read(Arc::from(format!("{}: {error}", path.display()))))?;
        if !header_is_whole(&bytes, self.first) {
            // A crash between creating the file and syncing its header leaves nothing acknowledged in it.
            let fresh = self.following.is_none() && self.durable < self.first && bytes.len() <= 20;
            return if fresh {
                Ok(End { offset: 0, torn: bytes.len() as u64, ..before })
            } else {
                Err(damaged("its header is not whole", &path, 0))
            };
        }
        let (mut at, mut end) = (20_usize, before);
        loop {
            match frame::decode(bytes.get(at..).unwrap_or_default()) {
                Read::End => return self.complete(end),
                Read::Frame(frame, taken) if frame.sequence == end.sequence + 1 => {
                    let length = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
                    let pointer = Pointer { segment: self.first, offset: at as u64, length };
                    if frame.sequence >= self.from {
                        visit(frame.sequence, pointer, frame.payload)?;
                    }
                    at += taken;
                    end = End { sequence: frame.sequence, offset: at as u64, ..end };
                }
                Read::Frame(..) => return Err(damaged("a frame has the wrong sequence number", &path, at as u64)),
                Read::Bad(what) if self.following.is_some() || end.sequence < self.durable => {
                    return Err(damaged(what, &path, at as u64));
                }
                Read::Bad(_) => return Ok(End { torn: (bytes.len() - at) as u64, ..end }),
            }
        }
    }

    fn complete(&self, end: End) -> Result<End, StoreError> {
        match self.following {
            Some(following) if following != end.sequence + 1 => {
                let what =
                    format!("it ends with sequence {}, but the next segment begins with {following}", end.sequence);
                Err(damaged(&what, &path(self.directory, self.first), end.offset))
            }
            _ => Ok(end),
        }
    }
}

fn header_is_whole(bytes: &[u8], first: u64) -> bool {
    let crc = bytes.get(..16).map(crc32c::crc32c);
    bytes.starts_with(MAGIC) && frame::u64_at(bytes, 8) == Some(first) && frame::u32_at(bytes, 16) == crc
}

/// Reads one payload back and checks it.
///
/// # Errors
/// [`StoreError::Damaged`] when what stands there is not the frame that was written.
pub fn payload(file: &File, directory: &Path, pointer: Pointer) -> Result<Vec<u8>, StoreError> {
    let path = path(directory, pointer.segment);
    let bytes = read_exact_at(file, pointer.offset, frame::HEADER + pointer.length as usize)
        .map_err(|error| damaged(&error.to_string(), &path, pointer.offset))?;
    match frame::decode(&bytes) {
        Read::Frame(frame, _) if frame.payload.len() == pointer.length as usize => {
            let mut bytes = bytes;
            bytes.drain(..frame::HEADER);
            Ok(bytes)
        }
        Read::Frame(..) | Read::End => Err(damaged("another frame stands there", &path, pointer.offset)),
        Read::Bad(what) => Err(damaged(what, &path, pointer.offset)),
    }
}

/// The error for a place in a file that is not what was written.
pub fn damaged(what: &str, path: &Path, offset: u64) -> StoreError {
    StoreError::Damaged {
        what: what.to_owned(),
        place: format!("{} at byte {offset}", path.display()),
        help: HELP.to_owned(),
    }
}
