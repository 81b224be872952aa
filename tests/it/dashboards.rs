//! Dashboards, rules and the page of metrics name what is there, and nothing else.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use serde_json::Value;
use trunkline::telemetry::metrics::{CATALOGUE, Entry, Metrics};

use crate::outside::gateway::Deployment;
use crate::outside::rotating::Rotating;

/// Labels that Prometheus adds to whatever it scrapes.
const SCRAPED: [&str; 2] = ["job", "instance"];

/// What the process tells of itself besides the catalogue, by the conventions of Prometheus.
const PROCESS: [&str; 4] =
    ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"];

/// What a query reads.
#[derive(Default)]
struct Reads {
    /// Selectors, and whether each stands with a range.
    selectors: Vec<(VectorSelector, bool)>,
    /// Labels that it groups by, or joins on.
    grouped: HashSet<String>,
    /// Labels that it makes itself.
    made: HashSet<String>,
}

impl Reads {
    fn of(query: &str) -> Self {
        let parsed = parser::parse(query).unwrap_or_else(|fault| panic!("{query}: {fault}"));
        let mut reads = Self::default();
        reads.walk(&parsed);
        reads
    }

    fn walk(&mut self, expr: &Expr) {
        match expr {
            Expr::VectorSelector(selector) => self.selectors.push((selector.clone(), false)),
            Expr::MatrixSelector(ranged) => self.selectors.push((ranged.vs.clone(), true)),
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(labels) | LabelModifier::Exclude(labels)) = &aggregate.modifier {
                    self.grouped.extend(labels.labels.iter().cloned());
                }
                if let Some(Expr::StringLiteral(label)) = aggregate.param.as_deref() {
                    self.made.insert(label.val.clone());
                }
                self.walk(&aggregate.expr);
            }
            Expr::Binary(binary) => {
                let on = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
                if let Some(LabelModifier::Include(labels) | LabelModifier::Exclude(labels)) = on {
                    self.grouped.extend(labels.labels.iter().cloned());
                }
                self.walk(&binary.lhs);
                self.walk(&binary.rhs);
            }
            Expr::Call(call) => {
                if let ("label_replace", Some(Expr::StringLiteral(label))) =
                    (call.func.name, call.args.args.get(1).map(|arg| &**arg))
                {
                    self.made.insert(label.val.clone());
                }
                call.args.args.iter().for_each(|arg| self.walk(arg));
            }
            Expr::Paren(inner) => self.walk(&inner.expr),
            Expr::Unary(inner) => self.walk(&inner.expr),
            Expr::Subquery(inner) => self.walk(&inner.expr),
            _ => {}
        }
    }
}

/// The entry of the catalogue that a series belongs to; a histogram has three.
fn entry(series: &str) -> Option<&'static Entry> {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
    CATALOGUE.iter().find(
        |entry| {
            if entry.kind == "histogram" { Some(entry.name) == base } else { entry.name == series }
        },
    )
}

/// Checks a query against the catalogue; `recorded` are the series that rules make, with their labels.
fn check(query: &str, recorded: &[(String, HashSet<String>)]) -> Reads {
    let reads = Reads::of(query);
    let mut known: HashSet<String> = reads.made.clone();
    for (selector, _) in &reads.selectors {
        let name = selector.name.as_deref().unwrap_or_else(|| panic!("a selector without a name: {query}"));
        let mut labels: HashSet<String> = SCRAPED.map(str::to_owned).into();
        if let Some(entry) = entry(name) {
            labels.extend(entry.labels.iter().map(|label| (*label).to_owned()));
            labels.extend(name.ends_with("_bucket").then(|| "le".to_owned()));
            told(selector, entry);
        } else if let Some((_, made)) = recorded.iter().find(|(record, _)| record == name) {
            labels.extend(made.iter().cloned());
        } else {
            assert!(name == "up" || PROCESS.contains(&name), "no metric `{name}`: {query}");
        }
        for matcher in &selector.matchers.matchers {
            assert!(labels.contains(&matcher.name), "`{name}` has no label `{}`: {query}", matcher.name);
        }
        known.extend(labels);
    }
    for label in &reads.grouped {
        assert!(known.contains(label), "nothing in the query has the label `{label}`: {query}");
    }
    reads
}

/// The value of a label that a query asks for is one that the metric's help names.
fn told(selector: &VectorSelector, entry: &Entry) {
    for matcher in &selector.matchers.matchers {
        let open = [&SCRAPED[..], &["integration", "code"]].concat().contains(&matcher.name.as_str());
        if open || matcher.op != MatchOp::Equal && matcher.op != MatchOp::NotEqual {
            continue;
        }
        let words: HashSet<&str> = entry.help.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let door = matcher.name == "door" && ["public", "proxy", "admin"].contains(&matcher.value.as_str());
        assert!(
            door || words.contains(matcher.value.as_str()),
            "the help of `{}` does not name {}={}",
            entry.name,
            matcher.name,
            matcher.value
        );
    }
}

fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = found.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} has no {end}");
    files
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap())
        .unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    assert!(!found.is_empty(), "{pointer} is missing in {value}");
    found
}

/// A query as Prometheus gets it: the variables have values.
fn filled(query: &str) -> String {
    query.replace("$__rate_interval", "5m").replace("$__range", "6h")
}

#[test]
fn every_panel_asks_for_what_there_is() {
    let (mut titles, mut panels) = (HashSet::new(), 0);
    for path in files("dashboards", ".json") {
        let dashboard = json(&path);
        assert!(
            titles.insert(text(&dashboard, "/uid").to_owned()) && titles.insert(text(&dashboard, "/title").to_owned())
        );
        assert_eq!(dashboard["editable"], false, "kept in Git, so not changed on the page");
        let variables: Vec<_> =
            dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| text(one, "/name")).collect();
        assert_eq!(variables[..3], ["datasource", "job", "instance"]);
        for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
            check(&filled(text(annotation, "/expr")), &[]);
        }
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = text(panel, "/title");
            if panel["type"] == "row" {
                continue;
            }
            panels += 1;
            assert!(text(panel, "/description").ends_with('.'), "{title}");
            text(panel, "/fieldConfig/defaults/unit");
            assert_eq!(text(panel, "/datasource/uid"), "${datasource}", "{title}");
            for target in panel["targets"].as_array().filter(|targets| !targets.is_empty()).unwrap() {
                assert_eq!(text(target, "/datasource/uid"), "${datasource}", "{title}");
                panel_query(text(target, "/expr"), &variables);
            }
        }
    }
    assert!(panels > 50, "{panels}");
}

fn panel_query(query: &str, variables: &[&str]) {
    for (selector, ranged) in check(&filled(query), &[]).selectors {
        let name = selector.name.clone().unwrap();
        for label in SCRAPED {
            let chosen = format!("${label}");
            let found = selector.matchers.find_matchers(label);
            assert!(found.iter().any(|matcher| matcher.value == chosen), "{name} does not heed {chosen}: {query}");
        }
        let by_integration = entry(&name).is_some_and(|entry| entry.labels.contains(&"integration"));
        let chosen = selector.matchers.find_matchers("integration").iter().any(|m| m.value == "$integration");
        assert_eq!(chosen, by_integration && variables.contains(&"integration"), "$integration in {query}");
        let counts = name.ends_with("_total") || name.ends_with("_bucket");
        assert_eq!(counts, ranged, "a counter is read by its rate, a gauge as it is: {query}");
    }
    let fixed = query.split('[').skip(1).any(|range| !range.starts_with("$__") && !range.starts_with("1d]"));
    assert!(!fixed, "the range of a rate follows the panel's: {query}");
}

fn rules(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("dashboards/rules/{name}.yml")).unwrap();
    let file: Value = serde_yaml::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn every_rule_asks_for_what_there_is_and_every_alert_says_what_to_do() {
    let mut recorded = Vec::new();
    for rule in rules("recording") {
        let reads = check(text(&rule, "/expr"), &[]);
        recorded.push((text(&rule, "/record").to_owned(), reads.grouped));
    }
    let page = fs::read_to_string("docs/ALERTS.md").unwrap();
    let tests = fs::read_to_string("dashboards/rules/tests.yml").unwrap();
    let alerts = rules("alerts");
    for alert in &alerts {
        check(text(alert, "/expr"), &recorded);
        let name = text(alert, "/alert");
        assert_eq!(text(alert, "/annotations/runbook"), format!("docs/ALERTS.md#{}", name.to_lowercase()));
        assert!(page.contains(&format!("\n## {name}\n")), "docs/ALERTS.md has no section on {name}");
        assert!(["critical", "warning"].contains(&text(alert, "/labels/severity")), "{name}");
        if text(alert, "/labels/severity") == "critical" {
            assert!(tests.contains(name), "what wakes somebody is tried: {name}");
        }
    }
    assert_eq!(page.matches("\n## ").count(), alerts.len(), "a section for each alert and for nothing else");
}

/// The counters that an alert reads. Statuses are no list that could begin at 0, and what reads them wants many.
fn counters_read(alert: &Value) -> Vec<(&'static Entry, VectorSelector)> {
    let selectors = Reads::of(text(alert, "/expr")).selectors.into_iter();
    let read = selectors.filter_map(|(selector, _)| Some((entry(selector.name.as_deref()?)?, selector)));
    read.filter(|(entry, _)| entry.kind == "counter" && !entry.labels.contains(&"code")).collect()
}

#[test]
fn what_alerts_count_begins_at_0() {
    for alert in rules("alerts") {
        for (entry, selector) in counters_read(&alert) {
            let begun = entry.begun("shop");
            assert!(!begun.is_empty(), "{} appears with its first count: {}", entry.name, text(&alert, "/alert"));
            for matcher in &selector.matchers.matchers {
                let place = entry.labels.iter().position(|label| *label == matcher.name).unwrap();
                let values: HashSet<&str> = begun.iter().map(|series| series[place]).collect();
                let plain = |value: &&str| !value.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let missing: Vec<_> =
                    matcher.value.split('|').filter(plain).filter(|value| !values.contains(value)).collect();
                assert!(missing.is_empty(), "{}: {missing:?} does not begin at 0", entry.name);
                assert!(values.iter().any(|value| matcher.is_match(value)), "{}: {matcher}", entry.name);
            }
        }
    }
}

/// The samples of a series' text form that a selector takes.
fn samples<'a>(metrics: &'a str, selector: &VectorSelector) -> Vec<&'a str> {
    let name = selector.name.as_deref().unwrap();
    let takes = |labels: &str| {
        let value = |name: &str| labels.split(&format!("{name}=\"")).nth(1)?.split('"').next();
        selector
            .matchers
            .matchers
            .iter()
            .all(|matcher| value(&matcher.name).is_some_and(|value| matcher.is_match(value)))
    };
    let of_name =
        metrics.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    of_name.filter(|line| takes(line)).collect()
}

#[test]
fn a_gateway_to_which_nothing_happened_shows_what_alerts_count() {
    let service = Rotating::start(6);
    let load = "trunkline: 1\nid: load\ntitle: Load\nsummary: Events.\nauth: { none: {} }\n\
                webhook:\n  verify:\n    hmac: { algorithm: sha256, signature: { header: X-Signature, prefix: \"sha256=\", \
                encoding: hex }, signed: \"{{ body }}\" }\n  secrets: [\"${env:LOAD_SECRET}\"]\n  event: body.type\n";
    let deployment = Deployment::of(&[("rotating", service.definition()), ("load", load.to_owned())]);
    let _gateway = deployment.start();
    let shown = deployment.ask("GET", "/metrics", &Value::Null);
    let metrics = String::from_utf8_lossy(&shown.body).into_owned();
    for alert in rules("alerts") {
        for (entry, selector) in counters_read(&alert) {
            let found = samples(&metrics, &selector);
            assert!(!found.is_empty(), "{}: {}\n{metrics}", text(&alert, "/alert"), entry.name);
            let at_0 = |line: &&str| line.ends_with(" 0");
            assert!(found.iter().all(at_0), "{found:?}");
        }
    }
}

fn promtool() -> Command {
    Command::new(crate::support::peer::installed().join("promtool/promtool"))
}

#[test]
fn prometheus_own_tool_takes_the_rules_and_their_tests() {
    let own = files("dashboards/rules", ".yml").into_iter().filter(|path| !path.ends_with("tests.yml"));
    let checked = promtool().args(["check", "rules"]).args(own).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let tried = promtool().args(["test", "rules", "dashboards/rules/tests.yml"]).output().unwrap();
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&[tried.stdout, tried.stderr].concat()));
}

#[test]
fn prometheus_own_tool_takes_every_metric() {
    let metrics = Metrics::new().unwrap();
    metrics.touch();
    let mut tool = promtool()
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = metrics.render().unwrap();
    tool.stdin.take().unwrap().write_all(&text).unwrap();
    let said = tool.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&[said.stdout, said.stderr].concat()));
    let text = String::from_utf8(text).unwrap();
    let told = CATALOGUE.iter().filter(|entry| text.contains(&format!("# TYPE {} ", entry.name))).count();
    assert_eq!(told, CATALOGUE.len(), "one series of each");
    assert!(PROCESS.iter().all(|name| text.contains(name)));
}

/// `UPDATE_SCHEMAS=1` writes the page anew.
#[test]
fn the_page_of_metrics_is_in_step_with_the_catalogue() {
    let mut page = String::from(
        "# Metrics\n\n`GET /metrics` at the admin door, in Prometheus' text format. This page is made from the list in\n\
         `src/telemetry/metrics.rs`. Names begin with `trunkline_`, units are base units, counters end in `_total`; the\n\
         process's own numbers (`process_cpu_seconds_total`, `process_resident_memory_bytes`, …) stand beside them.\n\n\
         Labels are bounded: `integration` has the ids of loaded definitions and `other`, the rest are small enumerations.\n\
         No label has a connection, a path, an address or an error's text: see `/api/activity` for these. `dashboards/` has\n\
         dashboards for Grafana, `dashboards/rules/` [alerts](ALERTS.md). Counters that alerts read, but for those by `code`, and\n\
         those without labels are there at 0 before they count: of a series that begins with its first count, `increase` misses\n\
         that one, as it does of the others.\n\n\
         | Metric | Kind | Labels | What it tells |\n|---|---|---|---|\n",
    );
    page.extend(CATALOGUE.iter().map(|Entry { name, kind, help, labels, .. }| {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "))
    }));
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write("docs/METRICS.md", &page).unwrap();
    }
    let written = fs::read_to_string("docs/METRICS.md").unwrap_or_default();
    assert!(written == page, "docs/METRICS.md lags behind: run UPDATE_SCHEMAS=1 cargo test page_of_metrics");
}
