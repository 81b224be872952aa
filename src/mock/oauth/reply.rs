//! A token answer that the definition's own expressions read as they should.
//!
//! The expressions say where an answer holds its tokens, its expiry and what the gateway keeps. Each is
//! solved backwards: the place that it reads gets the value, and then it is evaluated, so that an answer
//! which it would not understand is never sent. Called by `token` and `introspect`.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

use crate::base::clock::Timestamp;
use crate::definition::plan::moment::{Moment, MomentUnit};
use crate::mock::paths::{Read, Step, reads};
use crate::mock::shape::{self, Existing};
use crate::respond::Answer;
use crate::template::{Context, Expr};

/// An answer in the making.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: StatusCode,
    headers: Vec<(String, String)>,
    body: Value,
}

/// An expression for which no answer was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the simulation finds no answer of which `{0}` gives what it should: a sample of the answer may help")]
pub(super) struct Unsolved(pub String);

impl Reply {
    /// An empty answer of this status.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Value::Null }
    }

    /// The answer.
    pub fn answer(self) -> Answer {
        let body = if self.body.is_null() { Value::Object(Map::new()) } else { self.body };
        let no_store = (http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let own = self.headers.iter().filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        });
        let answer = if self.status == StatusCode::NO_CONTENT {
            Answer::empty(self.status)
        } else {
            Answer::json(self.status, &body)
        };
        own.chain([no_store]).fold(answer, |answer, (name, value)| answer.with(name, value))
    }

    fn context(&self) -> Context {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Context::new()
            .with_json("body", &self.body)
            .with_headers("headers", headers)
            .with("status", i64::from(self.status.as_u16()))
    }

    /// Gives a place a value; false for a place that answers do not have.
    pub fn put(&mut self, read: &Read, value: Value, existing: Existing) -> bool {
        match (read.root.as_str(), read.steps.as_slice()) {
            ("body", steps) => {
                let whole = steps.is_empty() && self.body.is_object();
                if !whole {
                    shape::put(&mut self.body, steps, value, existing);
                }
                !whole
            }
            ("headers", [Step::Key(name)]) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                self.headers.retain(|(known, _)| known != name);
                self.headers.push((name.clone(), text));
                true
            }
            ("status", []) => {
                let code = value.as_u64().and_then(|code| u16::try_from(code).ok());
                self.status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(self.status);
                true
            }
            _ => false,
        }
    }

    /// Whether an expression reads the answer at all; others are the business of other answers.
    pub fn concerns(expr: &Expr) -> bool {
        reads(expr.source()).iter().any(|read| matches!(read.root.as_str(), "body" | "headers"))
    }

    /// Makes `expr` give `wanted`.
    pub fn solve(&mut self, expr: &Expr, wanted: &Value) -> Result<(), Unsolved> {
        let found = reads(expr.source());
        let fits = |reply: &Self| expr.json(&reply.context()).is_ok_and(|value| same(&value, wanted));
        for read in &found {
            for value in candidates(expr, read, wanted, self) {
                let mut tried = self.clone();
                if tried.put(read, value, Existing::Replace) && fits(&tried) {
                    *self = tried;
                    return Ok(());
                }
            }
        }
        if fits(self) { Ok(()) } else { Err(Unsolved(expr.source().to_owned())) }
    }

    /// Makes a moment be this one, as far as its unit tells it.
    pub fn solve_moment(&mut self, moment: &Moment, at: Timestamp, now: Timestamp) -> Result<(), Unsolved> {
        let left = at.since(now);
        let wanted = match moment.unit {
            MomentUnit::EpochSeconds => Value::from(at.seconds()),
            MomentUnit::EpochMillis => Value::from(at.millis()),
            MomentUnit::EpochMicros => Value::from(at.millis() * 1_000),
            MomentUnit::Rfc3339 => Value::from(at.to_string()),
            MomentUnit::HttpDate => {
                Value::from(httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_secs(at.seconds())))
            }
            MomentUnit::AfterSeconds => Value::from(left.as_secs()),
            MomentUnit::AfterMillis => Value::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            MomentUnit::AfterMinutes => Value::from(left.as_secs() / 60),
            // The token itself tells; it has been made so.
            MomentUnit::JwtExp => return Ok(()),
        };
        self.solve(&moment.value, &wanted)
    }

    /// Makes a condition hold, or not hold. What is there already stays where that is enough.
    pub fn decide(&mut self, condition: &Expr, wanted: bool) -> Result<(), Unsolved> {
        let decided = |reply: &Self| condition.holds(&reply.context()) == Ok(wanted);
        if decided(self) {
            return Ok(());
        }
        let found = reads(condition.source());
        // Every compared place at once first, for conditions joined by `and`; then each alone.
        let all = std::iter::once(found.as_slice());
        for chosen in all.chain(found.iter().map(std::slice::from_ref)) {
            let mut tried = self.clone();
            for read in chosen {
                tried.put(read, decided_value(read, wanted), Existing::Replace);
            }
            if decided(&tried) {
                *self = tried;
                return Ok(());
            }
        }
        Err(Unsolved(condition.source().to_owned()))
    }

    /// Gives what an expression reads these words, where there is nothing yet.
    pub fn fill_with(&mut self, expr: &Expr, words: &str) {
        for read in reads(expr.source()).iter().filter(|read| !read.steps.is_empty()) {
            self.put(read, Value::from(words), Existing::Keep);
        }
    }

    /// A field of the body that is there only when nothing else is at its place.
    pub fn field(&mut self, name: &str, value: Value) {
        let read = Read { root: "body".to_owned(), steps: vec![Step::Key(name.to_owned())], equals: None };
        self.put(&read, value, Existing::Keep);
    }
}

/// What a compared place must be for its condition to come out so.
fn decided_value(read: &Read, wanted: bool) -> Value {
    match (&read.equals, wanted) {
        (Some(value), true) => value.clone(),
        (None, true) => Value::Bool(true),
        (Some(Value::Bool(value)), false) => Value::Bool(!value),
        (Some(Value::Number(number)), false) if read.root == "status" => {
            Value::from(if number.as_u64() == Some(400) { 500 } else { 400 })
        }
        (Some(Value::Number(number)), false) => Value::from(number.as_i64().unwrap_or(0) + 1),
        (Some(_), false) => Value::from("no"),
        (None, false) => Value::Bool(false),
    }
}

/// What a place may have to be for the expression to give what is wanted: that itself, and for numbers
/// what is worked out from a trial, as in `body.minutes * 60`.
fn candidates(expr: &Expr, read: &Read, wanted: &Value, reply: &Reply) -> Vec<Value> {
    let mut values = vec![wanted.clone()];
    if let Some(number) = wanted.as_f64() {
        let mut trial = reply.clone();
        trial.put(read, Value::from(60), Existing::Replace);
        let given = expr.json(&trial.context()).ok().and_then(|value| value.as_f64()).filter(|value| *value != 0.0);
        #[expect(clippy::cast_possible_truncation, reason = "lifetimes are small whole numbers")]
        values.extend(given.map(|given| Value::from((number * 60.0 / given).round() as i64)));
        values.push(Value::from(wanted.to_string()));
    }
    values
}

fn same(given: &Value, wanted: &Value) -> bool {
    match (given.as_f64(), wanted.as_f64()) {
        (Some(given), Some(wanted)) => (given - wanted).abs() < 0.5,
        _ => given == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn expr(source: &str) -> Expr {
        Expr::compile(source).expect("an expression")
    }

    fn solved(source: &str, wanted: &Value) -> Result<Value, Unsolved> {
        let mut reply = Reply::new(StatusCode::OK);
        reply.solve(&expr(source), wanted).map(|()| reply.body)
    }

    #[test]
    fn a_value_is_put_where_the_expression_looks() {
        let token = json!("t");
        assert_eq!(
            solved("body.authed_user.access_token", &token),
            Ok(json!({ "authed_user": { "access_token": "t" } }))
        );
        assert_eq!(solved("body.data[0].token", &token), Ok(json!({ "data": [{ "token": "t" }] })));
        assert_eq!(solved("body.a or body.b", &token), Ok(json!({ "a": "t" })));
        assert_eq!(solved("body.minutes * 60", &json!(3_600)), Ok(json!({ "minutes": 60 })));
        assert_eq!(solved("body.text | int", &json!(3_600)), Ok(json!({ "text": 3_600 })));
        assert!(solved("body.token | upper", &token).is_err());
        let mut reply = Reply::new(StatusCode::OK);
        reply.solve(&expr("headers['x-token']"), &token).expect("solved");
        assert_eq!(reply.answer().headers[1].1, "t");
    }

    #[test]
    fn a_condition_is_made_to_hold_and_not_to_hold() {
        for source in ["body.ok", "body.result == '0000'", "status == 201", "body.code == 0 and status == 200"] {
            for wanted in [true, false] {
                let mut reply = Reply::new(StatusCode::OK);
                reply.decide(&expr(source), wanted).unwrap_or_else(|error| panic!("{source} {wanted}: {error}"));
                assert_eq!(expr(source).holds(&reply.context()), Ok(wanted), "{source}");
            }
        }
        let mut reply = Reply::new(StatusCode::OK);
        reply.field("access_token", json!("t"));
        reply.decide(&expr("body.access_token"), true).expect("holds");
        assert_eq!(reply.body, json!({ "access_token": "t" }), "what is there and enough stays");
    }

    #[test]
    fn moments_are_written_in_their_unit() {
        let (now, at) = (Timestamp::from_seconds(1_769_853_600), Timestamp::from_seconds(1_769_857_200));
        for (unit, wanted) in [
            (MomentUnit::EpochMillis, json!(1_769_857_200_000_u64)),
            (MomentUnit::Rfc3339, json!("2026-01-31T11:00:00.000Z")),
            (MomentUnit::HttpDate, json!("Sat, 31 Jan 2026 11:00:00 GMT")),
            (MomentUnit::AfterMinutes, json!(60)),
        ] {
            let mut reply = Reply::new(StatusCode::OK);
            reply.solve_moment(&Moment { value: expr("body.e"), unit }, at, now).expect("solved");
            assert_eq!(reply.body, json!({ "e": wanted }), "{unit:?}");
        }
    }
}
