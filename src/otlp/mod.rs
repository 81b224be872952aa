//! Spans to a collector, by OTLP over HTTP in JSON (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! In batches, from a bounded list; what the collector does not take after a few tries is dropped and counted. Nothing
//! else waits for it. [`json`] writes the messages. Called by `app`.

mod json;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::definition::plan::api::Timeouts;
use crate::definition::plan::trace::Trace;
use crate::net::{Base, BodyLimit, Clients, Excess, Outgoing, Received, Towards};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Span;

/// How often spans are sent, where there are any.
const PAUSE: Duration = Duration::from_secs(1);
/// The pauses before a batch is sent once more.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// How much of an answer is read.
const ANSWER: BodyLimit = BodyLimit { bytes: 64 << 10, excess: Excess::Cut };
/// Whose connections to the collector are: no destination can have this id.
const TOWARDS: &str = ":otlp";

/// What sends spans.
pub struct Exporter {
    /// Where they go.
    pub settings: Trace,
    /// What sends.
    pub clients: Clients,
    /// Where it is counted, and where the spans are.
    pub metrics: Arc<Metrics>,
}

/// What became of a batch.
enum Sent {
    /// All of it was taken, but for so many.
    Taken(u64),
    /// It was not, and may be the next time.
    Later(String),
    /// It is not going to be.
    Never(String),
}

impl Exporter {
    /// Sends what ends, until `stop`; what is there then is sent before this returns.
    pub async fn run(self, stop: CancellationToken) {
        let mut was_well = true;
        loop {
            let ends = tokio::select! {
                () = stop.cancelled() => true,
                () = self.metrics.traces.many() => false,
                () = tokio::time::sleep(PAUSE) => false,
            };
            loop {
                // With each batch: while they take long there is always another, and that is when spans find no room.
                self.count("dropped", self.metrics.traces.take_dropped());
                let batch = self.metrics.traces.take();
                if batch.is_empty() {
                    break;
                }
                was_well = self.export(&batch, was_well, &stop).await;
            }
            if ends {
                return;
            }
        }
    }

    /// Sends a batch, and says in the log when the collector begins or ends to refuse. Answers whether it was taken.
    async fn export(&self, batch: &[Span], was_well: bool, stop: &CancellationToken) -> bool {
        let all = batch.len() as u64;
        match self.send_again(batch, stop).await {
            Ok(refused) => {
                self.count("exported", all.saturating_sub(refused));
                self.count("refused", refused);
                if !was_well {
                    tracing::info!("the collector takes spans again");
                }
                true
            }
            Err(why) => {
                self.count("failed", all);
                if was_well {
                    tracing::warn!("spans are lost, because the collector does not take them: {why}");
                }
                false
            }
        }
    }

    /// Sends a batch, again where that may help. Answers how many spans of it the collector refused.
    async fn send_again(&self, batch: &[Span], stop: &CancellationToken) -> Result<u64, String> {
        let body = Bytes::from(json::message(batch).to_string());
        let mut pauses = AGAIN.into_iter();
        loop {
            let why = match self.send(body.clone()).await {
                Sent::Taken(refused) => return Ok(refused),
                Sent::Never(why) => return Err(why),
                Sent::Later(why) => why,
            };
            let Some(pause) = pauses.next() else { return Err(why) };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(why);
            }
        }
    }

    async fn send(&self, body: Bytes) -> Sent {
        let outgoing = match self.outgoing(body) {
            Ok(outgoing) => outgoing,
            Err(why) => return Sent::Never(why),
        };
        match self.clients.send(outgoing).await {
            Ok(received) => read(&received),
            Err(failure) if failure.passing() => Sent::Later(failure.to_string()),
            Err(failure) => Sent::Never(failure.to_string()),
        }
    }

    fn outgoing(&self, body: Bytes) -> Result<Outgoing, String> {
        let Trace { endpoint, headers, timeout, .. } = &self.settings;
        let base = Base::parse(endpoint.as_str(), false).map_err(|error| error.to_string())?;
        let mut all: HeaderMap = headers.iter().cloned().collect();
        all.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Outgoing {
            towards: Towards::Destination { id: Arc::from(TOWARDS) },
            caller: None,
            method: Method::POST,
            origin: base.origin,
            path: format!("{}/v1/traces", base.path),
            query: None,
            secret_query: None,
            headers: all,
            body,
            timeouts: Timeouts { response: *timeout, total: *timeout, ..Timeouts::default() },
            limit: ANSWER,
        })
    }

    fn count(&self, result: &str, count: u64) {
        if count > 0 {
            self.metrics.spans.with_label_values(&[result]).inc_by(count);
        }
    }
}

/// What an answer says: only these statuses ask for another try.
fn read(received: &Received) -> Sent {
    let status = received.status;
    if status.is_success() {
        let told: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        let refused = &told["partialSuccess"]["rejectedSpans"];
        // A 64-bit number is text in this JSON, and some write a number all the same.
        let refused = refused.as_u64().or_else(|| refused.as_str()?.parse().ok());
        return Sent::Taken(refused.unwrap_or(0));
    }
    let why = format!("it answered {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Sent::Later(why),
        _ => Sent::Never(why),
    }
}
