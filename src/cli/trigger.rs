//! `trunkline trigger`: a signed sample event, sent to the public door as its service would send it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::output::Output;
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::gateway::{DoorName, Listen};
use crate::definition::suggest::nearest;
use crate::mock::trigger::Trigger;
use crate::net::{Clients, Received};

/// Sends a sample event to the gateway, signed with this deployment's own webhook secret.
///
/// The events of the catalogue have sample bodies; for others one is made from what the definition
/// reads. Exits with 0 when the gateway took every event, also one that it knew already, else with 1.
#[derive(Debug, Clone, Args)]
pub struct TriggerArgs {
    /// The integration, by its id.
    pub integration: String,
    /// The event's type, such as `pull_request.opened`. Without it the known types are listed.
    pub event: Option<String>,
    /// The deployment's directory or gateway file [default: what --config says]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where to post it. Default: this deployment's public door.
    #[arg(long, value_name = "URL", requires = "event")]
    pub to: Option<String>,
    /// A file to send as the body, byte for byte.
    #[arg(long, value_name = "FILE", requires = "event")]
    pub body: Option<PathBuf>,
    /// How many to send, one after another, each with a delivery id of its own.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "event",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub count: u32,
    /// Sign with a wrong secret, to see the event refused.
    #[arg(long, requires = "event")]
    pub bad_signature: bool,
}

/// What the command needs from outside.
#[derive(Debug)]
pub struct Tools<'a> {
    /// Sends.
    pub clients: &'a Clients,
    /// Tells the time that is signed.
    pub clock: &'a dyn Clock,
    /// Makes delivery ids.
    pub random: &'a dyn Random,
}

/// Runs the command; whether the gateway took every event.
///
/// # Errors
/// When no event can be made, or the gateway cannot be reached.
pub async fn run(
    args: &TriggerArgs,
    generation: &Generation,
    tools: &Tools<'_>,
    output: &mut Output,
) -> anyhow::Result<bool> {
    let integration = find(generation, &args.integration)?;
    let Some(event) = &args.event else { return list(integration, output).map(|()| true) };
    if let Some(meant) = meant(integration, event) {
        output.note(format_args!(
            "the definition of `{}` lists no event `{event}`; did you mean `{meant}`?",
            integration.id
        ));
    }
    let body = match &args.body {
        Some(path) => Some(Bytes::from(std::fs::read(path).with_context(|| path.display().to_string())?)),
        None => None,
    };
    let path = format!("/webhooks/{}", integration.id);
    let public = generation.gateway.public_url.as_str().trim_end_matches('/').to_owned();
    let told = format!("{public}{path}");
    let to = match &args.to {
        Some(url) => url.clone(),
        // Its certificate is for the name, not for the address.
        None if generation.gateway.fixed.tls.contains(&DoorName::Public) => told.clone(),
        None => format!("{}{path}", door(&generation.gateway.fixed.public)?),
    };
    let secrets = integration.webhook.as_ref().map(|webhook| webhook.secrets.as_slice()).unwrap_or_default();
    let trigger = Trigger { integration, event_type: event, secrets, body, url: &told, forged: args.bad_signature };
    let mut tally = Tally::default();
    for _ in 0..args.count {
        let webhook = trigger.make(tools.clock.now(), tools.random)?;
        let started = tools.clock.monotonic();
        let received = tools
            .clients
            .send(webhook.outgoing(&to)?)
            .await
            .with_context(|| format!("{to} did not answer: is the gateway running? (`trunkline serve`)"))?;
        let became = Became::of(&received, tools.clock.monotonic().saturating_sub(started));
        if args.count == 1 {
            became.tell(integration, event, output)?;
        }
        tally.add(&became);
    }
    if args.count > 1 {
        tally.tell(integration, event, output)?;
    }
    Ok(tally.refused == 0)
}

fn find<'a>(generation: &'a Generation, id: &str) -> anyhow::Result<&'a Arc<Integration>> {
    if let Some(integration) = generation.integration(id) {
        return Ok(integration);
    }
    let mut known: Vec<_> = generation.integrations.keys().map(|id| &**id).collect();
    known.sort_unstable();
    let nearest = known.iter().max_by(|a, b| strsim::jaro(a, id).total_cmp(&strsim::jaro(b, id)));
    match nearest.filter(|nearest| strsim::jaro(nearest, id) > 0.7) {
        Some(nearest) => bail!("there is no integration `{id}`; did you mean `{nearest}`?"),
        None => bail!("there is no integration `{id}`; there are: {}", known.join(", ")),
    }
}

/// The listed event that one which is not listed looks like. Services send more than definitions list, so that it is sent
/// all the same.
fn meant(integration: &Integration, event: &str) -> Option<String> {
    let events = &integration.webhook.as_ref()?.events;
    let listed = events.iter().map(|event| &**event);
    if listed.clone().any(|known| known == event) { None } else { nearest(event, listed) }
}

fn list(integration: &Integration, output: &mut Output) -> anyhow::Result<()> {
    let events = integration.webhook.as_ref().map(|webhook| webhook.events.as_slice()).unwrap_or_default();
    if events.is_empty() {
        bail!("the definition of `{}` lists no events: name one", integration.id);
    }
    if output.json {
        return Ok(output.value(&json!({ "integration": integration.id, "events": events }))?);
    }
    output.line(format_args!("Events of {}:", integration.id))?;
    events.iter().try_for_each(|event| output.line(format_args!("  trunkline trigger {} {event}", integration.id)))?;
    Ok(())
}

/// The public door's address as a URL; one that listens everywhere is reached by loopback.
fn door(listen: &Listen) -> anyhow::Result<String> {
    match listen {
        Listen::Tcp(address) if address.ip().is_unspecified() => Ok(format!("http://127.0.0.1:{}", address.port())),
        Listen::Tcp(address) => Ok(format!("http://{address}")),
        Listen::Unix(path, _) => bail!("the public door is a Unix socket ({}): give --to URL", path.display()),
    }
}

/// What the gateway made of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It is stored, and will be worked on.
    Accepted,
    /// It knew the delivery id already; nothing is done again.
    Duplicate,
    /// It did not take it.
    Refused,
}

/// What became of one event.
#[derive(Debug)]
struct Became {
    outcome: Outcome,
    status: StatusCode,
    /// The answer's body: JSON where it is JSON, else as text.
    answer: Value,
    took: Duration,
}

impl Became {
    fn of(received: &Received, took: Duration) -> Self {
        let status = received.status;
        let text = || Value::from(String::from_utf8_lossy(&received.body));
        let answer: Value = serde_json::from_slice(&received.body).unwrap_or_else(|_| text());
        let outcome = match answer["result"].as_str() {
            _ if !status.is_success() => Outcome::Refused,
            Some("duplicate") => Outcome::Duplicate,
            _ => Outcome::Accepted,
        };
        Self { outcome, status, answer, took }
    }

    fn tell(&self, integration: &Integration, event: &str, output: &mut Output) -> anyhow::Result<()> {
        let Self { outcome, status, answer, took } = self;
        let (id, took) = (&integration.id, took.as_millis());
        if output.json {
            return Ok(output.value(&json!({
                "integration": id,
                "event": event,
                "outcome": outcome,
                "status": status.as_u16(),
                "took_ms": took,
                "answer": answer,
            }))?);
        }
        match outcome {
            Outcome::Refused => {
                output.line(format_args!("{id} {event}: refused with {status}"))?;
                let said = ["code", "title", "detail", "help"].iter().filter_map(|name| answer[*name].as_str());
                for line in said {
                    output.line(format_args!("  {line}"))?;
                }
                return Ok(());
            }
            Outcome::Accepted => output.line(format_args!("{id} {event}: accepted with {status} in {took} ms"))?,
            Outcome::Duplicate => output.line(format_args!(
                "{id} {event}: a duplicate, answered with {status} in {took} ms: this delivery id came before, so \
                 nothing is done again"
            ))?,
        }
        match answer["event"].as_str() {
            Some(event) => output.line(format_args!("  {event}\n  trunkline events show {event}"))?,
            None => output.line(format_args!("  {}", answer.as_str().unwrap_or_default()))?,
        }
        Ok(())
    }
}

/// What became of many.
#[derive(Debug, Default)]
struct Tally {
    statuses: BTreeMap<u16, u32>,
    accepted: u32,
    duplicates: u32,
    refused: u32,
    took: Duration,
}

impl Tally {
    fn add(&mut self, became: &Became) {
        *self.statuses.entry(became.status.as_u16()).or_default() += 1;
        let count = match became.outcome {
            Outcome::Accepted => &mut self.accepted,
            Outcome::Duplicate => &mut self.duplicates,
            Outcome::Refused => &mut self.refused,
        };
        *count += 1;
        self.took += became.took;
    }

    fn tell(&self, integration: &Integration, event: &str, output: &mut Output) -> anyhow::Result<()> {
        let Self { statuses, accepted, duplicates, refused, took } = self;
        let sent = accepted + duplicates + refused;
        if output.json {
            return Ok(output.value(&json!({
                "integration": integration.id,
                "event": event,
                "sent": sent,
                "accepted": accepted,
                "duplicates": duplicates,
                "refused": refused,
                "statuses": statuses,
                "took_ms": took.as_millis(),
            }))?);
        }
        let statuses: Vec<_> = statuses.iter().map(|(status, count)| format!("{count} × {status}")).collect();
        let took = took.as_secs_f64();
        output.line(format_args!("{sent} sent in {took:.1} s: {}", statuses.join(", ")))?;
        output.line(format_args!("{accepted} accepted, {duplicates} duplicates, {refused} refused"))?;
        Ok(())
    }
}
