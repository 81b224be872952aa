//! `kill -9` of the real binary while tokens are renewed and while keys are rotated: afterwards every connection is
//! live or says that a person must act, and every record opens.
//!
//! `TRUNKLINE_KILL_ROUNDS` makes the runs longer; `TRUNKLINE_CHAOS_SEED` repeats one.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::outside::gateway::Deployment;
use crate::outside::rotating::Rotating;
use crate::outside::{chance, rounds, service, up_to, within};

/// How long a connection may take to be live or given up, once nothing disturbs it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many connections are renewed at once.
const CONNECTIONS: usize = 24;

/// What became of a connection: whether it is live. Anything else than live or given up is a fault.
fn settled(deployment: &Deployment, name: &str, round: u32) -> bool {
    let mut last = String::new();
    let mut live = None;
    let ended = within(PATIENCE, || {
        let reply = deployment.call("rotating", name, "/me").unwrap();
        live = match (reply.status, reply.header("trunkline-error")) {
            (200, _) => Some(true),
            (_, Some("connection_needs_reconnect")) => Some(false),
            _ => None,
        };
        last = format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body));
        live.is_some()
    });
    assert!(ended, "round {round}: {name} is neither live nor given up: {last}\n{}", deployment.log_tail());
    live.unwrap()
}

/// The status of each connection that the API has, by name.
fn statuses(deployment: &Deployment) -> Vec<(String, String)> {
    let listed = deployment.ask("GET", "/api/connections", &Value::Null).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    listed.as_array().unwrap().iter().map(|row| (text(&row["name"]), text(&row["status"]))).collect()
}

#[test]
fn killed_while_tokens_are_renewed_every_connection_is_live_or_says_that_a_person_must_act() {
    let random = chance("kill -9 during refreshes");
    let service = Rotating::start(7);
    let deployment = Deployment::of(&[("rotating", service.definition())]);
    let names: Vec<String> = (0..CONNECTIONS).map(|number| format!("c{number}")).collect();
    let connect = |names: &[String]| {
        let accounts: Vec<_> = names.iter().map(|name| (name.clone(), service.consent(name))).collect();
        deployment.import("rotating", &accounts);
    };
    let mut gateway = deployment.start();
    connect(&names);
    let (mut interrupted, mut dead, mut round, all) = (0, 0, 0, rounds("TRUNKLINE_KILL_ROUNDS", 24));
    // On a slow machine calls reach the service late: then there are more rounds, which wait longer.
    while round < all || interrupted == 0 && round < 4 * all {
        service.slow_down(Duration::from_millis(60));
        thread::scope(|scope| {
            for name in &names {
                // The answers of a process that is killed say nothing.
                scope.spawn(|| drop(deployment.call("rotating", name, "/me")));
            }
            thread::sleep(up_to(Duration::from_millis(120) * (1 + round / all), &random));
            interrupted += u32::from(service.busy() > 0);
            gateway.kill();
        });
        service.slow_down(Duration::ZERO);
        gateway = deployment.start();
        let lost: Vec<String> = names.iter().filter(|name| !settled(&deployment, name, round)).cloned().collect();
        for (name, status) in statuses(&deployment) {
            let given_up = lost.contains(&name);
            assert_eq!(status == "needs_reconnect", given_up, "round {round}: {name} is {status}");
            assert!(!given_up || service.has_revoked(&name), "round {round}: {name} is given up wrongly");
        }
        dead += lost.len();
        connect(&lost);
        round += 1;
    }
    println!("{round} kills, {interrupted} of them during token calls; {dead} tokens were lost on the way and told");
    assert!(interrupted > 0, "no kill came during a token call");
}

#[test]
fn killed_while_keys_are_rotated_every_record_opens_and_the_rotation_goes_on() {
    let random = chance("kill -9 during rotations");
    let address = service::start(|_| (200, "{}".to_owned()));
    let definition = format!(
        "trunkline: 1\nid: keyed\ntitle: Keyed\nsummary: Has keys.\nauth: {{ api_key: {{}} }}\n\
         api: {{ base_url: \"http://{address}\", credential: {{ header: X-Key, value: \"{{{{ api_key }}}}\" }} }}\n"
    );
    let deployment = Deployment::of(&[("keyed", definition)]);
    let keys: Vec<_> =
        (0..400).map(|number| (format!("c{number}"), json!({ "api_key": format!("key-{number}") }))).collect();
    let mut gateway = deployment.start();
    deployment.import("keyed", &keys);
    let (mut interrupted, all) = (0, rounds("TRUNKLINE_KILL_ROUNDS", 12));
    for round in 0..all {
        let begun = deployment.ask("POST", "/api/keys/rotate", &Value::Null);
        assert_eq!(begun.status, 202, "{}", String::from_utf8_lossy(&begun.body));
        thread::sleep(up_to(Duration::from_millis(100), &random));
        gateway.kill();
        gateway = deployment.start();
        let listed = deployment.ask("GET", "/api/keys", &Value::Null).json();
        let older =
            listed["keys"].as_array().unwrap().iter().filter(|key| key["newest"] != true && key["records"] != 0);
        interrupted += u32::from(older.count() > 0);
        let checked = deployment.ask("POST", "/api/keys/check", &Value::Null).json();
        assert!(checked["opened"].as_u64() >= Some(400) && checked["failed"] == json!([]), "round {round}: {checked}");
        for number in [0, 199, 399] {
            let reply = deployment.call("keyed", &format!("c{number}"), "/x").unwrap();
            assert_eq!(reply.status, 200, "round {round}: {}", String::from_utf8_lossy(&reply.body));
        }
    }
    let whole = || {
        let listed = deployment.ask("GET", "/api/keys", &Value::Null).json();
        let keys = listed["keys"].as_array().unwrap().clone();
        keys.iter().all(|key| key["newest"] == true || key["records"] == 0)
    };
    assert!(within(PATIENCE, whole), "{:?}", deployment.ask("GET", "/api/keys", &Value::Null).json());
    println!("{all} kills, {interrupted} of them before the rotation's end; 400 records open after each");
    assert!(interrupted > 0, "no kill came before the end of a rotation");
    drop(gateway);
}
