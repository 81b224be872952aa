//! What follows from a try: done, another try, or the dead-letter list.

use std::time::Duration;

use super::job::{Again, Report};
use crate::base::clock::Timestamp;
use crate::base::random::Random;
use crate::definition::plan::rule::Retry;
use crate::store::model::Verdict;

/// How long work waits for an integration that is not loaded, from its event's arrival: a file with a
/// fault must not cost events.
const WAIT_FOR_INTEGRATION: Duration = Duration::from_hours(24);
/// How often such work looks again.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// The longest wait that another side may ask for.
const LONGEST: Duration = Duration::from_hours(24);

/// How long work may be held back in one stretch: by our own limits, an open circuit, a person.
const HELD: Duration = Duration::from_hours(24);
/// How long what is held back waits where nobody can say.
const UNTOLD: Duration = Duration::from_secs(10);

/// What follows from a try, which is number `attempt` (from one) under a schedule. A wait that the other side asks for
/// is kept to, at most a day, and the schedule's own jitter comes on top of it, so that a crowd that was
/// told one time does not come back at once.
/// Work that was held back is no try and uses none up; it has been waiting `since`.
pub fn verdict(
    report: &Report,
    (attempt, since): (u32, Timestamp),
    retry: &Retry,
    now: Timestamp,
    random: &dyn Random,
) -> Verdict {
    let Err(failed) = &report.result else { return Verdict::Done };
    if let Again::Held(wait) = failed.again {
        // The more there are, the more would come at once.
        let jitter = retry.backoff.pause(1, random);
        let due = now.after(wait.unwrap_or(UNTOLD).min(LONGEST)).after(jitter);
        return if now.since(since) < HELD { Verdict::Held { due } } else { Verdict::Dead };
    }
    if attempt >= retry.attempts {
        return Verdict::Dead;
    }
    let pause = retry.backoff.pause(attempt, random);
    match failed.again {
        Again::Never | Again::Held(_) => Verdict::Dead,
        Again::Scheduled => Verdict::Retry { due: now.after(pause) },
        Again::After(asked) => Verdict::Retry { due: now.after(asked.min(LONGEST)).after(pause) },
    }
}

/// What follows when the integration of an event is not loaded.
pub fn unloaded(received_at: Timestamp, now: Timestamp) -> Verdict {
    let waits = now.since(received_at) < WAIT_FOR_INTEGRATION;
    if waits { Verdict::Held { due: now.after(LOOK_AGAIN) } } else { Verdict::Dead }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn follows(again: Again, attempt: u32) -> Verdict {
        verdict(&Report::failed(None, "no", again), (attempt, NOW), &Retry::default(), NOW, &SeededRandom::new(7))
    }

    #[test]
    fn the_third_try_is_the_last() {
        assert!(matches!(follows(Again::Scheduled, 2), Verdict::Retry { .. }));
        assert_eq!(follows(Again::Scheduled, 3), Verdict::Dead);
        assert_eq!(follows(Again::Never, 1), Verdict::Dead);
        let done = verdict(&Report::done(None), (9, NOW), &Retry::default(), NOW, &SeededRandom::new(7));
        assert_eq!(done, Verdict::Done);
    }

    #[test]
    fn what_is_held_back_uses_up_no_try_and_ends_after_a_day() {
        let held = Report::failed(None, "the circuit is open", Again::Held(Some(Duration::from_secs(30))));
        let follows = |since: Timestamp| {
            let now = since.after(Duration::from_hours(23));
            let later = since.after(Duration::from_hours(24));
            let at = |now| verdict(&held, (9, since), &Retry::default(), now, &SeededRandom::new(7));
            (at(now), at(later))
        };
        let (first, last) = follows(NOW);
        assert!(
            matches!(first, Verdict::Held { due } if due.since(NOW.after(Duration::from_hours(23))).as_secs() >= 30)
        );
        assert_eq!(last, Verdict::Dead);
    }

    proptest! {
        #[test]
        fn waits_lie_between_what_was_asked_and_what_the_schedule_adds(
            asked in 0_u64..200_000, attempt in 1_u32..3, seed in any::<u64>(),
        ) {
            let random = SeededRandom::new(seed);
            let report = Report::failed(Some(429), "later", Again::After(Duration::from_secs(asked)));
            let Verdict::Retry { due } = verdict(&report, (attempt, NOW), &Retry::default(), NOW, &random) else {
                return Err(TestCaseError::fail("another try was due"));
            };
            let (least, most) = (asked.min(86_400), asked.min(86_400) + 4);
            prop_assert!((least..=most).contains(&due.since(NOW).as_secs()));
        }
    }
}
