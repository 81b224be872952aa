//! What the gateway itself answers when it refuses: RFC 9457 problem documents with stable codes.
//!
//! [`Refusal`] is the only list of statuses and codes. Rooms say which refusal an error of theirs is;
//! nothing else turns an error into a status. Every such answer carries `Trunkline-Error: CODE`, which
//! a service's own answer never does, so that a caller can tell them apart. Called by every door.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

/// The header that marks an answer as the gateway's own.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("trunkline-error");

/// A whole answer of the gateway's own.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers, `Content-Type` among them; `Content-Length` is the door's to set.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
    /// Whether the connection must not be used again, because what follows on it is in doubt.
    pub close: bool,
}

impl Answer {
    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), close: false }
    }

    /// An answer in JSON.
    pub fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Self { status, headers, body: Bytes::from(value.to_string()), close: false }
    }

    /// This answer with another header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// This answer with `Retry-After`, rounded up to whole seconds, at least one.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        let value = u64::try_from(seconds).unwrap_or(u64::MAX);
        self.with(header::RETRY_AFTER, HeaderValue::from(value))
    }

    /// This answer, after which the connection is closed.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:literal $code:literal $title:literal;)+) => {
        /// Why the gateway refused. The code is stable; the title may be reworded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Refusal { $($(#[doc = $doc])+ $name,)+ }

        impl Refusal {
            /// Every refusal, for documentation and tests.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// What it means, in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }

            /// When it is given, in sentences.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+),)+ }
            }
        }
    };
}

refusals! {
    /// The request is not well-formed HTTP, or has more than one reading.
    MalformedRequest = 400 "malformed_request" "The request is not well-formed";
    /// The path holds something that could leave its place.
    UnsafePath = 400 "unsafe_path" "The path is not accepted";
    /// An input of an endpoint, or of a request to the admin API, is missing or wrong.
    InvalidInput = 400 "invalid_input" "An input is missing or wrong";
    /// There is no caller key, or it is not known.
    CallerUnknown = 401 "caller_unknown" "The caller key is missing or unknown";
    /// The webhook's signature is missing or wrong.
    SignatureInvalid = 401 "signature_invalid" "The webhook could not be verified";
    /// The webhook's signature is too old or too new.
    SignatureStale = 401 "signature_stale" "The webhook's timestamp is outside the tolerance";
    /// The webhook has no secret to be verified with.
    SecretMissing = 401 "secret_missing" "No secret is set for this webhook, so nothing can be verified";
    /// There is no admin token, or it is wrong.
    AdminUnknown = 401 "admin_unknown" "The admin token is missing or wrong";
    /// The admin door is shut to requests without a token, and no token is set.
    AdminClosed = 403 "admin_closed" "The admin door needs a token, and none is set";
    /// Name and password, token or link do not sign anyone in.
    SignInRefused = 401 "sign_in_refused" "Nobody was signed in";
    /// The form was not one of this session's pages.
    FormForeign = 403 "form_foreign" "The form is not one of this session's pages";
    /// Viewers change nothing.
    RoleForbidden = 403 "role_forbidden" "Your role does not allow this";
    /// The settings say that nothing is changed at the admin door.
    ReadOnly = 403 "read_only" "Nothing is changed here: the deployment is read-only";
    /// The request was made by a page of another site.
    OriginForbidden = 403 "origin_forbidden" "Requests from other sites are not accepted";
    /// The caller may not use this integration, connection, method or path.
    CallerForbidden = 403 "caller_forbidden" "The caller is not allowed to do this";
    /// The connection was not granted a scope that the endpoint needs.
    ScopeMissing = 403 "scope_missing" "The connection lacks a scope that this endpoint needs";
    /// The request came by plain HTTP where `public_url` demands HTTPS.
    HttpsRequired = 403 "https_required" "This door takes HTTPS only";
    /// The call would leave the hosts that the definition names.
    HostForbidden = 403 "host_forbidden" "The call would leave the hosts that the definition names";
    /// A connect link is incomplete, or was changed.
    LinkInvalid = 400 "link_invalid" "The connect link is not valid";
    /// A callback belongs to no flow of this browser.
    FlowUnknown = 400 "flow_unknown" "The sign-in is not one of this browser, or is over";
    /// A connect link has expired or has been used.
    LinkOver = 410 "link_over" "The connect link cannot be used any more";
    /// There is no such integration, endpoint, webhook or route.
    NotFound = 404 "not_found" "There is nothing here";
    /// There is no such connection.
    ConnectionUnknown = 404 "connection_unknown" "The integration has no such connection";
    /// The method is not one the place takes.
    MethodNotAllowed = 405 "method_not_allowed" "The method is not accepted here";
    /// The client took too long to send its request.
    RequestTimeout = 408 "request_timeout" "The request took too long to arrive";
    /// The state does not allow it.
    Conflict = 409 "conflict" "As things stand, this cannot be done";
    /// A request with the same `Idempotency-Key` is under way.
    RequestUnderWay = 409 "request_under_way" "The same request is under way";
    /// The request with this `Idempotency-Key` was made or begun before, and its answer is not kept.
    AnswerNotKept = 409 "answer_not_kept" "The request was sent before, and its answer is not kept";
    /// What is to be changed is not what `If-Match` names.
    PreconditionFailed = 412 "precondition_failed" "It has changed since it was read";
    /// The `Idempotency-Key` is that of another request.
    IdempotencyKeyReused = 422 "idempotency_key_reused" "The idempotency key is that of another request";
    /// The body is larger than allowed.
    BodyTooLarge = 413 "body_too_large" "The body is larger than allowed";
    /// The target is longer than allowed.
    UriTooLong = 414 "uri_too_long" "The request target is longer than allowed";
    /// The body has a content type the place does not take.
    UnsupportedMediaType = 415 "unsupported_media_type" "The body's content type is not accepted here";
    /// The request came to a host that is not ours.
    Misdirected = 421 "misdirected" "This host is not served here";
    /// A limit was reached; `Retry-After` says when to come again.
    RateLimited = 429 "rate_limited" "Too many requests";
    /// The head is larger than allowed.
    HeadersTooLarge = 431 "headers_too_large" "The request's headers are larger than allowed";
    /// Something broke inside the gateway.
    Internal = 500 "internal" "The gateway failed";
    /// The definition uses a part that this version does not run.
    NotYetRun = 501 "not_yet_run" "This part of the definition is not yet run by this version";
    /// The service could not be reached or broke off.
    ServiceUnreachable = 502 "service_unreachable" "The service could not be reached";
    /// The proxy that calls leave through failed.
    EgressFailed = 502 "egress_failed" "The proxy on the way to the service failed";
    /// The service's certificate is not trusted.
    ServiceUntrusted = 502 "service_untrusted" "The service's certificate is not trusted";
    /// The service's name has no usable address.
    ServiceUnresolved = 502 "service_unresolved" "The service's name could not be resolved";
    /// The service's address is one that must not be dialled.
    AddressForbidden = 502 "address_forbidden" "The service's address is not one the gateway may dial";
    /// The service answered with something that is not a usable answer.
    ServiceAnswerInvalid = 502 "service_answer_invalid" "The service's answer could not be used";
    /// The service answered, and the definition says that the answer is an error.
    ServiceRefused = 502 "service_refused" "The service refused the call";
    /// Pages were asked for all at once, and cannot be followed to their end: too many, too long, in a circle, or
    /// away from the API.
    PagesEnded = 502 "pages_ended" "The pages could not be followed to their end";
    /// A template of the definition gave no value.
    DefinitionFailed = 502 "definition_failed" "The definition could not be applied to this call";
    /// The connection cannot be used until someone acts.
    ConnectionUnusable = 503 "connection_unusable" "The connection cannot be used";
    /// The service refused for good to give the connection a token: a person has to connect it again.
    NeedsReconnect = 503 "connection_needs_reconnect" "The connection has to be connected again";
    /// The operator put the connection out of use.
    ConnectionPaused = 503 "connection_paused" "The connection is paused";
    /// The service has been failing, or a person wants it left alone; `Retry-After` says when to come again.
    ServiceHeld = 503 "service_held" "Calls to the service are held back for a while";
    /// The gateway is stopping, starting or overloaded.
    Unavailable = 503 "unavailable" "The gateway cannot take this now";
    /// The store cannot make anything durable now.
    StoreUnavailable = 503 "store_unavailable" "Nothing can be stored now";
    /// The caller takes only what is kept, and nothing kept fits.
    NotCached = 504 "not_cached" "Nothing is kept that would answer this";
    /// The service took too long.
    ServiceTimeout = 504 "service_timeout" "The service took too long to answer";
    /// The call came back to this gateway.
    LoopDetected = 508 "loop_detected" "The call came back to this gateway";
}

/// A problem document (RFC 9457).
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct Document<'a> {
    /// `urn:trunkline:error:` and the code.
    r#type: String,
    /// What the code means, in a few words; may be reworded.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// Why it was refused; stable.
    code: &'a str,
    /// What was wrong with this request.
    detail: &'a str,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
    /// The id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
}

impl Refusal {
    /// The refusal that an answer is; `None` for a service's own.
    pub fn of(answer: &Answer) -> Option<&'static Self> {
        let (_, code) = answer.headers.iter().find(|(name, _)| *name == ERROR_HEADER)?;
        Self::ALL.iter().find(|refusal| code == refusal.code())
    }

    /// The answer. `detail` says what was wrong with this request, for the person who made it; it
    /// holds no secret and no inner workings.
    pub fn answer(self, detail: &str) -> Answer {
        self.answer_with(detail, None, None)
    }

    /// The answer with what to do about it, and with the id of the request it answers.
    pub fn answer_with(self, detail: &str, help: Option<&str>, instance: Option<&str>) -> Answer {
        let document = Document {
            r#type: format!("urn:trunkline:error:{}", self.code()),
            title: self.title(),
            status: self.status(),
            code: self.code(),
            detail,
            help,
            instance,
        };
        let headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json")),
            (ERROR_HEADER, HeaderValue::from_static(self.code())),
        ];
        Answer {
            status: StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers,
            body: serde_json::to_vec(&document).map(Bytes::from).unwrap_or_default(),
            close: false,
        }
    }

    /// The answer as a page for people; the code is in its header all the same.
    pub fn page(self, html: Bytes) -> Answer {
        let headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (ERROR_HEADER, HeaderValue::from_static(self.code())),
        ];
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Answer { status, headers, body: html, close: false }
    }

    /// The answer with `Retry-After`, rounded up to whole seconds, at least one.
    pub fn answer_after(self, detail: &str, wait: Duration) -> Answer {
        self.answer(detail).after(wait)
    }
}

/// Every refusal as a page of the manual, in Markdown.
pub fn page() -> String {
    let mut all = Refusal::ALL.to_vec();
    all.sort_by_key(|refusal| (refusal.status(), refusal.code()));
    let rows = all.iter().map(|refusal| {
        let (status, code, meaning) = (refusal.status(), refusal.code(), refusal.meaning().trim());
        format!("| {status} | `{code}` | {meaning} |\n")
    });
    let head = "# Errors\n\nThis page is generated by `trunkline schema`.\n\n\
        What the gateway itself refuses is answered with `Trunkline-Error: CODE` and a problem document (RFC 9457):\n\
        `type` (`urn:trunkline:error:CODE`), `title`, `status`, `code`, `detail` and sometimes `help` and `instance`, the\n\
        id of the request. Pages for people have the header as well. Codes are stable; titles and details may be reworded. A\n\
        service's own answer never has the header.\n\n\
        | status | code | when |\n|---|---|---|\n";
    std::iter::once(head.to_owned()).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        let mut codes: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Refusal::ALL.len());
        assert!(Refusal::ALL.iter().all(|refusal| (400..600).contains(&refusal.status())));
    }

    #[test]
    fn an_answer_is_a_problem_document_that_says_it_is_ours() {
        let answer = Refusal::RateLimited.answer_after("more than 25 a second", Duration::from_millis(1_200));
        let document: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(document["code"], "rate_limited");
        assert_eq!(document["type"], "urn:trunkline:error:rate_limited");
        let header = |name| answer.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        assert_eq!(header(header::RETRY_AFTER), Some(HeaderValue::from(2)));
        assert_eq!(header(ERROR_HEADER), Some(HeaderValue::from_static("rate_limited")));
        assert_eq!(header(header::CONTENT_TYPE), Some(HeaderValue::from_static("application/problem+json")));
    }
}
