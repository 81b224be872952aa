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

use super::bound::LeftOut;
use super::live::FileStatus;
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
    let little = problems.into_iter().any(|problem| passes_over(problem.code));
    if little { redact::Known::Little } else { redact::Known::All }
}

/// Whether a problem tells that something of the file was not read.
pub fn passes_over(code: Code) -> bool {
    matches!(code, Code::Syntax | Code::UnsupportedYaml | Code::DuplicateKey | Code::TooLarge)
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

/// What keeps a file from counting, on a line each. Where more was found than is kept, the last one says how much.
pub fn faults(status: &FileStatus) -> Vec<String> {
    let more = left_out(LeftOut { others: 0, ..status.left_out });
    let file = status.file.display().to_string();
    status.errors().map(line).chain(more.map(|more| format!("{}: {more}", plain::shown(&file)))).collect()
}

/// That more was found than is kept, where it was.
pub fn left_out(left_out: LeftOut) -> Option<String> {
    let counted = |count: usize, one: &str, several: &str| match count {
        0 => None,
        1 => Some(format!("1 more {one}")),
        count => Some(format!("{count} more {several}")),
    };
    let errors = counted(left_out.errors, "error", "errors");
    let others = counted(left_out.others, "warning or notice", "warnings and notices");
    let more: Vec<_> = errors.into_iter().chain(others).collect();
    (!more.is_empty()).then(|| format!("and {}: `trunkline check` shows all", more.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::live::FileState;

    #[test]
    fn a_file_says_how_many_more_faults_it_has() {
        let file = Arc::new(PathBuf::from("a.yaml"));
        let problem = Problem::error(Code::Conflict, Place::file(Arc::clone(&file)), "wrong");
        let status = FileStatus {
            file,
            integration: None,
            state: FileState::Rejected,
            problems: Arc::new([problem]),
            left_out: LeftOut { errors: 49, others: 1 },
        };
        assert_eq!(faults(&status), ["a.yaml:1:1: wrong", "a.yaml: and 49 more errors: `trunkline check` shows all"]);
        let all = "and 49 more errors and 1 more warning or notice: `trunkline check` shows all";
        assert_eq!(left_out(status.left_out).as_deref(), Some(all));
        assert_eq!(left_out(LeftOut::default()), None);
    }
}
