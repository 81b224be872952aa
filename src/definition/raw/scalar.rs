//! The small values that blocks are made of: templates, secrets, quantities, names.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::base::secret::Secret;
use crate::base::units::{Rate, parse_duration, parse_size};

macro_rules! inline_schema {
    ($name:ident, $schema:tt) => {
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

macro_rules! template_text {
    ($(#[$doc:meta])+ $name:ident, $kind:literal) => {
        $(#[$doc])+
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        inline_schema!($name, { "type": "string", "x-template": $kind });
    };
}

template_text! {
    /// A bare expression of the template language, such as `body.action`. What is undefined is none
    /// and falsy.
    Expression, "expression"
}
template_text! {
    /// Text with `{{ … }}` slots. What is undefined in a slot is an error. A text that is one lone
    /// slot keeps its value's type.
    Template, "text"
}
template_text! {
    /// What is signed, with `{{ … }}` slots over what was sent. Streamed into the digest, never
    /// rendered.
    Signed, "signed"
}

/// A JSON value whose texts are templates. The tree itself is never templated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Tree(pub Value);

inline_schema!(Tree, { "x-template": "tree" });

/// A secret. Must come from a reference: `${env:NAME}`, `${file:PATH}` or `${vault:PATH#FIELD}`.
#[derive(Debug)]
pub struct SecretText(pub Secret);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Err(D::Error::custom("a secret is empty")) } else { Ok(Self(Secret::new(text))) }
    }
}

inline_schema!(SecretText, {
    "type": "string", "minLength": 1, "x-secret": "yes",
    "x-expected": "a secret by reference: ${env:NAME}, ${file:PATH} or ${vault:PATH#FIELD}",
});

macro_rules! quantity {
    ($(#[$doc:meta])+ $name:ident($inner:ty), $parse:expr, $pattern:literal, $expected:literal) => {
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map(Self).map_err(D::Error::custom)
            }
        }

        inline_schema!($name, { "type": "string", "pattern": $pattern, "x-expected": $expected });
    };
}

quantity! {
    /// A duration: whole numbers with `ms`, `s`, `m`, `h` or `d`, largest first.
    DurationText(Duration), parse_duration,
    r"^(?=.)([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$",
    "a duration with its unit, such as 500ms, 30s, 5m, 1h30m or 7d"
}
quantity! {
    /// A size: a whole number with `B`, `KiB`, `MiB` or `GiB`.
    SizeText(u64), parse_size,
    r"^[0-9]{1,9}(B|KiB|MiB|GiB)$",
    "a size with its unit, such as 512B, 64KiB, 1MiB or 2GiB"
}
quantity! {
    /// A rate: a number per `s`, `m`, `h` or `d`.
    RateText(Rate), |text: &str| text.parse::<Rate>(),
    r"^[1-9][0-9]{0,8}/(s|m|h|d)$",
    "a rate, such as 25/s, 600/m, 5000/h or 100000/d"
}

macro_rules! patterned {
    ($(#[$doc:meta])+ $name:ident, $pattern:literal, $expected:literal) => {
        $(#[$doc])+
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                static PATTERN: LazyLock<Result<Regex, regex::Error>> = LazyLock::new(|| Regex::new($pattern));
                let text = String::deserialize(deserializer)?;
                match &*PATTERN {
                    Ok(pattern) if !pattern.is_match(&text) => Err(D::Error::custom(concat!("expected ", $expected))),
                    Ok(_) | Err(_) => Ok(Self(text)),
                }
            }
        }

        inline_schema!($name, { "type": "string", "pattern": $pattern, "x-expected": $expected });
    };
}

patterned! {
    /// An id: lower-case letters, digits, `_` and `-`, beginning with a letter or digit, at most 64.
    Id, "^[a-z0-9][a-z0-9_-]{0,63}$",
    "an id: lower-case letters, digits, `_` and `-`, at most 64 characters"
}
patterned! {
    /// An address that a browser opens.
    WebAddress, "^https?://", "an address that begins with https://"
}
patterned! {
    /// A name that templates use: letters, digits and `_`, not beginning with a digit.
    Name, "^[A-Za-z_][A-Za-z0-9_]{0,63}$",
    "a name: letters, digits and `_`, not beginning with a digit"
}
patterned! {
    /// The name of an HTTP header (RFC 9110 §5.1).
    HeaderText, r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$",
    "the name of a header, such as X-Signature"
}
patterned! {
    /// Which credential a request carries: `token`, `token NAME`, `client` or `none`.
    CredentialWord, r"^(token( [A-Za-z0-9_]+)?|client|none)$",
    "`token`, `token NAME`, `client` or `none`"
}
patterned! {
    /// An endpoint of an integration: `INTEGRATION.ENDPOINT`.
    EndpointName, r"^[a-z0-9][a-z0-9_-]{0,63}\.[a-z0-9][a-z0-9_-]{0,63}$",
    "an integration and one of its endpoints, such as slack.post_message"
}
patterned! {
    /// An address range in CIDR notation, such as `10.0.0.0/8` or `fd00::/8`.
    Cidr, r"^[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}$",
    "an address range, such as 10.0.0.0/8"
}

patterned! {
    /// The mode of a file in octal digits, such as `0660`.
    SocketMode, "^0?[0-7]{3}$", "a mode in octal digits, such as \"0660\""
}

patterned! {
    /// What stands between the items of a list: one character.
    Separator, "^.$", "one character"
}
patterned! {
    /// A moment in UTC.
    MomentText, "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$", "a moment such as 2026-01-31T10:00:00Z"
}

/// The grammar's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrammarVersion;

impl<'de> Deserialize<'de> for GrammarVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            _ => Err(D::Error::custom("this version reads `trunkline: 1`")),
        }
    }
}

inline_schema!(GrammarVersion, { "const": 1 });

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are RFC 9110's")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// The method as the HTTP library knows it.
    pub fn to_http(self) -> http::Method {
        match self {
            Self::Get => http::Method::GET,
            Self::Head => http::Method::HEAD,
            Self::Post => http::Method::POST,
            Self::Put => http::Method::PUT,
            Self::Patch => http::Method::PATCH,
            Self::Delete => http::Method::DELETE,
            Self::Options => http::Method::OPTIONS,
        }
    }
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Seconds since 1970.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMillis,
    /// Microseconds since 1970.
    EpochMicros,
    /// A number of seconds from now.
    Seconds,
    /// A number of milliseconds from now.
    Millis,
    /// A number of minutes from now.
    Minutes,
    /// RFC 3339, such as `2026-01-31T10:00:00Z`.
    Rfc3339,
    /// An HTTP date (RFC 9110 §5.6.7).
    HttpDate,
    /// A JWT whose `exp` claim is the moment (RFC 7519).
    JwtExp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn agree<T: JsonSchema + for<'de> Deserialize<'de>>(text: &str) -> bool {
        let schema = schemars::schema_for!(T);
        let accepts = jsonschema::is_valid(schema.as_value(), &json!(text));
        assert_eq!(accepts, serde_json::from_value::<T>(json!(text)).is_ok(), "{text:?}");
        accepts
    }

    proptest! {
        #[test]
        fn the_schema_takes_just_the_durations_that_parse(text in "([0-9]{0,3}(d|h|m|s|ms|x|)){0,3}") {
            agree::<DurationText>(&text);
        }
    }

    #[test]
    fn names_and_quantities_are_judged_alike_by_schema_and_reader() {
        assert!(agree::<Id>("a-b_9") && !agree::<Id>("A") && !agree::<Id>("") && !agree::<Id>(&"a".repeat(65)));
        assert!(agree::<HeaderText>("X-Hub-Signature-256") && !agree::<HeaderText>("X Hub"));
        assert!(agree::<RateText>("25/s") && !agree::<RateText>("0/s") && !agree::<RateText>("25/w"));
        assert!(agree::<SizeText>("1MiB") && !agree::<SizeText>("1MB"));
        assert!(agree::<CredentialWord>("token user") && !agree::<CredentialWord>("cookie"));
        assert!(agree::<EndpointName>("slack.post_message") && !agree::<EndpointName>("slack"));
        assert!(agree::<SecretText>("x") && !agree::<SecretText>(""));
    }

    #[test]
    fn only_this_grammar_is_read() {
        assert!(serde_json::from_value::<GrammarVersion>(json!(1)).is_ok());
        assert!(serde_json::from_value::<GrammarVersion>(json!(2)).is_err());
    }
}
