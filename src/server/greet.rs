//! What comes before the first request of a connection: who it is from, and TLS.
//!
//! Both must be done within the time that a head has. Called by [`super::accept`].

use std::net::IpAddr;
use std::sync::Arc;

use pingora::apps::HttpServerApp;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::caps::{Doorkeeper, Full, Place};
use super::connection::{DoorContext, serve};
use super::proxy_protocol::{self, Announced};
use super::tls::Certificates;
use crate::definition::plan::gateway::Gateway;
use crate::proxy::socket::{Channel, Socket};
use crate::proxy::stream::DoorStream;

/// A door's way from a socket to a conversation.
pub(super) struct Greeter<A> {
    /// The door.
    pub door: DoorContext<A>,
    /// What counts its connections.
    pub keeper: Doorkeeper,
    /// What it shows; `None` where it speaks plain HTTP.
    pub certificates: Option<Arc<Certificates>>,
}

/// Why a connection ended before its first request; the label in metrics.
type Broken = &'static str;

impl<A: HttpServerApp + Send + Sync + 'static> Greeter<A> {
    /// Whether a peer's connections begin with a PROXY protocol header.
    pub fn is_announced(&self, peer: Option<IpAddr>, gateway: &Gateway) -> bool {
        let trusted = &gateway.doors.get(self.door.door).proxy_protocol;
        peer.is_some_and(|peer| trusted.iter().any(|network| network.contains(peer)))
    }

    /// Serves a connection from its first byte to its end.
    pub async fn receive(&self, mut socket: Socket, place: Place, drain: watch::Receiver<bool>) {
        let gateway = Arc::clone(&self.door.shared.live.load().gateway);
        let limit = gateway.limits.header_timeout;
        let greeted = tokio::time::timeout(limit, async {
            let (source, place) = self.source(&mut socket, place, &gateway).await?;
            Ok((self.channel(socket).await?, source, place))
        });
        let (channel, source, place) = match greeted.await.unwrap_or(Err("timeout")) {
            Ok(greeted) => greeted,
            Err("source") => return self.keeper.turned_away(Full::Source),
            Err(reason) => return self.broken(reason),
        };
        let clock = Arc::clone(&self.door.shared.clock);
        let stream = DoorStream::new(channel, source, gateway.limits.min_body_rate, clock);
        drop(gateway);
        serve(&self.door, stream, drain).await;
        drop(place);
    }

    async fn source(
        &self,
        socket: &mut Socket,
        place: Place,
        gateway: &Gateway,
    ) -> Result<(Option<IpAddr>, Place), Broken> {
        let peer = socket.peer();
        if !self.is_announced(peer, gateway) {
            return Ok((peer, place));
        }
        match proxy_protocol::read(socket).await.map_err(|_| "proxy_protocol")? {
            Announced::Itself => Ok((peer, place)),
            Announced::Client(client) if self.door.counts_sources() => Ok((
                Some(client),
                place.of(client, gateway.limits.connections_at(self.door.door)).map_err(Full::as_str)?,
            )),
            Announced::Client(client) => Ok((Some(client), place)),
        }
    }

    async fn channel(&self, socket: Socket) -> Result<Channel, Broken> {
        let Some(certificates) = &self.certificates else { return Ok(Channel::Plain(socket)) };
        let config = certificates.config().ok_or("tls")?;
        let stream = TlsAcceptor::from(config).accept(socket).await.map_err(|_| "tls")?;
        Ok(Channel::Tls(Box::new(stream)))
    }

    fn broken(&self, reason: &'static str) {
        self.door.shared.metrics.door_connections_broken.with_label_values(&[self.door.name, reason]).inc();
        tracing::debug!(door = self.door.name, reason, "a connection ended before its first request: {reason}");
    }
}
