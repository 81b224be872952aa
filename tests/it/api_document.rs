//! The API's document against the router, the manual and the door that serves it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use trunkline::admin::api::document;

use crate::outside::gateway::Deployment;
use crate::outside::http::Client;

/// Which door answers a path.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    Admin,
    /// Its paths name a server of their own.
    Public,
}

/// Every operation of the document at a door, as `GET /api/config`.
fn operations(door: Door) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(document::text()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let paths = paths.filter(|(_, item)| item.get("servers").is_some() == (door == Door::Public));
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().filter(|name| *name != "servers");
        methods.map(move |method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    });
    operations.collect()
}

/// The routes that a part of the manual has a row for.
fn rows(part: &str) -> BTreeSet<String> {
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(route, _)| route.to_owned()).collect()
}

#[test]
fn the_manual_has_every_route_and_no_other() {
    let manual = include_str!("../../docs/API.md");
    let (rest, admin) = manual.split_once("## The admin door").unwrap();
    let open = ["GET /metrics", "GET /livez", "GET /readyz", "GET /healthz"].map(str::to_owned);
    assert_eq!(rows(admin), operations(Door::Admin).into_iter().chain(open).collect());
    let (_, public) = rest.split_once("## The public door").unwrap();
    assert_eq!(rows(public), operations(Door::Public));
}

/// Each method that the document has for a path about connecting is taken there, and no other; what is answered, and of
/// what kind, is in the document.
#[test]
fn the_public_door_answers_about_connecting_as_the_document_says() {
    let deployment = Deployment::of(&[]);
    let _gateway = deployment.start();
    let mut client = Client::new(deployment.public);
    let document: Value = serde_json::from_str(document::text()).unwrap();
    let operations = operations(Door::Public);
    let paths: BTreeSet<&str> =
        operations.iter().filter_map(|name| name.split_once(' ')).map(|(_, path)| path).collect();
    assert_eq!((operations.len(), paths.len()), (9, 7), "{operations:?}");
    for path in paths {
        let target = path.replace("{provider}", "shop").replace("{file}", "connect.css");
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let reply = client.send(method, &target, &[("accept", "text/html")], b"").unwrap();
            let operation = &document["paths"][path][method.to_lowercase()];
            assert_eq!(reply.status == 405, operation.is_null(), "{method} {path}: {}", reply.status);
            let allowed = reply.header("allow").map(|methods| methods.split(", ").any(|known| known == "GET"));
            assert_eq!(allowed, operation.is_null().then_some(true), "{method} {path}: {:?}", reply.headers);
            if operation.is_null() {
                continue;
            }
            let content = &operation["responses"][reply.status.to_string()]["content"];
            let kind = reply.header("content-type").unwrap().split(';').next().unwrap();
            assert!(content.get(kind).is_some(), "{method} {path}: {} {kind}: {content}", reply.status);
        }
    }
    let reply = client.send("GET", "/api/connect/shop?id=x", &[("accept", "text/plain")], b"").unwrap();
    let refused = &document["paths"]["/api/connect/{provider}"]["get"]["responses"]["400"];
    assert_eq!((reply.status, reply.header("content-type")), (400, Some("application/problem+json")));
    let code = reply.json()["code"].clone();
    let codes = &refused["headers"]["Trunkline-Error"]["schema"]["enum"];
    assert!(codes.as_array().unwrap().contains(&code), "{code}: {codes}");
}

#[test]
fn the_door_has_every_route_of_the_document_and_serves_it() {
    let deployment = Deployment::of(&[]);
    let _gateway = deployment.start();
    let mut client = Client::new(deployment.admin);
    for operation in operations(Door::Admin) {
        let (method, path) = operation.split_once(' ').unwrap();
        // A path that no id fits, so that nothing is changed and no stream is begun.
        let path = path.replace("{id}", "%00").replace("{result}", "%00");
        let reply = client.send(method, &format!("{path}?limit=x"), &[("content-type", "text/plain")], b"").unwrap();
        let text = String::from_utf8_lossy(&reply.body);
        assert!(reply.status != 405 && !text.contains("nothing at this path"), "{operation}: {} {text}", reply.status);
    }
    let served = deployment.ask("GET", "/api/openapi.json", &Value::Null);
    assert_eq!(served.header("content-type"), Some("application/json"));
    assert_eq!(String::from_utf8_lossy(&served.body), document::text());
}

/// What is refused before a route sees it is in the document as well, at both doors.
#[test]
fn targets_and_heads_that_are_too_long_are_refused_as_the_document_says() {
    let deployment = Deployment::of(&[]);
    let _gateway = deployment.start();
    let document: Value = serde_json::from_str(document::text()).unwrap();
    let (long, large) = ("a".repeat(9_000), "a".repeat(17_000));
    for (door, path) in [(deployment.admin, "/api/events"), (deployment.public, "/api/connect/{provider}")] {
        let target = path.replace("{provider}", "shop");
        let answers = &document["paths"][path]["get"]["responses"];
        for (target, headers, status) in
            [(format!("{target}?q={long}"), vec![], 414), (target.clone(), vec![("x-large", large.as_str())], 431)]
        {
            let reply = Client::new(door).send("GET", &target, &headers, b"").unwrap();
            assert_eq!(reply.status, status, "{path}: {:?}", reply.headers);
            assert!(answers.get(status.to_string()).is_some(), "{path} {status}: {answers}");
        }
    }
}

/// Nothing is routed beside the table that router and document are made of.
#[test]
fn routes_of_the_api_are_in_the_one_table() {
    let table = include_str!("../../src/admin/api/mod.rs");
    assert!(!table.contains(".route(\"/api"));
    for file in [include_str!("../../src/admin/mod.rs"), include_str!("../../src/page/mod.rs")] {
        assert!(!file.contains("\"/api/"), "a route of the API stands elsewhere");
    }
}

/// The fields of a schema, with those of what it is made of.
fn fields_of<'a>(document: &'a Value, schema: &'a Value) -> BTreeSet<&'a str> {
    let named = schema["$ref"].as_str().map(|path| document.pointer(path.trim_start_matches('#')).unwrap());
    let parts = schema["allOf"].as_array().into_iter().flatten().chain(named);
    let own = schema["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str);
    own.chain(parts.flat_map(|part| fields_of(document, part))).collect()
}

/// The names of fields that applications are written against.
#[test]
fn the_fields_that_applications_know_keep_their_names() {
    let document: Value = serde_json::from_str(document::text()).unwrap();
    let schemas = &document["components"]["schemas"];
    for (schema, fields) in [
        (
            "Integration",
            "id name provider category description logo authType features pricing rating installs verified",
        ),
        ("Connection", "id status externalId externalEmail lastSync syncedRecords errorMessage integration"),
        ("ActivityEntry", "id timestamp eventType status duration summary request response errorMessage errorStack"),
        ("Webhook", "id url secret enabled eventTypes deliveriesLast24h successRate lastDelivery"),
    ] {
        let known = fields_of(&document, &schemas[schema]);
        let gone: Vec<_> = fields.split(' ').filter(|field| !known.contains(*field)).collect();
        assert!(gone.is_empty(), "{schema} has no {gone:?}: {known:?}");
    }
}
