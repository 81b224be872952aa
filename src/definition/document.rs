//! A file as a JSON value in which every value knows where it was written.
//!
//! [`load`](super::load) makes documents; `check`, `validate` and `compile` ask them for the place of
//! a fault. Places form a tree beside the value, so `extends` shares whole branches of a catalogue
//! entry instead of copying them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::base::span::{Position, Span};
use crate::definition::problem::Place;

/// The columns of the sign between a key and its value.
const COLON: usize = 2;

/// A resolved document: references expanded, `extends` merged.
#[derive(Clone)]
pub struct Document {
    /// The file that was asked for.
    pub file: Arc<PathBuf>,
    /// Its content. May hold secrets that references brought in.
    pub value: Value,
    /// Where each value was written.
    pub places: Arc<Spot>,
}

/// Where one value was written, and the values below it.
#[derive(Debug, Clone)]
pub struct Spot {
    /// The file it was written in: a value that `extends` brought in keeps its own.
    pub file: Arc<PathBuf>,
    /// The value's stretch.
    pub span: Span,
    /// The stretch of the key it stands under.
    pub key: Option<Span>,
    /// Where the first character of a text stands, when its characters follow each other in the file
    /// as they are: on one line, without escapes or references.
    pub verbatim: Option<Position>,
    /// The text as written, when references in it were expanded: the value is then secret.
    pub written: Option<Arc<str>>,
    /// Whether a fault of the value was told already, so that what follows from it is not told as well.
    pub faulty: bool,
    /// The values below.
    pub below: Below,
}

/// The places of the values inside a value.
#[derive(Debug, Clone, Default)]
pub enum Below {
    /// It has none.
    #[default]
    Nothing,
    /// It is a list.
    List(Vec<Arc<Spot>>),
    /// It is a map.
    Map(BTreeMap<Box<str>, Arc<Spot>>),
}

impl Spot {
    /// A value without others inside.
    pub fn new(file: Arc<PathBuf>, span: Span) -> Self {
        Self { file, span, key: None, verbatim: None, written: None, faulty: false, below: Below::Nothing }
    }

    /// The place below under a key or list index.
    pub fn child(&self, token: &str) -> Option<&Arc<Self>> {
        match &self.below {
            Below::Nothing => None,
            Below::List(items) => items.get(token.parse::<usize>().ok()?),
            Below::Map(entries) => entries.get(token),
        }
    }

    /// The place at an RFC 6901 pointer, or its nearest recorded ancestor; whether it is the very one.
    fn find(self: &Arc<Self>, pointer: &str) -> (&Arc<Self>, bool) {
        let mut at = self;
        for token in pointer.split('/').skip(1) {
            match at.child(&unescape(token)) {
                Some(child) => at = child,
                None => return (at, false),
            }
        }
        (at, true)
    }
}

impl Document {
    /// A document whose values were all written at one place, for values that came from no file.
    pub fn unplaced(file: PathBuf, value: Value) -> Self {
        let file = Arc::new(file);
        Self { places: Arc::new(Spot::new(Arc::clone(&file), Span::default())), file, value }
    }

    /// The place of the value at `pointer`, or of its nearest ancestor, for a problem about it. A map or
    /// list that begins on a line below its key is pointed at by its key: its own first line is that of
    /// the first value in it.
    pub fn place(&self, pointer: &str) -> Place {
        let (spot, _) = self.places.find(pointer);
        let key_above =
            spot.key.filter(|key| !matches!(spot.below, Below::Nothing) && key.start.line < spot.span.start.line);
        Place { file: Arc::clone(&spot.file), span: key_above.unwrap_or(spot.span), pointer: pointer.to_owned() }
    }

    /// All that is written at `pointer`, for what is not to be shown: the value itself, and what stands between it and its key,
    /// such as an anchor.
    pub fn stretch(&self, pointer: &str) -> Place {
        let (spot, exact) = self.places.find(pointer);
        let mut span = spot.span;
        if let Some(key) = spot.key.filter(|key| exact && key.end <= span.start) {
            let value = Position { column: key.end.column + COLON, ..key.end };
            // Of nothing that stands there nobody can say where it ends.
            if self.value.pointer(pointer).is_some_and(Value::is_null) {
                span = Span { start: value, end: Position { column: usize::MAX, ..value } };
            } else if value < span.start {
                span.start = value;
            }
        }
        Place { file: Arc::clone(&spot.file), span, pointer: pointer.to_owned() }
    }

    /// The place of the key at `pointer`, for a problem about a name.
    pub fn key_place(&self, pointer: &str) -> Place {
        let (spot, exact) = self.places.find(pointer);
        let span = spot.key.filter(|_| exact).unwrap_or(spot.span);
        Place { file: Arc::clone(&spot.file), span, pointer: pointer.to_owned() }
    }

    /// The place of some bytes of the text at `pointer`, for a problem inside an expression. It is the
    /// whole text where its characters do not stand in the file one by one.
    pub fn place_within(&self, pointer: &str, range: Range<usize>) -> Place {
        let mut place = self.place(pointer);
        let (spot, exact) = self.places.find(pointer);
        let text = self.value.pointer(pointer).and_then(Value::as_str);
        if let (Some(start), Some(text), true) = (spot.verbatim, text, exact) {
            let column =
                |at: usize| start.column + text.get(..at.min(text.len())).map_or(0, |head| head.chars().count());
            let position = |at: usize| Position { line: start.line, column: column(at) };
            place.span = Span { start: position(range.start), end: position(range.end.max(range.start)) };
        }
        place
    }

    /// What was written at `pointer` before references were expanded; `None` when there were none.
    /// A value for which this tells something is secret.
    pub fn written(&self, pointer: &str) -> Option<&str> {
        let (spot, exact) = self.places.find(pointer);
        spot.written.as_deref().filter(|_| exact)
    }
}

/// Prints where, never what: values may be secret.
impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A pointer's token as the key it stands for.
fn unescape(token: &str) -> std::borrow::Cow<'_, str> {
    if token.contains('~') { token.replace("~1", "/").replace("~0", "~").into() } else { token.into() }
}

/// Whether nothing stands in a value.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Appends a key to an RFC 6901 pointer.
pub fn push_token(pointer: &mut String, key: &str) {
    pointer.push('/');
    for character in key.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(line: usize, column: usize) -> Span {
        let start = Position { line, column };
        Span { start, end: Position { line, column: column + 1 } }
    }

    fn document() -> Document {
        let file = Arc::new(PathBuf::from("a.yaml"));
        let spot = |span| Spot::new(Arc::clone(&file), span);
        let mut text = spot(at(2, 9));
        text.key = Some(at(2, 3));
        text.verbatim = Some(Position { line: 2, column: 10 });
        let api = Spot { below: Below::Map(BTreeMap::from([("a/b".into(), Arc::new(text))])), ..spot(at(2, 3)) };
        let root = Spot { below: Below::Map(BTreeMap::from([("api".into(), Arc::new(api))])), ..spot(at(1, 1)) };
        Document { file, value: json!({ "api": { "a/b": "é{{ x }}" } }), places: Arc::new(root) }
    }

    #[test]
    fn a_value_without_a_place_takes_its_nearest_ancestors() {
        let document = document();
        assert_eq!(document.place("/api/a~1b").span, at(2, 9));
        assert_eq!(document.place("/api/limits/0/rate").span, at(2, 3));
        assert_eq!(document.place("/auth").span, at(1, 1));
        assert_eq!(document.key_place("/api/a~1b").span, at(2, 3));
        assert_eq!(document.key_place("/api/gone").span, at(2, 3));
    }

    #[test]
    fn what_is_not_shown_begins_behind_its_key() {
        let document = document();
        let span = document.stretch("/api/a~1b").span;
        let [start, end] = [Position { line: 2, column: 6 }, Position { line: 2, column: 10 }];
        assert_eq!(span, Span { start, end }, "an anchor may stand before the value");
        assert_eq!(document.stretch("/api").span, at(2, 3));
    }

    #[test]
    fn places_inside_a_text_count_characters() {
        let place = document().place_within("/api/a~1b", 5..6);
        assert_eq!(place.span, at(2, 14));
    }

    #[test]
    fn pointers_escape_what_they_must() {
        let mut pointer = String::new();
        push_token(&mut pointer, "a/b~c");
        assert_eq!((pointer.as_str(), &*unescape("a~1b~0c")), ("/a~1b~0c", "a/b~c"));
    }
}
