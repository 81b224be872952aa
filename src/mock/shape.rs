//! Bodies made so that expressions find what they read.
//!
//! A definition says which places of an answer or event it reads; a body in which those places hold
//! plausible values is one the gateway can work with. Called by `answer`, `page` and `draft`.

use serde_json::{Map, Value};

use super::paths::{Read, Step, last_key};
use crate::base::clock::Timestamp;

/// When the simulated world began: 2026-01-31T10:00:00Z. Fixed, so that equal requests get equal
/// answers.
pub(super) const EPOCH: Timestamp = Timestamp::from_seconds(1_769_853_600);

/// Gives every place that is read below the variable `root` a value, unless it has one. The longest
/// ways go first, so that a place which is both read as a whole and looked into becomes a map.
pub(super) fn fill(body: &mut Value, root: &str, reads: &[Read], serial: u64) {
    let mut wanted: Vec<&Read> = reads.iter().filter(|read| read.root == root && !read.steps.is_empty()).collect();
    wanted.sort_by_key(|read| std::cmp::Reverse(read.steps.len()));
    for read in wanted {
        let value = read.equals.clone().unwrap_or_else(|| plausible(last_key(&read.steps).unwrap_or("value"), serial));
        put(body, &read.steps, value, Existing::Keep);
    }
}

/// What happens to a value that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays.
    Keep,
    /// It is replaced.
    Replace,
}

/// Puts a value at the end of a way, making maps and one-item lists on the way.
pub(super) fn put(at: &mut Value, steps: &[Step], value: Value, existing: Existing) {
    let Some((step, below)) = steps.split_first() else {
        if at.is_null() || existing == Existing::Replace {
            *at = value;
        }
        return;
    };
    match step {
        Step::Key(key) => {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            if let Value::Object(map) = at {
                put(map.entry(key.clone()).or_insert(Value::Null), below, value, existing);
            }
        }
        Step::Item => {
            if at.as_array().is_none_or(Vec::is_empty) {
                *at = Value::Array(vec![Value::Null]);
            }
            if let Some(last) = at.as_array_mut().and_then(|items| items.last_mut()) {
                put(last, below, value, existing);
            }
        }
    }
}

/// The value at the end of a way, through the last item of lists.
pub(super) fn find<'a>(value: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    steps.iter().try_fold(value, |at, step| match step {
        Step::Key(key) => at.get(key),
        Step::Item => at.as_array().and_then(|items| items.last()),
    })
}

/// A value that looks like what a field of this name holds. `serial` tells things of one kind apart.
pub(super) fn plausible(name: &str, serial: u64) -> Value {
    let lower = name.to_ascii_lowercase();
    let text = |text: &str| Value::from(text);
    match lower.as_str() {
        "ok" | "success" | "active" | "verified" | "enabled" => Value::Bool(true),
        "draft" | "deleted" | "isdeleted" | "archived" | "has_more" | "hasmore" => Value::Bool(false),
        "email" => Value::from(format!("ada{serial}@example.com")),
        "login" | "username" | "user" | "screen_name" => text("ada"),
        "name" | "full_name" | "display_name" => text("Ada Lovelace"),
        "title" | "subject" => text("A sample title"),
        "text" | "message" | "description" | "content" | "summary" | "body" => text("A sample text."),
        "number" | "count" | "total" | "size" | "quantity" => Value::from(serial),
        "amount" => Value::from(1_999),
        "currency" => text("eur"),
        "status" | "state" => text("active"),
        "expires_in" => Value::from(3_600),
        "ts" => Value::from(format!("{}.{serial:06}", EPOCH.seconds())),
        "channel" => text("C024BE91L"),
        "labels" | "tags" | "items" | "data" | "records" => Value::Array(Vec::new()),
        "created" | "timestamp" | "updated" => Value::from(EPOCH.seconds() + serial),
        other if other == "url" || other.ends_with("_url") || other.ends_with("uri") || other == "link" => {
            Value::from(format!("https://example.com/{serial}"))
        }
        other if other.ends_with("_at") || other.ends_with("modstamp") || other.ends_with("date") => {
            Value::from(Timestamp::from_seconds(EPOCH.seconds() + serial).to_string())
        }
        "id" => Value::from(format!("mock_{serial}")),
        other if other.ends_with("id") => {
            Value::from(format!("{}_mock_{serial}", other.trim_end_matches("id").trim_end_matches('_')))
        }
        other => Value::from(format!("sample {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::paths::reads;
    use crate::template::{Context, Expr};
    use serde_json::json;

    #[test]
    fn an_expression_finds_what_it_reads() {
        for source in [
            "body.ok",
            "body.data[-1].id",
            "body.team.name ~ '/' ~ (body.team | tojson)",
            "not body.pull_request.draft",
            "body.type == 'url_verification'",
            "body['odd name'].x[0].email",
        ] {
            let mut body = Value::Null;
            fill(&mut body, "body", &reads(source), 7);
            let holds = Expr::compile(source).and_then(|expr| expr.holds(&Context::new().with_json("body", &body)));
            assert_eq!(holds, Ok(true), "{source} over {body}");
        }
    }

    #[test]
    fn what_is_there_stays() {
        let mut body = json!({ "id": 5, "team": { "id": "T1" } });
        fill(&mut body, "body", &reads("body.id ~ body.team.id ~ body.team.name"), 1);
        assert_eq!(body, json!({ "id": 5, "team": { "id": "T1", "name": "Ada Lovelace" } }));
    }
}
