//! Known answers, and what is refused.

use http::{HeaderMap, Method};
use serde_json::Value;

use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_440_938_160);

/// What a case is signed to: the `Authorization` header and the digest of the body.
fn signed(case: &Value) -> Result<(String, String), SignError> {
    let text = |member: &str| case[member].as_str();
    let of = |member: &str| text(member).unwrap_or_default();
    let secret = Secret::from("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
    let session = text("session").map(Secret::from);
    let mut given = HeaderMap::new();
    for (name, value) in case["headers"].as_object().into_iter().flatten() {
        let name: HeaderName = name.to_ascii_lowercase().parse().expect("a name");
        given.insert(name, HeaderValue::from_str(value.as_str().expect("a text")).expect("a value"));
    }
    let method: Method = of("method").parse().expect("a method");
    let call = Unsigned {
        method: &method,
        secure: true,
        authority: of("authority"),
        path: of("path"),
        query: of("query"),
        headers: &given,
        body: text("body").map_or(Body::Streamed, |body| Body::Whole(body.as_bytes())),
    };
    let key = AccessKey { id: "AKIDEXAMPLE", secret: &secret, session: session.as_ref() };
    let added = headers(&call, Scope { service: of("service"), region: "us-east-1" }, key, NOW)?;
    let added: HeaderMap = added.into_iter().collect();
    let value = |name: &HeaderName| added[name].to_str().expect("visible").to_owned();
    assert_eq!(value(&DATE), "20150830T123600Z");
    assert_eq!(added.get(&SESSION).map(HeaderValue::is_sensitive), session.map(|_| true));
    Ok((value(&header::AUTHORIZATION), value(&DIGEST)))
}

#[test]
fn the_vendors_own_signer_signs_the_same() {
    let vectors: Value = serde_json::from_str(include_str!("../../../../tests/vectors/sigv4.json")).expect("vectors");
    let cases = vectors["cases"].as_array().expect("a list");
    for case in cases {
        let expected = ["authorization", "payload"].map(|member| case[member].as_str().expect("a text").to_owned());
        assert_eq!(signed(case), Ok(expected.into()), "{}", case["name"]);
    }
    assert_eq!(cases.len(), 32);
}

#[test]
fn a_body_on_its_way_is_signed_as_such_by_the_one_service_that_takes_it() {
    let vectors: Value = serde_json::from_str(include_str!("../../../../tests/vectors/sigv4.json")).expect("vectors");
    let mut case = vectors["cases"][0].clone();
    case["body"] = Value::Null;
    assert_eq!(signed(&case).err(), Some(SignError::Streamed));
    let s3 = Scope { service: "s3", region: "eu-central-1" };
    assert_eq!((may_stream(s3, true), may_stream(s3, false)), (true, false));
    case["service"] = "a,b".into();
    assert_eq!(signed(&case).err(), Some(SignError::Scope));
}
