//! Values of a definition that are each fine and do not go together.

use serde_json::Value;

use super::values::is_loopback;
use super::{Findings, rules};
use crate::definition::problem::Code;
use crate::definition::raw::auth::Auth;
use crate::definition::raw::connection::Connection;
use crate::definition::raw::integration::Integration;
use crate::definition::raw::oauth2::{Grant, OAuth2};
use crate::definition::raw::request::Shape;
use crate::telemetry::notice::OWN;
use crate::template::Text;

pub(super) fn check(raw: &Integration, found: &mut Findings<'_>) {
    if raw.id.0 == OWN {
        let problem = found.error(Code::ReservedId, "/id", format!("the gateway's own events come to `{OWN}`"));
        problem.help = Some("Give the definition another id.".to_owned());
    }
    found.duplicates("/connections", "connections", raw.connections.iter().map(|connection| connection.id.0.as_str()));
    found.duplicates("/syncs", "syncs", raw.syncs.iter().map(|sync| sync.id.0.as_str()));
    inputs(raw, found);
    connections(raw, found);
    api(raw, found);
    people_are_sent(raw, found);
    rules::check(&raw.rules, found);
    if let Some(webhook) = &raw.webhook {
        rules::sent(&raw.rules, &webhook.events, found);
    }
    if raw.webhook.is_none() && !raw.rules.is_empty() && !found.left_out.touches("/webhook") {
        let problem =
            found.warning(Code::Conflict, "/rules", "without a `webhook` no event comes, so no rule ever runs");
        problem.help = Some("Declare `webhook`, or extend a catalogue entry that has one.".to_owned());
    }
}

fn inputs(raw: &Integration, found: &mut Findings<'_>) {
    for (name, input) in raw.inputs.iter() {
        let at = super::below("/inputs", name);
        if input.pattern.is_some() && !input.choices.is_empty() {
            found.error(Code::Conflict, &at, "an input has a `pattern` or `choices`, not both");
        }
        let Some(default) = &input.default else { continue };
        let chosen = input.choices.is_empty() || input.choices.contains(default);
        let pattern = input.pattern.as_deref().and_then(|pattern| regex::Regex::new(pattern).ok());
        if !chosen || pattern.is_some_and(|pattern| !pattern.is_match(default)) {
            found.error(Code::Conflict, &format!("{at}/default"), "the default is not a value that the input takes");
        }
        if input.secret {
            found.error(Code::Conflict, &format!("{at}/default"), "a secret has no default");
        }
    }
}

fn connections(raw: &Integration, found: &mut Findings<'_>) {
    for (index, connection) in raw.connections.iter().enumerate() {
        let at = format!("/connections/{index}");
        let id = &connection.id.0;
        let fields = [
            ("api_key", connection.api_key.is_some()),
            ("username", connection.username.is_some()),
            ("password", connection.password.is_some()),
            ("token", connection.token.is_some()),
            ("token_secret", connection.token_secret.is_some()),
        ];
        let (wanted, may): (&[&str], &[&str]) = match &raw.auth {
            Some(Auth::ApiKey(_)) => (&["api_key"], &[]),
            Some(Auth::Jwt(assertion)) if assertion.key.is_none() => (&["api_key"], &[]),
            Some(Auth::Basic(_)) => (&["username"], &["password"]),
            Some(Auth::SigV4(sigv4)) if sigv4.wants_key() => (&["username", "password"], &["token"]),
            Some(Auth::OAuth1(_)) => (&[], &["token", "token_secret"]),
            Some(Auth::OAuth2(oauth2)) if needs_person(oauth2) => (&["token"], &[]),
            Some(Auth::OAuth2(_) | Auth::Login(_)) => (&[], &["token"]),
            _ => (&[], &[]),
        };
        let is_known = !found.left_out.touches("/auth");
        for (field, written) in fields.into_iter().filter(|_| is_known) {
            if written && !wanted.contains(&field) && !may.contains(&field) {
                found.error(
                    Code::Conflict,
                    &format!("{at}/{field}"),
                    format!("`{field}` is for another kind of `auth`"),
                );
            } else if !written && wanted.contains(&field) {
                let at = format!("{at}/{field}");
                found.error(Code::MissingField, &at, format!("connection `{id}` has no `{field}`"));
            }
        }
        told_inputs(raw, connection, &at, found);
    }
}

/// Whether a connection tells the inputs that it must, and values that fit.
fn told_inputs(raw: &Integration, connection: &Connection, at: &str, found: &mut Findings<'_>) {
    let id = &connection.id.0;
    for (name, input) in raw.inputs.iter() {
        if connection.inputs.get(name).is_none() && input.default.is_none() && !input.optional {
            let at = super::below(&format!("{at}/inputs"), name);
            found.error(Code::MissingField, &at, format!("connection `{id}` does not tell `{name}`"));
        }
    }
    for (name, value) in connection.inputs.iter() {
        let value_at = super::below(&format!("{at}/inputs"), name);
        match raw.inputs.get(name) {
            None if found.left_out.touches("/inputs") => {}
            None => {
                let known = raw.inputs.iter().map(|(name, _)| name);
                let near = crate::definition::suggest::nearest(name, known);
                let problem = found.error(Code::UnknownName, &value_at, format!("`{name}` is not one of the `inputs`"));
                problem.suggestion = near;
            }
            Some(input) => {
                let pattern = input.pattern.as_deref().and_then(|pattern| regex::Regex::new(pattern).ok());
                let fits = pattern.is_none_or(|pattern| pattern.is_match(value))
                    && (input.choices.is_empty() || input.choices.contains(value));
                if !fits {
                    found.error(Code::BadFormat, &value_at, format!("this is not a value that `{name}` takes"));
                }
            }
        }
    }
}

/// Whether only a person can bring a token.
fn needs_person(oauth2: &OAuth2) -> bool {
    !matches!(oauth2.grant, Some(Grant::ClientCredentials | Grant::JwtBearer | Grant::TokenExchange))
}

fn api(raw: &Integration, found: &mut Findings<'_>) {
    let Some(api) = &raw.api else { return };
    let groups = api.breaker.iter().flat_map(|breaker| &breaker.groups);
    found.duplicates("/api/breaker/groups", "groups", groups.map(|group| group.id.0.as_str()));
    found.duplicates("/api/endpoints", "endpoints", api.endpoints.iter().map(|endpoint| endpoint.id.0.as_str()));
    bounded_host(raw, &api.base_url.0, "/api/base_url", found);
    if api.allow_private && api.hosts.is_empty() && is_loopback(host_of(&api.base_url.0)) {
        found.warning(Code::Conflict, "/api/allow_private", "loopback is open in development mode without this");
    }
    credential(raw, found);
    if let Some(test) = &api.test {
        request(test.0.shape(), "/api/test", found);
    }
    for (index, endpoint) in api.endpoints.iter().enumerate() {
        let at = format!("/api/endpoints/{index}");
        request(endpoint.shape(), &at, found);
        let whole = endpoint.request.0.contains("://");
        if whole && endpoint.transform.is_some() {
            found.error(
                Code::Conflict,
                &format!("{at}/transform"),
                "an endpoint with an address of its own matches nothing that passes through",
            );
        }
        scopes(raw, &endpoint.scopes, &at, found);
    }
    for (index, sync) in raw.syncs.iter().enumerate() {
        request(sync.shape(), &format!("/syncs/{index}"), found);
        scopes(raw, &sync.scopes, &format!("/syncs/{index}"), found);
    }
}

/// Where people are sent to consent: an address that somebody else may choose would have them sign in anywhere.
fn people_are_sent(raw: &Integration, found: &mut Findings<'_>) {
    match &raw.auth {
        Some(Auth::OAuth1(oauth1)) => bounded_host(raw, &oauth1.authorize.0, "/auth/oauth1/authorize", found),
        Some(Auth::OAuth2(oauth2)) => {
            let Some(authorize) = &oauth2.authorize else { return };
            let at = "/auth/oauth2/authorize";
            let short = found.document.value.pointer(&found.left_out.in_file(at)).is_some_and(Value::is_string);
            let at = if short { at.to_owned() } else { format!("{at}/url") };
            bounded_host(raw, &authorize.0.url.0, &at, found);
        }
        _ => {}
    }
}

/// A host that comes from a value must be one of those that are listed.
fn bounded_host(raw: &Integration, address: &str, at: &str, found: &mut Findings<'_>) {
    let listed = raw.api.as_ref().is_some_and(|api| !api.hosts.is_empty());
    if !host_of(address).contains("{{") || listed || found.left_out.touches("/api") {
        return;
    }
    let message = "this address takes its host from a value, and `hosts` does not say where it may point";
    let problem = found.error(Code::MissingField, at, message);
    problem.help =
        Some("List the hosts under `api.hosts`, such as `*.example.com`: credentials go nowhere else.".to_owned());
}

/// The host of an address as it is written, with its port.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

/// Scopes that are asked for must be among those a connection can be granted.
fn scopes(raw: &Integration, wanted: &[String], at: &str, found: &mut Findings<'_>) {
    let Some(Auth::OAuth2(oauth2)) = &raw.auth else { return };
    if found.left_out.touches("/auth/oauth2/scopes") {
        return;
    }
    for (index, scope) in wanted.iter().enumerate() {
        let known = || oauth2.scopes.iter().map(|scope| scope.name.as_str());
        if known().all(|name| name != scope) {
            let near = crate::definition::suggest::nearest(scope, known());
            let message = format!("`{scope}` is not one of `auth.oauth2.scopes`");
            found.error(Code::UnknownName, &format!("{at}/scopes/{index}"), message).suggestion = near;
        }
    }
}

fn credential(raw: &Integration, found: &mut Findings<'_>) {
    let Some(api) = &raw.api else { return };
    match (&raw.auth, &api.credential) {
        (Some(Auth::ApiKey(_)), None) => {
            let problem = found.error(
                Code::MissingField,
                "/api/credential",
                "`auth: api_key` needs `api.credential`, which says where the key goes",
            );
            problem.help =
                Some("For example: credential: { header: Authorization, value: \"Bearer {{ api_key }}\" }".to_owned());
        }
        (None, Some(_)) if found.left_out.touches("/auth") => {}
        (None | Some(Auth::None(_)), Some(_)) => {
            found.error(Code::Conflict, "/api/credential", "without `auth` there is no credential to place");
        }
        (auth, Some(placement)) => {
            let is_placed = auth.is_some() && !names_a_credential(&placement.value.0);
            if is_placed {
                let message = "this value names nothing of the connection: every call carries the same text";
                let problem = found.warning(Code::Conflict, "/api/credential/value", message);
                problem.help = Some("Put what is to be sent into braces, such as `Bearer {{ api_key }}`.".to_owned());
            }
            let places = [placement.header.is_some(), placement.query.is_some(), placement.body.is_some()];
            if places.iter().filter(|place| **place).count() != 1 {
                let message = "a credential goes into one place: `header`, `query` or `body`";
                found.error(Code::Conflict, "/api/credential", message);
            }
            let header = placement.header.as_ref().map(|header| header.0.to_ascii_lowercase());
            if let Some((name, _)) = api.headers.iter().find(|(name, _)| Some(name.to_ascii_lowercase()) == header) {
                let at = super::below("/api/headers", name);
                found.error(
                    Code::Conflict,
                    &at,
                    format!("`{name}` carries the credential; it cannot be set here as well"),
                );
            }
        }
        _ => {}
    }
}

/// Whether a template names a value that a connection has. One that does not compile is told as such.
fn names_a_credential(source: &str) -> bool {
    const OF_A_CONNECTION: [&str; 8] =
        ["api_key", "username", "password", "token", "saved", "input", "connection", "client"];
    Text::compile(source).map_or(true, |text| {
        text.names().iter().any(|name| OF_A_CONNECTION.contains(&name.split('.').next().unwrap_or(name)))
    })
}

/// What of a request does not go together.
pub(super) fn request(shape: Shape<'_>, at: &str, found: &mut Findings<'_>) {
    let bodies = [("form", shape.form.is_some()), ("json", shape.json.is_some()), ("text", shape.text.is_some())];
    let mut written = bodies.iter().filter(|(_, written)| *written).map(|(name, _)| *name);
    let (first, second) = (written.next(), written.next());
    if let (Some(first), Some(second)) = (first, second) {
        let message = format!("a request has one body, and this one has `{first}` and `{second}`");
        found.error(Code::Conflict, &format!("{at}/{second}"), message);
    }
    let method = shape.request.0.split(' ').next().unwrap_or_default();
    if let (Some(body), "GET" | "HEAD") = (first, method) {
        let problem = found.warning(
            Code::Conflict,
            &format!("{at}/{body}"),
            format!("a {method} with a body means nothing to most services"),
        );
        problem.help = Some("Use POST, or put the values under `query`.".to_owned());
    }
    if shape.basic.is_some() && shape.credential.is_some_and(|word| word.0 != "none") {
        found.error(
            Code::Conflict,
            &format!("{at}/basic"),
            "`basic` stands instead of `credential`: write one of them",
        );
    }
    // With `credential: none` the author has said that this header stands in the credential's place.
    let is_placed = shape.credential.is_some_and(|word| word.0 == "none");
    for (name, _) in shape.headers.iter().filter(|(name, _)| !is_placed && name.eq_ignore_ascii_case("authorization")) {
        let problem = found.warning(
            Code::Conflict,
            &super::below(&format!("{at}/headers"), name),
            "this header is where credentials go",
        );
        let help = "Use `credential`, `basic` or `api.credential`; for a scheme of the service's own, write \
                    `credential: none` beside it.";
        problem.help = Some(help.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use serde_json::{Value, json};

    fn action(action: &Value) -> String {
        with(&json!({ "rules": [{ "id": "r", "when": "*", "do": [action] }]})).concat()
    }

    #[test]
    fn an_action_does_one_thing_with_what_belongs_to_it() {
        assert!(action(&json!({})).contains("says what to do"));
        assert!(action(&json!({ "call": "a.b", "log": "x" })).contains("`call` and `log`"));
        assert!(action(&json!({ "log": "x", "input": {} })).contains("`input` goes with `call`, not with `log`"));
        assert_eq!(action(&json!({ "deliver": "app", "json": {}, "headers": { "X-A": "b" } })), "");
    }

    #[test]
    fn a_key_needs_a_place_and_only_one() {
        let told = |credential: Option<Value>| {
            let mut api = json!({ "base_url": "https://a.example", "headers": { "x-key": "v" } });
            if let (Some(credential), Some(map)) = (credential, api.as_object_mut()) {
                map.insert("credential".to_owned(), credential);
            }
            with(&json!({ "auth": { "api_key": {} }, "api": api })).concat()
        };
        assert!(told(None).contains("needs `api.credential`"));
        assert!(told(Some(json!({ "header": "X-A", "query": "k", "value": "{{ api_key }}" }))).contains("one place"));
        assert!(told(Some(json!({ "header": "X-Key", "value": "{{ api_key }}" }))).contains("carries the credential"));
    }

    #[test]
    fn a_host_from_a_value_needs_bounds() {
        let told = |api: Value| with(&json!({ "inputs": { "site": {} }, "api": api })).concat();
        assert!(told(json!({ "base_url": "https://{{ input.site }}.example.com" })).contains("`hosts` does not say"));
        assert_eq!(told(json!({ "base_url": "https://a.example/{{ input.site }}" })), "");
    }

    #[test]
    fn people_are_sent_to_a_host_that_is_written_or_listed() {
        let oauth1 = |authorize: &str| {
            let call = "POST https://a.example/r";
            json!({ "oauth1": { "request_token": call, "authorize": authorize, "access_token": call } })
        };
        let oauth2 = |authorize: Value| json!({ "oauth2": { "authorize": authorize, "token": "https://a.example/t" } });
        let told = |auth: Value, hosts: Value| {
            let api = json!({ "base_url": "https://a.example", "hosts": hosts });
            with(&json!({ "inputs": { "site": {} }, "auth": auth, "api": api })).concat()
        };
        let open = "https://{{ input.site }}/authorize";
        for auth in [oauth1(open), oauth2(json!(open)), oauth2(json!({ "url": open, "raw_scope": true }))] {
            assert!(told(auth.clone(), json!([])).contains("`hosts` does not say"), "{auth}");
            assert!(!told(auth.clone(), json!(["*.a.example"])).contains("`hosts` does not say"), "{auth}");
        }
        assert!(!told(oauth1("https://a.example/{{ input.site }}"), json!([])).contains("`hosts` does not say"));
    }

    #[test]
    fn connections_tell_what_they_must_and_nothing_else() {
        let told = |connection: Value| {
            let inputs = json!({ "region": { "choices": ["eu", "us"] } });
            with(&json!({ "auth": { "basic": {} }, "inputs": inputs, "connections": [connection] })).concat()
        };
        assert_eq!(told(json!({ "id": "c", "username": "u", "inputs": { "region": "eu" } })), "");
        assert!(told(json!({ "id": "c", "inputs": { "region": "eu" } })).contains("has no `username`"));
        assert!(told(json!({ "id": "c", "username": "u" })).contains("does not tell `region`"));
        assert!(told(json!({ "id": "c", "username": "u", "inputs": { "region": "mars" } })).contains("not a value"));
        assert!(
            told(json!({ "id": "c", "username": "u", "api_key": "k", "inputs": { "region": "eu" } }))
                .contains("another kind")
        );
    }

    #[test]
    fn requests_have_one_body_and_one_credential() {
        let told = |endpoint: Value| {
            with(&json!({ "api": { "base_url": "https://a.example", "endpoints": [endpoint] } })).concat()
        };
        assert!(told(json!({ "id": "e", "request": "POST /", "json": {}, "form": {} })).contains("one body"));
        assert!(told(json!({ "id": "e", "request": "GET /", "json": {} })).contains("means nothing"));
        let basic = json!({ "username": "u" });
        assert!(
            told(json!({ "id": "e", "request": "GET /", "basic": basic, "credential": "token" }))
                .contains("instead of")
        );
    }
}
