//! Names and values of queries and forms, taken apart and written again by one rule, so that it does not
//! matter how they were written.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986: what OAuth 1.0a (RFC 5849, 3.6) and AWS encode.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text with everything encoded that is not unreserved.
pub(super) fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, RESERVED).into()
}

/// Bytes with everything encoded that is not unreserved.
pub(super) fn encode_bytes(bytes: &[u8]) -> String {
    percent_encoding::percent_encode(bytes, RESERVED).to_string()
}

/// The names and values of a query or a form, each encoded anew. A plus is a space, as in forms.
pub(super) fn canonical(text: &str) -> Vec<(String, String)> {
    let again = |part: &str| {
        let spaced = part.replace('+', "%20");
        let decoded: Vec<u8> = percent_decode_str(&spaced).collect();
        encode_bytes(&decoded)
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (again(name), again(value))
        })
        .collect()
}

/// Pairs as `name=value`, sorted by name and then by value, joined by `&`.
pub(super) fn sorted(mut pairs: Vec<(String, String)>) -> String {
    pairs.sort_unstable();
    let joined: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}
