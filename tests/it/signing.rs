//! What `trigger` signs, the public door believes, for every form of every scheme; what is changed on the
//! way, it does not. The signer and the verifier share no code.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use trunkline::base::clock::Timestamp;
use trunkline::base::random::SeededRandom;
use trunkline::base::secret::Secret;
use trunkline::definition::plan::about::About;
use trunkline::definition::plan::webhook::{
    Address, Digest, Hmac, KeyEncoding, KeyForm, Prefix, SignatureEncoding, SignatureForm, SignaturePlace, SignedPart,
    TimeUnit, TimestampRule, TokenPlace, ValuePlace, Verify, Webhook, WebhookSecret,
};
use trunkline::definition::plan::{Auth, Fingerprint, Integration};
use trunkline::mock::trigger::{SignedWebhook, Trigger};
use trunkline::template::{Context, Expr};
use trunkline::webhook::door::RequestHead;
use trunkline::webhook::verify::{Request, verify};
use url::Url;

const NOW: Timestamp = Timestamp::from_seconds(1_769_853_600);
const PUBLIC: &str = "https://hooks.example.com/base";

fn integration(verify: Verify, secret: &str) -> Integration {
    let secret = WebhookSecret { id: Arc::from("1"), secret: Secret::from(secret), expires_at: None };
    let webhook = Webhook {
        silent_after: None,
        verify,
        secrets: vec![secret],
        handshakes: Vec::new(),
        event: Expr::compile("body.type").unwrap(),
        delivery_id: Some(Expr::compile("body.id").unwrap()),
        events: Vec::new(),
        dedupe_window: Duration::from_hours(1),
        max_body: 1 << 20,
        rate: "1000/s".parse().unwrap(),
        rate_per_source: "1000/s".parse().unwrap(),
        address: Address::Plain,
        register: Vec::new(),
        unregister: Vec::new(),
    };
    Integration {
        id: Arc::from("x"),
        title: "X".to_owned(),
        about: About::default(),
        fingerprint: Fingerprint([0; 32]),
        inputs: Vec::new(),
        auth: Auth::None,
        api: None,
        connections: Vec::new(),
        webhook: Some(webhook),
        prompts: trunkline::definition::plan::Prompts::default(),
        rules: Vec::new(),
        referenced: Vec::new(),
    }
}

fn signed(integration: &Integration, forged: bool) -> SignedWebhook {
    let url = format!("{PUBLIC}/webhooks/x");
    let secrets = &integration.webhook.as_ref().unwrap().secrets;
    let trigger = Trigger { integration, secrets, event_type: "thing.happened", body: None, url: &url, forged };
    trigger.make(NOW, &SeededRandom::new(1)).unwrap()
}

fn believed(integration: &Integration, sent: &SignedWebhook, body: &Bytes) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in &sent.headers {
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let target = sent.target("/webhooks/x");
    let query = target.split_once('?').map_or("", |(_, query)| query).to_owned();
    let integration_id = "x".to_owned();
    let head = RequestHead {
        token: None,
        method: Method::POST,
        integration: integration_id,
        query,
        target,
        headers: Arc::new(headers),
        source: None,
        content_length: None,
    };
    let json = serde_json::from_slice(body).unwrap_or_default();
    let query = sent.query.iter().map(|(name, value)| (name.clone(), serde_json::Value::from(value.as_str())));
    let context = Context::new()
        .with_json("body", &json)
        .with_json("query", &query.collect::<serde_json::Map<_, _>>().into())
        .with_headers("headers", sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let public_url = Url::parse(PUBLIC).unwrap();
    let request = Request { head: &head, body, public_url: &public_url, context: &context, now: NOW };
    let webhook = integration.webhook.as_ref().unwrap();
    verify(&webhook.verify, &webhook.secrets, &request).is_ok()
}

fn form() -> impl Strategy<Value = SignatureForm> {
    prop_oneof![
        Just(SignatureForm::Single),
        prop_oneof![Just(' '), Just(';')].prop_map(|separator| SignatureForm::List { separator }),
        Just(SignatureForm::Pairs { name: "v1".to_owned(), separator: ',' }),
        (1_usize..3).prop_map(|index| SignatureForm::Position { index, separator: ';' }),
    ]
}

fn time() -> impl Strategy<Value = Option<TimestampRule>> {
    let header = |name: &'static str, form| ValuePlace::Header { name: HeaderName::from_static(name), form };
    let pair = SignatureForm::Pairs { name: "t".to_owned(), separator: ',' };
    let position = SignatureForm::Position { index: 0, separator: ';' };
    let places = vec![
        header("x-time", SignatureForm::Single),
        header("x-signature", pair),
        header("x-signature", position),
        ValuePlace::Expr(Expr::compile("body.sent.at").unwrap()),
    ];
    let unit = prop_oneof![Just(TimeUnit::EpochSeconds), Just(TimeUnit::EpochMillis), Just(TimeUnit::Rfc3339)];
    let minutes = Duration::from_mins(5);
    let rule = (proptest::sample::select(places), unit)
        .prop_map(move |(place, unit)| Some(TimestampRule { place, unit, past: minutes, future: minutes }));
    prop_oneof![Just(None), rule]
}

fn parts(timed: bool) -> impl Strategy<Value = Vec<SignedPart>> {
    let literal = SignedPart::Literal(b"v0:".as_slice().into());
    let value = SignedPart::Value(Expr::compile("body.account.name").unwrap());
    let header = SignedPart::Header(HeaderName::from_static("x-extra"));
    let mut others = vec![literal, SignedPart::Method, SignedPart::Url, header, value];
    if timed {
        others.push(SignedPart::Timestamp);
    }
    let length = others.len();
    proptest::sample::subsequence(others, 0..=length).prop_shuffle().prop_map(|mut parts| {
        parts.push(SignedPart::Body);
        parts
    })
}

/// A scheme, and a secret in its form.
fn scheme() -> impl Strategy<Value = (Hmac, String)> {
    let algorithm = prop_oneof![Just(Digest::Sha1), Just(Digest::Sha256), Just(Digest::Sha384), Just(Digest::Sha512)];
    let encoding = prop_oneof![
        any::<bool>().prop_map(|upper| SignatureEncoding::Hex { upper }),
        Just(SignatureEncoding::Base64),
        Just(SignatureEncoding::Base64Url),
    ];
    let key = prop_oneof![
        ("[ -~]{16,40}", Just(KeyEncoding::Utf8)),
        ("([0-9a-f]{2}){16,24}", Just(KeyEncoding::Hex)),
        ("([A-Za-z0-9+/]{4}){6,9}", Just(KeyEncoding::Base64)),
        ("([A-Za-z0-9_-]{4}){6,9}", Just(KeyEncoding::Base64Url)),
    ];
    let prefixes = (any::<bool>(), any::<bool>());
    (algorithm, key, form(), encoding, prefixes, time()).prop_flat_map(
        |(algorithm, (secret, key), form, encoding, (key_prefix, prefix), timestamp)| {
            let form = fitting(form, timestamp.as_ref());
            parts(timestamp.is_some()).prop_map(move |signed| {
                let prefix = prefix.then(|| Prefix { text: "sha=".to_owned(), optional: false });
                let header = HeaderName::from_static("x-signature");
                let place = SignaturePlace { header, form: form.clone(), prefix, encoding };
                let strip_prefix = key_prefix.then(|| "whsec_".to_owned());
                let text = if key_prefix { format!("whsec_{secret}") } else { secret.clone() };
                let key = KeyForm { strip_prefix, encoding: key };
                let timestamp = timestamp.clone();
                (Hmac { algorithm, key, signatures: vec![place], timestamp, signed }, text)
            })
        },
    )
}

/// A signature that shares its header with the time is written in the same form.
fn fitting(form: SignatureForm, timestamp: Option<&TimestampRule>) -> SignatureForm {
    let shared = timestamp.and_then(|rule| match &rule.place {
        ValuePlace::Header { name, form } if name == "x-signature" => Some(form),
        _ => None,
    });
    match shared {
        Some(SignatureForm::Pairs { .. }) => SignatureForm::Pairs { name: "v1".to_owned(), separator: ',' },
        Some(SignatureForm::Position { .. }) => SignatureForm::Position { index: 1, separator: ';' },
        _ => form,
    }
}

proptest! {
    #[test]
    fn every_signed_form_is_believed_and_no_change_of_it_is((hmac, secret) in scheme(), at in any::<prop::sample::Index>()) {
        let integration = integration(Verify::Hmac(hmac), &secret);
        let sent = signed(&integration, false);
        prop_assert!(believed(&integration, &sent, &sent.body), "{sent:?}");
        let mut changed = sent.body.to_vec();
        let place = at.index(changed.len());
        changed[place] ^= 1;
        prop_assert!(!believed(&integration, &sent, &changed.into()), "byte {place} of {sent:?}");
        let forged = signed(&integration, true);
        prop_assert!(!believed(&integration, &forged, &forged.body), "{forged:?}");
    }
}

#[test]
fn shared_values_and_passwords_are_believed_unless_forged() {
    let header = TokenPlace::Header { name: HeaderName::from_static("x-token"), prefix: "Bearer ".to_owned() };
    let query = TokenPlace::Query("token".to_owned());
    let basic = Verify::Basic { username: "hooks".to_owned() };
    for verify in [Verify::Token(header), Verify::Token(query), basic] {
        let integration = integration(verify, "a secret with & and = in it");
        let sent = signed(&integration, false);
        assert!(believed(&integration, &sent, &sent.body), "{sent:?}");
        let forged = signed(&integration, true);
        assert!(!believed(&integration, &forged, &forged.body));
    }
}
