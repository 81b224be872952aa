//! The signed time and its tolerance.

use super::signature::items;
use super::{Failure, Request, single};
use crate::base::clock::Timestamp;
use crate::definition::plan::webhook::{TimeUnit, TimestampRule, ValuePlace};

/// The signed time's text, exactly as it was sent, once it lies within the tolerance of both sides.
///
/// # Errors
/// [`Failure::TimestampUnreadable`] and [`Failure::Stale`]; [`Failure::HeaderRepeated`] when there are two.
pub fn text(rule: &TimestampRule, request: &Request<'_>) -> Result<Vec<u8>, Failure> {
    let text = match &rule.place {
        ValuePlace::Header { name, form } => {
            let value = single(&request.head.headers, name)?.ok_or_else(|| Failure::HeaderMissing(name.clone()))?;
            match items(form, value).as_slice() {
                [text] => text.to_vec(),
                _ => return Err(Failure::TimestampUnreadable),
            }
        }
        ValuePlace::Expr(expr) => match expr.text(request.context) {
            Ok(Some(text)) => text.into_bytes(),
            Ok(None) | Err(_) => return Err(Failure::TimestampUnreadable),
        },
    };
    let at = read(rule.unit, &text).ok_or(Failure::TimestampUnreadable)?;
    if at.before(rule.future) > request.now || at.after(rule.past) < request.now {
        return Err(Failure::Stale { skew_ms: skew(at, request.now) });
    }
    Ok(text)
}

/// How far `at` is ahead of `now`, in milliseconds.
fn skew(at: Timestamp, now: Timestamp) -> i64 {
    let clamp = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
    clamp(at.millis()).saturating_sub(clamp(now.millis()))
}

fn read(unit: TimeUnit, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let number = || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match unit {
        TimeUnit::EpochSeconds => number().map(Timestamp::from_seconds),
        TimeUnit::EpochMillis => number().map(Timestamp::from_millis),
        TimeUnit::Rfc3339 => Timestamp::parse_rfc3339(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        let seconds = |text: &str| read(TimeUnit::EpochSeconds, text.as_bytes()).map(Timestamp::seconds);
        assert_eq!(seconds("1531420618"), Some(1_531_420_618));
        for bad in ["", "+1", "-1", "1.0", " 1", "0x1", "1e9", "99999999999999999999"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn skew_is_signed_and_never_wraps() {
        let (early, late) = (Timestamp::from_seconds(1), Timestamp::from_millis(u64::MAX));
        assert_eq!(skew(early, Timestamp::from_seconds(3)), -2_000);
        assert_eq!(skew(late, Timestamp::from_millis(0)), i64::MAX);
    }
}
