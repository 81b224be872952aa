//! The OAuth 1.0a side of a simulated service (RFC 5849): temporary credentials, a person's consent, a token,
//! and the signature of every call after that.
//!
//! What a call is signed with is worked out again here and compared, in the one way that the definition declares:
//! a nonce counts once, a time is five minutes off at most, a verifier belongs to its token. Called by `service`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::ledger::fresh;
use super::{At, Consent, is_at, page};
use crate::base::random::RandomUnavailable;
use crate::base::secret::Secret;
use crate::connection::sign::oauth1::{Signatory, signature};
use crate::connection::sign::{Body, Unsigned};
use crate::definition::plan::api::PathPattern;
use crate::definition::plan::oauth1::OAuth1;
use crate::definition::plan::request::Request;
use crate::definition::plan::{Auth, Integration};
use crate::mock::counted::{Borrowed, Counted};
use crate::mock::paths::last_key;
use crate::mock::received::Received;
use crate::mock::route::segments;
use crate::mock::shape;
use crate::respond::Answer;

/// How far the time of a call may be off, in seconds.
const TOLERANCE: u64 = 300;
/// How many values of each kind are remembered.
const REMEMBERED: usize = 10_000;

/// The OAuth 1.0a server of one simulated service.
#[derive(Debug)]
pub(in crate::mock) struct OAuth1Side {
    title: String,
    plan: Arc<OAuth1>,
    authorize_at: Vec<Option<Box<str>>>,
    book: Counted<Book>,
}

#[derive(Debug)]
struct Book {
    consent: Consent,
    temporary: HashMap<String, Temporary>,
    tokens: HashMap<String, Secret>,
    nonces: HashSet<(String, String)>,
    issued: u64,
    refused: u64,
}

/// Temporary credentials.
#[derive(Debug)]
struct Temporary {
    secret: Secret,
    callback: Url,
    verifier: Option<String>,
}

/// The protocol parameters of a call that was signed as it must be.
struct Signed(HashMap<String, String>);

impl Signed {
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// Whose secret signs besides the application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    Nothing,
    Temporary,
    Token,
}

impl OAuth1Side {
    /// The server that a definition describes; `None` when it is not of this kind.
    pub fn new(integration: &Integration, consent: Consent) -> Option<Self> {
        let Auth::OAuth1(plan) = &integration.auth else { return None };
        let book = Book {
            consent,
            temporary: HashMap::new(),
            tokens: HashMap::new(),
            nonces: HashSet::new(),
            issued: 0,
            refused: 0,
        };
        Some(Self {
            title: integration.title.clone(),
            authorize_at: segments(&plan.authorize),
            plan: Arc::clone(plan),
            book: Counted::new(book),
        })
    }

    /// The access tokens with their secrets, for a later process.
    pub fn state(&self) -> Value {
        let book = self.book();
        let tokens = book.tokens.iter().map(|(token, secret)| (token.clone(), Value::from(secret.expose().to_owned())));
        Value::Object(tokens.collect())
    }

    /// Goes on from a [`Self::state`].
    ///
    /// # Errors
    /// When the value is none.
    pub fn restore(&self, state: &Value) -> Result<(), serde_json::Error> {
        let tokens: HashMap<String, String> = Deserialize::deserialize(state)?;
        self.book().tokens = tokens.into_iter().map(|(token, secret)| (token, Secret::new(secret))).collect();
        Ok(())
    }

    /// How often [`Self::state`] may have changed.
    pub fn changes(&self) -> u64 {
        self.book.changes()
    }

    fn book(&self) -> Borrowed<'_, Book> {
        self.book.borrow()
    }

    /// The answer to a call of one of the three legs; `None` for calls to the API.
    pub fn answer(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Option<Answer> {
        if is_at(&self.plan.request_token, received, below) {
            return Some(self.begin(received, at).unwrap_or_else(|words| self.refuse(&words)));
        }
        if is_at(&self.plan.access_token, received, below) {
            return Some(self.finish(received, at).unwrap_or_else(|words| self.refuse(&words)));
        }
        let authorize = PathPattern { method: received.method.clone(), segments: self.authorize_at.clone() };
        let asked = matches!(received.method, Method::GET | Method::POST);
        (asked && authorize.matches(&received.method, &received.path)).then(|| self.authorize(received, at))
    }

    /// Who calls the API, when the call is signed for a token that was issued here and stands.
    pub fn admits(&self, received: &Received, at: At<'_>) -> Result<String, String> {
        let signed = self.verified(received, Holding::Token, at);
        signed.map(|signed| signed.get("oauth_token").to_owned()).inspect_err(|_| self.book().refused += 1)
    }

    /// Makes a change; see `Mock::control`.
    pub fn control(&self, consent: Option<Consent>, revoke: bool) -> Value {
        let mut book = self.book();
        book.consent = consent.unwrap_or(book.consent);
        if revoke {
            book.tokens.clear();
        }
        json!({ "tokens": book.tokens.len(), "issued": book.issued, "refused": book.refused })
    }

    fn begin(&self, received: &Received, at: At<'_>) -> Result<Answer, String> {
        let signed = self.verified(received, Holding::Nothing, at)?;
        let callback = Url::parse(signed.get("oauth_callback"));
        let callback = callback.map_err(|_| "`oauth_callback` is missing or no address".to_owned())?;
        if !matches!(callback.scheme(), "http" | "https") || callback.fragment().is_some() {
            return Err("`oauth_callback` is not an address that people may be sent to".to_owned());
        }
        let (token, secret) = pair(at).map_err(|error| error.to_string())?;
        let told = [("oauth_token", &*token), ("oauth_token_secret", &*secret), ("oauth_callback_confirmed", "true")];
        let answer = form(&self.plan.request_token, &told);
        let mut book = self.book();
        if book.temporary.len() >= REMEMBERED {
            book.temporary.clear();
        }
        book.temporary.insert(token, Temporary { secret: Secret::new(secret), callback, verifier: None });
        Ok(answer)
    }

    fn authorize(&self, received: &Received, at: At<'_>) -> Answer {
        let token = received.parameter("oauth_token").unwrap_or_default();
        let mut book = self.book();
        let consent = book.consent;
        let Some(temporary) = book.temporary.get_mut(token).filter(|temporary| temporary.verifier.is_none()) else {
            return page::fault(&self.title, "`oauth_token` was not issued here, or has been used");
        };
        let decided = match (consent, &received.method) {
            (Consent::Granted, _) => true,
            (Consent::Denied, _) => false,
            (Consent::Asked, &Method::POST) => {
                let mut form = url::form_urlencoded::parse(&received.body);
                form.any(|(name, value)| name == "decision" && value == "allow")
            }
            (Consent::Asked, _) => return page::consent(&self.title, &[]),
        };
        let mut back = temporary.callback.clone();
        if decided {
            let Ok(verifier) = fresh("verifier", at.random) else {
                return page::fault(&self.title, "this machine has no random numbers to give");
            };
            back.query_pairs_mut().append_pair("oauth_token", token).append_pair("oauth_verifier", &verifier);
            temporary.verifier = Some(verifier);
        } else {
            // RFC 5849 has no word for it; this is the services' own.
            back.query_pairs_mut().append_pair("denied", token);
            book.temporary.remove(token);
        }
        page::back(&self.title, &back)
    }

    fn finish(&self, received: &Received, at: At<'_>) -> Result<Answer, String> {
        let signed = self.verified(received, Holding::Temporary, at)?;
        let token = signed.get("oauth_token");
        let (access, secret) = pair(at).map_err(|error| error.to_string())?;
        let mut book = self.book();
        // Temporary credentials serve once, whatever comes with them.
        let temporary = book.temporary.remove(token).ok_or("`oauth_token` was not issued here, or has been used")?;
        if temporary.verifier.as_deref() != Some(signed.get("oauth_verifier")) {
            return Err("`oauth_verifier` is not the one that was given for this token".to_owned());
        }
        let answer = form(&self.plan.access_token, &[("oauth_token", &access), ("oauth_token_secret", &secret)]);
        book.issued += 1;
        book.tokens.insert(access, Secret::new(secret));
        Ok(answer)
    }

    /// The protocol parameters of a call whose signature is that of the application, and of the token it names.
    fn verified(&self, received: &Received, holding: Holding, at: At<'_>) -> Result<Signed, String> {
        let mut params = params(received)?;
        let given = params.remove("oauth_signature").ok_or("`oauth_signature` is missing")?;
        params.remove("realm");
        let client = self.plan.client.as_ref().ok_or("the definition has no `auth.oauth1.client`")?;
        let signed = Signed(params);
        if signed.get("oauth_consumer_key") != client.key {
            return Err("no application has this `oauth_consumer_key`".to_owned());
        }
        if signed.get("oauth_signature_method") != self.plan.signature.name() {
            return Err(format!("`oauth_signature_method` is not `{}`", self.plan.signature.name()));
        }
        let moment: Option<u64> = signed.get("oauth_timestamp").parse().ok();
        if moment.is_none_or(|moment| moment.abs_diff(at.now.seconds()) > TOLERANCE) {
            return Err("`oauth_timestamp` is more than five minutes off".to_owned());
        }
        let token = Secret::from(signed.get("oauth_token"));
        let mut book = self.book();
        let secret = match holding {
            Holding::Nothing => None,
            Holding::Temporary => book.temporary.get(token.expose()).map(|temporary| &temporary.secret),
            Holding::Token => book.tokens.get(token.expose()),
        };
        if holding != Holding::Nothing && secret.is_none() {
            return Err("`oauth_token` was not issued here, or has been used or revoked".to_owned());
        }
        let signatory = Signatory {
            method: &self.plan.signature,
            consumer: &client.key,
            secret: &client.secret,
            token: secret.map(|secret| (&token, Some(secret))),
            realm: None,
        };
        let pairs: Vec<_> = signed.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if !is_signed(received, signatory, &pairs, &Secret::new(given))? {
            return Err("the signature is wrong".to_owned());
        }
        if book.nonces.len() >= REMEMBERED {
            book.nonces.clear();
        }
        let nonce = (signed.get("oauth_timestamp").to_owned(), signed.get("oauth_nonce").to_owned());
        if nonce.1.is_empty() || !book.nonces.insert(nonce) {
            return Err("`oauth_nonce` is missing, or was used before".to_owned());
        }
        drop(book);
        Ok(signed)
    }

    fn refuse(&self, words: &str) -> Answer {
        self.book().refused += 1;
        Answer { body: Bytes::from(words.to_owned()), ..Answer::empty(StatusCode::UNAUTHORIZED) }
            .with(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("OAuth realm=\"trunkline mock\""))
    }
}

/// Whether a call has the signature that it must have.
fn is_signed(
    received: &Received,
    signatory: Signatory<'_>,
    params: &[(&str, &str)],
    given: &Secret,
) -> Result<bool, String> {
    let (secure, authority, path) = received.reached().ok_or("the call has no usable `Host`")?;
    let call = Unsigned {
        method: &received.method,
        secure,
        authority: &authority,
        path: &path,
        query: &received.raw_query,
        headers: &received.headers,
        body: Body::Whole(&received.body),
    };
    let wanted = signature(&call, signatory, params).map_err(|error| error.to_string())?;
    let mac = |secret: &Secret| ring::digest::digest(&ring::digest::SHA256, secret.expose().as_bytes());
    // Of digests the comparison tells nothing that one could use.
    Ok(mac(&wanted).as_ref() == mac(given).as_ref())
}

/// The parameters of the `Authorization` header (section 3.5.1).
fn params(received: &Received) -> Result<HashMap<String, String>, String> {
    let value = received.header(&header::AUTHORIZATION).ok_or("the header `authorization` is missing")?;
    let value = value.strip_prefix("OAuth ").ok_or("the header `authorization` does not have the form `OAuth …`")?;
    let mut params = HashMap::new();
    for part in value.split(',') {
        let (name, quoted) = part.trim().split_once('=').ok_or("a parameter of the header has no value")?;
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let inner = inner.ok_or("a value of the header is not quoted")?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        if params.insert(decoded(name), decoded(inner)).is_some() {
            return Err(format!("the parameter `{name}` is there twice"));
        }
    }
    Ok(params)
}

/// A token and its secret.
fn pair(at: At<'_>) -> Result<(String, String), RandomUnavailable> {
    Ok((fresh("token", at.random)?, fresh("secret", at.random)?))
}

/// A form, with whatever else the definition keeps of it.
fn form(request: &Request, told: &[(&str, &str)]) -> Answer {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(told);
    let kept = request.save.iter().flat_map(|(_, expr)| crate::mock::paths::reads(expr.source()));
    for name in kept.filter_map(|read| last_key(&read.steps).map(str::to_owned)) {
        if told.iter().all(|(known, _)| *known != name) {
            let value = shape::plausible(&name, 1);
            form.append_pair(&name, value.as_str().unwrap_or(&value.to_string()));
        }
    }
    Answer { body: Bytes::from(form.finish()), ..Answer::empty(StatusCode::OK) }
        .with(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
        .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}
