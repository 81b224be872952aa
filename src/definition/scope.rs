//! Names in one file that point at things in others.
//!
//! Each file tells what it offers ([`Outline`]) and what it needs ([`Link`]); what is needed and not
//! offered by any file is a problem of the file that needs it. This is all that files know of each
//! other, so a file that did not change is not read again because another one did.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::document::{Document, push_token};
use super::problem::{Code, Place, Problem};
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
    /// What is wrong with a link, if anything is.
    pub fn fault(&self, link: &Link) -> Option<Problem> {
        match &link.target {
            Target::Endpoint(integration, endpoint) => self.endpoint_fault(&link.place, integration, endpoint),
            Target::Connection(integration, connection) => self.connection_slip(&link.place, integration, connection),
            Target::Destination(id) => {
                let offered = &self.gateway.as_ref()?.destinations;
                let message = || format!("the gateway file has no destination `{id}`");
                (!offered.contains(id)).then(|| missing(&link.place, message(), id, offered, "It has"))
            }
            Target::Plugin(name) => {
                let offered = &self.gateway.as_ref()?.plugins;
                let message = || format!("the gateway file has no plugin `{name}`");
                (!offered.contains(name)).then(|| missing(&link.place, message(), name, offered, "It has"))
            }
            Target::Integration(id) => {
                let is_missing = self.complete && !self.integrations.contains_key(id);
                let message = || format!("there is no integration `{id}` in this deployment");
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
        let near = nearest(connection, declared.iter().map(|known| &**known))?;
        let message = format!("no file declares the connection `{connection}` of `{integration}`");
        let problem = Problem::warning(Code::UnknownName, place.clone(), message).suggestion(Some(near));
        Some(problem.help("One that is stored under this name is used; without one the action fails."))
    }

    fn endpoint_fault(&self, place: &Place, integration: &str, endpoint: &str) -> Option<Problem> {
        match self.integrations.get(integration) {
            None if !self.complete => None,
            None => {
                let message = format!("there is no integration `{integration}` in this deployment");
                let near = self.nearest_integration(integration).map(|id| format!("{id}.{endpoint}"));
                Some(Problem::error(Code::UnknownName, place.clone(), message).suggestion(near))
            }
            Some(outline) if outline.complete && !outline.endpoints.iter().any(|known| &**known == endpoint) => {
                let message = format!("`{integration}` has no endpoint `{endpoint}`");
                let problem = missing(place, message, endpoint, &outline.endpoints, "It has");
                let near = problem.suggestion.as_ref().map(|id| format!("{integration}.{id}"));
                Some(problem.suggestion(near))
            }
            Some(_) => None,
        }
    }

    fn nearest_integration(&self, id: &str) -> Option<String> {
        nearest(id, self.integrations.keys().map(|known| &**known))
    }
}

/// A name that is not among those offered.
fn missing(place: &Place, message: String, name: &str, offered: &[Arc<str>], intro: &str) -> Problem {
    let mut names: Vec<_> = offered.iter().take(24).map(|name| format!("`{name}`")).collect();
    names.sort_unstable();
    let listed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Problem::error(Code::UnknownName, place.clone(), message)
        .suggestion(nearest(name, offered.iter().map(|offer| &**offer)))
        .help(format!("{intro} {listed}."))
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
    fn a_connection_that_no_file_declares_may_be_stored() {
        let kinds = ["api_key", "basic", "jwt", "sigv4", "oauth1", "oauth2", "login", "mtls", "none"];
        for kind in kinds {
            let text = format!(
                "auth: {{ {kind}: {{}} }}\nconnections: [{{ id: main }}]\napi: {{ endpoints: [{{ id: e }}] }}\n"
            );
            let integrations = [("a".into(), outline(&document(&text), true))];
            let scope = Scope { integrations: integrations.into(), complete: true, gateway: None };
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
        };
        let rules = document("rules: [{ do: [{ call: slack.post_message }, { deliver: app }] }]\n");
        assert!(links(&rules).iter().all(|link| scope.fault(link).is_none()));
    }
}
