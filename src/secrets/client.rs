//! A signed-in client of a Vault server, for the few calls that the gateway makes.
//!
//! Requests are those of the HTTP API, version 1: `auth/*/login`, `auth/token/lookup-self`,
//! `auth/token/renew-self`, `MOUNT/data/PATH` of the KV engine version 2, and `encrypt` and `decrypt` of the
//! Transit engine. A token is renewed when two thirds of its lease are over; where it cannot be renewed, or
//! the server does not know it any more, the client signs in anew with what the settings say by then.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::definition::plan::api::{HttpVersions, Timeouts, Transport};
use crate::definition::plan::gateway::{VaultAuth, VaultServer};
use crate::net::{BodyLimit, Clients, Excess, Origin, Outgoing, Reach, Received, Scheme, Towards};

/// What a path may have in it as it is.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/').remove(b'@').remove(b':');
/// The most bytes of an answer; a secret of the KV engine has 1 MiB at most.
const MAX_ANSWER: usize = 2 << 20;
/// A token that was refused is not replaced more often: a path that is forbidden is refused with every one.
const SIGN_IN_PAUSE: Duration = Duration::from_secs(10);
/// How long what failed to be renewed is left alone.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// Gives the settings as they are now: a login's secret may be a file that changes.
pub type Reread = Arc<dyn Fn() -> Option<VaultServer> + Send + Sync>;

/// Why the server did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// It could not be reached, or did not answer.
    #[error("the Vault server at {0}")]
    Unreachable(String),
    /// It is sealed, or not yet set up.
    #[error("the Vault server is sealed or not initialised")]
    Sealed,
    /// It refused the sign-in.
    #[error("the Vault server refused the sign-in: {0}")]
    SignIn(String),
    /// It refused the request.
    #[error("the Vault server does not allow this token to do it: {0}")]
    Denied(String),
    /// What was asked for is not there.
    #[error("the Vault server has nothing there")]
    NotFound,
    /// It answered with another error.
    #[error("the Vault server answered {0}: {1}")]
    Refused(u16, String),
    /// Its answer is none of the API.
    #[error("the Vault server's answer has no {0}")]
    Answer(&'static str),
}

/// How the client is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// When the token should be renewed, on the monotonic clock; `None` for one that does not expire.
    pub renew_at: Option<Duration>,
}

struct Session {
    token: Secret,
    renewable: bool,
    since: Duration,
    renew_at: Option<Duration>,
}

/// A client of one server.
pub struct Client {
    server: Arc<VaultServer>,
    reread: Reread,
    clients: Clients,
    clock: Arc<dyn Clock>,
    session: Mutex<Option<Session>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.server.url.as_str()).finish_non_exhaustive()
    }
}

/// A request of the API.
struct Call<'a> {
    method: Method,
    path: String,
    token: Option<&'a str>,
    body: Option<Value>,
}

impl Client {
    /// A client that has not signed in. `reread` gives the settings anew at each sign-in.
    pub fn new(server: Arc<VaultServer>, reread: Reread, clients: Clients, clock: Arc<dyn Clock>) -> Self {
        Self { server, reread, clients, clock, session: Mutex::new(None) }
    }

    /// The settings it was made from.
    pub fn server(&self) -> &Arc<VaultServer> {
        &self.server
    }

    /// The fields of the newest version of a secret; those that hold no text, number or truth value have
    /// no content.
    ///
    /// # Errors
    /// [`VaultError::NotFound`] also for a secret whose newest version was deleted.
    pub async fn read(&self, path: &str) -> Result<BTreeMap<String, Option<Secret>>, VaultError> {
        let answer = self.ask(Method::GET, &format!("{}/data/{path}", self.server.mount), None).await?;
        let data = match answer.pointer("/data/data") {
            Some(Value::Object(data)) => data,
            Some(Value::Null) => return Err(VaultError::NotFound),
            _ => return Err(VaultError::Answer("`data.data`, as the KV engine version 2 has it")),
        };
        let text = |value: &Value| match value {
            Value::String(text) => Some(Secret::new(text.clone())),
            Value::Number(number) => Some(Secret::new(number.to_string())),
            Value::Bool(truth) => Some(Secret::new(truth.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        Ok(data.iter().map(|(field, value)| (field.clone(), text(value))).collect())
    }

    /// Runs an operation of the Transit engine with one input field, and gives one output field.
    ///
    /// # Errors
    /// When the server does not do it.
    pub async fn transit(&self, path: &str, input: (&str, &str), output: &'static str) -> Result<Secret, VaultError> {
        let answer = self.ask(Method::POST, path, Some(json!({ input.0: input.1 }))).await?;
        let given = answer.get("data").and_then(|data| data.get(output)).and_then(Value::as_str);
        given.map(Secret::from).ok_or(VaultError::Answer(output))
    }

    /// Signs in where needed, and renews what is due.
    ///
    /// # Errors
    /// When there is no usable token.
    pub async fn keep_signed_in(&self) -> Result<Signed, VaultError> {
        let mut session = self.session.lock().await;
        self.usable(&mut session).await.map(|session| Signed { renew_at: session.renew_at })
    }

    /// Whether it was ever needed.
    pub async fn is_signed_in(&self) -> bool {
        self.session.lock().await.is_some()
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, VaultError> {
        for last in [false, true] {
            let (token, since) = {
                let mut session = self.session.lock().await;
                let session = self.usable(&mut session).await?;
                (Secret::new(session.token.expose().clone()), session.since)
            };
            let call =
                Call { method: method.clone(), path: path.to_owned(), token: Some(token.expose()), body: body.clone() };
            let answered = self.send(call).await;
            let fresh = self.clock.monotonic().saturating_sub(since) < SIGN_IN_PAUSE;
            match answered {
                Err(VaultError::Denied(_)) if !last && !fresh => self.forget(&token).await,
                answered => return answered,
            }
        }
        Err(VaultError::Denied("permission denied".to_owned()))
    }

    /// Lets go of a token that was refused, unless another has replaced it.
    async fn forget(&self, token: &Secret) {
        let mut session = self.session.lock().await;
        session.take_if(|session| session.token.expose() == token.expose());
    }

    async fn usable<'a>(&self, held: &'a mut Option<Session>) -> Result<&'a Session, VaultError> {
        let now = self.clock.monotonic();
        let due = held.as_ref().is_some_and(|session| session.renew_at.is_some_and(|at| at <= now));
        if due && let Some(session) = held.take() {
            *held = self.renewed(session).await;
        }
        if held.is_none() {
            *held = Some(self.sign_in().await?);
        }
        held.as_ref().ok_or(VaultError::Answer("token"))
    }

    /// The session with a longer lease; `None` when there must be a new one.
    async fn renewed(&self, session: Session) -> Option<Session> {
        if !session.renewable {
            return None;
        }
        let call = Call {
            method: Method::POST,
            path: "auth/token/renew-self".to_owned(),
            token: Some(session.token.expose()),
            body: Some(json!({})),
        };
        match self.send(call).await {
            Ok(answer) => {
                let (renewable, renew_at) = self.lease(&answer["auth"], "lease_duration");
                Some(Session { renewable, renew_at, ..session })
            }
            // It may still be good, and is asked about again soon.
            Err(VaultError::Unreachable(_) | VaultError::Sealed) => {
                Some(Session { renew_at: Some(self.clock.monotonic() + RENEWAL_PAUSE), ..session })
            }
            Err(_) => None,
        }
    }

    async fn sign_in(&self) -> Result<Session, VaultError> {
        let now = (self.reread)().map(|server| server.auth);
        let since = self.clock.monotonic();
        let refused = |error| match error {
            VaultError::Denied(words) | VaultError::Refused(400 | 401, words) => VaultError::SignIn(words),
            error => error,
        };
        match now.as_ref().unwrap_or(&self.server.auth) {
            VaultAuth::Token(token) => {
                let path = "auth/token/lookup-self".to_owned();
                let call = Call { method: Method::GET, path, token: Some(token.expose()), body: None };
                let answer = self.send(call).await.map_err(refused)?;
                let (renewable, renew_at) = self.lease(&answer["data"], "ttl");
                Ok(Session { token: Secret::new(token.expose().clone()), renewable, since, renew_at })
            }
            VaultAuth::Login { mount, fields } => {
                let body = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value.expose()))).collect();
                let path = format!("auth/{mount}/login");
                let call = Call { method: Method::POST, path, token: None, body: Some(Value::Object(body)) };
                let answer = self.send(call).await.map_err(refused)?;
                let token = answer.pointer("/auth/client_token").and_then(Value::as_str);
                let token = token.map(Secret::from).ok_or(VaultError::Answer("`auth.client_token`"))?;
                let (renewable, renew_at) = self.lease(&answer["auth"], "lease_duration");
                Ok(Session { token, renewable, since, renew_at })
            }
        }
    }

    /// Whether a token can be renewed, and when it should be. A lease of nothing does not end.
    fn lease(&self, of: &Value, field: &str) -> (bool, Option<Duration>) {
        let seconds = of.get(field).and_then(Value::as_u64).unwrap_or_default();
        let renewable = of.get("renewable").and_then(Value::as_bool).unwrap_or_default();
        let lease = Duration::from_secs(seconds);
        (renewable, (seconds > 0).then(|| self.clock.monotonic() + lease * 2 / 3))
    }

    async fn send(&self, call: Call<'_>) -> Result<Value, VaultError> {
        let outgoing = self.outgoing(call)?;
        let answered = self.clients.send(outgoing).await;
        let received = answered.map_err(|failure| VaultError::Unreachable(failure.to_string()))?;
        read(&received)
    }

    fn outgoing(&self, call: Call<'_>) -> Result<Outgoing, VaultError> {
        let server = &self.server;
        let scheme = if server.url.scheme() == "https" { Scheme::Https } else { Scheme::Http };
        let host = server.url.host_str().unwrap_or_default().to_ascii_lowercase();
        let origin = Origin { scheme, host, port: server.url.port_or_known_default().unwrap_or(8200) };
        let transport = Transport {
            identity: None,
            ca: server.ca.clone(),
            allow_private: true,
            allow_plain_http: scheme == Scheme::Http,
            http: HttpVersions::Best,
        };
        let body = call.body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let time = server.timeout;
        Ok(Outgoing {
            // A server of the operator's own: it may be anywhere that a destination may be.
            towards: Towards::Service {
                integration: Arc::from("secrets.vault"),
                transport,
                reach: Reach::of_destination(),
            },
            caller: None,
            method: call.method,
            origin,
            path: format!("/v1/{}", utf8_percent_encode(&call.path, PLAIN)),
            query: None,
            secret_query: None,
            headers: self.headers(call.token)?,
            body,
            timeouts: Timeouts { connect: time, response: time, idle: time, total: time },
            limit: BodyLimit { bytes: MAX_ANSWER, excess: Excess::Refuse },
        })
    }

    fn headers(&self, token: Option<&str>) -> Result<HeaderMap, VaultError> {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true"));
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut set = |name: &'static str, text: &str| {
            let value = HeaderValue::from_str(text)
                .map_err(|_| VaultError::SignIn("the token or namespace is not one line of text".to_owned()))?;
            headers.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        if let Some(token) = token {
            set("x-vault-token", token)?;
        }
        if let Some(namespace) = &self.server.namespace {
            set("x-vault-namespace", namespace)?;
        }
        Ok(headers)
    }
}

/// An answer as JSON, or the error it is.
fn read(received: &Received) -> Result<Value, VaultError> {
    let body: Option<Value> = serde_json::from_slice(&received.body).ok();
    match received.status {
        StatusCode::OK => body.ok_or(VaultError::Answer("JSON")),
        StatusCode::NO_CONTENT => Ok(Value::Null),
        status => Err(refusal(status, body.as_ref())),
    }
}

fn refusal(status: StatusCode, body: Option<&Value>) -> VaultError {
    let listed = body.and_then(|body| body.get("errors")).and_then(Value::as_array);
    let words: Vec<_> = listed.into_iter().flatten().filter_map(Value::as_str).collect();
    let words: String = words.join("; ").chars().filter(|c| !c.is_control()).take(200).collect();
    let words = crate::telemetry::log::redact(&words).into_owned();
    let words = if words.is_empty() { "no reason given".to_owned() } else { words };
    match status {
        StatusCode::FORBIDDEN => VaultError::Denied(words),
        StatusCode::NOT_FOUND => VaultError::NotFound,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_IMPLEMENTED => VaultError::Sealed,
        status => VaultError::Refused(status.as_u16(), words),
    }
}
