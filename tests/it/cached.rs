//! Answers that are used again, through the proxy door over real sockets.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, Method};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use trunkline::base::secret::Secret;
use trunkline::definition::plan::api::{Cache, Change, Endpoint, Errors, PathPattern, Transform};
use trunkline::definition::plan::gateway::Limits;
use trunkline::definition::plan::request::{CredentialUse, Request, Target};
use trunkline::definition::plan::rule::Glob;
use trunkline::definition::plan::{DeclaredConnection, DeclaredCredential, Integration};
use trunkline::template::Text;

use crate::support::doors::{Doors, KEY, Setup, caller, grant, service};
use crate::support::origin::{Seen, read_request, serve};
use crate::support::raw::{PATIENCE, Reply, Wire, call, send};

/// A service that answers as it is told, and keeps what it was asked.
pub struct Shelf {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    /// How many may be answered; requests wait for it.
    turns: Arc<Semaphore>,
}

impl Shelf {
    pub async fn start(answer: impl Fn(&Seen, usize) -> String + Send + Sync + 'static) -> Self {
        let (seen, connections) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<usize>>::default());
        let turns = Arc::new(Semaphore::new(1_000_000));
        let (kept, count, gate, answer) =
            (Arc::clone(&seen), Arc::clone(&connections), Arc::clone(&turns), Arc::new(answer));
        let address = serve(move |mut stream| {
            *count.lock().unwrap() += 1;
            let (kept, gate, answer) = (Arc::clone(&kept), Arc::clone(&gate), Arc::clone(&answer));
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    let number = {
                        let mut kept = kept.lock().unwrap();
                        kept.push(request.clone());
                        kept.len()
                    };
                    gate.acquire().await.unwrap().forget();
                    let answer = answer(&request, number);
                    let closes = answer.is_empty() || answer.contains("Connection: close");
                    if stream.write_all(answer.as_bytes()).await.is_err() || closes {
                        return;
                    }
                }
            }
        })
        .await;
        Self { url: format!("http://{address}"), seen, connections, turns }
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    fn integration(&self, cache: Option<Cache>) -> Integration {
        let mut integration = service(&self.url);
        integration.api.as_mut().unwrap().cache = cache;
        integration
    }

    fn doors(&self, cache: Cache) -> Doors {
        Doors::start(Setup::of(self.integration(Some(cache))))
    }
}

pub fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn ttl(ttl: Duration) -> Cache {
    Cache { ttl: Some(ttl), ..Cache::default() }
}

/// The endpoint `GET /NAME`, of that id.
fn endpoint(name: &str) -> Endpoint {
    let path = Text::compile(&format!("/{name}")).unwrap();
    Endpoint {
        id: Arc::from(name),
        request: Request::bare(Method::GET, Target::Path { path, query: None }),
        pattern: PathPattern { method: Method::GET, segments: vec![Some(name.into())] },
        scopes: Vec::new(),
        retry: None,
        transform: None,
        cache: None,
        page: None,
    }
}

pub fn hour() -> Cache {
    ttl(Duration::from_hours(1))
}

async fn get(doors: &Doors, path: &str, headers: &str) -> Reply {
    call(doors.proxy, &format!("GET /svc{path}"), headers, "").await
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_given_again_whole_in_part_or_as_unchanged() {
    let shelf =
        Shelf::start(|_, _| ok("ETag: \"a\"\r\nContent-Type: text/x\r\nSet-Cookie: s=1\r\n", "0123456789")).await;
    let doors = shelf.doors(hour());
    let first = get(&doors, "/a?q=1", "").await;
    assert_eq!((first.text().as_str(), first.header("age")), ("0123456789", None));
    assert_eq!(first.header("cache-status"), Some("trunkline; fwd=uri-miss; fwd-status=200; stored"));
    let again = get(&doors, "/a?q=1", "").await;
    assert_eq!((again.status, again.text().as_str(), again.header("age")), (200, "0123456789", Some("0")));
    assert!(again.header("cache-status").unwrap().starts_with("trunkline; hit; ttl="), "{again:?}");
    assert_eq!((again.header("content-type"), again.header("set-cookie")), (Some("text/x"), None));
    let part = get(&doors, "/a?q=1", "Range: bytes=2-4\r\n").await;
    assert_eq!((part.status, part.text().as_str(), part.header("content-range")), (206, "234", Some("bytes 2-4/10")));
    assert_eq!(get(&doors, "/a?q=1", "Range: bytes=99-\r\n").await.status, 416);
    let unchanged = get(&doors, "/a?q=1", "If-None-Match: W/\"a\"\r\n").await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!("HEAD /svc/a?q=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
    assert_eq!(wire.head_only().await.header("content-length"), Some("10"));
    assert_eq!(shelf.count(), 1);
    assert_eq!(get(&doors, "/a?q=2", "").await.status, 200);
    assert_eq!(shelf.count(), 2, "another query is another thing");
    assert!(doors.metric("trunkline_cache_calls_saved_total{by=\"hit\",integration=\"svc\"}") >= 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_unless_the_file_says_so() {
    let shelf = Shelf::start(|_, _| ok("Cache-Control: max-age=3600\r\n", "x")).await;
    let doors = Doors::start(Setup::of(shelf.integration(None)));
    for _ in 0..2 {
        assert_eq!(get(&doors, "/a", "").await.header("cache-status"), None);
    }
    assert_eq!(shelf.count(), 2);
    let shelf = Shelf::start(|_, _| ok("Cache-Control: no-store\r\n", "x")).await;
    let doors = shelf.doors(hour());
    for _ in 0..2 {
        get(&doors, "/a", "").await;
    }
    assert_eq!(shelf.count(), 2);
    assert_eq!(get(&doors, "/a", "Cache-Control: only-if-cached\r\n").await.code(), Some("not_cached"));
    let doors = shelf.doors(Cache { ignore_no_store: true, ..hour() });
    for _ in 0..2 {
        get(&doors, "/a", "").await;
    }
    assert_eq!(shelf.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_holds_is_given_and_the_connection_kept() {
    let shelf = Shelf::start(|request, _| match request.all("if-none-match").as_slice() {
        ["\"v1\""] => "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nX-Left: 7\r\n\r\n".to_owned(),
        _ => ok("ETag: \"v1\"\r\nCache-Control: no-cache\r\nX-Left: 8\r\n", "body"),
    })
    .await;
    let doors = shelf.doors(Cache::default());
    let mut wire = Wire::open(doors.proxy).await;
    let ask = format!("GET /svc/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    for (left, how) in [
        ("8", "uri-miss; fwd-status=200; stored"),
        ("7", "stale; fwd-status=304; stored"),
        ("7", "stale; fwd-status=304; stored"),
    ] {
        wire.send(&ask).await;
        let reply = wire.reply().await;
        // The caller has its answer a moment before the connection is back in the pool.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!((reply.status, reply.text().as_str(), reply.header("x-left")), (200, "body", Some(left)));
        assert_eq!(reply.header("cache-status"), Some(format!("trunkline; fwd={how}").as_str()));
    }
    assert_eq!(get(&doors, "/a", "If-None-Match: \"v1\"\r\n").await.status, 304);
    assert_eq!(shelf.count(), 4);
    assert!(*shelf.connections.lock().unwrap() < 4);
    assert!(doors.metric("trunkline_cache_calls_saved_total{by=\"not_modified\",integration=\"svc\"}") >= 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_crosses_connections_and_nobody_gets_what_they_might_not_ask_for() {
    let shelf = Shelf::start(|request, _| ok("", request.all("authorization")[0])).await;
    let mut integration = shelf.integration(Some(hour()));
    let connection = |id: &str| DeclaredConnection {
        id: Arc::from(id),
        credential: DeclaredCredential::ApiKey(Secret::from(format!("key-of-{id}").as_str())),
        inputs: serde_json::Map::new(),
        saved: serde_json::Map::new(),
    };
    integration.connections = vec![connection("one"), connection("two")];
    let mut setup = Setup::of(integration);
    setup.callers.push(caller("narrow", "narrow-key-0123456789abcd", grant("svc", "one", &[Method::GET], &["/b*"])));
    let doors = Doors::start(setup);
    for id in ["one", "two", "one", "two"] {
        let reply = get(&doors, "/a", &format!("Trunkline-Connection: {id}\r\n")).await;
        assert_eq!(reply.text(), format!("Bearer key-of-{id}"));
    }
    assert_eq!(shelf.count(), 2);
    let ask = "GET /svc/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer narrow-key-0123456789abcd\r\nTrunkline-Connection: one\r\n\r\n";
    assert_eq!(send(doors.proxy, ask).await.code(), Some("caller_forbidden"));
    assert!(Glob::new("/b*").matches("/b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn vary_tells_requests_apart() {
    let shelf = Shelf::start(|request, _| ok("Vary: Accept, Authorization\r\n", request.all("accept")[0])).await;
    let doors = shelf.doors(hour());
    for accept in ["a", "b", "a", "b", "a"] {
        assert_eq!(get(&doors, "/a", &format!("Accept: {accept}\r\n")).await.text(), accept);
    }
    assert_eq!(shelf.count(), 2);
    let star = Shelf::start(|_, _| ok("Vary: *\r\n", "x")).await;
    let doors = star.doors(hour());
    for _ in 0..2 {
        get(&doors, "/a", "").await;
    }
    assert_eq!(star.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn vary_is_about_what_the_service_got_where_a_transform_changes_it() {
    let shelf = Shelf::start(|request, _| ok("Vary: X-Tenant\r\n", request.all("x-tenant")[0])).await;
    let mut integration = shelf.integration(Some(hour()));
    let name = HeaderName::from_static("x-tenant");
    let change = Change { headers: vec![(name, Text::compile("of-{{ headers['x-app'] }}").unwrap())], json: None };
    let mut endpoint = self::endpoint("a");
    endpoint.transform =
        Some(Transform { request: Some(change), response: None, errors: Errors::Pass, max_body: 1_000 });
    integration.api.as_mut().unwrap().endpoints = vec![endpoint];
    let doors = Doors::start(Setup::of(integration));
    for app in ["one", "two", "one", "two"] {
        assert_eq!(get(&doors, "/a", &format!("X-App: {app}\r\n")).await.text(), format!("of-{app}"));
    }
    assert_eq!(shelf.count(), 2, "each is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_may_have_broken_off_is_not_kept_where_it_is_read_whole() {
    let shelf = Shelf::start(|_, _| "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf".to_owned()).await;
    let mut integration = shelf.integration(Some(hour()));
    let mut endpoint = self::endpoint("a");
    endpoint.transform = Some(Transform { request: None, response: None, errors: Errors::Pass, max_body: 1_000 });
    integration.api.as_mut().unwrap().endpoints = vec![endpoint];
    let doors = Doors::start(Setup::of(integration));
    for _ in 0..2 {
        assert_eq!(get(&doors, "/a", "").await.text(), "half");
    }
    assert_eq!(shelf.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_ends_what_is_kept_of_it_and_of_what_its_answer_names() {
    let shelf = Shelf::start(|request, number| {
        let location = if request.first_line().starts_with("POST") { "Location: /b\r\n" } else { "" };
        ok(location, &number.to_string())
    })
    .await;
    let doors = shelf.doors(hour());
    let read = async |path: &str| get(&doors, path, "").await.text();
    assert_eq!((read("/a").await, read("/b").await, read("/c").await), ("1".into(), "2".into(), "3".into()));
    assert_eq!(call(doors.proxy, "POST /svc/a", "", "x").await.status, 200);
    assert_eq!((read("/a").await, read("/b").await, read("/c").await), ("5".into(), "6".into(), "3".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_the_same_make_one_call() {
    let shelf = Shelf::start(|_, number| ok("", &number.to_string())).await;
    shelf.turns.forget_permits(1_000_000);
    let doors = Arc::new(shelf.doors(hour()));
    let askers: Vec<_> = (0..20)
        .map(|_| {
            let doors = Arc::clone(&doors);
            tokio::spawn(async move { get(&doors, "/a", "").await })
        })
        .collect();
    until("the first call", async || shelf.count() == 1).await;
    // All have been let in; the others wait for the one that leads.
    tokio::time::sleep(Duration::from_millis(200)).await;
    shelf.turns.add_permits(20);
    for asker in askers {
        assert_eq!(asker.await.unwrap().text(), "1");
    }
    assert_eq!(shelf.count(), 1);
    assert!(doors.metric("trunkline_cache_requests_total{integration=\"svc\",result=\"collapsed\"}") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_for_a_few_variants_make_one_call_for_each() {
    let shelf = Shelf::start(|request, _| ok("Vary: Accept\r\n", request.all("accept")[0])).await;
    shelf.turns.forget_permits(1_000_000);
    let doors = Arc::new(shelf.doors(hour()));
    let asker = |number: usize| {
        let (doors, accept) = (Arc::clone(&doors), ["a", "b", "c"][number % 3]);
        tokio::spawn(async move { (accept, get(&doors, "/a", &format!("Accept: {accept}\r\n")).await.text()) })
    };
    let askers: Vec<_> = (0..12).map(asker).collect();
    until("the first call", async || shelf.count() == 1).await;
    // All have been let in; the first answer tells what the others are to be told apart by.
    tokio::time::sleep(Duration::from_millis(200)).await;
    shelf.turns.add_permits(20);
    for asker in askers {
        let (accept, text) = asker.await.unwrap();
        assert_eq!(text, accept);
    }
    assert_eq!(shelf.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_caller_who_left_or_a_call_that_failed() {
    // The first is never answered, the second breaks off.
    let shelf = Shelf::start(|_, number| if number == 2 { String::new() } else { ok("", &number.to_string()) }).await;
    shelf.turns.forget_permits(1_000_000);
    let doors = Arc::new(shelf.doors(hour()));
    let mut leader = Wire::open(doors.proxy).await;
    leader.send(format!("GET /svc/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
    until("the leader's call", async || shelf.count() == 1).await;
    let ask = || {
        let doors = Arc::clone(&doors);
        tokio::spawn(async move { get(&doors, "/a", "").await })
    };
    let followers = [ask(), ask(), ask()];
    drop(leader);
    until("another leads", async || shelf.count() >= 2).await;
    shelf.turns.add_permits(20);
    let mut statuses = Vec::new();
    for follower in followers {
        statuses.push(tokio::time::timeout(PATIENCE, follower).await.expect("hangs").unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses[..2], [200, 200], "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_serves_when_the_service_fails() {
    let shelf = Shelf::start(|_, number| match number {
        1 => ok("", "kept"),
        2 => "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno".to_owned(),
        _ => String::new(),
    })
    .await;
    let rule = Cache { stale_if_error: Duration::from_hours(1), ..ttl(Duration::ZERO) };
    let doors = shelf.doors(rule);
    for told in ["fwd=uri-miss", "fwd=stale; fwd-status=503", "fwd=stale; detail=stale-if-error"] {
        let reply = get(&doors, "/a", "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "kept"));
        assert!(reply.header("cache-status").unwrap().contains(told), "{reply:?}");
    }
    assert_eq!(get(&doors, "/a", "Cache-Control: no-cache\r\n").await.code(), Some("service_unreachable"));
    let doors = shelf.doors(ttl(Duration::ZERO));
    assert_eq!(get(&doors, "/a", "").await.status, 502, "the file does not allow it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_is_given_while_a_new_one_is_fetched() {
    let shelf = Shelf::start(|_, number| ok("", &number.to_string())).await;
    let rule = Cache { stale_while_revalidate: Duration::from_hours(1), ..ttl(Duration::ZERO) };
    let doors = shelf.doors(rule);
    assert_eq!(get(&doors, "/a", "").await.text(), "1");
    assert_eq!(get(&doors, "/a", "").await.text(), "1");
    until("the refresh", async || get(&doors, "/a", "").await.text() != "1").await;
    assert_eq!(shelf.last().all("authorization"), ["Bearer sk_test"]);
    // Each is a call that somebody may ask about.
    let of_cache = |entry: &trunkline::activity::entry::Entry| entry.asker == trunkline::activity::Asker::Cache;
    let entry = doors.activity.newest(1, of_cache).pop().expect("an entry");
    assert_eq!((&*entry.connection, &*entry.path, entry.status, entry.attempts), ("default", "/a", Some(200), 1));
    let asked = doors.metric("trunkline_upstream_requests_total{code=\"200\",integration=\"svc\"}");
    assert!(asked >= 2.0, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_an_endpoint_by_name_is_recorded_as_well() {
    let shelf =
        Shelf::start(|_, number| ok("Content-Type: application/json\r\n", &format!("{{\"n\":{number}}}"))).await;
    let mut integration = shelf.integration(None);
    let mut endpoint = self::endpoint("list");
    endpoint.request.credential = CredentialUse::Token(None);
    endpoint.cache = Some(Cache { stale_while_revalidate: Duration::from_hours(1), ..ttl(Duration::ZERO) });
    integration.api.as_mut().unwrap().endpoints = vec![endpoint];
    let doors = Doors::start(Setup::of(integration));
    for _ in 0..2 {
        assert_eq!(call(doors.proxy, "POST /svc/-/list", "", "{}").await.json(), serde_json::json!({ "n": 1 }));
    }
    let of_cache = |entry: &trunkline::activity::entry::Entry| entry.asker == trunkline::activity::Asker::Cache;
    until("the refresh", async || !doors.activity.newest(1, of_cache).is_empty()).await;
    let entry = doors.activity.newest(1, of_cache).pop().unwrap();
    assert_eq!((&*entry.path, entry.endpoint.as_deref(), entry.status), ("/list", Some("list"), Some(200)));
    assert_eq!(shelf.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_redirect_led_to_is_not_the_answer_of_the_first_address() {
    let shelf = Shelf::start(|seen, number| match seen.first_line() {
        "GET /list HTTP/1.1" => {
            "HTTP/1.1 302 Found\r\nLocation: /other\r\nCache-Control: max-age=3600\r\nContent-Length: 0\r\n\r\n"
                .to_owned()
        }
        _ => ok("Content-Type: application/json\r\n", &format!("{{\"n\":{number}}}")),
    })
    .await;
    let mut integration = shelf.integration(Some(hour()));
    let mut endpoint = self::endpoint("list");
    endpoint.request.credential = CredentialUse::Token(None);
    endpoint.cache = Some(hour());
    integration.api.as_mut().unwrap().endpoints = vec![endpoint];
    let doors = Doors::start(Setup::of(integration));
    for number in [2, 4] {
        let by_name = call(doors.proxy, "POST /svc/-/list", "", "{}").await;
        assert_eq!(by_name.json(), serde_json::json!({ "n": number }), "each is led there anew");
    }
    let through = get(&doors, "/list", "").await;
    assert_eq!((through.status, through.header("location")), (302, Some("/other")), "the door follows none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs_keeps_no_other_from_refreshing() {
    let hangs = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (silent, quick) = (Arc::clone(&hangs), Arc::new(Mutex::new(0)));
    let slow = serve(move |mut stream| {
        let silent = Arc::clone(&silent);
        async move {
            while read_request(&mut stream).await.is_some() {
                if silent.load(std::sync::atomic::Ordering::SeqCst) {
                    crate::support::origin::until_closed(&mut stream).await;
                    return;
                }
                stream.write_all(ok("", "first").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let count = Arc::clone(&quick);
    let other = Shelf::start(move |_, number| {
        *count.lock().unwrap() += 1;
        ok("", &number.to_string())
    })
    .await;
    let rule = || Cache { stale_while_revalidate: Duration::from_hours(1), ..ttl(Duration::ZERO) };
    let mut setup = Setup::of(other.integration(Some(rule())));
    let mut hanging = service(&format!("http://{slow}"));
    hanging.id = Arc::from("slow");
    hanging.api.as_mut().unwrap().cache = Some(rule());
    setup.integrations.push(hanging);
    let doors = Doors::start(setup);
    let of_slow = |number: usize| format!("GET /slow/{number}");
    for number in 0..80 {
        assert_eq!(call(doors.proxy, &of_slow(number), "", "").await.text(), "first");
    }
    hangs.store(true, std::sync::atomic::Ordering::SeqCst);
    for number in 0..80 {
        assert_eq!(call(doors.proxy, &of_slow(number), "", "").await.text(), "first", "stale, and refreshed behind");
    }
    assert_eq!(get(&doors, "/a", "").await.text(), "1");
    until("the other's refresh", async || get(&doors, "/a", "").await.text() != "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_answers_stays_within_its_bound() {
    let shelf = Shelf::start(|_, _| ok("", &"x".repeat(4_096))).await;
    let mut setup = Setup::of(shelf.integration(Some(Cache { max_body: 5_000, ..hour() })));
    setup.limits = Limits { cache_bytes: 64 << 10, ..Limits::default() };
    let doors = Arc::new(Doors::start(setup));
    let flood: Vec<_> = (0..8)
        .map(|part| {
            let doors = Arc::clone(&doors);
            tokio::spawn(async move {
                for place in 0..50 {
                    assert_eq!(get(&doors, &format!("/{part}/{place}"), "").await.body.len(), 4_096);
                    let bytes = doors.metric("trunkline_cache_bytes");
                    assert!(bytes <= 65_536.0, "{bytes} bytes");
                }
            })
        })
        .collect();
    for part in flood {
        part.await.unwrap();
    }
    assert!(doors.metric("trunkline_cache_bytes") > 20_000.0);
    assert!(doors.metric("trunkline_cache_evictions_total") > 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_broke_off_passes_and_is_not_kept() {
    let large = Shelf::start(|_, _| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n{}\r\n0\r\n\r\n", "x".repeat(4_096))
    })
    .await;
    let doors = large.doors(Cache { max_body: 4_000, ..hour() });
    for _ in 0..2 {
        assert_eq!(get(&doors, "/a", "").await.body.len(), 4_096);
    }
    assert_eq!(large.count(), 2);
    assert!(doors.metric("trunkline_cache_not_kept_total{reason=\"too_large\"}") >= 2.0);
    let endless = Shelf::start(|_, _| "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf".to_owned()).await;
    let doors = endless.doors(hour());
    endless.turns.forget_permits(1_000_000);
    endless.turns.add_permits(1);
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!("GET /svc/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
    assert!(!wire.head().await.contains("stored"), "its end cannot be told from a connection that broke off");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_by_name_is_answered_from_what_is_kept() {
    let shelf =
        Shelf::start(|_, number| ok("Content-Type: application/json\r\n", &format!("{{\"n\":{number}}}"))).await;
    let mut integration = shelf.integration(None);
    let mut endpoint = self::endpoint("list");
    endpoint.request.credential = CredentialUse::Token(None);
    endpoint.cache = Some(hour());
    integration.api.as_mut().unwrap().endpoints = vec![endpoint];
    let doors = Doors::start(Setup::of(integration));
    for _ in 0..2 {
        assert_eq!(call(doors.proxy, "POST /svc/-/list", "", "{}").await.json(), serde_json::json!({ "n": 1 }));
    }
    assert_eq!(get(&doors, "/list", "").await.json(), serde_json::json!({ "n": 1 }), "it is the same thing");
    assert_eq!((get(&doors, "/other", "").await.header("cache-status"), shelf.count()), (None, 2));
    // What is asked with another credential, or none, is another thing.
    let mut integration = shelf.integration(None);
    let mut endpoint = self::endpoint("list");
    endpoint.request.credential = CredentialUse::None;
    endpoint.cache = Some(hour());
    integration.api.as_mut().unwrap().endpoints = vec![endpoint];
    let doors = Doors::start(Setup::of(integration));
    for number in [3, 4] {
        let reply = call(doors.proxy, "POST /svc/-/list", "", "{}").await;
        assert_eq!(reply.json(), serde_json::json!({ "n": number }));
    }
    let mut integration = shelf.integration(None);
    let mut endpoint = self::endpoint("list");
    endpoint.request.credential = CredentialUse::Token(None);
    let [name, password] = ["a", "b"].map(|text| trunkline::template::Text::compile(text).unwrap());
    endpoint.request.basic = Some((name, password));
    endpoint.cache = Some(hour());
    integration.api.as_mut().unwrap().endpoints = vec![endpoint];
    let doors = Doors::start(Setup::of(integration));
    for number in [5, 6] {
        let reply = call(doors.proxy, "POST /svc/-/list", "", "{}").await;
        assert_eq!(reply.json(), serde_json::json!({ "n": number }), "name and password of the request's own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_path_is_one_kept_answer_and_another_path_is_another() {
    let shelf = Shelf::start(|_, number| ok("", &format!("{number}"))).await;
    let doors = shelf.doors(hour());
    for path in ["/%61%3ab", "/a%3Ab", "/%61%3Ab"] {
        assert_eq!(get(&doors, path, "").await.text(), "1", "{path}");
    }
    assert_eq!((get(&doors, "/a%3Ab/", "").await.text(), shelf.count()), ("2".to_owned(), 2));
    assert_eq!(call(doors.proxy, "POST /svc/a%3ab", "", "x").await.status, 200);
    assert_eq!(get(&doors, "/a%3Ab", "").await.text(), "4", "what changes it is known in every spelling as well");
}
