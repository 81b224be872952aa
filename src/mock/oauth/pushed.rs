//! Pushed authorization requests (RFC 9126): what the application pushes, and the person who brings its name.
//! Called by the room's front and `consent`.

use std::borrow::Cow;
use std::time::Duration;

use http::{StatusCode, header};
use serde_json::json;

use super::ledger::fresh;
use super::presented::{Complaint, Presented, as_declared};
use super::{At, OAuthSide, is_at};
use crate::base::clock::Timestamp;
use crate::definition::plan::oauth2::TokenCall;
use crate::definition::plan::request::Request;
use crate::mock::received::Received;
use crate::respond::Answer;

/// How long what was pushed waits for its person.
pub(super) const PUSHED_LIFE: Duration = Duration::from_mins(1);
/// How names of what was pushed begin (RFC 9126 §2.2).
const NAME: &str = "urn:ietf:params:oauth:request_uri:";
/// How much is kept at most; the oldest is forgotten.
const KEPT: usize = 1_000;

/// What was pushed.
#[derive(Debug)]
pub(super) struct Pushed {
    name: String,
    params: Vec<(String, String)>,
    until: Timestamp,
}

impl OAuthSide {
    /// The answer to a push, where the call is one.
    pub(super) fn push(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Option<Answer> {
        let request = self.plan.push.as_ref().filter(|request| is_at(request, received, below))?;
        Some(self.take_in(request, received, at).unwrap_or_else(|complaint| {
            let client = matches!(complaint, Complaint::Client(_));
            let status = if client { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            Answer::json(status, &json!({ "error": complaint.code(), "error_description": complaint.to_string() }))
        }))
    }

    fn take_in(&self, request: &Request, received: &Received, at: At<'_>) -> Result<Answer, Complaint> {
        as_declared(request, self.plan.client.as_ref(), received)?;
        self.proves(&Presented::new(received, &TokenCall::plain(request.clone())))?;
        let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let params: Vec<_> = received.fields().into_iter().map(|(name, value)| (name, text(value))).collect();
        if params.iter().any(|(name, _)| name == "request_uri") {
            return Err(Complaint::Request("`request_uri` is not pushed (RFC 9126 §2.1)".to_owned()));
        }
        let none = |_| Complaint::Request("this machine has no random numbers to give".to_owned());
        let name = format!("{NAME}{}", fresh("pushed", at.random).map_err(none)?);
        let answer = json!({ "request_uri": name, "expires_in": PUSHED_LIFE.as_secs() });
        let mut pushed = self.pushed();
        if pushed.len() == KEPT {
            pushed.remove(0);
        }
        pushed.push(Pushed { name, params, until: at.now.after(PUSHED_LIFE) });
        Ok(Answer::json(StatusCode::CREATED, &answer)
            .with(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store")))
    }

    /// What a person came with, or what was pushed for them; a service whose definition pushes takes nothing
    /// from browsers.
    pub(super) fn pulled<'a>(&self, received: &'a Received, now: Timestamp) -> Result<Cow<'a, Received>, String> {
        if self.plan.push.is_none() {
            return Ok(Cow::Borrowed(received));
        }
        let name = received.parameter("request_uri").ok_or("`request_uri` is missing: parameters are pushed here")?;
        let pushed = self.pushed();
        let found = pushed.iter().find(|pushed| pushed.name == name && now < pushed.until);
        let found = found.ok_or("`request_uri` is not known here, or has expired (invalid_request_uri)")?;
        let mut query = found.params.clone();
        // The application's id is the one thing that is in both.
        query.retain(|(known, _)| known != "client_id");
        query.extend(received.query.iter().filter(|(known, _)| known != "request_uri").cloned());
        let raw = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&query).finish();
        Ok(Cow::Owned(Received { query, raw_query: raw, ..received.clone() }))
    }
}
