//! Rules, of a definition and of the gateway file: one action does one thing, and events that a rule waits for come.

use serde_json::Value;

use super::Findings;
use crate::definition::plan::rule::Glob;
use crate::definition::problem::Code;
use crate::definition::raw::rule::{Action, Rule};
use crate::definition::suggest::nearest;
use crate::telemetry::notice::Kind;

/// What is wrong with rules wherever they stand.
pub(super) fn check(rules: &[Rule], found: &mut Findings<'_>) {
    found.duplicates("/rules", "rules", rules.iter().map(|rule| rule.id.0.as_str()));
    for (index, rule) in rules.iter().enumerate() {
        self::rule(rule, &format!("/rules/{index}"), found);
    }
}

/// Rules for events that the service is not said to send.
pub(super) fn sent(rules: &[Rule], events: &[String], found: &mut Findings<'_>) {
    if events.is_empty() {
        return;
    }
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    for (at, wanted) in unmet(rules, &events, found) {
        let message = format!("`{wanted}` matches none of the events that `webhook.events` lists");
        let problem = found.warning(Code::UnknownName, &at, message);
        problem.suggestion = nearest(wanted, events.iter().copied());
        problem.help = Some("The rule runs when such an event comes; add it to the list if it does.".to_owned());
    }
}

/// Rules of the gateway file for events that the gateway does not have.
pub(super) fn own(rules: &[Rule], found: &mut Findings<'_>) {
    let events = Kind::ALL.map(Kind::word);
    for (at, wanted) in unmet(rules, &events, found) {
        let message = format!("`{wanted}` matches none of the gateway's own events");
        let problem = found.error(Code::UnknownName, &at, message);
        problem.suggestion = nearest(wanted, events.iter().copied());
        problem.help =
            Some(format!("They are `{}`. Events of services are matched in their own files.", events.join("`, `")));
    }
}

/// The patterns of rules that match none of these events, with their places.
fn unmet<'r>(rules: &'r [Rule], events: &[&str], found: &Findings<'_>) -> Vec<(String, &'r str)> {
    let mut unmet = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("/rules/{index}/when");
        let is_list = found.document.value.pointer(&found.left_out.in_file(&at)).is_some_and(Value::is_array);
        for (place, wanted) in rule.when.0.iter().enumerate() {
            let glob = Glob::new(wanted);
            if events.iter().all(|event| !glob.matches(event)) {
                unmet.push((if is_list { format!("{at}/{place}") } else { at.clone() }, wanted.as_str()));
            }
        }
    }
    unmet
}

fn rule(rule: &Rule, at: &str, found: &mut Findings<'_>) {
    for (index, glob) in rule.when.0.iter().enumerate() {
        if glob.trim().is_empty() || glob.contains(char::is_whitespace) {
            let listed = found.document.value.pointer(&format!("{at}/when")).is_some_and(Value::is_array);
            let glob_at = if listed { format!("{at}/when/{index}") } else { format!("{at}/when") };
            found.error(Code::BadFormat, &glob_at, "an event type is one word, in which `*` stands for any text");
        }
    }
    for (index, action) in rule.actions.0.iter().enumerate() {
        self::action(action, &format!("{at}/do/{index}"), found);
    }
}

fn action(action: &Action, at: &str, found: &mut Findings<'_>) {
    let kinds = [
        ("call", action.call.is_some()),
        ("deliver", action.deliver.is_some()),
        ("run", action.run.is_some()),
        ("log", action.log.is_some()),
    ];
    let written: Vec<&str> = kinds.iter().filter(|(_, written)| *written).map(|(name, _)| *name).collect();
    let [kind] = written[..] else {
        let message = match written[..] {
            [] => "an action says what to do: `call`, `deliver`, `run` or `log`".to_owned(),
            _ => format!("an action does one thing, and this one has `{}`", written.join("` and `")),
        };
        found.error(if written.is_empty() { Code::MissingField } else { Code::Conflict }, at, message);
        return;
    };
    let parts = [
        ("connection", action.connection.is_some(), "call"),
        ("input", action.input.is_some(), "call"),
        ("json", action.json.is_some(), "deliver"),
        ("headers", !action.headers.is_empty(), "deliver"),
        ("level", action.level.is_some(), "log"),
    ];
    for (part, written, owner) in parts {
        if written && owner != kind {
            found.error(
                Code::Conflict,
                &format!("{at}/{part}"),
                format!("`{part}` goes with `{owner}`, not with `{kind}`"),
            );
        }
    }
}
