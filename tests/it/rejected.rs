//! What `trunkline check` says of faulty files. A case is a file or a deployment's directory in
//! `tests/it/rejected/`, with the expected text beside it.
//!
//! `BLESS=1 cargo test --test it rejected` writes the texts anew; read the difference before you commit it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

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
