//! How Pingora dials a service: an address that was checked, every time limit set, verification on.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::ALPN;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;

use super::Call;
use super::context::{is_http_1_0, is_websocket};
use super::dial::Dial;
use super::intake::declared_length;
use crate::definition::plan::api::HttpVersions;
use crate::net::{Route, Scheme};

/// Streams of one HTTP/2 connection to a service at once.
const STREAMS: usize = 100;
/// How long a connection may lie in the pool. Services close idle ones after a minute or more; one that
/// is closed while a request is on its way to it makes an error.
const POOLED: Duration = Duration::from_secs(45);
/// Added to the limit per read, which is only the second line of defence: the client's connection keeps
/// the exact ones.
const SLACK: Duration = Duration::from_secs(5);
/// The longest body that goes over HTTP/2 where there is a choice: as long as what a service takes without a word, so
/// that nothing of it waits.
const SHORT: u64 = 64 << 10;
/// What a client may send at its own pace before the least rate counts, in seconds.
const LENIENT: u64 = 10;
/// How long an upload may take to a service that speaks HTTP/2 only.
const UPLOAD: Duration = Duration::from_hours(1);

/// What is offered to a service for one call.
pub struct Offer {
    alpn: ALPN,
    /// Added to the limit per read. Of an HTTP/2 request Pingora bounds the time from its head to the answer's, the body
    /// between them included; of HTTP/1.1 each wait.
    slack: Duration,
}

impl Offer {
    /// What carries a call as it should: WebSocket and HTTP/1.0 stay what they are, and only in HTTP/1.1 an upload takes as
    /// long as it makes progress. `distrusted` is a service whose HTTP/2 was at fault.
    pub fn of(call: &Call, session: &Session, distrusted: bool) -> Self {
        let is_long = declared_length(session).is_none_or(|length| length > SHORT);
        let is_old = is_websocket(session) || is_http_1_0(session);
        let rate = call.generation.gateway.limits.min_body_rate.max(1);
        let short = Duration::from_secs(LENIENT + SHORT.div_ceil(rate));
        match call.ready.http {
            HttpVersions::Two if !is_old => Self { alpn: ALPN::H2, slack: if is_long { UPLOAD } else { short } },
            HttpVersions::Best if !(distrusted || is_long || is_old) => Self { alpn: ALPN::H2H1, slack: short },
            _ => Self { alpn: ALPN::H1, slack: SLACK },
        }
    }
}

/// The peer to dial for a call by a route.
///
/// `number` counts the tries from zero, and `connect` bounds what it takes to connect, TLS included.
pub fn peer(
    (call, route): (&Call, &Route),
    number: usize,
    connect: Duration,
    offer: Offer,
    redirected: bool,
) -> HttpPeer {
    let (ready, origin) = (&call.ready, &call.ready.common.base.origin);
    let dial = Dial::new(route, ready, number, connect);
    let address = dial.first();
    let tls = origin.scheme == Scheme::Https && !redirected;
    // Verification is by this name; Pingora turns it off when the name is empty, which no base is.
    let name = if tls { origin.host.trim_start_matches('[').trim_end_matches(']') } else { "" };
    let mut peer = HttpPeer::new(address, tls, name.to_owned());
    peer.group_key = ready.pool;
    let (timeouts, options) = (&ready.timeouts, &mut peer.options);
    options.custom_l4 = Some(Arc::new(dial));
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    options.read_timeout = Some(timeouts.response.max(timeouts.idle) + offer.slack);
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = Some(POOLED);
    options.max_h2_streams = STREAMS;
    options.alpn = if tls { offer.alpn } else { ALPN::H1 };
    options.ca.clone_from(&ready.ca);
    peer.client_cert_key.clone_from(&ready.identity);
    peer
}
