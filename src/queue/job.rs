//! What the queue asks of actions, and what they report.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::id::DeliveryId;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::rule::{Action, Rule};
use crate::store::model::Event;
use crate::template::Context;

/// Carries actions out.
#[async_trait]
pub trait Act: Send + Sync + 'static {
    /// Tries an action once. It ends by itself: every wait in it has a limit. It may be dropped at any
    /// point when the program stops; [`Self::may_be_cut`] says what that means.
    async fn act(&self, task: &Task) -> Report;

    /// Whether an action that was dropped while it ran, or whose process died, may be tried again: not
    /// when it may have been carried out and doing it twice is another thing than doing it once.
    fn may_be_cut(&self, task: &Task) -> bool;
}

/// One try at one action of one event.
#[derive(Debug)]
pub struct Task {
    /// The generation it belongs to, to its end.
    pub generation: Arc<Generation>,
    /// The integration the event came to.
    pub integration: Arc<Integration>,
    /// The event.
    pub event: Arc<Event>,
    /// What the action's templates see: `event`, `body`, `headers`, `query`.
    pub context: Context,
    /// The delivery; the same at every try.
    pub delivery: DeliveryId,
    /// Where the rule stands in the integration's list.
    pub(super) rule: usize,
    /// Where the action stands in the rule's list.
    pub(super) action: usize,
}

impl Task {
    /// The rule that asks for it. `None` never happens: the queue makes tasks of rules that are there.
    pub fn rule(&self) -> Option<&Rule> {
        self.integration.rules.get(self.rule)
    }

    /// The action. `None` never happens, as with [`Self::rule`].
    pub fn action(&self) -> Option<&Action> {
        self.rule()?.actions.get(self.action)
    }
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The other side's HTTP status, where it answered.
    pub status: Option<u16>,
    /// Success, or why not.
    pub result: Result<(), Failed>,
}

/// Why a try had no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// In words that a person can act on; never a secret.
    pub error: String,
    /// Whether another try makes sense.
    pub again: Again,
}

/// Whether another try makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// No: it would end the same, or might do its work twice.
    Never,
    /// Yes, by the action's schedule.
    Scheduled,
    /// Yes, but not before this long: the other side said so.
    After(Duration),
}

impl Report {
    /// A success.
    pub fn done(status: Option<u16>) -> Self {
        Self { status, result: Ok(()) }
    }

    /// A failure.
    pub fn failed(status: Option<u16>, error: impl Into<String>, again: Again) -> Self {
        Self { status, result: Err(Failed { error: error.into(), again }) }
    }
}
