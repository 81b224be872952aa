//! Usage: how much was called, how it ended and how long it took; a click on a point leads to the calls of that time.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::activity::integrations;
use super::shell::Shell;
use crate::admin::Parts;
use crate::admin::api::query::Asked;
use crate::admin::api::usage::{Wanted, describe};
use crate::admin::refusal::Refused;

/// How calls were in a time.
pub async fn show(
    State(parts): State<Arc<Parts>>,
    shell: Shell,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    let mut usage = json!(describe(&parts, &wanted).await?);
    let points: Vec<Value> =
        usage["points"].as_array().into_iter().flatten().map(|point| linked(&shell, &wanted, point)).collect();
    let before: Vec<Value> =
        usage["previous"]["points"].as_array().into_iter().flatten().map(|point| point["counts"].clone()).collect();
    sort_by_requests(&mut usage["series"]);
    sort_by_requests(&mut usage["integrations"]);
    let most = |names: &[&str]| {
        let value = |counts: &Value| names.iter().filter_map(|name| counts[name].as_u64()).max();
        points.iter().map(|point| &point["counts"]).filter_map(value).max().unwrap_or_default()
    };
    let requests_before = before.iter().filter_map(|counts| counts["requests"].as_u64()).max().unwrap_or_default();
    let beside: Vec<_> = before.iter().map(|counts| counts["requests"].clone()).collect();
    let chart = |values: &dyn Fn(&Value) -> Vec<Value>, most: u64| drawn(&points, values, most);
    let mut requests = chart(
        &|counts| vec![counts["errors"].clone(), rest(counts, "errors")],
        most(&["requests"]).max(requests_before),
    );
    requests["beside"] = Value::from(beside);
    let view = json!({
        "requests": requests,
        "times": chart(&|counts| ["p50_ms", "p95_ms", "p99_ms"].map(|name| counts[name].clone()).into(), most(&["p50_ms", "p95_ms", "p99_ms"])),
        "saved": chart(&|counts| vec![counts["saved"].clone(), of_cacheable(counts)], most(&["cacheable"])),
        "points": points,
        "compared": compared(&usage),
        "usage": usage,
        "ranges": ["1h", "24h", "7d", "30d"],
        "integrations": integrations(&parts),
    });
    shell.page("usage.html", "Usage", view).await
}

fn rest(counts: &Value, part: &str) -> Value {
    let number = |name: &str| counts[name].as_u64();
    number("requests").zip(number(part)).map(|(all, part)| all.saturating_sub(part)).into()
}

fn of_cacheable(counts: &Value) -> Value {
    let number = |name: &str| counts[name].as_u64();
    number("cacheable").zip(number("saved")).map(|(all, part)| all.saturating_sub(part)).into()
}

/// A point with the address of the calls that it has.
fn linked(shell: &Shell, wanted: &Wanted, point: &Value) -> Value {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("direction", "out");
    for (name, value) in [("since", &point["at"]), ("until", &point["until"])] {
        query.append_pair(name, value.as_str().unwrap_or_default());
    }
    for (name, value) in [("integration", &wanted.integration), ("endpoint", &wanted.endpoint)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let mut point = point.clone();
    point["href"] = Value::from(shell.address(&format!("/activity?{}", query.finish())));
    point
}

fn drawn(points: &[Value], values: &dyn Fn(&Value) -> Vec<Value>, most: u64) -> Value {
    let point = |point: &Value| {
        let counts = &point["counts"];
        let at = point["at"].as_str().unwrap_or_default();
        let title = match counts["requests"].as_u64() {
            None => format!("{at}: the gateway did not run"),
            Some(requests) => format!("{at}: {requests} calls, {} failed", counts["errors"]),
        };
        json!({ "href": point["href"], "title": title, "values": values(counts), "gap": counts.is_null() })
    };
    json!({ "most": most, "points": points.iter().map(point).collect::<Vec<_>>() })
}

fn sort_by_requests(rows: &mut Value) {
    if let Some(rows) = rows.as_array_mut() {
        rows.sort_by_key(|row| std::cmp::Reverse(row["counts"]["requests"].as_u64()));
    }
}

/// How the totals stand to those of the time before, in words; null where nothing is compared.
fn compared(usage: &Value) -> Value {
    let (now, before) = (&usage["total"], &usage["previous"]["total"]);
    let change = |name: &str| {
        let (now, before) = (now[name].as_u64()?, before[name].as_u64()?);
        if before == 0 {
            return Some(if now == 0 { "as before".to_owned() } else { "none before".to_owned() });
        }
        let more = now >= before;
        let percent = (u128::from(now.abs_diff(before)) * 100 + u128::from(before) / 2) / u128::from(before);
        Some(if percent == 0 {
            "as before".to_owned()
        } else {
            format!("{percent} % {} than before", if more { "more" } else { "less" })
        })
    };
    if before.is_null() {
        return Value::Null;
    }
    ["requests", "errors", "saved", "retries", "p50_ms", "p95_ms", "p99_ms"]
        .into_iter()
        .map(|name| (name.to_owned(), Value::from(change(name))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_compared_in_words() {
        let usage = json!({
            "total": { "requests": 150, "errors": 0, "saved": 3, "p50_ms": null, "retries": 99 },
            "previous": { "total": { "requests": 100, "errors": 0, "saved": 0, "p50_ms": 4, "retries": 100 } },
        });
        let told = compared(&usage);
        assert_eq!(told["requests"], "50 % more than before");
        assert_eq!(
            (&told["errors"], &told["saved"], &told["retries"]),
            (&json!("as before"), &json!("none before"), &json!("1 % less than before"))
        );
        assert_eq!((&told["p50_ms"], compared(&json!({ "total": {} }))), (&Value::Null, Value::Null));
    }
}
