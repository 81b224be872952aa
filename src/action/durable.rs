//! Durable calls: carried out through the proxy door's own stages, their outcomes kept as events.
//!
//! How a call is made is behind [`Carry`](crate::queue::durable::Carry), which the proxy door implements, so that a
//! call that waited meets the same gates and the same policy as one that did not. Called by `queue` through
//! [`super::Actions`].

use crate::base::clock::Clock;
use crate::queue::Report;
use crate::queue::durable::{Conclusion, newest_outcome};
use crate::store::{Events, StoreError};

/// Stores an outcome. A call that was replayed has one for each time.
///
/// # Errors
/// When the store refuses, or its journal cannot be read.
pub async fn keep(events: &dyn Events, clock: &dyn Clock, conclusion: Conclusion<'_>) -> Result<(), StoreError> {
    let (_, id) = newest_outcome(events, conclusion.delivery.event).await?;
    match events.accept(conclusion.into_event(id, clock.now())).await {
        // The answer is too long for the journal: the outcome is kept without it.
        Err(StoreError::TooLarge { .. }) => {
            let without = Report { answer: None, ..conclusion.report.clone() };
            let shorter = Conclusion { report: &without, ..conclusion };
            events.accept(shorter.into_event(id, clock.now())).await.map(drop)
        }
        kept => kept.map(drop),
    }
}
