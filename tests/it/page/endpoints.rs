//! The screen of a webhook endpoint: trying it out, and its secret.

use regex::Regex;

use super::house::{ADA, House, Visitor, people, text};

/// An endpoint of the connection that takes webhooks: its address on the page, and its secret.
fn made(visitor: &Visitor) -> (String, String) {
    let page = text(&visitor.post("/webhooks/new", &[("connection", &visitor.connection_of("bell"))]));
    let place = Regex::new("href=\"(/webhooks/whk_[0-9a-z]{26})\"").unwrap();
    (place.captures(&page).unwrap_or_else(|| panic!("{page}"))[1].to_owned(), secret(&page))
}

fn secret(page: &str) -> String {
    let secret = Regex::new("<dt>Secret</dt><dd><span class=\"copy\"><code>([^<]+)</code>").unwrap();
    secret.captures(page).unwrap_or_else(|| panic!("no secret: {page}"))[1].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_ends_on_a_screen_that_can_be_loaded_again() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let (place, _) = made(&ada);
    let told = format!("{place}?told=webhook_tested");
    let tried = ada.post(&format!("{place}/test"), &[("event", "rung")]);
    assert_eq!((tried.status, tried.header("location")), (303, Some(told.as_str())), "{}", text(&tried));
    for _ in 0..2 {
        let page = text(&ada.get(&told));
        assert!(page.contains("The public door took the test event") && page.contains("see the event"), "{page}");
    }
    let page = text(&ada.get(&place));
    assert!(page.contains("The newest was sent") && !page.contains("The public door took"), "{page}");
    assert_eq!(ada.get("/api/events?type=rung").json().as_array().unwrap().len(), 1, "who looks sends another");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_without_a_type_is_told_beside_its_field() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let (place, _) = made(&ada);
    let field = |page: &str| Regex::new("<input name=\"event\"[^>]*>").unwrap().find(page).unwrap().as_str().to_owned();
    // Where the definition lists a type that the endpoint takes, none need be named.
    assert!(!field(&text(&ada.get(&place))).contains("required"));
    assert_eq!(ada.post(&format!("{place}/types"), &[("types", "other")]).status, 303);
    assert!(field(&text(&ada.get(&place))).contains("required"));
    let refused = ada.post(&format!("{place}/test"), &[]);
    let page = text(&refused);
    assert!(refused.status == 200 && field(&page).contains("aria-describedby=\"h-event\""), "{page}");
    assert!(page.contains("id=\"h-event\" role=\"alert\">It was not sent: ") && page.contains("name one"), "{page}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_shown_to_who_presses_its_button_and_at_no_address() {
    let house = House::open(&people()).await;
    let ada = house.signed_in("ada", ADA);
    let (place, given) = made(&ada);
    let page = text(&ada.get(&place));
    assert!(page.contains("<div id=\"secret\"></div>") && !page.contains(&given), "{page}");
    let shown = text(&ada.post(&format!("{place}/reveal"), &[]));
    let (_, part) = shown.split_once("<div id=\"secret\">").unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(secret(part), given);
    for form in ["reveal", "rotate", "test"] {
        let reply = ada.get(&format!("{place}/{form}"));
        assert_eq!((reply.status, reply.header("location")), (303, Some(place.as_str())), "{form}");
    }
    let log = trunkline::store::Audit::read(&**house.running.store(), 1, 100).await.unwrap();
    let revealed = log.iter().filter(|record| record.entry.action.contains("reveal"));
    assert_eq!(revealed.count(), 1, "who comes to the address is shown nothing");
    house.close().await;
}
