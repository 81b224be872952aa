//! The whole program in this process, with people who may sign in, and a visitor with a cookie.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;
use trunkline::app::{App, Options, Running, Seams};
use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::definition::password;

use crate::outside::http::{Client, Reply};
use crate::outside::service;

pub const START: Timestamp = Timestamp::from_seconds(1_769_853_600);
/// Ada's password, who is an operator; Bob's, who is a viewer.
pub const ADA: &str = "ada-canary-correct-horse";
pub const BOB: &str = "bob-canary-battery-staple";
/// The admin token, and the viewers' program's.
pub const TOKEN: &str = "canary-admin-token-0123456789";
pub const WATCH: &str = "canary-watch-token-0123456789";
/// What a declared connection sends to its service; what proves webhooks.
pub const KEY: &str = "sk_canary_declared_key";
pub const PROOF: &str = "canary-webhook-secret";
/// What signs what is delivered.
pub const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Two people, a program that only looks, and the operator's token.
pub fn people() -> String {
    let hash = |text: &str| password::hash(text.as_bytes(), &[7; 16]).unwrap();
    format!(
        "admin:\n  token: \"${{env:TOKEN}}\"\n  people:\n    ada: {{ role: operator, password_hash: \"{}\" }}\n    \
         bob: {{ role: viewer, password_hash: \"{}\" }}\n    watch: {{ role: viewer, token: \"${{env:WATCH}}\" }}\n",
        hash(ADA),
        hash(BOB)
    )
}

/// A running gateway.
pub struct House {
    pub running: Running,
    pub clock: Arc<ManualClock>,
    pub admin: SocketAddr,
    pub public: SocketAddr,
    pub directory: TempDir,
}

fn definitions(service: SocketAddr) -> [(&'static str, String); 4] {
    [
        (
            "keyed",
            format!(
                "trunkline: 1\nid: keyed\ntitle: Keyed Service\nsummary: Has keys.\ncategory: payments\npricing: paid\n\
                 featured: true\nfeatures: [API key]\ndocs: https://keyed.example/docs\n\
                 logo: '<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 8 8\"><circle cx=\"4\" cy=\"4\" r=\"4\"/></svg>'\n\
                 inputs: {{ site: {{ title: Site, default: main }}, pin: {{ title: Pin, secret: true, optional: true }} }}\n\
                 auth: {{ api_key: {{ title: Secret key }} }}\n\
                 api:\n  base_url: \"http://{service}\"\n  error: body.error\n  test: GET /me\n\
                 \x20 credential: {{ header: X-Key, value: \"{{{{ api_key }}}}\" }}\n\
                 \x20 limits: [{{ rate: 25/s, per: connection }}]\n\
                 \x20 endpoints:\n    - {{ id: list_things, request: GET /things }}\n\
                 connections:\n  - {{ id: declared, api_key: \"${{env:KEY}}\" }}\n"
            ),
        ),
        (
            "hub",
            format!(
                "trunkline: 1\nid: hub\ntitle: Hub\nsummary: Asks for consent.\ncategory: crm\nauth:\n  oauth2:\n\
                 \x20   authorize: http://{service}/authorize\n    token: http://{service}/token\n\
                 \x20   client: {{ id: app, secret: \"${{env:KEY}}\" }}\n\
                 \x20   scopes:\n      - {{ name: read, grants: See your things., default: true }}\n\
                 api: {{ base_url: \"http://{service}\", test: GET /me }}\n"
            ),
        ),
        (
            "bell",
            "trunkline: 1\nid: bell\ntitle: <b>Bell</b>\nsummary: Rings.\nauth: { none: {} }\nwebhook:\n  verify: { token: { header: X-Token } }\n\
             \x20 secrets: [\"${env:PROOF}\"]\n  event: body.type\n  delivery_id: body.id\n  events: [rung]\n\
             connections: [{ id: main }]\nrules:\n  - { id: pass_on, when: rung, do: [{ deliver: app, retry: { attempts: 1 } }] }\n"
                .to_owned(),
        ),
        ("broken", "trunkline: 1\nid: broken\ntitle: Broken\nauht: { none: {} }\n".to_owned()),
    ]
}

impl House {
    /// With these settings of the admin door.
    pub async fn open(admin: &str) -> Self {
        let service = service::start(|asked| match asked.field("x-key") {
            "sk_wrong" => (401, "{\"error\":\"no such key\"}".to_owned()),
            _ => (200, "{\"id\":\"ada\"}".to_owned()),
        });
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("integrations")).unwrap();
        for (id, text) in definitions(service) {
            fs::write(directory.path().join(format!("integrations/{id}.yaml")), text).unwrap();
        }
        // Nobody listens at this port, so that what is delivered there ends as a dead letter.
        let settings = format!(
            "trunkline: 1\nmode: development\npublic_url: http://localhost:8080\nintegrations: [./integrations]\n\
             listen: {{ public: \"127.0.0.1:0\", proxy: \"127.0.0.1:0\", admin: \"127.0.0.1:0\" }}\n\
             destinations: {{ app: {{ url: \"http://127.0.0.1:1/in\", signing_secret: \"${{env:SIGNING}}\" }} }}\n\
             secrets: {{ key: \"${{file:./master.key}}\" }}\n{admin}"
        );
        fs::write(directory.path().join("trunkline.yaml"), settings).unwrap();
        let environment = [("TOKEN", TOKEN), ("WATCH", WATCH), ("KEY", KEY), ("PROOF", PROOF)]
            .into_iter()
            .chain([("SIGNING", SIGNING)])
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<HashMap<_, _>>();
        let clock = Arc::new(ManualClock::at(START));
        let seams = Seams {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            environment: Arc::new(environment),
            ..Seams::of_system().unwrap()
        };
        let options = Options { gateway: directory.path().to_owned(), development: false, mock: None, seams };
        let running = Box::pin(App::start(options)).await.unwrap();
        let (admin, public) = (running.admin().tcp().unwrap(), running.public().tcp().unwrap());
        Self { running, clock, admin, public, directory }
    }

    /// A visitor whom nobody knows yet.
    pub fn visitor(&self) -> Visitor {
        Visitor {
            admin: self.admin,
            host: self.admin.to_string(),
            cookie: String::new(),
            device: String::new(),
            form: String::new(),
        }
    }

    /// A visitor who has signed in.
    pub fn signed_in(&self, name: &str, password: &str) -> Visitor {
        let mut visitor = self.visitor();
        let reply = visitor.sign_in(name, password);
        assert_eq!(reply.status, 303, "{}", text(&reply));
        visitor
    }

    pub fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// An event that ends as a dead letter, and its id.
    pub async fn dead_letter(&self, visitor: &Visitor, body: &Value) -> String {
        let headers = [("x-token", PROOF), ("content-type", "application/json")];
        let reply = Client::new(self.public).send("POST", "/webhooks/bell", &headers, body.to_string().as_bytes());
        let event = reply.unwrap().json()["event"].as_str().unwrap().to_owned();
        let dead = || visitor.get(&format!("/api/events/{event}")).json()["state"] == "dead";
        for _ in 0..600 {
            if dead() {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{event} is not given up: {}", text(&visitor.get(&format!("/api/events/{event}"))));
    }

    pub async fn close(self) {
        self.running.stop(Duration::from_secs(5)).await;
    }
}

/// Someone with a browser, as far as cookies go.
#[derive(Clone)]
pub struct Visitor {
    pub admin: SocketAddr,
    pub host: String,
    pub cookie: String,
    /// What tells that someone has signed in from here.
    pub device: String,
    /// What forms of the session carry.
    pub form: String,
}

/// An answer's text. The templates escape slashes as well, which would hide what links look like.
pub fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).replace("&#x2f;", "/")
}

impl Visitor {
    /// The id of an integration's connection.
    pub fn connection_of(&self, integration: &str) -> String {
        let all = self.get("/api/connections").json();
        let found = all.as_array().unwrap().iter().find(|row| row["integrationId"] == integration);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Sends exactly this, with the cookie.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let kept = [self.cookie.as_str(), self.device.as_str()].into_iter().filter(|cookie| !cookie.is_empty());
        let kept = kept.collect::<Vec<_>>().join("; ");
        let cookies = Some(("cookie", kept.as_str())).filter(|(_, kept)| !kept.is_empty());
        let headers: Vec<_> = headers.iter().copied().chain(cookies).collect();
        Client::for_host(self.admin, &self.host).send(method, path, &headers, body.as_bytes()).unwrap()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[("accept", "text/html,*/*")], "")
    }

    /// Posts a form of the session's own page.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let own = [("form", self.form.as_str())];
        let all = own.iter().chain(fields).filter(|(_, value)| !value.is_empty());
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish();
        let origin = format!("http://{}", self.host);
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("origin", origin.as_str()),
            ("accept", "text/html"),
        ];
        self.send("POST", path, &headers, &body)
    }

    pub fn sign_in(&mut self, name: &str, password: &str) -> Reply {
        let reply = self.post("/sign-in", &[("name", name), ("password", password), ("to", "/events")]);
        self.keep(&reply);
        reply
    }

    /// Keeps the cookie of an answer, and reads the word of the session's forms.
    pub fn keep(&mut self, reply: &Reply) {
        let Some(cookie) = reply.header("set-cookie") else { return };
        cookie.split(';').next().unwrap().clone_into(&mut self.cookie);
        if let Some((_, value)) = reply.headers.iter().find(|(_, value)| value.contains("trunkline-device")) {
            value.split(';').next().unwrap().clone_into(&mut self.device);
        }
        let word = Regex::new("name=\"form\" value=\"([0-9a-f]+)\"").unwrap();
        self.form = word.captures(&text(&self.get("/"))).map(|found| found[1].to_owned()).unwrap_or_default();
    }
}
