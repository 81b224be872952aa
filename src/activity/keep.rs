//! What happens to the activity beside the calls: settings taken over, old entries let go, and the line in the audit
//! log that says who used which connection.
//!
//! Nothing here is waited for by a call. A line that cannot be written is counted as dropped, calls and all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Activity;
use super::tally::{Counted, Taken};
use crate::base::clock::Clock;
use crate::definition::live::Live;
use crate::store::Audit;
use crate::store::model::AuditEntry;
use crate::telemetry::metrics::Metrics;

/// How often the settings and the ages are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The most groups of one line.
const GROUPS: usize = 256;

/// What keeps the activity.
#[derive(Clone)]
pub struct Keeper {
    /// What is kept.
    pub activity: Arc<Activity>,
    /// The settings in force.
    pub live: Arc<Live>,
    /// Where the lines go.
    pub audit: Arc<dyn Audit>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// Keeps the activity until it is told to stop. What was counted since the last line is for one more
    /// [`Self::write`], once no call is under way.
    pub async fn run(self, stop: CancellationToken) {
        let mut written = self.clock.monotonic();
        let mut looks = tokio::time::interval(EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let generation = self.live.load();
            let settings = generation.gateway.activity;
            self.activity.apply(settings);
            self.activity.begin_second();
            self.activity.usage().apply(generation.gateway.usage);
            drop(generation);
            self.activity.retire(self.clock.now());
            self.count();
            let now = self.clock.monotonic();
            if now.saturating_sub(written) >= settings.audit_every {
                self.write().await;
                written = now;
            }
        }
    }

    /// Writes down who used which connection since the last time; one line for some hundred groups.
    pub async fn write(&self) {
        let Taken { counted, since, dropped } = self.activity.tally().take();
        self.drops(dropped);
        // A line says as well how many it has no room for.
        let lines = counted.chunks(GROUPS).chain((counted.is_empty() && dropped > 0).then_some(&[][..]));
        for groups in lines {
            let entry = AuditEntry {
                at: self.clock.now(),
                actor: "system".to_owned(),
                action: "calls".to_owned(),
                target: "proxy".to_owned(),
                detail: json!({ "since": since.to_string(), "calls": groups, "uncounted": dropped }),
            };
            if let Err(error) = self.audit.append(entry).await {
                let calls = groups.iter().map(|of: &Counted| of.calls).sum();
                self.drops(calls);
                tracing::error!(calls, "{calls} calls are not in the audit log: {error}");
            }
        }
    }

    /// Writes what waits into the files. What is recorded after this is in memory alone.
    pub async fn close(&self) {
        let activity = Arc::clone(&self.activity);
        // It waits for the disk. A panic of it has been reported by the process's hook.
        drop(tokio::task::spawn_blocking(move || activity.close()).await);
        self.count();
    }

    fn drops(&self, calls: u64) {
        if calls > 0 {
            self.metrics.activity_dropped.with_label_values(&["audit"]).inc_by(calls);
        }
    }

    fn count(&self) {
        let (unwritten, bytes) = self.activity.standing();
        let (refused, slow) = self.activity.viewers().taken();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.activity_dropped.with_label_values(&["file"]).inc_by(unwritten);
        metrics.activity_entries.with_label_values::<&str>(&[]).set(gauge(self.activity.len()));
        metrics.activity_bytes.with_label_values::<&str>(&[]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let (crowded, held) = self.activity.contents();
        metrics.activity_dropped.with_label_values(&["content"]).inc_by(crowded);
        metrics.activity_content_bytes.with_label_values::<&str>(&[]).set(gauge(held));
        let (usage, cut) = (self.activity.usage(), self.activity.usage().taken());
        metrics.usage_bytes.with_label_values::<&str>(&[]).set(gauge(usage.bytes()));
        metrics.usage_dropped.with_label_values(&["calls"]).inc_by(self.activity.uncounted());
        metrics.usage_dropped.with_label_values(&["minutes"]).inc_by(cut.memory);
        metrics.usage_dropped.with_label_values(&["days"]).inc_by(cut.files);
        metrics.activity_viewers.with_label_values::<&str>(&[]).set(gauge(self.activity.viewers().now()));
        metrics.activity_viewers_cut.with_label_values(&["full"]).inc_by(refused);
        metrics.activity_viewers_cut.with_label_values(&["slow"]).inc_by(slow);
    }
}
