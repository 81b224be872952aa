//! The `verify` block, compiled.

use std::time::Duration;

use http::HeaderName;

use super::place::{Fault, Place};
use crate::definition::plan::NotYet;
use crate::definition::plan::webhook::{
    Digest, Hmac, KeyEncoding, KeyForm, Prefix, SignatureEncoding, SignatureForm, SignaturePlace, SignedPart, TimeUnit,
    TimestampRule, TokenPlace, ValuePlace, Verify,
};
use crate::definition::problem::Code;
use crate::definition::raw::auth::KeyEncoding as RawKeyEncoding;
use crate::definition::raw::scalar::{HeaderText, Separator, Signed, TimeUnit as RawTimeUnit};
use crate::definition::raw::verify as raw;
use crate::template::{Expr, Segment};

/// How far a timestamp may lie from now.
const TOLERANCE: Duration = Duration::from_mins(5);

/// Compiles a kind that this version runs. The caller has looked for those it does not run.
pub(super) fn compile(verify: &raw::Verify, place: &Place<'_>) -> Result<Verify, Fault> {
    match verify {
        raw::Verify::Hmac(raw) => hmac(raw, &place.at("hmac")).map(Verify::Hmac),
        raw::Verify::Token(raw) => token(raw, &place.at("token")).map(Verify::Token),
        raw::Verify::Basic(raw) => Ok(Verify::Basic { username: raw.username.clone() }),
        _ => Ok(Verify::NotYet(NotYet { part: "webhook.verify".to_owned() })),
    }
}

fn token(raw: &raw::Token, place: &Place<'_>) -> Result<TokenPlace, Fault> {
    match (&raw.header, &raw.query) {
        (Some(header), None) => Ok(TokenPlace::Header {
            name: place.at("header").header(header)?,
            prefix: raw.prefix.clone().unwrap_or_default(),
        }),
        (None, Some(query)) => Ok(TokenPlace::Query(query.clone())),
        _ => Err(place.problem(Code::Conflict, "a token is in one place: `header` or `query`")),
    }
}

fn hmac(raw: &raw::Hmac, place: &Place<'_>) -> Result<Hmac, Fault> {
    let signatures = raw.signature.0.iter().enumerate().map(|(index, signature)| {
        let at = place.at("signature");
        let listed = at.document().value.pointer(at.pointer()).is_some_and(serde_json::Value::is_array);
        signature_place(signature, &if listed { at.item(index) } else { at })
    });
    Ok(Hmac {
        algorithm: digest(raw.algorithm).ok_or_else(|| {
            place.at("algorithm").problem(Code::Conflict, "MD5 is only for `digest`: use a SHA under `hmac`")
        })?,
        key: key_form(raw.key.as_ref()),
        signatures: signatures.collect::<Result<_, _>>()?,
        timestamp: raw.timestamp.as_ref().map(|raw| timestamp(raw, &place.at("timestamp"))).transpose()?,
        signed: signed_parts(&raw.signed, &place.at("signed"))?,
    })
}

fn digest(raw: raw::DigestAlgorithm) -> Option<Digest> {
    match raw {
        raw::DigestAlgorithm::Md5 => None,
        raw::DigestAlgorithm::Sha1 => Some(Digest::Sha1),
        raw::DigestAlgorithm::Sha256 => Some(Digest::Sha256),
        raw::DigestAlgorithm::Sha384 => Some(Digest::Sha384),
        raw::DigestAlgorithm::Sha512 => Some(Digest::Sha512),
    }
}

fn key_form(raw: Option<&raw::Key>) -> KeyForm {
    let encoding = match raw.and_then(|key| key.encoding) {
        None | Some(RawKeyEncoding::Utf8) => KeyEncoding::Utf8,
        Some(RawKeyEncoding::Hex) => KeyEncoding::Hex,
        Some(RawKeyEncoding::Base64) => KeyEncoding::Base64,
        Some(RawKeyEncoding::Base64url) => KeyEncoding::Base64Url,
    };
    KeyForm { strip_prefix: raw.and_then(|key| key.strip_prefix.clone()), encoding }
}

fn signature_place(raw: &raw::Signature, place: &Place<'_>) -> Result<SignaturePlace, Fault> {
    let prefix = raw.prefix.as_ref().map(|prefix| &prefix.0);
    Ok(SignaturePlace {
        header: required_header(raw.header.as_ref(), place)?,
        form: form(raw.pairs.as_deref(), raw.position, raw.list, raw.separator.as_ref(), place)?,
        prefix: prefix.map(|prefix| Prefix { text: prefix.text.clone(), optional: prefix.optional }),
        encoding: match raw.encoding {
            None | Some(raw::Encoding::Hex) => SignatureEncoding::Hex { upper: false },
            Some(raw::Encoding::HexAnyCase) => SignatureEncoding::Hex { upper: true },
            Some(raw::Encoding::Base64) => SignatureEncoding::Base64,
            Some(raw::Encoding::Base64url) => SignatureEncoding::Base64Url,
        },
    })
}

fn required_header(header: Option<&HeaderText>, place: &Place<'_>) -> Result<HeaderName, Fault> {
    match header {
        Some(header) => place.at("header").header(header),
        None => Err(place.problem(Code::MissingField, "a signature is in a `header`")),
    }
}

fn form(
    pairs: Option<&str>,
    position: Option<u8>,
    list: bool,
    separator: Option<&Separator>,
    place: &Place<'_>,
) -> Result<SignatureForm, Fault> {
    let separator = separator.and_then(|text| text.0.chars().next()).unwrap_or(',');
    match (pairs, position, list) {
        (None, None, false) => Ok(SignatureForm::Single),
        (Some(name), None, false) => Ok(SignatureForm::Pairs { name: name.to_owned(), separator }),
        (None, Some(index), false) => Ok(SignatureForm::Position { index: index.into(), separator }),
        (None, None, true) => Ok(SignatureForm::List { separator }),
        _ => Err(place.problem(Code::Conflict, "a value has one form: `pairs`, `position` or `list`")),
    }
}

fn timestamp(raw: &raw::Timestamp, place: &Place<'_>) -> Result<TimestampRule, Fault> {
    let value_place = match (&raw.header, &raw.value) {
        (Some(header), None) => ValuePlace::Header {
            name: place.at("header").header(header)?,
            form: form(raw.pairs.as_deref(), raw.position, false, raw.separator.as_ref(), place)?,
        },
        (None, Some(value)) => ValuePlace::Expr(place.at("value").expression(value)?),
        _ => return Err(place.problem(Code::Conflict, "a timestamp is in one place: `header` or `value`")),
    };
    let unit = match raw.unit {
        RawTimeUnit::EpochSeconds => TimeUnit::EpochSeconds,
        RawTimeUnit::EpochMillis => TimeUnit::EpochMillis,
        RawTimeUnit::Rfc3339 => TimeUnit::Rfc3339,
        _ => return Err(place.at("unit").problem(Code::Conflict, "a timestamp is a moment, not a time from now")),
    };
    let tolerance = raw.tolerance.map_or(TOLERANCE, |time| time.0);
    Ok(TimestampRule {
        place: value_place,
        unit,
        past: raw.past.map_or(tolerance, |time| time.0),
        future: raw.future.map_or(tolerance, |time| time.0),
    })
}

/// What is signed, as segments over what was sent.
fn signed_parts(raw: &Signed, place: &Place<'_>) -> Result<Vec<SignedPart>, Fault> {
    let text = place.text_of(&raw.0)?;
    let Some(segments) = text.segments() else {
        return Err(place.problem(Code::BadTemplate, "`signed` takes `{{ … }}` slots only, no `{% … %}` blocks"));
    };
    let part = |segment: &Segment| match segment {
        Segment::Literal(text) => Ok(SignedPart::Literal(text.as_bytes().into())),
        Segment::Slot(expression) => match expression.source().trim() {
            "body" => Ok(SignedPart::Body),
            "timestamp" => Ok(SignedPart::Timestamp),
            "method" => Ok(SignedPart::Method),
            "url" => Ok(SignedPart::Url),
            source => match named_header(source) {
                Some(name) => place.header_name(name).map(SignedPart::Header),
                None => Ok(SignedPart::Value(Expr::clone(expression))),
            },
        },
    };
    segments.iter().map(part).collect()
}

/// The header that `headers['name']` names, whose bytes then count exactly as they were sent.
fn named_header(expression: &str) -> Option<&str> {
    let inside = expression.strip_prefix("headers[")?.strip_suffix(']')?.trim();
    let quote = inside.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    inside.strip_prefix(quote)?.strip_suffix(quote).filter(|name| !name.contains(quote))
}

#[cfg(test)]
mod tests {
    use super::super::tests::compiled;
    use super::*;
    use serde_json::{Value, json};

    fn verify(value: &Value) -> Result<Verify, Fault> {
        compiled(json!({ "trunkline": 1, "id": "a", "webhook": { "verify": value, "event": "body.type" } }))
            .map(|integration| integration.webhook.expect("has one").verify)
    }

    fn compiled_hmac(value: &Value) -> Hmac {
        match verify(&json!({ "hmac": value })) {
            Ok(Verify::Hmac(hmac)) => hmac,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_list_of_pairs_with_a_timestamp_compiles() {
        let hmac = compiled_hmac(&json!({
            "algorithm": "sha256",
            "signature": { "header": "Stripe-Signature", "pairs": "v1", "encoding": "hex" },
            "timestamp": { "header": "Stripe-Signature", "pairs": "t", "unit": "epoch_seconds", "tolerance": "5m", "future": "0s" },
            "signed": "{{ timestamp }}.{{ body }}",
        }));
        let pairs = |name: &str| SignatureForm::Pairs { name: name.to_owned(), separator: ',' };
        assert_eq!(hmac.signatures[0].form, pairs("v1"));
        let timestamp = hmac.timestamp.expect("one");
        assert!(matches!(timestamp.place, ValuePlace::Header { form, .. } if form == pairs("t")));
        assert_eq!((timestamp.past, timestamp.future), (TOLERANCE, Duration::ZERO));
        let signed = &hmac.signed;
        assert!(
            matches!(&signed[..], [SignedPart::Timestamp, SignedPart::Literal(dot), SignedPart::Body] if **dot == *b".")
        );
    }

    #[test]
    fn standard_webhooks_compile() {
        let hmac = compiled_hmac(&json!({
            "algorithm": "sha256",
            "key": { "strip_prefix": "whsec_", "encoding": "base64" },
            "signature": [{ "header": "webhook-signature", "list": true, "separator": " ", "prefix": "v1,", "encoding": "base64" }],
            "timestamp": { "header": "webhook-timestamp", "unit": "epoch_seconds" },
            "signed": "{{ headers['webhook-id'] }}.{{ timestamp }}.{{ body }}",
        }));
        assert_eq!(hmac.key.strip_prefix.as_deref(), Some("whsec_"));
        assert_eq!(hmac.signatures[0].form, SignatureForm::List { separator: ' ' });
        assert!(matches!(&hmac.signed[0], SignedPart::Header(name) if name == "webhook-id"));
    }

    #[test]
    fn other_values_are_signed_as_expressions() {
        let hmac = compiled_hmac(&json!({
            "algorithm": "sha256", "signed": "{{ body.timestamp }}{{ body.token }}{{ headers['a'] ~ headers['b'] }}",
            "signature": { "header": "X" },
        }));
        assert!(hmac.signed.iter().all(|part| matches!(part, SignedPart::Value(_))));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let signature = json!({ "header": "X", "pairs": "v1", "list": true });
        assert!(
            verify(&json!({ "hmac": { "algorithm": "sha256", "signature": signature, "signed": "{{ body }}" } }))
                .is_err()
        );
        assert!(
            verify(&json!({ "hmac": { "algorithm": "md5", "signature": { "header": "X" }, "signed": "{{ body }}" } }))
                .is_err()
        );
        assert!(verify(&json!({ "token": { "header": "X", "query": "y" } })).is_err());
        assert!(verify(&json!({ "token": {} })).is_err());
    }
}
