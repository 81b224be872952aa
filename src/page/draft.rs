//! Connecting an account: by a link that a person consents through, or by what they enter here.
//!
//! What is entered is tried before it is kept, and nothing secret of it is ever shown again.

use std::sync::Arc;

use axum::extract::{Form, State};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::shell::Shell;
use crate::admin::api::accounts::{self, Draft, Entered};
use crate::admin::api::connect_links::{self, NewLink};
use crate::admin::api::integrations as loaded;
use crate::admin::api::query::Named;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::definition::plan::Prompts;
use crate::respond::Refusal;

type Shared = State<Arc<Parts>>;

/// The form.
pub async fn show(State(parts): Shared, shell: Shell, Named(id): Named<String>) -> Result<Response, Refused> {
    form(&parts, &shell, &id, json!({})).await
}

async fn form(parts: &Parts, shell: &Shell, id: &str, more: Value) -> Result<Response, Refused> {
    let integration = loaded::one(parts, id)?;
    let title = format!("Connect {}", integration["title"].as_str().unwrap_or(id));
    let prompts = parts.live.load().integration(id).map(|integration| integration.prompts.clone()).unwrap_or_default();
    let mut view = json!({ "integration": integration, "prompts": described(&prompts) });
    if let (Some(view), Value::Object(more)) = (view.as_object_mut(), more) {
        view.extend(more);
    }
    shell.page("connect.html", &title, view).await
}

fn described(prompts: &Prompts) -> Value {
    json!({ "key": prompts.key, "username": prompts.username, "password": prompts.password, "help": prompts.help })
}

/// Makes a link, tries what was entered, or keeps it.
pub async fn send(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    let filled = Filled(fields);
    let connection = filled.get("connection").map(str::to_owned);
    match filled.get("do").unwrap_or_default() {
        "link" => {
            let new = NewLink { integration: id.clone(), connection, ..NewLink::default() };
            let made = connect_links::link(&parts, &by, new).await?;
            shell
                .page(
                    "link.html",
                    "The connect link",
                    json!({ "made": made, "integration": loaded::one(&parts, &id)? }),
                )
                .await
        }
        "test" => {
            let draft = filled.draft(&parts, &id)?;
            let tried = accounts::try_draft(&parts, &by, draft).await?;
            form(&parts, &shell, &id, json!({ "filled": filled.shown(&parts, &id)?, "tried": tried })).await
        }
        _ => match accounts::keep(&parts, &by, filled.draft(&parts, &id)?).await {
            Ok(kept) => Ok(shell.done(&format!("/connections/{}", kept.id), "kept")),
            Err(refused) => {
                let problem = refused.document();
                let tried = json!({ "ok": false, "kept": false, "diagnosis": {
                    "cause": problem["code"], "detail": problem["detail"], "step": problem["help"],
                } });
                form(&parts, &shell, &id, json!({ "filled": filled.shown(&parts, &id)?, "tried": tried })).await
            }
        },
    }
}

/// How a link ended, or where it stands.
pub async fn outcome(State(parts): Shared, shell: Shell, Named(result): Named<String>) -> Result<Response, Refused> {
    let shown = connect_links::outcome(&parts, &result).await?;
    shell.page("outcome.html", "How the connect link ended", json!({ "shown": shown })).await
}

/// A form as it was filled in.
struct Filled(Vec<(String, String)>);

impl Filled {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty())
    }

    fn inputs(&self) -> impl Iterator<Item = (&str, &str)> {
        let inputs = self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("input.")?, value.trim())));
        inputs.filter(|(_, value)| !value.is_empty())
    }

    /// What was entered, as the API takes it.
    fn draft(&self, parts: &Parts, id: &str) -> Result<Draft, Refused> {
        let integration = loaded::one(parts, id)?;
        let text = |name| self.get(name).unwrap_or_default().to_owned();
        let credential = match integration["auth"].as_str() {
            Some("api_key") => Entered::ApiKey(text("api_key")),
            Some("basic") => Entered::Basic { username: text("username"), password: text("password") },
            Some("none") => Entered::None,
            _ => return Err(Refused::new(Refusal::Conflict, "connections of this integration are not made by a form")),
        };
        Ok(Draft {
            integration: id.to_owned(),
            connection: self.get("connection").map(str::to_owned),
            inputs: self.inputs().map(|(name, value)| (name.to_owned(), Value::from(value))).collect(),
            credential,
            untested: self.get("untested").is_some(),
        })
    }

    /// What of it may be shown again.
    fn shown(&self, parts: &Parts, id: &str) -> Result<Value, Refused> {
        let integration = loaded::one(parts, id)?;
        let secret = |name: &str| {
            let inputs = integration["inputs"].as_array();
            inputs.is_some_and(|inputs| inputs.iter().any(|input| input["name"] == name && input["secret"] == true))
        };
        let inputs = self.inputs().filter(|(name, _)| !secret(name));
        let inputs: Map<String, Value> = inputs.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        Ok(json!({ "connection": self.get("connection"), "inputs": inputs }))
    }
}
