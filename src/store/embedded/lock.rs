//! The lock that keeps a second process off the store.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::open::{no_store, unavailable};
use crate::store::StoreError;
use crate::store::disk::own_directory;

/// The lock's file.
pub(super) const LOCK: &str = "lock";

/// The lock, on the directory and on a file in it, which may be removed by a stranger. It is the kernel's, and ends with the
/// process at the latest.
#[derive(Debug)]
pub struct Lock(Mutex<Option<[File; 2]>>);

impl Lock {
    /// Takes the lock of a directory, making the directory where there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another has it.
    pub fn take(directory: &Path) -> Result<Self, StoreError> {
        let io = |error: std::io::Error| unavailable(directory, &error);
        own_directory(directory).map_err(io)?;
        let path = directory.join(LOCK);
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(path).map_err(io)?;
        let home = File::open(directory).map_err(io)?;
        let lock = |file: &File| rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        // Some file systems lock no directories: there the file alone counts.
        if lock(&home) == Err(rustix::io::Errno::WOULDBLOCK) || lock(&file).is_err() {
            let mut holder = Vec::new();
            // What the file says only helps a person.
            drop(file.read_to_end(&mut holder));
            let pid: String = String::from_utf8_lossy(&holder).chars().filter(char::is_ascii_digit).take(20).collect();
            // The number is written after the lock is taken, and the file may have been removed since.
            let holder = if pid.is_empty() { "whose pid is not known".to_owned() } else { format!("with pid {pid}") };
            return Err(StoreError::InUse { path: directory.display().to_string(), holder });
        }
        // Written as well as that goes: a full disk must not keep a gateway from starting, and this only helps a person.
        drop(file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id())));
        Ok(Self(Mutex::new(Some([home, file]))))
    }

    /// Takes the lock of a store that is there.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none; as [`Self::take`].
    pub fn take_existing(directory: &Path) -> Result<Self, StoreError> {
        for part in ["format", "events", "records", "audit"] {
            if directory.join(part).try_exists().map_err(|error| unavailable(directory, &error))? {
                return Self::take(directory);
            }
        }
        Err(no_store(directory))
    }

    /// Lets another process in.
    pub fn release(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
