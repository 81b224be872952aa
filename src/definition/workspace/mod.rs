//! A whole deployment from its files: the gateway file and the definitions it names.
//!
//! Reading is parallel and incremental: a file whose bytes and references are what they were is taken
//! over as it is, with its compiled definition. What is wrong is told for all files at once, and what
//! files need of each other is looked at last. Called by `reload`, the CLI and tests.

mod definition;
mod origin;
mod own;
mod scan;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::bound::{self, LeftOut, Share};
use super::catalogue;
use super::load::bytes;
use super::load::environment::Environment;
use super::load::reach::{Bounded, Reach};
use super::plan;
use super::plan::gateway::Gateway;
use super::problem::{Code, Place, Problem, settle};
use super::render::Report;
use super::resolve::resolve;
use super::scope::{Outline, Scope, brief};
use super::templates::Templates;

use definition::Stamp;
pub use definition::{Compiled, Content, Definition};
use origin::{Origins, Way};
pub use scan::{Selection, is_yaml, select};

/// The name of the gateway file in a deployment's directory.
pub const GATEWAY_FILE: &str = "trunkline.yaml";

/// A deployment as its files stand.
#[derive(Debug, Default)]
pub struct Deployment {
    /// The gateway file; `None` when only definitions were asked for.
    pub gateway: Option<Arc<Definition<Gateway>>>,
    /// The definitions, by path.
    pub integrations: Vec<Arc<Definition<plan::Integration>>>,
    /// What is wrong with files because of others or of directories, by file.
    pub crossing: HashMap<Arc<PathBuf>, Vec<Problem>>,
    /// How much more is, which is not kept, by file.
    crossing_left_out: HashMap<Arc<PathBuf>, LeftOut>,
    /// Files with an id that another file has.
    duplicates: HashSet<Arc<PathBuf>>,
    /// The directories in which definitions were looked for, and those below them.
    pub directories: BTreeSet<PathBuf>,
    /// Directories that could not be read: nobody can say what is in them.
    pub unreadable: Vec<PathBuf>,
    /// Whether these are all definitions of a deployment, and no single files.
    complete: bool,
}

/// How to read a deployment.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// What references are looked up in.
    pub environment: &'a dyn Environment,
    /// The last reading of the same deployment, from which unchanged files are taken.
    pub previous: Option<&'a Deployment>,
    /// Whether resolved documents are kept, for `show`.
    pub keep_documents: bool,
}

impl Reading<'_> {
    /// Reads what was selected.
    pub fn read(&self, selection: &Selection) -> Deployment {
        let previous = self.previous.and_then(|last| last.gateway.as_ref());
        let gateway = selection.gateway.as_ref().map(|file| {
            let last = previous.filter(|last| last.file == *file);
            self.one(file, &Way::Named(file), last, &Templates::new())
        });
        let mut scanned = scan::definitions(selection, gateway.as_deref());
        let reach = gateway.as_deref().map(reach_of);
        let bounded = Bounded { all: self.environment, reach: reach.as_ref() };
        let origins = Origins::new(&selection.files, &scanned, reach.as_ref());
        let integrations = Reading { environment: &bounded, ..*self }.all(&scanned.files, &origins);
        catalogue::forget();
        let mut deployment = Deployment {
            gateway,
            integrations,
            crossing: std::mem::take(&mut scanned.problems),
            crossing_left_out: HashMap::new(),
            duplicates: HashSet::new(),
            directories: scanned.directories,
            unreadable: scanned.unreadable,
            complete: selection.files.is_empty(),
        };
        deployment.cross(self.previous);
        deployment
    }

    /// Reads definitions on all cores.
    fn all(&self, files: &[Arc<PathBuf>], origins: &Origins<'_>) -> Vec<Arc<Definition<plan::Integration>>> {
        let last = self.previous.iter().flat_map(|last| &last.integrations);
        let last: HashMap<&OsStr, _> = last.map(|last| (last.file.as_os_str(), last)).collect();
        let templates = Templates::new();
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(files.len() / 8).max(1);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((place, file)) = take(&next, files) {
                let last = last.get(file.as_os_str()).copied();
                let read = match origins.way(file) {
                    Ok(way) => self.one(file, &way, last, &templates),
                    Err(problem) => Arc::new(Definition::unread(file, *problem, last.map(|last| &**last))),
                };
                done.push((place, read));
            }
            done
        };
        let mut read = if cores == 1 {
            work()
        } else {
            std::thread::scope(|scope| {
                let others: Vec<_> = (1..cores).map(|_| scope.spawn(work)).collect();
                let mut done = work();
                for other in others {
                    // A panic ends the whole reading: a file that is left out would count as removed.
                    done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                }
                done
            })
        };
        read.sort_by_key(|(place, _)| *place);
        read.into_iter().map(|(_, definition)| definition).collect()
    }

    /// Reads a file, or takes it over when nothing about it changed.
    fn one<T: Compiled>(
        &self,
        file: &Arc<PathBuf>,
        way: &Way<'_>,
        last: Option<&Arc<Definition<T>>>,
        templates: &Templates,
    ) -> Arc<Definition<T>> {
        let stamp = Stamp::of(file);
        if let Some(last) = last.filter(|last| last.is_same_file(stamp) && self.suffices(last)) {
            return Arc::clone(last);
        }
        let content = match way.read(file) {
            Ok(content) => content,
            Err(problem) => return Arc::new(Definition::unread(file, *problem, last.map(|last| &**last))),
        };
        let digest: [u8; 32] = Sha256::digest(&content).into();
        if let Some(last) = last.filter(|last| last.digest == Some(digest) && self.suffices(last)) {
            last.confirm(stamp);
            return Arc::clone(last);
        }
        let text = match bytes::text(file, &content) {
            Ok(text) => text,
            Err(problem) => return Arc::new(Definition::unread(file, *problem, last.map(|last| &**last))),
        };
        let resolved = resolve(T::KIND, file, &text, self.environment);
        let unreadable = resolved.document.is_none();
        let mut definition = Definition::of(resolved, file, templates, self.keep_documents);
        definition.digest = Some(digest);
        // A file that does not say its id now is still the one that it was.
        if let (None, Some(last)) = (&definition.id, last) {
            definition.id.clone_from(&last.id);
        }
        if let (true, Some(last)) = (unreadable, last) {
            definition.outline = Outline { complete: false, ..last.outline.clone() };
            definition.offers.clone_from(&last.offers);
            definition.directories.clone_from(&last.directories);
        }
        // Settings that do not count must not open what those in force keep closed.
        if let (None, Some(last)) = (&definition.compiled, last) {
            definition.own.clone_from(&last.own);
        }
        Arc::new(definition)
    }

    /// Whether what was read before has all that is wanted, and its references say what they said.
    fn suffices<T>(&self, last: &Definition<T>) -> bool {
        (last.document.is_some() || !self.keep_documents)
            && last.dependencies.iter().all(|dependency| dependency.is_current(self.environment))
    }
}

/// What the definitions of a gateway file's deployment may name.
fn reach_of(gateway: &Definition<Gateway>) -> Reach {
    let home = gateway.file.parent().unwrap_or(Path::new(""));
    let of_definitions = gateway.directories.iter().map(|(name, _)| home.join(name));
    Reach::of(std::iter::once(home.to_owned()).chain(of_definitions), &gateway.own)
}

fn take<'a, T>(next: &AtomicUsize, items: &'a [T]) -> Option<(usize, &'a T)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    items.get(place).map(|item| (place, item))
}

/// What is wrong with files because of others, and how much more is.
type Crossing<'a> = (&'a mut HashMap<Arc<PathBuf>, Vec<Problem>>, &'a mut HashMap<Arc<PathBuf>, LeftOut>);

/// Keeps its share of what is wrong with a file: on its own first, then because of others.
fn cut<T>(read: &mut Arc<Definition<T>>, share: Share, (crossing, crossing_left_out): &mut Crossing<'_>) {
    let mut own = read.problems.to_vec();
    let (rest, left_out) = share.cut(&mut own);
    if left_out.all() > 0 {
        *read = Arc::new(read.with(own, left_out));
    }
    if let Some(found) = crossing.get_mut(&read.file) {
        let (_, left_out) = rest.cut(found);
        crossing_left_out.insert(Arc::clone(&read.file), left_out);
    }
}

impl Deployment {
    /// Looks at what files need of each other. Of two files with one id the one that had it before keeps
    /// it, so that a new file cannot take over one that is in force; else the first by path.
    fn cross(&mut self, previous: Option<&Self>) {
        // What a file that cannot be read defines nobody can say: it may be what another one names.
        let all_known = self.unreadable.is_empty() && self.integrations.iter().all(|read| read.id.is_some());
        let mut scope = Scope {
            gateway: self.gateway.as_ref().map(|gateway| gateway.offers.clone()),
            complete: self.complete && all_known,
            ..Scope::default()
        };
        let mut first: HashMap<Arc<str>, &Place> = HashMap::new();
        let owned: BTreeSet<(&Path, &str)> = previous.iter().flat_map(|last| last.owners()).collect();
        let is_owner = |read: &&Arc<Definition<_>>| {
            read.id.as_ref().is_some_and(|(id, _)| owned.contains(&(read.file.as_path(), &**id)))
        };
        let (owners, others): (Vec<_>, Vec<_>) = self.integrations.iter().partition(is_owner);
        for definition in owners.into_iter().chain(others) {
            let Some((id, place)) = &definition.id else { continue };
            if let Some(earlier) = first.get(id) {
                let message = format!("another file defines `{}` as well", brief(id));
                let at = format!("{}:{}", earlier.file.display(), earlier.span.start);
                let problem = Problem::error(Code::DuplicateId, place.clone(), message);
                let problem = problem.help(format!("It is {at}; give one of them another id."));
                self.crossing.entry(Arc::clone(&definition.file)).or_default().push(problem);
                self.duplicates.insert(Arc::clone(&definition.file));
            } else {
                first.insert(Arc::clone(id), place);
                scope.integrations.insert(Arc::clone(id), definition.outline.clone());
            }
        }
        let links = self.integrations.iter().map(|read| (&read.file, &read.links));
        let links = links.chain(self.gateway.iter().map(|read| (&read.file, &read.links)));
        for (file, links) in links {
            let faults = scope.faults(file, links);
            if !faults.is_empty() {
                self.crossing.entry(Arc::clone(file)).or_default().extend(faults);
            }
        }
    }

    /// The files that own their id, with it.
    fn owners(&self) -> impl Iterator<Item = (&Path, &str)> {
        let owners = self.integrations.iter().filter(|read| !self.duplicates.contains(&read.file));
        owners.filter_map(|read| Some((read.file.as_path(), &*read.id.as_ref()?.0)))
    }

    /// Keeps so many of the faults of all files together, as [`Share::of`] parts them. What is not kept of a file stays so
    /// until the file is read anew.
    pub fn bound(&mut self, most: usize) {
        let gateway = self.gateway.iter().map(|read| self.count(read));
        let counts: Vec<_> = gateway.chain(self.integrations.iter().map(|read| self.count(read))).collect();
        let share = Share::of(&counts, most);
        let mut counts = counts.into_iter();
        let mut crossing = (&mut self.crossing, &mut self.crossing_left_out);
        if let Some(read) = self.gateway.as_mut().filter(|_| counts.next().is_some_and(|count| !share.holds(count))) {
            cut(read, share, &mut crossing);
        }
        for (read, _) in self.integrations.iter_mut().zip(counts).filter(|(_, count)| !share.holds(*count)) {
            cut(read, share, &mut crossing);
        }
    }

    fn count<T>(&self, read: &Definition<T>) -> (usize, usize) {
        let (own, crossing) = (bound::count(&read.problems), self.crossing.get(&read.file));
        let crossing = crossing.map(|found| bound::count(found)).unwrap_or_default();
        (own.0 + crossing.0, own.1 + crossing.1)
    }

    /// How much of what is wrong with a file is not kept.
    pub fn left_out<T>(&self, read: &Definition<T>) -> LeftOut {
        read.left_out.and(self.crossing_left_out.get(&read.file).copied().unwrap_or_default())
    }

    /// All that is wrong with a file, as far as it is kept.
    pub fn problems<T>(&self, read: &Definition<T>) -> Arc<[Problem]> {
        let Some(crossing) = self.crossing.get(&read.file) else { return Arc::clone(&read.problems) };
        let mut problems = read.problems.to_vec();
        problems.extend(crossing.iter().cloned());
        settle(&mut problems);
        problems.into()
    }

    /// The files that were read, each with what of it may be shown.
    pub fn contents(&self) -> impl Iterator<Item = Content<'_>> {
        let integrations = self.integrations.iter().filter_map(|read| read.content());
        integrations.chain(self.gateway.iter().filter_map(|read| read.content()))
    }

    /// Stands for the gateway file and what it refers to.
    pub fn gateway_digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        if let Some(gateway) = &self.gateway {
            digest.update(gateway.digest.unwrap_or_default());
            for dependency in &gateway.dependencies {
                digest.update(dependency.digest());
            }
        }
        digest.finalize().into()
    }

    /// The files that references name, anywhere in the deployment.
    pub fn referenced_files(&self) -> BTreeSet<PathBuf> {
        let files = self.integrations.iter().flat_map(|read| read.referenced_files());
        files.chain(self.gateway.iter().flat_map(|read| read.referenced_files())).map(Path::to_owned).collect()
    }

    /// The secrets that references name, anywhere in the deployment, by their paths.
    pub fn referenced_secrets(&self) -> BTreeSet<&str> {
        let secrets = self.integrations.iter().flat_map(|read| read.referenced_secrets());
        secrets.chain(self.gateway.iter().flat_map(|read| read.referenced_secrets())).collect()
    }

    /// What was found in all files. Reads the texts of those with problems again, for excerpts.
    pub fn report(&self) -> Report {
        let mut report = Report { files: self.integrations.len(), ..Report::default() };
        for read in &self.integrations {
            read.tell(self.crossing.contains_key(&read.file), &mut report);
        }
        if let Some(gateway) = &self.gateway {
            report.files += 1;
            gateway.tell(self.crossing.contains_key(&gateway.file), &mut report);
        }
        report.problems.extend(self.crossing.values().flatten().cloned());
        for entry in catalogue::ids().filter_map(catalogue::entry) {
            report.texts.insert(Arc::clone(&entry.file), Arc::clone(&entry.text));
        }
        settle(&mut report.problems);
        report
    }
}
