//! Where a credential goes in a call.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::utf8_percent_encode;

use crate::base::secret::Secret;
use crate::connection::{Connection, Credential};
use crate::definition::plan::api::Placement;
use crate::net::origin::SEGMENT;
use crate::respond::Refusal;
use crate::template::{TemplateError, Text};

/// A credential as it stands in a call. Made once for a connection.
#[derive(Default)]
pub struct Placed {
    header: Option<(HeaderName, HeaderValue)>,
    query: Option<(String, Secret)>,
}

/// Names only.
impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header.as_ref().map(|(name, _)| name);
        let query = self.query.as_ref().map(|(name, _)| name);
        f.debug_struct("Placed").field("header", &header).field("query", &query).finish_non_exhaustive()
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
    /// The name has a colon, which separates name and password (RFC 7617).
    #[error("the name of a Basic credential has a colon")]
    Colon,
}

impl PlaceError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Kind { .. } | Self::NoToken(_) | Self::Header | Self::Colon => Refusal::ConnectionUnusable,
            Self::Template(_) => Refusal::DefinitionFailed,
        }
    }
}

impl Placed {
    /// A connection's credential in the place that the API wants, by the named token where one is named.
    ///
    /// # Errors
    /// When the connection does not have what the place needs.
    pub fn of(placement: &Placement, connection: &Connection, token: Option<&str>) -> Result<Self, PlaceError> {
        let credential = &connection.credential;
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
            (Placement::Header { name, value }, _) => {
                let value = render(value, connection, token)?;
                Ok(Self::in_header(name.clone(), header_value(value.expose())?))
            }
            (Placement::Query { name, value }, _) => {
                let value = render(value, connection, token)?;
                let (key, value) = (utf8_percent_encode(name, SEGMENT), utf8_percent_encode(value.expose(), SEGMENT));
                Ok(Self { header: None, query: Some((name.clone(), Secret::new(format!("{key}={value}")))) })
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

    fn in_header(name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), query: None }
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

    /// Puts the credential on headers, instead of whatever had its name.
    pub fn put_on(&self, headers: &mut HeaderMap) {
        if let Some((name, value)) = &self.header {
            headers.insert(name.clone(), value.clone());
        }
    }
}

fn render(value: &Text, connection: &Connection, token: Option<&str>) -> Result<Secret, PlaceError> {
    let context = connection.credential.visible(&connection.context, token).ok_or_else(|| no_token(token))?;
    Ok(Secret::new(value.render(&context)?))
}

fn no_token(token: Option<&str>) -> PlaceError {
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
    use crate::template::Context;
    use std::sync::Arc;

    fn connection(credential: Credential) -> Connection {
        Connection {
            integration: Arc::from("a"),
            id: Arc::from("default"),
            credential,
            context: Context::new(),
            inputs: serde_json::Map::new(),
            saved: serde_json::Map::new(),
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
    fn nothing_is_placed_where_the_service_wants_nothing() {
        let placed = Placed::of(&Placement::Nowhere, &tokens(), None).expect("nothing to place");
        assert!(placed.header().is_none() && placed.query().is_none());
    }
}
