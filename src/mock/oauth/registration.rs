//! Applications that register themselves (RFC 7591), and ask to be forgotten (RFC 7592). Called by the room's
//! front; who is registered is asked by `token` and `consent`.

use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::ledger::fresh;
use super::presented::Complaint;
use super::{At, OAuthSide};
use crate::base::secret::Secret;
use crate::definition::plan::oauth2::Client;
use crate::mock::received::Received;
use crate::respond::Answer;

/// How many applications are kept at most; the oldest is forgotten.
const KEPT: usize = 1_000;
/// Where a registration is managed, below the service.
const MANAGED: &str = "/mock/registrations/";

/// An application that registered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Application {
    id: String,
    secret: Option<String>,
    token: String,
    redirect_uris: Vec<String>,
}

impl OAuthSide {
    /// The answer to a call that registers an application or has one forgotten, where it is one.
    pub(super) fn registration(&self, received: &Received, at: At<'_>) -> Option<Answer> {
        let plan = self.plan.registration.as_ref()?;
        if let Some(id) = received.path.strip_prefix(MANAGED).filter(|_| received.method == Method::DELETE) {
            return Some(self.forget(id, received));
        }
        let path = plan.url.as_ref().and_then(|url| Some(Url::parse(url.literal()?).ok()?.path().to_owned()));
        let is_here = path.is_none_or(|path| path == received.path) && received.method == Method::POST;
        let is_json = received.header(&header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
        (is_here && is_json && received.fields().contains_key("token_endpoint_auth_method"))
            .then(|| self.take_on(received, at))
    }

    fn take_on(&self, received: &Received, at: At<'_>) -> Answer {
        let plan = self.plan.registration.as_ref();
        if let Some(token) = plan.and_then(|plan| plan.token.as_ref())
            && !carries(received, token.expose())
        {
            return told(StatusCode::UNAUTHORIZED, "invalid_token", "an initial access token is needed");
        }
        let fields = received.fields();
        let redirect_uris: Vec<String> = fields
            .get("redirect_uris")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|uri| uri.as_str().map(str::to_owned))
            .collect();
        let is_bad =
            |uri: &String| Url::parse(uri).is_ok_and(|uri| uri.fragment().is_some()) || Url::parse(uri).is_err();
        if let Some(bad) = redirect_uris.iter().find(|uri| is_bad(uri)) {
            let words = format!("`{bad}` is not an address that codes may be sent to");
            return told(StatusCode::BAD_REQUEST, "invalid_redirect_uri", &words);
        }
        let public = fields.get("token_endpoint_auth_method") == Some(&json!("none"));
        let signs = fields.get("token_endpoint_auth_method") == Some(&json!("private_key_jwt"));
        let made = ["client", "secret", "registration"].map(|kind| fresh(kind, at.random));
        let [Ok(id), Ok(secret), Ok(token)] = made else {
            return told(StatusCode::SERVICE_UNAVAILABLE, "server_error", "this machine has no random numbers to give");
        };
        let secret = (!public && !signs).then_some(secret);
        let mut answer = fields;
        answer.insert("client_id".to_owned(), id.as_str().into());
        answer.insert("registration_access_token".to_owned(), token.as_str().into());
        answer.insert("registration_client_uri".to_owned(), format!("{}{MANAGED}{id}", self.origin(received)).into());
        if let Some(secret) = &secret {
            answer.insert("client_secret".to_owned(), secret.as_str().into());
            answer.insert("client_secret_expires_at".to_owned(), json!(0));
        }
        let mut applications = self.applications();
        if applications.len() == KEPT {
            applications.remove(0);
        }
        applications.push(Application { id, secret, token, redirect_uris });
        Answer::json(StatusCode::CREATED, &Value::Object(answer))
    }

    /// Scheme and host of the service, as the application called it.
    fn origin(&self, received: &Received) -> String {
        let declared = self.plan.registration.as_ref().and_then(|plan| plan.url.as_ref()?.literal());
        let declared = declared.and_then(|url| Some(Url::parse(url).ok()?.origin().ascii_serialization()));
        declared.unwrap_or_else(|| received.origin.clone())
    }

    fn forget(&self, id: &str, received: &Received) -> Answer {
        let mut applications = self.applications();
        let place = applications.iter().position(|known| known.id == id && carries(received, &known.token));
        match place {
            Some(place) => {
                applications.remove(place);
                Answer::empty(StatusCode::NO_CONTENT)
            }
            None => told(StatusCode::UNAUTHORIZED, "invalid_token", "no application has this token"),
        }
    }

    /// The application of this id: the deployment's, or one that registered. `Err` when applications register
    /// here and this one has not.
    pub(super) fn application(&self, id: Option<&str>) -> Result<Option<Client>, Complaint> {
        if self.plan.client.is_some() || self.plan.registration.is_none() {
            return Ok(None);
        }
        let applications = self.applications();
        let known = applications.iter().find(|known| Some(known.id.as_str()) == id);
        let known =
            known.ok_or_else(|| Complaint::Client("no application of this id has registered here".to_owned()))?;
        let secret = known.secret.as_deref().map(Secret::from);
        Ok(Some(Client { id: known.id.clone(), secret, certificate: None }))
    }

    /// Whether people may be sent there from an application that registered.
    pub(super) fn sends_back_to(&self, id: Option<&str>, redirect_uri: &str) -> bool {
        if self.plan.client.is_some() || self.plan.registration.is_none() {
            return true;
        }
        let applications = self.applications();
        let known = applications.iter().find(|known| Some(known.id.as_str()) == id);
        known.is_some_and(|known| known.redirect_uris.iter().any(|uri| uri == redirect_uri))
    }
}

fn carries(received: &Received, token: &str) -> bool {
    received.header(&header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")) == Some(token)
}

fn told(status: StatusCode, code: &str, words: &str) -> Answer {
    Answer::json(status, &json!({ "error": code, "error_description": words }))
}
