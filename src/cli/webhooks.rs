//! `trunkline webhooks`: the webhook endpoints of a running gateway's connections.

use bytes::Bytes;
use clap::{Args, Subcommand};
use http::{Request, header};
use serde_json::{Map, Value, json};

use super::connections::pair;
use super::output::Output;
use super::remote::{self, Answer, Gateway, Remote};
use super::{Common, Ended};
use crate::base::id::ConnectionId;

/// What to do with webhook endpoints.
#[derive(Debug, Subcommand)]
pub enum Webhooks {
    /// List them, with what came to each; never their secrets
    List(List),
    /// Show one
    Show(Named),
    /// Make one for a connection, and have the service send events to it where the definition says how: prints its
    /// address and its secret, which is not shown again
    Create(Create),
    /// Give it another secret; the one before counts for a while
    Rotate(Rotate),
    /// Show its secret once more: the audit log says who did
    Reveal(Named),
    /// Work on what arrives, and on what arrived while it was disabled
    Enable(Named),
    /// Keep what arrives and do not work on it
    Disable(Named),
    /// Delete it, and have the service told where the definition says how
    Delete(Named),
    /// Send a sample event through the public door, signed as the definition says
    Test(Test),
}

/// Which endpoints.
#[derive(Debug, Args)]
pub struct List {
    /// Only this integration's
    #[arg(long, value_name = "ID")]
    integration: Option<String>,
    #[command(flatten)]
    gateway: Gateway,
}

/// One endpoint of a running gateway.
#[derive(Debug, Args)]
pub struct Named {
    /// Its id, as `webhooks list` shows it
    #[arg(value_name = "WEBHOOK")]
    id: String,
    #[command(flatten)]
    gateway: Gateway,
}

/// An endpoint that is wanted.
#[derive(Debug, Args)]
pub struct Create {
    /// INTEGRATION/NAME of the connection
    #[arg(value_name = "CONNECTION")]
    connection: String,
    /// An event type that it takes, `*` standing for any text; repeat it for several [default: all]
    #[arg(long = "event", value_name = "TYPE")]
    events: Vec<String>,
    /// What the definition's `register` sees as `input`; repeat it for several
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = pair)]
    inputs: Vec<(String, String)>,
    /// The secret that the service signs with, where it has one already; better given in the environment
    #[arg(long, env = "TRUNKLINE_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Do not tell the service: it is set up there by hand
    #[arg(long)]
    by_hand: bool,
    #[command(flatten)]
    gateway: Gateway,
}

/// How a secret is replaced.
#[derive(Debug, Args)]
pub struct Rotate {
    #[command(flatten)]
    named: Named,
    /// The new secret, where the service makes it; better given in the environment
    #[arg(long, env = "TRUNKLINE_WEBHOOK_SECRET", value_name = "SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// How long the one before counts
    #[arg(long, value_name = "TIME", default_value = "24h")]
    overlap: String,
}

/// What sample is sent.
#[derive(Debug, Args)]
pub struct Test {
    #[command(flatten)]
    named: Named,
    /// Its type [default: the first that the endpoint takes]
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
}

/// Runs the command.
pub fn run(common: &Common, command: &Webhooks, output: &mut Output) -> anyhow::Result<Ended> {
    match command {
        Webhooks::List(arguments) => list(common, arguments, output),
        Webhooks::Show(named) => shown(&asked(common, named, ("GET", ""), None)?, output),
        Webhooks::Create(arguments) => create(common, arguments, output),
        Webhooks::Rotate(arguments) => {
            let body = json!({ "secret": arguments.secret, "overlap": arguments.overlap });
            shown(&asked(common, &arguments.named, ("POST", "/rotate"), Some(&body))?, output)
        }
        Webhooks::Reveal(named) => shown(&asked(common, named, ("POST", "/reveal"), None)?, output),
        Webhooks::Enable(named) => {
            shown(&asked(common, named, ("PATCH", ""), Some(&json!({ "enabled": true })))?, output)
        }
        Webhooks::Disable(named) => {
            shown(&asked(common, named, ("PATCH", ""), Some(&json!({ "enabled": false })))?, output)
        }
        Webhooks::Delete(named) => deleted(&asked(common, named, ("DELETE", ""), None)?, output),
        Webhooks::Test(arguments) => {
            let body = json!({ "event": arguments.event });
            tested(&asked(common, &arguments.named, ("POST", "/test"), Some(&body))?, output)
        }
    }
}

/// The answer about one endpoint.
fn asked(
    common: &Common,
    named: &Named,
    (method, action): (&str, &str),
    body: Option<&Value>,
) -> anyhow::Result<Answer> {
    let remote = Remote::find(common, &named.gateway)?;
    // What is no id is refused there; here it only must not leave its place in the path.
    let id: String = url::form_urlencoded::byte_serialize(named.id.as_bytes()).collect();
    send(&remote, (method, &format!("/api/webhooks/{id}{action}")), body)
}

fn send(remote: &Remote, (method, path): (&str, &str), body: Option<&Value>) -> anyhow::Result<Answer> {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    remote::block_on(remote.send(request, body))?
}

fn list(common: &Common, arguments: &List, output: &mut Output) -> anyhow::Result<Ended> {
    let query = arguments.integration.as_ref().map(|id| {
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        format!("?integration={id}")
    });
    let path = format!("/api/webhooks{}", query.unwrap_or_default());
    let answer = send(&Remote::find(common, &arguments.gateway)?, ("GET", &path), None)?;
    let Some(list) = answered(&answer, output)? else { return Ok(Ended::No) };
    if output.json {
        return Ok(Ended::Done);
    }
    let row = |row: &Value| {
        let rate = row["successRate"].as_f64().map(|rate| format!("{:.1} %", rate * 100.0));
        let connection = format!("{}/{}", text(&row["integration"]), text(&row["connection"]));
        let state = if row["enabled"] == true { "enabled" } else { "disabled" }.to_owned();
        let subscription = text(&row["subscription"]["state"]);
        let came = row["deliveriesLast24h"].to_string();
        vec![
            text(&row["id"]),
            connection,
            state,
            subscription,
            came,
            rate.unwrap_or_default(),
            text(&row["lastDelivery"]),
        ]
    };
    let rows: Vec<_> = list.as_array().into_iter().flatten().map(row).collect();
    output.table(&["WEBHOOK", "CONNECTION", "STATE", "AT THE SERVICE", "24 H", "TAKEN", "LAST"], &rows)?;
    Ok(Ended::Done)
}

fn create(common: &Common, arguments: &Create, output: &mut Output) -> anyhow::Result<Ended> {
    let Some((integration, connection)) = arguments.connection.split_once('/') else {
        anyhow::bail!("`{}` is not INTEGRATION/NAME", arguments.connection);
    };
    let input: Map<String, Value> =
        arguments.inputs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let mut body = json!({ "eventTypes": arguments.events, "input": input, "secret": arguments.secret });
    if arguments.by_hand {
        body["register"] = Value::Bool(false);
    }
    let path = format!("/api/integrations/{}/webhooks", ConnectionId::of(integration, connection));
    shown(&send(&Remote::find(common, &arguments.gateway)?, ("POST", &path), Some(&body))?, output)
}

/// An endpoint, a line for each thing that is known of it.
fn shown(answer: &Answer, output: &mut Output) -> anyhow::Result<Ended> {
    let Some(shown) = answered(answer, output)? else { return Ok(Ended::No) };
    if output.json {
        return Ok(Ended::Done);
    }
    for name in ["id", "integration", "connection", "url", "secret", "formerSecretsUntil", "enabled", "createdAt"] {
        line(output, name, &shown[name])?;
    }
    let types: Vec<_> = shown["eventTypes"].as_array().into_iter().flatten().map(text).collect();
    line(output, "eventTypes", &Value::from(if types.is_empty() { "all".to_owned() } else { types.join(", ") }))?;
    for name in ["deliveriesLast24h", "successRate", "lastDelivery"] {
        line(output, name, &shown[name])?;
    }
    for (name, value) in shown["subscription"].as_object().into_iter().flatten() {
        line(output, &format!("subscription.{name}"), value)?;
    }
    Ok(Ended::Done)
}

fn deleted(answer: &Answer, output: &mut Output) -> anyhow::Result<Ended> {
    let Some(deleted) = answered(answer, output)? else { return Ok(Ended::No) };
    if !output.json {
        let told = deleted["subscription"].is_object();
        output.line(if told { "deleted; the service is being told" } else { "deleted" })?;
    }
    Ok(Ended::Done)
}

fn tested(answer: &Answer, output: &mut Output) -> anyhow::Result<Ended> {
    let Some(tested) = answered(answer, output)? else { return Ok(Ended::No) };
    let ended = if tested["accepted"] == true { Ended::Done } else { Ended::No };
    if !output.json {
        let (event, status, took) = (text(&tested["eventType"]), &tested["status"], &tested["tookMs"]);
        output.line(format_args!("{event}: the public door answered {status} in {took} ms"))?;
        output.line(format_args!("  {}", tested["answer"]))?;
    }
    Ok(ended)
}

/// What was answered, printed where JSON is wanted; `None` after a refusal, which is told.
fn answered(answer: &Answer, output: &mut Output) -> anyhow::Result<Option<Value>> {
    if !answer.status.is_success() {
        output.note(answer.refusal());
        return Ok(None);
    }
    let value = answer.json()?;
    if output.json {
        output.value(&value)?;
    }
    Ok(Some(value))
}

fn line(output: &mut Output, name: &str, value: &Value) -> anyhow::Result<()> {
    if !value.is_null() {
        output.line(format_args!("{name}: {}", text(value)))?;
    }
    Ok(())
}

/// A value without the quotes of JSON; nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
