//! Where the content of a definition may come from.
//!
//! What is read as a definition is shown to many: in excerpts, in the log, on the page. Whoever can put a link into a
//! directory of definitions must not have other files shown by it, so files that were found there are read where they
//! are, and links only as far as the directories of definitions go. Files that a command names are the operator's choice.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::scan::Scanned;
use crate::definition::load::bytes;
use crate::definition::load::reach::Reach;
use crate::definition::problem::{Code, Place, Problem};

/// The way to the content of a file.
pub(super) enum Way<'a> {
    /// Wherever its name leads.
    Named(&'a Path),
    /// What is at this path, if that is no link.
    Found(PathBuf),
}

impl Way<'_> {
    /// Reads a file.
    ///
    /// # Errors
    /// As [`bytes::read`].
    pub fn read(&self, file: &Path) -> Result<Vec<u8>, Box<Problem>> {
        match self {
            Self::Named(path) => bytes::read(path),
            Self::Found(path) => bytes::read_itself(file, path),
        }
    }
}

/// The ways to the definitions of a deployment.
pub(super) struct Origins<'a> {
    /// Files that were named, and not found in a directory.
    named: HashSet<&'a OsStr>,
    /// Files that are links.
    links: HashSet<&'a OsStr>,
    /// Where the directories of definitions really are.
    directories: Vec<PathBuf>,
    reach: Option<&'a Reach>,
}

impl<'a> Origins<'a> {
    pub fn new(named: &'a [Arc<PathBuf>], scanned: &'a Scanned, reach: Option<&'a Reach>) -> Self {
        Self {
            named: named.iter().map(|file| file.as_os_str()).collect(),
            links: scanned.links.iter().map(|file| file.as_os_str()).collect(),
            directories: scanned.roots.iter().filter_map(|root| root.canonicalize().ok()).collect(),
            reach,
        }
    }

    /// The way to a file's content.
    ///
    /// # Errors
    /// When it is a link that leads to nothing, or to what no definition may be.
    pub fn way<'f>(&self, file: &'f Arc<PathBuf>) -> Result<Way<'f>, Box<Problem>> {
        if self.named.contains(file.as_os_str()) {
            return Ok(Way::Named(file));
        }
        if !self.links.contains(file.as_os_str()) {
            return Ok(Way::Found(PathBuf::clone(file)));
        }
        let problem = |code, message: String| Box::new(Problem::error(code, Place::file(Arc::clone(file)), message));
        let real = file.canonicalize().map_err(|error| {
            problem(Code::Unreadable, format!("the file cannot be read: {}", bytes::reason(&error)))
        })?;
        let is_own = self.reach.is_some_and(|reach| reach.is_own(&real));
        let within = self.directories.iter().any(|directory| real.starts_with(directory));
        let message = match (is_own, within) {
            (false, true) => return Ok(Way::Found(real)),
            (true, _) => "this is a link to what is the gateway's own, and is not read",
            (false, false) => "this is a link that leads out of the directories of definitions, and is not read",
        };
        let problem = problem(Code::OutOfReach, message.to_owned());
        Err(Box::new(problem.help(
            "A link counts by where it leads: to a file in a directory that `integrations` lists. Put the file itself \
             here, or list its directory.",
        )))
    }
}
