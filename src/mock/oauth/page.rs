//! The pages that a person sees at a simulated service. Called by `consent`, `device`
//! and `oauth1`.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use url::Url;

use crate::respond::Answer;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem}\
    h1{font-size:1.3rem}button{font:inherit;padding:.5rem 1.2rem;margin-right:.5rem}\
    .note{color:#666;font-size:.9rem}li{list-style:none;margin:.4rem 0}ul{padding:0}code{font-size:.85em;color:#555}";

/// Asks a person to consent. The form goes to the page's own address, whose query has the request.
pub(super) fn consent(title: &str, scopes: &[(String, String)]) -> Answer {
    let item = |(name, grants): &(String, String)| {
        let (name, grants) = (escape(name), escape(grants));
        let control = format!("<input type=\"checkbox\" name=\"granted\" value=\"{name}\" checked>");
        format!("<li><label>{control} {grants} <code>{name}</code></label></li>")
    };
    let list = scopes.iter().map(item).collect::<Vec<_>>().concat();
    let list = if list.is_empty() { list } else { format!("<ul>{list}</ul>") };
    let body = format!(
        "<p>An application asks for access to your account at {title}.</p><form method=\"post\">{list}\
         <button type=\"submit\" name=\"decision\" value=\"allow\">Allow</button>\
         <button type=\"submit\" name=\"decision\" value=\"deny\">Deny</button></form>",
        title = escape(title)
    );
    show(StatusCode::OK, title, &body)
}

/// Asks for the code that another device shows.
pub(super) fn device(title: &str, code: &str) -> Answer {
    let body = format!(
        "<p>Type the code that your device shows.</p><form method=\"post\">\
         <p><input type=\"text\" name=\"user_code\" value=\"{}\" autocomplete=\"off\" required></p>\
         <button type=\"submit\" name=\"decision\" value=\"allow\">Allow</button>\
         <button type=\"submit\" name=\"decision\" value=\"deny\">Deny</button></form>",
        escape(code)
    );
    show(StatusCode::OK, title, &body)
}

/// Says that it is done.
pub(super) fn done(title: &str, words: &str) -> Answer {
    show(StatusCode::OK, title, &format!("<p>{}</p>", escape(words)))
}

/// Sends a person back to the application, with `303` so that a form is not sent along (RFC 9700 §4.12).
pub(super) fn back(title: &str, place: &Url) -> Answer {
    match HeaderValue::from_str(place.as_str()) {
        Ok(location) => Answer::empty(StatusCode::SEE_OTHER)
            .with(header::LOCATION, location)
            .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        Err(_) => fault(title, "the redirect address cannot stand in a header"),
    }
}

/// Says what is wrong with a request that cannot be answered by a redirect.
pub(super) fn fault(title: &str, words: &str) -> Answer {
    show(StatusCode::BAD_REQUEST, title, &format!("<p>This sign-in request is not in order: {}.</p>", escape(words)))
}

fn show(status: StatusCode, title: &str, body: &str) -> Answer {
    let title = escape(title);
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}, simulated</title><style>{STYLE}</style><h1>{title}</h1>{body}\
         <p class=\"note\">This is a simulation by <code>trunkline mock</code>. No account exists, and nothing leaves this \
         machine.</p></html>\n"
    );
    Answer { body: Bytes::from(page), ..Answer::empty(status) }
        .with(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))
        .with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_definition_becomes_markup() {
        let answer = consent("A<b>", &[("\"><script>".to_owned(), "x' & <i>".to_owned())]);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains("<script>") && !text.contains("<i>") && !text.contains("A<b>"), "{text}");
    }
}
