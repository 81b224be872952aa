//! Segments: files named by their first sequence number, a header and frames.
//!
//! A header tells the segment before it and how long that one is, so that a file that is missing or
//! was cut short is found without reading all of them.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{self, Read};
use super::mark::Bounds;
use super::salt::Salt;
use super::{Pointer, mark, salvage};
use crate::store::StoreError;
use crate::store::disk::{Disk, DiskFile, read_all, read_exact_at};

/// Bytes before the first frame: magic, own first sequence number, the previous segment's first
/// sequence number and length (zeros where there was none), the salt, CRC32C of all.
pub(super) const HEADER: usize = 44;
const MAGIC: &[u8; 8] = b"TLJRNL\0\x03";
/// The same of store formats before 5: without a salt.
const OLD_HEADER: usize = 36;
const OLD_MAGIC: &[u8; 8] = b"TLJRNL\0\x02";
const HELP: &str = "run `trunkline store check` to see what is left, and restore a backup if facts are missing";

/// The segment before another, as that one's header tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Its first sequence number.
    pub first: u64,
    /// Its length.
    pub bytes: u64,
}

/// The file of the segment that begins with a sequence number.
pub fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.journal"))
}

/// The sequence numbers that a segment may begin with. No journal gets as far as the half of them.
const NUMBERS: Range<u64> = 1..u64::MAX / 2;

/// The first sequence number that a file name tells.
fn first_of(path: &Path) -> Option<u64> {
    let number = path.file_name()?.to_str()?.strip_suffix(".journal").filter(|name| name.len() == 20)?;
    let first = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten();
    first.filter(|first| NUMBERS.contains(first))
}

/// The segments of a journal by first sequence number, oldest first.
pub fn list(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<u64>> {
    let mut found: Vec<u64> = disk.list(directory)?.iter().filter_map(|path| first_of(path)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Begins a segment: the file, its header, and its entry in the directory, all durable.
pub fn create(disk: &dyn Disk, directory: &Path, first: u64, salt: Salt) -> io::Result<Box<dyn DiskFile>> {
    let previous = match list(disk, directory)?.into_iter().rfind(|other| *other < first) {
        Some(previous) => Link { first: previous, bytes: disk.read(&path(directory, previous))?.metadata()?.len() },
        None => Link::default(),
    };
    let mut file = disk.create(&path(directory, first))?;
    file.write_all(&header(first, previous, salt))?;
    file.sync_data()?;
    disk.sync_directory(directory)?;
    Ok(file)
}

/// The header of a segment that follows one of this first sequence number and length.
pub fn header_after(first: u64, previous: Option<(u64, u64)>, salt: Salt) -> Vec<u8> {
    header(first, previous.map_or_else(Link::default, |(first, bytes)| Link { first, bytes }), salt)
}

/// How long the header of a segment is.
pub fn header_length(salt: Salt) -> usize {
    if salt == Salt::NONE { OLD_HEADER } else { HEADER }
}

fn header(first: u64, previous: Link, salt: Salt) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(if salt == Salt::NONE { OLD_MAGIC } else { MAGIC });
    let numbers = [first, previous.first, previous.bytes].into_iter();
    for number in numbers.chain((salt != Salt::NONE).then(|| salt.stored())) {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}

/// The first sequence number, the link and the salt in a header that is whole.
pub fn header_of(bytes: &[u8]) -> Option<(u64, Link, Salt)> {
    let salt = match bytes.get(..MAGIC.len())? {
        magic if magic == MAGIC => Salt::from_stored(frame::u64_at(bytes, 32)?),
        magic if magic == OLD_MAGIC => Salt::NONE,
        _ => return None,
    };
    let covered = bytes.get(..header_length(salt) - 4)?;
    let whole = frame::u32_at(bytes, covered.len()) == Some(crc32c::crc32c(covered));
    let link = Link { first: frame::u64_at(bytes, 16)?, bytes: frame::u64_at(bytes, 24)? };
    let first = frame::u64_at(bytes, 8).filter(|first| NUMBERS.contains(first))?;
    whole.then_some((first, link, salt))
}

/// The link and the salt in a header that is whole and belongs to this segment.
fn read_header(bytes: &[u8], first: u64) -> Option<(Link, Salt)> {
    header_of(bytes).filter(|(own, ..)| *own == first).map(|(_, link, salt)| (link, salt))
}

/// The salt that the header of a segment tells, where it is whole.
pub fn salt_of(bytes: &[u8], first: u64) -> Option<Salt> {
    read_header(bytes, first).map(|(_, salt)| salt)
}

/// The same of a file.
pub fn salt_in(disk: &dyn Disk, directory: &Path, first: u64) -> Option<Salt> {
    salt_of(&read_head(disk, &path(directory, first)).ok()?, first)
}

fn read_head(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.read(path)?;
    let length = usize::try_from(file.metadata()?.len()).map_or(HEADER, |length| length.min(HEADER));
    read_exact_at(&file, 0, length)
}

/// What a walk over a journal found at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct End {
    /// The last whole frame's sequence number; zero when there is none.
    pub sequence: u64,
    /// The newest segment, where there is one.
    pub segment: Option<u64>,
    /// Where its last whole frame ends; zero when its header is not whole.
    pub offset: u64,
    /// Bytes after that which are no whole frame: the torn tail of a crash.
    pub torn: u64,
    /// Whole frames within those bytes. A power cut leaves such of what was written and not synced; where the mark is right,
    /// none was acknowledged.
    pub beyond: u64,
}

/// What is called with each frame: its sequence number, its place and its payload. A break ends the
/// walk early, and then the rest is not checked.
pub type Visit<'a> = &'a mut dyn FnMut(u64, Pointer, &[u8]) -> Result<ControlFlow<()>, StoreError>;

/// Walks over every frame from sequence number `from`, oldest first, and checks all it passes. Of the
/// segments before `from` it is checked that they are there and as long as they were.
///
/// # Errors
/// [`StoreError::Damaged`] when a frame before the mark is not whole, a number is missing, or a
/// segment is missing or torn in the middle; [`StoreError::Read`] when reading fails; what `visit`
/// answers.
pub fn walk(disk: &dyn Disk, directory: &Path, from: u64, visit: Visit<'_>) -> Result<End, StoreError> {
    let bounds = mark::read(disk, directory)
        .map_err(|error| damaged(&error.to_string(), &mark::path(directory), 0))?
        .unwrap_or_default();
    walk_within(disk, directory, bounds, from, visit)
}

/// As [`walk`], with bounds that the mark does not tell.
pub fn walk_within(
    disk: &dyn Disk,
    directory: &Path,
    bounds: Bounds,
    from: u64,
    visit: Visit<'_>,
) -> Result<End, StoreError> {
    let segments = chained(disk, directory, bounds)?;
    let mut end = End { sequence: bounds.first.saturating_sub(1), ..End::default() };
    for (place, &first) in segments.iter().enumerate() {
        let following = segments.get(place + 1).copied();
        if let Some(following) = following.filter(|following| *following <= from) {
            end = End { sequence: following - 1, segment: Some(first), ..End::default() };
            continue;
        }
        match (Segment { disk, directory, first, following, durable: bounds.durable, from }).walk(visit)? {
            ControlFlow::Continue(reached) => end = reached,
            ControlFlow::Break(reached) => return Ok(reached),
        }
    }
    if end.sequence < bounds.durable {
        let what = format!("it ends with sequence {}, but {} was acknowledged", end.sequence, bounds.durable);
        return Err(damaged(&what, directory, end.offset));
    }
    Ok(end)
}

/// The segments that are kept, after checking that none is missing and that all but the newest are as
/// long as the next one says.
fn chained(disk: &dyn Disk, directory: &Path, bounds: Bounds) -> Result<Vec<u64>, StoreError> {
    let failed = |error: io::Error| StoreError::Read(Arc::from(format!("{}: {error}", directory.display())));
    let mut segments = list(disk, directory).map_err(failed)?;
    // What is before the bounds was being removed when the process ended.
    segments.retain(|first| *first >= bounds.first);
    if segments.first().is_some_and(|first| bounds.first > 0 && *first != bounds.first)
        || (segments.is_empty() && bounds.durable >= bounds.first.max(1))
    {
        return Err(damaged("its oldest segment is missing", &path(directory, bounds.first), 0));
    }
    for pair in segments.windows(2) {
        let &[previous, first] = pair else { continue };
        let (own, before) = (path(directory, first), path(directory, previous));
        let Some((link, _)) = read_head(disk, &own).ok().and_then(|head| read_header(&head, first)) else {
            let bytes = disk.read(&own).and_then(|file| file.metadata()).map_err(failed)?.len();
            if segments.last() == Some(&first) && bounds.durable < first && was_being_begun(bytes) {
                continue;
            }
            return Err(damaged("its header is not whole", &own, 0));
        };
        let bytes = disk.read(&before).and_then(|file| file.metadata()).map_err(failed)?.len();
        if link.first != previous {
            return Err(damaged("the segment is missing", &path(directory, link.first), 0));
        }
        if link.bytes != bytes {
            return Err(damaged(&format!("it has {bytes} bytes instead of {}", link.bytes), &before, bytes));
        }
    }
    Ok(segments)
}

/// Whether a segment of this length, whose header is not whole, is one that a crash left which was being begun. Nothing is
/// written behind a header before that is synced: in a longer one it was whole.
fn was_being_begun(length: u64) -> bool {
    length <= HEADER as u64
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
    fn walk(&self, visit: Visit<'_>) -> Result<ControlFlow<End, End>, StoreError> {
        let before = End { sequence: self.first - 1, segment: Some(self.first), ..End::default() };
        let path = path(self.directory, self.first);
        let bytes = self
            .disk
            .read(&path)
            .and_then(|mut file| read_all(&mut file))
            .map_err(|error| StoreError::Read(Arc::from(format!("{}: {error}", path.display()))))?;
        let Some(salt) = salt_of(&bytes, self.first) else {
            let length = bytes.len() as u64;
            if self.following.is_none() && self.durable < self.first && was_being_begun(length) {
                return Ok(ControlFlow::Continue(End { torn: length, ..before }));
            }
            return Err(damaged("its header is not whole", &path, 0));
        };
        let mut at = header_length(salt);
        let mut end = End { offset: at as u64, ..before };
        loop {
            match frame::decode(bytes.get(at..).unwrap_or_default()) {
                Read::End => return self.complete(end).map(ControlFlow::Continue),
                Read::Frame(frame, taken) if salt.show(frame.number) == end.sequence + 1 => {
                    let length = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
                    let pointer = Pointer { segment: self.first, offset: at as u64, length };
                    at += taken;
                    end = End { sequence: end.sequence + 1, offset: at as u64, ..end };
                    if end.sequence >= self.from && visit(end.sequence, pointer, frame.payload)?.is_break() {
                        return Ok(ControlFlow::Break(end));
                    }
                }
                Read::Frame(..) => return Err(damaged("a frame has the wrong sequence number", &path, at as u64)),
                Read::Bad(what) if self.following.is_some() || end.sequence < self.durable => {
                    return Err(damaged(what, &path, at as u64));
                }
                Read::Bad(_) => {
                    let torn = (bytes.len() - at) as u64;
                    let beyond = salvage::whole_behind(&bytes, at, end.sequence + 1, salt);
                    return Ok(ControlFlow::Continue(End { torn, beyond, ..end }));
                }
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

/// What a check of a journal found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is wrong.
    pub problems: Vec<StoreError>,
    /// What is worth knowing and nothing wrong.
    pub notes: Vec<String>,
}

/// Checks each segment by itself, and that none is missing, so that all damage is told at once.
pub fn check(disk: &dyn Disk, directory: &Path, visit: Visit<'_>) -> Checked {
    let mut found = Checked::default();
    let bounds = mark::read(disk, directory).unwrap_or_else(|error| {
        found.problems.push(damaged(&error.to_string(), &mark::path(directory), 0));
        None
    });
    let bounds = bounds.unwrap_or_default();
    let flaw = mark::flaw(disk, directory);
    found.problems.extend(flaw.map(|offset| damaged(mark::FLAW, &mark::path(directory), offset)));
    found.problems.extend(chained(disk, directory, bounds).err());
    let segments = match list(disk, directory) {
        Ok(segments) => segments,
        Err(error) => {
            found.problems.push(StoreError::Read(Arc::from(format!("{}: {error}", directory.display()))));
            return found;
        }
    };
    let mut last = 0;
    for (place, &first) in segments.iter().enumerate() {
        let following = segments.get(place + 1).copied();
        match (Segment { disk, directory, first, following, durable: bounds.durable, from: 0 }).walk(visit) {
            Ok(ControlFlow::Continue(end) | ControlFlow::Break(end)) => {
                last = end.sequence;
                match beyond(end, &path(directory, first)) {
                    Some(hole) if flaw.is_some() => found.problems.push(hole),
                    Some(_) => found.notes.push(format!(
                        "{} holds {} whole entries behind one at byte {} that is not, as a power cut leaves them: the next \
                         start cuts them off; none was acknowledged, as far as the mark tells",
                        path(directory, first).display(),
                        end.beyond,
                        end.offset
                    )),
                    None => {}
                }
            }
            Err(error) => {
                found.problems.push(error);
                last = following.map_or(u64::MAX, |following| following - 1);
            }
        }
    }
    if last < bounds.durable {
        let what = format!("it ends with sequence {last}, but {} was acknowledged", bounds.durable);
        found.problems.push(damaged(&what, directory, 0));
    }
    found
}

/// What is wrong with an end behind which whole entries stand, where any do.
pub fn beyond(end: End, path: &Path) -> Option<StoreError> {
    let what = || format!("an entry is not whole, and {} behind it are", end.beyond);
    (end.beyond > 0).then(|| damaged(&what(), path, end.offset))
}

/// The error for a place in a file that is not what was written.
pub fn damaged(what: &str, path: &Path, offset: u64) -> StoreError {
    StoreError::Damaged {
        what: what.to_owned(),
        place: format!("{} at byte {offset}", path.display()),
        help: HELP.to_owned(),
    }
}
