//! A file as a JSON value in which every value knows where it was written.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::base::span::Span;
use crate::definition::problem::Place;

/// A resolved document: references expanded, `extends` merged.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file that was asked for.
    pub file: Arc<PathBuf>,
    /// Its content.
    pub value: Value,
    /// Where each value was written.
    pub places: Places,
}

/// Where the values of a document were written, by RFC 6901 pointer. A value that `extends` brought
/// in points into the file it came from.
#[derive(Debug, Clone, Default)]
pub struct Places {
    values: HashMap<String, Origin>,
    keys: HashMap<String, Origin>,
}

/// A file and a stretch of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: Arc<PathBuf>,
    /// The stretch.
    pub span: Span,
}

impl Places {
    /// Records where the value at `pointer` stands.
    pub fn insert_value(&mut self, pointer: String, origin: Origin) {
        self.values.insert(pointer, origin);
    }

    /// Records where the key of the value at `pointer` stands.
    pub fn insert_key(&mut self, pointer: String, origin: Origin) {
        self.keys.insert(pointer, origin);
    }

    /// Where the value at `pointer`, or its nearest recorded ancestor, was written.
    pub fn value(&self, pointer: &str) -> Option<&Origin> {
        ancestors(pointer).find_map(|at| self.values.get(at))
    }

    /// Where the key of the value at `pointer` was written.
    pub fn key(&self, pointer: &str) -> Option<&Origin> {
        self.keys.get(pointer)
    }

    /// Every recorded value with its pointer, in no order.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.values.iter().map(|(pointer, origin)| (pointer.as_str(), origin))
    }

    /// Every recorded key with its pointer, in no order.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.keys.iter().map(|(pointer, origin)| (pointer.as_str(), origin))
    }
}

impl Document {
    /// The place of the value at `pointer`, for a problem about it.
    pub fn place(&self, pointer: &str) -> Place {
        self.located(pointer, self.places.value(pointer))
    }

    /// The place of the key at `pointer`, for a problem about a name.
    pub fn key_place(&self, pointer: &str) -> Place {
        self.located(pointer, self.places.key(pointer).or_else(|| self.places.value(pointer)))
    }

    fn located(&self, pointer: &str, origin: Option<&Origin>) -> Place {
        let (file, span) = match origin {
            Some(origin) => (Arc::clone(&origin.file), origin.span),
            None => (Arc::clone(&self.file), Span::default()),
        };
        Place { file, span, pointer: pointer.to_owned() }
    }
}

/// A pointer and its ancestors, the longest first, the root last.
fn ancestors(pointer: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(pointer), |at| at.rsplit_once('/').map(|(parent, _)| parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_without_a_place_takes_its_nearest_ancestors() {
        let origin = Origin { file: Arc::default(), span: Span::default() };
        let mut places = Places::default();
        places.insert_value("/api".to_owned(), origin.clone());
        assert_eq!(places.value("/api/limits/0/rate"), Some(&origin));
        assert_eq!(places.value("/auth"), None);
    }
}
