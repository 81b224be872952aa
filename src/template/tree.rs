//! JSON whose texts are templates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::made::Room;
use super::{Context, TemplateError, Text};

/// A JSON value whose strings are compiled texts. Keys are literal.
#[derive(Debug, Clone)]
pub enum Tree {
    /// A value without text in it.
    Literal(Value),
    /// A text; a lone slot keeps its value's type.
    Text(Text),
    /// A list.
    List(Vec<Tree>),
    /// A map, in order.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Compiles a tree. `fault` is told each text that does not compile, with its RFC 6901 pointer
    /// below this value; such a text stands in the result as null, so every fault is reported at once.
    pub fn compile(value: &Value, fault: &mut dyn FnMut(&str, TemplateError)) -> Self {
        Self::compile_at(value, &mut String::new(), fault)
    }

    fn compile_at(value: &Value, pointer: &mut String, fault: &mut dyn FnMut(&str, TemplateError)) -> Self {
        match value {
            Value::String(source) => match Text::compile(source) {
                Ok(text) => Self::Text(text),
                Err(error) => {
                    fault(pointer, error);
                    Self::Literal(Value::Null)
                }
            },
            Value::Array(items) => {
                let below = |(place, item): (usize, &Value)| {
                    at(pointer, &place.to_string(), |p| Self::compile_at(item, p, fault))
                };
                Self::List(items.iter().enumerate().map(below).collect())
            }
            Value::Object(map) => {
                let below = |(key, item): (&String, &Value)| {
                    let token = key.replace('~', "~0").replace('/', "~1");
                    (key.clone(), at(pointer, &token, |p| Self::compile_at(item, p, fault)))
                };
                Self::Map(map.iter().map(below).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Literal(value.clone()),
        }
    }

    /// The JSON value with every text filled in, which is held to the bounds of one value.
    ///
    /// # Errors
    /// As [`Text::value`] for the first text that fails, and when all texts together make more than [`LIMITS`] says.
    ///
    /// [`LIMITS`]: super::LIMITS
    pub fn render(&self, context: &Context) -> Result<Value, TemplateError> {
        self.render_in(context, &mut Room::new())
    }

    fn render_in(&self, context: &Context, room: &mut Room) -> Result<Value, TemplateError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Text(text) => {
                let value = text.value(context)?;
                room.hold(&value).map(|()| value)
            }
            Self::List(items) => {
                items.iter().map(|item| item.render_in(context, room)).collect::<Result<_, _>>().map(Value::Array)
            }
            Self::Map(entries) => entries
                .iter()
                .map(|(key, tree)| tree.render_in(context, room).map(|value| (key.clone(), value)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
        }
    }

    /// The names its texts read, dotted where they are.
    pub fn names(&self) -> BTreeSet<String> {
        match self {
            Self::Literal(_) => BTreeSet::new(),
            Self::Text(text) => text.names(),
            Self::List(items) => items.iter().flat_map(Self::names).collect(),
            Self::Map(entries) => entries.iter().flat_map(|(_, tree)| tree.names()).collect(),
        }
    }
}

fn at<T>(pointer: &mut String, token: &str, run: impl FnOnce(&mut String) -> T) -> T {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(token);
    let result = run(pointer);
    pointer.truncate(length);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_cannot_break_out_of_their_place() {
        let tree =
            Tree::compile(&json!({ "a": ["{{ v }}", 1, null], "b": "x{{ v }}" }), &mut |_, error| panic!("{error}"));
        let hostile = "\"}, \"evil\": true, {\"";
        let rendered = tree.render(&Context::new().with("v", hostile));
        assert_eq!(rendered, Ok(json!({ "a": [hostile, 1, null], "b": format!("x{hostile}") })));
    }

    #[test]
    fn all_texts_together_have_the_bounds_of_one_value() {
        let tree = Tree::compile(&json!(vec!["{{ s }}"; 100]), &mut |_, error| panic!("{error}"));
        let of = |bytes: usize| tree.render(&Context::new().with("s", "x".repeat(bytes))).map(drop);
        assert_eq!(of(600_000), Ok(()));
        assert_eq!(of(1_000_000).map_err(|error| error.kind), Err(crate::template::TemplateErrorKind::TooLarge));
    }

    #[test]
    fn every_fault_is_told_with_its_pointer() {
        let mut faults = Vec::new();
        Tree::compile(&json!({ "a/b": ["{{ x", "ok"], "c": "{{ | }}" }), &mut |at, _| faults.push(at.to_owned()));
        assert_eq!(faults, ["/a~1b/0", "/c"]);
    }
}
