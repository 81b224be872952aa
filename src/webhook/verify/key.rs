//! Secrets as key bytes, and comparing in constant time.

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::base::secret::Secret;
use crate::definition::plan::webhook::{KeyEncoding, KeyForm};

/// Padding may be there or not; surplus bits of the last character must be zero, so that a value has one
/// spelling.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Key bytes; never empty, because a MAC under an empty key proves nothing.
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// The key that a secret's text stands for; `None` when it is not in that form or empty.
    pub fn of(form: &KeyForm, secret: &Secret) -> Option<Self> {
        let text = secret.expose();
        let rest = form.strip_prefix.as_deref().and_then(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let bytes = match form.encoding {
            KeyEncoding::Utf8 => rest.as_bytes().to_vec(),
            KeyEncoding::Hex => hex(rest.as_bytes(), true)?,
            KeyEncoding::Base64 => base64(rest.as_bytes(), &STANDARD)?,
            KeyEncoding::Base64Url => base64(rest.as_bytes(), &URL_SAFE)?,
        };
        (!bytes.is_empty()).then(|| Self(Zeroizing::new(bytes)))
    }

    /// The bytes, for a MAC.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Says that there is a key, never which.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Reads hexadecimal digits in pairs.
pub(super) fn hex(text: &[u8], upper: bool) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' if upper => Some(byte - b'A' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// Reads base 64, padded or not, in its one canonical spelling.
pub(super) fn base64(text: &[u8], alphabet: &Alphabet) -> Option<Vec<u8>> {
    GeneralPurpose::new(alphabet, LENIENT).decode(text).ok()
}

/// Whether two texts are the same, in a time that tells nothing of where they differ or of their
/// lengths beyond what a hash of each takes: digests of both are compared, in constant time.
pub(super) fn same(ours: &[u8], theirs: &[u8]) -> bool {
    // A fixed key serves: the digest only has to bring both to one length.
    let digest = |text: &[u8]| Hmac::<Sha256>::new_from_slice(b"trunkline").map(|mac| mac.chain_update(text));
    match (digest(ours), digest(theirs)) {
        (Ok(ours), Ok(theirs)) => ours.verify(&theirs.finalize().into_bytes()).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Clock, SystemClock};
    use crate::base::random::{Random, SeededRandom};
    use std::hint::black_box;

    fn key(encoding: KeyEncoding, strip: Option<&str>, text: &str) -> Option<Vec<u8>> {
        let form = KeyForm { strip_prefix: strip.map(str::to_owned), encoding };
        Key::of(&form, &Secret::from(text)).map(|key| key.bytes().to_vec())
    }

    #[test]
    fn a_prefix_comes_off_and_padding_is_free() {
        for text in ["whsec_YWI=", "whsec_YWI", "YWI="] {
            assert_eq!(key(KeyEncoding::Base64, Some("whsec_"), text).as_deref(), Some(&b"ab"[..]), "{text}");
        }
        assert_eq!(key(KeyEncoding::Hex, None, "0aFF").as_deref(), Some(&[10, 255][..]));
    }

    #[test]
    fn no_key_is_empty_or_ill_formed() {
        assert_eq!(key(KeyEncoding::Utf8, None, ""), None);
        assert_eq!(key(KeyEncoding::Base64, Some("whsec_"), "whsec_"), None);
        assert_eq!(key(KeyEncoding::Hex, None, "abc"), None);
        assert_eq!(key(KeyEncoding::Base64, None, "a b"), None);
    }

    #[test]
    fn base_64_has_one_spelling() {
        assert_eq!(base64(b"YWI", &URL_SAFE).as_deref(), Some(&b"ab"[..]));
        assert_eq!(base64(b"YWJ", &URL_SAFE), None);
    }

    /// Welch's t of how long `compare` takes for two inputs, taken in random order, the slowest tenth of the
    /// measurements left out: what interrupts a measurement is no part of it.
    fn t_of(compare: impl Fn(&[u8]) -> bool, inputs: [&[u8]; 2]) -> f64 {
        let (clock, random) = (SystemClock::new(), SeededRandom::new(1));
        let mut taken = [Vec::new(), Vec::new()];
        for _ in 0..MEASURED {
            let class = usize::from(random.unit() < 0.5);
            let begun = clock.monotonic();
            for _ in 0..8 {
                black_box(compare(black_box(inputs[class])));
            }
            taken[class].push(clock.monotonic().saturating_sub(begun).as_secs_f64() * 1e9);
        }
        let mut all: Vec<f64> = taken.iter().flatten().copied().collect();
        all.sort_by(f64::total_cmp);
        let limit = all[all.len() * 9 / 10];
        let [a, b] = taken.map(|mut times| {
            times.retain(|time| *time < limit);
            let count = times.iter().map(|_| 1.0).sum::<f64>();
            let mean = times.iter().sum::<f64>() / count;
            let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (mean, variance / count)
        });
        (a.0 - b.0) / (a.1 + b.1).sqrt()
    }

    const MEASURED: usize = 100_000;

    /// As dudect does it. The comparison that stops at the first difference shows that the measurement can
    /// fail.
    #[test]
    #[ignore = "measures time: run it by name with --release on a quiet machine"]
    fn the_time_of_a_comparison_does_not_tell_where_it_differs() {
        let secret = [7_u8; 64];
        let (mut early, mut late) = (secret, secret);
        (early[0], late[63]) = (8, 8);
        let stops = |given: &[u8]| given.iter().zip(&secret).all(|(a, b)| black_box(a) == black_box(b));
        let naive = t_of(stops, [&early, &late]);
        let secrets = t_of(|given| same(&secret, given), [&early, &late]);
        let lengths = t_of(|given| same(&secret, given), [&early[..40], &late[..50]]);
        let mac = Hmac::<Sha256>::new_from_slice(b"key").expect("any length").chain_update(b"body");
        let right: Vec<u8> = mac.clone().finalize().into_bytes().to_vec();
        let (mut first, mut last) = (right.clone(), right);
        (first[0], last[31]) = (!first[0], !last[31]);
        let macs = t_of(|given| mac.clone().verify_slice(given).is_ok(), [&first, &last]);
        println!("t: naive {naive:.1}, secrets {secrets:.1}, lengths {lengths:.1}, MACs {macs:.1}");
        assert!(naive.abs() > 20.0, "the measurement sees nothing on this machine: {naive}");
        assert!(secrets.abs() < 10.0 && lengths.abs() < 10.0 && macs.abs() < 10.0);
    }

    #[test]
    fn same_is_same() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
