//! Master keys: where they come from and how they are written.
//!
//! A key ring is a text. A line is empty, a comment after `#`, or a key:
//!
//! ```text
//! trunkline-key-1.ID.KEY
//! ```
//!
//! KEY is 32 random bytes in unpadded URL-safe base 64, ID the first eight bytes of the SHA-256 of
//! `trunkline key 1` and the key, in hexadecimal: a damaged line is noticed. **The last key seals, every
//! key opens**: to rotate, append a key and keep the old ones until nothing is sealed by them, or let
//! `trunkline keys rotate` do both. The file is read at start and when keys are rotated. An environment
//! variable holds the same text; spaces may stand for line ends. [`KeyPlace`](super::keys::KeyPlace) puts
//! a ring together from where the settings say.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use zeroize::Zeroizing;

use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::definition::plan::gateway::{KeySource, Mode};
use crate::store::StoreError;

use super::keys::WrapError;

/// What a line of a key begins with.
const PREFIX: &str = "trunkline-key-1";

/// The name of a master key; not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A master key. Cheap to clone: the bytes are there once.
#[derive(Debug, Clone)]
pub struct MasterKey {
    id: KeyId,
    bytes: Arc<Secret<[u8; 32]>>,
}

impl MasterKey {
    /// A fresh key.
    ///
    /// # Errors
    /// When the random source has nothing to give.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomUnavailable> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        random.fill(&mut *bytes)?;
        Ok(Self::of(*bytes))
    }

    fn of(bytes: [u8; 32]) -> Self {
        let mut digest = digest::Context::new(&digest::SHA256);
        digest.update(b"trunkline key 1");
        digest.update(&bytes);
        let mut id = [0_u8; 8];
        id.iter_mut().zip(digest.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self { id: KeyId(id), bytes: Arc::new(Secret::new(bytes)) }
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The key of these bytes, as they come out of a wrapping.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::of)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        self.bytes.expose()
    }

    /// The key as a line of a key ring, without a line end. For `trunkline keys generate` and for key
    /// files; never for a log.
    pub fn line(&self) -> Secret {
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.bytes.expose()));
        Secret::new(format!("{PREFIX}.{}.{}", self.id, &*encoded))
    }

    fn parse(word: &str) -> Option<Self> {
        let (id, encoded) = word.strip_prefix(PREFIX)?.strip_prefix('.')?.split_once('.')?;
        let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).ok()?);
        let key = Self::of(decoded.as_slice().try_into().ok()?);
        (key.id.to_string() == id).then_some(key)
    }
}

/// One or more master keys.
#[derive(Debug, Clone)]
pub struct KeyRing {
    newest: MasterKey,
    older: Vec<MasterKey>,
}

/// Why there is no key ring.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no key, and none may be made.
    #[error(
        "there is no master key at {}: make one with `trunkline keys generate`, keep a copy of it in a safe place, and put it there with mode 0600",
        .0.display()
    )]
    NoFile(PathBuf),
    /// The environment variable is not set.
    #[error("the environment variable `{0}` is not set: it must hold a key made by `trunkline keys generate`")]
    NoVariable(String),
    /// There is no key in the text.
    #[error("{0} holds no key: make one with `trunkline keys generate`")]
    Empty(String),
    /// A key cannot be read. Its text is not repeated here.
    #[error(
        "{place}, key {number}: not a key, or damaged: expected `trunkline-key-1.ID.KEY` as `trunkline keys generate` prints it"
    )]
    Damaged {
        /// The file or variable.
        place: String,
        /// Which, from one.
        number: usize,
    },
    /// A key is there twice.
    #[error("{place}: the key {id} is there twice")]
    Repeated {
        /// The file or variable.
        place: String,
        /// Which.
        id: KeyId,
    },
    /// A key cannot be added where the keys are.
    #[error(
        "a new key cannot be added to {0}: append one made by `trunkline keys generate` to it, and start the gateway again"
    )]
    Unchangeable(String),
    /// The service that wraps keys did not do it.
    #[error("the master key could not be {what} by Transit: {reason}")]
    Wrap {
        /// `wrapped` or `unwrapped`.
        what: &'static str,
        /// Why not.
        reason: WrapError,
    },
    /// The settings name a wrapping service and there is none.
    #[error(
        "the master key is wrapped by Transit, and no Vault server is named: write `secrets: {{ vault: {{ url: … }} }}`"
    )]
    NoWrap,
    /// What is stored of the wrapped keys is not what was written.
    #[error("the wrapped master keys in the store cannot be read: {0}")]
    Ring(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read or made.
    #[error("the key file {} could not be {what}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `made`.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// There is no randomness to make a key of.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

impl KeyRing {
    /// The ring of a source; `None` where the settings name none. `environment` looks variables up. In
    /// development mode a missing file is made, with mode 0600, and the log says so.
    ///
    /// # Errors
    /// When there is no usable key.
    pub fn load(
        source: &KeySource,
        mode: Mode,
        environment: &dyn Fn(&str) -> Option<String>,
        random: &dyn Random,
    ) -> Result<Option<Self>, KeyError> {
        match source {
            KeySource::Missing => Ok(None),
            KeySource::Environment(name) => {
                let text = environment(name).map(Zeroizing::new).ok_or_else(|| KeyError::NoVariable(name.clone()))?;
                Self::parse(&text, &format!("the environment variable `{name}`")).map(Some)
            }
            KeySource::File(path) => Self::from_file(path, mode, random).map(Some),
            KeySource::Transit(_) => Err(KeyError::NoWrap),
        }
    }

    fn from_file(path: &Path, mode: Mode, random: &dyn Random) -> Result<Self, KeyError> {
        let fault = |what| move |error| KeyError::File { path: path.to_owned(), what, error };
        if mode == Mode::Development && !path.exists() {
            match make(path, &MasterKey::generate(random)?) {
                Ok(()) => tracing::warn!(
                    "development mode: made a master key at {}. Whoever has this file can open every stored credential, and without it none can be opened",
                    path.display()
                ),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fault("made")(error)),
            }
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyError::NoFile(path.to_owned())),
            Err(error) => return Err(fault("read")(error)),
        };
        if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
            tracing::warn!("the key file {} can be read by every user of this machine: chmod 600", path.display());
        }
        Self::parse(&text, &path.display().to_string())
    }

    /// The ring of one key.
    pub fn of(key: MasterKey) -> Self {
        Self { newest: key, older: Vec::new() }
    }

    /// Reads a key ring's text. `place` is what errors call it.
    ///
    /// # Errors
    /// When a key cannot be read or there is none.
    pub fn parse(text: &str, place: &str) -> Result<Self, KeyError> {
        let words = text.lines().map(|line| line.split('#').next().unwrap_or_default()).flat_map(str::split_whitespace);
        let mut keys: Vec<MasterKey> = Vec::new();
        for (at, word) in words.enumerate() {
            let key =
                MasterKey::parse(word).ok_or_else(|| KeyError::Damaged { place: place.to_owned(), number: at + 1 })?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(KeyError::Repeated { place: place.to_owned(), id: key.id });
            }
            keys.push(key);
        }
        let newest = keys.pop().ok_or_else(|| KeyError::Empty(place.to_owned()))?;
        Ok(Self { newest, older: keys })
    }

    /// The keys of a list, the last of which seals; `None` for an empty one.
    pub(super) fn of_all(mut keys: Vec<MasterKey>) -> Option<Self> {
        keys.pop().map(|newest| Self { newest, older: keys })
    }

    /// The same ring with more keys that open. Those it has already are left out.
    #[must_use]
    pub fn opening_also(mut self, more: &Self) -> Self {
        for key in more.older.iter().chain([&more.newest]) {
            if self.key(key.id).is_none() {
                self.older.insert(0, key.clone());
            }
        }
        self
    }

    /// The key that seals.
    pub fn newest(&self) -> &MasterKey {
        &self.newest
    }

    /// The key of this name.
    pub fn key(&self, id: KeyId) -> Option<&MasterKey> {
        std::iter::once(&self.newest).chain(&self.older).find(|key| key.id == id)
    }

    /// The names of all keys, the newest first.
    pub fn ids(&self) -> Vec<KeyId> {
        std::iter::once(&self.newest).chain(self.older.iter().rev()).map(MasterKey::id).collect()
    }
}

/// Writes a key file, mode 0600, so that it is whole and on disk, or not there.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is a file: it is never overwritten. Others as the system
/// has them.
pub fn make(path: &Path, key: &MasterKey) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let written = write_key(&partial, key).and_then(|()| fs::hard_link(&partial, path));
    fs::remove_file(&partial)?;
    written?;
    File::open(parent)?.sync_all()
}

/// Appends a key to a key file, which then seals. The file is replaced whole: a crash leaves it as it was
/// or with the key, and the key is on disk when this returns.
///
/// # Errors
/// As the system has them; a file that is mounted by itself cannot be replaced.
pub fn append(path: &Path, key: &MasterKey) -> io::Result<()> {
    // A link, as secrets in volumes are, is followed, so that it stays a link.
    let path = fs::canonicalize(path)?;
    let before = Zeroizing::new(fs::read(&path)?);
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let replaced = write_text(&partial, &before, key).and_then(|()| fs::rename(&partial, &path));
    if replaced.is_err() {
        // The error of the replacement is the one that counts.
        drop(fs::remove_file(&partial));
    }
    replaced?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn write_key(path: &Path, key: &MasterKey) -> io::Result<()> {
    const HEAD: &[u8] = b"# The master key of this deployment: whoever has it can open every stored credential.\n";
    write_text(path, HEAD, key)
}

fn write_text(path: &Path, before: &[u8], key: &MasterKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(before)?;
    if !before.ends_with(b"\n") {
        file.write_all(b"\n")?;
    }
    file.write_all(key.line().expose().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    fn key(seed: u64) -> MasterKey {
        MasterKey::generate(&SeededRandom::new(seed)).expect("seeded")
    }

    #[test]
    fn the_last_key_seals_and_all_open() {
        let text = format!("# ring\n{}\n\n{} # new\n", key(1).line().expose(), key(2).line().expose());
        let ring = KeyRing::parse(&text, "test").expect("two keys");
        assert_eq!(ring.newest().id(), key(2).id());
        assert_eq!(ring.ids(), [key(2).id(), key(1).id()]);
        assert!(ring.key(key(1).id()).is_some() && ring.key(key(3).id()).is_none());
    }

    #[test]
    fn damage_is_named_and_not_repeated() {
        let line = key(1).line();
        let flipped = line.expose().replace('A', "B");
        for (text, expected) in [
            (String::new(), "holds no key"),
            ("# only a comment".to_owned(), "holds no key"),
            (format!("{flipped}x"), "key 1: not a key"),
            (format!("{}\nhunter2hunter2", line.expose()), "key 2: not a key"),
            (format!("{0} {0}", line.expose()), "twice"),
        ] {
            let error = KeyRing::parse(&text, "KEY").expect_err(expected).to_string();
            assert!(error.contains(expected) && error.contains("KEY") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_key_is_made_only_in_development_mode_and_only_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let source = KeySource::File(directory.path().join("data/master.key"));
        let load = |mode, seed| KeyRing::load(&source, mode, &|_| None, &SeededRandom::new(seed));
        assert!(matches!(load(Mode::Production, 1), Err(KeyError::NoFile(_))));
        let made = load(Mode::Development, 1).expect("made").expect("a ring").newest().id();
        assert_eq!(load(Mode::Development, 2).expect("read").expect("a ring").newest().id(), made);
        assert_eq!(load(Mode::Production, 3).expect("read").expect("a ring").newest().id(), made);
        let KeySource::File(path) = &source else { panic!("a file") };
        assert_eq!(fs::metadata(path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().expect("parent")).expect("listed").count(), 1);
    }

    #[test]
    fn an_appended_key_seals_and_the_file_keeps_what_it_had() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&path, format!("# ours\n{}", key(1).line().expose())).expect("written");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        append(&link, &key(2)).expect("appended");
        let text = fs::read_to_string(&path).expect("read");
        let ring = KeyRing::parse(&text, "test").expect("two keys");
        assert_eq!(ring.ids(), [key(2).id(), key(1).id()]);
        assert!(text.starts_with("# ours\n") && fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 2, "no partial file stays");
        assert!(append(&directory.path().join("gone"), &key(3)).is_err());
    }

    #[test]
    fn a_variable_holds_the_same_text() {
        let text = format!("{} {}", key(1).line().expose(), key(2).line().expose());
        let source = KeySource::Environment("TRUNKLINE_MASTER_KEY".to_owned());
        let load =
            |value: Option<String>| KeyRing::load(&source, Mode::Production, &|_| value.clone(), &SeededRandom::new(9));
        assert_eq!(load(Some(text)).expect("read").expect("a ring").newest().id(), key(2).id());
        assert!(matches!(load(None), Err(KeyError::NoVariable(_))));
    }

    #[test]
    fn debug_output_has_no_key() {
        let ring = KeyRing::parse(key(1).line().expose(), "test").expect("a key");
        let encoded = URL_SAFE_NO_PAD.encode(key(1).bytes());
        assert!(!format!("{ring:?}").contains(&encoded));
    }
}
