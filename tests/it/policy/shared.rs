//! Many callers at one service: who gets how much of it, and how often it has to say no.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use trunkline::base::clock::SystemClock;
use trunkline::base::random::SeededRandom;
use trunkline::base::units::Rate;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::plan::gateway::Grant;
use trunkline::definition::plan::moment::MomentUnit;
use trunkline::definition::plan::policy::{Limit, Policy, Quota, Reading, Scope, Told, Wait};
use trunkline::definition::plan::rule::Glob;
use trunkline::definition::templates::Templates;
use trunkline::mock::{Controls, Mock, Simulated};
use trunkline::template::Expr;

use super::{Origin, answer, limit};
use crate::mock::serve;
use crate::support::doors::{Doors, Setup, caller, service};
use crate::support::raw::{Wire, call};

const SECOND: Duration = Duration::from_secs(1);
const CALLERS: usize = 50;

fn key(number: usize) -> String {
    format!("key-of-caller-{number:0>12}")
}

/// Jain's index of fairness: one when all have the same, 1/n when one has all.
fn jain(shares: &[usize]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), share| {
        let share = f64::from(u32::try_from(*share).unwrap());
        (sum + share, squares + share * share)
    });
    sum * sum / (f64::from(u32::try_from(shares.len()).unwrap()) * squares)
}

/// Fifty callers, the greediest with nine connections, the others with fewer, all of them always with a call
/// waiting: over a quota that they share, each gets the same.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_callers_at_one_limited_service_get_the_same() {
    let origin = Origin::start(|_, _| answer(200, "")).await;
    let together = Limit { per: Scope::Integration, ..limit(100, SECOND, SECOND * 600) };
    let mut setup = Setup::of(origin.integration(super::limited(together)));
    let all = || Grant {
        integration: Glob::new("*"),
        connection: Glob::new("*"),
        methods: Vec::new(),
        paths: Vec::new(),
        tokens: Vec::new(),
    };
    setup.callers = (0..CALLERS).map(|number| caller(&format!("c{number}"), &key(number), all())).collect();
    let doors = Arc::new(Doors::start(setup));
    let served: Arc<Vec<AtomicUsize>> = Arc::new((0..CALLERS).map(|_| AtomicUsize::new(0)).collect());
    let over = Arc::new(AtomicBool::new(false));
    let connections = (0..CALLERS).flat_map(|number| std::iter::repeat_n(number, 1 + number % 5 * 2));
    let tasks = connections.map(|number| {
        let (doors, served, over) = (Arc::clone(&doors), Arc::clone(&served), Arc::clone(&over));
        tokio::spawn(async move {
            let mut wire = Wire::open(doors.proxy).await;
            let request = format!("GET /svc/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", key(number));
            while !over.load(Ordering::SeqCst) {
                wire.send(&request).await;
                if wire.reply().await.status == 200 && !over.load(Ordering::SeqCst) {
                    served[number].fetch_add(1, Ordering::SeqCst);
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let total = || served.iter().map(|count| count.load(Ordering::SeqCst)).sum::<usize>();
    while total() < CALLERS * 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::SeqCst);
    let shares: Vec<_> = served.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let index = jain(&shares);
    println!("Jain's index {index:.4} of {shares:?}");
    assert!(index >= 0.95, "{index}: {shares:?}");
}

fn told() -> Quota {
    let reading = |source| Reading::of(Expr::compile(source).unwrap());
    let resets = Wait { value: reading("headers['x-reset']"), unit: MomentUnit::AfterMillis };
    Quota {
        told: Some(Told { remaining: reading("headers['x-left']"), limit: None, resets: Some(resets) }),
        reserve: 0,
    }
}

/// A mock whose own limit is 60 calls in a second, for a gateway that believes in 2,000.
fn hidden() -> Simulated {
    let resolved = json!({
        "trunkline": 1, "id": "svc", "auth": { "api_key": {} },
        "api": {
            "base_url": "https://svc.example", "credential": { "header": "Authorization", "value": "Bearer {{ api_key }}" },
            "limits": [{ "rate": "60/s" }], "endpoints": [{ "id": "x", "request": "GET /x" }],
            "quota": { "remaining": "headers['x-left']", "resets": { "after": "headers['x-reset']", "unit": "millis" } },
        },
    });
    let document = Document::unplaced("svc.yaml".into(), resolved.clone());
    Simulated { integration: Arc::new(compile::integration(&document, &Templates::new()).unwrap()), resolved }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_smaller_quota_than_the_file_says_hardly_ever_says_no() {
    let mock = Arc::new(Mock::new(
        &[hidden()],
        Controls::default(),
        Arc::new(SystemClock::default()),
        Arc::new(SeededRandom::new(1)),
    ));
    let mut integration = service("https://svc.example");
    let rate = Rate { count: 2_000, period: SECOND };
    let believed = Limit { rate, burst: 1, ..limit(1, SECOND, SECOND * 600) };
    integration.api.as_mut().unwrap().policy = Policy { limits: vec![believed], quota: told(), ..Policy::default() };
    let doors = Doors::start(Setup { mock: Some(serve(mock)), ..Setup::of(integration) });
    let caller = |_| async {
        let mut statuses = Vec::new();
        for _ in 0..30 {
            statuses.push(call(doors.proxy, "GET /svc/x", "", "").await.status);
        }
        statuses
    };
    let statuses = join_all((0..20).map(caller)).await.concat();
    let of = |status| statuses.iter().filter(|known| **known == status).count();
    println!("{} of {} answers were 429", of(429), statuses.len());
    assert_eq!(of(200) + of(429), 600, "{statuses:?}");
    assert!(of(429) < 6, "{} of 600 answers were 429", of(429));
    let refused = doors.metric("trunkline_quota_refusals_total{integration=\"svc\"}");
    assert!(refused < 6.0, "the service said no {refused} times");
}
