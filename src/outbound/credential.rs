//! Where a credential goes in a call.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::utf8_percent_encode;
use serde_json::value::RawValue;

use super::visible::withheld;
use crate::base::redact::Spellings;
use crate::base::secret::Secret;
use crate::connection::flow::client_header;
use crate::connection::grant::{self, TokenErrorKind};
use crate::connection::{Connection, Credential, TokenError};
use crate::definition::plan::Integration;
use crate::definition::plan::api::{Placement, tells_one_call};
use crate::net::origin::SEGMENT;
use crate::respond::Refusal;
use crate::template::{Context, TemplateError, Text};

/// The content type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// A credential as it stands in a call. Made once for a connection.
#[derive(Default)]
pub struct Placed {
    header: Option<(HeaderName, HeaderValue)>,
    query: Option<(String, Secret)>,
    body: Option<(String, Secret)>,
    /// How a service may write a secret that stands in its addresses.
    spellings: Spellings,
}

/// Names only.
impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header.as_ref().map(|(name, _)| name);
        let query = self.query.as_ref().map(|(name, _)| name);
        let body = self.body.as_ref().map(|(name, _)| name);
        let mut shown = f.debug_struct("Placed");
        shown.field("header", &header).field("query", &query).field("body", &body).finish_non_exhaustive()
    }
}

/// Why a credential could not be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The connection has another kind of credential than the API wants.
    #[error("the API wants {wanted}, and the connection has {found}")]
    Kind {
        /// What `api.credential` needs.
        wanted: &'static str,
        /// What the connection has.
        found: &'static str,
    },
    /// The connection has no token of this name.
    #[error("the connection has no token `{0}`")]
    NoToken(String),
    /// The value's template gave nothing.
    #[error("`api.credential`: {0}")]
    Template(#[from] TemplateError),
    /// The value cannot stand in a header.
    #[error("the credential has characters that no header can carry, such as a line break")]
    Header,
    /// The body is not one that has fields.
    #[error("the credential goes into a form or a JSON object, and the body is neither")]
    Body,
    /// The connection could not sign in.
    #[error("{0}")]
    SignIn(Box<grant::TokenError>),
    /// A token or a call could not be signed.
    #[error("{0}")]
    Unsigned(String),
    /// The name has a colon, which separates name and password (RFC 7617).
    #[error("the name of a Basic credential has a colon")]
    Colon,
}

impl PlaceError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Kind { .. } | Self::NoToken(_) | Self::Header | Self::Colon | Self::Unsigned(_) => {
                Refusal::ConnectionUnusable
            }
            Self::SignIn(error) => match error.kind {
                TokenErrorKind::Permanent => Refusal::ConnectionUnusable,
                TokenErrorKind::Misconfigured => Refusal::DefinitionFailed,
                TokenErrorKind::Passing | TokenErrorKind::Unsent => Refusal::ServiceUnreachable,
            },
            Self::Body => Refusal::InvalidInput,
            Self::Template(_) => Refusal::DefinitionFailed,
        }
    }
}

impl Placed {
    /// What of it is secret as it is sent, without the word of a scheme before it.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let without_scheme = |text: &str| Secret::from(text.split_once(' ').map_or(text, |(_, rest)| rest));
        let header = self.header.iter().filter_map(|(_, value)| value.to_str().ok()).map(without_scheme);
        let query = self
            .query
            .iter()
            .filter_map(|(_, pair)| pair.expose().split_once('=').map(|(_, value)| Secret::from(value)));
        let body = self.body.iter().map(|(_, value)| Secret::from(value.expose().as_str()));
        header.chain(query).chain(body).collect()
    }

    /// A connection's credential in the place that the API wants, by the named token where one is named.
    ///
    /// # Errors
    /// When the connection does not have what the place needs.
    pub fn of(placement: &Placement, connection: &Connection, token: Option<&str>) -> Result<Self, PlaceError> {
        Self::of_credential(placement, (&connection.credential, &connection.context), token)
    }

    /// A credential in the place that the API wants; `context` is what templates of its connection see.
    ///
    /// # Errors
    /// When it is not what the place needs.
    pub fn of_credential(
        placement: &Placement,
        (credential, context): (&Credential, &Context),
        token: Option<&str>,
    ) -> Result<Self, PlaceError> {
        let render = |value: &Text| render(value, (credential, context), token);
        match (placement, credential) {
            (Placement::Nowhere, _) => Ok(Self::default()),
            (Placement::Bearer, Credential::Tokens(tokens)) => {
                let token = tokens.token(token).ok_or_else(|| no_token(token))?;
                Ok(Self::in_header(header::AUTHORIZATION, header_value(&format!("Bearer {}", token.expose()))?))
            }
            (Placement::Bearer, _) => Err(PlaceError::Kind { wanted: "a token", found: credential.kind() }),
            (Placement::Basic, Credential::Basic { username, password }) => Self::basic(username, password),
            (Placement::Basic, _) => {
                Err(PlaceError::Kind { wanted: "a name and a password", found: credential.kind() })
            }
            // It is another one for each call, and made with it.
            (Placement::Header { value, .. }, _) if tells_one_call(value) => Ok(Self::default()),
            (Placement::Header { name, value }, _) => {
                let value = render(value)?;
                Ok(Self::in_header(name.clone(), header_value(value.expose())?))
            }
            (Placement::Query { name, value }, _) => {
                let secret = render(value)?;
                let (key, value) = (utf8_percent_encode(name, SEGMENT), utf8_percent_encode(secret.expose(), SEGMENT));
                let pair = Secret::new(format!("{key}={value}"));
                let spellings = Spellings::of(secret.expose());
                Ok(Self { query: Some((name.clone(), pair)), spellings, ..Self::default() })
            }
            (Placement::Body { name, value }, _) => {
                Ok(Self { body: Some((name.clone(), render(value)?)), ..Self::default() })
            }
        }
    }

    /// `Authorization: Basic` (RFC 7617), name and password as they are.
    ///
    /// # Errors
    /// [`PlaceError::Colon`].
    pub fn basic(username: &Secret, password: &Secret) -> Result<Self, PlaceError> {
        if username.expose().contains(':') {
            return Err(PlaceError::Colon);
        }
        let pair = Secret::new(format!("{}:{}", username.expose(), password.expose()));
        let value = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
        Ok(Self::in_header(header::AUTHORIZATION, header_value(value.expose())?))
    }

    /// The application's own id and secret, as `credential: client` says.
    ///
    /// # Errors
    /// When the deployment has not told them.
    pub fn client(integration: &Integration) -> Result<Self, TokenError> {
        Ok(Self::in_header(header::AUTHORIZATION, client_header(integration)?))
    }

    fn in_header(name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..Self::default() }
    }

    /// The header that carries the credential; its value is marked sensitive.
    pub fn header(&self) -> Option<(&HeaderName, &HeaderValue)> {
        self.header.as_ref().map(|(name, value)| (name, value))
    }

    /// The query parameter that carries the credential: its name, which a caller must not send, and
    /// `name=value`, percent-encoded, to be put after the query of the call.
    pub fn query(&self) -> Option<(&str, &Secret)> {
        self.query.as_ref().map(|(name, pair)| (name.as_str(), pair))
    }

    /// The headers of an answer that would tell the credential on, each with the values that may pass: services
    /// that are asked with a query parameter write addresses with it.
    pub fn told_on(&self, headers: &HeaderMap) -> Vec<(HeaderName, Vec<HeaderValue>)> {
        let Some((parameter, _)) = &self.query else { return Vec::new() };
        withheld(headers, parameter, &self.spellings)
    }

    /// Takes out of an answer's headers what would tell the credential on.
    pub fn withhold(&self, headers: &mut HeaderMap) {
        for (name, values) in self.told_on(headers) {
            headers.remove(&name);
            for value in values {
                headers.append(&name, value);
            }
        }
    }

    /// Whether the credential is a field of the body, which then must be there whole.
    pub fn is_in_body(&self) -> bool {
        self.body.is_some()
    }

    /// The body with the credential as one of its fields, instead of whatever had its name. A call without
    /// a body becomes a form.
    ///
    /// # Errors
    /// [`PlaceError::Body`] when the body is neither a form nor a JSON object.
    pub fn put_in(&self, headers: &mut HeaderMap, body: Bytes) -> Result<Bytes, PlaceError> {
        let Some((name, value)) = &self.body else { return Ok(body) };
        let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default().to_ascii_lowercase());
        let kind = kind.as_deref().map(|kind| kind.split(';').next().unwrap_or_default().trim());
        match kind {
            _ if headers.contains_key(header::CONTENT_ENCODING) => Err(PlaceError::Body),
            None if body.is_empty() => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FORM));
                Ok(in_form(&body, name, value))
            }
            Some(FORM) => Ok(in_form(&body, name, value)),
            Some(kind) if kind == "application/json" || kind.ends_with("+json") => in_json(&body, name, value),
            Some(_) | None => Err(PlaceError::Body),
        }
    }

    /// Puts the credential on headers, instead of whatever had its name.
    pub fn put_on(&self, headers: &mut HeaderMap) {
        if let Some((name, value)) = &self.header {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// A form with a field in place of all of its name.
fn in_form(body: &[u8], name: &str, value: &Secret) -> Bytes {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (known, value) in url::form_urlencoded::parse(body).filter(|(known, _)| known != name) {
        form.append_pair(&known, &value);
    }
    Bytes::from(form.append_pair(name, value.expose()).finish())
}

/// A JSON object with a field in place of one of its name; the others keep their text.
fn in_json(body: &[u8], name: &str, value: &Secret) -> Result<Bytes, PlaceError> {
    let mut fields: BTreeMap<String, Box<RawValue>> = match body {
        b"" => BTreeMap::new(),
        body => serde_json::from_slice(body).map_err(|_| PlaceError::Body)?,
    };
    let value = serde_json::value::to_raw_value(value.expose()).map_err(|_| PlaceError::Body)?;
    fields.insert(name.to_owned(), value);
    serde_json::to_vec(&fields).map(Bytes::from).map_err(|_| PlaceError::Body)
}

fn render(
    value: &Text,
    (credential, context): (&Credential, &Context),
    token: Option<&str>,
) -> Result<Secret, PlaceError> {
    let context = credential.visible(context, token).ok_or_else(|| no_token(token))?;
    Ok(Secret::new(value.render(&context)?))
}

pub(super) fn no_token(token: Option<&str>) -> PlaceError {
    PlaceError::NoToken(token.unwrap_or("default").to_owned())
}

fn header_value(text: &str) -> Result<HeaderValue, PlaceError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| PlaceError::Header)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::connection::{Issued, Tokens};
    use std::sync::Arc;

    fn connection(credential: Credential) -> Connection {
        Connection {
            integration: Arc::from("a"),
            id: Arc::from("default"),
            credential,
            context: Context::new(),
            inputs: serde_json::Map::new(),
            saved: serde_json::Map::new(),
            health: Arc::default(),
            era: 0,
        }
    }

    fn tokens() -> Connection {
        let issued = |access: &str| Issued::bare(access.into(), Timestamp::default());
        let all = [("default", "canary-d"), ("user", "canary-u")];
        connection(Credential::Tokens(Tokens(all.map(|(name, access)| (Arc::from(name), issued(access))).into())))
    }

    #[test]
    fn a_token_is_a_bearer_by_default_and_by_name() {
        let value = |token| {
            let placed = Placed::of(&Placement::Bearer, &tokens(), token)?;
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static("the caller's own"));
            placed.put_on(&mut headers);
            assert!(!format!("{placed:?}{headers:?}").contains("canary"));
            assert_eq!(headers.get_all(header::AUTHORIZATION).iter().count(), 1);
            Ok(headers[header::AUTHORIZATION].to_str().expect("visible").to_owned())
        };
        assert_eq!(value(None), Ok("Bearer canary-d".to_owned()));
        assert_eq!(value(Some("user")), Ok("Bearer canary-u".to_owned()));
        assert_eq!(value(Some("bot")), Err(PlaceError::NoToken("bot".to_owned())));
    }

    #[test]
    fn what_no_header_can_carry_is_refused_without_being_repeated() {
        let placement = Placement::Header {
            name: HeaderName::from_static("x-key"),
            value: Text::compile("Key {{ api_key }}").expect("compiles"),
        };
        for secret in ["canary\r\nX-Evil: 1", "canary\n", "canary\0"] {
            let error = Placed::of(&placement, &connection(Credential::ApiKey(secret.into())), None).expect_err(secret);
            assert_eq!(error, PlaceError::Header);
            assert!(!error.to_string().contains("canary"));
        }
        let colon = Credential::Basic { username: "a:b".into(), password: "p".into() };
        assert_eq!(Placed::of(&Placement::Basic, &connection(colon), None).err(), Some(PlaceError::Colon));
    }

    #[test]
    fn a_field_of_the_body_replaces_what_the_caller_wrote_there() {
        let placement =
            Placement::Body { name: "k".to_owned(), value: Text::compile("{{ api_key }}").expect("compiles") };
        let placed = Placed::of(&placement, &connection(Credential::ApiKey("a&b".into())), None).expect("placed");
        let put = |kind: Option<&'static str>, body: &'static str| {
            let kind = kind.map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind)));
            let mut headers: HeaderMap = kind.into_iter().collect();
            let body = placed.put_in(&mut headers, Bytes::from_static(body.as_bytes()))?;
            Ok(format!(
                "{} {}",
                headers[header::CONTENT_TYPE].to_str().expect("visible"),
                String::from_utf8_lossy(&body)
            ))
        };
        assert_eq!(put(None, "").as_deref(), Ok("application/x-www-form-urlencoded k=a%26b"));
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(put(Some(form), "k=evil&x=1+2&%6b=2"), Ok(format!("{form} x=1+2&k=a%26b")));
        let json = r#"{"k":"evil","n":12345678901234567890123,"k":"evil"}"#;
        let expected = r#"application/json {"k":"a&b","n":12345678901234567890123}"#;
        assert_eq!(put(Some("application/json"), json).as_deref(), Ok(expected));
        for (kind, body) in
            [(Some("application/json"), "[]"), (Some("application/json"), "{"), (Some("text/plain"), "a"), (None, "a")]
        {
            assert_eq!(put(kind, body), Err(PlaceError::Body), "{kind:?} {body}");
        }
        assert!(!format!("{placed:?}").contains("a&b"));
    }

    #[test]
    fn nothing_is_placed_where_the_service_wants_nothing() {
        let placed = Placed::of(&Placement::Nowhere, &tokens(), None).expect("nothing to place");
        assert!(placed.header().is_none() && placed.query().is_none());
    }
}
