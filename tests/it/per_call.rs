//! Headers of an API that are made anew for each call: of the moment, the call and the credential, as WSSE and its like
//! want them, through each way that a call goes.

use std::sync::Arc;

use http::Method;
use sha2::{Digest as _, Sha256};

use crate::calls::service::{Answer, Service};
use crate::outside::gateway::Deployment;
use crate::outside::http::Client;

const KEY: (&str, &str) = ("authorization", "Bearer caller-key-0123456789abcdef01234");

fn deployment(service: &Service) -> Deployment {
    let proof = "{{ username }};{{ nonce }};{{ now }};{{ (nonce ~ now ~ request.method ~ request.host ~ request.path ~ '?' \
                 ~ request.query ~ password) | sha256 }}";
    let definition = format!(
        "trunkline: 1\nid: wsse\ntitle: WSSE\nsummary: Calls with a digest of their own.\nauth: {{ basic: {{}} }}\n\
         api:\n  base_url: http://{}/v2\n  allow_private: true\n  credential: {{ header: X-Proof, value: \"{proof}\" }}\n  \
         headers: {{ X-Fixed: \"{{{{ connection.id }}}}\", X-Request: \"{{{{ uuid }}}}\" }}\n  \
         endpoints:\n    - {{ id: note, request: POST /notes, query: {{ a: \"1\" }}, json: {{ text: \"{{{{ input.text }}}}\" }} }}\n    \
         - {{ id: changed, request: PUT /notes, transform: {{ request: {{ json: {{ text: new }} }} }} }}\n\
         connections:\n  - {{ id: default, username: ada, password: \"${{env:SHOP_KEY}}\" }}\n",
        service.address
    );
    Deployment::with(&[("wsse", definition)], "private_networks: [127.0.0.0/8]\n")
}

/// The proof of a call as the service got it, and whether it is right.
fn proof(seen: &str, host: &str) -> (String, bool) {
    let (line, _) = seen.split_once("\r\n").unwrap();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<_> = seen.lines().filter_map(|line| line.strip_prefix("x-proof: ")).collect();
    assert_eq!(headers.len(), 1, "{seen}");
    assert!(seen.contains("x-fixed: default\r\n") && !seen.contains("authorization:"), "{seen}");
    assert_eq!(seen.lines().filter(|line| line.starts_with("x-request: ")).count(), 1, "{seen}");
    let parts: Vec<_> = headers[0].split(';').collect();
    let [user, nonce, now, digest] = parts[..] else { panic!("{parts:?}") };
    let expected = Sha256::digest(format!("{nonce}{now}{method}{host}{path}?{query}shop-key"));
    let expected = expected.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    (nonce.to_owned(), user == "ada" && digest == expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_has_a_proof_of_its_own_whichever_way_it_goes() {
    let service =
        Arc::new(Service::start(|_: &str| Answer::of(200, &[("content-type", "application/json")], "{}")).await);
    tokio::task::spawn_blocking(move || {
        let deployment = deployment(&service);
        let gateway = deployment.start();
        let client = || Client::new(deployment.proxy);
        let forged = [KEY, ("x-proof", "forged"), ("content-type", "application/json")];
        let calls = [
            (Method::GET, "/wsse/notes?b=2", ""),
            (Method::POST, "/wsse/notes", "{\"text\":\"streamed\"}"),
            (Method::PUT, "/wsse/notes", "{}"),
            (Method::POST, "/wsse/-/note", "{\"text\":\"by name\"}"),
        ];
        for (method, target, body) in &calls {
            let reply = client().send(method.as_str(), target, &forged, body.as_bytes()).unwrap();
            assert_eq!(
                reply.status,
                200,
                "{target}: {}\n{}",
                String::from_utf8_lossy(&reply.body),
                deployment.log_tail()
            );
        }
        let host = service.address.to_string();
        let proofs: Vec<_> = service.seen().iter().map(|seen| proof(seen, &host)).collect();
        assert_eq!(proofs.len(), calls.len());
        assert!(proofs.iter().all(|(_, right)| *right), "{:?}", service.seen());
        let nonces: std::collections::HashSet<_> = proofs.into_iter().map(|(nonce, _)| nonce).collect();
        assert_eq!(nonces.len(), calls.len(), "each has its own");
        gateway.stop();
    })
    .await
    .unwrap();
}

/// An API of two tokens with a proof that is made anew, and a header that has a token in it.
fn of_two_tokens(service: &Service) -> Deployment {
    let definition = format!(
        "trunkline: 1\nid: two\ntitle: Two\nsummary: Two tokens.\nauth:\n  login:\n    steps: POST /login\n    \
         tokens: {{ default: {{ access: body.bot }}, user: {{ access: body.user }} }}\n\
         api:\n  base_url: http://{}\n  allow_private: true\n  \
         credential: {{ header: X-Proof, value: \"{{{{ token.access }}}};{{{{ nonce }}}}\" }}\n  \
         headers: {{ X-Token: \"{{{{ token.access }}}}\", X-Request: \"{{{{ uuid }}}}\" }}\n  endpoints:\n    \
         - {{ id: bot, request: GET /who }}\n    - {{ id: user, request: GET /who, credential: token user }}\n    \
         - {{ id: nobody, request: GET /who, credential: none }}\n    \
         - {{ id: basic, request: GET /who, basic: {{ username: ada }} }}\n    \
         - {{ id: own, request: GET /who, credential: none, headers: {{ X-Request: mine }} }}\n\
         connections:\n  - {{ id: default }}\n",
        service.address
    );
    Deployment::with(&[("two", definition)], "private_networks: [127.0.0.0/8]\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_made_of_the_token_that_a_call_names_and_of_none_where_it_names_none() {
    let tokens = "{\"bot\": \"bot-token-1\", \"user\": \"user-token-2\"}";
    let service =
        Arc::new(Service::start(move |_: &str| Answer::of(200, &[("content-type", "application/json")], tokens)).await);
    tokio::task::spawn_blocking(move || {
        let deployment = of_two_tokens(&service);
        let gateway = deployment.start();
        let headers = [KEY, ("content-type", "application/json")];
        let header = |name: &str| {
            let seen = service.seen().pop().unwrap();
            seen.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
        };
        for (endpoint, token) in
            [("bot", Some("bot-token-1")), ("user", Some("user-token-2")), ("nobody", None), ("basic", None)]
        {
            let reply =
                Client::new(deployment.proxy).send("POST", &format!("/two/-/{endpoint}"), &headers, b"{}").unwrap();
            assert_eq!(reply.status, 200, "{endpoint}: {}", String::from_utf8_lossy(&reply.body));
            let proof = header("x-proof");
            assert_eq!(proof.as_deref().and_then(|proof| proof.split(';').next()), token, "{endpoint}");
            assert_eq!(header("x-token").as_deref(), token, "{endpoint}");
            assert!(header("x-request").is_some_and(|id| id.len() == 36), "{endpoint}");
        }
        let reply = Client::new(deployment.proxy).send("POST", "/two/-/own", &headers, b"{}").unwrap();
        assert_eq!((reply.status, header("x-request").as_deref()), (200, Some("mine")));
        let named = [KEY, ("trunkline-token", "user")];
        assert_eq!(Client::new(deployment.proxy).send("GET", "/two/who", &named, b"").unwrap().status, 200);
        assert_eq!(header("x-token").as_deref(), Some("user-token-2"), "through the proxy door");
        gateway.stop();
    })
    .await
    .unwrap();
}

/// An API that wants a key with each call, where a failed one is sent again.
fn keyed(service: &Service) -> Deployment {
    let definition = format!(
        "trunkline: 1\nid: keyed\ntitle: Keyed\nsummary: A key with each call.\nauth: {{ none: {{}} }}\napi:\n  \
         base_url: http://{}\n  allow_private: true\n  headers: {{ Idempotency-Key: \"{{{{ uuid }}}}\" }}\n  \
         retry: {{ attempts: 3, backoff: 1ms, max_backoff: 5ms, idempotency_key: Idempotency-Key }}\n  endpoints:\n    \
         - {{ id: changed, request: POST /changed, transform: {{ request: {{ json: {{ text: new }} }} }} }}\n    \
         - {{ id: named, request: POST /named, json: {{}} }}\n",
        service.address
    );
    Deployment::with(&[("keyed", definition)], "private_networks: [127.0.0.0/8]\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotency_key_that_is_made_anew_is_one_for_all_tries_of_a_call() {
    let service =
        Arc::new(Service::start(|_: &str| Answer::of(503, &[("content-type", "application/json")], "{}")).await);
    tokio::task::spawn_blocking(move || {
        let deployment = keyed(&service);
        let gateway = deployment.start();
        for target in ["/keyed/streamed", "/keyed/changed", "/keyed/-/named"] {
            for own in [None, Some("mine-0123456789")] {
                let before = service.seen().len();
                let mut headers = vec![KEY, ("content-type", "application/json")];
                headers.extend(own.map(|own| ("idempotency-key", own)));
                Client::new(deployment.proxy).send("POST", target, &headers, b"{}").unwrap();
                let seen = service.seen();
                let key = |seen: &String| {
                    seen.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(str::to_owned))
                };
                let keys: Vec<_> = seen.iter().skip(before).map(key).collect();
                // The budget of retries lets the last ones be fewer.
                assert!((2..=3).contains(&keys.len()), "{target}: {keys:?}");
                let one = own.map(str::to_owned).or_else(|| keys[0].clone());
                assert!(one.is_some() && keys.iter().all(|key| *key == one), "{target}: {keys:?}");
            }
        }
        gateway.stop();
    })
    .await
    .unwrap();
}
