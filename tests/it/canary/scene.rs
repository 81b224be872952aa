//! The deployment whose secrets are markers, and what is done with it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::Sha256;
use trunkline::base::random::SystemRandom;
use trunkline::connection::MasterKey;

use super::accounts;
use super::hunt::{Canaries, Sinks};
use crate::outside::gateway::free_addresses;
use crate::outside::http::{Client, Reply, read_head};
use crate::outside::within;
use crate::support::vault::{ROOT, Vault};

const PATIENCE: Duration = Duration::from_secs(30);
/// All that the gateway tells of itself goes into the log and to the application.
const OWN_RULES: &str = r#"notifications: { group: 0s, rate: 10000/h }
rules:
  - id: tell
    when: trunkline.*
    do:
      - { log: "{{ body.type }} {{ body.what }} {{ body.why }} {{ body.about }}" }
      - { deliver: app, retry: { attempts: 1 } }
"#;

/// A deployment, the services it calls, and its secrets.
pub struct Scene {
    directory: tempfile::TempDir,
    vault: Vault,
    secrets: Vec<(&'static str, String)>,
    imported: [String; 3],
}

/// The running gateway.
pub struct Gateway {
    child: Child,
    token: String,
    pub public: SocketAddr,
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Gateway {
    /// Asks the admin door with its token.
    pub fn admin(&self, method: &str, target: &str, body: &[u8]) -> Reply {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        Client::new(self.admin).send(method, target, &headers, body).unwrap()
    }

    /// Where people come to, by the name that `public_url` has.
    pub fn public_address(&self) -> String {
        format!("localhost:{}", self.public.port())
    }

    /// Ends it in order, so that everything it wanted to write is written.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut ended = || self.child.try_wait().unwrap().is_some();
        assert!(within(PATIENCE, &mut ended), "it did not end");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Scene {
    /// Plants a marker of each kind, and writes the files that refer to them.
    pub fn set(canaries: &Canaries) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let vault = Vault::start();
        vault.put("svc", json!({ "key": canaries.plant("a secret of the secret store") }));
        canaries.add("the token of the secret store", ROOT);
        let mut secrets = vec![
            ("ADMIN_TOKEN", canaries.plant("the admin token")),
            ("CALLER_KEY", canaries.plant("a caller's key")),
            ("API_KEY", canaries.plant("a declared API key")),
            ("PIN", canaries.plant("a declared secret input")),
            ("QUERY_KEY", canaries.plant("an API key in a query")),
            ("BASIC_NAME", canaries.plant("a name of Basic")),
            ("BASIC_PASSWORD", canaries.plant("a password of Basic")),
            ("WEBHOOK_SECRET", canaries.plant("a webhook secret")),
            ("WEBHOOK_TOKEN", canaries.plant("a webhook token")),
            ("SIGNING_SECRET", canaries.plant("a signing secret")),
            ("DESTINATION_KEY", canaries.plant("a header of a destination")),
            ("VAULT_TOKEN", ROOT.to_owned()),
        ];
        secrets.extend(accounts::secrets(canaries));
        let imported =
            [canaries.plant("an imported API key"), canaries.plant("a saved value"), canaries.plant("a secret input")];
        let keys: Vec<_> = (0..2).map(|_| MasterKey::generate(&SystemRandom::default()).unwrap()).collect();
        for (key, name) in keys.iter().zip(["master.key", "former.key"]) {
            let line = key.line().expose().clone();
            canaries.add(name, line.rsplit('.').next().unwrap());
            fs::write(directory.path().join(name), line).unwrap();
        }
        let scene = Self { directory, vault, secrets, imported };
        scene.write_files();
        for (name, text) in accounts::definitions(canaries) {
            fs::write(scene.path().join(format!("integrations/{name}.yaml")), text).unwrap();
        }
        scene
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write_files(&self) {
        let service = echoing_service();
        let root = self.directory.path();
        fs::create_dir_all(root.join("integrations")).unwrap();
        let vault = self.vault.url();
        // Browsers and pages must agree about the address, so that it is known before.
        let [public] = free_addresses();
        let port = public.port();
        let gateway = format!(
            r#"trunkline: 1
mode: development
listen: {{ public: "{public}", proxy: "127.0.0.1:0", admin: "127.0.0.1:0" }}
public_url: http://localhost:{port}
integrations: [./integrations]
state: {{ sled: {{ path: ./data, min_free: 1KiB }} }}
secrets:
  key: "${{file:./master.key}}"
  previous: "${{file:./former.key}}"
  vault: {{ url: "{vault}", poll: 100ms, auth: {{ token: "${{env:VAULT_TOKEN}}" }} }}
admin: {{ token: "${{env:ADMIN_TOKEN}}" }}
callers:
  - {{ id: app, key: "${{env:CALLER_KEY}}", allow: [{{ integration: "*", connection: "*" }}] }}
destinations:
  app:
    url: http://{service}/refuses
    signing_secret: "${{env:SIGNING_SECRET}}"
    headers: {{ X-Key: "${{env:DESTINATION_KEY}}" }}
{OWN_RULES}"#
        );
        fs::write(root.join("trunkline.yaml"), gateway).unwrap();
        let svc = format!(
            r#"trunkline: 1
id: svc
title: Svc
summary: Repeats what it is sent.
inputs:
  pin: {{ secret: true, title: Pin }}
auth: {{ api_key: {{}} }}
api:
  base_url: http://{service}
  credential: {{ header: X-Api-Key, value: "key {{{{ api_key }}}}" }}
  headers: {{ X-Pin: "{{{{ input.pin }}}}" }}
  error: body.error
  endpoints:
    - {{ id: echo, request: GET /echo }}
connections:
  - {{ id: default, api_key: "${{vault:svc#key}}", inputs: {{ pin: "${{env:PIN}}" }} }}
  - {{ id: env, api_key: "${{env:API_KEY}}", inputs: {{ pin: "${{env:PIN}}" }} }}
webhook:
  verify:
    hmac: {{ algorithm: sha256, signature: {{ header: X-Signature, prefix: "sha256=", encoding: hex }}, signed: "{{{{ body }}}}" }}
  secrets: ["${{env:WEBHOOK_SECRET}}"]
  event: body.type
  delivery_id: body.id
  register: {{ request: POST /refuses, headers: {{ X-Hook: "{{{{ webhook.secret }}}}" }}, error: body.error }}
rules:
  - id: all
    when: "*"
    do:
      - {{ call: svc.echo, retry: {{ attempts: 1 }} }}
      - {{ deliver: app, retry: {{ attempts: 1 }} }}
"#
        );
        let query = format!(
            "trunkline: 1\nid: query\ntitle: Query\nsummary: Has its key in the query.\nauth: {{ api_key: {{}} }}\n\
             api:\n  base_url: http://{service}\n  credential: {{ query: key, value: \"{{{{ api_key }}}}\" }}\n\
             connections:\n  - {{ id: default, api_key: \"${{env:QUERY_KEY}}\" }}\n\
             webhook: {{ verify: {{ token: {{ header: X-Token }} }}, secrets: [\"${{env:WEBHOOK_TOKEN}}\"], event: body.type }}\n"
        );
        let basic = format!(
            "trunkline: 1\nid: basic\ntitle: Basic\nsummary: Signs in with Basic.\nauth: {{ basic: {{}} }}\n\
             api: {{ base_url: \"http://{service}\" }}\n\
             connections:\n  - {{ id: default, username: \"${{env:BASIC_NAME}}\", password: \"${{env:BASIC_PASSWORD}}\" }}\n"
        );
        for (name, text) in [("svc", svc), ("query", query), ("basic", basic)] {
            fs::write(root.join(format!("integrations/{name}.yaml")), text).unwrap();
        }
    }

    pub fn secret(&self, name: &str) -> &str {
        self.secrets.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str()).unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.arg("--config").arg(self.directory.path().join("trunkline.yaml")).args(arguments);
        command.envs(self.secrets.iter().map(|(name, value)| (name, value)));
        command
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Starts the gateway; it logs at every level.
    pub fn start(&self) -> Gateway {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command(&["serve", "--log", "trace", "--log-format", "text"]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let token = self.secret("ADMIN_TOKEN").to_owned();
        let mut gateway = Gateway { child, token, public: nowhere, proxy: nowhere, admin: nowhere };
        let listening = within(PATIENCE, || {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let address = |what: &str| {
                let line = log.lines().find(|line| line.contains("listening on") && line.contains(what))?;
                line.split("http://").nth(1)?.split(' ').next()?.parse().ok()
            };
            let [public, proxy, admin] = ["for webhooks", "for the application", "for people"].map(address);
            let all = public.zip(proxy).zip(admin);
            if let Some(((public, proxy), admin)) = all {
                (gateway.public, gateway.proxy, gateway.admin) = (public, proxy, admin);
            }
            all.is_some()
        });
        assert!(listening, "{}", fs::read_to_string(self.log()).unwrap_or_default());
        gateway
    }

    /// Stores connections with secrets, by an import.
    pub fn import_connections(&self, gateway: &Gateway, sinks: &mut Sinks) {
        let [key, saved, pin] = &self.imported;
        let content = json!({
            "format": 2, "credential": { "api_key": key }, "inputs": { "pin": pin }, "saved": { "note": saved },
            "updated_at": 1,
        });
        let row = |name: &str, content: &Value| json!({ "integration": "svc", "name": name, "credential": "an API key", "inputs": {}, "content": content });
        let export = json!({
            "trunkline_export": 1, "exported_at": 1, "secrets": true,
            "connections": [row("imported", &content), row("second", &content)],
        });
        let body = serde_json::to_vec(&export).unwrap();
        for target in ["/api/import?", "/api/import?apply=1", "/api/import?apply=1&replace=1"] {
            let reply = gateway.admin("POST", target, &body);
            let refused = reply.text().contains("refuse");
            assert!(reply.status == 200 && !refused, "{}", reply.text());
            sinks.add(target, reply.body);
        }
        let half = &body[..body.len() - 20];
        let odd = String::from_utf8(body.clone()).unwrap().replace("\"format\":2", "\"format\":\"x\"");
        let wrong = String::from_utf8(body.clone()).unwrap().replace("\"name\":\"imported\"", "\"name\":[1]");
        for faulty in [half, odd.as_bytes(), wrong.as_bytes()] {
            sinks.add("a refused import", gateway.admin("POST", "/api/import?apply=1", faulty).body);
        }
    }

    /// Calls that succeed, are refused by the service with what they sent, and get no answer.
    pub fn call_services(&self, gateway: &Gateway, sinks: &mut Sinks) {
        let bearer = format!("Bearer {}", self.secret("CALLER_KEY"));
        let others = accounts::CALLED.map(|integration| (integration, "default"));
        for (integration, connection) in [
            ("svc", "default"),
            ("svc", "env"),
            ("svc", "imported"),
            ("query", "default"),
            ("basic", "default"),
            ("svc", "none"),
        ]
        .into_iter()
        .chain(others)
        {
            for path in ["/ok?a=1", "/echo", "/garbage", "/closes", "/-/echo"] {
                let headers = [("authorization", bearer.as_str()), ("trunkline-connection", connection)];
                let method = if path.starts_with("/-/") { "POST" } else { "GET" };
                let target = format!("/{integration}{path}");
                // Some of them end without an answer; what the service says passes untouched.
                let reply = Client::new(gateway.proxy).send(method, &target, &headers, b"{}");
                if let Some(own) = reply.ok().filter(|reply| reply.header("trunkline-error").is_some()) {
                    sinks.add(&format!("the gateway's own answer to {target}"), own.body);
                }
            }
        }
        let nearly = format!("{}x", self.secret("CALLER_KEY"));
        for key in [nearly.as_str(), self.secret("ADMIN_TOKEN")] {
            let headers = [("authorization", key)];
            drop(Client::new(gateway.proxy).send("GET", "/svc/ok", &headers, b""));
        }
        let headers = [("authorization", nearly.as_str())];
        drop(Client::new(gateway.admin).send("GET", "/api/events", &headers, b""));
    }

    /// Webhooks that are taken and delivered in vain, and such that are refused with a secret in them.
    pub fn send_webhooks(&self, gateway: &Gateway) {
        let body = br#"{"id":"1","type":"made"}"#;
        let secret = self.secret("WEBHOOK_SECRET");
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(body);
        let digest = mac.finalize().into_bytes().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let token = self.secret("WEBHOOK_TOKEN");
        let cases = [
            ("/webhooks/svc", "x-signature", format!("sha256={digest}")),
            ("/webhooks/svc", "x-signature", format!("sha256={}", "0".repeat(64))),
            ("/webhooks/svc", "x-signature", secret.to_owned()),
            ("/webhooks/query", "x-token", token.to_owned()),
            ("/webhooks/query", "x-token", format!("{token}x")),
        ];
        for (target, name, value) in cases {
            Client::new(gateway.public).send("POST", target, &[(name, &value)], body).unwrap();
        }
        let in_query = format!("/webhooks/svc?token={}", self.secret("API_KEY"));
        drop(Client::new(gateway.public).send("POST", &in_query, &[], body));
    }

    /// Endpoints with secrets of their own: one that the service does not take and says why, one that is used, and
    /// whose first secret is replaced. Answers that show a secret to whom asked for it are no outputs.
    pub fn make_endpoints(gateway: &Gateway, canaries: &Canaries, sinks: &mut Sinks) {
        let connections = gateway.admin("GET", "/api/connections", b"").json();
        let row =
            connections.as_array().unwrap().iter().find(|row| row["integrationId"] == "svc" && row["name"] == "env");
        let target = format!("/api/integrations/{}/webhooks", row.unwrap()["id"].as_str().unwrap());
        let [refused, first, second] =
            ["refused", "first", "second"].map(|which| canaries.plant(&format!("an endpoint's {which} secret")));
        let wish = |more: Value| gateway.admin("POST", &target, more.to_string().as_bytes());
        let said = wish(json!({ "secret": refused }));
        assert!(said.status >= 400 && said.text().contains("not taken"), "{}", said.text());
        sinks.add("a subscription that was refused", said.body);
        sinks.add("a secret that does not fit", wish(json!({ "secret": format!("{second} ") })).body);
        let made = wish(json!({ "secret": first, "register": false })).json();
        let path = format!("/api/webhooks/{}", made["id"].as_str().unwrap_or_else(|| panic!("{made}")));
        let body = json!({ "secret": second, "overlap": "1h" }).to_string();
        let rotated = gateway.admin("POST", &format!("{path}/rotate"), body.as_bytes());
        assert_eq!(rotated.status, 200, "{}", rotated.text());
        sinks.add("a test event", gateway.admin("POST", &format!("{path}/test"), br#"{"event":"made"}"#).body);
        assert_eq!(gateway.admin("POST", &format!("{path}/reveal"), b"").json()["secret"], second);
        let url = made["url"].as_str().unwrap();
        let (_, place) = url.split_once("/webhooks/").unwrap();
        let signed = format!("sha256={second}");
        Client::new(gateway.public)
            .send("POST", &format!("/webhooks/{place}"), &[("x-signature", &signed)], b"{}")
            .unwrap();
        for shown in [
            path.clone(),
            path.trim_start_matches("/api").to_owned(),
            "/api/webhooks".to_owned(),
            "/webhooks".to_owned(),
        ] {
            sinks.add(&shown, gateway.admin("GET", &shown, b"").body);
        }
    }

    /// A file that brings a secret where it does not fit.
    pub fn break_a_definition(&self, gateway: &Gateway) {
        let path = self.directory.path().join("integrations/broken.yaml");
        let text = "trunkline: 1\nid: broken\ntitle: \"${env:API_KEY}\"\nsummary: x\nauth: { api_key: { pattern: \"^${env:API_KEY}($\" } }\n\
                    api: { base_url: \"${vault:svc#key}\", credential: { header: \"${env:BASIC_PASSWORD}\", value: x } }\n\
                    connections:\n  - { id: \"${env:BASIC_NAME}\", api_key: \"${vault:svc#kye}\" }\n";
        fs::write(path, text).unwrap();
        let reply = gateway.admin("POST", "/api/reload", b"");
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    pub fn rotate_keys(gateway: &Gateway) {
        let reply = gateway.admin("POST", "/api/keys/rotate", b"");
        assert_eq!(reply.status, 202, "{}", reply.text());
        let done = || gateway.admin("GET", "/api/keys", b"").json()["rotation"]["state"] == "done";
        assert!(within(PATIENCE, done), "{}", gateway.admin("GET", "/api/keys", b"").text());
    }

    /// Every path of the admin door, and what it says to whom it does not know.
    pub fn ask_everything(gateway: &Gateway, sinks: &mut Sinks) {
        let age = age::x25519::Identity::generate().to_public().to_string();
        let recipients = json!({ "recipients": [age] }).to_string();
        sinks.add("a sealed export", gateway.admin("POST", "/api/export", recipients.as_bytes()).body);
        sinks.add("a refused export", gateway.admin("POST", "/api/export", br#"{"recipients":["age1x"]}"#).body);
        let events = gateway.admin("GET", "/api/events", b"").json();
        let ids = events.as_array().into_iter().flatten().filter_map(|event| event["id"].as_str());
        let mut paths: Vec<String> =
            ids.flat_map(|id| [format!("/api/events/{id}"), format!("/events/{id}")]).collect();
        let connections = gateway.admin("GET", "/api/connections", b"").json();
        let connections = connections.as_array().into_iter().flatten().filter_map(|row| row["id"].as_str());
        paths.extend(connections.flat_map(|id| [format!("/connections/{id}"), format!("/connections/{id}/remove")]));
        assert!(!paths.is_empty(), "{events}");
        let entries = gateway.admin("GET", "/api/activity?limit=1000", b"").json();
        let entries = entries.as_array().into_iter().flatten().filter_map(|row| row["id"].as_str());
        paths.extend(entries.flat_map(|id| [format!("/api/activity/{id}"), format!("/activity/{id}")]));
        let fixed = [
            "/metrics",
            "/livez",
            "/readyz",
            "/readyz?verbose",
            "/api/config",
            "/api/integrations",
            "/api/connections",
            "/api/events",
            "/api/deliveries",
            "/api/deliveries?state=dead",
            "/api/webhooks/refused",
            "/api/activity",
            "/api/activity/export.csv",
            "/api/activity/export.ndjson",
            "/api/keys",
            "/api/export",
            "/api/nothing",
            "/api/integrations/marketplace",
            "/",
            "/sign-in",
            "/integrations",
            "/integrations/svc",
            "/integrations/broken",
            "/integrations/svc/connect",
            "/integrations/oauth",
            "/connections?status=error",
            "/audit",
            "/audit?order=oldest&only=changes",
            "/audit/check",
            "/activity?outcome=error",
            "/connections",
            "/events",
            "/dead-letters",
            "/replays",
            "/activity",
            "/activity/live",
            "/configuration",
            "/api/events?nothing=1",
        ];
        paths.extend(fixed.map(str::to_owned));
        for path in paths {
            sinks.add(&path, gateway.admin("GET", &path, b"").body);
        }
        let stranger = Client::new(gateway.admin).get("/api/connections").unwrap();
        assert_eq!(stranger.status, 401);
        sinks.add("an answer to a stranger", stranger.body);
        let headers = [("authorization", "Bearer nearly-a-key-0123456789")];
        let refused = Client::new(gateway.proxy).send("GET", "/svc/ok", &headers, b"").unwrap();
        sinks.add("a refusal of the proxy door", format!("{:?} {}", refused.headers, refused.text()));
    }

    /// The page as people use it: signed in with the token, refused, with a key that was typed and refused, signed out.
    /// The session's cookie is a secret of its own, and stands in no screen.
    pub fn use_the_page(&self, gateway: &Gateway, canaries: &Canaries, sinks: &mut Sinks) {
        let mut client = Client::new(gateway.admin);
        let typed = canaries.plant("a key typed into a form");
        let token = self.secret("ADMIN_TOKEN").to_owned();
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let coded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let body = |name: &str, password: &str| format!("name={}&password={}&to=/events", coded(name), coded(password));
        for refused in [body(&token, "operator"), body("operator", self.secret("CALLER_KEY"))] {
            let reply = client.send("POST", "/sign-in", &form, refused.as_bytes()).unwrap();
            assert_eq!(reply.status, 401);
            sinks.add("a refused sign-in", format!("{:?} {}", reply.headers, reply.text()));
        }
        let begun = client.send("POST", "/sign-in", &form, body("operator", &token).as_bytes()).unwrap();
        assert_eq!(begun.status, 303, "{}", begun.text());
        let cookie = begun.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        canaries.add("a session's cookie", cookie.split_once('=').unwrap().1);
        let mut screen = |method: &str, target: &str, body: &str| {
            let headers = [form[0], ("cookie", &*cookie)];
            let reply = client.send(method, target, &headers, body.as_bytes()).unwrap();
            sinks.add(&format!("{target} signed in"), format!("{:?} {}", reply.headers, reply.text()));
            reply
        };
        let overview = screen("GET", "/", "").text();
        let word = overview.split("name=\"form\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let word = word.unwrap_or_else(|| panic!("no form in {overview}")).to_owned();
        for target in ["/events", "/connections", "/audit", "/activity", "/configuration", "/integrations/svc/connect"]
        {
            let reply = screen("GET", target, "");
            assert!(reply.status == 200 && reply.text().contains("Sign out"), "{target}: {}", reply.text());
        }
        let typed = coded(&typed);
        let connect = format!("form={word}&connection=typed&api_key={typed}&input.pin={typed}&do=test");
        assert!(screen("POST", "/integrations/svc/connect", &connect).text().contains("svc"));
        assert_eq!(screen("POST", "/sign-out", &format!("form={word}")).status, 303);
        assert_eq!(screen("GET", "/events", "").status, 401);
    }

    /// What commands print. The admin door's token is in their environment, as it is for people.
    pub fn run_commands(&self, gateway: &Gateway, sinks: &mut Sinks) {
        let admin = format!("http://{}", gateway.admin);
        let token = self.secret("ADMIN_TOKEN");
        let commands: [&[&str]; 12] = [
            &["check"],
            &["check", "--format", "json"],
            &["check", "--format", "sarif"],
            &["show", "svc"],
            &["show", "svc", "--resolved"],
            &["show", "broken", "--json"],
            &["connections", "list", "--json"],
            &["events", "list", "--json"],
            &["keys", "list"],
            &["keys", "check"],
            &["export"],
            &["keys", "list", "--offline"],
        ];
        for arguments in commands {
            let mut command = self.command(arguments);
            command.env("TRUNKLINE_ADMIN", &admin).env("TRUNKLINE_ADMIN_TOKEN", token);
            let output = command.output().unwrap();
            let name = arguments.join(" ");
            assert!(!(output.stdout.is_empty() && output.stderr.is_empty()), "`{name}` says nothing");
            sinks.add(&format!("{name}, standard output"), output.stdout);
            sinks.add(&format!("{name}, standard error"), output.stderr);
        }
    }

    /// A sealed export, and an import of it, from the command line.
    pub fn carry(&self, gateway: &Gateway, sinks: &mut Sinks) {
        let identity = age::x25519::Identity::generate();
        let (key, export) = (self.directory.path().join("identity"), self.directory.path().join("export.age"));
        fs::write(&key, identity.to_string().expose_secret()).unwrap();
        let (key, export) = (key.display().to_string(), export.display().to_string());
        let recipient = identity.to_public().to_string();
        let commands: [&[&str]; 3] = [
            &["export", "--recipient", &recipient, "--out", &export],
            &["import", &export, "--identity", &key],
            &["import", &export, "--identity", &key, "--apply", "--json"],
        ];
        for arguments in commands {
            let mut command = self.command(arguments);
            command.env("TRUNKLINE_ADMIN", format!("http://{}", gateway.admin));
            let output = command.env("TRUNKLINE_ADMIN_TOKEN", self.secret("ADMIN_TOKEN")).output().unwrap();
            let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{arguments:?}: {told}");
            assert!(arguments[0] == "export" || told.contains("same"), "{told}");
            sinks.add(arguments[0], told);
        }
        sinks.add("an export on disk", fs::read(export).unwrap());
    }

    /// The log, and every file of the store as it is.
    pub fn search_files(&self, sinks: &mut Sinks) {
        sinks.add("the log", fs::read(self.log()).unwrap());
        let found = files(&self.directory.path().join("data"));
        assert!(found.len() > 3, "{found:?}");
        for path in found {
            sinks.add(&path.display().to_string(), fs::read(&path).unwrap());
        }
    }
}

pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// A service that repeats what it was sent in its errors, as services do.
fn echoing_service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(stream: TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    while !stream.fill_buf().ok()?.is_empty() {
        let (first, fields) = read_head(&mut stream).ok()?;
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let length = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let sent = [field("x-api-key"), field("x-pin"), field("authorization"), Some(first.clone())]
            .map(Option::unwrap_or_default)
            .join(" ");
        let path = first.split(' ').nth(1)?.split('?').next()?.to_owned();
        let (status, body) = match path.as_str() {
            "/closes" => return None,
            "/garbage" => {
                stream.get_mut().write_all(format!("{sent}\r\n\r\n").as_bytes()).ok()?;
                return None;
            }
            "/echo" => ("401 Unauthorized", json!({ "error": format!("this credential is wrong: {sent}") })),
            "/refuses" => ("422 Unprocessable", json!({ "error": format!("not taken: {fields:?}") })),
            _ => ("200 OK", json!({})),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all(format!("{head}{body}").as_bytes()).ok()?;
    }
    Some(())
}
