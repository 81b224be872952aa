//! Who gets in, and who does not.

use std::time::Duration;

use super::house::{ADA, BOB, House, TOKEN, Visitor, WATCH, people, text};
use crate::outside::http::Reply;

fn code(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.header("trunkline-error").unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_or_a_token_begins_a_session_and_signing_out_ends_it() {
    let house = House::open(&people()).await;
    let stranger = house.visitor().get("/connections?status=error");
    assert_eq!(stranger.status, 401);
    assert!(text(&stranger).contains("value=\"/connections?status=error\""), "{}", text(&stranger));
    for (name, password) in [("ada", ADA), ("bob", BOB), ("operator", TOKEN), ("watch", WATCH)] {
        let mut visitor = house.visitor();
        let reply = visitor.sign_in(name, password);
        assert_eq!((reply.status, reply.header("location")), (303, Some("/events")), "{name}");
        let cookie = reply.header("set-cookie").unwrap();
        assert!(
            cookie.starts_with(&format!("trunkline-{}=", house.admin.port()))
                && cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"),
            "{cookie}"
        );
        assert!(text(&visitor.get("/")).contains(&format!(">{name} <")), "{name}");
        assert_eq!(visitor.post("/sign-out", &[]).status, 303);
        assert_eq!(visitor.get("/").status, 401, "a cookie counts after signing out");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_told_nothing_and_gets_slower() {
    let house = House::open(&people()).await;
    let guess = |name: &str| house.visitor().sign_in(name, "wrong wrong wrong");
    let (known, unknown) = (guess("ada"), guess("nobody"));
    assert_eq!((code(&known), code(&unknown)), ((401, "sign_in_refused"), (401, "sign_in_refused")));
    let said = |reply: &Reply, name: &str| text(reply).replace(name, "X");
    assert_eq!(said(&known, "ada"), said(&unknown, "nobody"), "an answer tells whether a name is known");
    assert_eq!(code(&guess("ada")).0, 401);
    let fourth = guess("ada");
    assert_eq!((fourth.status, fourth.header("retry-after")), (401, Some("1")));
    let locked = house.visitor().sign_in("ada", ADA);
    assert_eq!(
        (code(&locked), locked.header("retry-after")),
        ((429, "rate_limited"), Some("1")),
        "the right one is not compared either"
    );
    house.pass(Duration::from_secs(2));
    assert_eq!(house.visitor().sign_in("ada", ADA).status, 303);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_signed_in_before_is_not_kept_waiting_by_strangers() {
    let house = House::open(&people()).await;
    let mut ada = house.signed_in("ada", ADA);
    assert!(ada.device.starts_with("trunkline-device-"), "{}", ada.device);
    assert_eq!(ada.post("/sign-out", &[]).status, 303);
    ada.cookie.clear();
    let guess = |visitor: &Visitor, name: &str| visitor.clone().sign_in(name, "wrong wrong wrong").status;
    let stranger = house.visitor();
    assert_eq!([(); 5].map(|()| guess(&stranger, "ada")), [401, 401, 401, 401, 429]);
    assert_eq!(house.visitor().sign_in("ada", ADA).status, 429, "a browser that nobody knows waits");
    // Not even for the address that the guesses come from.
    assert_eq!(ada.clone().sign_in("ada", ADA).status, 303);
    let borrowed = Visitor { device: ada.device.clone(), ..house.visitor() };
    assert_eq!(guess(&borrowed, "bob"), 429, "another account's browser is nobody's");
    let forged = Visitor { device: ada.device.replacen('=', "=x", 1), ..house.visitor() };
    assert_eq!(forged.clone().sign_in("ada", ADA).status, 429);
    // Its own guesses cost the browser its waits.
    assert_eq!([(); 5].map(|()| guess(&ada, "ada")), [401, 401, 401, 401, 429]);
    assert_eq!(ada.sign_in("ada", ADA).status, 429);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_tokens_gets_slower_and_keeps_nobody_from_signing_in() {
    let house = House::open(&people()).await;
    let visitor = house.visitor();
    let ask = |token: &str| visitor.send("GET", "/api/config", &[("authorization", &format!("Bearer {token}"))], "");
    for guess in 0..3 {
        let reply = ask(&format!("wrong-{guess}"));
        assert_eq!((code(&reply), reply.header("retry-after")), ((401, "admin_unknown"), None));
    }
    assert_eq!(ask("wrong-3").header("retry-after"), Some("1"));
    let locked = ask(TOKEN);
    assert_eq!((code(&locked), locked.header("retry-after")), ((429, "rate_limited"), Some("1")));
    assert_eq!(house.visitor().sign_in("ada", ADA).status, 303);
    assert_eq!(visitor.get("/livez").status, 200, "what shows no token is not held up");
    house.pass(Duration::from_secs(2));
    assert_eq!(ask(TOKEN).status, 200);
    assert_eq!(ask("wrong-4").header("retry-after"), None, "a right token ends the count");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_the_same_time_count_one_after_the_other() {
    let house = House::open(&people()).await;
    let guess = || house.visitor().sign_in("ada", "wrong wrong wrong").status;
    let mut answers: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..12).map(|_| scope.spawn(guess)).collect();
        all.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    answers.sort_unstable();
    assert_eq!(answers, [[401; 4].as_slice(), &[429; 8]].concat(), "more than four passwords were compared");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_by_itself_and_with_its_account() {
    let settings = people().replace("admin:\n", "admin:\n  session: { idle: 10m, lifetime: 1h }\n");
    let house = House::open(&settings).await;
    let visitor = house.signed_in("ada", ADA);
    for _ in 0..6 {
        house.pass(Duration::from_mins(9));
        assert_eq!(visitor.get("/events").status, 200);
    }
    house.pass(Duration::from_mins(7));
    assert_eq!(visitor.get("/events").status, 401, "a session outlives its hour");
    let idle = house.signed_in("ada", ADA);
    house.pass(Duration::from_mins(10));
    assert_eq!(idle.get("/events").status, 401);
    // Another password: the sessions of the old one are over.
    let visitor = house.signed_in("bob", BOB);
    let file = house.directory.path().join("trunkline.yaml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let begin = settings.find("bob: { role: viewer, password_hash: \"").unwrap();
    let (before, after) = settings.split_at(begin);
    let other = trunkline::definition::password::hash(b"another password", &[9; 16]).unwrap();
    let hash = after.split('"').nth(1).unwrap();
    std::fs::write(&file, format!("{before}{}", after.replacen(hash, &other, 1))).unwrap();
    house.running.reloader().reload().await;
    assert_eq!(visitor.get("/events").status, 401, "a changed password leaves its sessions");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_not_come_back_with_its_account_or_its_password() {
    let house = House::open(&people()).await;
    let file = house.directory.path().join("trunkline.yaml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let (ada, bob) = (house.signed_in("ada", ADA), house.signed_in("bob", BOB));
    let reload = async |settings: &str| {
        std::fs::write(&file, settings).unwrap();
        house.running.reloader().reload().await;
    };
    // Nobody asks with the session while the account is away, or has another password.
    let away: String = settings.split_inclusive('\n').filter(|line| !line.trim().starts_with("bob:")).collect();
    reload(&away).await;
    reload(&settings).await;
    assert_eq!((bob.get("/events").status, ada.get("/events").status), (401, 200));
    let bob = house.signed_in("bob", BOB);
    let begin = settings.find("bob: { role: viewer, password_hash: \"").unwrap();
    let (before, after) = settings.split_at(begin);
    let other = trunkline::definition::password::hash(b"another password", &[9; 16]).unwrap();
    reload(&format!("{before}{}", after.replacen(after.split('"').nth(1).unwrap(), &other, 1))).await;
    reload(&settings).await;
    assert_eq!((bob.get("/events").status, ada.get("/events").status), (401, 200));
    // A role is one of the account as it is now.
    let bob = house.signed_in("bob", BOB);
    reload(&settings.replace("ada: { role: operator", "ada: { role: viewer")).await;
    assert_eq!((bob.get("/events").status, ada.get("/events").status), (200, 200));
    assert_eq!(ada.post("/configuration/reload", &[]).status, 403);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_at_rest_as_a_digest_and_outlives_the_process() {
    let house = House::open(&people()).await;
    let visitor = house.signed_in("ada", ADA);
    let number = visitor.cookie.split_once('=').unwrap().1.to_owned();
    house.running.stop(Duration::from_secs(5)).await;
    let mut files = Vec::new();
    let mut places = vec![house.directory.path().to_owned()];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { places.push(entry) } else { files.push(entry) }
        }
    }
    assert!(files.len() > 3);
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(number.len()).any(|window| window == number.as_bytes());
        assert!(!found, "{} holds a session's cookie", file.display());
    }
}

/// What a page of someone else could make a browser send.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_pages_names_and_forms_are_refused() {
    let house = House::open(&people()).await;
    let visitor = house.signed_in("ada", ADA);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let word = format!("form={}", visitor.form);
    let post = |headers: &[(&str, &str)], body: &str| {
        let reply = visitor.send("POST", "/configuration/reload", headers, body);
        (reply.status, reply.header("trunkline-error").unwrap_or_default().to_owned())
    };
    let refused = |code: &str| (403, code.to_owned());
    assert_eq!(post(&[form, ("origin", "https://evil.example")], &word), refused("origin_forbidden"));
    assert_eq!(post(&[form, ("sec-fetch-site", "cross-site")], &word), refused("origin_forbidden"));
    assert_eq!(post(&[form], ""), refused("form_foreign"));
    assert_eq!(post(&[form], "form=0123456789abcdef0123456789abcdef"), refused("form_foreign"));
    assert_eq!(post(&[("content-type", "text/plain")], &word), refused("form_foreign"));
    assert_eq!(post(&[form], &word).0, 303);
    assert_eq!(post(&[("trunkline-form", visitor.form.as_str())], "").0, 303);
    // Another session's word is another word.
    let other = house.signed_in("ada", ADA);
    assert_ne!(other.form, visitor.form);
    assert_eq!(post(&[form], &format!("form={}", other.form)), refused("form_foreign"));
    // The API takes a session, and asks it for the word as well.
    let api = |headers: &[(&str, &str)]| visitor.send("POST", "/api/reload", headers, "").status;
    assert_eq!((api(&[]), api(&[("trunkline-form", visitor.form.as_str())])), (403, 200));
    // A name that was rebound to our address.
    let rebound = Visitor { host: "rebound.example".to_owned(), ..visitor.clone() };
    for path in ["/", "/sign-in", "/assets/page.css", "/api/config"] {
        assert_eq!(code(&rebound.get(path)), (421, "misdirected"), "{path}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_site_shows_or_loads_any_answer() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    for (who, path, status) in [
        (&ada, "/api/events", 200),
        (&ada, "/api/activity/export.csv", 200),
        (&ada, "/api/openapi.json", 200),
        (&ada, "/api/nothing", 404),
        (&ada, "/api/events?nothing=1", 400),
        (&ada, "/integrations/keyed/logo.svg", 200),
        (&ada, "/", 200),
        (&house.visitor(), "/api/events", 401),
        (&house.visitor(), "/metrics", 200),
        (&house.visitor(), "/livez", 200),
        (&house.visitor(), "/assets/page.js", 200),
        (&Visitor { host: "rebound.example".to_owned(), ..ada.clone() }, "/api/events", 421),
    ] {
        let reply = who.send("GET", path, &[], "");
        assert_eq!(reply.status, status, "{path}");
        let said = ["x-content-type-options", "x-frame-options", "cross-origin-resource-policy"]
            .map(|name| reply.header(name));
        assert_eq!(said, [Some("nosniff"), Some("DENY"), Some("same-origin")], "{path}");
        let policy = reply.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_see_everything_and_change_nothing() {
    let house = House::open(&people()).await;
    let (ada, bob) = (house.signed_in("ada", ADA), house.signed_in("bob", BOB));
    let id = ada.connection_of("keyed");
    let changes = [
        "/configuration/reload".to_owned(),
        "/integrations/keyed/connect".to_owned(),
        "/integrations/keyed/breaker/open".to_owned(),
        format!("/connections/{id}/test"),
        format!("/connections/{id}/pause"),
        "/dead-letters/replay".to_owned(),
        "/replays/1/run".to_owned(),
    ];
    for path in &changes {
        assert_eq!(code(&bob.post(path, &[("do", "save"), ("api_key", "x")])), (403, "role_forbidden"), "{path}");
    }
    let page = text(&bob.get(&format!("/connections/{id}")));
    assert!(page.contains(" disabled title=\"You are signed in as a viewer"), "{page}");
    assert!(!text(&ada.get(&format!("/connections/{id}"))).contains(" disabled"));
    let bearer = format!("Bearer {WATCH}");
    let headers = [("authorization", bearer.as_str())];
    let program = |method: &str, path: &str| house.visitor().send(method, path, &headers, "").status;
    assert_eq!((program("GET", "/api/connections"), program("POST", "/api/reload")), (200, 403));
    assert_eq!(program("DELETE", &format!("/api/integrations/connections/{id}")), 403);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_deployment_is_changed_by_its_files() {
    let house = House::open(&people().replace("admin:\n", "admin:\n  read_only: true\n")).await;
    let ada = house.signed_in("ada", ADA);
    let id = ada.connection_of("keyed");
    let said = ada.post(&format!("/connections/{id}/pause"), &[]);
    assert_eq!(code(&said), (403, "read_only"));
    assert!(text(&said).contains("<h1>Nothing is changed here"), "{}", text(&said));
    assert!(text(&ada.get(&format!("/connections/{id}"))).contains("This deployment is read-only"));
    assert_eq!(ada.post(&format!("/connections/{id}/test"), &[]).status, 303);
    assert_eq!(ada.post("/configuration/reload", &[]).status, 303);
    for route in
        ["/api/reload", "/api/deliveries/replay", "/api/keys/check", "/events/x/replay", "/deliveries/x/replay"]
    {
        let said = ada.post(route, &[]);
        assert_ne!(code(&said).1, "read_only", "{route}: {}", text(&said));
    }
    for route in ["/api/keys/rotate", "/api/nothing/replay", "/nothing/test"] {
        assert_eq!(ada.post(route, &[]).status, 403, "{route}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_path_of_a_proxy_every_address_has_it_and_the_cookie_is_secure() {
    let settings = people().replace("admin:\n", "admin:\n  url: https://ops.example.com/trunk\n");
    let house = House::open(&settings).await;
    let mut ada = Visitor { host: "ops.example.com".to_owned(), ..house.visitor() };
    let signed = ada.send(
        "POST",
        "/trunk/sign-in",
        &[("content-type", "application/x-www-form-urlencoded"), ("origin", "https://ops.example.com")],
        &format!("name=ada&password={ADA}&to=%2Fevents"),
    );
    assert_eq!((signed.status, signed.header("location")), (303, Some("/trunk/events")), "{}", text(&signed));
    let cookie = signed.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-trunkline=") && cookie.ends_with("SameSite=Strict; Secure"), "{cookie}");
    ada.keep(&signed);
    // The proxy may take the path away or leave it.
    let links = regex::Regex::new("(?:href|action|src)=\"(/[^\"]*)\"").unwrap();
    for path in ["/trunk/integrations", "/integrations"] {
        let page = text(&ada.get(path));
        let all: Vec<_> = links.captures_iter(&page).map(|found| found[1].to_owned()).collect();
        assert!(all.len() > 20 && all.iter().all(|link| link.starts_with("/trunk/")), "{all:?}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_do_not_cross_a_network_in_the_clear() {
    let house = House::open(&people().replace("admin:\n", "admin:\n  hosts: [ops.internal]\n")).await;
    let mut ada = Visitor { host: "ops.internal".to_owned(), ..house.visitor() };
    assert!(text(&ada.get("/")).contains("Signing in needs HTTPS"));
    assert_eq!(code(&ada.sign_in("ada", ADA)), (403, "https_required"));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_accounts_a_printed_link_signs_in_once() {
    let house = House::open("").await;
    assert!(text(&house.visitor().get("/")).contains("trunkline sign-in"));
    let link = house.running.sign_in_link().unwrap().expose().clone();
    let path = link.strip_prefix(&format!("http://{}", house.admin)).unwrap().to_owned();
    let mut visitor = house.visitor();
    let reply = visitor.get(&path);
    assert_eq!(reply.status, 200);
    visitor.keep(&reply);
    assert!(text(&visitor.get("/")).contains("<h1>Overview"));
    assert_eq!(code(&house.visitor().get(&path)), (401, "sign_in_refused"), "a link counts twice");
    // The command's way to another one.
    let made = house.visitor().send("POST", "/api/sign-in-links", &[], "").json();
    let path = made["url"].as_str().unwrap().strip_prefix(&format!("http://{}", house.admin)).unwrap().to_owned();
    house.pass(Duration::from_mins(16));
    assert_eq!(code(&house.visitor().get(&path)), (401, "sign_in_refused"), "a link is over after 15 minutes");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sign_in_is_in_the_audit_log_and_counted() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    house.visitor().sign_in("bob", "wrong wrong wrong");
    house.visitor().sign_in("hunter2-in-the-wrong-field", "ada");
    ada.post("/configuration/reload", &[]);
    ada.post("/sign-out", &[]);
    let log = trunkline::store::Audit::read(&**house.running.store(), 1, 100).await.unwrap();
    let said: Vec<_> = log.iter().map(|record| format!("{} {}", record.entry.actor, record.entry.action)).collect();
    for line in ["ada sign_in", "bob sign_in.refused", "unknown sign_in.refused", "ada config.reload", "ada sign_out"] {
        assert!(said.iter().any(|known| known == line), "{line} is not in {said:?}");
    }
    let log = serde_json::to_string(&log).unwrap();
    assert!(!log.contains("hunter2") && !log.contains(ADA) && log.contains("127.0.0.1"), "{log}");
    let metrics = text(&house.visitor().get("/metrics"));
    for (result, count) in [("signed_in", 1), ("refused", 2), ("out", 1)] {
        assert!(metrics.contains(&format!("trunkline_sign_ins_total{{result=\"{result}\"}} {count}")), "{metrics}");
    }
    house.close().await;
}

/// A strict cookie does not come with another site's link: our own page leads on, and then it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_a_chat_leads_to_its_screen() {
    let house = House::open(&people()).await;
    let page = house.visitor().send("GET", "/events?state=dead", &[("sec-fetch-site", "cross-site")], "");
    assert_eq!(page.status, 200);
    assert!(text(&page).contains("content=\"0; url=/events?state=dead\""), "{}", text(&page));
    house.close().await;
}
