//! Moments that answers tell, in every way they are written.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, header};
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::definition::plan::moment::{Moment, MomentUnit};
use crate::template::Context;

/// The longest time that is believed: a hundred years. What is longer means never.
const LONGEST: Duration = Duration::from_hours(24 * 36_525);
/// How far the other side's clock may be off and still be believed.
const SKEW: Duration = Duration::from_hours(24);

/// Base 64 with the URL alphabet, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Our clock and what is known of the other side's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    now: Timestamp,
    ahead: Skew,
}

/// How far the other side's clock is off ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// It shows a later time.
    Ahead(Duration),
    /// It shows an earlier one.
    Behind(Duration),
}

impl Skew {
    /// As the `Date` of an answer tells it; `None` where there is none, or it is more than a day off, which is a
    /// fault and says nothing.
    pub fn of_answer(now: Timestamp, headers: &HeaderMap) -> Option<Self> {
        let date = headers.get(header::DATE).and_then(|value| value.to_str().ok()).and_then(http_date)?;
        // The header has whole seconds: what is less than that is no difference.
        let told = if date > now { Self::Ahead(date.since(now)) } else { Self::Behind(now.since(date)) };
        match told {
            Self::Ahead(by) | Self::Behind(by) if by < Duration::from_secs(2) => Some(Self::Ahead(Duration::ZERO)),
            Self::Ahead(by) | Self::Behind(by) if by > SKEW => None,
            told => Some(told),
        }
    }

    /// Our moment on the other side's clock.
    pub fn theirs(self, ours: Timestamp) -> Timestamp {
        match self {
            Self::Ahead(by) => ours.after(by),
            Self::Behind(by) => ours.before(by),
        }
    }
}

impl Clocks {
    /// Our clock, taking the other side's to be the same.
    pub fn ours(now: Timestamp) -> Self {
        Self { now, ahead: Skew::Ahead(Duration::ZERO) }
    }

    /// Our clock, and the other side's as the `Date` of its answer tells it. A date that is more than a
    /// day off is a fault, and says nothing.
    pub fn of_answer(now: Timestamp, headers: &HeaderMap) -> Self {
        Self { now, ahead: Skew::of_answer(now, headers).unwrap_or(Skew::Ahead(Duration::ZERO)) }
    }

    /// Our moment.
    pub fn now(self) -> Timestamp {
        self.now
    }

    /// A moment of the other side's clock on ours.
    fn translated(self, theirs: Timestamp) -> Timestamp {
        match self.ahead {
            Skew::Ahead(by) => theirs.before(by),
            Skew::Behind(by) => theirs.after(by),
        }
    }
}

/// The moment that an answer tells. `None` when it tells none that lies ahead and within a hundred years:
/// services write zero, a negative number, the past or a word when they mean "never".
pub fn read(moment: &Moment, context: &Context, clocks: Clocks) -> Option<Timestamp> {
    of_value(&moment.value.json(context).ok()?, moment.unit, clocks)
}

/// The moment that a value stands for, as [`read`] would have it.
pub fn of_value(value: &Value, unit: MomentUnit, clocks: Clocks) -> Option<Timestamp> {
    let found = match unit {
        MomentUnit::AfterSeconds => return after(value, 1.0, clocks.now),
        MomentUnit::AfterMillis => return after(value, 1e-3, clocks.now),
        MomentUnit::AfterMinutes => return after(value, 60.0, clocks.now),
        MomentUnit::EpochSeconds => at(number(value)?),
        MomentUnit::EpochMillis => at(number(value)? / 1e3),
        MomentUnit::EpochMicros => at(number(value)? / 1e6),
        MomentUnit::Rfc3339 => Timestamp::parse_rfc3339(value.as_str()?.trim()),
        MomentUnit::HttpDate => http_date(value.as_str()?.trim()),
        MomentUnit::JwtExp => jwt_exp(value.as_str()?),
    };
    let found = clocks.translated(found?);
    (found > clocks.now && found.since(clocks.now) <= LONGEST).then_some(found)
}

/// The moment that lies a number of seconds ahead, written as a number or as its text. `None` when it is
/// not positive, or more than a hundred years.
pub fn after_seconds(value: &Value, now: Timestamp) -> Option<Timestamp> {
    after(value, 1.0, now)
}

fn after(value: &Value, unit: f64, now: Timestamp) -> Option<Timestamp> {
    let seconds = number(value)? * unit;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    let millis = wait.as_millis() > 0;
    (millis && wait <= LONGEST).then(|| now.after(wait))
}

fn at(seconds: f64) -> Option<Timestamp> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    Some(Timestamp::from_millis(u64::try_from(since.as_millis()).ok()?))
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    number.is_finite().then_some(number)
}

fn http_date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_seconds(since.as_secs()))
}

/// The `exp` claim of a token. Nothing is verified: the service alone judges its tokens, and this is only
/// when to come back.
fn jwt_exp(token: &str) -> Option<Timestamp> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let claims: Value = serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()?;
    at(number(claims.get("exp")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Expr;
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

    fn read_at(value: &Value, unit: MomentUnit, clocks: Clocks) -> Option<u64> {
        let moment = Moment { value: Expr::compile("body.v").expect("compiles"), unit };
        let context = Context::new().with_json("body", &json!({ "v": value }));
        read(&moment, &context, clocks).map(|found| found.since(NOW).as_secs())
    }

    fn ahead(value: &Value, unit: MomentUnit) -> Option<u64> {
        read_at(value, unit, Clocks::ours(NOW))
    }

    #[test]
    fn every_unit_is_read_as_number_and_as_text() {
        use MomentUnit as Unit;
        let claims = BASE64.encode(json!({ "exp": 1_700_000_060 }).to_string());
        for (value, unit) in [
            (json!(60), Unit::AfterSeconds),
            (json!("60"), Unit::AfterSeconds),
            (json!(" 60.0 "), Unit::AfterSeconds),
            (json!(60_000), Unit::AfterMillis),
            (json!("1"), Unit::AfterMinutes),
            (json!(1_700_000_060), Unit::EpochSeconds),
            (json!("1700000060"), Unit::EpochSeconds),
            (json!(1_700_000_060_000_u64), Unit::EpochMillis),
            (json!(1_700_000_060_000_000_u64), Unit::EpochMicros),
            (json!("2023-11-14T22:14:20Z"), Unit::Rfc3339),
            (json!("2023-11-15T00:14:20.000+02:00"), Unit::Rfc3339),
            (json!("Tue, 14 Nov 2023 22:14:20 GMT"), Unit::HttpDate),
            (json!(format!("e30.{claims}.c2ln")), Unit::JwtExp),
        ] {
            assert_eq!(ahead(&value, unit), Some(60), "{value} {unit:?}");
        }
    }

    #[test]
    fn what_does_not_lie_ahead_says_nothing() {
        use MomentUnit as Unit;
        for (value, unit) in [
            (json!(0), Unit::AfterSeconds),
            (json!(-1), Unit::AfterSeconds),
            (json!("never"), Unit::AfterSeconds),
            (json!("inf"), Unit::AfterSeconds),
            (json!(9_999_999_999_u64), Unit::AfterSeconds),
            (json!(true), Unit::AfterSeconds),
            (json!(null), Unit::AfterSeconds),
            (json!([60]), Unit::AfterSeconds),
            (json!(0), Unit::EpochSeconds),
            (json!(1_600_000_000), Unit::EpochSeconds),
            (json!(1_700_000_060_000_u64), Unit::EpochSeconds),
            (json!("tomorrow"), Unit::Rfc3339),
            (json!(1), Unit::Rfc3339),
            (json!("a.b"), Unit::JwtExp),
            (json!("a.b.c.d"), Unit::JwtExp),
            (json!("e30.e30.e30"), Unit::JwtExp),
        ] {
            assert_eq!(ahead(&value, unit), None, "{value} {unit:?}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_allowed_for() {
        let clocks = |date: &str| {
            let headers = HeaderMap::from_iter([(header::DATE, HeaderValue::from_str(date).expect("visible"))]);
            Clocks::of_answer(NOW, &headers)
        };
        let at = json!(1_700_000_600);
        let read = |date| read_at(&at, MomentUnit::EpochSeconds, clocks(date));
        assert_eq!(read("Tue, 14 Nov 2023 22:13:21 GMT"), Some(600), "a second is no difference");
        assert_eq!(read("Tue, 14 Nov 2023 22:18:20 GMT"), Some(300), "theirs is five minutes ahead");
        assert_eq!(read("Tue, 14 Nov 2023 22:08:20 GMT"), Some(900), "theirs is five minutes behind");
        assert_eq!(read("Tue, 14 Nov 2000 22:08:20 GMT"), Some(600), "a broken clock says nothing");
        let relative = read_at(&json!(60), MomentUnit::AfterSeconds, clocks("Tue, 14 Nov 2023 22:18:20 GMT"));
        assert_eq!(relative, Some(60));
    }

    proptest! {
        #[test]
        fn whatever_it_says_a_moment_lies_ahead(value in any::<f64>(), text in ".{0,40}") {
            for unit in [MomentUnit::AfterMillis, MomentUnit::EpochMillis, MomentUnit::Rfc3339, MomentUnit::JwtExp] {
                for value in [json!(value), json!(value.to_string()), json!(text)] {
                    let moment = Moment { value: Expr::compile("body").expect("compiles"), unit };
                    let found = read(&moment, &Context::new().with_json("body", &value), Clocks::ours(NOW));
                    prop_assert!(found.is_none_or(|found| found > NOW && found.since(NOW) <= LONGEST));
                }
            }
        }
    }
}
