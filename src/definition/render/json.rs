//! Problems as JSON. The shape is documented at [`Report::json`](super::Report::json).

use serde::Serialize;
use serde_json::{Value, json};

use super::Report;
use crate::definition::problem::{Code, Problem, Severity};

pub(super) fn render(report: &Report) -> Value {
    json!({
        "version": 1,
        "summary": {
            "files": report.files,
            "errors": report.count(Severity::Error),
            "warnings": report.count(Severity::Warning),
            "notices": report.count(Severity::Notice),
        },
        "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

/// A problem as programs read it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = FileProblem)]
pub struct ProblemShown {
    /// Its stable kebab-case code, such as `unknown-field`.
    #[schema(value_type = String)]
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The file.
    pub file: String,
    /// The line it begins at, from one.
    pub line: usize,
    /// The column it begins at, from one.
    pub column: usize,
    /// The line it ends at.
    pub end_line: usize,
    /// The column it ends before.
    pub end_column: usize,
    /// The JSON pointer (RFC 6901) of what it is about.
    pub pointer: String,
    /// What is wrong; never a secret value.
    pub message: String,
    /// Short text for the place.
    pub label: Option<String>,
    /// The nearest valid name, where the fault looks like a slip.
    pub suggestion: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

pub(super) fn problem(problem: &Problem) -> ProblemShown {
    let place = &problem.place;
    ProblemShown {
        code: problem.code,
        severity: problem.severity,
        file: place.file.display().to_string(),
        line: place.span.start.line,
        column: place.span.start.column,
        end_line: place.span.end.line,
        end_column: place.span.end.column,
        pointer: place.pointer.clone(),
        message: problem.message.clone(),
        label: problem.label.clone(),
        suggestion: problem.suggestion.clone(),
        help: problem.help.clone(),
    }
}
