//! The user's own application, played for the quickstart: takes deliveries, checks their signature by
//! Standard Webhooks, and prints each.
//!
//! It is what a reader would write, small enough to copy: check the time, check the signature over
//! `id.timestamp.body`, answer 2xx. Called by `cli` and by tests.

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use super::server::whole;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::respond::Answer;

/// How far a delivery's time may lie off.
const TOLERANCE_SECONDS: u64 = 300;
/// Lines of a body that are printed.
const SHOWN_LINES: usize = 40;

/// The application.
pub struct App {
    secret: Secret,
    clock: Arc<dyn Clock>,
    out: Mutex<Box<dyn Write + Send>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Doubt {
    #[error("the header `{0}` is missing")]
    Missing(&'static str),
    #[error("the time is more than five minutes off")]
    Time,
    #[error("no signature matches")]
    Signature,
}

impl App {
    /// An application that shares `secret` with the gateway's destination and prints to `out`.
    pub fn new(secret: Secret, clock: Arc<dyn Clock>, out: Box<dyn Write + Send>) -> Self {
        Self { secret, clock, out: Mutex::new(out) }
    }

    /// Serves until `stop` is ready.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let router = Router::new().fallback(take).with_state(self);
        axum::serve(listener, router).with_graceful_shutdown(stop).await
    }

    fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Doubt> {
        let id = header(headers, "webhook-id")?;
        let timestamp = header(headers, "webhook-timestamp")?;
        let signatures = header(headers, "webhook-signature")?;
        let now = self.clock.now().seconds();
        let sent: u64 = timestamp.parse().map_err(|_| Doubt::Time)?;
        if now.abs_diff(sent) > TOLERANCE_SECONDS {
            return Err(Doubt::Time);
        }
        let key = standard_key(self.secret.expose());
        let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&key) else { return Err(Doubt::Signature) };
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        let matches = |signature: &str| {
            let digest = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
            // `verify_slice` compares in constant time.
            digest.is_some_and(|digest| mac.clone().verify_slice(&digest).is_ok())
        };
        if signatures.split(' ').any(matches) { Ok(()) } else { Err(Doubt::Signature) }
    }

    fn print(&self, id: &str, verdict: Result<(), Doubt>, body: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        match verdict {
            Ok(()) => writeln!(out, "\n  app: delivery {id}, signature verified")?,
            Err(doubt) => writeln!(out, "\n  app: delivery {id} REFUSED: {doubt}")?,
        }
        let text = match serde_json::from_slice::<Value>(body) {
            Ok(value) => serde_json::to_string_pretty(&value).unwrap_or_default(),
            Err(_) => format!("{} bytes that are not JSON", body.len()),
        };
        for line in text.lines().take(SHOWN_LINES) {
            writeln!(out, "    {line}")?;
        }
        let hidden = text.lines().count().saturating_sub(SHOWN_LINES);
        if hidden > 0 {
            writeln!(out, "    … {hidden} more lines")?;
        }
        writeln!(out)?;
        out.flush()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Doubt> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or(Doubt::Missing(name))
}

/// The key of a Standard Webhooks secret: base 64 after `whsec_`. A secret without that prefix is taken
/// byte for byte.
fn standard_key(secret: &str) -> Vec<u8> {
    secret
        .strip_prefix("whsec_")
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .unwrap_or_else(|| secret.as_bytes().to_vec())
}

async fn take(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let verdict = app.check(&headers, &body);
    let id = header(&headers, "webhook-id").unwrap_or("without id");
    if let Err(error) = app.print(id, verdict, &body) {
        tracing::warn!(%error, "a delivery could not be printed");
    }
    let answer = match verdict {
        Ok(()) => Answer::empty(StatusCode::NO_CONTENT),
        Err(doubt) => Answer::json(StatusCode::UNAUTHORIZED, &json!({ "error": doubt.to_string() })),
    };
    whole(answer, Body::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};

    // The example of the Standard Webhooks specification.
    const SECRET: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl";
    const BODY: &[u8] = br#"{"event_type":"ping","data":{"success":true}}"#;

    fn check(signature: &str, at: u64, body: &[u8]) -> Result<(), Doubt> {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(at)));
        let app = App::new(Secret::from(SECRET), clock, Box::new(io::sink()));
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "msg_loFOjxBNrRLzqYUf".parse().expect("a value"));
        headers.insert("webhook-timestamp", "1731705121".parse().expect("a value"));
        headers.insert("webhook-signature", signature.parse().expect("a value"));
        app.check(&headers, body)
    }

    #[test]
    fn the_specifications_example_is_believed_and_changes_are_not() {
        let good = "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=";
        assert_eq!(check(good, 1_731_705_121, BODY), Ok(()));
        assert_eq!(check(&format!("v1,AAAA {good}"), 1_731_705_121, BODY), Ok(()));
        assert_eq!(check(good, 1_731_705_121, b"{}"), Err(Doubt::Signature));
        assert_eq!(check(good, 1_731_705_500, BODY), Err(Doubt::Time));
    }
}
