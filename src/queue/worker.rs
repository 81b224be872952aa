//! The loop that claims work and runs it, and its end.
//!
//! One loop claims for all workers, so that slots are counted in one place. It notes the wake-up counter
//! before it looks, so that work which arrives while it looks wakes it again. Called by `app`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::attempt::{self, Ended};
use super::lanes::{Lanes, Look};
use super::{Parts, group};
use crate::store::StoreError;
use crate::store::model::{Claim, Item, Lane, Lease};

/// How long a lease lasts, and how long before it is lengthened: a process that stops dead holds its work
/// for no longer than the first.
const LEASE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_secs(20));
/// The shortest and longest sleeps between looks. The longest bounds what a jump of the wall clock does.
const SLEEP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(15));
/// The pause after the store refused.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Workers under way. Dropping it stops them at once and leaves their leases to run out, as a crash would.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    cut: CancellationToken,
    look: Arc<Notify>,
    task: AbortOnDropHandle<()>,
}

impl Running {
    /// Makes the workers look for due work now: for whoever moves the clock.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Stops: nothing more is claimed, and what runs may end within `grace`. What is still running then is
    /// cut and its lease given back, or, where a second try might do the work twice, recorded as
    /// interrupted. Answers whether nothing had to be cut.
    pub async fn stop(mut self, grace: Duration) -> bool {
        self.stop.cancel();
        if timeout(grace, &mut self.task).await.is_ok() {
            return true;
        }
        self.cut.cancel();
        // What is left is a write to the store for each item.
        drop(timeout(LEASE.0, &mut self.task).await);
        false
    }
}

/// Starts the workers.
pub fn start(parts: Parts) -> Running {
    let (stop, cut, look) = (CancellationToken::new(), CancellationToken::new(), Arc::new(Notify::new()));
    let wake = parts.work.wake();
    let claimer = Claimer {
        parts: Arc::new(parts),
        lanes: Lanes::default(),
        generation: 0,
        running: JoinSet::new(),
        held: HashSet::new(),
        extended: Duration::ZERO,
        wake,
        stop: stop.clone(),
        cut: cut.clone(),
        look: Arc::clone(&look),
    };
    Running { stop, cut, look, task: AbortOnDropHandle::new(tokio::spawn(claimer.run())) }
}

struct Claimer {
    parts: Arc<Parts>,
    lanes: Lanes,
    generation: u64,
    running: JoinSet<Ended>,
    held: HashSet<Lease>,
    extended: Duration,
    wake: watch::Receiver<u64>,
    stop: CancellationToken,
    cut: CancellationToken,
    look: Arc<Notify>,
}

impl Claimer {
    async fn run(mut self) {
        loop {
            self.wake.borrow_and_update();
            self.configure();
            self.parts.look_at_the_clocks().await;
            self.extend().await;
            self.gather();
            if self.stop.is_cancelled() && self.running.is_empty() {
                return;
            }
            let pause = match self.claim().await {
                Ok(0) => self.until_due().await,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!("no work can be claimed: {error}");
                    AFTER_REFUSAL
                }
            };
            self.measure();
            self.wait(pause).await;
        }
    }

    fn configure(&mut self) {
        let generation = self.parts.live.load();
        if generation.number != self.generation {
            self.generation = generation.number;
            self.lanes.configure(&generation.gateway);
            let workers = i64::try_from(generation.gateway.workers).unwrap_or(i64::MAX);
            self.parts.metrics.workers.with_label_values::<&str>(&[]).set(workers);
        }
    }

    /// Claims what there is room for and starts it. Answers how much that was.
    async fn claim(&mut self) -> Result<usize, StoreError> {
        if self.stop.is_cancelled() {
            return Ok(0);
        }
        let first = match self.lanes.generous() {
            Some(look) => self.claim_at(&look).await?,
            None => 0,
        };
        let look = self.lanes.careful();
        Ok(first + self.claim_at(&look).await?)
    }

    async fn claim_at(&mut self, look: &Look) -> Result<usize, StoreError> {
        let now = self.parts.clock.now();
        let &Look { max, per_lane, matching, ref busy } = look;
        let busy = &[busy.as_slice(), &self.parts.holds.lanes()].concat();
        let claim = Claim { now, until: now.after(LEASE.0), max, busy, per_lane, matching };
        let claimed = self.parts.work.claim(claim).await?;
        let generation = self.parts.live.load();
        let count = claimed.len();
        let mut group = Vec::new();
        for leased in claimed {
            let lane = if leased.lane.is_matching() { Lane::matching() } else { leased.lane.clone() };
            self.lanes.take(&lane, &generation.gateway);
            self.held.insert(leased.lease);
            match leased.item {
                Item::Match(_) => group.push(leased),
                Item::Deliver { .. } => {
                    self.running.spawn(attempt::run(Arc::clone(&self.parts), leased, self.cut.clone()));
                }
            }
        }
        if !group.is_empty() {
            self.running.spawn(group::run(Arc::clone(&self.parts), group));
        }
        Ok(count)
    }

    /// How long until something falls due in a lane with room.
    async fn until_due(&self) -> Duration {
        let busy = [self.lanes.careful().busy, self.parts.holds.lanes()].concat();
        let due = match self.parts.work.next_due(&busy).await {
            Ok(Some(due)) => due.since(self.parts.clock.now()),
            Ok(None) => SLEEP.1,
            Err(_) => AFTER_REFUSAL,
        };
        due.clamp(SLEEP.0, SLEEP.1)
    }

    async fn wait(&mut self, pause: Duration) {
        let stopping = self.stop.is_cancelled();
        tokio::select! {
            Some(ended) = self.running.join_next() => self.take_back(ended.ok()),
            _ = self.wake.changed(), if !stopping => {}
            () = self.look.notified() => {}
            () = self.parts.holds.changed() => {}
            () = self.stop.cancelled(), if !stopping => {}
            () = sleep(pause) => {}
        }
    }

    fn gather(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            self.take_back(ended.ok());
        }
    }

    fn take_back(&mut self, ended: Option<Ended>) {
        // An item catches its own panics, so none is lost here.
        let Some(ended) = ended else { return };
        for lease in &ended.leases {
            self.held.remove(lease);
            self.lanes.give_back(&ended.lane, ended.well);
        }
    }

    /// Lengthens the leases of what runs.
    async fn extend(&mut self) {
        let now = self.parts.clock.monotonic();
        if now.saturating_sub(self.extended) < LEASE.1 {
            return;
        }
        self.extended = now;
        let until = self.parts.clock.now().after(LEASE.0);
        for lease in &self.held {
            if let Err(error) = self.parts.work.extend(*lease, until).await {
                tracing::info!(event.id = %lease.event, "a lease was not lengthened: {error}");
            }
        }
    }

    fn measure(&self) {
        let metrics = &self.parts.metrics;
        let depth = self.parts.work.depth();
        let set = |state: &str, count: u64| {
            metrics.queue_messages.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set("ready", depth.ready);
        set("leased", depth.leased);
        set("dead", depth.dead);
        let age = depth.oldest.map(|oldest| self.parts.clock.now().since(oldest).as_secs()).unwrap_or_default();
        metrics.queue_oldest_age.with_label_values::<&str>(&[]).set(i64::try_from(age).unwrap_or(i64::MAX));
        let running = i64::try_from(self.lanes.running()).unwrap_or(i64::MAX);
        metrics.workers_busy.with_label_values::<&str>(&[]).set(running);
    }
}
