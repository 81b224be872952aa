//! Problems as JSON. The shape is documented at [`Report::json`](super::Report::json).

use serde_json::{Value, json};

use super::Report;
use crate::definition::problem::{Problem, Severity};

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

pub(super) fn problem(problem: &Problem) -> Value {
    let place = &problem.place;
    json!({
        "code": problem.code,
        "severity": problem.severity,
        "file": place.file.display().to_string(),
        "line": place.span.start.line,
        "column": place.span.start.column,
        "end_line": place.span.end.line,
        "end_column": place.span.end.column,
        "pointer": place.pointer,
        "message": problem.message,
        "label": problem.label,
        "suggestion": problem.suggestion,
        "help": problem.help,
    })
}
