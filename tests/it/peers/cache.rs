//! The HTTP cache tests of others (`http-cache-tests`), through the proxy door.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::definition::plan::api::Cache;

use crate::outside::http::Client;
use crate::support::doors::{Doors, KEY, Setup, service};
use crate::support::peer::Peer;

/// What is required and this door does otherwise.
const OTHERWISE: &[&str] = &[
    // Of `0,7200` it wants the first to count, and of `0, 0` that none does. Here none ever does.
    "age-parse-prefix",
    // What is kept belongs to one account, so that `private` is no reason against it.
    "cc-resp-private-shared",
    // Nothing stale is given, as it should be; but the 502 that is has no header that the test looks for.
    "stale-close-must-revalidate",
    "stale-close-proxy-revalidate",
    "stale-close-no-cache",
    "stale-close-s-maxage=2",
    // The account's cookies are not for callers.
    "headers-store-Set-Cookie",
    "headers-store-Set-Cookie2",
    // Its answer has a coding that nobody knows, so that nobody can tell whether all of it came: it is not kept.
    "headers-store-Transfer-Encoding",
    "304-etag-update-response-Set-Cookie",
    "304-etag-update-response-Set-Cookie2",
    // `Authorization` has the caller's key at this door, and the service gets the account's.
    "other-authorization",
    // The HTTP library dates every answer that it writes; `Age` tells how old one is.
    "other-date-update",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_the_tests_of_others_require_holds() {
    let peer = Peer::cache_tests();
    let mut integration = service(&peer.url());
    integration.api.as_mut().unwrap().cache = Some(Cache::default());
    let doors = Doors::start(Setup::of(integration));
    let ask = json!({ "base": format!("http://{}/svc", doors.proxy), "key": KEY }).to_string();
    let results = tokio::task::spawn_blocking(move || run(&peer, &ask)).await.unwrap();
    let count = |kind: &str, passed: bool| {
        results.iter().filter(|result| result[1] == kind && (result[2] == true) == passed).count()
    };
    for kind in ["required", "optimal", "check"] {
        println!("{kind}: {} of {}", count(kind, true), count(kind, true) + count(kind, false));
    }
    let failed = results.iter().filter(|result| result[1] != "check" && result[2] != true);
    for result in failed.clone() {
        println!("{result}");
    }
    let failed: Vec<_> =
        failed.filter(|result| result[1] == "required").map(|result| result[0].as_str().unwrap()).collect();
    assert_eq!(failed, OTHERWISE);
}

/// Runs the tests, which pause for seconds between requests.
fn run(peer: &Peer, ask: &str) -> Vec<Value> {
    let stream = TcpStream::connect(peer.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(3))).unwrap();
    let headers = [("content-type", "application/json")];
    let mut client = Client::over(stream);
    let reply = client.send("POST", "/-/run", &headers, ask.as_bytes()).unwrap();
    reply.json().as_array().unwrap().clone()
}
