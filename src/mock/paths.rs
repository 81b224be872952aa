//! What an expression reads, as places a body can be made to have.
//!
//! The template engine tells names up to the first index; a simulated answer needs the whole way
//! (`body.data[-1].id`) and what a value is compared with (`body.type == 'x'`). This is a scan of the
//! source, not a parser: what it does not understand it leaves out, and the answer then lacks a value.
//! Called by `shape`, `limit` and `draft`.

use serde_json::Value;

use crate::template::{Text, Tree};

/// A place that an expression reads, and what it is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Read {
    /// The variable, such as `body`.
    pub root: String,
    /// The way below it.
    pub steps: Vec<Step>,
    /// The literal it is compared with, or false when it is negated.
    pub equals: Option<Value>,
}

/// One step below a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A key of a map.
    Key(String),
    /// Any item of a list.
    Item,
}

/// Words of the language that look like names.
const WORDS: [&str; 16] = [
    "and",
    "or",
    "not",
    "if",
    "else",
    "in",
    "is",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "defined",
    "loop",
    "undefined",
];

/// The places an expression reads, in order of appearance.
pub(super) fn reads(source: &str) -> Vec<Read> {
    let mut scan = Scan { rest: source, found: Vec::new(), last: Last::Other };
    while scan.step() {}
    scan.found
}

/// The places that a text's slots read.
pub(super) fn text_reads(text: &Text) -> Vec<Read> {
    match text.segments() {
        Some(segments) => {
            segments.iter().filter_map(|part| part.slot()).flat_map(|slot| reads(slot.source())).collect()
        }
        None => text.names().iter().flat_map(|name| reads(name)).collect(),
    }
}

/// The places that a tree's texts read.
pub(super) fn tree_reads(tree: &Tree) -> Vec<Read> {
    match tree {
        Tree::Literal(_) => Vec::new(),
        Tree::Text(text) => text_reads(text),
        Tree::List(items) => items.iter().flat_map(tree_reads).collect(),
        Tree::Map(entries) => entries.iter().flat_map(|(_, tree)| tree_reads(tree)).collect(),
    }
}

/// The last name of a way, for guesses at what its value looks like.
pub(super) fn last_key(steps: &[Step]) -> Option<&str> {
    steps.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Item => None,
    })
}

struct Scan<'a> {
    rest: &'a str,
    found: Vec<Read>,
    last: Last,
}

/// What stood before the next token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// `not`: a name that follows is wanted false.
    Not,
    /// `|` or `is`: a name that follows is a filter or a test.
    Filter,
    /// Anything else.
    Other,
}

impl Scan<'_> {
    /// Takes one token; false at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        if first == '\'' || first == '"' {
            self.literal();
            self.last = Last::Other;
        } else if first.is_ascii_alphabetic() || first == '_' {
            self.name();
        } else if first.is_ascii_digit() {
            // `1e5` must not leave `e5` behind as a name.
            self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_');
        } else {
            if !first.is_whitespace() {
                self.last = if first == '|' { Last::Filter } else { Last::Other };
            }
            self.skip(first.len_utf8());
        }
        true
    }

    fn name(&mut self) {
        let word = self.word();
        match word.as_str() {
            "not" if self.last == Last::Filter => {}
            "not" => self.last = Last::Not,
            "is" => self.last = Last::Filter,
            known if WORDS.contains(&known) => self.last = Last::Other,
            _ if self.last == Last::Filter || self.is_keyword_argument() => self.last = Last::Other,
            _ => {
                let negated = self.last == Last::Not;
                let steps = self.steps();
                let equals = self.compared().or(negated.then_some(Value::Bool(false)));
                self.found.push(Read { root: word, steps, equals });
                self.last = Last::Other;
            }
        }
    }

    /// Whether what follows is `=`, as in `map(attribute='id')`.
    fn is_keyword_argument(&self) -> bool {
        let after = self.rest.trim_start();
        after.starts_with('=') && !after.starts_with("==")
    }

    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        loop {
            if let Some(after) = self.rest.strip_prefix('.') {
                self.rest = after;
                steps.push(Step::Key(self.word()));
            } else if let Some(after) = self.rest.strip_prefix('[') {
                self.rest = after.trim_start();
                steps.push(self.literal().map_or(Step::Item, Step::Key));
                self.rest = self.rest.split_once(']').map_or("", |(_, after)| after);
            } else {
                return steps;
            }
        }
    }

    /// The literal after `==` or at the head of the list after `in`.
    fn compared(&mut self) -> Option<Value> {
        let after = self.rest.trim_start();
        if let Some(value) = after.strip_prefix("==") {
            self.rest = value.trim_start();
        } else if let Some(list) =
            after.strip_prefix("in ").map(str::trim_start).and_then(|list| list.strip_prefix('['))
        {
            self.rest = list.trim_start();
        } else {
            return None;
        }
        if let Some(text) = self.literal() {
            return Some(Value::String(text));
        }
        let end =
            self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-').unwrap_or(self.rest.len());
        let word = self.rest.get(..end)?;
        let value = match word {
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            number => serde_json::from_str(number).ok()?,
        };
        self.skip(end);
        Some(value)
    }

    /// A quoted text, when one is next.
    fn literal(&mut self) -> Option<String> {
        let quote = self.rest.chars().next().filter(|c| *c == '\'' || *c == '"')?;
        self.skip(1);
        let (text, after) = self.rest.split_once(quote).unwrap_or((self.rest, ""));
        let text = text.to_owned();
        self.rest = after;
        Some(text)
    }

    fn word(&mut self) -> String {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let word = self.rest.get(..end).unwrap_or_default().to_owned();
        self.skip(end);
        word
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn shown(source: &str) -> Vec<String> {
        let way = |read: &Read| {
            let step = |step: &Step| match step {
                Step::Key(key) => format!(".{key}"),
                Step::Item => "[]".to_owned(),
            };
            let equals = read.equals.iter().map(|value| format!("={value}"));
            std::iter::once(read.root.clone()).chain(read.steps.iter().map(step)).chain(equals).collect::<String>()
        };
        reads(source).iter().map(way).collect()
    }

    #[test]
    fn the_catalogues_expressions_are_understood() {
        let event = "headers['x-github-event'] ~ ('.' ~ body.action if body.action else '')";
        assert_eq!(shown(event), ["headers.x-github-event", "body.action", "body.action"]);
        assert_eq!(shown("body.data[-1].id"), ["body.data[].id"]);
        let slack = "body.event.type if body.type == 'event_callback' else body.type";
        assert_eq!(shown(slack), ["body.event.type", "body.type=\"event_callback\"", "body.type"]);
        assert_eq!(shown("not body.pull_request.draft"), ["body.pull_request.draft=false"]);
        assert_eq!(shown("status in [204, 404]"), ["status=204"]);
    }

    #[test]
    fn filters_tests_and_arguments_are_not_places() {
        assert_eq!(shown("body.items | map(attribute='id') | join(',')"), ["body.items"]);
        assert_eq!(shown("body.a is not none and body.b is defined"), ["body.a", "body.b"]);
        assert_eq!(shown("body.a | default('body.b')"), ["body.a"]);
    }

    #[test]
    fn a_comparison_keeps_its_type() {
        let values: Vec<_> =
            reads("a.x == 3 or a.y == true or a.z == 'z'").into_iter().map(|read| read.equals).collect();
        assert_eq!(values, [Some(json!(3)), Some(json!(true)), Some(json!("z"))]);
    }

    proptest! {
        #[test]
        fn any_text_is_scanned_to_its_end(source in "\\PC{0,60}") {
            reads(&source);
        }
    }
}
