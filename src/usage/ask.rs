//! Questions about the tallies, and their answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::slot::{Cell, Series, Slot};
use super::times::Sum;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// The first minute.
    pub from: u32,
    /// The minute after the last.
    pub to: u32,
    /// Minutes of a point; at least one.
    pub step: u32,
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only this endpoint's.
    pub endpoint: Option<String>,
}

/// Counts together, and how long calls took.
#[derive(Debug, Clone, Default)]
pub struct Total {
    /// The counts; its times are empty.
    pub counts: Cell,
    /// How long those took that were sent to the service.
    pub times: Sum,
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The first minute: a multiple of the step.
    pub from: u32,
    /// The minute after the last: a multiple of the step.
    pub to: u32,
    /// Minutes of a point: what was asked for, or more where less is not kept any more.
    pub step: u32,
    /// A point for each step; `None` while the gateway did not run.
    pub points: Vec<Option<Total>>,
    /// All points together.
    pub total: Total,
    /// The same by integration.
    pub integrations: BTreeMap<Arc<str>, Total>,
    /// The same by integration and endpoint.
    pub series: BTreeMap<Series, Total>,
}

impl Total {
    fn add(&mut self, cell: &Cell) {
        self.counts.add(cell);
        self.times.add(&cell.times);
    }
}

impl Question {
    /// Answers it from slots by their first minutes, in any order.
    pub fn answer(mut self, slots: &[(u32, Arc<Slot>)]) -> Answer {
        self.step = self.step.max(1);
        let within = |minute: u32, question: &Self| (question.from..question.to).contains(&minute);
        let widest = slots.iter().filter(|(minute, _)| within(*minute, &self)).map(|(_, slot)| slot.width).max();
        // A point that is finer than what is kept would have all of its neighbours' calls, or none.
        self.step = self.step.checked_next_multiple_of(widest.unwrap_or(1).max(1)).unwrap_or(self.step);
        self.from -= self.from % self.step;
        self.to = self.to.checked_next_multiple_of(self.step).unwrap_or(self.to);
        let count = self.to.saturating_sub(self.from) / self.step;
        let mut answer = Answer {
            from: self.from,
            to: self.to,
            step: self.step,
            points: vec![None; usize::try_from(count).unwrap_or_default()],
            ..Answer::default()
        };
        for (minute, slot) in slots.iter().filter(|(minute, _)| within(*minute, &self)) {
            let place = usize::try_from((minute - self.from) / self.step).unwrap_or(usize::MAX);
            let Some(point) = answer.points.get_mut(place) else { continue };
            let point = point.get_or_insert_default();
            for (series, cell) in slot.cells.iter().filter(|(series, _)| self.wants(series)) {
                point.add(cell);
                answer.total.add(cell);
                answer.integrations.entry(Arc::clone(&series.integration)).or_default().add(cell);
                answer.series.entry(series.clone()).or_default().add(cell);
            }
        }
        answer
    }

    fn wants(&self, series: &Series) -> bool {
        let integration = self.integration.as_deref().is_none_or(|wanted| *series.integration == *wanted);
        integration && self.endpoint.as_deref().is_none_or(|wanted| series.endpoint.as_deref() == Some(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    fn slot(width: u32, calls: usize) -> Arc<Slot> {
        let mut slot = Slot::empty(width);
        for _ in 0..calls {
            slot.cells.entry(sample(0).series).or_default().count(&sample(0));
        }
        Arc::new(slot)
    }

    fn asked(from: u32, to: u32, step: u32) -> Question {
        Question { from, to, step, integration: None, endpoint: None }
    }

    fn counts(answer: &Answer) -> Vec<Option<u64>> {
        answer.points.iter().map(|point| point.as_ref().map(|point| point.counts.requests)).collect()
    }

    #[test]
    fn minutes_without_calls_are_zero_and_those_without_the_gateway_are_gaps() {
        let slots = [(100, slot(1, 3)), (101, slot(1, 0)), (103, slot(1, 2))];
        let answer = asked(100, 104, 1).answer(&slots);
        assert_eq!(counts(&answer), [Some(3), Some(0), None, Some(2)]);
        assert_eq!((answer.total.counts.requests, answer.series.len()), (5, 1));
        assert_eq!(counts(&asked(100, 104, 2).answer(&slots)), [Some(3), Some(2)]);
    }

    #[test]
    fn a_point_is_never_finer_than_what_is_kept() {
        let slots = [(90, slot(15, 7)), (105, slot(1, 1)), (106, slot(1, 1))];
        let answer = asked(97, 110, 1).answer(&slots);
        assert_eq!(
            (answer.from, answer.step, counts(&answer)),
            (97, 1, vec![None; 8].into_iter().chain([Some(1), Some(1), None, None, None]).collect())
        );
        let answer = asked(90, 110, 2).answer(&slots);
        assert_eq!((answer.from, answer.to, answer.step), (90, 120, 15));
        assert_eq!(counts(&answer), [Some(7), Some(2)]);
    }

    #[test]
    fn only_what_is_wanted_is_counted_and_a_point_of_nothing_is_zero() {
        let slots = [(100, slot(1, 3))];
        let of = |integration: &str, endpoint: Option<&str>| {
            let question = Question {
                integration: Some(integration.to_owned()),
                endpoint: endpoint.map(str::to_owned),
                ..asked(100, 101, 1)
            };
            counts(&question.answer(&slots))
        };
        assert_eq!(
            (of("shop", None), of("shop", Some("orders")), of("shop", Some("x")), of("other", None)),
            (vec![Some(3)], vec![Some(3)], vec![Some(0)], vec![Some(0)],)
        );
    }
}
