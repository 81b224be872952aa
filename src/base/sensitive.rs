//! Names under which secrets stand, and texts without what stands under them.
//!
//! For what people sent and were answered, of which nobody knows what in it is secret. Known secrets are taken out by
//! [`super::redact`]; this is for those that nothing here knows. It goes by names alone, and so is a second line. A text is
//! read for all forms at once, because what it says of itself is often wrong: JSON comes as a form, and a form as text.

use std::borrow::Cow;
use std::ops::Range;

use super::redact::REDACTED;

/// Words of which each makes a name that of a secret.
const WORDS: [&str; 34] = [
    "token",
    "tokens",
    "secret",
    "secrets",
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "pass",
    "pwd",
    "pw",
    "authorization",
    "authentication",
    "auth",
    "bearer",
    "credential",
    "credentials",
    "cookie",
    "cookies",
    "signature",
    "assertion",
    "verifier",
    "jwt",
    "apikey",
    "sid",
    "otp",
    "totp",
    "pin",
    "cvc",
    "cvv",
    "csrf",
    "xsrf",
    "hmac",
];
/// What a word ends with that is written together with others: `accesstoken`, `dbpassword`.
const ENDINGS: [&str; 9] =
    ["token", "secret", "password", "passwd", "passphrase", "apikey", "secretkey", "accesskey", "privatekey"];
/// What such a word begins with: `passwordhash`, `password1`.
const BEGINNINGS: [&str; 3] = ["password", "passwd", "credential"];
/// Pairs of words that make a name that of a secret, where neither does.
const PAIRS: [(&str, &str); 5] =
    [("session", "id"), ("session", "key"), ("security", "code"), ("backup", "code"), ("recovery", "code")];
/// Words before `key` that make it no secret.
const OTHER_KEYS: [&str; 14] = [
    "public",
    "primary",
    "foreign",
    "sort",
    "partition",
    "idempotency",
    "cache",
    "object",
    "row",
    "composite",
    "natural",
    "external",
    "issue",
    "project",
];
/// Words that an `auth` in the middle of a name is no secret for: `auth_type`.
const ABOUT: [&str; 8] = ["type", "kind", "method", "mode", "provider", "status", "url", "uri"];
/// Names of pairs that say what a value beside them is, and of that value.
const LABELS: [&str; 6] = ["name", "key", "field", "header", "param", "parameter"];
const VALUES: [&str; 3] = ["value", "val", "values"];

/// Whether what stands under a name is likely to be secret: by its words, however they are joined (`apiKey`,
/// `X-Api-Key`, `access_token`, `APIToken`).
pub fn is_sensitive(name: &str) -> bool {
    let words = words(name);
    let is_about = words.last().is_some_and(|last| words.len() > 1 && ABOUT.contains(&last.as_str()));
    let is_word = |word: &String| {
        let word = word.trim_end_matches(|char: char| char.is_ascii_digit());
        WORDS.contains(&word)
            || ENDINGS.iter().any(|ending| word.ends_with(ending))
            || BEGINNINGS.iter().any(|beginning| word.starts_with(beginning))
    };
    let is_pair = |pair: &[String]| {
        let is_key = pair[1].trim_end_matches('s') == "key" && !OTHER_KEYS.contains(&pair[0].as_str());
        is_key || PAIRS.iter().any(|(one, other)| pair[0] == *one && pair[1] == *other)
    };
    !is_about && (words.iter().any(is_word) || words.windows(2).any(is_pair))
}

/// A name in words, in lower case. A run of capitals is a word, but for the last of it where a small letter follows.
pub fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let (mut words, mut word) = (Vec::new(), String::new());
    for (at, &char) in chars.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at)).copied();
        let after = chars.get(at + 1);
        let begins = char.is_uppercase()
            && before.is_some_and(|before| {
                !before.is_uppercase() || after.is_some_and(|after| after.is_lowercase()) && before.is_uppercase()
            });
        if (begins || !char.is_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if char.is_alphanumeric() {
            word.extend(char.to_lowercase());
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// A text without what stands under names of secrets. It may be the beginning of a longer one.
pub fn scrubbed(text: &str) -> Cow<'_, str> {
    let unescaped = Unescaped::of(text);
    let mut found = Pairs::of(&unescaped.text);
    found.extend(in_elements(&unescaped.text).into_iter().map(|range| (range, "")));
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    for (range, _) in &mut found {
        *range = unescaped.place(range.start)..unescaped.place(range.end);
    }
    found.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    for (range, quote) in found {
        // What is within one that was taken out is gone with it.
        if range.start < from {
            from = from.max(range.end);
            continue;
        }
        out.push_str(text.get(from..range.start).unwrap_or_default());
        out.push_str(quote);
        out.push_str(REDACTED);
        out.push_str(quote);
        from = range.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(out)
}

/// A text in which characters stand for themselves that JSON may write as numbers (`\u0070`, `\x70`): a name that is written
/// so is that name, and some programs write `"`, `=` and `<` within texts no other way.
struct Unescaped<'a> {
    text: Cow<'a, str>,
    /// Where the given text goes on behind such a character: the place here, and there.
    places: Vec<(usize, usize)>,
}

impl<'a> Unescaped<'a> {
    fn of(given: &'a str) -> Self {
        let (mut text, mut places) = (String::new(), Vec::new());
        let (mut from, mut at) = (0, 0);
        while let Some(found) = given.get(at..).and_then(|rest| memchr::memchr(b'\\', rest.as_bytes())) {
            let start = at + found;
            let escapes = given.bytes().skip(start).take_while(|byte| *byte == b'\\').count();
            at = start + escapes;
            let Some((char, length)) = numbered(given, at) else { continue };
            // A quote is one of the text within as many escapes; of anything else they are gone with the number, one in
            // JSON and twice as many in each text of JSON around it. Others stand for themselves.
            let kept = match char {
                '"' | '\'' if escapes % 2 == 1 => escapes,
                '"' | '\'' => continue,
                _ if escapes.is_power_of_two() => 0,
                _ => continue,
            };
            text.push_str(given.get(from..start + kept).unwrap_or_default());
            text.push(char);
            at += length;
            from = at;
            places.push((text.len(), from));
        }
        if places.is_empty() {
            return Self { text: Cow::Borrowed(given), places };
        }
        text.push_str(given.get(from..).unwrap_or_default());
        Self { text: Cow::Owned(text), places }
    }

    /// The place in the given text of one in this.
    fn place(&self, at: usize) -> usize {
        let before = self.places.partition_point(|(here, _)| *here <= at);
        let behind = before.checked_sub(1).and_then(|before| self.places.get(before));
        behind.map_or(at, |(here, there)| there + (at - here))
    }
}

/// The visible character that a number behind escapes is, and how long it is written.
fn numbered(text: &str, at: usize) -> Option<(char, usize)> {
    let length = match text.as_bytes().get(at)? {
        b'u' => 5,
        b'x' => 3,
        _ => return None,
    };
    let digits = text.get(at + 1..at + length)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let char = char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| is_number)?)?;
    matches!(char, ' '..='~' if char != '\\').then_some((char, length))
}

/// A sign that quotes, in as many layers of escapes as it stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Quote {
    sign: u8,
    escapes: usize,
}

/// Names and values, in whatever form: `"name": "value"`, `name=value`, `name: value`, also within a text of JSON.
struct Pairs<'a> {
    text: &'a str,
    bytes: &'a [u8],
    found: Vec<(Range<usize>, &'static str)>,
    /// Whether the pair before said that a value beside it is secret.
    is_labelled: bool,
    /// The value before, which a label behind it may be about.
    value: Option<(Range<usize>, &'static str)>,
}

impl<'a> Pairs<'a> {
    fn of(text: &'a str) -> Vec<(Range<usize>, &'static str)> {
        let mut pairs = Self { text, bytes: text.as_bytes(), found: Vec::new(), is_labelled: false, value: None };
        let mut at = 0;
        while at < pairs.bytes.len() {
            at = pairs.step(at);
        }
        pairs.found
    }

    /// Looks at what begins at `at`, and says where the rest does.
    fn step(&mut self, at: usize) -> usize {
        let byte = self.bytes[at];
        if matches!(byte, b'{' | b'}' | b'>') {
            (self.is_labelled, self.value) = (false, None);
        }
        if !is_of_name(byte) {
            return at + 1;
        }
        let length = self.bytes.iter().skip(at).take_while(|byte| is_of_name(**byte)).count();
        let end = at + length;
        match self.value_behind(end) {
            Some((value, is_quoted)) => self.pair(at..end, value, is_quoted),
            None => end,
        }
    }

    /// Where the value of a name that ends at `end` begins, where it has one, and whether the name is quoted.
    fn value_behind(&self, end: usize) -> Option<(usize, bool)> {
        let quote = self.quote_at(end);
        let after = self.blanks_end(quote.map_or(end, |quote| end + quote.escapes + 1));
        let sign = *self.bytes.get(after)?;
        if !matches!(sign, b':' | b'=') {
            return None;
        }
        let arrow = usize::from(self.bytes.get(after + 1) == Some(&b'>'));
        Some((self.blanks_end(after + 1 + arrow), quote.is_some()))
    }

    /// A pair, whose value begins at `value`: taken out where its name says so. Says where to go on.
    fn pair(&mut self, name: Range<usize>, value: usize, is_quoted: bool) -> usize {
        let name = self.text.get(name).unwrap_or_default();
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(&name));
        let inside = value + self.quote_at(value).map_or(0, |quote| quote.escapes + 1);
        let (is_secret, is_label, is_value) = (is_sensitive(&name), is(&LABELS), is(&VALUES));
        // What is neither may have others inside: a list, a map, an address with a query, or JSON as text.
        let is_container = matches!(self.bytes.get(value), Some(b'[' | b'{'));
        if !is_secret && (is_container || !is_label && !is_value) {
            return inside;
        }
        let (inner, whole) = self.value(value, &name);
        // A value that was in no quotes is put into those of its name, so that JSON stays JSON.
        let quote = if inner == whole && is_quoted { "\"" } else { "" };
        let taken = (inner.clone(), quote);
        let text = self.text.get(inner.clone()).unwrap_or_default();
        if matches!(text, "" | "null" | "true" | "false") {
            return whole.end.max(value);
        }
        if is_secret || is_value && self.is_labelled {
            self.found.push(taken);
            return whole.end;
        }
        if is_value {
            self.value = Some(taken);
        }
        if is_label && is_sensitive(text) {
            self.is_labelled = true;
            self.found.extend(self.value.take());
        }
        inside
    }

    /// A value without its quotes, and with them.
    fn value(&self, at: usize, name: &str) -> (Range<usize>, Range<usize>) {
        if let Some(quote) = self.quote_at(at) {
            let begin = at + quote.escapes + 1;
            let end = self.quote_end(begin, quote);
            return (
                begin..end.unwrap_or(self.bytes.len()),
                at..end.map_or(self.bytes.len(), |end| end + quote.escapes + 1),
            );
        }
        let end = match self.bytes.get(at) {
            Some(b'[' | b'{') => self.balanced_end(at),
            // A scheme stands before what it is a scheme of.
            _ if name.eq_ignore_ascii_case("authorization") => self.scalar_end(at, b" "),
            _ => self.scalar_end(at, &[]),
        };
        (at..end, at..end)
    }

    /// The quote that stands at a place, with its escapes.
    fn quote_at(&self, at: usize) -> Option<Quote> {
        let escapes = self.bytes.iter().skip(at).take_while(|byte| **byte == b'\\').count();
        let sign = *self.bytes.get(at + escapes)?;
        matches!(sign, b'"' | b'\'').then_some(Quote { sign, escapes })
    }

    /// Where the quote stands that ends what begins at `from`: the same sign behind as many escapes, or fewer.
    fn quote_end(&self, from: usize, quote: Quote) -> Option<usize> {
        let mut at = from;
        while let Some(found) = self.bytes.get(at..).and_then(|rest| memchr::memchr(quote.sign, rest)) {
            let place = at + found;
            let escapes = self.bytes[from..place].iter().rev().take_while(|byte| **byte == b'\\').count();
            // More escapes than its own, in a number that leaves the sign escaped, are of the content.
            if escapes <= quote.escapes || quote.escapes == 0 && escapes.is_multiple_of(2) {
                return Some(place - escapes.min(quote.escapes));
            }
            at = place + 1;
        }
        None
    }

    fn blanks_end(&self, at: usize) -> usize {
        let blanks = self.bytes.iter().skip(at).take_while(|byte| byte.is_ascii_whitespace()).count();
        at.saturating_add(blanks).min(self.bytes.len())
    }

    fn scalar_end(&self, at: usize, also: &[u8]) -> usize {
        let is_end = |byte: u8| {
            (byte.is_ascii_whitespace() && !also.contains(&byte))
                || matches!(byte, b',' | b'&' | b';' | b'}' | b']' | b')' | b'<' | b'>' | b'"' | b'\'' | b'\\')
        };
        let length = self.bytes.iter().skip(at).take_while(|byte| !is_end(**byte)).count();
        at + length
    }

    /// Where a list or a map ends that begins at `at`.
    fn balanced_end(&self, at: usize) -> usize {
        let (mut depth, mut at) = (0_usize, at);
        while let Some(byte) = self.bytes.get(at) {
            match byte {
                b'"' => {
                    at = self.quote_end(at + 1, Quote { sign: b'"', escapes: 0 }).unwrap_or(self.bytes.len());
                }
                b'[' | b'{' => depth += 1,
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return at + 1;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        self.bytes.len()
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'%' | b'$') || byte >= 0x80
}

/// What elements of such names have in them, to their own ends.
fn in_elements(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(open) = text.get(at..).and_then(|rest| memchr::memchr(b'<', rest.as_bytes())).map(|open| at + open) {
        let rest = text.get(open + 1..).unwrap_or_default();
        let name_end =
            rest.find(|char: char| char.is_whitespace() || matches!(char, '/' | '>' | '<')).unwrap_or(rest.len());
        let name = rest.get(..name_end).unwrap_or_default();
        at = open + 1;
        if !is_sensitive(name.rsplit(':').next().unwrap_or_default()) {
            continue;
        }
        let Some(close) = rest.find('>').map(|close| open + 1 + close) else { continue };
        if text.as_bytes().get(close - 1) == Some(&b'/') {
            continue;
        }
        let ending = format!("</{name}");
        let end = text.get(close..).and_then(|rest| rest.find(&ending)).map_or(text.len(), |end| close + end);
        found.extend(Some(close + 1..end).filter(|range| range.start < range.end));
        at = end.max(at);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_told_by_their_words() {
        for name in [
            "password",
            "newPassword",
            "X-Api-Key",
            "apiKeys",
            "access_token",
            "id-token",
            "Set-Cookie",
            "PIN",
            "APIToken",
            "CSRFToken",
            "JWTToken",
            "DBPassword",
            "accesstoken",
            "clientsecret",
            "passwordhash",
            "password1",
            "pass",
            "smtp_pass",
            "session_id",
            "X-Session-Id",
            "X-Auth",
            "security_code",
            "account_key",
            "client_key",
            "master_key",
            "bearer",
        ] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in [
            "shipping",
            "author",
            "tokenizer",
            "key",
            "keyword",
            "idempotency_key",
            "passenger",
            "design",
            "",
            "auth_type",
            "public_key",
            "secretary",
            "authority",
            "compass",
            "session",
            "primaryKey",
            "token_type",
        ] {
            assert!(!is_sensitive(name), "{name}");
        }
    }

    #[test]
    fn what_stands_under_them_is_taken_out_of_any_form() {
        for (text, clean) in [
            (r#"{"a":1,"password" : "x\"y","b":2}"#, r#"{"a":1,"password" : "[redacted]","b":2}"#),
            (r#"{"tokens":["a","]",{"b":"}"}],"c":"d"}"#, r#"{"tokens":"[redacted]","c":"d"}"#),
            (r#"{"pin":1234}"#, r#"{"pin":"[redacted]"}"#),
            (r#"{"token":null,"secret":"","pass":true}"#, r#"{"token":null,"secret":"","pass":true}"#),
            ("{\"token\":\"abc", "{\"token\":\"[redacted]"),
            ("{\"token\":[1,", "{\"token\":\"[redacted]\""),
            ("{\"a\":\"token\",\"b\":\"c\"}", "{\"a\":\"token\",\"b\":\"c\"}"),
            (r#"5" screen {"password":"x"}"#, r#"5" screen {"password":"[redacted]"}"#),
            (
                r#"[{"name":"password","value":"x"},{"name":"a","value":"b"}]"#,
                r#"[{"name":"password","value":"[redacted]"},{"name":"a","value":"b"}]"#,
            ),
            (r#"[{"value":"x","key":"api_key"}]"#, r#"[{"value":"[redacted]","key":"api_key"}]"#),
            (
                r#"{"sent":"{\"password\":\"hunter2\",\"b\":\"c\"}"}"#,
                r#"{"sent":"{\"password\":\"[redacted]\",\"b\":\"c\"}"}"#,
            ),
            (r#"{"url":"https://a/?access_token=x&b=c"}"#, r#"{"url":"https://a/?access_token=[redacted]&b=c"}"#),
            (
                r#"mutation { login(user: "a", password: "x y") { token } }"#,
                r#"mutation { login(user: "a", password: "[redacted]") { token } }"#,
            ),
            ("a=1&client%5Fsecret=x%26y&b=2&token", "a=1&client%5Fsecret=[redacted]&b=2&token"),
            ("Authorization: Bearer abc\nX: y", "Authorization: [redacted]\nX: y"),
            (
                "<a><w:Password Type=\"t\">x</w:Password><b apiKey='k' c=\"d\"/></a>",
                "<a><w:Password Type=\"t\">[redacted]</w:Password><b apiKey='[redacted]' c=\"d\"/></a>",
            ),
            ("<password>abc", "<password>[redacted]"),
            ("<credentials><user>u</user><pw>x</pw></credentials><b/>", "<credentials>[redacted]</credentials><b/>"),
            ("<tokens><t>one</t><t>x</t></tokens>", "<tokens>[redacted]</tokens>"),
            ("<a t=\"x>y\" password=\"x\"/>", "<a t=\"x>y\" password=\"[redacted]\"/>"),
            (
                "<input type=\"password\" name=\"password\" value=\"x\">",
                "<input type=\"password\" name=\"password\" value=\"[redacted]\">",
            ),
            (r#"{"\u0070assword":"x","b":"\u0070"}"#, r#"{"\u0070assword":"[redacted]","b":"\u0070"}"#),
            (r#"{"api\u005Fkey":"a\u0022b","c":1}"#, r#"{"api\u005Fkey":"[redacted]","c":1}"#),
            (r#"{"\x74oken":1}"#, r#"{"\x74oken":"[redacted]"}"#),
            (
                r#"{"sent":"{\u0022password\u0022:\u0022hunter2\u0022,\u0022b\u0022:1}"}"#,
                r#"{"sent":"{\u0022password\u0022:\u0022[redacted]\u0022,\u0022b\u0022:1}"}"#,
            ),
            (r#"{"sent":"{\"\\u0070assword\":\"hunter2\"}"}"#, r#"{"sent":"{\"\\u0070assword\":\"[redacted]\"}"}"#),
            (
                r#"{"url":"https://a/?access_token\u003dx\u0026b\u003dc"}"#,
                r#"{"url":"https://a/?access_token\u003d[redacted]\u0026b\u003dc"}"#,
            ),
            (
                r#"{"xml":"\u003cpassword\u003ex\u003c/password\u003e"}"#,
                r#"{"xml":"\u003cpassword\u003e[redacted]\u003c/password\u003e"}"#,
            ),
            (r#"{"token":"a\\u0022b","c":1}"#, r#"{"token":"[redacted]","c":1}"#),
            (r#"{"a":"\u00e9\ud83d\ude00","\u":1}"#, r#"{"a":"\u00e9\ud83d\ude00","\u":1}"#),
            ("nothing is here: 12:30, a=b", "nothing is here: 12:30, a=b"),
        ] {
            assert_eq!(scrubbed(text), clean, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[\\x00-\\x7fé\"{}\\[\\]:,<>&=/'\\\\ ]{0,60}", cut in 0_usize..60) {
            let end = text.floor_char_boundary(cut);
            scrubbed(text.get(..end).unwrap_or_default());
            scrubbed(&text);
        }

        #[test]
        fn a_name_is_the_same_however_it_is_written(written in proptest::collection::vec(0_u8..3, 8), value in "[a-z\"\\\\]{1,9}") {
            let name: String = "password".chars().zip(written).map(|(char, how)| match how {
                0 => char.to_string(),
                1 => format!("\\u{:04x}", u32::from(char)),
                _ => format!("\\u{:04X}", u32::from(char)),
            }).collect();
            let text = format!("{{\"a\":1,\"{name}\":{},\"z\":[2]}}", serde_json::json!(value));
            let clean: serde_json::Value = serde_json::from_str(&scrubbed(&text)).expect("JSON");
            prop_assert_eq!(clean, serde_json::json!({ "a": 1, "password": "[redacted]", "z": [2] }));
        }

        #[test]
        fn json_stays_json(value in "[a-z\"\\\\{}\\[\\], :]{1,20}", nested in any::<bool>()) {
            let value = if nested { serde_json::json!([{ "a": value }]) } else { serde_json::json!(value) };
            let text = serde_json::json!({ "b": 1, "token": value, "z": [2] }).to_string();
            let clean: serde_json::Value = serde_json::from_str(&scrubbed(&text)).expect("JSON");
            prop_assert_eq!(clean, serde_json::json!({ "b": 1, "token": "[redacted]", "z": [2] }));
        }
    }
}
