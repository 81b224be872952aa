//! Services told that an endpoint is gone: tried until they have taken it, say that they never will, or two days have
//! passed; a restart goes on where it was. Called by `app` through [`Managed::run`].

use std::sync::Arc;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Managed;
use super::subscribe::Scene;
use crate::base::clock::Timestamp;
use crate::connection::connect::removal::{LOOK, WAITS};
use crate::connection::connect::revocations::KEPT;
use crate::connection::endpoints::{Deed, Endpoint, EndpointError, Subscription};

/// How many services are told at once.
const AT_ONCE: usize = 8;

/// Who does what nobody asks for.
const SYSTEM: &str = "system";

impl Managed {
    /// Tells services what they have yet to be told, and writes what was counted, until it is stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.settle_asked().await;
        loop {
            self.tell_due().await;
            if let Err(error) = self.parts.tallies.write().await {
                tracing::warn!("what came to webhook endpoints was not written; it is tried again: {error}");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.due.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        if let Err(error) = self.parts.tallies.write().await {
            tracing::warn!("what came to webhook endpoints of late was not written: {error}");
        }
    }

    /// What a process before this one was telling a service when it ended: whether it was told nobody knows.
    async fn settle_asked(&self) {
        for endpoint in self.parts.endpoints.all() {
            if !matches!(endpoint.subscription, Subscription::Asked { .. }) {
                continue;
            }
            let error = "the gateway ended while the service was being told: see there whether it has the subscription";
            let deed = Deed { actor: SYSTEM, action: "webhook.register_unknown" };
            let changed = self.parts.endpoints.change(endpoint.id, deed, json!({ "error": error }), |record| {
                record.subscription = Subscription::Unknown { error: error.to_owned() };
            });
            if let Err(error) = changed.await {
                tracing::warn!(webhook.id = %endpoint.id, "a webhook endpoint could not be seen to: {error}");
            }
        }
    }

    async fn tell_due(&self) {
        let now = self.parts.clock.now();
        let all = self.parts.endpoints.all();
        let telling = futures_util::stream::iter(all).for_each_concurrent(AT_ONCE, |endpoint| async move {
            let told = match &endpoint.subscription {
                Subscription::Leaving { next, .. } if *next <= now => self.tell(&endpoint).await,
                Subscription::Left { at, .. } if at.after(KEPT) <= now => {
                    self.forget(&endpoint, "webhook.forget").await
                }
                _ => Ok(()),
            };
            if let Err(error) = told {
                tracing::warn!(webhook.id = %endpoint.id, "a deleted webhook endpoint could not be seen to: {error}");
            }
        });
        telling.await;
    }

    /// Tells the service of a deleted endpoint once.
    pub(super) async fn tell(&self, endpoint: &Endpoint) -> Result<(), EndpointError> {
        let Subscription::Leaving { at, attempts, .. } = endpoint.subscription else { return Ok(()) };
        let generation = self.parts.live.load();
        let told = match Scene::of(&generation, &endpoint.integration) {
            Some(scene) => self.unsubscribe(scene, endpoint).await.map_err(|failed| (failed.passing, failed.words)),
            None => Err((false, "the definition is not there any more".to_owned())),
        };
        let label = if told.is_ok() { "ok" } else { "failed" };
        self.parts
            .metrics
            .webhook_subscriptions
            .with_label_values(&[&*endpoint.integration, "unregister", label])
            .inc();
        let Err((passing, error)) = told else { return self.forget(endpoint, "webhook.unregister").await };
        let wait = usize::try_from(attempts).ok().and_then(|attempt| WAITS.get(attempt)).filter(|_| passing);
        let now = self.parts.clock.now();
        let (action, subscription) = match wait {
            Some(wait) => (
                "webhook.unregister_retry",
                Subscription::Leaving {
                    at,
                    attempts: attempts + 1,
                    next: now.after(*wait),
                    error: Some(error.clone()),
                },
            ),
            None => ("webhook.unregister_failed", Subscription::Left { at: now, error: error.clone() }),
        };
        let deed = Deed { actor: SYSTEM, action };
        let changed = self.parts.endpoints.change(endpoint.id, deed, json!({ "error": error }), |record| {
            record.subscription = subscription;
        });
        changed.await.map(drop)
    }

    pub(super) async fn forget(&self, endpoint: &Endpoint, action: &'static str) -> Result<(), EndpointError> {
        self.parts.endpoints.forget(endpoint.id, Deed { actor: SYSTEM, action }, json!(null)).await?;
        Ok(self.parts.tallies.forget(endpoint.id).await?)
    }
}

/// A deletion that the service is to be told of at once.
pub(super) const fn leaving(now: Timestamp) -> Subscription {
    Subscription::Leaving { at: now, attempts: 0, next: now, error: None }
}
