//! One file of a deployment, read, checked and compiled.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use crate::definition::bound::LeftOut;
use crate::definition::document::Document;
use crate::definition::load::bytes;
use crate::definition::load::expand::{Dependency, Source};
use crate::definition::load::reach::Own;
use crate::definition::plan;
use crate::definition::plan::gateway::Gateway;
use crate::definition::problem::{Code, Place, Problem, are_enough, of_file};
use crate::definition::render::redact::Known;
use crate::definition::render::{self, Report};
use crate::definition::resolve::{Kind, Resolved, id_place};
use crate::definition::scope::{self, GatewayOutline, Link, Outline};
use crate::definition::templates::Templates;
use crate::definition::{check, compile};

use super::own::own;

/// What tells that a file was not written since: its identity, size and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file that a path leads to now.
    pub fn of(path: &Path) -> Option<Self> {
        let of = std::fs::metadata(path).ok()?;
        let (modified, changed) = ((of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()));
        Some(Self { device: of.dev(), inode: of.ino(), size: of.size(), modified, changed })
    }
}

/// The content of a file, as what is shown of it is made from it.
#[derive(Debug)]
pub struct Content<'a> {
    /// The file.
    pub file: &'a Arc<PathBuf>,
    /// The digest of its content.
    pub digest: [u8; 32],
    /// Where secrets stand in it.
    pub secrets: Vec<&'a Place>,
    /// How well that is known.
    pub known: Known,
}

/// One file as it stands, read.
#[derive(Debug)]
pub struct Definition<T> {
    /// The file, as it was named to us.
    pub file: Arc<PathBuf>,
    /// The id it gives itself, where that much can be read.
    pub id: Option<(Arc<str>, Place)>,
    /// What it becomes; `None` when it has errors.
    pub compiled: Option<Arc<T>>,
    /// What is wrong with it on its own, in order.
    pub problems: Arc<[Problem]>,
    /// How much more is, which is not kept.
    pub left_out: LeftOut,
    /// The resolved document, kept where it was asked for.
    pub document: Option<Document>,
    /// Where secrets stand in it, those that were told included.
    pub(super) hidden: Vec<Place>,
    pub(super) digest: Option<[u8; 32]>,
    /// The file's stamp when its content was read and found the same a second time.
    confirmed: OnceLock<Stamp>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) outline: Outline,
    pub(super) links: Vec<Link>,
    pub(super) offers: GatewayOutline,
    /// Directories of definitions, and where they are named.
    pub(super) directories: Vec<(PathBuf, Place)>,
    /// What it says of the references of definitions.
    pub(super) own: Own,
}

/// What a kind of file becomes.
pub trait Compiled: Sized {
    /// Which kind.
    const KIND: Kind;

    /// What a schema cannot say of a document; what is at the pointers `faulty` was told already.
    fn check(document: &Document, faulty: &[String], templates: &Templates) -> Vec<Problem>;

    /// What a document without faults becomes.
    ///
    /// # Errors
    /// A fault that no earlier step found.
    fn compile(document: &Document, templates: &Templates) -> Result<Self, Box<Problem>>;

    /// What it needs of other files.
    fn links(document: &Document) -> Vec<Link>;

    /// The directories of definitions that it names, and where.
    fn directories(_: &Document) -> Vec<(PathBuf, Place)> {
        Vec::new()
    }

    /// What it says of the references of definitions.
    fn own(_: &Document) -> Own {
        Own::default()
    }
}

impl Compiled for plan::Integration {
    const KIND: Kind = Kind::Integration;

    fn check(document: &Document, faulty: &[String], templates: &Templates) -> Vec<Problem> {
        check::integration(document, faulty, templates)
    }

    fn compile(document: &Document, templates: &Templates) -> Result<Self, Box<Problem>> {
        compile::integration(document, templates)
    }

    fn links(document: &Document) -> Vec<Link> {
        scope::links(document)
    }
}

impl Compiled for Gateway {
    const KIND: Kind = Kind::Gateway;

    fn check(document: &Document, faulty: &[String], templates: &Templates) -> Vec<Problem> {
        check::gateway(document, faulty, templates)
    }

    fn compile(document: &Document, templates: &Templates) -> Result<Self, Box<Problem>> {
        compile::gateway(document, templates)
    }

    fn links(document: &Document) -> Vec<Link> {
        scope::gateway_links(document)
    }

    fn directories(document: &Document) -> Vec<(PathBuf, Place)> {
        let named = document.value.get("integrations").and_then(serde_json::Value::as_array);
        let named = named.into_iter().flatten().enumerate();
        named
            .filter_map(|(at, name)| Some((name.as_str()?.into(), document.place(&format!("/integrations/{at}")))))
            .collect()
    }

    fn own(document: &Document) -> Own {
        own(document)
    }
}

impl<T: Compiled> Definition<T> {
    /// A file that could not be read at all. What it offered before, it may still mean to offer.
    pub(super) fn unread(file: &Arc<PathBuf>, problem: Problem, last: Option<&Self>) -> Self {
        Self {
            file: Arc::clone(file),
            id: last.and_then(|last| last.id.clone()),
            compiled: None,
            problems: Arc::new([problem]),
            left_out: LeftOut::default(),
            document: None,
            hidden: Vec::new(),
            digest: None,
            confirmed: OnceLock::new(),
            dependencies: Vec::new(),
            outline: last.map(|last| Outline { complete: false, ..last.outline.clone() }).unwrap_or_default(),
            links: Vec::new(),
            offers: last.map(|last| last.offers.clone()).unwrap_or_default(),
            directories: last.map(|last| last.directories.clone()).unwrap_or_default(),
            own: last.map(|last| last.own.clone()).unwrap_or_default(),
        }
    }

    /// Checks and compiles what could be read of a file.
    pub(super) fn of(resolved: Resolved, file: &Arc<PathBuf>, templates: &Templates, keep_document: bool) -> Self {
        let Resolved { document, sound, mut problems, dependencies, mut hidden } = resolved;
        let complete = document.is_some() && !problems.iter().any(scope::may_hide);
        match (&sound, &document) {
            _ if are_enough(&problems) => {}
            (Some(sound), _) => problems.extend(T::check(&sound.document, &sound.faulty, templates)),
            (None, Some(document)) => problems.extend(T::check(document, &[], templates)),
            (None, None) => {}
        }
        let sound_enough = document.as_ref().filter(|_| !problems.iter().any(Problem::is_error));
        let compiled = sound_enough.and_then(|document| match T::compile(document, templates) {
            Ok(compiled) => Some(Arc::new(compiled)),
            Err(problem) => {
                problems.push(*problem);
                None
            }
        });
        let id = document.as_ref().filter(|_| !problems.iter().any(spoils_id)).and_then(|document| {
            let id = document.value.get("id")?.as_str()?;
            Some((Arc::from(id), id_place(document)))
        });
        let literal = problems.iter().filter(|problem| problem.code == Code::LiteralSecret);
        hidden.extend(literal.map(|problem| problem.place.clone()));
        Self {
            file: Arc::clone(file),
            id,
            outline: document.as_ref().map(|read| scope::outline(read, complete)).unwrap_or_default(),
            links: document.as_ref().map(T::links).unwrap_or_default(),
            offers: document.as_ref().map(scope::gateway_outline).unwrap_or_default(),
            directories: document.as_ref().map(T::directories).unwrap_or_default(),
            own: document.as_ref().map(T::own).unwrap_or_default(),
            compiled,
            problems: of_file(problems).into(),
            left_out: LeftOut::default(),
            document: document.filter(|_| keep_document),
            hidden,
            digest: None,
            confirmed: OnceLock::new(),
            dependencies,
        }
    }
}

/// Whether it keeps a file from saying its id: what stands there is none. A reserved one is.
fn spoils_id(problem: &Problem) -> bool {
    problem.is_error() && problem.place.pointer == "/id" && problem.code != Code::ReservedId
}

impl<T> Definition<T> {
    /// The same with so much of what is wrong with it, and with how much more was left out now.
    pub(super) fn with(&self, problems: Vec<Problem>, left_out: LeftOut) -> Self {
        Self {
            file: Arc::clone(&self.file),
            id: self.id.clone(),
            compiled: self.compiled.clone(),
            problems: problems.into(),
            left_out: self.left_out.and(left_out),
            document: self.document.clone(),
            hidden: self.hidden.clone(),
            digest: self.digest,
            confirmed: self.confirmed.clone(),
            dependencies: self.dependencies.clone(),
            outline: self.outline.clone(),
            links: self.links.clone(),
            offers: self.offers.clone(),
            directories: self.directories.clone(),
            own: self.own.clone(),
        }
    }

    /// Whether the file need not be read to know that it did not change. A stamp is trusted when the
    /// content was read twice under it: a write right after the first read may share its stamp.
    pub(super) fn is_same_file(&self, stamp: Option<Stamp>) -> bool {
        stamp.is_some() && self.confirmed.get() == stamp.as_ref()
    }

    /// Remembers that the content was the same under this stamp. A later stamp with the same content,
    /// as after `touch`, is not remembered: the file is then read each time.
    pub(super) fn confirm(&self, stamp: Option<Stamp>) {
        if let Some(stamp) = stamp {
            self.confirmed.get_or_init(|| stamp);
        }
    }

    /// Puts what is wrong with the file on its own into a report, and its text where it is wanted and
    /// still what was read.
    pub(super) fn tell(&self, has_more: bool, report: &mut Report) {
        report.problems.extend(self.problems.iter().cloned());
        report.hidden.extend(self.hidden.iter().cloned());
        if self.problems.is_empty() && !has_more {
            return;
        }
        let Some(digest) = self.digest else { return };
        let content = bytes::read(&self.file).ok();
        let same = content.filter(|content| digest == <[u8; 32]>::from(Sha256::digest(content)));
        if let Some(text) = same.and_then(|content| bytes::text(&self.file, &content).ok()) {
            report.texts.insert(Arc::clone(&self.file), text);
        }
    }

    /// The file and what of it may be shown, where it could be read. One with more faults than are listed is something else.
    pub(super) fn content(&self) -> Option<Content<'_>> {
        let digest = self.digest.filter(|_| !self.problems.iter().any(|problem| problem.code == Code::TooLarge))?;
        let secrets = self.hidden.iter().filter(|place| place.file == self.file).collect();
        // What is in comments no document tells.
        let known = match render::known(self.problems.iter()) {
            Known::All => Known::Most,
            known => known,
        };
        Some(Content { file: &self.file, digest, secrets, known })
    }

    /// The secrets that its references name, by their paths.
    pub fn referenced_secrets(&self) -> impl Iterator<Item = &str> {
        self.dependencies.iter().filter_map(|dependency| match &dependency.source {
            Source::Secret(path, _) => Some(path.as_str()),
            Source::Env(_) | Source::File(_) => None,
        })
    }

    /// The files that its references name.
    pub fn referenced_files(&self) -> impl Iterator<Item = &Path> {
        self.dependencies.iter().filter_map(|dependency| match &dependency.source {
            Source::File(path) => Some(path.as_path()),
            Source::Env(_) | Source::Secret(..) => None,
        })
    }
}
