//! What has to be known of a JSON document before it is read: how many values it holds, and which of its numbers a
//! reader would round.
//!
//! A document takes far more memory when it is read than it has bytes: `[0,0,…]` sixteen times as much. And a number
//! that no 64 bits hold is rounded by nearly every reader, so that two ids become one. Called by whoever reads bodies
//! of others.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The most values that are read of one document, and the most that one template makes. A value takes 100 to 250
/// bytes of memory, so this bounds what one document can take to about 100 MiB.
pub const VALUES: usize = 500_000;

/// The digits that a double always keeps.
const SAFE_DIGITS: usize = 15;

/// A document has more than [`VALUES`] values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has more than {VALUES} values")]
pub struct TooMany;

/// The document as it can be read without taking one number for another: each whole number that neither 64 bits nor a
/// double hold exactly, and what is beyond all doubles, stands as a string of its digits. What is no JSON is given back
/// in some form that is none either.
///
/// # Errors
/// When it has more than [`VALUES`] values, keys of objects among them.
pub fn lossless(document: &[u8]) -> Result<Cow<'_, [u8]>, TooMany> {
    let mut values = 1;
    walk(document, false, || {
        values += 1;
        if values > VALUES { Err(TooMany) } else { Ok(()) }
    })
}

/// As [`lossless`], of a document of which only a part may be read: whoever reads it counts the values. With `fractions`
/// those are strings as well that have more digits than a double keeps.
pub fn exact(document: &[u8], fractions: bool) -> Cow<'_, [u8]> {
    walk(document, fractions, || Ok::<(), std::convert::Infallible>(())).unwrap_or_else(|never| match never {})
}

/// Whether a document is JSON of which a reader keeps every member: one in which no object has a name twice.
pub fn has_distinct_names(document: &[u8]) -> bool {
    serde_json::from_slice::<Distinct>(document).is_ok()
}

/// Any JSON value whose objects have no name twice.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Distinct {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a name twice")
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a name stands twice"));
            }
            members.next_value::<Self>()?;
        }
        Ok(self)
    }
}

/// Goes over a document, calls `another` where one more value begins, and puts what would be rounded into quotes.
fn walk<E>(document: &[u8], fractions: bool, mut another: impl FnMut() -> Result<(), E>) -> Result<Cow<'_, [u8]>, E> {
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(&byte) = document.get(at) {
        match byte {
            b'"' => at = string_end(document, at + 1),
            b',' | b':' | b'[' | b'{' => {
                another()?;
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let end = at + 1 + document[at + 1..].iter().take_while(|byte| in_number(**byte)).count();
                let number = &document[at..end];
                let may_be = number.len() > SAFE_DIGITS || number.iter().any(|byte| matches!(byte, b'e' | b'E'));
                if may_be && is_rounded(number, fractions) {
                    out.extend_from_slice(&document[copied..at]);
                    out.push(b'"');
                    out.extend_from_slice(number);
                    out.push(b'"');
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(document));
    }
    out.extend_from_slice(&document[copied..]);
    Ok(Cow::Owned(out))
}

/// Where the string that begins at `from` ends, behind its closing quote.
fn string_end(document: &[u8], mut from: usize) -> usize {
    while let Some(found) = document.get(from..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        let at = from + found;
        if document[at] == b'"' {
            return at + 1;
        }
        from = at + 2;
    }
    document.len()
}

fn in_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
}

/// Whether a reader with 64 bits and doubles takes a number for another: a whole number that has no place in 64 bits and
/// is no double, and one beyond all doubles. A fraction is what its double is, as everywhere, unless `fractions` are to be
/// told apart. What is no number in JSON is not touched: the reader says where it is wrong.
fn is_rounded(number: &[u8], fractions: bool) -> bool {
    let Some(written) = std::str::from_utf8(number).ok().filter(|text| is_number(text)) else { return false };
    let Ok(double) = serde_json::from_str::<f64>(written) else { return true };
    let is_whole = written.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if !is_whole {
        return fractions && decimal(&format!("{double:e}")) != decimal(written);
    }
    if written.parse::<u64>().is_ok() || written.parse::<i64>().is_ok() {
        return false;
    }
    // Where two numbers of so many digits are one double, two writers may write it out as either.
    let read_as = serde_json::Number::from_f64(double).map(|number| number.to_string());
    let kept = |form: &str| decimal(form) == decimal(written);
    !(kept(&format!("{double:e}")) && read_as.is_some_and(|form| kept(&form)))
}

/// Whether a text is a number of RFC 8259, section 6.
fn is_number(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A number's digits without the zeros at their ends, and the power of ten of the last of them.
fn decimal(number: &str) -> (String, i64) {
    let (mantissa, power) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let kept = digits.trim_end_matches('0');
    // A power that no number holds is further away than any double.
    let power = power.parse::<i64>().unwrap_or(i64::from(i32::MAX)).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    let shift = i64::try_from(digits.len() - kept.len()).unwrap_or(i64::MAX);
    let behind = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let significant = kept.trim_start_matches('0').to_owned();
    if significant.is_empty() { (significant, 0) } else { (significant, power + shift - behind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(document: &str) -> String {
        String::from_utf8(lossless(document.as_bytes()).expect("few").into_owned()).expect("text")
    }

    #[test]
    fn fractions_are_told_apart_by_their_digits_where_that_is_wanted() {
        let kept = "[1.5,0.1,123e0,1700000000.123456,-0.0,1.50]";
        assert_eq!(exact(kept.as_bytes(), true), kept.as_bytes());
        let rounded = "[12345678901234567890.0,1700000000.1234567899,1.2345678901234567891e3]";
        let digits = exact(rounded.as_bytes(), true);
        assert_eq!(
            String::from_utf8_lossy(&digits),
            r#"["12345678901234567890.0","1700000000.1234567899","1.2345678901234567891e3"]"#
        );
        assert_eq!(exact(rounded.as_bytes(), false), rounded.as_bytes());
    }

    #[test]
    fn only_what_would_be_rounded_is_put_into_quotes() {
        let same = [
            "[0,-1,18446744073709551615,-9223372036854775808]",
            "[1.5,0.1,1612345678.123456,1e21,100000000000000000000,-0.0,1.10000000000000000000]",
            "[4.9000000000000004,4.90000000000000035527,0.12345678901234567890,12345678901234567890.5]",
            r#"{"a":"12345678901234567890123","b\"12345678901234567890123":1}"#,
            "[12345678901234567890123e, 1..000000000000000000002, -, 0000000000000000000000001]",
        ];
        for document in same {
            assert_eq!(text(document), document);
        }
        assert_eq!(
            text(r#"{"id":12345678901234567890123,"b":-9223372036854775809}"#),
            r#"{"id":"12345678901234567890123","b":"-9223372036854775809"}"#
        );
        assert_eq!(text("[1e400000000000000000000]"), r#"["1e400000000000000000000"]"#);
        assert_eq!(text("18446744073709551616"), r#""18446744073709551616""#);
    }

    #[test]
    fn values_are_counted_and_those_in_strings_are_not() {
        assert!(lossless(format!("[{}0]", "0,".repeat(VALUES - 3)).as_bytes()).is_ok());
        assert_eq!(lossless(format!("[{}0]", "0,".repeat(VALUES)).as_bytes()), Err(TooMany));
        assert_eq!(lossless("[".repeat(VALUES).as_bytes()), Err(TooMany));
        assert!(lossless(format!("\"{}\"", ",".repeat(VALUES)).as_bytes()).is_ok());
    }

    #[test]
    fn a_name_that_stands_twice_is_found_however_it_is_written() {
        for distinct in ["[1,-1,1.5,\"a\",null,true]", r#"{"a":{"a":[{"a":1},{"a":1}]},"b":{"a":1}}"#, "{}"] {
            assert!(has_distinct_names(distinct.as_bytes()), "{distinct}");
        }
        for twice in [r#"{"a":1,"a":1}"#, r#"[[{"b":{"a":1,"x":[],"\u0061":2}}]]"#, "{", ""] {
            assert!(!has_distinct_names(twice.as_bytes()), "{twice}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(whole in "-?[1-9][0-9]{0,25}", fraction in "(\\.[0-9]{1,25})?", power in "(e[+-]?[0-9]{1,3})?") {
            let number = format!("{whole}{fraction}{power}");
            let document = text(&number);
            match serde_json::from_str::<serde_json::Value>(&document) {
                Ok(serde_json::Value::String(kept)) => prop_assert_eq!(kept, number),
                Ok(read) if fraction.is_empty() && power.is_empty() => {
                    prop_assert_eq!(decimal(&read.to_string()), decimal(&number));
                }
                Ok(read) => prop_assert_eq!(read.as_f64(), number.parse::<f64>().ok()),
                Err(error) => prop_assert!(false, "{}: {}", number, error),
            }
        }

        #[test]
        fn all_else_stands_as_it_was(document in r#"[\[\]{}",:a0-9.\\ -]{0,40}"#) {
            let exact = exact(document.as_bytes(), false);
            let before = serde_json::from_str::<serde_json::Value>(&document);
            let after = serde_json::from_slice::<serde_json::Value>(&exact);
            prop_assert_eq!(before.is_ok(), after.is_ok());
            if matches!(exact, Cow::Borrowed(_)) {
                prop_assert_eq!(before.ok(), after.ok());
            }
        }
    }
}
