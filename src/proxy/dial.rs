//! How a connection to a service is made: to the first of its addresses that answers, or through the egress
//! proxy. TLS on top of it is Pingora's. Called by Pingora, for [`super::peer`].

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType};
use tokio::net::TcpStream;

use super::ready::Ready;
use crate::net::Route;
use crate::net::connect::connect;
use crate::net::tunnel::{self, EgressError};

/// The error type of a proxy that did not lead on.
pub const EGRESS: &str = "EgressFailed";

/// The address that answered last. Pingora keeps a connection under the address it was told, and uses it again
/// only when it really leads there: so it is told this one the next time.
#[derive(Debug, Default)]
pub struct Last(Mutex<Option<SocketAddr>>);

impl Last {
    fn get(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, stream: &TcpStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream.peer_addr().ok();
    }
}

/// A way to a service, for one try.
pub struct Dial {
    route: Route,
    /// Whose origin it leads to, and where that answered last.
    ready: Arc<Ready>,
    /// The try, counted from zero.
    number: usize,
    /// The address that is tried first.
    first: SocketAddr,
    limit: Duration,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial").field("route", &self.route).field("first", &self.first).finish_non_exhaustive()
    }
}

impl Dial {
    /// The way by `route` at the try of this number, within `limit`. The first try begins with the address that
    /// answered last. Most ways are never gone, since a connection of the pool is used: so little is made here.
    pub fn new(route: &Route, ready: &Arc<Ready>, number: usize, limit: Duration) -> Self {
        let addresses = route.addresses();
        let known = ready.last.get().filter(|last| number == 0 && addresses.iter().any(|address| address == *last));
        let first = known.unwrap_or_else(|| addresses.nth(number));
        Self { route: route.clone(), ready: Arc::clone(ready), number, first, limit }
    }

    /// The address that is tried first.
    pub fn first(&self) -> SocketAddr {
        self.first
    }

    /// The addresses in the order to try them; not empty.
    fn order(&self) -> Vec<SocketAddr> {
        let mut order = self.route.addresses().at_try(self.number);
        if let Some(place) = order.iter().position(|address| *address == self.first) {
            order.swap(0, place);
        }
        order
    }

    async fn establish(&self) -> pingora::Result<Stream> {
        let order = self.order();
        let stream = match &self.route {
            Route::Direct(_) => connect(&order).await.or_else(refused)?,
            Route::Through(_, proxy) => {
                let opened = async {
                    let unreachable = |error: std::io::Error| EgressError::Unreachable(error.kind().to_string());
                    let mut stream = connect(&order).await.map_err(unreachable)?;
                    let origin = &self.ready.common.base.origin;
                    let target = format!("{}:{}", origin.host, origin.port);
                    tunnel::open(&mut stream, proxy, &target).await.map(|()| stream)
                };
                let failed = |error| Error::because(ErrorType::Custom(EGRESS), "through the egress proxy", error);
                opened.await.map_err(|error| failed(error).into_up())?
            }
        };
        self.ready.last.set(&stream);
        Ok(stream.into())
    }
}

fn refused(error: std::io::Error) -> pingora::Result<TcpStream> {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    let kind = match error.kind() {
        ConnectionRefused => ErrorType::ConnectRefused,
        HostUnreachable | NetworkUnreachable => ErrorType::ConnectNoRoute,
        _ => ErrorType::ConnectError,
    };
    Err(Error::because(kind, "while connecting", error).into_up())
}

#[async_trait]
impl pingora::connectors::L4Connect for Dial {
    async fn connect(&self, _address: &PeerAddress) -> pingora::Result<Stream> {
        let established = tokio::time::timeout(self.limit, self.establish()).await;
        established.unwrap_or_else(|_elapsed| {
            Err(Error::explain(ErrorType::ConnectTimedout, "no connection in time").into_up())
        })
    }
}
