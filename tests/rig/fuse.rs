//! A FUSE file system with one file, `disk`, whose bytes are a [`Disk`].
//!
//! Speaks the kernel's protocol (linux/fuse.h, version 7) over `/dev/fuse`: the ten requests that a loop
//! device causes are answered, all others are refused with `ENOSYS`, which the kernel takes as "not
//! offered".

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::mount::{MountFlags, mount};

use super::Unavailable;
use super::disk::Disk;

const ROOT: u64 = 1;
const FILE: u64 = 2;
const HEADER: usize = 40;
const MAX_WRITE: u32 = 128 << 10;

const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;
/// The kernel dropped the file system: it was unmounted.
const ENODEV: i32 = 19;

/// Mounts the file system at `place` and serves it on a thread of its own until it is unmounted.
pub fn serve(disk: Arc<Disk>, place: &Path) -> Result<JoinHandle<()>, Unavailable> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(|error| Unavailable(format!("/dev/fuse: {error}")))?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let options = CString::new(options).map_err(|error| Unavailable(error.to_string()))?;
    mount("trunkline-rig", place, "fuse", MountFlags::empty(), Some(options.as_c_str()))
        .map_err(|error| Unavailable(format!("mounting FUSE failed: {error}")))?;
    thread::Builder::new()
        .name("rig-disk".to_owned())
        .spawn(move || answer_all(&device, &disk))
        .map_err(|error| Unavailable(error.to_string()))
}

fn answer_all(device: &File, disk: &Disk) {
    let mut buffer = vec![0; MAX_WRITE as usize + 8_192];
    loop {
        match (&*device).read(&mut buffer) {
            Ok(length) => {
                let request = &buffer[..length];
                if let Some(reply) = answer(request, disk) {
                    send(device, word64(request, 8), reply);
                }
            }
            Err(error) if error.raw_os_error() == Some(ENODEV) => return,
            // `ENOENT` and `EINTR` mean that the request was taken back while we read it.
            Err(error) if error.kind() == ErrorKind::Interrupted || error.raw_os_error() == Some(ENOENT) => {}
            Err(error) => return eprintln!("rig: reading /dev/fuse failed: {error}"),
        }
    }
}

fn send(mut device: &File, unique: u64, reply: Result<Vec<u8>, i32>) {
    let (error, body) = match reply {
        Ok(body) => (0, body),
        Err(code) => (-code, Vec::new()),
    };
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&error.to_ne_bytes());
    message.extend_from_slice(&unique.to_ne_bytes());
    message.extend_from_slice(&body);
    // The kernel refuses a reply to a request that was interrupted; nobody waits for it then.
    if let Err(error) = device.write_all(&message)
        && error.raw_os_error() != Some(ENOENT)
    {
        eprintln!("rig: answering /dev/fuse failed: {error}");
    }
}

/// The reply to a request; `None` for those that want none.
fn answer(request: &[u8], disk: &Disk) -> Option<Result<Vec<u8>, i32>> {
    const LOOKUP: u32 = 1;
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const SETATTR: u32 = 4;
    const OPEN: u32 = 14;
    const READ: u32 = 15;
    const WRITE: u32 = 16;
    const STATFS: u32 = 17;
    const RELEASE: u32 = 18;
    const FSYNC: u32 = 20;
    const FLUSH: u32 = 25;
    const INIT: u32 = 26;
    const INTERRUPT: u32 = 36;
    const BATCH_FORGET: u32 = 42;

    let (node, body) = (word64(request, 16), &request[HEADER..]);
    Some(match word(request, 4) {
        INIT => Ok(init()),
        LOOKUP if body.starts_with(b"disk\0") => Ok(entry(disk)),
        LOOKUP => Err(ENOENT),
        GETATTR | SETATTR => Ok(attributes_out(node, disk)),
        OPEN => Ok(vec![0; 16]),
        READ => Ok(disk.read(word64(body, 8), word(body, 16) as usize)),
        WRITE => {
            let size = word(body, 16);
            disk.write(word64(body, 8), &body[40..40 + size as usize]);
            Ok([size.to_ne_bytes(), [0; 4]].concat())
        }
        FSYNC => {
            disk.flush();
            Ok(Vec::new())
        }
        FLUSH | RELEASE => Ok(Vec::new()),
        STATFS => Ok(vec![0; 80]),
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        _ => Err(ENOSYS),
    })
}

/// `fuse_init_out`: version 7.31, no optional features, writes of up to [`MAX_WRITE`] bytes.
fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    let words = [7, 31, MAX_WRITE, BIG_WRITES, 12 << 16 | 16, MAX_WRITE, 1];
    let mut out: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
    out.resize(64, 0);
    out
}

/// `fuse_entry_out`: the file, valid for an hour, since nobody else changes it.
fn entry(disk: &Disk) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    for value in [FILE, 0, 3_600, 3_600] {
        out.extend_from_slice(&value.to_ne_bytes());
    }
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&attributes(FILE, disk));
    out
}

/// `fuse_attr_out`.
fn attributes_out(node: u64, disk: &Disk) -> Vec<u8> {
    [&3_600_u64.to_ne_bytes()[..], &[0; 8], &attributes(node, disk)].concat()
}

/// `fuse_attr`: six 64-bit words, then ten of 32 bits.
fn attributes(node: u64, disk: &Disk) -> Vec<u8> {
    let (mode, size) = if node == ROOT { (0o040_755, 0) } else { (0o100_600, disk.size()) };
    let mut out: Vec<u8> = [node, size, size / 512, 0, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let words: [u32; 10] = [0, 0, 0, mode, 1, 0, 0, 0, 4_096, 0];
    out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    out
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
