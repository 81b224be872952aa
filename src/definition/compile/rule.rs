//! The `rules` block, compiled.

use super::not_run;
use super::place::{Fault, Place};
use crate::base::backoff::Backoff;
use crate::definition::plan::rule::{Action, Glob, LogLevel, Retry, Rule, What};
use crate::definition::problem::Code;
use crate::definition::raw::limits::DeliveryRetry;
use crate::definition::raw::rule as raw;
use crate::template::Tree;

/// The connection that `call` uses when it names none.
const DEFAULT_CONNECTION: &str = "default";

pub(super) fn compile_all(rules: &[raw::Rule], place: &Place<'_>) -> Result<Vec<Rule>, Fault> {
    rules.iter().enumerate().map(|(index, rule)| compile(rule, &place.item(index))).collect()
}

fn compile(rule: &raw::Rule, place: &Place<'_>) -> Result<Rule, Fault> {
    let actions = place.at("do");
    let action = |(index, raw): (usize, &raw::Action)| {
        let retry = raw.retry.or(rule.retry);
        action(raw, retry, &actions.item(index))
    };
    Ok(Rule {
        id: rule.id.0.as_str().into(),
        when: rule.when.0.iter().map(|glob| Glob::new(glob)).collect(),
        condition: place.optional("if", rule.condition.as_ref())?,
        actions: rule.actions.0.iter().enumerate().map(action).collect::<Result<_, _>>()?,
    })
}

fn action(raw: &raw::Action, own_retry: Option<DeliveryRetry>, place: &Place<'_>) -> Result<Action, Fault> {
    let what = match (&raw.call, &raw.deliver, &raw.run, &raw.log) {
        (Some(call), None, None, None) => {
            let (integration, endpoint) = call.0.split_once('.').unwrap_or((&call.0, ""));
            let input = raw.input.as_ref().map(|input| place.at("input").trees(input)).transpose()?;
            What::Call {
                integration: integration.into(),
                endpoint: endpoint.into(),
                connection: raw.connection.as_ref().map_or(DEFAULT_CONNECTION, |id| &id.0).into(),
                input: Tree::Map(input.unwrap_or_default()),
            }
        }
        (None, Some(destination), None, None) => What::Deliver {
            destination: destination.0.as_str().into(),
            json: raw.json.as_ref().map(|json| place.at("json").tree(json)).transpose()?,
            headers: place.at("headers").headers(&raw.headers)?,
        },
        (None, None, Some(_), None) => match not_run(&place.at("run")) {
            Some(not_yet) => What::NotYet(not_yet),
            None => return Err(place.problem(Code::Conflict, "plugins cannot be run")),
        },
        (None, None, None, Some(message)) => {
            What::Log { level: level(raw.level), message: place.at("log").text(message)? }
        }
        _ => return Err(place.problem(Code::Conflict, "an action has exactly one of `call`, `deliver`, `run`, `log`")),
    };
    Ok(Action { what, retry: own_retry.map(retry), timeout: raw.timeout.map(|timeout| timeout.0) })
}

/// What a file says of retries, over the usual.
pub(super) fn retry(raw: DeliveryRetry) -> Retry {
    let usual = Retry::default();
    Retry {
        attempts: raw.attempts.unwrap_or(usual.attempts).max(1),
        backoff: Backoff {
            base: raw.backoff.map_or(usual.backoff.base, |time| time.0),
            cap: raw.max_backoff.map_or(usual.backoff.cap, |time| time.0),
        },
    }
}

fn level(raw: Option<raw::Level>) -> LogLevel {
    match raw {
        Some(raw::Level::Debug) => LogLevel::Debug,
        None | Some(raw::Level::Info) => LogLevel::Info,
        Some(raw::Level::Warn) => LogLevel::Warn,
        Some(raw::Level::Error) => LogLevel::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::compiled;
    use super::*;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn rule(rule: &Value) -> Result<Rule, Fault> {
        compiled(json!({ "trunkline": 1, "id": "a", "rules": [rule] }))
            .map(|mut integration| integration.rules.remove(0))
    }

    #[test]
    fn actions_take_the_rules_retry_unless_they_have_their_own() {
        let actions = json!([{ "deliver": "app" }, { "log": "x", "retry": { "attempts": 1 } }]);
        let rule = rule(&json!({ "id": "r", "when": "*", "do": actions, "retry": { "attempts": 9, "backoff": "1s" } }));
        let rule = rule.expect("compiles");
        let tries: Vec<_> = rule.actions.iter().map(|action| action.retry.map(|retry| retry.attempts)).collect();
        assert_eq!(tries, [Some(9), Some(1)]);
        assert_eq!(rule.actions[0].retry.map(|retry| retry.backoff.base), Some(Duration::from_secs(1)));
        assert!(rule.is_for("anything"));
    }

    #[test]
    fn calls_name_their_endpoint_and_connection() {
        let rule = rule(
            &json!({ "id": "r", "when": ["a", "b"], "do": [{ "call": "slack.post", "input": { "x": "{{ body.y }}" } }] }),
        );
        let rule = rule.expect("compiles");
        let What::Call { integration, endpoint, connection, input } = &rule.actions[0].what else { panic!("a call") };
        assert_eq!((&**integration, &**endpoint, &**connection), ("slack", "post", "default"));
        assert!(input.names().contains("body.y") && rule.is_for("b") && !rule.is_for("c"));
    }

    #[test]
    fn an_action_does_one_thing() {
        assert!(rule(&json!({ "id": "r", "when": "*", "do": [{ "call": "a.b", "log": "x" }] })).is_err());
        assert!(rule(&json!({ "id": "r", "when": "*", "do": [{}] })).is_err());
        let run = rule(&json!({ "id": "r", "when": "*", "do": [{ "run": { "name": "p" } }] })).expect("compiles");
        assert!(matches!(&run.actions[0].what, What::NotYet(part) if part.part == "rules.do.run"));
    }
}
