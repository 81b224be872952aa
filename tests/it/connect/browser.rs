//! The connect flow in a real Chromium: what pages, windows and their ties really do.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trunkline::connection::connect::Made;

use super::desk::Desk;
use crate::support::peer::run_script;

/// Where Debian puts it; `CHROMIUM` names another.
pub fn chromium() -> String {
    std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned())
}

/// Ports that are free a moment before they are used.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|at| held[at].local_addr().unwrap().port())
}

pub fn shots() -> Option<std::path::PathBuf> {
    let directory = std::env::var_os("TRUNKLINE_SHOTS")?;
    std::fs::create_dir_all(&directory).unwrap();
    Some(directory.into())
}

/// Runs the script over a desk; `links` by scenario. `seen` is asked once a code for another device is shown.
async fn drive(desk: &Desk, ports: [u16; 3], links: &BTreeMap<String, Made>, seen: Option<u16>) -> Value {
    let [app, hostile, service] = ports;
    let links: BTreeMap<_, _> =
        links.iter().map(|(name, made)| (name, json!({ "url": made.url, "result": made.result }))).collect();
    let options = json!({
        "chromium": chromium(), "app": app, "hostile": hostile, "service": service,
        "gateway": format!("http://localhost:{}", desk.door.port()), "links": links,
        "seen": seen, "shots": shots().as_deref().map(Path::display).map(|path| path.to_string()),
    });
    run_script("connect.mjs", &options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn people_connect_in_a_real_browser_whatever_becomes_of_the_window() {
    let ports = free_ports::<3>();
    let app = format!("http://127.0.0.1:{}", ports[0]);
    let desk = Desk::open_for(&app).await;
    let service = format!("http://127.0.0.1:{}/authorize", ports[2]);
    desk.service.set(|manners| {
        manners.authorize = Some(service);
        manners.severs = Some("severed".to_owned());
    });
    let mut links = BTreeMap::new();
    let pictures = shots().map(|_| ["light-320", "light-1280", "dark-320", "dark-1280"]).unwrap_or_default();
    let names = ["popup", "denied", "again", "severed", "blocked", "hostile", "scriptless", "keyboard"];
    let pictures = pictures.iter().filter(|name| !name.is_empty()).map(|name| format!("pictures-{name}"));
    for name in names.map(str::to_owned).into_iter().chain(pictures) {
        let back = format!("{app}/done");
        let made = desk
            .link_for(|wanted| {
                wanted.connection.clone_from(&name);
                wanted.return_to = Some(back);
            })
            .await;
        links.insert(name, made);
    }
    let driven = drive(&desk, ports, &links, None).await;
    let ends = &driven["ends"];
    for (name, end) in ends.as_object().unwrap() {
        assert_eq!(end["fault"], Value::Null, "{name}: {end:#}");
    }
    assert_eq!(driven["faults"], json!([]), "pages of ours logged errors or loaded from elsewhere");
    // The window told its opener, the server confirmed it, and the window closed.
    assert_eq!(ends["popup"]["end"]["state"], "connected");
    let gateway = format!("http://localhost:{}", desk.door.port());
    let message = &ends["popup"]["messages"][0];
    assert_eq!((&message["origin"], &message["data"]["state"]), (&json!(gateway), &json!("connected")));
    assert_eq!(message["data"].as_object().unwrap().len(), 3, "a message has a result id and a word");
    assert_eq!(ends["popup"]["closes"], true);
    assert_eq!(
        (&ends["denied"]["end"]["state"], &ends["denied"]["end"]["error"]),
        (&json!("failed"), &json!("denied"))
    );
    // A person who tries again in the same window is connected for its opener as well.
    assert_eq!((&ends["again"]["end"]["state"], &ends["again"]["failures"]), (&json!("connected"), &json!(["denied"])));
    // The service cut the tie: no message came, the open window looked closed, and it worked all the same.
    assert_eq!((&ends["severed"]["end"]["state"], &ends["severed"]["messages"]), (&json!("connected"), &json!([])));
    assert_eq!(ends["severed"]["closedSeen"], 1, "the tie was not cut: {}", ends["severed"]);
    // No window: the page went there itself and came back.
    assert_eq!(ends["blocked"]["pages"], 1);
    assert!(ends["blocked"]["back"].as_str().unwrap().contains("trunkline_state=connected"), "{}", ends["blocked"]);
    // Someone else's page got nothing, and no frame.
    assert_eq!(ends["hostile"], json!({ "messages": [], "asked": "refused", "framed": false }));
    assert!(ends["scriptless"]["heading"].as_str().unwrap().contains("is connected"));
    assert_eq!(ends["keyboard"]["wide"], json!([]));
    for (name, made) in &links {
        let expected = if name == "denied" { "failed" } else { "connected" };
        assert_eq!(desk.state_of(made).await, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_shows_a_code_goes_on_once_a_person_has_consented_elsewhere() {
    let desk = Desk::open().await;
    let _waiting = super::device::waits(&desk.connect);
    // Nobody consents until the code was seen.
    desk.service.set(|manners| manners.polls = vec![Ok(Duration::from_secs(5)); 100_000]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let seen = listener.local_addr().unwrap().port();
    let (service, clock) = (Arc::clone(&desk.service), Arc::clone(&desk.clock));
    let stop = CancellationToken::new();
    let until = stop.clone();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        service.set(|manners| manners.polls.clear());
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    });
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        while until.run_until_cancelled(looks.tick()).await.is_some() {
            clock.advance(Duration::from_millis(500));
        }
    });
    let made = desk.connect.link("operator", super::device::wanted()).await.unwrap();
    let links = BTreeMap::from([("device".to_owned(), made)]);
    let driven = drive(&desk, free_ports(), &links, Some(seen)).await;
    stop.cancel();
    let end = &driven["ends"]["device"];
    assert_eq!(end["fault"], Value::Null, "{end:#}");
    assert_eq!(driven["faults"], json!([]), "pages of ours logged errors or loaded from elsewhere");
    assert_eq!((&end["code"], &end["wide"]), (&json!("WDJB-MJHT"), &json!(false)));
    assert_eq!(end["leads"], "https://hub.example/device?user_code=WDJB-MJHT");
    assert!(end["heading"].as_str().unwrap().contains("Screen is connected"), "{end}");
    assert_eq!(desk.state_of(&links["device"]).await, "connected");
}
