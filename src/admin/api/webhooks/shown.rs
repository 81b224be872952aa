//! Managed webhook endpoints as they are shown.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::admin::Parts;
use crate::base::id::{ConnectionId, WebhookId};
use crate::connection::endpoints::{Endpoint, Subscription};

/// What stands in for a secret.
const MASK: &str = "••••••••";

/// A managed webhook endpoint.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub struct Shown {
    /// Its id.
    pub id: WebhookId,
    /// The integration whose webhooks it takes.
    pub integration: Arc<str>,
    /// The name of the connection that its events carry.
    pub connection: Arc<str>,
    /// The id of that connection.
    pub connection_id: ConnectionId,
    /// Where the service sends its events; null once it is deleted here.
    pub url: Option<String>,
    /// Its secret, where it was just made, replaced or revealed; else dots.
    pub secret: String,
    /// Until when the secrets before this one count.
    #[schema(format = DateTime)]
    pub former_secrets_until: Option<String>,
    /// Whether what arrives is worked on.
    pub enabled: bool,
    /// The types that are taken; all when it is empty.
    pub event_types: Vec<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When its secret was last replaced.
    #[schema(format = DateTime)]
    pub rotated_at: Option<String>,
    /// How many requests came to it in the last 24 hours.
    pub deliveries_last24h: u64,
    /// The share of them that was taken, from 0 to 1; null when none came.
    pub success_rate: Option<f64>,
    /// When the last one was taken.
    #[schema(format = DateTime)]
    pub last_delivery: Option<String>,
    /// What was taken and what was refused by hour, oldest first.
    pub hours: Vec<[u64; 2]>,
    /// What the service knows of it.
    pub subscription: SubscriptionShown,
}

/// What a service knows of an endpoint.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
#[schema(as = WebhookSubscription)]
pub enum SubscriptionShown {
    /// A person sets it up there.
    ByHand,
    /// The service is being told.
    Asked {
        /// Since when.
        #[schema(format = DateTime)]
        since: String,
    },
    /// It sends its events here.
    Registered {
        /// Since when.
        #[schema(format = DateTime)]
        since: String,
        /// Its id there.
        id: Value,
    },
    /// It is not known whether it does.
    Unknown {
        /// What went wrong.
        error: String,
    },
    /// The endpoint is gone here, and the service has yet to be told.
    Leaving {
        /// Since when.
        #[schema(format = DateTime)]
        since: String,
        /// How often it was asked.
        attempts: u32,
        /// When it is asked next.
        #[schema(format = DateTime)]
        next: String,
        /// What went wrong the last time.
        error: Option<String>,
    },
    /// The endpoint is gone here, and the service could not be told: a person has to take it down there.
    Left {
        /// Since when.
        #[schema(format = DateTime)]
        since: String,
        /// Why not.
        error: String,
        /// Its id there.
        id: Value,
    },
}

/// An endpoint that was deleted.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = WebhookDeleted)]
pub struct Deleted {
    /// Its id.
    pub deleted: WebhookId,
    /// What its service has yet to be told; null when that is nothing.
    pub subscription: Option<SubscriptionShown>,
}

/// What came of a sample event.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookTested)]
pub struct Tested {
    /// The endpoint.
    pub webhook: WebhookId,
    /// The type of the event.
    pub event_type: String,
    /// Whether it was taken.
    pub accepted: bool,
    /// The status of the answer.
    pub status: u16,
    /// The answer's body.
    pub answer: Value,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What is shown of an endpoint; never its secret.
pub(super) fn described(parts: &Parts, endpoint: &Arc<Endpoint>) -> Shown {
    let now = parts.clock.now();
    let day = parts.webhooks.tallies().day(endpoint.id, now);
    let gone = endpoint.subscription.is_gone();
    Shown {
        id: endpoint.id,
        integration: Arc::clone(&endpoint.integration),
        connection: Arc::clone(&endpoint.connection),
        connection_id: ConnectionId::of(&endpoint.integration, &endpoint.connection),
        url: (!gone).then(|| parts.webhooks.url(endpoint)),
        secret: MASK.to_owned(),
        former_secrets_until: endpoint.overlap_ends(now).map(|end| end.to_string()),
        enabled: endpoint.enabled && !gone,
        event_types: endpoint.event_types.iter().map(|glob| glob.as_str().to_owned()).collect(),
        created_at: endpoint.created_at.to_string(),
        rotated_at: endpoint.rotated_at.map(|at| at.to_string()),
        deliveries_last24h: day.came(),
        success_rate: day.success_rate(),
        last_delivery: day.last.map(|at| at.to_string()),
        hours: day.hours.iter().map(|(taken, refused)| [*taken, *refused]).collect(),
        subscription: subscription(endpoint),
    }
}

/// The same with its newest secret.
pub(super) fn with_secret(parts: &Parts, endpoint: &Arc<Endpoint>) -> Shown {
    let newest = endpoint.secrets.first().map(|newest| newest.secret.expose().as_str().to_owned());
    Shown { secret: newest.unwrap_or_else(|| MASK.to_owned()), ..described(parts, endpoint) }
}

/// What the service knows of an endpoint.
pub(super) fn subscription(endpoint: &Endpoint) -> SubscriptionShown {
    let id = || endpoint.saved.get("id").cloned().unwrap_or_default();
    match &endpoint.subscription {
        Subscription::ByHand => SubscriptionShown::ByHand,
        Subscription::Asked { at } => SubscriptionShown::Asked { since: at.to_string() },
        Subscription::Registered { at } => SubscriptionShown::Registered { since: at.to_string(), id: id() },
        Subscription::Unknown { error } => SubscriptionShown::Unknown { error: error.clone() },
        Subscription::Leaving { at, attempts, next, error } => SubscriptionShown::Leaving {
            since: at.to_string(),
            attempts: *attempts,
            next: next.to_string(),
            error: error.clone(),
        },
        Subscription::Left { at, error } => {
            SubscriptionShown::Left { since: at.to_string(), error: error.clone(), id: id() }
        }
    }
}
