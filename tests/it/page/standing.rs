//! What stands here: what files bring into force, what is missing, what this version does not run.

use serde_json::{Value, json};

use super::house::{ADA, House, Visitor, people, text};
use crate::outside::http::Client;

/// Writes a file of the deployment whole at once, because the gateway may read it at any moment, and has it read.
fn write(house: &House, ada: &Visitor, file: &str, content: &str) {
    let draft = house.directory.path().join("draft");
    std::fs::write(&draft, content).unwrap();
    std::fs::rename(&draft, house.directory.path().join(file)).unwrap();
    assert_eq!(ada.post("/configuration/reload", &[]).status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_files_bring_is_in_the_audit_log_with_whose_roles_they_change() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let applied = || ada.get("/api/audit?action=config.applied&order=newest").json();
    let first = applied()[0].clone();
    assert_eq!((&first["actor"], &first["detail"]["generation"]), (&json!("system"), &json!(1)), "{first}");
    assert!(first["detail"]["refused"].to_string().contains("broken.yaml"), "{first}");
    let settings = std::fs::read_to_string(house.directory.path().join("trunkline.yaml")).unwrap();
    let promoted = settings.replace("bob: { role: viewer", "bob: { role: operator");
    // The watch may be there first: whoever reloads has no other entry for it.
    write(&house, &ada, "trunkline.yaml", &promoted);
    let all = applied();
    let newest = &all[0]["detail"];
    assert_eq!((all.as_array().unwrap().len(), &newest["generation"]), (2, &json!(2)), "{all}");
    assert_eq!(newest["accounts"], json!([{ "name": "bob", "from": "viewer", "to": "operator" }]));
    assert_eq!((&newest["changed"], newest["files"].as_array().map(Vec::len)), (&json!([]), Some(1)), "{newest}");
    assert!(newest["files"][0].as_str().unwrap().ends_with("trunkline.yaml"), "{newest}");
    assert!(!all.to_string().contains("argon2"), "{all}");
    let overview = text(&ada.get("/"));
    assert!(overview.contains(">config.applied</a>") && overview.contains("bob: viewer → operator"), "{overview}");
    let page = text(&ada.get("/configuration"));
    assert!(page.contains(">trunkline.yaml</a>"), "{page}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_this_version_does_not_take_are_not_promised() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let row = || {
        let all = ada.get("/api/integrations/marketplace?q=notion").json();
        all.as_array().unwrap().iter().find(|row| row["id"] == "notion").unwrap().clone()
    };
    let honest = |row: &Value, state: &str| {
        assert_eq!((&row["state"], &row["verified"]), (&json!(state), &json!(false)), "{row}");
        assert_eq!((&row["features"], &row["notYet"]), (&json!(["OAuth", "REST API"]), &json!(["Webhooks", "Sync"])));
    };
    honest(&row(), "available");
    let plan = ada.get("/api/integrations/notion/install").json();
    assert!(!plan.to_string().contains("WEBHOOK_SECRET") && plan["needs"].to_string().contains("not take them yet"));
    write(&house, &ada, "integrations/notion.yaml", "trunkline: 1\nid: notion\nextends: notion\n");
    honest(&row(), "installed");
    let page = text(&ada.get("/integrations/notion"));
    assert!(page.contains(">Not taken yet</span>") && !page.contains("A secret that proves webhooks"), "{page}");
    assert!(!page.contains("http://localhost:8080/webhooks/notion"), "{page}");
    assert!(
        page.contains("A version that takes these webhooks") && page.contains("webhook.handshake.secret"),
        "{page}"
    );
    let overview = text(&ada.get("/"));
    assert!(overview.contains(">Webhooks of notion are not taken yet</a>"), "{overview}");
    assert!(overview.contains(">notion lacks auth.oauth2.client</a>"), "{overview}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_comes_before_what_was_never_set_up() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    write(&house, &ada, "integrations/notion.yaml", "trunkline: 1\nid: notion\nextends: notion\n");
    house.dead_letter(&ada, &json!({ "type": "rung", "id": "1" })).await;
    let overview = text(&ada.get("/"));
    let (broken, lacking) = (overview.find("1 delivery was given up"), overview.find("notion lacks"));
    assert!(broken.is_some() && lacking.is_some() && broken < lacking, "{overview}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_in_an_entry_of_the_catalogue_are_shown_with_the_file_that_extends_it() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    write(&house, &ada, "integrations/notion.yaml", "trunkline: 1\nid: notion\nextends: notion\n");
    let page = text(&ada.get("/configuration"));
    let (_, findings) = page.split_once("/integrations/notion.yaml</code></h2>").unwrap_or_else(|| panic!("{page}"));
    let (findings, _) = findings.split_once("</section>").unwrap();
    assert!(findings.contains("catalogue:notion.yaml") && findings.contains("handshake"), "{findings}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_audit_entry_has_an_address_and_what_leads_out_of_its_row_keeps_the_filters() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    assert_eq!(ada.post("/configuration/reload", &[]).status, 303);
    let list = text(&ada.get("/audit?only=changes&q=config"));
    assert!(list.contains("data-row href=\"/audit/1\""), "{list}");
    // The page writes what stands between parameters as HTML wants it.
    let kept = list.replace("&amp;", "&");
    let adds = |name: &str| {
        let links = kept.split("href=\"/audit?").skip(1).map(|rest| rest.split('"').next().unwrap());
        links.filter(|link| link.contains(name)).any(|link| link.contains("only=changes") && link.contains("q=config"))
    };
    assert!(adds("action=config.applied") && adds("actor=system"), "{list}");
    let entry = text(&ada.get("/audit/1"));
    assert!(entry.contains("<h1>Entry 1</h1>") && entry.contains("config.applied"), "{entry}");
    assert!(entry.contains("broken.yaml") && entry.contains("rel=\"next\" href=\"/audit/2\""), "{entry}");
    assert_eq!((ada.get("/audit/99").status, ada.get("/audit/0").status, ada.get("/audit/x").status), (404, 404, 400));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_was_refused_is_told_where_its_secret_is_looked_for() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    assert!(!text(&ada.get("/integrations/bell")).contains("Lately refused"));
    let headers = [("x-token", "not the secret"), ("content-type", "application/json")];
    let reply = Client::new(house.public).send("POST", "/webhooks/bell", &headers, b"{\"type\":\"rung\"}").unwrap();
    assert_eq!(reply.status, 401);
    let overview = text(&ada.get("/"));
    let told = "/integrations/bell#refused\">1 webhook for bell was refused in the last 24 hours: mismatch</a>";
    assert!(overview.contains(told), "{overview}");
    let page = text(&ada.get("/integrations/bell"));
    assert!(page.contains("<h2 id=\"refused\">Lately refused</h2>"), "{page}");
    assert!(page.contains("<code>/webhooks/bell</code>") && page.contains("Mismatch: the signature"), "{page}");
    assert!(page.contains("Compare the secret with the service") && !page.contains("not the secret"), "{page}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_no_version_is_in_force_is_named_before_those_that_were_kept() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let good = "trunkline: 1\nid: aaa\ntitle: A\napi: { base_url: \"https://a.example\" }\n";
    write(&house, &ada, "integrations/aaa.yaml", good);
    write(&house, &ada, "integrations/aaa.yaml", &format!("{good}odd1: 1\nodd2: 1\nodd3: 1\nodd4: 1\n"));
    let page = text(&ada.get("/configuration"));
    let (_, banner) = page.split_once("class=\"banner\"").unwrap();
    let (banner, rest) = banner.split_once("</div>").unwrap();
    for shown in [banner, rest] {
        let (without, kept) = (shown.find("broken.yaml"), shown.find("aaa.yaml"));
        assert!(without.is_some() && kept.is_some() && without < kept, "{shown}");
    }
    house.close().await;
}
