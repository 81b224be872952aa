//! Problems for people and for programs: text with excerpts, JSON, SARIF.
//!
//! No renderer prints a value that is secret or may be one: excerpts go through [`redact`] first.
//! Called by the CLI, the log and the admin door.

mod json;
pub mod redact;
mod sarif;
mod text;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use json::ProblemShown;

use super::problem::{Code, Place, Problem, Severity, settle};
use crate::base::plain;

/// The texts of files, for excerpts.
pub type Texts = HashMap<Arc<PathBuf>, Arc<str>>;

/// What a look at files found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many files were looked at.
    pub files: usize,
    /// What was found, sorted by file and place.
    pub problems: Vec<Problem>,
    /// The texts of the files that have problems.
    pub texts: Texts,
    /// Where values stand that no excerpt may show.
    pub hidden: Vec<Place>,
}

impl Report {
    /// How many problems are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }

    /// Takes in what another look found.
    pub fn extend(&mut self, other: Self) {
        self.files += other.files;
        self.problems.extend(other.problems);
        self.texts.extend(other.texts);
        self.hidden.extend(other.hidden);
        settle(&mut self.problems);
    }

    /// Text for people. Colours are for terminals.
    pub fn text(&self, colours: bool) -> String {
        text::render(self, colours)
    }

    /// JSON for programs: `{"version": 1, "summary": …, "problems": […]}`. Fields may be added, never
    /// renamed or removed, within a version.
    pub fn json(&self) -> serde_json::Value {
        json::render(self)
    }

    /// SARIF 2.1.0, for code hosts and editors.
    pub fn sarif(&self) -> serde_json::Value {
        sarif::render(self)
    }
}

/// How well it is known what is secret in a file with these problems: one that is not YAML to its end, or of which something
/// was passed over, does not tell.
pub fn known<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> redact::Known {
    let passes_over = |code| matches!(code, Code::Syntax | Code::UnsupportedYaml | Code::DuplicateKey | Code::TooLarge);
    let little = problems.into_iter().any(|problem| passes_over(problem.code));
    if little { redact::Known::Little } else { redact::Known::All }
}

/// One problem as the JSON of [`Report::json`] has it.
pub fn problem_shown(problem: &Problem) -> ProblemShown {
    json::problem(problem)
}

/// One problem on one line, for the log: `path:line:col: message`.
pub fn line(problem: &Problem) -> String {
    let place = &problem.place;
    let suggestion = problem.suggestion.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    let file = place.file.display().to_string();
    format!("{}:{}: {}{suggestion}", plain::shown(&file), place.span.start, problem.message)
}
