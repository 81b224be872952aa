//! One file from text to what counts: parsed, laid over the catalogue, expanded, judged, checked,
//! compiled.
//!
//! Every step tells all it finds. A step that needs sound input works on what the steps before left
//! sound, so that a bad template is told beside an unknown field. Called by `workspace`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::catalogue;
use super::document::{Below, Document, is_empty};
use super::load::environment::Environment;
use super::load::expand::{Dependency, expand};
use super::load::extends::merge;
use super::load::tree::parse;
use super::load::visit::says_who;
use super::problem::{Code, Place, Problem, Severity, are_enough};
use super::raw::gateway::UNEXPANDED;
use super::render::known;
use super::render::redact::{Known, is_name, is_telling};
use super::schema;
use super::suggest::nearest;
use super::validate::Schema;
use crate::base::span::{Position, Span};

/// A file as far as it could be read.
#[derive(Debug, Default)]
pub struct Resolved {
    /// The document: merged, references expanded. `None` when the text is not YAML.
    pub document: Option<Document>,
    /// The same without what is faulty in it, for checks that need sound input; `None` when nothing is.
    pub sound: Option<Sound>,
    /// What was found so far.
    pub problems: Vec<Problem>,
    /// What the file depends on besides its text.
    pub dependencies: Vec<Dependency>,
    /// Where values stand that may be secrets written out.
    pub hidden: Vec<Place>,
}

/// A document without its faulty parts.
#[derive(Debug)]
pub struct Sound {
    /// What is left.
    pub document: Document,
    /// The pointers of what is faulty in the file: what is wrong there was told.
    pub faulty: Vec<String>,
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A definition.
    Integration,
    /// The gateway file.
    Gateway,
}

impl Kind {
    /// How an empty one is to begin.
    const fn beginning(self) -> &'static str {
        match self {
            Self::Integration => "Begin with `trunkline: 1` and an `id`.",
            Self::Gateway => {
                "Begin with `trunkline: 1`, `public_url` and `integrations`, the directories of definitions."
            }
        }
    }

    /// The schema of such files, compiled once.
    pub fn schema(self) -> &'static Schema {
        static INTEGRATION: LazyLock<Schema> = LazyLock::new(|| compiled(schema::integration()));
        static GATEWAY: LazyLock<Schema> = LazyLock::new(|| compiled(schema::gateway()));
        match self {
            Self::Integration => &INTEGRATION,
            Self::Gateway => &GATEWAY,
        }
    }
}

#[expect(clippy::expect_used, reason = "the generated schemas are part of the program and tested")]
fn compiled(schema: &Value) -> Schema {
    Schema::new(schema).expect("the generated schema is a JSON Schema")
}

/// Reads a text as far as its references and its schema's verdict.
pub fn resolve(kind: Kind, file: &Arc<PathBuf>, text: &str, environment: &dyn Environment) -> Resolved {
    let parsed = parse(file, text);
    let mut problems = parsed.problems;
    let Some(mut document) = parsed.document else {
        for problem in problems.iter_mut().filter(|problem| problem.code == Code::Empty) {
            problem.help = Some(kind.beginning().to_owned());
        }
        say_nothing_of(&[], &mut problems);
        return Resolved { problems, ..Resolved::default() };
    };
    let schema = kind.schema();
    let base_is_missing = kind == Kind::Integration && !lay_over_catalogue(&mut document, schema, &mut problems);
    let later: &[&str] = if kind == Kind::Gateway { &UNEXPANDED } else { &[] };
    let expanded = expand(&mut document, schema.shape(), later, environment);
    problems.extend(expanded.problems);
    let mut faults = if are_enough(&problems) { Vec::new() } else { schema.judge(&document) };
    // Without the entry it starts from, nobody can say what is missing.
    faults.retain(|fault| !(base_is_missing && fault.code == Code::MissingField));
    let told: HashSet<Span> = faults.iter().map(|fault| fault.place.span).collect();
    problems.retain(|problem| !is_told_better(problem, &told));
    let is_sound = !faults.iter().chain(&problems).any(Problem::is_error);
    let sound = (!is_sound).then(|| sound(&document, &faults, &problems));
    let mut hidden = expanded.hidden;
    let secret = faults.iter().filter(|fault| may_show_a_secret(fault, &document));
    hidden.extend(secret.map(|fault| document.stretch(&fault.place.pointer)));
    let odd = |fault: &&Problem| fault.code == Code::UnknownField && !is_name(&last_token(&fault.place.pointer));
    hidden.extend(faults.iter().filter(odd).map(|fault| fault.place.clone()));
    say_nothing_of(&hidden, &mut problems);
    problems.extend(faults);
    Resolved { document: Some(document), sound, problems, dependencies: expanded.dependencies, hidden }
}

/// Takes values that may be secret out of what reading the text said of them; all values, where it is not known which are.
fn say_nothing_of(hidden: &[Place], problems: &mut [Problem]) {
    let all = known(problems.iter()) == Known::Little;
    let hidden: HashSet<Position> = hidden.iter().map(|place| place.span.end).collect();
    for problem in problems.iter_mut().filter(|problem| all || hidden.contains(&problem.place.span.end)) {
        let message = match problem.code {
            Code::AmbiguousScalar => "this value reads as something else in YAML 1.1",
            Code::OutOfRange => "this is a number that cannot be held exactly",
            _ => continue,
        };
        message.clone_into(&mut problem.message);
        problem.help = Some("Quote it when it is meant as text.".to_owned());
    }
}

/// The name that a pointer ends with.
fn last_token(pointer: &str) -> String {
    pointer.rsplit('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~")
}

/// Blocks that have secrets in them: where one is of another kind than it should be, all of it is hidden.
const HOLDERS: [&str; 6] = ["callers", "people", "headers", "destinations", "connections", "admin"];

/// Whether what stands at a fault may be a secret that nothing else knows to be one: what is under a name that the schema
/// does not know, unless it is a slip of one that is no secret's, and what is under a secret's in a form that it does not
/// have.
fn may_show_a_secret(fault: &Problem, document: &Document) -> bool {
    let Some(value) = document.value.pointer(&fault.place.pointer) else { return false };
    let says_so = |value: &Value| value.as_str().is_some_and(says_who);
    let name = fault.place.pointer.rsplit('/').next().unwrap_or_default();
    match (fault.code, &fault.suggestion) {
        _ if is_empty(value) => false,
        (Code::UnknownField, None) => true,
        (Code::UnknownField, Some(meant)) => sounds_secret(name) || sounds_secret(meant) || says_so(value),
        (Code::WrongType, _) => fault.place.pointer.split('/').any(|name| is_telling(name) || HOLDERS.contains(&name)),
        _ => false,
    }
}

/// Whether a name may be that of a secret, or of what has one in it; of names that the schema does not know.
fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Blocks that have secrets in fields of their own, which are known.
    let blocks = ["auth", "oauth1", "oauth2", "authorize"];
    let parts = ["key", "token", "secret", "pass", "auth", "cred", "sign", "cert", "pin"];
    !blocks.contains(&&*name) && parts.iter().any(|part| name.contains(part))
}

/// Lays a definition over the entry it extends; false when there is no such entry.
fn lay_over_catalogue(document: &mut Document, schema: &Schema, problems: &mut Vec<Problem>) -> bool {
    let Some(name) = document.value.get("extends").and_then(Value::as_str) else { return true };
    let Some(entry) = catalogue::entry(name) else {
        let message = format!("the catalogue has no entry `{name}`");
        let problem = Problem::error(Code::UnknownName, document.place("/extends"), message);
        let problem = problem.suggestion(nearest(name, catalogue::ids()));
        let help = "`trunkline catalog list` shows its entries, and `trunkline catalog search WORD` finds them.";
        problems.push(problem.help(help));
        return false;
    };
    let taken = std::mem::replace(document, Document::unplaced(PathBuf::new(), Value::Null));
    *document = merge(&entry.document(), taken, schema.shape());
    true
}

/// A warning about a word's older meaning says nothing new where the word is an error anyway.
fn is_told_better(problem: &Problem, told: &HashSet<Span>) -> bool {
    problem.severity == Severity::Warning && told.contains(&problem.place.span)
}

/// Takes out what is faulty. A map that lacks something keeps the rest; a list loses no item, because that
/// would move the others.
fn sound(document: &Document, faults: &[Problem], read: &[Problem]) -> Sound {
    let mut sound = Sound { document: document.clone(), faulty: Vec::new() };
    let is_whole = |fault: &&Problem| fault.is_error() && fault.code != Code::MissingField;
    let mut marked: HashMap<&str, HashSet<String>> = HashMap::new();
    for fault in faults.iter().chain(read).filter(is_whole) {
        let at = fault.place.pointer.as_str();
        let Some((parent, key)) = at.rsplit_once('/') else { continue };
        marked.entry(parent).or_default().insert(key.replace("~1", "/").replace("~0", "~"));
        sound.faulty.push(at.to_owned());
        // A field whose name has a slip is not missing.
        let meant = fault.suggestion.as_ref().filter(|_| fault.code == Code::UnknownField);
        sound.faulty.extend(meant.map(|meant| format!("{parent}/{meant}")));
    }
    // A map at once: taking out one field moves all that follow.
    for (parent, keys) in marked {
        if let Some(Value::Object(map)) = sound.document.value.pointer_mut(parent) {
            map.retain(|key, _| !keys.contains(key));
        }
    }
    sound.faulty.extend(faulty_spots(document));
    if let Value::Object(root) = &mut sound.document.value {
        // What every file must have, so that the rest can be read; that it is missing was told.
        root.entry("trunkline").or_insert(Value::from(1));
        root.entry("id").or_insert(Value::from("unnamed"));
    }
    sound
}

/// The pointers of values whose fault was told when they were read.
fn faulty_spots(document: &Document) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), vec![(String::new(), &document.places)]);
    while let Some((pointer, spot)) = open.pop() {
        if spot.faulty {
            found.push(pointer.clone());
        }
        let below = |token: &str| {
            let mut at = pointer.clone();
            super::document::push_token(&mut at, token);
            at
        };
        match &spot.below {
            Below::Nothing => {}
            Below::List(items) => {
                open.extend(items.iter().enumerate().map(|(place, item)| (below(&place.to_string()), item)));
            }
            Below::Map(entries) => open.extend(entries.iter().map(|(key, item)| (below(key), item))),
        }
    }
    found
}

/// The place of the id of a file, for a problem about it.
pub fn id_place(document: &Document) -> Place {
    document.place("/id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_told_what_one_of_its_kind_begins_with() {
        let file = Arc::new(PathBuf::from("a.yaml"));
        let help = |kind| {
            let problems = resolve(kind, &file, "", &HashMap::<String, String>::new()).problems;
            problems.into_iter().next().and_then(|problem| problem.help).unwrap_or_default()
        };
        assert!(help(Kind::Integration).contains("`id`"), "{}", help(Kind::Integration));
        assert!(!help(Kind::Gateway).contains("`id`"), "{}", help(Kind::Gateway));
    }
}
