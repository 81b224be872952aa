//! What an answer means.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use minijinja::value::Value;
use serde_json::{Map, Value as Json};

use super::retry_after::retry_after;
use crate::base::clock::Timestamp;
use crate::base::json;
use crate::base::plain::is_invisible;
use crate::definition::plan::api::Api;
use crate::definition::plan::request::Request;
use crate::net::Received;
use crate::respond::Refusal;
use crate::template::{Context, Expr, Tree};

/// The most characters of a service's words that are passed on.
const WORDS: usize = 500;

/// The answer to a successful call.
#[derive(Clone)]
pub struct Outcome {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
    /// What the request says the caller gets: its `result`, else the body.
    pub result: Json,
    /// The values to keep; those the answer lacks are not among them.
    pub saved: Map<String, Json>,
}

impl Outcome {
    /// The outcome with a result that `plain` has taken secrets out of.
    #[must_use]
    pub fn with_plain_result(mut self, plain: impl Fn(&str) -> String) -> Self {
        let text = self.result.to_string();
        let clean = plain(&text);
        if clean != text {
            self.result = serde_json::from_str(&clean).unwrap_or(Json::String(clean));
        }
        self
    }
}

/// Status and size: the rest may be secret.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outcome({}, {} bytes)", self.status.as_u16(), self.body.len())
    }
}

/// Why an answer is not a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The service said no.
    #[error("the service answered {}", status_line(*status, words.as_deref()))]
    Refused {
        /// The status.
        status: u16,
        /// Its words: where the definition says they are, else where services usually have them. At most 500
        /// characters.
        words: Option<String>,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// Whether a redirect led to whoever says so.
        led: bool,
    },
    /// The answer is not what it says it is, or lacks what the definition reads from it.
    #[error("the service's answer ({status}) could not be used: {reason}")]
    Invalid {
        /// The status.
        status: u16,
        /// Why not.
        reason: String,
    },
}

impl AnswerError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused { .. } => Refusal::ServiceRefused,
            Self::Invalid { .. } => Refusal::ServiceAnswerInvalid,
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Refused { status, .. } | Self::Invalid { status, .. } => *status,
        }
    }

    /// With these words where it has none.
    fn or_words(self, usual: impl FnOnce() -> Option<String>) -> Self {
        match self {
            Self::Refused { status, words: None, retry_after, led } => {
                Self::Refused { status, words: usual(), retry_after, led }
            }
            other => other,
        }
    }

    /// Whether the same call may fare better later: time-outs, limits and faults on the service's side.
    pub fn passing(&self) -> bool {
        matches!(self, Self::Refused { status: 408 | 425 | 429 | 500 | 502..=504 | 507 | 520..=530, .. })
    }

    /// Whether the status says by its definition that the call was turned away before it had any effect, so that it
    /// may be sent again whatever it does: 425 (RFC 8470, 5.2) and 429 (RFC 6585, 4). A 503 says nothing of the kind:
    /// it may come from something between, after the service had the call. Nor does the answer of a place that a redirect
    /// led to: the call itself was carried out before.
    pub fn turned_away(&self) -> bool {
        matches!(self, Self::Refused { status: 425 | 429, led: false, .. })
    }
}

/// How one request's answers are read, with the API's own words where the request has none.
#[derive(Debug, Clone, Copy)]
struct Reading<'a> {
    ok: Option<&'a Expr>,
    error: Option<&'a Expr>,
    save: &'a [(String, Expr)],
    result: Option<&'a Tree>,
}

/// What an answer to `request` means. `context` has what the request's templates saw; `body`, `headers`
/// and `status` are added to it.
///
/// # Errors
/// When the answer is not a success or cannot be used.
pub fn read(
    (request, api): (&Request, Option<&Api>),
    context: &Context,
    received: Received,
    now: Timestamp,
) -> Result<Outcome, AnswerError> {
    let reading = Reading {
        ok: request.ok.as_ref().or_else(|| api.and_then(|api| api.ok.as_ref())),
        error: request.error.as_ref().or_else(|| api.and_then(|api| api.error.as_ref())),
        save: &request.save,
        result: request.result.as_ref(),
    };
    let mut answer = Answer::of(received);
    let context = answer.seen(context);
    if !answer.holds(reading.ok, &context)? {
        let refused = answer.refused(reading.error, &context, now);
        return Err(refused.or_words(|| answer.usual_words()));
    }
    let saved = answer.saved(reading.save, &context)?;
    let result = if let Some(tree) = reading.result {
        tree.render(&context).map_err(|error| answer.invalid(&format!("`result`: {error}")))?
    } else {
        // The last who holds the parsed body takes it, instead of making it twice.
        drop(context);
        answer.take_body()?
    };
    let Received { status, headers, body, .. } = answer.received;
    Ok(Outcome { status, headers, body, result, saved })
}

/// An answer whose body is parsed when something reads it.
pub struct Answer {
    received: Received,
    parsed: Arc<OnceLock<Parsed>>,
}

/// A body as templates see it.
enum Parsed {
    Json(Json),
    Text(String),
    /// It is not what its headers say, or not text at all.
    Unreadable(&'static str),
}

impl Answer {
    /// An answer as it was received.
    pub fn of(received: Received) -> Self {
        Self { received, parsed: Arc::default() }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.received.status.as_u16()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.received.headers
    }

    /// The body where it is JSON or a form; `None` for a text and for what cannot be read.
    pub fn json(&self) -> Option<&Json> {
        match self.parsed() {
            Parsed::Json(json) => Some(json),
            Parsed::Text(_) | Parsed::Unreadable(_) => None,
        }
    }

    fn parsed(&self) -> &Parsed {
        self.parsed.get_or_init(|| parse(&self.received.headers, &self.received.body))
    }

    /// `context` with the answer, whose body is parsed only when a template reads it.
    pub fn seen(&self, context: &Context) -> Context {
        let headers = self.received.headers.iter();
        let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let (parsed, source, body) =
            (Arc::clone(&self.parsed), self.received.headers.clone(), self.received.body.clone());
        context.clone().with("status", self.status()).with_headers("headers", headers).with_lazy("body", move || {
            match parsed.get_or_init(|| parse(&source, &body)) {
                Parsed::Json(json) => Value::from(minijinja::value::Serde(json)),
                Parsed::Text(text) => Value::from(text.as_str()),
                Parsed::Unreadable(_) => Value::UNDEFINED,
            }
        })
    }

    /// Whether it is a success: as `ok` says, else by its status. `context` is one that [`Self::seen`] made.
    ///
    /// # Errors
    /// When `ok` cannot be evaluated.
    pub fn holds(&self, ok: Option<&Expr>, context: &Context) -> Result<bool, AnswerError> {
        match ok {
            Some(ok) => ok.holds(context).map_err(|error| self.invalid(&format!("`ok`: {error}"))),
            None => Ok(self.received.status.is_success()),
        }
    }

    /// Why it is not a success, in the words that `error` finds.
    pub fn refused(&self, error: Option<&Expr>, context: &Context, now: Timestamp) -> AnswerError {
        // A success that cannot be read is not the service saying no.
        if let (true, Parsed::Unreadable(reason)) = (self.received.status.is_success(), self.parsed()) {
            return self.invalid(reason);
        }
        let words = error.and_then(|error| error.text(context).ok().flatten());
        AnswerError::Refused {
            status: self.status(),
            words: words.as_deref().map(plain_words),
            retry_after: retry_after(&self.received.headers, now),
            led: self.received.led,
        }
    }

    /// The error code of RFC 6749 §5.2, or what services have in its place.
    pub fn usual_code(&self) -> Option<String> {
        let error = self.json()?.get("error")?;
        let field = |name: &str| error.get(name).and_then(Json::as_str);
        let code = error.as_str().or_else(|| field("code")).or_else(|| field("type")).or_else(|| field("status"))?;
        Some(plain_words(code)).filter(|code| !code.is_empty())
    }

    /// What services say about an error in words, where they usually do.
    pub fn usual_description(&self) -> Option<String> {
        let body = self.json()?;
        let text = |pointer: &str| body.pointer(pointer).and_then(Json::as_str);
        let places = ["/error_description", "/error/message", "/message", "/error_message", "/detail"];
        let words = places.into_iter().find_map(text).map(plain_words);
        words.filter(|words| !words.is_empty())
    }

    /// Code and words of a refusal, as services usually tell them: in the body, else in the challenge (RFC 6750 §3).
    fn usual_words(&self) -> Option<String> {
        let joined = |parts: [Option<String>; 2]| {
            let parts: Vec<_> = parts.into_iter().flatten().collect();
            (!parts.is_empty()).then(|| plain_words(&parts.join(": ")))
        };
        let challenge = || {
            let all = self.received.headers.get_all(header::WWW_AUTHENTICATE);
            let texts = || all.iter().filter_map(|value| value.to_str().ok());
            ["error", "error_description"].map(|name| texts().find_map(|text| parameter(text, name)))
        };
        joined([self.usual_code(), self.usual_description()]).or_else(|| joined(challenge()))
    }

    /// The values to keep; those the answer lacks are not among them.
    ///
    /// # Errors
    /// When one cannot be evaluated.
    pub fn saved(&self, save: &[(String, Expr)], context: &Context) -> Result<Map<String, Json>, AnswerError> {
        let (saved, mut unread) = self.saved_where_usable(save, context);
        unread.pop().map_or(Ok(saved), |reason| Err(self.invalid(&reason)))
    }

    /// The values to keep, and why those that cannot be evaluated are not among them.
    pub fn saved_where_usable(&self, save: &[(String, Expr)], context: &Context) -> (Map<String, Json>, Vec<String>) {
        let (mut saved, mut unread) = (Map::new(), Vec::new());
        for (name, expr) in save {
            match expr.json(context) {
                Ok(Json::Null) => {}
                Ok(value) => _ = saved.insert(name.clone(), value),
                Err(error) => unread.push(format!("`save.{name}`: {error}")),
            }
        }
        (saved, unread)
    }

    /// The body as a value, which this answer has no more afterwards.
    fn take_body(&mut self) -> Result<Json, AnswerError> {
        let kept = Arc::try_unwrap(std::mem::take(&mut self.parsed)).ok().and_then(OnceLock::into_inner);
        match kept.unwrap_or_else(|| parse(&self.received.headers, &self.received.body)) {
            Parsed::Json(json) => Ok(json),
            Parsed::Text(text) => Ok(Json::String(text)),
            Parsed::Unreadable(reason) => Err(self.invalid(reason)),
        }
    }

    fn invalid(&self, reason: &str) -> AnswerError {
        AnswerError::Invalid { status: self.status(), reason: reason.to_owned() }
    }
}

/// A body as templates see it, parsed when one of them reads it; undefined where it cannot be read.
pub fn body_value(headers: &HeaderMap, body: &Bytes) -> impl Fn() -> Value + Clone + Send + Sync + 'static {
    let (headers, body) = (headers.clone(), body.clone());
    move || match parse(&headers, &body) {
        Parsed::Json(json) => Value::from(minijinja::value::Serde(&json)),
        Parsed::Text(text) => Value::from(text),
        Parsed::Unreadable(_) => Value::UNDEFINED,
    }
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Parsed {
    // Some services begin with the mark of UTF-8, which no reader has to mind (RFC 8259 §8.1).
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    if body.is_empty() {
        return Parsed::Json(Json::Null);
    }
    let encoded = headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity");
    if encoded {
        return Parsed::Unreadable("its body is compressed, although that was not asked for");
    }
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let says_json = media_type.ends_with("/json") || media_type.ends_with("+json");
    if media_type == "application/x-www-form-urlencoded" {
        return Parsed::Json(form(body));
    }
    let looks_json = body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| b"{[".contains(byte));
    if says_json || looks_json {
        let Ok(lossless) = json::lossless(body) else {
            return Parsed::Unreadable("its body has more than 500,000 values");
        };
        match serde_json::from_slice(&lossless) {
            Ok(json) => return Parsed::Json(json),
            Err(_) if says_json => return Parsed::Unreadable("its body says that it is JSON and is not"),
            Err(_) => {}
        }
    }
    match std::str::from_utf8(body) {
        Ok(text) => Parsed::Text(text.to_owned()),
        Err(_) => Parsed::Unreadable("its body is not text"),
    }
}

/// A form's fields by name; of several with one name the last counts.
fn form(body: &[u8]) -> Json {
    Json::Object(url::form_urlencoded::parse(body).map(|(name, value)| (name.into(), value.into())).collect())
}

/// A parameter of a challenge (RFC 9110 §11.6.1).
fn parameter(challenge: &str, wanted: &str) -> Option<String> {
    let mut rest = challenge;
    while let Some((before, after)) = rest.split_once('=') {
        let name = before.trim_end().rsplit([' ', ',', '\t']).next().unwrap_or_default();
        let (value, left) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(plain_words(value)).filter(|value| !value.is_empty());
        }
        rest = left;
    }
    None
}

/// A status as a line: with the service's words, else with what the status means.
fn status_line(status: u16, words: Option<&str>) -> String {
    let meaning = || StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    match (words, meaning()) {
        (Some(words), _) => format!("{status}: {words}"),
        (None, Some(meaning)) => format!("{status} {meaning}"),
        (None, None) => status.to_string(),
    }
}

/// A service's words on one line, without what a terminal or page would act on or what turns or hides text; at most
/// 500 characters.
pub fn plain_words(words: &str) -> String {
    let visible = words.chars().filter(|c| !is_invisible(*c)).map(|c| if c.is_control() { ' ' } else { c });
    let shown: String = visible.take(WORDS).collect();
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::plan::request::Target;
    use crate::template::Text;
    use http::{HeaderValue, Method};
    use serde_json::json;

    fn request(ok: Option<&str>, error: Option<&str>) -> Request {
        let expr = |source: &str| Expr::compile(source).expect("compiles");
        Request {
            ok: ok.map(expr),
            error: error.map(expr),
            save: vec![("team".to_owned(), expr("body.team.id")), ("none".to_owned(), expr("body.gone"))],
            ..Request::bare(Method::GET, Target::Path { path: Text::compile("/").expect("compiles"), query: None })
        }
    }

    fn answered(request: &Request, status: u16, content_type: &str, body: &[u8]) -> Result<Outcome, AnswerError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).expect("visible"));
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        let status = StatusCode::from_u16(status).expect("a status");
        let received = Received { status, headers, body: Bytes::copy_from_slice(body), framed: true, led: false };
        read((request, None), &Context::new(), received, Timestamp::default())
    }

    #[test]
    fn a_success_that_says_error_is_refused_in_the_services_words() {
        let slack = request(Some("body.ok"), Some("body.error"));
        let error = answered(&slack, 200, "application/json", br#"{"ok":false,"error":"not_authed\u0007\nx"}"#);
        let error = error.expect_err("refused");
        assert_eq!(error.to_string(), "the service answered 200: not_authed  x");
        assert!(!error.passing() && !error.turned_away());
        let outcome = answered(&slack, 200, "application/json", br#"{"ok":true,"team":{"id":"T1"}}"#).expect("ok");
        assert_eq!(Json::Object(outcome.saved), json!({ "team": "T1" }));
        assert_eq!(outcome.result, json!({ "ok": true, "team": { "id": "T1" } }));
    }

    #[test]
    fn the_definitions_ok_alone_decides_where_there_is_one() {
        let revoke = request(Some("status in [204, 404]"), None);
        assert!(answered(&revoke, 404, "text/html", b"<html>gone").is_ok());
        assert!(answered(&revoke, 200, "application/json", b"{}").is_err());
        let plain = request(None, None);
        assert_eq!(answered(&plain, 204, "", b"").expect("no content").result, json!(null));
    }

    #[test]
    fn an_answer_that_is_not_what_it_says_is_invalid_and_not_a_refusal() {
        let slack = request(Some("body.ok"), Some("body.error"));
        for (content_type, body) in
            [("application/json", &b"<html>"[..]), ("application/problem+json", b"{\"a\":"), ("image/png", b"\xff\xd8")]
        {
            let error = answered(&slack, 200, content_type, body).expect_err("invalid");
            assert_eq!(error.refusal(), Refusal::ServiceAnswerInvalid, "{content_type}");
        }
        let error = answered(&slack, 502, "application/json", b"<html>").expect_err("refused");
        assert!(matches!(error, AnswerError::Refused { status: 502, words: None, .. }), "{error:?}");
    }

    #[test]
    fn bodies_are_read_by_type_or_by_look() {
        let plain = request(None, None);
        let result = |content_type, body| answered(&plain, 200, content_type, body).map(|outcome| outcome.result);
        assert_eq!(result("text/plain", b" {\"a\": 1}"), Ok(json!({ "a": 1 })));
        assert_eq!(result("application/vnd.x+json; charset=utf-8", b"1"), Ok(json!(1)));
        assert_eq!(result("text/html", b"{not json"), Ok(json!("{not json")));
        assert_eq!(result("text/plain", b"1"), Ok(json!("1")));
    }

    #[test]
    fn a_form_is_read_by_its_fields() {
        let outcome =
            answered(&request(None, None), 200, "application/x-www-form-urlencoded; charset=utf-8", b"a=1%20&b=");
        assert_eq!(outcome.expect("ok").result, json!({ "a": "1 ", "b": "" }));
    }

    #[test]
    fn faults_that_pass_are_told_from_those_that_stay() {
        let plain = request(None, None);
        let of = |status| {
            let error = answered(&plain, status, "text/plain", b"no").expect_err("refused");
            assert!(matches!(&error, AnswerError::Refused { retry_after: Some(wait), .. } if wait.as_secs() == 7));
            (error.passing(), error.turned_away())
        };
        assert_eq!([425, 429].map(of), [(true, true); 2]);
        assert_eq!([408, 500, 502, 503, 504].map(of), [(true, false); 5]);
        assert_eq!([301, 400, 401, 403, 404, 409, 422, 501].map(of), [(false, false); 8]);
    }

    #[test]
    fn a_refusal_is_told_in_the_services_words_where_the_definition_says_nothing_of_them() {
        let bare = request(None, None);
        for (body, told) in [
            (
                &br#"{"error":"invalid_token","error_description":"The token \u202eexpired"}"#[..],
                ": invalid_token: The token expired",
            ),
            (br#"{"error":{"code":"E7","message":"no such team"}}"#, ": E7: no such team"),
            (br#"{"type":"about:blank","detail":"asleep"}"#, ": asleep"),
            (b"{}", " Unauthorized"),
            (b"<html>no</html>", " Unauthorized"),
        ] {
            let error = answered(&bare, 401, "", body).expect_err("refused");
            assert_eq!(error.to_string(), format!("the service answered 401{told}"));
        }
        assert_eq!(answered(&bare, 599, "", b"").expect_err("refused").to_string(), "the service answered 599");
    }

    #[test]
    fn a_challenge_tells_why_where_the_body_does_not() {
        let words = |challenge: &'static str, body: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            let (status, body) = (StatusCode::FORBIDDEN, Bytes::from_static(body.as_bytes()));
            Answer::of(Received { status, headers, body, framed: true, led: false }).usual_words()
        };
        let challenge = r#"Bearer realm="a, error=b", error="insufficient_scope", error_description="Needs a:read""#;
        assert_eq!(words(challenge, "").as_deref(), Some("insufficient_scope: Needs a:read"));
        assert_eq!(words(challenge, r#"{"error":"no"}"#).as_deref(), Some("no"));
        assert_eq!(words("Bearer error=invalid_token, scope=a", "").as_deref(), Some("invalid_token"));
        assert_eq!(words("Basic realm=\"x\"", ""), None);
        assert_eq!(words("Basic YWJj==", ""), None);
    }

    #[test]
    fn the_mark_of_utf_8_before_a_body_is_no_part_of_it() {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let Parsed::Json(json) = parse(&headers, b"\xEF\xBB\xBF{\"a\":1}") else { panic!("it is JSON") };
        assert_eq!(json, json!({ "a": 1 }));
    }
}
