//! Names in one file that point at things in others.
//!
//! Each file tells what it offers ([`Outline`]) and what it needs ([`Link`]); what is needed and not
//! offered by any file is a problem of the file that needs it. This is all that files know of each
//! other, so a file that did not change is not read again because another one did.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::document::{Document, push_token};
use super::problem::{Code, MOST_OF_FILE, Place, Problem, Severity};
use super::suggest::nearest;

/// What a file offers to others.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    /// The endpoints of its API.
    pub endpoints: Vec<Arc<str>>,
    /// The connections it declares.
    pub connections: Vec<Arc<str>>,
    /// Whether that is all: a fault of the file may hide more.
    pub complete: bool,
}

/// A name in a file that points elsewhere.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where it is written.
    pub place: Place,
    /// What it points at.
    pub target: Target,
}

/// What a name points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An endpoint of an integration.
    Endpoint(Arc<str>, Arc<str>),
    /// A connection of an integration.
    Connection(Arc<str>, Arc<str>),
    /// A destination of the gateway file.
    Destination(Arc<str>),
    /// A plugin of the gateway file.
    Plugin(Arc<str>),
    /// An integration by id.
    Integration(Arc<str>),
}

/// What a whole deployment offers.
#[derive(Debug, Default)]
pub struct Scope {
    /// The integrations by id.
    pub integrations: HashMap<Arc<str>, Outline>,
    /// Whether these are all. Single files say nothing of the deployment they are for.
    pub complete: bool,
    /// What the gateway file offers; `None` when there is none to tell.
    pub gateway: Option<GatewayOutline>,
    /// What was looked for among the names of others.
    pub search: Search,
}

/// The search for what may have been meant by names that are nowhere. One definition that is missing may be named by
/// thousands of files, so what was found for a name is kept, and of very many names it is looked for the first only.
#[derive(Debug, Default)]
pub struct Search(Mutex<Searched>);

#[derive(Debug, Default)]
struct Searched {
    /// With how many names others were compared.
    compared: usize,
    /// The integrations that were meant by names.
    integrations: HashMap<Arc<str>, Option<String>>,
}

/// With how many names others are compared in one look at all files: some tenths of a second.
const COMPARED: usize = 100_000;

impl Search {
    fn lock(&self) -> MutexGuard<'_, Searched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nearest of these names, as long as not too many were compared.
    fn nearest<'a>(&self, name: &str, known: impl ExactSizeIterator<Item = &'a str>) -> Option<String> {
        let mut searched = self.lock();
        if searched.compared >= COMPARED {
            return None;
        }
        searched.compared += known.len();
        drop(searched);
        nearest(name, known)
    }

    fn nearest_integration(&self, id: &Arc<str>, known: &HashMap<Arc<str>, Outline>) -> Option<String> {
        if let Some(found) = self.lock().integrations.get(id) {
            return found.clone();
        }
        let found = self.nearest(id, known.keys().map(|known| &**known));
        self.lock().integrations.insert(Arc::clone(id), found.clone());
        found
    }
}

/// What a gateway file offers to definitions.
#[derive(Debug, Clone, Default)]
pub struct GatewayOutline {
    /// The destinations by id.
    pub destinations: Vec<Arc<str>>,
    /// The plugins by name.
    pub plugins: Vec<Arc<str>>,
}

/// What a definition offers.
pub fn outline(document: &Document, complete: bool) -> Outline {
    let ids = |pointer: &str| -> Vec<Arc<str>> {
        let list = document.value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|entry| entry.get("id")?.as_str()).map(Arc::from).collect()
    };
    Outline { endpoints: ids("/api/endpoints"), connections: ids("/connections"), complete }
}

/// Whether a file with this problem may mean to offer more than its outline tells.
pub fn may_hide(problem: &Problem) -> bool {
    let at = problem.place.pointer.as_str();
    let offered = ["/api/endpoints", "/connections", "/extends"].iter().any(|block| at.starts_with(block));
    // A fault of the text itself may have swallowed anything; a word that is unknown there, a block's name.
    let around = match problem.code {
        Code::MissingField => false,
        Code::UnknownField => {
            let meant = problem.suggestion.as_deref();
            let may_be_block =
                meant.is_none_or(|meant| ["api", "endpoints", "connections", "extends"].contains(&meant));
            may_be_block && matches!(at.rsplit_once('/'), Some(("" | "/api", _)))
        }
        _ => matches!(at, "" | "/api"),
    };
    problem.is_error() && (offered || around)
}

/// What the rules of a file need.
pub fn links(document: &Document) -> Vec<Link> {
    let mut links = Vec::new();
    for (pointer, rule) in items(&document.value, "/rules") {
        for (place, action) in items(rule, "/do") {
            let at = |field: &str| document.place(&format!("{pointer}{place}/{field}"));
            let text = |field: &str| action.pointer(field).and_then(Value::as_str);
            let mut link = |place: Place, target: Target| links.push(Link { place, target });
            if let Some((integration, endpoint)) = text("/call").and_then(|call| call.split_once('.')) {
                link(at("call"), Target::Endpoint(integration.into(), endpoint.into()));
                let (field, connection) = text("/connection").map_or(("call", "default"), |id| ("connection", id));
                link(at(field), Target::Connection(integration.into(), connection.into()));
            }
            if let Some(destination) = text("/deliver") {
                link(at("deliver"), Target::Destination(destination.into()));
            }
            // A plugin has a short form: its name alone.
            let plugin = text("/run").map(|name| ("run", name));
            if let Some((field, plugin)) = plugin.or_else(|| text("/run/name").map(|name| ("run/name", name))) {
                link(at(field), Target::Plugin(plugin.into()));
            }
        }
    }
    links
}

/// What a gateway file needs: what its rules name, and the integrations that callers are allowed to use by name.
pub fn gateway_links(document: &Document) -> Vec<Link> {
    let mut links = links(document);
    for (pointer, caller) in items(&document.value, "/callers") {
        for (place, grant) in items(caller, "/allow") {
            let id = grant.get("integration").and_then(Value::as_str).filter(|id| !id.contains('*'));
            if let Some(id) = id {
                let at = format!("{pointer}{place}/integration");
                links.push(Link { place: document.place(&at), target: Target::Integration(id.into()) });
            }
        }
    }
    links
}

/// What a gateway file offers.
pub fn gateway_outline(document: &Document) -> GatewayOutline {
    let keys = |key: &str| -> Vec<Arc<str>> {
        let map = document.value.get(key).and_then(Value::as_object);
        map.into_iter().flat_map(serde_json::Map::keys).map(|id| id.as_str().into()).collect()
    };
    GatewayOutline { destinations: keys("destinations"), plugins: keys("plugins") }
}

fn items<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = (String, &'a Value)> {
    let items = value.pointer(list).and_then(Value::as_array).into_iter().flatten().enumerate();
    items.map(move |(index, item)| {
        let mut pointer = list.to_owned();
        push_token(&mut pointer, &index.to_string());
        (pointer, item)
    })
}

impl Scope {
    /// What is wrong with the links of a file. Of very many the errors are told first, and how many more there are.
    pub fn faults(&self, file: &Arc<PathBuf>, links: &[Link]) -> Vec<Problem> {
        let severity = |link| Some((self.severity(link)?, link));
        let mut wrong: Vec<(Severity, &Link)> = links.iter().filter_map(severity).collect();
        wrong.sort_by_key(|(severity, _)| *severity);
        let (told, more) = wrong.split_at(wrong.len().min(MOST_OF_FILE));
        let mut faults: Vec<Problem> = told.iter().filter_map(|(_, link)| self.fault(link)).collect();
        if let Some((severity, _)) = more.first() {
            let message =
                format!("{} more names of this file point at what is not there, and are not listed", more.len());
            let more = Problem::error(Code::UnknownName, Place::file(Arc::clone(file)), message);
            let more = Problem { severity: *severity, ..more };
            faults.push(more.help("Correct the first ones, and look again."));
        }
        faults
    }

    /// Whether anything is wrong with a link, and how bad that is; without a look for what may have been meant.
    fn severity(&self, link: &Link) -> Option<Severity> {
        let is_wrong = |is_wrong: bool, severity| is_wrong.then_some(severity);
        match &link.target {
            Target::Endpoint(integration, endpoint) => match self.integrations.get(integration) {
                None => is_wrong(self.complete, Severity::Error),
                Some(outline) => is_wrong(outline.complete && !outline.endpoints.contains(endpoint), Severity::Error),
            },
            Target::Connection(..) => self.fault(link).map(|fault| fault.severity),
            Target::Destination(id) => is_wrong(!self.gateway.as_ref()?.destinations.contains(id), Severity::Error),
            Target::Plugin(name) => is_wrong(!self.gateway.as_ref()?.plugins.contains(name), Severity::Error),
            Target::Integration(id) => {
                is_wrong(self.complete && !self.integrations.contains_key(id), Severity::Warning)
            }
        }
    }

    /// What is wrong with a link, if anything is.
    pub fn fault(&self, link: &Link) -> Option<Problem> {
        match &link.target {
            Target::Endpoint(integration, endpoint) => self.endpoint_fault(&link.place, integration, endpoint),
            Target::Connection(integration, connection) => self.connection_slip(&link.place, integration, connection),
            Target::Destination(id) => {
                let offered = &self.gateway.as_ref()?.destinations;
                let message = || format!("the gateway file has no destination `{}`", brief(id));
                (!offered.contains(id)).then(|| self.missing(&link.place, message(), id, offered))
            }
            Target::Plugin(name) => {
                let offered = &self.gateway.as_ref()?.plugins;
                let message = || format!("the gateway file has no plugin `{}`", brief(name));
                (!offered.contains(name)).then(|| self.missing(&link.place, message(), name, offered))
            }
            Target::Integration(id) => {
                let is_missing = self.complete && !self.integrations.contains_key(id);
                let message = || format!("there is no integration `{}` in this deployment", brief(id));
                let warn = || Problem::warning(Code::UnknownName, link.place.clone(), message());
                is_missing.then(|| warn().suggestion(self.nearest_integration(id)))
            }
        }
    }

    /// A connection of every kind may be connected, put or imported, which no file tells; so one that is not
    /// declared is told only where its name looks like a slip of one that is.
    fn connection_slip(&self, place: &Place, integration: &str, connection: &str) -> Option<Problem> {
        let declared = &self.integrations.get(integration)?.connections;
        if declared.iter().any(|known| &**known == connection) {
            return None;
        }
        let near = self.search.nearest(connection, declared.iter().map(|known| &**known))?;
        let message = format!("no file declares the connection `{}` of `{}`", brief(connection), brief(integration));
        let problem = Problem::warning(Code::UnknownName, place.clone(), message).suggestion(Some(near));
        Some(problem.help("One that is stored under this name is used; without one the action fails."))
    }

    fn endpoint_fault(&self, place: &Place, integration: &Arc<str>, endpoint: &str) -> Option<Problem> {
        match self.integrations.get(integration) {
            None if !self.complete => None,
            None => {
                let message = format!("there is no integration `{}` in this deployment", brief(integration));
                let near = self.nearest_integration(integration).map(|id| format!("{id}.{}", brief(endpoint)));
                Some(Problem::error(Code::UnknownName, place.clone(), message).suggestion(near))
            }
            Some(outline) if outline.complete && !outline.endpoints.iter().any(|known| &**known == endpoint) => {
                let message = format!("`{}` has no endpoint `{}`", brief(integration), brief(endpoint));
                let problem = self.missing(place, message, endpoint, &outline.endpoints);
                let near = problem.suggestion.as_ref().map(|id| format!("{}.{id}", brief(integration)));
                Some(problem.suggestion(near))
            }
            Some(_) => None,
        }
    }

    fn nearest_integration(&self, id: &Arc<str>) -> Option<String> {
        self.search.nearest_integration(id, &self.integrations)
    }

    /// A name that is not among those offered.
    fn missing(&self, place: &Place, message: String, name: &str, offered: &[Arc<str>]) -> Problem {
        let mut names: Vec<_> = offered.iter().take(24).map(|name| format!("`{}`", brief(name))).collect();
        names.sort_unstable();
        let listed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Problem::error(Code::UnknownName, place.clone(), message)
            .suggestion(self.search.nearest(name, offered.iter().map(|offer| &**offer)))
            .help(format!("It has {listed}."))
    }
}

/// The most letters of a name that are told.
const TOLD: usize = 80;

/// The beginning of a name: what is longer than names are is known by it.
pub fn brief(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(TOLD) {
        Some((end, _)) => Cow::Owned(format!("{}…", name.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load::tree::parse;
    use std::path::PathBuf;

    fn document(text: &str) -> Document {
        parse(&Arc::new(PathBuf::from("a.yaml")), text).document.expect("a document")
    }

    #[test]
    fn names_that_point_nowhere_are_told() {
        let slack = document("api: { endpoints: [{ id: post_message }] }\n");
        let scope = Scope {
            integrations: HashMap::from([("slack".into(), outline(&slack, true))]),
            gateway: Some(GatewayOutline { destinations: vec!["app".into()], plugins: Vec::new() }),
            complete: true,
            search: Search::default(),
        };
        let rules = document(
            "rules:\n  - do:\n      - call: slack.post_mesage\n      - call: slak.post_message\n      - deliver: ap\n      \
             - { call: slack.post_message, deliver: app }\n      - { run: { name: x } }\n",
        );
        let tell = |p: Problem| format!("{} {} ({})", p.place.span.start, p.message, p.suggestion.unwrap_or_default());
        let told: Vec<String> = links(&rules).iter().filter_map(|link| scope.fault(link)).map(tell).collect();
        let expected = [
            "3:15 `slack` has no endpoint `post_mesage` (slack.post_message)",
            "4:15 there is no integration `slak` in this deployment (slack.post_message)",
            "5:18 the gateway file has no destination `ap` (app)",
            "7:24 the gateway file has no plugin `x` ()",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn of_very_many_faults_so_many_are_told_and_how_many_more() {
        let scope = Scope { gateway: Some(GatewayOutline::default()), complete: true, ..Scope::default() };
        let place = |line| {
            let at = crate::base::span::Position { line, column: 1 };
            let span = crate::base::span::Span { start: at, end: at };
            Place { span, ..Place::file(Arc::default()) }
        };
        let long: Arc<str> = Arc::from("x".repeat(100_000));
        let link = |line| {
            let id = Arc::clone(&long);
            let target = if line <= 1_500 { Target::Integration(id) } else { Target::Destination(id) };
            Link { place: place(line), target }
        };
        let links: Vec<Link> = (1..=1_600).map(link).collect();
        let told = scope.faults(&Arc::default(), &links);
        assert_eq!((told.len(), told.iter().filter(|fault| fault.is_error()).count()), (MOST_OF_FILE + 1, 100));
        let last = told.last().expect("a fault");
        assert_eq!(last.message, "600 more names of this file point at what is not there, and are not listed");
        let bytes: usize = told.iter().map(|fault| fault.message.len()).sum();
        assert!(bytes < 200 * told.len(), "{bytes}");
        assert_eq!(scope.faults(&Arc::default(), &links[..3]).len(), 3);
    }

    #[test]
    fn a_connection_that_no_file_declares_may_be_stored() {
        let kinds = ["api_key", "basic", "jwt", "sigv4", "oauth1", "oauth2", "login", "mtls", "none"];
        for kind in kinds {
            let text = format!(
                "auth: {{ {kind}: {{}} }}\nconnections: [{{ id: main }}]\napi: {{ endpoints: [{{ id: e }}] }}\n"
            );
            let integrations = [("a".into(), outline(&document(&text), true))];
            let scope = Scope { integrations: integrations.into(), complete: true, ..Scope::default() };
            let rules =
                "rules: [{ do: [{ call: a.e }, { call: a.e, connection: main }, { call: a.e, connection: mian }] }]\n";
            let told: Vec<_> = links(&document(rules)).iter().filter_map(|link| scope.fault(link)).collect();
            let [slip] = told.as_slice() else { panic!("{kind}: {told:?}") };
            assert!(!slip.is_error() && slip.suggestion.as_deref() == Some("main"), "{kind}: {slip:?}");
        }
    }

    #[test]
    fn a_file_with_faults_may_mean_to_offer_more() {
        let scope = Scope {
            integrations: HashMap::from([("slack".into(), outline(&document("id: slack\n"), false))]),
            gateway: None,
            complete: true,
            search: Search::default(),
        };
        let rules = document("rules: [{ do: [{ call: slack.post_message }, { deliver: app }] }]\n");
        assert!(links(&rules).iter().all(|link| scope.fault(link).is_none()));
    }

    #[test]
    fn one_name_is_looked_for_once_and_of_very_many_the_first_only() {
        let ids = (0..5_000).map(|number| (Arc::from(format!("tenant-{number:04}")), Outline::default()));
        let scope = Scope { integrations: ids.collect(), complete: true, ..Scope::default() };
        let fault = |id: &str| {
            let target = Target::Integration(id.into());
            scope.fault(&Link { place: Place::file(Arc::default()), target }).expect("a fault").suggestion
        };
        assert!((0..1_000).all(|_| fault("tenant-00x0").is_some()));
        assert_eq!(scope.search.lock().compared, 5_000);
        let told = (0..1_000).filter(|number| fault(&format!("tenant-{number:03}x")).is_some()).count();
        assert_eq!((told, scope.search.lock().compared), (19, COMPARED));
        assert!(fault("tenant-00x0").is_some(), "what was found is kept");
    }
}
