//! Connections of the admin door: bounded in time. How many there may be, and which heads are let in, is decided
//! where they come from ([`Entrance`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Source;

/// How long a head may take, and a connection may wait for its next one.
const HEAD: Duration = Duration::from_secs(10);
/// Bytes that are held of a request before it is looked at. Heads have bounds of their own (`limits.header_bytes`,
/// `limits.header_fields`) before they come here.
const BUFFER: usize = 64 << 10;
/// Fields of a head: the most that `limits.header_fields` may be.
const FIELDS: usize = 256;
/// How long to wait after a failed accept; without file descriptors the loop would spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where connections come from.
#[async_trait]
pub trait Entrance: Send + Sync + 'static {
    /// What is accepted before it can be talked over; dropped, it is closed.
    type Accepted: Send;

    /// The next connection of those that may come in.
    ///
    /// # Errors
    /// As accept(2).
    async fn accept(&self) -> io::Result<Self::Accepted>;

    /// Makes it one that can be talked over, which may take some talking itself.
    ///
    /// # Errors
    /// When the other side does not take part.
    async fn open(&self, accepted: Self::Accepted) -> io::Result<(Box<dyn Io>, Source)>;
}

/// A door at which the router answers.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    connections: TaskTracker,
    accepting: JoinHandle<()>,
}

impl Running {
    /// Closes the door: accepts no more, lets answers under way end within `grace`.
    pub async fn drain(self, grace: Duration) {
        self.stop.cancel();
        // The loop ends by itself; a panic in it has been logged by the process's hook.
        drop(self.accepting.await);
        self.connections.close();
        drop(tokio::time::timeout(grace, self.connections.wait()).await);
    }
}

/// Starts to answer. Must be called within the runtime.
pub fn serve(entrance: impl Entrance, router: Router) -> Running {
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    let accepting = tokio::spawn(accept_all(entrance, router, stop.clone(), connections.clone()));
    Running { stop, connections, accepting }
}

async fn accept_all(entrance: impl Entrance, router: Router, stop: CancellationToken, connections: TaskTracker) {
    let entrance = Arc::new(entrance);
    loop {
        let accepted = tokio::select! {
            accepted = entrance.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(door = "admin", "a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (entrance, router, stop) = (Arc::clone(&entrance), router.clone(), stop.clone());
        connections.spawn(async move {
            match tokio::time::timeout(HEAD, entrance.open(accepted)).await {
                Ok(Ok((stream, source))) => converse(stream, router.layer(Extension(source)), stop).await,
                Ok(Err(error)) => tracing::debug!(door = "admin", "a connection was not opened: {error}"),
                Err(_elapsed) => tracing::debug!(door = "admin", "a connection was not opened in time"),
            }
        });
    }
}

async fn converse(stream: Box<dyn Io>, router: Router, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER).max_headers(FIELDS);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(door = "admin", "a connection ended early: {error}");
    }
}
