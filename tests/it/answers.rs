//! Answers that are read whole: what they all together may hold, and that it comes back.

use serde_json::Value;

use crate::outside::gateway::Deployment;
use crate::outside::http::{Client, Reply};
use crate::outside::{service, within};
use crate::support::raw::PATIENCE;

#[test]
fn all_together_have_a_bound_and_a_call_beyond_it_is_refused() {
    let address = service::start(|asked| {
        let bytes: usize = asked.path().rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(0);
        (200, format!("{{\"text\":\"{}\"}}", "x".repeat(bytes)))
    });
    let shop = format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ none: {{}} }}\n\
         api:\n  base_url: \"http://{address}\"\n  \
         endpoints:\n    - {{ id: read, request: \"GET /{{{{ input.bytes }}}}\", result: \"{{{{ body.text | length }}}}\" }}\n\
         connections: [{{ id: main }}]\n"
    );
    let deployment = Deployment::with(&[("shop", shop)], "limits: { whole_answer_bytes: 200KiB }\n");
    let _gateway = deployment.start();
    let read = |bytes: usize| -> Reply {
        let headers = [
            ("authorization", "Bearer caller-key-0123456789abcdef01234"),
            ("trunkline-connection", "main"),
            ("content-type", "application/json"),
        ];
        let body = format!("{{\"bytes\":{bytes}}}");
        Client::new(deployment.proxy).send("POST", "/shop/-/read", &headers, body.as_bytes()).unwrap()
    };
    let metrics = || String::from_utf8_lossy(&deployment.ask("GET", "/metrics", &Value::Null).body).into_owned();
    for _ in 0..5 {
        assert_eq!((read(150_000).status, read(150_000).json()), (200, Value::from(150_000)));
        let refused = read(400_000);
        let told = refused.json();
        assert_eq!((refused.status, &told["code"]), (502, &Value::from("service_answer_invalid")), "{told}");
        assert!(told.to_string().contains("answered 200"), "the service has the call: {told}");
        assert!(refused.json().to_string().contains("limits.whole_answer_bytes"), "{}", refused.json());
    }
    assert!(metrics().contains("trunkline_whole_answers_refused_total 5\n"), "{}", metrics());
    assert!(within(PATIENCE, || metrics().contains("trunkline_whole_answer_bytes 0\n")), "what was read is given back");
    // What is streamed is not counted.
    assert_eq!(deployment.call("shop", "main", "/400000").unwrap().status, 200);
}

#[test]
fn what_is_made_of_an_answer_counts_as_well() {
    let address = service::start(|asked| {
        let bytes = if asked.path() == "/fits" { 7_000 } else { 15_000 };
        (200, format!("{{\"text\":\"{}\"}}", "x".repeat(bytes)))
    });
    let changed = |id: &str| {
        let text = "{{ body.text }}".repeat(20);
        format!(
            "    - {{ id: {id}, request: GET /{id}, result: \"{text}\", transform: {{ response: {{ json: {{ text: \"{text}\" }} }} }} }}\n"
        )
    };
    let shop = format!(
        "trunkline: 1\nid: shop\ntitle: Shop\nsummary: Sells.\nauth: {{ none: {{}} }}\n\
         api:\n  base_url: \"http://{address}\"\n  endpoints:\n{}{}connections: [{{ id: main }}]\n",
        changed("fits"),
        changed("exceeds")
    );
    let deployment = Deployment::with(&[("shop", shop)], "limits: { whole_answer_bytes: 200KiB }\n");
    let _gateway = deployment.start();
    let named = |id: &str| {
        let headers = [
            ("authorization", "Bearer caller-key-0123456789abcdef01234"),
            ("trunkline-connection", "main"),
            ("content-type", "application/json"),
        ];
        Client::new(deployment.proxy).send("POST", &format!("/shop/-/{id}"), &headers, b"{}").unwrap()
    };
    let metrics = || String::from_utf8_lossy(&deployment.ask("GET", "/metrics", &Value::Null).body).into_owned();
    // It is given back when an answer has been sent, which who reads it may see a moment earlier.
    let has_all = || assert!(within(PATIENCE, || metrics().contains("trunkline_whole_answer_bytes 0\n")), "given back");
    for _ in 0..3 {
        assert_eq!(deployment.call("shop", "main", "/fits").unwrap().json()["text"], "x".repeat(140_000));
        has_all();
        assert_eq!(named("fits").json(), Value::from("x".repeat(140_000)));
        has_all();
        for by_name in [false, true] {
            let call = || deployment.call("shop", "main", "/exceeds").unwrap();
            let refused = if by_name { named("exceeds") } else { call() };
            has_all();
            let told = refused.json();
            assert_eq!((refused.status, &told["code"]), (502, &Value::from("service_answer_invalid")), "{told:.300}");
            assert!(told.to_string().contains("limits.whole_answer_bytes"), "{told:.300}");
        }
    }
}
