//! RSA with SHA-1 (RFC 8017, 8.2), for OAuth 1.0a alone: a few old services know no other signature.
//!
//! `ring` does not sign with SHA-1, which is right for everything else; so this one key is of another
//! library. Called by `definition`, which reads keys at load, and by `connection`, which signs with them.

use std::fmt;

use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{Pkcs1v15Sign, PrivateKey};
use sha1::{Digest as _, Sha1};

use super::secret::Secret;
use super::signing_key::Unsigned;

/// The least length of a modulus.
const LEAST_BITS: usize = 1024;

/// A private key that signs so.
pub struct RsaSha1Key(PrivateKey);

/// Says that there is a key, never which.
impl fmt::Debug for RsaSha1Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaSha1Key(…)")
    }
}

/// The text is no key of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no RSA private key of 1024 bits or more in PEM (PKCS #8 or PKCS #1, without a passphrase)")]
pub struct NoRsaKey;

impl RsaSha1Key {
    /// Reads PEM: PKCS #8 or PKCS #1. Line breaks written `\n` are read too.
    ///
    /// # Errors
    /// [`NoRsaKey`].
    pub fn read(text: &Secret) -> Result<Self, NoRsaKey> {
        let unfolded = Secret::new(text.expose().replace("\\n", "\n"));
        let pem = unfolded.expose();
        let key = PrivateKey::from_pkcs8_pem(pem).or_else(|_| PrivateKey::from_pkcs1_pem(pem).map_err(|_| NoRsaKey))?;
        if key.size() * 8 < LEAST_BITS { Err(NoRsaKey) } else { Ok(Self(key)) }
    }

    /// The signature of a message.
    ///
    /// # Errors
    /// [`Unsigned`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unsigned> {
        self.0.sign(Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(message)).map_err(|_| Unsigned)
    }
}
