//! Names that point into other files: integrations, endpoints, connections, destinations, plugins.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Findings;
use crate::definition::document::Document;
use crate::definition::problem::{Code, Problem};
use crate::definition::raw;
use crate::definition::raw::rule::Action;
use crate::definition::suggest::nearest;

/// What the files of a deployment declare. Made from all of them before any is checked for names; a
/// file with errors declares what can be read of it, so that one fault does not become many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    integrations: BTreeMap<String, Declared>,
    destinations: BTreeSet<String>,
    plugins: BTreeSet<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Declared {
    endpoints: BTreeSet<String>,
    connections: BTreeSet<String>,
    /// Whether connections come by other ways than files.
    others_may_connect: bool,
}

impl Scope {
    /// Takes in what a resolved definition declares.
    pub fn add_integration(&mut self, document: &Value) {
        let Some(id) = document.get("id").and_then(Value::as_str) else { return };
        let ids = |pointer: &str| {
            let list = document.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|entry| entry.get("id").and_then(Value::as_str)).map(str::to_owned).collect()
        };
        let connections: BTreeSet<String> = ids("/connections");
        let interactive =
            ["oauth2", "oauth1", "login"].iter().any(|kind| document.pointer(&format!("/auth/{kind}")).is_some());
        let declared = Declared {
            endpoints: ids("/api/endpoints"),
            others_may_connect: interactive || connections.is_empty(),
            connections,
        };
        self.integrations.insert(id.to_owned(), declared);
    }

    /// Takes in what the gateway file declares.
    pub fn set_gateway(&mut self, document: &Value) {
        let keys = |key: &str| document.get(key).and_then(Value::as_object).map(|map| map.keys().cloned().collect());
        self.destinations = keys("destinations").unwrap_or_default();
        self.plugins = keys("plugins").unwrap_or_default();
    }
}

/// Names in a resolved definition that point at nothing.
pub fn names(document: &Document, scope: &Scope) -> Vec<Problem> {
    let mut found = Findings::new(document);
    if let Ok(raw) = raw::read::<raw::integration::Integration>(&document.value) {
        for (rule_index, rule) in raw.rules.iter().enumerate() {
            for (index, action) in rule.actions.iter().enumerate() {
                self::action(action, &format!("/rules/{rule_index}/do/{index}"), scope, &mut found);
            }
        }
    }
    found.problems
}

/// Grants in a resolved gateway file that name an integration there is not. Patterns are not looked at.
pub fn gateway_names(document: &Document, scope: &Scope) -> Vec<Problem> {
    let mut found = Findings::new(document);
    if let Ok(raw) = raw::read::<raw::gateway::Gateway>(&document.value) {
        for (caller_index, caller) in raw.callers.iter().enumerate() {
            for (index, grant) in caller.allow.iter().enumerate() {
                let name = &grant.integration;
                if !name.contains('*') && !scope.integrations.contains_key(name) {
                    let near = nearest(name, scope.integrations.keys().map(String::as_str));
                    let at = format!("/callers/{caller_index}/allow/{index}/integration");
                    found.warning(Code::UnknownName, &at, format!("there is no integration `{name}`")).suggestion =
                        near;
                }
            }
        }
    }
    found.problems
}

fn action(action: &Action, at: &str, scope: &Scope, found: &mut Findings<'_>) {
    if let Some(call) = &action.call {
        self::call(&call.0, action, at, scope, found);
    }
    if let Some(destination) = action.deliver.as_ref().filter(|id| !scope.destinations.contains(&id.0)) {
        let message = format!("there is no destination `{}`", destination.0);
        let near = nearest(&destination.0, scope.destinations.iter().map(String::as_str));
        let problem = found.error(Code::UnknownName, &format!("{at}/deliver"), message);
        problem.suggestion = near;
        problem.help = Some(declared("The gateway file declares", scope.destinations.iter()));
    }
    if let Some(plugin) = action.run.as_ref().filter(|plugin| !scope.plugins.contains(&plugin.name.0)) {
        let near = nearest(&plugin.name.0, scope.plugins.iter().map(String::as_str));
        let message = format!("there is no plugin `{}`", plugin.name.0);
        found.error(Code::UnknownName, &format!("{at}/run/name"), message).suggestion = near;
    }
}

fn call(name: &str, action: &Action, at: &str, scope: &Scope, found: &mut Findings<'_>) {
    let (id, endpoint) = name.split_once('.').unwrap_or((name, ""));
    let call_at = format!("{at}/call");
    let Some(integration) = scope.integrations.get(id) else {
        let near = nearest(id, scope.integrations.keys().map(String::as_str)).map(|near| format!("{near}.{endpoint}"));
        let problem = found.error(Code::UnknownName, &call_at, format!("there is no integration `{id}`"));
        problem.suggestion = near;
        problem.help = Some(declared("There are", scope.integrations.keys()));
        return;
    };
    if !integration.endpoints.contains(endpoint) {
        let near =
            nearest(endpoint, integration.endpoints.iter().map(String::as_str)).map(|near| format!("{id}.{near}"));
        let problem = found.error(Code::UnknownName, &call_at, format!("`{id}` has no endpoint `{endpoint}`"));
        problem.suggestion = near;
        problem.help = Some(declared("It has", integration.endpoints.iter()));
    }
    let connection = action.connection.as_ref().map_or("default", |id| &id.0);
    if !integration.connections.contains(connection) && !integration.others_may_connect {
        let near = nearest(connection, integration.connections.iter().map(String::as_str));
        let written_at = if action.connection.is_some() { format!("{at}/connection") } else { call_at };
        let problem = found.error(Code::UnknownName, &written_at, format!("`{id}` has no connection `{connection}`"));
        problem.suggestion = near;
        problem.help = Some(declared("It has", integration.connections.iter()));
    }
}

/// A list of names in a sentence.
fn declared<'a>(intro: &str, names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.take(24).map(|name| format!("`{name}`")).collect();
    if names.is_empty() { format!("{intro} none.") } else { format!("{intro} {}.", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let mut scope = Scope::default();
        scope.set_gateway(&json!({ "destinations": { "app": {} } }));
        scope.add_integration(&json!({
            "id": "slack", "auth": { "oauth2": {} }, "api": { "endpoints": [{ "id": "post_message" }] },
        }));
        scope.add_integration(&json!({
            "id": "stripe", "auth": { "api_key": {} }, "connections": [{ "id": "default" }],
            "api": { "endpoints": [{ "id": "create_customer" }] },
        }));
        scope
    }

    fn told(action: &Value) -> String {
        let rules = json!([{ "id": "r", "when": "*", "do": [action] }]);
        let document = Document::unplaced("a.yaml".into(), json!({ "trunkline": 1, "id": "a", "rules": rules }));
        let tell = |problem: Problem| {
            format!("{}: {} ({})", problem.place.pointer, problem.message, problem.suggestion.unwrap_or_default())
        };
        names(&document, &scope()).into_iter().map(tell).collect()
    }

    #[test]
    fn names_that_point_somewhere_are_fine() {
        assert_eq!(told(&json!({ "call": "slack.post_message", "connection": "team" })), "");
        assert_eq!(told(&json!({ "call": "stripe.create_customer" })), "");
        assert_eq!(told(&json!({ "deliver": "app" })), "");
    }

    #[test]
    fn names_that_point_nowhere_are_told_with_the_nearest() {
        for (action, expected) in [
            (json!({ "deliver": "ap" }), "/rules/0/do/0/deliver: there is no destination `ap` (app)"),
            (
                json!({ "call": "slak.post_message" }),
                "/rules/0/do/0/call: there is no integration `slak` (slack.post_message)",
            ),
            (
                json!({ "call": "slack.post_mesage" }),
                "/rules/0/do/0/call: `slack` has no endpoint `post_mesage` (slack.post_message)",
            ),
            (
                json!({ "call": "stripe.create_customer", "connection": "defautl" }),
                "/rules/0/do/0/connection: `stripe` has no connection `defautl` (default)",
            ),
        ] {
            assert_eq!(told(&action), expected);
        }
    }
}
