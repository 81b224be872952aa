//! Reading `request`: a method, and a path or URL with slots.

use http::Method;

use crate::template::{Segment, Text};

/// What stands in `request`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address<'a> {
    /// The method; GET where none is written.
    pub method: Method,
    /// The path or URL.
    pub target: &'a str,
    /// Where the target begins in the text, in bytes.
    pub offset: usize,
}

/// Reads the method off a request line such as `GET /user`.
///
/// # Errors
/// What was expected, in words.
pub fn read_address(text: &str) -> Result<Address<'_>, String> {
    let expected = "expected a method and an address, such as `GET /user`";
    let (method, target, offset) = match text.split_once(' ') {
        Some((method, target)) if !method.contains(['/', '{']) => {
            let found = Method::from_bytes(method.as_bytes())
                .ok()
                .filter(|_| method.bytes().all(|letter| letter.is_ascii_uppercase()))
                .filter(|method| *method != Method::CONNECT && *method != Method::TRACE)
                .ok_or_else(|| format!("`{method}` is not a method; {expected}"))?;
            (found, target, method.len() + 1)
        }
        _ => (Method::GET, text, 0),
    };
    let known = target.starts_with('/')
        || target.starts_with("https://")
        || target.starts_with("http://")
        || target.starts_with("{{");
    if known {
        Ok(Address { method, target, offset })
    } else {
        Err(format!("`{target}` is not an address; {expected}"))
    }
}

/// Where a character stands in a compiled text outside its slots, in bytes of the source.
pub(super) fn find_outside_slots(text: &Text, wanted: char) -> Option<usize> {
    let mut offset = 0;
    for segment in text.segments()?.iter() {
        match segment {
            Segment::Literal(literal) => match literal.find(wanted) {
                Some(found) => return Some(offset + found),
                None => offset += literal.len(),
            },
            Segment::Slot(expression) => offset += expression.source().len() + "{{}}".len(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_targets_are_told_apart() {
        let read = |text| read_address(text).map(|address| (address.method.to_string(), address.target));
        assert_eq!(read("GET /user"), Ok(("GET".to_owned(), "/user")));
        assert_eq!(read("/user"), Ok(("GET".to_owned(), "/user")));
        assert_eq!(read("POST https://{{ input.h }}/x y"), Ok(("POST".to_owned(), "https://{{ input.h }}/x y")));
        assert_eq!(read("{{ saved.url }}/a b"), Ok(("GET".to_owned(), "{{ saved.url }}/a b")));
        for bad in ["", "user", "get /user", "GET user", "GET", "CONNECT /", "GE/T /x", "GET  /x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_question_mark_in_a_slot_is_not_a_query() {
        let find = |source: &str| find_outside_slots(&Text::compile(source).expect("compiles"), '?');
        assert_eq!(find("/a?b={{ c }}"), Some(2));
        assert_eq!(find("/{{ a['?'] }}?b"), Some(13));
        assert_eq!(find("/{{ a['?'] }}"), None);
    }
}
