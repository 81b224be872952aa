//! What a simulated service keeps for a later process, with a count of its changes, so that whoever writes it need not
//! compare it. Called by `oauth`.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value whose changes are counted.
#[derive(Debug, Default)]
pub(super) struct Counted<T> {
    value: Mutex<T>,
    changes: AtomicU64,
}

/// The value, for one at a time. It counts as changed once it is borrowed for that.
pub(super) struct Borrowed<'a, T> {
    value: MutexGuard<'a, T>,
    changes: &'a AtomicU64,
}

impl<T> Counted<T> {
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changes: AtomicU64::new(0) }
    }

    pub fn borrow(&self) -> Borrowed<'_, T> {
        Borrowed { value: self.value.lock().unwrap_or_else(PoisonError::into_inner), changes: &self.changes }
    }

    /// How often it changed. What is borrowed after this was asked has all the changes counted here.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Borrowed<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changes.fetch_add(1, Ordering::SeqCst);
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_and_looks_do_not() {
        let counted = Counted::new(vec![1]);
        assert_eq!((counted.borrow().len(), counted.changes()), (1, 0));
        counted.borrow().push(2);
        assert_eq!((counted.borrow().len(), counted.changes()), (2, 1));
    }
}
