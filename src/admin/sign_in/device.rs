//! Browsers that an account has signed in from: each has a cookie that says so, made of a random number and of what is
//! known here alone, the hashes that stand in the settings. Nothing is kept, and another password makes all of them void.
//!
//! Such a browser's guesses are counted by its cookie and by nothing else, so that strangers who guess an account's name,
//! from wherever, keep its owner waiting only where the owner has never been.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::definition::plan::gateway::Account;

/// Bytes of the number, and characters of it as text.
const NUMBER: usize = 16;
const TEXT: usize = 22;

/// A cookie's value for a browser from which an account has just signed in; `None` when there is no randomness.
pub fn issue(account: &Account, random: &dyn Random) -> Option<Secret> {
    let mut number = [0; NUMBER];
    random.fill(&mut number).ok()?;
    let number = URL_SAFE_NO_PAD.encode(number);
    let proof = URL_SAFE_NO_PAD.encode(hmac::sign(&key(account), number.as_bytes()));
    Some(Secret::new(format!("{number}{proof}")))
}

/// Whether a cookie's value was made for this account.
pub fn is_of(account: &Account, value: &str) -> bool {
    let Some((number, proof)) = value.split_at_checked(TEXT) else { return false };
    let proof = URL_SAFE_NO_PAD.decode(proof).unwrap_or_default();
    hmac::verify(&key(account), number.as_bytes(), &proof).is_ok()
}

fn key(account: &Account) -> hmac::Key {
    let whose = format!("device of {}\0{}", account.name, super::fingerprint(account));
    hmac::Key::new(hmac::HMAC_SHA256, whose.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SystemRandom;
    use crate::definition::plan::gateway::Role;

    #[test]
    fn a_cookie_is_of_one_account_and_one_password() {
        let account = |name: &str, password: &str| Account {
            name: name.into(),
            role: Role::Viewer,
            password: Some(password.into()),
            token: None,
        };
        let ada = account("ada", "$argon2id$1");
        let value = issue(&ada, &SystemRandom::default()).expect("randomness").expose().clone();
        assert!(is_of(&ada, &value));
        assert!(!is_of(&account("ada", "$argon2id$2"), &value) && !is_of(&account("bob", "$argon2id$1"), &value));
        let number = value.get(..TEXT).expect("a number");
        for wrong in ["", "é", number, &value.replace(number, &"A".repeat(TEXT))] {
            assert!(!is_of(&ada, wrong), "{wrong}");
        }
    }
}
