//! One entry of the activity: what is kept of a call, and how it is written into the files.

use std::sync::Arc;

use http::Method;
use serde::{Deserialize, Deserializer, Serialize};

use super::content::Kept;
use super::{Asker, CallRecord, as_text};
use crate::base::clock::Timestamp;
use crate::base::id::ActivityId;
use crate::respond::Refusal;

/// The most bytes of a path that are kept.
const PATH: usize = 1_024;
/// The most causes that are kept, and the most bytes of each.
const CAUSES: usize = 8;
const CAUSE: usize = 512;

/// A call or a webhook that has ended. Holds no query, and of headers and bodies what [`super::content`] keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its id, which is also its place among all.
    pub id: ActivityId,
    /// When it began.
    pub at: Timestamp,
    /// The generation it belonged to.
    pub generation: u64,
    /// The integration.
    pub integration: Arc<str>,
    /// The connection; empty for a webhook that came to no endpoint of one.
    pub connection: Arc<str>,
    /// Who asked for it.
    pub asker: Asker,
    /// The endpoint, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Arc<str>>,
    /// The method.
    #[serde(serialize_with = "as_text", deserialize_with = "method")]
    pub method: Method,
    /// Scheme, host and port that were called; empty where nothing was.
    pub origin: Arc<str>,
    /// The path, without the query.
    pub path: String,
    /// The status of the answer; none when there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The gateway's error code, when the call did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
    /// What led to that, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The request's id at the proxy door, where it came by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Box<str>>,
    /// The trace it belongs to, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Box<str>>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Bytes of the body that were sent.
    pub sent_bytes: u64,
    /// Bytes of the answer's body that were received.
    pub received_bytes: u64,
    /// How often it was tried; zero for what was answered or refused here.
    pub attempts: u32,
    /// How long it waited for its turns and between tries, in milliseconds.
    pub waited_ms: u64,
    /// What the cache made of it: a word of `trunkline_cache_requests_total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Arc<str>>,
    /// What it carried, where that is kept.
    #[serde(default, skip_serializing_if = "Kept::is_left_out")]
    pub content: Kept,
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ActivityKind)]
pub enum Kind {
    /// A call of an application.
    Call,
    /// A call that a delivery made.
    Delivery,
    /// How a person's way through a connect flow ended.
    Connect,
    /// A test of a connection.
    Test,
    /// A call for a token.
    SignIn,
    /// A call that sets webhooks up at a service, or takes them back.
    Subscription,
    /// A call that brings a kept answer up to date.
    Refresh,
    /// A webhook that was taken in.
    Webhook,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Call,
        Self::Delivery,
        Self::Connect,
        Self::Test,
        Self::SignIn,
        Self::Subscription,
        Self::Refresh,
        Self::Webhook,
    ];

    /// What it is about when this one asked.
    pub fn of(asker: &Asker) -> Self {
        match asker {
            Asker::Caller(_) => Self::Call,
            Asker::Delivery(_) => Self::Delivery,
            Asker::Connect => Self::Connect,
            Asker::Test => Self::Test,
            Asker::SignIn => Self::SignIn,
            Asker::Webhook => Self::Subscription,
            Asker::Cache => Self::Refresh,
            Asker::Event(_) => Self::Webhook,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Delivery => "delivery",
            Self::Connect => "connect",
            Self::Test => "test",
            Self::SignIn => "sign_in",
            Self::Subscription => "subscription",
            Self::Refresh => "refresh",
            Self::Webhook => "webhook",
        }
    }
}

/// Which way it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ActivityDirection)]
pub enum Direction {
    /// From a service, or a person's browser, to us.
    In,
    /// From us to a service.
    Out,
}

impl Entry {
    /// What is kept of a call, by its id.
    pub(super) fn of(id: ActivityId, call: CallRecord) -> Self {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            id,
            at: call.at,
            generation: call.generation,
            integration: call.integration,
            connection: call.connection,
            asker: call.asker,
            endpoint: call.endpoint,
            method: call.method,
            origin: call.origin,
            path: cut(call.path, PATH),
            status: call.status,
            error: call.error.map(Arc::from),
            causes: call.told.causes.into_iter().take(CAUSES).map(|cause| cut(cause, CAUSE)).collect(),
            request_id: call.told.request_id,
            trace: call.told.trace.map(|trace| trace.to_string().into()),
            duration_ms: call.duration_ms,
            sent_bytes: call.sent_bytes,
            received_bytes: call.received_bytes,
            attempts: call.course.attempts,
            waited_ms: millis(call.course.waited),
            cache: call.course.cache.map(Arc::from),
            content: Kept::default(),
        }
    }

    /// Whether it ended badly: with a refusal of ours, an error of the service, or without any answer. How a connect
    /// flow ended is no call, so that it has no status when all is well.
    pub fn has_failed(&self) -> bool {
        super::is_failure(&self.asker, self.error.is_some(), self.status)
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        Kind::of(&self.asker)
    }

    /// Which way it went.
    pub fn direction(&self) -> Direction {
        match self.asker {
            Asker::Event(_) | Asker::Connect => Direction::In,
            _ => Direction::Out,
        }
    }

    /// The application that asked for it, where one did.
    pub fn caller(&self) -> Option<&str> {
        match &self.asker {
            Asker::Caller(caller) => Some(caller),
            _ => None,
        }
    }

    /// The event that it is of: the webhook's own, or the one whose delivery it was.
    pub fn event(&self) -> Option<&str> {
        match &self.asker {
            Asker::Event(event) => Some(event),
            Asker::Delivery(delivery) => delivery.split('.').next(),
            _ => None,
        }
    }

    /// It in a few words, for people: `POST /v1/charges → 402`.
    pub fn summary(&self) -> String {
        let ended = match (&self.error, self.status) {
            (Some(code), _) => code.to_string(),
            (None, Some(status)) => status.to_string(),
            (None, None) if self.has_failed() => "no answer".to_owned(),
            (None, None) => "connected".to_owned(),
        };
        format!("{} {} → {ended}", self.method, if self.path.is_empty() { "/" } else { &self.path })
    }

    /// What went wrong, where something did.
    pub fn error_message(&self) -> Option<String> {
        if let Some(code) = &self.error {
            let known = Refusal::ALL.iter().find(|refusal| refusal.code() == &**code);
            return Some(known.map_or_else(|| code.replace('_', " "), |refusal| refusal.title().to_owned()));
        }
        let status = self.status.filter(|_| self.has_failed());
        status.map(|status| format!("The service answered {status}"))
    }

    /// What goes into the files.
    pub(super) fn encode(&self, into: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(into, self)
    }

    /// What came out of them.
    pub(super) fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }
}

/// The beginning of a text that is too long.
fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::call;
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for (number, asker) in
            [Asker::Caller("a".into()), Asker::Event("evt_1".to_owned()), Asker::SignIn].into_iter().enumerate()
        {
            let told = super::super::Told {
                request_id: Some("r-1".into()),
                causes: vec!["why".to_owned()],
                ..super::super::Told::default()
            };
            let record = CallRecord { asker, error: Some("service_timeout"), told, ..call(number as u64) };
            let entry = Entry::of(ActivityId::from_u64(7), record);
            let mut bytes = Vec::new();
            entry.encode(&mut bytes).expect("JSON");
            assert_eq!(Entry::decode(&bytes).expect("own JSON"), entry);
        }
    }

    #[test]
    fn it_tells_what_went_wrong_in_words() {
        let of = |record| Entry::of(ActivityId::from_u64(1), record);
        assert_eq!(of(call(1)).error_message(), None);
        assert_eq!(of(call(1)).summary(), "GET / → 200");
        let refused = of(CallRecord { error: Some("rate_limited"), status: None, ..call(1) });
        assert_eq!(refused.error_message().as_deref(), Some(Refusal::RateLimited.title()));
        let failed = of(CallRecord { status: Some(503), ..call(1) });
        assert_eq!(failed.error_message().as_deref(), Some("The service answered 503"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("aé".to_owned(), 2), "a");
        assert_eq!(cut("aé".to_owned(), 3), "aé");
    }
}
