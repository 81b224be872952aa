//! The small values that blocks are made of: templates, secrets, quantities, short forms.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::base::secret::Secret;
use crate::base::units::{Rate, parse_duration, parse_size};

macro_rules! text_scalar {
    ($(#[$doc:meta])+ $name:ident, $kind:literal) => {
        $(#[$doc])+
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "x-template": $kind })
            }
        }
    };
}

text_scalar! {
    /// A bare expression of the template language, such as `body.action`. What is undefined is none
    /// and falsy.
    Expression, "expression"
}
text_scalar! {
    /// Text with `{{ … }}` slots. What is undefined in a slot is an error. A text that is one lone
    /// slot keeps its value's type.
    Template, "text"
}

/// A secret. Must come from a reference: `${env:NAME}` or `${file:PATH}`.
#[derive(Debug)]
pub struct SecretText(pub Secret);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "x-secret": true,
            "description": "A secret, by reference: ${env:NAME} or ${file:PATH}. Written out it is an error.",
            "examples": ["${env:STRIPE_API_KEY}"],
        })
    }
}

macro_rules! quantity {
    ($(#[$doc:meta])+ $name:ident($inner:ty), $parse:expr, $pattern:literal, $expected:literal, $example:literal) => {
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                $parse(&text).map(Self).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "x-expected": $expected, "examples": [$example] })
            }
        }
    };
}

quantity! {
    /// A duration: whole numbers with `ms`, `s`, `m`, `h` or `d`, largest first.
    DurationText(Duration), parse_duration,
    r"^(?=.)([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$",
    "a duration with its unit, such as 500ms, 30s, 5m, 1h30m or 7d", "5m"
}
quantity! {
    /// A size: a whole number with `B`, `KiB`, `MiB` or `GiB`.
    SizeText(u64), parse_size,
    r"^[0-9]{1,9}(B|KiB|MiB|GiB)$",
    "a size with its unit, such as 512B, 64KiB, 1MiB or 2GiB", "1MiB"
}
quantity! {
    /// A rate: a number per `s`, `m`, `h` or `d`.
    RateText(Rate), |text: &str| text.parse::<Rate>(),
    r"^[1-9][0-9]{0,8}/(s|m|h|d)$",
    "a rate, such as 25/s, 600/m, 5000/h or 100000/d", "5000/h"
}

/// An id: lower-case letters, digits, `_` and `-`, beginning with a letter or digit, at most 64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(transparent)]
pub struct Id(pub String);

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$",
            "x-expected": "an id: lower-case letters, digits, `_` and `-`, at most 64 characters",
        })
    }
}

/// A value with a short form: a text that stands for a whole map.
pub trait Short: Sized {
    /// What the short form means, for the schema.
    const SHORT: &'static str;

    /// The map that the text stands for.
    fn from_short(text: String) -> Self;
}

/// A block that may be written short, as a text, or long, as a map.
#[derive(Debug, Clone)]
pub struct ShortOr<T>(pub T);

impl<'de, T: Short + Deserialize<'de>> Deserialize<'de> for ShortOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Short + Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} or a map", T::SHORT)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
                Ok(T::from_short(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Either(PhantomData)).map(Self)
    }
}

impl<T: Short + JsonSchema> JsonSchema for ShortOr<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ShortOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<T>();
        let short = format!("{} (short form)", T::SHORT);
        json_schema!({
            "type": ["string", "object"], "if": { "type": "string" },
            "then": { "minLength": 1, "description": short }, "else": long,
        })
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                T::deserialize(serde::de::value::StrDeserializer::new(text)).map(|one| vec![one])
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq))
            }
        }

        deserializer.deserialize_any(Either(PhantomData)).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "if": { "type": "array" }, "then": { "items": one, "minItems": 1 }, "else": one })
    }
}

/// A map that keeps the order in which it was written.
pub type Ordered<T> = Vec<(String, T)>;

/// Reads a map in the order it was written.
pub fn ordered<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Ordered<T>, D::Error> {
    struct Entries<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
        type Value = Ordered<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn one_and_many_read_alike() {
        let read = |value| serde_json::from_value::<OneOrMany<Id>>(value).map(|list| list.0.len()).ok();
        assert_eq!([read(json!("a")), read(json!(["a", "b"])), read(json!(3))], [Some(1), Some(2), None]);
    }

    proptest! {
        #[test]
        fn the_schema_takes_just_the_durations_that_parse(text in "([0-9]{0,3}(d|h|m|s|ms|x|)){0,3}") {
            let schema = schemars::schema_for!(DurationText);
            let accepts = jsonschema::is_valid(schema.as_value(), &json!(text));
            prop_assert_eq!(accepts, parse_duration(&text).is_ok(), "{}", text);
        }
    }
}
