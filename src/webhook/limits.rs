//! How much is taken in from whom.
//!
//! Two budgets, kept apart so that a flood of bad signatures never starves good ones:
//! - What verified counts against the integration's `rate`, and nothing else does.
//! - What did not verify counts against its source's `rate_per_source`. Beyond it bad requests are refused without
//!   a trace in the list of refused ones, but each is verified before, whatever its size: nothing short of that tells
//!   good requests from bad ones that share their address, as behind a common proxy. It costs as much as
//!   reading the body, which the door's bounds on connections and bodies keep in check.
//!
//! The state is kept by integration id and address, not by definition: a reload leaves it as it is, and a
//! changed rate takes effect on what is left. Called by `receive`.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::budgets::{self, Budgets};
use crate::base::units::Rate;

/// The most sources that are remembered; beyond that the unknown ones share one budget.
const SOURCES: usize = 65_536;
/// The most integrations that are remembered; more than a deployment has.
const INTEGRATIONS: usize = 65_536;

/// Both budgets of every integration.
#[derive(Debug)]
pub struct Limits {
    verified: Mutex<Budgets<Arc<str>>>,
    unverified: Mutex<Budgets<(Arc<str>, Option<IpAddr>)>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { verified: Mutex::new(Budgets::new(INTEGRATIONS)), unverified: Mutex::new(Budgets::new(SOURCES)) }
    }
}

impl Limits {
    /// Takes one verified request from the integration's budget.
    ///
    /// # Errors
    /// How long until there is room for one.
    pub fn take_verified(&self, integration: &Arc<str>, rate: Rate, now: Duration) -> Result<(), Duration> {
        let mut budgets = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.take(Arc::clone(integration), Arc::from(""), rate, now)
    }

    /// Charges one unverified request to its source.
    ///
    /// # Errors
    /// How long until there is room for one.
    pub fn charge_unverified(
        &self,
        integration: &Arc<str>,
        source: Option<IpAddr>,
        rate: Rate,
        now: Duration,
    ) -> Result<(), Duration> {
        let key = (Arc::clone(integration), source.map(budgets::source));
        let mut unverified = self.unverified.lock().unwrap_or_else(PoisonError::into_inner);
        unverified.take(key, (Arc::from(""), None), rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { count: 3, period: Duration::from_secs(1) };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_budget_is_a_burst_that_refills_evenly() {
        let (limits, id) = (Limits::default(), Arc::from("a"));
        let take = |millis| limits.take_verified(&id, RATE, at(millis)).map_err(|wait| wait.as_millis());
        assert_eq!([take(0), take(0), take(0)], [Ok(()), Ok(()), Ok(())]);
        assert_eq!(take(0), Err(333));
        assert_eq!(take(334), Ok(()));
        assert!(take(334).is_err());
    }

    #[test]
    fn one_source_never_uses_up_anothers_budget() {
        let (limits, id) = (Limits::default(), Arc::from("a"));
        let source = |last| Some(IpAddr::from([192, 0, 2, last]));
        while limits.charge_unverified(&id, source(1), RATE, at(0)).is_ok() {}
        assert!(limits.charge_unverified(&id, source(1), RATE, at(0)).is_err());
        assert_eq!(limits.charge_unverified(&id, source(2), RATE, at(0)), Ok(()));
        assert_eq!(limits.take_verified(&id, RATE, at(0)), Ok(()));
    }

    #[test]
    fn an_ipv6_subscriber_is_one_source() {
        let (limits, id) = (Limits::default(), Arc::from("a"));
        let source = |text: &str| text.parse::<IpAddr>().ok();
        for n in 0..3 {
            assert_eq!(limits.charge_unverified(&id, source(&format!("2001:db8::{n}")), RATE, at(0)), Ok(()));
        }
        assert!(limits.charge_unverified(&id, source("2001:db8::ffff"), RATE, at(0)).is_err());
        assert_eq!(limits.charge_unverified(&id, source("2001:db8:0:1::1"), RATE, at(0)), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_full_budgets_are_forgotten() {
        let (limits, id) = (Limits::default(), Arc::from("a"));
        let source = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        let count = u32::try_from(SOURCES).expect("fits") + 10;
        let refused = (0..count).filter(|n| limits.charge_unverified(&id, source(*n), RATE, at(0)).is_err()).count();
        assert_eq!(refused, 7, "those beyond share one budget of three");
        assert_eq!(limits.charge_unverified(&id, source(count), RATE, at(5_000)), Ok(()));
        let kept = limits.unverified.lock().map(|budgets| budgets.len()).unwrap_or_default();
        assert_eq!(kept, 1);
    }
}
