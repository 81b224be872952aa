//! The pages under `docs/` that are written by hand name all there is.

use std::collections::HashMap;
use std::fs;

use trunkline::definition::problem::Problem;
use trunkline::definition::workspace::{Reading, select};
use trunkline::template::{FILTERS, FUNCTIONS, TESTS};

fn page(name: &str) -> String {
    fs::read_to_string(format!("docs/{name}.md")).unwrap()
}

#[test]
fn every_filter_test_and_function_is_in_the_manual() {
    let page = page("TEMPLATES");
    for name in FILTERS.iter().chain(&TESTS).chain(&FUNCTIONS).map(|known| known.name) {
        let names = |end: &str| page.contains(&format!("`{name}{end}"));
        assert!(names("`") || names("("), "docs/TEMPLATES.md does not name `{name}`");
    }
}

#[test]
fn the_production_example_passes_the_check() {
    let names =
        ["TRUNKLINE_ADMIN_TOKEN", "APP_WEBHOOK_SECRET", "BACKEND_KEY", "STRIPE_API_KEY", "STRIPE_WEBHOOK_SECRET"];
    let environment: HashMap<String, String> =
        names.into_iter().map(|name| (name.to_owned(), "sk_test_0123456789abcdef01234567".to_owned())).collect();
    for selection in select(&["examples/production".into()]) {
        let report =
            Reading { environment: &environment, previous: None, keep_documents: false }.read(&selection).report();
        let faults: Vec<&Problem> = report
            .problems
            .iter()
            .filter(|problem| problem.severity < trunkline::definition::problem::Severity::Notice)
            .collect();
        assert!(faults.is_empty() && report.files == 2, "{}", report.text(false));
    }
}
