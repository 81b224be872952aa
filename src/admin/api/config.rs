//! `/api/config` and `/api/reload`: what is in force, and what is wrong with what is not.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::query::Asked;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts, Reloaded};
use crate::definition::history::Version;
use crate::definition::live::FileStatus;
use crate::definition::plan::gateway::Mode;
use crate::definition::render::{Report, problem_json};
use crate::respond::Refusal;
use crate::store::model::AuditEntry;

/// What is in force.
pub async fn show(State(parts): Shared) -> Json<Value> {
    Json(describe(&parts))
}

/// Reads the files again and answers what is then in force.
pub async fn reload(State(parts): Shared, By(by): By) -> Result<Json<Value>, Refused> {
    let result = read_again(&parts, &by).await?;
    let mut shown = describe(&parts);
    if let Some(map) = shown.as_object_mut() {
        map.insert("result".to_owned(), Value::from(result));
    }
    Ok(Json(shown))
}

/// Which file is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfFile {
    /// The file, as `files` names it.
    pub file: String,
}

/// How a file differs from what it was.
pub async fn diff(State(parts): Shared, Asked(wanted): Asked<OfFile>) -> Result<Json<Value>, Refused> {
    difference(&parts, &wanted.file).map(Json)
}

/// How the content of a file that is refused differs from what is in force; else how what is in force differs from what
/// was before. Lines as a unified diff has them, secrets hidden; `null` where there is nothing to compare.
///
/// # Errors
/// When there is no such file.
pub fn difference(parts: &Parts, file: &str) -> Result<Value, Refused> {
    let generation = parts.live.load();
    let status = generation.files.iter().find(|status| status.file.display().to_string() == file);
    let unknown = || Refused::new(Refusal::NotFound, &format!("the deployment has no file `{file}`"));
    let versions = parts.reload.history().file(&status.ok_or_else(unknown)?.file).unwrap_or_default();
    let shown = |version: &Version| json!({ "generation": version.generation, "at": version.at.to_string() });
    let (from, to) = match &versions.refused {
        Some(refused) => (versions.in_force.as_ref(), Some(refused)),
        None => (versions.before.as_ref(), versions.in_force.as_ref()),
    };
    let lines = from.zip(to).map(|(from, to)| {
        let diff = similar::TextDiff::from_lines(&*from.text, &*to.text);
        diff.unified_diff().context_radius(3).to_string()
    });
    Ok(json!({
        "file": file,
        "refused": versions.refused.is_some(),
        "from": from.map(shown),
        "to": to.map(shown),
        "lines": lines.map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()),
    }))
}

/// Reads the files again, and says in a word what came of it.
pub async fn read_again(parts: &Parts, by: &str) -> Result<&'static str, Refused> {
    parts.store.append(entry(parts, by, "config.reload", "config".to_owned(), Value::Null)).await?;
    Ok(match parts.reload.reload().await {
        Reloaded::Applied => "applied",
        Reloaded::Unchanged => "unchanged",
        Reloaded::Rejected => "rejected",
        Reloaded::Stalled => "stalled",
    })
}

/// An entry for what someone asked for at this door.
pub fn entry(parts: &Parts, by: &str, action: &str, target: String, detail: Value) -> AuditEntry {
    let at = parts.clock.now();
    AuditEntry { at, actor: by.to_owned(), action: action.to_owned(), target, detail }
}

/// What is in force.
pub fn describe(parts: &Parts) -> Value {
    let generation = parts.live.load();
    // Excerpts come from the texts as they were read, and only where there is something to show.
    let faulty = generation.files.iter().any(|file| !file.problems.is_empty());
    let stalled = parts.reload.stalled();
    // Reading the texts would wait for what does not answer.
    let report = if faulty && stalled.is_none() { parts.reload.report() } else { Report::default() };
    let files: Vec<_> = generation.files.iter().map(|file| describe_file(file, &report)).collect();
    json!({
        "generation": generation.number,
        "since": generation.since.to_string(),
        "fingerprint": generation.fingerprint.to_string(),
        "mode": if generation.gateway.fixed.mode == Mode::Development { "development" } else { "production" },
        "integrations": generation.integrations.len(),
        "generations": parts.reload.history().generations(),
        "stalled_since": stalled.map(|since| since.to_string()),
        "files": files,
    })
}

fn describe_file(file: &FileStatus, report: &Report) -> Value {
    let mut shown = json!({
        "file": file.file.display().to_string(),
        "integration": file.integration,
        "state": file.state,
        "problems": file.problems.iter().map(problem_json).collect::<Vec<_>>(),
    });
    let problems: Vec<_> = report.problems.iter().filter(|problem| problem.place.file == file.file).cloned().collect();
    if !problems.is_empty()
        && let Some(map) = shown.as_object_mut()
    {
        let of_file = Report { files: 1, problems, texts: report.texts.clone(), hidden: report.hidden.clone() };
        map.insert("report".to_owned(), Value::from(of_file.text(false)));
    }
    shown
}
