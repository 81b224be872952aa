//! Signed tokens, compiled: the key is read here, so that a file with a wrong one is told at load.

use std::sync::Arc;
use std::time::Duration;

use super::place::{Fault, Place};
use crate::base::secret::Secret;
use crate::base::signing_key::{Algorithm, Encoding, SigningKey};
use crate::definition::plan::assertion::Assertion;
use crate::definition::problem::Code;
use crate::definition::raw::auth as raw;
use crate::definition::raw::scalar::SecretText;

/// How long a token lives where nothing is written.
const TTL: Duration = Duration::from_mins(5);

pub(super) fn compile(raw: &raw::Assertion, place: &Place<'_>) -> Result<Assertion, Fault> {
    let algorithm = algorithm(raw.algorithm);
    let encoding = raw.key_encoding.map_or_else(Encoding::default, encoding);
    let read = |text: &SecretText| {
        let secret = Secret::new(text.0.expose().clone());
        read_key(algorithm, &secret, encoding).map_err(|words| place.at("key").problem(Code::BadFormat, words))
    };
    Ok(Assertion {
        algorithm,
        key: raw.key.as_ref().map(read).transpose()?.map(Arc::new),
        encoding,
        key_id: raw.key_id.as_ref().map(|id| place.at("key_id").text(id)).transpose()?,
        claims: place.at("claims").trees(&raw.claims)?,
        ttl: raw.ttl.map_or(TTL, |ttl| ttl.0),
    })
}

/// Reads a key for an algorithm.
///
/// # Errors
/// What is wrong with it, in words; never its text.
pub fn read_key(algorithm: Algorithm, text: &Secret, encoding: Encoding) -> Result<SigningKey, String> {
    SigningKey::read(algorithm, text, encoding).map_err(|fault| fault.to_string())
}

/// An algorithm as it is written.
pub fn algorithm(written: raw::JwtAlgorithm) -> Algorithm {
    use raw::JwtAlgorithm as Raw;
    match written {
        Raw::HS256 => Algorithm::HS256,
        Raw::HS384 => Algorithm::HS384,
        Raw::HS512 => Algorithm::HS512,
        Raw::RS256 => Algorithm::RS256,
        Raw::RS384 => Algorithm::RS384,
        Raw::RS512 => Algorithm::RS512,
        Raw::PS256 => Algorithm::PS256,
        Raw::PS384 => Algorithm::PS384,
        Raw::PS512 => Algorithm::PS512,
        Raw::ES256 => Algorithm::ES256,
        Raw::ES384 => Algorithm::ES384,
        Raw::EdDSA => Algorithm::EdDSA,
    }
}

/// An encoding as it is written.
pub fn encoding(written: raw::KeyEncoding) -> Encoding {
    match written {
        raw::KeyEncoding::Utf8 => Encoding::Utf8,
        raw::KeyEncoding::Hex => Encoding::Hex,
        raw::KeyEncoding::Base64 => Encoding::Base64,
        raw::KeyEncoding::Base64url => Encoding::Base64Url,
    }
}
