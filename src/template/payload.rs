//! A body as templates see it: JSON, a form or a text, read only as far as it is asked for.
//!
//! A webhook's rules mostly want one or two fields of a large document. [`Wanted`] says which, and what
//! is not wanted is skipped without being built. A key that is wanted and stands twice in one object is
//! an error, because another reader of the same bytes might have taken the other value.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use minijinja::value::Value;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::base::json::{self, VALUES};

/// The deepest nesting of JSON that is built.
const DEPTH: usize = 64;

/// How numbers are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Numbers {
    /// A fraction is the nearest double, as everywhere.
    #[default]
    Values,
    /// One that no double holds is the text of its digits: for what tells one thing from another.
    Digits,
}

/// Which values a set of templates reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    all: bool,
    numbers: Numbers,
    below: Vec<(Box<str>, Wanted)>,
}

impl Wanted {
    /// Everything.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// The same with numbers read so.
    #[must_use]
    pub fn reading(self, numbers: Numbers) -> Self {
        Self { numbers, ..self }
    }

    /// What these names need: a name such as `body.action` wants this one value and all below it.
    pub fn of<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut wanted = Self::default();
        for name in names {
            wanted.add(name.as_ref());
        }
        wanted
    }

    fn add(&mut self, name: &str) {
        let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
        let known = self.below.iter().position(|(known, _)| &**known == first);
        let place = known.unwrap_or_else(|| {
            self.below.push((first.into(), Self::default()));
            self.below.len() - 1
        });
        match rest {
            Some(rest) => self.below[place].1.add(rest),
            None => self.below[place].1.all = true,
        }
    }

    /// What is wanted below a name; `None` when nothing is.
    pub fn get(&self, name: &str) -> Option<&Self> {
        if self.all {
            return Some(self);
        }
        self.below.iter().find(|(known, _)| &**known == name).map(|(_, below)| below)
    }
}

/// Why a body has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It says that it is JSON, or begins like it and says nothing, and is not.
    #[error("the body is not JSON: line {line}, column {column}")]
    NotJson {
        /// Where reading stopped, from one.
        line: usize,
        /// Where reading stopped, from one.
        column: usize,
    },
    /// What is wanted is nested more than 64 deep.
    #[error("the body is nested more than {DEPTH} deep")]
    TooDeep,
    /// More is wanted than is built.
    #[error("what is read of the body has more than {VALUES} values")]
    TooMany,
    /// A key that is read stands twice.
    #[error("the body has `{0}` twice, so it has more than one reading")]
    Repeated(String),
    /// It is neither JSON nor a form nor text.
    #[error("the body is neither JSON nor a form nor UTF-8 text")]
    Binary,
}

/// Reads what is wanted of a body.
///
/// - `application/x-www-form-urlencoded` gives a map of texts. A form whose only field is `payload`
///   and holds a JSON object or list gives that JSON, because services that offer both forms (GitHub,
///   Slack) mean the same document.
/// - JSON media types give the JSON value, and so does a body without a type that begins like a JSON object or list. Any
///   other body that begins like one gives the value where it is one.
/// - All else is one text. An empty body is none.
///
/// A number that 64 bits and a double would round is the text of its digits, so that no two ids become one.
///
/// # Errors
/// When the body is not what its type says, or has more than one reading.
pub fn read(content_type: Option<&str>, body: &[u8], wanted: &Wanted) -> Result<Value, PayloadError> {
    // A mark of UTF-8 is no part of a text (RFC 8259, section 8.1).
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.is_empty() {
        return Ok(Value::from(()));
    }
    let media = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/x-www-form-urlencoded" {
        return read_form(body, wanted);
    }
    if media == "application/json" || media == "text/json" || media.ends_with("+json") {
        return read_json(body, wanted);
    }
    if matches!(body.iter().find(|byte| !byte.is_ascii_whitespace()), Some(b'{' | b'[')) {
        match read_json(body, wanted) {
            // JSON of which a part cannot be read, such as half a character, is none the less JSON, whatever is read of it.
            Err(PayloadError::NotJson { .. }) if !media.is_empty() && !is_json(body) => {}
            read => return read,
        }
    }
    std::str::from_utf8(body).map(Value::from).map_err(|_| PayloadError::Binary)
}

/// Whether a body that [`read`] reads as JSON has a number that no double holds, so that it is read otherwise by
/// [`Numbers::Digits`].
pub fn is_rounded(body: &[u8]) -> bool {
    match json::exact(body, true) {
        Cow::Borrowed(_) => false,
        // A large whole number is a text in either way.
        Cow::Owned(digits) => *json::exact(body, false) != *digits,
    }
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

fn read_form(body: &[u8], wanted: &Wanted) -> Result<Value, PayloadError> {
    let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = url::form_urlencoded::parse(body).collect();
    if let [(name, value)] = &*pairs
        && name == "payload"
        && value.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '['])
    {
        return read_json(value.trim_start_matches('\u{feff}').as_bytes(), wanted);
    }
    let mut fields: HashMap<&str, &str> = HashMap::new();
    for (name, value) in &pairs {
        if wanted.get(name).is_some() && fields.insert(name, value).is_some() && !wanted.all {
            return Err(PayloadError::Repeated(name.to_string()));
        }
    }
    let seen = pairs.iter().filter(|(name, _)| wanted.get(name).is_some());
    Ok(Value::from_pairs(seen.map(|(name, value)| (&**name, &**value))))
}

fn read_json(body: &[u8], wanted: &Wanted) -> Result<Value, PayloadError> {
    let (read, doubles) = read_once(body, wanted);
    // A number that is rounded is read as a double, or is beyond all of them: where there is none, the search is spared.
    if read.is_ok() && !doubles {
        return read;
    }
    match json::exact(body, wanted.numbers == Numbers::Digits) {
        Cow::Borrowed(_) => read,
        Cow::Owned(exact) => {
            // Not both at once: each may take much memory.
            drop(read);
            // A fault is told at its place in what was sent.
            read_once(&exact, wanted).0.or_else(|_| read_once(body, wanted).0)
        }
    }
}

/// Reads what is wanted as it stands, and tells whether a double was among it.
fn read_once(body: &[u8], wanted: &Wanted) -> (Result<Value, PayloadError>, bool) {
    let mut ends = Ends { values: VALUES, doubles: false, fault: None };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Reader { wanted, depth: DEPTH, ends: &mut ends }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    let read = value
        .map_err(|error| ends.fault.unwrap_or(PayloadError::NotJson { line: error.line(), column: error.column() }));
    (read, ends.doubles)
}

/// How many more values may be built, whether one of them was a double, and why reading ended.
struct Ends {
    values: usize,
    doubles: bool,
    fault: Option<PayloadError>,
}

struct Reader<'a> {
    wanted: &'a Wanted,
    depth: usize,
    ends: &'a mut Ends,
}

impl Reader<'_> {
    fn below<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(depth),
            None => Err(self.fail(PayloadError::TooDeep)),
        }
    }

    /// Counts one more value of a list or an object.
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        match self.ends.values.checked_sub(1) {
            Some(left) => self.ends.values = left,
            None => return Err(self.fail(PayloadError::TooMany)),
        }
        Ok(())
    }

    fn fail<E: serde::de::Error>(&mut self, fault: PayloadError) -> E {
        self.ends.fault = Some(fault);
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::from(()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.ends.doubles = true;
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.below()?;
        // A place in a list has no name, so whatever is wanted of a list is all of it.
        let all = Wanted::all();
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Reader { wanted: &all, depth, ends: self.ends })? {
            self.count()?;
            list.push(item);
        }
        Ok(Value::from(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        let depth = self.below()?;
        let mut map: Vec<(String, Value)> = Vec::new();
        while let Some(Key(key)) = entries.next_key()? {
            let Some(wanted) = self.wanted.get(&key) else {
                entries.next_value::<IgnoredAny>()?;
                continue;
            };
            // Names that templates spell out are few; of an object that is wanted whole, nobody can say
            // which of its keys matter, and the last one counts as in every usual JSON reader.
            if !self.wanted.all && map.iter().any(|(known, _)| *known == key) {
                return Err(self.fail(PayloadError::Repeated(key.into_owned())));
            }
            self.count()?;
            let value = entries.next_value_seed(Reader { wanted, depth, ends: self.ends })?;
            map.push((key.into_owned(), value));
        }
        Ok(Value::from_pairs(map))
    }
}

struct Key<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(body: &str, wanted: &Wanted) -> Result<String, PayloadError> {
        read(Some("application/json"), body.as_bytes(), wanted).map(|value| written(&value))
    }

    fn written(value: &Value) -> String {
        serde_json::to_string(value).expect("JSON")
    }

    #[test]
    fn what_is_not_wanted_is_not_built() {
        let wanted = Wanted::of(["body.action", "body.pull_request.id"]);
        let body = wanted.get("body").expect("wanted");
        let value = json(r#"{"action":"x","big":[[[1]]],"pull_request":{"id":7,"title":"t"}}"#, body);
        assert_eq!(value.as_deref(), Ok(r#"{"action":"x","pull_request":{"id":7}}"#));
    }

    #[test]
    fn a_wanted_key_that_stands_twice_is_refused_and_another_is_not() {
        let wanted = Wanted::of(["type"]);
        assert_eq!(json(r#"{"type":"a","type":"b"}"#, &wanted), Err(PayloadError::Repeated("type".to_owned())));
        assert_eq!(json(r#"{"x":"a","x":"b","type":"c"}"#, &wanted).as_deref(), Ok(r#"{"type":"c"}"#));
        let form = read(Some("application/x-www-form-urlencoded"), b"type=a&type=b", &wanted);
        assert_eq!(form, Err(PayloadError::Repeated("type".to_owned())));
    }

    #[test]
    fn nesting_ends_at_64() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(json(&nested(64), &Wanted::all()).is_ok());
        assert_eq!(json(&nested(65), &Wanted::all()), Err(PayloadError::TooDeep));
    }

    #[test]
    fn a_number_is_never_another() {
        let body = r#"{"id":12345678901234567890123,"ms":1612345678.123456}"#;
        let exact = r#"{"id":"12345678901234567890123","ms":1612345678.123456}"#;
        assert_eq!(json(body, &Wanted::all()).as_deref(), Ok(exact));
        for (wanted, read) in [("id", r#"{"id":"12345678901234567890123"}"#), ("ms", r#"{"ms":1612345678.123456}"#)] {
            assert_eq!(json(body, &Wanted::of([wanted])).as_deref(), Ok(read));
        }
        for (beyond, read) in [("1e400", r#""1e400""#), ("-9223372036854775809", r#""-9223372036854775809""#)] {
            assert_eq!(
                json(&format!(r#"{{"x":"",  "id":{beyond}}}"#), &Wanted::of(["id"])),
                Ok(format!(r#"{{"id":{read}}}"#))
            );
        }
        let broken = r#"{"id":12345678901234567890123,"#;
        assert_eq!(json(broken, &Wanted::all()), Err(PayloadError::NotJson { line: 1, column: broken.len() }));
    }

    #[test]
    fn what_is_built_is_bounded_and_what_is_skipped_is_not() {
        let many = format!(r#"{{"a":[{}0],"b":1}}"#, "0,".repeat(VALUES));
        assert_eq!(json(&many, &Wanted::all()), Err(PayloadError::TooMany));
        assert_eq!(json(&many, &Wanted::of(["b"])).as_deref(), Ok(r#"{"b":1}"#));
    }

    #[test]
    fn a_form_with_one_payload_is_its_json() {
        let body = b"payload=%7B%22action%22%3A%22opened%22%7D";
        let read = read(Some("application/x-www-form-urlencoded; charset=utf-8"), body, &Wanted::all());
        assert_eq!(read.map(|value| written(&value)).as_deref(), Ok(r#"{"action":"opened"}"#));
    }

    #[test]
    fn types_decide_and_what_begins_like_json_may_be_it() {
        let all = Wanted::all();
        let text = |content_type, body: &str| read(content_type, body.as_bytes(), &all).map(|value| written(&value));
        assert_eq!(text(None, "{\"a\":1}").as_deref(), Ok("{\"a\":1}"));
        assert_eq!(text(Some("text/plain"), "{ no").as_deref(), Ok("\"{ no\""));
        assert_eq!(text(None, "{ no"), Err(PayloadError::NotJson { line: 1, column: 3 }));
        assert_eq!(text(None, "[1,").map_err(|_| ()), Err(()));
        assert_eq!(text(None, "no {").as_deref(), Ok("\"no {\""));
        let half = r#"{"type":"a","b":"\ud800"}"#;
        assert!(matches!(text(Some("text/plain"), half), Err(PayloadError::NotJson { line: 1, .. })));
        let part = read(Some("text/plain"), half.as_bytes(), &Wanted::of(["type"]));
        assert_eq!(part.map(|value| written(&value)).as_deref(), Ok(r#"{"type":"a"}"#));
        assert_eq!(text(Some("application/vnd.x+json"), "no"), Err(PayloadError::NotJson { line: 1, column: 2 }));
        assert_eq!(text(Some("application/json"), "{} x").map_err(|_| ()), Err(()));
        assert_eq!(read(None, b"\xff\xfe", &all), Err(PayloadError::Binary));
    }

    proptest! {
        #[test]
        fn reading_all_agrees_with_serde_json(text in r#"[\[\]{}",:a0-9. ]{0,24}"#) {
            let ours = read_json(text.as_bytes(), &Wanted::all()).map(|value| serde_json::to_value(value).ok());
            let theirs = serde_json::from_str::<serde_json::Value>(&text).map(Some);
            prop_assert_eq!(ours.ok(), theirs.ok());
        }
    }
}
