//! Lists: what their addresses select by, and pages of many rows.

use regex::Regex;
use serde_json::json;
use trunkline::activity::{CallRecord, Told};
use trunkline::telemetry::trace::TraceId;

use super::house::{ADA, House, Visitor, people, text};
use crate::activity::call;

/// What a page's form of filters sends without being asked.
fn carried(page: &str) -> String {
    let (_, form) = page.split_once("role=\"search\"").unwrap_or_else(|| panic!("no filters: {page}"));
    let (form, _) = form.split_once("</form>").unwrap();
    let hidden = Regex::new("<input type=\"hidden\" name=\"([^\"]+)\" value=\"([^\"]*)\">").unwrap();
    let fields = hidden.captures_iter(form).map(|field| format!("{}={}", &field[1], &field[2]));
    fields.collect::<Vec<_>>().join(" ")
}

fn shown(visitor: &Visitor, path: &str) -> String {
    let reply = visitor.get(path);
    assert_eq!(reply.status, 200, "{path}: {}", text(&reply));
    text(&reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_address_selects_by_goes_along_with_its_form_and_is_said() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    house.dead_letter(&ada, &json!({ "type": "rung", "id": "1" })).await;
    let until = "until=2020-01-01T00:00:00Z";
    for (path, along) in [
        (format!("/events?delivery_id=7&limit=2&{until}"), format!("delivery_id=7 limit=2 {until}")),
        (format!("/dead-letters?delivery_id=7&{until}"), format!("delivery_id=7 {until}")),
        (format!("/events?type=rung&{until}&after=evt_00000000000000000000000001"), until.to_owned()),
        ("/activity?limit=2&trace=00".to_owned(), "limit=2".to_owned()),
        ("/audit?limit=2&actor=ada&from=1".to_owned(), "limit=2".to_owned()),
        ("/webhooks?limit=2&connection=main".to_owned(), "limit=2".to_owned()),
        ("/connections?limit=2".to_owned(), "limit=2".to_owned()),
    ] {
        assert_eq!(carried(&shown(&ada, &path)), along, "{path}");
    }
    let page = shown(&ada, &format!("/dead-letters?delivery_id=7&{until}"));
    assert!(page.contains("Also by until <code>2020-01-01T00:00:00Z</code>"), "{page}");
    assert!(page.contains("href=\"/dead-letters?delivery_id=7\">Take out until</a>"), "{page}");
    // What a choice does not offer is offered where it is in force.
    for (path, now) in
        [("/events?since=2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"), ("/activity?integration=gone", "gone")]
    {
        let page = shown(&ada, path);
        assert!(page.contains(&format!("<option selected>{now}</option>")), "{path}: {page}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_followed_from_one_of_its_entries() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let traced = Told { trace: Some(TraceId([7; 16])), ..Told::default() };
    house.running.activity().record(CallRecord { told: traced, ..call("/traced") });
    house.running.activity().record(call("/alone"));
    let trace = "07".repeat(16);
    let id = ada.get("/api/activity?path=/traced").json()[0]["id"].as_str().unwrap().to_owned();
    let link = format!("/activity?trace={trace}");
    let page = shown(&ada, &format!("/activity/{id}"));
    assert!(page.contains(&format!("href=\"{link}\"")), "{page}");
    let page = shown(&ada, &link);
    assert!(page.contains("GET /traced") && !page.contains("GET /alone"), "{page}");
    assert!(
        page.contains(&format!("name=\"trace\" value=\"{trace}\"")) && page.contains("class=\"more\" open"),
        "{page}"
    );
    house.close().await;
}

/// The rows of a list on all of its pages, as the addresses that they open.
fn walked(visitor: &Visitor, list: &str, (each, said): (usize, &str)) -> Vec<String> {
    let row = Regex::new("data-row href=\"([^\"]+)\"").unwrap();
    let next = Regex::new("rel=\"next\" href=\"([^\"]+)\"").unwrap();
    let (mut rows, mut path) = (Vec::new(), Some(format!("{list}?limit={each}")));
    while let Some(place) = path {
        let page = shown(visitor, &place);
        let found: Vec<_> = row.captures_iter(&page).map(|row| row[1].to_owned()).collect();
        assert!(found.len() <= each && page.contains(said), "{place}: {page}");
        assert_eq!(page.contains(">First page</a>"), !rows.is_empty(), "{place}: {page}");
        rows.extend(found);
        path = next.captures(&page).map(|next| next[1].replace("&amp;", "&"));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_and_connections_are_shown_in_pages() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let connection = ada.connection_of("bell");
    for _ in 0..5 {
        let made = ada.post("/webhooks/new", &[("connection", &connection)]);
        assert!(text(&made).contains("The endpoint was made"), "{}", text(&made));
        house.pass(std::time::Duration::from_secs(1));
    }
    let all = ada.get("/api/webhooks").json();
    let all: Vec<_> =
        all.as_array().unwrap().iter().map(|row| format!("/webhooks/{}", row["id"].as_str().unwrap())).collect();
    assert_eq!((all.len(), walked(&ada, "/webhooks", (2, " of 5 endpoints"))), (5, all));
    let connections = walked(&ada, "/connections", (1, "1 of 2 connections"));
    assert_eq!(connections.len(), 2, "{connections:?}");
    assert_ne!(connections[0], connections[1]);
    assert!(shown(&ada, "/connections").contains(">2 connections<"));
    assert_eq!(ada.get("/connections?limit=0").status, 400);
    house.close().await;
}
