//! Whatever a value is, it stays in its place: the call that is made of it has the structure that the
//! definition wrote.
#![no_main]

use std::sync::LazyLock;

use http::{Method, header};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use trunkline::definition::plan::request::{Body, CredentialUse, Request, Target};
use trunkline::request::fill::{Place, fill};
use trunkline::template::{Context, Text, Tree};

static REQUEST: LazyLock<Request> = LazyLock::new(|| {
    let text = |source: &str| Text::compile(source).expect("compiles");
    let tree = |value: Value| Tree::compile(&value, &mut |_, error| panic!("{error}"));
    Request {
        method: Method::POST,
        target: Target::Path { path: text("/a/{{ v }}/x-{{ v }}"), query: Some(text("f={{ v }}")) },
        query: vec![("q".to_owned(), tree(json!("{{ v }}"))), ("z".to_owned(), tree(json!("1")))],
        headers: vec![(header::ACCEPT, text("{{ v }}"))],
        body: Body::Json(tree(json!({ "k": "{{ v }}" }))),
        basic: None,
        credential: CredentialUse::None,
        ok: None,
        error: None,
        save: Vec::new(),
        result: None,
        timeout: None,
    }
});

fuzz_target!(|value: &str| {
    let Ok(filled) = fill(&REQUEST, &Context::new().with("v", value)) else { return };
    let Place::Below(path) = &filled.place else { panic!("the place has become another") };
    let url = url::Url::parse(&format!("https://h.example{path}?{}", filled.query)).expect("a URL");
    assert_eq!(url.host_str(), Some("h.example"));
    assert_eq!(url.path(), path, "no other reading");
    let segments: Vec<_> = url.path_segments().expect("segments").collect();
    assert!(segments.len() == 3 && segments[0] == "a" && segments[2].starts_with("x-"));
    let pairs: Vec<_> = url.query_pairs().collect();
    assert_eq!(pairs, [("f".into(), value.into()), ("q".into(), value.into()), ("z".into(), "1".into())]);
    let accept = filled.headers[header::ACCEPT].as_bytes();
    assert!(!accept.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    assert_eq!(serde_json::from_slice::<Value>(&filled.body).expect("JSON"), json!({ "k": value }));
});
