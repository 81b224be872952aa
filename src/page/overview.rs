//! The overview, in the order of the questions people come with: is anything broken, is the configuration current, is
//! traffic flowing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::audit;
use super::shell::Shell;
use crate::admin::Parts;
use crate::admin::api::activity::{self, Wanted};
use crate::admin::api::connections::{self, Wanted as Which};
use crate::admin::api::{breaker, config, integrations, webhooks};
use crate::admin::refusal::Refused;
use crate::base::clock::Timestamp;
use crate::connection::Status;
use crate::connection::endpoints::{Endpoint, Subscription};
use crate::definition::live::FileState;
use crate::definition::plan::{Integration, NotYet};
use crate::definition::problem::Code;
use crate::webhook::refused::PER_INTEGRATION;

/// How many lines of one kind stand in the list of what needs attention.
const LINES: usize = 5;

/// The overview.
pub async fn show(State(parts): State<Arc<Parts>>, shell: Shell) -> Result<Response, Refused> {
    let rows = connections::rows(&parts, &Which::default()).await?;
    // Whatever the navigation has an alarm for is here: who reads that nothing is broken believes it.
    let attention = [
        store(&parts),
        stalled(&parts),
        files(&parts),
        missing(&parts),
        accounts(&rows),
        endpoints(&parts),
        dead(&parts),
        held(&parts),
        refused(&parts),
    ];
    let mut attention: Vec<Value> = attention.into_iter().flatten().collect();
    // What is broken comes before what was never set up; in one level the order above holds.
    attention.sort_by_key(|line| line["level"] != "error");
    let view = json!({
        "attention": attention,
        "config": config::describe(&parts),
        "traffic": traffic(&parts).await?,
        "changes": audit::changes(&parts).await?,
        "connections": rows.len(),
        "start": rows.is_empty(),
    });
    shell.page("overview.html", "Overview", view).await
}

/// Something that a person should look at: `error` when something does not work, else `warning`.
fn line(level: &str, text: &str, detail: Option<&str>, path: &str) -> Value {
    json!({ "level": level, "text": text, "detail": detail, "path": path })
}

/// How many, with the word for one or for several.
fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// The first lines of a kind, and one that counts the others.
fn first(mut lines: Vec<Value>, others: impl FnOnce(usize) -> Value) -> Vec<Value> {
    let more = lines.len().saturating_sub(LINES);
    lines.truncate(LINES);
    lines.extend((more > 0).then(|| others(more)));
    lines
}

fn store(parts: &Parts) -> Vec<Value> {
    let fault = parts.store.writable().err().map(|error| error.to_string());
    let said =
        |fault: String| line("error", "Nothing can be stored, so webhooks are refused", Some(&fault), "/configuration");
    fault.map(said).into_iter().collect()
}

fn stalled(parts: &Parts) -> Vec<Value> {
    let said = |since: Timestamp| {
        let since = format!("since {since}; what they say counts when they can be read");
        line("error", "The files are not read: what they are on does not answer", Some(&since), "/configuration")
    };
    parts.reload.stalled().map(said).into_iter().collect()
}

fn files(parts: &Parts) -> Vec<Value> {
    let generation = parts.live.load();
    let said = |file: &crate::definition::live::FileStatus| {
        let name = file.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // A variable or file that is not there is for the operator to give, and not for who wrote the definition.
        let unset = file.errors().find(|problem| problem.code == Code::MissingReference);
        let has = if unset.is_some() { "names secrets that are not there" } else { "has errors" };
        let what = match file.state {
            FileState::Kept => format!("{name} {has}; its last good version is in force"),
            _ => format!("{name} {has} and is not in force"),
        };
        let first = unset.or_else(|| file.errors().next()).map(crate::definition::render::line);
        line("error", &what, first.as_deref(), "/configuration")
    };
    let others = |more: usize| {
        let what = counted(more, "more file has errors", "more files have errors");
        line("error", &what, None, "/configuration")
    };
    first(generation.rejected().map(said).collect(), others)
}

/// What integrations in force lack before all of them works. An integration whose webhooks come to endpoints of
/// connections' own needs no secret beside theirs; nothing that is set lets this version take webhooks that it does not run.
fn missing(parts: &Parts) -> Vec<Value> {
    let generation = parts.live.load();
    let own: HashSet<_> = parts.webhooks.endpoints().all().iter().map(|one| Arc::clone(&one.integration)).collect();
    let said = |integration: &Arc<Integration>| {
        let (id, untaken) = (&integration.id, integrations::untaken(integration));
        let mut missing = integrations::missing(integration);
        missing.retain(|one| one.r#where != "webhook.secrets" || !own.contains(id));
        missing.retain(|one| untaken.is_none_or(|part| part.part != one.r#where));
        let path = format!("/integrations/{id}#missing");
        let places: Vec<_> = missing.iter().map(|one| one.r#where.as_str()).collect();
        let lacks = || line("warning", &format!("{id} lacks {}", places.join(" and ")), Some(missing[0].what), &path);
        let not_taken = |part: &NotYet| {
            let what = format!("Webhooks of {id} are not taken yet");
            line("warning", &what, Some(&part.to_string()), &path)
        };
        (!missing.is_empty()).then(lacks).into_iter().chain(untaken.map(not_taken)).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = generation.integrations.values().collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let others = |more: usize| {
        let what = counted(more, "more warning about integrations", "more warnings about integrations");
        line("warning", &what, None, "/integrations?state=installed")
    };
    let of_all = first(all.into_iter().flat_map(said).collect(), others);
    let key = integrations::missing_key(&generation);
    let key = key.map(|key| line("warning", key.what, Some(&key.r#where), "/configuration"));
    key.into_iter().chain(of_all).collect()
}

fn accounts(rows: &[connections::Row]) -> Vec<Value> {
    let troubled = |status: Status| {
        let (wanted, status) = (status, status.word());
        let level = if status == "warning" { "warning" } else { "error" };
        let said = |row: &connections::Row| {
            let what = format!("{} / {}: {}", row.integration, row.name, status.replace('_', " "));
            let why = row.facts.last_error.as_ref().map(|trouble| trouble.what.as_str());
            line(level, &what, why, &format!("/connections/{}", row.id))
        };
        let others = |more: usize| {
            let more = counted(more, "more connection", "more connections");
            let more = format!("{more}: {}", status.replace('_', " "));
            line(level, &more, None, &format!("/connections?status={status}"))
        };
        first(rows.iter().filter(|row| row.facts.status == wanted).map(said).collect(), others)
    };
    [Status::NeedsReconnect, Status::Error, Status::Warning].into_iter().flat_map(troubled).collect()
}

fn endpoints(parts: &Parts) -> Vec<Value> {
    let said = |endpoint: &Arc<Endpoint>| {
        let (what, why) = match &endpoint.subscription {
            Subscription::Left { error, .. } => ("its service may still send: take the subscription down there", error),
            Subscription::Unknown { error } => ("its service may have the subscription: look there", error),
            _ => return None,
        };
        let what = format!("Webhook of {} / {}: {what}", endpoint.integration, endpoint.connection);
        Some(line("error", &what, Some(why), &format!("/webhooks/{}", endpoint.id)))
    };
    let others = |more: usize| {
        let what = counted(more, "more webhook endpoint like that", "more webhook endpoints like that");
        line("error", &what, None, "/webhooks")
    };
    first(webhooks::troubled(parts).iter().filter_map(said).collect(), others)
}

fn dead(parts: &Parts) -> Vec<Value> {
    let count = parts.store.depth().dead;
    let deliveries = usize::try_from(count).unwrap_or(usize::MAX);
    let what = counted(deliveries, "delivery was given up", "deliveries were given up");
    (count > 0).then(|| line("error", &what, None, "/dead-letters")).into_iter().collect()
}

fn held(parts: &Parts) -> Vec<Value> {
    let generation = parts.live.load();
    let mut ids: Vec<_> = generation.integrations.keys().collect();
    ids.sort();
    let said = |id: &&Arc<str>| {
        let conditions = breaker::conditions(parts, id).ok()?;
        let why = if conditions.held {
            "by hand"
        } else if !conditions.circuits.is_empty() {
            "because the service keeps failing"
        } else if !conditions.pauses.is_empty() {
            "because the service asked for a pause"
        } else {
            return None;
        };
        Some(line("warning", &format!("Calls to {id} are held back {why}"), None, &format!("/integrations/{id}")))
    };
    let others = |more: usize| {
        let more = counted(more, "more integration", "more integrations");
        line("warning", &format!("Calls to {more} are held back"), None, "/integrations")
    };
    first(ids.iter().filter_map(said).collect(), others)
}

fn refused(parts: &Parts) -> Vec<Value> {
    let (generation, recent) = (parts.live.load(), parts.clock.now().before(Duration::from_hours(24)));
    let latest = parts.refused.latest(None);
    let latest = latest.iter().filter(|one| one.at >= recent && generation.integration(&one.integration).is_some());
    // The newest of each reason tells; the list of an integration is bounded, and may have had more.
    let (mut kinds, mut kept) = (BTreeMap::new(), HashMap::new());
    for one in latest {
        kinds.entry((&one.integration, one.reason)).or_insert((0_usize, &one.detail)).0 += 1;
        *kept.entry(&one.integration).or_insert(0_usize) += 1;
    }
    let said = |((integration, reason), (count, detail)): (&(&Arc<str>, &str), &(usize, &String))| {
        let least = if kept.get(integration).is_some_and(|kept| *kept >= PER_INTEGRATION) { "At least " } else { "" };
        let what = counted(*count, "webhook", "webhooks");
        let were = if *count == 1 { "was" } else { "were" };
        let why = reason.replace('_', " ");
        let what = format!("{least}{what} for {integration} {were} refused in the last 24 hours: {why}");
        line("warning", &what, Some(detail), &format!("/integrations/{integration}#refused"))
    };
    let others = |more: usize| {
        let what = counted(more, "more reason why webhooks were refused", "more reasons why webhooks were refused");
        line("warning", &what, None, "/integrations?state=installed")
    };
    first(kinds.iter().map(said).collect(), others)
}

async fn traffic(parts: &Parts) -> Result<Value, Refused> {
    let counts = activity::count(parts, &Wanted::default()).await?;
    let depth = parts.store.depth();
    Ok(json!({
        "calls": counts.all,
        "errors": counts.error,
        "ready": depth.ready,
        "leased": depth.leased,
        "dead": depth.dead,
        "oldest": depth.oldest.map(|at| at.to_string()),
        "newest": activity::page(parts, &Wanted { limit: Some(8), ..Wanted::default() }).await?.rows,
    }))
}
