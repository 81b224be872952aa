//! What keeps the gateway from starting.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use trunkline::app::{App, Options, Seams};
use trunkline::definition::not_yet::{Effect, GATEWAY};

use crate::support::tls::Authority;

const SETTINGS: &str = "trunkline: 1\nmode: development\npublic_url: http://localhost:8080\nintegrations: [./integrations]\n\
    listen: { public: \"127.0.0.1:0\", proxy: \"127.0.0.1:0\", admin: \"127.0.0.1:0\" }\n";

/// A setting that uses a part, by the part's place.
fn uses(pointer: &str) -> &'static str {
    match pointer {
        "/tls" => "tls: { certificate: \"${env:CERTIFICATE}\", key: \"${env:KEY}\" }\n",
        "/state/postgres" => "state: { postgres: { url: \"${env:KEY}\" } }\n",
        "/rules/*/do/*/run" => {
            "plugins: { p: { module: ./p.wasm } }\nrules: [{ id: r, when: trunkline.*, do: [{ run: { name: p } }] }]\n"
        }
        other => panic!("say here how {other} is written"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_not_run_is_not_passed_over() {
    let (certificate, key) = Authority::new().client();
    let environment = HashMap::from([("CERTIFICATE".to_owned(), certificate), ("KEY".to_owned(), key)]);
    for part in GATEWAY.iter().filter(|part| part.effect == Effect::Refuses) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("integrations")).unwrap();
        fs::write(directory.path().join("trunkline.yaml"), format!("{SETTINGS}{}", uses(part.pointer))).unwrap();
        let seams = Seams { environment: Arc::new(environment.clone()), ..Seams::of_system().unwrap() };
        let gateway = directory.path().to_owned();
        let options = Options { gateway, development: false, mock: None, seams };
        let refused = Box::pin(App::start(options)).await.expect_err(part.pointer).to_string();
        assert!(refused.contains(&format!("`{}`", part.name())) && refused.contains("not yet run"), "{refused}");
        assert!(!directory.path().join("data").exists(), "nothing is made before it is refused");
    }
}
