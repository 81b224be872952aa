//! Bytes of calls that came to no answer, as the activity counts them.

use http::Method;
use serde_json::json;
use trunkline::definition::plan::gateway::Limits;

use super::service::{Answer, Service};
use super::world::Setting;
use super::{fails, plain, with_json};

#[tokio::test]
async fn what_was_read_of_a_refused_answer_counts_and_what_was_not_sent_does_not() {
    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "b".repeat(2_000));
    let service = Service::start(move |_| Answer::Bytes(answer.clone().into_bytes())).await;
    let limits = Limits { answer_bytes: 1_000, ..Limits::default() };
    let too_large = Setting { limits, ..plain(&service) }.world();
    // Nobody listens there.
    let unsent = Setting::at("http://svc.example:1").world();
    for (world, sent, read) in [(too_large, 2, 1_001..=2_000), (unsent, 0, 0..=0)] {
        fails(world.run(&with_json(Method::POST, "/x", &json!({}))).await);
        let told = world.outbound.activity().newest(1, |_| true).remove(0);
        assert_eq!((told.sent_bytes, told.attempts), (sent, 1), "{told:?}");
        assert!(read.contains(&told.received_bytes), "{told:?}");
    }
}
