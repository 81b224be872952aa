//! Secrets of endpoints: made in the form that a scheme wants, and what is entered compared with it. Called by the
//! room's front.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::definition::plan::webhook::{KeyEncoding, Verify};
use crate::webhook::verify::key::Key;

/// Random bytes of a secret.
const BYTES: usize = 32;
/// The fewest and most characters of a secret that is entered.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=512;

/// A fresh secret.
///
/// # Errors
/// When there is no randomness.
pub(super) fn fresh(verify: &Verify, random: &dyn Random) -> Result<Secret, RandomUnavailable> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    random.fill(&mut *bytes)?;
    let Verify::Hmac(scheme) = verify else { return Ok(Secret::new(URL_SAFE_NO_PAD.encode(*bytes))) };
    let text = match scheme.key.encoding {
        KeyEncoding::Hex => {
            bytes.iter().fold(String::with_capacity(2 * BYTES), |text, byte| text + &format!("{byte:02x}"))
        }
        KeyEncoding::Base64 => STANDARD.encode(*bytes),
        KeyEncoding::Utf8 | KeyEncoding::Base64Url => URL_SAFE_NO_PAD.encode(*bytes),
    };
    Ok(Secret::new(format!("{}{text}", scheme.key.strip_prefix.as_deref().unwrap_or_default())))
}

/// Whether a secret that was entered, or that a service made, is one that the scheme can use.
pub(super) fn fits(verify: &Verify, secret: &Secret) -> bool {
    let text = secret.expose();
    let plain = LENGTH.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    match verify {
        Verify::Hmac(scheme) => plain && Key::of(&scheme.key, secret).is_some(),
        Verify::Token(_) | Verify::Basic { .. } => plain,
        Verify::NotYet(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;
    use crate::definition::plan::webhook::{Digest, Hmac, KeyForm};

    #[test]
    fn every_form_of_key_gets_a_secret_that_fits_it() {
        let random = SeededRandom::new(3);
        for encoding in [KeyEncoding::Utf8, KeyEncoding::Hex, KeyEncoding::Base64, KeyEncoding::Base64Url] {
            let key = KeyForm { strip_prefix: Some("whsec_".to_owned()), encoding };
            let verify = Verify::Hmac(Hmac {
                algorithm: Digest::Sha256,
                key,
                signatures: Vec::new(),
                timestamp: None,
                signed: Vec::new(),
            });
            let secret = fresh(&verify, &random).expect("seeded");
            assert!(secret.expose().starts_with("whsec_") && fits(&verify, &secret), "{encoding:?}");
            assert!(!fits(&verify, &Secret::from("short")) && !fits(&verify, &Secret::from("has a space in it")));
        }
    }
}
