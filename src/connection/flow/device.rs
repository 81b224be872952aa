//! A person consents on another device (RFC 8628).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use serde_json::Value as Json;

use super::purpose::resources;
use super::registration::Need;
use super::scene::{Scene, misconfigured};
use super::send::{self, Step};
use super::{Purpose, Stage, TokenCalls};
use super::{codes, issuer};
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::grant::{Account, Grant, TokenError, TokenErrorKind};
use crate::definition::plan::oauth2::{DEFAULT_TOKEN, Grant as GrantKind};
use crate::definition::plan::request::{Body, Request};
use crate::request::answer::plain_words;
use crate::request::moment::after_seconds;
use crate::request::{Answer, AnswerError};
use crate::template::Tree;

/// How long to wait between polls when the service does not say (RFC 8628 §3.2), and by how much longer
/// when it asks to slow down (§3.5).
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest wait between polls that is believed.
const INTERVAL_MOST: Duration = Duration::from_mins(5);
/// The longest time that a code is polled for.
const LIFE_MOST: Duration = Duration::from_hours(1);

/// A device code, and what a person is told.
#[derive(Debug)]
pub struct DeviceCode {
    /// The code that polls carry.
    pub code: Secret,
    /// The code that the person types.
    pub user_code: String,
    /// Where they type it.
    pub verification_uri: String,
    /// The same with the code in it, for a picture.
    pub verification_uri_complete: Option<String>,
    /// When both codes stop working.
    pub expires_at: Timestamp,
    /// How long to wait between polls.
    pub interval: Duration,
}

/// What a poll found.
#[derive(Debug)]
pub enum Poll {
    /// The person has not decided yet; the next poll comes after this time.
    Pending(Duration),
    /// They consented.
    Granted(Grant),
}

impl TokenCalls {
    /// Asks for a device code. Without `scopes` the definition's default ones are asked for; names that the
    /// definition does not have are left out.
    ///
    /// # Errors
    /// When the definition has no device authorization, or the service does not answer as RFC 8628 says.
    pub async fn device_code(&self, account: Account<'_>, scopes: Option<&[String]>) -> Result<DeviceCode, TokenError> {
        let mut scene = self.scene(account, Need::MayRegister).await?;
        let oauth2 = scene.oauth2;
        if let Some(scopes) = scopes {
            scene.ask_for(oauth2.scopes.iter().filter(|scope| scopes.contains(&scope.name)));
        }
        if oauth2.grant != GrantKind::DeviceCode {
            return Err(misconfigured("this is not a service of `grant: device_code`"));
        }
        let discovered;
        let request = if let Some(request) = &oauth2.device {
            request
        } else {
            discovered = self.endpoints(&scene).await?;
            if let Some(untrusted) = discovered.as_ref().and_then(|found| found.untrusted(issuer::DEVICE)) {
                return Err(untrusted);
            }
            let found = discovered.as_ref().and_then(|found| found.device.as_ref());
            found.ok_or_else(|| misconfigured("neither `device` nor the issuer's metadata say where codes are got"))?
        };
        let request = self.proven(&scene, &with_standard(&scene, request)?)?.into_owned();
        let finish = |headers: &mut HeaderMap| {
            headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        };
        let received =
            send::send(&self.parts, &scene, Step { stage: Stage::Device, request: &request, finish: &finish }).await?;
        let answer = Answer::of(received);
        let context = answer.seen(&scene.context());
        let now = self.parts.clock.now();
        match answer.holds(request.ok.as_ref(), &context) {
            Ok(true) => understand(&answer, now),
            Ok(false) => Err(refused(&scene, &answer, &answer.refused(request.error.as_ref(), &context, now))),
            Err(error) => Err(TokenError::new(TokenErrorKind::Passing, error.to_string())),
        }
    }

    /// Asks once whether the person has consented. `interval` is the wait before this poll.
    ///
    /// # Errors
    /// When the person said no, the code has expired, or the service does not answer.
    pub async fn device_poll(
        &self,
        account: Account<'_>,
        code: &DeviceCode,
        interval: Duration,
    ) -> Result<Poll, TokenError> {
        if self.parts.clock.now() >= code.expires_at {
            return Err(expired());
        }
        let error = match self.obtain(account, Purpose::Device { device_code: code.code.expose() }).await {
            Ok(grant) => return Ok(Poll::Granted(grant)),
            Err(error) => error,
        };
        match (error.code.as_deref(), error.kind) {
            (Some("authorization_pending"), _) => Ok(Poll::Pending(interval)),
            (Some("slow_down"), _) => Ok(Poll::Pending((interval + INTERVAL).min(INTERVAL_MOST))),
            (Some("access_denied"), _) => Err(TokenError { words: Some("the person said no".to_owned()), ..error }),
            (Some("expired_token"), _) => Err(TokenError { words: expired().words, ..error }),
            // A poll that did not get through is no answer: waits double (RFC 8628 §3.5).
            (_, TokenErrorKind::Unsent | TokenErrorKind::Passing) => {
                let wait = error.retry_after.unwrap_or_default().max(interval * 2);
                Ok(Poll::Pending(wait.min(INTERVAL_MOST)))
            }
            _ => Err(error),
        }
    }
}

fn expired() -> TokenError {
    let words = "nobody consented in time: begin again for a new code";
    TokenError { code: Some("expired_token".to_owned()), ..TokenError::new(TokenErrorKind::Permanent, words) }
}

/// The request with the parameters of RFC 8628 §3.1; those that the definition writes stand as written.
fn with_standard(scene: &Scene<'_>, request: &Request) -> Result<Request, TokenError> {
    let mut request = request.clone();
    let mut params = vec![("client_id", Json::from(scene.client()?.id.as_str()))];
    params.extend(scene.scope_text(DEFAULT_TOKEN).map(|scope| ("scope", Json::from(scope))));
    let resources = resources(scene)?;
    params.extend((!resources.is_empty()).then(|| ("resource", Json::from(resources))));
    let written = match &mut request.body {
        Body::Empty => {
            request.body = Body::Form(Vec::new());
            if let Body::Form(form) = &mut request.body { form } else { return Ok(request) }
        }
        Body::Form(form) | Body::Json(Tree::Map(form)) => form,
        Body::Json(_) | Body::Text(_) => return Ok(request),
    };
    for (name, value) in params {
        if written.iter().all(|(known, _)| known != name) {
            written.push((name.to_owned(), Tree::Literal(value)));
        }
    }
    Ok(request)
}

fn understand(answer: &Answer, now: Timestamp) -> Result<DeviceCode, TokenError> {
    let text = |name: &str| answer.json().and_then(|json| json.get(name)?.as_str()).filter(|text| !text.is_empty());
    // Some services wrote `verification_url` before the RFC was one, and still do.
    // A person is shown it; this machine's own address is what a simulated service gives.
    let is_shown = |text: &&str| ["https://", "http://127.0.0.1:"].iter().any(|start| text.starts_with(start));
    let address = |name: &str, before: &str| text(name).or_else(|| text(before)).filter(is_shown);
    let unusable = |why: &str| {
        let words = format!("the answer cannot be used: {why}");
        TokenError { status: Some(answer.status()), ..TokenError::new(TokenErrorKind::Passing, words) }
    };
    let missing = |name: &str| unusable(&format!("it has no `{name}` (RFC 8628 §3.2)"));
    let seconds =
        |name: &str| answer.json().and_then(|json| after_seconds(json.get(name)?, now)).map(|at| at.since(now));
    let code = text("device_code").ok_or_else(|| missing("device_code"))?;
    let user_code = text("user_code").ok_or_else(|| missing("user_code"))?;
    let told = text("verification_uri").or_else(|| text("verification_url"));
    let uri = address("verification_uri", "verification_url").ok_or_else(|| match told {
        Some(_) => {
            unusable("its `verification_uri` is no address that a person can safely be sent to: `https` is wanted")
        }
        None => missing("verification_uri"),
    })?;
    Ok(DeviceCode {
        code: Secret::from(code),
        user_code: plain_words(user_code),
        verification_uri: plain_words(uri),
        verification_uri_complete: address("verification_uri_complete", "verification_url_complete").map(plain_words),
        expires_at: now.after(seconds("expires_in").unwrap_or(LIFE_MOST).min(LIFE_MOST)),
        interval: seconds("interval").unwrap_or(INTERVAL).clamp(Duration::from_secs(1), INTERVAL_MOST),
    })
}

fn refused(scene: &Scene<'_>, answer: &Answer, error: &AnswerError) -> TokenError {
    let text = |name: &str| answer.json().and_then(|json| json.get(name)?.as_str());
    let kind = if error.passing() { TokenErrorKind::Passing } else { TokenErrorKind::Misconfigured };
    let words = match error {
        AnswerError::Refused { words, .. } => words.clone().or_else(|| text("error_description").map(plain_words)),
        AnswerError::Invalid { reason, .. } => Some(reason.clone()),
    };
    let words = words.map(|words| scene.secrets.redact(&words));
    let code = text("error").map(|code| codes::told(code, &scene.secrets));
    TokenError { kind, code, words, status: Some(answer.status()), retry_after: None }
}
