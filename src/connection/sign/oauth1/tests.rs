//! Known answers, and what is refused.

use std::sync::Arc;

use http::Method as Verb;
use serde_json::Value;

use super::*;
use crate::base::random::SeededRandom;
use crate::base::rsa_sha1::RsaSha1Key;

const RSA: &str = include_str!("../../../../tests/vectors/keys/rsa.pkcs8.pem");

fn call<'a>(
    headers: &'a HeaderMap,
    method: &'a Verb,
    place: (&'a str, &'a str, &'a str),
    body: &'a str,
) -> Unsigned<'a> {
    let (authority, path, query) = place;
    Unsigned { method, secure: true, authority, path, query, headers, body: Body::Whole(body.as_bytes()) }
}

fn form() -> HeaderMap {
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
    HeaderMap::from_iter([(header::CONTENT_TYPE, kind)])
}

#[test]
fn the_base_string_of_the_rfc_comes_out_as_printed() {
    // RFC 5849, 3.4.1.1.
    let headers = form();
    let place = ("example.com", "/request", "b5=%3D%253D&a3=a&c%40=&a2=r%20b");
    let request = Unsigned { secure: false, ..call(&headers, &Verb::POST, place, "c2&a3=2+q") };
    let params = [
        ("oauth_consumer_key", "9djdj82h48djs9d2"),
        ("oauth_token", "kkk9d7dh3k39sjv7"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131201"),
        ("oauth_nonce", "7d8f3e4a"),
    ];
    let expected = "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D\
                    %26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a\
                    %26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201\
                    %26oauth_token%3Dkkk9d7dh3k39sjv7";
    assert_eq!(base_string(&request, &params).as_deref(), Ok(expected));
}

#[test]
fn the_signatures_of_the_rfc_come_out_as_printed() {
    // RFC 5849, 1.2: asking for temporary credentials, and a call with a token.
    let (secret, none) = (Secret::from("kd94hf93k423kf44"), HeaderMap::new());
    let signatory = Signatory {
        method: &Signature::HmacSha1,
        consumer: "dpf43f3p2l4k3l03",
        secret: &secret,
        token: None,
        realm: Some("Photos"),
    };
    let asking = [
        ("oauth_consumer_key", "dpf43f3p2l4k3l03"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131200"),
        ("oauth_nonce", "wIjqoS"),
        ("oauth_callback", "http://printer.example.com/ready"),
    ];
    let initiate = call(&none, &Verb::POST, ("photos.example.net", "/initiate", ""), "");
    let signed = signature(&initiate, signatory, &asking).map(|signature| signature.expose().clone());
    assert_eq!(signed.as_deref(), Ok("74KNZJeDHnMBp0EMJ9ZHt/XKycU="));
    let (token, token_secret) = (Secret::from("nnch734d00sl2jdk"), Secret::from("pfkkdhi9sl3r4s00"));
    let calling = [
        ("oauth_consumer_key", "dpf43f3p2l4k3l03"),
        ("oauth_token", "nnch734d00sl2jdk"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131202"),
        ("oauth_nonce", "chapoH"),
    ];
    let place = ("photos.example.net", "/photos", "file=vacation.jpg&size=original");
    let photos = Unsigned { secure: false, ..call(&none, &Verb::GET, place, "") };
    let signatory = Signatory { token: Some((&token, Some(&token_secret))), ..signatory };
    let signed = signature(&photos, signatory, &calling).map(|signature| signature.expose().clone());
    assert_eq!(signed.as_deref(), Ok("MdpQcU8iPSUjWoN/UDMsK2sui9I="));
}

#[test]
fn another_library_signs_the_same() {
    let vectors: Value = serde_json::from_str(include_str!("../../../../tests/vectors/oauth1.json")).expect("vectors");
    let cases = vectors["cases"].as_array().expect("a list");
    for case in cases {
        let text = |member: &str| case[member].as_str();
        let of = |member: &str| text(member).unwrap_or_default();
        let method = match of("signature_method") {
            "HMAC-SHA1" => Signature::HmacSha1,
            "HMAC-SHA256" => Signature::HmacSha256,
            "PLAINTEXT" => Signature::Plaintext,
            _ => Signature::RsaSha1(Some(Arc::new(RsaSha1Key::read(&RSA.into()).expect("a key")))),
        };
        let (secret, token, token_secret) =
            (of("consumer_secret").into(), text("token").map(Secret::from), Secret::from(of("token_secret")));
        let headers: HeaderMap = text("content_type")
            .map(|kind| (header::CONTENT_TYPE, HeaderValue::from_str(kind).expect("a value")))
            .into_iter()
            .collect();
        let verb: Verb = of("method").parse().expect("a method");
        let request = call(&headers, &verb, (of("authority"), of("path"), of("query")), of("body"));
        let signatory = Signatory {
            method: &method,
            consumer: "key/1",
            secret: &secret,
            token: token.as_ref().map(|token| (token, Some(&token_secret))),
            realm: text("realm"),
        };
        let usual = [
            ("oauth_consumer_key", Some("key/1")),
            ("oauth_nonce", Some("n0nce")),
            ("oauth_signature_method", Some(method.name())),
            ("oauth_timestamp", Some("1800000000")),
            ("oauth_version", Some("1.0")),
            ("oauth_token", text("token")),
            ("oauth_callback", text("callback")),
            ("oauth_verifier", text("verifier")),
        ];
        let params: Vec<_> = usual.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
        let signed = signature(&request, signatory, &params).expect("signed");
        assert_eq!(signed.expose(), of("signature"), "{} {}", of("name"), method.name());
        let header = header_of(signatory.realm, &params).expect("a header");
        let theirs = of("authorization");
        for written in header.to_str().expect("visible").trim_start_matches("OAuth ").split(", ") {
            assert!(theirs.contains(written), "{written} is not in {theirs}");
        }
    }
    assert_eq!(cases.len(), 44);
}

#[test]
fn what_cannot_be_signed_is_refused_and_nothing_is_printed() {
    let (headers, secret) = (form(), Secret::from("canary"));
    let signatory =
        Signatory { method: &Signature::Plaintext, consumer: "k", secret: &secret, token: None, realm: None };
    let random = SeededRandom::new(1);
    let now = Timestamp::from_seconds(1);
    let request = call(&headers, &Verb::POST, ("a.example", "/", ""), "a=b");
    let value = authorization(&request, signatory, &[], (now, &random)).expect("signed");
    assert!(value.is_sensitive() && value.to_str().is_ok_and(|text| text.contains("canary%26")));
    let plain = Unsigned { secure: false, ..request };
    assert_eq!(authorization(&plain, signatory, &[], (now, &random)).err(), Some(SignError::Unprotected));
    let hmac = Signatory { method: &Signature::HmacSha1, ..signatory };
    let streamed = Unsigned { body: Body::Streamed, ..request };
    assert_eq!(authorization(&streamed, hmac, &[], (now, &random)).err(), Some(SignError::Streamed));
    let json = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    assert!(authorization(&Unsigned { headers: &json, ..streamed }, hmac, &[], (now, &random)).is_ok());
    let realm = Signatory { realm: Some("a\"b"), ..hmac };
    assert_eq!(authorization(&request, realm, &[], (now, &random)).err(), Some(SignError::Realm));
}
