//! Whether the program serves: what `/readyz` answers.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where the program is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all doors are open yet.
    Starting,
    /// All doors are open.
    Serving,
    /// It was told to stop: requests under way end, new ones should go elsewhere.
    Draining,
}

/// The phase, shared.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// The program has come to a phase.
    pub fn enter(&self, phase: Phase) {
        let number = match phase {
            Phase::Starting => 0,
            Phase::Serving => 1,
            Phase::Draining => 2,
        };
        self.0.store(number, Ordering::SeqCst);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }
}
