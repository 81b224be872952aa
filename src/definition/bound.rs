//! How many faults the running gateway keeps of all files together.
//!
//! One wrong merge may give thousands of files fifty faults each. Those of one file are bounded where it is read; here
//! their sum is, so that neither the log nor a page nor the memory has to hold what nobody reads. Errors come before
//! warnings and notices, no file loses its first ones, and each says how many more it has: `trunkline check` of the file
//! tells them. Called by [`super::workspace`] for `reload`; commands tell all.

use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{Problem, settle};
use super::render::passes_over;

/// How many faults of a file were found and are not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ProblemsLeftOut)]
pub struct LeftOut {
    /// Those that keep the file from counting.
    pub errors: usize,
    /// Warnings and notices.
    pub others: usize,
}

impl LeftOut {
    /// How many there are.
    pub fn all(self) -> usize {
        self.errors + self.others
    }

    /// With those of another list of the same file.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { errors: self.errors + other.errors, others: self.others + other.others }
    }
}

/// How many faults each file may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    errors: usize,
    others: usize,
}

impl Share {
    /// What each file may keep, so that all together keep `most`, and each at least one error and one other. `counts` are
    /// the errors and the others of each file.
    pub fn of(counts: &[(usize, usize)], most: usize) -> Self {
        let errors = level(counts.iter().map(|(errors, _)| *errors).collect(), most);
        let kept = counts.iter().map(|(count, _)| (*count).min(errors)).sum();
        let others = level(counts.iter().map(|(_, others)| *others).collect(), most.saturating_sub(kept));
        Self { errors, others }
    }

    /// Whether all of so many errors and others are kept.
    pub fn holds(self, (errors, others): (usize, usize)) -> bool {
        errors <= self.errors && others <= self.others
    }

    /// Keeps of a list as many as this allows, the first ones by their place; before them one that tells that the file
    /// could not be read to its end, by which excerpts know what to hide. Answers what is left of the share, and what was
    /// left out.
    pub fn cut(mut self, problems: &mut Vec<Problem>) -> (Self, LeftOut) {
        let mut left_out = LeftOut::default();
        let keeps = |problem: &Problem| {
            let (share, missed) = if problem.is_error() {
                (&mut self.errors, &mut left_out.errors)
            } else {
                (&mut self.others, &mut left_out.others)
            };
            let keeps = *share > 0;
            *share = share.saturating_sub(1);
            *missed += usize::from(!keeps);
            keeps
        };
        let (first, rest): (Vec<_>, Vec<_>) =
            std::mem::take(problems).into_iter().partition(|problem| passes_over(problem.code));
        problems.extend(first.into_iter().chain(rest).filter(keeps));
        settle(problems);
        (self, left_out)
    }
}

/// How many of a list are errors, and how many are not.
pub fn count(problems: &[Problem]) -> (usize, usize) {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    (errors, problems.len() - errors)
}

/// The most that each may have so that all have `most` together, where who has less leaves the rest to the others. At
/// least one.
fn level(mut counts: Vec<usize>, most: usize) -> usize {
    counts.sort_unstable();
    let (mut room, all) = (most, counts.len());
    for (at, count) in counts.into_iter().enumerate() {
        let share = room / (all - at);
        if count > share {
            return share.max(1);
        }
        room -= count;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::problem::{Code, Place};
    use std::path::PathBuf;
    use std::sync::Arc;

    #[test]
    fn what_few_files_leave_is_for_the_others() {
        assert_eq!(level(vec![], 10), usize::MAX);
        assert_eq!(level(vec![3, 4, 3], 10), usize::MAX, "all fit");
        assert_eq!(level(vec![50, 1, 50], 11), 5, "one leaves ten to the two others");
        assert_eq!(level(vec![50; 1_000], 20), 1, "none loses its first");
    }

    #[test]
    fn errors_come_before_what_is_no_error() {
        let share = Share::of(&[(900, 0), (0, 20), (2, 20)], 910);
        assert_eq!(share, Share { errors: usize::MAX, others: 4 });
        let all = Share::of(&[(900, 0), (0, 20)], 920);
        assert!(all.holds((900, 0)) && all.holds((0, 20)));
    }

    #[test]
    fn a_list_says_what_it_left_out() {
        let place = || Place::file(Arc::new(PathBuf::from("a.yaml")));
        let error = |message: &str| Problem::error(Code::Conflict, place(), message);
        let warning = |message: &str| Problem::warning(Code::Conflict, place(), message);
        let share = Share { errors: 2, others: 1 };
        let mut own = vec![error("a"), warning("b"), warning("c")];
        let (rest, left_out) = share.cut(&mut own);
        assert_eq!((own.len(), left_out), (2, LeftOut { errors: 0, others: 1 }));
        let mut crossing = vec![error("d"), error("e"), warning("f")];
        let (_, more) = rest.cut(&mut crossing);
        assert_eq!(crossing, [error("d")]);
        assert_eq!(left_out.and(more), LeftOut { errors: 1, others: 2 });
        assert_eq!(left_out.and(more).all(), 3);
        let broken = Problem::error(Code::Syntax, Place { pointer: "/z".to_owned(), ..place() }, "z");
        let mut unread = vec![error("a"), error("b"), broken.clone()];
        Share { errors: 1, others: 1 }.cut(&mut unread);
        assert_eq!(unread, [broken]);
    }
}
