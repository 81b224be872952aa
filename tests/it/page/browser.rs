//! The page in a real Chromium: every screen in light and dark, narrow and wide; the keyboard; no scripts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::activity::{Asker, CallRecord};

use super::house::{ADA, House, people};
use super::screens::paths;
use crate::activity::call;
use crate::connect::browser::{chromium, shots};
use crate::support::peer::run_script;

async fn drive(house: &House, paths: &[String]) -> Value {
    let options = json!({
        "chromium": chromium(), "gateway": format!("http://{}", house.admin), "name": "ada", "password": ADA,
        "paths": paths, "shots": shots().as_deref().map(Path::display).map(|path| path.to_string()),
    });
    run_script("admin.mjs", &options).await
}

/// Rows of the export.
const EXPORTED: usize = 10_000;

/// Does something while calls end well and badly, four of each a second, after as many others as an export is to have.
async fn while_calls_happen<T>(house: &House, other: impl Future<Output = T>) -> T {
    let activity = house.running.activity();
    let exported = |number: usize| CallRecord {
        asker: Asker::Caller(Arc::from("exported")),
        ..call(if number.is_multiple_of(2) { "=1+1" } else { "@x" })
    };
    (0..EXPORTED).for_each(|number| activity.record(exported(number)));
    let calls = async {
        loop {
            activity.record(call("/live/fine"));
            activity.record(CallRecord { status: Some(500), ..call("/live/bad") });
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::select! {
        done = other => done,
        () = calls => panic!("the calls ended"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_use_the_page_in_a_real_browser() {
    let house = House::open(&format!("{}activity: {{ keep: 20000 }}\n", people())).await;
    let visitor = house.signed_in("ada", ADA);
    let paths = paths(&house, &visitor).await;
    let told = while_calls_happen(&house, drive(&house, &paths)).await;
    assert_eq!(told["found"], json!([]), "axe found violations, or a screen scrolls sideways: {:#}", told["found"]);
    assert_eq!(told["faults"], json!([]), "screens logged errors or loaded from elsewhere");
    assert_eq!(
        told["keyboard"],
        json!({
            "skip": "Skip to content", "main": "main", "search": "search", "focus": "search", "row": "Keyed Service",
            "visible": true, "keys": true, "closed": true, "again": true, "off": true, "on": true, "back": "?q=keyed",
        })
    );
    let entered = &told["entered"];
    assert!(entered["wrong"].as_str().unwrap().contains("no such key"), "{entered}");
    assert_eq!(entered["kept"], "sk_wrong", "what was typed is lost");
    assert!(entered["right"].as_str().unwrap().contains("It works"), "{entered}");
    assert!(entered["heading"].as_str().unwrap().contains("Keyed Service / typed"), "{entered}");
    assert_eq!(told["revealed"], json!({ "stays": true, "shown": 2, "left": 0 }));
    assert_eq!(
        told["activity"],
        json!({
            "fine": 0, "moment": true, "under": true, "stays": true, "bad": 0, "paused": "?outcome=success&path=%2Flive", "entry": true, "rows": EXPORTED, "formulas": 0,
            "name": "activity.csv",
        })
    );
    assert_eq!(
        told["refused"],
        json!({ "words": true, "address": "?status=404", "results": 1, "back": true }),
        "a refused filter empties the screen"
    );
    assert_eq!(
        told["scriptless"],
        json!({
            "cards": 1, "heading": "Keyed Service", "told": "At least one file has errors; the others are in force.",
            "copies": 0, "out": "/sign-in",
        })
    );
    house.close().await;
}
