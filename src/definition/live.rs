//! The one set of definitions in force, and the program's one atomic swap.
//!
//! Only `reload` writes [`Live`]. The request path loads it once per request and keeps that
//! [`Generation`] to its end, so a reload never changes a request under way.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::base::clock::Timestamp;
use crate::definition::bound::LeftOut;
use crate::definition::plan::gateway::Gateway;
use crate::definition::plan::{Fingerprint, Integration};
use crate::definition::problem::Problem;
use crate::telemetry::notice::OWN;

/// One consistent, immutable set of compiled definitions.
#[derive(Debug)]
pub struct Generation {
    /// Counts from one; grows with each swap.
    pub number: u64,
    /// When it came into force.
    pub since: Timestamp,
    /// Stands for the whole content.
    pub fingerprint: Fingerprint,
    /// The gateway's settings.
    pub gateway: Arc<Gateway>,
    /// The integrations by id. One whose file did not change is the very same `Arc` as before.
    pub integrations: HashMap<Arc<str>, Arc<Integration>>,
    /// What became of each file at the last look, the gateway file first, then by path.
    pub files: Vec<FileStatus>,
}

/// What became of one file.
#[derive(Debug, Clone)]
pub struct FileStatus {
    /// The file, as it was named to us.
    pub file: Arc<PathBuf>,
    /// The integration it defines, where that much could be read; `None` for the gateway file.
    pub integration: Option<Arc<str>>,
    /// Whether it counts.
    pub state: FileState,
    /// What is wrong with it, and what is worth knowing.
    pub problems: Arc<[Problem]>,
    /// How many more there are, which are not kept.
    pub left_out: LeftOut,
}

/// Whether a file counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// Its present content is in force.
    Loaded,
    /// Its present content has errors; its last good version is in force.
    Kept,
    /// It has errors, and there is no good version of it.
    Rejected,
}

impl FileStatus {
    /// What keeps it from counting, as far as it is kept.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.is_error())
    }
}

impl Generation {
    /// The integration with this id.
    pub fn integration(&self, id: &str) -> Option<&Arc<Integration>> {
        self.integrations.get(id)
    }

    /// What an event came to: an integration, or the gateway itself for its own events.
    pub fn home(&self, id: &str) -> Option<&Arc<Integration>> {
        if id == OWN { Some(&self.gateway.own) } else { self.integration(id) }
    }

    /// Whether the integration with this id is not in force because of errors: a file defines it and counts in no
    /// version, or there is such a file of which nobody can say what it defines. The gateway file is one as well: a
    /// directory of definitions that cannot be read is told there.
    pub fn is_faulty(&self, id: &str) -> bool {
        let may_name = |file: &FileStatus| match file.integration.as_deref() {
            Some(defined) => defined == id && file.state == FileState::Rejected,
            None => file.state != FileState::Loaded,
        };
        self.integration(id).is_none() && self.files.iter().any(may_name)
    }

    /// The files whose present content does not count, those of which no version is in force first.
    pub fn rejected(&self) -> impl Iterator<Item = &FileStatus> {
        let of = |state| self.files.iter().filter(move |file| file.state == state);
        of(FileState::Rejected).chain(of(FileState::Kept))
    }
}

/// The generation in force.
#[derive(Debug)]
pub struct Live(ArcSwap<Generation>);

impl Live {
    /// Begins with a first generation.
    pub fn new(first: Generation) -> Self {
        Self(ArcSwap::from_pointee(first))
    }

    /// The generation in force now. Keep it for the whole of a request.
    pub fn load(&self) -> Arc<Generation> {
        self.0.load_full()
    }

    /// Puts a generation into force.
    pub fn swap(&self, next: Generation) {
        self.0.store(Arc::new(next));
    }
}
