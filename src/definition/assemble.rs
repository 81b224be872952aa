//! A deployment's files to the generation that counts.
//!
//! A good file counts; an unchanged one keeps its very same `Arc`; a faulty one keeps its last good
//! version in force and touches no other. Called by `reload`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::bound::LeftOut;
use super::live::{FileState, FileStatus, Generation};
use super::plan::gateway::Gateway;
use super::plan::{Fingerprint, Integration};
use super::problem::{Code, Place, Problem};
use super::workspace::Deployment;
use crate::base::clock::Timestamp;

/// Puts a generation together. `None` when there is neither a good gateway file nor a previous one.
pub fn assemble(previous: Option<&Generation>, deployment: &Deployment, now: Timestamp) -> Option<Generation> {
    let (gateway, gateway_status) = gateway(previous, deployment)?;
    let before = previous.map(|last| index(&last.files)).unwrap_or_default();
    let mut assembly = Assembly { previous, before, integrations: HashMap::new(), files: Vec::new() };
    let faulty: Vec<_> = deployment.integrations.iter().filter(|read| !assembly.take_good(deployment, read)).collect();
    for read in faulty {
        let found = (deployment.problems(read), deployment.left_out(read));
        let named = read.id.as_ref().map(|(id, _)| Arc::clone(id));
        assembly.keep(&read.file, named, found);
    }
    assembly.keep_unseen(deployment);
    let Assembly { integrations, mut files, .. } = assembly;
    files.sort_by(|a, b| a.file.as_os_str().cmp(b.file.as_os_str()));
    files.insert(0, gateway_status);
    Some(Generation {
        number: previous.map_or(1, |last| last.number + 1),
        since: now,
        fingerprint: fingerprint(deployment, &integrations),
        gateway,
        integrations,
        files,
    })
}

fn gateway(previous: Option<&Generation>, deployment: &Deployment) -> Option<(Arc<Gateway>, FileStatus)> {
    let read = deployment.gateway.as_ref()?;
    let problems = deployment.problems(read);
    let good = read.compiled.as_ref().filter(|_| !problems.iter().any(Problem::is_error));
    let (gateway, state) = match (good, previous) {
        (Some(good), _) => (Arc::clone(good), FileState::Loaded),
        (None, Some(last)) => (Arc::clone(&last.gateway), FileState::Kept),
        (None, None) => (Arc::clone(read.compiled.as_ref()?), FileState::Kept),
    };
    let (file, left_out) = (Arc::clone(&read.file), deployment.left_out(read));
    Some((gateway, FileStatus { file, integration: None, state, problems, left_out }))
}

/// Files by name, byte for byte: hashing a path part by part takes long with many.
pub fn index(files: &[FileStatus]) -> HashMap<&OsStr, &FileStatus> {
    files.iter().map(|status| (status.file.as_os_str(), status)).collect()
}

struct Assembly<'a> {
    previous: Option<&'a Generation>,
    before: HashMap<&'a OsStr, &'a FileStatus>,
    integrations: HashMap<Arc<str>, Arc<Integration>>,
    files: Vec<FileStatus>,
}

impl Assembly<'_> {
    /// Takes a file in when it is good.
    fn take_good(&mut self, deployment: &Deployment, read: &super::workspace::Definition<Integration>) -> bool {
        let problems = deployment.problems(read);
        let Some(compiled) = read.compiled.as_ref().filter(|_| !problems.iter().any(Problem::is_error)) else {
            return false;
        };
        let same = self.previous.and_then(|last| last.integration(&compiled.id));
        let kept = same.filter(|last| last.fingerprint == compiled.fingerprint).unwrap_or(compiled);
        self.integrations.insert(Arc::clone(&compiled.id), Arc::clone(kept));
        self.files.push(FileStatus {
            file: Arc::clone(&read.file),
            integration: Some(Arc::clone(&compiled.id)),
            state: FileState::Loaded,
            problems,
            left_out: deployment.left_out(read),
        });
        true
    }

    /// Keeps what a faulty file was in force as, if it was.
    fn keep(&mut self, file: &Arc<PathBuf>, named: Option<Arc<str>>, (problems, left_out): (Arc<[Problem]>, LeftOut)) {
        let before = self.before.get(file.as_os_str()).filter(|status| status.state != FileState::Rejected);
        let id = before.and_then(|status| status.integration.clone());
        let good = id.as_ref().and_then(|id| Some((Arc::clone(id), self.previous?.integration(id)?)));
        let (integration, state) = match good {
            Some((id, good)) if !self.integrations.contains_key(&id) => {
                self.integrations.insert(Arc::clone(&id), Arc::clone(good));
                (Some(id), FileState::Kept)
            }
            _ => (named, FileState::Rejected),
        };
        self.files.push(FileStatus { file: Arc::clone(file), integration, state, problems, left_out });
    }

    /// Keeps what came from directories that cannot be read now.
    fn keep_unseen(&mut self, deployment: &Deployment) {
        let unseen = |file: &PathBuf| deployment.unreadable.iter().any(|directory| file.starts_with(directory));
        let lost: Vec<_> =
            self.before.values().filter(|status| unseen(&status.file)).map(|s| Arc::clone(&s.file)).collect();
        for file in lost {
            let message = "the file's directory cannot be read";
            let problem = Problem::error(Code::Unreadable, Place::file(Arc::clone(&file)), message);
            self.keep(&file, None, (Arc::new([problem]), LeftOut::default()));
        }
    }
}

/// Stands for all that is in force.
fn fingerprint(deployment: &Deployment, integrations: &HashMap<Arc<str>, Arc<Integration>>) -> Fingerprint {
    let mut all: Vec<_> = integrations.values().map(|integration| (&integration.id, integration.fingerprint)).collect();
    all.sort();
    let mut digest = Sha256::new();
    digest.update(deployment.gateway_digest());
    for (id, fingerprint) in all {
        digest.update(id.as_bytes());
        digest.update(fingerprint.0);
    }
    Fingerprint(digest.finalize().into())
}
