//! What a failed test of a connection means, and what to do about it: the one table of steps.
//!
//! Called by `admin`; a connection that is not stored yet is tried by [`super::call::try_out`].

use serde::Serialize;

use super::credential::PlaceError;
use super::error::{OutboundError, Why};
use crate::connection::connect::trial::{Found, Tried};
use crate::connection::{TokenError, TokenErrorKind};
use crate::net::{DialError, Reason};
use crate::request::AnswerError;

/// What kind of thing is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = DiagnosisCause)]
pub enum Cause {
    /// The service's name has no address.
    Dns,
    /// The address is one that the gateway must not dial.
    AddressForbidden,
    /// Nobody answers there.
    Unreachable,
    /// The certificate is not trusted, or TLS fails otherwise.
    Tls,
    /// The service does not answer in time.
    Timeout,
    /// The service does not know the credential: 401.
    Unauthorized,
    /// The credential may not do this: 403 with a word about scopes.
    MissingScope,
    /// The credential may not do this: another 403.
    Forbidden,
    /// There were too many calls: 429.
    RateLimited,
    /// The service has a fault: 5xx.
    ServiceFault,
    /// The service refuses the test for another reason.
    Refused,
    /// The answer cannot be used.
    AnswerInvalid,
    /// Inputs or credential do not fit the definition.
    Invalid,
    /// The definition has no test, or uses what is not run.
    NoTest,
    /// Calls to the service are held back for a while, by its limits or because it has been failing.
    Held,
    /// The definition, or the gateway's settings, are in the way.
    Definition,
}

/// What a failed test means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Diagnosis {
    /// What kind of thing is in the way.
    pub cause: Cause,
    /// The service's status, where it answered.
    pub status: Option<u16>,
    /// What happened, with the service's own words; nothing secret.
    pub detail: String,
    /// What to do.
    pub step: &'static str,
    /// How long the service asks to be left alone, in seconds.
    pub retry_after: Option<u64>,
}

impl Diagnosis {
    /// What an error means.
    pub fn of(error: &OutboundError) -> Self {
        let cause = Cause::of(error);
        let retry_after = error.retry_after().map(|wait| wait.as_secs());
        Self { cause, status: error.status(), detail: error.to_string(), step: cause.step(), retry_after }
    }

    /// What it means for a credential that is about to be kept. A service that cannot say now says nothing against
    /// it; a definition without a test says nothing at all.
    pub fn tried(self) -> Tried {
        let Self { cause, detail, step, .. } = self;
        let found = Found { cause: cause.word(), detail, step };
        match cause {
            Cause::NoTest => Tried::NoTest,
            Cause::Dns
            | Cause::Unreachable
            | Cause::Timeout
            | Cause::RateLimited
            | Cause::ServiceFault
            | Cause::Held => Tried::Untried(found),
            Cause::AddressForbidden
            | Cause::Tls
            | Cause::Unauthorized
            | Cause::MissingScope
            | Cause::Forbidden
            | Cause::Refused
            | Cause::AnswerInvalid
            | Cause::Invalid
            | Cause::Definition => Tried::Refused(found),
        }
    }
}

impl Cause {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::Dns,
        Self::AddressForbidden,
        Self::Unreachable,
        Self::Tls,
        Self::Timeout,
        Self::Unauthorized,
        Self::MissingScope,
        Self::Forbidden,
        Self::RateLimited,
        Self::ServiceFault,
        Self::Refused,
        Self::AnswerInvalid,
        Self::Invalid,
        Self::NoTest,
        Self::Held,
        Self::Definition,
    ];

    fn of(error: &OutboundError) -> Self {
        match error {
            OutboundError::Credential { reason: PlaceError::SignIn(error), .. } => Self::of_sign_in(error),
            OutboundError::Connection(_) | OutboundError::Credential { .. } | OutboundError::Fill { .. } => {
                Self::Invalid
            }
            OutboundError::NoApi(_) | OutboundError::NoTest(_) => Self::NoTest,
            OutboundError::Held { .. } => Self::Held,
            OutboundError::Tried(tried) => match &tried.reason {
                Why::Failure(failure) => Self::of_failure(&failure.reason),
                Why::Answer(answer) => Self::of_answer(answer),
            },
            _ => Self::Definition,
        }
    }

    /// A sign-in by requests of the service's own is a part of the test.
    fn of_sign_in(error: &TokenError) -> Self {
        match (error.kind, error.status) {
            (TokenErrorKind::Permanent, _) => Self::Unauthorized,
            (TokenErrorKind::Misconfigured, _) => Self::Definition,
            (TokenErrorKind::Unsent, _) | (TokenErrorKind::Passing, None) => Self::Unreachable,
            (TokenErrorKind::Passing, Some(429)) => Self::RateLimited,
            (TokenErrorKind::Passing, Some(500..=599)) => Self::ServiceFault,
            (TokenErrorKind::Passing, Some(_)) => Self::AnswerInvalid,
        }
    }

    fn of_failure(reason: &Reason) -> Self {
        match reason {
            Reason::Dial(DialError::Unresolved { .. }) => Self::Dns,
            Reason::Dial(DialError::Forbidden { .. }) => Self::AddressForbidden,
            Reason::Connect(_) | Reason::Reset | Reason::Egress(_) | Reason::Dial(DialError::Egress(_)) => {
                Self::Unreachable
            }
            Reason::Untrusted(_) | Reason::NoRoots | Reason::Tls(_) => Self::Tls,
            Reason::Timeout(_) => Self::Timeout,
            Reason::TooLarge { .. } | Reason::Unread { .. } | Reason::Redirects(_) | Reason::Malformed(_) => {
                Self::AnswerInvalid
            }
            Reason::Held { .. } | Reason::NoRoom => Self::Held,
            Reason::Unsendable(_) => Self::Definition,
        }
    }

    fn of_answer(answer: &AnswerError) -> Self {
        let AnswerError::Refused { status, words, .. } = answer else { return Self::AnswerInvalid };
        let words = words.as_deref().unwrap_or_default().to_ascii_lowercase();
        let about_scopes = ["scope", "permission", "not_allowed_token_type"].iter().any(|word| words.contains(word));
        match status {
            401 => Self::Unauthorized,
            403 if about_scopes => Self::MissingScope,
            403 => Self::Forbidden,
            429 => Self::RateLimited,
            500..=599 => Self::ServiceFault,
            // Some services say so with a 200 or a 400.
            _ if words.contains("missing_scope") || words.contains("insufficient_scope") => Self::MissingScope,
            _ if ["invalid_auth", "not_authed", "token_revoked", "token_expired", "invalid_token"]
                .iter()
                .any(|word| words.contains(word)) =>
            {
                Self::Unauthorized
            }
            _ => Self::Refused,
        }
    }

    /// The stable word for it, as the API has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::AddressForbidden => "address_forbidden",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
            Self::MissingScope => "missing_scope",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::ServiceFault => "service_fault",
            Self::Refused => "refused",
            Self::AnswerInvalid => "answer_invalid",
            Self::Invalid => "invalid",
            Self::NoTest => "no_test",
            Self::Held => "held",
            Self::Definition => "definition",
        }
    }

    /// What to do about it.
    pub const fn step(self) -> &'static str {
        match self {
            Self::Dns => {
                "Check the host in the inputs for slips. If it is right, check that this machine can resolve names."
            }
            Self::AddressForbidden => {
                "The name leads to an address that is not public. If it is a private one and that is meant, set \
                 `api.allow_private` and name the network under `private_networks` in trunkline.yaml; addresses of \
                 metadata services and the gateway's own are never dialled."
            }
            Self::Unreachable => "Check that the service is up and that firewalls between let this machine out.",
            Self::Tls => "Check the host. If the service has certificates of its own, name them under `api.tls.ca`.",
            Self::Timeout => "Try again. If it stays so, check firewalls between, or allow more under `api.timeouts`.",
            Self::Unauthorized => {
                "The service does not know this credential: enter it again whole, or make a new one there."
            }
            Self::MissingScope => {
                "Connect again with the permission the service names, or give the key that permission there."
            }
            Self::Forbidden => "Check at the service that this account may use the API, and from this address.",
            Self::RateLimited => "Wait as long as the service asks, then test again. The credential is probably right.",
            Self::ServiceFault => "The service has a fault of its own: test again in a few minutes.",
            Self::Refused => {
                "Compare the service's words with its documentation; the inputs may name something that is not there."
            }
            Self::AnswerInvalid => {
                "Check the host: something else may answer there. Otherwise `api.ok` or `api.test` do not fit."
            }
            Self::Invalid => "Correct what is named, as the definition wants it.",
            Self::NoTest => "Give the definition an `api.test` request, or save without a test.",
            Self::Held => "Try again in a while: the gateway makes no calls to the service at the moment.",
            Self::Definition => "Correct the definition or the gateway's settings as the message says.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, words: Option<&str>) -> Cause {
        let words = words.map(str::to_owned);
        Cause::of_answer(&AnswerError::Refused { status, words, retry_after: None, led: false })
    }

    #[test]
    fn what_the_service_says_is_told_apart() {
        assert_eq!(answered(401, None), Cause::Unauthorized);
        assert_eq!(answered(403, Some("Insufficient scope: repo")), Cause::MissingScope);
        assert_eq!(answered(403, Some("Your IP is not allowed")), Cause::Forbidden);
        assert_eq!(answered(429, None), Cause::RateLimited);
        assert_eq!([500, 502, 599].map(|status| answered(status, None)), [Cause::ServiceFault; 3]);
        assert_eq!(answered(200, Some("missing_scope")), Cause::MissingScope);
        assert_eq!(answered(200, Some("invalid_auth")), Cause::Unauthorized);
        assert_eq!(answered(404, Some("no such team")), Cause::Refused);
        let invalid = AnswerError::Invalid { status: 200, reason: "HTML".to_owned() };
        assert_eq!(Cause::of_answer(&invalid), Cause::AnswerInvalid);
    }

    #[test]
    fn what_is_between_is_told_apart() {
        use crate::net::Phase;
        for (reason, cause) in [
            (Reason::Connect("refused".to_owned()), Cause::Unreachable),
            (Reason::Reset, Cause::Unreachable),
            (Reason::Untrusted("self-signed".to_owned()), Cause::Tls),
            (Reason::Tls("alert".to_owned()), Cause::Tls),
            (Reason::NoRoots, Cause::Tls),
            (Reason::Timeout(Phase::Connect), Cause::Timeout),
            (Reason::Timeout(Phase::Total), Cause::Timeout),
            (Reason::Malformed("not HTTP".to_owned()), Cause::AnswerInvalid),
        ] {
            assert_eq!(Cause::of_failure(&reason), cause, "{reason}");
        }
        for cause in Cause::ALL {
            assert!(cause.step().ends_with('.'));
            assert_eq!(serde_json::to_value(cause).expect("JSON"), cause.word());
        }
    }

    #[test]
    fn a_service_that_cannot_say_says_nothing_against_a_credential() {
        let found = |cause: Cause| {
            Diagnosis { cause, status: None, detail: String::new(), step: "", retry_after: None }.tried()
        };
        for cause in
            [Cause::Dns, Cause::Unreachable, Cause::Timeout, Cause::RateLimited, Cause::ServiceFault, Cause::Held]
        {
            assert!(matches!(found(cause), Tried::Untried(_)), "{cause:?}");
        }
        for cause in [Cause::Unauthorized, Cause::Forbidden, Cause::MissingScope, Cause::Tls, Cause::Definition] {
            assert!(matches!(found(cause), Tried::Refused(_)), "{cause:?}");
        }
        assert_eq!(found(Cause::NoTest), Tried::NoTest);
    }
}
