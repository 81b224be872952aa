//! Connections that a file declares, or the API keeps, without a token: the application gets one for itself when a call
//! needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::calls::service::{Answer, Service};
use crate::outside::gateway::Deployment;
use crate::outside::within;

/// A service that gives tokens of so many seconds to its one application, and knows whom a call is of.
async fn service(seconds: u32) -> (Arc<Service>, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&given);
    let service = Service::start(move |request| {
        if request.starts_with("POST /token ") {
            if !request.contains("grant_type=client_credentials") || !request.contains("client_secret=caller-key") {
                return Answer::json(401, r#"{"error":"invalid_client"}"#);
            }
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::json(
                200,
                &json!({ "access_token": format!("at-{number}"), "expires_in": seconds }).to_string(),
            );
        }
        let bearer = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
        Answer::json(if bearer.is_some() { 200 } else { 401 }, &json!({ "as": bearer }).to_string())
    });
    (Arc::new(service.await), given)
}

fn definition(service: &Service, id: &str, more: &str) -> String {
    format!(
        "trunkline: 1\nid: {id}\ntitle: Acme\nsummary: An application that acts for itself.\n\
         auth:\n  oauth2:\n    grant: client_credentials\n    token: http://{0}/token\n    client_auth: form\n    \
         client: {{ id: app, secret: \"${{env:SERVICE_SECRET}}\" }}\n\
         api:\n  base_url: http://{0}\n  allow_private: true\n  test: GET /me\n{more}",
        service.address
    )
}

const DECLARED: &str = "connections:\n  - { id: default }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_connection_gets_its_token_when_a_call_needs_one() {
    let (service, given) = service(3_600).await;
    let (short, renewed) = self::service(2).await;
    tokio::task::spawn_blocking(move || {
        let definitions =
            [("acme", definition(&service, "acme", DECLARED)), ("short", definition(&short, "short", DECLARED))];
        let deployment = Deployment::with(&definitions, "private_networks: [127.0.0.0/8]\n");
        let gateway = deployment.start();
        for _ in 0..3 {
            let reply = deployment.call("acme", "default", "/things").unwrap();
            assert_eq!((reply.status, &reply.json()["as"]), (200, &json!("at-1")), "{}", deployment.log_tail());
        }
        assert_eq!(given.load(Ordering::SeqCst), 1, "one token for all calls");
        assert_eq!(deployment.call("short", "default", "/things").unwrap().status, 200);
        let later = within(std::time::Duration::from_secs(20), || {
            deployment.call("short", "default", "/things").unwrap().json()["as"] == json!("at-2")
        });
        assert!(later, "another once the first has ended");
        assert!(renewed.load(Ordering::SeqCst) >= 2);
        let shown = deployment.ask("GET", "/api/connections", &json!(null)).json();
        let row = shown
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["integration"] == "acme" || row["integration"]["id"] == "acme");
        assert_eq!(row.unwrap()["status"], "active", "{shown}");
        gateway.stop();
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_the_api_keeps_does_too_and_a_refused_application_is_told() {
    let (service, given) = service(3_600).await;
    tokio::task::spawn_blocking(move || {
        let refused = definition(&service, "refused", DECLARED).replace("SERVICE_SECRET", "BACKEND_KEY");
        let definitions = [("acme", definition(&service, "acme", "")), ("refused", refused)];
        let deployment = Deployment::with(&definitions, "private_networks: [127.0.0.0/8]\n");
        let gateway = deployment.start();
        let draft = |id: &str| json!({ "integration": id, "connection": "own", "credential": "none" });
        let tried = deployment.ask("POST", "/api/integrations/test", &draft("acme"));
        assert_eq!((tried.status, &tried.json()["ok"]), (200, &json!(true)), "{}", tried.json());
        let kept = deployment.ask("POST", "/api/integrations/save", &draft("acme"));
        assert_eq!(kept.status, 201, "{}", kept.json());
        let reply = deployment.call("acme", "own", "/things").unwrap();
        assert_eq!(reply.status, 200, "{}", deployment.log_tail());
        assert!(given.load(Ordering::SeqCst) >= 1);

        let reply = deployment.call("refused", "default", "/things").unwrap();
        let problem = reply.json();
        assert!(reply.status >= 400 && problem["detail"].to_string().contains("invalid_client"), "{problem}");
        let shown = deployment.ask("GET", "/api/connections", &json!(null)).json().to_string();
        assert!(shown.contains("correct `auth.oauth2` in the definition"), "{shown}");
        gateway.stop();
    })
    .await
    .unwrap();
}
