//! A Vault server as its HTTP API describes it: tokens with leases, `AppRole` and Kubernetes logins, a KV
//! engine version 2, a Transit engine; sealed, slow to nobody, and down when told to.
//!
//! `tests/peers/python/hvac_client.py` holds a client that others wrote against it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Held;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The token that may do everything and does not expire.
pub const ROOT: &str = "hvs.root-token-for-tests";

/// A secret of the KV engine: its versions, the newest last; `None` for a deleted one.
type Versions = Vec<Option<Value>>;

#[derive(Default)]
pub struct State {
    /// Tokens by name: the seconds of their lease; 0 does not end.
    pub tokens: HashMap<String, u64>,
    /// Login secrets that are taken, as `approle:ROLE:SECRET` or `kubernetes:ROLE:JWT`.
    pub logins: Vec<String>,
    /// What a login's lease is, in seconds.
    pub lease: u64,
    /// What the KV engines hold, by mount and path.
    pub secrets: BTreeMap<String, Versions>,
    /// Paths that no token may read.
    pub forbidden: Vec<String>,
    /// Paths of which it says that something broke.
    pub broken: Vec<String>,
    /// Whether it is sealed: every request is refused with 503.
    pub sealed: bool,
    /// The namespace that requests must name.
    pub namespace: Option<String>,
    /// Requests so far, as `METHOD path`.
    pub seen: Vec<String>,
    wrapped: BTreeMap<String, String>,
    issued: usize,
}

/// The server. Dropping it ends it.
pub struct Vault {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
}

impl Vault {
    pub fn start() -> Self {
        let tokens = HashMap::from([(ROOT.to_owned(), 0)]);
        Self::with(Arc::new(Mutex::new(State { tokens, lease: 3_600, ..State::default() })), "127.0.0.1:0")
    }

    fn with(state: Arc<Mutex<State>>, address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        runtime.spawn(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
        Self { address, state, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Writes a version of a secret at the mount `secret`.
    pub fn put(&self, path: &str, data: Value) {
        self.state().secrets.entry(format!("secret/{path}")).or_default().push(Some(data));
    }

    /// Deletes the newest version.
    pub fn delete(&self, path: &str) {
        self.state().secrets.entry(format!("secret/{path}")).or_default().push(None);
    }

    /// How often something was asked for.
    pub fn count(&self, request: &str) -> usize {
        self.state().seen.iter().filter(|seen| *seen == request).count()
    }

    /// Nobody answers at its address any more, until [`Self::back`].
    pub fn down(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Answers again, with all it held.
    pub fn back(&mut self) {
        let again = (0..200).find_map(|_| {
            let free = std::net::TcpListener::bind(self.address).is_ok();
            if !free {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            free.then(|| Self::with(Arc::clone(&self.state), &self.address.to_string()))
        });
        *self = again.expect("its address is free again");
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn errors(status: u16, words: &[&str]) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(json!({ "errors": words }))).into_response()
}

fn ok(data: &Value, auth: &Value) -> Response {
    let answer = json!({
        "request_id": "0", "lease_id": "", "renewable": false, "lease_duration": 0, "wrap_info": null,
        "warnings": null, "mount_type": "", "data": data, "auth": auth,
    });
    axum::Json(answer).into_response()
}

async fn answer(
    Held(state): Held<Arc<Mutex<State>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut state = state.lock().unwrap();
    let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8().unwrap().into_owned();
    let Some(path) = path.strip_prefix("/v1/") else { return errors(404, &[]) };
    state.seen.push(format!("{method} {path}"));
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if state.sealed {
        return errors(503, &["Vault is sealed"]);
    }
    if header("x-vault-namespace") != state.namespace.as_deref() {
        return errors(403, &["permission denied"]);
    }
    if let Some(mount) = path.strip_prefix("auth/").and_then(|rest| rest.strip_suffix("/login")) {
        return state.login(mount, &body);
    }
    let Some(token) = header("x-vault-token").filter(|token| state.tokens.contains_key(*token)) else {
        return errors(403, &["permission denied", "invalid token"]);
    };
    if state.broken.iter().any(|broken| *broken == path) {
        return errors(500, &["internal error"]);
    }
    if state.forbidden.iter().any(|forbidden| forbidden == path) {
        return errors(403, &["1 error occurred:\n\t* permission denied\n\n"]);
    }
    state.signed_in(&method, path, token, &body)
}

impl State {
    fn login(&mut self, mount: &str, body: &Value) -> Response {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let given = match mount {
            "kubernetes" => format!("kubernetes:{}:{}", text("role"), text("jwt")),
            _ => format!("{mount}:{}:{}", text("role_id"), text("secret_id")),
        };
        if !self.logins.contains(&given) {
            return errors(400, &["invalid role or secret ID"]);
        }
        self.issued += 1;
        let token = format!("hvs.issued-{}", self.issued);
        self.tokens.insert(token.clone(), self.lease);
        ok(&Value::Null, &self.auth(&token))
    }

    fn auth(&self, token: &str) -> Value {
        let lease = self.tokens[token];
        json!({
            "client_token": token, "accessor": "a", "policies": ["default"], "token_policies": ["default"],
            "metadata": {}, "lease_duration": lease, "renewable": lease > 0, "entity_id": "", "token_type": "service",
            "orphan": true,
        })
    }

    fn signed_in(&mut self, method: &Method, path: &str, token: &str, body: &Value) -> Response {
        let segments: Vec<_> = path.splitn(3, '/').collect();
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["auth", "token", "lookup-self"]) => {
                let ttl = self.tokens[token];
                let data =
                    json!({ "id": token, "ttl": ttl, "creation_ttl": ttl, "renewable": ttl > 0, "policies": [] });
                ok(&data, &Value::Null)
            }
            ("POST" | "PUT", ["auth", "token", "renew-self"]) => ok(&Value::Null, &self.auth(token)),
            ("GET", [mount, "data", rest]) => self.read(&format!("{mount}/{rest}")),
            ("POST" | "PUT", [mount, "data", rest]) => {
                let versions = self.secrets.entry(format!("{mount}/{rest}")).or_default();
                versions.push(Some(body["data"].clone()));
                ok(&json!({ "created_time": "2026-01-01T00:00:00Z", "version": versions.len() }), &Value::Null)
            }
            ("POST" | "PUT", ["transit", "encrypt", key]) => {
                let plain = body["plaintext"].as_str().unwrap_or_default();
                if STANDARD.decode(plain).is_err() {
                    return errors(400, &["invalid request: plaintext is not base64"]);
                }
                let name = format!("vault:v1:{key}-{}", self.wrapped.len());
                self.wrapped.insert(name.clone(), plain.to_owned());
                ok(&json!({ "ciphertext": name, "key_version": 1 }), &Value::Null)
            }
            ("POST" | "PUT", ["transit", "decrypt", key]) => {
                let name = body["ciphertext"].as_str().unwrap_or_default();
                let plain = self.wrapped.get(name).filter(|_| name.starts_with(&format!("vault:v1:{key}-")));
                let Some(plain) = plain else { return errors(400, &["invalid ciphertext: no such key"]) };
                ok(&json!({ "plaintext": plain }), &Value::Null)
            }
            _ => errors(404, &[]),
        }
    }

    fn read(&self, path: &str) -> Response {
        let Some(versions) = self.secrets.get(path) else { return errors(404, &[]) };
        let newest = versions.last().unwrap();
        let metadata = json!({
            "created_time": "2026-01-01T00:00:00Z", "custom_metadata": null, "destroyed": false,
            "deletion_time": if newest.is_some() { "" } else { "2026-01-02T00:00:00Z" }, "version": versions.len(),
        });
        let answer = ok(&json!({ "data": newest, "metadata": metadata }), &Value::Null);
        if newest.is_some() { answer } else { (StatusCode::NOT_FOUND, answer).into_response() }
    }
}
