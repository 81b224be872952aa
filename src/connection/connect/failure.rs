//! Why a flow came to nothing, in words a person can act on: the one table of them.
//!
//! What a provider says is never a page of ours: it picks a row here, and its own words stand below, as
//! text.

use serde::{Deserialize, Serialize};

use crate::connection::grant::{REGISTRATION_FAILED, TokenError, TokenErrorKind};

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
    /// The application could not register itself at the service (RFC 7591).
    RegistrationFailed,
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

/// A failure, its code and what is told of it.
struct Row {
    failure: Failure,
    code: &'static str,
    told: Told,
}

/// The table, in the order of [`Failure`].
const TABLE: [Row; 16] = [
    Row {
        failure: Failure::Denied,
        code: "denied",
        told: Told {
            title: "Access was not granted",
            meaning: "You or your administrator declined the request. Nothing was connected.",
            step: "If that was not meant, try again and accept the permissions. Some organisations let only an administrator accept.",
        },
    },
    Row {
        failure: Failure::AccountNotFit,
        code: "account_not_fit",
        told: Told {
            title: "{} needs something from you first",
            meaning: "The account you used is not signed in, or may not connect applications.",
            step: "Sign in at {} with an account that may, then try again.",
        },
    },
    Row {
        failure: Failure::Misconfigured,
        code: "misconfigured",
        told: Told {
            title: "This application is not set up correctly at {}",
            meaning: "{} does not accept the application's registration, its secret or its redirect address. You did nothing wrong.",
            step: "Tell whoever runs this application, with the words below.",
        },
    },
    Row {
        failure: Failure::ScopeRefused,
        code: "scope_refused",
        told: Told {
            title: "{} does not allow these permissions",
            meaning: "At least one of the permissions is unknown to {}, or not allowed for this application.",
            step: "Choose fewer permissions and try again, or tell whoever runs this application.",
        },
    },
    Row {
        failure: Failure::ServiceFault,
        code: "service_fault",
        told: Told {
            title: "{} has a problem at the moment",
            meaning: "It answered with an error of its own. Nothing was connected.",
            step: "Try again in a few minutes.",
        },
    },
    Row {
        failure: Failure::ServiceUnreachable,
        code: "service_unreachable",
        told: Told {
            title: "{} could not be reached",
            meaning: "It did not answer in time, or not at all. Nothing was connected.",
            step: "Try again in a few minutes.",
        },
    },
    Row {
        failure: Failure::RegistrationFailed,
        code: "registration_failed",
        told: Told {
            title: "This application could not register itself at {}",
            meaning: "Before an account can be connected, the application registers itself there, and that did not work. You did nothing wrong, and nothing was connected.",
            step: "Tell whoever runs this application, with the words below: they name what was answered.",
        },
    },
    Row {
        failure: Failure::BeginRefused,
        code: "begin_refused",
        told: Told {
            title: "{} refused to begin the sign-in",
            meaning: "It did not accept this application's first call: its key, its secret, its signature or the address people come back to. You did nothing wrong, and nothing was connected.",
            step: "Tell whoever runs this application, with the words below: they name the call and what was answered.",
        },
    },
    Row {
        failure: Failure::CodeRefused,
        code: "code_refused",
        told: Told {
            title: "{} refused to finish",
            meaning: "It did not accept the confirmation it had just given: it may have been used already, or be too old.",
            step: "Try again, without reloading pages on the way.",
        },
    },
    Row {
        failure: Failure::AnswerUnusable,
        code: "answer_unusable",
        told: Told {
            title: "{} answered in a way that cannot be used",
            meaning: "Its answer is not what is needed here. Nothing was connected.",
            step: "Tell whoever runs this application, with the words below.",
        },
    },
    Row {
        failure: Failure::NoCode,
        code: "no_code",
        told: Told {
            title: "{} sent you back without a confirmation",
            meaning: "The answer has neither a code nor an error. Nothing was connected.",
            step: "Try again; if it happens again, tell whoever runs this application.",
        },
    },
    Row {
        failure: Failure::TokenRefused,
        code: "token_refused",
        told: Told {
            title: "{} does not accept the new sign-in",
            meaning: "It gave a token and then refused it. What was connected before stays as it was.",
            step: "Check that the account may use the API, then try again.",
        },
    },
    Row {
        failure: Failure::NotInTime,
        code: "not_in_time",
        told: Told {
            title: "Nobody confirmed in time",
            meaning: "A code or a choice for {} works for some minutes only, and they are over. Nothing was connected.",
            step: "Try again from the beginning.",
        },
    },
    Row {
        failure: Failure::NotKept,
        code: "not_kept",
        told: Told {
            title: "The connection could not be saved",
            meaning: "The account was confirmed, but this gateway could not keep it.",
            step: "Try again in a few minutes; if it happens again, tell whoever runs this application.",
        },
    },
    Row {
        failure: Failure::Removed,
        code: "removed",
        told: Told {
            title: "The connection was removed meanwhile",
            meaning: "Whoever runs this application removed it before you were done. Nothing was connected.",
            step: "Ask for a new link where you got this one, if it is still wanted.",
        },
    },
    Row {
        failure: Failure::DefinitionChanged,
        code: "definition_changed",
        told: Told {
            title: "The setup of {} changed meanwhile",
            meaning: "What you were asked for is not what is needed any more. Nothing was connected.",
            step: "Start again from your application.",
        },
    },
];

impl Failure {
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
            (_, Some(REGISTRATION_FAILED), _) => Self::RegistrationFailed,
            (_, Some("access_denied"), _) => Self::Denied,
            (_, Some("expired_token"), _) => Self::NotInTime,
            (_, Some("invalid_scope"), _) => Self::ScopeRefused,
            (_, Some("invalid_client" | "unauthorized_client" | "unsupported_grant_type"), _)
            | (TokenErrorKind::Misconfigured, ..) => Self::Misconfigured,
            (TokenErrorKind::Unsent, ..) | (TokenErrorKind::Passing, _, None) => Self::ServiceUnreachable,
            (TokenErrorKind::Passing, _, Some(200..=399)) => Self::AnswerUnusable,
            (TokenErrorKind::Passing, _, Some(429 | 500..=599)) => Self::ServiceFault,
            (TokenErrorKind::Permanent, ..) | (TokenErrorKind::Passing, _, Some(_)) => Self::CodeRefused,
        }
    }

    /// The failure that a call means which is made with a new token.
    pub fn of_use(error: &TokenError) -> Self {
        match Self::of_token_call(error) {
            Self::CodeRefused | Self::Denied => Self::TokenRefused,
            // Of requests that are made with a token, this says that the token may not make them.
            Self::Misconfigured if matches!(error.status, Some(401 | 403)) => Self::TokenRefused,
            other => other,
        }
    }

    /// The stable code: what the API, the audit log and metrics have.
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// What a person is told.
    pub fn told(self) -> Told {
        self.row().told
    }

    fn row(self) -> &'static Row {
        let row = &TABLE[self as usize];
        debug_assert_eq!(row.failure, self, "the table has the order of the failures");
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_happened_and_what_to_do() {
        let mut codes: Vec<_> = TABLE.iter().map(|row| row.code).collect();
        for (at, Row { failure, told, .. }) in TABLE.iter().enumerate() {
            assert_eq!(*failure as usize, at, "the table has the order of the failures");
            assert!(told.meaning.ends_with('.') && told.step.ends_with('.') && !told.title.is_empty(), "{failure:?}");
            assert_eq!(serde_json::to_value(failure).expect("JSON"), failure.code());
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), TABLE.len());
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
        assert_eq!(call(TokenErrorKind::Misconfigured, Some("invalid_scope"), Some(400)), Failure::ScopeRefused);
        assert_eq!(call(TokenErrorKind::Passing, None, Some(503)), Failure::ServiceFault);
        assert_eq!(call(TokenErrorKind::Passing, None, Some(200)), Failure::AnswerUnusable);
        assert_eq!(call(TokenErrorKind::Passing, None, None), Failure::ServiceUnreachable);
        assert_eq!(call(TokenErrorKind::Unsent, None, None), Failure::ServiceUnreachable);
        let refused = TokenError { status: Some(401), ..TokenError::new(TokenErrorKind::Permanent, "words") };
        assert_eq!(Failure::of_departure(&refused), Failure::BeginRefused, "there was no confirmation yet");
        assert_eq!(Failure::of_use(&refused), Failure::TokenRefused, "the token was there");
    }
}
