//! What an answer says of the service's own count: as the definition declares it, else as common headers say it.
//!
//! Headers without a declared unit are read only where their value has one meaning: a reset of more than a
//! thousand million can only be a moment, in seconds or milliseconds since 1970; a smaller one in an `X-`
//! header may be seconds, milliseconds or minutes, and is not read. Called by `policy`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::Value;
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parser};

use super::quota::Report;
use crate::base::clock::Timestamp;
use crate::definition::plan::moment::MomentUnit;
use crate::definition::plan::policy::{Policy, Reading, Told, Wait};
use crate::request::moment::{self, Clocks};
use crate::request::retry_after;
use crate::template::Context;

/// What the service's clock and ours may differ in a reset, and what whole seconds hide.
const MARGIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The field of the draft, and what came before it: what is left, of how much, when there is all of it again, and
/// whether that is told in seconds.
const FIELD: HeaderName = HeaderName::from_static("ratelimit");
static FAMILIES: [(HeaderName, HeaderName, HeaderName, bool); 3] = [
    family("ratelimit-remaining", "ratelimit-limit", "ratelimit-reset", true),
    family("x-ratelimit-remaining", "x-ratelimit-limit", "x-ratelimit-reset", false),
    family("x-rate-limit-remaining", "x-rate-limit-limit", "x-rate-limit-reset", false),
];

const fn family(
    left: &'static str,
    limit: &'static str,
    resets: &'static str,
    in_seconds: bool,
) -> (HeaderName, HeaderName, HeaderName, bool) {
    let name = HeaderName::from_static;
    (name(left), name(limit), name(resets), in_seconds)
}

/// An answer, as far as it is known: a streamed one has no body here.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// What `body` is in expressions, where the answer was read.
    pub body: Option<&'a Value>,
}

/// What an answer says of the service's count.
/// `asked` is how long the service asks to wait; see [`pause`].
pub fn read(policy: &Policy, seen: Seen<'_>, asked: Option<Duration>, now: Timestamp) -> Report {
    let refused = seen.status == StatusCode::TOO_MANY_REQUESTS;
    let own = policy.quota.told.as_ref().map(|told| of_told(told, seen, now)).unwrap_or_default();
    let mut report = if own.left.is_some() { own } else { of_headers(seen.headers, now) };
    if report.left.is_none() {
        report = Report::default();
    }
    let resets_in = report.resets_in.map(with_margin);
    Report { refused, resets_in, retry_after: asked.filter(|_| refused), ..report }
}

/// How long the service asks to wait: as the definition declares it, else by `Retry-After`.
pub fn pause(declared: Option<&Wait>, seen: Seen<'_>, now: Timestamp) -> Option<Duration> {
    let own = declared.and_then(|declared| until(declared, seen, now));
    own.or_else(|| retry_after(seen.headers, now))
}

/// What is told in whole seconds may be up to one early; a tenth of the wait, within bounds.
fn with_margin(wait: Duration) -> Duration {
    wait.saturating_add((wait / 10).clamp(MARGIN.0, MARGIN.1))
}

fn of_told(told: &Told, seen: Seen<'_>, now: Timestamp) -> Report {
    let Some(left) = count(&told.remaining, seen) else { return Report::default() };
    Report {
        left: Some(left),
        limit: told.limit.as_ref().and_then(|limit| count(limit, seen)),
        resets_in: told.resets.as_ref().and_then(|resets| until(resets, seen, now)),
        ..Report::default()
    }
}

fn count(reading: &Reading, seen: Seen<'_>) -> Option<u64> {
    match value(reading, seen)? {
        Value::Number(number) => whole(&number.to_string()),
        Value::String(text) => whole(&text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn until(wait: &Wait, seen: Seen<'_>, now: Timestamp) -> Option<Duration> {
    let clocks = Clocks::of_answer(now, seen.headers);
    let at = moment::of_value(&value(&wait.value, seen)?, wait.unit, clocks)?;
    Some(at.since(now))
}

fn value(reading: &Reading, seen: Seen<'_>) -> Option<Value> {
    match reading {
        Reading::Header(name) => seen.headers.get(name)?.to_str().ok().map(Value::from),
        Reading::Expression(expression) => expression.json(&context(seen)).ok(),
    }
}

fn context(seen: Seen<'_>) -> Context {
    let headers = seen.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let context = Context::new().with("status", seen.status.as_u16()).with_headers("headers", headers);
    match seen.body {
        Some(body) => context.with_json("body", body),
        None => context,
    }
}

/// What the headers of the draft (`RateLimit`), of its earlier versions and those with an `X` say. The body of
/// this function is the list of them.
pub fn of_headers(headers: &HeaderMap, now: Timestamp) -> Report {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    // A list may come in several lines (RFC 9110 section 5.3).
    let field: Vec<_> = headers.get_all(&FIELD).iter().filter_map(|value| value.to_str().ok()).collect();
    if let Some(report) = of_field(&field.join(", ")) {
        return report;
    }
    let found = FAMILIES.iter().find_map(|(left, limit, resets, in_seconds)| {
        let left = whole(text(left)?)?;
        let limit = text(limit).and_then(|limit| whole(limit.split([',', ';']).next()?));
        let resets_in = text(resets).and_then(|resets| reset(resets, *in_seconds, headers, now));
        Some(Report { left: Some(left), limit, resets_in, ..Report::default() })
    });
    found.unwrap_or_default()
}

/// The field of the draft: a list of policies, of which the one with the least left counts; or the dictionary
/// that it was in version 07.
fn of_field(text: &str) -> Option<Report> {
    let list = Parser::new(text).parse::<List>().ok();
    let items = list.iter().flatten().filter_map(|entry| match entry {
        ListEntry::Item(item) => of_item(item),
        ListEntry::InnerList(_) => None,
    });
    let least = items.min_by_key(|report| report.left);
    least.or_else(|| of_dictionary(&Parser::new(text).parse::<Dictionary>().ok()?))
}

fn of_item(item: &Item) -> Option<Report> {
    let number = |name: &str| item.params.get(name).and_then(integer);
    let left = number("r")?;
    Some(Report { left: Some(left), limit: None, resets_in: number("t").map(Duration::from_secs), ..Report::default() })
}

fn of_dictionary(fields: &Dictionary) -> Option<Report> {
    let number = |name: &str| match fields.get(name)? {
        ListEntry::Item(item) => integer(&item.bare_item),
        ListEntry::InnerList(_) => None,
    };
    let (left, limit) = (number("remaining")?, number("limit"));
    Some(Report { left: Some(left), limit, resets_in: number("reset").map(Duration::from_secs), ..Report::default() })
}

fn integer(item: &BareItem) -> Option<u64> {
    match item {
        BareItem::Integer(number) => u64::try_from(i64::from(*number)).ok(),
        _ => None,
    }
}

/// A reset whose unit nobody declared.
fn reset(text: &str, in_seconds: bool, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    /// More than thirty years: no wait, so a moment.
    const MOMENTS: u64 = 1_000_000_000;
    const MILLIS: u64 = 100_000_000_000;
    let number = whole(text)?;
    let unit = match number {
        MILLIS.. => MomentUnit::EpochMillis,
        MOMENTS.. => MomentUnit::EpochSeconds,
        _ if in_seconds => MomentUnit::AfterSeconds,
        _ => return None,
    };
    let at = moment::of_value(&Value::from(number), unit, Clocks::of_answer(now, headers))?;
    Some(at.since(now))
}

/// A whole number that is not negative; a fraction is cut off.
fn whole(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.split_once('.').map_or(text, |(whole, _)| whole);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::plan::policy::Quota;
    use crate::template::Expr;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    fn common(pairs: &[(&str, &str)]) -> (Option<u64>, Option<u64>, Option<u64>) {
        let report = of_headers(&headers(pairs), NOW);
        (report.left, report.limit, report.resets_in.map(|wait| wait.as_secs()))
    }

    #[test]
    fn common_headers_are_read_where_they_have_one_meaning() {
        let x = |reset| {
            common(&[("x-ratelimit-remaining", "7"), ("x-ratelimit-limit", "60"), ("x-ratelimit-reset", reset)])
        };
        assert_eq!(x("1700000060"), (Some(7), Some(60), Some(60)));
        assert_eq!(x("1700000060000"), (Some(7), Some(60), Some(60)));
        assert_eq!(x("60"), (Some(7), Some(60), None), "nobody said of what");
        let plain = [("ratelimit-remaining", "7"), ("ratelimit-limit", "60, 60;w=60"), ("ratelimit-reset", "30")];
        assert_eq!(common(&plain), (Some(7), Some(60), Some(30)));
        assert_eq!(common(&[("ratelimit", "\"burst\";r=50;t=30, \"daily\";r=9;t=600")]), (Some(9), None, Some(600)));
        assert_eq!(common(&[("ratelimit", "limit=100, remaining=50, reset=5")]), (Some(50), Some(100), Some(5)));
        for text in ["", "x", "\"a\"", "\"a\";r=-1", "remaining=x", "\"a\";r=1.5"] {
            assert_eq!(common(&[("ratelimit", text)]), (None, None, None), "{text}");
        }
    }

    fn declared(remaining: &str, resets: (&str, MomentUnit)) -> Policy {
        let reading = |source| Reading::of(Expr::compile(source).expect("compiles"));
        let resets = Wait { value: reading(resets.0), unit: resets.1 };
        let told = Told { remaining: reading(remaining), limit: None, resets: Some(resets) };
        Policy { quota: Quota { told: Some(told), reserve: 0 }, ..Policy::default() }
    }

    fn told(policy: &Policy, pairs: &[(&str, &str)], body: Option<&Value>) -> (Option<u64>, Option<u64>) {
        let headers = headers(pairs);
        let report = read(policy, Seen { status: StatusCode::OK, headers: &headers, body }, None, NOW);
        (report.left, report.resets_in.map(|wait| wait.as_secs()))
    }

    #[test]
    fn declared_places_and_units_come_first() {
        let policy = declared("headers['x-left']", ("headers['x-reset']", MomentUnit::AfterMinutes));
        let pairs = [("x-left", "5"), ("x-reset", "10"), ("x-ratelimit-remaining", "9")];
        assert_eq!(told(&policy, &pairs, None), (Some(5), Some(601)));
        assert_eq!(told(&policy, &pairs[2..], None), (Some(9), None), "what was declared did not come");
        let policy = declared("60 - body.used", ("body.until", MomentUnit::EpochSeconds));
        let body = json!({ "used": 58, "until": 1_700_000_020 });
        assert_eq!(told(&policy, &[], Some(&body)), (Some(2), Some(21)));
        assert_eq!(told(&policy, &[], None), (None, None), "a streamed answer has no body");
    }

    #[test]
    fn the_services_wish_to_wait_is_read_in_every_form() {
        let seen = |pairs: &[(&str, &str)], declared: Option<&Wait>| {
            let headers = headers(pairs);
            let seen = Seen { status: StatusCode::TOO_MANY_REQUESTS, headers: &headers, body: None };
            read(&Policy::default(), seen, pause(declared, seen, NOW), NOW).retry_after.map(|wait| wait.as_secs())
        };
        let value = Reading::of(Expr::compile("headers['x-retry']").expect("compiles"));
        let millis = Wait { value, unit: MomentUnit::AfterMillis };
        assert_eq!(seen(&[("retry-after", "7")], None), Some(7));
        assert_eq!(seen(&[("retry-after", "Tue, 14 Nov 2023 22:13:27 GMT")], None), Some(7));
        assert_eq!(seen(&[("retry-after", "7"), ("x-retry", "9000")], Some(&millis)), Some(9));
        assert_eq!(seen(&[("retry-after", "7")], Some(&millis)), Some(7));
        assert_eq!(seen(&[], None), None);
    }

    proptest! {
        #[test]
        fn whatever_a_service_says_is_read_or_not(left in "\\PC{0,40}", limit in "\\PC{0,20}", reset in "\\PC{0,20}", field in "\\PC{0,60}") {
            let mut all = HeaderMap::new();
            for (name, text) in [("x-ratelimit-remaining", &left), ("x-ratelimit-limit", &limit), ("x-ratelimit-reset", &reset), ("ratelimit", &field)] {
                if let Ok(value) = HeaderValue::from_str(text) {
                    all.insert(HeaderName::from_static(name), value);
                }
            }
            let report = of_headers(&all, NOW);
            prop_assert!(report.left.is_some() || report.resets_in.is_none());
        }
    }
}
