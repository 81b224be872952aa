//! Connections tried by their integration's test request: those that are there, and one that is not stored yet.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use super::Outbound;
use super::call::{Call, REFUSED};
use super::diagnosis::{Cause, Diagnosis};
use super::error::OutboundError;
use super::prepare::Prepared;
use super::record::{self, Journey};
use super::tries::whole_time;
use crate::activity::Asker;
use crate::connection::connect::trial::{Trial, Tried};
use crate::connection::health::{Key, Tested, Trouble};
use crate::connection::{Connections, Content, Status};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::request::Outcome;

/// Runs an integration's test request for a connection. What comes of it is part of the connection's health.
///
/// # Errors
/// As [`Outbound::run`], and when there is no test request.
pub async fn test(
    outbound: &Outbound,
    generation: &Generation,
    integration: &Arc<Integration>,
    connection: &str,
) -> Result<Outcome, OutboundError> {
    let input = Map::new();
    let result = outbound.run(test_call((generation, integration), connection, &input)?).await;
    note_test(outbound, integration, connection, result.as_ref().err()).await;
    result
}

/// Runs an integration's test request for a connection that is stored nowhere.
///
/// # Errors
/// As [`test`], and when the connection does not fit the definition.
pub async fn try_out(
    outbound: &Outbound,
    (generation, integration): (&Generation, &Arc<Integration>),
    name: &str,
    content: Content,
) -> Result<Outcome, OutboundError> {
    let draft = Connections::draft(integration, name, content)?;
    let input = Map::new();
    let call = test_call((generation, integration), name, &input)?;
    let ends = outbound.parts.clock.monotonic().saturating_add(whole_time(&call));
    let (used, made) = outbound.make(generation, integration, &draft).await?;
    if !Arc::ptr_eq(&used, &draft) {
        // Nobody goes on using this session: the service is told that it is over.
        outbound.logins.tried(integration, &used);
    }
    let policy = outbound.policies.of(generation, integration);
    let prepared = Prepared::of((&generation.gateway, policy), integration, (draft, used), made)?;
    let mut journey = Journey::begin(&outbound.parts);
    let result = Box::pin(outbound.once(&call, Arc::new(prepared), ends, &mut journey)).await;
    record::ended(&outbound.parts, &call, journey, &result);
    result
}

/// Accounts that are being connected are tried like any other.
#[async_trait]
impl Trial for Outbound {
    async fn try_out(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &str,
        content: Content,
    ) -> Tried {
        match Box::pin(try_out(self, (generation, integration), connection, content)).await {
            Ok(_) => Tried::Works,
            Err(error) => Diagnosis::of(&error).tried(),
        }
    }
}

fn test_call<'a>(
    (generation, integration): (&'a Generation, &'a Arc<Integration>),
    connection: &'a str,
    input: &'a Map<String, Json>,
) -> Result<Call<'a>, OutboundError> {
    let api = integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(Arc::clone(&integration.id)))?;
    let request = api.test.as_ref().ok_or_else(|| OutboundError::NoTest(Arc::clone(&integration.id)))?;
    let asker = Asker::Test;
    Ok(Call {
        generation,
        integration,
        connection,
        request,
        endpoint: None,
        input,
        asker,
        caller: None,
        idempotency_key: None,
        deadline: None,
        setting: None,
    })
}

/// Remembers how a test ended. A test that was not made says nothing.
async fn note_test(outbound: &Outbound, integration: &Integration, connection: &str, error: Option<&OutboundError>) {
    let tried = error.is_none_or(|error| matches!(error, OutboundError::Tried(_)));
    if !tried {
        return;
    }
    let (now, passed) = (outbound.parts.clock.now(), error.is_none());
    let word = if passed { "passed" } else { "failed" };
    outbound.parts.metrics.connection_tests.with_label_values(&[&*integration.id, word]).inc();
    let connections = &outbound.parts.connections;
    let key = Key::new(&integration.id, connection);
    let pulse = connections.pulse(&key).await;
    let turned_away = error.and_then(OutboundError::status).is_some_and(|status| matches!(status, 401 | 403));
    let (before, after) = pulse.change(now, |health| {
        health.last_test = Some(Tested { at: now, passed });
        if let Some(error) = error {
            let step = match Diagnosis::of(error) {
                // It was entered or given long ago, and worked.
                Diagnosis { cause: Cause::Unauthorized, .. } => REFUSED,
                other => other.step,
            };
            health.blame(Trouble::new(now, &error.to_string(), step));
        }
        health.condition = match health.condition {
            Status::NeedsReconnect => Status::NeedsReconnect,
            _ if passed => Status::Active,
            _ if turned_away => Status::Error,
            _ => Status::Warning,
        };
    });
    connections.note_status(&key, before, after).await;
    connections.save_health(&key, &pulse).await;
}
