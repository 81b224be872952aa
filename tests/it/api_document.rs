//! The API's document against the router, the manual and the door that serves it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use trunkline::admin::api::document;

use crate::outside::gateway::Deployment;
use crate::outside::http::Client;

/// Every operation of the document, as `GET /api/config`.
fn operations() -> BTreeSet<String> {
    let document: Value = serde_json::from_str(document::text()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    });
    operations.collect()
}

#[test]
fn the_manual_has_every_route_and_no_other() {
    let manual = include_str!("../../docs/API.md");
    let (_, door) = manual.split_once("## The admin door").unwrap();
    let rows = door.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let routes: BTreeSet<String> = rows.map(|(route, _)| route.to_owned()).collect();
    let open = ["GET /metrics", "GET /livez", "GET /readyz", "GET /healthz"].map(str::to_owned);
    assert_eq!(routes, operations().into_iter().chain(open).collect());
}

#[test]
fn the_door_has_every_route_of_the_document_and_serves_it() {
    let deployment = Deployment::of(&[]);
    let _gateway = deployment.start();
    let mut client = Client::new(deployment.admin);
    for operation in operations() {
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
