//! What is asked with a token once there is one: whose account it is, which sites it has, and in the end
//! that it be taken back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use serde_json::{Map, Value as Json};

use super::registration::Need;
use super::scene::{Main, Scene, misconfigured};
use super::send::{self, Step};
use super::token_params::{self, Params};
use super::{Stage, TokenCalls};
use super::{codes, issuer};
use crate::connection::grant::{Account, Issued, TokenError, TokenErrorKind};
use crate::definition::plan::oauth2::{DEFAULT_TOKEN, Discover, TokenCall};
use crate::definition::plan::request::{Body, CredentialUse, Request};
use crate::request::{Answer, AnswerError};
use crate::template::{Context, Expr, Tree};

/// The most choices that a person is shown.
pub const CHOICES_MOST: usize = 200;

/// Whose account it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its id at the service.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Its mail address.
    pub email: Option<String>,
    /// The values that the definition keeps of the answer.
    pub saved: Map<String, Json>,
}

/// What is shown of a choice, and what is kept of it.
pub type Choice = (String, Map<String, Json>);

/// How far the steps after connecting came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovered {
    /// All are done; these values are kept.
    Settled(Map<String, Json>),
    /// A person has to choose.
    Several {
        /// The step that comes after the choice.
        next: usize,
        /// What is kept whatever is chosen.
        kept: Map<String, Json>,
        /// The choices.
        choices: Vec<Choice>,
    },
    /// There is nothing to choose from.
    Nothing,
}

impl TokenCalls {
    /// Asks whose account the tokens are for; `None` when the definition does not say how. Pages, lists and exports
    /// show what comes back, so nothing secret is in it.
    ///
    /// # Errors
    /// When the service does not answer as the definition says.
    pub async fn identity(
        &self,
        account: Account<'_>,
        tokens: &BTreeMap<Arc<str>, Issued>,
    ) -> Result<Option<Who>, TokenError> {
        let scene = self.holding(account, tokens).await?;
        let Some(identity) = &scene.oauth2.identity else { return Ok(None) };
        let answered = self.ask(&scene, Stage::Identity, &identity.request).await?;
        let text = |expr: &Expr, field: &str| {
            expr.text(&answered.context)
                .map(|text| text.map(|text| scene.secrets.redact_whole(&text)))
                .map_err(|error| answered.unusable(&scene, &format!("`identity.{field}`: {error}")))
        };
        let optional = |expr: Option<&Expr>, field| expr.map(|expr| text(expr, field)).transpose().map(Option::flatten);
        let told = identity.id.text(&answered.context).ok().flatten();
        let id = text(&identity.id, "id")?
            .map(|shown| told_apart(shown, told.as_deref().unwrap_or_default()))
            .ok_or_else(|| answered.unusable(&scene, &format!("it has no id at `{}`", identity.id.source())))?;
        let name = optional(identity.name.as_ref(), "name")?;
        let email = optional(identity.email.as_ref(), "email")?;
        let saved = answered.answer.saved(&identity.request.save, &answered.context);
        let saved = saved.map_err(|error| answered.unusable(&scene, &error.to_string()))?;
        Ok(Some(Who { id, name, email, saved }))
    }

    /// Goes through the steps after connecting from the one with this number, until a person has to choose.
    /// `account.saved` has what earlier steps and choices gave.
    ///
    /// # Errors
    /// When the service does not answer as the definition says.
    pub async fn discover(
        &self,
        account: Account<'_>,
        tokens: &BTreeMap<Arc<str>, Issued>,
        from: usize,
    ) -> Result<Discovered, TokenError> {
        let mut scene = self.holding(account, tokens).await?;
        for (index, step) in scene.oauth2.discover.iter().enumerate().skip(from) {
            let answered = self.ask(&scene, Stage::Discover, &step.request).await?;
            let saved = answered.answer.saved(&step.request.save, &answered.context);
            let saved = saved.map_err(|error| answered.unusable(&scene, &error.to_string()))?;
            let mut choices = choices(&scene, step, &answered)?;
            scene.keep(saved);
            match choices.len() {
                0 => return Ok(Discovered::Nothing),
                1 => scene.keep(choices.pop().map(|(_, kept)| kept).unwrap_or_default()),
                _ => return Ok(Discovered::Several { next: index + 1, kept: scene.into_kept(), choices }),
            }
        }
        Ok(Discovered::Settled(scene.into_kept()))
    }

    /// Takes tokens back at the service (RFC 7009), each on its own; `false` when neither the definition
    /// nor its issuer say how. A token that the service does not know any more is taken back already.
    ///
    /// # Errors
    /// The first refusal, once every token was tried.
    pub async fn revoke(&self, account: Account<'_>, tokens: &BTreeMap<Arc<str>, Issued>) -> Result<bool, TokenError> {
        let mut scene = self.holding(account, tokens).await?;
        let endpoints = if scene.oauth2.revoke.is_empty() { self.endpoints(&scene).await? } else { None };
        if let Some(untrusted) = endpoints.as_ref().and_then(|found| found.untrusted(issuer::REVOKE)) {
            return Err(untrusted);
        }
        let standard = endpoints.as_ref().and_then(|found| found.revoke.as_ref());
        if scene.oauth2.revoke.is_empty() && standard.is_none() {
            return Ok(false);
        }
        let (mut first, mut took, mut ended) = (Ok(true), false, false);
        for (name, token) in tokens {
            scene.show_token(name, token, Main::Yes);
            let revoked = match standard {
                Some(call) => self.revoke_by_rfc(&scene, call, token).await.map(|()| true),
                None => self.revoke_as_written(&scene, token).await,
            };
            match revoked {
                Ok(true) => took = true,
                Ok(false) => ended = true,
                Err(error) if first.is_ok() => first = Err(error),
                Err(_) => {}
            }
        }
        // Where one token was taken, the others may have gone with it.
        if first.is_ok() && ended && !took {
            let words = "the access token has ended, and by it alone can the service be asked: end the consent there";
            return Err(TokenError { status: Some(401), ..TokenError::new(TokenErrorKind::Permanent, words) });
        }
        first
    }

    /// `false` where the service knows the access token no longer, and there is one that renews it, which lives on.
    async fn revoke_as_written(&self, scene: &Scene<'_>, token: &Issued) -> Result<bool, TokenError> {
        let mut took = true;
        for request in &scene.oauth2.revoke {
            let Err(error) = self.ask(scene, Stage::Revoke, request).await else { continue };
            let by_token = matches!(request.credential, CredentialUse::Token(_));
            // RFC 7009 §2.1: it is the application that was not recognised, which says nothing of the token.
            let of_client = matches!(error.code.as_deref(), Some("invalid_client" | "unauthorized_client"));
            let is_unknown =
                error.status == Some(401) && by_token && !of_client || error.code.as_deref() == Some("invalid_token");
            if !is_unknown {
                return Err(error);
            }
            // A token that may not ask to be taken back does not work any more: it was taken back before, unless it has
            // ended by itself.
            let ended = token.expires_at.is_none_or(|end| end <= self.parts.clock.now());
            took &= !(by_token && ended && token.refresh.is_some());
        }
        Ok(took)
    }

    /// RFC 7009 §2.1. The refresh token goes first where there is one: with it the access tokens go too.
    async fn revoke_by_rfc(&self, scene: &Scene<'_>, call: &TokenCall, token: &Issued) -> Result<(), TokenError> {
        let (secret, hint) = match &token.refresh {
            Some(refresh) => (refresh, "refresh_token"),
            None => (&token.access, "access_token"),
        };
        let mut params = Params::default();
        params.add("token", secret.expose().as_str());
        params.add("token_type_hint", hint);
        let assertion = self.client_assertion(scene, &call.request)?;
        let proof = token_params::prove((scene, call), &mut params, assertion.as_ref())?;
        let request = token_params::placed(call, params);
        let finish = |headers: &mut HeaderMap| token_params::headers(&request, headers, proof.clone());
        let received =
            send::send(&self.parts, scene, Step { stage: Stage::Revoke, request: &request, finish: &finish }).await?;
        let answered = Answered::of(scene, Answer::of(received));
        answered.check(scene, &request, self.parts.clock.now()).map(drop)
    }

    /// The values of an account that holds these tokens.
    async fn holding<'a>(
        &self,
        account: Account<'a>,
        tokens: &BTreeMap<Arc<str>, Issued>,
    ) -> Result<Scene<'a>, TokenError> {
        let mut scene = self.scene(account, Need::Known).await?;
        for (name, token) in tokens {
            scene.show_token(name, token, if &**name == DEFAULT_TOKEN { Main::Yes } else { Main::No });
        }
        Ok(scene)
    }

    /// Sends a request of the definition, and gives its answer when that is a success.
    pub(super) async fn ask(&self, scene: &Scene<'_>, stage: Stage, request: &Request) -> Result<Answered, TokenError> {
        let finish = |_: &mut HeaderMap| {};
        let proven = self.proven(scene, request)?;
        let received = send::send(&self.parts, scene, Step { stage, request: &proven, finish: &finish }).await?;
        Answered::of(scene, Answer::of(received)).check(scene, request, self.parts.clock.now())
    }

    /// A request of `credential: client` as it is sent: where the application proves itself by an assertion, that is
    /// among its parameters, because there is no secret for a header.
    pub(super) fn proven<'r>(&self, scene: &Scene<'_>, request: &'r Request) -> Result<Cow<'r, Request>, TokenError> {
        if request.credential != CredentialUse::Client || request.basic.is_some() {
            return Ok(Cow::Borrowed(request));
        }
        let Some(assertion) = self.client_assertion(scene, request)? else { return Ok(Cow::Borrowed(request)) };
        if !matches!(request.body, Body::Empty | Body::Form(_) | Body::Json(Tree::Map(_))) {
            let words = "`credential: client` with `client_auth: private_key_jwt` needs a form or a JSON object";
            return Err(misconfigured(words));
        }
        let (call, mut params) = (TokenCall::plain(request.clone()), Params::default());
        token_params::prove((scene, &call), &mut params, Some(&assertion))?;
        Ok(Cow::Owned(token_params::placed(&call, params)))
    }
}

/// An answer, and what expressions see of it.
pub(super) struct Answered {
    pub answer: Answer,
    pub context: Context,
}

impl Answered {
    fn of(scene: &Scene<'_>, answer: Answer) -> Self {
        let context = answer.seen(&scene.context());
        Self { answer, context }
    }

    fn check(
        self,
        scene: &Scene<'_>,
        request: &Request,
        now: crate::base::clock::Timestamp,
    ) -> Result<Self, TokenError> {
        // What the API takes for a success is not for requests without its credential.
        let api = scene.account.integration.api.as_ref();
        let api = api.filter(|_| matches!(request.credential, CredentialUse::Token(_)));
        let ok = request.ok.as_ref().or_else(|| api.and_then(|api| api.ok.as_ref()));
        let words = request.error.as_ref().or_else(|| api.and_then(|api| api.error.as_ref()));
        match self.answer.holds(ok, &self.context) {
            Ok(true) => Ok(self),
            Ok(false) => Err(self.refused(scene, self.answer.refused(words, &self.context, now))),
            Err(error) => Err(self.unusable(scene, &error.to_string())),
        }
    }

    fn refused(&self, scene: &Scene<'_>, error: AnswerError) -> TokenError {
        let kind = match error.status() {
            401 => TokenErrorKind::Permanent,
            _ if error.passing() || matches!(error, AnswerError::Invalid { .. }) => TokenErrorKind::Passing,
            _ => TokenErrorKind::Misconfigured,
        };
        let code = self.answer.json().and_then(|json| json.get("error")?.as_str());
        let code = code.map(|code| codes::told(code, &scene.secrets));
        let status = Some(error.status());
        let (words, retry_after) = match error {
            AnswerError::Refused { words, retry_after, .. } => (words, retry_after),
            AnswerError::Invalid { reason, .. } => (Some(reason), None),
        };
        TokenError { kind, code, words: words.map(|words| scene.secrets.redact(&words)), status, retry_after }
    }

    pub(super) fn unusable(&self, scene: &Scene<'_>, reason: &str) -> TokenError {
        let words = scene.secrets.redact(&format!("the answer cannot be used: {reason}"));
        TokenError { status: Some(self.answer.status()), ..TokenError::new(TokenErrorKind::Passing, words) }
    }
}

/// What can be chosen: what is shown of each, with nothing secret in it, and what is kept of it.
fn choices(scene: &Scene<'_>, step: &Discover, answered: &Answered) -> Result<Vec<Choice>, TokenError> {
    let of = |expr: &Expr, context: &Context, field: &str| {
        expr.json(context).map_err(|error| answered.unusable(scene, &format!("`discover.{field}`: {error}")))
    };
    let list = match &step.choices {
        None => vec![answered.answer.json().cloned().unwrap_or_default()],
        Some(expr) => match of(expr, &answered.context, "choices")? {
            Json::Array(items) => items,
            Json::Null => Vec::new(),
            _ => return Err(answered.unusable(scene, &format!("`{}` is not a list", expr.source()))),
        },
    };
    if list.len() > CHOICES_MOST {
        let words = format!("there are {} choices, and at most {CHOICES_MOST} can be shown", list.len());
        return Err(answered.unusable(scene, &words));
    }
    let (mut choices, mut lacking) = (Vec::with_capacity(list.len()), None);
    for item in list {
        let context = answered.context.clone().with_json("choice", &item);
        let mut kept = Map::new();
        for (name, expr) in &step.set {
            let value = of(expr, &context, &format!("set.{name}"))?;
            if value.is_null() {
                lacking = Some(format!("a choice has no `{name}` at `{}`", expr.source()));
            } else {
                kept.insert(name.clone(), value);
            }
        }
        // What is kept of a choice is what calls are made with: one that lacks it cannot be chosen.
        if kept.len() < step.set.len() {
            continue;
        }
        let label = step.label.as_ref().map(|label| label.text(&context)).transpose();
        let label = label.map_err(|error| answered.unusable(scene, &format!("`discover.label`: {error}")))?.flatten();
        let label = scene.secrets.redact_whole(&label.unwrap_or_else(|| shown(&kept)));
        choices.push((label, kept));
    }
    match lacking {
        Some(reason) if choices.is_empty() => Err(answered.unusable(scene, &reason)),
        _ => Ok(choices),
    }
}

/// What is shown of a choice that has no label: what is kept of it.
fn shown(kept: &Map<String, Json>) -> String {
    let texts: Vec<_> =
        kept.values().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    texts.join(" / ")
}
/// An account's id as it is shown: where a secret was taken out of it, with a digest of what it was, because accounts are
/// compared by it.
fn told_apart(shown: String, told: &str) -> String {
    if shown == told {
        return shown;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, told.as_bytes());
    let digest = digest.as_ref().iter().take(6).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("{shown} ({digest})")
}
