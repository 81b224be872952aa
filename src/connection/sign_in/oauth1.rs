//! The three legs of OAuth 1.0a (RFC 5849, section 2): temporary credentials, a person's consent, a token.
//!
//! [`ThreeLegs::begin`] asks for temporary credentials and says where the person is sent. The callback
//! brings `oauth_token`, which must be that of the flow, and `oauth_verifier`, with which
//! [`ThreeLegs::finish`] fetches the token. The caller keeps what lies between, and sees to it that the
//! callback belongs to the browser the flow began in.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header;
use serde_json::{Map, Value as Json};
use url::{Position, Url};

use super::Parts;
use super::send::{self, misconfigured};
use crate::base::secret::Secret;
use crate::connection::credential::TOKEN_SECRET;
use crate::connection::directory::DEFAULT;
use crate::connection::flow::Secrets;
use crate::connection::grant::{Account, Grant, Issued, TokenError, TokenErrorKind};
use crate::connection::sign::oauth1::{Signatory, authorization};
use crate::connection::sign::{Body, Unsigned};
use crate::connection::told::Called;
use crate::definition::plan::auth::Auth;
use crate::definition::plan::oauth1::{Consumer, OAuth1};
use crate::definition::plan::request::Request;
use crate::net::origin::{self, Base, BaseError};
use crate::net::{Outgoing, Scheme};
use crate::request::answer::plain_words;
use crate::template::{Segment, Text};

/// The most bytes that a token or its secret may have.
const TOKEN_MOST: usize = 8 << 10;
/// The most bytes of an answer that is told as words.
const WORDS: usize = 1 << 10;

/// What makes the calls of the three legs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ThreeLegs {
    parts: Parts,
}

/// Temporary credentials, and where the person is sent with them.
#[derive(Debug)]
pub struct Temporary {
    /// Where the person is sent.
    pub url: String,
    /// The temporary token: the callback repeats it.
    pub token: Secret,
    /// Its secret.
    pub secret: Secret,
}

/// What a callback brought, with what was kept since [`ThreeLegs::begin`].
#[derive(Debug, Clone, Copy)]
pub struct Consent<'a> {
    /// The temporary token.
    pub token: &'a Secret,
    /// Its secret.
    pub secret: &'a Secret,
    /// The callback's `oauth_verifier`.
    pub verifier: &'a Secret,
}

impl ThreeLegs {
    /// Legs made with these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// Asks for temporary credentials (section 2.1). `callback` is where the service sends the person back
    /// to; a query that it has, such as a state, comes back with it.
    ///
    /// # Errors
    /// When the service gives none, or does not confirm that it will keep to `callback`: one that does not
    /// is open to stolen consents, which is what OAuth 1.0a mended in 1.0.
    pub async fn begin(&self, account: Account<'_>, callback: &str) -> Result<Temporary, TokenError> {
        let plan = plan(&account)?;
        let fields = self.call(&account, (Leg::RequestToken, plan), None, ("oauth_callback", callback)).await?.0;
        if fields.get("oauth_callback_confirmed").is_none_or(|confirmed| confirmed != "true") {
            let words = "the service does not confirm the callback's address (`oauth_callback_confirmed`)";
            return Err(Leg::RequestToken.failed(misconfigured(words)));
        }
        let (token, secret) = token_of(fields).map_err(|error| Leg::RequestToken.failed(error))?;
        let url = self.authorize_url(&account, plan, &token)?;
        Ok(Temporary { url, token, secret })
    }

    fn authorize_url(&self, account: &Account<'_>, plan: &OAuth1, token: &Secret) -> Result<String, TokenError> {
        let context = send::context(account, &self.parts);
        let written = plan.authorize.render(&context);
        let written = written.map_err(|error| misconfigured(format!("`auth.oauth1.authorize`: {error}")))?;
        let url = Url::parse(&written).ok().filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
        let mut url = url.ok_or_else(|| misconfigured("`auth.oauth1.authorize` is not an address of the web"))?;
        may_lead(account, &plan.authorize, &url)?;
        url.query_pairs_mut().append_pair("oauth_token", token.expose());
        // A browser does not go through our dialer: it is sent to the simulation by its own address.
        let Some(simulated) = self.parts.clients.simulated(&account.integration.id) else { return Ok(url.into()) };
        Ok(format!("{simulated}{}", &url[Position::BeforePath..]))
    }

    /// Fetches the token (section 2.3). Call it once for each verifier.
    ///
    /// # Errors
    /// As the service answers.
    pub async fn finish(&self, account: Account<'_>, consent: Consent<'_>) -> Result<Grant, TokenError> {
        let plan = plan(&account)?;
        let held = Some((consent.token, consent.secret));
        let verifier = ("oauth_verifier", consent.verifier.expose().as_str());
        let (fields, saved) = self.call(&account, (Leg::AccessToken, plan), held, verifier).await?;
        let (token, secret) = token_of(fields).map_err(|error| Leg::AccessToken.failed(error))?;
        let now = self.parts.clock.now();
        let tokens = [(DEFAULT, token), (TOKEN_SECRET, secret)];
        let tokens = tokens.map(|(name, access)| (Arc::from(name), Issued::bare(access, now)));
        Ok(Grant { tokens: BTreeMap::from(tokens), saved, ..Grant::default() })
    }

    /// One signed call, and the fields of the form it answers with. What fails is told with the call's name and what
    /// the service answered, for whoever has to mend it.
    async fn call(
        &self,
        account: &Account<'_>,
        (leg, plan): (Leg, &OAuth1),
        held: Option<(&Secret, &Secret)>,
        more: (&str, &str),
    ) -> Result<(BTreeMap<String, String>, Map<String, Json>), TokenError> {
        let context = send::context(account, &self.parts);
        let realm = plan.realm.as_ref().map(|realm| realm.render(&context)).transpose();
        let realm = realm.map_err(|error| misconfigured(format!("`auth.oauth1.realm`: {error}")))?;
        let client = plan.client.as_ref().ok_or_else(|| {
            let id = &account.integration.id;
            misconfigured(format!(
                "`auth.oauth1.client` of `{id}` is missing: write the application's `id` and `secret`"
            ))
        })?;
        let signatory = Signatory {
            method: &plan.signature,
            consumer: &client.key,
            secret: &client.secret,
            token: held.map(|(token, secret)| (token, Some(secret))),
            realm: realm.as_deref(),
        };
        let request = leg.request(plan);
        let finish = |outgoing: &mut Outgoing| self.sign(outgoing, signatory, more);
        let secrets = secrets_of(client, held).and_inputs(account.integration, account.inputs);
        let called = Called { field: leg.field(), secrets: &secrets };
        let received = send::received(&self.parts, account, (request, &context), called, &finish).await;
        let received = received.map_err(|error| leg.failed(error))?;
        let said = said(&received.body);
        let outcome = send::read(request, &context, received, self.parts.clock.now());
        let outcome = outcome.map_err(|error| {
            let words = error.words.or(said).map(|words| secrets.redact(&words));
            leg.failed(TokenError { words, ..error })
        })?;
        let fields = form_of(&outcome.body);
        let body = fields.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str()))).collect();
        let context = context.with_json("body", &Json::Object(body));
        let mut saved = Map::new();
        for (name, expr) in &request.save {
            let value = expr.json(&context).map_err(|error| misconfigured(format!("`save.{name}`: {error}")))?;
            if !value.is_null() {
                saved.insert(name.clone(), value);
            }
        }
        Ok((fields, saved))
    }

    fn sign(&self, outgoing: &mut Outgoing, signatory: Signatory<'_>, more: (&str, &str)) -> Result<(), TokenError> {
        let authority = outgoing.origin.authority().into_owned();
        let call = Unsigned {
            method: &outgoing.method,
            secure: outgoing.origin.scheme == Scheme::Https,
            authority: &authority,
            path: &outgoing.path,
            query: outgoing.query.as_deref().unwrap_or_default(),
            headers: &outgoing.headers,
            body: Body::Whole(&outgoing.body),
        };
        let moment = (self.parts.clock.now(), &*self.parts.random);
        let value =
            authorization(&call, signatory, &[more], moment).map_err(|error| misconfigured(error.to_string()))?;
        outgoing.headers.insert(header::AUTHORIZATION, value);
        Ok(())
    }
}

/// Which of the two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    /// For temporary credentials.
    RequestToken,
    /// For the token.
    AccessToken,
}

impl Leg {
    const fn request(self, plan: &OAuth1) -> &Request {
        match self {
            Self::RequestToken => &plan.request_token,
            Self::AccessToken => &plan.access_token,
        }
    }

    /// The field of `auth.oauth1` that describes it.
    const fn field(self) -> &'static str {
        match self {
            Self::RequestToken => "request_token",
            Self::AccessToken => "access_token",
        }
    }

    /// The same error with the call's name before its words.
    fn failed(self, error: TokenError) -> TokenError {
        let name = format!("`auth.oauth1.{}`", self.field());
        let words = match error.words {
            Some(words) => format!("{name}: {words}"),
            None => name,
        };
        TokenError { words: Some(words), ..error }
    }
}

/// A form whatever its content type says: many services say `text/html`.
fn form_of(body: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

/// What an answer says in words: RFC 5849 has no form for refusals, so services write `oauth_problem`, an `error` as
/// OAuth 2.0 has it, or a line of text.
fn said(body: &[u8]) -> Option<String> {
    let form = form_of(body);
    let known = [("oauth_problem", "oauth_problem_advice"), ("error", "error_description")];
    let coded = known.into_iter().find_map(|(code, words)| match (form.get(code)?, form.get(words)) {
        (code, Some(words)) => Some(format!("{code}, {words}")),
        (code, None) => Some(code.clone()),
    });
    let text = || {
        let text = std::str::from_utf8(body).ok()?;
        (text.len() <= WORDS && !text.trim_start().starts_with('<')).then(|| text.to_owned())
    };
    coded.or_else(text).map(|words| plain_words(&words)).filter(|words| !words.is_empty())
}

/// What a service may repeat and nobody is to read.
fn secrets_of(client: &Consumer, held: Option<(&Secret, &Secret)>) -> Secrets {
    let mut secrets = Secrets::default();
    let held = held.into_iter().flat_map(|(token, secret)| [token, secret]);
    for secret in held.chain([&client.secret]).filter(|secret| !secret.expose().is_empty()) {
        secrets.add(secret.expose());
    }
    secrets
}

fn plan<'a>(account: &Account<'a>) -> Result<&'a OAuth1, TokenError> {
    match &account.integration.auth {
        Auth::OAuth1(plan) => Ok(plan),
        _ => Err(misconfigured(format!("`{}` does not sign in by `auth: oauth1`", account.integration.id))),
    }
}

/// The token of an answer and its secret.
fn token_of(mut fields: BTreeMap<String, String>) -> Result<(Secret, Secret), TokenError> {
    let mut take = |name: &str| {
        let value = fields.remove(name).filter(|value| value.len() <= TOKEN_MOST);
        value.map(Secret::new)
    };
    let words = "the answer has no `oauth_token` and `oauth_token_secret` as a form";
    let missing = || TokenError::new(TokenErrorKind::Passing, words);
    let token = take("oauth_token").filter(|token| !token.expose().is_empty()).ok_or_else(missing)?;
    let secret = take("oauth_token_secret").ok_or_else(missing)?;
    Ok((token, secret))
}

/// Whether people may be sent to this address: as with calls, its host is written out or listed under `api.hosts`.
fn may_lead(account: &Account<'_>, authorize: &Text, url: &Url) -> Result<(), TokenError> {
    let first = match (authorize.literal(), authorize.segments().as_deref()) {
        (Some(whole), _) => Some(format!("{whole}/")),
        (None, Some([Segment::Literal(first), ..])) => Some(first.to_string()),
        _ => None,
    };
    let written_out = first.is_some_and(|text| text.split_once("://").is_some_and(|(_, rest)| rest.contains('/')));
    let refused = |error: BaseError| misconfigured(format!("`auth.oauth1.authorize`: {error}"));
    let place = Base::parse(&url[..Position::BeforePath], written_out).map_err(refused)?;
    let named = account.integration.api.as_ref().map(|api| (api.hosts.as_slice(), api.transport.allow_plain_http));
    origin::allow_named(named.unwrap_or((&[], false)), &account.generation.gateway, &place.origin, written_out)
        .map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_services_own_words() {
        for (body, words) in [
            (
                "oauth_problem=timestamp_refused&oauth_problem_advice=late%20by%20far",
                Some("timestamp_refused, late by far"),
            ),
            ("oauth_problem=consumer_key_unknown", Some("consumer_key_unknown")),
            (
                "error=invalid_request&error_description=Timestamp+is+invalid",
                Some("invalid_request, Timestamp is invalid"),
            ),
            ("Invalid consumer.\r\n", Some("Invalid consumer.")),
            (" <html>Maintenance</html>", None),
            ("", None),
        ] {
            assert_eq!(said(body.as_bytes()).as_deref(), words, "{body}");
        }
        assert_eq!(said(&[0xff]), None);
        assert_eq!(said("x".repeat(WORDS + 1).as_bytes()), None);
    }
}
