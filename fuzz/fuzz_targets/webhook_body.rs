//! Any body is read without a panic, and what is wanted of it is found again in the whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline::template::payload::{Wanted, read};

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, body) = input;
    let media = ["application/json", "application/x-www-form-urlencoded", "text/plain"];
    let media = media.get(usize::from(choice & 3)).copied();
    let wanted = Wanted::of(["type", "data.object.id"]);
    if let (Ok(part), Ok(all)) = (read(media, body, &wanted), read(media, body, &Wanted::all())) {
        let [part, all] = [part, all].map(|value| serde_json::to_value(value).ok());
        let field = |value: &Option<serde_json::Value>| value.as_ref().and_then(|value| value.get("type").cloned());
        assert_eq!(field(&part), field(&all));
    }
});
