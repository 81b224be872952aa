//! Why a call got no answer, and whether anything of it was sent.

use std::error::Error as StdError;
use std::io;

use super::dial::DialError;
use crate::respond::Refusal;

/// A call that got no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct Failure {
    /// Where the call went: scheme, host and port.
    pub origin: String,
    /// Why there is no answer.
    pub reason: Reason,
    /// Whether the other side may have seen the call.
    pub sent: Sent,
    /// How many bytes of an answer's body were read before it failed.
    pub heard: u64,
}

/// Whether the other side may have seen a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Certainly not a byte of it: it may be sent again whatever it does.
    Nothing,
    /// Perhaps, in part or in full.
    Maybe,
}

/// A phase of a call with a time limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// DNS, TCP and TLS.
    Connect,
    /// From the call's end to the head of the answer.
    Response,
    /// Between two parts of the answer's body.
    Idle,
    /// The whole call.
    Total,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The host has no address, or one that must not be dialled.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The proxy on the way out failed.
    #[error("the egress proxy did not lead on: {0}")]
    Egress(String),
    /// No connection could be made.
    #[error("no connection could be made: {0}")]
    Connect(String),
    /// The certificate is not trusted.
    #[error("its certificate is not trusted: {0}")]
    Untrusted(String),
    /// The machine has no certificates to trust.
    #[error("this machine has no root certificates: install them (Debian: ca-certificates), or name a `ca`")]
    NoRoots,
    /// The TLS handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// A phase took too long.
    #[error("{}", match .0 {
        Phase::Connect => "no connection could be made in time",
        Phase::Response => "the answer did not begin in time",
        Phase::Idle => "the answer stopped coming",
        Phase::Total => "the call took too long",
    })]
    Timeout(Phase),
    /// The connection broke.
    #[error("the connection broke before the answer was complete")]
    Reset,
    /// The answer's body is longer than is taken.
    #[error("the answer has more than {most} bytes")]
    TooLarge {
        /// How many bytes are taken.
        most: usize,
        /// The status of the answer.
        status: u16,
    },
    /// The answers that are being read take all the memory there is for them, so the call was not made.
    #[error("the answers that are being read take all the memory there is for them (`limits.whole_answer_bytes`)")]
    NoRoom,
    /// The call was answered, and the answer found no room.
    #[error("the service answered {status}, and there was no room to read the answer (`limits.whole_answer_bytes`)")]
    Unread {
        /// The status of the answer.
        status: u16,
    },
    /// The answer leads on more often than is followed.
    #[error("the answer is the end of more than {0} redirects")]
    Redirects(u8),
    /// The answer leads on, and the call that it asks for may not go now.
    #[error("the redirect was not followed: {why}")]
    Held {
        /// What the gateway answers because of it.
        refusal: Refusal,
        /// Why not.
        why: String,
    },
    /// What came is not an HTTP answer.
    #[error("what came is not an HTTP answer: {0}")]
    Malformed(String),
    /// The call itself cannot be sent.
    #[error("the call cannot be sent: {0}")]
    Unsendable(&'static str),
}

impl Reason {
    /// A word of a small list, for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Dial(DialError::Unresolved { .. }) => "dns",
            Self::Dial(DialError::Forbidden { .. }) => "address_forbidden",
            Self::Egress(_) | Self::Dial(DialError::Egress(_)) => "egress",
            Self::Connect(_) => "connect",
            Self::Untrusted(_) | Self::NoRoots => "untrusted",
            Self::Tls(_) => "tls",
            Self::Timeout(Phase::Connect) => "timeout_connect",
            Self::Timeout(Phase::Response) => "timeout_response",
            Self::Timeout(Phase::Idle) => "timeout_idle",
            Self::Timeout(Phase::Total) => "timeout_total",
            Self::Reset => "reset",
            Self::TooLarge { .. } => "too_large",
            Self::NoRoom | Self::Unread { .. } => "no_room",
            Self::Redirects(_) => "redirects",
            Self::Held { .. } => "redirect_held",
            Self::Malformed(_) => "malformed",
            Self::Unsendable(_) => "unsendable",
        }
    }
}

impl Failure {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match &self.reason {
            Reason::Dial(error) => error.refusal(),
            Reason::Egress(_) => Refusal::EgressFailed,
            Reason::Connect(_) | Reason::Tls(_) | Reason::Reset => Refusal::ServiceUnreachable,
            Reason::Untrusted(_) | Reason::NoRoots => Refusal::ServiceUntrusted,
            Reason::Timeout(_) => Refusal::ServiceTimeout,
            Reason::TooLarge { .. } | Reason::Unread { .. } | Reason::Redirects(_) | Reason::Malformed(_) => {
                Refusal::ServiceAnswerInvalid
            }
            Reason::NoRoom => Refusal::Unavailable,
            Reason::Held { refusal, .. } => *refusal,
            Reason::Unsendable(_) => Refusal::DefinitionFailed,
        }
    }

    /// Whether the other side was not asked at all, because there was no room for its answer.
    pub const fn was_held(&self) -> bool {
        matches!(self.reason, Reason::NoRoom)
    }

    /// Whether the same call may fare better later. Whether it may be sent again at all is another
    /// question: see [`Self::sent`].
    pub fn passing(&self) -> bool {
        match &self.reason {
            Reason::Dial(DialError::Forbidden { .. })
            | Reason::TooLarge { .. }
            | Reason::Unread { .. }
            | Reason::Unsendable(_) => false,
            Reason::Dial(DialError::Unresolved { .. } | DialError::Egress(_))
            | Reason::Egress(_)
            | Reason::Connect(_)
            | Reason::Untrusted(_)
            | Reason::NoRoots
            | Reason::Tls(_)
            | Reason::Timeout(_)
            | Reason::Reset
            | Reason::NoRoom
            | Reason::Redirects(_)
            | Reason::Held { .. }
            | Reason::Malformed(_) => true,
        }
    }
}

/// What the client's error means: why, and whether anything was sent.
/// `through` says whether it went through the egress proxy, whose failures are not the service's.
pub(super) fn classify(error: &reqwest::Error, through: Through) -> (Reason, Sent) {
    let causes = causes(error);
    if let Some(dial) = causes.iter().find_map(|cause| cause.downcast_ref::<DialError>()) {
        return (Reason::Dial(dial.clone()), Sent::Nothing);
    }
    // A handshake that fails does so before a byte of the call is written.
    if let Some(tls) = causes.iter().find_map(|cause| tls_error(*cause)) {
        return (tls_reason(tls), if error.is_connect() { Sent::Nothing } else { Sent::Maybe });
    }
    if error.is_connect() && through == Through::Proxy && !error.is_timeout() {
        return (Reason::Egress(tunnel_words(&causes)), Sent::Nothing);
    }
    if error.is_connect() {
        let reason = if error.is_timeout() { Reason::Timeout(Phase::Connect) } else { Reason::Connect(words(&causes)) };
        return (reason, Sent::Nothing);
    }
    if error.is_builder() {
        return (Reason::Unsendable("its URL or headers are not valid"), Sent::Nothing);
    }
    let parse = causes.iter().filter_map(|cause| cause.downcast_ref::<hyper::Error>()).find(|error| error.is_parse());
    match parse {
        Some(parse) => (Reason::Malformed(parse.to_string()), Sent::Maybe),
        None => (Reason::Reset, Sent::Maybe),
    }
}

fn causes(error: &reqwest::Error) -> Vec<&(dyn StdError + 'static)> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    causes
}

/// The TLS library's error, which the I/O errors that carry it do not name as their cause.
fn tls_error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    match cause.downcast_ref::<io::Error>() {
        Some(carrier) => tls_error(carrier.get_ref()?),
        None => cause.downcast_ref(),
    }
}

fn tls_reason(error: &rustls::Error) -> Reason {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Reason::Untrusted(error.to_string())
        }
        _ => Reason::Tls(error.to_string()),
    }
}

/// Whether a call goes straight to its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    /// It does.
    Nothing,
    /// It goes through the egress proxy.
    Proxy,
}

/// What the HTTP library says of a tunnel; its type for that is not for others to name.
fn tunnel_words(causes: &[&(dyn StdError + 'static)]) -> String {
    let told = causes.iter().map(ToString::to_string).find(|text| text.starts_with("tunnel error: "));
    match told.as_deref() {
        Some("tunnel error: proxy authorization required") => "it wants other credentials (407)".to_owned(),
        Some("tunnel error: unsuccessful") => "it refused to connect".to_owned(),
        _ => words(causes),
    }
}

/// The operating system's words, which name no address of ours.
fn words(causes: &[&(dyn StdError + 'static)]) -> String {
    let io = causes.iter().rev().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.map_or_else(|| "the other side does not accept it".to_owned(), |error| error.kind().to_string())
}
