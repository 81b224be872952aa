//! Calls that carry a signature, against verifiers that we did not write: botocore's by way of moto, and oauthlib's.

use serde_json::{Value, json};
use tokio::net::TcpStream;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::plan::Integration;
use trunkline::definition::plan::gateway::Network;
use trunkline::definition::templates::Templates;

use crate::support::doors::{Doors, Setup};
use crate::support::origin::serve;
use crate::support::peer::Peer;
use crate::support::raw::{Reply, call};
use crate::support::tls::Authority;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const KEY: &str = include_str!("../../vectors/keys/rsa.pkcs8.pem");
const PUBLIC_KEY: &str = include_str!("../../vectors/keys/rsa.public.pem");

fn definition(auth: &Value, api: &Value, connection: &Value) -> Integration {
    let whole = json!({ "trunkline": 1, "id": "svc", "auth": auth, "api": api, "connections": [connection] });
    let document = Document::unplaced("svc.yaml".into(), whole);
    compile::integration(&document, &Templates::new()).unwrap_or_else(|fault| panic!("{}", fault.message))
}

/// A door to a service of Amazon's.
fn aws(peer: &Peer, service: &str, (id, secret): (&str, &str)) -> Doors {
    let dynamo =
        json!({ "X-Amz-Target": "DynamoDB_20120810.ListTables", "Content-Type": "application/x-amz-json-1.0" });
    let api = json!({
        "base_url": peer.url(),
        "endpoints": [
            { "id": "tables", "request": "POST /", "headers": dynamo, "json": { "Limit": 5 }, "result": "{{ body.TableNames }}" },
            { "id": "store", "request": "PUT /a-bucket/from%20us%2B%C3%A9?x-id=PutObject", "text": "a text & more" },
        ],
    });
    let auth = json!({ "sigv4": { "service": service, "region": "us-east-1" } });
    let connection = json!({ "id": "default", "username": id, "password": secret });
    Doors::start(Setup::of(definition(&auth, &api, &connection)))
}

async fn own(doors: &Doors, endpoint: &str) -> Reply {
    call(doors.proxy, &format!("POST /svc/-/{endpoint}"), "", "{}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn amazons_own_signer_agrees_with_ours_about_objects_and_json() {
    let (peer, key) = Peer::aws();
    let key = (key["id"].as_str().unwrap(), key["secret"].as_str().unwrap());
    let (s3, dynamo) = (aws(&peer, "s3", key), aws(&peer, "dynamodb", key));
    let text = "Content-Type: text/plain\r\n";
    for (line, headers, body, expected) in [
        ("PUT /svc/a-bucket", "", "", None),
        ("PUT /svc/a-bucket/a%20key%2B%C3%A9.txt", text, "hello", None),
        ("GET /svc/a-bucket/a%20key%2B%C3%A9.txt", "", "", Some("hello")),
        ("GET /svc/a-bucket?list-type=2&prefix=a%20key", "", "", Some("<Contents>")),
    ] {
        let reply = call(s3.proxy, line, headers, body).await;
        assert_eq!(reply.status, 200, "{line}: {reply:?} {}", reply.text());
        assert!(expected.is_none_or(|part| reply.text().contains(part)), "{line}: {}", reply.text());
    }
    let stored = own(&s3, "store").await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    let back = call(s3.proxy, "GET /svc/a-bucket/from%20us%2B%C3%A9", "", "").await;
    assert_eq!(back.text(), "a text & more");
    let json = "Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\n";
    let tables = call(dynamo.proxy, "POST /svc/", json, "{\"Limit\": 5}").await;
    assert_eq!((tables.status, tables.json()["TableNames"].clone()), (200, json!([])), "{}", tables.text());
    let tables = own(&dynamo, "tables").await;
    assert_eq!((tables.status, tables.json()), (200, json!([])), "{}", tables.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn amazon_takes_calls_that_a_temporary_key_of_its_own_signed() {
    let (peer, key) = Peer::aws();
    let (id, secret) = (key["id"].as_str().unwrap(), key["secret"].as_str().unwrap());
    let of = |name: &str| format!("(body | split('<{name}>'))[1] | split('<') | first");
    let session = json!({
        "request": format!("POST {}/", peer.url()),
        "form": { "Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": key["role"], "RoleSessionName": "trunkline" },
        "access_key": {
            "id": of("AccessKeyId"), "secret": of("SecretAccessKey"), "session": of("SessionToken"),
            "expires": { "at": of("Expiration"), "unit": "rfc3339" },
        },
        "error": "(body | split('<Message>'))[1] | split('<') | first",
    });
    let api = json!({ "base_url": peer.url() });
    let doors = |auth: &Value, connection: &Value| Doors::start(Setup::of(definition(auth, &api, connection)));
    let text = "Content-Type: text/plain\r\n";
    // By a key of the connection's own, and by one of the deployment.
    let own = json!({ "sigv4": { "service": "s3", "region": "us-east-1", "session": session } });
    let of_all = json!({ "sigv4": { "service": "s3", "region": "us-east-1", "session": session, "key": { "id": id, "secret": secret } } });
    let calls = [
        doors(&own, &json!({ "id": "default", "username": id, "password": secret })),
        doors(&of_all, &json!({ "id": "default" })),
    ];
    for (place, doors) in calls.iter().enumerate() {
        let made = call(doors.proxy, &format!("PUT /svc/bucket-{place}"), "", "").await;
        assert_eq!(made.status, 200, "{place}: {}", made.text());
        for _ in 0..2 {
            let put = call(doors.proxy, &format!("PUT /svc/bucket-{place}/key"), text, "hello").await;
            assert_eq!(put.status, 200, "{place}: {}", put.text());
        }
    }
    let wrong = doors(&own, &json!({ "id": "default", "username": id, "password": "not-the-secret-of-this-key" }));
    let refused = call(wrong.proxy, "GET /svc/bucket-0/key", "", "").await;
    assert_eq!((refused.status, refused.code()), (503, Some("connection_unusable")), "{}", refused.text());
    assert!(refused.text().contains("signature we calculated"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn amazon_refuses_what_a_wrong_key_signed() {
    let (peer, key) = Peer::aws();
    let wrong = (key["id"].as_str().unwrap(), "not-the-secret-of-this-key");
    let (s3, dynamo) = (aws(&peer, "s3", wrong), aws(&peer, "dynamodb", wrong));
    let passed = call(s3.proxy, "PUT /svc/a-bucket/key", "Content-Type: text/plain\r\n", "hello").await;
    assert!(passed.status == 403 && passed.text().contains("SignatureDoesNotMatch"), "{}", passed.text());
    assert_eq!(passed.code(), None, "it is the service's own answer");
    for (doors, endpoint) in [(&s3, "store"), (&dynamo, "tables")] {
        let refused = own(doors, endpoint).await;
        assert_eq!(refused.code(), Some("service_refused"), "{}", refused.text());
    }
}

/// A door to the OAuth 1.0a service, over TLS in front of it: PLAINTEXT goes over nothing else.
async fn oauth1(peer: &Peer, signature: &str, secret: &str, connection: &Value) -> Doors {
    let (authority, behind) = (Authority::new(), peer.address);
    let acceptor = authority.acceptor("oauth.test", &[]);
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut outside) = acceptor.accept(stream).await else { return };
            let mut inside = TcpStream::connect(behind).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
        }
    })
    .await;
    let url = format!("https://oauth.test:{}", address.port());
    let auth = json!({ "oauth1": {
        "request_token": format!("POST {url}/request_token"), "authorize": format!("{url}/authorize"),
        "access_token": format!("POST {url}/access_token"),
        "signature": signature, "client": { "id": "app", "secret": secret },
    } });
    let api = json!({
        "base_url": url, "tls": { "ca": authority.pem() }, "http": "1.1", "allow_private": true,
        "endpoints": [{ "id": "echo", "request": "POST /api/echo?q=a%20b", "form": { "x y": "1&2=é" }, "result": "{{ body }}" }],
    });
    let mut setup = Setup::of(definition(&auth, &api, connection));
    setup.names = vec![("oauth.test", vec!["127.0.0.1"])];
    setup.private_networks = vec![Network { address: [127, 0, 0, 0].into(), prefix: 8 }];
    Doors::start(setup)
}

#[tokio::test(flavor = "multi_thread")]
async fn oauthlib_verifies_what_we_sign_in_every_way_and_refuses_other_secrets() {
    for (method, signature, secret) in [
        ("HMAC-SHA1", "hmac_sha1", "a+/=%&b"),
        ("HMAC-SHA256", "hmac_sha256", "a+/=%&b"),
        ("RSA-SHA1", "rsa_sha1", KEY),
        ("PLAINTEXT", "plaintext", "a+/=%&b"),
    ] {
        let peer = Peer::oauth1(&json!({
            "key": "app", "secret": secret, "method": method, "public_key": PUBLIC_KEY, "redirect_uris": [],
            "tokens": { "tok+1": "tok/secret=" }, "scheme": "https",
        }));
        let account = json!({ "id": "default", "token": "tok+1", "token_secret": "tok/secret=" });
        let legs = oauth1(&peer, signature, secret, &account).await;
        let me = call(legs.proxy, "GET /svc/api/me?z=1&a=%2F&a=b+c", "", "").await;
        assert_eq!((me.status, me.json()["id"].clone()), (200, json!("ada-1")), "{method}: {}", me.text());
        let form = call(legs.proxy, "POST /svc/api/echo?x=1", FORM, "b=1+2&a=%26%3D").await;
        assert_eq!((form.status, form.json()), (200, json!({ "b": "1 2", "a": "&=" })), "{method}: {}", form.text());
        let named = own(&legs, "echo").await;
        assert_eq!((named.status, named.json()), (200, json!({ "x y": "1&2=é" })), "{method}: {}", named.text());
        // One leg: the application itself, without a token.
        let alone = oauth1(&peer, signature, secret, &json!({ "id": "default" })).await;
        let ping = call(alone.proxy, "GET /svc/signed/ping?a=b%20c", "", "").await;
        assert_eq!(ping.status, 200, "{method}: {}", ping.text());
        let refused = call(alone.proxy, "GET /svc/api/me", "", "").await;
        assert_eq!(refused.status, 401, "{method}: a call without a token got through");
        // A wrong secret signs nothing that counts. With RSA there is none: the token's secret has no part in it.
        let other = json!({ "id": "default", "token": "tok+1", "token_secret": "other" });
        let forgeries = if method == "RSA-SHA1" { vec![] } else { vec![("other", &account), (secret, &other)] };
        for (secret, connection) in forgeries {
            let forged = oauth1(&peer, signature, secret, connection).await;
            let reply = call(forged.proxy, "GET /svc/api/me", "", "").await;
            assert_eq!((reply.status, reply.code()), (401, None), "{method}: {}", reply.text());
        }
    }
}
