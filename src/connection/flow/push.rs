//! What a person is sent with, pushed to the service first (RFC 9126).
//!
//! The parameters go by a call of our own, which proves the application; the person's browser then carries a
//! name for them that works once and not for long. A service that refuses is told of before anybody is sent
//! anywhere, and nothing falls back to the longer address: whoever could make the push fail would have
//! chosen what the browser shows.

use http::HeaderMap;
use serde_json::Value as Json;

use super::authorize::{Sent, is_empty};
use super::scene::Scene;
use super::send::{self, Step};
use super::token_params::{self, Params};
use super::{Stage, TokenCalls, token_reply};
use crate::connection::grant::{TokenError, TokenErrorKind};
use crate::definition::plan::oauth2::{Authorize, TokenCall};
use crate::definition::plan::request::{Body, Request};
use crate::request::Answer;
use crate::request::moment::after_seconds;
use crate::template::Tree;

/// The longest name that is believed: browsers and servers take no address that is much longer.
const NAME_MOST: usize = 2_048;

impl TokenCalls {
    /// Pushes what a person would be sent with, and gives what they are sent with instead.
    ///
    /// # Errors
    /// When the service refuses, or its answer has no name that works for any time.
    pub(super) async fn push(
        &self,
        scene: &Scene<'_>,
        (request, authorize): (&Request, &Authorize),
        sent: Sent,
    ) -> Result<Sent, TokenError> {
        let own_id = sent.written.iter().find(|(name, _)| name == wire(authorize, "client_id")).cloned();
        let call = call(request, authorize, sent.written);
        let mut params = Params::default();
        for (name, value) in sent.standard {
            // How the application is named follows from how it proves itself.
            if name != "client_id" && !is_empty(&value) && !replaced(authorize, name) {
                params.add_all(name, texts(value));
            }
        }
        let assertion = self.client_assertion(scene, &call.request)?;
        let proof = token_params::prove((scene, &call), &mut params, assertion.as_ref())?;
        if proof.is_some() || call.request.basic.is_some() {
            params.add("client_id", scene.client()?.id.as_str());
        }
        let request = token_params::placed(&call, params);
        let finish = |headers: &mut HeaderMap| token_params::headers(&request, headers, proof.clone());
        let step = Step { stage: Stage::Push, request: &request, finish: &finish };
        let answer = Answer::of(send::send(&self.parts, scene, step).await?);
        let context = answer.seen(&scene.context());
        let now = self.parts.clock.now();
        match answer.holds(request.ok.as_ref(), &context) {
            Ok(true) => {}
            Ok(false) => return Err(token_reply::refusal(&call, (&context, &scene.secrets), answer, now)),
            Err(error) => return Err(unusable(scene, &answer, &error.to_string())),
        }
        let field = |name: &str| answer.json().and_then(|json| json.get(name));
        let name = field("request_uri").and_then(Json::as_str);
        let name = name.filter(|name| !name.is_empty() && name.len() <= NAME_MOST && !name.contains(char::is_control));
        let name = name.ok_or_else(|| unusable(scene, &answer, "it has no `request_uri` (RFC 9126 §2.2)"))?;
        let lasts = field("expires_in").is_none_or(|seconds| after_seconds(seconds, now).is_some());
        if !lasts {
            return Err(unusable(scene, &answer, "its `request_uri` has expired already (`expires_in`)"));
        }
        let standard = vec![("client_id", Json::from(scene.client()?.id.as_str())), ("request_uri", Json::from(name))];
        Ok(Sent { standard, written: own_id.into_iter().collect() })
    }
}

/// The request with what the definition adds to the way to consent, under the service's names for parameters.
fn call(request: &Request, authorize: &Authorize, written: Vec<(String, Tree)>) -> TokenCall {
    let mut request = request.clone();
    match &mut request.body {
        Body::Form(fields) | Body::Json(Tree::Map(fields)) => add(fields, written),
        body @ Body::Empty => *body = Body::Form(written),
        Body::Json(_) | Body::Text(_) => {}
    }
    let (rename, omit) = (authorize.rename.clone(), authorize.omit.clone());
    TokenCall { rename, omit, ..TokenCall::plain(request) }
}

fn add(fields: &mut Vec<(String, Tree)>, written: Vec<(String, Tree)>) {
    for (name, value) in written {
        if fields.iter().all(|(known, _)| *known != name) {
            fields.push((name, value));
        }
    }
}

/// The service's name for a standard parameter.
fn wire<'a>(authorize: &'a Authorize, name: &'a str) -> &'a str {
    authorize.rename.iter().find(|(from, _)| from == name).map_or(name, |(_, to)| to)
}

/// Whether the definition puts something of its own in the place of a standard parameter.
fn replaced(authorize: &Authorize, name: &str) -> bool {
    let wire = wire(authorize, name);
    authorize.params.iter().any(|(known, _)| known == wire)
}

fn texts(value: Json) -> Vec<String> {
    match value {
        Json::String(text) => vec![text],
        Json::Array(items) => items.into_iter().flat_map(texts).collect(),
        other => vec![other.to_string()],
    }
}

fn unusable(scene: &Scene<'_>, answer: &Answer, reason: &str) -> TokenError {
    let words = scene.secrets.redact(&format!("the answer to `push` cannot be used: {reason}"));
    TokenError { status: Some(answer.status()), ..TokenError::new(TokenErrorKind::Passing, words) }
}
