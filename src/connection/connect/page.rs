//! Pages and their files: escaped by the engine, without inline scripts or styles, shown in no frame.
//!
//! The pages' templates are our own, compiled once, and share nothing with the templates of definitions.
//! What a page may load, and from where, is decided here for all of them.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use rust_embed::Embed;
use serde::Serialize;
use url::Url;

use crate::respond::{Answer, Refusal};

#[derive(Embed)]
#[folder = "src/connection/connect/pages/"]
struct Files;

/// Everything from this origin, and of that only what pages need. `form-action 'self'` also holds for
/// where a form's answer redirects to, so a form is never answered with a redirect to a service: see
/// [`Page::departing`].
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
/// The files that pages load, with their content types.
const ASSETS: [(&str, &str); 3] = [
    ("connect.css", "text/css; charset=utf-8"),
    ("page.js", "text/javascript; charset=utf-8"),
    (LIBRARY, "text/javascript; charset=utf-8"),
];
/// The file that applications' own pages load.
const LIBRARY: &str = "trunkline-connect.js";

static PAGES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut pages = Environment::new();
    pages.set_undefined_behavior(UndefinedBehavior::Lenient);
    pages.set_auto_escape_callback(|_| AutoEscape::Html);
    // What is not there is shown as nothing: the engine's own word for it would be read as an address.
    pages.set_formatter(
        |out, state, value| {
            if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
        },
    );
    for name in Files::iter().filter(|name| name.ends_with(".html")) {
        let text = Files::get(&name).map(|file| String::from_utf8_lossy(&file.data).into_owned());
        // A page that does not compile is found missing when it is asked for; a test asks for all.
        drop(pages.add_template_owned(name.into_owned(), text.unwrap_or_default()));
    }
    pages
});

/// A page on its way out.
#[derive(Debug)]
pub struct Page<'a> {
    /// The template's name without its ending.
    pub name: &'static str,
    /// What the window is called.
    pub title: String,
    /// Where the gateway is reached.
    pub public_url: &'a Url,
    /// Whether the window that opened this one may stay tied to it.
    pub opener: Opener,
    /// A cookie to set.
    pub cookie: Option<HeaderValue>,
    /// Where the browser goes on to by itself. A page and not a redirect, because browsers hold forms'
    /// redirects to `form-action`.
    pub departs: Option<String>,
}

/// Whether the window that opened a page stays tied to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// It does: it is a page of the user's own, which waits for a message.
    Kept,
    /// It does not: nobody that we know of opened it.
    Cut,
}

impl<'a> Page<'a> {
    /// A page that nobody waits for.
    pub fn new(name: &'static str, title: impl Into<String>, public_url: &'a Url) -> Self {
        Self { name, title: title.into(), public_url, opener: Opener::Cut, cookie: None, departs: None }
    }

    /// The same, whose opener waits for a message where `origin` is one.
    #[must_use]
    pub fn told_to(mut self, origin: Option<&str>) -> Self {
        self.opener = if origin.is_some() { Opener::Kept } else { Opener::Cut };
        self
    }

    /// The same with a cookie.
    #[must_use]
    pub fn with_cookie(mut self, cookie: Option<HeaderValue>) -> Self {
        self.cookie = cookie;
        self
    }

    /// The same, going on to `place`.
    #[must_use]
    pub fn departing(mut self, place: String) -> Self {
        self.departs = Some(place);
        self
    }

    /// The page with what it shows.
    pub fn show(self, view: impl Serialize) -> Answer {
        let status = StatusCode::OK;
        let html = self.html(&Value::from(Serde(view)));
        let (opener, cookie) = (self.opener, self.cookie);
        let mut answer = Answer::empty(status);
        answer.body = html;
        finish(answer, opener, cookie)
    }

    /// The page as what a refusal looks like to a person.
    pub fn refuse(self, refusal: Refusal, view: impl Serialize) -> Answer {
        let html = self.html(&Value::from(Serde(view)));
        finish(refusal.page(html), self.opener, self.cookie)
    }

    fn html(&self, view: &Value) -> Bytes {
        let base = prefix(self.public_url);
        let frame = context! {
            title => self.title.as_str(),
            departs => self.departs.as_deref(),
            assets => format!("{base}/api/connect/-"),
            gateway => host(self.public_url),
        };
        let whole = context! { ..view.clone(), ..frame.clone() };
        let shown = PAGES
            .get_template(&format!("{}.html", self.name))
            .and_then(|page| page.render(whole))
            .and_then(|content| PAGES.get_template("layout.html")?.render(context! { content => content, ..frame }));
        match shown {
            Ok(html) => Bytes::from(html),
            Err(error) => {
                tracing::error!(page = self.name, "a page could not be shown: {error:#}");
                Bytes::from_static(b"<!doctype html><title>Trunkline</title><p>This page could not be shown.")
            }
        }
    }
}

fn finish(mut answer: Answer, opener: Opener, cookie: Option<HeaderValue>) -> Answer {
    let coop = match opener {
        Opener::Kept => "unsafe-none",
        Opener::Cut => "same-origin",
    };
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), coop),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    answer.headers.retain(|(name, _)| *name != header::CONTENT_TYPE);
    answer.headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer.headers.extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    answer
}

/// Sends the browser on to another page of ours, by GET (RFC 9700 §4.12).
pub fn see_other(place: &str) -> Answer {
    let mut answer = Answer::empty(StatusCode::SEE_OTHER);
    if let Ok(place) = HeaderValue::from_str(place) {
        answer.headers.push((header::LOCATION, place));
    }
    answer.headers.push((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    answer.headers.push((header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")));
    answer
}

/// A file that pages load; `None` when there is none of that name.
pub fn asset(name: &str) -> Option<Answer> {
    let (name, content_type) = ASSETS.iter().find(|(known, _)| *known == name)?;
    let file = Files::get(name)?;
    let sharing = if *name == LIBRARY { "cross-origin" } else { "same-origin" };
    let mut answer = Answer::empty(StatusCode::OK)
        .with(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
        .with(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
        // Names do not change with content, so that a new version must be seen soon.
        .with(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"))
        .with(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static(sharing));
    answer.body = Bytes::copy_from_slice(&file.data);
    Some(answer)
}

/// What stands before `/api/…` in addresses: the path of `public_url`, for gateways below a path.
pub fn prefix(public_url: &Url) -> &str {
    public_url.path().trim_end_matches('/')
}

/// The gateway's host, as people know it.
pub fn host(public_url: &Url) -> String {
    let host = public_url.host_str().unwrap_or_default();
    public_url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn url() -> Url {
        Url::parse("https://gateway.example/hub/").expect("a URL")
    }

    fn header_of<'a>(answer: &'a Answer, name: &str) -> &'a str {
        answer
            .headers
            .iter()
            .find(|(known, _)| known == name)
            .and_then(|(_, value)| value.to_str().ok())
            .unwrap_or_default()
    }

    #[test]
    fn every_page_is_there_and_nothing_in_it_is_inline() {
        for name in ["permission", "departure", "outcome", "choose", "refused"] {
            let url = url();
            let answer = Page::new(name, "t", &url).show(json!({ "service": "S", "choices": [], "failed": {} }));
            let html = String::from_utf8(answer.body.to_vec()).expect("UTF-8").replace("&#x2f;", "/");
            assert!(html.contains("<h1>") && html.contains("/hub/api/connect/-/connect.css"), "{name}: {html}");
            for inline in ["<style", " style=", "<script>", " onclick", " onload", "javascript:"] {
                assert!(!html.contains(inline), "{name} has {inline}");
            }
            assert!(header_of(&answer, "content-security-policy").starts_with("default-src 'none'"));
            assert_eq!(header_of(&answer, "referrer-policy"), "no-referrer");
            assert_eq!(header_of(&answer, "cross-origin-opener-policy"), "same-origin");
        }
    }

    #[test]
    fn what_others_say_is_text() {
        let hostile = "\"><script>alert(1)</script>'</title>";
        let url = url();
        let failed = json!({ "title": hostile, "meaning": hostile, "step": hostile, "words": hostile });
        let view = json!({ "service": hostile, "failed": failed, "back": hostile, "origin": hostile });
        let answer = Page::new("outcome", hostile, &url).told_to(Some("https://app.example")).show(view);
        let html = String::from_utf8(answer.body.to_vec()).expect("UTF-8");
        assert!(!html.contains("<script>alert") && html.contains("&lt;script&gt;"), "{html}");
        assert!(!html.contains("data-back=\"\">"), "{html}");
        assert_eq!(header_of(&answer, "cross-origin-opener-policy"), "unsafe-none");
    }

    #[test]
    fn what_is_not_there_is_shown_as_nothing() {
        let view = json!({ "service": "S", "state": "connected", "result": "r", "connection": "c",
            "connected": { "account": null, "notes": [], "missing": [], "scopes": [] }, "back": null, "origin": null });
        let answer = Page::new("outcome", "t", &url()).told_to(None).show(view);
        let html = String::from_utf8(answer.body.to_vec()).expect("UTF-8");
        assert!(html.contains("data-origin=\"\" data-back=\"\""), "{html}");
    }

    #[test]
    fn a_refusal_is_a_page_that_says_it_is_ours() {
        let url = url();
        let answer = Page::new("refused", "t", &url).refuse(Refusal::NotFound, json!({ "heading": "Gone" }));
        assert_eq!((answer.status, header_of(&answer, "trunkline-error")), (StatusCode::NOT_FOUND, "not_found"));
        let types: Vec<_> = answer.headers.iter().filter(|(name, _)| name == header::CONTENT_TYPE).collect();
        assert_eq!(types.len(), 1);
    }

    #[test]
    fn files_are_served_by_name_and_no_others() {
        for (name, _) in ASSETS {
            assert!(asset(name).is_some_and(|answer| !answer.body.is_empty()), "{name}");
        }
        for name in ["layout.html", "../page.rs", "", "connect.css/"] {
            assert!(asset(name).is_none(), "{name}");
        }
        assert_eq!(header_of(&asset(LIBRARY).expect("there"), "cross-origin-resource-policy"), "cross-origin");
    }
}
