//! Names under which secrets stand, and texts without what stands under them.
//!
//! For what people sent and were answered, of which nobody knows what in it is secret. Known secrets are taken out by
//! [`super::redact`]; this is for those that nothing here knows. It goes by names alone, and so is a second line.

use std::borrow::Cow;
use std::ops::Range;

use super::redact::REDACTED;

/// Words of which each makes a name that of a secret.
const WORDS: [&str; 24] = [
    "token",
    "tokens",
    "secret",
    "secrets",
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "authorization",
    "authentication",
    "credential",
    "credentials",
    "cookie",
    "cookies",
    "signature",
    "assertion",
    "jwt",
    "apikey",
    "otp",
    "pin",
    "cvc",
    "cvv",
];
/// Words before `key` that make it one.
const KEYS: [&str; 9] =
    ["api", "private", "access", "secret", "signing", "encryption", "auth", "license", "subscription"];

/// Whether what stands under a name is likely to be secret: by its words, however they are joined (`apiKey`,
/// `X-Api-Key`, `access_token`).
pub fn is_sensitive(name: &str) -> bool {
    let words = words(name);
    let is_word = |word: &String| WORDS.contains(&word.as_str());
    let is_key = |pair: &[String]| pair[1].trim_end_matches('s') == "key" && KEYS.contains(&pair[0].as_str());
    words.iter().any(is_word) || words.windows(2).any(is_key)
}

/// A name in words, in lower case.
fn words(name: &str) -> Vec<String> {
    let (mut words, mut word, mut was_lower) = (Vec::new(), String::new(), false);
    for char in name.chars() {
        let is_next = !char.is_alphanumeric() || char.is_uppercase() && was_lower;
        if is_next && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if char.is_alphanumeric() {
            word.extend(char.to_lowercase());
        }
        was_lower = char.is_lowercase() || char.is_ascii_digit();
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON, or lines of it.
    Json,
    /// Pairs as forms and queries have them.
    Pairs,
    /// XML or HTML.
    Markup,
    /// Anything else.
    Plain,
}

/// A text without what stands under names of secrets. It may be the beginning of a longer one.
pub fn scrubbed(text: &str, form: Form) -> Cow<'_, str> {
    let found = match form {
        Form::Json => in_json(text),
        Form::Pairs => in_pairs(text),
        Form::Markup => in_markup(text),
        Form::Plain => Vec::new(),
    };
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    for range in found {
        out.push_str(text.get(from..range.start).unwrap_or_default());
        out.push_str(if form == Form::Json { "\"[redacted]\"" } else { REDACTED });
        from = range.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(out)
}

/// The values under such names in JSON, whole: what is in a list or a map under one is all of it.
fn in_json(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let end = string_end(bytes, at);
        let colon = blanks_end(bytes, end);
        if bytes.get(colon) != Some(&b':') {
            at = end;
            continue;
        }
        let name = text.get(at..end).unwrap_or_default();
        let name = serde_json::from_str::<String>(name).unwrap_or_else(|_| name.to_owned());
        let value = blanks_end(bytes, colon + 1);
        at = value;
        if is_sensitive(&name) && value < bytes.len() {
            at = value_end(bytes, value);
            let is_nothing = matches!(bytes.get(value..at), Some(b"null" | b"true" | b"false" | b"\"\""));
            found.extend(Some(value..at).filter(|_| !is_nothing));
        }
    }
    found
}

/// Where a string ends that begins at `at`, its quotes among it.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn blanks_end(bytes: &[u8], at: usize) -> usize {
    let blanks = bytes.iter().skip(at).take_while(|byte| byte.is_ascii_whitespace()).count();
    at.saturating_add(blanks).min(bytes.len())
}

/// Where a value ends that begins at `at`.
fn value_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (0_usize, at);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' if depth <= 1 => return if depth == 1 { at + 1 } else { at },
            b']' | b'}' => depth -= 1,
            b',' | b'\n' | b'\r' | b' ' | b'\t' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

fn in_pairs(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    for pair in text.split_inclusive('&') {
        let (start, whole) = (at, pair.trim_end_matches('&'));
        at += pair.len();
        let Some((name, value)) = whole.split_once('=') else { continue };
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        if is_sensitive(&name) && !value.is_empty() {
            let end = start + whole.len();
            found.push(end - value.len()..end);
        }
    }
    found
}

/// The texts of elements of such names, and the values of attributes.
fn in_markup(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(open) = text.get(at..).and_then(|rest| rest.find('<')).map(|open| at + open) {
        let close = text.get(open..).and_then(|rest| rest.find('>')).map_or(text.len(), |close| open + close);
        let tag = text.get(open + 1..close).unwrap_or_default();
        let name = tag.split(|char: char| char.is_whitespace() || char == '/').next().unwrap_or_default();
        found.extend(attributes(tag).map(|range| range.start + open + 1..range.end + open + 1));
        at = (close + 1).min(text.len());
        let local = name.rsplit(':').next().unwrap_or_default();
        if is_sensitive(local) && !tag.ends_with('/') {
            let end = text.get(at..).and_then(|rest| rest.find("</")).map_or(text.len(), |end| at + end);
            found.extend(Some(at..end).filter(|range| !range.is_empty()));
            at = end;
        }
    }
    found
}

fn attributes(tag: &str) -> impl Iterator<Item = Range<usize>> {
    let quotes = tag.match_indices(['"', '\'']);
    let mut open: Option<(usize, &str)> = None;
    quotes.filter_map(move |(at, quote)| match open {
        Some((from, mark)) if mark == quote => {
            open = None;
            let before = tag.get(..from).unwrap_or_default().trim_end().strip_suffix('=')?;
            let name = before.trim_end().rsplit(|char: char| char.is_whitespace() || char == ':').next()?;
            (is_sensitive(name) && from + 1 < at).then_some(from + 1..at)
        }
        Some(_) => None,
        None => {
            open = Some((at, quote));
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_told_by_their_words() {
        for name in ["password", "newPassword", "X-Api-Key", "apiKeys", "access_token", "id-token", "Set-Cookie", "PIN"]
        {
            assert!(is_sensitive(name), "{name}");
        }
        for name in ["shipping", "author", "tokenizer", "key", "keyword", "idempotency_key", "passenger", "design", ""]
        {
            assert!(!is_sensitive(name), "{name}");
        }
    }

    #[test]
    fn what_stands_under_them_is_taken_out() {
        for (form, text, clean) in [
            (Form::Json, r#"{"a":1,"password" : "x\"y","b":2}"#, r#"{"a":1,"password" : "[redacted]","b":2}"#),
            (Form::Json, r#"{"pass\u0077ord":"x"}"#, r#"{"pass\u0077ord":"[redacted]"}"#),
            (Form::Json, r#"{"tokens":["a","]",{"b":"}"}],"c":"d"}"#, r#"{"tokens":"[redacted]","c":"d"}"#),
            (Form::Json, r#"{"pin":1234}"#, r#"{"pin":"[redacted]"}"#),
            (Form::Json, r#"{"token":null,"secret":""}"#, r#"{"token":null,"secret":""}"#),
            (Form::Json, "{\"token\":\"abc", "{\"token\":\"[redacted]\""),
            (Form::Json, "{\"token\":[1,", "{\"token\":\"[redacted]\""),
            (Form::Json, "{\"a\":\"token\",\"b\":\"c\"}", "{\"a\":\"token\",\"b\":\"c\"}"),
            (Form::Pairs, "a=1&client%5Fsecret=x%26y&b=2&token", "a=1&client%5Fsecret=[redacted]&b=2&token"),
            (
                Form::Markup,
                "<a><w:Password Type=\"t\">x</w:Password><b apiKey='k' c=\"d\"/></a>",
                "<a><w:Password Type=\"t\">[redacted]</w:Password><b apiKey='[redacted]' c=\"d\"/></a>",
            ),
            (Form::Markup, "<password>abc", "<password>[redacted]"),
            (Form::Plain, "password=x", "password=x"),
        ] {
            assert_eq!(scrubbed(text, form), clean, "{form:?} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[\\x00-\\x7fé\"{}\\[\\]:,<>&=/'\\\\ ]{0,60}", cut in 0_usize..60) {
            for form in [Form::Json, Form::Pairs, Form::Markup, Form::Plain] {
                let end = text.floor_char_boundary(cut);
                scrubbed(&text[..end], form);
                scrubbed(&text, form);
            }
        }

        #[test]
        fn json_stays_json(value in "[a-z\"\\\\{}\\[\\], :]{1,20}", nested in any::<bool>()) {
            let value = if nested { serde_json::json!([{ "a": value }]) } else { serde_json::json!(value) };
            let text = serde_json::json!({ "b": 1, "token": value, "z": [2] }).to_string();
            let clean: serde_json::Value = serde_json::from_str(&scrubbed(&text, Form::Json)).expect("JSON");
            prop_assert_eq!(clean, serde_json::json!({ "b": 1, "token": "[redacted]", "z": [2] }));
        }
    }
}
