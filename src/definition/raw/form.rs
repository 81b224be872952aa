//! The forms that values may take: short or long, one or many, maps in order, choices.
//!
//! Every form has a schema without `oneOf`: keywords for texts, maps and lists stand side by side, and
//! each applies to its own kind of value. So a fault is always found at the very value it is in.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// A value with a short form: a text that stands for a whole map.
pub trait Short: Sized {
    /// What the short form is, for errors and the manual.
    const SHORT: &'static str;

    /// What the text must match, where not every text will do.
    const PATTERN: Option<&'static str> = None;

    /// What the schema says of the text besides, such as that it is a template.
    const MARKS: &'static [(&'static str, &'static str)] = &[];

    /// The map that the text stands for.
    ///
    /// # Errors
    /// What was expected, when the text does not match [`Self::PATTERN`].
    fn from_short(text: String) -> Result<Self, String>;
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
                if text.is_empty() {
                    return Err(E::custom(format_args!("expected {} or a map", T::SHORT)));
                }
                T::from_short(text.to_owned()).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Either(PhantomData)).map(Self)
    }
}

impl<T: Short + JsonSchema> JsonSchema for ShortOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}OrText", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        schema.insert("type".to_owned(), json!(["string", "object"]));
        schema.insert("minLength".to_owned(), json!(1));
        schema.insert("x-short".to_owned(), json!(T::SHORT));
        for (keyword, value) in T::MARKS {
            schema.insert((*keyword).to_owned(), json!(value));
        }
        if let Some(pattern) = T::PATTERN {
            schema.insert("pattern".to_owned(), json!(pattern));
            schema.insert("x-expected".to_owned(), json!(T::SHORT));
        }
        schema
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of at least one")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                T::deserialize(StrDeserializer::new(text)).map(|one| vec![one])
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
                let list = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                if list.is_empty() { Err(serde::de::Error::invalid_length(0, &self)) } else { Ok(list) }
            }
        }

        deserializer.deserialize_any(Either(PhantomData)).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}OrList", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        let mut schema = T::json_schema(generator);
        let mut kinds = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.clone(),
            Some(kind) => vec![kind.clone()],
            None => vec![json!("string"), json!("object")],
        };
        kinds.push(json!("array"));
        schema.insert("type".to_owned(), Value::Array(kinds));
        schema.insert("items".to_owned(), items.to_value());
        schema.insert("minItems".to_owned(), json!(1));
        schema
    }
}

/// A list with something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Filled<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::deserialize(deserializer)?;
        if list.is_empty() {
            return Err(serde::de::Error::custom("expected a list of at least one"));
        }
        Ok(Self(list))
    }
}

impl<T: JsonSchema> JsonSchema for Filled<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({ "type": "array", "minItems": 1, "items": items })
    }
}

/// A map that keeps the order in which it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Ordered<T> {
    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Ordered<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let values = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": values })
    }
}

/// Turns the schema of an externally tagged enum into that of a map with exactly one of its keys, and
/// marks it for the reader, which merges choices by key.
pub fn single_key(schema: &mut Schema) {
    let Some(Value::Array(kinds)) = schema.remove("oneOf") else { return };
    let mut properties = serde_json::Map::new();
    for kind in kinds {
        let description = kind.get("description").cloned();
        let Some(Value::Object(entries)) = kind.get("properties") else { continue };
        for (name, value) in entries {
            let mut value = value.clone();
            if let (Some(description), Value::Object(map)) = (&description, &mut value) {
                map.insert("description".to_owned(), description.clone());
            }
            properties.insert(name.clone(), value);
        }
    }
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("minProperties".to_owned(), json!(1));
    schema.insert("maxProperties".to_owned(), json!(1));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema.insert("x-choice".to_owned(), json!(true));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::raw::scalar::Id;

    #[test]
    fn one_and_many_read_alike() {
        let read = |value| serde_json::from_value::<OneOrMany<Id>>(value).map(|list| list.0.len()).ok();
        let cases = [read(json!("a")), read(json!(["a", "b"])), read(json!(3)), read(json!([]))];
        assert_eq!(cases, [Some(1), Some(2), None, None]);
    }

    #[test]
    fn maps_keep_their_order() {
        let map: Ordered<u8> = serde_json::from_str(r#"{ "z": 1, "a": 2 }"#).expect("a map");
        assert_eq!(map.iter().collect::<Vec<_>>(), [("z", &1), ("a", &2)]);
        assert_eq!((map.get("a"), map.get("b")), (Some(&2), None));
    }

    #[test]
    fn a_choice_is_a_map_with_one_key() {
        #[derive(JsonSchema)]
        #[schemars(transform = single_key)]
        #[expect(dead_code, reason = "only its schema is asked for")]
        enum Kind {
            /// The first.
            One(String),
            Two(u8),
        }
        let schema = schemars::schema_for!(Kind);
        let valid = |value: Value| jsonschema::is_valid(schema.as_value(), &value);
        assert!(valid(json!({ "One": "x" })) && valid(json!({ "Two": 2 })));
        assert!(!valid(json!({})) && !valid(json!({ "One": "x", "Two": 2 })) && !valid(json!({ "Three": 1 })));
        assert_eq!(schema.as_value().pointer("/properties/One/description"), Some(&json!("The first.")));
    }
}
