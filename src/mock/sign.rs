//! The service's side of webhook signatures: a draft signed the way its definition verifies.
//!
//! This is the counterpart of the public door's verification and shares none of its code, so that a
//! mistake in one shows against the other. It keeps no time and no secret: both come in. Called by
//! `trigger`; tests sign with it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hmac::{Hmac as HmacOf, KeyInit, Mac};
use http::{HeaderName, header};
use serde_json::Value;

use super::draft::Draft;
use super::paths::reads;
use super::shape::{Existing, plausible};
use crate::base::clock::Timestamp;
use crate::definition::plan::webhook::{
    Digest, Hmac, KeyEncoding, KeyForm, SignatureEncoding, SignatureForm, SignaturePlace, SignedPart, TimeUnit,
    TimestampRule, TokenPlace, ValuePlace, Verify,
};

/// Why a draft cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The scheme is declared and its engine is missing.
    #[error("{0}")]
    NotYet(String),
    /// The secret does not have the form that the definition says.
    #[error("the webhook secret is not {0}")]
    Secret(&'static str),
    /// Something that is signed is neither there nor can be put there.
    #[error("`{0}` is signed and the sample has no value for it")]
    Missing(String),
}

/// What a signature is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signer<'a> {
    /// The secret's text.
    pub secret: &'a str,
    /// The URL as the service was told it, without query.
    pub url: &'a str,
    /// The time that is signed.
    pub now: Timestamp,
    /// Whether the signature is made with another secret, to see it refused.
    pub forged: bool,
}

impl Signer<'_> {
    /// Adds to the draft what proves its sender.
    pub fn sign(&self, verify: &Verify, draft: &mut Draft) -> Result<(), SignError> {
        match verify {
            Verify::Hmac(hmac) => self.sign_hmac(hmac, draft),
            Verify::Token(place) => {
                match place {
                    TokenPlace::Header { name, prefix } => {
                        draft.headers.push((name.clone(), format!("{prefix}{}", self.shared_value())));
                    }
                    TokenPlace::Query(name) => draft.query.push((name.clone(), self.shared_value())),
                }
                Ok(())
            }
            Verify::Basic { username } => {
                let pair = STANDARD.encode(format!("{username}:{}", self.shared_value()));
                draft.headers.push((header::AUTHORIZATION, format!("Basic {pair}")));
                Ok(())
            }
            Verify::NotYet(part) => Err(SignError::NotYet(part.to_string())),
        }
    }

    fn shared_value(&self) -> String {
        if self.forged { format!("{}-forged", self.secret) } else { self.secret.to_owned() }
    }

    fn sign_hmac(&self, hmac: &Hmac, draft: &mut Draft) -> Result<(), SignError> {
        let Some(place) = hmac.signatures.first() else {
            return Err(SignError::Missing("signature".to_owned()));
        };
        let mut headers = HeaderParts::default();
        let timestamp = hmac.timestamp.as_ref().map(|rule| self.stamp(rule, draft, &mut headers)).transpose()?;
        let message = self.message(hmac, timestamp.as_deref().unwrap_or_default(), draft)?;
        let mut key = key_bytes(&hmac.key, self.secret)?;
        if self.forged {
            key.push(b'!');
        }
        let signature = written(place, &mac(hmac.algorithm, &key, &message));
        headers.add(place.header.clone(), &place.form, signature);
        draft.headers.extend(headers.render());
        Ok(())
    }

    /// Puts the time where the scheme looks for it and returns its text.
    fn stamp(&self, rule: &TimestampRule, draft: &mut Draft, headers: &mut HeaderParts) -> Result<String, SignError> {
        let text = match rule.unit {
            TimeUnit::EpochSeconds => self.now.seconds().to_string(),
            TimeUnit::EpochMillis => self.now.millis().to_string(),
            TimeUnit::Rfc3339 => self.now.to_string(),
        };
        match &rule.place {
            ValuePlace::Header { name, form } => headers.add(name.clone(), form, text.clone()),
            ValuePlace::Expr(expr) => {
                for read in reads(expr.source()) {
                    draft.put(&read, Value::from(text.as_str()), Existing::Replace);
                }
                let found = expr.text(&draft.context()).ok().flatten();
                return found.ok_or_else(|| SignError::Missing(expr.source().to_owned()));
            }
        }
        Ok(text)
    }

    fn message(&self, hmac: &Hmac, timestamp: &str, draft: &mut Draft) -> Result<Vec<u8>, SignError> {
        for part in &hmac.signed {
            complete(part, draft)?;
        }
        let mut message = Vec::new();
        for part in &hmac.signed {
            match part {
                SignedPart::Literal(bytes) => message.extend_from_slice(bytes),
                SignedPart::Body => message.extend_from_slice(&draft.bytes()),
                SignedPart::Timestamp => message.extend_from_slice(timestamp.as_bytes()),
                SignedPart::Method => message.extend_from_slice(b"POST"),
                SignedPart::Url => message.extend_from_slice(with_query(self.url, &draft.query).as_bytes()),
                SignedPart::Header(name) => {
                    let value = draft.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
                    message.extend_from_slice(value.unwrap_or_default().as_bytes());
                }
                SignedPart::Value(expr) => {
                    let value = expr.text(&draft.context()).ok().flatten();
                    let value = value.ok_or_else(|| SignError::Missing(expr.source().to_owned()))?;
                    message.extend_from_slice(value.as_bytes());
                }
            }
        }
        Ok(message)
    }
}

/// Gives the draft what a part signs, where it has none yet.
fn complete(part: &SignedPart, draft: &mut Draft) -> Result<(), SignError> {
    match part {
        SignedPart::Header(name) if draft.headers.iter().all(|(known, _)| known != name) => {
            draft.headers.push((name.clone(), "sample".to_owned()));
        }
        SignedPart::Value(expr) => {
            for read in reads(expr.source()) {
                let name = super::paths::last_key(&read.steps).unwrap_or("value");
                let value = read.equals.clone().unwrap_or_else(|| plausible(name, 1));
                draft.put(&read, value, Existing::Keep);
            }
            if expr.text(&draft.context()).ok().flatten().is_none() {
                return Err(SignError::Missing(expr.source().to_owned()));
            }
        }
        _ => {}
    }
    Ok(())
}

/// A URL with query parameters, percent-encoded.
pub(super) fn with_query(url: &str, query: &[(String, String)]) -> String {
    if query.is_empty() {
        return url.to_owned();
    }
    let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{url}?{encoded}")
}

fn key_bytes(form: &KeyForm, secret: &str) -> Result<Vec<u8>, SignError> {
    let rest = form.strip_prefix.as_deref().and_then(|prefix| secret.strip_prefix(prefix)).unwrap_or(secret);
    match form.encoding {
        KeyEncoding::Utf8 => Ok(rest.as_bytes().to_vec()),
        KeyEncoding::Hex => from_hex(rest).ok_or(SignError::Secret("hexadecimal")),
        KeyEncoding::Base64 => {
            STANDARD_NO_PAD.decode(rest.trim_end_matches('=')).map_err(|_| SignError::Secret("base 64"))
        }
        KeyEncoding::Base64Url => {
            URL_SAFE_NO_PAD.decode(rest.trim_end_matches('=')).map_err(|_| SignError::Secret("base 64 for URLs"))
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn mac(algorithm: Digest, key: &[u8], message: &[u8]) -> Vec<u8> {
    fn with<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length (RFC 2104), so the constructor has nothing to refuse.
        let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
        mac.update(message);
        mac.finalize().into_bytes().to_vec()
    }
    match algorithm {
        Digest::Sha1 => with::<HmacOf<sha1::Sha1>>(key, message),
        Digest::Sha256 => with::<HmacOf<sha2::Sha256>>(key, message),
        Digest::Sha384 => with::<HmacOf<sha2::Sha384>>(key, message),
        Digest::Sha512 => with::<HmacOf<sha2::Sha512>>(key, message),
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The text of one signature, prefix and all.
fn written(place: &SignaturePlace, digest: &[u8]) -> String {
    let text = match place.encoding {
        SignatureEncoding::Hex { .. } => hex(digest),
        SignatureEncoding::Base64 => STANDARD.encode(digest),
        SignatureEncoding::Base64Url => URL_SAFE_NO_PAD.encode(digest),
    };
    match &place.prefix {
        Some(prefix) => format!("{}{text}", prefix.text),
        None => text,
    }
}

/// Headers put together from several values, as in `t=…,v1=…`.
#[derive(Default)]
struct HeaderParts(Vec<(HeaderName, Parts)>);

enum Parts {
    Whole(String),
    Pairs(char, Vec<String>),
    Places(char, BTreeMap<usize, String>),
}

impl HeaderParts {
    fn add(&mut self, header: HeaderName, form: &SignatureForm, value: String) {
        let known = self.0.iter_mut().find(|(name, _)| *name == header).map(|(_, parts)| parts);
        match (known, form) {
            (Some(Parts::Pairs(_, pairs)), SignatureForm::Pairs { name, .. }) => pairs.push(format!("{name}={value}")),
            (Some(Parts::Places(_, places)), SignatureForm::Position { index, .. }) => {
                places.insert(*index, value);
            }
            (_, SignatureForm::Single | SignatureForm::List { .. }) => self.0.push((header, Parts::Whole(value))),
            (_, SignatureForm::Pairs { name, separator }) => {
                self.0.push((header, Parts::Pairs(*separator, vec![format!("{name}={value}")])));
            }
            (_, SignatureForm::Position { index, separator }) => {
                self.0.push((header, Parts::Places(*separator, BTreeMap::from([(*index, value)]))));
            }
        }
    }

    fn render(self) -> impl Iterator<Item = (HeaderName, String)> {
        self.0.into_iter().map(|(name, parts)| {
            let value = match parts {
                Parts::Whole(value) => value,
                Parts::Pairs(separator, pairs) => pairs.join(&separator.to_string()),
                Parts::Places(separator, places) => {
                    let last = places.keys().next_back().copied().unwrap_or_default();
                    let item = |place: usize| places.get(&place).map_or("0", String::as_str);
                    (0..=last).map(item).collect::<Vec<_>>().join(&separator.to_string())
                }
            };
            (name, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::plan::webhook::Prefix;
    use crate::mock::draft::Body;
    use bytes::Bytes;
    use std::time::Duration;

    const HEX: SignatureEncoding = SignatureEncoding::Hex { upper: false };

    fn place(header: &'static str, form: SignatureForm, prefix: Option<&str>) -> SignaturePlace {
        let prefix = prefix.map(|text| Prefix { text: text.to_owned(), optional: false });
        SignaturePlace { header: HeaderName::from_static(header), form, prefix, encoding: HEX }
    }

    fn hmac(place: SignaturePlace, timestamp: Option<TimestampRule>, signed: Vec<SignedPart>) -> Verify {
        Verify::Hmac(Hmac {
            algorithm: Digest::Sha256,
            key: KeyForm::default(),
            signatures: vec![place],
            timestamp,
            signed,
        })
    }

    fn signed(verify: &Verify, secret: &str, body: &'static str) -> Vec<String> {
        let body = Body::Fixed(Bytes::from_static(body.as_bytes()));
        let mut draft = Draft { headers: Vec::new(), query: Vec::new(), body };
        let now = Timestamp::from_seconds(1_531_420_618);
        let signer = Signer { secret, url: "https://example.com/webhooks/x", now, forged: false };
        signer.sign(verify, &mut draft).expect("signs");
        draft.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn githubs_published_example_is_reproduced() {
        let place = place("x-hub-signature-256", SignatureForm::Single, Some("sha256="));
        let headers = signed(&hmac(place, None, vec![SignedPart::Body]), "It's a Secret to Everybody", "Hello, World!");
        let digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(headers, [format!("x-hub-signature-256: sha256={digest}")]);
    }

    #[test]
    fn slacks_published_example_is_reproduced() {
        let timestamp = TimestampRule {
            place: ValuePlace::Header {
                name: HeaderName::from_static("x-slack-request-timestamp"),
                form: SignatureForm::Single,
            },
            unit: TimeUnit::EpochSeconds,
            past: Duration::from_mins(5),
            future: Duration::from_mins(5),
        };
        let literal = |text: &str| SignedPart::Literal(text.as_bytes().into());
        let parts = vec![literal("v0:"), SignedPart::Timestamp, literal(":"), SignedPart::Body];
        let verify = hmac(place("x-slack-signature", SignatureForm::Single, Some("v0=")), Some(timestamp), parts);
        let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        let headers = signed(&verify, "8f742231b10e8888abcd99yyyzzz85a5", body);
        let digest = "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
        assert_eq!(
            headers,
            ["x-slack-request-timestamp: 1531420618".to_owned(), format!("x-slack-signature: v0={digest}")]
        );
    }

    #[test]
    fn a_time_and_a_signature_share_a_header_of_pairs() {
        let pairs = |name: &str| SignatureForm::Pairs { name: name.to_owned(), separator: ',' };
        let timestamp = TimestampRule {
            place: ValuePlace::Header { name: HeaderName::from_static("stripe-signature"), form: pairs("t") },
            unit: TimeUnit::EpochSeconds,
            past: Duration::from_mins(5),
            future: Duration::from_mins(5),
        };
        let headers = signed(
            &hmac(place("stripe-signature", pairs("v1"), None), Some(timestamp), vec![SignedPart::Body]),
            "s",
            "{}",
        );
        assert!(
            matches!(headers.as_slice(), [one] if one.starts_with("stripe-signature: t=1531420618,v1=")),
            "{headers:?}"
        );
    }
}
