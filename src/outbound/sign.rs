//! Calls that are signed one by one: what signs the calls of a connection, and the headers it adds.
//!
//! A signature covers the call as the service gets it, so this is the last stage before a call is sent. A
//! signed call follows no redirect: its signature would not fit where that leads.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::credential::no_token;
use super::prepare::Made;
use super::{Moment, PlaceError};
use crate::base::secret::Secret;
use crate::connection::credential::TOKEN_SECRET;
use crate::connection::sign::{Body, Unsigned, oauth1, seen_request, sigv4};
use crate::connection::{Connection, Credential};
use crate::definition::plan::api::{Api, Placement, tells_one_call};
use crate::definition::plan::auth::Auth;
use crate::definition::plan::oauth1::OAuth1;
use crate::definition::plan::sigv4::SigV4;
use crate::net::{Origin, Scheme};
use crate::template::{Context, TemplateError, Text};

/// Headers that say who calls: a call that is signed has its own, and none of the caller's.
static OWN: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-content-sha256"),
];

/// What signs the calls of a connection.
#[derive(Debug)]
pub enum Signer {
    /// OAuth 1.0a.
    OAuth1 {
        /// What the definition says.
        plan: Arc<OAuth1>,
        /// The realm, filled in.
        realm: Option<String>,
    },
    /// AWS Signature Version 4.
    SigV4 {
        /// What the definition says.
        plan: Arc<SigV4>,
        /// The service.
        service: String,
        /// The region.
        region: String,
    },
}

/// A call that is about to be sent.
#[derive(Clone, Copy)]
pub struct Leaving<'a> {
    /// The method.
    pub method: &'a Method,
    /// Where to.
    pub origin: &'a Origin,
    /// Path, percent-encoded.
    pub path: &'a str,
    /// The whole query, without the question mark.
    pub query: &'a str,
    /// The headers, but for those that the transport adds.
    pub headers: &'a HeaderMap,
    /// The body; `None` while it is on its way.
    pub body: Option<&'a [u8]>,
}

impl Signer {
    /// What signs the calls of this connection; `None` when they are not signed.
    pub(super) fn of(auth: &Auth, connection: &Connection) -> Result<Option<Self>, PlaceError> {
        let fill = |text: &Text| -> Result<String, TemplateError> { text.render(&connection.context) };
        match auth {
            Auth::OAuth1(plan) => {
                let realm =
                    plan.realm.as_ref().map(fill).transpose().map_err(|error| unfilled("oauth1.realm", &error))?;
                Ok(Some(Self::OAuth1 { plan: Arc::clone(plan), realm }))
            }
            Auth::SigV4(plan) => {
                let service = fill(&plan.service).map_err(|error| unfilled("sigv4.service", &error))?;
                let region = fill(&plan.region).map_err(|error| unfilled("sigv4.region", &error))?;
                Ok(Some(Self::SigV4 { plan: Arc::clone(plan), service, region }))
            }
            _ => Ok(None),
        }
    }

    /// Whether a call with a body can be signed only when all of its body is there.
    pub fn needs_body(&self, headers: &HeaderMap, origin: &Origin) -> bool {
        match self {
            Self::OAuth1 { plan, .. } => {
                oauth1::is_form(headers)
                    && !matches!(plan.signature, crate::definition::plan::oauth1::Signature::Plaintext)
            }
            Self::SigV4 { service, region, .. } => {
                !sigv4::may_stream(sigv4::Scope { service, region }, origin.scheme == Scheme::Https)
            }
        }
    }

    /// The headers that sign a call, each to be set in place of any of its name.
    ///
    /// # Errors
    /// When the connection does not have what signs, or the call cannot be signed.
    pub fn sign(
        &self,
        connection: &Connection,
        leaving: Leaving<'_>,
        (now, random): Moment<'_>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, PlaceError> {
        let authority = leaving.origin.authority();
        let call = Unsigned {
            method: leaving.method,
            secure: leaving.origin.scheme == Scheme::Https,
            authority: &authority,
            path: leaving.path,
            query: leaving.query,
            headers: leaving.headers,
            body: leaving.body.map_or(Body::Streamed, Body::Whole),
        };
        match self {
            Self::OAuth1 { plan, realm } => {
                let signatory = signatory(plan, realm.as_deref(), &connection.credential)?;
                let value = oauth1::authorization(&call, signatory, &[], (now, &**random)).map_err(unsigned)?;
                Ok(vec![(header::AUTHORIZATION, value)])
            }
            Self::SigV4 { plan, service, region } => {
                let key = sigv4::signing(plan, &connection.credential)
                    .ok_or_else(|| PlaceError::Kind { wanted: "an access key", found: connection.credential.kind() })?;
                sigv4::headers(&call, sigv4::Scope { service, region }, key, now).map_err(unsigned)
            }
        }
    }
}

/// A header of an API that is made anew for each call.
#[derive(Debug)]
pub(super) struct PerCall {
    pub name: HeaderName,
    value: Text,
    /// Whether it shows who calls: it is the API's credential, or has the credential in it.
    pub is_proof: bool,
    /// Whether it tells of the call that it goes with.
    pub is_of_call: bool,
}

/// What a call carries of its connection's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried<'a> {
    /// The credential; of tokens the one of this name, else the usual one.
    Credential(Option<&'a str>),
    /// None of it: the call proves itself otherwise, or not at all.
    Nothing,
}

/// The headers of an API that are made anew for each call, its credential among them where it is one: because they name
/// the moment, the call or the credential.
pub(super) fn per_call_of(api: &Api) -> Vec<PerCall> {
    let of_credential =
        |name: &str| matches!(name.split('.').next(), Some("api_key" | "username" | "password" | "token"));
    let names_credential = |text: &Text| text.reads().iter().any(|name| of_credential(&name.path));
    let names_call = |text: &Text| text.reads().iter().any(|name| name.path.split('.').next() == Some("request"));
    let header = |(name, value): &(HeaderName, Text)| {
        let is_proof = names_credential(value);
        let is_per_call = is_proof || tells_one_call(value);
        is_per_call.then(|| PerCall {
            name: name.clone(),
            value: value.clone(),
            is_proof,
            is_of_call: names_call(value),
        })
    };
    let credential = match &api.credential {
        Placement::Header { name, value } if tells_one_call(value) => {
            Some(PerCall { name: name.clone(), value: value.clone(), is_proof: true, is_of_call: true })
        }
        _ => None,
    };
    api.headers.iter().filter_map(header).chain(credential).collect()
}

/// The headers of the API that are made anew for each call: proofs with what the call carries, and the others where the
/// request has none of their name.
///
/// # Errors
/// When one of them cannot be made.
pub(super) fn per_call(
    headers: &[PerCall],
    (credential, context, carried): (&Credential, &Context, Carried<'_>),
    leaving: Leaving<'_>,
    (now, random): Moment<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, PlaceError> {
    let authority = leaving.origin.authority();
    let request = seen_request(leaving.method, &authority, leaving.path, leaving.query);
    let seen = match carried {
        Carried::Credential(token) => credential.visible(context, token).ok_or_else(|| no_token(token))?,
        Carried::Nothing => context.clone(),
    };
    let seen = seen.with("request", request).with_moment(now, Arc::clone(random));
    let goes = |header: &&PerCall| {
        if header.is_proof { carried != Carried::Nothing } else { !leaving.headers.contains_key(&header.name) }
    };
    let made = |PerCall { name, value, .. }: &PerCall| {
        let fault = |why: String| PlaceError::Unsigned(format!("`api.headers.{name}`: {why}"));
        let value = Secret::new(value.render(&seen).map_err(|error| fault(error.to_string()))?);
        let value = HeaderValue::from_str(value.expose());
        let mut value = value.map_err(|_| fault("the value has characters that no header can carry".to_owned()))?;
        value.set_sensitive(true);
        Ok((name.clone(), value))
    };
    headers.iter().filter(goes).map(made).collect()
}

/// A query as it is sent, with the credential where that stands in it, as the pair `name=value`.
pub fn whole_query(plain: &str, pair: Option<&Secret>) -> Secret {
    match pair {
        Some(pair) if plain.is_empty() => Secret::from(pair.expose().as_str()),
        Some(pair) => Secret::new(format!("{plain}&{}", pair.expose())),
        None => Secret::from(plain),
    }
}

/// The headers of a caller that a signed call must not carry.
pub fn own_headers() -> &'static [HeaderName] {
    &OWN
}

/// Who signs by OAuth 1.0a: the application, and the account where there is a token (section 3.1).
fn signatory<'a>(
    plan: &'a OAuth1,
    realm: Option<&'a str>,
    credential: &'a Credential,
) -> Result<oauth1::Signatory<'a>, PlaceError> {
    let client = plan.client.as_ref().ok_or_else(|| {
        PlaceError::Unsigned("`auth.oauth1.client` is missing, so there is nothing to sign with".to_owned())
    })?;
    let token = match credential {
        Credential::Tokens(tokens) => tokens.token(None).map(|token| (token, tokens.token(Some(TOKEN_SECRET)))),
        Credential::None => None,
        other => return Err(PlaceError::Kind { wanted: "a token", found: other.kind() }),
    };
    let (consumer, secret) = (client.key.as_str(), &client.secret);
    Ok(oauth1::Signatory { method: &plan.signature, consumer, secret, token, realm })
}

fn unfilled(field: &str, error: &TemplateError) -> PlaceError {
    PlaceError::Unsigned(format!("`auth.{field}`: {error}"))
}

fn unsigned(error: impl std::fmt::Display) -> PlaceError {
    PlaceError::Unsigned(error.to_string())
}

/// A token that is signed here, as the credential of the calls that are made while it lasts.
pub(super) fn own_token(
    assertion: &crate::definition::plan::assertion::Assertion,
    connection: &Connection,
    (now, random): Moment<'_>,
) -> Result<Made, PlaceError> {
    use crate::connection::Tokens;
    use crate::connection::grant::Issued;
    use crate::connection::sign::jwt;
    let own: Option<&Secret> = match &connection.credential {
        Credential::ApiKey(key) => Some(key),
        _ => None,
    };
    let context = connection.context.clone().with_moment(now, Arc::clone(random));
    let token = jwt::assertion(assertion, own, &context, (now, &**random)).map_err(unsigned)?;
    let mut issued = Issued::bare(token, now);
    issued.expires_at = Some(now.after(assertion.ttl));
    let tokens = Tokens([(Arc::from(crate::connection::DEFAULT), issued)].into());
    // A call that begins at the last moment must arrive while the token is still good.
    Ok(Made { credential: Some(Credential::Tokens(tokens)), at: now, until: Some(now.after(assertion.ttl / 2)) })
}
