//! The gateway's own calls over real sockets: where credentials go, what is dialled, what is believed.

mod counted;
pub mod service;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::json;
use trunkline::base::clock::{Clock as _, SystemClock};
use trunkline::base::units::Rate;
use trunkline::definition::plan::DeclaredCredential;
use trunkline::definition::plan::api::{HostPattern, Placement, Timeouts, Transport};
use trunkline::definition::plan::gateway::{Limits, Mode};
use trunkline::definition::plan::policy::{Limit, Policy, Scope};
use trunkline::net::{Redirect, Sent};
use trunkline::outbound::OutboundError;
use trunkline::outbound::retest::{self, Tried};
use trunkline::respond::Refusal;
use trunkline::template::Text;

use service::{Answer, Identity, Service};
use world::{Setting, keyed, request, with_json};

fn plain(service: &Service) -> Setting {
    Setting::at(format!("http://svc.example:{}/v1", service.port()))
}

fn fails(result: Result<trunkline::request::Outcome, OutboundError>) -> OutboundError {
    result.expect_err("the call must not succeed")
}

fn quick() -> Timeouts {
    let short = Duration::from_millis(300);
    Timeouts { connect: short, response: short, idle: short, total: Duration::from_millis(1_500) }
}

#[tokio::test]
async fn a_call_carries_the_credential_the_apis_headers_and_one_of_each() {
    let service = Service::start(|_| Answer::json(200, r#"{"id": 7}"#)).await;
    let world = plain(&service).world();
    let mut call = with_json(Method::POST, "/things/{{ input.id }}", &json!({ "t": "{{ input.t }}" }));
    call.headers = vec![(http::header::AUTHORIZATION, Text::compile("{{ input.t }}").unwrap())];
    let outcome = world.run_with(&call, &json!({ "id": "a/b", "t": "\"x", "site": "spoofed" }), None).await.unwrap();
    assert_eq!(outcome.result, json!({ "id": 7 }));
    let seen = service.seen().remove(0).to_ascii_lowercase();
    assert!(seen.starts_with("post /v1/things/a%2fb http/1.1\r\n"), "{seen}");
    for (header, count) in [
        ("authorization: bearer canary-credential\r\n", 1),
        ("authorization:", 1),
        ("x-site: canary-input\r\n", 1),
        ("host:", 1),
        ("accept-encoding", 0),
    ] {
        assert_eq!(seen.matches(header).count(), count, "{header} in {seen}");
    }
    assert!(seen.ends_with("\r\n\r\n{\"t\":\"\\\"x\"}"), "{seen}");
}

#[tokio::test]
async fn each_placement_puts_the_credential_in_its_place() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let key = |text: &str| DeclaredCredential::ApiKey(text.into());
    let value = || Text::compile("{{ api_key }}").unwrap();
    let basic = DeclaredCredential::Basic { username: "u".into(), password: "p:&".into() };
    for (placement, credential, expected) in [
        (Placement::Query { name: "key".into(), value: value() }, key("a&b=c"), "GET /v1/x?q=1&key=a%26b%3Dc HTTP"),
        (Placement::Basic, basic, "authorization: Basic dTpwOiY=\r\n"),
        (Placement::Header { name: HeaderName::from_static("x-key"), value: value() }, key("k"), "x-key: k\r\n"),
    ] {
        let world = Setting { placement, credential, ..plain(&service) }.world();
        let mut call = request(Method::GET, "/x");
        call.query = vec![("q".to_owned(), trunkline::template::Tree::Literal(json!("1")))];
        world.run(&call).await.unwrap();
        let seen = service.seen().pop().unwrap();
        assert!(seen.contains(expected), "{expected} in {seen}");
    }
}

#[tokio::test]
async fn a_credential_of_another_kind_is_not_sent_in_its_place() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    for placement in [Placement::Basic, Placement::Bearer] {
        let world = Setting { placement, ..plain(&service) }.world();
        let error = fails(world.get("/x").await);
        assert_eq!((error.refusal(), error.sent()), (Refusal::ConnectionUnusable, Sent::Nothing));
    }
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn a_credential_never_follows_a_redirect_to_another_origin() {
    let second = Service::start(|_| Answer::json(200, "{}")).await;
    let other_port = format!("http://svc.example:{}/x", second.port());
    let other_host = format!("http://files.example:{}/x", second.port());
    for status in [301, 302, 303, 307, 308] {
        for (location, listed) in [(&other_port, true), (&other_host, true), (&other_host, false)] {
            for method in [Method::GET, Method::POST] {
                let target = location.clone();
                let first = Service::start(move |_| Answer::of(status, &[("location", &target)], "")).await;
                let value = Text::compile("{{ api_key }}").unwrap();
                let hosts = if listed { vec!["svc.example", "files.example"] } else { Vec::new() };
                let hosts = hosts.into_iter().filter_map(HostPattern::parse).collect();
                let placement = Placement::Query { name: "key".into(), value };
                for setting in [Setting { hosts, ..plain(&first) }, Setting { placement, ..plain(&first) }] {
                    drop(setting.world().run(&with_json(method.clone(), "/x", &json!({ "a": "canary-body" }))).await);
                }
                assert!(!first.seen().is_empty());
            }
        }
    }
    let seen = second.seen();
    assert!(!seen.is_empty() && seen.iter().all(|seen| !seen.contains("canary")), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.starts_with("GET ")), "only what changes nothing goes on");
}

#[tokio::test]
async fn a_redirect_has_its_own_query_and_the_credential_once_and_only_where_it_belongs() {
    let second = Service::start(|_| Answer::json(200, "{}")).await;
    let elsewhere = format!("http://files.example:{}/end?page=2", second.port());
    let cases = [
        ("/v1/end?page=2&x=a%2Fb+c#part", "/v1/end?page=2&x=a%2Fb+c&key=canary-credential"),
        ("/v1/end", "/v1/end?key=canary-credential"),
        ("/v1/end?", "/v1/end?key=canary-credential"),
        ("?end=1", "/v1/x?end=1&key=canary-credential"),
        ("/v1/end?key=canary-credential", "/v1/end?key=canary-credential"),
        (elsewhere.as_str(), "/end?page=2"),
    ];
    for (location, expected) in cases {
        let target = location.to_owned();
        let first = Service::start(move |seen| {
            let is_end = seen.lines().next().unwrap().contains("end");
            if is_end { Answer::json(200, "{}") } else { Answer::of(302, &[("location", &target)], "") }
        })
        .await;
        let value = Text::compile("{{ api_key }}").unwrap();
        let hosts = ["svc.example", "files.example"].into_iter().filter_map(HostPattern::parse).collect();
        let placement = Placement::Query { name: "key".into(), value };
        Setting { placement, hosts, ..plain(&first) }.world().get("/x").await.unwrap();
        let seen = [first.seen(), second.seen()].concat();
        let line = seen.iter().rev().find_map(|seen| seen.lines().next().filter(|line| line.contains("end")));
        assert_eq!(line, Some(format!("GET {expected} HTTP/1.1").as_str()), "{location}");
    }
}

#[tokio::test]
async fn within_one_origin_reads_go_on_and_changes_are_never_sent_twice() {
    let answer = |seen: &str| match seen.split(' ').nth(1).unwrap() {
        "/v1/end" => Answer::json(200, r#"{"end": true}"#),
        "/v1/see" => Answer::of(303, &[("location", "/v1/end")], ""),
        path => Answer::of(path.rsplit('/').next().unwrap().parse().unwrap(), &[("location", "end")], ""),
    };
    let service = Service::start(answer).await;
    let world = plain(&service).world();
    for status in [301, 302, 307, 308] {
        let outcome = world.get(&format!("/{status}")).await.unwrap();
        assert_eq!(outcome.result, json!({ "end": true }), "{status}");
        let error = fails(world.run(&with_json(Method::POST, &format!("/{status}"), &json!({}))).await);
        assert_eq!(error.status(), Some(status), "a POST is not sent again");
    }
    assert_eq!(world.run(&with_json(Method::POST, "/see", &json!({}))).await.unwrap().result, json!({ "end": true }));
    let ends: Vec<_> = service.seen().into_iter().filter(|seen| seen.contains("/v1/end")).collect();
    assert!(ends.iter().all(|seen| seen.starts_with("GET ") && seen.contains("Bearer canary-credential")), "{ends:?}");
}

#[tokio::test]
async fn redirects_end() {
    let service = Service::start(|_| Answer::of(302, &[("location", "/v1/again")], "")).await;
    let error = fails(plain(&service).world().get("/x").await);
    assert_eq!(error.refusal(), Refusal::ServiceAnswerInvalid, "{error}");
    assert_eq!(service.seen().len(), 6, "the call and five redirects");
    let limits = Limits { redirects: 0, ..Limits::default() };
    fails(Setting { limits, ..plain(&service) }.world().get("/x").await);
    assert_eq!(service.seen().len(), 7, "none is followed");
}

#[tokio::test]
async fn a_service_that_leads_on_is_called_no_more_often_than_it_allows() {
    let service = Service::start(|_| Answer::of(302, &[("location", "/v1/again")], "")).await;
    let limit = Limit {
        name: "connection".into(),
        rate: Rate { count: 3, period: Duration::from_hours(1) },
        burst: 3,
        per: Scope::Connection,
        endpoint: None,
        paths: Vec::new(),
        methods: Vec::new(),
        wait: Duration::ZERO,
    };
    let world = Setting { policy: Policy { limits: vec![limit], ..Policy::default() }, ..plain(&service) }.world();
    let error = fails(world.get("/x").await);
    assert_eq!((error.refusal(), error.sent()), (Refusal::RateLimited, Sent::Maybe), "{error}");
    assert!(error.to_string().contains("the redirect was not followed"), "{error}");
    assert_eq!(service.seen().len(), 3, "three calls, whoever asked for them");
    let sent = world.metrics.upstream_requests.with_label_values(&["svc", "302"]).get();
    assert_eq!((sent, world.metrics.upstream_errors.with_label_values(&["svc", "redirect_held"]).get()), (3, 1));
}

#[tokio::test]
async fn answers_are_bounded_by_the_gateways_limit_and_what_is_beyond_is_counted() {
    let service = Service::start(|_| Answer::json(200, &format!("{{\"a\":\"{}\"}}", "b".repeat(2_000)))).await;
    plain(&service).world().get("/x").await.unwrap();
    let limits = Limits { answer_bytes: 1_000, ..Limits::default() };
    let world = Setting { limits, ..plain(&service) }.world();
    let error = fails(world.get("/x").await);
    assert_eq!(error.refusal(), Refusal::ServiceAnswerInvalid, "{error}");
    assert_eq!(world.metrics.upstream_errors.with_label_values(&["svc", "too_large"]).get(), 1);
}

#[tokio::test]
async fn https_is_never_left_for_plain_http() {
    let target = Service::start(|_| Answer::json(200, "{}")).await;
    let location = format!("http://svc.example:{}/x", target.port());
    let identity = Identity::of(&["svc.example"]);
    let service = Service::start_tls(&identity, move |_| Answer::of(302, &[("location", &location)], "")).await;
    let transport = trusting(&identity);
    let hosts = vec![HostPattern::parse("svc.example").unwrap()];
    let setting = Setting { transport, hosts, ..Setting::at(format!("https://svc.example:{}", service.port())) };
    assert_eq!(fails(setting.world().get("/x").await).status(), Some(302));
    assert_eq!(target.connections(), 0);
}

fn trusting(identity: &Identity) -> Transport {
    Transport { ca: Some(Arc::from([identity.ca.clone()])), allow_private: true, ..Transport::default() }
}

#[tokio::test]
async fn only_trusted_certificates_for_the_right_name_get_a_call() {
    let identity = Identity::of(&["svc.example"]);
    let service = Service::start_tls(&identity, |_| Answer::json(200, "{}")).await;
    let at = |host: &str, transport| {
        Setting { transport, ..Setting::at(format!("https://{host}:{}", service.port())) }.world()
    };
    at("svc.example", trusting(&identity)).get("/x").await.unwrap();
    let nobody = Transport { allow_private: true, ..Transport::default() };
    for world in [
        at("other.example", trusting(&identity)),
        at("127.0.0.1", trusting(&identity)),
        at("svc.example", trusting(&Identity::of(&["svc.example"]))),
        at("svc.example", nobody),
    ] {
        let error = fails(world.get("/x").await);
        assert_eq!((error.refusal(), error.sent()), (Refusal::ServiceUntrusted, Sent::Nothing), "{error}");
    }
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn http_2_is_spoken_only_where_it_is_agreed() {
    let identity = Identity::of(&["svc.example"]);
    let service = Service::start_tls(&identity, |_| Answer::json(200, "{}")).await;
    let setting =
        Setting { transport: trusting(&identity), ..Setting::at(format!("https://svc.example:{}", service.port())) };
    setting.world().get("/x").await.unwrap();
    assert!(service.seen()[0].contains("HTTP/1.1"), "no protocol was agreed on");
}

#[tokio::test]
async fn plain_http_needs_permission() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let transport = Transport { allow_private: true, ..Transport::default() };
    let error = fails(Setting { transport, ..plain(&service) }.world().get("/x").await);
    assert_eq!((error.refusal(), service.connections()), (Refusal::HostForbidden, 0), "{error}");
}

#[tokio::test]
async fn addresses_inside_are_not_dialled() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let port = service.port();
    let hosts = [
        "127.0.0.1",
        "127.255.255.254",
        "localhost",
        "localhost.",
        "a.localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "224.0.0.1",
        "255.255.255.255",
        "svc.example",
        "private.test",
        "metadata.test",
        "mapped.test",
    ];
    for host in hosts {
        let transport = Transport { allow_private: false, allow_plain_http: true, ..Transport::default() };
        let setting = Setting { transport, timeouts: quick(), ..Setting::at(format!("http://{host}:{port}")) };
        let error = fails(setting.world().get("/x").await);
        assert_eq!((error.refusal(), error.sent()), (Refusal::AddressForbidden, Sent::Nothing), "{host}: {error}");
        assert!(!error.may_repeat(), "{host}");
    }
    for host in ["0x7f.1", "2130706433", "0177.0.0.1", "127.1", "①②⑦.0.0.1", "user@svc.example", "svc.example#", ""]
    {
        let error = fails(Setting::at(format!("http://{host}:{port}")).world().get("/x").await);
        assert_eq!(error.refusal(), Refusal::DefinitionFailed, "{host}: {error}");
    }
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn loopback_is_open_to_a_literal_host_in_development_mode_only() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let at = |host: &str, mode| {
        let base_url = format!("http://{host}:{}", service.port());
        Setting { mode, transport: Transport::default(), private_networks: Vec::new(), ..Setting::at(base_url) }.world()
    };
    at("127.0.0.1", Mode::Development).get("/x").await.unwrap();
    at("localhost", Mode::Development).get("/x").await.unwrap();
    assert!(at("127.0.0.1", Mode::Production).get("/x").await.is_err());
    assert!(at("svc.example", Mode::Development).get("/x").await.is_err());
}

#[tokio::test]
async fn a_body_is_bounded_however_its_length_is_told() {
    let head = |extra: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n{extra}\r\n").into_bytes();
    let chunk = [b"10000\r\n".to_vec(), vec![b'a'; 0x10000], b"\r\n".to_vec()].concat();
    for answer in [
        Answer::Endless(head("transfer-encoding: chunked\r\n"), chunk),
        Answer::Endless(head("content-length: 99999999999\r\n"), vec![b'a'; 0x10000]),
        Answer::Endless(head("connection: close\r\n"), vec![b'a'; 0x10000]),
    ] {
        let service = Service::start(move |_| answer.clone()).await;
        let error = fails(plain(&service).world().get("/x").await);
        assert_eq!(error.refusal(), Refusal::ServiceAnswerInvalid, "{error}");
        assert!(error.to_string().contains("more than 10485760 bytes"), "{error}");
    }
}

#[tokio::test]
async fn hostile_answers_are_refused_and_classified() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(5_000));
    let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(2 << 20));
    for (answer, refusal) in [
        (String::new(), Refusal::ServiceUnreachable),
        ("garbage\r\n\r\n".to_owned(), Refusal::ServiceAnswerInvalid),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_owned(), Refusal::ServiceUnreachable),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd".to_owned(),
            Refusal::ServiceAnswerInvalid,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc".to_owned(), Refusal::ServiceAnswerInvalid),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(), Refusal::ServiceUnreachable),
        (many, Refusal::ServiceAnswerInvalid),
        (long, Refusal::ServiceAnswerInvalid),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\u{1f}x".to_owned(),
            Refusal::ServiceAnswerInvalid,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\r\n<html>".to_owned(),
            Refusal::ServiceAnswerInvalid,
        ),
    ] {
        let shown: String = answer.chars().take(80).collect();
        let service = Service::start(move |_| Answer::Bytes(answer.clone().into_bytes())).await;
        let error = fails(Setting { timeouts: quick(), ..plain(&service) }.world().get("/x").await);
        assert_eq!((error.refusal(), error.sent()), (refusal, Sent::Maybe), "{shown:?}: {error}");
    }
}

#[tokio::test]
async fn interim_answers_do_not_hold_a_call_up() {
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n".repeat(100);
    let answer = format!("{interim}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}");
    let service = Service::start(move |_| Answer::Bytes(answer.clone().into_bytes())).await;
    assert_eq!(plain(&service).world().get("/x").await.unwrap().result, json!({}));
    let endless = b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec();
    let service = Service::start(move |_| Answer::Endless(Vec::new(), endless.clone())).await;
    let error = fails(Setting { timeouts: quick(), ..plain(&service) }.world().get("/x").await);
    assert_eq!(error.refusal(), Refusal::ServiceTimeout, "{error}");
}

#[tokio::test]
async fn every_phase_ends_in_time() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab".to_vec();
    for (answer, words) in [
        (Answer::Hang(Vec::new()), "did not begin in time"),
        (Answer::Hang(b"HTTP/1.1 200 OK\r\nx: ".to_vec()), "did not begin in time"),
        (Answer::Hang(head), "stopped coming"),
    ] {
        let service = Service::start(move |_| answer.clone()).await;
        let error = fails(Setting { timeouts: quick(), ..plain(&service) }.world().get("/x").await);
        assert_eq!(error.refusal(), Refusal::ServiceTimeout);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_a_connection_that_was_not_made() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://svc.example:{}", silent.local_addr().unwrap().port());
    let transport = trusting(&Identity::of(&["svc.example"]));
    let error = fails(Setting { transport, timeouts: quick(), ..Setting::at(base_url) }.world().get("/x").await);
    assert_eq!((error.refusal(), error.sent()), (Refusal::ServiceTimeout, Sent::Nothing), "{error}");
}

#[tokio::test]
async fn a_drip_ends_with_the_call() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let service = Service::start(move |_| Answer::Hang(head.clone())).await;
    let timeouts = Timeouts { idle: Duration::from_mins(1), total: Duration::from_millis(400), ..quick() };
    let error = fails(Setting { timeouts, ..plain(&service) }.world().get("/x").await);
    assert!(error.to_string().contains("took too long"), "{error}");
}

#[tokio::test]
async fn what_may_have_been_seen_is_repeated_only_where_that_is_safe() {
    let cut = Service::start(|_| Answer::Bytes(Vec::new())).await;
    let world = Setting { policy: keyed(), ..plain(&cut) }.world();
    let post = with_json(Method::POST, "/x", &json!({}));
    let mut repeat = Vec::new();
    for (call, key) in [(&request(Method::GET, "/x"), None), (&post, None), (&post, Some("msg_1"))] {
        repeat.push(fails(world.run_with(call, &json!({}), key).await).may_repeat());
    }
    assert_eq!(repeat, [true, false, true]);
    assert_eq!(cut.seen().len(), 3, "one try each");
    assert!(cut.seen()[2].contains("idempotency-key: msg_1\r\n"));
    drop(cut);
    let error = fails(Setting::at("http://nowhere.test").world().run(&post).await);
    assert_eq!((error.refusal(), error.may_repeat()), (Refusal::ServiceUnresolved, true), "{error}");
}

#[tokio::test]
async fn a_connection_that_is_refused_sent_nothing() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = Setting::at(format!("http://svc.example:{}", gone.port())).world();
    let error = fails(world.run(&with_json(Method::POST, "/x", &json!({}))).await);
    let facts = (error.refusal(), error.sent(), error.may_repeat());
    assert_eq!(facts, (Refusal::ServiceUnreachable, Sent::Nothing, true), "{error}");
}

#[tokio::test]
async fn a_service_that_says_no_is_quoted_without_what_it_was_sent() {
    let words = r#"{"error": "invalid key canary-credential"}"#;
    let service =
        Service::start(move |_| Answer::of(429, &[("content-type", "application/json"), ("retry-after", "7")], words))
            .await;
    let error = fails(plain(&service).world().run(&with_json(Method::POST, "/x", &json!({}))).await);
    assert_eq!(error.to_string(), "`svc`: the service answered 429: invalid key [redacted]");
    assert_eq!((error.refusal(), error.status()), (Refusal::ServiceRefused, Some(429)));
    assert_eq!((error.retry_after(), error.may_repeat()), (Some(Duration::from_secs(7)), true));
}

#[tokio::test]
async fn services_traffic_goes_to_the_mock_where_one_is_set() {
    let mock = Service::start(|_| Answer::json(200, "{}")).await;
    for base_url in ["https://api.example/v1", "https://8.8.8.8:8443/v1"] {
        let redirect = Some(Redirect { address: mock.address });
        Setting { redirect, ..Setting::at(base_url) }.world().get("/x?").await.unwrap_err();
        let redirect = Some(Redirect { address: mock.address });
        Setting { redirect, ..Setting::at(base_url) }.world().get("/x").await.unwrap();
    }
    let seen = mock.seen();
    assert!(seen[0].contains("host: api.example\r\n") && seen[1].contains("host: 8.8.8.8:8443\r\n"), "{seen:?}");
    assert!(seen.iter().all(|seen| seen.starts_with("GET /v1/x ") && seen.contains("trunkline-mock-integration: svc")));
}

#[tokio::test]
async fn a_test_request_tells_whether_a_connection_works() {
    let service = Service::start(|_| Answer::json(401, r#"{"error": "bad key"}"#)).await;
    let world = plain(&service).world();
    let integration = world.generation.integration("svc").unwrap();
    let result = trunkline::outbound::test(&world.outbound, &world.generation, integration, "default").await;
    assert_eq!(fails(result).status(), Some(401));
    let result = trunkline::outbound::test(&world.outbound, &world.generation, integration, "gone").await;
    assert_eq!(fails(result).refusal(), Refusal::ConnectionUnknown);
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn a_call_is_counted_and_remembered_without_its_secrets() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let value = Text::compile("{{ api_key }}").unwrap();
    let placement = Placement::Query { name: "key".into(), value };
    let world = Setting { placement, ..plain(&service) }.world();
    let outcome = world.get("/x").await.unwrap();
    drop(service);
    let error = fails(world.get("/x").await);
    let newest = world.outbound.activity().newest(10, |_| true);
    let shown: Vec<_> = newest.iter().map(|call| (call.path.as_str(), call.status, call.error.as_deref())).collect();
    assert_eq!(shown, [("/v1/x", None, Some("service_unreachable")), ("/v1/x", Some(200), None)]);
    let metrics = String::from_utf8(world.metrics.render().unwrap()).unwrap();
    for line in [
        "trunkline_upstream_requests_total{code=\"200\",integration=\"svc\"} 1",
        "trunkline_upstream_requests_total{code=\"error\",integration=\"svc\"} 1",
        "trunkline_upstream_errors_total{integration=\"svc\",reason=\"connect\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let everything =
        format!("{error} {error:?} {outcome:?} {newest:?} {metrics} {:?} {:?}", world.outbound, world.clients);
    assert!(!everything.contains("canary"), "{everything}");
}

#[tokio::test]
async fn a_prepared_connection_is_made_once_and_anew_after_a_change() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let mut world = plain(&service).world();
    let first = prepared(&world).await;
    assert!(Arc::ptr_eq(&first, &prepared(&world).await));
    world.generation = plain(&service).world().generation;
    assert!(!Arc::ptr_eq(&first, &prepared(&world).await));
    assert!(!format!("{first:?}").contains("canary"), "{first:?}");
}

async fn prepared(world: &world::World) -> Arc<trunkline::outbound::Prepared> {
    let integration = world.generation.integration("svc").unwrap();
    world
        .outbound
        .prepare(&world.generation, integration, "default", trunkline::connection::Need::default())
        .await
        .unwrap()
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let proxy = Service::start(|_| Answer::json(200, "{}")).await;
    let address = format!("http://{}", proxy.address);
    let test = "calls::each_placement_puts_the_credential_in_its_place";
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(variable, &address);
    }
    child.args(["--exact", test]);
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn connections_are_tested_when_they_are_due_and_how_they_fare_is_remembered() {
    for (answer, passed, status, step) in [
        (200, true, "active", ""),
        (401, false, "error", "connect it again if it has not"),
        (403, false, "error", "that this account may use the API"),
        (429, false, "warning", "Wait as long as the service asks"),
        (500, false, "warning", "has a fault of its own"),
    ] {
        let service = Service::start(move |_| Answer::json(answer, "{}")).await;
        let world = plain(&service).world();
        let (now, mut tried) = (SystemClock::new().now(), Tried::default());
        let (outbound, generation) = (&world.outbound, &world.generation);
        assert_eq!(
            Box::pin(retest::look(outbound, generation, now, &mut tried)).await,
            0,
            "the first comes within an interval of the start"
        );
        let long_ago = now.before(Duration::from_hours(12));
        assert_eq!(Box::pin(retest::look(outbound, generation, long_ago, &mut tried)).await, 1);
        assert_eq!(Box::pin(retest::look(outbound, generation, long_ago, &mut tried)).await, 0, "it was just tested");
        let health = world.outbound.connections().health("svc", "default").await;
        assert_eq!((health.last_test.map(|test| test.passed), health.status().word()), (Some(passed), status));
        assert_eq!(health.last_error.is_some(), !passed);
        assert!(health.last_error.is_none_or(|trouble| trouble.step.contains(step)), "{answer}");
    }
}

#[tokio::test]
async fn a_test_that_was_led_to_another_place_has_not_passed_unless_the_definition_says_so() {
    let service = Service::start(|request| {
        if request.starts_with("GET /login ") {
            return Answer::of(200, &[("content-type", "text/html")], "<form>Sign in</form>");
        }
        Answer::of(302, &[("location", "/login")], "")
    })
    .await;
    let setting = plain(&service);
    let world = setting.world();
    let integration = world.generation.integration("svc").unwrap();
    let tested = trunkline::outbound::test(&world.outbound, &world.generation, integration, "default").await;
    assert!(fails(tested).to_string().contains("was led to another place"));
    let health = world.outbound.connections().health("svc", "default").await;
    assert_eq!((health.last_test.map(|test| test.passed), health.status().word()), (Some(false), "warning"));
    assert_eq!(world.get("/elsewhere").await.unwrap().status, 200, "other calls are led as before");
}

#[tokio::test]
async fn a_service_that_does_not_answer_its_tests_holds_up_no_other() {
    let good = Service::start(|_| Answer::json(200, "{}")).await;
    let hung = Service::start(|_| Answer::Hang(Vec::new())).await;
    let accounts = (0..9).map(|number| format!("  - {{ id: c{number}, api_key: key }}\n")).collect::<Vec<_>>().concat();
    // Its id comes before the other's, and so do its connections.
    let definition = crate::events::station::compiled(&format!(
        "trunkline: 1\nid: hung\nauth: {{ api_key: {{}} }}\napi:\n  base_url: http://hung.example:{}\n  test: GET /test\n\
         \x20 allow_private: true\n  allow_plain_http: true\n  credential: {{ header: X-Key, value: \"{{{{ api_key }}}}\" }}\n\
         connections:\n{accounts}",
        hung.port()
    ));
    let mut world = plain(&good).world();
    world.generation.integrations.insert(Arc::from("hung"), Arc::new(definition));
    let long_ago = SystemClock::new().now().before(Duration::from_hours(12));
    let mut tried = Tried::default();
    let looking = retest::look(&world.outbound, &world.generation, long_ago, &mut tried);
    let tested = async {
        while world.outbound.connections().health("svc", "default").await.last_test.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        count = looking => panic!("{count} tests ended, though a service does not answer"),
        () = tested => {}
    }
    assert_eq!(hung.connections(), 1, "one test after another for each service");
}
