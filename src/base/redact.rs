//! Secrets taken out of texts: services repeat what they were sent, and not always as it was sent.

use std::fmt::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::escape::{self, begins_escape};
use super::secret::Secret;

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";
/// The shortest secret that is looked for: shorter ones would make holes in ordinary words.
const SHORTEST: usize = 4;
/// The shortest beginning of a secret that is looked for where a text ends.
const SHORTEST_BEGINNING: usize = 6;
/// The fewest characters of it, which may be longer for their escapes.
const FEWEST: usize = 4;
/// The shortest part of base 64 that is looked for.
const SHORTEST_PART: usize = 8;
/// The most bytes that one character takes in any escape: a percent sign in several layers, or a surrogate pair.
const LONGEST_ESCAPE: usize = 48;

/// `text` without any of these secrets: as they are, in whatever escapes JSON, URLs, forms, HTML and XML write them
/// with, in one or several layers, in the URL-safe alphabet where they are base 64 themselves, and in base 64 or
/// hexadecimal, also as a part of something longer. What a text ends with may be the beginning of a secret, because
/// services' words are cut to a length: that is taken out as well.
pub fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    let wanted = longest_first(secrets);
    let mut clean = without(text, &wanted);
    let begun = wanted.iter().filter_map(|spellings| spellings.begun_at_end(&clean)).min();
    if let Some(from) = begun {
        clean.truncate(from);
        clean.push_str(REDACTED);
    }
    clean
}

/// The same of a text that is known to be whole: what it ends with stays. An account's id is often what its tokens
/// begin with, and a word that a service uses may be what a secret begins with.
pub fn redact_whole<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    without(text, &longest_first(secrets))
}

/// The spellings of secrets that are looked for: a shorter one may be a part of a longer one, whose rest would stay.
fn longest_first<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Vec<Spellings> {
    let wanted = secrets.into_iter().filter(|secret| secret.expose().len() >= SHORTEST);
    let mut wanted: Vec<Spellings> = wanted.map(|secret| Spellings::of(secret.expose())).collect();
    wanted.sort_by_key(|spellings| std::cmp::Reverse(spellings.written.len()));
    wanted
}

fn without(text: &str, wanted: &[Spellings]) -> String {
    wanted.iter().fold(text.to_owned(), |clean, spellings| spellings.without(clean))
}

/// Whatever a secret may be written as, made once for many texts.
#[derive(Default)]
pub struct Spellings {
    /// Its characters, each of which may be escaped in a text.
    written: Vec<char>,
    /// Whether it is base 64, so that the URL-safe alphabet is the same.
    is_base64: bool,
    /// Other forms, as they stand.
    encoded: Vec<Secret>,
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
        Self { written: secret.chars().collect(), is_base64, encoded: encoded(secret) }
    }

    /// Whether `text` holds the secret in any of them.
    pub fn are_in(&self, text: &str) -> bool {
        self.next_in(text, 0).is_some() || self.encoded.iter().any(|form| text.contains(form.expose().as_str()))
    }

    fn without(&self, text: String) -> String {
        let mut clean = text;
        if let Some(mut found) = self.next_in(&clean, 0) {
            let (mut out, mut from) = (String::with_capacity(clean.len()), 0);
            loop {
                out.push_str(clean.get(from..found.start).unwrap_or_default());
                out.push_str(REDACTED);
                from = found.end;
                let Some(next) = self.next_in(&clean, from) else { break };
                found = next;
            }
            out.push_str(clean.get(from..).unwrap_or_default());
            clean = out;
        }
        for form in &self.encoded {
            if clean.contains(form.expose().as_str()) {
                clean = clean.replace(form.expose().as_str(), REDACTED);
            }
        }
        clean
    }

    /// Where the secret stands next, however its characters are written.
    fn next_in(&self, text: &str, from: usize) -> Option<Range<usize>> {
        let first = self.written.first()?;
        let starts = text.get(from..)?.char_indices().filter(|(_, char)| char == first || begins_escape(*char));
        starts.map(|(at, _)| from + at).find_map(|start| match self.read(text, start) {
            Read { whole: Some(end), .. } => Some(start..end),
            Read { whole: None, .. } => None,
        })
    }

    /// Where the beginning of the secret stands that the text ends with.
    fn begun_at_end(&self, text: &str) -> Option<usize> {
        let ends = |form: &Secret| beginning_at_end(text, form.expose()).map(|length| text.len() - length);
        let of_forms = self.encoded.iter().filter_map(ends).min();
        // No escape of one character is longer than this.
        let reach = self.written.len().saturating_mul(LONGEST_ESCAPE);
        let from = text.ceil_char_boundary(text.len().saturating_sub(reach));
        let first = self.written.first()?;
        let mut starts = text.get(from..)?.char_indices().filter(|(_, char)| char == first || begins_escape(*char));
        let begun = starts.find_map(|(at, _)| {
            let is_begun = text.len() - (from + at) >= SHORTEST_BEGINNING && self.read(text, from + at).cut;
            is_begun.then_some(from + at)
        });
        begun.into_iter().chain(of_forms).min()
    }

    /// What stands from here on of the secret.
    fn read(&self, text: &str, start: usize) -> Read {
        let mut cut = false;
        // Where the next character may begin: what an escape is can have several readings.
        let mut places = vec![start];
        for (matched, char) in self.written.iter().enumerate() {
            cut |= matched >= FEWEST && places.iter().any(|at| is_cut(text, *at));
            let other = match char {
                '+' if self.is_base64 => Some('-'),
                '/' if self.is_base64 => Some('_'),
                _ => None,
            };
            let mut next: Vec<usize> = Vec::new();
            for at in &places {
                let rest = text.get(*at..).unwrap_or_default();
                let ways = std::iter::once(*char).chain(other).flat_map(|char| escape::lengths(rest, char));
                next.extend(ways.map(|length| at + length));
            }
            next.sort_unstable();
            next.dedup();
            if next.is_empty() {
                // Base 64 is written with its padding or without.
                let is_whole = self.is_base64 && *char == '=';
                return Read { whole: places.last().copied().filter(|_| is_whole), cut };
            }
            places = next;
        }
        Read { whole: places.last().copied(), cut }
    }
}

/// What stands of a secret at some place of a text.
struct Read {
    /// Where it ends, when all of it is there.
    whole: Option<usize>,
    /// Whether the text ends within it.
    cut: bool,
}

/// Whether the text ends there, or in what may be the beginning of an escape.
fn is_cut(text: &str, at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default();
    rest.is_empty() || rest.len() < LONGEST_ESCAPE && rest.starts_with(['\\', '%', '&']) && is_unended(rest)
}

/// Whether what begins like an escape has no end: it is nothing but signs, letters and digits.
fn is_unended(rest: &str) -> bool {
    rest.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '\\' | '%' | '&' | '#' | ';'))
}

/// How many bytes at the end of a text are the beginning of a secret, the most of them.
fn beginning_at_end(text: &str, secret: &str) -> Option<usize> {
    let ends = secret.char_indices().map(|(end, _)| end).filter(|end| *end >= SHORTEST_BEGINNING);
    ends.rev().find(|end| secret.get(..*end).is_some_and(|beginning| text.ends_with(beginning)))
}

/// The forms that are no spelling of single characters.
fn encoded(secret: &str) -> Vec<Secret> {
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
    // What is a part of another form would leave the other's rest.
    all.sort_by_key(|form| std::cmp::Reverse(form.len()));
    all.into_iter().map(Secret::new).collect()
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
            ["ab/cd+ef1234567890==", "ab_cd-ef1234567890==", "ab_cd-ef1234567890", "ab%2Fcd-ef1234567890%3D%3D"]
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
                    _ => text.replace('/', "\\/"),
                };
            }
            let left = redact(&format!("({text})"), &[Secret::from(secret.as_str())]);
            prop_assert_eq!(left, "([redacted])", "{}", text);
        }
    }
}
