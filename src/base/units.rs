//! Written-out units: `5m`, `1MiB`, `5000/h`. A number without a unit is refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Reads a duration: whole numbers with `ms`, `s`, `m`, `h` or `d`, largest unit first, as in
/// `500ms`, `5m` or `1h30m`.
///
/// # Errors
/// [`UnitError`] names what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let error = || UnitError::Duration(text.to_owned());
    let (mut rest, mut millis, mut last_unit) = (text, 0_u64, u64::MAX);
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(error)?;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(letters);
        let size = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size).ok_or_else(error)?;
        if size >= last_unit {
            return Err(error());
        }
        millis = number.checked_mul(size).and_then(|part| millis.checked_add(part)).ok_or_else(error)?;
        (rest, last_unit) = (tail, size);
    }
    if text.is_empty() { Err(error()) } else { Ok(Duration::from_millis(millis)) }
}

/// Reads a size in bytes: a whole number with `B`, `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// [`UnitError`] names what was expected.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError::Size(text.to_owned());
    let (number, unit) = leading_number(text).ok_or_else(error)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(error()),
    };
    number.checked_mul(factor).ok_or_else(error)
}

/// A rate: so many in a period, written `25/s`, `600/m`, `5000/h` or `100000/d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; never zero.
    pub count: u32,
    /// In how long: one second, minute, hour or day.
    pub period: Duration,
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError::Rate(text.to_owned());
        let (count, period) = text.split_once('/').ok_or_else(error)?;
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(error)?;
        let seconds = match period {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(error()),
        };
        Ok(Self { count, period: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "m",
            3_600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// A text that is not the quantity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("`{0}` is not a duration: expected a number with a unit, such as 500ms, 30s, 5m, 1h30m or 7d")]
    Duration(String),
    /// Not a size.
    #[error("`{0}` is not a size: expected a number with a unit, such as 512B, 64KiB, 1MiB or 2GiB")]
    Size(String),
    /// Not a rate.
    #[error("`{0}` is not a rate: expected a number per s, m, h or d, such as 25/s or 5000/h")]
    Rate(String),
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

/// How much of a file system is left free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reserve {
    /// 256 MiB, or a twentieth of the file system where that is less: a small disk is to be of use as well.
    #[default]
    Usual,
    /// This many bytes, however small the file system is.
    Bytes(u64),
}

impl Reserve {
    /// The bytes that stay free of a file system of `total` bytes.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Usual => (256 << 20).min(total / 20),
            Self::Bytes(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_units_in_falling_order() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "5", "m", "5 m", "5M", "1m1h", "1m1m", "-5m", "1.5h", "99999999999999999999d", "300000000000d"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(parse_size("1MiB"), Ok(1_048_576));
        for text in ["", "1", "1MB", "1 MiB", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_read_and_print() {
        for text in ["25/s", "600/m", "5000/h", "100000/d"] {
            assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "25", "0/s", "25/w", "/s", "25/"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_reserve_is_what_was_written_or_fits_the_disk() {
        assert_eq!((Reserve::Usual.of(1 << 40), Reserve::Usual.of(2000)), (256 << 20, 100));
        assert_eq!(Reserve::Bytes(1 << 30).of(2 << 30), 1 << 30);
    }
}
