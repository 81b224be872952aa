//! Where references get their values: the environment and the file system as parameters.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::Path;

use super::bytes;

/// What references are looked up in.
pub trait Environment: std::fmt::Debug + Send + Sync {
    /// The variable's value.
    ///
    /// # Errors
    /// When it is not set, or not UTF-8.
    fn variable(&self, name: &str) -> Result<String, VariableError>;

    /// The names of all variables, for did-you-mean.
    fn names(&self) -> Vec<String>;

    /// A field of a secret in the secret store, as it was last read. May wait for the store when the
    /// secret was never read, so it is not for threads that must not wait.
    ///
    /// # Errors
    /// When there is no store, or it does not give this field.
    fn secret(&self, _path: &str, _field: &str) -> Result<String, SecretFault> {
        Err(SecretFault::NoStore)
    }

    /// The secrets that files name, as those were read last, by their paths: others are wanted by nobody.
    fn named(&self, _secrets: &BTreeSet<&str>) {}

    /// The text of the file at a path, as [`read_text`] gives it.
    ///
    /// # Errors
    /// When it holds none, or may not be named here.
    fn file(&self, path: &Path) -> Result<String, FileFault> {
        read_text(path).map_err(FileFault::Unread)
    }
}

/// Why a file has no text, as words that follow its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// It cannot be read, or holds no text.
    #[error("{0}")]
    Unread(String),
    /// It is the gateway's own.
    #[error("is the gateway's own")]
    Own,
    /// It is elsewhere than files may be.
    #[error("is outside of the directories whose files integration files may name")]
    Outside,
}

/// Why a secret has no value, as words that follow its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// It is the gateway's own.
    #[error("is the gateway's own")]
    Own,
    /// The gateway file does not let definitions name it.
    #[error("is not one that definitions may name")]
    Outside,
    /// The settings name no secret store.
    #[error("cannot be looked up: no Vault server is named")]
    NoStore,
    /// There is no such secret.
    #[error("is not there")]
    NoSecret,
    /// The secret has no such field; those it has.
    #[error("has no such field")]
    NoField(Vec<String>),
    /// The field holds something else than a text, a number or a truth value, or nothing.
    #[error("holds no text")]
    NotText,
    /// The store did not give it.
    #[error("could not be read: {0}")]
    Unread(String),
}

/// Why a variable has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// It is not set.
    #[error("is not set")]
    Missing,
    /// Its value is not text.
    #[error("is not UTF-8")]
    NotUtf8,
    /// It holds a secret of the gateway's own.
    #[error("is the gateway's own")]
    Own,
}

/// The environment this process was started with.
#[derive(Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Result<String, VariableError> {
        let value: OsString = std::env::var_os(name).ok_or(VariableError::Missing)?;
        value.into_string().map_err(|_| VariableError::NotUtf8)
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

/// A given set of variables, for tests and for trying a change out.
impl<S: std::hash::BuildHasher + Send + Sync> Environment for HashMap<String, String, S>
where
    Self: std::fmt::Debug,
{
    fn variable(&self, name: &str) -> Result<String, VariableError> {
        self.get(name).cloned().ok_or(VariableError::Missing)
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Reads the text a `${file:…}` reference stands for: the file's content without its last line break.
///
/// # Errors
/// What is wrong with the file, as words that follow its name.
pub fn read_text(path: &Path) -> Result<String, String> {
    let content = bytes::read(path).map_err(|problem| problem.message.replace("the file ", ""))?;
    let text = String::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_referenced_file_loses_one_line_break() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).expect("written");
            read_text(&path)
        };
        assert_eq!(read(b"s3cret\n"), Ok("s3cret".to_owned()));
        assert_eq!(read(b"a\nb\r\n"), Ok("a\nb".to_owned()));
        assert_eq!(read(b"\n"), Err("is empty".to_owned()));
        assert_eq!(read(b"\xff"), Err("is not UTF-8".to_owned()));
        assert_eq!(read_text(&dir.path().join("gone")), Err("cannot be read: no such file or directory".to_owned()));
    }
}
