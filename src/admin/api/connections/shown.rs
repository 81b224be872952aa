//! Connections as they are shown; never their credentials or inputs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Parts;
use crate::admin::api::marketplace;
use crate::admin::refusal::Refused;
use crate::base::id::ConnectionId;
use crate::connection::connect::{account_email_of, account_id_of};
use crate::connection::{Connection, ConnectionHead, Credential, Health, Origin, Status};

/// A connection as lists of the page show it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its id.
    pub id: ConnectionId,
    /// The integration.
    pub integration: String,
    /// Its name within the integration.
    pub name: String,
    /// How it fares.
    #[serde(flatten)]
    pub facts: Facts,
}

/// How a connection fares.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ConnectionFacts)]
pub struct Facts {
    /// Where it comes from.
    pub origin: Origin,
    /// How it fares.
    pub status: Status,
    /// Since when.
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// When a call by it last succeeded.
    #[schema(format = DateTime)]
    pub last_success: Option<String>,
    /// Its last test.
    pub last_test: Option<LastTest>,
    /// When its token was last renewed.
    #[schema(format = DateTime)]
    pub last_refresh: Option<String>,
    /// When renewing is tried again.
    #[schema(format = DateTime)]
    pub next_try: Option<String>,
    /// What last went wrong.
    pub last_error: Option<Trouble>,
}

/// A test of a connection.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LastTest {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Whether it worked.
    pub passed: bool,
}

/// What went wrong with a connection.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Trouble {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// What.
    pub what: String,
    /// What to do.
    pub step: String,
}

/// A connection as the page shows it alone.
#[derive(Debug, Clone, Serialize)]
pub struct Detail {
    /// What lists show.
    #[serde(flatten)]
    pub row: Row,
    /// What the service calls the account, where it tells.
    pub account: Option<String>,
    /// Its tokens by name; null where it signs in otherwise, or cannot be used.
    pub tokens: Option<BTreeMap<String, TokenShown>>,
}

/// A connection with its integration and whose account it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Connection)]
pub struct Shown {
    /// Its id.
    pub id: ConnectionId,
    /// Its name within the integration.
    pub name: String,
    /// The id of its integration.
    #[serde(rename = "integrationId")]
    pub integration_id: String,
    /// Its integration; null where no definition of it is in force.
    pub integration: Option<marketplace::Row>,
    /// The account's id at the service, where the sign-in told one.
    #[serde(rename = "externalId")]
    pub external_id: Option<String>,
    /// The account's mail address, where the sign-in told one.
    #[serde(rename = "externalEmail")]
    pub external_email: Option<String>,
    /// When records of it were last copied; null, since this version copies none.
    #[serde(rename = "lastSync")]
    #[schema(format = DateTime)]
    pub last_sync: Option<String>,
    /// How many records of it are kept.
    #[serde(rename = "syncedRecords")]
    pub synced_records: u64,
    /// What is wrong with it now.
    #[serde(rename = "errorMessage")]
    pub error_message: Option<String>,
    /// How it fares.
    #[serde(flatten)]
    pub facts: Facts,
}

/// The same with its tokens.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ConnectionDetail)]
pub struct ShownAlone {
    /// What lists show.
    #[serde(flatten)]
    pub shown: Shown,
    /// What the service calls the account, where it tells.
    pub account: Option<String>,
    /// Its tokens by name; null where it signs in otherwise, or cannot be used.
    pub tokens: Option<BTreeMap<String, TokenShown>>,
}

/// A token; nothing of the token itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenShown {
    /// When it was issued.
    #[schema(format = DateTime)]
    pub issued_at: String,
    /// When it ends; null where that is not told.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// The scopes that were granted, where the service tells them.
    pub scopes: Option<Vec<String>>,
}

/// Rows as the API shows them.
///
/// # Errors
/// When connections cannot be listed.
pub(super) async fn shown(parts: &Parts, rows: Vec<Row>) -> Result<Vec<Shown>, Refused> {
    let integrations = marketplace::every(parts).await?.into_iter().map(|row| (row.id.clone(), row));
    let integrations: HashMap<_, _> = integrations.collect();
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        // What does not open tells nothing of whose account it is.
        let saved = parts.connections.peek(&row.integration, &row.name).await.ok().flatten();
        let saved = saved.map(|content| content.saved).unwrap_or_default();
        let wrong = row.facts.last_error.as_ref().filter(|_| row.facts.status != Status::Active);
        let integration = integrations.get(&row.integration).cloned();
        let missing =
            integration.is_none().then(|| "its integration is not in force: nothing can be called by it".to_owned());
        all.push(Shown {
            id: row.id,
            name: row.name,
            integration,
            integration_id: row.integration,
            external_id: account_id_of(&saved).map(str::to_owned),
            external_email: account_email_of(&saved).map(str::to_owned),
            last_sync: None,
            synced_records: 0,
            error_message: missing.or_else(|| wrong.map(|trouble| trouble.what.clone())),
            facts: row.facts,
        });
    }
    Ok(all)
}

/// What lists show of a connection.
pub(super) fn described(head: &ConnectionHead, health: &Health) -> Row {
    let time = |at: Option<crate::base::clock::Timestamp>| at.map(|at| at.to_string());
    Row {
        id: head.id,
        integration: head.integration.clone(),
        name: head.name.clone(),
        facts: Facts {
            origin: head.origin,
            status: health.status(),
            since: time(health.since),
            last_success: time(health.last_success),
            last_test: health.last_test.map(|test| LastTest { at: test.at.to_string(), passed: test.passed }),
            last_refresh: time(health.last_refresh),
            next_try: time(health.next_try()),
            last_error: health.last_error.as_ref().map(|trouble| Trouble {
                at: trouble.at.to_string(),
                what: trouble.what.clone(),
                step: trouble.step.clone(),
            }),
        },
    }
}

/// A connection that can be used as it is.
pub(super) async fn resolved(parts: &Parts, head: &ConnectionHead) -> Option<Arc<Connection>> {
    let generation = parts.live.load();
    let integration = generation.integration(&head.integration)?;
    parts.connections.resolve(&generation, integration, &head.name).await.ok()
}

/// When a connection's tokens were issued and end, by name; nothing of the tokens themselves.
pub(super) fn tokens(connection: &Connection) -> Option<BTreeMap<String, TokenShown>> {
    let Credential::Tokens(tokens) = &connection.credential else { return None };
    let described = tokens.0.iter().map(|(name, issued)| {
        let shown = TokenShown {
            issued_at: issued.issued_at.to_string(),
            expires_at: issued.expires_at.map(|end| end.to_string()),
            renewable: issued.refresh.is_some(),
            scopes: issued.scopes.clone(),
        };
        (name.to_string(), shown)
    });
    Some(described.collect())
}
