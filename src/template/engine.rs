//! The minijinja environment: our filters, and what bounds them.
//!
//! Since 3.1 the engine charges fuel for the bytes an operation makes as well as for instructions, so
//! fuel bounds time and memory together. What a template may use is listed in [`super::takes`].

use std::io::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use super::made::Bounded;
use super::{TemplateError, TemplateErrorKind, takes};

/// What one evaluation may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Instructions. A three-field mapping takes about 25.
    pub fuel: u64,
    /// Bytes that one rendered text, or one string made by a filter, may have.
    pub output: usize,
    /// Bytes of text in one value that is not a text. Of values it may have [`VALUES`].
    ///
    /// [`VALUES`]: crate::base::json::VALUES
    pub value: usize,
    /// Words and signs of one expression, or of all blocks and slots of a text with blocks. They are read by calling
    /// themselves, so that a longer one needs a deeper stack.
    pub tokens: usize,
}

/// The limits every template runs under.
pub const LIMITS: Limits = Limits { fuel: 100_000, output: 1 << 20, value: 64 << 20, tokens: 1_000 };

/// The environment that expressions and slots share.
pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

/// A fresh environment with our limits and formatter.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_fuel(Some(LIMITS.fuel));
    env.set_recursion_limit(64);
    env.set_debug(false);
    // Chainable lookups let `a.b.c | default(x)` say what happens when any part is missing; the
    // formatter still refuses to print what stayed undefined.
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_formatter(|out, _state, value| match printed(value)? {
        Printed::Borrowed(text) => out.write_str(text).map_err(Error::from),
        Printed::Owned(text) => out.write_str(&text).map_err(Error::from),
    });
    for name in takes::TAKEN_AWAY {
        env.remove_filter(name);
    }
    env.add_filter("default", default);
    env.add_filter("tojson", tojson);
    env.add_filter("string", string);
    super::digest::add(&mut env);
    super::guard::add(&mut env);
    env
}

/// As the engine's own filter, but null is none as well: whoever writes `| default('-')` thinks of a field without a
/// value, and a service that knows none sends it as null or not at all, as it likes.
fn default(value: &Value, Rest(given): Rest<Value>) -> Result<Value, Error> {
    let mut given = given.into_iter();
    let (other, lax) = (given.next(), given.next());
    if given.next().is_some() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let is_none = matches!(value.kind(), ValueKind::Undefined | ValueKind::None);
    let counts_as_none = !value.is_true() && lax.is_some_and(|lax| lax.is_true());
    Ok(if is_none || counts_as_none { other.unwrap_or_else(|| Value::from("")) } else { value.clone() })
}

/// JSON without the escapes that the engine's own filter adds for HTML.
fn tojson(value: &Value) -> Result<String, Error> {
    let mut out = Bounded::default();
    match serde_json::to_writer(&mut out, value) {
        Err(error) if !error.is_io() => {
            Err(Error::new(ErrorKind::BadSerialization, "the value has no JSON form").with_source(error))
        }
        _ => out.text().ok_or_else(|| Error::from(ErrorKind::WriteFailure)),
    }
}

/// A value as the engine writes it out, as far as a text may be long.
fn string(value: &Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        return Ok(value.clone());
    }
    let mut out = Bounded::default();
    let written = write!(out, "{value}");
    let text = out.text().filter(|_| written.is_ok());
    text.map(Value::from).ok_or_else(|| Error::from(ErrorKind::WriteFailure))
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
/// None has no text form: an absent value must be met with `| default('…')`, so that it never
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

/// The engine's error about a source in our words; `written` is the stretch of the source that one of what was compiled
/// was made of.
pub(super) fn translate(error: &Error, written: impl Fn(Range<usize>) -> Range<usize>, source: &str) -> TemplateError {
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
        (TemplateErrorKind::OutOfFuel, Some(detail)) if detail.starts_with("the loop") => detail.to_owned(),
        (TemplateErrorKind::OutOfFuel, _) => format!("takes more than {} steps", LIMITS.fuel),
        (TemplateErrorKind::TooLarge, _) => format!("makes more than {} bytes", LIMITS.output),
        (_, Some(detail)) => detail.to_owned(),
        (_, None) => error.kind().to_string(),
    };
    let range = error.range().map(|range| within(source, &written(range)));
    TemplateError { kind, message, range }
}

/// A range as a stretch of the source: of what it cannot read the engine tells the first byte, which may be one
/// of several that make a character, or the one behind the last.
fn within(source: &str, range: &Range<usize>) -> Range<usize> {
    let start = source.floor_char_boundary(range.start);
    start..source.ceil_char_boundary(range.end).max(start)
}
