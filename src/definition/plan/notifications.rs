//! How much is told of the gateway's own events, compiled.

use std::time::Duration;

use crate::base::units::Rate;

/// How much is told of the gateway's own events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notifications {
    /// For how long after one event those of the same kind, integration and connection are told in one. Default 5 m.
    pub group: Duration,
    /// How many events there are at most. Default 60 an hour.
    pub rate: Rate,
    /// After how long without a webhook that is told; `None` is never. Default never.
    pub silent_after: Option<Duration>,
}

impl Default for Notifications {
    fn default() -> Self {
        let rate = Rate { count: 60, period: Duration::from_hours(1) };
        Self { group: Duration::from_mins(5), rate, silent_after: None }
    }
}
