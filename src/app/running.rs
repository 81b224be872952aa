//! The program while it runs, and its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admin::AdminDoor;
use super::exporting::Exporting;
use super::telling::Telling;
use super::upkeep::Upkeep;
use crate::activity::Activity;
use crate::admin::readiness::{Phase, Readiness};
use crate::admin::sign_in::{LOCAL, SignIn};
use crate::admin::{guard, page_address};
use crate::base::secret::Secret;
use crate::definition::live::Live;
use crate::definition::plan::gateway::Listen;
use crate::queue;
use crate::reload::Reloader;
use crate::server::{self, Address};
use crate::store::embedded::Embedded;
use crate::telemetry::metrics::Metrics;

/// How long the admin door's last answers may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The program while it runs. Dropping it is like a kill: nothing durable is lost, and requests under way
/// are; [`Running::stop`] is the orderly end.
#[derive(Debug)]
pub struct Running {
    pub(super) public: server::Running,
    pub(super) proxy: server::Running,
    pub(super) admin: AdminDoor,
    pub(super) listen: Listen,
    pub(super) sign_in: Arc<SignIn>,
    pub(super) workers: queue::Running,
    pub(super) activity: Arc<Activity>,
    pub(super) watching: JoinHandle<()>,
    pub(super) devices: JoinHandle<()>,
    pub(super) upkeep: Upkeep,
    pub(super) notices: Telling,
    pub(super) exporting: Option<Exporting>,
    pub(super) stop: CancellationToken,
    pub(super) readiness: Arc<Readiness>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) live: Arc<Live>,
    pub(super) store: Arc<Embedded>,
    pub(super) metrics: Arc<Metrics>,
}

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were cut because their request did not end in time.
    pub cut_connections: usize,
    /// Whether every delivery under way ended in time; those that did not were given back.
    pub deliveries_ended: bool,
}

impl Running {
    /// Where the public door can be reached.
    pub fn public(&self) -> &Address {
        self.public.address()
    }

    /// Where the proxy door can be reached.
    pub fn proxy(&self) -> &Address {
        self.proxy.address()
    }

    /// Where the admin door can be reached.
    pub fn admin(&self) -> &Address {
        &self.admin.address
    }

    /// Where people reach the page, where that is known.
    pub fn page(&self) -> Option<String> {
        page_address(&self.live.load().gateway, &self.listen)
    }

    /// An address that signs someone in on the page once, where nobody is set who may sign in by themselves and the
    /// door is open to this machine alone.
    pub fn sign_in_link(&self) -> Option<Secret> {
        let gateway = Arc::clone(&self.live.load().gateway);
        let page = self.page().filter(|_| guard::is_open(&gateway, &self.listen))?;
        let word = self.sign_in.link_for(LOCAL)?;
        Some(Secret::new(format!("{page}/sign-in/link?word={}", word.expose())))
    }

    /// What is in force.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What reads the files again.
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// The store.
    pub fn store(&self) -> &Arc<Embedded> {
        &self.store
    }

    /// The program's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The newest calls.
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// The workers, for those who move the clock.
    pub fn workers(&self) -> &queue::Running {
        &self.workers
    }

    /// Ends in order: `/readyz` says no, doors accept no more, requests and deliveries under way end
    /// within `grace`, the rest is cut or given back, token calls end, what was told is stored, spans are sent, the store is
    /// closed. What arrives at the admin door
    /// meanwhile is still answered.
    pub async fn stop(self, grace: Duration) -> Stopped {
        self.readiness.enter(Phase::Draining);
        self.stop.cancel();
        let (public, proxy, deliveries_ended) =
            tokio::join!(self.public.drain(grace), self.proxy.drain(grace), self.workers.stop(grace));
        // The watcher ends at its next turn, which a file system that hangs may keep from it; a panic in it has been
        // logged by the process's hook.
        drop(tokio::time::timeout(grace, self.watching).await);
        drop(tokio::time::timeout(grace, self.devices).await);
        self.activity.end_streams();
        self.upkeep.end(grace).await;
        self.notices.end(grace).await;
        if let Some(exporting) = self.exporting {
            exporting.end(LAST_WORDS.min(grace)).await;
        }
        self.admin.running.drain(LAST_WORDS.min(grace)).await;
        self.store.close().await;
        Stopped { cut_connections: public.cut + proxy.cut, deliveries_ended }
    }
}
