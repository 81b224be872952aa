//! Requests of a service's own that yield a token, compiled.

use super::oauth2::TokenCall;

/// How a service's own requests sign in.
#[derive(Debug)]
pub struct Login {
    /// The requests in order; the last one's answer holds the tokens. Never empty.
    pub steps: Vec<TokenCall>,
}
