//! The smallest Pingora proxy, to measure the proxy door against: one upstream, one header added.
//!
//! `bare_pingora loop LISTEN UPSTREAM` runs it on the doors' own accept loop; `bare_pingora server LISTEN
//! UPSTREAM` under Pingora's `Server` with one thread. Ends with the process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::upstreams::peer::HttpPeer;
use trunkline::base::clock::{SystemClock, Timestamp};
use trunkline::base::units::Reserve;
use trunkline::definition::live::{Generation, Live};
use trunkline::definition::plan::Fingerprint;
use trunkline::definition::plan::gateway::{Admin, Connect, Fixed, Gateway, KeySource, Limits, Listen, Mode, State};
use trunkline::server::{Listener, Shared, open_bare};
use trunkline::telemetry::metrics::Metrics;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        _context: &mut (),
    ) -> pingora::Result<()> {
        request.insert_header("authorization", "Bearer bench-api-key")
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &'static str| arguments.next().context(what);
    let (kind, listen, upstream) = (next("loop or server")?, next("an address")?, next("an upstream")?);
    let proxy = Bare(upstream.parse()?);
    match kind.as_str() {
        "server" => under_server(proxy, &listen),
        "loop" => on_our_loop(proxy, listen.parse()?),
        _ => anyhow::bail!("the first argument is `loop` or `server`"),
    }
}

fn under_server(proxy: Bare, listen: &str) -> anyhow::Result<()> {
    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}

fn on_our_loop(proxy: Bare, address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listen = Listen::Tcp(address);
        let listener = Listener::bind(&listen)?;
        let metrics = Arc::new(Metrics::new()?);
        let live = Arc::new(Live::new(nothing(&listen)?));
        let running = open_bare(listener, Shared { live, metrics, clock: Arc::new(SystemClock::default()) }, proxy);
        tokio::signal::ctrl_c().await?;
        running.drain(Duration::from_secs(1)).await;
        Ok(())
    })
}

/// A generation without definitions: only its limits count here.
fn nothing(listen: &Listen) -> anyhow::Result<Generation> {
    let fixed = Fixed {
        mode: Mode::Production,
        public: listen.clone(),
        proxy: listen.clone(),
        admin: listen.clone(),
        tls: Vec::new(),
        integrations: Vec::new(),
        state: State::Sled { path: PathBuf::new(), cache: 0, min_free: Reserve::Bytes(0), retention: Duration::ZERO },
        key: KeySource::Missing,
        previous: trunkline::definition::plan::gateway::PreviousKeys::default(),
        egress: trunkline::definition::plan::egress::Egress::default(),
        vault: None,
        trace: None,
        not_run: Vec::new(),
    };
    let gateway = Gateway {
        fixed,
        public_url: "http://localhost".parse()?,
        doors: trunkline::definition::plan::gateway::Doors::default(),
        admin: Admin::default(),
        connect: Connect::default(),
        destinations: Vec::new(),
        callers: Vec::new(),
        private_networks: Vec::new(),
        workers: 1,
        durable_calls: trunkline::definition::plan::rule::Retry::default(),
        upkeep: trunkline::definition::plan::gateway::Upkeep::default(),
        own: Arc::new(trunkline::definition::plan::Integration::own(Vec::new())),
        notifications: trunkline::definition::plan::notifications::Notifications::default(),
        activity: trunkline::definition::plan::gateway::Activity::default(),
        usage: trunkline::definition::plan::gateway::Usage::default(),
        limits: Limits::default(),
    };
    Ok(Generation {
        number: 1,
        since: Timestamp::default(),
        fingerprint: Fingerprint([0; 32]),
        gateway: Arc::new(gateway),
        integrations: std::collections::HashMap::default(),
        files: Vec::new(),
    })
}
