//! Markers that stand for secrets, and the search for them in every spelling.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::bytes::Regex;
use trunkline::base::random::{Random, SystemRandom};

/// A marker, and what it stands for.
#[derive(Debug, Clone)]
pub struct Canary {
    pub what: String,
    pub value: String,
}

/// All markers of a run.
#[derive(Debug, Default)]
pub struct Canaries(RefCell<Vec<Canary>>);

impl Canaries {
    /// A fresh marker. It has characters that URLs, JSON and base 64 spell differently, and no word before
    /// which the log's redaction would take it out: what is found was let through by type.
    pub fn plant(&self, what: &str) -> String {
        let mut bytes = [0; 12];
        SystemRandom::default().fill(&mut bytes).unwrap();
        let value = format!("Cnry~{}/+=&{}", URL_SAFE_NO_PAD.encode(&bytes[..6]), URL_SAFE_NO_PAD.encode(&bytes[6..]));
        self.add(what, &value);
        value
    }

    /// A secret that has a form of its own.
    pub fn add(&self, what: &str, value: &str) {
        self.0.borrow_mut().push(Canary { what: what.to_owned(), value: value.to_owned() });
    }

    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }
}

/// A secret in every form in which it might leak, with the form's name.
pub fn spellings(secret: &str) -> Vec<(&'static str, String)> {
    let hex = secret.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let lower = encoded.replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d").replace("%7E", "%7e");
    let form = encoded.replace("%2D", "-").replace("%5F", "_").replace("%2E", ".");
    let json = serde_json::to_string(secret).unwrap().trim_matches('"').to_owned();
    let mut all = vec![
        ("raw", secret.to_owned()),
        ("hex", hex.clone()),
        ("HEX", hex.to_uppercase()),
        ("URL", encoded),
        ("url", lower),
        ("form", form),
        ("JSON", json.clone()),
        ("JSON with \\/", json.replace('/', "\\/")),
        ("JSON with \\u", json.replace('&', "\\u0026").replace('+', "\\u002b").replace('=', "\\u003d")),
        ("debug", format!("{secret:?}").trim_matches('"').to_owned()),
    ];
    // Inside a longer text its bytes begin at any of three places in a group of base 64; what surrounds them
    // changes the first and last characters.
    for offset in 0..3 {
        let shifted = [&b"\0\0"[..offset], secret.as_bytes()].concat();
        for (form, engine) in [("base 64", &STANDARD_NO_PAD), ("base 64 for URLs", &URL_SAFE_NO_PAD)] {
            let text = engine.encode(&shifted);
            let (from, to) = ((offset * 8).div_ceil(6), shifted.len() * 8 / 6);
            all.push((form, text.get(from..to).unwrap().to_owned()));
        }
    }
    all.push(("base 64", STANDARD.encode(secret)));
    all
}

/// Everything that was written, by where.
#[derive(Default)]
pub struct Sinks(Vec<(String, Vec<u8>)>);

impl Sinks {
    /// Adds what an output wrote.
    pub fn add(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.0.push((name.to_owned(), content.into()));
    }

    /// All of it as text.
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, content)| String::from_utf8_lossy(content)).collect::<Vec<_>>().join("\n")
    }

    /// Where a marker was found first: one line for each marker, form and output, with what stood before it.
    pub fn search(&self, canaries: &Canaries) -> Vec<String> {
        let canaries = canaries.0.borrow();
        let forms: Vec<(String, String)> = canaries
            .iter()
            .flat_map(|canary| {
                spellings(&canary.value).into_iter().map(|(form, text)| (format!("{} ({form})", canary.what), text))
            })
            .collect();
        let pattern: BTreeSet<_> = forms.iter().map(|(_, text)| regex::escape(text)).collect();
        let pattern = Regex::new(&pattern.into_iter().collect::<Vec<_>>().join("|")).unwrap();
        let mut found = BTreeMap::new();
        for (sink, content) in &self.0 {
            for hit in pattern.find_iter(content) {
                let hit_start = hit.start();
                let hit = String::from_utf8_lossy(hit.as_bytes()).into_owned();
                let what = forms.iter().find(|(_, text)| *text == hit).map_or("?", |(what, _)| what);
                let before = &content[hit_start.saturating_sub(300)..hit_start];
                let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                let line = String::from_utf8_lossy(line).into_owned();
                found.entry(format!("{what} in {sink}")).or_insert(line);
            }
        }
        found.into_iter().map(|(what, before)| format!("{what}, after `{before}`")).collect()
    }
}

/// What is logged at any level while `work` runs on this thread.
pub fn log_of(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}
