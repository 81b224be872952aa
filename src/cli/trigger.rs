//! `trunkline trigger`: a signed sample event, sent to the public door as its service would send it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;

use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::Timeouts;
use crate::definition::plan::gateway::{DoorName, Listen};
use crate::mock::trigger::{SignedWebhook, Trigger};
use crate::net::{Base, BodyLimit, Clients, Excess, Follow, Outgoing, Received, Towards};

/// Sends a sample event to the gateway, signed with this deployment's own webhook secret.
///
/// The events of the catalogue have sample bodies; for others one is made from what the definition
/// reads. Exits with 0 when every event was accepted, else with 1.
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
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// A file to send as the body, byte for byte.
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// How many to send, one after another, each with a delivery id of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Sign with a wrong secret, to see the event refused.
    #[arg(long)]
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

/// Runs the command; whether every event was accepted.
///
/// # Errors
/// When no event can be made, or the gateway cannot be reached.
pub async fn run(
    args: &TriggerArgs,
    generation: &Generation,
    tools: &Tools<'_>,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let integration = find(generation, &args.integration)?;
    let Some(event) = &args.event else { return list(integration, out).map(|()| true) };
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
    let trigger = Trigger { integration, event_type: event, body, url: &told, forged: args.bad_signature };
    let mut tally = Tally::default();
    for _ in 0..args.count {
        let webhook = trigger.make(tools.clock.now(), tools.random)?;
        let started = tools.clock.monotonic();
        let received = tools
            .clients
            .send(outgoing(&webhook, &to)?)
            .await
            .with_context(|| format!("{to} did not answer: is the gateway running? (`trunkline serve`)"))?;
        let took = tools.clock.monotonic().saturating_sub(started);
        if args.count == 1 {
            tell(integration, event, &received, took, out)?;
        }
        tally.add(&received, took);
    }
    if args.count > 1 {
        tally.tell(out)?;
    }
    Ok(tally.accepted == args.count)
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

fn list(integration: &Integration, out: &mut dyn Write) -> anyhow::Result<()> {
    let events = integration.webhook.as_ref().map(|webhook| webhook.events.as_slice()).unwrap_or_default();
    if events.is_empty() {
        bail!("the definition of `{}` lists no events: name one", integration.id);
    }
    writeln!(out, "Events of {}:", integration.id)?;
    events.iter().try_for_each(|event| writeln!(out, "  trunkline trigger {} {event}", integration.id))?;
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

fn outgoing(webhook: &SignedWebhook, to: &str) -> anyhow::Result<Outgoing> {
    let target = webhook.target(to);
    let (url, query) = target.split_once('?').map_or((target.as_str(), None), |(url, query)| (url, Some(query)));
    let base = Base::parse(url, true).with_context(|| format!("`{url}`"))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &webhook.headers {
        headers.append(name, HeaderValue::from_str(value).with_context(|| format!("the header `{name}`"))?);
    }
    Ok(Outgoing {
        towards: Towards::Destination { id: Arc::from("trigger") },
        method: Method::POST,
        origin: base.origin,
        path: base.path,
        query: query.map(str::to_owned),
        secret_query: None,
        headers,
        body: webhook.body.clone(),
        timeouts: Timeouts::default(),
        limit: BodyLimit { bytes: 64 << 10, excess: Excess::Cut },
        follow: Follow::default(),
    })
}

fn tell(
    integration: &Integration,
    event: &str,
    received: &Received,
    took: Duration,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let (id, status) = (&integration.id, received.status);
    if !status.is_success() {
        writeln!(out, "{id} {event}: refused with {status}")?;
        for line in ["code", "title", "detail", "help"].iter().filter_map(|name| text(name)) {
            writeln!(out, "  {line}")?;
        }
        return Ok(());
    }
    let outcome =
        if body.get("duplicate").and_then(Value::as_bool) == Some(true) { "known already" } else { "accepted" };
    writeln!(out, "{id} {event}: {outcome} with {status} in {} ms", took.as_millis())?;
    match text("id").or_else(|| text("event")) {
        Some(event) => writeln!(out, "  {event}\n  trunkline events show {event}")?,
        None => writeln!(out, "  {}", String::from_utf8_lossy(&received.body))?,
    }
    Ok(())
}

/// What became of many.
#[derive(Debug, Default)]
struct Tally {
    statuses: BTreeMap<u16, u32>,
    accepted: u32,
    sent: u32,
    took: Duration,
}

impl Tally {
    fn add(&mut self, received: &Received, took: Duration) {
        *self.statuses.entry(received.status.as_u16()).or_default() += 1;
        self.accepted += u32::from(received.status.is_success());
        self.sent += 1;
        self.took += took;
    }

    fn tell(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let statuses: Vec<_> = self.statuses.iter().map(|(status, count)| format!("{count} × {status}")).collect();
        writeln!(out, "{} sent in {:.1} s: {}", self.sent, self.took.as_secs_f64(), statuses.join(", "))?;
        Ok(())
    }
}
