//! What is wrong with a file, and where: the product's error messages as data.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::base::plain;
use crate::base::span::{Position, Span};

/// One finding about one place of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable kebab-case code, such as `unknown-field`. Documented in [`Code`].
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What is wrong, as a lower-case fragment without a secret value.
    pub message: String,
    /// Short text under the caret, such as `expected a duration`.
    pub label: Option<String>,
    /// The nearest valid name, where the fault looks like a slip.
    pub suggestion: Option<String>,
    /// What to do about it, as a sentence.
    pub help: Option<String>,
}

impl Problem {
    /// An error with what is wrong as a lower-case fragment. Never put a secret value into it.
    pub fn error(code: Code, place: Place, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, severity: Severity::Error, place, message, label: None, suggestion: None, help: None }
    }

    /// A warning.
    pub fn warning(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, place, message) }
    }

    /// A notice.
    pub fn notice(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, ..Self::error(code, place, message) }
    }

    /// With a short text under the caret.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// With the nearest valid name, where there is one.
    #[must_use]
    pub fn suggestion(self, suggestion: Option<String>) -> Self {
        Self { suggestion, ..self }
    }

    /// With what to do about it, as a sentence.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Whether it keeps the file from counting.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Sorts problems by file and place and drops those said twice. What a file brings into their words that a terminal or page
/// would act on is written out.
pub fn settle(problems: &mut Vec<Problem>) {
    for problem in problems.iter_mut() {
        let words =
            [Some(&mut problem.message), problem.label.as_mut(), problem.help.as_mut(), problem.suggestion.as_mut()];
        words.into_iter().flatten().for_each(|words| *words = shown(words));
    }
    problems.sort_by(|a, b| {
        let key = |p: &Problem| (p.place.span.start, p.severity, p.code);
        a.place.file.cmp(&b.place.file).then_with(|| key(a).cmp(&key(b))).then_with(|| a.message.cmp(&b.message))
    });
    problems.dedup();
}

/// How many problems of one file are listed: more are those of a file that is something else.
pub const MOST_OF_FILE: usize = 1_000;

/// Whether errors enough were found in a file: no more are looked for, because that takes long in a file that is something
/// else.
pub fn are_enough(problems: &[Problem]) -> bool {
    problems.iter().filter(|problem| problem.is_error()).nth(MOST_OF_FILE).is_some()
}

/// Puts the problems of one file in order, as [`settle`] does. Of very many the errors are listed first, and the file is
/// said to have more.
pub fn of_file(mut problems: Vec<Problem>) -> Vec<Problem> {
    settle(&mut problems);
    let Some(file) = problems.get(MOST_OF_FILE).map(|problem| Arc::clone(&problem.place.file)) else { return problems };
    let (errors, others): (Vec<_>, Vec<_>) = problems.into_iter().partition(Problem::is_error);
    let message = format!("this file has more than {MOST_OF_FILE} faults, and so many are listed");
    let severity = if errors.is_empty() { Severity::Warning } else { Severity::Error };
    let more = Problem { severity, ..Problem::error(Code::TooLarge, Place::file(file), message) };
    let mut listed: Vec<_> = errors.into_iter().chain(others).take(MOST_OF_FILE).collect();
    listed.push(more.help("Is it a definition? Then correct the first ones, and look again."));
    settle(&mut listed);
    listed
}

fn shown(words: &str) -> String {
    words.split('\n').map(plain::shown).collect::<Vec<_>>().join("\n")
}

impl Place {
    /// The file as a whole.
    pub fn file(file: Arc<PathBuf>) -> Self {
        let start = Position { line: 1, column: 1 };
        Self { file, span: Span { start, end: start }, pointer: String::new() }
    }
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file as it was named to us, so that editors can jump to it.
    pub file: Arc<PathBuf>,
    /// The stretch of text; empty at 1:1 when the fault is the file as a whole.
    pub span: Span,
    /// RFC 6901 pointer of the value within the document, where there is one.
    pub pointer: String,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ProblemSeverity)]
pub enum Severity {
    /// The file does not count: its last good version stays in force.
    Error,
    /// The file counts, but probably does not do what its author wants.
    Warning,
    /// Worth knowing; nothing to mend.
    Notice,
}

/// The stable names of problems. One variant a rule; the text form is the kebab-case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The file cannot be read.
    Unreadable,
    /// The file is larger than a definition may be.
    TooLarge,
    /// The file is not UTF-8.
    NotUtf8,
    /// The file has no document.
    Empty,
    /// The text is not YAML.
    Syntax,
    /// A YAML feature we do not take: tags, merge keys, several documents, non-text keys, alias bombs.
    UnsupportedYaml,
    /// A mapping has one key twice.
    DuplicateKey,
    /// A mapping has a key that means nothing there.
    UnknownField,
    /// A mapping lacks a key it must have.
    MissingField,
    /// A value has another type than its place needs.
    WrongType,
    /// A value is not one of those its place knows.
    UnknownValue,
    /// A text does not have the form its place needs.
    BadFormat,
    /// A number or list is outside its bounds.
    OutOfRange,
    /// A template or expression does not compile.
    BadTemplate,
    /// A template or expression names a variable its place does not have.
    UnknownVariable,
    /// An environment variable or file that a reference names is missing.
    MissingReference,
    /// A reference of an integration file names what is the gateway's own, or a file from elsewhere.
    OutOfReach,
    /// A secret is written out in a file.
    LiteralSecret,
    /// A name points at an integration, endpoint, destination or catalogue entry that is not there.
    UnknownName,
    /// Two files or two entries of one list have one id.
    DuplicateId,
    /// A definition has an id that the gateway keeps for itself.
    ReservedId,
    /// Values that are each fine do not go together.
    Conflict,
    /// The text reads as something else in YAML 1.1, such as `no` or `014`.
    AmbiguousScalar,
    /// Declared, and not yet run by this version.
    NotYetRun,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_faults_the_errors_are_listed_and_the_rest_is_told() {
        let file = Arc::new(PathBuf::from("a.yaml"));
        let at = |line: usize| {
            let start = Position { line, column: 1 };
            Place { span: Span { start, end: start }, ..Place::file(Arc::clone(&file)) }
        };
        let warned = || (2..MOST_OF_FILE + 2).map(|line| Problem::warning(Code::AmbiguousScalar, at(line), "odd"));
        let last = Problem::error(Code::Conflict, at(MOST_OF_FILE + 10), "wrong");
        let listed = of_file(warned().chain([last]).collect());
        assert_eq!(listed.len(), MOST_OF_FILE + 1);
        assert_eq!(listed.first().map(|problem| (problem.code, problem.is_error())), Some((Code::TooLarge, true)));
        assert_eq!(listed.last().map(|problem| problem.code), Some(Code::Conflict));
        assert_eq!(of_file(warned().collect()).len(), MOST_OF_FILE, "so many are no more than are listed");
    }

    #[test]
    fn codes_read_in_kebab_case() {
        assert_eq!(Code::UnknownField.to_string(), "unknown-field");
        assert_eq!(Code::NotUtf8.to_string(), "not-utf8");
    }
}
