//! Paths in one spelling.
//!
//! RFC 3986 lets one path be written in many ways. [`normal`] is the one that all parts of the program compare
//! and send; [`lax`] is what the least exact of servers makes of a path, for what must not be evaded by a
//! spelling that such a server takes for another. Neither judges whether a path may go anywhere.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A path with every unreserved octet plain and the digits of the others in upper case (RFC 3986 section
/// 6.2.2): `/%73earch%3a` is `/search%3A`. Dot segments stay, and what is reserved stays as it is written,
/// because it may mean something else when it is encoded. A path in which a percent sign encodes nothing has no
/// such form and is returned as it is.
pub fn normal(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    normalised(path).map_or(Cow::Borrowed(path), Cow::Owned)
}

fn normalised(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, after)) = rest.split_once('%') {
        out.push_str(plain);
        let (digits, behind) = after.split_at_checked(2)?;
        let mut halves = digits.bytes().map(hex_value);
        let octet = halves.next()?? << 4 | halves.next()??;
        if is_unreserved(octet) {
            out.push(char::from(octet));
        } else {
            out.push('%');
            out.push_str(&digits.to_ascii_uppercase());
        }
        rest = behind;
    }
    out.push_str(rest);
    Some(out)
}

/// A path as the least exact of servers reads it: everything decoded, without what follows a semicolon in a
/// segment, without empty segments, and so without a slash at its end. `/a//%62;v=1/` is `/a/b`.
pub fn lax(path: &str) -> Cow<'_, str> {
    let plain = !path.contains(['%', ';']) && !path.contains("//");
    if plain && (path == "/" || (path.starts_with('/') && !path.ends_with('/'))) {
        return Cow::Borrowed(path);
    }
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut out = String::with_capacity(path.len());
    for segment in decoded.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        if !segment.is_empty() {
            out.push('/');
            out.push_str(segment);
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    Cow::Owned(out)
}

/// The value of a hexadecimal digit.
pub const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986 section 2.3.
const fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_path_has_one_normal_form() {
        for (spelling, one) in [
            ("/search", "/search"),
            ("/%73%65arch", "/search"),
            ("/%7eme/%2D%5F%2e", "/~me/-_."),
            ("/a%3ab%c3%a9", "/a%3Ab%C3%A9"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2573", "/a%2573"),
            ("/a%2%65", "/a%2%65"),
            ("/a%", "/a%"),
            ("/a%zz%73", "/a%zz%73"),
            ("/%é1", "/%é1"),
        ] {
            assert_eq!(normal(spelling), one, "{spelling}");
        }
    }

    #[test]
    fn a_lax_server_drops_what_an_exact_one_keeps() {
        for (path, read) in [
            ("/", "/"),
            ("", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a"),
            ("/a///b//", "/a/b"),
            ("/a;v=1/b;x", "/a/b"),
            ("/a%3Bv=1/%3A", "/a/:"),
            ("/;x/a", "/a"),
            ("/*", "/*"),
        ] {
            assert_eq!(lax(path), read, "{path}");
        }
    }

    proptest! {
        /// One form, whatever the spelling; it means what the path meant.
        #[test]
        fn the_normal_form_is_one_and_means_the_same(path in "(/([a-z~.]|%[0-9a-fA-F]{2}|[:;%]){0,6}){1,4}") {
            let once = normal(&path).into_owned();
            prop_assert_eq!(normal(&once), once.as_str());
            let octets = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
            prop_assert_eq!(octets(&path), octets(&once));
        }

        /// However the octets of a path are encoded, its normal form is that of the plain path.
        #[test]
        fn no_spelling_evades(plain in "/[a-z0-9~._-]{1,12}", encoded in proptest::collection::vec(0..3_u8, 13)) {
            let spell = |(octet, how): (u8, &u8)| match how {
                _ if octet == b'/' => "/".to_owned(),
                0 => format!("%{octet:02x}"),
                1 => format!("%{octet:02X}"),
                _ => char::from(octet).to_string(),
            };
            let spelling: String = plain.bytes().zip(&encoded).map(spell).collect();
            prop_assert_eq!(normal(&spelling), plain);
        }
    }
}
