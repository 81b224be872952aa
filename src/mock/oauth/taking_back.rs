//! Revocation (RFC 7009, and the services' own ways) and introspection (RFC 7662). Called by the room's front.

use http::{StatusCode, header};
use serde_json::Value;

use super::presented::{Presented, as_declared, proves_client, values};
use super::reply::Reply;
use super::{At, OAuthSide, is_at};
use crate::definition::plan::oauth2::{ClientAuth, TokenCall};
use crate::definition::plan::request::{CredentialUse, Request};
use crate::mock::received::Received;
use crate::respond::Answer;

impl OAuthSide {
    /// The answer to a call that takes a token back, where it is one.
    pub(super) fn taking_back(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Option<Answer> {
        let request = self.plan.revoke.iter().find(|request| is_at(request, received, below))?;
        let refused = |status: StatusCode, words: &str| Some(self.no(request, status, words));
        if let Err(complaint) = as_declared(request, self.plan.client.as_ref(), received) {
            return refused(StatusCode::BAD_REQUEST, &complaint.to_string());
        }
        let presented = values(received);
        let live = presented.iter().any(|value| self.ledger.holder(value, at.now).is_ok());
        match &request.credential {
            CredentialUse::Token(_) if !live => return refused(StatusCode::UNAUTHORIZED, "the token is not valid"),
            CredentialUse::Client => {
                if let Err(words) = self.shows_client(request, received) {
                    return refused(StatusCode::UNAUTHORIZED, &words);
                }
            }
            _ => {}
        }
        // A token that is not known is answered as one that was revoked (RFC 7009 §2.2).
        for family in presented.iter().filter_map(|value| self.ledger.family_of(value)) {
            self.ledger.revoke(family);
        }
        let mut reply = Reply::new(StatusCode::OK);
        let api = self.integration.api.as_ref();
        if let Some(ok) = request.ok.as_ref().or_else(|| api.and_then(|api| api.ok.as_ref())) {
            drop(reply.decide(ok, true));
        }
        Some(reply.answer())
    }

    fn no(&self, request: &Request, status: StatusCode, words: &str) -> Answer {
        let mut reply = Reply::new(status);
        let api = self.integration.api.as_ref();
        if let Some(error) = request.error.as_ref().or_else(|| api.and_then(|api| api.error.as_ref())) {
            reply.fill_with(error, words);
        }
        if let Some(ok) = request.ok.as_ref().or_else(|| api.and_then(|api| api.ok.as_ref())) {
            drop(reply.decide(ok, false));
        }
        reply.answer()
    }

    /// Whether a call of `credential: client` proves the application: by an assertion where token calls do so.
    fn shows_client(&self, request: &Request, received: &Received) -> Result<(), String> {
        if self.plan.client_auth == ClientAuth::PrivateKeyJwt {
            let call = TokenCall::plain(request.clone());
            return self.proves(&Presented::new(received, &call)).map_err(|complaint| complaint.to_string());
        }
        let shown = self.carries_basic(received);
        shown.then_some(()).ok_or_else(|| "the call must carry the application's id and secret".to_owned())
    }

    /// Whether a call carries the application's own id and secret as Basic, in either form.
    fn carries_basic(&self, received: &Received) -> bool {
        let Some(call) = self.token_calls().first() else { return true };
        let presented = Presented::new(received, call);
        let client = self.plan.client.as_ref();
        let takes = |way| proves_client(&presented, way, client).is_ok();
        received.header(&header::AUTHORIZATION).is_some() && (takes(ClientAuth::Basic) || takes(ClientAuth::BasicRaw))
    }

    /// The answer to an introspection, where the call is one.
    pub(super) fn introspect(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Option<Answer> {
        let call = self.plan.introspect.as_ref().filter(|call| is_at(&call.request, received, below))?;
        let presented = Presented::new(received, call);
        let asked = as_declared(&call.request, self.plan.client.as_ref(), received)
            .and_then(|()| proves_client(&presented, self.plan.client_auth, self.plan.client.as_ref()));
        if let Err(complaint) = asked {
            return Some(self.refuse(call, &complaint));
        }
        let token = presented.values().into_iter().find(|value| self.ledger.family_of(value).is_some());
        let live = token.filter(|token| self.ledger.holder(token, at.now).is_ok());
        let mut reply = Reply::new(StatusCode::OK);
        reply.field("active", Value::Bool(live.is_some()));
        if let Some(token) = live {
            let told = call.tokens.iter().filter_map(|(_, map)| map.expires.as_ref());
            for moment in told {
                if let Some(end) = self.ledger.end(&token) {
                    drop(reply.solve_moment(moment, end, at.now));
                }
            }
        }
        if let Some(ok) = &call.request.ok {
            drop(reply.decide(ok, true));
        }
        Some(reply.answer())
    }
}
