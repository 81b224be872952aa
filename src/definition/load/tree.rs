//! Text to tree: YAML events become a JSON value whose every part knows its place.
//!
//! The part of YAML that is taken: maps with text keys, lists, scalars by the core schema of 1.2,
//! anchors and aliases within a budget. Tags, merge keys and further documents are refused in words.
//! All duplicate keys of a file are found. References and `extends` come later.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Value};

use super::scalar::{self, Meaning};
use super::syntax;
use crate::base::span::{Position, Span};
use crate::definition::document::{Below, Document, Spot};
use crate::definition::problem::{Code, MOST_OF_FILE, Place, Problem};

/// How deep maps and lists may stand inside each other.
pub const MAX_DEPTH: usize = 64;
/// How many values a file may hold, those that aliases repeat included.
pub const MAX_VALUES: usize = 50_000;
/// How many bytes of text aliases may repeat.
pub const MAX_REPEATED_TEXT: usize = 1 << 20;

/// What a text turned out to be.
#[derive(Debug)]
pub struct Parsed {
    /// The document, as far as it could be read; `None` when the text is not YAML to its end.
    pub document: Option<Document>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// Reads a text.
pub fn parse(file: &Arc<PathBuf>, text: &str) -> Parsed {
    let mut builder = Builder {
        file: Arc::clone(file),
        problems: Vec::new(),
        errors: 0,
        stack: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        anchored: 0,
        repeated_text: 0,
        root: None,
    };
    let finished = builder.run(text);
    let Builder { root, mut problems, .. } = builder;
    let document = match root {
        Some((Value::Null, _)) | None if finished => {
            let empty = "the file is empty: it has no YAML document";
            let place = Place::file(Arc::clone(file));
            problems.push(Problem::error(Code::Empty, place, empty));
            None
        }
        Some((value, spot)) if finished => Some(Document { file: Arc::clone(file), value, places: Arc::new(spot) }),
        _ => None,
    };
    Parsed { document, problems }
}

struct Builder {
    file: Arc<PathBuf>,
    problems: Vec<Problem>,
    /// How many of them are errors.
    errors: usize,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    values: usize,
    anchored: usize,
    repeated_text: usize,
    root: Option<(Value, Spot)>,
}

/// A finished value and what an alias to it costs.
#[derive(Clone)]
struct Node {
    value: Value,
    spot: Spot,
    values: usize,
    text: usize,
}

/// A map or list that is not finished.
struct Frame {
    start: Position,
    last: Position,
    anchor: usize,
    values: usize,
    text: usize,
    faulty: bool,
    content: Content,
}

enum Content {
    List(Vec<Value>, Vec<Arc<Spot>>),
    Map(Map<String, Value>, BTreeMap<Box<str>, Arc<Spot>>, Key),
}

/// What the next value of a map stands under.
enum Key {
    /// The next event is a key.
    Awaited,
    /// A name.
    Name(String, Span),
    /// Something that cannot be used; the value is dropped.
    Dropped,
}

/// Reading went on as far as it makes sense.
struct Stop;

impl Builder {
    /// Whether the text was read to its end.
    fn run(&mut self, text: &str) -> bool {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let read = match event {
                Ok((event, span)) => self.event(event, span_of(span)),
                Err(error) => {
                    self.syntax_error(&error, text);
                    Err(Stop)
                }
            };
            if read.is_err() {
                return false;
            }
        }
        true
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                self.refuse(span, "a second YAML document begins here", "Write one definition into each file.");
                Err(Stop)
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.scalar(&text, style, anchor, span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.open(Content::List(Vec::new(), Vec::new()), anchor, span)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.open(Content::Map(Map::new(), BTreeMap::new(), Key::Awaited), anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, span: Span) -> Result<(), Stop> {
        if self.awaits_key() {
            self.key(text, style, span);
            return Ok(());
        }
        let mut spot = Spot::new(Arc::clone(&self.file), span);
        let value = match style {
            ScalarStyle::Plain => self.plain(text, &mut spot),
            _ => Value::String(text.to_owned()),
        };
        spot.verbatim = verbatim(text, style, span);
        let text = value.as_str().map_or(0, str::len);
        self.finish(Node { value, spot, values: 1, text }, anchor)
    }

    fn plain(&mut self, text: &str, spot: &mut Spot) -> Value {
        match scalar::read(text) {
            Meaning::Plain(value) => value,
            Meaning::Ambiguous(value, older) => {
                let kind = if value.is_number() { format!("the number {value}") } else { "text".to_owned() };
                let message = format!("`{text}` is {kind} here; YAML 1.1 reads {older}");
                let help = match older.as_str() {
                    "true" | "false" => format!("Write `{older}`, or quote it: \"{text}\"."),
                    _ => format!("Write the number you mean in full, or quote the text: \"{text}\"."),
                };
                let place = self.place(spot.span);
                self.tell(Problem::warning(Code::AmbiguousScalar, place, message).help(help));
                value
            }
            Meaning::Unholdable => {
                spot.faulty = true;
                let message = format!("`{text}` is a number that cannot be held exactly");
                let help = "Quote it when it is meant as text.";
                let problem = Problem::error(Code::OutOfRange, self.place(spot.span), message).help(help);
                self.tell(problem);
                Value::String(text.to_owned())
            }
        }
    }

    fn key(&mut self, text: &str, style: ScalarStyle, span: Span) {
        let plain = style == ScalarStyle::Plain;
        if plain && text == "<<" {
            let help = "Write the keys out; to build on the catalogue use `extends`.";
            self.refuse(span, "merge keys (`<<`) are not taken", help);
            return self.set_key(Key::Dropped);
        }
        let meaning = if plain { scalar::read(text) } else { Meaning::Plain(Value::String(text.to_owned())) };
        match meaning {
            Meaning::Plain(Value::String(_)) | Meaning::Ambiguous(Value::String(_), _) => {}
            _ if text.is_empty() => {
                self.refuse(span, "this key is empty", "A map's keys are texts: write a name before the `:`.");
                return self.set_key(Key::Dropped);
            }
            _ => {
                let help = format!("A map's keys are texts: quote it as \"{text}\".");
                self.refuse(span, &format!("the key `{text}` is not a text"), &help);
                return self.set_key(Key::Dropped);
            }
        }
        let first = match self.stack.last() {
            Some(Frame { content: Content::Map(_, spots, _), .. }) => spots.get(text).and_then(|spot| spot.key),
            _ => None,
        };
        match first {
            Some(first) => {
                let message = format!("`{text}` stands twice in this map");
                let help = format!("The first one is at {}; keep one of them.", first.start);
                let problem = Problem::error(Code::DuplicateKey, self.place(span), message);
                self.tell(problem.label("the second one").help(help));
                self.set_key(Key::Dropped);
            }
            None => self.set_key(Key::Name(text.to_owned(), span)),
        }
    }

    fn open(&mut self, content: Content, anchor: usize, span: Span) -> Result<(), Stop> {
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("maps and lists stand more than {MAX_DEPTH} deep inside each other");
            self.refuse(span, &message, "Make the file flatter.");
            return Err(Stop);
        }
        if self.awaits_key() {
            self.complex_key(span, matches!(content, Content::Map(..)));
        }
        let frame = Frame { start: span.start, last: span.end, anchor, values: 1, text: 0, faulty: false, content };
        self.stack.push(frame);
        Ok(())
    }

    /// A map or list stands where a key should be. The usual cause is a template without quotes.
    fn complex_key(&mut self, span: Span, is_map: bool) {
        let Some(parent) = self.stack.last_mut() else { return };
        let after_brace = parent.start.line == span.start.line && parent.start.column + 1 == span.start.column;
        if is_map && after_brace {
            parent.faulty = true;
            let place =
                Place { span: Span { start: parent.start, end: span.end }, ..Place::file(Arc::clone(&self.file)) };
            let message = "a text that begins with `{{` must be quoted";
            let help = "Write it as \"{{ … }}\": without quotes YAML reads a map.";
            self.tell(Problem::error(Code::Syntax, place, message).help(help));
        } else if !parent.faulty {
            self.refuse(span, "a map or list cannot be a key", "A map's keys are texts.");
        }
    }

    fn close(&mut self, span: Span) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        // The end of a block collection is where the next thing begins; its own last value ends it.
        let end = if span.start == span.end { frame.last } else { span.end };
        let mut spot = Spot::new(Arc::clone(&self.file), Span { start: frame.start, end });
        spot.faulty = frame.faulty;
        let value = match frame.content {
            Content::List(items, spots) => {
                spot.below = Below::List(spots);
                Value::Array(items)
            }
            Content::Map(map, spots, _) => {
                spot.below = Below::Map(spots);
                Value::Object(map)
            }
        };
        self.finish(Node { value, spot, values: frame.values, text: frame.text }, frame.anchor)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.refuse(span, "this alias stands inside the value it repeats", "Write the value out.");
            return Err(Stop);
        };
        self.repeated_text += node.text;
        if self.repeated_text > MAX_REPEATED_TEXT || self.values + node.values > MAX_VALUES {
            self.refuse(span, "aliases repeat more than a file may hold", "Write what is needed, without aliases.");
            return Err(Stop);
        }
        if self.awaits_key() {
            self.refuse(span, "an alias cannot be a key", "Write the key out.");
            self.set_key(Key::Dropped);
            return Ok(());
        }
        let mut node = node.clone();
        node.spot.span = span;
        node.spot.verbatim = None;
        self.values += node.values - 1;
        self.finish(node, 0)
    }

    /// Keeps a value that aliases may repeat. Anchors inside anchors keep their content twice, so that
    /// is counted as well.
    fn remember(&mut self, anchor: usize, node: &Node) -> Result<(), Stop> {
        self.anchored += node.values;
        if self.anchored > MAX_VALUES {
            self.refuse(node.spot.span, "anchors mark more than a file may hold", "Remove the anchors.");
            return Err(Stop);
        }
        self.anchors.insert(anchor, node.clone());
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.remember(anchor, &node)?;
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            let message = format!("the file holds more than {MAX_VALUES} values");
            let problem = Problem::error(Code::TooLarge, self.place(node.spot.span), message);
            self.tell(problem.help("Divide it into several definitions."));
            return Err(Stop);
        }
        let Node { value, mut spot, values, text } = node;
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some((value, spot));
            return Ok(());
        };
        frame.values += values;
        frame.text += text;
        frame.last = frame.last.max(spot.span.end);
        match &mut frame.content {
            Content::List(items, spots) => {
                items.push(value);
                spots.push(Arc::new(spot));
            }
            Content::Map(map, spots, key) => match std::mem::replace(key, Key::Awaited) {
                Key::Name(name, span) => {
                    spot.key = Some(span);
                    frame.text += name.len();
                    spots.insert(name.as_str().into(), Arc::new(spot));
                    map.insert(name, value);
                }
                Key::Awaited => *key = Key::Dropped,
                Key::Dropped => {}
            },
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { content: Content::Map(_, _, Key::Awaited), .. }))
    }

    fn set_key(&mut self, next: Key) {
        if let Some(Frame { content: Content::Map(_, _, key), .. }) = self.stack.last_mut() {
            *key = next;
        }
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            self.refuse(span, "YAML tags (`!…`) are not taken", "Remove the tag: the place decides what a value is.");
        }
    }

    fn refuse(&mut self, span: Span, message: &str, help: &str) {
        let problem = Problem::error(Code::UnsupportedYaml, self.place(span), message);
        self.tell(problem.help(help));
    }

    fn syntax_error(&mut self, error: &ScanError, text: &str) {
        let start = position(error.marker());
        let span = Span { start, end: Position { column: start.column + 1, ..start } };
        let at = text.lines().nth(start.line - 1).and_then(|line| line.chars().nth(start.column - 1));
        let (message, help) = syntax::explain(error.info(), at);
        let mut problem = Problem::error(Code::Syntax, self.place(span), message);
        problem.help = help;
        self.tell(problem);
    }

    /// One more of each kind than are listed tells that there are more.
    fn tell(&mut self, problem: Problem) {
        let errors = usize::from(problem.is_error());
        let told = if problem.is_error() { self.errors } else { self.problems.len() - self.errors };
        if told <= MOST_OF_FILE {
            self.errors += errors;
            self.problems.push(problem);
        }
    }

    fn place(&self, span: Span) -> Place {
        Place { span, ..Place::file(Arc::clone(&self.file)) }
    }
}

/// Where the first character of a text stands, when the file shows its characters one by one. The
/// scanner counts blanks after a closing quote to the scalar, so for quoted texts the width says nothing:
/// those on one line with nothing in them that needs an escape are taken to have none.
fn verbatim(text: &str, style: ScalarStyle, span: Span) -> Option<Position> {
    let one_line = span.start.line == span.end.line;
    let (fits, quotes) = match style {
        ScalarStyle::Plain => (span.end.column.checked_sub(span.start.column)? == text.chars().count(), 0),
        ScalarStyle::SingleQuoted => (!text.contains('\''), 1),
        ScalarStyle::DoubleQuoted => (!text.contains(['"', '\\']) && !text.contains(char::is_control), 1),
        ScalarStyle::Literal | ScalarStyle::Folded => (false, 0),
    };
    (fits && one_line).then(|| Position { column: span.start.column + quotes, ..span.start })
}

fn span_of(span: saphyr_parser::Span) -> Span {
    Span { start: position(&span.start), end: position(&span.end) }
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Parsed {
        parse(&Arc::new(PathBuf::from("a.yaml")), text)
    }

    fn told(text: &str) -> Vec<String> {
        let tell = |p: &Problem| format!("{} {} {}", p.place.span.start, p.code, p.message);
        read(text).problems.iter().map(tell).collect()
    }

    #[test]
    fn values_know_where_they_stand() {
        let document = read("a:\n  b: [1, \"é x\"]\n  c: >-\n    f g\n").document.expect("a document");
        assert_eq!(document.value, json!({ "a": { "b": [1, "é x"], "c": "f g" } }));
        let start = |pointer| document.place(pointer).span.to_string();
        assert_eq!([start("/a"), start("/a/b"), start("/a/b/1")], ["1:1-1:2", "2:6-2:16", "2:10-2:15"]);
        assert_eq!(document.key_place("/a/b").span.to_string(), "2:3-2:4");
        assert_eq!(document.place_within("/a/b/1", 3..4).span.to_string(), "2:13-2:14");
    }

    #[test]
    fn every_duplicate_is_told_at_its_key() {
        let problems = told("a: 1\nb: { c: 1, c: 2 }\na: 3\na: 4\n");
        let expected = [
            "2:12 duplicate-key `c` stands twice in this map",
            "3:1 duplicate-key `a` stands twice in this map",
            "4:1 duplicate-key `a` stands twice in this map",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn what_is_not_taken_is_refused_in_words() {
        for (text, code) in [
            ("a: !!str 1", "1:4 unsupported-yaml YAML tags"),
            ("a: 1\n<<: { b: 1 }", "2:1 unsupported-yaml merge keys"),
            ("a: 1\n---\nb: 1", "2:1 unsupported-yaml a second YAML document"),
            ("1: a", "1:1 unsupported-yaml the key `1` is not a text"),
            ("true: a", "1:1 unsupported-yaml the key `true` is not a text"),
            ("? [a]\n: b", "1:3 unsupported-yaml a map or list cannot be a key"),
            ("a: &x b\n*x : c", "2:1 unsupported-yaml an alias cannot be a key"),
            ("a: &x [*x]", "1:8 unsupported-yaml this alias stands inside"),
            ("a: {{ b }}", "1:4 syntax a text that begins with `{{` must be quoted"),
            ("", "1:1 empty the file is empty"),
            ("# only this\n", "1:1 empty the file is empty"),
            ("a: 99999999999999999999", "1:4 out-of-range `99999999999999999999` is a number"),
        ] {
            let problems = told(text);
            assert!(problems.len() == 1 && problems[0].starts_with(code), "{text:?}: {problems:?}");
        }
    }

    #[test]
    fn aliases_repeat_values_within_a_budget() {
        assert_eq!(read("a: &x [1]\nb: *x\n").document.map(|d| d.value), Some(json!({ "a": [1], "b": [1] })));
        let laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &["ab", "bc", "cd", "de", "ef", "fg"]
                .map(|pair| {
                    let (from, to) = pair.split_at(1);
                    format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(","))
                })
                .concat();
        assert!(told(&laughs).concat().contains("aliases repeat more"), "{:?}", told(&laughs));
        let quadratic = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(20_000), vec!["*a"; 1_000].join(","));
        assert!(told(&quadratic).concat().contains("aliases repeat more"));
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert!(told(&"[".repeat(100_000)).concat().contains(" deep inside each other"));
        assert!(told(&format!("a: {}1{}", "[".repeat(70), "]".repeat(70))).concat().contains("more than 64 deep"));
        assert!(told(&format!("a: [{}]", "1,".repeat(60_000))).concat().contains("more than 50000 values"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_text_is_read_or_refused(text in "([a-c]: |- |\\[|\\]|\\{|\\}|\n|  |&a |\\*a|\"|'|!x |\\?|>|\\||#|é|\\PC){0,80}") {
            let parsed = read(&text);
            prop_assert!(parsed.document.is_some() || !parsed.problems.is_empty());
        }
    }
}
