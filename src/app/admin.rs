//! The admin door's two joints: connections from `server`'s listener, reloads from `reload`.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio_rustls::TlsAcceptor;

use crate::admin::serve::{Entrance, Io};
use crate::admin::{self, Parts, Reload, Reloaded, Source};
use crate::definition::live::Live;
use crate::definition::render::Report;
use crate::page;
use crate::proxy::socket::Socket;
use crate::reload::{ReloadResult, Reloader};
use crate::server::source;
use crate::server::tls::Certificates;
use crate::server::{Address, Listener};

/// The admin door, answering.
#[derive(Debug)]
pub struct AdminDoor {
    /// Where it can be reached.
    pub address: Address,
    /// Its connections.
    pub running: admin::serve::Running,
    /// What it shows in TLS, where it speaks TLS.
    pub certificates: Option<Arc<Certificates>>,
}

/// Begins to answer.
pub fn serve(listener: Listener, parts: Parts, certificates: Option<Arc<Certificates>>) -> AdminDoor {
    let address = listener.address().clone().secured(certificates.is_some());
    let parts = Arc::new(parts);
    let router = admin::router(Arc::clone(&parts), page::routes(&parts))
        .layer(middleware::from_fn_with_state(Arc::clone(&parts), page::for_people))
        .layer(middleware::from_fn_with_state(Arc::clone(&parts.live), behind_proxies));
    let running = admin::serve::serve(Sockets { listener, certificates: certificates.clone() }, router);
    AdminDoor { address, running, certificates }
}

/// Who a request comes from, where a trusted proxy says so.
async fn behind_proxies(State(live): State<Arc<Live>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Source>().and_then(|source| source.0);
    let gateway = Arc::clone(&live.load().gateway);
    if let Some(client) = source::behind(peer, request.headers(), &gateway.doors.admin.forwarded) {
        request.extensions_mut().insert(Source(Some(client)));
    }
    next.run(request).await
}

struct Sockets {
    listener: Listener,
    certificates: Option<Arc<Certificates>>,
}

#[async_trait]
impl Entrance for Sockets {
    type Accepted = Socket;

    async fn accept(&self) -> io::Result<Socket> {
        self.listener.accept().await
    }

    async fn open(&self, socket: Socket) -> io::Result<(Box<dyn Io>, Source)> {
        let source = Source(socket.peer());
        let Some(certificates) = &self.certificates else { return Ok((Box::new(socket), source)) };
        let config = certificates.config().ok_or_else(|| io::Error::other("there is no certificate to show"))?;
        Ok((Box::new(TlsAcceptor::from(config).accept(socket).await?), source))
    }
}

/// Reloads because someone asked for it.
pub struct ByHand(pub Arc<Reloader>);

#[async_trait]
impl Reload for ByHand {
    async fn reload(&self) -> Reloaded {
        match self.0.reload().await.result {
            ReloadResult::Applied => Reloaded::Applied,
            ReloadResult::Unchanged => Reloaded::Unchanged,
            ReloadResult::Rejected => Reloaded::Rejected,
        }
    }

    fn report(&self) -> Report {
        self.0.deployment().report()
    }
}
