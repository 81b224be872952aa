//! The public door: what the internet may ask for. Webhooks go to their receiver; nothing here adds a
//! credential or shows data.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::Shared;
use crate::proxy::stream::DoorStream;
use crate::proxy::{answer, intake};
use crate::respond::{Answer, Refusal};
use crate::webhook::door::{Receive, RequestHead};

/// What metrics call a request that is for no known integration.
const OTHER: &str = "other";

/// The public door's application.
pub struct PublicDoor {
    shared: Shared,
    receiver: Arc<dyn Receive>,
}

/// What is remembered of one request.
pub struct Context {
    began: Duration,
    integration: Arc<str>,
}

impl PublicDoor {
    /// A door that hands webhooks to `receiver`.
    pub fn new(shared: Shared, receiver: Arc<dyn Receive>) -> Self {
        Self { shared, receiver }
    }

    /// The path is a list: route, admit, read, receive.
    async fn handle(&self, session: &mut Session, context: &mut Context) -> Answer {
        let integration = match route(session) {
            Route::Webhook(integration) => integration,
            Route::SignIn => return Refusal::NotYetRun.answer("sign-in is not yet run by this version"),
            Route::Nothing => return Refusal::NotFound.answer("there is nothing at this path"),
        };
        let head = head_of(session, integration);
        let admission = match self.receiver.admit(&head).await {
            Ok(admission) => admission,
            Err(refused) => return refused,
        };
        context.integration = Arc::clone(&admission.integration.id);
        match intake::whole_body(session, admission.max_body).await {
            Ok(body) => self.receiver.receive(admission, head, body).await,
            Err(refused) => refused,
        }
    }
}

enum Route {
    Webhook(String),
    SignIn,
    Nothing,
}

fn route(session: &Session) -> Route {
    let request = session.req_header();
    let path = request.uri.path();
    if let Some(integration) = path.strip_prefix("/webhooks/") {
        let known = !integration.is_empty()
            && integration.len() <= 64
            && integration.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        return if known { Route::Webhook(integration.to_owned()) } else { Route::Nothing };
    }
    let sign_in = path.starts_with("/api/connect/") || path.starts_with("/api/auth/callback/");
    if sign_in && request.method == Method::GET { Route::SignIn } else { Route::Nothing }
}

fn head_of(session: &Session, integration: String) -> RequestHead {
    let request = session.req_header();
    RequestHead {
        method: request.method.clone(),
        integration,
        query: request.uri.query().unwrap_or_default().to_owned(),
        target: String::from_utf8_lossy(request.raw_path()).into_owned(),
        headers: request.headers.clone(),
        source: session.stream().and_then(DoorStream::below).and_then(DoorStream::source),
        content_length: intake::declared_length(session),
    }
}

#[async_trait]
impl ProxyHttp for PublicDoor {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context { began: self.shared.clock.monotonic(), integration: Arc::from(OTHER) }
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora::Result<bool> {
        let given = self.handle(session, context).await;
        let metrics = &self.shared.metrics;
        if let Some((_, code)) = given.headers.iter().find(|(name, _)| *name == crate::respond::ERROR_HEADER) {
            let code = code.to_str().unwrap_or_default();
            metrics.http_refusals.with_label_values(&["public", code]).inc();
        }
        let status = given.status;
        let written = answer::write(session, given).await;
        let integration = &*context.integration;
        metrics.http_requests.with_label_values(&["public", integration, status.as_str()]).inc();
        let took = self.shared.clock.monotonic().saturating_sub(context.began);
        metrics.http_request_duration.with_label_values(&["public", integration]).observe(took.as_secs_f64());
        written.map(|()| true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "the public door answers every request itself")
    }

    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }
}
