//! One file of a deployment, read, checked and compiled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::definition::document::Document;
use crate::definition::load::expand::{Dependency, Source};
use crate::definition::plan;
use crate::definition::plan::gateway::Gateway;
use crate::definition::problem::{Place, Problem};
use crate::definition::resolve::{Kind, Resolved, id_place, in_order};
use crate::definition::scope::{self, GatewayOutline, Link, Outline};
use crate::definition::templates::Templates;
use crate::definition::{check, compile};

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
    pub problems: Vec<Problem>,
    /// The resolved document, kept where it was asked for.
    pub document: Option<Document>,
    pub(super) text: Option<Arc<str>>,
    pub(super) hidden: Vec<Place>,
    pub(super) digest: Option<[u8; 32]>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) outline: Outline,
    pub(super) links: Vec<Link>,
    pub(super) offers: GatewayOutline,
    /// Directories of definitions, and where they are named.
    pub(super) directories: Vec<(PathBuf, Place)>,
}

/// What a kind of file becomes.
pub trait Compiled: Sized {
    /// Which kind.
    const KIND: Kind;

    /// What a schema cannot say of a document.
    fn check(document: &Document, templates: &Templates) -> Vec<Problem>;

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
}

impl Compiled for plan::Integration {
    const KIND: Kind = Kind::Integration;

    fn check(document: &Document, templates: &Templates) -> Vec<Problem> {
        check::integration(document, templates)
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

    fn check(document: &Document, templates: &Templates) -> Vec<Problem> {
        check::gateway(document, templates)
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
}

impl<T: Compiled> Definition<T> {
    /// A file that could not be read at all. What it offered before, it may still mean to offer.
    pub(super) fn unread(file: &Arc<PathBuf>, problem: Problem, last: Option<&Self>) -> Self {
        Self {
            file: Arc::clone(file),
            id: last.and_then(|last| last.id.clone()),
            compiled: None,
            problems: vec![problem],
            document: None,
            text: None,
            hidden: Vec::new(),
            digest: None,
            dependencies: Vec::new(),
            outline: last.map(|last| Outline { complete: false, ..last.outline.clone() }).unwrap_or_default(),
            links: Vec::new(),
            offers: last.map(|last| last.offers.clone()).unwrap_or_default(),
            directories: last.map(|last| last.directories.clone()).unwrap_or_default(),
        }
    }

    /// Checks and compiles what could be read of a file.
    pub(super) fn of(resolved: Resolved, file: &Arc<PathBuf>, templates: &Templates, keep_document: bool) -> Self {
        let Resolved { document, sound, mut problems, dependencies, hidden } = resolved;
        let sound_document = sound.as_ref().map(|sound| &sound.document).or(document.as_ref());
        let found = sound_document.map(|document| T::check(document, templates)).unwrap_or_default();
        problems.extend(found.into_iter().filter(|problem| sound.as_ref().is_none_or(|sound| sound.counts(problem))));
        let sound_enough = document.as_ref().filter(|_| !problems.iter().any(Problem::is_error));
        let compiled = sound_enough.and_then(|document| match T::compile(document, templates) {
            Ok(compiled) => Some(Arc::new(compiled)),
            Err(problem) => {
                problems.push(*problem);
                None
            }
        });
        let id = document.as_ref().and_then(|document| {
            let id = document.value.get("id")?.as_str()?;
            Some((Arc::from(id), id_place(document)))
        });
        Self {
            file: Arc::clone(file),
            id,
            outline: document.as_ref().map(|read| scope::outline(read, compiled.is_some())).unwrap_or_default(),
            links: document.as_ref().map(T::links).unwrap_or_default(),
            offers: document.as_ref().map(scope::gateway_outline).unwrap_or_default(),
            directories: document.as_ref().map(T::directories).unwrap_or_default(),
            compiled,
            problems: in_order(problems),
            document: document.filter(|_| keep_document),
            text: None,
            hidden,
            digest: None,
            dependencies,
        }
    }
}

impl<T> Definition<T> {
    /// The files that its references name.
    pub fn referenced_files(&self) -> impl Iterator<Item = &Path> {
        self.dependencies.iter().filter_map(|dependency| match &dependency.source {
            Source::File(path) => Some(path.as_path()),
            Source::Env(_) => None,
        })
    }
}
