//! The device flow (RFC 8628): codes for a device, and the page where a person types theirs. Called by the
//! room's front.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use super::ledger::{FamilyId, fresh};
use super::page;
use super::presented::{Complaint, as_declared};
use super::{At, Consent, OAuthSide, is_at};
use crate::base::clock::Timestamp;
use crate::mock::received::Received;
use crate::respond::Answer;

/// How long a person has.
const DEVICE_LIFE: Duration = Duration::from_mins(10);
/// How often the device may ask.
const INTERVAL: Duration = Duration::from_secs(5);
/// Where the page is.
pub(super) const PAGE: &str = "/-/device";
/// How many flows are open at most; the oldest are forgotten.
const OPEN: usize = 1_000;

/// A flow that was begun.
#[derive(Debug)]
pub(super) struct Flow {
    device_code: String,
    user_code: String,
    scopes: Vec<String>,
    until: Timestamp,
    asked_at: Option<Timestamp>,
    decided: Decided,
}

/// What a person said to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decided {
    NotYet,
    Allowed(FamilyId),
    Refused,
}

impl OAuthSide {
    /// The answer to a device authorization request, where it is one.
    pub(super) fn device(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Option<Answer> {
        let request = self.plan.device.as_ref().filter(|request| is_at(request, received, below))?;
        let client = self.plan.client.as_ref();
        let begun = as_declared(request, client, received).and_then(|()| self.begin(received, at));
        Some(begun.unwrap_or_else(|complaint| {
            let told = json!({ "error": complaint.code(), "error_description": complaint.to_string() });
            Answer::json(StatusCode::BAD_REQUEST, &told)
        }))
    }

    fn begin(&self, received: &Received, at: At<'_>) -> Result<Answer, Complaint> {
        let fields = received.fields();
        let field = |name: &str| fields.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let client = self.plan.client.as_ref();
        if client.is_some_and(|client| client.id != field("client_id"))
            && received.header(&http::header::AUTHORIZATION).is_none()
        {
            return Err(Complaint::Client("no application has this id".to_owned()));
        }
        let none = |_| Complaint::Request("this machine has no random numbers to give".to_owned());
        let device_code = fresh("device", at.random).map_err(none)?;
        let digits = fresh("", at.random).map_err(none)?.to_ascii_uppercase();
        let user_code: String = digits.chars().rev().take(8).collect();
        let scopes = self.split_scopes(field("scope"));
        let page = format!("{}{PAGE}", received.here);
        let told = json!({
            "device_code": device_code, "user_code": user_code, "verification_uri": page,
            "verification_uri_complete": format!("{page}?user_code={user_code}"),
            "expires_in": DEVICE_LIFE.as_secs(), "interval": INTERVAL.as_secs(),
        });
        let until = at.now.after(DEVICE_LIFE);
        let mut flows = self.flows();
        if flows.len() == OPEN {
            flows.remove(0);
        }
        flows.push(Flow { device_code, user_code, scopes, until, asked_at: None, decided: Decided::NotYet });
        Ok(Answer::json(StatusCode::OK, &told))
    }

    /// The page where a person types a code, and what they decide there.
    pub(super) fn device_page(&self, received: &Received, at: At<'_>) -> Option<Answer> {
        if received.path != PAGE || self.plan.device.is_none() {
            return None;
        }
        if received.method != Method::POST {
            return Some(page::device(&self.title, received.parameter("user_code").unwrap_or_default()));
        }
        let form: Vec<(String, String)> = url::form_urlencoded::parse(&received.body).into_owned().collect();
        let value = |name: &str| form.iter().find(|(known, _)| known == name).map(|(_, value)| value.trim());
        let typed = value("user_code").unwrap_or_default().to_ascii_uppercase();
        let mut flows = self.flows();
        let flow = flows
            .iter_mut()
            .find(|flow| flow.user_code == typed && flow.until > at.now && flow.decided == Decided::NotYet);
        let Some(flow) = flow else { return Some(page::fault(&self.title, "no device shows this code")) };
        let allowed = value("decision") == Some("allow");
        flow.decided = if allowed { Decided::Allowed(self.ledger.open(flow.scopes.clone())) } else { Decided::Refused };
        Some(page::done(&self.title, if allowed { "Done: your device is connected." } else { "You said no." }))
    }

    /// What a device that asks with its code gets.
    pub(super) fn device_family(&self, code: &str, now: Timestamp) -> Result<FamilyId, Complaint> {
        let mut flows = self.flows();
        let place = flows.iter().position(|flow| flow.device_code == code);
        let place = place.ok_or_else(|| Complaint::Grant("it was not issued here".to_owned()))?;
        let flow = &mut flows[place];
        if flow.until <= now {
            return Err(Complaint::Device("expired_token"));
        }
        let hasty = flow.asked_at.is_some_and(|before| now.since(before) < INTERVAL);
        flow.asked_at = Some(now);
        if flow.decided == Decided::NotYet {
            flow.decided = match self.consent() {
                Consent::Asked => Decided::NotYet,
                Consent::Granted => Decided::Allowed(self.ledger.open(flow.scopes.clone())),
                Consent::Denied => Decided::Refused,
            };
        }
        match flow.decided {
            Decided::NotYet if hasty => Err(Complaint::Device("slow_down")),
            Decided::NotYet => Err(Complaint::Device("authorization_pending")),
            Decided::Refused => Err(Complaint::Device("access_denied")),
            Decided::Allowed(family) => {
                flows.remove(place);
                self.ledger.count_grant();
                Ok(family)
            }
        }
    }
}
