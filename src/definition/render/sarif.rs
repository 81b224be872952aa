//! Problems as SARIF 2.1.0 (OASIS), which code hosts show beside changed lines.

use std::path::Path;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use super::Report;
use crate::definition::problem::{Code, Problem, Severity};

/// What a URI's path must not have as it is.
const PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');

pub(super) fn render(report: &Report) -> Value {
    let mut rules: Vec<Code> = report.problems.iter().map(|problem| problem.code).collect();
    rules.sort_unstable();
    rules.dedup();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "trunkline",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|code| json!({ "id": code })).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": report.problems.iter().map(|problem| result(problem, &rules)).collect::<Vec<_>>(),
        }],
    })
}

fn result(problem: &Problem, rules: &[Code]) -> Value {
    let level = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Notice => "note",
    };
    let suggestion = problem.suggestion.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    let help = problem.help.as_ref().map(|help| format!(". {help}")).unwrap_or_default();
    let text = format!("{}{suggestion}{help}", problem.message);
    let span = problem.place.span;
    json!({
        "ruleId": problem.code,
        "ruleIndex": rules.binary_search(&problem.code).unwrap_or_default(),
        "level": level,
        "message": { "text": text },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(&problem.place.file) },
            "region": {
                "startLine": span.start.line.max(1),
                "startColumn": span.start.column.max(1),
                "endLine": span.end.line.max(1),
                "endColumn": span.end.column.max(1),
            },
        } }],
    })
}

fn uri(path: &Path) -> String {
    let text = path.to_string_lossy();
    let encoded = utf8_percent_encode(text.strip_prefix("./").unwrap_or(&text), PATH);
    if path.is_absolute() { format!("file://{encoded}") } else { encoded.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::problem::Place;
    use std::path::PathBuf;
    use std::sync::Arc;

    /// The part of the SARIF 2.1.0 schema that concerns what is written here.
    fn schema() -> Value {
        let positive = json!({ "type": "integer", "minimum": 1 });
        let region = json!({ "type": "object", "required": ["startLine"], "additionalProperties": false, "properties": {
            "startLine": positive, "startColumn": positive, "endLine": positive, "endColumn": positive,
        }});
        let location = json!({ "required": ["physicalLocation"], "properties": { "physicalLocation": {
            "required": ["artifactLocation"],
            "properties": { "region": region, "artifactLocation": {
                "properties": { "uri": { "type": "string", "format": "uri-reference" } } } },
        }}});
        let result = json!({ "required": ["message", "ruleId", "level"], "properties": {
            "level": { "enum": ["none", "note", "warning", "error"] },
            "message": { "required": ["text"] }, "ruleIndex": { "type": "integer", "minimum": 0 },
            "locations": { "type": "array", "items": location },
        }});
        let rules = json!({ "type": "array", "uniqueItems": true, "items": { "required": ["id"] } });
        let driver = json!({ "required": ["name"], "properties": { "rules": rules } });
        json!({ "required": ["version", "runs"], "properties": { "version": { "const": "2.1.0" }, "runs": {
            "items": { "required": ["tool", "results"], "properties": {
                "tool": { "required": ["driver"], "properties": { "driver": driver } },
                "columnKind": { "enum": ["utf16CodeUnits", "unicodeCodePoints"] },
                "results": { "type": "array", "items": result },
            } } } } })
    }

    #[test]
    fn the_shape_is_that_of_the_standard() {
        let place = |name: &str| Place::file(Arc::new(PathBuf::from(name)));
        let problems = vec![
            Problem::error(Code::Syntax, place("./a b.yaml"), "x").suggestion(Some("y".to_owned())),
            Problem::notice(Code::NotYetRun, place("/c.yaml"), "z").help("Wait."),
        ];
        let sarif = Report { files: 2, problems, ..Report::default() }.sarif();
        let faults: Vec<String> = jsonschema::validator_for(&schema())
            .expect("a schema")
            .iter_errors(&sarif)
            .map(|error| error.to_string())
            .collect();
        assert_eq!(faults, [""; 0]);
        let result = |place: usize| &sarif["runs"][0]["results"][place];
        assert_eq!(result(0)["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "a%20b.yaml");
        assert_eq!(result(1)["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "file:///c.yaml");
        assert_eq!(sarif["runs"][0]["tool"]["driver"]["rules"][1]["id"], result(1)["ruleId"]);
    }
}
