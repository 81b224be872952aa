//! How Pingora dials a service: an address that was checked, every time limit set, verification on.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;

use super::Call;
use super::dial::Dial;
use crate::net::{Route, Scheme};

/// Streams of one HTTP/2 connection to a service at once.
const STREAMS: usize = 100;
/// How long a connection may lie in the pool. Services close idle ones after a minute or more; one that
/// is closed while a request is on its way to it makes an error.
const POOLED: Duration = Duration::from_secs(45);
/// Added to the limit per read, which is only the second line of defence: the client's connection keeps
/// the exact ones.
const SLACK: Duration = Duration::from_secs(5);
/// The same over HTTP/2, where the limit begins with the request's head: the longest body that goes this way
/// ([`super::context::SHORT`]) takes so long at the least rate that a client may send at.
const SLACK_H2: Duration = Duration::from_secs(75);

/// The peer to dial for a call by a route.
///
/// `number` counts the tries from zero, and `connect` bounds what it takes to connect, TLS included. `http_one`
/// keeps to HTTP/1.1, as WebSocket needs.
pub fn peer(
    (call, route): (&Call, &Route),
    number: usize,
    connect: Duration,
    http_one: bool,
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
    let slack = if http_one { SLACK } else { SLACK_H2 };
    options.read_timeout = Some(timeouts.response.max(timeouts.idle) + slack);
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = Some(POOLED);
    options.max_h2_streams = STREAMS;
    options.alpn = if http_one || !tls { ALPN::H1 } else { ALPN::H2H1 };
    options.ca.clone_from(&ready.ca);
    peer.client_cert_key.clone_from(&ready.identity);
    peer
}
