//! Single values that a schema's keywords are too weak for.

use std::iter;

use http::HeaderName;
use serde_json::Value;

use super::{Findings, below};
use crate::base::origin;
use crate::base::units::parse_duration;
use crate::definition::compile::{Address, certificates, read_address, read_pattern};
use crate::definition::plan::api::HostPattern;
use crate::definition::problem::Code;
use crate::definition::schema::walk::Visit;
use crate::definition::suggest::nearest;

/// Headers that frame a message or belong to one hop: nobody but the HTTP library may write them.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn check(visit: &Visit<'_>, found: &mut Findings<'_>) {
    match visit.value {
        Value::Object(map) if visit.marked("x-headers") => {
            for name in map.keys() {
                header(name, &below(visit.pointer, name), found);
            }
        }
        Value::Array(items) if visit.marked("x-hosts") => {
            for (index, host) in items.iter().enumerate() {
                host_pattern(host, &below(visit.pointer, &index.to_string()), found);
            }
        }
        Value::Object(map) => names(map, visit, found),
        Value::String(text) => self::text(text, visit, found),
        _ => {}
    }
}

/// Maps whose keys are names that other places use.
fn names(map: &serde_json::Map<String, Value>, visit: &Visit<'_>, found: &mut Findings<'_>) {
    let Some(kind) = visit.word("x-names") else { return };
    for key in map.keys() {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || (kind == "id" && c == '-');
        let begins_well = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || kind == "id");
        let lower = kind != "id" || !key.contains(|c: char| c.is_ascii_uppercase());
        if !begins_well || !lower || key.is_empty() || key.len() > 64 || !key.chars().all(letter) {
            let place = found.document.key_place(&below(visit.pointer, key));
            let expected =
                if kind == "id" { "lower-case letters, digits, `_` and `-`" } else { "letters, digits and `_`" };
            let message = format!("`{key}` is not a name: {expected}, at most 64");
            found.push(crate::definition::problem::Problem::error(Code::BadFormat, place, message));
        }
    }
}

fn text(text: &str, visit: &Visit<'_>, found: &mut Findings<'_>) {
    if visit.marked("x-regex")
        && let Err(message) = read_pattern(text)
    {
        found.error(Code::BadFormat, visit.pointer, format!("the pattern does not compile: {message}"));
    }
    if visit.facet("x-request").is_some() {
        match read_address(text) {
            Err(message) => _ = found.error(Code::BadFormat, visit.pointer, message),
            Ok(address) => {
                method(&address, visit, found);
                request(&address, visit, found);
            }
        }
    }
    if is_time_limit(visit) && parse_duration(text).is_ok_and(|time| time.is_zero()) {
        let problem =
            found.error(Code::OutOfRange, visit.pointer, "a limit of no time ends everything before it begins");
        problem.help = Some("Write how long it may take, such as 30s, or leave the field out.".to_owned());
    }
    if let Some(kind) = visit.word("x-url") {
        url(text, kind, visit, found);
    }
    if visit.facet("x-pem").is_some()
        && let Err(message) = certificates(text)
    {
        found.error(Code::BadFormat, visit.pointer, message);
    }
}

/// Whether a value bounds how long something may take.
fn is_time_limit(visit: &Visit<'_>) -> bool {
    let is_duration = visit.word("x-expected").is_some_and(|expected| expected.starts_with("a duration"));
    let mut tokens = visit.pointer.rsplit('/');
    let (field, block) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
    is_duration && (field.ends_with("timeout") || block == "timeouts")
}

/// Methods in use: those of RFC 9110, 5789 and 4918, and what APIs add to them.
const METHODS: [&str; 20] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "QUERY",
    "LIST",
    "LINK",
    "UNLINK",
];

/// A method that nobody has heard of is a slip, or one of the service's own.
fn method(address: &Address<'_>, visit: &Visit<'_>, found: &mut Findings<'_>) {
    let written = address.method.as_str();
    if !METHODS.contains(&written) {
        let message = format!("`{written}` is not a method that is in use");
        let problem = found.warning(Code::UnknownValue, visit.pointer, message);
        problem.suggestion = nearest(written, METHODS);
        problem.help = Some("It is sent as written.".to_owned());
    }
}

fn header(name: &str, pointer: &str, found: &mut Findings<'_>) {
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        found.error(Code::BadFormat, pointer, format!("`{name}` is not the name of a header"));
    } else if FRAMING.contains(&lower.as_str()) {
        let problem = found.error(Code::Conflict, pointer, format!("`{name}` is not for definitions to set"));
        problem.help = Some("It frames the message or belongs to one connection; the gateway writes it.".to_owned());
    }
}

fn host_pattern(host: &Value, pointer: &str, found: &mut Findings<'_>) {
    let Some(text) = host.as_str() else { return };
    if HostPattern::parse(text).is_none() {
        let problem = found.error(Code::BadFormat, pointer, format!("`{text}` is not a host"));
        problem.help =
            Some("Write a name, or `*.` and a name of at least two parts for all names below it.".to_owned());
    }
}

fn request(address: &Address<'_>, visit: &Visit<'_>, found: &mut Findings<'_>) {
    if let Some(message) = traversal(address.target) {
        found.error(Code::BadFormat, visit.pointer, message);
    }
    if address.target.starts_with("http") {
        url(address.target, "https", visit, found);
    }
}

/// What in a written address would lead elsewhere than it says.
fn traversal(target: &str) -> Option<String> {
    let path = target.split_once("://").map_or(target, |(_, rest)| rest);
    let (first, slots) = path.split_once("{{").unwrap_or((path, ""));
    // A slot that is not closed is told as such, and hides what follows.
    let after_slots = slots.split("{{").map(|part| part.split_once("}}").map_or("", |(_, rest)| rest));
    let outside: String = iter::once(first).chain(after_slots).collect();
    let path = outside.split(['?', '#']).next().unwrap_or_default();
    if path.contains('\\') || path.contains(|c: char| c.is_control() || c == ' ') {
        return Some("an address has no backslash, space or control character".to_owned());
    }
    if target.starts_with("//") {
        return Some("an address that begins with `//` names another host: write `https://`".to_owned());
    }
    path.split('/')
        .any(|segment| matches!(segment, "." | ".."))
        .then(|| "an address has no `.` or `..` segment".to_owned())
}

fn url(text: &str, kind: &str, visit: &Visit<'_>, found: &mut Findings<'_>) {
    let lone_slot = text.starts_with("{{");
    if lone_slot {
        return;
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        found.error(Code::BadFormat, visit.pointer, "this is not an address: it begins with `https://`".to_owned());
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(':');
    match scheme {
        "https" => {}
        "http" if matches!(kind, "destination" | "public") || is_loopback(host) || plain_http_allowed(visit, found) => {
        }
        "http" => {
            let problem = found.error(Code::BadFormat, visit.pointer, "plain HTTP would send credentials unprotected");
            let help = if visit.pointer.starts_with("/api/") {
                "Write `https://`; plain HTTP is for loopback, or where `api.allow_plain_http` is true."
            } else {
                "Write `https://`; plain HTTP is for loopback here, also where `api.allow_plain_http` is true."
            };
            problem.help = Some(help.to_owned());
        }
        other => {
            let message = format!("`{other}` is not a scheme for this: expected `https`");
            found.error(Code::BadFormat, visit.pointer, message);
        }
    }
    if authority.is_empty() {
        found.error(Code::BadFormat, visit.pointer, "this address names no host");
    } else if authority.contains('@') {
        let problem = found.error(Code::BadFormat, visit.pointer, "an address has no name and password in it");
        problem.help = Some("Use `basic` or `api.credential` with a reference.".to_owned());
    } else if !matches!(kind, "destination" | "public")
        && matches!(scheme, "http" | "https")
        && let Some(message) = uncallable(text, visit.pointer == "/api/base_url")
    {
        found.error(Code::BadFormat, visit.pointer, message);
    }
}

/// Why no call can go where an address says, whatever stands in its slots. `is_base` is of one that paths are put behind.
fn uncallable(text: &str, is_base: bool) -> Option<String> {
    // What a reference would have brought is told as missing already.
    if text.contains("${") {
        return None;
    }
    let url = &with_slots(text);
    let origin = |url: &str| {
        let end = url
            .split_once("://")
            .map(|(scheme, rest)| scheme.len() + 3 + rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        origin::take_apart(url.get(..end?)?).map(|(origin, _)| origin)
    };
    if origin(url).is_none() {
        return Some(
            if text.is_ascii() {
                "no call can go there: behind `://` stands a host name, or an address, and a port from 1 to 65535 where it is \
                 not the usual one"
            } else {
                "no call can go there: a host is written in ASCII (a name in another script in its `xn--` form)"
            }
            .to_owned(),
        );
    }
    let path =
        url.split_once("://").and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..))).unwrap_or_default();
    let is_plain = origin::is_plain_path(path.trim_end_matches('/'));
    if !is_base {
        return None;
    }
    if url.contains(['?', '#']) {
        return Some("a base has no query and no fragment: the calls have their own paths and queries".to_owned());
    }
    (!is_plain).then(|| {
        "a base's path has segments of visible ASCII, none of them empty, `.` or `..`, and nothing that is read in two ways"
            .to_owned()
    })
}

/// A text with something in place of each of its slots: a number where a port stands, else a word.
fn with_slots(text: &str) -> String {
    let mut parts = text.split("{{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |url, part| {
        let value = if url.ends_with(':') { "1" } else { "x" };
        url + value + part.split_once("}}").map_or("", |(_, rest)| rest)
    })
}

fn plain_http_allowed(visit: &Visit<'_>, found: &Findings<'_>) -> bool {
    let allowed = found.document.value.pointer("/api/allow_plain_http");
    visit.pointer.starts_with("/api/") && allowed.and_then(Value::as_bool).unwrap_or_default()
}

/// Whether a written host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use serde_json::{Value, json};

    fn api(more: &Value) -> Vec<String> {
        let mut api = json!({ "base_url": "https://a.example" });
        api.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        with(&json!({ "api": api }))
    }

    #[test]
    fn headers_are_names_that_a_definition_may_set() {
        assert_eq!(
            api(&json!({ "headers": { "X Y": "a", "Host": "b", "X-Z": "c" } })),
            [
                "bad-format /api/headers/X Y: `X Y` is not the name of a header",
                "conflict /api/headers/Host: `Host` is not for definitions to set",
            ]
        );
    }

    #[test]
    fn addresses_are_https_and_lead_where_they_say() {
        let told = |base: &str| api(&json!({ "base_url": base })).concat();
        assert_eq!(told("http://127.0.0.1:9000/x"), "");
        assert!(told("http://a.example").contains("plain HTTP"));
        assert!(told("ftp://a.example").contains("`ftp` is not a scheme"));
        assert!(told("https://u:p@a.example").contains("no name and password"));
        assert!(told("https:///x").contains("names no host"));
        assert!(told("a.example").contains("not an address"));
        assert_eq!(api(&json!({ "base_url": "http://a.example", "allow_plain_http": true })), [""; 0]);
        for good in [
            "https://a.example:8443/v1/",
            "https://[::1]/a",
            "https://a.example/{{ input.y }}/b",
            "https://b.{{ input.y }}:{{ input.y }}",
        ] {
            assert!(!told(good).contains("bad-format"), "{good}: {}", told(good));
        }
        for (bad, words) in [
            ("https://a.example/x?y=1", "no query and no fragment"),
            ("https://a.example#x", "no query and no fragment"),
            ("https://a.example:99999", "a port from 1 to 65535"),
            ("https://a.example:", "a port from 1 to 65535"),
            ("https://a_b..example/", "a host name"),
            ("https://müller.example", "in ASCII"),
            ("https://a.example//b", "none of them empty"),
            ("https://a.example/x/../b", "none of them empty"),
            ("https://a.example/x/%2e%2e", "none of them empty"),
        ] {
            assert!(told(bad).contains(words), "{bad}: {}", told(bad));
        }
    }

    #[test]
    fn request_lines_have_a_method_and_stay_in_their_tree() {
        let told = |line: &str| api(&json!({ "test": line })).concat();
        assert_eq!(told("GET /user?x={{ input.y }}"), "");
        for (line, words) in [
            ("get /user", "`get` is not a method"),
            ("GET user", "not an address"),
            ("GET /a/../b", "segment"),
            ("GET //evil.example/x", "another host"),
            ("GET /a\\b", "backslash"),
            ("GTE /user", "`GTE` is not a method that is in use"),
        ] {
            assert!(told(line).contains(words), "{line}");
        }
    }

    #[test]
    fn a_limit_has_some_time() {
        let told = api(&json!({ "timeouts": { "total": "0s", "connect": "1ms" } }));
        assert_eq!(told, ["out-of-range /api/timeouts/total: a limit of no time ends everything before it begins"]);
        let endpoint = json!({ "id": "e", "request": "/x", "timeout": "0ms", "json": { "timeout": "0s" } });
        let told = api(&json!({ "endpoints": [endpoint] }));
        assert!(told.len() == 1 && told[0].contains("/api/endpoints/0/timeout"), "{told:?}");
    }

    #[test]
    fn patterns_and_hosts_are_read() {
        assert!(with(&json!({ "inputs": { "a": { "pattern": "(" } } })).concat().contains("does not compile"));
        assert!(api(&json!({ "hosts": ["*.com", "https://a.b", "a.b"] })).len() == 2);
    }

    #[test]
    fn names_of_inputs_can_be_written_in_templates() {
        let told = with(&json!({ "inputs": { "login-host": {}, "ok_1": {} } }));
        assert_eq!(
            told,
            ["bad-format /inputs/login-host: `login-host` is not a name: letters, digits and `_`, at most 64"]
        );
    }
}
