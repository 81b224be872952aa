//! How far the references of integration files reach.
//!
//! Whoever writes a definition chooses where its calls go, so whatever a definition may name its author can have sent
//! to a host of their own. Files are therefore named below the deployment's directories and those that the gateway
//! file lists, judged by where they really are; secrets of a secret store are named by the paths that it lists, or by
//! any; what is the gateway's own is named by no definition. The gateway file itself is the operator's, and names what it wants. Called by `workspace`.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::definition::plan::rule::Glob;

use super::environment::{Environment, FileFault, SecretFault, VariableError, read_text};

/// Where secrets are mounted by container runtimes: what lies right in it may be named where the gateway file lists
/// no directories. What lies deeper may be the identity of the pod itself.
pub const MOUNTED: &str = "/run/secrets";

/// How names of variables begin that the program itself reads.
const OURS: &str = "TRUNKLINE_";

/// What the gateway file says of references, as it is written there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    /// Variables that it takes secrets from.
    pub variables: BTreeSet<String>,
    /// Files that it takes secrets from.
    pub files: Vec<PathBuf>,
    /// The directory of the state.
    pub state: Option<PathBuf>,
    /// Secrets of the secret store that it takes for itself, by path.
    pub secrets: BTreeSet<String>,
    /// The only secrets of the store that definitions may name; `None` where it lists none.
    pub secrets_listed: Option<Vec<Glob>>,
    /// Directories besides, below which definitions may name files; `None` where it lists none.
    pub listed: Option<Vec<PathBuf>>,
}

/// What definitions may name.
#[derive(Debug, Default)]
pub struct Reach {
    /// Directories below which they may name files.
    below: Vec<PathBuf>,
    /// A directory of which they may name the files right in it.
    right_in: Option<PathBuf>,
    /// Files and directories that are the gateway's own.
    own: Vec<PathBuf>,
    /// Variables that are.
    variables: BTreeSet<String>,
    /// Secrets of the secret store that are.
    secrets: BTreeSet<String>,
    /// The only secrets that they may name; `None` is all others.
    secrets_listed: Option<Vec<Glob>>,
}

impl Reach {
    /// What the definitions of a deployment may name: its `homes` are the directories of its gateway file and its
    /// definitions. Where each really is, is found out now.
    pub fn of(homes: impl IntoIterator<Item = PathBuf>, own: &Own) -> Self {
        // A deployment in the root directory has no directory of its own.
        let homes = homes.into_iter().map(|home| really(&home)).filter(|home| home.parent().is_some());
        let listed = own.listed.iter().flatten().map(|directory| really(directory));
        Self {
            below: homes.chain(listed).collect(),
            right_in: own.listed.is_none().then(|| really(Path::new(MOUNTED))),
            own: own.files.iter().chain(&own.state).map(|path| really(path)).collect(),
            variables: own.variables.clone(),
            secrets: own.secrets.clone(),
            secrets_listed: own.secrets_listed.clone(),
        }
    }

    /// Whether definitions may name a secret of the secret store. One path has one spelling: others are no secret
    /// there, or would be another way past this.
    fn permit(&self, path: &str) -> Result<(), SecretFault> {
        let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let listed = self.secrets_listed.as_ref().is_none_or(|listed| listed.iter().any(|glob| glob.matches(path)));
        match () {
            () if self.secrets.contains(path) => Err(SecretFault::Own),
            () if !plain || !listed => Err(SecretFault::Outside),
            () => Ok(()),
        }
    }

    /// The text of a file that definitions may name.
    fn read(&self, path: &Path) -> Result<String, FileFault> {
        let real = really(path);
        if self.is_own(&real) {
            return Err(FileFault::Own);
        }
        let within = self.below.iter().any(|directory| real.starts_with(directory));
        let mounted = self.right_in.as_deref().is_some_and(|directory| real.parent() == Some(directory));
        if !within && !mounted {
            return Err(FileFault::Outside);
        }
        // What was judged is read, and not what the name leads to by now.
        read_text(&real).map_err(FileFault::Unread)
    }

    /// Whether what is at a path, all links followed, is the gateway's own.
    pub fn is_own(&self, real: &Path) -> bool {
        self.own.iter().any(|own| is_of(real, own))
    }

    fn is_own_variable(&self, name: &str) -> bool {
        is_ours(name) || self.variables.contains(name)
    }
}

/// Whether the program itself reads a variable of this name, now or in a later version.
fn is_ours(name: &str) -> bool {
    name.starts_with(OURS)
}

/// Whether a path is an own file or below an own directory, or a file that is about to replace an own one.
fn is_of(real: &Path, own: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let partial = own.file_stem().map(|stem| format!("{}.partial-", stem.to_string_lossy()));
    let replaces = || {
        real.parent() == own.parent()
            && name(real).zip(partial).is_some_and(|(name, partial)| name.starts_with(&partial))
    };
    real.starts_with(own) || replaces()
}

/// Where a path leads once all symbolic links are followed. As much as is not there is taken as it is written.
fn really(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (mut real, mut missing) = (PathBuf::new(), false);
    for part in absolute.components() {
        if part == Component::ParentDir {
            real.pop();
        } else {
            real.push(part);
        }
        if !missing {
            match real.canonicalize() {
                Ok(found) => real = found,
                Err(_) => missing = true,
            }
        }
    }
    real
}

/// An environment of which definitions see what they may.
#[derive(Debug)]
pub struct Bounded<'a> {
    /// All there is.
    pub all: &'a dyn Environment,
    /// What of it; `None` where no gateway file says, so that only what is the program's own anywhere is kept back.
    pub reach: Option<&'a Reach>,
}

impl Bounded<'_> {
    fn is_own_variable(&self, name: &str) -> bool {
        self.reach.map_or_else(|| is_ours(name), |reach| reach.is_own_variable(name))
    }
}

impl Environment for Bounded<'_> {
    fn variable(&self, name: &str) -> Result<String, VariableError> {
        if self.is_own_variable(name) { Err(VariableError::Own) } else { self.all.variable(name) }
    }

    fn names(&self) -> Vec<String> {
        self.all.names().into_iter().filter(|name| !self.is_own_variable(name)).collect()
    }

    fn secret(&self, path: &str, field: &str) -> Result<String, SecretFault> {
        self.reach.map_or(Ok(()), |reach| reach.permit(path))?;
        self.all.secret(path, field)
    }

    fn file(&self, path: &Path) -> Result<String, FileFault> {
        self.reach.map_or_else(|| self.all.file(path), |reach| reach.read(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A deployment with a secret, a master key, a state, and a secret outside.
    struct Yard {
        dir: tempfile::TempDir,
    }

    impl Yard {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            for name in ["home/integrations", "home/data/journal", "home/..data", "elsewhere"] {
                fs::create_dir_all(dir.path().join(name)).expect("a directory");
            }
            let files = ["home/secret", "home/master.key", "home/data/journal/1", "home/..data/token", "elsewhere/it"];
            for name in files.into_iter().chain(["home/master.partial-7"]) {
                fs::write(dir.path().join(name), name).expect("a file");
            }
            Self { dir }
        }

        fn link(&self, to: &str, at: &str) {
            symlink(to, self.dir.path().join(at)).expect("a link");
        }

        fn own(&self) -> Own {
            let home = self.dir.path().join("home");
            let files = vec![home.join("./master.key")];
            Own { files, state: Some(home.join("data")), ..Own::default() }
        }

        fn read(&self, name: &str, own: &Own) -> Result<String, FileFault> {
            let reach = Reach::of([self.dir.path().join("home")], own);
            reach.read(&self.dir.path().join("home/integrations").join(name))
        }
    }

    #[test]
    fn files_below_the_deployment_are_read_and_others_are_not() {
        let yard = Yard::new();
        let read = |name: &str| yard.read(name, &yard.own());
        assert_eq!(read("../secret"), Ok("home/secret".to_owned()));
        for outside in [
            "../../elsewhere/it",
            "/etc/passwd",
            "/proc/self/environ",
            "../../elsewhere/gone",
            "../gone/../../elsewhere/it",
        ] {
            assert!(matches!(read(outside), Err(FileFault::Outside)), "{outside}");
        }
        assert!(matches!(read("../gone"), Err(FileFault::Unread(_))));
        let listed = Some(vec![yard.dir.path().join("elsewhere")]);
        assert_eq!(yard.read("../../elsewhere/it", &Own { listed, ..yard.own() }), Ok("elsewhere/it".to_owned()));
    }

    #[test]
    fn links_count_by_where_they_lead() {
        let yard = Yard::new();
        yard.link("../elsewhere/it", "home/out");
        yard.link("../elsewhere", "home/away");
        yard.link("..data/token", "home/token");
        yard.link("../master.key", "home/integrations/key");
        let read = |name: &str| yard.read(name, &yard.own());
        assert_eq!(read("../token"), Ok("home/..data/token".to_owned()));
        assert!(matches!(read("../out"), Err(FileFault::Outside)));
        assert!(matches!(read("../away/it"), Err(FileFault::Outside)));
        assert_eq!(read("key"), Err(FileFault::Own));
    }

    #[test]
    fn what_is_the_gateways_own_is_never_read() {
        let yard = Yard::new();
        let everywhere = Own { listed: Some(vec!["/".into()]), ..yard.own() };
        for own in ["../master.key", "../master.partial-7", "../data/journal/1", "../data/gone"] {
            assert_eq!(yard.read(own, &everywhere), Err(FileFault::Own), "{own}");
        }
    }

    #[test]
    fn secrets_of_the_gateway_and_those_that_are_not_listed_are_not_named() {
        let own = Own { secrets: BTreeSet::from(["gateway/keys".to_owned()]), ..Own::default() };
        let permit = |own: &Own, path: &str| Reach::of([], own).permit(path);
        assert_eq!(permit(&own, "gateway/keys"), Err(SecretFault::Own));
        for way_round in ["gateway/./keys", "gateway//keys", "x/../gateway/keys", "/gateway/keys", "gateway/keys/"] {
            assert_eq!(permit(&own, way_round), Err(SecretFault::Outside), "{way_round}");
        }
        assert_eq!(permit(&own, "integrations/stripe"), Ok(()));
        let listed = Own { secrets_listed: Some(vec![Glob::new("integrations/*")]), ..own };
        assert_eq!(permit(&listed, "integrations/stripe"), Ok(()));
        assert_eq!(permit(&listed, "teams/other"), Err(SecretFault::Outside));
    }

    #[test]
    fn variables_of_the_gateway_are_neither_read_nor_named() {
        let variables = ["TRUNKLINE_MASTER_KEY", "CALLER_KEY", "STRIPE_KEY"];
        let all: HashMap<String, String> = variables.map(|name| (name.to_owned(), "value".to_owned())).into();
        let reach = Reach { variables: BTreeSet::from(["CALLER_KEY".to_owned()]), ..Reach::default() };
        let bounded = Bounded { all: &all, reach: Some(&reach) };
        assert_eq!(bounded.variable("TRUNKLINE_MASTER_KEY"), Err(VariableError::Own));
        assert_eq!(bounded.variable("CALLER_KEY"), Err(VariableError::Own));
        assert_eq!((bounded.variable("STRIPE_KEY").is_ok(), bounded.names()), (true, vec!["STRIPE_KEY".to_owned()]));
        let alone = Bounded { all: &all, reach: None };
        assert!(alone.variable("TRUNKLINE_MASTER_KEY").is_err() && alone.variable("CALLER_KEY").is_ok());
    }
}
