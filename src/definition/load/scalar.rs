//! What a plain scalar means: the core schema of YAML 1.2, and which texts YAML 1.1 reads otherwise.

use serde_json::{Number, Value};

/// What a plain scalar stands for.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    /// A value that is the same in every YAML version.
    Plain(Value),
    /// A value that YAML 1.1 reads as something else, in words.
    Ambiguous(Value, String),
    /// A number that no JSON number can hold.
    Unholdable,
}

/// A number that no JSON number holds exactly.
struct Unholdable;

/// Reads a plain scalar.
pub(super) fn read(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Plain(Value::Null),
        "true" | "True" | "TRUE" => return Meaning::Plain(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Meaning::Plain(Value::Bool(false)),
        _ => {}
    }
    let number = integer(text).or_else(|| float(text));
    match (number, older_meaning(text)) {
        (Some(Err(Unholdable)), _) => Meaning::Unholdable,
        (Some(Ok(number)), None) => Meaning::Plain(Value::Number(number)),
        (Some(Ok(number)), Some(older)) => Meaning::Ambiguous(Value::Number(number), older),
        (None, Some(older)) => Meaning::Ambiguous(Value::String(text.to_owned()), older),
        (None, None) => Meaning::Plain(Value::String(text.to_owned())),
    }
}

/// The number, when the text is a whole number.
fn integer(text: &str) -> Option<Result<Number, Unholdable>> {
    let radix = |digits: &str, radix| {
        let fits = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        fits.then(|| u64::from_str_radix(digits, radix).map(Number::from).map_err(|_| Unholdable))
    };
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let signed = unsigned.parse::<i64>().map(Number::from);
    Some(signed.or_else(|_| unsigned.parse::<u64>().map(Number::from)).map_err(|_| Unholdable))
}

/// The number, when the text is a decimal fraction.
fn float(text: &str) -> Option<Result<Number, Unholdable>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Err(Unholdable));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits = match (whole, fraction) {
        ("", fraction) => mantissa.starts_with('.') && digits(fraction),
        (whole, "") => digits(whole),
        (whole, fraction) => digits(whole) && digits(fraction),
    };
    if !mantissa_fits || !exponent.is_none_or(digits) {
        return None;
    }
    Some(text.parse::<f64>().ok().and_then(Number::from_f64).ok_or(Unholdable))
}

/// What YAML 1.1, which many tools still read, takes the text for, when that is something else.
fn older_meaning(text: &str) -> Option<String> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" => return Some("true".to_owned()),
        "n" | "no" | "off" => return Some("false".to_owned()),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
        return i64::from_str_radix(digits, 8).ok().map(|number| format!("the number {number}"));
    }
    if digits.contains('_') && digits.starts_with(|c: char| c.is_ascii_digit()) {
        let joined = digits.replace('_', "");
        return joined.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("the number {joined}"));
    }
    let sixties: Option<Vec<u64>> = digits.split(':').map(|part| part.parse().ok()).collect();
    match sixties.as_deref() {
        Some([first, rest @ ..]) if !rest.is_empty() && rest.iter().all(|part| *part < 60) && *first > 0 => {
            let number = rest.iter().try_fold(*first, |sum, part| sum.checked_mul(60)?.checked_add(*part))?;
            Some(format!("the number {number}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_core_schema_is_kept() {
        let cases = [
            ("~", json!(null)),
            ("True", json!(true)),
            ("-12", json!(-12)),
            ("+7", json!(7)),
            ("0x1F", json!(31)),
            ("0o14", json!(12)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("2e3", json!(2000.0)),
            ("1.", json!(1.0)),
            (".", json!(".")),
            ("-", json!("-")),
            ("1e", json!("1e")),
            ("2022-11-28", json!("2022-11-28")),
            ("5m", json!("5m")),
            ("tRue", json!("tRue")),
        ];
        for (text, value) in cases {
            assert_eq!(read(text), Meaning::Plain(value), "{text}");
        }
    }

    #[test]
    fn texts_with_another_meaning_in_older_yaml_are_known() {
        for (text, value, older) in [
            ("no", json!("no"), "false"),
            ("On", json!("On"), "true"),
            ("014", json!(14), "the number 12"),
            ("1_000", json!("1_000"), "the number 1000"),
            ("1:30", json!("1:30"), "the number 90"),
        ] {
            assert_eq!(read(text), Meaning::Ambiguous(value, older.to_owned()), "{text}");
        }
        for text in ["08", "0", "note", "a_b", "12:99", "::1"] {
            assert!(matches!(read(text), Meaning::Plain(_)), "{text}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_held_are_not_rounded() {
        for text in ["18446744073709551616", "-9223372036854775809", ".inf", ".NaN", "1e999", "0xFFFFFFFFFFFFFFFFF"] {
            assert_eq!(read(text), Meaning::Unholdable, "{text}");
        }
    }
}
