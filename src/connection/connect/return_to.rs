//! Where people may be sent when a flow has ended: an allow-list, compared by text.
//!
//! What would be read in two ways by two readers is refused before it is read at all, so that a browser
//! cannot see another host than the one that was compared here.

use url::Url;

use crate::definition::plan::gateway::Gateway;

/// The most bytes of such an address.
const MAX: usize = 2_048;

/// Why people are not sent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReturnError {
    /// It is not an address that every browser reads in one way.
    #[error(
        "`return_to` must be a path that begins with one `/`, or an address without name, password, backslash, space or control character"
    )]
    Form,
    /// Its origin is not allowed.
    #[error("`{0}` is not among `connect.origins` in trunkline.yaml")]
    Origin(String),
}

/// The address that `text` leads to, when people may be sent there. A path is below the origin of
/// `public_url`; anything else must begin with one of `connect.origins`, letter by letter.
///
/// # Errors
/// When they may not.
pub fn check(text: &str, gateway: &Gateway) -> Result<Url, ReturnError> {
    let plain = text.len() <= MAX && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if !plain {
        return Err(ReturnError::Form);
    }
    if text.starts_with('/') {
        if text.starts_with("//") {
            return Err(ReturnError::Form);
        }
        let origin = gateway.public_url.origin().ascii_serialization();
        return Url::parse(&format!("{origin}{text}")).map_err(|_| ReturnError::Form);
    }
    let url = Url::parse(text).map_err(|_| ReturnError::Form)?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(ReturnError::Form);
    }
    let allowed = gateway.connect.origins.iter().any(|origin| begins_with(text, origin));
    if allowed { Ok(url) } else { Err(ReturnError::Origin(url.origin().ascii_serialization())) }
}

/// Whether an address begins with an origin that ends there: `https://a.example.evil` does not begin with
/// `https://a.example`.
fn begins_with(text: &str, origin: &str) -> bool {
    text.strip_prefix(origin).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

/// The origin of a page that may be told outcomes, as browsers write it.
///
/// # Errors
/// When it may not.
pub fn check_origin(text: &str, gateway: &Gateway) -> Result<String, ReturnError> {
    let known = gateway.connect.origins.iter().find(|origin| *origin == text);
    known.cloned().ok_or_else(|| ReturnError::Origin(text.chars().filter(|c| !c.is_control()).take(100).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::super::memory::generation;
    use super::*;
    use crate::definition::plan::gateway::Connect;
    use proptest::prelude::*;

    fn led(text: &str) -> Result<String, ReturnError> {
        let mut generation = generation(Vec::new());
        let gateway = std::sync::Arc::get_mut(&mut generation.gateway).expect("ours alone");
        gateway.connect = Connect { origins: vec!["https://app.example".to_owned()], ..Connect::default() };
        check(text, gateway).map(String::from)
    }

    #[test]
    fn people_are_sent_to_allowed_origins_and_paths_only() {
        for (text, leads) in [
            ("https://app.example", "https://app.example/"),
            ("https://app.example/settings?tab=1#x", "https://app.example/settings?tab=1#x"),
            ("https://app.example?x", "https://app.example/?x"),
            ("https://app.example/@evil.example", "https://app.example/@evil.example"),
            ("/settings", "https://gateway.example/settings"),
            ("/a//b", "https://gateway.example/a//b"),
        ] {
            assert_eq!(led(text).as_deref(), Ok(leads), "{text}");
        }
    }

    #[test]
    fn whatever_leads_elsewhere_is_refused() {
        for text in [
            "",
            " ",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "\\/evil.example",
            "///evil.example",
            "/\t/evil.example",
            "\t//evil.example",
            "/\n/evil.example",
            "https:evil.example",
            "https:/evil.example",
            "https:///evil.example",
            "https:\\\\evil.example",
            "https://evil.example",
            "http://app.example",
            "https://app.example.evil.example",
            "https://app.example@evil.example",
            "https://app.example:@evil.example",
            "https://app.example:443@evil.example",
            "https://app.example:444/",
            "https://app.example\\@evil.example",
            "https://app.example\\.evil.example",
            "https://app.example%2eevil.example",
            "https://app.example%00.evil.example",
            "https://user@app.example/",
            "https://:p@app.example/",
            "https://evil.example/https://app.example",
            "https://evil.example#https://app.example",
            "https://evil.example?https://app.example",
            "HTTPS://app.example/",
            "https://APP.example/",
            "https://app.example./",
            "https://appxexample/",
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://app.example",
            "blob:https://app.example/x",
            "view-source:https://app.example",
            "settings",
            "./settings",
            "../settings",
            "?x",
            "#x",
            "@evil.example",
            "https://app.example/ x",
            "https://app.example/\r\nSet-Cookie: a=b",
            "https://app.example/\u{0}",
            "https://ｅvil.example",
            "/\u{a0}/evil.example",
            "/％2fevil.example",
            "https://[::1]/",
            "https://127.0.0.1/",
            "https://app.example\u{ff0f}evil",
            "https://app。example/",
            "null",
            "about:blank",
            "https://",
            "https:",
            "http://",
        ] {
            assert!(led(text).is_err(), "{text:?} leads to {:?}", led(text));
        }
        assert!(led(&format!("/{}", "x".repeat(MAX))).is_err());
    }

    proptest! {
        #[test]
        fn no_text_leads_to_an_origin_that_is_not_allowed(text in "[/\\\\a-z:@.?#%\\t ]{0,12}(app\\.example)?\\PC{0,12}") {
            if let Ok(url) = led(&text) {
                let origin = Url::parse(&url).expect("a URL").origin().ascii_serialization();
                prop_assert!(["https://app.example", "https://gateway.example"].contains(&origin.as_str()), "{text} {url}");
            }
        }
    }
}
