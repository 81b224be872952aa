//! What people are told of a service.

use std::sync::Arc;

use serde_json::Value;

use crate::definition::catalogue;
use crate::definition::not_yet;
use crate::definition::plan::about::About;
use crate::definition::raw::integration::{Integration, Pricing};

pub(super) fn compile(raw: &Integration, document: &Value) -> About {
    let (features, not_yet) = raw.features.iter().cloned().partition(|feature| not_yet::is_run(feature, document));
    About {
        summary: raw.summary.clone(),
        category: raw.category.clone(),
        features,
        not_yet,
        docs: raw.docs.as_ref().map(|docs| docs.0.clone()),
        pricing: raw.pricing.map(|pricing| match pricing {
            Pricing::Free => "free",
            Pricing::Freemium => "freemium",
            Pricing::Paid => "paid",
        }),
        logo: raw.logo.as_deref().map(Into::into),
        featured: raw.featured,
        entry: entry(raw, document),
    }
}

/// The catalogue's entry that a document is, where it changes nothing of it.
fn entry(raw: &Integration, document: &Value) -> Option<Arc<str>> {
    let name = raw.extends.as_ref().unwrap_or(&raw.id).0.as_str();
    let entry = catalogue::entry(name)?.document();
    is_kept(&entry.value, document, &[]).then(|| name.into())
}

/// Whether a document says what an entry says, and more only where it is a deployment's own.
fn is_kept(entry: &Value, here: &Value, path: &[&str]) -> bool {
    let (Value::Object(entry), Value::Object(here)) = (entry, here) else { return entry == here };
    let kept = |(key, value): (&String, &Value)| {
        let below: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
        is_own(&below) || here.get(key).is_some_and(|here| is_kept(value, here, &below))
    };
    let added = |key: &String| {
        let below: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
        entry.contains_key(key) || is_own(&below)
    };
    entry.iter().all(kept) && here.keys().all(added)
}

/// Whether what stands there says nothing of the service.
fn is_own(path: &[&str]) -> bool {
    matches!(
        path,
        ["trunkline" | "id" | "extends" | "title" | "featured" | "connections" | "rules"]
            | ["auth", "oauth2" | "oauth1", "client"]
            | ["webhook", "secrets"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_a_deployments_own_may_differ() {
        let entry =
            json!({ "id": "a", "api": { "base_url": "https://a.example" }, "auth": { "oauth2": { "token": "t" } } });
        let with = |change: &dyn Fn(&mut Value)| {
            let mut here = entry.clone();
            change(&mut here);
            is_kept(&entry, &here, &[])
        };
        assert!(
            with(&|_| {}) && with(&|here| here["id"] = json!("b")) && with(&|here| here["connections"] = json!([]))
        );
        assert!(with(&|here| here["auth"]["oauth2"]["client"] = json!({ "id": "x" })));
        assert!(with(&|here| here["webhook"] = json!({ "secrets": [] })) == with(&|here| here["webhook"] = json!({})));
        assert!(!with(&|here| here["api"]["base_url"] = json!("https://b.example")));
        assert!(!with(&|here| here["auth"]["oauth2"]["scopes"] = json!([])));
        assert!(!with(&|here| here["api"] = json!({})));
        assert!(with(&|here| here["title"] = json!("A of the shop")) && !with(&|here| here["logo"] = json!("<svg/>")));
    }
}
