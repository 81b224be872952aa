//! The command line as people meet it: exit codes, help, and what goes where.

use std::process::{Command, Output};

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
