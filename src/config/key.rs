//! The master key: what every stored credential is sealed with.
//!
//! A key is written `tlk1_` and 43 characters of URL-safe base 64 (32 bytes). A file or variable may hold
//! several, one a line: the first seals, all of them open, so that a key can be replaced without
//! losing what the old one sealed. Sealing itself is the vault's. Called by `app` and `cli`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::definition::plan::gateway::{KeySource, Mode};

/// What a written key begins with: the kind of secret and the version of its form.
const PREFIX: &str = "tlk1_";
/// The most bytes of a key file; longer ones are something else.
const MAX_FILE: u64 = 64 << 10;

/// One key.
#[derive(Debug)]
pub struct MasterKey {
    id: String,
    bytes: Secret<[u8; 32]>,
}

impl MasterKey {
    /// A fresh key.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut bytes = [0_u8; 32];
        random.fill(&mut bytes)?;
        Ok(Self::of(bytes))
    }

    /// Reads a written key.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], which does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(KeyError::Malformed)?;
        let bytes = Secret::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| KeyError::Malformed)?);
        bytes.expose().as_slice().try_into().map(Self::of).map_err(|_| KeyError::Malformed)
    }

    /// The key as it is written.
    pub fn text(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.bytes.expose())))
    }

    /// Names the key without telling it: eight hexadecimal digits of a digest.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &Secret<[u8; 32]> {
        &self.bytes
    }

    fn of(bytes: [u8; 32]) -> Self {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(b"trunkline master key id");
        digest.update(&bytes);
        let head = digest.finish().as_ref().iter().take(4).fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        let id = format!("{head:08x}");
        Self { id, bytes: Secret::new(bytes) }
    }
}

/// The keys of a deployment, the sealing one first; never empty.
pub struct KeyRing(Vec<MasterKey>);

/// Ids only.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(MasterKey::id)).finish()
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not a key.
    #[error("not a master key: expected lines of `tlk1_` and 43 characters, as `trunkline keys generate` prints them")]
    Malformed,
    /// The file is not there.
    #[error(
        "the master key file {} does not exist: run `trunkline keys generate --out {}`, and keep a copy of it apart from backups", .0.display(), .0.display()
    )]
    NoFile(PathBuf),
    /// The variable is not set.
    #[error("the environment variable `{0}`, which should hold the master key, is not set")]
    NoVariable(String),
    /// No source is named.
    #[error("`secrets.key` is not set: name a file or variable that holds the master key")]
    NoSource,
    /// The file cannot be read or written.
    #[error("the master key file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        reason: io::Error,
    },
    /// There is no randomness to make one from.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

impl KeyRing {
    /// Reads keys, one a line; blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// When a line is not a key, or there is none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(MasterKey::parse).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(KeyError::Malformed) } else { Ok(Self(keys)) }
    }

    /// Reads the keys from where the settings say. In development mode a missing key file is made, mode
    /// 0600; [`Opened::made`] tells so.
    ///
    /// # Errors
    /// When there is no usable key.
    pub fn open(
        source: &KeySource,
        mode: Mode,
        variable: impl Fn(&str) -> Option<String>,
        random: &dyn Random,
    ) -> Result<Opened, KeyError> {
        match source {
            KeySource::File(path) if mode == Mode::Development && !path.exists() => {
                let key = MasterKey::generate(random)?;
                write_new(path, &key)?;
                Ok(Opened { ring: Self(vec![key]), made: true, exposed: false })
            }
            KeySource::File(path) => Self::read(path),
            KeySource::Environment(name) => {
                let text = variable(name).map(Secret::new).ok_or_else(|| KeyError::NoVariable(name.clone()))?;
                Ok(Opened { ring: Self::parse(text.expose())?, made: false, exposed: false })
            }
            KeySource::Missing => Err(KeyError::NoSource),
        }
    }

    /// The key that seals.
    pub fn current(&self) -> &MasterKey {
        // `parse` and `open` refuse an empty ring.
        &self.0[0]
    }

    /// The key with this id.
    pub fn find(&self, id: &str) -> Option<&MasterKey> {
        self.0.iter().find(|key| key.id == id)
    }

    fn read(path: &Path) -> Result<Opened, KeyError> {
        let failed = |reason: io::Error| match reason.kind() {
            io::ErrorKind::NotFound => KeyError::NoFile(path.to_owned()),
            _ => KeyError::File { path: path.to_owned(), reason },
        };
        let about = fs::metadata(path).map_err(failed)?;
        if about.len() > MAX_FILE {
            return Err(KeyError::Malformed);
        }
        let text = Secret::new(fs::read_to_string(path).map_err(failed)?);
        let exposed = about.permissions().mode() & 0o007 != 0;
        Ok(Opened { ring: Self::parse(text.expose())?, made: false, exposed })
    }
}

/// A key ring, and what the log should say of it.
#[derive(Debug)]
pub struct Opened {
    /// The keys.
    pub ring: KeyRing,
    /// Whether the key was made just now.
    pub made: bool,
    /// Whether everybody on this machine can read the key file.
    pub exposed: bool,
}

/// Writes a key to a file that must not exist yet, mode 0600, durable when this returns.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_new(path: &Path, key: &MasterKey) -> Result<(), KeyError> {
    let failed = |reason| KeyError::File { path: path.to_owned(), reason };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{}", key.text().expose()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    #[test]
    fn a_key_survives_its_text_and_shows_only_its_id() {
        let key = MasterKey::generate(&SeededRandom::new(1)).expect("seeded");
        let text = key.text();
        let again = MasterKey::parse(text.expose()).expect("own text");
        assert_eq!((again.id(), again.bytes().expose()), (key.id(), key.bytes().expose()));
        let shown = format!("{key:?} {:?}", KeyRing(vec![again]));
        assert!(shown.contains(key.id()) && !shown.contains(text.expose().trim_start_matches(PREFIX)), "{shown}");
    }

    #[test]
    fn other_texts_are_refused_without_being_repeated() {
        for text in
            ["", "# only a comment", "hunter2", "tlk1_hunter2", "tlk2_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
        {
            let error = KeyRing::parse(text).expect_err(text).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn development_makes_a_private_key_once_and_production_never() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data/master.key");
        let source = KeySource::File(path.clone());
        let random = SeededRandom::new(2);
        let open = |mode| KeyRing::open(&source, mode, |_| None, &random);
        assert!(matches!(open(Mode::Production), Err(KeyError::NoFile(_))));
        let first = open(Mode::Development).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let second = open(Mode::Production).expect("read");
        assert!(first.made && !second.made && !second.exposed);
        assert_eq!(first.ring.current().id(), second.ring.current().id());
    }
}
