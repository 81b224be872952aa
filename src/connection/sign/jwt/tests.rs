//! Known answers of RFC 7515, what each algorithm makes and takes back, and what a claim may be.

use std::sync::LazyLock;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, Validation, decode};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::json;

use super::*;
use crate::base::random::SystemRandom;
use crate::base::signing_key::{Algorithm, Encoding};
use crate::template::{Text, Tree};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const RSA: &str = include_str!("../../../../tests/vectors/keys/rsa.pkcs8.pem");
const RSA_PKCS1: &str = include_str!("../../../../tests/vectors/keys/rsa.pkcs1.pem");
const RSA_PUBLIC: &str = include_str!("../../../../tests/vectors/keys/rsa.public.pem");
const P256: &str = include_str!("../../../../tests/vectors/keys/p256.pkcs8.pem");
const P256_SEC1: &str = include_str!("../../../../tests/vectors/keys/p256.sec1.pem");
const P256_PUBLIC: &str = include_str!("../../../../tests/vectors/keys/p256.public.pem");
const P384: &str = include_str!("../../../../tests/vectors/keys/p384.pkcs8.pem");
const P384_SEC1: &str = include_str!("../../../../tests/vectors/keys/p384.sec1.pem");
const P384_PUBLIC: &str = include_str!("../../../../tests/vectors/keys/p384.public.pem");
const ED25519: &str = include_str!("../../../../tests/vectors/keys/ed25519.pkcs8.pem");
const ED25519_PUBLIC: &str = include_str!("../../../../tests/vectors/keys/ed25519.public.pem");
const ENCRYPTED: &str = include_str!("../../../../tests/vectors/keys/encrypted.pem");

static RANDOM: LazyLock<SystemRandom> = LazyLock::new(SystemRandom::default);

fn key(algorithm: Algorithm, text: &str, encoding: Encoding) -> SigningKey {
    SigningKey::read(algorithm, &text.into(), encoding).unwrap_or_else(|fault| panic!("{algorithm:?}: {fault}"))
}

fn signed(key: &SigningKey, claims: &Json) -> String {
    let claims = claims.as_object().expect("a map").clone();
    let unsigned = Claims { key_id: Some("k1"), claims, ttl: Duration::from_mins(2) };
    sign(key, unsigned, NOW, &*RANDOM).expect("signed").expose().clone()
}

/// What an independent library reads in a token, after it has verified it.
fn verified(token: &str, algorithm: jsonwebtoken::Algorithm, key: &DecodingKey) -> Map<String, Json> {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    let read = decode::<Map<String, Json>>(token, key, &validation).expect("a token that verifies");
    assert_eq!(read.header.kid.as_deref(), Some("k1"));
    read.claims
}

#[test]
fn the_examples_of_the_rfcs_come_out_as_printed() {
    let vectors: Vec<Json> = serde_json::from_str(include_str!("../../../../tests/vectors/jws.json")).expect("vectors");
    for vector in vectors {
        let text = |member: &str| vector[member].as_str().expect("a text");
        let algorithm = match text("alg") {
            "HS256" => Algorithm::HS256,
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            _ => Algorithm::EdDSA,
        };
        let mut jwk = vector["key"].clone();
        jwk["kid"] = "named".into();
        let key = key(algorithm, &jwk.to_string(), Encoding::Utf8);
        assert_eq!(key.id(), Some("named"));
        let token = compact(&key, text("header"), text("payload")).expect("signed");
        let (message, signature) = token.expose().rsplit_once('.').expect("three parts");
        if algorithm == Algorithm::ES256 {
            // Each signature is another (RFC 7515, A.3.1), so ours and the printed one are both verified.
            let coordinate = |member: &str| URL_SAFE_NO_PAD.decode(jwk[member].as_str().expect("a text"));
            let public = [vec![4], coordinate("x").expect("base 64"), coordinate("y").expect("base 64")].concat();
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
            for signature in [signature, text("signature")] {
                let signature = URL_SAFE_NO_PAD.decode(signature).expect("base 64");
                public.verify(message.as_bytes(), &signature).expect("it verifies");
            }
        } else {
            assert_eq!(signature, text("signature"), "{}", text("source"));
        }
    }
}

#[test]
fn every_algorithm_and_form_of_key_is_read_by_another_library() {
    use jsonwebtoken::Algorithm as Theirs;
    let rsa = DecodingKey::from_rsa_pem(RSA_PUBLIC.as_bytes()).expect("a key");
    let p256 = DecodingKey::from_ec_pem(P256_PUBLIC.as_bytes()).expect("a key");
    let p384 = DecodingKey::from_ec_pem(P384_PUBLIC.as_bytes()).expect("a key");
    let ed25519 = DecodingKey::from_ed_pem(ED25519_PUBLIC.as_bytes()).expect("a key");
    let escaped = RSA.replace('\n', "\\n");
    for (ours, theirs, private, public) in [
        (Algorithm::RS256, Theirs::RS256, RSA, &rsa),
        (Algorithm::RS256, Theirs::RS256, &*escaped, &rsa),
        (Algorithm::RS384, Theirs::RS384, RSA_PKCS1, &rsa),
        (Algorithm::RS512, Theirs::RS512, RSA, &rsa),
        (Algorithm::PS256, Theirs::PS256, RSA, &rsa),
        (Algorithm::PS384, Theirs::PS384, RSA, &rsa),
        (Algorithm::PS512, Theirs::PS512, RSA_PKCS1, &rsa),
        (Algorithm::ES256, Theirs::ES256, P256, &p256),
        (Algorithm::ES256, Theirs::ES256, P256_SEC1, &p256),
        (Algorithm::ES384, Theirs::ES384, P384, &p384),
        (Algorithm::ES384, Theirs::ES384, P384_SEC1, &p384),
        (Algorithm::EdDSA, Theirs::EdDSA, ED25519, &ed25519),
    ] {
        let token = signed(&key(ours, private, Encoding::Utf8), &json!({ "sub": "ü", "admin": true }));
        let claims = verified(&token, theirs, public);
        assert_eq!((&claims["sub"], &claims["admin"]), (&json!("ü"), &json!(true)), "{ours:?}");
    }
}

#[test]
fn shared_secrets_have_the_bytes_their_encoding_says() {
    use jsonwebtoken::Algorithm as Theirs;
    let bytes = DecodingKey::from_secret(&[0xfb, 0xff, 0x3e, 0x41]);
    for (ours, theirs, text, encoding) in [
        (Algorithm::HS256, Theirs::HS256, "FBff3e41", Encoding::Hex),
        (Algorithm::HS384, Theirs::HS384, "+/8+QQ==", Encoding::Base64),
        (Algorithm::HS512, Theirs::HS512, "-_8-QQ", Encoding::Base64Url),
    ] {
        verified(&signed(&key(ours, text, encoding), &json!({})), theirs, &bytes);
    }
    let utf8 = DecodingKey::from_secret("FBff3e41".as_bytes());
    verified(&signed(&key(Algorithm::HS256, "FBff3e41\n", Encoding::Utf8), &json!({})), Theirs::HS256, &utf8);
}

#[test]
fn a_token_says_when_it_was_made_and_when_it_ends_and_is_like_no_other() {
    let shared = key(Algorithm::HS256, "secret", Encoding::Utf8);
    let read = |claims: &Json| {
        let token = signed(&shared, claims);
        verified(&token, jsonwebtoken::Algorithm::HS256, &DecodingKey::from_secret(b"secret"))
    };
    let (first, second) = (read(&json!({})), read(&json!({ "iat": NOW.seconds() - 60, "jti": null })));
    assert_eq!((&first["iat"], &first["exp"]), (&json!(1_800_000_000), &json!(1_800_000_120)));
    assert_eq!((&second["iat"], second.get("jti")), (&json!(1_799_999_940), None));
    assert_ne!(first["jti"], read(&json!({}))["jti"]);
    assert_eq!(first["jti"].as_str().map(str::len), Some(22));
}

#[test]
fn what_is_no_key_of_the_algorithm_is_refused_without_being_repeated() {
    let jwk = |more: Json| more.to_string();
    let public = jwk(json!({ "kty": "EC", "crv": "P-256", "x": "canaryAA", "y": "canaryAA" }));
    for (algorithm, text, encoding, words) in [
        (Algorithm::HS256, RSA, Encoding::Utf8, "signs with a shared secret"),
        (Algorithm::HS256, "canary", Encoding::Hex, "not in the encoding"),
        (Algorithm::HS256, "", Encoding::Utf8, "empty"),
        (Algorithm::RS256, "canary", Encoding::Utf8, "expected PEM"),
        (Algorithm::RS256, P256, Encoding::Utf8, "needs an RSA key"),
        (Algorithm::RS256, ED25519, Encoding::Utf8, "needs an RSA key"),
        (Algorithm::RS256, RSA_PUBLIC, Encoding::Utf8, "no private key"),
        (Algorithm::ES256, P384, Encoding::Utf8, "needs an EC key on P-256"),
        (Algorithm::ES384, P256_SEC1, Encoding::Utf8, "needs an EC key on P-384"),
        (Algorithm::ES256, RSA_PKCS1, Encoding::Utf8, "another kind"),
        (Algorithm::ES256, ENCRYPTED, Encoding::Utf8, "passphrase"),
        (Algorithm::ES256, &*public, Encoding::Utf8, "has no `d`"),
        (Algorithm::RS256, &*public, Encoding::Utf8, "`kty` is not `RSA`"),
        (Algorithm::HS256, &*jwk(json!({ "kty": "oct", "k": "canary", "alg": "none" })), Encoding::Utf8, "`alg`"),
        (Algorithm::HS256, &*jwk(json!({ "kty": "RSA", "k": "canary" })), Encoding::Utf8, "`kty` is not `oct`"),
        (Algorithm::HS256, &*jwk(json!({ "kty": "oct", "k": "c", "use": "enc" })), Encoding::Utf8, "`use`"),
    ] {
        let fault = SigningKey::read(algorithm, &text.into(), encoding).expect_err(words).to_string();
        assert!(fault.contains(words) && !fault.contains("canary"), "{algorithm:?}: {fault}");
    }
}

#[test]
fn a_declared_assertion_is_filled_in_and_signed_by_its_key_or_the_connections_own() {
    let tree = |value: &Json| Tree::compile(value, &mut |_, error| panic!("{error}"));
    let mut declared = Assertion {
        algorithm: Algorithm::HS256,
        key: None,
        encoding: Encoding::Hex,
        key_id: Some(Text::compile("{{ input.key }}").expect("compiles")),
        claims: vec![("aud".to_owned(), tree(&json!(["{{ input.site }}"])))],
        ttl: Duration::from_mins(1),
    };
    let context = Context::new().with_json("input", &json!({ "key": "k1", "site": "s" }));
    let sign = |declared: &Assertion, own: Option<&str>| {
        let own = own.map(Secret::from);
        assertion(declared, own.as_ref(), &context, (NOW, &*RANDOM))
    };
    assert_eq!(sign(&declared, None).err(), Some(SignError::NoKey));
    assert!(matches!(sign(&declared, Some("zz")), Err(SignError::Key(KeyFault::Encoding))));
    let own = sign(&declared, Some("6b6b")).expect("signed");
    let claims = verified(own.expose(), jsonwebtoken::Algorithm::HS256, &DecodingKey::from_secret(b"kk"));
    assert_eq!((&claims["aud"], &claims["exp"]), (&json!(["s"]), &json!(1_800_000_060)));
    declared.claims.push(("sub".to_owned(), tree(&json!("x{{ input.gone }}"))));
    let error = sign(&declared, Some("6b6b")).expect_err("a claim without value").to_string();
    assert!(error.starts_with("`claims.sub`"), "{error}");
}
