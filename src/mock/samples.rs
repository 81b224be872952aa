//! Sample bodies of the catalogue's events and answers, in the services' own shape.
//!
//! They follow each service's documentation in form, with made-up names and ids. The key is the
//! catalogue's id and the event type, or the method and path. Called by `draft` and `route`.

use serde_json::Value;

macro_rules! samples {
    ($($integration:literal $event:literal;)+) => {
        const SAMPLES: &[(&str, &str, &str)] = &[$(
            ($integration, $event, include_str!(concat!("samples/", $integration, "/", $event, ".json"))),
        )+];
    };
}

samples! {
    "github" "push";
    "github" "pull_request.opened";
    "github" "pull_request.closed";
    "github" "issues.opened";
    "github" "ping";
    "stripe" "payment_intent.succeeded";
    "stripe" "customer.subscription.updated";
    "stripe" "invoice.payment_failed";
    "slack" "message";
    "slack" "app_mention";
    "slack" "reaction_added";
    "slack" "url_verification";
    "google" "sync";
    "google" "exists";
    "google" "not_exists";
}

const ANSWERS: &[(&str, &str, &str)] = &[
    ("github", "GET /user", include_str!("samples/github/user.answer.json")),
    ("github", "GET /user/repos", include_str!("samples/github/repos.answer.json")),
    ("stripe", "GET /v1/balance", include_str!("samples/stripe/balance.answer.json")),
    ("stripe", "POST /v1/webhook_endpoints", include_str!("samples/stripe/webhook_endpoint.answer.json")),
    ("stripe", "POST /v1/customers", include_str!("samples/stripe/customer.answer.json")),
    ("slack", "POST /auth.test", include_str!("samples/slack/auth.test.answer.json")),
    ("google", "GET /oauth2/v2/userinfo", include_str!("samples/google/userinfo.answer.json")),
];

/// The sample for an event of a service, when there is one.
pub(super) fn event(integration: &str, event: &str) -> Option<Value> {
    read(SAMPLES, integration, event)
}

/// The sample for an answer of a service to a method and path, when there is one.
pub(super) fn answer(integration: &str, method: &http::Method, path: &str) -> Option<Value> {
    read(ANSWERS, integration, &format!("{method} {path}"))
}

fn read(from: &[(&str, &str, &str)], integration: &str, name: &str) -> Option<Value> {
    let (_, _, text) = from.iter().find(|(id, known, _)| *id == integration && *known == name)?;
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_json() {
        for (integration, name, text) in SAMPLES.iter().chain(ANSWERS) {
            let parsed = serde_json::from_str::<Value>(text);
            assert!(parsed.is_ok_and(|value| value.is_object() || value.is_array()), "{integration} {name}");
        }
    }
}
