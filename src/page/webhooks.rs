//! Webhook endpoints: what comes to each, making and deleting them, their secrets, and trying them out.

use std::sync::Arc;

use axum::extract::{Form, State};
use axum::response::Response;
use minijinja::value::Value as Shown;
use serde_json::{Map, Value, json};

use super::activity::integrations;
use super::render;
use super::shell::Shell;
use crate::admin::api::connections::{self, rows};
use crate::admin::api::query::{Asked, Named, ROWS};
use crate::admin::api::webhooks::{self as api, Changes, Listed, New, Rotate, Shown as Webhook, Test};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::{ConnectionId, WebhookId};
use crate::respond::Refusal;
use crate::webhook::managed::ManagedError;
use crate::webhook::refused;

type Shared = State<Arc<Parts>>;
type Fields = Form<Vec<(String, String)>>;

/// The endpoints that fit the filters.
pub async fn list(State(parts): Shared, shell: Shell, Asked(listed): Asked<Listed>) -> Result<Response, Refused> {
    let page = api::page(&parts, &Listed { limit: listed.limit.or(Some(ROWS)), ..listed })?;
    let view = json!({ "rows": page.rows, "next": page.next, "all": page.all, "integrations": integrations(&parts) });
    shell.page("webhooks.html", "Webhooks", view).await
}

/// One endpoint.
pub async fn show(State(parts): Shared, shell: Shell, Named(id): Named<WebhookId>) -> Result<Response, Refused> {
    detail(&parts, &shell, id, None).await
}

/// An endpoint, with its newest test event, and with why the one that was just wanted was not sent.
async fn detail(parts: &Parts, shell: &Shell, id: WebhookId, unsent: Option<Value>) -> Result<Response, Refused> {
    let webhook = api::one(parts, id)?;
    let (title, events) = (titled(&webhook), declared(parts, &webhook));
    let endpoint = parts.webhooks.endpoints().get(id).map_err(ManagedError::from)?;
    // Where the definition lists none that the endpoint takes, a test event has no type unless it is named.
    let usual = events.iter().find(|event| endpoint.takes(event));
    let tried = parts.tried.of(id).map(|(at, sent)| json!({ "at": at.to_string(), "sent": sent }));
    let refused = refusals(parts, &webhook.integration, |one| one.webhook == Some(id));
    let view = json!({ "webhook": webhook, "events": events, "usual": usual, "tried": tried, "unsent": unsent,
        "refusals": refused });
    shell.page("webhook.html", &title, view).await
}

/// The newest webhooks that were refused for an integration, of those that are wanted.
pub fn refusals(parts: &Parts, integration: &str, wanted: impl Fn(&refused::Refused) -> bool) -> Vec<Value> {
    let shown = |one: &refused::Refused| {
        json!({ "at": one.at.to_string(), "reason": one.reason, "detail": one.detail, "step": step(one.reason),
            "webhook": one.webhook.map(|id| id.to_string()) })
    };
    parts.refused.latest(Some(integration)).iter().filter(|one| wanted(one)).take(10).map(shown).collect()
}

/// What someone can do about a webhook that was refused for this reason.
fn step(reason: &str) -> &'static str {
    match reason {
        "not_yet_run" => "There is nothing to set: this version does not take these webhooks yet.",
        "secret_missing" => "Give the gateway the secret that the service shows for this webhook.",
        "mismatch" => {
            "Compare the secret with the service's. Where they are the same, something on the way changes what is \
             signed; or the sender is someone else."
        }
        "timestamp_stale" => {
            "Compare the gateway's clock with the service's. What is sent again long after it was signed is refused \
             as well."
        }
        _ => {
            "Compare what the service sends with `webhook.verify` of the definition. Who sends none of it may be \
             someone else."
        }
    }
}

/// Sends whoever comes to an address that a form posts to on to the endpoint: a secret or a test event is asked for by
/// its button alone.
pub async fn back(shell: Shell, Named(id): Named<WebhookId>) -> Response {
    render::see_other(&shell.address(&format!("/webhooks/{id}")))
}

fn titled(webhook: &Webhook) -> String {
    format!("Webhook of {} / {}", webhook.integration, webhook.connection)
}

/// The types that the definition lists.
fn declared(parts: &Parts, webhook: &Webhook) -> Vec<String> {
    let generation = parts.live.load();
    let integration = generation.integration(&webhook.integration);
    integration
        .and_then(|integration| integration.webhook.as_ref())
        .map(|webhook| webhook.events.clone())
        .unwrap_or_default()
}

/// Which connection is to have an endpoint.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForWhom {
    connection: Option<String>,
}

/// The form for a new one.
pub async fn draft(State(parts): Shared, shell: Shell, Asked(whom): Asked<ForWhom>) -> Result<Response, Refused> {
    form(&parts, &shell, json!({ "connection": whom.connection }), json!(null)).await
}

async fn form(parts: &Parts, shell: &Shell, filled: Value, problem: Value) -> Result<Response, Refused> {
    let generation = parts.live.load();
    let takes = |row: &connections::Row| {
        let found = generation.integration(&row.integration);
        found.and_then(|integration| integration.webhook.as_ref()).map(|webhook| !webhook.register.is_empty())
    };
    let all = rows(parts, &connections::Wanted::default()).await?;
    let shown = all.iter().filter_map(|row| {
        let told = takes(row)?;
        Some(json!({ "id": row.id, "integration": row.integration, "name": row.name, "told": told }))
    });
    let view = json!({ "connections": shown.collect::<Vec<_>>(), "filled": filled, "problem": problem });
    shell.page("webhook_new.html", "A new webhook endpoint", view).await
}

/// Makes one, and shows its secret.
pub async fn create(State(parts): Shared, By(by): By, shell: Shell, Form(fields): Fields) -> Result<Response, Refused> {
    let get = |name: &str| field(&fields, name);
    let connection = get("connection").unwrap_or_default();
    let id: ConnectionId = connection
        .parse()
        .map_err(|_| Refused::new(Refusal::InvalidInput, "choose the connection whose events are to come here"))?;
    let new = New {
        event_types: words(get("types").unwrap_or_default()),
        input: inputs(get("input").unwrap_or_default()),
        secret: get("secret").map(str::to_owned),
        register: get("by_hand").map(|_| false),
    };
    match api::make(&parts, &by, id, new).await {
        Ok(made) => secret(&shell, "The endpoint was made", made).await,
        Err(refused) => {
            let filled = json!({ "connection": connection, "types": get("types"), "input": get("input") });
            form(&parts, &shell, filled, refused.document()).await
        }
    }
}

async fn secret(shell: &Shell, title: &str, webhook: Webhook) -> Result<Response, Refused> {
    shell.page("webhook_secret.html", title, json!({ "webhook": webhook })).await
}

/// Works on what arrives, and on what has arrived.
pub async fn enable(state: Shared, by: By, shell: Shell, id: Named<WebhookId>) -> Result<Response, Refused> {
    let changes = Changes { enabled: Some(true), event_types: None };
    set(state, by, (shell, id), (changes, "webhook_enabled")).await
}

/// Keeps what arrives.
pub async fn disable(state: Shared, by: By, shell: Shell, id: Named<WebhookId>) -> Result<Response, Refused> {
    let changes = Changes { enabled: Some(false), event_types: None };
    set(state, by, (shell, id), (changes, "webhook_disabled")).await
}

/// Changes the types that are taken.
pub async fn types(
    state: Shared,
    by: By,
    shell: Shell,
    id: Named<WebhookId>,
    Form(fields): Fields,
) -> Result<Response, Refused> {
    let types = words(field(&fields, "types").unwrap_or_default());
    let changes = Changes { enabled: None, event_types: Some(types) };
    set(state, by, (shell, id), (changes, "webhook_types")).await
}

async fn set(
    State(parts): Shared,
    By(by): By,
    (shell, Named(id)): (Shell, Named<WebhookId>),
    (changes, told): (Changes, &str),
) -> Result<Response, Refused> {
    api::set(&parts, &by, id, changes).await?;
    Ok(shell.done(&format!("/webhooks/{id}"), told))
}

/// Gives it another secret, and shows that.
pub async fn rotate(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<WebhookId>,
    Form(fields): Fields,
) -> Result<Response, Refused> {
    let get = |name: &str| field(&fields, name).map(str::to_owned);
    let rotated = api::replace(&parts, &by, id, Rotate { secret: get("secret"), overlap: get("overlap") }).await?;
    secret(&shell, "The secret was replaced", rotated).await
}

/// Shows its secret once more.
pub async fn reveal(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<WebhookId>,
) -> Result<Response, Refused> {
    let shown = api::look(&parts, &by, id).await?;
    secret(&shell, "The secret", shown).await
}

/// Sends a sample event, and shows the endpoint with what became of it. What cannot be sent is told beside the form.
pub async fn test(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<WebhookId>,
    Form(fields): Fields,
) -> Result<Response, Refused> {
    let event = field(&fields, "event").map(str::to_owned);
    match api::try_out(&parts, &by, id, Test { event: event.clone() }).await {
        Ok(_) => Ok(shell.done(&format!("/webhooks/{id}"), "webhook_tested")),
        Err(refused) => {
            let problem = refused.document();
            if problem["code"] != "conflict" {
                return Err(refused);
            }
            detail(&parts, &shell, id, Some(json!({ "event": event, "why": problem["detail"] }))).await
        }
    }
}

/// What deleting it would do.
pub async fn consequences(
    State(parts): Shared,
    shell: Shell,
    Named(id): Named<WebhookId>,
) -> Result<Response, Refused> {
    let webhook = api::one(&parts, id)?;
    let title = format!("Delete the {}", titled(&webhook).replacen("Webhook", "webhook", 1));
    shell.page("webhook_delete.html", &title, json!({ "webhook": webhook })).await
}

/// Deletes it.
pub async fn delete(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<WebhookId>,
) -> Result<Response, Refused> {
    api::remove(&parts, &by, id).await?;
    Ok(shell.done("/webhooks", "webhook_deleted"))
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim());
    found.filter(|value| !value.is_empty())
}

/// What is written with commas or spaces between.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// `name=value`, with commas or lines between.
fn inputs(text: &str) -> Map<String, Value> {
    let pairs = text.split([',', '\n']).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), Value::from(value.trim()))).collect()
}

/// The last 24 hours as bars: what was taken, and on top of it what was refused. The same numbers stand beside it in
/// words.
pub(super) fn sparkline(hours: &Shown) -> Shown {
    let count = |hour: &Shown, place: usize| {
        let count = hour.get_item_by_index(place).ok();
        count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
    };
    let hours: Vec<(u64, u64)> =
        hours.try_iter().into_iter().flatten().map(|hour| (count(&hour, 0), count(&hour, 1))).collect();
    let most = hours.iter().map(|(taken, refused)| taken + refused).max().unwrap_or_default().max(1);
    let high = |count: u64| if count == 0 { 0 } else { (count * 20).div_ceil(most).min(20) };
    let bar = |class: &str, place: usize, (from, to): (u64, u64)| {
        let (x, y, height) = (place * 4, 20 - to, to.saturating_sub(from));
        let shown = format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"3\" height=\"{height}\"/>");
        if height == 0 { String::new() } else { shown }
    };
    let bars = hours.iter().enumerate().map(|(place, (taken, refused))| {
        let (whole, good) = (high(taken + refused), high(*taken));
        bar("refused", place, (good, whole)) + &bar("taken", place, (0, good))
    });
    let bars: String = bars.collect();
    let (taken, refused) = hours.iter().fold((0, 0), |sum, hour| (sum.0 + hour.0, sum.1 + hour.1));
    Shown::from_safe_string(format!(
        "<svg class=\"spark\" viewBox=\"0 0 {} 20\" width=\"{0}\" height=\"20\" role=\"img\" aria-label=\"By hour of the \
         last 24: {taken} taken, {refused} refused\"><line x1=\"0\" y1=\"20\" x2=\"{0}\" y2=\"20\"/>{bars}</svg>",
        hours.len() * 4
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::value::Serde;

    #[test]
    fn bars_are_as_high_as_their_share_and_never_vanish() {
        let shown = sparkline(&Shown::from(Serde(json!([[1000, 0], [0, 1], [500, 500], [0, 0]])))).to_string();
        assert!(shown.contains("x=\"0\" y=\"0\" width=\"3\" height=\"20\""), "{shown}");
        assert!(shown.contains("class=\"refused\" x=\"4\" y=\"19\" width=\"3\" height=\"1\""), "{shown}");
        assert!(shown.contains("class=\"refused\" x=\"8\" y=\"0\" width=\"3\" height=\"10\""), "{shown}");
        assert!(shown.contains("1500 taken, 501 refused") && shown.matches("<rect").count() == 4, "{shown}");
    }

    #[test]
    fn lists_are_read_as_people_write_them() {
        assert_eq!(words("push, issues.opened\npull_request.*"), ["push", "issues.opened", "pull_request.*"]);
        assert_eq!(Value::Object(inputs("owner=acme\nrepo = tools")), json!({ "owner": "acme", "repo": "tools" }));
    }
}
