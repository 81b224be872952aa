//! What was refused lately, for the doctor: enough to find a wrong secret or clock, never a secret, an
//! address or a body. In memory, bounded, and never mixed with events. Called by `receive` and `admin`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::base::id::WebhookId;

/// How many are kept for one integration, so that a flood at one hides nothing of another.
pub const PER_INTEGRATION: usize = 50;
/// How many integrations are kept; the one whose newest refusal is oldest makes room.
const INTEGRATIONS: usize = 256;

/// A request that was refused because it could not be verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = RefusedWebhook)]
pub struct Refused {
    /// When.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The integration it was for.
    pub integration: Arc<str>,
    /// The managed endpoint it came to, where it was one.
    pub webhook: Option<WebhookId>,
    /// Why, as a stable word.
    pub reason: &'static str,
    /// Why, in words.
    pub detail: String,
    /// The names of its headers.
    pub headers: Vec<String>,
    /// How far its signed time was ahead of the gateway's clock, in milliseconds.
    pub timestamp_skew_ms: Option<i64>,
    /// The ids of the secrets that were tried.
    pub secrets: Vec<Arc<str>>,
    /// Size of its body in bytes; `None` when it was refused by its head.
    pub body_bytes: Option<u64>,
    /// Lower-case hex SHA-256 of its body, to compare with what the service says it sent.
    pub body_sha256: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "it is what `serialize_with` calls")]
fn as_text<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// The latest refusals.
#[derive(Debug, Default)]
pub struct RefusedList(Mutex<HashMap<Arc<str>, VecDeque<Refused>>>);

impl RefusedList {
    /// Keeps a refusal, and forgets an older one when there are too many.
    pub fn record(&self, refused: Refused) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.len() >= INTEGRATIONS && !lists.contains_key(&refused.integration) {
            let newest = |list: &VecDeque<Refused>| list.back().map(|refused| refused.at);
            let oldest = lists.iter().min_by_key(|(_, list)| newest(list)).map(|(id, _)| Arc::clone(id));
            oldest.and_then(|id| lists.remove(&id));
        }
        let list = lists.entry(Arc::clone(&refused.integration)).or_default();
        if list.len() >= PER_INTEGRATION {
            list.pop_front();
        }
        list.push_back(refused);
    }

    /// The latest refusals, newest first: one integration's, or all.
    pub fn latest(&self, integration: Option<&str>) -> Vec<Refused> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = lists.iter().filter(|(id, _)| integration.is_none_or(|wanted| wanted == &***id));
        let mut all: Vec<Refused> = wanted.flat_map(|(_, list)| list.iter().cloned()).collect();
        all.sort_by_key(|refused| std::cmp::Reverse(refused.at));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(integration: &str, at: u64) -> Refused {
        Refused {
            at: Timestamp::from_millis(at),
            integration: Arc::from(integration),
            webhook: None,
            reason: "mismatch",
            detail: String::new(),
            headers: Vec::new(),
            timestamp_skew_ms: None,
            secrets: Vec::new(),
            body_bytes: None,
            body_sha256: None,
        }
    }

    #[test]
    fn the_list_is_bounded_and_newest_first() {
        let list = RefusedList::default();
        (0..80).for_each(|at| list.record(refused("a", at)));
        (0..300).for_each(|n| list.record(refused(&format!("i{n}"), 100 + n)));
        assert_eq!(list.latest(Some("a")).len(), 0, "256 newer integrations made room of it");
        assert_eq!(list.latest(None).len(), INTEGRATIONS);
        assert_eq!(list.latest(None).first().map(|refused| refused.at.millis()), Some(399));
    }
}
