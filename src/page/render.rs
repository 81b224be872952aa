//! Templates into pages, and what a page may load.
//!
//! The templates are our own, compiled once. Escaping is always on; nothing in a page is inline, so that the policy
//! below holds for all of them.

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use rust_embed::Embed;
use serde::Serialize;

use super::{charts, payload, words};

#[derive(Embed)]
#[folder = "src/page/templates/"]
struct Templates;

/// What a page may load, and who may show it: everything from this origin, framed by nobody.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

static PAGES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut pages = Environment::new();
    pages.set_undefined_behavior(UndefinedBehavior::Chainable);
    pages.set_auto_escape_callback(|_| AutoEscape::Html);
    // What is not there is shown as nothing: the engine's own word for it would be read as a value.
    pages.set_formatter(
        |out, state, value| {
            if value.is_none() { Ok(()) } else { minijinja::escape_formatter(out, state, value) }
        },
    );
    words::add_to(&mut pages);
    payload::add_to(&mut pages);
    charts::add_to(&mut pages);
    for name in Templates::iter() {
        let text = Templates::get(&name).map(|file| String::from_utf8_lossy(&file.data).into_owned());
        // One that does not compile is found missing when it is asked for; a test asks for all.
        if let Err(error) = pages.add_template_owned(name.into_owned(), text.unwrap_or_default()) {
            tracing::error!("a template of the page does not compile: {error:#}");
        }
    }
    pages
});

/// A page made of a template and what it shows.
pub fn page(status: StatusCode, template: &str, view: impl Serialize) -> Response {
    let html = PAGES.get_template(template).and_then(|page| page.render(Value::from(Serde(view))));
    let html = html.unwrap_or_else(|error| {
        tracing::error!(page = template, "a page could not be shown: {error:#}");
        "<!doctype html><html lang=\"en\"><title>Trunkline</title><h1>This page could not be shown</h1>".to_owned()
    });
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    response.headers_mut().extend(headers());
    response
}

/// A part of a page, made of a template of its own and what it shows; empty where that fails.
pub fn part(template: &str, view: impl Serialize) -> String {
    let html = PAGES.get_template(template).and_then(|part| part.render(Value::from(Serde(view))));
    html.unwrap_or_else(|error| {
        tracing::error!(part = template, "a part of a page could not be shown: {error:#}");
        String::new()
    })
}

/// The headers of every page.
fn headers() -> [(HeaderName, HeaderValue); 8] {
    let fixed = |name, value| (name, HeaderValue::from_static(value));
    [
        fixed(header::CONTENT_TYPE, "text/html; charset=utf-8"),
        fixed(header::CONTENT_SECURITY_POLICY, POLICY),
        fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        fixed(header::X_FRAME_OPTIONS, "DENY"),
        fixed(header::REFERRER_POLICY, "same-origin"),
        fixed(header::CACHE_CONTROL, "no-store"),
        // Windows that this page opens, such as the connect link's, are not tied to it.
        fixed(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        fixed(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ]
}

/// Sends the browser on to another page, by GET.
pub fn see_other(place: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_compiles_and_none_has_anything_inline() {
        for name in Templates::iter() {
            let found = PAGES.get_template(&name);
            assert!(found.is_ok(), "{name}: {:?}", found.err());
            let text = Templates::get(&name).map(|file| String::from_utf8_lossy(&file.data).into_owned());
            let text = text.unwrap_or_default();
            for inline in ["<style", " style=", "<script>", " onclick", " onload", "javascript:", "| safe", "|safe"] {
                assert!(!text.contains(inline), "{name} has {inline}");
            }
        }
    }
}
