//! `/metrics`, `/livez`, `/readyz` and its other name `/healthz`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::query::Asked;
use crate::admin::Parts;
use crate::admin::readiness::Phase;
use crate::admin::refusal::Refused;
use crate::definition::render;
use crate::respond::Refusal;

/// The metrics, in the text format of Prometheus.
pub async fn metrics(State(parts): Shared) -> Result<Response, Refused> {
    refresh(&parts);
    let text = parts.metrics.render().map_err(|error| {
        tracing::error!("metrics could not be written: {error}");
        Refused::new(Refusal::Internal, "the metrics could not be written")
    })?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Gauges of things that know their own number are set when someone looks.
fn refresh(parts: &Parts) {
    let metrics = &parts.metrics;
    let set = |gauge: &prometheus::IntGaugeVec, labels: &[&str], value: u64| {
        gauge.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    let depth = parts.store.depth();
    set(&metrics.queue_messages, &["ready"], depth.ready);
    set(&metrics.queue_messages, &["leased"], depth.leased);
    set(&metrics.queue_messages, &["dead"], depth.dead);
    let age = depth.oldest.map_or(0, |oldest| parts.clock.now().since(oldest).as_secs());
    set(&metrics.queue_oldest_age, &[], age);
    let older = parts.connections.keys().map_or(0, |keys| keys.older());
    set(&metrics.records_older_key, &[], older as u64);
    set(&metrics.store_bytes, &[], parts.store.bytes_on_disk());
    if let Some(free) = parts.store.bytes_free() {
        set(&metrics.store_free_bytes, &[], free);
    }
    set(&metrics.store_writable, &[], u64::from(parts.store.writable().is_ok()));
}

/// Whether the process runs at all.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Whether more than the verdict is wanted.
#[derive(Debug, Deserialize)]
pub struct Verbosity {
    verbose: Option<String>,
}

/// Whether traffic should come here: 200 or 503. With `?verbose` the parts of the verdict and the files
/// that do not count.
pub async fn readyz(State(parts): Shared, Asked(wanted): Asked<Verbosity>) -> Response {
    let phase = parts.readiness.phase();
    let store = parts.store.writable();
    // A start while the secret store is down leaves definitions out: traffic for them would find nothing here.
    let whole = parts.secrets.as_ref().is_none_or(|secrets| secrets.was_whole());
    let ready = phase == Phase::Serving && store.is_ok() && whole;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if wanted.verbose.is_none() {
        return (status, if ready { "ready\n" } else { "not ready\n" }).into_response();
    }
    let generation = parts.live.load();
    let rejected: Vec<Value> = generation
        .rejected()
        .map(|file| {
            // What keeps the file from counting; notices and warnings do not.
            let faults = render::faults(file);
            json!({ "file": file.file.display().to_string(), "state": file.state, "problems": faults })
        })
        .collect();
    let secrets = parts.secrets.as_ref().map(|secrets| {
        let standing = secrets.standing();
        json!({
            "ok": standing.stale + standing.unread == 0, "known": standing.known, "stale": standing.stale,
            "unread": standing.unread, "detail": standing.reason,
        })
    });
    let stalled = parts.reload.stalled();
    let store_says = store.as_ref().err().map(ToString::to_string);
    let mut body = json!({
        "ready": ready,
        "checks": {
            "listeners": { "ok": phase != Phase::Starting },
            "not_draining": { "ok": phase != Phase::Draining },
            "store": { "ok": store.is_ok(), "detail": store_says },
            // What was last read goes on being used, so files that cannot be read are told here and refuse no traffic.
            "definitions": {
                "ok": stalled.is_none(), "generation": generation.number, "loaded": generation.integrations.len(),
                "stalled_since": stalled.map(|since| since.to_string()),
            },
        },
        "rejected": rejected,
    });
    if let (Some(secrets), Some(checks)) = (secrets, body["checks"].as_object_mut()) {
        // What was once read goes on being used, so a later outage is told here and refuses no traffic.
        checks.insert("secrets".to_owned(), secrets);
    }
    (status, axum::Json(body)).into_response()
}
