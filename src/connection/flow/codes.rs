//! The error codes of the RFCs, and what follows from each.
//!
//! Such a code is compared and shown as it came: it is a word of a standard whatever a secret looks like. Any other
//! text in its place may repeat what was sent, and has no secret left in it. Called by whatever reads a refusal.

use super::secrets::Secrets;
use crate::request::answer::plain_words;

/// Codes by which a service says that no repetition will help, unless the definition says otherwise
/// (RFC 6749 §5.2, RFC 8628 §3.5).
pub const PERMANENT: [&str; 4] = ["invalid_grant", "unauthorized_client", "access_denied", "expired_token"];
/// Codes by which it says that the call itself is wrong, so that the operator has to act.
pub const MISCONFIGURED: [&str; 6] = [
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "unsupported_grant_type",
    "unsupported_response_type",
];
/// Codes by which it asks to come again (RFC 6749 §4.1.2.1, RFC 8628 §3.5).
pub const PASSING: [&str; 4] = ["temporarily_unavailable", "server_error", "slow_down", "authorization_pending"];
/// Codes of calls that bring no token (RFC 6750 §3.1, RFC 7009 §2.2.1, RFC 7591 §3.2.2).
const OTHERS: [&str; 7] = [
    "invalid_token",
    "insufficient_scope",
    "unsupported_token_type",
    "invalid_redirect_uri",
    "invalid_client_metadata",
    "invalid_software_statement",
    "unapproved_software_statement",
];

/// A code as it is compared and shown.
pub fn told(code: &str, secrets: &Secrets) -> String {
    let known = [&PERMANENT[..], &MISCONFIGURED, &PASSING, &OTHERS].concat();
    if known.contains(&code) { code.to_owned() } else { secrets.redact(&plain_words(code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_standard_stays_whatever_secrets_look_like() {
        let mut secrets = Secrets::default();
        for secret in ["client-secret-value-1", "pending-123456", "slow_down"] {
            secrets.add(secret);
        }
        for code in ["invalid_client", "authorization_pending", "slow_down", "invalid_token"] {
            assert_eq!(told(code, &secrets), code);
        }
        assert_eq!(told("no pending-123456", &secrets), "no [redacted]");
    }
}
