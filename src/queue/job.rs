//! What the queue asks of actions, and what they report.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::content::Seen;
use super::durable::{Conclusion, DurableCall};
use super::matching;
use crate::base::id::DeliveryId;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::rule::{Action, Rule};
use crate::net::Sent;
use crate::outbound::OutboundError;
use crate::store::StoreError;
use crate::store::model::Event;

/// Carries actions out.
#[async_trait]
pub trait Act: Send + Sync + 'static {
    /// Tries an action once. It ends by itself: every wait in it has a limit. It may be dropped at any
    /// point when the program stops; [`Self::may_be_cut`] says what that means.
    async fn act(&self, task: &Task) -> Report;

    /// Whether an action that was dropped while it ran, or whose process died, may be tried again: not
    /// when it may have been carried out and doing it twice is another thing than doing it once.
    fn may_be_cut(&self, task: &Task) -> bool;

    /// Keeps what came of a durable call for good, once no try follows. Called before its end is recorded, so
    /// that a crash in between keeps it twice rather than never.
    async fn conclude(&self, conclusion: Conclusion<'_>) -> Result<(), StoreError>;
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
    /// What the action's templates see, as far as they ask.
    pub seen: Seen,
    /// The delivery; the same at every try.
    pub delivery: DeliveryId,
    /// What is to be done.
    pub(super) errand: Errand,
}

/// What a task is about.
#[derive(Debug)]
pub(super) enum Errand {
    /// An action of a rule: their places in the integration's and the rule's list.
    OfRule { rule: usize, action: usize },
    /// An action that no rule asked for.
    Own(Action),
    /// A durable call.
    Call(Box<DurableCall>),
}

impl Errand {
    /// The action, where it is one.
    pub fn action<'a>(&'a self, integration: &'a Integration) -> Option<&'a Action> {
        match self {
            Self::OfRule { rule, action } => integration.rules.get(*rule)?.actions.get(*action),
            Self::Own(action) => Some(action),
            Self::Call(_) => None,
        }
    }
}

impl Task {
    /// The rule that asks for it, where one does.
    pub fn rule(&self) -> Option<&Rule> {
        match self.errand {
            Errand::OfRule { rule, .. } => self.integration.rules.get(rule),
            Errand::Own(_) | Errand::Call(_) => None,
        }
    }

    /// The action, where it is one.
    pub fn action(&self) -> Option<&Action> {
        self.errand.action(&self.integration)
    }

    /// The durable call, where it is one.
    pub fn call(&self) -> Option<&DurableCall> {
        match &self.errand {
            Errand::Call(call) => Some(call),
            Errand::OfRule { .. } | Errand::Own(_) => None,
        }
    }

    /// What it is called in metrics.
    pub fn label(&self) -> &'static str {
        match self.action() {
            Some(action) => matching::label(action),
            None => "durable_call",
        }
    }
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The other side's HTTP status, where it answered.
    pub status: Option<u16>,
    /// Success, or why not.
    pub result: Result<(), Failed>,
    /// What the service answered, where that is kept.
    pub answer: Option<Box<Answered>>,
}

/// A service's answer to a durable call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The headers that a caller at the proxy door would get.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
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
    /// Yes, and it was no try: it was held back, by a limit, a circuit or a person, and nobody was asked. Not before
    /// this long, where that is known.
    Held(Option<Duration>),
}

impl Report {
    /// A success.
    pub fn done(status: Option<u16>) -> Self {
        Self { status, result: Ok(()), answer: None }
    }

    /// A failure.
    pub fn failed(status: Option<u16>, error: impl Into<String>, again: Again) -> Self {
        Self { status, result: Err(Failed { error: error.into(), again }), answer: None }
    }

    /// This report with the answer that is kept.
    #[must_use]
    pub fn with_answer(mut self, answer: Option<Answered>) -> Self {
        self.answer = answer.map(Box::new);
        self
    }
}

/// What a call without success means for its delivery.
impl From<&OutboundError> for Report {
    fn from(error: &OutboundError) -> Self {
        if error.may_repeat() {
            let again = match (error.was_held(), error.retry_after()) {
                (true, wait) => Again::Held(wait),
                (false, Some(wait)) => Again::After(wait),
                (false, None) => Again::Scheduled,
            };
            return Self::failed(error.status(), error.to_string(), again);
        }
        // Without an answer nobody knows whether the service did the work.
        let unanswered = error.status().is_none_or(|status| status >= 500);
        let unknown = error.sent() == Sent::Maybe && (unanswered || error.was_led());
        let hint = if unknown {
            "; it is not sent again by itself, because it may have been carried out: check at the service, then replay"
        } else {
            ""
        };
        Self::failed(error.status(), format!("{error}{hint}"), Again::Never)
    }
}
