//! The admin door's joints: connections from `server`'s listener, reloads from `reload`, sessions that end with one.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio_rustls::TlsAcceptor;

use crate::admin::refusal::Refused;
use crate::admin::serve::{Entrance, Io};
use crate::admin::sign_in::SignIn;
use crate::admin::{self, Parts, Reload, Reloaded, Source};
use crate::base::clock::Timestamp;
use crate::definition::history::History;
use crate::definition::live::{Generation, Live};
use crate::definition::plan::gateway::DoorName;
use crate::definition::render::Report;
use crate::page;
use crate::proxy::socket::Socket;
use crate::reload::{Follow, ReloadResult, Reloader};
use crate::server::caps::{Doorkeeper, Place, Speaks};
use crate::server::guarded::{self, Guarded};
use crate::server::source;
use crate::server::tls::Certificates;
use crate::server::{Address, Listener, Shared};
use crate::telemetry::metrics::Metrics;

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
        .layer(middleware::from_fn_with_state(Arc::clone(&parts.live), behind_proxies))
        .layer(middleware::from_fn_with_state(Arc::clone(&parts.metrics), refuse_heads))
        .layer(middleware::map_response(admin::kept_from_other_sites));
    let live = Arc::clone(&parts.live);
    let shared =
        Shared { live: Arc::clone(&live), metrics: Arc::clone(&parts.metrics), clock: Arc::clone(&parts.clock) };
    let speaks = if certificates.is_some() { Speaks::Tls } else { Speaks::Plain };
    let keeper = Doorkeeper::new((DoorName::Admin, DoorName::Admin.as_str()), shared, speaks);
    let running = admin::serve::serve(Sockets { listener, certificates: certificates.clone(), keeper, live }, router);
    AdminDoor { address, running, certificates }
}

/// Ends the sessions of accounts that are not what they were, now and at each reload.
pub async fn end_sessions(sign_in: &Arc<SignIn>, reloader: &Reloader) {
    let sessions = Sessions(Arc::clone(sign_in));
    sessions.came(&reloader.live().load()).await;
    reloader.followed_by(Arc::new(sessions));
}

#[derive(Debug)]
struct Sessions(Arc<SignIn>);

#[async_trait]
impl Follow for Sessions {
    async fn came(&self, generation: &Generation) {
        match self.0.end_of_others(&generation.gateway.admin).await {
            Ok(0) => {}
            Ok(ended) => tracing::info!(admin.sessions = ended, "{ended} sessions ended: their accounts changed"),
            Err(error) => tracing::error!("sessions whose accounts changed may be there after a restart: {error}"),
        }
    }
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

/// Answers heads that were refused before they were read as a request ([`guarded`]).
async fn refuse_heads(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let Some((refusal, detail)) = guarded::refusal(request.headers()) else { return next.run(request).await };
    metrics.http_refusals.with_label_values(&["admin", refusal.code()]).inc();
    Refused::new(*refusal, detail).into_response()
}

struct Sockets {
    listener: Listener,
    certificates: Option<Arc<Certificates>>,
    keeper: Doorkeeper,
    live: Arc<Live>,
}

impl Sockets {
    /// The address that a connection counts for: none where a trusted proxy speaks for others.
    fn counted(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        let gateway = Arc::clone(&self.live.load().gateway);
        peer.filter(|peer| !gateway.doors.admin.forwarded.iter().any(|network| network.contains(*peer)))
    }
}

#[async_trait]
impl Entrance for Sockets {
    type Accepted = (Socket, Place);

    async fn accept(&self) -> io::Result<(Socket, Place)> {
        loop {
            let socket = self.listener.accept().await?;
            if let Some(place) = self.keeper.admit(&socket, self.counted(socket.peer())) {
                return Ok((socket, place));
            }
        }
    }

    async fn open(&self, (socket, place): (Socket, Place)) -> io::Result<(Box<dyn Io>, Source)> {
        let source = Source(socket.peer());
        let limits = self.live.load().gateway.limits;
        let Some(certificates) = &self.certificates else {
            return Ok((Box::new(Guarded::new(socket, limits, place)), source));
        };
        let config = certificates.config().ok_or_else(|| io::Error::other("there is no certificate to show"))?;
        let stream = TlsAcceptor::from(config).accept(socket).await?;
        Ok((Box::new(Guarded::new(stream, limits, place)), source))
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
            ReloadResult::Stalled => Reloaded::Stalled,
        }
    }

    fn report(&self) -> Report {
        self.0.deployment().report()
    }

    fn history(&self) -> Arc<History> {
        Arc::clone(self.0.history())
    }

    fn has_variable(&self, name: &str) -> bool {
        self.0.has_variable(name)
    }

    fn add_file(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        self.0.add_file(name, text)
    }

    fn stalled(&self) -> Option<Timestamp> {
        self.0.stalled()
    }
}
