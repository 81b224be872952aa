//! The accept loop of a door, and its end.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use pingora::apps::HttpServerApp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caps::{Doorkeeper, Speaks};
use super::connection::DoorContext;
use super::greet::Greeter;
use super::listen::{Address, Listener};
use super::tls::Certificates;
use crate::proxy::socket::Socket;

/// Pauses after a failed accept: the first, and the longest. Without file descriptors the loop would
/// otherwise spin.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A door at which someone answers. Dropping it does not close the door; [`Running::drain`] does.
#[derive(Debug)]
pub struct Running {
    address: Address,
    stop: watch::Sender<bool>,
    cut: CancellationToken,
    connections: TaskTracker,
    accepting: JoinHandle<()>,
    keeper: Doorkeeper,
    certificates: Option<Arc<Certificates>>,
}

/// How a door was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because their request did not end in time.
    pub cut: usize,
}

impl Running {
    /// Where the door can be reached.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the door shows in TLS, where it speaks TLS.
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.keeper.open()
    }

    /// Closes the door: accepts no more, lets requests under way end within `grace`, then cuts the rest.
    pub async fn drain(self, grace: Duration) -> Drained {
        self.stop.send_replace(true);
        // The loop ends by itself; a panic in it has been logged by the runtime's hook.
        drop(self.accepting.await);
        self.connections.close();
        if tokio::time::timeout(grace, self.connections.wait()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = self.connections.len();
        self.cut.cancel();
        self.connections.wait().await;
        Drained { cut }
    }
}

/// Starts to accept.
pub(super) fn run<A: HttpServerApp + Send + Sync + 'static>(listener: Listener, door: DoorContext<A>) -> Running {
    let (stop, drain) = watch::channel(false);
    let certificates = Certificates::of(door.door, &door.shared);
    let address = listener.address().clone().secured(certificates.is_some());
    let speaks = if certificates.is_some() { Speaks::Tls } else { Speaks::Plain };
    let keeper = Doorkeeper::new((door.door, door.name), door.shared.clone(), speaks);
    let (cut, connections) = (CancellationToken::new(), TaskTracker::new());
    let entrance = Entrance {
        greeter: Arc::new(Greeter { door, keeper: keeper.clone(), certificates: certificates.clone() }),
        drain,
        cut: cut.clone(),
        connections: connections.clone(),
    };
    let accepting = tokio::spawn(entrance.accept_all(listener));
    Running { address, stop, cut, connections, accepting, keeper, certificates }
}

struct Entrance<A> {
    greeter: Arc<Greeter<A>>,
    drain: watch::Receiver<bool>,
    cut: CancellationToken,
    connections: TaskTracker,
}

impl<A: HttpServerApp + Send + Sync + 'static> Entrance<A> {
    async fn accept_all(mut self, listener: Listener) {
        let mut pause = PAUSE.0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.drain.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok(socket) => {
                    pause = PAUSE.0;
                    self.let_in(socket);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(door = self.greeter.door.name, "connections cannot be accepted: {error}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    fn let_in(&self, socket: Socket) {
        let door = &self.greeter.door;
        let gateway = Arc::clone(&door.shared.live.load().gateway);
        let peer = socket.peer();
        // A load balancer's connections are counted when it has said whose they are.
        let announced = self.greeter.is_announced(peer, &gateway);
        let source = peer.filter(|_| door.counts_sources() && !announced);
        let Some(place) = self.greeter.keeper.admit(&socket, source) else { return };
        let (greeter, drain, cut) = (Arc::clone(&self.greeter), self.drain.clone(), self.cut.clone());
        self.connections.spawn(async move {
            let serving = AssertUnwindSafe(greeter.receive(socket, place, drain)).catch_unwind();
            let panicked = tokio::select! {
                served = serving => served.is_err(),
                () = cut.cancelled() => false,
            };
            if panicked {
                tell_of_panic(&greeter.door);
            }
        });
    }
}

fn tell_of_panic<A>(door: &DoorContext<A>) {
    door.shared.metrics.panics.with_label_values(&[door.name]).inc();
    tracing::error!(door = door.name, "a request ended in a panic; its connection was closed");
}

/// Whether a failed accept is the fault of the one connection that was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected | InvalidInput)
}
