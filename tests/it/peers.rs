//! Against servers that we did not write.

mod cache;
mod rush;
mod schemathesis;
mod signatures;
mod tokens;

use serde_json::{Value, json};

use crate::outside::http::{Client, Reply};
use crate::support::browser::Browser;
use crate::support::peer::Peer;

/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const CALLBACK: &str = "http://127.0.0.1:1/cb";
/// A secret in which every character means something to some encoding.
const SECRET: &str = "a+/=%&b";

fn oidc_client(secret: &str) -> Value {
    json!({ "client_id": "app", "client_secret": secret, "redirect_uris": [CALLBACK], "grant_types": ["authorization_code", "refresh_token"] })
}

fn form(peer: &Peer, path: &str, fields: &[(&str, &str)], basic: &str) -> Reply {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", basic)];
    Client::new(peer.address).send("POST", path, &headers, body.as_bytes()).unwrap()
}

/// What the tests of our own client rest on: the peer refuses what it has to, and counts it.
#[test]
fn the_certified_server_wants_pkce_and_form_encoded_basic_and_notices_reuse() {
    let peer = Peer::oidc(&json!({ "clients": [oidc_client(SECRET)] }));
    let told = peer.get("/.well-known/openid-configuration").json();
    assert_eq!(told["code_challenge_methods_supported"], json!(["S256"]));
    let mut browser = Browser::default();
    browser.stop = Some(CALLBACK.to_owned());
    let authorize = |more: &str| {
        format!(
            "{}/auth?client_id=app&response_type=code&redirect_uri={CALLBACK}&scope=openid&state=s{more}",
            peer.url()
        )
    };
    let without = browser.open(&authorize(""));
    assert_eq!(without.parameter("error").as_deref(), Some("invalid_request"));
    let with = authorize(&format!("&code_challenge={CHALLENGE}&code_challenge_method=S256"));
    let page = browser.open(&with);
    assert_eq!(page.status, 200, "{page:?}");
    let page = browser.agree(page, CALLBACK);
    assert_eq!(page.parameter("iss"), Some(peer.url()));
    let code = page.parameter("code").unwrap();
    let exchange = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    // `app:a+/=%&b` as it is, and form-encoded (RFC 6749 §2.3.1).
    let raw = form(&peer, "/token", &exchange, "Basic YXBwOmErLz0lJmI=");
    assert!((400..500).contains(&raw.status), "{raw:?}");
    let tokens = form(&peer, "/token", &exchange, "Basic YXBwOmElMkIlMkYlM0QlMjUlMjZi").json();
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let renew = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
    let statuses = [(); 2].map(|()| form(&peer, "/token", &renew, "Basic YXBwOmElMkIlMkYlM0QlMjUlMjZi").status);
    assert_eq!(statuses, [200, 400]);
    assert_eq!((peer.stat("/granted/refresh_token"), peer.stat("/revoked")), (1, 1));
}

#[test]
fn the_other_peers_start_and_refuse_what_they_must() {
    let odd = Peer::odd(&json!({ "client": { "id": "a", "secret": "b" } }));
    assert_eq!(odd.post("/token", &json!({})).status, 401);
    let django = Peer::django(&json!({ "id": "app", "secret": "s", "redirect_uris": [CALLBACK] }));
    assert_eq!(django.get("/api/me").status, 403);
    let options = json!({ "key": "k", "secret": "s", "method": "HMAC-SHA1", "redirect_uris": [] });
    assert_eq!(Peer::oauth1(&options).get("/api/me").status, 401);
    let (aws, key) = Peer::aws();
    let id = key["id"].as_str().unwrap();
    let forged = format!(
        "AWS4-HMAC-SHA256 Credential={id}/20260131/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"
    );
    let headers = [("authorization", forged.as_str()), ("x-amz-date", "20260131T100000Z")];
    let refused = Client::new(aws.address).send("GET", "/a-bucket", &headers, b"").unwrap();
    let told = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(refused.status == 403 && told.contains("SignatureDoesNotMatch"), "{told}");
}
