//! Searching in what events hold.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use trunkline::base::id::EventId;
use trunkline::base::random::SystemRandom;
use trunkline::store::Events;
use trunkline::store::model::NewEvent;

use super::house::{ADA, House, START, Visitor, people, text};

fn ids(visitor: &Visitor, query: &str) -> Vec<String> {
    let listed = visitor.get(query).json();
    let rows = listed.as_array().unwrap_or_else(|| panic!("{query}: {listed}"));
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_any_text_that_it_holds() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let wanted = house.dead_letter(&ada, &json!({ "type": "rung", "id": "one", "order": "A-4711 (Löwe)" })).await;
    let other = house.dead_letter(&ada, &json!({ "type": "rung", "id": "two", "order": "B-12" })).await;
    for (q, found) in [
        ("4711", vec![&wanted]),
        ("a-4711+(L%C3%96WE)", vec![&wanted]),
        ("two", vec![&other]),
        ("application/json", vec![&other, &wanted]),
        ("no+such+thing", vec![]),
        ("r.ng", vec![]),
        ("", vec![&other, &wanted]),
    ] {
        // Those of one moment come in no order of their own.
        let (listed, found) =
            (ids(&ada, &format!("/api/events?q={q}")), found.into_iter().cloned().collect::<HashSet<_>>());
        assert_eq!((listed.len(), listed.into_iter().collect::<HashSet<_>>()), (found.len(), found), "{q}");
    }
    assert_eq!(ids(&ada, "/api/events?q=4711&integration=keyed"), Vec::<String>::new());
    let dead = ada.get("/api/deliveries?state=dead&q=4711").json();
    assert_eq!((dead.as_array().map(Vec::len), &dead[0]["event"]), (Some(1), &Value::from(wanted.as_str())));
    for screen in ["/events", "/dead-letters"] {
        let page = text(&ada.get(&format!("{screen}?q=4711")));
        assert!(page.contains(&wanted) && !page.contains(&other), "{page}");
    }
    assert_eq!(ada.get(&format!("/api/events?q={}", "x".repeat(257))).status, 400);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_says_where_it_ended_and_goes_on_there() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let store = Arc::clone(house.running.store());
    let random = SystemRandom::default();
    let at = |number: u64| START.after(Duration::from_millis(number));
    // No rule wants what comes to an integration without webhooks.
    let event = |number: u64| NewEvent {
        id: EventId::generate(at(number), &random).unwrap(),
        integration: Arc::from("keyed"),
        endpoint: None,
        event_type: "filed".to_owned(),
        delivery_id: None,
        dedupe_window: Duration::ZERO,
        received_at: at(number),
        query: String::new(),
        headers: Vec::new(),
        body: if number == 0 { "the needle".into() } else { "hay".into() },
    };
    try_join_all((0..2_001).map(|number| Events::accept(&*store, event(number)))).await.unwrap();
    let first = ada.get("/api/events?q=needle");
    assert_eq!((first.json(), first.header("trunkline-search")), (json!([]), Some("partial")));
    let page = text(&ada.get("/events?q=needle"));
    assert!(page.contains("search on from there"), "{page}");
    let next = first.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    let second = ada.get(&next);
    assert_eq!((second.json().as_array().map(Vec::len), second.header("trunkline-search")), (Some(1), None));
    assert_eq!(second.header("link"), None);
    // A page that is full has not ended at the bound.
    let full = ada.get("/api/events?q=hay&limit=3");
    assert_eq!((full.json().as_array().map(Vec::len), full.header("trunkline-search")), (Some(3), None));
    assert!(full.header("link").is_some());
    house.close().await;
}
