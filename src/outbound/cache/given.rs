//! What a caller gets of a kept answer: all of it, that it has not changed, or the part that was asked for.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::directives::texts;
use super::stored::Stored;
use crate::base::clock::Timestamp;
use crate::respond::Answer;

/// RFC 9211.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Gives a kept answer, `age` seconds old, to a request with these headers.
pub fn give(stored: &Stored, method: &Method, request: &HeaderMap, age: u64) -> Answer {
    let (status, headers, body) =
        if stored.status == StatusCode::OK { fitted(stored, method, request) } else { whole(stored) };
    let mut given: Vec<_> = listed(headers).collect();
    given.push((header::AGE, HeaderValue::from(age)));
    Answer { status, headers: given, body, close: false }
}

/// A header map's lines.
pub fn listed(headers: HeaderMap) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    headers.into_iter().scan(None::<HeaderName>, |last, (name, value)| {
        // A header map names a header once and then gives its further values without a name.
        *last = name.or_else(|| last.take());
        last.clone().map(|name| (name, value))
    })
}

fn whole(stored: &Stored) -> (StatusCode, HeaderMap, Bytes) {
    (stored.status, stored.headers.clone(), stored.body.clone())
}

/// RFC 9110 §13.2.2: first what makes it unnecessary, then what makes it a part.
fn fitted(stored: &Stored, method: &Method, request: &HeaderMap) -> (StatusCode, HeaderMap, Bytes) {
    if is_unchanged(stored, request) {
        let tells = |name: &HeaderName| {
            !matches!(
                *name,
                header::CONTENT_TYPE | header::CONTENT_ENCODING | header::CONTENT_LANGUAGE | header::CONTENT_RANGE
            )
        };
        let kept = stored.headers.iter().filter(|(name, _)| tells(name));
        let headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        return (StatusCode::NOT_MODIFIED, headers, Bytes::new());
    }
    let length = stored.body.len();
    let asked =
        (*method == Method::GET && still_applies(stored, request)).then(|| asked_range(request, length)).flatten();
    let (status, mut headers, body) = whole(stored);
    let (range, status) = match asked {
        None => return (status, headers, body),
        Some(Asked::Part(range)) => (range, StatusCode::PARTIAL_CONTENT),
        Some(Asked::Beyond) => (0..0, StatusCode::RANGE_NOT_SATISFIABLE),
    };
    let told = if range.is_empty() {
        format!("bytes */{length}")
    } else {
        format!("bytes {}-{}/{length}", range.start, range.end - 1)
    };
    if let Ok(told) = HeaderValue::from_str(&told) {
        headers.insert(header::CONTENT_RANGE, told);
    }
    (status, headers, body.slice(range))
}

/// Whether the caller has what is kept.
fn is_unchanged(stored: &Stored, request: &HeaderMap) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        let ours = stored.etag().and_then(|tag| tag.to_str().ok());
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let is_ours = |tag: &str| tag.trim() == "*" || ours.is_some_and(|ours| opaque(tag) == opaque(ours));
        return texts(request, header::IF_NONE_MATCH).any(|line| tags(line).any(is_ours));
    }
    let Some(since) = request.get(header::IF_MODIFIED_SINCE) else { return false };
    let changed = stored.last_modified().or_else(|| stored.headers.get(header::DATE));
    match (read_date(since), changed.and_then(read_date)) {
        (Some(since), Some(changed)) => changed <= since,
        _ => false,
    }
}

fn read_date(value: &HeaderValue) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(value.to_str().ok()?).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_seconds(since.as_secs()))
}

/// The entity tags of a list; a tag may hold commas.
fn tags(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.split(move |c: char| {
        quoted ^= c == '"';
        !quoted && c == ','
    })
}

/// Whether `If-Range`, where there is one, means what is kept; compared as strongly as it must be.
fn still_applies(stored: &Stored, request: &HeaderMap) -> bool {
    let Some(condition) = request.get(header::IF_RANGE) else { return true };
    if condition.as_bytes().starts_with(b"\"") {
        return stored.etag() == Some(condition);
    }
    stored.last_modified() == Some(condition)
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Part(Range<usize>),
    Beyond,
}

/// The one range of bytes that a request asks for. Several, or what is no range, is answered in full.
fn asked_range(request: &HeaderMap, length: usize) -> Option<Asked> {
    let text = request.get(header::RANGE)?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<usize>().ok()).flatten();
    let range = match (first, last) {
        ("", last) => length.saturating_sub(number(last)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(if range.start < range.end { Asked::Part(range) } else { Asked::Beyond })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str, length: usize) -> Option<Asked> {
        let value = HeaderValue::from_str(text).ok()?;
        asked_range(&HeaderMap::from_iter([(header::RANGE, value)]), length)
    }

    #[test]
    fn one_range_is_a_part_and_what_is_none_is_all() {
        assert_eq!(range("bytes=0-1", 10), Some(Asked::Part(0..2)));
        assert_eq!(range("bytes=5-", 10), Some(Asked::Part(5..10)));
        assert_eq!(range("bytes=-3", 10), Some(Asked::Part(7..10)));
        assert_eq!(range("bytes=-30", 10), Some(Asked::Part(0..10)));
        assert_eq!(range("bytes=8-99", 10), Some(Asked::Part(8..10)));
        assert_eq!(range("bytes=10-", 10), Some(Asked::Beyond));
        assert_eq!(range("bytes=-0", 10), Some(Asked::Beyond));
        for all in ["bytes=0-1,3-4", "bytes=5-2", "items=0-1", "bytes=a-b", "bytes=", "bytes=--1"] {
            assert_eq!(range(all, 10), None, "{all}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_more_than_there_is(text in "bytes=[-0-9, ]{0,24}", length in 0_usize..64) {
            if let Some(Asked::Part(part)) = range(&text, length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }
    }
}
