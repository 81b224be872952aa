//! The activity over real sockets: kept over a kill, filtered, exported, and live.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use trunkline::activity::{Activity, Asker, CallRecord, Course, Told};

use crate::outside::gateway::Deployment;
use crate::outside::http::Reply;
use crate::outside::{service, within};
use crate::page::house::{ADA, House, START, Visitor, people, text};
use crate::support::raw::PATIENCE;

/// A call of the application at `keyed / declared` that ended well.
pub fn call(path: &str) -> CallRecord {
    CallRecord {
        at: START,
        generation: 1,
        integration: Arc::from("keyed"),
        connection: Arc::from("declared"),
        asker: Asker::Caller(Arc::from("app")),
        endpoint: None,
        method: Method::GET,
        origin: Arc::from("https://keyed.example"),
        path: path.to_owned(),
        status: Some(200),
        error: None,
        duration_ms: 12,
        sent_bytes: 0,
        received_bytes: 2,
        course: Course::ONCE,
        told: Told::default(),
    }
}

fn failed(path: &str) -> CallRecord {
    CallRecord { status: None, error: Some("service_timeout"), ..call(path) }
}

#[test]
fn what_happened_is_there_after_a_kill() {
    let address = service::start(|_| (200, "{}".to_owned()));
    let deployment = Deployment::of(&[("shop", service::open_shop(address))]);
    let gateway = deployment.start();
    let shown = || deployment.ask("GET", "/api/activity", &Value::Null).json();
    for number in 0..20 {
        assert_eq!(deployment.call("shop", "main", &format!("/things/{number}")).unwrap().status, 200);
    }
    assert!(within(PATIENCE, || shown().as_array().unwrap().len() == 20));
    let written = || {
        let files = fs::read_dir(deployment.path().join("data/activity")).into_iter().flatten();
        files
            .map(|file| String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).matches("/things/").count())
            .sum()
    };
    assert!(
        within(PATIENCE, || {
            let count: usize = written();
            count == 20
        }),
        "not all were written"
    );
    let before = shown();
    gateway.kill();
    let _gateway = deployment.start();
    assert_eq!(shown(), before);
    assert_eq!(deployment.call("shop", "main", "/later").unwrap().status, 200);
    assert!(within(PATIENCE, || shown()[0]["request"]["path"] == "/later"));
    let ids: BTreeSet<_> =
        shown().as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 21, "an id is given once");
}

async fn house(more: &str) -> (House, Visitor) {
    let house = House::open(&format!("{}{more}", people())).await;
    let visitor = house.signed_in("ada", ADA);
    (house, visitor)
}

fn ids(reply: &Reply) -> Vec<String> {
    reply.json().as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_pages_and_entries_are_the_same_for_lists_and_exports() {
    let (house, ada) = house("").await;
    let activity = house.running.activity();
    for number in 0..30 {
        activity.record(if number % 10 == 0 { failed("/pay") } else { call(&format!("/things/{number}")) });
    }
    let hook = Asker::Event("evt_00000000000000000000000001".to_owned());
    activity.record(CallRecord {
        asker: hook,
        integration: Arc::from("bell"),
        connection: Arc::from(""),
        ..call("/webhooks/bell")
    });
    for (query, count) in [
        ("integration=keyed", 30),
        ("integration=keyed&outcome=error", 3),
        ("kind=webhook&direction=in", 1),
        ("path=/things/2", 10),
        ("error=service_timeout&caller=app", 3),
        ("status=2xx&min_duration=12ms&max_duration=12ms", 28),
        ("q=PAY", 3),
        ("since=1h", 31),
        ("until=1h", 0),
        ("connection=declared&direction=out&limit=4", 4),
    ] {
        let listed = ids(&ada.get(&format!("/api/activity?{query}")));
        assert_eq!(listed.len(), count, "{query}");
        let exported = ada.get(&format!("/api/activity/export.ndjson?{query}"));
        let exported: Vec<_> = exported
            .body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(exported, listed, "{query}");
    }
    let mut all = Vec::new();
    let mut next = Some("/api/activity?limit=7".to_owned());
    while let Some(path) = next {
        let reply = ada.get(&path);
        all.extend(ids(&reply));
        next = reply.header("link").map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
    }
    assert_eq!(all, ids(&ada.get("/api/activity?limit=31")), "pages are the whole");
    let first = ada.get(&format!("/api/activity/{}", all[1]));
    let shown = first.json();
    for (name, value) in [
        ("eventType", json!("call")),
        ("status", json!("success")),
        ("duration", json!(12)),
        ("errorMessage", Value::Null),
        ("errorStack", json!([])),
        ("summary", json!("GET /things/29 → 200")),
        ("timestamp", json!(START.to_string())),
        ("response", json!({ "status": 200, "bytes": 2 })),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    let tag = first.header("etag").unwrap().to_owned();
    let again = ada.send("GET", &format!("/api/activity/{}", all[1]), &[("if-none-match", &tag)], "");
    assert_eq!((again.status, again.body.len()), (304, 0));
    for (path, status) in [
        ("/api/activity/act_0000000000000", 404),
        ("/api/activity/evt_1", 400),
        ("/api/activity?stauts=1", 400),
        ("/api/activity/stream?limit=1", 400),
    ] {
        assert_eq!(ada.send("GET", path, &[], "").status, status, "{path}");
    }
    let known = ada.get("/api/connections").json();
    let is_meant = |one: &&Value| one["integrationId"] == "keyed" && one["name"] == "declared";
    let connection = known.as_array().unwrap().iter().find(is_meant).unwrap()["id"].as_str().unwrap();
    let logs = ada.get(&format!("/api/integrations/{connection}/logs?outcome=error"));
    assert_eq!((ids(&logs).len(), logs.json()[0]["errorStack"].as_array().unwrap().len()), (3, 1));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rows_are_exported_and_none_is_a_formula() {
    let (house, ada) = house("").await;
    let activity = house.running.activity();
    for number in 0..10_000 {
        activity.record(call(&format!("/things/{number},\"quoted\"")));
    }
    activity.record(CallRecord { connection: Arc::from("=cmd|' /C calc'!A0"), ..call("@sum") });
    let reply = ada.get("/api/activity/export.csv");
    assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"activity.csv\""));
    let mut reader = csv::Reader::from_reader(reply.body.as_slice());
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 10_000, "as many as are kept");
    let names = reader.headers().unwrap().clone();
    let place = |name: &str| names.iter().position(|known| known == name).unwrap();
    let (connection, path) = (place("connection"), place("path"));
    assert_eq!((&rows[0][connection], &rows[0][path]), ("'=cmd|' /C calc'!A0", "'@sum"));
    assert_eq!(&rows[1][path], "/things/9999,\"quoted\"");
    let formulas = rows.iter().flatten().filter(|cell| cell.starts_with(['=', '+', '-', '@', '\t', '\r'])).count();
    assert_eq!(formulas, 0);
    house.close().await;
}

/// Someone who watches a stream.
struct Watch {
    stream: BufReader<TcpStream>,
    seen: String,
}

impl Watch {
    fn open(visitor: &Visitor, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect::<SocketAddr>(visitor.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (host, cookie) = (&visitor.host, &visitor.cookie);
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nAccept: text/event-stream\r\n{headers}\r\n"
        )
        .unwrap();
        Self { stream: BufReader::new(stream), seen: String::new() }
    }

    /// Reads on until all it has seen has this text.
    fn until(&mut self, text: &str) -> &str {
        let mut buffer = [0; 4_096];
        while !self.seen.contains(text) {
            assert!(self.seen.matches("still there").count() < 3, "nothing came before `{text}`: {}", self.seen);
            let read =
                self.stream.read(&mut buffer).unwrap_or_else(|error| panic!("{error}, before `{text}`: {}", self.seen));
            assert!(read > 0, "it ended before `{text}`: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        &self.seen
    }

    /// The ids of all events that it has seen.
    fn ids(&self) -> Vec<String> {
        self.seen.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.trim().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_what_its_filter_selects_and_goes_on_after_the_last_event() {
    let (house, ada) = house("").await;
    let activity: &Arc<Activity> = house.running.activity();
    activity.record(failed("/before"));
    let mut watch = Watch::open(&ada, "/api/activity/stream?outcome=error", "");
    watch.until(": the activity");
    assert!(watch.seen.contains("200 OK") && watch.seen.contains("text/event-stream"), "{}", watch.seen);
    activity.record(call("/fine"));
    activity.record(failed("/one"));
    activity.record(call("/fine"));
    activity.record(failed("/two"));
    let seen = watch.until("/two").to_owned();
    assert!(!seen.contains("/fine") && !seen.contains("/before"), "{seen}");
    let last = watch.ids().pop().unwrap();
    drop(watch);
    activity.record(failed("/three"));
    let mut watch = Watch::open(&ada, "/api/activity/stream?outcome=error", &format!("Last-Event-ID: {last}\r\n"));
    assert_eq!(watch.until("/three").matches("data: ").count(), 1);
    let mut rows = Watch::open(&ada, &format!("/activity/stream?after={last}"), "");
    // Slashes are escaped in pages.
    assert!(rows.until("three").contains("data: <tr>"), "{}", rows.seen);
    drop((watch, rows));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_a_stream_without_rows_is_away_is_shown_when_it_comes_again() {
    let (house, ada) = house("").await;
    let activity = house.running.activity();
    activity.record(call("/other"));
    let newest = || ids(&ada.get("/api/activity?limit=1")).remove(0);
    let first = newest();
    let page = text(&ada.get("/activity/live?path=/zz&limit=5"));
    let (_, connect) = page.split_once("hx-sse:connect=\"").unwrap_or_else(|| panic!("{page}"));
    let (address, _) = connect.split_once('"').unwrap();
    let address = address.replace("&amp;", "&");
    assert_eq!(address, format!("/activity/stream?path=%2Fzz&after={first}"), "it goes on after the newest of all");
    // Before it is connected for the first time, and while it is not.
    activity.record(call("/zz/early"));
    let mut watch = Watch::open(&ada, &address, "");
    assert!(watch.until("early").contains(&format!("id: {first}\n")), "{}", watch.seen);
    activity.record(call("/other"));
    let place = newest();
    watch.until(&format!("id: {place}\n\n"));
    drop(watch);
    activity.record(call("/zz/lost"));
    let mut watch = Watch::open(&ada, &address, &format!("Last-Event-ID: {place}\r\n"));
    assert!(!watch.until("lost").contains("early"), "{}", watch.seen);
    drop(watch);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_soon_after_the_session_that_asked_for_it() {
    let (house, ada) = house("").await;
    let activity = house.running.activity();
    let again = house.signed_in("ada", ADA);
    let mut stays = Watch::open(&again, "/api/activity/stream", "");
    let mut watches = ["/api/activity/stream", "/activity/stream"].map(|path| Watch::open(&ada, path, ""));
    watches.iter_mut().chain([&mut stays]).for_each(|watch| _ = watch.until(": the activity"));
    assert_eq!(ada.post("/sign-out", &[]).status, 303);
    activity.record(call("/later"));
    for watch in &mut watches {
        assert!(!watch.until("event: renew").contains("later"), "{}", watch.seen);
    }
    assert_eq!(ada.send("GET", "/api/activity/stream", &[], "").status, 401);
    stays.until("/later");
    // The other ends with the account.
    let file = house.directory.path().join("trunkline.yaml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(&file, settings.replacen("ada:", "eve:", 1)).unwrap();
    house.running.reloader().reload().await;
    stays.until("event: renew");
    drop((watches, stays));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_watch_than_may_and_strangers_and_other_sites_do_not() {
    let (house, ada) = house("activity: { viewers: 1 }\n").await;
    let mut first = Watch::open(&ada, "/api/activity/stream", "");
    first.until(": the activity");
    let second = ada.send("GET", "/api/activity/stream", &[], "");
    assert_eq!((second.status, second.json()["code"].as_str()), (429, Some("rate_limited")));
    assert_eq!(second.header("retry-after"), Some("5"));
    drop(first);
    let free = || {
        let mut watch = Watch::open(&ada, "/api/activity/stream", "");
        watch.until("HTTP/1.1").contains("200 OK")
    };
    assert!(within(PATIENCE, free), "the place is not given back");
    assert_eq!(house.visitor().send("GET", "/api/activity/stream", &[], "").status, 401);
    let foreign = Visitor { host: "evil.example".to_owned(), ..ada.clone() };
    assert!(foreign.send("GET", "/api/activity/stream", &[], "").status >= 400);
    assert!(
        within(Duration::from_secs(30), || {
            let metrics = String::from_utf8(house.running.metrics().render().unwrap()).unwrap();
            metrics.lines().any(|line| {
                line.starts_with("trunkline_activity_viewers_cut_total{reason=\"full\"}") && !line.ends_with(" 0")
            })
        }),
        "who is refused is not counted"
    );
    house.close().await;
}
