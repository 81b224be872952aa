//! `/api/openapi.json`: the API described for programs (OpenAPI 3.1), made of the routes and of the types that they
//! take and answer with, and of the table of what the public door answers about connecting.
//!
//! A handler names its good answers by type, and under each other status the codes of `respond` that it gives itself.
//! What any route may answer, because of who asks or how, is added here, and each code becomes a problem document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, ResponseBuilder};

use super::connect_pages;
use crate::respond::{Document, Refusal};

/// What any request may be refused with.
const ALWAYS: [Refusal; 12] = [
    // Before a route sees it.
    Refusal::MalformedRequest,
    Refusal::RequestTimeout,
    Refusal::UriTooLong,
    Refusal::HeadersTooLarge,
    Refusal::AdminUnknown,
    Refusal::AdminClosed,
    Refusal::Misdirected,
    Refusal::OriginForbidden,
    Refusal::RateLimited,
    Refusal::Internal,
    Refusal::Unavailable,
    Refusal::StoreUnavailable,
];
/// What a request that may change something can be refused with as well.
const CHANGES: [Refusal; 10] = [
    Refusal::RoleForbidden,
    Refusal::ReadOnly,
    Refusal::FormForeign,
    Refusal::BodyTooLarge,
    // What conditions and keys can be refused with.
    Refusal::InvalidInput,
    Refusal::Conflict,
    Refusal::RequestUnderWay,
    Refusal::AnswerNotKept,
    Refusal::PreconditionFailed,
    Refusal::IdempotencyKeyReused,
];
/// What a call to a service can be refused with.
const CALLS: [Refusal; 23] = [
    Refusal::ScopeMissing,
    Refusal::HostForbidden,
    Refusal::NotFound,
    Refusal::ConnectionUnknown,
    Refusal::Conflict,
    Refusal::NotYetRun,
    Refusal::ServiceUnreachable,
    Refusal::EgressFailed,
    Refusal::ServiceUntrusted,
    Refusal::ServiceUnresolved,
    Refusal::AddressForbidden,
    Refusal::ServiceAnswerInvalid,
    Refusal::ServiceRefused,
    Refusal::PagesEnded,
    Refusal::DefinitionFailed,
    Refusal::ConnectionUnusable,
    Refusal::NeedsReconnect,
    Refusal::ConnectionPaused,
    Refusal::ServiceHeld,
    Refusal::NotCached,
    Refusal::ServiceTimeout,
    Refusal::LoopDetected,
    Refusal::InvalidInput,
];

/// What a route that calls a service can be refused with.
#[derive(Debug)]
pub struct CallsOut;

impl IntoResponses for CallsOut {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let named = by_status(CALLS.into_iter()).into_iter().map(|(status, codes)| {
            let codes: Vec<_> = codes.into_iter().collect();
            (status.to_string(), ResponseBuilder::new().description(codes.join(" ")).build().into())
        });
        named.collect()
    }
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", operation_id = "document", tag = "configuration",
    responses((status = 200, body = serde_json::Value, description = "The OpenAPI document")))]
pub async fn show() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], text()).into_response()
}

/// The document as it is served and published.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", whole()));
    &TEXT
}

fn whole() -> Value {
    let mut document = serde_json::to_value(super::guarded().into_openapi()).unwrap_or_default();
    let mut shared = Map::new();
    let items = document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    for (method, operation) in items.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten()) {
        finish(method, operation, &mut shared);
    }
    document["info"] = json!({
        "title": "Trunkline",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "The API of the admin door, and what the public door answers about connecting: those paths name a \
            server of their own. What the gateway refuses is a problem document (RFC 9457) with a \
            stable `code`. Lists are arrays; `Link` says where the next page is (RFC 8288). Times are RFC 3339 in UTC \
            where they are texts.",
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
    });
    // Relative to where the document is served, so that it holds below any path.
    document["servers"] = json!([{ "url": ".." }]);
    document["security"] = json!([{ "token": [] }, {}]);
    let components = document["components"].as_object_mut();
    if let Some(components) = components {
        let token = json!({ "type": "http", "scheme": "bearer", "description": "`admin.token`, or the token of one \
            of `admin.accounts`; in development on loopback nobody needs one" });
        components.insert("securitySchemes".to_owned(), json!({ "token": token }));
        let problem = <Document<'_> as utoipa::PartialSchema>::schema();
        components["schemas"]["Problem"] = serde_json::to_value(problem).unwrap_or_default();
        components.insert("responses".to_owned(), Value::Object(shared));
        components.insert("headers".to_owned(), shared_headers());
    }
    connect_pages::add(&mut document);
    document
}

/// Adds to an operation what any of its kind may answer, and makes documents of codes.
fn finish(method: &str, operation: &mut Value, shared: &mut Map<String, Value>) {
    let name = operation["operationId"].as_str().unwrap_or_default();
    operation["operationId"] = json!(format!("{}_{name}", operation["tags"][0].as_str().unwrap_or_default()));
    let mut refusals = usual(method, operation);
    let queries = |names: &[&str]| {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        parameters.filter(|one| one["in"] == "query").any(|one| names.iter().any(|name| one["name"] == *name))
    };
    let pages = queries(&["limit"]) && queries(&["after", "from"]);
    let tagged = method == "get" && operation.pointer("/responses/200/content/application~1json").is_some();
    match method {
        "get" if tagged => add_headers(operation, &[NONE_MATCH]),
        "get" => {}
        _ => add_headers(operation, &[MATCH, IDEMPOTENCY]),
    }
    let named = operation["responses"].as_object_mut();
    let Some(named) = named else { return };
    let (good, bad): (Vec<_>, Vec<_>) =
        std::mem::take(named).into_iter().partition(|(status, _)| status.starts_with(['2', '3']));
    let words = bad.iter().filter_map(|(_, answer)| answer["description"].as_str());
    refusals.extend(words.flat_map(str::split_whitespace).map(str::to_owned));
    named.extend(good.into_iter().map(|(status, answer)| {
        let mut answer = told(&status, answer, pages);
        if tagged {
            answer["headers"]["ETag"] = json!({ "$ref": "#/components/headers/ETag" });
        } else if method != "get" {
            answer["headers"]["Idempotent-Replayed"] = json!({ "$ref": "#/components/headers/Idempotent-Replayed" });
        }
        (status, answer)
    }));
    if tagged {
        let headers = json!({ "ETag": { "$ref": "#/components/headers/ETag" } });
        let words = "It is still as `If-None-Match` names it";
        named.insert("304".to_owned(), json!({ "description": words, "headers": headers }));
    }
    let known = Refusal::ALL.iter().copied().filter(|refusal| refusals.contains(refusal.code()));
    for (status, codes) in by_status(known) {
        let name = codes.iter().copied().collect::<Vec<_>>().join("-or-");
        shared.entry(name.clone()).or_insert_with(|| problem(status, &codes));
        named.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
    }
}

/// What an operation of this kind can be refused with, whatever it does.
fn usual(method: &str, operation: &Value) -> BTreeSet<String> {
    let (asks, sends) = (operation.get("parameters").is_some(), operation.get("requestBody").is_some());
    let changes: &[Refusal] = if method == "get" { &[] } else { &CHANGES };
    let wrong = (asks || sends).then_some(Refusal::InvalidInput);
    let unread = sends.then_some(Refusal::UnsupportedMediaType);
    let all = ALWAYS.iter().copied().chain(changes.iter().copied()).chain(wrong).chain(unread);
    all.map(|refusal| refusal.code().to_owned()).collect()
}

/// A header that requests of a kind may have: its name, and what it does.
type Taken = (&'static str, &'static str);
const NONE_MATCH: Taken = ("If-None-Match", "The `ETag` that the asker has: 304 while the answer is still that one");
const MATCH: Taken = (
    "If-Match",
    "Only while GET of this path (of the one above, where the last part says what is done) answers with this `ETag`; \
     else 412",
);
const IDEMPOTENCY: Taken = (
    "Idempotency-Key",
    "1 to 255 characters: the request is made once, and sent again within 24 hours with this key it has the same answer",
);

fn add_headers(operation: &mut Value, taken: &[Taken]) {
    let headers = taken.iter().map(|(name, does)| {
        json!({ "name": name, "in": "header", "description": does, "required": false, "schema": { "type": "string" } })
    });
    match operation.get_mut("parameters").and_then(Value::as_array_mut) {
        Some(parameters) => parameters.extend(headers),
        None => operation["parameters"] = headers.collect(),
    }
}

/// The headers of answers that are described once.
fn shared_headers() -> Value {
    json!({
        "ETag": {
            "required": true,
            "description": "Stands for the answer (RFC 9110 §8.8.3); strong",
            "schema": { "type": "string", "pattern": "^\"[0-9a-f]{32}\"$" },
        },
        "Idempotent-Replayed": {
            "description": "`true` where this is the answer that a request with this `Idempotency-Key` had before",
            "schema": { "type": "string", "enum": ["true"] },
        },
    })
}

/// A good answer with its headers; one without words says what its status means.
fn told(status: &str, mut answer: Value, pages: bool) -> Value {
    if answer["description"].as_str().is_none_or(str::is_empty) {
        let reason = status.parse::<StatusCode>().ok().and_then(|status| status.canonical_reason());
        answer["description"] = json!(reason.unwrap_or_default());
    }
    if pages && answer["content"].get("application/json").is_some() {
        answer["headers"]["Link"] =
            json!({ "description": "Where the next page is, where there is one", "schema": { "type": "string" } });
    }
    answer
}

/// Codes by their status.
pub(super) fn by_status(refusals: impl Iterator<Item = Refusal>) -> BTreeMap<u16, BTreeSet<&'static str>> {
    refusals.fold(BTreeMap::new(), |mut all, refusal| {
        all.entry(refusal.status()).or_insert_with(BTreeSet::new).insert(refusal.code());
        all
    })
}

/// The answer that has one of these codes.
pub(super) fn problem(status: u16, codes: &BTreeSet<&str>) -> Value {
    let refusals = Refusal::ALL.iter().filter(|refusal| codes.contains(refusal.code()));
    let lines: Vec<_> = refusals.map(|refusal| format!("`{}`: {}", refusal.code(), refusal.meaning().trim())).collect();
    let mut headers = json!({
        "Trunkline-Error": { "required": true, "description": "The code", "schema": { "type": "string", "enum": codes } },
    });
    if matches!(status, 429 | 503) {
        let when = "When to come again, in seconds, where that is known";
        headers["Retry-After"] = json!({ "description": when, "schema": { "type": "integer", "minimum": 1 } });
    }
    let own = json!({ "properties": { "code": { "enum": codes }, "status": { "const": status } } });
    let schema = json!({ "allOf": [{ "$ref": "#/components/schemas/Problem" }, own] });
    json!({
        "description": lines.join("\n"),
        "headers": headers,
        "content": { "application/problem+json": { "schema": schema } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
        let paths = document["paths"].as_object().into_iter().flatten();
        paths.flat_map(|(path, item)| {
            let item = item.as_object().into_iter().flatten().filter(|(method, _)| *method != "servers");
            item.map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
    }

    /// After a change, `UPDATE_SCHEMAS=1 cargo test drift` writes the file anew.
    #[test]
    fn the_published_document_does_not_drift() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/openapi.json");
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&path, text()).expect("written");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == text(), "schemas/openapi.json lags behind: run UPDATE_SCHEMAS=1 cargo test drift");
    }

    #[test]
    fn handlers_name_codes_that_there_are_under_their_status() {
        let document = serde_json::to_value(super::super::guarded().into_openapi()).expect("JSON");
        for (name, operation) in operations(&document) {
            for (status, answer) in operation["responses"].as_object().expect("answers") {
                let codes = answer["description"].as_str().unwrap_or_default();
                for code in codes.split_whitespace().filter(|_| !status.starts_with('2')) {
                    let known = Refusal::ALL.iter().find(|refusal| refusal.code() == code);
                    let is = known.map(|refusal| refusal.status().to_string());
                    assert_eq!(is.as_deref(), Some(status.as_str()), "{name}: {code}");
                }
            }
        }
    }

    #[test]
    fn operations_have_names_words_and_types_of_their_own() {
        let document = whole();
        let mut names = BTreeSet::new();
        for (name, operation) in operations(&document) {
            assert!(names.insert(operation["operationId"].as_str().expect("a name")), "{name}");
            assert!(operation["summary"].as_str().is_some_and(|words| !words.is_empty()), "{name}");
            for (status, answer) in operation["responses"].as_object().expect("answers") {
                let typed = answer.get("content").is_some() || answer.get("$ref").is_some();
                assert!(typed || matches!(status.as_str(), "303" | "304"), "{name}: {status}");
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn look(root: &Value, value: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(path) = map.get("$ref").and_then(Value::as_str) {
                        assert!(root.pointer(path.trim_start_matches('#')).is_some(), "{path}");
                    }
                    map.values().for_each(|value| look(root, value));
                }
                Value::Array(items) => items.iter().for_each(|value| look(root, value)),
                _ => {}
            }
        }
        let document = whole();
        look(&document, &document);
    }
}
