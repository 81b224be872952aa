//! The process that keeps the disks.
//!
//! A disk must outlive whoever writes to it: a test that is killed while one of its threads waits for the
//! disk, and that serves the disk itself, waits for ever. So the disks live in a process of their own,
//! this test binary started again, which obeys lines on a socket and, when the socket closes, takes down
//! whatever the test left behind.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use rustix::mount::{UnmountFlags, unmount};
use trunkline::base::random::{Random, SeededRandom};

use super::disk::{Cut, Disk, Image as Content};
use super::{Unavailable, fuse};

const SOCKET: &str = "TRUNKLINE_RIG_SOCKET";

/// The test's side: one keeper a process.
struct Keeper {
    stream: BufReader<UnixStream>,
    _child: Child,
}

static KEEPER: OnceLock<Mutex<Option<Keeper>>> = OnceLock::new();

/// An image in the keeper's hands; given back when the last clone is dropped.
#[derive(Clone)]
pub struct Image(Arc<Handle>);

struct Handle(String);

impl Drop for Handle {
    fn drop(&mut self) {
        // Without a keeper there is nothing left to give back.
        drop(ask(&format!("forget {}", self.0)));
    }
}

impl Image {
    /// A disk of zeros.
    pub fn empty(size: u64) -> Result<Self, Unavailable> {
        ask(&format!("blank {size}")).map(Self::named)
    }

    /// What is left of a disk in use when the power fails now.
    pub fn cut(disk: &str, how: Cut, seed: u64) -> Result<Self, Unavailable> {
        let how = match how {
            Cut::Kernel => "kernel",
            Cut::Drive => "drive",
            Cut::Nothing => "nothing",
        };
        ask(&format!("cut {disk} {how} {seed}")).map(Self::named)
    }

    /// Puts a disk with this content into use at `place`: its number.
    pub fn attach(&self, place: &Path) -> Result<String, Unavailable> {
        ask(&format!("attach {} {}", self.0.0, place.display()))
    }

    fn named(number: String) -> Self {
        Self(Arc::new(Handle(number)))
    }
}

/// Ends a disk's use, once its file system is unmounted.
pub fn detach(disk: &str) -> Result<(), Unavailable> {
    ask(&format!("detach {disk}")).map(drop)
}

fn ask(line: &str) -> Result<String, Unavailable> {
    let keeper = KEEPER.get_or_init(|| Mutex::new(Keeper::start().ok()));
    let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
    let keeper = keeper.as_mut().ok_or_else(|| Unavailable("the disks' process did not start".to_owned()))?;
    let reply = keeper.ask(line).map_err(|error| Unavailable(format!("the disks' process: {error}")))?;
    match reply.split_once(' ') {
        Some(("ok", answer)) => Ok(answer.trim().to_owned()),
        _ => Err(Unavailable(reply.trim().to_owned())),
    }
}

impl Keeper {
    fn start() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("trunkline-rig-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path)?;
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", "rig::keeper::tests::the_disks_are_kept", "--ignored", "--nocapture"])
            .env(SOCKET, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let (stream, _) = listener.accept()?;
        std::fs::remove_file(&path)?;
        Ok(Self { stream: BufReader::new(stream), _child: child })
    }

    fn ask(&mut self, line: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut reply = String::new();
        self.stream.read_line(&mut reply)?;
        Ok(reply)
    }
}

/// The keeper's side.
#[derive(Default)]
struct Kept {
    next: u32,
    images: HashMap<String, Content>,
    disks: HashMap<String, Used>,
}

struct Used {
    disk: Arc<Disk>,
    place: PathBuf,
    served: JoinHandle<()>,
}

impl Kept {
    fn obey(&mut self, line: &str) -> Result<String, Unavailable> {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["blank", size] => Ok(self.keep(Content::empty(size.parse().unwrap_or(0)))),
            ["forget", image] => Ok(self.images.remove(*image).map_or_else(String::new, |_| (*image).to_owned())),
            ["attach", image, place] => self.attach(image, Path::new(place)),
            ["cut", disk, how, seed] => {
                let used = self.disks.get(*disk).ok_or_else(|| Unavailable(format!("no disk {disk}")))?;
                let random = SeededRandom::new(seed.parse().unwrap_or(0));
                let how = match *how {
                    "kernel" => Cut::Kernel,
                    "drive" => Cut::Drive,
                    _ => Cut::Nothing,
                };
                let content = used.disk.cut(how, || random.unit());
                Ok(self.keep(content))
            }
            ["detach", disk] => {
                let used = self.disks.remove(*disk).ok_or_else(|| Unavailable(format!("no disk {disk}")))?;
                used.unmount_file();
                let ended = used.served.join();
                ended.map(|()| String::new()).map_err(|_| Unavailable("the disk's thread panicked".to_owned()))
            }
            _ => Err(Unavailable(format!("not understood: {line}"))),
        }
    }

    fn keep(&mut self, content: Content) -> String {
        self.next += 1;
        self.images.insert(self.next.to_string(), content);
        self.next.to_string()
    }

    fn attach(&mut self, image: &str, place: &Path) -> Result<String, Unavailable> {
        let content = self.images.get(image).cloned().ok_or_else(|| Unavailable(format!("no image {image}")))?;
        let disk = Arc::new(Disk::new(content));
        let served = fuse::serve(Arc::clone(&disk), &place.join("fuse"))?;
        self.next += 1;
        self.disks.insert(self.next.to_string(), Used { disk, place: place.to_owned(), served });
        Ok(self.next.to_string())
    }

    /// Takes down what the test left: it was killed, or failed before it could.
    fn clean_up(self) {
        for used in self.disks.into_values() {
            let root = unmount(used.place.join("root"), UnmountFlags::DETACH);
            super::report("unmounting", root.map_err(io::Error::from));
            let file = used.place.join("fuse/disk");
            let devices =
                Command::new("losetup").args(["--noheadings", "--output", "NAME", "--associated"]).arg(file).output();
            let devices =
                devices.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            for device in devices.split_whitespace() {
                drop(Command::new("losetup").arg("-d").arg(device).status());
            }
            used.unmount_file();
            super::report("cleaning up", super::remove_place(&used.place));
        }
    }
}

impl Used {
    fn unmount_file(&self) {
        let unmounted = unmount(self.place.join("fuse"), UnmountFlags::DETACH);
        super::report("unmounting FUSE", unmounted.map_err(io::Error::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a test: the keeper's process runs this.
    #[test]
    #[ignore = "the disks' process, started by the tests that cut the power"]
    fn the_disks_are_kept() {
        let Some(path) = std::env::var_os(SOCKET) else { return };
        let mut stream = BufReader::new(UnixStream::connect(path).unwrap());
        let mut kept = Kept::default();
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
            let reply = match kept.obey(line.trim()) {
                Ok(answer) => format!("ok {answer}\n"),
                Err(Unavailable(why)) => format!("err {}\n", why.replace('\n', " ")),
            };
            if stream.get_mut().write_all(reply.as_bytes()).is_err() {
                break;
            }
            line.clear();
        }
        kept.clean_up();
    }
}
