//! Templates compiled once for all definitions.
//!
//! Ten thousand definitions that extend a few catalogue entries have the same few hundred templates.
//! One pool serves one load: `check` finds the faults in it, `compile` takes the results from it, and
//! what is equal is shared.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::document::push_token;
use crate::template::{Expr, TemplateError, Text, Tree};

/// Templates by their source.
#[derive(Debug, Default)]
pub struct Templates {
    texts: Mutex<HashMap<Box<str>, Result<Text, TemplateError>>>,
    expressions: Mutex<HashMap<Box<str>, Result<Expr, TemplateError>>>,
}

impl Templates {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// A compiled text.
    ///
    /// # Errors
    /// As [`Text::compile`].
    pub fn text(&self, source: &str) -> Result<Text, TemplateError> {
        pooled(&self.texts, source, Text::compile)
    }

    /// A compiled expression.
    ///
    /// # Errors
    /// As [`Expr::compile`].
    pub fn expression(&self, source: &str) -> Result<Expr, TemplateError> {
        pooled(&self.expressions, source, Expr::compile)
    }

    /// A compiled tree. `fault` is told each text that does not compile, with its pointer below the
    /// value; null stands in its place.
    pub fn tree(&self, value: &Value, fault: &mut dyn FnMut(&str, TemplateError)) -> Tree {
        self.tree_at(value, &mut String::new(), fault)
    }

    fn tree_at(&self, value: &Value, pointer: &mut String, fault: &mut dyn FnMut(&str, TemplateError)) -> Tree {
        let mut below = |token: &str, item: &Value| {
            let length = pointer.len();
            push_token(pointer, token);
            let tree = self.tree_at(item, pointer, fault);
            pointer.truncate(length);
            tree
        };
        match value {
            Value::Array(items) => {
                Tree::List(items.iter().enumerate().map(|(place, item)| below(&place.to_string(), item)).collect())
            }
            Value::Object(map) => Tree::Map(map.iter().map(|(key, item)| (key.clone(), below(key, item))).collect()),
            Value::String(source) => match self.text(source) {
                Ok(text) => Tree::Text(text),
                Err(error) => {
                    fault(pointer, error);
                    Tree::Literal(Value::Null)
                }
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => Tree::Literal(value.clone()),
        }
    }
}

fn pooled<T: Clone>(
    pool: &Mutex<HashMap<Box<str>, Result<T, TemplateError>>>,
    source: &str,
    compile: impl FnOnce(&str) -> Result<T, TemplateError>,
) -> Result<T, TemplateError> {
    // What a panicking holder left behind is whole: entries are made before the lock is taken.
    if let Some(found) = lock(pool).get(source) {
        return found.clone();
    }
    let made = compile(source);
    lock(pool).entry(source.into()).or_insert(made).clone()
}

fn lock<K: Eq + Hash, V>(pool: &Mutex<HashMap<K, V>>) -> std::sync::MutexGuard<'_, HashMap<K, V>> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_templates_are_one() {
        let pool = Templates::new();
        let text = |source| pool.text(source).map(|text| text.source().as_ptr());
        assert_eq!(text("a {{ b }}"), text("a {{ b }}"));
        assert!(pool.expression("a ==").is_err() && pool.expression("a ==").is_err());
    }

    #[test]
    fn trees_tell_every_fault_with_its_pointer() {
        let mut faults = Vec::new();
        let tree = Templates::new().tree(&json!({ "a/b": ["{{ x", "ok", 1] }), &mut |at, _| faults.push(at.to_owned()));
        assert_eq!(faults, ["/a~1b/0"]);
        assert!(matches!(tree, Tree::Map(entries) if entries.len() == 1));
    }
}
