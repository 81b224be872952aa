//! Webhooks that would take in more, or less, than their author means.

use super::Findings;
use crate::definition::compile::{BODY_MOST, DEDUPE_MOST};
use crate::definition::problem::Code;
use crate::definition::raw::scalar::{Signed, TimeUnit};
use crate::definition::raw::verify::{DigestAlgorithm, Hmac, Signature, Timestamp, Verify};
use crate::definition::raw::webhook::Webhook;
use crate::definition::templates::Templates;

/// The fewest bytes of a secret that protects.
const SECRET: usize = 16;

pub(super) fn check(webhook: &Webhook, found: &mut Findings<'_>, templates: &Templates) {
    let mut kinds = Kinds { found, templates };
    let needs_secret = kinds.verify(&webhook.verify, "/webhook/verify");
    secrets(webhook, needs_secret, found);
    if webhook.max_body.is_some_and(|size| size.0 > BODY_MOST) {
        found.error(Code::OutOfRange, "/webhook/max_body", "a body is at most 25MiB");
    }
    if webhook.dedupe_window.is_some_and(|time| time.0 > DEDUPE_MOST) {
        found.error(Code::OutOfRange, "/webhook/dedupe_window", "a delivery id is remembered for at most 30d");
    }
    if webhook.delivery_id.is_none() {
        let problem = found.warning(
            Code::Conflict,
            "/webhook/delivery_id",
            "without `delivery_id` a repeated delivery is a second event",
        );
        problem.help = Some("Name the sender's id of a delivery: a header or a field of the body.".to_owned());
    }
    for (index, handshake) in webhook.handshake.iter().enumerate() {
        let reply = &handshake.reply.0;
        let at = format!("/webhook/handshake/{index}/reply");
        if reply.text.is_some() && reply.json.is_some() {
            found.error(Code::Conflict, &at, "a reply has one body: `text` or `json`");
        }
        if reply.content_type.as_deref().is_some_and(|kind| kind.to_ascii_lowercase().contains("html")) {
            let problem = found.error(Code::Conflict, &format!("{at}/content_type"), "a reply is never HTML");
            problem.help = Some("What a stranger sends would run in a browser: use text/plain or JSON.".to_owned());
        }
    }
}

fn secrets(webhook: &Webhook, needed: bool, found: &mut Findings<'_>) {
    let listed = found.document.value.pointer("/webhook/secrets").is_some_and(serde_json::Value::is_array);
    if webhook.secrets.0.is_empty() && needed {
        let problem = found.warning(
            Code::MissingField,
            "/webhook/secrets",
            "this webhook has no secret, so it refuses every request",
        );
        problem.help = Some("Give one by reference: secrets: [\"${env:WEBHOOK_SECRET}\"]".to_owned());
    }
    for (index, secret) in webhook.secrets.0.iter().enumerate() {
        let at = if listed { format!("/webhook/secrets/{index}") } else { "/webhook/secrets".to_owned() };
        if secret.0.secret.0.expose().len() < SECRET {
            let problem = found.warning(Code::OutOfRange, &at, "this secret is shorter than 16 bytes");
            problem.help = Some("A short secret can be found by trying: let the service make a long one.".to_owned());
        }
        if !needed {
            found.warning(Code::Conflict, &at, "this kind of `verify` needs no secret");
        }
    }
    let ids = webhook.secrets.0.iter().filter_map(|secret| secret.0.id.as_ref()).map(|id| id.0.as_str());
    found.duplicates("/webhook/secrets", "secrets", ids);
}

struct Kinds<'f, 'a, 't> {
    found: &'f mut Findings<'a>,
    templates: &'t Templates,
}

impl Kinds<'_, '_, '_> {
    /// Checks a kind, and tells whether it needs a secret.
    fn verify(&mut self, verify: &Verify, at: &str) -> bool {
        match verify {
            Verify::Hmac(hmac) => {
                self.hmac(hmac, &format!("{at}/hmac"));
                true
            }
            Verify::Digest(digest) => {
                let at = format!("{at}/digest");
                self.signatures(&digest.signature.0, &at);
                self.signed(&digest.signed, digest.timestamp.as_ref(), &at);
                true
            }
            Verify::Ed25519(key) => self.public_key(key, &format!("{at}/ed25519")),
            Verify::Ecdsa(key) => self.public_key(key, &format!("{at}/ecdsa")),
            Verify::Rsa(key) => self.public_key(key, &format!("{at}/rsa")),
            Verify::Token(token) => {
                let places =
                    [token.header.is_some(), token.query.is_some(), token.json.is_some(), token.form.is_some()];
                self.one_place(&places, &format!("{at}/token"), "`header`, `query`, `json` or `form`");
                if token.prefix.is_some() && token.header.is_none() {
                    self.found.error(Code::Conflict, &format!("{at}/token/prefix"), "only a header has a `prefix`");
                }
                true
            }
            Verify::All(kinds) => self.several(kinds, &format!("{at}/all")),
            Verify::Any(kinds) => self.several(kinds, &format!("{at}/any")),
            Verify::Basic(_) => true,
            Verify::Jwt(jwt) => jwt.jwks.is_none(),
            Verify::HttpSignature(signature) => signature.keys.0.is_empty(),
            Verify::Mtls(_) | Verify::Plugin(_) => false,
        }
    }

    fn several(&mut self, kinds: &[Verify], at: &str) -> bool {
        if kinds.len() < 2 {
            self.found.error(Code::OutOfRange, at, "a list of kinds has at least two");
        }
        let needs: Vec<bool> =
            kinds.iter().enumerate().map(|(index, kind)| self.verify(kind, &format!("{at}/{index}"))).collect();
        needs.contains(&true)
    }

    fn hmac(&mut self, hmac: &Hmac, at: &str) {
        if hmac.algorithm == DigestAlgorithm::Md5 {
            self.found.error(
                Code::Conflict,
                &format!("{at}/algorithm"),
                "MD5 is only for `digest`: use a SHA under `hmac`",
            );
        }
        self.signatures(&hmac.signature.0, at);
        self.signed(&hmac.signed, hmac.timestamp.as_ref(), at);
    }

    fn public_key(&mut self, key: &crate::definition::raw::verify::PublicKey, at: &str) -> bool {
        if !key.keys.0.is_empty() && key.fetch.is_some() {
            self.found.error(Code::Conflict, at, "a public key comes from `keys` or from `fetch`: write one of them");
        }
        self.signatures(&key.signature.0, at);
        self.signed(&key.signed, key.timestamp.as_ref(), at);
        // A fetched key proves the sender; a secret that is part of what is signed proves for whom it is.
        let signs_secret = self.templates.text(&key.signed.0).is_ok_and(|text| text.names().contains("secret"));
        signs_secret || (key.keys.0.is_empty() && key.fetch.is_none())
    }

    fn one_place(&mut self, written: &[bool], at: &str, names: &str) {
        if written.iter().filter(|written| **written).count() != 1 {
            self.found.error(Code::Conflict, at, format!("this has exactly one place: {names}"));
        }
    }

    fn signatures(&mut self, signatures: &[Signature], at: &str) {
        let listed =
            self.found.document.value.pointer(&format!("{at}/signature")).is_some_and(serde_json::Value::is_array);
        for (index, signature) in signatures.iter().enumerate() {
            let at = if listed { format!("{at}/signature/{index}") } else { format!("{at}/signature") };
            let places = [
                signature.header.is_some(),
                signature.query.is_some(),
                signature.json.is_some(),
                signature.form.is_some(),
            ];
            self.one_place(&places, &at, "`header`, `query`, `json` or `form`");
            let forms = [signature.pairs.is_some(), signature.position.is_some(), signature.list];
            if forms.iter().filter(|written| **written).count() > 1 {
                self.found.error(Code::Conflict, &at, "a value has one form: `pairs`, `position` or `list`");
            }
            if signature.separator.is_some() && !forms.contains(&true) {
                self.found.error(
                    Code::Conflict,
                    &format!("{at}/separator"),
                    "a `separator` goes with `pairs`, `position` or `list`",
                );
            }
        }
    }

    /// A time protects only when it is part of what is signed.
    fn signed(&mut self, signed: &Signed, timestamp: Option<&Timestamp>, at: &str) {
        let Ok(text) = self.templates.text(&signed.0) else { return };
        let signed_at = format!("{at}/signed");
        if text.segments().is_none() {
            self.found.error(Code::BadTemplate, &signed_at, "`signed` takes `{{ … }}` slots only, no `{% … %}` blocks");
            return;
        }
        let names = text.names();
        let names_root = |root: &str| names.iter().any(|name| name.split('.').next() == Some(root));
        if !["body", "form", "form_sorted", "lines", "body_crc32"].iter().any(|root| names_root(root)) {
            let problem = self.found.warning(
                Code::Conflict,
                &signed_at,
                "the body is not part of what is signed, so anyone can change it",
            );
            problem.help =
                Some("If the service signs no more, treat its events as hints and fetch what they tell.".to_owned());
        }
        let Some(timestamp) = timestamp else {
            if names_root("timestamp") {
                self.found.error(
                    Code::MissingField,
                    &signed_at,
                    "`timestamp` is signed, and no `timestamp` says where it is",
                );
            }
            return;
        };
        self.timestamp(timestamp, names_root("timestamp"), names.contains("body"), &format!("{at}/timestamp"));
    }

    fn timestamp(&mut self, timestamp: &Timestamp, named: bool, whole_body: bool, at: &str) {
        self.one_place(&[timestamp.header.is_some(), timestamp.value.is_some()], at, "`header` or `value`");
        // A value inside the body is signed with the body; a header only when it is named.
        let in_body =
            timestamp.value.as_ref().is_some_and(|value| value.0.trim_start().starts_with("body")) && whole_body;
        if !named && !in_body && !timestamp.unsigned {
            let problem = self.found.error(
                Code::Conflict,
                at,
                "this time is not part of what is signed, so it keeps no attacker out",
            );
            problem.help = Some(
                "Put `{{ timestamp }}` into `signed`, or say `unsigned: true` if the service does not sign it."
                    .to_owned(),
            );
        }
        if (named || in_body) && timestamp.unsigned {
            self.found.error(Code::Conflict, &format!("{at}/unsigned"), "this time is signed");
        }
        if timestamp.separator.is_some() && timestamp.pairs.is_none() && timestamp.position.is_none() {
            self.found.error(
                Code::Conflict,
                &format!("{at}/separator"),
                "a `separator` goes with `pairs` or `position`",
            );
        }
        if timestamp.pairs.is_some() && timestamp.position.is_some() {
            self.found.error(Code::Conflict, at, "a value has one form: `pairs` or `position`");
        }
        if matches!(timestamp.unit, TimeUnit::Seconds | TimeUnit::Millis | TimeUnit::Minutes | TimeUnit::JwtExp) {
            self.found.error(Code::Conflict, &format!("{at}/unit"), "a timestamp is a moment, not a time from now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use serde_json::{Value, json};

    fn webhook(more: &Value) -> String {
        let mut webhook = json!({ "event": "body.type", "delivery_id": "body.id", "secrets": ["0123456789abcdef"] });
        webhook.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        with(&json!({ "webhook": webhook })).concat()
    }

    fn hmac(more: &Value) -> String {
        let mut hmac = json!({ "algorithm": "sha256", "signature": { "header": "X-S" }, "signed": "{{ body }}" });
        hmac.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        webhook(&json!({ "verify": { "hmac": hmac } }))
    }

    #[test]
    fn a_time_must_be_signed_or_said_not_to_be() {
        let header = json!({ "header": "X-T", "unit": "epoch_seconds" });
        assert!(hmac(&json!({ "timestamp": header })).contains("keeps no attacker out"));
        assert_eq!(hmac(&json!({ "timestamp": header, "signed": "{{ timestamp }}.{{ body }}" })), "");
        let unsigned = json!({ "header": "X-T", "unit": "epoch_seconds", "unsigned": true });
        assert_eq!(hmac(&json!({ "timestamp": unsigned })), "");
        assert_eq!(hmac(&json!({ "timestamp": { "value": "body.time", "unit": "epoch_millis" } })), "");
        assert!(hmac(&json!({ "signed": "{{ timestamp }}.{{ body }}" })).contains("no `timestamp` says where"));
    }

    #[test]
    fn signatures_have_one_place_and_one_form() {
        assert_eq!(hmac(&json!({ "signature": { "header": "X", "pairs": "v1", "separator": ";" } })), "");
        assert!(hmac(&json!({ "signature": [{ "header": "X", "query": "s" }] })).contains("exactly one place"));
        assert!(hmac(&json!({ "signature": {} })).contains("exactly one place"));
        assert!(hmac(&json!({ "signature": { "header": "X", "pairs": "a", "list": true } })).contains("one form"));
        assert!(hmac(&json!({ "signature": { "header": "X", "separator": ";" } })).contains("goes with"));
        assert!(hmac(&json!({ "algorithm": "md5" })).contains("MD5"));
    }

    #[test]
    fn what_is_not_protected_is_said() {
        assert!(hmac(&json!({ "signed": "{{ headers['x-id'] }}" })).contains("anyone can change it"));
        let token = json!({ "token": { "header": "X" } });
        assert!(webhook(&json!({ "verify": token, "secrets": ["short"] })).contains("shorter than 16"));
    }

    #[test]
    fn public_keys_are_written_fetched_or_given_as_secrets() {
        let told = |more: &Value| {
            let mut key = json!({ "signature": { "header": "X-S" }, "signed": "{{ body }}" });
            key.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
            webhook(&json!({ "verify": { "ed25519": key } }))
        };
        let fetch = json!({ "url": "headers['x-key']", "hosts": ["*.example.com"] });
        assert!(!told(&json!({})).contains("needs no secret"));
        assert!(told(&json!({ "keys": "a" })).contains("needs no secret"));
        assert!(told(&json!({ "keys": "a", "fetch": fetch })).contains("write one of them"));
    }

    #[test]
    fn a_webhook_without_a_secret_is_warned_of() {
        let value = json!({ "webhook": { "verify": { "basic": { "username": "u" } }, "event": "body.type", "delivery_id": "body.id" } });
        assert!(with(&value).concat().contains("refuses every request"));
    }

    #[test]
    fn bounds_have_an_upper_end_and_replies_are_not_html() {
        let token = json!({ "token": { "header": "X" } });
        assert!(webhook(&json!({ "verify": token, "max_body": "26MiB" })).contains("at most 25MiB"));
        assert!(webhook(&json!({ "verify": token, "dedupe_window": "31d" })).contains("at most 30d"));
        let reply = json!({ "content_type": "text/html", "text": "{{ body.challenge }}" });
        assert!(webhook(&json!({ "verify": token, "handshake": [{ "reply": reply }] })).contains("never HTML"));
    }
}
