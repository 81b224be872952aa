//! The command line as people meet it: exit codes, help, and what goes where.

use std::process::{Command, Output};

use crate::page::house::{House, KEY, PROOF, SIGNING, TOKEN, WATCH, people};

fn trunkline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trunkline")).args(arguments).env_remove("TRUNKLINE_ADMIN").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let help = trunkline(&["--help"]);
    let shown = text(&help.stdout);
    assert!(help.status.success());
    for word in ["keys", "healthcheck", "completions", "version", "Exit codes:"] {
        assert!(shown.contains(word), "{word} is missing in:\n{shown}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_prints_nothing_to_stdout() {
    for arguments in [&["no-such-command"][..], &[], &["keys", "generate", "--colour"]] {
        let ended = trunkline(arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn keys_differ_and_are_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    let generate = || trunkline(&["keys", "generate", "--out", path.to_str().unwrap()]);
    assert!(generate().status.success());
    let first = std::fs::read_to_string(&path).unwrap();
    assert_eq!(generate().status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    assert_ne!(text(&trunkline(&["keys", "generate"]).stdout), first);
}

#[test]
fn an_absent_gateway_is_unhealthy() {
    let ended = trunkline(&["healthcheck", "--admin", "http://127.0.0.1:1"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("http://127.0.0.1:1"), "{}", text(&ended.stderr));
}

#[test]
fn the_catalogue_is_searched_by_what_people_know() {
    let ids = |arguments: &[&str]| {
        let ended = trunkline(&[&["catalog", "list", "--json"], arguments].concat());
        let found: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        let found = found.as_array().unwrap().clone();
        (found.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), ended.status.code())
    };
    let (all, code) = ids(&[]);
    assert!(all.len() >= 60 && code == Some(0), "{}", all.len());
    assert!(ids(&["--category", "payments"]).0.contains(&"stripe".to_owned()));
    assert!(ids(&["--auth", "device_code"]).0.iter().all(|id| id.contains("device")));
    assert!(ids(&["--feature", "webhooks", "issues"]).0.contains(&"github".to_owned()));
    assert!(ids(&["pull", "requests"]).0.len() < all.len());
    assert_eq!(ids(&["no-such-service-anywhere"]), (vec![], Some(1)));
}

#[test]
fn a_search_that_finds_nothing_says_what_was_perhaps_meant() {
    let told = |arguments: &[&str]| text(&trunkline(&[&["catalog", "search"], arguments].concat()).stderr);
    assert!(told(&["strpe"]).contains("did you mean `stripe`?"), "{}", told(&["strpe"]));
    assert!(told(&["--category", "shoes"]).contains("payments"), "{}", told(&["--category", "shoes"]));
}

#[test]
fn versions_and_completions_are_printed() {
    let version: serde_json::Value = serde_json::from_slice(&trunkline(&["version", "--json"]).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&trunkline(&["completions", shell]).stdout).contains("trunkline"), "{shell}");
    }
}

#[test]
fn show_hides_what_stands_in_fields_that_nobody_knows() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.yaml");
    let definition = "trunkline: 1\nid: shop\ntitle: Shop\nwebhook:\n  secert: hunter2canary\n  more: { deep: [hunter2canary, \"${env:A}\"] }\n";
    std::fs::write(&file, definition).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
    let output = command.args(["show", "shop", "--resolved", "--dir"]).arg(directory.path()).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(!shown.contains("hunter2canary"), "{shown}");
    assert!(shown.contains("title: Shop") && shown.contains("secert: ••••••") && shown.contains("${env:A}"), "{shown}");
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn what_prints_a_result_prints_it_as_json_too() {
    let absent = trunkline(&["healthcheck", "--json", "--admin", "http://127.0.0.1:1"]);
    assert_eq!((absent.status.code(), &json(&absent)["healthy"]), (Some(1), &serde_json::Value::Bool(false)));
    let outline = json(&trunkline(&["show", "stripe", "--json"]));
    assert_eq!((&outline["id"], &outline["auth"][0]), (&"stripe".into(), &"api_key".into()), "{outline}");
    let draft = json(&trunkline(&["new", "stripe", "--print", "--json"]));
    assert!(draft["text"].as_str().unwrap().contains("extends: stripe"), "{draft}");
    let directory = tempfile::tempdir().unwrap();
    let definition =
        "trunkline: 1\nid: shop\ntitle: Shop\nwebhook:\n  secert: hunter2canary\n  events: [a, \"${env:A}\"]\n";
    std::fs::write(directory.path().join("shop.yaml"), definition).unwrap();
    let dir = directory.path().to_str().unwrap();
    let shown = json(&trunkline(&["show", "shop", "--resolved", "--json", "--dir", dir]));
    assert_eq!(shown.pointer("/definition/webhook/secert"), Some(&"••••••".into()), "{shown}");
    assert_eq!(shown.pointer("/definition/webhook/events/1"), Some(&"${env:A}".into()), "{shown}");
    let place = shown["places"]["/webhook/events/0"].as_str().unwrap();
    assert!(place.ends_with("shop.yaml:6") && !shown.to_string().contains("hunter2"), "{shown}");
}

#[test]
fn a_trigger_without_an_event_takes_nothing_that_needs_one() {
    for option in [&["--body", "x.json"][..], &["--bad-signature"], &["--count", "3"], &["--to", "http://a.example"]] {
        let ended = trunkline(&[&["trigger", "github"], option].concat());
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{option:?}: {said}");
        assert!(said.contains("[EVENT]") || said.contains("<EVENT>"), "{option:?}: {said}");
    }
}

#[test]
fn a_trigger_of_an_event_that_is_not_listed_says_which_was_meant() {
    let quickstart = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
    let values = std::fs::read_to_string(quickstart.join("demo.env")).unwrap();
    let variables = values.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    for (event, meant) in [("pull_request.openned", true), ("pull_request.opened", false), ("of.our_own", false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.args(["trigger", "github", event, "--to", "http://127.0.0.1:1/x", "--dir"]).arg(&quickstart);
        let said = text(&command.envs(variables.clone()).output().unwrap().stderr);
        assert_eq!(said.contains("did you mean `pull_request.opened`?"), meant, "{event}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_tells_what_was_accepted_what_was_known_and_what_was_refused() {
    let house = House::open(&people()).await;
    let body = house.directory.path().join("body.json");
    std::fs::write(&body, "{\"type\":\"rung\",\"id\":\"once\"}").unwrap();
    let to = format!("http://{}/webhooks/bell", house.public);
    let trigger = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.args(["trigger", "bell", "rung", "--to", &to, "--dir"]).arg(house.directory.path()).args(options);
        let variables = [("TOKEN", TOKEN), ("WATCH", WATCH), ("KEY", KEY), ("PROOF", PROOF)];
        command.envs(variables).env("SIGNING", SIGNING).output().unwrap()
    };
    let body = body.to_str().unwrap();
    let first = trigger(&["--body", body]);
    assert!(text(&first.stdout).contains("bell rung: accepted with 202"), "{first:?}");
    let second = trigger(&["--body", body]);
    assert!(text(&second.stdout).contains("bell rung: a duplicate"), "{second:?}");
    let third = json(&trigger(&["--body", body, "--json"]));
    assert_eq!((&third["outcome"], &third["status"]), (&"duplicate".into(), &200.into()), "{third}");
    let many = json(&trigger(&["--body", body, "--count", "3", "--json"]));
    assert_eq!((&many["duplicates"], &many["accepted"]), (&3.into(), &0.into()), "{many}");
    let forged = trigger(&["--bad-signature", "--json"]);
    assert_eq!((forged.status.code(), &json(&forged)["outcome"]), (Some(1), &"refused".into()), "{forged:?}");
    house.close().await;
}
