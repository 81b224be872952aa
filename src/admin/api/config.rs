//! `/api/config` and `/api/reload`: what is in force, and what is wrong with what is not.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::Shared;
use crate::admin::refusal::Refused;
use crate::admin::{Parts, Reloaded};
use crate::definition::live::{FileStatus, Generation};
use crate::definition::plan::gateway::Mode;
use crate::definition::render::{Report, Texts, problem_json};
use crate::store::model::AuditEntry;

/// The most bytes of a file that excerpts are taken from; larger ones are refused when they are loaded.
const MAX_FILE: u64 = 1 << 20;

/// What is in force.
pub async fn show(State(parts): Shared) -> Json<Value> {
    Json(describe(&parts.live.load()).await)
}

/// Reads the files again and answers what is then in force.
pub async fn reload(State(parts): Shared) -> Result<Json<Value>, Refused> {
    parts.store.append(operator(&parts, "config.reload", "config".to_owned(), Value::Null)).await?;
    let result = match parts.reload.reload().await {
        Reloaded::Applied => "applied",
        Reloaded::Unchanged => "unchanged",
        Reloaded::Rejected => "rejected",
    };
    let mut shown = describe(&parts.live.load()).await;
    if let Some(map) = shown.as_object_mut() {
        map.insert("result".to_owned(), Value::from(result));
    }
    Ok(Json(shown))
}

/// An entry for what the operator asked for at this door.
pub fn operator(parts: &Parts, action: &str, target: String, detail: Value) -> AuditEntry {
    let at = parts.clock.now();
    AuditEntry { at, actor: "operator".to_owned(), action: action.to_owned(), target, detail }
}

async fn describe(generation: &Generation) -> Value {
    let mut files = Vec::with_capacity(generation.files.len());
    for file in &generation.files {
        files.push(describe_file(file).await);
    }
    json!({
        "generation": generation.number,
        "since": generation.since.to_string(),
        "fingerprint": generation.fingerprint.to_string(),
        "mode": if generation.gateway.fixed.mode == Mode::Development { "development" } else { "production" },
        "integrations": generation.integrations.len(),
        "files": files,
    })
}

async fn describe_file(file: &FileStatus) -> Value {
    let mut shown = json!({
        "file": file.file.display().to_string(),
        "integration": file.integration,
        "state": file.state,
        "problems": file.problems.iter().map(problem_json).collect::<Vec<_>>(),
    });
    if !file.problems.is_empty()
        && let Some(map) = shown.as_object_mut()
    {
        let texts = read_texts(file).await;
        let report = Report { files: 1, problems: file.problems.to_vec(), texts, ..Report::default() };
        map.insert("report".to_owned(), Value::from(report.text(false)));
    }
    shown
}

/// The texts of the files that the problems are in, as they are now.
async fn read_texts(file: &FileStatus) -> Texts {
    let mut texts: Texts = HashMap::new();
    for problem in file.problems.iter() {
        let path = &problem.place.file;
        if !texts.contains_key(path)
            && let Some(text) = read_text(path).await
        {
            texts.insert(Arc::clone(path), text);
        }
    }
    texts
}

async fn read_text(path: &PathBuf) -> Option<Arc<str>> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.ok()?;
    file.take(MAX_FILE).read_to_string(&mut text).await.ok()?;
    Some(Arc::from(text))
}
