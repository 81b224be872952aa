//! Which headers of a service's answer are for whoever asked.
//!
//! Called by the proxy door for what passes, and by the cache for what is kept.

use http::{HeaderName, header};

/// Whether a header of an answer is not for the caller: cookies (a caller is not the account's browser), offers
/// of other routes to the service, what belongs to one connection, and names that only the gateway may use.
/// `Connection` and the framing are not among them: they are for whoever writes the answer.
pub fn is_not_for_the_caller(name: &HeaderName) -> bool {
    matches!(*name, header::SET_COOKIE | header::ALT_SVC | header::STRICT_TRANSPORT_SECURITY | header::TRAILER)
        || matches!(name.as_str(), "set-cookie2" | "keep-alive" | "alt-used")
        || name.as_str().starts_with("trunkline-")
        || name.as_str().starts_with("proxy-")
}
