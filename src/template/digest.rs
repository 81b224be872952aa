//! Filters that encode, digest and sign, for services whose sign-in wants it of single values.
//!
//! Each takes at most [`MOST`] bytes, because fuel does not see what happens inside a filter. None of them
//! prints what it was given. Called by the engine.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind};
use ring::{digest, hmac};

use crate::base::clock::Timestamp;

/// The most bytes that one of these filters takes.
const MOST: usize = 16 << 10;
/// The encodings of a digest.
const ENCODINGS: &str = "expected `hex`, `base64` or `base64url`";

/// Adds the filters to an environment.
pub(super) fn add(env: &mut Environment<'static>) {
    env.add_filter("base64encode", |text: &str| bounded(text).map(|text| STANDARD.encode(text)));
    env.add_filter("base64urlencode", |text: &str| bounded(text).map(|text| URL_SAFE_NO_PAD.encode(text)));
    env.add_filter("base64decode", base64decode);
    env.add_filter("sha1", |text: &str, how: Option<&str>| digested(&digest::SHA1_FOR_LEGACY_USE_ONLY, text, how));
    env.add_filter("sha256", |text: &str, how: Option<&str>| digested(&digest::SHA256, text, how));
    env.add_filter("sha512", |text: &str, how: Option<&str>| digested(&digest::SHA512, text, how));
    env.add_filter("hmac", signed);
    env.add_filter("rfc3339", rfc3339);
}

fn fault(words: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, words)
}

fn bounded(text: &str) -> Result<&str, Error> {
    if text.len() > MOST { Err(fault("the filter takes at most 16384 bytes")) } else { Ok(text) }
}

fn base64decode(text: &str) -> Result<String, Error> {
    let text = bounded(text)?.trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD.decode(text.replace('+', "-").replace('/', "_"));
    let bytes = bytes.map_err(|_| fault("the text is not in base 64"))?;
    String::from_utf8(bytes).map_err(|_| fault("what the base 64 stands for is not UTF-8 text"))
}

fn encoded(bytes: &[u8], how: Option<&str>) -> Result<String, Error> {
    match how.unwrap_or("hex") {
        "hex" => Ok(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))),
        "base64" => Ok(STANDARD.encode(bytes)),
        "base64url" => Ok(URL_SAFE_NO_PAD.encode(bytes)),
        _ => Err(fault(ENCODINGS)),
    }
}

fn digested(algorithm: &'static digest::Algorithm, text: &str, how: Option<&str>) -> Result<String, Error> {
    encoded(digest::digest(algorithm, bounded(text)?.as_bytes()).as_ref(), how)
}

#[expect(clippy::needless_pass_by_value, reason = "the engine hands named arguments over by value")]
/// `text | hmac(key, algorithm="sha256", encoding="hex")`.
fn signed(text: &str, key: &str, options: Kwargs) -> Result<String, Error> {
    let algorithm = match options.get::<Option<&str>>("algorithm")?.unwrap_or("sha256") {
        "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => hmac::HMAC_SHA256,
        "sha512" => hmac::HMAC_SHA512,
        _ => return Err(fault("expected the algorithm `sha1`, `sha256` or `sha512`")),
    };
    let how: Option<&str> = options.get("encoding")?;
    options.assert_all_used()?;
    if key.is_empty() {
        return Err(fault("a signature with an empty key proves nothing"));
    }
    let key = hmac::Key::new(algorithm, bounded(key)?.as_bytes());
    encoded(hmac::sign(&key, bounded(text)?.as_bytes()).as_ref(), how)
}

/// Seconds since 1970 as `2026-01-31T10:00:00Z`.
fn rfc3339(seconds: u64) -> Result<String, Error> {
    // The calendar ends with four digits of a year.
    if seconds > 253_402_300_799 {
        return Err(fault("the moment is beyond the year 9999"));
    }
    Ok(Timestamp::from_seconds(seconds).to_string().replace(".000Z", "Z"))
}

#[cfg(test)]
mod tests {
    use crate::template::{Context, Expr, TemplateError};

    fn text(source: &str) -> Result<Option<String>, TemplateError> {
        let context = Context::new().with("now", 1_769_853_600).with("long", "x".repeat(20_000));
        Expr::compile(source)?.text(&context)
    }

    #[test]
    fn values_are_encoded_digested_and_signed_as_published() {
        // RFC 4648 §10, FIPS 180 examples, RFC 4231 test case 2, RFC 2202 test case 2.
        for (source, expected) in [
            ("'foobar' | base64encode", "Zm9vYmFy"),
            ("'f~?>' | base64urlencode", "Zn4_Pg"),
            ("'Zm9vYg==' | base64decode", "foob"),
            ("'abc' | sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("'abc' | sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("'abc' | sha256('base64url')", "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"),
            (
                "'what do ya want for nothing?' | hmac('Jefe')",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                "'what do ya want for nothing?' | hmac('Jefe', algorithm='sha1', encoding='base64')",
                "7/zfauXrL6LSdBbV8YTfnCWafHk=",
            ),
            ("now | rfc3339", "2026-01-31T10:00:00Z"),
        ] {
            assert_eq!(text(source).as_ref().map(Option::as_deref), Ok(Some(expected)), "{source}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_without_the_value() {
        for source in [
            "long | sha256",
            "'a' | hmac(long)",
            "'canary' | sha256('canary')",
            "'canary' | hmac('')",
            "'canary' | hmac('k', algorithm='md5')",
            "'canary' | hmac('k', more=1)",
            "'canary!' | base64decode",
            "999999999999 | rfc3339",
        ] {
            let error = text(source).expect_err(source);
            assert!(!error.message.contains("canary"), "{source}: {}", error.message);
        }
    }
}
