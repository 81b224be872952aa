//! A path that is spelled in another way meets what its plain spelling meets.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use trunkline::definition::plan::path::PathGlob;
use trunkline::definition::plan::policy::{BreakerGroup, Limit, Policy, Scope};

use super::breaker::breaker;
use super::{Origin, answer, limit, limited};
use crate::support::doors::Doors;
use crate::support::raw::call;

const HOUR: Duration = Duration::from_hours(1);
/// Ways to write `/search` that some server reads as it.
const SPELLINGS: [&str; 6] = ["/search", "/%73earch", "/se%61rc%68", "/search/", "/search;v=1", "/search%3Bv"];

async fn statuses(doors: &Doors, paths: &[&str]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for path in paths {
        statuses.push(call(doors.proxy, &format!("GET /svc{path}"), "", "").await.status);
    }
    statuses
}

#[tokio::test]
async fn a_limit_counts_every_spelling_and_the_service_sees_the_normal_one() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let search = Limit { paths: vec![PathGlob::new("/search")], ..limit(1, HOUR, Duration::ZERO) };
    let doors = origin.doors(limited(search));
    assert_eq!(statuses(&doors, &["/%73earch"]).await, [200]);
    assert_eq!(statuses(&doors, &SPELLINGS).await, [429; 6]);
    assert_eq!(statuses(&doors, &["/searches", "/v1//x/", "/a%3ab"]).await, [200; 3]);
    let lines: Vec<String> = origin.seen.lock().unwrap().iter().map(|seen| seen.first_line().to_owned()).collect();
    let sent = ["/search", "/searches", "/v1//x/", "/a%3Ab"].map(|path| format!("GET {path} HTTP/1.1"));
    assert_eq!(lines, sent, "one normal form, and nothing else is changed");
}

#[tokio::test]
async fn a_limit_of_an_endpoint_counts_every_spelling() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let own = Limit { endpoint: Some(Arc::from("it")), per: Scope::Endpoint, ..limit(1, HOUR, Duration::ZERO) };
    let mut integration = origin.integration(limited(own));
    integration.api.as_mut().unwrap().endpoints = vec![super::retries::named(Method::GET)];
    let doors = Doors::start(crate::support::doors::Setup::of(integration));
    assert_eq!(statuses(&doors, &["/%61", "/a", "/a/", "/a;x", "/b"]).await, [200, 429, 429, 429, 200]);
}

#[tokio::test]
async fn a_group_of_the_breaker_holds_every_spelling_back() {
    let origin = Origin::start(|_, _| answer(500, "")).await;
    let search = BreakerGroup { id: "search".into(), paths: vec![PathGlob::new("/search")], methods: Vec::new() };
    let mut policy: Policy = breaker(Duration::from_mins(5));
    policy.breaker.as_mut().unwrap().groups = vec![search];
    let doors = origin.doors(policy);
    assert_eq!(statuses(&doors, &["/%73earch", "/search/"]).await, [500; 2]);
    assert_eq!(statuses(&doors, &SPELLINGS).await, [503; 6]);
    assert_eq!((statuses(&doors, &["/other"]).await, origin.count()), (vec![500], 3));
}

#[tokio::test]
async fn what_leads_elsewhere_is_refused_in_every_spelling() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let doors = origin.doors(Policy::default());
    let paths = ["/%2e%2e/x", "/a/.%2E", "//x", "/%2Fx", "/a%2", "/a%2%65", "/%252e%252e/x"];
    assert_eq!(statuses(&doors, &paths).await, [400; 7]);
    assert_eq!(origin.count(), 0);
}
