//! Signing in and out, and the door before every other screen.

use std::sync::Arc;

use axum::extract::{Extension, Form, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::render;
use super::shell::{Ground, REQUEST, Told};
use crate::admin::refusal::Refused;
use crate::admin::sign_in::Attempt;
use crate::admin::{By, Entered, Parts, guard};
use crate::base::secret::Secret;
use crate::respond::Refusal;

type Shared = State<Arc<Parts>>;

/// What htmx is told: the address that the browser goes to.
const REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// Lets through who is signed in; shows everyone else where to sign in. What the query says of the page before is
/// taken out of it, and so is what a form sent empty.
pub async fn wanted(
    State(parts): Shared,
    Extension(entered): Extension<Entered>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(who) = entered.who {
        if let Some(told) = tidy_query(request.uri_mut()) {
            request.extensions_mut().insert(Told(told));
        }
        request.extensions_mut().insert(who);
        return next.run(request).await;
    }
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let asks = *request.method() == Method::GET;
    // A part of a page is no place to sign in: the browser is sent there whole.
    if request.headers().contains_key(REQUEST) {
        return sent_to_sign_in(&entered, if asks { target } else { "/" });
    }
    // A strict cookie is not sent when another site's link leads here; it is when our own page leads on.
    if asks && is_from_elsewhere(request.headers()) {
        let place = format!("{}{target}", entered.gateway.admin.base_path());
        return onward(&Ground::of(&entered.gateway), &place);
    }
    let to = if asks { target } else { "/" };
    asked_to_sign_in(&parts, &entered, StatusCode::UNAUTHORIZED, &json!({ "to": to }))
}

/// An answer that has htmx take the browser to the sign-in page, and from there back.
fn sent_to_sign_in(entered: &Entered, to: &str) -> Response {
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("to", to).finish();
    let mut response = StatusCode::UNAUTHORIZED.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let place = format!("{}/sign-in?{query}", entered.gateway.admin.base_path());
    response.headers_mut().extend(HeaderValue::from_str(&place).ok().map(|place| (REDIRECT, place)));
    response
}

/// Drops empty parameters and `told`, which is returned.
fn tidy_query(uri: &mut Uri) -> Option<String> {
    let query = uri.query()?.to_owned();
    let mut told = None;
    let mut kept = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, value.is_empty()) {
            ("told", _) => told = Some(value.into_owned()),
            (_, true) => {}
            (name, false) => {
                kept.append_pair(name, &value);
            }
        }
    }
    let kept = kept.finish();
    let target = if kept.is_empty() { uri.path().to_owned() } else { format!("{}?{kept}", uri.path()) };
    if let Ok(tidy) = target.parse() {
        *uri = tidy;
    }
    told
}

/// Whether another site's page led here.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    matches!(site, Some(b"cross-site" | b"same-site"))
}

/// A page that leads on by itself.
fn onward(ground: &Ground, place: &str) -> Response {
    render::page(StatusCode::OK, "onward.html", json!({ "shell": ground, "title": "One moment", "place": place }))
}

/// Where to sign in.
#[derive(Debug, Default, Deserialize)]
pub struct To {
    to: Option<String>,
}

/// Where to sign in.
pub async fn show(State(parts): Shared, Extension(entered): Extension<Entered>, Query(to): Query<To>) -> Response {
    let to = own_path(to.to.as_deref());
    if entered.who.is_some() {
        return render::see_other(&format!("{}{to}", entered.gateway.admin.base_path()));
    }
    asked_to_sign_in(&parts, &entered, StatusCode::OK, &json!({ "to": to }))
}

/// Only paths of our own: a link must not send someone who has just signed in elsewhere. Browsers leave out control
/// characters and read `\` as `/`, which makes `/<TAB>/host` another host's address.
fn own_path(to: Option<&str>) -> &str {
    let is_odd = |c: char| c.is_control() || c == '\\';
    let is_own = |to: &&str| to.starts_with('/') && !to.starts_with("//") && !to.contains(is_odd);
    to.filter(is_own).unwrap_or("/")
}

fn asked_to_sign_in(parts: &Parts, entered: &Entered, status: StatusCode, more: &Value) -> Response {
    let ground = Ground::of(&entered.gateway);
    let open = guard::is_open(&entered.gateway, &parts.listen);
    let closed = entered.gateway.admin.accounts.is_empty() && !open;
    let view = json!({
        "shell": ground,
        "title": "Sign in",
        "by_link": open,
        "closed": closed,
        "in_the_clear": entered.way.is_none(),
        "asked": more,
    });
    render::page(status, "sign_in.html", view)
}

/// What someone shows.
#[derive(Deserialize)]
pub struct Shown {
    name: String,
    password: String,
    to: Option<String>,
}

/// Signs someone in by name and password.
pub async fn sign_in(
    State(parts): Shared,
    Extension(entered): Extension<Entered>,
    headers: HeaderMap,
    Form(shown): Form<Shown>,
) -> Result<Response, Refused> {
    let to = own_path(shown.to.as_deref());
    let Some(way) = entered.way else {
        let help = "let the door speak TLS, or say under `admin.url` what the HTTPS proxy before it is called";
        let detail = "a password sent here would cross the network in the clear";
        return Err(Refused::with_help(Refusal::HttpsRequired, detail, help));
    };
    let password = Secret::new(shown.password);
    let attempt = Attempt {
        name: shown.name.trim(),
        password: &password,
        source: entered.source,
        device: way.read_device(&headers),
    };
    match parts.sign_in.by_password(&entered.gateway.admin, attempt).await {
        Ok(signed_in) => {
            let mut response = render::see_other(&format!("{}{to}", entered.gateway.admin.base_path()));
            way.begin(&signed_in).for_each(|cookie| _ = response.headers_mut().append(header::SET_COOKIE, cookie));
            Ok(response)
        }
        Err(refused) => {
            let problem = refused.document();
            let asked = json!({ "to": to, "name": shown.name, "problem": problem });
            let answer = refused.into_response();
            let mut page = asked_to_sign_in(&parts, &entered, answer.status(), &asked);
            for name in [crate::respond::ERROR_HEADER, header::RETRY_AFTER] {
                page.headers_mut().extend(answer.headers().get(&name).map(|value| (name, value.clone())));
            }
            Ok(page)
        }
    }
}

/// The word of a link.
#[derive(Deserialize)]
pub struct Word {
    word: String,
}

/// Previewers of links ask for heads: that must not use one up.
pub async fn not_by_head() -> StatusCode {
    StatusCode::METHOD_NOT_ALLOWED
}

/// Signs someone in by a link that was printed for them.
pub async fn by_link(
    State(parts): Shared,
    Extension(entered): Extension<Entered>,
    Query(Word { word }): Query<Word>,
) -> Result<Response, Refused> {
    let Some(way) = entered.way else {
        return Err(Refused::new(Refusal::HttpsRequired, "the link would cross the network in the clear"));
    };
    let signed_in = parts.sign_in.by_link(&entered.gateway.admin, &word, entered.source).await?;
    let ground = Ground::of(&entered.gateway);
    let place = format!("{}/", ground.base);
    let mut page = onward(&ground, &place);
    way.begin(&signed_in).for_each(|cookie| _ = page.headers_mut().append(header::SET_COOKIE, cookie));
    Ok(page)
}

/// Ends the session.
pub async fn sign_out(
    State(parts): Shared,
    By(by): By,
    Extension(entered): Extension<Entered>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let mut response = render::see_other(&format!("{}/sign-in", entered.gateway.admin.base_path()));
    if let Some(way) = entered.way
        && let Some(cookie) = way.read(&headers)
    {
        parts.sign_in.sign_out(&by, cookie, entered.source).await?;
        response.headers_mut().extend(way.end().map(|cookie| (header::SET_COOKIE, cookie)));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere_after_signing_in() {
        for (to, place) in [
            ("/events?state=dead", "/events?state=dead"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example/x", "/"),
            ("/a\\..\\b", "/"),
            ("https://evil.example", "/"),
            ("events", "/"),
            ("/a\r\nset-cookie: x", "/"),
        ] {
            assert_eq!(own_path(Some(to)), place, "{to}");
        }
        assert_eq!(own_path(None), "/");
    }

    #[test]
    fn queries_lose_what_a_form_left_empty() {
        let mut uri: Uri = "/events?state=&type=a&told=replayed".parse().expect("a URI");
        assert_eq!(tidy_query(&mut uri).as_deref(), Some("replayed"));
        assert_eq!(uri, "/events?type=a");
        let mut uri: Uri = "/events?state=".parse().expect("a URI");
        assert_eq!((tidy_query(&mut uri), uri), (None, "/events".parse().expect("a URI")));
    }
}
