//! Which headers of a webhook are stored with its event: all but credentials.
//!
//! A signature counts as one: over a body without a signed time it is good for ever.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use crate::definition::plan::webhook::{TokenPlace, Verify};

/// The headers in order of arrival without what proves their sender.
pub fn headers(all: &HeaderMap, verify: &Verify) -> Vec<(String, Bytes)> {
    let kept = all.iter().filter(|(name, _)| !is_credential(name, verify));
    kept.map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect()
}

fn is_credential(name: &HeaderName, verify: &Verify) -> bool {
    let always = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];
    let proves = match verify {
        Verify::Hmac(scheme) => scheme.signatures.iter().any(|place| place.header == *name),
        Verify::Token(TokenPlace::Header { name: token, .. }) => token == name,
        Verify::Token(TokenPlace::Query(_)) | Verify::Basic { .. } | Verify::NotYet(_) => false,
    };
    proves || always.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn credentials_are_left_out() {
        let token = HeaderName::from_static("x-gitlab-token");
        let names = [header::AUTHORIZATION, header::COOKIE, token.clone(), HeaderName::from_static("x-gitlab-event")];
        let all: HeaderMap = names.into_iter().map(|name| (name, HeaderValue::from_static("v"))).collect();
        let verify = Verify::Token(TokenPlace::Header { name: token, prefix: String::new() });
        assert_eq!(headers(&all, &verify), [("x-gitlab-event".to_owned(), Bytes::from_static(b"v"))]);
    }
}
