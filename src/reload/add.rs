//! A new definition file, put whole where the deployment's files are.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Writes a file of a name that must not be taken. Whoever reads the directory meets it whole or not at all: it is
/// written under a name that definitions are not looked for under, and then linked.
///
/// # Errors
/// When the directory cannot be written, or the name is taken.
pub fn add(directory: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let (draft, place) = (directory.join(format!(".{name}.new")), directory.join(name));
    let mut file = File::create(&draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&draft, &place));
    let removed = fs::remove_file(&draft);
    linked.and(removed)?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_whole_and_none_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = add(directory.path(), "a.yaml", "one").expect("written");
        assert_eq!(fs::read_to_string(&place).expect("a file"), "one");
        let taken = add(directory.path(), "a.yaml", "two").map_err(|error| error.kind());
        assert_eq!(taken, Err(io::ErrorKind::AlreadyExists));
        let names: Vec<_> =
            fs::read_dir(directory.path()).expect("a directory").flatten().map(|file| file.path()).collect();
        assert_eq!((fs::read_to_string(&place).expect("a file").as_str(), names), ("one", vec![place]));
        assert!(add(&directory.path().join("none"), "a.yaml", "one").is_err());
    }
}
