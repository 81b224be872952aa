//! A request as the mock sees it, and what it tells of it. Called by the whole room.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use serde_json::{Map, Value, json};
use url::Url;

use super::credential::Gate;

/// A whole request.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// The method.
    pub method: Method,
    /// The path below the service's root, beginning with a slash.
    pub path: String,
    /// Query parameters in order, decoded.
    pub query: Vec<(String, String)>,
    /// The query as it came.
    pub raw_query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Scheme, authority and mount path under which the caller reached the service; links begin so.
    pub origin: String,
    /// Where people reach the service at this mock, without a slash at its end.
    pub here: String,
}

impl Received {
    /// A header's first value, when it is text.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Where the caller reached it: whether by HTTPS, the authority, and the whole path. `None` when the call has no
    /// usable `Host`.
    pub fn reached(&self) -> Option<(bool, String, String)> {
        let reached = Url::parse(&self.origin).ok()?;
        let host = reached.host_str()?;
        let authority = reached.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = format!("{}{}", reached.path().trim_end_matches('/'), self.path);
        Some((reached.scheme() == "https", authority, path))
    }

    /// A query parameter's first value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The fields of a JSON or form body; none for other bodies.
    pub fn fields(&self) -> Map<String, Value> {
        let content_type = self.header(&http::header::CONTENT_TYPE).unwrap_or_default();
        if content_type.starts_with("application/x-www-form-urlencoded") {
            let pairs = url::form_urlencoded::parse(&self.body);
            return pairs.map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect();
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    }

    /// What arrived, for people: credentials are named and not shown.
    pub fn shown(&self, gate: &Gate) -> Value {
        let headers: Map<String, Value> = self
            .headers
            .iter()
            .map(|(name, value)| {
                let text = String::from_utf8_lossy(value.as_bytes());
                let shown =
                    if gate.is_header(name) || is_secret_name(name.as_str()) { hidden(&text) } else { text.into() };
                (name.to_string(), Value::from(shown))
            })
            .collect();
        let query: Map<String, Value> = self
            .query
            .iter()
            .map(|(name, value)| {
                let is_secret = gate.is_parameter(name) || is_secret_name(name);
                (name.clone(), Value::from(if is_secret { hidden(value) } else { value.clone() }))
            })
            .collect();
        json!({
            "method": self.method.as_str(),
            "path": self.path,
            "query": query,
            "headers": headers,
            "body": self.shown_body(gate),
        })
    }

    fn shown_body(&self, gate: &Gate) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        let mut fields = self.fields();
        let secrets = fields.iter_mut().filter(|(name, _)| gate.is_field(name));
        let count = secrets.map(|(_, value)| *value = hidden(value.as_str().unwrap_or_default()).into()).count();
        if count > 0 {
            return Value::Object(fields);
        }
        if let Ok(value) = serde_json::from_slice(&self.body) {
            return value;
        }
        match std::str::from_utf8(&self.body) {
            Ok(text) => Value::from(text),
            Err(_) => Value::from(format!("{} bytes that are not text", self.body.len())),
        }
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "cookie"
        || ["authorization", "token", "secret", "api-key", "api_key", "password"].iter().any(|w| name.contains(w))
}

/// The scheme, when there is one, and how long the rest is.
fn hidden(value: &str) -> String {
    match value.split_once(' ') {
        Some((scheme, rest)) => format!("{scheme} ({} characters, not shown)", rest.chars().count()),
        None => format!("({} characters, not shown)", value.chars().count()),
    }
}
