//! From an event to its deliveries: which rules are for it, and what they ask for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::content::Seen;
use super::job::{Again, Report};
use super::{apart, durable, identity};
use crate::base::clock::Timestamp;
use crate::definition::plan::Integration;
use crate::definition::plan::rule::{Action, Rule, What};
use crate::store::model::{Event, EventHead, Lane, NO_RULE, PlannedDelivery};
use crate::template::Expr;

/// The deliveries that an integration's rules ask for, where an event's head is enough to tell: `None` when a
/// rule that is for it has a condition, for what may be a durable call, and for what nobody could tell when it came.
pub fn plan_by_head(integration: &Integration, head: &EventHead, now: Timestamp) -> Option<Vec<PlannedDelivery>> {
    if durable::may_be(&head.event_type) || head.event_type == identity::UNTOLD {
        return None;
    }
    let rules = || integration.rules.iter().filter(|rule| rule.is_for(&head.event_type));
    let told = rules().all(|rule| rule.condition.is_none());
    told.then(|| rules().flat_map(|rule| deliveries(integration, rule, now)).collect())
}

/// The deliveries that an integration's rules ask for, in the order they are written. A rule whose `if`
/// cannot be decided is planned all the same: its deliveries find out why and say so in the dead-letter
/// list, from where they can be replayed.
///
/// # Errors
/// Why nobody can tell what event it is, in words.
pub fn plan(integration: &Integration, event: &Arc<Event>, now: Timestamp) -> Result<Vec<PlannedDelivery>, String> {
    if let Some(plan) = durable::plan(event, now) {
        return Ok(plan);
    }
    let event = &identity::of_stored(integration, event)?;
    let rules: Vec<&Rule> = integration.rules.iter().filter(|rule| rule.is_for(&event.head.event_type)).collect();
    let names: BTreeSet<String> =
        rules.iter().filter_map(|rule| rule.condition.as_ref()).flat_map(Expr::names).collect();
    let seen = Seen::of(event, names);
    let wants = |rule: &&Rule| {
        let Some(condition) = &rule.condition else { return true };
        match decided(condition, &seen) {
            // What another rule asks for cannot be read: each is decided by what it asks for itself, which reads the body
            // once for each.
            Err(_) => apart(|| holds(rule, event)).is_none_or(|held| held.unwrap_or(true)),
            Ok(held) => held,
        }
    };
    Ok(rules.into_iter().filter(wants).flat_map(|rule| deliveries(integration, rule, now)).collect())
}

/// Whether a rule's condition holds for an event that is its own, read as far as the condition asks. `None` where there
/// is none.
///
/// # Errors
/// Why it cannot be decided, in words.
pub fn holds(rule: &Rule, event: &Arc<Event>) -> Option<Result<bool, String>> {
    let condition = rule.condition.as_ref()?;
    Some(decided(condition, &Seen::of(event, condition.names())))
}

/// A body that cannot be read decides nothing, whatever a condition makes of what is missing.
fn decided(condition: &Expr, seen: &Seen) -> Result<bool, String> {
    let held = condition.holds(&seen.context).map_err(|error| seen.explain(&error))?;
    seen.unread().map_or(Ok(held), |unread| Err(unread.to_string()))
}

fn deliveries<'a>(
    integration: &'a Integration,
    rule: &'a Rule,
    now: Timestamp,
) -> impl Iterator<Item = PlannedDelivery> + 'a {
    (0_u16..).zip(&rule.actions).map(move |(place, action)| PlannedDelivery {
        rule: rule.id.to_string(),
        action: place,
        summary: summary(action),
        lane: lane(integration, action),
        due: now,
    })
}

/// A delivery that only tells why the rules could not be matched.
pub fn unmatched(integration: &str, why: &str, now: Timestamp) -> PlannedDelivery {
    PlannedDelivery {
        rule: NO_RULE.to_owned(),
        action: 0,
        summary: format!("match the rules of {integration}: {why}"),
        lane: Lane::matching(),
        due: now,
    }
}

/// What is said of a try for an integration that is not loaded.
pub fn unloaded(integration: &str) -> Report {
    let error = format!(
        "the integration `{integration}` is not loaded: it was removed, or its file has faults that `trunkline check` shows"
    );
    Report::failed(None, error, Again::Scheduled)
}

/// An action in words.
pub fn summary(action: &Action) -> String {
    match &action.what {
        What::Call { integration, endpoint, .. } => format!("call {integration}.{endpoint}"),
        What::Deliver { destination, .. } => format!("deliver {destination}"),
        What::Log { .. } => "log".to_owned(),
        What::NotYet(part) => format!("{} (not yet run)", part.part),
    }
}

/// What an action competes for.
fn lane(integration: &Integration, action: &Action) -> Lane {
    Lane(match &action.what {
        What::Call { integration, .. } => format!("integration:{integration}").into(),
        What::Deliver { destination, .. } => format!("destination:{destination}").into(),
        What::Log { .. } | What::NotYet(_) => format!("log:{}", integration.id).into(),
    })
}

/// The label of an action in metrics.
pub fn label(action: &Action) -> &'static str {
    match &action.what {
        What::Call { .. } => "call",
        What::Deliver { .. } => "deliver",
        What::Log { .. } => "log",
        What::NotYet(_) => "run",
    }
}
