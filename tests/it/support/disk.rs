//! A file system that fails when told to, and knows what a power cut would leave of it.
//!
//! Content counts as durable once its file was synced after it was written; names once their
//! directory was synced. After a failed sync what was dirty is lost for good, though it still reads
//! back and later syncs succeed: that is what Linux does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use trunkline::store::disk::{Disk, DiskFile, Space, SystemDisk};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with an I/O error and does nothing.
    Fails,
    /// It fails with an I/O error after half of the bytes were written; other calls just fail.
    Tears,
}

/// The file system.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    calls: Vec<&'static str>,
    fault: Option<(usize, Fault)>,
    broken: bool,
    full: bool,
    free: Option<u64>,
    files: BTreeMap<PathBuf, Durable>,
    /// Names that a power cut leaves.
    names: BTreeSet<PathBuf>,
}

/// What a power cut leaves of one file.
#[derive(Debug, Default, Clone)]
struct Durable {
    content: Vec<u8>,
    /// Byte ranges whose write-back failed, as `from..to`.
    lost: Vec<(u64, u64)>,
    dirty: Vec<(u64, u64)>,
}

impl FaultyDisk {
    /// The call with this number, counted from zero since the beginning, goes wrong, once.
    pub fn fail(&self, call: usize, fault: Fault) {
        self.state().fault = Some((call, fault));
    }

    /// Every writing call fails from now on, or no longer.
    pub fn set_broken(&self, broken: bool) {
        self.state().broken = broken;
    }

    /// Whether there is no room for anything from now on.
    pub fn set_full(&self, full: bool) {
        let mut state = self.state();
        (state.full, state.free) = (full, Some(if full { 0 } else { 1 << 40 }));
    }

    /// How many bytes are free; as the real disk says where never set.
    pub fn set_free(&self, free: u64) {
        self.state().free = Some(free);
    }

    /// The calls so far that change something, by name.
    pub fn calls(&self) -> Vec<&'static str> {
        self.state().calls.clone()
    }

    /// Whether the planned fault has happened.
    pub fn has_failed(&self) -> bool {
        let state = self.state();
        state.fault.is_some_and(|(call, _)| state.calls.len() > call)
    }

    /// Writes into `to` what a power cut now would leave of `from`. Files that were never written
    /// through here are copied as they are.
    pub fn cut_power(&self, from: &Path, to: &Path) {
        let state = self.state();
        copy(from, to, &mut |path| match state.files.get(path) {
            None => Some(fs::read(path).unwrap()),
            Some(durable) => state.names.contains(path).then(|| durable.content.clone()),
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts a call; tells whether it goes wrong and how.
    fn call(&self, name: &'static str) -> Option<Fault> {
        let mut state = self.state();
        let number = state.calls.len();
        state.calls.push(name);
        let planned = state.fault.filter(|(call, _)| *call == number).map(|(_, fault)| fault);
        planned.or(state.broken.then_some(Fault::Fails))
    }

    fn check(&self, name: &'static str) -> io::Result<()> {
        self.call(name).map_or(Ok(()), |_| Err(injected()))?;
        self.takes_room(name)
    }

    fn takes_room(&self, name: &str) -> io::Result<()> {
        let is_refused = self.state().full && matches!(name, "create" | "write_all" | "write_at");
        if is_refused { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn open(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let mut state = self.state();
        let existing = fs::read(path).unwrap_or_default();
        let known = state.names.contains(path) || state.files.contains_key(path);
        if !known && !existing.is_empty() {
            state.names.insert(path.to_owned());
        }
        state.files.entry(path.to_owned()).or_insert(Durable { content: existing, ..Durable::default() });
        Box::new(FaultyFile { disk: self.clone(), path: path.to_owned(), file })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check("create")?;
        let file = SystemDisk.create(path)?;
        self.state().files.remove(path);
        Ok(self.open(path, file))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check("append")?;
        Ok(self.open(path, SystemDisk.append(path)?))
    }

    fn update(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check("update")?;
        Ok(self.open(path, SystemDisk.update(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<File> {
        SystemDisk.read(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        SystemDisk.list(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check("rename")?;
        SystemDisk.rename(from, to)?;
        let mut state = self.state();
        if let Some(file) = state.files.remove(from) {
            state.files.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check("remove")?;
        SystemDisk.remove(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.check("sync_directory")?;
        SystemDisk.sync_directory(directory)?;
        let present: BTreeSet<PathBuf> = SystemDisk.list(directory)?.into_iter().collect();
        let mut state = self.state();
        state.names.retain(|name| name.parent() != Some(directory) || present.contains(name));
        state.names.extend(present);
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let space = SystemDisk.space(path)?;
        Ok(Space { free: self.state().free.unwrap_or(space.free), ..space })
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl FaultyFile {
    fn durable(&self, change: impl FnOnce(&mut Durable)) {
        if let Some(durable) = self.disk.state().files.get_mut(&self.path) {
            change(durable);
        }
    }

    fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    fn write(&mut self, name: &'static str, bytes: &[u8], at: Option<u64>) -> io::Result<()> {
        let fault = self.disk.call(name);
        self.disk.takes_room(name)?;
        let bytes = match fault {
            Some(Fault::Fails) => return Err(injected()),
            Some(Fault::Tears) => bytes.split_at(bytes.len() / 2).0,
            None => bytes,
        };
        let begin = at.unwrap_or_else(|| self.length());
        match at {
            Some(at) => self.file.write_at(bytes, at)?,
            None => self.file.write_all(bytes)?,
        }
        let range = (begin, begin + bytes.len() as u64);
        self.durable(|durable| {
            durable.lost.retain(|lost| lost.0 < range.0 || lost.1 > range.1);
            durable.dirty.push(range);
        });
        fault.map_or(Ok(()), |_| Err(injected()))
    }
}

impl DiskFile for FaultyFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write("write_all", bytes, None)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write("write_at", bytes, Some(offset))
    }

    fn sync_data(&mut self) -> io::Result<()> {
        if self.disk.call("sync_data").is_some() {
            self.durable(|durable| durable.lost.append(&mut durable.dirty));
            return Err(injected());
        }
        self.file.sync_data()?;
        let mut content = fs::read(&self.path).unwrap_or_default();
        self.durable(|durable| {
            durable.dirty.clear();
            for (from, to) in &durable.lost {
                let end = usize::try_from(*to).unwrap().min(content.len());
                let begin = usize::try_from(*from).unwrap().min(end);
                content[begin..end].fill(0);
            }
            durable.content = content;
        });
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.check("truncate")?;
        self.file.truncate(length)?;
        self.durable(|durable| {
            for range in durable.lost.iter_mut().chain(&mut durable.dirty) {
                *range = (range.0.min(length), range.1.min(length));
            }
            durable.lost.retain(|(from, to)| from < to);
        });
        Ok(())
    }
}

/// Copies a directory, file by file, with the content that `content` gives; `None` leaves a file out.
pub fn copy(from: &Path, to: &Path, content: &mut dyn FnMut(&Path) -> Option<Vec<u8>>) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, content);
        } else if let Some(bytes) = content(&path) {
            fs::write(target, bytes).unwrap();
        }
    }
}

fn injected() -> io::Error {
    io::Error::other("injected")
}
