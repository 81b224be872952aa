//! A machine whose power can be cut: a file system that keeps, after a cut, what a real one would keep.
//!
//! `kill -9` shows what survives a process; the kernel still writes out everything the process wrote. A
//! power cut also takes what the kernel or the drive had not yet made durable, and only that shows a
//! missing or misplaced sync. The layers are real from the journal's write down to the block device:
//!
//! ```text
//! gateway → ext4 (journal, barriers) → loop device → one file of a FUSE file system → Disk (keeper)
//! ```
//!
//! [`disk::Disk`] applies writes to its *current* content and logs every 4 KiB block written since the
//! last flush. A flush (what `fdatasync` becomes when it reaches a drive) makes the log durable. A cut
//! takes the durable content and an arbitrary part of the log: [`Cut::Kernel`] keeps all of it (the kernel
//! died, the drive did not), [`Cut::Drive`] keeps each block with a chance drawn for that cut from 0 to
//! 80 %. Blocks of one log may be kept in any combination, as drives reorder between flushes.
//!
//! The cut image is booted like any disk: ext4 replays its journal when it is mounted. Cutting does not
//! stop the writer. The caller copies its list of acknowledgements *before* it cuts, so everything on the
//! list was acknowledged before the moment of the cut and must be in the image.
//!
//! Needs root, `/dev/fuse`, a free loop device, `mkfs.ext4` and `losetup`. [`Machine::boot`] says what is
//! missing; tests then skip with a loud line. The FUSE protocol is spoken over `/dev/fuse` directly, so
//! nothing else has to be installed. Two to six seconds a cut, most of it mounting.
#![expect(clippy::print_stderr, reason = "what a machine leaves behind must be seen")]

mod disk;
mod fuse;
mod keeper;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

pub use disk::Cut;
pub use keeper::Image;

/// A running machine: its file system is mounted until this is dropped.
pub struct Machine {
    place: PathBuf,
    disk: Option<String>,
    device: Option<String>,
    mounted: bool,
}

/// Why there is no machine here.
#[derive(Debug)]
pub struct Unavailable(pub String);

static MACHINES: AtomicU32 = AtomicU32::new(0);

impl Machine {
    /// A fresh disk with an empty ext4, as an image to boot from.
    pub fn blank(size: u64) -> Result<Image, Unavailable> {
        let machine = Self::attach(&Image::empty(size)?)?;
        let device = machine.device.clone().unwrap_or_default();
        let options = ["-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
        run(Command::new("mkfs.ext4").args(options).arg(&device))?;
        machine.cut(Cut::Kernel, 0)
    }

    /// Boots from an image: attaches the disk and mounts its file system, which replays its journal.
    pub fn boot(image: &Image) -> Result<Self, Unavailable> {
        let mut machine = Self::attach(image)?;
        let device = machine.device.clone().unwrap_or_default();
        mount(device.as_str(), machine.root(), "ext4", MountFlags::empty(), None)
            .map_err(|error| Unavailable(format!("mounting {device} failed: {error}")))?;
        machine.mounted = true;
        Ok(machine)
    }

    /// Where the file system is mounted.
    pub fn root(&self) -> PathBuf {
        self.place.join("root")
    }

    /// What the disk would hold if the power failed now; `seed` decides what is kept. The machine runs on.
    pub fn cut(&self, how: Cut, seed: u64) -> Result<Image, Unavailable> {
        Image::cut(self.disk.as_deref().unwrap_or_default(), how, seed)
    }

    fn attach(image: &Image) -> Result<Self, Unavailable> {
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let place = std::env::temp_dir().join(format!("trunkline-rig-{}-{number}", std::process::id()));
        let unavailable = |error: io::Error| Unavailable(format!("{}: {error}", place.display()));
        for below in ["fuse", "root"] {
            fs::create_dir_all(place.join(below)).map_err(unavailable)?;
        }
        let mut machine = Self { place, disk: None, device: None, mounted: false };
        machine.disk = Some(image.attach(&machine.place)?);
        let output = run(Command::new("losetup").args(["--find", "--show"]).arg(machine.place.join("fuse/disk")))?;
        machine.device = Some(output.trim().to_owned());
        Ok(machine)
    }

    /// Takes everything down; what was not written out is written out now.
    fn detach(&mut self) {
        if std::mem::take(&mut self.mounted) {
            let unmounted = unmount_when_free(&self.root());
            let left = unmounted.is_err();
            report("unmounting", unmounted);
            if left {
                // The disk is in use as long as the file system is: the keeper takes both down when this process ends.
                return;
            }
        }
        if let Some(device) = self.device.take() {
            let detached = run(Command::new("losetup").arg("-d").arg(device));
            report("losetup -d", detached.map(drop).map_err(|Unavailable(why)| io::Error::other(why)));
        }
        if let Some(disk) = self.disk.take() {
            report("detaching the disk", keeper::detach(&disk).map_err(|Unavailable(why)| io::Error::other(why)));
        }
        report("removing", remove_place(&self.place));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Unmounts a file system. What was dropped on it may be closed a moment later by a thread of its own, as sled's files
/// are: until then it is busy.
fn unmount_when_free(root: &Path) -> io::Result<()> {
    const TRIES: u32 = 1_000;
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 1..TRIES {
        match unmount(root, UnmountFlags::empty()) {
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(PAUSE),
            ended => return ended.map_err(io::Error::from),
        }
    }
    unmount(root, UnmountFlags::empty()).map_err(io::Error::from)
}

/// Removes the two empty directories, and nothing that is still mounted below them.
fn remove_place(place: &Path) -> io::Result<()> {
    if !place.exists() {
        return Ok(());
    }
    fs::remove_dir(place.join("fuse"))?;
    fs::remove_dir(place.join("root"))?;
    fs::remove_dir(place)
}

fn run(command: &mut Command) -> Result<String, Unavailable> {
    let output = command.output().map_err(|error| Unavailable(format!("{command:?}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Unavailable(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn report(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("rig: {what} failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    fn content() -> Vec<u8> {
        vec![7; 300_000]
    }

    fn write(path: &Path, sync: bool) {
        let mut file = File::create(path).unwrap();
        file.write_all(&content()).unwrap();
        if sync {
            file.sync_all().unwrap();
            File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
        }
    }

    /// A rig that keeps everything would pass every test; this one must lose what was not synced.
    #[test]
    fn a_cut_keeps_what_was_synced_and_loses_what_was_not() {
        let booted = Machine::blank(64 << 20).and_then(|image| Machine::boot(&image));
        let machine = match booted {
            Ok(machine) => machine,
            Err(Unavailable(why)) => return eprintln!("SKIPPED: no power-cut rig here: {why}"),
        };
        write(&machine.root().join("synced"), true);
        write(&machine.root().join("unsynced"), false);
        let image = machine.cut(Cut::Nothing, 0).unwrap();
        drop(machine);
        let after = Machine::boot(&image).expect("the cut image mounts");
        assert_eq!(fs::read(after.root().join("synced")).unwrap(), content());
        let unsynced = fs::read(after.root().join("unsynced")).unwrap_or_default();
        assert_ne!(unsynced, content(), "unsynced data must not survive a cut that keeps nothing");
    }
}
