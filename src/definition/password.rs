//! Hashes of passwords: argon2id in PHC form, with bounds on what one costs to compare.
//!
//! A hash comes from a file, and its parameters say how much memory and time a sign-in takes: what is too weak to
//! protect a password, or so strong that a few sign-ins would take the machine, is refused when the file is read.
//! Called by `check`, the admin door and `trunkline password`.

use argon2::password_hash::{PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Memory in KiB, passes and lanes of hashes that are made here: what OWASP's password storage sheet names first
/// for argon2id.
const MADE: (u32, u32, u32) = (19_456, 2, 1);
/// The least and the most memory in KiB of hashes that are taken.
const MEMORY: std::ops::RangeInclusive<u32> = 7_168..=262_144;
/// The most passes, and the most lanes.
const MOST: (u32, u32) = (10, 4);

/// Reads a hash.
///
/// # Errors
/// What is wrong with it, as a fragment.
pub fn read(text: &str) -> Result<PasswordHash<'_>, &'static str> {
    let hash = PasswordHash::new(text).map_err(|_| "this is not an argon2id hash in PHC form")?;
    let params = Params::try_from(&hash).map_err(|_| "the parameters of this hash cannot be read")?;
    let known = hash.algorithm == Algorithm::Argon2id.ident() && hash.salt.is_some() && hash.hash.is_some();
    if !known {
        return Err("only argon2id hashes with salt are taken");
    }
    if !MEMORY.contains(&params.m_cost()) || params.t_cost() > MOST.0 || params.p_cost() > MOST.1 {
        return Err("this hash is too weak or too costly: 7 to 256 MiB, at most 10 passes and 4 lanes are taken");
    }
    Ok(hash)
}

/// The hash of a password.
///
/// # Errors
/// When the password is longer than argon2 takes.
pub fn hash(password: &[u8], salt: &[u8; 16]) -> Result<String, argon2::password_hash::Error> {
    let (memory, passes, lanes) = MADE;
    let params = Params::new(memory, passes, lanes, None)?;
    let salt = STANDARD_NO_PAD.encode(salt);
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Ok(hasher.hash_password(password, Salt::from_b64(&salt)?)?.to_string())
}

/// Whether a password is the one of a hash. Takes tens of milliseconds and the hash's memory: not for a thread
/// that others wait for.
pub fn fits(password: &[u8], hash: &str) -> bool {
    read(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_own_hash_and_no_other() {
        let made = hash(b"correct horse", &[1; 16]).expect("a hash");
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
        assert!(fits(b"correct horse", &made) && !fits(b"correct horsf", &made) && !fits(b"", &made));
        assert!(!fits(b"correct horse", "not a hash"));
    }

    #[test]
    fn weak_costly_and_foreign_hashes_are_refused() {
        let tail = "c2FsdHNhbHRzYWx0c2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObG";
        for head in [
            "$argon2id$v=19$m=64,t=1,p=1$",
            "$argon2id$v=19$m=4194304,t=2,p=1$",
            "$argon2id$v=19$m=19456,t=99,p=1$",
            "$argon2i$v=19$m=19456,t=2,p=1$",
            "$pbkdf2-sha256$i=600000$",
        ] {
            assert!(read(&format!("{head}{tail}")).is_err(), "{head}");
        }
        assert!(read(&format!("$argon2id$v=19$m=19456,t=2,p=1${tail}")).is_ok());
    }
}
