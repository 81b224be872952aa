//! What became of the newest test events, for whoever looks at an endpoint after one was sent to it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::Tested;
use crate::base::clock::Timestamp;
use crate::base::id::WebhookId;

/// Endpoints whose newest test event is remembered; what was sent longest ago goes first.
const REMEMBERED: usize = 100;
/// The most bytes of an answer that are remembered: the door's are shorter, those of what stands before it may not be.
const ANSWER: usize = 4 << 10;

/// The newest test event of each endpoint, in memory: after a restart nobody is told of those before.
#[derive(Debug, Default)]
pub struct Tried(Mutex<VecDeque<(Timestamp, Tested)>>);

impl Tried {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Timestamp, Tested)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what became of one.
    pub(super) fn remember(&self, at: Timestamp, tested: &Tested) {
        let long = tested.answer.to_string().len() > ANSWER;
        let answer = if long { Value::Null } else { tested.answer.clone() };
        let mut newest = self.lock();
        newest.retain(|(_, known)| known.webhook != tested.webhook);
        newest.push_back((at, Tested { answer, event_type: tested.event_type.clone(), ..*tested }));
        if newest.len() > REMEMBERED {
            newest.pop_front();
        }
    }

    /// The newest of an endpoint, and when it was sent.
    pub fn of(&self, webhook: WebhookId) -> Option<(Timestamp, Tested)> {
        self.lock().iter().find(|(_, known)| known.webhook == webhook).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> WebhookId {
        format!("whk_{number:026}").parse().expect("an id")
    }

    fn tested(number: u64, answer: &str) -> Tested {
        Tested {
            webhook: id(number),
            event_type: "push".to_owned(),
            accepted: true,
            status: 202,
            answer: Value::from(answer),
            took_ms: 1,
        }
    }

    #[test]
    fn the_newest_of_each_endpoint_is_remembered_within_bounds() {
        let tried = Tried::default();
        let at = Timestamp::from_seconds;
        let of = |number| tried.of(id(number)).map(|(at, tested)| (at.seconds(), tested.answer));
        tried.remember(at(1), &tested(1, "first"));
        tried.remember(at(2), &tested(1, "second"));
        assert_eq!((of(1), of(2)), (Some((2, Value::from("second"))), None));
        tried.remember(at(3), &tested(2, &"x".repeat(ANSWER)));
        assert_eq!(of(2), Some((3, Value::Null)));
        (3..103).for_each(|number| tried.remember(at(4), &tested(number, "later")));
        let count = tried.lock().len();
        assert_eq!((count, of(1), of(2)), (REMEMBERED, None, None));
    }
}
