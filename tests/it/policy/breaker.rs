//! A service that fails is left alone for a while.

use std::time::Duration;

use trunkline::definition::plan::policy::{Breaker, Policy};

use super::{Origin, answer, until};
use crate::support::raw::call;

const OPEN: &str = "trunkline_breaker_circuits{integration=\"svc\",state=\"open\"}";

fn breaker(open: Duration) -> Policy {
    let breaker = Breaker {
        failure_rate: 1.0,
        window: Duration::from_mins(1),
        min_requests: 1_000,
        consecutive: Some(2),
        open,
        probes: 1,
    };
    Policy { breaker: Some(breaker), ..Policy::default() }
}

#[tokio::test]
async fn failures_open_it_and_the_answer_says_when_to_come_again() {
    let origin = Origin::start(|_, _| answer(500, "")).await;
    let doors = origin.doors(breaker(Duration::from_mins(5)));
    for _ in 0..2 {
        let reply = call(doors.proxy, "GET /svc/a", "", "").await;
        assert_eq!((reply.status, reply.code()), (500, None), "the service's own answer passes");
    }
    let held = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!((held.status, held.code(), held.header("retry-after")), (503, Some("service_held"), Some("300")));
    let named = call(doors.proxy, "POST /svc/b", "", "{}").await;
    assert_eq!((named.status, origin.count()), (503, 2));
    until(&doors, OPEN, 1.0).await;
    assert!((doors.metric("trunkline_calls_held_total{integration=\"svc\",reason=\"open\"}") - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn what_the_service_says_no_to_is_no_failure() {
    let statuses = [400, 401, 404, 429, 422, 501, 429, 403];
    let origin = Origin::start(move |number, _| answer(statuses[number % 8], "")).await;
    let doors = origin.doors(breaker(Duration::from_mins(5)));
    for status in statuses {
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, status);
    }
    assert_eq!(origin.count(), 8);
}

#[tokio::test]
async fn connections_that_break_and_cannot_be_made_are_failures() {
    let broken = Origin::start(|_, _| String::new()).await;
    let doors = broken.doors(breaker(Duration::from_mins(5)));
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(call(doors.proxy, "POST /svc/a", "", "x").await.code().map(str::to_owned));
    }
    let code = |text: &str| Some(text.to_owned());
    assert_eq!(codes, [code("service_unreachable"), code("service_unreachable"), code("service_held")]);
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let origin = Origin { address: gone, ..broken };
    let doors = origin.doors(breaker(Duration::from_mins(5)));
    for expected in ["service_unreachable", "service_unreachable", "service_held"] {
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.code(), Some(expected));
    }
}

#[tokio::test]
async fn a_probe_that_succeeds_closes_it() {
    let origin = Origin::start(|number, _| answer(if number < 2 { 502 } else { 200 }, "")).await;
    let doors = origin.doors(breaker(Duration::from_millis(1)));
    for _ in 0..2 {
        call(doors.proxy, "GET /svc/a", "", "").await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
    until(&doors, OPEN, 0.0).await;
}
