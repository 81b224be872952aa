//! What a failed call is called: Pingora's errors to refusals, each distinguishable.
//!
//! Internal text never leaves; the answer names the service's host and what happened. A service's own
//! error answers are not errors here and pass untouched.

use http::{HeaderName, HeaderValue};
use pingora::{Error, ErrorSource, ErrorType};

use super::watch::Overdue;
use crate::net::DialError;
use crate::net::tunnel::EgressError;
use crate::respond::{Answer, Refusal};

/// RFC 9209.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What went wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The answer's kind.
    pub refusal: Refusal,
    /// The label in metrics.
    pub reason: &'static str,
    /// RFC 9209's error type.
    error: &'static str,
    detail: &'static str,
}

impl Failure {
    const fn new(refusal: Refusal, reason: &'static str, error: &'static str, detail: &'static str) -> Self {
        Self { refusal, reason, error, detail }
    }

    /// The answer, about a service's host.
    pub fn answer(&self, host: &str) -> Answer {
        let status = format!("trunkline; error={}", self.error);
        let answer = self.refusal.answer(&format!("{host}: {}", self.detail));
        match HeaderValue::from_str(&status) {
            Ok(value) => answer.with(PROXY_STATUS, value),
            Err(_) => answer,
        }
    }
}

/// What a host that cannot be dialled means.
pub fn of_dialling(error: &DialError) -> Failure {
    match error {
        DialError::Unresolved { .. } => {
            Failure::new(Refusal::ServiceUnresolved, "dns", "dns_error", "the name could not be resolved")
        }
        DialError::Egress(_) => egress("the egress proxy has no usable address"),
        DialError::Forbidden { .. } => Failure::new(
            Refusal::AddressForbidden,
            "address_forbidden",
            "destination_ip_prohibited",
            "the address is not one the gateway may dial",
        ),
    }
}

/// What a failed call means; `None` when the caller is gone and there is nobody to answer.
pub fn of_call(error: &Error, overdue: Option<Overdue>) -> Option<Failure> {
    match overdue {
        Some(Overdue::Service) => return Some(silent()),
        Some(Overdue::ClientSending) => {
            let detail = "the request's body arrived too slowly";
            return Some(Failure::new(Refusal::RequestTimeout, "client_slow", "http_request_error", detail));
        }
        Some(Overdue::Malformed) => return Some(malformed()),
        Some(Overdue::ClientReading | Overdue::Flood) => return None,
        None => {}
    }
    if error.etype == ErrorType::Custom(super::sign::UNSIGNED) {
        let detail = "the call could not be signed, or given a header that is made anew for each, with what the connection \
                      has; a call of an endpoint by its name says which";
        return Some(Failure::new(Refusal::ConnectionUnusable, "unsigned", "proxy_internal_error", detail));
    }
    if error.etype == ErrorType::Custom(super::pages::BROKEN) {
        let detail = "a later page failed";
        return Some(Failure::new(Refusal::PagesEnded, "pages", "http_response_incomplete", detail));
    }
    if error.etype == ErrorType::Custom(super::dial::EGRESS) {
        let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<EgressError>());
        return Some(match cause {
            Some(EgressError::Unauthorized) => egress("the egress proxy wants other credentials"),
            Some(EgressError::Refused(_)) => egress("the egress proxy refused to connect, or could not"),
            Some(EgressError::Malformed) => egress("the egress proxy's answer cannot be read"),
            Some(EgressError::Unreachable(_)) | None => egress("the egress proxy cannot be reached"),
        });
    }
    match error.esource {
        ErrorSource::Upstream => Some(of_service(error)),
        ErrorSource::Downstream => of_caller(error),
        ErrorSource::Internal | ErrorSource::Unset => Some(of_unset(error)),
    }
}

fn egress(detail: &'static str) -> Failure {
    Failure::new(Refusal::EgressFailed, "egress", "destination_unavailable", detail)
}

fn silent() -> Failure {
    let detail = "the service did not answer in time";
    Failure::new(Refusal::ServiceTimeout, "response_timeout", "http_response_timeout", detail)
}

fn of_service(error: &Error) -> Failure {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, H1Error, H2Downgrade, H2Error,
        HandshakeError, InvalidCert, InvalidH2, InvalidHTTPHeader, ReadError, ReadTimedout, SocketError,
        TLSHandshakeFailure, TLSHandshakeTimedout, WriteError, WriteTimedout,
    };
    let unreachable = |reason, error, detail| Failure::new(Refusal::ServiceUnreachable, reason, error, detail);
    match error.etype {
        ConnectTimedout | TLSHandshakeTimedout => {
            let detail = "no connection could be made in time";
            Failure::new(Refusal::ServiceTimeout, "connect_timeout", "connection_timeout", detail)
        }
        ConnectRefused => unreachable("refused", "connection_refused", "the connection was refused"),
        ConnectNoRoute => unreachable("no_route", "destination_ip_unroutable", "there is no route to the service"),
        ConnectError | SocketError => unreachable("connect", "connection_refused", "no connection could be made"),
        TLSHandshakeFailure | HandshakeError | InvalidCert if is_untrusted(error) => {
            let detail = "the service's certificate is not trusted for this name";
            Failure::new(Refusal::ServiceUntrusted, "untrusted", "tls_certificate_error", detail)
        }
        TLSHandshakeFailure | HandshakeError | InvalidCert => {
            unreachable("tls", "tls_protocol_error", "the TLS handshake failed")
        }
        ReadTimedout | WriteTimedout => silent(),
        ConnectionClosed | ReadError | WriteError => {
            unreachable("reset", "connection_terminated", "the service broke off before it had answered")
        }
        InvalidHTTPHeader | H1Error | H2Error | H2Downgrade | InvalidH2 => {
            let detail = "the service's answer is not well-formed HTTP";
            Failure::new(Refusal::ServiceAnswerInvalid, "bad_answer", "http_protocol_error", detail)
        }
        _ => unreachable("other", "connection_terminated", "the call failed"),
    }
}

/// The chain of causes ends in rustls, whose words for a certificate it does not accept are these.
fn is_untrusted(error: &Error) -> bool {
    matches!(error.etype, ErrorType::InvalidCert) || error.to_string().contains("invalid peer certificate")
}

fn of_caller(error: &Error) -> Option<Failure> {
    match error.etype {
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => None,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => {
            let detail = "the request's body stopped arriving";
            Some(Failure::new(Refusal::RequestTimeout, "client_slow", "http_request_error", detail))
        }
        _ => Some(malformed()),
    }
}

fn malformed() -> Failure {
    let detail = "the request is not well-formed";
    Failure::new(Refusal::MalformedRequest, "client_malformed", "http_request_error", detail)
}

/// Connecting is not marked as the service's doing by all of Pingora's layers.
fn of_unset(error: &Error) -> Failure {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, HandshakeError, InvalidCert,
        TLSHandshakeFailure, TLSHandshakeTimedout,
    };
    match error.etype {
        ConnectError | ConnectNoRoute | ConnectRefused | ConnectTimedout | HandshakeError | InvalidCert
        | TLSHandshakeFailure | TLSHandshakeTimedout => of_service(error),
        _ => Failure::new(Refusal::Internal, "internal", "proxy_internal_error", "the gateway failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_own_name() {
        let of = |etype: ErrorType| of_call(&Error::new_up(etype), None).map(|failure| failure.reason);
        let reasons = [
            ErrorType::ConnectTimedout,
            ErrorType::ConnectRefused,
            ErrorType::ConnectNoRoute,
            ErrorType::InvalidCert,
            ErrorType::TLSHandshakeFailure,
            ErrorType::ReadTimedout,
            ErrorType::ConnectionClosed,
            ErrorType::InvalidHTTPHeader,
        ]
        .map(of);
        let expected =
            ["connect_timeout", "refused", "no_route", "untrusted", "tls", "response_timeout", "reset", "bad_answer"];
        assert_eq!(reasons, expected.map(Some));
    }

    #[test]
    fn nobody_is_answered_when_the_caller_is_gone() {
        assert_eq!(of_call(&Error::new_down(ErrorType::ConnectionClosed), None), None);
        let slow = of_call(&Error::new_down(ErrorType::ReadError), Some(Overdue::Service));
        assert_eq!(slow.map(|failure| failure.refusal), Some(Refusal::ServiceTimeout));
    }
}
