//! What `Cache-Control`, `Age` and their older kin say.
//!
//! Reads what others wrote, so nothing here fails: what cannot be read counts as what is safe. A lifetime
//! that is no number is zero, of several the least counts, and text in quotes is a value and never a directive.

use std::time::Duration;

use http::header::{self, AsHeaderName};
use http::{HeaderMap, HeaderValue};

use crate::base::clock::Timestamp;

/// The longest time that is told apart from for ever (RFC 9111 §1.2.2).
const FOREVER: u64 = 1 << 31;

/// The directives of a `Cache-Control`, of a request or an answer, that this cache acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "directives are words that are there or not")]
pub struct Directives {
    /// Nothing of the exchange is kept.
    pub no_store: bool,
    /// Nothing is used without asking the service.
    pub no_cache: bool,
    /// A stale answer must not be used, whatever happens.
    pub must_revalidate: bool,
    /// Only who knows the status may keep the answer.
    pub must_understand: bool,
    /// Only what is kept may be answered.
    pub only_if_cached: bool,
    /// The lifetime, or the greatest age that a request takes.
    pub max_age: Option<Duration>,
    /// The lifetime for caches that several use.
    pub s_maxage: Option<Duration>,
    /// What must be left of the lifetime.
    pub min_fresh: Option<Duration>,
    /// How stale an answer a request takes.
    pub max_stale: Option<Duration>,
}

impl Directives {
    /// The directives of a request. Without a `Cache-Control`, `Pragma: no-cache` counts as one.
    pub fn of_request(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::CACHE_CONTROL) {
            return Self::of_answer(headers);
        }
        let no_cache = texts(headers, header::PRAGMA).any(|text| text.trim().eq_ignore_ascii_case("no-cache"));
        Self { no_cache, ..Self::default() }
    }

    /// The directives of an answer.
    pub fn of_answer(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for text in texts(headers, header::CACHE_CONTROL) {
            for (name, value) in Pairs(text) {
                found.note(name, value);
            }
        }
        found
    }

    fn note(&mut self, name: &str, value: Option<&str>) {
        let least = |known: Option<Duration>| {
            let read = seconds(value.unwrap_or_default()).unwrap_or_default();
            Some(known.map_or(read, |known| known.min(read)))
        };
        match name.to_ascii_lowercase().as_str() {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
            "must-understand" => self.must_understand = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = least(self.max_age),
            // It means `proxy-revalidate` besides (RFC 9111 §5.2.2.10).
            "s-maxage" => (self.s_maxage, self.must_revalidate) = (least(self.s_maxage), true),
            "min-fresh" => self.min_fresh = least(self.min_fresh),
            "max-stale" if value.is_none() => self.max_stale = Some(Duration::MAX),
            "max-stale" => self.max_stale = least(self.max_stale),
            _ => {}
        }
    }
}

/// A whole number of seconds, at most [`FOREVER`]; a value in double quotes is the same.
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(digits.parse().unwrap_or(FOREVER).min(FOREVER)))
}

/// What `Age` says; zero where it is missing. What is not one number counts as old: whoever wrote it had kept
/// the answer for some time.
pub fn age(headers: &HeaderMap) -> Duration {
    let mut lines = headers.get_all(header::AGE).into_iter();
    let Some(line) = lines.next() else { return Duration::ZERO };
    let only = line.to_str().ok().filter(|text| lines.next().is_none() && !text.starts_with('"'));
    only.and_then(|text| seconds(text.trim())).unwrap_or(Duration::from_secs(FOREVER))
}

/// A header that holds a time; `None` where it is missing or holds none.
pub fn date(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    let since = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_seconds(since.as_secs()))
}

/// The values of a header that are text, line by line.
pub fn texts(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().map(HeaderValue::to_str).filter_map(Result::ok)
}

/// The members of a comma-separated list as name and value; commas in quotes divide nothing.
struct Pairs<'a>(&'a str);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (mut quoted, mut escaped) = (false, false);
        let divides = |c: char| {
            let plain = !escaped;
            escaped = plain && quoted && c == '\\';
            quoted ^= plain && c == '"';
            !quoted && c == ','
        };
        let (member, rest) = match self.0.find(divides) {
            Some(at) => (self.0.get(..at).unwrap_or_default(), self.0.get(at + 1..).unwrap_or_default()),
            None => (self.0, ""),
        };
        self.0 = rest;
        let (name, value) = member.split_once('=').map_or((member, None), |(name, value)| (name, Some(value)));
        // A space before the equals sign makes another name of it, which nobody knows.
        Some((
            name.trim_start().trim_end_matches(|c: char| value.is_none() && c.is_whitespace()),
            value.map(str::trim_end),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Directives {
        let value = HeaderValue::from_str(text).expect("a value");
        Directives::of_answer(&HeaderMap::from_iter([(header::CACHE_CONTROL, value)]))
    }

    fn max_age(text: &str) -> Option<u64> {
        of(text).max_age.map(|age| age.as_secs())
    }

    #[test]
    fn lifetimes_are_whole_seconds_and_the_least_counts() {
        for (text, expected) in [
            ("max-age=60", Some(60)),
            ("MAX-AGE=060 , x", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=60, max-age=5", Some(5)),
            ("max-age='60'", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age", Some(0)),
            ("max-age=99999999999999999999999", Some(FOREVER)),
            ("a=\"max-age=60\", b", None),
            ("a=\"x\\\", max-age=60\"", None),
            ("max-age =60", None),
            ("no-store", None),
        ] {
            assert_eq!(max_age(text), expected, "{text}");
        }
    }

    #[test]
    fn a_request_may_say_it_the_old_way() {
        let headers = HeaderMap::from_iter([(header::PRAGMA, HeaderValue::from_static("no-cache"))]);
        assert!(Directives::of_request(&headers).no_cache);
        assert_eq!(of("max-stale").max_stale, Some(Duration::MAX));
        assert!(of("s-maxage=5").must_revalidate);
    }

    #[test]
    fn an_age_that_cannot_be_read_is_old() {
        let age = |text: &str| {
            let value = HeaderValue::from_str(text).expect("a value");
            age(&HeaderMap::from_iter([(header::AGE, value)])).as_secs()
        };
        assert_eq!([age("0"), age("7"), age("99999999999999999999")], [0, 7, FOREVER]);
        for text in ["7, 9", "0, 0", "7;x=1", "-1", "abc", "7.0", "\"7\""] {
            assert_eq!(age(text), FOREVER, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(text in "[ -~]{0,64}") {
            let read = of(&text);
            prop_assert!(read.max_age.is_none_or(|age| age.as_secs() <= FOREVER));
            prop_assert!(!read.no_store || text.to_ascii_lowercase().contains("no-store"));
        }
    }
}
