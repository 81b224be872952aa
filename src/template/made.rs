//! What an evaluation makes, held to its bounds: the engine counts and joins lists lazily, so that a value of a few bytes can
//! have any length once it is written out.

use std::io::{self, Write};

use minijinja::value::{DynObject, Value, ValueKind};

use super::engine::LIMITS;
use super::{TemplateError, TemplateErrorKind};
use crate::base::json::VALUES;

/// A value as JSON; what is missing is null.
///
/// # Errors
/// When it has no JSON form, or is larger than [`LIMITS`] says.
pub(super) fn to_json(value: &Value) -> Result<serde_json::Value, TemplateError> {
    Room::new().json(value)
}

/// What a value may still take.
pub(super) struct Room {
    values: usize,
    bytes: usize,
}

impl Room {
    /// All that one may.
    pub fn new() -> Self {
        Self { values: VALUES, bytes: LIMITS.value }
    }

    /// Takes what a part of the value needs.
    ///
    /// # Errors
    /// When there is not so much left.
    pub fn hold(&mut self, value: &serde_json::Value) -> Result<(), TemplateError> {
        match value {
            serde_json::Value::String(text) => self.take(1, text.len()),
            serde_json::Value::Array(items) => {
                self.take(1, 0)?;
                items.iter().try_for_each(|item| self.hold(item))
            }
            serde_json::Value::Object(map) => {
                self.take(1, 0)?;
                map.iter().try_for_each(|(key, item)| self.take(1, key.len()).and_then(|()| self.hold(item)))
            }
            _ => self.take(1, 0),
        }
    }

    fn json(&mut self, value: &Value) -> Result<serde_json::Value, TemplateError> {
        self.take(1, 0)?;
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => Ok(serde_json::Value::Null),
            ValueKind::Bool => Ok(value.is_true().into()),
            ValueKind::String => {
                let text = value.as_str().unwrap_or_default();
                self.take(0, text.len())?;
                Ok(text.into())
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter().map_err(|error| no_form(&error))?;
                items.map(|item| self.json(&item)).collect::<Result<_, _>>().map(serde_json::Value::Array)
            }
            ValueKind::Map => {
                let pairs = value.as_object().and_then(DynObject::try_iter_pairs).into_iter().flatten();
                let entry = |(key, value): (Value, Value)| Ok((self.key(&key)?, self.json(&value)?));
                pairs.map(entry).collect::<Result<_, _>>().map(serde_json::Value::Object)
            }
            _ => serde_json::to_value(value).map_err(|error| no_form(&error)),
        }
    }

    fn key(&mut self, key: &Value) -> Result<String, TemplateError> {
        let text = match key.kind() {
            ValueKind::String | ValueKind::Number | ValueKind::Bool => key.to_string(),
            kind => return Err(no_form(&format!("a key is a {kind}"))),
        };
        self.take(1, text.len())?;
        Ok(text)
    }

    fn take(&mut self, values: usize, bytes: usize) -> Result<(), TemplateError> {
        match (self.values.checked_sub(values), self.bytes.checked_sub(bytes)) {
            (Some(values), Some(bytes)) => {
                *self = Self { values, bytes };
                Ok(())
            }
            (None, _) => Err(too_large(&format!("{VALUES} values"))),
            (_, None) => Err(too_large(&format!("{} bytes", LIMITS.value))),
        }
    }
}

fn too_large(bound: &str) -> TemplateError {
    TemplateError { kind: TemplateErrorKind::TooLarge, message: format!("makes more than {bound}"), range: None }
}

fn no_form(why: &impl std::fmt::Display) -> TemplateError {
    let message = format!("the value has no JSON form: {why}");
    TemplateError { kind: TemplateErrorKind::WrongType, message, range: None }
}

/// A writer that takes no more than one rendered text may have.
#[derive(Default)]
pub(super) struct Bounded {
    written: Vec<u8>,
    full: bool,
}

impl Bounded {
    /// What was written; none when it was too much.
    pub(super) fn text(self) -> Option<String> {
        String::from_utf8(self.written).ok().filter(|_| !self.full)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.len() + bytes.len() > LIMITS.output {
            self.full = true;
            return Err(io::Error::other("output limit"));
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Context, Expr, Text};
    use serde_json::json;

    fn value(source: &str) -> Result<serde_json::Value, TemplateErrorKind> {
        let context = Context::new().with_json("body", &json!({ "b": [1, null, true, 1.5], "a": { "x": "y" } }));
        let context = context.with("long", "x".repeat(1 << 20));
        Expr::compile(source).and_then(|expr| expr.json(&context)).map_err(|error| error.kind)
    }

    #[test]
    fn a_value_is_its_json() {
        assert_eq!(value("body"), Ok(json!({ "b": [1, null, true, 1.5], "a": { "x": "y" } })));
        assert_eq!(value("(body.b + body.b) | length"), Ok(json!(8)));
        assert_eq!(value("{1: body.none, 'k': range(2)}"), Ok(json!({ "1": null, "k": [0, 1] })));
        assert_eq!(value("{none: 1}"), Err(TemplateErrorKind::WrongType));
    }

    #[test]
    fn what_is_repeated_lazily_is_bounded_when_it_is_made() {
        let lists = || Context::new().with_json("list", &json!([0])).with("long", "x".repeat(1 << 20));
        let many = ["range(99999)"; 6];
        for source in [many.join(" + "), format!("{{'a': {}}}", many.join(" + ")), format!("[{}]", many.join(", "))] {
            let source = source.as_str();
            let found = Expr::compile(source).and_then(|expr| expr.json(&lists())).map_err(|error| error.kind);
            assert_eq!(found, Err(TemplateErrorKind::TooLarge), "{source}");
            let text = Text::compile(&format!("a {{{{ {source} }}}}{{{{ ({source}) | string }}}}")).expect("compiles");
            let printed = text.render(&lists());
            assert_eq!(printed.map_err(|error| error.kind), Err(TemplateErrorKind::TooLarge), "{source}");
        }
    }
}
