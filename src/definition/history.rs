//! What was in force before what is: the newest generations, and of each file the text in force, the one before it and
//! the one that is refused. Written by `reload`, read by `admin`, which shows how they differ.
//!
//! Secrets are hidden before a text is kept, and all texts together are bounded.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::assemble::index;
use super::live::{FileState, Generation};
use super::load::bytes;
use super::render::redact;
use super::workspace::{Content, Deployment};
use crate::base::clock::Timestamp;

/// Generations that are remembered.
const GENERATIONS: usize = 50;

/// A file as it was read.
#[derive(Debug, Clone)]
pub struct Version {
    /// The generation in which it came.
    pub generation: u64,
    /// When.
    pub at: Timestamp,
    /// Its text, without secrets.
    pub text: Arc<str>,
    /// What stands for each line as it was read, so that lines are compared as they were, and not as they are shown.
    lines: Arc<[u64]>,
}

impl Version {
    /// How another version differs from this one, as a unified diff has it.
    pub fn diff(&self, to: &Self) -> Vec<String> {
        let (old, new): (Vec<&str>, Vec<&str>) = (self.text.lines().collect(), to.text.lines().collect());
        if old.len() != self.lines.len() || new.len() != to.lines.len() {
            let diff = similar::TextDiff::from_lines(&*self.text, &*to.text);
            return diff.unified_diff().context_radius(AROUND).to_string().lines().map(str::to_owned).collect();
        }
        let mut told = Vec::new();
        let all = similar::capture_diff_slices(similar::Algorithm::Myers, &self.lines, &to.lines);
        for hunk in similar::group_diff_ops(all, AROUND) {
            told.push(similar::udiff::UnifiedHunkHeader::new(&hunk).to_string());
            for change in hunk.iter().flat_map(|op| op.iter_slices(&old, &new)) {
                let (sign, lines) = match change {
                    // As the version before has it, which is hidden by what is known of it.
                    (similar::ChangeTag::Equal, lines) => (' ', lines),
                    (similar::ChangeTag::Delete, lines) => ('-', lines),
                    (similar::ChangeTag::Insert, lines) => ('+', lines),
                };
                told.extend(lines.iter().map(|line| format!("{sign}{line}")));
            }
        }
        told
    }
}

/// Lines that are shown around what differs.
const AROUND: usize = 3;

/// What stands for each line of a text, in this process alone.
fn digests(text: &str) -> Arc<[u64]> {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    text.lines().map(|line| SEED.hash_one(line)).collect()
}

/// What became of a file.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    /// What is in force.
    pub in_force: Option<Version>,
    /// What was in force before.
    pub before: Option<Version>,
    /// What its present content says, where that is refused.
    pub refused: Option<Version>,
}

/// A generation that came into force.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Generation)]
pub struct Came {
    /// Its number.
    pub generation: u64,
    /// When.
    pub since: String,
    /// What stands for its content.
    pub fingerprint: String,
    /// What it changed.
    #[serde(flatten)]
    pub changes: Changes,
    /// Files whose content does not count.
    pub rejected: Vec<String>,
}

/// What a generation changed.
#[derive(Debug, Clone, Default, Serialize, utoipa::ToSchema)]
#[schema(as = GenerationChanges)]
pub struct Changes {
    /// Integrations that are new.
    pub added: Vec<Arc<str>>,
    /// Integrations that are another version.
    pub changed: Vec<Arc<str>>,
    /// Integrations that are gone.
    pub removed: Vec<Arc<str>>,
    /// Files whose content is not what it was; those that are new or gone as well.
    pub files: Vec<String>,
}

type Digested = [u8; 32];
/// A text without secrets, and what stands for its lines.
type Read = (Arc<str>, Arc<[u64]>);

/// All of it.
#[derive(Debug, Default)]
pub struct History(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    files: HashMap<Arc<PathBuf>, (Digested, Versions)>,
    /// Texts that were read and not yet judged.
    fresh: HashMap<Arc<PathBuf>, (Digested, Option<Read>)>,
    bytes: usize,
    generations: VecDeque<Came>,
}

impl History {
    /// Reads the texts of files that are not what they were, while all that are kept have at most so many bytes. Of a
    /// file that does not fit there is no text, and so nothing to compare. Returns how many did not. Waits for the disk.
    pub fn look(&self, deployment: &Deployment, most: usize) -> u64 {
        let mut left_out = 0;
        for Content { file, digest, secrets, known: how_well } in deployment.contents() {
            let known = self.lock().files.get(file).map(|(digest, _)| *digest);
            if known == Some(digest) {
                continue;
            }
            let Ok(content) = bytes::read(file) else { continue };
            // One that has changed again is read the next time.
            if <Digested>::from(Sha256::digest(&content)) != digest {
                continue;
            }
            let Ok(text) = bytes::text(file, &content) else { continue };
            let lines = digests(&text);
            let text: Arc<str> = redact::text(&text, &secrets, how_well).into();
            let mut state = self.lock();
            let fits = state.bytes.saturating_add(text.len()) <= most;
            if fits {
                state.bytes += text.len();
            } else {
                left_out += 1;
            }
            state.fresh.insert(Arc::clone(file), (digest, fits.then_some((text, lines))));
        }
        left_out
    }

    /// Notes what became of the files, as a generation has it, at a look. Never waits.
    pub fn note(&self, generation: &Generation, at: Timestamp) {
        let mut state = self.lock();
        let fresh = std::mem::take(&mut state.fresh);
        let told = index(&generation.files);
        for (file, (digest, text)) in fresh {
            let Some(status) = told.get(file.as_os_str()) else { continue };
            let (known, versions) = state.files.entry(file).or_default();
            *known = digest;
            match text {
                Some((text, lines)) => {
                    versions.take(Version { generation: generation.number, at, text, lines }, status.state);
                }
                // It is not known what it was, so that nothing can be compared with what it is next.
                None => *versions = Versions::default(),
            }
        }
        // What is judged otherwise with the same content, and what is gone.
        let mut bytes = 0;
        state.files.retain(|file, (_, versions)| {
            let Some(status) = told.get(file.as_os_str()) else { return false };
            if status.state == FileState::Loaded
                && let Some(accepted) = versions.refused.take()
            {
                versions.take(accepted, FileState::Loaded);
            }
            bytes += versions.bytes();
            true
        });
        state.bytes = bytes;
    }

    /// Notes a generation that came into force.
    pub fn came(&self, generation: &Generation, changes: Changes) {
        let mut state = self.lock();
        state.generations.push_front(Came {
            generation: generation.number,
            since: generation.since.to_string(),
            fingerprint: generation.fingerprint.to_string(),
            changes,
            rejected: generation.rejected().map(|file| file.file.display().to_string()).collect(),
        });
        state.generations.truncate(GENERATIONS);
    }

    /// The newest generations, newest first.
    pub fn generations(&self) -> Vec<Came> {
        self.lock().generations.iter().cloned().collect()
    }

    /// What became of a file; `None` for one whose text is not kept.
    pub fn file(&self, file: &Path) -> Option<Versions> {
        let state = self.lock();
        state.files.iter().find(|(known, _)| known.as_path() == file).map(|(_, (_, versions))| versions.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Versions {
    fn take(&mut self, version: Version, state: FileState) {
        if state != FileState::Loaded {
            self.refused = Some(version);
            return;
        }
        self.refused = None;
        // What was refused and taken back has changed nothing.
        if self.in_force.as_ref().is_some_and(|now| now.text == version.text) {
            return;
        }
        self.before = self.in_force.replace(version);
    }

    fn bytes(&self) -> usize {
        [&self.in_force, &self.before, &self.refused].into_iter().flatten().map(|version| version.text.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(generation: u64, text: &str) -> Version {
        Version { generation, at: Timestamp::from_seconds(generation), text: text.into(), lines: digests(text) }
    }

    #[test]
    fn what_was_in_force_is_kept_beside_what_is_and_what_is_refused() {
        let mut versions = Versions::default();
        versions.take(version(1, "a"), FileState::Loaded);
        versions.take(version(2, "b"), FileState::Loaded);
        versions.take(version(3, "broken"), FileState::Kept);
        let text = |version: &Option<Version>| version.as_ref().map(|version| version.text.to_string());
        let all = [text(&versions.in_force), text(&versions.before), text(&versions.refused)];
        assert_eq!(all, [Some("b".into()), Some("a".into()), Some("broken".into())]);
        versions.take(version(4, "b"), FileState::Loaded);
        assert_eq!((text(&versions.before), text(&versions.refused)), (Some("a".into()), None));
        assert_eq!(versions.bytes(), 2);
    }

    #[test]
    fn lines_are_compared_as_they_were_and_shown_as_they_may_be() {
        let known = Version { text: "a: 1\nurl: x\nkey: [hidden]\n".into(), ..version(1, "a: 1\nurl: x\nkey: one\n") };
        let broken = "a: 1\nurl: x\nkey: one\nb: [\n";
        let broken = Version { text: "a: 1\nurl: [hidden]\nkey: [hidden]\nb: [\n".into(), ..version(2, broken) };
        assert_eq!(known.diff(&broken), ["@@ -1,3 +1,4 @@", " a: 1", " url: x", " key: [hidden]", "+b: ["]);
        let other = Version { text: Arc::clone(&known.text), ..version(2, "a: 1\nurl: x\nkey: two\n") };
        let changed = ["@@ -1,3 +1,3 @@", " a: 1", " url: x", "-key: [hidden]", "+key: [hidden]"];
        assert_eq!(known.diff(&other), changed, "a secret that changed is a change");
    }
}
