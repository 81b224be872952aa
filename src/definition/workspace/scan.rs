//! Which files a deployment has.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::{Definition, GATEWAY_FILE};
use crate::definition::plan::gateway::Gateway;
use crate::definition::problem::{Code, Place, Problem};

/// How deep directories of definitions may be nested.
const MAX_DEPTH: usize = 8;
/// How many definitions a deployment may have.
const MAX_FILES: usize = 50_000;

/// What to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The gateway file, which names directories of definitions.
    pub gateway: Option<Arc<PathBuf>>,
    /// Files of definitions besides.
    pub files: Vec<Arc<PathBuf>>,
    /// Directories of definitions besides.
    pub directories: Vec<PathBuf>,
}

/// What the arguments of a command mean: a directory with a gateway file is a deployment, one without is
/// a directory of definitions, a file of the gateway's name is a gateway file, another is a definition.
/// Each deployment is a selection of its own.
pub fn select(paths: &[PathBuf]) -> Vec<Selection> {
    let (mut deployments, mut rest) = (Vec::new(), Selection::default());
    let mut deployment = |file: PathBuf| {
        deployments.push(Selection { gateway: Some(Arc::new(file)), ..Selection::default() });
    };
    for path in paths {
        let path = tidy(path);
        let gateway = path.join(GATEWAY_FILE);
        if path.is_dir() && gateway.is_file() {
            deployment(gateway);
        } else if path.is_dir() {
            rest.directories.push(path);
        } else if path.file_name().is_some_and(|name| name == GATEWAY_FILE) {
            deployment(path);
        } else {
            rest.files.push(Arc::new(path));
        }
    }
    if rest != Selection::default() {
        deployments.push(rest);
    }
    deployments
}

/// The files found, and what stood in the way.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub files: Vec<Arc<PathBuf>>,
    /// Those that are links.
    pub links: Vec<Arc<PathBuf>>,
    /// The directories that are named, as they are named.
    pub roots: Vec<PathBuf>,
    /// Those and the ones below them.
    pub directories: BTreeSet<PathBuf>,
    pub unreadable: Vec<PathBuf>,
    pub problems: HashMap<Arc<PathBuf>, Vec<Problem>>,
}

/// The definitions of a selection and of the directories that the gateway file names, by path.
pub(super) fn definitions(selection: &Selection, gateway: Option<&Definition<Gateway>>) -> Scanned {
    let mut scanned = Scanned { files: selection.files.clone(), ..Scanned::default() };
    if let Some(gateway) = gateway {
        let home = gateway.file.parent().unwrap_or(Path::new(""));
        for (name, place) in &gateway.directories {
            root(tidy(&home.join(name)), place, &mut scanned);
        }
    }
    for directory in &selection.directories {
        root(directory.clone(), &Place::file(Arc::new(directory.clone())), &mut scanned);
    }
    // By bytes: comparing paths part by part takes long with many.
    scanned.files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    scanned.files.dedup();
    scanned
}

fn root(directory: PathBuf, named_at: &Place, scanned: &mut Scanned) {
    scan(&directory, named_at, 0, scanned);
    scanned.roots.push(directory);
}

/// Collects the definitions of a directory and of the real directories below it. Names that begin with
/// a dot are passed over: editors' files, and the directories behind a Kubernetes volume.
fn scan(directory: &Path, named_at: &Place, depth: usize, scanned: &mut Scanned) {
    let refuse = |scanned: &mut Scanned, message: String| {
        let problem = Problem::error(Code::Unreadable, named_at.clone(), message);
        scanned.problems.entry(Arc::clone(&named_at.file)).or_default().push(problem);
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let reason = crate::definition::load::bytes::reason(&error);
            scanned.unreadable.push(directory.to_owned());
            return refuse(scanned, format!("the directory `{}` cannot be read: {reason}", directory.display()));
        }
    };
    scanned.directories.insert(directory.to_owned());
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let kind = entry.file_type().ok();
        let is_real_directory = kind.is_some_and(|kind| kind.is_dir());
        let leads_to_directory = || !kind.is_some_and(|kind| kind.is_file()) && path.is_dir();
        let is_yaml = is_yaml(&path);
        if is_real_directory && depth < MAX_DEPTH {
            scan(&path, named_at, depth + 1, scanned);
        } else if is_yaml && !leads_to_directory() {
            if scanned.files.len() >= MAX_FILES {
                return refuse(scanned, format!("there are more than {MAX_FILES} definitions"));
            }
            let file = Arc::new(path);
            if kind.is_none_or(|kind| kind.is_symlink()) {
                scanned.links.push(Arc::clone(&file));
            }
            scanned.files.push(file);
        }
    }
}

/// Whether a file of this name in a directory of definitions is one.
pub fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml")
}

/// A path without `.` parts, as people write it.
fn tidy(path: &Path) -> PathBuf {
    let tidied: PathBuf = path.components().filter(|part| !matches!(part, Component::CurDir)).collect();
    if tidied.as_os_str().is_empty() { PathBuf::from(".") } else { tidied }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let (deployment, plain) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(&deployment).and_then(|()| fs::create_dir_all(&plain)).expect("directories");
        fs::write(deployment.join(GATEWAY_FILE), "").expect("a file");
        let selections = select(&[deployment.clone(), plain.clone(), PathBuf::from("./c.yaml")]);
        let gateway = Some(Arc::new(deployment.join(GATEWAY_FILE)));
        let rest = Selection { gateway: None, files: vec![Arc::new("c.yaml".into())], directories: vec![plain] };
        assert_eq!(selections, [Selection { gateway, ..Selection::default() }, rest]);
    }

    #[test]
    fn hidden_and_other_files_are_passed_over() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("..2026"))
            .and_then(|()| fs::create_dir_all(dir.path().join("sub")))
            .expect("dirs");
        for name in ["b.yaml", "a.yml", ".swp.yaml", "c.yaml~", "..2026/d.yaml", "sub/e.yaml"] {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        let selection = Selection { directories: vec![dir.path().to_owned()], ..Selection::default() };
        let names: Vec<_> = definitions(&selection, None)
            .files
            .iter()
            .map(|file| file.strip_prefix(dir.path()).expect("below").display().to_string())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "sub/e.yaml"]);
    }
}
