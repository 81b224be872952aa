//! Webhooks whose definition cannot tell what they are: kept, told, and run once the definition is mended.

use std::fs;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::outside::gateway::Deployment;
use crate::outside::http::Client;
use crate::outside::sender::Ledger;
use crate::outside::sink::{Mood, Sink};
use crate::outside::within;

const SOON: Duration = Duration::from_secs(20);

fn run(deployment: &Deployment, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = deployment.command(arguments[0]).args(&arguments[1..]).output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(status.success(), "{arguments:?}: {text}");
    text
}

fn event(deployment: &Deployment, id: &str) -> Value {
    Client::new(deployment.admin).get(&format!("/api/events/{id}")).unwrap().json()
}

fn metrics(deployment: &Deployment) -> String {
    String::from_utf8(Client::new(deployment.admin).get("/metrics").unwrap().body).unwrap()
}

/// A gateway of which one field of the webhook is faulty: an event is sent, found dead, and replayed in this way
/// after the field was mended.
fn kept_until_mended(field: &str, replay: impl Fn(&Deployment, &str)) {
    let sink = Sink::start(Mood::Well);
    let deployment = Deployment::new(&[("good", sink.url())], None);
    let file = deployment.path().join("integrations/load.yaml");
    let sound = fs::read_to_string(&file).unwrap();
    let right = sound.lines().find(|line| line.trim_start().starts_with(&format!("{field}:"))).unwrap();
    fs::write(&file, sound.replace(right, &format!("  {field}: body"))).unwrap();
    let gateway = deployment.start();
    let ledger = Ledger::default();
    let answered = ledger.send_one(&mut Client::new(deployment.public), 200).unwrap();
    assert_eq!(answered.status, 202, "{}", deployment.log_tail());
    let sent = ledger.acknowledged();
    let id = sent.values().next().unwrap().clone().unwrap();

    assert!(within(SOON, || event(&deployment, &id)["state"] == "dead"), "{}", event(&deployment, &id));
    let dead = event(&deployment, &id);
    let error = dead["deliveries"][0]["attempts"][0]["error"].as_str().unwrap_or_default().to_owned();
    let why = format!("`webhook.{field}` cannot be told: `body` is a map, not a text");
    assert!(error.contains(&why) && dead["type"] == "trunkline.untold", "{dead}");
    assert!(deployment.log_tail().contains(&why), "{}", deployment.log_tail());
    let counted = metrics(&deployment);
    for sample in [
        "webhooks_received_total{integration=\"load\",result=\"untold\"} 1",
        "events_matched_total{integration=\"load\",result=\"untold\"} 1",
    ] {
        assert!(counted.contains(sample), "{sample}");
    }
    assert_eq!(sink.missing(sent.keys()).len(), 1);

    fs::write(&file, sound).unwrap();
    run(&deployment, &["reload"]);
    replay(&deployment, &id);
    assert!(within(SOON, || event(&deployment, &id)["state"] == "done"), "{}", event(&deployment, &id));
    assert!(sink.missing(sent.keys()).is_empty());
    gateway.kill();
}

#[test]
fn an_event_of_which_no_type_can_be_told_is_kept_until_the_definition_is_mended() {
    kept_until_mended("event", |deployment, id| drop(run(deployment, &["events", "replay", id])));
}

#[test]
fn an_event_of_which_no_delivery_id_can_be_told_is_kept_as_well() {
    kept_until_mended("delivery_id", |deployment, _| drop(run(deployment, &["events", "replay", "--dead"])));
}
