//! Nothing secret in any output: every secret of a deployment is a marker that stands nowhere else, the real
//! binary is driven through what works and what fails, and everything it ever wrote is searched.
//!
//! [`hunt`] is the harness: plant a [`Canary`] for a new kind of secret, and give what a new output wrote to
//! [`Sinks::add`].

mod accounts;
pub mod hunt;
mod scene;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::outside::within;
use hunt::{Canaries, Sinks};
use scene::Scene;

/// What a run must have said, so that an empty search is no empty stage.
const WITNESSES: [&str; 14] = [
    "trunkline_upstream_requests_total",
    "\"state\":\"dead\"",
    "\"reason\":\"mismatch\"",
    "caller_unknown",
    "definition refused",
    "is being sealed anew",
    "BEGIN AGE ENCRYPTED FILE",
    "svc/imported",
    "oauth is connected",
    "connect.refused",
    "invalid_grant",
    "trunkline.connection.needs_reconnect The connection",
    "trunkline.config.rejected `",
    "trunkline.event.dead A delivery",
];

#[test]
fn no_secret_is_in_anything_that_a_deployment_ever_wrote() {
    let canaries = Canaries::default();
    let scene = Scene::set(&canaries);
    let mut sinks = Sinks::default();
    let gateway = scene.start();
    scene.import_connections(&gateway, &mut sinks);
    scene.call_services(&gateway, &mut sinks);
    scene.connect_accounts(&gateway, &canaries, &mut sinks);
    scene.send_webhooks(&gateway);
    Scene::make_endpoints(&gateway, &canaries, &mut sinks);
    let over = within(Duration::from_secs(30), || {
        gateway.admin("GET", "/api/deliveries?state=dead", b"").text().contains("dead")
    });
    assert!(over, "no delivery was given up: {}", gateway.admin("GET", "/api/events", b"").text());
    scene.break_a_definition(&gateway);
    Scene::rotate_keys(&gateway);
    Scene::ask_everything(&gateway, &mut sinks);
    scene.use_the_page(&gateway, &canaries, &mut sinks);
    scene.run_commands(&gateway, &mut sinks);
    scene.carry(&gateway, &mut sinks);
    scene.back_up(&mut sinks);
    gateway.stop();
    scene.search_files(&mut sinks);

    let found = sinks.search(&canaries);
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));
    let blind = accounts::blind_spots(&sinks);
    assert!(blind.is_empty(), "a marker that is no secret is not found in {blind:?}: the hunt sees nothing there");
    let everything = sinks.text();
    for witness in WITNESSES {
        assert!(everything.contains(witness), "`{witness}` is in no output, so the run did not do what it should");
    }
    assert!(canaries.count() >= 40, "{}", canaries.count());
}

#[test]
fn a_panic_is_logged_without_what_it_says() {
    let canaries = Canaries::default();
    let secret = canaries.plant("a secret in a panic's message");
    let lines = hunt::log_of(|| {
        std::panic::set_hook(Box::new(trunkline::telemetry::log::on_panic));
        let message = format!("unexpected: {secret}");
        let ended = std::panic::catch_unwind(|| std::panic::panic_any(message.clone()));
        let also = std::panic::catch_unwind(|| panic!("unexpected: {message}"));
        drop(std::panic::take_hook());
        assert!(ended.is_err() && also.is_err());
    });
    assert!(lines.matches("message withheld").count() == 2, "{lines}");
    let mut sinks = Sinks::default();
    sinks.add("log", lines);
    assert_eq!(sinks.search(&canaries), Vec::<String>::new());
}

#[test]
fn the_hunt_finds_every_spelling() {
    let canaries = Canaries::default();
    let secret = canaries.plant("one");
    for (form, text) in hunt::spellings(&secret) {
        let mut sinks = Sinks::default();
        sinks.add("somewhere", format!("before {text} after"));
        assert_eq!(sinks.search(&canaries).len(), 1, "{form}");
    }
    let mut sinks = Sinks::default();
    let basic = STANDARD.encode(format!("user:{secret}:more"));
    sinks.add("basic", basic);
    assert_eq!(sinks.search(&canaries).len(), 1, "inside a longer text in base 64");
}
