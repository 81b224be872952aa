//! When a service asks to come again.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, header};

use crate::base::clock::Timestamp;

/// The longest wait that is believed: a day.
const LONGEST: Duration = Duration::from_hours(24);

/// How long `Retry-After` asks to wait, as seconds or as a date (RFC 9110, 10.2.3), at most a day.
/// `None` when it is absent, repeated or neither.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let mut values = headers.get_all(header::RETRY_AFTER).iter();
    let text = values.next()?.to_str().ok()?.trim();
    if values.next().is_some() {
        return None;
    }
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(LONGEST, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        let since_epoch = date.duration_since(UNIX_EPOCH).ok()?;
        since_epoch.saturating_sub(Duration::from_millis(now.millis()))
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn wait(text: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(text).expect("visible"));
        let now = Timestamp::from_seconds(784_111_777);
        retry_after(&headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn both_forms_are_read_and_bounded() {
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("0"), Some(0));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:36 GMT"), Some(0));
        assert_eq!(wait("99999999999999999999999"), Some(86_400));
        for text in ["", "-1", "1.5", "soon", "1 2"] {
            assert_eq!(wait(text), None, "{text}");
        }
    }
}
