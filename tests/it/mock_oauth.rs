//! The OAuth side of simulated services, called by hand: what a definition declares is wanted, and what it
//! reads is answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use trunkline::base::clock::{ManualClock, Timestamp};
use trunkline::base::random::SeededRandom;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::templates::Templates;
use trunkline::mock::{Consent, Controls, Mock, Simulated};

use crate::outside::http::{Client, Reply};
use crate::support::browser::{Browser, Page};

/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const CALLBACK: &str = "http://127.0.0.1:1/callback?at=svc";

/// One simulated service `svc` with this OAuth block and an API at `api.example`.
struct Service {
    services: [Simulated; 1],
    mock: Arc<Mock>,
    clock: Arc<ManualClock>,
    client: Client,
    browser: Browser,
    base: String,
}

impl Service {
    fn start(oauth2: &Value, consent: Consent) -> Self {
        let mut oauth2 = oauth2.clone();
        let block = oauth2.as_object_mut().unwrap();
        block.entry("client").or_insert(json!({ "id": "app", "secret": "s3" }));
        block.retain(|_, value| !value.is_null());
        block.entry("token").or_insert(json!("https://svc.example/token"));
        let api = json!({ "base_url": "https://api.example/v1", "test": "GET /me" });
        let resolved = json!({ "trunkline": 1, "id": "svc", "title": "Svc", "auth": { "oauth2": oauth2 }, "api": api });
        let document = Document::unplaced(PathBuf::from("svc.yaml"), resolved.clone());
        let integration =
            compile::integration(&document, &Templates::new()).unwrap_or_else(|fault| panic!("{fault:?}"));
        let services = [Simulated { integration: Arc::new(integration), resolved }];
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_769_853_600)));
        let controls = Controls { consent, ..Controls::default() };
        let mock = Arc::new(Mock::new(&services, controls, Arc::clone(&clock) as _, Arc::new(SeededRandom::new(7))));
        let address = super::mock::serve(Arc::clone(&mock));
        let mut browser = Browser::default();
        browser.stop = Some("http://127.0.0.1:1/".to_owned());
        Self { services, mock, clock, client: Client::new(address), browser, base: format!("http://{address}/svc") }
    }

    /// Another process takes its place, which goes on from what this one had issued.
    fn restart(&mut self) {
        let random = Arc::new(SeededRandom::new(8));
        let next = Mock::new(&self.services, Controls::default(), Arc::clone(&self.clock) as _, random);
        let state: Value = serde_json::from_str(&self.mock.state().to_string()).unwrap();
        next.restore(&state).unwrap();
        self.mock = Arc::new(next);
        let address = super::mock::serve(Arc::clone(&self.mock));
        self.client = Client::new(address);
        self.base = format!("http://{address}/svc");
    }

    /// With an authorization endpoint, and whatever else.
    fn with(more: &Value) -> Self {
        let mut oauth2 = json!({ "authorize": "https://svc.example/authorize" });
        oauth2.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self::start(&oauth2, Consent::Granted)
    }

    fn authorize(&mut self, more: &str) -> Page {
        let redirect: String = url::form_urlencoded::byte_serialize(CALLBACK.as_bytes()).collect();
        let standard = format!("client_id=app&response_type=code&redirect_uri={redirect}&state=st");
        let pkce = format!("&code_challenge={CHALLENGE}&code_challenge_method=S256");
        self.browser.open(&format!("{}/authorize?{standard}{pkce}{more}", self.base))
    }

    fn form(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.client.send("POST", &format!("/svc{path}"), &headers, body.as_bytes()).unwrap()
    }

    fn exchange(&mut self, code: &str, verifier: &str) -> Reply {
        let (id, secret) = (("client_id", "app"), ("client_secret", "s3"));
        let redirect = ("redirect_uri", CALLBACK);
        let grant = ("grant_type", "authorization_code");
        self.form("/token", &[grant, ("code", code), redirect, ("code_verifier", verifier), id, secret])
    }

    fn refresh(&mut self, token: &str) -> Reply {
        let client = [("client_id", "app"), ("client_secret", "s3")];
        self.form("/token", &[("grant_type", "refresh_token"), ("refresh_token", token), client[0], client[1]])
    }

    /// Signs in and gives the token answer.
    fn sign_in(&mut self) -> Value {
        let code = self.authorize("").parameter("code").unwrap();
        let reply = self.exchange(&code, VERIFIER);
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()
    }

    fn call(&mut self, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        self.client.send("GET", "/svc/v1/me", &[("authorization", &bearer)], b"").unwrap().status
    }

    fn control(&mut self, change: &Value) -> Value {
        self.client.send("POST", "/-/oauth/svc", &[], change.to_string().as_bytes()).unwrap().json()
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

#[test]
fn what_was_issued_outlives_the_process_where_it_is_kept() {
    let mut service = Service::with(&json!({ "refresh_tokens": "rotate" }));
    let first = service.sign_in();
    let (access, refresh) = (text(&first, "/access_token"), text(&first, "/refresh_token"));
    service.restart();
    assert_eq!((service.call(&access), service.call("mock-access-made-up")), (200, 401));
    let renewed = service.refresh(&refresh).json();
    assert_eq!(service.call(&text(&renewed, "/access_token")), 200);
    // A refresh token that was used up before the end is used up after it as well.
    service.restart();
    assert_eq!(service.refresh(&refresh).json()["error"], "invalid_grant");
    assert_eq!(service.call(&access), 401, "a second use revokes what came of the consent");
    assert!(service.mock.restore(&json!({ "something": "else" })).is_err());
}

#[test]
fn a_person_consents_on_a_page_to_the_scopes_they_choose() {
    let scopes = json!([{ "name": "a", "grants": "Read <all>" }, { "name": "b", "grants": "Write" }]);
    let oauth2 = json!({ "authorize": "https://svc.example/authorize", "scopes": scopes });
    let mut service = Service::start(&oauth2, Consent::Asked);
    let page = service.authorize("&scope=a%20b");
    assert!(page.text.contains("Read &lt;all&gt;") && page.text.contains("Write"), "{page:?}");
    let denied = service.browser.submit(&page, &[("decision", "deny")]);
    assert_eq!(denied.parameter("error").as_deref(), Some("access_denied"));
    assert_eq!((denied.parameter("state").as_deref(), denied.parameter("at").as_deref()), (Some("st"), Some("svc")));
    let allowed = service.browser.submit(&page, &[("granted", "a"), ("decision", "allow")]);
    let code = allowed.parameter("code").unwrap();
    assert_eq!(service.exchange(&code, VERIFIER).json()["scope"], "a");
    let unknown = service.authorize("&scope=c");
    assert_eq!(unknown.parameter("error").as_deref(), Some("invalid_scope"));
}

#[test]
fn a_code_is_bound_to_its_request_and_counts_once() {
    let mut service = Service::with(&json!({}));
    let code = service.authorize("").parameter("code").unwrap();
    assert_eq!(service.exchange(&code, "not-the-verifier").json()["error"], "invalid_grant");
    let code = service.authorize("").parameter("code").unwrap();
    let moved = [
        ("grant_type", "authorization_code"),
        ("code", &*code),
        ("redirect_uri", "http://127.0.0.1:1/other"),
        ("code_verifier", VERIFIER),
        ("client_id", "app"),
        ("client_secret", "s3"),
    ];
    assert_eq!(service.form("/token", &moved).json()["error"], "invalid_grant");
    let code = service.authorize("").parameter("code").unwrap();
    let tokens = service.exchange(&code, VERIFIER).json();
    let access = text(&tokens, "/access_token");
    assert_eq!((tokens["expires_in"].as_u64(), service.call(&access)), (Some(3_600), 200));
    assert_eq!(service.exchange(&code, VERIFIER).json()["error"], "invalid_grant");
    assert_eq!(service.call(&access), 401, "a code that comes twice costs the tokens");
    assert_eq!(service.call("made-up"), 401);
}

#[test]
fn pkce_is_wanted_unless_it_is_off_and_refused_where_it_is() {
    let mut wants = Service::with(&json!({}));
    let url =
        format!("{}/authorize?client_id=app&response_type=code&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2F", wants.base);
    assert_eq!(wants.browser.open(&url).parameter("error").as_deref(), Some("invalid_request"));
    let mut off = Service::with(&json!({ "pkce": { "off": "the service refuses it" } }));
    assert_eq!(off.authorize("").parameter("error").as_deref(), Some("invalid_request"));
    let url = url.replace(&wants.base, &off.base);
    assert!(off.browser.open(&url).parameter("code").is_some());
}

#[test]
fn refresh_tokens_are_kept_or_rotated_as_declared() {
    let mut keeps = Service::with(&json!({}));
    let tokens = keeps.sign_in();
    let refresh = text(&tokens, "/refresh_token");
    keeps.clock.advance(Duration::from_hours(1));
    assert_eq!(keeps.call(&text(&tokens, "/access_token")), 401);
    let renewed = keeps.refresh(&refresh).json();
    assert!(renewed["refresh_token"].is_null(), "{renewed}");
    assert_eq!(keeps.call(&text(&renewed, "/access_token")), 200);
    assert_eq!(keeps.refresh(&refresh).status, 200);

    let mut rotates = Service::with(&json!({ "refresh_tokens": "rotate" }));
    let first = text(&rotates.sign_in(), "/refresh_token");
    let renewed = rotates.refresh(&first).json();
    assert_ne!(text(&renewed, "/refresh_token"), first);
    assert_eq!(rotates.refresh(&first).json()["error"], "invalid_grant");
    assert_eq!(rotates.call(&text(&renewed, "/access_token")), 401, "reuse costs the family");
    let told = rotates.control(&json!({}));
    assert_eq!((&told["refreshes"], &told["reuses"], &told["consents"]), (&json!(1), &json!(1), &json!(0)));
}

#[test]
fn odd_answers_have_the_shape_that_the_definition_reads() {
    let tokens = json!({
        "default": { "access": "body.data.token.value", "refresh": "body.data.token.renew",
            "expires": { "at": "body.data.until", "unit": "epoch_millis" } },
        "user": { "access": "body.people[0].token", "expires_in": "body.minutes * 60" } });
    let call = json!({ "request": "POST https://svc.example/token", "tokens": tokens, "ok": "body.result == '0000'",
        "error": "body.message", "save": { "team": "body.team.id" }, "rename": { "client_id": "client_key" }, "params_in": "json" });
    let mut service = Service::with(&json!({ "token": call }));
    let code = service.authorize("").parameter("code").unwrap();
    let mut ask = json!({ "grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER, "client_id": "app", "client_secret": "s3" });
    let mut post = |ask: &Value| {
        let headers = [("content-type", "application/json")];
        service.client.send("POST", "/svc/token", &headers, ask.to_string().as_bytes()).unwrap().json()
    };
    let refused = post(&ask);
    assert!(refused["result"] != "0000" && text(&refused, "/message").contains("client_key"), "{refused}");
    ask["client_key"] = ask["client_id"].take();
    let answer = post(&ask);
    assert_eq!(
        (&answer["result"], &answer["data"]["until"], &answer["minutes"]),
        (&json!("0000"), &json!(1_769_857_200_000_u64), &json!(60))
    );
    assert!(answer["team"]["id"].is_string() && answer["people"][0]["token"].is_string(), "{answer}");
    assert_eq!(service.call(&text(&answer, "/data/token/value")), 200);
}

#[test]
fn a_device_is_told_to_wait_until_a_person_has_typed_its_code() {
    let oauth2 = json!({ "grant": "device_code", "device": "POST https://svc.example/device" });
    let mut service = Service::start(&oauth2, Consent::Asked);
    let begun = service.form("/device", &[("client_id", "app")]).json();
    let device = text(&begun, "/device_code");
    let poll = |service: &mut Service| {
        let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
        service.form("/token", &[grant, ("device_code", &device), ("client_id", "app"), ("client_secret", "s3")]).json()
    };
    assert_eq!(poll(&mut service)["error"], "authorization_pending");
    assert_eq!(poll(&mut service)["error"], "slow_down");
    let page = service.browser.open(&text(&begun, "/verification_uri_complete"));
    service.browser.submit(&page, &[("decision", "allow")]);
    service.clock.advance(Duration::from_secs(10));
    let tokens = poll(&mut service);
    assert_eq!(service.call(&text(&tokens, "/access_token")), 200);
    assert_eq!(poll(&mut service)["error"], "invalid_grant");
}

#[test]
fn an_issuer_tells_its_endpoints_and_itself() {
    let mut service = Service::start(
        &json!({ "issuer": "https://id.example/t", "token": "https://id.example/t/token" }),
        Consent::Granted,
    );
    let told = service.client.get("/svc/.well-known/oauth-authorization-server/t").unwrap().json();
    assert_eq!(
        (&told["issuer"], &told["token_endpoint"]),
        (&json!("https://id.example/t"), &json!("https://id.example/t/token"))
    );
    let at = text(&told, "/authorization_endpoint").replace("https://id.example", &service.base);
    let query = format!(
        "client_id=app&response_type=code&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2F&code_challenge={CHALLENGE}&code_challenge_method=S256"
    );
    let page = service.browser.open(&format!("{at}?{query}"));
    assert_eq!(page.parameter("iss").as_deref(), Some("https://id.example/t"));
}

#[test]
fn what_is_revoked_expired_or_made_to_fail_does_so() {
    let mut service =
        Service::with(&json!({ "revoke": { "request": "POST https://svc.example/revoke", "credential": "none",
        "form": { "token": "{{ token.refresh }}", "client_id": "{{ client.id }}" } } }));
    let tokens = service.sign_in();
    let (access, refresh) = (text(&tokens, "/access_token"), text(&tokens, "/refresh_token"));
    service.control(&json!({ "expire": true }));
    assert_eq!(service.call(&access), 401);
    service.control(&json!({ "fail": { "error": "temporarily_unavailable" } }));
    assert_eq!(service.refresh(&refresh).status, 503);
    let renewed = text(&service.refresh(&refresh).json(), "/access_token");
    assert_eq!(service.call(&renewed), 200);
    assert_eq!(service.form("/revoke", &[("token", &refresh)]).status, 400, "a declared field is missing");
    assert_eq!(service.form("/revoke", &[("token", &refresh), ("client_id", "app")]).status, 200);
    assert_eq!((service.call(&renewed), service.refresh(&refresh).status), (401, 400));
}

#[test]
fn what_stands_for_itself_needs_no_application() {
    let exchange = json!({ "subject_token": "st", "subject_token_type": "urn:x" });
    let oauth2 = json!({ "grant": "token_exchange", "client": null, "exchange": exchange });
    let mut service = Service::start(&oauth2, Consent::Granted);
    let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    let fields = [grant, ("subject_token", "st"), ("subject_token_type", "urn:x")];
    assert_eq!(service.form("/token", &fields).status, 200);
    let mut service = Service::start(&json!({ "grant": "token_exchange", "exchange": exchange }), Consent::Granted);
    assert_eq!(service.form("/token", &fields).json()["error"], "invalid_client", "the definition has one");
}

#[test]
fn a_parameter_that_is_declared_empty_is_not_wanted() {
    let authorize = json!({ "url": "https://svc.example/authorize", "params": { "empty": "", "prompt": "login" } });
    let mut service = Service::with(&json!({ "authorize": authorize }));
    assert!(service.authorize("").parameter("error_description").unwrap().contains("`prompt`"));
    assert!(service.authorize("&prompt=login").parameter("code").is_some());
}

#[test]
fn a_revocation_proves_the_application_as_token_calls_do() {
    let mut service = Service::with(&json!({ "client": { "id": "app" }, "client_auth": "private_key_jwt",
        "assertion": { "algorithm": "HS256" },
        "revoke": { "request": "POST https://svc.example/revoke", "credential": "client", "form": { "token": "{{ token.access }}" } } }));
    let basic = [("authorization", "Basic YXBwOg=="), ("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(service.client.send("POST", "/svc/revoke", &basic, b"token=x").unwrap().status, 401);
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let assertion = format!("{}.{}.", part(json!({ "alg": "HS256" })), part(json!({ "iat": 1, "exp": 60 })));
    let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let fields = [("token", "x"), ("client_id", "app"), kind, ("client_assertion", &assertion)];
    assert_eq!(service.form("/revoke", &fields).status, 200);
}

#[test]
fn a_definition_that_pushes_is_pushed_to_and_takes_nothing_from_browsers() {
    let mut service = Service::with(&json!({ "push": "POST https://svc.example/par" }));
    assert!(service.authorize("").text.contains("`request_uri` is missing"));
    let redirect = ("redirect_uri", CALLBACK);
    let asked = [("response_type", "code"), redirect, ("state", "st"), ("code_challenge", CHALLENGE)];
    let rest = [("code_challenge_method", "S256"), ("client_id", "app")];
    let push = |service: &mut Service, secret: &str| {
        let all: Vec<_> = asked.iter().chain(&rest).copied().chain([("client_secret", secret)]).collect();
        service.form("/par", &all)
    };
    assert_eq!(push(&mut service, "wrong").status, 401);
    let pushed = push(&mut service, "s3");
    assert_eq!((pushed.status, pushed.json()["expires_in"].clone()), (201, json!(60)));
    let name: String = url::form_urlencoded::byte_serialize(text(&pushed.json(), "/request_uri").as_bytes()).collect();
    let url = format!("{}/authorize?client_id=app&request_uri={name}", service.base);
    let code = service.browser.open(&url).parameter("code").unwrap();
    assert_eq!(service.exchange(&code, VERIFIER).status, 200);
    service.clock.advance(Duration::from_secs(61));
    assert!(service.browser.open(&url).text.contains("has expired"), "it is good for a minute");
}

#[test]
fn an_application_that_registers_is_known_and_one_that_does_not_is_refused() {
    let oauth2 = json!({ "authorize": "https://svc.example/authorize", "client": null, "token": "https://svc.example/token",
        "registration": { "url": "https://svc.example/register", "token": "initial" } });
    let mut service = Service::start(&oauth2, Consent::Granted);
    assert!(service.authorize("").text.contains("registered this `redirect_uri`"));
    let asked = json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_post" });
    let register = |service: &mut Service, token: &str, asked: &Value| {
        let headers = [("content-type", "application/json"), ("authorization", token)];
        service.client.send("POST", "/svc/register", &headers, asked.to_string().as_bytes()).unwrap()
    };
    assert_eq!(register(&mut service, "Bearer other", &asked).status, 401);
    let bad = json!({ "redirect_uris": ["https://a.example/#x"], "token_endpoint_auth_method": "none" });
    assert_eq!(register(&mut service, "Bearer initial", &bad).json()["error"], "invalid_redirect_uri");
    let given = register(&mut service, "Bearer initial", &asked);
    assert_eq!(given.status, 201, "{}", given.json());
    let given = given.json();
    let (id, secret) = (text(&given, "/client_id"), text(&given, "/client_secret"));
    let redirect: String = url::form_urlencoded::byte_serialize(CALLBACK.as_bytes()).collect();
    let url = format!(
        "{}/authorize?client_id={id}&response_type=code&redirect_uri={redirect}&state=st&code_challenge={CHALLENGE}&code_challenge_method=S256",
        service.base
    );
    let code = service.browser.open(&url).parameter("code").unwrap();
    let exchange = |service: &mut Service, secret: &str| {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
            ("client_id", &id),
            ("client_secret", secret),
        ];
        service.form("/token", &fields)
    };
    assert_eq!(exchange(&mut service, "wrong").json()["error"], "invalid_client");
    assert_eq!(exchange(&mut service, &secret).status, 200);
    let manage = format!("/svc/mock/registrations/{id}");
    let token = format!("Bearer {}", text(&given, "/registration_access_token"));
    let forget = |service: &mut Service, token: &str| {
        service.client.send("DELETE", &manage, &[("authorization", token)], b"").unwrap().status
    };
    assert_eq!(
        [forget(&mut service, "Bearer x"), forget(&mut service, &token), forget(&mut service, &token)],
        [401, 204, 401]
    );
}
