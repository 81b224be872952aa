//! What the answer to a token call means.
//!
//! Services answer in more ways than RFC 6749 §5 knows: errors under a 200, numbers as texts, tokens in
//! maps and headers, forms instead of JSON. The definition says where things are; this says what is
//! believed. A token that came is never thrown away because something beside it is odd: the code or
//! refresh token it was given for may be used up. Nothing here sends anything. Called by `token`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::codes::{self, MISCONFIGURED, PASSING, PERMANENT};
use super::secrets::Secrets;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::grant::{Issued, TokenError, TokenErrorKind};
use crate::definition::plan::oauth2::{DEFAULT_TOKEN, TokenCall, TokenMap};
use crate::net::Received;
use crate::request::answer::plain_words;
use crate::request::moment::{self, Clocks};
use crate::request::{Answer, AnswerError};
use crate::template::{Context, Expr};

/// The most bytes a token may have. What is longer fits into no header that servers take.
pub const TOKEN_MOST: usize = 64 << 10;

/// The least time for which a token is taken to last, whatever its answer says.
const SHORTEST: Duration = Duration::from_secs(1);

/// What a call's answer is read for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Which tokens the answer must have.
    pub tokens: Tokens<'a>,
    /// What stands between scopes in a text.
    pub separator: &'a str,
    /// The moment of the answer.
    pub now: Timestamp,
}

/// Which tokens an answer must have.
#[derive(Debug, Clone, Copy)]
pub enum Tokens<'a> {
    /// None: it is a step on the way, or tells only when a token ends.
    Any,
    /// The default one.
    Issued,
    /// The one of this name, which is being renewed. Where the answer has it in no place of its own, it
    /// is the one in the place of the default token: services answer a renewal in the usual fields.
    Renewed(&'a str),
    /// As renewed, but the access token that is held may go on, with its life lengthened.
    Extended(&'a str, &'a Issued),
}

/// What an answer brought.
#[derive(Debug, Default)]
pub struct Reply {
    /// Tokens by name.
    pub tokens: BTreeMap<Arc<str>, Issued>,
    /// The values to keep.
    pub saved: Map<String, Json>,
    /// What of the answer was left out because it cannot be used; nothing secret.
    pub warnings: Vec<String>,
    /// The answer's status.
    pub status: u16,
}

/// Reads an answer. `context` has what the call's templates saw; `secrets` are kept out of every word.
///
/// # Errors
/// When the service said no, or the answer lacks what is wanted.
pub fn read(
    call: &TokenCall,
    (context, secrets): (&Context, &Secrets),
    received: Received,
    wanted: Wanted<'_>,
) -> Result<Reply, TokenError> {
    let answer = Answer::of(received);
    let reader = Reader { call, context: answer.seen(context), answer, secrets, wanted };
    reader.read()
}

/// What an answer that is no success says, for calls of signing in that bring no token.
pub(super) fn refusal(
    call: &TokenCall,
    (context, secrets): (&Context, &Secrets),
    answer: Answer,
    now: Timestamp,
) -> TokenError {
    let wanted = Wanted { tokens: Tokens::Any, separator: " ", now };
    Reader { call, context: answer.seen(context), answer, secrets, wanted }.refused()
}

struct Reader<'a> {
    call: &'a TokenCall,
    answer: Answer,
    context: Context,
    secrets: &'a Secrets,
    wanted: Wanted<'a>,
}

impl Reader<'_> {
    fn read(&self) -> Result<Reply, TokenError> {
        match self.answer.holds(self.call.request.ok.as_ref(), &self.context) {
            Ok(true) => {}
            Ok(false) => return Err(self.refused()),
            Err(error) => return Err(self.invalid(&error.to_string())),
        }
        let mut left_out = Vec::new();
        let tokens = self.tokens(&mut left_out)?;
        // The code or refresh token is used up: what is beside the new token must not lose it.
        let (saved, unread) = self.answer.saved_where_usable(&self.call.request.save, &self.context);
        left_out.extend(unread.into_iter().map(|reason| format!("a value was left out, {reason}")));
        let warnings = left_out.iter().map(|words| self.secrets.redact(&plain_words(words))).collect();
        Ok(Reply { tokens, saved, warnings, status: self.answer.status() })
    }

    fn tokens(&self, left_out: &mut Vec<String>) -> Result<BTreeMap<Arc<str>, Issued>, TokenError> {
        let wanted = match self.wanted.tokens {
            Tokens::Any => None,
            Tokens::Issued => Some(DEFAULT_TOKEN),
            Tokens::Renewed(name) | Tokens::Extended(name, _) => Some(name),
        };
        let (mut found, mut odd) = (BTreeMap::new(), BTreeMap::new());
        for (name, map) in &self.call.tokens {
            match self.token(map, None, left_out) {
                Ok(Some(token)) => _ = found.insert(Arc::from(name.as_str()), token),
                Ok(None) => {}
                Err(reason) if wanted == Some(name) => return Err(self.invalid(&reason)),
                Err(reason) => _ = odd.insert(name.as_str(), reason),
            }
        }
        if let Some(name) = wanted
            && !found.contains_key(name)
        {
            let token = self.in_place_of(name, &mut found, left_out).map_err(|reason| self.invalid(&reason))?;
            let missing = || odd.get(DEFAULT_TOKEN).map_or_else(|| self.missing(name), |reason| self.invalid(reason));
            found.insert(Arc::from(name), token.ok_or_else(missing)?);
        }
        left_out.extend(odd.iter().map(|(name, reason)| format!("the token `{name}` was left out, {reason}")));
        Ok(found)
    }

    /// The token of this name where the answer has none in its own place.
    fn in_place_of(
        &self,
        name: &str,
        found: &mut BTreeMap<Arc<str>, Issued>,
        left_out: &mut Vec<String>,
    ) -> Result<Option<Issued>, String> {
        match self.wanted.tokens {
            Tokens::Renewed(_) => Ok(found.remove(DEFAULT_TOKEN)),
            Tokens::Extended(_, held) => match (found.remove(DEFAULT_TOKEN), self.map(name)) {
                (Some(token), _) => Ok(Some(token)),
                (None, Some(map)) => self.token(map, Some(held), left_out),
                (None, None) => Ok(None),
            },
            Tokens::Any | Tokens::Issued => Ok(None),
        }
    }

    fn map(&self, name: &str) -> Option<&TokenMap> {
        let of = |name: &str| self.call.tokens.iter().find(|(known, _)| known == name).map(|(_, map)| map);
        of(name).or_else(|| of(DEFAULT_TOKEN))
    }

    /// A token where the answer has one; `held` is what goes on where the answer only tells of it.
    ///
    /// # Errors
    /// What is wrong with the access token. What is beside it is left out where it is unusable: a token that came
    /// is kept.
    fn token(
        &self,
        map: &TokenMap,
        held: Option<&Issued>,
        left_out: &mut Vec<String>,
    ) -> Result<Option<Issued>, String> {
        let now = self.wanted.now;
        let access = match (self.secret(&map.access)?, held) {
            (Some(access), _) => access,
            (None, Some(held)) => Secret::from(held.access.expose().as_str()),
            (None, None) => return Ok(None),
        };
        let refresh = map.refresh.as_ref().map_or(Ok(None), |expr| self.secret(expr));
        let refresh = refresh.unwrap_or_else(|reason| {
            left_out.push(format!("the refresh token was left out, {reason}"));
            None
        });
        let (expires_at, scopes) = (self.expiry(map, left_out), self.scopes(map));
        Ok(Some(Issued { access, refresh, expires_at, issued_at: now, scopes, client: None }))
    }

    /// A secret that an expression finds. An empty text and a false are none.
    fn secret(&self, expr: &Expr) -> Result<Option<Secret>, String> {
        let bad = |what: &str| format!("`{}` {what}", expr.source());
        let value = expr.json(&self.context).map_err(|error| bad(&format!("cannot be read: {error}")))?;
        let text = match value {
            Json::Null | Json::Bool(false) => return Ok(None),
            Json::String(text) if text.is_empty() => return Ok(None),
            Json::String(text) => Secret::new(text),
            Json::Number(number) => Secret::new(number.to_string()),
            Json::Bool(true) | Json::Array(_) | Json::Object(_) => return Err(bad("is not a text")),
        };
        if text.expose().len() > TOKEN_MOST {
            return Err(bad("is longer than any token that could be sent"));
        }
        if text.expose().chars().any(char::is_control) {
            return Err(bad("has a line break or another character that no call can carry"));
        }
        Ok(Some(text))
    }

    /// When a token ends, as the answer says. What it says in an odd way is no reason to refuse the token.
    fn expiry(&self, map: &TokenMap, left_out: &mut Vec<String>) -> Option<Timestamp> {
        let now = self.wanted.now;
        let seconds = map.expires_in.as_ref().and_then(|expr| expr.json(&self.context).ok());
        let after = seconds.as_ref().and_then(|value| moment::after_seconds(value, now));
        let end = after.or_else(|| {
            let clocks = Clocks::of_answer(now, self.answer.headers());
            map.expires.as_ref().and_then(|moment| moment::read(moment, &self.context, clocks))
        });
        // Of a token that ends at once every call would ask for another.
        let end = end.map(|end| end.max(now.after(SHORTEST)));
        // Numbers that say nothing are the ways of services to say that a token does not end.
        let odd = seconds.is_some_and(|value| value.is_object() || value.is_array() || value == Json::Bool(true));
        if let (None, true, Some(expr)) = (end, odd, &map.expires_in) {
            left_out.push(format!("when the token ends was left out, `{}` is not a number", expr.source()));
        }
        end
    }

    fn scopes(&self, map: &TokenMap) -> Option<Vec<String>> {
        let scopes: Vec<String> = match map.scope.as_ref()?.json(&self.context).ok()? {
            Json::String(text) => split(&text, self.wanted.separator),
            Json::Array(items) => {
                items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?
            }
            _ => return None,
        };
        let scopes: Vec<_> = scopes.iter().map(|scope| self.secrets.redact_whole(scope)).collect();
        (!scopes.is_empty()).then_some(scopes)
    }

    fn missing(&self, name: &str) -> TokenError {
        // A 2xx without a token and with an error is the service saying no.
        if self.answer.usual_code().is_some() {
            return self.refused();
        }
        match self.map(name) {
            _ if self.answer.json().is_none() => self.invalid(&self.not_a_token()),
            Some(map) => self.invalid(&format!("it has no access token at `{}`", map.access.source())),
            None => self.invalid(&format!("`tokens` names no place for the token `{name}`")),
        }
    }

    /// An answer that is neither JSON nor a form.
    fn not_a_token(&self) -> String {
        let kind = self.answer.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = plain_words(kind.unwrap_or("without a Content-Type"));
        format!("it is {kind} and neither JSON nor a form: is the address one for tokens?")
    }

    fn invalid(&self, reason: &str) -> TokenError {
        TokenError {
            status: Some(self.answer.status()),
            ..TokenError::new(
                TokenErrorKind::Passing,
                self.secrets.redact(&format!("the answer cannot be used: {reason}")),
            )
        }
    }

    fn refused(&self) -> TokenError {
        let status = self.answer.status();
        if (300..400).contains(&status) {
            return self.redirected();
        }
        let refusal = self.answer.refused(self.call.request.error.as_ref(), &self.context, self.wanted.now);
        let (words, retry_after, passing) = match &refusal {
            AnswerError::Refused { words, retry_after, .. } => (words.clone(), *retry_after, refusal.passing()),
            AnswerError::Invalid { reason, .. } => return self.invalid(reason),
        };
        let code = self.answer.usual_code();
        let kind = self.kind(code.as_deref(), passing || status >= 500);
        let words = words.or_else(|| self.answer.usual_description()).map(|words| self.secrets.redact(&words));
        let code = code.map(|code| codes::told(&code, self.secrets));
        TokenError { kind, code, words, status: Some(status), retry_after }
    }

    fn redirected(&self) -> TokenError {
        let location = self.answer.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
        let place = location.and_then(|location| url::Url::parse(location).ok());
        let place = place.map_or_else(|| "elsewhere".to_owned(), |url| url.origin().ascii_serialization());
        let words = format!("it leads to {place}, and token calls follow nowhere: write the address it leads to");
        let error = TokenError::new(TokenErrorKind::Misconfigured, self.secrets.redact(&words));
        TokenError { status: Some(self.answer.status()), ..error }
    }

    fn kind(&self, code: Option<&str>, passing: bool) -> TokenErrorKind {
        if let Some(permanent) = &self.call.permanent {
            // What cannot be evaluated does not say that it is for good.
            if permanent.holds(&self.context).unwrap_or(false) {
                return TokenErrorKind::Permanent;
            }
        } else if !passing && code.is_some_and(|code| PERMANENT.contains(&code)) {
            return TokenErrorKind::Permanent;
        }
        match code {
            _ if passing => TokenErrorKind::Passing,
            Some(code) if PASSING.contains(&code) => TokenErrorKind::Passing,
            Some(code) if MISCONFIGURED.contains(&code) => TokenErrorKind::Misconfigured,
            // A 200 that the definition does not take for a success may be anything.
            _ if self.answer.status() < 400 => TokenErrorKind::Passing,
            _ => TokenErrorKind::Misconfigured,
        }
    }
}

/// Scopes out of a text: at the separator and at white space; where the separator is white space itself,
/// at commas as well, because services answer with those whatever they are asked with.
fn split(text: &str, separator: &str) -> Vec<String> {
    let separator = if separator.trim().is_empty() { "," } else { separator };
    let parts = text.split(separator).flat_map(str::split_whitespace);
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
