//! Requests of a service's own that yield a token, compiled.

use super::oauth2::TokenCall;
use super::request::Request;

/// How a service's own requests sign in.
#[derive(Debug)]
pub struct Login {
    /// The requests in order; the last one's answer holds the tokens. Never empty.
    pub steps: Vec<TokenCall>,
    /// The request that renews a session; its answer is read as the last step's.
    pub refresh: Option<TokenCall>,
    /// The requests that end a session, in order; empty where the service has none.
    pub logout: Vec<Request>,
}
