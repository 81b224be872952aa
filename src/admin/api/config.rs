//! `/api/config` and `/api/reload`: what is in force, and what is wrong with what is not.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::query::Asked;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts, Reloaded};
use crate::definition::bound::LeftOut;
use crate::definition::catalogue;
use crate::definition::history::Version;
use crate::definition::live::{FileState, FileStatus};
use crate::definition::plan::gateway::Mode;
use crate::definition::problem::Problem;
use crate::definition::render::{ProblemShown, Report, left_out, problem_shown};
use crate::respond::Refusal;
use crate::store::model::AuditEntry;

/// What is in force.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Configuration)]
pub struct Shown {
    /// The number of the generation, from one.
    pub generation: u64,
    /// Since when.
    #[schema(format = DateTime)]
    pub since: String,
    /// Stands for the content of all files.
    pub fingerprint: String,
    /// `development` or `production`.
    pub mode: &'static str,
    /// How many integrations there are.
    pub integrations: usize,
    /// The newest generations, with what each changed.
    pub generations: Vec<crate::definition::history::Came>,
    /// Since when the files cannot be read because whatever they are on does not answer.
    #[schema(format = DateTime)]
    pub stalled_since: Option<String>,
    /// Every file; the gateway file comes first.
    pub files: Vec<FileShown>,
}

/// A file, and whether it counts.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ConfigurationFile)]
pub struct FileShown {
    /// Its path.
    pub file: String,
    /// The integration that it defines, where that is known.
    pub integration: Option<Arc<str>>,
    /// Whether it counts.
    pub state: FileState,
    /// What was found in it.
    pub problems: Vec<ProblemShown>,
    /// How much more was found, beyond `limits.listed_faults`: `trunkline check` shows all.
    pub left_out: LeftOut,
    /// The same for people, with excerpts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

/// What is in force after the files were read.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReadAgain {
    /// What is in force.
    #[serde(flatten)]
    pub shown: Shown,
    /// `applied`, `unchanged`, `rejected` (at least one file has errors) or `stalled` (they were not read in time).
    pub result: &'static str,
}

/// What is in force.
#[utoipa::path(get, path = "/api/config", tag = "configuration", responses((status = 200, body = Shown)))]
pub async fn show(State(parts): Shared) -> Json<Shown> {
    Json(describe(&parts))
}

/// Reads the files again and answers what is then in force.
#[utoipa::path(post, path = "/api/reload", tag = "configuration", responses((status = 200, body = ReadAgain)))]
pub async fn reload(State(parts): Shared, By(by): By) -> Result<Json<ReadAgain>, Refused> {
    let result = read_again(&parts, &by).await?;
    Ok(Json(ReadAgain { shown: describe(&parts), result }))
}

/// Which file is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OfFile {
    /// The file, as `files` names it.
    pub file: String,
}

/// How a file differs from what it was.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Difference {
    /// The file.
    pub file: String,
    /// Whether its content is refused.
    pub refused: bool,
    /// What is compared.
    pub from: Option<VersionShown>,
    /// With what.
    pub to: Option<VersionShown>,
    /// Lines as a unified diff has them, secrets hidden; null where there is nothing to compare.
    pub lines: Option<Vec<String>>,
}

/// A content of a file.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = FileVersion)]
pub struct VersionShown {
    /// The generation that it came with.
    pub generation: u64,
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
}

/// How the content of a file that is refused differs from what is in force; else how what is in force differs from what
/// was before.
#[utoipa::path(get, path = "/api/config/diff", tag = "configuration", params(OfFile),
    responses((status = 200, body = Difference), (status = 404, description = "not_found")))]
pub async fn diff(State(parts): Shared, Asked(wanted): Asked<OfFile>) -> Result<Json<Difference>, Refused> {
    difference(&parts, &wanted.file).map(Json)
}

/// How the content of a file that is refused differs from what is in force; else how what is in force differs from what
/// was before. Lines as a unified diff has them, secrets hidden; `null` where there is nothing to compare.
///
/// # Errors
/// When there is no such file.
pub fn difference(parts: &Parts, file: &str) -> Result<Difference, Refused> {
    let generation = parts.live.load();
    let status = generation.files.iter().find(|status| status.file.display().to_string() == file);
    let unknown = || Refused::new(Refusal::NotFound, &format!("the deployment has no file `{file}`"));
    let versions = parts.reload.history().file(&status.ok_or_else(unknown)?.file).unwrap_or_default();
    let shown = |version: &Version| VersionShown { generation: version.generation, at: version.at.to_string() };
    let (from, to) = match &versions.refused {
        Some(refused) => (versions.in_force.as_ref(), Some(refused)),
        None => (versions.before.as_ref(), versions.in_force.as_ref()),
    };
    let lines = from.zip(to).map(|(from, to)| from.diff(to));
    Ok(Difference {
        file: file.to_owned(),
        refused: versions.refused.is_some(),
        from: from.map(shown),
        to: to.map(shown),
        lines,
    })
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
pub fn describe(parts: &Parts) -> Shown {
    let generation = parts.live.load();
    // Excerpts come from the texts as they were read, and only where there is something to show.
    let faulty = generation.files.iter().any(|file| !file.problems.is_empty());
    let stalled = parts.reload.stalled();
    // Reading the texts would wait for what does not answer.
    let report = if faulty && stalled.is_none() { parts.reload.report() } else { Report::default() };
    Shown {
        generation: generation.number,
        since: generation.since.to_string(),
        fingerprint: generation.fingerprint.to_string(),
        mode: if generation.gateway.fixed.mode == Mode::Development { "development" } else { "production" },
        integrations: generation.integrations.len(),
        generations: parts.reload.history().generations(),
        stalled_since: stalled.map(|since| since.to_string()),
        files: generation.files.iter().map(|file| describe_file(file, &report)).collect(),
    }
}

/// A file, with all that was found in it: of one that extends an entry of the catalogue also what stands in the entry.
fn describe_file(file: &FileStatus, report: &Report) -> FileShown {
    let own = |problem: &&Problem| problem.place.file == file.file || catalogue::is_entry(&problem.place.file);
    // Nothing is excerpted where no texts were read.
    let found: Vec<_> = file.problems.iter().filter(own).filter(|_| !report.problems.is_empty()).cloned().collect();
    let text = || {
        let named: HashSet<_> = found.iter().map(|problem| &problem.place.file).collect();
        let texts = named.iter().filter_map(|file| report.texts.get_key_value(*file));
        let texts = texts.map(|(file, text)| (Arc::clone(file), Arc::clone(text))).collect();
        let hidden = report.hidden.iter().filter(|place| named.contains(&place.file)).cloned().collect();
        let text = Report { files: 1, problems: found.clone(), texts, hidden }.text(false);
        text + &left_out(file.left_out).map(|more| more + "\n").unwrap_or_default()
    };
    FileShown {
        file: file.file.display().to_string(),
        integration: file.integration.clone(),
        state: file.state,
        problems: file.problems.iter().map(problem_shown).collect(),
        left_out: file.left_out,
        report: (!found.is_empty()).then(text),
    }
}
