//! Bytes from disk, bounded: a file that is too large is not read.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::span::{Position, Span};
use crate::definition::problem::{Code, Place, Problem};

/// The most bytes a definition may have.
pub const MAX_FILE: u64 = 1 << 20;

/// Reads a file whole.
///
/// # Errors
/// When it cannot be read, or is larger than [`MAX_FILE`].
pub fn read(path: &Path) -> Result<Vec<u8>, Box<Problem>> {
    content(path, path, 0)
}

/// Reads what is at a path, if that is no link, as the content of a file.
///
/// # Errors
/// As [`read`].
pub fn read_itself(file: &Path, path: &Path) -> Result<Vec<u8>, Box<Problem>> {
    content(file, path, libc::O_NOFOLLOW)
}

fn content(named: &Path, path: &Path, flags: i32) -> Result<Vec<u8>, Box<Problem>> {
    let place = || Place::file(Arc::new(named.to_owned()));
    let unreadable = |error: &std::io::Error| {
        let message = format!("the file cannot be read: {}", reason(error));
        Box::new(Problem::error(Code::Unreadable, place(), message))
    };
    // Opening a pipe waits for someone who writes into it, unless it is said not to.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | flags).open(path);
    let file = opened.map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    // A link may lead to what the system tells of processes, their environments among it; parts of it would be shown.
    // Such files have no size.
    let of_processes = || path.canonicalize().is_ok_and(|real| real.starts_with("/proc"));
    if !metadata.is_file() || metadata.len() == 0 && of_processes() {
        let message = "this is not a regular file";
        return Err(Box::new(Problem::error(Code::Unreadable, place(), message)));
    }
    let size = metadata.len();
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(MAX_FILE)).unwrap_or_default());
    // The file may grow between the look at its size and the read.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("the file has {} bytes; a definition may have {MAX_FILE}", size.max(MAX_FILE + 1));
        let problem = Problem::error(Code::TooLarge, place(), message);
        return Err(Box::new(problem.help("Divide it into several definitions.")));
    }
    Ok(bytes)
}

/// The text of a file's bytes, without a byte order mark.
///
/// # Errors
/// When it is not UTF-8; the place is that of the first byte that is not.
pub fn text(path: &Arc<PathBuf>, bytes: &[u8]) -> Result<Arc<str>, Box<Problem>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text).into()),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).and_then(|head| std::str::from_utf8(head).ok());
            let start = end_of(good.unwrap_or_default());
            let end = Position { column: start.column + 1, ..start };
            let place = Place { span: Span { start, end }, ..Place::file(Arc::clone(path)) };
            let message = format!("the byte at offset {} is not UTF-8", error.valid_up_to());
            Err(Box::new(Problem::error(Code::NotUtf8, place, message).help("Save the file as UTF-8.")))
        }
    }
}

/// The place after a text.
fn end_of(text: &str) -> Position {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Position { line, column }
}

/// An I/O error without the operating system's number.
pub(in crate::definition) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_byte_is_located() {
        let problem = text(&Arc::default(), b"a: 1\nb: \xc3\xa9\xff").expect_err("not UTF-8");
        assert_eq!(problem.place.span.start, Position { line: 2, column: 5 });
        assert_eq!(problem.message, "the byte at offset 10 is not UTF-8");
        assert_eq!(text(&Arc::default(), b"\xef\xbb\xbfa").as_deref(), Ok("a"));
    }

    #[test]
    fn large_files_are_refused_by_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("large.yaml");
        std::fs::File::create(&path).and_then(|file| file.set_len(10 << 20)).expect("a sparse file");
        let problem = read(&path).expect_err("too large");
        assert_eq!((problem.code, problem.message.contains("10485760 bytes")), (Code::TooLarge, true));
        assert_eq!(read(dir.path()).expect_err("a directory").code, Code::Unreadable);
        let pipe = dir.path().join("pipe.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
        assert_eq!(read(&pipe).expect_err("nobody writes").message, "this is not a regular file");
        assert_eq!(read(&dir.path().join("gone")).expect_err("gone").code, Code::Unreadable);
        let (plain, link) = (dir.path().join("plain.yaml"), dir.path().join("link.yaml"));
        std::fs::write(&plain, "id: a").and_then(|()| std::os::unix::fs::symlink(&plain, &link)).expect("a link");
        assert!(read(&link).is_ok() && read_itself(&link, &plain).is_ok());
        assert_eq!(read_itself(&link, &link).expect_err("a link").code, Code::Unreadable);
    }
}
