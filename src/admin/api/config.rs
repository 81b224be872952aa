//! `/api/config` and `/api/reload`: what is in force, and what is wrong with what is not.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts, Reloaded};
use crate::definition::live::FileStatus;
use crate::definition::plan::gateway::Mode;
use crate::definition::render::{Report, problem_json};
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
