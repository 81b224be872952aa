//! A query's parameters read into what a route wants of them, and what is wrong with them in words for people: which
//! parameter, and what it takes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::value::MapDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer, Visitor};
use serde::{de, forward_to_deserialize_any};

/// The parameters of a query. Whatever is wrong is told with the parameter's name.
///
/// # Errors
/// When one is not known, comes twice, has a value that is not one, or is missing.
pub fn read<T: de::DeserializeOwned>(query: &str) -> Result<T, String> {
    taken(&url::form_urlencoded::parse(query.as_bytes()).collect::<Vec<_>>())
}

/// The parameters of a query that selects: an empty one is none, as in what a form of a page sends.
///
/// # Errors
/// As [`read`], also when an empty one is not known.
pub fn filters<T: de::DeserializeOwned>(query: &str) -> Result<T, String> {
    let all = url::form_urlencoded::parse(query.as_bytes());
    let (empty, given): (Vec<_>, Vec<_>) = all.partition(|(_, value)| value.is_empty());
    let unknown = empty.iter().find_map(|pair| match T::deserialize(of(std::slice::from_ref(pair))) {
        Err(fault @ Fault::Unknown { .. }) => Some(fault),
        _ => None,
    });
    match unknown {
        Some(fault) => Err(fault.to_string()),
        None => taken(&given),
    }
}

fn taken<T: de::DeserializeOwned>(pairs: &[(Cow<'_, str>, Cow<'_, str>)]) -> Result<T, String> {
    let fault = match T::deserialize(of(pairs)) {
        Ok(read) => return Ok(read),
        Err(fault) => fault,
    };
    // A fault of a value does not know its name; the parameter that has it alone does.
    let own = |pair: &&(Cow<'_, str>, Cow<'_, str>)| match T::deserialize(of(std::slice::from_ref(*pair))) {
        Err(alone) => alone == fault && alone.is_of_value(),
        Ok(_) => false,
    };
    Err(match pairs.iter().find(own) {
        Some((name, value)) => format!("`{name}`: `{value}` {fault}"),
        None => fault.to_string(),
    })
}

fn of<'a>(
    pairs: &'a [(Cow<'a, str>, Cow<'a, str>)],
) -> MapDeserializer<'a, impl Iterator<Item = (Word<'a>, Word<'a>)>, Fault> {
    MapDeserializer::new(pairs.iter().map(|(name, value)| (Word(name), Word(value))))
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    Unknown {
        name: String,
        known: &'static [&'static str],
    },
    Twice(&'static str),
    Missing(&'static str),
    Choice(&'static [&'static str]),
    Number,
    /// What the type of the value says itself.
    Said(String),
}

impl Fault {
    fn is_of_value(&self) -> bool {
        matches!(self, Self::Choice(_) | Self::Number | Self::Said(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, known: [] } => write!(f, "there is no parameter `{name}`, nor any other here"),
            Self::Unknown { name, known } => {
                write!(f, "there is no parameter `{name}` here; there are {}", known.join(", "))
            }
            Self::Twice(name) => write!(f, "`{name}` is given twice"),
            Self::Missing(name) => write!(f, "`{name}` is missing"),
            Self::Choice(known) => write!(f, "is not one of {}", known.join(", ")),
            Self::Number => f.write_str("is not a whole number, or is out of its bounds"),
            Self::Said(said) => write!(f, "is not right: {said}"),
        }
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(said: T) -> Self {
        Self::Said(said.to_string())
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::Unknown { name: name.to_owned(), known }
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::Choice(known)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::Twice(name)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::Missing(name)
    }
}

/// A name or a value.
struct Word<'a>(&'a str);

impl IntoDeserializer<'_, Fault> for Word<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Word<'_> {
    fn number<N: FromStr>(&self) -> Result<N, Fault> {
        self.0.parse().map_err(|_| Fault::Number)
    }
}

impl<'de> Deserializer<'de> for Word<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u64(self.number()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(self.0.parse().map_err(|_| Fault::Choice(&["true", "false"]))?)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum State {
        Done,
        InPlay,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        word: Option<String>,
        state: Option<State>,
        limit: Option<usize>,
        #[serde(default)]
        from: u64,
        #[serde(default)]
        all: bool,
    }

    #[derive(Debug, Deserialize)]
    struct Needs {
        #[expect(dead_code, reason = "only its absence is looked at")]
        word: String,
    }

    fn fault(query: &str) -> String {
        read::<Wanted>(query).expect_err(query)
    }

    #[test]
    fn what_is_right_is_read() {
        let wanted =
            Wanted { word: Some("a b&c".to_owned()), state: Some(State::InPlay), limit: Some(3), from: 7, all: true };
        assert_eq!(read("word=a+b%26c&state=in_play&limit=3&from=7&all=true"), Ok(wanted));
        assert_eq!(read(""), Ok(Wanted { word: None, state: None, limit: None, from: 0, all: false }));
        assert_eq!(read::<Wanted>("word=").map(|wanted| wanted.word), Ok(Some(String::new())));
    }

    #[test]
    fn an_empty_filter_is_none_and_an_unknown_one_is_refused() {
        let wanted = Wanted { word: None, state: Some(State::Done), limit: None, from: 0, all: false };
        assert_eq!(filters("word=&state=done&limit=&from=&all="), Ok(wanted));
        let told = "there is no parameter `wrod` here; there are word, state, limit, from, all";
        assert_eq!(filters::<Wanted>("state=done&wrod="), Err(told.to_owned()));
        assert_eq!(filters::<Needs>("word=").expect_err("nothing"), "`word` is missing");
        let told = "`state`: `over` is not one of done, in_play";
        assert_eq!(filters::<Wanted>("word=&state=over"), Err(told.to_owned()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_name() {
        for (query, told) in [
            ("wrod=a", "there is no parameter `wrod` here; there are word, state, limit, from, all"),
            ("word=a&word=b", "`word` is given twice"),
            ("word=a&state=over", "`state`: `over` is not one of done, in_play"),
            ("state=done&limit=-1", "`limit`: `-1` is not a whole number, or is out of its bounds"),
            (
                "from=99999999999999999999",
                "`from`: `99999999999999999999` is not a whole number, or is out of its bounds",
            ),
        ] {
            assert_eq!(fault(query), told);
        }
        assert_eq!(read::<Needs>("").expect_err("nothing"), "`word` is missing");
    }
}
