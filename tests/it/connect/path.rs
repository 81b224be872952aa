//! What happens when all goes well, and when the service does not.

use serde_json::json;
use trunkline::base::plain::is_plain;
use trunkline::connection::Credential;
use trunkline::connection::TokenErrorKind::{Passing, Permanent};
use trunkline::connection::connect::provider::Who;
use trunkline::connection::connect::{Wanted, account_email_of, account_id_of};

use super::desk::{APP, Browser, Desk, error_of, html, refused, target};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_an_account_and_everyone_is_told() {
    let desk = Desk::open().await;
    let made = desk.link().await;
    assert_eq!(desk.state_of(&made).await, "waiting");
    let mut browser = Browser::new(&desk);
    let page = browser.get(target(&made.url)).await;
    let shown_page = html(&page);
    for shown in
        ["Connect Hub &lt;b&gt;&amp;", "See your projects", "Change your projects", "before .hub.example", "acme"]
    {
        assert!(shown_page.contains(shown), "{shown} is not in {shown_page}");
    }
    let left = browser.post(target(&made.url), "scope=write&scope=evil&input.site=acme&input.region=eu").await;
    let (state, challenge, scopes, redirect_uri) = desk.service.departures.lock().unwrap()[0].clone();
    assert!(html(&left).contains(&format!("0;url=https://hub.example/authorize?state={state}")), "{}", left.text());
    assert_eq!((scopes, state.len()), (vec!["read".to_owned(), "write".to_owned()], 75));
    assert!(redirect_uri.ends_with("/api/auth/callback/hub") && challenge.is_some_and(|text| text.len() == 43));
    assert_eq!(desk.state_of(&made).await, "started");
    let outcome = html(&browser.succeed().await);
    for shown in ["is connected", "Ada &lt;i&gt;", "Not everything was granted", "data-state=\"connected\"", APP] {
        assert!(outcome.contains(shown), "{shown} is not in {outcome}");
    }
    assert!(!outcome.contains("canary") && !outcome.contains("the-code"));
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-1"));
    let (code, verifier, inputs) = desk.service.exchanges.lock().unwrap()[0].clone();
    assert_eq!((code.as_str(), verifier.map(|text| text.len())), ("the-code", Some(43)));
    assert_eq!(inputs, json!({ "site": "acme", "region": "eu" }));
    let shown = desk.connect.outcome(&made.result).await.unwrap().unwrap();
    assert_eq!(shown.connected.unwrap().missing(), ["write"]);
    let actions: Vec<_> = desk.audit().await.into_iter().map(|(action, _)| action).collect();
    assert_eq!(actions, ["connect.link", "connect.start", "connection.put", "connect.end"]);
    assert_eq!(desk.records("connect_flows").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_account_it_is_is_shown_without_what_turns_or_hides_text() {
    let desk = Desk::open().await;
    let who =
        Who { id: Some("4\u{200b}2".to_owned()), name: Some("Ada \u{202e}nimda\u{2066}".to_owned()), ..Who::default() };
    desk.service.set(|manners| manners.who = Ok(Some(who.clone())));
    let (mut browser, _) = desk.departed().await;
    let outcome = browser.succeed().await.text();
    assert!(outcome.contains("Ada nimda"), "{outcome}");
    assert!(outcome.chars().all(|c| c == '\n' || is_plain(c)), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_again_keeps_the_old_token_until_the_new_one_works() {
    let desk = Desk::open().await;
    let (mut browser, _) = desk.departed().await;
    browser.succeed().await;
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-1"));
    desk.service.set(|manners| {
        manners.grant = Ok(vec!["read", "admin"]);
        manners.who = Err(refused(Permanent, Some(401), "bad token"));
    });
    let (mut browser, made) = desk.departed().await;
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-1"));
    let failed = browser.succeed().await.text();
    assert!(failed.contains("does not accept the new sign-in") && failed.contains("stays as it was"), "{failed}");
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-1"));
    // The same browser may try again with the same link.
    desk.service.set(|manners| manners.who = Ok(None));
    let again = browser.get(target(&made.url)).await.text();
    assert!(again.contains("Connect Hub &lt;b&gt;&amp; again"), "{again}");
    browser.post(target(&made.url), "input.site=main").await;
    let outcome = browser.succeed().await.text();
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-3"));
    assert!(outcome.contains("<code>admin</code> <span class=\"tag\">new</span>"), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_is_a_page_to_act_on_and_nothing_is_stored() {
    for (query, token_error, code, shown) in [
        ("error=access_denied&error_description=no%3Cscript%3E", None, "denied", "Access was not granted"),
        ("error=server_error", None, "service_fault", "has a problem at the moment"),
        ("error=%3Cscript%3Ealert(1)%3C%2Fscript%3E", None, "misconfigured", "&lt;script&gt;alert(1)"),
        ("", None, "no_code", "without a confirmation"),
        ("code=c", Some(refused(Permanent, Some(400), "used before")), "code_refused", "used before"),
        ("code=c", Some(refused(Passing, Some(200), "the answer is HTML")), "answer_unusable", "cannot be used"),
        (
            "code=c",
            Some(refused(Passing, None, "no answer within 30 s")),
            "service_unreachable",
            "could not be reached",
        ),
        ("code=c", Some(refused(Passing, Some(503), "busy")), "service_fault", "Try again in a few minutes"),
    ] {
        let desk = Desk::open().await;
        let (mut browser, made) = desk.departed().await;
        if let Some(error) = token_error {
            desk.service.set(|manners| manners.grant = Err(error));
        }
        let reply = browser.callback(&format!("state={}&{query}", desk.service.state())).await;
        assert_eq!(reply.status, 303, "{query}");
        let page = html(&browser.get(reply.header("location").unwrap()).await);
        assert!(page.contains(shown) && page.contains("Try again") && !page.contains("<script>alert"), "{page}");
        assert_eq!(error_of(&desk.connect.outcome(&made.result).await.unwrap().unwrap())["code"], code);
        assert_eq!(desk.token().await, None);
        assert_eq!(desk.records("connections").await, 0);
        let (action, detail) = desk.audit().await.pop().unwrap();
        assert_eq!((action.as_str(), &detail["failure"]), ("connect.end", &json!(code)));
        assert_eq!(desk.activity.newest(1, |_| true)[0].error.as_deref(), Some(code));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_stands_between_the_grant_and_the_connection() {
    let desk = Desk::open().await;
    let choices = vec![("Alpha", json!({ "site_id": "a" })), ("Beta <b>", json!({ "site_id": "b" }))];
    desk.service.set(|manners| manners.choices = choices);
    let (mut browser, made) = desk.departed().await;
    let page = browser.succeed().await;
    assert!(page.text().contains("Beta &lt;b&gt;"), "{}", page.text());
    assert_eq!((desk.state_of(&made).await.as_str(), desk.token().await), ("choosing", None));
    let place = format!("/api/connect/hub/choose?result={}", made.result);
    let mut stranger = Browser::new(&desk);
    stranger.get(target(&desk.link().await.url)).await;
    assert_eq!(stranger.get(&place).await.status, 400);
    assert_eq!(stranger.post(&place, "choice=1").await.status, 400);
    assert_eq!(browser.post(&place, "choice=7").await.status, 400);
    let done = browser.post(&place, "choice=1").await;
    assert_eq!(done.status, 303, "{}", done.text());
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-1"));
    assert_eq!(browser.post(&place, "choice=0").await.status, 400);
    assert_eq!(desk.records("connect_choices").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_entered_on_our_page_and_checked_against_its_pattern() {
    let desk = Desk::open().await;
    let made = desk.link_for(|wanted| wanted.integration = "keyed".to_owned()).await;
    let mut browser = Browser::new(&desk);
    let page = html(&browser.get(target(&made.url)).await);
    assert!(
        page.contains("Secret key")
            && page.contains("https://keyed.example/keys")
            && page.contains("type=\"password\"")
    );
    let wrong = browser.post(target(&made.url), "api_key=pk_canary").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("does not look like a key") && !wrong.text().contains("pk_canary"));
    let right = browser.post(target(&made.url), "api_key=+sk_canary+").await;
    assert_eq!(right.status, 303, "{}", right.text());
    let outcome = browser.get(right.header("location").unwrap()).await.text();
    assert!(outcome.contains("Keyed is connected") && !outcome.contains("sk_canary"), "{outcome}");
    assert_eq!(desk.records("connections").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_that_opened_the_window_asks_the_server() {
    let desk = Desk::open().await;
    let (mut browser, made) = desk.departed().await;
    let ask = format!("/api/connect/hub/result?result={}&wait=20", made.result);
    let (mut page, mut foreign) = (Browser::new(&desk), Browser::new(&desk));
    let origin = format!("Origin: {APP}\r\n");
    let waiting = page.ask("GET", &ask, &origin, "");
    let (told, _) = tokio::join!(waiting, browser.succeed());
    assert_eq!(
        told.json(),
        json!({ "result": made.result, "state": "connected", "error": null, "again": false, "waited": true })
    );
    assert_eq!(told.header("access-control-allow-origin"), Some(APP));
    let told = foreign.ask("GET", &ask, "Origin: https://evil.example\r\n", "").await;
    assert_eq!(told.header("access-control-allow-origin"), None);
    for wrong in ["/api/connect/hub/result?result=x", "/api/connect/hub/result", &ask.replace("hub", "other")] {
        assert!(foreign.get(wrong).await.status >= 400, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_made_for_what_is_declared_and_allowed_only() {
    let desk = Desk::open().await;
    let wanted = |change: &dyn Fn(&mut Wanted)| {
        let mut wanted = Wanted { integration: "hub".into(), connection: "acme".into(), ..Wanted::default() };
        change(&mut wanted);
        wanted
    };
    for (change, told) in [
        (&(|wanted: &mut Wanted| wanted.integration = "nope".into()) as &dyn Fn(&mut Wanted), "no integration `nope`"),
        (&|wanted| wanted.connection = "a/b".into(), "a name has"),
        (&|wanted| wanted.return_to = Some("https://evil.example/".into()), "not among `connect.origins`"),
        (&|wanted| wanted.return_to = Some("//evil.example/".into()), "begins with one `/`"),
        (&|wanted| wanted.origin = Some("https://evil.example".into()), "not among `connect.origins`"),
        (&|wanted| wanted.scopes = Some(vec!["root".into()]), "declares no scope `root`"),
        (&|wanted| wanted.optional = Some(vec!["root".into()]), "declares no scope `root`"),
    ] {
        let error = desk.connect.link("operator", wanted(change)).await.unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    assert!(desk.audit().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_said_to_be_granted_is_what_was_asked_for() {
    // RFC 6749 §5.1: the scope of an answer is optional where it is what was asked for.
    let desk = Desk::open().await;
    desk.service.set(|manners| manners.tells_scopes = false);
    let made = desk.link().await;
    let mut browser = Browser::new(&desk);
    browser.get(target(&made.url)).await;
    browser.post(target(&made.url), "scope=write&input.site=main").await;
    let page = browser.succeed().await.text();
    assert!(page.contains("<code>write</code>") && !page.contains("Not everything was granted"), "{page}");
    let content = desk.connections.peek("hub", "acme").await.unwrap().unwrap();
    let Credential::Tokens(tokens) = &content.credential else { panic!("{:?}", content.credential) };
    assert_eq!(tokens.issued(None).unwrap().scopes, Some(vec!["read".to_owned(), "write".to_owned()]));
    let account = (account_id_of(&content.saved), account_email_of(&content.saved));
    assert_eq!(account, (Some("42"), Some("ada@example.com")), "whose account it is, is kept with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_asks_for_so_many_pages_and_then_waits() {
    let desk = Desk::open().await;
    desk.take_at_most(3);
    let made = desk.link().await;
    let mut browser = Browser::new(&desk);
    for _ in 0..3 {
        assert_eq!(browser.get(target(&made.url)).await.status, 200);
    }
    for path in [target(&made.url), "/api/auth/callback/hub?state=x&code=y", "/api/connect/other/outcome?result=x"] {
        let reply = browser.get(path).await;
        assert_eq!((reply.status, reply.code()), (429, Some("rate_limited")), "{path}");
        assert!(reply.header("retry-after").is_some() && reply.text().contains("Wait a minute"), "{path}");
    }
    assert_eq!(browser.get("/api/connect/-/connect.css").await.status, 200, "files of pages do not count");
    assert_eq!(desk.counted("rate_limited"), 2);
    assert!(desk.audit().await.iter().all(|(action, _)| action != "connect.refused"), "nothing was looked at");
    desk.clock.advance(std::time::Duration::from_secs(20));
    assert_eq!(browser.get(target(&made.url)).await.status, 200);
    assert_eq!(browser.get(target(&made.url)).await.status, 429);
}
