//! The calls that have a service send its events to an endpoint, and stop. Called by the room's front and by `leave`.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::Managed;
use crate::activity::Asker;
use crate::connection::endpoints::Endpoint;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::request::Request;
use crate::definition::plan::rule::Glob;
use crate::definition::plan::webhook::Webhook;
use crate::net::Sent;
use crate::outbound::call::Setting;
use crate::outbound::{Call, OutboundError};
use crate::respond::Refusal;

/// A subscription that did not come about, or did not end.
#[derive(Debug)]
pub(super) struct Failed {
    /// The service's words, or why it was not asked.
    pub words: String,
    /// What the gateway answers because of it.
    pub refusal: Refusal,
    /// Whether asking again may help.
    pub passing: bool,
    /// What is known of what the service has now.
    pub left: Left,
}

/// What a failure leaves at the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: it refused, or never heard of it.
    Nothing,
    /// Something: an earlier step was done.
    Part,
    /// Nobody can tell.
    Unknown,
}

/// A definition in force that has webhooks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub generation: &'a Generation,
    pub integration: &'a Arc<Integration>,
    pub webhook: &'a Webhook,
}

impl<'a> Scene<'a> {
    /// Where a definition of this id is loaded and takes webhooks.
    pub fn of(generation: &'a Generation, id: &str) -> Option<Self> {
        let integration = generation.integration(id)?;
        Some(Self { generation, integration, webhook: integration.webhook.as_ref()? })
    }

    /// The address of an endpoint, as the service is told it.
    pub fn url(&self, endpoint: &Endpoint) -> String {
        format!("{}{}", self.generation.gateway.public_url.as_str().trim_end_matches('/'), endpoint.path())
    }
}

impl Managed {
    /// Has the service send its events to an endpoint. Gives what its answers say is to be kept; with it what was kept
    /// before a step failed.
    pub(super) async fn subscribe(
        &self,
        scene: Scene<'_>,
        endpoint: &Endpoint,
    ) -> (Map<String, Json>, Result<(), Failed>) {
        self.ask(scene, endpoint, &scene.webhook.register).await
    }

    /// Has the service stop. That it does not know the subscription any more is a success.
    pub(super) async fn unsubscribe(&self, scene: Scene<'_>, endpoint: &Endpoint) -> Result<(), Failed> {
        self.ask(scene, endpoint, &scene.webhook.unregister).await.1
    }

    async fn ask(
        &self,
        scene: Scene<'_>,
        endpoint: &Endpoint,
        requests: &[Request],
    ) -> (Map<String, Json>, Result<(), Failed>) {
        let webhook = described(scene, endpoint);
        let mut saved = endpoint.saved.clone();
        let stops = std::ptr::eq(requests, scene.webhook.unregister.as_slice());
        for (place, request) in requests.iter().enumerate() {
            let call = Call {
                generation: scene.generation,
                integration: scene.integration,
                connection: &endpoint.connection,
                request,
                endpoint: None,
                input: &endpoint.input,
                asker: Asker::Webhook,
                caller: None,
                idempotency_key: None,
                deadline: None,
                setting: Some(Setting { webhook: &webhook, saved: &saved }),
            };
            match Box::pin(self.parts.outbound.run(call)).await {
                Ok(outcome) => saved.extend(outcome.saved),
                Err(error) if stops && matches!(error.status(), Some(404 | 410)) => {}
                Err(error) => return (saved, Err(failed(&error, place))),
            }
        }
        (saved, Ok(()))
    }
}

/// What templates see as `webhook`.
fn described(scene: Scene<'_>, endpoint: &Endpoint) -> Json {
    let secret = endpoint.secrets.first().map(|secret| secret.secret.expose().as_str());
    let patterns: Vec<&str> = endpoint.event_types.iter().map(Glob::as_str).collect();
    let events = if patterns.is_empty() { json!(scene.webhook.events) } else { json!(patterns) };
    json!({ "url": scene.url(endpoint), "secret": secret, "events": events })
}

fn failed(error: &OutboundError, done: usize) -> Failed {
    let words = error.to_string();
    let refused = error.status().is_some_and(|status| (400..500).contains(&status) && status != 408);
    let left = match (done, error.sent() == Sent::Nothing || refused) {
        (_, false) => Left::Unknown,
        (0, true) => Left::Nothing,
        (_, true) => Left::Part,
    };
    // Taking down what is not there harms nobody, so that also what may have been seen is asked again.
    let passing = error.may_repeat() || error.status().is_none_or(|status| status >= 500) && left == Left::Unknown;
    Failed { words, refusal: error.refusal(), passing, left }
}
