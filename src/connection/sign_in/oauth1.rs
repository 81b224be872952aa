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
use url::Url;

use super::Parts;
use super::send::{self, misconfigured};
use crate::base::secret::Secret;
use crate::connection::credential::TOKEN_SECRET;
use crate::connection::directory::DEFAULT;
use crate::connection::grant::{Account, Grant, Issued, TokenError, TokenErrorKind};
use crate::connection::sign::oauth1::{Signatory, authorization};
use crate::connection::sign::{Body, Unsigned};
use crate::definition::plan::auth::Auth;
use crate::definition::plan::oauth1::OAuth1;
use crate::definition::plan::request::Request;
use crate::net::{Outgoing, Scheme};

/// The most bytes that a token or its secret may have.
const TOKEN_MOST: usize = 8 << 10;

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
        let fields = self.call(&account, (&plan.request_token, plan), None, ("oauth_callback", callback)).await?.0;
        if fields.get("oauth_callback_confirmed").is_none_or(|confirmed| confirmed != "true") {
            let words = "the service does not confirm the callback's address (`oauth_callback_confirmed`)";
            return Err(misconfigured(words));
        }
        let (token, secret) = token_of(fields)?;
        let url = self.authorize_url(&account, plan, &token)?;
        Ok(Temporary { url, token, secret })
    }

    fn authorize_url(&self, account: &Account<'_>, plan: &OAuth1, token: &Secret) -> Result<String, TokenError> {
        let context = send::context(account, &self.parts);
        let written = plan.authorize.render(&context);
        let written = written.map_err(|error| misconfigured(format!("`auth.oauth1.authorize`: {error}")))?;
        let url = Url::parse(&written).ok().filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
        let mut url = url.ok_or_else(|| misconfigured("`auth.oauth1.authorize` is not an address of the web"))?;
        url.query_pairs_mut().append_pair("oauth_token", token.expose());
        Ok(url.into())
    }

    /// Fetches the token (section 2.3). Call it once for each verifier.
    ///
    /// # Errors
    /// As the service answers.
    pub async fn finish(&self, account: Account<'_>, consent: Consent<'_>) -> Result<Grant, TokenError> {
        let plan = plan(&account)?;
        let held = Some((consent.token, consent.secret));
        let verifier = ("oauth_verifier", consent.verifier.expose().as_str());
        let (fields, saved) = self.call(&account, (&plan.access_token, plan), held, verifier).await?;
        let (token, secret) = token_of(fields)?;
        let now = self.parts.clock.now();
        let tokens = [(DEFAULT, token), (TOKEN_SECRET, secret)];
        let tokens = tokens.map(|(name, access)| (Arc::from(name), Issued::bare(access, now)));
        Ok(Grant { tokens: BTreeMap::from(tokens), saved })
    }

    /// One signed call, and the fields of the form it answers with.
    async fn call(
        &self,
        account: &Account<'_>,
        (request, plan): (&Request, &OAuth1),
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
        let finish = |outgoing: &mut Outgoing| self.sign(outgoing, signatory, more);
        let outcome = send::send(&self.parts, account, (request, &context), &finish).await?;
        // It is a form whatever its content type says, and many services say `text/html`.
        let fields: BTreeMap<String, String> = url::form_urlencoded::parse(&outcome.body).into_owned().collect();
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
