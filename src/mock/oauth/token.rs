//! The token endpoint: a call is matched with one that the definition declares, examined, and answered in the
//! definition's own shape. Called by the room's front.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ledger::{FamilyId, Refused, Use};
use super::presented::{Complaint, Presented, as_declared, proves_client};
use super::reply::{Reply, Unsolved};
use super::{At, OAuthSide, is_at};
use crate::base::clock::Timestamp;
use crate::definition::plan::moment::MomentUnit;
use crate::definition::plan::oauth2::{ClientAuth, Grant, Pkce, RefreshPolicy, TokenCall, TokenMap};
use crate::definition::plan::request::{Body, Request};
use crate::mock::received::Received;
use crate::respond::Answer;
use crate::template::{Expr, Tree};

/// How long an access token lives where the definition reads that from the answer.
pub(super) const ACCESS_LIFE: Duration = Duration::from_hours(1);
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Where in the definition a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A step of `token`, counted from zero.
    Token(usize),
    /// A step of `refresh`.
    Refresh(usize),
}

/// What a call asks for.
#[derive(Debug)]
enum Purpose {
    Code(String),
    Refresh(String),
    /// By an access token, or as a later step of a pipeline.
    Exchange(String),
    Device(String),
    ForItself,
}

/// Whose the tokens are that a call is given, and which.
struct Given {
    family: FamilyId,
    /// The named tokens that the answer has; `None` means all.
    name: Option<String>,
    /// Whether refresh tokens come with them.
    refresh: bool,
    /// Whether only the life of those held is lengthened.
    extended: bool,
}

impl OAuthSide {
    /// The answer to a token call, where the call is one.
    pub(super) fn token(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Option<Answer> {
        let declared: Vec<_> = self.calls().filter(|(_, call)| is_at(&call.request, received, below)).collect();
        let (_, first) = declared.first()?;
        if let Some(answer) = self.failing(first) {
            return Some(answer);
        }
        let read = |(role, call): &(Role, &TokenCall)| self.read(*role, call, received).map(|purpose| (*role, purpose));
        let mut complaint = None;
        for (candidate, call) in declared.iter().map(|declared| (declared, declared.1)) {
            match read(candidate) {
                Ok((role, purpose)) => return Some(self.granted((role, call), purpose, received, at)),
                Err(error) => complaint = complaint.or(Some((call, error))),
            }
        }
        complaint.map(|(call, error)| self.refuse(call, &error))
    }

    /// The declared calls; those that serve two ends stand once.
    fn calls(&self) -> impl Iterator<Item = (Role, &TokenCall)> {
        let token = self.token_calls().iter().enumerate().map(|(step, call)| (Role::Token(step), call));
        let refresh = self.plan.refresh.iter().flatten().enumerate().map(|(step, call)| (Role::Refresh(step), call));
        token.chain(refresh)
    }

    fn granted(&self, (role, call): (Role, &TokenCall), purpose: Purpose, received: &Received, at: At<'_>) -> Answer {
        let given = self.grant(role, purpose, received, at);
        match given.map(|given| self.tell(call, &given, at)) {
            Ok(Ok(reply)) => reply.answer(),
            Ok(Err(unsolved)) => {
                tracing::warn!(target: "trunkline::mock", integration = %self.id, %unsolved, "a token answer cannot be made");
                Answer::json(StatusCode::NOT_IMPLEMENTED, &json!({ "mock": self.id, "error": unsolved.to_string() }))
            }
            Err(complaint) => self.refuse(call, &complaint),
        }
    }

    /// What a call asks for, when it has the form that the definition gives it.
    fn read(&self, role: Role, call: &TokenCall, received: &Received) -> Result<Purpose, Complaint> {
        let client = self.plan.client.as_ref();
        as_declared(&call.request, client, received)?;
        let presented = Presented::new(received, call);
        // Later steps of a pipeline are plain requests: they have what the definition writes into them.
        if matches!(role, Role::Token(0) | Role::Refresh(0)) {
            self.proves(&presented)?;
        }
        let purpose = self.purpose(role, &presented)?;
        let standard = match purpose {
            Purpose::Code(_) => "authorization_code",
            Purpose::Refresh(_) => "refresh_token",
            Purpose::Device(_) => DEVICE_GRANT,
            Purpose::Exchange(_) => return Ok(purpose),
            Purpose::ForItself => match self.plan.grant {
                Grant::JwtBearer => JWT_GRANT,
                Grant::TokenExchange => EXCHANGE_GRANT,
                _ => "client_credentials",
            },
        };
        let own = presented.name("grant_type").and_then(|name| written(&call.request, name));
        let expected = own.as_deref().unwrap_or(standard);
        match presented.needed("grant_type")? {
            Some(given) if given != expected => Err(Complaint::GrantType(expected.to_owned())),
            _ => Ok(purpose),
        }
    }

    pub(super) fn proves(&self, presented: &Presented<'_>) -> Result<(), Complaint> {
        let way = self.plan.client_auth;
        // Assertions and exchanged tokens can stand for themselves.
        if !self.plan.grant.needs_client() && self.plan.client.is_none() && !presented.names_client() {
            return Ok(());
        }
        let registered = self.application(presented.client_id().as_deref())?;
        if way != ClientAuth::PrivateKeyJwt {
            return proves_client(presented, way, registered.as_ref().or(self.plan.client.as_ref()));
        }
        let kind = presented.needed("client_assertion_type")?;
        if kind.is_some_and(|kind| kind != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer") {
            return Err(Complaint::Client("`client_assertion_type` is not that of RFC 7523".to_owned()));
        }
        match presented.needed("client_assertion")? {
            Some(assertion) => self.check_assertion(assertion).map_err(Complaint::Client),
            None => Ok(()),
        }
    }

    fn purpose(&self, role: Role, presented: &Presented<'_>) -> Result<Purpose, Complaint> {
        let own_first = role == Role::Token(0);
        let renews = matches!(role, Role::Refresh(0)) || own_first && self.plan.refresh.is_none();
        if renews && let Some(refresh) = presented.value("refresh_token") {
            return Ok(Purpose::Refresh(refresh.to_owned()));
        }
        if !own_first {
            // Steps of a pipeline, and refreshes without a refresh token, present something that was issued.
            if matches!(role, Role::Refresh(0)) && presented.name("refresh_token").is_some() {
                return Err(Complaint::Request("there is no refresh token in the call".to_owned()));
            }
            let known = presented.values().into_iter().find(|value| self.ledger.family_of(value).is_some());
            return known
                .map(Purpose::Exchange)
                .ok_or_else(|| Complaint::Grant("nothing in it was issued here".to_owned()));
        }
        match self.plan.grant {
            Grant::AuthorizationCode => {
                let code = presented
                    .needed("code")?
                    .map(str::to_owned)
                    .or_else(|| presented.values().into_iter().find(|value| value.starts_with("mock-code-")));
                code.map(Purpose::Code).ok_or_else(|| Complaint::Request("there is no code in the call".to_owned()))
            }
            Grant::DeviceCode => {
                let code = presented.needed("device_code")?.unwrap_or_default();
                Ok(Purpose::Device(code.to_owned()))
            }
            Grant::JwtBearer => {
                if let Some(assertion) = presented.needed("assertion")? {
                    self.check_assertion(assertion).map_err(Complaint::Grant)?;
                }
                Ok(Purpose::ForItself)
            }
            Grant::TokenExchange => {
                presented.needed("subject_token")?;
                let wanted = self.plan.exchange.as_ref().map(|exchange| exchange.subject_token_type.as_str());
                let given = presented.needed("subject_token_type")?;
                let fits = given.is_none() || given == wanted;
                fits.then_some(Purpose::ForItself)
                    .ok_or_else(|| Complaint::Request("`subject_token_type` is not the declared one".to_owned()))
            }
            Grant::ClientCredentials => Ok(Purpose::ForItself),
        }
    }

    fn grant(&self, role: Role, purpose: Purpose, received: &Received, at: At<'_>) -> Result<Given, Complaint> {
        let spoilt = |refused: Refused| Complaint::Grant(refused.to_string());
        let renewed_by_token = self.renewed_by_refresh_tokens();
        match purpose {
            Purpose::Code(code) => {
                let (family, bound) = self.ledger.redeem(&code, at.now).map_err(spoilt)?;
                let call = self.token_calls().first().map(|call| Presented::new(received, call));
                let value = |name: &str| call.as_ref().and_then(|call| call.value(name));
                let sends = |name: &str| call.as_ref().is_some_and(|call| call.name(name).is_some());
                if sends("redirect_uri") && value("redirect_uri") != bound.redirect_uri.as_deref() {
                    return Err(Complaint::Grant("`redirect_uri` is not that of the authorization request".to_owned()));
                }
                if self.plan.pkce == Pkce::S256 && sends("code_verifier") {
                    let challenge =
                        value("code_verifier").map(|verifier| URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)));
                    if challenge != bound.challenge {
                        return Err(Complaint::Grant("`code_verifier` does not belong to the challenge".to_owned()));
                    }
                }
                Ok(Given { family, name: None, refresh: renewed_by_token, extended: false })
            }
            Purpose::Refresh(token) => {
                let rotates = self.plan.refresh_tokens == RefreshPolicy::Rotate;
                let becomes = if rotates { Use::Once } else { Use::Again };
                let (family, name) = self.ledger.renew(&token, becomes).map_err(spoilt)?;
                let extended = self.plan.refresh_tokens == RefreshPolicy::Extend;
                Ok(Given { family, name: Some(name), refresh: rotates, extended })
            }
            Purpose::Exchange(value) => {
                let family = self.ledger.family_of(&value).ok_or_else(|| spoilt(Refused::Unknown))?;
                // Of a later step only that it belongs to a sign-in that stands.
                if role == Role::Refresh(0) {
                    self.ledger.holder(&value, at.now).map_err(spoilt)?;
                    self.ledger.count_refresh();
                }
                let extended = self.plan.refresh_tokens == RefreshPolicy::Extend && role == Role::Refresh(0);
                Ok(Given { family, name: None, refresh: false, extended })
            }
            Purpose::Device(code) => {
                let family = self.device_family(&code, at.now)?;
                Ok(Given { family, name: None, refresh: renewed_by_token, extended: false })
            }
            Purpose::ForItself => {
                self.ledger.count_grant();
                let call = self.token_calls().first().map(|call| Presented::new(received, call));
                let asked = call.as_ref().and_then(|call| call.value("scope")).unwrap_or_default();
                let family = self.ledger.open(self.split_scopes(asked));
                Ok(Given { family, name: None, refresh: false, extended: false })
            }
        }
    }

    /// Whether tokens are renewed with refresh tokens: not where the definition's own refresh does without.
    fn renewed_by_refresh_tokens(&self) -> bool {
        let own = self.plan.refresh.as_deref().and_then(<[TokenCall]>::first);
        own.is_none_or(|call| !call.omit.iter().any(|name| name == "refresh_token"))
    }

    /// The answer that has what is given, where the definition reads it.
    fn tell(&self, call: &TokenCall, given: &Given, at: At<'_>) -> Result<Reply, Unsolved> {
        let mut reply = Reply::new(StatusCode::OK);
        let mut known = 0;
        let read = call.tokens.iter().filter(|(_, map)| Reply::concerns(&map.access));
        for (name, map) in read.filter(|(name, _)| given.name.as_ref().is_none_or(|wanted| wanted == name)) {
            self.tell_token(&mut reply, (call, name, map), given, at)?;
            known += 1;
        }
        if known > 0 && !call.mapped {
            reply.field("token_type", Value::from("Bearer"));
        }
        if self.plan.grant == Grant::TokenExchange {
            let kind = self.plan.exchange.as_ref().and_then(|exchange| exchange.requested_token_type.clone());
            let kind = kind.unwrap_or_else(|| "urn:ietf:params:oauth:token-type:access_token".to_owned());
            reply.field("issued_token_type", Value::from(kind));
        }
        for read in self.saved.reads(&call.request.save) {
            let name = crate::mock::paths::last_key(&read.steps).unwrap_or("value").to_owned();
            let value = read.equals.clone().unwrap_or_else(|| crate::mock::shape::plausible(&name, 1));
            if !read.steps.is_empty() {
                reply.put(&read, value, crate::mock::shape::Existing::Keep);
            }
        }
        if let Some(ok) = &call.request.ok {
            reply.decide(ok, true)?;
        }
        Ok(reply)
    }

    fn tell_token(
        &self,
        reply: &mut Reply,
        (call, name, map): (&TokenCall, &str, &TokenMap),
        given: &Given,
        at: At<'_>,
    ) -> Result<(), Unsolved> {
        let end = self.end(call, map, at.now);
        if given.extended {
            self.ledger.extend(given.family, end.unwrap_or_else(|| at.now.after(ACCESS_LIFE)));
            return Ok(());
        }
        let lost = |_| Unsolved("the machine's randomness".to_owned());
        let is_jwt = map.expires.as_ref().is_some_and(|moment| moment.unit == MomentUnit::JwtExp);
        let shaped = |value: String| if is_jwt { unsigned_jwt(&value, end) } else { value };
        let access = self.ledger.access(given.family, end, at.random, shaped).map_err(lost)?;
        reply.solve(&map.access, &Value::from(access))?;
        if let Some(refresh) = map.refresh.as_ref().filter(|expr| given.refresh && Reply::concerns(expr)) {
            let token = self.ledger.refresh(given.family, name, at.random).map_err(lost)?;
            reply.solve(refresh, &Value::from(token))?;
        }
        if call.default_ttl.is_none() {
            if let (Some(expr), Some(end)) = (told(map.expires_in.as_ref()), end) {
                reply.solve(expr, &Value::from(end.since(at.now).as_secs()))?;
            }
            if let (Some(moment), Some(end)) = (&map.expires, end) {
                reply.solve_moment(moment, end, at.now)?;
            }
        }
        let scopes = self.scopes_of(given.family, name).join(&self.plan.scope_separator);
        if let Some(expr) = told(map.scope.as_ref()).filter(|_| !scopes.is_empty()) {
            reply.solve(expr, &Value::from(scopes))?;
        }
        Ok(())
    }

    /// When an access token ends: told in the answer, known to the definition, or told by introspection.
    fn end(&self, call: &TokenCall, map: &TokenMap, now: Timestamp) -> Option<Timestamp> {
        let life = match call.default_ttl {
            Some(ttl) => Some(ttl),
            None if told(map.expires_in.as_ref()).is_some() || map.expires.is_some() => Some(ACCESS_LIFE),
            None => self.plan.introspect.as_ref().map(|_| ACCESS_LIFE),
        };
        life.map(|life| now.after(life))
    }

    fn scopes_of(&self, family: FamilyId, name: &str) -> Vec<String> {
        let belongs = |scope: &String| {
            let declared = self.plan.scopes.iter().filter(|known| known.name == *scope);
            let mut tokens = declared.map(|known| known.token.as_str()).peekable();
            tokens.peek().is_none() || tokens.any(|token| token == name)
        };
        self.ledger.scopes(family).into_iter().filter(belongs).collect()
    }

    /// A refusal in the service's own form: where the definition looks for errors.
    pub(super) fn refuse(&self, call: &TokenCall, complaint: &Complaint) -> Answer {
        self.ledger.count_refused();
        refusal(call, complaint.code(), &complaint.to_string())
    }

    /// Scopes as the service writes them in one text.
    pub(super) fn split_scopes(&self, text: &str) -> Vec<String> {
        let separator = self.plan.scope_separator.trim();
        let parts: Vec<&str> =
            if separator.is_empty() { text.split_whitespace().collect() } else { text.split(separator).collect() };
        parts.into_iter().map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned).collect()
    }
}

/// A refusal with this code and these words, as the definition reads it.
pub(super) fn refusal(call: &TokenCall, code: &str, words: &str) -> Answer {
    let status = match code {
        "invalid_client" => StatusCode::UNAUTHORIZED,
        "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut reply = Reply::new(status);
    // Whatever cannot be solved here leaves the plain form, which clients must understand as well.
    if matches!(code, "invalid_grant" | "unauthorized_client")
        && let Some(expr) = &call.permanent
    {
        drop(reply.decide(expr, true));
    }
    reply.field("error", Value::from(code));
    reply.field("error_description", Value::from(words));
    if let Some(expr) = call.request.error.as_ref() {
        reply.fill_with(expr, words);
    }
    if let Some(ok) = &call.request.ok {
        drop(reply.decide(ok, false));
    }
    reply.answer()
}

/// An expression, when it reads the answer.
fn told(expr: Option<&Expr>) -> Option<&Expr> {
    expr.filter(|expr| Reply::concerns(expr))
}

/// What a definition itself writes for a parameter.
fn written(request: &Request, name: &str) -> Option<String> {
    let body: &[(String, Tree)] = match &request.body {
        Body::Form(pairs) | Body::Json(Tree::Map(pairs)) => pairs,
        Body::Empty | Body::Json(_) | Body::Text(_) => &[],
    };
    let tree = body.iter().chain(&request.query).find(|(known, _)| known == name).map(|(_, tree)| tree)?;
    match tree {
        Tree::Literal(Value::String(text)) => Some(text.clone()),
        Tree::Text(text) => text.literal().map(str::to_owned),
        _ => None,
    }
}

/// A token that tells its end, as a JWT does. Nobody checks its signature but this service.
pub(super) fn unsigned_jwt(value: &str, end: Option<Timestamp>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "jti": value, "exp": end.map(Timestamp::seconds) });
    format!("{}.{}.{}", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(&claims), URL_SAFE_NO_PAD.encode(value))
}
