//! Those who wait for their turn: round robin between callers, and for each caller between what it calls.
//!
//! A caller that asks a thousand times gets no more than one that asks once. Who cannot go yet keeps its place
//! and holds up nobody behind it. Pure: whoever owns it says who can go.

use std::collections::VecDeque;
use std::sync::Arc;

/// Calls that wait. `W` is one of them.
#[derive(Debug)]
pub struct Queue<W> {
    /// Those who go before all others, in the order they came.
    first: VecDeque<W>,
    lines: VecDeque<Line<W>>,
    waiting: usize,
}

/// The calls of one caller.
#[derive(Debug)]
struct Line<W> {
    caller: Arc<str>,
    rows: VecDeque<Row<W>>,
}

/// Calls of one caller that draw from the same budgets, in the order they came.
#[derive(Debug)]
struct Row<W> {
    calls: VecDeque<W>,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { first: VecDeque::new(), lines: VecDeque::new(), waiting: 0 }
    }
}

impl<W> Queue<W> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Queues a call of `caller` up behind those that draw from the same budgets, as `is_alike` knows them.
    pub fn push(&mut self, caller: &Arc<str>, call: W, is_alike: impl Fn(&W, &W) -> bool) {
        self.waiting += 1;
        if self.lines.iter().all(|line| line.caller != *caller) {
            self.lines.push_back(Line { caller: Arc::clone(caller), rows: VecDeque::new() });
        }
        let Some(line) = self.lines.iter_mut().find(|line| line.caller == *caller) else { return };
        let alike = line.rows.iter_mut().find(|row| row.calls.front().is_some_and(|first| is_alike(first, &call)));
        match alike {
            Some(row) => row.calls.push_back(call),
            None => line.rows.push_back(Row { calls: VecDeque::from([call]) }),
        }
    }

    /// Queues a call up that goes before all who take turns. However many take turns, it has room.
    pub fn push_first(&mut self, call: W) {
        self.waiting += 1;
        self.first.push_back(call);
    }

    /// All who wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &W> {
        let rows = self.lines.iter().flat_map(|line| &line.rows);
        self.first.iter().chain(rows.flat_map(|row| &row.calls))
    }

    /// Keeps only the calls that `stays` knows.
    pub fn retain(&mut self, mut stays: impl FnMut(&W) -> bool) {
        self.first.retain(&mut stays);
        for line in &mut self.lines {
            for row in &mut line.rows {
                row.calls.retain(&mut stays);
            }
            line.rows.retain(|row| !row.calls.is_empty());
        }
        self.lines.retain(|line| !line.rows.is_empty());
        let in_rows = self.lines.iter().flat_map(|line| &line.rows).map(|row| row.calls.len());
        self.waiting = self.first.len() + in_rows.sum::<usize>();
    }

    /// Lets everyone go who can, in turn: `may_go` is asked for the first of each row and says whether it can.
    pub fn release(&mut self, mut may_go: impl FnMut(&W) -> bool, mut go: impl FnMut(W)) {
        let mut at = 0;
        while let Some(call) = self.first.get(at) {
            if !may_go(call) {
                at += 1;
            } else if let Some(call) = self.first.remove(at) {
                self.waiting -= 1;
                go(call);
            }
        }
        let mut place = 0;
        while let Some(line) = self.lines.get_mut(place) {
            let ready = line.rows.iter().position(|row| row.calls.front().is_some_and(&mut may_go));
            let Some(mut row) = ready.and_then(|at| line.rows.remove(at)) else {
                place += 1;
                continue;
            };
            if let Some(call) = row.calls.pop_front() {
                self.waiting -= 1;
                go(call);
            }
            if !row.calls.is_empty() {
                line.rows.push_back(row);
            }
            // Whoever had a turn goes to the end, and this place is that of the next one.
            if let Some(line) = self.lines.remove(place).filter(|line| !line.rows.is_empty()) {
                self.lines.push_back(line);
            }
        }
    }

    /// Takes out the call that `is_it` knows; `None` when it is not here.
    pub fn remove(&mut self, is_it: impl Fn(&W) -> bool) -> Option<W> {
        if let Some(at) = self.first.iter().position(&is_it) {
            self.waiting -= 1;
            return self.first.remove(at);
        }
        for place in 0..self.lines.len() {
            let line = self.lines.get_mut(place)?;
            let found = line.rows.iter().enumerate();
            let mut found = found.filter_map(|(row, of)| Some((row, of.calls.iter().position(&is_it)?)));
            let Some((row, call)) = found.next() else { continue };
            return self.take_out(place, row, call);
        }
        None
    }

    /// Takes out the newest call of the caller that has the most here, where that is at least two more than
    /// `caller` has: the room is for those who have less of it.
    pub fn yield_by_longest(&mut self, caller: &str) -> Option<W> {
        let length = |line: &Line<W>| line.rows.iter().map(|row| row.calls.len()).sum::<usize>();
        let own = self.lines.iter().find(|line| &*line.caller == caller).map_or(0, length);
        let (place, longest) = self.lines.iter().map(length).enumerate().max_by_key(|(_, length)| *length)?;
        if longest < own + 2 {
            return None;
        }
        let row = self.lines.get(place)?.rows.len().checked_sub(1)?;
        let call = self.lines.get(place)?.rows.get(row)?.calls.len().checked_sub(1)?;
        self.take_out(place, row, call)
    }

    fn take_out(&mut self, place: usize, row: usize, call: usize) -> Option<W> {
        let line = self.lines.get_mut(place)?;
        let of = line.rows.get_mut(row)?;
        let taken = of.calls.remove(call)?;
        self.waiting -= 1;
        if of.calls.is_empty() {
            line.rows.remove(row);
        }
        if line.rows.is_empty() {
            self.lines.remove(place);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls by caller and by what they draw from.
    fn queue(calls: &[(&str, &str)]) -> Queue<(String, String, usize)> {
        let mut queue = Queue::default();
        for (number, (caller, budget)) in calls.iter().enumerate() {
            let call = ((*caller).to_owned(), (*budget).to_owned(), number);
            queue.push(&Arc::from(*caller), call, |one, other| one.1 == other.1);
        }
        queue
    }

    fn released(
        queue: &mut Queue<(String, String, usize)>,
        may_go: impl FnMut(&(String, String, usize)) -> bool,
    ) -> Vec<usize> {
        let mut gone = Vec::new();
        queue.release(may_go, |call| gone.push(call.2));
        gone
    }

    #[test]
    fn callers_take_turns_whoever_came_first() {
        let mut queue = queue(&[("a", "x"), ("a", "x"), ("a", "x"), ("b", "x"), ("c", "x"), ("b", "x")]);
        assert_eq!(released(&mut queue, |_| true), [0, 3, 4, 1, 5, 2]);
        assert!(queue.is_empty() && queue.lines.is_empty());
    }

    #[test]
    fn who_cannot_go_holds_up_nobody_and_keeps_its_place() {
        let mut queue = queue(&[("a", "shut"), ("a", "open"), ("b", "shut"), ("c", "open")]);
        assert_eq!(released(&mut queue, |call| call.1 == "open"), [1, 3]);
        assert_eq!(queue.len(), 2);
        assert_eq!(released(&mut queue, |_| true), [2, 0], "a has had a turn");
    }

    #[test]
    fn a_call_leaves_from_anywhere() {
        let mut queue = queue(&[("a", "x"), ("a", "x"), ("b", "y")]);
        assert_eq!(queue.remove(|call| call.2 == 1).map(|call| call.2), Some(1));
        assert_eq!(queue.remove(|call| call.2 == 1), None);
        assert_eq!((released(&mut queue, |_| true), queue.len()), (vec![0, 2], 0));
    }

    #[test]
    fn who_is_first_goes_before_all_and_never_makes_room() {
        let mut queue = queue(&[("a", "x"), ("b", "x")]);
        for number in [7, 8] {
            queue.push_first((String::new(), "x".to_owned(), number));
        }
        assert_eq!((queue.len(), queue.yield_by_longest("c")), (4, None));
        let mut turns = 3;
        let gone = released(&mut queue, |_| {
            turns -= 1;
            turns >= 0
        });
        assert_eq!((gone, queue.len()), (vec![7, 8, 0], 1));
    }

    #[test]
    fn who_does_not_stay_is_gone_from_everywhere() {
        let mut queue = queue(&[("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]);
        queue.push_first((String::new(), "x".to_owned(), 9));
        assert_eq!(queue.iter().count(), 5);
        queue.retain(|call| call.1 == "y");
        assert_eq!((queue.len(), released(&mut queue, |_| true)), (2, vec![1, 3]));
    }

    #[test]
    fn the_longest_line_makes_room() {
        let mut queue = queue(&[("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")]);
        assert_eq!(queue.yield_by_longest("b").map(|call| call.2), Some(2));
        assert_eq!(queue.yield_by_longest("b"), None, "one more is no unfairness");
        assert_eq!(queue.yield_by_longest("c").map(|call| call.2), Some(1));
    }
}
