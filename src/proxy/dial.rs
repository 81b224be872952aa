//! How a connection to a service is made: to the first of its addresses that answers, or through the egress
//! proxy. TLS on top of it is Pingora's. Called by Pingora, for [`super::peer`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType};
use tokio::net::TcpStream;

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
#[derive(Debug)]
pub struct Dial {
    route: Route,
    /// `HOST:PORT` as a proxy is asked for it.
    target: String,
    /// The addresses in the order to try them; not empty.
    order: Vec<SocketAddr>,
    last: Arc<Last>,
    limit: Duration,
}

impl Dial {
    /// The way by `route` to `target`, at the try of this number, within `limit`. The first try begins with the
    /// address that answered last.
    pub fn new(route: &Route, target: String, (number, last): (usize, &Arc<Last>), limit: Duration) -> Self {
        let mut order = route.addresses().at_try(number);
        let known = last.get().and_then(|last| order.iter().position(|address| *address == last));
        if let (0, Some(place)) = (number, known) {
            order.swap(0, place);
        }
        Self { route: route.clone(), target, order, last: Arc::clone(last), limit }
    }

    /// The address that is tried first.
    pub fn first(&self) -> SocketAddr {
        self.order.first().copied().unwrap_or_else(|| self.route.addresses().first())
    }

    async fn establish(&self) -> pingora::Result<Stream> {
        let stream = match &self.route {
            Route::Direct(_) => connect(&self.order).await.or_else(refused)?,
            Route::Through(_, proxy) => {
                let opened = async {
                    let unreachable = |error: std::io::Error| EgressError::Unreachable(error.kind().to_string());
                    let mut stream = connect(&self.order).await.map_err(unreachable)?;
                    tunnel::open(&mut stream, proxy, &self.target).await.map(|()| stream)
                };
                let failed = |error| Error::because(ErrorType::Custom(EGRESS), "through the egress proxy", error);
                opened.await.map_err(|error| failed(error).into_up())?
            }
        };
        self.last.set(&stream);
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
