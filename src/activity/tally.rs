//! Who used which connection and how often, since the last line in the audit log: counted in memory, a group for each
//! kind, application, connection and method, so that a call costs a count and no write.
//!
//! Bounded: what finds no room for a group of its own is counted as dropped. Filled by `record`, emptied by
//! `keep`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use serde::Serialize;

use super::entry::Kind;
use super::{Asker, CallRecord, as_text};
use crate::base::clock::Timestamp;

/// The most groups between two lines.
const GROUPS: usize = 8_192;

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Group {
    /// What the calls were for.
    pub kind: Kind,
    /// The application, where one made them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<Arc<str>>,
    /// The integration.
    pub integration: Arc<str>,
    /// The connection that was used.
    pub connection: Arc<str>,
    /// The method.
    #[serde(serialize_with = "as_text")]
    pub method: Method,
    /// What became of the calls.
    pub result: Became,
}

/// What became of a call, for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// The service answered.
    Answered,
    /// It was answered from what is kept.
    Kept,
    /// The gateway refused it, or there was no answer.
    Failed,
}

/// A group and how many calls it has.
#[derive(Debug, Clone, Serialize)]
pub struct Counted {
    /// What is counted together.
    #[serde(flatten)]
    pub group: Group,
    /// How many.
    pub calls: u64,
}

/// Calls since the last line.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    groups: HashMap<Group, u64>,
    /// When the first of them began.
    since: Option<Timestamp>,
    dropped: u64,
}

/// What was counted since it was last asked.
#[derive(Debug, Default)]
pub struct Taken {
    /// The groups, in a settled order.
    pub counted: Vec<Counted>,
    /// When the first call of them began.
    pub since: Timestamp,
    /// Calls that found no room.
    pub dropped: u64,
}

impl Tally {
    /// Counts a call, whoever made it. What comes from outside uses no credential, and what was refused here used none:
    /// whoever asks for connections that there are not must not push out what was used.
    pub fn count(&self, call: &CallRecord) {
        let result = Became::of(call);
        if result == Became::Failed && call.course.attempts == 0 {
            return;
        }
        let caller = match &call.asker {
            Asker::Event(_) | Asker::Connect => return,
            Asker::Caller(caller) => Some(Arc::clone(caller)),
            Asker::Delivery(_) | Asker::Test | Asker::Webhook | Asker::SignIn | Asker::Cache => None,
        };
        let group = Group {
            kind: Kind::of(&call.asker),
            caller,
            integration: Arc::clone(&call.integration),
            connection: Arc::clone(&call.connection),
            method: known(&call.method),
            result,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.since.get_or_insert(call.at);
        if let Some(calls) = counts.groups.get_mut(&group) {
            *calls += 1;
        } else if counts.groups.len() < GROUPS {
            counts.groups.insert(group, 1);
        } else {
            counts.dropped += 1;
        }
    }

    /// Takes out what was counted.
    pub fn take(&self) -> Taken {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counted: Vec<_> = counts.groups.into_iter().map(|(group, calls)| Counted { group, calls }).collect();
        counted.sort_by(|one, other| one.group.place().cmp(&other.group.place()));
        Taken { counted, since: counts.since.unwrap_or_default(), dropped: counts.dropped }
    }
}

/// A method as it is counted: those that everybody knows by their names, and all others as one, since they may be any
/// word.
fn known(method: &Method) -> Method {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    if KNOWN.contains(method) { method.clone() } else { Method::from_bytes(b"_OTHER").unwrap_or_default() }
}

impl Group {
    fn place(&self) -> (&str, Option<&str>, [&str; 3], u8) {
        let used = [&*self.integration, &*self.connection, self.method.as_str()];
        (self.kind.as_str(), self.caller.as_deref(), used, self.result as u8)
    }
}

impl Became {
    fn of(call: &CallRecord) -> Self {
        match (call.error, call.status, call.course.attempts) {
            (None, Some(_), 0) => Self::Kept,
            (None, Some(_), _) => Self::Answered,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Course;
    use super::super::tests::call;
    use super::*;

    fn by(caller: &str) -> CallRecord {
        CallRecord { asker: Asker::Caller(caller.into()), ..call(1) }
    }

    #[test]
    fn calls_are_counted_in_groups_whoever_made_them_and_what_comes_from_outside_is_not() {
        let tally = Tally::default();
        for caller in ["b", "a", "b"] {
            tally.count(&by(caller));
        }
        tally.count(&CallRecord { error: Some("rate_limited"), ..by("a") });
        for asker in [Asker::Test, Asker::Delivery("d".to_owned()), Asker::Event("e".to_owned()), Asker::Connect] {
            tally.count(&CallRecord { asker, ..call(1) });
        }
        let Taken { counted, since, dropped } = tally.take();
        let shown = |of: &Counted| (of.group.kind, of.group.caller.clone(), of.group.result, of.calls);
        let by_caller = |caller: &str, result, calls| (Kind::Call, Some(Arc::from(caller)), result, calls);
        let expected = [
            by_caller("a", Became::Answered, 1),
            by_caller("a", Became::Failed, 1),
            by_caller("b", Became::Answered, 2),
            (Kind::Delivery, None, Became::Answered, 1),
            (Kind::Test, None, Became::Answered, 1),
        ];
        assert_eq!(counted.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!((since.seconds(), dropped, tally.take().counted.len()), (1, 0, 0));
    }

    #[test]
    fn what_used_no_credential_takes_no_group_and_odd_methods_take_one() {
        let tally = Tally::default();
        let refused = |number: usize| CallRecord {
            connection: number.to_string().into(),
            error: Some("connection_unknown"),
            status: None,
            course: Course::default(),
            ..by("a")
        };
        (0..GROUPS + 3).for_each(|number| tally.count(&refused(number)));
        for method in ["GET", "M1", "M2"] {
            tally.count(&CallRecord { method: method.parse().expect("a method"), ..by("a") });
        }
        let Taken { counted, dropped, .. } = tally.take();
        let shown: Vec<_> = counted.iter().map(|of| (of.group.method.as_str(), of.calls)).collect();
        assert_eq!((shown.as_slice(), dropped), (&[("GET", 1), ("_OTHER", 2)][..], 0));
    }

    #[test]
    fn what_finds_no_room_is_counted_as_dropped() {
        let tally = Tally::default();
        (0..GROUPS + 3).for_each(|number| tally.count(&by(&number.to_string())));
        tally.count(&by("0"));
        let Taken { counted, dropped, .. } = tally.take();
        assert_eq!((counted.len(), dropped), (GROUPS, 3));
    }
}
