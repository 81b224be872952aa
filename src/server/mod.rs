//! The doors of Pingora: who is let in, how long they may take, and how they are shown out.
//!
//! A door is a [`Listener`], an accept loop of our own on the program's one runtime, and a Pingora
//! application that answers: the proxy door's (room `proxy`) and the public door's ([`public`]). This
//! room knows nothing of what requests mean. Called by `app`.

mod accept;
pub mod caps;
mod connection;
mod greet;
pub mod guarded;
mod head;
pub mod hygiene;
mod listen;
pub mod proxy_protocol;
pub mod public;
pub mod source;
mod streams;
pub mod tls;

use std::sync::Arc;

use pingora::apps::HttpServerApp;
use pingora::proxy::{ProxyHttp, http_proxy};
use pingora::server::configuration::ServerConf;

use crate::base::clock::Clock;
use crate::connection::connect::door::Welcome;
use crate::definition::live::Live;
use crate::definition::plan::gateway::DoorName;
use crate::proxy::ProxyDoor;
use crate::proxy::retry::DIALS;
use crate::telemetry::metrics::Metrics;
use crate::webhook::door::Receive;

use connection::DoorContext;

pub use accept::{Drained, Running};
pub use listen::{Address, CannotListen, Listener};

/// What the doors share with the rest of the program.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The definitions in force.
    pub live: Arc<Live>,
    /// The program's metrics.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Idle connections to services that are kept in all.
const POOL: usize = 1024;

/// Opens the proxy door for callers. Must be called within the runtime.
pub fn open_proxy(listener: Listener, shared: Shared, door: Arc<ProxyDoor>) -> Running {
    let app = pingora_app(crate::proxy::forward::Forward::new(door));
    let door = DoorName::Proxy;
    let name = door.as_str();
    accept::run(
        listener,
        DoorContext { door, name, app, shared, upgrades: hygiene::Upgrades::WebSocket, requests: None },
    )
}

/// Opens the public door for services and browsers. Must be called within the runtime.
pub fn open_public(
    listener: Listener,
    shared: Shared,
    receiver: Arc<dyn Receive>,
    welcome: Arc<dyn Welcome>,
) -> Running {
    let app = pingora_app(public::PublicDoor::new(shared.clone(), receiver, welcome));
    let door = DoorName::Public;
    let name = door.as_str();
    // Anybody may begin a request here, and what it holds is more than what it sends.
    let requests = Some(Arc::default());
    accept::run(listener, DoorContext { door, name, app, shared, upgrades: hygiene::Upgrades::None, requests })
}

/// Opens a door for any Pingora application: for measurements against the doors above.
pub fn open_bare<P>(listener: Listener, shared: Shared, proxy: P) -> Running
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let (door, app) = (DoorName::Proxy, pingora_app(proxy));
    let upgrades = hygiene::Upgrades::WebSocket;
    accept::run(listener, DoorContext { door, name: "bare", app, shared, upgrades, requests: None })
}

fn pingora_app<P>(proxy: P) -> Arc<impl HttpServerApp + Send + Sync + 'static>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let conf =
        ServerConf { threads: 1, upstream_keepalive_pool_size: POOL, max_retries: DIALS, ..ServerConf::default() };
    Arc::new(http_proxy(&Arc::new(conf), proxy))
}
