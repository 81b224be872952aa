//! Secrets taken out of texts: services repeat what they were sent, and not always as it was sent.

use std::fmt::{self, Write as _};
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

use super::escape::{self, Reading};
use super::secret::Secret;

/// What stands in a secret's place.
pub const REDACTED: &str = "[redacted]";
/// The shortest secret that is looked for: shorter ones would make holes in ordinary words.
const SHORTEST: usize = 4;
/// The shortest beginning of a secret that is looked for where a text ends.
const SHORTEST_BEGINNING: usize = 6;
/// The fewest bytes of the secret in it, which may be longer for their escapes.
const FEWEST: usize = 4;
/// The most bytes that one byte takes in any escape that is looked through.
const LONGEST_ESCAPE: usize = 12;
/// The shortest part of base 64 that is looked for.
const SHORTEST_PART: usize = 8;

/// What takes secrets out of texts, made once for many.
///
/// A secret is found as it is, in whatever escapes JSON, URLs, forms, HTML and XML write it with, in one or several
/// layers, in the URL-safe alphabet where it is base 64 itself, and in base 64 or hexadecimal, also as a part of
/// something longer. What a text ends with may be the beginning of a secret, because
/// services' words are cut to a length: that is taken out as well.
#[derive(Default)]
pub struct Redactor(Vec<Spellings>);

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.0.len())
    }
}

impl Redactor {
    /// Of these secrets.
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self(secrets.into_iter().map(|secret| Spellings::of(secret.expose())).collect())
    }

    /// A text without them.
    pub fn redact(&self, text: &str) -> String {
        without(text, &self.0, true)
    }

    /// A text without them that is known to be whole: what it ends with stays. An account's id is often what its tokens
    /// begin with, and a word that a service uses may be what a secret begins with.
    pub fn redact_whole(&self, text: &str) -> String {
        without(text, &self.0, false)
    }
}

/// A text without these secrets, by a [`Redactor`] of its own.
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    Redactor::of(secrets).redact(text)
}

/// The same of a text that is known to be whole.
pub fn redact_whole<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    Redactor::of(secrets).redact_whole(text)
}

fn without(text: &str, wanted: &[Spellings], may_be_cut: bool) -> String {
    let mut found = Vec::new();
    for part in parts(text, wanted) {
        let (from, is_last) = (part.start, part.end == text.len());
        let at = |range: Range<usize>| range.start + from..range.end + from;
        let part = text.get(part).unwrap_or_default();
        let is_cut = may_be_cut && is_last;
        escape::readings(part, is_cut, |reading| {
            for spellings in wanted {
                spellings.find(reading, |range| found.push(at(range)));
                found.extend(spellings.begun(reading, part.len()).filter(|_| is_cut).map(at));
            }
            if let Some(unbroken) = reading.unbroken() {
                for spellings in wanted {
                    spellings.find(&unbroken, |range| found.push(at(range)));
                }
            }
        });
    }
    replaced(text, found)
}

/// The text in parts of which each secret, however it is written, is in one: what is read at once is kept in several forms.
fn parts(text: &str, wanted: &[Spellings]) -> Vec<Range<usize>> {
    let longest = wanted.iter().flat_map(|spellings| &spellings.forms).map(|form| form.expose().len()).max();
    let Some(longest) = longest else { return Vec::new() };
    let overlap = longest.saturating_mul(LONGEST_ESCAPE).clamp(4 << 10, 1 << 20);
    let step = overlap.saturating_mul(4).max(256 << 10);
    let (mut parts, mut from) = (Vec::new(), 0);
    loop {
        let end = text.ceil_char_boundary((from + step).min(text.len()));
        parts.push(from..end);
        if end == text.len() {
            return parts;
        }
        from = text.floor_char_boundary(end - overlap);
    }
}

/// `text` with each of these stretches replaced; those that overlap are one.
fn replaced(text: &str, mut found: Vec<Range<usize>>) -> String {
    found.sort_unstable_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    let mut found = found.into_iter().peekable();
    while let Some(mut range) = found.next() {
        while let Some(next) = found.next_if(|next| next.start < range.end) {
            range.end = range.end.max(next.end);
        }
        let (start, end) = (text.floor_char_boundary(range.start), text.ceil_char_boundary(range.end));
        out.push_str(text.get(from..start).unwrap_or_default());
        out.push_str(REDACTED);
        from = end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// Whatever a secret may be written as when no character of it is escaped, made once for many texts.
#[derive(Default)]
pub struct Spellings {
    /// As it is, with its own escapes read, in the URL-safe alphabet where it is base 64 (without padding), with plus signs
    /// for spaces; and in base 64 and hexadecimal.
    forms: Vec<Secret<Vec<u8>>>,
    /// How many signs of padding may follow.
    padding: usize,
}

impl Spellings {
    /// Those of a secret; none of one that is too short to be looked for.
    pub fn of(secret: &str) -> Self {
        if secret.len() < SHORTEST {
            return Self::default();
        }
        let plain = secret.trim_end_matches('=');
        let is_base64 = plain.contains(['+', '/'])
            && plain.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '+' | '/'));
        let (written, padding) = if is_base64 { (plain, secret.len() - plain.len()) } else { (secret, 0) };
        let mut forms = vec![written.as_bytes().to_vec(), escape::innermost(written)];
        if is_base64 {
            forms.push(written.replace('+', "-").replace('/', "_").into_bytes());
        }
        if written.contains(' ') {
            forms.push(written.replace(' ', "+").into_bytes());
        }
        forms.extend(encoded(secret).into_iter().map(String::into_bytes));
        forms.sort();
        forms.dedup();
        forms.retain(|form| form.len() >= SHORTEST);
        Self { forms: forms.into_iter().map(Secret::new).collect(), padding }
    }

    /// Whether `text` holds the secret in any of them.
    pub fn are_in(&self, text: &str) -> bool {
        let mut found = false;
        escape::readings(text, false, |reading| {
            self.find(reading, |_| found = true);
            if let Some(unbroken) = reading.unbroken() {
                self.find(&unbroken, |_| found = true);
            }
        });
        found
    }

    /// Where the secret stands in what is read.
    fn find(&self, reading: &Reading, mut tell: impl FnMut(Range<usize>)) {
        for form in &self.forms {
            let length = form.expose().len();
            for at in memmem::find_iter(&reading.bytes, form.expose().as_slice()) {
                let behind = reading.bytes.get(at + length..).unwrap_or_default();
                let padding = behind.iter().take(self.padding).take_while(|byte| **byte == b'=').count();
                tell(reading.range(at, at + length + padding));
            }
        }
    }

    /// Where the beginning of the secret stands that the text ends with, which is so long.
    fn begun(&self, reading: &Reading, length: usize) -> Option<Range<usize>> {
        let begun = |form: &Secret<Vec<u8>>| {
            let form = form.expose();
            // All of it is found as such.
            let longest = form.len().saturating_sub(1).min(reading.bytes.len());
            let count = (FEWEST..=longest).rev().find(|count| reading.bytes.ends_with(&form[..*count]))?;
            let start = reading.range(reading.bytes.len() - count, reading.bytes.len()).start;
            (length - start >= SHORTEST_BEGINNING).then_some(start..length)
        };
        self.forms.iter().filter_map(begun).min_by_key(|range| range.start)
    }
}

/// The forms that are no spelling of single characters.
fn encoded(secret: &str) -> Vec<String> {
    let hex = secret.bytes().fold(String::new(), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    });
    let mut all = vec![hex.to_uppercase(), hex];
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
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

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
            "a~b/c%2Bd%20e%22%C3%A91",
            "a%257Eb%252Fc%252Bd%2520e%2522%25C3%25A91",
            "a~b\\\\\\/c+d e\\\\\\\"\\\\u00e91",
            "a~b\\u002fc\\u002Bd e\\u0022\\u00e91",
            "a~b/c&#43;d e&quot;&#xe9;1",
            "a~b/c&amp;#43;d e&amp;quot;é1",
            "617e622f632b64206522c3a931",
            "617E622F632B64206522C3A931",
        ] {
            assert_eq!(clean(&format!("said {written} then")), "said [redacted] then");
        }
        let basic = STANDARD_NO_PAD.encode("user:a~b/c+d e\"é1");
        let left = clean(&format!("Basic {basic}"));
        assert!(left.contains("[redacted]") && left.len() < 40, "{left}");
        for written in
            ["YX5iL2MrZCBlIsOpMQ", "YX5iL2MrZ\r\nCBlIsOpMQ", "YX5iL2MrZ\\nCBlIsOpMQ", "YX5iL2MrZ\\u0043BlIsOpMQ"]
        {
            // The last sign has four bits of the last byte.
            assert_eq!(clean(&format!("said {written} then")), "said [redacted]Q then");
        }
        assert_eq!(clean("abc and abcd"), "abc and abcd", "what is too short is not looked for");
    }

    #[test]
    fn a_secret_that_was_cut_with_the_text_leaves_nothing_of_it() {
        let secret = "s3cr+t/=%&CLIENTCANARY0123456789";
        for written in [
            secret.to_owned(),
            utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
            STANDARD_NO_PAD.encode(secret),
        ] {
            for cut in SHORTEST_BEGINNING..written.len() - 1 {
                let left = redact(&format!("said {}", written.get(..cut).expect("ASCII")), &[Secret::from(secret)]);
                assert_eq!(left, "said [redacted]", "{cut}");
            }
        }
        assert_eq!(redact("said s3cr+", &[Secret::from(secret)]), "said s3cr+", "a word may begin so");
    }

    #[test]
    fn of_a_whole_text_the_end_stays() {
        let secrets = [Secret::from("123456789:token")];
        assert_eq!(redact_whole("123456789", &secrets), "123456789");
        assert_eq!(redact_whole("id 123456789:token", &secrets), "id [redacted]");
    }

    #[test]
    fn a_secret_that_is_part_of_another_leaves_nothing_of_it() {
        let secrets = [Secret::from("token"), Secret::from("token-and-more")];
        assert_eq!(redact("token-and-more token", &secrets), "[redacted] [redacted]");
    }

    #[test]
    fn base_64_is_found_in_its_other_alphabet_and_without_its_padding() {
        let secret = [Secret::from("ab/cd+ef1234567890==")];
        for written in
            ["ab/cd+ef1234567890==", "ab_cd-ef1234567890==", "ab_cd-ef1234567890", "ab%5Fcd-ef1234567890%3D%3D"]
        {
            assert_eq!(redact(&format!("k={written}&x"), &secret), "k=[redacted]&x", "{written}");
        }
    }

    fn in_json(text: &str) -> String {
        let quoted = serde_json::Value::from(text).to_string();
        quoted.get(1..quoted.len() - 1).expect("two quotes").to_owned()
    }

    proptest! {
        #[test]
        fn no_layering_of_usual_escapes_hides_a_secret(secret in "[a-z+/=\"&<%\\\\ é]{6,20}", layers in proptest::collection::vec(0_u8..4, 0..4)) {
            let mut text = secret.clone();
            for layer in layers {
                text = match layer {
                    0 => in_json(&text),
                    1 => utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string(),
                    2 => text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;"),
                    _ => in_json(&text).replace('/', "\\/"),
                };
            }
            let left = redact(&format!("({text})"), &[Secret::from(secret.as_str())]);
            prop_assert_eq!(left, "([redacted])", "{}", text);
        }
    }
}
