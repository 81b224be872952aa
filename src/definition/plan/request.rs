//! The one request shape, compiled.

use std::time::Duration;

use http::{HeaderName, Method};

use crate::template::{Expr, Text, Tree};

/// A request as a definition describes it, ready to be filled in and sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub target: Target,
    /// Query parameters in order, after those of the target. A parameter whose value is none is left
    /// out; a list gives one parameter an item.
    pub query: Vec<(String, Tree)>,
    /// Headers in order. A header whose value is none is left out.
    pub headers: Vec<(HeaderName, Text)>,
    /// The body.
    pub body: Body,
    /// Name and password for `Authorization: Basic`, instead of the credential.
    pub basic: Option<(Text, Text)>,
    /// Which credential the request carries.
    pub credential: CredentialUse,
    /// What makes an answer a success; without it the API's own `ok`, without that a 2xx status.
    pub ok: Option<Expr>,
    /// The service's words for what went wrong.
    pub error: Option<Expr>,
    /// Values to keep from the answer, for `saved.NAME`.
    pub save: Vec<(String, Expr)>,
    /// What the caller gets; without it the answer's body.
    pub result: Option<Tree>,
    /// Total time from start to the answer's end; without it the API's.
    pub timeout: Option<Duration>,
}

impl Request {
    /// A request that is a method and a target: no credential, no body, and nothing said of its answer.
    pub const fn bare(method: Method, target: Target) -> Self {
        Self {
            method,
            target,
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Empty,
            basic: None,
            credential: CredentialUse::None,
            ok: None,
            error: None,
            save: Vec::new(),
            result: None,
            timeout: None,
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// A path below the API's base URL, with its own query where it has one. Slots of the path are
    /// percent-encoded as one segment, so that a value cannot leave its place.
    Path {
        /// Begins with a slash; has no query.
        path: Text,
        /// The query string after the question mark.
        query: Option<Text>,
    },
    /// A whole URL. Its host is checked against the hosts the definition names.
    Url(Text),
}

/// The body of a request.
#[derive(Debug, Clone)]
pub enum Body {
    /// None.
    Empty,
    /// `application/x-www-form-urlencoded`, in order; none is left out, a list gives one pair an item.
    Form(Vec<(String, Tree)>),
    /// `application/json`.
    Json(Tree),
    /// Text under a `Content-Type` of the headers, else `text/plain; charset=utf-8`.
    Text(Text),
}

/// Which credential a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialUse {
    /// The connection's, placed as the API says; the named token where a name is given.
    Token(Option<String>),
    /// The OAuth client's own id and secret.
    Client,
    /// None.
    None,
}
