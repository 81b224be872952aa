//! The cookie that binds a flow to the browser it began in.
//!
//! Without it, a person could be sent an address with someone else's state, and would connect their
//! account as that other's, or the other's as theirs (RFC 9700 §4.7). Only a digest of it is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::base::random::{Random, RandomUnavailable};
use crate::definition::plan::Fingerprint;

/// Characters of the cookie's value: 256 bits.
const LENGTH: usize = 43;

/// A browser, as far as it can be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Browser {
    /// Lower-case hexadecimal SHA-256 of its cookie.
    pub digest: String,
    /// The cookie to set, when it has none yet.
    pub set: Option<HeaderValue>,
}

/// What the cookie is called. The prefix makes browsers refuse it from plain HTTP, from other hosts of the
/// domain and for other paths; browsers have no secure cookies at plain HTTP, which is for loopback only.
fn name(public_url: &Url) -> &'static str {
    if public_url.scheme() == "https" { "__Host-trunkline-connect" } else { "trunkline-connect" }
}

impl Browser {
    /// The browser that a request comes from, when it has our cookie: one, and of our making in form.
    pub fn of(headers: &HeaderMap, public_url: &Url) -> Option<Self> {
        let name = name(public_url);
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
        let (value, None) = (values.next()?, values.next()) else { return None };
        let ours = value.len() == LENGTH && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        ours.then(|| Self { digest: digest(value), set: None })
    }

    /// The browser that a request comes from, with a new cookie if it has none.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn known_or_new(headers: &HeaderMap, public_url: &Url, random: &dyn Random) -> Result<Self, RandomUnavailable> {
        if let Some(known) = Self::of(headers, public_url) {
            return Ok(known);
        }
        let mut bytes = [0; 32];
        random.fill(&mut bytes)?;
        let value = URL_SAFE_NO_PAD.encode(bytes);
        let secure = if public_url.scheme() == "https" { "; Secure" } else { "" };
        let cookie = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}", name(public_url));
        let mut set = HeaderValue::try_from(cookie).map_err(|_| RandomUnavailable)?;
        set.set_sensitive(true);
        Ok(Self { digest: digest(&value), set: Some(set) })
    }
}

/// Lower-case hexadecimal SHA-256: what is kept of a value that only its holder shall know.
pub(super) fn digest(value: &str) -> String {
    Fingerprint(Sha256::digest(value).into()).to_string()
}

/// Whether two digests are the same, in time that does not depend on where they differ.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    fn with(cookies: &[&str]) -> HeaderMap {
        let pair = |cookie: &&str| (header::COOKIE, HeaderValue::from_str(cookie).expect("visible"));
        let mut headers = HeaderMap::new();
        cookies.iter().map(pair).for_each(|(name, value)| _ = headers.append(name, value));
        headers
    }

    #[test]
    fn a_browser_is_known_by_the_cookie_it_was_given() {
        for (url, prefix, secure) in [
            ("https://g.example", "__Host-trunkline-connect=", true),
            ("http://localhost:8080", "trunkline-connect=", false),
        ] {
            let url = Url::parse(url).expect("a URL");
            let new = Browser::known_or_new(&HeaderMap::new(), &url, &SeededRandom::new(1)).expect("seeded");
            let set = new.set.expect("a cookie").to_str().expect("text").to_owned();
            assert!(set.starts_with(prefix) && set.contains("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
            assert_eq!(set.contains("Secure"), secure);
            let pair = set.split(';').next().expect("a pair");
            let known = Browser::of(&with(&["a=b", &format!("x=y; {pair}; z")]), &url).expect("known");
            assert_eq!(known, Browser { digest: new.digest, set: None });
        }
    }

    #[test]
    fn two_cookies_of_the_name_or_another_form_are_none() {
        let url = Url::parse("https://g.example").expect("a URL");
        let good = format!("__Host-trunkline-connect={}", "a".repeat(LENGTH));
        assert!(Browser::of(&with(&[&good]), &url).is_some());
        for cookies in [
            vec![good.as_str(), good.as_str()],
            vec![good.trim_start_matches("__Host-")],
            vec!["__Host-trunkline-connect=short"],
            vec![],
        ] {
            assert_eq!(Browser::of(&with(&cookies), &url), None, "{cookies:?}");
        }
    }
}
