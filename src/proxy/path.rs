//! The path gate: which paths may follow a base URL.
//!
//! A path passes only when every server reads it in one way, so that no call leaves the base that its
//! definition declares: no control characters, backslashes or fragments, plain or encoded; no encoded
//! slashes; no dot segments in any spelling; not two slashes at the start. Nothing is repaired. A path is
//! brought into its one normal form first, so that everything behind the gate, the service included, sees
//! that form; a query goes on byte for byte.

use std::borrow::Cow;

use crate::base::path::{hex_value as hex, normal};

/// A path in its normal form ([`normal`]): the only spelling that is compared, kept and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath<'a>(Cow<'a, str>);

impl<'a> NormalPath<'a> {
    /// The normal form of a path as it was sent.
    pub fn of(path: &'a str) -> Self {
        Self(normal(path))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a path or query was refused, in words for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsafe(pub &'static str);

/// Checks a percent-encoded path without its query.
///
/// # Errors
/// The first thing found that could leave its place.
pub fn check_path(path: &str) -> Result<(), Unsafe> {
    let rest = path.strip_prefix('/').ok_or(Unsafe("the path does not begin with a slash"))?;
    if rest.starts_with('/') {
        return Err(Unsafe("the path begins with two slashes"));
    }
    if !path.bytes().all(is_path_byte) {
        return Err(Unsafe("the path holds a character that must be percent-encoded"));
    }
    if !path.contains(['%', '.']) {
        return Ok(());
    }
    rest.split('/').try_for_each(check_segment)
}

/// Checks a query string: visible ASCII without a fragment, in which percent signs encode.
///
/// # Errors
/// As [`check_path`].
pub fn check_query(query: &str) -> Result<(), Unsafe> {
    if !query.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'\\' | b'<' | b'>' | b'"' | b'^' | b'`')) {
        return Err(Unsafe("the query holds a character that must be percent-encoded"));
    }
    // Line breaks and tabs are values like others in a query; NUL and the rest are not.
    let hostile = |byte| matches!(byte, 0..=8 | 11 | 12 | 14..=0x1f | 0x7f);
    if percent_encoding::percent_decode_str(query).any(hostile) {
        return Err(Unsafe("the query holds an encoded control character"));
    }
    Ok(())
}

/// RFC 3986 `pchar`, slash and percent sign.
const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'/'
                | b'%'
        )
}

fn check_segment(segment: &str) -> Result<(), Unsafe> {
    let decoded = decode(segment)?;
    if std::str::from_utf8(&decoded).is_err() {
        return Err(Unsafe("the path holds percent-encoded bytes that are not UTF-8"));
    }
    for byte in &decoded {
        match byte {
            b'/' | b'\\' => return Err(Unsafe("the path holds an encoded slash or backslash")),
            0..=0x1f | 0x7f => return Err(Unsafe("the path holds an encoded control character")),
            _ => {}
        }
    }
    // Servers that know path parameters drop them before they look for dot segments.
    let name = decoded.split(|byte| *byte == b';').next().unwrap_or_default();
    if matches!(name.trim_ascii(), b"." | b"..") {
        return Err(Unsafe("the path holds a dot segment"));
    }
    if decoded.contains(&b'%') && encodes_again(&decoded) {
        return Err(Unsafe("the path holds a dot, slash or backslash that is encoded twice"));
    }
    Ok(())
}

fn decode(segment: &str) -> Result<Vec<u8>, Unsafe> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex)) else {
            return Err(Unsafe("the path holds a percent sign that encodes nothing"));
        };
        decoded.push(high << 4 | low);
    }
    Ok(decoded)
}

/// Whether decoding once more would bring forth a dot, a slash, a backslash or a control character.
fn encodes_again(decoded: &[u8]) -> bool {
    decoded.windows(3).any(|window| match window {
        [b'%', high, low] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => matches!(high << 4 | low, b'.' | b'/' | b'\\' | b'%' | 0..=0x1f | 0x7f),
            _ => false,
        },
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_with_a_second_reading_are_refused() {
        let refused = [
            "",
            "x",
            "//evil.example",
            "//evil.example/x",
            "/\\evil.example",
            "\\\\evil.example",
            "/a\\b",
            "/..",
            "/.",
            "/../x",
            "/a/../b",
            "/a/..",
            "/a/.",
            "/a/./b",
            "/%2e%2e/x",
            "/%2E%2e",
            "/.%2e/x",
            "/%2e",
            "/%2e%2E%2f",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            "/..;/x",
            "/..;a=b/x",
            "/.;/x",
            "/a/..;x",
            "/%2e%2e;x/y",
            "/a%00b",
            "/a%0d%0ab",
            "/a%09b",
            "/a%7fb",
            "/a\tb",
            "/a b",
            "/a\u{0}b",
            "/a#b",
            "/a?b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%c0%ae",
            "/a%c0%af",
            "/a%ff",
            "/%252e%252e/x",
            "/a%252fb",
            "/a%255cb",
            "/a%25252e",
            "/a%2500",
            "/é",
            "/a|b",
            "/a\"b",
            "/a<b",
            "/a^b",
            "/a`b",
            "/a{b}",
            "http://evil.example/",
            "https:/evil",
            "@evil.example",
            "/%20../x/%2e%2e%20",
            "/..%20/x",
            "/..%3b/x",
            "/a/%2e%2e",
            "*",
        ];
        let passed: Vec<_> = refused.iter().filter(|path| check_path(path).is_ok()).collect();
        assert!(passed.is_empty(), "{passed:?}");
    }

    #[test]
    fn usual_paths_pass() {
        let usual = [
            "/",
            "/v1/customers",
            "/v1/customers/cus_1",
            "/a/",
            "/a//b",
            "/a.b/c..d",
            "/...",
            "/.well-known/x",
            "/a;b=c",
            "/x:y@z",
            "/a%20b",
            "/%E2%82%AC",
            "/a%3Fb",
            "/a%23b",
            "/a%25b",
            "/..a",
            "/a..",
            "/v1/x,y(z)'!*$&+=",
            "/~me",
            "/chat.postMessage",
            "/a%40b",
            "/100%25",
            "/a%2Db",
        ];
        let refused: Vec<_> = usual.iter().filter_map(|path| check_path(path).err().map(|why| (path, why))).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn queries_are_visible_ascii() {
        for query in ["", "a=b&c=d", "q=a%20b+c", "x[]=1", "{a}", "q=a%0Ab", "redirect=https://x/../y", "a|b"] {
            assert!(check_query(query).is_ok(), "{query}");
        }
        for query in ["a b", "a#b", "a\tb", "a\\b", "é", "a%00b", "\"", "<x>"] {
            assert!(check_query(query).is_err(), "{query}");
        }
    }

    #[test]
    fn the_normal_form_passes_where_its_spellings_do() {
        for (spelling, passes) in [
            ("/%73earch", true),
            ("/%2e%2e/x", false),
            ("/%2E", false),
            ("/a/.%2E", false),
            ("/%2F/x", false),
            ("/a%2%65", false),
            ("/%252e%252e", false),
        ] {
            assert_eq!(check_path(NormalPath::of(spelling).as_str()).is_ok(), passes, "{spelling}");
        }
    }

    proptest! {
        /// The gate says the same of a path and of its normal form.
        #[test]
        fn normalising_opens_and_closes_nothing(suffix in "[/\\\\.%25cCeEfF;:@#?a-]{0,24}") {
            prop_assert_eq!(check_path(&suffix), check_path(NormalPath::of(&suffix).as_str()), "{}", suffix);
        }

        // `PROPTEST_CASES=10000000` looks longer.
        /// Whatever suffix passes, a URL library that resolves dot segments and backslashes keeps the
        /// authority and the base path.
        #[test]
        fn no_suffix_leaves_its_base(suffix in "[/\\\\.%25cCeEfF;:@#?a\t\u{e9}-]{0,24}") {
            if check_path(&suffix).is_ok() {
                let url = format!("https://api.example.com/base/v1{suffix}");
                let parsed = url::Url::parse(&url).expect("what passes is a URL");
                prop_assert_eq!(parsed.host_str(), Some("api.example.com"));
                prop_assert!(parsed.path().starts_with("/base/v1/"), "{} became {}", suffix, parsed);
                prop_assert_eq!(parsed.path().len(), "/base/v1".len() + suffix.len(), "{} became {}", suffix, parsed);
            }
        }
    }
}
