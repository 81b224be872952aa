//! The memory for answers that are read whole: what those of all calls together may hold (`limits.whole_answer_bytes`).
//!
//! What is made of an answer counts likewise, when it is unpacked or changed and waits for whoever asked.
//!
//! Each answer has a bound of its own, but sixty calls at once for eight megabytes each hold half a gigabyte. Beyond its
//! first answer an integration, or a destination, has half of what the others leave, so that none takes it all; and so has
//! whoever asks, because one application may call many integrations. What is streamed is not counted, and of each answer
//! the beginning is not: token answers and the like always find room. Called by [`super::client`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::failure::Reason;
use crate::definition::live::Live;
use crate::telemetry::metrics::Metrics;

/// What of each answer is not counted.
const UNCOUNTED: usize = 16 << 10;

/// What answers hold.
#[derive(Debug, Default)]
pub(super) struct Answers {
    held: Mutex<Held>,
    bound: Option<Bound>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// The same by whom the answers are of.
    owners: HashMap<Arc<str>, usize>,
    /// The same by who asked.
    callers: HashMap<Arc<str>, usize>,
    /// Of the gateway's own calls, by whom the answers are of.
    own: HashMap<Arc<str>, usize>,
}

impl Held {
    /// Whether there is room for `more` bytes of an answer that has `first` bytes already.
    fn fits(&self, whose: &Whose, (more, first): (usize, usize), most: usize) -> bool {
        let of = |all: &HashMap<Arc<str>, usize>, id: &Arc<str>| all.get(id).copied().unwrap_or_default();
        let (of_owner, of_caller) = (of(&self.owners, &whose.owner), of(&self.callers, &whose.caller));
        let left = |own: usize| most.saturating_sub(self.all.saturating_sub(own));
        let half = |own: usize, left: usize| own.saturating_add(more) <= left / 2;
        let has_share =
            |own: usize| if own == first { own.saturating_add(more) <= left(own) } else { half(own, left(own)) };
        // A service that answers slowly leaves room for what the gateway asks of others, such as their tokens.
        let has_share_of_own = || {
            let own = of(&self.own, &whose.owner);
            own == first || half(own, (left(of_caller) / 2).saturating_sub(of_caller.saturating_sub(own)))
        };
        has_share(of_owner) && has_share(of_caller) && (!whose.is_own() || has_share_of_own())
    }

    fn take(&mut self, whose: &Whose, bytes: usize) {
        self.all += bytes;
        for (all, id) in self.shares(whose) {
            *all.entry(Arc::clone(id)).or_default() += bytes;
        }
    }

    fn give_back(&mut self, whose: &Whose, bytes: usize) {
        self.all = self.all.saturating_sub(bytes);
        for (all, id) in self.shares(whose) {
            if let Some(own) = all.get_mut(id) {
                *own = own.saturating_sub(bytes);
                if *own == 0 {
                    all.remove(id);
                }
            }
        }
    }

    fn shares<'a>(&mut self, whose: &'a Whose) -> impl Iterator<Item = (&mut HashMap<Arc<str>, usize>, &'a Arc<str>)> {
        let own = whose.is_own().then_some((&mut self.own, &whose.owner));
        [(&mut self.owners, &whose.owner), (&mut self.callers, &whose.caller)].into_iter().chain(own)
    }
}

/// Whose an answer is.
#[derive(Debug)]
pub(super) struct Whose {
    /// The integration or the destination that gives it.
    owner: Arc<str>,
    /// The application that asked for it; the empty name is that of the gateway, whose own calls share as one does.
    caller: Arc<str>,
}

impl Whose {
    /// An answer of this integration or destination, to this application or to the gateway itself.
    pub fn of(owner: &Arc<str>, caller: Option<&Arc<str>>) -> Self {
        Self { owner: Arc::clone(owner), caller: caller.cloned().unwrap_or_default() }
    }

    fn is_own(&self) -> bool {
        self.caller.is_empty()
    }
}

/// Where the bound stands, and what is counted.
#[derive(Debug)]
struct Bound {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
}

impl Answers {
    /// Nothing yet, within the bound of the settings in force.
    pub fn within(live: &Arc<Live>, metrics: &Arc<Metrics>) -> Self {
        let bound = Bound { live: Arc::clone(live), metrics: Arc::clone(metrics) };
        Self { held: Mutex::default(), bound: Some(bound) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for an answer of at most so many bytes, or a quarter of all where that is less: asked before a
    /// call goes, so that one that would be made for nothing is not made.
    pub fn has_room(&self, whose: &Whose, bytes: usize) -> bool {
        let Some(Bound { live, metrics }) = &self.bound else { return true };
        let most = live.load().gateway.limits.whole_answer_bytes;
        let has_room = self.held().fits(whose, (bytes.min(most / 4), 0), most);
        if !has_room {
            metrics.whole_answers_refused.with_label_values::<&str>(&[]).inc();
        }
        has_room
    }

    fn take(&self, whose: &Whose, (more, first): (usize, usize)) -> bool {
        let Some(Bound { live, metrics }) = &self.bound else { return true };
        let most = live.load().gateway.limits.whole_answer_bytes;
        let mut held = self.held();
        let fits = held.fits(whose, (more, first), most);
        if fits {
            held.take(whose, more);
            self.show(held.all);
        } else {
            metrics.whole_answers_refused.with_label_values::<&str>(&[]).inc();
        }
        fits
    }

    fn give_back(&self, whose: &Whose, bytes: usize) {
        if self.bound.is_none() {
            return;
        }
        let mut held = self.held();
        held.give_back(whose, bytes);
        self.show(held.all);
    }

    fn show(&self, bytes: usize) {
        if let Some(Bound { metrics, .. }) = &self.bound {
            let gauge = metrics.whole_answer_bytes.with_label_values::<&str>(&[]);
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

/// One answer's part.
#[derive(Debug)]
pub(super) struct Part {
    answers: Arc<Answers>,
    whose: Whose,
    taken: usize,
}

impl Part {
    /// Nothing yet, of an answer that is somebody's.
    pub fn of(answers: &Arc<Answers>, whose: Whose) -> Self {
        Self { answers: Arc::clone(answers), whose, taken: 0 }
    }

    /// Takes what an answer of `length` bytes needs.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn reach(&mut self, length: usize, status: u16) -> Result<(), Reason> {
        let more = length.saturating_sub(UNCOUNTED).saturating_sub(self.taken);
        if more > 0 && !self.answers.take(&self.whose, (more, self.taken)) {
            return Err(Reason::Unread { status });
        }
        self.taken += more;
        Ok(())
    }

    /// The body, which holds its part as long as anything of it is there.
    pub fn hold(self, body: Bytes) -> Bytes {
        if self.taken == 0 { body } else { holding(body, self) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.answers.give_back(&self.whose, self.taken);
        }
    }
}

/// A body that holds something for as long as anything of it is there.
pub fn holding<T: Send + 'static>(body: Bytes, held: T) -> Bytes {
    Bytes::from_owner(Holding { body, _held: held })
}

struct Holding<T> {
    body: Bytes,
    _held: T,
}

impl<T> AsRef<[u8]> for Holding<T> {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1_000;

    fn take(held: &mut Held, (owner, caller): (&str, &str), more: usize) -> bool {
        let whose = Whose { owner: owner.into(), caller: caller.into() };
        let fits = held.fits(&whose, (more, 0), MOST);
        if fits {
            held.take(&whose, more);
        }
        fits
    }

    #[test]
    fn beyond_its_first_answer_nobody_has_more_than_half_of_what_the_others_leave() {
        let mut held = Held::default();
        // Each integration is asked by an application of its own, so either share is the other.
        let mut take = |id: &str, more: usize| take(&mut held, (id, id), more);
        assert!((0..5).all(|_| take("greedy", 100)) && !take("greedy", 100), "half of all");
        assert!(take("first", 300) && !take("first", 1), "one answer may take more than half of what is left");
        assert!(take("second", 100) && take("third", 100) && !take("third", 1));
        let first = Whose::of(&"first".into(), Some(&"first".into()));
        assert!(held.fits(&first, (100, 300), 1_100), "an answer that is alone grows");
    }

    #[test]
    fn an_application_takes_no_more_by_calling_many_integrations() {
        let mut held = Held::default();
        let owners: Vec<String> = (0..20).map(|number| format!("service-{number}")).collect();
        let greedy = |held: &mut Held| owners.iter().filter(|owner| take(held, (owner.as_str(), "greedy"), 50)).count();
        assert_eq!((greedy(&mut held), greedy(&mut held)), (10, 0), "half of all");
        // The gateway's own calls, and others, have half of what is left then, and their first answers in any case.
        assert!(take(&mut held, ("service-0", ""), 200) && !take(&mut held, ("service-1", ""), 100));
        assert!(take(&mut held, ("alone", "other"), 150) && !take(&mut held, ("alone", "other"), 100));
        for (owner, caller, bytes) in [("alone", "other", 150), ("service-0", "", 200)] {
            held.give_back(&Whose { owner: owner.into(), caller: caller.into() }, bytes);
        }
        for owner in owners.iter().take(10) {
            held.give_back(&Whose { owner: owner.as_str().into(), caller: "greedy".into() }, 50);
        }
        assert!(held.all == 0 && held.owners.is_empty() && held.callers.is_empty() && held.own.is_empty(), "{held:?}");
    }

    #[test]
    fn one_service_does_not_take_what_the_gateway_has_for_its_own_calls() {
        let mut held = Held::default();
        assert!(take(&mut held, ("slow", ""), 600), "one answer alone may take more than its share");
        held.give_back(&Whose::of(&"slow".into(), None), 600);
        assert_eq!((0..20).filter(|_| take(&mut held, ("slow", ""), 50)).count(), 5, "a quarter");
        assert!(take(&mut held, ("tokens", ""), 50) && take(&mut held, ("others", ""), 50));
        assert!(take(&mut held, ("slow", "app"), 50), "an application's call is not the gateway's");
    }

    #[test]
    fn an_integration_takes_no_more_by_being_called_by_many() {
        let mut held = Held::default();
        let taken = (0..20).filter(|number| take(&mut held, ("slow", format!("app-{number}").as_str()), 50)).count();
        assert_eq!(taken, 10);
        assert!(take(&mut held, ("quick", "app-0"), 100));
    }
}
