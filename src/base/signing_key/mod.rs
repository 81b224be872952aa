//! Keys that sign: read once, typed by their algorithm, never printed.
//!
//! A key belongs to the algorithm it was read for, so that no text chosen elsewhere decides how it is
//! used (an RSA key is never taken for a shared secret). Called by `definition`, which reads keys at
//! load, and by `connection`, which signs with them.

mod read;

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use ring::{hmac, signature};

use super::secret::Secret;

/// A signature algorithm of RFC 7518 or RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the RFCs'")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// How the text of a shared secret becomes key bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// Its UTF-8 bytes.
    #[default]
    Utf8,
    /// Hexadecimal, in either case.
    Hex,
    /// Base 64, padded or not.
    Base64,
    /// Base 64 with the URL alphabet, padded or not.
    Base64Url,
}

/// A key that signs by one algorithm.
pub struct SigningKey {
    algorithm: Algorithm,
    id: Option<String>,
    material: Material,
}

enum Material {
    Shared(hmac::Key),
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
    Ecdsa(EcdsaKeyPair, SystemRandom),
    Ed25519(Ed25519KeyPair),
}

/// Why a text is not a key of an algorithm. Its text never repeats the key's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The text is neither PEM nor a JWK.
    #[error("this is no key for {0:?}: expected PEM with a private key, or a JWK")]
    Form(Algorithm),
    /// The PEM text holds no private key.
    #[error("there is no private key in this PEM text; a certificate or a public key cannot sign")]
    NoPrivateKey,
    /// The key is protected by a passphrase.
    #[error("this key is protected by a passphrase: write it without one, such as with `openssl pkey`")]
    Encrypted,
    /// The JWK is of another kind, or lacks a member.
    #[error("this JWK is no key for {algorithm:?}: {lacks}")]
    Jwk {
        /// What it was read for.
        algorithm: Algorithm,
        /// What is missing or of another kind.
        lacks: String,
    },
    /// The key is of another kind than the algorithm.
    #[error("this key does not fit {algorithm:?}, which needs {needs} ({reason})")]
    Kind {
        /// What it was read for.
        algorithm: Algorithm,
        /// What would fit.
        needs: &'static str,
        /// The library's word for it.
        reason: String,
    },
    /// The shared secret's text is not in its encoding.
    #[error("the shared secret is not in the encoding that `key_encoding` says")]
    Encoding,
    /// The shared secret is empty.
    #[error("the shared secret is empty")]
    Empty,
    /// A private key stands where a shared secret is meant.
    #[error("this is a private key in PEM, and {0:?} signs with a shared secret")]
    PemForShared(Algorithm),
}

/// The library did not sign: there was no randomness, or the parts of the key do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key did not sign: its parts do not belong together, or there is no randomness")]
pub struct Unsigned;

impl Algorithm {
    /// Its name in a JOSE header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Whether its key is a shared secret.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

impl SigningKey {
    /// Reads a key: PEM (PKCS #8, PKCS #1, SEC 1) or a JWK; for HS algorithms a secret in `encoding` or a
    /// JWK of type `oct`. PEM whose line breaks are written `\n`, as in environment variables, is read too.
    ///
    /// # Errors
    /// Why the text is no key for this algorithm.
    pub fn read(algorithm: Algorithm, text: &Secret, encoding: Encoding) -> Result<Self, KeyFault> {
        read::key(algorithm, text.expose(), encoding)
    }

    /// The algorithm it signs by.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The `kid` of the JWK it was read from.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The signature of a message in the form that RFC 7518 gives it: fixed-length for ECDSA.
    ///
    /// # Errors
    /// [`Unsigned`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unsigned> {
        match &self.material {
            Material::Shared(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Material::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &SystemRandom::new(), message, &mut signature).map_err(|_| Unsigned)?;
                Ok(signature)
            }
            Material::Ecdsa(pair, random) => {
                pair.sign(random, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| Unsigned)
            }
            Material::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// Whether a signature of this form is this key's over the message: for the other side of what it
    /// signs, as the simulated services are.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = match &self.material {
            Material::Shared(key) => return hmac::verify(key, message, signature).is_ok(),
            Material::Rsa(pair, _) => pair.public().as_ref(),
            Material::Ecdsa(pair, _) => pair.public_key().as_ref(),
            Material::Ed25519(pair) => pair.public_key().as_ref(),
        };
        let by: &dyn signature::VerificationAlgorithm = match self.algorithm {
            // Shared secrets have returned.
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => return false,
            Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
            Algorithm::EdDSA => &signature::ED25519,
        };
        signature::UnparsedPublicKey::new(by, public).verify(message, signature).is_ok()
    }
}

/// Says which kind of key it is, never the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_knows_its_own_signatures_and_no_others() {
        let cases = [
            (Algorithm::HS256, "a shared secret"),
            (Algorithm::RS256, include_str!("../../../tests/vectors/keys/rsa.pkcs8.pem")),
            (Algorithm::PS384, include_str!("../../../tests/vectors/keys/rsa.pkcs8.pem")),
            (Algorithm::ES256, include_str!("../../../tests/vectors/keys/p256.pkcs8.pem")),
            (Algorithm::ES384, include_str!("../../../tests/vectors/keys/p384.pkcs8.pem")),
            (Algorithm::EdDSA, include_str!("../../../tests/vectors/keys/ed25519.pkcs8.pem")),
        ];
        for (algorithm, text) in cases {
            let key = SigningKey::read(algorithm, &Secret::from(text), Encoding::Utf8).expect("a key");
            let mut signature = key.sign(b"message").expect("signed");
            assert!(key.verifies(b"message", &signature), "{algorithm:?}");
            assert!(!key.verifies(b"another", &signature), "{algorithm:?}");
            signature[0] ^= 1;
            assert!(!key.verifies(b"message", &signature), "{algorithm:?}");
        }
    }
}
