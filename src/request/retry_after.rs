//! When a service asks to come again.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, header};

use crate::base::clock::Timestamp;

/// The longest wait that is believed: a day.
const LONGEST: Duration = Duration::from_hours(24);

/// From here on a number is no wait but a moment, in seconds since 1970: as a wait it would be thirty years.
const MOMENTS: u64 = 1_000_000_000;

/// How long `Retry-After` asks to wait, as seconds or as a date (RFC 9110, 10.2.3), at most a day. A number that can
/// only be a moment, in seconds or milliseconds since 1970, is read as one: some services send it, and what their limits
/// reset at is often written so. `None` when it is absent, repeated or none of these.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let mut values = headers.get_all(header::RETRY_AFTER).iter();
    let text = values.next()?.to_str().ok()?.trim();
    if values.next().is_some() {
        return None;
    }
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        match text.parse::<u64>() {
            Ok(seconds) if seconds < MOMENTS => Duration::from_secs(seconds),
            Ok(seconds) if seconds < MOMENTS * 1000 => since(now, Duration::from_secs(seconds)),
            Ok(millis) => since(now, Duration::from_millis(millis)),
            Err(_) => LONGEST,
        }
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        since(now, date.duration_since(UNIX_EPOCH).ok()?)
    };
    Some(wait.min(LONGEST))
}

/// From `now` to a moment, which is told since 1970.
fn since(now: Timestamp, moment: Duration) -> Duration {
    moment.saturating_sub(Duration::from_millis(now.millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn wait(text: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(text).expect("visible"));
        retry_after(&headers, Timestamp::from_seconds(NOW)).map(|wait| wait.as_secs())
    }

    const NOW: u64 = 1_784_111_777;

    #[test]
    fn both_forms_are_read_and_bounded() {
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("0"), Some(0));
        assert_eq!(wait("Wed, 15 Jul 2026 10:37:17 GMT"), Some(60));
        assert_eq!(wait("Wed, 15 Jul 2026 10:36:16 GMT"), Some(0));
        assert_eq!(wait("99999999999999999999999"), Some(86_400));
        for moment in ["1784111837", "1784111837000"] {
            assert_eq!(wait(moment), Some(60), "{moment}");
        }
        assert_eq!(wait("1784111700"), Some(0), "a moment that has passed");
        assert_eq!(wait("999999999"), Some(86_400), "no moment of this century");
        for text in ["", "-1", "1.5", "soon", "1 2"] {
            assert_eq!(wait(text), None, "{text}");
        }
    }
}
