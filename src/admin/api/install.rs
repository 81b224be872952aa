//! `/api/integrations/{id}/install`: what it takes to install an entry of the catalogue, and doing it: a file that
//! extends the entry, written where the deployment has its files, or shown to be committed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::Shared;
use super::config::{entry as audit_entry, read_again};
use super::query::Named;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::definition::catalogue::{self, Listing};
use crate::definition::not_yet;
use crate::definition::plan::gateway::KeySource;
use crate::respond::Refusal;

/// What it takes to install an entry of the catalogue.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Installation {
    /// The file that installs it.
    pub file: FileToWrite,
    /// Why the gateway does not write it itself, where it does not.
    pub why_not: Option<&'static str>,
    /// What people have to see to.
    pub needs: Vec<Need>,
}

/// A file that is written, or committed by people.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FileToWrite {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What people have to see to.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Need {
    /// What it is.
    pub what: &'static str,
    /// The environment variable that has it, where one has.
    pub variable: Option<String>,
    /// What is copied: the variable's name, or what is entered at the service.
    pub text: Option<String>,
    /// Whether the gateway has it; null where it cannot know.
    pub set: Option<bool>,
}

/// An entry that was installed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Installed {
    /// Where its file is.
    pub file: String,
    /// What came of reading the files again: `applied`, `unchanged`, `rejected` or `stalled`.
    pub result: &'static str,
    /// What people have to see to.
    pub needs: Vec<Need>,
}

/// What it takes to install an entry of the catalogue.
#[utoipa::path(get, path = "/api/integrations/{id}/install", tag = "install",
    params(("id" = String, Path, description = "The entry of the catalogue")),
    responses((status = 200, body = Installation), (status = 404, description = "not_found")))]
pub async fn show(State(parts): Shared, Named(id): Named<String>) -> Result<Json<Installation>, Refused> {
    plan(&parts, &id).map(Json)
}

/// Writes the file, and puts it into force.
#[utoipa::path(post, path = "/api/integrations/{id}/install", tag = "install",
    params(("id" = String, Path, description = "The entry of the catalogue")),
    responses((status = 201, body = Installed), (status = 404, description = "not_found"),
        (status = 409, description = "conflict")))]
pub async fn write(State(parts): Shared, By(by): By, Named(id): Named<String>) -> Result<impl IntoResponse, Refused> {
    let written = install(&parts, &by, &id).await?;
    Ok((StatusCode::CREATED, Json(written)))
}

/// Writes the file of an entry, and puts it into force. Returns where it is and what came of it.
///
/// # Errors
/// When there is no such entry, it is installed already, or the file cannot be written.
pub async fn install(parts: &Arc<Parts>, by: &str, id: &str) -> Result<Installed, Refused> {
    let plan = plan(parts, id)?;
    let taken = parts.live.load().integration(id).is_some();
    if taken {
        return Err(Refused::new(Refusal::Conflict, &format!("`{id}` is installed already")));
    }
    let FileToWrite { name, text } = plan.file;
    let detail = json!({ "file": name });
    parts.store.append(audit_entry(parts, by, "definition.add", format!("integration:{id}"), detail)).await?;
    let reload = Arc::clone(&parts.reload);
    let written = tokio::task::spawn_blocking(move || reload.add_file(&name, &text)).await;
    let unwritten = |error: &dyn std::fmt::Display| {
        let help =
            "put the file there yourself, or commit it where the deployment comes from: `GET` this path shows it";
        Refused::with_help(Refusal::Conflict, &format!("the file could not be written: {error}"), help)
    };
    let path = written.map_err(|error| unwritten(&error))?.map_err(|error| unwritten(&error))?;
    let result = read_again(parts, by).await?;
    Ok(Installed { file: path.display().to_string(), result, needs: plan.needs })
}

/// What it takes to install an entry.
///
/// # Errors
/// When there is no such entry.
pub fn plan(parts: &Parts, id: &str) -> Result<Installation, Refused> {
    let unknown = || Refused::new(Refusal::NotFound, &format!("the catalogue has no `{id}`"));
    let document = catalogue::entry(id).ok_or_else(unknown)?.document();
    let listing = Listing::of(&document);
    let generation = parts.live.load();
    let public_url = generation.gateway.public_url.as_str().trim_end_matches('/');
    let mut needs = Vec::new();
    let mut file = format!("trunkline: 1\nid: {id}\nextends: {id}\n");
    if has_client(&listing) {
        let [client, secret] = ["CLIENT_ID", "CLIENT_SECRET"].map(|what| variable(id, what));
        needs.push(of_variable(parts, &client, "The application's client id at the service"));
        needs.push(of_variable(parts, &secret, "Its secret"));
        file += &lines(
            parts,
            &[&client, &secret],
            &format!(
                "auth:\n  {}:\n    client: {{ id: \"${{env:{client}}}\", secret: \"${{env:{secret}}}\" }}\n",
                listing.auth
            ),
        );
    }
    if matches!(listing.grant, Some("authorization_code")) || listing.auth == "oauth1" {
        needs.push(to_enter("Redirect URL, to enter at the service", format!("{public_url}/api/auth/callback/{id}")));
    }
    if not_yet::first_refusal(&document.value, "/webhook").is_some() {
        let what = "Nothing for its webhooks: this version does not take them yet";
        needs.push(Need { what, variable: None, text: None, set: None });
    } else if !listing.events.is_empty() {
        let secret = variable(id, "WEBHOOK_SECRET");
        needs.push(of_variable(
            parts,
            &secret,
            "The secret that proves webhooks; without one every webhook is refused",
        ));
        needs.push(to_enter("Webhook URL, to enter at the service", format!("{public_url}/webhooks/{id}")));
        file += &lines(parts, &[&secret], &format!("webhook:\n  secrets: [\"${{env:{secret}}}\"]\n"));
    }
    if generation.gateway.fixed.key == KeySource::Missing {
        let what = "A master key (`secrets.key` in trunkline.yaml); without one no credential can be kept";
        needs.push(Need { what, variable: None, text: None, set: Some(false) });
    }
    let read_only = generation.gateway.admin.read_only;
    let why_not = read_only.then_some("This deployment is read-only: commit the file where its files come from.");
    Ok(Installation { file: FileToWrite { name: format!("{id}.yaml"), text: file }, why_not, needs })
}

/// Whether connections need an application that is registered at the service.
fn has_client(listing: &Listing<'_>) -> bool {
    match listing.auth {
        "oauth1" => true,
        "oauth2" => listing.grant.is_none_or(|grant| !matches!(grant, "jwt_bearer" | "token_exchange")),
        _ => false,
    }
}

/// The name of the variable that the file of an entry takes something from.
pub fn variable(id: &str, what: &str) -> String {
    format!("{}_{what}", id.to_uppercase().replace('-', "_"))
}

fn of_variable(parts: &Parts, name: &str, what: &'static str) -> Need {
    let set = parts.reload.has_variable(name);
    Need { what, variable: Some(name.to_owned()), text: Some(name.to_owned()), set: Some(set) }
}

fn to_enter(what: &'static str, text: String) -> Need {
    Need { what, variable: None, text: Some(text), set: None }
}

/// Lines of the file, as a comment while a variable that they name has no value: with it, the file would be refused.
fn lines(parts: &Parts, variables: &[&String], text: &str) -> String {
    if variables.iter().all(|name| parts.reload.has_variable(name)) {
        return text.to_owned();
    }
    let commented = text.lines().fold(String::new(), |text, line| text + "# " + line + "\n");
    format!("# Once the variables are set:\n{commented}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_after_the_entry() {
        assert_eq!(variable("google-drive", "CLIENT_ID"), "GOOGLE_DRIVE_CLIENT_ID");
    }
}
