//! The parts of the grammar that are read and checked, and that this version does not run.
//!
//! This table is the only list of them. `check` tells each use as a notice, and what would need such a
//! part answers with these words instead of doing something else. An engine that lands takes its lines
//! out.

use serde_json::Value;

use super::document::push_token;

/// A part of the grammar that this version does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it stands: an RFC 6901 pointer in which `*` is any one token.
    pub pointer: &'static str,
    /// When a value there is meant.
    pub when: When,
    /// What follows for the block it stands in.
    pub effect: Effect,
}

/// When a value is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Whatever it is.
    Written,
    /// It is one of these words.
    Word(&'static [&'static str]),
    /// It is a text that ends so.
    Ends(&'static str),
    /// It is a template in which one of these variables stands.
    Names(&'static [&'static str]),
}

/// What follows from a part that is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing else depends on it.
    Rests,
    /// What stands around it cannot be done without: it refuses.
    Refuses,
}

const fn rests(pointer: &'static str) -> Part {
    Part { pointer, when: When::Written, effect: Effect::Rests }
}

const fn refuses(pointer: &'static str) -> Part {
    Part { pointer, when: When::Written, effect: Effect::Refuses }
}

/// How times are written that the receiver of webhooks cannot read yet.
const UNREAD_TIMES: When = When::Word(&["epoch_micros", "http_date", "seconds", "millis", "minutes", "jwt_exp"]);
/// What `signed` may name that the receiver of webhooks cannot compute yet.
const UNCOMPUTED: When = When::Names(&[
    "path",
    "url_without_query",
    "url_decoded",
    "form",
    "form_sorted",
    "secret",
    "body_crc32",
    "headers_listed",
    "lines",
]);

/// Parts of definitions.
pub const INTEGRATION: &[Part] = &[
    refuses("/webhook/verify/digest"),
    refuses("/webhook/verify/ed25519"),
    refuses("/webhook/verify/ecdsa"),
    refuses("/webhook/verify/rsa"),
    refuses("/webhook/verify/jwt"),
    refuses("/webhook/verify/http_signature"),
    refuses("/webhook/verify/mtls"),
    refuses("/webhook/verify/all"),
    refuses("/webhook/verify/any"),
    refuses("/webhook/verify/plugin"),
    refuses("/webhook/verify/token/json"),
    refuses("/webhook/verify/token/form"),
    refuses("/webhook/verify/hmac/key/normalise"),
    refuses("/webhook/verify/hmac/key/derive"),
    refuses("/webhook/verify/hmac/key/id_header"),
    refuses("/webhook/verify/hmac/signature/query"),
    refuses("/webhook/verify/hmac/signature/json"),
    refuses("/webhook/verify/hmac/signature/form"),
    refuses("/webhook/verify/hmac/signature/*/query"),
    refuses("/webhook/verify/hmac/signature/*/json"),
    refuses("/webhook/verify/hmac/signature/*/form"),
    Part { pointer: "/webhook/verify/hmac/signature/header", when: When::Ends("*"), effect: Effect::Refuses },
    Part { pointer: "/webhook/verify/hmac/signature/*/header", when: When::Ends("*"), effect: Effect::Refuses },
    Part { pointer: "/webhook/verify/hmac/timestamp/unit", when: UNREAD_TIMES, effect: Effect::Refuses },
    Part { pointer: "/webhook/verify/hmac/signed", when: UNCOMPUTED, effect: Effect::Refuses },
    refuses("/webhook/verify/hmac/lines"),
    refuses("/webhook/verify/hmac/listed_headers"),
    refuses("/webhook/verify/hmac/body_digest"),
    refuses("/webhook/require"),
    refuses("/webhook/batch"),
    refuses("/webhook/sources"),
    refuses("/webhook/acknowledge"),
    refuses("/webhook/handshake/*/secret"),
    refuses("/webhook/handshake/*/confirm"),
    refuses("/webhook/handshake/*/reply/digest"),
    rests("/webhook/occurred_at"),
    rests("/syncs"),
    refuses("/rules/*/do/*/run"),
];

/// What definitions call blocks of the grammar under `features`.
const FEATURES: &[(&str, &[&str])] = &[
    (
        "/webhook",
        &[
            "Webhooks",
            "Event webhook",
            "Event hooks",
            "Events API",
            "EventSub",
            "SNS",
            "Interactions",
            "Connect",
            "Log streams",
            "Push channels",
            "Change notifications",
            "Account Activity",
        ],
    ),
    ("/syncs", &["Sync"]),
];

/// Parts of the gateway file.
pub const GATEWAY: &[Part] = &[refuses("/state/postgres"), rests("/plugins"), refuses("/rules/*/do/*/run")];

impl Part {
    /// Its name, as in `auth.oauth2`.
    pub fn name(&self) -> String {
        let tokens: Vec<_> = self.pointer.split('/').skip(1).filter(|token| *token != "*").collect();
        tokens.join(".")
    }

    /// The pointers of its uses in a document.
    pub fn uses(&self, document: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let tokens: Vec<_> = self.pointer.split('/').skip(1).collect();
        descend(document, &tokens, &mut String::new(), &mut |value, pointer| {
            if self.when.means(value) {
                found.push(pointer.to_owned());
            }
        });
        found
    }
}

impl When {
    fn means(self, value: &Value) -> bool {
        match self {
            Self::Written => true,
            Self::Word(words) => value.as_str().is_some_and(|text| words.contains(&text)),
            Self::Ends(end) => value.as_str().is_some_and(|text| text.ends_with(end)),
            Self::Names(names) => value.as_str().is_some_and(|source| {
                crate::template::Text::compile(source).is_ok_and(|text| {
                    text.names().iter().any(|name| names.contains(&name.split('.').next().unwrap_or(name)))
                })
            }),
        }
    }
}

fn descend(value: &Value, tokens: &[&str], pointer: &mut String, found: &mut dyn FnMut(&Value, &str)) {
    let Some((token, rest)) = tokens.split_first() else {
        found(value, pointer);
        return;
    };
    let mut below = |key: &str, value: &Value| {
        let length = pointer.len();
        push_token(pointer, key);
        descend(value, rest, pointer, found);
        pointer.truncate(length);
    };
    match value {
        Value::Object(map) if *token != "*" => {
            if let Some(value) = map.get(*token) {
                below(token, value);
            }
        }
        Value::Array(items) if *token == "*" => {
            for (index, item) in items.iter().enumerate() {
                below(&index.to_string(), item);
            }
        }
        _ => {}
    }
}

/// The first part of a definition under a pointer without which what stands there cannot be done.
pub fn first_refusal(document: &Value, below: &str) -> Option<String> {
    let refusing = INTEGRATION.iter().filter(|part| part.effect == Effect::Refuses && part.pointer.starts_with(below));
    refusing.filter(|part| !part.uses(document).is_empty()).map(Part::name).next()
}

/// Whether this version runs what a definition calls by this name under `features`.
pub fn is_run(feature: &str, document: &Value) -> bool {
    let named = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(feature.trim()));
    let mut blocks = FEATURES.iter().filter(|(_, names)| named(names)).map(|(block, _)| *block);
    blocks.all(|block| INTEGRATION.iter().all(|part| part.pointer != block) && first_refusal(document, block).is_none())
}

/// The parts of a gateway file without which the program would do something else than the file says, so
/// that it does not start.
pub fn gateway_refusals(document: &Value) -> Vec<String> {
    let refusing = GATEWAY.iter().filter(|part| part.effect == Effect::Refuses);
    refusing.filter(|part| !part.uses(document).is_empty()).map(Part::name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn uses_are_found_in_maps_and_lists() {
        let document = json!({ "syncs": [], "rules": [{ "do": [{ "log": "a" }, { "run": "b" }] }] });
        let found: Vec<_> = INTEGRATION.iter().flat_map(|part| part.uses(&document)).collect();
        assert_eq!(found, ["/syncs", "/rules/0/do/1/run"]);
        assert_eq!(
            INTEGRATION.iter().find(|part| part.pointer.ends_with("*/run")).map(Part::name),
            Some("rules.do.run".into())
        );
    }

    #[test]
    fn a_webhook_that_needs_more_refuses() {
        let webhook = |verify: Value| first_refusal(&json!({ "webhook": { "verify": verify } }), "/webhook");
        assert_eq!(webhook(json!({ "hmac": { "signed": "{{ timestamp }}.{{ body }}" } })), None);
        assert_eq!(
            webhook(json!({ "hmac": { "signed": "{{ form_sorted }}" } })).as_deref(),
            Some("webhook.verify.hmac.signed")
        );
        assert_eq!(webhook(json!({ "jwt": {} })).as_deref(), Some("webhook.verify.jwt"));
    }

    #[test]
    fn a_feature_is_run_where_the_block_that_it_names_is() {
        let jwt = json!({ "webhook": { "verify": { "jwt": {} } } });
        let hmac = json!({ "webhook": { "verify": { "hmac": {} } } });
        let run = |document: &Value| ["OAuth", "Webhooks", "webhooks", "Sync"].map(|name| is_run(name, document));
        assert_eq!((run(&jwt), run(&hmac)), ([true, false, false, false], [true, true, true, false]));
    }

    #[test]
    fn an_entry_whose_webhooks_are_not_taken_has_a_feature_that_says_so() {
        use crate::definition::catalogue::{Listing, entry, ids};
        for document in ids().filter_map(entry).map(super::super::catalogue::Entry::document) {
            let (listing, refused) = (Listing::of(&document), first_refusal(&document.value, "/webhook"));
            let told = listing.not_yet.iter().any(|feature| *feature != "Sync");
            assert_eq!(refused.is_some(), told, "{listing:?}: {refused:?}");
        }
    }

    #[test]
    fn every_line_of_the_table_names_a_place_of_the_grammar() {
        for (schema, parts) in
            [(super::super::schema::integration(), INTEGRATION), (super::super::schema::gateway(), GATEWAY)]
        {
            for part in parts {
                assert!(known(schema, schema, part.pointer), "{} is not in the grammar", part.pointer);
            }
        }
    }

    fn known(root: &Value, schema: &Value, pointer: &str) -> bool {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            return root.pointer(target.trim_start_matches('#')).is_some_and(|target| known(root, target, pointer));
        }
        let Some(rest) = pointer.strip_prefix('/') else { return true };
        let (token, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let below =
            if token == "*" { schema.get("items") } else { schema.get("properties").and_then(|p| p.get(token)) };
        below.is_some_and(|below| known(root, below, rest))
    }
}
