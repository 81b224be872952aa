//! The minijinja environment: which filters there are, and what bounds them.
//!
//! Fuel bounds instructions, not memory: `indent`, `format`, `center`, `replace` and string
//! repetition can each make gigabytes from one instruction, so filters that multiply their input are
//! left out or replaced by capped ones.

use std::sync::LazyLock;

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, filters, tests};

use super::{TemplateError, TemplateErrorKind};

/// What one evaluation may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Instructions. A three-field mapping takes about 25.
    pub fuel: u64,
    /// Bytes that one rendered text, or one string made by a filter, may have.
    pub output: usize,
}

/// The limits every template runs under.
pub const LIMITS: Limits = Limits { fuel: 20_000, output: 1 << 20 };

/// The filters there are, for completion and did-you-mean.
pub const FILTERS: [&str; 26] = [
    "abs", "attr", "bool", "default", "first", "float", "int", "items", "join", "last", "length", "list", "lower",
    "map", "max", "min", "reject", "replace", "round", "select", "sort", "split", "string", "tojson", "trim", "upper",
];

/// The environment that expressions and slots share.
pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// A fresh environment with our filters, limits and formatter.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_fuel(Some(LIMITS.fuel));
    env.set_recursion_limit(64);
    // Chainable lookups let `a.b.c | default(x)` say what happens when any part is missing; the
    // formatter still refuses to print what stayed undefined.
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_formatter(|out, _state, value| match printed(value)? {
        Printed::Borrowed(text) => out.write_str(text).map_err(Error::from),
        Printed::Owned(text) => out.write_str(&text).map_err(Error::from),
    });
    add_filters(&mut env);
    add_tests(&mut env);
    env
}

fn add_filters(env: &mut Environment<'static>) {
    env.add_filter("abs", filters::abs);
    env.add_filter("attr", filters::attr);
    env.add_filter("bool", filters::bool);
    env.add_filter("default", filters::default);
    env.add_filter("first", filters::first);
    env.add_filter("float", filters::float);
    env.add_filter("int", filters::int);
    env.add_filter("items", filters::items);
    env.add_filter("join", capped_join);
    env.add_filter("last", filters::last);
    env.add_filter("length", filters::length);
    env.add_filter("list", filters::list);
    env.add_filter("lower", filters::lower);
    env.add_filter("map", filters::map);
    env.add_filter("max", filters::max);
    env.add_filter("min", filters::min);
    env.add_filter("reject", filters::reject);
    env.add_filter("replace", capped_replace);
    env.add_filter("round", filters::round);
    env.add_filter("select", filters::select);
    env.add_filter("sort", filters::sort);
    env.add_filter("split", filters::split);
    env.add_filter("string", filters::string);
    env.add_filter("tojson", tojson);
    env.add_filter("trim", filters::trim);
    env.add_filter("upper", filters::upper);
}

fn add_tests(env: &mut Environment<'static>) {
    env.add_test("defined", tests::is_defined);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("none", tests::is_none);
    env.add_test("string", tests::is_string);
    env.add_test("number", tests::is_number);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("true", tests::is_true);
    env.add_test("false", tests::is_false);
    env.add_test("in", tests::is_in);
    env.add_test("eq", tests::is_eq);
    env.add_test("startingwith", tests::is_startingwith);
    env.add_test("endingwith", tests::is_endingwith);
}

/// `replace(from, to)` whose result is bounded before it is made.
fn capped_replace(value: &str, from: &str, to: &str) -> Result<String, Error> {
    let grown = if from.is_empty() { value.len() + 1 } else { value.matches(from).count() } * to.len() + value.len();
    if grown > LIMITS.output { Err(too_large()) } else { Ok(value.replace(from, to)) }
}

/// `join(separator)` whose result is bounded while it is made.
fn capped_join(value: &Value, separator: Option<&str>) -> Result<String, Error> {
    let mut joined = String::new();
    for (place, item) in value.try_iter()?.enumerate() {
        if place > 0 {
            joined.push_str(separator.unwrap_or_default());
        }
        match item.as_str() {
            Some(text) => joined.push_str(text),
            None => joined.push_str(&item.to_string()),
        }
        if joined.len() > LIMITS.output {
            return Err(too_large());
        }
    }
    Ok(joined)
}

fn tojson(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "the value has no JSON form").with_source(error))
}

fn too_large() -> Error {
    Error::new(ErrorKind::WriteFailure, "the result is larger than templates may make")
}

/// The text form of a value in a slot.
pub(super) enum Printed<'a> {
    /// The value is a string.
    Borrowed(&'a str),
    /// The value was put into words.
    Owned(String),
}

impl Printed<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

/// What a slot prints: strings as they are, numbers and booleans as in JSON, maps and lists as JSON.
/// None has no text form: an absent value must be met with `| default('…', true)`, so that it never
/// ends up as a word in a path or a message.
pub(super) fn printed(value: &Value) -> Result<Printed<'_>, Error> {
    match value.kind() {
        ValueKind::String => {
            value.as_str().map(Printed::Borrowed).ok_or_else(|| Error::from(ErrorKind::BadSerialization))
        }
        ValueKind::Undefined => Err(Error::new(ErrorKind::UndefinedError, "the value is missing")),
        ValueKind::None => Err(Error::new(ErrorKind::UndefinedError, "the value is null")),
        _ => tojson(value).map(Printed::Owned),
    }
}

/// The engine's error in our words. `offset` is where the engine's source starts in the template.
pub(super) fn translate(error: &Error, offset: usize) -> TemplateError {
    let kind = match error.kind() {
        ErrorKind::SyntaxError => TemplateErrorKind::Syntax,
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction | ErrorKind::UnknownMethod => {
            TemplateErrorKind::UnknownFilter
        }
        ErrorKind::UndefinedError => TemplateErrorKind::Missing,
        ErrorKind::OutOfFuel => TemplateErrorKind::OutOfFuel,
        ErrorKind::WriteFailure => TemplateErrorKind::TooLarge,
        ErrorKind::InvalidOperation | ErrorKind::CannotUnpack | ErrorKind::BadSerialization => {
            TemplateErrorKind::WrongType
        }
        _ => TemplateErrorKind::Failed,
    };
    let message = match (kind, error.detail()) {
        (TemplateErrorKind::OutOfFuel, _) => format!("takes more than {} steps", LIMITS.fuel),
        (TemplateErrorKind::TooLarge, _) => format!("makes more than {} bytes", LIMITS.output),
        (_, Some(detail)) => detail.to_owned(),
        (_, None) => error.kind().to_string(),
    };
    let range = error.range().map(|range| range.start + offset..range.end + offset);
    TemplateError { kind, message, range }
}
