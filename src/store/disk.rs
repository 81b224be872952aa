//! Every file system call of the store, behind a seam, so that tests can make each of them fail.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The file system as the store uses it.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates a file that must not exist, for writing at its end.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for writing at its end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens or creates a file for writing at places.
    fn update(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading.
    fn read(&self, path: &Path) -> io::Result<File>;
    /// Names of the files in a directory, in no order.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// Replaces `to` by `from`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Free and total bytes of the file system that holds a path, as an unprivileged process sees it.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// A file opened for writing.
pub trait DiskFile: Send {
    /// Writes all bytes at the end.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Writes all bytes at a place.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the content durable.
    fn sync_data(&mut self) -> io::Result<()>;
    /// Cuts the file to a length.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes free.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The machine's file system.
#[derive(Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().create_new(true).append(true).mode(FILE).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn update(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().create(true).truncate(false).write(true).mode(FILE).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<File> {
        // To open a pipe waits for somebody to write into it.
        if fs::metadata(path)?.is_file() { File::open(path) } else { Err(io::Error::other("it is no file")) }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}

impl DiskFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Who may read what the store writes: its owner alone. Webhooks hold what their senders know of people.
const FILE: u32 = 0o600;
const DIRECTORY: u32 = 0o700;

/// Makes a directory, and those above it that are not there, for their owner alone.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY).create(path)
}

/// Makes a directory of the store's own, or takes from all others what an older version or another hand let
/// them do there. Whoever does not own it, such as of a volume that is mounted there, cannot; that is told.
pub(crate) fn own_directory(path: &Path) -> io::Result<()> {
    make_directory(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0
        && let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY))
    {
        tracing::warn!(path = %path.display(), "others may look into `{}`, and that cannot be changed: {error}", path.display());
    }
    Ok(())
}

/// Makes a file that must not exist, for its owner alone.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE).open(path)
}

/// Reads exactly `length` bytes at `offset`; fewer is an error.
pub(crate) fn read_exact_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    FileExt::read_exact_at(file, &mut bytes, offset)?;
    Ok(bytes)
}

/// Reads a whole file from its beginning.
pub(crate) fn read_all(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is read at once of a file that a disk may not read whole.
const STRETCH: usize = 256 << 10;
/// What is given up at once: what the system reads of a disk at least.
const BLOCK: usize = 4 << 10;

/// Reads as much of a file as the disk reads: zeros stand for the blocks that it does not.
pub(crate) fn read_what_reads(file: &File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    in_blocks(length, |bytes, offset| FileExt::read_exact_at(file, bytes, offset))
}

fn in_blocks(length: usize, read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(io::Error::other)?;
    bytes.resize(length, 0);
    for (stretch, offset) in bytes.chunks_mut(STRETCH).zip((0_u64..).step_by(STRETCH)) {
        if read(stretch, offset).is_ok() {
            continue;
        }
        for (block, within) in stretch.chunks_mut(BLOCK).zip((0_u64..).step_by(BLOCK)) {
            if read(block, offset + within).is_err() {
                block.fill(0);
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// The machine's file system, with what a test does between its calls, or another size of it.
    #[derive(Default)]
    pub struct OddDisk {
        before_read: Mutex<Option<Box<dyn FnOnce() + Send>>>,
        free: Option<u64>,
    }

    impl OddDisk {
        /// One of a megabyte with so many bytes free.
        pub fn with_free(free: u64) -> Self {
            Self { free: Some(free), ..Self::default() }
        }

        /// Does this once, before the next file is opened for reading.
        pub fn before_read(&self, act: impl FnOnce() + Send + 'static) {
            *self.before_read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(act));
        }
    }

    impl fmt::Debug for OddDisk {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("OddDisk").field("free", &self.free).finish_non_exhaustive()
        }
    }

    impl Disk for OddDisk {
        fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            SystemDisk.create(path)
        }

        fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            SystemDisk.append(path)
        }

        fn update(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
            SystemDisk.update(path)
        }

        fn read(&self, path: &Path) -> io::Result<File> {
            let act = self.before_read.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(act) = act {
                act();
            }
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

        fn space(&self, path: &Path) -> io::Result<Space> {
            self.free.map_or_else(|| SystemDisk.space(path), |free| Ok(Space { free, total: 1_000_000 }))
        }
    }

    #[test]
    fn a_block_that_does_not_read_is_zeros_and_hides_no_other() {
        let stored: Vec<u8> =
            (0..STRETCH + 3 * BLOCK + 100).map(|at| u8::try_from(at % 251 + 1).expect("a byte")).collect();
        for bad in [0, BLOCK, STRETCH - BLOCK, STRETCH, STRETCH + 3 * BLOCK] {
            let read = in_blocks(stored.len(), |bytes, offset| {
                let from = usize::try_from(offset).expect("a place");
                // A disk may have read some of it before it fails.
                bytes[0] = 9;
                if from <= bad && bad < from + bytes.len() {
                    return Err(io::Error::other("a bad sector"));
                }
                bytes.copy_from_slice(&stored[from..from + bytes.len()]);
                Ok(())
            });
            let mut expected = stored.clone();
            let end = (bad + BLOCK).min(stored.len());
            expected[bad..end].fill(0);
            assert!(read.as_ref().is_ok_and(|read| *read == expected), "block at {bad}");
        }
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"all of it").expect("written");
        assert_eq!(read_what_reads(&File::open(file.path()).expect("open")).expect("read"), b"all of it");
    }
}
