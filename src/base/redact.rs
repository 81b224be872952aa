//! Secrets taken out of texts: services repeat what they were sent, and not always as it was sent.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::secret::Secret;

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";
/// The shortest secret that is looked for: shorter ones would make holes in ordinary words.
const SHORTEST: usize = 4;
/// The shortest beginning of a secret that is looked for where a text ends.
const SHORTEST_BEGINNING: usize = 6;
/// The shortest part of base 64 that is looked for.
const SHORTEST_PART: usize = 8;
/// All that RFC 3986 does not call unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// All that HTML forms do not leave as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

/// `text` without any of these secrets: as they are, percent-encoded by any of the usual rules, as JSON writes
/// them, and in base 64 or hexadecimal, also as a part of something longer. What a text ends with may be the beginning of
/// a secret, because services' words are cut to a length: that is taken out as well.
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    let wanted = secrets.into_iter().filter(|secret| secret.expose().len() >= SHORTEST);
    let mut forms: Vec<Secret> = wanted.flat_map(|secret| spellings(secret.expose())).collect();
    // A shorter form may be a part of a longer one, whose rest would stay.
    forms.sort_by_key(|form| std::cmp::Reverse(form.expose().len()));
    let mut clean = text.to_owned();
    for form in &forms {
        if clean.contains(form.expose().as_str()) {
            clean = clean.replace(form.expose().as_str(), REDACTED);
        }
    }
    if let Some(length) = forms.iter().filter_map(|form| beginning_at_end(&clean, form.expose())).max() {
        clean.truncate(clean.len() - length);
        clean.push_str(REDACTED);
    }
    clean
}

/// How many bytes at the end of a text are the beginning of a secret, the most of them.
fn beginning_at_end(text: &str, secret: &str) -> Option<usize> {
    let ends = secret.char_indices().map(|(end, _)| end).filter(|end| *end >= SHORTEST_BEGINNING);
    ends.rev().find(|end| secret.get(..*end).is_some_and(|beginning| text.ends_with(beginning)))
}

/// Whatever a secret may be written as, made once for many texts.
#[derive(Default)]
pub struct Spellings(Vec<Secret>);

impl Spellings {
    /// Those of a secret; none of one that is too short to be looked for.
    pub fn of(secret: &str) -> Self {
        Self(if secret.len() < SHORTEST { Vec::new() } else { spellings(secret) })
    }

    /// Whether `text` holds the secret in any of them.
    pub fn are_in(&self, text: &str) -> bool {
        self.0.iter().any(|form| text.contains(form.expose().as_str()))
    }
}

fn spellings(secret: &str) -> Vec<Secret> {
    let json = serde_json::Value::from(secret).to_string();
    let json = json.trim_matches('"').to_owned();
    let hex = secret.bytes().fold(String::new(), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    });
    let mut all = vec![secret.to_owned(), json.replace('/', "\\/"), json, hex.to_uppercase(), hex];
    for set in [RESERVED, FORM, NON_ALPHANUMERIC] {
        let encoded = utf8_percent_encode(secret, set).to_string();
        let spaces = encoded.replace("%20", "+");
        all.extend([lower(&encoded), lower(&spaces), encoded, spaces]);
    }
    // Within something longer its bytes begin at any of three places in a group of base 64.
    for offset in 0..3 {
        let shifted = [&b"\0\0"[..offset], secret.as_bytes()].concat();
        let (from, to) = ((offset * 8).div_ceil(6), shifted.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            all.extend(
                engine.encode(&shifted).get(from..to).filter(|part| part.len() >= SHORTEST_PART).map(str::to_owned),
            );
        }
    }
    all.into_iter().map(Secret::new).collect()
}

/// The same with escapes in lower case.
fn lower(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escape, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        _ = write!(text, "%{}{rest}", escape.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> String {
        redact(text, &[Secret::from("a~b/c+d e\"é1"), Secret::from("abc")])
    }

    #[test]
    fn secrets_are_found_however_they_are_written() {
        for written in [
            "a~b/c+d e\"é1",
            "a~b%2Fc%2Bd%20e%22%C3%A91",
            "a~b%2fc%2bd%20e%22%c3%a91",
            "a%7Eb%2Fc%2Bd+e%22%C3%A91",
            "a~b/c+d e\\\"é1",
            "a~b\\/c+d e\\\"é1",
            "617e622f632b64206522c3a931",
            "617E622F632B64206522C3A931",
        ] {
            assert_eq!(clean(&format!("said {written} then")), "said [redacted] then");
        }
        let basic = STANDARD_NO_PAD.encode("user:a~b/c+d e\"é1");
        let left = clean(&format!("Basic {basic}"));
        assert!(left.contains("[redacted]") && left.len() < 40, "{left}");
        assert_eq!(clean("abc and abcd"), "abc and abcd", "what is too short is not looked for");
    }

    #[test]
    fn a_secret_that_was_cut_with_the_text_leaves_nothing_of_it() {
        let secret = "s3cr+t/=%&CLIENTCANARY0123456789";
        for written in
            [secret.to_owned(), utf8_percent_encode(secret, FORM).to_string(), STANDARD_NO_PAD.encode(secret)]
        {
            for cut in SHORTEST_BEGINNING..written.len() - 1 {
                let left = redact(&format!("said {}", written.get(..cut).expect("ASCII")), &[Secret::from(secret)]);
                assert_eq!(left, "said [redacted]", "{cut}");
            }
        }
        assert_eq!(redact("said s3cr+", &[Secret::from(secret)]), "said s3cr+", "a word may begin so");
    }

    #[test]
    fn a_secret_that_is_part_of_another_leaves_nothing_of_it() {
        let secrets = [Secret::from("token"), Secret::from("token-and-more")];
        assert_eq!(redact("token-and-more token", &secrets), "[redacted] [redacted]");
    }
}
