//! Why a flow came to nothing, in words a person can act on: the one table of them.
//!
//! What a provider says is never a page of ours: it picks a row here, and its own words stand below, as
//! text.

use serde::{Deserialize, Serialize};

use crate::connection::grant::{TokenError, TokenErrorKind};

/// Why a flow came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The person said no.
    Denied,
    /// The service wants something of the person first: a login, a consent, an account of another kind.
    AccountNotFit,
    /// The application is not registered at the service as the definition says.
    Misconfigured,
    /// The service refused the scopes.
    ScopeRefused,
    /// The service has a fault, or no time.
    ServiceFault,
    /// The service could not be reached.
    ServiceUnreachable,
    /// The service refused to begin: it did not take the application's first call.
    BeginRefused,
    /// The service refused the code.
    CodeRefused,
    /// The service's answer could not be used.
    AnswerUnusable,
    /// The service's callback had no code.
    NoCode,
    /// The new token does not work.
    TokenRefused,
    /// Nobody confirmed on the other device in time.
    NotInTime,
    /// The gateway could not keep the connection.
    NotKept,
    /// The connection was removed while it was being connected anew.
    Removed,
    /// The integration is not there any more, or signs in otherwise now.
    DefinitionChanged,
}

/// What a person is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Told {
    /// What happened. `{}` stands for the service's name.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub step: &'static str,
}

impl Failure {
    /// Every one.
    pub const ALL: [Self; 15] = [
        Self::Denied,
        Self::AccountNotFit,
        Self::Misconfigured,
        Self::ScopeRefused,
        Self::ServiceFault,
        Self::ServiceUnreachable,
        Self::BeginRefused,
        Self::CodeRefused,
        Self::AnswerUnusable,
        Self::NoCode,
        Self::TokenRefused,
        Self::NotInTime,
        Self::NotKept,
        Self::Removed,
        Self::DefinitionChanged,
    ];

    /// The failure that an `error` of a callback means (RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6).
    pub fn of_callback(error: &str) -> Self {
        match error {
            "access_denied"
            | "user_denied"
            | "consent_denied"
            | "user_cancelled_login"
            | "user_cancelled_authorize" => Self::Denied,
            "login_required" | "consent_required" | "interaction_required" | "account_selection_required" => {
                Self::AccountNotFit
            }
            "invalid_scope" => Self::ScopeRefused,
            "server_error" | "temporarily_unavailable" => Self::ServiceFault,
            // What was pushed for this person (RFC 9126) was used before, or is over.
            "invalid_request_uri" => Self::CodeRefused,
            _ => Self::Misconfigured,
        }
    }

    /// The failure that a call means which is made before the person is sent to the service.
    pub fn of_departure(error: &TokenError) -> Self {
        match Self::of_token_call(error) {
            // Nobody has confirmed anything yet.
            Self::CodeRefused | Self::Denied => Self::BeginRefused,
            other => other,
        }
    }

    /// The failure that a token call means.
    pub fn of_token_call(error: &TokenError) -> Self {
        match (error.kind, error.code.as_deref(), error.status) {
            (_, Some("access_denied"), _) => Self::Denied,
            (_, Some("expired_token"), _) => Self::NotInTime,
            (_, Some("invalid_client" | "unauthorized_client" | "unsupported_grant_type"), _)
            | (TokenErrorKind::Misconfigured, ..) => Self::Misconfigured,
            (_, Some("invalid_scope"), _) => Self::ScopeRefused,
            (TokenErrorKind::Unsent, ..) | (TokenErrorKind::Passing, _, None) => Self::ServiceUnreachable,
            (TokenErrorKind::Passing, _, Some(200..=399)) => Self::AnswerUnusable,
            (TokenErrorKind::Passing, _, Some(429 | 500..=599)) => Self::ServiceFault,
            (TokenErrorKind::Permanent, ..) | (TokenErrorKind::Passing, _, Some(_)) => Self::CodeRefused,
        }
    }

    /// The stable code: what the API, the audit log and metrics have.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::AccountNotFit => "account_not_fit",
            Self::Misconfigured => "misconfigured",
            Self::ScopeRefused => "scope_refused",
            Self::ServiceFault => "service_fault",
            Self::ServiceUnreachable => "service_unreachable",
            Self::BeginRefused => "begin_refused",
            Self::CodeRefused => "code_refused",
            Self::AnswerUnusable => "answer_unusable",
            Self::NoCode => "no_code",
            Self::TokenRefused => "token_refused",
            Self::NotInTime => "not_in_time",
            Self::NotKept => "not_kept",
            Self::Removed => "removed",
            Self::DefinitionChanged => "definition_changed",
        }
    }

    /// What a person is told.
    pub const fn told(self) -> Told {
        let (title, meaning, step) = match self {
            Self::Denied => (
                "Access was not granted",
                "You or your administrator declined the request. Nothing was connected.",
                "If that was not meant, try again and accept the permissions. Some organisations let only an administrator accept.",
            ),
            Self::AccountNotFit => (
                "{} needs something from you first",
                "The account you used is not signed in, or may not connect applications.",
                "Sign in at {} with an account that may, then try again.",
            ),
            Self::Misconfigured => (
                "This application is not set up correctly at {}",
                "{} does not accept the application's registration, its secret or its redirect address. You did nothing wrong.",
                "Tell whoever runs this application, with the words below.",
            ),
            Self::ScopeRefused => (
                "{} does not allow these permissions",
                "At least one of the permissions is unknown to {}, or not allowed for this application.",
                "Choose fewer permissions and try again, or tell whoever runs this application.",
            ),
            Self::ServiceFault => (
                "{} has a problem at the moment",
                "It answered with an error of its own. Nothing was connected.",
                "Try again in a few minutes.",
            ),
            Self::ServiceUnreachable => (
                "{} could not be reached",
                "It did not answer in time, or not at all. Nothing was connected.",
                "Try again in a few minutes.",
            ),
            Self::BeginRefused => (
                "{} refused to begin the sign-in",
                "It did not accept this application's first call: its key, its secret, its signature or the address people come back to. You did nothing wrong, and nothing was connected.",
                "Tell whoever runs this application, with the words below: they name the call and what was answered.",
            ),
            Self::CodeRefused => (
                "{} refused to finish",
                "It did not accept the confirmation it had just given: it may have been used already, or be too old.",
                "Try again, without reloading pages on the way.",
            ),
            Self::AnswerUnusable => (
                "{} answered in a way that cannot be used",
                "Its answer has no token where one must be. Nothing was connected.",
                "Tell whoever runs this application, with the words below.",
            ),
            Self::NoCode => (
                "{} sent you back without a confirmation",
                "The answer has neither a code nor an error. Nothing was connected.",
                "Try again; if it happens again, tell whoever runs this application.",
            ),
            Self::TokenRefused => (
                "{} does not accept the new sign-in",
                "It gave a token and then refused it. What was connected before stays as it was.",
                "Check that the account may use the API, then try again.",
            ),
            Self::NotInTime => (
                "Nobody confirmed in time",
                "The code for {} works for some minutes only, and they are over. Nothing was connected.",
                "Try again for a new code.",
            ),
            Self::NotKept => (
                "The connection could not be saved",
                "The account was confirmed, but this gateway could not keep it.",
                "Try again in a few minutes; if it happens again, tell whoever runs this application.",
            ),
            Self::Removed => (
                "The connection was removed meanwhile",
                "Whoever runs this application removed it before you were done. Nothing was connected.",
                "Ask for a new link where you got this one, if it is still wanted.",
            ),
            Self::DefinitionChanged => (
                "The setup of {} changed meanwhile",
                "What you were asked for is not what is needed any more. Nothing was connected.",
                "Start again from your application.",
            ),
        };
        Told { title, meaning, step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_happened_and_what_to_do() {
        let mut codes: Vec<_> = Failure::ALL.iter().map(|failure| failure.code()).collect();
        for failure in Failure::ALL {
            let told = failure.told();
            assert!(told.meaning.ends_with('.') && told.step.ends_with('.') && !told.title.is_empty(), "{failure:?}");
            assert_eq!(serde_json::to_value(failure).expect("JSON"), failure.code());
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Failure::ALL.len());
    }

    #[test]
    fn what_the_service_says_picks_a_row() {
        assert_eq!(Failure::of_callback("access_denied"), Failure::Denied);
        assert_eq!(Failure::of_callback("temporarily_unavailable"), Failure::ServiceFault);
        assert_eq!(Failure::of_callback("invalid_request_uri"), Failure::CodeRefused);
        assert_eq!(Failure::of_callback("<script>"), Failure::Misconfigured);
        let call = |kind, code: Option<&str>, status| {
            Failure::of_token_call(&TokenError {
                code: code.map(str::to_owned),
                status,
                ..TokenError::new(kind, "words")
            })
        };
        assert_eq!(call(TokenErrorKind::Permanent, Some("invalid_grant"), Some(400)), Failure::CodeRefused);
        assert_eq!(call(TokenErrorKind::Permanent, Some("invalid_client"), Some(401)), Failure::Misconfigured);
        assert_eq!(call(TokenErrorKind::Passing, None, Some(503)), Failure::ServiceFault);
        assert_eq!(call(TokenErrorKind::Passing, None, Some(200)), Failure::AnswerUnusable);
        assert_eq!(call(TokenErrorKind::Passing, None, None), Failure::ServiceUnreachable);
        assert_eq!(call(TokenErrorKind::Unsent, None, None), Failure::ServiceUnreachable);
        let refused = TokenError { status: Some(401), ..TokenError::new(TokenErrorKind::Permanent, "words") };
        assert_eq!(Failure::of_departure(&refused), Failure::BeginRefused, "there was no confirmation yet");
    }
}
