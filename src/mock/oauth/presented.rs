//! A call to the authorization server as it arrived, compared with how the definition declares it.
//!
//! What a definition writes out (a literal parameter, a header, a renamed field) is a fact of the service,
//! so a call that lacks it is refused: a client that forgot it would fail there too. Called by `token`,
//! `device` and `taking_back`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header;

use crate::base::secret::Secret;
use crate::definition::plan::oauth2::{Client, ClientAuth, ParamsIn, TokenCall};
use crate::definition::plan::request::{Body, Request, Target};
use crate::mock::received::Received;
use crate::template::{Context, Segment, Text, Tree};

/// Why a call is refused, by the codes of RFC 6749 §5.2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Complaint {
    /// The application did not prove itself as declared.
    #[error("{0}")]
    Client(String),
    /// The call is not of the declared form.
    #[error("{0}")]
    Request(String),
    /// What is presented is no good.
    #[error("{0}")]
    Grant(String),
    /// What RFC 8628 §3.5 tells a device that asks.
    #[error("{0}")]
    Device(&'static str),
    /// A grant that the definition does not declare.
    #[error("the grant type is not `{0}`")]
    GrantType(String),
}

impl Complaint {
    /// The error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Client(_) => "invalid_client",
            Self::Request(_) => "invalid_request",
            Self::Grant(_) => "invalid_grant",
            Self::Device(code) => code,
            Self::GrantType(_) => "unsupported_grant_type",
        }
    }
}

/// The standard parameters of a call, under their standard names.
#[derive(Debug)]
pub(super) struct Presented<'a> {
    pub received: &'a Received,
    call: &'a TokenCall,
    params: Vec<(String, String)>,
}

impl<'a> Presented<'a> {
    /// Reads the parameters from where the definition puts them; those elsewhere do not count.
    pub fn new(received: &'a Received, call: &'a TokenCall) -> Self {
        let params = match call.params_in {
            ParamsIn::Query => received.query.clone(),
            ParamsIn::Form if is_form(received) => texts(received),
            ParamsIn::Json if !is_form(received) => texts(received),
            ParamsIn::Form | ParamsIn::Json | ParamsIn::Nowhere => Vec::new(),
        };
        Self { received, call, params }
    }

    /// The name under which a standard parameter is sent; `None` when it is not.
    pub fn name<'b>(&'b self, standard: &'b str) -> Option<&'b str> {
        if self.call.omit.iter().any(|name| name == standard) {
            return None;
        }
        let renamed = self.call.rename.iter().find(|(from, _)| from == standard);
        Some(renamed.map_or(standard, |(_, to)| to.as_str()))
    }

    /// A standard parameter's value.
    pub fn value(&self, standard: &str) -> Option<&str> {
        let name = self.name(standard)?;
        self.params.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// The application's id, from wherever it stands.
    pub fn client_id(&self) -> Option<String> {
        let basic = self.received.header(&header::AUTHORIZATION).and_then(basic_pair);
        self.value("client_id").map(str::to_owned).or_else(|| basic.map(|(id, _)| decoded(&id)))
    }

    /// Whether the call names an application, or is declared to.
    pub fn names_client(&self) -> bool {
        self.call.request.basic.is_some() || self.client_id().is_some()
    }

    /// A standard parameter's value, which must be there unless the definition omits it.
    pub fn needed(&self, standard: &str) -> Result<Option<&str>, Complaint> {
        match (self.name(standard), self.value(standard)) {
            (Some(name), None) if self.call.params_in != ParamsIn::Nowhere => {
                Err(Complaint::Request(format!("the parameter `{name}` is missing from the {}", self.place())))
            }
            (_, value) => Ok(value),
        }
    }

    fn place(&self) -> &'static str {
        match self.call.params_in {
            ParamsIn::Form => "form",
            ParamsIn::Json => "JSON object",
            ParamsIn::Query => "query",
            ParamsIn::Nowhere => "body",
        }
    }

    /// Every value in the call that may be a token or a code.
    pub fn values(&self) -> Vec<String> {
        values(self.received)
    }
}

/// Every text of a call that may be a token or a code: parameters, fields at any depth, the path, the words
/// of headers.
pub(super) fn values(received: &Received) -> Vec<String> {
    fn walk(value: &serde_json::Value, out: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) => out.push(text.clone()),
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, out)),
            serde_json::Value::Object(map) => map.values().for_each(|item| walk(item, out)),
            _ => {}
        }
    }
    let mut out: Vec<String> = received.query.iter().map(|(_, value)| value.clone()).collect();
    walk(&serde_json::Value::Object(received.fields()), &mut out);
    out.extend(received.path.split('/').map(str::to_owned));
    let headers = received.headers.values().filter_map(|value| value.to_str().ok());
    out.extend(headers.flat_map(str::split_whitespace).map(str::to_owned));
    out.extend(std::str::from_utf8(&received.body).ok().filter(|body| body.starts_with("mock-")).map(str::to_owned));
    out
}

fn is_form(received: &Received) -> bool {
    received.header(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

fn texts(received: &Received) -> Vec<(String, String)> {
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    received.fields().into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Whether a call has what the definition writes out for it.
pub(super) fn as_declared(request: &Request, client: Option<&Client>, received: &Received) -> Result<(), Complaint> {
    let missing = |what: String| Err(Complaint::Request(format!("{what}, as the definition declares it, is missing")));
    let has = |pairs: &[(String, String)], name: &str, value: &str| {
        pairs.iter().any(|(known, given)| known == name && given == value)
    };
    for (name, value) in target_query(&request.target) {
        if !has(&received.query, &name, &value) {
            return missing(format!("`{name}` of the address's own query"));
        }
    }
    for (name, tree) in &request.query {
        if expected(tree, client).is_some_and(|value| !has(&received.query, name, value.expose())) {
            return missing(format!("the query parameter `{name}`"));
        }
    }
    let fields = texts(received);
    let declared: &[(String, Tree)] = match &request.body {
        Body::Form(pairs) | Body::Json(Tree::Map(pairs)) => pairs,
        Body::Empty | Body::Json(_) | Body::Text(_) => &[],
    };
    for (name, tree) in declared {
        if expected(tree, client).is_some_and(|value| !has(&fields, name, value.expose())) {
            return missing(format!("the field `{name}`"));
        }
    }
    for (name, text) in &request.headers {
        let wanted = expected_text(text, client);
        if wanted.is_some_and(|value| received.header(name) != Some(value.expose().as_str())) {
            return missing(format!("the header `{name}`"));
        }
    }
    Ok(())
}

/// The query that an address has of its own, as far as it is literal.
fn target_query(target: &Target) -> Vec<(String, String)> {
    let query = match target {
        Target::Path { query, .. } => query.as_ref().and_then(Text::literal).map(str::to_owned),
        Target::Url(url) => url.segments().and_then(|segments| match segments.last() {
            Some(Segment::Literal(text)) => text.split_once('?').map(|(_, query)| query.to_owned()),
            _ => None,
        }),
    };
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect()
}

/// The text that a template must have given: a literal, or one that reads the client's credentials alone.
fn expected(tree: &Tree, client: Option<&Client>) -> Option<Secret> {
    match tree {
        Tree::Literal(serde_json::Value::Null) | Tree::List(_) | Tree::Map(_) => None,
        Tree::Literal(serde_json::Value::String(text)) => Some(text.as_str().into()),
        Tree::Literal(other) => Some(Secret::new(other.to_string())),
        Tree::Text(text) => expected_text(text, client),
    }
}

pub(super) fn expected_text(text: &Text, client: Option<&Client>) -> Option<Secret> {
    if let Some(literal) = text.literal() {
        return Some(literal.into());
    }
    let of_client = text.names().iter().all(|name| name == "client" || name.starts_with("client."));
    let client = client.filter(|_| of_client)?;
    let secret = client.secret.as_ref().map_or("", |secret| secret.expose().as_str());
    let seen = serde_json::json!({ "id": client.id, "secret": secret });
    text.render(&Context::new().with_json("client", &seen)).ok().map(Secret::new)
}

/// Whether the application proved itself in the declared way. Without a known client any id and secret do,
/// but in the right place and form all the same.
pub(super) fn proves_client(
    presented: &Presented<'_>,
    way: ClientAuth,
    client: Option<&Client>,
) -> Result<(), Complaint> {
    let refuse = |why: &str| Err(Complaint::Client(why.to_owned()));
    let basic = presented.received.header(&header::AUTHORIZATION).and_then(basic_pair);
    if let Some((username, password)) = &presented.call.request.basic {
        let wanted = [expected_text(username, client), expected_text(password, client)];
        let Some((name, word)) = basic else { return refuse("the call must carry Basic, as declared") };
        let fits = |wanted: &Option<Secret>, given: &str| wanted.as_ref().is_none_or(|text| text.expose() == given);
        let fit = fits(&wanted[0], &name) && fits(&wanted[1], word.expose());
        return if fit { Ok(()) } else { refuse("name or password is wrong") };
    }
    let named = |standard: &str| presented.name(standard).is_some();
    let (id, secret) = match way {
        ClientAuth::Basic | ClientAuth::BasicRaw => {
            let Some((id, secret)) = basic else { return refuse("the call must carry Basic") };
            if presented.value("client_secret").is_some() {
                return refuse("the secret comes in the parameters as well: one way at a time (RFC 6749 §2.3)");
            }
            if way == ClientAuth::BasicRaw {
                (Some(id), Some(secret))
            } else {
                (Some(decoded(&id)), Some(Secret::new(decoded(secret.expose()))))
            }
        }
        ClientAuth::Form => {
            if basic.is_some() {
                return refuse("the call carries Basic, and this service takes the secret as a parameter");
            }
            let value = |standard: &str| presented.value(standard).map(str::to_owned);
            (value("client_id"), value("client_secret").map(Secret::new))
        }
        ClientAuth::None if presented.value("client_secret").is_some() => {
            return refuse("a public client has no secret");
        }
        ClientAuth::None => (presented.value("client_id").map(str::to_owned), None),
        // The signature is checked where the call is understood.
        ClientAuth::PrivateKeyJwt => return Ok(()),
    };
    let in_header = matches!(way, ClientAuth::Basic | ClientAuth::BasicRaw);
    let wants_id = in_header || named("client_id");
    if wants_id && id.is_none() {
        let name = presented.name("client_id").unwrap_or("client_id");
        return Err(Complaint::Client(format!("the parameter `{name}` is missing from the {}", presented.place())));
    }
    let wants_secret = in_header || way == ClientAuth::Form && named("client_secret");
    let id_fits = !wants_id || id.as_deref().is_some_and(|id| client.is_none_or(|client| client.id == id));
    let known = client.and_then(|client| client.secret.as_ref());
    let secret_fits =
        !wants_secret || secret.is_some_and(|secret| known.is_none_or(|known| known.expose() == secret.expose()));
    if id_fits && secret_fits { Ok(()) } else { refuse("id or secret is wrong") }
}

fn basic_pair(value: &str) -> Option<(String, Secret)> {
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let text = Secret::new(String::from_utf8(decoded).ok()?);
    let (name, word) = text.expose().split_once(':')?;
    Some((name.to_owned(), word.into()))
}

/// A form-encoded value (RFC 6749 §2.3.1, appendix B) decoded. One that was not encoded comes out as
/// something else when it has a `+` or `%`, as at the services.
fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::compile;
    use crate::definition::document::Document;
    use crate::definition::plan::Auth;
    use crate::definition::templates::Templates;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn plan(oauth2: &Value) -> Arc<crate::definition::plan::oauth2::OAuth2> {
        let document = json!({ "trunkline": 1, "id": "a", "auth": { "oauth2": oauth2 } });
        let document = Document::unplaced(std::path::PathBuf::from("a.yaml"), document);
        match compile::integration(&document, &Templates::new()).expect("compiles").auth {
            Auth::OAuth2(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    fn post(headers: &[(&'static str, &str)], body: &str) -> Received {
        let mut map = HeaderMap::new();
        map.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        let (path, origin, here) = ("/token".to_owned(), String::new(), String::new());
        Received {
            method: Method::POST,
            path,
            query: Vec::new(),
            raw_query: String::new(),
            headers: map,
            body,
            origin,
            here,
        }
    }

    fn proved(way: &str, headers: &[(&'static str, &str)], body: &str) -> bool {
        let client = json!({ "id": "app", "secret": "a+/=%&b" });
        let plan = plan(&json!({ "token": "https://a.example/token", "client_auth": way, "client": client }));
        let received = post(headers, body);
        let presented = Presented::new(&received, &plan.token[0]);
        proves_client(&presented, plan.client_auth, plan.client.as_ref()).is_ok()
    }

    #[test]
    fn each_way_of_proving_the_client_takes_its_own_form_only() {
        let raw = [("authorization", "Basic YXBwOmErLz0lJmI=")];
        let encoded = [("authorization", "Basic YXBwOmElMkIlMkYlM0QlMjUlMjZi")];
        let form = "client_id=app&client_secret=a%2B%2F%3D%25%26b";
        assert!(proved("basic", &encoded, "") && !proved("basic", &raw, ""));
        assert!(proved("basic_raw", &raw, "") && !proved("basic_raw", &encoded, ""));
        assert!(proved("form", &[], form) && !proved("form", &[], "client_id=app&client_secret=x"));
        assert!(!proved("form", &raw, form), "one way at a time");
        assert!(proved("none", &[], "client_id=app") && !proved("none", &[], form));
    }

    #[test]
    fn what_is_written_out_must_arrive() {
        let call = json!({ "request": "POST https://a.example/token?refresh=1", "headers": { "Accept": "application/json" },
            "form": { "type": "web_server", "client_key": "{{ client.id }}" } });
        let plan = plan(&json!({ "token": call, "client": { "id": "app", "secret": "s" } }));
        let check = |received: &Received| as_declared(&plan.token[0].request, plan.client.as_ref(), received);
        let mut received = post(&[("accept", "application/json")], "type=web_server&client_key=app");
        assert!(check(&received).expect_err("no query").to_string().contains("`refresh`"));
        received.query = vec![("refresh".to_owned(), "1".to_owned())];
        assert_eq!(check(&received), Ok(()));
        received.headers.remove("accept");
        assert!(check(&received).is_err());
    }
}
