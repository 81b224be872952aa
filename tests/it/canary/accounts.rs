//! Accounts of every kind among the scene's: connected in a browser, renewed, refused, called and taken away, at a
//! service that repeats all it was sent in its errors.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use url::Url;

use super::hunt::{Canaries, Sinks};
use super::scene::{Gateway, Scene};
use crate::outside::service::{self, Asked};
use crate::outside::within;
use crate::support::browser::Browser;
use crate::support::tls::Authority;

/// What is not secret and stands in every output: the name of a connection. A hunt that does not find it is blind.
pub const PLANTED: &str = "not-a-secret-0f5c2b7e91";
/// How many grants the service has tokens for.
const GRANTS: usize = 4;

/// The variables of these definitions, with their markers.
pub fn secrets(canaries: &Canaries) -> Vec<(&'static str, String)> {
    let (certificate, key) = Authority::new().client();
    canaries.add("the key of a client certificate", key.lines().nth(1).unwrap());
    vec![
        ("CLIENT_SECRET", canaries.plant("a client secret")),
        ("OAUTH1_SECRET", canaries.plant("a secret of OAuth 1.0a")),
        ("OAUTH1_TOKEN", canaries.plant("a token of OAuth 1.0a")),
        ("OAUTH1_TOKEN_SECRET", canaries.plant("a token secret of OAuth 1.0a")),
        ("AWS_SECRET", canaries.plant("a secret access key")),
        ("AWS_SESSION", canaries.plant("a session token")),
        ("JWT_KEY", canaries.plant("a key that signs tokens")),
        ("ASSERTION_KEY", canaries.plant("a key that signs assertions")),
        ("LOGIN_PASSWORD", canaries.plant("a password of a login")),
        ("BODY_KEY", canaries.plant("a key in a body")),
        ("TLS_CERTIFICATE", certificate),
        ("TLS_KEY", key),
    ]
}

/// The service: it gives out markers, once each, and then refuses with all that it was sent.
fn service(canaries: &Canaries) -> std::net::SocketAddr {
    let marker = |what: &str, number: usize| canaries.plant(&format!("{what} {number}"));
    let tokens: Vec<_> =
        (0..GRANTS).map(|number| (marker("an access token", number), marker("a refresh token", number))).collect();
    let session = canaries.plant("a session of a login");
    let given = AtomicUsize::new(0);
    service::start(move |asked: &Asked| {
        let all = format!("{} {:?} {}", asked.target, asked.fields, asked.body);
        match asked.path() {
            "/token" => match tokens.get(given.fetch_add(1, Ordering::SeqCst)) {
                Some((access, refresh)) => {
                    let told =
                        json!({ "access_token": access, "refresh_token": refresh, "expires_in": 3600, "odd": all });
                    (200, told.to_string())
                }
                None => (400, json!({ "error": "invalid_grant", "error_description": all }).to_string()),
            },
            "/login" => (200, json!({ "session": session, "echo": all }).to_string()),
            "/revoke" => (503, json!({ "error": all }).to_string()),
            "/ok" | "/me" => (200, json!({ "id": "42", "name": "Ada" }).to_string()),
            _ => (401, json!({ "error": all, "message": all }).to_string()),
        }
    })
}

/// The definitions by id.
pub fn definitions(canaries: &Canaries) -> Vec<(&'static str, String)> {
    let url = format!("http://{}", service(canaries));
    let api = format!(
        "api: {{ base_url: \"{url}\", error: body.error, test: GET /me, endpoints: [{{ id: echo, request: \"POST /echo\", form: {{ a: b }} }}] }}\n"
    );
    let define = |id: &str, auth: &str, connection: &str| {
        format!("trunkline: 1\nid: {id}\ntitle: {id}\nsummary: Repeats.\nauth:\n{auth}\n{api}{connection}")
    };
    let client = "client: { id: app, secret: \"${env:CLIENT_SECRET}\" }";
    let oauth = format!(
        "  oauth2:\n    authorize: {url}/authorize\n    token: {url}/token\n    {client}\n    refresh_tokens: rotate\n\
         \x20   identity: {{ request: GET /me, id: body.id, name: body.name }}\n\
         \x20   revoke: {{ request: \"POST {url}/revoke\", form: {{ token: \"{{{{ token.refresh }}}}\" }} }}\n\
         \x20   revoke_replaced: true\n\
         \x20   scopes: [{{ name: read, grants: Read, default: true }}]"
    );
    let assertion = format!(
        "  oauth2:\n    grant: jwt_bearer\n    token: {url}/nothing\n    {client}\n\
         \x20   assertion: {{ algorithm: HS256, key: \"${{env:ASSERTION_KEY}}\" }}"
    );
    let oauth1 = format!(
        "  oauth1:\n    request_token: POST {url}/r\n    authorize: {url}/a\n    access_token: POST {url}/t\n\
         \x20   client: {{ id: app, secret: \"${{env:OAUTH1_SECRET}}\" }}"
    );
    let login = format!(
        "  login:\n    fields: {{ user: {{}}, password: {{ secret: true }} }}\n\
         \x20   steps: {{ request: \"POST {url}/login\", form: {{ u: \"{{{{ input.user }}}}\", p: \"{{{{ input.password }}}}\" }} }}\n\
         \x20   tokens: {{ default: {{ access: body.session }} }}"
    );
    let one = |rest: &str| format!("connections:\n  - {{ id: default{rest} }}\n");
    let body = format!(
        "trunkline: 1\nid: body\ntitle: body\nsummary: Repeats.\nauth: {{ api_key: {{}} }}\n\
         api: {{ base_url: \"{url}\", error: body.error, credential: {{ body: key, value: \"{{{{ api_key }}}}\" }}, \
         endpoints: [{{ id: echo, request: \"POST /echo\", form: {{ a: b }} }}] }}\n{}",
        one(", api_key: \"${env:BODY_KEY}\"")
    );
    vec![
        ("oauth", define("oauth", &oauth, "")),
        ("assertion", define("assertion", &assertion, "")),
        (
            "oauth1",
            define(
                "oauth1",
                &oauth1,
                &one(", token: \"${env:OAUTH1_TOKEN}\", token_secret: \"${env:OAUTH1_TOKEN_SECRET}\""),
            ),
        ),
        (
            "aws",
            define(
                "aws",
                "  sigv4: { service: execute-api, region: eu-central-1 }",
                &one(", username: AKIDEXAMPLE, password: \"${env:AWS_SECRET}\", token: \"${env:AWS_SESSION}\""),
            ),
        ),
        ("jwt", define("jwt", "  jwt: { algorithm: HS256, key: \"${env:JWT_KEY}\" }", &one(""))),
        ("login", define("login", &login, &one(", inputs: { user: ada, password: \"${env:LOGIN_PASSWORD}\" }"))),
        (
            "mtls",
            define("mtls", "  mtls: { certificate: \"${env:TLS_CERTIFICATE}\", key: \"${env:TLS_KEY}\" }", &one("")),
        ),
        ("body", body),
    ]
}

/// The integrations whose declared connection is called.
pub const CALLED: [&str; 6] = ["oauth1", "aws", "jwt", "login", "mtls", "body"];

impl Scene {
    /// A person connects an account, comes back with nonsense as well, and its tokens are renewed until the service
    /// refuses.
    pub fn connect_accounts(&self, gateway: &Gateway, canaries: &Canaries, sinks: &mut Sinks) {
        for (integration, connection) in [("oauth", PLANTED), ("oauth", "second"), ("assertion", "itself")] {
            let wanted = json!({ "integration": integration, "connection": connection }).to_string();
            let made = gateway.admin("POST", "/api/connect-links", wanted.as_bytes());
            assert_eq!(made.status, 201, "{}", made.text());
            let url = made.json()["url"].as_str().unwrap().to_owned();
            let mut browser = Browser::default();
            let page = browser.open(&url);
            let code = canaries.plant("a code");
            let mut page = Self::depart(&mut browser, &page, (integration, &code), gateway);
            // The one that asks for itself is refused with all that it sent.
            let connected = page.text.contains("is connected");
            assert_eq!(connected, integration == "oauth", "{integration}: {} {}", page.url, page.text);
            sinks.add(&format!("the last page of {integration}/{connection}"), page.text.clone());
            page = browser.open(page.url.as_str());
            sinks.add("the same page again", page.text);
            let result = made.json()["result"].as_str().unwrap().to_owned();
            sinks.add("an outcome", gateway.admin("GET", &format!("/api/connect-links/{result}"), b"").body);
        }
        let strange = format!("/api/auth/callback/oauth?state={}&code={}", canaries.plant("a strange state"), "c");
        sinks.add("a refused callback", crate::outside::http::Client::new(gateway.public).get(&strange).unwrap().body);
        self.renew(gateway, sinks);
    }

    /// Leaves for the service, and comes back with a code, as the service would send a person.
    fn depart(
        browser: &mut Browser,
        page: &crate::support::browser::Page,
        (integration, code): (&str, &str),
        gateway: &Gateway,
    ) -> crate::support::browser::Page {
        let left = browser.submit(page, &[]);
        let text = left.text.replace("&#x2f;", "/").replace("&amp;", "&");
        let Some(target) = text.split("0;url=").nth(1).and_then(|rest| rest.split('"').next()) else { return left };
        let target = Url::parse(target).unwrap_or_else(|error| panic!("{integration}: {error}: {text}"));
        let state = target.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let mut back =
            Url::parse(&format!("http://{}/api/auth/callback/{integration}", gateway.public_address())).unwrap();
        back.query_pairs_mut().append_pair("state", &state).append_pair("code", code);
        browser.open(back.as_str())
    }

    fn renew(&self, gateway: &Gateway, sinks: &mut Sinks) {
        let listed = gateway.admin("GET", "/api/connections", b"").json();
        let of = |row: &&Value| row["integrationId"] == "oauth";
        let ids: Vec<_> = listed.as_array().unwrap().iter().filter(of).map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 2, "{listed}");
        let mut ends = Vec::new();
        for round in 0..3 {
            for id in &ids {
                let path = format!("/api/integrations/connections/{id}");
                let renewed = gateway.admin("POST", &format!("{path}/refresh"), b"");
                ends.push(renewed.status);
                sinks.add(&format!("renewal {round} of {id}"), renewed.body);
                sinks.add(&format!("test {round} of {id}"), gateway.admin("POST", &format!("{path}/test"), b"").body);
                sinks.add(&format!("{id} after renewal {round}"), gateway.admin("GET", &path, b"").body);
            }
        }
        assert!(ends.contains(&200) && ends.contains(&503), "some are renewed and some refused: {ends:?}");
        let path = format!("/api/integrations/connections/{}", ids[1]);
        sinks.add("a removal", gateway.admin("DELETE", &path, b"").body);
        let revocations = || gateway.admin("GET", "/api/integrations/revocations", b"");
        let told = || revocations().json()[0]["attempts"].as_u64() > Some(0);
        assert!(within(std::time::Duration::from_secs(20), told), "{}", revocations().text());
        sinks.add("revocations", revocations().body);
        for (place, body) in [
            ("/api/integrations/test", json!({ "integration": "svc", "credential": { "api_key": "CANARY" } })),
            (
                "/api/integrations/save",
                json!({ "integration": "query", "connection": "odd", "credential": { "api_key": "CANARY" }, "untested": "CANARY" }),
            ),
            (
                "/api/integrations/save",
                json!({ "integration": "svc", "credential": { "basic": { "username": "CANARY" } } }),
            ),
        ] {
            let body = body.to_string().replace("CANARY", self.secret("API_KEY"));
            sinks.add(&format!("an answer of {place}"), gateway.admin("POST", place, body.as_bytes()).body);
        }
    }

    /// A backup made while the gateway runs.
    pub fn back_up(&self, sinks: &mut Sinks) {
        let place = self.path().join("backup");
        let mut command = self.command(&["backup", &place.display().to_string()]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sinks.add("what `backup` prints", [output.stdout, output.stderr].concat());
        let found = super::scene::files(&place);
        assert!(!found.is_empty(), "an empty backup");
        for path in found {
            sinks.add(&format!("the backup's {}", path.display()), fs::read(&path).unwrap());
        }
    }
}

/// Says where the marker that is no secret was not found, although it must be there.
pub fn blind_spots(sinks: &Sinks) -> Vec<&'static str> {
    let planted = Canaries::default();
    planted.add("planted", PLANTED);
    let found = sinks.search(&planted).join("\n");
    let places =
        ["the log", "/api/connections", "the last page", "journal", "the backup's", "connections list", "/api/export"];
    places.into_iter().filter(|place| !found.contains(place)).collect()
}
