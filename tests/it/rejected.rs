//! What `trunkline check` says of faulty files. A case is a file or a deployment's directory in
//! `tests/it/rejected/`, with the expected text beside it.
//!
//! `BLESS=1 cargo test --test it rejected` writes the texts anew; read the difference before you commit it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trunkline::base::clock::{Clock as _, SystemClock};
use trunkline::definition::problem::Severity;
use trunkline::definition::render::Report;
use trunkline::definition::workspace::{Reading, select};

/// What stands for secrets in the cases. None of them may ever be shown.
const CANARIES: [&str; 4] =
    ["hunter2canary", "webhook-canary-0123456789", "app-canary-0123456789", "caller-canary-0123456789"];

fn environment() -> HashMap<String, String> {
    let variables = [
        ("ACCENTED", "sk_accented_\u{e9}"),
        ("ACME_WEBHOOK_SECRET", CANARIES[1]),
        ("APP_SECRET", CANARIES[2]),
        ("CALLER_KEY", CANARIES[3]),
        ("CLIENT_KEY", "a-private-key"),
        ("EMPTY", ""),
        ("HOOK_URL", "https://hooks.example.com/a-key-in-an-address"),
        ("THREE", "3"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn check(path: &Path) -> Report {
    let environment = environment();
    let mut report = Report::default();
    for selection in select(&[path.to_owned()]) {
        report.extend(
            Reading { environment: &environment, previous: None, keep_documents: false }.read(&selection).report(),
        );
    }
    report
}

fn cases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("tests/it/rejected").unwrap();
    let mut cases: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir() || path.extension().is_some_and(|kind| kind == "yaml"));
    cases.sort();
    cases
}

#[test]
fn faulty_files_are_told_as_expected() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut differences = String::new();
    for case in cases() {
        let shown = check(&case).text(false).replace("tests/it/rejected/", "");
        let beside = case.with_extension("expected");
        if bless {
            std::fs::write(&beside, &shown).unwrap();
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        if shown != expected {
            writeln!(differences, "--- {}\nexpected:\n{expected}\nshown:\n{shown}", case.display()).unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn there_are_enough_cases_and_each_has_something_to_tell() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    for case in cases {
        assert!(!check(&case).problems.is_empty(), "{} is faultless", case.display());
    }
}

#[test]
fn no_secret_is_shown_in_any_form() {
    for case in cases() {
        let report = check(&case);
        let shown = [report.text(true), report.json().to_string(), report.sarif().to_string()].concat();
        for canary in CANARIES {
            assert!(!shown.contains(canary), "{} shows {canary}: {shown}", case.display());
        }
    }
}

/// Files with a gateway's secret at `§`, some of them no YAML.
const GATEWAYS: [&str; 20] = [
    "callers: [{ id: a, key: [§] }]",
    "callers: [{ id: a, key: { v: § } }]",
    "callers:\n  - id: a\n    key:\n      - §\n      - x: §",
    "callers: [{ id: a, key: { §: x } }]",
    "callers: [{ id: a, key: {§}, nope: 1 }]",
    "admin: { token: &§ }",
    "admin:\n  token: &§\n  nope: 1",
    "admin:\n  token: !§ x",
    "admin:\n\ttoken: §",
    "admin: { token: \"§ }",
    "admin:\n  token: \"a\" §",
    "admin:\n  token: \"${env:CALLER_KEY}\" #§\n  oops: [",
    "callers:\n  - id: a\n    key:\n      \"§\n    allow: []",
    "callers:\n  - id: a\n    key:\n      §: [",
    "callers:\n  - id: a\n    key: §\n    key: \"${env:CALLER_KEY}\"",
    "destinations:\n  app:\n    url: http://x/\n    headers: { Authorization: \"Bearer § }",
    "destinations: { app: { url: http://x/, signing_secret: { a: [{ b: § }] } } }",
    "secrets: { key: { transi: § } }",
    "DB_PASSWORD=§",
    "db:x:§:\n  - [",
];

/// The same in a definition.
const DEFINITIONS: [&str; 12] = [
    "connections: [{ id: default, api_key: [§] }]",
    "connections: [{ id: default, api_key: { v: § } }]",
    "connections:\n  - id: default\n    api_key:\n      - §\n    nope: 1",
    "connections:\n  - id: default\n    api_key: \"a\" §",
    "connections:\n  - id: default\n    api_key: &§\n",
    "webhook:\n  secrets: { a: § }",
    "webhook:\n  secrets: [[§]]",
    "webhook:\n  secrets:\n    - v: §",
    "webhook:\n  secrets:\n    - \"§",
    "webhook:\n  secrets:\n    -\t§: [",
    "# a note\rconnections: [{ id: default, api_key: §, nope: 1 }]",
    "KEY_OF_IT = §",
];

#[test]
fn no_secret_is_shown_whatever_stands_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = "trunkline: 1\nmode: development\npublic_url: http://localhost:8080\n";
    let definition = "trunkline: 1\nid: shop\nauth: { api_key: {} }\napi: { base_url: https://a.example.com }\n";
    let cases = GATEWAYS.iter().map(|case| ("trunkline.yaml", gateway, case));
    for (file, head, case) in cases.chain(DEFINITIONS.iter().map(|case| ("shop.yaml", definition, case))) {
        // Where the secret is the name of a key, a number is told not to be one.
        let is_name = case.contains("§:") || case.contains("{§}");
        let secrets = [CANARIES[0], "correcthorsebattery", "918273645", "0918273645", "99918273645918273645"];
        for secret in secrets.into_iter().take(if is_name { 2 } else { 5 }) {
            let path = dir.path().join(file);
            std::fs::write(&path, format!("{head}{}\n", case.replace('§', secret))).unwrap();
            let report = check(&path);
            assert!(report.count(Severity::Error) > 0, "{case} is taken");
            let shown = [report.text(false), report.json().to_string(), report.sarif().to_string()].concat();
            assert!(!shown.contains(secret.trim_start_matches('0')), "{case}\n{shown}");
        }
    }
}

#[test]
fn a_file_of_very_many_faults_is_read_in_good_time() {
    let dir = tempfile::tempdir().unwrap();
    let head = "trunkline: 1\nid: other\napi: { base_url: https://a.example.com }\n";
    let fields: String = (0..20_000).map(|at| format!("k{at}: 1\n")).collect::<Vec<_>>().concat();
    let slots = format!("rules:\n  - {{ id: r, when: '*', do: [{{ log: \"{}\" }}] }}\n", "{{ nope.a }}".repeat(12_000));
    let references: String =
        (0..20_000).map(|at| format!("    X-{at}: ${{env:GONE_{at}}}\n")).collect::<Vec<_>>().concat();
    let references = format!("webhook:\n  headers:\n{references}");
    for more in [fields, slots, references] {
        let path = dir.path().join("other.yaml");
        std::fs::write(&path, format!("{head}{more}")).unwrap();
        let clock = SystemClock::new();
        let report = check(&path);
        assert!(!report.text(false).is_empty() && (1..=1_001).contains(&report.count(Severity::Error)));
        // A debug build took 50 s for the first.
        assert!(clock.monotonic() < Duration::from_secs(20), "{:?}", clock.monotonic());
    }
}

#[test]
fn a_file_of_ten_megabytes_is_refused_without_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.yaml");
    std::fs::File::create(&path).unwrap().set_len(10 << 20).unwrap();
    let shown = check(&path).text(false);
    assert!(shown.contains("error[too-large]: the file has 10485760 bytes; a definition may have 1048576"), "{shown}");
}

#[test]
fn a_file_that_is_not_utf_8_is_told_with_the_offset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latin.yaml");
    std::fs::write(&path, b"trunkline: 1\ntitle: caf\xe9\n").unwrap();
    let shown = check(&path).text(false);
    assert!(shown.contains("latin.yaml:2:11") && shown.contains("offset 23 is not UTF-8"), "{shown}");
}

#[test]
fn the_catalogue_and_the_quickstart_have_no_faults() {
    let names = [
        "GITHUB_CLIENT_ID",
        "GITHUB_CLIENT_SECRET",
        "GITHUB_WEBHOOK_SECRET",
        "SLACK_CLIENT_ID",
        "SLACK_CLIENT_SECRET",
        "SLACK_SIGNING_SECRET",
        "STRIPE_WEBHOOK_SECRET",
        "APP_WEBHOOK_SECRET",
        "TRUNKLINE_KEY",
    ];
    let mut environment: HashMap<String, String> =
        names.into_iter().map(|name| (name.to_owned(), "0123456789abcdef0123456789abcdef".to_owned())).collect();
    environment.insert("STRIPE_API_KEY".to_owned(), "sk_test_0123456789abcdef".to_owned());
    // A catalogue entry has no secret yet, which is worth a warning in a deployment.
    for (path, least) in [("examples/quickstart", Severity::Warning), ("integrations", Severity::Error)] {
        for selection in select(&[path.into()]) {
            let reading = Reading { environment: &environment, previous: None, keep_documents: false };
            let mut report = reading.read(&selection).report();
            report.problems.retain(|problem| problem.severity <= least);
            assert_eq!(report.problems, [], "{}", report.text(false));
        }
    }
}
