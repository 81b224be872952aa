//! What templates call: times, sizes, words and addresses as people read them.

use std::time::Duration;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, HtmlEscape};
use sha2::{Digest, Sha256};

use crate::base::clock::Timestamp;

/// Hues of the tiles that stand for services; the style sheet has as many.
const HUES: u8 = 12;

pub(super) fn add_to(pages: &mut Environment<'static>) {
    pages.add_filter("when", |at: Value, now: &str| when(&at, now));
    pages.add_filter("bytes", bytes);
    pages.add_filter("grouped", grouped);
    pages.add_filter("percent", percent);
    pages.add_filter("plainly", plainly);
    pages.add_filter("sparkline", |hours: Value| super::webhooks::sparkline(&hours));
    pages.add_filter("hue", hue);
    pages.add_filter("initials", initials);
    pages.add_function("query", |now: Value, changes: Kwargs| query(&now, &changes));
}

/// A moment as people say it, with the moment itself for those who point at it and for programs.
fn when(at: &Value, now: &str) -> Value {
    let (Some(text), Some(now)) = (at.as_str(), Timestamp::parse_rfc3339(now)) else { return Value::from("") };
    let Some(at) = Timestamp::parse_rfc3339(text) else { return Value::from(text) };
    let said = if at > now { format!("in {}", span(at.since(now))) } else { format!("{} ago", span(now.since(at))) };
    let said = if at.since(now).max(now.since(at)) < Duration::from_secs(1) { "now".to_owned() } else { said };
    let full = text.replace('T', " ").replace('Z', " UTC");
    let [text, full] = [text, full.as_str()].map(|text| HtmlEscape(text).to_string());
    Value::from_safe_string(format!("<time datetime=\"{text}\" title=\"{full}\">{said}</time>"))
}

/// A duration in its largest unit, rounded down.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "min"),
        3_600..86_400 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{count} {unit}")
}

fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut rest, mut unit) = (count, 0, 0);
    while whole >= 1_024 && unit + 1 < units.len() {
        (rest, whole, unit) = (whole % 1_024, whole / 1_024, unit + 1);
    }
    let unit_word = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{} {unit_word}", rest * 10 / 1_024) }
}

/// `12,345`; nothing for what is no number.
fn grouped(count: &Value) -> String {
    let Ok(count) = u64::try_from(count.clone()) else { return String::new() };
    let digits = count.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `0.5 %`; what is not nothing is never shown as nothing, and what is not all never as all.
fn percent(part: u64, all: u64) -> String {
    if all == 0 {
        return String::new();
    }
    let tenths = (u128::from(part) * 1_000 + u128::from(all) / 2) / u128::from(all);
    match tenths {
        0 if part > 0 => "under 0.1 %".to_owned(),
        1_000 if part < all => "over 99.9 %".to_owned(),
        tenths if tenths % 10 == 0 => format!("{} %", tenths / 10),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

/// Words that people write otherwise than the grammar does.
const WRITTEN: [(&str, &str); 14] = [
    ("ai", "AI"),
    ("api_key", "API key"),
    ("crm", "CRM"),
    ("hmac", "HMAC"),
    ("hr", "HR"),
    ("jwt", "JWT"),
    ("login", "Login"),
    ("mtls", "mTLS"),
    ("none", "None needed"),
    ("oauth1", "OAuth 1.0a"),
    ("oauth2", "OAuth 2.0"),
    ("sigv4", "AWS Signature"),
    ("unknown", "Not known"),
    ("basic", "Name and password"),
];

/// `needs_reconnect` as `Needs reconnect`, and some words as people write them.
fn plainly(word: &str) -> String {
    if let Some((_, written)) = WRITTEN.iter().find(|(known, _)| *known == word) {
        return (*written).to_owned();
    }
    let spaced = word.replace(['_', '-'], " ");
    let mut letters = spaced.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The hue of what goes by this name: always the same.
fn hue(name: &str) -> u8 {
    Sha256::digest(name).first().copied().unwrap_or_default() % HUES
}

/// One or two letters that stand for a name.
fn initials(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    let firsts: String = words.filter_map(|word| word.chars().next()).take(2).collect();
    let two = if firsts.chars().count() < 2 { name.chars().take(2).collect() } else { firsts };
    two.to_uppercase()
}

/// A query with some of its parameters changed: `query(filters, state="dead", after=none)`. What is none or empty is
/// left out.
fn query(now: &Value, changes: &Kwargs) -> Result<String, Error> {
    let mut all: Vec<(String, Value)> = Vec::new();
    if now.kind() == ValueKind::Map {
        for name in now.try_iter()? {
            let value = now.get_item(&name)?;
            all.push((name.to_string(), value));
        }
    }
    for name in changes.args() {
        let value: Value = changes.get(name)?;
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => all.push((name.to_owned(), value)),
        }
    }
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in &all {
        let text = if value.is_none() || value.is_undefined() { String::new() } else { value.to_string() };
        if !text.is_empty() {
            query.append_pair(name, &text);
        }
    }
    let text = query.finish();
    Ok(if text.is_empty() { text } else { format!("?{text}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn shown(source: &str) -> String {
        let mut pages = Environment::new();
        add_to(&mut pages);
        let view = context! { now => "2026-01-31T10:00:00Z", f => context! { a => "x&y", b => () } };
        pages.render_str(source, view).expect("renders")
    }

    #[test]
    fn times_are_said_and_stand_behind_what_is_said() {
        assert_eq!(
            shown("{{ '2026-01-31T09:58:30Z'|when(now) }}"),
            "<time datetime=\"2026-01-31T09:58:30Z\" title=\"2026-01-31 09:58:30 UTC\">1 min ago</time>"
        );
        for (at, said) in [
            ("2026-01-31T10:00:00Z", ">now<"),
            ("2026-01-31T12:00:01Z", ">in 2 h<"),
            ("2026-01-01T10:00:00Z", ">30 d ago<"),
        ] {
            assert!(shown(&format!("{{{{ '{at}'|when(now) }}}}")).contains(said), "{at}");
        }
        assert_eq!(shown("{{ none|when(now) }}"), "");
        assert!(!shown("{{ '<b>'|when(now)|e }}").contains("<b>"));
    }

    #[test]
    fn sizes_words_and_names_are_as_people_write_them() {
        assert_eq!(shown("{{ 512|bytes }} {{ 1536|bytes }} {{ 10485760|bytes }}"), "512 B 1.5 KiB 10.0 MiB");
        assert_eq!(shown("{{ 'needs_reconnect'|plainly }}"), "Needs reconnect");
        assert_eq!(shown("{{ 'oauth2'|plainly }}, {{ 'hr'|plainly }}"), "OAuth 2.0, HR");
        assert_eq!(shown("{{ 'GitHub'|initials }} {{ 'Google Drive'|initials }}"), "GI GD");
        assert_eq!((hue("github"), hue("stripe") < HUES), (hue("github"), true));
    }

    #[test]
    fn numbers_are_grouped_and_shares_are_never_rounded_to_nothing_or_all() {
        assert_eq!(
            shown("{{ 0|grouped }} {{ 999|grouped }} {{ 1234567|grouped }} {{ none|grouped }}."),
            "0 999 1,234,567 ."
        );
        assert_eq!(
            shown("{{ 1|percent(8) }}, {{ 1|percent(9000) }}, {{ 8999|percent(9000) }}, {{ 3|percent(3) }}"),
            "12.5 %, under 0.1 %, over 99.9 %, 100 %"
        );
    }

    #[test]
    fn a_query_keeps_what_is_not_changed() {
        assert_eq!(
            shown("{{ query(f) }} {{ query(f, b='1 2') }} {{ query(f, a=none)|length }}"),
            "?a=x%26y ?a=x%26y&b=1+2 0"
        );
    }
}
