//! What is told of a call of signing in that was sent: its metrics, and its entry in the activity.
//!
//! Of headers and bodies nothing is kept: they are what secrets go in. Called by `flow` and `sign_in` around each call.

use std::sync::Arc;
use std::time::Duration;

use super::flow::Secrets;
use super::grant::Account;
use crate::activity::{Activity, Asker, CallRecord, Course, Told};
use crate::base::clock::Clock;
use crate::net::{Failure, Outgoing, Received, heard, is_unsent};
use crate::telemetry::metrics::Metrics;

/// Where it is told.
#[derive(Clone, Copy)]
pub(super) struct Books<'a> {
    /// Time.
    pub clock: &'a Arc<dyn Clock>,
    /// What is counted.
    pub metrics: &'a Metrics,
    /// What happened.
    pub activity: &'a Activity,
}

/// What a call is to those who read of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Called<'a> {
    /// The field of the definition's `auth` that describes it.
    pub field: &'static str,
    /// What must not be read of it.
    pub secrets: &'a Secrets,
}

/// A call that is about to be sent.
pub(super) struct Leaving<'a> {
    books: Books<'a>,
    called: Called<'a>,
    record: CallRecord,
    began: Duration,
}

impl<'a> Leaving<'a> {
    /// One that is sent now.
    pub fn now(books: Books<'a>, account: &Account<'_>, called: Called<'a>, outgoing: &Outgoing) -> Self {
        let record = CallRecord {
            at: books.clock.now(),
            generation: account.generation.number,
            integration: Arc::clone(&account.integration.id),
            connection: Arc::from(account.connection),
            asker: Asker::SignIn,
            endpoint: Some(Arc::from(called.field)),
            method: outgoing.method.clone(),
            origin: Arc::from(outgoing.origin.to_string()),
            // A session or a key may be part of an address.
            path: called.secrets.redact_whole(&outgoing.path),
            status: None,
            error: None,
            duration_ms: 0,
            sent_bytes: outgoing.body.len() as u64,
            received_bytes: 0,
            course: Course::ONCE,
            told: Told::default(),
        };
        Self { books, called, record, began: books.clock.monotonic() }
    }

    /// It has ended.
    pub fn ended(self, sent: &Result<Received, Failure>) {
        let Self { books, called, record, began } = self;
        let took = books.clock.monotonic().saturating_sub(began);
        let (metrics, id) = (books.metrics, &*record.integration);
        let told = match sent {
            Ok(received) => {
                metrics.upstream_requests.with_label_values(&[id, received.status.as_str()]).inc();
                metrics.upstream_request_duration.with_label_values(&[id]).observe(took.as_secs_f64());
                Told::default()
            }
            Err(failure) => {
                metrics.upstream_requests.with_label_values(&[id, "error"]).inc();
                metrics.upstream_errors.with_label_values(&[id, failure.reason.word()]).inc();
                let told = Told::of_error(failure);
                Told { causes: told.causes.iter().map(|words| called.secrets.redact(words)).collect(), ..told }
            }
        };
        books.activity.record(CallRecord {
            status: sent.as_ref().ok().map(|received| received.status.as_u16()),
            error: sent.as_ref().err().map(|failure| failure.refusal().code()),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            sent_bytes: if is_unsent(sent) { 0 } else { record.sent_bytes },
            received_bytes: heard(sent),
            told: told.traced(),
            ..record
        });
    }
}
