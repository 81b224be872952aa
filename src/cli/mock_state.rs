//! The file in which `trunkline mock` keeps what it issued, so that accounts connected to an earlier run still work.

use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::mock::Mock;

/// How often the count of changes is looked at.
const EVERY: Duration = Duration::from_millis(250);

/// The file, and what was last written to it.
pub struct Kept {
    mock: Arc<Mock>,
    path: PathBuf,
    written: Value,
    /// The count of changes that was looked at last.
    seen: u64,
}

impl Kept {
    /// Goes on from the file, where it is there.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn open(mock: Arc<Mock>, path: &Path) -> anyhow::Result<Self> {
        let name = || format!("{} (without it, what was connected has to be connected again)", path.display());
        match fs::read(path) {
            Ok(bytes) => {
                let state: Value = serde_json::from_slice(&bytes).with_context(name)?;
                mock.restore(&state).map_err(anyhow::Error::msg).with_context(name)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(name),
        }
        let seen = mock.changes();
        let written = mock.state();
        Ok(Self { mock, path: path.to_owned(), written, seen })
    }

    /// Writes whatever is issued from now on, soon after it was.
    pub async fn follow(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(EVERY).await;
            self.keep();
        }
    }

    /// Writes what was issued since the last time. A file that cannot be written is told, and tried again at the next
    /// change: the services answer all the same.
    pub fn keep(&mut self) {
        let changes = self.mock.changes();
        if changes == self.seen {
            return;
        }
        self.seen = changes;
        let state = self.mock.state();
        // Some of what changes is not kept.
        if state == self.written {
            return;
        }
        if let Err(error) = self.write(&state) {
            tracing::warn!(
                "{} was not written, so what is connected now is lost at the end: {error}",
                self.path.display()
            );
        }
        self.written = state;
    }

    /// In one step, readable by its owner alone.
    fn write(&self, state: &Value) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let begun = self.path.with_extension("begun");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&begun)?;
        file.write_all(state.to_string().as_bytes())?;
        fs::rename(&begun, &self.path)
    }
}
