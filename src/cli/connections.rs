//! `trunkline connections`: which accounts a running gateway has, how they fare, and what to do with them.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::Output;
use super::remote::{self, Answer, Gateway, Remote};
use super::{Common, Ended};

/// What to do with connections.
#[derive(Debug, Subcommand)]
pub enum Connections {
    /// List connections and how they fare; never their credentials
    List(Gateway),
    /// Show one connection, with when its tokens end
    Show(Named),
    /// Refuse its calls until it is resumed
    Pause(Named),
    /// Let it be used again
    Resume(Named),
    /// Renew its default token now
    Refresh(Named),
    /// Make its integration's test request
    Test(Named),
    /// Connect an account: makes a link for a browser, or shows a code for another device and waits
    Connect(Connect),
    /// Remove it, and have the service told
    Remove(Named),
}

/// One connection of a running gateway.
#[derive(Debug, Args)]
pub struct Named {
    /// INTEGRATION/NAME, or an id as `connections list` shows it
    #[arg(value_name = "CONNECTION")]
    connection: String,
    #[command(flatten)]
    gateway: Gateway,
}

/// A link that connects an account.
#[derive(Debug, Args)]
pub struct Connect {
    /// The integration
    pub integration: String,
    /// The connection's name; one that is there is connected anew
    #[arg(long, value_name = "ID", default_value = crate::connection::DEFAULT)]
    pub connection: String,
    /// Where the person goes afterwards: a path, or an address below one of `connect.origins`
    #[arg(long, value_name = "URL")]
    pub return_to: Option<String>,
    /// A scope to ask for in any case; repeat it for several [default: those of the definition]
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// Show a code that is typed on another device, and wait; for integrations of `grant: device_code`. The
    /// gateway goes on waiting when this command is stopped
    #[arg(long, conflicts_with = "return_to")]
    pub device: bool,
    /// With `--device`: an input of the connection; repeat it for several
    #[arg(long = "input", value_name = "NAME=VALUE", requires = "device", value_parser = pair)]
    pub inputs: Vec<(String, String)>,
    #[command(flatten)]
    gateway: Gateway,
}

const LIST: &str = "/api/integrations/connections";

/// Runs the command.
pub fn run(common: &Common, command: &Connections, output: &mut Output) -> anyhow::Result<Ended> {
    match command {
        Connections::List(gateway) => list(&Remote::find(common, gateway)?, output),
        Connections::Show(named) => one(common, named, None, output),
        Connections::Pause(named) => one(common, named, Some("pause"), output),
        Connections::Resume(named) => one(common, named, Some("resume"), output),
        Connections::Refresh(named) => one(common, named, Some("refresh"), output),
        Connections::Test(named) => one(common, named, Some("test"), output),
        Connections::Connect(connect) if connect.device => show_code(common, connect, output),
        Connections::Connect(connect) => make_link(common, connect, output),
        Connections::Remove(named) => remove(common, named, output),
    }
}

fn list(remote: &Remote, output: &mut Output) -> anyhow::Result<Ended> {
    let Some(list) = answered(&remote::block_on(remote.get(LIST))??, output)? else { return Ok(Ended::No) };
    if output.json {
        output.value(&list)?;
        return Ok(Ended::Done);
    }
    let columns = ["integrationId", "name", "origin", "status", "last_success", "id"];
    let row = |row: &Value| columns.map(|name| text(row, name)).to_vec();
    let rows: Vec<_> = list.as_array().into_iter().flatten().map(row).collect();
    output.table(&["INTEGRATION", "CONNECTION", "ORIGIN", "STATUS", "LAST SUCCESS", "ID"], &rows)?;
    Ok(Ended::Done)
}

/// The row of a connection; `None` when there is none, which is told.
fn find(remote: &Remote, named: &Named, output: &mut Output) -> anyhow::Result<Option<Value>> {
    let Some(list) = answered(&remote::block_on(remote.get(LIST))??, output)? else { return Ok(None) };
    let meant = |row: &&Value| {
        text(row, "id") == named.connection
            || named.connection == format!("{}/{}", text(row, "integrationId"), text(row, "name"))
    };
    let found = list.as_array().into_iter().flatten().find(meant).cloned();
    if found.is_none() {
        output.note(format!("there is no connection `{}`: see `trunkline connections list`", named.connection));
    }
    Ok(found)
}

/// Shows a connection, after something was done to it where `action` says what.
fn one(common: &Common, named: &Named, action: Option<&str>, output: &mut Output) -> anyhow::Result<Ended> {
    let remote = Remote::find(common, &named.gateway)?;
    let Some(found) = find(&remote, named, output)? else { return Ok(Ended::No) };
    let path = format!("{LIST}/{}", text(&found, "id"));
    let mut done = true;
    if let Some(action) = action {
        let answer = remote::block_on(remote.post(&format!("{path}/{action}")))??;
        done = answered(&answer, output)?.is_some();
        // What came of a test is shown with the connection.
        if !done && action != "test" {
            return Ok(Ended::No);
        }
    }
    let ended = if done { Ended::Done } else { Ended::No };
    let Some(shown) = answered(&remote::block_on(remote.get(&path))??, output)? else { return Ok(Ended::No) };
    if output.json {
        output.value(&shown)?;
        return Ok(ended);
    }
    show(&shown, output)?;
    Ok(ended)
}

/// A connection, a line for each thing that is known of it.
fn show(shown: &Value, output: &mut Output) -> anyhow::Result<()> {
    let names = ["integrationId", "name", "account", "id", "origin", "status", "since"];
    for name in names.into_iter().chain(["last_success", "last_refresh", "next_try"]) {
        if !text(shown, name).is_empty() {
            output.line(format!("{:<14}{}", name.replace("Id", "").replace('_', " "), text(shown, name)))?;
        }
    }
    if let Some(tested) = shown.get("last_test").filter(|tested| tested.is_object()) {
        let passed = tested.get("passed").and_then(Value::as_bool).unwrap_or_default();
        let verdict = if passed { "passed" } else { "failed" };
        output.line(format!("{:<14}{verdict}, {}", "last test", text(tested, "at")))?;
    }
    for (name, token) in shown.get("tokens").and_then(Value::as_object).into_iter().flatten() {
        let end = text(token, "expires_at");
        output.line(format!(
            "{:<14}{name}, ends {}",
            "token",
            if end.is_empty() { "nobody knows when" } else { &end }
        ))?;
    }
    if let Some(error) = shown.get("last_error").filter(|error| error.is_object()) {
        output.line(format!("{:<14}{}: {}", "last error", text(error, "at"), text(error, "what")))?;
        output.line(format!("{:<14}{}", "what to do", text(error, "step")))?;
    }
    Ok(())
}

fn remove(common: &Common, named: &Named, output: &mut Output) -> anyhow::Result<Ended> {
    let remote = Remote::find(common, &named.gateway)?;
    let Some(found) = find(&remote, named, output)? else { return Ok(Ended::No) };
    let request = http::Request::delete(format!("{LIST}/{}", text(&found, "id")));
    let answer = remote::block_on(remote.send(request, bytes::Bytes::new()))??;
    let Some(removed) = answered(&answer, output)? else { return Ok(Ended::No) };
    if output.json {
        output.value(&removed)?;
        return Ok(Ended::Done);
    }
    let state = removed.pointer("/revocation/state").and_then(Value::as_str).unwrap_or_default();
    output.line(format!("removed {}/{}", text(&found, "integrationId"), text(&found, "name")))?;
    output.note(match state {
        "pending" => "The service is being told; GET /api/integrations/revocations says how that ended.",
        _ => "The definition does not say how to revoke it: what it signed in with lives on at the service.",
    });
    Ok(Ended::Done)
}

fn make_link(common: &Common, connect: &Connect, output: &mut Output) -> anyhow::Result<Ended> {
    let mut wanted = json!({ "integration": connect.integration, "connection": connect.connection });
    if let Some(map) = wanted.as_object_mut() {
        map.extend(connect.return_to.as_ref().map(|place| ("return_to".to_owned(), json!(place))));
        if !connect.scopes.is_empty() {
            map.insert("scopes".to_owned(), json!(connect.scopes));
        }
    }
    let remote = Remote::find(common, &connect.gateway)?;
    let request = http::Request::post("/api/connect-links").header(http::header::CONTENT_TYPE, "application/json");
    let answer = remote::block_on(remote.send(request, wanted.to_string().into()))??;
    let Some(made) = answered(&answer, output)? else { return Ok(Ended::No) };
    if output.json {
        output.value(&made)?;
        return Ok(Ended::Done);
    }
    output.line(text(&made, "url"))?;
    let (end, result) = (text(&made, "expires_at"), text(&made, "result"));
    output.note(format!("It can be used until {end}, by one browser. Result id: {result}"));
    Ok(Ended::Done)
}

/// How often the outcome is asked for.
const POLL: Duration = Duration::from_secs(2);

/// Shows a code and waits for the outcome. All state is the gateway's, so that this may be stopped at any time.
fn show_code(common: &Common, connect: &Connect, output: &mut Output) -> anyhow::Result<Ended> {
    let inputs: serde_json::Map<_, _> =
        connect.inputs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    let mut wanted = json!({ "integration": connect.integration, "connection": connect.connection, "inputs": inputs });
    if let Some(map) = wanted.as_object_mut().filter(|_| !connect.scopes.is_empty()) {
        map.insert("scopes".to_owned(), json!(connect.scopes));
    }
    let remote = Remote::find(common, &connect.gateway)?;
    let request = http::Request::post("/api/connect-devices").header(http::header::CONTENT_TYPE, "application/json");
    let answer = remote::block_on(remote.send(request, wanted.to_string().into()))??;
    let Some(shown) = answered(&answer, output)? else { return Ok(Ended::No) };
    let result = text(&shown, "result");
    if text(&shown, "state") != "started" {
        return ended(&shown, output);
    }
    if !output.json {
        output.line(format!("Open   {}", text(&shown, "verification_uri")))?;
        output.line(format!("Type   {}", text(&shown, "user_code")))?;
        let complete = text(&shown, "verification_uri_complete");
        if !complete.is_empty() {
            output.line(format!("Or     {complete}"))?;
        }
    }
    output.note(format!(
        "The code works until {}. The gateway waits for it whether this command does or not: \
         GET /api/connect-links/{result} says how it ended.",
        text(&shown, "expires_at")
    ));
    if output.json {
        // At once, because somebody has to see the code.
        output.value(&shown)?;
    }
    loop {
        std::thread::sleep(POLL);
        let answer = remote::block_on(remote.get(&format!("/api/connect-links/{result}")))??;
        let Some(now) = answered(&answer, output)? else { return Ok(Ended::No) };
        if text(&now, "state") != "started" {
            return ended(&now, output);
        }
    }
}

/// Says how connecting an account ended.
fn ended(outcome: &Value, output: &mut Output) -> anyhow::Result<Ended> {
    let connected = text(outcome, "state") == "connected";
    if output.json {
        output.value(outcome)?;
    } else if connected {
        output.line(format!("connected {}/{}", text(outcome, "integration"), text(outcome, "connection")))?;
    }
    if !connected {
        let error = outcome.get("error").unwrap_or(&Value::Null);
        let state = text(outcome, "state");
        output.note(match state.as_str() {
            "choosing" => {
                "The account has several sites, and one must be chosen in a browser: make a link instead.".to_owned()
            }
            "failed" => [text(error, "title"), text(error, "words"), text(error, "step")].join(". "),
            other => format!("It came to nothing: {other}."),
        });
    }
    Ok(if connected { Ended::Done } else { Ended::No })
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What was answered; `None` after a refusal, which is told.
fn answered(answer: &Answer, output: &mut Output) -> anyhow::Result<Option<Value>> {
    if answer.status.is_success() {
        return answer.json().map(Some);
    }
    output.note(answer.refusal());
    Ok(None)
}

fn text(row: &Value, name: &str) -> String {
    row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}
